"""Figures, diagrams and tables: they follow the theme, say what they show, and can stand on one page."""

import importlib
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from metalearn import plots
from metalearn.course import syllabus
from metalearn.course.widgets import diagrams

GROUNDS = ("card", "prediction")
X = np.linspace(0.0, 1.0, 20)
DIAGRAMS = (
    diagrams.two_loops,
    diagrams.support_and_query,
    diagrams.backward_pass,
    diagrams.composed,
    diagrams.shortcuts,
    diagrams.proximal_problem,
    diagrams.perturbed_problem,
    diagrams.clipped_steps,
    diagrams.fair_comparison,
    diagrams.adjoint,
)


def _luminance(color):
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels > 0.04045, ((channels + 0.055) / 1.055) ** 2.4, channels / 12.92) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def _texts(svg):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def _curves():
    return plots.lines(X, {"rising": X, "level": 0 * X}, "x", "y", points={"half": (0.5, 0.5)})


def test_a_figure_that_is_drawn_twice_is_the_same():
    figure = plots.lines(X, {"rising": X}, "x", "y", title="Title and name of y have a row each")
    assert plots.svg(figure) == plots.svg(figure)


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(plots, "_display", lambda bundle, metadata=None: bundles.append(bundle))
    return bundles


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_has_enough_contrast(theme):
    every = re.findall(r"--ml-(\w+): (#\w{6})", plots.PALETTE_CSS)
    colors = dict(every[: len(every) // 2] if theme == 0 else every[len(every) // 2 :])
    assert colors.keys() == plots.PALETTE.keys()
    for ground in GROUNDS:
        for name in colors.keys() - {"line", *GROUNDS}:
            light, dark = sorted((_luminance(colors[name]), _luminance(colors[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


def test_a_figure_names_its_curves_and_points_where_they_are_and_follows_the_theme():
    svg = plots.svg(_curves(), alt='Two "curves".')
    assert {"rising", "level", "half", "x", "y"} <= set(_texts(svg))
    assert ElementTree.fromstring(svg).get("aria-label") == 'Two "curves".'
    without_fallbacks = re.sub(r"var\(--ml-\w+,#\w{6}\)", "", svg)
    assert not re.search("|".join(plots.PALETTE.values()), without_fallbacks)
    assert f"var(--ml-blue,{plots.PALETTE['blue']})" in svg


def test_a_figure_is_the_same_each_time_and_shares_no_id_with_another():
    first, again, other = plots.svg(_curves()), plots.svg(_curves()), plots.svg(plots.lines(X, {"b": X**2}, "x", "y"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, again, other)]
    assert first == again and ids[0] and not ids[0] & ids[2]
    assert set(re.findall(r"#(ml[\w-]+)[\")]", first)) == ids[0]


def test_names_that_would_meet_are_moved_apart():
    figure = plots.lines(X, {"a": X, "b": X + 1e-3, "c": X - 1e-3}, "x", "y")
    plots.finish(figure)
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text() in "abc"]
    heights = [text.get_window_extent().y0 for text in names]
    assert len(heights) == 3 and np.diff(np.sort(heights)).min() > 0.9 * plots.FONT_SIZE


def test_ticks_of_few_values_far_from_one_are_powers_of_ten():
    x = np.array([1e-8, 3e-5, 1e-2, 1.0])
    texts = _texts(plots.svg(plots.lines(x, {"a": x}, "x", "y", log="xy")))
    assert {"10⁻⁸", "3 × 10⁻⁵", "0.01", "1"} <= set(texts)
    assert not [text for text in texts if re.search(r"\de[+-]\d", text)]


@pytest.mark.parametrize("log", ["", "x", "xy"])
def test_no_tick_is_made_beyond_the_axes(log):
    figure = plots.lines(np.geomspace(0.01, 900, 50), {"a": np.geomspace(3, 2e5, 50)}, "x", "y", log=log)
    plots.finish(figure)
    (axes,) = figure.axes
    for ticks, limits in ((axes.get_xticks(), axes.get_xlim()), (axes.get_yticks(), axes.get_ylim())):
        assert len(ticks) >= 3 and limits[0] <= min(ticks) and max(ticks) <= limits[1]


def test_ticks_with_names_of_their_own_keep_them():
    figure = plots.lines(X, {"a": X}, "x", "y")
    (axes,) = figure.axes
    axes.set_xticks([0, 1, 2], ["none", "one", "two"])
    axes.set_xlim(0.5, 2.5)
    texts = _texts(plots.svg(figure))
    assert "none" not in texts and texts.index("one") < texts.index("two")


def test_a_long_name_goes_into_a_legend_and_is_not_lost():
    name = "a name that is much too long to stand beside the curve that it names"
    assert name in _texts(plots.svg(plots.lines(X, {name: X}, "x", "y")))


def test_panels_that_stand_side_by_side_are_drawn_apart_and_nothing_is_lost():
    figure, both = plots.subplots(2)
    for axes, name in zip(both, ("first", "second"), strict=True):
        plots.lines(X, {name: X}, f"x of {name}", "y", axes=axes)
    html = plots.panels(figure, "Two panels.")
    drawn = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert [{name for name in ("first", "second") if name in _texts(svg)} for svg in drawn] == [{"first"}, {"second"}]
    assert ElementTree.fromstring(drawn[0]).get("aria-label") == "Two panels." and 'aria-hidden="true"' in drawn[1]
    widths = [float(ElementTree.fromstring(svg).get("width")) for svg in drawn]
    assert sum(widths) == plots.WIDTH and min(widths) > plots.WIDTH / 3
    assert all(axes.get_visible() for axes in figure.axes)
    ground = Image.open(io.BytesIO(plots.png(figure))).getpixel((0, 0))[:3]
    assert f"#{bytes(ground).hex()}" == plots.PALETTE["card"]


def test_panels_above_one_another_are_not_taken_apart():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    figure.subplots(2, 1)
    assert plots.panels(figure).count("<svg") == 1


def test_a_caption_that_says_left_says_first_where_the_panels_are_stacked():
    caption = "Left: one curve. Right, another; what is left of it, from right to left, is the rest."
    text = plots.card("<svg></svg><svg></svg>", caption=caption)
    assert 'data-narrow="First">Left</span>: one' in text and 'data-narrow="Second">Right</span>, another' in text
    assert "what is left of it, from right to left, is the rest" in text
    assert f"{caption}</figcaption>" in plots.card("<svg></svg>", caption=caption)  # nothing is stacked


def test_show_gives_a_card_a_picture_for_previews_and_words(shown):
    plots.show(_curves(), alt="Two curves.", title="One rises & one does not", caption="Both against x.")
    (bundle,) = shown
    assert bundle["text/plain"] == "Two curves."
    assert bundle["image/png"].startswith("iVBO")
    assert "<strong>One rises &amp; one does not</strong>Both against x." in bundle["text/html"]
    with pytest.raises(ValueError, match="alt"):
        plots.show(_curves(), alt=" ")


def test_a_figure_of_very_many_points_is_a_picture_on_a_light_card(shown):
    points = np.random.default_rng(0).normal(size=(2, 20_000))
    plots.show(plots.lines(X, {}, "x", "y", points={"": tuple(points)}), alt="A cloud.")
    assert "<svg" not in shown[0]["text/html"] and f"--ml-card:{plots.PALETTE['card']}" in shown[0]["text/html"]


def test_a_table_is_a_table_of_rounded_numbers(shown):
    plots.table({"MAML": [0.123456, 12345678], "FO-MAML": [float("nan"), 3]}, ["method", "loss", "gradients"])
    (bundle,) = shown
    assert re.findall(r"<td>(.*?)</td>", bundle["text/html"]) == ["0.123", "1.23\u00a0×\u00a010⁷", "–", "3"]
    assert bundle["text/html"].count('scope="row"') == 2 and "MAML" in bundle["text/plain"]
    with pytest.raises(ValueError, match="row 'MAML' has 1 cells"):
        plots.table({"MAML": [1.0]}, ["method", "loss", "gradients"])


def test_a_number_of_a_table_stays_with_its_unit(shown):
    plots.table({"FO-MAML, K = 1": ["96.0 ± 0.2 %"]}, ["method", "accuracy"])
    assert "FO-\u2060MAML, K\u00a0=\u00a01<" in shown[0]["text/html"]
    assert "<td>96.0\u00a0±\u00a00.2\u00a0%</td>" in shown[0]["text/html"]


@pytest.mark.parametrize("draw", DIAGRAMS, ids=lambda draw: draw.__name__)
def test_a_diagram_is_an_svg_within_its_sheet(draw):
    svg = draw()
    root = ElementTree.fromstring(svg)
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height, text.text
    assert " id=" not in svg
    assert "rect" in diagrams.standalone(svg)


@pytest.mark.parametrize("number", [lesson.number for lesson in syllabus.LESSONS])
def test_each_lesson_opens_with_a_picture_that_says_what_it_shows(number):
    lesson = importlib.import_module(f"metalearn.course.lessons.lesson_{number}")
    halves = lesson.opening()
    for svg in halves:
        root = ElementTree.fromstring(svg)
        assert (root.get("width"), root.get("height")) == ("500", "300")
        assert not re.search(r"\bnan\b|\binf\b", svg)
    assert len(ElementTree.fromstring(halves[0]).get("aria-label")) > 100
    assert halves == lesson.opening()
