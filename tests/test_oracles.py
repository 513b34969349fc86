"""Every meta-gradient against two independent answers: the closed form on quadratics, and its definition elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import build, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

STEP_SIZE = 0.3
STRENGTH = 2.0
CONVERGED = {"num_steps": 300, "proximal_strength": STRENGTH, "inner": optax.sgd(0.25)}
family = ml.tasks.Quadratic(dim=3)


def per_task(method, theta, tasks, **arguments):
    """(losses, gradients) of every quadratic task, from one compiled function."""
    meta_gradient = build(method, family.loss, **arguments)
    return jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(theta, tasks)


def assert_close(actual, expected, rtol=1e-9):
    """Equal up to rtol times the length of the expected vector."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == np.float64, "the comparison is only worth its tolerance in float64"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.linalg.norm(expected))


# Quadratic tasks: the closed form.


@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_maml_is_the_closed_form(quadratics, theta, num_steps):
    exact = theory.unrolled(quadratics, STEP_SIZE, num_steps)
    losses, gradients = per_task("maml", theta, quadratics, inner=optax.sgd(STEP_SIZE), num_steps=num_steps)
    assert_close(losses, exact.query_losses(theta))
    assert_close(gradients, exact.task_gradients(theta))


@pytest.mark.parametrize("num_steps", [1, 5])
def test_fo_maml_lacks_the_factor_that_maml_has(quadratics, theta, num_steps):
    """maml = (I - a H)^K fo_maml on a quadratic, and both differ unless that factor is the identity."""
    arguments = {"inner": optax.sgd(STEP_SIZE), "num_steps": num_steps}
    losses, first_order = per_task("fo_maml", theta, quadratics, **arguments)
    _, exact = per_task("maml", theta, quadratics, **arguments)
    jacobian = theory.unrolled(quadratics, STEP_SIZE, num_steps).jacobian
    assert_close(losses, theory.unrolled(quadratics, STEP_SIZE, num_steps).query_losses(theta))
    assert_close(np.einsum("tij,tj->ti", jacobian, first_order), exact)
    assert np.linalg.norm(first_order - exact) > 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_reptile_is_the_part_of_the_way_that_adaptation_goes(quadratics, theta, num_steps):
    """theta - phi_K = (I - J)(theta - m)."""
    exact = theory.unrolled(quadratics, STEP_SIZE, num_steps)
    losses, displacement = per_task("reptile", theta, quadratics, inner=optax.sgd(STEP_SIZE), num_steps=num_steps)
    way = np.asarray(theta - quadratics.support.minimum)
    assert_close(losses, exact.query_losses(theta))
    assert_close(displacement, way - np.einsum("tij,tj->ti", exact.jacobian, way))


def test_imaml_is_the_closed_form(quadratics, theta):
    exact = theory.proximal(quadratics, STRENGTH)
    losses, gradients = per_task("imaml", theta, quadratics, **CONVERGED, cg_steps=3)
    assert_close(losses, exact.query_losses(theta))
    assert_close(gradients, exact.task_gradients(theta))


def test_imaml_without_a_curvature_is_nan_and_not_zero():
    """The second derivative of x^1.5 is infinite at 0, where conjugate gradients take no step and would return 0."""

    def loss(params, minimum):
        return jnp.sum(jnp.where(minimum > 0, (params - minimum) ** 2, jnp.abs(params) ** 1.5))

    _, gradient = ml.imaml(loss, optax.sgd(0.1), 2, 1.0, 3)(jnp.zeros(2), Task(jnp.zeros(2), jnp.ones(2)))
    assert np.isnan(gradient).all()


@pytest.mark.slow
def test_imaml_needs_as_many_cg_steps_as_there_are_parameters(quadratics, theta):
    exact = theory.proximal(quadratics, STRENGTH).task_gradients(theta)
    errors = [
        np.linalg.norm(per_task("imaml", theta, quadratics, **CONVERGED, cg_steps=steps)[1] - exact)
        for steps in (1, 2, 3)
    ]
    assert errors[0] > 10 * errors[1] > 1e5 * errors[2]


FO_B_MAML = {  # (meta-gradient / l, where the loss is taken), from phi: v -> exact perturbed solution
    "forward": lambda phi, v: ((phi(0) - phi(v)) / v, phi(0)),
    "symmetric": lambda phi, v: ((phi(-v) - phi(v)) / (2 * v), (phi(-v) + phi(v)) / 2),
    "three_point": lambda phi, v: ((3 * phi(0) - 4 * phi(v) + phi(2 * v)) / (2 * v), phi(0)),
    "fourth_order": lambda phi, v: (
        (8 * (phi(-v) - phi(v)) - phi(-2 * v) + phi(2 * v)) / (12 * v),
        (4 * (phi(-v) + phi(v)) - phi(-2 * v) - phi(2 * v)) / 6,
    ),
}


