"""Exercises, predictions, quiz and figures of lesson 01, Learning to learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import own
from metalearn.course.lessons.adaptation import (
    curve_task,
    gradient_at,
    line_task,
    move,
    network,
    network_params,
    path_of,
    regression,
    wave,
)
from metalearn.course.process import bar
from metalearn.course.widgets import diagrams
from metalearn.task import Params, Task

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

# 01.floor -----------------------------------------------------------------------------------------------------------

FLOOR = Exercise(
    id="01.floor",
    title="The floor of any task distribution",
    difficulty=1,
    minutes=5,
    reference=lambda targets: jnp.mean((targets - targets.mean(axis=0)) ** 2),
    instances=lambda rng: [
        (rng.normal(0, 2, (6, 4)) + np.array([0.0, 1.0, 3.0, -2.0]),),
        (rng.normal(0, 1, (3, 9)) + rng.normal(0, 2, 9),),
        (rng.uniform(-1, 5, (2, 1)),),
        (rng.normal(1, 2, (1, 5)),),  # one function fits a single task
    ],
    misconceptions=(
        Misconception(
            "variance over inputs",
            lambda targets: targets.var(axis=1).mean(),
            "Your result is the variance along each curve, averaged over tasks. That is the floor of a model that may "
            "choose one *number* for each task. Along which axis do tasks differ?",
        ),
        Misconception(
            "one number for everything",
            lambda targets: targets.var(),
            "Your result is the floor of a constant, one number for all tasks and all inputs. A function may give "
            "another answer at each input.",
        ),
        Misconception(
            "standard deviation",
            lambda targets: targets.std(axis=0).mean(),
            "Your result is the mean standard deviation. The loss is a *squared* error: which measure of spread has "
            "its unit?",
        ),
        Misconception(
            "n - 1",
            lambda targets: jnp.var(targets, axis=0, ddof=1).mean(),  # NaN for one task, without a warning
            "Your result divides by the number of tasks minus one, which estimates the floor for *new* tasks. "
            "The error on *these* tasks is a plain mean.",
        ),
        Misconception(
            "sum over tasks",
            lambda targets: jnp.mean(jnp.sum((targets - targets.mean(axis=0)) ** 2, axis=0)),
            "Your result is the sum of the squared errors over tasks, averaged over inputs. The loss is a mean over "
            "both.",
        ),
        Misconception(
            "mean square",
            lambda targets: jnp.mean(targets**2),
            "Your result is the error of the function that is zero everywhere. Which function does best at each input?",
        ),
        Misconception(
            "best function only",
            lambda targets: targets.mean(axis=0),
            "Your result is the best function itself. The floor is its mean squared error, which is one number.",
        ),
        Misconception(
            "median",
            lambda targets: jnp.mean((targets - jnp.median(targets, axis=0)) ** 2),
            "Your result is the error of the median curve. The median is best for the absolute error. Which function "
            "is best for the squared one?",
        ),
    ),
    relatives=(
        (
            "the mean absolute difference from the mean over tasks",
            lambda targets: jnp.abs(targets - targets.mean(axis=0)).mean(),
        ),
        ("the mean squared difference from the first task", lambda targets: jnp.mean((targets - targets[0]) ** 2)),
        (
            "the mean squared difference of the first task from the mean over tasks",
            lambda targets: jnp.mean((targets[0] - targets.mean(axis=0)) ** 2),
        ),
        (
            "the smallest mean squared difference of a task from the mean over tasks",
            lambda targets: jnp.mean((targets - targets.mean(axis=0)) ** 2, axis=1).min(),
        ),
        (
            "the largest variance of an input, where the mean over inputs is asked for",
            lambda targets: targets.var(axis=0).max(),
        ),
        ("the variance of the mean curve, from one input to another", lambda targets: targets.mean(axis=0).var()),
        (
            "the norm of all differences from the mean over tasks",
            lambda targets: jnp.linalg.norm(targets - targets.mean(axis=0)),
        ),
    ),
    alternatives=(
        lambda targets: targets.var(axis=0).mean(),
        lambda targets: jnp.mean(jnp.mean(targets**2, axis=0) - jnp.mean(targets, axis=0) ** 2),
    ),
    hints=(
        "First find the best function: at each input, the one number with the lowest mean squared error over "
        "all tasks.",
        "Then compare every task with that function. An array of shape `[num_tasks, num_inputs]` minus one of shape "
        "`[num_inputs]` subtracts the latter from every row.",
    ),
    expected="A scalar. If all rows of `targets` are equal it is 0, because one function then serves all tasks.",
)

# 01.adaptation_curve ------------------------------------------------------------------------------------------------


@jax.jit
def _nested(params, batch):
    """`network` with its parameters in a list within a tuple."""
    (weight, bias), readout = params
    return network({"weight": weight, "bias": bias, "readout": readout}, batch)


def _nested_params(rng, width):
    flat = network_params(rng, width)
    return [flat["weight"], flat["bias"]], flat["readout"]


def _opposed(task):
    x, y = task.query
    return task._replace(query=(x, -y))


def _reference_curve(loss, task, params, learning_rate, num_steps):
    batch = jax.tree.map(lambda leaf: leaf[None], task)
    return ml.evaluate.adaptation_curve(loss, optax.sgd(learning_rate), params, batch, num_steps)[:, 0]


def _curve(adapt_on=lambda task: task.support, score_on=lambda task: task.query, part=slice(None), steps=0, rate=None):
    """An adaptation curve, with what can go wrong in it."""

    def curve(loss, task, params, learning_rate, num_steps):
        rates = learning_rate if rate is None else rate(learning_rate)
        path = path_of(loss, adapt_on(task), params, rates, num_steps + steps)
        return jnp.stack([loss(phi, score_on(task)) for phi in path[part]])

    return curve


def _stuck(loss, task, params, learning_rate, num_steps):
    gradient = gradient_at(loss, params, task.support)
    path = [move(params, gradient, k * learning_rate) for k in range(num_steps + 1)]
    return jnp.stack([loss(phi, task.query) for phi in path])


def _restarting(loss, task, params, learning_rate, num_steps):
    path = [params]
    for _ in range(num_steps):
        path.append(move(params, gradient_at(loss, path[-1], task.support), learning_rate))
    return jnp.stack([loss(phi, task.query) for phi in path])


def _on_both_sets(loss, task, params, learning_rate, num_steps):
    path = [params]
    for _ in range(num_steps):
        gradients = [gradient_at(loss, path[-1], batch) for batch in task]
        path.append(move(path[-1], jax.tree.map(jnp.add, *gradients), learning_rate))
    return jnp.stack([loss(phi, task.query) for phi in path])


def _with_scan(loss, task, params, learning_rate, num_steps):
    def step(params, _):
        moved = move(params, jax.grad(loss)(params, task.support), learning_rate)
        return moved, loss(moved, task.query)

    _, after = jax.lax.scan(step, params, length=num_steps)
    return jnp.concatenate([loss(params, task.query)[None], after])


ADAPTATION_CURVE = Exercise(
    id="01.adaptation_curve",
    title="The adaptation curve",
    difficulty=2,
    minutes=10,
    reference=_reference_curve,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (regression, line_task(rng, 4, 9), rng.normal(0, 1, 3), 0.1, 1),
        (network, curve_task(rng, 6, 3), network_params(rng, 3), 0.05, 4),
        (_nested, curve_task(rng, 3, 6), _nested_params(rng, 2), 0.05, 2),
        (wave, _opposed(curve_task(rng, 6, 6)), rng.normal(1, 0.3, 2), 0.2, 3),  # the query loss rises
    ],
    misconceptions=(
        Misconception(
            "support loss reported",
            _curve(score_on=lambda task: task.support),
            "Your result is the curve of the *support* loss, on the points that the steps have seen. Which points "
            "judge an adapted model?",
        ),
        Misconception(
            "adapted on the query set",
            _curve(adapt_on=lambda task: task.query),
            "Your result is the curve of steps that descend the query loss. Which set may adaptation see?",
        ),
        Misconception(
            "support and query swapped",
            _curve(adapt_on=lambda task: task.query, score_on=lambda task: task.support),
            "Your result is the curve of adapting on the query set and scoring on the support set. Which of the two "
            "may adaptation see?",
        ),
        Misconception(
            "no value before the first step",
            _curve(part=slice(1, None)),
            "Your result has the right values after each step, and lacks the one before the first step. A curve over "
            "$K$ steps has $K + 1$ points.",
        ),
        Misconception(
            "no value after the last step",
            _curve(part=slice(-1)),
            "Your result lacks the value after the last step. This happens, for instance, if the loop records the loss "
            "*before* it takes a step. A curve over $K$ steps has $K + 1$ points.",
        ),
        Misconception(
            "one step too many",
            _curve(steps=1),
            "Your curve goes one step too far. Entry $k$ is the loss after $k$ steps, from 0 to $K$.",
        ),
        Misconception(
            "uphill",
            _curve(rate=lambda rate: -rate),
            "Your result is the curve of steps that *ascend* the support loss. Look at the sign of the step.",
        ),
        Misconception(
            "no learning rate",
            _curve(rate=lambda rate: 1.0),
            "Your result is the curve for learning rate 1, as if a step were the whole gradient. Does the learning "
            "rate occur in your step?",
        ),
        Misconception(
            "gradient always at the initialization",
            _stuck,
            "Your result is the curve of a straight path, on which every gradient is that at the initialization. "
            "At which parameters should step $k$ take its gradient?",
        ),
        Misconception(
            "only the last value",
            lambda *args: _curve()(*args)[-1],
            "Your result is the last value alone. Keep the query loss of every step.",
        ),
    ),
    relatives=(
        (
            "the query loss before adaptation, and after it the loss after one step again and again",
            lambda loss, task, params, learning_rate, num_steps: jnp.stack(
                [_curve()(loss, task, params, learning_rate, 1)[min(k, 1)] for k in range(num_steps + 1)]
            ),
        ),
        ("the curve of steps that each start from the initialization", _restarting),
        ("the curve of steps that descend the sum of the support and the query loss", _on_both_sets),
        (
            "the right curve, with the support loss in place of the query loss at its beginning",
            lambda loss, task, params, *args: (
                jnp.asarray(_curve()(loss, task, params, *args)).at[0].set(loss(params, task.support))
            ),
        ),
    ),
    alternatives=(_with_scan, _curve()),
    hints=(
        "Keep a list of losses. Put one value into it before the loop, and one at the end of each pass.",
        "Each pass has three lines: the gradient on the *support* set, the step with `jax.tree.map`, "
        "the loss on the *query* set. `jnp.stack` turns the list into an array.",
    ),
    expected="An array of shape `[K + 1]`. The first entry is the query loss at the initialization.",
)

# 01.sound_report ----------------------------------------------------------------------------------------------------


def _means(losses):
    return np.asarray(losses, float).mean(axis=1)


def _sound(validation, test):
    return _means(test)[_means(validation).argmin()]


def _sound_in_a_loop(validation, test):
    totals = [sum(map(float, row)) for row in validation]
    chosen = totals.index(min(totals))
    return sum(map(float, test[chosen])) / len(test[chosen])


def _chosen_on_test(validation, test):
    return _means(test).min()


def _validation_reported(validation, test):
    return _means(validation).min()


def _best_for_each_task(validation, test):
    return np.asarray(test, float).min(axis=0).mean()


def _pooled(validation, test):
    return _means(test)[_means(np.concatenate([validation, test], axis=1)).argmin()]


def _first(validation, test):
    return _means(test)[0]


def _worst(validation, test):
    return _means(test)[_means(validation).argmax()]


def _luckiest(validation, test):
    return _means(test)[np.asarray(validation, float).min(axis=1).argmin()]


def _both_reported(validation, test):
    return (_sound(validation, test) + _validation_reported(validation, test)) / 2


def _one_task_too_few(validation, test):
    return np.sum(test, axis=1)[_means(validation).argmin()] / max(np.shape(test)[1] - 1, 1)


def _slightly_mixed(validation, test):
    return 0.95 * _sound(validation, test) + 0.05 * _validation_reported(validation, test)


def _candidate(name, function):
    """A callable of a class of its own, so that a message can name it."""
    return type(name, (), {"__call__": staticmethod(function)})()


_CANDIDATES = (
    _candidate("SoundReport", _sound),
    _candidate("OtherSoundReport", _sound_in_a_loop),
    _candidate("ReportA", _chosen_on_test),
    _candidate("ReportB", _validation_reported),
    _candidate("ReportC", _best_for_each_task),
    *(
        _candidate(f"HiddenReport{number}", function)
        for number, function in enumerate(
            (_pooled, _first, _worst, _luckiest, _both_reported, _one_task_too_few, _slightly_mixed), 1
        )
    ),
)


def _examples(num_rates=4, num_tasks=6, keep=lambda validation, test: True, change=lambda *losses: losses):
    """Thirty pairs of losses, validation and test."""
    rng, found = np.random.default_rng(0), []
    while len(found) < 30:
        losses = change(*rng.exponential(size=(2, num_rates, num_tasks)))
        if keep(*losses):
            found.append(losses)
    return found


def _test(examples, right=_sound, agree=np.isclose):
    """A learner's test, with what can go wrong in it."""

    def is_sound(report):
        return bool(all(agree(report(*losses), right(*losses)) for losses in examples))

    return is_sound


