"""Builds what a learner opens from what an author writes.

    solutions/02_maml.py  ->  lessons/02_maml.ipynb     solutions stripped, no outputs
                          ->  solutions/02_maml.ipynb   executed, outputs kept

The source is a jupytext py:percent file, and the only place where a lesson is edited. An exercise is three cells
in this order; other cells may stand between the second and the third:

    # %% [markdown]                                              the sentence that asks
    # %% tags=["exercise"] exercise="02.meta_gradient"           the stub, with its solution between the markers
    # %%                                                         check("02.meta_gradient", meta_gradient)

A question that is answered in words and formulas is two:

    # %% [markdown]                                              the sentence that asks, below a heading
    # %% [markdown] tags=["free-text"] question="02.bound"       a model answer between the markers

The first cell says what is the author's of the lesson's top; `page` adds the rest from the table of the course, and the
last cell, which leads to the next lesson. A code cell whose code is not the lesson, such as one that draws, is folded:

    # %% [markdown] tags=["opening"]                             **Afterwards you can**, **New symbols**, lists
    # %% tags=["fold"]                                           shows its output only; a click shows the code
    # %% tags=["yours"]                                          the learner is asked to change it

Difficulty, minutes, expected output and hints come from the exercise's definition, so each is written once.
Cell ids follow from the lesson and the position or exercise: two builds of one source are the same bytes.
"""

import copy
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

import jupytext
import nbclient
import nbformat
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from metalearn import plots
from metalearn.course import syllabus
from metalearn.course.exercises import exercise
from metalearn.course.publishing import badges, guide, page

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = "raise NotImplementedError  # your code here"
TEXT_STUB = "*Your answer here.*"
CELL_TIMEOUT = 120  # seconds
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
JUPYTEXT_NOISE = ("lines_to_next_cell", "lines_to_end_of_cell_marker")

_SOLUTION = re.compile(rf"^([ \t]*){BEGIN}\n(?:.*\n)*?[ \t]*{END}$", re.MULTILINE)
_MARKER_LINE = re.compile(rf"^[ \t]*(?:{BEGIN}|{END})(?:\n|\Z)", re.MULTILINE)
_CHECK = re.compile(r"""\bcheck\(\s*["']([^"']+)["']""")
_CELL_START = re.compile(r"# ?%%")
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


class SourceError(ValueError):
    """A lesson's source breaks a rule; the message starts with the file and the line."""


def read_source(path: Path) -> NotebookNode:
    """Reads a lesson's source into a notebook that still holds solutions and markers.

    Args:
      path: `NN_slug.py` in jupytext's percent format.
    Returns:
      The notebook: the lesson's top and bottom, difficulty and minutes above each exercise, expected output and hints
      below its check, fixed ids. The picture of the top is not drawn yet: its attachments are empty.
    Raises:
      SourceError: naming file and line, if markers are unbalanced, an exercise lacks its text or its check, a
        question its text, or an id is unknown, repeated or of another lesson.
    """
    numbered = _numbered_cells(path)
    _validate(path, numbered)
    cells: list[NotebookNode] = []
    number, waiting, framed = 0, None, None
    for _, cell in numbered:
        cell.id = f"{path.stem}-{len(cells):02d}"
        cell.metadata = nbformat.from_dict(_without(cell.metadata, *JUPYTEXT_NOISE))
        tags = cell.metadata.get("tags", [])
        if "opening" in tags:
            (framed,) = [lesson for lesson in syllabus.LESSONS if lesson.stem == path.stem]
            cell.source = page.opening(framed, cell.source)
            if page.draws(framed.number):
                cell.attachments = nbformat.from_dict({name: {"image/png": ""} for name in page.PICTURES})
        if "fold" in tags:
            cell.metadata.tags = ["hide-input" if tag == "fold" else tag for tag in tags]
            cell.metadata.jupyter = nbformat.from_dict({"source_hidden": True})
        if "exercise" in cell.metadata:
            number, waiting = number + 1, exercise.find(cell.metadata.exercise)
            cell.id = _cell_id(waiting.id)
            cells[-1].source = _with_heading(cells[-1].source, f"{path.stem[:2]}.{number}", waiting)
        elif "question" in cell.metadata:
            cell.id = _cell_id(cell.metadata.question)
        cells.append(cell)
        if waiting and waiting.id in checked(cell):
            cell.id = _cell_id(waiting.id, "check")
            cells.append(new_markdown_cell(_help(waiting), id=_cell_id(waiting.id, "help")))
            waiting = None
    if framed:
        cells.append(new_markdown_cell(page.closing(framed), id=f"{path.stem}-closing"))
    return new_notebook(cells=cells, metadata=copy.deepcopy(NOTEBOOK_METADATA))


