"""The long runs of lesson 14: a small image-text model, and four ways to fine-tune it to thirty letters.

    python -m metalearn.course.lessons.image_text      trains and measures everything, a few minutes of a core

It writes the parameters of the two towers to `image_text.npz`, and what was measured to `image_text.json`. The towers
learn the Latin letters and their Unicode names. A run then takes thirty letters of another script: half of the
typefaces are for fine-tuning, and on the other half 5-way tasks are scored after five gradient steps on their support
sets. Every way to fine-tune but FO-MAML is a *plan*: the images of each step, and whether the optimizer begins anew
before it.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

import metalearn as ml
from metalearn import losses, two_tower
from metalearn.adaptation.inner import descend, descend_on_batches
from metalearn.course.process import machine, script
from metalearn.learners.mamf import among_present, tasks_to_cover, uniform_tasks
from metalearn.task import Params, Task
from metalearn.tasks import glyphs

RECORD = Path(__file__).with_name("image_text.json")
CHECKPOINT = Path(__file__).with_name("image_text.npz")
SIZE, NUM_FACES, WIDTH = 14, 12, 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that was decided by hand.

    Attributes:
      pretraining_steps: of the contrastive loss, each on `pretraining_batch` letters in one typeface each.
      pretraining_batch: see there.
      pretraining_rate: of Adam.
      scripts: of the letters that are learned by fine-tuning.
      seeds: of the runs on each script; a seed draws letters, typefaces and tasks.
      num_labels: N, letters of a run.
      num_ways: n, labels of a sub-task and of a test task.
      num_support: images of a label in a support set; the other typefaces of its half are the query set.
      epochs: gradient steps on each sub-task, and passes of the usual classical fine-tuning over all images.
      rates: of Adam in fine-tuning; every method is measured with each.
      probe_rates: likewise, of the linear probe.
      test_rate: α at test.
      test_steps: K at test.
      num_test_tasks: of each run.
      num_kept: Latin letters that pre-training does not see, for zero-shot classification.
    """

    pretraining_steps: int = 500
    pretraining_batch: int = 128
    pretraining_rate: float = 3e-3
    scripts: tuple[str, ...] = ("GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    num_labels: int = 30
    num_ways: int = 5
    num_support: int = 3
    epochs: int = 8
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    probe_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    test_rate: float = 0.01
    test_steps: int = 5
    num_test_tasks: int = 50
    num_kept: int = 100

    @property
    def num_tasks(self) -> int:
        """J, the sub-tasks of MAMF."""
        return tasks_to_cover(self.num_ways, self.num_labels)

    @property
    def num_steps(self) -> int:
        """Gradient steps of MAMF."""
        return self.epochs * self.num_tasks

    @property
    def batch(self) -> int:
        """Images of a step: all of a sub-task."""
        return self.num_ways * NUM_FACES // 2

    @property
    def usual_steps(self) -> int:
        """Gradient steps of classical fine-tuning for as many epochs."""
        return self.epochs * self.num_labels // self.num_ways

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The numbers of steps after which a run is scored: whole sub-tasks."""
        tasks = {0, 1, 3, self.usual_steps // self.epochs, self.num_tasks // 3, self.num_tasks * 2 // 3}
        return tuple(self.epochs * j for j in sorted({*tasks, self.num_tasks}))


SETTINGS = Settings()


# --- letters and towers ----------------------------------------------------------------------------------------


def letters(script: str) -> tuple[Float[np.ndarray, "n 12 196"], Float[np.ndarray, "n 729"], list[str]]:
    """Images of all letters of a script in twelve typefaces, their captions for the text tower, and their names."""
    names = glyphs.names()
    rows = [i for i, name in enumerate(names) if name.startswith(script) and "LETTER" in name]
    chosen = [names[i] for i in rows]
    return glyphs.images(SIZE)[rows].reshape(len(rows), NUM_FACES, -1), two_tower.letter_pairs(chosen), chosen


def towers(seed: int = 0) -> tuple[Params, Callable]:
    """(params, apply) of an untrained model: a perceptron for images, a linear map for captions."""
    rngs = nnx.Rngs(seed)
    image_tower = ml.models.MLP((SIZE**2, 64, WIDTH), rngs=rngs)
    model = two_tower.TwoTower(image_tower, nnx.Linear(two_tower.NUM_PAIRS, WIDTH, rngs=rngs))
    return ml.models.functional(model)


def kept_letters(settings: Settings = SETTINGS) -> Int[np.ndarray, " num_kept"]:
    """Which of the Latin letters pre-training does not see."""
    return np.sort(np.random.default_rng(0).permutation(len(letters("LATIN")[2]))[: settings.num_kept])


def pretrain(settings: Settings = SETTINGS) -> Params:
    """The contrastive loss on the Latin letters but those that are kept."""
    images, captions, _ = letters("LATIN")
    params, apply = towers()
    known = np.delete(np.arange(len(images)), kept_letters(settings))
    return _pretrain(apply, settings, params, images[known], captions[known])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pretrain(apply, settings, params, images, captions):
    def loss(params, batch):
        rows, faces = batch
        return two_tower.contrastive(apply)(params, (images[rows, faces], captions[rows]))

    def draw(key):
        row_key, face_key = jax.random.split(key)
        rows = jax.random.permutation(row_key, len(images))[: settings.pretraining_batch]
        return rows, jax.random.randint(face_key, rows.shape, 0, NUM_FACES)

    batches = jax.lax.map(draw, jax.random.split(jax.random.key(0), settings.pretraining_steps))
    return descend_on_batches(loss, optax.adam(settings.pretraining_rate), batches, params)


def save(params: Params, to: Path = CHECKPOINT) -> None:
    """Writes parameters in half precision."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays: dict[str, Any] = {jax.tree_util.keystr(path): np.asarray(leaf, np.float16) for path, leaf in leaves}
    np.savez_compressed(to, **arrays)


def load(path: Path = CHECKPOINT) -> tuple[Params, Callable]:
    """(params, apply) of the pre-trained towers."""
    params, apply = towers()
    with np.load(path) as stored:
        trained = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(stored[jax.tree_util.keystr(path)], leaf.dtype), params
        )
    return trained, apply


