"""Adaptation in function space against dense linear algebra, and against training the parameters."""

import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.scipy.linalg import cho_factor, cho_solve
from jax.test_util import check_grads
from problems import assert_clear_error

import metalearn as ml
from metalearn import kernel
from metalearn.meta_gradients.meta_rkhs import gradient_flow

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

random = np.random.default_rng(0)
MIX = random.normal(size=(3, 8))
PARAMS = {"shared": random.normal(size=4), "bias": random.normal(size=2)}
SUPPORT = random.normal(size=(5, 3)), random.normal(size=(5, 2))
QUERY = random.normal(size=(4, 3)), random.normal(size=(4, 2))
FEW = jax.tree.map(lambda leaf: leaf[:2], SUPPORT)


def linear(params, inputs):
    """A model linear in its 6 parameters, with 2 outputs that share 4 of them: [n, 3] -> [n, 2]."""
    return jnp.tanh(inputs @ MIX).reshape(-1, 2, 4) @ params["shared"] + params["bias"]


def jacobian(inputs):
    """Of the outputs, example after example, in (bias, shared); by hand."""
    features = np.tanh(inputs @ MIX).reshape(-1, 4)
    return np.concatenate([np.tile(np.eye(2), (len(inputs), 1)), features], axis=1)


THETA = np.concatenate([PARAMS["bias"], PARAMS["shared"]])


def outputs_of(phi, inputs):
    return (jacobian(inputs) @ phi).reshape(-1, 2)


def predictions(predict, support=SUPPORT, inputs=QUERY[0]):
    return np.asarray(jax.jit(predict)(PARAMS, support, inputs))


def exact_flow(time):
    """f_t by the paper's formula, with scipy's matrix exponential; what is in the null space of k stays."""
    known, targets = SUPPORT
    gram = jacobian(known) @ jacobian(known).T
    residual = (targets - outputs_of(THETA, known)).ravel()
    moved = np.linalg.pinv(gram, rcond=1e-10) @ (np.eye(len(gram)) - scipy.linalg.expm(-time * gram)) @ residual
    return outputs_of(THETA, QUERY[0]) + (jacobian(QUERY[0]) @ jacobian(known).T @ moved).reshape(-1, 2)


@pytest.mark.slow
def test_the_tangent_kernel_is_the_product_of_jacobians():
    actual = kernel.tangent(linear)(PARAMS, SUPPORT[0], QUERY[0])
    np.testing.assert_allclose(actual, jacobian(SUPPORT[0]) @ jacobian(QUERY[0]).T, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("time", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("num_steps", [1, 8])
def test_a_step_is_a_proximal_step_of_the_parameters(time, num_steps):
    """phi <- argmin 1/2 sum |J phi - Y|^2 + m/(2 t) |phi - last phi|^2, m times, solved for 6 parameters."""
    design, targets, strength = jacobian(SUPPORT[0]), SUPPORT[1].ravel(), num_steps / time
    phi = THETA
    for _ in range(num_steps):
        phi = np.linalg.solve(design.T @ design + strength * np.eye(6), design.T @ targets + strength * phi)
    actual = predictions(gradient_flow(linear, time, num_steps))
    np.testing.assert_allclose(actual, outputs_of(phi, QUERY[0]), rtol=1e-11)


@pytest.mark.slow
def test_the_flow_is_approached_with_order_one_in_the_number_of_steps():
    counts = np.array([64, 128, 256, 512])
    errors = [np.linalg.norm(predictions(gradient_flow(linear, 1.0, int(m))) - exact_flow(1.0)) for m in counts]
    assert np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("time", [0.1, 1.0, 10.0])
def test_the_flow_is_fine_gradient_descent(time):
    """20,000 small steps on the parameters, of 1/2 sum |f(X) - Y|^2, and 2,000 implicit ones in closed form."""
    design, residual = jacobian(SUPPORT[0]), SUPPORT[1].ravel()
    phi = THETA
    for _ in range(20_000):
        phi = phi - time / 20_000 * design.T @ (design @ phi - residual)
    change = outputs_of(phi - THETA, QUERY[0])
    actual = predictions(gradient_flow(linear, time, 2_000)) - outputs_of(THETA, QUERY[0])
    assert np.linalg.norm(actual - change) < 5e-3 * np.linalg.norm(change)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 8])
def test_at_the_end_of_the_flow_the_support_set_is_interpolated(num_steps):
    known, targets = FEW
    predict = gradient_flow(linear, np.inf, num_steps)
    np.testing.assert_allclose(predictions(predict, FEW, known), targets, rtol=1e-10)
    least = THETA + np.linalg.lstsq(jacobian(known), targets.ravel() - jacobian(known) @ THETA)[0]
    np.testing.assert_allclose(predictions(predict, FEW), outputs_of(least, QUERY[0]), rtol=1e-10)


