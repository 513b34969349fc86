"""Predictions and quizzes in the browser: never a stale verdict or a broken sign, whatever happens to the kernel."""

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import RULES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from metalearn.course.exercises.exercise import Guess, quiz_of
from metalearn.course.publishing import builder
from metalearn.course.widgets import forms

CELLS = {
    "imports": "from metalearn import plots\nfrom metalearn.course import explore, predict, quiz",
    "figure": 'draw = lambda x: plots.lines([0, 1], {"y": [0, x]}, "x", "y")\nexplore(draw, "A line.", x=(0, 4, 1))',
    "choice": 'choice = predict("02.choice", "How much of $x$?", options=["all", "some", "none"], why="So it is.")',
    "number": 'number = predict("02.number", "How much?", unit="%")',
    "quiz": 'quiz("02")',
    "reveal": "choice.reveal(1)\nnumber.reveal(50.0)",
}
STOPPED = "The kernel was restarted or has stopped: run this cell again."
ASLEEP = "To answer, run this cell: its kernel was restarted or is not there."
QUESTION = quiz_of("02")[0]
RIGHT, WRONG = QUESTION.options[QUESTION.answer], QUESTION.options[QUESTION.answer - 1]

pytestmark = pytest.mark.slow


def radio(place, name):
    return place.get_by_role("radio", name=name, exact=True)


def see(place, text):
    place.get_by_text(text).first.wait_for()


def answer_all(notebook):
    """What a learner does; each verdict belongs to what is chosen."""
    choice, number, quiz = (notebook.cell(name) for name in ("choice", "number", "quiz"))
    radio(choice, "none").focus()
    notebook.page.keyboard.press("Space")
    notebook.page.keyboard.press("ArrowUp")  # one group, in which the arrow keys choose
    assert radio(choice, "some").is_checked()
    see(choice, "Committed: some. Run the next cell.")

    field = number.get_by_role("spinbutton", name="Your prediction (%)")
    assert field.input_value() == ""  # nothing is written for the learner
    number.get_by_role("button", name="Commit").click()
    see(number, "Write a number first")
    field.fill("0.5")
    notebook.page.keyboard.press("Enter")
    see(number, "did you mean 50 %?")

    quiz.get_by_role("button", name="Check").first.click()
    see(quiz, "Choose an option first.")
    radio(quiz, WRONG).check()
    quiz.get_by_role("button", name="Check").first.click()
    see(quiz, "✗ Not quite.")
    radio(quiz, RIGHT).check()
    assert quiz.get_by_text("Not quite").count() == 0  # the verdict was on the other option
    quiz.get_by_role("button", name="Check").first.click()
    see(quiz, "✓ Right.")
    assert radio(choice, "some").is_checked()  # each question is a group of its own


