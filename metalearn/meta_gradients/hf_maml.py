"""HF-MAML: MAML without Hessians.  (Fallah, Mokhtari & Ozdaglar 2020, arXiv 1908.10400)

::

    ∇F(θ) = v - α H v,   v = ∇f(φ_1),   H = ∇²h(θ)                            h: support loss, f: query loss
    H v   ≈ [∇h(θ + ν v/‖v‖) - ∇h(θ - ν v/‖v‖)] ‖v‖ / (2 ν)                   error O(ν²)

This is the paper's single gradient step. Here every Hessian-vector product of `maml` is replaced by such a difference,
so the same code takes K steps of any inner optimizer.
"""

import jax
import jax.numpy as jnp
import optax

from metalearn import _require
from metalearn._cost import costs
from metalearn.meta_gradients.maml import maml
from metalearn.task import Loss, MetaGradient, Number


@costs("3*K + 1", copies="2*K + 3", outputs="3")
def hf_maml(loss: Loss, inner: optax.GradientTransformation, num_steps: int, perturbation: Number) -> MetaGradient:
    """`maml` in which every Hessian-vector product is a central difference of two gradients.

    No second derivative is taken. The bias is O(ν²), with a factor that grows with the third derivatives of h; where h
    is quadratic the gradient is exact. The perturbation ν is the distance by which params are moved, whatever the norm
    of v (the paper's step is ν / ‖v‖). Rounding adds an error of about 1e-7 ‖∇h‖ / ν in float32, so take ν between 1e-3
    and 1e-1 there, and between 1e-5 and 1e-3 in float64, for params of size 1.

    Args:
      loss: scalar loss of (params, batch).
      inner: the inner optimizer, for instance optax.sgd(0.01).
      num_steps: K >= 0; the paper's algorithm has 1.
      perturbation: ν > 0, in units of params; it may be traced.

    Returns:
      A function (params, task) -> (query loss at φ_K, meta-gradient); the gradient is a pytree like params.

    Raises:
      TypeError: by the function itself, when it is differentiated in the data of a task or in ν.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> _, gradient = ml.hf_maml(loss, optax.sgd(0.5), num_steps=1, perturbation=0.01)(jnp.array(0.0), task)
      >>> round(float(gradient), 2)  # as `maml`
      -1.25
    """
    _require.positive(perturbation=perturbation)
    return maml(_hessian_free(_require.scalar(loss), perturbation), inner, num_steps)


def _hessian_free(loss, perturbation):
    """The same loss, with the same gradient; the derivative of that gradient in params is a central difference."""

    def forwards(params, batch, perturbation):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        return (value, gradient), (params, batch, perturbation, gradient)

    def backwards(residuals, cotangents):
        params, batch, perturbation, gradient = residuals
        for_value, v = cotangents
        norm = optax.tree.norm(v)
        shift = perturbation / jnp.where(norm > 0, norm, 1)
        ahead, behind = (
            jax.grad(loss)(optax.apply_updates(params, optax.tree.scale(e, v)), batch) for e in (shift, -shift)
        )
        product = optax.tree.scale(1 / (2 * shift), optax.tree.sub(ahead, behind))
        return optax.tree.cast_like(optax.tree.add_scale(product, for_value, gradient), params), None, None

    value_and_grad = jax.custom_vjp(lambda params, batch, _: jax.value_and_grad(loss)(params, batch))
    value_and_grad.defvjp(forwards, backwards)

    def times_gradient(gradient, for_value):
        return optax.tree.cast_like(optax.tree.scale(for_value, gradient), gradient), None, None

    hessian_free = jax.custom_vjp(lambda params, batch, _: loss(params, batch))
    hessian_free.defvjp(value_and_grad, times_gradient)
    # The perturbation is an argument and not closed over, for it may be traced.
    return lambda params, batch: hessian_free(params, _constant(batch), _constant(perturbation))


@jax.custom_jvp
def _constant(tree):
    """The same arrays, which say so when something is differentiated in them: above it would be 0."""
    return tree


@_constant.defjvp
def _not_differentiable(primals, tangents):
    raise TypeError(
        "hf_maml can be differentiated in params only, and not in the data of a task or the perturbation. Use maml."
    )
