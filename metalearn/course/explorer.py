"""`explore`: a figure with sliders."""

import html
import io
from collections.abc import Callable
from typing import Any

import ipywidgets
import traitlets
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.transforms import Bbox

from metalearn.course.display import show_widget

DPI = 100  # the picture crosses the network at every step of a slider
_OWN_SIZE = {"max_width": "100%", "margin": "0", "align_self": "flex-start"}  # a stretched picture is blurred
_SLIDER = {"width": "28em", "max_width": "100%"}


class DescribedImage(ipywidgets.Image):
    """A picture whose tooltip is its accessible name: the browser's side only shows one beside a description."""

    description = traitlets.Unicode("").tag(sync=True)


class Explorer:
    """A picture that follows its controls. Made by `explore`.

    Attributes:
      controls: the widgets by name.
      image: the picture; its bytes are replaced, so that the page does not jump.
      trouble: text beneath it, empty unless the last drawing failed.
      form: all of them.
    """

    def __init__(self, draw: Callable[..., Figure], alt: str, controls: dict[str, Any]) -> None:
        """Build the controls and draw once."""
        self.draw = draw
        self._places: list[Bbox] = []
        self._renderer: RendererAgg | None = None
        self.controls = {name: _control(name, control) for name, control in controls.items()}
        self.image = DescribedImage(format="png", tooltip=alt, layout=_OWN_SIZE)
        self.trouble = ipywidgets.HTML()
        self.form = ipywidgets.VBox([*self.controls.values(), self.image, self.trouble])
        for control in self.controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, _: Any = None) -> None:
        """Draw with the present values. An error is told in words, and the last good picture stays."""
        values = {name: control.value for name, control in self.controls.items()}
        try:
            self.image.value = self._png(self.draw(**values))
        except Exception as error:
            said = html.escape(f"{type(error).__name__}: {error}")
            self.trouble.value = f'<p role="alert">No figure for these values. {said}</p>'
        else:
            self.trouble.value = ""

    def _png(self, figure: Figure) -> bytes:
        """As `plots.png`, in less time: one layout for all pictures, one renderer, no minor ticks on log axes."""
        for axes in figure.axes:
            axes.minorticks_off()
        if len(self._places) != len(figure.axes):
            figure.draw_without_rendering()
            self._places = [axes.get_position() for axes in figure.axes]
        figure.set_layout_engine(None)
        for axes, place in zip(figure.axes, self._places, strict=True):
            axes.set_position(place)
        figure.dpi = DPI
        size = (*map(int, figure.get_size_inches() * DPI), DPI)
        if self._renderer is None or (self._renderer.width, self._renderer.height) != size[:2]:
            self._renderer = RendererAgg(*size)
        self._renderer.clear()
        figure.draw(self._renderer)
        buffer = io.BytesIO()
        imsave(buffer, self._renderer.buffer_rgba(), format="png", pil_kwargs={"compress_level": 1})
        return buffer.getvalue()


def explore(draw: Callable[..., Figure], alt: str, **controls: Any) -> None:
    """Show a figure with labelled controls, all within reach of the keyboard.

    Args:
      draw: a pure function from the values of the controls, by name, to a figure.
      alt: what is to be seen, for somebody who cannot see it.
      **controls: for each argument of draw a range (min, max, step) or (min, max, step, start), a list of options,
        or an ipywidgets control. A range of integers gives integers.

    Raises:
      ValueError: if a range has another length, or alt is empty.
    """
    if not alt.strip():
        raise ValueError("alt must say what the figure shows")
    explorer = Explorer(draw, alt, controls)
    show_widget(explorer.form, alt, png=explorer.image.value)


def _control(name: str, control: Any) -> ipywidgets.Widget:
    if isinstance(control, ipywidgets.Widget):
        return control
    label: dict[str, Any] = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control, **label)
    if len(control) not in (3, 4):
        raise ValueError(f"{name}: a range is (min, max, step) or (min, max, step, start), got {control}")
    low, high, step, *start = control
    slider = ipywidgets.IntSlider if all(isinstance(bound, int) for bound in control) else ipywidgets.FloatSlider
    if slider is ipywidgets.FloatSlider:
        label["readout_format"] = ".3g"  # the default rounds 0.005 to 0.01
    return slider(min=low, max=high, step=step, value=start[0] if start else low, layout=_SLIDER, **label)
