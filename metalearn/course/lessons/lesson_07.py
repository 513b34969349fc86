"""Lesson 07, the comparison: its exercises, predictions, quiz and figures."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import comparison, own
from metalearn.course.lessons.comparison import METHODS, RECORD, SETTINGS, low_median_high
from metalearn.course.process import bar
from metalearn.course.widgets import diagrams

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

_Array = Float[np.ndarray, "..."]

# 07.compare ---------------------------------------------------------------------------------------------------------


def _choose_by_validation(run, method, grid, steps, tuning_seed, seeds):
    return int(np.nanargmin([run(method, point, steps, tuning_seed)[0] for point in grid]))


def _extremes_and_median(errors):
    return np.array([np.min(errors), np.median(errors), np.max(errors)])


def _on_test(run, method, point, steps, seeds, tuning_seed):
    return [run(method, point, steps, seed)[1] for seed in seeds]


def _steps_of_the_budget(method, cost, budget, grid):
    return budget // cost[method]


def _comparison(
    choose=_choose_by_validation,
    steps=_steps_of_the_budget,
    tuning_steps=None,
    report=_on_test,
    summary=_extremes_and_median,
    choose_for=lambda method, cost: method,
):
    """A comparison from its parts, each of which can be wrong."""

    def compare(run, cost, grid, budget, tuning_seed, seeds):
        found = {}
        for method in cost:
            count = steps(method, cost, budget, grid)
            tuned = count if tuning_steps is None else tuning_steps(method, cost, budget, grid)
            best = choose(run, choose_for(method, cost), grid, tuned, tuning_seed, seeds)
            found[method] = summary(report(run, method, grid[best], count, seeds, tuning_seed))
        return found

    return compare


def _choose_by_test(run, method, grid, steps, tuning_seed, seeds):
    return int(np.nanargmin([np.median(_on_test(run, method, point, steps, seeds, None)) for point in grid]))


def _choose_by_the_reported_seeds(run, method, grid, steps, tuning_seed, seeds):
    return int(np.nanargmin([np.median([run(method, p, steps, s)[0] for s in seeds]) for p in grid]))


def _choose_by_the_test_of_the_tuning_seed(run, method, grid, steps, tuning_seed, seeds):
    return int(np.nanargmin([run(method, point, steps, tuning_seed)[1] for point in grid]))


def _nan_wins(run, method, grid, steps, tuning_seed, seeds):
    return int(np.argmin([run(method, point, steps, tuning_seed)[0] for point in grid]))


def _largest(run, method, grid, steps, tuning_seed, seeds):
    return int(np.nanargmax([run(method, point, steps, tuning_seed)[0] for point in grid]))


def _best_configuration_of_each_seed(run, cost, grid, budget, tuning_seed, seeds):
    found = {}
    for method in cost:
        steps = budget // cost[method]
        of_seed = [np.nanmin([run(method, point, steps, seed)[1] for point in grid]) for seed in seeds]
        found[method] = _extremes_and_median(of_seed)
    return found


def _one_for_all(run, cost, grid, budget, tuning_seed, seeds):
    validation = [[run(method, point, budget // cost[method], tuning_seed)[0] for point in grid] for method in cost]
    best = int(np.nanargmin(np.nanmean(validation, axis=0)))
    return _comparison(choose=lambda *args: best)(run, cost, grid, budget, tuning_seed, seeds)


def _in_one_table(run, cost, grid, budget, tuning_seed, seeds):
    """An alternative: all validation errors first, then sorting."""
    validation = {m: np.array([run(m, point, budget // cost[m], tuning_seed)[0] for point in grid]) for m in cost}
    chosen = {m: grid[np.argsort(np.where(np.isnan(v), np.inf, v))[0]] for m, v in validation.items()}
    errors = {m: sorted(run(m, chosen[m], budget // cost[m], seed)[1] for seed in seeds) for m in cost}
    middle = {m: (e[(len(e) - 1) // 2] + e[len(e) // 2]) / 2 for m, e in errors.items()}
    return {m: np.array([errors[m][0], middle[m], errors[m][-1]]) for m in cost}


class SyntheticRun:
    """Runs that take no time: (method, configuration, num_steps, seed) -> (validation error, test error).

    For each method one configuration diverges, one is best on validation, one is worst there, one is best on the test,
    one is best there with the tuning seed, one is best on validation with the reported seeds, and one is best in a run
    that is too short.
    """

    def __init__(self, rng, cost, grid, budget, tuning_seed):
        """Random roles and errors for the configurations of every method; cost and budget as in `compare`."""
        self._salt = int(rng.integers(2**31))
        self._grid, self._tuning_seed = list(grid), tuning_seed
        self._right = {method: budget // gradients for method, gradients in cost.items()}
        order = rng.permutation(len(grid))
        order = [place for place in order if place not in (0, len(grid) - 1)]
        order = np.array([order[0], len(grid) - 1, *order[1:], 0])  # the first two methods' best: the last, the first
        self._roles = {  # another one for each method
            method: dict(
                zip(
                    ("diverged", "best", "lucky", "overfit", "hasty", "worst", "early"),
                    np.roll(order, 2 * i),
                    strict=False,
                )
            )
            for i, method in enumerate(cost)
        }

    def __call__(self, method, configuration, num_steps, seed):
        """(validation error, test error), NaN for the configuration that diverges."""
        index = self._grid.index(configuration)
        roles = {int(place): role for role, place in self._roles[method].items()}
        role = roles.get(index, "")
        if role == "diverged":
            return float("nan"), float("nan")
        text = f"{self._salt} {method} {index} {seed}"
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        tuning = seed == self._tuning_seed
        validation, test = 2.0, 2.0
        if role == "best":
            validation, test = (0.6, 1.0) if tuning else (1.0, 1.0)
        if role == "worst":
            validation = 3.5
        if role == "lucky":
            test = 0.5
        if role == "overfit":
            validation, test = (2.5, 1.5) if tuning else (0.3, 0.1 if seed == 0 else 1.5)
        if role == "hasty":
            validation = 0.1 if num_steps < 0.75 * self._right[method] else 2.0
        if role == "early" and tuning:
            test = 0.2
        left = 1 + 20 / (num_steps + 20)
        return validation * left * (1 + 0.1 * rng.random()), test * left * (1 + rng.gamma(1.0, 0.12))

    def __repr__(self):
        """Short, for the message of a check."""
        return "run"


def _compare_instance(rng, cost, grid, budget, num_seeds, tuning_seed):
    run = SyntheticRun(rng, cost, grid, budget, tuning_seed)
    return run, cost, grid, budget, tuning_seed, tuple(range(num_seeds))


_POINTS = [(rate, norm) for rate in (1e-3, 3e-3, 1e-2) for norm in (None, 1.0, 0.1)]

COMPARE = Exercise(
    id="07.compare",
    title="A fair comparison",
    difficulty=3,
    minutes=15,
    reference=_comparison(),
    instances=lambda rng: [
        _compare_instance(rng, {"MAML": 31, "FO-MAML": 11}, _POINTS, 4_000, 5, 100),
        _compare_instance(rng, {"a": 7, "b": 40, "c": 20}, list("tuvwxyz"), int(rng.integers(900, 1_500)), 6, 7),
        _compare_instance(rng, {"one": 10, "two": 3}, [*_POINTS[1:], (0.1, 0.1)], 1_001, 9, 55),
    ],
    misconceptions=(
        Misconception(
            "chosen on the test",
            _comparison(choose=_choose_by_test),
            "Your result equals that of a comparison which chooses the configuration by its *test* errors. The test "
            "has then taken part in the choice, and its errors are too good to be true. What may a choice look at?",
        ),
        Misconception(
            "test error of the tuning runs",
            _comparison(choose=_choose_by_the_test_of_the_tuning_seed),
            "Your result equals that of a choice by the test errors of the tuning seed. Another seed does not help, "
            "because they are errors on the same test tasks. `run` returns a pair; which of the two may choose?",
        ),
        Misconception(
            "best configuration of each seed",
            _best_configuration_of_each_seed,
            "Your result equals that of a comparison in which every seed reports its own best configuration by test "
            "error. One configuration is chosen for each method, once, before the reported runs.",
        ),
        Misconception(
            "tuned on the reported seeds",
            _comparison(choose=_choose_by_the_reported_seeds),
            "Your result equals that of a choice by validation errors of the *reported* seeds. These seeds should be "
            "new, or the choice is fitted to their chance. Which seed is meant for tuning?",
        ),
        Misconception(
            "only the best seed reported",
            _comparison(summary=lambda errors: np.full(3, np.min(errors))),
            "All three numbers of yours are the lowest error. The best seed is luck that a new run will not repeat.",
        ),
        Misconception(
            "equal steps, set by the most expensive",
            _comparison(steps=lambda method, cost, budget, grid: budget // max(cost.values())),
            "Your result equals that of a comparison in which all methods take as many outer steps as the most "
            "expensive one can afford. The budget counts *gradients*, so a cheap method takes more steps.",
        ),
        Misconception(
            "equal steps, set by the cheapest",
            _comparison(steps=lambda method, cost, budget, grid: budget // min(cost.values())),
            "Your result equals that of a comparison in which all methods take as many outer steps as the cheapest one "
            "can afford. The expensive methods then exceed the budget.",
        ),
        Misconception(
            "budget taken for steps",
            _comparison(steps=lambda method, cost, budget, grid: budget),
            "Your result equals that of runs with `budget` outer steps. The budget is in gradients; what does a step "
            "cost?",
        ),
        Misconception(
            "budget shared by the grid",
            _comparison(tuning_steps=lambda method, cost, budget, grid: budget // cost[method] // len(grid)),
            "Your result equals that of tuning runs which share one budget, so that each is much shorter than a "
            "reported one. A configuration that is best in a short run need not be best in a long one.",
        ),
        Misconception(
            "tuned for one method only",
            _comparison(choose_for=lambda method, cost: next(iter(cost))),
            "Your result equals that of a comparison in which every method runs with the configuration that is best "
            "for the first one. That favours the first one.",
        ),
        Misconception(
            "a diverged run wins",
            _comparison(choose=_nan_wins),
            "Your result contains the configuration that *diverged*. NumPy's `argmin` takes NaN for the smallest "
            "number of all.",
        ),
        Misconception(
            "largest error",
            _comparison(choose=_largest),
            "Your result equals that of the configuration with the *largest* validation error.",
        ),
        Misconception(
            "validation error reported",
            _comparison(
                report=lambda run, method, point, steps, seeds, tuning_seed: [
                    run(method, point, steps, seed)[0] for seed in seeds
                ]
            ),
            "Your configuration seems right, but your numbers equal its *validation* errors. Those took part in the "
            "choice.",
        ),
        Misconception(
            "tuning seed reported as well",
            _comparison(
                report=lambda run, method, point, steps, seeds, tuning_seed: _on_test(
                    run, method, point, steps, (*seeds, tuning_seed), tuning_seed
                )
            ),
            "Your numbers equal those of the reported seeds and the tuning seed together. The run that made the "
            "choice does not belong to the report.",
        ),
        Misconception(
            "mean in the middle",
            _comparison(summary=lambda errors: np.array([np.min(errors), np.mean(errors), np.max(errors)])),
            "Your middle number is the mean over seeds. One bad run moves it as far as it likes. The exercise asks for "
            "the number with half of the seeds on each side.",
        ),
        Misconception(
            "mean and standard deviation",
            _comparison(summary=lambda errors: np.mean(errors) + np.array([-1, 0, 1]) * np.std(errors)),
            "Your numbers equal the mean and one standard deviation to each side. The exercise asks for three errors "
            "by their rank.",
        ),
        Misconception(
            "largest first",
            _comparison(summary=lambda errors: _extremes_and_median(errors)[::-1]),
            "You have the right three numbers, the largest first. The lowest comes first.",
        ),
    ),
    relatives=(
        (
            "what every method gives with the number of steps of the first one",
            _comparison(steps=lambda method, cost, budget, grid: budget // next(iter(cost.values()))),
        ),
        (
            "what a budget gives that the seeds share",
            lambda run, cost, grid, budget, tuning_seed, seeds: _comparison(
                steps=lambda method, cost, budget, grid: budget // (cost[method] * len(seeds))
            )(run, cost, grid, budget, tuning_seed, seeds),
        ),
        (
            "what the budget gives if it is multiplied by the cost",
            _comparison(steps=lambda method, cost, budget, grid: budget * cost[method]),
        ),
        (
            "what the budget gives if the number of steps is rounded up, so that it is exceeded",
            _comparison(steps=lambda method, cost, budget, grid: -(-budget // cost[method])),
        ),
        (
            "what one step fewer than the budget allows gives",
            _comparison(steps=lambda method, cost, budget, grid: budget // cost[method] - 1),
        ),
        ("what the first configuration of the grid gives, for every method", _comparison(choose=lambda *args: 0)),
        ("what one configuration gives for all methods, the one whose mean validation error is lowest", _one_for_all),
        (
            "the test error of the seed that tunes, three times",
            _comparison(
                report=lambda run, method, point, steps, seeds, tuning_seed: [run(method, point, steps, tuning_seed)[1]]
            ),
        ),
        (
            "the quartiles of the errors, where the lowest and the highest belong",
            _comparison(summary=lambda errors: np.percentile(errors, [25, 50, 75])),
        ),
        (
            "what tuning gives with a fixed number of steps, whatever the budget",
            _comparison(tuning_steps=lambda method, cost, budget, grid: 100),
        ),
        (
            "the errors of all seeds, not yet summarized",
            _comparison(summary=lambda errors: [float(error) for error in errors]),
        ),
        ("the median alone", _comparison(summary=np.median)),
    ),
    alternatives=(_in_one_table,),
    hints=(
        "For each method there are three steps: how many outer steps the budget pays for, which configuration has the "
        "lowest validation error with the tuning seed, and which test errors the reported seeds reach with it.",
        "`np.nanargmin` passes over NaN. `run(...)` returns a pair, so `run(...)[0]` is the validation error.",
    ),
    expected="A dictionary with one array for each method. The test error of a configuration that was not chosen "
    "appears nowhere.",
)

# 07.control ---------------------------------------------------------------------------------------------------------


def _control_of(matched, combine=lambda other, clipped: other / clipped, control_norm=lambda norm: np.inf, swap=False):
    """A control: `matched` gives its outer learning rate from (rate, length unclipped, length clipped)."""

    def control(train, outer_rate, max_norm):
        clipped, clipped_length = train(outer_rate, max_norm)
        plain, plain_length = train(outer_rate, np.inf)
        third, _ = train(matched(outer_rate, plain_length, clipped_length), control_norm(max_norm))
        pair = np.array([combine(plain, clipped), combine(third, clipped)])
        return pair[::-1] if swap else pair

    return control


def _matched(rate, plain, clipped):
    return rate * clipped / plain


def _by_a_line(train, outer_rate, max_norm):
    """An alternative: a helper, and logarithms."""
    (clipped, length), (plain, plain_length) = (train(outer_rate, norm) for norm in (max_norm, float("inf")))
    rate = np.exp(np.log(outer_rate) + np.log(length) - np.log(plain_length))
    return np.exp(np.log([plain, train(rate, float("inf"))[0]]) - np.log(clipped))


class SyntheticTraining:
    """(outer learning rate, largest norm) -> (error, mean length of an outer step), by some law."""

    def __init__(self, rng, shortens):
        """A random law; `shortens` says whether clipping makes the steps shorter or longer."""
        self._best, self._scale, self._spikes = rng.uniform([0.002, 0.5, 1.0], [0.02, 2.0, 3.0])
        self._length = rng.uniform(2, 5)
        self._clipped = rng.uniform(0.2, 0.6) if shortens else rng.uniform(1.5, 4.0)

    def __call__(self, outer_rate, max_norm):
        """(error, mean length of an outer step)."""
        open_share = 1.0 if np.isinf(max_norm) else max_norm / (1 + max_norm)
        best = self._best / (1 + open_share)  # the best rate is another one if more is clipped
        error = self._scale * (1 + np.log(max(outer_rate, 1e-9) / best) ** 2) * (1 + self._spikes * open_share)
        factor = 1.0 if np.isinf(max_norm) else self._clipped * (0.5 + open_share)
        return float(error), float(outer_rate * self._length * factor)

    def __repr__(self):
        """Short, for the message of a check."""
        return "train"


CONTROL = Exercise(
    id="07.control",
    title="Design the control: clipped, or just slower?",
    difficulty=2,
    minutes=12,
    reference=_control_of(_matched),
    instances=lambda rng: [
        (SyntheticTraining(rng, shortens=True), 0.01, 1.0),
        (SyntheticTraining(rng, shortens=False), 0.003, 1.0),
        (SyntheticTraining(rng, shortens=True), float(rng.uniform(0.001, 0.05)), float(rng.uniform(0.2, 0.7))),
        (SyntheticTraining(rng, shortens=False), float(rng.uniform(0.001, 0.05)), float(rng.uniform(3, 9))),
    ],
    misconceptions=(
        Misconception(
            "rate turned round",
            _control_of(lambda rate, plain, clipped: rate * plain / clipped),
            "Your control seems to change the outer learning rate by the right factor in the wrong direction. If "
            "the clipped run takes shorter steps, should the control's rate be larger or smaller?",
        ),
        Misconception(
            "control clipped too",
            _control_of(_matched, control_norm=lambda norm: norm),
            "Your control seems to be clipped as well. Its steps should be as long as those of the clipped run, but "
            "without clipping. Which of the two explanations could it refute as it is?",
        ),
        Misconception(
            "learning rate kept",
            _control_of(lambda rate, plain, clipped: rate),
            "Your second number equals the first, so your control seems to be the unclipped run itself. Its steps are "
            "not as long as those of the clipped run. What makes them so?",
        ),
        Misconception(
            "half the learning rate",
            _control_of(lambda rate, plain, clipped: rate / 2),
            "Your control seems to have half the outer learning rate. Whether its steps are then as long as the "
            "clipped ones is chance. Which factor makes them so?",
        ),
        Misconception(
            "divided by the length",
            _control_of(lambda rate, plain, clipped: rate / plain),
            "Your control's outer learning rate seems to be the old one divided by the length of the unclipped steps. "
            "To what length should they be brought?",
        ),
        Misconception(
            "length taken for the rate",
            _control_of(lambda rate, plain, clipped: clipped),
            "Your control seems to take the length of the clipped steps for its outer learning rate. The length is in "
            "units of parameters, and with Adam it is not the learning rate, only proportional to it.",
        ),
        Misconception(
            "rate times norm",
            lambda train, outer_rate, max_norm: _control_of(lambda rate, plain, clipped: rate * max_norm / 2)(
                train, outer_rate, max_norm
            ),
            "Your control's outer learning rate seems to follow from the bound on the norm. Adam divides its steps by "
            "the size of earlier gradients, so the bound does not tell how long a step is. It has been measured.",
        ),
        Misconception(
            "inverted",
            _control_of(_matched, lambda other, clipped: clipped / other),
            "Your two ratios are turned round: the clipped run's error belongs in the denominator.",
        ),
        Misconception(
            "difference",
            _control_of(_matched, lambda other, clipped: other - clipped),
            "You subtract the errors. The exercise asks by which *factor* they differ.",
        ),
        Misconception(
            "not compared",
            _control_of(_matched, lambda other, clipped: other),
            "You return the two errors themselves. By which factors do they differ from the clipped run's?",
        ),
        Misconception(
            "swapped",
            _control_of(_matched, swap=True),
            "You return both ratios in the other order: the unclipped run with the same outer learning rate comes "
            "first.",
        ),
    ),
    relatives=(
        (
            "the right first number, and a second one from a run whose rate is multiplied by the norm of clipping",
            lambda train, outer_rate, max_norm: _control_of(lambda rate, plain, clipped: rate * max_norm)(
                train, outer_rate, max_norm
            ),
        ),
        (
            "the ratios of the lengths, not of the errors",
            lambda train, outer_rate, max_norm: (
                lambda clipped, plain: np.array([plain, plain * clipped / plain]) / clipped
            )(train(outer_rate, max_norm)[1], train(outer_rate, np.inf)[1]),
        ),
        (
            "what runs give that are clipped to norm 0",
            lambda train, outer_rate, max_norm: (
                lambda clipped, plain: (
                    np.array([train(outer_rate, 0.0)[0], train(_matched(outer_rate, plain, clipped[1]), 0.0)[0]])
                    / clipped[0]
                )
            )(train(outer_rate, max_norm), train(outer_rate, np.inf)[1]),
        ),
        (
            "the right first number, and a second one in which the unclipped run is divided by the slower one",
            lambda train, outer_rate, max_norm: (lambda pair: np.array([pair[0], pair[0] / pair[1]]))(
                _control_of(_matched)(train, outer_rate, max_norm)
            ),
        ),
        (
            "the right first number, and a second one that is divided by the unclipped run's error",
            lambda train, outer_rate, max_norm: (lambda pair: np.array([pair[0], pair[1] / pair[0]]))(
                _control_of(_matched)(train, outer_rate, max_norm)
            ),
        ),
        (
            "the right first number, and a second one from a run whose rate is the ratio of the lengths alone",
            _control_of(lambda rate, plain, clipped: clipped / plain),
        ),
        (
            "the right first number, and a second one from a run whose rate has the root of the ratio",
            _control_of(lambda rate, plain, clipped: rate * np.sqrt(clipped / plain)),
        ),
        (
            "the right first number, and a second one from a run whose rate is multiplied by both lengths",
            _control_of(lambda rate, plain, clipped: rate * clipped * plain),
        ),
        (
            "what runs give that are clipped to norm 1, where nothing should be clipped",
            lambda train, outer_rate, max_norm: (
                lambda clipped, plain: (
                    np.array([plain[0], train(_matched(outer_rate, plain[1], clipped[1]), 1.0)[0]]) / clipped[0]
                )
            )(train(outer_rate, max_norm), train(outer_rate, 1.0)),
        ),
        (
            "the right first number, and a second one that compares with a clipped run whose rate is raised",
            lambda train, outer_rate, max_norm: (
                lambda clipped, plain: np.array(
                    [plain[0] / clipped[0], plain[0] / train(outer_rate * plain[1] / clipped[1], max_norm)[0]]
                )
            )(train(outer_rate, max_norm), train(outer_rate, np.inf)),
        ),
    ),
    alternatives=(_by_a_line,),
    hints=(
        "Three runs. For each, write down its outer learning rate, whether it is clipped, and how long its steps are. "
        "The control must agree with the clipped run in one of the three, and with the unclipped run in another.",
        "`train` returns the error and the mean length of a step. The length is proportional to the outer learning "
        "rate, so the two measured lengths tell the factor.",
    ),
    expected="Two numbers. The second one is near 1 if the mean length of the steps explains the gain.",
)

# 07.diagnose --------------------------------------------------------------------------------------------------------


def _still_falls(curve):
    median = np.median(curve, axis=0)
    return median[-1] < 0.98 * median[-2]


def _place(validation, choose=np.nanargmin):
    return np.unravel_index(choose(validation), validation.shape)


def _at_an_edge(validation, choose=np.nanargmin):
    place = _place(validation, choose)
    return any(place[axis] in (0, validation.shape[axis] - 1) for axis in (0, 1))


def _not_converged(left):
    return np.median(left) > 0.1


def _diagnosis(falls=_still_falls, edge=_at_an_edge, inner=_not_converged, order=(0, 1, 2)):
    """A diagnosis from one rule for each sign."""

    def diagnose(curve, validation, left):
        signs = np.array([falls(curve), edge(validation), inner(left)], float)
        return signs[list(order)]

    return diagnose


diagnosis = _diagnosis()


def _by_position(curve, validation, left):
    """An alternative: where the best lies, by np.where; the median by sorting."""
    before, end = (sorted(curve[:, column])[len(curve) // 2] for column in (-2, -1))
    if len(curve) % 2 == 0:
        before, end = (np.quantile(curve[:, column], 0.5) for column in (-2, -1))
    rows, columns, _ = np.where(validation == np.nanmin(validation))
    inside = 0 < rows[0] < validation.shape[0] - 1 and 0 < columns[0] < validation.shape[1] - 1
    return np.array([end / before < 0.98, not inside, np.quantile(left, 0.5) > 0.1], float)


def _curve(rng, seeds, falls, last, bad=1.0, scale=1.0, early=3.0):
    """Errors of some seeds: they begin at `early`, and the last checkpoint is `last` times the one before.

    The first seed's last error is multiplied by `bad`.
    """
    shape = np.array([early, 1 + 0.5 * (early - 1), 1.0, last])
    curve = scale * shape * (1 + np.linspace(-2e-3, 2e-3, seeds)[:, None]) * (1 + 1e-3 * rng.random((seeds, 4)))
    curve[0, -1] *= bad
    assert falls == _still_falls(curve)
    return curve


def _crossing(rng, falls, ratios):
    """Errors of three seeds that change their order at the end, so that the median belongs to another seed."""
    before = np.array([1.0, 2.0, 3.0]) * (1 + 1e-3 * rng.random(3))
    if falls:
        before = np.array([2.0, 1.0, 4.0]) * (1 + 1e-3 * rng.random(3))
    first = 0.4 if falls else 4  # below the end, so that a mean of all checkpoints before is another than the first
    curve = np.stack([first * before, 4 * before, before, np.array(ratios) * before], axis=1)
    assert falls == _still_falls(curve) != (np.median(ratios) < 0.98)
    return curve


def _grid_of(rng, place, shape=(3, 3, 2), diverged=None, worst=None):
    """Validation errors whose lowest is at `place`; one configuration has diverged, one is the worst."""
    validation = 1 + rng.random(shape)
    validation[place] = 0.5
    if worst:  # elsewhere, and the best one is good with and without clipping
        validation[*place[:2], 1 - place[2]] = 0.6
    validation[worst or (1, 1, 1 - place[2])] = 3.0
    if diverged is not None:
        validation[diverged] = np.nan
    return validation


def _diagnose_instances(rng):
    high, low = np.array([0.2, 0.3, 0.4, 0.25, 0.35]), np.array([0.02, 0.03, 0.01, 0.05, 0.04])
    mostly_low, mostly_high = np.array([2.0, 0.02, 0.03, 0.01, 0.15]), np.array([0.0, 0.15, 0.12, 0.2, 0.13, 0.01])
    one_high = np.array([0.02, 0.15, 0.03, 0.01, 0.05])
    middle, seeds = (1, 1, int(rng.integers(2))), 5
    return [
        (_curve(rng, seeds, True, 0.9), _grid_of(rng, middle), low),
        (_curve(rng, seeds, False, 1.0), _grid_of(rng, (0, 1, 0)), high),  # not at the end; lower edge of one axis
        (_curve(rng, seeds, False, 0.99, scale=50.0), _grid_of(rng, (1, 2, 1)), mostly_low),
        (_curve(rng, seeds, True, 0.9, bad=8.0, scale=0.1), _grid_of(rng, middle, diverged=(0, 2, 0)), low),
        (_curve(rng, 6, False, 1.01, bad=0.1), _grid_of(rng, (3, 1, 1), (4, 3, 2)), mostly_high),
        (_curve(rng, seeds, False, 1.2), _grid_of(rng, (1, 0, 0), worst=(2, 2, 1)), one_high),
        (_curve(rng, seeds, True, 0.97, bad=1.03), _grid_of(rng, middle), low),  # the first seed does not fall
        (_curve(rng, seeds, True, 0.97, bad=1.03)[::-1], _grid_of(rng, middle), high),  # the last one does not
        (_curve(rng, 7, True, 0.95, early=0.5), _grid_of(rng, (2, 2, 0), (5, 4, 2), diverged=(4, 3, 1)), high),
        (_curve(rng, 3, True, 0.5, scale=0.01), _grid_of(rng, (0, 2, 1)), 1 - high),
        (
            _crossing(rng, False, (3.0, 0.5, 0.673)),
            _grid_of(rng, middle, worst=(0, 0, 1)),
            low,
        ),  # two of three seeds fall
        (_crossing(rng, True, (0.5, 1.1, 1.1)), _grid_of(rng, (1, 2, 0)), high),  # two of three seeds rise
    ]


def _edge_of(test):
    """A rule for the edge from (place, shape)."""
    return lambda validation: test(_place(validation), validation.shape)


DIAGNOSE = Exercise(
    id="07.diagnose",
    title="Diagnose a run",
    difficulty=2,
    minutes=10,
    reference=diagnosis,
    instances=_diagnose_instances,
    misconceptions=(
        Misconception(
            "mean over seeds",
            _diagnosis(falls=lambda curve: curve.mean(0)[-1] < 0.98 * curve.mean(0)[-2]),
            "Your grid and inner loop are right. Your first sign equals that of the *mean* over seeds, which a single "
            "seed can turn round. The exercise asks for the median.",
        ),
        Misconception(
            "every fall counts",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] < np.median(curve, 0)[-2]),
            "Your first sign counts every fall, however small. The exercise asks for one of more than 2 %.",
        ),
        Misconception(
            "absolute fall",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] < np.median(curve, 0)[-2] - 0.02),
            "Your first sign equals that of a fall by more than 0.02 in the units of the error. Per cent are relative "
            "to the error itself, which is 50 on some of these runs and 0.01 on others.",
        ),
        Misconception(
            "from the beginning",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] < 0.98 * np.median(curve, 0)[0]),
            "Your first sign compares the last checkpoint with the *first*. Nearly every run has fallen since its "
            "beginning. Is it still falling?",
        ),
        Misconception(
            "rises",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] > 1.02 * np.median(curve, 0)[-2]),
            "Your first sign is true where the error *rises* at the end.",
        ),
        Misconception(
            "first seed only",
            _diagnosis(falls=lambda curve: curve[0, -1] < 0.98 * curve[0, -2]),
            "Your first sign equals that of the first seed alone. The seeds are the first axis of `curve`.",
        ),
        Misconception(
            "clipping counted as an edge",
            _diagnosis(
                edge=_edge_of(lambda place, shape: any(p in (0, n - 1) for p, n in zip(place, shape, strict=True)))
            ),
            "Your second sign is true for every run. Clipping has two values, on and off, so each of them is an edge. "
            "Which of the three axes can be widened?",
        ),
        Misconception(
            "a diverged run wins",
            _diagnosis(edge=functools.partial(_at_an_edge, choose=np.argmin)),
            "Your second sign looks at a configuration that *diverged*: NumPy's `argmin` takes NaN for the smallest "
            "number of all.",
        ),
        Misconception(
            "largest error",
            _diagnosis(edge=functools.partial(_at_an_edge, choose=np.nanargmax)),
            "Your second sign looks at the configuration with the *largest* validation error.",
        ),
        Misconception(
            "outer learning rate only",
            _diagnosis(edge=_edge_of(lambda place, shape: place[0] in (0, shape[0] - 1))),
            "Your second sign equals that of the outer learning rate alone. The method's own hyper-parameter can be at "
            "an edge too.",
        ),
        Misconception(
            "own hyper-parameter only",
            _diagnosis(edge=_edge_of(lambda place, shape: place[1] in (0, shape[1] - 1))),
            "Your second sign equals that of the method's own hyper-parameter alone. The outer learning rate can be at "
            "an edge too.",
        ),
        Misconception(
            "both at once",
            _diagnosis(edge=_edge_of(lambda place, shape: all(place[i] in (0, shape[i] - 1) for i in (0, 1)))),
            "Your second sign is true only where both axes are at an edge. One of them is enough.",
        ),
        Misconception(
            "upper edge only",
            _diagnosis(edge=_edge_of(lambda place, shape: any(place[i] == shape[i] - 1 for i in (0, 1)))),
            "Your second sign sees the upper end of a list only. A list can be too short at its lower end too.",
        ),
        Misconception(
            "lower edge only",
            _diagnosis(edge=_edge_of(lambda place, shape: any(place[i] == 0 for i in (0, 1)))),
            "Your second sign sees the lower end of a list only. A list can be too short at its upper end too.",
        ),
        Misconception(
            "mean of what is left",
            _diagnosis(inner=lambda left: np.mean(left) > 0.1),
            "Your third sign equals that of the *mean* over seeds, which one seed can turn round. The exercise asks "
            "for the median.",
        ),
        Misconception(
            "worst seed",
            _diagnosis(inner=lambda left: np.max(left) > 0.1),
            "Your third sign is true as soon as a single seed is above 0.1. The exercise asks for the median.",
        ),
        Misconception(
            "every seed",
            _diagnosis(inner=lambda left: np.min(left) > 0.1),
            "Your third sign is true only if every seed is above 0.1. The exercise asks for the median.",
        ),
        Misconception(
            "converged",
            _diagnosis(inner=lambda left: np.median(left) < 0.1),
            "Your third sign is true where the inner loop *has* converged. It should warn where it has not.",
        ),
        Misconception(
            "order",
            _diagnosis(order=(1, 0, 2)),
            "You return the first two signs in the other order: first the budget, then the grid.",
        ),
    ),
    relatives=(
        (
            "what the median of each seed's own fall gives, where the fall of the median belongs",
            _diagnosis(falls=lambda curve: np.median(curve[:, -1] / curve[:, -2]) < 0.98),
        ),
        (
            "what means over seeds give in place of both medians",
            _diagnosis(
                falls=lambda curve: curve.mean(0)[-1] < 0.98 * curve.mean(0)[-2],
                inner=lambda left: np.mean(left) > 0.1,
            ),
        ),
        (
            "what validation errors give that are first averaged over clipping",
            _diagnosis(edge=lambda validation: _at_an_edge(np.nanmean(validation, axis=2, keepdims=True))),
        ),
        (
            "what the lowest error before the last checkpoint gives, not the last but one",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] < 0.98 * np.median(curve, 0)[:-1].min()),
        ),
        (
            "what a fall of any single seed gives",
            _diagnosis(falls=lambda curve: (curve[:, -1] < 0.98 * curve[:, -2]).any()),
        ),
        (
            "what a fall of every single seed gives",
            _diagnosis(falls=lambda curve: (curve[:, -1] < 0.98 * curve[:, -2]).all()),
        ),
        (
            "what a fall of 20 % gives",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] < 0.8 * np.median(curve, 0)[-2]),
        ),
        (
            "what any change by more than 2 % gives, a rise as well",
            _diagnosis(falls=lambda curve: abs(np.median(curve, 0)[-1] / np.median(curve, 0)[-2] - 1) > 0.02),
        ),
        (
            "what the last checkpoint gives if it is above 98 % of the one before",
            _diagnosis(falls=lambda curve: np.median(curve, 0)[-1] > 0.98 * np.median(curve, 0)[-2]),
        ),
        ("what a limit of 0.01 gives for the norm that is left", _diagnosis(inner=lambda left: np.median(left) > 0.01)),
        ("what the first seed's norm gives", _diagnosis(inner=lambda left: left[0] > 0.1)),
    ),
    alternatives=(_by_position,),
    hints=(
        "One line for each sign. `np.median(curve, axis=0)` is one curve; its last two entries are all you need.",
        "`np.unravel_index(position, validation.shape)` turns the flat position from `np.nanargmin` into three "
        "indices. An index is at an edge if it is 0 or the largest one.",
    ),
    expected="An array of three zeros or ones.",
)

# 07.own -------------------------------------------------------------------------------------------------------------


def _small_loss(params, batch):
    """Weighted mean squared error of a small tanh network; params are pairs of a matrix and a bias."""
    outputs, targets, weights = batch
    *hidden, (matrix, bias) = params
    for each, offset in hidden:
        outputs = jnp.tanh(outputs @ each + offset)
    return jnp.mean(weights * (outputs @ matrix + bias - targets) ** 2)


def _small_network(rng):
    sizes = (1, 16, 16, 1)
    return tuple(
        (rng.normal(size=pair) / np.sqrt(pair[0]), 0.3 * rng.normal(size=pair[1])) for pair in itertools.pairwise(sizes)
    )


def _small_tasks(rng, count=8):
    """Sine curves as in lesson 01, ten support and ten query points, every weight 1."""
    amplitude, phase = rng.uniform(0.1, 5.0, (count, 1, 1)), rng.uniform(0, np.pi, (count, 1, 1))
    inputs = rng.uniform(-5, 5, (2, count, 10, 1))
    return ml.Task(*((each, amplitude * np.sin(each + phase), np.ones_like(each)) for each in inputs))


def _shown(name):
    return lambda loss, num_steps, learning_rate, proximal_strength: METHODS[name].build(
        loss, SETTINGS, learning_rate, proximal_strength
    )


def _descended(loss, batch, params, num_steps, learning_rate):
    return ml.inner.descend(lambda phi: loss(phi, batch), optax.sgd(learning_rate), num_steps, params)


def _truncated(loss, num_steps, learning_rate, proximal_strength):
    """Backpropagation through the last half of the steps only."""
    last = num_steps // 2

    def meta_gradient(params, task):
        middle = _descended(loss, task.support, params, num_steps - last, learning_rate)
        return jax.value_and_grad(
            lambda phi: loss(_descended(loss, task.support, phi, last, learning_rate), task.query)
        )(middle)

    return meta_gradient


def _half_the_steps(loss, num_steps, learning_rate, proximal_strength):
    """An alternative: FO-B-MAML with half the inner steps."""
    return ml.fo_b_maml(
        loss, optax.sgd(learning_rate), num_steps // 2, proximal_strength, SETTINGS.perturbation, "forward"
    )


def _two_terms(loss, num_steps, learning_rate, proximal_strength):
    """An alternative: two steps on iMAML's linear system instead of conjugate gradients."""

    def meta_gradient(params, task):
        objective = ml.inner.proximal(lambda phi: loss(phi, task.support), params, proximal_strength)
        phi = ml.inner.descend(objective, optax.sgd(learning_rate), num_steps, params)
        value, gradient = jax.value_and_grad(loss)(phi, task.query)
        solution = optax.tree.zeros_like(gradient)
        for _ in range(2):
            product = jax.jvp(jax.grad(objective), (phi,), (solution,))[1]  # with H + λ I
            residual = optax.tree.add_scale(product, -proximal_strength, gradient)
            solution = optax.tree.add_scale(solution, -learning_rate, residual)
        return value, solution

    return meta_gradient


