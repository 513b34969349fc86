"""What the nbgrader of a released course does otherwise: `nbgrader_config.py` names these classes.

    Collector       finds student and lesson in the names that learning platforms give to files
    Sanitize        refuses a notebook that is a link, and mends what was copied, deleted or marked otherwise
    Execute         runs the lesson as it was handed out, and what the student's cells define
    FeedbackPage    writes the page that a student reads, without scripts

It is imported by nbgrader only.
"""

import ast
import copy
import os
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import bleach
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from IPython.core.inputtransformer2 import TransformerManager
from jinja2 import pass_context
from nbclient.exceptions import DeadKernelError
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.converters import Autograde
from nbgrader.plugins import FileNameCollectorPlugin
from nbgrader.preprocessors import Execute as NbgraderExecute
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

from metalearn.course import syllabus
from metalearn.course.exercises.hidden_tests import VARIABLE

LINKED = "is a symbolic link. A submission is a file of its own; ask for the notebook itself"
COPY = "This is a copy of a cell that is graded: the last one counts."
DELETED = "This cell was missing: the exercise is judged by what the other cells define."
LEFT_OUT = "For the grade, only what this cell defines was run, and not what starts on line {}.\n"
KERNEL_ENDED = "The kernel ended in an earlier cell, or in this one, so nothing below it was run."

_BUILT_INS = """
abs bool complex dict enumerate float frozenset int len list max min range round set str sum tuple zip
"""
_BUILT_IN = frozenset(re.findall(r"\S+", _BUILT_INS))
_MEASURED = re.compile(r"\A(\s*%%(time|capture)\b[^\n]*\n)+")
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


def _handed_out(preprocessor: NbGraderPreprocessor, resources: Any) -> NotebookNode:
    """The lesson that a submission answers."""
    lesson, notebook = resources["nbgrader"]["assignment"], resources["nbgrader"]["notebook"]
    root = Path(preprocessor.config.CourseDirectory.root)
    return nbformat.read(root / "source" / lesson / f"{notebook}.ipynb", as_version=4)


def _grade_id(cell: NotebookNode) -> str | None:
    return (cell.metadata.get("nbgrader") or {}).get("grade_id")


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


