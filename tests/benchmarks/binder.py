"""The Binder image without Docker: its packages in an environment of their own, its server, a kernel on each lesson.

What remains untried is the image itself: on Binder the server is JupyterHub's, which starts the same JupyterLab, and
the machine is another.
"""

import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
from jupyter_client import BlockingKernelClient
from measure import Row, seconds
from memory import peak_of

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))
MEMORY_LIMIT = 1e9  # bytes; others report that Binder ends a session at one to two GB
TIMEOUT = 120  # seconds: for the server to answer, and for one cell


def rows(rounds: int) -> Iterator[Row]:
    """The size of the packages, the time from the server's start to the first result, the memory of each lesson."""
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder, "environment"))
        size = sum(file.lstat().st_size for file in python.parents[1].rglob("*"))
        yield Row("Binder: packages on disk, without byte code", f"{size / 1e9:.2f} GB", "1 GB", size / 1e9)
        times = [first_result(python) for _ in range(rounds)]
        what = "Binder: from the server's start to the end of the first code cell, nothing compiled before"
        yield Row(what, seconds(np.array(times)), "10 s", float(np.median(times)) / 10)
        for lesson in LESSONS:
            peak = peak_memory(python, lesson)
            what, limit = f"Binder: server and kernel, `{lesson.stem}`", f"{MEMORY_LIMIT / 1e6:.0f} MB"
            yield Row(what, f"{peak / 1e6:.0f} MB", limit, peak / MEMORY_LIMIT, ("at most", 1))


def install(folder: Path) -> Path:
    """The Python of a new environment with what Binder installs, and nothing else."""
    python = folder / "bin/python"
    subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", folder], check=True)
    for what in (["--requirements", ROOT / "binder/requirements.txt"], ["--no-deps", ROOT]):
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *what], check=True)
    return python


def first_result(python: Path) -> float:
    """Seconds from the server's start until the first code cell of the first lesson has run."""
    start = time.perf_counter()
    with server(python) as (_, kernel), kernel() as run:
        run(code_cells(LESSONS[0])[0])
        return time.perf_counter() - start


def peak_memory(python: Path, lesson: Path) -> int:
    """Bytes of the server and all below it, at most, while one kernel runs a lesson."""
    with server(python) as (process, kernel), peak_of(process.pid) as peak, kernel() as run:
        for cell in code_cells(lesson):
            run(cell)
    return peak.bytes


def code_cells(lesson: Path) -> list[str]:
    """The sources of a lesson's code cells."""
    return [cell.source for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "code"]


@contextmanager
def server(python: Path):
    """JupyterLab, started as on Binder, without any file of this machine's user; (its process, what opens a kernel)."""
    with tempfile.TemporaryDirectory() as scratch:
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XDG_CACHE_HOME")
        private = {name: str(Path(scratch, name)) for name in names}
        private["METALEARN_PROGRESS"] = str(Path(scratch, "progress.json"))
        private["JUPYTER_TOKEN"] = "token"
        options = ["--no-browser", "--allow-root", "--port=0", f"--ServerApp.root_dir={ROOT}"]
        command = [ROOT / "binder/start", python, "-m", "jupyterlab", *options]
        with Path(scratch, "log").open("w") as log:
            process = subprocess.Popen(command, env=os.environ | private, cwd=ROOT, stdout=log, stderr=log)
        runtime = Path(private["JUPYTER_RUNTIME_DIR"])
        try:
            yield process, lambda: _kernel(runtime)
        finally:
            process.terminate()
            process.wait(TIMEOUT)


@contextmanager
def _kernel(runtime: Path):
    """A new kernel of the server, in the folder of the lessons; a function that runs source on it."""
    info = json.loads(_once_it_exists(runtime, "jpserver-*.json").read_text())
    body = json.dumps({"name": "python3", "path": "lessons/new.ipynb"}).encode()
    headers = {"Authorization": "token token", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{info['url']}api/kernels", body, headers)
    kernel_id = json.loads(_once_it_answers(request))["id"]
    client = BlockingKernelClient(connection_file=str(_once_it_exists(runtime, f"kernel-{kernel_id}.json")))
    client.load_connection_file()
    client.start_channels(hb=False)  # on a busy machine a kernel that starts misses heartbeats, and would count as dead
    client.wait_for_ready(timeout=TIMEOUT)

    def run(source):
        reply = client.execute_interactive(source, timeout=TIMEOUT, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply["content"]

    yield run
    client.stop_channels()


def _once_it_answers(request: urllib.request.Request) -> bytes:
    deadline = time.monotonic() + TIMEOUT
    while True:  # the server writes down its address a moment before it listens there
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT).read()
        except urllib.error.URLError as error:
            assert isinstance(error.reason, ConnectionRefusedError) and time.monotonic() < deadline, error
            time.sleep(0.05)


def _once_it_exists(folder: Path, pattern: str) -> Path:
    deadline = time.monotonic() + TIMEOUT
    while not (found := [file for file in folder.glob(pattern) if file.read_text().rstrip().endswith("}")]):
        assert time.monotonic() < deadline, f"no {pattern} after {TIMEOUT} s"
        time.sleep(0.05)
    return found[0]
