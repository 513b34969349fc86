"""Exercises, predictions, quiz and figures of lesson 11, function space.

`python -m metalearn.course.lessons.lesson_11` computes the curves of the opening picture anew and writes them down.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import unstack
from metalearn.course.process import bar, setup
from metalearn.course.widgets import diagrams

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

_Array = Float[np.ndarray, "..."]

# 11.push_through ----------------------------------------------------------------------------------------------------


def _ridge(change: Callable[[float, int], float], sign: float = 1.0) -> Callable[..., Any]:
    """Gᵀ (G Gᵀ + r I)⁻¹ residual, with a ridge r made from the strength and the number of examples."""

    def displacement(rows, residual, proximal_strength):
        matrix = rows @ rows.T + change(proximal_strength, len(rows)) * np.eye(len(rows))
        return sign * rows.T @ np.linalg.solve(matrix, residual)

    return displacement


_displacement = _ridge(lambda strength, n: strength)


def _least_squares(rows, residual, strength):
    """An alternative: one least-squares problem, with the proximal term as P further rows."""
    width = rows.shape[1]
    tall = np.concatenate([rows, np.sqrt(strength) * np.eye(width)])
    return np.linalg.lstsq(tall, np.concatenate([residual, np.zeros(width)]), rcond=1e-12)[0]


def _singular_values(rows, residual, strength):
    """An alternative: by the singular value decomposition of G."""
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    return right.T @ (values / (values**2 + strength) * (left.T @ residual))


def _coefficients(rows, residual, strength):
    return np.linalg.solve(rows @ rows.T + strength * np.eye(len(rows)), residual)


def _rows(rng, num_examples, num_params):
    """G, whose singular values are neither tiny nor alike."""
    left = np.linalg.qr(rng.normal(size=(num_examples, num_examples)))[0]
    right = np.linalg.qr(rng.normal(size=(num_params, num_examples)))[0]
    return (left * np.geomspace(0.6, 3.0, num_examples)) @ right.T


PUSH_THROUGH = Exercise(
    id="11.push_through",
    title="Your line of the derivation: solve for n numbers",
    difficulty=2,
    minutes=12,
    reference=_displacement,
    instances=lambda rng: [
        (_rows(rng, 3, 7), rng.normal(size=3), 0.7),
        (_rows(rng, 5, 12), rng.normal(size=5), 2.5),
        (_rows(rng, 2, 4), rng.normal(size=2), 0.0),
        (rng.normal(size=(1, 6)), rng.normal(size=1), 0.3),
    ],
    misconceptions=(
        Misconception(
            "coefficients",
            _coefficients,
            "Your result equals $c$, the $n$ numbers that are solved for. The exercise asks for $\\varphi^* - "
            "\\theta$, which has $P$ entries. What leads from the one to the other?",
        ),
        Misconception(
            "no solve",
            lambda rows, residual, strength: rows.T @ residual,
            "Your result equals $G^\\top (Y - u_\\theta(X))$, the negative gradient of the support loss at $\\theta$. "
            "In line 2 a matrix stands in front of $\\Delta$.",
        ),
        Misconception(
            "strength missing",
            _ridge(lambda strength, n: 0.0),
            "Your result is the one for $\\lambda = 0$: a model that fits the support set exactly, whatever the "
            "strength is.",
        ),
        Misconception(
            "n times the strength",
            _ridge(lambda strength, n: n * strength),
            "Your result is the one for $n \\lambda$. That belongs to a loss which is half of the *mean* of the "
            "squares; the loss here is half of their sum.",
        ),
        Misconception(
            "half the strength",
            _ridge(lambda strength, n: strength / 2),
            "Your result is the one for $\\lambda / 2$. That belongs to a loss without the factor $\\frac12$.",
        ),
        Misconception(
            "twice the strength",
            _ridge(lambda strength, n: 2 * strength),
            "Your result is the one for $2 \\lambda$. Differentiate $\\frac{\\lambda}{2} \\lVert \\Delta \\rVert^2$ "
            "once more.",
        ),
        Misconception(
            "wrong sign",
            _ridge(lambda strength, n: strength, -1.0),
            "Your result is the target with the opposite sign. The residual is $Y - u_\\theta(X)$: does a step with "
            "your sign bring the outputs closer to $Y$?",
        ),
        Misconception(
            "strength on every entry",
            lambda rows, residual, strength: (
                rows.T @ np.linalg.lstsq(rows @ rows.T + strength, residual, rcond=1e-12)[0]
            ),
            "The strength seems to be added to every entry of $G G^\\top$, and not to its diagonal alone.",
        ),
        Misconception(
            "strength outside of the inverse",
            lambda rows, residual, strength: rows.T @ (np.linalg.solve(rows @ rows.T, residual) + strength * residual),
            "Your result has $(G G^\\top)^{-1} + \\lambda I$ where the inverse of the sum should stand.",
        ),
    ),
    relatives=(
        (
            "what the diagonal of G Gᵀ gives, without the rest of the matrix",
            lambda rows, residual, strength: rows.T @ (residual / (np.square(rows).sum(axis=1) + strength)),
        ),
        ("what λ / n gives in place of λ", _ridge(lambda strength, n: strength / n)),
        ("what the root of λ gives in place of λ", _ridge(lambda strength, n: np.sqrt(strength))),
    ),
    alternatives=(_least_squares, _singular_values),
    hints=(
        "Begin with $G^\\top (G G^\\top + \\lambda I) = (G^\\top G + \\lambda I)\\, G^\\top$, which you can check by "
        "multiplying out. Multiply by one inverse from the left and by the other one from the right.",
        "The matrix to solve with is `rows @ rows.T`, with the strength added to its diagonal: `np.eye(len(rows))`. "
        "`np.linalg.solve` gives the $n$ coefficients; the transposed rows turn them into a displacement.",
    ),
    expected="An array of shape [P]. With $\\lambda = 0$ it changes the outputs at $X$ by exactly the residual.",
)

# 11.closed_form -----------------------------------------------------------------------------------------------------


@jax.jit
def _linear(params, x):
    """A model that is linear in its parameters: a line and three waves; [n] -> [n]."""
    waves = jnp.sin(jnp.outer(x, jnp.array([1.0, 1.7, 2.3])) + jnp.array([0.3, 1.1, 2.0]))
    return params["slope"] * x + params["offset"] + waves @ params["waves"]


@jax.jit
def _network(params, x):
    """One hidden layer; params is (hidden, readout), and hidden a dict; [n] -> [n]."""
    hidden, readout = params
    return jnp.tanh(jnp.outer(x, hidden["weight"]) + hidden["bias"]) @ readout


def _linear_params(rng):
    return {"slope": rng.normal(), "offset": rng.normal(), "waves": rng.normal(size=3)}


def _network_params(rng, width):
    return {"weight": rng.normal(size=width), "bias": rng.normal(size=width)}, rng.normal(size=width)


# The same two models and kernels by hand, in NumPy: a check then compiles nothing.


def _features(x):
    waves = np.sin(np.outer(x, [1.0, 1.7, 2.3]) + np.array([0.3, 1.1, 2.0]))
    return np.column_stack([x, np.ones(len(x)), waves])


def _plain_linear(params, x):
    return _features(x) @ np.array([params["slope"], params["offset"], *params["waves"]])


def _of_linear(params, a, b):
    return _features(a) @ _features(b).T


def _plain_network(params, x):
    hidden, readout = params
    return np.tanh(np.outer(x, hidden["weight"]) + hidden["bias"]) @ readout


def _of_network(params, a, b):
    hidden, readout = params

    def rows(x):
        units = np.tanh(np.outer(x, hidden["weight"]) + hidden["bias"])
        inner = readout * (1 - units**2)
        return np.concatenate([inner * np.asarray(x)[:, None], inner, units], axis=1)

    return rows(a) @ rows(b).T


def _gaussian(params, a, b):
    return np.exp(-((np.asarray(a)[:, None] - np.asarray(b)) ** 2) / (2 * 0.8**2))


def _solved(ridge, residual_of=lambda y, outputs: y - outputs, base=lambda outputs: outputs):
    """Kernel regression with some ridge, (strength, n) -> number, some residual, and something to start from."""

    def closed_form(kernel, apply, params, support, inputs, proximal_strength):
        x, y = support
        gram = np.asarray(kernel(params, x, x)) + ridge(proximal_strength, len(x)) * np.eye(len(x))
        coefficients = np.linalg.solve(gram, residual_of(y, np.asarray(apply(params, x))))
        return base(np.asarray(apply(params, inputs))) + np.asarray(kernel(params, inputs, x)) @ coefficients

    return closed_form


def _mean_ridge(strength, n):
    return n * strength / 2


def _by_the_library(kernel, apply, params, support, inputs, strength):
    ridge = len(support[0]) * strength / 2
    return ml.kernel.regression(apply, kernel, ridge)(params, support, inputs)


def _one_step(kernel, apply, params, support, inputs, strength):
    x, y = support
    step = 2 / (len(x) * strength) * (y - np.asarray(apply(params, x)))
    return np.asarray(apply(params, inputs)) + np.asarray(kernel(params, inputs, x)) @ step


def _by_eigenvectors(kernel, apply, params, support, inputs, strength):
    """An alternative: the mean square scaled instead of the strength, and the kernel diagonalized."""
    x, y = support
    values, vectors = np.linalg.eigh(np.asarray(kernel(params, x, x)) * 2 / len(x))
    weights = vectors @ ((vectors.T @ (y - np.asarray(apply(params, x)))) / (values + strength))
    return np.asarray(apply(params, inputs)) + np.asarray(kernel(params, inputs, x)) @ weights * 2 / len(x)


def _points(rng, num_examples, mean=3):
    x = np.linspace(-3, 3, num_examples) + rng.uniform(-0.3, 0.3, num_examples)
    return x, mean + 2 * np.sin(x - rng.uniform(0, 3)) + rng.normal(size=num_examples) / 5


def _new_inputs(rng, number):
    return rng.uniform(-3, 3, number)


def _with_a_point_twice(rng):
    x, y = _points(rng, 4)
    return np.append(x, x[1]), np.append(y, y[1] + 1)


CLOSED_FORM = Exercise(
    id="11.closed_form",
    title="Adapt in closed form",
    difficulty=3,
    minutes=15,
    reference=_solved(_mean_ridge),
    instances=lambda rng: [
        (_of_linear, _plain_linear, _linear_params(rng), _points(rng, 3), _new_inputs(rng, 5), 0.6),
        (_of_network, _plain_network, _network_params(rng, 6), _points(rng, 5, -5), _new_inputs(rng, 3), 0.9),
        (_gaussian, _plain_linear, _linear_params(rng), _points(rng, 4), _new_inputs(rng, 6), 0.4),
        (_of_network, _plain_network, _network_params(rng, 4), _with_a_point_twice(rng), _new_inputs(rng, 1), 0.8),
        (_of_linear, _plain_linear, _linear_params(rng), _points(rng, 1), _new_inputs(rng, 4), 1.5),
    ],
    misconceptions=(
        Misconception(
            "residual without the model",
            _solved(_mean_ridge, residual_of=lambda y, outputs: y),
            "Your result equals a regression on $Y$ itself, added to $u_\\theta$. What is left for the change of the "
            "curve to explain, once $u_\\theta(X)$ is there?",
        ),
        Misconception(
            "model missing",
            _solved(_mean_ridge, base=lambda outputs: 0.0),
            "Your result is the *change* of the curve. Where does the curve begin?",
        ),
        Misconception(
            "plain kernel regression",
            _solved(_mean_ridge, residual_of=lambda y, outputs: y, base=lambda outputs: 0.0),
            "Your result is kernel regression on $Y$, with zero in the place of $u_\\theta$. It does not know the "
            "outputs of the model at all.",
        ),
        Misconception(
            "ridge of the sum",
            _solved(lambda strength, n: strength),
            "Your ridge equals $\\lambda$, which belongs to half of the *sum* of the squares. The loss here is their "
            "mean. Write down its gradient.",
        ),
        Misconception(
            "n times the strength",
            _solved(lambda strength, n: n * strength),
            "Your ridge equals $n \\lambda$. The mean of the squares has no factor $\\frac12$, so its gradient has a "
            "2.",
        ),
        Misconception(
            "half the strength",
            _solved(lambda strength, n: strength / 2),
            "Your ridge equals $\\lambda / 2$, which belongs to the sum of the squares. The loss here is their mean.",
        ),
        Misconception(
            "divided by n",
            _solved(lambda strength, n: strength / n),
            "Your ridge equals $\\lambda / n$. Dividing the sum of the squares by $n$ makes the loss smaller. Does the "
            "proximal term then weigh more beside it, or less?",
        ),
        Misconception(
            "twice n times the strength",
            _solved(lambda strength, n: 2 * n * strength),
            "Your ridge equals $2 n \\lambda$. The factor 2 belongs to the gradient of the loss. Bring it to the other "
            "side by a division.",
        ),
        Misconception(
            "wrong sign",
            _solved(_mean_ridge, residual_of=lambda y, outputs: outputs - y),
            "Your change of the curve has the opposite sign: it leads away from $Y$.",
        ),
        Misconception(
            "one gradient step",
            _one_step,
            "Your result equals that of one gradient step with the learning rate $1/\\lambda$. Nothing is solved, and "
            "so the change of one output ignores what the other examples change there.",
        ),
    ),
    relatives=(
        (
            "what the number of `inputs` gives in place of that of the support points",
            lambda *given: _solved(lambda strength, n: len(given[4]) * strength / 2)(*given),
        ),
        ("what a ridge of 2λ / n gives", _solved(lambda strength, n: 2 * strength / n)),
        ("what a ridge of λ / (2n) gives", _solved(lambda strength, n: strength / (2 * n))),
        ("what a ridge of 2λ gives", _solved(lambda strength, n: 2 * strength)),
        ("what a ridge of (n - 1) λ / 2 gives", _solved(lambda strength, n: (n - 1) * strength / 2)),
        (
            "the outputs at the initialization, where nothing was adapted",
            lambda kernel, apply, params, support, inputs, strength: np.asarray(apply(params, inputs)),
        ),
    ),
    alternatives=(_by_the_library, _by_eigenvectors),
    hints=(
        "For a model that is linear in its parameters, the gradient of the mean of the squares is "
        "$-\\frac2n G^\\top (Y - u_\\varphi(X))$. Set this plus $\\lambda (\\varphi - \\theta)$ to zero, multiply by "
        "$\\frac n2$, and compare with line 2: which number stands in the place of $\\lambda$?",
        "Three pieces: the residual at the support inputs, the coefficients that solve with "
        "`kernel(params, x, x)` plus a multiple of the identity, and `kernel(params, inputs, x)` times the "
        "coefficients. The curve begins at `apply(params, inputs)`.",
    ),
    expected="An array with one number for each of `inputs`.",
)

# 11.drift -----------------------------------------------------------------------------------------------------------


def _compared(measure):
    """Some comparison of the kernels before and after: two matrices -> number."""

    def drift(apply, before, after, inputs):
        kernel = ml.kernel.tangent(apply)
        return measure(*(np.asarray(kernel(params, inputs, inputs)) for params in (before, after)))

    return drift


def _relative(a, b):
    return np.linalg.norm(b - a) / np.linalg.norm(a)


def _of_parameters(apply, before, after, inputs):
    return _relative(ravel_pytree(before)[0], ravel_pytree(after)[0])


def _of_outputs(apply, before, after, inputs):
    return _relative(np.asarray(apply(before, inputs)), np.asarray(apply(after, inputs)))


def _gradients(apply, params, inputs):
    """G, one row for each of the inputs."""
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.jacobian(lambda vector: apply(unravel(vector), inputs))(flat))


def _of_gradients(apply, before, after, inputs):
    return _relative(*(_gradients(apply, params, inputs) for params in (before, after)))


def _of_mixed_kernel(apply, before, after, inputs):
    rows, moved = (_gradients(apply, params, inputs) for params in (before, after))
    return _relative(rows @ rows.T, rows @ moved.T)


def _by_hand(apply, before, after, inputs):
    """An alternative: the kernel as a product of Jacobians."""

    def gram(params):
        flat, unravel = ravel_pytree(params)
        rows = jax.jacobian(lambda vector: apply(unravel(vector), inputs))(flat)
        return rows @ rows.T

    start = gram(before)
    return jnp.sqrt(jnp.sum((gram(after) - start) ** 2) / jnp.sum(start**2))


def _example_by_example(apply, before, after, inputs):
    """An alternative: the kernel entry by entry."""

    def gradients(params):
        return [ravel_pytree(jax.grad(lambda p, x=x: apply(p, x)[0])(params))[0] for x in np.asarray(inputs)[:, None]]

    def entries(params):
        rows = gradients(params)
        return np.array([float(a @ b) for a in rows for b in rows])

    return _relative(entries(before), entries(after))


def _drift_instance(rng, apply, params, distance):
    moved = jax.tree.map(lambda leaf: leaf + distance * rng.normal(size=np.shape(leaf)), params)
    return apply, params, moved, np.sort(rng.uniform(-3, 3, 4))


DRIFT = Exercise(
    id="11.drift",
    title="Does the kernel stand still?",
    difficulty=1,
    minutes=8,
    reference=_compared(_relative),
    instances=lambda rng: [
        _drift_instance(rng, _network, _network_params(rng, 5), 0.4),
        _drift_instance(rng, _network, _network_params(rng, 5), 1.0),
        _drift_instance(rng, _linear, _linear_params(rng), 0.5),
    ],
    misconceptions=(
        Misconception(
            "of the parameters",
            _of_parameters,
            "Your result is the relative change of the *parameters*. In a wide network they may hardly move, and the "
            "kernel with them; but the kernel is what the formula uses.",
        ),
        Misconception(
            "of the outputs",
            _of_outputs,
            "Your result is the relative change of the *outputs*. They should change, for that is adaptation. The "
            "question is whether the kernel does.",
        ),
        Misconception(
            "not relative",
            _compared(lambda a, b: np.linalg.norm(b - a)),
            "Your result is the norm of the change itself. Divide it by something, so that networks with large and "
            "with small kernels can be compared.",
        ),
        Misconception(
            "relative to the kernel after",
            _compared(lambda a, b: np.linalg.norm(b - a) / np.linalg.norm(b)),
            "Your result is relative to the kernel *after* adaptation. The docstring asks for the one before.",
        ),
        Misconception(
            "difference of the norms",
            _compared(lambda a, b: abs(np.linalg.norm(b) - np.linalg.norm(a)) / np.linalg.norm(a)),
            "Your result compares the two norms. Two kernels can have the same norm and be quite different.",
        ),
        Misconception(
            "squared",
            _compared(lambda a, b: _relative(a, b) ** 2),
            "Your result is the square of the target.",
        ),
        Misconception(
            "spectral norm",
            _compared(lambda a, b: np.linalg.norm(b - a, 2) / np.linalg.norm(a, 2)),
            "Your result uses the spectral norm, the largest singular value. The docstring asks for the Frobenius "
            "norm, which `np.linalg.norm` gives without a second argument.",
        ),
        Misconception(
            "diagonal only",
            _compared(lambda a, b: _relative(np.diag(a), np.diag(b))),
            "Your result compares the diagonals $k(x, x)$ alone. How one point acts on the others stands off the "
            "diagonal.",
        ),
        Misconception(
            "entry by entry",
            _compared(lambda a, b: np.mean(np.abs((b - a) / a))),
            "Your result is the mean of the relative changes of the entries. Entries near zero spoil it.",
        ),
        Misconception(
            "ratio of the norms",
            _compared(lambda a, b: np.linalg.norm(b) / np.linalg.norm(a)),
            "Your result is the norm after adaptation, divided by the one before. It would be 1 and not 0 for a kernel "
            "that stands still.",
        ),
    ),
    relatives=(
        ("the relative change of the gradients G, whose products are the kernel", _of_gradients),
        ("what a kernel gives whose one gradient is from before and the other one from after", _of_mixed_kernel),
        (
            "what products of the outputs give in place of those of the gradients",
            lambda apply, before, after, inputs: _relative(
                *(np.outer(u, u) for u in (np.asarray(apply(params, inputs)) for params in (before, after)))
            ),
        ),
        (
            "1 minus the cosine of the angle between the two kernels",
            _compared(lambda a, b: 1 - np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))),
        ),
        (
            "what sums of absolute values give in place of the norms",
            _compared(lambda a, b: abs(b - a).sum() / abs(a).sum()),
        ),
        (
            "what the largest entries give in place of the norms",
            _compared(lambda a, b: abs(b - a).max() / abs(a).max()),
        ),
    ),
    alternatives=(_by_hand, _example_by_example),
    hints=(
        "`ml.kernel.tangent(apply)` is a function of (params, inputs, inputs). You need its matrix twice.",
        "`jnp.linalg.norm` of a matrix is the Frobenius norm.",
    ),
    expected="A number, 0 for a model that is linear in its parameters.",
)

# 11.task_weights ----------------------------------------------------------------------------------------------------


def _weighed(weights, total=np.sum):
    """Σ w g / total(w), with weights made from (losses, gradients, offset)."""

    def outer_gradient(losses, gradients, offset):
        losses = np.asarray(losses)
        w = np.asarray(weights(losses, gradients, offset))
        return jax.tree.map(lambda leaf: np.tensordot(w, leaf, 1) / total(w), gradients)

    return outer_gradient


def _inverse(losses, gradients, offset):
    return 1 / (offset + losses)


def _norms(gradients):
    return np.sqrt(sum(np.sum(np.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(gradients)))


def _task_by_task(losses, gradients, offset):
    """An alternative: a loop, with running sums."""
    total, mean = 0.0, jax.tree.map(lambda leaf: 0.0 * leaf[0], gradients)
    for i, loss in enumerate(losses):
        weight = 1 / (offset + loss)
        total = total + weight
        mean = jax.tree.map(lambda m, g, w=weight, i=i: m + w * g[i], mean, gradients)
    return jax.tree.map(lambda m: m / total, mean)


def _by_shares(losses, gradients, offset):
    """An alternative: the weights normalized first."""
    shares = jax.nn.softmax(-jnp.log(offset + jnp.asarray(losses)))
    return jax.tree.map(lambda leaf: jnp.einsum("t,t...->...", shares, leaf), gradients)


def _batch(rng, num_tasks, like):
    """Losses of which some are far larger, and gradients with a leading task axis."""
    losses = rng.uniform(0.1, 1.0, num_tasks)
    losses[rng.integers(num_tasks)] *= 20
    scale = 1 + losses
    return losses, jax.tree.map(
        lambda shape: scale.reshape(-1, *[1] * len(shape)) * rng.normal(0.5, 1, (num_tasks, *shape)),
        like,
        is_leaf=lambda leaf: isinstance(leaf, tuple) and all(isinstance(n, int) for n in leaf),
    )


TASK_WEIGHTS = Exercise(
    id="11.task_weights",
    title="Weigh the tasks",
    difficulty=2,
    minutes=10,
    reference=_weighed(_inverse),
    instances=lambda rng: [
        (*_batch(rng, 4, (3,)), 0.1),
        (*_batch(rng, 5, {"weight": (2, 3), "bias": (2,)}), 0.5),
        (*_batch(rng, 3, [(), {"inner": (4,)}]), 2.0),
        (*_batch(rng, 1, (2,)), 0.3),
    ],
    misconceptions=(
        Misconception(
            "hard tasks count more",
            _weighed(lambda losses, gradients, offset: offset + losses),
            "Your weights grow with the loss. That is good if hard tasks are the ones to learn from, and bad if they "
            "are outliers. Which of the two is asked for?",
        ),
        Misconception(
            "softmax of the losses",
            _weighed(lambda losses, gradients, offset: np.exp(losses - losses.max())),
            "Your weights are the softmax of the losses: the hardest task counts most, and nearly alone.",
        ),
        Misconception(
            "sum",
            _weighed(_inverse, total=lambda w: 1.0),
            "Your result is the weighted *sum*. Divide it by something, or the length of an outer step depends on how "
            "large the losses happen to be.",
        ),
        Misconception(
            "divided by the number of tasks",
            _weighed(_inverse, total=len),
            "Your result is the weighted sum, divided by the number of tasks. It is a mean only if the weights sum to "
            "that number.",
        ),
        Misconception(
            "plain mean",
            _weighed(lambda losses, gradients, offset: np.ones(len(losses))),
            "Your result is the plain mean of the gradients: all tasks count alike.",
        ),
        Misconception(
            "offset missing",
            _weighed(lambda losses, gradients, offset: 1 / losses),
            "Your weights equal $1 / \\ell_i$. What happens to them when one task is fitted perfectly?",
        ),
        Misconception(
            "offset outside",
            _weighed(lambda losses, gradients, offset: offset + 1 / losses),
            "Your weights equal $1 / \\ell_i + e$, which grows without bound as the loss goes to zero. The offset "
            "belongs below the fraction bar.",
        ),
        Misconception(
            "squared",
            _weighed(lambda losses, gradients, offset: 1 / (offset + losses) ** 2),
            "Your weights are the squares of those asked for. Perhaps the weight was applied twice.",
        ),
        Misconception(
            "negative exponential",
            _weighed(lambda losses, gradients, offset: np.exp(-losses)),
            "Your weights equal $\\exp(-\\ell_i)$. They favor easy tasks too, but they are not those of the docstring.",
        ),
        Misconception(
            "norms of the gradients",
            _weighed(lambda losses, gradients, offset: 1 / (offset + _norms(gradients))),
            "Your weights depend on the norms of the gradients, and not on the losses.",
        ),
        Misconception(
            "easiest task alone",
            _weighed(lambda losses, gradients, offset: 1.0 * (losses == losses.min())),
            "Your result is the gradient of the task with the lowest loss alone.",
        ),
    ),
    relatives=(
        (
            "what the weights give if they are divided by the root of the sum of their squares",
            _weighed(_inverse, total=np.linalg.norm),
        ),
        ("what the weights give if they are divided by the largest of them", _weighed(_inverse, total=np.max)),
        (
            "what Euler's number gives as the offset",
            _weighed(lambda losses, gradients, offset: 1 / (np.e + losses)),
        ),
        (
            "what a softmax of the losses divided by -e gives",
            _weighed(lambda losses, gradients, offset: np.exp((losses.min() - losses) / offset)),
        ),
        (
            "what the softmax of the weights gives",
            _weighed(lambda losses, gradients, offset: np.exp(1 / (offset + losses) - 1 / (offset + losses.min()))),
        ),
        ("what the roots of the weights give", _weighed(lambda *given: np.sqrt(_inverse(*given)))),
    ),
    alternatives=(_task_by_task, _by_shares),
    hints=(
        "First the weights, an array of shape [num_tasks]. Then the weighted mean of each leaf along its first axis.",
        "`jnp.tensordot(weights, leaf, 1)` is the sum of weight times entry over the first axis of a leaf of any "
        "shape. `jax.tree.map` does it for all leaves.",
    ),
    expected="A pytree like the gradients, without their first axis. With one task it is that task's gradient.",
)

EXERCISES = (PUSH_THROUGH, CLOSED_FORM, DRIFT, TASK_WEIGHTS)

PREDICTIONS = (
    Guess(
        "11.system",
        "Our network has 1,761 parameters, and a task has five support points. Suppose the network were linear in its "
        "parameters. How many unknowns must a linear system have, at least, whose solution gives the adapted curve "
        "everywhere?",
        unit="unknowns",
        why="The adapted curve is u_θ plus one multiple of k(x, x_i) for each support point. Only these multiples are "
        "unknown.",
        read="How many unknowns?",
    ),
    Guess(
        "11.width",
        "The kernel is taken at the random initialization and used for a network that really trains. By which factor "
        "does the relative error of the prediction become smaller from 32 hidden units to 512, for λ = 3?",
        ("by less than 2", "by about 3 to 12", "by more than 50"),
        why="Each unit has to move less if there are more of them. The change of the kernel, and with it the error, "
        "decreases like a power of the width; in this experiment the exponent is not far from one half.",
        read="When the kernel moves",
    ),
    Guess(
        "11.crossed",
        "The network that was trained for the closed form is adapted by five gradient steps instead. What is its "
        "error, compared with that of MAML's network after the same five steps?",
        ("more than 20 % smaller", "the same, within 20 %", "more than twice as large"),
        why="Its outer loop has only ever seen curves from the closed form. Nothing made it good after five steps.",
        read="Trained for the closed form, or for steps",
    ),
    Guess(
        "11.flipped",
        "Outer training minimizes Meta-RKHS I's objective of a parabola with curvature L = 1, with α = 0.6. Where does "
        "it take θ?",
        ("to the minimum of the parabola", "nowhere: the objective is constant", "away from the minimum, without end"),
        why="The squared gradient of a steep place is large, and it is subtracted. The objective is "
        "½ L (1 − 2αL) θ², which is a parabola upside down once 2αL exceeds 1.",
        read="Meta-RKHS I: one step, to first order",
    ),
    Guess(
        "11.outliers",
        "One task in five is an outlier, whose minimum lies about 17 away from the center of the others. At "
        "which distance from that center does training with equal weights end?",
        ("below 0.5", "about 3.5", "about 9", "about 17"),
        why="Equal weights give the mean of all minima, and a fifth of the way to the outliers is about 3.5.",
        read="A reconstruction: kernel adaptation and task weights",
    ),
)

QUIZ = (
    Question(
        "A model is linear in its parameters. Which of these gives another prediction than the others?",
        (
            "The minimum of the proximal objective, by any inner optimizer",
            "Kernel regression with the tangent kernel, ridge λ",
            "Kernel regression with the tangent kernel, ridge λ, on Y in place of Y − u_θ(X)",
            "A system with one equation for each parameter",
        ),
        2,
        (
            "This is the definition of proximal adaptation; line 4 is equal to it.",
            "This is line 4.",
            "Yes: it explains all of Y anew, and adds the result to the curve that is already there.",
            "This is line 2, from which line 4 follows by the push-through identity.",
        ),
    ),
    Question(
        "A network adapts, and its kernel at θ predicts the adapted curve badly. What makes the prediction better?",
        (
            "A wider network, or a stronger proximal term",
            "More digits in the linear solve",
            "A smaller inner learning rate, with more inner steps",
            "A narrower network, or a weaker proximal term",
        ),
        0,
        (
            "Yes: in both cases the parameters have to move less, and the kernel stays nearly the same.",
            "The solve is exact to rounding. It is the kernel that has changed meanwhile.",
            "This finds φ* more precisely, and φ* is not where the kernel of θ says.",
            "It is the other way round: then the parameters move further, and the kernel with them.",
        ),
    ),
    Question(
        "Why does the objective of Meta-RKHS I need a cap?",
        (
            "Because its gradient is biased",
            "Because a Taylor expansion of first order can fall without bound where the loss after a step cannot",
            "Because it needs second derivatives",
            "Because the kernel was singular",
        ),
        1,
        (
            "The gradient is exact for its objective; the trouble is with the objective.",
            "Yes: the loss after a real step is never negative, and its expansion can be.",
            "It needs Hessian-vector products, which are exact and harmless.",
            "Meta-RKHS I never forms a kernel. It uses the norm of the gradient.",
        ),
    ),
)


# What the lesson trains ---------------------------------------------------------------------------------------------

X = np.linspace(-5, 5, 81)


def networks(num_seeds: int = 3) -> tuple[Any, Callable[..., Any]]:
    """Random initializations of the lesson's network, stacked along a first axis, and the network as a function."""
    drawn = [
        ml.models.functional(ml.models.MLP((1, 40, 40, 1), activation=jnp.tanh, rngs=nnx.Rngs(seed)))
        for seed in range(num_seeds)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params for params, _ in drawn)), drawn[0][1]


