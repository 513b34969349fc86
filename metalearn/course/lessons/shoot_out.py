"""The long runs of lesson 07: six meta-gradients, tuned alike, on sine curves and on few-shot classification.

    python -m metalearn.course.lessons.shoot_out      runs everything, about a quarter of an hour, and writes the record

Every run is a function of its settings and its seed. All methods get the same number of gradients, the same number of
configurations to be tuned over, and for each seed the same first network and the same sequence of tasks. What is chosen
is chosen on validation tasks; the test tasks are looked at once, with the configuration that was chosen.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval
from tqdm import tqdm

import metalearn as ml
from metalearn.course.process import setup

RECORD = Path(__file__).with_name("shoot_out.json")
VALIDATION_TASKS, TEST_TASKS = 500, 1_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that was decided by hand.

    Attributes:
      seeds: of the reported runs.
      tuning_seed: of the runs that choose a configuration; none of the reported ones.
      num_steps: K inner steps, for all methods.
      cg_steps: of iMAML.
      perturbation: nu of FO-B-MAML, for both estimators.
      outer_rates: of Adam, the first axis of every method's tuning grid.
      checkpoints: how often a run is scored on its way.
      timed_steps: outer steps of one run over which its time is measured.
      timings: how often.
      memory_steps: values of K at which the compiled memory is read.
      memory_channels: channels of `deep_mnist1d` at which it is read, with K = num_steps.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seed: int = 100
    num_steps: int = 10
    cg_steps: int = 5
    perturbation: float = 0.05
    outer_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    checkpoints: int = 8
    timed_steps: int = 100
    timings: int = 8
    memory_steps: tuple[int, ...] = (1, 5, 10, 20, 50)
    memory_channels: tuple[int, ...] = (25, 50, 100, 250)


SETTINGS = Settings()


@dataclasses.dataclass(frozen=True)
class Arena:
    """A family of tasks with its network. Scores are errors: lower is better.

    Attributes:
      name: key in the record.
      widths: of the network's layers, tanh between them; channels where the layers are convolutions.
      train: (key, n) -> tasks of the reported runs.
      tuning_train: (key, n) -> tasks of the tuning runs.
      validation: (key, n) -> tasks on which configurations are chosen.
      test: (key, n) -> tasks for the report.
      loss: of (params, batch), made from the network.
      score: of (params, batch), made from the network; what is reported.
      meta_batch_size: tasks per outer step.
      gradients: each run's budget, in gradients per task of the batch.
      inner_rates: of the methods that walk freely, the second axis of their grid; also those of the common rule.
      strengths: lambda of the methods with a spring, the second axis of theirs.
      spring_rate: the inner step of the methods with a spring.
      convolutional: whether the network is `convolutions`.
    """

    name: str
    widths: tuple[int, ...]
    train: Callable
    tuning_train: Callable
    validation: Callable
    test: Callable
    loss: Callable
    score: Callable
    meta_batch_size: int
    gradients: int
    inner_rates: tuple[float, ...]
    strengths: tuple[float, ...]
    spring_rate: float
    convolutional: bool = False

    def network(self, seed: int = 0) -> tuple[Any, Callable]:
        """(params, apply) of the network that a seed starts from."""
        rngs = nnx.Rngs(seed)
        if self.convolutional:
            return ml.models.functional(convolutions(self.widths, rngs))
        return ml.models.functional(ml.models.MLP(self.widths, activation=jnp.tanh, rngs=rngs))

    def validation_tasks(self) -> ml.Task:
        """The batch on which every choice is made."""
        return self.validation(jax.random.key(1), VALIDATION_TASKS)

    def test_tasks(self) -> ml.Task:
        """The batch of the report."""
        return self.test(jax.random.key(2), TEST_TASKS)


def convolutions(widths: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Module:
    """Convolutions of three points with tanh, the mean over the signal, and a linear layer.

    No stride and no pooling: every output is as long as the signal.

    Args:
      widths: channels of the signal, of each convolution, and the number of logits.
      rngs: for the initial weights.

    Returns:
      A module: signals [num_examples, length] of one channel -> logits [num_examples, widths[-1]].
    """
    layers: list[Callable] = [lambda signals: signals[..., None]]
    for width_in, width_out in itertools.pairwise(widths[:-1]):
        layers += [nnx.Conv(width_in, width_out, (3,), rngs=rngs), jnp.tanh]
    return nnx.Sequential(*layers, lambda outputs: outputs.mean(axis=-2), nnx.Linear(*widths[-2:], rngs=rngs))


def error_rate(apply: Callable) -> Callable:
    """Fraction of examples whose largest logit is not the label's."""
    accuracy = ml.losses.accuracy(apply)
    return lambda params, batch: 1 - accuracy(params, batch)


