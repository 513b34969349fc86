"""Lesson 13, out of domain: its exercises, predictions, quiz and figures."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import out_of_domain
from metalearn.course.lessons.out_of_domain import DOMAINS, NUM_STEPS
from metalearn.course.widgets import diagrams, draw_five

_Array = Float[np.ndarray, "..."]

# 13.fgsm ------------------------------------------------------------------------------------------------------------


def _squares(params, batch):
    """Mean squared error of a small network."""
    inputs, targets = batch
    return jnp.mean((jnp.tanh(inputs @ params["hidden"]) @ params["out"] - targets) ** 2)


def _classes(params, batch):
    """Cross-entropy of a linear classifier, summed over examples."""
    inputs, labels = batch
    logits = inputs @ params["kernel"] + params["bias"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).sum()


def _distances(params, batch):
    """Weighted sines of differences from one picture, on some pixels only: the others do not matter."""
    pictures, weights = batch
    return jnp.sum(weights[:, None, None] * params["mask"] * jnp.sin(pictures - params["centre"]))


def _regression(rng, number, width):
    params = {"hidden": rng.normal(0, 1, (width, 4)), "out": rng.normal(0, 1, 4)}
    return _squares, params, (rng.normal(0, 1, (number, width)), rng.normal(0, 2, number)), float(rng.uniform(0.05, 2))


def _classification(rng):
    params = {"kernel": rng.normal(0, 1, (6, 3)), "bias": rng.normal(0, 1, 3)}
    return _classes, params, (rng.uniform(0, 1, (5, 6)), rng.permutation(np.arange(5) % 3)), float(rng.uniform(0.3, 1))


def _pictures(rng):
    mask = rng.permutation(np.arange(12) % 2).reshape(3, 4).astype(float)
    params = {"mask": mask, "centre": rng.normal(0, 1, (3, 4))}
    batch = rng.normal(0, 1, (3, 3, 4)), np.array([1.0, -0.5, 2.0])
    return _distances, params, batch, float(rng.uniform(0.05, 0.3))


def _attack(move=lambda x, g, size: x + size * np.sign(g)):
    """An attack from the inputs, the gradient in them, and the size."""

    def fgsm(loss, params, batch, attack_size):
        inputs, targets = batch
        gradient = jax.grad(lambda inputs: loss(params, (inputs, targets)))(jnp.asarray(inputs))
        return move(np.asarray(inputs), np.asarray(gradient), attack_size)

    return fgsm


def _fgsm_by_library(loss, params, batch, attack_size):
    return ml.repurpose.fgsm(loss, params, batch, attack_size)[0]


def _fgsm_by_three_cases(loss, params, batch, attack_size):
    """An alternative: reverse mode by hand, and the sign case by case."""
    inputs, targets = jnp.asarray(batch[0]), batch[1]
    value, pull_back = jax.vjp(lambda moved: loss(params, (moved, targets)), inputs)
    (gradient,) = pull_back(jnp.ones_like(value))
    return jnp.where(gradient > 0, inputs + attack_size, jnp.where(gradient < 0, inputs - attack_size, inputs))


def _per_example(g):
    return np.sqrt(np.square(g).sum(axis=tuple(range(1, g.ndim)), keepdims=True))


FGSM = Exercise(
    id="13.fgsm",
    title="An adversarial example",
    difficulty=1,
    minutes=8,
    reference=_fgsm_by_library,
    instances=lambda rng: [
        _classification(rng),
        _regression(rng, 4, 3),
        _pictures(rng),
        _regression(rng, 1, 5),
    ],
    misconceptions=(
        Misconception(
            "downhill",
            _attack(lambda x, g, size: x - size * np.sign(g)),
            "Your inputs are moved to where the loss *falls*. An adversary wants it to rise.",
        ),
        Misconception(
            "gradient without its sign",
            _attack(lambda x, g, size: x + size * g),
            "Your inputs are moved along the gradient itself, so every number moves by another distance. FGSM moves "
            "each number by the same distance; the gradient says only which way.",
        ),
        Misconception(
            "gradient of norm one",
            _attack(lambda x, g, size: x + size * g / np.linalg.norm(g)),
            "Your inputs are moved along the gradient, scaled to norm 1. That is the worst move of a given *Euclidean* "
            "length. FGSM bounds the move of every single number instead.",
        ),
        Misconception(
            "gradient of norm one, by example",
            _attack(lambda x, g, size: x + size * g / _per_example(g)),
            "Each example is moved along its own gradient, scaled to norm 1. FGSM bounds the move of every single "
            "number instead.",
        ),
        Misconception(
            "move without the inputs",
            _attack(lambda x, g, size: size * np.sign(g)),
            "Your result is the *move* alone. Add it to the inputs.",
        ),
        Misconception(
            "zero gradient moved",
            _attack(lambda x, g, size: x + size * np.where(g >= 0, 1, -1)),
            "Your result is right wherever the gradient is not zero. One instance has pixels on which the loss does "
            "not depend, and yours moves them up. The sign of zero is zero.",
        ),
        Misconception(
            "zero gradient moved down",
            _attack(lambda x, g, size: x + size * np.where(g > 0, 1, -1)),
            "Your result is right wherever the gradient is not zero. One instance has pixels on which the loss does "
            "not depend, and yours moves them down. The sign of zero is zero.",
        ),
        Misconception(
            "clipped",
            _attack(lambda x, g, size: np.clip(x + size * np.sign(g), 0, 1)),
            "Your result is clipped to the range from 0 to 1. Nothing here says that inputs lie between 0 and 1; some "
            "of these do not.",
        ),
        Misconception(
            "one move for all examples",
            _attack(lambda x, g, size: x + size * np.sign(g.sum(axis=0))),
            "Your result moves all examples of a batch alike, the way that raises the loss of the batch. Each example "
            "has a gradient of its own.",
        ),
        Misconception(
            "relative to the input",
            _attack(lambda x, g, size: x + size * x * np.sign(g)),
            "Each number is moved in proportion to itself in your result, so zeros stay and negative numbers move the "
            "wrong way. Every number moves by the same distance $\\varepsilon$.",
        ),
    ),
    relatives=(
        ("what an attack of size 1 gives", _attack(lambda x, g, size: x + np.sign(g))),
        (
            "what the sign of the inputs gives in place of that of the gradient",
            _attack(lambda x, g, s: x + s * np.sign(x)),
        ),
        ("the gradient of the loss in the inputs", _attack(lambda x, g, size: g)),
    ),
    alternatives=(_attack(), _fgsm_by_three_cases),
    hints=(
        "You need the gradient of the loss in the *inputs*. `jax.grad` differentiates a function of one argument, so "
        "write a function of the inputs alone, with parameters and targets fixed.",
        "`jnp.sign` gives 1, 0 or −1 for each number.",
    ),
    expected="An array of the shape of the inputs. Each of its numbers is off by the attack size, up or down, or not "
    "at all.",
)

# 13.step_sizes ------------------------------------------------------------------------------------------------------


def _flip(u):
    return u.max() + u.min() - u


def _sizes_of(
    disagreement,
    flip=_flip,
    divide=lambda s, u, weights: s / np.average(s, weights=weights),
    size=lambda leaf: leaf[0].size,
):
    """Relative step sizes from their parts, each of which can be wrong."""

    def step_sizes(given):
        u = np.array([float(disagreement(np.asarray(leaf))) for leaf in given.values()])
        weights = np.array([size(np.asarray(leaf)) for leaf in given.values()])
        return dict(zip(given, divide(flip(u), u, weights), strict=True))

    return step_sizes


def _std(leaf):
    return leaf.std(axis=0).mean()


def _usa(disagreement=_std, **options):
    return _sizes_of(disagreement, **options)


def _with_jax(members):
    """An alternative: trees, and all numbers in one row."""
    flat = {name: jnp.asarray(leaf).reshape(len(leaf), -1) for name, leaf in members.items()}
    u = {name: jnp.sqrt(jnp.mean((leaf - leaf.mean(0)) ** 2, axis=0)).mean() for name, leaf in flat.items()}
    ends = max(u.values()) + min(u.values())
    whole = jnp.concatenate([jnp.full(leaf.shape[1], ends - u[name]) for name, leaf in flat.items()])
    return {name: (ends - value) / whole.mean() for name, value in u.items()}


def _layers(rng, shapes, num_members=None):
    """Members whose layers differ in size, mean and spread."""
    spreads = rng.permutation(np.geomspace(0.1, 1.0, len(shapes)) * rng.uniform(0.9, 1.1, len(shapes)))
    found = {}
    for (name, shape), spread in zip(shapes.items(), spreads, strict=True):
        centre = rng.normal(0.5, 1, shape)
        of_element = spread * rng.uniform(0.3, 1.7, shape)
        found[name] = centre + of_element * rng.normal(0, 1, (num_members or 4, *shape))
    return found


_SHAPES = (
    {"kernel": (5, 4), "bias": (4,), "head": (4, 2)},
    {"first": (3, 2), "second": (6,), "third": (2, 2, 3), "fourth": (1,)},
    {"body": (7,), "head": (2,)},
)

STEP_SIZES = Exercise(
    id="13.step_sizes",
    title="Step sizes from disagreement",
    difficulty=3,
    minutes=15,
    reference=jax.jit(ml.repurpose.relative_step_sizes),
    instances=lambda rng: [
        (_layers(rng, _SHAPES[0], 5),),
        (_layers(rng, _SHAPES[1], 3),),
        (_layers(rng, _SHAPES[2], 2),),
    ],
    misconceptions=(
        Misconception(
            "larger where they disagree",
            _usa(flip=lambda u: u),
            "Your factors are in proportion to the disagreement, so the layer about which the members agree least gets "
            "the longest steps. It should be the other way round.",
        ),
        Misconception(
            "each layer counted once",
            _usa(divide=lambda s, u, weights: s / s.mean()),
            "The mean of your factors is 1 if each *layer* counts once. Here each layer counts as often as it has "
            "parameters, since it is the parameters that are moved.",
        ),
        Misconception(
            "reciprocal",
            _usa(flip=lambda u: 1 / u),
            "Your factors are in proportion to one over the disagreement. This too gives long steps where members "
            "agree, but it is another formula, with which a layer without disagreement has an infinite step.",
        ),
        Misconception(
            "variance",
            _usa(lambda leaf: leaf.var(axis=0).mean()),
            "Your disagreement is the variance over the members. It should be the standard deviation.",
        ),
        Misconception(
            "minimum left out",
            _usa(flip=lambda u: u.max() - u),
            "Your $s_l$ seems to be $\\max u - u_l$, without the minimum. Then the layer that disagrees most never "
            "moves at all.",
        ),
        Misconception(
            "all numbers pooled",
            _usa(lambda leaf: leaf.std()),
            "Your disagreement is the standard deviation of *all* numbers of a layer together. A layer whose "
            "parameters differ from each other is not one about which members disagree. Compare each parameter with "
            "itself, over the members.",
        ),
        Misconception(
            "mean first",
            _usa(lambda leaf: leaf.reshape(len(leaf), -1).mean(axis=1).std()),
            "Your disagreement is that of the layer's *mean* over the members. Disagreements of opposite sign cancel "
            "in it. First the standard deviation of each parameter over the members, then the mean over the layer.",
        ),
        Misconception(
            "largest of the layer",
            _usa(lambda leaf: leaf.std(axis=0).max()),
            "Your $u_l$ seems to be the largest standard deviation of the layer's parameters. It should be their mean.",
        ),
        Misconception(
            "sum of the layer",
            _usa(lambda leaf: leaf.std(axis=0).sum()),
            "Your $u_l$ seems to be the sum over the layer's parameters. Then a layer disagrees the more, the more "
            "parameters it has. It should be their mean.",
        ),
        Misconception(
            "not normalized",
            _usa(divide=lambda s, u, weights: s),
            "Your result is $s_l$ itself. It has the units of a parameter. Divide by its mean, so that the learning "
            "rates have the mean $\\alpha$.",
        ),
        Misconception(
            "divided by the mean disagreement",
            _usa(divide=lambda s, u, weights: s / np.average(u, weights=weights)),
            "Your $s_l$ are divided by the mean of $u$. It is the mean of $s$ that makes the factors 1 on average.",
        ),
        Misconception(
            "divided by the largest",
            _usa(divide=lambda s, u, weights: s / s.max()),
            "Your largest factor is 1. Then all layers but one get a smaller learning rate than $\\alpha$. It is the "
            "mean that should be 1.",
        ),
        Misconception(
            "divided by the sum",
            _usa(divide=lambda s, u, weights: s / s.sum()),
            "Your factors add up to 1. Their mean should be 1, over all parameters.",
        ),
    ),
    relatives=(
        (
            "what the mean absolute difference from the mean gives in place of the standard deviation",
            _usa(lambda leaf: np.abs(leaf - leaf.mean(axis=0)).mean()),
        ),
        (
            "what the distance of the largest from the smallest member gives in place of the standard deviation",
            _usa(lambda leaf: (leaf.max(0) - leaf.min(0)).mean()),
        ),
        ("the disagreement $u_l$ of each layer", _usa(flip=lambda u: u, divide=lambda s, u, weights: u)),
    ),
    alternatives=(_usa(), _with_jax),
    hints=(
        "Three steps: $u_l$ for each layer, then $s_l$, then the division by a weighted mean. In a layer, axis 0 "
        "counts the members.",
        "The weight of a layer is its number of parameters, without the members: `members[name][0].size`.",
    ),
    expected="A dictionary with one number for each layer. Weighted by the number of parameters, their mean is 1.",
)

# 13.without_a_task --------------------------------------------------------------------------------------------------


def _magnitude(leaf):
    return np.abs(leaf).mean()


def _untasked(disagreement=_magnitude, **options):
    return _sizes_of(disagreement, size=lambda leaf: leaf.size, **options)


def _by_two_members(params):
    return out_of_domain.unadapted_factors(params)


def _by_norms(params):
    """An alternative: sums of absolute values, and the mean multiplied out."""
    u = {name: float(jnp.sum(jnp.abs(leaf))) / np.size(leaf) for name, leaf in params.items()}
    ends, total = max(u.values()) + min(u.values()), sum(np.size(leaf) for leaf in params.values())
    mean = ends - sum(float(jnp.abs(leaf).sum()) for leaf in params.values()) / total
    return {name: (ends - value) / mean for name, value in u.items()}


def _checkpoint(rng, shapes):
    scales = rng.permutation(np.geomspace(0.1, 1.5, len(shapes)) * rng.uniform(0.9, 1.1, len(shapes)))
    return {
        name: scale * rng.normal(rng.uniform(-1, 1), 1, shape)
        for (name, shape), scale in zip(shapes.items(), scales, strict=True)
    }


def _with_zero_head(rng):
    params = _checkpoint(rng, {"body": (4, 3), "bias": (3,)})
    return {**params, "head": np.zeros((3, 2))}


WITHOUT_A_TASK = Exercise(
    id="13.without_a_task",
    title="Your line of the derivation: step sizes before any task",
    difficulty=2,
    minutes=10,
    reference=_by_two_members,
    instances=lambda rng: [
        (_checkpoint(rng, _SHAPES[0]),),
        (_checkpoint(rng, _SHAPES[1]),),
        (_with_zero_head(rng),),
    ],
    misconceptions=(
        Misconception(
            "mean of the signed parameters",
            _untasked(lambda leaf: abs(leaf.mean())),
            "Your disagreement of a layer is the absolute value of its *mean*. Parameters of opposite sign cancel in "
            "it. In line 2 every parameter has its own standard deviation, which is never negative.",
        ),
        Misconception(
            "root mean square",
            _untasked(lambda leaf: np.sqrt(np.square(leaf).mean())),
            "Your disagreement of a layer is the root mean square of its parameters. $u_l$ is a mean of standard "
            "deviations, not the root of a mean of variances.",
        ),
        Misconception(
            "mean square",
            _untasked(lambda leaf: np.square(leaf).mean()),
            "Your disagreement of a layer is the mean of the squared parameters, which is the mean *variance* up to a "
            "factor. $u_l$ is the mean standard deviation.",
        ),
        Misconception(
            "standard deviation within the layer",
            _untasked(lambda leaf: leaf.std()),
            "Your disagreement of a layer is the standard deviation of its parameters among each other. In line 2 the "
            "standard deviation is over the members, of one parameter.",
        ),
        Misconception(
            "larger where they disagree",
            _untasked(flip=lambda u: u),
            "Your factors are in proportion to the size of the parameters. Where members disagree *less*, the step "
            "should be larger.",
        ),
        Misconception(
            "each layer counted once",
            _untasked(divide=lambda s, u, weights: s / s.mean()),
            "The mean of your factors is 1 if each layer counts once. Each counts as often as it has parameters.",
        ),
        Misconception(
            "not normalized",
            _untasked(divide=lambda s, u, weights: s),
            "Your result is $s_l$, up to a factor. Divide by its mean over all parameters: the unknown factor "
            "$c\\,\\sigma$ then cancels.",
        ),
        Misconception(
            "sum of the layer",
            _untasked(lambda leaf: np.abs(leaf).sum()),
            "Your disagreement of a layer is a sum over its parameters. It should be a mean.",
        ),
        Misconception(
            "minimum left out",
            _untasked(flip=lambda u: u.max() - u),
            "Your $s_l$ seems to be $\\max u - u_l$, without the minimum.",
        ),
    ),
    relatives=(
        ("what the norm of a layer gives in place of the mean size of its parameters", _untasked(np.linalg.norm)),
        ("what the largest parameter of a layer gives", _untasked(lambda leaf: np.abs(leaf).max())),
        (
            "what the mean disagreement gives as the divisor",
            _untasked(divide=lambda s, u, weights: s / np.average(u, weights=weights)),
        ),
        (
            "the mean size of the parameters of each layer",
            _untasked(flip=lambda u: u, divide=lambda s, u, weights: u),
        ),
    ),
    alternatives=(_untasked(), _by_norms),
    hints=(
        "In line 2 everything but $|\\theta_i|$ is the same number for each parameter. Take the mean over a layer "
        "and call the common factor $c\\,\\sigma$.",
        "What happens to $s_l$ if all $u_l$ are multiplied by one number, and what to $s_l$ divided by the mean of "
        "$s$?",
    ),
    expected="A dictionary with one number for each layer. No random number and no picture is needed.",
)

# 13.fair_sweep ------------------------------------------------------------------------------------------------------


def _as_right(values):
    return np.nan_to_num(np.asarray(values, float))


def _interval(row, ddof=1):
    return 1.96 * row.std(ddof=ddof) / np.sqrt(len(row))


def _chosen(validation, test, domain, filled=_as_right):
    return int(filled(validation[domain]).mean(axis=1).argmax())


def _sweep(choose=_chosen, report=lambda validation, test, domain, i: _as_right(test[domain][i]), half=_interval):
    """A sweep: which rate, the accuracies to report with it, and half the width of an interval."""

    def fair_sweep(validation, test, domain):
        i = choose(validation, test, domain)
        row = report(validation, test, domain, i)
        return i, row.mean(), half(row)

    return fair_sweep


def _by_score(validation, test, domain):
    rate = int(np.argmax(np.where(np.isnan(validation[domain]), 0.0, validation[domain]).mean(axis=1)))
    score = ml.evaluate.score(np.where(np.isnan(test[domain][rate]), 0.0, test[domain][rate]))
    return rate, score.mean, score.half_width


def _with_loops_over_rates(validation, test, domain):
    """An alternative: without arrays."""
    best, highest = 0, -1.0
    for number, row in enumerate(validation[domain]):
        mean = sum(0.0 if np.isnan(value) else float(value) for value in row) / len(row)
        if mean > highest:
            best, highest = number, mean
    row = [0.0 if np.isnan(value) else float(value) for value in test[domain][best]]
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / (len(row) - 1)
    return best, mean, 1.96 * (variance / len(row)) ** 0.5


def _best_of_each_task(validation, test, domain):
    row = _as_right(test[domain]).max(axis=0)
    return _chosen(validation, test, domain), row.mean(), _interval(row)


def _passing_over(validation, test, domain):
    i = int(np.nanmean(validation[domain], axis=1).argmax())
    row = np.asarray(test[domain][i])
    row = row[~np.isnan(row)]
    return i, row.mean(), _interval(row)


def _swept(rng, which, num_validation=24, num_test=30):
    """Accuracies in three domains, in which every unfair choice falls on another learning rate."""
    own, on_test, at_home, for_all, joined, diverging, third, _ = 1 + rng.permutation(8)
    names = ("known scripts", "chalk", "signals")
    domain = names[which]

    def table(heights, number):
        values = rng.normal(0.45, 0.04, (9, number))
        for place, height in heights.items():
            values[place] += height - 0.45
        return np.clip(values, 0, 1)

    validation, test = {}, {}
    for name in names:
        if name == domain:
            validation[name] = table({own: 0.72, for_all: 0.65, joined: 0.67, diverging: 0.9}, num_validation)
            test[name] = table({own: 0.62, on_test: 0.8, joined: 0.74, for_all: 0.5}, num_test)
            validation[name][diverging, rng.permutation(num_validation)[: num_validation // 2]] = np.nan
            test[name][own, rng.permutation(num_test)[: 2 + which]] = np.nan
        else:
            peak = at_home if name == names[0] else third
            validation[name] = table({peak: 0.75, for_all: 0.68}, num_validation)
            test[name] = table({peak: 0.75, own: 0.55}, num_test)
    return validation, test, domain


FAIR_SWEEP = Exercise(
    id="13.fair_sweep",
    title="A fair sweep",
    difficulty=2,
    minutes=12,
    reference=_by_score,
    instances=lambda rng: [_swept(rng, 1), _swept(rng, 2, 30, 20), _swept(rng, 0)],
    misconceptions=(
        Misconception(
            "chosen on test",
            _sweep(lambda validation, test, domain: int(_as_right(test[domain]).mean(axis=1).argmax())),
            "Your learning rate is the one that is best on the *test* tasks. What you report is then too high: part of "
            "it is luck of these tasks, and you were the one who looked for it.",
        ),
        Misconception(
            "best rate of every task",
            _best_of_each_task,
            "Your learning rate is right, but your mean is that of each task's *highest* accuracy over all rates. "
            "Nobody knows which rate is best for a task before its labels are known.",
        ),
        Misconception(
            "chosen in domain",
            _sweep(lambda validation, test, domain: _chosen(validation, test, next(iter(validation)))),
            "Your learning rate is the one that is best in the first domain, whichever was asked for. That is right "
            "for the first domain only.",
        ),
        Misconception(
            "reported on validation",
            _sweep(report=lambda validation, test, domain, i: _as_right(validation[domain][i])),
            "Your learning rate is right, but you report its accuracy on the *validation* tasks. They chose it, so on "
            "them it looks better than it is.",
        ),
        Misconception(
            "diverged tasks left out",
            _passing_over,
            "Tasks that diverged are left out of your means. Then a learning rate that diverges on half of the tasks "
            "can look like the best. A task that diverged has no right answer.",
        ),
        Misconception(
            "one rate for all domains",
            _sweep(
                lambda validation, test, domain: int(
                    sum(_as_right(values).mean(axis=1) for values in validation.values()).argmax()
                )
            ),
            "Your learning rate is the one with the highest mean over *all* domains. The question is about one of "
            "them.",
        ),
        Misconception(
            "validation and test joined",
            _sweep(
                lambda validation, test, domain: int(
                    _as_right(np.concatenate([validation[domain], test[domain]], axis=1)).mean(axis=1).argmax()
                )
            ),
            "Your learning rate is the one that is best on validation and test tasks together. Test tasks must not "
            "choose anything.",
        ),
        Misconception(
            "standard deviation for standard error",
            _sweep(half=lambda row: 1.96 * row.std(ddof=1)),
            "Your rate and your mean are right. Your interval is 1.96 standard *deviations*, the spread of single "
            "tasks. The interval of a mean shrinks with the number of tasks.",
        ),
        Misconception(
            "interval of the other degree of freedom",
            _sweep(half=lambda row: _interval(row, 0)),
            "Your rate and your mean are right, and your interval is a little too narrow. The standard deviation of a "
            "sample divides by $n - 1$, in NumPy with `ddof=1`.",
        ),
        Misconception(
            "one standard error",
            _sweep(half=lambda row: _interval(row) / 1.96),
            "Your rate and your mean are right. Your interval is one standard error; a 95 % interval has 1.96.",
        ),
    ),
    relatives=(
        ("what the largest learning rate gives", _sweep(lambda validation, test, domain: len(validation[domain]) - 1)),
        ("what the first learning rate gives", _sweep(lambda validation, test, domain: 0)),
        (
            "the target, but with diverged test tasks left out",
            _sweep(report=lambda validation, test, domain, i: np.asarray(test[domain][i])[~np.isnan(test[domain][i])]),
        ),
    ),
    alternatives=(_sweep(), _with_loops_over_rates),
    hints=(
        "Two steps that see different tasks: which row of `validation[domain]` has the highest mean, and what is in "
        "this row of `test[domain]`?",
        "`np.nan_to_num` turns NaN into 0. `ml.evaluate.score` gives the mean and the interval of a row.",
    ),
    expected="A whole number, the mean accuracy on the test tasks, and half of its interval's width.",
)

# 13.control ---------------------------------------------------------------------------------------------------------


class SyntheticRun:
    """(spread, attack size) -> accuracies of tasks, by some law in which the two parts help or hinder each other."""

    def __init__(self, rng):
        """A random law."""
        self._plain = rng.uniform(0.5, 0.7, 12)
        self._parts = rng.choice([-1, 1], 3) * rng.uniform([0.3, 0.5, 2.0], [0.6, 0.9, 4.0])

    def __call__(self, spread, attack_size):
        """One accuracy for each task."""
        of_steps, of_examples, of_both = self._parts
        tasks = np.linspace(0.5, 1.5, 12)
        return self._plain + tasks * (of_steps * spread + of_examples * attack_size + of_both * spread * attack_size)

    def __repr__(self):
        """Short, for the message of a check."""
        return "run"


def _gains(plain, steps, examples, both):
    return [both - plain, steps - plain, examples - plain, both - steps - examples + plain]


def _attributed(combine=_gains, steps=(1, 0), examples=(0, 1), mean=np.mean):
    """Gains from four runs: plain, with the parts, whose arguments are these of (spread, attack_size), and whole."""

    def attribute(run, spread, attack_size):
        runs = [mean(run(a * spread, b * attack_size)) for a, b in ((0, 0), steps, examples, (1, 1))]
        return np.array(combine(*runs))

    return attribute


def _by_task(run, spread, attack_size):
    """An alternative: differences task by task."""
    base = run(0.0, 0.0)
    steps, examples, both = (run(*args) - base for args in ((spread, 0.0), (0.0, attack_size), (spread, attack_size)))
    return jnp.stack([gain.mean() for gain in (both, steps, examples, both - steps - examples)])


CONTROL = Exercise(
    id="13.control",
    title="Design the control: which part of the method?",
    difficulty=2,
    minutes=10,
    reference=_attributed(),
    instances=lambda rng: [
        (SyntheticRun(rng), 0.05, 0.05),
        (SyntheticRun(rng), float(rng.uniform(0.02, 0.04)), float(rng.uniform(0.06, 0.1))),
        (SyntheticRun(rng), float(rng.uniform(0.06, 0.1)), float(rng.uniform(0.02, 0.04))),
    ],
    misconceptions=(
        Misconception(
            "parts exchanged",
            _attributed(steps=(0, 1), examples=(1, 0)),
            "Your second and third number are exchanged. With `spread=0` the members are equal, so the *step sizes* "
            "are equal and only the examples are new.",
        ),
        Misconception(
            "what is lost without a part",
            _attributed(lambda p, s, e, b: [b - p, b - e, b - s, b - s - e + p]),
            "Your second and third number are what the whole method *loses* without a part. The exercise asks what a "
            "part gains *alone*, compared with plain adaptation. The two differ by the last number.",
        ),
        Misconception(
            "opposite sign",
            _attributed(lambda p, s, e, b: [p - b, p - s, p - e, s + e - b - p]),
            "All gains have the opposite sign in your result.",
        ),
        Misconception(
            "accuracies",
            _attributed(lambda p, s, e, b: [b, s, e, b - s - e + p]),
            "Your first three numbers are accuracies. A gain is a difference from plain adaptation.",
        ),
        Misconception(
            "plain adaptation forgotten in the last",
            _attributed(lambda p, s, e, b: [b - p, s - p, e - p, b - s - e]),
            "Your first three numbers are right. In the last one accuracies are subtracted, where it should be gains. "
            "How often does plain adaptation enter?",
        ),
        Misconception(
            "interaction with the opposite sign",
            _attributed(lambda p, s, e, b: [b - p, s - p, e - p, s + e - b - p]),
            "Your first three numbers are right, and the last has the opposite sign. It is positive if the whole is "
            "more than its parts.",
        ),
        Misconception(
            "no interaction",
            _attributed(lambda p, s, e, b: [b - p, s - p, e - p, 0.0]),
            "Your first three numbers are right, and the last is zero. The gains of the parts need not add up to that "
            "of the whole.",
        ),
        Misconception(
            "ratios",
            _attributed(lambda p, s, e, b: [b / p, s / p, e / p, b / s / e * p]),
            "Your numbers are quotients. The exercise asks for differences of mean accuracy.",
        ),
        Misconception(
            "whole compared with a part",
            _attributed(lambda p, s, e, b: [b - e, s - p, e - p, b - s - e + p]),
            "Your first number compares the whole method with one that has adversarial examples already. Compare it "
            "with plain adaptation.",
        ),
        Misconception(
            "examples from the whole",
            _attributed(lambda p, s, e, b: [b - p, s - p, b - s, 0.0]),
            "Your third number is what is left of the whole when the step sizes are subtracted. So the interaction is "
            "hidden in it. Which run has adversarial examples alone?",
        ),
    ),
    relatives=(
        ("what the median over tasks gives in place of the mean", _attributed(mean=np.median)),
        ("what the first task gives alone", _attributed(mean=lambda accuracies: accuracies[0])),
    ),
    alternatives=(_by_task,),
    hints=(
        "Which argument switches off the unequal step sizes, and which the adversarial examples? There are four runs.",
        "Let the gains be those over the run in which both are off. The last number is the first minus the second and "
        "the third.",
    ),
    expected="Four numbers. The last is the first minus the second and the third.",
)

EXERCISES = (FGSM, STEP_SIZES, WITHOUT_A_TASK, FAIR_SWEEP, CONTROL)


def fair_sweep(validation: Any, test: Any, domain: str) -> tuple[int, float, float]:
    """What the exercise asks for, for the lesson's table, whatever the learner has written."""
    return _by_score(validation, test, domain)


