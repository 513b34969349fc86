"""Meta-test: adapt to tasks that meta-training did not see, and say how sure the score is."""

import functools
import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Real

from metalearn import _require
from metalearn.adaptation import inner as inner_loop
from metalearn.meta_gradients.imaml import implicit_gradient
from metalearn.task import Batch, Loss, Number, Params, Scalar, Task

_TASKS_AT_ONCE = 250
"""Tasks adapted side by side; more come in turn, so that memory stays bounded."""


class Score(NamedTuple):
    """A mean over tasks with its 95 % confidence interval: mean - half_width to mean + half_width.

    Attributes:
      mean: mean over tasks.
      half_width: 1.96 standard errors of that mean (normal approximation; use 30 tasks or more).
      num_tasks: how many tasks were averaged.

    Example: see `score`.
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
    proximal_strength: Number = 0.0,
) -> Float[Array, "{num_steps}+1 num_tasks"]:
    """Query loss before adaptation and after each inner step, for each task.

    Args:
      loss: scalar of (params, batch); the inner loop descends it on the support set, and it is reported on the query
        set.
      inner: the inner optimizer, for instance optax.sgd(0.01).
      params: θ, the initialization of every task.
      tasks: a batch of tasks.
      num_steps: K >= 0 inner steps.
      metric: scalar of (params, batch), reported in place of the loss, for instance losses.accuracy(apply).
      proximal_strength: λ >= 0, in units of curvature (loss / params²): the inner loop descends
        h(φ) + λ/2 ‖φ - θ‖², as `imaml` and `fo_b_maml` do in meta-training. It may be traced.

    Returns:
      An array of shape [num_steps + 1, num_tasks]. Where the adapted parameters or the query loss are not finite it is
      NaN, whatever the metric says of them. A warning tells if some tasks diverged, except within jax.jit.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> tasks = ml.Task(support=jnp.array([[1.0], [2.0]]), query=jnp.array([[1.0], [2.0]]))
      >>> print(ml.evaluate.adaptation_curve(loss, optax.sgd(0.5), jnp.array(0.0), tasks, num_steps=2))
      [[0.5     2.     ]
       [0.125   0.5    ]
       [0.03125 0.125  ]]
    """
    return _curve(loss, metric, inner, params, tasks, num_steps, proximal_strength)


def meta_test(
    loss: Loss,
    inner: optax.GradientTransformation,
    params: Params,
    tasks: Task,
    num_steps: int,
    metric: Loss | None = None,
    proximal_strength: Number = 0.0,
) -> Score:
    """The score after adaptation on a batch of new tasks.

    Args:
      loss: scalar of (params, batch); the inner loop descends it on each support set.
      inner: the inner optimizer.
      params: θ, the initialization of every task.
      tasks: a batch of at least two tasks.
      num_steps: K >= 0 inner steps.
      metric: scalar of (params, batch), measured on each query set, for instance losses.accuracy(apply); by default
        the loss.
      proximal_strength: λ, as in `adaptation_curve`.

    Returns:
      A Score over tasks. It is NaN, with a warning, if one of them diverged.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> tasks = ml.Task(support=jnp.array([[1.0], [2.0]]), query=jnp.array([[1.0], [2.0]]))
      >>> print(ml.evaluate.meta_test(loss, optax.sgd(0.5), jnp.array(0.0), tasks, num_steps=1))
      0.31 ± 0.37 (95 % CI, 2 tasks)
    """
    return score(_curve(loss, metric, inner, params, tasks, num_steps, proximal_strength)[-1])


def score(values: Real[ArrayLike, " num_tasks"]) -> Score:
    """Mean and 95 % confidence interval of one number per task.

    A task that diverged is not averaged away: if a value is infinite or NaN, so are the mean and the interval, NaN.

    Args:
      values: one number for each task, shape [num_tasks], of at least two tasks.

    Returns:
      A Score.

    Raises:
      TypeError, ValueError: if values are traced, or not real numbers of that shape.

    Example:
      >>> import metalearn as ml
      >>> print(ml.evaluate.score([0.2, 0.3, 0.4, 0.5]))
      0.35 ± 0.13 (95 % CI, 4 tasks)
    """
    if isinstance(values, jax.core.Tracer):
        raise TypeError(
            "score needs numbers, but within jax.jit values are traced: return them, and score them outside."
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"values must have shape [num_tasks], but they are ragged: {error}") from None
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or np.iscomplexobj(array):
        raise TypeError(f"values must be real numbers, one for each task, but they are {array.dtype}.")
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"values must have shape [num_tasks] with at least 2 tasks, but it has {list(array.shape)}.")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        return Score(math.nan, math.nan, array.size)
    standard_error = array.std(ddof=1) / np.sqrt(array.size)
    return Score(float(array.mean()), float(1.96 * standard_error), array.size)


class Convergence(NamedTuple):
    """How far the inner problem of each task is from being solved; 0 is solved. Arrays of shape [num_tasks].

    Attributes:
      inner_gradient: norm of the inner gradient at φ_K, relative to its norm at the initialization.
      linear_system: relative residual of the conjugate gradients of `imaml` there, or None without `cg_steps`.

    Example: see `convergence`.
    """

    inner_gradient: Float[Array, " num_tasks"]
    linear_system: Float[Array, " num_tasks"] | None


def convergence(
    loss: Loss,
    inner: optax.GradientTransformation,
    params: Params,
    tasks: Task,
    num_steps: int,
    proximal_strength: Number,
    cg_steps: int | None = None,
) -> Convergence:
    """Whether `imaml` and `fo_b_maml` solve the problems they differentiate, before one trusts their gradients.

    Call it on a batch of tasks before meta-training and once more on the params that came out of it. Numbers near 1
    mean that nothing is solved yet: take more steps, or a larger λ, with which both problems are easier.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer.
      params: θ, the initialization of every task.
      tasks: a batch of tasks.
      num_steps: K >= 1 inner steps.
      proximal_strength: λ > 0.
      cg_steps: number of conjugate-gradient steps of `imaml`, >= 1.

    Returns:
      A Convergence.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> tasks = ml.Task(support=jnp.array([[1.0], [2.0]]), query=jnp.array([[1.0], [2.0]]))
      >>> report = ml.evaluate.convergence(loss, optax.sgd(0.1), jnp.array(0.0), tasks, 5, proximal_strength=1.0)
      >>> [round(number, 2) for number in report.inner_gradient.tolist()]  # five steps leave a third
      [0.33, 0.33]
    """
    _check(loss, loss, inner, params, tasks, num_steps)
    _require.count(at_least=1, num_steps=num_steps)
    _require.positive(proximal_strength=proximal_strength)
    if cg_steps is not None:
        _require.count(at_least=1, cg_steps=cg_steps)
    return _compiled_convergence(loss, inner, num_steps, cg_steps, params, tasks, proximal_strength)


def _curve(loss, metric, inner, params, tasks, num_steps, proximal_strength):
    metric = loss if metric is None else metric
    _check(loss, metric, inner, params, tasks, num_steps)
    _require.not_negative(proximal_strength=proximal_strength)
    strength = inner_loop.none_if_zero(proximal_strength)
    curve = _compiled_curve(loss, metric, inner, num_steps, params, tasks, strength)
    warn_of_failures(curve, stacklevel=4)
    return curve


def _check(loss, metric, inner, params, tasks, num_steps):
    _require.takes("params", "batch", loss=loss, metric=metric)
    _require.transformation(inner=inner)
    _require.hashable(loss=loss, metric=metric, inner=inner)
    _require.count(num_steps=num_steps)
    _require.float_params(params)
    _require.task_batch(tasks)
    require_examples(tasks)


def require_examples(tasks: Task) -> None:
    """Raises ValueError where a batch of tasks is in truth one task, as far as the shapes tell."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tasks):
        if jnp.ndim(leaf) < 2:
            raise ValueError(
                "tasks must be a batch of tasks, whose arrays have shape [num_tasks, num_examples, ...], but tasks"
                f"{jax.tree_util.keystr(path)} has shape {list(jnp.shape(leaf))}. Of a single task make a batch by "
                "jax.tree.map(lambda leaf: leaf[None], task)."
            )


