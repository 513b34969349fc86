"""FO-B-MAML: the meta-gradient is how the solution moves when the query loss leans on it.

(Chayti & Jaggi 2024, arXiv 2409.03682; h: support, f: query, l: proximal strength, v: perturbation)

    phi_v(theta)  = argmin_phi  v f(phi) + h(phi) + l/2 ||phi - theta||^2
    grad f(phi_0(theta)) = -l  d phi_v / d v  at v = 0

    forward     l (phi_0 - phi_v) / v          error O(v)
    symmetric   l (phi_-v - phi_v) / (2 v)     error O(v^2)

Only gradients are needed, of a first-order inner loop that is run twice.
"""

import jax
import jax.numpy as jnp
import optax

from metalearn import _require
from metalearn.inner import descend, proximal
from metalearn.task import Loss, MetaGradient

# For each estimator: where to solve, in units of v; the weights of d/dv; the weights that give back phi_0.
STENCILS = {
    "forward": ((0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)),
    "symmetric": ((-1.0, 1.0), (-0.5, 0.5), (0.5, 0.5)),
}


def fo_b_maml(
    loss: Loss,
    inner: optax.GradientTransformation,
    num_steps: int,
    proximal_strength: float,
    perturbation: float,
    estimator: str = "symmetric",
) -> MetaGradient:
    """A finite difference of two perturbed inner solutions.

    Cost: 4 K gradients a task (support and query, for two solutions) and one loss. Memory: flat in K.

    Choosing v: a large one costs accuracy, and in the symmetric form, whose second problem has -v f, it can leave the
    inner problem without a minimum (it is safe while v times the largest curvature of f stays below l plus the
    smallest curvature of h). A tiny one drowns in rounding: in float32 take 0.01 to 0.1, in float64 1e-4.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule; it receives the gradient of v f(phi) + h(phi) + l/2 ||phi - theta||^2.
      num_steps: K >= 1.
      proximal_strength: l > 0, in units of curvature (loss / params^2).
      perturbation: v > 0, a pure number.
      estimator: "symmetric" or "forward".

    Returns:
      A function (params, task) -> (query loss, meta-gradient). The loss is taken at phi_0 (forward) or half way between
      the two solutions, which is phi_0 + O(v^2) (symmetric); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)
    _require.positive(proximal_strength=proximal_strength, perturbation=perturbation)
    if estimator not in STENCILS:
        raise ValueError(f"estimator must be one of {', '.join(map(repr, STENCILS))}, but it is {estimator!r}.")
    offsets, slope_weights, value_weights = map(jnp.array, STENCILS[estimator])

    def meta_gradient(params, task):
        def solution(v):
            def perturbed(phi):
                return v * loss(phi, task.query) + loss(phi, task.support)

            return descend(proximal(perturbed, params, proximal_strength), inner, num_steps, params)

        solutions = jax.vmap(solution)(perturbation * offsets)
        slope = _combine(slope_weights / perturbation, solutions)
        return loss(_combine(value_weights, solutions), task.query), optax.tree.scale(-proximal_strength, slope)

    return meta_gradient


def _combine(weights, solutions):
    return jax.tree.map(lambda phi: jnp.tensordot(weights, phi, axes=1).astype(phi.dtype), solutions)
