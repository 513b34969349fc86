"""Exercises and quiz of lesson 06, clipped and normalised outer steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.tree import scale as scaled

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.lessons.adaptation import move
from metalearn.course.widgets import diagrams

# 06.curvature -------------------------------------------------------------------------------------------------------


@jax.jit
def _wavy(z):
    return z**2 / 2 + 0.9 * jnp.cos(z)


@jax.jit
def _steep(z):
    return jnp.exp(0.7 * z) - z


@jax.jit
def _bent(z):
    return jnp.logaddexp(0.0, z) + 0.1 * z**2


@jax.jit
def _quartic(z):
    return (z - 0.5) ** 4 / 12 + 0.2 * z**2


@functools.partial(jax.jit, static_argnums=(0, 1))
def _twice(support, query, start, step_size):
    """By differentiating the whole function twice."""
    return jax.grad(jax.grad(lambda x: query(x - step_size * jax.grad(support)(x))))(start)


def _curvature(rule):
    """F'' from a rule for it: (factor, f1, f2, h3, step_size) -> number, where f1 and f2 are functions of a point."""

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def curvature(support, query, start, step_size):
        slope, f1 = jax.grad(support), jax.grad(query)
        bend = jax.grad(slope)
        adapted = start - step_size * slope(start)
        factor = 1 - step_size * bend(start)
        return rule(factor, f1, jax.grad(f1), jax.grad(bend)(start), step_size, adapted, start)

    return curvature


@functools.partial(jax.jit, static_argnums=(0, 1))
def _third_of_the_query(support, query, start, step_size):
    adapted = start - step_size * jax.grad(support)(start)
    factor = 1 - step_size * jax.grad(jax.grad(support))(start)
    f1 = jax.grad(query)
    f2 = jax.grad(f1)
    return factor**2 * f2(adapted) - step_size * jax.grad(f2)(start) * f1(adapted)


CURVATURE = Exercise(
    id="06.curvature",
    title="How a meta-objective curves",
    difficulty=2,
    minutes=10,
    reference=_twice,
    instances=lambda rng: [
        (_wavy, _wavy, float(rng.uniform(3, 9)), 0.3),
        (_bent, _steep, float(rng.uniform(0.5, 2)), float(rng.uniform(0.3, 0.6))),
        (_quartic, _wavy, float(rng.uniform(-3, -1.5)), float(rng.uniform(0.1, 0.3))),
        (_steep, _quartic, float(rng.uniform(1, 2)), float(rng.uniform(0.1, 0.3))),
    ],
    misconceptions=(
        Misconception(
            "curvature at the adapted point",
            _curvature(lambda j, f1, f2, h3, a, y, x: f2(y)),
            "This is $f''(y)$, as if moving the start moved the adapted point as much. Where does the factor "
            "$1 - \\alpha h''(x)$ of line 1 enter?",
        ),
        Misconception(
            "third derivative missing",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y)),
            "You have the term in which the derivative hits $f'(y)$. Line 1 is a *product*, and its other part "
            "depends on $x$ too.",
        ),
        Misconception(
            "one factor",
            _curvature(lambda j, f1, f2, h3, a, y, x: j * f2(y) - a * h3 * f1(y)),
            "Your term with $f''(y)$ has one factor $1 - \\alpha h''(x)$. One stands in line 1 already. What does the "
            "chain rule add when $f'(y)$ is differentiated in $x$?",
        ),
        Misconception(
            "plus",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) + a * h3 * f1(y)),
            "The sign of your term with $h'''$ is wrong. What is the derivative of $1 - \\alpha h''(x)$?",
        ),
        Misconception(
            "no step size",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - h3 * f1(y)),
            "The step size is missing from your term with $h'''$. What is the derivative of $1 - \\alpha h''(x)$?",
        ),
        Misconception(
            "query slope at the start",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * f1(x)),
            "Your term with $h'''$ holds the query slope at the start. At which point does line 1 take it?",
        ),
        Misconception(
            "query curvature at the start",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(x) - a * h3 * f1(y)),
            "You take $f''$ at the start. The slope in line 1 is taken at $y$; so is its derivative.",
        ),
        Misconception(
            "factor on both terms",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * j * f1(y)),
            "Your term with $h'''$ holds a factor $1 - \\alpha h''(x)$. In this term it was differentiated: nothing of "
            "it is left.",
        ),
        Misconception(
            "third derivative of the query loss",
            _third_of_the_query,
            "Your third derivative is that of the query loss. Which loss did the inner step descend?",
        ),
        Misconception(
            "support and query swapped",
            lambda support, query, start, step_size: _twice(query, support, start, step_size),
            "This adapts on the query loss and scores on the support loss. Which of the two may adaptation see?",
        ),
        Misconception(
            "uphill",
            lambda support, query, start, step_size: _twice(support, query, start, -step_size),
            "Your inner step goes up the support loss. Look at the sign in $y$.",
        ),
    ),
    alternatives=(_curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * f1(y)),),
    hints=(
        "Line 1 is a product of two functions of $x$. Differentiate it by the product rule; for one of the two parts "
        "you need the chain rule as well.",
        "You need $h'$, $h''$, $h'''$ at the start and $f'$, $f''$ at the adapted point. `jax.grad(jax.grad(support))` "
        "is $h''$.",
    ),
    expected="One number. For the wave above, with $\\alpha = 0.3$, its size is never above 2.1 while $|x| \\le 5$.",
)

# 06.safe_rate -------------------------------------------------------------------------------------------------------


def _safe_rate(gradient_norm, l0, l1):
    return np.log1p(l1 * gradient_norm / (l0 + l1 * gradient_norm)) / (l1 * gradient_norm)


def _bound(length, gradient_norm, l0, l1):
    """The most by which F can change along a step of this length."""
    curvature = l0 + l1 * gradient_norm
    return -gradient_norm * length + curvature * (np.exp(l1 * length) - 1 - l1 * length) / l1**2


def _by_bisection(gradient_norm, l0, l1):
    """An alternative: the length at which the slope of the bound changes its sign."""
    low, high = 0 * gradient_norm, gradient_norm / l0
    for _ in range(100):
        middle = (low + high) / 2
        falling = (l0 + l1 * gradient_norm) * (np.exp(l1 * middle) - 1) / l1 < gradient_norm
        low, high = np.where(falling, middle, low), np.where(falling, high, middle)
    return low / gradient_norm


def _with_ratio(gradient_norm, l0, l1):
    """An alternative: with the ratio of the two parts of the curvature."""
    share = gradient_norm / (l0 / l1 + gradient_norm)
    return np.log(1 + share) / l1 / gradient_norm


def _back_to_zero(gradient_norm, l0, l1):
    """The rate at which the bound is zero again."""
    low, high = _safe_rate(gradient_norm, l0, l1) * gradient_norm, 5 * gradient_norm / l0
    for _ in range(100):
        middle = (low + high) / 2
        below = _bound(middle, gradient_norm, l0, l1) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low / gradient_norm


SAFE_RATE = Exercise(
    id="06.safe_rate",
    title="The rate that the bound likes best",
    difficulty=2,
    minutes=10,
    reference=_safe_rate,
    instances=lambda rng: [
        (2.0, 1.0, 0.5),
        (float(rng.uniform(5, 50)), float(rng.uniform(0.5, 2)), float(rng.uniform(0.1, 0.9))),
        (float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.5, 2)), float(rng.uniform(1, 3))),
        (10.0 ** rng.uniform(-2, 3, 6), float(rng.uniform(2, 9)), float(rng.uniform(0.2, 0.8))),
    ],
    misconceptions=(
        Misconception(
            "length, not rate",
            lambda gradient_norm, l0, l1: _safe_rate(gradient_norm, l0, l1) * gradient_norm,
            "This is the best *length* $r$ of the step. A rate multiplies the gradient: how long is $\\eta\\,g$?",
        ),
        Misconception(
            "one over the curvature",
            lambda gradient_norm, l0, l1: 1 / (l0 + l1 * gradient_norm),
            "This is one over the curvature where the step begins. It is safe, but the curvature may grow along the "
            "step, and the bound knows it: set the slope of the bound to zero.",
        ),
        Misconception(
            "one over L0",
            lambda gradient_norm, l0, l1: 1 / l0 + 0 * gradient_norm,
            "This is $1/L_0$, the safe rate where the curvature does *not* grow with the gradient.",
        ),
        Misconception(
            "the smaller of two",
            lambda gradient_norm, l0, l1: np.minimum(1 / l0, 1 / (l1 * gradient_norm)),
            "This is clipping with the rate $1/L_0$. It has the right shape. The exercise asks for the rate at which "
            "the bound is lowest.",
        ),
        Misconception(
            "where the bound is zero",
            _back_to_zero,
            "At your rate the bound is zero again: all that was won is lost. It is lowest before that.",
        ),
        Misconception(
            "growth left out",
            lambda gradient_norm, l0, l1: np.log1p(l1 * gradient_norm / l0) / (l1 * gradient_norm),
            "In your answer the curvature at the start of the step is $L_0$. What is $A$ where the gradient is large?",
        ),
        Misconception(
            "one lost",
            lambda gradient_norm, l0, l1: np.log(l1 * gradient_norm / (l0 + l1 * gradient_norm)) / (l1 * gradient_norm),
            "Your rate is negative. The last term in the brackets, $-L_1 r$, has a slope too.",
        ),
        Misconception(
            "not divided by L1",
            lambda gradient_norm, l0, l1: l1 * _safe_rate(gradient_norm, l0, l1),
            "Your rate lacks the units of a rate: $e^{L_1 r}$ has been solved for $L_1 r$, not for $r$.",
        ),
        Misconception(
            "twice as long",
            lambda gradient_norm, l0, l1: 2 * _safe_rate(gradient_norm, l0, l1),
            "Your step is twice the best one. The bound is no parabola; its lowest point is not half way to its zero.",
        ),
        Misconception(
            "L0 and L1 swapped",
            lambda gradient_norm, l0, l1: _safe_rate(gradient_norm, l1, l0),
            "You have $L_0$ and $L_1$ the other way round. Which of the two multiplies the gradient?",
        ),
    ),
    alternatives=(_by_bisection, _with_ratio),
    hints=(
        "Differentiate the right-hand side of line 6 in $r$, and set the result to zero.",
        "The equation says what $e^{L_1 r}$ is. The logarithm gives the length $r$; what makes a rate of a length?",
    ),
    expected="`safe_rate(2.0, 1.0, 0.5)` is about 0.405.",
)

# 06.clip ------------------------------------------------------------------------------------------------------------


def _norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _mean(gradients):
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)


@jax.jit
def _clip(gradients, max_norm):
    """By the library: the step of clipped_sgd with rate 1, turned round."""
    mean = _mean(gradients)
    rule = ml.outer.clipped_sgd(1.0, max_norm)
    step, _ = rule.update(mean, rule.init(mean))
    return jax.tree.map(jnp.negative, step)


def _clip_by(length):
    """The mean gradient, clipped by a rule for its length."""

    def clip(gradients, max_norm):
        mean = _mean(gradients)
        return scaled(min(1.0, max_norm / length(mean)), mean)

    return clip


def _clip_each_task(gradients, max_norm):
    num_tasks = len(jax.tree.leaves(gradients)[0])
    clipped = []
    for i in range(num_tasks):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], gradients)
        clipped.append(scaled(min(1.0, max_norm / _norm(one)), one))
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *clipped)


def _gradients(rng, num_tasks, length, shapes):
    """Gradients of a batch of tasks whose mean has this length, with leaves of different size."""
    raw = {name: rng.normal(1.0, 1.0, (num_tasks, *shape)) * scale for name, (shape, scale) in shapes.items()}
    return scaled(length / _norm(_mean(raw)), raw)


_LAYERS = {"weight": ((3, 2), 1.0), "bias": ((2,), 2.0), "scale": ((), 0.5)}
_TWO = {"first": ((4,), 1.0), "second": ((2, 2), 1.5)}

CLIP = Exercise(
    id="06.clip",
    title="Clip the mean gradient",
    difficulty=1,
    minutes=8,
    reference=_clip,
    instances=lambda rng: [
        (_gradients(rng, 4, 5.0, _TWO), 2.0),
        (_gradients(rng, 3, 1.5, _LAYERS), 2.0),
        (_gradients(rng, 5, float(rng.uniform(4, 9)), _LAYERS), float(rng.uniform(1, 3))),
        (_gradients(rng, 2, 0.4, _TWO), 2.5),
    ],
    misconceptions=(
        Misconception(
            "each leaf alone",
            lambda gradients, max_norm: jax.tree.map(
                lambda leaf: min(1.0, max_norm / _norm(leaf)) * leaf, _mean(gradients)
            ),
            "You clip each leaf by its own length. That turns the gradient: long leaves lose more than short ones. One "
            "length is taken over all leaves together.",
        ),
        Misconception(
            "each entry",
            lambda gradients, max_norm: jax.tree.map(lambda leaf: np.clip(leaf, -max_norm, max_norm), _mean(gradients)),
            "You clip each entry to the range from $-c$ to $c$. That changes the direction, and the step may still be "
            "longer than $c$.",
        ),
        Misconception(
            "squared length",
            _clip_by(lambda mean: _norm(mean) ** 2),
            "You compare $c$ with the *squared* length. Where is the square root?",
        ),
        Misconception(
            "always normalised",
            lambda gradients, max_norm: scaled(max_norm / _norm(_mean(gradients)), _mean(gradients)),
            "Your gradient has the length $c$ always. That is normalising. What should happen to one that is shorter?",
        ),
        Misconception(
            "each task before the mean",
            _clip_each_task,
            "You clip the gradient of each task, and average then. A task with a large gradient loses weight, so the "
            "mean points elsewhere. Which of the two comes first in the text?",
        ),
        Misconception(
            "sum over tasks",
            lambda gradients, max_norm: _clip_by(_norm)(
                jax.tree.map(lambda leaf: leaf.sum(axis=0, keepdims=True), gradients), max_norm
            ),
            "You add the gradients of the tasks up. The limit $c$ is meant for their mean.",
        ),
        Misconception(
            "length of the whole batch",
            lambda gradients, max_norm: _mean(scaled(min(1.0, max_norm / _norm(gradients)), gradients)),
            "Your length is taken over the gradients of all tasks, stacked. The length of their mean counts.",
        ),
        Misconception(
            "lengths added up",
            _clip_by(lambda mean: sum(map(_norm, jax.tree.leaves(mean)))),
            "You add the lengths of the leaves. How do the lengths of parts combine to the length of the whole?",
        ),
        Misconception(
            "largest entry",
            _clip_by(lambda mean: max(np.abs(leaf).max() for leaf in jax.tree.leaves(mean))),
            "You compare $c$ with the largest entry. The length of the gradient is the root of a sum of squares.",
        ),
        Misconception(
            "short ones stretched",
            lambda gradients, max_norm: scaled(max(1.0, max_norm / _norm(_mean(gradients))), _mean(gradients)),
            "Short gradients are stretched, and long ones stay. Is it the smaller or the larger of the two numbers?",
        ),
        Misconception(
            "clipped to one",
            lambda gradients, max_norm: scaled(min(1.0, 1 / _norm(_mean(gradients))), _mean(gradients)),
            "You clip to the length 1. Where does $c$ enter?",
        ),
    ),
    alternatives=(
        _clip_by(_norm),
        lambda gradients, max_norm: optax.clip_by_global_norm(max_norm).update(
            jax.tree.map(jnp.asarray, _mean(gradients)), optax.EmptyState()
        )[0],
        lambda gradients, max_norm: scaled(max_norm / np.maximum(max_norm, _norm(_mean(gradients))), _mean(gradients)),
    ),
    hints=(
        "Three steps: the mean over tasks, leaf by leaf; one length over all leaves; one factor for all leaves.",
        "`jax.tree.leaves(mean)` is a list of arrays, or use `optax.tree.norm`. The factor is never above 1.",
    ),
    expected="A pytree whose leaves have lost their leading axis. Its length is at most `max_norm`.",
)

# 06.sngdm -----------------------------------------------------------------------------------------------------------


@jax.jit
def _sngdm(params, memory, gradients, rate, momentum):
    """By the library."""
    mean = _mean(gradients)
    rule = ml.outer.normalized_sgd_momentum(rate, momentum)
    state = optax.tree.set(rule.init(params), ema=memory)
    step, state = rule.update(mean, state, params)
    return optax.apply_updates(params, step), optax.tree.get(state, "ema")


def _unit(tree):
    return scaled(1 / _norm(tree), tree)


def _blend(old, new, momentum):
    return jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, old, new)


def _step(
    combine=_mean,
    remember=_blend,
    direction=_unit,
    result=lambda old, new: new,
    sign=1.0,
):
    """SNGDM from its four parts: over tasks, over time, what to step along, and what to hand on."""

    def sngdm(params, memory, gradients, rate, momentum):
        new = remember(memory, combine(gradients), momentum)
        return move(params, direction(new), sign * rate), result(memory, new)

    return sngdm


def _mean_of_units(gradients):
    """Each task's gradient normalised, then averaged."""
    ones = [jax.tree.map(lambda leaf, i=i: leaf[i], gradients) for i in range(len(jax.tree.leaves(gradients)[0]))]
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *map(_unit, ones))


