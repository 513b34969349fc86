"""A class of 200 hands in one lesson, solved, and nbgrader grades it, two submissions at once."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from measure import Row
from memory import peak_of

from metalearn.course import __main__ as command
from metalearn.course.publishing import builder

ROOT = Path(__file__).parents[2]
LESSON = "00_start_here"
NOTEBOOK = f"{LESSON}/{LESSON}.ipynb"
GROUPS = {"one": 1, "a": 100, "b": 100}  # how many students have names that begin so
TWO_AT_ONCE = ("a", "b")


def rows(_: int) -> Iterator[Row]:
    """Time and memory of grading a class, and of its feedback, beside those of one submission."""
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        command.main(["release", "--root", str(ROOT), "--to", folder, LESSON])
        nbgrader(course, "generate_assignment")
        hand_in(course)
        for step in ("autograde", "generate_feedback"):
            alone, held_alone = nbgrader(course, step, "one")
            taken, held = nbgrader(course, step, *TWO_AT_ONCE)
            what = f"`nbgrader {step}`, lesson 00, {sum(GROUPS[name] for name in TWO_AT_ONCE)} submissions, two at once"
            yield Row(what, f"{taken / 60:.3g} min", f"one submission: {alone:.3g} s", taken / alone)
            yield Row("its memory", f"{held / 1e9:.2f} GB", f"of one: {held_alone / 1e9:.2f} GB", held / held_alone)


def hand_in(course: Path) -> None:
    """Puts the released lesson with every exercise solved where nbgrader collects the students' work."""
    solution = builder.to_solution(builder.read_source(ROOT / f"solutions/{LESSON}.py"))
    solved = {cell.id: cell.source for cell in solution.cells}
    notebook = nbformat.read(course / "release" / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if "exercise" in cell.metadata:
            cell.source = solved[cell.id]
    for group, size in GROUPS.items():
        for number in range(size):
            path = course / f"submitted/{group}{number:03d}" / NOTEBOOK
            path.parent.mkdir(parents=True)
            nbformat.write(notebook, path)


def nbgrader(course: Path, step: str, *groups: str) -> tuple[float, int]:
    """Runs a step of nbgrader in one process for each group of students; seconds, and bytes held at most."""
    tools = os.path.dirname(sys.executable)  # nbgrader calls alembic by name
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    call = [sys.executable, "-m", "nbgrader", step, f"--assignment={LESSON}"]
    log, start = course / "log", time.perf_counter()
    with log.open("w") as file, contextlib.ExitStack() as watched:
        processes = [
            subprocess.Popen([*call, *students], cwd=course, env=environment, stdout=file, stderr=file)
            for students in [[f"--student={group}*"] for group in groups] or [[]]
        ]
        peaks = [watched.enter_context(peak_of(process.pid)) for process in processes]
        codes = [process.wait() for process in processes]
    assert not any(codes), log.read_text()
    return time.perf_counter() - start, sum(peak.bytes for peak in peaks)
