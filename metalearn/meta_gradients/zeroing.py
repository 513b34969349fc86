"""The zeroing trick: every task starts from a head that knows no class.  (Kao, Chiu & Chen 2022, arXiv 2106.15367)

::

    F_0(θ) = F(Z θ),    ∇F_0(θ) = Z ∇F(Z θ)            Z sets the weights and biases of the head to 0

With the head at 0, first-order MAML updates the encoder by a supervised contrastive loss. A head that is not 0 adds
noise, which `theory.contrastive_split` shows term by term.
"""

from collections.abc import Callable

import jax
import optax

from metalearn import _require
from metalearn._cost import costs_in_words
from metalearn.adaptation.inner import part_of
from metalearn.task import MetaGradient, Params


@costs_in_words("A task costs what it costs with `meta_gradient` alone, in gradients and in memory.")
def zeroing_trick(meta_gradient: MetaGradient, head: Callable[[Params], Params]) -> MetaGradient:
    """That meta-gradient, taken where the head is zero.

    The trick has a second half: at meta-test, adapt from `zero_head(params, head)`. The gradient of the head is 0,
    because its value is never used. The authors let the outer optimizer move the head, and set it to 0 again before the
    next step. With an optimizer that treats each number by itself, such as optax.adam, that trains the same encoder;
    one that looks at the norm of the gradient, such as outer.clipped_sgd, sees that of the encoder here.

    Args:
      meta_gradient: (params, task) -> (query loss, gradient), for instance fo_maml(loss, optax.sgd(0.1), 5).
      head: params -> the part of them that is the classifier's last layer, for instance
        lambda params: params["layers"][2].

    Returns:
      A function (params, task) -> (query loss, meta-gradient); the gradient is a pytree like params.

    Raises:
      ValueError: at the first call, if `head` does not return a part of params.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml, optax
      >>> loss = lambda params, batch: jnp.mean((params["body"] + params["head"] - batch) ** 2) / 2
      >>> task = ml.Task(support=jnp.array([1.0]), query=jnp.array([3.0]))
      >>> meta_gradient = ml.zeroing_trick(ml.fo_maml(loss, optax.sgd(0.25), 1), lambda params: params["head"])
      >>> _, gradient = meta_gradient({"body": jnp.array(0.0), "head": jnp.array(7.0)}, task)
      >>> print(gradient["body"], gradient["head"])
      -2.5 0.0
    """
    _require.takes("params", head=head)
    _require.takes("params", "task", meta_gradient=meta_gradient)

    @_require.params_and_task
    def zeroed(params, task):
        value, gradient = _require.value_and_gradient(meta_gradient(zero_head(params, head), task), params)
        return value, zero_head(gradient, head)

    return zeroed


def zero_head(params: Params, head: Callable[[Params], Params]) -> Params:
    """The same params with zeros in the part that `head` returns.

    Args:
      params: any pytree of arrays.
      head: params -> the part of them to be zero, itself a pytree; it must do nothing but select.

    Returns:
      A pytree like params.

    Raises:
      TypeError: if `head` is no function, or params holds something else than arrays.
      ValueError: if it does not return a part of params.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> params = {"body": jnp.array(2.0), "head": jnp.array(7.0)}
      >>> print(ml.zero_head(params, lambda params: params["head"])["head"])
      0.0
    """
    _require.takes("params", head=head)
    for leaf in jax.tree.leaves(params):
        _require.array(**{"every leaf of params": leaf})
    part = part_of(params, head=head)
    return part.set(params, optax.tree.zeros_like(part.get(params)))
