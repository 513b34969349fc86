"""Every lesson in a real JupyterLab: it runs, can be read at two widths in two themes, and its figure answers keys."""

import statistics
from pathlib import Path

import pytest
from lab import SLIDER

LESSONS = sorted((Path(__file__).parents[2] / "lessons").glob("*.ipynb"))
RUN_ALL_TIMEOUT = 240  # seconds; a busy machine takes several times as long as a quiet one
LOOKS = [(theme, width) for theme in ("Light", "Dark") for width in (1280, 768)]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_runs_can_be_read_and_answers_the_keyboard(lesson, open_lab, record_property):
    with open_lab(lesson.parent) as lab:
        lab.page.set_viewport_size({"width": 1280, "height": 1000})
        notebook = lab.open(lesson.name)
        notebook.run_all(RUN_ALL_TIMEOUT)
        assert notebook.errors() == []

        if lab.page.locator(SLIDER).count():
            latency = statistics.median(notebook.latencies(presses=5))  # tests/benchmarks/browser.py has a bar for it
            record_property("measured", f"{lesson.stem}: {latency:.0f} ms from a key press to the changed picture")
            lab.screenshot(f"{lesson.stem}-slider")

        texts = notebook.picture_texts()
        assert all(len(text) > 20 for text in texts)
        assert len(set(texts)) == len(texts)
        assert notebook.unreachable() == []

        complaints = {}
        for theme, width in LOOKS:
            lab.look(theme, width)
            lab.read_through(f"{lesson.stem}-{theme}-{width}")
            found = notebook.blemishes()
            if width == 1280:  # the rules are about colours and names
                found["barriers"] = notebook.barriers()
            complaints |= {(theme, width, kind): what for kind, what in found.items() if what}
        assert not complaints, "\n".join(f"{where}: {what}" for where, what in complaints.items())
