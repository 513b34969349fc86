"""`grade` says what is wrong, whatever a learner's function does; `check` and `hint` show it."""

import gc
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from toy import MEAN, PAIR, scaled_mean

from metalearn.course import check, hint
from metalearn.course.exercises import checking, exercise, grading
from metalearn.course.exercises.exercise import Misconception, Question
from metalearn.course.exercises.grading import grade
from metalearn.task import Task

# --- right answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("toy", [MEAN, PAIR], ids=lambda toy: toy.id)
@pytest.mark.parametrize("seed", [0, 1])
def test_reference_and_alternatives_pass(toy, seed):
    for function in (toy.reference, jax.jit(toy.reference), partial(toy.reference), *toy.alternatives):
        verdict = grade(toy, function, seed)
        assert (verdict.status, verdict.figure) == ("passed", None)


def test_a_judge_says_what_is_compared_and_why():
    def judge(function, points, scale):
        found = function(points, scale)
        if found is None or found is Ellipsis:
            return found
        return np.array([float(np.all(found > 0))]), f"{np.size(found)} numbers"

    above = replace(
        MEAN,
        reference=lambda points, scale: np.ones(2),
        judge=judge,
        misconceptions=(Misconception("below", lambda points, scale: -np.ones(4), "Below zero."),),
    )
    passed = grade(above, lambda points, scale: np.array([5.0, 7.0]))
    assert (passed.status, passed.message) == ("passed", "2 numbers")
    failed = grade(above, lambda points, scale: np.array([-1.0]))
    assert (failed.status, failed.message, failed.misconception) == ("failed", "Below zero.", "below")
    never = Misconception("above", lambda points, scale: np.ones(3), "Never shown.")
    told = grade(replace(above, misconceptions=(never,)), lambda points, scale: np.zeros(3))
    assert (told.status, told.message, told.misconception) == ("failed", "3 numbers", None)
    assert grade(above, lambda points, scale: ...).status == "not yet"
    assert "None" in grade(above, lambda points, scale: None).message


def test_results_are_computed_in_float64():
    seen = []

    def function(points, scale):
        result = scaled_mean(points, scale)
        seen.append(result.dtype)
        return result

    assert grade(MEAN, function).status == "passed"
    assert set(seen) == {jnp.dtype("float64")}
    assert jnp.ones(1).dtype == "float32"


def test_rounding_is_forgiven_and_a_wrong_fourth_digit_is_not():
    assert grade(MEAN, lambda points, scale: scaled_mean(points, scale) * (1 + 1e-5)).status == "passed"
    assert grade(MEAN, lambda points, scale: scaled_mean(points, scale) * (1 + 1e-3)).status == "failed"
    assert grade(PAIR, lambda x: (x[0], {"twice": 2 * x, "zero": x * 1e-9})).status == "passed"
    assert grade(PAIR, lambda x: (x[0], {"twice": 2 * x, "zero": x * 1e-3})).status == "failed"


def test_tolerance_follows_the_scale_of_the_numbers():
    tiny = replace(MEAN, instances=lambda rng: [(1e-4 * rng.normal(1, 1, (3, 2)), 1.0)])
    huge = replace(MEAN, instances=lambda rng: [(np.array([[1e9, 1.0]]), 1.0)])
    assert grade(tiny, lambda points, scale: scaled_mean(points, scale) * 1.005).status == "failed"
    assert grade(huge, lambda points, scale: scaled_mean(points, scale) + 10).status == "passed"
    assert grade(huge, lambda points, scale: scaled_mean(points, scale) + 1e6).status == "failed"


# --- not begun -----------------------------------------------------------------------------------------------


def test_a_stub_is_not_yet():
    def stub(points, scale):
        raise NotImplementedError

    assert grade(MEAN, stub).status == "not yet"
    assert grade(MEAN, jax.jit(stub)).status == "not yet"


def test_a_body_of_dots_is_not_yet_and_a_missing_return_is_a_mistake():
    assert grade(MEAN, lambda points, scale: ...).status == "not yet"
    verdict = grade(MEAN, lambda points, scale: None)
    assert verdict.status == "failed"
    assert "is a `return` missing?" in verdict.message


def test_a_not_implemented_error_of_jax_is_an_error():
    def function(points, scale):
        return jax.jvp(lambda scale: jax.pure_callback(float, scale, scale), (scale,), (scale,))

    verdict = grade(MEAN, function)
    assert verdict.status == "failed"
    assert "raised an error" in verdict.message


