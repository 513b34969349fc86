"""A real JupyterLab in a real Chromium, on a copy of some notebooks."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import sync_playwright

from metalearn import course

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# What the course ships, and every cell in the page, so that the n-th cell of the file is the n-th on the page.
_shipped = json.loads(Path(course.__file__).with_name("overrides.json").read_text("utf-8"))
_shipped["@jupyterlab/notebook-extension:tracker"]["windowingMode"] = "none"
LAB_SETTINGS = json.dumps(_shipped)
VIEWPORT = {"width": 1280, "height": 1000}
START_TIMEOUT = 60  # seconds
EXECUTED = re.compile(r"\[\d+\]")
PICTURE = ".metalearn-explorer .picture"
SLIDER = ".metalearn-explorer input[type=range]"
CHANGED = f"""before => document.querySelector("{PICTURE}").innerHTML !== before"""
# Times of the pictures since a key went down: each is shown in the frame after it came.
WATCH = f"""() => {{
    let pressed;
    window.latencies = [];
    document.addEventListener("keydown", event => pressed = event.timeStamp, true);
    new MutationObserver(
        () => requestAnimationFrame(() => latencies.push(performance.now() - pressed))
    ).observe(document.querySelector("{PICTURE}"), {{ childList: true }});
}}"""
OURS = ".jp-Notebook :is(.jp-OutputArea-output, .jp-RenderedMarkdown)"  # the rest of the page is JupyterLab's own
CONTROL = ":is(button:enabled, input:enabled, select:enabled, summary):visible"
OTHER_RADIOS = "label:has(> [type=radio]) ~ label > [type=radio]"  # of a group, all but the first
FOCUSED = "output => output.contains(document.activeElement) ? document.activeElement.outerHTML : null"
# A comma or full stop that begins a line, because the formula before it ended the last one.
TORN = """() => [...document.querySelectorAll(".jp-RenderedMarkdown mjx-container:not([display])")].flatMap(formula => {
    const after = formula.nextSibling;
    if (after?.nodeType !== Node.TEXT_NODE || !/^[.,;:!?)]/.test(after.data)) return [];
    const mark = document.createRange();
    mark.setStart(after, 0);
    mark.setEnd(after, 1);
    const [place, line] = [mark.getClientRects()[0], formula.getBoundingClientRect()];
    return place && place.left < line.left && place.top >= line.bottom - 5 ? [formula.parentElement.textContent] : [];
})"""
# Whatever sticks out of its cell. Code scrolls by itself, and MathJax hides a copy for screen readers.
CUT_OFF = f"""() => [...document.querySelectorAll("{OURS}")].flatMap(cell => {{
    const right = cell.getBoundingClientRect().right + 1;
    return [...cell.querySelectorAll("*")]
        .filter(e => !e.closest("pre, mjx-assistive-mml") && e.getBoundingClientRect().right > right)
        .map(e => `${{e.tagName}} ${{e.className}} by ${{e.getBoundingClientRect().right - right}}: `
            + (e.closest("mjx-container") ?? e).outerHTML.slice(0, 150) + cell.textContent.slice(0, 60))
        .slice(0, 1);
}})"""
# MathJax draws with generated content, which axe does not see: its colour against the first background behind it.
FAINT_MATHEMATICS = """() => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = colour => channels(colour).slice(0, 3)
        .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => {
        const colour = getComputedStyle(e).backgroundColor;
        return channels(colour)[3] === 0 && e.parentElement ? behind(e.parentElement) : colour;
    };
    const contrast = e => {
        const [low, high] = [getComputedStyle(e).color, behind(e)].map(luminance).sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    return [...document.querySelectorAll("mjx-container")].filter(e => contrast(e) < 4.5).map(e => e.textContent);
}"""
CLOSE_LEFT_AREA = """() => {
    const [commands, toggle] = [jupyterapp.commands, "application:toggle-left-area"];
    if (commands.isToggled(toggle)) return commands.execute(toggle);
}"""
RUN_CELL = """index => {
    jupyterapp.shell.currentWidget.content.activeCellIndex = index;
    return jupyterapp.commands.execute("notebook:run-cell");
}"""
# MathJax's hidden copy of a formula at the end of a line makes JupyterLab's text wider by a fraction of a pixel.
SCROLLS = """selector => {
    const e = document.querySelector(selector);
    return e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1;
}"""
RULES = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
}


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
        """Tracebacks and standard error on the page, and what stands in the place of widgets that were not drawn."""
        kinds = ", ".join(
            f'.jp-OutputArea [data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr")
        )
        red = self.page.locator(kinds)
        return red.or_(self.page.get_by_text("javascript error")).all_inner_texts()

    def set_source(self, cell_id, source):
        """Replaces a cell's text, as a learner would, with the keyboard."""
        if self.cell(cell_id).locator(".jp-RenderedMarkdown").is_visible():
            self.cell(cell_id).locator(".jp-RenderedMarkdown").dblclick()
        self.cell(cell_id).locator(".cm-content").focus()  # a click would depend on the layout
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)

    def run(self, cell_id, timeout=60):
        """Runs one cell and waits for its end."""
        if not self.cell(cell_id).locator(".cm-content").is_visible():  # folded: nothing to click at
            self.page.evaluate(RUN_CELL, self.ids.index(cell_id))
            return
        prompt = self.cell(cell_id).locator(".jp-InputPrompt")
        prompt.evaluate("prompt => (prompt.textContent = '')")  # after a restart its number may be the same again
        self.cell(cell_id).locator(".cm-content").focus()  # a click would depend on the layout
        self.page.keyboard.press("Control+Enter")
        deadline = time.monotonic() + timeout
        while not EXECUTED.search(prompt.inner_text()):
            assert time.monotonic() < deadline, f"cell {cell_id} did not end in {timeout} s"
            self.page.wait_for_timeout(50)

    def press_slider(self, presses=1, timeout=20):
        """Moves the first slider of a picture with the arrow keys; once it has changed, its text and drawing."""
        picture, slider = self.page.locator(PICTURE).first, self.page.locator(SLIDER).first
        before = picture.inner_html()
        slider.focus()
        at_the_end = slider.evaluate("slider => slider.value === slider.max")
        for _ in range(presses):
            self.page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
        self.page.wait_for_function(CHANGED, arg=before, timeout=1000 * timeout)
        picture.scroll_into_view_if_needed()
        return picture.locator("svg").first.get_attribute("aria-label"), picture.inner_html()

    def latencies(self, presses=25):
        """Milliseconds from each press of an arrow key to the picture on the screen, up and down the first slider."""
        slider, key, seen = self.page.locator(SLIDER).first, "ArrowRight", 0
        slider.focus()
        self.page.evaluate(WATCH)
        for _ in range(3 * presses):
            low, now, high, step = slider.evaluate("({min, value, max, step}) => [min, value, max, step].map(Number)")
            key = "ArrowLeft" if now + step > high else "ArrowRight" if now < low + step / 2 else key
            self.page.keyboard.press(key)
            with suppress(PlaywrightTimeout):  # a small step may draw the same picture, which is not sent again
                self.page.wait_for_function("seen => latencies.length > seen", arg=seen, timeout=5_000)
            self.page.wait_for_timeout(50)
            seen = self.page.evaluate("latencies.length")
            if seen >= presses:
                break
        return self.page.evaluate("latencies")

    def picture_texts(self):
        """The text in place of each picture."""
        names = "images => images.map(image => image.alt ?? image.ariaLabel)"
        return self.page.locator(f"{OURS} :is(img, svg[role=img]):visible").evaluate_all(names)

    def unreachable(self):
        """Enabled controls that the Tab key, pressed from the first control of an output on, passes by.

        Of the radio buttons of a group it reaches one; the arrow keys reach the others.
        """
        passed_by = []
        for output in self.page.locator(f"{OURS}:has({CONTROL})").all():
            controls = output.locator(CONTROL)
            left = controls.evaluate_all(f"all => all.filter(e => !e.matches(`{OTHER_RADIOS}`)).map(e => e.outerHTML)")
            controls.first.focus()
            while (focused := output.evaluate(FOCUSED)) in left:
                left.remove(focused)
                self.page.keyboard.press("Tab")
            passed_by += left
        return passed_by

    def blemishes(self):
        """What a reader could not read at the present width and theme, in words."""
        return {
            "cut off": self.page.evaluate(CUT_OFF),
            "torn": self.page.evaluate(TORN),
            "mathematics in error": self.page.locator("mjx-merror, [data-mjx-error]").all_inner_texts(),
            "faint mathematics": self.page.evaluate(FAINT_MATHEMATICS),
        }

    def barriers(self):
        """What keeps somebody out, by axe-core's rules for WCAG 2.1 AA, in words."""
        found = Axe().run(self.page, context={"include": [OURS]}, options=RULES).response["violations"]
        return [
            f"{rule['id']}: {node['html'][:200]}"
            for rule in found
            for node in rule["nodes"]
            if rule["id"] != "scrollable-region-focusable" or self.page.evaluate(SCROLLS, node["target"][-1])
        ]

    def output(self, cell_id):
        """The text below a cell."""
        return self.cell(cell_id).locator(".jp-Cell-outputArea").inner_text()


