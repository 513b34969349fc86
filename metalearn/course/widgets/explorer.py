"""`explore`: a figure with sliders."""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from metalearn import _require, plots
from metalearn.course.widgets.display import script, show_with_stand_in, style

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

# What a control is called, where its name in Python is not what a reader would say.
WORDS = {
    "learning_rate": "learning rate α",
    "num_steps": "number of steps",
    "inner_steps": "inner steps K",
    "tasks": "number of tasks",
    "theta": "initialization θ",
    "proximal_strength": "proximal strength λ",
    "log10_proximal_strength": "proximal strength log₁₀ λ",
    "spent": "share of the budget",
}
ASLEEP = "Run this cell in a notebook, and controls appear above the figure."


class Explorer(anywidget.AnyWidget):
    """A picture that follows its controls. Made by `explore`; the browser's side is `explorer.js`.

    Attributes:
      title: what to try.
      controls: for each control its name and label with min, max and step, or with options.
      values: the present value of each, by name. To change one, assign a new dictionary.
      svg: the picture that belongs to them, in the colours of the page's theme.
      alt: what is to be seen in it.
      trouble: why the last drawing failed; empty if it did not.
    """

    _esm = script("explorer")
    _css = style("explorer") + plots.PANELS_CSS
    title = traitlets.Unicode().tag(sync=True)
    controls: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    svg = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)

    def __init__(self, draw: Callable[..., Figure], alt: str, controls: dict[str, Any], title: str = "") -> None:
        """Describe the controls; their first values cause the first picture."""
        self.draw = draw
        self._layout: plots.Layout | None = None
        described, values = zip(*(_control(name, control) for name, control in controls.items()), strict=True)
        labels = [WORDS.get(name, name.replace("_", " ")) for name in controls]
        title = title or f"Try it: {' and '.join(filter(None, [', '.join(labels[:-1]), labels[-1]]))}"
        every = [control | {"label": label} for control, label in zip(described, labels, strict=True)]
        super().__init__(alt=alt, title=title, controls=every, values=dict(zip(controls, values, strict=True)))

    @traitlets.observe("values")
    def _update(self, _: Any = None) -> None:
        """Draw with the present values. An error is told in words, and the last good picture stays."""
        # A browser writes 1.0 as 1: what `draw` gets must not depend on that.
        real = {control["name"] for control in self.controls if isinstance(control.get("step"), float)}
        values = {name: float(value) if name in real else value for name, value in self.values.items()}
        try:
            self.svg = self._svg(self.draw(**values))
        except Exception as error:
            self.trouble = f"No figure for these values. {type(error).__name__}: {error}"
        else:
            self.trouble = ""

    def _svg(self, figure: Figure) -> str:
        """As `plots.panels`, with one layout for all pictures."""
        from matplotlib.figure import Figure

        if not isinstance(figure, Figure):
            raise TypeError(f"draw must return a figure of matplotlib, but it returned a {type(figure).__name__}")
        if self._layout is None:
            self._layout = plots.layout_of(figure)
        return plots.panels(figure, self.alt, self._layout)


def explore(draw: Callable[..., Figure], alt: str, *, title: str = "", **controls: Any) -> None:
    """Show a figure with labelled controls, all within reach of the keyboard.

    Args:
      draw: a pure function from the values of the controls, by name, to a figure.
      alt: what is to be seen, for somebody who cannot see it.
      title: what to try, above the controls; if empty, it names them.
      **controls: for each argument of draw a range (min, max, step) or (min, max, step, start), or a list of options,
        strings or numbers. A range of integers gives integers, any other gives floats.

    Raises:
      TypeError, ValueError: if draw is no function of these controls, alt is empty, or a control is neither a list of
        options nor a range.
    """
    _require.function(draw=draw)
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must say what the figure shows, but it is {alt!r:.60}.")
    if not controls:
        raise ValueError("explore needs at least one control, such as steps=(0, 10, 1).")
    with contextlib.suppress(ValueError):  # some compiled functions do not tell their arguments
        try:
            inspect.signature(draw).bind(**controls)
        except TypeError as error:
            raise TypeError(f"draw must accept the controls {', '.join(controls)} by name: {error}.") from None
    explorer = Explorer(draw, alt, controls, title)
    stand_in = f'<div class="metalearn-asleep">{plots.card(explorer.svg, explorer.title, ASLEEP)}</div>'
    show_with_stand_in(explorer, stand_in, alt)


def _control(name: str, control: Any) -> tuple[dict[str, Any], Any]:
    """What the browser must know of a control, and its first value."""
    if isinstance(control, list):
        if not control or not all(isinstance(option, str | int | float) for option in control):
            raise ValueError(
                f"{name}: the options must be strings or numbers, at least one, but they are {control!r:.60}."
            )
        return {"name": name, "options": control}, control[0]
    if not isinstance(control, tuple) or len(control) not in (3, 4):
        raise ValueError(f"{name}: a range is (min, max, step) or (min, max, step, start), got {control!r:.60}")
    real = all(isinstance(bound, numbers.Real) and not isinstance(bound, bool) for bound in control)
    whole = all(isinstance(bound, numbers.Integral) for bound in control)
    bounds = [(int if whole else float)(bound) for bound in control] if real else [math.nan] * len(control)
    low, high, step, start = bounds if len(bounds) == 4 else [*bounds, bounds[0]]
    if not (-math.inf < low < high < math.inf and 0 < step < math.inf and low <= start <= high):
        raise ValueError(
            f"{name}: a range needs min < max, step > 0 and min <= start <= max, all finite, got {control!r:.60}"
        )
    return {"name": name, "min": low, "max": high, "step": step}, start
