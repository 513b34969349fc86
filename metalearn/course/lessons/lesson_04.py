"""Lesson 04, bilevel optimization: its exercises, predictions, quiz and figures."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.tree import add_scale, sub
from optax.tree import scale as scaled

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import (
    adapt,
    cosines,
    curve_task,
    gradient_at,
    hessian_times,
    line_task,
    move,
    network,
    network_params,
    points_task,
    regression,
    wave,
)
from metalearn.course.widgets import diagrams


@jax.jit
def _nested(params, batch):
    """Mean squared error of a hidden tanh layer plus a line; params is a tuple that holds a dict and a tuple."""
    x, y = batch
    layer, (slope, offset) = params
    hidden = jnp.tanh(jnp.outer(x, layer["weight"]) + layer["bias"])
    return jnp.mean((hidden @ layer["readout"] + slope * x + offset - y) ** 2)


def _nested_params(rng):
    return network_params(rng, 2), (np.asarray(rng.normal()), np.asarray(rng.normal()))


# 04.proximal_descent ------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _proximal_descent(loss, batch, params, learning_rate, num_steps, proximal_strength):
    """By the library."""
    objective = ml.inner.proximal(lambda phi: loss(phi, batch), params, proximal_strength)
    return ml.inner.descend(objective, optax.sgd(learning_rate), num_steps, params)


def _by_step(step, fewer=0):
    """A descent whose step is a function of (gradient, phi, initialization, learning rate, proximal strength)."""

    def descent(loss, batch, params, learning_rate, num_steps, proximal_strength):
        phi = params
        for _ in range(num_steps - fewer):
            phi = sub(phi, step(gradient_at(loss, phi, batch), phi, params, learning_rate, proximal_strength))
        return phi

    return descent


def _proximal_step(factor):
    """The right step, with the gradient of the proximal term multiplied by a factor."""
    return lambda g, phi, theta, a, s: scaled(a, add_scale(g, factor * s, sub(phi, theta)))


def _corrected_at_the_end(loss, batch, params, learning_rate, num_steps, proximal_strength):
    end = adapt(loss, batch, params, learning_rate, num_steps)
    return add_scale(end, -learning_rate * proximal_strength, sub(end, params))


def _gradient_at_the_initialization(loss, batch, params, learning_rate, num_steps, proximal_strength):
    gradient, phi = gradient_at(loss, params, batch), params
    for _ in range(num_steps):
        phi = sub(phi, _proximal_step(1.0)(gradient, phi, params, learning_rate, proximal_strength))
    return phi


def _by_averaging(loss, batch, params, learning_rate, num_steps, proximal_strength):
    """An alternative: a step on the support loss alone, from a weighted mean of phi and the initialization."""
    phi, share = params, learning_rate * proximal_strength
    for _ in range(num_steps):
        between = add_scale(scaled(1 - share, phi), share, params)
        phi = move(between, gradient_at(loss, phi, batch), learning_rate)
    return phi


PROXIMAL_DESCENT = Exercise(
    id="04.proximal_descent",
    title="Adaptation with a proximal term",
    difficulty=1,
    minutes=8,
    reference=_proximal_descent,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5).support, rng.normal(1, 0.3, 2), 0.1, 4, 0.7),
        (cosines, points_task(rng, 4, 6, 5).support, rng.normal(0, 1, 4), 0.2, 3, 1.6),
        (_nested, curve_task(rng, 6, 4).support, _nested_params(rng), 0.05, 3, 2.5),
        (network, curve_task(rng, 3, 4).support, network_params(rng, 2), 0.05, 0, 0.4),
    ],
    misconceptions=(
        Misconception(
            "factor two kept",
            _by_step(_proximal_step(2.0)),
            "This is descent with a proximal term twice as strong as asked. The objective has $\\lambda/2$ times a "
            "square: what is the derivative of the two together?",
        ),
        Misconception(
            "half kept",
            _by_step(_proximal_step(0.5)),
            "This is descent with a proximal term half as strong as asked. The $\\frac12$ belongs to the objective; "
            "what becomes of it when the square is differentiated?",
        ),
        Misconception(
            "wrong sign",
            _by_step(_proximal_step(-1.0)),
            "Your result is that of a proximal term with a minus sign, which pushes away from the initialization. "
            "Write down the gradient of the proximal term, and then the direction of a descent step.",
        ),
        Misconception(
            "no proximal term",
            _by_step(_proximal_step(0.0)),
            "This is gradient descent on the support loss alone. Is $\\lambda$ used? If it is, perhaps the distance is "
            "measured from the current point, where it is always zero.",
        ),
        Misconception(
            "strength multiplies the loss",
            _by_step(lambda g, phi, theta, a, s: scaled(a, add_scale(sub(phi, theta), s, g))),
            "Your result is that of steps in which $\\lambda$ multiplies the gradient of the support loss instead of "
            "that of the proximal term.",
        ),
        Misconception(
            "strength inverted",
            _by_step(lambda g, phi, theta, a, s: scaled(a, add_scale(g, 1 / s, sub(phi, theta)))),
            "Your result is that of the proximal strength $1/\\lambda$. Some texts write the term with "
            "$1/(2\\lambda)$; this course writes $\\lambda/2$.",
        ),
        Misconception(
            "proximal term without the learning rate",
            _by_step(lambda g, phi, theta, a, s: add_scale(scaled(a, g), s, sub(phi, theta))),
            "Your result is that of steps in which the learning rate multiplies the gradient of the loss, but not that "
            "of the proximal term. Both are parts of one objective.",
        ),
        Misconception(
            "weight decay",
            _by_step(lambda g, phi, theta, a, s: scaled(a, add_scale(g, s, phi))),
            "Your result is that of a proximal term around zero, which is weight decay. From which point should the "
            "distance be measured?",
        ),
        Misconception(
            "one correction at the end",
            _corrected_at_the_end,
            "This equals $K$ steps on the support loss, and one step towards the initialization after them. The "
            "proximal term takes part in every step.",
        ),
        Misconception(
            "gradient at the initialization",
            _gradient_at_the_initialization,
            "Your result is that of steps which all take the gradient of the loss at the initialization. Where does "
            "each step begin?",
        ),
        Misconception(
            "ascent",
            _by_step(lambda g, phi, theta, a, s: scaled(-a, add_scale(g, s, sub(phi, theta)))),
            "Your result is that of steps uphill, along which the objective grows. Which sign has a descent step?",
        ),
        Misconception(
            "one step too few",
            _by_step(_proximal_step(1.0), fewer=1),
            "This is right after $K - 1$ steps. Count how often your loop changes the parameters.",
        ),
        Misconception(
            "one step too many",
            _by_step(_proximal_step(1.0), fewer=-1),
            "This is right after $K + 1$ steps. Count how often your loop changes the parameters.",
        ),
    ),
    relatives=(
        (
            "what descent gives with a proximal term at the previous step's parameters",
            lambda loss, batch, params, learning_rate, num_steps, proximal_strength: functools.reduce(
                lambda pair, _: (
                    pair[1],
                    sub(
                        pair[1],
                        _proximal_step(1.0)(
                            gradient_at(loss, pair[1], batch), pair[1], pair[0], learning_rate, proximal_strength
                        ),
                    ),
                ),
                range(num_steps),
                (params, params),
            )[1],
        ),
        (
            "what a step on the loss and then a step on the proximal term gives, each time",
            lambda loss, batch, params, learning_rate, num_steps, proximal_strength: functools.reduce(
                lambda phi, _: (lambda moved: add_scale(moved, -learning_rate * proximal_strength, sub(moved, params)))(
                    move(phi, gradient_at(loss, phi, batch), learning_rate)
                ),
                range(num_steps),
                params,
            ),
        ),
        (
            "what a step on the loss and then a weighted mean with the initialization, of weight αλ/(1 + αλ), gives",
            _by_step(
                lambda g, phi, theta, a, s: scaled(a / (1 + a * s), add_scale(g, s, sub(phi, theta))),
            ),
        ),
        (
            "what descent gives if the term itself is added to the gradient, half of λ times the squared distances",
            _by_step(
                lambda g, phi, theta, a, s: scaled(a, add_scale(g, s / 2, jax.tree.map(jnp.square, sub(phi, theta))))
            ),
        ),
        (
            "what descent gives with every step divided by 1 + λ",
            _by_step(lambda g, phi, theta, a, s: scaled(1 / (1 + s), _proximal_step(1.0)(g, phi, theta, a, s))),
        ),
        (
            "what descent gives if each step starts from the initialization",
            lambda loss, batch, params, learning_rate, num_steps, proximal_strength: functools.reduce(
                lambda phi, _: sub(
                    params,
                    _proximal_step(1.0)(gradient_at(loss, phi, batch), phi, params, learning_rate, proximal_strength),
                ),
                range(num_steps),
                params,
            ),
        ),
        (
            "what the iteration φ ← θ - ∇h(φ)/λ gives",
            lambda loss, batch, params, learning_rate, num_steps, proximal_strength: functools.reduce(
                lambda phi, _: move(params, gradient_at(loss, phi, batch), 1 / proximal_strength),
                range(num_steps),
                params,
            ),
        ),
        (
            "one step of the proximal term too many, at the end",
            lambda loss, batch, params, learning_rate, num_steps, proximal_strength: (
                lambda end: add_scale(end, -learning_rate * proximal_strength, sub(end, params))
            )(_proximal_descent(loss, batch, params, learning_rate, num_steps, proximal_strength)),
        ),
    ),
    alternatives=(_by_averaging, _by_step(_proximal_step(1.0))),
    hints=(
        "Keep two points apart: `params`, which stays as it is, and the one that your loop changes.",
        "Each step subtracts the learning rate times a sum. One part is the gradient of the loss, the other one is a "
        "number times a difference of parameters.",
    ),
    expected="A pytree like `params`. With a very small $\\lambda$ it is close to plain gradient descent.",
)

# 04.implicit_gradient -----------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _hessian(loss, params, batch):
    return jax.hessian(loss)(params, batch)


def _from_parts(formula, hessian_on="support", gradient_on="query"):
    """A gradient from a formula: (Hessian, gradient, proximal strengths) -> result."""

    def gradient(loss, task, adapted, proximal_strengths):
        hessian = np.asarray(_hessian(loss, adapted, getattr(task, hessian_on)))
        return formula(hessian, np.asarray(gradient_at(loss, adapted, getattr(task, gradient_on))), proximal_strengths)

    return gradient


def _many_strengths(hessian, gradient, strengths):
    return strengths * np.linalg.solve(hessian + np.diag(strengths), gradient)


IMPLICIT_GRADIENT = Exercise(
    id="04.implicit_gradient",
    title="A derivation to finish: one proximal strength for each parameter",
    difficulty=2,
    minutes=12,
    reference=_from_parts(_many_strengths),
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), np.array([6.0, 2.5]) + rng.uniform(0, 1, 2)),
        (
            cosines,
            points_task(rng, 4, 6, 5),
            rng.normal(3, 0.3, 4),
            np.array([1.7, 4, 2.4, 3]) + rng.uniform(0, 0.5, 4),
        ),
        (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), np.array([9.0, 4, 6]) + rng.uniform(0, 1, 3)),
    ],
    misconceptions=(
        Misconception(
            "no solve",
            _from_parts(lambda H, b, s: b),
            "This is $\\nabla f(\\varphi^*)$, FO-MAML's gradient at the adapted parameters. $J$ is still missing.",
        ),
        Misconception(
            "J not transposed",
            _from_parts(lambda H, b, s: np.linalg.solve(H + np.diag(s), s * b)),
            "This is $J\\, \\nabla f$. The chain rule asks for $J^\\top \\nabla f$, and with several proximal "
            "strengths $J$ is not symmetric any more: transpose line 3, factor by factor.",
        ),
        Misconception(
            "strengths missing",
            _from_parts(lambda H, b, s: np.linalg.solve(H + np.diag(s), b)),
            "This is $(H + \\Lambda)^{-1} \\nabla f$. Write line 2 as $(H + \\Lambda)\\, J = \\dots$: "
            "what stands on the right?",
        ),
        Misconception(
            "multiplied by the strengths twice",
            _from_parts(lambda H, b, s: s * np.linalg.solve(H + np.diag(s), s * b)),
            "This has $\\Lambda$ on both sides of the inverse. How often does it occur in line 3?",
        ),
        Misconception(
            "mean strength",
            _from_parts(lambda H, b, s: np.linalg.solve(np.eye(len(b)) + H / s.mean(), b)),
            "This is the gradient for one proximal strength, the mean of those given. Each parameter has its own.",
        ),
        Misconception(
            "multiplied instead of solved",
            _from_parts(lambda H, b, s: b + H @ (b / s)),
            "This is $(I + H \\Lambda^{-1})\\, \\nabla f$: the product with the matrix of a system, where its solution "
            "belongs.",
        ),
        Misconception(
            "first terms of the series",
            _from_parts(lambda H, b, s: b - H @ (b / s)),
            "This is $(I - H \\Lambda^{-1})\\, \\nabla f$, which is near the solution only if all $\\lambda_j$ are "
            "large.",
        ),
        Misconception(
            "wrong sign",
            _from_parts(lambda H, b, s: s * np.linalg.solve(np.diag(s) - H, b)),
            "Your result is that of a system with $-H$. Differentiate line 1 once more: which sign does $H J$ get?",
        ),
        Misconception(
            "strengths upside down",
            _from_parts(lambda H, b, s: np.linalg.solve(np.eye(len(b)) + H * s, b)),
            "Your result is that of a system in which $\\Lambda$ multiplies the Hessian. With very large $\\lambda_j$, "
            "what should be left of the solve?",
        ),
        Misconception(
            "strengths in the right side only",
            _from_parts(lambda H, b, s: s * np.linalg.solve(H, b)),
            "Your result is that of a system whose matrix is the Hessian alone. What does the proximal term add to the "
            "curvature?",
        ),
        Misconception(
            "identity in place of the strengths",
            _from_parts(lambda H, b, s: np.linalg.solve(np.eye(len(b)) + H, b)),
            "This is the solution for $\\lambda_j$ that are all 1. Is `proximal_strengths` used?",
        ),
        Misconception(
            "Hessian of the query loss",
            _from_parts(_many_strengths, hessian_on="query"),
            "Your result is that of a system with the Hessian of the query loss. Which loss does the inner problem "
            "minimize?",
        ),
        Misconception(
            "support gradient",
            _from_parts(_many_strengths, gradient_on="support"),
            "Your result is that of a system with the gradient of the support loss on its right side. Which loss "
            "judges the adapted parameters?",
        ),
        Misconception(
            "support and query swapped",
            _from_parts(_many_strengths, hessian_on="query", gradient_on="support"),
            "Your result is right for a task whose support and query set have changed places. Which of them is adapted "
            "to?",
        ),
    ),
    relatives=(
        (
            "the first two terms of a series, with the rows of H divided by the λⱼ",
            _from_parts(lambda H, b, s: b - H @ b / s),
        ),
        (
            "the product with a matrix in which the rows of H are divided by the λⱼ, where a solve belongs",
            _from_parts(lambda H, b, s: b + H @ b / s),
        ),
        ("what a solve with the Hessian alone gives", _from_parts(lambda H, b, s: np.linalg.solve(H, b))),
        (
            "what a product with H + diag(λ) gives, where a solve belongs",
            _from_parts(lambda H, b, s: s * ((H + np.diag(s)) @ b)),
        ),
        (
            "what the λⱼ give if they are added to every row of the Hessian",
            _from_parts(lambda H, b, s: s * np.linalg.solve(H + s, b)),
        ),
        (
            "what the roots of the λⱼ on both sides of the inverse give",
            _from_parts(lambda H, b, s: np.sqrt(s) * np.linalg.solve(H + np.diag(s), np.sqrt(s) * b)),
        ),
        ("what only the diagonal of the Hessian gives", _from_parts(lambda H, b, s: s * b / (np.diag(H) + s))),
        (
            "what half of each λⱼ gives in the matrix",
            _from_parts(lambda H, b, s: s * np.linalg.solve(H + np.diag(s) / 2, b)),
        ),
        (
            "what twice each λⱼ gives in the matrix",
            _from_parts(lambda H, b, s: s * np.linalg.solve(H + 2 * np.diag(s), b)),
        ),
        (
            "what an identity added to the matrix gives",
            _from_parts(lambda H, b, s: s * np.linalg.solve(H + np.diag(s) + np.eye(len(s)), b)),
        ),
        (
            "what the first λⱼ gives for all parameters",
            _from_parts(lambda H, b, s: s[0] * np.linalg.solve(H + s[0] * np.eye(len(s)), b)),
        ),
        (
            "a solve whose result is divided by the λⱼ, not multiplied",
            _from_parts(lambda H, b, s: np.linalg.solve(H + np.diag(s), b) / s),
        ),
        (
            "what only the diagonal of the inverse gives",
            _from_parts(lambda H, b, s: s * np.diag(np.linalg.inv(H + np.diag(s))) * b),
        ),
    ),
    alternatives=(
        _from_parts(lambda H, b, s: np.linalg.solve(np.eye(len(b)) + H / s, b)),
        _from_parts(lambda H, b, s: np.linalg.solve(H + np.diag(s), np.diag(s)).T @ b),
    ),
    hints=(
        "Line 3 is line 2 solved for $J$. Then transpose it: $(P^{-1} D)^\\top = D^\\top (P^\\top)^{-1}$. Both $H$ and "
        "$\\Lambda$ are symmetric.",
        "`jax.hessian(loss)` differentiates with respect to the first argument, as `jax.grad` does. `jnp.diag` makes a "
        "diagonal matrix, and `jnp.linalg.solve` takes the matrix and the right side.",
    ),
    expected="An array of shape `[d]`. If all $\\lambda_j$ are equal, it solves the boxed system above.",
)

# 04.find_the_bug ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Found:
    """What an implementation of iMAML has found on a task, and what the equations are made of."""

    loss: Callable
    task: ml.Task
    theta: np.ndarray
    strength: float
    phi: np.ndarray
    b: np.ndarray
    g: np.ndarray

    def gradient(self, batch: str, at: str = "phi") -> np.ndarray:
        """Of the loss on the support or the query set, at φ or θ."""
        return np.asarray(gradient_at(self.loss, getattr(self, at), getattr(self.task, batch)))

    def product(self, batch: str = "support", at: str = "phi") -> np.ndarray:
        """The Hessian of the loss times g."""
        return np.asarray(hessian_times(self.loss, getattr(self, at), getattr(self.task, batch), self.g))


def _stationary(found, factor=1.0, batch="support", at="phi"):
    return found.gradient(batch, at) + factor * found.strength * (found.phi - found.theta)


def _right_side(found, batch="query", at="phi"):
    return found.b - found.gradient(batch, at)


def _system(found, **where):
    return found.g + found.product(**where) / found.strength - found.b


def _residuals(line=_stationary, right=_right_side, system=_system, size=np.linalg.norm, order=(0, 1, 2)):
    """A learner's function from its three residuals, what is reported of each, and their order."""

    def residuals(candidate, loss, task, params, proximal_strength):
        parts = map(np.asarray, candidate(loss, task, params, proximal_strength))
        found = _Found(loss, task, params, proximal_strength, *parts)
        left_over = [line(found), right(found), system(found)]
        return np.array([size(left_over[place]) for place in order])

    return residuals


