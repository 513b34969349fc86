"""What a wrong result equals, in words, for mistakes that can be made in any exercise.

A result that no misconception of the exercise explains is compared with simple relatives of the target: a multiple of
it, one of its parts, an argument, or what the reference returns for slightly different arguments. A relation is told
only if it holds on every instance, so that each sentence is true; its cause is asked, for nobody can know it.
"""

import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

PATIENCE = 3.0  # seconds of processor time for all calls of the reference with other arguments
ORDINALS = ("first", "second", "third", "fourth")
Close = Callable[[np.ndarray, np.ndarray], bool]


@dataclass(frozen=True)
class Alteration:
    """Other arguments for the reference.

    Attributes:
      text: completes "Your result is what the right function returns ...".
      cause: a question.
      change: from the dictionary of arguments to the altered ones; it may change nothing on some instances.
    """

    text: str
    cause: str
    change: Callable[[dict[str, Any]], dict[str, Any]]


def relation(
    arguments: Sequence[dict[str, Any]],
    targets: Sequence[Any],
    results: Sequence[Any],
    close: Close,
    reference: Callable[[int, Alteration], Any],
    quantities: Callable[[int], dict[str, Any]],
) -> str | None:
    """What the results equal on all instances, or None if nothing simple does.

    Args:
      arguments: those of each instance, by name.
      targets: right results.
      results: the learner's.
      close: whether the second array equals the first, within the tolerance of the exercise.
      reference: the right result on an instance, given by its number, with altered arguments.
      quantities: what a result may equal on an instance, given by its number, by name.
    """
    if (said := _of_answers(arguments, targets, results)) is not None:
        return said
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        flat = [(_flat(target), _flat(result)) for target, result in zip(targets, results, strict=True)]
        if any(side is None for pair in flat for side in pair):
            return None
        pairs = [(np.asarray(target), np.asarray(result)) for target, result in flat]
        if not all(map(_alike, targets, results)):
            return _of_another_form(arguments, targets, results, pairs, close)
        if not all(np.isrealobj(side) and np.isfinite(side).all() for pair in pairs for side in pair):
            return None
        return _of_the_same_form(arguments, targets, results, pairs, close, reference, quantities)


# --- results of the right form -------------------------------------------------------------------------------


def _of_the_same_form(
    arguments: Sequence[dict],
    targets: Sequence,
    results: Sequence,
    pairs: list,
    close: Close,
    reference: Callable,
    quantities: Callable,
) -> str | None:
    ours, yours = [target for target, _ in pairs], [result for _, result in pairs]
    if all(map(close, ours, yours)):  # what differs is small beside another part
        return _of_parts(targets, results, _scalars(arguments), close) or _of_places(targets, results, close)
    if any(target.size for target in ours) and not any(result.any() for result in yours):
        return (
            "Every number of yours is 0. Is a derivative taken of something that does not depend on the variable, or "
            "is a result never added to?"
        )
    scalars = _scalars(arguments)
    if (factor := _factor(ours, yours, scalars, close)) is not None:
        return f"Your result is {factor}the target. {_cause_of(factor)}"
    for name, values in _like(arguments, targets):
        if (factor := _factor(values, yours, scalars, close)) is not None:
            return f"Your result is {factor}the argument `{name}`{' itself' * (not factor)}. Was it ever changed?"
        for sign, word in ((1, "plus"), (-1, "minus")):
            rests = [sign * (result - value) for result, value in zip(yours, values, strict=True)]
            if (factor := _factor(ours, rests, scalars, close, positive=True)) is not None:
                return (
                    f"Your result is the argument `{name}` {word} {factor}the target. Which of the two does the "
                    "docstring ask for?"
                )
        rests = [result + value for result, value in zip(yours, values, strict=True)]
        if all(map(close, ours, rests)):
            return (
                f"Your result is the target minus the argument `{name}`. Is a difference returned in place of a point?"
            )
    return (
        _swapped(targets, results, close)
        or _transformed(pairs, close)
        or _of_parts(targets, results, scalars, close)
        or _of_quantities(yours, scalars, close, quantities)
        or _of_other_arguments(arguments, targets, results, close, reference)
        or _of_places(targets, results, close)
        or _of_some_instances(pairs, close)
        or _of_lengths(targets, results, close)
    )