def _sum_of(first, second, weights):
    def build(*arguments):
        both = first(*arguments), second(*arguments)

        def meta_gradient(params, task):
            (value, one), (_, other) = (each(params, task) for each in both)
            return value, jax.tree.map(lambda a, b: weights[0] * a + weights[1] * b, one, other)

        return meta_gradient

    return build


def _longer(loss, num_steps, learning_rate, proximal_strength):
    """FO-MAML at MAML's cost."""
    return ml.fo_maml(loss, optax.sgd(learning_rate), 3 * num_steps)


def _gradient_at(point, part):
    """The value at the adapted parameters, and the gradient of one part's loss at "first" or "last"."""

    def build(loss, num_steps, learning_rate, proximal_strength):
        def meta_gradient(params, task):
            adapted = _descended(loss, task.support, params, num_steps, learning_rate)
            at = params if point == "first" else adapted
            return loss(adapted, task.query), jax.grad(loss)(at, getattr(task, part))

        return meta_gradient

    return build


def _turned(build):
    """The same value, and the opposite gradient."""

    def turned(*arguments):
        def meta_gradient(params, task):
            value, gradient = build(*arguments)(params, task)
            return value, jax.tree.map(jnp.negative, gradient)

        return meta_gradient

    return turned


def _support_and_query_swapped(loss, num_steps, learning_rate, strength):
    of = ml.fo_maml(loss, optax.sgd(learning_rate), num_steps)
    return lambda params, task: of(params, ml.Task(task.query, task.support))


