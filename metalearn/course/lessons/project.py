"""The project of lesson 16: a task distribution of the learner's own, three meta-gradients, and a report.

    python -m metalearn.course.lessons.project      writes the record: 40 seeds on springs, eight on the others

A task distribution is a function of a key and of a part, "train", "validation" or "test". Its tasks are curves, pairs
of arrays (x, y) of shape [num_points, 1], or classes, inputs [num_examples, num_features] with whole numbers as labels.
"""

import dataclasses
import functools
import inspect
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import metalearn as ml
from metalearn.course.lessons import comparison, own
from metalearn.course.process import bar, machine, script, setup
from metalearn.task import Task

RECORD = Path(__file__).with_name("project.json")
PARTS = {"train": 1_000, "validation": 200, "test": 400}  # tasks of each
_CHUNK = 100  # tasks that are drawn at once
TASK_SEEDS = {"train": 0, "validation": 1, "test": 2}
TICKS = 10
SETTINGS = dataclasses.replace(
    comparison.SETTINGS, num_steps=5, outer_rates=(3e-3, 1e-2), max_norms=(None, 1.0), checkpoints=TICKS
)
BUDGET = 6_400  # gradients that each run may spend for each task of a batch
DEFAULT_METHODS = ("MAML", "FO-MAML", "Reptile")

CURVE_WIDTHS, CLASS_WIDTHS = (24, 24), (32,)  # units of the hidden layers
_Array = Float[np.ndarray, "..."]


# --- three task distributions ------------------------------------------------------------------------------------


def springs(key: Any, part: str) -> Task:
    """Damped springs: the deflection at ten instants is known, and it is asked for at ten others."""
    A_key, omega_key, gamma_key, t_key = jax.random.split(key, 4)
    A = jax.random.uniform(A_key, minval=0.5, maxval=2.0)
    omega = jax.random.uniform(omega_key, minval=1.0, maxval=3.0)
    gamma = jax.random.uniform(gamma_key, minval=0.05, maxval=0.5)
    t = jax.random.uniform(t_key, (20, 1), maxval=6.0)
    y = A * jnp.exp(-gamma * t) * jnp.cos(omega * t)
    return Task(support=(t[:10], y[:10]), query=(t[10:], y[10:]))


def doses(key: Any, part: str) -> Task:
    """Patients: the noisy response to six doses is known; each has an own threshold and an own steepness."""
    threshold_key, steepness_key, x_key, noise_key = jax.random.split(key, 4)
    threshold = 0.7 * jax.random.normal(threshold_key)
    steepness = jax.random.uniform(steepness_key, minval=1.0, maxval=6.0)
    x = jax.random.uniform(x_key, (16, 1), minval=-2.0, maxval=2.0)  # logarithm of the dose
    noise = 0.05 * jax.random.normal(noise_key, x.shape)
    y = jax.nn.sigmoid(steepness * (x - threshold)) + noise
    return Task(support=(x[:6], y[:6]), query=(x[6:], y[6:]))


SCRIPTS = {"train": ("LATIN", "GREEK"), "validation": ("CYRILLIC",), "test": ("ARMENIAN", "GEORGIAN")}


def characters(key: Any, part: str) -> Task:
    """Images: five characters, one picture of each is known; every part has scripts of its own."""
    draw = ml.tasks.Glyphs(num_ways=5, num_shots=1, num_query=3, scripts=SCRIPTS[part])

    def small(batch):
        images, labels = batch
        pictures = images[0].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
        return pictures.reshape(-1, 196), labels[0]

    tasks = draw(key, 1)
    return Task(support=small(tasks.support), query=small(tasks.query))


TEMPLATES = (springs, doses, characters)


