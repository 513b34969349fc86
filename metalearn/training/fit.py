"""The training loop: many outer steps in each compiled call, a progress bar between the calls.

On several devices of one machine, `fit` takes a mesh:

    fit(..., mesh=jax.make_mesh((jax.device_count(),), ("tasks",)))

On several machines, every process runs the same script and sees all devices. Its first line finds the others by
itself under Slurm, Open MPI and on TPU pods; elsewhere it takes the coordinator's address, the number of processes and
its own:

    jax.distributed.initialize()                                     # train.py, before anything else of JAX

    srun --ntasks-per-node=1 python train.py                         # Slurm, one process a node
    gcloud compute tpus tpu-vm ssh NAME --worker=all --command="python train.py"

Checkpoints then belong on a disk that all processes share.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from metalearn import _require
from metalearn.learners.meta_learner import MetaLearner, MetaState
from metalearn.task import Params, Task
from metalearn.training.checkpoints import CheckpointError, Checkpoints

NUM_CALLS = 100
"""A run is cut into about so many compiled calls; the bar moves and Ctrl-C is heard between two of them."""


class History(NamedTuple):
    """What happened at each outer step, as numpy arrays of shape [num_steps].

    Attributes:
      query_loss: loss after adaptation, averaged over the tasks that were finite; NaN where none was.
      grad_norm: length of the meta-gradient before the outer rule.
      num_failed: how many tasks were left out because their inner loop was not finite.
    """

    query_loss: np.ndarray
    grad_norm: np.ndarray
    num_failed: np.ndarray


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
      params: the meta-learned start.
      history: a History.
      state: the learner's last state.
    """

    params: Params
    history: History
    state: MetaState


class DivergedError(FloatingPointError):
    """Raised by `fit` when no task of a batch adapts to finite numbers.

    Attributes:
      result: the FitResult up to there; nothing is lost.
    """

    def __init__(self, message: str, result: FitResult):
        """An error that keeps what has been reached."""
        super().__init__(message)
        self.result = result


