"""The website's own conversion: executed lessons to pages."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from metalearn.course import syllabus
from metalearn.course.publishing import page as pages
from metalearn.course.publishing import readme_picture
from metalearn.course.publishing.site import CHECKED, PAGES, PICTURE, SHOW_ANSWER, WIDGET, to_page
from metalearn.course.widgets import display, forms

README = Path(__file__).parents[1] / "README.md"


def test_the_first_picture_is_described_as_in_the_readme():
    described = re.search(r"!\[(.*?)\]\(solutions/readme.png\)", README.read_text("utf-8"), flags=re.DOTALL)[1]
    assert " ".join(described.split()) == readme_picture.ALT
    assert PICTURE in (PAGES / "index.md").read_text("utf-8")


def test_the_first_picture_shows_what_its_words_say():
    losses = {line.get_label(): line.get_ydata() for line in readme_picture.draw().axes[1].lines}
    assert losses["MAML"][0] / losses["MAML"][1] == pytest.approx(4, abs=0.5)
    assert losses["joint training"][:6] == pytest.approx(3, abs=0.5)


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


def test_a_bar_that_has_ended_is_drawn_and_what_was_printed_beside_it_stays():
    text = (
        "100%|██████| 4000/4000 [00:08<00:00, 490.63 step/s, query loss 5.73e+08]\n"
        "MAML, 8 seeds: 100%|███| 10/10 [01:00<00:0\n"
        "training, about 12 s:  54%|██   | 27/50 [00:08<00:07,  3.15it/s]\n\n"
        "after step 112 the process ended\n"
    )
    (cell,) = to_page(
        new_notebook(cells=[new_code_cell("f()", outputs=[new_output("stream", name="stdout", text=text)])]), {}
    ).cells
    *bars, printed = cell.outputs
    told = [re.sub("<.*?>", "", bar.data["text/html"]) for bar in bars]
    assert told == [
        "4,000 steps in 8 s, query loss 5.73 × 10⁸",
        "MAML, 8 seeds: 10 of 10 in 60 s",
        "training, about 12 s: 27 of 50 in 8 s",
    ]
    assert printed.text == "after step 112 the process ended\n"


def _shown(source, kind, text):
    output = new_output("display_data", data=display._card(kind, text))
    page = to_page(new_notebook(cells=[new_code_cell(source, outputs=[output])]), {})
    return "".join(output.data["text/html"] for cell in page.cells for output in cell.outputs)


def test_a_visitor_is_not_told_what_the_builder_has_passed():
    for kind in ("passed", "done"):
        told = _shown('check("02.f", f)', kind, "**✓ Passed.** All four exercises of this lesson are done.")
        assert CHECKED in told and "Passed" not in told and "exercises" not in told
    assert to_page(new_notebook(cells=[new_code_cell('progress("02")')]), {}).cells == []


def test_the_answer_of_a_prediction_is_folded_and_its_mathematics_set():
    told = _shown("p.reveal(1)", "not yet", f"**{forms.UNANSWERED}** The answer is **4**.\n\nFor $a<b$ it is.")
    assert f"<summary>{SHOW_ANSWER}</summary>" in told and "No prediction" not in told
    assert '<span class="math">\\(a&lt;b\\)</span>' in told
    assert "The answer is <strong>4</strong>" in told and told.count("</details>") == 1


def test_styles_and_drawings_keep_their_dollars():
    text = "<style>a{b:$c$}</style><svg><text>$d$</text></svg>$e$"
    output = new_output("display_data", data={"text/html": text})
    page = to_page(new_notebook(cells=[new_code_cell("f()", outputs=[output])]), {})
    assert page.cells[0].outputs[0].data["text/html"] == text[:-3] + r'<span class="math">\(e\)</span>'


def test_each_lesson_has_a_card_that_leads_to_it():
    cards = pages.course_cards("lessons/")
    assert re.findall(r'<a href="lessons/(\w+)\.html">', cards) == [lesson.stem for lesson in syllabus.LESSONS]
    assert cards.count("<div") == cards.count("</div>")


def test_the_picture_on_top_of_a_page_follows_the_theme_and_both_halves_are_described():
    card = pages.opening_card("02")
    assert card.count("<svg xmlns") >= 2 and card.count('role="img"') == 2 and "var(--ml-blue" in card
