"""Sphinx's configuration of the course's website; the pages are gathered by `publishing.site.build`."""

import inspect
import re
from pathlib import Path

from flax import nnx

from metalearn import course, plots
from metalearn.course.publishing.site import SHOW_CODE

project = "Gradient-based meta-learning"
author = "the authors of metalearn"
html_title = project
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]

# Lessons were executed when they were built.
nb_execution_mode = "off"
nb_code_prompt_show = SHOW_CODE
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

# The library, in the names by which it is called: `metalearn.maml`, wherever that is defined.
default_role = "literal"
smartquotes_action = "D"  # dashes only: what stands in quotation marks is mostly a value that one may copy
highlight_language = "none"  # an indented block of a docstring is a formula; examples have their prompts
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the text of each argument says more than an unfolded Callable[...]
napoleon_custom_sections = [("Attributes", "params_style")]
mathjax3_config = {"chtml": {"displayAlign": "left", "scale": 0.9}}

# No page asks another host for anything, and no link leads to a notebook with its answers.
html_theme = "sphinx_book_theme"
WHOLE = Path(course.__file__).with_name("labextension") / "static/whole.js"  # JupyterLab loads it too
html_static_path = ["_static", str(plots.PALETTE_FILE), str(WHOLE)]
html_css_files = ["palette.css", "course.css"]
html_js_files = [(name, {"defer": "defer"}) for name in ("search.js", "whole.js", "mathematics.js")]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_copy_source = False
html_use_index = html_domain_indices = False  # wider than a phone; the search finds names
html_show_sphinx = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search field is in the sidebar
    "pygments_light_style": "github-light-high-contrast",
    "pygments_dark_style": "github-dark-high-contrast",
}


def _signature(app, what, name, member, options, signature, returns):  # type: ignore[no-untyped-def]
    """Of a network, the arguments that it is made with; by itself Flax shows (*args, **kwargs)."""
    if what == "class" and issubclass(member, nnx.Module):
        made = inspect.signature(member.__init__)
        shown = [p.replace(annotation=p.empty) for name, p in made.parameters.items() if name != "self"]
        return re.sub(r"<[^<>]*>", "...", str(inspect.Signature(shown))), returns  # an object's address says nothing
    return None


def _with_init(app, what, name, member, options, lines):  # type: ignore[no-untyped-def]
    """What the arguments of a network mean, and arrows that cannot break in two."""
    if what == "class" and issubclass(member, nnx.Module):
        lines += inspect.cleandoc(member.__init__.__doc__).split("\n")[1:]
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else line.replace("->", "→") for line in lines]


def setup(app):  # type: ignore[no-untyped-def]
    """The fields of a named tuple stand under Attributes, and need no second entry that says nothing."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _with_init, priority=400)  # before napoleon reads the sections
    app.connect(
        "autodoc-skip-member",
        lambda app, what, name, member, skip, options: (
            skip or str(member.__doc__).startswith("Alias for field number") or None
        ),
    )
