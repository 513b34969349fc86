"""Exercises, predictions, quiz and figures of lesson 09, Moreau envelopes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import (
    adapt,
    cosines,
    curve_task,
    gradient_at,
    mean_of,
    move,
    nested,
    nested_params,
    points_task,
    regression,
    wave,
)
from metalearn.course.widgets import diagrams
from metalearn.task import Task
from metalearn.tasks.quadratic import QuadraticBatch

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

_Array = Float[np.ndarray, "..."]

# 09.moreau_gradient -------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _minimum(loss, batch, params, proximal_strength):
    """φ*, by many small gradient steps on the proximal objective."""

    def step(_, phi):
        gradient = jax.grad(loss)(phi, batch)
        return jax.tree.map(
            lambda p, g, t: p - (g + proximal_strength * (p - t)) / (40 + proximal_strength), phi, gradient, params
        )

    return jax.lax.fori_loop(0, 1_500, step, params)


def _envelope_gradient(task_gradient, combine=mean_of):
    """The mean over tasks of some gradient: (loss, batch, params, phi*, proximal_strength) -> a pytree."""

    def moreau_gradient(loss, minimize, batches, params, proximal_strength):
        return combine(
            [
                task_gradient(loss, batch, params, minimize(batch, params, proximal_strength), proximal_strength)
                for batch in batches
            ]
        )

    return moreau_gradient


def _times(factor):
    """The displacement θ - φ*, multiplied by a function of the proximal strength."""

    def task_gradient(loss, batch, params, adapted, proximal_strength):
        return jax.tree.map(lambda t, p: factor(proximal_strength) * (t - p), params, adapted)

    return task_gradient


@functools.partial(jax.jit, static_argnums=0)
def _implicit(loss, batch, params, adapted, proximal_strength):
    """iMAML's gradient, with the support loss in both roles."""
    phi, unravel = ravel_pytree(adapted)
    hessian = jax.hessian(lambda vector: loss(unravel(vector), batch))(phi)
    gradient = ravel_pytree(jax.grad(loss)(adapted, batch))[0]
    return unravel(jnp.linalg.solve(jnp.eye(len(phi)) + hessian / proximal_strength, gradient))


def _of_the_mean(loss, minimize, batches, params, proximal_strength):
    """An alternative: the mean of all minima first, and then one displacement."""
    total = functools.reduce(
        lambda a, b: jax.tree.map(jnp.add, a, b), (minimize(batch, params, proximal_strength) for batch in batches)
    )
    return jax.tree.map(lambda t, s: proximal_strength * t - proximal_strength * s / len(batches), params, total)


def _strong(loss, rng, params, batches, proximal_strength):
    return loss, functools.partial(_minimum, loss), batches, params, proximal_strength


MOREAU_GRADIENT = Exercise(
    id="09.moreau_gradient",
    title="The gradient of the mean envelope",
    difficulty=1,
    minutes=8,
    reference=_envelope_gradient(_times(lambda s: s)),
    instances=lambda rng: [
        _strong(wave, rng, rng.normal(1, 0.3, 2), [curve_task(rng, n, 1).support for n in (5, 7)], 6.0),
        _strong(cosines, rng, rng.normal(0, 1, 4), [points_task(rng, 4, n, 1).support for n in (3, 5, 4)], 1.7),
        _strong(nested, rng, nested_params(rng), [curve_task(rng, 6, 1).support for _ in range(3)], 9.0),
        _strong(regression, rng, rng.normal(0, 0.5, 3), [curve_task(rng, 8, 1).support], 3.0),
    ],
    misconceptions=(
        Misconception(
            "proximal strength missing",
            _envelope_gradient(_times(lambda s: 1.0)),
            "Your result equals the mean of $\\theta - \\varphi^*$, without $\\lambda$. This is a direction like "
            "Reptile's. What is the derivative of $\\frac{\\lambda}{2} \\lVert \\varphi^* - \\theta \\rVert^2$ with "
            "respect to $\\theta$, if $\\varphi^*$ is held fixed?",
        ),
        Misconception(
            "wrong sign",
            _envelope_gradient(_times(lambda s: -s)),
            "Your result is the target with the opposite sign. A step *against* the gradient should bring $\\theta$ "
            "closer to the adapted parameters: does it, with your sign?",
        ),
        Misconception(
            "divided by the proximal strength",
            _envelope_gradient(_times(lambda s: 1 / s)),
            "Your result equals the mean of $(\\theta - \\varphi^*) / \\lambda$. Some texts write the proximal term "
            "with $1/(2\\alpha)$, and there one divides; here the proximal strength is $\\lambda$.",
        ),
        Misconception(
            "half",
            _envelope_gradient(_times(lambda s: s / 2)),
            "Your result is half of the target. What becomes of the $\\frac12$ of the proximal term when the square is "
            "differentiated?",
        ),
        Misconception(
            "twice",
            _envelope_gradient(_times(lambda s: 2 * s)),
            "Your result is twice the target. The two sides of $\\lambda (\\theta - \\varphi^*) = \\nabla "
            "h(\\varphi^*)$ are the same vector; perhaps both were added.",
        ),
        Misconception(
            "gradient at the initialization",
            _envelope_gradient(lambda loss, batch, params, adapted, s: gradient_at(loss, params, batch)),
            "Your result equals the mean of $\\nabla h(\\theta)$, the direction of joint training, which does not "
            "adapt. At which point does the envelope's gradient look at the loss?",
        ),
        Misconception(
            "gradient of the proximal objective",
            _envelope_gradient(
                lambda loss, batch, params, adapted, s: jax.tree.map(
                    lambda g, p, t: g + s * (p - t), gradient_at(loss, adapted, batch), adapted, params
                )
            ),
            "Your result is zero. So is the gradient of the proximal objective *in $\\varphi$* at its minimum; the "
            "envelope's gradient is the derivative in $\\theta$.",
        ),
        Misconception(
            "implicit gradient",
            _envelope_gradient(_implicit),
            "Your result equals the gradient of iMAML, which scores $\\varphi^*$ by the loss alone. The envelope "
            "counts the proximal term as well, and then no linear solve is left.",
        ),
        Misconception(
            "sum over tasks",
            _envelope_gradient(_times(lambda s: s), lambda trees: jax.tree.map(lambda *leaves: sum(leaves), *trees)),
            "Your result is right for one task and grows with their number: it is the sum over tasks, and the "
            "objective is the mean.",
        ),
        Misconception(
            "first task only",
            _envelope_gradient(_times(lambda s: s), lambda trees: trees[0]),
            "Your result equals the gradient of the first task's envelope. Does the function return inside a loop?",
        ),
        Misconception(
            "last task only",
            _envelope_gradient(_times(lambda s: s), lambda trees: trees[-1]),
            "Your result equals the gradient of the last task's envelope. Is something overwritten in a loop?",
        ),
        Misconception(
            "minimum returned",
            _envelope_gradient(lambda loss, batch, params, adapted, s: adapted),
            "Your result equals the mean of the minima $\\varphi^*$. The gradient says how far $\\theta$ is from them.",
        ),
    ),
    relatives=(
        (
            "what a minimum for the proximal strength 1/λ gives",
            lambda loss, minimize, batches, params, proximal_strength: _envelope_gradient(
                _times(lambda s: proximal_strength)
            )(loss, minimize, batches, params, 1 / proximal_strength),
        ),
        (
            "the mean gradient of the tasks at the mean of their minima",
            lambda loss, minimize, batches, params, proximal_strength: (
                lambda middle: mean_of([gradient_at(loss, middle, batch) for batch in batches])
            )(mean_of([minimize(batch, params, proximal_strength) for batch in batches])),
        ),
        (
            "what θ minus the sum of the minima gives, divided by the number of tasks",
            lambda loss, minimize, batches, params, proximal_strength: jax.tree.map(
                lambda t, *phis: proximal_strength * (t - sum(phis)) / len(batches),
                params,
                *(minimize(batch, params, proximal_strength) for batch in batches),
            ),
        ),
        (
            "what λθ minus the mean of the minima gives",
            lambda loss, minimize, batches, params, proximal_strength: jax.tree.map(
                lambda t, *phis: proximal_strength * t - sum(phis) / len(batches),
                params,
                *(minimize(batch, params, proximal_strength) for batch in batches),
            ),
        ),
        (
            "the target divided by the norm of θ",
            lambda loss, minimize, batches, params, proximal_strength: (
                lambda norm: _envelope_gradient(_times(lambda s: s / norm))(
                    loss, minimize, batches, params, proximal_strength
                )
            )(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(params)))),
        ),
        (
            "the gradient of each task's envelope in a list, not yet their mean",
            _envelope_gradient(_times(lambda s: s), list),
        ),
    ),
    alternatives=(
        _envelope_gradient(lambda loss, batch, params, adapted, s: gradient_at(loss, adapted, batch)),
        _of_the_mean,
    ),
    hints=(
        "Call `minimize(batch, params, proximal_strength)` once for every batch. Line 4 needs nothing else.",
        "`jax.tree.map` takes several pytrees of one structure. The mean of the gradients is the sum over tasks, "
        "divided by `len(batches)`.",
    ),
    expected="A pytree like `params`. It equals the mean of $\\nabla h_i(\\varphi_i^*)$ over the tasks.",
)