def _of_answers(arguments: Sequence[dict], targets: Sequence, results: Sequence) -> str | None:
    """For a function that judges others: which ones it judges wrong, by the names of their types."""
    if not all(
        isinstance(side, np.ndarray) and side.shape == () and side.dtype == bool for side in (*targets, *results)
    ):
        return None
    candidates = [next(iter(given.values())) for given in arguments]
    if not all(map(callable, candidates)):
        return None
    judged = list(zip((type(candidate).__name__ for candidate in candidates), targets, results, strict=True))
    accepted = ", ".join(name for name, target, result in judged if result and not target)
    rejected = ", ".join(name for name, target, result in judged if target and not result)
    said = []
    if accepted:
        question = "On which arguments does such a function differ from a right one, and does your test look there?"
        said.append(f"Your test accepts {accepted}. {question}")
    if rejected:
        said.append(f"Your test rejects {rejected}. Is your test too strict, or does it expect something else?")
    return " ".join(said)


def _of_quantities(yours: list, scalars: list, close: Close, quantities: Callable) -> str | None:
    """Whether the results are a gradient, a loss or a point of the inner loop, times a factor."""
    for text in quantities(0):
        values = []
        for number, result in enumerate(yours):
            value = _flat(quantities(number).get(text))
            if value is None or value.shape != result.shape or not _parallel(value, result, close):
                break
            values.append(value)
        else:
            if (factor := _factor(values, yours, scalars, close, exact=True)) is not None:
                return f"Your result is {factor}{text}."
    return None