@pytest.mark.slow
def test_a_long_flow_tends_to_its_end():
    end = predictions(gradient_flow(linear, np.inf), FEW)
    np.testing.assert_allclose(predictions(gradient_flow(linear, 1e6), FEW), end, rtol=1e-10)
    assert np.linalg.norm(predictions(gradient_flow(linear, 1.0), FEW) - end) > 1e-2


@pytest.mark.slow
def test_a_kernel_with_one_row_for_each_example_serves_all_outputs_alike():
    """Each output column by itself, by numpy."""
    known, targets = SUPPORT

    def gram(a, b):
        return np.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * 0.7**2))

    coefficients = np.linalg.solve(gram(known, known) + 0.3 * np.eye(5), targets - outputs_of(THETA, known))
    expected = outputs_of(THETA, QUERY[0]) + gram(QUERY[0], known) @ coefficients
    actual = predictions(kernel.regression(linear, kernel.gaussian(0.7), ridge=0.3))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.slow
def test_the_gaussian_kernel_sees_features():
    doubled = kernel.gaussian(1.0, features=lambda params, inputs: params * inputs)
    chex.assert_trees_all_close(doubled(2.0, *SUPPORT[:1], QUERY[0]), kernel.gaussian(0.5)(0, SUPPORT[0], QUERY[0]))


# The solver.


def positive(conditions):
    """One symmetric matrix [6, 6] for each condition number."""
    vectors = np.linalg.qr(random.normal(size=(len(conditions), 6, 6)))[0]
    values = np.stack([np.geomspace(1, 1 / condition, 6) for condition in conditions])
    return vectors * values[:, None] @ vectors.transpose(0, 2, 1)


