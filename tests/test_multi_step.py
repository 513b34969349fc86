"""Many inner steps: each on a batch of its own, and how much they let the meta-objective bend."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import assert_clear_error, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

STEP_SIZE = 0.3
NUM_STEPS = 4
INNERS = {"sgd": optax.sgd(STEP_SIZE), "momentum": optax.sgd(0.1, momentum=0.9)}


def resampled_problem(seed=0):
    """(params, task) with a support batch for each of the steps, all different."""
    params, task = tanh_problem(seed)
    batches = [tanh_problem(100 * seed + step + 1)[1].support for step in range(NUM_STEPS)]
    return params, Task(jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches), task.query)


def batch_of_step(task, step):
    return jax.tree.map(lambda leaf: leaf[step], task.support)


gradient_of_loss = jax.jit(jax.grad(tanh_loss))


def explicit_path(params, task, inner):
    """phi_0 ... phi_K by a Python loop, each step on its own batch."""
    path, memory = [params], inner.init(params)
    for step in range(NUM_STEPS):
        updates, memory = inner.update(gradient_of_loss(path[-1], batch_of_step(task, step)), memory, path[-1])
        path.append(optax.apply_updates(path[-1], updates))
    return path


def assert_close(actual, expected, rtol=1e-9):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.linalg.norm(expected))


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNERS)
def test_resampled_maml_differentiates_the_loss_after_a_step_on_each_batch(inner):
    params, task = resampled_problem()
    meta_gradient = ml.maml(tanh_loss, INNERS[inner], NUM_STEPS, resample=True)
    value, gradient = jax.jit(meta_gradient)(params, task)
    assert_close(value, tanh_loss(explicit_path(params, task, INNERS[inner])[-1], task.query))
    assert_close(flat(gradient), central_differences(lambda start: meta_gradient(start, task)[0], params), 1e-7)


@pytest.mark.slow
def test_resampled_maml_is_the_product_of_each_batch_s_factor():
    """(I - a H_0) ... (I - a H_{K-1}) grad f(phi_K), with H_k the Hessian on the batch of step k."""
    params, task = resampled_problem()
    _, unravel = ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda phi, batch: tanh_loss(unravel(phi), batch)))
    path = explicit_path(params, task, INNERS["sgd"])
    expected = flat(gradient_of_loss(path[-1], task.query))
    for step in reversed(range(NUM_STEPS)):
        expected = expected - STEP_SIZE * hessian(ravel_pytree(path[step])[0], batch_of_step(task, step)) @ expected
    _, gradient = ml.maml(tanh_loss, INNERS["sgd"], NUM_STEPS, resample=True)(params, task)
    assert_close(flat(gradient), expected)


def test_resampled_fo_maml_is_the_query_gradient_where_the_path_ends():
    params, task = resampled_problem()
    end = explicit_path(params, task, INNERS["sgd"])[-1]
    value, gradient = ml.fo_maml(tanh_loss, INNERS["sgd"], NUM_STEPS, resample=True)(params, task)
    assert_close(value, tanh_loss(end, task.query))
    assert_close(flat(gradient), flat(gradient_of_loss(end, task.query)))


@pytest.mark.parametrize("method", ["maml", "fo_maml"])
def test_the_same_batch_at_every_step_is_a_given_support_set(method):
    params, task = tanh_problem()
    repeated = task._replace(support=jax.tree.map(lambda leaf: jnp.stack([leaf] * NUM_STEPS), task.support))
    factory = getattr(ml, method)
    value, gradient = jax.jit(factory(tanh_loss, INNERS["sgd"], NUM_STEPS, resample=True))(params, repeated)
    expected_value, expected = jax.jit(factory(tanh_loss, INNERS["sgd"], NUM_STEPS))(params, task)
    assert_close(value, expected_value, 1e-12)
    assert_close(flat(gradient), flat(expected), 1e-12)


@pytest.mark.slow
def test_in_a_batch_of_tasks_the_steps_come_after_the_tasks():
    """One outer step of gradient descent is the mean of the tasks, one by one."""
    problems = [resampled_problem(seed) for seed in range(2)]
    params, tasks = problems[0][0], [task for _, task in problems]
    meta_gradient = jax.jit(ml.maml(tanh_loss, INNERS["sgd"], NUM_STEPS, resample=True))
    mean = np.mean([flat(meta_gradient(params, task)[1]) for task in tasks], axis=0)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    assert batch.support[0].shape[:2] == (2, NUM_STEPS)
    learner = ml.meta_learner(meta_gradient, optax.sgd(1.0))
    state, info = jax.jit(learner.step)(learner.init(params), batch)
    assert info.finite.all()
    assert_close(flat(params) - flat(state.params), mean)


# The theory. The wave 1 - cos has L = r = 1; a tilt adds gradient, and changes neither.


def wave(w, tilt):
    return 1 - jnp.cos(w) + tilt[0] * w


def curvature_after_adaptation(loss, step_size, num_steps, batch, points):
    """|F''| at each point, by differentiating the library's meta-gradient."""
    meta_gradient = ml.maml(loss, optax.sgd(step_size), num_steps)
    return np.abs(jax.jit(jax.vmap(jax.grad(lambda w: meta_gradient(w, Task(batch, batch))[1])))(points))


