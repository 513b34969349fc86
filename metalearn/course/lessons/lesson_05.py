"""Exercises and quiz of lesson 05, FO-B-MAML."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.lessons.adaptation import (
    cosines,
    curve_task,
    gradient_at,
    move,
    network,
    network_params,
    points_task,
    wave,
)
from metalearn.course.widgets import diagrams


@functools.partial(jax.jit, static_argnums=0)
def _walk(loss, task, begin, center, step_size, num_steps, spring, support, query):
    """Gradient steps from `begin` on support * h + query * f, with a spring to `center`."""

    def step(_, phi):
        slopes = (jax.grad(loss)(phi, batch) for batch in task)
        return jax.tree.map(
            lambda p, s, q, c: p - step_size * (support * s + query * q + spring * (p - c)), phi, *slopes, center
        )

    return jax.lax.fori_loop(0, num_steps, step, jax.tree.map(jnp.asarray, begin))


def _arguments(rng, *last):
    """Instances: three losses with their tasks, params, step size, number of steps, strength and nu."""
    return [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.1, 6, 1.5, last[0]),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.3, 5, 0.8, last[1]),
        (network, curve_task(rng, 6, 4), network_params(rng, 3), 0.05, 4, 2.5, last[2]),
    ]


# 05.perturbed_solution ----------------------------------------------------------------------------------------------


def _solution(support=lambda nu: 1.0, query=lambda nu: nu, spring=1.0, more_steps=0):
    """A perturbed solution from the weights of its three terms."""

    def perturbed_solution(loss, task, params, step_size, num_steps, strength, nu):
        return _walk(
            loss,
            task,
            params,
            params,
            step_size,
            num_steps + more_steps,
            spring * strength,
            support(nu),
            query(nu),
        )

    return perturbed_solution


@functools.partial(jax.jit, static_argnums=(0, 4))
def _by_the_library(loss, task, params, step_size, num_steps, strength, nu):
    """An alternative: one objective, and the library's descent."""

    def leaning(phi):
        return loss(phi, task.support) + nu * loss(phi, task.query)

    return ml.inner.descend(ml.inner.proximal(leaning, params, strength), optax.sgd(step_size), num_steps, params)


def _by_pulling_back(loss, task, params, step_size, num_steps, strength, nu):
    """An alternative: after each step on the losses, the spring pulls back a part of the way."""
    phi = params
    for _ in range(num_steps):
        shrunk = jax.tree.map(lambda p, c: c + (1 - step_size * strength) * (p - c), phi, params)
        slope = jax.tree.map(
            lambda s, q: s + nu * q, gradient_at(loss, phi, task.support), gradient_at(loss, phi, task.query)
        )
        phi = move(shrunk, slope, step_size)
    return phi


def _all_slopes_at_the_start(loss, task, params, step_size, num_steps, strength, nu):
    slopes = (gradient_at(loss, params, batch) for batch in task)
    slope = jax.tree.map(lambda s, q: s + nu * q, *slopes)
    phi = params
    for _ in range(num_steps):
        phi = jax.tree.map(lambda p, s, c: p - step_size * (s + strength * (p - c)), phi, slope, params)
    return phi


