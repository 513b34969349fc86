"""The website as a reader gets it: built without a warning, no dead link, no answer in sight, no other host asked."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import metalearn as ml
from metalearn.course.publishing import site

ROOT = Path(__file__).parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "solutions").glob("*.ipynb"))
RENDERED = (
    "() => document.querySelectorAll('div.math, span.math').length === 0 || document.querySelector('mjx-container')"
)
UNRENDERED = "() => [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in site.REQUIRED), reason="no Sphinx: uv sync --group site installs it"
    ),
]


class Page(HTMLParser):
    """What a page of HTML holds: ids, addresses, and its text, folded and not."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.folded, self.visible = "", ""
        self.depth = self.hidden = 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id"))
        self.hidden += tag in ("script", "style")
        if tag == "details":
            assert "open" not in values
            self.depth += 1
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(values["href"])
        if "src" in values:
            self.loaded.append(values["src"])

    def handle_endtag(self, tag):
        self.depth -= tag == "details"
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if self.depth and not self.hidden:
            self.folded += data
        elif not self.hidden:
            self.visible += data


def squeezed(text):
    return re.sub(r"\s+", "", text)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the website, made by the documented command."""
    folder = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "metalearn.course", "site", "--root", ROOT, "--to", folder]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stderr.lower()
    return folder


@pytest.fixture(scope="module")
def pages(built):
    """Every page by its path."""
    paths = (path.relative_to(built) for path in built.rglob("*.html"))
    return {path.as_posix(): Page(built / path) for path in paths if path.parts[0] != "_static"}


@pytest.fixture(scope="module")
def address(built):
    """Where a web server on this machine shows the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Quiet, directory=built))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()


def test_there_is_a_page_for_each_lesson_the_library_and_the_teacher(pages):
    assert {f"lessons/{lesson}.html" for lesson in LESSONS} <= pages.keys()
    assert {"index.html", "teaching.html", "library/meta_gradients.html"} <= pages.keys()


def test_the_reference_has_every_public_name(pages):
    documented = set().union(*(page.ids for page in pages.values()))
    public = {f"metalearn.{name}" for name in ml.__all__}
    for module in (ml.tasks, ml.theory):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    modules = {name for name in public if f"module-{name}" in documented}
    assert public - modules - documented == set()


def test_every_internal_link_has_an_end(built, pages):
    dead = []
    for name, page in pages.items():
        for link in (*page.links, *page.loaded):
            scheme, host, path, _, anchor = urlsplit(link)
            if scheme or host:
                continue
            target = (built / name).parent / unquote(path) if path else built / name
            exists = target.resolve().is_file()
            end = pages.get(os.path.relpath(target, built)) if exists else None
            if not exists or (anchor and end and unquote(anchor) not in end.ids):
                dead.append(f"{name}: {link}")
    assert dead == []


def test_lessons_lead_to_lessons(pages):
    inside = [link for link in pages["lessons/02_maml.html"].links if not urlsplit(link).scheme]
    assert "01_learning_to_learn.html" in inside
    assert [link for page in pages.values() for link in page.links if link.endswith(".ipynb")] == []


def test_every_lesson_is_in_the_map_and_the_menu_and_leads_to_its_neighbours(pages, built):
    for name in ("index.html", "lessons/contents.html"):
        leading = [urlsplit(link).path.rpartition("/")[2].removesuffix(".html") for link in pages[name].links]
        assert [lesson for lesson in LESSONS if leading.count(lesson) < 2] == [], name  # the map and the menu
    places = ["contents", *LESSONS, "decision_guide"]
    for before, lesson, after in zip(places, places[1:], places[2:], strict=False):
        shown = (built / f"lessons/{lesson}.html").read_text("utf-8")
        found = re.findall(r'class="(?:left-prev|right-next)"\s+href="(\w+)\.html"', shown)
        assert found == [before, after], lesson


