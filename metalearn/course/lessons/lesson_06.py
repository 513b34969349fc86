"""Lesson 06, gradient clipping: its exercises, predictions, quiz and figures."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.tree import scale as scaled

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import mean_of, move, unstack
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
def _once(support, query, initialization, learning_rate):
    """The meta-gradient."""
    return jax.grad(lambda x: query(x - learning_rate * jax.grad(support)(x)))(initialization)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _twice(support, query, initialization, learning_rate):
    """By differentiating the whole function twice."""
    return jax.grad(lambda x: _once(support, query, x, learning_rate))(initialization)


def _curvature(formula):
    """F'' from a formula: (factor, f1, f2, h3, learning_rate, adapted, initialization) -> number; f1, f2 functions."""

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def curvature(support, query, initialization, learning_rate):
        h1, f1 = jax.grad(support), jax.grad(query)
        h2 = jax.grad(h1)
        adapted = initialization - learning_rate * h1(initialization)
        factor = 1 - learning_rate * h2(initialization)
        h3 = jax.grad(h2)(initialization)
        return formula(factor, f1, jax.grad(f1), h3, learning_rate, adapted, initialization)

    return curvature


@functools.partial(jax.jit, static_argnums=(0, 1))
def _third_of_the_query(support, query, initialization, learning_rate):
    adapted = initialization - learning_rate * jax.grad(support)(initialization)
    factor = 1 - learning_rate * jax.grad(jax.grad(support))(initialization)
    f1 = jax.grad(query)
    f2 = jax.grad(f1)
    return factor**2 * f2(adapted) - learning_rate * jax.grad(f2)(initialization) * f1(adapted)


CURVATURE = Exercise(
    id="06.curvature",
    title="Line 2: differentiate the meta-gradient",
    difficulty=2,
    minutes=10,
    reference=_twice,
    instances=lambda rng: [
        (_wavy, _wavy, float(rng.uniform(3, 9)), 0.3),
        (_bent, _steep, float(rng.uniform(0.5, 2)), float(rng.uniform(0.3, 0.6))),
        (_quartic, _wavy, float(rng.uniform(-3, -1.5)), float(rng.uniform(0.1, 0.3))),
        (_steep, _quartic, float(rng.uniform(1, 2)), float(rng.uniform(0.1, 0.3))),
        (_steep, _wavy, float(rng.uniform(-2, -1)), 0.0),
        (_steep, _wavy, float(rng.uniform(2.6, 2.9)), 0.3),
    ],
    misconceptions=(
        Misconception(
            "curvature at the adapted parameter",
            _curvature(lambda j, f1, f2, h3, a, y, x: f2(y)),
            "Your result equals $f''(\\varphi_1)$, the curvature of the query loss at the adapted parameter. That "
            "would be $F''$ if $\\varphi_1$ moved exactly as much as θ does. Where does the factor $1 - \\alpha "
            "h''(\\theta)$ of line 1 enter?",
        ),
        Misconception(
            "third derivative missing",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y)),
            "Your result equals one of two terms, the one in which the derivative acts on $f'(\\varphi_1)$. Line 1 is "
            "a *product*, and its other factor depends on θ too.",
        ),
        Misconception(
            "one factor",
            _curvature(lambda j, f1, f2, h3, a, y, x: j * f2(y) - a * h3 * f1(y)),
            "Your term with $f''(\\varphi_1)$ has one factor $1 - \\alpha h''(\\theta)$, and that one stands in line 1 "
            "already. What does the chain rule add when $f'(\\varphi_1)$ is differentiated with respect to θ?",
        ),
        Misconception(
            "plus",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) + a * h3 * f1(y)),
            "Your result has both terms, but the one with $h'''$ has the other sign. What is the derivative of "
            "$1 - \\alpha h''(\\theta)$?",
        ),
        Misconception(
            "no learning rate",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - h3 * f1(y)),
            "Your term with $h'''$ lacks the inner learning rate. What is the derivative of "
            "$1 - \\alpha h''(\\theta)$?",
        ),
        Misconception(
            "query gradient at the initialization",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * f1(x)),
            "Your result is what the query gradient at the initialization θ gives in the term with $h'''$. Where does "
            "line 1 take it?",
        ),
        Misconception(
            "query curvature at the initialization",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(x) - a * h3 * f1(y)),
            "Your result is what $f''$ at the initialization θ gives. Line 1 takes the query gradient at "
            "$\\varphi_1$, so its derivative is taken there too.",
        ),
        Misconception(
            "factor on both terms",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * j * f1(y)),
            "In your result the term with $h'''$ still holds a factor $1 - \\alpha h''(\\theta)$. In this term it is "
            "that factor that was differentiated. Is anything of it left?",
        ),
        Misconception(
            "third derivative of the query loss",
            _third_of_the_query,
            "Your result is what the third derivative of the *query* loss gives in the second term. Which loss did the "
            "inner step descend?",
        ),
        Misconception(
            "support and query swapped",
            lambda support, query, initialization, learning_rate: _twice(query, support, initialization, learning_rate),
            "Your result is right for a task that adapts to the query loss and is scored on the support loss. Which of "
            "the two losses may adaptation see?",
        ),
        Misconception(
            "ascent",
            lambda support, query, initialization, learning_rate: _twice(
                support, query, initialization, -learning_rate
            ),
            "Your result is right for an inner step that goes *up* the support loss. Look at the sign in $\\varphi_1$.",
        ),
        Misconception(
            "first derivative",
            _once,
            "Your result equals $F'(\\theta)$, the meta-gradient of line 1. The exercise asks for its derivative.",
        ),
    ),
    relatives=(
        (
            "what a factor 1 + αh″ gives in the first term",
            _curvature(lambda j, f1, f2, h3, a, y, x: (2 - j) ** 2 * f2(y) - a * h3 * f1(y)),
        ),
        (
            "what both query derivatives give at the initialization",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(x) - a * h3 * f1(x)),
        ),
        (
            "what the third derivative gives at the adapted parameter",
            lambda support, query, initialization, learning_rate: _curvature(
                lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * jax.grad(jax.grad(jax.grad(support)))(y) * f1(y)
            )(support, query, initialization, learning_rate),
        ),
        (
            "what the third derivative of the query loss gives, at the adapted parameter",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * jax.grad(f2)(y) * f1(y)),
        ),
        (
            "what the support curvature gives in the second term, where its derivative belongs",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - (1 - j) * f1(y)),
        ),
        (
            "what the support gradient gives in the factor, where the curvature belongs",
            lambda support, query, initialization, learning_rate: _curvature(
                lambda j, f1, f2, h3, a, y, x: (1 - a * jax.grad(support)(x)) ** 2 * f2(y) - a * h3 * f1(y)
            )(support, query, initialization, learning_rate),
        ),
        (
            "what the factor gives with the curvature at the adapted parameter",
            lambda support, query, initialization, learning_rate: _curvature(
                lambda j, f1, f2, h3, a, y, x: (1 - a * jax.grad(jax.grad(support))(y)) ** 2 * f2(y) - a * h3 * f1(y)
            )(support, query, initialization, learning_rate),
        ),
        (
            "the meta-objective itself",
            lambda support, query, initialization, learning_rate: query(
                initialization - learning_rate * jax.grad(support)(initialization)
            ),
        ),
        ("the curvature of the query loss at the initialization", _curvature(lambda j, f1, f2, h3, a, y, x: f2(x))),
        ("the term with the third derivative alone", _curvature(lambda j, f1, f2, h3, a, y, x: -a * h3 * f1(y))),
        (
            "what the term with the third derivative gives twice",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - 2 * a * h3 * f1(y)),
        ),
        (
            "what the third derivative gives multiplied by the support gradient",
            lambda support, query, initialization, learning_rate: _curvature(
                lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * jax.grad(support)(x)
            )(support, query, initialization, learning_rate),
        ),
        ("the derivative of the first-order meta-gradient", _curvature(lambda j, f1, f2, h3, a, y, x: j * f2(y))),
        (
            "what α² gives in the term with the third derivative",
            _curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a**2 * h3 * f1(y)),
        ),
    ),
    alternatives=(_curvature(lambda j, f1, f2, h3, a, y, x: j**2 * f2(y) - a * h3 * f1(y)),),
    hints=(
        "Line 1 is a product of two functions of θ, so you need the product rule. One of the two factors needs the "
        "chain rule as well.",
        "You need $h'$, $h''$ and $h'''$ at θ, and $f'$ and $f''$ at $\\varphi_1$. In code, "
        "`jax.grad(jax.grad(support))` is $h''$.",
    ),
    expected="One number. For the loss above, with $\\alpha = 0.3$, its absolute value stays below 2.1 while "
    "$|\\theta| \\le 5$.",
)

# 06.clip ------------------------------------------------------------------------------------------------------------


def _norm(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _mean(gradients):
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)


def _over(number, norm):
    """number / norm, as an array divides: infinite for a norm of zero."""
    return number / norm if norm else math.inf


@jax.jit
def _clip(gradients, max_norm):
    """By the library: the step of clipped_sgd with learning rate 1, its sign changed."""
    mean = _mean(gradients)
    optimizer = ml.outer.clipped_sgd(1.0, max_norm)
    step, _ = optimizer.update(mean, optimizer.init(mean))
    return jax.tree.map(jnp.negative, step)


def _clip_by(norm):
    """The mean gradient, clipped by something taken for its norm."""

    def clip(gradients, max_norm):
        mean = _mean(gradients)
        return scaled(min(1.0, _over(max_norm, norm(mean))), mean)

    return clip


def _scaled_by(factor):
    """The mean gradient times some factor, (norm, c) -> number; zero stays zero."""

    def clip(gradients, max_norm):
        mean = _mean(gradients)
        norm = _norm(mean)
        return scaled(factor(norm, max_norm) if norm else 1.0, mean)

    return clip


def _clip_each_task(gradients, max_norm):
    clipped = [scaled(min(1.0, _over(max_norm, _norm(one))), one) for one in unstack(gradients)]
    return mean_of(clipped)


def _normalize(gradients, max_norm):
    mean = _mean(gradients)
    norm = _norm(mean)
    return scaled(max_norm / norm if norm else math.nan, mean)


def _gradients(rng, num_tasks, norm, shapes):
    """Gradients of a batch of tasks whose mean has this norm, with leaves of different size."""
    raw = {name: rng.normal(1.0, 1.0, (num_tasks, *shape)) * scale for name, (shape, scale) in shapes.items()}
    return scaled(norm / _norm(_mean(raw)), raw)


def _cancelling(rng):
    """Two tasks whose gradients add up to zero, in nested tuples."""
    one = (rng.normal(0, 3, (2,)), {"inner": (rng.normal(0, 3, (3, 1)),)})
    return jax.tree.map(lambda leaf: np.stack([leaf, -leaf]), one)


_LAYERS = {"weight": ((3, 2), 1.0), "bias": ((2,), 2.0), "scale": ((), 0.5)}
_TWO = {"first": ((4,), 1.0), "second": ((2, 2), 1.5)}


def _unit_or_nan(tree):
    norm = _norm(tree)
    return scaled(1 / norm if norm else math.nan, tree)


CLIP = Exercise(
    id="06.clip",
    title="Clip the mean meta-gradient",
    difficulty=1,
    minutes=8,
    reference=_clip,
    instances=lambda rng: [
        (_gradients(rng, 4, 5.0, _TWO), 2.0),
        (_gradients(rng, 3, 1.5, _LAYERS), 2.0),
        (_gradients(rng, 5, float(rng.uniform(4, 9)), _LAYERS), float(rng.uniform(1.2, 3))),
        (_gradients(rng, 2, 0.4, _TWO), 2.5),
        (_gradients(rng, 1, 3.0, _LAYERS), 0.5),
        (_cancelling(rng), 2.0),
    ],
    misconceptions=(
        Misconception(
            "each leaf alone",
            lambda gradients, max_norm: jax.tree.map(
                lambda leaf: min(1.0, _over(max_norm, _norm(leaf))) * leaf, _mean(gradients)
            ),
            "Your result is what one gets by clipping each leaf by its own norm. That turns the gradient, because "
            "large leaves are shortened and small ones are not. Take one norm over all leaves together.",
        ),
        Misconception(
            "each entry",
            lambda gradients, max_norm: jax.tree.map(lambda leaf: np.clip(leaf, -max_norm, max_norm), _mean(gradients)),
            "Your result is what one gets by clipping each entry to the range from $-c$ to $c$. That changes the "
            "direction, and the norm may still exceed $c$.",
        ),
        Misconception(
            "squared norm",
            _clip_by(lambda mean: _norm(mean) ** 2),
            "Your result is what one gets by comparing $c$ with the *squared* norm. Is a square root missing?",
        ),
        Misconception(
            "always normalized",
            _normalize,
            "Your result always has norm $c$, which is normalizing. What should happen to a gradient whose norm is "
            "smaller than $c$, or zero?",
        ),
        Misconception(
            "each task before the mean",
            _clip_each_task,
            "Your result is what one gets by clipping the gradient of each task and averaging afterwards. A task with "
            "a large gradient then loses weight, so the mean points elsewhere. Which of the two comes first?",
        ),
        Misconception(
            "sum over tasks",
            lambda gradients, max_norm: _clip_by(_norm)(
                jax.tree.map(lambda leaf: leaf.sum(axis=0, keepdims=True), gradients), max_norm
            ),
            "Your result is what one gets by adding up the gradients of the tasks and clipping the sum. The bound $c$ "
            "is meant for their mean.",
        ),
        Misconception(
            "norm of the whole batch",
            lambda gradients, max_norm: _mean(scaled(min(1.0, _over(max_norm, _norm(gradients))), gradients)),
            "Your norm seems to be taken over the gradients of all tasks, stacked. The norm of their mean counts.",
        ),
        Misconception(
            "norms added up",
            _clip_by(lambda mean: sum(map(_norm, jax.tree.leaves(mean)))),
            "Your result is what one gets by adding up the norms of the leaves. How do the norms of parts combine to "
            "the norm of the whole?",
        ),
        Misconception(
            "largest entry",
            _clip_by(lambda mean: max(np.abs(leaf).max() for leaf in jax.tree.leaves(mean))),
            "Your result is what one gets by comparing $c$ with the largest entry. The norm is the root of a sum of "
            "squares.",
        ),
        Misconception(
            "small ones enlarged",
            lambda gradients, max_norm: scaled(
                max(1.0, _over(max_norm, _norm(_mean(gradients)))) if _norm(_mean(gradients)) else math.nan,
                _mean(gradients),
            ),
            "Your result is what one gets by enlarging small gradients and leaving large ones as they are. Is it the "
            "smaller or the larger of the two numbers?",
        ),
        Misconception(
            "clipped to one",
            lambda gradients, max_norm: scaled(min(1.0, _over(1, _norm(_mean(gradients)))), _mean(gradients)),
            "Your result is clipped to norm 1. Where does $c$ enter?",
        ),
        Misconception(
            "not clipped",
            lambda gradients, max_norm: _mean(gradients),
            "Your result equals the mean over tasks, not clipped. What happens to it when its norm exceeds $c$?",
        ),
        Misconception(
            "first task",
            lambda gradients, max_norm: scaled(
                min(1.0, _over(max_norm, _norm(unstack(gradients)[0]))), unstack(gradients)[0]
            ),
            "Your result is the clipped gradient of the first task alone. Average over the leading axis first.",
        ),
    ),
    relatives=(
        ("the mean brought to norm c, whether it was longer or shorter", _scaled_by(lambda norm, c: c / norm)),
        ("what the larger of 1 and c / norm gives as the factor", _scaled_by(lambda norm, c: max(1.0, c / norm))),
        (
            "what the mean of the tasks' norms gives in place of the norm of their mean",
            lambda gradients, max_norm: _clip_by(lambda mean: np.mean([_norm(one) for one in unstack(gradients)]))(
                gradients, max_norm
            ),
        ),
        (
            "what the sum of absolute values gives in place of the norm",
            _clip_by(lambda mean: sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(mean))),
        ),
        (
            "what norm / c gives as the factor, where c / norm belongs",
            lambda gradients, max_norm: scaled(min(1.0, _norm(_mean(gradients)) / max_norm), _mean(gradients)),
        ),
        ("the mean divided by its norm, whatever c", lambda gradients, max_norm: _unit_or_nan(_mean(gradients))),
        (
            "the mean times the smaller of c and 1 / norm",
            lambda gradients, max_norm: scaled(min(max_norm, _over(1, _norm(_mean(gradients)))), _mean(gradients)),
        ),
        (
            "what the median over tasks gives, clipped",
            lambda gradients, max_norm: (lambda median: scaled(min(1.0, _over(max_norm, _norm(median))), median))(
                jax.tree.map(lambda leaf: np.median(leaf, axis=0), gradients)
            ),
        ),
        (
            "what the largest norm of an array gives in place of the norm of all numbers",
            _clip_by(lambda mean: max(map(_norm, jax.tree.leaves(mean)))),
        ),
        (
            "zero wherever the norm is below c",
            lambda gradients, max_norm: (
                lambda mean: scaled(max_norm / _norm(mean) if _norm(mean) > max_norm else 0.0, mean)
            )(_mean(gradients)),
        ),
        (
            "what a number added to the norm gives: clipped means fall short of c",
            _clip_by(lambda mean: _norm(mean) + 1e-2),
        ),
        (
            "what the mean over all axes gives, clipped",
            lambda gradients, max_norm: (lambda mean: scaled(min(1.0, _over(max_norm, _norm(mean))), mean))(
                jax.tree.map(np.mean, gradients)
            ),
        ),
        (
            "what a mean over the last axis gives, clipped",
            lambda gradients, max_norm: (lambda mean: scaled(min(1.0, _over(max_norm, _norm(mean))), mean))(
                jax.tree.map(lambda leaf: leaf.mean(axis=-1), gradients)
            ),
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
        "Three steps: the mean over tasks, leaf by leaf; one norm over all leaves; one factor for all leaves.",
        "`jax.tree.leaves(mean)` is a list of arrays, and `optax.tree.norm(mean)` is their common norm. The factor is "
        "never above 1.",
    ),
    expected="A pytree whose leaves have lost their leading axis. Its norm is at most `max_norm`.",
)

# 06.sngdm -----------------------------------------------------------------------------------------------------------


@jax.jit
def _sngdm(params, memory, gradients, learning_rate, momentum):
    """By the library."""
    mean = _mean(gradients)
    optimizer = ml.outer.normalized_sgd_momentum(learning_rate, momentum)
    state = optax.tree.set(optimizer.init(params), ema=memory)
    step, state = optimizer.update(mean, state, params)
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

    def sngdm(params, memory, gradients, learning_rate, momentum):
        new = remember(memory, combine(gradients), momentum)
        return move(params, direction(new), sign * learning_rate), result(memory, new)

    return sngdm


def _mean_of_units(gradients):
    """Each task's gradient normalized, then averaged."""
    return mean_of([_unit(one) for one in unstack(gradients)])