def to_lesson(notebook: NotebookNode, stem: str, repository: str | None = None) -> NotebookNode:
    """The learner's notebook: each solution becomes one line, which in code raises NotImplementedError.

    The solution itself is folded below the hints, a model answer below its question. Where the course is published, if
    that is known, the strip on top leads to Binder and Colab, and the first code cell installs the course there.
    """
    lesson = copy.deepcopy(notebook)
    cells, code = [], ""
    for cell in lesson.cells:
        solution = _MARKER_LINE.sub("", cell.source).strip()
        cell.source = _SOLUTION.sub(rf"\1{STUB if cell.cell_type == 'code' else TEXT_STUB}", cell.source)
        if "exercise" in cell.metadata:
            code = f"```python\n{solution}\n```"
        elif cell.id.endswith("-help"):
            cell.source += "\n\n" + _folded("Solution", code)
        cells.append(cell)
        if "question" in cell.metadata:
            cells.append(new_markdown_cell(_folded("A model answer", solution), id=f"{cell.id}-answer"))
    lesson.cells = cells
    if repository:
        links = {"Binder": badges.binder(repository, "main", stem), "Colab": badges.colab(repository, "main", stem)}
        lesson.cells[0].source = page.with_links(lesson.cells[0].source, links)
        lesson.cells.insert(1, new_code_cell(badges.install_cell(repository), id=f"{stem}-install"))
    return lesson


def to_solution(notebook: NotebookNode) -> NotebookNode:
    """The worked notebook, not executed yet: solutions stay, their marker lines go."""
    solution = copy.deepcopy(notebook)
    for cell in solution.cells:
        cell.source = _MARKER_LINE.sub("", cell.source).rstrip("\n")
    return solution


