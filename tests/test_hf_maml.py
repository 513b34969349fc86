"""HF-MAML: maml, with differences of gradients where maml has Hessian-vector products."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import assert_clear_error, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task, theory

pytestmark = pytest.mark.filterwarnings("error")

STEP_SIZE = 0.3
INNERS = {
    "sgd": optax.sgd(STEP_SIZE),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.05, eps_root=1e-8),
}


def assert_close(actual, expected, rtol):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.linalg.norm(expected))


@pytest.mark.parametrize("perturbation", [0.5, 1e-3])
def test_one_step_is_the_paper_s_algorithm(x64, perturbation):
    """v - a [grad h(theta + e v / |v|) - grad h(theta - e v / |v|)] |v| / (2 e), at any e."""
    params, task = tanh_problem()
    theta, unravel = ravel_pytree(params)

    gradient = jax.jit(jax.grad(lambda phi, batch: tanh_loss(unravel(phi), batch)))

    adapted = theta - STEP_SIZE * gradient(theta, task.support)
    v = gradient(adapted, task.query)
    step = perturbation / np.linalg.norm(v)
    difference = gradient(theta + step * v, task.support) - gradient(theta - step * v, task.support)
    value, result = jax.jit(ml.hf_maml(tanh_loss, INNERS["sgd"], 1, perturbation))(params, task)
    assert_close(value, tanh_loss(unravel(adapted), task.query), 1e-12)
    assert_close(flat(result), v - STEP_SIZE * difference / (2 * step), 1e-10)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_it_is_exact_on_quadratics_at_any_perturbation(x64, num_steps):
    family = ml.tasks.Quadratic(dim=3)
    tasks, theta = family(jax.random.key(1), 4), jnp.array([1.0, -2.0, 0.5])
    exact = theory.unrolled(tasks, STEP_SIZE, num_steps)
    meta_gradient = ml.hf_maml(family.loss, INNERS["sgd"], num_steps, perturbation=3.0)
    values, gradients = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(theta, tasks)
    assert_close(values, exact.query_losses(theta), 1e-12)
    assert_close(gradients, exact.task_gradients(theta), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNERS)
def test_order_two_in_the_perturbation(x64, inner):
    """Under any inner rule; the error is that of the difference, and tends to zero."""
    params, task = tanh_problem()
    perturbations = np.geomspace(1e-3, 1e-2, 4)
    exact = jax.jit(ml.maml(tanh_loss, INNERS[inner], 5))

    @jax.jit
    def estimates(params, task):
        return [ml.hf_maml(tanh_loss, INNERS[inner], 5, e)(params, task) for e in perturbations]

    value, gradient = exact(params, task)
    estimated_values, estimated = zip(*estimates(params, task), strict=True)
    assert_close(estimated_values, [value] * len(perturbations), 1e-12)
    errors = [np.linalg.norm(flat(estimate) - flat(gradient)) for estimate in estimated]
    assert errors[0] < 1e-5 * np.linalg.norm(flat(gradient))
    assert np.polyfit(np.log(perturbations), np.log(errors), 1)[0] == pytest.approx(2, abs=0.02)


def test_it_differentiates_the_loss_after_adaptation(x64):
    """Finite differences of its own value, which no Hessian enters."""
    params, task = tanh_problem()
    meta_gradient = ml.hf_maml(tanh_loss, INNERS["sgd"], 5, perturbation=1e-4)
    expected = central_differences(lambda start: meta_gradient(start, task)[0], params)
    assert_close(flat(meta_gradient(params, task)[1]), expected, 1e-7)


@pytest.mark.slow
def test_float32_keeps_two_digits_over_the_recommended_range():
    params, task = tanh_problem()

    @jax.jit
    def estimates(params, task):
        return [ml.hf_maml(tanh_loss, INNERS["sgd"], 5, e)(params, task)[1] for e in (1e-3, 1e-2, 1e-1)]

    in_float32 = [flat(estimate) for estimate in estimates(params, task)]
    with jax.enable_x64(True):
        in_float64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, task))
        exact = flat(jax.jit(ml.maml(tanh_loss, INNERS["sgd"], 5))(*in_float64)[1])
    for estimate in in_float32:
        assert estimate.dtype == np.float32
        assert np.linalg.norm(estimate - exact) < 1e-2 * np.linalg.norm(exact)


@jax.custom_jvp
def once(x):
    """The identity; it has no derivative."""
    return x


@once.defjvp
def forbidden(primals, tangents):
    raise AssertionError("a second derivative was taken")


@jax.custom_jvp
def tanh(x):
    """tanh, which can be differentiated once; `slopes` counts how often, when the program runs."""
    return jnp.tanh(x)


slopes = []


@tanh.defjvp
def tanh_slope(primals, tangents):
    y = jnp.tanh(primals[0])
    jax.debug.callback(lambda _: slopes.append(1), y.sum())
    return y, once(1 - y**2) * tangents[0]


def once_differentiable_loss(params, batch):
    inputs, targets = batch
    return jnp.mean((tanh(inputs @ params["hidden"]) @ params["output"] - targets) ** 2) / 2


@pytest.mark.slow
def test_no_second_derivative_is_taken(x64):
    params, task = tanh_problem()
    with pytest.raises(AssertionError, match="second derivative"):
        ml.maml(once_differentiable_loss, INNERS["sgd"], 5)(params, task)
    value, gradient = jax.jit(ml.hf_maml(once_differentiable_loss, INNERS["sgd"], 5, 0.05))(params, task)
    expected_value, expected = jax.jit(ml.hf_maml(tanh_loss, INNERS["sgd"], 5, 0.05))(params, task)
    assert_close(value, expected_value, 1e-12)
    assert_close(flat(gradient), flat(expected), 1e-12)


@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_it_costs_three_gradients_a_step_and_one(num_steps):
    params, task = tanh_problem()
    meta_gradient = jax.jit(ml.hf_maml(once_differentiable_loss, INNERS["sgd"], num_steps, 0.05))
    slopes.clear()
    jax.block_until_ready(meta_gradient(params, task))
    jax.effects_barrier()
    assert len(slopes) == 3 * num_steps + 1


def test_it_is_differentiated_in_params_and_in_nothing_else(x64):
    """In params JAX differentiates the value exactly; in data and in the perturbation it would find 0 in silence."""
    params, task = tanh_problem()
    meta_gradient = ml.hf_maml(tanh_loss, INNERS["sgd"], 2, 0.05)
    value, found = jax.value_and_grad(lambda params: meta_gradient(params, task)[0])(params)
    assert_close(value, meta_gradient(params, task)[0], 1e-12)
    assert_close(flat(found), flat(ml.maml(tanh_loss, INNERS["sgd"], 2)(params, task)[1]), 1e-12)
    for result in (lambda pair: pair[0], lambda pair: ravel_pytree(pair[1])[0][0]):
        with pytest.raises(TypeError, match="differentiated in params only"):
            jax.grad(lambda task, result=result: result(meta_gradient(params, task)))(task)
    with pytest.raises(TypeError, match="differentiated in params only"):
        jax.grad(lambda nu: ravel_pytree(ml.hf_maml(tanh_loss, INNERS["sgd"], 2, nu)(params, task)[1])[0][0])(0.05)


@pytest.mark.slow
def test_memory_grows_by_params_and_not_by_layer_outputs():
    """With 2,000 examples the outputs of the hidden layer are 6,000 numbers, params 9."""
    params, task = tanh_problem(num_examples=2000)

    def bytes_per_step(method, **arguments):
        programs = (jax.jit(method(tanh_loss, INNERS["sgd"], k, **arguments)).lower(params, task) for k in (10, 20))
        few, many = (program.compile().memory_analysis().temp_size_in_bytes for program in programs)
        return (many - few) / 10

    assert bytes_per_step(ml.hf_maml, perturbation=0.05) < 3 * flat(params).nbytes
    assert bytes_per_step(ml.maml) > 4 * 6000


@pytest.mark.slow
def test_where_the_query_gradient_is_zero_so_is_the_result():
    """No division by the length of a zero vector."""
    params, task = tanh_problem()
    perfect = task._replace(query=(task.query[0], jnp.tanh(task.query[0] @ params["hidden"]) @ params["output"]))
    value, gradient = ml.hf_maml(tanh_loss, optax.sgd(0.0), 1, 0.05)(params, perfect)
    assert value == 0
    np.testing.assert_array_equal(flat(gradient), 0)


@pytest.mark.slow
def test_batches_may_hold_whole_numbers(x64):
    """Labels have no derivative; a classifier's batch passes through the rule for derivatives all the same."""
    loss = ml.losses.cross_entropy(lambda params, x: x @ params)
    params, labels = jnp.array([[0.3, -0.2], [0.1, 0.4]]), jnp.array([0, 1, 1, 0])
    task = Task(*((jax.random.normal(jax.random.key(i), (4, 2)), labels) for i in (0, 1)))
    _, gradient = jax.jit(ml.hf_maml(loss, optax.sgd(0.5), 3, 1e-4))(params, task)
    _, exact = jax.jit(ml.maml(loss, optax.sgd(0.5), 3))(params, task)
    assert_close(gradient, exact, 1e-7)


