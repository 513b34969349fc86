"""What a learner calls says in words what is wrong with a malformed argument, and names it."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from toy import MEAN, scaled_mean

from metalearn.course import check, explore, hint, playground, predict, progress, quiz
from metalearn.course.exercises.grading import grade
from metalearn.course.exercises.hidden_tests import hidden_test

pytestmark = pytest.mark.usefixtures("progress_file", "toy_lesson")

NO_TEXT = [3, 3.5, b"02.x", ["99.pair"], scaled_mean, np.zeros(2)]


def named(value):
    """An id without an address, which would differ from process to process."""
    return getattr(value, "__name__", None) or repr(value)


@pytest.mark.parametrize("value", [None, *NO_TEXT], ids=named)
@pytest.mark.parametrize(
    "call",
    [lambda id: check(id, scaled_mean), hint, lambda id: hidden_test(id, scaled_mean)],
    ids=["check", "hint", "hidden"],
)
def test_the_id_of_an_exercise_is_a_text(call, value):
    with pytest.raises(TypeError, match=r'exercise_id, the first argument, .* such as "02.meta_gradient", but it is'):
        call(value)


@pytest.mark.parametrize(
    ("call", "value"), [(quiz, None), *((call, value) for call in (quiz, progress) for value in NO_TEXT)]
)
def test_the_number_of_a_lesson_is_a_text(call, value):
    with pytest.raises(TypeError, match='lesson must be a number in quotes, such as "02", but it is'):
        call(value)


@pytest.mark.parametrize("name", [None, "adapt_a_cosine", *NO_TEXT], ids=named)
def test_a_playground_is_one_of_those_there_are(name):
    with pytest.raises(
        ValueError, match="name must be one of 'adapt_a_sine', 'perturb_the_problem', 'draw_five_symbols', but"
    ):
        playground(name)


@pytest.mark.parametrize("seed", [None, "0", -1, 0.5, True, [0]], ids=named)
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
        check("99.scaled_mean", scaled_mean, seed)


class Awkward:
    """Nothing may be asked of it."""

    @property
    def shape(self):
        raise RuntimeError("no shape")

    def __repr__(self):
        raise RuntimeError("no text")

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


def test_whatever_is_handed_in_is_named():
    assert "got an Awkward. Write the function's name alone" in grade(MEAN, Awkward()).message
    assert "got an Awkward." in grade(MEAN, lambda points, scale: Awkward()).message
    assert "got a list of an Awkward." in grade(MEAN, lambda points, scale: [Awkward()]).message
    assert "got `None`. Write the function's name alone" in grade(MEAN, None).message


def ask(id="99.x", question="What?", options=None, unit=None, **more):
    return predict(id, question, options, unit, **more)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"id": None}, "id must be the number of the lesson and a name"),
        ({"id": "x"}, "id must be the number of the lesson and a name"),
        ({"id": "99.X y"}, "id must be the number of the lesson and a name"),
        ({"question": None}, r"no prediction has the id '99\.x'; the lesson has none"),
        ({"question": 3}, "question must be a text"),
        ({"why": 3}, "why must be a text"),
        ({"read": None}, "read must be a text"),
        ({"question": " "}, "question must be a text"),
        ({"unit": 3}, "unit must be a text"),
        ({"options": "ab"}, "options must be a list of texts"),
        ({"options": 3}, "options must be a list of texts"),
        ({"options": [1, 2]}, "options must be a list of texts"),
        ({"options": {"a": 1}}, "options must be a list of texts"),
        ({"options": []}, "at least two different texts"),
        ({"options": ["a"]}, "at least two different texts"),
        ({"options": ["a", "a"]}, "at least two different texts"),
        ({"options": ["a", " "]}, "at least two different texts"),
        ({"options": ["a", "\ud800"]}, "half of a surrogate pair"),
    ],
)
def test_a_prediction_that_cannot_be_asked_is_refused(arguments, words, progress_file):
    with pytest.raises((TypeError, ValueError), match=words):
        ask(**arguments)
    assert list(progress_file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "truth", [None, "5", [1.0, 2.0], 1j, float("nan"), np.nan, 10**400, ask], ids=lambda t: f"{t!r:.9}"
)
def test_a_number_is_compared_with_a_number(truth):
    with pytest.raises(ValueError, match=r"prediction 99\.x: truth must be a number, but it is"):
        ask().reveal(truth)


@pytest.mark.parametrize("truth", [None, "c", -1, 2, 0.0, 1.7, True, float("nan"), [0]], ids=named)
def test_a_choice_is_compared_with_one_of_the_options(truth):
    with pytest.raises(ValueError, match="truth must be one of 'a', 'b' or the index of one, 0 to 1, but it is"):
        ask(options=["a", "b"]).reveal(truth)


def blank(**values):
    return Figure()


@pytest.mark.parametrize(
    ("draw", "alt", "controls", "words"),
    [
        (None, "a", {"x": (0, 1, 1)}, "draw must be a function"),
        (Figure(), "a", {"x": (0, 1, 1)}, "draw must be a function"),
        (lambda y: Figure(), "a", {"x": (0, 1, 1)}, "draw must accept the controls x by name"),
        (lambda x, y: Figure(), "a", {"x": (0, 1, 1)}, "draw must accept the controls x by name"),
        (blank, None, {"x": (0, 1, 1)}, "alt must say what the figure shows"),
        (blank, 3, {"x": (0, 1, 1)}, "alt must say what the figure shows"),
        (blank, "a", {}, "at least one control"),
        *(
            (blank, "a", {"x": control}, "x: ")
            for control in (
                *(3, None, "abc", (), (0, 1), (0, 1, 1, 0, 0), ("a", "b", "c"), (None, 1, 1), (0, 1, True), (1j, 2, 1)),
                *(
                    (1, 0, 1),
                    (0, 0, 1),
                    (0, 1, 0),
                    (0, 1, -1),
                    (0, 1, 1, 2),
                    (0, float("nan"), 1),
                    (0, float("inf"), 1),
                ),
                *([], [None], [[1]], {"a": 1}),
            )
        ),
    ],
)
def test_a_figure_that_cannot_be_explored_is_refused(draw, alt, controls, words):
    with pytest.raises((TypeError, ValueError), match=words):
        explore(draw, alt, **controls)