@pytest.mark.parametrize("estimator", FO_B_MAML)
def test_fo_b_maml_is_the_difference_of_exact_perturbed_solutions(quadratics, theta, estimator):
    """phi_v = (v A + H + l I)^-1 (v A q + H m + l theta), so the estimator is known at any v, however large."""
    v = 0.2
    support, query = quadratics

    def solution(v):
        system = v * query.hessian + support.hessian + STRENGTH * np.eye(3)
        right = (
            v * jnp.einsum("tij,tj->ti", query.hessian, query.minimum)
            + jnp.einsum("tij,tj->ti", support.hessian, support.minimum)
            + STRENGTH * theta
        )
        return np.linalg.solve(system, np.asarray(right)[..., None])[..., 0]

    slope, middle = FO_B_MAML[estimator](solution, v)
    losses, gradients = per_task("fo_b_maml", theta, quadratics, **CONVERGED, perturbation=v, estimator=estimator)
    assert_close(gradients, STRENGTH * slope)
    assert_close(losses, jax.vmap(family.loss)(middle, query))


@pytest.mark.parametrize(
    ("estimator", "rtol"), [("forward", 1e-4), ("symmetric", 1e-8), ("three_point", 1e-8), ("fourth_order", 1e-11)]
)
def test_fo_b_maml_tends_to_the_closed_form(quadratics, theta, estimator, rtol):
    exact = theory.proximal(quadratics, STRENGTH)
    losses, gradients = per_task("fo_b_maml", theta, quadratics, **CONVERGED, perturbation=1e-4, estimator=estimator)
    assert_close(losses, exact.query_losses(theta), 1e-8)
    assert_close(gradients, exact.task_gradients(theta), rtol)


def test_the_limit_of_fo_b_maml_is_the_closed_form(quadratics, theta):
    exact = theory.proximal(quadratics, STRENGTH)
    losses, gradients = per_task("fo_b_maml_limit", theta, quadratics, **CONVERGED)
    assert_close(losses, exact.query_losses(theta))
    assert_close(gradients, exact.task_gradients(theta))


# A network: the definition, by finite differences of the objective and by dense matrices. Nothing is compiled as a
# whole here, so that a difference between the compiled and the uncompiled function would show somewhere.


@pytest.fixture(scope="module")
def network():
    with jax.enable_x64(True):
        return tanh_problem()


def explicit_path(params, batch, num_steps, gradient=None):
    """phi_0 ... phi_K of gradient descent, as flat vectors, by a Python loop."""
    start, unravel = ravel_pytree(params)
    gradient = jax.jit(gradient or jax.grad(lambda phi: tanh_loss(unravel(phi), batch)))
    path = [start]
    for _ in range(num_steps):
        path.append(path[-1] - STEP_SIZE * gradient(path[-1]))
    return path, unravel


def support_hessian(task, unravel):
    return jax.jit(jax.hessian(lambda phi: tanh_loss(unravel(phi), task.support)))


def query_gradient(task, unravel):
    return jax.jit(jax.grad(lambda phi: tanh_loss(unravel(phi), task.query)))


def solved(task, center):
    """argmin h(phi) + l/2 ||phi - center||^2, by gradient steps, then Newton's method, on the flat vector."""
    start, unravel = ravel_pytree(center)

    def objective(phi):
        return tanh_loss(unravel(phi), task.support) + STRENGTH / 2 * jnp.sum((phi - start) ** 2)

    gradient, hessian = jax.jit(jax.grad(objective)), jax.jit(jax.hessian(objective))
    phi = start
    for _ in range(30):
        phi = phi - 0.2 * gradient(phi)
    for _ in range(6):
        phi = phi - np.linalg.solve(hessian(phi), gradient(phi))
    assert np.linalg.norm(gradient(phi)) < 1e-12
    assert np.linalg.eigvalsh(hessian(phi)).min() > 0, "a minimum, no saddle"
    return phi, unravel


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 5])
def test_maml_is_the_product_of_hessian_factors(network, num_steps):
    """(I - a H_0) ... (I - a H_{K-1}) grad f(phi_K)."""
    params, task = network
    path, unravel = explicit_path(params, task.support, num_steps)
    hessian = support_hessian(task, unravel)
    expected = query_gradient(task, unravel)(path[-1])
    for phi in reversed(path[:-1]):
        expected = expected - STEP_SIZE * hessian(phi) @ expected
    value, gradient = build("maml", tanh_loss, optax.sgd(STEP_SIZE), num_steps=num_steps)(params, task)
    assert_close(value, tanh_loss(unravel(path[-1]), task.query))
    assert_close(flat(gradient), expected)


