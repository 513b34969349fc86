"""Exercises and quiz of lesson 04, the bilevel view."""

import functools

import jax
import numpy as np
import optax
from optax.tree import add_scale, sub
from optax.tree import scale as scaled

import metalearn as ml
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.lessons.adaptation import (
    adapt,
    cosines,
    curve_task,
    gradient_at,
    line_task,
    move,
    network,
    network_params,
    points_task,
    regression,
    wave,
)
from metalearn.course.widgets import diagrams
from metalearn.task import Task

# 04.pulled_descent --------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _pulled(loss, batch, params, step_size, num_steps, strength):
    """By the library."""
    objective = ml.inner.proximal(lambda phi: loss(phi, batch), params, strength)
    return ml.inner.descend(objective, optax.sgd(step_size), num_steps, params)


def _by_rule(rule, fewer=0):
    """A descent from one rule for the step: (slope, phi, start, step size, strength) -> what is subtracted."""

    def descent(loss, batch, params, step_size, num_steps, strength):
        phi = params
        for _ in range(num_steps - fewer):
            phi = sub(phi, rule(gradient_at(loss, phi, batch), phi, params, step_size, strength))
        return phi

    return descent


def _spring(factor):
    """The right step, with the spring's slope multiplied by a factor."""
    return lambda g, phi, start, a, s: scaled(a, add_scale(g, factor * s, sub(phi, start)))


def _pulled_back_at_the_end(loss, batch, params, step_size, num_steps, strength):
    end = adapt(loss, batch, params, step_size, num_steps)
    return add_scale(end, -step_size * strength, sub(end, params))


def _slope_at_the_start(loss, batch, params, step_size, num_steps, strength):
    slope, phi = gradient_at(loss, params, batch), params
    for _ in range(num_steps):
        phi = sub(phi, _spring(1.0)(slope, phi, params, step_size, strength))
    return phi


def _by_weighing_points(loss, batch, params, step_size, num_steps, strength):
    """An alternative: a step of the plain loss, from a point between phi and the start."""
    phi, share = params, step_size * strength
    for _ in range(num_steps):
        between = add_scale(scaled(1 - share, phi), share, params)
        phi = move(between, gradient_at(loss, phi, batch), step_size)
    return phi


PULLED_DESCENT = Exercise(
    id="04.pulled_descent",
    title="Adaptation with a spring",
    difficulty=1,
    minutes=8,
    reference=_pulled,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5).support, rng.normal(1, 0.3, 2), 0.1, 4, 0.7),
        (cosines, points_task(rng, 4, 6, 5).support, rng.normal(0, 1, 4), 0.2, 3, 1.6),
        (network, curve_task(rng, 6, 4).support, network_params(rng, 3), 0.05, 3, 2.5),
    ],
    misconceptions=(
        Misconception(
            "factor two kept",
            _by_rule(_spring(2.0)),
            "Your spring is twice as stiff as asked. The objective has $\\lambda/2$ times a square: what is the "
            "derivative of the two together?",
        ),
        Misconception(
            "half kept",
            _by_rule(_spring(0.5)),
            "Your spring is half as stiff as asked. The $\\frac12$ belongs to the objective; what becomes of it when "
            "the square is differentiated?",
        ),
        Misconception(
            "spring pushes",
            _by_rule(_spring(-1.0)),
            "Your spring pushes away from the start. Write down the slope of the spring, and then which way a descent "
            "step goes.",
        ),
        Misconception(
            "anchored to the current point",
            _by_rule(_spring(0.0)),
            "This is descent without a spring. Perhaps yours is tied to the current point, where its slope is always "
            "zero. Which point stays fixed during adaptation?",
        ),
        Misconception(
            "strength multiplies the loss",
            _by_rule(lambda g, phi, start, a, s: scaled(a, add_scale(sub(phi, start), s, g))),
            "Your $\\lambda$ multiplies the loss instead of the spring: a larger one pulls less.",
        ),
        Misconception(
            "strength inverted",
            _by_rule(lambda g, phi, start, a, s: scaled(a, add_scale(g, 1 / s, sub(phi, start)))),
            "Your spring has the strength $1/\\lambda$. That convention belongs to a step size, not to a strength.",
        ),
        Misconception(
            "spring not scaled by the step size",
            _by_rule(lambda g, phi, start, a, s: add_scale(scaled(a, g), s, sub(phi, start))),
            "The step size multiplies the slope of the loss, but not that of the spring. Both are parts of one "
            "objective.",
        ),
        Misconception(
            "weight decay",
            _by_rule(lambda g, phi, start, a, s: scaled(a, add_scale(g, s, phi))),
            "Your spring pulls towards zero: this is weight decay. Where should it be fastened?",
        ),
        Misconception(
            "one pull at the end",
            _pulled_back_at_the_end,
            "You took $K$ plain steps and pulled back once, at the end. The spring acts during every step.",
        ),
        Misconception(
            "all slopes from the start",
            _slope_at_the_start,
            "The slope of your loss is always taken at the start. Which point does each step leave from?",
        ),
        Misconception(
            "one step too few",
            _by_rule(_spring(1.0), fewer=1),
            "This is right after $K - 1$ steps. Count how often your loop moves the parameters.",
        ),
    ),
    alternatives=(_by_weighing_points, _by_rule(_spring(1.0))),
    hints=(
        "Keep two points apart: `params`, which never moves, and the one that your loop moves.",
        "What is subtracted at each step is the step size times a sum: the slope of the loss, and the slope of the "
        "spring, which is a strength times a distance.",
    ),
    expected="A pytree like `params`. With a very small strength it is plain gradient descent.",
)

