"""MOML: one adapted model is remembered for each task, and averages the noise of small batches over the task's visits.

(Wang, Yuan, Ying & Yang 2021, arXiv 2106.04911)::

    u_i ← (1 - b) u_i + b (θ - α ∇h_i(θ))              for the tasks i of the batch; the others keep theirs
    θ   ← θ - η mean_i (I - α ∇²h_i(θ)) ∇f_i(u_i)

    h_i, f_i: loss of task i on new support and query examples;  b: memory rate

Where support examples are few, θ - α ∇h_i(θ) is noisy, and the expectation of ∇f_i at a noisy point is not ∇f_i at the
mean point. MAML, which is MOML with b = 1, therefore converges to a point away from the solution, however many steps it
takes.

LocalMOML is for tasks that are devices of a network, where a round of communication is what costs. The server sends θ;
each client takes some of these steps alone, with a new memory; the server averages what the clients send back.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int

from metalearn import _norm, _require
from metalearn._cost import costs, costs_in_words
from metalearn.adaptation.inner import descend, initialized, update
from metalearn.learners.meta_learner import MetaInfo, MetaLearner, MetaState, all_finite, mean_where, no_line_search
from metalearn.task import Loss, Number, Params
from metalearn.tasks.population import ClientData, IndexedTasks


class MOMLState(NamedTuple):
    """What MOML carries from step to step.

    Attributes:
      params: the initialization θ.
      opt_state: what the outer optimizer remembers.
      step: how many outer steps were taken, an int32 scalar.
      memory: u_i of every task, a pytree like params whose arrays have one more leading axis, [num_all_tasks].
      visited: which tasks have been met, shape [num_all_tasks].

    Example: see `moml`.
    """

    params: Params
    opt_state: Any
    step: Int[Array, ""]
    memory: Params
    visited: Bool[Array, " num_all_tasks"]


@costs(
    "2", "1", copies="5", outputs="4", where="the state holds another copy of the parameters for each of all the tasks"
)
def moml(
    loss: Loss,
    inner: optax.GradientTransformation,
    outer: optax.GradientTransformation,
    num_all_tasks: int,
    memory_rate: Number,
) -> MetaLearner:
    """Meta-training on a finite population of tasks, a few tasks and a few examples a step.

    At a task's first visit its memory becomes θ - α ∇h_i(θ), as with b = 1. A smaller b has less bias, but it also
    remembers where θ was 1/b visits ago, so it wants a small outer learning rate.

    A task whose memory, loss or gradient is not finite is left out and keeps its memory, as in `meta_learner`. If an id
    occurs several times in a batch, each occurrence takes up the old memory, and the mean of theirs becomes the new.

    Args:
      loss: scalar loss of (params, batch).
      inner: the optimizer of the single inner step, for instance optax.sgd(0.01).
      outer: the outer optimizer, any optax transformation.
      num_all_tasks: how many tasks there are, >= 1.
      memory_rate: b, above 0 and at most 1.

    Returns:
      A MetaLearner whose state is a MOMLState and whose batches are IndexedTasks, as drawn by tasks.Population.
      `MetaInfo.query_loss` is f_i(u_i). An id that is not in 0 ... num_all_tasks - 1 raises ValueError; in a compiled
      step, which cannot raise, its task counts as not finite.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task_1 = ml.tasks.IndexedTasks(jnp.array([1]), ml.Task(jnp.array([[1.0]]), jnp.array([[3.0]])))
      >>> learner = ml.moml(loss, optax.sgd(0.5), optax.sgd(0.1), num_all_tasks=2, memory_rate=0.5)
      >>> state, _ = learner.step(learner.init(jnp.array(0.0)), task_1)
      >>> print(state.memory, state.visited)
      [0.  0.5] [False  True]
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner, outer=outer)
    _require.count(at_least=1, num_all_tasks=num_all_tasks)
    _require.rate(memory_rate=memory_rate)
    move = functools.partial(_move, loss, inner)

    def init(params):
        _require.float_params(params)
        memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_all_tasks, *jnp.shape(leaf))), params)
        return MOMLState(
            params,
            initialized(params, outer=outer),
            jnp.zeros((), jnp.int32),
            memory,
            jnp.zeros(num_all_tasks, jnp.bool),
        )

    def step(state, batch):
        ids = _known_ids(batch, num_all_tasks)
        rates = jnp.where(state.visited[ids], memory_rate, 1.0)
        remembered = jax.tree.map(lambda leaf: leaf[ids], state.memory)
        moved, query_loss, gradients = jax.vmap(move, in_axes=(None, 0, 0, 0))(
            state.params, remembered, rates, batch.tasks
        )
        finite = (ids >= 0) & (ids < num_all_tasks) & jax.vmap(all_finite)((moved, query_loss, gradients))

        gradient = jax.tree.map(lambda leaf: mean_where(finite, leaf), gradients)
        value = jnp.mean(query_loss, where=finite)
        updates, opt_state = update(outer, gradient, state.opt_state, state.params, value, no_line_search, "outer")
        params = optax.apply_updates(state.params, updates)
        params, opt_state = optax.tree.where(finite.any(), (params, opt_state), (state.params, state.opt_state))

        # JAX writes equal ids in any order: what is written for them must be equal too.
        same_task = finite & (ids[:, None] == ids)
        moved = jax.tree.map(lambda leaf: jax.vmap(mean_where, in_axes=(0, None))(same_task, leaf), moved)
        target = jnp.where(finite, ids, num_all_tasks)  # outside, so that nothing is written
        memory = jax.tree.map(lambda leaf, new: leaf.at[target].set(new, mode="drop"), state.memory, moved)
        visited = state.visited.at[target].set(True, mode="drop")
        info = MetaInfo(query_loss, _norm.norm(gradient), finite)
        return MOMLState(params, opt_state, state.step + 1, memory, visited), info

    return MetaLearner(init, step)


