"""The long runs of lesson 12: five meta-gradients, with and without the zeroing trick, on five characters of a script.

    python -m metalearn.course.lessons.few_shot      runs everything, twenty minutes of a core, and writes the record

All of them train on Latin and Greek characters, are tuned on Cyrillic ones, and are tested on Armenian and Georgian
ones, so no character of a test or validation task was ever trained on. Every row has six configurations to choose from,
the same number of outer steps on the same tasks, and a meta-gradient clipped to norm 1 before Adam. The pictures and
the network are those of the playground "Draw five symbols", without its scribbles.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import UInt8
from tqdm import tqdm

import metalearn as ml
from metalearn.course.lessons.comparison import rounded
from metalearn.course.process import machine, script
from metalearn.course.widgets import draw_five
from metalearn.task import Params, Task

RECORD = Path(__file__).with_name("few_shot.json")
SIZES, WAYS, head = draw_five.SIZES, draw_five.NUM_WAYS, draw_five.head
PICTURE, SIDE = SIZES[0], draw_five.SIDE
MAX_NORM = 1.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that was decided by hand.

    Attributes:
      train: scripts of the training tasks.
      validation: scripts of the tasks by which configurations are chosen.
      test: scripts of the tasks of the report.
      seeds: of the reported runs.
      tuning_seed: of the runs that choose a configuration.
      num_steps: K, of all rows but "FO-MAML, K = 1".
      perturbation: ν of FO-B-MAML.
      outer_rates: of Adam, the first axis of every grid; the learning rate falls to 0 along half a cosine.
      inner_rates: α, the second axis for the rows without a proximal term.
      strengths: λ, the second axis of FO-B-MAML, whose α is `proximal_rate`.
      proximal_rate: see `strengths`.
      tuned_rates: α of fine-tuning, the second axis of joint training.
      test_steps: inner steps at test to choose from.
      meta_batch_size: tasks in an outer step; joint training sees as many pictures in a step as they hold.
      outer_steps: of a reported run.
      tuning_steps: of a tuning run.
      checkpoints: how often a reported run is scored on its way.
      num_drawings: distorted pictures of each training character, a multiple of twelve.
      num_query: query pictures of each class in a validation or test task.
      validation_tasks: how many.
      test_tasks: how many, for each number of shots.
    """

    train: tuple[str, ...] = ("LATIN", "GREEK")
    validation: tuple[str, ...] = ("CYRILLIC",)
    test: tuple[str, ...] = ("ARMENIAN", "GEORGIAN")
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning_seed: int = 100
    num_steps: int = 5
    perturbation: float = 0.05
    outer_rates: tuple[float, ...] = (1e-3, 3e-3)
    inner_rates: tuple[float, ...] = (0.1, 0.2, 0.4)
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3)
    proximal_rate: float = 0.2
    tuned_rates: tuple[float, ...] = (0.05, 0.2, 0.8)
    test_steps: tuple[int, ...] = (5, 10)
    meta_batch_size: int = 16
    outer_steps: int = 2_000
    tuning_steps: int = 400
    checkpoints: int = 10
    num_drawings: int = 24
    num_query: int = 5
    validation_tasks: int = 400
    test_tasks: int = 2_000


SETTINGS = Settings()


class Method(NamedTuple):
    """A meta-gradient, and what the comparison must know about it.

    Attributes:
      build: (loss, settings, α, λ) -> meta-gradient.
      own: which hyperparameter is the second axis of its grid, "α" or "λ".
      gradients: K -> its cost for one task; a Hessian-vector product counts as two gradients.
    """

    build: Callable
    own: str
    gradients: Callable[[int], int]


def _steps(name: str, settings: Settings) -> int:
    return 1 if name == "FO-MAML, K = 1" else settings.num_steps


METHODS = {
    "MAML": Method(lambda loss, s, rate, _: ml.maml(loss, optax.sgd(rate), s.num_steps), "α", lambda k: 3 * k + 1),
    "FO-MAML": Method(lambda loss, s, rate, _: ml.fo_maml(loss, optax.sgd(rate), s.num_steps), "α", lambda k: k + 1),
    "FO-B-MAML": Method(
        lambda loss, s, rate, strength: ml.fo_b_maml(loss, optax.sgd(rate), s.num_steps, strength, s.perturbation),
        "λ",
        lambda k: 4 * k,
    ),
    "FO-MAML, K = 1": Method(lambda loss, s, rate, _: ml.fo_maml(loss, optax.sgd(rate), 1), "α", lambda k: k + 1),
    "ANIL": Method(
        lambda loss, s, rate, _: ml.maml(loss, ml.inner.only(head, optax.sgd(rate)), s.num_steps),
        "α",
        lambda k: 3 * k + 1,
    ),
}
"""The first three are the comparison; the theory is about the fourth, and the fifth adapts the head alone."""


