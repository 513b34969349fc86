"""The Euclidean norm of a whole pytree, at any scale.

The squares of numbers below 1e-19 or above 1e19 do not fit into float32, and a plain sum of squares would give a norm
of 0 or infinity. The largest entry is therefore divided out first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from metalearn.task import Scalar


def norm(tree: Any) -> Scalar:
    """The norm over all arrays of the tree together, a scalar of at least float32."""
    largest, _, scaled_norm = _scaled(tree)
    return largest * scaled_norm


def direction(tree: Any) -> tuple[Any, Scalar]:
    """(The tree divided by its norm, the norm). Zero stays zero."""
    largest, scaled, scaled_norm = _scaled(tree)
    return optax.tree.scale(1 / jnp.maximum(scaled_norm, 1), scaled), largest * scaled_norm


def _scaled(tree):
    """(The largest absolute value, the tree divided by it, the norm of that: at least 1 unless everything is 0.)"""
    tree = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)
    largest = optax.tree.norm(tree, ord=jnp.inf)
    scaled = jax.tree.map(lambda leaf: leaf / jnp.where(largest > 0, largest, 1), tree)
    return largest, scaled, optax.tree.norm(scaled)