def fit(
    learner: MetaLearner,
    params: Params,
    sample_tasks: Callable[[jax.Array, int], Task],
    num_steps: int,
    meta_batch_size: int,
    key: jax.Array,
    progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
    """Meta-trains for `num_steps` outer steps.

    The run depends only on its arguments: the tasks of step t are drawn with jax.random.fold_in(key, t). A second call
    with the same learner and sampler compiles nothing.

    Args:
      learner: from `meta_learner`, or any pair (init, step) like it.
      params: where to begin, any pytree of floating-point arrays.
      sample_tasks: (key, number) -> a batch of that many tasks; it is compiled with the step.
      num_steps: outer steps to take, >= 1.
      meta_batch_size: tasks per outer step, >= 1.
      key: a jax.random.key.
      progress: whether to draw a progress bar.
      checkpoint_dir: where to keep the run, with Orbax: every ten seconds or so, and at the end. If there is a
        checkpoint already, the run goes on from it, and ends with the same numbers to the last bit as one that was
        never stopped. A killed run is taken up by the same call; a finished one is made longer with more steps.
      mesh: devices to share the work, for instance jax.make_mesh((8,), ("tasks",)). Each adapts its part of the tasks:
        meta_batch_size must be a multiple of the length of the axis "tasks". The mesh may have more axes; parameters
        that are sharded over them stay so, and others are copied to every device.

    Returns:
      A FitResult. Interrupted by Ctrl-C, the result reached so far.

    Raises:
      CheckpointError: when a checkpoint is damaged, or of a run with other arguments, or cannot be written.
      DivergedError: when all tasks of a step are non-finite; it says what to lower and holds the result so far.
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    _require.count(at_least=1, num_steps=num_steps, meta_batch_size=meta_batch_size)
    _require.function(sample_tasks=sample_tasks)
    _require.hashable(learner=learner, sample_tasks=sample_tasks)
    _require.random_key(key=key)
    if not (hasattr(learner, "init") and hasattr(learner, "step")):
        raise TypeError(f"learner must come from meta_learner, but it is a {type(learner).__name__}.")
    state, places = (learner.init(params), None) if mesh is None else _spread(mesh, learner, params, meta_batch_size)
    history = History(np.zeros(0), np.zeros(0), np.zeros(0, int))
    checkpoints = None
    if checkpoint_dir is not None:
        seed = np.asarray(jax.random.key_data(key)).tolist()
        checkpoints = Checkpoints(checkpoint_dir, {"key": seed, "meta_batch_size": int(meta_batch_size)}, state)
        found = checkpoints.restore()
        if found is not None:
            state, history = found[0], History(**found[1])
    done, parts = len(history.query_loss), [history]
    if done > num_steps:
        raise ValueError(f"checkpoint_dir holds a run of {done} steps, so num_steps must be at least that.")
    capacity = -(-num_steps // NUM_CALLS)

    def reached():
        return FitResult(state.params, History(*map(np.concatenate, zip(*parts, strict=True))), state)

    def save():
        try:
            checkpoints.save(state, reached().history._asdict())
        except CheckpointError as error:
            error.result = reached()
            raise

    silent = not progress or jax.process_index() > 0
    with tqdm(
        total=num_steps,
        initial=done,
        disable=silent,
        file=sys.stdout,
        unit=" step",
        ncols=72,  # one line of a narrow notebook
        mininterval=0.5,
    ) as bar:
        try:
            while done < num_steps:
                count = min(capacity, num_steps - done)
                after, part = _run(learner, sample_tasks, meta_batch_size, capacity, places, state, key, count)
                # JAX computes in the background: the wait is here, and with it nearly every Ctrl-C.
                part = History(*(np.asarray(leaf)[:count] for leaf in part))
                state, done = after, done + count
                parts.append(part)
                bar.update(count)
                bar.set_postfix_str(f"query loss {np.mean(part.query_loss):.3g}", refresh=False)
                if (part.num_failed == meta_batch_size).any():
                    break
                if checkpoints is not None and (done == num_steps or checkpoints.due()):
                    save()
        except KeyboardInterrupt:
            bar.write(f"Interrupted after {done} of {num_steps} steps; what was reached is returned.")
            if checkpoints is not None and jax.process_count() == 1:  # several would have to agree on the step
                save()

    result = reached()
    failed = np.flatnonzero(result.history.num_failed == meta_batch_size)
    if failed.size:
        raise DivergedError(
            f"At outer step {failed[0]} the inner loop of every task ended in infinity or NaN. Lower the learning rate "
            "of `inner` (for a proximal method also check that it is below 2 / (curvature + proximal_strength)), then "
            "`perturbation` if the method has one (estimator='three_point' leaves each problem its minimum), then "
            "the learning rate of `outer`. A singular kernel needs a lower `time` or a higher `ridge`. "
            "What was reached is in this error's `result`.",
            result,
        )
    return result


def _spread(mesh, learner, params, meta_batch_size):
    """(The first state, on the mesh's devices; where tasks and then each array of the state are to be.)"""
    _require.mesh(mesh=mesh)
    if meta_batch_size % mesh.shape["tasks"]:
        raise ValueError(
            f"meta_batch_size must be a multiple of the {mesh.shape['tasks']} devices along the mesh's axis 'tasks', "
            f"but it is {meta_batch_size}."
        )
    automatic = Mesh(mesh.devices, mesh.axis_names)  # the compiler splits what is not said; make_mesh's says all

    def put(leaf):
        sharding = getattr(leaf, "sharding", None)
        sharded = isinstance(sharding, NamedSharding) and sharding.mesh.axis_names == mesh.axis_names
        return jax.device_put(leaf, NamedSharding(automatic, sharding.spec if sharded else PartitionSpec()))

    state = jax.tree.map(put, learner.init(jax.tree.map(put, params)))
    return state, (
        NamedSharding(automatic, PartitionSpec("tasks")),
        *(leaf.sharding for leaf in jax.tree.leaves(state)),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(learner, sample_tasks, meta_batch_size, capacity, places, state, key, count):
    """Takes `count` outer steps, at most `capacity`: one program serves every call of a run, the last included."""

    def body(i, carry):
        state, history = carry
        tasks = sample_tasks(jax.random.fold_in(key, state.step), meta_batch_size)
        if places is not None:
            tasks = jax.lax.with_sharding_constraint(tasks, places[0])
        state, info = learner.step(state, tasks)
        row = History(
            jnp.nanmean(jnp.where(info.finite, info.query_loss, jnp.nan)),
            info.grad_norm,
            jnp.sum(~info.finite, dtype=jnp.int32),
        )
        return state, jax.tree.map(lambda column, value: column.at[i].set(value), history, row)

    blank = History(jnp.zeros(capacity), jnp.zeros(capacity), jnp.zeros(capacity, jnp.int32))
    state, history = jax.lax.fori_loop(0, count, body, (state, blank))
    if places is not None:
        leaves, structure = jax.tree.flatten(state)
        state = jax.tree.unflatten(structure, map(jax.lax.with_sharding_constraint, leaves, places[1:]))
    return state, history