# 04.implicit_gradient -----------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _hessian(loss, params, batch):
    return jax.hessian(loss)(params, batch)


def _solved(system, hessian_on="support", right_side_on="query"):
    """A gradient from one rule for the matrix: (identity, Hessian, strength) -> what is solved with."""

    def gradient(loss, task, adapted, strength):
        hessian = np.asarray(_hessian(loss, adapted, getattr(task, hessian_on)))
        right_side = np.asarray(gradient_at(loss, adapted, getattr(task, right_side_on)))
        return np.linalg.solve(system(np.eye(len(adapted)), hessian, strength), right_side)

    return gradient


def _right_system(identity, hessian, strength):
    return identity + hessian / strength


def _multiplied(sign):
    def gradient(loss, task, adapted, strength):
        hessian = np.asarray(_hessian(loss, adapted, task.support))
        right_side = np.asarray(gradient_at(loss, adapted, task.query))
        return right_side + sign * hessian @ right_side / strength

    return gradient


def _by_eigenvectors(loss, task, adapted, strength):
    """An alternative: each eigenvector of the Hessian on its own."""
    values, axes = np.linalg.eigh(np.asarray(_hessian(loss, adapted, task.support)))
    return axes @ (strength / (strength + values) * (axes.T @ np.asarray(gradient_at(loss, adapted, task.query))))


IMPLICIT_GRADIENT = Exercise(
    id="04.implicit_gradient",
    title="The implicit gradient, with a matrix",
    difficulty=2,
    minutes=8,
    reference=_solved(_right_system),
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 2.5),
        (cosines, points_task(rng, 4, 6, 5), rng.normal(0, 1, 4), 1.7),
        (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), 4.0),
    ],
    misconceptions=(
        Misconception(
            "no solve",
            lambda loss, task, adapted, strength: gradient_at(loss, adapted, task.query),
            "This is the right side of the system, the FO-MAML direction. It is not solved yet.",
        ),
        Misconception(
            "multiplied instead of solved",
            _multiplied(1),
            "You *multiplied* by the matrix of the system. On which side of the equation does the unknown stand?",
        ),
        Misconception(
            "first terms of the series",
            _multiplied(-1),
            "This is $(I - H/\\lambda)\\, \\nabla f$, a factor of lesson 02 with the step $1/\\lambda$. It is near the "
            "solution only when the spring is very stiff.",
        ),
        Misconception(
            "factor lambda missing",
            _solved(lambda identity, hessian, strength: strength * identity + hessian),
            "You solved with $H + \\lambda I$, and your result is too short by the factor $\\lambda$. Multiply line 3 "
            "out to see where it belongs.",
        ),
        Misconception(
            "wrong sign",
            _solved(lambda identity, hessian, strength: identity - hessian / strength),
            "Your matrix has a minus sign. On a parabola of curvature $a$, does a spring keep more of a nudge than "
            "there was, or less?",
        ),
        Misconception(
            "strength upside down",
            _solved(lambda identity, hessian, strength: identity + hessian * strength),
            "Your $\\lambda$ multiplies the Hessian. With a very stiff spring, what should be left of the solve?",
        ),
        Misconception(
            "strength forgotten",
            _solved(lambda identity, hessian, strength: identity + hessian),
            "Your system does not contain the strength of the spring.",
        ),
        Misconception(
            "spring forgotten",
            _solved(lambda identity, hessian, strength: hessian / strength),
            "Your matrix is the Hessian alone, without the identity. That part comes from the spring.",
        ),
        Misconception(
            "Hessian of the query loss",
            _solved(_right_system, hessian_on="query"),
            "Your Hessian is that of the query loss. Which loss does the inner problem minimise?",
        ),
        Misconception(
            "support gradient",
            _solved(_right_system, right_side_on="support"),
            "Your right side is the gradient of the support loss. Which loss scores the adapted point?",
        ),
        Misconception(
            "support and query swapped",
            _solved(_right_system, hessian_on="query", right_side_on="support"),
            "Support and query have changed places, in the Hessian and in the right side.",
        ),
    ),
    alternatives=(
        _by_eigenvectors,
        lambda loss, task, adapted, strength: (
            strength
            * _solved(lambda identity, hessian, strength: strength * identity + hessian)(loss, task, adapted, strength)
        ),
    ),
    hints=(
        "Two derivatives at `adapted`: the Hessian of one loss, and the gradient of the other. Line 1 says which loss "
        "the Hessian belongs to.",
        "`jax.hessian(loss)` differentiates in the first argument, as `jax.grad` does. `jnp.linalg.solve` takes the "
        "matrix and the right side.",
    ),
    expected="An array of shape `[d]`. For a very stiff spring it is close to the query gradient.",
)

