"""Argument checks. Each raises an error that names the argument and says what would be right."""

import functools
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn.task import Loss, Params, Task

Result = TypeVar("Result")


def positive(**values: Any) -> None:
    """Raises ValueError unless every named value is a finite number above zero."""
    _numbers("a finite number above 0", lambda number: 0 < number < math.inf, values)


def not_negative(**values: Any) -> None:
    """Raises ValueError unless every named value is a finite number of at least zero."""
    _numbers("a finite number of at least 0", lambda number: 0 <= number < math.inf, values)


def number(**values: Any) -> None:
    """Raises ValueError unless every named value is a finite number."""
    _numbers("a finite number", lambda number: -math.inf < number < math.inf, values)


def fraction(**values: Any) -> None:
    """Raises ValueError unless every named value lies in [0, 1)."""
    _numbers("at least 0 and below 1", lambda number: 0 <= number < 1, values)


def rate(**values: Any) -> None:
    """Raises ValueError unless every named value lies in (0, 1]."""
    _numbers("above 0 and at most 1", lambda number: 0 < number <= 1, values)


def known(**values: Any) -> None:
    """Raises TypeError if a named value is traced, that is, known only when a compiled program runs."""
    for name, value in values.items():
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"{name} must be known at once, but it is traced: call this outside jax.jit, jax.vmap and jax.grad."
            )


def learning_rate(value: Any) -> None:
    """Raises ValueError unless the value is a positive number or an optax schedule."""
    if callable(value):
        takes("count", learning_rate=value)
    else:
        positive(learning_rate=value)


def count(at_least: int = 0, at_most: int = 2**31 - 1, **values: Any) -> None:
    """Raises ValueError unless every named value is a whole number from `at_least` to `at_most`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < at_least:
            raise ValueError(f"{name} must be a whole number of at least {at_least}, but it is {_shown(value)}.")
        if int(value) > at_most:
            raise ValueError(f"{name} must be at most {at_most}, but it is {_shown(value)}.")


def flag(**values: Any) -> None:
    """Raises TypeError unless every named value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, but it is {value!r}.")


def interval(**values: Any) -> None:
    """Raises ValueError unless every named value is a pair (low, high) of finite numbers with low <= high."""
    for name, value in values.items():
        ends = value if isinstance(value, (tuple, list)) and len(value) == 2 else (None,)
        good = all(map(_is_real, ends))
        if good and not any(isinstance(end, jax.core.Tracer) for end in ends):
            low, high = map(_rounded, ends)
            good = low <= high and _rounded(high - low) < math.inf  # which says that both are finite, too
        if not good:
            raise ValueError(
                f"{name} must be a pair (low, high) of finite numbers with low <= high, and high - low finite, "
                f"but it is {_shown(value)}."
            )


def random_key(**values: Any) -> None:
    """Raises TypeError unless every named value is one key of jax.random, of the new kind or the old."""
    for name, value in values.items():
        new = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ()
        old = isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.shape == (2,)
        if not (new or old):
            raise TypeError(f"{name} must be a jax.random.key(seed), but it is {_kind(value)}.")


