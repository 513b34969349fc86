"""The long runs of lesson 13: one checkpoint, adapted to tasks that are more and less like those of its training.

    python -m metalearn.course.lessons.out_of_domain      runs everything, nine minutes of a core; writes the record

The lesson's checkpoint is the network of the playground "Draw five symbols". Two others, with the learned head that
the paper's checkpoints have, are trained as the row "MAML" of lesson 12. Every way to adapt has the same grid of
learning rates. Validation tasks choose from it, and test tasks show other characters.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

import metalearn as ml
from metalearn.course.lessons import few_shot
from metalearn.course.lessons.comparison import rounded
from metalearn.course.process import machine, script
from metalearn.course.widgets import draw_five, playgrounds
from metalearn.task import Batch, Params, Task

RECORD = Path(__file__).with_name("out_of_domain.json")
RATES = tuple(float(f"{rate:.3g}") for rate in 10 ** (np.arange(-8, 2) / 3))
NUM_STEPS = 5  # as in the training of all checkpoints
FINE = tuple(float(f"{rate:.3g}") for rate in 10 ** np.linspace(-2.5, 1, 15))  # where plain adaptation is drawn
PART = 50  # tasks adapted by one call of a compiled program
NUM_MEMBERS, SPREAD, ATTACK_SIZE = 5, 0.05, 0.05  # as in the authors' code


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that was decided by hand, beside the constants of this module.

    Attributes:
      seeds: of the checkpoints that are trained here.
      outer_steps: of their training.
      validation_tasks: of each domain, at every learning rate.
      test_tasks: of each domain, at the learning rates that validation tasks chose.
    """

    seeds: tuple[int, ...] = (0, 1)
    outer_steps: int = 2_000
    validation_tasks: int = 50
    test_tasks: int = 150


SETTINGS = Settings()

# --- domains -----------------------------------------------------------------------------------------------------

KNOWN = "known scripts"
DOMAINS: dict[str, Callable[[Any], Any]] = {
    KNOWN: lambda pictures: pictures,
    "new scripts": lambda pictures: pictures,
    "pencil": lambda pictures: 0.3 * pictures,
    "chalk": lambda pictures: 1 - pictures,
}
"""What each does to pictures of dark ink, 1, on white paper, 0. All but the first show characters of new scripts."""

SCRIPTS = {KNOWN: (few_shot.SETTINGS.train, few_shot.SETTINGS.train)}
NEW_SCRIPTS = (("ARMENIAN",), ("GEORGIAN",))  # for validation, and for the test


@functools.cache
def tasks_of(domain: str, num_tasks: int, test: bool = False) -> Task:
    """Tasks of five characters with one picture each to adapt to, and five others of each to judge by."""
    scripts = SCRIPTS.get(domain, NEW_SCRIPTS)[test]
    tasks = few_shot.tasks_of(scripts, 1, 5, num_tasks, seed=4 + test)
    return Task(*((DOMAINS[domain](pictures), labels) for pictures, labels in tasks))


# --- checkpoints and adaptation ----------------------------------------------------------------------------------


def pad_network() -> Params:
    """θ of the drawing pad of lesson 12, its head zero."""
    return draw_five.unpack(playgrounds._data()["draw_five_symbols"]["layers"])


def trained(settings: Settings, seed: int) -> Params:
    """θ of MAML with a learned head, on Latin and Greek characters."""
    configuration = few_shot.Configuration(3e-3, 0.2)  # what lesson 12 chose for it
    return few_shot.train(few_shot.SETTINGS, "MAML", False, configuration, seed, settings.outer_steps, 1)


# Of shapes alone: parameters come from checkpoints, and random ones would take a second when this is imported.
APPLY = ml.models.functional(nnx.eval_shape(lambda: ml.models.MLP(draw_five.SIZES, rngs=nnx.Rngs(0))))[1]
LOSS, ACCURACY = ml.losses.cross_entropy(APPLY), ml.losses.accuracy(APPLY)


def sized(rate: Any, factors: Params | None = None) -> optax.GradientTransformation:
    """SGD with a learning rate, times a factor of its own in each layer."""
    if factors is None:
        return optax.sgd(rate)
    return optax.chain(optax.sgd(rate), optax.stateless(lambda updates, _: optax.tree.mul(updates, factors)))


@jax.jit
def plain(params: Params, tasks: Task, rates: Any, factors: Params | None = None) -> Any:
    """Accuracy of each task after adaptation, shape [num_rates, num_tasks]; a rate may be one number for each task."""

    def one(task, rate):
        phi = ml.inner.descend(lambda phi: LOSS(phi, task.support), sized(rate, factors), NUM_STEPS, params)
        return ACCURACY(phi, task.query)

    each = jnp.broadcast_to(jnp.asarray(rates).reshape(len(rates), -1), (len(rates), len(tasks.support[1])))
    return jax.lax.map(lambda rates: jax.vmap(one)(tasks, rates), each)


@jax.jit
def _repurposed(params, tasks, rate, spread, attack_size):
    curve = ml.repurpose.adaptation_curve(
        LOSS,
        optax.sgd(rate),
        params,
        tasks,
        NUM_STEPS,
        jax.random.key(0),
        attack_size,
        NUM_MEMBERS,
        spread,
        ACCURACY,
    )
    return curve[-1]


def repurposed(params: Params, tasks: Task, rates: Any, spread: float, attack_size: float) -> Any:
    """As `plain`, with step sizes of USA unless `spread` is 0, and adversarial examples unless `attack_size` is 0."""
    number = len(tasks.support[1])
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + PART], tasks) for i in range(0, number, PART)]
    return jnp.stack(
        [jnp.concatenate([_repurposed(params, part, rate, spread, attack_size) for part in parts]) for rate in rates]
    )