PREDICTIONS = (
    Guess(
        "13.chalk",
        "The same checkpoint adapts to chalk on a blackboard: white lines, and everything else is ink. Compared with "
        "dark ink on paper, at which learning rate does adaptation begin to fail?",
        ("at about the same one", "at one several times smaller", "at one several times larger"),
        why="On a blackboard most pixels are 1, and all features of the network are larger. Larger features mean "
        "larger gradients, and a larger curvature of the support loss.",
        read="One checkpoint, four kinds of pictures",
    ),
    Guess(
        "13.pencil",
        "Pencil drawings have 30 % of the ink. How large is the largest curvature of their support loss, in per cent "
        "of that for the same characters in ink?",
        unit="%",
        why="For a model that is linear in the picture the curvature would be $0.3^2$, which is 9 %. The hidden layers "
        "of this network have biases, which do not fade with the ink.",
        read="Why the learning rate moves",
    ),
    Guess(
        "13.mean",
        "Pencil drawings want a learning rate several times larger than the one from the known scripts. By which "
        "factor do the step sizes of USA raise the mean learning rate of all parameters there?",
        why="The factors are divided by their mean, so their mean is 1, whatever the members disagree about.",
        read="What can the factors know?",
    ),
    Guess(
        "13.large",
        "At α = 1, ten times the learning rate of home, plain adaptation is right on 55 % of pencil "
        "drawings. With the step sizes of USA at the same α, what percentage is right?",
        unit="%",
        why="The members have taken the long steps before. Where these were too long, the members have flown apart, "
        "and $\\theta$ takes short steps there.",
        read="What can the factors know?",
    ),
    Guess(
        "13.examples",
        "Adversarial examples alone, with equal step sizes: what do they do to the accuracy on pencil drawings, if the "
        "learning rate is chosen for them on validation tasks of the domain?",
        ("they raise it by more than a point", "less than a point either way", "they lower it by more than a point"),
        why="An attack of size 0.05 is small for a picture in ink. A pencil drawing has 0.3 of the ink, so the same "
        "attack is a sixth of its contrast.",
        read="Adversarial examples",
    ),
)

