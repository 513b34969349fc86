"""Adapting a checkpoint with an ensemble's doubt: each equation by itself, then all of them against a naive loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from problems import assert_clear_error

import metalearn as ml
from metalearn import Task, repurpose

pytestmark = pytest.mark.filterwarnings("error")

NUM_STEPS, NUM_MEMBERS, SPREAD, ATTACK_SIZE = 3, 4, 0.2, 0.1
KEY = jax.random.key(5)


def apply(params, inputs):
    hidden, output = params
    return jnp.tanh(inputs @ hidden["kernel"] + hidden["bias"]) @ output


loss = ml.losses.cross_entropy(apply)
loss_gradient = jax.jit(jax.grad(loss))
input_gradient = jax.jit(jax.grad(lambda inputs, params, labels: loss(params, (inputs, labels))))
SGD = optax.sgd(0.3)
TASKS = Task((jnp.ones((2, 3, 2)), jnp.zeros((2, 3), int)), (jnp.ones((2, 3, 2)), jnp.zeros((2, 3), int)))
PARAMS = ({"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}, jnp.ones((4, 3)))


@pytest.fixture
def problem(x64):
    """(params, two tasks) of classification with three classes, in float64."""
    keys = jax.random.split(jax.random.key(0), 7)
    params = (
        {"kernel": jax.random.normal(keys[0], (2, 4)), "bias": jax.random.normal(keys[1], (4,))},
        jax.random.normal(keys[2], (4, 3)),
    )
    batches = [
        (jax.random.normal(keys[3 + i], (2, n, 2)), jax.random.randint(keys[5 + i], (2, n), 0, 3))
        for i, n in enumerate((5, 7))
    ]
    return params, Task(*batches)


def spread_out(params, key=KEY):
    """Four members, unequally far apart from layer to layer."""
    scales = iter((0.3, 0.1, 0.02))
    return jax.tree.map(lambda leaf: leaf + next(scales) * jax.random.normal(key, (4, *leaf.shape)), params)


# USA


@pytest.mark.slow
def test_steps_have_the_base_step_as_mean_and_the_reversed_order_of_disagreement(problem):
    """u and s from their definitions, in numpy; the mean counts every parameter once."""
    params, _ = problem
    members = jax.tree.leaves(spread_out(params))
    factors = jax.tree.leaves(repurpose.relative_step_sizes(spread_out(params)))
    disagreement = np.array([np.asarray(leaf).std(axis=0).mean() for leaf in members])
    sizes = np.array([leaf[0].size for leaf in members])

    np.testing.assert_allclose(sizes @ np.array(factors) / sizes.sum(), 1, rtol=1e-12)
    np.testing.assert_array_equal(np.argsort(factors), np.argsort(-disagreement))
    expected = disagreement.max() + disagreement.min() - disagreement
    np.testing.assert_allclose(factors, expected * sizes.sum() / (sizes @ expected), rtol=1e-12)
    assert max(factors) > 1.5 * min(factors)


@pytest.mark.slow
def test_members_that_agree_leave_the_base_step(problem):
    """Also where the mean of equal numbers is not that number: 0.1 + 0.1 + 0.1 is not 0.3."""
    params, _ = problem
    members = jax.tree.map(lambda leaf: jnp.full((3, *leaf.shape), 0.1), params)
    assert [float(factor) for factor in jax.tree.leaves(repurpose.relative_step_sizes(members))] == [1, 1, 1]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_factors_are_scalars_of_the_dtype_of_their_layer(dtype):
    members = {"a": jnp.arange(6, dtype=dtype).reshape(2, 3), "b": jnp.ones((2, 1))}
    factors = repurpose.relative_step_sizes(members)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in factors.items()} == {
        "a": ((), dtype),
        "b": ((), jnp.float32),
    }


# FGSM and UFGSM


@pytest.mark.slow
def test_fgsm_moves_every_input_by_eps_the_way_the_loss_rises(problem):
    """The slope of the loss along the move is the sum of the gradient's absolute values: by finite differences."""
    params, tasks = problem
    inputs, labels = batch = jax.tree.map(lambda leaf: leaf[0], tasks.support)
    moved, same_labels = repurpose.fgsm(loss, params, batch, ATTACK_SIZE)
    np.testing.assert_allclose(np.abs(moved - inputs), ATTACK_SIZE, rtol=1e-12)
    np.testing.assert_array_equal(same_labels, labels)

    rises = [loss(params, repurpose.fgsm(loss, params, batch, eps)) - loss(params, batch) for eps in (1e-6, 2e-6)]
    slope = np.abs(input_gradient(inputs, params, labels)).sum()
    np.testing.assert_allclose(rises, [1e-6 * slope, 2e-6 * slope], rtol=1e-4)

    value = jax.jit(loss)
    for i, j in np.ndindex(inputs.shape):
        higher, lower = (value(params, (inputs.at[i, j].add(h), labels)) for h in (1e-5, -1e-5))
        assert np.sign(moved - inputs)[i, j] == np.sign(higher - lower)