def _without_memory(params, memory, gradients, learning_rate, momentum):
    mean = _mean(gradients)
    return move(params, _unit(mean), learning_rate), _blend(memory, mean, momentum)


def _with_old_memory(params, memory, gradients, learning_rate, momentum):
    return move(params, _unit(memory), learning_rate), _blend(memory, _mean(gradients), momentum)


def _with_ravel(params, memory, gradients, learning_rate, momentum):
    """An alternative: on flat vectors."""
    theta, unravel = jax.flatten_util.ravel_pytree(params)
    old = jax.flatten_util.ravel_pytree(memory)[0]
    new = old + (1 - momentum) * (jax.flatten_util.ravel_pytree(_mean(gradients))[0] - old)
    return unravel(theta - learning_rate * new / jnp.linalg.norm(new)), unravel(new)


def _sngdm_instance(rng, num_tasks, shapes, learning_rate, momentum, norm, nested=False):
    params = {name: rng.normal(0, 1, shape) for name, (shape, _) in shapes.items()}
    memory = scaled(rng.uniform(1, 2), _mean(_gradients(rng, 1, 1.0, shapes)))
    trees = (params, memory, _gradients(rng, num_tasks, norm, shapes))
    if nested:
        trees = tuple((tree["first"], (tree["second"],)) for tree in trees)
    return (*trees, learning_rate, momentum)