residuals = _residuals()


def _with_a_matrix(candidate, loss, task, params, proximal_strength):
    """An alternative: with the Hessian, and the norms as roots of sums of squares."""
    phi, b, g = map(np.asarray, candidate(loss, task, params, proximal_strength))
    matrix = np.eye(len(g)) + np.asarray(_hessian(loss, phi, task.support)) / proximal_strength
    gradients = [np.asarray(gradient_at(loss, phi, batch)) for batch in task]
    rows = np.stack([gradients[0] - proximal_strength * (params - phi), gradients[1] - b, b - matrix @ g])
    return np.sqrt((rows**2).sum(axis=1))


def _by_autodiff(candidate, loss, task, params, proximal_strength):
    """An alternative: the gradient of the proximal objective by the library's own objective."""
    phi, b, g = candidate(loss, task, params, proximal_strength)
    inner = jax.grad(ml.inner.proximal(lambda at: loss(at, task.support), params, proximal_strength))
    stationary, turned = jax.jvp(inner, (jnp.asarray(phi),), (jnp.asarray(g),))  # the second one is (H + λI) g
    left_over = (stationary, gradient_at(loss, phi, task.query) - b, turned / proximal_strength - b)
    return jnp.array([optax.tree.norm(each) for each in left_over])


def _boxed(hessian, b, strength):
    return np.linalg.solve(np.eye(len(b)) + hessian / strength, b)


