"""Images and captions in one space: a small CLIP.  (Radford et al. 2021, arXiv 2103.00020)

::

    logits_ij   = exp(s) cos(image_i, caption_j)                                    s: the logit scale, learned
    contrastive = (cross-entropy of each image over the captions + of each caption over the images) / 2

A class is described by its caption, so a classifier of labels never seen needs no new weights.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Float32, Shaped

from metalearn import _require
from metalearn.losses import Apply
from metalearn.task import Loss

INITIAL_TEMPERATURE = 0.07
MIN_NORM = 1e-6
"""An embedding whose norm is smaller is not scaled to norm 1, so that a blank image has a gradient."""

NUM_LETTERS = 27  # A to Z, and anything else
NUM_PAIRS = NUM_LETTERS**2


class TwoTower(nnx.Module):
    """Two towers, and the cosines of their outputs times a learned scale.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> from flax import nnx
      >>> towers = nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Linear(6, 3, rngs=nnx.Rngs(1))
      >>> ml.two_tower.TwoTower(*towers)(jnp.ones((2, 4)), jnp.ones((5, 6))).shape
      (2, 5)
    """

    def __init__(self, image_tower: nnx.Module, text_tower: nnx.Module):
        """Joins the towers.

        Args:
          image_tower: images [num_images, ...] -> [num_images, width].
          text_tower: captions [num_captions, ...] -> [num_captions, width].

        Raises:
          TypeError: if a tower is no nnx.Module.
        """
        for name, tower in {"image_tower": image_tower, "text_tower": text_tower}.items():
            if not isinstance(tower, nnx.Module):
                raise TypeError(f"{name} must be an nnx.Module, but it is a {type(tower).__name__}.")
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.logit_scale = nnx.Param(jnp.asarray(-math.log(INITIAL_TEMPERATURE)))

    def __call__(
        self, images: Shaped[ArrayLike, "num_images ..."], captions: Shaped[ArrayLike, "num_captions ..."]
    ) -> Float[Array, "num_images num_captions"]:
        """Logits of every image with every caption, shape [num_images, num_captions]."""
        of_images, of_captions = self.image_tower(images), self.text_tower(captions)
        if of_images.ndim != 2 or of_images.shape[1:] != of_captions.shape[1:]:
            raise ValueError(
                "The towers must give [num_images, width] and [num_captions, width], of one width, "
                f"but they give {list(of_images.shape)} and {list(of_captions.shape)}."
            )
        return jnp.exp(self.logit_scale[...]) * _normalized(of_images) @ _normalized(of_captions).T


def contrastive(apply: Callable[..., Any]) -> Loss:
    """The loss of pre-training, in nats, on a batch of pairs (images, captions) that belong together.

    Args:
      apply: (params, images, captions) -> logits, from models.functional(TwoTower(...)).

    Returns:
      The loss of (params, batch); each caption should occur once in a batch, or its copies count as wrong.

    Raises:
      ValueError: when there are not as many images as captions.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> loss = ml.two_tower.contrastive(lambda scale, images, captions: scale * images @ captions.T)
      >>> round(float(loss(jnp.array(0.0), (jnp.eye(4), jnp.eye(4)))), 2)  # log 4: each caption is as likely
      1.39
    """
    _require.takes("params", "images", "captions", apply=apply)

    def loss(params, batch):
        images, captions = _require.pair(batch, "images", "captions")
        logits = _require.returned_floats("apply", apply(params, images, captions))
        if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or logits.size == 0:
            raise ValueError(
                f"logits must be square, one image for each caption, and not empty, but they have {list(logits.shape)}."
            )
        pairs = jnp.arange(len(logits))
        by_image, by_caption = (
            optax.softmax_cross_entropy_with_integer_labels(rows, pairs).mean() for rows in (logits, logits.T)
        )
        return (by_image + by_caption) / 2

    return loss


def classifier(apply: Callable[..., Any], captions: Shaped[ArrayLike, "num_labels ..."]) -> Apply:
    """A model of images alone, whose classes are the captions: for losses.cross_entropy and losses.accuracy.

    Args:
      apply: (params, images, captions) -> logits, from models.functional(TwoTower(...)).
      captions: one for each label, shape [num_labels, ...].

    Returns:
      A function (params, images) -> logits [num_images, num_labels].

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> apply = lambda scale, images, captions: scale * images @ captions.T
      >>> model = ml.two_tower.classifier(apply, captions=jnp.eye(3))
      >>> print(model(jnp.array(2.0), jnp.eye(3)[:1]))
      [[2. 0. 0.]]
    """
    _require.takes("params", "images", "captions", apply=apply)
    _require.array(captions=captions)
    captions = jnp.asarray(captions)
    if captions.ndim == 0 or captions.size == 0:
        raise ValueError(f"captions must have shape [num_labels, ...], not empty, but it has {list(captions.shape)}.")
    return lambda params, images: apply(params, images, captions)


def letter_pairs(names: Sequence[str]) -> Float32[np.ndarray, "num_names 729"]:
    """How often each pair of neighbouring letters occurs in each name, shape [num_names, 27 * 27], float32.

    Case is ignored, and what is no letter is a space, as are both ends: "A" counts " A" and "A ".

    Args:
      names: a sequence of strings, and not one string.

    Example:
      >>> import metalearn as ml
      >>> print(ml.two_tower.letter_pairs(["A", "Alpha"]).sum(axis=1))
      [2. 6.]
    """
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of strings, but it is one: {names!r}. Write [{names!r}].")
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a sequence of strings, but it is {names!r:.80}.")
    counts = np.zeros((len(names), NUM_LETTERS, NUM_LETTERS), np.float32)
    for row, name in zip(counts, names, strict=True):
        letters = [ord(letter) - ord("A") + 1 if "A" <= letter <= "Z" else 0 for letter in f" {name.upper()} "]
        np.add.at(row, (letters[:-1], letters[1:]), 1)
    return counts.reshape(len(names), NUM_PAIRS)


def _normalized(vectors):
    return vectors / optax.safe_norm(vectors, MIN_NORM, axis=-1, keepdims=True)
