"""The inner loop: K steps of any optax transformation on one task's objective.

    phi_0 = theta,   phi_{k+1} = phi_k + update(grad objective(phi_k))

The transformation also says which parameters adapt, and how fast:

    ANIL (Raghu, Raghu, Bengio & Vinyals 2019, arXiv 1909.09157): only the last layer adapts, the others are learned.
        inner = optax.selective_transform(optax.sgd(0.1), freeze_mask={"hidden": True, "output": False})
        (Not optax.masked: it hands the gradient of the other parameters on as their update.)
    Meta-SGD (Li, Zhou, Chen & Li 2017, arXiv 1707.09835): each parameter has its own rate, which is learned.
        inner = learned_rates(), with params = with_rates(params, 0.1)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn import _require
from metalearn.task import Batch, Loss, Params

Objective = Callable[[Params], jax.Array]


class InnerState(NamedTuple):
    """Where an inner loop stands.

    Attributes:
      params: the parameters after the steps so far.
      opt_state: what the optax transformation remembers.
    """

    params: Params
    opt_state: Any


def init(inner: optax.GradientTransformation, start: Params) -> InnerState:
    """The state before the first inner step."""
    return InnerState(start, inner.init(start))


def step(objective: Objective, inner: optax.GradientTransformation, state: InnerState) -> InnerState:
    """One inner step on `objective`: params -> scalar."""
    gradient = jax.grad(objective)(state.params)
    updates, opt_state = inner.update(gradient, state.opt_state, state.params)
    return InnerState(optax.apply_updates(state.params, updates), opt_state)


def descend(
    objective: Objective, inner: optax.GradientTransformation, num_steps: int, start: Params, remat: bool = False
) -> Params:
    """The parameters after `num_steps` inner steps.

    Differentiable in `start` and in everything `objective` closes over.

    Args:
      objective: params -> scalar, to be made small.
      inner: the step rule, for instance optax.sgd(0.01). An adaptive rule needs `eps_root > 0` if it is
        differentiated (optax.adam(1e-2, eps_root=1e-8)); without it the slope of the square root at a
        zero gradient is infinite, and the meta-gradient is NaN.
      num_steps: K >= 0, fixed when the program is compiled.
      start: any pytree of floating-point arrays.
      remat: whether a derivative of the loop recomputes what it needs, a segment at a time, instead of keeping it: one
        more pass over the steps, and memory of about 2 sqrt(K) copies of the state instead of all intermediate values
        of K steps.

    Returns:
      A pytree like `start`.
    """
    return _walk(lambda state, _: step(objective, inner, state), init(inner, start), None, num_steps, remat).params


def descend_on_batches(
    loss: Loss, inner: optax.GradientTransformation, batches: Batch, start: Params, remat: bool = False
) -> Params:
    """The parameters after one inner step on each batch in turn: phi_{k+1} = phi_k + update(grad loss(phi_k, batch_k)).

    Args:
      loss: scalar loss of (params, batch).
      inner: the step rule, as in `descend`.
      batches: a batch whose arrays have one more leading axis, of length K, which counts the steps.
      start: any pytree of floating-point arrays.
      remat: as in `descend`.

    Returns:
      A pytree like `start`.
    """

    def one_step(state, batch):
        return step(lambda phi: loss(phi, batch), inner, state)

    num_steps = _require.same_leading_axis("inner steps", batches)
    return _walk(one_step, init(inner, start), batches, num_steps, remat).params


def _walk(one_step, state, batches, num_steps, remat):
    """one_step(state, batch) `num_steps` times; with remat as about sqrt(K) segments of sqrt(K) steps."""

    def steps(state, batches, length):
        return jax.lax.scan(lambda state, batch: (one_step(state, batch), None), state, batches, length)[0]

    if not remat:
        return steps(state, batches, num_steps)
    one_step = jax.checkpoint(one_step)
    size = max(1, math.isqrt(num_steps))
    whole = num_steps - num_steps % size
    segments = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), batches)
    segment = jax.checkpoint(lambda state, batches: steps(state, batches, size))
    state, _ = jax.lax.scan(lambda state, batches: (segment(state, batches), None), state, segments, whole // size)
    return steps(state, jax.tree.map(lambda leaf: leaf[whole:], batches), num_steps - whole)


def proximal(objective: Objective, center: Params, strength: jax.typing.ArrayLike) -> Objective:
    """The objective with a spring to `center`: objective(phi) + strength/2 ||phi - center||^2."""
    return lambda params: (
        objective(params) + strength / 2 * optax.tree.norm(optax.tree.sub(params, center), squared=True)
    )


def adapting(inner: optax.GradientTransformation, num_steps: int, params: Params) -> Params:
    """Which parameters the rule moves: those that get an update in `num_steps` steps along a constant gradient.

    Runs once, while a program is traced, and needs the shapes of params only. A rule whose numbers are known only when
    the compiled program runs is taken to move everything.

    Returns:
      A pytree like params, of boolean numpy arrays.
    """

    def one_step(carry, _):
        opt_state, moved = carry
        updates, opt_state = inner.update(optax.tree.scale(-1, ones), opt_state, ones)
        return (opt_state, jax.tree.map(lambda before, update: before | (update != 0), moved, updates)), None

    def known(leaf):
        return np.ones(leaf.shape, bool) if isinstance(leaf, jax.core.Tracer) else np.asarray(leaf)

    with jax.ensure_compile_time_eval():
        ones = jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), jnp.result_type(leaf)), params)
        nothing = optax.tree.zeros_like(ones, dtype=bool)
        (_, moved), _ = jax.lax.scan(one_step, (inner.init(ones), nothing), length=num_steps)
        return jax.tree.map(known, moved)


class WithRates(NamedTuple):
    """Parameters that carry their own inner step sizes.

    Attributes:
      start: the parameters from which tasks adapt, any pytree.
      rates: a, a pytree like start, in units of params / gradient.
    """

    start: Params
    rates: Params


def with_rates(params: Params, rate: float) -> WithRates:
    """The params of Meta-SGD, before meta-training: every rate is `rate` > 0."""
    _require.positive(rate=rate)
    return WithRates(params, optax.tree.full_like(params, rate))


def learned_rates() -> optax.GradientTransformation:
    """Meta-SGD: phi_{k+1} = phi_k - a o grad h(phi_k), the rates `a` being part of params and learned with the start.

        params = with_rates(params, 0.1)
        meta_gradient = maml(lambda p, batch: loss(p.start, batch), learned_rates(), num_steps)

    As in the paper a rate may become negative. It takes a derivative of the steps to learn rates, as in `maml` and
    `hf_maml`. The others see no use in them: `fo_maml` because it ignores the steps, `imaml` and `fo_b_maml` because
    where the inner loop ends, if it converges, does not depend on its rates. Their gradient for the rates is zero.

    Raises:
      TypeError: by `update`, if params is no WithRates.
    """

    def update(gradient, params):
        if not isinstance(params, WithRates):
            raise TypeError(
                "learned_rates() needs params that carry their rates, inner.with_rates(params, 0.1), "
                f"but params is a {type(params).__name__}."
            )
        return WithRates(
            jax.tree.map(lambda rate, slope: -rate * slope, params.rates, gradient.start),
            optax.tree.zeros_like(gradient.rates),
        )

    return optax.stateless(update)
