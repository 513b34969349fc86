"""Sinusoid regression, the first experiment of Finn et al. 2017 (arXiv 1703.03400, section 5.1)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metalearn import _require
from metalearn.task import Number, Task


@dataclasses.dataclass(frozen=True)
class Sinusoid:
    """Regress y = amplitude sin(x - phase) from a few points; amplitude and phase differ from task to task.

    Attributes:
      num_support: support points per task, >= 1.
      num_query: query points per task, >= 1.
      amplitude: (low, high), drawn uniformly; these numbers, like those below, may be traced.
      phase: (low, high) in radians, drawn uniformly.
      x_range: (low, high) of the inputs, drawn uniformly.

    Example:
      >>> import jax, metalearn as ml
      >>> tasks = ml.tasks.Sinusoid(num_support=5, num_query=10)(jax.random.key(0), 25)
      >>> tasks.support[0].shape, tasks.query[1].shape
      ((25, 5, 1), (25, 10, 1))
    """

    num_support: int = 10
    num_query: int = 10
    amplitude: tuple[Number, Number] = (0.1, 5.0)
    phase: tuple[Number, Number] = (0.0, math.pi)
    x_range: tuple[Number, Number] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        _require.count(at_least=1, num_support=self.num_support, num_query=self.num_query)
        _require.interval(amplitude=self.amplitude, phase=self.phase, x_range=self.x_range)

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """A batch of tasks; support and query are (x, y) with arrays of shape [num_tasks, number of points, 1]."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        num_points = self.num_support + self.num_query
        x, y = _curves(key, num_tasks, num_points, self.amplitude, self.phase, self.x_range)
        first = self.num_support
        return Task(support=(x[:, :first], y[:, :first]), query=(x[:, first:], y[:, first:]))

    def task(self, key: PRNGKeyArray, amplitude: Number, phase: Number) -> Task:
        """The one task with this amplitude and phase; arrays of shape [number of points, 1]."""
        _require.number(amplitude=amplitude, phase=phase)
        one = dataclasses.replace(self, amplitude=(amplitude, amplitude), phase=(phase, phase))
        return jax.tree.map(lambda leaf: leaf[0], one(key, 1))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _curves(key, num_tasks, num_points, amplitude, phase, x_range):
    """x and y, each of shape [num_tasks, num_points, 1]; one draw of random numbers serves all three quantities."""
    unit = jax.random.uniform(key, (num_tasks, num_points + 2, 1))
    height, shift, x = (
        low + (high - low) * part
        for (low, high), part in zip((amplitude, phase, x_range), (unit[:, :1], unit[:, 1:2], unit[:, 2:]), strict=True)
    )
    return x, height * jnp.sin(x - shift)
