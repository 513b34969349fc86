"""Lesson 05, FO-B-MAML: its exercises, predictions, quiz and figures."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import own
from metalearn.course.lessons.adaptation import (
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
from metalearn.task import Loss, Task


@jax.jit
def _nested(params, batch):
    """Mean squared error of a hidden layer plus a line; params is a tuple of a dict and an array."""
    x, y = batch
    layer, line = params
    return jnp.mean(
        (jnp.tanh(jnp.outer(x, layer["weight"]) + layer["bias"]) @ layer["readout"] + line[0] * x + line[1] - y) ** 2
    )


@functools.partial(jax.jit, static_argnums=0)
def _descend(loss, task, begin, center, learning_rate, num_steps, proximal_strength, support, query):
    """Gradient steps from `begin` on support * h + query * f, with a proximal term at `center`."""

    def step(_, phi):
        gradients = (jax.grad(loss)(phi, batch) for batch in task)
        return jax.tree.map(
            lambda p, s, q, c: p - learning_rate * (support * s + query * q + proximal_strength * (p - c)),
            phi,
            *gradients,
            center,
        )

    return jax.lax.fori_loop(0, num_steps, step, jax.tree.map(jnp.asarray, begin))


def _arguments(rng, *last):
    """Instances: four losses with their tasks, params, learning rate, number of steps, proximal strength and
    perturbation.
    """
    return [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.1, 6, 1.5, last[0]),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.3, 5, 0.8, last[1]),
        (network, curve_task(rng, 6, 4), network_params(rng, 3), 0.05, 4, 2.5, last[2]),
        (_nested, curve_task(rng, 3, 4), (network_params(rng, 2), rng.normal(0, 1, 2)), 0.04, 1, 1.2, last[0]),
    ]


# 05.perturbed_solution ----------------------------------------------------------------------------------------------


def _solution(support=lambda perturbation: 1.0, query=lambda perturbation: perturbation, factor=1.0, more_steps=0):
    """A perturbed solution from the weights of its three terms."""

    def perturbed_solution(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
        return _descend(
            loss,
            task,
            params,
            params,
            learning_rate,
            num_steps + more_steps,
            factor * proximal_strength,
            support(perturbation),
            query(perturbation),
        )

    return perturbed_solution


@functools.partial(jax.jit, static_argnums=(0, 4))
def _by_the_library(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    """An alternative: one objective, and the library's descent."""

    def perturbed(phi):
        return loss(phi, task.support) + perturbation * loss(phi, task.query)

    return ml.inner.descend(
        ml.inner.proximal(perturbed, params, proximal_strength), optax.sgd(learning_rate), num_steps, params
    )


