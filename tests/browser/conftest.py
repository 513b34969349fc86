"""A real JupyterLab in a real Chromium, on a copy of some notebooks."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# Every cell in the page, so that the n-th cell of the file is the n-th on the page; and no first-start dialogs.
LAB_SETTINGS = """{
  "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
  "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}
}"""
START_TIMEOUT = 60  # seconds
EXECUTED = re.compile(r"\[\d+\]")
PICTURE = "img.widget-image"
SLIDER = f".jp-OutputArea-output:has({PICTURE}) .noUi-handle"
READ_BYTES = "async image => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]"
CHANGED = f"""async before => {{
    const now = await ({READ_BYTES})(document.querySelector("{PICTURE}"));
    return now.length !== before.length || now.some((byte, i) => byte !== before[i]);
}}"""


class Notebook:
    """A notebook open in JupyterLab. Cells are named by their id in the file."""

    def __init__(self, page, path):
        self.page = page
        self.ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]

    def cell(self, cell_id):
        return self.page.locator(".jp-Notebook .jp-Cell").nth(self.ids.index(cell_id))

    def run_all(self, timeout):
        """Runs all cells and waits until none is waiting or running."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(e => e.textContent);
                return prompts.some(p => /\\d/.test(p)) && !prompts.some(p => p.includes("*"));
            }""",
            timeout=1000 * timeout,
        )

    def errors(self):
        """The tracebacks on the page, and what stands in the place of widgets that could not be drawn."""
        tracebacks = self.page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]')
        return tracebacks.or_(self.page.get_by_text("javascript error")).all_inner_texts()

    def set_source(self, cell_id, source):
        """Replaces a cell's text, as a learner would, with the keyboard."""
        self.cell(cell_id).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)

    def run(self, cell_id, timeout=60):
        """Runs one cell and waits for its end."""
        prompt = self.cell(cell_id).locator(".jp-InputPrompt")
        before = prompt.inner_text()
        self.cell(cell_id).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        deadline = time.monotonic() + timeout
        while (now := prompt.inner_text()) == before or not EXECUTED.search(now):
            assert time.monotonic() < deadline, f"cell {cell_id} did not end in {timeout} s"
            self.page.wait_for_timeout(50)

    def press_slider(self, presses=1, timeout=20):
        """Moves the first slider of a picture with the arrow keys; once the picture is another, its title and bytes."""
        picture, slider = self.page.locator(PICTURE).first, self.page.locator(SLIDER).first
        before = picture.evaluate(READ_BYTES)
        slider.focus()
        at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        for _ in range(presses):
            self.page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
        self.page.wait_for_function(CHANGED, arg=before, timeout=1000 * timeout)
        picture.scroll_into_view_if_needed()
        return picture.get_attribute("title"), bytes(picture.evaluate(READ_BYTES))

    def output(self, cell_id):
        """The text below a cell."""
        return self.cell(cell_id).locator(".jp-Cell-outputArea").inner_text()


class Lab:
    """A running JupyterLab, seen through one browser page."""

    def __init__(self, page, folder, url, token):
        self.page, self.folder, self.url, self.token = page, folder, url, token

    def open(self, name):
        """Opens a notebook and waits until its kernel is idle: before, running a cell would ask for a kernel."""
        self.page.goto(f"{self.url}/lab/tree/{name}?token={self.token}")
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=1000 * START_TIMEOUT)
        return Notebook(self.page, self.folder / name)

    def screenshot(self, name):
        """Saves a picture of the page, if METALEARN_SCREENSHOTS names a folder for it."""
        if folder := os.environ.get("METALEARN_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def read_through(self, name):
        """Saves pictures of the whole notebook, a screenful each, if METALEARN_SCREENSHOTS names a folder for them."""
        if os.environ.get("METALEARN_SCREENSHOTS"):
            notebook = self.page.locator(".jp-WindowedPanel-outer").first
            height, screen = notebook.evaluate("panel => [panel.scrollHeight, panel.clientHeight]")
            for i in range(-(-height // screen)):
                notebook.evaluate("(panel, y) => panel.scrollTo(0, y)", i * screen)
                self.page.wait_for_timeout(300)
                self.screenshot(f"{name}-{i:02d}")


@pytest.fixture(scope="session")
def browser_page(tmp_path_factory):
    """A page of Chromium with a fresh profile."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (uv sync installs it)")
    chromium = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium found: install Debian's chromium package to run this test")
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=chromium,
            headless=True,
            args=CHROMIUM_FLAGS,
            viewport={"width": 1280, "height": 1000},
        )
        yield context.new_page()
        context.close()


@pytest.fixture
def open_lab(browser_page, tmp_path):
    """Starts JupyterLab on a copy of a folder; a context manager that gives a `Lab`."""

    @contextmanager
    def start(source):
        folder = tmp_path / "lessons"
        shutil.copytree(source, folder)
        with _server(folder, tmp_path) as (url, token):
            lab = Lab(browser_page, folder, url, token)
            try:
                yield lab
            except BaseException:
                lab.screenshot("failure")
                raise

    return start


@contextmanager
def _server(folder, scratch):
    """A JupyterLab server that neither reads nor writes the user's own settings; gives its address and token."""
    settings = scratch / "config" / "labconfig"
    settings.mkdir(parents=True)
    (settings / "default_setting_overrides.json").write_text(LAB_SETTINGS)
    private = {f"JUPYTER_{kind.upper()}_DIR": str(scratch / kind) for kind in ("config", "data", "runtime")}
    private |= {"IPYTHONDIR": str(scratch / "ipython"), "METALEARN_PROGRESS": str(scratch / "progress.json")}
    token, port = secrets.token_hex(16), _free_port()
    options = [f"--ServerApp.{name}" for name in (f"root_dir={folder}", f"port={port}", "allow_root=True")]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--IdentityProvider.token={token}", *options]
    url = f"http://localhost:{port}"
    with (scratch / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | private, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"{url}/api?token={token}", server, scratch / "server.log")
            yield url, token
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _wait_for(url, server, log):
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            running = server.poll() is None and time.monotonic() < deadline
            assert running, f"JupyterLab did not start:\n{log.read_text()}"
            time.sleep(0.2)
