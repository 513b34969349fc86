"""Makes an nbgrader course from the sources of the lessons.

    solutions/02_maml.py  ->  DIR/source/02_maml/02_maml.ipynb   solutions and hidden tests in place: nbgrader's input
                              DIR/nbgrader_config.py             how nbgrader treats them
                              DIR/hidden_seed                    the secret that hidden instances are drawn from

`nbgrader generate_assignment 02_maml`, run in DIR, makes the students' version. An exercise is a solution cell of
nbgrader, its check a locked test cell, a free-text answer a cell to be graded by hand; all others stay as they are.
"""

import ast
import copy
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from metalearn.course.exercises import exercise
from metalearn.course.exercises.hidden_tests import VARIABLE
from metalearn.course.publishing import builder, page

CONFIG_FILE, SEED_FILE = "nbgrader_config.py", "hidden_seed"
SHORTEST = 8  # characters of a secret
QUESTION_POINTS = 3  # an exercise is worth its difficulty: 1, 2 or 3
CONFIG = f'''\
"""How nbgrader runs this course. Neither this folder nor any copy of it belongs where students can read it."""

import os
from pathlib import Path

from metalearn.course.publishing import classroom

here = Path(__file__).resolve().parent
c = get_config()
c.CourseDirectory.course_id = "metalearn"
c.CourseDirectory.root = str(here)
# What the lessons note down while they are graded, and code beside a notebook, which could take the place of a module.
c.CourseDirectory.ignore.extend(["progress.json", "*.py", "*.pyc", "*.so", "*.pth"])
c.ClearSolutions.code_stub = {{"python": "{builder.STUB}"}}
c.ClearSolutions.text_stub = "{builder.TEXT_STUB}"
c.ZipCollectApp.collector_plugin = classroom.Collector
c.Autograde.sanitize_preprocessors = classroom.SANITIZE
c.Autograde.autograde_preprocessors = classroom.AUTOGRADE
c.OverwriteCells.add_missing_cells = True  # a deleted test cell comes back
c.Execute.timeout = {builder.CELL_TIMEOUT}  # seconds for one cell; all of lesson 02 takes 35 on two cores
c.Execute.raise_on_iopub_timeout = False  # much output is cut, and graded
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "(?s)."  # a warning in a test cell costs no points, nor does an empty line
c.GenerateFeedback.exporter_class = classroom.FeedbackPage
c.WidgetsDataTypeFilter.display_data_priority = ["text/html", "text/markdown", "image/png", "text/latex", "text/plain"]
c.HTMLExporter.sanitize_html = True  # no script of a student runs where the feedback is read
c.HTMLExporter.filters = classroom.FILTERS  # nor in Formgrader
os.environ["PYTHONSAFEPATH"] = "1"  # the grading kernel imports nothing from the submission's folder
os.environ["{VARIABLE}"] = (here / "{SEED_FILE}").read_text("utf-8").strip()  # the grading kernel inherits it
'''

_PAGE_LINK = re.compile(rf"\[[^\]]+\]\((?:{page.CONTENTS}|{page.NOTATION}|{page.GUIDE}|{page.SOURCES})\)(?: · )?")
_LESSON_LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb")


