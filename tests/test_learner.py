"""The outer step: the mean of the tasks' meta-gradients, then any optax rule; failed tasks left out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import tanh_loss, tanh_problem

import metalearn as ml

pytestmark = pytest.mark.filterwarnings("error")

META_GRADIENT = ml.maml(tanh_loss, optax.sgd(0.1), num_steps=2)
OUTERS = {
    "sgd": optax.sgd(0.1),
    "adam": optax.adam(0.01),
    "clipped": ml.outer.clipped_sgd(0.1, max_norm=0.05),
    "sngdm": ml.outer.normalized_sgd_momentum(0.1, momentum=0.9),
}
one_task = jax.jit(META_GRADIENT)


def batch(seeds):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(tanh_problem(seed)[1] for seed in seeds))


@pytest.fixture(scope="module")
def params():
    return tanh_problem()[0]


@pytest.fixture(scope="module")
def learners():
    """name -> (init, compiled step)."""
    learners = {name: ml.meta_learner(META_GRADIENT, outer) for name, outer in OUTERS.items()}
    return {name: ml.MetaLearner(learner.init, jax.jit(learner.step)) for name, learner in learners.items()}


def spoiled(tasks, which):
    """The batch in which the targets of those tasks are NaN, so that their losses and gradients are."""
    inputs, targets = tasks.support
    return tasks._replace(support=(inputs, targets.at[jnp.array(which)].set(jnp.nan)))


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTERS)
def test_a_step_is_the_outer_optimizer_on_the_mean_gradient(params, learners, name):
    learner, outer, state = learners[name], OUTERS[name], learners[name].init(params)
    expected, opt_state = params, outer.init(params)
    for seeds in ([1, 2, 3], [4, 5, 6]):
        results = [one_task(expected, tanh_problem(seed)[1]) for seed in seeds]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *(gradient for _, gradient in results))
        state, info = learner.step(state, batch(seeds))
        np.testing.assert_allclose(info.query_loss, [value for value, _ in results], rtol=1e-5)
        np.testing.assert_allclose(info.grad_norm, optax.tree.norm(mean), rtol=1e-5)
        assert info.finite.all()

        updates, opt_state = outer.update(mean, opt_state, expected)
        expected = optax.apply_updates(expected, updates)
        chex.assert_trees_all_close(state.params, expected, rtol=1e-4, atol=1e-6)
    assert state.step == 2
    assert state.step.dtype == jnp.int32


@pytest.mark.slow
@pytest.mark.parametrize("tasks_at_once", [1, 2, 5])
def test_tasks_that_wait_for_others_give_the_same_step(params, learners, tasks_at_once):
    """Also where they are no whole number of turns, or fewer than one."""
    waiting = ml.meta_learner(META_GRADIENT, OUTERS["sgd"], tasks_at_once=tasks_at_once)
    states, infos = zip(
        *(learner.step(waiting.init(params), batch([1, 2, 3])) for learner in (waiting, learners["sgd"])), strict=True
    )
    chex.assert_trees_all_close(*states, rtol=1e-5)
    chex.assert_trees_all_close(*infos, rtol=1e-5)


@pytest.mark.slow
def test_the_mean_of_two_gradients_is_no_sum_and_no_mean_of_normalized_ones():
    """On two tasks whose gradients are 1 and 3, plain descent of rate 1 moves by 2."""

    def meta_gradient(params, task):
        return jnp.zeros(()), task.query * jnp.ones_like(params)

    learner = ml.meta_learner(meta_gradient, optax.sgd(1.0))
    state, info = learner.step(learner.init(jnp.zeros(1)), ml.Task(jnp.zeros(2), jnp.array([1.0, 3.0])))
    assert state.params == -2.0
    assert info.grad_norm == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTERS)
def test_a_failed_task_is_marked_and_changes_nothing_for_the_others(params, learners, name):
    learner = learners[name]
    whole, _ = learner.step(learner.init(params), batch([1, 3]))
    state, info = learner.step(learner.init(params), spoiled(batch([1, 2, 3]), [1]))
    np.testing.assert_array_equal(info.finite, [True, False, True])
    np.testing.assert_array_equal(np.isfinite(info.query_loss), [True, False, True])
    chex.assert_trees_all_close(state, whole, rtol=1e-5, atol=1e-7)
    assert np.isfinite(info.grad_norm)


@pytest.mark.parametrize(
    ("value", "slope"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, -np.inf)], ids=lambda x: f"{x:g}"
)
def test_a_task_fails_if_its_loss_or_its_gradient_is_not_finite(value, slope):
    def meta_gradient(params, task):
        return task.query * 1.0, {"a": task.support * params["a"], "b": params["b"]}

    learner = ml.meta_learner(meta_gradient, optax.sgd(1.0))
    tasks = ml.Task(jnp.array([1.0, slope]), jnp.array([1.0, value]))
    state, info = learner.step(learner.init({"a": jnp.ones(2), "b": jnp.ones(())}), tasks)
    np.testing.assert_array_equal(info.finite, [True, False])
    chex.assert_trees_all_close(state.params, {"a": jnp.zeros(2), "b": jnp.zeros(())})


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTERS)
def test_when_every_task_fails_only_the_count_changes(params, learners, name):
    """Momentum and Adam's own count included: the step did not take place."""
    learner = learners[name]
    before, _ = learner.step(learner.init(params), batch([1, 2, 3]))
    after, info = learner.step(before, spoiled(batch([1, 2, 3]), [0, 1, 2]))
    assert not info.finite.any()
    assert info.grad_norm == 0
    chex.assert_trees_all_equal(after._replace(step=before.step), before)
    assert after.step == before.step + 1


