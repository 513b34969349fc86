"""FO-B-MAML: the outer loop ends where its objective is stationary; the first-order shortcuts stop elsewhere.

Eight quadratic tasks, the same at every outer step. Each method is judged on the objective that it stands for, whose
gradient is known in closed form: the loss at the proximal solution, or the loss after K unrolled steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml
from metalearn import theory
from metalearn.inner import descend, proximal

STRENGTH, PERTURBATION, STEP_SIZE, NUM_STEPS, OUTER_STEPS = 2.0, 0.01, 0.25, 60, 1000
family = ml.tasks.Quadratic(dim=5, query_curvature=(0.2, 2.0))


def proximal_shortcut(params, task):
    """The query gradient at the proximal solution: what FO-MAML would be with a spring in its inner loop."""
    objective = proximal(lambda phi: family.loss(phi, task.support), params, STRENGTH)
    return jax.value_and_grad(family.loss)(descend(objective, optax.sgd(STEP_SIZE), NUM_STEPS, params), task.query)


def measure():
    with jax.enable_x64(True):
        tasks, start = family(jax.random.key(0), 8), jnp.ones(5)
        inner, short = optax.sgd(STEP_SIZE), 5
        methods = {
            "fo_b_maml": ml.fo_b_maml(family.loss, inner, NUM_STEPS, STRENGTH, PERTURBATION),
            "shortcut": proximal_shortcut,
            "fo_maml": ml.fo_maml(family.loss, inner, short),
            "reptile": ml.reptile(family.loss, inner, short),
        }
        springs, loops = theory.proximal(tasks, STRENGTH), theory.unrolled(tasks, STEP_SIZE, short)
        objectives = {"fo_b_maml": springs, "shortcut": springs, "fo_maml": loops, "reptile": loops}

        def left(name):
            """The length of the objective's gradient at the end, as a fraction of that at the start."""
            learner = ml.meta_learner(methods[name], optax.sgd(0.5))
            end, info = jax.jit(
                lambda state: jax.lax.scan(lambda s, _: learner.step(s, tasks), state, length=OUTER_STEPS)
            )(learner.init(start))
            print(name, info.grad_norm[-1])
            at_end, at_start = (np.linalg.norm(objectives[name].meta_gradient(x)) for x in (end.params, start))
            return at_end / at_start

        return {name: left(name) for name in methods}


CLAIM = Claim(
    order=1,
    system="`fo_b_maml`",
    paper="",
    exact="",
    cost="",
    memory="",
    finding="{fo_b_maml:.2g} {shortcut:.2g} {fo_maml:.2g} {reptile:.2g}",
    measure=measure,
    holds=lambda f: min(f["shortcut"], f["fo_maml"], f["reptile"]) > 100 * f["fo_b_maml"],
)
