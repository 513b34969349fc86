"""What an exercise is: one definition gives its check, its hints and the hidden tests of a classroom.

A module `metalearn.course.lessons.lesson_NN` defines `EXERCISES` (a tuple of `Exercise`) and `QUIZ` (a tuple
of `Question`); the functions below find them by id.
"""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from metalearn.course import lessons


@dataclass(frozen=True)
class Misconception:
    """A wrong implementation that people really write.

    Attributes:
      name: a short phrase, unique in its exercise ("first-order gradient").
      function: the wrong implementation, with the arguments of the reference.
      diagnosis: Markdown that names the mistake and nudges, without giving the answer.
    """

    name: str
    function: Callable[..., Any]
    diagnosis: str


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function for the learner to write, and all that is needed to judge it.

    Attributes:
      id: lesson and name, such as "02.meta_gradient".
      title: one line.
      difficulty: 1, 2 or 3.
      minutes: time that a learner needs.
      reference: a correct implementation; the library's own function wherever there is one. It returns a pytree
        of arrays or numbers.
      instances: draws the tuples of arguments that the function is judged on from a generator. They include
        shapes and pytrees that the lesson does not show.
      misconceptions: wrong implementations, the likeliest first.
      alternatives: correct implementations written differently; they guard against a check that is too strict.
      hints: Markdown, in order; the last one is still not the solution.
      expected: Markdown that shows what a correct solution prints.
      relatives: further wrong implementations, each after what its result is, a text that completes "Your result
        is ...". They are for mistakes that need no more than that; a multiple of such a result is recognized as well.
      rtol: allowed difference relative to each number.
      atol: allowed difference relative to the largest number of an array.
      judge: for an exercise with many right answers, (function, *arguments) -> (result, text). The result is compared
        in place of the function's own. The text is shown if all is right, and if no misconception gives the result.

    Raises:
      ValueError: if a field is empty or out of range, or two misconceptions share a name.
    """

    id: str
    title: str
    difficulty: int
    minutes: int
    reference: Callable[..., Any]
    instances: Callable[[np.random.Generator], list[tuple]]
    misconceptions: tuple[Misconception, ...]
    alternatives: tuple[Callable[..., Any], ...]
    hints: tuple[str, ...]
    expected: str
    relatives: tuple[tuple[str, Callable[..., Any]], ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-6
    judge: Callable[..., tuple[Any, str]] | None = None

    def __post_init__(self) -> None:
        """Reject an incomplete definition where it is written, not where a learner meets it."""
        if not re.fullmatch(r"\d\d\.[a-z][a-z0-9_]*", self.id):
            raise ValueError(f"id must look like '02.meta_gradient', got {self.id!r}")
        names = [misconception.name for misconception in self.misconceptions]
        demands = {
            "title and expected must not be empty": self.title.strip() and self.expected.strip(),
            "difficulty must be 1, 2 or 3": self.difficulty in (1, 2, 3),
            "minutes must be positive": self.minutes > 0,
            "misconceptions needs at least one": names,
            "two misconceptions share a name": len(set(names)) == len(names),
            "every misconception needs a name and a diagnosis": all(
                misconception.name.strip() and misconception.diagnosis.strip() for misconception in self.misconceptions
            ),
            "alternatives needs at least one": self.alternatives,
            "hints needs at least one, none of them empty": self.hints and all(map(str.strip, self.hints)),
            "rtol and atol must be positive": self.rtol > 0 and self.atol > 0,
        }
        for demand, met in demands.items():
            if not met:
                raise ValueError(f"exercise {self.id}: {demand}")

    @property
    def lesson(self) -> str:
        """The number of its lesson, such as "02"."""
        return self.id[:2]


@dataclass(frozen=True)
class Question:
    """A multiple-choice question at the end of a lesson.

    Attributes:
      prompt: plain text, with `code` and $mathematics$.
      options: plain text without $mathematics$, which the labels of buttons cannot show (write α, not $\\alpha$).
      answer: index of the right option.
      feedback: one sentence for each option, like the prompt.

    Raises:
      ValueError: if there are fewer than two options, no feedback for one, an answer outside them, or a $.
    """

    prompt: str
    options: tuple[str, ...]
    answer: int
    feedback: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject a question that cannot be answered."""
        demands = {
            "needs at least two options, all different": len(set(self.options)) == len(self.options) >= 2,
            "options are plain text, without $": not any("$" in option for option in self.options),
            "answer must be the index of an option": 0 <= self.answer < len(self.options),
            "needs one sentence of feedback for each option": len(self.feedback) == len(self.options)
            and all(map(str.strip, self.feedback)),
        }
        for demand, met in demands.items():
            if not met:
                raise ValueError(f"question {self.prompt!r}: {demand}")


