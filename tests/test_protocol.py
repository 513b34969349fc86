"""What every meta-gradient promises, whatever its mathematics: a drop-in for jax.value_and_grad."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import CONTAINERS, METHODS, build, flat, tanh_loss, tanh_problem

import metalearn as ml

pytestmark = pytest.mark.filterwarnings("error")

INNERS = {
    "momentum": optax.sgd(0.05, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.05, eps_root=1e-8),
}
DTYPES = {
    "float64": (jnp.float64, jnp.float64),
    "bfloat16": (jnp.bfloat16, jnp.bfloat16),
    "mixed": (jnp.float32, jnp.bfloat16),
}
sample_tasks = ml.tasks.Sinusoid(
    num_support=4, num_query=4, amplitude=(2.0, 2.0), phase=(0.0, 0.0), x_range=(-1.0, 1.0)
)


def every_method(**choices):
    """Each method with each combination of the choices; the tests of one method share what they compile.

    A-MAML's solver takes seconds to compile, so most of its combinations are run by .ci/run only.
    """

    def case(method, *values):
        marks = [pytest.mark.xdist_group(f"protocol {method}")]
        if method == "a_maml" and values not in ((), ("tuple",)):
            marks.append(pytest.mark.slow)
        return pytest.param(method, *values, id="-".join((*values, method)), marks=marks)

    combinations = itertools.product(METHODS, *choices.values())
    return pytest.mark.parametrize(("method", *choices), [case(*combination) for combination in combinations])


def assert_like(gradient, params):
    chex.assert_trees_all_equal_structs(gradient, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)


def regression(container):
    """(params, loss) of a small regression, its parameters held in that kind of container."""
    params, apply = CONTAINERS[container]()
    return params, ml.losses.mean_squared_error(apply)


@every_method(container=CONTAINERS)
def test_any_pytree_of_params_gives_what_one_array_gives(method, container):
    params, loss = regression(container)
    task = jax.tree.map(lambda leaf: leaf[0], sample_tasks(jax.random.key(0), 1))
    vector, unravel = ravel_pytree(params)

    value, gradient = jax.jit(build(method, loss))(params, task)
    assert_like(gradient, params)

    flat_value, flat_gradient = jax.jit(build(method, lambda x, batch: loss(unravel(x), batch)))(vector, task)
    assert np.linalg.norm(flat_gradient) > 1e-3, "a comparison of zeros would prove nothing"
    np.testing.assert_allclose(value, flat_value, rtol=1e-5)
    np.testing.assert_allclose(flat(gradient), flat_gradient, atol=1e-3 * np.linalg.norm(flat_gradient))


@every_method()
def test_vmap_over_tasks_is_a_loop(method):
    params, _ = tanh_problem()
    tasks = [tanh_problem(seed)[1] for seed in range(3)]
    meta_gradient = build(method, tanh_loss)
    one_task = jax.jit(meta_gradient)
    one_by_one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one_task(params, task) for task in tasks))
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    side_by_side = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(params, batch)
    chex.assert_trees_all_close(side_by_side, one_by_one, rtol=1e-3, atol=1e-4)


@functools.cache
def in_float32(method):
    return flat(jax.jit(build(method, tanh_loss, num_steps=2))(*tanh_problem())[1])


@every_method(dtype=DTYPES)
def test_dtypes_are_those_of_params(method, dtype):
    """Data stay float32, as they come; each leaf of the gradient has the dtype of its leaf of params."""
    params, task = tanh_problem()
    expected = in_float32(method)
    with jax.enable_x64(dtype == "float64"):
        params = dict(zip(params, map(jnp.astype, params.values(), DTYPES[dtype]), strict=True))
        value, gradient = jax.jit(build(method, tanh_loss, num_steps=2))(params, task)
        assert value.shape == ()
        assert_like(gradient, params)
        # bfloat16 keeps 8 bits, of which a finite difference loses several: only the direction must survive.
        actual = flat(gradient).astype(np.float64)
    cosine = actual @ expected / np.linalg.norm(actual) / np.linalg.norm(expected)
    assert cosine > (0.9999 if dtype == "float64" else 0.9)


@every_method()
def test_one_program_serves_new_values(method):
    """New parameters, their own outputs among them, and new tasks compile nothing."""
    chex.clear_trace_counter()  # chex knows functions by their source, and hf_maml is maml of another loss
    params, _ = tanh_problem()
    meta_gradient = jax.jit(chex.assert_max_traces(build(method, tanh_loss), n=1))
    for seed in range(3):
        _, gradient = meta_gradient(params, tanh_problem(seed)[1])
        params = optax.tree.add_scale(params, -0.1, gradient)


@every_method(inner=INNERS)
def test_any_optax_rule_adapts(method, inner):
    """On a task whose query is its support, the loss falls with the inner steps; the gradient stays finite."""
    params, task = tanh_problem()
    task = task._replace(query=task.support)
    losses = [tanh_loss(params, task.query)]
    for num_steps in (1, 5):
        value, gradient = jax.jit(build(method, tanh_loss, INNERS[inner], num_steps=num_steps))(params, task)
        assert_like(gradient, params)
        assert np.isfinite(flat(gradient)).all()
        losses.append(value)
    assert losses[0] > losses[1]
    assert losses[0] > losses[2]
    # Further steps take two no further: they find the end of the flow, or the proximal point, more precisely. And
    # meta_rkhs_i takes none.
    assert losses[1] > losses[2] or method in ("a_maml", "fo_muml", "meta_rkhs_i")


@every_method()
def test_the_query_set_scores_and_the_support_set_adapts(method):
    """Where the query loss is the constant 0, the value is 0, and only those that never ask it still move."""
    params, task = tanh_problem()

    def flagged_loss(params, batch):
        return tanh_loss(params, batch[:2]) * batch[2].mean()

    flags = jnp.ones(task.support[0].shape[0])
    silent = ml.Task((*task.support, flags), (*task.query, 0 * flags))
    value, gradient = jax.jit(build(method, flagged_loss))(params, silent)
    assert value == 0
    assert (np.linalg.norm(flat(gradient)) > 1e-2) == (method in ("reptile", "fo_muml"))


@every_method()
def test_it_drives_a_learner(method):
    """The learner's state keeps its types, so that its steps can be scanned, and training lowers the loss."""
    params, loss = regression("nnx")
    learner = ml.meta_learner(build(method, loss), ml.outer.normalized_sgd(0.05))
    tasks = sample_tasks(jax.random.key(1), 3)
    start = learner.init(params)
    end, info = jax.jit(lambda state: jax.lax.scan(lambda state, _: learner.step(state, tasks), state, length=30))(
        start
    )
    assert_like(end, start)
    losses = info.query_loss.mean(axis=1)
    assert losses[-1] < 0.9 * losses[0]
