"""From Flax modules to pure functions, and the few models that the lessons use."""

import itertools
from collections.abc import Callable, Sequence

import jax
from flax import nnx

from metalearn import _require
from metalearn.task import Params


def functional(module: nnx.Module) -> tuple[Params, Callable]:
    """Splits a module into its parameters and a pure function of them.

    Args:
      module: any nnx.Module.

    Returns:
      (params, apply): params is an nnx State, a pytree; apply(params, *inputs) calls the module with those parameters.

    Raises:
      TypeError: if it is no nnx.Module.
      ValueError: if the module draws random numbers (dropout), or normalises with running statistics: a pure function
        cannot update either, and would be wrong without a word.
    """
    if not isinstance(module, nnx.Module):
        raise TypeError(f"module must be an nnx.Module, but it is a {type(module).__name__}.")
    if any(getattr(part, "use_running_average", False) for _, part in nnx.iter_modules(module)):
        raise ValueError(
            "module normalises with running statistics, which adaptation would never update. "
            "Call module.train() to use the batch's own statistics, or use nnx.GroupNorm."
        )
    parts: tuple = nnx.split(module, nnx.Param, nnx.RngState, ...)
    graph, params, random, rest = parts
    if jax.tree.leaves(random):
        raise ValueError(
            "module draws random numbers, but (params, batch) carries no key. Build its dropout with "
            "deterministic=True and without rngs."
        )
    return params, lambda params, *inputs: nnx.merge(graph, params, random, rest, copy=True)(*inputs)


class MLP(nnx.Module):
    """A multilayer perceptron: Linear layers with an activation between them."""

    def __init__(self, sizes: Sequence[int], *, activation: Callable = nnx.relu, rngs: nnx.Rngs):
        """Draws the weights.

        Args:
          sizes: widths from input to output, for instance (1, 40, 40, 1).
          activation: applied after each layer but the last.
          rngs: for the initial weights, for instance nnx.Rngs(0).

        Raises:
          ValueError: if there are fewer than two sizes or one is not a whole number above 0.
        """
        if len(sizes) < 2:
            raise ValueError(f"sizes must name at least the input and the output width, but it is {sizes!r}.")
        for size in sizes:
            _require.count(at_least=1, sizes=size)
        self.layers = nnx.List(
            nnx.Linear(width_in, width_out, rngs=rngs) for width_in, width_out in itertools.pairwise(sizes)
        )
        self.activation = activation

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., sizes[0]] -> [..., sizes[-1]]."""
        for layer in self.layers[:-1]:
            inputs = self.activation(layer(inputs))
        return self.layers[-1](inputs)
