"""Every figure that the lessons draw, in one style, each with a text that says what is to be seen.

A figure follows the page's theme: it is drawn once, in the light colours, and shown as an SVG whose colours are the CSS
variables of `palette.css`. Outside such a page (a repository's preview, a file) the light colours stand.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard, cast
from weakref import WeakSet

import numpy as np
from jaxtyping import Real, Shaped

if TYPE_CHECKING:  # loaded by the first figure, since the library is used without any
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

PALETTE_FILE = Path(__file__).with_name("palette.css")
PALETTE_CSS = PALETTE_FILE.read_text("utf-8")
PALETTE = {name: value for name, value in reversed(re.findall(r"--ml-(\w+): (#\w{6})", PALETTE_CSS))}  # the light one
_NAMES = {color: name for name, color in PALETTE.items()}
_OURS = re.compile(f"(?<!,)(?:{'|'.join(_NAMES)})")  # after a comma it is in a variable's place already
COLORS = tuple(PALETTE[name] for name in ("blue", "orange", "violet", "text", "teal", "muted"))
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 900  # of a figure of several panels, in CSS pixels
ALONE = 700  # of a figure of one panel, likewise: what is drawn larger is shrunk more on a narrow page, its text too
FONT_SIZE = 14  # of every text in it, likewise
_DPI = 100  # CSS pixels an inch
_ROW = 20  # from one line of text above the axes to the next, in CSS pixels
_MOST_SVG = 200_000  # characters; a longer drawing is shown as a picture
_FAR = 4  # an axis with a tick that is so many powers of ten away from 1 is marked in powers of ten
_LONG = 24  # characters; a column of a table with a longer cell is text, and begins at the left
_POINT = 72 / _DPI  # a CSS pixel in matplotlib's points
PANELS_CSS = """
.ml-panels{display:flex;justify-content:center}
.ml-panels svg{display:block;flex:0 1 auto;min-width:0;max-width:100%;height:auto;margin:0;overflow:visible}
@container (max-width:660px){.ml-panels{flex-wrap:wrap;gap:20px 0}.ml-panels svg{flex-shrink:0}}
@container (min-width:480px) and (max-width:660px){.ml-panels:has(>:nth-child(3))>svg{max-width:49%}}
"""
_CSS = (
    PANELS_CSS
    + """
