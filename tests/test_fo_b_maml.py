"""FO-B-MAML: the weights of its estimators, the laws of its bias, and the other names of its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import assert_clear_error, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory
from metalearn.adaptation.inner import descend
from metalearn.meta_gradients.fo_b_maml import STENCILS

pytestmark = pytest.mark.usefixtures("x64")

STRENGTH, STEP_SIZE = 2.0, 0.25
INNER = optax.sgd(STEP_SIZE)
ORDERS = {"forward": 1, "symmetric": 2, "three_point": 2, "fourth_order": 4}
family = ml.tasks.Quadratic(dim=3)
THETA = np.array([1.0, -2.0, 0.5])


@pytest.fixture(scope="module")
def quadratic():
    """One quadratic task, as float64 numpy."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), family(jax.random.key(1), 1))


def exact_gradient(task):
    one = jax.tree.map(lambda leaf: leaf[None], task)
    return theory.proximal(one, STRENGTH).task_gradients(THETA)[0]


# The table of weights.


@pytest.mark.parametrize("estimator", ORDERS)
def test_weights_differentiate_and_interpolate_polynomials(estimator):
    """d/dv v^k at 0 is 1 for k = 1 and 0 otherwise, exactly up to the order of the estimator, and not beyond."""
    offsets, slope_weights, value_weights = map(np.array, STENCILS[estimator])
    order = ORDERS[estimator]
    moments = np.array([slope_weights @ offsets**k for k in range(order + 2)])
    np.testing.assert_allclose(moments[: order + 1], np.eye(order + 1)[min(1, order)], atol=1e-14)
    assert abs(moments[order + 1]) > 0.1
    np.testing.assert_allclose([value_weights @ offsets**k for k in range(order)], np.eye(order)[0], atol=1e-14)


# Bias: truncation against the accuracy of the inner solutions.


@pytest.mark.slow
def test_bias_falls_with_the_power_of_the_inner_accuracy_that_theory_says(quadratic):
    """Solutions with independent errors of length d, and the best v for each d: bias ~ d^(p / (p + 1)) at order p."""
    (hessian, minimum), (query_hessian, query_minimum) = quadratic
    perturbations = np.geomspace(1e-7, 0.3, 400)
    accuracies = np.geomspace(1e-11, 1e-7, 5)
    directions = np.random.default_rng(0).normal(size=(200, 4, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)

    def solutions(v):
        system = v[..., None, None] * query_hessian + hessian + STRENGTH * np.eye(3)
        right = v[..., None] * (query_hessian @ query_minimum) + hessian @ minimum + STRENGTH * THETA
        return np.linalg.solve(system, right[..., None])[..., 0]

    for estimator, order in ORDERS.items():
        offsets, weights, _ = map(np.array, STENCILS[estimator])
        exact = solutions(perturbations[:, None] * offsets)  # [v, solve, dim]
        truncation = -STRENGTH * np.einsum("s,vsd->vd", weights, exact) / perturbations[:, None] - exact_gradient(
            quadratic
        )
        noise = -STRENGTH * np.einsum("s,rsd->rd", weights, directions[:, : len(weights)])
        best = []
        for accuracy in accuracies:
            errors = truncation[None] + accuracy * noise[:, None] / perturbations[:, None]
            root_mean_square = np.sqrt((errors**2).sum(-1).mean(0))
            assert 0 < root_mean_square.argmin() < len(perturbations) - 1, "the best v lies inside the range"
            best.append(root_mean_square.min())
        slope = np.polyfit(np.log(accuracies), np.log(best), 1)[0]
        assert slope == pytest.approx(order / (order + 1), abs=0.02), estimator


@pytest.mark.slow
def test_common_errors_of_truncated_solutions_cancel(quadratic):
    """d / v is a worst case: two unconverged loops from one start err alike, and a tiny v does no harm."""
    gradient = jax.jit(
        lambda v: ml.fo_b_maml(family.loss, optax.sgd(0.1), 12, STRENGTH, v, "forward")(THETA, quadratic)[1]
    )
    perturbations = np.array([1e-2, 1e-4, 1e-6])
    errors = np.array([np.linalg.norm(gradient(v) - exact_gradient(quadratic)) for v in perturbations])
    at_start = descend(
        ml.inner.proximal(lambda phi: family.loss(phi, quadratic.support), jnp.array(THETA), STRENGTH),
        optax.sgd(0.1),
        12,
        jnp.array(THETA),
    )
    one = jax.tree.map(lambda leaf: leaf[None], quadratic)
    inaccuracy = np.linalg.norm(at_start - theory.proximal(one, STRENGTH).adapted(THETA)[0])
    assert inaccuracy > 1e-3, "the loops have not converged"
    assert errors[-1] == pytest.approx(errors[-2], rel=1e-3), "the error settles as v falls"
    assert errors[-1] < 1e-4 * STRENGTH * inaccuracy / perturbations[-1], "far below d / v"


# The limit.


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [2, 10])
def test_the_limit_is_what_the_estimators_tend_to_even_unconverged(num_steps):
    params, task = tanh_problem()
    arguments = (tanh_loss, INNER, num_steps, STRENGTH)
    value, limit = ml.fo_b_maml_limit(*arguments)(params, task)
    for estimator, order in ORDERS.items():
        estimate = jax.jit(lambda v, estimator=estimator: ml.fo_b_maml(*arguments, v, estimator)(params, task))
        errors = [np.linalg.norm(flat(estimate(v)[1]) - flat(limit)) for v in (0.04, 0.02)]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35), estimator
    assert value == pytest.approx(float(estimate(1e-3)[0]), rel=1e-9)