QUIZ = (
    Question(
        "You adapt a checkpoint to pictures with twice the contrast. Which learning rate do you try first?",
        (
            "The one from training, since the checkpoint is the same",
            "A smaller one: measure by how much the curvature of the support loss has grown, and divide by that",
            "A larger one, since the pictures are clearer",
            "That of the best test accuracy",
        ),
        1,
        (
            "The checkpoint is the same, but the support loss is another function with another curvature.",
            "Yes: this keeps αL as it was, and needs the support set alone.",
            "Clearer pictures have larger features and larger gradients, so the same steps would be too long.",
            "Then the report would be too high, as in the exercise on a fair sweep.",
        ),
    ),
    Question(
        "In every layer the members disagree twice as much as before. What happens to the factors of USA?",
        (
            "They are halved",
            "They are doubled",
            "Nothing",
            "It depends on the layers",
        ),
        2,
        (
            "All s are doubled with all u, and then divided by their mean, which is doubled too.",
            "All s are doubled with all u, but they are divided by their mean, which is doubled too.",
            "Yes: a common factor cancels. The factors say how the layers compare, and nothing about the whole.",
            "They depend on how the layers compare, and this has not changed.",
        ),
    ),
    Question(
        "A paper reports, for every domain, the best accuracy over ten learning rates on its test tasks. What is "
        "wrong?",
        (
            "Ten learning rates are too few",
            "The learning rate was chosen on the tasks that are reported",
            "The domains should share a learning rate",
            "Nothing, if all methods are treated alike",
        ),
        1,
        (
            "More of them would make it worse: the best of many is lucky more often.",
            "Yes. With few tasks the best of ten is too high, and a method with a noisier curve gains more from it.",
            "They may differ. What chooses them must be other tasks than those of the report.",
            "Alike is not enough: whoever has more configurations, or noisier ones, gains more by choosing on test.",
        ),
    ),
)

