"""Judge a learner's function against the reference of an exercise, and say in words what is wrong.

`grade` is pure apart from running the function: it prints and stores nothing, and raises nothing, whatever the
function does. The function runs in a thread of its own, so that an endless loop can be stopped.
"""

import contextlib
import ctypes
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import numpy as np

from metalearn.course.exercises.candidates import Arguments, Candidate, candidates
from metalearn.course.exercises.exercise import Exercise
from metalearn.course.exercises.relations import Case, alike, relation

DRAWABLE = range(4, 201)  # fewer numbers are read faster than a figure; more make it slow
PATIENCE = 12  # times the limit of processor time, for a function that only waits, or a machine that is very busy


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two arrays of the same size to draw, one-dimensional: the target and the learner's."""

    target: np.ndarray
    yours: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What the check found.

    Attributes:
      status: "not yet" for an exercise that was not begun.
      message: Markdown, to show as it is.
      misconception: name of the misconception that gives the learner's results, if one does.
      relation: what the learner's results equal, if no misconception gives them and `relations` found it.
      figure: the first array that differs, if it has a size worth drawing.
      changed: what is said of the arguments that the function changed in place, if it did. The message ends with it,
        and is nothing else if the results are right.
    """

    status: Literal["passed", "not yet", "failed"]
    message: str
    misconception: str | None = None
    relation: str | None = None
    figure: Comparison | None = None
    changed: str | None = None


def grade(exercise: Exercise, function: Any, seed: int = 0, timeout: float = 10.0, explain: bool = True) -> Verdict:
    """Compare a learner's function with the reference on every instance of an exercise, in float64.

    Right results are not enough: a function that changes its arguments in place does not pass.

    Args:
      exercise: the definition.
      function: whatever the learner handed in.
      seed: draws the instances; a classroom uses its own.
      timeout: seconds of this process's processor time without a new result, after which the function is stopped; a
        machine that is busy with something else does not count. A function that waits is stopped as well, after
        `PATIENCE` times as many seconds of the clock.
      explain: whether to look for what a wrong result equals where no misconception gives it, which takes seconds.
    """
    if complaint := _signature_complaint(exercise, function):
        return Verdict("failed", complaint)
    with jax.enable_x64(True):
        instances = _instances(exercise, seed)
        run = _run(_judged(exercise, function), instances, timeout)
        if run.error is not None:
            return _explain_error(exercise, function, run, instances, timeout)
        if any(result is Ellipsis for result in run.results):
            return Verdict("not yet", "This exercise is waiting for you: your function returns `...`.")
        if any(result is None for result in run.results):
            return Verdict("failed", "Your function returned nothing (`None`): is a `return` missing?")
        verdict = _compare(exercise, seed, instances, run.results, explain)
    return _with_changed(verdict, exercise, run.changed)


def _compare(exercise: Exercise, seed: int, instances: Sequence[tuple], returned: list, explain: bool) -> Verdict:
    """What is to be said of what a function returned."""
    targets = [_answer(exercise, seed, exercise.reference, number) for number in range(len(instances))]
    given = [_result(exercise, result) for result in returned]
    results = [_without_names(*pair) for pair in zip(targets, given, strict=True)]
    verdicts = [_same(exercise, *pair) for pair in zip(targets, results, strict=True)]
    if all(verdicts):
        if exercise.judge:
            return Verdict("passed", returned[0][1])
        return Verdict("passed", f"Your function agrees with the reference on {_all_instances(len(instances))}.")
    for misconception in exercise.misconceptions:
        if _agrees(exercise, seed, misconception.function, results):
            return Verdict("failed", misconception.diagnosis, misconception.name)
    if exercise.judge:
        return Verdict("failed", returned[verdicts.index(False)][1])
    said = _relation(exercise, seed, targets, results) if explain else None
    return _explain_difference(exercise, instances, targets, results, verdicts, said)


def _judged(exercise: Exercise, function: Callable[..., Any]) -> Callable[..., Any]:
    """What is run: the function, or the exercise's judge of it."""
    return partial(exercise.judge, function) if exercise.judge else function


