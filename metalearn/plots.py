"""Every figure that the lessons draw, in one style, each with a text that says what is to be seen."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Real, Shaped

if TYPE_CHECKING:  # loaded by the first figure, since the library is used without any
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours stay apart for colour-blind readers; dashes and markers carry the same distinction in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
_DPI = 200  # drawn at twice the size it is shown in, sharp on a dense screen and in print
_STYLE: dict[str, Any] = {
    "font.size": 11,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def subplots(
    num_columns: int = 1, height: float = 3.2, **options: Any
) -> tuple[Figure, Shaped[np.ndarray, " {num_columns}"]]:
    """A figure of one row in the course's style.

    Args:
      num_columns: how many axes stand side by side.
      height: in inches; the row is 7 inches wide, or 4.5 if it has one column.
      **options: handed to matplotlib's `Figure.subplots`, for instance sharey=True.

    Returns:
      (figure, axes), with axes an array of shape [num_columns].
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler

    cycle = cycler(color=COLORS, linestyle=DASHES)
    with matplotlib.rc_context(_STYLE | {"axes.prop_cycle": cycle}):
        figure = Figure(figsize=(4.5 if num_columns == 1 else 7.0, height), layout="constrained")
        axes = figure.subplots(1, num_columns, squeeze=False, **options)[0]
    return figure, axes


def label(axes: Axes, x: str, y: str, title: str = "", legend: bool = True) -> None:
    """Names both axes, units included, and shows the legend if anything has a label."""
    axes.set(xlabel=x, ylabel=y, title=title)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False)


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """The figure as a PNG picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Displays a figure in a notebook, with its alternative text.

    Args:
      figure: what to show; matplotlib's own inline display would lose the text.
      alt: one or two sentences that tell somebody who cannot see the figure what is to be seen.

    Raises:
      ValueError: if alt is empty.
    """
    from IPython.display import display  # only notebooks call this

    if not alt.strip():
        raise ValueError("alt must say what the figure shows.")
    data = base64.b64encode(png(figure)).decode()
    width = round(figure.get_figwidth() * 100)
    image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="width:{width}px;max-width:100%">'
    display(
        {"text/html": image, "image/png": data, "text/plain": alt}, metadata={"image/png": {"width": width}}, raw=True
    )


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
      points: label -> (x, y), each a number or an array; drawn as markers.
      title: above the axes.
      log: which axes are logarithmic: "", "x", "y" or "xy".
      xlim: (left, right) of the x axis.
      ylim: (bottom, top) of the y axis.
      axes: draw here, in a figure made by `subplots`, rather than in a new one.

    Returns:
      The figure.
    """
    if axes is None:
        _, (axes,) = subplots()
    for name, y in curves.items():
        axes.plot(x, np.asarray(y), label=name)
    for i, (name, (px, py)) in enumerate((points or {}).items()):
        axes.plot(
            px,
            py,
            label=name,
            color="black",
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=7,
            markerfacecolor="white",
            zorder=3,
        )
    if "x" in log:
        axes.set_xscale("log", base=2 if len(x) < 20 else 10)
        if len(x) < 20:  # few values: name each one
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
    axes.set(**{name: limits for name, limits in (("xlim", xlim), ("ylim", ylim)) if limits is not None})
    label(axes, xlabel, ylabel, title)
    return cast("Figure", axes.get_figure(root=True))


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
    """
    figure, (axes,) = subplots()
    for i, (name, values) in enumerate(curves.items()):
        values = np.asarray(values)
        mean, half_width = values.mean(1), 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        steps = np.arange(len(mean))
        (line,) = axes.plot(steps, mean, marker=MARKERS[i % len(MARKERS)], markersize=5, label=name)
        axes.fill_between(steps, mean - half_width, mean + half_width, color=line.get_color(), alpha=0.2, linewidth=0)
    if "y" in log:
        axes.set_yscale("log")
    label(axes, "inner steps", ylabel)
    return figure
