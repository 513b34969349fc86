"""Kernel adaptation: for a model linear in its parameters it is implicit MAML; elsewhere, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import assert_clear_error, central_differences, flat, tanh_problem

import metalearn as ml
from metalearn import kernel

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

RIDGE = 0.7
random = np.random.default_rng(0)
MIX = random.normal(size=(2, 3))
THETA = random.normal(size=3)
TASK = ml.Task(*((random.normal(size=(n, 2)), random.normal(size=n)) for n in (5, 4)))


def linear(params, inputs):
    return jnp.tanh(inputs @ MIX) @ params


def half_sum_of_squares(params, batch):
    inputs, targets = batch
    return jnp.sum((linear(params, inputs) - targets) ** 2) / 2


@pytest.mark.slow
def test_with_the_tangent_kernel_of_a_linear_model_it_is_the_proximal_closed_form():
    """theory.proximal with l = ridge: support Hessian J^T J, query Hessian 2/m J^T J for a mean of m squares."""

    def quadratic(batch, scale):
        design = np.tanh(batch[0] @ MIX)
        hessian = scale * design.T @ design
        return ml.tasks.QuadraticBatch(hessian[None], np.linalg.lstsq(design, batch[1])[0][None])

    def residual(batch):  # of the least-squares fit: a constant that the quadratic leaves out
        design = np.tanh(batch[0] @ MIX)
        return np.mean((design @ np.linalg.lstsq(design, batch[1])[0] - batch[1]) ** 2)

    exact = ml.theory.proximal(ml.Task(quadratic(TASK.support, 1.0), quadratic(TASK.query, 2 / 4)), RIDGE)
    value, gradient = jax.jit(ml.kernel_adaptation(linear, kernel.tangent(linear), RIDGE))(THETA, TASK)
    assert value == pytest.approx(exact.query_losses(THETA)[0] + residual(TASK.query), rel=1e-12)
    np.testing.assert_allclose(gradient, exact.task_gradients(THETA)[0], rtol=1e-12)


def test_with_the_tangent_kernel_of_a_linear_model_it_is_imaml():
    """Up to the factor by which half the sum of squares differs from the mean."""
    imaml = ml.imaml(half_sum_of_squares, optax.sgd(0.1), 400, proximal_strength=RIDGE, cg_steps=3)
    expected = jax.tree.map(lambda leaf: leaf * 2 / 4, jax.jit(imaml)(THETA, TASK))
    actual = jax.jit(ml.kernel_adaptation(linear, kernel.tangent(linear), RIDGE))(THETA, TASK)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def network(params, inputs):
    return jnp.tanh(inputs @ params["hidden"]) @ params["output"]


def learned_features(params, inputs):
    return inputs @ params["hidden"]


KERNELS = {
    "tangent": kernel.tangent(network),
    "gaussian": kernel.gaussian(1.0),
    "learned": kernel.gaussian(1.0, learned_features),
    "sum": lambda *a: kernel.gaussian(1.0)(*a) + kernel.tangent(network)(*a),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_gradient_by_finite_differences(name):
    params, task = tanh_problem()
    meta_gradient = jax.jit(ml.kernel_adaptation(network, KERNELS[name], RIDGE))
    numeric = central_differences(lambda p: meta_gradient(p, task)[0], params)
    np.testing.assert_allclose(flat(meta_gradient(params, task)[1]), numeric, atol=1e-8 * np.linalg.norm(numeric))


def test_one_step_of_the_flow_is_kernel_ridge_regression():
    """meta_rkhs_ii with one implicit step, to time t, has ridge 1/t."""
    params, task = tanh_problem()
    flow = jax.jit(ml.meta_rkhs_ii(network, 1 / RIDGE, num_steps=1))(params, task)
    ridge = jax.jit(ml.kernel_adaptation(network, kernel.tangent(network), RIDGE))(params, task)
    for ours, theirs in zip(jax.tree.leaves(flow), jax.tree.leaves(ridge), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


tangent = kernel.tangent(network)
CASES = {
    "no model": (lambda: ml.kernel_adaptation(None, tangent, 1.0), TypeError, "apply must be a function"),
    "no kernel": (lambda: ml.kernel_adaptation(network, 0.3, 1.0), TypeError, "kernel must be a function.*float"),
    "zero ridge": (lambda: ml.kernel_adaptation(network, tangent, 0.0), ValueError, "ridge must be a finite number ab"),
    "negative ridge": (lambda: ml.kernel_adaptation(network, tangent, -1), ValueError, "ridge must be a finite number"),
    "infinite ridge": (lambda: ml.kernel_adaptation(network, tangent, np.inf), ValueError, "ridge must be .*inf"),
    "kernel not built": (
        lambda: ml.kernel_adaptation(network, kernel.tangent, 1.0)(*tanh_problem()),
        TypeError,
        r"kernel must be a function of \(params, a, b\)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])
