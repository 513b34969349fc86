"""A-MAML: the gradient of a flow, in closed form, by the equations of its paper, and as the limit of small steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
from jax.flatten_util import ravel_pytree
from problems import assert_clear_error, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory
from metalearn.meta_gradients.a_maml import _step

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

HORIZON = 2.0
family = ml.tasks.Quadratic(dim=3)


@pytest.fixture(scope="module")
def network():
    """(params, task, p(0)): dp/dt = (hess h(u(t))) p from p(T) = grad f(u(T)), solved by SciPy to 12 digits."""
    with jax.enable_x64(True):
        params, task = tanh_problem()
        start, unravel = ravel_pytree(params)
        slope = jax.jit(jax.grad(lambda u, batch: tanh_loss(unravel(u), batch)))
        hessian = jax.jit(jax.hessian(lambda u: tanh_loss(unravel(u), task.support)))

        def solve(rate, span, start):
            settings = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13, "dense_output": True}
            return scipy.integrate.solve_ivp(rate, span, start, **settings).sol

        path = solve(lambda _, u: -np.asarray(slope(u, task.support)), (0, HORIZON), np.asarray(start))
        end = np.asarray(slope(path(HORIZON), task.query))
        return params, task, solve(lambda t, p: np.asarray(hessian(path(t))) @ p, (HORIZON, 0), end)(0)


def relative(actual, expected):
    return np.linalg.norm(flat(actual) - expected) / np.linalg.norm(expected)


# The gradient.


@pytest.mark.slow
def test_theory_flow_is_the_limit_of_gradient_steps(quadratics, theta):
    """(I - H T / K)^K -> exp(-T H), half as far for twice the steps."""
    exact = theory.flow(quadratics, HORIZON)
    errors = [
        np.linalg.norm(theory.unrolled(quadratics, HORIZON / k, k).task_gradients(theta) - exact.task_gradients(theta))
        for k in (10_000, 20_000)
    ]
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=1e-3)


def test_it_is_the_closed_form_on_quadratics_to_at_least_fifth_order(quadratics, theta):
    """p(0) = exp(-T H) A (u(T) - q). The horizon may be known only when the program runs."""
    exact = theory.flow(quadratics, HORIZON)

    def solved(num_steps):
        def per_task(horizon, task):
            return ml.a_maml(family.loss, horizon, num_steps)(theta, task)

        losses, gradients = jax.jit(jax.vmap(per_task, in_axes=(None, 0)))(HORIZON, quadratics)
        return losses, np.linalg.norm(gradients - exact.task_gradients(theta), axis=1)

    steps = np.array([8, 24])
    (_, few), (losses, many) = map(solved, steps)
    np.testing.assert_allclose(losses, exact.query_losses(theta), rtol=1e-8)
    assert (many < 1e-8 * np.linalg.norm(exact.task_gradients(theta), axis=1)).all()
    assert (np.log(many / few) / np.log(steps[1] / steps[0]) < -5).all()


@pytest.mark.slow
def test_it_solves_the_equations_of_the_paper(network):
    params, task, exact = network
    _, gradient = jax.jit(ml.a_maml(tanh_loss, HORIZON, 32))(params, task)
    assert relative(gradient, exact) < 5e-8


@pytest.mark.slow
def test_maml_tends_to_it_to_first_order(network):
    params, task, exact = network
    steps = np.array([400, 800, 1600])
    errors = [
        relative(jax.jit(ml.maml(tanh_loss, optax.sgd(HORIZON / k), int(k)))(params, task)[1], exact) for k in steps
    ]
    assert errors[-1] < 1e-3
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.02)


@pytest.mark.slow
def test_however_few_the_steps_the_gradient_is_that_of_the_value(network):
    params, task, _ = network
    start, unravel = ravel_pytree(params)
    meta_gradient = ml.a_maml(lambda x, batch: tanh_loss(unravel(x), batch), HORIZON, 2)
    shifts = 1e-5 * np.eye(start.size)
    starts = np.concatenate([start[None], start + shifts, start - shifts])
    values, gradients = jax.jit(jax.vmap(meta_gradient, in_axes=(0, None)))(starts, task)
    assert relative(gradients[0], (values[1:10] - values[10:]) / 2e-5) < 1e-8


# Backwards.


def valley(params, batch):
    """A narrow curved valley: curvature 20 across it, 1 along it; the batch is only added."""
    across, along = params
    return 10 * (across - jnp.sin(along)) ** 2 + along**2 / 2 + across * jnp.mean(batch)


@pytest.mark.slow
def test_a_path_integrated_backwards_is_lost():
    """With L T = 40 an error grows by exp(40) on the way back, so the Hessians are those of another path; not at 4."""
    num_steps = 400
    params, task = jnp.array([1.0, 2.0]), Task(jnp.zeros(1), jnp.ones(1))

    @jax.jit
    def by_running_backwards(horizon):
        """u and p by their two equations, from T to 0, with the steps that found u(T)."""

        def slope(u):
            return horizon / num_steps * jax.grad(valley)(u, task.support)

        def backwards(state):
            u, p = jnp.split(state, 2)
            gradient, product = jax.jvp(slope, (u,), (p,))
            return jnp.concatenate([gradient, -product])

        u, _ = jax.lax.scan(lambda u, _: (_step(lambda u: -slope(u), u), None), params, length=num_steps)
        state = jnp.concatenate([u, jax.grad(valley)(u, task.query)])
        state, _ = jax.lax.scan(lambda state, _: (_step(backwards, state), None), state, length=num_steps)
        return jnp.split(state, 2)[1]

    with_checkpoints = jax.jit(lambda horizon: ml.a_maml(valley, horizon, num_steps)(params, task)[1])
    exact = np.asarray(jax.jit(ml.maml(valley, optax.sgd(2.0 / 20_000), 20_000))(params, task)[1])
    assert relative(with_checkpoints(2.0), exact) < 1e-3, "as far as gradient steps are from the flow"
    assert not relative(by_running_backwards(2.0), exact) < 1
    assert relative(by_running_backwards(0.2), np.asarray(with_checkpoints(0.2))) < 1e-7


@pytest.mark.slow
def test_memory_grows_with_the_square_root_of_the_number_of_steps():
    """That of MAML grows in proportion. Read from the compiled programs, with 2000 parameters."""
    params = jnp.zeros(2000)
    task = Task(jnp.ones((1, 2000)), jnp.ones((1, 2000)))

    def loss(params, batch):
        return jnp.mean(jnp.log(jnp.cosh(params - batch)))

    def growth(build, steps):
        bytes_ = [jax.jit(build(k)).lower(params, task).compile().memory_analysis().temp_size_in_bytes for k in steps]
        return np.polyfit(np.log(steps), np.log(bytes_), 1)[0]

    assert growth(lambda k: ml.a_maml(loss, 1.0, k), [128, 2048]) < 0.55
    assert growth(lambda k: ml.maml(loss, optax.sgd(0.1), k), [128, 2048]) > 0.95


# Use.


def test_labels_may_be_whole_numbers():
    """The solver does not mistake them for something to differentiate."""
    key = jax.random.key(0)
    batch = (jax.random.normal(key, (6, 2)), jnp.array([0, 1, 2, 0, 1, 2]))
    loss = ml.losses.cross_entropy(lambda params, x: x @ params)
    _, gradient = jax.jit(ml.a_maml(loss, 0.5, 1))(jnp.zeros((2, 3)), Task(batch, batch))
    assert np.linalg.norm(gradient) > 0.01


@pytest.mark.slow
def test_a_flow_that_runs_away_is_left_out_by_the_learner():
    """One task of two has a support loss without a bound: it is marked, and training goes on with the other."""

    def loss(params, batch):
        return jnp.sum(-batch * params**4 + params**2)

    tasks = Task(jnp.array([[0.0], [9.0]]), jnp.zeros((2, 1)))
    learner = ml.meta_learner(ml.a_maml(loss, 5.0, 20), optax.sgd(0.1))
    state, info = jax.jit(learner.step)(learner.init(jnp.ones(1)), tasks)
    np.testing.assert_array_equal(info.finite, [True, False])
    assert np.isfinite(state.params).all()


CASES = {
    "horizon": (lambda: ml.a_maml(tanh_loss, -1.0, 5), ValueError, "horizon must be a finite number above 0.*-1.0"),
    "num_steps": (lambda: ml.a_maml(tanh_loss, 1.0, 0), ValueError, "num_steps must be a whole number of at least 1"),
    "loss": (lambda: ml.a_maml(3, 1.0, 5), TypeError, "loss must be a function"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_clear_error(*CASES[case])
