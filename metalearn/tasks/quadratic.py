"""Quadratic tasks: everything about them is known in closed form (see `metalearn.theory`)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metalearn import _require
from metalearn.task import Scalar, Task


class QuadraticBatch(NamedTuple):
    """The quadratic 1/2 (φ - minimum)ᵀ hessian (φ - minimum).

    Attributes:
      hessian: symmetric, shape [dim, dim].
      minimum: shape [dim]; where the gradient is zero.

    Example: see `Quadratic`.
    """

    hessian: Float[Array | np.ndarray, "dim dim"]
    minimum: Float[Array | np.ndarray, " dim"]


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """Tasks whose support and query losses are two different quadratics. Parameters are one array of shape [dim].

    Attributes:
      dim: number of parameters, >= 1.
      support_curvature: (low, high) of the support Hessian's eigenvalues, drawn uniformly; the axes are random.
      query_curvature: the same for the query Hessian.
      spread: standard deviation, per coordinate, of the tasks' support minima around the origin, > 0.
      shift: standard deviation, per coordinate, of the query minimum around the support minimum, > 0.

    Example:
      >>> import jax, metalearn as ml
      >>> tasks = ml.tasks.Quadratic(dim=2)(jax.random.key(0), 3)
      >>> tasks.support.hessian.shape, tasks.support.minimum.shape
      ((3, 2, 2), (3, 2))
    """

    dim: int = 2
    support_curvature: tuple[float, float] = (0.2, 1.0)
    query_curvature: tuple[float, float] = (0.2, 1.0)
    spread: float = 1.0
    shift: float = 0.3

    def __post_init__(self) -> None:
        _require.count(at_least=1, dim=self.dim)
        _require.interval(support_curvature=self.support_curvature, query_curvature=self.query_curvature)
        _require.positive(spread=self.spread, shift=self.shift)

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """A batch of tasks; support and query are QuadraticBatch with one more leading axis."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        return jax.vmap(self._draw)(jax.random.split(key, num_tasks))

    @staticmethod
    def loss(params: Float[Array, " dim"], batch: QuadraticBatch) -> Scalar:
        """1/2 (params - minimum)ᵀ hessian (params - minimum), a scalar."""
        if not isinstance(batch, QuadraticBatch):
            raise TypeError(f"batch must be a QuadraticBatch(hessian, minimum), but it is a {type(batch).__name__}.")
        _require.array(params=params, hessian=batch.hessian, minimum=batch.minimum)
        shape = jnp.shape(batch.minimum)
        if len(shape) != 1 or jnp.shape(params) != shape or jnp.shape(batch.hessian) != 2 * shape:
            raise ValueError(
                f"params, minimum and hessian must have shapes [dim], [dim] and [dim, dim], but they have "
                f"{list(jnp.shape(params))}, {list(shape)} and {list(jnp.shape(batch.hessian))}."
            )
        offset = params - batch.minimum
        return 0.5 * offset @ batch.hessian @ offset

    def _draw(self, key):
        keys = jax.random.split(key, 4)
        minimum = self.spread * jax.random.normal(keys[0], (self.dim,))
        return Task(
            support=QuadraticBatch(self._hessian(keys[1], self.support_curvature), minimum),
            query=QuadraticBatch(
                self._hessian(keys[2], self.query_curvature),
                minimum + self.shift * jax.random.normal(keys[3], (self.dim,)),
            ),
        )

    def _hessian(self, key, curvature):
        axes_key, value_key = jax.random.split(key)
        axes = jnp.eye(self.dim)
        for normal in jax.random.normal(axes_key, (self.dim, self.dim)):
            # One reflection per dimension turns the axes at random, without a call to LAPACK.
            axes = axes - 2 * jnp.outer(axes @ normal, normal) / (normal @ normal)
        values = jax.random.uniform(value_key, (self.dim,), minval=curvature[0], maxval=curvature[1])
        hessian = (axes * values) @ axes.T
        return (hessian + hessian.T) / 2