def _by_averaging(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    """An alternative: each step on the losses begins at a weighted mean of phi and the initialization."""
    phi = params
    for _ in range(num_steps):
        shrunk = jax.tree.map(lambda p, c: c + (1 - learning_rate * proximal_strength) * (p - c), phi, params)
        gradient = jax.tree.map(
            lambda s, q: s + perturbation * q, gradient_at(loss, phi, task.support), gradient_at(loss, phi, task.query)
        )
        phi = move(shrunk, gradient, learning_rate)
    return phi


def _gradients_at_the_initialization(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    gradients = (gradient_at(loss, params, batch) for batch in task)
    gradient = jax.tree.map(lambda s, q: s + perturbation * q, *gradients)
    phi = params
    for _ in range(num_steps):
        phi = jax.tree.map(lambda p, s, c: p - learning_rate * (s + proximal_strength * (p - c)), phi, gradient, params)
    return phi


def _along(direction):
    """Descent along a function of (support gradient, query gradient, the first one, φ, θ, α, λ, ν), for each array."""

    def perturbed_solution(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
        def combined(*arrays):
            return direction(*arrays, learning_rate, proximal_strength, perturbation)

        first, phi = gradient_at(loss, params, task.query), params
        for _ in range(num_steps):
            support, query = gradient_at(loss, phi, task.support), gradient_at(loss, phi, task.query)
            phi = move(phi, jax.tree.map(combined, support, query, first, phi, params), learning_rate)
        return phi

    return perturbed_solution


def _one_after_the_other(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    phi = params
    for _ in range(num_steps):
        phi = _descend(loss, task, phi, params, learning_rate, 1, proximal_strength, 1.0, 0.0)
        phi = move(phi, gradient_at(loss, phi, task.query), learning_rate * perturbation)
    return phi


PERTURBED_SOLUTION = Exercise(
    id="05.perturbed_solution",
    title="The perturbed solution",
    difficulty=2,
    minutes=10,
    reference=_solution(),
    instances=lambda rng: [
        *_arguments(rng, 0.3, -0.4, 0.2),
        (wave, curve_task(rng, 4, 5), rng.normal(1, 0.3, 2), 0.1, 0, 1.5, 0.3),
    ],
    misconceptions=(
        Misconception(
            "no proximal term",
            _solution(factor=0.0),
            "Your result equals that of a loop without a proximal term. Perhaps the term is missing, or its distance "
            "is measured from the *current* point, where it is zero. From which parameters should it be measured?",
        ),
        Misconception(
            "proximal term twice as strong",
            _solution(factor=2.0),
            "Your proximal term is twice as strong as asked. The objective has a factor one half; differentiate the "
            "square.",
        ),
        Misconception(
            "proximal term of the wrong sign",
            _solution(factor=-1.0),
            "Your result is that of a proximal term which pushes away from the initialization. Look at the sign of the "
            "distance.",
        ),
        Misconception(
            "perturbed by the wrong loss",
            _solution(support=lambda perturbation: perturbation, query=lambda perturbation: 1.0),
            "Your result has $\\nu$ in front of the *support* loss and one in front of the query loss. Which of them "
            "is the perturbation?",
        ),
        Misconception(
            "perturbation of the wrong sign",
            _solution(query=lambda perturbation: -perturbation),
            "Your perturbation has the other sign: this is $\\varphi_{-\\nu}$.",
        ),
        Misconception(
            "no perturbation",
            _solution(query=lambda perturbation: 0.0),
            "This is the unperturbed solution. Where does the query loss enter?",
        ),
        Misconception(
            "weighted mean of the losses",
            _solution(support=lambda perturbation: 1 - perturbation),
            "Your result is that of the two losses with weights $1 - \\nu$ and $\\nu$. The perturbed problem takes "
            "nothing away from the support loss.",
        ),
        Misconception(
            "both losses multiplied",
            _solution(support=lambda perturbation: perturbation),
            "Your result has $\\nu$ in front of the support loss too. At $\\nu = 0$ only the proximal term would be "
            "left.",
        ),
        Misconception(
            "gradients at the initialization",
            _gradients_at_the_initialization,
            "In every step your losses seem to be differentiated at the initialization. At which point should step $k$ "
            "differentiate them?",
        ),
        Misconception(
            "one step too few",
            _solution(more_steps=-1),
            "This is the point after $K - 1$ steps. Count how often your loop moves the parameters.",
        ),
        Misconception(
            "one step too many",
            _solution(more_steps=1),
            "This is the point after $K + 1$ steps. Count how often your loop moves the parameters.",
        ),
    ),
    relatives=(
        (
            "what descent gives with the query gradient always taken at the initialization",
            _along(lambda s, q, q0, p, t, alpha, lam, nu: s + nu * q0 + lam * (p - t)),
        ),
        (
            "what descent gives with a proximal term towards zero",
            _along(lambda s, q, q0, p, t, alpha, lam, nu: s + nu * q + lam * p),
        ),
        (
            "what descent gives with ν on the proximal term as well",
            _along(lambda s, q, q0, p, t, alpha, lam, nu: s + nu * (q + lam * (p - t))),
        ),
        (
            "what descent gives without the learning rate on the proximal term",
            _along(lambda s, q, q0, p, t, alpha, lam, nu: s + nu * q + lam / alpha * (p - t)),
        ),
        (
            "what a step on support loss and proximal term and then one on the query loss gives, each time",
            _one_after_the_other,
        ),
        (
            "the unperturbed solution with one step on the query loss after it",
            lambda loss, task, params, learning_rate, num_steps, proximal_strength, perturbation: (
                lambda end: move(end, gradient_at(loss, end, task.query), learning_rate * perturbation)
            )(_solution()(loss, task, params, learning_rate, num_steps, proximal_strength, 0.0)),
        ),
        (
            "what descent gives from the unperturbed solution, which is the proximal term's centre as well",
            lambda loss, task, params, learning_rate, num_steps, proximal_strength, perturbation: _solution()(
                loss,
                task,
                _solution()(loss, task, params, learning_rate, num_steps, proximal_strength, 0.0),
                learning_rate,
                num_steps,
                proximal_strength,
                perturbation,
            ),
        ),
    ),
    alternatives=(_by_the_library, _by_averaging),
    hints=(
        "Write the gradient of the three terms by hand. Two are `jax.grad(loss)`, one on each set of points; the "
        "third, that of the proximal term, needs no differentiation.",
        "`jax.tree.map` takes several pytrees: the point, both gradients and the initialization. The proximal term "
        "needs `params` in every step, so do not overwrite it.",
    ),
    expected="A pytree like `params`. On the network of this lesson it agrees with `solve` to rounding.",
)

# 05.symmetric ----------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4, 7))
def _library(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation, estimator):
    return ml.fo_b_maml(loss, optax.sgd(learning_rate), num_steps, proximal_strength, perturbation, estimator)(
        params, task
    )[1]


_SOLVE = _solution()
_PERTURBED_SUPPORT = _solution(support=lambda perturbation: 1 + perturbation, query=lambda perturbation: 0.0)


def _estimator(combine, solve_at=_SOLVE):
    """An estimator from a formula (φ_-ν, φ_0, φ_ν, θ, λ, ν) -> gradient, for each array."""

    def estimate(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
        points = [
            solve_at(loss, task, params, learning_rate, num_steps, proximal_strength, v)
            for v in (-perturbation, 0.0, perturbation)
        ]
        return jax.tree.map(lambda *arrays: combine(*arrays, proximal_strength, perturbation), *points, params)

    return estimate


def _continued(first, combine, center_moves=False):
    """An estimator whose solve at ν begins where the one at `first` * ν ended."""

    def estimate(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
        begin = _SOLVE(loss, task, params, learning_rate, num_steps, proximal_strength, first * perturbation)
        center = begin if center_moves else params
        end = _descend(loss, task, begin, center, learning_rate, num_steps, proximal_strength, 1.0, perturbation)
        return jax.tree.map(lambda a, b: combine(a, b, proximal_strength, perturbation), begin, end)

    return estimate


def _query_gradient(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    adapted = _SOLVE(loss, task, params, learning_rate, num_steps, proximal_strength, 0.0)
    return gradient_at(loss, adapted, task.query)


def _forward_reference(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    return _library(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation, "forward")


def _symmetric_reference(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    return _library(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation, "symmetric")


def _mean_of_one_sided(loss, task, params, learning_rate, num_steps, proximal_strength, perturbation):
    """An alternative: the mean of a forward and a backward estimate. It takes one solve more than needed."""
    arguments = (loss, task, params, learning_rate, num_steps, proximal_strength)
    return jax.tree.map(
        lambda a, b: (a + b) / 2, _forward_reference(*arguments, perturbation), _BACKWARD(*arguments, perturbation)
    )


_BACKWARD = _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - zero) / nu)

SYMMETRIC = Exercise(
    id="05.symmetric",
    title="The symmetric estimator",
    difficulty=2,
    minutes=5,
    reference=_symmetric_reference,
    instances=lambda rng: _arguments(rng, 0.3, 0.6, 0.2),
    misconceptions=(
        Misconception(
            "forward estimator",
            _forward_reference,
            "This is the forward estimator, whose error is proportional to $\\nu$. For $\\nu^2$ the two perturbations "
            "must lie on both sides of zero.",
        ),
        Misconception(
            "backward difference",
            _BACKWARD,
            "This equals a difference of the solutions at $-\\nu$ and at $0$. Like that of the forward estimator, its "
            "error is proportional to $\\nu$.",
        ),
        Misconception(
            "not halved",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / nu),
            "Your result is twice the right one. Perhaps you divided by $\\nu$: how far apart are $-\\nu$ and $\\nu$?",
        ),
        Misconception(
            "not divided by ν",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / 2),
            "Your result is $\\nu$ times the right one. Perhaps you halved the difference and did not divide it by "
            "$\\nu$.",
        ),
        Misconception(
            "proximal strength forgotten",
            _estimator(lambda minus, zero, plus, theta, strength, nu: (minus - plus) / (2 * nu)),
            "This estimates $-d\\varphi_\\nu/d\\nu$, minus the motion of the minimum. What turns it into "
            "the meta-gradient?",
        ),
        Misconception(
            "wrong sign",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (plus - minus) / (2 * nu)),
            "Your gradient has the wrong sign. Which of the two solutions has the *higher* query loss?",
        ),
        Misconception(
            "half the perturbation",
            lambda loss, task, params, learning_rate, num_steps, proximal_strength, perturbation: _symmetric_reference(
                loss, task, params, learning_rate, num_steps, proximal_strength, perturbation / 2
            ),
            "Your result is that of a perturbation by $\\nu/2$ on each side. That is a fair estimator too, for another "
            "$\\nu$. The exercise perturbs by the whole of it.",
        ),
        Misconception(
            "second solve continues",
            _continued(-1, lambda first, second, strength, nu: strength * (first - second) / (2 * nu)),
            "Your solve at $+\\nu$ begins where the one at $-\\nu$ ended. Their errors no longer cancel. Where do "
            "both begin?",
        ),
        Misconception(
            "second solve moves the proximal term",
            _continued(
                -1, lambda first, second, strength, nu: strength * (first - second) / (2 * nu), center_moves=True
            ),
            "This agrees with a solve at $+\\nu$ whose proximal term is centred at the solution at $-\\nu$. Both are "
            "centred at $\\theta$.",
        ),
        Misconception(
            "perturbed by the support loss",
            _estimator(
                lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / (2 * nu), _PERTURBED_SUPPORT
            ),
            "The support loss takes the place of the perturbation here, and the query set has no influence. Which "
            "loss is multiplied by $\\nu$?",
        ),
        Misconception(
            "query gradient",
            _query_gradient,
            "This is $\\nabla f(\\varphi_0)$, as in FO-MAML. The curvature of the inner problem is missing from it.",
        ),
    ),
    relatives=(
        (
            "λ times the displacement of the mean of the two solutions",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (theta - (minus + plus) / 2)),
        ),
        (
            "a difference of the initialization and one solution, where two solutions belong",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (theta - plus) / nu),
        ),
        (
            "a difference of query gradients at the two solutions",
            lambda loss, task, params, learning_rate, num_steps, proximal_strength, perturbation: jax.tree.map(
                lambda a, b: (a - b) / (2 * perturbation),
                *(
                    gradient_at(
                        loss, _SOLVE(loss, task, params, learning_rate, num_steps, proximal_strength, v), task.query
                    )
                    for v in (perturbation, -perturbation)
                ),
            ),
        ),
    ),
    alternatives=(
        _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / (2 * nu)),
        _mean_of_one_sided,
    ),
    hints=(
        "`solve` takes seven arguments in the order of its definition. The last one is the perturbation of that solve.",
        "Combine the two solutions array by array with `jax.tree.map`. How far apart are the two perturbations?",
    ),
    expected="A pytree like `params`. For the network of this lesson, with 400 steps and $\\nu = 0.01$, its distance "
    "from `exact` is a small fraction of a per cent of the norm of `exact`.",
)

# 05.best_perturbation ------------------------------------------------------------------------------------------------


def _best_perturbation(inside=lambda t, r, d, p: r * d / (p * t), root=lambda p: p + 1):
    """A power of a ratio."""

    def best_perturbation(truncation, amplification, accuracy, order):
        return inside(truncation, amplification, accuracy, order) ** (1 / root(order))

    return best_perturbation


def _by_bisection(truncation, amplification, accuracy, order):
    """An alternative: where the derivative of the sum changes sign, on a logarithmic scale."""
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        perturbation = np.exp(middle)
        if order * truncation * perturbation ** (order - 1) < amplification * accuracy / perturbation**2:
            low = middle
        else:
            high = middle
    return np.exp(low)


def _least_error(truncation, amplification, accuracy, order):
    perturbation = _best_perturbation()(truncation, amplification, accuracy, order)
    return truncation * perturbation**order + amplification * accuracy / perturbation


def _with_logarithms(truncation, amplification, accuracy, order):
    log_ratio = np.log(amplification) + np.log(accuracy) - np.log(order) - np.log(truncation)
    return np.exp(log_ratio / (order + 1))


BEST_PERTURBATION = Exercise(
    id="05.best_perturbation",
    title="The best ν",
    difficulty=1,
    minutes=5,
    reference=_best_perturbation(),
    instances=lambda rng: [
        (float(rng.uniform(0.5, 4)), float(rng.uniform(1, 8)), float(10 ** rng.uniform(-8, -4)), order)
        for order in (1, 2, 4)
    ],
    atol=1e-12,  # a ratio without its root is tiny, and no rounding noise
    misconceptions=(
        Misconception(
            "both terms equal",
            _best_perturbation(lambda t, r, d, p: r * d / t),
            "At your $\\nu$ the two terms are equal. At the bottom of the V their *derivatives* cancel.",
        ),
        Misconception(
            "root of the order",
            _best_perturbation(root=lambda p: p),
            "Your root is the $p$-th. Setting the derivative to zero leaves $\\nu^{p-1}$ on one side and $\\nu^{-2}$ "
            "on the other: which power of $\\nu$ is that together?",
        ),
        Misconception(
            "always the square root",
            _best_perturbation(root=lambda p: 2),
            "Right for $p = 1$. For other orders the root is another one.",
        ),
        Misconception(
            "no root",
            _best_perturbation(root=lambda p: 1),
            "You have a ratio of the right quantities. It equals a *power* of $\\nu$.",
        ),
        Misconception(
            "upside down",
            _best_perturbation(lambda t, r, d, p: p * t / (r * d)),
            "Your $\\nu$ grows as the solutions become more accurate. Should it?",
        ),
        Misconception(
            "order in the numerator",
            _best_perturbation(lambda t, r, d, p: p * r * d / t),
            "The order $p$ comes from differentiating $C\\nu^p$. On which side of the equation does it stand?",
        ),
        Misconception(
            "order plus one",
            _best_perturbation(lambda t, r, d, p: r * d / ((p + 1) * t)),
            "Your factor is $p + 1$. The derivative of $\\nu^p$ has another one.",
        ),
        Misconception(
            "amplification forgotten",
            _best_perturbation(lambda t, r, d, p: d / (p * t)),
            "$R$ is missing. It multiplies the term that drives $\\nu$ up.",
        ),
        Misconception(
            "accuracy forgotten",
            _best_perturbation(lambda t, r, d, p: r / (p * t)),
            "$\\delta$ is missing. More accurate solutions allow a smaller $\\nu$.",
        ),
        Misconception(
            "the error instead",
            _least_error,
            "This is the least *error*, the height of the bottom. The exercise asks where the bottom is.",
        ),
    ),
    relatives=(
        ("what order 2 gives, whatever the order", _best_perturbation(lambda t, r, d, p: r * d / (2 * t), lambda p: 3)),
        ("what order 1 gives, whatever the order", _best_perturbation(lambda t, r, d, p: r * d / t, lambda p: 2)),
        (
            "what a factor 2 in place of the order gives, with the right root",
            _best_perturbation(lambda t, r, d, p: r * d / (2 * t)),
        ),
        ("the ratio to the power p / (p + 1), where its root belongs", _best_perturbation(root=lambda p: (p + 1) / p)),
        ("a root of the accuracy alone", _best_perturbation(lambda t, r, d, p: d)),
        ("a root one too high", _best_perturbation(root=lambda p: p + 2)),
        ("a root two too low", _best_perturbation(root=lambda p: p - 1 if p > 1 else np.inf)),
        (
            "the ratio divided by order + 1, where a root belongs",
            lambda truncation, amplification, accuracy, order: (
                amplification * accuracy / (order * truncation) / (order + 1)
            ),
        ),
    ),
    alternatives=(_by_bisection, _with_logarithms),
    hints=(
        "Differentiate the sum of both terms in $\\nu$, and set the derivative to zero.",
        "Multiply the equation by $\\nu^2$. One power of $\\nu$ remains; solve for it, then take the root.",
    ),
    expected="`best_perturbation(1.0, 1.0, 1e-4, 1)` is 0.01: for $p = 1$ and $C = R = 1$ it is the square root of "
    "$\\delta$.",
)

# 05.unconverged -----------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _limit(loss, task, params, learning_rate, num_steps, proximal_strength):
    return ml.fo_b_maml_limit(loss, optax.sgd(learning_rate), num_steps, proximal_strength)(params, task)[1]


def _recursion(
    following=lambda v, a, q, hv, s: v - a * (q + hv + s * v), ahead=False, curved="support", more_steps=0, factor=None
):
    """An estimate from the next v, a function of (v, learning rate, query gradient, product, proximal strength).

    Args:
      following: gives v_{k+1}.
      ahead: whether the query gradient and the product are those at phi_{k+1}.
      curved: the set whose Hessian multiplies v.
      more_steps: how many more than asked.
      factor: of v_K, by the proximal strength λ; -λ if None.
    """

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def unconverged_estimate(loss, task, params, learning_rate, num_steps, proximal_strength):
        def step(_, both):
            phi, v = both
            after = phi - learning_rate * (jax.grad(loss)(phi, task.support) + proximal_strength * (phi - params))
            at = after if ahead else phi
            batch = getattr(task, curved)
            product = jax.jvp(lambda p: jax.grad(loss)(p, batch), (at,), (v,))[1]
            return after, following(v, learning_rate, jax.grad(loss)(at, task.query), product, proximal_strength)

        start = jnp.asarray(params)
        _, v = jax.lax.fori_loop(0, num_steps + more_steps, step, (start, jnp.zeros_like(start)))
        return (-proximal_strength if factor is None else factor(proximal_strength)) * v

    return unconverged_estimate


@functools.partial(jax.jit, static_argnums=(0, 4))
def _as_a_sum(loss, task, params, learning_rate, num_steps, proximal_strength):
    """An alternative: the same sum, with the factors multiplied from the last step to the first, as matrices."""
    phi, points = jnp.asarray(params), []
    for _ in range(num_steps):
        points.append(phi)
        phi = phi - learning_rate * (jax.grad(loss)(phi, task.support) + proximal_strength * (phi - params))
    identity = jnp.eye(len(phi))
    product, total = identity, jnp.zeros_like(phi)
    for point in reversed(points):
        total = total + product @ jax.grad(loss)(point, task.query)
        product = product @ (
            identity - learning_rate * (jax.hessian(loss)(point, task.support) + proximal_strength * identity)
        )
    return proximal_strength * learning_rate * total


@functools.partial(jax.jit, static_argnums=(0, 4))
def _implicit(loss, task, params, learning_rate, num_steps, proximal_strength):
    phi = _descend(loss, task, params, params, learning_rate, num_steps, proximal_strength, 1.0, 0.0)
    matrix = jax.hessian(loss)(phi, task.support) + proximal_strength * jnp.eye(len(phi))
    return proximal_strength * jnp.linalg.solve(matrix, jax.grad(loss)(phi, task.query))


def _slow_recursion(
    loss,
    task,
    params,
    learning_rate,
    num_steps,
    proximal_strength,
    *,
    begin=False,
    proximal=1.0,
    query_at=None,
    hessian_at=None,
    once=False,
    also_of_query=False,
):
    """The recursion with gradients or Hessians from other places of the descent."""
    path = [params]
    for _ in range(num_steps):
        inner = gradient_at(loss, path[-1], task.support) + proximal * proximal_strength * (path[-1] - params)
        path.append(path[-1] - learning_rate * inner)
    v = gradient_at(loss, params, task.query) if begin else jnp.zeros_like(params)
    for k in range(num_steps):
        at = path[k if hessian_at is None else hessian_at]
        query = gradient_at(loss, path[k if query_at is None else query_at], task.query)
        product = sum(hessian_times(loss, at, batch, v) for batch in task[: 2 if also_of_query else 1])
        v = v - learning_rate * (query * (not once or k == 0) + product + proximal_strength * v)
    return -proximal_strength * v


_PROXIMAL_STEPS = _along(lambda s, q, q0, p, t, alpha, lam, nu: s + lam * (p - t))


def _unrolled_maml(loss, task, params, learning_rate, num_steps, proximal_strength):
    """Backpropagation through the proximal inner loop."""

    def after(theta):
        end = _PROXIMAL_STEPS(loss, task, theta, learning_rate, num_steps, proximal_strength, 0.0)
        return loss(end, task.query)

    return jax.grad(after)(params)


UNCONVERGED = Exercise(
    id="05.unconverged",
    title="A derivation to finish: what unconverged loops give",
    difficulty=3,
    minutes=15,
    reference=_limit,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.1, 6, 1.5),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.3, 5, 0.8),
        (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), 0.1, 1, 2.0),
        (cosines, points_task(rng, 3, 6, 5), rng.normal(3, 0.5, 3), 0.2, 9, 0.4),
    ],
    misconceptions=(
        Misconception(
            "no Hessian",
            _recursion(lambda v, a, q, hv, s: v - a * (q + s * v)),
            "This equals the recursion without the product with $H_k$. The point $\\varphi_k$ depends on $\\nu$, so "
            "$\\nabla h(\\varphi_k)$ has a derivative too.",
        ),
        Misconception(
            "no proximal term",
            _recursion(lambda v, a, q, hv, s: v - a * (q + hv)),
            "This equals the recursion without $\\lambda v_k$. What is the derivative of $\\lambda(\\varphi_k - "
            "\\theta)$?",
        ),
        Misconception(
            "query gradient only",
            _recursion(lambda v, a, q, hv, s: v - a * q),
            "This is the plain sum of the query gradients. Which factor damps what the earlier steps have contributed?",
        ),
        Misconception(
            "evaluated one step ahead",
            _recursion(ahead=True),
            "Here the query gradient and the product seem to be taken at $\\varphi_{k+1}$. Perhaps the point was moved "
            "before $v$ was.",
        ),
        Misconception(
            "Hessian of the query loss",
            _recursion(curved="query"),
            "This uses the Hessian of the query loss. At $\\nu = 0$ its term drops out; which Hessian is left?",
        ),
        Misconception(
            "wrong sign",
            _recursion(factor=lambda s: s),
            "This is the right vector with the opposite sign. Is it $-\\lambda v_K$ that you return?",
        ),
        Misconception(
            "proximal strength missing",
            _recursion(factor=lambda s: -1.0),
            "This is $-v_K$. The meta-gradient is $-\\lambda$ times the derivative.",
        ),
        Misconception(
            "growing instead of damped",
            _recursion(lambda v, a, q, hv, s: v - a * (q - hv - s * v)),
            "Your product with $H_k + \\lambda I$ has the opposite sign. Which sign does it get in line 1?",
        ),
        Misconception(
            "learning rate missing",
            _recursion(lambda v, a, q, hv, s: v - a * (hv + s * v) - q),
            "The query gradient is not multiplied by $\\alpha$ here. Which terms does $\\alpha$ multiply in line 1?",
        ),
        Misconception(
            "last step only",
            _recursion(lambda v, a, q, hv, s: -a * q),
            "This is the contribution of the last step alone. The recursion begins with $v_k$, the derivative of "
            "$\\varphi_k$.",
        ),
        Misconception(
            "implicit gradient",
            _implicit,
            "This solves the linear system of iMAML at $\\varphi_K$, which assumes that the loop has converged.",
        ),
        Misconception(
            "one step too many",
            _recursion(more_steps=1),
            "This is right for $K + 1$ steps. Count how often your loop changes $v$.",
        ),
        Misconception(
            "one step too few",
            _recursion(more_steps=-1),
            "This is right for $K - 1$ steps. Count how often your loop changes $v$.",
        ),
    ),
    relatives=(
        (
            "the meta-gradient of MAML with the proximal inner steps",
            _unrolled_maml,
        ),
        ("what the recursion gives from v = ∇f(θ), not from zero", functools.partial(_slow_recursion, begin=True)),
        (
            "what the recursion gives if φ descends without the proximal term",
            functools.partial(_slow_recursion, proximal=0.0),
        ),
        (
            "what the recursion gives with the Hessian of the query loss added to that of the support loss",
            functools.partial(_slow_recursion, also_of_query=True),
        ),
        (
            "what the recursion gives if λ v is not multiplied by α",
            _recursion(lambda v, a, q, hv, s: v - a * (q + hv) - s * v),
        ),
        (
            "what the recursion gives if v is not added to its own change",
            _recursion(lambda v, a, q, hv, s: -a * (q + hv + s * v)),
        ),
        (
            "what the recursion gives with the query gradient at the initialization",
            functools.partial(_slow_recursion, query_at=0),
        ),
        (
            "what the recursion gives with the Hessian at the initialization",
            functools.partial(_slow_recursion, hessian_at=0),
        ),
        (
            "what the recursion gives with gradient and Hessian at the end of descent, the same in all steps",
            functools.partial(_slow_recursion, query_at=-1, hessian_at=-1),
        ),
        (
            "what the recursion gives if the query gradient enters in the first step only",
            functools.partial(_slow_recursion, once=True),
        ),
    ),
    alternatives=(_recursion(), _as_a_sum),
    hints=(
        "All three terms in the large brackets of line 1 depend on $\\nu$ through $\\varphi_k$, and the query term "
        "also directly. Of the query term only this direct dependence is left at $\\nu = 0$.",
        "Keep the pair $(\\varphi_k, v_k)$. `jax.jvp` of the gradient of the support loss, at $\\varphi_k$ along "
        "$v_k$, returns the gradient and the product. Change both members of the pair only after that.",
    ),
    expected="An array of shape `[d]`. For the network of this lesson with 400 steps it equals `exact`.",
)

