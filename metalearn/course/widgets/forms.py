"""`predict` and `quiz`: forms that a learner fills in, each answer stored beside the lessons."""

import contextlib
import math
import operator
import re
from collections.abc import Sequence
from typing import Any

import ipywidgets

from metalearn.course.exercises.exercise import Question, quiz_of
from metalearn.course.records import record
from metalearn.course.widgets.display import inline_html, show_markdown, show_widget


class Prediction:
    """A question that is answered before its result is seen. Made by `predict`.

    Attributes:
      committed: the chosen option or number, None before the learner commits.
      form: the widget; `answer`, `button` and `status` are its parts.
    """

    def __init__(self, id: str, question: str, options: Sequence[str] | None, unit: str | None) -> None:
        """Build the form, filled in with what was committed on an earlier run."""
        _require_question(id, question, options, unit)
        self.id = id
        self.options = options
        self.unit = f" {unit}" if unit else ""
        self.committed: float | str | None = None
        label = f"Your prediction ({unit})" if unit else "Your prediction"
        self.answer = ipywidgets.FloatText(description=label) if options is None else _choice(options, label)
        self.answer.style.description_width = "initial"
        self.button = ipywidgets.Button(description="Commit", tooltip="Commit to this prediction")
        self.button.on_click(self._commit)
        self.status = ipywidgets.HTMLMath("Commit before you run the next cell.")
        self.form = ipywidgets.VBox([ipywidgets.HTMLMath(inline_html(question)), self.answer, self.button, self.status])
        self._restore()

    def reveal(self, truth: Any) -> None:
        """Say what was committed and what is true, and close the form.

        Args:
          truth: the number, in the unit of the prediction; or the right option, by its text or its index.

        Raises:
          ValueError: if truth is not a number where one is asked for, or none of the options.
        """
        truth = self._number(truth) if self.options is None else self._option(truth, self.options)
        self._close("The answer has been shown.")
        if self.committed is None:
            show_markdown(f"No prediction was recorded. The answer: {self._say(truth)}.")
            return
        record.write("predictions", self.id, {"committed": self.committed, "truth": truth})
        show_markdown(
            f"You predicted: {self._say(self.committed)}. The answer: {self._say(truth)}. "
            f"{self._judge(self.committed, truth)}"
        )

    def _number(self, truth: Any) -> float:
        try:
            number = math.nan if isinstance(truth, str | bytes) else float(truth)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"prediction {self.id}: truth must be a number, but it is {truth!r:.60}.")
        return number

    def _option(self, truth: Any, options: Sequence[str]) -> str:
        if isinstance(truth, str) and truth in options:
            return truth
        with contextlib.suppress(TypeError):  # whole numbers, those of arrays included, are indices
            if not isinstance(truth, bool) and operator.index(truth) in range(len(options)):
                return options[operator.index(truth)]
        raise ValueError(
            f"prediction {self.id}: truth must be one of {', '.join(map(repr, options))} or the index of one, 0 to "
            f"{len(options) - 1}, but it is {truth!r:.60}."
        )

    def _commit(self, _: ipywidgets.Button) -> None:
        if self.button.disabled:
            return
        if self.answer.value is None:
            self.status.value = "Choose an option first."
            return
        self.committed = self.answer.value
        record.write("predictions", self.id, {"committed": self.committed, "truth": None})
        self.status.value = inline_html(f"✓ Committed: {self._say(self.committed)}. Run the next cell.")

    def _restore(self) -> None:
        entry = record.read()["predictions"].get(self.id, {})
        earlier = entry.get("committed")
        fits = isinstance(earlier, float) if self.options is None else earlier in self.options
        if not fits:  # nothing was committed, or the question has changed since
            return
        self.committed = self.answer.value = earlier
        self.status.value = inline_html(f"✓ Committed earlier: {self._say(earlier)}.")
        if entry["truth"] is not None:
            self._close(f"You predicted: {self._say(earlier)}, and have seen the answer.")

    def _close(self, reason: str) -> None:
        self.answer.disabled = self.button.disabled = True
        self.status.value = inline_html(reason)

    def _say(self, answer: float | str) -> str:
        return answer if isinstance(answer, str) else f"{answer:.4g}{self.unit}"

    def _judge(self, committed: Any, truth: Any) -> str:
        if isinstance(truth, str):
            return "You were right." if committed == truth else "They differ."
        if self._say(committed) == self._say(truth):
            return "You were right."
        share = f", which is {relative_error(committed, truth):.0%} of the answer" if truth else ""
        side = "high" if committed > truth else "low"
        return f"Your number is too {side} by {self._say(abs(committed - truth))}{share}."


