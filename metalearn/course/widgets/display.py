"""Show Markdown, cards and widgets in a notebook, with plain text for terminals and for viewers without a kernel."""

import functools
import re
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

from metalearn import plots

# Where JupyterLab no longer has a widget, the HTML above it takes its place; where it has it, that HTML is gone. The
# second line is for Colab.
ASLEEP_STYLE = """\
.jp-OutputArea-child:has(.metalearn-asleep):has(+ * .metalearn-awake),
.display_data:has(.metalearn-asleep):has(+ .display_data .metalearn-awake),
.jp-OutputArea-child:has(.metalearn-asleep) + :not(:has(.metalearn-awake)) { display: none }
.metalearn-asleep { animation: metalearn-asleep 0s 2s both }
@keyframes metalearn-asleep { from { visibility: hidden } }"""


def in_notebook() -> bool:
    """Whether there is anything to display on; a plain Python process has only `print`."""
    return get_ipython() is not None


def show_markdown(text: str) -> None:
    """Display Markdown; outside a notebook, print it."""
    _show({"text/markdown": text, "text/plain": text})


def show_html(text: str, plain: str) -> None:
    """Display HTML; outside a notebook, print the plain text."""
    _show({"text/html": text, "text/plain": plain})


def show_with_stand_in(widget: ipywidgets.DOMWidget, stand_in: str, plain: str) -> None:
    """Display a widget whose browser's side bears the class `metalearn-awake`, and HTML wherever it cannot be drawn.

    Args:
      widget: the widget.
      stand_in: HTML of the class `metalearn-asleep` for a page without the widget: reopened, shared or printed.
      plain: the same in words.
    """
    show_html(f"{stand_in}<style>{ASLEEP_STYLE}</style>", plain)
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    _show({"application/vnd.jupyter.widget-view+json": view})


class Card:
    """An output that stands from the first moment and says something else in the end: first "Checking ...", then what.

    Outside a notebook only the last text is printed.
    """

    def __init__(self, kind: str, text: str) -> None:
        """Show the first text; the arguments are those of `change`."""
        self._handle: DisplayHandle | None = None
        if in_notebook():
            bundle = _card(kind, text)
            self._handle = display(bundle, raw=True, display_id=True)

    def change(self, kind: str, text: str) -> None:
        """Show another text.

        Args:
          kind: "passed", "failed" or "not yet", which colour it; "done" for the last exercise of a lesson; "waiting".
          text: Markdown.
        """
        if self._handle is None:
            print(text)
        else:
            self._handle.update(_card(kind, text), raw=True)


def show_card(kind: str, text: str) -> None:
    """Display Markdown on a card; outside a notebook, print it. The arguments are those of `Card.change`."""
    _show(_card(kind, text))


def _card(kind: str, text: str) -> dict[str, str]:
    name = kind.replace(" ", "-")
    card = f'<div class="metalearn-card metalearn-{name}" role="status">{as_html(text)}</div>'
    return {"text/html": f"{card}<style>{style('card')}</style>", "text/plain": text}


@functools.cache
def style(name: str) -> str:
    """A style sheet of this folder, with the colours that it takes from the palette."""
    return plots.PALETTE_CSS + Path(__file__).with_name(f"{name}.css").read_text("utf-8")


def script(name: str) -> str:
    """The browser's side of a widget of this folder that needs a kernel."""
    return "".join(Path(__file__).with_name(f"{file}.js").read_text("utf-8") for file in ("kernel", name))


def as_html(text: str) -> str:
    """HTML of Markdown; $mathematics$ is left for the page to render, and HTML in the text is shown as it is."""
    return _markdown().render(text)


def inline_html(text: str) -> str:
    """HTML of one line of Markdown, without the paragraph around it."""
    return _markdown().renderInline(text)


@functools.cache
def _markdown() -> MarkdownIt:
    def mathematics(state: StateInline, silent: bool) -> bool:
        found = re.match(r"\$\$.+?\$\$|\$[^$]+\$", state.src[state.pos : state.posMax], flags=re.DOTALL)
        if found and not silent:
            state.push("text", "", 0).content = found[0]
        state.pos += len(found[0]) if found else 0
        return found is not None

    parser = MarkdownIt("commonmark", {"html": False})
    parser.inline.ruler.before("escape", "mathematics", mathematics)
    return parser


def _show(bundle: dict[str, Any]) -> None:
    if in_notebook():
        display(bundle, raw=True)
    elif "text/plain" in bundle:
        print(bundle["text/plain"])