@dataclasses.dataclass(frozen=True)
class Pool:
    """A sampler that draws from tasks drawn before: shuffling a class's 500 examples for every task takes long."""

    family: Callable
    size: int = 5_000

    def __call__(self, key, num_tasks):
        """A batch of tasks."""
        chosen = jax.random.randint(key, (num_tasks,), 0, self.size)
        return jax.tree.map(lambda leaf: leaf[chosen], _pool(self))


@functools.cache
def _pool(pool):
    with jax.ensure_compile_time_eval():
        return jax.jit(pool.family, static_argnums=1)(jax.random.key(3), pool.size)


def sinusoid() -> Arena:
    """Regression on sine curves: ten support points, ten query points."""
    family = ml.tasks.Sinusoid()
    return Arena(
        name="sinusoid",
        widths=(1, 40, 40, 1),
        train=family,
        tuning_train=family,
        validation=family,
        test=family,
        loss=ml.losses.mean_squared_error,
        score=ml.losses.mean_squared_error,
        meta_batch_size=5,
        gradients=90_000,
        inner_rates=(0.01, 0.02, 0.04),
        strengths=(1.0, 4.0, 16.0),
        spring_rate=0.02,
    )


def mnist1d() -> Arena:
    """Three-way five-shot classification of signals; no test digit is a training digit.

    A tuning run trains on digits 0, 1, 2 and is validated on 3, 4, 5: unseen digits, and not those of the test.
    """
    episodes = functools.partial(ml.tasks.MNIST1D, num_ways=3, num_shots=5)
    return Arena(
        name="mnist1d",
        widths=(ml.tasks.mnist1d.SIGNAL_LENGTH, 64, 64, 3),
        train=Pool(episodes(num_query=5)),
        tuning_train=Pool(episodes(num_query=5, digits=(0, 1, 2))),
        validation=episodes(num_query=15, digits=(3, 4, 5)),
        test=episodes(num_query=15, digits=ml.tasks.mnist1d.TEST_DIGITS),
        loss=ml.losses.cross_entropy,
        score=error_rate,
        meta_batch_size=4,
        gradients=30_000,
        inner_rates=(0.03, 0.1, 0.3),
        strengths=(0.1, 0.5, 2.0),
        spring_rate=0.1,
    )


def deep_mnist1d(channels: int) -> Arena:
    """Five-way five-shot classification of signals with four convolutions, for its memory: nothing is trained on it.

    With fifteen query examples a class, a task has 25 support and 75 query signals.
    """
    return dataclasses.replace(
        mnist1d(),
        name="deep_mnist1d",
        widths=(1, *4 * (channels,), 5),
        train=ml.tasks.MNIST1D(num_ways=5, num_shots=5, num_query=15),
        convolutional=True,
    )


class Method(NamedTuple):
    """One of the six.

    Attributes:
      build: (loss, settings, inner rate, lambda) -> meta-gradient.
      spring: whether it adapts with a spring to the start; its own hyper-parameter is then lambda.
      gradients: (K, conjugate-gradient steps) -> its cost for one task.
    """

    build: Callable
    spring: bool
    gradients: Callable[[int, int], int]


def _free(method):
    return lambda loss, settings, rate, strength: method(loss, optax.sgd(rate), settings.num_steps)


def _fo_b(estimator):
    return lambda loss, settings, rate, strength: ml.fo_b_maml(
        loss, optax.sgd(rate), settings.num_steps, strength, settings.perturbation, estimator
    )


def _query_gradient(loss):
    return lambda params, task: jax.value_and_grad(loss)(params, task.query)


METHODS = {
    "MAML": Method(_free(ml.maml), False, lambda k, cg: 3 * k + 1),
    "FO-MAML": Method(_free(ml.fo_maml), False, lambda k, cg: k + 1),
    "Reptile": Method(_free(ml.reptile), False, lambda k, cg: k),
    "iMAML": Method(
        lambda loss, settings, rate, strength: ml.imaml(
            loss, optax.sgd(rate), settings.num_steps, strength, settings.cg_steps
        ),
        True,
        lambda k, cg: k + 1 + 2 * cg,
    ),
    "FO-B-MAML forward": Method(_fo_b("forward"), True, lambda k, cg: 3 * k),
    "FO-B-MAML symmetric": Method(_fo_b("symmetric"), True, lambda k, cg: 4 * k),
}
"""A Hessian-vector product counts as two gradients; an inner step on nu f + h as two, on h alone as one."""