def _one_by_hand(report):
    """A correct test by a single example, in which every mistake gives another number."""
    validation = np.array([[3.0, 3.0, 4.0], [2.0, 2.0, 0.5], [0.0, 9.0, 9.0], [1.0, 5.0, 1.0]])
    test = np.array([[8.0, 7.0, 5.0], [6.0, 3.0, 7.0], [1.0, 2.0, 1.5], [2.0, 1.0, 9.0]])
    return abs(report(validation, test) - 16 / 3) < 1e-6


SOUND_REPORT = Exercise(
    id="01.sound_report",
    title="Write the test: is this report sound?",
    difficulty=3,
    minutes=10,
    reference=_test(_examples()),
    instances=lambda rng: [(_CANDIDATES[i],) for i in rng.permutation(len(_CANDIDATES))],
    misconceptions=(
        Misconception(
            "one learning rate",
            _test(_examples(num_rates=1)),
            "Your test accepts reports A and C and four hidden ones, just as a test with a single learning rate would. "
            "With one learning rate there is nothing to choose.",
        ),
        Misconception(
            "the same tasks twice",
            _test(_examples(change=lambda validation, test: (validation, validation))),
            "Your test accepts reports A and B and three hidden ones, just as a test with the same losses in both "
            "roles would. What if validation and test tasks differ?",
        ),
        Misconception(
            "both sets agree",
            _test(_examples(keep=lambda v, t: _means(v).argmin() == _means(t).argmin())),
            "Your test accepts report A and a hidden one. Both let the test losses take part in the choice, which "
            "makes no difference where the same learning rate is best on both sets.",
        ),
        Misconception(
            "one task",
            _test(_examples(num_tasks=1)),
            "Your test accepts a hidden report that chooses by the best single task. This happens, for instance, if "
            "there is one task only, or if a learning rate has the same loss on all tasks.",
        ),
        Misconception(
            "the best comes first",
            _test(_examples(keep=lambda v, t: _means(v).argmin() == 0)),
            "Your test accepts a hidden report that always takes the first learning rate. Which learning rate is the "
            "best in your examples?",
        ),
        Misconception(
            "wide tolerance",
            _test(_examples(), agree=lambda one, other: abs(one - other) < 0.3),
            "Your test accepts a hidden report that mixes a little of the validation loss into the right number. Your "
            "tolerance may be too wide: equal numbers differ by rounding only.",
        ),
        Misconception(
            "any learning rate",
            lambda report: all(np.isclose(report(*losses), _means(losses[1])).any() for losses in _examples()),
            "Your test accepts every report that returns the mean test loss of *some* learning rate, report A "
            "included. Does your test look at which one was chosen?",
        ),
        Misconception(
            "chosen on the test tasks",
            _test(_examples(), right=_chosen_on_test),
            "Your test accepts report A alone, as if the right answer were the lowest mean loss on the test tasks.",
        ),
        Misconception(
            "validation loss expected",
            _test(_examples(), right=_validation_reported),
            "Your test accepts report B alone, as if the right answer were the lowest mean loss on the validation "
            "tasks.",
        ),
        Misconception(
            "the wrong way round",
            lambda report: not _test(_examples())(report),
            "Your test says yes to every wrong report and no to the sound ones.",
        ),
        Misconception(
            "accepts everything",
            lambda report: True,
            "Your test accepts every report. Compute the number that a sound report must return, and compare.",
        ),
        Misconception(
            "rejects everything",
            lambda report: False,
            "Your test rejects every report, the sound ones too. Two ways to compute one mean may differ by rounding, "
            "for which `==` is too strict; it may also be that your test expects another number.",
        ),
    ),
    alternatives=(_test(_examples(num_rates=7, num_tasks=3), right=_sound_in_a_loop), _one_by_hand),
    hints=(
        "Make up the losses yourself, compute what a sound report must return for them, and compare. `np.isclose` "
        "allows for rounding.",
        "A wrong report can return the right number by accident. Let the best learning rate on the validation tasks "
        "differ from the best on the test tasks, from the first one, and from the one with the best single task. "
        "Drawing many random examples does all of that.",
    ),
    expected="`True` for a sound report, `False` for the reports A, B and C.",
)

