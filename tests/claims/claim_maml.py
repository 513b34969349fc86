"""Multi-step MAML: with a fixed inner step the meta-objective bends without limit as the number of steps K grows.

Twenty tasks with wavy losses, sum_j (1 - cos(w_j - b_j)) in ten dimensions; each coordinate has curvatures up to L = 1.
The curvature of F is measured at random points, by differentiating the meta-gradient once more.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claim import Claim

import metalearn as ml

STEPS = (4, 8, 16, 32)


def wave(params, phase):
    return jnp.sum(1 - jnp.cos(params - phase))


@functools.partial(jax.jit, static_argnames="num_steps")
def smoothness(step_size, num_steps, phases, points):
    """The largest |eigenvalue| of hess F over the points; it is diagonal, so its product with ones shows them all."""
    meta_gradient = ml.maml(wave, optax.sgd(step_size), num_steps)

    def slope(params):
        _, gradients = jax.vmap(meta_gradient, in_axes=(None, 0))(params, ml.Task(phases, phases))
        return gradients.mean(axis=0)

    return jnp.abs(jax.vmap(lambda w: jax.jvp(slope, (w,), (jnp.ones_like(w),))[1])(points)).max()


def measure():
    with jax.enable_x64(True):
        phases = jax.random.uniform(jax.random.key(6), (20, 10), maxval=2 * jnp.pi)
        points = jax.random.uniform(jax.random.key(7), (100, 10), maxval=2 * jnp.pi)

        def ratio(step_size):
            few, many = (float(smoothness(step_size(n), n, phases, points)) for n in (1, 16))
            return many / few

        def largest_step(num_steps):
            """By bisection: the largest step with which F is as smooth as the tasks."""
            low, high = 0.0, 4 / num_steps
            for _ in range(16):
                middle = (low + high) / 2
                smooth = smoothness(middle, num_steps, phases, points) <= 1
                low, high = (middle, high) if smooth else (low, middle)
            return low

        largest = [largest_step(n) for n in STEPS]
        return {
            "thousands": ratio(lambda n: 0.5) / 1e3,
            "scaled": ratio(lambda n: 1 / (8 * n)),
            "power": -np.polyfit(np.log(STEPS), np.log(largest), 1)[0],
        }


CLAIM = Claim(
    order=2,
    lessons=("02", "03"),
    tests=("test_oracles", "test_multi_step"),
    title="MAML and FO-MAML",
    system="`maml`, `fo_maml` with `resample`",
    paper="Ji, Yang & Liang 2022, [2002.07836](https://arxiv.org/abs/2002.07836)",
    exact=(
        "`maml` is the gradient of the loss after K steps, on one support set or on a new batch at each step "
        "(`resample`); `fo_maml` has a bias O(α K)"
    ),
    finding=(
        "The paper shows that more inner steps make the meta-objective less smooth unless the inner learning rate "
        "falls. On tasks with wavy losses the largest curvature of the meta-objective grows by a factor of "
        "{thousands:.2g} thousand from K = 1 to K = 16 with a fixed inner learning rate, and by one of {scaled:.3g} "
        "with α = 1/(8 K), which also keeps the inner training time α K the same. The largest α that keeps the meta-"
        "objective as smooth as the tasks themselves falls about like 1/K: the fitted exponent is {power:.3g}."
    ),
    measure=measure,
    holds=lambda f: f["thousands"] > 1 and 0.9 < f["scaled"] < 1.1 and 0.9 < f["power"] < 1.1,
)
