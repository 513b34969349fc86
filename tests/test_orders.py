"""Orders of convergence, measured: the slope of log error against the log of what is made small."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import build, flat, tanh_loss, tanh_problem

import metalearn as ml

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

ORDERS = {"forward": 1, "symmetric": 2, "three_point": 2, "fourth_order": 4}
PERTURBATIONS = {name: np.geomspace(1e-3, 1e-2, 6) for name in ORDERS} | {"fourth_order": np.geomspace(0.02, 0.1, 6)}


def slope(x, errors):
    """Least-squares slope; the errors must be well above rounding for it to mean anything."""
    assert np.min(errors) > 1e-12
    return np.polyfit(x, np.log(errors), 1)[0]


@pytest.fixture(scope="module")
def estimates():
    """At the tanh network: the exact (value, gradient), and those of fo_b_maml at each v, by estimator."""
    with jax.enable_x64(True):
        params, task = tanh_problem()
        inner, num_steps, strength = optax.sgd(0.25), 300, 2.0

        def at(estimator):
            def one(v):
                value, gradient = ml.fo_b_maml(tanh_loss, inner, num_steps, strength, v, estimator)(params, task)
                return value, jax.flatten_util.ravel_pytree(gradient)[0]

            return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(PERTURBATIONS[estimator]))

        value, gradient = ml.imaml(tanh_loss, inner, num_steps, strength, cg_steps=30)(params, task)
        return (float(value), flat(gradient)), {name: at(name) for name in ORDERS}


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ORDERS)
def test_order_of_fo_b_maml_in_the_perturbation(estimates, estimator):
    (_, exact), measured = estimates
    errors = np.linalg.norm(measured[estimator][1] - exact, axis=1)
    assert slope(np.log(PERTURBATIONS[estimator]), errors) == pytest.approx(ORDERS[estimator], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ORDERS)
def test_order_of_the_reported_loss(estimates, estimator):
    """Exact where phi_0 is among the solutions, of the order of the gradient where it is interpolated."""
    (exact, _), measured = estimates
    errors = abs(measured[estimator][0] - exact)
    if estimator in ("forward", "three_point"):
        assert errors.max() < 1e-13 * exact
    else:
        assert slope(np.log(PERTURBATIONS[estimator]), errors) == pytest.approx(ORDERS[estimator], abs=0.05)


def test_symmetric_is_closer_than_three_point_than_forward(estimates):
    (_, exact), measured = estimates
    forward, three_point, symmetric = (
        np.linalg.norm(measured[name][1] - exact, axis=1) for name in ("forward", "three_point", "symmetric")
    )
    assert (three_point < forward / 10).all()
    assert (symmetric < 0.6 * three_point).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["imaml", "fo_b_maml", "fo_b_maml_limit"])
def test_truncation_error_falls_geometrically_with_the_inner_steps(method):
    """By the contraction 1 - a (smallest curvature + l) a step, up to the factor K of a derivative along the path."""
    family, step_size, strength = ml.tasks.Quadratic(dim=3), 0.1, 2.0
    theta = jnp.array([1.0, -2.0, 0.5])
    task = jax.tree.map(lambda leaf: leaf[0], family(jax.random.key(1), 1))
    contraction = 1 - step_size * (np.linalg.eigvalsh(task.support.hessian).min() + strength)

    def gradient(num_steps):
        arguments = {"num_steps": num_steps, "proximal_strength": strength, "perturbation": 1e-3}
        return np.asarray(jax.jit(build(method, family.loss, optax.sgd(step_size), **arguments))(theta, task)[1])

    steps = np.array([40, 60, 80])
    converged = gradient(1000)
    errors = [np.linalg.norm(gradient(int(k)) - converged) for k in steps]
    assert slope(steps, errors) == pytest.approx(np.log(contraction), rel=0.08)


@pytest.mark.slow
def test_bias_of_fo_maml_is_first_order_in_the_inner_step():
    """||fo_maml - maml|| = O(a), and to first order it is a sum over k of a H_k grad f."""
    params, task = tanh_problem()
    step_sizes = np.geomspace(1e-4, 1e-3, 4)

    def bias(step_size):
        inner = optax.sgd(step_size)
        exact, first_order = (build(name, tanh_loss, inner)(params, task)[1] for name in ("maml", "fo_maml"))
        return optax.tree.norm(optax.tree.sub(first_order, exact))

    biases = np.asarray(jax.jit(jax.vmap(bias))(step_sizes))
    assert slope(np.log(step_sizes), biases) == pytest.approx(1, abs=0.05)

    _, product = jax.jvp(
        jax.grad(tanh_loss), (params, task.support), (jax.grad(tanh_loss)(params, task.query), zeros(task.support))
    )
    num_steps = 5
    assert biases[0] == pytest.approx(num_steps * step_sizes[0] * np.linalg.norm(flat(product)), rel=0.02)


def zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)
