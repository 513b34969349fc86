"""FO-B-MAML: the meta-gradient is how the adapted parameters move when the query loss perturbs the inner problem.

(Chayti & Jaggi 2024, arXiv 2409.03682; h: support loss, f: query loss, λ: proximal strength, ν: perturbation)::

    φ_ν(θ)      = argmin_φ  ν f(φ) + h(φ) + λ/2 ‖φ - θ‖²
    ∇f(φ_0(θ))  = -λ dφ_ν/dν  at ν = 0

    forward       λ (φ_0 - φ_ν) / ν                                      error O(ν)
    symmetric     λ (φ_-ν - φ_ν) / (2 ν)                                 error O(ν²)
    three_point   λ (3 φ_0 - 4 φ_ν + φ_2ν) / (2 ν)                       error O(ν²)
    fourth_order  λ (-φ_-2ν + 8 φ_-ν - 8 φ_ν + φ_2ν) / (12 ν)            error O(ν⁴)

The first two are the paper's. The third perturbs in one direction only, so that every inner problem keeps its minimum;
the fourth is the central difference of Chen, Li, Chayti & Zhang (F2SA-p). All of them need only gradients, for a
first-order inner loop. Where only some of the parameters adapt (ANIL), the others receive d/dν of ∇[ν f + h] at φ_ν.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn import _require
from metalearn._cost import costs
from metalearn.adaptation.inner import adapting_to_stationarity, descend, proximal
from metalearn.task import Loss, MetaGradient, Number

# For each estimator: where to solve, in units of ν; the weights of d/dν; the weights that give back φ_0.
STENCILS = {
    "forward": ((0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)),
    "symmetric": ((-1.0, 1.0), (-1 / 2, 1 / 2), (1 / 2, 1 / 2)),
    "three_point": ((0.0, 1.0, 2.0), (-3 / 2, 2.0, -1 / 2), (1.0, 0.0, 0.0)),
    "fourth_order": ((-2.0, -1.0, 1.0, 2.0), (1 / 12, -2 / 3, 2 / 3, -1 / 12), (-1 / 6, 2 / 3, 2 / 3, -1 / 6)),
}


@costs(
    "(2*P + U)*K",
    losses=1,
    copies="4*P + U",
    outputs="3*P",
    where=(
        "P perturbed and U unperturbed problems are solved (forward: 1 and 1, symmetric: 2 and 0, three_point: 2 and "
        "1, fourth_order: 4 and 0)"
    ),
)
def fo_b_maml(
    loss: Loss,
    inner: optax.GradientTransformation,
    num_steps: int,
    proximal_strength: Number,
    perturbation: Number,
    estimator: str = "symmetric",
    perturbed_steps: int | None = None,
) -> MetaGradient:
    """A finite difference of perturbed inner solutions.

    The gradient is exact when the inner loops have converged, up to the error in ν. Take ν from 0.001 to 0.1 in
    float32, and about 1e-4 in float64. A larger ν is less accurate, and where -ν f enters (symmetric, fourth_order)
    it must leave the inner problem a minimum; a smaller one drowns in rounding. The perturbed problems are solved
    side by side; with `perturbed_steps` each of them takes that number of steps instead of K, after K unperturbed
    ones. The page "Choosing ν, λ, α and K" of the documentation says more about each of these numbers.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer; it receives the gradient of ν f(φ) + h(φ) + λ/2 ‖φ - θ‖².
      num_steps: K >= 1.
      proximal_strength: λ > 0, in units of curvature (loss / params²); it may be traced.
      perturbation: ν > 0, a pure number; it may be traced.
      estimator: "symmetric", "forward", "three_point" or "fourth_order".
      perturbed_steps: S >= 1. When given, the K steps are taken once, unperturbed, and each solution is S steps from
        where they end. With gradient steps of learning rate α, (I - α M)^S of the gradient is then missing, M being the
        Hessian of the inner problem: S = 1 leaves λ α ∇f(φ_0), and S must be about as large as K. At equal cost the
        error is about that of None, which takes all K steps for each solution.

    Returns:
      A function (params, task) -> (query loss, meta-gradient). The loss is taken at φ_0, or where -ν f enters at its
      interpolation, with an error of O(ν²) (symmetric) or O(ν⁴) (fourth_order); the gradient is a pytree like params.

    Raises:
      ValueError: by the function itself, where `inner` does not converge to φ_ν. Weight decay, for instance, belongs
        into the loss.

    Example:
      The exact meta-gradient is λ / (1 + λ) ∇f(φ_0) = -1.25, and the error that of ν:

      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> meta_gradient = ml.fo_b_maml(loss, optax.sgd(0.4), num_steps=50, proximal_strength=1.0, perturbation=0.1)
      >>> round(float(meta_gradient(jnp.array(0.0), task)[1]), 3)
      -1.253
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)
    _require.positive(proximal_strength=proximal_strength, perturbation=perturbation)
    if perturbed_steps is not None:
        _require.count(at_least=1, perturbed_steps=perturbed_steps)
    if not isinstance(estimator, str) or estimator not in STENCILS:
        raise ValueError(f"estimator must be one of {', '.join(map(repr, STENCILS))}, but it is {estimator!r}.")
    offsets, derivative_weights, value_weights = map(np.array, STENCILS[estimator])

    @_require.params_and_task
    def meta_gradient(params, task):
        adapts = adapting_to_stationarity("fo_b_maml", inner, num_steps, params)
        initial, steps = params, num_steps
        if perturbed_steps is not None:
            unperturbed = proximal(lambda phi: loss(phi, task.support), params, proximal_strength)
            initial, steps = descend(unperturbed, inner, num_steps, params), perturbed_steps

        def solve(objective):
            adapted = descend(proximal(objective, params, proximal_strength), inner, steps, initial)
            return adapted, _envelope_gradient(objective, adapted, adapts, proximal_strength)

        solved = jax.vmap(lambda nu: solve(_perturbed(loss, task, nu)))(perturbation * offsets[offsets != 0])
        if offsets[0] == 0:  # the unperturbed problem needs no query gradients
            unperturbed = solve(lambda phi: loss(phi, task.support))
            solved = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), unperturbed, solved)
        solutions, gradients = solved
        return loss(_combine(value_weights, solutions), task.query), _combine(
            derivative_weights / perturbation, gradients
        )

    return meta_gradient