# 09.moreau_point ----------------------------------------------------------------------------------------------------


def _weighted(weight, normalized=True):
    """The mean of the minima with matrices as weights: (hessian, proximal_strength) -> weight."""

    def moreau_point(hessians, minima, proximal_strength):
        weights = np.stack([weight(hessian, proximal_strength) for hessian in hessians])
        right = np.einsum("tij,tj->i", weights, minima)
        return np.linalg.solve(weights.sum(0), right) if normalized else right / len(weights)

    return moreau_point


def _factor(hessian, proximal_strength):
    """J, the derivative of φ*."""
    return proximal_strength * np.linalg.inv(hessian + proximal_strength * np.eye(len(hessian)))


def _by_theory(hessians, minima, proximal_strength):
    batch = QuadraticBatch(hessians, minima)
    return ml.theory.moreau(Task(batch, batch), 1 / proximal_strength).stationary_point()


def _by_displacements(hessians, minima, proximal_strength):
    """An alternative: θ is the mean of the proximal points, each of which is affine in it."""
    factors = np.stack([_factor(hessian, proximal_strength) for hessian in hessians])
    offsets = minima - np.einsum("tij,tj->ti", factors, minima)
    return np.linalg.solve(np.eye(minima.shape[1]) - factors.mean(0), offsets.mean(0))


def _by_iteration(hessians, minima, proximal_strength):
    """An alternative: many steps against the mean of λ (θ - φ*)."""
    theta = np.zeros(minima.shape[1])
    factors = np.stack([_factor(hessian, proximal_strength) for hessian in hessians])
    for _ in range(4_000):
        adapted = minima + np.einsum("tij,tj->ti", factors, theta - minima)
        theta = theta + (adapted - theta).mean(0)
    return theta


def _spectrum(rng, curvatures):
    basis = np.linalg.qr(rng.normal(0, 1, (len(curvatures), len(curvatures))))[0]
    return (basis * curvatures) @ basis.T


def _quadratic_tasks(rng, num_tasks, dim, low=0.3, high=4.0):
    hessians = np.stack(
        [_spectrum(rng, np.linspace(low, high, dim) + rng.uniform(0, 0.2, dim)) for _ in range(num_tasks)]
    )
    return hessians * np.linspace(0.5, 1.5, num_tasks)[:, None, None], rng.normal(0, 2, (num_tasks, dim))


def _with_a_saddle(rng):
    """Three tasks, one of which has a negative curvature."""
    hessians, minima = _quadratic_tasks(rng, 3, 3, low=1.0)
    hessians[1] = _spectrum(rng, np.array([-0.3, 1.0, 2.0]))
    return hessians, minima


MOREAU_POINT = Exercise(
    id="09.moreau_point",
    title="Your line of the derivation: where training converges",
    difficulty=2,
    minutes=12,
    reference=_by_theory,
    instances=lambda rng: [
        (np.array([[[3.0]], [[0.5]]]), np.array([[-1.0], [2.0]]), 1.0),
        (*_quadratic_tasks(rng, 4, 3), 0.7),
        (*_with_a_saddle(rng), 2.5),
        (*_quadratic_tasks(rng, 2, 5), 3.0),
    ],
    misconceptions=(
        Misconception(
            "joint training",
            _weighted(lambda hessian, proximal_strength: hessian),
            "Your result is the point of joint training, with $H_i$ as weights. Where does the factor $J_i$ of the "
            "adapted parameters enter?",
        ),
        Misconception(
            "two factors",
            _weighted(
                lambda hessian, proximal_strength: (
                    _factor(hessian, proximal_strength) @ hessian @ _factor(hessian, proximal_strength)
                )
            ),
            "Your result is the point of iMAML, whose weights contain $J_i$ twice. How often is it in "
            "$\\lambda (\\theta - \\varphi_i^*)$?",
        ),
        Misconception(
            "factor alone",
            _weighted(_factor),
            "Your result has $J_i$ alone as weights. That is the part of $\\theta - m_i$ that is *left* in "
            "$\\varphi_i^* - m_i$; the gradient contains the part that is not.",
        ),
        Misconception(
            "plain mean",
            lambda hessians, minima, proximal_strength: minima.mean(0),
            "Your result is the plain mean of the minima. Each task's gradient is a matrix times $\\theta - m_i$, and "
            "these matrices differ.",
        ),
        Misconception(
            "inverse proximal strength",
            lambda hessians, minima, proximal_strength: _by_theory(hessians, minima, 1 / proximal_strength),
            "Your result is the one for a proximal strength of $1/\\lambda$.",
        ),
        Misconception(
            "proximal strength of one",
            lambda hessians, minima, proximal_strength: _by_theory(hessians, minima, 1.0),
            "Your result is the one for $\\lambda = 1$. Is the proximal strength missing somewhere in the inverse?",
        ),
        Misconception(
            "each entry",
            _weighted(lambda hessian, proximal_strength: proximal_strength * hessian / (proximal_strength + hessian)),
            "Your weights seem to be computed for each *entry* of the Hessian. In several dimensions a division "
            "becomes a linear solve.",
        ),
        Misconception(
            "weights not normalized",
            _weighted(
                lambda hessian, proximal_strength: hessian @ _factor(hessian, proximal_strength), normalized=False
            ),
            "Your result is the mean of weight times minimum, with the right weights. What is left to solve for, once "
            "$\\sum_i W_i (\\theta - m_i) = 0$ is written out?",
        ),
        Misconception(
            "proximal strength on every entry",
            _weighted(
                lambda hessian, proximal_strength: (
                    proximal_strength * np.linalg.inv(hessian + proximal_strength) @ hessian
                )
            ),
            "The proximal strength seems to be added to every entry of the Hessian, and not to its diagonal alone.",
        ),
        Misconception(
            "sign of the minima",
            lambda hessians, minima, proximal_strength: -_by_theory(hessians, minima, proximal_strength),
            "Your result is the target with the opposite sign. Check the sign when $m_i$ moves to the other side.",
        ),
    ),
    relatives=(
        (
            "what the proximal strength gives if it is added to every number of the Hessian",
            _weighted(lambda hessian, proximal_strength: hessian @ np.linalg.inv(hessian + proximal_strength)),
        ),
        (
            "what a division of matrices number by number gives",
            _weighted(
                lambda hessian, proximal_strength: hessian / (hessian + proximal_strength * np.eye(len(hessian)))
            ),
        ),
        (
            "what the sum of all Hessians gives in each weight",
            lambda hessians, minima, proximal_strength: _weighted(
                lambda hessian, s: hessian @ np.linalg.inv(hessians.sum(0) + s * np.eye(len(hessian)))
            )(hessians, minima, proximal_strength),
        ),
        (
            "what the traces of the Hessians give as curvatures",
            lambda hessians, minima, proximal_strength: (
                lambda trace: np.average(minima, axis=0, weights=trace / (trace + proximal_strength))
            )(np.trace(hessians, axis1=1, axis2=2)),
        ),
        (
            "what the inverses of the weights give",
            lambda hessians, minima, proximal_strength: np.mean(
                [
                    np.linalg.solve(hessian @ _factor(hessian, proximal_strength) / proximal_strength, m)
                    for hessian, m in zip(hessians, minima, strict=True)
                ],
                axis=0,
            ),
        ),
        (
            "what the squares of the Hessians give as weights",
            _weighted(lambda hessian, proximal_strength: hessian @ hessian),
        ),
    ),
    alternatives=(_by_displacements, _by_iteration),
    hints=(
        "By line 1, $\\theta - \\varphi^* = (I - J)(\\theta - m)$. Put in $J = \\lambda (H + \\lambda I)^{-1}$ and "
        "simplify: $I - J$ is a product of $H$ with the same inverse.",
        "So the gradient of task $i$ is a matrix $W_i$ times $(\\theta - m_i)$. As in lesson 03, the sum over tasks is "
        "zero at a weighted mean. Here the weights are matrices, so the last step is `np.linalg.solve`.",
    ),
    expected="An array of shape [d]. For the curvatures 3 and 0.5, minima at −1 and 2 and $\\lambda = 1$ it is near "
    "−0.08.",
)