def warn_of_failures(curve: Float[Array, "steps num_tasks"], stacklevel: int = 3) -> None:
    """Warns if some tasks of a curve, shape [num_steps + 1, num_tasks], are not finite; silent within jax.jit."""
    if isinstance(curve, jax.core.Tracer):
        return
    failed = ~jnp.isfinite(curve).all(axis=0)
    if failed.any():
        warnings.warn(
            f"{failed.sum()} of {failed.size} tasks ended in infinity or NaN: lower the learning rate of `inner`.",
            stacklevel=stacklevel,
        )


def finite_metric(loss: Loss, metric: Loss, params: Params, query: Batch) -> Scalar:
    """The metric on the query set; NaN where parameters or loss are not finite, for accuracy has a value there too."""
    leaves = [*jax.tree.leaves(params), loss(params, query)]
    finite = jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    return jnp.where(finite, metric(params, query), jnp.nan)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled_curve(loss, metric, inner, num_steps, params, tasks, strength):
    loss, metric = _require.scalar(loss), _require.metric(metric)

    def one_task(task):
        objective = inner_loop.support_objective(loss, params, task.support, strength)

        def step(state, _):
            after = inner_loop.step(objective, inner, state)
            return after, finite_metric(loss, metric, after.params, task.query)

        _, values = jax.lax.scan(step, inner_loop.init(inner, params), length=num_steps)
        return jnp.concatenate([finite_metric(loss, metric, params, task.query)[None], values])

    return jax.lax.map(one_task, tasks, batch_size=_TASKS_AT_ONCE).T


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled_convergence(loss, inner, num_steps, cg_steps, params, tasks, strength):
    loss = _require.scalar(loss)
    adapts = inner_loop.adapting_to_stationarity("imaml", inner, num_steps, params)

    def one_task(task):
        objective = inner_loop.support_objective(loss, params, task.support, strength)
        adapted = inner_loop.descend(objective, inner, num_steps, params)

        def gradient_norm(phi):
            of_adapting = jax.tree.map(lambda leaf, moves: jnp.where(moves, leaf, 0), jax.grad(objective)(phi), adapts)
            return optax.tree.norm(of_adapting)

        initial = gradient_norm(params)
        left = gradient_norm(adapted) / jnp.where(initial > 0, initial, 1)
        if cg_steps is None:
            return Convergence(left, None)
        query_gradient = jax.grad(loss)(adapted, task.query)
        _, residual = implicit_gradient(
            lambda phi: loss(phi, task.support), adapted, query_gradient, adapts, strength, cg_steps
        )
        return Convergence(left, residual)

    return jax.lax.map(one_task, tasks, batch_size=_TASKS_AT_ONCE)
