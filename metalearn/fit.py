"""The training loop: many outer steps in each compiled call, a progress bar between the calls."""

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from metalearn import _require
from metalearn.learner import MetaLearner, MetaState
from metalearn.task import Params, Task

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

    Returns:
      A FitResult. Interrupted by Ctrl-C, the result reached so far.

    Raises:
      DivergedError: when all tasks of a step are non-finite; it says what to lower and holds the result so far.
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    _require.count(at_least=1, num_steps=num_steps, meta_batch_size=meta_batch_size)
    _require.function(sample_tasks=sample_tasks)
    _require.hashable(learner=learner, sample_tasks=sample_tasks)
    _require.random_key(key=key)
    if not (hasattr(learner, "init") and hasattr(learner, "step")):
        raise TypeError(f"learner must come from meta_learner, but it is a {type(learner).__name__}.")
    capacity = -(-num_steps // NUM_CALLS)
    state, parts, done = learner.init(params), [], 0

    with tqdm(total=num_steps, disable=not progress, file=sys.stdout, unit="step", mininterval=0.5) as bar:
        try:
            while done < num_steps:
                count = min(capacity, num_steps - done)
                after, part = _run(learner, sample_tasks, meta_batch_size, capacity, state, key, count)
                # JAX computes in the background: the wait is here, and with it nearly every Ctrl-C.
                part = History(*(np.asarray(leaf)[:count] for leaf in part))
                state, done = after, done + count
                parts.append(part)
                bar.update(count)
                bar.set_postfix_str(f"query loss {np.mean(parts[-1].query_loss):.3g}", refresh=False)
                if (parts[-1].num_failed == meta_batch_size).any():
                    break
        except KeyboardInterrupt:
            bar.write(f"Interrupted after {done} of {num_steps} steps; what was reached is returned.")

    empty = History(np.zeros(0), np.zeros(0), np.zeros(0, int))
    history = History(*map(np.concatenate, zip(empty, *parts, strict=True)))
    result = FitResult(state.params, history, state)
    failed = np.flatnonzero(history.num_failed == meta_batch_size)
    if failed.size:
        raise DivergedError(
            f"At outer step {failed[0]} the inner loop of every task ended in infinity or NaN. Lower the learning rate "
            "of `inner` (for a proximal method also check that it is below 2 / (curvature + proximal_strength)), then "
            "`perturbation` if the method has one, then the learning rate of `outer`. A singular kernel needs a lower "
            "`time` or a higher `ridge`. "
            "What was reached is in this error's `result`.",
            result,
        )
    return result


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(learner, sample_tasks, meta_batch_size, capacity, state, key, count):
    """Takes `count` outer steps, at most `capacity`: one program serves every call of a run, the last included."""

    def body(i, carry):
        state, history = carry
        state, info = learner.step(state, sample_tasks(jax.random.fold_in(key, state.step), meta_batch_size))
        row = History(
            jnp.nanmean(jnp.where(info.finite, info.query_loss, jnp.nan)),
            info.grad_norm,
            jnp.sum(~info.finite, dtype=jnp.int32),
        )
        return state, jax.tree.map(lambda column, value: column.at[i].set(value), history, row)

    blank = History(jnp.zeros(capacity), jnp.zeros(capacity), jnp.zeros(capacity, jnp.int32))
    return jax.lax.fori_loop(0, count, body, (state, blank))
