"""Exercises and quiz of lesson 07, the shoot-out."""

import json

import jax
import numpy as np

from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.lessons.comparison import METHODS, RECORD, error_and_angle, low_median_high
from metalearn.course.widgets import diagrams

# 07.gradient_count --------------------------------------------------------------------------------------------------


def _counts(**rules):
    """A counting function from one rule for each method, (K, conjugate-gradient steps) -> gradients."""
    rules = {name: method.gradients for name, method in METHODS.items()} | rules
    return lambda method, num_steps, cg_steps: rules[method](num_steps, cg_steps)


FORWARD, SYMMETRIC = "FO-B-MAML forward", "FO-B-MAML symmetric"


def _by_adding_up(method, num_steps, cg_steps):
    """An alternative: support gradients, query gradients and Hessian-vector products apart."""
    support = {FORWARD: 2, SYMMETRIC: 2}.get(method, 1) * num_steps
    query = {"Reptile": 0, FORWARD: num_steps, SYMMETRIC: 2 * num_steps}.get(method, 1)
    products = {"MAML": num_steps, "iMAML": cg_steps}.get(method, 0)
    return support + query + 2 * products


GRADIENT_COUNT = Exercise(
    id="07.gradient_count",
    title="Six bills",
    difficulty=1,
    minutes=8,
    reference=_counts(),
    instances=lambda rng: [
        (method, num_steps, cg_steps)
        for num_steps, cg_steps in ((1, 2), (10, 5), (int(rng.integers(20, 100)), int(rng.integers(6, 19))))
        for method in METHODS
    ],
    misconceptions=(
        Misconception(
            "one gradient for a product",
            _counts(MAML=lambda k, cg: 2 * k + 1, iMAML=lambda k, cg: k + 1 + cg),
            "You count a Hessian-vector product as one gradient. By the rule above it counts as two, in MAML and in "
            "iMAML.",
        ),
        Misconception(
            "one gradient for a leaning step",
            _counts(**{FORWARD: lambda k, cg: 2 * k, SYMMETRIC: lambda k, cg: 2 * k}),
            "Your inner steps of FO-B-MAML all cost one gradient. How many losses does a step on $\\nu f + h$ "
            "differentiate?",
        ),
        Misconception(
            "forward as dear as symmetric",
            _counts(**{FORWARD: lambda k, cg: 4 * k}),
            "You charge the forward estimator for two leaning loops. One of its two solutions is $\\phi^*_0$: "
            "does that loop need the query loss?",
        ),
        Misconception(
            "symmetric as cheap as forward",
            _counts(**{SYMMETRIC: lambda k, cg: 3 * k}),
            "You charge the symmetric estimator as if one of its loops did not lean. At which values of $\\nu$ does "
            "it solve?",
        ),
        Misconception(
            "symmetric solves three times",
            _counts(**{SYMMETRIC: lambda k, cg: 5 * k}),
            "You charge the symmetric estimator for a loop at $\\nu = 0$ as well. Is $\\phi^*_0$ in its formula?",
        ),
        Misconception(
            "forward without the plain loop",
            _counts(**{FORWARD: lambda k, cg: 2 * k}),
            "You charge the forward estimator for its leaning loop alone. From what is $\\phi^*_\\nu$ subtracted?",
        ),
        Misconception(
            "query gradient on top",
            _counts(**{FORWARD: lambda k, cg: 3 * k + 1, SYMMETRIC: lambda k, cg: 4 * k + 1}),
            "You add a query gradient at the end of FO-B-MAML, as in FO-MAML. Where in $\\phi^*_0 - \\phi^*_\\nu$ "
            "would it stand?",
        ),
        Misconception(
            "iMAML goes back along the path",
            _counts(iMAML=lambda k, cg: 3 * k + 1),
            "Your iMAML takes one Hessian-vector product for each inner step, as MAML does. "
            "What decides how many products conjugate gradients take?",
        ),
        Misconception(
            "a system at every step",
            _counts(iMAML=lambda k, cg: k + 1 + 2 * k * cg),
            "Your iMAML solves its linear system at every inner step. At which point is it solved?",
        ),
        Misconception(
            "iMAML without its right-hand side",
            _counts(iMAML=lambda k, cg: k + 2 * cg),
            "Your iMAML never takes the query gradient. What stands on the right of its linear system?",
        ),
        Misconception(
            "free way back",
            _counts(MAML=lambda k, cg: k + 1),
            "Your MAML costs what FO-MAML costs. What does it do with the query gradient?",
        ),
    ),
    alternatives=(_by_adding_up,),
    hints=(
        "Ask three questions for each method: how many loops of $K$ steps does it walk, how many losses does each of "
        "their "
        "steps differentiate, and what happens after the last step?",
        "A step on $\\nu f + h$ needs two gradients. After the loop, MAML takes a query gradient and $K$ products, "
        "iMAML a "
        "query gradient and as many products as conjugate gradients take steps, FO-MAML a query gradient, the others "
        "nothing.",
    ),
    expected=(
        "`gradient_count('MAML', 10, 5)` is 31. Two of the six cost less than half of that, one costs more than that."
    ),
)