def _adapted_to_query(loss, num_steps, learning_rate, strength):
    of = ml.fo_maml(loss, optax.sgd(learning_rate), num_steps)
    return lambda params, task: of(params, ml.Task(task.query, task.query))


def _support_value(loss, num_steps, learning_rate, strength):
    of = _truncated(loss, num_steps, learning_rate, strength)

    def meta_gradient(params, task):
        adapted = _descended(loss, task.support, params, num_steps, learning_rate)
        return loss(adapted, task.support), of(params, task)[1]

    return meta_gradient


_LOOKALIKES = ("support and query swapped", "adapted to the query set", "gradient of the support loss")
ZERO = "the zero vector"


# Three small programs, compiled once, from which all that is shown is computed for any network and tasks. What they
# return is combined by NumPy, which compiles nothing.


def _on_host(program):
    compiled = jax.jit(program)
    return lambda *arguments: jax.device_get(compiled(*arguments))


def _plus(tree, factor, other):
    return jax.tree.map(lambda one, more: one + factor * more, tree, other)


@_on_host
def _gradients(params, batch):
    return jax.vmap(jax.grad(_small_loss))(params, batch)


@_on_host
def _products(params, vectors, batch):
    """The Hessian of the batch's loss at params, times a vector, for each task."""

    def product(params, vector, batch):
        return jax.jvp(lambda phi: jax.grad(_small_loss)(phi, batch), (params,), (vector,))[1]

    return jax.vmap(product)(params, vectors, batch)


