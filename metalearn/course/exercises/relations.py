"""What a wrong result equals, in words, where no misconception of the exercise explains it.

The results are compared with simple relatives of the targets: a multiple, an argument, one of the parts, and the
candidates, such as the right result for other arguments. A relation is told only if it holds on every instance, so
that each sentence is true; its cause is asked, for nobody can know it.
"""

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from metalearn.course.exercises.candidates import Arguments, Candidate, kind_of

PATIENCE = 5.0  # seconds of processor time for the candidates, of all relations together
Arrays = Sequence[np.ndarray]  # flat, one for each instance


@dataclass(frozen=True)
class Case:
    """The right and the learner's results on every instance.

    Attributes:
      arguments: what they are results for.
      targets: the right results.
      results: the learner's.
      close: whether the second array equals the first, within the tolerance of the exercise.
      candidates: gives what else a result may equal.
    """

    arguments: Sequence[Arguments]
    targets: Sequence[Any]
    results: Sequence[Any]
    close: Callable[[np.ndarray, np.ndarray], bool]
    candidates: Callable[[], Iterable[Candidate]]

    @cached_property
    def ours(self) -> list[Any]:
        """The numbers of the targets."""
        return list(map(_numbers, self.targets))

    @cached_property
    def yours(self) -> list[Any]:
        """The numbers of the results."""
        return list(map(_numbers, self.results))

    @cached_property
    def wrong_parts(self) -> dict[str, tuple[Arrays, Arrays]]:
        """By name, the numbers of those parts of targets and results that differ on some instance."""
        ours, yours = list(map(_parts, self.targets)), list(map(_parts, self.results))
        if any(list(parts) != list(ours[0]) for parts in ours):
            return {}
        sides = {name: ([parts[name] for parts in ours], [parts[name] for parts in yours]) for name in ours[0]}
        return {name: pair for name, pair in sides.items() if not self.equal(*pair)}

    @cached_property
    def scalars(self) -> dict[str, np.ndarray]:
        """Numbers among the arguments and sizes of arrays, no two of them the same on every instance."""
        each = list(map(_scalars, self.arguments))
        found: dict[tuple[float, ...], str] = {}
        for text in each[0]:
            if all(text in scalars for scalars in each):
                found.setdefault(tuple(scalars[text] for scalars in each), text)
        return {text: np.array(values, float) for values, text in found.items()}

    @cached_property
    def end(self) -> float:
        """Until when candidates are tried, from the first of them on."""
        return time.process_time() + PATIENCE

    def equal(self, ours: Arrays, yours: Arrays) -> bool:
        """Whether arrays are close on every instance."""
        return all(map(self.close, ours, yours))


