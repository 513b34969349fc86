"""Meta-RKHS: a regularizer or a closed form in place of the inner loop.  (Zhou et al. 2021, arXiv 2102.03909)

::

    I    F(θ) = ℓ(θ) - α ‖∇ℓ(θ)‖²                      one step with learning rate α, to first order in α
    II   F(θ) = ℓ(f_t),   f_t = f_θ + k(·, X) k(X, X)⁻¹ (I - exp(-t k(X, X))) (Y - f_θ(X))

In II the model's tangent kernel k stands still, and f_t is where gradient flow on 1/2 ‖f(X) - Y‖² is at time t.
"""

import math

import jax
import jax.numpy as jnp
import optax

from metalearn import _require
from metalearn._cost import costs, costs_in_words
from metalearn.adaptation import kernel
from metalearn.losses import Apply
from metalearn.task import Loss, MetaGradient, Number


@costs("2", "2", copies="3", outputs="7")
def meta_rkhs_i(loss: Loss, step_size: Number, cap: Number | None = 0.9) -> MetaGradient:
    """The gradient of the query loss less what one step on the support set would gain, to first order.

    ::

        F(θ) = f(θ) - α ⟨∇h(θ), ∇f(θ)⟩                                            h: support loss, f: query loss

    The paper's regularizer is α ‖∇ℓ‖² with one loss ℓ a task. This is the same where query and support are the same
    set, and an unbiased estimate of it where they are drawn independently: the square of one noisy gradient is too
    large on average. It differs from the loss after one step, which `maml` differentiates, by O(α²). At meta-test adapt
    by ordinary gradient steps.

    F has no lower bound once α exceeds 1/(2 L): on a quadratic with curvature L it is 1/2 L (1 - 2 α L) θ², which outer
    training lowers by making gradients large. So the gain may be at most the fraction `cap` of the size of f; where it
    would be more, that fraction is taken off, and F is bounded below if f is. The cap measures the loss from 0, as
    suits one whose best value is 0, such as an error or a cross-entropy. A loss that passes through 0, such as a
    negative log-density, gains nothing there; for it take cap=None and a smaller learning rate.

    The gradient is exact for F.

    Args:
      loss: scalar loss of (params, batch).
      step_size: α > 0, in units of params / gradient; it may be traced.
      cap: at least 0 and below 1, or None for the paper's F, without a lower bound; it may be traced.

    Returns:
      A function (params, task) -> (F, meta-gradient); the gradient is a pytree like params.
    """
    loss = _require.scalar(loss)
    _require.positive(step_size=step_size)
    if cap is not None:
        _require.fraction(cap=cap)

    @_require.params_and_task
    def meta_gradient(params, task):
        def objective(params):
            value, query_gradient = jax.value_and_grad(loss)(params, task.query)
            support_gradient = jax.grad(loss)(params, task.support)
            gain = step_size * optax.tree.vdot(support_gradient, query_gradient)
            return value - (gain if cap is None else jnp.minimum(gain, cap * jnp.abs(value)))

        return jax.value_and_grad(objective)(params)

    return meta_gradient


@costs_in_words(
    "A task costs a gradient for each output of each example, which is differentiated once more, and about n³ "
    "operations for n support examples; no inner steps are kept in memory."
)
def meta_rkhs_ii(apply: Apply, time: Number, num_steps: int = 8) -> MetaGradient:
    """The gradient of the query loss after adaptation by `gradient_flow`, through the kernel.

    The loss is the mean squared error. Params that were trained like this are made for this adaptation: use it at
    meta-test too, with `kernel.query_losses(gradient_flow(apply, time), params, tasks)`, and not gradient steps.
    The gradient is exact for f_t as `gradient_flow` computes it.

    Args:
      apply: (params, inputs) -> outputs, shape [num_examples, ...]; a batch is (inputs, targets).
      time: as in `gradient_flow`.
      num_steps: as in `gradient_flow`.

    Returns:
      A function (params, task) -> (query loss of f_t, meta-gradient); the gradient is a pytree like params.
    """
    return _require.params_and_task(jax.value_and_grad(kernel.query_loss(gradient_flow(apply, time, num_steps))))


def gradient_flow(apply: Apply, time: Number, num_steps: int = 8) -> kernel.Predictor:
    """The adapted model of II: f_t, with m = num_steps implicit steps in the place of the exponential.

    ::

        exp(-t k) ≈ (I + t k / m)^-m        each step a ridge regression, with ridge m / t; error O(1/m)

    This needs no inverse of k and no small step: every factor lies between 0 and 1, whatever t is. One step is kernel
    ridge regression; infinite time is interpolation, where k(X, X) must not be singular.

    Args:
      apply: (params, inputs) -> outputs, shape [num_examples, ...], for each example by itself.
      time: t > 0, in units of 1/k; math.inf for the end of the flow. It may be traced.
      num_steps: m >= 1.

    Returns:
      A function (params, support, inputs) -> outputs of the adapted model; support is (inputs, targets).
    """
    if not (isinstance(time, float) and time == math.inf):
        _require.positive(time=time)
    _require.count(at_least=1, num_steps=num_steps)
    return kernel.regression(apply, kernel.tangent(apply), num_steps / time, num_steps)