@pytest.mark.slow
def test_unconverged_the_limit_is_the_sum_over_the_path(quadratic):
    """l a sum_k (I - a M)^(K - 1 - k) grad f(phi_k), with M = H + l I: the derivative of the loop, written out."""
    (hessian, minimum), (query_hessian, query_minimum) = quadratic
    system, phi, expected = hessian + STRENGTH * np.eye(3), THETA, np.zeros(3)
    for _ in range(4):
        expected = (
            expected - STEP_SIZE * system @ expected + STEP_SIZE * STRENGTH * query_hessian @ (phi - query_minimum)
        )
        phi = phi - STEP_SIZE * (hessian @ (phi - minimum) + STRENGTH * (phi - THETA))
    _, limit = ml.fo_b_maml_limit(family.loss, INNER, 4, STRENGTH)(jnp.array(THETA), quadratic)
    np.testing.assert_allclose(limit, expected, rtol=1e-12)


# Other ways to spend the steps.


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_steps_from_the_unperturbed_solution_lack_a_known_part(quadratic, steps):
    """After P of them, (I - a M)^P of the gradient is missing."""
    missing = np.linalg.matrix_power(np.eye(3) - STEP_SIZE * (quadratic.support.hessian + STRENGTH * np.eye(3)), steps)
    expected = (np.eye(3) - missing) @ exact_gradient(quadratic)
    _, gradient = ml.fo_b_maml(family.loss, INNER, 300, STRENGTH, 1e-4, perturbed_steps=steps)(
        jnp.array(THETA), quadratic
    )
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * np.linalg.norm(expected))


@pytest.mark.slow
def test_where_minus_v_leaves_no_minimum_the_one_sided_formula_stays_finite(quadratic):
    v = (
        1.5
        * (STRENGTH + np.linalg.eigvalsh(quadratic.support.hessian).max())
        / np.linalg.eigvalsh(quadratic.query.hessian).max()
    )
    with_estimator = {
        name: flat(ml.fo_b_maml(family.loss, optax.sgd(0.1), 20_000, STRENGTH, v, name)(jnp.array(THETA), quadratic)[1])
        for name in ("symmetric", "three_point", "forward")
    }
    assert not np.isfinite(with_estimator["symmetric"]).all()
    assert np.isfinite(with_estimator["three_point"]).all()
    assert np.isfinite(with_estimator["forward"]).all()


def test_fit_says_to_lower_the_perturbation_when_it_diverges(quadratic):
    """One task with v far above what its curvatures allow: every inner loop runs away."""
    batch = jax.tree.map(lambda leaf: jnp.array(leaf)[None], quadratic)
    learner = ml.meta_learner(ml.fo_b_maml(family.loss, optax.sgd(0.5), 5_000, STRENGTH, 50.0), optax.sgd(0.1))
    with pytest.raises(ml.DivergedError, match="perturbation"):
        ml.fit(learner, jnp.array(THETA), lambda key, number: batch, 2, 1, jax.random.key(0), progress=False)


