"""The long runs of lesson 07: six meta-gradients, tuned with equal effort, on sine curves and on few-shot digits.

    python -m metalearn.course.lessons.comparison      runs everything, about 40 minutes, and writes the record

Every run is a function of its settings and its seed. All methods get the same number of gradients, the same number of
configurations to choose from, and for each seed the same first network and the same sequence of tasks. Whether the
meta-gradient is clipped before Adam is one axis of every method's grid. What is chosen is chosen on validation tasks;
the test tasks are looked at once, with the configuration that was chosen.
"""

import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
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
from metalearn.course.process import machine, script, setup

RECORD = Path(__file__).with_name("comparison.json")
VALIDATION_TASKS, TEST_TASKS = 500, 1_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that was decided by hand.

    Attributes:
      seeds: of the reported runs.
      tuning_seed: of the runs that choose a configuration; none of the reported ones.
      num_steps: K inner steps, for all methods but "iMAML, K = 100".
      long_steps: K of "iMAML, K = 100", whose inner loops come closer to their minimum.
      cg_steps: of iMAML.
      perturbation: ν of FO-B-MAML, for both estimators.
      outer_rates: of Adam, the first axis of every method's tuning grid.
      max_norms: to which the norm of the meta-gradient is clipped before Adam, the last axis of every grid; None leaves
        it as it is.
      checkpoints: how often a run is scored on its way.
      timed_steps: outer steps of one run over which its time is measured.
      timings: how often.
      memory_steps: values of K at which the compiled memory is read.
      memory_channels: channels of `deep_mnist1d` at which it is read, with K = num_steps.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seed: int = 100
    num_steps: int = 10
    long_steps: int = 100
    cg_steps: int = 5
    perturbation: float = 0.05
    outer_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    max_norms: tuple[float | None, ...] = (None, 1.0)
    checkpoints: int = 8
    timed_steps: int = 100
    timings: int = 6
    memory_steps: tuple[int, ...] = (1, 5, 10, 20, 50)
    memory_channels: tuple[int, ...] = (25, 50, 100, 250)


SETTINGS = Settings()


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A task distribution with its network. Scores are errors: lower is better.

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
      inner_rates: of the methods without a proximal term, the second axis of their grid; also those of the common
        adaptation.
      strengths: λ of the methods with a proximal term, the second axis of theirs.
      proximal_rate: the inner learning rate of the methods with a proximal term.
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
    proximal_rate: float
    convolutional: bool = False

    def network(self, seed: int = 0) -> tuple[Any, Callable]:
        """(params, apply) of the network that a seed begins with."""
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
    """A sampler that draws from tasks drawn before, because shuffling the 500 examples of a class takes long."""

    distribution: Callable
    size: int = 5_000

    def __call__(self, key, num_tasks):
        """A batch of tasks."""
        chosen = jax.random.randint(key, (num_tasks,), 0, self.size)
        return jax.tree.map(lambda leaf: leaf[chosen], _pool(self))


@functools.cache
def _pool(pool):
    with jax.ensure_compile_time_eval():
        return jax.jit(pool.distribution, static_argnums=1)(jax.random.key(3), pool.size)


def sinusoid() -> Benchmark:
    """Regression on sine curves: ten support points, ten query points."""
    curves = ml.tasks.Sinusoid()
    return Benchmark(
        name="sinusoid",
        widths=(1, 40, 40, 1),
        train=curves,
        tuning_train=curves,
        validation=curves,
        test=curves,
        loss=ml.losses.mean_squared_error,
        score=ml.losses.mean_squared_error,
        meta_batch_size=5,
        gradients=90_000,
        inner_rates=(0.01, 0.02, 0.04),
        strengths=(1.0, 4.0, 16.0),
        proximal_rate=0.02,
    )


def mnist1d() -> Benchmark:
    """Three-way five-shot classification of signals; no test digit is a training digit.

    A tuning run trains on digits 0, 1, 2 and is validated on 3, 4, 5: unseen digits, and not those of the test.
    """
    episodes = functools.partial(ml.tasks.MNIST1D, num_ways=3, num_shots=5)
    return Benchmark(
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
        proximal_rate=0.1,
    )