SGD, POSITIVE = optax.sgd(0.1), "must be a finite number above 0"
CASES = {
    "no loss": (lambda: ml.hf_maml(None, SGD, 1, 0.1), TypeError, "loss must be a function.*NoneType"),
    "inner is a rate": (lambda: ml.hf_maml(tanh_loss, 0.1, 1, 0.1), TypeError, "inner must be an optax"),
    "negative steps": (lambda: ml.hf_maml(tanh_loss, SGD, -1, 0.1), ValueError, "num_steps must be a whole number"),
    "zero e": (lambda: ml.hf_maml(tanh_loss, SGD, 1, 0.0), ValueError, f"perturbation {POSITIVE}.*0.0"),
    "negative e": (lambda: ml.hf_maml(tanh_loss, SGD, 1, -0.1), ValueError, f"perturbation {POSITIVE}.*-0.1"),
    "e is NaN": (lambda: ml.hf_maml(tanh_loss, SGD, 1, np.nan), ValueError, f"perturbation {POSITIVE}.*nan"),
    "e as text": (lambda: ml.hf_maml(tanh_loss, SGD, 1, "0.1"), ValueError, f"perturbation {POSITIVE}"),
    "vector loss": (
        lambda: ml.hf_maml(lambda params, batch: batch[1], SGD, 1, 0.1)(*tanh_problem()),
        ValueError,
        "loss must return a scalar",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_is_wrong(case):
    assert_clear_error(*CASES[case])
