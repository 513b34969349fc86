"""Meta-RKHS: a regularizer or a closed form in place of the inner loop.  (Zhou et al. 2021, arXiv 2102.03909)

::

    I    F(θ) = ℓ(θ) - α ‖∇ℓ(θ)‖²                      one step with learning rate α, to first order in α
    II   F(θ) = ℓ(u_t),   u_t = u_θ + k(·, X) k(X, X)⁻¹ (I - exp(-t k(X, X))) (Y - u_θ(X))

In II the tangent kernel k of the model u_θ stands still, and u_t is where gradient flow on 1/2 ‖u(X) - Y‖² is at the
time t.
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
    set. It differs from the loss after one step, which `maml` differentiates, by O(α²). At meta-test adapt by ordinary
    gradient steps.

    This F has no lower bound if α is large. So the gain α ⟨∇h, ∇f⟩ may be at most the fraction `cap` of the size of f,
    which suits a loss whose best value is 0, such as an error or a cross-entropy. The gradient is exact for F with this
    cap.

    Args:
      loss: scalar loss of (params, batch).
      step_size: α > 0, in units of params / gradient; it may be traced.
      cap: at least 0 and below 1, or None for the paper's F, without a lower bound; it may be traced. For a loss that
        passes through 0, such as a negative log-density, take None and a smaller learning rate.

    Returns:
      A function (params, task) -> (F, meta-gradient); the gradient is a pytree like params.

    Example:
      From f = 4.5, f' = -3 and h' = -1:

      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> value, gradient = ml.meta_rkhs_i(loss, step_size=0.1)(jnp.array(0.0), task)
      >>> round(float(value), 2), round(float(gradient), 2)
      (4.2, -2.6)
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
    The gradient is exact for u_t as `gradient_flow` computes it.

    Args:
      apply: (params, inputs) -> outputs, shape [num_examples, ...]; a batch is (inputs, targets).
      time: as in `gradient_flow`.
      num_steps: as in `gradient_flow`.

    Returns:
      A function (params, task) -> (query loss of u_t, meta-gradient); the gradient is a pytree like params.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> model = lambda weight, x: weight * x
      >>> task = ml.Task(support=(jnp.array([1.0]), jnp.array([1.0])), query=(jnp.array([1.0]), jnp.array([3.0])))
      >>> value, gradient = ml.meta_rkhs_ii(model, time=1.0, num_steps=1)(jnp.array(0.0), task)
      >>> round(float(value), 2), round(float(gradient), 2)
      (6.25, -2.5)
    """
    return _require.params_and_task(jax.value_and_grad(kernel.query_loss(gradient_flow(apply, time, num_steps))))


def gradient_flow(apply: Apply, time: Number, num_steps: int = 8) -> kernel.Predictor:
    """The adapted model of II: u_t, with m = num_steps implicit steps in the place of the exponential.

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

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> model = lambda weight, x: weight * x
      >>> support = jnp.array([1.0]), jnp.array([1.0])
      >>> predict = ml.gradient_flow(model, time=jnp.inf)  # through the support set
      >>> [round(number, 2) for number in predict(jnp.array(0.0), support, jnp.array([1.0, 2.0])).tolist()]
      [1.0, 2.0]
    """
    if not (isinstance(time, float) and time == math.inf):
        _require.positive(time=time)
    _require.count(at_least=1, num_steps=num_steps)
    return kernel.regression(apply, kernel.tangent(apply), num_steps / time, num_steps)