# 09.anchored --------------------------------------------------------------------------------------------------------


def _anchored(loss, batch, params, step_size, num_steps):
    """z_K."""
    z = params
    for _ in range(num_steps):
        z = move(params, gradient_at(loss, z, batch), step_size)
    return z


def _after(iteration, change=lambda num_steps: num_steps):
    """The gradient of the loss at the end of some iteration."""

    def gradient(loss, batch, params, step_size, num_steps):
        end = iteration(loss, batch, params, step_size, change(num_steps))
        return gradient_at(loss, end, batch)

    return gradient


@functools.partial(jax.jit, static_argnums=(0, 4))
def _by_the_library(loss, batch, params, step_size, num_steps):
    return ml.fo_muml(loss, step_size, num_steps)(params, Task(batch, batch))[1]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _through_the_iteration(loss, batch, params, step_size, num_steps):
    return jax.grad(lambda theta: loss(_anchored(loss, batch, theta, step_size, num_steps), batch))(params)


def _proximal_descent(loss, batch, params, step_size, num_steps):
    """z_K as gradient descent on the proximal objective, with the learning rate 1 / λ = α."""
    z = params
    for _ in range(num_steps):
        proximal = jax.tree.map(lambda a, b: (a - b) / step_size, z, params)
        z = move(z, jax.tree.map(jnp.add, gradient_at(loss, z, batch), proximal), step_size)
    return z


def _displacement(scale):
    """θ - z_K, times a function of the step size."""

    def gradient(loss, batch, params, step_size, num_steps):
        end = _anchored(loss, batch, params, step_size, num_steps)
        return jax.tree.map(lambda t, z: scale(step_size) * (t - z), params, end)

    return gradient


def _summed(loss, batch, params, step_size, num_steps):
    """All gradients along the iteration taken together in one step."""
    z = params
    for _ in range(num_steps):
        z = move(z, gradient_at(loss, params, batch), step_size)
    return z


@functools.partial(jax.jit, static_argnums=(0, 4))
def _with_fori(loss, batch, params, step_size, num_steps):
    """An alternative: the gradient is what is carried, from the first one at θ."""

    def step(_, gradient):
        return jax.grad(loss)(move(params, gradient, step_size), batch)

    return jax.lax.fori_loop(0, num_steps, step, jax.grad(loss)(params, batch))


ANCHORED = Exercise(
    id="09.anchored",
    title="The anchored iteration",
    difficulty=2,
    minutes=10,
    reference=_by_the_library,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 1).support, rng.normal(1, 0.2, 2), 0.15, 3),
        (cosines, points_task(rng, 4, 6, 1).support, rng.normal(0, 1, 4), 0.6, 2),
        (nested, curve_task(rng, 6, 1).support, nested_params(rng), 0.04, 4),
        (regression, curve_task(rng, 6, 1).support, rng.normal(0, 0.5, 3), 0.1, 1),
        (wave, curve_task(rng, 5, 1).support, rng.normal(1, 0.2, 2), 0.2, 0),
    ],
    misconceptions=(
        Misconception(
            "gradient descent",
            _after(adapt),
            "Your result is that of $K$ ordinary gradient steps, each from where the last one ended. Then more steps "
            "go further towards the minimum of $h$. In the anchored iteration every step begins at $\\theta$.",
        ),
        Misconception(
            "one step behind",
            _after(_anchored, lambda k: max(k - 1, 0)),
            "Your result is $\\nabla h(z_{K-1})$. This is also what $(\\theta - z_K)/\\alpha$ equals: the displacement "
            "is one step behind the gradient at its end.",
        ),
        Misconception(
            "one step too many",
            _after(_anchored, lambda k: k + 1),
            "Your result is $\\nabla h(z_{K+1})$. Count again: how many steps lead from $z_0 = \\theta$ to $z_K$?",
        ),
        Misconception(
            "gradient at the initialization",
            _after(lambda loss, batch, params, step_size, num_steps: params),
            "Your result is $\\nabla h(\\theta)$, whatever $K$ is. Where is the gradient to be taken?",
        ),
        Misconception(
            "always the same gradient",
            _after(_summed),
            "Your result is that of steps which all use $\\nabla h(\\theta)$. The *gradient* is taken at $z_k$; it is "
            "the subtraction that begins at $\\theta$.",
        ),
        Misconception(
            "displacement",
            _displacement(lambda a: 1.0),
            "Your result is the displacement $\\theta - z_K$. The exercise asks for a gradient.",
        ),
        Misconception(
            "end of the iteration",
            _anchored,
            "Your result is $z_K$ itself. Which vector, taken there, estimates the gradient of the envelope?",
        ),
        Misconception(
            "uphill",
            _after(
                lambda loss, batch, params, step_size, num_steps: _anchored(loss, batch, params, -step_size, num_steps)
            ),
            "Your steps go uphill: $\\theta + \\alpha \\nabla h(z_k)$.",
        ),
        Misconception(
            "differentiated through",
            _through_the_iteration,
            "Your result is the exact gradient of $h(z_K)$ with respect to $\\theta$, backpropagated through the "
            "iteration. That is another objective, and costs more; the envelope's gradient needs only the gradient "
            "*at* $z_K$.",
        ),
        Misconception(
            "proximal strength for step size",
            lambda loss, batch, params, step_size, num_steps: _after(_anchored)(
                loss, batch, params, 1 / step_size, num_steps
            ),
            "Your result is that of a step size of $1/\\alpha$. The argument is $\\alpha$, and $\\lambda$ is its "
            "inverse.",
        ),
    ),
    relatives=(
        ("the gradient at the end of a single step, whatever the number of steps", _after(_anchored, lambda k: 1)),
        ("the gradient at the fixed point of the iteration", _after(_anchored, lambda k: 200)),
        (
            "the gradient after descent with a proximal strength of 1",
            lambda loss, batch, params, step_size, num_steps: gradient_at(
                loss,
                functools.reduce(
                    lambda z, _: jax.tree.map(
                        lambda z, g, t: z - step_size * (g + z - t), z, gradient_at(loss, z, batch), params
                    ),
                    range(num_steps),
                    params,
                ),
                batch,
            ),
        ),
        (
            "the gradient after steps that stop half way between z and the next z",
            lambda loss, batch, params, step_size, num_steps: gradient_at(
                loss,
                functools.reduce(
                    lambda z, _: jax.tree.map(
                        lambda a, b: (a + b) / 2, z, move(params, gradient_at(loss, z, batch), step_size)
                    ),
                    range(num_steps),
                    params,
                ),
                batch,
            ),
        ),
        (
            "the displacement θ - z divided by the step size, one gradient earlier than asked",
            _displacement(lambda a: 1 / a),
        ),
        ("the displacement z - θ", _displacement(lambda a: -1.0)),
        (
            "the gradient of the proximal objective at the end, which vanishes at its minimum",
            lambda loss, batch, params, step_size, num_steps: jax.tree.map(
                np.subtract,
                _after(_anchored)(loss, batch, params, step_size, num_steps),
                _displacement(lambda a: 1 / a)(loss, batch, params, step_size, num_steps),
            ),
        ),
    ),
    alternatives=(_after(_proximal_descent), _with_fori),
    hints=(
        "Keep `params` as it is, and give the moving point a name of its own, `z`.",
        "One step: the gradient at `z`, subtracted from `params`. After the last step the gradient is needed once "
        "more.",
    ),
    expected="A pytree like `params`. With $K = 1$ it is FO-MAML's gradient, with the support set in both roles.",
)