# 07.fair_report -----------------------------------------------------------------------------------------------------


def _chosen(validation, test):
    """The test scores of the configuration with the lowest validation score that is a number."""
    row, column = np.unravel_index(np.nanargmin(validation), validation.shape)
    return test[row, column]


def _fair_report(validation, test):
    return low_median_high(_chosen(validation, test))


def _by_sorting(validation, test):
    """An alternative: one flat list of configurations, and order statistics."""
    flat = np.where(np.isfinite(validation), validation, np.inf).ravel()
    scores = np.sort(test.reshape(len(flat), -1)[np.argsort(flat)[0]])
    n = len(scores)
    return np.array([scores[0], (scores[(n - 1) // 2] + scores[n // 2]) / 2, scores[-1]])


def _report_of(choose):
    """A report from a rule that picks the flat index of a configuration."""

    def report(validation, test):
        return low_median_high(test.reshape(validation.size, -1)[choose(validation, test)])

    return report


def _axis_by_axis(validation, test):
    row, column = np.nanargmin(np.nanmean(validation, axis=1)), np.nanargmin(np.nanmean(validation, axis=0))
    return low_median_high(test[row, column])


def _mean_in_the_middle(validation, test):
    scores = _chosen(validation, test)
    return np.array([np.min(scores), np.mean(scores), np.max(scores)])


def _spread(width):
    def report(validation, test):
        scores = _chosen(validation, test)
        return np.mean(scores) + np.array([-1, 0, 1]) * width(scores)

    return report


def _score_grid(rng, shape, num_seeds):
    """A validation grid with one diverged configuration, and test scores of all.

    Which configuration each rule picks is different: that of the test, of each axis alone, of the largest score.
    """
    rows, columns = shape
    validation = 1 + rng.uniform(0.0, 0.2, shape)
    test = 2 + rng.uniform(0.0, 0.5, (*shape, num_seeds))
    validation[0, 0] = np.nan
    test[0, 0] = 40 + rng.uniform(0, 5, num_seeds)
    validation[1, 2], test[1, 2] = 0.5, 1.0 + rng.gamma(1.0, 0.4, num_seeds)  # best on validation
    validation[1, 0] = validation[0, 2] = 3 + rng.uniform(0, 0.5)  # so that neither its row nor its column looks good
    test[rows - 1, 1] = 0.4 + rng.gamma(1.0, 0.05, num_seeds)  # luckiest on the test
    test[rows - 1, 0, 0] = 0.1  # lucky with one seed only
    validation[rows - 1, columns - 1] = 5  # worst
    return validation, test


FAIR_REPORT = Exercise(
    id="07.fair_report",
    title="A fair report",
    difficulty=2,
    minutes=10,
    reference=_fair_report,
    instances=lambda rng: [
        _score_grid(rng, (3, 3), 5),
        _score_grid(rng, (2, 4), 6),
        _score_grid(rng, (4, 3), 9),
    ],
    misconceptions=(
        Misconception(
            "chosen on the test",
            _report_of(lambda validation, test: np.argmin(np.median(test, axis=-1))),
            "You report the configuration that did best on the *test* tasks. Then the test has taken part in the "
            "choice, "
            "and its score is too good to be true. Which scores may a choice look at?",
        ),
        Misconception(
            "best test score for every seed",
            lambda validation, test: low_median_high(np.min(test, axis=(0, 1))),
            "You let every seed choose its own configuration, by its test score. One configuration is chosen, once, "
            "and not on the test.",
        ),
        Misconception(
            "a diverged run wins",
            _report_of(lambda validation, test: np.argmin(validation)),
            "You report the configuration that *diverged*. NumPy's `argmin` takes NaN for the smallest number of all.",
        ),
        Misconception(
            "largest score",
            _report_of(lambda validation, test: np.nanargmax(validation)),
            "You report the configuration with the *largest* validation score. These scores are errors.",
        ),
        Misconception(
            "each axis on its own",
            _axis_by_axis,
            "You chose the outer rate by its mean over the other hyper-parameter, and the other likewise. The best "
            "pair need "
            "not lie where the two best averages cross.",
        ),
        Misconception(
            "mean in the middle",
            _mean_in_the_middle,
            "Your middle number is the mean over seeds. One bad run moves it as far as it likes. The exercise asks "
            "for the "
            "number with half of the seeds on each side.",
        ),
        Misconception(
            "mean and standard deviation",
            _spread(lambda scores: np.std(scores)),
            "You report the mean and one standard deviation to each side. The exercise asks for three scores by "
            "their rank.",
        ),
        Misconception(
            "mean and standard error",
            _spread(lambda scores: 1.96 * np.std(scores, ddof=1) / np.sqrt(len(scores))),
            "You report a normal confidence interval of the mean. A handful of seeds is too few for that, "
            "and the exercise asks for three scores by their rank.",
        ),
        Misconception(
            "quartiles",
            lambda validation, test: np.percentile(_chosen(validation, test), [25, 50, 75]),
            "Your outer numbers are the quartiles. They leave out half of the seeds; the exercise asks for the "
            "extremes.",
        ),
        Misconception(
            "largest first",
            lambda validation, test: _fair_report(validation, test)[::-1],
            "You have the right three numbers, the largest first. The lowest comes first.",
        ),
        Misconception(
            "all configurations pooled",
            lambda validation, test: low_median_high(test),
            "You summarise the test scores of *all* configurations. Only the chosen one is reported.",
        ),
    ),
    alternatives=(_by_sorting,),
    hints=(
        "Two steps. First find the row and the column of the best validation score, without looking at the test. "
        "Then summarise one row of numbers.",
        "NaN is not a number, and `np.nanargmin` knows it. It gives a flat position; `np.unravel_index` turns that "
        "into a "
        "row and a column.",
    ),
    expected="Three numbers, lowest first. The middle one is a test score of one seed when the number of seeds is odd.",
)

# 07.relative_error --------------------------------------------------------------------------------------------------


def _matrix(tree):
    """All leaves side by side, shape [num_tasks, number of parameters]."""
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(tree)], axis=1)


def _angle(a, b):
    return np.degrees(np.arccos(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))))