def train(
    method: Any, inits: Any, distribution: Any, num_steps: int, what: str, seconds: float, values: Any = None
) -> Any:
    """Outer training from each of the initializations side by side, 8 tasks a step, clipped, with Adam.

    Args:
      method: a meta-gradient; or, with values, a function from one of them to a meta-gradient.
      inits: initializations, stacked.
      distribution: of the tasks.
      num_steps: outer steps.
      what: is said beside the bar.
      seconds: likewise.
      values: one number for each of the initializations.

    Returns:
      The trained parameters, stacked.
    """
    num_chunks, num_runs = 10, len(jax.tree.leaves(inits)[0])
    outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-3))

    @jax.jit
    def chunk(states, keys, values):
        def run(state, key, value):
            learner = ml.meta_learner(method if value is None else method(value), outer)
            keys = jax.random.split(key, num_steps // num_chunks)
            return jax.lax.scan(lambda state, key: (learner.step(state, distribution(key, 8))[0], None), state, keys)[0]

        return jax.vmap(run)(states, keys, values)

    values = None if values is None else np.asarray(values, np.float32)
    with jax.enable_x64(False):
        states = jax.vmap(ml.meta_learner(method, outer).init)(inits)
        for keys in bar(jax.random.split(jax.random.key(0), (num_chunks, num_runs)), what, seconds):
            states = jax.block_until_ready(chunk(states, keys, values))
    return states.params


def covariance(x: Any, distribution: Any) -> _Array:
    """Of the outputs of a random task at x and x', from the moments of its amplitude and phase."""
    (low, high), (left, right) = distribution.amplitude, distribution.phase
    phases = np.linspace(left, right, 2_001)
    mean, square = (low + high) / 2, (high**3 - low**3) / (3 * (high - low))
    waves = np.sin(np.asarray(x)[:, None] - (phases[1:] + phases[:-1]) / 2)
    return square * waves @ waves.T / 2_000 - mean**2 * np.outer(waves.mean(1), waves.mean(1))


def alignment(a: Any, b: Any) -> float:
    """The cosine of the angle between two kernel matrices."""
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


def over_widths(
    follow: Any, apply: Any, inputs: Any, widths: Any, strengths: Any
) -> tuple[dict[str, _Array], dict[str, _Array]]:
    """Medians over 20 random initializations of the prediction's error and of the kernel's drift, for each width."""

    def drawn(key, width):
        weight, bias, readout = jax.random.normal(key, (3, width))
        return {"weight": weight, "bias": bias, "readout": readout}

    def as_arrays(found):
        return {name: np.array(values) for name, values in found.items()}

    @jax.jit
    def moved(before, after):
        start, end = (ml.kernel.tangent(apply)(params, inputs, inputs) for params in (before, after))
        return jnp.linalg.norm(end - start) / jnp.linalg.norm(start)

    errors: dict[str, list[float]] = {f"λ = {strength:g}": [] for strength in strengths}
    drifts: dict[str, list[float]] = {name: [] for name in errors}
    for width, strength in bar([(w, s) for w in widths for s in strengths], "training", seconds=6):
        params = jax.vmap(functools.partial(drawn, width=width))(jax.random.split(jax.random.key(0), 20))
        adapted, error = jax.vmap(follow, (0, None))(params, strength)
        errors[f"λ = {strength:g}"].append(float(np.median(error)))
        drifts[f"λ = {strength:g}"].append(float(np.median(jax.vmap(moved)(params, adapted))))
    return as_arrays(errors), as_arrays(drifts)


def promised_gains(loss: Any, params: Any, tasks: Any, scales: Any, step_sizes: Any) -> dict[str, _Array]:
    """The mean of α ‖∇ℓ‖² over tasks, divided by that of ℓ, where the last layer is multiplied by a number."""

    @jax.jit
    def share(scale):
        def entry(path, leaf):
            return scale * leaf if any(getattr(part, "key", None) == 2 for part in path) else leaf  # layers[2]

        scaled = jax.tree_util.tree_map_with_path(entry, params)
        values, gradients = jax.vmap(jax.value_and_grad(loss), (None, 0))(scaled, tasks.query)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients)) / values.sum()

    shares = np.array([float(share(scale)) for scale in scales])
    return {f"α = {a:g}": a * shares for a in step_sizes}