SNGDM = Exercise(
    id="06.sngdm",
    title="A normalized step with momentum",
    difficulty=2,
    minutes=10,
    reference=_sngdm,
    instances=lambda rng: [
        _sngdm_instance(rng, 4, _TWO, 0.3, 0.9, float(rng.uniform(2, 20))),
        _sngdm_instance(
            rng, 3, _LAYERS, float(rng.uniform(0.1, 0.8)), float(rng.uniform(0.6, 0.9)), float(rng.uniform(2, 20))
        ),
        _sngdm_instance(rng, 5, _LAYERS, float(rng.uniform(0.1, 0.8)), float(rng.uniform(0.2, 0.4)), 0.1),
        _sngdm_instance(rng, 2, _TWO, 1.5, 0.7, 3.0, nested=True),
        _sngdm_instance(rng, 4, _LAYERS, 0.4, 0.0, float(rng.uniform(2, 20))),
        _sngdm_instance(rng, 1, _LAYERS, 0.2, 0.5, float(rng.uniform(2, 20))),
    ],
    misconceptions=(
        Misconception(
            "normalize, then average",
            _step(combine=lambda gradients: _unit(_mean(gradients)), direction=lambda new: new),
            "Your step equals an average over time of normalized gradients. Each noisy gradient then has the same "
            "weight, however small it is, and θ settles at the median of the minima.",
        ),
        Misconception(
            "normalize twice",
            _step(combine=lambda gradients: _unit(_mean(gradients))),
            "Your step has the right length, but your memory seems to average gradients of norm 1. What should be "
            "averaged?",
        ),
        Misconception(
            "normalize each task",
            _step(combine=_mean_of_units),
            "Your result is what one gets by normalizing the gradient of each task before the mean over tasks. That is "
            "a vote among tasks, not the gradient of their mean loss.",
        ),
        Misconception(
            "each leaf alone",
            _step(direction=lambda new: jax.tree.map(lambda leaf: leaf / _norm(leaf), new)),
            "Your result is what one gets by normalizing each leaf by its own norm. The step is then longer than the "
            "learning rate, and it points elsewhere.",
        ),
        Misconception(
            "sum over tasks",
            _step(combine=lambda gradients: jax.tree.map(lambda leaf: leaf.sum(axis=0), gradients)),
            "Your memory seems to hold the sum of the gradients of the tasks. It should average their mean.",
        ),
        Misconception(
            "momentum swapped",
            _step(remember=lambda old, new, momentum: _blend(old, new, 1 - momentum)),
            "Your result has β and $1 - \\beta$ the other way round. With β near one, does the memory change fast or "
            "slowly?",
        ),
        Misconception(
            "a sum instead of an average",
            _step(remember=lambda old, new, momentum: jax.tree.map(lambda m, g: momentum * m + g, old, new)),
            "Your memory equals $\\beta m + \\bar g$, as in heavy-ball momentum. An average gives the new gradient a "
            "weight too.",
        ),
        Misconception(
            "not normalized",
            _step(direction=lambda new: new),
            "Your step is along the memory itself. How long is it when the norm of the memory is large?",
        ),
        Misconception(
            "squared norm",
            _step(direction=lambda new: scaled(1 / _norm(new) ** 2, new)),
            "Your result is what one gets by dividing by the *squared* norm: the smaller the memory, the longer the "
            "step.",
        ),
        Misconception(
            "memory of norm one",
            _step(result=lambda old, new: _unit(new)),
            "Your step is right, but you hand on the normalized memory. The next gradient would be averaged with a "
            "vector of norm 1.",
        ),
        Misconception(
            "old memory handed on",
            _step(result=lambda old, new: old),
            "Your step is right, but you hand on the *old* memory, so nothing is ever remembered.",
        ),
        Misconception(
            "step along the gradient",
            _without_memory,
            "Your step is along the mean gradient of this batch. The memory is updated, but is it used?",
        ),
        Misconception(
            "one step late",
            _with_old_memory,
            "Your step is along the memory as it was *before* this gradient. Which comes first, the update of the "
            "memory or the step?",
        ),
        Misconception(
            "ascent",
            _step(sign=-1.0),
            "Your step has the right length but goes uphill. Look at the sign.",
        ),
    ),
    relatives=(
        (
            "the right memory, with a step divided by the norm of the mean gradient",
            lambda params, memory, gradients, learning_rate, momentum: _step(
                direction=lambda new: scaled(1 / _norm(_mean(gradients)), new)
            )(params, memory, gradients, learning_rate, momentum),
        ),
        (
            "the right memory, with a step that is clipped to norm 1, where it should have norm 1",
            _step(direction=lambda new: scaled(min(1.0, 1 / _norm(new)), new)),
        ),
        (
            "the right memory, with a step along the mean gradient, divided by the memory's norm",
            lambda params, memory, gradients, learning_rate, momentum: _step(
                direction=lambda new: scaled(1 / _norm(new), _mean(gradients))
            )(params, memory, gradients, learning_rate, momentum),
        ),
        (
            "the right memory, with the change of the parameters in place of the new parameters",
            lambda params, *args: (
                jax.tree.map(np.subtract, _step()(params, *args)[0], params),
                _step()(params, *args)[1],
            ),
        ),
        (
            "what gradients give that have norm 1 for each task, and a memory that is not normalized",
            _step(combine=_mean_of_units, direction=lambda new: new),
        ),
    ),
    alternatives=(_step(), _with_ravel),
    hints=(
        "Four steps, in this order: mean over tasks, average with the memory, normalize, step.",
        "The norm is taken once, over all leaves of the *new* memory: `optax.tree.norm`. What you hand on is the "
        "memory before it is normalized.",
    ),
    expected="A pair of pytrees like `params`. The distance from the old parameters to the new ones is "
    "`learning_rate`.",
)

