"""A prediction is committed before the answer; a quiz explains each option; a figure follows its sliders."""

import ipywidgets
import numpy as np
import pytest
from toy import QUIZ

from metalearn import plots
from metalearn.course import explore, predict, quiz
from metalearn.course.records import record
from metalearn.course.widgets.explorer import Explorer
from metalearn.course.widgets.forms import question_form, relative_error

pytestmark = pytest.mark.usefixtures("progress_file", "toy_lesson")

OPTIONS = ("grows", "shrinks", "stays")


def _choice():
    return predict("99.choice", "What does $x$ do?", options=OPTIONS)


def _number():
    return predict("99.number", "How many `steps`?", unit="steps")


# --- predict -------------------------------------------------------------------------------------------------


def test_the_question_is_shown_in_plain_text_too(capsys):
    _choice()
    assert capsys.readouterr().out == "What does $x$ do?\n  ( ) grows\n  ( ) shrinks\n  ( ) stays\n"


def test_every_control_has_a_label():
    for prediction in (_choice(), _number()):
        assert "Your prediction" in prediction.answer.description
        assert prediction.button.description == "Commit"
        assert prediction.form.children[1:3] == (prediction.answer, prediction.button)
    assert prediction.form.children[0].value == "How many <code>steps</code>?"
    assert "(steps)" in prediction.answer.description


def test_nothing_is_chosen_for_the_learner():
    prediction = _choice()
    assert prediction.answer.value is None
    prediction.button.click()
    assert prediction.status.value == "Choose an option first."
    assert record.read()["predictions"] == {}


@pytest.mark.parametrize("truth", ["shrinks", 1, np.int32(1)])
@pytest.mark.parametrize(("chosen", "judgement"), [("shrinks", "You were right."), ("grows", "They differ.")])
def test_a_choice_against_the_truth(said, chosen, judgement, truth):
    prediction = _choice()
    prediction.answer.value = chosen
    prediction.button.click()
    assert prediction.status.value == f"✓ Committed: {chosen}. Run the next cell."
    said()
    prediction.reveal(truth)
    assert said() == f"You predicted: {chosen}. The answer: shrinks. {judgement}"
    assert record.read()["predictions"] == {"99.choice": {"committed": chosen, "truth": "shrinks"}}


@pytest.mark.parametrize(
    ("committed", "truth", "judgement"),
    [
        (4, 5, "Your number is too low by 1 steps, which is 20% of the answer."),
        (6, 5, "Your number is too high by 1 steps, which is 20% of the answer."),
        (5, 5, "You were right."),
        (-4, -5, "Your number is too high by 1 steps, which is 20% of the answer."),
        (1, 0, "Your number is too high by 1 steps."),
        (0, 0, "You were right."),
    ],
)
def test_a_number_against_the_truth(said, committed, truth, judgement):
    prediction = _number()
    prediction.answer.value = committed
    prediction.button.click()
    said()
    prediction.reveal(np.float32(truth))
    assert said() == f"You predicted: {committed} steps. The answer: {truth} steps. {judgement}"
    assert record.read()["predictions"]["99.number"] == {"committed": committed, "truth": truth}


def test_a_commitment_can_change_until_the_answer_is_shown(said):
    prediction = _choice()
    for chosen in ("grows", "stays"):
        prediction.answer.value = chosen
        prediction.button.click()
    prediction.reveal(1)
    assert prediction.answer.disabled and prediction.button.disabled
    prediction.answer.value = "shrinks"
    prediction.button.click()  # a click that was under way
    said()
    prediction.reveal(1)
    assert "You predicted: stays." in said()
    assert record.read()["predictions"]["99.choice"]["committed"] == "stays"


def test_run_all_without_a_prediction_tells_the_answer_and_keeps_nothing(said):
    for prediction, answer in ((_choice(), "shrinks"), (_number(), "1 steps")):
        prediction.answer.value = prediction.answer.value  # chosen, perhaps, but never committed
        said()
        prediction.reveal(1)
        assert said() == f"No prediction was recorded. The answer: {answer}."
        assert prediction.button.disabled
    assert record.read()["predictions"] == {}


def test_a_commitment_survives_a_new_run(said):
    first = _number()
    first.answer.value = 7.0
    first.button.click()

    again = _number()
    assert again.answer.value == 7.0
    assert again.status.value == "✓ Committed earlier: 7 steps."
    assert not again.button.disabled
    again.reveal(7)

    last = _number()
    assert last.button.disabled and last.answer.disabled
    assert last.status.value == "You predicted: 7 steps, and have seen the answer."
    said()
    last.reveal(7)
    assert said() == "You predicted: 7 steps. The answer: 7 steps. You were right."


@pytest.mark.parametrize("stored", [3.0, "explodes"])
def test_a_commitment_to_a_question_that_changed_is_forgotten(stored):
    record.write("predictions", "99.choice", {"committed": stored, "truth": "explodes"})
    prediction = _choice()
    assert prediction.committed is None
    assert not prediction.button.disabled


