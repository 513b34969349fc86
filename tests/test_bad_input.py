"""Bad input: every mistake gets an error that names the argument and says what would be right."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from problems import METHODS, assert_clear_error, build

import metalearn as ml
from metalearn import Task

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
family = ml.tasks.Quadratic(dim=2)
loss = family.loss
START = jnp.zeros(2)


PARABOLAS = Task(*[ml.tasks.QuadraticBatch(np.stack([np.eye(2)] * 2), np.ones((2, 2)))] * 2)


def fake_tasks(*num_tasks, num_query=3):
    """A batch of regression tasks whose support leaves have those leading axes."""
    x, y = (jnp.ones((n, 3, 1)) for n in num_tasks)
    return Task((x, y), (jnp.ones((num_tasks[0], num_query, 1)),) * 2)


def line_loss(params, batch):
    x, y = batch
    return jnp.mean((params[0] + params[1] * x - y) ** 2)


def maml(loss=loss, inner=SGD, num_steps=1):
    return ml.maml(loss, inner, num_steps)


def imaml(loss=loss, inner=SGD, num_steps=5, proximal_strength=1.0, cg_steps=2):
    return ml.imaml(loss, inner, num_steps, proximal_strength, cg_steps)


def fo_b_maml(loss=loss, inner=SGD, num_steps=5, proximal_strength=1.0, perturbation=0.1, estimator="symmetric"):
    return ml.fo_b_maml(loss, inner, num_steps, proximal_strength, perturbation, estimator)


def step(params=START, tasks=None, meta_gradient=None):
    learner = ml.meta_learner(meta_gradient or maml(line_loss), SGD)
    return learner.step(learner.init(params), fake_tasks(2, 2) if tasks is None else tasks)


def fit(learner=None, params=START, tasks=family, num_steps=3, meta_batch_size=2, key=KEY):
    return ml.fit(learner or ml.meta_learner(maml(), SGD), params, tasks, num_steps, meta_batch_size, key, False)


def curve(loss=line_loss, inner=SGD, params=START, tasks=None, num_steps=1):
    tasks = fake_tasks(2, 2) if tasks is None else tasks
    return ml.evaluate.adaptation_curve(loss, inner, params, tasks, num_steps)


def meta_test(metric, num_tasks=2):
    return ml.evaluate.meta_test(line_loss, SGD, START, fake_tasks(num_tasks, num_tasks), 1, metric)


def on_batch(loss, outputs, targets):
    """That loss of a model which answers `outputs` whatever its inputs."""
    return loss(lambda params, inputs: outputs)(START, (jnp.zeros(3), targets))


WHOLE, POSITIVE, RANGE = (
    "whole number of at least",
    "finite number above 0",
    r"pair \(low, high\) of finite numbers with low <= high",
)
FUNCTION, OPTAX = "must be a function", r"must be an optax.GradientTransformation such as optax.sgd\(0.01\)"
SCALAR, RAGGED = "loss must return a scalar.*jnp.mean", "leading axis counts {} and must be the same everywhere"

CASES = {
    # meta-gradients, at construction
    "maml: negative steps": (lambda: maml(num_steps=-1), ValueError, f"num_steps must be a {WHOLE} 0.*-1"),
    "maml: steps as a float": (lambda: maml(num_steps=2.0), ValueError, f"num_steps must be a {WHOLE} 0.*2.0"),
    "maml: steps as a bool": (lambda: maml(num_steps=True), ValueError, f"num_steps must be a {WHOLE} 0.*True"),
    "maml: steps as text": (lambda: maml(num_steps="5"), ValueError, f"num_steps must be a {WHOLE} 0.*'5'"),
    "maml: no loss": (lambda: maml(loss=None), TypeError, f"loss {FUNCTION}.*NoneType"),
    "maml: loss value": (lambda: maml(loss=jnp.ones(())), TypeError, f"loss {FUNCTION}"),
    "maml: inner is a rate": (lambda: maml(inner=0.1), TypeError, f"inner {OPTAX}.*float"),
    "maml: inner not built": (lambda: maml(inner=optax.sgd), TypeError, f"inner {OPTAX}.*function"),
    "fo_maml: negative steps": (lambda: ml.fo_maml(loss, SGD, -1), ValueError, f"num_steps must be a {WHOLE} 0"),
    "fo_maml: inner is a rate": (lambda: ml.fo_maml(loss, 0.1, 1), TypeError, f"inner {OPTAX}"),
    "fo_maml: no loss": (lambda: ml.fo_maml(None, SGD, 1), TypeError, f"loss {FUNCTION}"),
    "reptile: no steps": (lambda: ml.reptile(loss, SGD, 0), ValueError, f"num_steps must be a {WHOLE} 1.*0"),
    "reptile: inner is a rate": (lambda: ml.reptile(loss, 0.1, 1), TypeError, f"inner {OPTAX}"),
    "reptile: no loss": (lambda: ml.reptile("mse", SGD, 1), TypeError, f"loss {FUNCTION}.*str"),
    "imaml: no steps": (lambda: imaml(num_steps=0), ValueError, f"num_steps must be a {WHOLE} 1"),
    "imaml: zero strength": (lambda: imaml(proximal_strength=0), ValueError, f"proximal_strength must be a {POSITIVE}"),
    "imaml: negative strength": (lambda: imaml(proximal_strength=-1.0), ValueError, f"proximal_strength .*{POSITIVE}"),
    "imaml: no cg steps": (lambda: imaml(cg_steps=0), ValueError, f"cg_steps must be a {WHOLE} 1"),
    "imaml: inner is a rate": (lambda: imaml(inner=0.1), TypeError, f"inner {OPTAX}"),
    "imaml: no loss": (lambda: imaml(loss=None), TypeError, f"loss {FUNCTION}"),
    "fo_b_maml: zero v": (lambda: fo_b_maml(perturbation=0.0), ValueError, f"perturbation must be a {POSITIVE}"),
    "fo_b_maml: negative v": (lambda: fo_b_maml(perturbation=-0.1), ValueError, f"perturbation .*{POSITIVE}.*-0.1"),
    "fo_b_maml: v is NaN": (lambda: fo_b_maml(perturbation=np.nan), ValueError, f"perturbation .*{POSITIVE}.*nan"),
    "fo_b_maml: v infinite": (lambda: fo_b_maml(perturbation=np.inf), ValueError, f"perturbation .*{POSITIVE}.*inf"),
    "fo_b_maml: v as text": (lambda: fo_b_maml(perturbation="0.1"), ValueError, f"perturbation .*{POSITIVE}.*'0.1'"),
    "fo_b_maml: v as a bool": (lambda: fo_b_maml(perturbation=True), ValueError, f"perturbation .*{POSITIVE}.*True"),
    "fo_b_maml: v as an array": (lambda: fo_b_maml(perturbation=jnp.ones(2)), ValueError, f"perturbation .*{POSITIVE}"),
    "fo_b_maml: zero strength": (lambda: fo_b_maml(proximal_strength=0), ValueError, f"proximal_strength .*{POSITIVE}"),
    "fo_b_maml: estimator": (
        lambda: fo_b_maml(estimator="central"),
        ValueError,
        "estimator must be one of 'forward', 'symmetric', 'three_point', 'fourth_order', but it is 'central'",
    ),
    "fo_b_maml: no steps": (lambda: fo_b_maml(num_steps=0), ValueError, f"num_steps must be a {WHOLE} 1"),
    "fo_b_maml: inner is a rate": (lambda: fo_b_maml(inner=0.1), TypeError, f"inner {OPTAX}"),
    "fo_b_maml: no loss": (lambda: fo_b_maml(loss=None), TypeError, f"loss {FUNCTION}"),
    # the outer step
    "learner: meta_gradient": (lambda: ml.meta_learner("maml", SGD), TypeError, f"meta_gradient {FUNCTION}.*str"),
    "learner: tasks_at_once": (
        lambda: ml.meta_learner(maml(), SGD, tasks_at_once=0),
        ValueError,
        "tasks_at_once must be .*1.*0",
    ),
    "learner: outer is a rate": (lambda: ml.meta_learner(maml(), 0.1), TypeError, f"outer {OPTAX}"),
    "step: no task": (
        lambda: step(tasks=(1, 2)),
        TypeError,
        r"tasks must be a metalearn.Task\(support, query\).*tuple",
    ),
    "step: empty batch": (lambda: step(tasks=fake_tasks(0, 0)), ValueError, "tasks must hold at least one task"),
    "step: support leaves disagree": (
        lambda: step(tasks=fake_tasks(2, 3)),
        ValueError,
        rf"{RAGGED.format('tasks')}.*support\[0\] \[2.*support\[1\] \[3",
    ),
    "step: support and query disagree": (
        lambda: step(tasks=fake_tasks(2, 2)._replace(query=fake_tasks(4, 4).query)),
        ValueError,
        rf"{RAGGED.format('tasks')}.*support\[0\] \[2.*query\[0\] \[4",
    ),
    "step: examples disagree": (
        lambda: step(tasks=Task((jnp.ones((2, 3, 1)), jnp.ones((2, 4, 1))), (jnp.ones((2, 3, 1)),) * 2)),
        ValueError,
        rf"{RAGGED.format('examples')}.*\[0\] \[3.*\[1\] \[4",
    ),
    "step: a scalar in a task": (
        lambda: step(tasks=Task((jnp.ones(()), jnp.ones(2)), jnp.ones(2))),
        ValueError,
        RAGGED.format("tasks"),
    ),
    "step: no array in a task": (lambda: step(tasks=Task((), ())), ValueError, f"{RAGGED.format('tasks')}.*no array"),
    "step: one task, no batch": (
        lambda: step(tasks=Task((jnp.ones((3, 1)), jnp.ones((3, 1))), (jnp.ones((5, 1)),) * 2)),
        ValueError,
        RAGGED.format("tasks"),
    ),
    "params: whole numbers": (
        lambda: step(params={"w": jnp.array([1, 2])}),
        TypeError,
        r"params\['w'\] must be a floating-point array",
    ),
    "params: a Python int": (lambda: step(params=(1.0, 2)), TypeError, r"params\[1\] must be a floating-point array"),
    "params: text": (lambda: step(params={"name": "net"}), TypeError, r"params\['name'\] must be a floating-point"),
    "params: empty": (lambda: step(params={}), TypeError, "params holds no array, so there is nothing to learn"),
    # losses that are no losses, found at the first call
    "loss: per example": (
        lambda: step(meta_gradient=maml(lambda p, b: (p[0] * b[0][:, 0] - b[1][:, 0]) ** 2)),
        ValueError,
        SCALAR,
    ),
    "loss: shape [1]": (
        lambda: step(meta_gradient=imaml(lambda p, b: line_loss(p, b)[None])),
        ValueError,
        rf"{SCALAR}",
    ),
    # fit
    "fit: no steps": (lambda: fit(num_steps=0), ValueError, f"num_steps must be a {WHOLE} 1"),
    "fit: steps as a float": (lambda: fit(num_steps=1e4), ValueError, f"num_steps must be a {WHOLE} 1.*10000.0"),
    "fit: no tasks": (lambda: fit(meta_batch_size=0), ValueError, f"meta_batch_size must be a {WHOLE} 1"),
    "fit: sampler is a batch": (
        lambda: fit(tasks=fake_tasks(2, 2)),
        TypeError,
        r"tasks must be a sampler.*it is a Task.*\[batch\]",
    ),
    "fit: sampler gives no task": (
        lambda: fit(tasks=lambda key, n: (1, 2)),
        TypeError,
        r"tasks must be a metalearn.Task\(support, query\)",
    ),
    "fit: sampler gives text": (
        lambda: fit(tasks=lambda key, n: Task("a", "b")),
        TypeError,
        "Tasks and batches must hold arrays of numbers, but .support is a str",
    ),
    "fit: callback of two": (
        lambda: ml.fit(ml.meta_learner(maml(), SGD), START, family, 1, 2, KEY, callback=lambda state, history: None),
        TypeError,
        r"callback must be a function of \(step, state, history\), but its arguments are \(state, history\)",
    ),
    "fit: steps run over": (
        lambda: fit(params=ml.meta_learner(maml(), SGD).init(START)._replace(step=jnp.int32(2**31 - 3))),
        ValueError,
        "params.step must be at most 2147483644, but it is 2147483645",
    ),
    "fit: steps before the first": (
        lambda: fit(params=ml.meta_learner(maml(), SGD).init(START)._replace(step=jnp.int32(-5))),
        ValueError,
        f"params.step must be a {WHOLE} 0, but it is -5",
    ),
    "fit: learner": (lambda: fit(learner=maml()), TypeError, "learner must come from meta_learner.*function"),
    "fit: key is a seed": (lambda: fit(key=0), TypeError, r"key must be a jax.random.key"),
    "fit: whole-number params": (lambda: fit(params=jnp.array([1, 2])), TypeError, "params must be a floating-point"),
    "fit: sampler cannot be hashed": (
        lambda: fit(tasks=ml.tasks.Sinusoid(amplitude=[0.1, 5.0])),
        TypeError,
        "tasks must be hashable",
    ),
    # evaluation
    "curve: negative steps": (lambda: curve(num_steps=-1), ValueError, f"num_steps must be a {WHOLE} 0"),
    "curve: no loss": (lambda: curve(loss=None), TypeError, f"loss {FUNCTION}"),
    "curve: inner is a rate": (lambda: curve(inner=0.1), TypeError, f"inner {OPTAX}"),
    "curve: no task": (lambda: curve(tasks=[1, 2]), TypeError, "tasks must be a metalearn.Task"),
    "curve: tasks disagree": (lambda: curve(tasks=fake_tasks(2, 3)), ValueError, RAGGED.format("tasks")),
    "curve: no tasks": (lambda: curve(tasks=fake_tasks(0, 0)), ValueError, "tasks must hold at least one task"),
    "curve: whole-number params": (lambda: curve(params=jnp.array([1, 2])), TypeError, "params must be a floating"),
    "curve: loss per example": (lambda: curve(loss=lambda p, b: b[0]), ValueError, SCALAR),
    "curve: MultiSteps": (lambda: curve(inner=optax.MultiSteps(SGD, 2)), TypeError, "add .gradient_transformation"),
    "curve: update of one number": (
        lambda: curve(inner=optax.stateless(lambda gradient, params: gradient.sum())),
        ValueError,
        r"inner must return updates with the shapes of params, \[\[2\]\], not \[\[\]\]",
    ),
    "episodes: a seed": (
        lambda: ml.tasks.Episodes(np.ones((4, 1)), [0, 0, 1, 1], 2, 1, 1)(0, 1),
        TypeError,
        "key must be a jax.random.key",
    ),
    "curve: one task": (
        lambda: curve(tasks=Task((jnp.ones((3, 1)), jnp.ones(3)), (jnp.ones((3, 1)), jnp.ones(3)))),
        ValueError,
        r"tasks must be a batch of tasks.*tasks.support\[1\] has shape \[3\].*leaf\[None\]",
    ),
    "meta_test: metric 0": (lambda: meta_test(0), TypeError, f"metric {FUNCTION}.*int"),
    "meta_test: strength": (
        lambda: ml.evaluate.meta_test(line_loss, SGD, START, fake_tasks(2, 2), 1, None, -1.0),
        ValueError,
        "proximal_strength must be a finite number of at least 0",
    ),
    "convergence: strength": (
        lambda: ml.evaluate.convergence(line_loss, SGD, START, fake_tasks(2, 2), 1, 0.0),
        ValueError,
        f"proximal_strength must be a {POSITIVE}",
    ),
    "score: text": (lambda: ml.evaluate.score(["a", "b"]), TypeError, "values must be real numbers"),
    "meta_test: metric": (lambda: meta_test("accuracy"), TypeError, f"metric {FUNCTION}.*str"),
    "meta_test: one task": (lambda: meta_test(None, num_tasks=1), ValueError, "at least 2 tasks"),
    "meta_test: metric per example": (lambda: meta_test(lambda p, b: b[0]), ValueError, "must return a scalar"),
    "score: one value": (lambda: ml.evaluate.score([1.0]), ValueError, r"values .*\[num_tasks\].*at least 2.*\[1\]"),
    "score: a curve": (lambda: ml.evaluate.score(np.ones((6, 9))), ValueError, r"values .*\[num_tasks\].*\[6, 9\]"),
    # losses
    "mse: no model": (lambda: ml.losses.mean_squared_error(None), TypeError, f"apply {FUNCTION}"),
    "mse: [n, 1] against [n]": (
        lambda: on_batch(ml.losses.mean_squared_error, jnp.ones((3, 1)), jnp.ones(3)),
        ValueError,
        r"predictions have shape \(3, 1\) but targets \(3,\)",
    ),
    "cross_entropy: no model": (lambda: ml.losses.cross_entropy("mlp"), TypeError, f"apply {FUNCTION}"),
    "cross_entropy: float labels": (
        lambda: on_batch(ml.losses.cross_entropy, jnp.ones((3, 2)), jnp.ones(3)),
        TypeError,
        "labels.*whole numbers",
    ),
    "cross_entropy: one-hot labels": (
        lambda: on_batch(ml.losses.cross_entropy, jnp.ones((3, 2)), jnp.ones((3, 2), int)),
        ValueError,
        r"labels \[num_examples\].*\[3, 2\] and \[3, 2\]",
    ),
    "mse: empty": (
        lambda: on_batch(ml.losses.mean_squared_error, jnp.ones((0, 1)), jnp.ones((0, 1))),
        ValueError,
        "batch must hold at least one example",
    ),
    "mse: complex": (
        lambda: on_batch(ml.losses.mean_squared_error, 1j, 1j),
        TypeError,
        "apply must return an array of fl",
    ),
    "mse: model with aux": (
        lambda: on_batch(ml.losses.mean_squared_error, (jnp.ones(3), 0), jnp.ones(3)),
        TypeError,
        "apply must return an array of floating-point numbers, but it returned a tuple",
    ),
    "mse: an array as batch": (
        lambda: ml.losses.mean_squared_error(line)(START, jnp.ones((2, 3))),
        TypeError,
        r"batch must be a pair \(inputs, targets\), but it is an array of float32\[2, 3\]",
    ),
    "mse: model of params": (
        lambda: ml.losses.mean_squared_error(lambda params: 0.0),
        TypeError,
        r"apply must be a function of \(params, inputs\)",
    ),
    "cross_entropy: empty": (
        lambda: on_batch(ml.losses.cross_entropy, jnp.ones((0, 2)), jnp.ones(0, int)),
        ValueError,
        "batch must hold at least one example",
    ),
    "accuracy: no model": (lambda: ml.losses.accuracy(3), TypeError, f"apply {FUNCTION}"),
    "accuracy: flat logits": (
        lambda: on_batch(ml.losses.accuracy, jnp.ones(3), jnp.ones(3, int)),
        ValueError,
        r"logits must have shape \[num_ex",
    ),
    # models
    "mlp: one size": (lambda: ml.models.MLP((40,), rngs=nnx.Rngs(0)), ValueError, "sizes must name at least"),
    "mlp: zero size": (lambda: ml.models.MLP((1, 0, 1), rngs=nnx.Rngs(0)), ValueError, f"sizes must be a {WHOLE} 1"),
    "mlp: float size": (lambda: ml.models.MLP((1, 4.0), rngs=nnx.Rngs(0)), ValueError, f"sizes must be a {WHOLE} 1"),
    "functional: no module": (lambda: ml.models.functional(jnp.tanh), TypeError, "module must be an nnx.Module"),
    "functional: no parameters": (lambda: ml.models.functional(nnx.Dropout(0.5)), TypeError, "must have parameters"),
    "mlp: a number": (lambda: ml.models.MLP(3, rngs=nnx.Rngs(0)), ValueError, "sizes must name at least .*3"),
    "mlp: activation": (lambda: ml.models.MLP((1, 2), activation="relu", rngs=nnx.Rngs(0)), TypeError, "activation"),
    "mlp: seed": (lambda: ml.models.MLP((1, 2), rngs=0), TypeError, r"rngs must be an nnx.Rngs such as nnx.Rngs\(0\)"),
    "mlp: inputs": (
        lambda: ml.models.MLP((2, 1), rngs=nnx.Rngs(0))(jnp.ones((3, 4))),
        ValueError,
        r"inputs must have shape \[..., 2\], but they have \[3, 4\]",
    ),
    # outer rules
    "clipped: zero rate": (lambda: ml.outer.clipped_sgd(0.0, 1.0), ValueError, f"learning_rate must be a {POSITIVE}"),
    "clipped: rate as text": (lambda: ml.outer.clipped_sgd("0.1", 1.0), ValueError, f"learning_rate .*{POSITIVE}"),
    "clipped: zero norm": (lambda: ml.outer.clipped_sgd(0.1, 0.0), ValueError, f"max_norm must be a {POSITIVE}"),
    "normalized: negative rate": (lambda: ml.outer.normalized_sgd(-0.1), ValueError, f"learning_rate .*{POSITIVE}"),
    "sngdm: momentum of 1": (
        lambda: ml.outer.normalized_sgd_momentum(0.1, 1.0),
        ValueError,
        "momentum must be at least 0 and below 1.*1.0",
    ),
    "sngdm: negative momentum": (
        lambda: ml.outer.normalized_sgd_momentum(0.1, -0.1),
        ValueError,
        "momentum must be at least 0 and below 1",
    ),
    "sngdm: NaN rate": (
        lambda: ml.outer.normalized_sgd_momentum(np.nan, 0.9),
        ValueError,
        f"learning_rate .*{POSITIVE}",
    ),
    # task families
    "sinusoid: no support": (lambda: ml.tasks.Sinusoid(num_support=0), ValueError, f"num_support must be a {WHOLE} 1"),
    "sinusoid: no query": (lambda: ml.tasks.Sinusoid(num_query=0), ValueError, f"num_query must be a {WHOLE} 1"),
    "sinusoid: reversed range": (lambda: ml.tasks.Sinusoid(amplitude=(5.0, 0.1)), ValueError, f"amplitude .*{RANGE}"),
    "sinusoid: one number": (lambda: ml.tasks.Sinusoid(phase=3.14), ValueError, f"phase .*{RANGE}"),
    "sinusoid: three numbers": (lambda: ml.tasks.Sinusoid(x_range=(0.0, 1.0, 2.0)), ValueError, f"x_range .*{RANGE}"),
    "sinusoid: NaN": (lambda: ml.tasks.Sinusoid(x_range=(np.nan, 1.0)), ValueError, f"x_range .*{RANGE}"),
    "sinusoid: infinite": (lambda: ml.tasks.Sinusoid(x_range=(0.0, np.inf)), ValueError, f"x_range .*{RANGE}"),
    "sinusoid: no tasks": (lambda: ml.tasks.Sinusoid()(KEY, 0), ValueError, f"num_tasks must be a {WHOLE} 1"),
    "sinusoid: too wide": (lambda: ml.tasks.Sinusoid(x_range=(-3e38, 3e38)), ValueError, f"x_range .*{RANGE}.*finite"),
    "sinusoid: a seed": (lambda: ml.tasks.Sinusoid()(0, 1), TypeError, "key must be a jax.random.key"),
    "sinusoid: keys": (
        lambda: ml.tasks.Sinusoid()(jax.random.split(KEY), 1),
        TypeError,
        "key must be a jax.random.key",
    ),
    "quadratic: spread underflows": (lambda: ml.tasks.Quadratic(spread=1e-300), ValueError, f"spread .*{POSITIVE}"),
    "quadratic: spread overflows": (lambda: ml.tasks.Quadratic(spread=10**999), ValueError, f"spread .*{POSITIVE}"),
    "quadratic: complex spread": (lambda: ml.tasks.Quadratic(spread=jnp.array(1j)), ValueError, f"spread .*{POSITIVE}"),
    "population: no task": (
        lambda: ml.tasks.Population(3, lambda key, i: None)(KEY, 2),
        TypeError,
        r"draw must return a metalearn.Task\(support, query\)",
    ),
    "population: draw": (lambda: ml.tasks.Population(3, lambda key: None), TypeError, r"draw .*\(key, id\)"),
    "mnist1d: digits as floats": (
        lambda: ml.tasks.MNIST1D(digits=(1.0, 2.0, 3.0)),
        ValueError,
        "digits must be a tuple",
    ),
    "quadratic: no dimension": (lambda: ml.tasks.Quadratic(dim=0), ValueError, f"dim must be a {WHOLE} 1"),
    "quadratic: no spread": (lambda: ml.tasks.Quadratic(spread=0.0), ValueError, f"spread must be a {POSITIVE}"),
    "quadratic: negative shift": (lambda: ml.tasks.Quadratic(shift=-1.0), ValueError, f"shift must be a {POSITIVE}"),
    "quadratic: reversed": (
        lambda: ml.tasks.Quadratic(query_curvature=(2.0, 1.0)),
        ValueError,
        f"query_curvature .*{RANGE}",
    ),
    "quadratic: half a task": (lambda: family(KEY, 0.5), ValueError, f"num_tasks must be a {WHOLE} 1"),
    "mnist1d: one way": (lambda: ml.tasks.MNIST1D(num_ways=1), ValueError, f"num_ways must be a {WHOLE} 2"),
    "mnist1d: no shot": (lambda: ml.tasks.MNIST1D(num_shots=0), ValueError, f"num_shots must be a {WHOLE} 1"),
    "mnist1d: no query": (lambda: ml.tasks.MNIST1D(num_query=0), ValueError, f"num_query must be a {WHOLE} 1"),
    "mnist1d: digit 10": (
        lambda: ml.tasks.MNIST1D(digits=(1, 2, 10)),
        ValueError,
        "digits must be a tuple of different digits from 0",
    ),
    "mnist1d: digit twice": (
        lambda: ml.tasks.MNIST1D(digits=(1, 1, 2)),
        ValueError,
        "digits must be a tuple of different digits",
    ),
    "mnist1d: one digit": (
        lambda: ml.tasks.MNIST1D(digits=5),
        ValueError,
        "digits must be a tuple of different digits",
    ),
    "mnist1d: too many ways": (
        lambda: ml.tasks.MNIST1D(num_ways=7),
        ValueError,
        "num_ways must be at most the 6 digits.*7",
    ),
    "mnist1d: too many examples": (
        lambda: ml.tasks.MNIST1D(num_shots=400, num_query=101),
        ValueError,
        r"num_shots \+ num_query must be at most 500",
    ),
    "mnist1d: no tasks": (lambda: ml.tasks.MNIST1D()(KEY, 0), ValueError, f"num_tasks must be a {WHOLE} 1"),
    # theory
    "objective: one number": (
        lambda: ml.theory.unrolled(PARABOLAS, 0.1, 1).objective([1.0]),
        ValueError,
        r"params must have shape \[2\], but it has \[1\]",
    ),
    "unrolled: one task": (
        lambda: ml.theory.unrolled(jax.tree.map(lambda leaf: leaf[0], PARABOLAS), 0.1, 1),
        ValueError,
        r"tasks.support must have a hessian \[num_tasks, dim, dim\]",
    ),
    "smoothness_bound: negative norm": (
        lambda: ml.theory.smoothness_bound(0.1, 3, 1.0, 1.0, gradient_norm=-1),
        ValueError,
        "gradient_norm must be at least 0, but -1.0",
    ),
    "smoothness_bound: too large": (
        lambda: ml.theory.smoothness_bound(1e30, 1000, 1.0, 1.0, 1.0),
        ValueError,
        "does not fit into float64",
    ),
    "cost: method": (lambda: ml.theory.cost(["maml"], 1, 1), ValueError, r"method must be one of .*\['maml'\]"),
    "contrastive_split: a NaN": (
        lambda: ml.theory.contrastive_split([[np.nan]], [0], [[1.0]], [0], [[0.0, 0.0]], 0.1),
        ValueError,
        "features_support must hold finite numbers",
    ),
    "contrastive_split: label -1": (
        lambda: ml.theory.contrastive_split([[1.0]], [-1], [[1.0]], [0], [[0.0, 0.0]], 0.1),
        ValueError,
        r"labels_support must be whole numbers from 0 to 1.*\[-1\]",
    ),
    "wrong_signs: one class": (
        lambda: ml.theory.contrastive_split([[1.0]], [0], [[1.0]], [0], [[0.0, 0.0]], 0.1).wrong_signs(),
        ValueError,
        "no pair of different classes",
    ),
    "unrolled: zero step": (lambda: ml.theory.unrolled(family(KEY, 2), 0.0, 1), ValueError, f"step_size .*{POSITIVE}"),
    "unrolled: negative steps": (
        lambda: ml.theory.unrolled(family(KEY, 2), 0.1, -1),
        ValueError,
        f"num_steps .*{WHOLE}",
    ),
    "unrolled: no task": (lambda: ml.theory.unrolled((1, 2), 0.1, 1), TypeError, "tasks must be a metalearn.Task"),
    "proximal: zero strength": (
        lambda: ml.theory.proximal(family(KEY, 2), 0),
        ValueError,
        f"proximal_strength .*{POSITIVE}",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])


def kernel_methods():
    """Those that are given a model and not a loss."""
    return {
        "meta_rkhs_ii": ml.meta_rkhs_ii(line, 1.0),
        "kernel_adaptation": ml.kernel_adaptation(line, ml.kernel.gaussian(1.0), 0.1),
    }


def line(params, x):
    return params[0] + params[1] * x


ONE_TASK = jax.tree.map(lambda leaf: leaf[0], fake_tasks(1, 1))
MANY = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), ONE_TASK)
MEMORY = ml.tasks.IndexedTasks(jnp.arange(2), MANY)
CLIENTS = ml.tasks.ClientData(*jax.tree.map(lambda leaf: leaf[:, None], (MANY.support, MANY)))


def one_step(learner, tasks):
    return lambda params, _: learner.step(learner.init(params), tasks)


BY_LOSS = {  # every factory that is given a loss -> a function of (loss) that returns one of (params, task)
    **{method: functools.partial(build, method) for method in METHODS},
    "zeroing_trick": lambda loss: ml.zeroing_trick(ml.fo_maml(loss, SGD, 1), lambda params: params),
    "moml": lambda loss: one_step(ml.moml(loss, SGD, SGD, 2, 0.5), MEMORY),
    "local_moml": lambda loss: one_step(ml.local_moml(loss, SGD, SGD, 0.5), CLIENTS),
    "mamf": lambda loss: lambda params, _: ml.mamf(loss, SGD, 1)(params, MANY),
}
NO_LOSSES = {
    "of params alone": (lambda params: 0.0, TypeError, r"loss must be a function of \(params, batch\).*\(params\)"),
    "of three": (lambda params, batch, key: 0.0, TypeError, r"loss must be a function of \(params, batch\)"),
    "with aux": (
        lambda p, b: (line_loss(p, b), b),
        TypeError,
        "loss must return a scalar.*tuple.*Return the loss alone",
    ),
    "None": (lambda p, b: None, TypeError, "loss must return a scalar, but it returned None"),
    "text": (lambda p, b: "0.1", TypeError, "loss must return a scalar, but it returned a str"),
    "per example": (lambda p, b: (line(p, b[0]) - b[1])[:, 0], ValueError, SCALAR),
    "whole number": (lambda p, b: line_loss(p, b).astype(int), TypeError, "loss must return a floating-point.*int32"),
    "a Python int": (lambda p, b: 3, TypeError, "loss must return a floating-point.*int32"),
    "a bool": (lambda p, b: line_loss(p, b) > 1, TypeError, "loss must return a floating-point.*bool"),
    "complex": (lambda p, b: line_loss(p, b) * 1j, TypeError, "loss must return a real number.*complex64"),
}


@pytest.mark.slow
@pytest.mark.parametrize("factory", BY_LOSS)
def test_a_function_that_is_no_loss_is_refused_by_every_factory(factory):
    """Found while a program is traced, so nothing is compiled."""
    for loss, kind, message in NO_LOSSES.values():
        assert_clear_error(lambda loss=loss: jax.make_jaxpr(BY_LOSS[factory](loss))(START, ONE_TASK), kind, message)


def test_a_metric_may_count():
    counts = meta_test(lambda params, batch: jnp.sum(batch[0] > 0))
    assert counts.mean == 3


def test_an_error_within_a_loss_is_its_own():
    def loss(params, batch):
        return line_loss(params)  # a TypeError about arguments, but not those that the library gives

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'batch'"):
        ml.fo_maml(loss, SGD, 1)(START, ONE_TASK)


NO_TASK = r"task must be a metalearn.Task\(support, query\), but it is "
NO_TASKS = {
    "None": (None, TypeError, f"{NO_TASK}None"),
    "a pair": (tuple(ONE_TASK), TypeError, f"{NO_TASK}a tuple"),
    "a batch": (ONE_TASK.support[0], TypeError, f"{NO_TASK}an array of float32"),
    "no support": (Task(None, ONE_TASK.query), ValueError, f"{RAGGED.format('examples')}.*no array"),
    "text": (Task(ONE_TASK.support, ("a", "b")), TypeError, r"must hold arrays of numbers, but \[0\] is a str"),
    "ragged": (Task((jnp.ones(3), jnp.ones(2)), ONE_TASK.query), ValueError, RAGGED.format("examples")),
    "long lists": (
        Task(ONE_TASK.support, ([1.0] * 99, [1.0] * 99)),
        ValueError,
        RAGGED.format("examples") + r".*\.\.\.",
    ),
}
NO_PARAMS = {
    "whole numbers": (jnp.array([1, 2]), TypeError, "params must be a floating-point array"),
    "complex": ({"w": START * 1j}, TypeError, r"params\['w'\] must be a floating-point array"),
    "text": (["a"], TypeError, r"params\[0\] must be a floating-point array"),
    "None": (None, TypeError, "params holds no array"),
    "empty": (jnp.zeros(0), TypeError, "params holds no array"),
}


@pytest.mark.parametrize("factory", [*METHODS, "zeroing_trick", *kernel_methods()])
def test_params_and_task_are_checked_by_every_meta_gradient(factory):
    meta_gradient = kernel_methods().get(factory) or BY_LOSS[factory](line_loss)
    for task, kind, message in NO_TASKS.values():
        assert_clear_error(lambda task=task: meta_gradient(START, task), kind, message)
    for params, kind, message in NO_PARAMS.values():
        assert_clear_error(lambda params=params: meta_gradient(params, ONE_TASK), kind, message)


NUMBERS = {"proximal_strength": 2.0, "perturbation": 0.05, "step_size": 0.1, "horizon": 0.5, "cap": 0.9}
TRACED = {
    **{
        method: functools.partial(build, method, line_loss, num_steps=1, cg_steps=1)
        for method in METHODS
        if NUMBERS.keys() & inspect.signature(getattr(ml, method)).parameters.keys()
    },
    "meta_rkhs_ii": lambda step_size, **_: ml.meta_rkhs_ii(line, time=step_size, num_steps=1),
    "kernel_adaptation": lambda step_size, **_: ml.kernel_adaptation(line, ml.kernel.gaussian(step_size), step_size),
}


@pytest.mark.parametrize("factory", [pytest.param(f, marks=[pytest.mark.slow] * (f == "a_maml")) for f in TRACED])
def test_every_real_number_may_be_traced(factory):
    """Within one program, numbers that it is given and the same ones that it holds make one meta-gradient."""

    @jax.jit
    def both(numbers):
        return [TRACED[factory](**each)(jnp.array([0.5, 0.1]), ONE_TASK) for each in (numbers, NUMBERS)]

    given, held = both(NUMBERS)
    assert np.abs(held[1]).max() > 1e-4
    chex.assert_trees_all_close(given, held, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if "num_steps" in inspect.signature(getattr(ml, m)).parameters])
def test_a_number_of_steps_may_not_be_traced(method):
    def program(num_steps):
        return build(method, line_loss, num_steps=num_steps)(START, ONE_TASK)

    with pytest.raises(ValueError, match=f"num_steps must be a {WHOLE} .*Tracer"):
        jax.make_jaxpr(program)(3)


def test_theory_is_computed_at_once():
    for call in (
        lambda x: ml.theory.unrolled(PARABOLAS, x, 1),
        lambda x: ml.theory.unrolled(PARABOLAS, 0.1, 1).objective([x, x]),
        lambda x: ml.theory.largest_stable_step(3, x),
        lambda x: ml.theory.smoothness_bound(0.1, 3, 1.0, 1.0, x),
    ):
        with pytest.raises(TypeError, match="must be known at once, but it is traced"):
            jax.make_jaxpr(call)(0.1)


def test_good_neighbours_of_bad_values_are_taken():
    """The checks refuse no more than they must."""
    maml(num_steps=0)
    maml(num_steps=np.int64(3))
    fo_b_maml(perturbation=np.float32(0.1), proximal_strength=1)
    fo_b_maml(perturbation=jnp.float32(0.1), estimator="forward")
    ml.outer.normalized_sgd_momentum(optax.constant_schedule(0.1), momentum=0)
    ml.tasks.Sinusoid(amplitude=(1, 1))
    ml.tasks.Quadratic(support_curvature=(-1.0, 2.0))
    ml.tasks.MNIST1D(num_ways=2, num_shots=499, num_query=1, digits=(0, 9))
    ml.meta_learner(maml(), SGD).init((1.0, np.float32(2.0)))