# 09.control ---------------------------------------------------------------------------------------------------------


def _split(parts):
    """A right or wrong analysis: (plateau, number of steps, learning rate) -> (bias, noise)."""
    return lambda plateau, num_steps, learning_rate: tuple(parts(plateau, num_steps, learning_rate))


def _with_noise(noise):
    """An analysis that finds the noise, and takes the rest of the error for the bias."""
    return _split(lambda p, k, eta: (p(k, eta) - noise(p, k, eta), noise(p, k, eta)))


def _noise(p, k, eta):
    """The right one, from half of the learning rate."""
    return 2 * (p(k, eta) - p(k, eta / 2))


split = _with_noise(_noise)  # the lesson itself uses it, whatever the learner has written


def _quartered(p, k, eta):
    """An alternative: a straight line through three learning rates, whose value at zero is the bias."""
    rates = eta * np.array([1.0, 0.5, 0.25])
    slope, bias = np.polyfit(rates, [p(k, rate) for rate in rates], 1)
    return bias, slope * eta


def _nearly_zero(p, k, eta):
    """An alternative: a learning rate so small that only the bias is left."""
    bias = p(k, 1e-9 * eta)
    return bias, p(k, eta) - bias


def _plateau(rng, bias, noise):
    """Some law by which the error at the end follows from inner steps and the outer learning rate."""
    contraction, grows = rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.6)

    def measured(num_steps, learning_rate):
        growth = 1 + grows * (1 - contraction**num_steps)  # other gradients, another noise
        return bias * contraction ** (2 * num_steps) + noise * growth * learning_rate

    return measured


CONTROL = Exercise(
    id="09.control",
    title="Design the control: inner accuracy, or noise?",
    difficulty=3,
    minutes=12,
    reference=split,
    instances=lambda rng: [
        (_plateau(rng, rng.uniform(1, 2), rng.uniform(1, 2)), 1, 0.2),
        (_plateau(rng, rng.uniform(5, 9), rng.uniform(0.1, 0.2)), 0, 0.4),
        (_plateau(rng, rng.uniform(0.5, 1), rng.uniform(5, 8)), 2, 0.1),
    ],
    misconceptions=(
        Misconception(
            "more inner steps",
            _with_noise(lambda p, k, eta: p(k + 50, eta)),
            "Your noise seems to be the error of a run with many inner steps. But its gradients are others, and so is "
            "their noise. Which setting changes the noise and leaves the bias as it is?",
        ),
        Misconception(
            "one more inner step",
            _with_noise(lambda p, k, eta: p(k + 1, eta)),
            "Your noise seems to be the error with one inner step more. That step changes the bias without removing "
            "it, and it changes the noise as well. Which setting changes the noise alone?",
        ),
        Misconception(
            "not doubled",
            _with_noise(lambda p, k, eta: _noise(p, k, eta) / 2),
            "Your noise is half of the target, and your bias holds the other half. At half the learning rate half of "
            "the noise is still there.",
        ),
        Misconception(
            "swapped",
            lambda *run: split(*run)[::-1],
            "You return both parts in the other order: first comes the bias.",
        ),
        Misconception(
            "noise of the smaller rate",
            _split(lambda p, k, eta: (p(k, eta) - _noise(p, k, eta), _noise(p, k, eta) / 2)),
            "Your bias is right. Your noise is half of the target; it may be that of the smaller learning rate.",
        ),
        Misconception(
            "square root",
            _with_noise(lambda p, k, eta: (p(k, eta) - p(k, eta / 2)) / (1 - 1 / np.sqrt(2))),
            "Your result is that of a noise proportional to $\\sqrt\\eta$. The distance grows like this, but here "
            "*squared* distances are measured.",
        ),
        Misconception(
            "square",
            _with_noise(lambda p, k, eta: (p(k, eta) - p(k, eta / 2)) / (1 - 1 / 4)),
            "Your result is that of a noise proportional to $\\eta^2$. This is the mean square of a single step's "
            "displacement. How many of the last displacements still matter?",
        ),
        Misconception(
            "all of it bias",
            _with_noise(lambda p, k, eta: 0.0),
            "Your result ascribes the whole error to the bias. A run with another learning rate would tell.",
        ),
        Misconception(
            "all of it noise",
            _with_noise(lambda p, k, eta: p(k, eta)),
            "Your result ascribes the whole error to the noise. A run with another learning rate would tell.",
        ),
        Misconception(
            "slope",
            _split(lambda p, k, eta: (p(k, eta) - _noise(p, k, eta), _noise(p, k, eta) / eta)),
            "Your bias is right. In place of the noise you return its rate of growth with $\\eta$.",
        ),
        Misconception(
            "fractions",
            _split(lambda p, k, eta: np.array(split(p, k, eta)) / p(k, eta)),
            "You return fractions of the error. The exercise asks for the parts themselves.",
        ),
    ),
    relatives=(
        (
            "what the run without inner steps gives as bias, and the rest as noise",
            _with_noise(lambda p, k, eta: p(k, eta) - p(0, eta)),
        ),
        (
            "what twice the change with twice the inner steps gives as noise",
            _with_noise(lambda p, k, eta: 2 * (p(k, eta) - p(2 * k, eta))),
        ),
        ("the whole error in both parts", _split(lambda p, k, eta: (p(k, eta), p(k, eta)))),
        (
            "what a run gives in which inner steps and learning rate change at once",
            _with_noise(lambda p, k, eta: 2 * (p(k, eta) - p(2 * k, eta / 2))),
        ),
        (
            "what the noise gives with its sign turned round",
            _with_noise(lambda p, k, eta: -_noise(p, k, eta)),
        ),
        (
            "what twice the change to twice the learning rate gives as noise",
            _with_noise(lambda p, k, eta: 2 * (p(k, 2 * eta) - p(k, eta))),
        ),
        (
            "the right noise, with a bias in which it is added to the whole and not subtracted",
            _split(lambda p, k, eta: (p(k, eta) + _noise(p, k, eta), _noise(p, k, eta))),
        ),
        (
            "what the change with one more inner step gives as noise",
            _with_noise(lambda p, k, eta: p(k, eta) - p(k + 1, eta)),
        ),
        (
            "what a learning rate of a tenth gives as bias, though some noise is left",
            _with_noise(lambda p, k, eta: p(k, eta) - p(k, eta / 10)),
        ),
        (
            "what the noise gives as a fraction of the whole",
            _with_noise(lambda p, k, eta: _noise(p, k, eta) / p(k, eta)),
        ),
    ),
    alternatives=(_split(_quartered), _split(_nearly_zero)),
    hints=(
        "Write down the error of the run that you have, as bias plus noise. Then write down the error of a second run, "
        "which differs in one setting, such that the bias stays.",
        "Two equations, two unknowns. If the second run has half the learning rate, its error is the bias plus half of "
        "the noise.",
    ),
    expected="A pair of numbers, whose sum is `plateau(num_steps, learning_rate)`.",
)