def _imaml(factor=1.0, num_steps=600, gradient=("query", "phi"), hessian=("support", "phi"), solve=_boxed):
    """An implementation of iMAML from its parts: inner loop, where gradient and Hessian are taken, and solve."""

    def candidate(loss, task, params, proximal_strength):
        phi = _proximal_descent(loss, task.support, params, 0.05, num_steps, factor * proximal_strength)
        points = {"phi": phi, "theta": params}
        b = np.asarray(gradient_at(loss, points[gradient[1]], getattr(task, gradient[0])))
        curvature = np.asarray(_hessian(loss, points[hessian[1]], getattr(task, hessian[0])))
        return phi, b, solve(curvature, b, proximal_strength)

    return candidate


_CANDIDATES = (
    _imaml(factor=2.0),  # A
    _imaml(hessian=("support", "theta")),  # B
    _imaml(solve=lambda H, b, s: np.linalg.solve(H + s * np.eye(len(b)), s * b)),  # C, which is right
    _imaml(),
    _imaml(num_steps=3),
    _imaml(factor=-0.1),
    _imaml(gradient=("support", "phi")),
    _imaml(gradient=("query", "theta")),
    _imaml(hessian=("query", "phi")),
    _imaml(solve=lambda H, b, s: np.linalg.solve(H + s * np.eye(len(b)), b)),
    _imaml(solve=lambda H, b, s: b),
    _imaml(num_steps=3, gradient=("query", "theta"), solve=lambda H, b, s: b - H @ b / s),
)


