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
DIAGNOSIS = "Your result equals the FO-MAML gradient"
PASSED = "Passed"
RUN_ALL_TIMEOUT = 150  # seconds


def solution_of(cell_id):
    (cell,) = [c for c in nbformat.read(ROOT / "solutions" / LESSON, as_version=4).cells if c.id == cell_id]
    return cell.source


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_learner_goes_wrong_then_right_then_moves_the_slider(open_lab):
    with open_lab(ROOT / "lessons") as lab:
        notebook = lab.open(LESSON)
        notebook.run_all(RUN_ALL_TIMEOUT)
        assert notebook.errors() == []
        assert "Not yet tried" in notebook.output(f"{EXERCISE}-check")

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

        _, picture = notebook.press_slider()
        lab.screenshot("3-slider")
        assert "<svg " in picture
