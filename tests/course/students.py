"""What students of a term hand in: everything right, every exercise with its likeliest mistake, or scripts."""

import re
from pathlib import Path

import nbformat

from metalearn.course.publishing import builder
from metalearn.course.publishing.release import to_release

ROOT = Path(__file__).parents[2]
TERM = ("00_start_here", "01_learning_to_learn", "05_fo_b_maml")  # the fastest lessons, one of them with a question

SCRIPTS = """
from IPython.display import HTML, Javascript, display

display(HTML('<script>window.ran = 1</script><img src=x onerror="window.ran = 2">'), Javascript("window.ran = 3"))
for kind in ("text/markdown", "text/latex", "image/svg+xml"):
    display({kind: "<svg onload='window.ran = 4'><script>window.ran = 5</script></svg>"}, raw=True)
"""


def read(path):
    return nbformat.read(path, as_version=4)


def graded_cells(notebook):
    """Cells that nbgrader handles, by their grade_id."""
    marked = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in marked}
    assert len(cells) == len(marked)
    return cells


def right(lesson):
    """What a student who solves everything writes, by cell."""
    worked = builder.to_solution(builder.read_source(ROOT / f"solutions/{lesson}.py"))
    return {cell.id: cell.source for cell in worked.cells if cell.metadata.keys() & {"exercise", "question"}}


def wrong(lesson):
    """Every exercise the way its likeliest misconception has it."""
    cells = graded_cells(to_release(builder.read_source(ROOT / f"solutions/{lesson}.py")))
    written = dict.fromkeys(right(lesson), "I do not know.")
    for name, cell in cells.items():
        if "exercise" in cell.metadata:
            id, function = re.match(r'check\("(.+)", (\w+)\)', cells[f"{name}-check"].source).groups()
            lookup = f'exercise.find("{id}").misconceptions[0].function'
            written[name] = f"from metalearn.course.exercises import exercise\n\n{function} = {lookup}"
    return written


def with_scripts(notebook):
    """JavaScript wherever a notebook can hold some."""
    text = '<script>window.ran = 6</script><img src=x onerror="window.ran = 7"> [here](javascript:window.ran=8)'
    notebook.cells[3:3] = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell(SCRIPTS)]
    notebook.metadata["title"] = "</title><script>window.ran = 9</script>"
