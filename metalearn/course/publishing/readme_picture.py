"""The README's picture, drawn from the networks of the playground "Adapt a sine"."""

import argparse
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure

import metalearn as ml
from metalearn import plots
from metalearn.course.widgets import playgrounds

ALT = (
    "Left: one sine curve, ten support points, and the network's curve before and after three inner steps. Right: "
    "query loss against inner steps; from the MAML initialization it falls fourfold in one step, from joint training "
    "it stays near three for several."
)
NAMES = {"joint": "joint training", "maml": "MAML"}


def card() -> str:
    """The picture as a card that follows the page's theme, its halves below one another on a phone; for the website."""
    return plots.card(plots.panels(draw(), ALT))


def draw() -> Figure:
    """One sine curve before and after three steps, and the query loss on many at every one of ten steps."""
    _, apply = ml.models.functional(ml.models.MLP(playgrounds.SIZES, rngs=nnx.Rngs(0)))
    loss, inner = ml.losses.mean_squared_error(apply), optax.sgd(playgrounds._data()["adapt_a_sine"]["rate"])
    networks = {name: playgrounds.unpack(playgrounds._data()["adapt_a_sine"]["networks"][name]) for name in NAMES}
    x, amplitude, phase = np.linspace(-5, 5, 101)[:, None], 4.0, 2.0
    support = np.random.default_rng(1).uniform(-5, 5, (10, 1))
    batch = (support, amplitude * np.sin(support - phase))
    adapted = ml.adapt(loss, inner, networks["maml"], batch, 3)
    tasks = ml.tasks.Sinusoid(num_support=10, num_query=100)(jax.random.key(1), 500)

    figure, (left, right) = plots.subplots(2, height=3.6)
    curves = {
        "truth": amplitude * np.sin(x - phase)[:, 0],
        "before": np.asarray(apply(networks["maml"], x))[:, 0],
        "after": np.asarray(apply(adapted, x))[:, 0],
    }
    plots.lines(x[:, 0], curves, "x", "y", points={"_support": (support[:, 0], batch[1][:, 0])}, axes=left)
    left.set_title("Three steps find a new sine curve", loc="left", weight="bold")
    for name, text in NAMES.items():
        losses = np.asarray(ml.evaluate.adaptation_curve(loss, inner, networks[name], tasks, 10)).mean(1)
        right.plot(np.arange(11), losses, label=text, marker="o", markersize=4)
    right.set_ylim(bottom=0)
    right.set_xticks(range(0, 11, 2))
    plots.label(right, "inner steps", "mean query loss of 500 tasks", title="MAML's loss falls fourfold in one step")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("solutions/readme.png"), help="the file to write")
    parser.parse_args().to.write_bytes(plots.png(draw()))