def release(root: Path, to: Path, slugs: Sequence[str] = (), secret: str | None = None) -> list[Path]:
    """Writes an nbgrader course, or adds lessons to one; what is there already stays as it is.

    Args:
      root: the folder that holds `solutions/`.
      to: the course's folder: new, empty, or from an earlier release.
      slugs: the lessons, as `02_maml` or `maml`; all if empty.
      secret: draws the hidden instances. If None, that of the earlier release, or else a random one.
    Returns:
      The notebooks of the lessons.
    Raises:
      ValueError: naming what stands in the way, before anything is written.
    """
    seed_file, config_file = to / SEED_FILE, to / CONFIG_FILE
    stored = seed_file.read_text("utf-8").strip() if seed_file.exists() else None
    if secret is not None and len(secret.strip()) < SHORTEST:
        raise ValueError(
            f"--seed must have at least {SHORTEST} characters, or it is guessed; leave it out for a random one"
        )
    if stored is None and (any(to.iterdir()) if to.is_dir() else to.exists()):
        raise ValueError(f"{to} holds something that is not a release of this course; choose a new folder")
    if stored and secret and stored != secret.strip():
        raise ValueError(f"{to} has another seed, in {SEED_FILE}; leave --seed out to keep it, or choose a new folder")
    texts = {
        to / "source" / path.stem / f"{path.stem}.ipynb": builder.as_text(to_release(_with_picture(path, root)))
        for path in builder.sources(root, slugs)
    }
    for path, text in texts.items():
        if path.exists() and path.read_text("utf-8") != text:
            raise ValueError(
                f"{path} is not what this release would write: points or text were changed there, or the lesson was. "
                "Students may have it already, and a gradebook may know it. Leave this lesson out, choose a new "
                "folder, or delete that notebook if neither is so."
            )
    to.mkdir(mode=0o700, parents=True, exist_ok=True)  # on a hub the students' accounts are on the same machine
    if not stored:
        seed_file.touch(mode=0o600)
        seed_file.write_text((secret or secrets.token_urlsafe(32)).strip() + "\n", "utf-8")
    if not config_file.exists():
        config_file.write_text(CONFIG, "utf-8")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return list(texts)


def to_release(notebook: NotebookNode) -> NotebookNode:
    """The instructor's notebook of nbgrader, from what `builder.read_source` returns, with what each task is worth."""
    course = copy.deepcopy(notebook)
    asked = None
    for number, cell in enumerate(course.cells):
        if cell.cell_type == "markdown":  # each assignment has a folder of its own, and no page beside it
            cell.source = _PAGE_LINK.sub("", cell.source)
            cell.source = _LESSON_LINK.sub(r"](../\1/\1.ipynb", cell.source)
        if "exercise" in cell.metadata:
            asked = exercise.find(cell.metadata.exercise)
            _say_points(course.cells[number - 1], asked.difficulty)
            _mark(cell, solution=True)
        elif "question" in cell.metadata:
            _say_points(course.cells[number - 1], QUESTION_POINTS)
            _mark(cell, grade=True, solution=True, points=QUESTION_POINTS)
        elif asked and asked.id in builder.checked(cell):
            cell.source += _hidden_test(cell.source, asked.id)
            _mark(cell, grade=True, locked=True, points=asked.difficulty)
            asked = None
    return course


def _with_picture(path: Path, root: Path) -> NotebookNode:
    """The source with the picture that the built lesson has."""
    built = root / "lessons" / f"{path.stem}.ipynb"
    notebook = builder.read_source(path)
    return (
        builder.take_picture(notebook, nbformat.read(built, as_version=4)) if built.exists() else builder.draw(notebook)
    )


def _say_points(task: NotebookNode, points: int) -> None:
    """Adds to the line that says how long a task takes what it is worth."""
    worth = f"about \\1 minutes · {points} point{'s' if points > 1 else ''}"
    task.source = re.sub(r"about (\d+) minutes", worth, task.source, count=1)


def _mark(
    cell: NotebookNode, *, grade: bool = False, solution: bool = False, locked: bool = False, points: int | None = None
) -> None:
    """Adds the metadata of nbgrader, schema 3."""
    cell.metadata.nbgrader = NotebookNode(
        schema_version=3, grade_id=cell.id, grade=grade, solution=solution, locked=locked, task=False
    )
    if points is not None:
        cell.metadata.nbgrader.points = points


def _hidden_test(check: str, exercise_id: str) -> str:
    """The lines below `check("02.meta_gradient", meta_gradient)`, for the same function."""
    (function,) = [
        ast.unparse(node.args[1])
        for node in ast.walk(ast.parse(check))
        if isinstance(node, ast.Call) and [*map(ast.unparse, node.args[:1])] == [repr(exercise_id)]
    ]
    return (
        "\n### BEGIN HIDDEN TESTS\n"
        "from metalearn.course.exercises.hidden_tests import hidden_test\n\n"
        f'hidden_test("{exercise_id}", {function})\n'
        "### END HIDDEN TESTS"
    )