INNERS = {
    "sgd": optax.sgd(STEP_SIZE),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.05, eps_root=1e-8),
    "chain": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(optax.linear_schedule(0.3, 0.1, 5))),
}


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNERS)
def test_maml_differentiates_loss_after_adaptation(network, inner):
    """Under any inner rule, with its memory: the loss after an explicit loop, and the finite differences of that."""
    params, task = network
    meta_gradient = build("maml", tanh_loss, INNERS[inner])
    value, gradient = meta_gradient(params, task)

    phi, memory = params, INNERS[inner].init(params)
    for _ in range(5):
        updates, memory = INNERS[inner].update(jax.grad(tanh_loss)(phi, task.support), memory, phi)
        phi = optax.apply_updates(phi, updates)
    assert_close(value, tanh_loss(phi, task.query))
    assert_close(flat(gradient), central_differences(lambda start: meta_gradient(start, task)[0], params), 1e-7)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_fo_maml_is_the_query_gradient_at_the_adapted_parameters(network, num_steps):
    params, task = network
    path, unravel = explicit_path(params, task.support, num_steps)
    value, gradient = build("fo_maml", tanh_loss, optax.sgd(STEP_SIZE), num_steps=num_steps)(params, task)
    assert_close(value, tanh_loss(unravel(path[-1]), task.query))
    assert_close(flat(gradient), query_gradient(task, unravel)(path[-1]))
    assert_close(
        flat(gradient), central_differences(lambda phi: tanh_loss(phi, task.query), unravel(path[-1])), rtol=1e-7
    )


@pytest.mark.parametrize("num_steps", [1, 5])
def test_reptile_is_initialization_minus_end_of_the_support_loop(network, num_steps):
    params, task = network
    path, unravel = explicit_path(params, task.support, num_steps)
    value, displacement = build("reptile", tanh_loss, optax.sgd(STEP_SIZE), num_steps=num_steps)(params, task)
    assert_close(value, tanh_loss(unravel(path[-1]), task.query))
    assert_close(flat(displacement), path[0] - path[-1])


def test_one_reptile_step_is_the_support_gradient_times_the_step_size(network):
    """A second method for reptile: with K = 1 it is a finite-difference gradient of the support loss."""
    params, task = network
    _, displacement = build("reptile", tanh_loss, optax.sgd(STEP_SIZE), num_steps=1)(params, task)
    expected = STEP_SIZE * central_differences(lambda start: tanh_loss(start, task.support), params)
    assert_close(flat(displacement), expected, rtol=1e-7)


