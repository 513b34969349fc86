"""`predict` and `quiz`: forms that a learner fills in, each answer stored beside the lessons.

The browser's side is `forms.js`. It needs a kernel only to store answers: on the website it works alone.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from metalearn.course.exercises.exercise import Guess, Question, prediction_of, quiz_of
from metalearn.course.records import record
from metalearn.course.widgets.display import inline_html, script, show_card, show_with_stand_in, style

UNANSWERED = "○ No prediction was recorded."  # the website knows an answer by it
ASLEEP = "To answer, run this cell: its kernel was restarted or is not there."
CLOSE_ENOUGH = 0.05  # of the answer: a number as near as that is right


class Form(anywidget.AnyWidget):
    """Questions with their answers.

    Attributes:
      fields: what the browser draws, one dictionary for each question: its "kind" ("Predict" or a number of the quiz),
        "prompt" (HTML), "options" or "unit", and of a quiz the "right" option and the "feedback" (HTML) of each.
      answers: to each question the index of an option or a number; None before there is one. The browser writes it.
      said: a line below each question, of the kernel.
      closed: whether nothing can be changed any more.
    """

    _esm = script("forms")
    _css = style("forms")
    fields: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    answers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    said: traitlets.List[str] = traitlets.List().tag(sync=True)
    closed = traitlets.Bool().tag(sync=True)

    def stand_in(self) -> str:
        """HTML of the questions for a page on which the form is not alive; `alive` makes it so on the website."""
        data = html.escape(json.dumps({"fields": self.fields}, ensure_ascii=False))
        questions = "".join(_static(field) for field in self.fields)
        return f'<div class="metalearn-asleep" data-form="{data}">{questions}<p><em>{ASLEEP}</em></p></div>'


def alive(page: str) -> str:
    """A page's HTML with living forms in place of those that sleep; no kernel, server or other file is needed."""
    if "data-form=" not in page:
        return page
    code = Path(__file__).with_suffix(".js").read_text("utf-8")
    start = "document.querySelectorAll('[data-form]').forEach(mount);"
    return f'{page}<style>{style("forms")}</style>\n<script type="module">\n{code}\n{start}\n</script>'


