"""Reptile: move the initialization towards the adapted parameters.  (Nichol, Achiam & Schulman 2018, arXiv 1803.02999)

::

    θ ← θ + η (φ_K - θ),   which is gradient descent with learning rate η along   g(θ) = θ - φ_K
"""

import optax

from metalearn import _require
from metalearn._cost import costs
from metalearn.adaptation.inner import adapting, descend
from metalearn.task import Loss, MetaGradient


@costs("K", losses=1, copies="1.5", outputs="1.5")
def reptile(loss: Loss, inner: optax.GradientTransformation, num_steps: int) -> MetaGradient:
    """The displacement θ - φ_K of the inner loop on the support set.

    The query set only serves for the reported loss. The displacement has the units of params, not of a gradient: with
    optax.sgd(η) as outer optimizer, the step is the paper's. It is biased, because it is not the gradient of the query
    loss after adaptation.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer, for instance optax.sgd(0.01).
      num_steps: K >= 1.

    Returns:
      A function (params, task) -> (query loss at φ_K, θ - φ_K); the second is a pytree like params.

    Raises:
      ValueError: at the first call, if `inner` moves only a part of params, as in ANIL: the rest has no displacement,
        and would never be learned.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> print(*ml.reptile(loss, optax.sgd(0.5), num_steps=1)(jnp.array(0.0), task))
      3.125 -0.5
    """
    loss = _require.scalar(loss)
    _require.transformation(inner=inner)
    _require.count(at_least=1, num_steps=num_steps)

    @_require.params_and_task
    def meta_gradient(params, task):
        _require.all_adapt("reptile", adapting(inner, num_steps, params))
        adapted = descend(lambda phi: loss(phi, task.support), inner, num_steps, params)
        return loss(adapted, task.query), optax.tree.sub(params, adapted)

    return meta_gradient
