"""Diagrams of the course's central ideas, drawn by code in one style that follows the page's theme.

Circles are parameters, arrows are steps, and a formula stands beside the arrow that makes it. Blue is forward (adapt),
orange is backward (differentiate). Every diagram is an SVG element; `show` displays one as a card, `standalone` makes a
file of it.
"""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from metalearn import plots

BLUE, ORANGE, TEXT, MUTED, LINE, CARD = (
    plots.PALETTE[name] for name in ("blue", "orange", "text", "muted", "line", "card")
)
WIDTH, HEIGHT = 470, 240  # of a diagram, in CSS pixels
MARGIN = 18  # of a drawing on its own card
_RADIUS = 21  # of a node
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Drawing:
    """A sheet to draw on, in CSS pixels from its upper left corner."""

    def __init__(self, width: float = WIDTH, height: float = HEIGHT) -> None:
        """An empty sheet."""
        self.width, self.height = width, height
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        color: str = TEXT,
        anchor: str = "middle",
        bold: bool = False,
        size: int = 14,
    ) -> None:
        """Text on the baseline y; anchor is "start", "middle" or "end"."""
        style = f"font:{'bold ' * bold}{size}px var(--jp-ui-font-family,system-ui,sans-serif);fill:{color}"
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{style}">{html.escape(text)}</text>'
        )

    def path(
        self,
        points: Iterable[Sequence[float]],
        color: str = TEXT,
        dash: str = "",
        width: float = 1.8,
        fill: str = "none",
    ) -> None:
        """A line through points; fill closes it."""
        data = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points) + "Z" * (fill != "none")
        self._shape(f'<path d="{data}"', color, dash, width, fill)

    def node(self, x: float, y: float, text: str, color: str = BLUE, filled: bool = False) -> None:
        """A circle with parameters in it; the initialization is filled."""
        self._shape(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}"', color, "", 1.8, color if filled else CARD)
        # no halo: it would cut a filled circle
        style = f"font:italic 16px Georgia,serif;fill:{CARD if filled else TEXT};stroke:none"
        self._parts.append(f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle" style="{style}">{text}</text>')

    def point(self, x: float, y: float, color: str = BLUE, filled: bool = True) -> None:
        """A decisive point of a curve."""
        self._shape(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"', color, "", 2, color if filled else CARD)

    def box(self, x: float, y: float, width: float, height: float, color: str = LINE, fill: str = CARD) -> None:
        """A rounded box from its upper left corner."""
        self._shape(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="10"', color, "", 1.5, fill
        )

    def band(self, x: float, y: float, width: float, height: float, color: str = BLUE) -> None:
        """A tinted ground without an edge."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="10" '
            f'style="fill:{color};fill-opacity:.1"/>'
        )

    def arrow(
        self, start: Sequence[float], end: Sequence[float], color: str = BLUE, bend: float = 0.0, dash: str = ""
    ) -> None:
        """An arrow; bend moves its middle to the right of its direction, in pixels (on a page whose y points down)."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        mx, my = (x0 + x1) / 2 - 2 * bend * (y1 - y0) / length, (y0 + y1) / 2 + 2 * bend * (x1 - x0) / length
        towards = math.atan2(y1 - my, x1 - mx)
        stop = (x1 - 8 * math.cos(towards), y1 - 8 * math.sin(towards))  # the tip is the head's, not the line's
        data = f"M{x0:.1f},{y0:.1f}Q{mx:.1f},{my:.1f} {stop[0]:.1f},{stop[1]:.1f}"
        self._shape(f'<path d="{data}"', color, dash, 1.8, "none")
        wings = [(x1 - 11 * math.cos(towards + side), y1 - 11 * math.sin(towards + side)) for side in (0.42, -0.42)]
        self.path([(x1, y1), *wings], color, width=0, fill=color)

    def put(self, element: str, x: float, y: float) -> None:
        """Another SVG element, its upper left corner at (x, y)."""
        self._parts.append(f'<g transform="translate({x:g},{y:g})">{element}</g>')

    def svg(self, alt: str = "") -> str:
        """All of it as an SVG element that follows the theme."""
        return plots.element("".join(self._parts), self.width, self.height, alt)

    def _shape(self, tag: str, color: str, dash: str, width: float, fill: str) -> None:
        dashed = f";stroke-dasharray:{dash}" if dash else ""
        self._parts.append(f'{tag} style="fill:{fill};stroke:{color};stroke-width:{width:g}{dashed}"/>')


def show(element: str, alt: str, title: str = "", caption: str = "") -> None:
    """Displays a diagram as a card.

    Args:
      element: the SVG, as the functions of this module return it.
      alt: what it shows, for somebody who cannot see it.
      title: the finding, as a sentence.
      caption: what is drawn.

    Raises:
      ValueError: if alt is empty.
    """
    if not alt.strip():
        raise ValueError("alt must say what the diagram shows.")
    labelled = element.replace('aria-hidden="true"', f'role="img" aria-label="{html.escape(alt)}"', 1)
    plots.display_card(labelled, alt, title, caption)


def standalone(element: str) -> str:
    """The text of an SVG file: the drawing in the light colours on a light card, with a margin."""
    found = re.search(r'width="([\d.]+)" height="([\d.]+)" viewBox="[^"]*">', element)
    assert found is not None
    width, height = (float(side) + 2 * MARGIN for side in found.groups())
    size = f'width="{width:g}" height="{height:g}"'
    style = f"<style>text{{paint-order:stroke;stroke:{CARD};stroke-width:3px;stroke-opacity:.5}}</style>"
    card = f'<rect x="{-MARGIN}" y="{-MARGIN}" {size} rx="12" style="fill:{CARD}"/>'
    start = f'{element[: found.start()]}{size} viewBox="{-MARGIN} {-MARGIN} {width:g} {height:g}">{style}{card}'
    light = re.sub(r"var\(--ml-\w+,(#\w+)\)", r"\1", start + element[found.end() :])
    return light.replace("var(--jp-ui-font-family,system-ui,sans-serif)", "sans-serif")


def opening(left: str, right: str, titles: Sequence[str], captions: Sequence[str], alt: str) -> tuple[str, str]:
    """The picture on top of a lesson, in two halves: first what happens, then why.

    Args:
      left: an SVG element of at most 480 x 245 pixels, mostly `plot(...)`.
      right: likewise.
      titles: of both halves.
      captions: of both halves.
      alt: what is to be seen in both, for somebody who cannot see it.

    Returns:
      Two SVG elements of 500 x 300 pixels, to be shown beside or below one another. The first has `alt`.
    """
    halves, alts = [], (alt, f"The second half of the picture: {titles[1]}")
    for title, caption, element, described in zip(titles, captions, (left, right), alts, strict=True):
        sheet = Drawing(500, 300)
        sheet.text(0, 17, title, bold=True, size=16, anchor="start")
        sheet.text(0, 38, caption, color=MUTED, anchor="start")
        sheet.put(element, 0, 54)
        halves.append(sheet.svg(described))
    return halves[0], halves[1]


def two_loops() -> str:
    """The inner loop adapts to one task; the outer loop moves the initialization from which it does."""
    d = Drawing()
    d.band(75, 30, 385, 118)
    d.text(450, 50, "inner loop: one task", BLUE, "end", bold=True)
    xs = (50, 160, 270, 380)
    for i, x in enumerate(xs):
        if i:
            d.arrow((xs[i - 1] + _RADIUS + 2, 95), (x - _RADIUS - 3, 95))
            d.text((xs[i - 1] + x) / 2, 84, "−α∇h", MUTED, size=13)
        d.node(x, 95, ("θ", "φ₁", "φ₂", "φ₃")[i], filled=not i)
    d.text(265, 137, "support set", MUTED, size=13)
    d.arrow((380 + _RADIUS + 2, 95), (436, 95))
    d.text(448, 100, "f")
    d.arrow((448, 112), (60, 118), ORANGE, bend=-62)
    d.text(265, 202, "−η∇F, the mean over tasks", ORANGE, size=13)
    d.text(265, 228, "outer loop: the query loss moves θ", ORANGE, bold=True)
    return d.svg()


def support_and_query() -> str:
    """A task: the support set adapts the parameters, the query set judges the result."""
    d = Drawing()
    d.band(0, 20, 470, 200)
    d.text(14, 42, "one task", MUTED, "start")
    d.box(20, 60, 110, 44, BLUE)
    d.text(75, 87, "support set", BLUE, bold=True)
    d.box(20, 154, 110, 44, ORANGE)
    d.text(75, 181, "query set", ORANGE, bold=True)
    d.node(190, 135, "θ", filled=True)
    d.node(330, 135, "φ", BLUE)
    d.arrow((213, 135), (306, 135))
    d.arrow((132, 82), (258, 128), BLUE, bend=-14)
    d.text(262, 88, "adapt: lower h", BLUE, size=13)
    d.arrow((353, 135), (432, 135), ORANGE)
    d.arrow((132, 177), (392, 143), ORANGE, bend=26)
    d.text(448, 140, "f")
    d.text(330, 210, "judge: the loss f(φ)", ORANGE, size=13)
    return d.svg()


def backward_pass(num_steps: int = 3) -> str:
    """Backpropagation through the inner loop: one factor (I − αH) a step, from the last step to the first."""
    d = Drawing()
    xs = np.linspace(30, 345, num_steps + 1)
    d.text(30 - _RADIUS, 32, f"inner loop: {num_steps} steps on the support loss h", BLUE, "start", bold=True)
    for i, x in enumerate(xs):
        if i:
            d.arrow((xs[i - 1] + _RADIUS + 2, 85), (x - _RADIUS - 3, 85))
            d.text((xs[i - 1] + x) / 2, 74, "−α∇h", MUTED, size=13)
            d.arrow((x - 12, 85 + 22), (xs[i - 1] + 12, 85 + 22), ORANGE, bend=-30)
            d.text((xs[i - 1] + x) / 2, 160, f"I − αH{i - 1}".translate(_SUBSCRIPTS), ORANGE, size=13)
    for i, x in enumerate(xs):
        d.node(x, 85, f"φ{i}".translate(_SUBSCRIPTS) if i else "θ", filled=not i)
    d.arrow((xs[-1] + _RADIUS + 2, 85), (425, 85))
    d.text(438, 90, "f")
    d.arrow((440, 102), (xs[-1] + 12, 107), ORANGE, bend=-30)
    d.text(400, 160, "∇f", ORANGE, size=13)
    factors = "".join(f"(I−αH{i})" for i in range(num_steps)).translate(_SUBSCRIPTS)
    d.text(
        30 - _RADIUS,
        212,
        f"backward pass: ∇F = {factors} ∇f(φ{str(num_steps).translate(_SUBSCRIPTS)})",
        ORANGE,
        "start",
        True,
    )
    return d.svg()


def plot(*args: Any, **options: Any) -> str:
    """`plots.lines` at half the width of an `opening`, as an SVG element."""
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    return plots.svg(plots.lines(*args, axes=axes, **options))


def composed() -> str:
    """scan runs the steps, vmap the tasks, and grad goes back through both."""
    d = Drawing()
    xs = (30, 130, 230, 330)
    for shift, color in ((20, MUTED), (10, MUTED), (0, BLUE)):
        for i, x in enumerate(xs):
            if i:
                d.arrow((xs[i - 1] + shift + _RADIUS + 2, 95 - shift), (x + shift - _RADIUS - 3, 95 - shift), color)
            text = ("θ", "φ₁", "φ₂", "φ₃")[i] if not shift else ""
            d.node(x + shift, 95 - shift, text, color, filled=not i and not shift)
    d.text(9, 32, "scan: one step after another", BLUE, "start", bold=True)
    d.text(388, 62, "vmap:", MUTED, "start", bold=True)
    d.text(388, 80, "all tasks", MUTED, "start")
    d.text(388, 97, "at once", MUTED, "start")
    d.text(345, 150, "loss", TEXT)
    d.arrow((330, 118), (338, 136), BLUE)
    d.arrow((322, 148), (34, 119), ORANGE, bend=-34)
    d.text(9, 218, "grad: the derivative of the whole run", ORANGE, "start", bold=True)
    return d.svg()


def shortcuts() -> str:
    """What MAML, FO-MAML and Reptile take back to the initialization."""
    d = Drawing()
    xs = (30, 130, 230, 330)
    for i, x in enumerate(xs):
        if i:
            d.arrow((xs[i - 1] + _RADIUS + 2, 40), (x - _RADIUS - 3, 40))
    d.arrow((330 + _RADIUS + 2, 40), (412, 40))
    for i, x in enumerate(xs):
        d.node(x, 40, ("θ", "φ₁", "φ₂", "φ₃")[i], filled=not i)
    d.text(424, 45, "f")
    rows = (
        ("MAML", "every factor (I − αH): exact", (330, 230, 130, 30), 424),
        ("FO-MAML", "every factor taken as I", (30,), 424),
        ("Reptile", "θ − φ₃, no query loss", (30,), 330),
    )
    for row, (name, text, stops, begin) in enumerate(rows):
        y = 96 + 56 * row
        for start, stop in zip((begin, *stops), stops, strict=False):
            d.arrow((start - 3, y), (stop + 3, y), ORANGE, dash="" if row == 0 else "6 4")
        d.point(begin, y, ORANGE)
        d.text(30, y + 22, name, ORANGE, "start", bold=True)
        d.text(424, y + 22, text, MUTED, "end", size=13)
    return d.svg()


def proximal_problem() -> str:
    """Any solver reaches the same minimum, and one linear solve there gives the meta-gradient."""
    d = Drawing()
    start, end = (55, 76), (335, 76)
    d.band(0, 6, 470, 180)
    for bend, name, y in ((-26, "gradient descent", 30), (26, "Adam, Newton, …", 131)):
        d.arrow(
            (start[0] + 20, start[1] + math.copysign(10, bend)),
            (end[0] - 20, end[1] + math.copysign(10, bend)),
            BLUE,
            bend,
            "6 4",
        )
        d.text(195, y, name, BLUE, size=13)
    d.node(*start, "θ", filled=True)
    d.node(*end, "φ*")
    d.text(195, 80, "minimum of h + λ/2 ‖φ − θ‖²", MUTED, size=13)
    d.arrow((end[0] + 23, 76), (418, 76))
    d.text(432, 81, "f")
    d.arrow((428, 94), (start[0], start[1] + 26), ORANGE, bend=-58)
    d.text(9, 216, "one linear system: (I + H/λ) ∇F = ∇f(φ*)", ORANGE, "start", bold=True)
    return d.svg()


def perturbed_problem(perturbation: float = 0.6) -> str:
    """The minimum of the inner problem, and where it goes when a little of the query loss is added."""
    phi = np.linspace(-1.6, 2.6, 120)
    objective, query = 0.5 * phi**2 + 0.5 * (phi + 0.4) ** 2, 0.5 * (phi - 2.0) ** 2
    perturbed = objective + perturbation * query
    d = Drawing()

    def place(x: float, y: float) -> tuple[float, float]:
        return 40 + (x + 1.6) / 4.2 * 390, 178 - 30 * y

    least = []
    for values, color, dash in ((objective, BLUE, ""), (perturbed, ORANGE, "6 4")):
        seen = values < 4.9
        d.path([place(x, y) for x, y in zip(phi[seen], values[seen], strict=True)], color, dash)
        least.append(place(phi[values.argmin()], values.min()))
        d.point(*least[-1], color)
    d.text(least[0][0] - 24, least[0][1] + 22, "φ(0)", BLUE, bold=True)
    d.text(least[1][0] + 10, least[1][1] - 14, "φ(ν)", ORANGE, bold=True)
    d.arrow((least[0][0], 206), (least[1][0], 206), ORANGE)
    for x, y in least:
        d.path([(x, y + 6), (x, 206)], MUTED, "2 3", 1)
    d.text(220, 34, "h + λ/2 ‖φ − θ‖² + ν f", ORANGE, bold=True)
    d.text(345, 150, "ν = 0", BLUE, "start", bold=True)
    d.text(9, 236, "∇F ≈ −λ (φ(ν) − φ(0)) / ν: two solves, first derivatives only", ORANGE, "start", bold=True)
    return d.svg()


def clipped_steps() -> str:
    """On a cliff a plain gradient step leaves the valley; a clipped one has a length that one chooses."""
    x = np.linspace(-3.2, 3.2, 160)
    height = np.cosh(1.5 * x)
    slope = 1.5 * np.sinh(1.5 * x)
    d = Drawing()

    def place(x: float) -> tuple[float, float]:
        return 235 + 76 * x, 185 - 3.2 * math.cosh(1.5 * x)

    seen = height < 48
    d.path([place(each) for each in x[seen]], MUTED)
    start = 2.6
    gradient = float(np.interp(start, x, slope))
    plain, clipped = start - 0.15 * gradient, start - 0.15 * min(gradient, 8.0)
    d.arrow(place(start), place(plain), ORANGE, bend=12, dash="6 4")
    d.arrow(place(start), place(clipped), BLUE, bend=-10)
    d.point(*place(start), TEXT)
    d.point(*place(clipped), BLUE)
    d.point(*place(plain), ORANGE, filled=False)
    d.text(place(start)[0] + 12, place(start)[1] + 4, "θ", TEXT, "start", bold=True)
    d.text(place(plain)[0] + 16, 40, "plain: θ − η∇F", ORANGE, "start", bold=True)
    d.text(place(clipped)[0] - 12, place(clipped)[1] - 12, "clipped", BLUE, "end", bold=True)
    d.text(9, 228, "clipped: θ − η ∇F · min(1, c / ‖∇F‖)", BLUE, "start", bold=True)
    return d.svg()


def fair_comparison() -> str:
    """Every method gets the same budget; validation tasks choose its settings, test tasks are used once."""
    d = Drawing()
    for i, name in enumerate(("MAML", "FO-MAML", "iMAML", "FO-B-MAML")):
        y = 28 + 44 * i
        d.box(4, y, 112, 34, BLUE)
        d.text(60, y + 22, name, BLUE, bold=True)
        d.arrow((120, y + 17), (174, 110), BLUE)
    d.box(178, 72, 136, 76, MUTED)
    d.text(246, 104, "validation tasks:", bold=True, size=13)
    d.text(246, 124, "choose", MUTED, size=13)
    d.arrow((318, 110), (350, 110), BLUE)
    d.box(354, 72, 112, 76, ORANGE)
    d.text(410, 104, "test tasks:", ORANGE, bold=True)
    d.text(410, 124, "report once", MUTED, size=13)
    d.text(4, 228, "one budget, one tuning, several seeds", TEXT, "start", bold=True)
    return d.svg()


def adjoint() -> str:
    """Forward along the gradient flow, which is stored, and backward along it to the meta-gradient."""
    d = Drawing()
    time = np.linspace(0, 1, 60)
    forward = [(45 + 345 * t, 40 + 62 * (1 - math.exp(-3 * t))) for t in time]
    backward = [(45 + 345 * t, 188 - 42 * math.exp(-2.2 * (1 - t))) for t in time]
    d.text(9, 20, "forward: dφ/dt = −∇h(φ), stored", BLUE, "start", bold=True)
    d.path(forward[:-2], BLUE)
    d.arrow(forward[-3], forward[-1], BLUE)
    d.path(backward[2:], ORANGE)
    d.arrow(backward[2], backward[0], ORANGE)
    for above, below in zip(forward[6:-6:12], backward[6:-6:12], strict=True):
        d.path([above, below], MUTED, "2 3", 1)
        d.point(*above, BLUE)
        d.point(*below, ORANGE, filled=False)
    d.text(26, 45, "θ", BLUE, bold=True)
    d.text(408, 108, "φ(T)", BLUE, "start", bold=True)
    d.text(408, 150, "∇f", ORANGE, "start", bold=True)
    d.text(20, 190, "∇F", ORANGE, bold=True)
    d.text(9, 230, "backward: dp/dt = H(φ(t)) p, from p(T) = ∇f", ORANGE, "start", bold=True)
    return d.svg()