class Prediction:
    """A question that is answered before its result is seen. Made by `predict`.

    Attributes:
      committed: the chosen option or number, None before the learner commits.
      form: the widget.
    """

    def __init__(self, guess: Guess) -> None:
        """Build the form, filled in with what was committed on an earlier run."""
        self.guess = guess
        self.committed: float | str | None = None
        field: dict[str, Any] = {"kind": "Predict", "prompt": inline_html(guess.question), "unit": guess.unit or ""}
        if guess.options is not None:
            field["options"] = list(guess.options)
        self.form = Form(fields=[field], answers=[None], said=[""])
        self._restore()
        self.form.observe(self._commit, "answers")

    def reveal(self, truth: Any, why: str = "", read: str = "") -> None:
        """Say what was committed, what is true and why, and close the form.

        Args:
          truth: the number, in the unit of the prediction; or the right option, by its text or its index. It may be
            computed: any scalar of NumPy or JAX will do.
          why: why it is so, like the question; if empty, what the prediction itself says.
          read: the heading of the passage to read again for whoever was wrong; likewise.

        Raises:
          ValueError: if truth is not a number where one is asked for, or none of the options.
        """
        options = self.guess.options
        truth = self._number(truth) if options is None else self._option(truth, options)
        answer = f"The answer is **{self._say(truth)}**."
        because = f"\n\n{why or self.guess.why}".rstrip()
        self._close("The answer has been shown. To predict again, run this cell again.")
        if self.committed is None:
            show_card("not yet", f"**{UNANSWERED}** {answer}{because}")
            return
        record.write("predictions", self.guess.id, {"committed": self.committed, "truth": truth})
        if self._is_right(truth):
            exactly = "" if self._say(self.committed) == self._say(truth) else f" {answer}"
            show_card("passed", f"**✓ Right.** You predicted {self._say(self.committed)}.{exactly}{because}")
            return
        again = read or self.guess.read
        again = f'\n\nRead again: "{again}".' if again else ""
        show_card(
            "prediction",
            f"**✗ Not this time.** You predicted {self._say(self.committed)}. {answer}{self._by_how_much(truth)}"
            f"{because}{again}",
        )

    def _number(self, truth: Any) -> float:
        number = math.nan
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = math.nan if isinstance(truth, str | bytes) else float(truth)
        if math.isnan(number):
            raise ValueError(f"prediction {self.guess.id}: truth must be a number, but it is {truth!r:.60}.")
        return number

    def _option(self, truth: Any, options: Sequence[str]) -> str:
        if isinstance(truth, str) and truth in options:
            return truth
        with contextlib.suppress(TypeError):  # whole numbers, those of arrays included, are indices
            if not isinstance(truth, bool) and operator.index(truth) in range(len(options)):
                return options[operator.index(truth)]
        raise ValueError(
            f"prediction {self.guess.id}: truth must be one of {', '.join(map(repr, options))} or the index of one, "
            f"0 to {len(options) - 1}, but it is {truth!r:.60}."
        )

    def _commit(self, _: Any) -> None:
        answer = self.form.answers[0]
        if self.form.closed or answer is None:
            return
        options = self.guess.options
        if options is None and not math.isfinite(answer):
            self._tell("Write a number, such as 0.5.")
            return
        self.committed = float(answer) if options is None else options[answer]
        record.write("predictions", self.guess.id, {"committed": self.committed, "truth": None})
        self._tell(f"Committed: {self._say(self.committed)}. {self._doubt()}Run the next cell.")

    def _restore(self) -> None:
        entry = record.read()["predictions"].get(self.guess.id, {})
        earlier, options = entry.get("committed"), self.guess.options
        fits = isinstance(earlier, float) if options is None else earlier in options
        if not fits:  # nothing was committed, or the question has changed since
            return
        self.committed = earlier
        self.form.answers = [earlier if options is None else options.index(earlier)]
        self._tell(f"Committed earlier: {self._say(earlier)}.")
        if entry["truth"] is not None:
            self._close(f"You predicted {self._say(earlier)}, and have seen the answer.")

    def _close(self, reason: str) -> None:
        self.form.closed = True
        self._tell(reason)

    def _tell(self, text: str) -> None:
        self.form.said = [html.escape(text)]

    def _say(self, answer: float | str) -> str:
        return answer if isinstance(answer, str) else f"{answer:.4g} {self.guess.unit or ''}".rstrip()

    def _doubt(self) -> str:
        """A question to whoever may have mistaken the unit: 0.5 for 50 %, or 50 for one half."""
        unit, number = self.guess.unit or "", self.committed
        if isinstance(number, str) or number is None:
            return ""
        if re.search(r"%|per ?cent", unit) and 0 < abs(number) < 1:
            return f"That is less than one per cent: did you mean {100 * number:.4g} {unit}? "
        if re.search(r"fraction|\bof (it|the)", unit) and 1 < abs(number) <= 100:
            return f"That is more than all of it: did you mean {number / 100:.4g}? "
        return ""

    def _is_right(self, truth: float | str) -> bool:
        if isinstance(truth, str) or isinstance(self.committed, str | None):
            return self.committed == truth
        return relative_error(self.committed, truth) <= CLOSE_ENOUGH

    def _by_how_much(self, truth: float | str) -> str:
        if isinstance(truth, str) or isinstance(self.committed, str | None):
            return ""
        for factor, name in ((100, "A hundred times"), (0.01, "A hundredth of")):
            if truth and relative_error(factor * self.committed, truth) <= CLOSE_ENOUGH:
                return f" {name} your number would be right: was one of the two in per cent?"
        side = "high" if self.committed > truth else "low"
        share = f", which is {relative_error(self.committed, truth):.0%} of the answer" if truth else ""
        return f" Your number is too {side} by {self._say(abs(self.committed - truth))}{share}."


