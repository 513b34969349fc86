"""Reptile: for a small inner learning rate it converges between joint training and MAML, and so does FO-MAML.

Nichol et al. expand the meta-gradients in α. Joint training has no term in α, MAML has a full one, FO-MAML has half of
it and Reptile (K - 1) / (4 K). The points to which they converge then lie at these fractions of the way. There are
eight quadratic tasks whose support and query losses are the same, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml

LEARNING_RATE, NUM_STEPS, OUTER_STEPS = 0.001, 5, 3000
tasks_of = ml.tasks.Quadratic(dim=5)


def measure():
    with jax.enable_x64(True):
        tasks = tasks_of(jax.random.key(0), 8)
        tasks = tasks._replace(query=tasks.support)
        inner = optax.sgd(LEARNING_RATE)

        def converged(meta_gradient, learning_rate=1.0):
            learner = ml.meta_learner(meta_gradient, optax.sgd(learning_rate))
            end, _ = jax.jit(
                lambda state: jax.lax.scan(lambda s, _: learner.step(s, tasks), state, length=OUTER_STEPS)
            )(learner.init(jnp.zeros(5)))
            return np.asarray(end.params)

        joint = converged(lambda params, task: jax.value_and_grad(tasks_of.loss)(params, task.query))
        whole = converged(ml.maml(tasks_of.loss, inner, NUM_STEPS)) - joint

        def fraction(end):
            return float((end - joint) @ whole / (whole @ whole))

        return {
            "fo_maml": fraction(converged(ml.fo_maml(tasks_of.loss, inner, NUM_STEPS))),
            # The displacement is about α K times a gradient.
            "reptile": fraction(
                converged(ml.reptile(tasks_of.loss, inner, NUM_STEPS), 1 / (LEARNING_RATE * NUM_STEPS))
            ),
            "predicted": (NUM_STEPS - 1) / (4 * NUM_STEPS),
        }


CLAIM = Claim(
    order=13,
    lessons=("03",),
    tests=("test_oracles",),
    title="Reptile",
    system="`reptile`",
    paper="Nichol, Achiam & Schulman 2018, [1803.02999](https://arxiv.org/abs/1803.02999)",
    exact="not the gradient of the loss after adaptation; to first order in α it lies between joint training and MAML",
    finding=(
        "On quadratic tasks with a small inner learning rate and five inner steps, Reptile converges to a point "
        "{reptile:.3g} of the way from the solution of joint training to that of MAML, where the expansion in α "
        "predicts {predicted:.3g}. FO-MAML converges to a point {fo_maml:.3g} of the way, where the prediction is 1/2."
    ),
    measure=measure,
    holds=lambda f: abs(f["reptile"] - f["predicted"]) < 0.01 and abs(f["fo_maml"] - 0.5) < 0.01,
)
