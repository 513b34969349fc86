"""What first-order MAML teaches an encoder, split in two.  (Kao, Chiu & Chen 2022, arXiv 2106.15367)

Let a linear head W (logits ψᵀ W, softmax p) take one step with learning rate α on the mean cross-entropy of the n
support examples s, while the features ψ stay as they are:  W₁ = W + α/n Σ_s ψ(s) (1[y_s] - p(s))ᵀ.  Then the loss of a
query example q after that step has in the features of q the gradient::

    W₁ (p(q) - 1[y_q]) =  W (p(q) - 1[y_q])            interference: what the head happened to be
                        + α/n Σ_s c_qs ψ(s)            contrastive: nearer to support examples with c_qs < 0

    c_qs = p_{y_s}(q) + p_{y_q}(s) - ⟨p(q), p(s)⟩ - 1[y_s = y_q]

with p(s) before the step and p(q) after it. With a zero head p(s) is uniform, so that c_qs = p_{y_s}(q) - 1[y_s = y_q]:
there is no interference, and examples of one class attract while those of different classes repel each other.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Float64, Int

from metalearn import _require


class ContrastiveSplit(NamedTuple):
    """The gradient of each query example's loss in its own features, as a sum of two parts. Float64 numpy.

    Attributes:
      interference: shape [num_query, num_features].
      contrastive: shape [num_query, num_features].
      coefficients: c_qs, shape [num_query, num_support].
      same_class: whether y_q = y_s, shape [num_query, num_support].

    Example: see `contrastive_split`.
    """

    interference: Float64[np.ndarray, "num_query num_features"]
    contrastive: Float64[np.ndarray, "num_query num_features"]
    coefficients: Float64[np.ndarray, "num_query num_support"]
    same_class: Bool[np.ndarray, "num_query num_support"]

    def wrong_signs(self) -> float:
        """The fraction of pairs of different classes that attract each other. Pairs of one class never repel.

        Raises:
          ValueError: if there is no such pair.
        """
        if self.same_class.all():
            raise ValueError("There is no pair of different classes, so no fraction of them has a wrong sign.")
        return float((self.coefficients[~self.same_class] < 0).mean())


def contrastive_split(
    features_support: Float[ArrayLike, "num_support num_features"],
    labels_support: Int[ArrayLike, " num_support"],
    features_query: Float[ArrayLike, "num_query num_features"],
    labels_query: Int[ArrayLike, " num_query"],
    head: Float[ArrayLike, "num_features num_classes"],
    step_size: float,
) -> ContrastiveSplit:
    """Splits the gradient that first-order MAML sends into the encoder, for one inner step on the head alone.

    Args:
      features_support: ψ(s), shape [num_support, num_features].
      labels_support: y_s, whole numbers, shape [num_support].
      features_query: ψ(q), shape [num_query, num_features].
      labels_query: y_q, whole numbers, shape [num_query].
      head: W before the step, shape [num_features, num_classes]. A bias is a row of W for a feature that is always 1.
      step_size: α > 0, the learning rate of the inner step.

    Returns:
      A ContrastiveSplit.

    Example:
      With a zero head, examples of one class attract (-1) and those of two classes repel (1):

      >>> import metalearn as ml, numpy as np
      >>> features, labels = np.eye(2), np.array([0, 1])
      >>> split = ml.theory.contrastive_split(features, labels, features, labels, head=np.zeros((2, 2)), step_size=1.0)
      >>> print(np.sign(split.coefficients))
      [[-1.  1.]
       [ 1. -1.]]
    """
    _require.known(step_size=step_size)
    _require.positive(step_size=step_size)
    step_size = float(step_size)
    head = _require.finite_float64("head", head)
    if head.ndim != 2 or head.shape[1] == 0:
        raise ValueError(f"head must have shape [num_features, num_classes], but it has {list(head.shape)}.")
    support, support_targets = _batch("support", features_support, labels_support, head)
    query, query_targets = _batch("query", features_query, labels_query, head)

    p_support = _softmax(support @ head)
    adapted = head + step_size / len(support) * support.T @ (support_targets - p_support)
    p_query = _softmax(query @ adapted)

    same_class = query_targets @ support_targets.T
    coefficients = p_query @ support_targets.T + query_targets @ p_support.T - p_query @ p_support.T - same_class
    return ContrastiveSplit(
        interference=(p_query - query_targets) @ head.T,
        contrastive=step_size / len(support) * coefficients @ support,
        coefficients=coefficients,
        same_class=same_class.astype(bool),
    )


def _batch(name, features, labels, head):
    """Features in float64, and labels as rows of the identity."""
    features = _require.finite_float64(f"features_{name}", features)
    _require.known(**{f"labels_{name}": labels})
    labels = np.asarray(labels)
    num_features, num_classes = head.shape
    if features.ndim != 2 or features.shape[1] != num_features or labels.shape != features.shape[:1] or not len(labels):
        raise ValueError(
            f"features_{name} must have shape [examples, {num_features}] and labels_{name} [examples], "
            f"but they have {list(features.shape)} and {list(labels.shape)}."
        )
    if not np.issubdtype(labels.dtype, np.integer) or not np.isin(labels, np.arange(num_classes)).all():
        raise ValueError(
            f"labels_{name} must be whole numbers from 0 to {num_classes - 1}, the classes of head, but it is {labels}."
        )
    return features, np.eye(num_classes)[labels]


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