def relation(case: Case) -> str | None:
    """What the results equal on all instances, or None if nothing simple does."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if any(numbers is None for numbers in (*case.ours, *case.yours)):
            return None
        if not all(map(alike, case.targets, case.results)):
            return _of_another_form(case)
        # If all is close together, what differs is small beside another part.
        relations = (_of_parts, _of_places) if case.equal(case.ours, case.yours) else OF_THE_SAME_FORM
        return next(filter(None, (find(case) for find in relations)), None)


# --- results of the right form -------------------------------------------------------------------------------


def _of_answers(case: Case) -> str | None:
    """For a function that judges others: which ones it judges wrong, by the names of their types."""
    judged = [next(iter(given.values())) for given in case.arguments]
    answers = [*case.targets, *case.results]
    if not all(map(callable, judged)) or not all(map(_is_bool, answers)):
        return None
    triples = list(zip((type(one).__name__ for one in judged), case.targets, case.results, strict=True))
    accepted = ", ".join(name for name, target, result in triples if result and not target)
    rejected = ", ".join(name for name, target, result in triples if target and not result)
    said = []
    if accepted:
        question = "On which arguments does such a function differ from a right one, and does your test look there?"
        said.append(f"Your test accepts {accepted}. {question}")
    if rejected:
        said.append(f"Your test rejects {rejected}. Is your test too strict, or does it expect something else?")
    return " ".join(said)


def _is_bool(answer: Any) -> bool:
    return isinstance(answer, np.ndarray) and answer.dtype == bool and answer.shape == ()


def _of_target(case: Case) -> str | None:
    told = _like_target(case, case.ours, case.yours, "the target")
    return told and f"Your result is {told[0]}. {told[1]}"


# What is done to each number, and what is done to the order of a vector's numbers.
OF_NUMBERS: tuple[tuple[str, str, Callable], ...] = (
    ("the square of {}", "Is something squared twice?", lambda x: x**2),
    ("the root of {}", "Is a root taken that the docstring does not ask for?", np.sqrt),
    ("1 divided by {}", "Have numerator and denominator changed places?", lambda x: 1 / x),
    ("the absolute value of {}", "What should happen to a negative number?", np.abs),
    ("the logarithm of {}", "Is an exponential missing?", np.log),
    ("{} minus 1", "Is a relative change returned in place of a ratio?", lambda x: x - 1),
    ("{} plus 1", "Is something counted that should be left out?", lambda x: x + 1),
    ("1 minus {}", "Is it the opposite that is returned?", lambda x: 1 - x),
)
OF_VECTORS: tuple[tuple[str, str, Callable], ...] = (
    ("the running sum of {}", "Is a total returned in place of each value?", np.cumsum),
    ("the running mean of {}", "Is an average returned in place of each value?", lambda x: np.cumsum(x) / _places(x)),
    ("{} divided by its first number", "Is a relative value returned in place of the value?", lambda x: x / x[:1]),
    ("the mean of {}, again and again", "Is one average given to all?", lambda x: np.full(x.shape, x.mean())),
    ("the sum of {}, again and again", "Is one total given to all?", lambda x: np.full(x.shape, x.sum())),
    ("{} minus its mean", "Is something subtracted that should stay?", lambda x: x - x.mean()),
    ("{} minus its first number", "Is a change returned in place of a value?", lambda x: x - x[:1]),
    ("{} in reversed order", "Does the loop run backwards?", lambda x: x[::-1]),
    ("{} with its last number at the front", "Where does the counting begin?", lambda x: np.roll(x, 1)),
    ("the first number of {}, again and again", "Is an index fixed?", lambda x: np.full(x.shape, x[0])),
    ("the last number of {}, again and again", "Is an index fixed?", lambda x: np.full(x.shape, x[-1])),
    ("{} with its first number twice", "Where does the counting begin?", lambda x: np.r_[x[:1], x[:-1]]),
    ("{} from its second number on, with one more at the end", "Where does the counting begin?", lambda x: x[1:]),
)


def _places(x: np.ndarray) -> np.ndarray:
    return np.arange(1, x.size + 1)


def _like_target(case: Case, ours: Arrays, yours: Arrays, target: str) -> tuple[str, str] | None:
    """What yours are to ours, and a question for the cause; both may be those of one part."""
    if all(
        np.abs(result).max() <= 1e-12 * np.abs(one).max() for one, result in zip(ours, yours, strict=True) if one.size
    ):
        return (
            "zero",
            "Is a derivative taken of something that does not depend on the variable, or is a result never added to?",
        )
    if (factor := _factor(case, ours, yours)) is not None:
        return f"{factor}{target}", _cause_of(factor)
    for text, cause, function in OF_NUMBERS + OF_VECTORS * _long(ours):
        others = list(map(function, ours))
        if case.equal(others, [result[: other.size] for other, result in zip(others, yours, strict=True)]):
            return text.format(target), cause
    return None


def _long(ours: Arrays) -> bool:
    """Whether an order of the numbers means something."""
    return all(one.size for one in ours) and any(one.size > 2 for one in ours)


def _cause_of(factor: str) -> str:
    if factor == "minus ":
        return "Is a sign turned round somewhere?"
    if "the length" in factor or "the size" in factor:
        return "Is a sum taken for a mean, or the other way round?"
    return "A sum for a mean, or a factor that is missing or there twice, can do that."


def _of_arguments(case: Case) -> str | None:
    for name, values in _arguments_like(case, case.targets):
        if (factor := _factor(case, values, case.yours)) is not None:
            return f"Your result is {factor}the argument `{name}`{' itself' * (not factor)}. Was it ever changed?"
        rests = [result - value for result, value in zip(case.yours, values, strict=True)]
        if (factor := _factor(case, case.ours, rests)) is not None:
            question = "Which of the two does the docstring ask for?"
            return f"Your result is the argument `{name}` {_as_term(factor)}the target. {question}"
        if case.equal(case.ours, [result + value for result, value in zip(case.yours, values, strict=True)]):
            question = "Is a difference returned in place of a point?"
            return f"Your result is the target minus the argument `{name}`. {question}"
    return None


def _swapped(case: Case) -> str | None:
    if len(case.wrong_parts) != 2:
        return None
    (one, (ours, yours)), (other, (others, theirs)) = case.wrong_parts.items()
    swapped = case.equal(ours, theirs) and case.equal(others, yours)
    return f"Of your result, {one} and {other} have changed places." if swapped else None


def _of_parts(case: Case) -> str | None:
    """Each part that is wrong is something simple."""
    told = {name: _like_target(case, *sides, "its target") for name, sides in case.wrong_parts.items()}
    found = [(name, *what) for name, what in told.items() if what is not None]
    if not found or len(found) < len(told):
        return None
    opening = "All is right but one part:" if len(found) == 1 else "In your result,"
    said = ", and ".join(f"{name} is {text}" for name, text, _ in found)
    return " ".join([f"{opening} {said}.", *dict.fromkeys(cause for *_, cause in found)])


def _in_another_order(case: Case) -> str | None:
    sides = [list(map(np.sort, side)) for side in (case.ours, case.yours)]
    if _long(case.ours) and case.equal(*sides):
        return "Your result holds the target's numbers in another order."
    return None


def _of_candidates(case: Case) -> str | None:
    """The results, or the only part of them that is wrong, are a candidate or, if none, a multiple of one."""
    views: list[tuple[str, Arrays, Callable]] = [("Your result is", case.yours, _numbers)]
    if len(case.wrong_parts) == 1:
        ((name, (_, wrong)),) = case.wrong_parts.items()
        views.append((f"All is right but {name}, which is that of", wrong, lambda tree: _parts(tree)[name]))
    for exact in (True, False):  # multiples come last: for a single number, each takes a look at every instance
        negative: str | None = None
        for candidate in _while_patient(case):
            for opening, yours, view in views if candidate.has_parts else views[:1]:
                values = _values(case, candidate, yours, view, exact)
                factor = None if values is None else _factor(case, values, yours)
                if factor is None:
                    continue
                found = f"{opening} {factor}{candidate.text}. {candidate.cause}".strip()
                if not factor or not exact:
                    return found
                negative = negative or found
        if negative:
            return negative
    return None


def _while_patient(case: Case) -> Iterator[Candidate]:
    return itertools.takewhile(lambda _: time.process_time() < case.end, case.candidates())


def _of_changes(case: Case) -> str | None:
    """A step from an argument that is longer or shorter than it should be, in the results or their only wrong part."""
    views: list[tuple[str, str, str, Sequence[Any], Arrays, Arrays]]
    views = [("The change", "your result", "the target", case.targets, case.ours, case.yours)]
    names = list(_parts(case.targets[0]))
    if len(case.wrong_parts) == 1 and all(isinstance(one, tuple) and len(one) == len(names) for one in case.targets):
        ((part, sides),) = case.wrong_parts.items()
        place = names.index(part)
        inside = [target[place] for target in case.targets]
        views.append(("All is right but one part: the change", part, "its target", inside, *sides))
    for opening, result, target, trees, ours, yours in views:
        for name, values in _arguments_like(case, trees):
            if result != "your result" and case.equal(values, yours):
                return f"All is right but one part: {result} is the argument `{name}` itself. Was it ever changed?"
            right = [one - value for one, value in zip(ours, values, strict=True)]
            changes = [one - value for one, value in zip(yours, values, strict=True)]
            said = f"{opening} from the argument `{name}` to {result} is"
            if factor := _factor(case, right, changes):
                return f"{said} {factor}the one to {target}. {_cause_of(factor)}"
            if factors := _factors(case, right, changes):
                return (
                    f"{said} a multiple of the one to {target}, by a factor that differs between instances: {factors}."
                )
    return None


def _of_sums(case: Case) -> str | None:
    """The target and a candidate, or a multiple of one: a term too many or too few."""
    rests = [result - one for one, result in zip(case.ours, case.yours, strict=True)]
    exact = all(rest.size == 1 for rest in rests)
    for candidate in _while_patient(case):
        values = _values(case, candidate, rests, _numbers, exact)
        factor = None if values is None else _factor(case, values, rests)
        if factor is not None:
            minus = factor.startswith("minus ")
            question = "Is a term missing, or subtracted without need?" if minus else "Is there a term too many?"
            return f"Your result is the target {_as_term(factor)}{candidate.text}. {question}"
    return None


def _as_term(factor: str) -> str:
    return factor if factor.startswith("minus ") else f"plus {factor}"


def _values(case: Case, candidate: Candidate, yours: Arrays, view: Callable, exact: bool) -> list[np.ndarray] | None:
    """The candidate on every instance, None as soon as one of them is no multiple; right results come last.

    If exact, the multiples are 1 and -1.
    """
    values: dict[int, np.ndarray] = {}
    for number in sorted(range(len(yours)), key=lambda number: case.close(case.ours[number], case.yours[number])):
        try:
            values[number] = view(candidate.value(number))
            ratio = _ratio(values[number], yours[number])
            if not case.close((np.sign(ratio) if exact else ratio) * values[number], yours[number]):
                return None
        except Exception:  # arguments that make no sense, or a value of another form
            return None
    return [values[number] for number in range(len(yours))]


def _of_places(case: Case) -> str | None:
    """Where the difference is."""
    if not 0 < len(case.wrong_parts) < len(_parts(case.targets[0])):
        return None
    *others, last = case.wrong_parts
    return f"All is right but {', '.join(others)}{' and ' * bool(others)}{last}."


def _of_some_instances(case: Case) -> str | None:
    """One multiple of the target wherever it is not right."""
    wrong = [not case.close(*pair) for pair in zip(case.ours, case.yours, strict=True)]
    ours, yours = ([one * use for one, use in zip(side, wrong, strict=True)] for side in (case.ours, case.yours))
    factor = _factor(case, ours, yours)
    return factor and f"On the instances that differ, your result is {factor}the target. {_cause_of(factor)}"


def _of_constants(case: Case) -> str | None:
    """The same number again and again, where the target has several."""
    several = [pair for pair in zip(case.ours, case.yours, strict=True) if pair[0].size > 1]
    if len(several) < 2 or not all(case.close(np.full(yours.shape, yours[0]), yours) for _, yours in several):
        return None
    if any(case.close(np.full(ours.shape, ours[0]), ours) for ours, _ in several):
        return None
    return (
        "On each instance all numbers of your result are the same, and those of the target are not. Is one number "
        "given to all, or is an index fixed?"
    )


def _of_directions(case: Case) -> str | None:
    """A multiple of the target on each instance."""
    factors = _factors(case, case.ours, case.yours)
    return factors and (
        "On each instance your result is a multiple of the target, by a factor that differs between instances: "
        f"{factors}. Which number has that size there?"
    )


def _factors(case: Case, bases: Arrays, yours: Arrays) -> str | None:
    """The multiples, of at most six instances; None if yours are none, or too few vectors tell."""
    pairs = [pair for pair in zip(bases, yours, strict=True) if pair[0].size > 1 and pair[0].any()]
    if len(pairs) < 2 or not _parallel(case, bases, yours):
        return None
    return ", ".join(f"{_ratio(*pair):.3g}" for pair in pairs[:6])


def _of_arrays(case: Case) -> str | None:
    """Each array is a multiple of its target."""
    ours, yours = ([np.ravel(leaf) for leaf in jax.tree.leaves(side)] for side in (case.targets, case.results))
    if len(ours) == len(case.targets) or all(leaf.size <= 1 for leaf in ours) or not _parallel(case, ours, yours):
        return None
    parts = case.wrong_parts.items() if all(isinstance(target, tuple) for target in case.targets) else ()
    if len(parts) > 1 and all(sides[0][0].size > 1 and _parallel(case, *sides) for _, sides in parts):
        return (
            "Each part of your result is a multiple of its target, with a factor of its own. Which norm should each "
            "part have?"
        )
    return (
        "Each array of your result is a multiple of its target, with a factor of its own. A norm taken array by array, "
        "and not of all numbers together, can do that."
    )


OF_THE_SAME_FORM = (
    _of_answers,
    _of_target,
    _of_arguments,
    _swapped,
    _of_parts,
    _in_another_order,
    _of_candidates,
    _of_changes,
    _of_sums,
    _of_places,
    _of_some_instances,
    _of_constants,
    _of_directions,
    _of_arrays,
)


# --- results of another form ---------------------------------------------------------------------------------

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


def _of_another_form(case: Case) -> str | None:
    if case.equal(case.ours, case.yours):
        return "The numbers are right, and only the form in which you return them differs."
    like = dict(_arguments_like(case, case.results))
    for name, values in like.items():
        if case.equal(values, case.yours):
            return f"Your result is the argument `{name}` itself. Was it ever changed?"
    for text, function in REDUCTIONS:
        if _reduces(case, function, case.results, case.targets):
            return f"The {text} of your result equals the target. Is a last step missing?"
        if _reduces(case, function, case.targets, case.results):
            return f"Your result is the {text} of the target. What does the docstring say about its form?"
    if found := _candidate_of_this_form(case):
        return found
    for name in like:
        if any(map(np.ndim, jax.tree.leaves(case.arguments[0][name]))):
            question = "Is a gradient returned in place of something that is made of it?"
            return f"Your result has the shapes of the argument `{name}`. {question}"
    if all(result.size == 1 for result in case.yours) and any(target.size > 1 for target in case.ours):
        return "Your result is one number. Is a loss returned in place of its gradient, or an average of all numbers?"
    return None


def _candidate_of_this_form(case: Case) -> str | None:
    """What the results are, of what has not the form of the targets."""
    for candidate in _while_patient(case):
        with contextlib.suppress(Exception):  # arguments that make no sense
            pairs = ((candidate.value(number), result) for number, result in enumerate(case.results))
            if all(alike(*pair) and case.close(*map(_numbers, pair)) for pair in pairs):
                return f"Your result is {candidate.text}. {candidate.cause or 'What does the docstring ask for?'}"
    return None


def _reduces(case: Case, function: Callable, long: Sequence[Any], short: Sequence[Any]) -> bool:
    """Whether a function of the long is the short: of an array or a list, and otherwise of each array of a tree."""

    def reduced(tree: Any) -> Any:
        if type(tree) in (tuple, list) and len({np.shape(leaf) for leaf in tree}) == 1:
            tree = np.stack(tree)
        return function(tree) if isinstance(tree, np.ndarray | tuple) else jax.tree.map(function, tree)

    try:
        return all(
            alike(one, other) and case.close(_numbers(one), _numbers(other))
            for one, other in zip(map(reduced, long), short, strict=True)
        )
    except Exception:  # an axis that is not there
        return False


# --- factors -------------------------------------------------------------------------------------------------

NUMBERS = {"": 1, "2": 2, "½": 1 / 2, "4": 4, "¼": 1 / 4, "3": 3, "⅓": 1 / 3}
POWERS = {
    "": 1,
    "1 / ": -1,
    "the square of ": 2,
    "1 / the square of ": -2,
    "the root of ": 0.5,
    "1 / the root of ": -0.5,
}


def _factor(case: Case, bases: Arrays, yours: Arrays) -> str | None:
    """What makes yours of the bases: "minus 2 times ", "`K` times ", "" if they are equal, or None if nothing does."""
    used = np.array([base.any() for base in bases])
    ratios = np.array(list(map(_ratio, bases, yours)))[used]
    if not used.any() or not ratios.all() or not _parallel(case, bases, yours):
        return None
    one_number = sum(base.size for base in itertools.compress(bases, used)) == 1  # a multiple of any other
    largest = max(range(len(bases)), key=lambda number: np.dot(bases[number], bases[number]))  # it is no rounding error
    ratio = _ratio(bases[largest], yours[largest])
    numbers: dict[str, Any] = {} if one_number else {f"{abs(ratio):.4g}": abs(ratio)}
    products = [] if one_number else _products(case.scalars)
    minus, sign = ("minus ", -1) if ratio < 0 else ("", 1)
    for text, values in itertools.chain(NUMBERS.items(), numbers.items(), products):
        factors = np.where(used, sign * values, 0)
        near = abs(factors[largest] / ratio - 1) < 0.1  # few are, and to compare whole arrays takes longer
        if near and case.equal([factor * base for factor, base in zip(factors, bases, strict=True)], yours):
            return f"{minus}{text} times " if text else minus
    return None


def _products(scalars: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Powers of the scalars, products of two of them, and simple multiples of both."""
    terms = [(prefix + name, values**power) for prefix, power in POWERS.items() for name, values in scalars.items()]
    for (one, first), (other, second) in itertools.combinations(terms[: 2 * len(scalars)], 2):
        terms.append((f"{one} * {other}".replace("* 1 / ", "/ "), first * second))
    for (text, values), (number, times) in itertools.product(terms, NUMBERS.items()):
        product = f"{number} * {text}" if number else text
        yield f"({product})" if " " in product else product, times * values