class Run(NamedTuple):
    """The data of a run.

    Attributes:
      seen: images for fine-tuning, [num_labels, 6, pixels].
      captions: of the labels, [num_labels, 729].
      tasks: the sub-tasks of MAMF, of images in `seen`.
      test_tasks: likewise, of the other six typefaces.
      order: rows of `seen`, flattened, in a new random order for every epoch: [epochs, num_labels * 6].
    """

    seen: Array
    captions: Array
    tasks: Task
    test_tasks: Task
    order: Array


def draw_run(script: str, seed: int, settings: Settings = SETTINGS) -> Run:
    """Thirty letters of a script, their typefaces in two halves, and tasks of both."""
    images, captions, _ = letters(script)
    rows = np.random.default_rng(seed).permutation(len(images))[: settings.num_labels]
    return _draw_run(settings, images[rows], captions[rows], jax.random.key(seed))


@functools.partial(jax.jit, static_argnums=0)
def _draw_run(settings, images, captions, key):
    face_key, order_key, task_key, test_key = jax.random.split(key, 4)
    seen, held_out = jnp.split(images[:, jax.random.permutation(face_key, NUM_FACES)], 2, axis=1)
    tasks = uniform_tasks(seen, settings.num_ways, settings.num_support)(task_key, settings.num_tasks)
    test_tasks = uniform_tasks(held_out, settings.num_ways, settings.num_support)(test_key, settings.num_test_tasks)
    num_images = settings.num_labels * NUM_FACES // 2
    keys = jax.random.split(order_key, -(-settings.num_steps * settings.batch // num_images))
    order = jax.vmap(lambda key: jax.random.permutation(key, num_images))(keys)
    return Run(seen, captions, tasks, test_tasks, order)


# --- plans: which images each step sees --------------------------------------------------------------------------


class Plan(NamedTuple):
    """What a run of fine-tuning does in every step.

    Attributes:
      inputs: the images of each step, [num_steps, batch, pixels].
      labels: likewise, [num_steps, batch].
      fresh: whether the optimizer begins anew before a step, [num_steps].
    """

    inputs: Array
    labels: Array
    fresh: Bool[Array, " num_steps"]


def plan_of(seen: Array, rows: Int[Array, "num_steps batch"], restart: int = 0) -> Plan:
    """The plan with these rows of all images, label by label; the optimizer restarts after so many steps, 0 for never.

    Args:
      seen: images, [num_labels, images_per_label, pixels].
      rows: image r is image r % images_per_label of label r // images_per_label.
      restart: see above.
    """
    flat, (steps, per_label) = seen.reshape(-1, seen.shape[-1]), (jnp.arange(len(rows)), seen.shape[1])
    return Plan(flat[rows], rows // per_label, steps % restart == 0 if restart else steps == 0)


def classical(settings: Settings, run: Run, restart: int = 0) -> Plan:
    """Minibatches of all labels, as many steps as MAMF; every image once an epoch."""
    return plan_of(run.seen, run.order.reshape(-1, settings.batch)[: settings.num_steps], restart)


def blocks(settings: Settings, run: Run, restart: bool = True) -> Plan:
    """MAMF: `epochs` steps on one sub-task after another."""
    joined = jax.tree.map(lambda *halves: jnp.concatenate(halves, axis=1), *run.tasks)
    inputs, labels = jax.tree.map(lambda leaf: jnp.repeat(leaf, settings.epochs, axis=0), joined)
    steps = jnp.arange(len(labels))
    return Plan(inputs, labels, steps % settings.epochs == 0 if restart else steps == 0)


def fresh_tasks(settings: Settings, run: Run) -> Plan:
    """Another random sub-task in every step."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(7), run.order[0, 0]), settings.num_steps)

    def draw(key):
        labels = jax.random.permutation(key, settings.num_labels)[: settings.num_ways]
        per_label = run.seen.shape[1]
        return (labels[:, None] * per_label + jnp.arange(per_label)).ravel()

    return plan_of(run.seen, jax.vmap(draw)(keys))


def _segments(loss, optimizer, plan, start, checkpoints):
    """The parameters after each of these numbers of steps."""
    state = ml.inner.init(optimizer, start)

    def step(state, now):
        inputs, labels, fresh = now
        begun = ml.inner.init(optimizer, state.params)
        state = jax.tree.map(lambda new, old: jnp.where(fresh, new, old), begun, state)
        return ml.inner.step(lambda phi: loss(phi, (inputs, labels)), optimizer, state), None

    found = [start]
    for first, last in itertools.pairwise(checkpoints):
        state, _ = jax.lax.scan(step, state, jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], plan))
        found.append(state.params)
    return found


def _fo_maml(settings, loss, rate, run, start, checkpoints):
    """One inner step on the support set, one outer step on the query gradient, in the place of each step of MAMF."""
    learner = ml.meta_learner(ml.fo_maml(loss, optax.sgd(settings.test_rate), 1), optax.adam(rate))
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, settings.epochs, axis=0)[:, None], run.tasks)
    state, found = learner.init(start), [start]
    for first, last in itertools.pairwise(checkpoints):
        state, _ = jax.lax.scan(learner.step, state, jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], repeated))
        found.append(state.params)
    return found


# --- scores ------------------------------------------------------------------------------------------------------


def measures(apply: Callable, captions: Array) -> tuple[Callable, Callable]:
    """Cross-entropy and accuracy among the labels that a batch contains."""
    classify = two_tower.classifier(apply, captions)
    return among_present(losses.cross_entropy, classify), among_present(losses.accuracy, classify)


def error(settings: Settings, loss: Callable, accuracy: Callable, params: Params, tasks: Task, num_steps: int) -> Array:
    """Per cent of query images misread after `num_steps` gradient steps on the support set, mean over tasks."""

    def score(task):
        phi = descend(lambda phi: loss(phi, task.support), optax.sgd(settings.test_rate), num_steps, params)
        return accuracy(phi, task.query)

    return 100 * (1 - jax.vmap(score)(tasks).mean())


def probe(params: Params) -> Callable:
    """A linear classifier on the frozen image tower: (head, images) -> logits, for a head [WIDTH, num_labels]."""

    def logits(head, images):
        return jnp.exp(params["logit_scale"][...]) * embed(params, images) @ head

    return logits


def outputs(params: Params, images: Array, captions: Array) -> tuple[Array, Array]:
    """What the two towers return, before it is scaled to norm 1."""
    hidden = jax.nn.relu(_dense(params["image_tower"]["layers"][0], images))
    return _dense(params["image_tower"]["layers"][1], hidden), _dense(params["text_tower"], captions)


def embed(params: Params, images: Array) -> Array:
    """Embeddings of images, of norm 1."""
    out, _ = outputs(params, images, jnp.zeros((1, two_tower.NUM_PAIRS)))
    return out / optax.safe_norm(out, two_tower.MIN_NORM, axis=-1, keepdims=True)


def _dense(layer, x):
    return x @ layer["kernel"][...] + layer["bias"][...]


@functools.partial(jax.jit, static_argnums=0)
def fine_tuned(apply: Callable, start: Params, captions: Array, plan: Plan, rate: float) -> Params:
    """The parameters after a plan, by Adam with this learning rate."""
    loss, _ = measures(apply, captions)
    return _segments(loss, optax.adam(rate), plan, start, (0, len(plan.fresh)))[1]


@functools.partial(jax.jit, static_argnums=(0, 3))
def misread(apply: Callable, params: Params, run: Run, settings: Settings = SETTINGS) -> Array:
    """Per cent of query images misread in the test tasks of a run, after the steps at test on their support sets."""
    return error(settings, *measures(apply, run.captions), params, run.test_tasks, settings.test_steps)


METHODS = ("classical", "MAMF", "FO-MAML")
CONTROLS = ("fresh sub-tasks", "classical, restarted", "MAMF, not restarted")


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _curve(settings, apply, way, rate, start, run):
    """Errors at the checkpoints, [after test_steps or before them, checkpoint]."""
    loss, accuracy = measures(apply, run.captions)
    if way == "linear probe":
        logits = probe(start)
        loss, accuracy = (among_present(measure, logits) for measure in (losses.cross_entropy, losses.accuracy))
        start = jnp.zeros((WIDTH, settings.num_labels))
    if way == "FO-MAML":
        found = _fo_maml(settings, loss, rate, run, start, settings.checkpoints)
    else:
        plan = {
            "linear probe": classical,
            "classical": classical,
            "MAMF": blocks,
            "fresh sub-tasks": fresh_tasks,
            "classical, restarted": functools.partial(classical, restart=settings.epochs),
            "MAMF, not restarted": functools.partial(blocks, restart=False),
        }[way](settings, run)
        found = _segments(loss, optax.adam(rate), plan, start, settings.checkpoints)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    return jnp.stack(
        [
            jax.lax.map(lambda params, k=k: error(settings, loss, accuracy, params, run.test_tasks, k), stacked)
            for k in (settings.test_steps, 0)
        ]
    )


def curve(settings: Settings, apply: Callable, way: str, rate: float, start: Params, run: Run) -> np.ndarray:
    """Per cent misread at the checkpoints, [2, num_checkpoints]: after the steps at test, and before them."""
    return np.asarray(_curve(settings, apply, way, jnp.float32(rate), start, run))


def main(settings: Settings = SETTINGS, record: Path = RECORD, checkpoint: Path = CHECKPOINT) -> None:
    """Pre-train, save, run everything and write the record."""
    started = time.process_time()
    save(pretrain(settings), checkpoint)
    start, apply = load(checkpoint)
    runs = [draw_run(script, seed, settings) for script in settings.scripts for seed in settings.seeds]
    found: dict[str, Any] = {}
    rates = {way: settings.rates for way in METHODS} | {"linear probe": settings.probe_rates}
    rates |= {way: settings.rates[1:2] for way in CONTROLS}
    with tqdm(total=sum(map(len, rates.values())) * len(runs), mininterval=5) as bar:
        for way, each in rates.items():
            found[way] = {}
            for rate in each:
                errors = []
                for run in runs:
                    errors.append(curve(settings, apply, way, rate, start, run))
                    bar.update()
                found[way][f"{rate:g}"] = np.round(np.moveaxis(np.stack(errors), 1, 0), 2).tolist()
                bar.write(f"{way}, {rate:g}: {np.mean(errors, axis=0).round(2).tolist()}")
    written = {
        "settings": dataclasses.asdict(settings),
        "machine": machine(),
        "steps": settings.checkpoints,
        "errors": found,
        "minutes": round((time.process_time() - started) / 60, 1),
    }
    record.write_text(json.dumps(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    script(main)
