"""How fast the gradient of multi-step MAML can change.  (Ji, Yang & Liang 2022, arXiv 2002.07836)

Let the loss of a task have a gradient with Lipschitz constant L and a Hessian with Lipschitz constant ρ, and adapt to
it by K gradient steps with learning rate α. Each factor (I - α H_k) of the Jacobian is at most 1 + α L, hence::

    ‖∇²F(θ)‖ ≤ (1 + α L)^(2K) L  +  C ‖∇ℓ(θ)‖,      C = (ρ/L) (1 + α L)^(2K-1) ((1 + α L)^K - 1)

The first term is the curvature at the adapted parameters, multiplied by the Jacobian from both sides. The second is the
change of the Jacobian: the sum over k of  α ρ (1 + α L)^k (1 + α L)^(K-1)  times the gradient at the adapted
parameters, (1 + α L)^K ‖∇ℓ(θ)‖. Both are powers of 1 + α L: for F to be about as smooth as the loss, α must shrink
like 1/K, which is the paper's message. The constants are those of the derivation above.
"""

import numpy as np
from jaxtyping import ArrayLike, Float64, Real

from metalearn import _require


def smoothness_bound(
    step_size: float,
    num_steps: int,
    smoothness: float,
    hessian_lipschitz: float,
    gradient_norm: Real[ArrayLike, "*shape"],
) -> Float64[np.ndarray, "*shape"] | np.float64:
    """The bound on ‖∇²F(θ)‖, the curvature of the loss after adaptation, where support and query are one loss.

    Averaged over tasks, with the mean of their gradient norms, it bounds the curvature of the meta-objective.

    Args:
      step_size: α > 0.
      num_steps: K >= 0.
      smoothness: L > 0, the largest absolute curvature of the loss.
      hessian_lipschitz: ρ > 0, how fast its Hessian changes.
      gradient_norm: ‖∇ℓ(θ)‖ >= 0 before adaptation; any shape.

    Returns:
      An array of the shape of `gradient_norm`.

    Raises:
      ValueError: if the bound is too large for float64.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> norms = np.array([0.0, 1.0])
      >>> print(ml.theory.smoothness_bound(0.1, 5, smoothness=1.0, hessian_lipschitz=1.0, gradient_norm=norms).round(2))
      [2.59 4.03]
    """
    _require.known(step_size=step_size, smoothness=smoothness, hessian_lipschitz=hessian_lipschitz)
    _require.positive(step_size=step_size, smoothness=smoothness, hessian_lipschitz=hessian_lipschitz)
    _require.count(num_steps=num_steps)
    norm = _require.finite_float64("gradient_norm", gradient_norm)
    if (norm < 0).any():
        raise ValueError(f"gradient_norm must be at least 0, but {norm.min()} is among it.")
    step_size, smoothness, hessian_lipschitz = map(np.float64, (step_size, smoothness, hessian_lipschitz))
    with np.errstate(over="ignore", invalid="ignore"):
        growth = (1 + step_size * smoothness) ** num_steps
        change = hessian_lipschitz / smoothness * growth**2 / (1 + step_size * smoothness) * (growth - 1)
        bound = growth**2 * smoothness + change * norm
    if not np.isfinite(bound).all():
        raise ValueError("The bound does not fit into float64: lower step_size, num_steps or smoothness.")
    return bound


def largest_stable_step(num_steps: int, smoothness: float) -> float:
    """The largest α with (1 + α L)^(2K) ≤ 2: the curvature at the adapted parameters is at most doubled.

    ::

        α = (2^(1/(2K)) - 1) / L,   which is between ln 2 / (2 K L) and 1 / (2 K L)

    Args:
      num_steps: K >= 1.
      smoothness: L > 0, the largest absolute curvature of the loss.

    Example:
      >>> import metalearn as ml
      >>> round(ml.theory.largest_stable_step(num_steps=5, smoothness=1.0), 4)
      0.0718
    """
    _require.count(at_least=1, num_steps=num_steps)
    _require.known(smoothness=smoothness)
    _require.positive(smoothness=smoothness)
    return (2 ** (1 / (2 * num_steps)) - 1) / float(smoothness)
