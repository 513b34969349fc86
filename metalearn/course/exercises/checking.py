"""`check` and `hint`: what a learner calls below an exercise."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from metalearn import _require, plots
from metalearn.course.exercises import exercise as exercises
from metalearn.course.exercises.grading import Comparison, grade
from metalearn.course.records import record
from metalearn.course.widgets.display import Card, in_notebook, show_markdown

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

# The words carry the status; the signs and colours only help to find it.
HEADINGS = {"passed": "✓ Passed.", "not yet": "○ Not yet tried.", "failed": "✗ Not right yet."}
NUMBERS = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")

_shown: dict[str, int] = {}  # hints shown since the kernel started, by exercise
_checked: set[str] = set()  # exercises checked since the kernel started


def check(exercise_id: str, function: Any, seed: int = 0) -> None:
    """Check your function for an exercise, and show what was found.

    Args:
      exercise_id: written above the exercise, such as "02.meta_gradient".
      function: your function itself, not its result.
      seed: draws the arguments that it is tried on.

    Raises:
      TypeError, ValueError: if there is no such exercise, or seed is not a whole number of at least 0.
    """
    _require.count(seed=seed)
    exercise = exercises.find(exercise_id)
    first = exercise_id not in _checked
    card = Card("waiting", "**Checking …**" + (" The first time also compiles, which can take some seconds." * first))
    try:
        verdict = grade(exercise, function, seed)
        _checked.add(exercise_id)
        kind: str = verdict.status
        message = verdict.message
        if verdict.status == "passed":
            record.write("passed", exercise_id, date.today().isoformat())
            left, told = _progress(exercise.lesson)
            kind, message = ("passed" if left else "done"), f"{message} {told}"
        card.change(kind, f"**{HEADINGS[verdict.status]}** {message}")
    except BaseException:  # Ctrl-C
        card.change("not yet", "**○ The check was interrupted.** Run this cell again.")
        raise
    if verdict.figure is not None and in_notebook():
        plots.show(_draw(verdict.figure), "Your numbers (crosses, dashed) against the target (circles, solid).")


def hint(exercise_id: str) -> None:
    """Show a hint for an exercise; each call shows the next one.

    Args:
      exercise_id: written above the exercise, such as "02.meta_gradient".

    Raises:
      TypeError, ValueError: if there is no such exercise.
    """
    hints = exercises.find(exercise_id).hints
    number = _shown.get(exercise_id, 0) + 1
    if number > len(hints):
        show_markdown("You have seen all hints. Where the lesson shows a solution, it is folded below them.")
        return
    _shown[exercise_id] = number
    left = len(hints) - number
    rest = f"{left} more {'hint' if left == 1 else 'hints'} left" if left else "this was the last hint"
    show_markdown(f"**Hint {number} of {len(hints)}.** {hints[number - 1]}\n\n*({rest})*")


def _progress(lesson: str) -> tuple[int, str]:
    """How many exercises of a lesson are left, and a sentence on those that are done."""
    ids = {exercise.id for exercise in exercises.exercises_of(lesson)}
    done = len(ids & record.read()["passed"].keys())
    if done == len(ids):
        return (
            0,
            f"**{'Both' if done == 2 else f'All {NUMBERS[done].lower()}'} exercises of this lesson are done.**"
            if done > 1
            else "",
        )
    verb = "is" if done == 1 else "are"
    return len(ids) - done, f"{NUMBERS[done]} of {NUMBERS[len(ids)].lower()} exercises of this lesson {verb} done."


def _draw(comparison: Comparison) -> Figure:
    figure, (axes,) = plots.subplots()
    axes.plot(comparison.target, "o-", label="target")
    axes.plot(comparison.yours, "x--", label="yours")
    plots.label(axes, "position in the result", "value")
    return figure
