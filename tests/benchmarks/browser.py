"""How soon the interactive figure of each lesson follows a key, in a real JupyterLab and a real Chromium."""

import statistics
import sys
import tempfile
from pathlib import Path

from measure import Row

sys.path.append(str(Path(__file__).parents[1] / "browser"))
from lab import SLIDER, open_browser, open_lab

LESSONS = Path(__file__).parents[2] / "lessons"
PRESSES = 25
BAR = 100  # milliseconds


def rows(_: int) -> list[Row]:
    """Each lesson's median of 25 presses, from the key going down to the frame that shows the changed picture."""
    with tempfile.TemporaryDirectory() as profile, open_browser(profile) as page:
        if page is None:
            print("browser: skipped, since there is no Chromium.", file=sys.stderr)
            return []
        return [row for lesson in sorted(LESSONS.glob("*.ipynb")) if (row := _row(page, lesson))]


def _row(page, lesson: Path) -> Row | None:
    """None for a lesson without a slider."""
    with tempfile.TemporaryDirectory() as scratch, open_lab(page, LESSONS, Path(scratch)) as lab:
        notebook = lab.open(lesson.name)
        notebook.run_all(timeout=240)
        if not page.locator(SLIDER).count():
            return None
        latency = statistics.median(notebook.latencies(PRESSES))
    print(f"  lesson {lesson.stem[:2]}: {latency:.0f} ms", flush=True)
    what = f"key press to changed picture, lesson {lesson.stem[:2]}"
    return Row(what, f"{latency:.0f} ms", f"{BAR} ms", latency / BAR, ("at most", 1))