@_on_host
def _solve(params, tasks, num_steps, rate, strength, perturbation):
    """Steps on support loss, perturbation times query loss and proximal term, for each task."""

    def of_one(first, task):
        def perturbed(phi):
            return _small_loss(phi, task.support) + perturbation * _small_loss(phi, task.query)

        gradient = jax.grad(ml.inner.proximal(perturbed, first, strength))
        return jax.lax.fori_loop(0, num_steps, lambda _, phi: optax.tree.add_scale(phi, -rate, gradient(phi)), first)

    return jax.vmap(of_one)(params, tasks)


def _implicit(params, right, batch, strength, num_steps):
    """Conjugate gradients for (I + H / λ) g = right, for each task, from zero on."""

    def apply(vectors):
        return _plus(vectors, 1 / strength, _products(params, vectors, batch))

    def dot(x, y):
        parts = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
        return sum((a * b).reshape(len(a), -1).sum(1) for a, b in parts)

    def scaled(factors, tree):
        return jax.tree.map(lambda leaf: factors.reshape(-1, *[1] * (leaf.ndim - 1)) * leaf, tree)

    solution, residual = jax.tree.map(np.zeros_like, right), right
    direction, square = residual, dot(residual, residual)
    for _ in range(num_steps):
        image = apply(direction)
        length = square / np.maximum(dot(direction, image), 1e-300)
        solution = optax.tree.add(solution, scaled(length, direction))
        residual = optax.tree.sub(residual, scaled(length, image))
        square, before = dot(residual, residual), square
        direction = optax.tree.add(residual, scaled(square / np.maximum(before, 1e-300), direction))
    return solution