def deep_mnist1d(channels: int) -> Benchmark:
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
    """A meta-gradient, and what a comparison must know about it.

    Attributes:
      build: (loss, settings, inner learning rate, λ) -> meta-gradient.
      own: the name of its own hyper-parameter: "α", "λ", or "outer" for a factor of the outer learning rate.
      gradients: (K, conjugate-gradient steps) -> its cost for one task.
    """

    build: Callable
    own: str
    gradients: Callable[[int, int], int]


def _unrolled(method):
    return lambda loss, settings, rate, strength: method(loss, optax.sgd(rate), settings.num_steps)


def _fo_b(estimator):
    return lambda loss, settings, rate, strength: ml.fo_b_maml(
        loss, optax.sgd(rate), settings.num_steps, strength, settings.perturbation, estimator
    )


def _imaml(loss, settings, rate, strength):
    return ml.imaml(loss, optax.sgd(rate), settings.num_steps, strength, settings.cg_steps)


def _reptile(loss, settings, rate, strength):
    """Reptile's displacement over αK, the mean of its inner gradients.

    Adam does not see the factor. Clipping does, and in this way the same norm means the same for all methods.
    """
    displacement = ml.reptile(loss, optax.sgd(rate), settings.num_steps)

    def meta_gradient(params, task):
        value, moved = displacement(params, task)
        return value, jax.tree.map(lambda leaf: leaf / (rate * settings.num_steps), moved)

    return meta_gradient


def _joined_reptile(loss, settings, rate, strength):
    """Reptile whose inner loop sees support and query examples as one set."""
    of_one_set = _reptile(loss, settings, rate, strength)

    def meta_gradient(params, task):
        joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), task.support, task.query)
        return of_one_set(params, ml.Task(joined, joined))

    return meta_gradient


def _joint(loss, settings, rate, strength):
    """The gradient without adaptation: the mean of support and query loss."""
    return jax.value_and_grad(lambda params, task: (loss(params, task.support) + loss(params, task.query)) / 2)


def _query_gradient(loss):
    return lambda params, task: jax.value_and_grad(loss)(params, task.query)


METHODS = {
    "MAML": Method(_unrolled(ml.maml), "α", lambda k, cg: 3 * k + 1),
    "FO-MAML": Method(_unrolled(ml.fo_maml), "α", lambda k, cg: k + 1),
    "Reptile": Method(_reptile, "α", lambda k, cg: k),
    "iMAML": Method(_imaml, "λ", lambda k, cg: k + 1 + 2 * cg),
    "FO-B-MAML forward": Method(_fo_b("forward"), "λ", lambda k, cg: 3 * k),
    "FO-B-MAML symmetric": Method(_fo_b("symmetric"), "λ", lambda k, cg: 4 * k),
}
"""The six. A Hessian-vector product counts as two gradients; an inner step on ν f + h as two, on h alone as one."""

VARIANTS = {
    "iMAML, K = 100": Method(_imaml, "λ", lambda k, cg: k + 1 + 2 * cg),
    "Reptile, joined": Method(_joined_reptile, "α", lambda k, cg: 2 * k),
}
"""One with longer inner loops, `long_steps`; one whose inner steps see the query examples too, and so cost two."""

BASELINES = {
    "fine-tuning": Method(_joint, "α", lambda k, cg: 2),
    "joint training": Method(_joint, "outer", lambda k, cg: 2),
}
"""Trained without adaptation: "fine-tuning" adapts to a new task all the same, "joint training" does not.

The latter has no hyper-parameter of its own. In its place stands a factor of the outer learning rate, so that it can
choose from nine of them.
"""

ROWS = METHODS | VARIANTS | BASELINES
OUTER_FACTORS = (0.03, 1.0, 30.0)

AS_PUBLISHED = "MAML, as published"
"""One more row, on sine curves only and not tuned: K, α and Adam are those of Finn et al. (2017), all else is ours."""


def steps_of(method: str, settings: Settings) -> Settings:
    """The same settings, with the K of a method that has another one."""
    own = {"iMAML, K = 100": settings.long_steps, AS_PUBLISHED: 1}
    return dataclasses.replace(settings, num_steps=own.get(method, settings.num_steps))


