"""FO-MuML: repeating the inner step brings the end of training nearer the Moreau optimum, unless noise hides it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml

STEP_SIZE = 0.5
family = ml.tasks.Quadratic(dim=5, support_curvature=(0.2, 1.0))


def bias(tasks, optimum, num_steps):
    """How far from the Moreau optimum training on all tasks ends."""
    learner = ml.meta_learner(ml.fo_muml(family.loss, STEP_SIZE, num_steps), optax.sgd(1.0))
    train = jax.jit(lambda state: jax.lax.fori_loop(0, 400, lambda _, state: learner.step(state, tasks)[0], state))
    return float(np.linalg.norm(train(learner.init(jnp.zeros(5))).params - optimum))


def noise(tasks, optimum, num_steps, learning_rate):
    """The mean squared distance from it in the long run, with one random task a step; 100 runs side by side."""
    learner = ml.meta_learner(ml.fo_muml(family.loss, STEP_SIZE, num_steps), optax.sgd(learning_rate))

    def step(state, key):
        index = jax.random.randint(key, (1,), 0, 30)
        state, _ = learner.step(state, jax.tree.map(lambda leaf: leaf[index], tasks))
        return state, jnp.sum((state.params - optimum) ** 2)

    def run(key):
        return jax.lax.scan(step, learner.init(jnp.asarray(optimum)), jax.random.split(key, 2000))[1][1000:]

    return float(jnp.mean(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 100))))


def measure():
    with jax.enable_x64(True):
        tasks = family(jax.random.key(0), 30)
        optimum = ml.theory.moreau(tasks, STEP_SIZE).stationary_point()
        biases = [bias(tasks, optimum, s) for s in range(1, 5)]
        return {
            "contraction": STEP_SIZE * float(np.linalg.eigvalsh(tasks.support.hessian).max()),
            "ratio": (biases[-1] / biases[0]) ** (1 / 3),
            "one": noise(tasks, optimum, 1, 0.1),
            "four": noise(tasks, optimum, 4, 0.1),
            "quarter": noise(tasks, optimum, 1, 0.025),
        }


CLAIM = Claim(
    order=3,
    lessons=("09",),
    tests=("test_fo_muml",),
    title="FO-MuML",
    system="`fo_muml`",
    paper="Mishchenko, Hanzely & Richtárik 2023, [2301.06806](https://arxiv.org/abs/2301.06806)",
    exact="the gradient of the Moreau envelope, up to a relative error of $(\\alpha L)^{K+1}$",
    finding=(
        "Each further inner step finds the gradient of the Moreau envelope more precisely. At α L = "
        "{contraction:.2g} every step multiplies the distance from the optimum of the envelope, at which outer "
        "training ends, by {ratio:.2g}. When each outer step sees a single random task, noise hides this: the mean "
        "squared distance is {one:.2g} with one inner step and {four:.2g} with four, and a quarter of the outer "
        "learning rate helps more ({quarter:.2g} with one inner step)."
    ),
    measure=measure,
    holds=lambda f: (
        0.7 * f["contraction"] < f["ratio"] < 1.2 * f["contraction"]
        and abs(f["four"] / f["one"] - 1) < 0.3
        and f["quarter"] < f["one"] / 3
    ),
)
