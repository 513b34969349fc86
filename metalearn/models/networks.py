"""From Flax modules to pure functions, and the few models that the lessons use."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Array, ArrayLike, Float

from metalearn import _require
from metalearn.task import Params


def functional(module: nnx.Module) -> tuple[Params, Callable[..., Any]]:
    """Splits a module into its parameters and a pure function of them.

    What a call would update is lost, because a pure function updates nothing. So `apply` refuses what would then be
    wrong without a word, and decides by what its outputs depend on: a dropout that is switched off passes, and so does
    a batch normalization that uses the statistics of its own batch. The outputs are looked at once for each shape of
    the inputs, while the program is traced; a module without state is never looked at.

    Args:
      module: any nnx.Module.

    Returns:
      A pair (params, apply). The params are an nnx State, a pytree, and `apply(params, *inputs)` calls the module with
      them.

    Raises:
      TypeError: if it is no nnx.Module, or has no parameters.
      ValueError: by `apply`, if the outputs depend on random numbers (dropout), on running statistics, or on a state
        that the call updates.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> from flax import nnx
      >>> params, apply = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
      >>> apply(params, jnp.ones((5, 1))).shape
      (5, 1)
    """
    if not isinstance(module, nnx.Module):
        raise TypeError(f"module must be an nnx.Module, but it is a {type(module).__name__}.")
    parts: Any = nnx.split(module, nnx.Param, ...)
    graph, params, rest = parts
    if not jax.tree.leaves(params):
        raise TypeError(f"module must have parameters (nnx.Param), but this {type(module).__name__} has none.")
    seen = set()

    def apply(params, *inputs):
        if jax.tree.leaves(rest):
            shapes = _shapes((params, inputs))
            if shapes not in seen:
                _refuse_state(graph, params, rest, inputs)
                seen.add(shapes)
        return nnx.merge(graph, params, rest, copy=True)(*inputs)

    return params, apply


def _shapes(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(jax.typeof(leaf) if hasattr(leaf, "dtype") else repr(leaf) for leaf in leaves)


def _refuse_state(graph, params, rest, inputs):
    """Raises ValueError if the outputs depend on a variable of `rest` that no pure function can keep up to date."""

    def call(rest):
        module = nnx.merge(graph, params, rest, copy=True)
        outputs = module(*inputs)
        parts: Any = nnx.split(module, nnx.Param, ...)
        return outputs, jax.tree.leaves(parts[2])

    traced, (outputs, _) = jax.make_jaxpr(call, return_shape=True)(rest)
    num_outputs = len(jax.tree.leaves(outputs))
    results = traced.jaxpr.outvars
    _, used = dce_jaxpr(traced.jaxpr, [i < num_outputs for i in range(len(results))])
    updated = [new is not old for new, old in zip(results[num_outputs:], traced.jaxpr.invars, strict=True)]
    kinds = [type(variable) for _, variable in nnx.to_flat_state(rest) for _ in jax.tree.leaves(variable)]
    for kind, is_used, is_updated in zip(kinds, used, updated, strict=True):
        if is_used and issubclass(kind, nnx.RngState):
            raise ValueError(
                "module draws random numbers, but (params, batch) carries no key. Switch its dropout off: "
                "module.eval(), or nnx.Dropout(..., deterministic=True)."
            )
        if is_used and issubclass(kind, nnx.BatchStat):
            raise ValueError(
                "module normalizes with running statistics, which adaptation would never update. "
                "Call module.train() to use the batch's own statistics, or use nnx.GroupNorm."
            )
        if is_used and is_updated:
            raise ValueError(
                f"module reads a variable of type {kind.__name__} that each call updates, but a pure function of "
                "(params, inputs) cannot keep it. Take what it remembers out of the module, or give it as an input."
            )


def _require_rngs(rngs):
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"rngs must be an nnx.Rngs such as nnx.Rngs(0), but it is a {type(rngs).__name__}.")


class MLP(nnx.Module):
    """A multilayer perceptron: Linear layers with an activation between them.

    Example: see `functional`.
    """

    def __init__(self, sizes: Sequence[int], *, activation: Callable[[Array], Array] = nnx.relu, rngs: nnx.Rngs):
        """Draws the weights.

        Args:
          sizes: widths from input to output, for instance (1, 40, 40, 1).
          activation: applied after each layer but the last.
          rngs: for the initial weights, for instance nnx.Rngs(0).
        """
        if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < 2:
            raise ValueError(f"sizes must name at least the input and the output width, but it is {sizes!r}.")
        for size in sizes:
            _require.count(at_least=1, sizes=size)
        _require.function(activation=activation)
        _require_rngs(rngs)
        self.layers = nnx.List(
            nnx.Linear(width_in, width_out, rngs=rngs) for width_in, width_out in itertools.pairwise(sizes)
        )
        self.activation = activation

    def __call__(self, inputs: Float[ArrayLike, "*batch width_in"]) -> Float[Array, "*batch width_out"]:
        """[..., sizes[0]] -> [..., sizes[-1]]."""
        _require.array(inputs=inputs)
        width = self.layers[0].in_features
        if jnp.shape(inputs)[-1:] != (width,):
            raise ValueError(f"inputs must have shape [..., {width}], but they have {list(jnp.shape(inputs))}.")
        outputs = jnp.asarray(inputs)
        for layer in self.layers[:-1]:
            outputs = self.activation(layer(outputs))
        return self.layers[-1](outputs)


class ConvNet(nnx.Module):
    """Four blocks of 3x3 convolution, normalization, relu and 2x2 max-pooling, then a linear layer.  ("Conv4")

    The image classifier of few-shot learning since Vinyals et al. 2016 (arXiv 1606.04080), here with the 32
    channels that Finn et al. 2017 (arXiv 1703.03400) use on mini-ImageNet. Two choices suit it to adaptation:

    - Each call normalizes with the statistics of its own batch and keeps no average of them, so the predictions for
      the query set depend on the query images and on nothing that happened to the support set. A batch needs several
      images: in a last block of one pixel, a single image would be its own mean.
    - Under `jax.vmap` every task has weights of its own, for which XLA's convolution is very slow on a CPU. It is
      therefore written as patches @ weights, max-pooling as two pairwise maxima, and the affine part of the
      normalization comes after the pooling: the same function, much faster.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> from flax import nnx
      >>> params, apply = ml.models.functional(ml.models.ConvNet(channels=4, num_classes=5, rngs=nnx.Rngs(0)))
      >>> apply(params, jnp.ones((2, 28, 28, 1))).shape
      (2, 5)
    """

    def __init__(
        self,
        *,
        channels: int = 32,
        num_classes: int = 5,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        rngs: nnx.Rngs,
    ):
        """Draws the weights.

        Args:
          channels: the number of features of each block, >= 1.
          num_classes: the number of logits, >= 1.
          image_shape: (height, width, channels) of an image; height and width are at least 16, halved by each block.
          rngs: for the initial weights, for instance nnx.Rngs(0).
        """
        _require.count(at_least=1, channels=channels, num_classes=num_classes)
        _require_rngs(rngs)
        if not isinstance(image_shape, tuple) or len(image_shape) != 3:
            raise ValueError(f"image_shape must be (height, width, channels), but it is {image_shape!r}.")
        height, width, depth = image_shape
        _require.count(at_least=16, **{"height in image_shape": height, "width in image_shape": width})
        _require.count(at_least=1, **{"channels in image_shape": depth})
        self.blocks = nnx.List(_Block(size, channels, rngs) for size in (depth, channels, channels, channels))
        self.head = nnx.Linear((height // 16) * (width // 16) * channels, num_classes, rngs=rngs)
        self.image_shape = image_shape

    def __call__(
        self, images: Float[ArrayLike, "num_examples height width channels"]
    ) -> Float[Array, "num_examples num_classes"]:
        """[num_examples, height, width, channels] -> logits [num_examples, num_classes]."""
        _require.array(images=images)
        shape = jnp.shape(images)
        if len(shape) != 4 or shape[0] == 0 or shape[1:] != self.image_shape:
            raise ValueError(
                f"images must have shape [num_examples, {', '.join(map(str, self.image_shape))}] with at least one "
                f"example, but they have {list(shape)}."
            )
        if not jnp.issubdtype(jnp.result_type(images), jnp.floating):
            raise TypeError(
                f"images must be floating-point numbers, of about unit size, but they are {jnp.result_type(images)}."
            )
        features = jnp.asarray(images)
        for block in self.blocks:
            features = block(features)
        return self.head(features.reshape(len(features), -1))


class _Block(nnx.Module):
    def __init__(self, width_in, width_out, rngs):
        # The normalization would take a bias away again.
        self.convolution = nnx.Conv(
            width_in, width_out, (3, 3), use_bias=False, conv_general_dilated=patch_convolution, rngs=rngs
        )
        self.scale = nnx.Param(jnp.ones(width_out))
        self.shift = nnx.Param(jnp.zeros(width_out))

    def __call__(self, x):
        x = self.convolution(x)
        mean, gain = x.mean((0, 1, 2)), self.scale[...] * jax.lax.rsqrt(x.var((0, 1, 2)) + 1e-5)
        # relu(max_pool(gain (x - mean) + shift)), but pooled first: the rest has then a quarter to do. A negative gain
        # makes the smallest number of a window the largest, so the sign goes before the pooling.
        sign = jnp.where(gain < 0, -1, 1).astype(x.dtype)
        return nnx.relu(_max_pool(sign * x) * (sign * gain) + (self.shift[...] - gain * mean))


def patch_convolution(
    inputs: Float[Array, "num_examples height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    strides: Sequence[int],
    padding: str,
    *,
    dimension_numbers: Any = None,
    precision: jax.lax.PrecisionLike = None,
    **options: Any,
) -> Float[Array, "num_examples height width features"]:
    """A convolution as one matrix product: for `nnx.Conv(..., conv_general_dilated=patch_convolution)`.

    It computes what `nnx.Conv` computes by itself, and is meant for training on a CPU. There XLA's convolution is slow
    when tasks have weights of their own, as they do in every inner loop: with patches an outer step of `fo_b_maml` on a
    small network took about 0.4 times as long.

    Args:
      inputs: [num_examples, height, width, channels].
      kernel: [kernel height, kernel width, channels, features].
      strides: 1 in both directions.
      padding: "SAME".
      dimension_numbers: not read; the shapes are those above, which are the ones that nnx.Conv uses.
      precision: as in `jax.numpy.matmul`.
      **options: further arguments of `jax.lax.conv_general_dilated`, which may only say what it does anyway.

    Returns:
      Outputs of shape [num_examples, height, width, features]. The memory is kernel height times kernel width that of
      the inputs.

    Raises:
      ValueError: if the shapes do not fit, or if strides, another padding, dilation or feature groups are asked for.

    Example:
      >>> import jax.numpy as jnp, metalearn as ml
      >>> from flax import nnx
      >>> layer = nnx.Conv(1, 8, (3, 3), conv_general_dilated=ml.models.patch_convolution, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 28, 28, 1))).shape
      (2, 28, 28, 8)
    """
    _require.array(inputs=inputs, kernel=kernel)
    shape, window = jnp.shape(inputs), jnp.shape(kernel)
    if len(shape) != 4 or len(window) != 4 or shape[3] != window[2]:
        raise ValueError(
            "inputs must have shape [num_examples, height, width, channels] and kernel [height, width, channels, "
            f"features], but they have {list(shape)} and {list(window)}."
        )
    plain = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1, "out_sharding": None}
    given = {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in options.items()}
    is_plain = all(name in plain and plain[name] == value for name, value in given.items())
    is_dense = (
        isinstance(strides, Sequence) and len(strides) == 2 and all(isinstance(s, int) and s == 1 for s in strides)
    )
    if not is_dense or not isinstance(padding, str) or padding != "SAME" or not is_plain:
        raise ValueError('patch_convolution is for strides of 1, padding="SAME", no dilation and no feature groups.')
    height, width = inputs.shape[1:3]
    rows, columns, depth, features = kernel.shape
    before, after = ((rows - 1) // 2, (columns - 1) // 2), (rows // 2, columns // 2)
    padded = jnp.pad(inputs, ((0, 0), *zip(before, after, strict=True), (0, 0)))
    patches = jnp.concatenate(
        [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)], axis=-1
    )
    return jnp.matmul(patches, kernel.reshape(rows * columns * depth, features), precision=precision)


def _max_pool(x):
    """2x2 windows, an odd last row or column left out; of equal values, the first gets the gradient, as in XLA's."""
    for axis in (2, 1):
        pairs = x.shape[axis] // 2
        first, second = (jax.lax.slice_in_dim(x, start, 2 * pairs, 2, axis) for start in (0, 1))
        x = jnp.where(first >= second, first, second)
    return x
