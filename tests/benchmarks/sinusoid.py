"""A whole outer step of MAML on the sine curves of Finn et al. 2017: 25 tasks, 10 shots, 5 inner steps, Adam."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch
from flax import nnx
from measure import Row, in_turn, ratio, seconds

import metalearn as ml

NUM_TASKS, NUM_SHOTS, INNER_STEPS, INNER_RATE, OUTER_RATE = 25, 10, 5, 0.01, 1e-3
OUTER_STEPS = 1_000  # in one run, whose time is divided by their number


def rows(rounds: int) -> list[Row]:
    """`fit` against what one would write without a library, and against PyTorch where it is installed."""
    params, apply = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
    meta_gradient = ml.maml(ml.losses.mean_squared_error(apply), optax.sgd(INNER_RATE), INNER_STEPS)
    learner = ml.meta_learner(meta_gradient, optax.adam(OUTER_RATE))
    family = ml.tasks.Sinusoid(num_support=NUM_SHOTS, num_query=NUM_SHOTS)
    key = jax.random.key(0)
    layers = [(layer["kernel"][...], layer["bias"][...]) for _, layer in sorted(params["layers"].items())]

    def fit():
        return ml.fit(learner, params, family, OUTER_STEPS, NUM_TASKS, key, progress=False)

    def by_hand():
        return plain_jax(layers, key, OUTER_STEPS)

    check_same_mathematics(fit(), by_hand())
    rivals = {"the same in plain JAX": (by_hand, OUTER_STEPS, ("at most", 1.05))}
    if pytorch.installed():
        alone = pytorch.sinusoid_meta_gradients(layers, family(key, NUM_TASKS), INNER_STEPS, INNER_RATE)
        for (name, program), bar in zip(alone.items(), (10, 50), strict=True):
            rivals[f"meta-gradient alone, {name}"] = (program, 1, ("at least", bar))

    result = []
    for name, (program, num_steps, bar) in rivals.items():
        times = in_turn({"fit": fit, name: program}, rounds)  # a rival at a time: PyTorch's threads slow who follows
        ours, theirs = times["fit"] / OUTER_STEPS, times[name] / num_steps
        slower = ratio(ours, theirs) if bar[0] == "at most" else ratio(theirs, ours)
        what, figure = ("", "") if result else ("sinusoid, outer step of `fit`", seconds(ours))
        result.append(Row(what, figure, f"{name}: {seconds(theirs)}", slower, bar))
    return result


@functools.partial(jax.jit, static_argnums=2)
def plain_jax(layers, key, num_steps):
    """The same mathematics without this library: (layers after meta-training, losses [num_steps])."""
    optimizer = optax.adam(OUTER_RATE)

    def loss(layers, x, y):
        for weights, bias in layers[:-1]:
            x = jax.nn.relu(x @ weights + bias)
        weights, bias = layers[-1]
        return jnp.mean((x @ weights + bias - y) ** 2)

    def loss_after_adaptation(layers, x, y):
        def inner_step(phi, _):
            gradient = jax.grad(loss)(phi, x[:NUM_SHOTS], y[:NUM_SHOTS])
            return jax.tree.map(lambda p, g: p - INNER_RATE * g, phi, gradient), None

        phi, _ = jax.lax.scan(inner_step, layers, length=INNER_STEPS)
        return loss(phi, x[NUM_SHOTS:], y[NUM_SHOTS:])

    def mean_loss(layers, x, y):
        return jax.vmap(loss_after_adaptation, in_axes=(None, 0, 0))(layers, x, y).mean()

    def outer_step(state, number):
        layers, memory = state
        unit = jax.random.uniform(jax.random.fold_in(key, number), (NUM_TASKS, 2 * NUM_SHOTS + 2, 1))
        amplitude, phase, x = 0.1 + 4.9 * unit[:, :1], math.pi * unit[:, 1:2], -5 + 10 * unit[:, 2:]
        value, gradient = jax.value_and_grad(mean_loss)(layers, x, amplitude * jnp.sin(x - phase))
        updates, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(layers, updates), memory), value

    (layers, _), losses = jax.lax.scan(outer_step, (layers, optimizer.init(layers)), jnp.arange(num_steps))
    return layers, losses


def check_same_mathematics(result, by_hand):
    """Both see the same tasks; rounding sets them apart slowly."""
    np.testing.assert_allclose(result.history.query_loss[:20], by_hand[1][:20], rtol=1e-3)