# 06.control ---------------------------------------------------------------------------------------------------------


def _controls_from(
    first=lambda plain, clipped, norm: scaled(norm(clipped) / norm(plain), plain), second=None, norm=_norm
):
    """The steps of two control runs: each from (plain, clipped, norm). The second one is the first, roles exchanged."""

    def controls(plain, clipped):
        other = second or (lambda plain, clipped, norm: first(clipped, plain, norm))
        return first(plain, clipped, norm), other(plain, clipped, norm)

    return controls


exchanged = _controls_from(norm=optax.tree.norm)


def _by_each(function):
    """Controls that are made number by number."""
    return _controls_from(lambda plain, clipped, norm: jax.tree.map(function, plain, clipped))


def _with_flat_vectors(plain, clipped):
    """An alternative."""
    (one, unravel), (other, _) = map(jax.flatten_util.ravel_pytree, (plain, clipped))
    ratio = jnp.sqrt(jnp.vdot(other, other) / jnp.vdot(one, one))
    return unravel(ratio * one), unravel(other / ratio)


def _units_first(plain, clipped):
    """An alternative: directions of norm 1, then the lengths."""
    directions = [scaled(1 / optax.tree.norm(step), step) for step in (plain, clipped)]
    return scaled(_norm(clipped), directions[0]), scaled(_norm(plain), directions[1])


