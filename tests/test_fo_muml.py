"""FO-MuML: the Moreau envelope it descends, the anchored iteration that finds it, and how far from it training ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import assert_clear_error, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

STEP_SIZE = 0.5
family = ml.tasks.Quadratic(dim=3, support_curvature=(0.2, 1.0))


def per_task(theta, tasks, num_steps):
    meta_gradient = ml.fo_muml(family.loss, STEP_SIZE, num_steps)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(theta, tasks))


# The envelope.


def test_theory_moreau_is_the_least_of_loss_and_proximal_term(quadratics, theta):
    """Its value by brute force: at the solution of the proximal problem, and no lower anywhere around it."""
    nearest = theory.proximal(quadratics, 1 / STEP_SIZE).adapted(theta)

    def with_spring(z):
        return jax.vmap(family.loss)(z, quadratics.support) + np.sum((z - theta) ** 2, axis=1) / (2 * STEP_SIZE)

    envelope = theory.moreau(quadratics, STEP_SIZE)
    np.testing.assert_allclose(envelope.query_losses(theta), with_spring(nearest), rtol=1e-12)
    for offset in np.random.default_rng(0).normal(size=(50, 3)):
        assert (with_spring(nearest + offset) > envelope.query_losses(theta)).all()


def test_theory_moreau_has_the_gradient_of_the_loss_where_it_is_attained(quadratics, theta):
    """grad F = (theta - z*) / a = grad h(z*)."""
    nearest = theory.proximal(quadratics, 1 / STEP_SIZE).adapted(theta)
    gradients = theory.moreau(quadratics, STEP_SIZE).task_gradients(theta)
    np.testing.assert_allclose(gradients, (theta - nearest) / STEP_SIZE, rtol=1e-12)
    np.testing.assert_allclose(gradients, jax.vmap(jax.grad(family.loss))(nearest, quadratics.support), rtol=1e-12)


def test_it_is_the_gradient_of_the_envelope_on_quadratics(quadratics, theta):
    losses, gradients = per_task(theta, quadratics, 60)
    np.testing.assert_allclose(gradients, theory.moreau(quadratics, STEP_SIZE).task_gradients(theta), rtol=1e-12)
    np.testing.assert_allclose(losses, theory.proximal(quadratics, 1 / STEP_SIZE).query_losses(theta), rtol=1e-12)


@pytest.mark.slow
def test_it_is_the_gradient_of_the_envelope_of_a_network():
    params, task = tanh_problem()
    step_size = 0.2

    def envelope(start):
        proximal = ml.inner.proximal(lambda z: tanh_loss(z, task.support), start, 1 / step_size)
        return proximal(ml.inner.descend(proximal, optax.sgd(0.1), 200, start))

    _, gradient = jax.jit(ml.fo_muml(tanh_loss, step_size, 100))(params, task)
    slopes = central_differences(envelope, params)
    np.testing.assert_allclose(flat(gradient), slopes, rtol=0, atol=1e-7 * np.linalg.norm(slopes))


# The iteration.


def test_one_step_is_fo_maml_with_the_support_set_in_both_roles():
    params, task = tanh_problem()
    value, gradient = ml.fo_muml(tanh_loss, STEP_SIZE, 1)(params, task)
    _, expected = ml.fo_maml(tanh_loss, optax.sgd(STEP_SIZE), 1)(params, Task(task.support, task.support))
    np.testing.assert_allclose(flat(gradient), flat(expected), rtol=1e-14)
    adapted = optax.tree.add_scale(params, -STEP_SIZE, jax.grad(tanh_loss)(params, task.support))
    np.testing.assert_allclose(value, tanh_loss(adapted, task.query), rtol=1e-14)


@pytest.mark.slow
def test_each_step_contracts_the_error_by_step_size_times_curvature(quadratics, theta):
    """Along an eigenvector of H the error of the gradient falls at the rate a times its curvature: a slope."""
    exact = theory.moreau(quadratics, STEP_SIZE).task_gradients(theta)
    curvature, axes = np.linalg.eigh(quadratics.support.hessian)
    steps = range(8)
    errors = np.stack([per_task(theta, quadratics, s)[1] - exact for s in steps])
    slopes = np.polyfit(steps, np.log(np.abs(np.einsum("sti,tij->stj", errors, axes))).reshape(8, -1), 1)[0]
    np.testing.assert_allclose(slopes, np.log(STEP_SIZE * curvature).ravel(), rtol=1e-6)

    bounds = (STEP_SIZE * curvature.max(axis=1)) ** (np.array(steps)[:, None] + 1) * np.linalg.norm(exact, axis=1)
    assert (np.linalg.norm(errors, axis=2) < bounds).all()


def test_the_anchored_iteration_is_no_gradient_descent(quadratics, theta):
    """Both take many steps of the same size: descent reaches the minimum of h, the anchored iteration only z*."""
    minima = Task(quadratics.support, quadratics.support)
    meta_gradient = ml.fo_maml(family.loss, optax.sgd(STEP_SIZE), 300)
    _, at_minimum = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(theta, minima)
    assert np.abs(at_minimum).max() < 1e-12
    assert (np.linalg.norm(per_task(theta, quadratics, 300)[1], axis=1) > 0.1).all()


@pytest.mark.parametrize("num_steps", [0, 1, 2, 5])
def test_it_never_asks_the_query_set_for_a_gradient(quadratics, theta, num_steps):
    other = quadratics._replace(query=jax.tree.map(lambda leaf: 2 * leaf, quadratics.query))
    losses, gradients = per_task(theta, quadratics, num_steps)
    other_losses, other_gradients = per_task(theta, other, num_steps)
    np.testing.assert_array_equal(gradients, other_gradients)
    assert (losses != other_losses).all()


# The outer loop.


def test_training_ends_at_a_distance_from_the_moreau_optimum_that_falls_geometrically(quadratics):
    """At the rate a L a step; it ends where the mean of H S (theta - m) is zero, S = I - aH + ... + (-aH)^s."""
    hessian, minimum = map(np.asarray, quadratics.support)
    optimum = theory.moreau(quadratics, STEP_SIZE).stationary_point()
    powers, distances = hessian, []
    slope = np.zeros_like(hessian)
    for num_steps in range(13):
        slope, powers = slope + powers, -STEP_SIZE * hessian @ powers
        expected = np.linalg.solve(slope.sum(axis=0), np.einsum("tij,tj->i", slope, minimum))
        distances.append(np.linalg.norm(expected - optimum))
        if num_steps in (0, 1, 3):
            np.testing.assert_allclose(end_of_training(quadratics, num_steps), expected, rtol=0, atol=1e-10)
    rate = STEP_SIZE * np.linalg.eigvalsh(hessian).max()
    assert np.polyfit(range(13), np.log(distances), 1)[0] == pytest.approx(np.log(rate), rel=0.1)


def end_of_training(tasks, num_steps):
    learner = ml.meta_learner(ml.fo_muml(family.loss, STEP_SIZE, num_steps), optax.sgd(1.0))
    train = jax.jit(lambda state: jax.lax.fori_loop(0, 300, lambda _, state: learner.step(state, tasks)[0], state))
    return np.asarray(train(learner.init(jnp.zeros(3))).params)


# In one dimension: where the Moreau envelope is smooth and convex, and the objective of iMAML is not.


def wavy(z, _):
    """Convex, with curvature from 0.1 to 1.9."""
    return jnp.sum(z**2 / 2 + 0.9 * jnp.cos(z))


def kinked(z, _):
    """Convex: slope 1 up to z = 1, then curvature min(z - 1, 1)."""
    bend = jnp.clip(z - 1, 0, 1)
    return jnp.sum(z + bend**3 / 6 + jnp.maximum(z - 2, 0) / 2 + jnp.maximum(z - 2, 0) ** 2 / 2)


METHODS = {
    "moreau": lambda loss, a: ml.fo_muml(loss, a, 600),
    "imaml": lambda loss, a: ml.imaml(loss, optax.sgd(1 / (2 + 1 / a)), 600, 1 / a, cg_steps=1),
}


def curvatures(method, loss, step_size, low, high):
    """Second derivatives of the method's objective on a grid, as slopes of its meta-gradient; support = query."""
    meta_gradient = METHODS[method](loss, step_size)
    starts = jnp.linspace(low, high, 4001)
    batch = jnp.zeros(1)
    gradients = jax.jit(jax.vmap(lambda x: meta_gradient(x, Task(batch, batch))[1]))(starts)
    return np.diff(gradients) / np.diff(starts)


