"""iMAML: exact once the inner loop has converged, misleading before; FO-B-MAML degrades gracefully instead.

Eight quadratic tasks in float64, whose proximal meta-gradient is known in closed form. The inner loop takes a few or
many gradient steps; conjugate gradients take as many steps as there are parameters, so that they are exact.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml
from metalearn import theory

STRENGTH, LEARNING_RATE, DIM = 0.1, 0.1, 5
tasks_of = ml.tasks.Quadratic(dim=DIM, support_curvature=(0.2, 5.0))


def measure():
    with jax.enable_x64(True):
        tasks, params = tasks_of(jax.random.key(0), 8), 3.0 * jnp.ones(DIM)
        exact = theory.proximal(tasks, STRENGTH).task_gradients(params)

        def error(method, num_steps):
            inner = optax.sgd(LEARNING_RATE)
            meta_gradient = {
                "imaml": lambda: ml.imaml(tasks_of.loss, inner, num_steps, STRENGTH, cg_steps=DIM),
                "fo_b_maml": lambda: ml.fo_b_maml(tasks_of.loss, inner, num_steps, STRENGTH, 1e-4),
            }[method]()
            _, found = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(params, tasks)
            relative = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
            return 100 * float(np.median(relative))

        return {
            f"{method}_{num_steps}": error(method, num_steps)
            for method in ("imaml", "fo_b_maml")
            for num_steps in (5, 1000)
        }


CLAIM = Claim(
    order=12,
    lessons=("04",),
    tests=("test_oracles",),
    title="iMAML",
    system="`imaml`",
    paper="Rajeswaran, Finn, Kakade & Levine 2019, [1909.04630](https://arxiv.org/abs/1909.04630)",
    exact=(
        "when both the inner loop and conjugate gradients have converged; on an unconverged inner loop it can "
        "be far off"
    ),
    finding=(
        "On quadratic tasks with a weak proximal term the median error of one task's meta-gradient is less than 1e-6 % "
        "after 1000 inner steps. After 5 inner steps, which are far from converged, it is {imaml_5:.3g} %, because "
        "implicit differentiation holds at the minimum only. FO-B-MAML, given the same "
        "5 steps, is off by {fo_b_maml_5:.3g} %: less, but useless as well."
    ),
    measure=measure,
    holds=lambda f: f["imaml_1000"] < 1e-6 and f["fo_b_maml_1000"] < 1e-3 and f["imaml_5"] > 2 * f["fo_b_maml_5"],
)
