"""Every figure that the lessons draw, in one style, each with a text that says what is to be seen."""

import base64
import html
import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's colours stay apart for colour-blind readers; dashes and markers carry the same distinction in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
_DPI = 200  # drawn at twice the size it is shown in, sharp on a dense screen and in print
_STYLE = {
    "font.size": 11,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS, linestyle=DASHES),
}


def subplots(num_columns: int = 1, height: float = 3.2, **options) -> tuple[Figure, np.ndarray]:
    """A figure of one row in the course's style.

    Args:
      num_columns: how many axes stand side by side.
      height: in inches; the row is 7 inches wide, or 4.5 if it has one column.
      **options: handed to matplotlib's `Figure.subplots`, for instance sharey=True.

    Returns:
      (figure, axes), with axes an array of shape [num_columns].
    """
    with matplotlib.rc_context(_STYLE):
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