.ml-figure{margin:16px auto;max-width:1120px;padding:16px 18px;container-type:inline-size;
border:1px solid var(--ml-line);border-radius:12px;
box-sizing:border-box;background:var(--ml-card);color:var(--ml-text);overflow-x:auto;
font:14px/1.45 var(--jp-ui-font-family,system-ui,sans-serif)}
.ml-figure figcaption{margin:0 0 10px;color:var(--ml-muted);font:inherit;text-align:left}
.ml-figure figcaption strong{display:block;font-size:17px;color:var(--ml-text)}
.ml-figure>svg{display:block;max-width:100%;height:auto;margin:0 auto;overflow:visible}
.jp-RenderedHTMLCommon:has(>.ml-figure){padding-right:0}
@container (max-width:660px){
.ml-side{font-size:0}
.ml-side::after{content:attr(data-narrow);font-size:14px}
}
@media (max-width:900px){.ml-figure{padding:14px 10px}}
.ml-figure table{border-collapse:collapse;margin:0;font:inherit;font-variant-numeric:tabular-nums;color:inherit}
.ml-figure :is(th,td){padding:5px 24px 5px 0;text-align:right;background:none;border:0;max-width:none;color:inherit}
.ml-figure tr{border-bottom:1px solid var(--ml-line);background:none!important}
.ml-figure thead th{color:var(--ml-muted);font-weight:400}
.ml-figure tbody tr:last-child{border:0}
.ml-figure :is(th,td):first-child{text-align:left}
.ml-figure text{paint-order:stroke;stroke:var(--ml-card);stroke-width:3px;stroke-linejoin:round}
.ml-figure>:is(svg,.ml-panels)~img{display:none}
.ml-figure>img{display:block;max-width:100%;height:auto;margin:0 auto}
"""
)
STYLE = f"<style>{PALETTE_CSS}{_CSS}</style>"  # of every figure, which also stands alone


_finished: WeakSet[Figure] = WeakSet()
_with_names: WeakSet[Axes] = WeakSet()


def _style() -> Any:
    from matplotlib.rcsetup import cycler

    return {
        "figure.dpi": _DPI,
        "figure.facecolor": PALETTE["card"],
        "savefig.facecolor": PALETTE["card"],
        "axes.facecolor": "none",
        "font.family": "DejaVu Sans",  # wider than the fonts of most systems: what fits here fits there
        "font.size": FONT_SIZE * _POINT,
        "text.color": PALETTE["text"],
        "axes.titlesize": "medium",
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": PALETTE["text"],
        "axes.labelcolor": PALETTE["muted"],
        "axes.edgecolor": PALETTE["muted"],
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.xmargin": 0.01,
        "axes.prop_cycle": cycler(color=COLORS, linestyle=DASHES),
        "figure.constrained_layout.wspace": 0.06,
        "grid.color": PALETTE["line"],
        "xtick.color": PALETTE["muted"],
        "ytick.color": PALETTE["muted"],
        "xtick.labelsize": "medium",
        "ytick.labelsize": "medium",
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "xtick.minor.size": 0,
        "legend.frameon": False,
        "legend.fontsize": "medium",
        "lines.linewidth": 1.8,
    }


def subplots(
    num_columns: int = 1, height: float = 3.2, width: float | None = None, **options: Any
) -> tuple[Figure, Shaped[np.ndarray, " {num_columns}"]]:
    """A figure of one row in the course's style.

    Args:
      num_columns: how many axes stand side by side.
      height: in hundreds of pixels.
      width: likewise; if it is not given, wide enough for the columns, and legible on a narrow page.
      **options: handed to matplotlib's `Figure.subplots`, for instance sharey=True.

    Returns:
      (figure, axes), with axes an array of shape [num_columns].

    Example:
      >>> import metalearn as ml
      >>> figure, axes = ml.plots.subplots(2)
      >>> curve = axes[0].plot([0, 100], [2.0, 0.5], label="MAML")
      >>> ml.plots.label(axes[0], "outer step", "query loss")
      >>> axes.shape, axes[0].get_xlabel()
      ((2,), 'outer step')
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    width = width or (ALONE if num_columns == 1 else WIDTH) / _DPI
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, num_columns, squeeze=False, **options)[0]
    steps, most = [1, 2, 2.5, 5, 10], 7 if num_columns == 1 and width > 5 else 5
    for each in axes:
        if options.get("sharey"):
            each.tick_params(labelleft=True)  # on a narrow page the panels stand below one another
        each.yaxis.set_major_locator(MaxNLocator(4, steps=steps))
        each.xaxis.set_major_locator(MaxNLocator(most, steps=steps))
    return figure, axes