EXERCISES = (PERTURBED_SOLUTION, SYMMETRIC, BEST_PERTURBATION, UNCONVERGED)

PREDICTIONS = (
    Guess(
        "05.curvature",
        "Multiply the support loss by four, and leave λ as it is. By which factor does the meta-gradient of this "
        "example shrink?",
        options=("by less than four", "by four", "by more than four"),
        why="The formula divides by $h'' + \\lambda$, and λ stays as it is. The minimum also moves away from that of "
        "the query loss, which makes $f'$ larger.",
        read="From a linear system to two solves",
    ),
    Guess(
        "05.exact",
        "Suppose that the minimum were a quadratic function of ν, $\\varphi_\\nu = a + b\\nu + c\\nu^2$ with $c \\ne "
        "0$. Which estimator would then be exact at every ν?",
        options=("neither of them", "only the symmetric one", "both"),
        why="The term $c\\nu^2$ is the same at $-\\nu$ and $\\nu$ and cancels. In the forward difference it is left, "
        "and divided by ν it makes an error proportional to ν.",
        read="Two estimators",
    ),
    Guess(
        "05.few_steps",
        "Both loops stop early, and both begin at θ. What does the symmetric estimator's error do as ν goes to zero?",
        options=("it rises like δ/ν", "it settles at a positive constant", "it goes to zero"),
        why="Both loops stop short by nearly the same vector, so the difference of their errors is proportional to ν. "
        "Divided by ν, it tends to a constant.",
        read="Inner loops that have not converged",
    ),
    Guess(
        "05.float32",
        "With these numbers, near which ν is the symmetric estimator best in float32? Your `best_perturbation` may "
        "help.",
        options=("0.00003", "0.0003", "0.003", "0.03"),
        why="By the formula the best ν is $(R\\,\\delta / (2C))^{1/3}$. The measured one is near it and not equal to "
        "it, because rounding makes the bottom of the V uneven.",
        read="What a small ν costs",
    ),
    Guess(
        "05.trap",
        "One parameter. The support loss has curvature 0.5, the proximal strength is 1 and the query loss has "
        "curvature 3. From which ν on does the problem with −ν have no minimum?",
        why="The curvature of the perturbed objective is $0.5 + 1 - 3\\nu$, and there is a minimum while it is "
        "positive.",
        read="When −ν removes the minimum",
    ),
    Guess(
        "05.stationary",
        "Gradient descent with the forward estimator converges to a point. How does the norm of ∇F there depend on ν?",
        options=("it does not depend on ν", "it is about proportional to ν", "it is about proportional to ν²"),
        why="Where descent stands still, the estimate is zero, so $\\nabla F$ is minus its bias, which is $O(\\nu)$.",
        read="Does training with these estimates converge?",
    ),
)