def quantities(arguments: dict[str, Any]) -> dict[str, Any]:
    """Gradients, losses and points of an inner loop with these arguments, by what they are called."""
    loss = arguments.get("loss", arguments.get("objective"))
    name = next((name for name in ("params", "theta", "adapted") if name in arguments), None)
    if loss is None or name is None:
        return {}
    start, task, batch = arguments[name], arguments.get("task"), arguments.get("batch")
    sets = {"support": task[0], "query": task[1]} if task is not None else {"": batch}

    def loss_on(data: Any) -> Callable:
        return (lambda phi: loss(phi)) if "objective" in arguments else (lambda phi: loss(phi, data))

    start = jax.tree.map(np.asarray, start)
    points = {"the initialization" if name != "adapted" else "the adapted parameters": start}
    rate = arguments.get("learning_rate", arguments.get("step_size"))
    count, strength = arguments.get("num_steps"), arguments.get("proximal_strength", arguments.get("strength"))
    found: dict[str, Any] = {}
    if rate is not None:
        for proximal in (0.0, strength) if strength is not None else (0.0,):
            phi = start
            gradient = jax.grad(loss_on(next(iter(sets.values()))))
            for _ in range(1 if count is None else count):
                phi = jax.tree.map(
                    lambda p, g, t, proximal=proximal: p - rate * (g + proximal * (p - t)), phi, gradient(phi), start
                )
            steps = "after the inner steps" + (" of the proximal problem" if proximal else "")
            points[f"the parameters {steps}"] = phi
            found[f"the parameters {steps}"] = phi
            found[f"the change of the parameters {steps}"] = jax.tree.map(lambda p, t: p - t, phi, start)
    for place, phi in points.items():
        for word, data in sets.items():
            kind = f"{word} " if word else ""
            value, gradient = jax.value_and_grad(loss_on(data))(phi)
            found[f"the gradient of the {kind}loss at {place}"] = gradient
            found[f"the {kind}loss at {place}"] = value
            found[f"the squared norm of the gradient of the {kind}loss at {place}"] = sum(
                (np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(gradient)
            )
    return found


def _of_other_arguments(
    arguments: Sequence[dict], targets: Sequence, results: Sequence, close: Close, reference: Callable
) -> str | None:
    """Whether the results are those of the reference with altered arguments, times a factor, or one part of them is."""
    end = time.process_time() + PATIENCE
    views: list[tuple[str, Callable]] = [("Your result is", _flat)]
    wrong = _wrong_parts(targets, results, close)
    if len(wrong) == 1:
        (name,) = wrong
        views.append((f"All is right but {name}, which is", lambda tree: _parts(tree).get(name)))
    sides = [([view(target) for target in targets], [view(result) for result in results]) for _, view in views]
    ours, yours = sides[0]
    differing = [number for number, pair in enumerate(zip(ours, yours, strict=True)) if not close(*pair)]
    order = [*differing, *(number for number in range(len(ours)) if number not in differing)]
    for alteration in alterations(arguments[differing[0]]):
        if time.process_time() > end:
            break
        for (opening, view), (_, seen) in zip(views, sides, strict=True):
            others: list = [None] * len(ours)
            for number in order:
                try:
                    other = view(reference(number, alteration))
                except Exception:  # arguments that make no sense
                    break
                if other is None or other.shape != seen[number].shape or not np.isfinite(other).all():
                    break
                if not _parallel(other, seen[number], close):
                    break
                others[number] = other
            else:
                if (factor := _factor(others, seen, [], close, exact=True)) is not None:
                    of = f"{factor}what" if factor else "what"
                    return f"{opening} {of} the right function returns {alteration.text}. {alteration.cause}"
    return None


def alterations(arguments: dict[str, Any]) -> Iterator[Alteration]:
    """The other arguments to try, the likeliest first; `arguments` are those of one instance."""
    kinds = {name: _kind(value) for name, value in arguments.items()}
    for name in (name for name, kind in kinds.items() if kind == "task"):
        yield _change(
            name,
            lambda task: type(task)(task[1], task[0]),
            "with support and query set exchanged",
            "Which of the two is adapted to, and which judges the adapted parameters?",
        )
        for part, word in enumerate(("support", "query")):
            yield _change(
                name,
                lambda task, part=part: type(task)(task[part], task[part]),
                f"with the {word} set in both roles",
                "Are there places where the other set belongs?",
            )
    for name in (name for name, kind in kinds.items() if kind == "count"):
        step = "Where does the counting begin, and where does it end?"
        yield _change(name, lambda count: count + 1, f"for `{name} + 1`", step)
        yield _change(name, lambda count: max(count - 1, 0), f"for `{name} - 1`", step)
        yield _change(name, lambda count: min(count, 1), f"for `{name} = 1`", "Is there a loop that does nothing new?")
        yield _change(name, lambda count: max(count, 1), f"for `max({name}, 1)`", "What should happen for 0?")
        yield _change(name, lambda count: 0, f"for `{name} = 0`", "Is the loop's result used?")
        yield _change(name, lambda count: 2 * count, f"for twice `{name}`", "Is a loop run twice?")
        yield _change(name, lambda count: count // 2, f"for half of `{name}`", "Is the number divided somewhere?")
    for name in (name for name, kind in kinds.items() if kind == "number"):
        yield _change(name, lambda x: -x, f"for `-{name}`", "Is a sign turned round somewhere?")
        yield _change(name, lambda x: 0 * x, f"for `{name} = 0`", f"Is a term with `{name}` missing?")
        yield _change(name, lambda x: 1.0 + 0 * x, f"for `{name} = 1`", f"Is a factor `{name}` missing?")
        yield _change(name, lambda x: 2 * x, f"for twice `{name}`", "Is something counted twice, or is a ½ missing?")
        yield _change(name, lambda x: x / 2, f"for half of `{name}`", "Is there a factor ½ too many, or a 2 missing?")
        yield _change(name, lambda x: 1 / x, f"for `1 / {name}`", "Is something divided that should be multiplied?")
        yield _change(name, lambda x: x**2, f"for the square of `{name}`", f"Is `{name}` a factor in two places?")
        yield _change(name, lambda x: abs(x), f"for `abs({name})`", "What should happen to a negative number?")
        for other in (other for other, kind in kinds.items() if kind == "count"):
            yield Alteration(
                f"for `{name} / {other}` in place of `{name}`",
                "Is something averaged that should be summed?",
                partial(_divided, name, other),
            )
            yield Alteration(
                f"for `{name} * {other}` and `{other} = 1`",
                "Does each of the steps begin where the last one ended?",
                partial(_in_one_step, name, other),
            )
    names = list(arguments)
    for first, second in itertools.combinations(names, 2):
        if kinds[first] == kinds[second] and kinds[first] in ("number", "array", "tree", "function"):
            if kinds[first] in ("array", "tree") and _form(arguments[first]) != _form(arguments[second]):
                continue
            yield Alteration(
                f"with `{first}` and `{second}` exchanged",
                "Have the two changed places?",
                partial(_copied, {first: second, second: first}),
            )
            for kept, lost in ((first, second), (second, first)):
                yield Alteration(
                    f"with `{kept}` in place of `{lost}` too",
                    f"Where does `{lost}` belong?",
                    partial(_copied, {lost: kept}),
                )
    arrays = [name for name, kind in kinds.items() if kind == "array"]
    for name in arrays:
        yield _change(name, lambda x: 0 * x, f"with zeros for `{name}`", f"Is a term with `{name}` missing?")
        yield _change(name, lambda x: -x, f"for `-{name}`", "Is a sign turned round somewhere?")
        value = np.asarray(arguments[name])
        if value.ndim >= 2 and value.shape[-1] == value.shape[-2]:
            yield _change(
                name,
                lambda x: x * np.eye(x.shape[-1]),
                f"with only the diagonal of `{name}`",
                "Is a product of matrices taken number by number?",
            )
        if value.ndim >= 2 and not name.startswith("param"):
            yield _change(name, lambda x: x.T, f"with `{name}` transposed", "Which axis counts what?")
    trees = [name for name, kind in kinds.items() if kind in ("array", "tree", "list")]
    for which, word in ((slice(0, 1), "first"), (slice(-1, None), "last")):
        for name in trees:
            yield _change(
                name,
                partial(_entry, which),
                f"given only the {word} entry of `{name}`",
                "Are the others used?",
            )
        if len(trees) > 1:
            yield Alteration(
                f"given only the {word} entry of each of {', '.join(f'`{name}`' for name in trees)}",
                "Are the others used?",
                partial(_cut, trees, which),
            )


def _divided(name: str, other: str, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, name: given[name] / max(given[other], 1)}


def _in_one_step(name: str, other: str, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, name: given[name] * max(given[other], 1), other: min(given[other], 1)}


def _copied(sources: dict[str, str], given: dict[str, Any]) -> dict[str, Any]:
    return {**given, **{name: given[source] for name, source in sources.items()}}


def _entry(which: slice, value: Any) -> Any:
    return value[which] if isinstance(value, list) else jax.tree.map(lambda leaf: leaf[which], value)


def _cut(names: list[str], which: slice, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, **{name: _entry(which, given[name]) for name in names}}


def _change(name: str, change: Callable, text: str, cause: str) -> Alteration:
    return Alteration(text, cause, lambda given: {**given, name: change(given[name])})


def _kind(value: Any) -> str:
    if isinstance(value, bool | str | None):
        return "other"
    if isinstance(value, int | np.integer):
        return "count"
    if isinstance(value, float | np.floating) or getattr(value, "shape", None) == ():
        return "number"
    if isinstance(value, tuple) and getattr(value, "_fields", ()) == ("support", "query"):
        return "task"
    if isinstance(value, np.ndarray | jax.Array):
        return "array"
    if callable(value):
        return "function"
    if isinstance(value, list) and value and not np.isscalar(value[0]):
        return "list"
    return "tree" if jax.tree.leaves(value) and _flat(value) is not None else "other"


def _form(value: Any) -> Any:
    return jax.tree.structure(value), [np.shape(leaf) for leaf in jax.tree.leaves(value)]


# --- factors -------------------------------------------------------------------------------------------------


def _factor(
    bases: Sequence[np.ndarray],
    yours: Sequence[np.ndarray],
    scalars: list[tuple[str, np.ndarray]],
    close: Close,
    positive: bool = False,
    exact: bool = False,
) -> str | None:
    """The factor between two results in words, such as "-2 times " or "`K` times "; "" for 1, None if there is none."""
    if all(map(close, bases, yours)):
        return ""
    used = [number for number, base in enumerate(bases) if base.any()]
    if not used or not all(_parallel(base, result, close) for base, result in zip(bases, yours, strict=True)):
        return None
    found = np.array([np.dot(bases[n], yours[n]) / np.dot(bases[n], bases[n]) for n in used])
    if not found.all() or (positive and (found < 0).any()):
        return None

    def explained(values: np.ndarray) -> bool:
        return all(close(value * bases[n], yours[n]) for value, n in zip(values, used, strict=True))

    for number, text in NUMBERS.items():
        if explained(np.full(len(used), number)):
            return f"{text} times " if text != "-1" else "minus "
    if explained(np.full(len(used), found[0])):
        one_number = sum(bases[n].size for n in used) == 1
        return None if exact or one_number else f"{found[0]:.4g} times "
    for sign, text, values in _products(scalars):
        if explained(sign * values[used]):
            return f"{'minus ' if sign < 0 else ''}{text} times "
    return None


NUMBERS = {-1: "-1", 2: "2", 0.5: "½", -2: "-2", -0.5: "-½", 4: "4", 0.25: "¼", 3: "3", 1 / 3: "⅓"}


def _products(scalars: list[tuple[str, np.ndarray]]) -> Iterator[tuple[int, str, np.ndarray]]:
    powers = [(text, values**power) for name, values in scalars for text, power in ((name, 1), (f"1 / {name}", -1))]
    squares = [
        (f"{text} {name}", values**power)
        for name, values in scalars
        for text, power in (
            ("the square of", 2),
            ("1 / the square of", -2),
            ("the root of", 0.5),
            ("1 / the root of", -0.5),
        )
    ]
    pairs = [
        (f"{one} * {other}".replace("* 1 / ", "/ "), first * second)
        for (one, first), (other, second) in itertools.combinations(powers, 2)
        if one.removeprefix("1 / ") != other.removeprefix("1 / ")
    ]
    for text, values in [*powers, *squares, *pairs]:
        for number, word in ((1, ""), (2, "2 * "), (0.5, "½ * "), (4, "4 * "), (0.25, "¼ * ")):
            for sign in (1, -1):
                yield sign, f"({word}{text})" if word or " " in text else text, number * values


def _scalars(arguments: Sequence[dict]) -> list[tuple[str, np.ndarray]]:
    """Numbers among the arguments and sizes of arrays, with their values on each instance."""
    found: list[tuple[str, np.ndarray]] = []
    for name, value in arguments[0].items():
        values = [given[name] for given in arguments]
        kind = _kind(value)
        if kind in ("count", "number"):
            found.append((f"`{name}`", np.array(values, float)))
        elif kind in ("array", "tree", "list"):
            shapes = [(len(v),) if isinstance(v, list) else np.shape(jax.tree.leaves(v)[0]) for v in values]
            if all(shapes):
                found.append((f"the length of `{name}`", np.array([shape[0] for shape in shapes], float)))
            if kind == "array" and all(len(shape) > 1 for shape in shapes):
                found.append(
                    (f"the length of the last axis of `{name}`", np.array([shape[-1] for shape in shapes], float))
                )
                found.append((f"the size of `{name}`", np.array([np.prod(shape) for shape in shapes], float)))
    return [one for n, one in enumerate(found) if not any(np.array_equal(one[1], other) for _, other in found[:n])]


def _cause_of(factor: str) -> str:
    if factor == "minus ":
        return "Is a sign turned round somewhere?"
    if "the length" in factor or "the size" in factor:
        return "Is a sum taken for a mean, or the other way round?"
    return "A sum for a mean, or a factor that is missing or there twice, can do that."


def _parallel(base: np.ndarray, result: np.ndarray, close: Close) -> bool:
    square = np.dot(base, base)
    return close((np.dot(base, result) / square if square else 0.0) * base, result)


# --- parts and elementwise functions -------------------------------------------------------------------------

# What is done to each number, and what is done to the order of a vector's numbers.
OF_NUMBERS: tuple[tuple[str, str, Callable], ...] = (
    ("the square of the target", "Is something squared twice?", lambda x: x**2),
    ("the root of the target", "Is a root taken that the docstring does not ask for?", np.sqrt),
    ("1 divided by the target", "Have numerator and denominator changed places?", lambda x: 1 / x),
    ("the absolute value of the target", "What should happen to a negative number?", np.abs),
    ("the logarithm of the target", "Is an exponential missing?", np.log),
    ("the target minus 1", "Is a relative change returned in place of a ratio?", lambda x: x - 1),
    ("the target plus 1", "Is something counted that should be left out?", lambda x: x + 1),
    ("1 minus the target", "Is it the opposite that is returned?", lambda x: 1 - x),
)
OF_VECTORS: tuple[tuple[str, str, Callable], ...] = (
    ("the running sum of the target", "Is a total returned in place of each value?", np.cumsum),
    ("the target minus its mean", "Is something subtracted that should stay?", lambda x: x - x.mean()),
    ("the target minus its first number", "Is a change returned in place of a value?", lambda x: x - x[:1]),
    ("the target in reversed order", "Does the loop run backwards?", lambda x: x[::-1]),
    ("the target moved by one place", "Where does the counting begin?", lambda x: np.roll(x, 1)),
    ("the target's first number, again and again", "Is an index fixed?", lambda x: np.full(x.shape, x[0])),
    ("the target's last number, again and again", "Is an index fixed?", lambda x: np.full(x.shape, x[-1])),
    ("the target with its first number twice", "Where does the counting begin?", lambda x: np.r_[x[:1], x[:-1]]),
    ("the target moved by one place", "Where does the counting begin?", lambda x: x[1:]),
)


def _transformed(pairs: list, close: Close) -> str | None:
    for text, cause, function in OF_NUMBERS:
        expected = [function(target) for target, _ in pairs]
        if not all(np.isfinite(other).all() for other in expected):
            continue
        if all(close(other, result) for other, (_, result) in zip(expected, pairs, strict=True)):
            return f"Your result is {text}. {cause}"
    if any(target.size > 2 for target, _ in pairs) and all(target.size for target, _ in pairs):
        for text, cause, function in OF_VECTORS:
            expected = [function(target) for target, _ in pairs]
            if all(close(other, result[: other.size]) for other, (_, result) in zip(expected, pairs, strict=True)):
                return f"Your result is {text}. {cause}"
        if all(close(np.sort(target), np.sort(result)) for target, result in pairs):
            return "Your result holds the target's numbers in another order."
    return None


def _of_parts(targets: Sequence, results: Sequence, scalars: list, close: Close) -> str | None:
    """Some parts are right, and the others are multiples of their targets."""
    wrong = _wrong_parts(targets, results, close)
    said: list[str] = []
    causes: dict[str, None] = {}  # in order, each once
    for name, (ours, yours) in wrong.items():
        pairs = list(zip(ours, yours, strict=True))
        if not any(value.any() for value in yours):
            said.append(f"{name} is 0")
            causes["Is a result never added to?"] = None
        elif (factor := _factor(ours, yours, scalars, close)) is not None:
            said.append(f"{name} is {factor}its target")
            causes[_cause_of(factor)] = None
        elif (text := _transformed(pairs, close)) is not None:
            what, _, cause = text.partition(". ")
            said.append(what.replace("Your result", name).replace("the target", "its target").rstrip("."))
            causes[cause] = None
        else:
            return None
    if not said:
        return None
    others = len(_parts(targets[0])) - len(wrong)
    opening = "All is right but one part: " if len(wrong) == 1 and others else ""
    told = f"{opening}{', and '.join(said)}."
    return " ".join(filter(None, (told[0].upper() + told[1:], *causes)))


def _swapped(targets: Sequence, results: Sequence, close: Close) -> str | None:
    for target, result in zip(targets, results, strict=True):
        ours, yours = list(_parts(target).values()), list(_parts(result).values())
        if len(ours) != 2 or not (close(ours[0], yours[1]) and close(ours[1], yours[0])):
            return None
    return "The two parts of your result have changed places."


def _wrong_parts(targets: Sequence, results: Sequence, close: Close) -> dict[str, tuple[list, list]]:
    """The parts that differ on some instance, by name: targets and results. Empty if there are no parts."""
    parts = [(_parts(target), _parts(result)) for target, result in zip(targets, results, strict=True)]
    names = list(parts[0][0])
    if any(list(ours) != names for ours, _ in parts):
        return {}
    sides = {name: ([ours[name] for ours, _ in parts], [yours[name] for _, yours in parts]) for name in names}
    return {name: pair for name, pair in sides.items() if not all(map(close, *pair))}


def _of_places(targets: Sequence, results: Sequence, close: Close) -> str | None:
    """Where the difference is."""
    wrong, number = _wrong_parts(targets, results, close), len(_parts(targets[0]))
    if wrong and len(wrong) < number:
        *first, last = wrong
        return f"All is right but {', '.join(first)}{' and ' * bool(first)}{last}."
    return None


def _parts(tree: Any) -> dict[str, np.ndarray]:
    """The parts of a pair, a dictionary or a short array, by name."""
    if isinstance(tree, np.ndarray):
        if tree.ndim == 1 and 2 <= tree.size <= len(ORDINALS):
            return {f"the {word} number": tree[n : n + 1] for n, word in zip(range(tree.size), ORDINALS, strict=False)}
        return {}
    if isinstance(tree, tuple) and 2 <= len(tree) <= len(ORDINALS):
        return {f"the {word} part": np.asarray(_flat(part)) for word, part in zip(ORDINALS, tree, strict=False)}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"`{jax.tree_util.keystr(path)}`": np.ravel(leaf) for path, leaf in leaves} if len(leaves) > 1 else {}


def _of_some_instances(pairs: list, close: Close) -> str | None:
    """Right on some instances, and one multiple of the target on all others."""
    differing = [pair for pair in pairs if not close(*pair)]
    if len(differing) == len(pairs) or sum(target.size for target, _ in differing) < 2:
        return None
    factor = _factor([target for target, _ in differing], [result for _, result in differing], [], close)
    return f"On the instances that differ, your result is {factor}the target. {_cause_of(factor)}" if factor else None


def _of_lengths(targets: Sequence, results: Sequence, close: Close) -> str | None:
    """The direction is right, all together or array by array."""
    pairs = list(zip(targets, results, strict=True))
    flat = [(np.asarray(_flat(target)), np.asarray(_flat(result))) for target, result in pairs]
    told = [pair for pair in flat if pair[0].size > 1 and pair[0].any()]
    if len(told) > 1 and all(_parallel(*pair, close) for pair in flat):
        factors = [np.dot(target, result) / np.dot(target, target) for target, result in told]
        return (
            "On each instance your result is a multiple of the target, with another factor each time: "
            f"{', '.join(f'{factor:.3g}' for factor in factors[:6])}. Which number has that size there?"
        )
    leaves = [list(zip(*map(jax.tree.leaves, pair), strict=True)) for pair in pairs]
    if (
        any(len(pair) > 1 for pair in leaves)
        and all(_parallel(np.ravel(target), np.ravel(result), close) for pair in leaves for target, result in pair)
        and any(np.size(target) > 1 for pair in leaves for target, _ in pair)
    ):
        return (
            "Each array of your result is a multiple of its target, with a factor of its own. A norm taken array "
            "by array, and not of all numbers together, can do that."
        )
    return None


# --- results of another form ---------------------------------------------------------------------------------


def _of_another_form(
    arguments: Sequence[dict], targets: Sequence, results: Sequence, pairs: list, close: Close
) -> str | None:
    if all(target.shape == result.shape and close(target, result) for target, result in pairs):
        return "The numbers are right, and only the form in which you return them differs."
    for name, values in _like(arguments, results):
        if all(close(value, result) for value, (_, result) in zip(values, pairs, strict=True)):
            return f"Your result is the argument `{name}` itself. Was it ever changed?"
    for text, wanted in REDUCTIONS:
        if all(_reduces(close, wanted, result, target) for target, result in zip(targets, results, strict=True)):
            return f"The {text} of your result equals the target. Is a last step missing?"
        if all(_reduces(close, wanted, target, result) for target, result in zip(targets, results, strict=True)):
            return f"Your result is the {text} of the target. What does the docstring say about its form?"
    for name, _ in _like(arguments, results):
        if all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(arguments[0][name])):
            continue
        return (
            f"Your result has the shapes of the argument `{name}`. Is a gradient returned in place of something that "
            "is made of it?"
        )
    if all(result.size == 1 for _, result in pairs) and any(target.size > 1 for target, _ in pairs):
        return "Your result is one number. Is a loss returned in place of its gradient, or an average of all numbers?"
    return None