# What the lesson calls ----------------------------------------------------------------------------------------------

BLUE, ORANGE, TEXT, MUTED, LINE, CARD = (
    plots.PALETTE[name] for name in ("blue", "orange", "text", "muted", "line", "card")
)
GAP = 3  # pixels between two pictures


@functools.cache
def record() -> dict[str, Any]:
    """The record of the long runs."""
    return json.loads(out_of_domain.RECORD.read_text("utf-8"))


def percent(mean: float, half_width: float) -> str:
    """A fraction in percent, with its interval."""
    return f"{100 * mean:.1f} ± {100 * half_width:.1f}".replace("-", "−")


# Figures ------------------------------------------------------------------------------------------------------------


def _ink() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ink", [CARD, TEXT])


def _picture(axes: Any, sheet: _Array, title: str, **options: Any) -> None:
    """One image without axes."""
    axes.imshow(sheet, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontweight="bold")


def _rows(rows: list[list[Any]], background: float) -> _Array:
    """Pictures 14 x 14 in rows, as one image with gaps of the card's colour or of one shade."""
    side = draw_five.SIDE
    sheet = np.full((len(rows) * (side + GAP) - GAP, len(rows[0]) * (side + GAP) - GAP), background)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            place = (slice(k * (side + GAP), k * (side + GAP) + side) for k in (i, j))
            sheet[tuple(place)] = np.asarray(picture).reshape(side, side)
    return sheet