# 09.counter_example -------------------------------------------------------------------------------------------------

_PLACES = np.linspace(-10, 10, 2_001)  # where the loss has to be curved, and where φ* has to lie


def _derivative(loss, phi):
    """h', from differences."""
    return (loss(phi + 1e-5) - loss(phi - 1e-5)) / 2e-5


def _minimum_of(loss, theta, proximal_strength):
    """φ* between -10 and 10, by bisection: for a convex loss the gradient of the proximal objective increases."""
    low, high = np.full_like(theta, -10), np.full_like(theta, 10)
    for _ in range(60):
        middle = (low + high) / 2
        beyond = _derivative(loss, middle) + proximal_strength * (middle - theta) > 0
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return (low + high) / 2


def _above_the_chord(loss, first, second, proximal_strength):
    """φ* at both ends and half way, and how far F_prox there exceeds its mean at both; 0 if not clearly."""
    phi = _minimum_of(loss, np.array([first, (first + second) / 2, second], float), proximal_strength)
    values = loss(phi)
    excess = values[1] - (values[0] + values[2]) / 2
    noise = (
        1e-10 * np.abs(values).max() * (1 + np.abs(_derivative(loss, phi)).max() / proximal_strength)
    )  # φ*'s as well
    return phi, excess if excess > noise else 0.0


def judge_counter_example(counter_example, proximal_strength, smallest_curvature):
    """What the check compares: 0 if all is as it must be, and otherwise which of the demands is not met."""
    made = counter_example(proximal_strength, smallest_curvature)
    if made is None or made is Ellipsis:
        return made
    here = f"For λ = {proximal_strength:.3g} and a smallest curvature of {smallest_curvature:.3g}"
    if (
        not isinstance(made, tuple | list)
        or len(made) != 3
        or not callable(made[0])
        or not all(map(_is_number, made[1:]))
    ):
        return np.array([1.0]), "Your function must return three things: a loss, and two initializations."

    def loss(phi):
        return np.asarray(made[0](np.array(phi)), float)  # a copy, which the learner's loss may change

    first, second = (float(np.squeeze(each)) for each in made[1:])
    values = loss(_PLACES)
    if values.shape != _PLACES.shape or not np.isfinite([*values, first, second]).all():
        return np.array([2.0]), (
            "Your loss must turn an array of values of φ into an array of losses, which has the same shape and holds "
            "finite numbers for φ from −10 to 10. The initializations must be finite as well."
        )
    curvature = np.diff(values, 2) / 0.01**2
    if (curvature + 1e-6 + 1e-10 * np.abs(values).max() < smallest_curvature).any():  # differences of rounded values
        place, lowest = _PLACES[1:-1][curvature.argmin()], curvature.min()
        return np.array([3.0 if lowest < -1e-3 else 4.0]), (
            f"{here} the curvature of your loss falls to {lowest:.3g}, at φ = {place:.3g}."
        )
    phi, excess = _above_the_chord(loss, first, second, proximal_strength)
    inside = bool((np.abs(phi) < 9.99).all())
    if inside and excess:
        return np.array([0.0]), (
            f"{here} your loss is curved enough, and half way between your initializations $F_\\text{{prox}}$ lies "
            f"{excess:.3g} above the mean of its values at both. So $F_\\text{{prox}}$ is not convex."
        )
    if first == second:
        return np.array([5.0]), "Your two initializations are the same, so there is nothing between them."
    at = np.array([first, second])
    if (np.abs(at) < 9.99).all():
        seen, above = _above_the_chord(loss, *(at + _derivative(loss, at) / proximal_strength), proximal_strength)
        if above and (np.abs(seen) < 9.99).all():
            return np.array([6.0]), f"{here} your two numbers would do as values of φ*, but not as initializations."
    if not inside:
        return np.array([7.0]), f"{here} the φ* of an initialization of yours does not lie between −10 and 10."
    h1 = _derivative(loss, phi)[1]
    h2 = (_derivative(loss, phi + 1e-3) - _derivative(loss, phi - 1e-3))[1] / 2e-3
    h3 = np.diff(loss(phi[1] + 0.01 * np.array([-1.5, -0.5, 0.5, 1.5])), 3)[0] / 0.01**3
    negative = h1 * h3 > h2 * (proximal_strength + h2)
    kind = 8.0 if abs(h3) < 1e-3 else 9.0 if h1 * h3 < 0 else 11.0 if negative else 10.0
    so = "So line 3 is negative there, but not all the way between them." if negative else "What does line 3 say?"
    return np.array([kind]), (
        f"{here} the value of $F_\\text{{prox}}$ half way between your initializations is not clearly above the mean "
        f"of its values at both. There $h' = {h1:.3g}$, $h'' = {h2:.3g}$ and $h''' = {h3:.3g}$. {so}"
    )


def _is_number(value):
    return np.size(value) == 1 and np.asarray(value).dtype.kind in "biuf"


def _example(line, curved=np.exp, derivative=np.exp, bend=lambda mu: mu / 2, places=(0.0, 1.0), side=1):
    """A loss made of something curved, a parabola and a line; and the initializations with these places of φ*.

    `side` is the sign of the gradient in θ = φ* + h' / λ; with 0 the places themselves are returned.
    """

    def counter_example(proximal_strength, smallest_curvature):
        slope, factor = line(proximal_strength, smallest_curvature), bend(smallest_curvature)

        def initialization(phi):
            return phi + side * (derivative(phi) + 2 * factor * phi + slope) / proximal_strength

        return (lambda phi: curved(phi) + factor * phi**2 + slope * phi), *map(initialization, places)

    return counter_example


def _steep(proximal_strength, smallest_curvature):
    """A slope that is more than enough."""
    return 4 * (1 + smallest_curvature) * (1 + smallest_curvature + proximal_strength)


def _downhill(proximal_strength, smallest_curvature):
    return -_steep(proximal_strength, smallest_curvature)