def _flat(gradients):
    """Of a batch of tasks, as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)])


def _relative_error(found, exact):
    """Of the multiple of `found` that is nearest to `exact`, by a factor that is not negative."""
    factor = max(0.0, found @ exact / max(found @ found, 1e-300))
    return float(np.linalg.norm(factor * found - exact) / np.linalg.norm(exact))


class Trial:
    """Eight sine curves and a small network on which any meta-gradient is judged.

    Attributes:
      entries: of the shown methods and of the zero vector: (cost in gradients, (error for F_MAML, error for F_prox)).
    """

    def __init__(self, rng):
        """Draws the network, the tasks, and settings near α = 0.01 and λ = 30."""
        self._params, self._tasks = _small_network(rng), _small_tasks(rng)
        self.rate, self.strength = (float(rng.uniform(0.95, 1.05) * each) for each in (0.01, 30.0))
        with jax.enable_x64(True):
            self._compute()
        self.entries = {ZERO: (0.0, (1.0, 1.0))} | {
            name: (_traced(_SHOWN[name])[0], self._errors(found)) for name, found in self._found.items()
        }

    def __repr__(self):
        """Short, for the message of a check."""
        return "trial"

    def _compute(self):
        """The gradients of the shown methods and of some mistakes, and both exact ones, each as one vector."""
        tasks, rate, strength, nu = self._tasks, self.rate, self.strength, SETTINGS.perturbation
        count, steps = len(tasks.support[0]), SETTINGS.num_steps
        first = jax.tree.map(lambda leaf: np.repeat(leaf[None], count, axis=0), self._params)
        path = [first]
        for _ in range(steps):
            path.append(_solve(path[-1], tasks, 1, rate, 0.0, 0.0))
        of_query = unrolled = _gradients(path[-1], tasks.query)
        for phi in reversed(path[:-1]):
            unrolled = _plus(unrolled, -rate, _products(phi, unrolled, tasks.support))
        at, above, below = (_solve(first, tasks, steps, rate, strength, each) for each in (0.0, nu, -nu))
        at_last = _solve(first, tasks, 400, rate, strength, 0.0)

        def implicit(phi, num_steps):
            return _implicit(phi, _gradients(phi, tasks.query), tasks.support, strength, num_steps)

        swapped = ml.Task(tasks.query, tasks.support)
        on_query = _solve(first, swapped, steps, rate, 0.0, 0.0)
        self._exact = [_flat(unrolled), _flat(implicit(at_last, 40))]
        shown = (
            unrolled,
            of_query,
            optax.tree.sub(first, path[-1]),
            implicit(at, SETTINGS.cg_steps),
            optax.tree.sub(at, above),
            optax.tree.sub(below, above),
        )
        alike = (
            _gradients(on_query, tasks.support),
            _gradients(on_query, tasks.query),
            _gradients(path[-1], tasks.support),
        )
        self._found = dict(zip(METHODS, map(_flat, shown), strict=True))
        self._alike = dict(zip(_LOOKALIKES, map(_flat, alike), strict=True))
        self._first = [_flat(_gradients(first, batch)) for batch in (tasks.support, tasks.query)]

    def _errors(self, found):
        return tuple(_relative_error(found, exact) for exact in self._exact)

    def entry(self, build):
        """(cost in gradients, errors) of a meta-gradient, its query losses, and its gradients as one vector."""
        with jax.enable_x64(True):
            made = build(_small_loss, SETTINGS.num_steps, self.rate, self.strength)
            program = jax.jit(jax.vmap(made, in_axes=(None, 0)))
            value, gradients = program(self._params, self._tasks)
            inputs, targets, weights = self._tasks.query
            silent = ml.Task(self._tasks.support, (inputs, targets, 0 * weights))
            without_query, _ = program(self._params, silent)
            found = _flat(gradients)
            return (
                (_traced(build)[0], self._errors(found)),
                np.abs(without_query).max() == 0 < np.abs(value).min(),
                found,
            )

    def better(self, entry):
        """For each objective the shown methods that are as cheap and as near and in one of both better, nearest first.

        What differs by less than 5 % counts as equal.
        """
        found = []
        for objective in range(2):
            mine = np.array([entry[0], entry[1][objective]])
            theirs = {name: np.array([cost, errors[objective]]) for name, (cost, errors) in self.entries.items()}
            ahead = [name for name, one in theirs.items() if (one <= 1.05 * mine).all() and (one < 0.95 * mine).any()]
            found.append(sorted(ahead, key=lambda name: theirs[name][1]))
        return found

    def kind(self, found):
        """Which shown method or known mistake a gradient equals up to a factor, or ""."""
        for name, other in (self._found | self._alike).items():
            if _relative_error(found, other) < 1e-6:
                return name
        if _left_over(found, self._first) < 1e-6:
            return "not adapted"
        return "a mixture" if _left_over(found, list(self._found.values())) < 1e-6 else ""


def _left_over(found, others):
    """The share of a vector that is no linear combination of others."""
    basis, _ = np.linalg.qr(np.stack(others, axis=1))
    return np.linalg.norm(found - basis @ (basis.T @ found)) / np.linalg.norm(found)


@functools.lru_cache(maxsize=64)
def _traced(build):
    """(Cost in gradients, by the multiplications that the program asks for; whether it returns what it must).

    The parameters are float32 and in lists.
    """
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = [[leaf.astype(np.float32) for leaf in pair] for pair in _small_network(rng)]
        task = jax.tree.map(lambda leaf: leaf[0], _small_tasks(rng, 1))
        made = build(_small_loss, SETTINGS.num_steps, 0.01, 30.0)
        kept = []

        def watched(params, task):
            result = made(params, task)
            kept.append(_like_params(result, params))
            return result

        unit = comparison.multiplications(jax.grad(_small_loss), params, task.support)
        return comparison.multiplications(watched, params, task, while_steps=SETTINGS.cg_steps) / unit, all(kept)


_SHOWN = {name: _shown(name) for name in METHODS}
_KINDS = ["", *METHODS, *_LOOKALIKES, "not adapted", "a mixture"]


def _like_params(found, params):
    """Whether it is (a number, a pytree like params)."""
    if not (isinstance(found, tuple) and len(found) == 2):
        return False
    value, gradient = found
    return (
        jnp.shape(value) == ()
        and jax.tree.structure(gradient) == jax.tree.structure(params)
        and [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(gradient)]
        == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params)]
    )


def judge_own(build, loss, num_steps, learning_rate, proximal_strength, trial):
    """What the check compares: kept protocol, what it equals, and who is ahead for each objective if for both."""
    made = build(loss, num_steps, learning_rate, proximal_strength)
    if made is None or made is Ellipsis:
        return made
    if not callable(made):
        return np.zeros(4), "Your function must return a function of (params, task)."
    if not _traced(build)[1]:
        return np.zeros(4), (
            "Your meta-gradient must return a pair: a number, and a pytree with the structure, the shapes and the "
            "types of `params`, whatever containers `params` is made of."
        )
    entry, of_query, found = trial.entry(build)
    cost, errors = entry
    if not np.isfinite(found).all() or not found.any():
        return np.zeros(4), "Your gradient is zero on every task, or not finite."
    kind, ahead = trial.kind(found), trial.better(entry)
    both = all(ahead)
    if kind == "a mixture" and not both:
        kind = ""
    names = list(trial.entries)
    places = [1 + names.index(each[0]) if both else 0 for each in ahead]
    numbers = (
        f"It costs {cost:.1f} gradients, and its error is {errors[0]:.0%} for F_MAML and {errors[1]:.0%} for F_prox"
    )
    text = f"**Your meta-gradient is on the front.** {numbers}."
    if both:
        text = (
            f"{numbers}. Ahead of it are {ahead[0][0]} for F_MAML and {ahead[1][0]} for F_prox, each at no higher "
            "cost and with no larger error. Make yours cheaper, or bring it nearer to one of the two."
        )
    if kind:
        text = f"Up to a factor, your gradient equals this on every task: {kind}."
    if not of_query:
        text = "The value that you return is not a loss on the query set alone."
    return np.array([1.0 + (not of_query), _KINDS.index(kind), *places], float), text


_COPY = (
    "Up to a factor, which the outer learning rate can absorb, your gradient equals that of {} on every task. That one "
    "is on the page already. Change something that its cost or its error notices."
)

OWN = Exercise(
    id="07.own",
    title="A meta-gradient of your own",
    difficulty=3,
    minutes=30,
    reference=_truncated,
    judge=judge_own,
    instances=lambda rng: [
        (_small_loss, SETTINGS.num_steps, trial.rate, trial.strength, trial) for trial in [Trial(rng)]
    ],
    misconceptions=(
        *(Misconception(f"a copy of {name}", build, _COPY.format(name)) for name, build in _SHOWN.items()),
        Misconception(
            "not adapted",
            _gradient_at("first", "query"),
            "Your gradient is made of gradients at the *initialization*. It asks how good θ is, and no longer how good "
            "θ becomes by adaptation. At which parameters is the query gradient taken?",
        ),
        Misconception(
            "gradient of the support loss",
            _gradient_at("last", "support"),
            "Your gradient equals that of the *support* loss at the adapted parameters. The meta-objective is a loss "
            "on the query set.",
        ),
        Misconception(
            "adapted to the query set",
            _adapted_to_query,
            "Your gradient equals that of FO-MAML with the query set used for adaptation as well. A new task's query "
            "set is what the adapted network is tested on.",
        ),
        Misconception(
            "support and query swapped",
            _support_and_query_swapped,
            "Your gradient equals that of FO-MAML with support and query set in each other's place.",
        ),
        Misconception(
            "value on the support set",
            _support_value,
            "The gradient may be fine, but the value that you return is not a loss on the query set alone: it does not "
            "vanish where the query loss does.",
        ),
        Misconception(
            "mixture dominated by MAML",
            _sum_of(_SHOWN["MAML"], _SHOWN["FO-MAML"], (0.5, 0.5)),
            "Your gradient is a sum of shown ones, and it is dominated: MAML is nearer to the gradient of F_MAML and "
            "iMAML to that of F_prox, and neither costs more. Whoever has computed MAML's gradient for half of the "
            "sum has paid for all of it.",
        ),
        Misconception(
            "dominated by MAML and iMAML",
            _longer,
            "Your gradient is dominated: MAML is nearer to the gradient of F_MAML and iMAML to that of F_prox, and "
            "neither costs more. More inner steps do not remove what a method leaves out. The same holds for a finer "
            "difference in ν where the inner solves are the larger error.",
        ),
        Misconception(
            "opposite",
            _turned(_truncated),
            "Your gradient is no nearer to either exact one than the zero vector, which costs nothing. Its sign may be "
            "turned round, or a displacement may point from θ to φ instead of from φ to θ.",
        ),
    ),
    alternatives=(_half_the_steps, _two_terms),
    hints=(
        "Every shown method stands at one place between cheap and near. What would a method between two of them leave "
        "out? Most of MAML's cost is its backward pass through all inner steps, and FO-MAML goes through none of "
        "them.",
        "Let the backward pass stop in the middle. Adapt for some of the steps, take what comes out for a new "
        "initialization, and differentiate only what follows. Other ways: fewer inner steps for FO-B-MAML, or fewer "
        "steps on iMAML's linear system, in a loop of your own, because the count takes `cg` to run five times "
        "whatever its `maxiter`.",
    ),
    expected="A function of (params, task). The check tells its cost in gradients and both errors.",
)

EXERCISES = (COMPARE, CONTROL, DIAGNOSE, OWN)

PREDICTIONS = (
    Guess(
        "07.converged",
        "Judge each method by the norm of the exact meta-gradient of the objective in its row of the first table. For "
        "how many of the six is it below a thousandth of its first value after 400 outer steps?",
        unit="methods",
        why="MAML, iMAML and both forms of FO-B-MAML descend their own objective, up to a small error. FO-MAML and "
        "Reptile step along other directions, which cancel at other points.",
        read="Six meta-gradients, two objectives",
    ),
    Guess(
        "07.clipping",
        "On sine curves, how does MAML's lowest validation error without clipping compare with its lowest one with "
        "clipping?",
        ("less than 1.5 times as large", "1.5 to three times as large", "more than three times as large"),
        why="As in lesson 06, a few of MAML's meta-gradients are far larger than the others. Why it helps so much to "
        "clip them is the question of the next exercise.",
        read="Does clipping matter?",
    ),
    Guess(
        "07.control",
        "How does the control compare with the clipped run?",
        ("its error is about the same", "its error is clearly larger", "its error is clearly smaller"),
        why="The outer learning rate changes the length of all steps alike, of those along a huge gradient and of "
        "those after it. It does not remove the huge gradient from Adam's averages.",
        read="Exercise: design the control",
    ),
    Guess(
        "07.sine",
        "FO-B-MAML was trained for adaptation *with* a proximal term. Adapt its initialization to new sine curves by "
        "ten plain steps instead, without the term. What happens to the error of the symmetric form?",
        ("it falls by more than a tenth", "it changes by less than a tenth", "it rises by more than a tenth"),
        why="The proximal term holds the adapted parameters near θ, although tuning chose the weakest one of the grid. "
        "Plain steps from the same θ are not held back, and their α is chosen on the validation tasks.",
        read="Sine curves: what is reached",
    ),
    Guess(
        "07.variants",
        "Give iMAML ten times as many inner steps, and the same budget. How does its error on new sine curves change?",
        ("hardly at all, or for the worse", "it falls, but not to a third", "it falls to a third or less"),
        why="With ten times as many inner steps the budget is spent after a fifth of the outer steps. Tuning again "
        "chose the weakest proximal term, with which even these inner loops do not converge.",
        read="Exercise: diagnose a run",
    ),
    Guess(
        "07.digits",
        "Where does the method with the lowest median on sine curves stand among the six medians on unseen digits?",
        ("first again", "in between", "last"),
        why="An order of methods belongs to a task distribution and a budget, and need not carry over to others.",
        read="Digits that no network was trained on",
    ),
    Guess(
        "07.memory",
        "From K = 10 to K = 50 inner steps, by what factor does the memory of *rematerialized* MAML grow?",
        unit="times",
        why="About √K points of the inner loop are kept, and the square root of five is 2.2. A part that does not grow "
        "with K makes the factor smaller still.",
        read="Memory",
    ),
)

QUIZ = (
    Question(
        "A paper tunes every method over eighteen configurations and reports the best one by its test error. What is "
        "wrong with the reported numbers?",
        (
            "Nothing, because all methods had eighteen",
            "They are too low, because the test tasks took part in the choice",
            "They are too high, because the test tasks are harder",
            "They need more digits",
        ),
        1,
        (
            "The same number of tries makes the comparison less unfair, but each number is still too good.",
            "Yes: the luckiest of eighteen is luckier than a new run would be.",
            "A choice by test error cannot make the test error larger.",
            "More digits of a biased number do not help.",
        ),
    ),
    Question(
        "In a finished comparison your new method chose the largest outer learning rate of the common grid, and its "
        "test error is slightly above a rival's. What may you do next and still call the comparison fair?",
        (
            "Try larger learning rates for the new method only",
            "Widen the grid for both, choose on validation tasks again, and report on test tasks not used so far",
            "Keep the grid, and report the new method's best seed",
            "Widen the grid for both, and keep whichever configuration has the lower test error",
        ),
        1,
        (
            "The rival might gain as well, and its grid is no wider than before.",
            "Yes: the same effort for both, and tasks that took part in no choice.",
            "The best seed is luck that a new run will not repeat.",
            "The test tasks would then take part in the choice.",
        ),
    ),
    Question(
        "Two methods are run with the same five seeds. A has the lower median, but with two of the seeds B has the "
        "lower error. What can the report say?",
        (
            "A is better, for its median is lower",
            "The two are equally good",
            "A has the lower median, and these seeds do not separate the two",
            "Nothing yet: add seeds, one by one, until the two are separated",
        ),
        2,
        (
            "How often are equally good methods three to two apart, by chance alone?",
            "That is a claim too, and a draw of five seeds does not prove it.",
            "Right: it says what was found, and what was not.",
            "Whoever stops when the wished result appears has let the result choose the number of seeds.",
        ),
    ),
)


# The record ---------------------------------------------------------------------------------------------------------

SINES, DIGITS = "sinusoid", "mnist1d"
_SCALE = {SINES: 1.0, DIGITS: 100.0}
_UNIT = {SINES: "squared error on new curves", DIGITS: "error on new digits (%)"}


@functools.cache
def record() -> dict[str, Any]:
    """What the long runs found."""
    return json.loads(RECORD.read_text("utf-8"))


def at_the_end(name: str, kind: str = "own") -> dict[str, _Array]:
    """(lowest, median, highest) error over seeds of every row, adapted in its own way or in the common one."""
    rows = record()[name]
    if kind == "common":
        return {row: low_median_high(entry["common"]) for row, entry in rows.items()}
    return {row: low_median_high(entry["curve"])[:, -1] for row, entry in rows.items()}


def ranking(name: str, kind: str = "own") -> list[str]:
    """The six methods, the lowest median first."""
    found = at_the_end(name, kind)
    return sorted(METHODS, key=lambda method: found[method][1])


def clipping_gain(name: str) -> dict[str, tuple[float, float]]:
    """For each of the six the lowest validation error without and with clipping."""
    grids = {method: np.array(record()[name][method]["validation"], float) for method in METHODS}
    return {method: (float(np.nanmin(grid[..., 0])), float(np.nanmin(grid[..., 1]))) for method, grid in grids.items()}


def on_the_budget(name: str, share: float, unit: str) -> dict[str, _Array]:
    """(lowest, median, highest) of the six when a share of the budget is spent, between checkpoints by interpolation.

    The whole budget in seconds is the time of the quickest method.
    """
    entries = {method: record()[name][method] for method in METHODS}
    seconds = {method: entry["outer_steps"] * entry["milliseconds"] for method, entry in entries.items()}
    points = np.arange(1, SETTINGS.checkpoints + 1) / SETTINGS.checkpoints
    found = {}
    for method, entry in entries.items():
        spent = share if unit == "gradients" else share * min(seconds.values()) / seconds[method]
        curves = np.array(entry["curve"], float)
        found[method] = low_median_high([np.interp(spent, points, curve) for curve in curves])
    return found


# The control --------------------------------------------------------------------------------------------------------


def maml_on_sines(num_steps: int = 800, seeds: tuple[int, ...] = (11, 12, 13)) -> Callable[..., tuple[float, float]]:
    """A function that trains MAML: (outer learning rate, largest norm) -> (error, mean length of an outer step).

    The inner learning rate is the middle one of the grid. The error is a median over seeds, on the validation tasks.
    """
    benchmark, ticks = comparison.sinusoid(), 10
    this, own = (benchmark, "MAML", SETTINGS), benchmark.inner_rates[1]

    def train(outer_rate, max_norm):
        point = comparison.Configuration(outer_rate, own, max_norm)
        runs = comparison.begin(*this, seeds, [point] * len(seeds))
        for _ in bar(range(ticks), f"η = {outer_rate:.2g}, {'not clipped' if np.isinf(max_norm) else 'clipped'}"):
            runs = jax.block_until_ready(comparison.advance(*this, False, num_steps // ticks, runs))
        errors, _ = comparison.own_score(*this, runs, benchmark.validation_tasks())
        return float(np.median(errors)), float(np.mean(runs.moved)) / num_steps

    return train


def control_result() -> _Array:
    """Runs the control on sine curves and shows its three runs.

    Returns:
      The two factors of `07.control`, and how many times longer the steps of the clipped run are.
    """
    train = maml_on_sines()
    rate, norm = SETTINGS.outer_rates[1], 1.0
    (clipped, length), (plain, plain_length) = train(rate, norm), train(rate, float("inf"))
    matched = float(_matched(rate, plain_length, length))
    control, control_length = train(matched, float("inf"))
    plots.table(
        {
            "clipped": (rate, "yes", length, clipped),
            "not clipped": (rate, "no", plain_length, plain),
            "the control": (matched, "no", control_length, control),
        },
        ("", "outer learning rate", "clipped", "mean length of a step", "validation error"),
        title="The steps of the clipped run are the longer ones, and the control does not catch up",
        caption="MAML on sine curves with the middle configuration of its grid, median of three seeds.",
        digits=2,
    )
    return np.array([plain / clipped, control / clipped, length / plain_length])


# A task distribution of one's own -----------------------------------------------------------------------------------


def own_benchmark(curve: Callable[[np.random.Generator, _Array], _Array], gradients: int) -> comparison.Benchmark:
    """Curves of the learner's with a small network: 400 to train on, 200 for validation, 200 for the report.

    Raises:
      own.Unusable: if nothing can be learned from the curves.
    """
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-5, 5, (800, 20))
    targets = np.stack([np.broadcast_to(curve(rng, each), each.shape) for each in inputs]).astype(float)
    halves = (
        (x[..., None], y[..., None]) for x, y in zip(np.split(inputs, 2, 1), np.split(targets, 2, 1), strict=True)
    )
    drawn = own.usable(ml.Task(*halves))
    center, scale = targets[:400].mean(), targets[:400].std()
    scaled = [tuple(jnp.asarray(values, jnp.float32) for values in (x, (y - center) / scale)) for x, y in drawn]

    def part(which):
        return jax.tree.map(lambda leaf: leaf[which], ml.Task(*scaled))

    def train(key, num_tasks):
        return part(jax.random.randint(key, (num_tasks,), 0, 400))

    return comparison.Benchmark(
        name="own",
        widths=(1, 16, 16, 1),
        train=train,
        tuning_train=train,
        validation=lambda key, num_tasks: part(slice(400, 600)),
        test=lambda key, num_tasks: part(slice(600, 800)),
        loss=ml.losses.mean_squared_error,
        score=ml.losses.mean_squared_error,
        meta_batch_size=4,
        gradients=gradients,
        inner_rates=(0.01, 0.03),
        strengths=(),
        proximal_rate=0.0,
    )


def own_comparison(curve: Callable[[np.random.Generator, _Array], _Array], gradients: int = 4_400) -> dict[str, _Array]:
    """Compares FO-MAML and Reptile on curves of the learner's, by the rules of the lesson, and shows what was found.

    Each chooses from two inner and two outer learning rates by its error on validation tasks with a seed of its own,
    and is then reported on test tasks with three others.

    Args:
      curve: (generator, inputs) -> targets of one random task.
      gradients: for each task of a batch, the budget of a run.

    Returns:
      (lowest, median, highest) test error of each method; empty if nothing can be learned from the curves or a chosen
      run diverged on them, which a card then says.
    """
    try:
        benchmark = own_benchmark(curve, gradients)
    except own.Unusable as error:
        own.told("failed", str(error))
        return {}
    settings = dataclasses.replace(SETTINGS, outer_rates=(3e-3, 1e-2), max_norms=(1.0,), checkpoints=10)
    rows: dict[str, Sequence[Any]] = {}
    report = {}
    for name in ("FO-MAML", "Reptile"):
        this, points = (benchmark, name, settings), comparison.grid(benchmark, name, settings)
        steps = comparison.outer_steps(*this)
        seeds = np.tile(range(4), len(points))  # the first of four tunes, the others report
        runs = comparison.begin(*this, seeds, [point for point in points for _ in range(4)])
        for _ in bar(range(settings.checkpoints), f"{name}, sixteen runs"):
            runs = jax.block_until_ready(comparison.advance(*this, False, steps // settings.checkpoints, runs))
        validation, test = (
            np.asarray(comparison.own_score(*this, runs, tasks)[0]).reshape(-1, 4)
            for tasks in (benchmark.validation_tasks(), benchmark.test_tasks())
        )
        best = int(np.argmin(validation[:, 0]))
        if not (np.isfinite(validation[best, 0]) and np.isfinite(test[best, 1:]).all()):
            message = f"On your curves a run of {name} diverged. Are a few of them of another order of magnitude?"
            own.told("failed", message)
            return {}
        report[name] = low_median_high(test[best, 1:])
        low, median, high = (f"{value:.3f}" for value in report[name])
        rows[name] = (steps, f"{points[best].own:g}", f"{points[best].outer_rate:g}", f"{median} ({low}–{high})")
    first, second = sorted(report, key=lambda name: report[name][1])
    apart = report[first][2] < report[second][0]
    plots.table(
        rows,
        ("", "outer steps", "α", "η", "test error"),
        title=f"{first} is ahead with every seed" if apart else "Three seeds do not separate the two",
        caption="Chosen on 200 validation tasks, reported on 200 others: median, lowest and highest of three seeds. "
        "Targets have standard deviation 1, and both methods are clipped to norm 1.",
    )
    return report


# Figures ------------------------------------------------------------------------------------------------------------


def costs() -> dict[str, tuple[int, int]]:
    """Gradients of one meta-gradient, and outer steps that the budget on sine curves pays for."""
    sines = comparison.sinusoid()
    return {
        name: (method.gradients(SETTINGS.num_steps, SETTINGS.cg_steps), comparison.outer_steps(sines, name, SETTINGS))
        for name, method in METHODS.items()
    }


def converged(norms: dict[str, _Array]) -> None:
    """Shows the norm of each method's own meta-gradient on quadratic tasks against the gradients spent."""
    spent = {name: np.arange(len(norms[name])) * cost / 1_000 for name, (cost, _) in costs().items()}
    figure, (axes,) = plots.subplots(height=3.8)
    for name, values in norms.items():
        axes.plot(spent[name], np.maximum(values, 1e-9), label=name)
    axes.set(yscale="log", xlim=(0, 6), ylim=(1e-7, 5))
    plots.label(axes, "thousands of gradients for each task", "norm of the exact meta-gradient of its objective")
    plots.show(
        figure,
        alt="Norm of each method's own exact meta-gradient against gradients spent, on a logarithmic axis. All fall. "
        "Reptile levels off first and highest, then FO-MAML. The two FO-B-MAML estimators level off far lower, iMAML "
        "lower still, and MAML falls on out of the figure.",
        title="FO-MAML and Reptile level off early, three others later, and MAML not at all in this picture",
        caption="Twenty quadratic tasks in ten dimensions. Each method is judged on the objective in its row of the "
        "first table.",
    )