def _without_memory(params, memory, gradients, rate, momentum):
    mean = _mean(gradients)
    return move(params, _unit(mean), rate), _blend(memory, mean, momentum)


def _with_old_memory(params, memory, gradients, rate, momentum):
    return move(params, _unit(memory), rate), _blend(memory, _mean(gradients), momentum)


def _with_ravel(params, memory, gradients, rate, momentum):
    """An alternative: on flat vectors."""
    theta, unravel = jax.flatten_util.ravel_pytree(params)
    old = jax.flatten_util.ravel_pytree(memory)[0]
    new = old + (1 - momentum) * (jax.flatten_util.ravel_pytree(_mean(gradients))[0] - old)
    return unravel(theta - rate * new / jnp.linalg.norm(new)), unravel(new)


def _sngdm_instance(rng, num_tasks, shapes, rate, momentum, small):
    draw = {name: rng.normal(0, 1, shape) for name, (shape, _) in shapes.items()}
    memory = _gradients(rng, 1, 1.0, shapes)
    size = small if small else float(rng.uniform(2, 20))
    return (
        draw,
        scaled(rng.uniform(1, 2), _mean(memory)),
        _gradients(rng, num_tasks, size, shapes),
        rate,
        momentum,
    )


SNGDM = Exercise(
    id="06.sngdm",
    title="The normalised step with momentum, in the right order",
    difficulty=2,
    minutes=10,
    reference=_sngdm,
    instances=lambda rng: [
        _sngdm_instance(rng, 4, _TWO, 0.3, 0.9, None),
        _sngdm_instance(rng, 3, _LAYERS, float(rng.uniform(0.1, 2)), float(rng.uniform(0.6, 0.9)), None),
        _sngdm_instance(rng, 5, _LAYERS, float(rng.uniform(0.1, 2)), float(rng.uniform(0.2, 0.4)), 0.1),
    ],
    misconceptions=(
        Misconception(
            "normalise, then average",
            _step(combine=lambda gradients: _unit(_mean(gradients)), direction=lambda new: new),
            "You normalise the gradient, and average over time then. Each noisy gradient gets the same weight, however "
            "small it is: this is the order that rests at the wrong point.",
        ),
        Misconception(
            "normalise twice",
            _step(combine=lambda gradients: _unit(_mean(gradients))),
            "Your memory averages gradients of length 1. The step has the right length, but not the right direction. "
            "What should be averaged?",
        ),
        Misconception(
            "normalise each task",
            _step(combine=_mean_of_units),
            "You normalise the gradient of each task before the mean over tasks. That is a vote of the tasks, not "
            "their mean loss.",
        ),
        Misconception(
            "each leaf alone",
            _step(direction=lambda new: jax.tree.map(lambda leaf: leaf / _norm(leaf), new)),
            "You normalise each leaf by its own length. The step is longer than the rate, and it points elsewhere.",
        ),
        Misconception(
            "sum over tasks",
            _step(combine=lambda gradients: jax.tree.map(lambda leaf: leaf.sum(axis=0), gradients)),
            "You add the gradients of the tasks up. The memory averages their mean.",
        ),
        Misconception(
            "momentum swapped",
            _step(remember=lambda old, new, momentum: _blend(old, new, 1 - momentum)),
            "You have $b$ and $1 - b$ the other way round. With $b$ near one, does the memory change fast or slowly?",
        ),
        Misconception(
            "a sum instead of an average",
            _step(remember=lambda old, new, momentum: jax.tree.map(lambda m, g: momentum * m + g, old, new)),
            "Your memory is $b\\,m + g$, as in heavy-ball momentum. An average gives the new gradient a weight too.",
        ),
        Misconception(
            "not normalised",
            _step(direction=lambda new: new),
            "You step along the memory itself. How long is your step when the memory is long?",
        ),
        Misconception(
            "squared length",
            _step(direction=lambda new: scaled(1 / _norm(new) ** 2, new)),
            "You divide by the *squared* length: the shorter the memory, the longer your step.",
        ),
        Misconception(
            "memory of unit length",
            _step(result=lambda old, new: _unit(new)),
            "Your step is right, but you hand on the normalised memory. The next gradient is then averaged with a "
            "vector of length 1.",
        ),
        Misconception(
            "old memory handed on",
            _step(result=lambda old, new: old),
            "Your step is right, but you hand on the *old* memory: nothing is ever remembered.",
        ),
        Misconception(
            "steps along the gradient",
            _without_memory,
            "You step along the gradient of this batch. The memory is kept, and never used.",
        ),
        Misconception(
            "one step late",
            _with_old_memory,
            "You step along the memory as it was *before* this gradient. Update it first.",
        ),
        Misconception(
            "uphill",
            _step(sign=-1.0),
            "You step uphill. Look at the sign.",
        ),
    ),
    alternatives=(_step(), _with_ravel),
    hints=(
        "Four steps, in this order: mean over tasks, average with the memory, normalise, step.",
        "The length is taken once, over all leaves of the *new* memory: `optax.tree.norm`. What you hand on is the "
        "memory before it is normalised.",
    ),
    expected="A pair of pytrees like `params`. The new params are at the distance `rate` from the old ones.",
)

