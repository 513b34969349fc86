"""What every exercise of every lesson promises to the learner."""

import inspect
import re
import time
from dataclasses import replace

import jax
import numpy as np
import pytest
from mutants import BEGIN, END, Solution, all_solutions, mutants, mutation_score, read_solutions
from toy import MEAN

from metalearn.course.exercises import relations
from metalearn.course.exercises.exercise import all_exercises, find, numbers, quiz_of
from metalearn.course.exercises.grading import grade as grade_within

HIDDEN_SEED = 409_03682
SEEDS = pytest.mark.parametrize("seed", [0, HIDDEN_SEED])
SOLUTIONS = all_solutions()
EXERCISES = all_exercises()

IN_EVERY_RUN = "02"  # the lesson; .ci/run tests the others as well


def case(exercise, *others, name=""):
    return pytest.param(
        exercise,
        *others,
        id=f"{exercise.id}-{name}" if name else exercise.id,
        marks=() if exercise.lesson == IN_EVERY_RUN else pytest.mark.slow,
    )


EVERY = pytest.mark.parametrize("exercise", [case(exercise) for exercise in EXERCISES])
EVERY_MISCONCEPTION = pytest.mark.parametrize(
    ("exercise", "misconception"),
    [case(exercise, wrong, name=wrong.name) for exercise in EXERCISES for wrong in exercise.misconceptions],
)
EVERY_RELATIVE = pytest.mark.parametrize(
    ("exercise", "text", "function"),
    [case(exercise, *relative, name=relative[0]) for exercise in EXERCISES for relative in exercise.relatives],
)


def grade(*args):
    """To compile takes long on a busy machine, which is no fault of an exercise."""
    return grade_within(*args, timeout=120)


# --- every exercise ------------------------------------------------------------------------------------------


def test_ids_are_found_and_belong_to_their_lesson():
    assert len(EXERCISES) == len({exercise.id for exercise in EXERCISES}) > 0
    for exercise in EXERCISES:
        assert find(exercise.id) is exercise


def test_every_exercise_has_one_solution_and_every_solution_an_exercise():
    assert set(SOLUTIONS) == {exercise.id for exercise in EXERCISES}


@pytest.mark.parametrize("lesson", numbers())
def test_every_quiz_has_three_questions(lesson):
    assert len(quiz_of(lesson)) == 3


@EVERY
@SEEDS
def test_every_correct_solution_passes(exercise, seed):
    solution = SOLUTIONS[exercise.id].function()
    for function in (exercise.reference, *exercise.alternatives, solution):
        verdict = grade(exercise, function, seed)
        assert verdict.status == "passed", verdict.message


@EVERY
def test_the_stub_is_not_yet(exercise):
    solution = SOLUTIONS[exercise.id]
    stub = re.sub(rf"( *){BEGIN}.*{END}", r"\1raise NotImplementedError", solution.cell, flags=re.DOTALL)
    assert stub != solution.cell
    assert grade(exercise, replace(solution, cell=stub).function()).status == "not yet"


@EVERY_MISCONCEPTION
@SEEDS
def test_every_misconception_gets_its_own_diagnosis(exercise, misconception, seed):
    verdict = grade(exercise, misconception.function, seed)
    assert (verdict.status, verdict.misconception) == ("failed", misconception.name), verdict.message
    assert verdict.message == misconception.diagnosis


@EVERY_RELATIVE
@SEEDS
def test_every_relative_is_told(exercise, text, function, seed):
    assert not text.startswith("right"), "a noun phrase, of which a multiple can be told"
    verdict = grade(exercise, function, seed)
    assert (verdict.status, verdict.relation) == ("failed", f"Your result is {text}."), verdict.message
    assert verdict.message.endswith(verdict.relation)


