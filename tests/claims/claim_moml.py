"""MOML: with one task a step and noisy support gradients, the memory lowers the floor at which MAML stays.

Tasks are sums of log cosh(w_k - c_k), whose curvature changes, so that noise in the adapted point biases the gradient
there. The floor is what averaging over steps and seeds cannot remove: the gradient of the exact meta-objective at the
mean of the iterates. LocalMOML is measured without noise, in rounds of communication.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml
from metalearn.tasks import Clients, Population

STEP_SIZE, NUM_TASKS, DIM, NOISE = 0.3, 10, 4, 3.0
NUM_STEPS, NUM_SEEDS = 6_000, 32
INNER = optax.sgd(STEP_SIZE)
CENTERS = np.random.default_rng(0).exponential(size=(NUM_TASKS, DIM))
SETTINGS = {  # (memory rate, examples in the support batch)
    "maml": (1.0, 1),
    "maml_16": (1.0, 16),
    "moml_3": (0.3, 1),
    "moml_1": (0.1, 1),
}


def loss(w, batch):
    """An example of a task: its gradient is that of the task plus noise."""
    center, noise = batch
    return jnp.sum(jnp.log(jnp.cosh(w - center))) + noise @ w


def population(noise):
    """Support gradients have that much noise, query gradients none, which would bias nothing."""

    def draw(key, i):
        center = jnp.asarray(CENTERS)[i]
        return ml.Task((center, noise * jax.random.normal(key, (DIM,))), (center, jnp.zeros(DIM)))

    return Population(NUM_TASKS, draw)


def gradient_norm(w):
    """Norm of the gradient of the exact meta-objective."""
    center = jnp.asarray(CENTERS)
    batch = (center, jnp.zeros_like(center))
    _, gradients = jax.vmap(ml.maml(loss, INNER, 1), in_axes=(None, 0))(w, ml.Task(batch, batch))
    return jnp.linalg.norm(gradients.mean(axis=0))


def mean_iterate(memory_rate, noise, key):
    """The mean over the second half of a run of MOML, which with rate 1 is MAML."""
    learner = ml.moml(loss, INNER, optax.sgd(0.1), NUM_TASKS, memory_rate)

    def one_step(carry, key):
        state, total = carry
        state, _ = learner.step(state, population(noise)(key, 1))
        return (state, total + jnp.where(state.step > NUM_STEPS // 2, state.params, 0)), None

    start = (learner.init(jnp.zeros(DIM)), jnp.zeros(DIM))
    (_, total), _ = jax.lax.scan(one_step, start, jax.random.split(key, NUM_STEPS))
    return total / (NUM_STEPS - NUM_STEPS // 2)


def floors():
    """name -> gradient norm at the mean iterate, for every setting; all see the same draws."""
    rates, batch_sizes = jnp.array(list(SETTINGS.values())).T
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    over_seeds = jax.vmap(mean_iterate, in_axes=(None, None, 0))
    means = jax.jit(jax.vmap(over_seeds, in_axes=(0, 0, None)))(rates, NOISE / jnp.sqrt(batch_sizes), keys)
    return dict(zip(SETTINGS, map(float, jax.vmap(gradient_norm)(means.mean(axis=1))), strict=True))


def rounds(num_local_steps):
    """Rounds of LocalMOML, all clients taking part, until the gradient is a tenth of that at the start."""
    learner = ml.local_moml(loss, INNER, optax.sgd(0.01), 0.3)
    data = Clients(population(0.0), num_local_steps)(jax.random.key(0), NUM_TASKS)

    def one_round(state, _):
        state, _ = learner.step(state, data)
        return state, gradient_norm(state.params)

    start = learner.init(jnp.zeros(DIM))
    _, norms = jax.jit(lambda state: jax.lax.scan(one_round, state, length=1000))(start)
    return 1 + int(np.argmax(norms < 0.1 * gradient_norm(start.params)))


def measure():
    with jax.enable_x64(True):
        return floors() | {"rounds_1": rounds(1), "rounds_5": rounds(5)}


CLAIM = Claim(
    order=7,
    lessons=("10",),
    tests=("test_moml",),
    title="MOML and LocalMOML",
    system="`moml`, `local_moml`",
    paper="Wang, Yuan, Ying & Yang 2021, [2106.04911](https://arxiv.org/abs/2106.04911)",
    exact=(
        "MAML's one-step gradient when the memory rate b is 1; a smaller b leaves less of the bias of small "
        "support batches"
    ),
    finding=(
        "With one task in each outer step and noisy support gradients, outer training with MAML ends at a "
        "meta-gradient of norm {maml:.2g}, because the noise biases every step. MOML averages the noise away in "
        "its memory and ends at {moml_3:.2g} with b = 0.3 and {moml_1:.2g} with b = 0.1. MAML needs 16 times as "
        "many support examples to reach {maml_16:.2g}. LocalMOML, measured without noise, shrinks the "
        "meta-gradient to a tenth in {rounds_1:.0f} rounds of communication with one local step, or in "
        "{rounds_5:.0f} rounds with five."
    ),
    measure=measure,
    holds=lambda f: (
        2 * f["moml_3"] < f["maml"]
        and 4 * f["moml_1"] < f["maml"]
        and f["moml_1"] < 2 * f["maml_16"]
        and 4 * f["rounds_5"] < f["rounds_1"]
    ),
)