# --- not a function of the right arguments -------------------------------------------------------------------


def test_the_result_instead_of_the_function():
    verdict = grade(MEAN, jnp.ones(2))
    assert verdict.status == "failed"
    assert (
        'got an array of shape [2]. Write the function\'s name alone, `check("99.scaled_mean", my_function)`'
        in verdict.message
    )


@pytest.mark.parametrize("thing", [None, 3.0, "scaled_mean", [scaled_mean]])
def test_things_that_are_not_functions(thing):
    assert "needs the function itself" in grade(MEAN, thing).message


def test_wrong_number_of_parameters():
    verdict = grade(MEAN, lambda points: points)
    assert verdict.status == "failed"
    assert verdict.message == "Your function must accept the arguments `(points, scale)`; its own are `(points)`."
    assert grade(MEAN, lambda points, weight, bias: points).status == "failed"
    assert grade(MEAN, lambda *arguments: scaled_mean(*arguments)).status == "passed"
    assert grade(MEAN, lambda points, factor, axis=0: scaled_mean(points, factor)).status == "passed"


# --- errors --------------------------------------------------------------------------------------------------


def test_an_error_names_itself_the_line_and_the_arguments():
    def function(points, scale):
        if points.shape[0] == 3:
            return jnp.dot(points, points)  # of no use
        return scaled_mean(points, scale)

    message = grade(MEAN, function).message
    assert "on instance 2 of 4, with `points`: an array of shape [3, 6], `scale`: 2.0" in message
    assert "TypeError: dot_general requires" in message
    assert "return jnp.dot(points, points)  # of no use" in message
    assert "Traceback" not in message
    assert "JAX_TRACEBACK_FILTERING" not in message  # a note of JAX about the traceback that is not shown


class _Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def _raise_unspeakable(points, scale):
    raise _Unspeakable


def _recurse(points, scale):
    return _recurse(points, scale)


def _exit(points, scale):
    sys.exit("goodbye")


def _interrupt(points, scale):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_recurse, "RecursionError"),
        (_exit, "SystemExit: goodbye"),
        (_interrupt, "KeyboardInterrupt"),
        (_raise_unspeakable, "_Unspeakable"),
    ],
)
def test_no_exception_escapes(function, said):
    verdict = grade(MEAN, function)
    assert verdict.status == "failed"
    assert said in verdict.message


def test_a_tracer_that_leaks_is_an_error():
    leaked = []
    jax.jit(lambda x: leaked.append(x))(1.0)
    assert "UnexpectedTracerError" in grade(MEAN, lambda points, scale: leaked[0] + 1).message


def _endless(points, scale):
    while True:
        pass


def _endless_and_deaf(points, scale):
    while True:
        try:
            while True:
                pass
        except Exception:
            pass


@pytest.mark.parametrize("function", [_endless, _endless_and_deaf])
def test_an_endless_loop_is_stopped(function):
    threads = threading.active_count()
    verdict = grade(MEAN, function, timeout=0.5)
    assert verdict.status == "failed"
    said = "did not finish within 0.5 s of processor time on instance 1 of 4, with `points`: an array of shape [2, 2]"
    assert said in verdict.message
    assert "still running" not in verdict.message
    assert threading.active_count() == threads


def test_time_that_others_take_from_the_processor_is_not_the_learners():
    """By both clocks, a function that sleeps is one on a machine that is busy with something else."""

    def slow(points, scale):
        time.sleep(0.8)
        return scaled_mean(points, scale)

    assert grade(MEAN, slow, timeout=0.4).status == "passed"


def test_a_function_that_only_waits_is_stopped_too(monkeypatch):
    monkeypatch.setattr(grading, "PATIENCE", 2)

    def waits(points, scale):
        while True:
            time.sleep(0.01)

    start = time.monotonic()
    verdict = grade(MEAN, waits, timeout=0.4)
    assert time.monotonic() - start > 0.8
    assert "was stopped after 0.8 s on instance 1 of 4" in verdict.message
    assert "does it wait for something" in verdict.message


@pytest.mark.slow
def test_processor_time_counts_anew_for_every_instance():
    def busy(points, scale):
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        return scaled_mean(points, scale)

    assert grade(MEAN, busy, timeout=0.6).status == "passed"  # 1.2 s together