def predict(
    id: str,
    question: str | None = None,
    options: Sequence[str] | None = None,
    unit: str | None = None,
    why: str = "",
    read: str = "",
) -> Prediction:
    """Ask for a prediction, before the cell that shows the result.

    Args:
      id: lesson and name, such as "02.nudge".
      question: plain text, with `code` and $mathematics$. If there is none, all is taken from the `PREDICTIONS` of the
        lesson's module, where no learner sees the answer.
      options: plain text, without mathematics; a number is asked for if there are none.
      unit: of the number, such as "steps".
      why: shown with the answer: why it is so.
      read: shown to whoever was wrong: the heading of the passage to read again.

    Returns:
      The prediction; its method `reveal` compares it with the truth.

    Raises:
      TypeError, ValueError: if an argument is not of this form, or the lesson has no prediction of this id.
    """
    if question is None and isinstance(id, str) and options is None and unit is None:
        guess = prediction_of(id)
    else:
        guess = Guess(id, question, options, unit, why, read)  # type: ignore[arg-type]
    prediction = Prediction(guess)
    show_with_stand_in(
        prediction.form, prediction.form.stand_in(), "\n".join([guess.question, *_listed(guess.options or ())])
    )
    return prediction


def relative_error(committed: float, truth: float) -> float:
    """Distance of a prediction from the truth, as a fraction of the truth; infinite if only the truth is zero."""
    if committed == truth:
        return 0.0
    return abs(committed - truth) / abs(truth) if truth else float("inf")


def quiz(lesson: str) -> None:
    """Ask the questions at the end of a lesson, given by its number such as "02".

    Raises:
      TypeError, ValueError: if there is no such lesson.
    """
    questions = quiz_of(lesson)
    form = quiz_form(lesson, questions)
    plain = "\n\n".join("\n".join([question.prompt, *_listed(question.options)]) for question in questions)
    show_with_stand_in(form, form.stand_in(), plain)


def quiz_form(lesson: str, questions: Sequence[Question]) -> Form:
    """The questions with their answers from an earlier run, if there are any.

    Args:
      lesson: its number, under which answers are stored: "02.1", "02.2", ...
      questions: what to ask.
    """
    keys = [f"{lesson}.{number}" for number in range(1, len(questions) + 1)]
    fields = [
        {
            "kind": f"Question {number}",
            "prompt": inline_html(question.prompt),
            "options": list(question.options),
            "right": question.answer,
            "feedback": [inline_html(_without_verdict(text)) for text in question.feedback],
        }
        for number, question in enumerate(questions, start=1)
    ]
    earlier = [record.read()["quiz"].get(key) for key in keys]
    answers = [
        answer if answer in range(len(question.options)) else None
        for answer, question in zip(earlier, questions, strict=True)
    ]
    form = Form(fields=fields, answers=answers)

    def store(change: Any) -> None:
        for key, old, new in zip(keys, change.old, change.new, strict=True):
            if new is not None and new != old:
                record.write("quiz", key, new)

    form.observe(store, "answers")
    return form


def _without_verdict(feedback: str) -> str:
    """The sentence without a "Right:" of its own, which the form says already."""
    rest = re.sub(r"^(Right|Yes|No|Not quite|Wrong)\s*[:.,;]\s*", "", feedback)
    return rest[:1].upper() + rest[1:]


def _listed(options: Sequence[str]) -> list[str]:
    return [f"  ( ) {option}" for option in options]


def _static(field: dict[str, Any]) -> str:
    options = "".join(f"<li>{html.escape(option)}</li>" for option in field.get("options", []))
    return f"<p><strong>{field['kind']}.</strong> {field['prompt']}</p>" + (f"<ul>{options}</ul>" if options else "")