def kind_of(method: str) -> Method:
    """The meta-gradient of a row."""
    return ROWS["MAML" if method == AS_PUBLISHED else method]


# --- one run -----------------------------------------------------------------------------------------------------


class Configuration(NamedTuple):
    """One point of a grid, or arrays of them.

    Attributes:
      outer_rate: of Adam.
      own: α, λ or the factor, see Method.
      max_norm: of the meta-gradient, infinite where it is not clipped.
    """

    outer_rate: Any
    own: Any
    max_norm: Any


PUBLISHED = Configuration(outer_rate=1e-3, own=0.01, max_norm=math.inf)


class Runs(NamedTuple):
    """Several runs side by side; every array has a leading axis that counts them.

    Attributes:
      state: MetaState.
      seed: of the tasks and of the first network.
      configuration: with which it trains.
      failed: whether a batch of tasks had none that was finite.
      above_one: in how many outer steps the norm of the meta-gradient was above 1.
      moved: sum of the lengths of all outer steps.
    """

    state: ml.MetaState
    seed: jax.Array
    configuration: Configuration
    failed: jax.Array
    above_one: jax.Array
    moved: jax.Array


def learner_of(benchmark: Benchmark, method: str, settings: Settings, configuration: Configuration) -> ml.MetaLearner:
    """The learner of one configuration."""
    kind, settings = kind_of(method), steps_of(method, settings)
    outer_rate, own, max_norm = configuration
    rate, strength = (benchmark.proximal_rate, own) if kind.own == "λ" else (own, 0.0)
    adam = optax.adam(outer_rate * own if kind.own == "outer" else outer_rate)
    meta_gradient = kind.build(benchmark.loss(benchmark.network()[1]), settings, rate, strength)
    return ml.meta_learner(meta_gradient, optax.chain(optax.clip_by_global_norm(max_norm), adam))