PERTURBED_SOLUTION = Exercise(
    id="05.perturbed_solution",
    title="The perturbed solution",
    difficulty=2,
    minutes=10,
    reference=_solution(),
    instances=lambda rng: _arguments(rng, 0.3, -0.4, 0.2),
    misconceptions=(
        Misconception(
            "no spring",
            _solution(spring=0.0),
            "Your result is that of a loop without a spring. Either the term is missing, or it pulls to the *current* "
            "point, where it is zero. To which fixed point should it pull?",
        ),
        Misconception(
            "spring twice as strong",
            _solution(spring=2.0),
            "Your spring is twice as strong. The objective has a factor one half; differentiate the square.",
        ),
        Misconception(
            "spring that pushes",
            _solution(spring=-1.0),
            "Your spring pushes away from the start. Look at the sign of the distance.",
        ),
        Misconception(
            "lean on the wrong loss",
            _solution(support=lambda nu: nu, query=lambda nu: 1.0),
            "You weigh the *support* loss by $\\nu$ and the query loss by one. Which of them only leans?",
        ),
        Misconception(
            "lean of the wrong sign",
            _solution(query=lambda nu: -nu),
            "Your lean has the other sign: this is $\\phi_{-\\nu}$.",
        ),
        Misconception(
            "no lean",
            _solution(query=lambda nu: 0.0),
            "This is the unperturbed solution. Where does the query loss enter?",
        ),
        Misconception(
            "weighted mean of the losses",
            _solution(support=lambda nu: 1 - nu),
            "You mix the two losses with weights $1 - \\nu$ and $\\nu$. The perturbed problem takes nothing away from "
            "the support loss.",
        ),
        Misconception(
            "both losses weighed",
            _solution(support=lambda nu: nu),
            "You multiply the support loss by $\\nu$ too. At $\\nu = 0$ only the spring would be left.",
        ),
        Misconception(
            "all slopes at the start",
            _all_slopes_at_the_start,
            "Your losses are differentiated at the start in every step. Where does step $k$ stand?",
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
    alternatives=(_by_the_library, _by_pulling_back),
    hints=(
        "Write the gradient of the three terms by hand. Two are `jax.grad(loss)`, one on each set of points; the "
        "third, the spring's, needs no differentiation.",
        "`jax.tree.map` takes several pytrees: the point, both slopes and the start. Keep the start under a name of "
        "its own, so that the spring stays tied to it.",
    ),
    expected="A pytree like `params`. On the network of this lesson it agrees with `solve` to rounding.",
)

# 05.forward and 05.symmetric ----------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4, 7))
def _library(loss, task, params, step_size, num_steps, strength, nu, estimator):
    return ml.fo_b_maml(loss, optax.sgd(step_size), num_steps, strength, nu, estimator)(params, task)[1]


_SOLVE = _solution()
_LEANING_SUPPORT = _solution(support=lambda nu: 1 + nu, query=lambda nu: 0.0)


def _estimator(combine, solve_at=_SOLVE):
    """An estimator from a rule (phi_minus, phi_0, phi_plus, theta, strength, nu) -> gradient, for each array."""

    def estimate(loss, task, params, step_size, num_steps, strength, nu):
        points = [solve_at(loss, task, params, step_size, num_steps, strength, lean) for lean in (-nu, 0.0, nu)]
        return jax.tree.map(lambda *arrays: combine(*arrays, strength, nu), *points, params)

    return estimate


def _continued(first, combine, center_moves=False):
    """An estimator whose solve at nu begins where the one at `first` * nu ended."""

    def estimate(loss, task, params, step_size, num_steps, strength, nu):
        begin = _SOLVE(loss, task, params, step_size, num_steps, strength, first * nu)
        center = begin if center_moves else params
        end = _walk(loss, task, begin, center, step_size, num_steps, strength, 1.0, nu)
        return jax.tree.map(lambda a, b: combine(a, b, strength, nu), begin, end)

    return estimate


def _query_slope(loss, task, params, step_size, num_steps, strength, nu):
    adapted = _SOLVE(loss, task, params, step_size, num_steps, strength, 0.0)
    return gradient_at(loss, adapted, task.query)


def _forward_reference(loss, task, params, step_size, num_steps, strength, nu):
    return _library(loss, task, params, step_size, num_steps, strength, nu, "forward")


def _symmetric_reference(loss, task, params, step_size, num_steps, strength, nu):
    return _library(loss, task, params, step_size, num_steps, strength, nu, "symmetric")


def _flat_forward(loss, task, params, step_size, num_steps, strength, nu):
    """An alternative: on one flat vector, as a slope times minus the strength."""
    unperturbed, leaning = (
        jax.flatten_util.ravel_pytree(_SOLVE(loss, task, params, step_size, num_steps, strength, v))[0]
        for v in (0.0, nu)
    )
    _, unravel = jax.flatten_util.ravel_pytree(params)
    return unravel(-strength * (leaning - unperturbed) / nu)


def _mean_of_one_sided(loss, task, params, step_size, num_steps, strength, nu):
    """An alternative: the mean of a forward and a backward estimate. It takes one solve more than needed."""
    arguments = (loss, task, params, step_size, num_steps, strength)
    return jax.tree.map(lambda a, b: (a + b) / 2, _forward_reference(*arguments, nu), _BACKWARD(*arguments, nu))


_BACKWARD = _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - zero) / nu)