def test_a_schedule_outside_sees_the_number_of_steps():
    learner = ml.meta_learner(
        lambda params, task: (task.query * 0.0, jnp.ones_like(params)),
        optax.sgd(optax.piecewise_constant_schedule(1.0, {1: 0.1})),
    )
    state, tasks = learner.init(jnp.zeros(1)), ml.Task(jnp.zeros(2), jnp.zeros(2))
    for expected in (-1.0, -1.1, -1.2):
        state, _ = learner.step(state, tasks)
        assert state.params == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_bfloat16_means_over_many_tasks_keep_small_contributions():
    """Summing 1,000 equal numbers in bfloat16 would stop at 256."""
    learner = ml.meta_learner(lambda params, task: (task.query, jnp.ones_like(params)), optax.sgd(1.0))
    state, info = learner.step(learner.init(jnp.zeros(2, jnp.bfloat16)), ml.Task(jnp.zeros(1000), jnp.zeros(1000)))
    assert state.params.dtype == jnp.bfloat16
    np.testing.assert_array_equal(state.params.astype(np.float32), -1.0)
    assert float(info.grad_norm) == pytest.approx(2**0.5, rel=1e-2)


@pytest.mark.parametrize("exponent", [-25, 0, 25])
def test_the_norm_of_the_gradient_at_any_scale(exponent):
    """Over the whole range of float32, where squares vanish or overflow."""
    gradient = {"a": jnp.array([3.0, 0.0]) * 10.0**exponent, "b": jnp.array(4.0) * 10.0**exponent}
    learner = ml.meta_learner(lambda params, task: (task.query, gradient), optax.sgd(1.0))
    tasks = ml.Task(jnp.zeros(2), jnp.zeros(2))
    _, info = learner.step(learner.init(jax.tree.map(jnp.zeros_like, gradient)), tasks)
    assert float(info.grad_norm) == pytest.approx(5 * 10.0**exponent, rel=1e-5)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (None, TypeError, "must return a pair.*None"),
        ((jnp.zeros(()), {"a": jnp.zeros(2)}, 0), TypeError, "must return a pair.*3 values"),
        ((jnp.zeros(2), {"a": jnp.zeros(2)}), ValueError, r"a scalar query loss first, but it is float\[2\]"),
        (((jnp.zeros(()), 1), {"a": jnp.zeros(2)}), ValueError, "a scalar query loss first, but it is a tuple"),
        ((jnp.zeros(()), jnp.zeros(())), ValueError, "the structure of params"),
        ((jnp.zeros(()), {"a": jnp.zeros(())}), ValueError, r"for params\['a'\], float\[2\], it is float\[\]"),
        ((jnp.zeros(()), {"a": jnp.zeros(2, int)}), ValueError, r"for params\['a'\], float\[2\], it is int32\[2\]"),
    ],
)
def test_what_is_no_meta_gradient_is_refused(result, error, message):
    """A gradient of shape () would be broadcast in silence."""
    learner = ml.meta_learner(lambda params, task: result, optax.sgd(1.0))
    with pytest.raises(error, match=message):
        learner.step(learner.init({"a": jnp.zeros(2)}), ml.Task(jnp.zeros(2), jnp.zeros(2)))