def gallery(tasks: dict[str, Any]) -> None:
    """Shows one task of every domain: the support pictures, and two query pictures of each class."""
    figure, panels = plots.subplots(len(tasks), height=1.75)
    for axes, (name, batch) in zip(panels, tasks.items(), strict=True):
        support, query = (np.asarray(part[0][0]) for part in (batch.support, batch.query))
        rows = [list(support), list(query[::5]), list(query[1::5])]
        _picture(axes, _rows(rows, 0.0), name, cmap=_ink(), vmin=0, vmax=1)
    plots.show(
        figure,
        "Four tasks of five characters, one for each domain. Known scripts and new scripts are dark ink on white; "
        "pencil is light grey on white; chalk is white on a dark ground.",
        title="Four domains for one checkpoint",
        caption="Upper row: the one picture of each class to adapt to. Below: new pictures of the same characters.",
    )


def _draw_sweeps(axes: Any, sweeps: dict[str, Any], rates: Any, scale: dict[str, float], xlabel: str) -> None:
    for name, values in sweeps.items():
        axes.plot(np.asarray(rates) * scale[name], 100 * np.asarray(values), label=name)
    axes.set_xscale("log")
    axes.set_ylim(15, 101)
    plots.label(axes, xlabel, "accuracy in %")


def sweeps(curves: dict[str, Any], rates: Any) -> None:
    """Shows accuracy against the inner learning rate, a curve for each domain, with the best one marked."""
    figure, (axes,) = plots.subplots(height=3.9)
    for name, values in curves.items():
        (line,) = axes.plot(rates, 100 * np.asarray(values), label=name)
        best = int(np.argmax(values))
        axes.plot(rates[best], 100 * values[best], "o", color=line.get_color(), markersize=8, label="_")
    axes.set_xscale("log")
    axes.set_ylim(15, 101)
    plots.label(axes, "inner learning rate α", "accuracy in %")
    plots.show(
        figure,
        "Accuracy against the inner learning rate on a logarithmic axis, one curve for each domain. Known and new "
        "scripts have a broad plateau and fall at about the same learning rate. The curve of pencil has its "
        "highest point further right, that of chalk further left, and the latter is much lower.",
        title="One checkpoint, and a learning rate for every domain",
        caption=f"Mean of 100 validation tasks after {NUM_STEPS} inner steps. Points: the highest value of a curve.",
    )


