"""Every lesson in a real JupyterLab: it runs untouched, can be read at two widths and themes, and answers keys."""

import io
import re
import statistics
import time
from pathlib import Path

import nbformat
import pytest
from lab import SLIDER, TORN
from PIL import Image, ImageStat

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))
BINDER = dict(re.findall(r"(\w+)=(\d+)", (ROOT / "binder/start").read_text()))  # the environment on such a machine
MEMORY_LIMIT = 1e9  # bytes: the smaller free machines have one or two GB
RUN_ALL_TIMEOUT = 240  # seconds; a busy machine takes several times as long as a quiet one
LOOKS = [(theme, width) for theme in ("Light", "Dark") for width in (1280, 768)]


@pytest.mark.slow
def test_before_any_cell_has_run_the_picture_on_top_follows_the_theme_and_no_formula_loses_its_comma(open_lab):
    with open_lab(LESSONS[8].parent) as lab:
        lab.open(LESSONS[8].name)
        lab.page.locator(".ml-whole mjx-container").first.wait_for(timeout=60_000)
        brightness = {}
        for theme in ("Light", "Dark"):
            lab.look(theme, 768)
            picture = Image.open(io.BytesIO(lab.page.locator(".ml-opening img").first.screenshot()))
            brightness[theme] = ImageStat.Stat(picture.convert("L")).mean[0]
            assert lab.page.evaluate(TORN) == []
        assert brightness["Dark"] < 80 < 200 < brightness["Light"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_runs_can_be_read_and_answers_the_keyboard(lesson, open_lab, record_property, monkeypatch):
    for name, value in BINDER.items():
        monkeypatch.setenv(name, value)
    cells = nbformat.read(lesson, as_version=4).cells
    checks = [cell.id for cell in cells if cell.cell_type == "code" and cell.id.endswith("-check")]
    assert len(checks) == sum("exercise" in cell.metadata for cell in cells) > 0
    with open_lab(lesson.parent) as lab:
        notebook = lab.open(lesson.name)
        start = time.perf_counter()
        notebook.run_all(RUN_ALL_TIMEOUT)
        seconds = time.perf_counter() - start
        assert notebook.errors() == []
        assert [check for check in checks if "not yet" not in notebook.output(check).lower()] == []
        memory = lab.peak_memory()
        record_property("measured", f"{lesson.stem}: {seconds:.1f} s, {memory / 1e6:.0f} MB")
        assert memory < MEMORY_LIMIT

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