def label(axes: Axes, x: str, y: str, title: str = "", legend: bool = True) -> None:
    """Names both axes, units included, and everything that has a label; curves are named at their right end.

    Example: see `subplots`.
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", weight="bold")
    if legend:
        _with_names.add(axes)  # `finish` puts the names where they belong, once all is drawn


def finish(figure: Figure, places: Sequence[Bbox] = ()) -> list[Bbox]:
    """Puts the names of curves and points beside them, and those of all else into a row above their axes.

    `show`, `svg` and `png` do this; only who draws a figure with matplotlib needs it.

    Args:
      figure: what to finish.
      places: where the axes stand, as an earlier call for a figure of the same axes returned them; saves the layout.

    Returns:
      The place of each axes.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> x = np.linspace(0, 6, 50)
      >>> figure = ml.plots.lines(x, {"sine": np.sin(x)}, "x", "y")
      >>> len(ml.plots.finish(figure))  # the place of one axes
      1
    """
    import matplotlib

    if figure in _finished:  # the name of y is gone from its axes, so a second time would misplace the title
        return [axes.get_position() for axes in figure.axes]
    _finished.add(figure)
    with matplotlib.rc_context(_style()):
        named = [(axes, *_claim_names(axes)) for axes in figure.axes]
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                _plain_ticks(axis)
        if len(places) != len(figure.axes):
            figure.draw_without_rendering()  # the layout, in which the names at the right edge already take their room
            places = [axes.get_position() for axes in figure.axes]
        figure.set_layout_engine("none")
        for axes, place in zip(figure.axes, places, strict=True):
            axes.set_position(place)
        for axes, ends, points in named:
            _spread_ends(axes, ends)
            _place_points(axes, points)
    return list(places)


def png(figure: Figure, dpi: float = 2 * _DPI) -> bytes:
    """The figure as a PNG picture in the light colours, at twice the size it is shown in.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> x = np.linspace(0, 6, 50)
      >>> figure = ml.plots.lines(x, {"sine": np.sin(x)}, "x", "y")
      >>> ml.plots.png(figure)[1:4]
      b'PNG'
    """
    finish(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=PALETTE["card"])
    return buffer.getvalue()


def svg(figure: Figure, alt: str = "", places: Sequence[Bbox] = ()) -> str:
    """The figure as an SVG element for a page: transparent, in the colours of the page's theme, else in the light ones.

    Args:
      figure: what to draw.
      alt: its alternative text; without one the drawing is hidden from screen readers.
      places: as for `finish`.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> x = np.linspace(0, 6, 50)
      >>> figure = ml.plots.lines(x, {"sine": np.sin(x)}, "x", "y")
      >>> ml.plots.svg(figure, alt="A sine curve.").startswith("<svg")
      True
    """
    finish(figure, places)
    figure.set_facecolor("none")
    width, height = (inches * _DPI for inches in figure.get_size_inches())
    return _element(figure, alt, 0, width, height)


def _element(figure: Figure, alt: str, left: float, right: float, height: float) -> str:
    """An SVG element of what is visible of a finished figure between two places, in CSS pixels."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metalearn"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # `savefig` draws all twice
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", drawing, flags=re.DOTALL)
    # Only clip paths and markers are referred to. Matplotlib's names for them change from run to run.
    used = {name: str(i) for i, name in enumerate(dict.fromkeys(re.findall(r"#([\w-]+)[\")]", drawing)))}
    drawing = re.sub(r' id="([^"]+)"', lambda found: f' id="@{used[found[1]]}"' if found[1] in used else "", drawing)
    drawing = re.sub(r'(xlink:href="#|url\(#)([\w-]+)', lambda found: f"{found[1]}@{used[found[2]]}", drawing)
    mine = "ml" + hashlib.sha256(drawing.encode()).hexdigest()[:8]  # one page holds many figures
    drawing = re.sub(r'( id="|#)@', rf"\g<1>{mine}-", drawing)
    drawing = re.sub(
        r"font: ([^;\"]*?[\d.]+px) [^;\"]*", r"font: \1 var(--jp-ui-font-family,system-ui,sans-serif)", drawing
    )
    drawing = re.sub(r">\s*\n\s*<", "><", drawing)
    # A hundredth of a point is finer than any screen, and a third of the digits.
    drawing = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), drawing)
    left, right, height = round(left), round(right), round(height)
    box = f'viewBox="{left * _POINT:g} 0 {(right - left) * _POINT:g} {height * _POINT:g}"'
    return element(drawing[drawing.index(">") + 1 : drawing.rindex("</svg>")], right - left, height, alt, box)


def panels(figure: Figure, alt: str = "", layout: Layout | None = None) -> str:
    """HTML of the figure as `svg` draws it, in which panels that stand side by side go below one another on a phone.

    Args:
      figure: what to draw.
      alt: as for `svg`.
      layout: that of an earlier figure of the same panels, as `layout_of` returned it; saves time.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> x = np.linspace(0, 6, 50)
      >>> figure = ml.plots.lines(x, {"sine": np.sin(x)}, "x", "y")
      >>> "A sine curve." in ml.plots.panels(figure, alt="A sine curve.")
      True
    """
    places, cuts = layout or layout_of(figure)
    finish(figure, places)
    columns = _columns_of(figure) if cuts else [figure.axes]
    height, width = figure.get_figheight() * _DPI, figure.get_figwidth() * _DPI
    edges, drawn = [0.0, *cuts, width], []
    shown = {each: each.get_visible() for each in (figure.patch, *figure.axes)}
    figure.patch.set_visible(False)  # it is as wide as all panels together, and would lie beside each of them
    for i, column in enumerate(columns):
        for axes in figure.axes:
            axes.set_visible(shown[axes] and axes in column)
        drawn.append(_element(figure, "" if i else alt, edges[i], edges[i + 1], height))
    for each, was in shown.items():  # a picture in pixels needs the ground
        each.set_visible(was)
    return f'<div class="ml-panels">{"".join(drawn)}</div>'


class Layout(NamedTuple):
    """Where the panels of a figure stand.

    Attributes:
      places: of each axes, as `finish` returns them.
      cuts: where one panel ends and the next one begins, in CSS pixels; empty if the figure cannot be taken apart.

    Example: see `layout_of`.
    """

    places: list[Bbox]
    cuts: list[float]


