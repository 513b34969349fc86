"""`progress`: what has been done so far, and a text to carry it to another machine."""

import html
from collections.abc import Sequence
from statistics import median

from metalearn.course.exercises import exercise
from metalearn.course.records import record
from metalearn.course.widgets.display import show_html, show_markdown
from metalearn.course.widgets.forms import relative_error


def progress(lesson: str | None = None) -> None:
    """Show the exercises passed, the quiz answers and the predictions against the truth.

    Args:
      lesson: the number of a lesson, such as "02"; all lessons if None.

    Raises:
      TypeError, ValueError: if there is no such lesson.
    """
    stored = record.read()
    lessons = exercise.numbers() if lesson is None else [lesson]
    rows = [_row(number, stored) for number in lessons]
    predictions = {
        key: entry for key, entry in sorted(stored["predictions"].items()) if lesson in (None, key.partition(".")[0])
    }
    header = ("lesson", "exercises passed", "quiz answers right")
    tables = [("Progress", header, rows)]
    if predictions:
        told = [
            (key, _say(entry["committed"]), "not seen yet" if entry["truth"] is None else _say(entry["truth"]))
            for key, entry in predictions.items()
        ]
        tables.append(("Predictions", ("prediction", "yours", "the answer"), told))
    line = _calibration([entry for entry in predictions.values() if entry["truth"] is not None])
    show_html(
        "".join(_html_table(*table) for table in tables) + f"<p>{line}</p>",
        "\n\n".join([*(_plain_table(*table) for table in tables), line]),
    )


def export_progress() -> str:
    """Your progress as text. Keep it, and hand it to `import_progress` on another machine."""
    return record.dump(record.read())


def import_progress(text: str) -> None:
    """Add the progress in a text from `export_progress` to what is stored here; the text wins where both speak.

    Raises:
      TypeError: if it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be the string that export_progress() returned, but it is a {type(text).__name__}.")
    try:
        added = record.parse(text)
    except ValueError:
        show_markdown("This is not a text from `export_progress()`. Nothing was changed.")
        return
    record.merge(added)
    show_markdown(f"Progress added: {len(added['passed'])} passed exercises, {len(added['predictions'])} predictions.")


def _row(lesson: str, stored: dict) -> tuple[str, str, str]:
    questions = exercise.quiz_of(lesson)
    ids = [definition.id for definition in exercise.all_exercises() if definition.lesson == lesson]
    passed = sum(id in stored["passed"] for id in ids)
    right = sum(
        stored["quiz"].get(f"{lesson}.{number}") == question.answer
        for number, question in enumerate(questions, start=1)
    )
    return lesson, f"{passed} of {len(ids)}", f"{right} of {len(questions)}"


def _calibration(seen: list[dict]) -> str:
    """One line on how well the predictions agree with the answers that were shown."""
    choices = [entry for entry in seen if isinstance(entry["truth"], str)]
    errors = [relative_error(**entry) for entry in seen if isinstance(entry["truth"], float)]
    parts = []
    if choices:
        right = sum(entry["committed"] == entry["truth"] for entry in choices)
        parts.append(f"of your choices, {right} of {len(choices)} {'was' if right == 1 else 'were'} right")
    if errors:
        parts.append(f"half of your numbers were within {median(errors):.0%} of the answer")
    return f"Calibration: {'; '.join(parts)}." if parts else "Calibration: no prediction has been compared yet."


def _say(answer: float | str) -> str:
    return answer if isinstance(answer, str) else f"{answer:.4g}"


def _html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [header, *rows]]
    return "\n".join([caption, *lines])
