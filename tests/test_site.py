"""The website's own conversion: executed lessons to pages."""

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from metalearn.course.publishing.site import PAGES, WIDGET, to_page

README = Path(__file__).parents[1] / "README.md"


def test_the_first_picture_is_described_as_in_the_readme():
    described = re.search(r"!\[(.*?)\]\(solutions/readme.png\)", README.read_text("utf-8"), flags=re.DOTALL)[1]
    assert f':alt: "{" ".join(described.split())}"' in (PAGES / "index.md").read_text("utf-8")


def test_a_page_shows_stubs_folds_answers_and_needs_no_kernel():
    stand_in = new_output("display_data", data={"text/html": "<svg></svg>", "text/plain": "A curve."})
    widget = new_output("display_data", data={WIDGET: {}})
    answer = new_code_cell("def f(x):\n    return x", id="02-f", metadata={"exercise": "02.f", "tags": ["exercise"]})
    derivation = new_markdown_cell("Because.", metadata={"question": "02.g", "tags": ["free-text"]})
    solution = new_notebook(
        cells=[answer, derivation, new_code_cell("explore()", outputs=[stand_in, widget])],
        metadata={"widgets": {"a": 1}},
    )
    page = to_page(solution, {"02-f": "def f(x):\n    raise NotImplementedError"})

    nbformat.validate(page)
    stub, exercise, text, figures = page.cells
    assert stub.cell_type == "markdown" and "raise NotImplementedError" in stub.source
    assert "hide-input" in exercise.metadata.tags and "return x" in exercise.source
    assert text.source.startswith("<details>") and "Because." in text.source
    (picture,) = figures.outputs
    assert "widgets" not in page.metadata
    assert picture.data == {"text/html": "<svg></svg>", "text/plain": "A curve."}
