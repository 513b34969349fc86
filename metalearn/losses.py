"""Losses of a model `apply(params, inputs) -> outputs` on a batch (inputs, targets)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from metalearn import _require
from metalearn.task import Loss, Params

Apply = Callable[[Params, jax.Array], jax.Array]


def mean_squared_error(apply: Apply) -> Loss:
    """mean (apply(params, x) - y)^2 over examples and outputs; x, y of shape [num_examples, ...].

    Raises:
      ValueError: when predictions and targets differ in shape, which numpy would broadcast in silence.
    """
    _require.function(apply=apply)

    def loss(params, batch):
        inputs, targets = batch
        predictions = apply(params, inputs)
        if predictions.shape != jnp.shape(targets):
            raise ValueError(
                f"predictions have shape {predictions.shape} but targets {jnp.shape(targets)}: give both one shape."
            )
        return jnp.mean((predictions - targets) ** 2)

    return loss


def cross_entropy(apply: Apply) -> Loss:
    """Mean softmax cross-entropy, in nats, of logits [num_examples, num_classes] and whole-number labels.

    Raises:
      ValueError, TypeError: when labels are not whole numbers of shape [num_examples].
    """
    _require.function(apply=apply)

    def loss(params, batch):
        logits, labels = _logits_and_labels(apply, params, batch)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return loss


def accuracy(apply: Apply) -> Loss:
    """Fraction of examples, 0 to 1, whose largest logit is the label's: a metric, not something to descend."""
    _require.function(apply=apply)

    def metric(params, batch):
        logits, labels = _logits_and_labels(apply, params, batch)
        return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

    return metric


def _logits_and_labels(apply, params, batch):
    inputs, labels = batch
    logits = apply(params, inputs)
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f"labels must be whole numbers (class indices), but they are {jnp.result_type(labels)}.")
    if logits.ndim != 2 or jnp.shape(labels) != logits.shape[:1]:
        raise ValueError(
            f"logits must have shape [num_examples, num_classes] and labels [num_examples], "
            f"but they have {list(logits.shape)} and {list(jnp.shape(labels))}."
        )
    return logits, labels
