"""A prediction is committed before the answer; a quiz explains each option; a figure follows its sliders."""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from toy import QUIZ

from metalearn import plots
from metalearn.course import explore, predict, quiz
from metalearn.course.exercises import exercise
from metalearn.course.exercises.exercise import Guess
from metalearn.course.records import record
from metalearn.course.widgets.explorer import Explorer
from metalearn.course.widgets.forms import _without_verdict, alive, quiz_form, relative_error

pytestmark = pytest.mark.usefixtures("progress_file", "toy_lesson")

OPTIONS = ("grows", "shrinks", "stays")


def _choice():
    return predict("99.choice", "What does $x$ do?", options=OPTIONS)


def commit(prediction, answer):
    """What the browser does."""
    prediction.form.answers = [answer]


def _number():
    return predict("99.number", "How many `steps`?", unit="steps")


# --- predict -------------------------------------------------------------------------------------------------


def test_the_question_is_shown_in_plain_text_too(capsys):
    _choice()
    assert capsys.readouterr().out == "What does $x$ do?\n  ( ) grows\n  ( ) shrinks\n  ( ) stays\n"


def test_what_is_asked_reaches_the_browser():
    (choice,), (number,) = _choice().form.fields, _number().form.fields
    assert (choice["prompt"], choice["options"]) == ("What does $x$ do?", list(OPTIONS))
    assert (number["prompt"], number["unit"]) == ("How many <code>steps</code>?", "steps")
    assert "options" not in number


def test_nothing_is_chosen_for_the_learner():
    for prediction in (_choice(), _number()):
        assert prediction.form.answers == [None]
        assert prediction.committed is None
    assert record.read()["predictions"] == {}


@pytest.mark.parametrize("truth", ["shrinks", 1, np.int32(1), np.argmin([2, 1, 3]), jnp.argmin(jnp.array([2, 1, 3]))])
@pytest.mark.parametrize(
    ("chosen", "judgement"),
    [
        ("shrinks", "**✓ Right.** You predicted shrinks."),
        ("grows", "**✗ Not this time.** You predicted grows. The answer is **shrinks**."),
    ],
)
def test_a_choice_against_the_truth(said, chosen, judgement, truth):
    prediction = _choice()
    commit(prediction, OPTIONS.index(chosen))
    assert prediction.form.said == [f"Committed: {chosen}. Run the next cell."]
    said()
    prediction.reveal(truth)
    assert said() == judgement
    assert record.read()["predictions"] == {"99.choice": {"committed": chosen, "truth": "shrinks"}}


@pytest.mark.parametrize(
    ("committed", "truth", "judgement"),
    [
        (
            4,
            5,
            "✗ Not this time.** You predicted 4 steps. The answer is **5 steps**. Your number is too low by 1 ",
        ),
        (6, 5, "Your number is too high by 1 steps, which is 20% of the answer."),
        (-4, -5, "Your number is too high by 1 steps, which is 20% of the answer."),
        (1, 0, "Your number is too high by 1 steps."),
        (500, 5, "A hundredth of your number would be right: was one of the two in per cent?"),
        (0.051, 5, "A hundred times your number would be right: was one of the two in per cent?"),
        (0, 0, "**✓ Right.** You predicted 0 steps."),
        (5, 5, "**✓ Right.** You predicted 5 steps."),
        (0.6, 0.59, "**✓ Right.** You predicted 0.6 steps. The answer is **0.59 steps**."),
    ],
)
def test_a_number_against_the_truth(said, committed, truth, judgement):
    prediction = _number()
    commit(prediction, committed)
    said()
    prediction.reveal(np.float64(truth))
    assert judgement in said()
    assert record.read()["predictions"]["99.number"] == {"committed": committed, "truth": truth}


@pytest.mark.parametrize(
    ("unit", "number", "doubt"),
    [
        ("%", 0.5, "did you mean 50 %?"),
        ("per cent", 0.5, "did you mean 50 per cent?"),
        ("fraction", 59, "did you mean 0.59?"),
        ("%", 50, ""),
        ("fraction", 0.5, ""),
        ("steps", 0.5, ""),
    ],
)
def test_a_number_in_the_wrong_unit_is_asked_about(unit, number, doubt):
    prediction = predict("99.number", "How much?", unit=unit)
    commit(prediction, number)
    (said,) = prediction.form.said
    assert (doubt in said) if doubt else ("mean" not in said)
    assert said.startswith("Committed: ") and prediction.committed == number


@pytest.mark.parametrize("nothing", [math.nan, math.inf, None])
def test_what_is_no_number_is_not_committed(nothing):
    prediction = _number()
    commit(prediction, nothing)
    assert prediction.committed is None
    assert record.read()["predictions"] == {}


def test_the_answer_says_why_and_where_to_read_again(said):
    ask = partial(predict, question="What?", options=OPTIONS, why="Because $x$ does.", read="The section")
    wrong, right, passed_by = ask("99.wrong"), ask("99.right"), ask("99.passed_by")
    commit(wrong, 0)
    commit(right, 1)
    said()
    wrong.reveal(1)
    assert said().endswith('The answer is **shrinks**. Because $x$ does. Read again: "The section".')
    right.reveal(1)
    assert said() == "**✓ Right.** You predicted shrinks. Because $x$ does."
    passed_by.reveal(1)
    assert said() == "**○ No prediction was recorded.** The answer is **shrinks**. Because $x$ does."
    commit(other := _choice(), 0)
    said()
    other.reveal(1, why="Now you know.", read="Elsewhere")
    assert said().endswith('Now you know. Read again: "Elsewhere".')


