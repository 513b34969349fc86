"""Sinusoid regression, the first experiment of Finn et al. 2017 (arXiv 1703.03400, section 5.1)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from metalearn import _require
from metalearn.task import Task


@dataclasses.dataclass(frozen=True)
class Sinusoid:
    """Regress y = amplitude sin(x - phase) from a few points; amplitude and phase differ from task to task.

    Attributes:
      num_support: support points per task, >= 1.
      num_query: query points per task, >= 1.
      amplitude: (low, high), drawn uniformly.
      phase: (low, high) in radians, drawn uniformly.
      x_range: (low, high) of the inputs, drawn uniformly.

    Raises:
      ValueError: if a count is below 1 or a range is not (low, high).
    """

    num_support: int = 10
    num_query: int = 10
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x_range: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self):
        _require.count(at_least=1, num_support=self.num_support, num_query=self.num_query)
        _require.interval(amplitude=self.amplitude, phase=self.phase, x_range=self.x_range)

    def __call__(self, key: jax.Array, num_tasks: int) -> Task:
        """A batch of tasks; support and query are (x, y) with arrays of shape [num_tasks, number of points, 1]."""
        _require.count(at_least=1, num_tasks=num_tasks)
        amplitude_key, phase_key, x_key = jax.random.split(key, 3)
        amplitude = _uniform(amplitude_key, (num_tasks,), self.amplitude)
        phase = _uniform(phase_key, (num_tasks,), self.phase)
        x = _uniform(x_key, (num_tasks, self.num_support + self.num_query, 1), self.x_range)
        y = amplitude[:, None, None] * jnp.sin(x - phase[:, None, None])
        first = self.num_support
        return Task(support=(x[:, :first], y[:, :first]), query=(x[:, first:], y[:, first:]))

    def task(self, key: jax.Array, amplitude: float, phase: float) -> Task:
        """The one task with this amplitude and phase; arrays of shape [number of points, 1]."""
        one = dataclasses.replace(self, amplitude=(amplitude, amplitude), phase=(phase, phase))
        return jax.tree.map(lambda leaf: leaf[0], one(key, 1))


def _uniform(key, shape, bounds):
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])
