"""MAML: learn the start from which a few gradient steps go far.  (Finn, Abbeel & Levine 2017, arXiv 1703.03400)

    F(theta)      = f(phi_K),   phi_0 = theta,   phi_{k+1} = phi_k - a grad h(phi_k)      h: support, f: query
    grad F(theta) = (I - a H_0) (I - a H_1) ... (I - a H_{K-1}) grad f(phi_K),            H_k = hess h(phi_k)

FO-MAML, from the same paper, replaces every factor by I. Resampling (Ji, Yang & Liang 2022, arXiv 2002.07836) takes
each step, and with it H_k, on data of its own: h becomes h_k. A given support set is their finite-sum case.
"""

import jax
import optax

from metalearn import _require
from metalearn.adaptation.inner import descend, descend_on_batches
from metalearn.task import Loss, MetaGradient


def maml(
    loss: Loss, inner: optax.GradientTransformation, num_steps: int, resample: bool = False, remat: bool = False
) -> MetaGradient:
    """The exact gradient of the query loss after `num_steps` inner steps.

    Differentiates through the inner loop. Cost: K + 1 gradients forwards and K Hessian-vector products backwards, each
    about two gradients. Memory: grows linearly with K, or with `remat` like sqrt(K). Many steps want small ones: see
    theory.largest_stable_step.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule, for instance optax.sgd(0.01).
      num_steps: K >= 0; with 0 this is the plain gradient of the query loss, as in joint training.
      resample: whether each inner step has a batch of its own. The support arrays of a task then have one more leading
        axis, of length K, which counts the steps: [K, num_examples, ...], in a batch of tasks [num_tasks, K, ...].
      remat: whether the way back recomputes the inner steps, about sqrt(K) at a time, instead of keeping them all: the
        same gradient for up to 2 K gradients more, for networks and numbers of steps that do not fit into memory.

    Returns:
      A function (params, task) -> (query loss at phi_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    _require.flag(remat=remat)
    adapt = _adaptation(loss, inner, num_steps, resample, remat)

    def meta_gradient(params, task):
        def after_adaptation(start):
            return loss(adapt(start, task.support), task.query)

        return jax.value_and_grad(after_adaptation)(params)

    return meta_gradient


def fo_maml(loss: Loss, inner: optax.GradientTransformation, num_steps: int, resample: bool = False) -> MetaGradient:
    """The query gradient at the adapted parameters, grad f(phi_K), as if moving theta moved phi_K as much.

    Cost: K + 1 gradients a task. Memory: flat in K. Biased: the factors (I - a H_k) are missing, so the error is
    O(a K) and the outer loop ends at a point where the gradient of F is not zero.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner step rule, for instance optax.sgd(0.01).
      num_steps: K >= 0.
      resample: whether each inner step has a batch of its own, as in `maml`.

    Returns:
      A function (params, task) -> (query loss at phi_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError, TypeError: if an argument is not as described; the message names it.
    """
    loss = _require.scalar(loss)
    adapt = _adaptation(loss, inner, num_steps, resample)

    def meta_gradient(params, task):
        return jax.value_and_grad(loss)(adapt(params, task.support), task.query)

    return meta_gradient


def _adaptation(loss, inner, num_steps, resample, remat=False):
    """The function (theta, support) -> phi_K."""
    _require.transformation(inner=inner)
    _require.count(num_steps=num_steps)
    _require.flag(resample=resample)

    def on_one_batch(start, support):
        return descend(lambda phi: loss(phi, support), inner, num_steps, start, remat)

    def on_a_batch_per_step(start, support):
        _require.batch_per_step(num_steps, support)
        return descend_on_batches(loss, inner, support, start, remat)

    return on_a_batch_per_step if resample else on_one_batch