@pytest.mark.parametrize(("words", "number"), [("clipping", "06"), ("MAMF", "14"), ("Moreau", "09")])
def test_the_search_finds_a_lesson_and_shows_words(words, number, address, browser_page):
    browser_page.set_viewport_size({"width": 400, "height": 1000})
    browser_page.goto(f"{address}/search.html?q={words}", wait_until="networkidle")
    results = browser_page.locator("ul.search > li")
    results.locator("p.context").last.wait_for()
    titles = results.locator("a").all_inner_texts()
    assert any(title.startswith(f"{number} ·") for title in titles), titles
    shown = " ".join(results.locator("p.context").all_inner_texts())
    assert words.lower() in shown.lower() and not re.search(r"\\[(\[a-z]|Contents · Notation|<svg", shown)
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_answer_is_there_and_folded(lesson, pages, built):
    page = pages[f"lessons/{lesson}.html"]
    folded, visible = squeezed(page.folded), squeezed(page.visible)
    stubs = {cell.id: cell.source for cell in nbformat.read(ROOT / f"lessons/{lesson}.ipynb", as_version=4).cells}
    answers = 0
    for cell in nbformat.read(ROOT / f"solutions/{lesson}.ipynb", as_version=4).cells:
        if "exercise" in cell.metadata:
            stub = stubs[cell.id].partition("raise NotImplementedError")[0]
            assert squeezed(stubs[cell.id]) in visible
            assert cell.source.startswith(stub.rstrip())
            answer = squeezed(cell.source[len(stub.rstrip()) :])
        elif "question" in cell.metadata:
            answer = squeezed(max(re.findall(r"[A-Za-z ,.]+", cell.source), key=len))
        else:
            continue
        answers += 1
        assert answer in folded, cell.id
        assert answer not in visible, cell.id
    assert answers > 0
    assert not list(built.rglob("*.ipynb")), "a copy of the notebook, with its answers"


def test_every_page_opens_without_an_error_or_another_host(pages, address, browser_page):
    asked, errors = [], []
    listeners = {
        "request": lambda request: asked.append(request.url),
        "console": lambda message: errors.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: errors.append(str(error)),
    }
    for event, listener in listeners.items():
        browser_page.on(event, listener)
    try:
        for name in sorted(pages):
            browser_page.goto(f"{address}/{name}", wait_until="networkidle")
            browser_page.wait_for_function(RENDERED)
            assert browser_page.evaluate(UNRENDERED) == 0, name
            assert browser_page.locator("mjx-merror, [data-mjx-error]").count() == 0, name
    finally:
        for event, listener in listeners.items():
            browser_page.remove_listener(event, listener)
    assert errors == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert any("mathjax" in url for url in asked)


@pytest.mark.parametrize("width", [768, 1280])  # the page is shared, and ends as it began
def test_a_reader_unfolds_an_answer(width, address, browser_page):
    browser_page.set_viewport_size({"width": width, "height": 1000})
    browser_page.goto(f"{address}/lessons/02_maml.html")
    fold = browser_page.locator("details", has_text=site.SHOW).first
    assert not fold.locator("pre").is_visible()
    fold.locator("summary").click()
    assert fold.locator("pre").is_visible()
    # The page does not scroll sideways: wide equations, code and tables do so by themselves.
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [400, 1280])  # the page is shared, and ends as it began
def test_no_comma_or_bracket_is_alone_on_a_line(width, address, browser_page):
    browser_page.set_viewport_size({"width": width, "height": 1000})
    browser_page.goto(f"{address}/lessons/09_moreau_envelopes.html", wait_until="networkidle")
    browser_page.wait_for_function(RENDERED)
    whole = "all => all.map(each => [each.textContent, each.getClientRects().length])"
    formulas = browser_page.locator(".ml-whole:visible").evaluate_all(whole)
    assert len(formulas) > 50 and [text for text, lines in formulas if lines > 1] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_a_phone_and_those_that_stand_for_all_can_be_read_in_both_themes(
    theme, pages, address, browser_page
):
    """By axe's rules, two lessons stand for all: the others' figures and widgets are tested in JupyterLab."""
    from axe_playwright_python.sync_playwright import Axe

    before = browser_page.viewport_size
    browser_page.emulate_media(color_scheme=theme)
    faults = []
    try:
        for name in sorted(pages):
            browser_page.set_viewport_size({"width": 1280, "height": 1000})
            browser_page.goto(f"{address}/{name}", wait_until="networkidle")
            assert browser_page.evaluate("document.documentElement.dataset.theme") == theme
            if "lessons/" not in name or name.startswith(("lessons/00", "lessons/02")):
                told = Axe().run(browser_page, options={"runOnly": ["color-contrast", "image-alt", "link-name"]})
                broken = told.response["violations"]
                faults += [f"{name}: {rule['id']}: {node['html'][:120]}" for rule in broken for node in rule["nodes"]]
            sides = browser_page.evaluate("document.querySelector('.bd-sidebar-secondary')?.scrollWidth ?? 0")
            faults += [f"{name}: {sides} px wide contents"] if sides > 210 else []
            for width in (1280, 400):
                browser_page.set_viewport_size({"width": width, "height": 1000})
                if (wide := browser_page.evaluate("document.documentElement.scrollWidth")) > width:
                    faults.append(f"{name}: {wide} px wide in a window of {width}")
        assert faults == []
    finally:
        browser_page.set_viewport_size(before)
        browser_page.emulate_media(color_scheme="no-preference")