# --- pictures and tasks ------------------------------------------------------------------------------------------


@functools.cache
def training_pictures(scripts: tuple[str, ...], num_drawings: int) -> np.ndarray:
    """Distorted pictures of every character of these scripts: uint8, [num_classes, num_drawings, 14, 14]."""
    rng = np.random.default_rng(0)
    drawn = [draw_five.printed(scripts, rng) for _ in range(max(1, num_drawings // 12))]
    return np.concatenate(drawn, axis=1)[:, :num_drawings]


@functools.cache
def tasks_of(scripts: tuple[str, ...], num_shots: int, num_query: int, num_tasks: int, seed: int = 0) -> Task:
    """Tasks of five printed characters, undistorted."""
    return draw_five.episodes(draw_five.printed(scripts), num_shots, num_query, num_tasks, seed)


def fitted(drawings: UInt8[np.ndarray, "*batch size size"]) -> UInt8[np.ndarray, "*batch {SIDE} {SIDE}"]:
    """Drawings of any size as the network sees its own: ink centred, and its longer side 12 of 14 pixels."""
    flat = drawings.reshape(-1, *drawings.shape[-2:])

    @jax.jit
    def fit(picture):
        picture = picture / 255.0
        inked = picture > 0.2
        low, high = zip(*(_extent(inked.any(axis=1 - axis)) for axis in range(2)), strict=True)
        low, high = jnp.stack(low), jnp.stack(high)
        scale = draw_five.INK / jnp.maximum((high - low).max(), 1)
        shift = SIDE / 2 - scale * (low + high) / 2
        scales = jnp.full(2, scale)
        small = jax.image.scale_and_translate(picture, (SIDE, SIDE), (0, 1), scales, shift, "linear", antialias=True)
        small = small / jnp.maximum(small.max(), 1e-6)  # a thin line stays black
        return jnp.rint(255 * jnp.clip(small, 0, 1)).astype(jnp.uint8)

    small = np.asarray(jax.lax.map(fit, flat, batch_size=100))
    return small.reshape(*drawings.shape[:-2], SIDE, SIDE)


def _extent(inked):
    """The first pixel with ink and the one after the last."""
    return jnp.argmax(inked), len(inked) - jnp.argmax(inked[::-1])


def validation_tasks(settings: Settings) -> Task:
    """Those by which everything is chosen."""
    return tasks_of(settings.validation, 1, settings.num_query, settings.validation_tasks, seed=1)


def test_tasks(settings: Settings, num_shots: int) -> Task:
    """Those of the report."""
    return tasks_of(settings.test, num_shots, settings.num_query, settings.test_tasks, seed=2)


def network(seed: int, num_classes: int = WAYS) -> tuple[Params, Callable]:
    """(params, apply) of the perceptron that a seed begins with."""
    return ml.models.functional(ml.models.MLP((*SIZES[:-1], num_classes), rngs=nnx.Rngs(seed)))


def hidden_layers(params: Params, pictures: Any) -> list[Any]:
    """The pictures, and the outputs of both hidden layers."""
    outputs = [pictures]
    for i in range(len(SIZES) - 2):
        layer = params["layers"][i]
        outputs.append(jax.nn.relu(outputs[-1] @ layer["kernel"][...] + layer["bias"][...]))
    return outputs


def features(params: Params, pictures: Any) -> Any:
    """What the head sees: the outputs of the last hidden layer, shape [..., 64]."""
    return hidden_layers(params, pictures)[-1]


def with_head(params: Params, other: Params) -> Params:
    """The hidden layers of one network with the head of another."""
    layers = {i: (other if i == len(SIZES) - 2 else params)["layers"][i] for i in range(len(SIZES) - 1)}
    result = jax.tree.map(lambda leaf: leaf, other)
    for i, layer in layers.items():
        for part in ("kernel", "bias"):
            result["layers"][i][part][...] = layer[part][...]
    return result


# --- training ----------------------------------------------------------------------------------------------------


class Configuration(NamedTuple):
    """One point of a grid.

    Attributes:
      outer_rate: of Adam, at the beginning.
      own: α or λ.
    """

    outer_rate: Any
    own: Any


def grid(settings: Settings, name: str) -> list[Configuration]:
    """The configurations of a row; `name` is a method's or "joint training"."""
    if name == "joint training":
        own = settings.tuned_rates
    else:
        own = settings.inner_rates if METHODS[name].own == "α" else settings.strengths
    return [Configuration(*point) for point in itertools.product(settings.outer_rates, own)]


def inner_of(settings: Settings, name: str, own: Any) -> tuple[Any, Any]:
    """(α, λ) of a row with this hyperparameter; λ is 0 where there is no proximal term."""
    return (settings.proximal_rate, own) if name in METHODS and METHODS[name].own == "λ" else (own, 0.0)


def _outer(rate, total):
    def schedule(count):
        return rate * (1 + jnp.cos(jnp.pi * jnp.minimum(count / total, 1))) / 2

    return optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(schedule))


def learner_of(
    settings: Settings, name: str, zeroing: bool, configuration: Configuration, total: Any
) -> ml.MetaLearner:
    """The learner of one configuration of a method, for a run of `total` outer steps."""
    rate, strength = inner_of(settings, name, configuration.own)
    loss = ml.losses.cross_entropy(network(0)[1])
    meta_gradient = METHODS[name].build(loss, settings, rate, strength)
    if zeroing:
        meta_gradient = ml.zeroing_trick(meta_gradient, head)
    return ml.meta_learner(meta_gradient, _outer(configuration.outer_rate, total))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _advance(settings, name, zeroing, num_steps, state, key, configuration, total, pictures):
    learner = learner_of(settings, name, zeroing, configuration, total)
    sample = draw_five.Drawings(pictures[None])

    def step(state, _):
        return learner.step(state, sample(jax.random.fold_in(key, state.step), settings.meta_batch_size))[0], None

    return jax.lax.scan(step, state, length=num_steps)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance_joint(settings, num_steps, state, key, rate, total, pictures):
    num_classes, num_drawings = pictures.shape[:2]
    _, apply = network(0, num_classes)
    loss, outer = ml.losses.cross_entropy(apply), _outer(rate, total)
    size = settings.meta_batch_size * WAYS * (1 + draw_five.NUM_QUERY)

    def step(state, _):
        params, opt_state, count = state
        of_class, of_drawing, of_shift = jax.random.split(jax.random.fold_in(key, count), 3)
        labels = jax.random.randint(of_class, (size,), 0, num_classes)
        drawn = pictures[labels, jax.random.randint(of_drawing, (size,), 0, num_drawings)]
        shifts = jax.random.randint(of_shift, (size, 2), -1, 2)
        moved = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(drawn, shifts)
        gradient = jax.grad(loss)(params, (moved.reshape(size, -1) / 255.0, labels))
        updates, opt_state = outer.update(gradient, opt_state, params)
        return ml.MetaState(optax.apply_updates(params, updates), opt_state, count + 1), None

    return jax.lax.scan(step, state, length=num_steps)[0]


def train(
    settings: Settings,
    name: str,
    zeroing: bool,
    configuration: Configuration,
    seed: int,
    total: int,
    pieces: int,
    watch: Callable[[Params], None] = lambda params: None,
) -> Params:
    """One run of `total` outer steps in `pieces` pieces; `watch` sees the parameters after each."""
    pictures, key = training_pictures(settings.train, settings.num_drawings), jax.random.key(seed)
    configuration = Configuration(*map(jnp.float32, configuration))
    joint = name == "joint training"
    params, _ = network(seed, len(pictures) if joint else WAYS)
    opt_state = _outer(configuration.outer_rate, total).init(params)
    state = ml.MetaState(params, opt_state, jnp.zeros((), jnp.int32))
    for _ in range(pieces):
        if joint:
            state = _advance_joint(
                settings, total // pieces, state, key, configuration.outer_rate, float(total), pictures
            )
        else:
            state = _advance(
                settings, name, zeroing, total // pieces, state, key, configuration, float(total), pictures
            )
        watch(jax.block_until_ready(state.params))
    return state.params


# --- scores ------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1))
def _accuracies(num_steps, frozen, params, rate, strength, tasks):
    _, apply = network(0)
    loss, accuracy = ml.losses.cross_entropy(apply), ml.losses.accuracy(apply)
    inner = ml.inner.only(head, optax.sgd(rate)) if frozen else optax.sgd(rate)

    def one(task):
        objective = ml.inner.proximal(lambda phi: loss(phi, task.support), params, strength)
        return accuracy(ml.inner.descend(objective, inner, num_steps, params), task.query)

    return jax.lax.map(one, tasks, batch_size=100)


def accuracies(
    params: Params, tasks: Task, num_steps: int, rate: float, strength: float = 0.0, frozen: bool = False
) -> np.ndarray:
    """The accuracy on each task after adaptation.

    Args:
      params: the initialization, with a head of five classes.
      tasks: a batch of tasks.
      num_steps: of the inner loop.
      rate: α.
      strength: λ of a proximal term, 0 for none.
      frozen: whether the head alone adapts.
    """
    return np.asarray(_accuracies(num_steps, frozen, params, jnp.float32(rate), jnp.float32(strength), tasks))


def nearest_neighbour(tasks: Task) -> np.ndarray:
    """Accuracy on each task of the nearest support picture, by Euclidean distance of the pixels."""
    return draw_five.nearest(tasks)


def nearest_centroid(tasks: Task, encode: Callable[[Any], Any] = lambda pictures: pictures) -> np.ndarray:
    """Accuracy on each task of the nearest mean of a class's support pictures, in pixels or in features."""
    (support, labels), (query, truth) = tasks
    support, query = np.asarray(encode(support)), np.asarray(encode(query))
    members = np.asarray(labels)[:, None] == np.arange(WAYS)[:, None]  # [task, way, example]
    means = members @ support / members.sum(axis=-1, keepdims=True)
    return (draw_five.closest(query, means) == np.asarray(truth)).mean(axis=1)


def direction(features: Any) -> Any:
    """Features of norm 1: the nearest of them is that at the smallest angle."""
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-9)


def noise(params: Params, tasks: Task, rate: float) -> tuple[float, float]:
    """How noisy the contrastive learner is that first-order MAML with one step on the head would be.

    Returns:
      The norm of the interference relative to that of the contrastive part, root mean square over query examples; and
      the fraction of pairs of different classes that attract each other.
    """
    layer = head(params)
    weights = np.concatenate([layer["kernel"][...], layer["bias"][...][None]])
    of_interference, of_contrast, wrong = [], [], []
    for (support, labels), (query, truth) in zip(*(zip(*part, strict=True) for part in tasks), strict=True):
        seen = [np.pad(np.asarray(features(params, p)), ((0, 0), (0, 1)), constant_values=1) for p in (support, query)]
        split = ml.theory.contrastive_split(seen[0], labels, seen[1], truth, weights, rate)
        # the last feature is the constant one, into which no gradient flows
        of_interference.append(np.square(split.interference[:, :-1]).sum())
        of_contrast.append(np.square(split.contrastive[:, :-1]).sum())
        wrong.append(split.wrong_signs())
    return float(np.sqrt(np.sum(of_interference) / np.sum(of_contrast))), float(np.mean(wrong))


def first(tasks: Task, number: int) -> Task:
    """The first of a batch of tasks."""
    return jax.tree.map(lambda leaf: leaf[:number], tasks)


# --- the whole record --------------------------------------------------------------------------------------------


def tune(settings: Settings, name: str, zeroing: bool, bar: tqdm) -> tuple[list[float], Configuration]:
    """Validation accuracies of all configurations after a short run each, and the best configuration."""
    tasks, found = validation_tasks(settings), []
    trained: dict[float, Params] = {}  # joint training does not depend on α
    for configuration in grid(settings, name):
        joint = name == "joint training"
        if not joint or configuration.outer_rate not in trained:
            params = train(settings, name, zeroing, configuration, settings.tuning_seed, settings.tuning_steps, 1)
            trained[configuration.outer_rate] = params
        params = prepared(trained[configuration.outer_rate], zeroing)
        rate, strength = inner_of(settings, name, configuration.own)
        steps = settings.test_steps[1] if joint else _steps(name, settings)
        found.append(float(accuracies(params, tasks, steps, rate, strength, name == "ANIL").mean()))
        bar.update(settings.tuning_steps)
    return found, grid(settings, name)[int(np.argmax(found))]


def prepared(params: Params, zeroing: bool) -> Params:
    """The initialization of a test task: five classes, and a head of zeros with the zeroing trick."""
    other, _ = network(0)
    if params["layers"][len(SIZES) - 2]["bias"][...].shape[-1] != WAYS:
        params = with_head(params, other)
    return ml.zero_head(params, head) if zeroing else params


def summary(scores: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of accuracies [num_seeds, num_tasks]: the mean over seeds with its interval over tasks, and each seed's."""
    per_task = np.mean(scores, axis=0)
    score = ml.evaluate.score(per_task)
    return {
        "mean": round(score.mean, 4),
        "half_width": round(score.half_width, 4),
        "seeds": [round(float(np.mean(one)), 4) for one in scores],
    }


SHOTS = (1, 5)
NOISE_TASKS = 50


def run(settings: Settings, name: str, zeroing: bool, bar: tqdm) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
    """One row: its entry in the record, and its accuracies on the test tasks, [num_seeds, num_tasks] for each shot."""
    bar.set_description(f"{name}, {'zeroing' if zeroing else 'plain'}")
    started = time.process_time()
    validation, chosen = tune(settings, name, zeroing, bar)
    rate, strength = inner_of(settings, name, chosen.own)
    joint, frozen, num_steps = name == "joint training", name == "ANIL", _steps(name, settings)
    at_validation, curves, noises, all_params = validation_tasks(settings), [], [], []
    for seed in settings.seeds:
        curve: list[float] = []
        noisy: list[tuple[float, float]] = []

        def watch(params, curve=curve, noisy=noisy):
            ready = prepared(params, zeroing)
            curve.append(float(accuracies(ready, at_validation, num_steps, rate, strength, frozen).mean()))
            if not joint:
                noisy.append(noise(ready, first(at_validation, NOISE_TASKS), rate))
            bar.update(settings.outer_steps // settings.checkpoints)

        params = train(settings, name, zeroing, chosen, seed, settings.outer_steps, settings.checkpoints, watch)
        all_params.append(params)
        curves.append(curve)
        noises.append(noisy)

    def scored(params, tasks, steps, zeroed=zeroing):
        return accuracies(prepared(params, zeroed), tasks, steps, rate, strength, frozen)

    candidates = [np.mean([scored(p, at_validation, k).mean() for p in all_params]) for k in settings.test_steps]
    test_steps = settings.test_steps[int(np.argmax(candidates))]
    tasks = {shots: test_tasks(settings, shots) for shots in SHOTS}
    scores = {shots: np.stack([scored(p, tasks[shots], test_steps) for p in all_params]) for shots in SHOTS}
    entry: dict[str, Any] = {
        "validation": rounded(np.reshape(validation, (len(settings.outer_rates), -1))),
        "outer_rate": chosen.outer_rate,
        "own": chosen.own,
        "test_steps": test_steps,
        "curve": rounded(curves),
        "test": {str(shots): summary(list(scores[shots])) for shots in SHOTS},
        "centroid": {str(shots): summary([_centroid(p, tasks[shots]) for p in all_params]) for shots in SHOTS},
    }
    if not joint:
        entry["gradients"] = METHODS[name].gradients(num_steps)
        entry["interference"], entry["wrong_signs"] = (
            [[float(f"{pair[i]:.4g}") for pair in noisy] for noisy in noises] for i in (0, 1)
        )
        entry["other_head"] = {
            str(shots): summary([scored(p, tasks[shots], test_steps, not zeroing) for p in all_params])
            for shots in SHOTS
        }
    entry["minutes"] = round((time.process_time() - started) / 60, 2)
    shown = " ".join(f"{shots}-shot {entry['test'][str(shots)]['mean']:.4f}" for shots in SHOTS)
    bar.write(f"{name}, zeroing {zeroing}: {chosen}, {test_steps} steps, {shown}, {entry['minutes']} min")
    return entry, scores


def _centroid(params: Params, tasks: Task) -> np.ndarray:
    return nearest_centroid(tasks, lambda pictures: direction(features(params, pictures)))


def main(settings: Settings = SETTINGS, to: Path = RECORD, methods: Sequence[str] = tuple(METHODS)) -> None:
    """Run everything and write the record."""
    started = time.process_time()
    each = 6 * settings.tuning_steps + len(settings.seeds) * settings.outer_steps
    record: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "machine": machine(),
        "num_classes": {
            part: len(draw_five.printed(getattr(settings, part))) for part in ("train", "validation", "test")
        },
        "rows": {},
        "gain": {},
    }
    with tqdm(total=(2 * len(methods) + 1) * each, mininterval=5) as bar:
        for name in methods:
            plain, before = run(settings, name, False, bar)
            zeroed, after = run(settings, name, True, bar)
            record["rows"][name] = {"plain": plain, "zeroing": zeroed}
            record["gain"][name] = {str(shots): summary(list(after[shots] - before[shots])) for shots in SHOTS}
        # A new head has to be put in anyway; zeros know no class, as in the zeroing trick.
        record["rows"]["joint training"] = {"zeroing": run(settings, "joint training", True, bar)[0]}
    tasks = {shots: test_tasks(settings, shots) for shots in SHOTS}
    record["baselines"] = {
        "pixel nearest neighbour": {str(s): summary([nearest_neighbour(tasks[s])]) for s in SHOTS},
        "pixel nearest centroid": {str(s): summary([nearest_centroid(tasks[s])]) for s in SHOTS},
    }
    record["minutes"] = round((time.process_time() - started) / 60, 1)
    to.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    script(main)