def _bug_instances(rng):
    problems = (
        lambda: (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), float(rng.uniform(2.2, 4))),
        lambda: (cosines, points_task(rng, 4, 6, 5), rng.normal(0, 1, 4), float(rng.uniform(1.5, 3))),
        lambda: (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), float(rng.uniform(2, 5))),
    )
    return [(_CANDIDATES[i], *problems[n % 3]()) for n, i in enumerate(rng.permutation(len(_CANDIDATES)))]


FIND_THE_BUG = Exercise(
    id="04.find_the_bug",
    title="Find the bug: which equation does not hold?",
    difficulty=3,
    minutes=10,
    reference=residuals,
    instances=_bug_instances,
    misconceptions=(
        Misconception(
            "no proximal term",
            _residuals(line=lambda found: _stationary(found, 0.0)),
            "Your first number is the norm of the support gradient alone, and at the minimum of the proximal objective "
            "that is not zero. What does line 1 add to it?",
        ),
        Misconception(
            "proximal term twice",
            _residuals(line=lambda found: _stationary(found, 2.0)),
            "Your first number is zero where the proximal strength is *twice* what was asked for, so it accepts "
            "candidate A. What becomes of the $\\frac12$ when the square is differentiated?",
        ),
        Misconception(
            "half of the proximal term",
            _residuals(line=lambda found: _stationary(found, 0.5)),
            "Your first number has half of the proximal term's gradient. The $\\frac12$ belongs to the objective; what "
            "becomes of it when the square is differentiated?",
        ),
        Misconception(
            "wrong sign in line 1",
            _residuals(line=lambda found: _stationary(found, -1.0)),
            "Your first number *subtracts* the gradient of the proximal term. At the minimum the two gradients cancel: "
            "which sign does $\\varphi - \\theta$ have in line 1?",
        ),
        Misconception(
            "query set in line 1",
            _residuals(line=lambda found: _stationary(found, batch="query")),
            "Your first number has the gradient of the query loss. Which loss does the inner problem minimize?",
        ),
        Misconception(
            "line 1 at the initialization",
            _residuals(line=lambda found: _stationary(found, at="theta")),
            "Your first number has the support gradient at the initialization. At which point does line 1 hold?",
        ),
        Misconception(
            "support set on the right side",
            _residuals(right=lambda found: _right_side(found, batch="support")),
            "Your second number compares $b$ with the gradient of the *support* loss. Which loss judges the adapted "
            "parameters?",
        ),
        Misconception(
            "query gradient at the initialization",
            _residuals(right=lambda found: _right_side(found, at="theta")),
            "Your second number compares $b$ with the query gradient at the *initialization*. Where does line 4 take "
            "it?",
        ),
        Misconception(
            "Hessian at the initialization",
            _residuals(system=lambda found: _system(found, at="theta")),
            "Your third number is zero where the Hessian is taken at the *initialization*, so it accepts candidate B. "
            "At which point does line 2 take it?",
        ),
        Misconception(
            "Hessian of the query loss",
            _residuals(system=lambda found: _system(found, batch="query")),
            "Your third number has the Hessian of the query loss. Which loss does the inner problem minimize?",
        ),
        Misconception(
            "another system",
            _residuals(system=lambda found: found.product() + found.strength * found.g - found.b),
            "Your third number is zero for $(H + \\lambda I)\\, g = b$, whose solution lacks a factor $\\lambda$. "
            "Compare with the box.",
        ),
        Misconception(
            "no proximal strength in the system",
            _residuals(system=lambda found: found.g + found.product() - found.b),
            "Your third number is zero for $(I + H)\\, g = b$. Where does $\\lambda$ belong?",
        ),
        Misconception(
            "box times the proximal strength",
            _residuals(system=lambda found: found.strength * _system(found)),
            "Your third number is $\\lambda$ times the residual of the boxed system. It is zero in the right places, "
            "but the exercise asks for the system as it stands in the box.",
        ),
        Misconception(
            "wrong sign of the Hessian",
            _residuals(system=lambda found: found.g - found.product() / found.strength - found.b),
            "Your third number is zero for a system with $-H$. Which sign does $H$ have in the box?",
        ),
        Misconception(
            "no Hessian",
            _residuals(system=lambda found: found.g - found.b),
            "Your third number is the distance of $g$ from $b$, which is zero for FO-MAML. Where is the Hessian?",
        ),
        Misconception(
            "own right side",
            _residuals(system=lambda found: _system(found) + _right_side(found)),
            "Your third number has your own query gradient on the right side. A wrong $b$ then shows in two numbers, "
            "and a right solve looks like a second bug. Take the candidate's own $b$.",
        ),
        Misconception(
            "squared norms",
            _residuals(size=lambda vector: vector @ vector),
            "Your numbers are the *squares* of the norms.",
        ),
        Misconception(
            "largest entries",
            _residuals(size=lambda vector: np.abs(vector).max()),
            "Your numbers are the largest entries of the residuals. The exercise asks for norms, the roots of the sums "
            "of squares.",
        ),
        Misconception(
            "sums",
            _residuals(size=np.sum),
            "Your numbers are the sums of the entries, in which errors of opposite sign cancel. The exercise asks for "
            "norms.",
        ),
        Misconception(
            "order",
            _residuals(order=(1, 0, 2)),
            "Your first two numbers have changed places: line 1 comes first, then $b$.",
        ),
    ),
    relatives=(
        ("what root mean squares give, in place of norms", _residuals(size=lambda v: np.sqrt(np.mean(v**2)))),
        ("what sums of absolute values give, in place of norms", _residuals(size=lambda v: np.abs(v).sum())),
        (
            "three norms, of which the third has g and b exchanged in the boxed system",
            _residuals(
                system=lambda found: (
                    found.b
                    + np.asarray(hessian_times(found.loss, found.phi, found.task.support, found.b)) / found.strength
                    - found.g
                )
            ),
        ),
        (
            "three norms, of which the third is the distance of g from the solution of the boxed system",
            _residuals(
                system=lambda found: (
                    found.g
                    - _boxed(np.asarray(_hessian(found.loss, found.phi, found.task.support)), found.b, found.strength)
                )
            ),
        ),
    ),
    alternatives=(_with_a_matrix, _by_autodiff),
    hints=(
        "Call the candidate once. Then take line 1, the definition of $b$ and the box in turn, bring everything to one "
        "side, and put in what the candidate returned, also where it may be wrong.",
        "For the third number you need $H$ only in the product $H g$. `jax.jvp(gradient, (phi,), (g,))[1]` is this "
        "product, if `gradient` is the gradient of the support loss as a function of the parameters alone.",
    ),
    expected="Three numbers, all of them zero up to rounding for an implementation that is right.",
)