def outlier_runs(learners: dict[str, Any], fractions: Any) -> dict[str, _Array]:
    """Mean distance from 0 of where outer training ends, for each learner and each fraction of outlier tasks.

    There are 32 runs of 300 outer steps. A batch holds ten parabolas of curvature 1 in three dimensions around 0, or 10
    further in each coordinate. All learners see the same tasks.
    """
    rng = np.random.default_rng(0)
    minima = rng.normal(size=(32, 300, 10, 3))
    chance = rng.uniform(size=(32, 300, 10, 1))

    def run(learner, minima):
        def step(state, minima):
            data = ml.tasks.QuadraticBatch(jnp.tile(jnp.eye(3), (10, 1, 1)), minima)
            return learner.step(state, ml.Task(data, data))[0], None

        return jnp.linalg.norm(jax.lax.scan(step, learner.init(jnp.zeros(3)), minima)[0].params)

    @jax.jit
    def distances(minima):
        return {name: jax.vmap(functools.partial(run, learner))(minima).mean() for name, learner in learners.items()}

    with jax.enable_x64(False):
        found = [distances((minima + 10 * (chance < fraction)).astype(np.float32)) for fraction in fractions]
    return {name: np.array([float(values[name]) for values in found]) for name in learners}


# The opening's curves: recorded, for training them takes a while.