@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_the_first_term_is_attained_where_a_quadratic_curves_downwards(num_steps):
    """phi_N = (1 + a L)^N w, so F = -L/2 (1 + a L)^(2N) w^2; a quadratic's Hessian does not change."""
    curvature = curvature_after_adaptation(
        lambda w, hill: -hill[0] / 2 * w**2, 0.4, num_steps, jnp.full(1, 0.7), jnp.ones(1)
    )
    assert curvature[0] == pytest.approx(theory.smoothness_bound(0.4, num_steps, 0.7, 1.0, 0.0), rel=1e-12)


def test_the_second_term_is_the_sum_over_steps():
    """Each factor's change, with the other N - 1 factors and the gradient at the end."""
    a, n, smooth, rho, gradient = 0.3, 5, 2.0, 0.7, np.array([0.5, 3.0])
    up = 1 + a * smooth
    expected = up ** (2 * n) * smooth + sum(a * rho * up**k * up ** (n - 1) * up**n * gradient for k in range(n))
    np.testing.assert_allclose(theory.smoothness_bound(a, n, smooth, rho, gradient), expected, rtol=1e-12)


@pytest.mark.parametrize(("num_steps", "tilt"), [(1, 0.0), (4, 0.0), (16, 0.0), (1, 5.0)])
def test_no_wave_bends_more_than_the_bound(num_steps, tilt):
    """On the level the first term is attained, at the top; on a slope the second is needed."""
    points = jnp.linspace(0, 2 * jnp.pi, 2001)
    curvature = curvature_after_adaptation(wave, 0.5, num_steps, jnp.full(1, tilt), points)
    bound = theory.smoothness_bound(0.5, num_steps, 1.0, 1.0, np.abs(np.sin(points) + tilt))
    assert (curvature <= bound * (1 + 1e-9)).all()
    first_term = theory.smoothness_bound(0.5, num_steps, 1.0, 1.0, 0.0)
    if tilt:
        assert curvature.max() > 1.5 * first_term
    else:
        assert curvature.max() == pytest.approx(first_term, rel=1e-9)


@pytest.mark.parametrize("num_steps", [1, 3, 100])
def test_the_largest_stable_step_doubles_the_curvature_and_shrinks_like_one_over_n(num_steps):
    step_size = theory.largest_stable_step(num_steps, smoothness=2.5)
    assert theory.smoothness_bound(step_size, num_steps, 2.5, 1.0, 0.0) == pytest.approx(2 * 2.5, rel=1e-9)
    assert np.log(2) < 2 * num_steps * step_size * 2.5 < 1


SGD = optax.sgd(0.1)


def call(params_and_task, num_steps=NUM_STEPS):
    return ml.maml(tanh_loss, SGD, num_steps, resample=True)(*params_and_task)


def ragged():
    params, task = resampled_problem()
    inputs, targets = task.support
    return params, task._replace(support=(inputs, targets[0]))


CASES = {
    "resample: text": (lambda: ml.maml(tanh_loss, SGD, 1, resample="yes"), TypeError, "resample must be True or False"),
    "resample: number": (lambda: ml.fo_maml(tanh_loss, SGD, 1, 3), TypeError, "resample must be True or False.*3"),
    "resample: too few batches": (
        lambda: call(resampled_problem(), NUM_STEPS + 1),
        ValueError,
        "leading axis of length num_steps = 5, but it has length 4",
    ),
    "resample: one batch": (lambda: call(tanh_problem()), ValueError, "num_steps = 4, but it has length 6"),
    "resample: ragged": (lambda: call(ragged()), ValueError, "leading axis counts inner steps and must be the same"),
    "bound: zero step": (
        lambda: theory.smoothness_bound(0, 1, 1, 1, 1),
        ValueError,
        "step_size must be a finite number above 0",
    ),
    "bound: negative steps": (
        lambda: theory.smoothness_bound(0.1, -1, 1, 1, 1),
        ValueError,
        "num_steps must be a whole number of at least 0",
    ),
    "bound: zero L": (lambda: theory.smoothness_bound(0.1, 1, 0, 1, 1), ValueError, "smoothness must be a finite"),
    "bound: negative r": (
        lambda: theory.smoothness_bound(0.1, 1, 1, -1, 1),
        ValueError,
        "hessian_lipschitz must be a finite",
    ),
    "stable step: no steps": (
        lambda: theory.largest_stable_step(0, 1),
        ValueError,
        "num_steps must be a whole number of at least 1",
    ),
    "stable step: zero L": (lambda: theory.largest_stable_step(1, 0), ValueError, "smoothness must be a finite"),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_is_wrong(case):
    assert_clear_error(*CASES[case])