EXERCISES = (PROXIMAL_DESCENT, IMPLICIT_GRADIENT, FIND_THE_BUG)

PREDICTIONS = (
    Guess(
        "04.survives",
        "Take a quadratic of curvature 1 and a proximal term with λ = 0.5. After very many inner steps, what fraction "
        "of a change to the initialization is left in the adapted parameter?",
        unit="of the change",
        why="Let the minimum of $h$ be at 0. Where the two gradients cancel, $a\\,\\varphi = \\lambda(\\theta - "
        "\\varphi)$, so $\\varphi = \\frac{\\lambda}{\\lambda + a}\\theta$.",
        read="What is left of the initialization",
    ),
    Guess(
        "04.one_minimum",
        "Above which proximal strength does the proximal objective have a single minimum, whatever the initialization?",
        why="The most negative curvature of $1 - \\cos\\varphi$ is $-1$, and the proximal term adds $\\lambda$ to "
        "it everywhere.",
        read="How strong must the proximal term be?",
    ),
    Guess(
        "04.neumann",
        "λ is half the largest curvature. After many terms of the Neumann series, what does one more do to its error?",
        options=("it halves the error", "it leaves the error as it is", "it doubles the error"),
        why="Along an eigenvector of curvature $a$ each term multiplies the error by $-a/\\lambda$. For the largest "
        "curvature that is $-2$.",
        read="Solve without a matrix",
    ),
    Guess(
        "04.cg_products",
        "The system has 481 unknowns, and the task six support points. How many steps do conjugate gradients need for "
        "an error of one per cent?",
        unit="steps",
        why="Each support point adds curvature in one direction, so at most six eigenvalues of $S$ are large. All "
        "others lie nearer to 1 and count, roughly, as a seventh.",
        read="Solve without a matrix",
    ),
    Guess(
        "04.memory",
        "By which factor does the working memory of iMAML grow from 20 to 200 inner steps?",
        options=("about 10", "about 3", "about 1"),
        why="The linear system contains $\\varphi^*$ only. No earlier point of the inner loop has to be kept.",
        read="The derivation, line by line",
    ),
    Guess(
        "04.unconverged",
        "iMAML takes five inner steps, with one proximal strength after the other. At the worst of them, how large is "
        "the error of its gradient?",
        options=("some per cent of the gradient", "about half of the gradient", "several times the gradient"),
        why="Far from a minimum $H + \\lambda I$ can have eigenvalues close to zero, and the solve divides by them.",
        read="Can this gradient be trusted?",
    ),
    Guess(
        "04.candidates",
        "Which equations hold for which candidate?",
        options=(
            "the boxed system fails for A, line 1 for B; all hold for C",
            "line 1 fails for A, the boxed system for B; all hold for C",
            "all hold for A; something fails for B and for C",
        ),
        why="The gradient of $\\lambda \\lVert \\varphi - \\theta \\rVert^2$ is $2 \\lambda (\\varphi - \\theta)$. The "
        "Hessian changes between $\\theta$ and $\\varphi^*$. Both sides of a system may be multiplied by $\\lambda$.",
        read="The derivation, line by line",
    ),
)