# --- a problem ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Tasks of all parts, and what is known of them before anything is trained.

    Attributes:
      my_task: the function that draws one.
      parts: the tasks of each part as they were drawn, a leading axis counts them.
      classes: whether labels are asked for, and not numbers.
      floor: what one function can reach without adaptation: a share of the targets' variance, or an error rate.
      curve: of curves, what `own.floor` found; None for classes.
      labels_have_meaning: whether one function beats guessing, so that the floor is only an upper bound.
      benchmark: with inputs and targets in the scale of the training tasks.
    """

    my_task: Callable[..., Task]
    parts: dict[str, Task]
    classes: bool
    floor: float
    curve: own.Floor | None
    benchmark: comparison.Benchmark
    labels_have_meaning: bool = False

    @property
    def unit(self) -> str:
        """What an error is."""
        return "error rate on new tasks" if self.classes else "squared error, as a share of the targets' variance"


def problem(my_task: Callable[..., Task], task_seeds: Mapping[str, int] = TASK_SEEDS) -> Problem:
    """Draws a learner's tasks, and looks at all that can be wrong with them.

    Args:
      my_task: function of (key, part) that returns one task.
      task_seeds: the seed of each part's keys.

    Raises:
      own.Unusable: if nothing can be measured on them, or a part holds what another one holds too.
    """
    chunks = {
        part: jax.random.split(jax.random.key(task_seeds[part]), number).reshape(-1, _CHUNK)
        for part, number in PARTS.items()
    }
    ticks = bar(range(sum(map(len, chunks.values()))), "drawing tasks")
    _require_key_and_part(my_task)
    raw = {
        part: own.drawn(
            (lambda key, part=part: my_task(key, part)) if callable(my_task) else my_task,
            (keys for keys, _ in zip(each, ticks, strict=False)),
        )
        for part, each in chunks.items()
    }
    next(ticks, None)  # the bar is full
    classes = _are_classes(raw["train"])
    parts = {part: (_labelled if classes else _curves)(drawn) for part, drawn in raw.items()}
    for part in "validation", "test":
        if [half[0].shape[2:] for half in parts[part]] != [half[0].shape[2:] for half in parts["train"]]:
            raise own.Unusable(f"The inputs of your {part} tasks have another shape than those of your training tasks.")
    curve = None if classes else own.floor(own.usable(parts["train"]))
    for first, second in itertools.combinations(PARTS, 2):
        if said := leak(parts[first], parts[second], first, second, classes):
            raise own.Unusable(said)
    if curve:
        floor, meaning = curve.floor / float(_targets(parts["train"]).var()), False
    else:
        guessing, one = _blind_error(parts["train"]), _nearest_mean_error(parts["train"], parts["validation"])
        meaning = 1 - one > 1.1 * (1 - guessing)
        floor = one if meaning else guessing
    return Problem(my_task, parts, classes, floor, curve, _benchmark(parts, classes), meaning)


def _require_key_and_part(my_task):
    if callable(my_task):
        try:
            inspect.signature(my_task).bind(None, "train")
        except TypeError as error:
            raise own.Unusable(
                "`my_task` must take a key and a part, as `def my_task(key, part):` does. It may ignore the part."
            ) from error


def _curves(drawn):
    """Pairs of float arrays of shape [number, num_points, 1]; who meant labels is told how to give them."""
    try:
        return own.curves(drawn)
    except own.Unusable as error:
        raise own.Unusable(
            f"{error} If your targets are labels, give them as whole numbers, not floats, of shape `[num_examples]`. "
            "Then an input may have several features."
        ) from error


def _are_classes(drawn):
    """Whether the labels of the query set are whole numbers; whatever is no task is no such."""
    try:
        (_, labels), _ = drawn
        return bool(np.issubdtype(np.asarray(labels).dtype, np.integer))
    except (TypeError, ValueError):
        return False


def _labelled(drawn):
    """Tasks whose inputs are rows of numbers and whose labels are 0, 1, ...

    Raises:
      own.Unusable: if they are no such tasks.
    """
    wanted = (
        "Where labels are asked for, `my_task` must return `ml.Task(support=(x, labels), query=(x, labels))`, with `x` "
        "of shape `[num_examples, num_features]` and labels of shape `[num_examples]`, whole numbers from 0 on"
    )
    try:
        halves = tuple((np.asarray(x, float), np.asarray(labels)) for x, labels in drawn)
        good = len(halves) == 2 and all(
            x.ndim == 3 and labels.shape == x.shape[:2] and labels.dtype.kind == "i" and labels.min() >= 0
            for x, labels in halves
        )
    except (TypeError, ValueError) as error:
        raise own.Unusable(f"{wanted}.") from error
    if not good:
        raise own.Unusable(
            f"{wanted}. Yours have the shapes {', '.join(str(list(a.shape[1:])) for h in halves for a in h)}. If your "
            "targets are numbers and not labels, give them as floats of shape `[num_points, 1]`."
        )
    tasks = Task(*halves)
    if not all(np.isfinite(x).all() for x, _ in tasks):
        raise own.Unusable("Some inputs of your tasks are not finite.")
    if all((array == array[:1]).all() for half in tasks for array in half):
        raise own.Unusable(
            "Every task of yours is the same, so `my_task` seems to ignore its key. Split the key, and draw everything "
            "that is random with `jax.random` from the parts."
        )
    if tasks.query[1].max() == 0:
        raise own.Unusable("All labels are 0, so there is nothing to learn.")
    both = ((_rows(mine), _rows(theirs)) for mine, theirs in zip(tasks.support[0], tasks.query[0], strict=True))
    if np.mean([len(mine & theirs) / len(theirs) for mine, theirs in both]) > 0.5:
        raise own.Unusable(
            "The query examples of your tasks are among their support examples. A model that learns these by heart "
            "would look perfect. Draw other examples for the query set."
        )
    return tasks


def _rows(array):
    """Each entry along the first axis as bytes, as a set."""
    return {row.tobytes() for row in np.ascontiguousarray(array)}


def leak(one: Task, other: Task, first: str, second: str, classes: bool) -> str:
    """What is to be said if two parts share tasks, or single examples that give a task away; "" if they do not."""
    names = {"train": "training"}
    first, second = (names.get(name, name) for name in (first, second))
    if classes and not _inputs_are_common(one):
        seen = _rows(one.support[0].reshape(-1, one.support[0].shape[-1]))
        seen |= _rows(one.query[0].reshape(-1, one.query[0].shape[-1]))
        count = sum(bool(seen & (_rows(a) | _rows(b))) for a, b in zip(other.support[0], other.query[0], strict=True))
        if count:
            return (
                f"{count} of your {len(other.query[1])} {second} tasks contain an example that occurs in your {first} "
                "tasks too. Use `part`, and give each part classes or pictures of its own."
            )
        return ""
    halves = [(_sets(mine), _sets(theirs)) for mine, theirs in zip(one, other, strict=True)]
    same = [any(theirs[i] in set(mine) for mine, theirs in halves) for i in range(len(other.query[1]))]
    if all(mine[: len(theirs)] == theirs[: len(mine)] for mine, theirs in halves):
        return (
            f"Your {first} tasks share keys with your {second} tasks, so they are the same tasks. Give every part a "
            "seed of its own."
        )
    if any(same):
        return (
            f"{sum(same)} of your {len(same)} {second} tasks are also among your {first} tasks. Are your tasks drawn "
            "from a short list? Then let `part` decide which entries of it a part may use."
        )
    return ""


def _inputs_are_common(tasks):
    """Whether tasks have inputs in common, as with one feature or on a small grid, and differ in their labels."""
    inputs = np.concatenate([tasks.support[0], tasks.query[0]], axis=1)
    _, examples, features = inputs.shape
    return features == 1 or len(_rows(inputs.reshape(-1, features))) <= 4 * examples


def _sets(half):
    return [np.concatenate([x, y.reshape(len(x), -1)], axis=-1).tobytes() for x, y in zip(*half, strict=True)]


def _targets(tasks):
    return np.concatenate([tasks.support[1], tasks.query[1]], axis=1)


def _blind_error(tasks):
    """The error rate of whoever sees no support set and answers with the most frequent label."""
    labels = _targets(tasks)
    return 1 - np.bincount(labels.ravel()).max() / labels.size


def _nearest_mean_error(train, validation):
    """The error rate, on other tasks, of one function: the label whose training examples have the nearest mean."""
    x, labels = (np.concatenate([half[i] for half in train], axis=1) for i in (0, 1))
    known = np.unique(labels)
    means = np.stack([x[labels == label].mean(axis=0) for label in known])
    x, labels = validation.query
    distances = ((x[:, :, None] - means) ** 2).sum(axis=-1)
    return float(np.mean(known[distances.argmin(axis=-1)] != labels))


def _benchmark(parts, classes):
    """Inputs and targets in the scale of the training tasks; nothing of the other parts decides anything here."""
    x, y = (np.concatenate([half[i] for half in parts["train"]], axis=1) for i in (0, 1))
    center, spread = x.mean(), x.std() / (1.0 if classes else 3.0)  # as wide as the inputs of the sine curves
    middle, unit = y.mean(), y.std()

    def scaled(tasks):
        inputs = [jnp.asarray((x - center) / max(spread, 1e-12), jnp.float32) for x, _ in tasks]
        targets = [
            jnp.asarray(y, jnp.int32) if classes else jnp.asarray((y - middle) / unit, jnp.float32) for _, y in tasks
        ]
        return Task(*zip(inputs, targets, strict=True))

    drawn = {part: scaled(tasks) for part, tasks in parts.items()}

    def train(key, num_tasks):
        chosen = jax.random.randint(key, (num_tasks,), 0, PARTS["train"])
        return jax.tree.map(lambda leaf: leaf[chosen], drawn["train"])

    ways = int(max(half[1].max() for tasks in parts.values() for half in tasks)) + 1 if classes else 1
    widths = (x.shape[-1], *CLASS_WIDTHS, ways) if classes else (1, *CURVE_WIDTHS, 1)
    return comparison.Benchmark(
        name="own",
        widths=widths,
        train=train,
        tuning_train=train,
        validation=lambda key, num_tasks: drawn["validation"],
        test=lambda key, num_tasks: drawn["test"],
        loss=ml.losses.cross_entropy if classes else ml.losses.mean_squared_error,
        score=comparison.error_rate if classes else ml.losses.mean_squared_error,
        meta_batch_size=4,
        gradients=BUDGET,
        inner_rates=(0.1, 0.4) if classes else (0.03, 0.1),
        strengths=(0.1, 1.0) if classes else (0.5, 2.0),
        proximal_rate=0.2 if classes else 0.05,
    )


# --- a study -----------------------------------------------------------------------------------------------------


class Study(NamedTuple):
    """What was run, and what came out.

    Attributes:
      problem: on which tasks.
      plan: as it was run.
      methods: their names.
      cost: gradients of one outer step for each task, by method.
      outer_steps: of each run, by method.
      configurations: the grid of each method.
      validation: errors of the tuning runs on validation tasks, shape [methods, configurations].
      chosen: which configuration was taken, by method.
      errors: on test tasks, shape [methods, seeds, tasks].
    """

    problem: Problem
    plan: Mapping[str, Any]
    methods: tuple[str, ...]
    cost: dict[str, int]
    outer_steps: dict[str, int]
    configurations: dict[str, list[comparison.Configuration]]
    validation: _Array
    chosen: dict[str, int]
    errors: _Array


def cost_of(methods: Sequence[str]) -> dict[str, int]:
    """Gradients of one outer step for each task of its batch, by method."""
    return {name: comparison.ROWS[name].gradients(SETTINGS.num_steps, SETTINGS.cg_steps) for name in methods}


def settings_of(plan: Mapping[str, Any], name: str) -> comparison.Settings:
    """The settings of a method in a plan."""
    return dataclasses.replace(
        SETTINGS, outer_rates=tuple(plan["outer rates"][name]), max_norms=tuple(plan["clipping"][name])
    )


def run(posed: Problem, methods: Sequence[str], plan: Mapping[str, Any]) -> Study:
    """Tunes each method on validation tasks, trains the chosen configuration with every seed, and scores it once.

    Args:
      posed: the problem.
      methods: names of `comparison.ROWS`.
      plan: as `16.plan` asks for it.
    """
    benchmark, configurations, chosen, taken = posed.benchmark, {}, {}, {}
    validation, errors = [], []
    for name in methods:
        this = (benchmark, name, settings_of(plan, name))
        points = configurations[name] = comparison.grid(*this)
        taken[name] = max(plan["outer steps"][name] // TICKS, 1) * TICKS

        def train(seeds, points, what, this=this, steps=taken[name]):
            runs = comparison.begin(*this, seeds, points)
            for _ in bar(range(TICKS), what):
                runs = jax.block_until_ready(comparison.advance(*this, False, steps // TICKS, runs))
            return runs

        runs = train([plan["tuning seed"]] * len(points), points, f"{name}, {len(points)} configurations")
        validation.append(np.asarray(comparison.own_score(*this, runs, benchmark.validation_tasks())[0], float))
        if not np.isfinite(validation[-1]).any():
            raise own.Unusable(f"Every configuration of {name} diverged on your tasks. Are some of them huge?")
        best = chosen[name] = int(np.nanargmin(np.where(np.isfinite(validation[-1]), validation[-1], np.nan)))
        seeds = list(plan["seeds"])
        runs = train(seeds, [points[best]] * len(seeds), f"{name}, {len(seeds)} seeds")
        errors.append(np.asarray(comparison.own_score_each(*this, runs, benchmark.test_tasks())[0], float))
    table, tests = np.array(validation), np.array(errors)
    return Study(posed, plan, tuple(methods), cost_of(methods), taken, configurations, table, chosen, tests)


def default_plan(cost: Mapping[str, int], budget: int) -> dict[str, Any]:
    """A plan that breaks no rule."""
    return {
        "outer steps": {name: budget // gradients for name, gradients in cost.items()},
        "outer rates": dict.fromkeys(cost, (3e-3, 1e-2)),
        "clipping": dict.fromkeys(cost, (None, 1.0)),
        "task seeds": dict(TASK_SEEDS),
        "tuning seed": 100,
        "seeds": tuple(range(8)),
    }


def interval(differences: _Array, seed_quantile: float, task_quantile: float) -> _Array:
    """[lower end, upper end] for the true difference, from differences of shape [seeds, tasks]."""
    of_seeds, of_tasks = (differences.mean(axis=axis).var(ddof=1) / differences.shape[1 - axis] for axis in (1, 0))
    half = np.sqrt(seed_quantile**2 * of_seeds + task_quantile**2 * of_tasks)
    return differences.mean() + half * np.array([-1.0, 1.0])


def quantile(number: int, comparisons: int = 1) -> float:
    """Of Student's distribution, for the mean of so many values: intervals that hold all at once with at least 95 %.

    With n degrees of freedom, T is √n times the tangent of an angle whose density goes like the (n - 1)-th
    power of its cosine.
    """
    angle = np.linspace(0, np.pi / 2, 20_001)
    density = np.cos(angle) ** (number - 2)
    inside = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(number - 1) * np.tan(np.interp(1 - 0.05 / comparisons, inside / inside[-1], angle)))


def pairs(errors: _Array, methods: Sequence[str]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(lower end, mean, upper end) of the difference of each two methods' errors; all intervals hold at once."""
    every = list(itertools.combinations(range(len(methods)), 2))
    factors, found = [quantile(number, len(every)) for number in errors.shape[1:]], {}
    for a, b in every:
        if np.isfinite(errors[[a, b]]).all():
            low, high = interval(errors[a] - errors[b], *factors)
            found[methods[a], methods[b]] = float(low), float(errors[a].mean() - errors[b].mean()), float(high)
        else:
            found[methods[a], methods[b]] = (math.nan,) * 3
    return found


