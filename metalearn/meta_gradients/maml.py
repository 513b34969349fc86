"""MAML: learn the initialization from which a few gradient steps go far.  (Finn et al. 2017, arXiv 1703.03400)

::

    F(θ)  = f(φ_K),   φ_0 = θ,   φ_{k+1} = φ_k - α ∇h(φ_k)             h: support loss, f: query loss
    ∇F(θ) = (I - α H_0) (I - α H_1) ... (I - α H_{K-1}) ∇f(φ_K),       H_k = ∇²h(φ_k)

FO-MAML, from the same paper, replaces every factor by I. Resampling (Ji, Yang & Liang 2022, arXiv 2002.07836) takes
each step, and with it H_k, on data of its own, so that h becomes h_k. A given support set is their finite-sum case.
"""

import jax
import optax

from metalearn import _require
from metalearn._cost import costs
from metalearn.adaptation.inner import descend, descend_on_batches
from metalearn.task import Loss, MetaGradient


@costs("2*K + 1", "K", copies="2*sqrt(K) + 4", outputs="4", variant="with remat")
@costs("K + 1", "K", copies="K + 2", outputs="2*K + 2")
def maml(
    loss: Loss, inner: optax.GradientTransformation, num_steps: int, resample: bool = False, remat: bool = False
) -> MetaGradient:
    """The exact gradient of the query loss after `num_steps` inner steps, by unrolled differentiation.

    Many inner steps want a small inner learning rate: see `theory.largest_stable_step`.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer, for instance optax.sgd(0.01).
      num_steps: K >= 0; with 0 this is the plain gradient of the query loss, as in joint training.
      resample: whether each inner step has a batch of its own. The support arrays of a task then have one more leading
        axis, of length K, which counts the steps: [K, num_examples, ...], in a batch of tasks [num_tasks, K, ...].
      remat: whether backpropagation recomputes the inner steps, about √K at a time, instead of keeping them all. The
        gradient is the same; it is meant for networks and numbers of steps that do not fit into memory.

    Returns:
      A function (params, task) -> (query loss at φ_K, meta-gradient); the gradient is a pytree like params.

    Example:
      The Jacobian of the step from 0 to φ = 0.5 is 1 - α = 0.5, and ∇f(φ) = -2.5:

      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> print(*ml.maml(loss, optax.sgd(0.5), num_steps=1)(jnp.array(0.0), task))
      3.125 -1.25
    """
    loss = _require.scalar(loss)
    _require.flag(remat=remat)
    adapt = _adaptation(loss, inner, num_steps, resample, remat)

    @_require.params_and_task
    def meta_gradient(params, task):
        def after_adaptation(initial):
            return loss(adapt(initial, task.support), task.query)

        return jax.value_and_grad(after_adaptation)(params)

    return meta_gradient


@costs("K + 1", copies="1", outputs="1.5")
def fo_maml(loss: Loss, inner: optax.GradientTransformation, num_steps: int, resample: bool = False) -> MetaGradient:
    """The query gradient at the adapted parameters, ∇f(φ_K), as if moving θ moved φ_K as much.

    It is biased: the factors (I - α H_k) are missing, so the error is O(α K), and outer training converges to a point
    where the gradient of F is not zero.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer, for instance optax.sgd(0.01).
      num_steps: K >= 0.
      resample: whether each inner step has a batch of its own, as in `maml`.

    Returns:
      A function (params, task) -> (query loss at φ_K, meta-gradient); the gradient is a pytree like params.

    Example:
      As for `maml`, without the factor 1 - α:

      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> print(*ml.fo_maml(loss, optax.sgd(0.5), num_steps=1)(jnp.array(0.0), task))
      3.125 -2.5
    """
    loss = _require.scalar(loss)
    adapt = _adaptation(loss, inner, num_steps, resample)

    @_require.params_and_task
    def meta_gradient(params, task):
        return jax.value_and_grad(loss)(adapt(params, task.support), task.query)

    return meta_gradient


def _adaptation(loss, inner, num_steps, resample, remat=False):
    """The function (θ, support) -> φ_K."""
    _require.transformation(inner=inner)
    _require.count(num_steps=num_steps)
    _require.flag(resample=resample)

    def on_one_batch(params, support):
        return descend(lambda phi: loss(phi, support), inner, num_steps, params, remat)

    def on_a_batch_per_step(params, support):
        _require.batch_per_step(num_steps, support)
        return descend_on_batches(loss, inner, support, params, remat)

    return on_a_batch_per_step if resample else on_one_batch