class Lab:
    """A running JupyterLab, seen through one browser page."""

    def __init__(self, page, folder, url, token, server):
        self.page, self.folder, self.url, self.token, self.server = page, folder, url, token, server

    def open(self, name):
        """Opens a notebook and waits until its kernel is idle: before, running a cell would ask for a kernel."""
        self.page.goto(f"{self.url}/lab/tree/{name}?token={self.token}")
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=1000 * START_TIMEOUT)
        return Notebook(self.page, self.folder / name)

    def peak_memory(self):
        """Bytes that the largest kernel has had at most so far; 0 where /proc does not tell."""
        kernels = psutil.Process(self.server.pid).children(recursive=True)
        status = [Path(f"/proc/{kernel.pid}/status") for kernel in kernels]
        peaks = [re.search(r"VmHWM:\s+(\d+) kB", path.read_text()) for path in status if path.exists()]
        return max((1024 * int(peak[1]) for peak in peaks if peak), default=0)

    def restart_kernel(self):
        """Restarts the kernel of the open notebook and waits until it is idle."""
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=1000 * START_TIMEOUT)

    def look(self, theme, width):
        """Changes the theme, "Light" or "Dark", and the width of the window; closes the list of files beside it."""
        self.page.set_viewport_size({"width": width, "height": 1000})
        theme = f"JupyterLab {theme}"
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        self.page.locator(f'body[data-jp-theme-name="{theme}"]').wait_for(state="attached")
        self.page.evaluate(CLOSE_LEFT_AREA)
        self.page.wait_for_timeout(500)  # the style sheet and the layout follow

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


