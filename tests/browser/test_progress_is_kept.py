"""What a learner does with the keyboard in lesson 00 is kept, whatever happens to the page, the kernel or the file."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
LESSON = "00_start_here.ipynb"
EXERCISE, EXERCISE_ID = "00-finite_difference", "00.finite_difference"
CODE = [cell for cell in nbformat.read(ROOT / "lessons" / LESSON, as_version=4).cells if cell.cell_type == "code"]
IMPORTS, PREDICTION, ANSWER, QUIZ, PROGRESS = (
    next(cell.id for cell in CODE if text in cell.source)
    for text in ("setup()", 'predict("00.better_change")', "better_change.reveal(", 'quiz("', 'progress("')
)
IDS = [cell.id for cell in CODE]
BEFORE_THE_ANSWER = [id for id in IDS[IDS.index(IMPORTS) + 1 : IDS.index(ANSWER)] if id != PREDICTION]
RIGHT = {"prediction": "only a shift to the right", "quiz": "It uses the old value."}


def source(cell_id):
    """What the worked lesson has there."""
    cells = nbformat.read(ROOT / "solutions" / LESSON, as_version=4).cells
    return next(cell.source for cell in cells if cell.id == cell_id)


def choose(notebook, cell_id, option, button=None):
    """Answers with the keyboard: Space chooses; where there is a button, Tab goes on to it, and Space presses it."""
    radio = notebook.cell(cell_id).get_by_role("radio", name=option)
    radio.focus()
    notebook.page.keyboard.press("Space")
    assert radio.is_checked()
    if button is not None:
        notebook.page.keyboard.press("Tab")
        assert notebook.page.evaluate("document.activeElement.textContent") == button
        notebook.page.keyboard.press("Space")


def run(notebook, *cell_ids):
    for cell_id in cell_ids:
        notebook.run(cell_id)
    assert notebook.errors() == []


def see(notebook, cell_id, text):
    notebook.cell(cell_id).get_by_text(text).first.wait_for()


def assert_all_is_remembered(notebook):
    run(notebook, IMPORTS, PREDICTION, QUIZ, PROGRESS)
    see(notebook, PREDICTION, "and have seen the answer")
    assert notebook.cell(PREDICTION).get_by_role("radio", name=RIGHT["prediction"]).is_checked()
    see(notebook, QUIZ, "✓ Right.")
    assert done(notebook) == ["1 of 4 exercises, 1 of 3 quiz answers"]
    predictions = notebook.cell(PROGRESS).locator("tbody tr").all()
    assert [row.locator("th, td").all_text_contents() for row in predictions] == [
        ["00.better_change", RIGHT["prediction"], RIGHT["prediction"]],
    ]


def done(notebook):
    """What the map of the course says of the lesson."""
    return notebook.cell(PROGRESS).locator(".metalearn-map .done").all_inner_texts()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_progress_survives_the_page_the_kernel_and_a_damaged_file(open_lab):
    with open_lab(ROOT / "lessons") as lab:
        notebook = lab.open(LESSON)
        run(notebook, IMPORTS, PROGRESS, PREDICTION)
        assert done(notebook) == ["0 of 4 exercises, 0 of 3 quiz answers"]

        choose(notebook, PREDICTION, RIGHT["prediction"])
        see(notebook, PREDICTION, "Committed: ")
        run(notebook, *BEFORE_THE_ANSWER, ANSWER)
        see(notebook, ANSWER, "✓ Right.")

        fold = notebook.cell(f"{EXERCISE}-help").locator("details", has_text="Hint 1")
        assert not fold.locator("p").first.is_visible()
        fold.locator("summary").click()
        assert fold.locator("p").first.is_visible()
        notebook.set_source(f"{EXERCISE}-check", f'from metalearn.course import hint\n\nhint("{EXERCISE_ID}")')
        run(notebook, f"{EXERCISE}-check")
        see(notebook, f"{EXERCISE}-check", "Hint 1 of")
        notebook.set_source(f"{EXERCISE}-check", source(f"{EXERCISE}-check"))

        notebook.set_source(EXERCISE, source(EXERCISE))
        run(notebook, EXERCISE, f"{EXERCISE}-check", QUIZ)
        see(notebook, f"{EXERCISE}-check", "Passed")
        choose(notebook, QUIZ, RIGHT["quiz"], "Check")
        see(notebook, QUIZ, "✓ Right.")
        assert_all_is_remembered(notebook)
        lab.screenshot("progress")

        notebook = lab.open(LESSON)  # the page, and with it the widgets
        assert_all_is_remembered(notebook)

        lab.restart_kernel()
        assert_all_is_remembered(notebook)

        (lab.folder.parent / "progress.json").write_text('{"passed": ')
        run(notebook, PROGRESS)
        see(notebook, PROGRESS, "could not be read. It was set aside as")
        assert done(notebook) == ["0 of 4 exercises, 0 of 3 quiz answers"]
        assert len(list(lab.folder.parent.glob("progress.damaged-*.json"))) == 1
        lab.screenshot("progress-damaged")