FORWARD = Exercise(
    id="05.forward",
    title="The forward estimator",
    difficulty=2,
    minutes=10,
    reference=_forward_reference,
    instances=lambda rng: _arguments(rng, 0.3, 0.6, 0.2),
    misconceptions=(
        Misconception(
            "not divided by ν",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (zero - plus)),
            "You took the difference of the two solutions, and did not divide it by the distance in $\\nu$.",
        ),
        Misconception(
            "strength forgotten",
            _estimator(lambda minus, zero, plus, theta, strength, nu: (zero - plus) / nu),
            "This estimates $-d\\phi_\\nu/d\\nu$, the way the minimum moves with its sign turned. What turns it into "
            "the meta-gradient?",
        ),
        Misconception(
            "divided by the strength",
            _estimator(lambda minus, zero, plus, theta, strength, nu: (zero - plus) / (strength * nu)),
            "You divided by $\\lambda$. Look at the boxed equation again.",
        ),
        Misconception(
            "wrong sign",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (plus - zero) / nu),
            "Your gradient has the wrong sign. The minimum moves *down* the query loss; which way does a gradient "
            "point?",
        ),
        Misconception(
            "distance doubled",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (zero - plus) / (2 * nu)),
            "You divided by $2\\nu$. How far apart are $0$ and $\\nu$?",
        ),
        Misconception(
            "symmetric estimator",
            _symmetric_reference,
            "This is the symmetric estimator. It is the better one, but here one of the two solves should not lean at "
            "all.",
        ),
        Misconception(
            "from the start",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (theta - plus) / nu),
            "You subtracted $\\phi_\\nu$ from the start $\\theta$. Without a lean the solution has left the start "
            "already; which solution shows the effect of the lean alone?",
        ),
        Misconception(
            "pull of the spring",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (theta - zero)),
            "This is $\\lambda(\\theta - \\phi_0)$, the gradient of the Moreau envelope: the query loss is not in it.",
        ),
        Misconception(
            "second solve continues",
            _continued(0, lambda first, second, strength, nu: strength * (first - second) / nu),
            "Your solve at $\\nu$ begins where the unperturbed one ended. It has taken more steps in all, so the "
            "errors of the two no longer cancel. Where do both begin?",
        ),
        Misconception(
            "second solve moves the spring",
            _continued(0, lambda first, second, strength, nu: strength * (first - second) / nu, center_moves=True),
            "Your second solve has its spring tied to the solution of the first. Both springs are tied to $\\theta$.",
        ),
        Misconception(
            "lean of the support loss",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (zero - plus) / nu, _LEANING_SUPPORT),
            "Your support loss leans on itself: the query set has no influence. Which loss should lean?",
        ),
    ),
    alternatives=(
        _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (zero - plus) / nu),
        _flat_forward,
    ),
    hints=(
        "`solve` wants seven arguments, in the order of its definition. The last one is the lean of that solve.",
        "Combine the two solutions array by array with `jax.tree.map`. Check the sign: with few small inner steps "
        "the estimate points roughly along `jax.grad(loss)` at `params`, on the query set.",
    ),
    expected="A pytree like `params`. For the network of this lesson, with 400 steps and $\\nu = 0.01$, its distance "
    "from `exact` is about one per cent of the length of `exact`.",
)

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
            "This is the forward estimator. Its error falls like $\\nu$; for $\\nu^2$ the two leans must lie on both "
            "sides of zero.",
        ),
        Misconception(
            "backward difference",
            _BACKWARD,
            "One of your solves does not lean. This one-sided difference has the risk of $-\\nu$ and the error of the "
            "forward estimator.",
        ),
        Misconception(
            "not halved",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / nu),
            "You divided by $\\nu$. How far apart are $-\\nu$ and $\\nu$?",
        ),
        Misconception(
            "not divided by ν",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / 2),
            "You halved the difference, and did not divide it by $\\nu$.",
        ),
        Misconception(
            "strength forgotten",
            _estimator(lambda minus, zero, plus, theta, strength, nu: (minus - plus) / (2 * nu)),
            "This estimates $-d\\phi_\\nu/d\\nu$, the way the minimum moves with its sign turned. What turns it into "
            "the meta-gradient?",
        ),
        Misconception(
            "wrong sign",
            _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (plus - minus) / (2 * nu)),
            "Your gradient has the wrong sign. Which of the two solutions has the *higher* query loss?",
        ),
        Misconception(
            "half the lean",
            lambda loss, task, params, step_size, num_steps, strength, nu: _symmetric_reference(
                loss, task, params, step_size, num_steps, strength, nu / 2
            ),
            "You lean by $\\nu/2$ on each side. That is a fair estimator too, for another $\\nu$. The exercise leans "
            "by the whole of it.",
        ),
        Misconception(
            "second solve continues",
            _continued(-1, lambda first, second, strength, nu: strength * (first - second) / (2 * nu)),
            "Your solve at $+\\nu$ begins where the one at $-\\nu$ ended. Their errors no longer cancel. Where do "
            "both begin?",
        ),
        Misconception(
            "second solve moves the spring",
            _continued(
                -1, lambda first, second, strength, nu: strength * (first - second) / (2 * nu), center_moves=True
            ),
            "Your solve at $+\\nu$ has its spring tied to the solution at $-\\nu$. Both springs are tied to $\\theta$.",
        ),
        Misconception(
            "lean of the support loss",
            _estimator(
                lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / (2 * nu), _LEANING_SUPPORT
            ),
            "Your support loss leans on itself: the query set has no influence. Which loss should lean?",
        ),
        Misconception(
            "query gradient",
            _query_slope,
            "This is $\\nabla f(\\phi_0)$, the first-order shortcut. The stiffness of the valley is missing from it.",
        ),
    ),
    alternatives=(
        _estimator(lambda minus, zero, plus, theta, strength, nu: strength * (minus - plus) / (2 * nu)),
        _mean_of_one_sided,
    ),
    hints=(
        "Two solves, as in the forward estimator. Only the leans and the distance between them differ.",
        "A negative lean is allowed: `solve` takes a number of either sign as its last argument.",
    ),
    expected="A pytree like `params`. For the network of this lesson, with 400 steps and $\\nu = 0.01$, its distance "
    "from `exact` is about 0.03 per cent of the length of `exact`.",
)