def _result(exercise: Exercise, returned: Any) -> Any:
    """What is compared, of what was returned."""
    return returned[0] if exercise.judge else returned


# --- running -------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    """Raised inside the learner's thread when the time is over; `except Exception` does not catch it."""


@dataclass(frozen=True)
class _Run:
    """Results up to the first error. `error` is `_Stopped` after a timeout, `waited` if it computed little.

    `changed` holds the places of the arguments that the function changed.
    """

    results: list[Any]
    changed: set[int]
    error: BaseException | None
    still_running: bool = False
    waited: bool = False


def _run(function: Callable[..., Any], instances: Sequence[tuple], timeout: float) -> _Run:
    results: list[Any] = []
    changed: set[int] = set()
    errors: list[BaseException] = []
    ended = threading.Event()  # to wait for instead of the thread: a `join` that Ctrl-C interrupts calls it dead

    def work() -> None:
        try:
            with jax.enable_x64(True):  # the setting belongs to a thread
                for arguments in instances:
                    results.append(_call(function, arguments, changed))
        except BaseException as error:  # SystemExit included: nothing of the learner's may end the notebook
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    done, computed, waited = 0, time.process_time(), time.monotonic()
    try:
        while not ended.wait(min(0.1, timeout)):
            if len(results) > done:
                done, computed, waited = len(results), time.process_time(), time.monotonic()
            elif max(time.process_time() - computed, (time.monotonic() - waited) / PATIENCE) > timeout:
                break
    finally:  # also when the learner interrupts the cell
        stopped = _stop(thread, ended)
    only_waited = time.process_time() - computed < timeout
    if not stopped:
        return _Run(results[: len(instances) - 1], changed, _Stopped(), still_running=True, waited=only_waited)
    complete = len(results) == len(instances)  # it may finish in the moment in which it is stopped
    return _Run(results, changed, None if complete or not errors else errors[0], waited=only_waited)


def _stop(thread: threading.Thread, ended: threading.Event) -> bool:
    """End a thread from outside. It fails if the thread hangs in compiled code or catches everything."""
    for _ in range(5):
        if ended.is_set():
            thread.join()
            return True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stopped))
        ended.wait(0.2)
    return ended.is_set()


def _call(function: Callable[..., Any], arguments: tuple, changed: set[int] | None = None) -> Any:
    """Call with copies, so that no function can change what the next one gets or what was returned before.

    The places of the copies that the function changed are added to `changed`.
    Numbers and JAX arrays of the result become NumPy arrays; anything else stays for `_describe` to name.
    """

    def own(leaf: Any) -> Any:
        return leaf.copy() if isinstance(leaf, np.ndarray) else leaf

    def concrete(leaf: Any) -> Any:
        return np.array(leaf) if isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex) else leaf

    copies = jax.tree.map(own, arguments)
    result = function(*copies)
    if changed is not None:
        pairs = enumerate(zip(arguments, copies, strict=True))
        changed.update(place for place, pair in pairs if not _unchanged(*pair))
    return result if result is None else jax.tree.map(concrete, result)