RECORD = Path(__file__).with_name("function_space.json")


def bands(predict: Any, params: Any, distribution: Any) -> _Array:
    """For one sine curve, the 10th, 50th and 90th percentile of the adapted curves of many support sets; [3, 81]."""
    task = functools.partial(distribution.task, amplitude=2.0, phase=1.0)

    @jax.jit
    def curve(key):
        return predict(params, task(key).support, jnp.asarray(X[:, None], jnp.float32))[:, 0]

    drawn = jax.lax.map(curve, jax.random.split(jax.random.key(5), 200))
    return np.percentile(np.asarray(drawn), (10, 50, 90), axis=0)


def main() -> None:
    """The command line: trains one network for the closed form, and writes down its bands before and after."""
    argparse.ArgumentParser(prog="python -m metalearn.course.lessons.lesson_11", description=__doc__).parse_args()
    setup()
    inits, apply = networks(1)
    distribution = ml.tasks.Sinusoid(num_support=5, num_query=10)
    trained = train(ml.meta_rkhs_ii(apply, 1.0), inits, distribution, 3_000, "training", 30)
    found = {
        name: bands(ml.gradient_flow(apply, 1.0), unstack(params)[0], distribution)
        for name, params in (("before", inits), ("after", trained))
    }
    rounded = {name: np.round(band, 3).tolist() for name, band in found.items()}
    RECORD.write_text(json.dumps(rounded) + "\n", encoding="utf-8")