def unadapted_factors(params: Params) -> Params:
    """USA's factors for many members that have not met a task: their disagreement is in proportion to |θ|."""
    return ml.repurpose.relative_step_sizes(jax.tree.map(lambda leaf: jnp.stack([0 * leaf, leaf]), params))


WAYS: dict[str, Callable[[Params, Task, Any], Any]] = {
    "plain": plain,
    "step sizes": lambda params, tasks, rates: repurposed(params, tasks, rates, SPREAD, 0.0),
    "examples": lambda params, tasks, rates: repurposed(params, tasks, rates, 0.0, ATTACK_SIZE),
    "both": lambda params, tasks, rates: repurposed(params, tasks, rates, SPREAD, ATTACK_SIZE),
    "unadapted": lambda params, tasks, rates: plain(params, tasks, rates, unadapted_factors(params)),
}
"""Plain adaptation, the parts of the paper's method, the method itself, and step sizes of members without a task."""


def curvature(params: Params, batch: Batch, num_products: int = 20) -> Any:
    """The largest eigenvalue of the Hessian of the loss, by power iteration with Hessian-vector products."""
    theta, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda theta: LOSS(unravel(theta), batch))

    def product(vector, _):
        image = jax.jvp(gradient, (theta,), (vector / jnp.linalg.norm(vector),))[1]
        return image, jnp.linalg.norm(image)

    return jax.lax.scan(product, gradient(theta), length=num_products)[1][-1]


curvatures = jax.jit(jax.vmap(curvature, (None, 0)))


# --- the whole record --------------------------------------------------------------------------------------------


def summary(values: Any) -> list[float]:
    """Mean and half of its 95 % interval."""
    score = ml.evaluate.score(np.nan_to_num(np.asarray(values)))
    return [round(score.mean, 4), round(score.half_width, 4)]


def run(settings: Settings, params: Params, bar: tqdm) -> dict[str, Any]:
    """Everything about one checkpoint."""
    validation = {domain: tasks_of(domain, settings.validation_tasks) for domain in DOMAINS}
    test = {domain: tasks_of(domain, settings.test_tasks, test=True) for domain in DOMAINS}
    sharp = {domain: np.asarray(curvatures(params, validation[domain].support)) for domain in DOMAINS}
    at_test = {domain: np.asarray(curvatures(params, test[domain].support)) for domain in DOMAINS}
    found: dict[str, Any] = {
        "curvature": {domain: rounded(np.median(values)) for domain, values in sharp.items()},
        "nearest": {domain: summary(draw_five.nearest(test[domain])) for domain in DOMAINS},
        "factors": [rounded(leaf) for leaf in jax.tree.leaves(unadapted_factors(params))],
        "ways": {},
    }
    before: dict[str, dict[str, np.ndarray]] = {}  # plain adaptation, with which the others are paired
    for way, adapt in WAYS.items():
        started, entry, scores = time.process_time(), {}, {}
        chosen_at_home = 0
        for domain in DOMAINS:
            bar.set_description(f"{way}, {domain}")
            curve = np.nan_to_num(np.asarray(adapt(params, validation[domain], jnp.array(RATES)))).mean(axis=1)
            chosen = int(curve.argmax())
            if domain == KNOWN:
                chosen_at_home = chosen
            rates = jnp.array([RATES[chosen], RATES[chosen_at_home]])
            scores[domain] = dict(zip(("own", "home"), np.asarray(adapt(params, test[domain], rates)), strict=True))
            entry[domain] = {
                "validation": rounded(curve),
                "rates": {"own": RATES[chosen], "home": RATES[chosen_at_home]},
                "test": {name: summary(one) for name, one in scores[domain].items()},
            }
            if way == "plain":  # the rate from home, divided by how much larger the task's curvature is
                scaled = RATES[chosen_at_home] * np.median(sharp[KNOWN]) / at_test[domain]
                scores[domain]["scaled"] = np.asarray(plain(params, test[domain], jnp.asarray(scaled)[None]))[0]
                entry[domain]["test"]["scaled"] = summary(scores[domain]["scaled"])
                before[domain] = scores[domain]
            entry[domain]["gain"] = {
                name: summary(np.nan_to_num(one) - np.nan_to_num(before[domain]["own" if name == "own" else "home"]))
                for name, one in scores[domain].items()
            }
            bar.update()
        found["ways"][way] = entry | {"minutes": round((time.process_time() - started) / 60, 2)}
        bar.write(f"{way}: " + ", ".join(f"{domain} {entry[domain]['test']}" for domain in DOMAINS))
    return found


def sweep(settings: Settings, params: Params) -> dict[str, list[float]]:
    """Accuracy of plain adaptation on the test tasks of each domain, at many learning rates."""
    tasks = {domain: tasks_of(domain, settings.test_tasks, test=True) for domain in DOMAINS}
    return {
        domain: rounded(np.nan_to_num(np.asarray(plain(params, tasks[domain], jnp.array(FINE)))).mean(axis=1))
        for domain in DOMAINS
    }


def main(settings: Settings = SETTINGS, to: Path = RECORD) -> None:
    """Run everything and write the record."""
    started = time.process_time()
    record: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "machine": machine(),
        "rates": FINE,
        "sweep": sweep(settings, pad_network()),
        "checkpoints": {},
    }
    makers = {"drawing pad": pad_network} | {
        f"learned head, seed {seed}": functools.partial(trained, settings, seed) for seed in settings.seeds
    }
    with tqdm(total=len(makers) * len(WAYS) * len(DOMAINS), mininterval=5) as bar:
        for name, make in makers.items():
            bar.write(name)
            record["checkpoints"][name] = run(settings, make(), bar)
            record["minutes"] = round((time.process_time() - started) / 60, 1)
            to.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    script(main)