EXERCISES = (CURVATURE, SAFE_RATE, CLIP, SNGDM)

QUIZ = (
    Question(
        "The task losses have curvatures between 0.1 and 1.9 and third derivatives of at most 0.9, and the inner "
        "step is $\\alpha = 0.3$. What is true of the curvature of the MAML objective?",
        (
            "It lies between 0.1 and 1.9 too",
            "It is at most a constant, whatever the start",
            "It can grow without limit, but not faster than the gradient",
            "It can grow without limit, and faster than any multiple of the gradient",
        ),
        2,
        (
            "The first term is about that. The second holds $h'''$ times the query slope.",
            "Look at the table of the first section: does the curvature stop growing?",
            "Yes: the term that grows is a multiple of the slope after adaptation, at most a multiple of $F'$.",
            "Line 4 bounds it by a multiple of the gradient, plus a constant.",
        ),
    ),
    Question(
        "Nine of ten tasks have their minimum at 0, one has it at 10, and each step sees one task. Where does a start "
        "rest that follows each normalised gradient with a small rate?",
        ("near 0", "near 1", "near 5", "near 10"),
        0,
        (
            "Yes: each task has one vote, however far it is, so the start goes to the median.",
            "That is the mean, where averaging before normalising leads.",
            "Half way would need as many tasks on either side.",
            "One task in ten is outvoted.",
        ),
    ),
    Question(
        "With normalised steps of constant length 0.1 the start keeps stepping over the solution. What does NOT help?",
        (
            "a schedule that lets the rate fall",
            "clipping instead of normalising",
            "taking more steps",
            "a smaller rate",
        ),
        2,
        (
            "It does help: the circle shrinks with the rate.",
            "It does help: near the solution the gradient is short, and a clipped step is a plain one.",
            "Right: each step has the same length, so the start keeps circling.",
            "It does help, though the way there takes longer.",
        ),
    ),
)


