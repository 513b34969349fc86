"""Adaptation by kernel regression, a RECONSTRUCTION from the abstract.  (Park & Kang 2024, arXiv 2411.00404)

::

    u(x) = u_θ(x) + k(x, X) (k(X, X) + r I)⁻¹ (Y - u_θ(X))     u_θ: model, X, Y: support set, r: ridge

The abstract says that the inner loop is a closed form in function space, and that the outer loop weighs the losses of
the tasks. It names no kernel and no weights: the equation, `kernel.tangent`, `kernel.gaussian` and `task_weights` are
this library's, not the paper's.
"""

import jax

from metalearn import _require
from metalearn._cost import costs_in_words
from metalearn.adaptation import kernel as kernels
from metalearn.losses import Apply
from metalearn.task import MetaGradient, Number


@costs_in_words(
    "A task costs the kernel between all its examples, which is differentiated, and about n³ operations for n support "
    "examples; no inner steps are kept in memory."
)
def kernel_adaptation(apply: Apply, kernel: kernels.Kernel, ridge: Number) -> MetaGradient:
    """The gradient of the query loss after kernel regression on the support set.

    The loss is the mean squared error. Where the model is linear in its parameters and the kernel is its tangent
    kernel, this is the objective of `imaml` with λ = ridge and half the sum of squares for the support loss. At
    meta-test adapt alike, with `kernel.query_losses(kernel.regression(apply, kernel, ridge), params, tasks)`. The
    gradient is exact.

    Args:
      apply: the model u, (params, inputs) -> outputs, shape [num_examples, ...]; a batch is (inputs, targets).
      kernel: k, (params, inputs a, inputs b) -> matrix, such as kernel.tangent(apply), kernel.gaussian(0.3), or a sum
        of kernels. What it reads in params is learned.
      ridge: r > 0, in units of k; it may be traced.

    Returns:
      A function (params, task) -> (query loss of u, meta-gradient); the gradient is a pytree like params.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> model = lambda weight, x: weight * x
      >>> task = ml.Task(support=(jnp.array([1.0]), jnp.array([1.0])), query=(jnp.array([1.0]), jnp.array([3.0])))
      >>> value, gradient = ml.kernel_adaptation(model, ml.kernel.tangent(model), ridge=1.0)(jnp.array(0.0), task)
      >>> round(float(value), 2), round(float(gradient), 2)
      (6.25, -2.5)
    """
    _require.positive(ridge=ridge)
    return _require.params_and_task(jax.value_and_grad(kernels.query_loss(kernels.regression(apply, kernel, ridge))))