EXERCISES = (FLOOR, ADAPTATION_CURVE, SOUND_REPORT)

PREDICTIONS = (
    Guess(
        "01.more_training",
        "A function that is zero everywhere has a squared error of about 4 on the sine curves. How far does the "
        "squared error of one network fall if it is trained on the points of ever more curves?",
        ("to about 0.1", "to about 1", "to about 3"),
        why="At one input the tasks ask for different answers, and the network can give only one.",
        read="The floor, at one input",
    ),
    Guess(
        "01.two_tasks",
        "A network is trained on two tasks only, with as many points of their curves as it wants. Where will its loss "
        "be on average, compared with the floor of about 3?",
        (
            "at the floor, on the two tasks and on new ones",
            "below the floor on the two tasks, at the floor on new ones",
            "below the floor on the two tasks, above it on new ones",
            "above the floor on both",
        ),
        why="The network learns the mean of the two curves. It lies closer to these two than the mean of all curves "
        "does, and further from the others.",
        read="How many training tasks?",
    ),
    Guess(
        "01.diagnosis",
        "One of these runs was stopped too early, one was trained on too few tasks, and one has reached the floor. "
        "Which remedy does each of them need?",
        (
            "A: more steps. B: more training tasks. C: adaptation",
            "A: more training tasks. B: more steps. C: adaptation",
            "A: more training tasks. B: adaptation. C: more steps",
            "A: adaptation. B: more steps. C: more training tasks",
        ),
        why="A growing distance between the losses on training and validation tasks means overfitting. Two losses that "
        "still fall together mean that training has not converged. Two losses that stay together at the floor mean "
        "that no training without adaptation will help.",
        read="How many training tasks?",
    ),
    Guess(
        "01.fine_tuning",
        "The network from joint training takes ten gradient steps on the ten support points of a new task, with an "
        "inner learning rate chosen for this purpose. How much of its query loss of about 3 is left on average?",
        ("less than 5 %", "about a quarter", "about two thirds", "all of it"),
        why="Joint training never adapts to a single task. So nothing has taught the network how its curve should "
        "change in a few gradient steps.",
        read="Adapt to each task",
    ),
    Guess(
        "01.enough_points",
        "The points have no noise, and you know that the curve is $p \\sin x + q \\cos x$. How many support points do "
        "you need to find both numbers?",
        unit="points",
        why="Each point is one linear equation for the two unknowns $p$ and $q$.",
        read="How much ten points tell",
    ),
)