@pytest.mark.slow
def test_the_solver_is_numpy_for_many_systems_side_by_side():
    conditions = 10.0 ** np.arange(9)
    matrices, right = positive(conditions), random.normal(size=(9, 6, 2))
    actual = jax.jit(jax.vmap(lambda matrix, right: kernel.positive_solver(matrix)(right)))(matrices, right)
    expected = np.linalg.solve(matrices, right)
    errors = np.linalg.norm(actual - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
    assert (errors < 1e-15 * 30 * conditions).all(), errors


@pytest.mark.slow
def test_the_solver_is_differentiable_forwards_and_backwards():
    @jax.jit
    def solution(factor, right):
        return kernel.positive_solver(factor @ factor.T + jnp.eye(6))(right)

    check_grads(solution, (random.normal(size=(6, 6)), random.normal(size=6)), order=1, rtol=1e-6, atol=1e-6)


def any_nan(matrices):
    solutions = jax.jit(jax.vmap(lambda matrix: kernel.positive_solver(matrix)(jnp.ones(len(matrix)))))(matrices)
    return np.isnan(solutions).any(axis=1)


def test_a_matrix_with_two_equal_rows_has_no_solution():
    """In 200 kernels: rounding would make the last pivot positive in many of them."""
    features = random.normal(size=(200, 5, 8))
    features[:, 4] = features[:, 1]
    assert any_nan(features @ features.transpose(0, 2, 1)).all()


def test_a_matrix_that_is_not_positive_has_no_solution():
    negative = positive([10.0]) - 0.2 * np.eye(6)
    assert any_nan(negative).all()
    assert not any_nan(positive([10.0])).any()


def lapack_batches(function, *arguments):
    """The leading axes of what each call of LAPACK in the program is given, at most; on a CPU."""
    text = jax.jit(function).lower(*arguments).as_text()
    shapes = re.findall(r"@lapack_\w+\(.*?\) .*?: \(tensor<([\dx]+)xf64>", text)
    return [shape.split("x")[:-2] for shape in shapes]


def test_calls_of_lapack_under_vmap_take_one_matrix_each():
    """A call with a batch, from as many threads as a CPU has, never ends in jaxlib 0.10: see the slow test."""

    def solution(matrices, right):
        return jax.vmap(lambda matrix, right: kernel.positive_solver(matrix)(right))(matrices, right).sum()

    def plain(matrices, right):
        return jax.vmap(lambda matrix, right: cho_solve(cho_factor(matrix), right))(matrices, right).sum()

    arguments = positive(10.0 ** np.arange(7)), np.ones((7, 6))
    assert ["7"] in lapack_batches(jax.value_and_grad(plain), *arguments)
    calls = lapack_batches(jax.value_and_grad(solution), *arguments)
    assert len(calls) >= 3
    assert all(set(batch) <= {"1"} for batch in calls), calls


HANGS = """
import jax, jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from metalearn.adaptation.kernel import positive_solver

def library(matrix, right): return positive_solver(matrix)(right)
def plain(matrix, right): return cho_solve(cho_factor(matrix), right)

def loss(x, right):
    gram = jax.vmap(lambda x: x @ x.T + jnp.eye(len(x)))(x)
    return jnp.sum(jax.vmap({solver})(gram, right) ** 2)

@jax.jit
def descend(x, right):
    return jax.lax.scan(lambda x, _: (x - 1e-6 * jax.grad(loss)(x, right), None), x, length=100)[0]

key = jax.random.key(0)
jax.block_until_ready(descend(jax.random.normal(key, (50, 50, 50)), jax.random.normal(key, (50, 50, 3))))
"""


@pytest.mark.slow
def test_solvers_under_vmap_do_not_hang(record_property):
    """In a process of its own. That the plain call hangs, on two threads and jaxlib 0.10, is recorded, not required."""
    for solver in ("library", "plain"):
        command = [sys.executable, "-c", HANGS.format(solver=solver)]
        try:
            subprocess.run(command, check=True, timeout=120)
        except subprocess.TimeoutExpired:
            assert solver == "plain"
            record_property("measured", "jax.scipy's Cholesky solve under vmap did not end in 120 s")


# Meta-test.


@pytest.mark.slow
def test_query_losses_are_the_mean_squared_errors_of_the_adapted_models():
    tasks = jax.tree.map(lambda leaf: np.stack([leaf, leaf + 0.1]), ml.Task(SUPPORT, QUERY))
    predict = gradient_flow(linear, 1.0)
    losses = kernel.query_losses(predict, PARAMS, tasks)
    for i, loss in enumerate(losses):
        support, (inputs, targets) = jax.tree.map(lambda leaf, i=i: leaf[i], tasks)
        assert loss == pytest.approx(np.mean((predictions(predict, support, inputs) - targets) ** 2), rel=1e-12)


@pytest.mark.slow
def test_a_singular_kernel_is_said_and_counted():
    twice = jax.tree.map(lambda leaf: leaf[jnp.array([0, 0])], SUPPORT)
    tasks = jax.tree.map(lambda *leaves: np.stack(leaves), ml.Task(FEW, QUERY), ml.Task(twice, QUERY))
    with pytest.warns(UserWarning, match=r"1 of 2 tasks .* kernel of the support set is singular .* lower `time`"):
        losses = kernel.query_losses(gradient_flow(linear, np.inf), PARAMS, tasks)
    np.testing.assert_array_equal(np.isfinite(losses), [True, False])
    assert np.isfinite(kernel.query_losses(gradient_flow(linear, 1e3), PARAMS, tasks)).all()


POSITIVE, FUNCTION = "finite number above 0", "must be a function"
ones = jnp.ones((3, 2))
CASES = {
    "tangent: no model": (lambda: kernel.tangent(None), TypeError, f"apply {FUNCTION}"),
    "gaussian: zero scale": (lambda: kernel.gaussian(0.0), ValueError, f"length_scale must be a {POSITIVE}"),
    "gaussian: features as data": (lambda: kernel.gaussian(1.0, ones), TypeError, f"features {FUNCTION}"),
    "regression: no model": (lambda: kernel.regression(3, linear, 1.0), TypeError, f"apply {FUNCTION}"),
    "regression: kernel as a matrix": (lambda: kernel.regression(linear, ones, 1.0), TypeError, f"kernel {FUNCTION}"),
    "regression: negative ridge": (
        lambda: kernel.regression(linear, linear, -1.0),
        ValueError,
        "ridge must be .*at least 0",
    ),
    "regression: no step": (lambda: kernel.regression(linear, linear, 1.0, 0), ValueError, "num_steps .*at least 1"),
    "predict: flat targets": (
        lambda: gradient_flow(linear, 1.0)(PARAMS, (SUPPORT[0], SUPPORT[1][:, 0]), QUERY[0]),
        ValueError,
        r"predictions have shape \(5, 2\) but targets \(5,\)",
    ),
    "predict: a kernel of the wrong shape": (
        lambda: kernel.regression(linear, lambda params, a, b: jnp.ones((7, 5)), 1.0)(PARAMS, SUPPORT, QUERY[0]),
        ValueError,
        r"kernel must return a matrix with one row .* for 9 and 5 examples it returned shape \[7, 5\]",
    ),
    "query_losses: no predictor": (lambda: kernel.query_losses(None, 1.0, None), TypeError, f"predict {FUNCTION}"),
    "query_losses: a pair": (
        lambda: kernel.query_losses(gradient_flow(linear, 1.0), PARAMS, (SUPPORT, QUERY)),
        TypeError,
        "tasks must be a metalearn.Task",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])