def collapsed(curves: dict[str, Any], rates: Any, curvature: dict[str, float]) -> None:
    """Shows the same curves against the product of learning rate and curvature."""
    figure, (axes,) = plots.subplots(height=3.9)
    _draw_sweeps(axes, curves, rates, curvature, "inner learning rate times curvature, αL")
    plots.show(
        figure,
        "The same curves against the product of learning rate and curvature. Now all of them rise in about the same "
        "place and are highest at about the same product. They fall at different ones, pencil first and chalk last.",
        title="In units of the curvature the curves rise together, but do not fall together",
        caption="L: the median over tasks of the largest curvature of the support loss at θ.",
    )


def ensemble_diagram() -> None:
    """Shows how USA makes step sizes from an ensemble."""
    d = diagrams.Drawing(660, 270)
    d.node(36, 130, "θ", filled=True)
    for y in (50, 130, 210):
        d.arrow((59, 130 + (y - 130) * 0.12), (126, y), MUTED, dash="4 4")
        d.node(150, y, "φ₀")
        d.arrow((174, y), (254, y))
        d.node(278, y, "φ<tspan dy='4' font-size='11'>K</tspan>")
        d.arrow((302, y), (352, 130 + (y - 130) * 0.35), ORANGE)
    d.text(82, 262, "θ ∘ (1 + σ noise)", MUTED, size=13)
    d.text(252, 262, "each adapts to the support set", BLUE, size=13)
    d.box(356, 78, 124, 104, ORANGE)
    d.text(418, 112, "disagreement", ORANGE, bold=True)
    d.text(418, 136, "of each layer,", TEXT, size=13)
    d.text(418, 156, "u₁, u₂, u₃, …", TEXT, size=13)
    d.arrow((484, 130), (524, 130), ORANGE)
    d.text(530, 112, "small: long steps", ORANGE, "start", bold=True, size=13)
    d.text(530, 136, "large: short steps", ORANGE, "start", bold=True, size=13)
    d.text(530, 160, "mean: α", TEXT, "start", size=13)
    diagrams.show(
        d.svg(),
        "From theta several members start, each with a little noise. All adapt to the same support set. Where they "
        "disagree little in a layer, that layer gets long steps, and short ones where they disagree much. The mean "
        "of the learning rates stays alpha.",
        title="An ensemble says which layers may move",
        caption="USA, the step sizes of Kwon and others (2021). The members are copies of one checkpoint, with noise.",
    )