@EVERY
def test_the_usual_mistakes_are_named(exercise, monkeypatch):
    """Whatever the exercise, without a line in its definition."""
    if exercise.judge:  # many answers are right, and the judge's own text says what is wrong with another
        assert not exercise.relatives
        return
    monkeypatch.setattr(relations, "PATIENCE", np.inf)  # however slow the machine is
    mistakes = _usual_mistakes(exercise)
    verdicts = {name: grade(exercise, function) for name, function in mistakes.items()}
    for name, verdict in verdicts.items():
        assert verdict.status == "failed", name
        assert verdict.misconception or verdict.relation, (name, verdict.message)


def _usual_mistakes(exercise):
    """Wrong functions made from the reference and its parameters."""
    reference, names = exercise.reference, list(inspect.signature(exercise.reference).parameters)

    def like(function):
        function.__signature__ = inspect.signature(reference)
        return function

    def scaled(factor):
        return like(lambda *args: jax.tree.map(lambda leaf: factor * np.asarray(leaf), reference(*args)))

    def with_other(place, change):
        return like(lambda *args: reference(*(change(arg) if n == place else arg for n, arg in enumerate(args))))

    if _judges(exercise):
        return {"always True": like(lambda *args: True), "always False": like(lambda *args: False)}
    mistakes = {"sign": scaled(-1.0), "twice": scaled(2.0), "half": scaled(0.5), "nothing": scaled(0.0)}
    if "num_steps" in names:
        mistakes["one step too many"] = with_other(names.index("num_steps"), lambda count: count + 1)
    if "task" in names:
        mistakes["sets swapped"] = with_other(
            names.index("task"), lambda task: task._replace(support=task.query, query=task.support)
        )
    return mistakes


def _judges(exercise):
    return isinstance(exercise.reference(*exercise.instances(np.random.default_rng(0))[0]), bool)


@pytest.mark.slow
@EVERY
def test_no_seed_is_blind(exercise):
    for seed in range(1, 21):
        for function in (exercise.reference, *exercise.alternatives):
            assert grade(exercise, function, seed).status == "passed", seed
        for wrong in exercise.misconceptions:
            assert grade(exercise, wrong.function, seed).misconception == wrong.name, seed
    for seed in range(1, 4):
        for text, function in exercise.relatives:
            assert grade(exercise, function, seed).relation == f"Your result is {text}.", seed


@EVERY
def test_no_text_gives_the_solution_away(exercise):
    lines = [line.strip() for line in SOLUTIONS[exercise.id].cell.splitlines()]
    written = lines[lines.index(BEGIN) : lines.index(END)]
    returned = [line.removeprefix("return ") for line in written if line.startswith("return ")]
    given_away = [expression for expression in returned if not expression.isidentifier()]
    told = [text for text, _ in exercise.relatives]
    texts = [*exercise.hints, *told, *(misconception.diagnosis for misconception in exercise.misconceptions)]
    for text in texts:
        assert not any(_squeeze(expression) in _squeeze(text) for expression in given_away), text
        assert not any(_squeeze(line) in _squeeze(text) for line in written if line.startswith("return ")), text


def _squeeze(code):
    return re.sub(r"\s+", "", code)


@pytest.mark.slow
@EVERY
def test_no_check_takes_two_seconds(exercise):
    wrong = [misconception.function for misconception in exercise.misconceptions]
    wrong += [function for _, function in exercise.relatives]
    for function in (exercise.reference, *exercise.alternatives, *wrong):
        grade(exercise, function)  # warm-up
        seconds = []
        for _ in range(2):  # the faster one, in processor time: the machine may be busy with something else
            start = time.process_time()
            grade(exercise, function)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 2


@pytest.mark.slow
@pytest.mark.parametrize("lesson", numbers())
def test_checks_reject_mechanical_mistakes(lesson, record_property):
    scores = [mutation_score(exercise, SOLUTIONS[exercise.id]) for exercise in EXERCISES if exercise.lesson == lesson]
    total = sum(scores[1:], scores[0])
    record_property("measured", f"lesson {lesson}: {total}")
    assert all(score.rejected for score in scores), "an exercise without a single mutant proves nothing"
    assert total.fraction >= 0.95


