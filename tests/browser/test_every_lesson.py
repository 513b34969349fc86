"""Every lesson in a real JupyterLab: it runs from top to bottom, and its figure answers the keyboard."""

from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parents[2] / "lessons").glob("*.ipynb"))
RUN_ALL_TIMEOUT = 240  # seconds; a busy machine takes several times as long as a quiet one
PICTURE = "img.widget-image"
SLIDER = f".jp-OutputArea-output:has({PICTURE}) .noUi-handle"
CHANGED = f"""async before => {{
    const image = document.querySelector("{PICTURE}");
    const now = [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())];
    return now.length !== before.length || now.some((byte, i) => byte !== before[i]);
}}"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_runs_and_answers_the_keyboard(lesson, open_lab):
    with open_lab(lesson.parent) as lab:
        notebook = lab.open(lesson.name)
        notebook.run_all(RUN_ALL_TIMEOUT)
        lab.read_through(lesson.stem)
        assert notebook.errors() == []

        picture, slider = lab.page.locator(PICTURE).first, lab.page.locator(SLIDER).first
        assert len(picture.get_attribute("title")) > 20  # ipywidgets offers no alt; a title names the picture as well
        before = picture.evaluate("async image => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]")
        slider.focus()
        at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        for _ in range(3):  # a small step may draw the same picture
            lab.page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
        lab.page.wait_for_function(CHANGED, arg=before)
        lab.screenshot(f"{lesson.stem}-slider")