@pytest.mark.slow
def test_ufgsm_moves_most_where_the_members_doubt_most(problem):
    params, tasks = problem
    inputs, labels = batch = jax.tree.map(lambda leaf: leaf[0], tasks.support)
    members = spread_out(params)
    moved, _ = repurpose.ufgsm(loss, params, members, batch, ATTACK_SIZE)
    distance = np.abs(moved - inputs) / ATTACK_SIZE

    gradients = [input_gradient(inputs, member(members, e), labels) for e in range(4)]
    doubt = np.std(gradients, axis=0)
    np.testing.assert_allclose(distance.min(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(distance.max(axis=1), 1, rtol=1e-9)
    np.testing.assert_array_equal(distance.argmax(axis=1), doubt.argmax(axis=1))
    whole = repurpose.fgsm(loss, params, batch, ATTACK_SIZE)[0] - inputs
    np.testing.assert_allclose(moved - inputs, distance * whole, atol=1e-12)


@pytest.mark.slow
def test_ufgsm_without_doubt_moves_nothing(problem):
    params, tasks = problem
    batch = jax.tree.map(lambda leaf: leaf[0], tasks.support)
    members = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    np.testing.assert_array_equal(repurpose.ufgsm(loss, params, members, batch, ATTACK_SIZE)[0], batch[0])


# The whole procedure


def curve(params, tasks, inner=SGD, num_members=NUM_MEMBERS, attack_size=ATTACK_SIZE, spread=SPREAD, metric=None):
    inner = inner or optax.sgd(0.3)
    return repurpose.adaptation_curve(
        loss, inner, params, tasks, NUM_STEPS, KEY, attack_size, num_members, spread, metric
    )


def member(members, e):
    return jax.tree.map(lambda leaf: leaf[e], members)


def naive_losses(params, support, query, key, base_step):
    """The equations, one member, one step and one layer at a time: plain SGD in numpy, with gradients from JAX."""
    x, y = support
    weights = jax.tree.leaves(params)
    rebuild = jax.tree.structure(params).unflatten

    def attacked(phi):
        return x + ATTACK_SIZE * np.sign(input_gradient(x, rebuild(phi), y))

    def descended(phi, batches, steps):
        gradients = [jax.tree.leaves(loss_gradient(rebuild(phi), batch)) for batch in batches]
        return [w - step * np.mean(slopes, axis=0) for w, step, *slopes in zip(phi, steps, *gradients, strict=True)]

    members = []
    for member_key in jax.random.split(key, NUM_MEMBERS):
        noise = jax.tree.leaves(optax.tree.random_like(member_key, params))
        members.append([w * (1 + SPREAD * z) for w, z in zip(weights, noise, strict=True)])

    steps, met = [base_step] * len(weights), []
    for _ in range(NUM_STEPS):
        attacks = [attacked(phi) for phi in members]
        doubt = np.std([input_gradient(x, rebuild(phi), y) for phi in members], axis=0)
        doubt -= doubt.min(axis=1, keepdims=True)
        doubt /= doubt.max(axis=1, keepdims=True)
        met += [*attacks, x + ATTACK_SIZE * doubt * np.sign(input_gradient(x, params, y))]

        members = [descended(phi, [(x, y), (attack, y)], steps) for phi, attack in zip(members, attacks, strict=True)]
        u = np.array([np.std(layers, axis=0).mean() for layers in zip(*members, strict=True)])
        s = u.max() + u.min() - u
        steps = base_step * s / np.average(s, weights=[w.size for w in weights])

    losses = [loss(params, query)]
    augmented = np.concatenate(met), np.tile(y, len(met))
    for _ in range(NUM_STEPS):
        weights = descended(weights, [(x, y), (attacked(weights), y), augmented], steps)
        losses.append(loss(rebuild(weights), query))
    return losses


@pytest.mark.slow
def test_it_is_the_naive_loop(problem):
    params, tasks = problem
    actual = curve(params, tasks)
    for i, key in enumerate(jax.random.split(KEY, 2)):
        support, query = member(tuple(tasks), i)
        np.testing.assert_allclose(actual[:, i], naive_losses(params, support, query, key, 0.3), rtol=1e-11)
    vanilla = ml.evaluate.adaptation_curve(loss, SGD, params, tasks, NUM_STEPS)
    assert np.abs(actual - vanilla)[1:].min() > 1e-4, "and it is not what vanilla adaptation does"


@pytest.mark.slow
@pytest.mark.parametrize("inner", [SGD, optax.adam(0.1)], ids=["sgd", "adam"])
def test_without_spread_and_attack_it_is_vanilla_adaptation(problem, inner):
    params, tasks = problem
    actual = curve(params, tasks, inner, attack_size=0.0, spread=0.0)
    vanilla = ml.evaluate.adaptation_curve(loss, inner, params, tasks, NUM_STEPS)
    np.testing.assert_allclose(actual, vanilla, rtol=1e-12)


@pytest.mark.slow
def test_it_reports_any_metric_of_any_model():
    """Float32 and an nnx State; the same task twice, but not the same members."""
    params, apply = ml.models.functional(ml.models.MLP((2, 4, 3), rngs=nnx.Rngs(0)))
    inputs = jnp.tile(jax.random.normal(KEY, (3, 2)), (2, 1, 1))
    tasks = Task((inputs, TASKS.support[1]), (inputs, TASKS.query[1]))
    values = repurpose.adaptation_curve(
        *(ml.losses.cross_entropy(apply), optax.sgd(0.1), params, tasks, 2, KEY, 0.1),
        num_members=2,
        metric=lambda params, batch: jnp.mean(apply(params, batch[0])),
    )
    assert values.shape == (3, 2) and values.dtype == jnp.float32
    np.testing.assert_allclose(values[0], apply(params, inputs[0]).mean(), rtol=1e-5)
    assert (values[1:, 0] != values[1:, 1]).all()


@pytest.mark.slow
def test_the_base_step_may_be_known_only_when_the_program_runs(problem):
    """So that one program serves a range of base steps; diverging there goes without a warning, outside with one."""
    params, tasks = problem
    swept = jax.jit(lambda steps: jax.lax.map(lambda step: curve(params, tasks, optax.sgd(step)), steps))
    actual = swept(jnp.array([0.3, jnp.inf]))
    np.testing.assert_allclose(actual[0], curve(params, tasks), rtol=1e-12)
    assert not np.isfinite(actual[1, -1]).any()
    with pytest.warns(UserWarning, match="2 of 2 tasks ended in infinity or NaN"):
        curve(optax.tree.scale(np.inf, params), tasks)


# Bad input


def call(**changes):
    arguments = {
        "loss": loss,
        "inner": optax.sgd(0.1),
        "params": PARAMS,
        "tasks": TASKS,
        "num_steps": 1,
        "key": KEY,
        "attack_size": 0.1,
    }
    return repurpose.adaptation_curve(**arguments | changes)


CASES = {
    "no loss": (lambda: call(loss=None), TypeError, "metric must be a function|loss must be a function"),
    "metric": (lambda: call(metric="accuracy"), TypeError, "metric must be a function.*str"),
    "inner is a rate": (lambda: call(inner=0.1), TypeError, "inner must be an optax.GradientTransformation"),
    "negative steps": (lambda: call(num_steps=-1), ValueError, "num_steps must be a whole number of at least 0"),
    "key is a seed": (lambda: call(key=0), TypeError, r"key must be a jax.random.key\(seed\)"),
    "negative attack": (
        lambda: call(attack_size=-0.1),
        ValueError,
        "attack_size must be a finite number of at least 0",
    ),
    "attack is NaN": (lambda: call(attack_size=np.nan), ValueError, "attack_size must be a finite number.*nan"),
    "infinite attack": (lambda: call(attack_size=np.inf), ValueError, "attack_size must be a finite number.*inf"),
    "attack as text": (lambda: call(attack_size="0.1"), ValueError, "attack_size must be a finite number.*'0.1'"),
    "one member": (lambda: call(num_members=1), ValueError, "num_members must be a whole number of at least 2.*1"),
    "spread of 1": (lambda: call(spread=1.0), ValueError, "spread must be at least 0 and below 1.*1.0"),
    "negative spread": (lambda: call(spread=-0.1), ValueError, "spread must be at least 0 and below 1.*-0.1"),
    "whole-number params": (lambda: call(params=jnp.array([1, 2])), TypeError, "params must be a floating-point array"),
    "no task": (lambda: call(tasks=[1, 2]), TypeError, "tasks must be a metalearn.Task"),
    "no pair": (
        lambda: call(tasks=Task(jnp.ones((2, 3)), jnp.ones((2, 3)))),
        TypeError,
        "tasks.support must be a pair",
    ),
    "whole-number inputs": (
        lambda: call(tasks=Task((jnp.ones((2, 3, 2), int), jnp.zeros((2, 3), int)), TASKS.query)),
        TypeError,
        "inputs of tasks.support must be one array of floating-point numbers.*int32",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])
