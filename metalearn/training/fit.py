"""The training loop: many outer steps in each compiled call, a progress bar between the calls.

Several devices share the tasks of a batch if `fit` is given a mesh. The section "Several devices and machines" of the
documentation says how to run it on several machines.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from metalearn import _require
from metalearn.learners.meta_learner import MetaLearner, MetaState
from metalearn.task import Params, Task
from metalearn.training import checkpoints, fingerprint
from metalearn.training.checkpoints import CheckpointError, Checkpoints
from metalearn.training.loop import History
from metalearn.training.sources import Batches, Sampler, TasksEndedError

NUM_CALLS = 50
"""A run is cut into about so many compiled calls; between two of them the bar moves and the callback is called."""


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
      params: the meta-learned parameters.
      history: a History.
      state: the learner's last state, from which another `fit` can go on.

    Example: see `fit`.
    """

    params: Params
    history: History
    state: MetaState


class DivergedError(FloatingPointError):
    """Raised by `fit` when no task of a batch adapts to finite numbers.

    Attributes:
      result: the FitResult up to there; nothing is lost.

    Example: see `TasksEndedError`, which is caught alike.
    """

    def __init__(self, message: str, result: FitResult):
        """An error that keeps what has been reached."""
        super().__init__(message)
        self.result = result


def fit(
    learner: MetaLearner,
    params: Params | MetaState,
    tasks: Callable[[PRNGKeyArray, int], Task] | Iterable[Task],
    num_steps: int,
    meta_batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
    progress: bool = True,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    callback: Callable[[int, MetaState, History], bool | None] | None = None,
) -> FitResult:
    """Meta-trains for `num_steps` outer steps.

    With a sampler the run depends only on its arguments: the tasks of step t are drawn with jax.random.fold_in(key, t).
    A second call with the same learner and sampler compiles nothing. With an iterable, each step takes one batch.

    A callback sees the run between its compiled calls. Validation, early stopping and keeping the best parameters take
    three lines each; `score` stands for your own validation, for instance with evaluate.meta_test:

    >>> import jax, jax.numpy as jnp, metalearn as ml, optax
    >>> quadratics = ml.tasks.Quadratic(dim=2)
    >>> learner = ml.meta_learner(ml.maml(quadratics.loss, optax.sgd(0.5), num_steps=1), optax.sgd(0.1))
    >>> score = lambda params: float(jnp.sum(params**2))
    >>> def run(callback):
    ...     initial, key = jnp.array([3.0, -2.0]), jax.random.key(0)
    ...     return ml.fit(learner, initial, quadratics, 200, 4, key, progress=False, callback=callback)

    >>> scores = []  # validation
    >>> def validate(step, state, history):
    ...     scores.append((step, score(state.params)))
    >>> result = run(validate)
    >>> len(scores), scores[-1][0]
    (50, 200)

    >>> def stop_early(step, state, history):  # early stopping
    ...     losses = history.query_loss
    ...     return step >= 40 and losses[-20:].mean() > losses[-40:-20].mean()
    >>> len(run(stop_early).history.query_loss) < 200
    True

    >>> best = []  # the best parameters
    >>> def keep_best(step, state, history):
    ...     best[:] = min([*best, (score(state.params), step, state.params)], key=lambda entry: entry[:2]),
    >>> result = run(keep_best)
    >>> best[0][0] <= score(result.params)
    True

    Args:
      learner: from `meta_learner`, `moml` or `local_moml`, or any pair (init, step) like theirs.
      params: the initialization, any pytree of floating-point arrays. Or a state of the learner to go on from, such as
        `result.state`: steps are counted on, so 100 steps and 100 more give the numbers of 200 to the last bit.
      tasks: a sampler, which is a pure function (key, number) -> a batch of that many tasks. It is compiled with the
        step; arrays that it captures are given to the program and are no constants of it. Or an iterable of Task
        batches of NumPy, PyTorch, TensorFlow or JAX arrays, all of the same shapes: a list, a generator, a DataLoader,
        a grain or tf.data pipeline. The next batch is read while a step is computed. What can be read again is read
        again when it ends; an iterator that ends before the run raises TasksEndedError. What is both callable and
        iterable counts as a sampler.
      num_steps: outer steps of this run, >= 1, counted from `params` (from where it began if a checkpoint is found).
      meta_batch_size: with a sampler, tasks per outer step, >= 1. An iterable is called without.
      key: with a sampler, a jax.random.key. An iterable is called without.
      progress: whether to draw a progress bar.
      checkpoint_dir: where to keep the run, with Orbax: every ten seconds or so, and at the end. If there is a
        checkpoint of the same run already, the run goes on from it, and ends with the same numbers to the last bit as
        one that was never stopped. A killed run is taken up by the same call; a completed one is made longer with more
        steps. From an iterable, the batches that were used are read once more and compared with what was used, so
        it has to give the same ones each time: seed what shuffles it. A directory serves one run, and one process at a
        time.
      mesh: devices to share the work, for instance jax.make_mesh((8,), ("tasks",)). Each adapts its part of the tasks:
        their number must be a multiple of the length of the axis "tasks". The mesh may have more axes; parameters that
        are sharded over them stay so, and others are copied to every device. Of several processes, each is given the
        same batches.
      callback: (number of outer steps so far, learner's state, History of this run) -> True to stop, otherwise False or
        None. It is called after each of the about 50 compiled calls into which a run is cut (or after every step,
        if there are fewer), before the checkpoint is written. It does not belong to what a checkpoint holds.

    Returns:
      A FitResult (params, history, state), whose history holds the arrays query_loss, grad_norm and num_failed, one
      number for each step. Stopped by the callback or by Ctrl-C, the result reached so far.

    Raises:
      CheckpointError: when a checkpoint is damaged, or of another run (its parameters, sampler, batches, key or learner
        are not these), or in use by another process, or cannot be written. What is on disk is left as it was.
      DivergedError: when all tasks of a step are non-finite; it says what to look at and holds the result so far.
      TasksEndedError: when an iterator ends before the run; it holds the result so far.
    """
    _require.count(at_least=1, num_steps=num_steps)
    if not (hasattr(learner, "init") and hasattr(learner, "step")):
        raise TypeError(f"learner must come from meta_learner, but it is a {type(learner).__name__}.")
    _require.hashable(learner=learner)
    if callback is not None:
        _require.takes("step", "state", "history", callback=callback)
    if checkpoint_dir is not None:
        checkpoint_dir = checkpoints.local(checkpoint_dir)
    if mesh is not None:
        _require.mesh(mesh=mesh)
        params = _spread(mesh, params)  # before `init`, whose arrays are then split as the parameters are
    state = _first_state(learner, params)
    _require.count(at_most=2**31 - 1 - num_steps, **{"params.step": int(state.step)})
    source: Sampler | Batches
    if callable(tasks):
        source = Sampler(tasks, meta_batch_size, key)
    else:
        source = Batches(tasks, meta_batch_size, key, num_steps, marked=checkpoint_dir is not None)
    places = None
    if mesh is not None:
        state = _spread(mesh, state)
        places = _places(mesh, state, source.num_tasks)
    source.place(places)
    if checkpoint_dir is None:
        return _train(learner, state, source, num_steps, progress, None, places, callback)

    def program():
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
        return fingerprint.of_program(jax.make_jaxpr(learner.step)(shapes, source.example))

    with Checkpoints(checkpoint_dir, source.identity(), program, state) as kept:
        return _train(learner, state, source, num_steps, progress, kept, places, callback)