def _unchanged(before: Any, after: Any) -> bool:
    """Whether two pytrees hold the same in the same containers.

    What is neither a container nor an array is passed on uncopied and remains what it is: a function, a key, or a
    random generator, whose state is meant to move on.
    """

    def same(one: Any, other: Any) -> bool:
        if one is other:
            return True
        if isinstance(one, np.ndarray | jax.Array) and isinstance(other, np.ndarray | jax.Array):
            ours, theirs = np.asarray(one), np.asarray(other)
            return (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
        return bool(one == other)

    try:
        old, new = jax.tree.flatten(before), jax.tree.flatten(after)
        return bool(old[1] == new[1]) and all(map(same, old[0], new[0]))  # type: ignore[operator]
    except Exception:  # a container holds what cannot be sorted or compared, which did not come from the instances
        return False


# A learner checks again and again: what does not depend on the learner is computed once.


@lru_cache(maxsize=64)
def _instances(exercise: Exercise, seed: int) -> list[tuple]:
    return exercise.instances(np.random.default_rng(seed))


@lru_cache(maxsize=4096)
def _answer(exercise: Exercise, seed: int, function: Callable[..., Any], number: int) -> Any:
    """What a function of the exercise's own, the reference or a misconception, gives on one instance."""
    return _result(exercise, _call(_judged(exercise, function), _instances(exercise, seed)[number]))


@lru_cache(maxsize=64)
def _arguments(exercise: Exercise, seed: int) -> list[Arguments]:
    names = inspect.signature(exercise.reference).parameters
    return [dict(zip(names, instance, strict=True)) for instance in _instances(exercise, seed)]


@lru_cache(maxsize=64)
def _candidates(exercise: Exercise, seed: int) -> list[Candidate]:
    """What a result may equal, the exercise's own relatives first."""
    relatives = [Candidate(text, "", partial(_answer, exercise, seed, other)) for text, other in exercise.relatives]
    arguments = _arguments(exercise, seed)
    return [*relatives, *candidates(lambda given: _call(exercise.reference, tuple(given.values())), arguments)]


def _relation(exercise: Exercise, seed: int, targets: list, results: list) -> str | None:
    for text, function in exercise.relatives:
        if _agrees(exercise, seed, function, results):
            return f"Your result is {text}."

    def close(target: np.ndarray, yours: np.ndarray) -> bool:
        return target.shape == yours.shape and bool(_close(exercise, target, yours).all())

    case = Case(_arguments(exercise, seed), targets, results, close, partial(_candidates, exercise, seed))
    return relation(case)


# --- comparing -----------------------------------------------------------------------------------------------


def _agrees(exercise: Exercise, seed: int, function: Callable[..., Any], results: list) -> bool:
    """Whether a function gives these results on every instance; one that raises does not."""
    try:
        return all(
            _same(exercise, _answer(exercise, seed, function, number), result) for number, result in enumerate(results)
        )
    except Exception:
        return False


def _without_names(target: Any, yours: Any) -> Any:
    """The learner's result, with a plain tuple for each named one where the target has a plain one of that length."""
    if type(target) is tuple and isinstance(yours, tuple) and len(target) == len(yours):
        return tuple(map(_without_names, target, yours))
    if type(target) is type(yours) is list and len(target) == len(yours):
        return list(map(_without_names, target, yours))
    if type(target) is type(yours) is dict and target.keys() == yours.keys():
        return {key: _without_names(target[key], yours[key]) for key in target}
    return yours


def _same(exercise: Exercise, target: Any, yours: Any) -> bool:
    return _fits(target, yours) and all(
        _close(exercise, *leaves).all() for leaves in zip(jax.tree.leaves(target), jax.tree.leaves(yours), strict=True)
    )


def _fits(target: Any, yours: Any) -> bool:
    """Same structure, same shapes, and numbers in every leaf."""
    return alike(target, yours) and all(map(_is_numeric, jax.tree.leaves(yours)))


def _is_numeric(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"


def _close(exercise: Exercise, target: np.ndarray, yours: np.ndarray) -> np.ndarray:
    """Elementwise: `rtol` of the number itself, plus `atol` of the largest number of the array.

    An array below `atol` altogether is rounding noise around zero, and is judged on the scale of 1.
    """
    largest = np.abs(target[np.isfinite(target)]).max(initial=0)
    scale = largest if largest > exercise.atol else 1.0
    return np.isclose(yours, target, rtol=exercise.rtol, atol=exercise.atol * scale, equal_nan=True)


# --- explaining ----------------------------------------------------------------------------------------------


def _with_changed(verdict: Verdict, exercise: Exercise, changed: set[int]) -> Verdict:
    """The verdict on a function that changed the arguments in these places."""
    if not changed:
        return verdict
    parameters = list(inspect.signature(exercise.reference).parameters)
    names = [parameters[place] for place in sorted(changed)]
    told = _enumerate([f"`{name}`" for name in names])
    right = verdict.status == "passed"
    opening = "Your results are right, but your function changes" if right else "Your function also changes"
    said = (
        f"{opening} its argument{'s' * (len(names) > 1)} {told}, and whoever calls it goes on with what was "
        f"changed. Work on a copy, such as `copy.deepcopy({names[0]})`, or make a new value: `x = x - step` makes "
        "one, where `x -= step` changes the array that was given."
    )
    message = said if right else f"{verdict.message}\n\n{said}"
    return replace(verdict, status="failed", message=message, changed=said)


def _signature_complaint(exercise: Exercise, function: Any) -> str | None:
    expected = ", ".join(inspect.signature(exercise.reference).parameters)
    if not callable(function):
        return (
            f"`check` needs the function itself, and got {_describe(function)}. Write the function's name alone, "
            f'`check("{exercise.id}", my_function)`, without calling it.'
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled functions do not tell
        return None
    try:
        signature.bind(*inspect.signature(exercise.reference).parameters)
    except TypeError:
        return f"Your function must accept the arguments `({expected})`; its own are `{signature}`."
    return None


def _explain_error(exercise: Exercise, function: Any, run: _Run, instances: Sequence[tuple], timeout: float) -> Verdict:
    error, number = run.error, len(run.results)
    where = f"on instance {number + 1} of {len(instances)}, with {_describe_arguments(exercise, instances[number])}"
    if isinstance(error, _Stopped):
        message = (
            f"Your function was stopped after {PATIENCE * timeout:g} s {where}. It had hardly computed anything: does "
            "it wait for something, such as an input, a lock or `time.sleep`?"
            if run.waited
            else f"Your function did not finish within {timeout:g} s of processor time {where}. Is there a loop whose "
            "end is never reached, or a Python loop that repeats something slow?"
        )
        if run.still_running:
            message += " It could not be stopped and is still running: restart the kernel when it is convenient."
        return Verdict("failed", message)

    assert error is not None
    trace = traceback.TracebackException.from_exception(error)  # survives an error whose text cannot be made
    code = getattr(inspect.unwrap(getattr(function, "func", function)), "__code__", None)
    own = [frame for frame in trace.stack if code is None or frame.filename == code.co_filename]
    # JAX raises NotImplementedError too. Only a line of the learner's own means that the exercise was not begun.
    if isinstance(error, NotImplementedError) and own and own[-1] is trace.stack[-1]:
        return Verdict("not yet", "This exercise is waiting for you: replace the line that raises.")
    said = f"{type(error).__name__}: {trace}".removesuffix(": ")
    line = f"\nline {own[-1].lineno}: {own[-1].line}".removesuffix(": ") if own else ""
    return Verdict("failed", f"Your function raised an error {where}:\n\n{_block(said + line)}")


def _explain_difference(
    exercise: Exercise,
    instances: Sequence[tuple],
    targets: list,
    results: list,
    verdicts: list[bool],
    relation: str | None,
) -> Verdict:
    differing = [number for number, same in enumerate(verdicts) if not same]
    first = differing[0]
    target, yours = targets[first], results[first]
    if any(verdicts):
        opening = f"Right on {sum(verdicts)} of {len(verdicts)} instances. The first that differs has "
    elif len(verdicts) == 1:
        opening = "Different on the only instance, which has "
    else:
        opening = f"Different on {_all_instances(len(verdicts))}. The first has "
    opening += f"{_describe_arguments(exercise, instances[first])}.\n\n"
    if not _fits(target, yours):
        question = " Is a call missing?" if inspect.isroutine(yours) else ""
        said = f"{opening}Expected {_describe(target)}; got {_describe(yours)}.{question}"
        return Verdict("failed", "\n\n".join(filter(None, (said, relation))), relation=relation)

    pairs = zip(jax.tree_util.tree_leaves_with_path(target), jax.tree.leaves(yours), strict=True)
    path, leaf, theirs = next(
        (path, leaf, theirs) for (path, leaf), theirs in pairs if not _close(exercise, leaf, theirs).all()
    )
    place = f"At `{jax.tree_util.keystr(path)}` of the result:\n\n" if path else ""
    message = opening + place + _block(_side_by_side(leaf.ravel(), theirs.ravel()))
    bad = int(np.count_nonzero(~np.isfinite(theirs)))
    if bad and np.isfinite(leaf).all():
        message += f"\n\n{_count_bad(bad, theirs.size)} infinite or not a number."
    elif relation:
        message += f"\n\n{relation}"
    drawable = leaf.size in DRAWABLE and np.isfinite(leaf).all() and np.isrealobj(leaf) and np.isrealobj(theirs)
    figure = Comparison(leaf.ravel(), theirs.ravel()) if drawable else None
    return Verdict("failed", message, relation=relation, figure=figure)


def _all_instances(number: int) -> str:
    return {1: "the only instance", 2: "both instances"}.get(number, f"all {number} instances")


def _count_bad(bad: int, size: int) -> str:
    if size == 1:
        return "Your number is"
    if bad == size:
        return f"All {size} numbers of yours are"
    return f"{bad} of your {size} numbers {'is' if bad == 1 else 'are'}"


def _side_by_side(target: np.ndarray, yours: np.ndarray, most: int = 8) -> str:
    rows = [
        [name, *(f"{number:.6g}" for number in side[:most]), *(["..."] if side.size > most else [])]
        for name, side in (("target", target), ("yours", yours))
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def _describe_arguments(exercise: Exercise, arguments: tuple) -> str:
    names = inspect.signature(exercise.reference).parameters
    return ", ".join(
        f"`{name}`: {argument if isinstance(argument, int | float | str) else _describe(argument)}"
        for name, argument in zip(names, arguments, strict=False)
    )


def _describe(tree: Any) -> str:
    """A pytree in words: "a tuple of an array of shape [2] and Task(support=shape [2, 3], query=shape [4, 3])"."""
    if type(tree) in (tuple, list) and tree:
        return f"a {type(tree).__name__} of {_enumerate([_compact(part, 'an array of ') for part in tree])}"
    return _compact(tree, "an array of ")


def _compact(tree: Any, array: str = "") -> str:
    shape = () if isinstance(tree, int | float | complex) else None
    with contextlib.suppress(Exception):  # a class of the learner's own may raise anything
        shape = getattr(tree, "shape", shape)
    if isinstance(shape, tuple) and (not isinstance(tree, np.ndarray) or _is_numeric(tree)):
        return f"{array}shape {list(shape)}" if shape else "a number"
    if tree is None:
        return "`None`"
    if inspect.isroutine(tree):
        return "a function"
    name = type(tree).__name__
    if jax.tree_util.all_leaves([tree]):
        return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
    label = "" if type(tree) in (tuple, list) else "{}="
    parts = [
        label.format(jax.tree_util.keystr(path, simple=True)) + _compact(part)
        for path, part in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda part: part is not tree)
    ]
    return f"{'' if type(tree) is tuple else name}({', '.join(_shorten(parts))})"


def _enumerate(words: list[str]) -> str:
    *first, last = _shorten(words)
    return f"{', '.join(first)} and {last}" if first else last


def _shorten(words: list[str], most: int = 6) -> list[str]:
    return words if len(words) <= most else [*words[: most - 1], f"{len(words) - most + 1} more"]


def _block(text: str) -> str:
    """Text as a Markdown code block, so that nothing in it is read as Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