QUIZ = (
    Question(
        "A network has been trained without adaptation until its loss stays at the floor. What lowers the floor?",
        (
            "A larger network",
            "More tasks to train on",
            "A task distribution whose tasks vary less",
            "A smaller learning rate",
        ),
        2,
        (
            "The floor does not depend on the network, so a larger one cannot get below it either.",
            "More training tasks bring the network closer to the mean of all curves, and it is there already.",
            "Yes: the floor is the variance between the tasks.",
            "The network is at the best single function already, and smaller steps lead to the same place.",
        ),
    ),
    Question(
        "You train one network without adaptation, with as many points of each training task as you like, until "
        "nothing more is gained. You want its loss on new tasks to be 1\u00a0% above the floor on average. About how "
        "many training tasks does that take?",
        ("10", "100", "200", "10,000"),
        1,
        (
            "With 10 training tasks the loss on new tasks is 10\u00a0% above the floor.",
            "Yes: the expected loss on new tasks is (1 + 1/M) times the floor.",
            "With 200 training tasks the whole generalization gap is 1\u00a0% of the floor. But half of it lies below "
            "the floor, on the training tasks.",
            "This would hold if the loss approached the floor like one over the square root of the number of tasks, as "
            "the width of a confidence interval approaches zero.",
        ),
    ),
    Question(
        "Which of these may look at the query set of a test task?",
        (
            "The inner steps that adapt to this task",
            "The choice of the inner learning rate",
            "The choice of when to stop training",
            "Only the score that is reported",
        ),
        3,
        (
            "The inner steps see the support set only. If they saw the query set too, a good score would not show that "
            "the model knows more of the task than these points.",
            "It is chosen on validation tasks; chosen on the test tasks, it would make their score too good.",
            "Early stopping watches validation tasks, for the same reason.",
            "Yes: whatever is chosen with its help makes the score a promise that new tasks do not keep.",
        ),
    ),
)


# Experiments --------------------------------------------------------------------------------------------------------

_X = (np.arange(200) + 0.5) / 20 - 5  # the middles of equal parts of the inputs
_MEAN_A, _MEAN_A2 = 2.55, (5.0**3 - 0.1**3) / (3 * 4.9)  # moments of Finn et al.'s amplitude
_MEAN_CURVE = -2 / np.pi * _MEAN_A * np.cos(_X)
_VARIANCE = _MEAN_A2 / 2 - _MEAN_CURVE**2
FLOOR_OF_SINES = float(_VARIANCE.mean())