def layout_of(figure: Figure) -> Layout:
    """Finishes a figure and tells where its panels stand.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> x = np.linspace(0, 6, 50)
      >>> figure = ml.plots.lines(x, {"sine": np.sin(x)}, "x", "y")
      >>> layout = ml.plots.layout_of(figure)
      >>> len(layout.places), "<svg" in ml.plots.panels(figure, layout=layout)
      (1, True)
    """
    places = finish(figure)
    columns = _columns_of(figure)
    if len(columns) < 2 or figure.texts or figure.artists or figure.legends or figure.lines or figure.patches:
        return Layout(places, [])
    scale = figure.dpi / _DPI
    boxes = [[box for axes in column if (box := axes.get_tightbbox())] for column in columns]
    ends = [(min(box.x0 for box in each) / scale, max(box.x1 for box in each) / scale) for each in boxes]
    return Layout(places, [(a[1] + b[0]) / 2 for a, b in itertools.pairwise(ends)])


def _columns_of(figure: Figure) -> list[list[Axes]]:
    """The axes, those together that do not stand side by side; a color bar stands with what it explains."""
    columns: list[list[Axes]] = []
    for axes in figure.axes:
        x0 = axes.get_position().x0
        beside = columns and x0 > max(each.get_position().x1 for each in columns[-1])
        if beside and axes.get_label() != "<colorbar>":
            columns.append([axes])
        elif columns:
            columns[-1].append(axes)
        else:
            columns = [[axes]]
    return columns


def show(figure: Figure, alt: str, title: str = "", caption: str = "") -> None:
    """Displays a figure in a notebook: a card as wide as the text, in the colours of the page's theme.

    Args:
      figure: what to show; matplotlib's own inline display would lose the text.
      alt: one or two sentences that tell somebody who cannot see the figure what is to be seen.
      title: the finding, as a sentence.
      caption: what is drawn.

    Raises:
      ValueError: if alt is empty.

    Example:
      A notebook shows the card; here what is displayed is caught as text:

      >>> import contextlib, io, metalearn as ml
      >>> figure, _ = ml.plots.subplots()
      >>> with contextlib.redirect_stdout(io.StringIO()) as displayed:
      ...     ml.plots.show(figure, alt="Empty axes.", title="Nothing was drawn")
      >>> "Empty axes." in displayed.getvalue()
      True
    """
    if not alt.strip():
        raise ValueError("alt must say what the figure shows.")
    drawing, data = panels(figure, alt), base64.b64encode(_few_colors(png(figure, 1.5 * _DPI))).decode()
    width = round(figure.get_figwidth() * _DPI)
    picture = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" width="{width}">'
    if len(drawing) > _MOST_SVG:
        content = card(picture, title, caption, light=True)
    else:  # the picture is for viewers that strip SVG
        content = card(drawing + picture, title, caption)
    _display({"text/html": content, "image/png": data, "text/plain": alt}, {"image/png": {"width": width}})


def _few_colors(picture: bytes) -> bytes:
    """A PNG picture with a palette, which takes a third of the room; lines and text keep their colours."""
    from PIL import Image

    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return small.getvalue()


def element(content: str, width: float, height: float, alt: str = "", box: str = "") -> str:
    """An SVG element of some drawing: light colours become those of the theme, and text stays readable on lines.

    Args:
      content: what is drawn, with the colours of `PALETTE`.
      width: of the element, in CSS pixels; shrunk where there is less room.
      height: likewise.
      alt: alternative text; without one the drawing is hidden from screen readers.
      box: a viewBox attribute, if the content is not in CSS pixels.

    Example:
      >>> import metalearn as ml
      >>> ml.plots.element("<circle r='4'/>", 20, 10).startswith("<svg")
      True
    """
    role = f'role="img" aria-label="{html.escape(alt)}"' if alt else 'aria-hidden="true"'
    box = box or f'viewBox="0 0 {width:g} {height:g}"'
    content = _OURS.sub(lambda found: f"var(--ml-{_NAMES[found[0]]},{found[0]})", content)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {role} width="{width:g}" '
        f'height="{height:g}" {box}>{content}</svg>'
    )


def card(content: str, title: str = "", caption: str = "", light: bool = False) -> str:
    """HTML of a card that holds a picture or a table under a title that states the finding.

    Args:
      content: HTML or an SVG element.
      title: the finding, as a sentence.
      caption: what is shown.
      light: keep the light colours in a dark theme, for a picture that has them.

    Example:
      >>> import metalearn as ml
      >>> "A finding" in ml.plots.card("<p>Anything</p>", title="A finding")
      True
    """
    said = html.escape(caption.replace(" %", "\u00a0%"))
    said = _sides(said) if content.count("<svg") > 1 else said
    heading = f"<strong>{html.escape(title)}</strong>" * bool(title) + said
    colors = "".join(f"--ml-{name}:{color};" for name, color in PALETTE.items()) if light else ""
    return (
        f'{STYLE}<figure class="ml-figure" style="{colors}">'
        f"{f'<figcaption>{heading}</figcaption>' if heading else ''}{content}</figure>"
    )