def _steps(rng, shapes, length, clipped_length, nested=False):
    """Two steps with these norms."""
    pair = []
    for norm in (length, clipped_length):
        step = {name: rng.normal(0.3, scale, shape) for name, (shape, scale) in shapes.items()}
        step = scaled(norm / _norm(step), step)
        pair.append((step["first"], [step["second"]]) if nested else step)
    return tuple(pair)


def _root_mean_square_of_each(tree):
    return sum(np.sqrt(np.mean(np.square(leaf))) for leaf in jax.tree.leaves(tree))


CONTROL = Exercise(
    id="06.control",
    title="Design the control: other lengths, or other directions?",
    difficulty=2,
    minutes=10,
    reference=exchanged,
    instances=lambda rng: [
        _steps(rng, _TWO, 0.5, float(rng.uniform(1.5, 4))),
        _steps(rng, _LAYERS, float(rng.uniform(3, 6)), float(rng.uniform(0.2, 0.6))),
        _steps(rng, _TWO, float(rng.uniform(0.02, 0.05)), float(rng.uniform(0.3, 0.6)), nested=True),
        _steps(rng, _LAYERS, 1.0, float(rng.uniform(0.3, 0.7))),
    ],
    misconceptions=(
        Misconception(
            "changed places",
            lambda plain, clipped: exchanged(plain, clipped)[::-1],
            "Your two steps have changed places. The first one should keep the direction of `plain`, the second one "
            "its length.",
        ),
        Misconception(
            "nothing exchanged",
            lambda plain, clipped: (plain, clipped),
            "You return the two steps as they are. Each control should differ from the unclipped run in *one* respect; "
            "`clipped` differs from it in two, and `plain` in none.",
        ),
        Misconception(
            "clipped run as the second control",
            _controls_from(second=lambda plain, clipped, norm: clipped),
            "Your first step is right, and your second one is that of the clipped run itself. It differs from the "
            "unclipped run in two respects, so it cannot tell which of them helps. Which length should it have?",
        ),
        Misconception(
            "only shortened",
            _controls_from(lambda plain, clipped, norm: scaled(min(1.0, norm(clipped) / norm(plain)), plain)),
            "Your result is what one gets by shortening a step that is longer than the other one and leaving a shorter "
            "one as it is. With Adam the step after clipping may well be the longer one.",
        ),
        Misconception(
            "ratio turned round",
            _controls_from(lambda plain, clipped, norm: scaled(norm(plain) / norm(clipped), plain)),
            "Your result is what the ratio of the two lengths gives when it is turned round. If the other step is "
            "shorter, should the factor be above or below 1?",
        ),
        Misconception(
            "unit length",
            _controls_from(lambda plain, clipped, norm: scaled(1 / norm(plain), plain)),
            "Your steps have norm 1, so both runs would take steps of one fixed length. Which length should each have?",
        ),
        Misconception(
            "old length kept in the factor",
            _controls_from(lambda plain, clipped, norm: scaled(norm(clipped), plain)),
            "Your result is each step times the length of the other one. How long is that, when the step has a length "
            "of its own?",
        ),
        Misconception(
            "each leaf alone",
            _controls_from(
                lambda plain, clipped, norm: jax.tree.map(lambda p, c: p * (_norm(c) / _norm(p)), plain, clipped)
            ),
            "Your result is what one gets by exchanging the length of each leaf by itself. That changes the direction "
            "of the whole step too, because the leaves get different factors.",
        ),
        Misconception(
            "each number alone",
            _by_each(lambda p, c: np.sign(p) * np.abs(c)),
            "Your result is what one gets by exchanging the signs of single numbers. That changes how the numbers of a "
            "step are to each other, and thus its direction. The length of a step is one number, its norm.",
        ),
        Misconception(
            "squared norms",
            _controls_from(norm=lambda tree: _norm(tree) ** 2),
            "Your result is what the ratio of the *squared* norms gives. Is a square root missing?",
        ),
        Misconception(
            "norms of the leaves added up",
            _controls_from(norm=lambda tree: sum(map(_norm, jax.tree.leaves(tree)))),
            "Your result is what one gets by adding up the norms of the leaves. How do the norms of parts combine to "
            "the norm of the whole?",
        ),
        Misconception(
            "half way",
            _by_each(lambda p, c: (p + c) / 2),
            "Your result is the mean of the two steps. It differs from `plain` in its length and in its direction, so "
            "it cannot tell which of them helps.",
        ),
    ),
    relatives=(
        (
            "the right first step, with a second one of norm 1",
            _controls_from(second=lambda plain, clipped, norm: scaled(1 / norm(clipped), clipped)),
        ),
        (
            "what the smaller of 1 and the ratio of the lengths gives as the first factor, and 1 over it as the second",
            _controls_from(
                lambda plain, clipped, norm: scaled(min(1.0, norm(clipped) / norm(plain)), plain),
                second=lambda plain, clipped, norm: scaled(max(1.0, norm(plain) / norm(clipped)), clipped),
            ),
        ),
        (
            "what the largest number of each step gives in place of its norm",
            _controls_from(norm=lambda tree: max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))),
        ),
        (
            "what sums of absolute values give in place of norms",
            _controls_from(norm=lambda tree: sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(tree))),
        ),
        (
            "what the root mean squares of the leaves, added up, give in place of norms",
            _controls_from(norm=_root_mean_square_of_each),
        ),
        (
            "a pair of which the second step is that of the unclipped run",
            _controls_from(second=lambda plain, clipped, norm: plain),
        ),
    ),
    alternatives=(_with_flat_vectors, _units_first),
    hints=(
        "Write down, for the unclipped run, the clipped run and your two controls, whose direction and whose length "
        "each step has. Between the unclipped run and a control only one entry may differ.",
        "A step has the direction of `plain` if it is `plain` times one positive number, the same for all leaves. "
        "`optax.tree.norm` gives the length of a step, over all leaves.",
    ),
    expected="A pair of pytrees like `plain`. The norms of the two are those of `clipped` and of `plain`.",
)

