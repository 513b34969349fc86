"""The playgrounds in the browser: their numbers are the library's, and they go on without a kernel."""

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import optax
import pytest
from axe_playwright_python.sync_playwright import Axe
from flax import nnx
from lab import RULES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import metalearn as ml
from metalearn.course.publishing import builder
from metalearn.course.widgets import playgrounds

PLACES = [(0.1, 0.3), (0.25, 0.6), (0.4, 0.8), (0.7, 0.2), (0.9, 0.5)]  # fractions of the plane's width and height
ROOM = ".metalearn-playground"
# What a control changes is worked out in the frame after it.
STATE = """async place => {
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return place.playground.state();
}"""
# Milliseconds of everything that a frame in which all changes does, the browser's layout included.
FRAMES = """place => {
    const times = Array.from({ length: 41 }, () => {
        const begun = performance.now();
        place.playground.redo();
        document.body.getBoundingClientRect();
        return performance.now() - begun;
    });
    return times.sort((one, other) => one - other)[20];
}"""

pytestmark = pytest.mark.slow


def click_points(place):
    """Points where a learner clicks, in place of those that were there; gives what the page then tells."""
    place.get_by_role("button", name="Remove all points").click()
    plane = place.locator(".plane")
    box = plane.bounding_box()
    for right, down in PLACES:
        plane.click(position={"x": 60 + right * (box["width"] - 140), "y": 40 + down * (box["height"] - 100)})
    state = place.evaluate(STATE)
    assert len(state["points"]) == len(PLACES)
    return state