def losses_of_runs(apply: Any, params: Params, counts: Any, curves: Any) -> tuple[Any, Any]:
    """The loss of each network on its own training tasks and on new tasks, without sampling error.

    Args:
      apply: function of (params, inputs).
      params: of all networks, with the leading axes [counts, runs].
      counts: numbers of training tasks, shape [counts].
      curves: (amplitudes, phases) of the training tasks, each of shape [runs, most tasks, 1].

    Returns:
      (training, new), each of shape [counts, runs].
    """
    x = jnp.asarray(_X, jnp.float32)[:, None]
    fitted = np.asarray(jax.jit(jax.vmap(jax.vmap(lambda each: apply(each, x)[:, 0])))(params), float)
    amplitudes, phases = (np.asarray(part, float) for part in curves)
    targets = amplitudes * np.sin(_X - phases)  # [runs, most tasks, inputs]
    squares = ((fitted[:, :, None] - targets) ** 2).mean(-1)
    training = np.stack([squares[i, :, : int(count)].mean(-1) for i, count in enumerate(counts)])
    return training, ((fitted - _MEAN_CURVE) ** 2 + _VARIANCE).mean(-1)


def three_runs(loss: Any, params: Params) -> dict[str, tuple[Any, Any, Any]]:
    """Three runs of joint training, two of them with a fault: (training steps, training loss, validation loss)."""
    unit = np.random.default_rng(2).uniform(size=(2, 4_000, 1))
    unit[:, :2, 0] = [[0.714, 0.429], [0.159, 0.414]]  # the two tasks of run A, the first of all
    amplitudes, phases = jnp.asarray(0.1 + 4.9 * unit[0]), jnp.asarray(np.pi * unit[1])
    counts, rates = jnp.array([2, 4_000, 4_000]), jnp.array([5e-4, 4e-4, 1e-3])
    validation = ml.tasks.Sinusoid(num_query=10)(jax.random.key(8), 1_000).query
    optimizer = optax.scale_by_adam()

    def step(state, key, count, rate):
        params, memory = state
        task_key, x_key = jax.random.split(key)
        i = jax.random.randint(task_key, (100,), 0, count)
        x = jax.random.uniform(x_key, (100, 1), minval=-5.0, maxval=5.0)
        value, gradient = jax.value_and_grad(loss)(params, (x, amplitudes[i] * jnp.sin(x - phases[i])))
        direction, memory = optimizer.update(gradient, memory)
        return (move(params, direction, rate), memory), value

    def forty_steps(state, key, count, rate):
        state, values = jax.lax.scan(lambda s, k: step(s, k, count, rate), state, jax.random.split(key, 40))
        return state, (values.mean(), loss(state[0], validation))

    together = jax.jit(jax.vmap(forty_steps))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), (params, optimizer.init(params)))
    seen = []
    for key in bar(jax.random.split(jax.random.key(0), (100, 3)), "training three networks"):
        states, losses = together(states, key, counts, rates)
        seen.append(np.stack(losses))  # which also waits for them
    training, held_out = np.moveaxis(np.stack(seen), 0, -1)
    steps = 40 * np.arange(1, 101)
    ends = {"A": 100, "B": 20, "C": 100}
    return {name: (steps[:n], training[i, :n], held_out[i, :n]) for i, (name, n) in enumerate(ends.items())}


# Figures ------------------------------------------------------------------------------------------------------------


def three_tasks(tasks: Task) -> None:
    """Shows the support and the query points of three tasks."""
    figure, axes = plots.subplots(3, height=2.9, sharey=True)
    for i, each in enumerate(axes):
        for (x, y), color, marker, name in (
            (tasks.support, "blue", "o", "support set"),
            (tasks.query, "orange", "s", "query set"),
        ):
            each.plot(
                x[i, :, 0],
                y[i, :, 0],
                color=plots.PALETTE[color],
                linestyle="none",
                marker=marker,
                markersize=5.5,
                markerfacecolor=plots.PALETTE["card"],
            )
            if i == 0:
                _name_points(each, np.asarray(x[0, :, 0]), np.asarray(y[0, :, 0]), name, plots.PALETTE[color])
        each.set(xlim=(-5.5, 5.5), ylim=(-5, 5))
        plots.label(each, "x", "y", f"task {i + 1}")
    plots.show(
        figure,
        alt="Three panels with ten support points and ten query points each. The points of each panel lie on a sine "
        "curve; amplitude and phase differ from panel to panel.",
        title="Three tasks: sine curves of different amplitude and phase",
        caption="A model sees the support set of a task, and is judged on its query set.",
    )


def _name_points(axes: Any, x: Any, y: Any, name: str, color: str) -> None:
    """Names some points at the one that is furthest from its neighbours, away from the axis of x."""
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 99 * np.eye(len(x))
    i = apart.min(1).argmax()
    axes.annotate(
        name,
        (x[i], y[i]),
        (0, 9 if y[i] > 0 else -17),
        textcoords="offset points",
        ha="center",
        color=color,
        weight="bold",
    )


def joint_training(losses: Any) -> None:
    """Shows the loss of joint training over the outer steps."""
    window = 250
    smooth = np.asarray(losses).reshape(-1, window).mean(1)
    figure = plots.lines(
        window * (np.arange(len(smooth)) + 0.5), {"": smooth}, "training steps", "squared error", ylim=(0, 4.4)
    )
    plots.show(
        figure,
        alt="The loss falls from about four to about three in the first few thousand steps. From then on it stays "
        "there.",
        title="After a few thousand steps, more training gains nothing",
        caption="Loss of joint training on new tasks in every step, averaged over 250 steps each.",
    )