QUIZ = (
    Question(
        "The curvatures of the support loss are spread evenly between 0 and 50, in a thousand dimensions. You raise λ "
        "from 1 to 100. How many steps do conjugate gradients then need for the same accuracy?",
        (
            "far fewer",
            "far more",
            "as many as before, since there are as many unknowns",
            "as many as before, since the curvatures of the loss are the same",
        ),
        0,
        (
            "The condition number $(\\lambda + 50) / \\lambda$ falls from 51 to 1.5.",
            "A stronger proximal term makes the eigenvalues of $H + \\lambda I$ more alike. Is that harder or easier?",
            "The number of unknowns is only an upper limit. What does the bound on the error contain?",
            "The system contains $H + \\lambda I$. What happens to the quotient of its extreme eigenvalues?",
        ),
    ),
    Question(
        "The curvatures of the support loss lie between 0 and 50, and you choose λ = 200. After five steps, about "
        "how much of the error of the Neumann series is left in the steepest direction?",
        ("a quarter", "a twentieth", "a thousandth", "more than at the beginning"),
        2,
        (
            "That is what one step leaves.",
            "The factor is the same for every step. Do factors add or multiply?",
            "Each step multiplies the error by $50 / 200$, and $4^{-5}$ is about a thousandth.",
            "The error grows only where the curvature exceeds λ.",
        ),
    ),
    Question(
        "Five inner steps with α = 0.1, or a proximal term with λ = 2: in directions of small curvature they "
        "regularize about alike. In a direction of curvature 8, which of them keeps more of a change to the "
        "initialization?",
        ("the five steps", "the proximal term", "both keep the same", "neither keeps anything"),
        1,
        (
            "They keep $(1 - 0.8)^5$, which is less than a thousandth.",
            "It keeps $2 / (2 + 8)$, a fifth, and the five steps keep $(1 - 0.8)^5$, less than a thousandth.",
            "Compare $(1 - \\alpha a)^K$ with $\\lambda / (\\lambda + a)$ at $a = 8$.",
            "One of the two fractions is well above zero: compute both at $a = 8$.",
        ),
    ),
)


