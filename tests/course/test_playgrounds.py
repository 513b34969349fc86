"""The playgrounds' Python side: what is displayed, what is shipped. Their numbers are compared in tests/browser."""

import jax
import nbformat
import numpy as np
import optax
import pytest
from flax import nnx

import metalearn as ml
from metalearn.course import playground
from metalearn.course.publishing.site import WIDGET, to_page
from metalearn.course.widgets import display, playgrounds

NAMES = ("adapt_a_sine", "perturb_the_problem", "draw_five_symbols")


@pytest.fixture
def shown(monkeypatch):
    """The bundles that a notebook would display, in order."""
    bundles = []
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.mark.parametrize("name", NAMES)
def test_outside_a_notebook_it_is_described(name, capsys):
    playground(name)
    assert capsys.readouterr().out == playgrounds.ALTERNATIVE_TEXTS[name] + "\n"


def test_another_name_is_refused():
    names = "'adapt_a_sine', 'perturb_the_problem', 'draw_five_symbols'"
    with pytest.raises(ValueError, match=f"name must be one of {names}, but it is 'sine'"):
        playground("sine")


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_stands_in_for_a_widget_that_is_gone(name, shown):
    playground(name)
    sentence, widget = shown
    assert "run this cell again" in sentence["text/html"]
    assert widget.keys() == {WIDGET}


@pytest.mark.parametrize("name", NAMES)
def test_on_a_page_it_is_alive_and_asks_nobody_for_anything(name, shown):
    playground(name)
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in shown]
    cell = nbformat.v4.new_code_cell(f'playground("{name}")', outputs=outputs)
    (cell,) = to_page(nbformat.v4.new_notebook(cells=[cell]), {}).cells
    (output,) = cell.outputs
    page = output.data["text/html"]
    assert page.count("<script") == page.count("</script>") == 1
    assert f'mount(document.getElementById("playground-{name}"), "{name}", ' in page
    assert playgrounds.ASLEEP not in page and playgrounds.ALTERNATIVE_TEXTS[name] in page
    assert page.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert "import(" not in page and "fetch(" not in page and "src=" not in page


def test_text_without_a_playground_stays_as_it_is():
    text = '<p>One</p><p data-played="adapt_a_sine">two</p>'
    assert playgrounds.alive(text) == text


def test_parameters_survive_packing():
    params, _ = ml.models.functional(ml.models.MLP((2, 3, 1), rngs=nnx.Rngs(0)))
    text = playgrounds.pack(params)
    jax.tree.map(np.testing.assert_array_equal, playgrounds.unpack(text, (2, 3, 1)), params)
    with pytest.raises(ValueError, match=r"text must hold 16 numbers for sizes \(3, 3, 1\), but it holds 13"):
        playgrounds.unpack(text, (3, 3, 1))


@pytest.mark.slow
def test_maml_is_no_better_before_adaptation_and_much_better_after_one_step():
    data = playgrounds._data()["adapt_a_sine"]
    _, apply = ml.models.functional(ml.models.MLP(data["sizes"], rngs=nnx.Rngs(0)))
    loss = ml.losses.mean_squared_error(apply)
    tasks = ml.tasks.Sinusoid()(jax.random.key(1), 200)
    before, after = {}, {}
    for name, text in data["networks"].items():
        params = playgrounds.unpack(text)
        curve = ml.evaluate.adaptation_curve(loss, optax.sgd(data["rate"]), params, tasks, num_steps=1)
        before[name], after[name] = curve.mean(axis=1)
    np.testing.assert_allclose(before["maml"], before["joint"], rtol=0.1)
    assert after["maml"] < 0.5 * min(after["joint"], after["random"])