_NO_LINE = (
    "Your loss is curved enough, and $h'$ and $h'''$ have the same sign, but half way $F_\\text{prox}$ is not "
    "clearly above the mean of its values at both initializations. By line 3, $h' h'''$ has to exceed "
    "$h'' (\\lambda + h'')$. Which term can you add to a loss that changes $h'$, but neither $h''$ nor $h'''$?"
)
COUNTER_EXAMPLE = Exercise(
    id="09.counter_example",
    title="A counter-example of your own",
    difficulty=3,
    minutes=15,
    reference=_example(_steep),
    judge=judge_counter_example,
    instances=lambda rng: [
        (scale * proximal_strength, smallest_curvature / scale)
        for scale, (proximal_strength, smallest_curvature) in zip(
            rng.uniform(0.95, 1.05, 4), ((0.5, 0.3), (12.0, 0.2), (0.4, 3.0), (3.0, 1.5)), strict=True
        )
    ],
    misconceptions=(
        Misconception("no line", _example(lambda lam, mu: 0.0), _NO_LINE),
        Misconception("no line, farther up", _example(lambda lam, mu: 0.0, places=(1.0, 1.5)), _NO_LINE),
        Misconception(
            "opposite signs",
            _example(_downhill),
            "Half way between your initializations $h'$ and $h'''$ have opposite signs. Then the second term of line 3 "
            "adds to the curvature of $F_\\text{prox}$. Perhaps your loss falls where it should rise.",
        ),
        Misconception(
            "a parabola",
            _example(_steep, lambda phi: 0 * phi, lambda phi: 0 * phi, lambda mu: mu),
            "Half way between your initializations $h'''$ is zero, or nearly so. Then line 3 leaves little but "
            "$J^2 h''$, which is not negative for any convex loss. The curvature of the loss has to change there.",
        ),
        Misconception(
            "smallest curvature missing",
            _example(_steep, bend=lambda mu: 0.0),
            "Your loss is convex, but somewhere between $-10$ and $10$ its curvature is below `smallest_curvature`. "
            "Which term of a loss has the same curvature everywhere?",
        ),
        Misconception(
            "loss not convex",
            _example(_steep, lambda phi: phi**3, lambda phi: 3 * phi**2),
            "Somewhere between $-10$ and $10$ the curvature of your loss is negative. The question is what happens to "
            "losses that *are* convex.",
        ),
        Misconception(
            "adapted parameters returned",
            _example(_steep, side=0),
            "Your loss is right. As values of $\\varphi^*$ your two numbers would do, but as initializations they do "
            "not. Which $\\theta$ has its minimum at a given $\\varphi^*$? Stationarity, $\\lambda\\, (\\theta - "
            "\\varphi^*) = h'(\\varphi^*)$, says it without a search.",
        ),
        Misconception(
            "initialization on the other side",
            _example(_steep, side=-1),
            "The $\\varphi^*$ of at least one of your initializations does not lie between $-10$ and $10$. If you "
            "found them from places of $\\varphi^*$, look at the sign: $\\lambda\\, (\\theta - \\varphi^*) = "
            "h'(\\varphi^*)$.",
        ),
        Misconception(
            "for one proximal strength",
            _example(lambda lam, mu: _steep(1.0, mu)),
            "Your example works except for the strongest proximal term. Line 3 contains $\\lambda$: how must your loss "
            "depend on it?",
        ),
        Misconception(
            "for one smallest curvature",
            _example(lambda lam, mu: 4 * (1 + lam)),
            "Your example works except for the largest `smallest_curvature`. By line 3, the more the loss is "
            "curved, the larger $h'$ must be.",
        ),
    ),
    alternatives=(
        _example(
            _steep, lambda phi: np.maximum(phi, 0) ** 3 / 6, lambda phi: np.maximum(phi, 0) ** 2 / 2, places=(0.1, 0.9)
        ),
        _example(_downhill, lambda phi: np.exp(-phi), lambda phi: -np.exp(-phi), places=(-1.0, 0.0)),
        _example(
            lambda lam, mu: 10 * (2 + mu) * (2 + mu + lam),
            lambda phi: phi**4 / 12,
            lambda phi: phi**3 / 3,
            places=(0.5, 1.5),
        ),
    ),
    hints=(
        "Look for a place $\\varphi^*$ at which line 3 is negative, so that $h' h''' > h'' (\\lambda + h'')$. You "
        "need a loss whose third derivative is not zero there, such as an exponential, or a fourth power.",
        "Adding $b \\varphi$ to a loss makes $h'$ larger by $b$, and leaves $h''$ and $h'''$ as they are. Adding a "
        "parabola makes $h''$ larger by a constant. Choose the parabola first, and then $b$.",
        "Do not search for the initializations. Choose two places $\\varphi^*$ between which line 3 is negative. By "
        "stationarity, the initialization whose minimum is at $\\varphi^*$ is $\\varphi^* + h'(\\varphi^*) / "
        "\\lambda$.",
    ),
    expected="A loss and two numbers. The check says how far $F_\\text{prox}$ half way exceeds the mean of both ends.",
)

EXERCISES = (MOREAU_GRADIENT, MOREAU_POINT, ANCHORED, CONTROL, COUNTER_EXAMPLE)

PREDICTIONS = (
    Guess(
        "09.through",
        "Move the initialization a little. What share of the change of F is due to the movement of φ*, to first order?",
        ("all of it", "about one half", "none of it", "it depends on the curvature"),
        why="φ* is a minimum. Near a minimum a small movement changes the value only to second order, so what the loss "
        "gains, the proximal term loses.",
        read="The derivation, line by line",
    ),
    Guess(
        "09.curvature",
        "A quadratic support loss has the curvature a = 100, and the proximal strength is λ = 1. What is the curvature "
        "of its envelope?",
        why="The curvature is λa/(λ + a). It is below λ, however steep the loss is.",
        read="A smooth objective under a wiggly loss",
    ),
    Guess(
        "09.unstable",
        "Now let αL = 1.2, on a parabola. What do the points z₁, z₂, ... of the anchored iteration do?",
        (
            "they converge to the fixed point, more slowly",
            "they move away from the fixed point, always on the same side",
            "they move away from the fixed point, from one side to the other",
        ),
        why="On a parabola of curvature L each step multiplies z − φ* by −αL, which is −1.2 here.",
        read="The anchored iteration",
    ),
    Guess(
        "09.one_more",
        "Line 4 is only an upper bound, and here αL is one half. By about which factor does each inner step after the "
        "first one multiply the measured distance from the optimum at which training ends?",
        ("by 0.5", "by 0.9", "by 1: it stays", "it depends on the number of outer steps"),
        why="The bounds of line 2 and of line 4 contain $(\\alpha L)^{K+1}$, and the measured distances nearly follow.",
        read="How close does training get?",
    ),
    Guess(
        "09.noise",
        "With a single random task for each outer step and η = 0.1, what do four inner steps in place of one do to the "
        "mean squared distance at the end?",
        ("they reduce it at least tenfold", "they halve it", "they change it by less than a third"),
        why="The noise of the single tasks hides the bias. This noise depends much less on the inner steps than the "
        "bias does.",
        read="Bias and noise",
    ),
    Guess(
        "09.smooth",
        "h has curvatures between 0.1 and 1.9, and λ = 2. How large does the absolute value of the curvature of "
        "iMAML's objective become between θ = −1000 and θ = 1000?",
        ("below 1", "between 1 and 10", "above 10"),
        why="The curvature of iMAML's objective contains the third derivative of h times a gradient, and the gradient "
        "grows with the distance from the minimum.",
        read="Where iMAML's objective is neither smooth nor convex",
    ),
)

