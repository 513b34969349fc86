"""FO-MuML: first-order MAML whose repeated inner step finds the gradient of a Moreau envelope.

(Mishchenko, Hanzely & Richtárik 2023, arXiv 2301.06806)::

    F(θ)  = min_z  h(z) + 1/(2α) ‖z - θ‖²                                     h: support loss
    ∇F(θ) = (θ - z*) / α = ∇h(z*),    z* = θ - α ∇h(z*)

    z_0 = θ,   z_{k+1} = θ - α ∇h(z_k),   ∇F(θ) ≈ ∇h(z_K)                     every step starts at θ

One step is FO-MAML with the support set in both roles.
"""

import jax
import optax

from metalearn import _require
from metalearn._cost import costs
from metalearn.task import Loss, MetaGradient, Number


@costs("K + 1", losses=1, copies="1", outputs="1.75")
def fo_muml(loss: Loss, step_size: Number, num_steps: int) -> MetaGradient:
    """The support gradient at the end of the anchored iteration, near the gradient of the Moreau envelope.

    There is one loss a task: the query set only serves for the reported value. The bias is at most (α L)^(K+1) of the
    gradient, where h is convex with curvatures up to L < 1/α; with α L >= 1 the iteration need not converge. More steps
    do not go further towards the minimum of h, as they would in `fo_maml`: they find z* more precisely.

    Args:
      loss: scalar loss of (params, batch).
      step_size: α > 0, in units of params / gradient; 1/α is the proximal strength λ of `imaml`. It may be traced.
      num_steps: K >= 0; with 0 this is the plain gradient of the support loss.

    Returns:
      A function (params, task) -> (query loss at z_K, ∇h(z_K)); the gradient is a pytree like params.

    Example:
      The envelope is attained at z* = 1/3, where ∇h = -2/3:

      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> _, gradient = ml.fo_muml(loss, step_size=0.5, num_steps=20)(jnp.array(0.0), task)
      >>> round(float(gradient), 2)
      -0.67
    """
    loss = _require.scalar(loss)
    _require.positive(step_size=step_size)
    _require.count(num_steps=num_steps)

    @_require.params_and_task
    def meta_gradient(params, task):
        def anchored_step(z, _):
            return optax.tree.add_scale(params, -step_size, jax.grad(loss)(z, task.support)), None

        z, _ = jax.lax.scan(anchored_step, params, length=num_steps)
        return loss(z, task.query), jax.grad(loss)(z, task.support)

    return meta_gradient