def protocol() -> None:
    """Shows how one method gets from its grid to its row in the report."""
    d = diagrams.Drawing(440, 216)
    d.text(100, 24, "eighteen configurations", bold=True)
    for row in range(3):
        for column in range(6):
            chosen = (row, column) == (1, 4)
            x, y = 32 + 25 * column, 44 + 34 * row
            color = diagrams.BLUE if chosen else diagrams.MUTED
            d.box(x, y, 20, 26, color, color if chosen else diagrams.CARD)
    d.text(100, 170, "3 outer learning rates", diagrams.MUTED, size=13)
    d.text(100, 190, "× 3 values of α or λ", diagrams.MUTED, size=13)
    d.text(100, 210, "× clipped or not", diagrams.MUTED, size=13)
    d.arrow((205, 92), (272, 92))
    d.text(238, 78, "train", diagrams.MUTED, size=13)
    d.box(278, 54, 150, 76, diagrams.MUTED)
    d.text(353, 86, "validation tasks", bold=True)
    d.text(353, 108, "tuning seed", diagrams.MUTED, size=13)
    d.text(353, 160, "choose the lowest error", diagrams.BLUE)
    choice = d.svg()
    d = diagrams.Drawing(460, 216)
    d.arrow((4, 92), (70, 92))
    d.text(37, 78, "one", diagrams.MUTED, size=13)
    d.box(76, 54, 150, 76, diagrams.MUTED)
    d.text(151, 86, "five new seeds", bold=True)
    d.text(151, 108, "the same budget", diagrams.MUTED, size=13)
    d.arrow((232, 92), (290, 92), diagrams.ORANGE)
    d.box(296, 54, 150, 76, diagrams.ORANGE)
    d.text(371, 86, "test tasks", diagrams.ORANGE, bold=True)
    d.text(371, 108, "used once", diagrams.MUTED, size=13)
    d.text(371, 160, "report lowest,", diagrams.ORANGE)
    d.text(371, 180, "median, highest", diagrams.ORANGE)
    diagrams.show(
        f'<div class="ml-panels">{choice}{d.svg()}</div>',
        alt="In order: a grid of eighteen configurations is trained with a tuning seed; the one with the "
        "lowest error on validation tasks is chosen; it is trained again with five new seeds and the same budget; "
        "these are scored once on test tasks, and the lowest, median and highest error are reported.",
        title="The test tasks take no part in any choice",
        caption="The way of one method from its grid to its row in the report. Every run of every method gets the same "
        "number of gradients.",
    )