def record() -> dict[str, _Array]:
    """The curves of the opening picture, each of shape [3, 81]."""
    return {name: np.array(band) for name, band in json.loads(RECORD.read_text("utf-8")).items()}


# Figures ------------------------------------------------------------------------------------------------------------

_GRID = X[:, None].astype("float32")


def kernel_matrices(apply: Any, params: Any) -> _Array:
    """The tangent kernel on the grid of the figures, for stacked parameters: [num_runs, 81, 81]."""
    return np.asarray(jax.jit(jax.vmap(lambda p: ml.kernel.tangent(apply)(p, _GRID, _GRID)))(params))


SEEN = (
    "The change of a network's curve everywhere, when one point of it is lifted by one. Without "
    "meta-training one half of the curve rises and the other one falls. With MAML it is a wave, nearly the one that "
    "the task distribution itself suggests."
)


def one_point(kernels: dict[str, Any], best: Any) -> Callable[..., Figure]:
    """A function that draws how the curve changes when one point is lifted, for a network and the place x₁."""

    def draw(network: str, x1: float) -> Figure:
        at = int(np.abs(X - x1).argmin())
        kernel = kernels[network]
        return plots.lines(
            X,
            {"kernel": kernel[:, at] / kernel[at, at], "tasks": best[:, at] / best[at, at]},
            "x",
            "change of the curve",
            points={"support point": (X[at], 1.0)},
            ylim=(-2.6, 2.6),
        )

    return draw


