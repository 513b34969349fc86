"""How soon the interactive figure of each lesson follows a key, in a real JupyterLab and a real Chromium."""

import statistics
import sys
import tempfile
from pathlib import Path

from measure import Row

sys.path.append(str(Path(__file__).parents[1] / "browser"))
from lab import open_browser, open_lab

LESSONS = Path(__file__).parents[2] / "lessons"
PRESSES = 25
BAR = 100  # milliseconds


def rows(_: int) -> list[Row]:
    """Each lesson's median of 25 presses, from the key going down to the frame that shows the changed picture."""
    with tempfile.TemporaryDirectory() as profile, open_browser(profile) as page:
        if page is None:
            print("browser: skipped, since there is no Chromium.", file=sys.stderr)
            return []
        return [_row(page, lesson) for lesson in sorted(LESSONS.glob("*.ipynb"))]


def _row(page, lesson: Path) -> Row:
    with tempfile.TemporaryDirectory() as scratch, open_lab(page, LESSONS, Path(scratch)) as lab:
        notebook = lab.open(lesson.name)
        notebook.run_all(timeout=240)
        latency = statistics.median(notebook.latencies(PRESSES))
    what = f"key press to changed picture, lesson {lesson.stem[:2]}"
    return Row(what, f"{latency:.0f} ms", f"{BAR} ms", latency / BAR, ("at most", 1))