# 04.neumann_series --------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _product(loss, params, batch, vector):
    """The Hessian-vector product."""
    return jax.jvp(lambda phi: jax.grad(loss)(phi, batch), (params,), (vector,))[1]


def _series(factor, extra=0, total_of=sum):
    """A series from one rule for each term: (number of the term, strength) -> factor of the next product."""

    def series(loss, batch, adapted, vector, strength, num_products):
        terms = [vector]
        for number in range(1, num_products + extra + 1):
            terms.append(scaled(factor(number, strength), _product(loss, adapted, batch, terms[-1])))
        return jax.tree.map(lambda *leaves: total_of(leaves), *terms)

    return series


def _right_factor(number, strength):
    return -1 / strength


_neumann = _series(_right_factor)


def _same_product_each_time(loss, batch, adapted, vector, strength, num_products):
    return add_scale(vector, -num_products / strength, _product(loss, adapted, batch, vector))


def _divided_once(loss, batch, adapted, vector, strength, num_products):
    """Every product has its sign, and the sum of them is divided once."""
    undivided = _series(lambda number, strength: -1.0)(loss, batch, adapted, vector, strength, num_products)
    return add_scale(vector, 1 / strength, sub(undivided, vector))


def _divided_at_the_end(loss, batch, adapted, vector, strength, num_products):
    return scaled(1 / strength, _neumann(loss, batch, adapted, vector, strength, num_products))


def _by_iteration(loss, batch, adapted, vector, strength, num_products):
    """An alternative: g <- vector - H g / strength."""
    g = vector
    for _ in range(num_products):
        g = add_scale(vector, -1 / strength, _product(loss, adapted, batch, g))
    return g