def neumann_path(times: Callable[[np.ndarray], np.ndarray], b: np.ndarray, num_products: int) -> np.ndarray:
    """The partial sums of the Neumann series after 0, 1, ... products, shape [num_products + 1, d].

    Args:
      times: v -> H v / λ.
      b: shape [d].
      num_products: how many.
    """
    term, path = b, [b]
    for _ in range(num_products):
        term = -times(term)
        path.append(path[-1] + term)
    return np.stack(path)


# Figures -----------------------------------------------------------------------------------------------------------


def show_change_left(left: dict[str, np.ndarray]) -> None:
    """Which fraction of a change to the initialization is left after 0, 1, ... inner steps; name -> array."""
    steps = np.arange(len(next(iter(left.values()))))
    plots.show(
        plots.lines(steps, left, "inner steps K", "fraction that is left", ylim=(0, 1.05)),
        "Fraction of a change against inner steps. Without a proximal term it falls to zero; with one of "
        "proximal strength one half it levels off at one third.",
        "With a proximal term the initialization is not forgotten",
        "Part of a small change to θ that is still there after K inner steps, on a quadratic of curvature 1.",
    )


def show_early_stopping(curvatures: np.ndarray, kept: dict[str, np.ndarray]) -> None:
    """What early stopping and the proximal minimum keep of θ, against curvature; both arrays have its shape."""
    plots.show(
        plots.lines(curvatures, kept, "curvature a of the support loss", "fraction of θ that is kept", ylim=(0, 1.05)),
        "Two curves that fall from one as the curvature grows. They start with the same slope. Later the one of the "
        "proximal term is higher, by about 0.2 at most.",
        "Where the curvature is small, early stopping and a proximal term keep the same fraction of θ",
        "K = 20 inner steps with α = 0.1, and the minimum with λ = 1/(αK), which is 0.5.",
    )


def draw_fit(
    log10_proximal_strength: float,
    task: int,
    proximal_strengths: np.ndarray,
    query_losses: np.ndarray,
    curves: dict[str, Callable[[int, int], np.ndarray]],
    support: tuple[np.ndarray, np.ndarray],
):
    """One task's curve after adaptation, and the query loss against the proximal strength.

    Args:
      log10_proximal_strength: of the proximal strength to show; the nearest one is taken.
      task: number of the task.
      proximal_strengths: shape [s].
      query_losses: shape [s, tasks].
      curves: name -> function of (index of the proximal strength, task) to values on a grid from -5 to 5.
      support: (x, y), each of shape [tasks, points].
    """
    i = int(np.abs(np.log10(proximal_strengths) - log10_proximal_strength).argmin())
    figure, (left, right) = plots.subplots(2, height=3.5)
    values = {name: np.asarray(curve(i, task)) for name, curve in curves.items()}
    plots.lines(
        np.linspace(-5, 5, len(next(iter(values.values())))),
        values,
        "x",
        "y",
        points={"support (noisy)": (support[0][task], support[1][task])},
        title=f"task {task}, λ = {proximal_strengths[i]:.2g}",
        ylim=(-7, 9),
        axes=left,
    )
    plots.lines(
        np.log10(proximal_strengths),
        {"mean": query_losses.mean(1), "this task": query_losses[:, task]},
        "log₁₀ λ",
        "squared error",
        points={"λ": (np.log10(proximal_strengths[i]), query_losses[i, task])},
        title="query loss",
        ylim=(0, 1.05 * max(6, query_losses[:, task].max())),
        axes=right,
    )
    return figure


def draw_minimum(theta: float, proximal_strength: float):
    """The proximal objective of 1 - cos φ with the point that descent from θ reaches, and that point for every θ."""
    grid, window = np.linspace(0, 2 * np.pi, 201), np.linspace(-1.5, 7.5, 181)
    ends = np.append(grid, theta)
    starts = ends
    for _ in range(400):
        ends = ends - 0.4 * (np.sin(ends) + proximal_strength * (ends - starts))

    def objective(phi):
        return 1 - np.cos(phi) + proximal_strength / 2 * (phi - theta) ** 2

    figure, (left, right) = plots.subplots(2, height=3.5)
    plots.lines(
        window,
        {"objective": objective(window)},
        "φ",
        "proximal objective",
        points={"θ": (theta, objective(theta)), "reached": (ends[-1], objective(ends[-1]))},
        title="where descent from θ ends",
        ylim=(-0.4, 6),
        axes=left,
    )
    ends, reached = ends[:-1], ends[-1]
    jumps = np.flatnonzero(np.abs(np.diff(ends)) > 0.8)  # at λ = 1 the curve is steep, but it does not jump
    plots.lines(
        np.insert(grid, jumps + 1, np.nan),
        {"reached": np.insert(ends, jumps + 1, np.nan)},
        "θ",
        "φ",
        points={"this θ": (theta, reached)},
        title="the point reached, for every θ",
        ylim=(-0.3, 6.6),
        axes=right,
    )
    return figure