IMPLICIT = {
    "imaml": ({"cg_steps": 9}, 1e-8),
    "fo_b_maml": ({"perturbation": 1e-4}, 1e-6),
    "fo_b_maml_limit": ({}, 1e-9),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", IMPLICIT)
def test_implicit_methods_are_the_dense_linear_solve(network, method):
    """grad f(phi) seen through (I + H / l)^-1, with H the dense Hessian at the solution."""
    params, task = network
    arguments, rtol = IMPLICIT[method]
    phi, unravel = solved(task, params)
    system = np.eye(phi.size) + np.asarray(support_hessian(task, unravel)(phi)) / STRENGTH
    value, gradient = build(method, tanh_loss, **CONVERGED, **arguments)(params, task)
    assert_close(value, tanh_loss(unravel(phi), task.query), rtol)
    assert_close(flat(gradient), np.linalg.solve(system, query_gradient(task, unravel)(phi)), rtol)


@pytest.mark.parametrize("method", IMPLICIT)
def test_implicit_methods_differentiate_the_loss_at_the_proximal_solution(network, method):
    params, task = network
    arguments, rtol = IMPLICIT[method]

    def objective(center):
        proximal = ml.inner.proximal(lambda phi: tanh_loss(phi, task.support), center, STRENGTH)
        adapted = ml.inner.descend(proximal, CONVERGED["inner"], CONVERGED["num_steps"], center)
        return tanh_loss(adapted, task.query)

    _, gradient = build(method, tanh_loss, **CONVERGED, **arguments)(params, task)
    assert_close(flat(gradient), central_differences(objective, params), max(rtol, 1e-7))


@pytest.mark.slow
def test_unconverged_imaml_is_the_linear_solve_where_the_loop_ended(network):
    params, task = network
    center, unravel = ravel_pytree(params)

    def gradient(phi):
        return jax.grad(lambda phi: tanh_loss(unravel(phi), task.support))(phi) + STRENGTH * (phi - center)

    path, _ = explicit_path(params, task.support, 2, gradient)
    system = np.eye(center.size) + np.asarray(support_hessian(task, unravel)(path[-1])) / STRENGTH
    _, result = build("imaml", tanh_loss, optax.sgd(STEP_SIZE), num_steps=2, cg_steps=30)(params, task)
    assert_close(flat(result), np.linalg.solve(system, query_gradient(task, unravel)(path[-1])), 1e-8)


# The closed forms themselves, against brute force.

RULES = {
    "unrolled": lambda tasks: theory.unrolled(tasks, STEP_SIZE, 4),
    "proximal": lambda tasks: theory.proximal(tasks, STRENGTH),
}


def test_theory_unrolled_is_the_loop(quadratics, theta):
    expected = []
    for hessian, minimum in zip(*map(np.asarray, quadratics.support), strict=True):
        phi = np.asarray(theta)
        for _ in range(4):
            phi = phi - STEP_SIZE * hessian @ (phi - minimum)
        expected.append(phi)
    assert_close(RULES["unrolled"](quadratics).adapted(theta), expected, 1e-12)


def test_theory_proximal_is_the_minimum(quadratics, theta):
    """Where 500 gradient steps on h(phi) + l/2 ||phi - theta||^2 end."""
    phi = jnp.tile(theta, (4, 1))
    gradient = jax.jit(jax.vmap(jax.grad(family.loss)))
    for _ in range(500):
        phi = phi - 0.2 * (gradient(phi, quadratics.support) + STRENGTH * (phi - theta))
    assert_close(RULES["proximal"](quadratics).adapted(theta), phi, 1e-12)


@pytest.mark.parametrize("rule", RULES)
class TestTheory:
    def test_query_losses_are_the_losses_of_the_adapted_parameters(self, rule, quadratics, theta):
        exact = RULES[rule](quadratics)
        expected = jax.vmap(family.loss)(exact.adapted(theta), quadratics.query)
        assert_close(exact.query_losses(theta), expected)
        assert exact.objective(theta) == pytest.approx(float(expected.mean()), rel=1e-12)

    def test_jacobian_is_the_derivative_of_the_adapted_parameters(self, rule, quadratics, theta):
        exact = RULES[rule](quadratics)
        slopes = [(exact.adapted(theta + e) - exact.adapted(theta - e)) / 2 for e in np.eye(3)]
        assert_close(exact.jacobian, np.stack(slopes, axis=-1))

    def test_gradients_are_the_derivative_of_the_losses(self, rule, quadratics, theta):
        """Central differences are exact on a quadratic, at any width."""
        exact = RULES[rule](quadratics)
        slopes = [(exact.query_losses(theta + e) - exact.query_losses(theta - e)) / 2 for e in np.eye(3)]
        assert_close(exact.task_gradients(theta), np.stack(slopes, axis=-1))
        assert_close(exact.meta_gradient(theta), np.mean(slopes, axis=-1))

    def test_the_stationary_point_is_the_minimum(self, rule, quadratics):
        exact = RULES[rule](quadratics)
        best = exact.stationary_point()
        assert np.linalg.norm(exact.meta_gradient(best)) < 1e-12
        for offset in np.random.default_rng(0).normal(size=(50, 3)):
            assert exact.objective(best) < exact.objective(best + offset) - 1e-6
            assert exact.objective(best) < exact.objective(best + 1e-2 * offset)

    def test_float32_tasks_are_answered_in_float64(self, rule, quadratics, theta):
        tasks = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), quadratics)
        assert RULES[rule](tasks).task_gradients(theta).dtype == np.float64
        assert_close(RULES[rule](tasks).task_gradients(theta), RULES[rule](quadratics).task_gradients(theta), 1e-5)


def test_a_task_is_only_seen_through_its_support_in_adaptation(quadratics, theta):
    """Swapping support and query is not the same problem: no method may confuse them."""
    swapped = Task(quadratics.query, quadratics.support)
    for rule in RULES.values():
        assert np.abs(rule(quadratics).adapted(theta) - rule(swapped).adapted(theta)).min() > 1e-4
