"""FO-B-MAML: the meta-gradient is how the solution moves when the query loss leans on it.

(Chayti & Jaggi 2024, arXiv 2409.03682; h: support, f: query, l: proximal strength, v: perturbation)

    phi_v(theta)  = argmin_phi  v f(phi) + h(phi) + l/2 ||phi - theta||^2
    grad f(phi_0(theta)) = -l  d phi_v / d v  at v = 0

    forward       l (phi_0 - phi_v) / v                                                error O(v)
    symmetric     l (phi_-v - phi_v) / (2 v)                                           error O(v^2)
    three_point   l (3 phi_0 - 4 phi_v + phi_2v) / (2 v)                               error O(v^2)
    fourth_order  l (-phi_-2v + 8 phi_-v - 8 phi_v + phi_2v) / (12 v)                  error O(v^4)

The first two are the paper's. The third leans on one side only, so every inner problem keeps its minimum; the fourth is
the central difference of Chen, Li, Chayti & Zhang (F2SA-p). Only gradients are needed, of a first-order inner loop.
Where only some of the parameters adapt (ANIL), the others receive d/dv of grad [v f + h] at phi_v.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn import _require
from metalearn.adaptation.inner import adapting, descend, proximal
from metalearn.task import Loss, MetaGradient

# For each estimator: where to solve, in units of v; the weights of d/dv; the weights that give back phi_0.
STENCILS = {
    "forward": ((0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)),
    "symmetric": ((-1.0, 1.0), (-1 / 2, 1 / 2), (1 / 2, 1 / 2)),
    "three_point": ((0.0, 1.0, 2.0), (-3 / 2, 2.0, -1 / 2), (1.0, 0.0, 0.0)),
    "fourth_order": ((-2.0, -1.0, 1.0, 2.0), (1 / 12, -2 / 3, 2 / 3, -1 / 12), (-1 / 6, 2 / 3, 2 / 3, -1 / 6)),
}


def fo_b_maml(
    loss: Loss,
    inner: optax.GradientTransformation,
    num_steps: int,
    proximal_strength: float,
    perturbation: float,
    estimator: str = "symmetric",
    perturbed_steps: int | None = None,
) -> MetaGradient:
    """A finite difference of perturbed inner solutions.

    Cost: a loop that leans takes 2 K gradients and one that does not K, so "forward" takes 3 K a task, "symmetric" 4 K,
    "three_point" 5 K, "fourth_order" 8 K, each with one loss; with `perturbed_steps` P, as many times P, and K. Memory:
    flat in K; the solutions that lean are computed side by side. Exact when the inner loops have converged, up to the
    error in v.

    Choosing v: a large one costs accuracy, and where -v f enters (symmetric, fourth_order) it can leave the inner
    problem without a minimum, so that the loop runs away: it is safe while v (or 2 v) times the largest curvature of f
    stays below l plus the smallest curvature of h. A tiny one drowns in rounding: in float32 take 0.01 to 0.1, in
    float64 1e-4. All solutions take the same steps from the same start, so what they lack to convergence nearly
    cancels; only independent errors of size d are amplified, to l d / v.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule; it receives the gradient of v f(phi) + h(phi) + l/2 ||phi - theta||^2.
      num_steps: K >= 1.
      proximal_strength: l > 0, in units of curvature (loss / params^2); it may be traced.
      perturbation: v > 0, a pure number; it may be traced.
      estimator: "symmetric", "forward", "three_point" or "fourth_order".
      perturbed_steps: P >= 1. When given, the K steps are taken once, unperturbed, and each solution is P steps from
        where they end. With gradient steps of size a, (I - a M)^P of the gradient is then missing, M being the Hessian
        of the inner problem: P = 1 leaves l a grad f(phi_0), and P must be about as large as K. At equal cost the error
        is much that of None, which takes all K steps for each solution.

    Returns:
      A function (params, task) -> (query loss, meta-gradient). The loss is taken at phi_0, or where -v f enters at its
      interpolation, off by O(v^2) (symmetric) or O(v^4) (fourth_order); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)
    _require.positive(proximal_strength=proximal_strength, perturbation=perturbation)
    if perturbed_steps is not None:
        _require.count(at_least=1, perturbed_steps=perturbed_steps)
    if not isinstance(estimator, str) or estimator not in STENCILS:
        raise ValueError(f"estimator must be one of {', '.join(map(repr, STENCILS))}, but it is {estimator!r}.")
    offsets, slope_weights, value_weights = map(np.array, STENCILS[estimator])

    @_require.params_and_task
    def meta_gradient(params, task):
        start, steps = params, num_steps
        if perturbed_steps is not None:
            unperturbed = proximal(lambda phi: loss(phi, task.support), params, proximal_strength)
            start, steps = descend(unperturbed, inner, num_steps, params), perturbed_steps

        adapts = adapting(inner, num_steps, params)

        def solve(objective):
            adapted = descend(proximal(objective, params, proximal_strength), inner, steps, start)
            return adapted, _pull(objective, adapted, adapts, proximal_strength)

        solved = jax.vmap(lambda v: solve(_leaning(loss, task, v)))(perturbation * offsets[offsets != 0])
        if offsets[0] == 0:  # this one needs no query gradients
            upright = solve(lambda phi: loss(phi, task.support))
            solved = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), upright, solved)
        solutions, pulls = solved
        return loss(_combine(value_weights, solutions), task.query), _combine(slope_weights / perturbation, pulls)

    return meta_gradient


