"""The website's own two conversions: docstrings to typeset equations, and executed lessons to pages."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from metalearn.course.publishing.site import WIDGET, docstrings, to_page


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("grad F(theta) = v - a H v", r"\nabla F(\theta) = v - a H v"),
        ("hess h(phi_k)", r"\nabla^2 h(\phi_{k})"),
        ("phi_{k+1} <- phi_k", r"\phi_{k+1}\leftarrow\phi_{k}"),
        ("phi_-2v + 8 phi_-v", r"\phi_{-2v} + 8 \phi_{-v}"),
        ("phi^e_0 ~ f_theta", r"\phi^{e}_{0}\approx f_{\theta}"),
        ("p_{y_s}(q)", "p_{y_{s}}(q)"),
        ("(1 + a L)^(2N) <= 2^(1/(2N))", r"(1 + a L)^{2N}\le 2^{1/(2N)}"),
        ("argmin_phi  1/2 ||phi - z*||^2", r"\operatorname{argmin}_{\phi}\;\;1/2 \|\phi - z^*\|^{2}"),
        ("<grad h, g> < 0", r"\langle\nabla h, g\rangle<0"),
        ("max u + mean_i x_i", r"\operatorname{max} u + \operatorname{mean}_{i} x_{i}"),
        ("the max of all", r"\text{the max of all}"),
        ("h: support loss, f: query", r"h\text{: }\text{support loss}, f\text{: }\text{query}"),
        ("each a ridge regression of size a", r"\text{each a ridge regression of size }a"),
        ("three_point   l v", r"\text{three_point}\quad l v"),
        ("k(., X) o sum_i f_i", r"k(\cdot , X)\circ \sum_{i} f_{i}"),
        ("du/dt = exp(-T H)", r"du/dt = \exp(-T H)"),
        ("the head's weights", r"\text{the head's weights}"),
    ],
)
def test_plain_text_becomes_latex(text, latex):
    assert docstrings.to_latex([text]).replace(" ", "") == latex.replace(" ", "")


def test_lines_are_aligned_where_columns_begin_and_at_their_relations():
    equation = [
        "F(theta)      = f(phi_K),   phi_0 = theta           h: support",
        "grad F(theta) = grad f(phi_K),                      K steps",
    ]
    latex = docstrings.to_latex(equation)
    assert latex.startswith(r"\begin{array}{lll}")
    assert [row.count("&") for row in latex.splitlines()[1:-1]] == [2, 2]
    assert [row.partition("&")[2].strip()[0] for row in latex.splitlines()[1:-1]] == ["=", "="]


def test_what_is_longer_than_its_column_does_not_widen_it():
    latex = docstrings.to_latex(["f   u,     v", "g   w,     v", "    f is a sentence"])
    assert latex.splitlines()[3] == r" & \rlap{f\text{ is a sentence}} & "


def test_a_long_line_is_broken_where_it_has_gaps():
    line = "a" + " + a" * 12 + "   " + "b" + " + b" * 12
    assert len(docstrings.to_latex([line]).splitlines()) == 4


DOCSTRING = """\
One sentence about phi_k and grad f(theta).

    F(theta) = f(theta)

This calls `phi_k` and *args, for |x| <= 2; see name_:

    params = with_rates(params, 0.1)

- An item that goes on
  in a second line.

Args:
  theta: where
    it starts.

      still text of theta
  **options: handed on.
"""


def test_a_docstring_keeps_its_sections_lists_and_code():
    rst = "\n".join(docstrings.to_rst(DOCSTRING.splitlines()))
    assert "One sentence about φ_k and ∇f(θ)." in rst
    assert ".. math::\n\n   F(\\theta ) = f(\\theta )\n" in rst
    assert r"This calls `phi_k` and \*args, for \|x\| ≤ 2; see name\_:" in rst
    assert ".. code-block:: python\n\n   params = with_rates(params, 0.1)\n" in rst
    assert "- An item that goes on\n  in a second line." in rst
    assert rst.count(".. math::") == 1
    assert "  **options: handed on." in rst


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
