"""The problems that the tests are about, and every meta-gradient of the library, built from its signature."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import metalearn as ml
from metalearn import Task

METHODS = tuple(  # meta_rkhs_ii and kernel_adaptation, which have no loss, are tested by themselves
    name
    for name in ml.__all__
    if getattr(getattr(ml, name), "__module__", "").startswith("metalearn.meta_gradients.")
    and next(iter(inspect.signature(getattr(ml, name)).parameters)) == "loss"
)
ARGUMENTS = {
    "num_steps": 5,
    "proximal_strength": 2.0,
    "perturbation": 0.05,
    "cg_steps": 9,
    "step_size": 0.1,
    "horizon": 0.5,
}


def build(method, loss, inner=None, **arguments):
    """The meta-gradient of that name. One whose arguments ARGUMENTS does not know fails here, and is not forgotten."""
    factory = getattr(ml, method)
    parameters = inspect.signature(factory).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty][1:]
    known = ARGUMENTS | {"inner": inner or optax.sgd(0.1)}
    values = {name: known[name] for name in required}
    return factory(loss, **values | {name: value for name, value in arguments.items() if name in parameters})


def tanh_loss(params, batch):
    """Half the mean squared error of a two-layer tanh network: smooth, and far from quadratic."""
    inputs, targets = batch
    return jnp.mean((jnp.tanh(inputs @ params["hidden"]) @ params["output"] - targets) ** 2) / 2


def tanh_problem(seed=0, num_examples=6):
    """(params, task) for tanh_loss, in the default float type."""
    keys = jax.random.split(jax.random.key(seed), 6)
    params = {"hidden": jax.random.normal(keys[0], (2, 3)), "output": jax.random.normal(keys[1], (3,))}
    batches = [
        (jax.random.normal(keys[i], (num_examples, 2)), 2 * jax.random.normal(keys[i + 1], (num_examples,)))
        for i in (2, 4)
    ]
    return params, Task(*batches)


def quadratic_tasks(num_tasks, dim=2):
    """Tasks like those of `tasks.Quadratic`, from NumPy: no program to compile while a module is imported."""
    rng = np.random.default_rng(0)

    def hessians():
        axes = np.linalg.qr(rng.normal(size=(num_tasks, dim, dim)))[0]
        return axes * rng.uniform(0.2, 1.0, (num_tasks, 1, dim)) @ axes.swapaxes(1, 2)

    minima = rng.normal(size=(num_tasks, dim))
    task = Task(
        ml.tasks.QuadraticBatch(hessians(), minima),
        ml.tasks.QuadraticBatch(hessians(), minima + 0.3 * rng.normal(size=(num_tasks, dim))),
    )
    return jax.tree.map(np.float32, task)


def linen_problem():
    model = nn.Dense(1)
    return model.init(jax.random.key(0), jnp.ones((1, 1))), model.apply


def nnx_problem():
    return ml.models.functional(ml.models.MLP((1, 3, 1), activation=jnp.tanh, rngs=nnx.Rngs(0)))


def tuple_problem():
    return (jnp.ones((1, 1)), (jnp.zeros(1),)), lambda params, x: x @ params[0] + params[1][0]


CONTAINERS = {"nnx": nnx_problem, "linen": linen_problem, "tuple": tuple_problem}


def central_differences(function, params, step=1e-5):
    """The gradient of a scalar function, from its values alone; flat, float64."""
    flat, unravel = ravel_pytree(params)
    values = jax.jit(jax.vmap(lambda x: function(unravel(x))))
    directions = step * jnp.eye(flat.size)
    return np.asarray((values(flat + directions) - values(flat - directions)) / (2 * step))


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def assert_clear_error(call, kind, message):
    """`call` raises exactly that kind of error, with a message that matches and is short enough to be read."""
    with pytest.raises(kind, match=message) as caught:
        call()
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 400
