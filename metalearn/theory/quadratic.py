"""Quadratic tasks solved exactly.

Adaptation to a quadratic support loss with Hessian H and minimum m is affine in the initialization θ::

    φ(θ) = m + J (θ - m),      J = (I - α H)^K             K gradient steps with learning rate α
                               J = λ (H + λ I)⁻¹           the proximal problem with strength λ
                               J = exp(-T H)               the gradient flow for a time T

Everything else follows from J. With the query loss f(φ) = 1/2 (φ - q)ᵀ A (φ - q)::

    F(θ) = f(φ(θ)),    ∇F(θ) = Jᵀ A (φ(θ) - q)

The Moreau envelope of h is a quadratic too, with Hessian (I + α H)⁻¹ H and minimum m.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Real

from metalearn import _require
from metalearn.task import Task
from metalearn.tasks.quadratic import QuadraticBatch


class Quadratics(NamedTuple):
    """A batch of quadratic tasks with one way of adapting to them. Arrays are float64 numpy; params has shape [dim].

    Attributes:
      tasks: as drawn by tasks.Quadratic, one leading axis for tasks.
      jacobian: J = ∂φ/∂θ of each task, shape [num_tasks, dim, dim].

    Example: see `unrolled`.
    """

    tasks: Task
    jacobian: Float64[np.ndarray, "num_tasks dim dim"]

    def adapted(self, params: Real[Array | np.ndarray, " dim"]) -> Float64[np.ndarray, "num_tasks dim"]:
        """Each task's adapted parameters φ(θ), shape [num_tasks, dim]."""
        minimum = self.tasks.support.minimum
        _require.known(params=params)
        params = np.asarray(params)
        if not np.issubdtype(params.dtype, np.integer) and not jnp.issubdtype(params.dtype, jnp.floating):
            raise TypeError(f"params must be an array of real numbers, but it is one of {params.dtype}.")
        params = params.astype(np.float64)
        if params.shape != minimum.shape[-1:]:
            raise ValueError(f"params must have shape {list(minimum.shape[-1:])}, but it has {list(params.shape)}.")
        return minimum + _apply(self.jacobian, params - minimum)

    def query_losses(self, params: Real[Array | np.ndarray, " dim"]) -> Float64[np.ndarray, " num_tasks"]:
        """Each task's loss after adaptation, shape [num_tasks]."""
        hessian, minimum = self.tasks.query
        offset = self.adapted(params) - minimum
        return 0.5 * np.sum(offset * _apply(hessian, offset), axis=-1)

    def task_gradients(self, params: Real[Array | np.ndarray, " dim"]) -> Float64[np.ndarray, "num_tasks dim"]:
        """Each task's meta-gradient, shape [num_tasks, dim]."""
        hessian, minimum = self.tasks.query
        return _apply(_transpose(self.jacobian), _apply(hessian, self.adapted(params) - minimum))

    def objective(self, params: Real[Array | np.ndarray, " dim"]) -> float:
        """The meta-objective: mean loss after adaptation."""
        return float(self.query_losses(params).mean())

    def meta_gradient(self, params: Real[Array | np.ndarray, " dim"]) -> Float64[np.ndarray, " dim"]:
        """Its gradient, shape [dim]."""
        return self.task_gradients(params).mean(axis=0)

    def stationary_point(self) -> Float64[np.ndarray, " dim"]:
        """Where the meta-gradient is zero, shape [dim]: it is affine in params, so one linear solve finds it."""
        curvature = (_transpose(self.jacobian) @ self.tasks.query.hessian @ self.jacobian).mean(axis=0)
        return np.linalg.solve(curvature, -self.meta_gradient(np.zeros(len(curvature))))


def unrolled(tasks: Task, step_size: float, num_steps: int) -> Quadratics:
    """Adaptation by `num_steps` gradient steps of `step_size`, as in MAML: J = (I - α H)^K.

    Args:
      tasks: a batch of tasks of tasks.Quadratic.
      step_size: α > 0, the inner learning rate.
      num_steps: K >= 0.

    Example:
      >>> import jax, jax.numpy as jnp, metalearn as ml, numpy as np, optax
      >>> quadratics, params = ml.tasks.Quadratic(dim=2), jnp.array([1.0, -1.0])
      >>> tasks = quadratics(jax.random.key(0), 8)
      >>> exact = ml.theory.unrolled(tasks, step_size=0.1, num_steps=5)
      >>> _, gradients = jax.vmap(ml.maml(quadratics.loss, optax.sgd(0.1), 5), (None, 0))(params, tasks)
      >>> np.allclose(gradients, exact.task_gradients(params), rtol=1e-3, atol=1e-3)
      True
    """
    step_size = _known_positive(step_size=step_size)
    _require.count(num_steps=num_steps)
    tasks = _float64(tasks)
    hessian = tasks.support.hessian
    return Quadratics(tasks, np.linalg.matrix_power(np.eye(hessian.shape[-1]) - step_size * hessian, num_steps))