# 05.best_nu ---------------------------------------------------------------------------------------------------------


def _best_nu(inside=lambda t, r, d, p: r * d / (p * t), root=lambda p: p + 1):
    """A power of a ratio."""

    def best_nu(truncation, amplification, accuracy, order):
        return inside(truncation, amplification, accuracy, order) ** (1 / root(order))

    return best_nu


def _by_bisection(truncation, amplification, accuracy, order):
    """An alternative: where the slope of the sum changes sign, on a logarithmic scale."""
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        nu = np.exp(middle)
        if order * truncation * nu ** (order - 1) < amplification * accuracy / nu**2:
            low = middle
        else:
            high = middle
    return np.exp(low)


def _least_error(truncation, amplification, accuracy, order):
    nu = _best_nu()(truncation, amplification, accuracy, order)
    return truncation * nu**order + amplification * accuracy / nu


def _with_logarithms(truncation, amplification, accuracy, order):
    log_ratio = np.log(amplification) + np.log(accuracy) - np.log(order) - np.log(truncation)
    return np.exp(log_ratio / (order + 1))


BEST_NU = Exercise(
    id="05.best_nu",
    title="The best ν",
    difficulty=1,
    minutes=5,
    reference=_best_nu(),
    instances=lambda rng: [
        (float(rng.uniform(0.5, 4)), float(rng.uniform(1, 8)), float(10 ** rng.uniform(-8, -4)), order)
        for order in (1, 2, 4)
    ],
    misconceptions=(
        Misconception(
            "both terms equal",
            _best_nu(lambda t, r, d, p: r * d / t),
            "At your $\\nu$ the two terms are equal. At the bottom of the V their *slopes* cancel.",
        ),
        Misconception(
            "root of the order",
            _best_nu(root=lambda p: p),
            "Your root is the $p$-th. Setting the derivative to zero leaves $\\nu^{p-1}$ on one side and $\\nu^{-2}$ "
            "on the other: which power of $\\nu$ is that together?",
        ),
        Misconception(
            "always the square root",
            _best_nu(root=lambda p: 2),
            "Right for $p = 1$. For other orders the root is another one.",
        ),
        Misconception(
            "no root",
            _best_nu(root=lambda p: 1),
            "You have a ratio of the right quantities. It equals a *power* of $\\nu$.",
        ),
        Misconception(
            "upside down",
            _best_nu(lambda t, r, d, p: p * t / (r * d)),
            "Your $\\nu$ grows as the solutions become more accurate. Should it?",
        ),
        Misconception(
            "order in the numerator",
            _best_nu(lambda t, r, d, p: p * r * d / t),
            "The order $p$ comes from differentiating $T\\nu^p$. On which side of the equation does it stand?",
        ),
        Misconception(
            "order plus one",
            _best_nu(lambda t, r, d, p: r * d / ((p + 1) * t)),
            "Your factor is $p + 1$. The derivative of $\\nu^p$ has another one.",
        ),
        Misconception(
            "amplification forgotten",
            _best_nu(lambda t, r, d, p: d / (p * t)),
            "$R$ is missing. It multiplies the term that drives $\\nu$ up.",
        ),
        Misconception(
            "accuracy forgotten",
            _best_nu(lambda t, r, d, p: r / (p * t)),
            "$\\delta$ is missing. More accurate solutions allow a smaller $\\nu$.",
        ),
        Misconception(
            "the error instead",
            _least_error,
            "This is the least *error*, the height of the bottom. The exercise asks where the bottom is.",
        ),
    ),
    alternatives=(_by_bisection, _with_logarithms),
    hints=(
        "Differentiate the sum of both terms in $\\nu$, and set the derivative to zero.",
        "Multiply the equation by $\\nu^2$. One power of $\\nu$ remains; solve for it, then take the root.",
    ),
    expected="`best_nu(1.0, 1.0, 1e-4, 1)` is 0.01: for $p = 1$ and $T = R = 1$ it is the square root of $\\delta$.",
)

