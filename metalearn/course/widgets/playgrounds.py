"""`playground`: a figure to touch that lives in the browser alone, in a notebook and on the website.

All of it is `playgrounds.js`, which needs no kernel once it is on the page. What it starts from is in
`playgrounds.json`, written by

    python -m metalearn.course.widgets.playgrounds

and for "draw_five_symbols" in `draw_five.json`, which a script of its own writes.
"""

import argparse
import base64
import functools
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import jax
import numpy as np
import optax
import traitlets
from flax import nnx

import metalearn as ml
from metalearn.course.widgets.display import show_with_stand_in
from metalearn.task import Params

DATA = Path(__file__).with_suffix(".json")
DRAW_FIVE_DATA = Path(__file__).with_name("draw_five.json")
SIZES = (1, 40, 40, 1)
INNER_LEARNING_RATE = 0.01

ALTERNATIVE_TEXTS = {
    "adapt_a_sine": "A plane into which you place points. Three networks of one architecture fit them by the same "
    "gradient steps, from a random initialization, from joint training and from MAML; beside it their losses.",
    "perturb_the_problem": "A problem of one parameter to which you add ν times the query loss. Its minimum moves; "
    "the forward and the symmetric difference approach the tangent, until rounding spoils them.",
    "draw_five_symbols": "A pad on which you draw five symbols, one drawing each. A small network adapts to them by "
    "ten gradient steps, and then says which of the five your next drawing is, with probabilities.",
}
ASLEEP = "To use this playground, run this cell again: the kernel that showed it was restarted or is not there."


class Playground(anywidget.AnyWidget):
    """One of the playgrounds. Made by `playground`; the browser's side is `playgrounds.js`.

    Attributes:
      name: which one.
      data: what it starts from, an entry of `playgrounds.json`, or `draw_five.json`.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    name = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)


def playground(name: str) -> None:
    """Show a playground, which goes on without the kernel.

    Args:
      name: "draw_five_symbols" (draw five symbols, and a network guesses which one you draw next), "adapt_a_sine"
        (place points, and watch three initializations adapt to them) or "perturb_the_problem" (drag ν, and watch the
        minimum of a perturbed problem move).

    Raises:
      ValueError: if there is no playground of this name.
    """
    if not isinstance(name, str) or name not in ALTERNATIVE_TEXTS:
        raise ValueError(f"name must be one of {', '.join(map(repr, ALTERNATIVE_TEXTS))}, but it is {name!r}.")
    sentence = f'<p class="metalearn-asleep" data-playground="{name}">{ASLEEP}</p>'
    show_with_stand_in(Playground(name=name, data=_data()[name]), sentence, plain=ALTERNATIVE_TEXTS[name])


def alive(page: str) -> str:
    """A page's HTML with a living playground in place of each one that sleeps; no server and no other file is needed.

    Args:
      page: HTML that may hold what `playground` displays: an element p with the attribute data-playground.

    Returns:
      The page.
    """
    return re.sub(r'<p[^>]* data-playground="(\w+)">.*?</p>(<style>.*?</style>)?', _standalone, page, flags=re.DOTALL)


def _standalone(place: re.Match[str]) -> str:
    name = place[1]
    code, style = (Path(__file__).with_suffix(suffix).read_text("utf-8") for suffix in (".js", ".css"))
    start = f'mount(document.getElementById("playground-{name}"), "{name}", {json.dumps(_data()[name])});'
    return (
        f'<style>{style}</style>\n<div class="metalearn-playground" id="playground-{name}">'
        f"<p>{html.escape(ALTERNATIVE_TEXTS[name])} (It needs JavaScript.)</p></div>\n"
        f'<script type="module">\n{code}\n{start}\n</script>'
    )


@functools.cache
def _data() -> dict[str, dict[str, Any]]:
    draw_five = json.loads(DRAW_FIVE_DATA.read_text("utf-8"))
    return json.loads(DATA.read_text("utf-8")) | {"draw_five_symbols": draw_five}


def pack(params: Params) -> str:
    """The parameters of an `MLP` as text: of each layer the kernel, row by row, then the bias, in base64 of float32."""
    layers = [params["layers"][i] for i in range(len(params["layers"]))]
    leaves = [np.asarray(layer[part][...], "<f4").ravel() for layer in layers for part in ("kernel", "bias")]
    return base64.b64encode(np.concatenate(leaves).tobytes()).decode()


def unpack(text: str, sizes: Sequence[int] = SIZES) -> nnx.State:
    """The inverse of `pack`: parameters for `functional(MLP(sizes))`, in float32."""
    params, _ = ml.models.functional(ml.models.MLP(sizes, rngs=nnx.Rngs(0)))
    numbers = np.frombuffer(base64.b64decode(text), "<f4")
    needed = sum(leaf.size for leaf in jax.tree.leaves(params))
    if numbers.size != needed:
        raise ValueError(f"text must hold {needed} numbers for sizes {tuple(sizes)}, but it holds {numbers.size}.")
    position = 0
    for i in range(len(sizes) - 1):
        for part in ("kernel", "bias"):
            leaf = params["layers"][i][part]
            leaf[...] = jax.numpy.asarray(numbers[position : position + leaf[...].size].reshape(leaf[...].shape))
            position += leaf[...].size
    return params


def _train() -> dict[str, str]:
    """The three initializations of "adapt_a_sine", on the task distribution of Finn et al. 2017."""
    random, apply = ml.models.functional(ml.models.MLP(SIZES, rngs=nnx.Rngs(0)))
    loss = ml.losses.mean_squared_error(apply)
    tasks = ml.tasks.Sinusoid(num_support=10, num_query=10)

    def trained(num_inner_steps: int, num_steps: int) -> Params:
        meta_gradient = ml.maml(loss, optax.sgd(INNER_LEARNING_RATE), num_steps=num_inner_steps)
        learner = ml.meta_learner(meta_gradient, optax.adam(1e-3))
        key = jax.random.key(0)
        return ml.fit(learner, random, tasks, num_steps=num_steps, meta_batch_size=25, key=key).params

    # Zero inner steps: the gradient of the query loss at the initialization, which is joint training.
    networks = {"random": random, "joint": trained(0, 10_000), "maml": trained(1, 40_000)}
    return {name: pack(params) for name, params in networks.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m metalearn.course.widgets.playgrounds",
        description="Trains the networks of the playgrounds, a few minutes on two cores, and writes them to one file.",
    )
    parser.add_argument("--to", type=Path, default=DATA, help="the file to write (default: beside this module)")
    options = parser.parse_args()
    data = {
        # Half the rate of the meta-training: with all of it the other two networks overshoot.
        "adapt_a_sine": {"sizes": SIZES, "rate": INNER_LEARNING_RATE / 2, "networks": _train()},
        # h(φ) = cosh(φ - support) - 1 and f(φ) = (φ - query)²/2
        "perturb_the_problem": {"support": -1.0, "query": 2.0, "theta": 0.0, "strength": 1.5},
    }
    options.to.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    print(f"{options.to}: {options.to.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