@costs_in_words(
    "A client costs a gradient for each of its first support sets, and 2 gradients and a Hessian-vector product for "
    "each local step; it needs a copy of the parameters for its memory and nothing between rounds."
)
def local_moml(
    loss: Loss, inner: optax.GradientTransformation, outer: optax.GradientTransformation, memory_rate: Number
) -> MetaLearner:
    """Federated meta-training: every step of the learner is one round of communication.

    Each client of a round starts from θ_i = θ and u_i = θ - α ∇h_i(θ), takes H steps of MOML on (θ_i, u_i), and the
    server's new θ is the mean of the θ_i. With one step and b = 1 a round is a step of MAML. No client keeps anything
    between rounds. The bias is that of MOML, and with H > 1 there is another, because clients drift apart between
    rounds: the point of convergence moves by O(η H).

    Args:
      loss: scalar loss of (params, batch).
      inner: the optimizer of the single inner step, for instance optax.sgd(0.01).
      outer: the optimizer of the local steps, any optax transformation; its state is made anew in each round.
      memory_rate: b, above 0 and at most 1.

    Returns:
      A MetaLearner whose state is a MetaState, its `step` the number of rounds, and whose batches are ClientData, as
      drawn by tasks.Clients. `MetaInfo` holds each client's f_i(u_i), averaged over its local steps, and the norm of
      the gradient averaged over clients and steps. A client that is not finite is left out.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> local = ml.Task(jnp.full((1, 2, 1), 1.0), jnp.full((1, 2, 1), 3.0))  # one client, two steps, one example
      >>> learner = ml.local_moml(loss, optax.sgd(0.5), optax.sgd(0.1), memory_rate=0.5)
      >>> data = ml.tasks.ClientData(first=local.support, local=local)
      >>> state, _ = learner.step(learner.init(jnp.array(0.0)), data)
      >>> int(state.step), round(float(state.params), 2)
      (1, 0.25)
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner, outer=outer)
    _require.rate(memory_rate=memory_rate)

    def client(params, first, local):
        adapted = jax.vmap(lambda support: _adapt(loss, inner, params, support))(first)
        memory = jax.tree.map(lambda leaf: leaf.mean(axis=0), adapted)

        def local_step(carry, task):
            params, opt_state, memory = carry
            memory, query_loss, gradient = _move(loss, inner, params, memory, memory_rate, task)
            updates, opt_state = update(outer, gradient, opt_state, params, query_loss, no_line_search, "outer")
            return (optax.apply_updates(params, updates), opt_state, memory), (query_loss, gradient)

        (params, _, _), history = jax.lax.scan(local_step, (params, initialized(params, outer=outer), memory), local)
        return params, *jax.tree.map(lambda leaf: leaf.mean(axis=0), history)

    def init(params):
        _require.float_params(params)
        return MetaState(params, optax.EmptyState(), jnp.zeros((), jnp.int32))

    def step(state, data):
        _check_client_data(data)
        moved, query_loss, gradients = jax.vmap(client, in_axes=(None, 0, 0))(state.params, data.first, data.local)
        finite = jax.vmap(all_finite)((moved, query_loss, gradients))
        mean = jax.tree.map(lambda leaf: mean_where(finite, leaf), moved)
        params = optax.tree.where(finite.any(), mean, state.params)
        gradient = jax.tree.map(lambda leaf: mean_where(finite, leaf), gradients)
        info = MetaInfo(query_loss, _norm.norm(gradient), finite)
        return MetaState(params, state.opt_state, state.step + 1), info

    return MetaLearner(init, step)


def _adapt(loss, inner, params, support):
    """θ - α ∇h(θ)."""
    return descend(lambda phi: loss(phi, support), inner, 1, params)


def _move(loss, inner, params, memory, rate, task):
    """One task's new memory, the query loss there, and the gradient for params."""
    adapted, transpose_jacobian = jax.vjp(lambda w: _adapt(loss, inner, w, task.support), params)
    memory = jax.tree.map(lambda u, phi: ((1 - rate) * u + rate * phi).astype(u.dtype), memory, adapted)
    query_loss, query_gradient = jax.value_and_grad(loss)(memory, task.query)
    (gradient,) = transpose_jacobian(query_gradient)
    return memory, query_loss, gradient