@pytest.mark.slow
def test_a_function_that_cannot_be_stopped_is_told():
    release = threading.Event()

    def waits_outside_python(points, scale):
        release.wait()  # one long wait in C

    verdict = grade(MEAN, waits_outside_python, timeout=0.1)
    release.set()
    assert "It could not be stopped and is still running" in verdict.message


@pytest.fixture
def no_garbage_collection():
    """JAX has a part in each collection, and an interrupt that arrives there is lost."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
def test_the_learner_can_interrupt_a_check():
    assert grade(MEAN, MEAN.reference).status == "passed"  # what JAX starts once is started
    threads = threading.active_count()
    interrupted = threading.Event()

    def press():
        while not interrupted.wait(1.0):  # again: an interrupt within a garbage collection of JAX's is lost
            os.kill(os.getpid(), signal.SIGINT)

    learner = threading.Thread(target=press)
    learner.start()
    with pytest.raises(KeyboardInterrupt):
        grade(MEAN, _endless)
    interrupted.set()
    learner.join()
    assert threading.active_count() == threads


# --- wrong results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda x: x,
            "Expected a tuple of a number and dict(twice=shape [2], zero=shape [2]); got an array of shape [2].",
        ),
        (lambda x: [x[0], {"twice": x, "zero": x}], "got a list of a number and dict(twice=shape [2], zero=shape [2])"),
        (
            lambda x: (x, {"twice": x, "zero": x}),
            "got a tuple of an array of shape [2] and dict(twice=shape [2], zero=",
        ),
        (lambda x: (x[0], {"twice": 2 * x}), "got a tuple of a number and dict(twice=shape [2])."),
        (lambda x: (x[0], None), "got a tuple of a number and `None`."),
        (lambda x: (x[0], {"twice": "2x", "zero": x}), "dict(twice=a str, zero=shape [2])."),
        (lambda x: jnp.sin, "got a function. Is a call missing?"),
        (lambda x: "text", "got a str."),
        (lambda x: np.array(["text"]), "got a ndarray."),
        (lambda x: {1: x, "a": x}, "raised an error"),
        (lambda x: [], "got list()."),
        (lambda x: list(range(10)), "got a list of a number, a number, a number, a number, a number and 5 more."),
    ],
)
def test_structure_and_shapes_are_compared_in_words(function, said):
    verdict = grade(PAIR, function)
    assert verdict.status == "failed"
    assert said in verdict.message


def test_shapes_are_not_broadcast():
    message = grade(MEAN, lambda points, scale: scaled_mean(points, scale)[None]).message
    assert "Expected an array of shape [2]; got an array of shape [1, 2]." in message


class Point(NamedTuple):
    value: float
    parts: dict


def test_a_named_tuple_of_the_right_length_is_a_tuple():
    assert grade(PAIR, lambda x: Point(*PAIR.reference(x))).status == "passed"
    assert grade(PAIR, lambda x: Point(x[0], {"twice": 3 * x, "zero": 0 * x})).misconception == "thrice"
    inside = replace(PAIR, reference=lambda x: {"both": [(x, x)]}, instances=lambda rng: [(rng.normal(size=2),)])
    assert grade(inside, lambda x: {"both": [Point(x, x)]}).status == "passed"
    assert grade(inside, lambda x: {"both": [Point(x, 2 * x)]}).status == "failed"
    named = replace(inside, reference=lambda x: Point(x, x))
    assert "got a tuple" in grade(named, lambda x: (x, x)).message


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([0], "1 of your 2 numbers is infinite or not a number."),
        ([0, 1], "All 2 numbers of yours are infinite or not a number."),
    ],
)
def test_numbers_that_are_not_finite_are_counted(bad, said):
    toy = replace(MEAN, instances=lambda rng: MEAN.instances(rng)[:1])
    function = lambda points, scale: scaled_mean(points, scale).at[np.array(bad)].set(jnp.nan)  # noqa: E731
    assert said in grade(toy, function).message


def test_one_number_that_is_not_finite_is_not_counted():
    toy = replace(PAIR, reference=lambda x: x[0])
    assert "Your number is infinite or not a number." in grade(toy, lambda x: x[0] * np.inf).message


def test_the_first_instance_that_differs_is_shown():
    verdict = grade(MEAN, lambda points, scale: jnp.mean(points, axis=0) * (0.5 if scale == 0.5 else 1.0))
    target, yours = re.findall(r"^ +(?:target|yours)  (.*)$", verdict.message, re.MULTILINE)
    assert "Right on 1 of 4 instances. The first that differs has `points`: an array of shape [3, 6]" in verdict.message
    np.testing.assert_allclose(np.fromstring(target, sep=" "), 2 * np.fromstring(yours, sep=" "), rtol=1e-4)
    np.testing.assert_allclose(verdict.figure.target, 2 * verdict.figure.yours)
    assert len(verdict.figure.target) == 6


def test_the_leaf_that_differs_is_named():
    verdict = grade(PAIR, lambda x: (x[0], {"twice": x, "zero": 0 * x}))
    assert "At `[1]['twice']` of the result" in verdict.message


def test_long_arrays_are_cut_and_neither_long_nor_short_ones_are_drawn():
    last = replace(MEAN, instances=lambda rng: MEAN.instances(rng)[-1:])
    verdict = grade(last, lambda points, scale: 1 + scaled_mean(points, scale))
    assert verdict.message.count("...") == 2
    assert verdict.figure is None
    assert grade(MEAN, lambda points, scale: 1 + scaled_mean(points, scale)).figure is None  # two numbers


def test_a_common_factor_is_told():
    message = grade(MEAN, lambda points, scale: -1.883 * scaled_mean(points, scale)).message
    assert "Your result is minus 1.883 times the target. A sum for a mean, or" in message
    message = grade(MEAN, lambda points, scale: -scaled_mean(points, scale)).message
    assert "Your result is minus the target. Is a sign turned round" in message
    other = grade(MEAN, lambda points, scale: (-2 if scale < 1 else -3) * scaled_mean(points, scale))
    assert "times the target" not in other.message
    assert "a factor that differs between instances: -2, -3, -2. Which number has that size there?" in other.message


def test_a_factor_is_told_of_the_instances_that_differ_only():
    message = grade(MEAN, lambda points, scale: (1 if scale == 0.5 else 3) * scaled_mean(points, scale)).message
    assert "Right on 1 of 4 instances." in message
    assert "On the instances that differ, your result is 3 times the target." in message
    zero = replace(PAIR, reference=lambda x: x, instances=lambda rng: [(np.zeros(2),), (np.ones(2),)])
    assert "Your result is 1.883 times the target" in grade(zero, lambda x: 1.883 * x).message
    right_once = replace(PAIR, reference=lambda x: x, instances=lambda rng: [(np.ones(2),), (3 * np.ones(1),)])
    message = grade(right_once, lambda x: x if len(x) == 2 else np.full(1, 5.0)).message
    assert "Right on 1 of 2 instances." in message


TASK = Task(support=np.array([1.0, 2.0]), query=np.array([0.5, -1.0]))


def _quadratic(params, batch):
    return jnp.sum(jnp.sin(params) * (params - batch) ** 2)


def _descent(loss, task, params, learning_rate, num_steps):
    for _ in range(num_steps):
        params = params - learning_rate * jax.grad(loss)(params, task.support)
    return jax.grad(loss)(params, task.query)


INNER = replace(
    PAIR,
    reference=_descent,
    instances=lambda rng: [
        (_quadratic, TASK, rng.normal(size=2), 0.1, 3),
        (_quadratic, TASK._replace(query=rng.normal(size=2)), rng.normal(size=2), 0.05, 2),
        (_quadratic, TASK, rng.normal(size=2), 0.2, 0),
    ],
    relatives=(("the mean, twice", lambda loss, task, params, learning_rate, num_steps: np.full(2, params.mean())),),
)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda points, scale: jnp.mean(points, axis=0), "(1 / `scale`) times the target"),
        (lambda points, scale: scale * jnp.sum(points, axis=0) * scale, "(the length of `points` * `scale`) times the"),
        (lambda points, scale: 0 * points[0], "Your result is zero."),
        (lambda points, scale: scaled_mean(points, scale) ** 2, "Your result is the square of the target."),
        (lambda points, scale: scaled_mean(points, scale)[::-1], "Your result is the target in reversed order."),
        (lambda points, scale: scaled_mean(points, scale)[None], "only the form in which you return them differs"),
        (lambda points, scale: points, "Your result is the argument `points` itself."),
        (lambda points, scale: scale * points, "The mean over the first axis of your result equals the target."),
        (lambda points, scale: scaled_mean(points, scale).sum(), "Your result is the sum of the target."),
        (
            lambda points, scale: scale * points[0],
            "the right result given only the first entry of `poin",
        ),
    ],
)
def test_what_a_result_equals_is_told(function, said):
    verdict = grade(MEAN, function)
    assert said in verdict.relation
    assert verdict.message.endswith(verdict.relation)


def test_a_small_part_beside_a_large_one_is_not_the_target():
    two = replace(PAIR, reference=lambda x: (x[0], 1e6 * x), instances=lambda rng: [(np.arange(1.0, 4.0),)] * 2)
    message = grade(two, lambda x: (x[0] + 0.1, 1e6 * x)).message
    assert "All is right but one part: the first part is 1.1 times its target." in message
    wrong = grade(two, lambda x: (-x[0], 0 * x)).message
    assert wrong.endswith(
        "In your result, the first part is minus its target, and the second part is zero. Is a sign turned round "
        "somewhere? Is a derivative taken of something that does not depend on the variable, or is a result never "
        "added to?"
    )


def test_nothing_is_said_of_a_result_that_is_like_nothing():
    assert grade(MEAN, lambda points, scale: jnp.cos(points[0]) + points[-1]).relation is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, p, a, k: (t, p, a, k + 1), "the right result for `num_steps + 1`."),
        (lambda t, p, a, k: (t, p, a, max(k - 1, 0)), "for `num_steps - 1`."),
        (lambda t, p, a, k: (Task(t.query, t.support), p, a, k), "with support and query set exchanged."),
        (lambda t, p, a, k: (Task(t.query, t.query), p, a, k), "with the query set in both roles."),
        (lambda t, p, a, k: (t, p, -a, k), "for `-learning_rate`."),
        (lambda t, p, a, k: (t, p, 2 * a, k), "for twice `learning_rate`."),
        (lambda t, p, a, k: (t, p, 1.0, k), "for `learning_rate = 1`."),
        (lambda t, p, a, k: (t, 0 * p, a, k), "with zeros for `params`."),
    ],
)
def test_the_arguments_that_a_result_fits_are_told(change, said):
    def function(loss, task, params, learning_rate, num_steps):
        return _descent(loss, *change(task, params, learning_rate, num_steps))

    assert said in grade(INNER, function).relation


def test_points_and_gradients_of_the_inner_loop_are_told():
    def adapted(loss, task, params, learning_rate, num_steps):
        for _ in range(num_steps):
            params = params - learning_rate * jax.grad(loss)(params, task.support)
        return params

    def step(loss, task, params, learning_rate, num_steps):
        return params - learning_rate * _descent(loss, task, params, learning_rate, num_steps)

    def change(loss, task, params, learning_rate, num_steps):
        return (adapted(loss, task, params, learning_rate, num_steps) - params) / learning_rate

    assert "is the parameters after the inner steps." in grade(INNER, adapted).relation
    assert "is the argument `params` minus `learning_rate` times the target." in grade(INNER, step).relation
    assert "`learning_rate`) times the change of the parameters after the inner steps." in grade(INNER, change).relation


def test_a_relative_of_the_exercise_is_told_and_a_multiple_of_it():
    def mean(loss, task, params, learning_rate, num_steps):
        return np.full(2, params.mean())

    assert grade(INNER, mean).relation == "Your result is the mean, twice."
    assert grade(INNER, lambda *args: -mean(*args)).relation == "Your result is minus the mean, twice."


def test_parts_are_told_apart():
    toy = replace(PAIR, reference=lambda x: (x[0] ** 2, x[1] ** 3))
    assert (
        "All is right but one part: the second part is 2 times its target."
        in grade(toy, lambda x: (x[0] ** 2, 2 * x[1] ** 3)).message
    )
    assert (
        "Of your result, the first part and the second part have changed places."
        in grade(toy, lambda x: (x[1] ** 3, x[0] ** 2)).message
    )
    assert grade(toy, lambda x: (x[0] ** 2, x[1] + 7)).message.endswith("All is right but the second part.")


class Right:
    def __call__(self, x):
        return x


class Wrong(Right):
    pass


def test_a_test_is_told_what_it_judges_wrong():
    toy = replace(
        PAIR,
        reference=lambda candidate: not isinstance(candidate, Wrong),
        instances=lambda rng: [(Right(),), (Wrong(),)],
    )
    assert "Your test accepts Wrong. On which" in grade(toy, lambda candidate: True).message
    assert "Your test rejects Right. Is your" in grade(toy, lambda candidate: False).message


def test_complex_and_boolean_results():
    assert grade(MEAN, lambda points, scale: scaled_mean(points, scale) + 0j).status == "passed"
    assert grade(MEAN, lambda points, scale: scaled_mean(points, scale) + 1j).status == "failed"
    signs = replace(MEAN, reference=lambda points, scale: points.mean(0) > 0)
    assert grade(signs, lambda points, scale: points.mean(0) > 0).status == "passed"
    assert grade(signs, lambda points, scale: points.mean(0) < 0).status == "failed"


# --- misconceptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("misconception", MEAN.misconceptions[1:], ids=lambda wrong: wrong.name)
def test_a_misconception_gets_its_own_diagnosis(misconception, seed):
    verdict = grade(MEAN, misconception.function, seed)
    assert (verdict.status, verdict.misconception) == ("failed", misconception.name)
    assert verdict.message == misconception.diagnosis


def test_a_misconception_must_agree_on_every_instance():
    def function(points, scale):
        return scale * (jnp.mean(points, 0) if len(points) == 4 else jnp.sum(points, 0))

    verdict = grade(MEAN, function)
    assert (verdict.status, verdict.misconception) == ("failed", None)


# --- a learner cannot change the target ----------------------------------------------------------------------


def test_arguments_are_copies():
    def vandal(points, scale):
        points[:] = 0.0
        return points.mean(axis=0)

    assert grade(MEAN, vandal).status == "failed"
    assert grade(MEAN, scaled_mean).status == "passed"

    nested = replace(
        PAIR,
        reference=lambda tree: tree["x"][0],
        instances=lambda rng: [({"x": [rng.normal(size=2)]},)] * 2,
        misconceptions=(Misconception("twice", lambda tree: 2 * tree["x"][0], "Twice."),),
    )

    def nested_vandal(tree):
        result = tree["x"].pop()
        tree.clear()
        result *= 2
        return result

    verdict = grade(nested, nested_vandal)
    assert verdict.misconception == "twice"
    assert verdict.message.startswith("Twice.\n\nYour function also changes its argument `tree`, and whoever")
    assert grade(nested, nested.reference).status == "passed"


class Both(NamedTuple):
    array: np.ndarray
    parts: list


def _set(tree):
    tree[0] = 5.0


CONTAINERS = {  # an argument, and how it is changed
    "array": (lambda: np.arange(3.0), _set),
    "array of whole numbers": (lambda: np.arange(3), lambda x: np.negative(x, out=x)),
    "array of nothing but its last number": (lambda: np.zeros(10_000), lambda x: x.__setitem__(-1, 1e-300)),
    "shape": (lambda: np.ones((2, 3)), lambda x: setattr(x, "shape", (3, 2))),
    "order": (lambda: np.array([2.0, 1.0]), lambda x: x.sort()),
    "not a number": (lambda: np.array([0.0, np.nan]), lambda x: x.fill(np.nan)),
    "list": (lambda: [1.0, 2.0], _set),
    "list that grows": (lambda: [1.0, 2.0], lambda x: x.append(3.0)),
    "list of arrays": (lambda: [np.ones(2), np.ones(2)], lambda x: x[1].fill(0.0)),
    "list of JAX arrays": (lambda: [jnp.ones(2)], lambda x: x.__setitem__(0, x[0] + 1)),
    "list of names": (lambda: ["a", "b"], lambda x: x.reverse()),
    "dictionary": (lambda: {"w": 1.0}, lambda x: x.update(w=2.0)),
    "dictionary with another key": (lambda: {"w": 1.0}, lambda x: x.update(b=2.0)),
    "dictionary with keys of two kinds": (lambda: {"w": 1.0}, lambda x: x.update({3: 2.0})),
    "dictionary with something odd": (lambda: {"w": np.ones(2)}, lambda x: x.update(w=object())),
    "dictionary with one key fewer": (lambda: {"w": 1.0, "b": 2.0}, lambda x: x.pop("b")),
    "memory of nothing yet": (lambda: [None, None], lambda x: x.__setitem__(0, np.ones(2))),
    "tuple of arrays": (lambda: (np.ones(2), np.ones(2)), lambda x: x[1].fill(0.0)),
    "named tuple": (lambda: Both(np.ones(2), []), lambda x: x.array.fill(0.0)),
    "list in a named tuple": (lambda: Both(np.ones(2), [1.0]), lambda x: x.parts.clear()),
    "nested": (lambda: {"layers": [(np.ones(2), {"b": np.ones(3)})]}, lambda x: x["layers"][0][1]["b"].fill(0.0)),
}


def _of_two(make):
    """An exercise whose results do not depend on its second argument."""
    return replace(
        PAIR,
        reference=lambda x, batch: 2 * x,
        instances=lambda rng: [(rng.normal(size=2), make()) for _ in range(2)],
        misconceptions=(Misconception("thrice", lambda x, batch: 3 * x, "Count."),),
    )


@pytest.mark.parametrize(("make", "change"), CONTAINERS.values(), ids=list(CONTAINERS))
def test_a_right_answer_that_changes_an_argument_is_refused(make, change):
    def double(x, mine):
        change(mine)
        return 2 * x

    toy = _of_two(make)
    assert grade(toy, lambda x, batch: 2 * x).status == "passed"
    verdict = grade(toy, double)
    assert (verdict.status, verdict.message) == ("failed", verdict.changed)
    said = "Your results are right, but your function changes its argument `batch`, and"
    assert verdict.message.startswith(said), verdict.message
    assert "`copy.deepcopy(batch)`" in verdict.message


def test_all_changed_arguments_are_named_whichever_instance_shows_it():
    calls = []

    def double(x, batch):
        calls.append(None)
        result = 2 * x
        (x if len(calls) % 2 else batch)[:] = 0
        return result

    assert "its arguments `x` and `batch`, and" in grade(_of_two(lambda: np.ones(2)), double).message


def _draw(rng):
    rng.normal()


def _work_on_a_copy(batch):
    batch = list(batch)
    batch[0] = 0.0


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: np.random.default_rng(0), _draw),
        (lambda: jax.random.key(0), jax.random.split),
        (lambda: {"key": [jax.random.key(0)]}, lambda tree: jax.random.normal(tree["key"][0])),
        (lambda: jax.random.PRNGKey(0), jax.random.split),
        (lambda: jnp.sin, lambda function: function(1.0)),
        (lambda: [jnp.sin, object()], lambda pair: pair[0](1.0)),
        (lambda: [1.0, 2.0], _work_on_a_copy),
        (lambda: {"w": np.array([np.nan])}, lambda tree: tree.update(w=tree["w"].copy())),
        (lambda: None, lambda nothing: None),
    ],
    ids=["generator", "key", "key in a pytree", "old key", "function", "object", "copy", "equal", "nothing"],
)
def test_what_is_only_used_is_not_changed(make, use):
    def double(x, batch):
        use(batch)
        return 2 * x

    assert grade(_of_two(make), double).status == "passed"


@pytest.mark.parametrize("wrong", [lambda x, batch: 3 * x, lambda x, batch: 2.5 * x])
def test_a_wrong_answer_that_changes_an_argument_hears_both(wrong):
    def wrong_in_place(x, batch):
        batch[0] = 5.0
        return wrong(x, batch)

    toy = _of_two(lambda: np.ones(2))
    plain, verdict = grade(toy, wrong), grade(toy, wrong_in_place)
    assert plain.changed is None
    assert verdict == replace(plain, message=verdict.message, changed=verdict.changed, figure=verdict.figure)
    assert verdict.message == f"{plain.message}\n\n{verdict.changed}"
    assert verdict.changed.startswith("Your function also changes its argument `batch`, and")


def test_a_result_cannot_change_after_it_was_returned():
    buffer = np.zeros(2)

    def reuses(x):
        buffer[:] = x
        return buffer

    toy = replace(PAIR, reference=lambda x: x, instances=lambda rng: [(rng.normal(size=2),) for _ in range(3)])
    assert grade(toy, reuses).status == "passed"


# --- what a learner calls ------------------------------------------------------------------------------------


def test_check_shows_the_verdict_and_records_a_pass(toy_lesson, progress_file, said):
    check("99.scaled_mean", lambda points, scale: points)
    assert said().startswith("**✗ Not right yet.** Different on all 4 instances.")
    assert not progress_file.exists()
    check("99.scaled_mean", scaled_mean)
    agrees = "**✓ Passed.** Your function agrees with the reference on"
    assert said() == f"{agrees} all 4 instances. One of two exercises of this lesson is done."
    assert '"99.scaled_mean"' in progress_file.read_text()
    check("99.pair", PAIR.reference)
    assert said() == f"{agrees} both instances. **Both exercises of this lesson are done.**"


def test_an_interrupted_check_says_so(toy_lesson, progress_file, said, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checking, "grade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check("99.scaled_mean", scaled_mean)
    assert "The check was interrupted." in said()


def test_hints_come_one_by_one(toy_lesson, said):
    hint("99.scaled_mean")
    assert said() == "**Hint 1 of 2.** What is a mean? *(1 more hint left)*"
    hint("99.scaled_mean")
    assert said() == "**Hint 2 of 2.** Which axis counts the points? *(this was the last hint)*"
    hint("99.scaled_mean")
    assert "You have seen all hints." in said()


def test_an_unknown_id_lists_near_ones(toy_lesson):
    with pytest.raises(ValueError, match=r"no exercise has the id '99.scaled_men'; near it: 99.scaled_mean"):
        exercise.find("99.scaled_men")
    with pytest.raises(ValueError, match=r"99\.pair"):
        exercise.find("42.pair")
    with pytest.raises(ValueError, match="no lesson has the number '42'; there are 99"):
        exercise.quiz_of("42")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": "mean"}, "id must look like"),
        ({"title": " "}, "title"),
        ({"difficulty": 4}, "difficulty"),
        ({"minutes": 0}, "minutes"),
        ({"misconceptions": ()}, "at least one"),
        ({"misconceptions": MEAN.misconceptions[1:2] * 2}, "share a name"),
        ({"misconceptions": (Misconception("sum", sum, ""),)}, "diagnosis"),
        ({"alternatives": ()}, "alternatives"),
        ({"hints": ("",)}, "hints"),
        ({"hints": ()}, "hints"),
        ({"expected": ""}, "expected"),
        ({"rtol": 0}, "rtol"),
    ],
)
def test_an_incomplete_exercise_cannot_be_defined(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(MEAN, **change)


@pytest.mark.parametrize(
    ("options", "answer", "feedback", "complaint"),
    [
        (("a",), 0, ("Yes.",), "at least two"),
        (("a", "a"), 0, ("Yes.", "No."), "different"),
        (("a", "$b$"), 0, ("Yes.", "No."), "plain text"),
        (("a", "b"), 2, ("Yes.", "No."), "index"),
        (("a", "b"), 0, ("Yes.",), "one sentence"),
        (("a", "b"), 0, ("Yes.", " "), "one sentence"),
    ],
)
def test_an_unanswerable_question_cannot_be_defined(options, answer, feedback, complaint):
    with pytest.raises(ValueError, match=complaint):
        Question("Which?", options, answer, feedback)


# --- in a kernel ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cells_of_a_notebook(progress_file, tmp_path):
    """In a real kernel: what is printed stays visible, results are Markdown, a figure has a text beside it."""
    cells = [
        "import sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from metalearn.course import check, explore, predict\n"
        "from metalearn.course.exercises import exercise\n"
        "import toy\n"
        "exercise.numbers, exercise._module = lambda: ['99'], lambda lesson: toy",
        "def f(points, scale):\n    print('hello')\n    return toy.scaled_mean(points, scale)\n"
        "check('99.scaled_mean', f)",
        "def g(points, scale):\n    return 1 / 0  # here\ncheck('99.scaled_mean', g)",
        "check('99.scaled_mean', lambda p, s: f(p, s) + (s > 1))",
        "from matplotlib.figure import Figure\nexplore(lambda x: Figure(), 'nothing', x=(0, 1, 0.1))",
        "predict('99.x', 'What?').reveal(1.0)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    # Print may reach the notebook in several messages.
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, coalesce_streams=True, resources=resources).execute()
    outputs = [cell.outputs for cell in notebook.cells]

    passed, stream = outputs[1]  # the card stood there from the first moment, saying "Checking"
    assert stream["text"].count("hello") == 4
    assert "metalearn-passed" in passed["data"]["text/html"] and "Checking" not in passed["data"]["text/html"]
    assert "Passed" in passed["data"]["text/plain"]

    assert "line 2: return 1 / 0  # here" in outputs[2][0]["data"]["text/html"]

    figure = outputs[3][-1]["data"]
    assert {"text/html", "image/png", "text/plain"} <= set(figure)
    assert "target (circles, solid)" in figure["text/plain"]

    picture, explored = outputs[4]
    assert "<svg" in picture["data"]["text/html"] and picture["data"]["text/plain"] == "nothing"
    assert set(explored["data"]) == {"application/vnd.jupyter.widget-view+json"}

    asked, form, revealed = outputs[5]
    assert asked["data"]["text/plain"] == "What?"
    assert "run this cell" in asked["data"]["text/html"]  # where there is no form
    assert set(form["data"]) == {"application/vnd.jupyter.widget-view+json"}
    assert "No prediction was recorded.</strong> The answer is <strong>1</strong>." in revealed["data"]["text/html"]