NEUMANN_SERIES = Exercise(
    id="04.neumann_series",
    title="The Neumann series, with products only",
    difficulty=3,
    minutes=10,
    reference=_neumann,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5).support, rng.normal(1, 0.3, 2), rng.normal(0, 1, 2), 2.5, 3),
        (cosines, points_task(rng, 4, 6, 5).support, rng.normal(0, 1, 4), rng.normal(0, 1, 4), 1.7, 4),
        (network, curve_task(rng, 6, 4).support, network_params(rng, 3), network_params(rng, 3), 6.0, 2),
    ],
    misconceptions=(
        Misconception(
            "no alternating sign",
            _series(lambda number, strength: 1 / strength),
            "All your terms are added. This is the series of $(I - H/\\lambda)^{-1}$.",
        ),
        Misconception(
            "last term only",
            _series(_right_factor, total_of=lambda leaves: leaves[-1]),
            "You returned the last term. The series is the sum of all of them.",
        ),
        Misconception(
            "first term missing",
            _series(_right_factor, total_of=lambda leaves: sum(leaves[1:])),
            "Your sum begins with the first product. Which term comes before it?",
        ),
        Misconception(
            "same product each time",
            _same_product_each_time,
            "Every term of yours is the same product, with the vector itself. Each should be a product with the term "
            "before it.",
        ),
        Misconception(
            "strength forgotten",
            _series(lambda number, strength: -1.0),
            "Your terms are not divided by the strength.",
        ),
        Misconception(
            "divided once",
            _divided_once,
            "You divide by $\\lambda$ once. In the $j$-th term, how often does $\\lambda$ occur?",
        ),
        Misconception(
            "multiplied by the strength",
            _series(lambda number, strength: -strength),
            "You multiply by the strength. A stiffer spring should make the later terms smaller.",
        ),
        Misconception(
            "another system",
            _divided_at_the_end,
            "Your result is too small by the factor $\\lambda$: it solves with $H + \\lambda I$. The series asked for "
            "begins with the vector itself.",
        ),
        Misconception(
            "exponential series",
            _series(lambda number, strength: -1 / (number * strength)),
            "You divide the $j$-th term by $j!$. That is the exponential series; the geometric one has no factorial.",
        ),
        Misconception(
            "one product too few",
            _series(_right_factor, extra=-1),
            "Your sum has one product too few. With one product it has two terms.",
        ),
        Misconception(
            "one product too many",
            _series(_right_factor, extra=1),
            "Your sum has one product too many. With one product it has two terms.",
        ),
    ),
    alternatives=(_by_iteration,),
    hints=(
        "Keep two pytrees: the last term, and the sum so far. Both begin as the vector.",
        "The next term is the product of $-H/\\lambda$ with the last one. The point at which $H$ is taken never moves.",
    ),
    expected="A pytree like `adapted`. With a stiff spring and many products it solves the boxed system.",
)

# 04.moreau_gradient -------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _moreau(loss, batch, params, step_size, num_steps):
    """By the library."""
    return ml.fo_muml(loss, step_size, num_steps)(params, Task(batch, batch))[1]


def _anchored(loss, batch, params, step_size, num_steps):
    """z_s."""
    z = params
    for _ in range(num_steps):
        z = move(params, gradient_at(loss, z, batch), step_size)
    return z


def _slope_after(fewer=0, sign=1):
    """The slope of the loss at the end of another number of steps, or of steps uphill."""

    def gradient(loss, batch, params, step_size, num_steps):
        return gradient_at(loss, _anchored(loss, batch, params, sign * step_size, num_steps - fewer), batch)

    return gradient


@functools.partial(jax.jit, static_argnums=(0, 4))
def _through_the_iteration(loss, batch, params, step_size, num_steps):
    return jax.grad(lambda start: loss(_anchored(loss, batch, start, step_size, num_steps), batch))(params)


def _displacement(scale):
    def gradient(loss, batch, params, step_size, num_steps):
        return scaled(scale(step_size), sub(params, _anchored(loss, batch, params, step_size, num_steps + 1)))

    return gradient


def _reptile(loss, batch, params, step_size, num_steps):
    return sub(params, _anchored(loss, batch, params, step_size, num_steps))


def _balance(loss, batch, params, step_size, num_steps):
    """The slope of the pulled objective."""
    z = _anchored(loss, batch, params, step_size, num_steps)
    return add_scale(gradient_at(loss, z, batch), 1 / step_size, sub(z, params))


