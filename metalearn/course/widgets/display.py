"""Show Markdown and widgets in a notebook, with plain text for terminals and for viewers without a kernel."""

import html
import re
from typing import Any

import ipywidgets
from IPython.core.getipython import get_ipython
from IPython.display import display

from metalearn import plots


def in_notebook() -> bool:
    """Whether there is anything to display on; a plain Python process has only `print`."""
    return get_ipython() is not None


def show_markdown(text: str) -> None:
    """Display Markdown; outside a notebook, print it."""
    _show({"text/markdown": text, "text/plain": text})


def show_html(text: str, plain: str) -> None:
    """Display HTML; outside a notebook, print the plain text."""
    _show({"text/html": text, "text/plain": plain})


def show_widget(widget: ipywidgets.DOMWidget, plain: str, svg: str = "") -> None:
    """Display a widget; where there is no kernel to drive it, a picture or plain text.

    All are one bundle, so that a viewer shows exactly one of them. If `plain` is empty, another output says it.
    """
    bundle: dict[str, Any] = {
        "application/vnd.jupyter.widget-view+json": {
            "version_major": 2,
            "version_minor": 0,
            "model_id": widget.model_id,
        },
    }
    if plain:
        bundle["text/plain"] = plain
    if svg:
        bundle["text/html"] = plots.card(svg)
    _show(bundle)


def inline_html(text: str) -> str:
    """HTML of plain text with `code`; $mathematics$ is left for the notebook to render."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _show(bundle: dict[str, Any]) -> None:
    if in_notebook():
        display(bundle, raw=True)
    elif "text/plain" in bundle:
        print(bundle["text/plain"])
