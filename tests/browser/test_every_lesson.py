"""Every lesson in a real JupyterLab: it runs from top to bottom, and its figure answers the keyboard."""

from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parents[2] / "lessons").glob("*.ipynb"))
RUN_ALL_TIMEOUT = 240  # seconds; a busy machine takes several times as long as a quiet one


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_runs_and_answers_the_keyboard(lesson, open_lab):
    with open_lab(lesson.parent) as lab:
        notebook = lab.open(lesson.name)
        notebook.run_all(RUN_ALL_TIMEOUT)
        lab.read_through(lesson.stem)
        assert notebook.errors() == []

        title, _ = notebook.press_slider(presses=3)  # a small step may draw the same picture
        assert len(title) > 20  # ipywidgets offers no alt; a title names the picture as well
        lab.screenshot(f"{lesson.stem}-slider")
