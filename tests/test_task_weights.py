"""Task weights: the weighted mean, tasks that are left out, and the three weightings by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import assert_clear_error

import metalearn as ml
from metalearn import task_weights

pytestmark = pytest.mark.filterwarnings("error")

LOSSES = jnp.array([1.0, 2.0, 4.0])
GRADIENTS = {"a": jnp.array([[3.0], [0.0], [-5.0]]), "b": jnp.array([0.0, 2.0, 0.0])}


def given(params, task):
    """A meta-gradient that is what the task says."""
    return task.query * 1.0, task.support


def one_step(weights, losses=LOSSES, gradients=GRADIENTS, outer=None):
    """(how far one step of plain descent with rate 1 goes down, info)."""
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:]), gradients)
    learner = ml.meta_learner(given, outer or optax.sgd(1.0), weights)
    state, info = jax.jit(learner.step)(learner.init(start), ml.Task(gradients, losses))
    return jax.tree.map(jnp.negative, state.params), info


def test_the_step_is_the_weighted_mean_whatever_the_sum_of_the_weights():
    for scale in (1.0, 10.0):
        moved, info = one_step(lambda losses, gradients, scale=scale: scale * jnp.array([1.0, 2.0, 1.0]))
        chex.assert_trees_all_close(moved, {"a": jnp.array([-0.5]), "b": jnp.array(1.0)}, rtol=1e-6)
        assert info.grad_norm == pytest.approx(1.25**0.5)
        assert info.finite.all()


@pytest.mark.slow
def test_equal_weights_are_the_default_to_the_last_bit():
    gradients = jax.random.normal(jax.random.key(0), (7, 50))
    losses = jnp.arange(7.0)
    chex.assert_trees_all_equal(
        one_step(lambda losses, gradients: jnp.ones(7), losses, gradients), one_step(None, losses, gradients)
    )


def test_the_weights_see_losses_and_gradients():
    def weights(losses, gradients):
        return jnp.where(losses == 4, gradients["a"][:, 0] ** 2, 0)

    moved, info = one_step(weights)
    chex.assert_trees_all_close(moved, {"a": jnp.array([-5.0]), "b": jnp.array(0.0)})
    assert info.finite.all(), "a weight of 0 is no failure"


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, lambda losses, gradients: 1 / (1 + losses)], ids=["default", "inverse"])
def test_a_failed_task_has_weight_zero_and_is_shown_as_zeros(weights):
    losses, gradients = LOSSES.at[1].set(jnp.nan), GRADIENTS | {"b": GRADIENTS["b"].at[1].set(jnp.inf)}
    moved, info = one_step(weights, losses, gradients)
    others = jnp.array([0, 2])
    expected, _ = one_step(weights, LOSSES[others], jax.tree.map(lambda leaf: leaf[others], GRADIENTS))
    chex.assert_trees_all_close(moved, expected, rtol=1e-6)
    np.testing.assert_array_equal(info.finite, [True, False, True])


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_none_marks_its_task(bad):
    moved, info = one_step(lambda losses, gradients: jnp.array([1.0, bad, 1.0]))
    chex.assert_trees_all_close(moved, {"a": jnp.array([-1.0]), "b": jnp.array(0.0)}, rtol=1e-6)
    np.testing.assert_array_equal(info.finite, [True, False, True])


@pytest.mark.slow
def test_when_every_weight_is_zero_only_the_count_changes():
    """Adam would move by its memory otherwise."""
    learner = ml.meta_learner(given, optax.adam(0.1), lambda losses, gradients: 0 * losses + (losses.sum() > 3))
    tasks = ml.Task(jnp.ones((2, 1)), jnp.ones(2))
    first, _ = learner.step(learner.init(jnp.zeros(1)), tasks._replace(query=2 * tasks.query))
    second, _ = learner.step(first, tasks)
    assert first.params != 0
    chex.assert_trees_all_equal(second, first._replace(step=second.step))
    assert second.step == 2


# The weightings.


def test_inverse_loss():
    np.testing.assert_allclose(task_weights.inverse_loss(1.0)(LOSSES, None), [1 / 2, 1 / 3, 1 / 5], rtol=1e-6)


def test_loss_softmax():
    ratios = task_weights.loss_softmax(2.0)(LOSSES, None) / np.exp([0.5, 1.0, 2.0])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)


def test_gradient_agreement():
    """Directions (1, 0), (0, 1), (-1, 0) vote (0, 1/3): cosines 0, 1, 0, whatever the gradients' lengths."""
    expected = np.exp([0, 2, 0])
    np.testing.assert_allclose(task_weights.gradient_agreement(0.5)(LOSSES, GRADIENTS), expected, rtol=1e-6)


def test_gradient_agreement_of_gradients_that_are_zero():
    weights = task_weights.gradient_agreement(0.5)(LOSSES, jnp.zeros((3, 2)))
    np.testing.assert_array_equal(weights, 1)


POSITIVE = "must be a finite number above 0"
CASES = {
    "learner: weights as numbers": (
        lambda: ml.meta_learner(given, optax.sgd(1.0), [0.5, 0.5]),
        TypeError,
        "task_weights must be a function.*list",
    ),
    "learner: one weight": (
        lambda: one_step(lambda losses, gradients: losses.mean()),
        ValueError,
        r"task_weights must return one number for each task, shape \[3\], but it returned shape \[\]",
    ),
    "learner: weights for each number": (
        lambda: one_step(lambda losses, gradients: gradients["a"]),
        ValueError,
        r"task_weights must return one number for each task, shape \[3\], but it returned shape \[3, 1\]",
    ),
    "inverse_loss: zero": (lambda: task_weights.inverse_loss(0.0), ValueError, f"offset {POSITIVE}"),
    "loss_softmax: negative": (lambda: task_weights.loss_softmax(-1.0), ValueError, f"temperature {POSITIVE}"),
    "agreement: NaN": (lambda: task_weights.gradient_agreement(np.nan), ValueError, f"temperature {POSITIVE}"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])