def _leaf_by_leaf(estimates, exact):
    """An alternative: sums over tasks, which have the same ratio, and sums over leaves."""
    found, target = (jax.tree.map(lambda leaf: leaf.sum(axis=0), tree) for tree in (estimates, exact))

    def dot(a, b):
        return sum(np.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    gap = jax.tree.map(lambda a, b: a - b, found, target)
    cosine = dot(found, target) / np.sqrt(dot(found, found) * dot(target, target))
    return np.array([np.sqrt(dot(gap, gap) / dot(target, target)), 180 / np.pi * np.arccos(cosine)])


def _from_means(error, angle=_angle):
    """Two numbers from two rules on the mean gradients."""

    def result(estimates, exact):
        found, target = _matrix(estimates).mean(0), _matrix(exact).mean(0)
        return np.array([error(found, target), angle(found, target)])

    return result


def _length(vector):
    return np.linalg.norm(vector)


def _relative(found, target):
    return _length(found - target) / _length(target)


def _task_by_task(estimates, exact):
    pairs = list(zip(_matrix(estimates), _matrix(exact), strict=True))
    return np.array([np.mean([_relative(*pair) for pair in pairs]), np.mean([_angle(*pair) for pair in pairs])])


def _per_leaf(estimates, exact):
    means = [
        (np.ravel(a.mean(0)), np.ravel(b.mean(0)))
        for a, b in zip(jax.tree.leaves(estimates), jax.tree.leaves(exact), strict=True)
    ]
    return np.array([np.mean([_relative(*pair) for pair in means]), np.mean([_angle(*pair) for pair in means])])


def _gradients(rng, num_tasks, shapes):
    """Exact gradients of some tasks, and estimates that are too long, biased and noisy."""
    exact = {
        name: rng.normal(0, 1, (num_tasks, *shape)) + rng.normal(0.5, 0.5, shape) for name, shape in shapes.items()
    }
    estimates = {
        name: 1.3 * leaf + 0.4 * rng.normal(0, 1, leaf.shape[1:]) + 0.2 * rng.normal(0, 1, leaf.shape)
        for name, leaf in exact.items()
    }
    return estimates, exact


RELATIVE_ERROR = Exercise(
    id="07.relative_error",
    title="How wrong is a meta-gradient?",
    difficulty=2,
    minutes=10,
    reference=error_and_angle,
    instances=lambda rng: [
        _gradients(rng, 4, {"start": (5,)}),
        _gradients(rng, 3, {"weight": (4, 2), "bias": (3,)}),
        _gradients(rng, 7, {"a": (), "b": (2, 3), "c": (6,)}),
    ],
    misconceptions=(
        Misconception(
            "task by task",
            _task_by_task,
            "You took error and angle for each task and averaged them. The outer loop moves along the *mean* "
            "gradient, in "
            "which the errors of the tasks can cancel. Which of the two averages comes first?",
        ),
        Misconception(
            "leaf by leaf",
            _per_leaf,
            "You took error and angle for each array of the pytree and averaged them. All parameters together are "
            "one vector.",
        ),
        Misconception(
            "relative to the estimate",
            _from_means(lambda found, target: _length(found - target) / _length(found)),
            "You divided by the length of the *estimate*. A method with a gradient far too long would look good.",
        ),
        Misconception(
            "not relative",
            _from_means(lambda found, target: _length(found - target)),
            "Your error has the units of the gradient. What would make it a pure number?",
        ),
        Misconception(
            "difference of the lengths",
            _from_means(lambda found, target: abs(_length(found) - _length(target)) / _length(target)),
            "You compared the lengths only. Two vectors of one length can point in opposite directions.",
        ),
        Misconception(
            "squared",
            _from_means(lambda found, target: _relative(found, target) ** 2),
            "Your error is the square of the relative error. A root is missing.",
        ),
        Misconception(
            "number by number",
            _from_means(lambda found, target: np.mean(np.abs(found - target) / np.abs(target))),
            "You divided each entry by its own exact value. Entries near zero then decide the result.",
        ),
        Misconception(
            "radians",
            _from_means(_relative, lambda found, target: np.radians(_angle(found, target))),
            "Your angle is in radians. The exercise asks for degrees.",
        ),
        Misconception(
            "the cosine",
            _from_means(_relative, lambda found, target: np.cos(np.radians(_angle(found, target)))),
            "Your second number is the cosine of the angle.",
        ),
        Misconception(
            "not normalised",
            _from_means(_relative, lambda found, target: np.degrees(np.arccos(np.clip(np.dot(found, target), -1, 1)))),
            "You took the inner product for the cosine. What must both vectors be divided by first?",
        ),
    ),
    alternatives=(_leaf_by_leaf,),
    hints=(
        "Average over tasks first, then put all leaves into one long vector: `jax.flatten_util.ravel_pytree` does "
        "that.",
        "The error is one length divided by another. The cosine of the angle is an inner product divided by two "
        "lengths.",
    ),
    expected="Two numbers. For a gradient twice as long as the exact one they are 1 and 0.",
)

EXERCISES = (GRADIENT_COUNT, FAIR_REPORT, RELATIVE_ERROR)

QUIZ = (
    Question(
        "A paper reports the best of nine configurations by its test score. What is wrong with that number?",
        (
            "Nothing, if all methods had nine",
            "It is too good: the test took part in the choice",
            "It is too bad: the test tasks are harder",
            "It needs more digits",
        ),
        1,
        (
            "The same number of tries makes the comparison less unfair, but each number is still too good.",
            "Yes: the luckiest of nine is luckier than a new draw would be.",
            "Choosing on the test cannot make its score worse.",
            "More digits of a biased number do not help.",
        ),
    ),
    Question(
        "You double the number of inner steps K, from 10 to 20. What happens to the memory of one task's "
        "meta-gradient, for each of the six methods?",
        (
            "It doubles for all methods",
            "It grows for MAML and stays for the others",
            "It grows for MAML and FO-B-MAML",
            "It stays for all methods",
        ),
        1,
        (
            "Which methods need the points of the path after they have left them?",
            "Yes: only MAML carries a gradient back along the whole path.",
            "FO-B-MAML compares two end points. Does it need the paths to them?",
            "What does MAML's way back need?",
        ),
    ),
    Question(
        "The symmetric estimator's outer loop stops at a small gradient that is not zero. What makes it smaller?",
        (
            "More outer steps",
            "A smaller outer rate",
            "A smaller ν, with inner loops that converge further",
            "Nothing: first-order methods have a floor",
        ),
        2,
        (
            "It is at rest already: its own direction is zero there.",
            "The outer rate decides how fast it gets there, not where it rests.",
            "Yes: both errors are under your control. FO-MAML has no such knob that keeps the objective.",
            "FO-MAML and Reptile do. What distinguishes this one?",
        ),
    ),
)


def opening() -> str:
    """The picture of the comparison: what each method reached on sine curves under one budget, from the record."""
    arena = json.loads(RECORD.read_text("utf-8"))["sinusoid"]
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    names = sorted(arena, key=lambda name: np.median(np.array(arena[name]["curve"])[:, -1]))
    for place, name in enumerate(reversed(names)):
        scores = np.array(arena[name]["curve"])[:, -1]
        axes.plot(scores, np.full(len(scores), place), "o", color=plots.PALETTE["blue"], markersize=4, alpha=0.5)
        axes.plot(np.median(scores), place, "D", color=plots.PALETTE["orange"], markersize=5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), list(reversed(names)))
    plots.label(axes, "query loss after adaptation", "")
    best = names[0]
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.fair_comparison(),
        ("Six meta-gradients under one budget", "How the comparison is made fair"),
        (
            "Sine curves: a dot is one seed, a diamond their median.",
            "Settings are chosen on tasks that are not reported.",
        ),
        f"Left: query loss of six methods, several seeds each; lowest median: {best}. Right: every method's "
        "settings are chosen on validation tasks, and test tasks are used once, for the report.",
    )
