"""The drawing pad in the browser: its numbers are the library's, and it recognizes what a pointer draws."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import RULES

import metalearn as ml
from metalearn.course.widgets import draw_five, playgrounds

ROOM = ".metalearn-playground"
STATE = "place => place.playground.state()"
TIMES = """place => Array.from({ length: 21 }, () => {
    place.playground.redo();
    return place.playground.state().milliseconds;
}).sort((one, other) => one - other)[10]"""
NUM_TASKS = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def place(browser_page):
    """The playground on an otherwise empty page, 1280 wide."""
    errors = []
    listen = lambda error: errors.append(str(error))  # noqa: E731
    browser_page.on("pageerror", listen)
    browser_page.set_viewport_size({"width": 1280, "height": 1000})
    browser_page.emulate_media(reduced_motion="reduce")
    asleep = playgrounds.alive('<p data-playground="draw_five_symbols"></p>')
    browser_page.goto("about:blank")
    browser_page.set_content(
        '<html lang="en"><title>Draw</title><style>[data-theme="dark"] { background: #14181d }</style>'
        f"<body>{asleep}</body></html>"
    )
    yield browser_page.locator(ROOM)
    browser_page.remove_listener("pageerror", listen)
    browser_page.emulate_media(reduced_motion="no-preference")
    assert errors == []


def button(place, name):
    return place.get_by_role("button", name=name)


def draw(place, strokes):
    """A drawing with the mouse, as large as the pad allows."""
    everywhere = np.concatenate(strokes)
    low, size = everywhere.min(axis=0), np.ptp(everywhere, axis=0).max()
    box, mouse = place.locator(".pad").bounding_box(), place.page.mouse
    corner = np.array([box["x"], box["y"]])
    for stroke in strokes:
        path = corner + box["width"] * (0.1 + 0.8 * (stroke - low) / size)
        mouse.move(*path[0])
        mouse.down()
        for point in path[1:]:
            mouse.move(*point)
        mouse.up()


def assert_the_librarys(state):
    """Pictures, and logits after adaptation, in double precision."""
    with jax.enable_x64(True):
        pictures = [draw_five.picture(jnp.asarray(segments)).ravel() for segments in state["segments"]]
        np.testing.assert_allclose(state["pictures"], pictures, atol=1e-7)
        params = jax.tree.map(
            lambda leaf: leaf.astype(float), draw_five.unpack(playgrounds._data()["draw_five_symbols"]["layers"])
        )
        _, apply = draw_five.network()
        loss, sgd = ml.losses.cross_entropy(apply), optax.sgd(draw_five.INNER_LEARNING_RATE)
        support = jnp.stack(pictures[:5]), jnp.arange(5)
        adapted = ml.inner.descend(lambda phi: loss(phi, support), sgd, draw_five.NUM_TEST_STEPS, params)
        logits = apply(adapted, pictures[5])
        np.testing.assert_allclose(state["logits"], logits, atol=1e-5)
        np.testing.assert_allclose(state["probabilities"], jax.nn.softmax(logits), atol=1e-5)


def test_it_recognizes_what_a_pointer_draws_and_computes_what_the_library_does(place, record_property):
    first = place.evaluate(STATE)
    assert (
        first["example"] and np.argmax(first["probabilities"]) == 3
    )  # the example's sixth drawing is its fourth symbol
    assert_the_librarys(first)

    rng, right, pixels = np.random.default_rng(1), [], []
    for _ in range(NUM_TASKS):
        symbols = [draw_five.symbol(rng) for _ in range(5)]
        button(place, "Draw your own five").click()
        for i, symbol in enumerate(symbols):
            assert place.evaluate(STATE)["at"] == i
            draw(place, draw_five.by_hand(symbol, rng))
            button(place, "Next symbol" if i < 4 else "Let it guess").click()
        for i, symbol in enumerate(symbols):
            draw(place, draw_five.by_hand(symbol, rng))
            state = place.evaluate(STATE)
            right.append(np.argmax(state["probabilities"]) == i)
            pictures = np.array(state["pictures"])
            pixels.append(np.argmin(np.square(pictures[:5] - pictures[5]).sum(axis=1)) == i)
            if i == 0:
                assert_the_librarys(state)
            button(place, "Draw another").click()
    median = place.evaluate(TIMES)
    assert median <= 100
    assert np.mean(right) >= 0.7, "three standard errors below what was measured on thousands of such drawings"
    record_property(
        "measured",
        f"drawn with the pointer: {sum(right)} of {len(right)} recognized, {sum(pixels)} by the nearest pixels; "
        f"adaptation {median:.1f} ms",
    )


def test_with_the_keyboard_alone(place):
    keys = place.page.keyboard
    button(place, "Draw your own five").focus()
    keys.press("Enter")
    place.locator(".pad").focus()
    for i in range(5):
        keys.press("Space")
        for _ in range(3):
            keys.press(["ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight"][i])
            keys.press("Space")
        if i == 4:
            keys.press("ArrowDown")
            keys.press("Space")
        state = place.evaluate(STATE)
        assert state["at"] == i
        assert len(state["segments"][i]) == (9 if i == 4 else 7)  # the cells, and what joins neighbours
        keys.press("Enter")
    assert place.evaluate(STATE)["at"] == 5
    assert "Draw one of the five again" in place.get_by_role("status").inner_text()
    keys.press("Space")
    keys.press("ArrowLeft")
    keys.press("Space")
    state = place.evaluate(STATE)
    assert_the_librarys(state)
    assert "The network says" in place.get_by_role("status").inner_text()
    keys.press("Space")
    assert len(place.evaluate(STATE)["segments"][5]) == 1, "Space empties a filled cell"
    keys.press("Backspace")
    assert place.evaluate(STATE)["logits"] is None
    place.get_by_role("button", name="Symbol B").click()
    assert place.evaluate(STATE)["at"] == 1
    button(place, "Clear").click()
    state = place.evaluate(STATE)
    assert state["segments"][1] == [] and state["segments"][0] != []


def test_a_finger_draws_and_the_page_stays_where_it_is(place):
    page = place.page
    page.set_viewport_size({"width": 400, "height": 600})
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    box = place.locator(".pad").bounding_box()
    x, y = box["x"] + 100, box["y"] + 250
    path = [{"x": x, "y": y - 20 * i} for i in range(9)]
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": path[:1]})
    for point in path[1:]:
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    state = place.evaluate(STATE)
    assert not state["example"]
    ends = np.array(state["segments"][5])  # a busy browser merges moves, so their number says nothing
    assert np.ptp(ends[..., 1]) == pytest.approx(160 / box["width"], abs=0.02)
    assert page.evaluate("scrollY") == 0


def test_the_example_draws_itself_unless_motion_is_unwelcome(place):
    button(place, "Show me an example").click()
    still = place.evaluate(STATE)
    assert not still["moving"] and still["example"] and still["probabilities"]
    place.page.emulate_media(reduced_motion="no-preference")
    button(place, "Show me an example").click()
    begun = place.evaluate(STATE)
    assert begun["moving"] and begun["at"] < 5
    place.page.wait_for_function(f"!document.querySelector('{ROOM}').playground.state().moving")
    assert place.evaluate(STATE)["at"] == 5
    button(place, "Show me an example").click()
    button(place, "Skip").click()
    state = place.evaluate(STATE)
    assert not state["moving"]
    assert_the_librarys(state)


def test_everybody_can_read_it(place):
    page = place.page
    for theme in ("light", "dark"):
        page.evaluate("theme => (document.documentElement.dataset.theme = theme)", theme)
        for width in (1280, 768, 400):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            if folder := os.environ.get("METALEARN_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"draw-five-{theme}-{width}.png", full_page=True)
        found = Axe().run(page, options=RULES).response["violations"]
        assert [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]] == []