QUIZ = (
    Question(
        "Why does the gradient of the Moreau envelope need no linear solve?",
        (
            "Because the inner loop is short",
            "Because φ* minimizes the very sum that is differentiated",
            "Because the Hessian is left out, as in FO-MAML",
            "Because support and query set are different",
        ),
        1,
        (
            "The formula holds at the minimum, however long it takes to get there.",
            "Yes: the two contributions of φ* cancel, and only the direct dependence on θ is left.",
            "FO-MAML leaves out a factor of its objective's gradient. Here nothing is left out: the gradient is exact.",
            "It is the other way round: with another query loss the two contributions of φ* do not cancel.",
        ),
    ),
    Question(
        "On a parabola with αL < 1 you take five anchored steps instead of three. Compared with z₃, z₅ is",
        (
            "closer to the minimum of the loss",
            "closer to the minimum of the proximal objective",
            "further away from θ",
            "the result of a weaker proximal term",
        ),
        1,
        (
            "That is what ordinary gradient steps would do. Here every step begins at θ.",
            "Yes: more anchored steps find φ* more precisely, and do not go further.",
            "Steps with odd numbers end beyond φ*, and each time less far beyond. So z₅ is a little closer to θ.",
            "The proximal strength is λ = 1/α, and α was not changed.",
        ),
    ),
    Question(
        "Training with FO-MuML, one random task for each outer step, ends in a noisy plateau. One inner step more "
        "changes nothing. What helps?",
        (
            "Ten inner steps more",
            "More outer steps with the same learning rate",
            "A smaller outer learning rate, or more tasks in a batch",
            "A linear solve in each outer step",
        ),
        2,
        (
            "The bias was below the noise already with the steps before.",
            "A plateau is where more of the same steps have no effect.",
            "Yes: both reduce the noise, which is what limits this run.",
            "The envelope's gradient needs none, and the noise comes from the tasks.",
        ),
    ),
)


# Figures ------------------------------------------------------------------------------------------------------------

_GRID = np.linspace(-7, 7, 2_801)
_THETA = np.linspace(-3.6, 3.6, 361)
LOSSES: dict[str, Callable[[Any], Any]] = {
    "wiggly": lambda z: 0.15 * z**2 + 0.2 * (1 - np.cos(6 * z)),
    "parabola": lambda z: 0.3 * z**2,
    "absolute value": np.abs,
}


def disagreeing_tasks() -> Task:
    """Twenty quadratic tasks in five dimensions; the steep ones have their minima elsewhere than the flat ones."""
    rng = np.random.default_rng(0)
    steepness = np.linspace(0.1, 1.0, 20)
    axes = np.linalg.qr(rng.normal(size=(20, 5, 5)))[0]
    spectra = steepness[:, None] * np.concatenate([np.ones((20, 1)), rng.uniform(0.5, 1, (20, 4))], axis=1)
    hessians = np.einsum("tij,tj,tkj->tik", axes, spectra, axes)
    minima = 0.3 * rng.normal(size=(20, 5)) + 4 * (steepness - steepness.mean())[:, None]
    batch = QuadraticBatch(hessians, minima)
    return Task(batch, batch)


def envelope(loss: Any, proximal_strength: float, theta: Any) -> tuple[_Array, _Array]:
    """The Moreau envelope and the proximal points of a function of one number, by search on a grid."""
    values = loss(_GRID) + proximal_strength / 2 * (_GRID - np.asarray(theta)[..., None]) ** 2
    return values.min(-1), _GRID[values.argmin(-1)]


SEEN = (
    "Left: a loss, and the proximal objective of one initialization, with its minimum φ*. Right: the loss, its Moreau "
    "envelope, and the envelope's tangent at the initialization. The tangent's slope is λ (θ − φ*). "
    "For the wiggly loss a small proximal strength smooths the wiggles out, and a large one brings them back."
)


def explored(loss: str, proximal_strength: float, theta: float) -> Figure:
    """The proximal objective at θ, and its minimum for every θ with the tangent at this one."""
    h = LOSSES[loss]
    figure, (left, right) = plots.subplots(2, height=3.7)
    value, adapted = (float(each) for each in envelope(h, proximal_strength, theta))
    gradient = proximal_strength * (theta - adapted)
    plots.lines(
        _THETA,
        {"h": h(_THETA), "proximal": h(_THETA) + proximal_strength / 2 * (_THETA - theta) ** 2},
        "φ",
        "",
        points={"φ*": (adapted, value), "θ": (theta, float(h(theta)))},
        title=f"λ (θ − φ*) = {plots.number(gradient, 2)}",
        ylim=(-0.2, 3.2),
        axes=left,
    )
    near = _THETA[np.abs(_THETA - theta) < 1.0]
    right.plot(near, value + gradient * (near - theta), color=plots.PALETTE["text"], linestyle=":", linewidth=1.6)
    plots.lines(
        _THETA,
        {"h": h(_THETA), "F": envelope(h, proximal_strength, _THETA)[0]},
        "θ",
        "",
        points={"": (theta, value)},
        title="F, and a tangent with this slope",
        ylim=(-0.2, 3.2),
        axes=right,
    )
    return figure


def two_ways() -> None:
    """Shows how F depends on θ: twice through φ*, and once directly."""
    d = diagrams.Drawing(620, 215)
    d.node(34, 105, "θ", filled=True)
    d.node(190, 105, "φ*")
    d.arrow((57, 105), (166, 105))
    d.text(112, 95, "J", diagrams.BLUE)
    d.box(420, 30, 140, 40, diagrams.MUTED)
    d.text(490, 55, "h(φ*)")
    d.box(420, 140, 140, 40, diagrams.MUTED)
    d.text(490, 165, "λ/2 ‖φ* − θ‖²")
    d.arrow((212, 96), (416, 52), diagrams.MUTED)
    d.text(300, 60, "∇h(φ*)", diagrams.MUTED)
    d.arrow((212, 114), (416, 154), diagrams.MUTED)
    d.text(332, 120, "λ (φ* − θ)", diagrams.MUTED)
    d.arrow((44, 127), (416, 170), diagrams.ORANGE, bend=30)
    d.text(190, 206, "λ (θ − φ*): all that is left", diagrams.ORANGE, bold=True)
    d.path([(570, 50), (584, 50), (584, 160), (570, 160)], diagrams.TEXT)
    d.text(596, 110, "F", anchor="start", bold=True)
    d.text(300, 22, "through φ*: these two add to zero", diagrams.MUTED, bold=True)
    diagrams.show(
        d.svg(),
        "Three ways from theta to F. Two lead through phi star, one of them to the loss and one to the proximal term; "
        "their derivatives add to zero. The third leads from theta straight to the proximal term.",
        title="The two ways through φ* cancel, and the direct one is left",
        caption="How the Moreau envelope depends on the initialization, with the derivative along each arrow.",
    )


def weights(proximal_strength: float) -> None:
    """Shows the weight of a quadratic task against its curvature, for three objectives."""
    a = np.linspace(0, 8, 201)
    factor = proximal_strength / (proximal_strength + a)
    plots.show(
        plots.lines(
            a,
            {
                "joint: a": a,
                "Moreau: aJ": a * factor,
                "iMAML: aJ²": a * factor**2,
                "λ": np.full_like(a, proximal_strength),
            },
            "curvature a of the task",
            "curvature of the objective",
            ylim=(0, 2.4),
        ),
        "Curvature of three objectives against the curvature of the task. That of joint training is a straight line. "
        "That of the Moreau envelope rises and levels off below lambda. That of iMAML rises a little, and falls again.",
        title="No task counts for more than λ in the Moreau objective",
        caption=f"One quadratic task with equal support and query loss, λ = {proximal_strength:g}, J = λ/(λ + a).",
    )