def assert_networks_are_the_librarys(state):
    """Predictions and losses after the same steps, in double precision."""
    data = playgrounds._data()["adapt_a_sine"]
    with jax.enable_x64(True):
        _, apply = ml.models.functional(ml.models.MLP(data["sizes"], rngs=nnx.Rngs(0)))
        loss = ml.losses.mean_squared_error(apply)
        x, y = jnp.asarray(state["points"])[:, :, None].transpose(1, 0, 2)
        for name, text in data["networks"].items():
            params = jax.tree.map(lambda leaf: leaf.astype(float), playgrounds.unpack(text))
            sgd = optax.sgd(state["rate"])
            adapted = ml.inner.descend(lambda phi: loss(phi, (x, y)), sgd, state["steps"], params)
            predictions = apply(adapted, jnp.asarray(state["grid"])[:, None])[:, 0]
            np.testing.assert_allclose(state["predictions"][name], predictions, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(state["losses"][name][-1], loss(adapted, (x, y)), rtol=1e-5, atol=1e-5)


@pytest.mark.timeout(400)
def test_in_jupyterlab_with_and_without_its_kernel(open_lab, tmp_path, record_property):
    folder = tmp_path / "written"
    folder.mkdir()
    codes = {"a": 'from metalearn.course import playground\n\nplayground("adapt_a_sine")'}
    codes["b"] = 'playground("perturb_the_problem")'
    codes["c"] = 'playground("draw_five_symbols")'
    cells = [new_code_cell(code, id=cell_id) for cell_id, code in codes.items()]
    written = new_notebook(cells=cells, metadata=builder.NOTEBOOK_METADATA)
    nbformat.write(written, folder / "play.ipynb")
    with open_lab(folder) as lab:
        lab.page.set_viewport_size({"width": 1280, "height": 1000})
        notebook = lab.open("play.ipynb")
        notebook.run("a", timeout=120)
        notebook.run("b")
        notebook.run("c")
        (place, perturbed, drawing), asleep = lab.page.locator(ROOM).all(), lab.page.locator(".metalearn-asleep")
        click_points(place)
        assert asleep.count() == 3 and asleep.filter(visible=True).count() == 0

        lab.restart_kernel()
        for _ in range(4):
            place.get_by_role("button", name="One step").click()
        state = place.evaluate(STATE)
        assert state["steps"] == 4
        assert_networks_are_the_librarys(state)
        assert place.evaluate("place => getComputedStyle(place, '::before').content") == "none", "a broken chain"

        plane = place.locator(".plane")
        plane.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Enter"):
            lab.page.keyboard.press(key)
        assert place.evaluate(STATE)["points"][-1] == [0.5, 0.25]
        assert "Point 6 placed at 0.5, 0.25" in place.get_by_role("status").inner_text()
        lab.page.keyboard.press("Delete")
        assert place.evaluate(STATE)["points"] == state["points"]
        drawing.get_by_role("button", name="Draw your own five").click()
        drawing.locator(".pad").focus()
        for key in ("Space", "ArrowRight", "Space", "Enter"):
            lab.page.keyboard.press(key)
        drawn = drawing.evaluate(STATE)
        assert drawn["at"] == 1 and len(drawn["segments"][0]) == 3, "two cells and what joins them"
        assert notebook.unreachable() == []
        play = place.get_by_role("button", name="Play")
        play.click()
        lab.page.wait_for_function(f"document.querySelector('{ROOM}').playground.state().steps >= 7")
        place.get_by_role("button", name="Pause").click()
        play.wait_for()
        record_property("measured", f"adapt_a_sine: {place.evaluate(FRAMES):.1f} ms a frame")

        for theme, width in (("Light", 1280), ("Dark", 768)):
            lab.look(theme, width)
            for name, shown in (("sine", place), ("perturbed", perturbed), ("draw", drawing)):
                shown.scroll_into_view_if_needed()
                lab.screenshot(f"playground-{name}-{theme}-{width}")
            assert not any(notebook.blemishes().values())
            assert notebook.barriers() == []

        # A page whose widget is gone says so in words, trusted or not.
        lab.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        lab.page.wait_for_timeout(1000)
        saved = nbformat.read(lab.folder / "play.ipynb", as_version=4)
        assert saved.cells[0].outputs and saved.cells[1].outputs
        saved.cells.append(new_markdown_cell("Another text, so that the signature is another's."))
        nbformat.write(saved, lab.folder / "changed.ipynb")
        for name in ("play.ipynb", "changed.ipynb"):
            lab.open(name)
            asleep.filter(visible=True).get_by_text("run this cell again").nth(1).wait_for()
            assert lab.page.get_by_text("model not found").filter(visible=True).count() == 0
            lab.screenshot(f"playground-asleep-{name}")


@pytest.mark.timeout(200)
def test_on_any_page(browser_page, record_property):
    page, errors = browser_page, []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_viewport_size({"width": 400, "height": 900})
    sleeping = "".join(f'<p data-playground="{name}"></p>' for name in playgrounds.ALTERNATIVE_TEXTS)
    page.goto("about:blank")
    page.set_content(f'<html lang="en"><title>Playgrounds</title><body>{playgrounds.alive(sleeping)}</body></html>')
    sine, perturbed, _ = page.locator(ROOM).all()

    click_points(sine)
    for _ in range(3):
        sine.get_by_role("button", name="One step").click()
    sine.get_by_role("slider").fill("3")
    page.wait_for_function("document.querySelector('.metalearn-playground').playground.state().rate === 0.01")
    state = sine.evaluate(STATE)
    assert state["steps"] == 3
    assert_networks_are_the_librarys(state)

    problem = playgrounds._data()["perturb_the_problem"]
    for exponent in (-3, -1, -0.3, 0):
        for _ in range(2):
            perturbed.get_by_role("slider").fill(str(exponent))
            perturbed.get_by_role("button", name="Change the sign").click()
            assert_minimum_is_numpys(perturbed.evaluate(STATE), problem)
    record_property("measured", f"perturb_the_problem: {perturbed.evaluate(FRAMES):.1f} ms a frame")

    page.emulate_media(reduced_motion="reduce")
    sine.get_by_role("button", name="Back to k = 0").click()
    sine.get_by_role("button", name="Ten steps").click()
    assert sine.evaluate(STATE)["steps"] == 10
    page.emulate_media(reduced_motion="no-preference")

    assert page.evaluate("document.documentElement.scrollWidth") == 400
    found = Axe().run(page, options=RULES).response["violations"]
    assert [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]] == []
    assert errors == []


def assert_minimum_is_numpys(state, problem):
    """The minimum, the exact meta-gradient, and in float32 the symmetric difference."""

    def minimum(nu):
        low, high = -10.0, 10.0
        for _ in range(80):  # the gradient grows with φ: halve the interval that holds its zero
            phi = (low + high) / 2
            proximal = problem["strength"] * (phi - problem["theta"])
            gradient = np.sinh(phi - problem["support"]) + proximal + nu * (phi - problem["query"])
            low, high = (low, phi) if gradient > 0 else (phi, high)
        return (low + high) / 2

    nu = state["nu"]
    assert state["minimum"] == pytest.approx(minimum(nu), abs=1e-10)
    assert state["minimum32"] == pytest.approx(minimum(nu), abs=1e-6)
    rest = minimum(0)
    curvature = np.cosh(rest - problem["support"]) + problem["strength"]
    assert state["exact"] == pytest.approx(problem["strength"] / curvature * (rest - problem["query"]), abs=1e-10)
    symmetric = -problem["strength"] * (minimum(nu) - minimum(-nu)) / (2 * nu)
    assert state["symmetric"] == pytest.approx(symmetric, abs=1e-6 / abs(nu))
