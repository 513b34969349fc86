"""A task distribution that the learner defines: lessons 01, 03 and 05 each ask for it, and for something about it.

It is a function of a random key that returns one `ml.Task`, whose support and query set are pairs (x, y) of arrays of
shape [num_points, 1]. Whatever is asked is measured on the learner's own tasks, so any valid distribution will do.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

import metalearn as ml
from metalearn.course.exercises.checking import HEADINGS
from metalearn.course.widgets.display import show_card
from metalearn.task import Task

_Array = Float64[np.ndarray, "..."]


class Unusable(ValueError):
    """A task distribution with which nothing can be measured; the message says why, in Markdown."""


class Floor(NamedTuple):
    """What one function can reach on a task distribution.

    Attributes:
      x: the inputs of all points, sorted, shape [n].
      best: the best single function there, shape [n].
      floor: its mean squared error.
      uncertainty: standard error of the floor.
      constant: mean squared error of the best single number.
      square: mean square of the targets.
    """

    x: _Array
    best: _Array
    floor: float
    uncertainty: float
    constant: float
    square: float


def lines(key: Any) -> Task:
    """What the lessons give until the learner writes another one: lines with random slope and offset."""
    slope_key, offset_key, x_key = jax.random.split(key, 3)
    slope = jax.random.uniform(slope_key, maxval=2.0)
    offset = jax.random.normal(offset_key)
    x = jax.random.uniform(x_key, (20, 1), minval=-5.0, maxval=5.0)
    y = slope * x + offset
    return Task(support=(x[:10], y[:10]), query=(x[10:], y[10:]))


def tasks(my_task: Any, number: int = 2_000) -> Task:
    """Many tasks of a learner's distribution, in float64 numpy; arrays of shape [number, num_points, 1].

    Raises:
      Unusable: if they are no tasks, or nothing can be learned from them.
    """
    return usable(curves(drawn(my_task, [jax.random.split(jax.random.key(0), number)])))


def drawn(my_task: Any, keys: Iterable[Any]) -> Any:
    """Whatever a learner's function of a key returns for many keys, stacked; numpy arrays.

    Args:
      my_task: the function.
      keys: arrays of keys, one after the other.

    Raises:
      Unusable: if it returns nothing for them.
    """
    if not callable(my_task):
        raise Unusable("`my_task` must be a function of a key. Give the function itself, and not a task.")
    try:
        many = jax.jit(jax.vmap(my_task))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *map(many, keys))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise Unusable(
            "`my_task` cannot be mapped over many keys with `jax.vmap`. Use `jax.numpy` and `jax.random` in it, and "
            "neither `numpy` nor `float` nor an `if` on a random number."
        ) from error
    except Exception as error:
        first, *_ = str(error).splitlines() or ["no message"]
        raise Unusable(f"`my_task` raised {type(error).__name__}: {first:.200}") from error


def usable(drawn: Task) -> Task:
    """The same tasks, arrays of shape [number, num_points, 1].

    Raises:
      Unusable: if nothing can be learned from them.
    """
    (x_support, y_support), (x_query, y_query) = drawn
    if not all(np.isfinite(array).all() for half in drawn for array in half):
        raise Unusable("Some numbers of your tasks are not finite. Is there a division by zero, or a logarithm?")
    if all((array == array[:1]).all() for half in drawn for array in half):
        raise Unusable(
            "Every task of yours is the same, points and all, so `my_task` seems to ignore its key. Split the key, and "
            "draw everything that is random with `jax.random` from the parts. (`numpy.random` is called only once when "
            "JAX maps a function.)"
        )
    if x_support.shape == x_query.shape and any(
        np.array_equal(x_support[i], x_query[i]) and np.array_equal(y_support[i], y_query[i]) for i in range(10)
    ):
        raise Unusable(
            "The query set of your tasks is their support set. A model that learns its support points by heart would "
            "look perfect. Draw other inputs for the query set."
        )
    targets = np.concatenate([y_support, y_query], axis=1)
    if np.ptp(targets) <= 1e-6 * np.abs(targets).max():
        raise Unusable("All targets of all tasks are one and the same number, so there is nothing to learn.")
    measured = floor(drawn)
    if measured.floor < 1e-3 * measured.constant:
        raise Unusable(
            "All of your tasks are the same curve, or nearly so: one function fits all of them, and no task needs to "
            "adapt. Draw something at random that changes the curve, and not only its points."
        )
    return drawn


def curves(drawn: Any) -> Task:
    """What `drawn` returned as pairs of float64 arrays of shape [number, num_points, 1].

    Raises:
      Unusable: if they are of another shape, or no pairs at all.
    """
    wanted = (
        "`my_task` must return `ml.Task(support=(x, y), query=(x, y))`, with every array of shape `[num_points, 1]` "
        "and at least two points in each set"
    )
    try:
        halves = tuple((np.asarray(x, float), np.asarray(y, float)) for x, y in drawn)
        support, query = halves
    except (TypeError, ValueError) as error:
        raise Unusable(f"{wanted}.") from error
    shapes = [list(array.shape[1:]) for half in (support, query) for array in half]
    if any(len(shape) != 2 or shape[1] != 1 or shape[0] < 2 for shape in shapes) or shapes[::2] != shapes[1::2]:
        raise Unusable(f"{wanted}. Yours have the shapes {', '.join(map(str, shapes))}.")
    return Task(support, query)


def floor(drawn: Task) -> Floor:
    """The floor, from many tasks: at each input, or near it, the best function is the mean of the targets.

    If all tasks share few inputs, this is the mean itself. Otherwise it is a parabola on each of 64 stretches with
    equally many points, so where the mean bends more than once within a stretch, the number is only an upper bound.
    """
    x, y = (np.concatenate([getattr(drawn, half)[i] for half in Task._fields], axis=1)[..., 0] for i in (0, 1))
    task = np.repeat(np.arange(len(x)), x.shape[1])
    order = np.argsort(x.ravel(), kind="stable")
    task, x, y = task[order], x.ravel()[order], y.ravel()[order]
    best = np.empty_like(y)
    inputs, first = np.unique(x, return_index=True)
    grid = len(inputs) <= len(x) / 20  # the same inputs in all tasks
    bounds, degree = (np.append(first, len(x)), 0) if grid else (np.linspace(0, len(x), 65).astype(int), 2)
    for low, high in itertools.pairwise(bounds):
        scale = max(np.ptp(x[low:high]), 1e-12)
        basis = ((x[low:high, None] - x[low]) / scale) ** np.arange(degree + 1)
        best[low:high] = basis @ np.linalg.lstsq(basis, y[low:high], rcond=None)[0]
    errors = np.bincount(task, (y - best) ** 2) / np.bincount(task)
    return Floor(
        x=x,
        best=best,
        floor=float(errors.mean()),
        uncertainty=float(errors.std() / np.sqrt(len(errors))),
        constant=float(y.var()),
        square=float((y**2).mean()),
    )


def scaled(drawn: Task) -> Task:
    """The tasks in other units, in which inputs and targets have a mean square of one."""
    x, y = (np.concatenate([half[i] for half in drawn], axis=1) for i in (0, 1))
    units = tuple(max(float(np.sqrt((values**2).mean())), 1e-12) for values in (x, y))
    return Task(*(tuple(values / unit for values, unit in zip(half, units, strict=True)) for half in drawn))


def as_quadratic(drawn: Task) -> Task:
    """The tasks for a straight line φ₀ + φ₁ x, whose mean squared error is quadratic: those of `ml.tasks.Quadratic`.

    Of a set whose points all have one input, the minimum of smallest norm is taken.
    """
    halves = []
    for x, y in drawn:
        basis = np.concatenate([np.ones_like(x), x], axis=-1)
        hessian = 2 * np.einsum("tni,tnj->tij", basis, basis) / x.shape[1]
        halves.append(ml.tasks.QuadraticBatch(hessian, (np.linalg.pinv(basis) @ y)[..., 0]))
    return Task(*halves)


def is_ours(my_task: Callable[[Any], Task]) -> bool:
    """Whether this is still the distribution that the lesson gave."""
    key = jax.random.key(0)
    ours, theirs = (jax.tree.leaves(function(key)) for function in (lines, my_task))
    return len(ours) == len(theirs) and all(
        np.shape(a) == np.shape(b) and np.allclose(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def told(status: str, message: str, my_task: Any = None) -> str:
    """Shows on a card what was found, and returns the status: "passed", "not yet" or "failed"."""
    if status == "passed" and is_ours(my_task):
        message += " These are still the lines that we gave you: now put tasks of your own into `my_task`."
    show_card(status, f"**{HEADINGS[status]}** {message}")
    return status