def two_iterations() -> None:
    """Shows gradient descent, whose steps form a chain, and the anchored iteration, whose steps all begin at θ."""
    d = diagrams.Drawing(640, 330)
    d.text(20, 22, "gradient descent: each step begins where the last one ended", diagrams.MUTED, "start", bold=True)
    xs = (50, 330, 470, 540)  # a parabola with its minimum at 610, and half of the way in each step
    for k, x in enumerate(xs):
        if k:
            d.arrow((xs[k - 1] + 23, 68), (x - 24, 68), diagrams.MUTED)
        d.node(x, 68, ("θ", "φ₁", "φ₂", "φ₃")[k], diagrams.MUTED if k else diagrams.BLUE, filled=not k)
    d.path([(610, 36), (610, 100)], diagrams.MUTED, "3 4")
    d.text(640, 26, "minimum of h", diagrams.MUTED, "end", size=13)
    d.text(20, 130, "anchored iteration: every step begins at θ", diagrams.BLUE, "start", bold=True)
    d.path([(237, 146), (237, 306)], diagrams.ORANGE, "3 4")
    d.text(237, 324, "φ*", diagrams.ORANGE, bold=True)
    for k, x in enumerate((330, 190, 260)):
        y = 170 + 55 * k
        d.node(50, y, "θ", filled=True)
        d.arrow((73, y), (x - 24, y))
        d.node(x, y, ("z₁", "z₂", "z₃")[k])
        d.text(420, y + 5, ("θ − α∇h(θ)", "θ − α∇h(z₁)", "θ − α∇h(z₂)")[k], diagrams.MUTED, "start")
    diagrams.show(
        d.svg(),
        "Above, gradient descent: a chain of steps from theta to phi three, which goes on towards the minimum of the "
        "support loss. Below, the anchored iteration: three arrows, all from theta, to z one, z two and z three, which "
        "lie on both sides of phi star and come closer to it.",
        title="More gradient steps go further, more anchored steps aim better",
        caption="Both iterations use the same loss and the same α. The two agree in the first step.",
    )


def contraction(errors: dict[str, Any]) -> None:
    """Shows the distance from φ* against the steps of the anchored iteration."""
    steps = np.arange(len(next(iter(errors.values()))))
    plots.show(
        plots.lines(steps, errors, "anchored steps", "distance from φ*", log="y"),
        "Distance from phi star against the anchored steps, on a logarithmic axis. For alpha L of one half the line "
        "falls steeply, for 0.9 slowly, and for 1.2 it rises.",
        title="The anchored iteration converges if αL < 1, and not otherwise",
        caption="A parabola of curvature L. Each step multiplies the distance by αL.",
    )


def training(distances: dict[str, Any]) -> None:
    """Shows the distance from the optimum of the Moreau objective against the outer steps."""
    steps = np.arange(len(next(iter(distances.values()))))
    plots.show(
        plots.lines(steps, distances, "outer steps", "distance from the optimum", log="y"),
        "Distance from the optimum of the Moreau objective against the outer steps, on a logarithmic axis. All "
        "curves fall together at first, two of them dip, and then all become horizontal: without an inner step "
        "first and "
        "highest, a little lower with one inner step, and then with two, three and four at equal distances below each "
        "other.",
        title="Each further inner step brings the end of training closer to the optimum",
        caption="Twenty quadratic tasks in five dimensions, all of them in every outer step. K anchored inner steps.",
    )


def counter_examples(theta: Any, moreau: Any, prox: Any, theta_2: Any, moreau_2: Any, prox_2: Any) -> None:
    """Shows curvatures of both objectives for the wave, and gradients of both for the convex ramp."""
    figure, (left, right) = plots.subplots(2, height=3.6)
    plots.lines(
        theta, {"iMAML": prox, "Moreau": moreau}, "θ", "curvature of the objective", title="not smooth", axes=left
    )
    plots.lines(
        theta_2,
        {"iMAML": prox_2, "Moreau": moreau_2},
        "θ",
        "gradient of the objective",
        title="not convex",
        ylim=(0.6, 2.2),
        axes=right,
    )
    plots.show(
        figure,
        "Left: the curvature of iMAML's objective swings more and more widely with the distance from zero, that of the "
        "Moreau objective stays between zero and one. Right: the gradient of iMAML's objective is constant, falls, and "
        "then rises; that of the Moreau objective never falls.",
        title="The Moreau objective stays smooth and convex where iMAML's does not",
        caption="Left: the wave of lesson 06, λ = 2. Right: a convex loss whose curvature begins at φ = 1, λ = 1.",
    )


def practice(curves: dict[str, Any]) -> None:
    """Shows query losses against inner steps, [num_steps + 1, num_tasks] for each method."""
    plots.show(
        plots.adaptation(curves, "query loss (squared error)", log="y"),
        "Query loss against inner steps from two initializations, on a logarithmic axis. That of a random "
        "initialization hardly changes. That of the trained one begins lower, and falls with every step.",
        title="The gradient λ (θ − φ*) trains an initialization that adapts",
        caption="500 new sine curves, mean with its 95 % interval; ten support points, gradient steps with α = 0.01.",
    )


def _no_solve() -> str:
    """The gradient leads from θ to φ*, whatever found it."""
    d = diagrams.Drawing()
    start, end = (55, 84), (360, 84)
    d.band(0, 6, 470, 104)
    d.arrow((75, 72), (340, 72), diagrams.BLUE, -22, "6 4")
    d.text(207, 32, "any inner optimizer", diagrams.BLUE, size=13)
    d.text(207, 90, "minimum of h + λ/2 ‖φ − θ‖²", diagrams.MUTED, size=13)
    d.node(*start, "θ", filled=True)
    d.node(*end, "φ*")
    d.arrow((end[0], 108), (start[0], 110), diagrams.ORANGE, bend=-44)
    d.text(207, 186, "θ − φ*", diagrams.ORANGE, size=13)
    d.text(9, 228, "no solve: ∇F = λ (θ − φ*) = ∇h(φ*)", diagrams.ORANGE, "start", bold=True)
    return d.svg()


def opening() -> tuple[str, str]:
    """The picture of the claim: the envelope under a wiggly loss, and its gradient as the arrow from φ* to θ."""
    h, proximal_strength, theta = LOSSES["wiggly"], 0.6, 2.5
    value, adapted = (float(each) for each in envelope(h, proximal_strength, theta))
    left = diagrams.plot(
        _THETA,
        {"h": h(_THETA), "F": envelope(h, proximal_strength, _THETA)[0]},
        "initialization θ",
        "",
        points={"φ*": (adapted, float(h(adapted))), "F(θ)": (theta, value)},
        ylim=(-0.2, 2.4),
    )
    return diagrams.opening(
        left,
        _no_solve(),
        ("The Moreau envelope lies under the loss", "Its gradient is λ times the arrow from φ* to θ"),
        (
            f"A loss h, and its Moreau envelope F for λ = {proximal_strength:g}.",
            "Once φ* is known, nothing is left to solve.",
        ),
        "Left: a wiggly loss, and its Moreau envelope, which touches it from below and is much smoother. Marked are "
        "the envelope at an initialization and the minimum to which it adapts. Right: any inner optimizer leads from "
        "theta to phi star; the gradient is lambda times the arrow from phi star to theta.",
    )