QUIZ = (
    Question(
        "The solutions carry independent errors of norm δ, and you always use the best ν of the symmetric estimator. "
        "By which factor must δ shrink for an error that is a hundred times smaller?",
        ("10", "100", "1,000", "10,000"),
        2,
        (
            "If δ shrank by 10 only, the error would shrink by $10^{2/3}$, which is less than five.",
            "That would be right if the error were proportional to δ. But a smaller δ is divided by a smaller ν.",
            "Yes: the error is $O(\\delta^{2/3})$, and $1000^{2/3} = 100$.",
            "That is the price with the forward estimator, whose error is $O(\\delta^{1/2})$.",
        ),
    ),
    Question(
        "Halving ν doubles the error of your symmetric estimate, and twice as many inner steps do not change it. What "
        "causes most of this error?",
        (
            "truncation",
            "rounding",
            "inner loops that stop early, from one initial point",
            "a problem with −ν that has no minimum",
        ),
        1,
        (
            "Truncation would become four times smaller when ν is halved.",
            "Yes: rounding errors of the solutions are divided by ν, and more steps do not help. A larger ν does.",
            "From one initial point that error hardly depends on a small ν, and more steps make it smaller.",
            "That happens where ν is too large, so halving ν would help.",
        ),
    ),
    Question(
        "The inner loops see minibatches, and a colleague draws them anew for each of the two solves. With smaller and "
        "smaller ν, what happens to the error of the symmetric estimator?",
        (
            "It falls like ν²",
            "It settles at a small constant",
            "In the end it grows like 1/ν",
            "It does not depend on ν",
        ),
        2,
        (
            "That would be truncation alone. Both solves also carry an error of their own.",
            "It does if both solves see the same minibatches, so that their errors nearly cancel.",
            "Yes: then the solves have independent errors, whose difference does not shrink with ν and is divided by "
            "it.",
            "The estimator divides by ν. What does it divide?",
        ),
    ),
)