def two_routes() -> None:
    """Shows both ways from the network to the adapted curve: through its parameters, and through its outputs."""
    d = diagrams.Drawing(640, 262)
    left, right = 90, 550
    d.band(4, 8, 632, 118, diagrams.MUTED)
    d.band(4, 138, 632, 118, diagrams.BLUE)
    d.text(320, 32, "parameters: P unknowns", diagrams.MUTED, bold=True)
    d.text(320, 242, "curves: n unknowns", diagrams.BLUE, bold=True)
    d.node(left, 75, "θ", diagrams.MUTED, filled=True)
    d.node(right, 75, "φ*", diagrams.MUTED)
    d.arrow((left + 23, 75), (right - 24, 75), diagrams.MUTED)
    d.text(320, 64, "(GᵀG + λI)⁻¹ Gᵀ · residual", diagrams.MUTED)
    for x, name in ((left, "curve of θ"), (right, "curve of φ*")):
        d.arrow((x, 99), (x, 167), diagrams.TEXT)
        d.box(x - 60, 171, 120, 44, diagrams.BLUE)
        d.text(x, 198, name, diagrams.BLUE, bold=True)
    d.arrow((left + 63, 193), (right - 64, 193), diagrams.BLUE)
    d.text(320, 182, "k(x, X) (k(X, X) + λI)⁻¹ · residual", diagrams.BLUE)
    diagrams.show(
        d.svg(),
        "Two ways from theta to the adapted curve. One goes through the adapted parameters phi star, with a linear "
        "system of P unknowns. The other one goes from the curve of theta to the adapted curve directly, with n "
        "unknowns.",
        title="For a model that is linear in its parameters, both ways end at the same curve",
        caption="The residual is what the curve of θ misses at the n support points, and k(X, X) = G Gᵀ.",
    )