def _train(learner, state, source, num_steps, progress, kept, places, callback):
    """The loop over compiled calls, and what happens between them. `kept` are the run's Checkpoints, or None."""
    first_step, parts = int(state.step), [History(np.zeros(0), np.zeros(0), np.zeros(0, int))]
    if kept is not None and (found := kept.restore()) is not None:
        state, parts = found[0], [History(**found[1])]
        _go_past(source, len(parts[0].query_loss), found[2])
    done = len(parts[0].query_loss)
    if done > num_steps:
        raise ValueError(f"checkpoint_dir holds a run of {done} steps, so num_steps must be at least that.")
    saved, stopped = done, False
    capacity = -(-num_steps // NUM_CALLS)

    def reached():
        return FitResult(state.params, History(*map(np.concatenate, zip(*parts, strict=True))), state)

    def save():
        nonlocal saved
        if kept is None or saved == done:
            return
        try:
            with checkpoints.uninterrupted() as interrupts:
                kept.save(state, reached().history._asdict(), source.mark)
            saved = done
        except CheckpointError as error:
            error.result = reached()
            raise
        if interrupts:
            raise KeyboardInterrupt

    with tqdm(
        total=num_steps,
        initial=done,
        disable=not progress or jax.process_index() > 0,
        file=sys.stdout,
        unit=" step",
        ncols=72,  # one line of a narrow notebook
        mininterval=0.5,
    ) as bar:
        try:
            while done < num_steps and not stopped:
                after, part, mark = source.advance(learner, places, state, capacity, min(capacity, num_steps - done))
                if len(part.query_loss):
                    state, source.mark, done = after, mark, done + len(part.query_loss)
                    parts.append(part)
                    bar.update(len(part.query_loss))
                    bar.set_postfix_str(f"query loss {np.mean(part.query_loss):.3g}", refresh=False)
                    if np.isnan(part.query_loss).any():  # no task was finite
                        break
                    if callback is not None:
                        stopped = _wants_to_stop(callback, first_step + done, state, reached().history)
                if source.failure is not None:
                    raise source.failure
                if kept is not None and (stopped or done == num_steps or kept.due()):
                    save()
        except KeyboardInterrupt:
            with checkpoints.uninterrupted():  # a second one changes nothing
                bar.write(f"Interrupted after {done} of {num_steps} steps; what was reached is returned.")
                if jax.process_count() == 1:  # several would have to agree on the step
                    save()
        except CheckpointError:
            raise
        except Exception as error:  # of the callback or the iterable: what was reached is not lost
            if isinstance(error, TasksEndedError):
                error.result = reached()
            if jax.process_count() == 1:
                save()
            raise

    result = reached()
    diverged = np.flatnonzero(np.isnan(result.history.query_loss))
    if diverged.size:
        raise DivergedError(
            f"At outer step {first_step + diverged[0]} the loss or the gradient of every task was infinite or NaN. NaN "
            "in the data does that, and so do labels outside 0 ... number of classes - 1. If the tasks are in order: "
            "Lower the learning rate of `inner` (for a proximal method also check that it is below "
            "2 / (curvature + proximal_strength)), then `perturbation` if the method has one (estimator='three_point' "
            "leaves each problem its minimum), then the learning rate of `outer`. A singular kernel needs a lower "
            "`time` or a higher `ridge`. What was reached is in this error's `result`.",
            result,
        )
    return result


def _first_state(learner, params):
    """The learner's state at the beginning of the run, as JAX arrays."""
    if isinstance(params, FitResult):
        raise TypeError("params is a FitResult: give its `params` to begin anew, or its `state` to go on from there.")
    if not _is_state(params):
        return jax.tree.map(_as_jax, learner.init(params))
    state, expected = jax.tree.map(_as_jax, params), jax.tree.map(_as_jax, learner.init(params.params))
    structure: Any = jax.tree.structure(state)
    if structure != jax.tree.structure(expected):
        raise ValueError(
            "params is the state of another learner, whose optimizer or memory is built otherwise: "
            f"{_built(structure)}, and here {_built(jax.tree.structure(expected))}."
        )
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected), strict=True):
        if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"params is the state of another learner: its {jax.tree_util.keystr(path)} is "
                f"{leaf.dtype}{list(leaf.shape)}, and here {other.dtype}{list(other.shape)}."
            )
    return state