class Sanitize(NbGraderPreprocessor):
    """Refuses links, and puts right what nbgrader would refuse the whole notebook for, or believe.

    Metadata are those that were handed out, only the last copy of a cell has one, and missing cells come back.
    """

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Called by nbgrader before anything else is done with a submission."""
        notebook = Path(resources["metadata"]["path"]) / f"{resources['metadata']['name']}.ipynb"
        if any(path.is_symlink() for path in (notebook, notebook.parent, notebook.parent.parent)):
            raise ValueError(f"{notebook} {LINKED}.")
        lesson = _handed_out(self, resources)
        nb.metadata = lesson.metadata
        known = {_grade_id(cell): cell for cell in lesson.cells if _grade_id(cell)}
        seen = set()
        for cell in reversed(nb.cells):
            name = _grade_id(cell) or cell.get("id")  # which is the same, if the marks are gone
            if name in seen:
                cell.metadata.pop("nbgrader", None)
                cell.source = f"{'# ' if cell.cell_type == 'code' else ''}{COPY}\n\n{cell.source}"
            elif name in known:
                seen.add(name)
                cell.metadata = copy.deepcopy(known[name].metadata)
            else:
                cell.metadata.pop("nbgrader", None)
        present = {cell.get("id") for cell in nb.cells} | {cell.source for cell in nb.cells}
        missing = [
            cell for cell in lesson.cells if "imports" in _tags(cell) and present.isdisjoint((cell.id, cell.source))
        ]
        nb.cells[:0] = [_without_id(cell, cell.source) for cell in missing]
        solutions = (
            cell for name, cell in known.items() if name not in seen and is_solution(cell) and not is_grade(cell)
        )
        nb.cells += [_without_id(cell, f"# {DELETED}") for cell in solutions]  # nbgrader puts the test below it
        return nb, resources


def _without_id(cell: NotebookNode, source: str) -> NotebookNode:
    """A cell of the lesson as older formats have it."""
    kept = {key: value for key, value in cell.items() if key != "id"}
    return nbformat.from_dict(copy.deepcopy({**kept, "source": source}))


def definitions(source: str, imported: Container[str] = ()) -> tuple[str, list[int]]:
    """What a cell defines: its imports, functions, classes and constants, and the lines where other statements start.

    A constant is a name set to a value for which nothing is called but what was imported, as `jnp.array` and `partial`,
    or is built in, as `len`. Imports and definitions may stand below `if` and `try`.
    So what a student writes into a function is run when it is judged, and of what stands outside of it only
    decorators, bases and imported functions are called before.

    Args:
      source: the cell's.
      imported: names that cells import from modules; their functions may be called, as those of modules may.
    """
    code = _plain(source)
    try:
        others = [each for each in ast.parse(code).body if not _defines(each, imported)]
    except (SyntaxError, ValueError):  # it is run as it stands, so that the feedback shows what is wrong with it
        return source, []
    lines = code.splitlines()  # each stays in its place, so that an error names the line that the student sees
    starts = [min([each.lineno, *(it.lineno for it in getattr(each, "decorator_list", ()))]) for each in others]
    for start, each in zip(starts, others, strict=True):
        lines[start - 1 : each.end_lineno] = [""] * (each.end_lineno - start + 1)
    return "\n".join(lines), starts


def imports(source: str) -> set[str]:
    """The names that a cell imports from modules."""
    try:
        tree = ast.parse(_plain(source))
    except (SyntaxError, ValueError):
        return set()
    found = [node.names for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for names in found for alias in names}


def _plain(source: str) -> str:
    """Python for a cell, line for line; what measures a cell or catches what it prints leaves it as it is."""
    plain = _MEASURED.sub(lambda magics: "#\n" * magics[0].count("\n"), source)
    return TransformerManager().transform_cell(plain)


def _defines(statement: ast.stmt, imported: Container[str]) -> bool:
    def quiet(*parts: ast.AST | None) -> bool:
        return all(_is_quiet(part, imported) for part in parts)

    def define(*statements: ast.stmt) -> bool:
        return all(_defines(each, imported) for each in statements)

    match statement:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef(args=arguments, decorator_list=decorators, returns=returned):
            return quiet(arguments, *decorators, returned)
        case ast.ClassDef(bases=bases, keywords=keywords, decorator_list=decorators, body=body):
            return define(*body) and quiet(*bases, *keywords, *decorators)
        case ast.Assign(targets=targets, value=value):
            return all(map(_is_a_name, targets)) and quiet(value)
        case ast.AnnAssign(target=ast.Name(), annotation=annotation, value=value):
            return quiet(annotation, value)
        case ast.If(test=test, body=body, orelse=otherwise):
            return quiet(test) and define(*body, *otherwise)
        case ast.Try(body=body, handlers=handlers, orelse=otherwise, finalbody=last):
            caught = [each for handler in handlers for each in handler.body]
            return quiet(*(handler.type for handler in handlers)) and define(*body, *caught, *otherwise, *last)
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
    return False


def _is_a_name(target: ast.expr) -> bool:
    match target:
        case ast.Tuple(elts=several) | ast.List(elts=several):
            return all(map(_is_a_name, several))
        case ast.Starred(value=one):
            return _is_a_name(one)
    return isinstance(target, ast.Name)


def _is_quiet(part: ast.AST | None, imported: Container[str]) -> bool:
    """Whether nothing is called in it but what was imported or makes a number or a container of Python.

    What a lambda holds is not called yet.
    """
    match part:
        case None:
            return True
        case ast.Lambda(args=arguments):
            return _is_quiet(arguments, imported)
        case ast.Call(func=ast.Name(id=name)) if name not in imported and name not in _BUILT_IN:
            return False
        case ast.Call(func=function) if not (isinstance(function, ast.Name) or _is_of_a_module(function)):
            return False
    return all(_is_quiet(child, imported) for child in ast.iter_child_nodes(part))


def _is_of_a_module(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr.startswith("_"):
        return False
    return isinstance(function.value, ast.Name) or _is_of_a_module(function.value)


def _is_the_students(cell: NotebookNode) -> bool:
    """Whether a lesson asks the learner to change this cell of it."""
    return "exercise" in cell.metadata or "yours" in _tags(cell)


def _without(secret: str, part: Any) -> Any:
    """Outputs in which the secret does not stand as it is, for a student may print the whole environment."""
    match part:
        case str():
            return part.replace(secret, "...")
        case list():
            return [_without(secret, each) for each in part]
        case dict():
            return nbformat.from_dict({key: _without(secret, value) for key, value in part.items()})
    return part


class Execute(NbgraderExecute):
    """Runs the lesson's own cells as they were handed out, and of all others what they define.

    Where code ends the kernel, what ran before counts, and no cell below it does.
    """

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        """Called by nbgrader once for a submission."""
        self._reached = 0
        cells = [cell for cell in _handed_out(self, resources).cells if cell.cell_type == "code"]
        self._known = {cell.source for cell in cells}
        self._tests = {_grade_id(cell) for cell in cells if is_grade(cell)}
        self._ours = {cell.id: cell.source for cell in cells if not _is_the_students(cell)}
        self._imported = set().union(*(imports(cell.source) for cell in nb.cells if cell.cell_type == "code"))
        try:
            nb, resources = super().preprocess(nb, resources, km)
        except DeadKernelError:
            self.log.warning("The kernel ended in cell %d: what is below it earns nothing.", self._reached)
            said = {"ename": "DeadKernelError", "evalue": KERNEL_ENDED, "traceback": [KERNEL_ENDED]}
            for cell in nb.cells[self._reached :]:
                if cell.cell_type == "code":
                    cell.outputs = [*cell.outputs, new_output("error", **said)]
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = _without(os.environ[VARIABLE], cell.outputs)
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Called for each cell in turn."""
        self._reached = index
        if cell.cell_type != "code":
            return cell, resources
        if cell.get("id") in self._ours and _grade_id(cell) is None:
            cell.source = self._ours[cell.id]
        if _grade_id(cell) in self._tests:  # nbgrader itself puts it back, and would take a number shown for points
            cell, resources = super().preprocess_cell(cell, resources, index)
            cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
            return cell, resources
        if cell.source in self._known:
            return super().preprocess_cell(cell, resources, index)
        written = cell.source
        cell.source, left_out = definitions(written, self._imported)
        try:
            cell, resources = super().preprocess_cell(cell, resources, index)
        finally:
            cell.source = written
        if left_out:
            cell.outputs = [new_output("stream", text=LEFT_OUT.format(", ".join(map(str, left_out)))), *cell.outputs]
        return cell, resources


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


@pass_context
def markdown2html(context: Any, source: str) -> str:
    """A text's HTML."""
    return clean(_EXPORTER.markdown2html(context, source))


class FeedbackPage(HTMLExporter):
    """The page of feedback. A student wrote a part of it, and whoever opens it may be signed in as a teacher."""

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        """The filters of nbconvert's templates."""
        yield from super().default_filters()
        yield from FILTERS.items()


_EXPORTER = HTMLExporter()
FILTERS = {"markdown2html": markdown2html, "clean_html": clean}  # Formgrader's pages need them too
_DEFAULTS = {
    name: list(trait.default()) for name, trait in Autograde.class_traits().items() if "_preprocessors" in name
}
SANITIZE = [Sanitize, *_DEFAULTS["sanitize_preprocessors"]]
AUTOGRADE = [Execute if step is NbgraderExecute else step for step in _DEFAULTS["autograde_preprocessors"]]