MOREAU_GRADIENT = Exercise(
    id="04.moreau_gradient",
    title="The gradient of the Moreau envelope",
    difficulty=2,
    minutes=6,
    reference=_moreau,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5).support, rng.normal(1, 0.3, 2), 0.2, 3),
        (cosines, points_task(rng, 4, 6, 5).support, rng.normal(0, 1, 4), 0.6, 4),
        (network, curve_task(rng, 6, 4).support, network_params(rng, 3), 0.05, 3),
    ],
    misconceptions=(
        Misconception(
            "plain descent",
            lambda loss, batch, params, step_size, num_steps: gradient_at(
                loss, adapt(loss, batch, params, step_size, num_steps), batch
            ),
            "Your steps leave from the current point. This is gradient descent, and what you return is FO-MAML. "
            "From which point does every anchored step leave?",
        ),
        Misconception(
            "one step too few",
            _slope_after(fewer=1),
            "Your slope is taken one step too early. If you returned $(\\theta - z_s) / \\alpha$: that is the slope at "
            "the point before.",
        ),
        Misconception(
            "one step too many",
            _slope_after(fewer=-1),
            "Your slope is taken one step too late. Count how often your loop moves the point.",
        ),
        Misconception(
            "slope at the start",
            lambda loss, batch, params, step_size, num_steps: gradient_at(loss, params, batch),
            "This is the slope at the start: the limit of a very stiff spring.",
        ),
        Misconception(
            "uphill",
            _slope_after(sign=-1),
            "Your steps go uphill. Compare the sign with $z_{l+1} = \\theta - \\alpha \\nabla h(z_l)$.",
        ),
        Misconception(
            "Reptile",
            _reptile,
            "This is Reptile's direction, $\\theta - z_s$, one step early. Its length is that of a distance, not of "
            "a slope.",
        ),
        Misconception(
            "step size kept",
            _displacement(lambda a: 1.0),
            "Your result is too short by the factor $\\alpha$. A distance becomes a slope when it is multiplied by the "
            "strength of the spring.",
        ),
        Misconception(
            "wrong sign",
            _displacement(lambda a: -1 / a),
            "Your result has the wrong sign. Where the envelope rises, does the pulled minimum lie ahead or behind?",
        ),
        Misconception(
            "differentiated through the iteration",
            _through_the_iteration,
            "You differentiated $h(z_s)$ in the start, through all steps. That is the gradient of the loss *without* "
            "the spring. Line 6 needs a slope at one point only.",
        ),
        Misconception(
            "slope of the pulled objective",
            _balance,
            "This is the slope of loss and spring together. It goes to zero as the iteration converges: it is the "
            "bracket of line 6.",
        ),
        Misconception(
            "the point itself",
            _anchored,
            "You returned the point $z_s$. The exercise asks for a slope at it.",
        ),
    ),
    alternatives=(_displacement(lambda a: 1 / a), _slope_after()),
    hints=(
        "Keep `params` as it is. In each round, take the slope at the current $z$, and step from `params`.",
        "After the last step, one more gradient is needed.",
    ),
    expected="A pytree like `params`, the same as `ml.fo_muml` returns.",
)

EXERCISES = (PULLED_DESCENT, IMPLICIT_GRADIENT, NEUMANN_SERIES, MOREAU_GRADIENT)

QUIZ = (
    Question(
        "An inner loop has converged with 100 steps. You run it for 1,000 instead. What happens to iMAML?",
        (
            "Its gradient and its memory stay as they are",
            "Its gradient shrinks towards zero, as MAML's does without a spring",
            "Its memory grows tenfold",
            "It needs ten times as many conjugate-gradient steps",
        ),
        0,
        (
            "Yes: only the end of the path occurs in the system, and the end no longer moves.",
            "That is what happens without a spring. With one, a fixed part of every nudge survives.",
            "Which points of the path does the system need?",
            "The system is the same, and so are its eigenvalues.",
        ),
    ),
    Question(
        "The smallest curvature of the support loss is -1, the largest 50. You choose λ = 5. Which solver can work?",
        ("Neumann only", "Conjugate gradients only", "Both", "Neither"),
        1,
        (
            "Compare the largest curvature with λ: what is one more product multiplied by?",
            "Yes: with the spring all eigenvalues are positive, but H / λ is too large for the series.",
            "For one of them, the largest curvature must be below λ.",
            "Add λ to the smallest curvature: is the system positive definite?",
        ),
    ),
    Question(
        "Why does the gradient of the Moreau envelope contain no Hessian?",
        (
            "Because the Hessian of the loss is small",
            "Because the derivative of the adapted point is multiplied by a slope that is zero there",
            "Because the derivative of the adapted point is zero",
            "Because support and query have the same Hessian",
        ),
        1,
        (
            "Nothing was neglected: the formula is exact.",
            "Yes: the adapted point minimises the very objective that is differentiated.",
            "The adapted point does move with the start. What is its movement multiplied by?",
            "They have, and iMAML would still need its solve. What else changed?",
        ),
    ),
)


def opening() -> str:
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
            "minimum of h": (phi[support.argmin()], support.min()),
        },
        ylim=(-0.6, 7),
    )
    return diagrams.opening(
        left,
        diagrams.proximal_problem(),
        ("The proximal term holds φ* near θ", "Whatever the solver, one linear solve"),
        (
            f"Support loss and proximal objective, for λ = {strength:g}.",
            "iMAML differentiates the minimum, not the steps.",
        ),
        "Left: the support loss and the proximal objective of one task. The minimum of the second lies between the "
        "initialization and the minimum of the first. Right: several solvers reach the same minimum, and one linear "
        "solve there gives the meta-gradient.",
    )
