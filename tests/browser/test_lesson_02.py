"""What a learner does in lesson 02: run it, go wrong, be told why, put it right, move a slider."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
LESSON = "02_maml.ipynb"
EXERCISE = "02-meta_gradient"
WRONG = """\
def meta_gradient(loss, task, params, step_size, num_steps):
    for _ in range(num_steps):
        gradient = jax.grad(loss)(params, task.support)
        params = jax.tree.map(lambda p, g: p - step_size * g, params, gradient)
    return jax.grad(loss)(params, task.query)  # the gradient with respect to the adapted parameters"""
DIAGNOSIS = "This is the FO-MAML gradient"
PASSED = "Passed"
RUN_ALL_TIMEOUT = 150  # seconds
PICTURE = "img.widget-image"
SLIDER = f".jp-OutputArea-output:has({PICTURE}) .noUi-handle"
READ_BYTES = "async image => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]"


def solution_of(cell_id):
    (cell,) = [c for c in nbformat.read(ROOT / "solutions" / LESSON, as_version=4).cells if c.id == cell_id]
    return cell.source


@pytest.mark.timeout(400)
def test_a_learner_goes_wrong_then_right_then_moves_the_slider(open_lab):
    with open_lab(ROOT / "lessons") as lab:
        notebook = lab.open(LESSON)
        notebook.run_all(RUN_ALL_TIMEOUT)
        assert notebook.errors() == []
        assert "Not yet" in notebook.output(f"{EXERCISE}-check")

        notebook.set_source(EXERCISE, WRONG)
        notebook.run(EXERCISE)
        notebook.run(f"{EXERCISE}-check")
        lab.screenshot("1-diagnosis")
        assert DIAGNOSIS in notebook.output(f"{EXERCISE}-check")

        notebook.set_source(EXERCISE, solution_of(EXERCISE))
        notebook.run(EXERCISE)
        notebook.run(f"{EXERCISE}-check")
        lab.screenshot("2-passed")
        assert PASSED in notebook.output(f"{EXERCISE}-check")
        assert DIAGNOSIS not in notebook.output(f"{EXERCISE}-check")

        picture = lab.page.locator(PICTURE).first
        before = picture.evaluate(READ_BYTES)
        lab.page.locator(SLIDER).first.focus()
        lab.page.keyboard.press("ArrowRight")
        lab.page.wait_for_function(
            f"""async before => {{
                const now = await ({READ_BYTES})(document.querySelector("{PICTURE}"));
                return now.length !== before.length || now.some((byte, i) => byte !== before[i]);
            }}""",
            arg=before,
            timeout=20_000,
        )
        picture.scroll_into_view_if_needed()
        lab.screenshot("3-slider")
        assert bytes(picture.evaluate(READ_BYTES)).startswith(b"\x89PNG")