def begin(
    benchmark: Benchmark, method: str, settings: Settings, seeds: Any, configurations: Sequence[Configuration]
) -> Runs:
    """Runs that have not taken a step, one for each seed and configuration."""
    first = [benchmark.network(int(seed))[0] for seed in seeds]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *first)
    columns = Configuration(*(jnp.asarray(column, float) for column in zip(*configurations, strict=True)))

    def one(params, configuration):
        return learner_of(benchmark, method, settings, configuration).init(params)

    none = jnp.zeros(len(seeds), int)
    return Runs(
        jax.vmap(one)(params, columns), jnp.asarray(seeds), columns, none.astype(bool), none, none.astype(float)
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def advance(benchmark: Benchmark, method: str, settings: Settings, tuning: bool, num_steps: int, runs: Runs) -> Runs:
    """The same runs, `num_steps` outer steps later."""
    sample = benchmark.tuning_train if tuning else benchmark.train

    def one(run):
        learner = learner_of(benchmark, method, settings, run.configuration)

        def step(_, run):
            state = run.state
            tasks = sample(jax.random.fold_in(jax.random.key(run.seed), state.step), benchmark.meta_batch_size)
            new, info = learner.step(state, tasks)
            return run._replace(
                state=new,
                failed=run.failed | ~info.finite.any(),
                above_one=run.above_one + (info.grad_norm > 1),
                moved=run.moved + optax.tree.norm(optax.tree.sub(new.params, state.params)),
            )

        return jax.lax.fori_loop(0, num_steps, step, run)

    return jax.vmap(one)(runs)


def score(benchmark: Benchmark, num_steps: int, params: Any, rate: Any, strength: Any, tasks: ml.Task) -> tuple:
    """(mean score over tasks after adaptation, norm of the inner gradient there relative to the first one).

    Args:
      benchmark: where.
      num_steps: K.
      params: the initializations, with a leading axis that counts runs.
      rate: inner learning rate of each run.
      strength: λ of each run's proximal term, 0 for none.
      tasks: a batch of tasks.

    Returns:
      Two arrays with one number for each run; the score of a run that diverged is infinite.
    """
    values, left = score_each(benchmark, num_steps, params, rate, strength, tasks)
    return values.mean(axis=-1), jnp.median(left, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def score_each(benchmark: Benchmark, num_steps: int, params: Any, rate: Any, strength: Any, tasks: ml.Task) -> tuple:
    """`score` with one number for each run and task, arrays of shape [runs, tasks]."""
    apply = benchmark.network()[1]
    loss, metric = benchmark.loss(apply), benchmark.score(apply)

    def one_task(params, rate, strength, task):
        objective = ml.inner.proximal(lambda phi: loss(phi, task.support), params, strength)
        adapted = ml.inner.descend(objective, optax.sgd(rate), num_steps, params) if num_steps else params
        left = optax.tree.norm(jax.grad(objective)(adapted)) / optax.tree.norm(jax.grad(objective)(params))
        value = jnp.where(jnp.isfinite(loss(adapted, task.query)), metric(adapted, task.query), jnp.inf)
        return value, left

    def one_run(params, rate, strength):
        return jax.lax.map(lambda task: one_task(params, rate, strength, task), tasks, batch_size=250)

    return jax.lax.map(lambda run: one_run(*run), (params, rate, strength))


def own_score(benchmark: Benchmark, method: str, settings: Settings, runs: Runs, tasks: ml.Task) -> tuple:
    """`score` with the adaptation that the method was trained for."""
    values, left = own_score_each(benchmark, method, settings, runs, tasks)
    return values.mean(axis=-1), jnp.median(left, axis=-1)


def own_score_each(benchmark: Benchmark, method: str, settings: Settings, runs: Runs, tasks: ml.Task) -> tuple:
    """`own_score` with one number for each run and task."""
    kind, own = kind_of(method).own, runs.configuration.own
    none = jnp.zeros_like(own)
    rate, strength = (none + benchmark.proximal_rate, own) if kind == "λ" else (own, none)
    num_steps = 0 if kind == "outer" else steps_of(method, settings).num_steps
    values, left = score_each(benchmark, num_steps, runs.state.params, rate, strength, tasks)
    return jnp.where(runs.failed[:, None], jnp.inf, values), left


def outer_steps(benchmark: Benchmark, method: str, settings: Settings) -> int:
    """How many outer steps the budget pays for, a multiple of the number of checkpoints."""
    settings = steps_of(method, settings)
    each = kind_of(method).gradients(settings.num_steps, settings.cg_steps)
    return benchmark.gradients // each // settings.checkpoints * settings.checkpoints


def low_median_high(scores: Any) -> np.ndarray:
    """The lowest, the median and the highest over seeds, the leading axis; None, a run that diverged, is infinite."""
    scores = np.array(scores, float)  # None becomes NaN
    scores[np.isnan(scores)] = np.inf
    return np.array([scores.min(axis=0), np.median(scores, axis=0), scores.max(axis=0)])


# --- the whole record --------------------------------------------------------------------------------------------


def grid(benchmark: Benchmark, method: str, settings: Settings) -> list[Configuration]:
    """All configurations of a method: eighteen for each."""
    own = {"α": benchmark.inner_rates, "λ": benchmark.strengths, "outer": OUTER_FACTORS}[ROWS[method].own]
    norms = [math.inf if norm is None else norm for norm in settings.max_norms]
    return [Configuration(*point) for point in itertools.product(settings.outer_rates, own, norms)]


def grid_shape(benchmark: Benchmark, settings: Settings) -> tuple[int, int, int]:
    """Of the grid: outer learning rates, own hyper-parameters, clipping."""
    return len(settings.outer_rates), len(benchmark.inner_rates), len(settings.max_norms)


def tune(benchmark: Benchmark, method: str, settings: Settings, bar: tqdm) -> np.ndarray:
    """The validation scores of all configurations, trained side by side."""
    configurations = grid(benchmark, method, settings)
    runs = begin(benchmark, method, settings, [settings.tuning_seed] * len(configurations), configurations)
    count = outer_steps(benchmark, method, settings) // settings.checkpoints
    for _ in range(settings.checkpoints):
        runs = jax.block_until_ready(advance(benchmark, method, settings, True, count, runs))
        bar.update(len(configurations))
    return np.asarray(own_score(benchmark, method, settings, runs, benchmark.validation_tasks())[0], float)


def report(benchmark: Benchmark, method: str, settings: Settings, chosen: Configuration, bar: tqdm) -> dict:
    """A configuration on every seed: scores on the way, and at the end with the common adaptation as well."""
    seeds = list(settings.seeds)
    runs = begin(benchmark, method, settings, seeds, [chosen] * len(seeds))
    count = outer_steps(benchmark, method, settings) // settings.checkpoints
    curve, left = [], np.zeros(0)
    for _ in range(settings.checkpoints):
        runs = jax.block_until_ready(advance(benchmark, method, settings, False, count, runs))
        values, left = own_score(benchmark, method, settings, runs, benchmark.test_tasks())
        curve.append(values)
        bar.update(len(seeds))

    def common(rate, tasks):
        each = jnp.full(len(seeds), rate)
        return np.asarray(score(benchmark, settings.num_steps, runs.state.params, each, 0 * each, tasks)[0], float)

    validated = [float(np.median(common(rate, benchmark.validation_tasks()))) for rate in benchmark.inner_rates]
    common_rate = benchmark.inner_rates[int(np.argmin(validated))]
    return {
        "outer_rate": chosen.outer_rate,
        "own": chosen.own,
        "max_norm": rounded(chosen.max_norm),
        "outer_steps": outer_steps(benchmark, method, settings),
        "curve": rounded(np.stack(curve, axis=1)),
        "above_one": rounded(runs.above_one / (count * settings.checkpoints)),
        "inner_gradient_left": rounded(left),
        "common_rate": common_rate,
        "common": rounded(common(common_rate, benchmark.test_tasks())),
    }


def measure_time(benchmark: Benchmark, found: dict, settings: Settings) -> None:
    """Adds to each method's entry the milliseconds of an outer step of one run alone.

    The methods are timed in turns, and of several times the fastest counts: what else the machine does falls on all.
    """
    runs = {method: begin(benchmark, method, settings, [0], [configuration(entry)]) for method, entry in found.items()}
    fastest = dict.fromkeys(found, float("inf"))
    for turn in range(settings.timings + 1):
        for method in found:
            start = time.perf_counter()
            jax.block_until_ready(advance(benchmark, method, settings, False, settings.timed_steps, runs[method]))
            if turn:  # the first one compiles
                fastest[method] = min(fastest[method], time.perf_counter() - start)
    for method, entry in found.items():
        entry["milliseconds"] = rounded(1e3 * fastest[method] / settings.timed_steps)


def configuration(entry: dict) -> Configuration:
    """The chosen configuration of a method's entry in the record."""
    return Configuration(
        entry["outer_rate"], entry["own"], math.inf if entry["max_norm"] is None else entry["max_norm"]
    )


SMOOTHING = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
FEATURES = ("signal", "signal of norm 1", "magnitudes of its Fourier transform")


def nearest_mean_error(features: str, smoothing: float, tasks: ml.Task) -> float:
    """Mean error rate over tasks of the nearest class mean, in features of smoothed signals. Nothing is trained.

    Args:
      features: one of FEATURES; a shift of the signal does not change the last.
      smoothing: width of the Gaussian kernel with which signals are smoothed, in samples; 0 leaves them as they are.
      tasks: a batch of classification tasks of signals.
    """
    (support, labels), (query, truth) = (tuple(map(np.asarray, part)) for part in tasks)

    def of(signals):
        if smoothing:
            distance = np.subtract.outer(*2 * [np.arange(signals.shape[-1])])
            kernel = np.exp(-0.5 * (distance / smoothing) ** 2)
            signals = signals @ (kernel / kernel.sum(axis=0))
        if features == FEATURES[1]:
            signals = signals / np.linalg.norm(signals, axis=-1, keepdims=True)
        return np.abs(np.fft.rfft(signals)) if features == FEATURES[2] else signals

    num_ways = labels.max() + 1
    members = labels[:, None] == np.arange(num_ways)[:, None]  # [task, way, example]
    means = np.einsum("twe,tef->twf", members / members.sum(-1, keepdims=True), of(support))
    distances = np.linalg.norm(of(query)[:, :, None] - means[:, None], axis=-1)
    return float((distances.argmin(-1) != truth).mean())


def nearest_mean(benchmark: Benchmark) -> dict:
    """The baseline's entry: as many configurations as for every method, chosen on the same validation tasks."""
    points = list(itertools.product(FEATURES, SMOOTHING))
    validation = [nearest_mean_error(*point, benchmark.validation_tasks()) for point in points]
    features, smoothing = points[int(np.argmin(validation))]
    error = nearest_mean_error(features, smoothing, benchmark.test_tasks())
    return {"validation": rounded(validation), "features": features, "smoothing": smoothing, "error": rounded(error)}


def memory(benchmark: Benchmark, method: str, settings: Settings, num_steps: int) -> int:
    """Bytes of scratch memory of one task's meta-gradient with K = num_steps, as the compiler planned it.

    Beside the six methods, `method` may be "MAML, rematerialized", or "one gradient" of the query loss as a yardstick.
    """
    settings = dataclasses.replace(settings, num_steps=num_steps)
    params, apply = benchmark.network()
    loss, rate = benchmark.loss(apply), benchmark.proximal_rate
    if method == "MAML, rematerialized":
        meta_gradient = ml.maml(loss, optax.sgd(rate), num_steps, remat=True)
    elif method == "one gradient":
        meta_gradient = _query_gradient(loss)
    else:
        meta_gradient = METHODS[method].build(loss, settings, rate, benchmark.strengths[1])
    sample = benchmark.train.distribution if isinstance(benchmark.train, Pool) else benchmark.train
    one_task = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], sample(jax.random.key(0), 1)))
    return scratch_bytes(meta_gradient, params, one_task)