def _strip(axes, name, rows, muted=()):
    """One row of dots for each method, its median a diamond; the lowest median on top."""
    entries, scale = record()[name], _SCALE[name]
    found = at_the_end(name)
    order = sorted(rows, key=lambda row: -found[row][1])
    for place, row in enumerate(order):
        color = plots.PALETTE["muted"] if row in muted else plots.PALETTE["blue"]
        errors = scale * np.array([curve[-1] for curve in entries[row]["curve"]], float)
        axes.plot([errors.min(), errors.max()], [place, place], "-", color=color, linewidth=1, alpha=0.5)
        axes.plot(errors, np.full(len(errors), place), "o", color=color, markersize=4, alpha=0.55, zorder=4)
        axes.plot(np.median(errors), place, "D", color=plots.PALETTE["orange"], markersize=5.5, zorder=3)
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.margins(x=0.03)
    if name == SINES:
        axes.set_xscale("log")


def results(name: str, title: str, alt: str, rows: tuple[str, ...] = (), muted: tuple[str, ...] = ()) -> None:
    """Shows the reported errors of the six, and of other rows of the record in grey."""
    figure, (axes,) = plots.subplots(height=0.36 * (len(METHODS) + len(rows) + len(muted)) + 0.9)
    _strip(axes, name, (*METHODS, *rows, *muted), muted)
    if name == DIGITS:
        nearest = 100 * record()["nearest_mean"]["error"]
        axes.axvline(nearest, color=plots.PALETTE["muted"], linestyle=":")
        style = {"va": "center", "color": plots.PALETTE["text"]}
        axes.annotate("nearest mean", (nearest, 0), xytext=(5, 0), textcoords="offset points", **style)
    plots.label(axes, _UNIT[name], "")
    plots.show(
        figure, alt, title, caption="A dot is one seed, a diamond the median of five. All runs had the same budget."
    )