@jax.jit
def _attacked(params: Any, support: Any) -> dict[str, Any]:
    """Pictures as they are, and after both attacks; parameters after an inner step, with an ensemble around them."""
    loss, size, spread = out_of_domain.LOSS, out_of_domain.ATTACK_SIZE, out_of_domain.SPREAD
    phi = jax.tree.map(lambda leaf, gradient: leaf - 0.05 * gradient, params, jax.grad(loss)(params, support))

    def member(key):
        noise = optax.tree.random_like(key, phi)
        return jax.tree.map(lambda leaf, n: leaf * (1 + spread * n), phi, noise)

    members = jax.lax.map(member, jax.random.split(jax.random.key(0), out_of_domain.NUM_MEMBERS))
    return {
        "picture": support[0],
        "FGSM": ml.repurpose.fgsm(loss, phi, support, size)[0],
        "UFGSM": ml.repurpose.ufgsm(loss, phi, members, support, size)[0],
    }


def attacks(params: Any, support: Any) -> None:
    """Shows pictures of a support set, and by how much two attacks move each pixel."""
    pictures = _attacked(params, support)
    from matplotlib.colors import LinearSegmentedColormap

    moved = LinearSegmentedColormap.from_list("moved", [BLUE, CARD, ORANGE])
    figure, panels = plots.subplots(3, height=1.3)
    original = np.asarray(pictures["picture"])
    _picture(panels[0], _rows([list(original[:3])], 0.0), "support pictures", cmap=_ink(), vmin=0, vmax=1)
    for axes, name in zip(panels[1:], ("FGSM", "UFGSM"), strict=True):
        move = np.asarray(pictures[name]) - original
        size = out_of_domain.ATTACK_SIZE
        _picture(axes, _rows([list(move[:3])], 0.0), f"moves of {name}", cmap=moved, vmin=-size, vmax=size)
    plots.show(
        figure,
        "Three characters, and the moves of their pixels by two attacks. FGSM moves every pixel by the same distance, "
        "up or down. UFGSM moves most pixels by less, each by another distance.",
        title="FGSM moves every pixel alike; UFGSM moves those on which the members disagree",
        caption="Orange: more ink, blue: less ink; the strongest colour is the attack size.",
    )


