"""A-MAML: the gradient of a gradient flow, by the adjoint method, in little memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml

HORIZON = 8.0
family = ml.tasks.Quadratic(dim=5)


def error(meta_gradient, tasks):
    """Distance to the exact gradient of the flow, relative, over all tasks."""
    theta = jnp.ones(5)
    exact = ml.theory.flow(tasks, HORIZON).task_gradients(theta)
    gradients = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(theta, tasks)[1]
    return float(np.linalg.norm(gradients - exact) / np.linalg.norm(exact))


def memory(meta_gradient):
    """Bytes of working memory, in units of the params, which are 2000 numbers."""
    params = jnp.zeros(2000)
    task = ml.Task(params[None] + 1, params[None] + 1)
    program = jax.jit(meta_gradient).lower(params, task).compile()
    return program.memory_analysis().temp_size_in_bytes / params.nbytes


def smooth_loss(params, batch):
    return jnp.mean(jnp.log(jnp.cosh(params - batch)))


def measure():
    with jax.enable_x64(True):
        tasks = family(jax.random.key(0), 20)
        return {
            "adjoint": error(ml.a_maml(family.loss, HORIZON, 16), tasks),
            "unrolled": error(ml.maml(family.loss, optax.sgd(HORIZON / 96), 96), tasks),
            "checkpoints": memory(ml.a_maml(smooth_loss, HORIZON, 1024)),
            "path": memory(ml.maml(smooth_loss, optax.sgd(HORIZON / 1024), 1024)),
        }


CLAIM = Claim(
    order=5,
    lessons=("08",),
    tests=("test_a_maml",),
    title="A-MAML",
    system="`a_maml`",
    paper="Li, Wang, Narayan, Kirby & Zhe 2023, [2110.08432](https://arxiv.org/abs/2110.08432)",
    exact="the gradient of the loss after its K solver steps, which are O(K⁻⁵) away from the gradient flow",
    finding=(
        "For adaptation by a gradient flow, A-MAML with 96 gradients in its forward solve is {adjoint:.1g} away "
        "from the exact meta-gradient, relative to its norm. Backpropagation through 96 gradient steps, which only "
        "approximate the flow, is {unrolled:.1g} away. With 1024 steps A-MAML works in the memory of "
        "{checkpoints:.0f} copies of the parameters, where backpropagation without checkpoints needs {path:.0f}."
    ),
    measure=measure,
    holds=lambda f: f["adjoint"] < f["unrolled"] / 1000 and f["checkpoints"] < f["path"] / 5,
)
