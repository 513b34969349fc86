"""The network of the playground "Draw five symbols": how its initialization was trained, and what it is worth.

    python -m metalearn.course.widgets.draw_five

meta-trains it, a few minutes on two cores, measures it, and writes both to `draw_five.json`. Half of the tasks of
training are printed characters of the Latin, Greek and Cyrillic scripts, each distorted a little. The other half are
scribbles: random strokes, drawn again and again with other jitter. Every picture is 14 x 14 pixels; its ink is centred,
and scaled so that its longer side takes 12 of them, which the browser does with a drawing too.

Training differentiates five inner steps, and the browser takes ten: on scribbles that training had not seen, the
accuracy rose until about the eighth step, and then no more.

The classifier's last layer starts at zero in every task, in training and in the browser (the zeroing trick). So it
makes no difference which symbol is called the first, and the file holds the other layers only.
"""

import argparse
import base64
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

import metalearn as ml
from metalearn.task import Params, Task
from metalearn.tasks import _episode, _outlines, glyphs

DATA = Path(__file__).with_suffix(".json")
SIDE = 14  # of a picture in pixels
INK = 12  # pixels that the longer side of the ink takes
PEN = 1.7  # width of the browser's line in pixels
SMALLEST = 0.1  # a drawing smaller than this part of the pad is not made larger than one of that size
NUM_WAYS = 5
SIZES = (SIDE * SIDE, 128, 64, NUM_WAYS)
INNER_LEARNING_RATE = 0.2
NUM_INNER_STEPS = 5  # in training
NUM_TEST_STEPS = 10  # in the browser
NUM_STEPS = 6_000
NUM_TEST_TASKS = 2_000
NUM_QUERY = 3  # drawings of each symbol by which a task is judged
NUM_DRAWINGS = 24  # of each class of training

Drawing = Sequence[np.ndarray]
"""Strokes, each an array [num_points, 2] of places on the pad: right and down, from 0 to 1."""


# Pictures ------------------------------------------------------------------------------------------------------------


def picture(
    segments: Float[Array, "num_segments 2 2"], pen: float | Float[Array, ""] = PEN
) -> Float[Array, "{SIDE} {SIDE}"]:
    """A drawing as the network sees it: ink from 0 to 1, centred, its longer side 12 of 14 pixels.

    Args:
      segments: both ends of every straight piece of a line, in any unit in which the pad has size 1.
      pen: width of the line in pixels of the picture.
    """
    ends = segments.reshape(-1, 2)
    low, high = ends.min(axis=0), ends.max(axis=0)
    scale = (INK - pen) / jnp.maximum((high - low).max(), SMALLEST)
    start, end = jnp.moveaxis((segments - (low + high) / 2) * scale + SIDE / 2, 1, 0)
    centres = jnp.arange(SIDE) + 0.5
    right, down = jnp.meshgrid(centres, centres)

    def distance(start, end):
        along = end - start
        away = jnp.stack([right - start[0], down - start[1]], axis=-1)
        part = jnp.clip(away @ along / jnp.maximum(along @ along, 1e-12), 0, 1)
        return jnp.square(away - part[..., None] * along).sum(axis=-1)

    nearest = jnp.sqrt(jax.vmap(distance)(start, end).min(axis=0))
    return jnp.clip(pen / 2 + 0.5 - nearest, 0, 1)


def segments_of(drawing: Drawing) -> Float[np.ndarray, "num_segments 2 2"]:
    """The straight pieces of a drawing; a stroke of one point is a piece of length 0."""
    strokes = [np.concatenate([stroke, stroke]) if len(stroke) == 1 else stroke for stroke in drawing]
    return np.concatenate([np.stack([stroke[:-1], stroke[1:]], axis=1) for stroke in strokes])