EXERCISES = (CURVATURE, CLIP, SNGDM, CONTROL)

PREDICTIONS = (
    Guess(
        "06.largest_curvature",
        "The curvature of $f$ is at most 1.9 everywhere, and that of $F$ grows. Suppose that you know the largest "
        "$|F''|$ on $|\\theta| \\le 100$. How many times as large is it on $|\\theta| \\le 400$?",
        ("about twice", "about four times", "about sixteen times"),
        why="The inner step differentiates the support loss, so the curvature of $F$ contains a third derivative of "
        "it, multiplied by the query gradient. The third derivative is bounded, and the query gradient grows in "
        "proportion to the distance from the minimum.",
        read="A harmless loss, and one inner step",
    ),
    Guess(
        "06.two_tasks",
        "Two tasks have the meta-objectives $F(\\theta - s)$ and $F(\\theta + s)$, where $F$ and its curvature are "
        "the ones above and $s$ is where the curvature was largest. What are gradient and curvature of their mean at "
        "$\\theta = 0$?",
        ("both are zero", "gradient zero, curvature between 0 and L₀", "gradient zero, curvature above L₀"),
        why="$F$ is even, so the two gradients at zero have opposite signs and cancel, while the two curvatures have "
        "the same sign and do not.",
        read="Why the curvature grows",
    ),
    Guess(
        "06.wave_race",
        "On both objectives the curvature grows with the gradient. Each optimizer gets its best constant learning "
        "rate. Which one brings $|F'|$ below $10^{-10}$ on the *wave* within 300 steps?",
        ("clipped descent only", "plain and clipped descent", "neither"),
        why="A plain step is harmed by a gradient that is out of proportion to the distance from the minimum. On the "
        "wave the gradient never is, although its derivative is large.",
        read="Does clipping always win?",
    ),
    Guess(
        "06.order",
        "Normalize the gradient of each task, then average over time, with a small learning rate. Where does θ settle?",
        ("near 0", "near 1", "near 5"),
        why="After normalizing, only the sign of each gradient is left. Nine tasks out of ten say zero, and one says "
        "ten.",
        read="Noise: why normalization needs momentum",
    ),
    Guess(
        "06.smoothness",
        "Along 300 outer steps, where the norm of the meta-gradient is ten times as large, how many times as large is "
        "the local smoothness, typically?",
        ("about once", "about ten times", "clearly more than ten times"),
        why="Line 4 would allow a factor of about ten, but it rests on line 3, which needed $\\alpha L < 1$. Ten "
        "inner steps of a network can have a large derivative $J$, and it enters the curvature twice, in $J^2 f''$, "
        "and the gradient once.",
        read="Why the curvature grows",
    ),
    Guess(
        "06.control",
        "Which of your two controls, with the learning rate 0.01, comes as low as the clipped runs, give or take a "
        "third?",
        (
            "the one that takes only the length from the clipped steps",
            "the one that takes only their direction",
            "neither",
        ),
        why="A huge gradient first turns Adam's steps, and afterwards it makes them too short. Each control mends one "
        "of the two and keeps the other.",
        read="Clipping rescues MAML",
    ),
)

QUIZ = (
    Question(
        "The losses of a task have curvatures between 0.1 and 1.9 and third derivatives of at most 0.9, and the inner "
        "learning rate is $\\alpha = 0.3$. What is true of the curvature of its one-step MAML objective?",
        (
            "It lies between 0.1 and 1.9 too",
            "It is at most a constant, wherever the initialization is",
            "It can grow without limit, but not faster than the gradient",
            "It can grow without limit, and faster than any multiple of the gradient",
        ),
        2,
        (
            "The first term of line 2 is about that. The second term holds $h'''$ times the query gradient.",
            "In the table of the first section the curvature does not stop growing.",
            "The term that grows is a multiple of the query gradient, which line 3 bounds by a multiple of $F'$.",
            "Line 4 bounds it by a multiple of the gradient, plus a constant.",
        ),
    ),
    Question(
        "Clipped descent with $c = L_0 / L_1$ begins where gradients are huge. $L_1$ doubles, and $L_0$ and the height "
        "of the initialization stay as they are. How many steps can it need, at most, until the gradient is below c?",
        (
            "as many as before",
            "twice as many",
            "four times as many",
            "it depends on the largest gradient",
        ),
        2,
        (
            "The length of a clipped step is $1 / (2 L_1)$. Does it stay?",
            "A step is half as long. What else has become smaller in the decrease $0.4\\, g\\, r$ of line 7?",
            "Yes: the step is half as long, and so is the smallest gradient that is still clipped, so a step lowers "
            "$F$ by at least $0.2\\, L_0 / L_1^2$.",
            "Look at line 7: where the gradient is clipped, the least decrease does not contain it.",
        ),
    ),
    Question(
        "Nine of ten tasks have their minimum at 0, one has it at 10, and each outer step sees one task. Where does θ "
        "settle if each step is the normalized gradient of that task, with a small learning rate?",
        ("near 0", "near 1", "near 5", "near 10"),
        0,
        (
            "Each task has one vote, however far away its minimum is, so θ goes to the median.",
            "That is the mean, where averaging before normalizing leads.",
            "For that, there would have to be as many tasks on either side.",
            "One task in ten is outvoted.",
        ),
    ),
)

# Figures ------------------------------------------------------------------------------------------------------------