def _known_ids(batch, num_all_tasks):
    if not isinstance(batch, IndexedTasks):
        raise TypeError(
            "tasks must be a tasks.IndexedTasks(ids, tasks), as drawn by tasks.Population, "
            f"but it is a {type(batch).__name__}."
        )
    num_tasks = _require.task_batch(batch.tasks)
    _require.array(ids=batch.ids)
    ids = jnp.asarray(batch.ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.shape != (num_tasks,):
        raise ValueError(
            f"ids must be {num_tasks} whole numbers, one for each task, but it is {ids.dtype}{list(ids.shape)}."
        )
    if not isinstance(ids, jax.core.Tracer):
        values = np.asarray(ids)  # numpy also answers while a step around it is being compiled
        if values.min() < 0 or values.max() >= num_all_tasks:
            raise ValueError(f"ids must be at least 0 and below num_all_tasks, {num_all_tasks}, but they are {values}.")
    return ids.astype(jnp.promote_types(ids.dtype, jnp.int32))  # a small type could not hold num_all_tasks


def _check_client_data(data):
    if not isinstance(data, ClientData):
        raise TypeError(
            "tasks must be a tasks.ClientData(first, local), as drawn by tasks.Clients, "
            f"but it is a {type(data).__name__}."
        )
    _require.task_batch(data.local)
    _require.same_leading_axis("clients", data)
    one_client = jax.tree.map(lambda leaf: leaf[0], data)
    for counts, part in (("support sets", one_client.first), ("local steps", one_client.local)):
        if _require.same_leading_axis(counts, part) == 0:
            raise ValueError(f"The number of {counts} must be at least 1.")