def printed(scripts: Sequence[str], rng: np.random.Generator | None = None) -> UInt8[np.ndarray, "num_classes 12 s s"]:
    """Pictures of every character of these scripts in twelve typefaces; with `rng`, each distorted."""
    outlines = _outlines.read().of(np.isin(glyphs.scripts(), scripts))
    lengths = outlines.lengths.ravel().astype(int)
    points = outlines.points.astype(float)
    if rng is not None:
        turn, shear, stretch = (rng.normal(0, deviation, len(lengths)) for deviation in (0.12, 0.1, 0.1))
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        rest = np.array([[np.exp(stretch), shear], [np.zeros_like(shear), np.exp(-stretch)]])
        distortion = np.einsum("ijn,jkn->nik", rotation, rest)
        points = np.einsum("nik,nk->ni", np.repeat(distortion, lengths, axis=0), points)
    # What is larger than the picture is shrunk until a pixel is left on each side: here all of it is. Its size is that
    # of the points of its outline, which lie a little outside the ink of a few characters.
    return glyphs.drawn(outlines._replace(points=100 * points), SIDE)


# Training: scribbles -------------------------------------------------------------------------------------------------


def scribbles(key: PRNGKeyArray, num_classes: int) -> UInt8[np.ndarray, "num_classes drawings s s"]:
    """Pictures of random strokes, each class drawn NUM_DRAWINGS times."""
    keys = jax.random.split(key, num_classes)
    return np.asarray(jax.lax.map(lambda key: _drawn_again(key, NUM_DRAWINGS), keys))


def _drawn_again(key: PRNGKeyArray, number: int) -> UInt8[Array, "number s s"]:
    """One random class, drawn `number` times: one to three strokes, each a curve or a chain of straight lines."""
    most, (of_points, of_number, of_kind, of_drawings) = 3, jax.random.split(key, 4)
    controls = jax.random.uniform(of_points, (most, 4, 2))
    kinds = jax.random.uniform(of_kind, (3, most))
    closed, curved, few = kinds[0] < 0.2, kinds[1] < 0.5, 2 + (3 * kinds[2]).astype(int)
    controls = jnp.where(closed[:, None, None] & (jnp.arange(4) == 3)[:, None], controls[:, :1], controls)
    chain = jnp.take_along_axis(controls, jnp.minimum(jnp.arange(4), few[:, None] - 1)[..., None], axis=1)
    controls = jnp.where(curved[:, None, None], controls, chain)
    strokes = 1 + jax.random.randint(of_number, (), 0, most)
    present = jnp.arange(most) < strokes
    time = jnp.linspace(0, 1, 13)
    bernstein = jnp.stack([(1 - time) ** 3, 3 * time * (1 - time) ** 2, 3 * time**2 * (1 - time), time**3], axis=1)
    straight = jnp.maximum(0, 1 - jnp.abs(3 * time[:, None] - jnp.arange(4)))  # along the chain at even speed
    weights = jnp.where(curved[:, None, None], bernstein, straight)

    def draw(key):
        of_controls, of_strokes, of_whole, of_pen = jax.random.split(key, 4)
        moved = controls + 0.05 * jax.random.normal(of_controls, controls.shape)
        moved += 0.03 * jax.random.normal(of_strokes, (most, 1, 2))
        turn, shear, stretch = jnp.array([0.14, 0.12, 0.12]) * jax.random.normal(of_whole, (3,))
        rotation = jnp.array([[jnp.cos(turn), -jnp.sin(turn)], [jnp.sin(turn), jnp.cos(turn)]])
        whole = rotation @ jnp.array([[jnp.exp(stretch), shear], [0.0, jnp.exp(-stretch)]])
        lines = jnp.einsum("std,sdi->sti", weights, moved) @ whole.T
        lines = jnp.where(present[:, None, None], lines, lines[:1])
        segments = jnp.stack([lines[:, :-1], lines[:, 1:]], axis=2).reshape(-1, 2, 2)
        return picture(segments, jax.random.uniform(of_pen, minval=1.1, maxval=2.3))

    pictures = jax.vmap(draw)(jax.random.split(of_drawings, number))
    return jnp.rint(255 * pictures).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Drawings:
    """A sampler for `ml.fit`: five classes of one kind of pictures, one drawing of each to adapt to.

    Attributes:
      pictures: uint8, [num_kinds, num_classes, NUM_DRAWINGS, side, side]; each kind is drawn as often as the others.
    """

    pictures: np.ndarray

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """Pictures of shape [num_tasks, examples, 196], shifted by up to a pixel in training, and labels."""
        pictures = jnp.asarray(self.pictures)
        num_kinds, num_classes, num_drawings = pictures.shape[:3]

        def draw(key):
            of_kind, of_task, of_shifts = jax.random.split(key, 3)
            kind = jax.random.randint(of_kind, (), 0, num_kinds)
            look_up = lambda classes, columns: pictures[kind, classes, columns]  # noqa: E731
            task = _episode.draw(of_task, look_up, num_classes, num_drawings, NUM_WAYS, 1, NUM_QUERY)

            def shifted(key, batch):
                images, labels = batch
                shifts = jax.random.randint(key, (len(labels), 2), -1, 2)
                moved = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images, shifts)
                return moved.reshape(len(labels), -1) / 255.0, labels

            keys = jax.random.split(of_shifts)
            return Task(shifted(keys[0], task.support), shifted(keys[1], task.query))

        return jax.vmap(draw)(jax.random.split(key, num_tasks))


