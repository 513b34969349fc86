"""Losses of a model `apply(params, inputs) -> outputs` on a batch (inputs, targets)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from metalearn import _require
from metalearn.task import Batch, Loss, Params

Apply = Callable[[Params, Batch], Float[Array, "num_examples ..."]]
"""Your model, a function of (params, inputs) that returns outputs, one row for each example."""


def mean_squared_error(apply: Apply) -> Loss:
    """The mean of (apply(params, x) - y)² over examples and outputs; x, y of shape [num_examples, ...].

    Args:
      apply: (params, inputs x) -> predictions, of the shape of the targets y.

    Returns:
      The loss of (params, batch), whose batch is (inputs, targets).

    Raises:
      ValueError: when predictions and targets differ in shape, which numpy would broadcast in silence, or hold nothing.
      TypeError: when the batch is no pair of arrays, or the predictions are not real numbers.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = ml.losses.mean_squared_error(lambda weight, x: weight * x)
      >>> print(loss(jnp.array(2.0), (jnp.array([1.0, 2.0]), jnp.array([3.0, 6.0]))))
      2.5
    """
    _require.takes("params", "inputs", apply=apply)

    def loss(params, batch):
        inputs, targets = _require.pair(batch)
        predictions = _require.returned_floats("apply", apply(params, inputs))
        _require.array(targets=targets)
        if jnp.iscomplexobj(targets):
            raise TypeError(f"targets must be real numbers, but they are {jnp.result_type(targets)}.")
        if predictions.shape != jnp.shape(targets):
            raise ValueError(
                f"predictions have shape {predictions.shape} but targets {jnp.shape(targets)}: give both one shape."
            )
        _not_empty(predictions)
        return jnp.mean((predictions - targets) ** 2)

    return loss


def cross_entropy(apply: Apply) -> Loss:
    """Mean softmax cross-entropy, in nats, of logits [num_examples, num_classes] and labels 0 ... num_classes - 1.

    A compiled program cannot raise: where it meets a label out of range, the loss and its gradient are NaN.

    Args:
      apply: (params, inputs) -> logits.

    Returns:
      The loss of (params, batch), whose batch is (inputs, labels).

    Raises:
      ValueError: when logits and labels do not have these shapes, hold nothing, or a label is out of range.
      TypeError: when the batch is no pair (inputs, labels), or labels are not whole numbers.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = ml.losses.cross_entropy(lambda scale, x: scale * x)
      >>> batch = jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 1])
      >>> round(float(loss(jnp.array(0.0), batch)), 2)  # log 2: with equal logits, two classes are a guess
      0.69
    """
    _require.takes("params", "inputs", apply=apply)

    def loss(params, batch):
        logits, labels = _logits_and_labels(apply, params, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses) * _one_if(_in_range(labels, logits))

    return loss


def accuracy(apply: Apply) -> Loss:
    """Fraction of examples, 0 to 1, whose largest logit is the label's: a metric, not something to descend.

    A model that has diverged predicts nothing, so the accuracy is NaN, and not that of a guess, where the largest logit
    of an example is not finite. As the loss of `cross_entropy`, it is NaN where a compiled program meets a label out of
    range.

    Args:
      apply: (params, inputs) -> logits.

    Returns:
      The metric of (params, batch), whose batch is (inputs, labels).

    Raises:
      ValueError, TypeError: as `cross_entropy`.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> metric = ml.losses.accuracy(lambda scale, x: scale * x)
      >>> batch = jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0])
      >>> print(metric(jnp.array(1.0), batch))
      0.5
    """
    _require.takes("params", "inputs", apply=apply)

    def metric(params, batch):
        logits, labels = _logits_and_labels(apply, params, batch)
        predicts = jnp.isfinite(logits.max(axis=-1)).all()
        return jnp.mean(jnp.argmax(logits, axis=-1) == labels) * _one_if(predicts & _in_range(labels, logits))

    return metric


def _logits_and_labels(apply, params, batch):
    inputs, labels = _require.pair(batch, "inputs", "labels")
    logits = _require.returned_floats("apply", apply(params, inputs))
    _require.array(labels=labels)
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f"labels must be whole numbers (class indices), but they are {jnp.result_type(labels)}.")
    if logits.ndim != 2 or jnp.shape(labels) != logits.shape[:1]:
        raise ValueError(
            f"logits must have shape [num_examples, num_classes] and labels [num_examples], "
            f"but they have {list(logits.shape)} and {list(jnp.shape(labels))}."
        )
    _not_empty(logits)
    return logits, labels


def _in_range(labels, logits):
    """Whether every label is a class. Those that are known at once raise if not; traced ones give a traced answer."""
    num_classes = logits.shape[1]
    if isinstance(labels, jax.core.Tracer):
        wide = jnp.uint32 if jnp.issubdtype(labels.dtype, jnp.unsignedinteger) else jnp.int32  # int8 cannot hold 200
        labels = labels.astype(jnp.promote_types(labels.dtype, wide))
        return ((labels >= 0) & (labels < num_classes)).all()
    values = np.asarray(labels)  # numpy also answers while a program around it is being compiled
    wrong = values[(values < 0) | (values >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"labels must be whole numbers from 0 to {num_classes - 1}, as there are {num_classes} logits, "
            f"but {wrong[0]} is among them."
        )
    return True


def _one_if(condition):
    """1 or NaN: a factor that leaves a value and its gradient as they are, to the last bit, or makes both NaN."""
    return jnp.where(condition, 1.0, jnp.nan)


def _not_empty(outputs):
    if outputs.size == 0:
        raise ValueError(f"batch must hold at least one example and output, but apply returned {list(outputs.shape)}.")
