"""The notebooks as they are shipped: no drift, real outputs, described figures."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from metalearn.course.publishing import builder

ROOT = Path(__file__).parents[1]
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
NARROW = 73  # characters of code or text beside each other on a page 768 pixels wide
WIDGET = "application/vnd.jupyter.widget-view+json"  # carries its alternative text as text/plain, as `explore` does
OBJECT = re.compile(r"\s*$|<|\w+\(")  # what a figure or a widget prints when nobody described it
IMAGE = re.compile(r"<img\b[^>]*>")
ALTERNATIVE_TEXT = re.compile(r'\balt="[^"]*\w[^"]*"')


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(cell):
    """Everything in the cell's outputs that can be read, in one string."""
    data = [str(value) for output in cell.outputs for value in output.get("data", {}).values()]
    return "\n".join([*(output.get("text", "") for output in cell.outputs), *data])


def pictures(notebook):
    """(cell id, whether it has alternative text) for each picture among the outputs and in the prose."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            tags = IMAGE.findall(data.get("text/html", ""))
            found += [(cell.id, bool(ALTERNATIVE_TEXT.search(tag))) for tag in tags]
            if any(kind.startswith("image/") for kind in data) and not tags:
                found.append((cell.id, WIDGET in data and not OBJECT.match(data["text/plain"])))
        if cell.cell_type == "markdown":
            found += [(cell.id, bool(alt.strip())) for alt in re.findall(r"!\[(.*?)\]\(", cell.source)]
            found += [(cell.id, bool(ALTERNATIVE_TEXT.search(tag))) for tag in IMAGE.findall(cell.source)]
    return found


def test_notebooks_match_their_sources():
    assert builder.check(ROOT) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
class TestSolution:
    def test_shows_figures_and_describes_each(self, path):
        found = pictures(read(path))
        assert found, "no figure at all"
        assert [cell_id for cell_id, described in found if not described] == []

    def test_stores_the_text_that_nbval_compares(self, path):
        """On a cell without stored text nbval compares nothing and passes."""
        compared = [cell for cell in code_cells(read(path)) if "nbval-check-output" in cell.metadata.get("tags", [])]
        assert compared, "nbval has nothing to compare"
        assert [cell.id for cell in compared if not text(cell).strip()] == []

    def test_writes_nothing_to_standard_error(self, path):
        """Jupyter shows that on red ground: progress bars and warnings belong elsewhere."""
        streams = [
            (cell.id, output.name) for cell in code_cells(read(path)) for output in cell.outputs if "name" in output
        ]
        assert [cell_id for cell_id, name in streams if name == "stderr"] == []

    def test_prints_lines_that_a_narrow_page_does_not_break(self, path):
        printed = [(cell.id, out.text) for cell in code_cells(read(path)) for out in cell.outputs if "text" in out]
        lines = [(cell_id, line) for cell_id, text in printed for line in re.split(r"[\r\n]", text)]
        assert [(cell_id, line) for cell_id, line in lines if len(line) > NARROW] == []

    def test_asks_for_code_that_a_narrow_page_shows_whole(self, path):
        """What a learner works in: the stub of each exercise. Other code scrolls."""
        stubs = [cell for cell in read(ROOT / f"lessons/{path.name}").cells if "exercise" in cell.metadata]
        lines = [(cell.id, line) for cell in stubs for line in cell.source.split("\n")]
        assert [(cell_id, line) for cell_id, line in lines if len(line) > NARROW] == []

    def test_passes_its_own_checks(self, path):
        checks = [cell for cell in code_cells(read(path)) if cell.id.endswith("-check")]
        assert [cell.id for cell in checks if "not yet" in text(cell).lower()] == []


@pytest.mark.parametrize(
    ("data", "described"),
    [
        ({"image/png": "iVBO", "text/plain": "<Figure size 640x480>"}, [False]),
        ({"image/png": "iVBO", "text/html": '<img src="data:,">'}, [False]),
        ({"image/png": "iVBO", "text/html": '<img src="data:," alt=" ">'}, [False]),
        ({"image/png": "iVBO", "text/html": '<img src="data:," alt="Two curves that cross.">'}, [True]),
        ({"text/html": '<img alt="One curve."><img src="data:,">'}, [True, False]),
        ({"image/png": "iVBO", WIDGET: {}, "text/plain": "VBox(children=())"}, [False]),
        ({"image/png": "iVBO", WIDGET: {}, "text/plain": "Two curves that cross."}, [True]),
        ({"text/plain": "3"}, []),
    ],
)
def test_a_picture_without_alternative_text_is_found(data, described):
    cell = new_code_cell(outputs=[new_output("display_data", data=data)])
    assert [found for _, found in pictures(new_notebook(cells=[cell]))] == described
