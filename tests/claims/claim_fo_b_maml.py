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
from metalearn.adaptation.inner import descend, proximal

STRENGTH, PERTURBATION, STEP_SIZE, NUM_STEPS, OUTER_STEPS = 2.0, 0.01, 0.25, 60, 1000
family = ml.tasks.Quadratic(dim=5, query_curvature=(0.2, 2.0))


def proximal_shortcut(params, task):
    """The query gradient at the proximal solution: what FO-MAML would be with a proximal term in its inner loop."""
    objective = proximal(lambda phi: family.loss(phi, task.support), params, STRENGTH)
    return jax.value_and_grad(family.loss)(descend(objective, optax.sgd(STEP_SIZE), NUM_STEPS, params), task.query)


def wave(z):
    """A loss with curvatures between 0.1 and 1.9. The curvature of its meta-objective grows with the distance."""
    return z**2 / 2 + 0.9 * jnp.cos(z)


def cliff(z):
    """A loss whose own curvature grows with its gradient."""
    return jnp.exp(z) - z


def descents(query_loss, start, num_steps=300):
    """|F'| after plain descent at its largest stable step, and after SNGDM with the best step that falls to zero.

    The steps are 19, each twice the last. One is stable if the run never leaves the interval between its start and the
    mirror image of that.
    """

    def loss(z, batch):
        center, is_query = batch
        return jnp.mean(jnp.where(is_query, query_loss(z - center), (z - center) ** 2 / 2))

    gradient = ml.fo_b_maml_limit(loss, optax.sgd(0.3), 60, 1.0)
    centers = jnp.array([-1.0, 0.0, 2.0])[:, None]
    tasks = ml.Task((centers, jnp.zeros((3, 1), bool)), (centers, jnp.ones((3, 1), bool)))

    def run(outer):
        learner = ml.meta_learner(gradient, outer)

        def one_step(state, _):
            after, info = learner.step(state, tasks)
            return after, (state.params, info.grad_norm)

        return jax.lax.scan(one_step, learner.init(jnp.array(start)), length=num_steps)[1]

    def falling(e):
        return ml.outer.normalized_sgd_momentum(optax.linear_schedule(e, 0.0, num_steps), 0.9)

    steps = 2.0 ** np.arange(-12, 7)
    places, plain = jax.jit(jax.vmap(lambda e: run(optax.sgd(e))))(steps)
    stable = (jnp.abs(places) <= start).all(axis=1)
    _, normalized = jax.jit(jax.vmap(lambda e: run(falling(e))))(steps)
    return float(plain[stable][-1, -1]), float(normalized[:, -1].min())


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
            """The norm of the objective's gradient at the end, as a fraction of that at the start."""
            learner = ml.meta_learner(methods[name], optax.sgd(0.5))
            end, _ = jax.jit(
                lambda state: jax.lax.scan(lambda s, _: learner.step(s, tasks), state, length=OUTER_STEPS)
            )(learner.init(start))
            at_end, at_start = (np.linalg.norm(objectives[name].meta_gradient(x)) for x in (end.params, start))
            return at_end / at_start

        (wave_sgd, wave_sngdm), (cliff_sgd, cliff_sngdm) = descents(wave, 20.0), descents(cliff, 12.0)
        return {name: left(name) for name in methods} | {
            "wave_sgd": wave_sgd,
            "wave_sngdm": wave_sngdm,
            "cliff_sgd": cliff_sgd,
            "cliff_sngdm": cliff_sngdm,
        }


CLAIM = Claim(
    order=1,
    lessons=("05", "07"),
    tests=("test_oracles", "test_fo_b_maml"),
    title="FO-B-MAML",
    system="`fo_b_maml`, `fo_b_maml_limit`",
    paper="Chayti & Jaggi 2024, [2409.03682](https://arxiv.org/abs/2409.03682)",
    exact=(
        "when the inner loops have converged, up to an error O(ν) for `forward` and O(ν²) for `symmetric`; "
        "the limit ν → 0 has no such error"
    ),
    finding=(
        "Outer training on quadratic tasks ends where the meta-objective is stationary: the norm of the exact "
        "meta-gradient falls to {fo_b_maml:.2g} of what it was at the initialization. The cheaper methods, each "
        "judged on its own objective, stop at {fo_maml:.2g} (FO-MAML), {reptile:.2g} (Reptile) and {shortcut:.2g} "
        "(the query gradient at the proximal solution). The paper also advises normalized outer steps with "
        "momentum, because the curvature of the meta-objective grows with its gradient. Whether this pays depends "
        "on the loss. Where the query loss grows exponentially, the best of 19 decaying learning rates leaves a "
        "gradient of {cliff_sngdm:.2g}, against {cliff_sgd:.2g} for plain descent at its largest stable learning "
        "rate. Where the query loss is a wave, plain descent wins, with less than 1e-10 against {wave_sngdm:.2g}."
    ),
    measure=measure,
    holds=lambda f: (
        min(f["shortcut"], f["fo_maml"], f["reptile"]) > 100 * f["fo_b_maml"]
        and 2 * f["cliff_sngdm"] < f["cliff_sgd"]
        and f["wave_sgd"] < 1e-10 < f["wave_sngdm"]
    ),
)
