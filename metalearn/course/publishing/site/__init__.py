"""The course as a website, to read without installing anything: `python -m metalearn.course site`.

It is made of this folder's pages, the docstrings and the executed notebooks in `solutions/`. Nothing is executed anew,
no page asks another host for anything, and each exercise shows its stub; the answer is folded.
"""

import html
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output

from metalearn import plots
from metalearn.course.publishing import builder, page, readme_picture
from metalearn.course.widgets import forms, playgrounds

REQUIRED = ("myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
PAGES = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
MAP, PICTURE = "<!-- the map of the lessons -->", "<!-- the picture of the README -->"
SHOW, SHOW_CODE, SHOW_ANSWER = "Show a solution", "Show the code", "Show the answer"

_MATHEMATICS = re.compile(r"\$\$(.+?)\$\$|\$([^$<>]+)\$", re.DOTALL)
_VERDICT = re.compile(r'<div class="metalearn-card metalearn-(?:passed|done)".*?</div>', re.DOTALL)
_REVEALED = re.compile(
    rf'<div class="metalearn-card metalearn-not-yet" role="status"><p><strong>{re.escape(forms.UNANSWERED)}</strong> '
    r"(.*?)</div>",
    re.DOTALL,
)
_BAR = re.compile(
    r"(?:(?P<what>.+?): +)?\d+%\|[^|]*\| *(?P<done>\d+)/(?P<all>\d+) \[(?:(?P<minutes>\d+):(?P<seconds>\d+)<)"
    r".*?(?:step/s, (?P<said>.+?) (?P<value>[^\s\]]+))?\]?"
)
_WIDGET_CALL = re.compile(r'(\w+ = )?(predict|quiz|check|playground)\("[^"]*"(, \w+)?\)')
CHECKED = "In JupyterLab, this cell checks your function and names the mistake that you made."


def build(root: Path, to: Path) -> bool:
    """Writes the website, quietly; Sphinx says on standard error what is wrong, and any warning is an error.

    Args:
      root: the folder that holds `lessons/` and `solutions/`.
      to: the folder to write into.

    Returns:
      Whether all went well.

    Raises:
      ModuleNotFoundError: if Sphinx or an extension is not installed; the message says how to.
      ValueError: if a notebook does not match its source; the message names them.
    """
    if missing := [name for name in ("sphinx", *REQUIRED) if find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"The site needs {missing[0]}, from the dependency group `site`: "
            "run `uv run --group site python -m metalearn.course site`, or `pip install --group site` first."
        )
    if complaints := builder.check(root):
        raise ValueError("build the lessons first:\n" + "\n".join(complaints))
    from sphinx.cmd.build import main as sphinx

    with tempfile.TemporaryDirectory() as scratch:
        pages = Path(scratch, "pages")
        shutil.copytree(PAGES, pages, ignore=shutil.ignore_patterns("__init__.py", "conf.py", "__pycache__"))
        drawn = {MAP: page.course_cards("lessons/"), PICTURE: readme_picture.card()}
        for name in ("index.md", "playgrounds.md"):
            text = (pages / name).read_text("utf-8")
            for mark, drawing in drawn.items():
                text = text.replace(mark, _raw(drawing))
            (pages / name).write_text(playgrounds.alive(text), "utf-8")
        (pages / "lessons").mkdir()
        for name in (page.CONTENTS, page.NOTATION, page.SOURCES, page.GUIDE):  # they stand beside the lessons
            (pages / name).unlink(missing_ok=True)
            shutil.copy(root / "lessons" / name, pages / "lessons" / name)
        for source in builder.sources(root):
            lesson = nbformat.read(root / "lessons" / f"{source.stem}.ipynb", as_version=4)
            stubs = {cell.id: cell.source for cell in lesson.cells if "exercise" in cell.metadata}
            read = to_page(nbformat.read(source.with_suffix(".ipynb"), as_version=4), stubs)
            nbformat.write(read, pages / "lessons" / f"{source.stem}.ipynb")
        options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", str(PAGES)]
        # Not into `to` at once: myst-nb writes a folder of its own beside whatever it is given.
        made = Path(scratch, "made", "site")
        if sphinx([*options, "--doctree-dir", str(Path(scratch, "doctrees")), str(pages), str(made)]) != 0:
            return False
        shutil.copytree(made, to, dirs_exist_ok=True)
        return True


def to_page(solution: NotebookNode, stubs: Mapping[str, str]) -> NotebookNode:
    """A lesson to read: executed, each exercise with its stub in sight and its answer folded.

    Of widgets it shows the picture; a playground is alive there, since it needs no kernel.

    Args:
      solution: the executed notebook; it is changed.
      stubs: the source of each exercise cell of the learner's notebook, by cell id.

    Returns:
      The notebook of the page.
    """
    cells = []
    for cell in solution.cells:
        if "exercise" in cell.metadata:
            cells.append(new_markdown_cell(f"```python\n{stubs[cell.id]}\n```", id=f"{cell.id}-stub"))
            cell.metadata.tags.append("hide-input")
            cell.metadata["mystnb"] = {"code_prompt_show": SHOW, "code_prompt_hide": "Hide the solution"}
        elif "question" in cell.metadata:
            cell.source = f"<details>\n<summary>{SHOW}</summary>\n\n{cell.source}\n\n</details>"
        if cell.pop("attachments", {}):
            number = cell.id[:2]
            cell.source = cell.source.replace(page.pictures_block(number), _raw(page.opening_card(number)))
        if cell.cell_type == "code":
            if cell.source.startswith("progress("):  # a visitor has none
                continue
            if _WIDGET_CALL.fullmatch(cell.source):  # what it shows says all
                cell.metadata["tags"] = [*cell.metadata.get("tags", ()), "remove-input"]
            cell.outputs = [part for output in cell.outputs for part in _bars_told(output)]
            for output in cell.outputs:
                _without_kernel(output)
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
        cells.append(cell)
    solution.cells = cells
    pages = [
        output.data for cell in cells for output in cell.get("outputs", []) if "text/html" in output.get("data", {})
    ]
    for data in [data for data in pages if "data-form=" in data["text/html"]][-1:]:  # one script serves the whole page
        data["text/html"] = forms.alive(data["text/html"])
    solution.metadata.pop("widgets", None)
    return solution


def _bars_told(output: NotebookNode) -> list[NotebookNode]:
    """An output of text in parts: progress bars, which have ended, are drawn; what else was printed stays as it is."""
    if output.output_type != "stream":
        return [output]
    parts: list[NotebookNode] = []
    for line in output.text.splitlines(keepends=True):
        if bar := _BAR.fullmatch(line.rstrip()):
            parts.append(new_output("display_data", data={"text/html": _bar(bar), "text/plain": line}))
        elif parts and parts[-1].output_type == "stream":
            parts[-1].text += line
        elif line.strip():
            parts.append(new_output("stream", name=output.name, text=line))
    return parts


def _bar(bar: re.Match[str]) -> str:
    done, most, seconds = int(bar["done"]), int(bar["all"]), 60 * int(bar["minutes"]) + int(bar["seconds"])
    what = f"{html.escape(bar['what'])}: " if bar["what"] else ""
    steps = f"{done:,} steps" if done == most and not what else f"{done:,} of {most:,}"
    said = f", {bar['said']} {plots.number(float(bar['value']))}" if bar["said"] else ""
    drawn = f'<progress aria-hidden="true" value="{done}" max="{most}"></progress>'
    return f'<p class="ml-bar">{drawn}{what}{steps} in {f"{seconds} s" if seconds else "less than a second"}{said}</p>'


def _without_kernel(output: NotebookNode) -> None:
    """Leaves of a widget what can be seen without a kernel: a playground, a picture with alternative text, or text."""
    data = output.get("data", {})
    if "text/html" in data:
        told = _VERDICT.sub(f'<div class="metalearn-card"><p>{CHECKED}</p></div>', data["text/html"])
        told = _REVEALED.sub(
            rf'<details class="metalearn-card ml-answer"><summary>{SHOW_ANSWER}</summary><p>\1</details>', told
        )
        data["text/html"] = playgrounds.alive(_typeset(told))
    data.pop(WIDGET, None)


def _typeset(text: str) -> str:
    """HTML of an output with its $mathematics$ where MathJax, as Sphinx sets it up, looks for it; styles stay."""
    parts = re.split(r"(<style>.*?</style>|<svg.*?</svg>|<[^>]*>)", text, flags=re.DOTALL)
    return "".join(part if part.startswith("<") else _MATHEMATICS.sub(_mathematics, part) for part in parts)


def _mathematics(found: re.Match[str]) -> str:
    display, inline = found.groups()
    return rf'<span class="math">\[{display}\]</span>' if display else rf'<span class="math">\({inline}\)</span>'


def _raw(text: str) -> str:
    """HTML for a page in MyST."""
    return f"`````{{raw}} html\n{text}\n`````"
