"""`progress`: the map of the course with what has been done so far, and a text to carry it to another machine."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from metalearn import plots
from metalearn.course import syllabus
from metalearn.course.exercises import exercise
from metalearn.course.records import record
from metalearn.course.widgets.display import show_html, show_markdown
from metalearn.course.widgets.forms import relative_error

# The words say all that the colours and the bars say.
STYLE = """
.metalearn-map { color: var(--ml-text); font-family: var(--jp-ui-font-family, system-ui, sans-serif);
  max-width: 1000px; }
.metalearn-map ol { list-style: none; margin: 12px 0 !important; padding: 0 !important; display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); }
.metalearn-map li { margin: 0; padding: 12px 16px; background: var(--ml-card); border: 1px solid var(--ml-line);
  border-radius: 10px; }
.metalearn-map li.here { border-color: var(--ml-blue); border-width: 2px; padding: 11px 15px; }
.metalearn-map .name, .metalearn-map .name a { color: var(--ml-text); font-weight: 600; font-size: 15px; }
.metalearn-map .facts, .metalearn-map .done { color: var(--ml-muted); font-size: 13px; display: block; }
.metalearn-map .state { font-size: 13px; font-weight: 600; }
.metalearn-map .here .state { color: var(--ml-blue); }
.metalearn-map .complete .state { color: var(--ml-green); }
.metalearn-map .bar { display: block; height: 6px; margin: 8px 0; border-radius: 3px; background: var(--ml-line);
  overflow: hidden; }
.metalearn-map .bar span { display: block; height: 100%; background: var(--ml-green); }
"""


@dataclass(frozen=True)
class _Entry:
    """One lesson of the map."""

    number: str
    name: str
    facts: str  # core or elective, and minutes
    stem: str | None  # None if the lesson is not in the table of the course
    passed: int
    exercises: int
    right: int
    questions: int

    @property
    def share(self) -> float:
        return (self.passed + self.right) / max(self.exercises + self.questions, 1)

    @property
    def done(self) -> str:
        return f"{self.passed} of {self.exercises} exercises, {self.right} of {self.questions} quiz answers"


def progress(lesson: str | None = None) -> None:
    """Show the map of the course: what is done, where to go on, and how good the predictions were.

    Args:
      lesson: the number of a lesson, such as "02"; all lessons if None.

    Raises:
      TypeError, ValueError: if there is no such lesson.
    """
    stored = record.read()
    entries = [_entry(number, stored) for number in (exercise.numbers() if lesson is None else [lesson])]
    here = next((entry for entry in entries if entry.share < 1), None) if lesson is None else None
    predictions = {
        key: entry for key, entry in sorted(stored["predictions"].items()) if lesson in (None, key.partition(".")[0])
    }
    told = [
        (key, _say(entry["committed"]), "not seen yet" if entry["truth"] is None else _say(entry["truth"]))
        for key, entry in predictions.items()
    ]
    line = _calibration([entry for entry in predictions.values() if entry["truth"] is not None])
    header = ("prediction", "yours", "the answer")
    folded = f"<details><summary>Your predictions</summary>{_html_table(header, told)}</details>" if told else ""
    cards = "".join(_card(entry, entry is here, linked=lesson is None) for entry in entries)
    show_html(
        f"<style>{plots.PALETTE_CSS}{STYLE}</style>"
        f'<div class="metalearn-map"><ol>{cards}</ol><p>{line}</p>{folded}</div>',
        "\n\n".join(
            [
                _plain_table(
                    ("lesson", "", "exercises", "quiz", ""),
                    [
                        (
                            f"{entry.number} · {entry.name}",
                            entry.facts,
                            f"{entry.passed} of {entry.exercises}",
                            f"{entry.right} of {entry.questions}",
                            _state(entry, entry is here),
                        )
                        for entry in entries
                    ],
                ),
                *([_plain_table(header, told)] if told else []),
                line,
            ]
        ),
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


def _entry(number: str, stored: dict) -> _Entry:
    questions = exercise.quiz_of(number)
    ids = [definition.id for definition in exercise.all_exercises() if definition.lesson == number]
    lesson = syllabus.find(number)
    return _Entry(
        number=number,
        name=lesson.name if lesson else "a lesson",
        facts=f"{lesson.kind}, {lesson.minutes} min" if lesson else "",
        stem=lesson.stem if lesson else None,
        passed=sum(id in stored["passed"] for id in ids),
        exercises=len(ids),
        right=sum(stored["quiz"].get(f"{number}.{n}") == question.answer for n, question in enumerate(questions, 1)),
        questions=len(questions),
    )


def _state(entry: _Entry, here: bool) -> str:
    """In one or two words, for those who see no colour."""
    if entry.share == 1:
        return "✓ done"
    begun = entry.share > 0
    if here:
        return "→ go on here" if begun else "→ begin here"
    return "begun" if begun else "not begun"


def _card(entry: _Entry, here: bool, linked: bool) -> str:
    name = html.escape(f"{entry.number} · {entry.name}")
    if linked and entry.stem:
        name = f'<a href="{entry.stem}.ipynb">{name}</a>'
    kind = "complete" if entry.share == 1 else "here" if here else "other"
    return (
        f'<li class="{kind}"><span class="name">{name}</span><span class="facts">{entry.facts}</span>'
        f'<span class="bar" aria-hidden="true"><span style="width: {entry.share:.0%}"></span></span>'
        f'<span class="state">{_state(entry, here)}</span><span class="done">{entry.done}</span></li>'
    )


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
    return f"Your predictions: {'; '.join(parts)}." if parts else "Your predictions: none has been compared yet."


def _say(answer: float | str) -> str:
    return answer if isinstance(answer, str) else f"{answer:.4g}"


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in [header, *rows])
