"""How the memory of one meta-gradient grows with the number of inner steps, by the compiler's own figures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import tanh_loss, tanh_problem

import metalearn as ml

SGD = optax.sgd(0.01)


def bytes_of(meta_gradient):
    """Temporary memory of the compiled program; 500 examples, so that layer outputs outweigh the 9 parameters."""
    return jax.jit(meta_gradient).lower(*tanh_problem(num_examples=500)).compile().memory_analysis().temp_size_in_bytes


FLAT = {
    "fo_maml": lambda k: ml.fo_maml(tanh_loss, SGD, k),
    "reptile": lambda k: ml.reptile(tanh_loss, SGD, k),
    "imaml": lambda k: ml.imaml(tanh_loss, SGD, k, 1.0, 5),
    "fo_muml": lambda k: ml.fo_muml(tanh_loss, 0.01, k),
    "fo_b_maml_limit": lambda k: ml.fo_b_maml_limit(tanh_loss, SGD, k, 1.0),
    **{
        f"fo_b_maml, {estimator}": lambda k, estimator=estimator: ml.fo_b_maml(tanh_loss, SGD, k, 1.0, 0.1, estimator)
        for estimator in ("forward", "symmetric", "three_point", "fourth_order")
    },
    "fo_b_maml, perturbed_steps": lambda k: ml.fo_b_maml(tanh_loss, SGD, k, 1.0, 0.1, perturbed_steps=k),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", FLAT)
def test_flat_from_one_to_a_thousand_inner_steps(method):
    """A single step is no loop, and may take more."""
    one, two, thousand = (bytes_of(FLAT[method](k)) for k in (1, 2, 1_000))
    assert thousand < 1.02 * one
    assert abs(thousand / two - 1) < 0.02


def growth(build, steps):
    """p in memory ~ K^p, over a range of K."""
    return np.polyfit(np.log(steps), np.log([bytes_of(build(k)) for k in steps]), 1)[0]


@pytest.mark.slow
def test_maml_grows_in_proportion_and_with_remat_like_the_square_root():
    steps = [256, 1024, 4096]
    assert 0.95 < growth(lambda k: ml.maml(tanh_loss, SGD, k), steps) < 1.05
    assert growth(lambda k: ml.maml(tanh_loss, SGD, k, remat=True), steps) < 0.55
    assert bytes_of(ml.maml(tanh_loss, SGD, 1024, remat=True)) < bytes_of(ml.maml(tanh_loss, SGD, 1024)) / 20


@pytest.mark.slow
def test_tasks_that_wait_need_no_memory_but_for_their_gradients():
    params, task = tanh_problem(num_examples=500)
    tasks = jax.tree.map(lambda leaf: jnp.stack(50 * [leaf]), task)

    def memory(tasks_at_once):
        learner = ml.meta_learner(ml.maml(tanh_loss, SGD, 50), SGD, tasks_at_once=tasks_at_once)
        program = jax.jit(learner.step).lower(learner.init(params), tasks).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert memory(1) < memory(None) / 20


@pytest.mark.parametrize(
    ("num_steps", "resample"),
    [
        pytest.param(num_steps, resample, marks=() if num_steps in (0, 3, 16) else pytest.mark.slow)
        for num_steps in (0, 1, 2, 3, 16, 23)
        for resample in (False, True)
    ],
)
def test_remat_changes_no_number(num_steps, resample, x64):
    params, task = tanh_problem()
    if resample:
        key = jax.random.key(1)
        x, y = task.support
        noise = 0.1 * jax.random.normal(key, (num_steps, *x.shape))
        task = task._replace(support=(x + noise, jnp.broadcast_to(y, (num_steps, *y.shape))))
    plain, remat = (
        jax.jit(ml.maml(tanh_loss, optax.sgd(0.1), num_steps, resample, remat=remat))(params, task)
        for remat in (False, True)
    )
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