def predict(id: str, question: str, options: Sequence[str] | None = None, unit: str | None = None) -> Prediction:
    """Ask for a prediction, before the cell that shows the result.

    Args:
      id: lesson and name, such as "02.nudge".
      question: plain text, with `code` and $mathematics$.
      options: plain text, without mathematics; a number is asked for if there are none.
      unit: of the number, such as "steps".

    Returns:
      The prediction; its method `reveal` compares it with the truth.

    Raises:
      TypeError, ValueError: if an argument is not of this form.
    """
    prediction = Prediction(id, question, options, unit)
    show_widget(prediction.form, "\n".join([question, *_listed(options or ())]))
    return prediction


def _require_question(id: Any, question: Any, options: Any, unit: Any) -> None:
    if not isinstance(id, str) or not re.fullmatch(r"\d\d\.[a-z][a-z0-9_]*", id):
        raise ValueError(f'id must be the number of the lesson and a name, such as "02.nudge", but it is {id!r:.60}.')
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"prediction {id}: question must be a text, but it is {question!r:.60}.")
    if not isinstance(unit, str | None):
        raise TypeError(f"prediction {id}: unit must be a text, but it is {unit!r:.60}.")
    if options is None:
        return
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise TypeError(f"prediction {id}: options must be a list of texts, but they are {options!r:.60}.")
    if len(set(options)) != len(options) or len(options) < 2 or not all(option.strip() for option in options):
        raise ValueError(f"prediction {id}: options must be at least two different texts, but they are {options!r}.")
    if any("$" in option for option in options):
        raise ValueError(f"prediction {id}: options are plain text, without $ (write α)")
    if any(0xD800 <= ord(letter) < 0xE000 for option in options for letter in option):
        raise ValueError(f"prediction {id}: options hold half of a surrogate pair, which is not a character.")


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
    forms = [question_form(f"{lesson}.{number}", question) for number, question in enumerate(questions, start=1)]
    plain = "\n\n".join("\n".join([question.prompt, *_listed(question.options)]) for question in questions)
    show_widget(ipywidgets.VBox(forms), plain)


def question_form(key: str, question: Question) -> ipywidgets.VBox:
    """A question with its answer from an earlier run, if there is one: prompt, options, button and feedback.

    Args:
      key: of the answer in the record, such as "02.1".
      question: what to ask.
    """
    answer = _choice(question.options, "Your answer")
    button = ipywidgets.Button(description="Check", tooltip="Check this answer")
    feedback = ipywidgets.HTMLMath()

    def tell() -> None:
        mark = "✓ Right." if answer.index == question.answer else "✗ Not quite."
        feedback.value = f"<strong>{mark}</strong> {inline_html(question.feedback[answer.index])}"

    def check(_: ipywidgets.Button) -> None:
        if answer.index is None:
            feedback.value = "Choose an option first."
            return
        record.write("quiz", key, answer.index)
        tell()

    button.on_click(check)
    earlier = record.read()["quiz"].get(key)
    if earlier in range(len(question.options)):
        answer.index = earlier
        tell()
    return ipywidgets.VBox([ipywidgets.HTMLMath(inline_html(question.prompt)), answer, button, feedback])


def _choice(options: Sequence[str], label: str) -> ipywidgets.RadioButtons:
    wide = ipywidgets.Layout(width="auto")  # long options must not be cut
    return ipywidgets.RadioButtons(options=list(options), value=None, description=label, layout=wide)


def _listed(options: Sequence[str]) -> list[str]:
    return [f"  ( ) {option}" for option in options]