def function(**values: Any) -> None:
    """Raises TypeError unless every named value can be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name} must be a function, but it is a {type(value).__name__}.")


def takes(*arguments: str, **values: Any) -> None:
    """Raises TypeError unless every named value is a function that can be called with those arguments."""
    function(**values)
    for name, value in values.items():
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):
            continue  # some functions written in C do not tell
        try:
            signature.bind(*arguments)
        except TypeError:
            raise TypeError(
                f"{name} must be a function of ({', '.join(arguments)}), "
                f"but its arguments are ({_cut(', '.join(map(str, signature.parameters.values())))})."
            ) from None


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
        if getattr(getattr(value, "init", None), "__module__", "") == optax.lookahead.__module__:
            raise TypeError(
                f"{name} is an optax.lookahead, which needs a second copy of the parameters beside each: take the fast "
                "optimizer within it alone. `reptile` is the outer loop that does what lookahead does."
            )
        if not isinstance(value, optax.GradientTransformation):
            raise TypeError(
                f"{name} must be an optax.GradientTransformation such as optax.sgd(0.01), "
                f"but it is a {type(value).__name__}."
            )


def scalar(loss: Callable[..., Any]) -> Loss:
    """The same loss, which says so when its value is no scalar that has a gradient, or its batch is ragged or empty.

    The checks look at shapes and types only, so they cost nothing in a compiled program.
    """
    return _measure("loss", loss, differentiable=True)


def metric(metric: Callable[..., Any]) -> Loss:
    """The same for a metric, which is not differentiated and may count."""
    return _measure("metric", metric, differentiable=False)


def _measure(name, function, differentiable):
    takes("params", "batch", **{name: function})

    def checked(params, batch):
        if same_leading_axis("examples", batch) == 0:
            raise ValueError("batch must hold at least one example, but its leading axis is 0.")
        value = function(params, batch)
        dtype = _dtype(value)
        if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
            hint = " Return the loss alone." if isinstance(value, (tuple, list, dict)) else ""
            raise TypeError(f"{name} must return a scalar, but it returned {_kind(value)}.{hint}")
        if jnp.shape(value) != ():
            raise ValueError(
                f"{name} must return a scalar, but it returned shape {jnp.shape(value)}. "
                "Average over the examples, for instance with jnp.mean."
            )
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(f"{name} must return a real number, but it returned {dtype}.")
        if differentiable and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name} must return a floating-point number, which has a gradient, but it returned {dtype}."
            )
        return jnp.asarray(value)

    return checked


def params_and_task(meta_gradient: Callable[[Params, Task], Result]) -> Callable[[Params, Task], Result]:
    """The same meta-gradient, which says so when params or its task is none: every factory returns one of these.

    The checks look at shapes and types only, so they cost nothing in a compiled program.
    """

    @functools.wraps(meta_gradient)
    def checked(params, task):
        float_params(params)
        if not isinstance(task, Task):
            raise TypeError(f"task must be a metalearn.Task(support, query), but it is {_kind(task)}.")
        arrays("examples", task.support)  # whose leading axis may count inner steps instead
        same_leading_axis("examples", task.query)
        return meta_gradient(params, task)

    return checked


def value_and_gradient(result: Any, params: Any) -> Any:
    """What a meta-gradient returned; raises unless it is a pair of a scalar and a pytree like params."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        what = f"{len(result)} values" if isinstance(result, (tuple, list)) else _kind(result)
        raise TypeError(f"meta_gradient must return a pair (query loss, gradient), but it returned {what}.")
    loss, gradient = result
    if _shaped(loss) != "float[]":
        raise ValueError(f"meta_gradient must return a scalar query loss first, but it is {_shaped(loss)}.")
    found: Any = jax.tree.structure(gradient)
    if found != jax.tree.structure(params):
        raise ValueError(
            "meta_gradient must return a gradient with the structure of params, "
            f"{_short(jax.tree.structure(params))}, but it is {_short(found)}."
        )
    expected = jax.tree_util.tree_leaves_with_path(params)
    for (path, parameter), leaf in zip(expected, jax.tree.leaves(gradient), strict=True):
        if _shaped(leaf) != _shaped(parameter):
            raise ValueError(
                "meta_gradient must return a gradient with the shapes of params, but for params"
                f"{jax.tree_util.keystr(path)}, {_shaped(parameter)}, it is {_shaped(leaf)}."
            )
    return result


def pair(batch: Any, first: str = "inputs", second: str = "targets") -> tuple[Any, Any]:
    """The two parts of a batch; raises TypeError unless it is a pair. An array is none, though it could be unpacked."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        what = f"{_kind(batch)} of {len(batch)}" if isinstance(batch, (tuple, list)) else _kind(batch)
        raise TypeError(f"batch must be a pair ({first}, {second}), but it is {what}.")
    return batch[0], batch[1]


def array(**values: Any) -> None:
    """Raises TypeError unless every named value is an array of numbers."""
    for name, value in values.items():
        if _dtype(value) is None or jnp.issubdtype(_dtype(value), jax.dtypes.extended):
            raise TypeError(f"{name} must be an array of numbers, but it is {_kind(value)}.")


def returned_floats(name: str, value: Any) -> jax.Array:
    """The array that the function of that name returned; raises TypeError if its numbers are not floating-point."""
    if not jnp.issubdtype(_dtype(value) or bool, jnp.floating):
        raise TypeError(f"{name} must return an array of floating-point numbers, but it returned {_kind(value)}.")
    return jnp.asarray(value)


def finite_float64(name: str, value: Any) -> np.ndarray:
    """The value as a float64 numpy array; raises TypeError or ValueError unless it holds finite real numbers."""
    known(**{name: value})
    try:
        held = np.asarray(value)
        real = held.dtype.kind in "iuf" or jnp.issubdtype(held.dtype, jnp.floating)
    except (TypeError, ValueError):  # a ragged list, a key
        real = False
    if not real:
        raise TypeError(f"{name} must be an array of real numbers, but it is {_kind(value)}.")
    if not np.isfinite(held.astype(np.float64)).all():
        raise ValueError(f"{name} must hold finite numbers, but it holds infinity or NaN.")
    return held.astype(np.float64)


def task_batch(tasks: Task) -> int:
    """The number of tasks in a batch; raises when the argument is no batch of tasks."""
    if not isinstance(tasks, Task):
        raise TypeError(f"tasks must be a metalearn.Task(support, query), but it is {_kind(tasks)}.")
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
    """Raises TypeError unless params holds floating-point arrays, and at least one number."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        dtype = _dtype(leaf)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"params{where} must be a floating-point array, but it is {_shown(leaf)}.")
    if not any(jnp.size(leaf) for _, leaf in leaves):
        raise TypeError("params holds no array, so there is nothing to learn.")