def fo_b_maml_limit(
    loss: Loss, inner: optax.GradientTransformation, num_steps: int, proximal_strength: float
) -> MetaGradient:
    """What the estimators of `fo_b_maml` tend to as v -> 0: -l d phi_v / d v, by one forward derivative of the solver.

    There is no v to choose and no cancellation, but it is no first-order method: the derivative of a gradient step is a
    Hessian-vector product. Cost: 2 K gradients and as many of these products a task. Memory: flat in K, as nothing runs
    backwards. Exact when the inner loop has converged; before, it is what the estimators tend to at the same K.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule; it receives the gradient of v f(phi) + h(phi) + l/2 ||phi - theta||^2.
      num_steps: K >= 1.
      proximal_strength: l > 0, in units of curvature (loss / params^2); it may be traced.

    Returns:
      A function (params, task) -> (query loss at phi_0, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)
    _require.positive(proximal_strength=proximal_strength)

    @_require.params_and_task
    def meta_gradient(params, task):
        adapts = adapting(inner, num_steps, params)

        def solution(v):
            leaning = _leaning(loss, task, v)
            adapted = descend(proximal(leaning, params, proximal_strength), inner, num_steps, params)
            return adapted, _pull(leaning, adapted, adapts, proximal_strength)

        (adapted, _), (_, gradient) = jax.jvp(solution, (0.0,), (1.0,))
        return loss(adapted, task.query), gradient

    return meta_gradient


def _leaning(loss, task, v):
    """The perturbed inner objective, without its spring: v f(phi) + h(phi)."""
    return lambda phi: v * loss(phi, task.query) + loss(phi, task.support)


def _pull(leaning, adapted, adapts, strength):
    """What the gradient is the slope of in v: -l phi_v where params adapt, grad [v f + h] where they are held (ANIL).

    Both are the derivative in theta of the least value of the inner objective, but for l theta, which does not depend
    on v. When everything adapts, the compiler leaves the gradient out.
    """
    return jax.tree.map(
        lambda moves, phi, slope: jnp.where(moves, -strength * phi, slope), adapts, adapted, jax.grad(leaning)(adapted)
    )


def _combine(weights, solutions):
    """The weighted sum over the leading axis; precise, as an accelerator's quick product would be all rounding."""
    return jax.tree.map(
        lambda phi: jnp.tensordot(weights, phi, axes=1, precision="highest").astype(phi.dtype), solutions
    )
