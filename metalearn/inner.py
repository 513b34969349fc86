"""The inner loop: K steps of any optax transformation on one task's objective.

phi_0 = theta,   phi_{k+1} = phi_k + update(grad objective(phi_k))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from metalearn.task import Params

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


def descend(objective: Objective, inner: optax.GradientTransformation, num_steps: int, start: Params) -> Params:
    """The parameters after `num_steps` inner steps.

    Differentiable in `start` and in everything `objective` closes over.

    Args:
      objective: params -> scalar, to be made small.
      inner: the step rule, for instance optax.sgd(0.01). An adaptive rule needs `eps_root > 0` if it is
        differentiated (optax.adam(1e-2, eps_root=1e-8)); without it the slope of the square root at a
        zero gradient is infinite, and the meta-gradient is NaN.
      num_steps: K >= 0, fixed when the program is compiled.
      start: any pytree of floating-point arrays.

    Returns:
      A pytree like `start`.
    """
    end, _ = jax.lax.scan(lambda state, _: (step(objective, inner, state), None), init(inner, start), length=num_steps)
    return end.params


def proximal(objective: Objective, center: Params, strength: jax.typing.ArrayLike) -> Objective:
    """The objective with a spring to `center`: objective(phi) + strength/2 ||phi - center||^2."""
    return lambda params: (
        objective(params) + strength / 2 * optax.tree.norm(optax.tree.sub(params, center), squared=True)
    )