def one_input() -> None:
    """Shows the targets of many tasks at one input, and the squared error of each answer to them."""
    middles = (np.arange(60) + 0.5) / 60
    amplitude, phase = (part.ravel() for part in np.meshgrid(0.1 + 4.9 * middles, np.pi * middles))
    targets = amplitude * np.sin(1.0 - phase)
    figure, axes = plots.subplots(2, height=3.2)
    x = np.linspace(-5, 5, 201)
    for i in np.random.default_rng(0).integers(len(targets), size=12):
        axes[0].plot(x, amplitude[i] * np.sin(x - phase[i]), color=plots.PALETTE["muted"], linestyle="-", linewidth=0.7)
        axes[0].plot(1.0, targets[i], color=plots.PALETTE["orange"], linestyle="none", marker="o", markersize=4.5)
    axes[0].axvline(1.0, color=plots.PALETTE["orange"], linestyle="--", linewidth=1.2)
    plots.label(axes[0], "x", "y", "Twelve tasks, and their targets at x = 1")
    answers = np.linspace(-4.5, 3.5, 161)
    mean, variance = targets.mean(), targets.var()
    plots.lines(
        answers,
        {"": (answers - mean) ** 2 + variance},
        "answer ŷ of the network at x = 1",
        "mean squared error",
        title="The error of each answer, over all tasks",
        ylim=(0, 14),
        axes=axes[1],
    )
    axes[1].plot(mean, variance, color=plots.PALETTE["blue"], linestyle="none", marker="o", markersize=7)
    axes[1].annotate(
        "mean of the targets",
        (mean, variance),
        (0, 50),
        textcoords="offset points",
        ha="center",
        arrowprops={"arrowstyle": "-", "color": plots.PALETTE["muted"], "shrinkB": 6},
        color=plots.PALETTE["text"],
        weight="bold",
    )
    axes[1].annotate(
        "",
        (mean, 0),
        (mean, variance - 0.3),
        arrowprops={"arrowstyle": "<->", "color": plots.PALETTE["orange"], "linewidth": 1.4},
    )
    axes[1].annotate(
        "variance",
        (mean, variance / 2),
        (8, 0),
        textcoords="offset points",
        va="center",
        color=plots.PALETTE["orange"],
        weight="bold",
    )
    plots.show(
        figure,
        alt="Left: twelve sine curves, crossed by a dashed line at x = 1, on which their values are scattered. Right: "
        "the mean squared error against the answer of the network is a parabola. It is lowest where the answer is the "
        "mean of the targets, and its height there is their variance.",
        title="At one input, the best answer is the mean of the targets, and their variance remains",
        caption="Each task asks for a different value at x = 1, but a single function has only one value there.",
    )


def best_function(fitted: Any, x: Any) -> None:
    """Shows the trained network on the mean of all curves, and one task's curve."""
    figure = plots.lines(
        x,
        {
            "trained network": np.asarray(fitted)[:, 0],
            "mean of all curves": -2 / np.pi * _MEAN_A * np.cos(x),
            "one task": 4.0 * np.sin(x - 2.5),
        },
        "x",
        "y",
        ylim=(-4.6, 4.6),
    )
    plots.show(
        figure,
        alt="The trained network lies on the mean of all curves, a low inverted cosine. One task's curve is far from "
        "both, with about two and a half times their height and another position.",
        title="The network has found the best single function, and a task can be far from it",
        caption="The mean of all curves, the network from joint training, and a task with A = 4 and b = 2.5.",
    )


def own_floor(my_task: Callable[[Any], Task], my_floor: float | None) -> str:
    """Shows tasks of the learner's distribution, and whether a number is their floor.

    Args:
      my_task: function of a key that returns one task.
      my_floor: what the learner found for the floor, or None.

    Returns:
      "passed", "not yet" or "failed".
    """
    try:
        drawn = own.tasks(my_task)
    except own.Unusable as error:
        return own.told("failed", str(error))
    found = own.floor(drawn)
    answer = None if my_floor is None else np.asarray(my_floor, float)
    close = max(0.1 * found.floor, 4 * found.uncertainty)
    if answer is None:
        status, message = "not yet", "Your tasks are valid. Now work out their floor, and put it into `my_floor`."
    elif answer.shape or not np.isfinite(answer):
        status, message = "failed", "The floor is one number. Give a finite one."
    elif abs(answer - found.floor) <= close:
        status = "passed"
        message = f"Measured on {len(drawn.query[1]):,} of your tasks, the floor is {plots.number(found.floor)}."
    else:
        status, message = "failed", _wrong_floor(answer, found, close)
    _draw_own(drawn, found, status == "passed")
    return own.told(status, message, my_task)


def _wrong_floor(answer, found, close):
    """What another number than the floor equals, if that is known."""
    if found.square - found.floor > 2 * close and abs(answer - found.square) <= close:
        return (
            "Your number is close to the mean square of the targets, which is the loss of the zero function. Which "
            "function does best on your tasks?"
        )
    if found.constant - found.floor > 2 * close and abs(answer - found.constant) <= close:
        return (
            "Your number is close to the loss of the best *constant*, one number for all inputs. A function may give "
            "another answer at each input."
        )
    if abs(answer - np.sqrt(found.floor)) <= close:
        return "Your number is close to the square root of the floor. The loss is a *squared* error."
    return (
        f"Your number is too {'high' if answer > found.floor else 'low'}. The floor is the variance of the targets "
        "over tasks, averaged over the inputs. Are your inputs drawn as `my_task` draws them, and is noise, if there "
        "is any, counted?"
    )