def explained() -> None:
    """Shows which fraction of the residual is explained along an eigenvector of k(X, X), by its eigenvalue."""
    s = np.geomspace(0.01, 100, 121)
    curves = {
        "flow, t = 1": -np.expm1(-s),
        "8 steps": 1 - (1 + s / 8) ** -8.0,
        "ridge, λ = 1": s / (s + 1),
    }
    plots.show(
        plots.lines(s, curves, "eigenvalue of k(X, X)", "fraction explained", log="x"),
        "Fraction of the residual that adaptation explains, against the eigenvalue of the kernel matrix. All three "
        "curves rise from zero to one around the eigenvalue one. Gradient flow rises most steeply, a ridge least, and "
        "eight implicit steps lie in between.",
        title="A ridge λ and gradient flow for a time 1/λ explain the same directions",
        caption="Along each eigenvector of k(X, X). Eight implicit steps are what the library takes for the flow.",
    )


def by_width(widths: Any, errors: dict[str, Any], drifts: dict[str, Any]) -> None:
    """Shows the error of the kernel's prediction and the drift of the kernel against the width."""
    figure, (left, right) = plots.subplots(2, height=3.5)
    for axes, curves, title in ((left, errors, "error of the prediction"), (right, drifts, "drift of the kernel")):
        plots.lines(np.asarray(widths), curves, "hidden units", "relative", log="xy", title=title, axes=axes)
    plots.show(
        figure,
        "Relative error of the kernel's prediction, and relative change of the kernel, against the number of hidden "
        "units, both on logarithmic axes, for two proximal strengths. From 32 units on all four curves fall. Those "
        "of the weak proximal term lie above those of the strong one.",
        title="In a wide network, the first kernel predicts well where training ends",
        caption="One hidden layer, ten support points of one sine curve; medians of 20 random initializations.",
    )