def all_adapt(method: str, moves: Any) -> None:
    """Raises ValueError unless the inner optimizer moves every parameter; `moves` is what `inner.adapting` returns."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(moves):
        if not leaf.all():
            raise ValueError(
                f"{method} learns only what its inner loop moves, but `inner` leaves params"
                f"{jax.tree_util.keystr(path)} where it is. Use maml when only a part of the parameters adapts."
            )


def same_leading_axis(counts: str, tree: Any) -> int:
    """The length of the leading axis, which counts those; raises unless the tree holds arrays that have the same."""
    shapes = {path: jnp.shape(leaf) for path, leaf in arrays(counts, tree).items()}
    sizes = {shape[:1] for shape in shapes.values()}
    if len(sizes) != 1 or sizes == {()}:
        listing = [f"{path or 'batch'} {list(shape)}" for path, shape in shapes.items()]
        shown = ", ".join(listing[:6]) + (", ..." if len(listing) > 6 else "")
        raise ValueError(f"The leading axis counts {counts} and must be the same everywhere, but there is: {shown}.")
    return next(iter(sizes))[0]


def arrays(counts: str, tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their place in it; raises if there is none, or something else."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    for path, leaf in leaves.items():
        if _dtype(leaf) is None:
            raise TypeError(f"Tasks and batches must hold arrays of numbers, but {path or 'batch'} is {_kind(leaf)}.")
    if not leaves:
        raise ValueError(
            f"The leading axis counts {counts} and must be the same everywhere, but there is: no array in the batch."
        )
    return leaves


def _numbers(what, holds, values):
    """Raises ValueError unless every value is a real number for which `holds`, which of a traced one is not known."""
    for name, value in values.items():
        if not _is_real(value) or not (isinstance(value, jax.core.Tracer) or holds(_rounded(value))):
            raise ValueError(f"{name} must be {what}, but it is {_shown(value)}.")


def _is_real(value: Any) -> bool:
    dtype = _dtype(value)
    real = dtype is not None and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))
    return real and jnp.shape(value) == ()


def _dtype(value: Any) -> Any:
    """The type of the numbers of an array or of one number, as JAX holds them, or None for anything else."""
    if isinstance(value, type) or not (hasattr(value, "dtype") or isinstance(value, (int, float, complex))):
        return None
    try:
        return jnp.result_type(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _rounded(value: Any) -> float:
    """A real number as JAX computes with it: one too large for its floats is infinite, and one too small is 0."""
    floats = jnp.finfo(jnp.result_type(float))
    try:
        number = float(value)
    except OverflowError:  # an integer of very many digits
        return math.inf if value > 0 else -math.inf
    if abs(number) > float(floats.max):
        return math.copysign(math.inf, number)
    return 0.0 if abs(number) < float(floats.tiny) else float(floats.dtype.type(number))


def _shown(value: Any) -> str:
    """A value in an error message: as it is written if that is short, or else what it is."""
    try:
        text = repr(value)
    except Exception:  # an integer of very many digits has no text
        text = ""
    return text if 0 < len(text) <= 80 and "\n" not in text else _kind(value)


def _kind(value: Any) -> str:
    """What a value is, in an error message."""
    if value is None:
        return "None"
    dtype = _dtype(value)
    if dtype is not None and hasattr(value, "dtype"):
        return f"an array of {dtype}{list(jnp.shape(value))}"
    return f"a {type(value).__name__}"


def _cut(text: str, length: int = 120) -> str:
    return text if len(text) <= length else text[:length] + " ..."


def _shaped(value: Any) -> str:
    """For instance float[3, 2], whatever the precision; the type of what is no array."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, float, int)):
        return _kind(value)
    dtype = jnp.result_type(value)
    return f"{'float' if jnp.issubdtype(dtype, jnp.floating) else dtype}{list(jnp.shape(value))}"


def _short(structure: Any) -> str:
    text = str(structure).removeprefix("PyTreeDef")
    return text if len(text) < 120 else text[:117] + "..."