def opening() -> str:
    """The picture of the claim: the curvature of a meta-objective grows with its gradient."""
    step_size, smoothness, third = 0.25, 2.0, 1.0  # α, and the largest second and third derivative of h
    theta = np.linspace(-60.0, 60.0, 6001)
    offset = theta - step_size * (theta - np.sin(theta)) - 1  # h(φ) = φ²/2 + cos φ and f(φ) = (φ - 1)² / 2
    factor = 1 - step_size * (1 - np.cos(theta))
    gradient, curvature = np.abs(factor * offset), np.abs(factor**2 - step_size * np.sin(theta) * offset)
    slope = step_size * third / (1 - step_size * smoothness)
    norms = np.linspace(0, gradient.max(), 50)
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    axes.plot(gradient[::12], curvature[::12], ".", color=plots.PALETTE["blue"], markersize=3)
    axes.plot(norms, 1 + slope * norms, color=plots.PALETTE["orange"], label="L₀ + L₁‖∇F‖")
    axes.set(xlim=(0, 30), ylim=(-0.5, 16))  # beyond, θ would have to be larger than those drawn
    plots.label(axes, "‖∇F‖", "curvature |∇²F|")
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.clipped_steps(),
        ("The curvature grows with the gradient", "So plain steps must be tiny, clipped ones need not"),
        ("One task, one inner step; a dot is one initialization.", "One learning rate η, with and without clipping."),
        "Left: curvature of a meta-objective against the norm of its gradient; all lie below a bound that "
        "grows in proportion to it. "
        "Right: from a steep wall a plain gradient step lands on the opposite wall, a clipped step in the valley.",
    )