def memory_by_channels(settings: Settings) -> dict[str, list[int]]:
    """Bytes of every method, and of one gradient, at each of `memory_channels`."""
    benchmarks = [deep_mnist1d(channels) for channels in settings.memory_channels]
    names = (*METHODS, "MAML, rematerialized", "one gradient")
    return {name: [memory(benchmark, name, settings, settings.num_steps) for benchmark in benchmarks] for name in names}


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


def run(benchmark: Benchmark, settings: Settings, bar: tqdm) -> dict:
    """Everything about one task distribution."""
    found = {}
    for method in ROWS:
        bar.set_description(f"{benchmark.name}, {method}")
        validation = tune(benchmark, method, settings, bar)
        chosen = grid(benchmark, method, settings)[int(np.argmin(validation))]
        found[method] = {
            "validation": rounded(validation.reshape(grid_shape(benchmark, settings))),
            **report(benchmark, method, settings, chosen, bar),
        }
        best, last = float(validation.min()), [curve[-1] for curve in found[method]["curve"]]
        bar.write(f"{benchmark.name}, {method}: {chosen}, validation {best:.4g}, test {last}")
    measure_time(benchmark, found, settings)
    if benchmark.name == "sinusoid":
        found[AS_PUBLISHED] = report(benchmark, AS_PUBLISHED, settings, PUBLISHED, bar)
    return found


def main(settings: Settings = SETTINGS) -> None:
    """Run everything and write the record."""
    benchmarks = (sinusoid(), mnist1d())
    digits, names = benchmarks[1], [*METHODS, "MAML, rematerialized"]
    started = time.perf_counter()
    record: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "machine": machine(),
        "nearest_mean": nearest_mean(digits),
        "memory_bytes": {name: [memory(digits, name, settings, k) for k in settings.memory_steps] for name in names},
        "memory_bytes_by_channels": memory_by_channels(settings),
    }
    configurations = math.prod(grid_shape(benchmarks[0], settings))
    each = settings.checkpoints * (configurations + len(settings.seeds))
    total = len(benchmarks) * len(ROWS) * each + settings.checkpoints * len(settings.seeds)  # the last as published
    with tqdm(total=total, mininterval=1) as bar:
        record |= {benchmark.name: run(benchmark, settings, bar) for benchmark in benchmarks}
    record["minutes"] = round((time.perf_counter() - started) / 60, 1)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    setup()  # as in the lesson, which runs one of these runs again
    script(main)