def test_mistakes_of_a_lesson_are_errors():
    with pytest.raises(ValueError, match="without"):
        predict("99.choice", "What?", options=("$a$", "b"))
    with pytest.raises(ValueError, match=r"truth must be one of 'grows', 'shrinks', 'stays' .* but it is 'explodes'"):
        _choice().reveal("explodes")


def test_relative_error():
    assert relative_error(3.0, 2.0) == relative_error(-1.0, -2.0) == 0.5
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(1.0, 0.0) == float("inf")


# --- quiz ----------------------------------------------------------------------------------------------------


def test_each_option_has_its_own_feedback():
    form = question_form("99.1", QUIZ[0])
    prompt, answer, button, feedback = form.children
    assert prompt.value == "What is $1 + 1$?"
    assert isinstance(prompt, ipywidgets.HTMLMath) and isinstance(feedback, ipywidgets.HTMLMath)
    assert answer.description == "Your answer"
    assert (answer.value, feedback.value) == (None, "")

    button.click()
    assert feedback.value == "Choose an option first."
    assert record.read()["quiz"] == {}

    answer.value = "1"
    assert feedback.value == "Choose an option first."  # not told before it is asked for
    button.click()
    assert feedback.value == "<strong>✗ Not quite.</strong> Count again."
    answer.value = "2"
    button.click()
    assert feedback.value == "<strong>✓ Right.</strong> Yes, <code>2</code>."
    assert record.read()["quiz"] == {"99.1": 1}


def test_an_answer_survives_a_new_run_unless_its_option_is_gone():
    record.write("quiz", "99.1", 0)
    record.write("quiz", "99.2", 5)
    answer, feedback = question_form("99.1", QUIZ[0]).children[1::2]
    assert answer.index == 0
    assert "Count again" in feedback.value
    assert question_form("99.2", QUIZ[1]).children[1].index is None


def test_markup_in_a_prompt_is_shown_as_it_is():
    assert question_form("99.2", QUIZ[1]).children[0].value == "Is $a &lt; b$?"


def test_quiz_shows_all_questions(capsys):
    quiz("99")
    shown = capsys.readouterr().out
    assert [question.prompt in shown for question in QUIZ] == [True] * 3
    assert "  ( ) β" in shown


# --- explore -------------------------------------------------------------------------------------------------


def _gray(height, **_):
    figure, (axes,) = plots.subplots()
    axes.bar(0, height)
    axes.set_ylim(0, 1)
    return figure


def test_the_picture_follows_the_slider():
    explorer = Explorer(lambda height: _gray(height), "a bar", {"height": (0.0, 1.0, 0.1, 0.5)})
    first = explorer.svg
    explorer.values = {"height": 0.9}
    assert explorer.svg != first
    explorer.values = {"height": 0.5}
    assert explorer.svg == first


def test_controls_start_where_they_should_and_each_first_picture_is_drawn_once():
    drawn = []
    explorer = Explorer(
        lambda **values: drawn.append(values) or _gray(0.5),
        "a bar",
        {"step_size": (0.1, 1.0, 0.1), "num_steps": (1, 10, 1, 3), "method": ["maml", "reptile"]},
    )
    assert drawn == [{"step_size": 0.1, "num_steps": 3, "method": "maml"}]
    assert explorer.controls == [
        {"name": "step_size", "min": 0.1, "max": 1.0, "step": 0.1},
        {"name": "num_steps", "min": 1, "max": 10, "step": 1},
        {"name": "method", "options": ["maml", "reptile"]},
    ]
    assert explorer.alt == "a bar"


def test_a_browser_that_writes_1_for_a_float_changes_nothing():
    drawn = []
    explorer = Explorer(lambda x, n: drawn.append((x, n)) or _gray(0.5), "a bar", {"x": (0, 2, 0.5), "n": (0, 2, 1)})
    explorer.values = {"x": 1, "n": 1}
    assert [tuple(map(type, values)) for values in drawn] == [(float, int)] * 2


def test_an_error_while_drawing_is_told_and_the_last_picture_stays():
    def draw(height):
        if height > 5:
            raise ValueError("too <high>")
        return _gray(height / 10)

    explorer = Explorer(draw, "a bar", {"height": (0, 10, 1)})
    picture = explorer.svg
    explorer.values = {"height": 6}
    assert "ValueError: too <high>" in explorer.trouble  # shown as text, never as HTML
    assert explorer.svg == picture
    explorer.values = {"height": 1}
    assert explorer.trouble == ""


def test_explore_shows_its_text_where_there_is_no_notebook(capsys):
    assert explore(_gray, "a bar", height=(0.0, 1.0, 0.1)) is None
    assert capsys.readouterr().out == "a bar\n"


def test_mistakes_of_a_figure_are_errors():
    with pytest.raises(ValueError, match="alt must say"):
        explore(_gray, " ", height=(0.0, 1.0, 0.1))
    with pytest.raises(ValueError, match="height: a range is"):
        explore(_gray, "a bar", height=(0.0, 1.0))