@contextmanager
def open_browser(scratch):
    """A page of Chromium with a fresh profile; None if there is no Chromium."""
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        yield None
        return
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            scratch,
            executable_path=executable,
            headless=True,
            args=CHROMIUM_FLAGS,
            viewport=VIEWPORT,
        )
        yield context.new_page()
        context.close()


@contextmanager
def open_lab(page, source, scratch):
    """JupyterLab on a copy of a folder of notebooks; gives a `Lab`."""
    folder = scratch / "lessons"
    shutil.copytree(source, folder)
    page.set_viewport_size(VIEWPORT)  # whatever the last test left
    with _server(folder, scratch) as (url, token, server):
        lab = Lab(page, folder, url, token, server)
        try:
            yield lab
        except BaseException:
            lab.screenshot("failure")
            raise


@contextmanager
def _server(folder, scratch):
    """A server that neither reads nor writes the user's own settings; gives its address, token and process."""
    settings = scratch / "config" / "labconfig"
    settings.mkdir(parents=True)
    (settings / "default_setting_overrides.json").write_text(LAB_SETTINGS)
    private = {f"JUPYTER_{kind.upper()}_DIR": str(scratch / kind) for kind in ("config", "data", "runtime")}
    private |= {"IPYTHONDIR": str(scratch / "ipython"), "METALEARN_PROGRESS": str(scratch / "progress.json")}
    token, port = secrets.token_hex(16), free_port()
    options = [f"--ServerApp.{name}" for name in (f"root_dir={folder}", f"port={port}", "allow_root=True")]
    options.append("--LabApp.expose_app_in_browser=True")  # to change the theme
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--IdentityProvider.token={token}", *options]
    url = f"http://localhost:{port}"
    with (scratch / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | private, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"{url}/api?token={token}", server, scratch / "server.log")
            yield url, token, server
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def wait_for(url, server, log):
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            running = server.poll() is None and time.monotonic() < deadline
            assert running, f"JupyterLab did not start:\n{log.read_text()}"
            time.sleep(0.2)
