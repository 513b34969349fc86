"""The outer optimizers: clip, normalize, and average before normalizing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalearn as ml
from metalearn import outer

pytestmark = pytest.mark.filterwarnings("error")

RATE = 0.3
RULES = {
    "clipped_sgd": outer.clipped_sgd(RATE, max_norm=2.0),
    "normalized_sgd": outer.normalized_sgd(RATE),
    "normalized_sgd_momentum": outer.normalized_sgd_momentum(RATE, momentum=0.9),
}
BOUNDED_STEPS = ("normalized_sgd", "normalized_sgd_momentum")
# Two leaves of lengths 3 and 4: 5 together.
GRADIENT = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[0.0], [4.0]])}


def steps(rule, gradients):
    """The change of params at each gradient in turn."""
    state, result = rule.init(gradients[0]), []
    for gradient in gradients:
        updates, state = rule.update(gradient, state, gradient)
        result.append(updates)
    return result


def scaled(factor, tree=GRADIENT):
    return jax.tree.map(lambda leaf: factor * leaf, tree)


@pytest.mark.parametrize("length", [0.1, 1.999, 2.0, 2.001, 5.0, 1e4])
def test_clipped_step_has_the_learning_rate_up_to_max_norm(length):
    """-e g min(1, max_norm / ||g||), where ||g|| is over all leaves."""
    (step,) = steps(RULES["clipped_sgd"], [scaled(length / 5)])
    chex.assert_trees_all_close(step, scaled(-RATE * length / 5 * min(1.0, 2.0 / length)), rtol=1e-6)


def test_clipping_looks_at_all_leaves_together():
    """Leaves of lengths 1.5 and 2.0 are within max_norm = 2 each, but not together."""
    (step,) = steps(RULES["clipped_sgd"], [scaled(0.5)])
    assert optax.tree.norm(step) == pytest.approx(RATE * 2.0, rel=1e-6)


@pytest.mark.parametrize("name", BOUNDED_STEPS)
@pytest.mark.parametrize("exponent", [-36, -20, -3, 0, 3, 20, 37])
def test_normalized_step_has_the_learning_rate_as_norm_at_any_scale(name, exponent):
    """Over the whole range of float32, where squares vanish or overflow."""
    (step,) = steps(RULES[name], [scaled(10.0**exponent)])
    chex.assert_trees_all_close(step, scaled(-RATE / 5), rtol=1e-5)


@pytest.mark.parametrize("exponent", [-30, -20, 20, 30])
def test_clipped_step_is_right_where_squares_vanish_or_overflow(exponent):
    (step,) = steps(RULES["clipped_sgd"], [scaled(10.0**exponent)])
    factor = 10.0**exponent if exponent < 0 else 2.0 / 5
    chex.assert_trees_all_close(scaled(1 / factor, step), scaled(-RATE), rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zero_gradient_gives_a_zero_step(name, dtype):
    zero = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype), GRADIENT)
    for step in steps(RULES[name], [zero, zero]):
        chex.assert_trees_all_equal(step, zero)


@pytest.mark.parametrize("name", RULES)
def test_dtype_of_params_is_kept(name):
    gradient = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones((2, 1), jnp.float32)}
    for step in steps(RULES[name], [gradient, gradient]):
        chex.assert_trees_all_equal_shapes_and_dtypes(optax.apply_updates(gradient, step), gradient)


def three_gradients():
    keys = jax.random.split(jax.random.key(0), 3)
    return [
        scaled(10.0**i, jax.tree.map(lambda leaf, k=k: jax.random.normal(k, leaf.shape), GRADIENT))
        for i, k in enumerate(keys)
    ]


def sngdm(gradients, momentum, average_first):
    """The explicit loop; average_first=False is the order that the paper warns against."""
    memory, result = np.zeros(4), []
    for gradient in gradients:
        vector = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]).astype(np.float64)
        if average_first:
            memory = momentum * memory + (1 - momentum) * vector
            result.append(-RATE * memory / np.linalg.norm(memory))
        else:
            memory = momentum * memory + (1 - momentum) * vector / np.linalg.norm(vector)
            result.append(-RATE * memory)
    return np.array(result)


def test_sngdm_averages_first_and_normalizes_then():
    actual = np.array(
        [
            np.concatenate([np.ravel(leaf) for leaf in step.values()])
            for step in steps(RULES["normalized_sgd_momentum"], three_gradients())
        ]
    )
    np.testing.assert_allclose(actual, sngdm(three_gradients(), 0.9, average_first=True), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), RATE, rtol=1e-5)
    other_order = sngdm(three_gradients(), 0.9, average_first=False)
    assert np.abs(actual - other_order).max() > 0.1 * RATE


def test_sngdm_without_momentum_is_normalized_descent():
    without = steps(outer.normalized_sgd_momentum(RATE, momentum=0.0), three_gradients())
    chex.assert_trees_all_close(without, steps(RULES["normalized_sgd"], three_gradients()), rtol=1e-6)


FACTORIES = {
    "clipped_sgd": lambda rate: outer.clipped_sgd(rate, max_norm=2.0),
    "normalized_sgd": outer.normalized_sgd,
    "normalized_sgd_momentum": lambda rate: outer.normalized_sgd_momentum(rate, 0.9),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_a_schedule_sets_the_learning_rate_of_each_step(name):
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.5, 2: 0.5})
    by_schedule = steps(FACTORIES[name](schedule), [GRADIENT] * 3)
    constant = steps(FACTORIES[name](1.0), [GRADIENT] * 3)
    for factor, step, full in zip((1.0, 0.5, 0.25), by_schedule, constant, strict=True):
        chex.assert_trees_all_close(step, scaled(factor, full), rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_outer_optimizers_are_optax_transformations(name):
    """They chain, and run in a compiled loop with a state of fixed type."""
    rule = optax.chain(RULES[name], optax.scale(2.0))
    state = rule.init(GRADIENT)

    def body(state, _):
        updates, state = rule.update(GRADIENT, state)
        return state, updates

    _, updates = jax.lax.scan(body, state, length=2)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[0], updates), scaled(2.0, steps(RULES[name], [GRADIENT])[0])
    )


def test_an_outer_optimizer_gets_the_mean_loss_of_the_finite_tasks():
    seen = optax.GradientTransformationExtraArgs(
        lambda params: jnp.zeros(()), lambda updates, state, params, *, value, **_: (-updates, value)
    )
    learner = ml.meta_learner(lambda params, task: (task.query[0].sum(), params), seen)
    batch = (jnp.array([[1.0], [3.0], [jnp.nan]]),)
    state, _ = learner.step(learner.init(jnp.ones(2)), ml.Task(batch, batch))
    assert state.opt_state == 2.0