# --- the mutants themselves ----------------------------------------------------------------------------------

SOURCE = '''# %% [markdown]
# # A lesson

# %% tags=["imports"]
import jax.numpy as jnp

# %%
def mean_of(points):
    return jnp.mean(points, axis=0)

def unused(points=not_defined):
    pass

# %% tags=["exercise"] exercise="99.scaled_mean"
def scaled(points, scale):
    """A mean."""
    before = 1 + 1
    ### BEGIN SOLUTION
    return scale * jnp.mean(points, axis=0)
    ### END SOLUTION

# %%
check("99.scaled_mean", scaled)
'''


def _toy_solution(body: str = "return scale * jnp.mean(points, axis=0)") -> Solution:
    return read_solutions(SOURCE.replace("return scale * jnp.mean(points, axis=0)", body))["99.scaled_mean"]


def _descriptions(body):
    return {description.partition(": ")[2] for description, _ in mutants(_toy_solution(body))}


def test_solutions_are_read_from_the_source():
    solution = _toy_solution()
    assert solution.name == "scaled"
    np.testing.assert_allclose(solution.function()(np.array([[1.0], [3.0]]), 2.0), [4.0])
    with_helper = _toy_solution("return scale * mean_of(points)")
    np.testing.assert_allclose(with_helper.function()(np.array([[1.0], [3.0]]), 2.0), [4.0])


def test_only_what_the_learner_writes_is_mutated():
    assert all("before" not in description and "1 + 1" not in description for description in _descriptions("return 3"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a + b", {"a - b", "a", "b"}),
        ("a * b", {"a / b", "a + b", "a", "b"}),
        ("a / b", {"a * b", "a"}),
        ("a @ b", {"a * b", "a", "b"}),
        ("-a", {"a"}),
        ("3", {"4", "2", "0"}),
        ("True", {"False"}),
        ("a < b", {"a <= b", "a > b"}),
        ("f(a, b, k=c)", {"f(b, a, k=c)", "f(b, k=c)", "f(a, k=c)", "f(a, b)"}),
        ("range(n)", {"range(n + 1)", "range(n - 1)", "range()"}),
        ("a[b:]", {":"}),
    ],
)
def test_kinds_of_mutants(expression, expected):
    assert {text.partition("  ->  ")[2] for text in _descriptions(f"return {expression}")} == expected


def test_a_mutant_leaves_the_solution_as_it_was():
    solution = _toy_solution()
    points = np.array([[1.0], [3.0]])
    assert len({code for _, code in mutants(solution)}) == len(list(mutants(solution))) > 3
    np.testing.assert_allclose(solution.function()(points, 2.0), [4.0])


@pytest.mark.slow
def test_a_sharp_check_scores_high_and_a_blunt_one_low():
    sharp = mutation_score(MEAN, _toy_solution())
    assert (sharp.fraction, sharp.escaped) == (1.0, ())
    assert sharp.rejected >= 4

    def zeros_at_first(rng):
        return [(0 * points if seed_zero(rng) else points, scale) for points, scale in MEAN.instances(rng)]

    def seed_zero(rng):
        return rng.bit_generator.seed_seq.entropy == 0

    blunt = mutation_score(replace(MEAN, instances=zeros_at_first), _toy_solution())
    assert blunt.fraction < 0.95
    assert any("scale * jnp.mean(points, axis=0)  ->  jnp.mean(points, axis=0)" in text for text in blunt.escaped)


@pytest.mark.slow
def test_endless_mutants_are_rejected_in_bounded_time():
    body = "n = 0\n    while n < 1:\n        n = n + 1\n    return scale * jnp.mean(points, axis=0) * n"
    start = time.monotonic()
    score = mutation_score(MEAN, _toy_solution(body))
    assert score.fraction == 1.0
    assert time.monotonic() - start < 60