def proximal(tasks: Task, proximal_strength: float) -> Quadratics:
    """Adaptation to the minimum of h(φ) + λ/2 ‖φ - θ‖², as in iMAML and FO-B-MAML: J = λ (H + λ I)⁻¹.

    Args:
      tasks: a batch of tasks of tasks.Quadratic.
      proximal_strength: λ > 0.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> half = ml.tasks.QuadraticBatch(hessian=np.ones((1, 1, 1)), minimum=np.ones((1, 1)))  # one task, (φ - 1)² / 2
      >>> print(ml.theory.proximal(ml.Task(half, half), proximal_strength=1.0).adapted(np.zeros(1)).round(2))
      [[0.5]]
    """
    proximal_strength = _known_positive(proximal_strength=proximal_strength)
    tasks = _float64(tasks)
    hessian = tasks.support.hessian
    identity = np.eye(hessian.shape[-1])
    return Quadratics(tasks, proximal_strength * np.linalg.inv(hessian + proximal_strength * identity))


def flow(tasks: Task, horizon: float) -> Quadratics:
    """Adaptation by the gradient flow dφ/dt = -∇h(φ) for a time `horizon`, as in A-MAML: J = exp(-T H).

    Args:
      tasks: a batch of tasks of tasks.Quadratic.
      horizon: T > 0, the inner training time.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> half = ml.tasks.QuadraticBatch(hessian=np.ones((1, 1, 1)), minimum=np.ones((1, 1)))  # one task, (φ - 1)² / 2
      >>> print(ml.theory.flow(ml.Task(half, half), horizon=np.log(2)).adapted(np.zeros(1)).round(2))
      [[0.5]]
    """
    horizon = _known_positive(horizon=horizon)
    tasks = _float64(tasks)
    curvature, axes = np.linalg.eigh(tasks.support.hessian)
    return Quadratics(tasks, (axes * np.exp(-horizon * curvature)[..., None, :]) @ _transpose(axes))


def moreau(tasks: Task, step_size: float) -> Quadratics:
    """The Moreau envelopes min_z h(z) + 1/(2α) ‖z - θ‖² of the support losses h, as in FO-MuML.

    Each is given as the query loss of a task that does not adapt, J = I. It is attained at
    z = proximal(tasks, 1 / step_size).adapted(θ).

    Args:
      tasks: a batch of tasks of tasks.Quadratic.
      step_size: α > 0.

    Example:
      >>> import metalearn as ml, numpy as np
      >>> half = ml.tasks.QuadraticBatch(hessian=np.ones((1, 1, 1)), minimum=np.ones((1, 1)))  # one task, (φ - 1)² / 2
      >>> envelope = ml.theory.moreau(ml.Task(half, half), step_size=1.0)
      >>> round(envelope.objective(np.zeros(1)), 2)  # at z = 0.5: (z - 1)² / 2 + z² / 2
      0.25
    """
    step_size = _known_positive(step_size=step_size)
    hessian, minimum = _float64(tasks).support
    identity = np.broadcast_to(np.eye(hessian.shape[-1]), hessian.shape)
    envelope = type(tasks.support)(np.linalg.solve(identity + step_size * hessian, hessian), minimum)
    return Quadratics(Task(envelope, envelope), identity)


def _known_positive(**named):
    """The one argument as a float; theory is computed at once, in float64."""
    _require.known(**named)
    _require.positive(**named)
    return float(*named.values())


def _float64(tasks):
    """The tasks in float64 numpy; raises unless they are a batch of quadratics in one number of dimensions."""
    num_tasks = _require.task_batch(tasks)
    halves = []
    for name, batch in tasks._asdict().items():
        if not isinstance(batch, QuadraticBatch):
            raise TypeError(f"tasks.{name} must be a QuadraticBatch, but it is a {type(batch).__name__}.")
        hessian, minimum = (_require.finite_float64(f"tasks.{name}.{k}", v) for k, v in batch._asdict().items())
        dim = minimum.shape[-1]
        if minimum.shape != (num_tasks, dim) or hessian.shape != (num_tasks, dim, dim):
            raise ValueError(
                f"tasks.{name} must have a hessian [num_tasks, dim, dim] and a minimum [num_tasks, dim], "
                f"but they have {list(hessian.shape)} and {list(minimum.shape)}."
            )
        if not np.allclose(hessian, _transpose(hessian), rtol=1e-4, atol=1e-6 * np.abs(hessian).max()):
            raise ValueError(f"tasks.{name}.hessian must be symmetric, but it is not.")
        halves.append(QuadraticBatch(hessian, minimum))
    if halves[0].minimum.shape != halves[1].minimum.shape:
        raise ValueError("tasks must have support and query sets in one number of dimensions, but they do not.")
    return Task(*halves)


def _apply(matrices, vectors):
    return np.einsum("...ij,...j->...i", matrices, vectors)


def _transpose(matrices):
    return np.swapaxes(matrices, -1, -2)
