"""Meta-test: adapt to tasks that meta-training did not see, and say how sure the score is."""

import functools
import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn import _require
from metalearn.adaptation import inner as inner_loop
from metalearn.task import Loss, Params, Task

_TASKS_AT_ONCE = 250
"""Tasks adapted side by side; more come in turn, so that memory stays bounded."""


class Score(NamedTuple):
    """A mean over tasks with its 95 % confidence interval: mean - half_width to mean + half_width.

    Attributes:
      mean: mean over tasks.
      half_width: 1.96 standard errors of that mean (normal approximation; use 30 tasks or more).
      num_tasks: how many tasks were averaged.
    """

    mean: float
    half_width: float
    num_tasks: int

    def __str__(self) -> str:
        """For instance '0.331 ± 0.024 (95 % CI, 1000 tasks)'."""
        decimals = 3
        if 0 < self.half_width < math.inf:  # its first two digits, and the mean as far as they reach
            decimals = max(0, 1 - math.floor(math.log10(self.half_width)))
        return f"{self.mean:.{decimals}f} ± {self.half_width:.{decimals}f} (95 % CI, {self.num_tasks} tasks)"


def adaptation_curve(
    loss: Loss,
    inner: optax.GradientTransformation,
    params: Params,
    tasks: Task,
    num_steps: int,
    metric: Loss | None = None,
) -> jax.Array:
    """Query loss before adaptation and after each inner step, for each task.

    Args:
      loss: scalar of (params, batch), descended on the support set and reported on the query set.
      inner: the inner step rule, for instance optax.sgd(0.01).
      params: where every task starts.
      tasks: a batch of tasks.
      num_steps: K >= 0 inner steps.
      metric: scalar of (params, batch), reported in place of the loss, for instance losses.accuracy(apply).

    Returns:
      An array of shape [num_steps + 1, num_tasks]. A warning tells if some tasks diverged, except within jax.jit.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    return _curve(loss, metric or loss, inner, params, tasks, num_steps)


def meta_test(
    loss: Loss,
    inner: optax.GradientTransformation,
    params: Params,
    tasks: Task,
    num_steps: int,
    metric: Loss | None = None,
) -> Score:
    """The score after adaptation on a batch of new tasks.

    Args:
      loss: scalar of (params, batch), descended on each support set.
      inner: the inner step rule.
      params: where every task starts.
      tasks: a batch of at least two tasks.
      num_steps: K >= 0 inner steps.
      metric: scalar of (params, batch), measured on each query set, for instance losses.accuracy(apply); by default
        the loss.

    Returns:
      A Score over tasks.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    return score(_curve(loss, metric or loss, inner, params, tasks, num_steps)[-1])


def score(values: jax.typing.ArrayLike) -> Score:
    """Mean and 95 % confidence interval of one number per task, shape [num_tasks] with at least two tasks."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"values must have shape [num_tasks] with at least 2 tasks, but it has {list(values.shape)}.")
    standard_error = values.std(ddof=1) / np.sqrt(values.size)
    return Score(float(values.mean()), float(1.96 * standard_error), values.size)


def _curve(loss, metric, inner, params, tasks, num_steps):
    _require.function(loss=loss, metric=metric)
    _require.transformation(inner=inner)
    _require.count(num_steps=num_steps)
    _require.float_params(params)
    _require.task_batch(tasks)
    curve = _compiled_curve(loss, metric, inner, num_steps, params, tasks)
    warn_of_failures(curve, stacklevel=4)
    return curve


def warn_of_failures(curve: jax.Array, stacklevel: int = 3) -> None:
    """Warns if some tasks of a curve, shape [num_steps + 1, num_tasks], are not finite; silent within jax.jit."""
    if isinstance(curve, jax.core.Tracer):
        return
    failed = ~jnp.isfinite(curve).all(axis=0)
    if failed.any():
        warnings.warn(
            f"{failed.sum()} of {failed.size} tasks ended in infinity or NaN: lower the learning rate of `inner`.",
            stacklevel=stacklevel,
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled_curve(loss, metric, inner, num_steps, params, tasks):
    loss, metric = _require.scalar(loss), _require.metric(metric)

    def one_task(task):
        def step(state, _):
            after = inner_loop.step(lambda phi: loss(phi, task.support), inner, state)
            return after, metric(after.params, task.query)

        _, values = jax.lax.scan(step, inner_loop.init(inner, params), length=num_steps)
        return jnp.concatenate([metric(params, task.query)[None], values])

    return jax.lax.map(one_task, tasks, batch_size=_TASKS_AT_ONCE).T
