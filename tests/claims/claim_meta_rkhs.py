"""Zhou et al. 2021: adaptation in closed form against MAML; and the regularizer against no adaptation at all."""

import jax
import jax.numpy as jnp
import optax
from claim import Claim
from flax import nnx

import metalearn as ml

TIME, STEP_SIZE, REGULARISER = 1.0, 0.02, (1e-4, 1e-3, 1e-2)


def measure():
    """Mean squared error on 500 new sine tasks, after 1,000 outer steps of 8 tasks by each method."""
    with jax.enable_x64(True):
        network = ml.models.MLP((1, 40, 40, 1), activation=jnp.tanh, rngs=nnx.Rngs(0))
        params, apply = ml.models.functional(network)
        params = jax.tree.map(lambda leaf: leaf.astype(float), params)
        loss, sample = ml.losses.mean_squared_error(apply), ml.tasks.Sinusoid()
        tasks = sample(jax.random.key(1), 500)

        def trained(meta_gradient):
            learner = ml.meta_learner(meta_gradient, optax.adam(2e-3))
            return ml.fit(learner, params, sample, 1000, 8, jax.random.key(0), progress=False).params

        inner, flow = optax.sgd(STEP_SIZE), ml.gradient_flow(apply, TIME)

        def by_steps(params, num_steps):
            return float(ml.evaluate.adaptation_curve(loss, inner, params, tasks, 10)[num_steps].mean())

        def in_closed_form(params):
            return float(ml.kernel.query_losses(flow, params, tasks).mean())

        second = trained(ml.meta_rkhs_ii(apply, TIME))
        maml = trained(ml.maml(loss, inner, 5))
        return {
            "second": in_closed_form(second),
            "second_by_steps": by_steps(second, 5),
            "maml": by_steps(maml, 5),
            "maml_in_closed_form": in_closed_form(maml),
            "first": min(by_steps(trained(ml.meta_rkhs_i(loss, a)), 10) for a in REGULARISER),
            "joint": by_steps(trained(ml.maml(loss, inner, 0)), 10),
            "maml_by_10": by_steps(maml, 10),
        }


CLAIM = Claim(
    order=9,
    lessons=("11",),
    tests=("test_meta_rkhs",),
    title="Meta-RKHS I and II",
    system="`meta_rkhs_i`, `meta_rkhs_ii`",
    paper="Zhou, Wang, Xian, Chen & Xu 2021, [2102.03909](https://arxiv.org/abs/2102.03909)",
    exact=(
        "I: its regularized loss, which is one step of MAML up to O(α²). II: gradient flow with a frozen "
        "tangent kernel, up to O(1/m) for its discrete time"
    ),
    finding=(
        "On sine curves, Meta-RKHS II adapts in closed form to an error of {second:.2g}, where MAML has {maml:.2g} "
        "after its 5 steps. A network that was trained for the closed form needs it: adapted by 5 gradient steps "
        "it has {second_by_steps:.2g}. MAML's network in closed form has {maml_in_closed_form:.2g}. The advantage "
        "of Meta-RKHS I does not reproduce: after 10 gradient steps it has {first:.2g} at the best of 3 strengths "
        "of its regularizer, joint training {joint:.2g} and MAML {maml_by_10:.2g}."
    ),
    measure=measure,
    holds=lambda f: (
        2 * f["second"] < f["maml"]
        and 10 * f["second"] < f["second_by_steps"]
        and f["maml_in_closed_form"] < f["maml"]
        and f["first"] > 0.6 * f["joint"]
        and 3 * f["maml_by_10"] < f["first"]
    ),
)