def _sides(caption: str) -> str:
    """A caption that says "First" for "Left" where the panels do not stand side by side."""

    def both(found: re.Match[str]) -> str:
        narrow = {"Left": "First", "Right": "Second"}[found[0]]
        return f'<span class="ml-side" data-narrow="{narrow}">{found[0]}</span>'

    return re.sub(r"\b(?:Left|Right)(?=[:,])", both, caption)


def table(
    rows: dict[str, Sequence[Any]], columns: Sequence[str], title: str = "", caption: str = "", digits: int = 3
) -> None:
    """Displays a table: one row for each name, numbers rounded, what is not finite as a dash.

    Args:
      rows: name of the row -> its cells, as many as there are columns; numbers or text.
      columns: their headings; the first one heads the names of the rows, so there is one more than cells in a row.
      title: the finding, as a sentence.
      caption: what is shown.
      digits: significant digits of a number that is not whole.

    Raises:
      ValueError: if a row has another number of cells than there are columns.

    Example:
      A notebook shows the card; here what is displayed is caught as text:

      >>> import contextlib, io, metalearn as ml
      >>> with contextlib.redirect_stdout(io.StringIO()) as displayed:
      ...     ml.plots.table({"MAML": [0.123456], "FO-MAML": [0.5]}, ["method", "query loss"])
      >>> "0.123" in displayed.getvalue(), "0.1234" in displayed.getvalue()
      (True, False)
    """
    for name, cells in rows.items():
        if len(cells) != len(columns) - 1:
            raise ValueError(f"row {name!r} has {len(cells)} cells, but there are {len(columns) - 1} columns for them.")
    text = {name: [number(cell, digits) for cell in cells] for name, cells in rows.items()}
    long = [any(len(cells[i]) > _LONG for cells in text.values()) for i in range(len(columns) - 1)]
    sides = [' style="text-align:left"' if each else "" for each in long]
    head = "".join(
        f'<th scope="col"{side}>{_cell(column)}</th>' for side, column in zip(["", *sides], columns, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{_cell(name)}</th>'
        + "".join(f"<td{side}>{_cell(cell)}</td>" for side, cell in zip(sides, cells, strict=True))
        + "</tr>"
        for name, cells in text.items()
    )
    lines_of_text = [list(columns), *([name, *cells] for name, cells in text.items())]
    widths = [max(map(len, column)) for column in zip(*lines_of_text, strict=True)]
    plain = "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines_of_text
    )
    content = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    _display({"text/html": card(content, title, caption), "text/plain": plain})


def _cell(text: str) -> str:
    """HTML of a cell of a table, which breaks no name at its hyphen, and no number or equation at its signs."""
    escaped = html.escape(text).replace("-", "-\u2060")
    return re.sub(r" (?=[×±=] |%)|(?<=[×±=]) ", "\u00a0", escaped)


def number(value: Any, digits: int = 3) -> str:
    """A number as a reader wants it: rounded, with a true minus and powers of ten; what is not finite is a dash.

    >>> from metalearn.plots import number
    >>> number(0.00001234), number(-1234567.0), number(0.5), number(float("nan")), number(12_000)
    ('1.23 × 10⁻⁵', '−1.23 × 10⁶', '0.5', '–', '12,000')
    """
    if isinstance(value, str | bool):
        return str(value)
    value = float(value)
    if not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g} × {_power(int(power))}".replace("-", "−")
    decimals = 0 if value == round(value) or not value else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def display_card(content: str, alt: str, title: str = "", caption: str = "") -> None:
    """Displays an SVG element as a card; its alternative text is what a terminal gets.

    Example: see `show`.
    """
    _display({"text/html": card(content, title, caption), "text/plain": alt})