def _scalars(arguments: Arguments) -> dict[str, float]:
    """Numbers among the arguments of an instance, and sizes of arrays."""
    found: dict[str, float] = {}
    for name, value in arguments.items():
        kind = kind_of(value)
        if kind in ("count", "number"):
            found[f"`{name}`"] = float(value)
        elif kind in ("array", "tree", "list"):
            shape = (len(value),) if kind == "list" else np.shape(jax.tree.leaves(value)[0])
            if shape:
                found[f"the length of `{name}`"] = shape[0]
            if kind == "array" and len(shape) > 1:
                found[f"the length of the last axis of `{name}`"] = shape[-1]
                found[f"the size of `{name}`"] = int(np.prod(shape))
    return found


def _parallel(case: Case, bases: Arrays, yours: Arrays) -> bool:
    return case.equal([_ratio(*pair) * pair[0] for pair in zip(bases, yours, strict=True)], yours)


def _ratio(base: np.ndarray, result: np.ndarray) -> float:
    """The multiple of the base that is nearest to the result."""
    square = np.dot(base, base)
    return np.dot(base, result) / square if square else 0.0


# --- pytrees -------------------------------------------------------------------------------------------------


def _numbers(tree: Any) -> Any:
    """All numbers of a pytree, None if it holds anything else, such as infinity."""
    try:
        numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        return numbers.astype(float) if numbers.dtype.kind in "biuf" and np.isfinite(numbers).all() else None
    except Exception:  # a class of the learner's own may raise anything
        return None