REDUCTIONS: tuple[tuple[str, Callable], ...] = (
    ("mean", lambda x: x.mean()),
    ("sum", lambda x: x.sum()),
    ("mean over the first axis", lambda x: x.mean(axis=0)),
    ("sum over the first axis", lambda x: x.sum(axis=0)),
    ("mean over the last axis", lambda x: x.mean(axis=-1)),
    ("sum over the last axis", lambda x: x.sum(axis=-1)),
    ("first part", lambda x: x[0]),
    ("last part", lambda x: x[-1]),
    ("part after the first number", lambda x: x[1:]),
    ("part before the last number", lambda x: x[:-1]),
)


def _reduces(close: Close, function: Callable, long: Any, short: Any) -> bool:
    try:
        if not isinstance(long, np.ndarray):
            shapes = {np.shape(leaf) for leaf in jax.tree.leaves(long)}
            long = np.stack(jax.tree.leaves(long)) if len(shapes) == 1 and type(long) in (tuple, list) else long
        if isinstance(long, np.ndarray):
            reduced = np.asarray(function(long))
            return (
                isinstance(short, np.ndarray) and reduced.shape == short.shape and close(reduced.ravel(), short.ravel())
            )
        reduced = function(long) if isinstance(long, tuple) else jax.tree.map(function, long)
        one, other = _flat(reduced), _flat(short)
        return one is not None and other is not None and one.shape == other.shape and close(one, other)
    except Exception:  # an axis that is not there
        return False


def _like(arguments: Sequence[dict], trees: Sequence) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The arguments that have the form of a result on every instance, flat."""
    for name in arguments[0]:
        values = [given[name] for given in arguments]
        if callable(values[0]) or not all(map(_alike, trees, values)):
            continue
        flat = [_flat(value) for value in values]
        if all(value is not None for value in flat):
            yield name, [np.asarray(value) for value in flat]


def _alike(one: Any, other: Any) -> bool:
    try:
        return bool(_form(one) == _form(other))
    except Exception:  # what is no pytree
        return False


def _flat(tree: Any) -> np.ndarray | None:
    """All numbers of a pytree, None if it holds anything else."""
    try:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        if not leaves or any(leaf.dtype.kind not in "biufc" for leaf in leaves):
            return None
        flat = np.concatenate([leaf.ravel() for leaf in leaves])
        return flat if flat.dtype.kind == "c" else flat.astype(float)
    except Exception:  # a class of the learner's own may raise anything
        return None