def _display(bundle: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
    from IPython.display import display  # only notebooks call this

    display(bundle, metadata=metadata or {}, raw=True)


def lines(
    x: Real[np.ndarray, " n"],
    curves: dict[str, Real[np.ndarray, " n"]],
    xlabel: str,
    ylabel: str,
    *,
    points: dict[str, tuple[Any, Any]] | None = None,
    title: str = "",
    log: str = "",
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Curves over one x, each with its own colour and dash, and marked points.

    Args:
      x: shape [n].
      curves: label -> array of shape [n].
      xlabel: name and unit of x.
      ylabel: name and unit of the curves.
      points: label -> (x, y), each a number or an array; drawn as markers, and a single one is named where it stands.
      title: above the axes; of several panels, each needs one, while a figure's own title is given to `show`.
      log: which axes are logarithmic: "", "x", "y" or "xy".
      xlim: (left, right) of the x axis.
      ylim: (bottom, top) of the y axis.
      axes: draw here, in a figure made by `subplots`, rather than in a new one.

    Returns:
      The figure.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> x = np.linspace(0, 6, 50)
      >>> figure = ml.plots.lines(x, {"sine": np.sin(x), "cosine": np.cos(x)}, "x", "y", title="Two waves")
      >>> len(figure.axes[0].lines)
      2
    """
    if axes is None:
        _, (axes,) = subplots()
    if not curves:
        axes.margins(x=0.05)
    for name, y in curves.items():
        axes.plot(x, np.asarray(y), label=name)
    for i, (name, (px, py)) in enumerate((points or {}).items()):
        axes.plot(
            px,
            py,
            label=name,
            color=PALETTE["text"],
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=8 * _POINT,
            markerfacecolor=PALETTE["card"],
            zorder=3,
        )
    if "x" in log:
        axes.set_xscale("log", base=2 if len(x) < 20 else 10)
        if len(x) < 20:  # few values: name each one
            axes.set_xticks(x, [_tick(value) for value in x])
            axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
    axes.set(**{name: limits for name, limits in (("xlim", xlim), ("ylim", ylim)) if limits is not None})
    label(axes, xlabel, ylabel, title)
    return _figure_of(axes)


def adaptation(
    curves: dict[str, Real[np.ndarray, "steps num_tasks"]], ylabel: str = "query loss", log: str = ""
) -> Figure:
    """Loss against inner steps: the mean over tasks, in a band that is its 95 % confidence interval.

    Args:
      curves: label -> array of shape [num_steps + 1, num_tasks], as `evaluate.adaptation_curve` returns it.
      ylabel: what the arrays hold, with its unit.
      log: "" or "y".

    Returns:
      The figure.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> figure = ml.plots.adaptation({"MAML": np.array([[4.0, 3.0], [1.0, 2.0]])})  # one step, two tasks
      >>> figure.axes[0].get_ylabel()
      'query loss'
    """
    figure, (axes,) = subplots()
    for i, (name, values) in enumerate(curves.items()):
        values = np.asarray(values)
        mean, half_width = values.mean(1), 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        steps = np.arange(len(mean))
        (line,) = axes.plot(steps, mean, marker=MARKERS[i % len(MARKERS)], markersize=6 * _POINT, label=name)
        axes.fill_between(steps, mean - half_width, mean + half_width, color=line.get_color(), alpha=0.2, linewidth=0)
    if "y" in log:
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    label(axes, "inner steps", ylabel)
    return figure


def _figure_of(axes: Axes) -> Figure:
    return cast("Figure", axes.get_figure(root=True))


def _claim_names(axes: Axes) -> tuple[list[Annotation], list[_Name]]:
    """Names what has a label: (names at the right ends of curves, names at places within); the rest gets a legend.

    All rows above the axes are stacked here too: the name of y, the legend, the title.
    """
    from matplotlib.colors import to_hex
    from matplotlib.transforms import ScaledTranslation

    figure = _figure_of(axes)
    handles, names = axes.get_legend_handles_labels() if axes in _with_names else ([], [])
    above = 0.4
    if axes.get_ylabel():
        name = {"xytext": (0, above * _ROW * _POINT), "textcoords": "offset points", "color": PALETTE["muted"]}
        axes.annotate(axes.get_ylabel(), (0, 1), xycoords="axes fraction", annotation_clip=False, **name)
        axes.set_ylabel("")
        axes.yaxis.set_label_coords(0, 0.5)  # else each drawing measures all ticks to find a place for it
        above += 1
    ends: list[Annotation] = []
    within: list[_Name] = []
    if handles:
        room = 0.3 * figure.get_figwidth() * _DPI / len(figure.axes)
        curves = [(line, name) for line, name in zip(handles, names, strict=True) if _is_curve(line)]
        points = [(line, name) for line, name in zip(handles, names, strict=True) if _is_point(line)]
        within = [_Name(name, np.asarray(line.get_xydata())[0], PALETTE["text"], True) for line, name in points]
        if all(0.62 * FONT_SIZE * len(name) <= room for _, name in curves) and len(curves) <= len(COLORS):
            alone = [line for line, _ in points + curves]
            for line, name in curves:
                if (place := _exit(axes, line)) is None:
                    ends.append(_name_at_end(axes, line, name))
                else:
                    within.append(_Name(name, place, to_hex(line.get_color()), False))
        else:
            alone = [line for line, _ in points]
        rest = [(handle, name) for handle, name in zip(handles, names, strict=True) if handle not in alone]
        if rest:
            offset = ScaledTranslation(0, above * _ROW / _DPI, figure.dpi_scale_trans)
            axes.legend(
                *zip(*rest, strict=True),
                loc="lower left",
                bbox_to_anchor=(0, 1),
                bbox_transform=axes.transAxes + offset,
                borderaxespad=0,
                borderpad=0,
                ncols=_columns(rest, room / 0.3),
                handlelength=1.8,
                columnspacing=1.5,
            )
            above += 1.08 * math.ceil(len(rest) / _columns(rest, room / 0.3))  # a legend's rows are higher
    # With a place of its own no title is moved while drawing, which would take a fifth of the time.
    axes.set_title(axes.get_title("left"), loc="left", pad=(above + 0.1) * _ROW * _POINT, y=1.0)
    return ends, within


class _Name(NamedTuple):
    text: str
    place: Real[np.ndarray, " 2"]  # in data coordinates
    color: str
    marked: bool  # whether a marker stands there


def _is_curve(handle: Artist) -> TypeGuard[Line2D]:
    from matplotlib.lines import Line2D

    return isinstance(handle, Line2D) and handle.get_linestyle() != "None" and np.size(handle.get_xdata()) > 1


def _is_point(handle: Artist) -> TypeGuard[Line2D]:
    from matplotlib.lines import Line2D

    return isinstance(handle, Line2D) and np.size(handle.get_xdata()) == 1


def _columns(named: Sequence[tuple[Artist, str]], room: float) -> int:
    """How many names of a legend fit side by side."""
    widest = max(0.62 * FONT_SIZE * len(name) + 4 * FONT_SIZE for _, name in named)
    return max(1, min(len(named), int(room / widest)))


def _visible(axes: Axes, line: Line2D) -> Real[np.ndarray, "n 2"]:
    places = np.asarray(line.get_xydata(), float)
    low, high = sorted(axes.get_ylim())
    seen = np.isfinite(places).all(1) & (places[:, 1] >= low) & (places[:, 1] <= high)
    return places[seen & (places[:, 0] <= max(axes.get_xlim()))]


def _exit(axes: Axes, line: Line2D) -> Real[np.ndarray, " 2"] | None:
    """Where to name a curve that leaves the axes through top or bottom: a little before it does."""
    seen = _visible(axes, line)
    if not len(seen):
        return None
    places = axes.transAxes.inverted().transform(axes.transData.transform(seen))
    if places[-1, 0] > 0.9:
        return None
    inner = np.flatnonzero(np.abs(places[:, 1] - 0.5) < 0.35)
    return seen[inner[-1] if len(inner) else -1]


def _name_at_end(axes: Axes, line: Line2D, name: str) -> Annotation:
    """The name of a curve right of the axes, for now at the height of the curve's last visible point."""
    seen = _visible(axes, line)
    return axes.annotate(
        name,
        (1, seen[-1, 1] if len(seen) else axes.get_ylim()[0]),
        xycoords=axes.get_yaxis_transform(),
        xytext=(8 * _POINT, 0),
        textcoords="offset points",
        va="center",
        color=line.get_color(),
        weight="bold",
        annotation_clip=False,
    )


def _spread_ends(axes: Axes, ends: Sequence[Annotation]) -> None:
    """Moves names that would overlap apart, each as little as possible."""
    if not ends:
        return
    pixels = _figure_of(axes).dpi / _DPI
    bounds = axes.get_window_extent()
    wanted = np.array([axes.transData.transform((axes.get_xlim()[1], end.xy[1]))[1] for end in ends]) / pixels
    gap, order = 1.25 * FONT_SIZE, np.argsort(wanted, kind="stable")
    groups: list[list[float]] = []  # names that touch, as [mean place of the lowest, their number]
    for rank, i in enumerate(order):
        groups.append([wanted[i] - rank * gap, 1])
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    places = np.repeat([place for place, _ in groups], [int(size) for _, size in groups])
    low, high = bounds.y0 / pixels, bounds.y1 / pixels - (len(ends) - 1) * gap
    places = np.clip(places, low, max(low, high)) + gap * np.arange(len(ends))
    for i, place in zip(order, places, strict=True):
        ends[i].set_position((8 * _POINT, (place - wanted[i]) * _POINT))


def _place_points(axes: Axes, names: Sequence[_Name]) -> None:
    """Puts names beside their places, where they cover least of curves, markers and other names."""
    scale = _figure_of(axes).dpi / _DPI
    bounds = axes.get_window_extent()
    places = [axes.transData.transform(name.place) / scale for name in names]
    obstacles = [(x - 5, y - 5, x + 5, y + 5) for name, (x, y) in zip(names, places, strict=True) if name.marked]
    drawn = np.concatenate([np.zeros([0, 2]), *(_pixels(axes, line) / scale for line in axes.lines if _is_curve(line))])
    for name, (x, y) in zip(names, places, strict=True):
        width, height = 0.6 * FONT_SIZE * len(name.text), 1.1 * FONT_SIZE

        def cost(place: tuple[float, float], x: float = x, y: float = y, w: float = width, h: float = height) -> float:
            left, bottom = x + place[0] * (w / 2 + 9) - w / 2, y + place[1] * (h / 2 + 7) - h / 2
            right, top = left + w, bottom + h
            inside = bounds.x0 / scale <= left and right <= bounds.x1 / scale and bounds.y0 / scale <= bottom
            hit = sum(left < o[2] and o[0] < right and bottom < o[3] and o[1] < top for o in obstacles)
            curve = (
                np.mean((left < drawn[:, 0]) & (drawn[:, 0] < right) & (bottom < drawn[:, 1]) & (drawn[:, 1] < top))
                if len(drawn)
                else 0.0
            )
            return 10 * hit + 20 * (not inside or top > bounds.y1 / scale) + 100 * curve + 0.01 * math.hypot(*place)

        around = [
            (0, 1),
            (0, -1),
            (1, 0),
            (-1, 0),
            (1, 1),
            (-1, 1),
            (1, -1),
            (-1, -1),
            (0, 2),
            (0, -2.2),
            (1, 2),
            (-1, 2),
        ]
        dx, dy = min(around, key=cost)
        px, py = dx * (width / 2 + 9), dy * (height / 2 + 7)
        obstacles.append((x + px - width / 2, y + py - height / 2, x + px + width / 2, y + py + height / 2))
        axes.annotate(
            name.text,
            tuple(name.place),
            xytext=(dx * 9 * _POINT, py * _POINT),
            textcoords="offset points",
            ha={0: "center", 1: "left", -1: "right"}[int(dx)],
            va="center",
            weight="bold",
            color=name.color,
            annotation_clip=False,
        )


def _pixels(axes: Axes, line: Line2D) -> Real[np.ndarray, "n 2"]:
    """Points every few pixels along a curve."""
    places = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))
    places = places[np.isfinite(places).all(1)]
    if len(places) < 2:
        return places
    travelled = np.concatenate([[0], np.cumsum(np.abs(np.diff(places, axis=0)).sum(1))])
    even = np.linspace(0, travelled[-1], 300)
    return np.column_stack([np.interp(even, travelled, places[:, i]) for i in range(2)])