@dataclass(frozen=True)
class Guess:
    """What a learner predicts before the result is shown. Kept here, its answer stands in no cell of the lesson.

    Attributes:
      id: lesson and name, such as "02.nudge".
      question: like the prompt of a `Question`.
      options: like those of a `Question`; a number is asked for if there are none.
      unit: of the number, such as "steps".
      why: shown with the answer: why it is so, like the prompt.
      read: shown to whoever was wrong: the passage to read again, by its heading.

    Raises:
      TypeError, ValueError: if a field is not of this form.
    """

    id: str
    question: str
    options: tuple[str, ...] | list[str] | None = None
    unit: str | None = None
    why: str = ""
    read: str = ""

    def __post_init__(self) -> None:
        """Reject a question that cannot be asked."""
        if not isinstance(self.id, str) or not re.fullmatch(r"\d\d\.[a-z][a-z0-9_]*", self.id):
            raise ValueError(
                f'id must be the number of the lesson and a name, such as "02.nudge", but it is {self.id!r:.60}.'
            )
        if not isinstance(self.question, str) or not self.question.strip():
            raise ValueError(f"prediction {self.id}: question must be a text, but it is {self.question!r:.60}.")
        for name in ("unit", "why", "read"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name != "unit" or value is not None):
                raise TypeError(f"prediction {self.id}: {name} must be a text, but it is {value!r:.60}.")
        options = self.options
        if options is None:
            return
        if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
            raise TypeError(f"prediction {self.id}: options must be a list of texts, but they are {options!r:.60}.")
        demands = {
            f"options must be at least two different texts, but they are {options!r}.": (
                len(set(options)) == len(options) >= 2 and all(map(str.strip, options))
            ),
            "options are plain text, without $ (write α)": not any("$" in option for option in options),
            "options hold half of a surrogate pair, which is not a character.": not any(
                0xD800 <= ord(letter) < 0xE000 for option in options for letter in option
            ),
        }
        for demand, met in demands.items():
            if not met:
                raise ValueError(f"prediction {self.id}: {demand}")


def find(exercise_id: str) -> Exercise:
    """The exercise with this id.

    Raises:
      TypeError: if exercise_id is no string.
      ValueError: if there is none; the message lists the nearest ids.
    """
    if not isinstance(exercise_id, str):
        raise TypeError(
            "exercise_id, the first argument, must be the id that is written above the exercise, such as "
            f'"02.meta_gradient", but it is {_named(exercise_id)}.'
        )
    lesson = exercise_id.partition(".")[0]
    candidates = _module(lesson).EXERCISES if lesson in numbers() else ()
    for exercise in candidates:
        if exercise.id == exercise_id:
            return exercise
    known = [exercise.id for exercise in candidates or all_exercises()]
    near = difflib.get_close_matches(exercise_id, known, n=5, cutoff=0.3) or known
    raise ValueError(f"no exercise has the id {exercise_id!r}; near it: {', '.join(near) or 'none'}")


def quiz_of(lesson: str) -> tuple[Question, ...]:
    """The quiz of a lesson, given by its number such as "02".

    Raises:
      TypeError: if lesson is no string.
      ValueError: if there is no such lesson.
    """
    return _known(lesson).QUIZ


def exercises_of(lesson: str) -> tuple[Exercise, ...]:
    """The exercises of a lesson, in order; raises as `quiz_of` does."""
    return _known(lesson).EXERCISES


def prediction_of(prediction_id: str) -> Guess:
    """What a lesson asks under this id, such as "02.nudge".

    Raises:
      ValueError: if its lesson asks nothing under this id; the message lists what it asks.
    """
    lesson = prediction_id.partition(".")[0]
    guesses = getattr(_module(lesson), "PREDICTIONS", ()) if lesson in numbers() else ()
    for guess in guesses:
        if guess.id == prediction_id:
            return guess
    known = ", ".join(guess.id for guess in guesses) or "none"
    raise ValueError(f"no prediction has the id {prediction_id!r}; the lesson has {known}")


def all_exercises() -> tuple[Exercise, ...]:
    """Every exercise of every lesson, in order."""
    return tuple(exercise for lesson in numbers() for exercise in exercises_of(lesson))


def numbers() -> list[str]:
    """The numbers of the lessons that have exercises: "00", "01", ..."""
    modules = (module.name for module in pkgutil.iter_modules(lessons.__path__))
    return sorted(name.removeprefix("lesson_") for name in modules if name.startswith("lesson_"))


def _known(lesson: str) -> Any:
    if not isinstance(lesson, str):
        raise TypeError(f'lesson must be a number in quotes, such as "02", but it is {_named(lesson)}.')
    if lesson not in numbers():
        raise ValueError(f"no lesson has the number {lesson!r}; there are {', '.join(numbers()) or 'none'}")
    return _module(lesson)


def _named(value: Any) -> str:
    """A value in a message: itself where it is short, and otherwise its type."""
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def _module(lesson: str) -> Any:
    return importlib.import_module(f"{lessons.__name__}.lesson_{lesson}")
