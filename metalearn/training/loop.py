"""Outer steps inside compiled programs, and what they leave behind."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int


class History(NamedTuple):
    """What happened at each outer step, as NumPy arrays of shape [num_steps].

    Attributes:
      query_loss: loss after adaptation, averaged over the tasks that were finite; NaN where none was.
      grad_norm: norm of the meta-gradient before the outer optimizer.
      num_failed: how many tasks were left out because their loss or gradient was not finite.

    Example: see `fit`.
    """

    query_loss: Float[np.ndarray, " num_steps"]
    grad_norm: Float[np.ndarray, " num_steps"]
    num_failed: Int[np.ndarray, " num_steps"]


def blank(num_steps: int) -> History:
    """A History to be filled in by a compiled program."""
    return History._make((jnp.zeros(num_steps), jnp.zeros(num_steps), jnp.zeros(num_steps, jnp.int32)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def sampled_steps(learner, draw, capacity, places, constants, state, key, count):
    """Takes `count` outer steps, at most `capacity`: one program serves every call of a run, the last included."""

    def body(i, carry):
        state, history = carry
        tasks = draw(constants, jax.random.fold_in(key, state.step))
        return _outer_step(learner, places, state, history, i, tasks)

    state, history = jax.lax.fori_loop(0, count, body, (state, blank(capacity)))
    return _in_place(places, state), history


@functools.partial(jax.jit, static_argnums=(0, 1))
def one_step(learner, places, state, history, i, tasks):
    """Takes one outer step on a batch of tasks, and writes it to row i of the history."""
    state, history = _outer_step(learner, places, state, history, i, tasks)
    return _in_place(places, state), history


def _outer_step(learner, places, state, history, i, tasks):
    if places is not None:
        tasks = jax.lax.with_sharding_constraint(tasks, places[0])
    state, info = learner.step(state, tasks)
    query_loss = jnp.nanmean(jnp.where(info.finite, info.query_loss, jnp.nan))
    row = History._make((query_loss, info.grad_norm, jnp.sum(~info.finite, dtype=jnp.int32)))
    return state, jax.tree.map(lambda column, value: column.at[i].set(value), history, row)


def _in_place(places, state):
    """The state on the devices where it was."""
    if places is None:
        return state
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, map(jax.lax.with_sharding_constraint, leaves, places[1:]))