def show_solvers(errors: dict[tuple[str, float], np.ndarray]) -> None:
    """Errors of both solvers against products; (name, λ / L) -> array."""
    figure, panels = plots.subplots(2, height=3.5)
    for axes, ratio in zip(panels, dict.fromkeys(ratio for _, ratio in errors), strict=True):
        curves = {name: np.maximum(values, 1e-14) for (name, each), values in errors.items() if each == ratio}
        products = np.arange(len(next(iter(curves.values()))))
        axes_title = f"λ = {ratio:g} L"
        plots.lines(
            products,
            curves,
            "Hessian-vector products",
            "relative error",
            title=axes_title,
            ylim=(1e-15, 1e7),
            log="y",
            axes=axes,
        )
    plots.show(
        figure,
        "Relative error against Hessian-vector products, logarithmic. Left, with λ twice the largest "
        "curvature, both methods converge, conjugate gradients faster, down to rounding. Right, with half the largest "
        "curvature, the error of the Neumann series grows and that of conjugate gradients falls.",
        "The Neumann series needs λ > L, conjugate gradients do not",
        "A quadratic in 30 dimensions with largest curvature L.",
    )


def show_spectrum(curvatures: np.ndarray, proximal_strength: float, errors: dict[str, np.ndarray]) -> None:
    """The curvatures of the network, shape [d], beside the errors of both solvers against products."""
    figure, (left, right) = plots.subplots(2, height=3.5)
    size = np.sort(np.abs(curvatures))[::-1][:30] / proximal_strength
    plots.lines(
        np.arange(1, 31),
        {},
        "place, largest first",
        "absolute value",
        points={"the 30 largest": (np.arange(1, 31), size)},
        title="eigenvalues of H / λ",
        log="y",
        axes=left,
    )
    products = np.arange(len(next(iter(errors.values()))))
    plots.lines(
        products,
        errors,
        "Hessian-vector products",
        "relative error",
        title="the solve",
        ylim=(1e-9, 1e9),
        log="y",
        axes=right,
    )
    plots.show(
        figure,
        "Left: the thirty curvatures of largest size, divided by λ, on a logarithmic scale. Four are above "
        "one, the fifth is close to it, and all others lie below one half. Right: the error of the Neumann series "
        "grows with every Hessian-vector product, that of conjugate gradients falls.",
        "Few large curvatures, so few steps of CG",
        "The network that was adapted to noisy points, on task 4 and with the λ that was best on average.",
    )


def show_trust(proximal_strengths: np.ndarray, errors: dict[int, np.ndarray], definite: dict[int, np.ndarray]) -> None:
    """Errors of implicit gradients against the proximal strength.

    Args:
      proximal_strengths: shape [s].
      errors: number of inner steps -> relative error, shape [s].
      definite: number of inner steps -> whether the linear system is positive definite, shape [s].
    """
    logs = np.log10(proximal_strengths)
    marked = (
        np.concatenate([logs[~here] for here in definite.values()]),
        np.concatenate([errors[k][~here] for k, here in definite.items()]),
    )
    plots.show(
        plots.lines(
            logs,
            {f"K = {k}": values for k, values in errors.items()},
            "log₁₀ of the proximal strength λ",
            "relative error",
            points={"system indefinite": marked},
            ylim=(1e-5, 1e3),
            log="y",
        ),
        "Relative error of the implicit gradient against the proximal strength, both logarithmic. After five steps it "
        "is around one or above for all small proximal strengths, and small for large ones only. After 300 steps it "
        "falls far below the other curve from medium ones on. The smallest proximal strengths of both curves are "
        "marked as indefinite.",
        "An implicit gradient needs a converged inner loop",
        "Relative error after K inner steps, measured against backpropagation through the same inner loop. Below 10⁻⁵ "
        "the curve of K = 300 is cut off.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: the proximal term makes adaptation a minimum, which depends on the initialization."""
    phi, theta, strength = np.linspace(-2.2, 4.2, 1281), -1.0, 0.6
    support = 0.5 * (phi - 2.0) ** 2
    proximal = support + strength / 2 * (phi - theta) ** 2
    left = diagrams.plot(
        phi,
        {"h": support, "proximal": proximal},
        "parameters φ",
        "",
        points={
            "θ": (theta, proximal[np.abs(phi - theta).argmin()]),
            "φ*": (phi[proximal.argmin()], proximal.min()),
            "min h": (phi[support.argmin()], support.min()),
        },
        ylim=(-1.4, 7),
    )
    return diagrams.opening(
        left,
        diagrams.proximal_problem(),
        ("The proximal term holds φ* near θ", "Whatever the inner optimizer, one linear system"),
        (
            f"Support loss and proximal objective, for λ = {strength:g}.",
            "iMAML differentiates the minimum, not the steps.",
        ),
        "Left: the support loss and the proximal objective of one task. The minimum of the second lies between the "
        "initialization and the minimum of the first. Right: several inner optimizers reach the same minimum, and one "
        "linear solve there gives the meta-gradient.",
    )