EXERCISES = (PERTURBED_SOLUTION, FORWARD, SYMMETRIC, BEST_NU)

QUIZ = (
    Question(
        "The solutions carry independent errors of length δ, and you always use the best ν. You make δ a hundred times "
        "smaller. The error of the forward estimator becomes smaller by a factor of about",
        ("100", "22", "10", "1: it does not depend on δ"),
        2,
        (
            "That would be an error proportional to δ. But a smaller δ is divided by a smaller ν.",
            "That is $100^{2/3}$, the law of the symmetric estimator.",
            "Yes: $\\delta^{1/2}$, and the square root of 100 is 10.",
            "A smaller δ allows a smaller ν, and both terms shrink.",
        ),
    ),
    Question(
        "In float32, with ν = 0.00001, your symmetric meta-gradient is noisy although the inner loops have converged. "
        "What helps?",
        ("more inner steps", "a larger ν", "a smaller ν", "a start of its own for each solve"),
        1,
        (
            "The loops have converged; the noise is the rounding of their results.",
            "Yes: the difference is lost in rounding. A larger ν lifts it out, at a truncation error of only ν².",
            "That makes the difference smaller still, and the rounding stays.",
            "That adds errors which do not cancel.",
        ),
    ),
    Question(
        "To save steps, a colleague starts the solve at +ν from the result at -ν, and stops both early. What goes "
        "wrong?",
        (
            "Nothing: the starting point does not matter",
            "The errors of the two solves no longer cancel",
            "The problem at +ν loses its minimum",
            "The memory grows with the number of steps",
        ),
        1,
        (
            "It would not matter if both had converged. They are stopped early.",
            "Yes: from one start both are off in nearly the same way, and the difference removes that. Now it "
            "stays, divided by ν.",
            "It is the problem at -ν that can lose its minimum.",
            "Each solve still keeps one point.",
        ),
    ),
)


def opening() -> str:
    """The picture of the claim: two solves of a perturbed problem give the meta-gradient with error O(ν) or O(ν²)."""
    theta, strength = 0.3, 1.0

    def solution(perturbation):
        """The minimum of log cosh(2φ - 1) + λ/2 (φ - θ)² + ν f(φ), f(φ) = (φ - 2)² / 2, by Newton's method."""
        phi = np.zeros_like(perturbation)
        for _ in range(60):
            tanh = np.tanh(2 * phi - 1)
            gradient = 2 * tanh + strength * (phi - theta) + perturbation * (phi - 2)
            phi = phi - gradient / (4 * (1 - tanh**2) + strength + perturbation)
        return phi

    nu = np.logspace(-3, -0.3, 25)
    at = solution(np.zeros(1))[0]
    exact = strength * (at - 2) / (4 * (1 - np.tanh(2 * at - 1) ** 2) + strength)
    forward = -strength * (solution(nu) - at) / nu
    symmetric = -strength * (solution(nu) - solution(-nu)) / (2 * nu)
    errors = {name: np.abs(each / exact - 1) for name, each in (("forward", forward), ("symmetric", symmetric))}
    left = diagrams.plot(nu, errors, "perturbation ν", "relative error of the meta-gradient", log="xy")
    return diagrams.opening(
        left,
        diagrams.perturbed_problem(),
        ("Two solves: error O(ν), or O(ν²) if symmetric", "Perturb the problem, and its minimum moves"),
        (
            "FO-B-MAML's two estimators on one task, solved exactly.",
            "How far it moves per ν is the meta-gradient, up to −λ.",
        ),
        "Left: the relative error of two estimators against the perturbation, both axes logarithmic; the symmetric one "
        "falls twice as steeply. Right: the inner objective and the perturbed one, and the distance of their minima.",
    )