def unbounded(step_sizes: Any, scales: Any, gains: dict[str, Any]) -> None:
    """Shows Meta-RKHS I's objective of a parabola, and for a network what it subtracts, as a share of the loss."""
    theta = np.linspace(-2, 2, 101)
    figure, (left, right) = plots.subplots(2, height=3.5)
    parabolas = {f"α = {a:g}": 0.5 * (1 - 2 * a) * theta**2 for a in step_sizes}
    plots.lines(theta, parabolas, "θ", "objective", title="a parabola, L = 1", axes=left)
    plots.lines(
        scales,
        gains | {"the loss": np.ones(len(scales))},
        "last layer multiplied by",
        "α ‖∇ℓ‖² / ℓ",
        title="a network",
        log="xy",
        axes=right,
    )
    plots.show(
        figure,
        "Left: the objective of Meta-RKHS I for a parabola. For a small alpha it is a flatter parabola, for one "
        "half it is constant, and above it is a parabola upside down. Right: what the objective subtracts, divided by "
        "the loss, for a network whose last layer is multiplied by a growing number. Both curves rise and cross one.",
        title="Where the squared gradient outgrows the loss, the objective has no lowest value",
        caption="Left: ½ (1 − 2α) θ². Right: mean over 300 sine tasks for a network from MAML. Above 1, F_I is "
        "negative.",
    )


def outliers(fractions: Any, distances: dict[str, Any]) -> None:
    """Shows how far outer training ends from the center of the ordinary tasks, against the fraction of outliers."""
    plots.show(
        plots.lines(np.asarray(fractions), distances, "fraction of outlier tasks", "distance from the center"),
        "Distance from the center of the ordinary tasks against the fraction of outliers. With equal weights it grows "
        "in proportion. More weight for hard tasks makes it much larger at once, weights by agreement make it smaller, "
        "and with weights that are inverse to the loss it stays near zero.",
        title="With outliers, weight for hard tasks does harm and inverse losses help",
        caption="Parabolas in three dimensions, 10 in a batch, mean over 32 runs. Outliers lie about 17 away.",
    )


def _band(curves: _Array) -> str:
    """One half of the opening: the task's curve, the median of the adapted curves, and their band."""
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    low, middle, high = curves
    axes.fill_between(X, low, high, color=plots.PALETTE["blue"], alpha=0.18, linewidth=0)
    drawing = plots.lines(X, {"adapted": middle, "task": 2 * np.sin(X - 1)}, "x", "", ylim=(-2.8, 2.8), axes=axes)
    return plots.svg(drawing)


def opening() -> tuple[str, str]:
    """The picture of the claim: what the closed form predicts from five points, before and after training."""
    curves = record()
    return diagrams.opening(
        _band(curves["before"]),
        _band(curves["after"]),
        ("Five points, before meta-training", "Five points, after meta-training"),
        (
            "The closed form of this lesson, with a random network's kernel.",
            "The same formula and support points; the band holds 80 %.",
        ),
        "Both halves show one sine curve, and the curves that the closed form predicts from many sets of five of its "
        "points, as their median in a band that holds 80 percent of them. Left, with the kernel of a random network, "
        "the band is wide and its middle follows the sine badly. Right, after meta-training, the band is narrow and "
        "the median lies on the sine.",
    )


if __name__ == "__main__":
    main()