def _draw_own(drawn, found, passed):
    """Fifteen tasks, each a line through its points; with the best single function once the floor is known."""
    figure, (axes,) = plots.subplots(height=2.9)
    for i in range(15):
        x, y = (np.concatenate([half[k][i, :, 0] for half in drawn]) for k in (0, 1))
        order = np.argsort(x)
        axes.plot(x[order], y[order], color=plots.PALETTE["muted"], linestyle="-", linewidth=0.7, alpha=0.7, marker=".")
    if passed:
        seen = slice(None, None, max(1, len(found.x) // 400))
        axes.plot(
            found.x[seen], found.best[seen], color=plots.PALETTE["orange"], linestyle="-", linewidth=2.5, label="best"
        )
    plots.label(axes, "x", "y")
    plots.show(
        figure,
        alt="Fifteen tasks of the distribution, the points of each joined by a line"
        + (", and the mean of all tasks, which is the best single function." if passed else "."),
        title=f"The best function leaves {100 * found.floor / found.square:.0f}\u00a0% of the targets' mean square"
        if passed
        else "Fifteen of your tasks",
        caption="The points of each task are joined by a line." + (" Orange: the mean of all tasks." if passed else ""),
    )


def _random_curves() -> Any:
    unit = np.random.default_rng(9).uniform(size=(2, 400, 1))
    return (0.1 + 4.9 * unit[0]) * np.sin(_X - np.pi * unit[1])


def distance_of_average(tasks: int) -> float:
    """How far the average of the first tasks is from the mean of all, at the input where it is furthest."""
    return float(np.abs(_random_curves()[:tasks].mean(0) - _MEAN_CURVE).max())


AVERAGES = "The average of the chosen number of sine curves, the mean of all, and the first curve."


def average_of_tasks(tasks: int) -> Figure:
    """The average of a number of random sine curves, and its limit."""
    curves = _random_curves()
    return plots.lines(
        _X,
        {"average": curves[:tasks].mean(0), "mean of all": _MEAN_CURVE, "first task": curves[0]},
        "x",
        "y",
        ylim=(-5, 5),
    )


def few_tasks(counts: Any, training: Any, new: Any) -> None:
    """Shows measured losses on training tasks and new tasks against the number of training tasks, and the formula."""
    figure, (axes,) = plots.subplots(height=3.6)
    fine = np.geomspace(1, counts[-1], 200)
    for values, sign, color, name in ((new, 1, "orange", "new tasks"), (training, -1, "blue", "training tasks")):
        axes.plot(fine, FLOOR_OF_SINES * (1 + sign / fine), color=plots.PALETTE[color], linestyle="-", label=name)
        half_width = 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        axes.errorbar(
            counts,
            values.mean(1),
            half_width,
            color=plots.PALETTE[color],
            linestyle="none",
            marker="o",
            markersize=6,
            markerfacecolor=plots.PALETTE["card"],
            capsize=3,
            elinewidth=1.4,
            zorder=3,
        )
    axes.axhline(FLOOR_OF_SINES, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
    place = {"textcoords": "offset points", "color": plots.PALETTE["muted"]}
    axes.annotate("floor", (1, FLOOR_OF_SINES), (0, 5), ha="left", **place)
    axes.annotate(
        "",
        (2.2, FLOOR_OF_SINES * (1 - 1 / 2.2)),
        (2.2, FLOOR_OF_SINES * (1 + 1 / 2.2)),
        arrowprops={"arrowstyle": "<->", "color": plots.PALETTE["text"], "linewidth": 1.2, "shrinkA": 1, "shrinkB": 1},
    )
    place["color"] = plots.PALETTE["text"]
    axes.annotate("generalization gap", (2.2, FLOOR_OF_SINES), (7, 5), ha="left", weight="bold", **place)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.minorticks_off()
    axes.set(xlim=(0.93, counts[-1] * 1.07), ylim=(-0.3, 8))
    plots.label(axes, "number of training tasks M", "squared error")
    plots.show(
        figure,
        alt="Squared error against the number of training tasks, from 1 to 32. On the training tasks it rises from "
        "zero towards the floor of three, on new tasks it falls from about six towards the floor. The measured points "
        "lie close to the two curves of the formula.",
        title="Few training tasks: below the floor on them, above it on new tasks",
        caption="Curves: (1 − 1/M) and (1 + 1/M) times the floor. Points: networks after training, mean over 24 runs "
        "with its 95 % interval.",
    )


def splits() -> str:
    """The tasks are divided: some train, some choose, some report, and each has a support and a query set."""
    uses = (
        ("training tasks", "fit the parameters", diagrams.BLUE, 5),
        ("validation tasks", "choose settings", diagrams.ORANGE, 3),
        ("test tasks", "report, only once", diagrams.TEXT, 3),
    )
    drawn = []
    for name, use, color, number in uses:
        width = 78 * number
        d = diagrams.Drawing(width + 12, 186)
        d.text(width / 2 + 1, 24, name, color, bold=True)
        for i in range(number):
            left = 6 + 78 * i
            d.box(left, 38, 68, 104, color)
            for top, each in ((48, diagrams.BLUE), (95, diagrams.ORANGE)):
                d.band(left + 7, top, 54, 37, each)
            d.text(left + 34, 71, "support", diagrams.BLUE, size=12)
            d.text(left + 34, 118, "query", diagrams.ORANGE, size=12)
        d.text(width / 2 + 1, 168, use, diagrams.MUTED)
        drawn.append(d.svg())
    return f'<div class="ml-panels">{"".join(drawn)}</div>'


def diagnosed(runs: dict[str, tuple[Any, Any, Any]]) -> None:
    """Shows the losses of three runs on training and validation tasks, one panel each."""
    figure, axes = plots.subplots(3, height=3.2, sharey=True)
    for (name, (steps, training, validation)), each in zip(runs.items(), axes, strict=True):
        for values, color, dash, what, above in (
            (training, "blue", "-", "training tasks", 12),
            (validation, "orange", "--", "validation tasks", -20),
        ):
            each.plot(steps, values, color=plots.PALETTE[color], linestyle=dash)
            if name == "A":
                middle = int(0.55 * len(steps))
                each.annotate(
                    what,
                    (steps[middle], values[middle]),
                    (0, above),
                    textcoords="offset points",
                    ha="center",
                    color=plots.PALETTE[color],
                    weight="bold",
                )
        each.axhline(FLOOR_OF_SINES, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
        each.set(ylim=(0, 7))
        plots.label(each, "training steps", "squared error", f"run {name}")
    plots.show(
        figure,
        alt="Three panels with the loss on training and on validation tasks over the training steps, and the floor as "
        "a dotted line at three. Run A: the training loss falls far below the floor, the validation loss rises away "
        "from it. Run B: both fall together and are still above the floor. Run C: both reach the floor and stay.",
        title="Three runs of the same network, each with a different outcome",
        caption="Loss on training tasks and on validation tasks. Dotted: the floor.",
    )


def early_stopping(run: tuple[Any, Any, Any]) -> None:
    """Shows where the validation loss of a run is lowest."""
    steps, training, validation = run
    best = int(validation.argmin())
    figure = plots.lines(
        steps,
        {"training tasks": training, "validation tasks": validation},
        "training steps",
        "squared error",
        points={"stop here": (steps[best], validation[best])},
        log="x",
        ylim=(0, 7),
    )
    figure.axes[0].axhline(FLOOR_OF_SINES, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
    plots.show(
        figure,
        alt="The losses of run A over the training steps, on a logarithmic axis. The training loss falls from four to "
        "one. The validation loss begins near four too, has a shallow minimum, and then rises to about five.",
        title="Early stopping: keep the parameters with the lowest validation loss",
        caption="Run A, which trained on two tasks. Dotted: the floor.",
    )


def fine_tuning(rates: Any, validation: dict[str, Any], chosen: dict[str, float], test: dict[str, Any]) -> None:
    """Shows the choice of the inner learning rate on validation tasks, and adaptation on test tasks.

    Args:
      rates: inner learning rates.
      validation: initialization -> mean query loss after ten steps, for each of `rates`.
      chosen: initialization -> the rate that was chosen.
      test: initialization -> query losses on test tasks with that rate, shape [11, num_tasks].
    """
    figure, axes = plots.subplots(2, height=3.5, sharey=True)
    colors = {name: plots.PALETTE[color] for name, color in zip(validation, ("orange", "muted"), strict=True)}
    dashes = dict(zip(validation, ("--", "-."), strict=True))
    for name, values in validation.items():
        axes[0].plot(rates, values, color=colors[name], linestyle=dashes[name], label=name)
        at = list(rates).index(chosen[name])
        axes[0].plot(rates[at], values[at], marker="o", markersize=7, color=colors[name], linestyle="none")
        curve = np.asarray(test[name])
        mean, half_width = curve.mean(1), 1.96 * curve.std(1, ddof=1) / np.sqrt(curve.shape[1])
        axes[1].plot(range(11), mean, color=colors[name], linestyle=dashes[name], label=name)
        axes[1].fill_between(
            range(11), mean - half_width, mean + half_width, color=colors[name], alpha=0.2, linewidth=0
        )
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks(rates[::2], [f"{rate:g}" for rate in rates[::2]])
    axes[0].minorticks_off()
    axes[0].set_ylim(0, 5.4)
    axes[1].set_xticks(range(0, 11, 2))
    axes[1].axhline(FLOOR_OF_SINES, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
    plots.label(axes[0], "inner learning rate α", "query loss after ten steps", "Choose on validation tasks")
    plots.label(axes[1], "inner steps", "query loss", "Report on test tasks")
    plots.show(
        figure,
        alt="Left: query loss after ten steps on validation tasks against the inner learning rate, with the lowest "
        "point of each curve marked. Right: query loss on test tasks over ten inner steps with narrow bands for the "
        "intervals. From joint training it falls from three to about two, from a random initialization from nearly "
        "five to about four.",
        title="Joint training is the better initialization, and still a poor one",
        caption="Fine-tuning on ten support points. Right: mean over 1,000 test tasks with its 95 % interval; dotted, "
        "the floor without adaptation.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: one function for all sine curves is far from most, so its loss has a floor."""
    x = np.linspace(-5.0, 5.0, 101)
    middles = (np.arange(60) + 0.5) / 60
    amplitude, phase = np.meshgrid(0.1 + 4.9 * middles, np.pi * middles)
    curves = amplitude.ravel()[:, None] * np.sin(x - phase.ravel()[:, None])  # Finn et al.'s task distribution
    mean = curves.mean(0)
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    for row in curves[np.random.default_rng(0).integers(len(curves), size=12)]:
        axes.plot(x, row, color=plots.PALETTE["muted"], linestyle="-", linewidth=0.7, alpha=0.6)
    axes.plot(x, mean, color=plots.PALETTE["orange"], linestyle="-", linewidth=3, label="best function")
    plots.label(axes, "x", "y")
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.support_and_query(),
        ("One function for all tasks: its loss has a floor", "So every task adapts first"),
        ("Twelve of the sine curves, and the mean of all.", "Support set and query set of one task."),
        "Left: twelve sine curves, and the mean of all, a low curve far from most of them. "
        "Right: the support set adapts the parameters of a task, the query set judges them.",
    )
