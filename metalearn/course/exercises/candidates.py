"""What a wrong result may equal, whatever the exercise: a quantity of its inner loop, or the right result for others.

A mistake in a function is often one in its arguments, as if it were called with `num_steps + 1`. So the reference is
called with other arguments, which the tables below hold by what kind of arguments there are.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn.adaptation import inner
from metalearn.task import Task

Arguments = dict[str, Any]  # of one instance, by name


@dataclass(frozen=True)
class Candidate:
    """Something that a result may equal.

    Attributes:
      text: a noun phrase.
      cause: a question, or nothing.
      value: what it is on an instance, given by its number; None, or an exception, where it makes no sense.
      has_parts: whether the result may be like it in one part alone.
    """

    text: str
    cause: str
    value: Callable[[int], Any]
    has_parts: bool = False


def candidates(reference: Callable[[Arguments], Any], instances: Sequence[Arguments]) -> Iterator[Candidate]:
    """The candidates for the results of any exercise, the likeliest first. Each value is computed once.

    Args:
      reference: the right result for some arguments.
      instances: the arguments of each instance.
    """
    of_inner_loop = functools.cache(lambda number: quantities(instances[number]))
    texts: list[str] = []
    with contextlib.suppress(Exception):  # an exercise without an inner loop
        texts = list(of_inner_loop(0))
    for text in texts:
        yield Candidate(text, "", functools.partial(_entry, of_inner_loop, text))
    for text, cause, change in alterations(instances[0]):
        value = functools.cache(functools.partial(_altered, reference, change, instances))
        yield Candidate(f"the right result {text}", cause, value, has_parts=True)
    for name in (name for name, value in instances[0].items() if kind_of(value) == "count"):
        for first in (0, 1):
            value = functools.cache(functools.partial(_mean_over_counts, reference, name, first, instances))
            text = f"the mean of the right results for `{name}` from {first} to what is given"
            yield Candidate(text, "Is the mean over a loop returned in place of its last result?", value)


def _entry(of_inner_loop: Callable, text: str, number: int) -> Any:
    return of_inner_loop(number)[text]


def _altered(reference: Callable, change: Callable, instances: Sequence[Arguments], number: int) -> Any:
    try:
        return reference(change(instances[number]))
    except Exception:  # arguments that make no sense; None is kept, so that they are not tried again
        return None


def _mean_over_counts(reference: Callable, name: str, first: int, instances: Sequence[Arguments], number: int) -> Any:
    arguments = instances[number]
    counts = range(first, arguments[name] + 1)
    if len(counts) > 20:
        raise ValueError("this takes long")
    results = [reference({**arguments, name: count}) for count in counts] or [
        jax.tree.map(np.zeros_like, reference(arguments))
    ]
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *results)


# --- quantities of an inner loop -----------------------------------------------------------------------------


def quantities(arguments: Arguments) -> dict[str, Any]:
    """Gradients, losses and points of an inner loop with these arguments, by what they are called.

    Raises:
      Exception: of any kind, if they are no arguments of an inner loop.
    """
    name = next(name for name in ("params", "theta", "adapted") if name in arguments)
    params = jax.tree.map(np.asarray, arguments[name])
    losses = _losses(arguments)
    adapted = _adapted(next(iter(losses.values())), params, arguments)
    found = dict(adapted)
    for place, phi in adapted.items():
        found[f"the change of {place}"] = jax.tree.map(np.subtract, phi, params)
    at_params = "the adapted parameters" if name == "adapted" else "the initialization"
    for (place, phi), (word, loss) in itertools.product({at_params: params, **adapted}.items(), losses.items()):
        found[f"the {word} at {place}"], gradient = jax.value_and_grad(loss)(phi)
        found[f"the gradient of the {word} at {place}"] = gradient
        found[f"the squared norm of the gradient of the {word} at {place}"] = optax.tree.norm(gradient, squared=True)
    return found


def _losses(arguments: Arguments) -> dict[str, inner.Objective]:
    """Functions of the parameters, by name; inner steps descend the first."""
    if "objective" in arguments:
        return {"loss": arguments["objective"]}
    loss, task = arguments["loss"], arguments.get("task")
    if task is None:
        return {"loss": lambda phi: loss(phi, arguments["batch"])}
    return {"support loss": lambda phi: loss(phi, task.support), "query loss": lambda phi: loss(phi, task.query)}


def _adapted(loss: inner.Objective, params: Any, arguments: Arguments) -> dict[str, Any]:
    """The parameters after the inner steps, if there are any, and after those of the proximal problem."""
    learning_rate, num_steps = arguments.get("learning_rate", arguments.get("step_size")), arguments.get("num_steps", 1)
    found = {}
    if learning_rate is not None:
        found["the parameters after the inner steps"] = inner.descend(loss, optax.sgd(learning_rate), num_steps, params)
    proximal_strength = arguments.get("proximal_strength")
    if learning_rate is not None and proximal_strength is not None:
        proximal = inner.proximal(loss, params, proximal_strength)
        end = inner.descend(proximal, optax.sgd(learning_rate), num_steps, params)
        found["the parameters after the inner steps of the proximal problem"] = end
    return found


# --- other arguments -----------------------------------------------------------------------------------------

Rows = tuple[tuple[str, str, Callable], ...]
OTHER_SET = "Are there places where the other set belongs?"
COUNTING = "Where does the counting begin, and where does it end?"
OTHERS = "Are the others used?"


def _first(value: Any) -> Any:
    return value[:1] if isinstance(value, list) else jax.tree.map(lambda leaf: leaf[:1], value)


def _last(value: Any) -> Any:
    return value[-1:] if isinstance(value, list) else jax.tree.map(lambda leaf: leaf[-1:], value)


# Each row: what completes "the right result ...", a question for the cause, and the other values of the arguments.
OF_ONE: dict[str, Rows] = {
    "task": (
        (
            "with support and query set exchanged",
            "Which of the two is adapted to, and which judges the adapted parameters?",
            lambda task: Task(task.query, task.support),
        ),
        ("with the support set in both roles", OTHER_SET, lambda task: Task(task.support, task.support)),
        ("with the query set in both roles", OTHER_SET, lambda task: Task(task.query, task.query)),
    ),
    "count": (
        ("for `{0} + 1`", COUNTING, lambda count: count + 1),
        ("for `{0} - 1`", COUNTING, lambda count: max(count - 1, 0)),
        ("for `min({0}, 1)`", "Is there a loop that does nothing new?", lambda count: min(count, 1)),
        ("for `max({0}, 1)`", "What should happen for 0?", lambda count: max(count, 1)),
        ("for `{0} = 0`", "Is the loop's result used?", lambda count: 0),
        ("for twice `{0}`", "Is a loop run twice?", lambda count: 2 * count),
        ("for half of `{0}`", "Is the number divided somewhere?", lambda count: count // 2),
    ),
    "number": (
        ("for `-{0}`", "Is a sign turned round somewhere?", lambda x: -x),
        ("for `{0} = 0`", "Is a term with `{0}` missing?", lambda x: 0 * x),
        ("for `{0} = 1`", "Is a factor `{0}` missing?", lambda x: 1.0 + 0 * x),
        ("for twice `{0}`", "Is something counted twice, or is a ½ missing?", lambda x: 2 * x),
        ("for half of `{0}`", "Is there a factor ½ too many, or a 2 missing?", lambda x: x / 2),
        ("for `1 / {0}`", "Is something divided that should be multiplied?", lambda x: 1 / x),
        ("for the square of `{0}`", "Is `{0}` a factor in two places?", lambda x: x**2),
        ("for `abs({0})`", "What should happen to a negative number?", abs),
    ),
    "array": (
        ("with zeros for `{0}`", "Is a term with `{0}` missing?", lambda x: 0 * x),
        ("for `-{0}`", "Is a sign turned round somewhere?", lambda x: -x),
        (
            "with only the diagonal of `{0}`",
            "Is a product of matrices taken number by number?",
            lambda x: np.einsum("...ii->...i", x)[..., None] * np.eye(x.shape[-1]),
        ),
        ("with `{0}` transposed", "Which axis counts what?", lambda x: np.swapaxes(x, -1, -2)),
    ),
}
OF_NUMBER_AND_COUNT: Rows = (
    (
        "for `{0} / {1}` in place of `{0}`",
        "Is something averaged that should be summed?",
        lambda x, count: (x / max(count, 1), count),
    ),
    (
        "for `{0} * {1}` and `{1} = 1`",
        "Does each of the steps begin where the last one ended?",
        lambda x, count: (x * max(count, 1), min(count, 1)),
    ),
)
OF_TWO_ALIKE: Rows = (
    ("with `{0}` and `{1}` exchanged", "Have the two changed places?", lambda x, y: (y, x)),
    ("with `{0}` in place of `{1}` too", "Where does `{1}` belong?", lambda x, y: (x, x)),
    ("with `{1}` in place of `{0}` too", "Where does `{0}` belong?", lambda x, y: (y, y)),
)
OF_TWO_NUMBERS: Rows = (
    ("for `{0} * {1}` in place of `{0}`", "Is `{1}` a factor too many somewhere?", lambda x, y: (x * y, y)),
    ("for `{0} * {1}` in place of `{1}`", "Is `{0}` a factor too many somewhere?", lambda x, y: (x, x * y)),
    ("for `{0} / {1}` in place of `{0}`", "Is something divided by `{1}` that should not be?", lambda x, y: (x / y, y)),
    ("for `{1} / {0}` in place of `{1}`", "Is something divided by `{0}` that should not be?", lambda x, y: (x, y / x)),
)
OF_ENTRIES: Rows = (
    ("given only the first entry of `{0}`", OTHERS, _first),
    ("given only the last entry of `{0}`", OTHERS, _last),
)
OF_ALL_ENTRIES: Rows = (
    ("given only the first entry of each array", OTHERS, lambda *values: map(_first, values)),
    ("given only the last entry of each array", OTHERS, lambda *values: map(_last, values)),
)


def alterations(arguments: Arguments) -> Iterator[tuple[str, str, Callable[[Arguments], Arguments]]]:
    """(text, cause, change) of the other arguments to try, the likeliest first."""
    kinds = {name: kind_of(value) for name, value in arguments.items()}

    def of(*wanted: str) -> list[str]:
        return [name for name, kind in kinds.items() if kind in wanted]

    pairs = itertools.combinations(of("number", "array", "tree", "function"), 2)
    entries = of("array", "tree", "list")
    groups: list[tuple[Sequence[str], Rows]] = [
        *(((name,), rows) for kind, rows in OF_ONE.items() for name in of(kind)),
        *((names, OF_NUMBER_AND_COUNT) for names in itertools.product(of("number"), of("count"))),
        *((names, OF_TWO_ALIKE) for names in pairs if kinds[names[0]] == kinds[names[1]]),
        *((names, OF_TWO_NUMBERS) for names in itertools.combinations(of("number"), 2)),
        *(((name,), OF_ENTRIES) for name in entries),
        *([(entries, OF_ALL_ENTRIES)] if len(entries) > 1 else []),
    ]
    for names, rows in groups:
        for text, cause, function in rows:
            yield text.format(*names), cause.format(*names), functools.partial(_changed, names, function)


def _changed(names: Sequence[str], function: Callable, arguments: Arguments) -> Arguments:
    values = function(*(arguments[name] for name in names))
    return {**arguments, **dict(zip(names, values if len(names) > 1 else [values], strict=True))}


def kind_of(value: Any) -> str:
    """What an argument is, as far as it matters here."""
    if isinstance(value, bool | str | None) or jnp.issubdtype(getattr(value, "dtype", float), jax.dtypes.prng_key):
        return "other"
    if isinstance(value, int | np.integer):
        return "count"
    if isinstance(value, float | np.floating) or getattr(value, "shape", None) == ():
        return "number"
    if isinstance(value, Task):
        return "task"
    if isinstance(value, np.ndarray | jax.Array):
        return "array"
    if callable(value):
        return "function"
    if isinstance(value, list) and value and not np.isscalar(value[0]):
        return "list"
    return "tree" if jax.tree.leaves(value) else "other"
