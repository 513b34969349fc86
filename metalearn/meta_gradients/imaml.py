"""iMAML: differentiate the solution, not the path to it.  (Rajeswaran, Finn, Kakade & Levine 2019, arXiv 1909.04630)

    phi(theta)    = argmin_phi  h(phi) + l/2 ||phi - theta||^2                            h: support, f: query
    grad f(phi(theta)) = g  with  (I + H / l) g = grad f(phi),   H = hess h(phi)          l: proximal strength

The linear system is solved by conjugate gradients, which only needs products with H. When only some of the parameters
adapt (ANIL), it is solved for these, and the others receive their part of grad f(phi) - H g / l.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from metalearn import _require
from metalearn.adaptation.inner import adapting, descend, proximal
from metalearn.task import Loss, MetaGradient


def imaml(
    loss: Loss,
    inner: optax.GradientTransformation,
    num_steps: int,
    proximal_strength: float,
    cg_steps: int,
) -> MetaGradient:
    """The implicit gradient at the end of an inner loop with a spring to the start.

    Cost: K + 1 gradients and `cg_steps` Hessian-vector products a task. Memory: flat in K. Exact when the inner loop
    has converged and conjugate gradients too; the inner loop must converge (its step at most 2 / (L + l), with L the
    largest curvature of h), and l must exceed every negative curvature of h. On an unconverged loop the result can be
    wrong by several hundred per cent without looking wrong.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule; it receives the gradient of h(phi) + l/2 ||phi - theta||^2.
      num_steps: K >= 1.
      proximal_strength: l > 0, in units of curvature (loss / params^2); it may be traced.
      cg_steps: number of conjugate-gradient steps, >= 1. As many as there are parameters solve the system exactly.

    Returns:
      A function (params, task) -> (query loss at phi_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps, cg_steps=cg_steps)
    _require.positive(proximal_strength=proximal_strength)

    @_require.params_and_task
    def meta_gradient(params, task):
        def support_loss(phi):
            return loss(phi, task.support)

        adapted = descend(proximal(support_loss, params, proximal_strength), inner, num_steps, params)
        value, query_gradient = jax.value_and_grad(loss)(adapted, task.query)
        right_side, unravel = ravel_pytree(query_gradient)  # one vector: `cg` cannot mix dtypes, params may
        adapts = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(adapting(inner, num_steps, params))])

        _, hessian_times = jax.linearize(jax.grad(support_loss), adapted)

        def curvature(vector):
            return ravel_pytree(hessian_times(unravel(vector)))[0] / proximal_strength

        def times_system(vector):
            return vector + jnp.where(adapts, curvature(vector), 0)

        solution, _ = jax.scipy.sparse.linalg.cg(
            times_system, jnp.where(adapts, right_side, 0), tol=0.0, maxiter=cg_steps
        )
        # When everything adapts, the compiler leaves the second half out, with its product.
        return value, unravel(jnp.where(adapts, solution, right_side - curvature(solution)))

    return meta_gradient