def opening() -> tuple[str, str]:
    """On the left dots that each stand for one initialization: the curvature of the meta-objective against the norm of
    its gradient. The dots fill a wedge that widens to the right and stay below a rising straight line. On the right a
    narrow valley: from high up on one wall a plain gradient step lands on the opposite wall, and a clipped step ends a
    little lower on the same wall.
    """
    learning_rate, smoothness, third = 0.25, 2.0, 1.0  # α, and the largest second and third derivative of h
    theta = np.linspace(-60.0, 60.0, 6001)
    offset = theta - learning_rate * (theta - np.sin(theta)) - 1  # h(φ) = φ²/2 + cos φ and f(φ) = (φ - 1)² / 2
    factor = 1 - learning_rate * (1 - np.cos(theta))
    gradient, curvature = np.abs(factor * offset), np.abs(factor**2 - learning_rate * np.sin(theta) * offset)
    growth = learning_rate * third / (1 - learning_rate * smoothness)
    norms = np.linspace(0, gradient.max(), 50)
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    axes.plot(gradient[::12], curvature[::12], ".", color=plots.PALETTE["blue"], markersize=3)
    axes.plot(norms, 1 + growth * norms, color=plots.PALETTE["orange"], label="L₀ + L₁‖∇F‖")
    axes.set(xlim=(0, 30), ylim=(-0.5, 16))  # beyond, θ would have to be larger than those drawn
    plots.label(axes, "‖∇F‖", "curvature |∇²F|")
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.clipped_steps(),
        ("The curvature grows with the gradient", "A plain step overshoots, a clipped one does not"),
        ("One task, one inner step; a dot is one initialization.", "One learning rate η, with and without clipping."),
        "Left: curvature of a meta-objective against the norm of its gradient; all lie below a bound that "
        "grows in proportion to it. "
        "Right: from a steep wall a plain gradient step lands on the opposite wall, a clipped step lower on its own.",
    )


def before_and_after(f, meta_objective, gradient, curvature):
    """The loss before and after adaptation, and how steep and how curved the meta-objective is."""
    theta = np.linspace(-60, 60, 1_201)
    figure, (left, right) = plots.subplots(2)
    losses = {"f": jax.vmap(f)(theta), "F": jax.vmap(meta_objective)(theta)}
    plots.lines(theta, losses, "initialization θ", "loss", title="Before and after: two bowls", axes=left)
    right.plot([], [])  # the colour of f
    derivatives = {"F′": gradient(theta), "F″": curvature(theta)}
    plots.lines(theta, derivatives, "initialization θ", "derivative", title="F bends more and more", axes=right)
    plots.show(
        figure,
        alt="Left: the loss before and after adaptation. The first looks like a parabola; the second is about half as "
        "high, with a slight ripple. Right: the curvature of the second swings between positive and negative peaks "
        "that grow with the distance from zero. Its gradient swings too, and is larger still.",
        title="One inner step makes the curvature grow without limit, and the gradient grows with it",
        caption="Left: query loss f before adaptation, meta-objective F after one inner step. Right: the gradient and "
        "the curvature of F.",
    )


def two_tasks(gradient, shift):
    """The meta-gradients of two tasks, and their mean, around zero."""
    theta = np.linspace(-1.5, 1.5, 301)
    one, other = gradient(theta - shift), gradient(theta + shift)
    curves = {"task 1": one, "task 2": other, "mean": (one + other) / 2}
    plots.show(
        plots.lines(theta, curves, "initialization θ", "meta-gradient", points={"θ = 0": (0.0, 0.0)}),
        alt="The meta-gradients of two tasks near zero: one lies around minus two hundred and one around two hundred, "
        "and both rise steeply. Their mean crosses zero just as steeply.",
        title="The gradients of two tasks cancel, their curvatures do not",
        caption="Meta-gradients of two tasks and of their mean. The slope of a curve is the curvature of the "
        "objective.",
    )


def _best_length(gradient, l0, l1):
    return np.log1p(l1 * gradient / (l0 + l1 * gradient)) / l1


def step_lengths(l0, l1):
    """How long a step is for each gradient: the best by the bound, clipped, plain."""
    gradient = 10.0 ** np.linspace(-2, 3, 201)
    tiny = _best_length(1e3, l0, l1) / 1e3
    curves = {
        "clipped": np.minimum(gradient / l0, 1 / l1) / 2,
        "plain, tiny": tiny * gradient,
        "plain, 1/(2L₀)": gradient / (2 * l0),
        "best": _best_length(gradient, l0, l1),
    }
    plots.show(
        plots.lines(gradient, curves, "gradient |F′|", "length of the step", log="xy", ylim=(1e-5, 1e2)),
        alt="Length of the step against the gradient, both axes logarithmic. The best length and that of clipping "
        "rise in proportion to small gradients and are constant for large ones. A plain step with the learning rate "
        "that suits small gradients becomes far too long for large ones; one that suits a gradient of a thousand is "
        "hundreds of times too short for small ones.",
        title="Clipping is near the best length at both ends, a constant learning rate at one",
        caption="Best: the length at which the bound of line 6 is lowest. Clipped: η = 1/(2L₀) and c = L₀/L₁. Tiny: "
        "the learning rate of the best step at a gradient of 1000.",
    )


@functools.partial(jax.jit, static_argnums=0)  # compiled once, and not for each place of a slider
def _heights(objective, points):
    return jax.vmap(objective)(points)


def two_descents(objective, plain, clipped, learning_rate):
    """Where two descents are on the cliff at each step; each of them is (parameters, gradients)."""
    height = functools.partial(_heights, objective)
    grid = np.linspace(-8, 7, 201)
    figure, (left, right) = plots.subplots(2)
    plots.lines(
        grid,
        {"F": height(grid)},
        "θ",
        "F",
        points={"clipped": (clipped[0], height(clipped[0])), "plain": (plain[0], height(plain[0]))},
        xlim=(-8, 7),
        ylim=(0.8, 150),
        log="y",
        title=f"η = {learning_rate:.3g}",
        axes=left,
    )
    for line, color in zip(left.get_lines(), ("muted", "blue", "orange"), strict=True):  # F, clipped, plain
        line.set_color(plots.PALETTE[color])
    plots.lines(
        np.arange(len(plain[0])),
        {"clipped": clipped[0], "plain": plain[0]},
        "outer step",
        "θ",
        ylim=(-8, 7),
        title=f"last |F′|: plain {abs(plain[1][-1]):.2g}, clipped {abs(clipped[1][-1]):.2g}",
        axes=right,
    )
    return figure