# Figures -----------------------------------------------------------------------------------------------------------


def show_exponents(accuracies: np.ndarray, least: dict[str, np.ndarray], exponents: dict[str, float]) -> None:
    """The smallest error over ν against δ, both of shape [n], and the fitted exponents."""
    plots.show(
        plots.lines(
            accuracies,
            {f"{name}, exponent {exponents[name]:.2f}": errors for name, errors in least.items()},
            "error δ of each solve",
            "smallest relative error over ν",
            log="xy",
        ),
        "Smallest error over all perturbations against the error of a solve, both axes logarithmic: two straight "
        "lines. The symmetric one is lower and steeper.",
        "The symmetric estimator gains more from accurate solves",
        "Independent errors of norm δ, 100 repetitions. Theory: exponents of 1/2 and 2/3.",
    )


def show_unconverged(counts: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    """Relative error against the number of inner steps, both of shape [n]."""
    plots.show(
        plots.lines(counts, errors, "inner steps K", "relative error", log="xy"),
        "Relative error against inner steps, both axes logarithmic. Both curves begin just below one. Shortly after "
        "ten steps iMAML's has a tall peak, while that of FO-B-MAML keeps falling. At the end both fall, and iMAML's "
        "is the lower one.",
        "Far from convergence an inverse can fail where a sum does not",
        "λ = 1.5. Compared with the meta-gradient of the converged problem; iMAML solves its linear system exactly.",
    )


def show_v(perturbations: np.ndarray, theory: dict[str, np.ndarray], measured: dict[str, np.ndarray]) -> None:
    """Relative errors of both estimators in float32, predicted and measured, all of shape [n]."""
    figure, panels = plots.subplots(2, height=3.5, sharey=True)
    for name, axes in zip(theory, panels, strict=True):
        plots.lines(
            perturbations,
            {"predicted": theory[name], "measured": measured[name]},
            "perturbation ν",
            "relative error",
            points={"smallest": (perturbations[measured[name].argmin()], measured[name].min())},
            title=name,
            log="xy",
            ylim=(1e-5, 2),
            axes=axes,
        )
    plots.show(
        figure,
        "Two panels, relative error against ν, both axes logarithmic. In each a predicted V and a measured one, which "
        "nearly coincide on the right; on the left the measured one is ragged and lies lower. The symmetric V is "
        "deeper, and its bottom lies further right.",
        "In float32 the best ν is not tiny",
        "K = 240. Truncation makes the right branch, rounding the left one. No constant was fitted.",
    )


def show_lost_minimum(perturbations: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    """The perturbed objective for three ν, and the relative errors of three estimators against ν, of shape [n]."""
    figure, (left, right) = plots.subplots(2, height=3.5)
    grid = np.linspace(-6, 10, 161)
    plots.lines(
        grid,
        {
            f"ν = {perturbation:g}": 0.25 * (grid + 1) ** 2 + 0.5 * grid**2 - 1.5 * perturbation * ((grid - 2) ** 2 - 4)
            for perturbation in (0.25, 0.5, 0.75)
        },
        "parameter φ",
        "objective",
        title="with −ν f",
        ylim=(-12, 30),
        axes=left,
    )
    plots.lines(
        perturbations,
        {name.replace("_", "-"): values for name, values in errors.items()},
        "perturbation ν",
        "relative error",
        title="estimators",
        log="xy",
        ylim=(1e-4, 1e2),
        axes=right,
    )
    plots.show(
        figure,
        "Left: the inner objective with more and more of the query loss subtracted. At one half it is a straight "
        "line, at three quarters it has a maximum. Right: relative error against ν. The symmetric curve is lowest for "
        "small ν and shoots up near one half; the forward and three-point curves continue smoothly.",
        "Subtract too much of the query loss, and there is no minimum",
        "One parameter with curvatures 0.5 of h and 3 of f, and λ = 1. The objectives are shown up to a constant.",
    )


# The learner's own task distribution ----------------------------------------------------------------------------------


class Constants(NamedTuple):
    """What the best perturbation follows from, averaged over tasks.

    Attributes:
      C: of the truncation error C ν².
      R: of the error R δ / ν.
      delta: δ, the error of a solution in float32.
    """

    C: float
    R: float
    delta: float


_PROXIMAL_STRENGTH, _LEARNING_RATE, _NUM_STEPS = 4.0, 0.05, 240
OWN_PERTURBATIONS = np.geomspace(1e-5, 0.3, 46)


@functools.partial(jax.jit, static_argnums=0)
def _solutions(loss, tasks, theta, perturbations):
    """The solution of each task's perturbed problem for each ν, shape [num_tasks, num_perturbations, d]."""

    def solve(task, perturbation):
        def perturbed(phi):
            return perturbation * loss(phi, task.query) + loss(phi, task.support)

        objective = ml.inner.proximal(perturbed, theta, _PROXIMAL_STRENGTH)
        return ml.inner.descend(objective, optax.sgd(_LEARNING_RATE), _NUM_STEPS, theta)

    return jax.vmap(jax.vmap(solve, (None, 0)), (0, None))(tasks, perturbations)


@functools.partial(jax.jit, static_argnums=0)
def _implicit_gradients(loss, tasks, phi):
    """λ (H + λ I)⁻¹ ∇f at each task's solution, shape [num_tasks, d]."""

    def of_one(task, phi):
        matrix = jax.hessian(loss)(phi, task.support) + _PROXIMAL_STRENGTH * jnp.eye(len(phi))
        return _PROXIMAL_STRENGTH * jnp.linalg.solve(matrix, jax.grad(loss)(phi, task.query))

    return jax.vmap(of_one)(tasks, phi)


def _own_tasks(my_task):
    """Sixteen tasks of the learner's distribution in units that suit the network of the lesson."""
    tasks = own.scaled(own.tasks(my_task))
    return Task(*((2 * x[:16], y[:16]) for x, y in tasks))


def _root_mean_square(vectors, axis=None):
    return np.sqrt(np.mean(np.sum(np.square(vectors), axis=-1), axis=axis))


def own_constants(my_task: Callable[[Any], Task], loss: Loss, theta: Any) -> Constants:
    """C, R and δ of the symmetric estimator for the network of the lesson on the learner's tasks.

    Args:
      my_task: function of a key that returns one task.
      loss: of (params, batch), in float64.
      theta: initialization, shape [d].

    Returns:
      Constants; NaN where nothing could be measured, and then a card says why.
    """
    try:
        tasks = _own_tasks(my_task)
    except own.Unusable as error:
        own.told("failed", str(error))
        return Constants(np.nan, np.nan, np.nan)
    perturbation = 0.02
    solutions = np.asarray(_solutions(loss, tasks, theta, np.array([0.0, perturbation, -perturbation])))
    exact = np.asarray(_implicit_gradients(loss, tasks, solutions[:, 0]))
    size = np.linalg.norm(exact, axis=-1, keepdims=True)
    estimate = _PROXIMAL_STRENGTH * (solutions[:, 2] - solutions[:, 1]) / (2 * perturbation)
    return Constants(
        C=float(_root_mean_square((estimate - exact) / size) / perturbation**2),
        R=float(_PROXIMAL_STRENGTH / np.sqrt(2) * np.sqrt(np.mean(size**-2.0))),
        delta=float(2.0**-24 * _root_mean_square(solutions[:, 0])),
    )


def own_errors(my_task: Callable[[Any], Task], loss: Loss, theta: Any) -> np.ndarray:
    """Relative error of the symmetric estimator in float32 for each of `OWN_PERTURBATIONS`, over sixteen tasks.

    Raises:
      own.Unusable: if these are no tasks that anything can be learned from.
    """
    tasks = _own_tasks(my_task)
    at_zero = _solutions(loss, tasks, theta, np.zeros(1))[:, 0]
    exact = np.asarray(_implicit_gradients(loss, tasks, at_zero))[:, None]
    in_float32 = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), (tasks, theta, np.r_[OWN_PERTURBATIONS, -OWN_PERTURBATIONS])
    )
    plus, minus = np.split(np.asarray(_solutions(loss, *in_float32), float), 2, axis=1)
    estimate = _PROXIMAL_STRENGTH * (minus - plus) / (2 * OWN_PERTURBATIONS[:, None])
    return _root_mean_square((estimate - exact) / np.linalg.norm(exact, axis=-1, keepdims=True), axis=0)