def _plain_ticks(axis: Axis) -> None:
    """Few ticks, written as text and not as mathematics, which would be set for the widths of another font."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator, ScalarFormatter

    axis.set_minor_locator(NullLocator())
    fixed, low, high = isinstance(axis.get_major_locator(), FixedLocator), *sorted(axis.get_view_interval())
    if not fixed and axis.get_scale() == "log":
        base = axis.get_transform().base  # type: ignore[attr-defined]
        decades = math.log(high / low, 10)
        subs = (1.0,) if decades > 1.5 else (1.0, 2.0, 5.0) if decades > 0.7 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(base, subs if base == 10 else (1.0,), numticks=6))
    elif axis.get_scale() != "log" and isinstance(axis.get_major_formatter(), ScalarFormatter):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 6)))
    if fixed:  # its names may go by the number of the place
        return
    # A locator also names places beyond both ends, and for each of them matplotlib makes five things it never draws.
    places = np.asarray(axis.get_majorticklocs(), float)
    first, last, *at = axis.get_transform().transform(np.array([low, high, *places]))
    slack = 1e-6 * (last - first)
    seen = [place for place, x in zip(places, at, strict=True) if first - slack <= x <= last + slack]
    axis.set_major_locator(FixedLocator(seen))
    if axis.get_scale() == "log":
        far = any(abs(math.log10(place)) >= _FAR for place in seen)  # then all of them are powers, not some
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, 0 if far else _FAR)))


def _tick(value: float, far: int = _FAR) -> str:
    """A number at a logarithmic axis: a power of ten beyond 10^far as such, never in a computer's notation."""
    exponent = math.log10(value) if value > 0 else 0.5
    return _power(round(exponent)) if abs(exponent) >= far and not exponent % 1 else number(value)
