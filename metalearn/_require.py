"""Argument checks. Each raises an error that names the argument and says what would be right."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metalearn.task import Loss, Task


def positive(**values: Any) -> None:
    """Raises ValueError unless every named value is a finite number above zero."""
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            continue  # known only when the compiled program runs
        if not _is_real(value) or not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be a finite number above 0, but it is {value!r}.")


def not_negative(**values: Any) -> None:
    """Raises ValueError unless every named value is a finite number of at least zero."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and (not _is_real(value) or not 0 <= value < math.inf):
            raise ValueError(f"{name} must be a finite number of at least 0, but it is {value!r}.")


def fraction(**values: Any) -> None:
    """Raises ValueError unless every named value lies in [0, 1)."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and (not _is_real(value) or not 0 <= value < 1):
            raise ValueError(f"{name} must be at least 0 and below 1, but it is {value!r}.")


def rate(**values: Any) -> None:
    """Raises ValueError unless every named value lies in (0, 1]."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and (not _is_real(value) or not 0 < value <= 1):
            raise ValueError(f"{name} must be above 0 and at most 1, but it is {value!r}.")


def learning_rate(value: Any) -> None:
    """Raises ValueError unless the value is a positive number or an optax schedule."""
    if not callable(value):
        positive(learning_rate=value)


def count(at_least: int = 0, **values: Any) -> None:
    """Raises ValueError unless every named value is a whole number of at least `at_least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < at_least:
            raise ValueError(f"{name} must be a whole number of at least {at_least}, but it is {value!r}.")


def flag(**values: Any) -> None:
    """Raises TypeError unless every named value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, but it is {value!r}.")


def interval(**values: Any) -> None:
    """Raises ValueError unless every named value is a pair (low, high) of finite numbers with low <= high."""
    for name, value in values.items():
        low, high = value if isinstance(value, (tuple, list)) and len(value) == 2 else (math.nan, math.nan)
        if isinstance(low, jax.core.Tracer) or isinstance(high, jax.core.Tracer):
            continue
        if not _is_real(low) or not _is_real(high) or not -math.inf < low <= high < math.inf:
            raise ValueError(
                f"{name} must be a pair (low, high) of finite numbers with low <= high, but it is {value!r}."
            )


def random_key(**values: Any) -> None:
    """Raises TypeError unless every named value is a key of jax.random, of the new kind or the old."""
    for name, value in values.items():
        new = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        old = isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.shape == (2,)
        if not (new or old):
            raise TypeError(f"{name} must be a jax.random.key(seed), but it is a {type(value).__name__}.")


def function(**values: Any) -> None:
    """Raises TypeError unless every named value can be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name} must be a function, but it is a {type(value).__name__}.")


def hashable(**values: Any) -> None:
    """Raises TypeError unless every named value can be a key of the cache of compiled programs."""
    for name, value in values.items():
        try:
            hash(value)
        except TypeError as error:
            raise TypeError(
                f"{name} must be hashable, so that its program is compiled once, but {error}. "
                "Give it plain numbers instead of arrays, or wrap it in a function."
            ) from None


def mesh(**values: Any) -> None:
    """Raises TypeError or ValueError unless every named value is a mesh of devices with an axis "tasks"."""
    for name, value in values.items():
        if not isinstance(value, jax.sharding.Mesh):
            raise TypeError(f"{name} must be a mesh of jax.make_mesh, but it is a {type(value).__name__}.")
        if "tasks" not in value.axis_names:
            raise ValueError(
                f"{name} must have an axis named 'tasks', as in jax.make_mesh((8,), ('tasks',)), "
                f"but its axes are {list(value.axis_names)}."
            )


def transformation(**values: Any) -> None:
    """Raises TypeError unless every named value is an optax transformation."""
    for name, value in values.items():
        if isinstance(value, optax.MultiSteps):
            raise TypeError(
                f"{name} is an optax.MultiSteps, which is no transformation: add .gradient_transformation()."
            )
        if not isinstance(value, optax.GradientTransformation):
            raise TypeError(
                f"{name} must be an optax.GradientTransformation such as optax.sgd(0.01), "
                f"but it is a {type(value).__name__}."
            )


def scalar(loss: Callable) -> Loss:
    """The same loss, which says so when its value is no scalar or its batch is ragged.

    The checks look at shapes only, so they cost nothing in a compiled program.
    """
    function(loss=loss)

    def checked(params, batch):
        same_leading_axis("examples", batch)
        value = loss(params, batch)
        if jnp.shape(value) != ():
            raise ValueError(
                f"loss must return a scalar, but it returned shape {jnp.shape(value)}. "
                "Average over the examples, for instance with jnp.mean."
            )
        return value

    return checked


def task_batch(tasks: Task) -> int:
    """The number of tasks in a batch; raises when the argument is no batch of tasks."""
    if not isinstance(tasks, Task):
        raise TypeError(f"tasks must be a metalearn.Task(support, query), but it is a {type(tasks).__name__}.")
    num_tasks = same_leading_axis("tasks", tasks)
    if num_tasks == 0:
        raise ValueError("tasks must hold at least one task, but its leading axis is 0.")
    return num_tasks


def batch_per_step(num_steps: int, support: Any) -> None:
    """Raises ValueError unless the leading axis of the support set counts the inner steps."""
    found = same_leading_axis("inner steps", support)
    if found != num_steps:
        raise ValueError(
            "With resample=True, task.support holds one batch for each inner step: its arrays must have a leading axis "
            f"of length num_steps = {num_steps}, but it has length {found}."
        )


def float_params(params: Any) -> None:
    """Raises TypeError unless params holds floating-point arrays, and at least one."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise TypeError("params holds no array, so there is nothing to learn.")
    for path, leaf in leaves:
        if (not hasattr(leaf, "dtype") and not _is_real(leaf)) or not jnp.issubdtype(
            jnp.result_type(leaf), jnp.floating
        ):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"params{where} must be a floating-point array, but it is {leaf!r}.")


def all_adapt(method: str, moves: Any) -> None:
    """Raises ValueError unless the inner rule moves every parameter; `moves` is what `inner.adapting` returns."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(moves):
        if not leaf.all():
            raise ValueError(
                f"{method} learns only what its inner loop moves, but `inner` leaves params"
                f"{jax.tree_util.keystr(path)} where it is. Use maml when only a part of the parameters adapts."
            )


def same_leading_axis(counts: str, tree: Any) -> int:
    shapes = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    sizes = {shape[:1] for shape in shapes.values()}
    if len(sizes) != 1 or sizes == {()}:
        listing = ", ".join(f"{path or 'batch'} {list(shape)}" for path, shape in shapes.items()) or "no array"
        raise ValueError(f"The leading axis counts {counts} and must be the same everywhere, but there is: {listing}.")
    return next(iter(sizes))[0]


def _is_real(value: Any) -> bool:
    return (isinstance(value, numbers.Real) and not isinstance(value, bool)) or (
        hasattr(value, "dtype") and jnp.shape(value) == () and jnp.issubdtype(value.dtype, jnp.number)
    )
