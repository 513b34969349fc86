"""The website's own conversion: executed lessons to pages."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from metalearn.course.publishing.site import WIDGET, to_page


def test_a_page_shows_stubs_folds_answers_and_needs_no_kernel():
    widget = new_output("display_data", data={WIDGET: {}, "image/png": "iVBO\n", "text/plain": 'A "curve".'})
    form = new_output("display_data", data={WIDGET: {}, "text/plain": "How much?"})
    answer = new_code_cell("def f(x):\n    return x", id="02-f", metadata={"exercise": "02.f", "tags": ["exercise"]})
    derivation = new_markdown_cell("Because.", metadata={"question": "02.g", "tags": ["free-text"]})
    solution = new_notebook(
        cells=[answer, derivation, new_code_cell("explore()", outputs=[widget, form])], metadata={"widgets": {"a": 1}}
    )
    page = to_page(solution, {"02-f": "def f(x):\n    raise NotImplementedError"})

    nbformat.validate(page)
    stub, exercise, text, figures = page.cells
    assert stub.cell_type == "markdown" and "raise NotImplementedError" in stub.source
    assert "hide-input" in exercise.metadata.tags and "return x" in exercise.source
    assert text.source.startswith("<details>") and "Because." in text.source
    picture, words = (output.data for output in figures.outputs)
    assert "widgets" not in page.metadata and not {WIDGET, "image/png"} & (picture.keys() | words.keys())
    assert 'src="data:image/png;base64,iVBO" alt="A &quot;curve&quot;."' in picture["text/html"]
    assert words == {"text/plain": "How much?"}