@pytest.mark.timeout(300)
def test_restart_reload_two_tabs_and_reopen(open_lab, tmp_path):
    folder = tmp_path / "written"
    folder.mkdir()
    cells = [new_code_cell(code, id=name) for name, code in CELLS.items()]
    nbformat.write(new_notebook(cells=cells, metadata=builder.NOTEBOOK_METADATA), folder / "ask.ipynb")
    with open_lab(folder) as lab:
        notebook = lab.open("ask.ipynb")
        for name in ("imports", "figure", "choice", "number", "quiz"):
            notebook.run(name, timeout=120)
        assert lab.page.get_by_text(ASLEEP).filter(visible=True).count() == 0
        answer_all(notebook)
        assert notebook.unreachable() == []
        for theme, width in (("Light", 1280), ("Dark", 768)):
            lab.look(theme, width)
            lab.read_through(f"forms-{theme}-{width}")
            assert not any(notebook.blemishes().values())
            assert notebook.barriers() == []
        lab.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        lab.page.wait_for_timeout(1000)

        notebook = lab.open("ask.ipynb")  # a reload: the kernel still has everything
        see(notebook.cell("choice"), "Committed: some.")
        assert radio(notebook.cell("choice"), "some").is_checked()
        see(notebook.cell("quiz"), "✓ Right.")

        other = lab.page.context.new_page()  # another tab on the same kernel follows
        try:
            other.goto(f"{lab.url}/lab/workspaces/second/tree/ask.ipynb?token={lab.token}")
            copied = other.get_by_role("radio", name="none", exact=True)
            copied.wait_for(state="attached", timeout=60_000)
            radio(notebook.cell("choice"), "none").check()
            other.get_by_text("Committed: none.").first.wait_for()
            assert copied.is_checked()
        finally:
            other.close()

        notebook.run("reveal")
        see(notebook.cell("reveal"), "✗ Not this time.")
        see(notebook.cell("reveal"), "So it is.")
        assert radio(notebook.cell("choice"), "none").is_checked()
        assert radio(notebook.cell("choice"), "all").is_disabled()

        lab.restart_kernel()
        for name in ("choice", "number", "quiz"):
            see(notebook.cell(name), STOPPED)
            assert notebook.cell(name).locator(".mf-said:visible").count() == 0
            assert notebook.cell(name).locator("fieldset:enabled").count() == 0
        see(notebook.cell("figure"), STOPPED)
        assert notebook.cell("figure").locator("input:enabled").count() == 0
        signs = "all => all.map(e => getComputedStyle(e, '::before').content)"
        assert set(lab.page.locator(".metalearn-awake").evaluate_all(signs)) == {"none"}
        lab.screenshot("forms-restarted")
        for name in ("imports", "quiz"):
            notebook.run(name)
        see(notebook.cell("quiz"), "✓ Right.")
        assert notebook.cell("quiz").get_by_text(STOPPED).count() == 0

        # A page whose widgets are gone says so in words, trusted or not.
        lab.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        lab.page.wait_for_timeout(1000)
        saved = nbformat.read(lab.folder / "ask.ipynb", as_version=4)
        saved.cells.append(new_markdown_cell("Another text, so that the signature is another's."))
        nbformat.write(saved, lab.folder / "changed.ipynb")
        lab.restart_kernel()
        for name in ("ask.ipynb", "changed.ipynb"):
            lab.open(name)
            lab.page.get_by_text(ASLEEP).filter(visible=True).nth(2).wait_for()
            assert lab.page.get_by_text("controls appear above").filter(visible=True).count() == 1
            assert lab.page.get_by_text("Error displaying widget").filter(visible=True).count() == 0
            lab.screenshot(f"forms-asleep-{name}")


def test_without_a_kernel_the_browser_alone_answers(browser_page, tmp_path):
    """A page of the website: its questions can be answered, and nothing that they do not ask is told."""
    guesses = (Guess("02.choice", "How much?", ("all", "some")), Guess("02.number", "How many?", unit="steps"))
    shown = [forms.Prediction(guess).form.stand_in() for guess in guesses]
    page = forms.alive("".join([*shown, forms.quiz_form("02", quiz_of("02")).stand_in()]))
    title = "<!doctype html><html lang='en' data-theme='dark'><title>A lesson</title>"
    (tmp_path / "page.html").write_text(f"{title}<main style='background: #121212'>{page}</main>", "utf-8")
    errors = []
    browser_page.on("pageerror", lambda error: errors.append(str(error)))
    browser_page.goto((tmp_path / "page.html").as_uri())
    radio(browser_page, "some").check()
    see(browser_page, "Keep it in mind: the answer comes below.")
    browser_page.get_by_role("spinbutton").fill("7")
    browser_page.keyboard.press("Enter")
    assert browser_page.get_by_text("the answer comes below").count() == 2
    radio(browser_page, WRONG).check()
    browser_page.get_by_role("button", name="Check").first.click()
    see(browser_page, "✗ Not quite.")
    text = browser_page.locator("main").inner_text()
    told = [feedback for feedback in forms.quiz_form("02", quiz_of("02")).fields[0]["feedback"] if feedback in text]
    assert told == [forms.quiz_form("02", quiz_of("02")).fields[0]["feedback"][QUESTION.answer - 1]]
    assert ASLEEP not in text
    assert Axe().run(browser_page, options=RULES).response["violations"] == []
    assert errors == []
