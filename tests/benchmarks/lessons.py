"""How long a lesson takes from top to bottom with nothing compiled before, and how long its silent cells are."""

import datetime
import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
from measure import Row
from nbclient import NotebookClient

SOLUTIONS = Path(__file__).parents[2] / "solutions"
LIMIT, SILENT = 45, 3  # seconds
BAR = re.compile(r"\d+%\|")  # as tqdm draws one


def rows(_: int) -> list[Row]:
    """Each lesson once, alone, and its slowest cells among those that show no bar."""
    return [row for path in sorted(SOLUTIONS.glob("*.ipynb")) for row in _rows_of(path)]


def _rows_of(path: Path) -> list[Row]:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {
            "XDG_CACHE_HOME": scratch,
            "METALEARN_PROGRESS": str(Path(scratch, "progress.json")),
        }
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": scratch}})
        begin = time.perf_counter()
        client.execute(env=environment)
        whole = time.perf_counter() - begin
    silent = {cell.id: _seconds(cell) for cell in notebook.cells if cell.cell_type == "code" and not _has_bar(cell)}
    slowest = max(silent.values())
    waits = ", ".join(f"{cell} {taken:.1f} s" for cell, taken in silent.items() if taken > SILENT) or f"{slowest:.1f} s"
    number = path.stem[:2]
    print(f"  lesson {number}: {whole:.1f} s; without a bar: {waits}", flush=True)
    return [
        Row(f"lesson {number}, cold", f"{whole:.1f} s", f"{LIMIT} s", whole / LIMIT, ("at most", 1)),
        Row("its slowest cells without a bar", waits, f"{SILENT} s", slowest / SILENT, ("at most", 1)),
    ]


def _seconds(cell) -> float:
    if not cell.source.strip():
        return 0.0
    times = cell.metadata["execution"]
    begin, end = (datetime.datetime.fromisoformat(times[at]) for at in ("iopub.execute_input", "shell.execute_reply"))
    return (end - begin).total_seconds()


def _has_bar(cell) -> bool:
    return any(BAR.search(output.get("text", "")) for output in cell.outputs)