def _built(structure):
    return str(structure).removeprefix("PyTreeDef")[:120]


def _is_state(params):
    """Whether this is a learner's state; parameters hold floating-point arrays only, and so no count of steps."""
    step = getattr(params, "step", None)
    return hasattr(params, "params") and step is not None and jnp.issubdtype(getattr(step, "dtype", bool), jnp.integer)


def _as_jax(leaf):
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf, jnp.result_type(leaf))


def _spread(mesh, tree):
    """The arrays on the mesh's devices: split where they are split over its axes, or else a copy on each."""

    def put(leaf):
        sharding = getattr(leaf, "sharding", None)
        spec = PartitionSpec()
        if isinstance(sharding, NamedSharding) and sharding.mesh.axis_names == mesh.axis_names:
            spec = sharding.spec
        return jax.device_put(leaf, NamedSharding(_automatic(mesh), spec))

    return jax.tree.map(put, tree)


def _places(mesh, state, num_tasks):
    """Where tasks and then each array of the state are to be."""
    if num_tasks % mesh.shape["tasks"]:
        raise ValueError(
            f"meta_batch_size must be a multiple of the {mesh.shape['tasks']} devices along the mesh's axis 'tasks', "
            f"but it is {num_tasks}."
        )
    return NamedSharding(_automatic(mesh), PartitionSpec("tasks")), *(leaf.sharding for leaf in jax.tree.leaves(state))


def _automatic(mesh):
    """The same mesh, on which the compiler splits what is not said; that of jax.make_mesh wants all to be said."""
    return Mesh(mesh.devices, mesh.axis_names)


def _go_past(source, num_steps, mark):
    """Takes an iterable to where the run was stopped, if it still gives the batches that were used."""
    try:
        source.skip(num_steps)
    except TasksEndedError as error:
        raise CheckpointError(
            f"checkpoint_dir holds a run of {num_steps} steps, but tasks gives fewer batches. Give the iterable "
            "that the run had, from its beginning."
        ) from error
    if source.mark != mark:
        raise CheckpointError(
            f"checkpoint_dir is of another run: the first {num_steps} batches of tasks are not those that it used. An "
            "iterable must give the same batches every time; seed what shuffles it. Nothing was changed."
        )


def _wants_to_stop(callback, step, state, history):
    """What the callback says; of several processes, the first one decides."""
    answer = callback(step, state, history)
    a_bool = isinstance(answer, (bool, np.bool_)) or (isinstance(answer, jax.Array) and answer.dtype == jnp.bool_)
    if answer is not None and not (a_bool and np.shape(answer) == ()):
        raise TypeError(f"callback must return True to stop, False or None to go on, but it returned {answer!r:.80}.")
    if jax.process_count() > 1:
        answer = multihost_utils.broadcast_one_to_all(np.array(bool(answer)))
    return bool(answer)