def _parts(tree: Any) -> dict[str, Any]:
    """The numbers of the parts of a pair, a dictionary or a short array, by name."""
    if isinstance(tree, tuple) or (isinstance(tree, np.ndarray) and tree.ndim == 1):
        word = "part" if isinstance(tree, tuple) else "number"
        if 2 <= len(tree) <= 4:
            ordinals = ("first", "second", "third", "fourth")
            return {f"the {ordinal} {word}": _numbers(part) for ordinal, part in zip(ordinals, tree, strict=False)}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"`{jax.tree_util.keystr(path)}`": _numbers(leaf) for path, leaf in leaves} if len(leaves) > 1 else {}


def _arguments_like(case: Case, trees: Sequence[Any]) -> Iterator[tuple[str, Arrays]]:
    """The arguments that have the form of the trees on every instance, and their numbers."""
    for name in case.arguments[0]:
        values = [given[name] for given in case.arguments]
        numbers = [_numbers(value) for value in values]
        if all(map(alike, trees, values)) and not any(one is None for one in numbers):
            yield name, numbers


def alike(one: Any, other: Any) -> bool:
    """Whether two pytrees have the same structure and shapes."""
    try:
        shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (one, other)]
        return shapes[0] == shapes[1] and bool(jax.tree.structure(one) == jax.tree.structure(other))  # type: ignore[operator]
    except Exception:  # what is no pytree
        return False
