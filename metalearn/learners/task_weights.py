"""How much each task of a batch counts in the outer step, for the argument `task_weights` of `meta_learner`.

::

    mean gradient = Σ_i w_i g_i / Σ_i w_i             w_i = w(loss_i, g_i), held constant

Each function here makes one such w: (query losses [num_tasks], gradients with a leading task axis) -> [num_tasks].
They are this library's reading of the second idea in the abstract of Park & Kang 2024 (arXiv 2411.00404), which gives
no formula.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metalearn import _norm, _require
from metalearn.task import Number, Params

TaskWeights = Callable[[Float[Array, " num_tasks"], Params], Float[Array, " num_tasks"]]


def gradient_agreement(temperature: Number) -> TaskWeights:
    """w_i = exp(cos(g_i, u) / τ), u the mean of the directions g_j / ‖g_j‖: tasks that agree count more.

    The mean of directions is a vote of all tasks alike. The mean gradient would point where the largest gradients do,
    which are those of outliers.

    Args:
      temperature: τ > 0; no weight is more than exp(2/τ) times another.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> weights = ml.task_weights.gradient_agreement(temperature=1.0)
      >>> [round(number, 2) for number in weights(jnp.zeros(3), jnp.array([1.0, 1.0, -1.0])).tolist()]
      [2.72, 2.72, 0.37]
    """
    _require.positive(temperature=temperature)

    def weights(losses, gradients):
        directions, _ = jax.vmap(_norm.direction)(gradients)
        vote, _ = _norm.direction(jax.tree.map(lambda leaf: leaf.mean(axis=0), directions))
        return jnp.exp(jax.vmap(lambda direction: optax.tree.vdot(direction, vote))(directions) / temperature)

    return weights


def inverse_loss(offset: Number) -> TaskWeights:
    """w_i = 1 / (e + loss_i): tasks that adapt well count more, and outliers hardly. For losses that are not negative.

    Args:
      offset: e > 0, in units of the loss.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> weights = ml.task_weights.inverse_loss(offset=1.0)
      >>> print(weights(jnp.array([0.0, 1.0, 3.0]), jnp.zeros(3)))
      [1.   0.5  0.25]
    """
    _require.positive(offset=offset)
    return lambda losses, gradients: 1 / (offset + losses)


def loss_softmax(temperature: Number) -> TaskWeights:
    """w_i = softmax(loss / τ)_i: hard tasks count more, and outliers most of all.

    Args:
      temperature: τ > 0, in units of the loss.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> weights = ml.task_weights.loss_softmax(temperature=1.0)
      >>> [round(number, 2) for number in weights(jnp.array([0.0, 1.0]), jnp.zeros(2)).tolist()]
      [0.27, 0.73]
    """
    _require.positive(temperature=temperature)
    return lambda losses, gradients: jax.nn.softmax(losses / temperature)