WORDS = {
    "plain": "plain adaptation",
    "step sizes": "step sizes alone: USA",
    "examples": "adversarial examples alone",
    "both": "both, the whole method",
    "unadapted": "step sizes without a task",
}


def _mean_over_rates(way: str, domain: str) -> float:
    return float(np.mean(record()["checkpoints"]["drawing pad"]["ways"][way][domain]["validation"]))


def robustness() -> None:
    """Shows accuracy against the learning rate for each way to adapt, in two domains."""
    found = record()["checkpoints"]["drawing pad"]["ways"]
    figure, panels = plots.subplots(2, height=3.9, sharey=True)
    for axes, domain in zip(panels, ("pencil", "chalk"), strict=True):
        for way, name in SHORT.items():
            axes.plot(out_of_domain.RATES, 100 * np.array(found[way][domain]["validation"]), label=name)
        axes.set_xscale("log")
        axes.set_ylim(15, 101)
        plots.label(axes, "inner learning rate α", "accuracy in %", domain)
    plots.show(
        figure,
        "Accuracy against the inner learning rate, for pencil and for chalk. At large learning rates USA falls "
        "later and less than plain adaptation and the factors without a task. On chalk every curve has two peaks, and "
        "USA is behind plain adaptation at small learning rates. The curve of the whole method runs mostly below that "
        "of USA.",
        title="The step sizes of USA guard against learning rates that are too large",
        caption=f"Mean of {record()['settings']['validation_tasks']} validation tasks at each of ten learning rates.",
    )


SHORT = {"plain": "plain", "step sizes": "USA", "both": "whole method", "unadapted": "no task"}


def robustness_table() -> None:
    """Shows the mean accuracy over all learning rates."""
    plots.table(
        {WORDS[way]: [f"{100 * _mean_over_rates(way, domain):.0f}" for domain in DOMAINS] for way in WORDS},
        ("accuracy in %", *DOMAINS),
        title="Averaged over learning rates, the step sizes gain most",
        caption="Mean over ten learning rates from "
        f"{plots.number(out_of_domain.RATES[0], 1)} to {plots.number(out_of_domain.RATES[-1], 1)}, validation tasks.",
    )


def gains_table(checkpoint: str = "drawing pad") -> None:
    """Shows what each way to adapt gains over plain adaptation, each with its own learning rate in every domain."""
    found = record()["checkpoints"][checkpoint]["ways"]
    rows: dict[str, Any] = {WORDS["plain"]: [percent(*found["plain"][name]["test"]["own"]) for name in DOMAINS]}
    rows |= {
        WORDS[way]: [_signed(*found[way][name]["gain"]["own"]) for name in DOMAINS] for way in WORDS if way != "plain"
    }
    plots.table(
        rows,
        ("in percentage points", *DOMAINS),
        title="With a learning rate for every row and domain, little is gained",
        caption="First row: accuracy. Below: the mean difference from it, task by task, on "
        f"{record()['settings']['test_tasks']} test tasks, with its 95 % interval. Every learning rate was chosen on "
        "validation tasks of the domain.",
    )


def others_table() -> None:
    """Shows the main findings for every checkpoint of the record."""
    rows: dict[str, Any] = {}
    for checkpoint, found in record()["checkpoints"].items():
        for domain in DOMAINS:
            tested = found["ways"]["plain"][domain]["test"]
            curves = {way: np.mean(found["ways"][way][domain]["validation"]) for way in ("plain", "step sizes")}
            rows[f"{checkpoint}: {domain}"] = [
                *(f"{100 * tested[key][0]:.1f}" for key in ("home", "own", "scaled")),
                f"{100 * (curves['step sizes'] - curves['plain']):+.0f}".replace("-", "−"),
                _signed(*found["ways"]["examples"][domain]["gain"]["own"]),
            ]
    plots.table(
        rows,
        ("checkpoint and domain", "home", "domain", "curvature", "USA", "examples"),
        title="With other checkpoints USA guards as well, and the curvature can mislead",
        caption="Accuracy in % of plain adaptation with the learning rate of home, that of the domain, and that of "
        "home by curvature; then gains over plain adaptation in percentage points, of USA in the mean over all "
        "learning rates, and of adversarial examples alone with a learning rate for each domain.",
    )


def _signed(mean: float, half_width: float) -> str:
    return f"{100 * mean:+.1f} ± {100 * half_width:.1f}".replace("-", "−")


def factors_table(factors: dict[str, Any], title: str) -> None:
    """Shows the factors of all six layers."""
    names = [f"{what} {i + 1}" for i in range(3) for what in ("bias", "weights")]
    plots.table(
        {name: [f"{float(leaf):.2f}" for leaf in jax.tree.leaves(each)] for name, each in factors.items()},
        ("factor of α", *names),
        title=title,
        caption="Rows with a domain: mean over ten tasks, after five inner steps. Most parameters are weights of the "
        "first layer.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: accuracy against the learning rate, and against αL."""
    found = record()
    curves, sharp = found["sweep"], found["checkpoints"]["drawing pad"]["curvature"]
    halves = []
    for scale, xlabel in (
        (dict.fromkeys(curves, 1.0), "inner learning rate α"),
        (sharp, "αL: learning rate times curvature"),
    ):
        figure, (axes,) = plots.subplots(width=4.8, height=2.45)
        _draw_sweeps(axes, curves, found["rates"], scale, xlabel)
        if scale is sharp:
            axes.set_xlim(0.008, 200)
        halves.append(plots.svg(figure))
    return diagrams.opening(
        halves[0],
        halves[1],
        ("One checkpoint, adapted to four domains", "In units of the curvature they rise together"),
        ("Accuracy in % against the inner learning rate.", "L: largest curvature of the support loss."),
        "Left: accuracy against the inner learning rate for four domains; the curve of pencil drawings lies further "
        "right, and that of chalk drawings further left. Right: the same curves against the learning rate times the "
        "curvature of the support loss; they rise and are highest in about the same places.",
    )