# --- one run -----------------------------------------------------------------------------------------------------


class Runs(NamedTuple):
    """Several runs side by side; every array has a leading axis that counts them.

    Attributes:
      state: MetaState.
      seed: of the tasks and of the first network.
      outer_rate: of Adam.
      own: the inner rate, or lambda of the methods with a spring.
      failed: whether a batch of tasks had no finite one.
    """

    state: ml.MetaState
    seed: jax.Array
    outer_rate: jax.Array
    own: jax.Array
    failed: jax.Array


def learner_of(arena: Arena, method: str, settings: Settings, outer_rate: Any, own: Any) -> ml.MetaLearner:
    """The learner of one configuration."""
    loss = arena.loss(arena.network()[1])
    rate, strength = (arena.spring_rate, own) if METHODS[method].spring else (own, 0.0)
    return ml.meta_learner(METHODS[method].build(loss, settings, rate, strength), optax.adam(outer_rate))


def begin(arena: Arena, method: str, settings: Settings, seeds: Any, outer_rates: Any, owns: Any) -> Runs:
    """Runs that have not taken a step."""
    starts = [arena.network(int(seed))[0] for seed in seeds]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    seeds, outer_rates, owns = jnp.asarray(seeds), jnp.asarray(outer_rates, float), jnp.asarray(owns, float)

    def one(params, outer_rate, own):
        return learner_of(arena, method, settings, outer_rate, own).init(params)

    return Runs(jax.vmap(one)(params, outer_rates, owns), seeds, outer_rates, owns, jnp.zeros(len(seeds), bool))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def advance(arena: Arena, method: str, settings: Settings, tuning: bool, num_steps: int, runs: Runs) -> Runs:
    """The same runs, `num_steps` outer steps later."""
    sample = arena.tuning_train if tuning else arena.train

    def one(run):
        learner = learner_of(arena, method, settings, run.outer_rate, run.own)

        def step(carry, _):
            state, failed = carry
            tasks = sample(jax.random.fold_in(jax.random.key(run.seed), state.step), arena.meta_batch_size)
            state, info = learner.step(state, tasks)
            return (state, failed | ~info.finite.any()), None

        (state, failed), _ = jax.lax.scan(step, (run.state, run.failed), length=num_steps)
        return run._replace(state=state, failed=failed)

    return jax.vmap(one)(runs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def score(arena: Arena, num_steps: int, params: Any, rate: Any, strength: Any, tasks: ml.Task) -> tuple:
    """(mean score over tasks after adaptation, length of the inner gradient there relative to that at the start).

    Args:
      arena: where.
      num_steps: K.
      params: the starts, with a leading axis that counts runs.
      rate: inner step of each run.
      strength: lambda of each run's spring, 0 for none.
      tasks: a batch of tasks.

    Returns:
      Two arrays with one number for each run; the score of a run that diverged is infinite.
    """
    apply = arena.network()[1]
    loss, metric = arena.loss(apply), arena.score(apply)

    def one_task(params, rate, strength, task):
        objective = ml.inner.proximal(lambda phi: loss(phi, task.support), params, strength)
        adapted = ml.inner.descend(objective, optax.sgd(rate), num_steps, params)
        left = optax.tree.norm(jax.grad(objective)(adapted)) / optax.tree.norm(jax.grad(objective)(params))
        value = jnp.where(jnp.isfinite(loss(adapted, task.query)), metric(adapted, task.query), jnp.inf)
        return value, left

    def one_run(params, rate, strength):
        values, left = jax.lax.map(lambda task: one_task(params, rate, strength, task), tasks, batch_size=250)
        return values.mean(), jnp.median(left)

    return jax.lax.map(lambda run: one_run(*run), (params, rate, strength))


def own_score(arena: Arena, method: str, settings: Settings, runs: Runs, tasks: ml.Task) -> tuple:
    """`score` with the rule of adaptation that the method was trained for."""
    if METHODS[method].spring:
        rate, strength = jnp.full_like(runs.own, arena.spring_rate), runs.own
    else:
        rate, strength = runs.own, jnp.zeros_like(runs.own)
    values, left = score(arena, settings.num_steps, runs.state.params, rate, strength, tasks)
    return jnp.where(runs.failed, jnp.inf, values), left


def outer_steps(arena: Arena, method: str, settings: Settings) -> int:
    """How many outer steps the budget of gradients pays for, a multiple of the number of checkpoints."""
    each = METHODS[method].gradients(settings.num_steps, settings.cg_steps)
    return arena.gradients // each // settings.checkpoints * settings.checkpoints


def low_median_high(scores: Any) -> np.ndarray:
    """The lowest, the median and the highest over seeds, the leading axis; None, a run that diverged, is infinite."""
    scores = np.array(scores, float)  # None becomes NaN
    scores[np.isnan(scores)] = np.inf
    return np.array([scores.min(axis=0), np.median(scores, axis=0), scores.max(axis=0)])


def error_and_angle(estimates: Any, exact: Any) -> np.ndarray:
    """Relative error of the mean gradient over tasks, and its angle to the exact mean in degrees.

    Args:
      estimates: a pytree; every leaf has a leading axis that counts tasks.
      exact: a pytree like it.

    Returns:
      An array of shape [2]; all parameters together are one vector.
    """
    found, target = (
        np.concatenate([np.ravel(np.mean(leaf, axis=0)) for leaf in jax.tree.leaves(tree)])
        for tree in (estimates, exact)
    )
    lengths = np.linalg.norm(found), np.linalg.norm(target)
    cosine = np.clip(found @ target / (lengths[0] * lengths[1]), -1, 1)
    return np.array([np.linalg.norm(found - target) / lengths[1], np.degrees(np.arccos(cosine))])


# --- the whole record --------------------------------------------------------------------------------------------


def grid(arena: Arena, method: str, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """(outer rates, own hyper-parameters) of all configurations."""
    own_values = arena.strengths if METHODS[method].spring else arena.inner_rates
    rates, owns = np.meshgrid(settings.outer_rates, own_values, indexing="ij")
    return rates.ravel(), owns.ravel()


def tune(arena: Arena, method: str, settings: Settings, bar: tqdm) -> tuple[Runs, np.ndarray]:
    """All configurations, trained side by side, and their validation scores."""
    rates, owns = grid(arena, method, settings)
    runs = begin(arena, method, settings, [settings.tuning_seed] * len(rates), rates, owns)
    count = outer_steps(arena, method, settings) // settings.checkpoints
    for _ in range(settings.checkpoints):
        runs = jax.block_until_ready(advance(arena, method, settings, True, count, runs))
        bar.update(len(rates))
    return runs, np.asarray(own_score(arena, method, settings, runs, arena.validation_tasks())[0], float)


def report(arena: Arena, method: str, settings: Settings, chosen: tuple[float, float], bar: tqdm) -> dict:
    """The chosen configuration on every seed: scores along the way and, at the end, with the common rule as well."""
    seeds = list(settings.seeds)
    runs = begin(arena, method, settings, seeds, [chosen[0]] * len(seeds), [chosen[1]] * len(seeds))
    count = outer_steps(arena, method, settings) // settings.checkpoints
    curve, left = [], np.zeros(0)
    for _ in range(settings.checkpoints):
        runs = jax.block_until_ready(advance(arena, method, settings, False, count, runs))
        values, left = own_score(arena, method, settings, runs, arena.test_tasks())
        curve.append(values)
        bar.update(len(seeds))

    def common(rate, tasks):
        each = jnp.full(len(seeds), rate)
        return np.asarray(score(arena, settings.num_steps, runs.state.params, each, 0 * each, tasks)[0], float)

    validated = [float(np.median(common(rate, arena.validation_tasks()))) for rate in arena.inner_rates]
    common_rate = arena.inner_rates[int(np.argmin(validated))]
    return {
        "curve": rounded(np.stack(curve, axis=1)),
        "inner_gradient_left": rounded(left),
        "common_rate": common_rate,
        "common": rounded(common(common_rate, arena.test_tasks())),
    }


def measure_time(arena: Arena, found: dict, settings: Settings) -> None:
    """Adds to each method's entry the milliseconds of an outer step of one run alone.

    The methods are timed in turns, and of several times the fastest counts: what else the machine does falls on all.
    """
    runs = {m: begin(arena, m, settings, [0], [entry["outer_rate"]], [entry["own"]]) for m, entry in found.items()}
    fastest = dict.fromkeys(found, float("inf"))
    for turn in range(settings.timings + 1):
        for method in found:
            start = time.perf_counter()
            jax.block_until_ready(advance(arena, method, settings, False, settings.timed_steps, runs[method]))
            if turn:  # the first one compiles
                fastest[method] = min(fastest[method], time.perf_counter() - start)
    for method, entry in found.items():
        entry["milliseconds"] = rounded(1e3 * fastest[method] / settings.timed_steps)


def memory(arena: Arena, method: str, settings: Settings, num_steps: int) -> int:
    """Bytes of scratch memory of one task's meta-gradient with K = num_steps, as the compiler planned it.

    Beside the six methods, `method` may be "MAML, rematerialised", or "one gradient" of the query loss as a yardstick.
    """
    settings = dataclasses.replace(settings, num_steps=num_steps)
    params, apply = arena.network()
    loss, rate = arena.loss(apply), arena.spring_rate
    if method == "MAML, rematerialised":
        meta_gradient = ml.maml(loss, optax.sgd(rate), num_steps, remat=True)
    elif method == "one gradient":
        meta_gradient = _query_gradient(loss)
    else:
        meta_gradient = METHODS[method].build(loss, settings, rate, arena.strengths[1])
    family = arena.train.family if isinstance(arena.train, Pool) else arena.train
    one_task = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], family(jax.random.key(0), 1)))
    return scratch_bytes(meta_gradient, params, one_task)