def network() -> tuple[Params, Any]:
    """The network's random parameters and its `apply`."""
    return ml.models.functional(ml.models.MLP(SIZES, rngs=nnx.Rngs(0)))


def head(params: Params) -> Params:
    """The classifier's last layer."""
    return params["layers"][len(SIZES) - 2]


def train(num_steps: int, scripts: Sequence[str] = glyphs.TRAIN_SCRIPTS, progress: bool = True) -> Params:
    """The initialization, by MAML with clipped meta-gradients.

    Args:
      num_steps: outer steps.
      scripts: whose characters it sees, and as many scribbles.
      progress: whether to show a bar.
    """
    rng = np.random.default_rng(0)
    characters = np.concatenate([printed(scripts, rng) for _ in range(NUM_DRAWINGS // 12)], axis=1)
    tasks = Drawings(np.stack([characters, scribbles(jax.random.key(1), len(characters))]))
    params, apply = network()
    maml = ml.maml(ml.losses.cross_entropy(apply), optax.sgd(INNER_LEARNING_RATE), num_steps=NUM_INNER_STEPS)
    rate = optax.cosine_decay_schedule(1e-3, num_steps)
    outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    learner = ml.meta_learner(ml.zeroing_trick(maml, head), outer)
    result = ml.fit(
        learner, params, tasks, num_steps=num_steps, meta_batch_size=16, key=jax.random.key(0), progress=progress
    )
    return ml.zero_head(result.params, head)


# Test: printed characters of other scripts, and drawings of another generator ----------------------------------------


def symbol(rng: np.random.Generator) -> list[np.ndarray]:
    """A random symbol of two to four pieces, lines between points of a lattice and arcs, each [16, 2]."""
    time = np.linspace(0, 1, 16)

    def lattice(number):
        places = rng.permutation(9)[:number]
        return np.stack([places % 3, places // 3], axis=1) / 2

    def piece():
        if rng.random() < 0.5:
            corners = lattice(rng.choice([2, 2, 3]))
            return np.stack([np.interp(time, np.linspace(0, 1, len(corners)), axis) for axis in corners.T], axis=1)
        middle, radius = lattice(1) / 2 + 0.25, rng.choice([0.25, 0.4])
        angles = 2 * np.pi * (rng.integers(8) / 8 + rng.choice([0.5, 0.75, 1.0]) * time)
        return middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    return [piece() for _ in range(rng.integers(2, 5))]


def by_hand(pieces: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """A symbol drawn once more: every line wavers, every piece is a little moved, turned and resized, and so is all."""
    time = np.linspace(0, 1, 16)[:, None]

    def affine(turn, shear, stretch):
        turn, shear, stretch, other = rng.normal(0, [turn, shear, stretch, stretch])
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return rotation @ np.array([[np.exp(stretch), shear], [0, np.exp(other)]])

    whole = affine(0.1, 0.12, 0.12)
    strokes = []
    for piece in pieces:
        middle = piece.mean(axis=0)
        phases, sizes = rng.uniform(0, 2 * np.pi, (2, 2)), rng.normal(0, 0.025, (2, 2))
        waver = sum(sizes[i] * np.sin(2 * np.pi * (i + 0.5) * time + phases[i]) for i in range(2))
        moved = (piece - middle) @ affine(0.12, 0.05, 0.1).T + middle + rng.normal(0, 0.04, 2) + waver
        strokes.append((moved - 0.5) @ whole.T + 0.5)
    return strokes


def hand_like(num_tasks: int, seed: int = 0) -> Task:
    """Tasks of five random symbols that `by_hand` draws once for the support set and NUM_QUERY times for the query."""
    rng = np.random.default_rng(seed)
    padded = np.empty((num_tasks, NUM_WAYS, 1 + NUM_QUERY, 60, 2, 2), np.float32)
    for place in np.ndindex(num_tasks, NUM_WAYS):
        pieces = symbol(rng)
        for number in range(1 + NUM_QUERY):
            segments = segments_of(by_hand(pieces, rng))
            padded[(*place, number)] = np.resize(segments, (60, 2, 2))  # again from the first: the picture is the same
    draw = jax.jit(jax.vmap(jax.vmap(jax.vmap(picture))))
    pictures = np.concatenate([np.asarray(draw(padded[i : i + 50])) for i in range(0, num_tasks, 50)])
    return _task(pictures)


def episodes(
    pictures: UInt8[np.ndarray, "num_classes num_drawings s s"],
    num_shots: int,
    num_query: int,
    num_tasks: int,
    seed: int = 0,
) -> Task:
    """Tasks of five classes from pictures by class; a class never shows one drawing in both sets.

    Returns:
      A batch of tasks: pictures [num_tasks, examples, 196] from 0 to 1 and labels 0 ... 4, both sets sorted by class.
    """
    rng = np.random.default_rng(seed)
    classes = np.stack([rng.permutation(len(pictures))[:NUM_WAYS] for _ in range(num_tasks)])
    drawings = rng.permuted(np.tile(np.arange(pictures.shape[1]), (num_tasks, NUM_WAYS, 1)), axis=-1)
    drawn = pictures[classes[..., None], drawings[..., : num_shots + num_query]] / np.float32(255)
    return _task(drawn, num_shots)


def _task(pictures: np.ndarray, num_shots: int = 1) -> Task:
    """A batch of tasks from pictures [num_tasks, num_ways, num_shots + num_query, side, side]."""

    def batch(chosen):
        labels = np.broadcast_to(np.arange(NUM_WAYS)[:, None], chosen.shape[:3])
        return jnp.asarray(chosen.reshape(len(chosen), -1, SIZES[0])), jnp.asarray(labels.reshape(len(chosen), -1))

    return Task(batch(pictures[:, :, :num_shots]), batch(pictures[:, :, num_shots:]))


def nearest(tasks: Task) -> Float[np.ndarray, " num_tasks"]:
    """Accuracy of the nearest picture by Euclidean distance; with one drawing of each, also of the nearest centroid."""
    (support, labels), (query, truth) = jax.tree.map(np.asarray, tasks)
    return (np.take_along_axis(labels, closest(query, support), axis=1) == truth).mean(axis=1)


def closest(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Which candidate is nearest to each query, by Euclidean distance: shape [num_tasks, num_query]."""
    # |q - c|² without |q|², which is the same for all c
    distances = np.square(candidates).sum(axis=-1)[:, None] - 2 * query @ candidates.transpose(0, 2, 1)
    return distances.argmin(axis=-1)


def measure(params: Params, num_tasks: int = NUM_TEST_TASKS) -> dict[str, dict[str, Any]]:
    """Accuracy with half the width of its 95 % interval, on both kinds of tasks, beside the nearest picture's."""
    _, apply = network()
    loss, metric = ml.losses.cross_entropy(apply), ml.losses.accuracy(apply)
    sgd = optax.sgd(INNER_LEARNING_RATE)
    measured = {}
    unseen = episodes(printed(glyphs.TEST_SCRIPTS), 1, NUM_QUERY, num_tasks)
    for name, tasks in {"scripts": unseen, "hand": hand_like(num_tasks)}.items():
        ours = ml.evaluate.meta_test(loss, sgd, params, tasks, NUM_TEST_STEPS, metric)
        pixels = ml.evaluate.score(nearest(tasks))
        scores = {"network": ours, "nearest": pixels}
        measured[name] = {"num_tasks": num_tasks} | {
            kind: [round(score.mean, 4), round(score.half_width, 4)] for kind, score in scores.items()
        }
    return measured


# The file ------------------------------------------------------------------------------------------------------------


def pack(params: Params) -> list[dict[str, Any]]:
    """All layers but the head, in whole numbers of a byte each and a scale: value = scale · number."""
    layers = [params["layers"][i] for i in range(len(SIZES) - 2)]
    packed = []
    for leaf in (np.asarray(layer[part][...], float) for layer in layers for part in ("kernel", "bias")):
        scale = max(float(np.abs(leaf).max()), 1e-9) / 127
        numbers = np.rint(leaf / scale).astype(np.int8)
        packed.append({"scale": scale, "numbers": base64.b64encode(numbers.tobytes()).decode()})
    return packed


def unpack(packed: list[dict[str, Any]]) -> Params:
    """Parameters for `network`'s apply, the head 0."""
    shapes, _ = ml.models.functional(nnx.eval_shape(lambda: ml.models.MLP(SIZES, rngs=nnx.Rngs(0))))
    params = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), shapes)
    leaves = iter(packed)
    for i in range(len(SIZES) - 2):
        for part in ("kernel", "bias"):
            leaf, stored = params["layers"][i][part], next(leaves)
            numbers = np.frombuffer(base64.b64decode(stored["numbers"]), np.int8)
            if numbers.size != leaf[...].size:
                raise ValueError(f"layer {i} must have {leaf[...].size} numbers ({part}), but it has {numbers.size}.")
            leaf[...] = jnp.asarray(stored["scale"] * numbers.reshape(leaf[...].shape), jnp.float32)
    return params


def write(
    to: Path,
    num_steps: int,
    num_tasks: int,
    scripts: Sequence[str] = glyphs.TRAIN_SCRIPTS,
    progress: bool = True,
) -> None:
    """Trains, measures what is written (not what was rounded), and writes it."""
    packed = pack(train(num_steps, scripts, progress))
    settings = {"side": SIDE, "ink": INK, "pen": PEN, "smallest": SMALLEST, "sizes": SIZES}
    inner = {"rate": INNER_LEARNING_RATE, "steps": NUM_TEST_STEPS}
    content = settings | inner | {"measured": measure(unpack(packed), num_tasks), "layers": packed}
    to.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m metalearn.course.widgets.draw_five",
        description="Trains the network of the playground draw_five_symbols, measures it, and writes it to one file.",
    )
    parser.add_argument("--to", type=Path, default=DATA, help="the file to write (default: beside this module)")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="outer steps (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=NUM_TEST_TASKS, help="test tasks (default: %(default)s)")
    options = parser.parse_args()
    write(options.to, options.steps, options.tasks)
    print(f"{options.to}: {options.to.stat().st_size / 1000:.0f} kB")
    print(json.dumps(json.loads(options.to.read_text("utf-8"))["measured"], indent=1))


if __name__ == "__main__":
    main()
