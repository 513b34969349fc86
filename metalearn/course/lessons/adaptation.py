"""Losses, tasks, and right and wrong ways to adapt: the pieces from which the exercises' checks are built.

The pieces are compiled, the losses among them, so that nobody has to wait for a check.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn.task import Task


@functools.partial(jax.jit, static_argnums=(0, 4))
def meta_gradient(loss, task, params, step_size, num_steps):
    """The exact one, by the library."""
    return ml.maml(loss, optax.sgd(step_size), num_steps)(params, task)[1]


@functools.partial(jax.jit, static_argnums=0)
def gradient_at(loss, params, batch):
    """The gradient of the loss."""
    return jax.grad(loss)(params, batch)


@functools.partial(jax.jit, static_argnums=0)
def hessian_times(loss, params, batch, vector):
    """The Hessian-vector product."""
    return jax.jvp(lambda phi: jax.grad(loss)(phi, batch), (params,), (vector,))[1]


@jax.jit
def wave(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


@jax.jit
def cosines(params, batch):
    """Mean of 1 - cos between the params and each point, summed over dimensions."""
    return jnp.mean(jnp.sum(1 - jnp.cos(params - batch), axis=-1))


@jax.jit
def network(params, batch):
    """Mean squared error of one hidden tanh layer; params is a dict."""
    x, y = batch
    hidden = jnp.tanh(jnp.outer(x, params["weight"]) + params["bias"])
    return jnp.mean((hidden @ params["readout"] - y) ** 2)


@jax.jit
def regression(params, batch):
    """Mean squared error of tanh(a x + b) + c x; params = [a, b, c]."""
    x, y = batch
    return jnp.mean((jnp.tanh(params[0] * x + params[1]) + params[2] * x - y) ** 2)


def curve_task(rng, num_support, num_query):
    """Points of one random sine curve."""
    amplitude, phase = rng.uniform(1, 3), rng.uniform(0, np.pi)

    def batch(size):
        x = rng.uniform(-3, 3, size)
        return x, amplitude * np.sin(x - phase)

    return Task(batch(num_support), batch(num_query))


def line_task(rng, num_support, num_query):
    """Points of one random line."""
    slope, offset = rng.uniform(-2, 2, 2)

    def batch(size):
        x = rng.uniform(-1.5, 1.5, size)
        return x, slope * x + offset

    return Task(batch(num_support), batch(num_query))


def points_task(rng, dim, num_support, num_query):
    """Random points, for `cosines`."""
    return Task(rng.normal(0, 1.5, (num_support, dim)), rng.normal(0.5, 1.5, (num_query, dim)))


def network_params(rng, width):
    """Random params for `network`."""
    return {name: rng.normal(0, 1, width) for name in ("weight", "bias", "readout")}


@jax.jit
def nested(params, batch):
    """`network` with its parameters in a tuple within a list."""
    hidden, readout = params
    return network({"weight": hidden[0], "bias": hidden[1], "readout": readout}, batch)


def nested_params(rng):
    """Random params for `nested`."""
    flat = network_params(rng, 2)
    return [(flat["weight"], flat["bias"]), flat["readout"]]


def stack(tasks):
    """A batch of tasks."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


def unstack(trees):
    """The pytrees that stand along the first axis, as a list."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], trees) for i in range(len(jax.tree.leaves(trees)[0]))]


def mean_of(trees):
    """The mean of some pytrees."""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def move(params, direction, rate):
    """params - rate * direction."""
    return jax.tree.map(lambda p, d: p - rate * d, params, direction)


def path_of(loss, batch, params, step_size, num_steps):
    """phi_0, ..., phi_K."""
    path = [params]
    for _ in range(num_steps):
        path.append(move(path[-1], gradient_at(loss, path[-1], batch), step_size))
    return path


def adapt(*args):
    """phi_K."""
    return path_of(*args)[-1]


@functools.partial(jax.jit, static_argnums=(0, 5))
def gradient_after(loss, adapt_on, score_on, params, step_size, num_steps):
    """The gradient, in the start, of the loss on one batch after adapting to another."""
    return jax.grad(lambda start: loss(adapt(loss, adapt_on, start, step_size, num_steps), score_on))(params)


def first_order(loss, task, params, step_size, num_steps):
    """FO-MAML."""
    return gradient_at(loss, adapt(loss, task.support, params, step_size, num_steps), task.query)


def steps_from_the_start(loss, task, params, step_size, num_steps):
    """The gradient through K steps that all use the slope at the start."""

    def after(start):
        return loss(move(start, gradient_at(loss, start, task.support), num_steps * step_size), task.query)

    return jax.grad(after)(params)


def by_recursion(loss, task, params, step_size, num_steps):
    """An alternative: the chain rule one step at a time, as a recursion over vector-Jacobian products."""
    if num_steps == 0:
        return gradient_at(loss, params, task.query)
    after, pull_back = jax.vjp(lambda start: adapt(loss, task.support, start, step_size, 1), params)
    return pull_back(by_recursion(loss, task, after, step_size, num_steps - 1))[0]


def with_a_loop(loss, task, params, step_size, num_steps):
    """The exact one, by differentiating a plain loop."""
    return gradient_after(loss, task.support, task.query, params, step_size, num_steps)