# --- the record --------------------------------------------------------------------------------------------------

SEEDS, KEPT_TASKS = 40, 150


def record() -> dict[str, Any]:
    """Many seeds on springs, to ask how often an interval covers, and eight on each of the other distributions."""
    start = time.time()
    plan = default_plan(cost_of(DEFAULT_METHODS), BUDGET) | {"seeds": tuple(range(SEEDS))}
    posed = problem(springs)
    study = run(posed, DEFAULT_METHODS, plan)
    few = study._replace(errors=study.errors[:, :8])
    found = {
        "machine": machine(),
        "budget": BUDGET,
        "outer_steps": study.outer_steps,
        "floor": round(study.problem.floor, 4),
        "chosen": {name: list(map(str, study.configurations[name][study.chosen[name]])) for name in study.methods},
        "errors": {
            name: [[float(f"{value:.3g}") for value in row[:KEPT_TASKS]] for row in errors]
            for name, errors in zip(study.methods, study.errors, strict=True)
        },
        "templates": {"springs": _summary(few)} | {each.__name__: _summary(_eight(each)) for each in TEMPLATES[1:]},
        "control": _summary(_with_longer_maml(posed, few)),
    }
    return found | {"minutes": round((time.time() - start) / 60, 1)}


def _eight(template):
    return run(problem(template), DEFAULT_METHODS, default_plan(cost_of(DEFAULT_METHODS), BUDGET))


def _with_longer_maml(posed, study):
    """The same study, but MAML takes as many outer steps as Reptile."""
    plan = default_plan(cost_of(["MAML"]), BUDGET) | {"outer steps": {"MAML": study.outer_steps["Reptile"]}}
    longer = run(posed, ("MAML",), plan)
    return study._replace(errors=np.concatenate([longer.errors, study.errors[1:]]))


def _summary(study):
    """The floor, each seed's error, and the differences of two methods with their intervals."""
    return {
        "floor": round(study.problem.floor, 4),
        "errors": {
            name: [round(float(value), 4) for value in each.mean(axis=1)]
            for name, each in zip(study.methods, study.errors, strict=True)
        },
        "differences": {
            " − ".join(pair): [round(value, 4) for value in ends]
            for pair, ends in pairs(study.errors, study.methods).items()
        },
    }


@functools.cache
def recorded() -> dict[str, Any]:
    """What the script below wrote."""
    return json.loads(RECORD.read_text("utf-8"))


def main() -> None:
    """Writes the record."""
    setup()
    text = json.dumps(record(), ensure_ascii=False)
    RECORD.write_text(text.replace("], [", "],\n[") + "\n", "utf-8")


if __name__ == "__main__":
    script(main)
