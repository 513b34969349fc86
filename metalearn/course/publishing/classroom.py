"""What the nbgrader of a released course does otherwise: `nbgrader_config.py` names these classes.

    Collector       finds student and lesson in the names that learning platforms give to files
    Sanitize        refuses a notebook that is a link, and takes copies of graded cells for what they are
    Execute         runs a submission as far as its kernel lives
    FeedbackPage    writes the page that a student reads, without scripts

It is imported by nbgrader only.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer
from jinja2 import pass_context
from nbclient.exceptions import DeadKernelError
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.converters import Autograde
from nbgrader.plugins import FileNameCollectorPlugin
from nbgrader.preprocessors import Execute as NbgraderExecute
from nbgrader.preprocessors import NbGraderPreprocessor

from metalearn.course import syllabus

LINKED = "is a symbolic link. A submission is a file of its own; ask for the notebook itself"
COPY = "This is a copy of a cell that is graded: the last one counts."
KERNEL_ENDED = "The kernel ended in an earlier cell, or in this one, so nothing below it was run."

_STUDENT = re.compile(r"\w[\w .@+'-]*")  # no path, no pattern of a shell, nothing hidden
_MOODLE = re.compile(r"(?P<student>.+?)_\d+_assignsubmission_file_?")
_AGAIN = re.compile(r"-\d+$| ?\(\d+\)$")  # Canvas's second attempt, a browser's second download
_CANVAS = re.compile(r"(?P<student>.+?)(_late)?_\d+_\d+")


def owner(path: PurePath, lessons: Iterable[str]) -> tuple[str, str] | None:
    """Whose submission of which lesson a file of an unpacked archive is.

    Args:
      path: the file, relative to the folder into which nbgrader unpacks; the first folder is that of the archive.
      lessons: the names that count, as `02_maml`.
    Returns:
      (student, lesson), or None if it is no notebook of these lessons or names no student. A student's folder
      outranks what a student wrote into a file's name, but not what Moodle or Canvas did.
    """
    stem = _AGAIN.sub("", path.stem)
    lesson = next((lesson for lesson in lessons if path.suffix == ".ipynb" and stem.endswith(lesson)), None)
    if lesson is None:
        return None
    prefix = stem.removesuffix(lesson)
    folders = [part for part in path.parts[:-1] if part != lesson]
    for name in (*folders, prefix):
        if moodle := _MOODLE.fullmatch(name):
            return _checked(moodle["student"], lesson)
    if canvas := _CANVAS.fullmatch(prefix.rstrip("_-")):
        return _checked(canvas["student"], lesson)
    named = prefix.rstrip("_- ")
    return _checked(named if named and len(folders) < 2 else next(reversed(folders), ""), lesson)


def _checked(student: str, lesson: str) -> tuple[str, str] | None:
    return (student, lesson) if _STUDENT.fullmatch(student) else None


class Collector(FileNameCollectorPlugin):
    """`zip_collect` with the names of Moodle, Canvas and folders; what it cannot place is skipped with a warning."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self._from: dict[tuple[str, str], str] = {}

    def collect(self, submitted_file: str) -> dict[str, str] | None:
        """Called by nbgrader for each file; None skips it."""
        path = PurePath(submitted_file)
        below = path.parts[len(path.parts) - path.parts[::-1].index("extracted") :]
        found = owner(PurePath(*below), [lesson.stem for lesson in syllabus.LESSONS])
        if found is None:
            self.log.warning("Skipped, since it names no student or no lesson of this course: %s", submitted_file)
            return None
        if found in self._from:
            self.log.warning("Skipped a second %s of %s: %s. Kept: %s", *found[::-1], submitted_file, self._from[found])
            return None
        self._from[found] = submitted_file
        return dict(zip(("student_id", "file_id"), found, strict=True))


class Sanitize(NbGraderPreprocessor):
    """Refuses links, and unmarks copies of graded cells, which nbgrader would refuse the whole notebook for."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Called by nbgrader before anything else is done with a submission."""
        notebook = Path(resources["metadata"]["path"]) / f"{resources['metadata']['name']}.ipynb"
        if any(path.is_symlink() for path in (notebook, notebook.parent, notebook.parent.parent)):
            raise ValueError(f"{notebook} {LINKED}.")
        seen = set()
        for cell in reversed(nb.cells):
            mark = cell.metadata.get("nbgrader") or {}
            if mark.get("grade_id") in seen:
                del cell.metadata["nbgrader"]
                cell.source = f"{'# ' if cell.cell_type == 'code' else ''}{COPY}\n\n{cell.source}"
            elif mark.get("grade_id"):
                seen.add(mark["grade_id"])
        return nb, resources


class Execute(NbgraderExecute):
    """Runs a submission; where its code ends the kernel, what ran before counts, and no cell below it does."""

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        """Called by nbgrader once for a submission."""
        self._reached = 0
        try:
            return super().preprocess(nb, resources, km)
        except DeadKernelError:
            self.log.warning("The kernel ended in cell %d: what is below it earns nothing.", self._reached)
        for cell in nb.cells[self._reached :]:
            if cell.cell_type == "code":
                said = {"ename": "DeadKernelError", "evalue": KERNEL_ENDED, "traceback": [KERNEL_ENDED]}
                cell.outputs = [*cell.outputs, new_output("error", **said)]
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Called for each cell in turn."""
        self._reached = index
        return super().preprocess_cell(cell, resources, index)


_TEXT = """
br caption col colgroup dd del details div dl dt figcaption figure h1 h2 h3 h4 h5 h6 hr img ins p pre s small span sub
summary sup table tbody td tfoot th thead tr u
"""
_DRAWN = "svg g path rect circle ellipse line polyline polygon text tspan title desc"
_LOOK = """
align alt aria-label class colspan height open role rowspan style title width
cx cy d dx dy fill fill-opacity font-family font-size font-weight points r rx ry stroke stroke-dasharray stroke-linecap
stroke-linejoin stroke-opacity stroke-width text-anchor transform viewBox viewbox x x1 x2 xmlns y y1 y2
"""
_TAGS = frozenset((*bleach.ALLOWED_TAGS, *re.findall(r"\S+", _TEXT + _DRAWN)))
_ATTRIBUTES = frozenset(re.findall(r"\S+", _LOOK))


def _may_stay(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    if name in ("href", "xlink:href"):
        return value.startswith("#") or (tag == "a" and value.startswith(("https://", "http://")))
    return name in _ATTRIBUTES


def clean(page: Any) -> str:
    """HTML without anything that runs or is fetched: what is not known to be harmless is shown as text or left out."""
    protocols = {"http", "https", "data"}
    return bleach.clean(str(page), _TAGS, _may_stay, protocols=protocols, css_sanitizer=CSSSanitizer())


class FeedbackPage(HTMLExporter):
    """The page of feedback. A student wrote a part of it, and whoever opens it may be signed in as a teacher."""

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        """The filters of nbconvert's templates."""
        yield from super().default_filters()
        yield "markdown2html", self.markdown2html
        yield "clean_html", clean

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """A text's HTML."""
        return clean(super().markdown2html(context, source))


_DEFAULTS = {
    name: list(trait.default()) for name, trait in Autograde.class_traits().items() if "_preprocessors" in name
}
SANITIZE = [Sanitize, *_DEFAULTS["sanitize_preprocessors"]]
AUTOGRADE = [Execute if step is NbgraderExecute else step for step in _DEFAULTS["autograde_preprocessors"]]