def steps_needed(heights, counts):
    """Outer steps until the gradient is small, against the gradient at the initialization."""
    gradients = 0.7 * np.expm1(0.7 * np.asarray(heights))
    _, (axes,) = plots.subplots()
    figure = plots.lines(
        gradients, counts, "gradient at the initialization, |F′(θ₀)|", "outer steps", log="xy", axes=axes
    )
    for line, marker in zip(axes.get_lines(), plots.MARKERS, strict=False):
        line.set(marker=marker, markersize=5)
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    plots.show(
        figure,
        alt="Outer steps against the gradient at the initialization, both axes logarithmic. For plain descent with the "
        "safe learning rate the number grows in proportion to the gradient, into the thousands; with the best learning "
        "rate it grows to several hundred. For clipped descent it grows from seven to sixteen.",
        title="Plain descent pays for the largest gradient, clipped descent hardly at all",
        caption="Steps on the cliff until |F′| < 0.01. Safe: the learning rate of line 8. Best: the best of 20 "
        "constant ones.",
    )


def mean_curvatures(problems):
    """Largest curvature and largest mean curvature up to each distance, for two objectives."""
    figure, axes = plots.subplots(2)
    for panel, (name, (distances, largest, mean)) in zip(axes, problems.items(), strict=True):
        curves = {"largest": largest, "mean": mean}
        plots.lines(distances, curves, "distance from the minimum", "curvature", log="y", axes=panel, title=name)
        panel.set(xscale="linear", ylim=(0.1, 1e4))
        panel.set_xticks(distances[[0, len(distances) // 2, -1]])
    plots.show(
        figure,
        alt="Largest curvature and largest mean curvature up to a distance, on a logarithmic axis. On the wave the "
        "largest curvature rises and the mean stays below one. On the cliff both rise by several powers of ten.",
        title="On the wave the mean curvature stays small, on the cliff it explodes too",
        caption="Largest curvature |F″| and largest mean curvature F′(θ)/θ, up to each distance from the minimum (on "
        "the steep side of the cliff).",
    )


def averaging_orders(runs):
    """Three runs that differ in what comes first, averaging or normalizing."""
    steps = np.arange(0, 20, 0.05)
    curves = {name: run[::50] for name, run in runs.items()} | {"minimum of the mean loss": np.ones(400)}
    plots.show(
        plots.lines(steps, curves, "outer step (thousands)", "θ"),
        alt="Position against outer step for one run that normalizes first and two that average first. Normalizing "
        "first ends at zero. Averaging over two steps ends close to zero. Averaging over a hundred steps ends in "
        "swings around one, the minimum of the mean loss.",
        title="Only a long average before normalizing reaches the minimum of the mean loss",
        caption="Nine tasks of ten have their minimum at 0, one has it at 10; every outer step sees one task.",
    )


def smoothness_scatter(norms, smoothness, exponent, factor):
    """Local smoothness against the norm of the meta-gradient, a mark for each outer step, and the fitted power."""
    _, (axes,) = plots.subplots()
    grid = np.geomspace(norms.min(), norms.max(), 50)
    axes.plot(norms, smoothness, ".", color=plots.PALETTE["blue"], markersize=5, alpha=0.6)
    axes.plot(grid, factor * grid**exponent, color=plots.PALETTE["orange"], linestyle="-", label="fitted power")
    middle = np.median(norms)
    in_proportion = factor * middle**exponent * grid / middle
    axes.plot(grid, in_proportion, color=plots.PALETTE["muted"], linestyle=":", label="in proportion")
    axes.set(xscale="log", yscale="log")
    plots.label(axes, "norm of the meta-gradient ‖g‖", "local smoothness")
    plots.show(
        axes.figure,
        alt="Local smoothness against the norm of the meta-gradient, both axes logarithmic, a mark for each outer "
        "step. The marks rise over more than three powers of ten of the norm, with a scatter of about two powers of "
        "ten. The line fitted to them is steeper than one along which the smoothness grows in proportion to the norm.",
        title="Along a training run the smoothness grows with the gradient, faster than in proportion",
        caption=f"A dot is one outer step of MAML with ten inner steps. The fitted power of ‖g‖ is {exponent:.1f}.",
    )


def rescue(losses, norms):
    """Query loss of every configuration, and the gradient norms of one unclipped run.

    Args:
      losses: name of the configuration -> query losses, shape [seeds, steps].
      norms: norms of the meta-gradient in one unclipped run, shape [steps].
    """
    every = 20
    steps = np.arange(every / 2, len(norms), every)
    figure, (left, right) = plots.subplots(2, height=3.6)
    for axes, values, name in ((left, None, "Query loss"), (right, norms, "An unclipped run")):
        if values is None:
            curves = {
                name: np.median(np.median(loss.reshape(len(loss), -1, every), axis=-1), axis=0)
                for name, loss in losses.items()
            }
            plots.lines(steps, curves, "outer step", "query loss", log="y", title=name, axes=axes)
        else:
            axes.plot(np.arange(len(values)), values, linewidth=0.8, color=plots.PALETTE["violet"], linestyle="-")
            axes.plot([0, len(values)], [1, 1], color=plots.PALETTE["blue"], linestyle="-", label="c = 1")
            axes.set_yscale("log")
            plots.label(axes, "outer step", "norm of the meta-gradient", name)
    plots.show(
        figure,
        alt="Left: query loss against outer steps, on a logarithmic axis. Clipped Adam falls below one. "
        "Unclipped Adam stays above one with each of three learning rates. Right: the norm of the meta-gradient in an "
        "unclipped run lies in a band, with rare spikes that are more than a hundred times larger.",
        title="Clipping rescues MAML, and a smaller learning rate does not",
        caption="Left: medians over five seeds and 20 steps, MAML with ten inner steps on sine curves. Right: of the "
        "five runs at learning rate 0.003, the one whose largest norm is the median of the five.",
    )


def spiked_adam(positions, spike_at):
    """How far Adam has moved a parameter, for spikes of several sizes; positions in learning rates."""
    steps = np.arange(len(next(iter(positions.values())))) - spike_at
    plots.show(
        plots.lines(steps, positions, "outer steps after the spike", "distance moved (learning rates)"),
        alt="Distance moved by Adam against outer steps. Without a spike it wanders by about ten learning rates. With "
        "a spike of a hundred or of ten thousand times the usual gradient it moves by about thirty learning rates "
        "within fifty steps, and then it hardly moves.",
        title="A hundred times or ten thousand, one spike carries Adam about thirty learning rates away",
        caption="One parameter whose gradient is +1 or −1 at random, except for one spike at step 0.",
    )