# Three literatures, one formula.


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [3, 200])
def test_contrastive_update_and_penalty_form_are_the_forward_estimator(num_steps):
    """By algebra, so before convergence too: d/dtheta of l/2 |phi - theta|^2 is l (theta - phi).

    Contrastive (Zucchet et al. 2022, arXiv 2104.01677): [d_theta L(phi_b, b) - d_theta L(phi_0, 0)] / b.
    Penalty (F2SA, Kwon et al. 2023, arXiv 2301.10945): c [d_theta g(phi_c) - d_theta g(phi_0)], phi_c least f + c g.
    """
    v = 0.05
    params, task = tanh_problem()
    theta, unravel = ravel_pytree(params)

    def f(phi):
        return tanh_loss(unravel(phi), task.query)

    def g(phi, theta):
        return tanh_loss(unravel(phi), task.support) + STRENGTH / 2 * jnp.sum((phi - theta) ** 2)

    def descent(objective, step_size):
        slope, phi = jax.jit(jax.grad(objective)), theta
        for _ in range(num_steps):
            phi = phi - step_size * slope(phi)
        return phi

    def explicit(objective, phi):
        """The derivative in theta at a fixed phi."""
        return jax.grad(lambda theta: objective(phi, theta))(theta)

    free = descent(lambda phi: g(phi, theta), STEP_SIZE)
    nudged = descent(lambda phi: v * f(phi) + g(phi, theta), STEP_SIZE)
    contrastive = (explicit(lambda phi, t: v * f(phi) + g(phi, t), nudged) - explicit(g, free)) / v
    penalty = 1 / v
    perturbed = descent(lambda phi: f(phi) + penalty * g(phi, theta), STEP_SIZE / penalty)
    penalized = penalty * (explicit(g, perturbed) - explicit(g, free))

    _, forward = ml.fo_b_maml(tanh_loss, INNER, num_steps, STRENGTH, v, "forward")(params, task)
    np.testing.assert_allclose(contrastive, flat(forward), rtol=0, atol=1e-12)
    np.testing.assert_allclose(penalized, flat(forward), rtol=0, atol=1e-12)


# The outer step on an objective whose curvature grows with its gradient.


def wave_loss(params, batch):
    """z^2 / 2 + 0.9 cos z at z = params - batch: curvature between 0.1 and 1.9, so 1.9-smooth."""
    return jnp.mean((params - batch) ** 2 / 2 + 0.9 * jnp.cos(params - batch))


def test_curvature_of_the_meta_objective_grows_with_its_gradient():
    """|F''| <= L + (rho / l) |F'| where the support loss is convex, and no constant in place of that will do."""
    gradient = ml.fo_b_maml_limit(wave_loss, optax.sgd(0.4), 80, 1.0)
    task = Task(jnp.zeros(1), jnp.zeros(1))

    def slope(x):
        return gradient(x, task)[1]

    starts = np.concatenate([np.linspace(r / 2, r, 400) for r in (5.0, 20.0, 80.0, 320.0)])
    first, second = jax.jit(jax.vmap(lambda x: (slope(x), jax.jacfwd(slope)(x))))(starts)
    largest = np.abs(second).reshape(4, -1).max(axis=1)
    assert (np.abs(second) <= 1.9 + 0.9 * np.abs(first)).all()
    assert (largest[1:] > 3 * largest[:-1]).all()


@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_perturbed_steps_must_be_a_count(value):
    assert_clear_error(
        lambda: ml.fo_b_maml(family.loss, INNER, 5, STRENGTH, 0.1, perturbed_steps=value),
        ValueError,
        "perturbed_steps must be a whole number of at least 1",
    )


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((None, INNER, 5, STRENGTH), TypeError, "loss must be a function"),
        ((family.loss, 0.1, 5, STRENGTH), TypeError, "inner must be an optax"),
        ((family.loss, INNER, 0, STRENGTH), ValueError, "num_steps must be a whole number of at least 1"),
        ((family.loss, INNER, 5, 0.0), ValueError, "proximal_strength must be a finite number above 0"),
    ],
)
def test_the_limit_refuses_bad_arguments(arguments, kind, message):
    assert_clear_error(lambda: ml.fo_b_maml_limit(*arguments), kind, message)