def chosen(name: str, rows: tuple[str, ...]) -> None:
    """Shows the configuration that each row chose, and below it both of its errors."""
    scale, digits = _SCALE[name], 1 if name == DIGITS else 3
    own, common = at_the_end(name), at_the_end(name, "common")

    def cell(values):
        low, median, high = (f"{scale * value:.{digits}f}" for value in values)
        return f"{median}\u00a0({low}–{high})"

    settings: dict[str, Sequence[Any]] = {}
    errors: dict[str, Sequence[Any]] = {}
    for row in rows:
        entry = record()[name][row]
        kind = comparison.kind_of(row).own
        rate = entry["outer_rate"] * (entry["own"] if kind == "outer" else 1)
        hyper = "–" if kind == "outer" else f"{kind}\u00a0=\u00a0{entry['own']:g}"
        shown = row.replace(" ", "\u00a0")
        settings[shown] = (entry["outer_steps"], f"{rate:g}", hyper, "yes" if entry["max_norm"] else "no")
        errors[shown] = (cell(own[row]), cell(common[row]))
    plots.table(
        settings,
        ("", "outer steps", "η", "α or λ", "clipped"),
        title="The settings of each row",
        caption="η is the outer learning rate.",
    )
    plots.table(
        errors,
        ("", "own adaptation", "common adaptation"),
        title="The errors on test tasks",
        caption=f"{_UNIT[name].capitalize()}: median, and in brackets lowest and highest of five seeds.",
    )


def clipping_effect(title: str, alt: str) -> None:
    """Shows the best validation error without and with clipping, for the six methods and both task distributions."""
    figure, both = plots.subplots(2, height=3.0, sharey=True)
    for axes, name in zip(both, (SINES, DIGITS), strict=True):
        for place, method in enumerate(reversed(METHODS)):
            without, clipped = (_SCALE[name] * error for error in clipping_gain(name)[method])
            axes.plot([without, clipped], [place, place], "-", color=plots.PALETTE["muted"], linewidth=1.5, zorder=1)
            for error, marker, color in ((without, "o", "orange"), (clipped, "s", "blue")):
                axes.plot(error, place, marker, color=plots.PALETTE[color])
        axes.set_yticks(range(len(METHODS)), list(reversed(METHODS)))
        axes.set_ylim(-0.6, len(METHODS) + 0.4)
        axes.margins(x=0.16)
        plots.label(axes, {SINES: "squared error", DIGITS: "error (%)"}[name], "")
        axes.set_title({SINES: "sine curves", DIGITS: "digits"}[name], loc="left", weight="bold")
    both[0].set_xscale("log")
    words = zip(
        clipping_gain(SINES)["MAML"], ("not clipped", "clipped"), ("orange", "blue"), ("left", "right"), strict=True
    )
    for error, word, color, side in words:
        at, style = (error, len(METHODS) - 1), {"ha": side, "color": plots.PALETTE[color], "weight": "bold"}
        both[0].annotate(word, at, xytext=(0, 11), textcoords="offset points", **style)
    plots.show(
        figure,
        alt,
        title,
        caption="The lowest validation error among nine configurations without clipping, and among nine with it. "
        "Where one mark is visible, the two coincide.",
    )


def on_the_way(name: str, title: str, alt: str) -> None:
    """Shows the median error of the six against the gradients spent."""
    benchmark = {SINES: comparison.sinusoid, DIGITS: comparison.mnist1d}[name]()
    share = np.arange(1, SETTINGS.checkpoints + 1) / SETTINGS.checkpoints
    curves = {row: _SCALE[name] * low_median_high(record()[name][row]["curve"])[1] for row in METHODS}
    figure, (axes,) = plots.subplots(height=3.8)
    plots.lines(
        share * benchmark.gradients / 1_000,
        curves,
        "thousands of gradients for each task",
        _UNIT[name],
        axes=axes,
    )
    axes.margins(y=0.1)
    if name == SINES:
        axes.set_yscale("log")
    plots.show(figure, alt, title, caption="Median of five seeds, at eight checkpoints.")


SEEN = "The error of each method on new tasks, a dot with the range of five seeds, when a share of the budget is spent."


def explored(task: str, spent: float, unit: str) -> Figure:
    """The error of each method when a share of the budget is spent."""
    name = {"sine curves": SINES, "digits": DIGITS}[task]
    low, median, high = _SCALE[name] * np.array(list(on_the_budget(name, spent, unit).values())).T
    figure, (axes,) = plots.subplots()
    places = np.arange(len(median))[::-1]
    axes.hlines(places, low, high, color=plots.PALETTE["blue"], alpha=0.4)
    axes.plot(median, places, "o", color=plots.PALETTE["blue"])
    axes.set_yticks(places, list(METHODS))
    axes.set_ylim(-0.7, len(METHODS) - 0.3)
    axes.set_xscale("log" if name == SINES else "linear")
    axes.set_xlim(*((0.04, 8) if name == SINES else (25, 65)))
    plots.label(axes, _UNIT[name], "")
    return figure


def diagnoses(name: str, rows: tuple[str, ...]) -> dict[str, list[bool]]:
    """Shows the three signs for some rows of the record, and returns them."""
    entries = {row: record()[name][row] for row in rows}
    signs = {}
    for row, entry in entries.items():
        arrays = (np.array(entry[key], float) for key in ("curve", "validation", "inner_gradient_left"))
        signs[row] = [bool(sign) for sign in diagnosis(*arrays)]
    proximal = {row: comparison.ROWS[row].own == "λ" for row in rows}
    plots.table(
        {
            row: (
                "yes" if falls else "no",
                "yes" if edge else "no",
                ("yes" if left else "no") if proximal[row] else "–",
            )
            for row, (falls, edge, left) in signs.items()
        },
        ("", "error still falls", "best at an edge of the grid", "inner loop not converged"),
        title="Every choice lies at an edge of its grid, and iMAML's inner loop has not converged",
        caption="The third sign only matters where adaptation is meant to be a minimum.",
    )
    return signs


def memory(title: str, alt: str) -> None:
    """Shows the memory of one meta-gradient against K, and against the width of a deep network."""
    figure, (left, right) = plots.subplots(2, height=4.0)
    names = ("MAML", "FO-B-MAML symmetric", "MAML, rematerialized", "FO-MAML")
    by_steps, by_channels = record()["memory_bytes"], record()["memory_bytes_by_channels"]
    steps, channels = np.array(SETTINGS.memory_steps), np.array(SETTINGS.memory_channels)
    kilobytes = {name: np.array(by_steps[name]) / 1e3 for name in names}
    megabytes = {name: np.array(by_channels[name]) / 1e6 for name in names}
    plots.lines(steps, kilobytes, "inner steps K", "kilobytes", title="more inner steps", log="xy", axes=left)
    plots.lines(channels, megabytes, "channels", "megabytes", title="a wider network, K = 10", log="xy", axes=right)
    plots.show(
        figure,
        alt,
        title,
        caption="What the compiled meta-gradient of one task needs beside its arguments and results.",
    )


# The front ----------------------------------------------------------------------------------------------------------


@functools.cache
def trial() -> Trial:
    """The one of the check with its ordinary seed."""
    return Trial(np.random.default_rng(0))


def front(title: str, alt: str, build: Callable | None = None) -> dict[str, tuple[float, tuple[float, ...]]]:
    """Shows error against cost of the shown methods, and of a meta-gradient of one's own as soon as there is one.

    Args:
      title: of the figure.
      alt: what it shows, in words.
      build: (loss, num_steps, learning_rate, proximal_strength) -> meta-gradient.

    Returns:
      Each entry's cost in gradients, and its errors for F_MAML and F_prox.
    """
    entries = dict(trial().entries)
    try:
        if build is not None:
            entries["yours"] = trial().entry(build)[0]
    except NotImplementedError:
        title = "The front of the shown methods; yours is not written yet"
    figure, both = plots.subplots(2, height=3.6, sharey=True)
    for objective, (axes, name) in enumerate(zip(both, ("F_MAML", "F_prox"), strict=True)):
        points = {name: (cost, errors[objective]) for name, (cost, errors) in entries.items()}
        shown = sorted(point for method, point in points.items() if method != "yours")
        spent, best = np.array([cost for cost, _ in shown]), np.minimum.accumulate([error for _, error in shown])
        axes.step([*spent, 50], [*best, best[-1]], where="post", color=plots.PALETTE["muted"], linewidth=1.5, zorder=1)
        for method, (cost, error) in points.items():
            mine = method == "yours"
            color = plots.PALETTE["orange" if mine else "blue"]
            axes.plot(cost, error, "*" if mine else "o", color=color, markersize=14 if mine else 6, zorder=3)
            below = _LABEL_BELOW.get((method, objective), 0)
            axes.annotate(
                {"FO-B-MAML forward": "forward", "FO-B-MAML symmetric": "symmetric", ZERO: "zero"}.get(method, method),
                (cost, error),
                xytext=(0, -15 if below else 8),
                textcoords="offset points",
                ha="center",
                color=color if mine else plots.PALETTE["text"],
                weight="bold" if mine else "normal",
            )
        axes.set(xlim=(-4, 52), ylim=(-0.22, 1.15))
        panel = f"gradient of ${name[0]}_{{\\mathrm{{{name[2:]}}}}}$"
        plots.label(axes, "cost in gradients", "relative error", title=panel)
    plots.show(
        figure,
        alt,
        title,
        caption="Eight sine curves, K = 10. The grey line is the front of the shown methods: none of them lies to the "
        "left of it and clearly below. Forward and symmetric are FO-B-MAML.",
    )
    return entries


_LABEL_BELOW = {
    **{(name, objective): 1 for name in ("FO-MAML", "MAML", "iMAML") for objective in (0, 1)},
    ("FO-B-MAML symmetric", 0): 1,
}


def opening() -> tuple[str, str]:
    """The picture of the comparison: what each method reached on sine curves under one budget, from the record."""
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    _strip(axes, SINES, METHODS)
    plots.label(axes, "squared error on new curves", "")
    order = ranking(SINES)
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.fair_comparison(),
        ("Six meta-gradients under one budget", "How the comparison is made fair"),
        (
            "New sine curves: a dot is one seed, a diamond the median.",
            "Settings are chosen on tasks that are not reported.",
        ),
        "Left: query loss of six methods on new sine curves, five seeds each; from the lowest median to the highest: "
        f"{', '.join(order)}. Right: every method's settings are chosen on validation tasks, and test tasks are used "
        "once, for the report.",
    )
