"""MAML: learn the start from which a few gradient steps go far.  (Finn, Abbeel & Levine 2017, arXiv 1703.03400)

    F(theta)      = f(phi_K),   phi_0 = theta,   phi_{k+1} = phi_k - a grad h(phi_k)      h: support, f: query
    grad F(theta) = (I - a H_0) (I - a H_1) ... (I - a H_{K-1}) grad f(phi_K),            H_k = hess h(phi_k)

FO-MAML, from the same paper, replaces every factor by I.
"""

import jax
import optax

from metalearn import _require
from metalearn.inner import descend
from metalearn.task import Loss, MetaGradient


def maml(loss: Loss, inner: optax.GradientTransformation, num_steps: int) -> MetaGradient:
    """The exact gradient of the query loss after `num_steps` inner steps.

    Differentiates through the inner loop. Cost: K + 1 gradients forwards and K Hessian-vector products backwards, each
    about two gradients. Memory: grows linearly with K.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule, for instance optax.sgd(0.01).
      num_steps: K >= 0; with 0 this is the plain gradient of the query loss, as in joint training.

    Returns:
      A function (params, task) -> (query loss at phi_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(num_steps=num_steps)

    def meta_gradient(params, task):
        def after_adaptation(start):
            adapted = descend(lambda phi: loss(phi, task.support), inner, num_steps, start)
            return loss(adapted, task.query)

        return jax.value_and_grad(after_adaptation)(params)

    return meta_gradient


def fo_maml(loss: Loss, inner: optax.GradientTransformation, num_steps: int) -> MetaGradient:
    """The query gradient at the adapted parameters, grad f(phi_K), as if moving theta moved phi_K as much.

    Cost: K + 1 gradients a task. Memory: flat in K. Biased: the factors (I - a H_k) are missing, so the error is
    O(a K) and the outer loop ends at a point where the gradient of F is not zero.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule, for instance optax.sgd(0.01).
      num_steps: K >= 0.

    Returns:
      A function (params, task) -> (query loss at phi_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(num_steps=num_steps)

    def meta_gradient(params, task):
        adapted = descend(lambda phi: loss(phi, task.support), inner, num_steps, params)
        return jax.value_and_grad(loss)(adapted, task.query)

    return meta_gradient
