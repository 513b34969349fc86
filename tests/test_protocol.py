"""What every meta-gradient promises, whatever its mathematics: a drop-in for jax.value_and_grad."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CONTAINERS, METHODS, build, flat, tanh_loss, tanh_problem

import metalearn as ml

pytestmark = pytest.mark.filterwarnings("error")

INNERS = {
    "momentum": optax.sgd(0.05, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.05, eps_root=1e-8),
}
sample_tasks = ml.tasks.Sinusoid(
    num_support=4, num_query=4, amplitude=(2.0, 2.0), phase=(0.0, 0.0), x_range=(-1.0, 1.0)
)


IN_EVERY_RUN = "fo_b_maml"  # .ci/run tests the others as well


def every_method(**choices):
    """Each method with each combination of the choices, its name last, by which conftest.py tells them apart."""
    combinations = itertools.product(METHODS, *choices.values())
    cases = [
        pytest.param(
            method,
            *values,
            id="-".join((*values, method)),
            marks=() if method == IN_EVERY_RUN else pytest.mark.slow,
        )
        for method, *values in combinations
    ]
    return pytest.mark.parametrize(("method", *choices), cases)


@every_method()
def test_it_is_a_drop_in_for_value_and_grad(method):
    ml.testing.check_meta_gradient(lambda loss: build(method, loss))


@pytest.mark.slow
@every_method(inner=INNERS)
def test_adaptive_optimizers_adapt(method, inner):
    """On a task whose query is its support, the loss falls with the inner steps; the gradient stays finite."""
    params, task = tanh_problem()
    task = task._replace(query=task.support)
    losses = [tanh_loss(params, task.query)]
    for num_steps in (1, 5):
        value, gradient = jax.jit(build(method, tanh_loss, INNERS[inner], num_steps=num_steps))(params, task)
        assert np.isfinite(flat(gradient)).all()
        losses.append(value)
    assert losses[0] > losses[1]
    assert losses[0] > losses[2]
    # Further steps take two no further: they find the end of the flow, or the proximal point, more precisely. And
    # meta_rkhs_i takes none.
    assert losses[1] > losses[2] or method in ("a_maml", "fo_muml", "meta_rkhs_i")


@every_method()
def test_only_some_move_where_the_query_loss_is_constant(method):
    """Reptile and FO-MuML ask the support set alone; every other meta-gradient is then zero."""
    params, task = tanh_problem()

    def flagged_loss(params, batch):
        return tanh_loss(params, batch[:2]) * batch[2].mean()

    flags = jnp.ones(task.support[0].shape[0])
    silent = ml.Task((*task.support, flags), (*task.query, 0 * flags))
    _, gradient = jax.jit(build(method, flagged_loss))(params, silent)
    assert (np.linalg.norm(flat(gradient)) > 1e-2) == (method in ("reptile", "fo_muml"))


@pytest.mark.slow
@every_method()
def test_it_drives_a_learner(method):
    """The learner's state keeps its types, so that its steps can be scanned, and training lowers the loss."""
    params, apply = CONTAINERS["nnx"]()
    loss = ml.losses.mean_squared_error(apply)
    learner = ml.meta_learner(build(method, loss), ml.outer.normalized_sgd(0.05))
    tasks = sample_tasks(jax.random.key(1), 3)
    start = learner.init(params)
    end, info = jax.jit(lambda state: jax.lax.scan(lambda state, _: learner.step(state, tasks), state, length=30))(
        start
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), end) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), start
    )
    losses = info.query_loss.mean(axis=1)
    assert losses[-1] < 0.9 * losses[0]


def plain(loss):
    """Joint training: no adaptation, but a drop-in all the same."""
    return lambda params, task: jax.value_and_grad(loss)(params, task.query)


def changed(change):
    """`plain` with its pair changed, as in a method with a mistake."""
    return lambda loss: lambda params, task: change(params, task, *plain(loss)(params, task))


BROKEN = {
    "The value must be a scalar": changed(lambda p, t, value, g: (value[None], g)),
    "must be a pytree like params": changed(lambda p, t, value, g: (value, [*g.values()])),
    r"gradient\['output'\] must be float32\[3\]": changed(lambda p, t, v, g: (v, {**g, "output": g["output"].sum()})),
    "is not finite": changed(lambda p, t, value, g: (value, jax.tree.map(lambda leaf: leaf / 0, g))),
    "is zero": changed(lambda p, t, value, g: (value, jax.tree.map(jnp.zeros_like, g))),
    "another gradient than params in a dictionary": changed(
        lambda p, t, value, g: (value, jax.tree.map(lambda leaf: leaf / jnp.linalg.norm(leaf), g))
    ),
    "vmap over tasks": changed(
        lambda p, t, value, g: (value, jax.tree.map(lambda leaf: leaf * jnp.exp(_mean_over_batch(t.query[1][0])), g))
    ),
    r"must be bfloat16\[2, 3\]": changed(
        lambda p, t, value, g: (value, jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf, "float32")), g))
    ),
    "compile a new program": lambda loss: lambda params, task: _anew(loss, params, task),
    "must be a loss on the query set": lambda loss: lambda params, task: jax.value_and_grad(loss)(params, task.support),
}


@jax.custom_batching.custom_vmap
def _mean_over_batch(number):
    return number


@_mean_over_batch.def_vmap
def _(axis_size, in_batched, number):
    return jnp.full(axis_size, number.mean()), True


def _anew(loss, params, task):
    """As from a function that pulls numbers out of the program: nothing that was compiled can be used again."""
    jax.clear_caches()
    return plain(loss)(params, task)


@pytest.mark.slow
@pytest.mark.parametrize("message", BROKEN)
def test_each_broken_promise_is_named(message):
    with pytest.raises(AssertionError, match=message):
        ml.testing.check_meta_gradient(BROKEN[message])


def test_what_is_no_adaptation_at_all_is_still_a_drop_in():
    ml.testing.check_meta_gradient(plain)