@pytest.mark.slow
def test_the_objective_of_imaml_is_not_smooth_where_the_envelope_is():
    """Its curvature grows with the distance from the origin; the envelope's stays at L / (1 + a L)."""
    bound = 1.9 / (1 + 0.5 * 1.9)
    for method, grows in {"moreau": False, "imaml": True}.items():
        near, far, farther = (np.abs(curvatures(method, wavy, 0.5, r - 13, r)).max() for r in (10, 100, 1000))
        if grows:
            assert far > 5 * near
            assert farther > 5 * far
        else:
            assert max(near, far, farther) == pytest.approx(bound, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("step_size", [0.1, 0.8])
def test_the_objective_of_imaml_is_not_convex_where_the_envelope_is(step_size):
    """Right of z* = 1, that is of theta = 1 + a, the curvature of iMAML's objective drops to -a."""
    around = (step_size, 2 + step_size)
    assert curvatures("moreau", kinked, step_size, *around).min() > -1e-9
    assert curvatures("imaml", kinked, step_size, *around).min() == pytest.approx(-step_size, rel=0.02)


# Bad input.

CASES = {
    "step_size": (lambda: ml.fo_muml(wavy, 0.0, 1), ValueError, "step_size must be a finite number above 0.*0.0"),
    "num_steps": (
        lambda: ml.fo_muml(wavy, 0.1, 1.5),
        ValueError,
        "num_steps must be a whole number of at least 0.*1.5",
    ),
    "loss": (lambda: ml.fo_muml(3, 0.1, 1), TypeError, "loss must be a function"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_clear_error(*CASES[case])