def draw(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the picture of its top, if it has one."""
    for cell in notebook.cells:
        if "attachments" in cell:
            cell.attachments = nbformat.from_dict(page.pictures(cell.id[:2]))
    return notebook


def take_picture(notebook: NotebookNode, stored: NotebookNode) -> NotebookNode:
    """The notebook with the picture of another one, for its bytes depend on the version of what drew it."""
    drawn = [cell.attachments for cell in stored.cells if _is_drawn(cell)]
    for cell in notebook.cells:
        if drawn and "attachments" in cell:
            cell.attachments = drawn[0]
    return notebook


def _is_drawn(cell: NotebookNode) -> bool:
    attachments = cell.get("attachments", {})
    return tuple(attachments) == page.PICTURES and all(drawn["image/png"] for drawn in attachments.values())


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Runs a copy of the notebook in `folder` and returns it with outputs that name no path of this machine.

    Raises:
      CellControlSignal: if a cell raises or takes longer than CELL_TIMEOUT; the message shows the cell and the error.
      DeadKernelError: if the kernel dies.
    """
    executed = copy.deepcopy(notebook)
    client = nbclient.NotebookClient(
        executed,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # of a progress bar, keep the last state
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as scratch:  # a build is nobody's progress
        client.execute(env={**os.environ, "METALEARN_PROGRESS": os.path.join(scratch, "progress.json")})
    executed.metadata.update(NOTEBOOK_METADATA)  # the kernel had written its own version there
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = nbformat.from_dict(_without_paths(cell.outputs, folder.resolve().parent))
    return executed


def build(root: Path, slugs: Sequence[str] = (), run: bool = True) -> bool:
    """Writes lessons and executed solutions, one printed line each; a lesson that fails leaves its old files.

    Args:
      root: the folder that holds `lessons/` and `solutions/`.
      slugs: the lessons to build, as `02_maml` or `maml`; all if empty.
      run: if False, execute nothing; a worked notebook is written only if its code is that which was executed last.
    Returns:
      Whether every lesson could be built.
    """
    succeeded = True
    for path in sources(root, slugs):
        start = time.perf_counter()
        try:
            notebook = draw(read_source(path))
            worked = to_solution(notebook)
            if run:
                worked = execute(worked, path.parent)
            if run or _keep_outputs(worked, path.with_suffix(".ipynb")):
                _write(path.with_suffix(".ipynb"), worked)
            _write(root / "lessons" / f"{path.stem}.ipynb", to_lesson(notebook, path.stem, badges.published(root)))
        except (SourceError, CellControlSignal, DeadKernelError) as error:
            succeeded = False
            print(f"{path.stem}: not built\n{_COLOURS.sub('', str(error))}", flush=True)
        else:
            print(f"{path.stem}  {time.perf_counter() - start:.1f} s", flush=True)
    for path, text in pages(root).items():
        path.write_text(text, "utf-8")
    return succeeded


def check(root: Path, slugs: Sequence[str] = ()) -> list[str]:
    """Compares the notebooks on disk with a fresh build, executing nothing.

    Args:
      root: the folder that holds `lessons/` and `solutions/`.
      slugs: the lessons to compare; all if empty.
    Returns:
      One sentence for each notebook that is missing, drifted, not fully executed, failed, or without a source.
    """
    complaints = []
    for path in sources(root, slugs):
        try:
            notebook = read_source(path)
        except SourceError as error:
            complaints.append(str(error))
            continue
        lesson = root / "lessons" / f"{path.stem}.ipynb"
        solution = path.with_suffix(".ipynb")
        complaints += _drift(lesson, to_lesson(notebook, path.stem, badges.published(root)), root, executed=False)
        complaints += _drift(solution, to_solution(notebook), root, executed=True)
    if not slugs:
        stems = {path.stem for path in sources(root)}
        found = sorted([*(root / "lessons").glob("*.ipynb"), *(root / "solutions").glob("*.ipynb")])
        complaints += [f"{p.relative_to(root)}: has no source" for p in found if p.stem not in stems]
    for path, text in pages(root).items():
        if not path.exists() or path.read_text("utf-8") != text:
            complaints.append(f"{path.relative_to(root)}: differs from a fresh build; build it again")
    return complaints


def pages(root: Path) -> dict[Path, str]:
    """What stands beside the lessons, by path; nothing in a folder that has not all lessons of the course."""
    if not all((root / f"solutions/{lesson.stem}.py").exists() for lesson in syllabus.LESSONS):
        return {}
    written = {root / "lessons" / name: page.written(name) for name in (page.NOTATION, page.SOURCES)}
    made = {page.CONTENTS: page.contents(), page.GUIDE: guide.guide()}
    return {root / "lessons" / name: text for name, text in made.items()} | written


def sources(root: Path, slugs: Sequence[str] = ()) -> list[Path]:
    """The sources under `root/solutions`, in order; only those named by `slugs` if there are any.

    Raises:
      ValueError: if a slug names no source, or there is no source at all.
    """
    paths = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    if not paths:
        raise ValueError(
            f"no lesson source (solutions/NN_slug.py) under {root.resolve()}; run this in the course's repository, or "
            "name its folder with --root"
        )
    names = {name: path for path in paths for name in (path.stem, path.stem[3:], path.stem[:2])}
    if unknown := [slug for slug in slugs if slug not in names]:
        raise ValueError(f"no such lesson: {', '.join(unknown)} (there are {', '.join(p.stem for p in paths)})")
    return [path for path in paths if not slugs or path in {names[slug] for slug in slugs}]


def _numbered_cells(path: Path) -> list[tuple[int, NotebookNode]]:
    """Each cell with the line of its `# %%`."""
    text = path.read_text("utf-8")
    cells = jupytext.reads(text, fmt="py:percent").cells
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _CELL_START.match(line)]
    if len(lines) != len(cells):
        raise SourceError(f"{path}:1: every line after the header must belong to a cell that starts with '# %%'")
    return list(zip(lines, cells, strict=True))


def _validate(path: Path, numbered: list[tuple[int, NotebookNode]]) -> None:
    """Raises SourceError for the first rule that the source breaks."""

    def fail(line: int, message: str) -> NoReturn:
        raise SourceError(f"{path}:{line}: {message}")

    seen: set[str] = set()
    waiting: tuple[int, str] | None = None
    previous = None
    for position, (line, cell) in enumerate(numbered):
        exercise_id, question_id = cell.metadata.get("exercise"), cell.metadata.get("question")
        tags = cell.metadata.get("tags", [])
        if "opening" in tags:
            lesson = syllabus.find(path.stem[:2])
            if position or cell.cell_type != "markdown":
                fail(line, "the opening must be the first cell, and Markdown")
            if lesson is None or lesson.stem != path.stem:
                fail(line, "a lesson with an opening needs its line in metalearn/course/syllabus.py")
            try:
                page.opening(lesson, cell.source)
            except ValueError as error:
                fail(line, str(error))
        if "fold" in tags and (cell.cell_type != "code" or exercise_id is not None):
            fail(line, "only a code cell that is no exercise can be folded")
        if (exercise_id is not None) != ("exercise" in tags):
            fail(line, 'an exercise cell needs both tags=["exercise"] and exercise="NN.name"')
        asks = question_id is not None
        if asks != ("free-text" in tags) or (asks and cell.cell_type != "markdown"):
            fail(line, 'a question needs a markdown cell with both tags=["free-text"] and question="NN.name"')
        markers = _markers(cell, line, fail)
        kind, asked = ("exercise", exercise_id) if exercise_id is not None else ("question", question_id)
        if asked is None and markers:
            fail(line, "solution markers outside an exercise cell or a free-text cell")
        if asked is not None:
            if waiting and kind == "exercise":
                break
            if not markers:
                fail(line, f"{kind} {asked} has no solution markers")
            if not asked.startswith(f"{path.stem[:2]}."):
                fail(line, f"{kind} {asked} does not start with the lesson's number, {path.stem[:2]}")
            if asked in seen:
                fail(line, f"{kind} {asked} appears twice")
            if previous is None or previous.cell_type != "markdown" or not previous.source.startswith("#"):
                fail(line, f"{kind} {asked} needs a markdown cell that begins with a heading directly above it")
            seen.add(asked)
        if exercise_id is not None:
            waiting = line, exercise_id
        for known in checked(cell):
            try:
                exercise.find(known)
            except ValueError as error:
                fail(line, f"check of an unknown exercise: {error}")
            if waiting and known == waiting[1]:
                waiting = None
        previous = cell
    if waiting:
        fail(waiting[0], f'exercise {waiting[1]} is not followed by its check("{waiting[1]}", ...)')


def _markers(cell: NotebookNode, line: int, fail: Callable[[int, str], NoReturn]) -> int:
    """The number of solution regions in a cell, each marker alone on its line and each BEGIN with its END."""
    opened, regions = 0, 0
    for number, text in enumerate(cell.source.splitlines(), line + 1):
        if BEGIN not in text and END not in text:
            continue
        if text.strip() not in (BEGIN, END):
            fail(number, "a solution marker must stand alone on its line")
        if (text.strip() == BEGIN) == bool(opened):
            fail(number, f"{text.strip()} without its partner")
        opened = 0 if opened else number
        regions += 1 if opened else 0
    if opened:
        fail(opened, f"{BEGIN} without its partner")
    return regions


def checked(cell: NotebookNode) -> Iterator[str]:
    """The exercise ids that a code cell checks."""
    return (match[1] for match in _CHECK.finditer(cell.source) if cell.cell_type == "code")


def _cell_id(exercise_id: str, *suffix: str) -> str:
    return "-".join((exercise_id.replace(".", "-"), *suffix))


def _with_heading(text: str, number: str, definition: exercise.Exercise) -> str:
    """The author's text with one line of facts below its heading."""
    dots = "●" * definition.difficulty + "○" * (3 - definition.difficulty)
    facts = (
        f"**Exercise {number}** · difficulty {dots} ({definition.difficulty} of 3) · about {definition.minutes} minutes"
    )
    first, _, rest = text.partition("\n")
    return f"{first}\n\n{facts}\n\n{rest.lstrip()}"


def _help(definition: exercise.Exercise) -> str:
    hints = [_folded(f"Hint {n}", hint) for n, hint in enumerate(definition.hints, 1)]
    return "\n\n".join([_folded("Expected output", definition.expected), *hints])


def _folded(summary: str, text: str) -> str:
    # The blank lines are what makes Markdown and mathematics render inside HTML.
    return f"<details>\n<summary>{summary}</summary>\n\n{text.strip()}\n\n</details>"


def _without_paths(value: Any, root: Path) -> Any:
    """Outputs with the machine's folders cut from file names, in warnings for example."""
    if isinstance(value, str):
        value = re.sub(r"[\w./-]*/ipykernel_\d+/\d+\.py", "<cell>", value)
        value = re.sub(r"[\w./-]*/site-packages/", "site-packages/", value)
        return value.replace(f"{root}/", "")
    if isinstance(value, list):
        return [_without_paths(item, root) for item in value]
    if isinstance(value, dict):
        return {key: _without_paths(item, root) for key, item in value.items()}
    return value


def _without(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def as_text(notebook: NotebookNode) -> str:
    """What the file of a notebook holds."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _write(path: Path, notebook: NotebookNode) -> None:
    """Writes the whole file or nothing."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(as_text(notebook), "utf-8")
    os.replace(partial, path)


def _keep_outputs(worked: NotebookNode, path: Path) -> bool:
    """Gives `worked` the outputs stored at `path` if they are of the same code; whether they were."""
    if not path.exists():
        return False
    stored = nbformat.read(path, as_version=4)
    mine, theirs = ([cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (worked, stored))
    if [cell.source for cell in mine] != [cell.source for cell in theirs]:
        return False
    for cell, executed in zip(mine, theirs, strict=True):
        cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    worked.metadata = stored.metadata
    return True


def _drift(path: Path, fresh: NotebookNode, root: Path, executed: bool) -> list[str]:
    """What is wrong with the notebook at `path`, given its fresh build; outputs count only if not `executed`."""
    name = path.relative_to(root)
    if not path.exists():
        return [f"{name}: is missing; build it"]
    text = path.read_text("utf-8")
    try:
        stored = nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat raises many kinds; a merge conflict is the usual cause
        return [f"{name}: is not a notebook ({error})"]
    fresh = take_picture(copy.deepcopy(fresh), stored)
    if undrawn := [cell.id for cell in fresh.cells if "attachments" in cell and not _is_drawn(cell)]:
        return [f"{name}: the picture of cell {undrawn[0]} is missing; build it again"]
    if not executed and text == as_text(fresh):
        return []
    ignored = ("outputs", "execution_count") if executed else ()
    for position, (old, new) in enumerate(zip_longest(stored.cells, fresh.cells)):
        if _without(old or {}, *ignored) != _without(new or {}, *ignored):
            cell_id = (new or old).id
            return [f"{name}: differs from its source, first in cell {position} ({cell_id}); build it again"]
    if not executed or _without(stored.metadata, "widgets") != fresh.metadata:
        return [f"{name}: its metadata or layout differs from a fresh build; build it again"]
    complaints = []
    for position, cell in enumerate(stored.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            complaints.append(f"{name}: cell {position} ({cell.id}) was never executed")
        if any(output.output_type == "error" for output in cell.outputs):
            complaints.append(f"{name}: cell {position} ({cell.id}) stores an error")
    pictures = [
        output.get("data", {}).get("text/html", "") for cell in stored.cells for output in cell.get("outputs", [])
    ]
    if any('class="ml-figure"' in picture and plots.STYLE not in picture for picture in pictures):
        complaints.append(f"{name}: shows a figure of an older style; build it again")
    return complaints