def own_perturbation(my_task: Callable[[Any], Task], loss: Loss, theta: Any, my_perturbation: float | None) -> str:
    """Shows the error at the learner's ν among those at others, on the learner's tasks; the other arguments as above.

    Returns:
      "passed" if it is at most three times the smallest error, "not yet" or "failed".
    """
    if my_perturbation is None:
        return own.told("not yet", "Choose `my_perturbation` from the three numbers above.")
    try:
        errors = own_errors(my_task, loss, theta)
    except own.Unusable as error:
        return own.told("failed", str(error))
    perturbation = np.asarray(my_perturbation, float)
    if perturbation.shape or not np.isfinite(perturbation) or perturbation <= 0:
        return own.told("failed", "ν must be one positive number.")
    if not np.isfinite(errors).all() or errors.min() > 0.5:
        message = "On your tasks the inner loop does not converge. Are a few of them of another order of magnitude?"
        return own.told("failed", message)
    best = int(errors.argmin())
    if not OWN_PERTURBATIONS[0] <= perturbation <= OWN_PERTURBATIONS[-1]:
        first, last = OWN_PERTURBATIONS[[0, -1]]
        message = f"This ν is outside of the range that we measured, from {first:g} to {last:g}."
        return own.told("failed", message)
    found = float(np.exp(np.interp(np.log(perturbation), np.log(OWN_PERTURBATIONS), np.log(errors))))
    plots.show(
        plots.lines(
            OWN_PERTURBATIONS,
            {"measured": errors},
            "perturbation ν",
            "relative error",
            points={"yours": (float(perturbation), found)},
            log="xy",
        ),
        "Relative error against the perturbation, both axes logarithmic: a V whose left branch is ragged, and the "
        "point that was chosen on it.",
        "The V of your tasks",
        "Symmetric estimator in float32, 240 inner steps, sixteen of your tasks.",
    )
    factor = found / errors[best]
    if factor <= 3:
        return own.told("passed", f"The error at your ν is {plots.number(factor, 2)} times the smallest one.", my_task)
    side, cause = ("above", "truncation") if perturbation > OWN_PERTURBATIONS[best] else ("below", "rounding")
    return own.told(
        "failed",
        f"The error at your ν is {plots.number(factor, 2)} times the smallest one. Your ν is {side} the best one, "
        f"where {cause} determines the error.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: two solves of a perturbed problem give the meta-gradient with error O(ν) or O(ν²)."""
    theta, proximal_strength = 0.3, 1.0

    def solution(perturbation):
        """The minimum of log cosh(2φ - 1) + λ/2 (φ - θ)² + ν f(φ), f(φ) = (φ - 2)² / 2, by Newton's method."""
        phi = np.zeros_like(perturbation)
        for _ in range(60):
            tanh = np.tanh(2 * phi - 1)
            gradient = 2 * tanh + proximal_strength * (phi - theta) + perturbation * (phi - 2)
            phi = phi - gradient / (4 * (1 - tanh**2) + proximal_strength + perturbation)
        return phi

    perturbations = np.logspace(-3, -0.3, 25)
    at = solution(np.zeros(1))[0]
    exact = proximal_strength * (at - 2) / (4 * (1 - np.tanh(2 * at - 1) ** 2) + proximal_strength)
    forward = -proximal_strength * (solution(perturbations) - at) / perturbations
    symmetric = -proximal_strength * (solution(perturbations) - solution(-perturbations)) / (2 * perturbations)
    errors = {name: np.abs(each / exact - 1) for name, each in (("forward", forward), ("symmetric", symmetric))}
    left = diagrams.plot(perturbations, errors, "perturbation ν", "relative error of the meta-gradient", log="xy")
    return diagrams.opening(
        left,
        diagrams.perturbed_problem(),
        ("Two solves: error O(ν), or O(ν²) if symmetric", "Perturb the problem, and its minimum moves"),
        (
            "FO-B-MAML's two estimators on one task, solved exactly.",
            "How far it moves per ν is the meta-gradient, up to the factor −λ.",
        ),
        "Left: the relative error of two estimators against the perturbation, both axes logarithmic; the symmetric one "
        "falls twice as steeply. Right: the inner objective and the perturbed one, and the distance of their minima.",
    )