def test_a_prediction_may_stand_in_the_lessons_module(said, monkeypatch):
    guess = Guess("99.kept", "What?", OPTIONS, why="Because.")
    monkeypatch.setattr(exercise._module("99"), "PREDICTIONS", (guess,), raising=False)
    prediction = predict("99.kept")
    assert said() == "What? ( ) grows ( ) shrinks ( ) stays"
    commit(prediction, 0)
    prediction.reveal("shrinks")
    assert "Because." in said()
    with pytest.raises(ValueError, match=r"no prediction has the id '99.lost'; the lesson has 99.kept"):
        predict("99.lost")


def test_a_commitment_can_change_until_the_answer_is_shown(said):
    prediction = _choice()
    for chosen in (0, 2):
        commit(prediction, chosen)
    prediction.reveal(1)
    assert prediction.form.closed
    commit(prediction, 1)  # a click that was under way
    said()
    prediction.reveal(1)
    assert "You predicted stays." in said()
    assert record.read()["predictions"]["99.choice"]["committed"] == "stays"


def test_run_all_without_a_prediction_tells_the_answer_and_keeps_nothing(said):
    for prediction, answer in ((_choice(), "shrinks"), (_number(), "1 steps")):
        said()
        prediction.reveal(1)
        assert said() == f"**○ No prediction was recorded.** The answer is **{answer}**."
        assert prediction.form.closed
    assert record.read()["predictions"] == {}


def test_a_commitment_survives_a_new_run(said):
    commit(_number(), 7.0)

    again = _number()
    assert again.form.answers == [7.0]
    assert again.form.said == ["Committed earlier: 7 steps."]
    assert not again.form.closed
    again.reveal(7)

    last = _number()
    assert last.form.closed
    assert last.form.said == ["You predicted 7 steps, and have seen the answer."]
    said()
    last.reveal(7)
    assert said() == "**✓ Right.** You predicted 7 steps."


@pytest.mark.parametrize("stored", [3.0, "explodes"])
def test_a_commitment_to_a_question_that_changed_is_forgotten(stored):
    record.write("predictions", "99.choice", {"committed": stored, "truth": "explodes"})
    prediction = _choice()
    assert prediction.committed is None
    assert not prediction.form.closed


def test_mistakes_of_a_lesson_are_errors():
    with pytest.raises(ValueError, match="without"):
        predict("99.choice", "What?", options=("$a$", "b"))
    with pytest.raises(ValueError, match=r"truth must be one of 'grows', 'shrinks', 'stays' .* but it is 'explodes'"):
        _choice().reveal("explodes")


def test_relative_error():
    assert relative_error(3.0, 2.0) == relative_error(-1.0, -2.0) == 0.5
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(1.0, 0.0) == float("inf")


def test_markup_is_shown_as_it_is():
    prediction = predict("99.markup", "Is <b>x</b> `<y>`?", options=["<i>yes</i>", "no"])
    commit(prediction, 0)
    assert prediction.form.fields[0]["prompt"] == "Is &lt;b&gt;x&lt;/b&gt; <code>&lt;y&gt;</code>?"
    assert prediction.form.said == ["Committed: &lt;i&gt;yes&lt;/i&gt;. Run the next cell."]
    assert "<i>" not in prediction.form.stand_in()


# --- quiz ----------------------------------------------------------------------------------------------------


def test_each_option_has_its_own_feedback_and_an_answer_is_stored():
    form = quiz_form("99", QUIZ)
    assert form.fields[0] == {
        "kind": "Question 1",
        "prompt": "What is $1 + 1$?",
        "options": ["1", "2"],
        "right": 1,
        "feedback": ["Count again.", "<code>2</code>."],  # the form says "Right" already
    }
    assert form.answers == [None] * 3
    form.answers = [0, None, None]
    form.answers = [0, None, 1]
    assert record.read()["quiz"] == {"99.1": 0, "99.3": 1}


@pytest.mark.parametrize(
    ("feedback", "rest"),
    [
        ("Right: the value was recorded.", "The value was recorded."),
        ("Yes: $x$ is.", "$x$ is."),
        ("No task is steeper.", "No task is steeper."),
        ("Not quite: count.", "Count."),
    ],
)
def test_a_verdict_is_said_once(feedback, rest):
    assert _without_verdict(feedback) == rest


def test_an_answer_survives_a_new_run_unless_its_option_is_gone():
    record.write("quiz", "99.1", 0)
    record.write("quiz", "99.2", 5)
    assert quiz_form("99", QUIZ).answers == [0, None, None]


def test_markup_in_a_prompt_is_shown_as_it_is():
    assert quiz_form("99", QUIZ).fields[1]["prompt"] == "Is $a &lt; b$?"


def test_quiz_shows_all_questions(capsys):
    quiz("99")
    shown = capsys.readouterr().out
    assert [question.prompt in shown for question in QUIZ] == [True] * 3
    assert "  ( ) β" in shown


def test_a_page_with_forms_gets_one_script_and_any_other_none():
    stand_in = quiz_form("99", QUIZ).stand_in()
    page = alive(stand_in)
    assert page.startswith(stand_in) and page.count("<script") == 1
    assert alive("<p>nothing</p>") == "<p>nothing</p>"


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
        {"name": "step_size", "label": "step size", "min": 0.1, "max": 1.0, "step": 0.1},
        {"name": "num_steps", "label": "number of steps", "min": 1, "max": 10, "step": 1},
        {"name": "method", "label": "method", "options": ["maml", "reptile"]},
    ]
    assert explorer.title == "Try it: step size, number of steps and method"
    assert Explorer(lambda height: _gray(height), "a bar", {"height": (0.0, 1.0, 0.1)}, "Higher").title == "Higher"
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