@costs("2*K", "2*K", losses=1, copies="8", outputs="6")
def fo_b_maml_limit(
    loss: Loss, inner: optax.GradientTransformation, num_steps: int, proximal_strength: Number
) -> MetaGradient:
    """What the estimators of `fo_b_maml` tend to as ν → 0: -λ dφ_ν/dν, by one forward derivative of the inner loop.

    There is no ν to choose and no cancellation, but it is not a first-order method: the derivative of a gradient step
    is a Hessian-vector product. Nothing is backpropagated, so memory does not grow with K. The gradient is exact when
    the inner loop has converged; before, it is what the estimators tend to at the same K.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer; it receives the gradient of ν f(φ) + h(φ) + λ/2 ‖φ - θ‖².
      num_steps: K >= 1.
      proximal_strength: λ > 0, in units of curvature (loss / params²); it may be traced.

    Returns:
      A function (params, task) -> (query loss at φ_0, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError: by the function itself, where `inner` does not converge to φ_ν. Weight decay, for instance, belongs
        into the loss.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> meta_gradient = ml.fo_b_maml_limit(loss, optax.sgd(0.4), num_steps=50, proximal_strength=1.0)
      >>> round(float(meta_gradient(jnp.array(0.0), task)[1]), 3)
      -1.25
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)
    _require.positive(proximal_strength=proximal_strength)

    @_require.params_and_task
    def meta_gradient(params, task):
        adapts = adapting_to_stationarity("fo_b_maml_limit", inner, num_steps, params)

        def solution(nu):
            objective = _perturbed(loss, task, nu)
            adapted = descend(proximal(objective, params, proximal_strength), inner, num_steps, params)
            return adapted, _envelope_gradient(objective, adapted, adapts, proximal_strength)

        (adapted, _), (_, gradient) = jax.jvp(solution, (0.0,), (1.0,))
        return loss(adapted, task.query), gradient

    return meta_gradient


def _perturbed(loss, task, nu):
    """The perturbed inner objective without its proximal term, ν f(φ) + h(φ)."""
    return lambda phi: nu * loss(phi, task.query) + loss(phi, task.support)


def _envelope_gradient(objective, adapted, adapts, strength):
    """The derivative in θ of the least value of the perturbed problem, whose derivative in ν is the meta-gradient.

    It is -λ φ_ν where params adapt, without λ θ, which does not depend on ν; and ∇[ν f + h] where they are held (ANIL).
    When everything adapts, the compiler leaves the gradient out.
    """
    return jax.tree.map(
        lambda moves, phi, held: jnp.where(moves, -strength * phi, held), adapts, adapted, jax.grad(objective)(adapted)
    )


def _combine(weights, solutions):
    """The weighted sum over the leading axis; precise, as an accelerator's quick product would be all rounding."""
    return jax.tree.map(
        lambda phi: jnp.tensordot(weights, phi, axes=1, precision="highest").astype(phi.dtype), solutions
    )