def memory_by_channels(settings: Settings) -> dict[str, list[int]]:
    """Bytes of every method, and of one gradient, at each of `memory_channels`."""
    arenas = [deep_mnist1d(channels) for channels in settings.memory_channels]
    names = (*METHODS, "MAML, rematerialised", "one gradient")
    return {name: [memory(arena, name, settings, settings.num_steps) for arena in arenas] for name in names}


def scratch_bytes(meta_gradient: Callable, params: Any, task: ml.Task) -> int:
    """What the compiled function needs besides its arguments and results; shapes in place of arrays will do."""
    analysis: Any = jax.jit(meta_gradient).lower(params, task).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def multiplications(function: Callable, *args: Any, while_steps: int = 1) -> int:
    """How many numbers are multiplied in the matrix products that function(*args) asks for.

    Loops count as often as they run. Of a loop whose length is not known beforehand, as in conjugate gradients, it must
    be told. What the result does not depend on is left out.
    """

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            name, params = equation.primitive.name, equation.params
            if name == "dot_general":
                (contracted, _), _ = params["dimension_numbers"]
                lengths = [equation.invars[0].aval.shape[axis] for axis in contracted]
                total += math.prod(equation.outvars[0].aval.shape) * math.prod(lengths)
            times = {"scan": params.get("length"), "while": while_steps}.get(name, 1)
            # A linear solve carries more programs, for its derivatives.
            inner = [params["jaxprs"].solve.jaxpr] if name == "custom_linear_solve" else jaxprs_in_params(params)
            total += times * sum(map(count, inner))
        return total

    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return count(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def rounded(values: Any) -> Any:
    """As nested lists of five digits; infinity, which JSON does not know, as None."""
    if np.ndim(values):
        return [rounded(value) for value in values]
    return float(f"{float(values):.5g}") if np.isfinite(values) else None


def run_arena(arena: Arena, settings: Settings, bar: tqdm) -> dict:
    """Everything about one family."""
    found = {}
    for method in METHODS:
        bar.set_description(f"{arena.name}, {method}")
        runs, validation = tune(arena, method, settings, bar)
        best = int(np.argmin(validation))
        chosen = float(runs.outer_rate[best]), float(runs.own[best])
        found[method] = {
            "validation": rounded(validation.reshape(len(settings.outer_rates), -1)),
            "outer_rate": rounded(chosen[0]),
            "own": rounded(chosen[1]),
            "outer_steps": outer_steps(arena, method, settings),
            **report(arena, method, settings, chosen, bar),
        }
    measure_time(arena, found, settings)
    return found


def main(settings: Settings = SETTINGS) -> None:
    """Run everything and write the record."""
    arenas = (sinusoid(), mnist1d())
    started = time.perf_counter()
    per_method = settings.checkpoints * (len(grid(arenas[0], "MAML", settings)[0]) + len(settings.seeds))
    with tqdm(total=len(arenas) * len(METHODS) * per_method, mininterval=1) as bar:
        found = {arena.name: run_arena(arena, settings, bar) for arena in arenas}
    names = [*METHODS, "MAML, rematerialised"]
    record = {
        "settings": dataclasses.asdict(settings),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}",
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "memory_bytes": {name: [memory(arenas[1], name, settings, k) for k in settings.memory_steps] for name in names},
        "memory_bytes_by_channels": memory_by_channels(settings),
        **found,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def command(arguments: list[str] | None = None) -> None:
    """The command line. It has no options: settings are in `SETTINGS`, so that the record follows from this file."""
    parser = argparse.ArgumentParser(prog="python -m metalearn.course.lessons.shoot_out", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(arguments)
    setup()  # as in the lesson, which runs one of these runs again
    main()


if __name__ == "__main__":
    command()
