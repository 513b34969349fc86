"""Exercises, quiz and figures of lesson 03, first-order methods."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from metalearn import plots, theory
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import own
from metalearn.course.lessons.adaptation import (
    adapt,
    by_recursion,
    cosines,
    curve_task,
    first_order,
    gradient_after,
    gradient_at,
    meta_gradient,
    move,
    network,
    network_params,
    points_task,
    steps_from_the_start,
    wave,
)
from metalearn.course.widgets import diagrams
from metalearn.task import Task

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# 03.fixed_points ----------------------------------------------------------------------------------------------------


def _weighted_means(maml, fo_maml, reptile):
    """Fixed points from one rule for each method: (curvature, factor) -> weights."""

    def fixed_points(curvature, minimum, learning_rate, num_steps):
        factor = (1 - learning_rate * curvature) ** num_steps
        weights = [rule(curvature, factor) for rule in (maml, fo_maml, reptile)]
        with np.errstate(invalid="ignore"):  # without inner steps Reptile has no weights
            return np.array([np.sum(w * minimum) / np.sum(w) for w in weights])

    return fixed_points


def _maml_weight(a, j):
    return a * j**2


def _fo_maml_weight(a, j):
    return a * j


def _reptile_weight(a, j):
    return 1 - j


_fixed_points = _weighted_means(_maml_weight, _fo_maml_weight, _reptile_weight)


def _by_solving(curvature, minimum, learning_rate, num_steps):
    """An alternative: each displacement is affine in the start, so two evaluations find its root."""

    def adapted(theta):
        for _ in range(num_steps):
            theta = theta - learning_rate * curvature * (theta - minimum)
        return theta

    factor = (1 - learning_rate * curvature) ** num_steps
    directions = (
        lambda theta: np.mean(factor * curvature * (adapted(theta) - minimum)),
        lambda theta: np.mean(curvature * (adapted(theta) - minimum)),
        lambda theta: np.mean(theta - adapted(theta)),
    )
    return np.array([-g(0.0) / (g(1.0) - g(0.0)) for g in directions])


def _distinct_tasks(rng, number):
    """Curvatures and minima of which no two are close."""
    curvature = np.linspace(0.3, 2.0, number) + rng.uniform(-0.05, 0.05, number)
    return rng.permutation(curvature), rng.permutation(np.linspace(-3.0, 2.0, number)) + rng.uniform(-0.1, 0.1, number)


FIXED_POINTS = Exercise(
    id="03.fixed_points",
    title="Where each method converges",
    difficulty=2,
    minutes=10,
    reference=_fixed_points,
    instances=lambda rng: [
        (np.array([3.0, 0.5]), np.array([-1.0, 2.0]), 0.3, 2),
        (*_distinct_tasks(rng, 2), 0.3, 5),
        (*_distinct_tasks(rng, 6), 0.2, 3),
        (*_distinct_tasks(rng, 3), rng.uniform(0.2, 0.4), 1),
        (*_distinct_tasks(rng, 1), 0.3, 2),
    ],
    misconceptions=(
        Misconception(
            "MAML with one factor",
            _weighted_means(_fo_maml_weight, _fo_maml_weight, _reptile_weight),
            "Your MAML converges where FO-MAML does. In MAML the factor $J$ appears twice: once because the adapted "
            "parameters are closer to the minimum, and once more. Where does the second one come from?",
        ),
        Misconception(
            "FO-MAML with two factors",
            _weighted_means(_maml_weight, _maml_weight, _reptile_weight),
            "Your FO-MAML converges where MAML does. Which of MAML's two factors does FO-MAML leave out?",
        ),
        Misconception(
            "MAML and FO-MAML swapped",
            _weighted_means(_fo_maml_weight, _maml_weight, _reptile_weight),
            "MAML and FO-MAML are the other way round. Which of them multiplies the query gradient by $J$?",
        ),
        Misconception(
            "Reptile keeps what is left",
            _weighted_means(_maml_weight, _fo_maml_weight, lambda a, j: j),
            "Your result for Reptile is that of the weight $J$, the fraction of the distance that adaptation *leaves*. "
            "Reptile's direction $\\theta - \\varphi_K$ is the other part of it.",
        ),
        Misconception(
            "Reptile as a gradient",
            _weighted_means(_maml_weight, _fo_maml_weight, lambda a, j: a * (1 - j)),
            "Your result for Reptile has a curvature too many in its weight. Its direction is a displacement and not a "
            "gradient: write $\\theta - \\varphi_K$ in terms of $\\theta - m$.",
        ),
        Misconception(
            "no adaptation",
            _weighted_means(lambda a, j: a, lambda a, j: a, lambda a, j: a),
            "All three converge where joint training does, which does not adapt. Where does the factor $J$ enter?",
        ),
        Misconception(
            "Reptile as joint training",
            _weighted_means(_maml_weight, _fo_maml_weight, lambda a, j: a),
            "Your Reptile converges where joint training does. This is so for one inner step only: "
            "write $\\theta - \\varphi_K$ in terms of $\\theta - m$.",
        ),
        Misconception(
            "Reptile with two factors",
            _weighted_means(_maml_weight, _fo_maml_weight, lambda a, j: 1 - j**2),
            "Your result for Reptile is that of twice as many inner steps. How many factors are there in $J$?",
        ),
        Misconception(
            "curvature forgotten",
            _weighted_means(lambda a, j: j**2, lambda a, j: j, _reptile_weight),
            "Your results are those of weights without the curvature. The gradient of a parabola is $a\\,(\\varphi - "
            "m)$.",
        ),
        Misconception(
            "plain mean",
            lambda curvature, minimum, learning_rate, num_steps: np.full(3, np.mean(minimum)),
            "This is the plain mean of the minima. Every method weights the tasks differently: set its mean direction "
            "to zero and solve for $\\theta$.",
        ),
        Misconception(
            "weights not normalized",
            lambda curvature, minimum, learning_rate, num_steps: np.array(
                [
                    np.mean(rule(curvature, (1 - learning_rate * curvature) ** num_steps) * minimum)
                    for rule in (_maml_weight, _fo_maml_weight, _reptile_weight)
                ]
            ),
            "Your result is the mean of weight times minimum, with the right weights. What is left to divide by when "
            "you solve $\\sum w_i (\\theta - m_i) = 0$ for $\\theta$?",
        ),
        Misconception(
            "one long step",
            lambda curvature, minimum, learning_rate, num_steps: _fixed_points(
                curvature, minimum, num_steps * learning_rate, 1
            ),
            "Your result is that of one step with the learning rate $K\\alpha$ in place of $K$ steps with $\\alpha$. "
            "Each step begins where the last one ended, so the factors multiply.",
        ),
        Misconception(
            "one step too few",
            lambda curvature, minimum, learning_rate, num_steps: _fixed_points(
                curvature, minimum, learning_rate, num_steps - 1
            ),
            "Your result is that of $K - 1$ inner steps. After $K$ steps, how often was the distance multiplied by "
            "$1 - \\alpha a$?",
        ),
    ),
    relatives=(
        (
            "what the gradient flow gives, with exponentials in place of the powers",
            lambda curvature, minimum, learning_rate, num_steps: (
                lambda j: np.array([np.average(minimum, weights=w) for w in (curvature * j**2, curvature * j, 1 - j)])
            )(np.exp(-num_steps * learning_rate * curvature)),
        ),
        (
            "what the squares of the curvatures give as weights of MAML and FO-MAML",
            _weighted_means(lambda a, j: a**2 * j**2, lambda a, j: a**2 * j, _reptile_weight),
        ),
        (
            "what the sum of FO-MAML's weights for 1, ..., K inner steps gives as the weight of Reptile",
            lambda curvature, minimum, learning_rate, num_steps: _weighted_means(
                _maml_weight, _fo_maml_weight, lambda a, j: (1 - learning_rate * a) * (1 - j)
            )(curvature, minimum, learning_rate, num_steps),
        ),
        (
            "the sum of curvature times minimum, three times",
            lambda curvature, minimum, learning_rate, num_steps: np.full(3, np.sum(curvature * minimum)),
        ),
    ),
    alternatives=(_by_solving,),
    hints=(
        "Write $J = (1 - \\alpha a)^K$ for each task. Then write each method's direction as a weight times "
        "$(\\theta - m)$, as line 2 does for MAML. The definitions stand at the beginning of the lesson.",
        "If $\\sum_i w_i (\\theta - m_i) = 0$, then $\\theta$ is the mean of the $m_i$ with weights $w_i$.",
    ),
    expected="Three numbers. For the two parabolas with $\\alpha = 0.3$ and $K = 1$ they are the points of the figure "
    "above.",
)

# 03.small_steps -----------------------------------------------------------------------------------------------------


def _fractions(fo_maml=lambda k: 1 / 2, reptile=lambda k: (k - 1) / (4 * k)):
    """A function of the number of inner steps from one formula for each method."""
    return lambda num_steps: np.array([fo_maml(num_steps), reptile(num_steps)])


def _by_counting(num_steps):
    """An alternative: the coefficients of (1 - x)^K, each divided by the first that does not cancel."""
    in_fo_maml, in_reptile = num_steps, math.comb(num_steps, 2) / num_steps
    return np.array([in_fo_maml, in_reptile]) / (2 * num_steps)


SMALL_STEPS = Exercise(
    id="03.small_steps",
    title="How much of the way to MAML?",
    difficulty=2,
    minutes=10,
    reference=_fractions(),
    instances=lambda rng: [(1,), (2,), (5,), (int(rng.integers(6, 50)),)],
    misconceptions=(
        Misconception(
            "Reptile measured against FO-MAML",
            _fractions(reptile=lambda k: (k - 1) / (2 * k)),
            "Your FO-MAML is right. Your fraction for Reptile is twice the target. You may have divided Reptile's $c$ "
            "by that of FO-MAML; the whole way ends at MAML.",
        ),
        Misconception(
            "first factor forgotten in Reptile",
            _fractions(reptile=lambda k: (k - 1) / 4),
            "Your FO-MAML is right. Your fraction for Reptile is $K$ times the target. Its weight begins with "
            "$\\alpha K a$ and not with $a$; was the common factor divided out of both terms?",
        ),
        Misconception(
            "limit of many steps",
            _fractions(reptile=lambda k: 1 / 4),
            "Your fraction for Reptile is the limit for many inner steps. How many pairs of factors are there in the "
            "second-order term of $(1 - \\alpha a)^K$?",
        ),
        Misconception(
            "one pair of steps too many",
            _fractions(reptile=lambda k: (k + 1) / (4 * k)),
            "Your fraction for Reptile has $K + 1$ where the target has another number. With $K = 1$ Reptile is joint "
            "training: does your formula say so?",
        ),
        Misconception(
            "Reptile with the whole second-order term",
            _fractions(reptile=lambda k: (k - 1) / 2),
            "Your fraction for Reptile grows with $K$ and passes 1, so Reptile would go beyond MAML. Compare its $c$ "
            "with MAML's, which grows with $K$ too.",
        ),
        Misconception(
            "FO-MAML all the way",
            _fractions(fo_maml=lambda k: 1.0),
            "Your FO-MAML gets all the way to MAML. How many factors $J$ does each of the two weights contain?",
        ),
        Misconception(
            "Reptile like FO-MAML",
            _fractions(reptile=lambda k: 1 / 2),
            "Your Reptile gets as far as FO-MAML. Expand $J$ to the second order in $\\alpha$ here: the first order "
            "only gives the common factor.",
        ),
        Misconception(
            "Reptile does not move",
            _fractions(reptile=lambda k: 0.0),
            "Your Reptile stays at joint training. This is so for one inner step. For more of them, expand $J$ to the "
            "second order in $\\alpha$.",
        ),
        Misconception(
            "swapped",
            lambda num_steps: np.array([(num_steps - 1) / (4 * num_steps), 1 / 2]),
            "The two fractions are in the opposite order: FO-MAML comes first.",
        ),
        Misconception(
            "the other way round",
            _fractions(fo_maml=lambda k: 2.0, reptile=lambda k: 4 * k / max(k - 1, 1e-300)),
            "Each number of yours is one divided by the target. Which of the two distances is the whole way?",
        ),
    ),
    relatives=(
        (
            "the right fraction for FO-MAML, and a quarter of the number of steps for Reptile",
            _fractions(reptile=lambda k: k / 4),
        ),
        (
            "the right fraction for FO-MAML, and for Reptile what is missing to ¼",
            _fractions(reptile=lambda k: 1 / (4 * k)),
        ),
        (
            "the right fraction for Reptile, and twice as much for FO-MAML",
            _fractions(fo_maml=lambda k: (k - 1) / (2 * k)),
        ),
    ),
    alternatives=(_by_counting,),
    hints=(
        "Take the weights of the last exercise, and write each as a constant times $a\\,(1 - c\\,a)$, up to higher "
        "powers of $\\alpha$.",
        "$(1 - x)^K = 1 - Kx + \\tfrac{K(K-1)}{2} x^2 - \\dots$. For FO-MAML the first power is enough. For "
        "Reptile the 1s cancel, the first power becomes the constant in front, and you need the second power too.",
    ),
    expected="Two numbers, which agree with the figure above for $K = 2$, 5 and 20.",
)

# 03.write_the_test --------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _last_step_only(loss, task, params, learning_rate, num_steps):
    moved = adapt(loss, task.support, params, learning_rate, num_steps - 1)
    return gradient_after(loss, task.support, task.query, moved, learning_rate, 1)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _hessian_at_the_initialization(loss, task, params, learning_rate, num_steps):
    vector = first_order(loss, task, params, learning_rate, num_steps)
    for _ in range(num_steps):
        product = jax.jvp(lambda phi: gradient_at(loss, phi, task.support), (params,), (vector,))[1]
        vector = move(vector, product, learning_rate)
    return vector


def _query_set_twice(loss, task, params, learning_rate, num_steps):
    return gradient_after(loss, task.query, task.query, params, learning_rate, num_steps)


def _doubled(*args):
    return 2 * meta_gradient(*args)


def _negative(*args):
    return -meta_gradient(*args)


def _first_number_only(*args):
    return np.where(np.arange(len(args[2])) == 0, meta_gradient(*args), first_order(*args))


def _first_number_wrong(*args):
    return np.where(np.arange(len(args[2])) > 0, meta_gradient(*args), first_order(*args))


def _reversed(*args):
    return meta_gradient(*args)[::-1]


def _candidate(name, function):
    """A callable of a class of its own, so that a message can name it."""
    return type(name, (), {"__call__": staticmethod(function)})()


_RIGHT = (_candidate("RightGradient", meta_gradient), _candidate("OtherRightGradient", by_recursion))
_SHOWN = (
    _candidate("CandidateA", first_order),
    _candidate("CandidateB", steps_from_the_start),
    _candidate("CandidateC", _last_step_only),
)
_HIDDEN = tuple(
    _candidate(f"HiddenCandidate{number}", function)
    for number, function in enumerate(
        (
            _query_set_twice,
            _hessian_at_the_initialization,
            _doubled,
            _negative,
            _first_number_only,
            _first_number_wrong,
            _reversed,
        ),
        1,
    )
)


def _test(num_steps=3, rate=0.1, change=lambda loss, task: (loss, task), agree=np.allclose, reference=meta_gradient):
    """A learner's test, with what can go wrong in it."""

    def is_exact(candidate, loss, task, params):
        problem = (*change(loss, task), params, rate, num_steps)
        return bool(agree(np.asarray(candidate(*problem)), np.asarray(reference(*problem))))

    return is_exact


@jax.jit
def _parabola(params, batch):
    """A quadratic loss: another curvature in each coordinate."""
    return 0.5 * ((params - batch[1][: len(params)]) ** 2 * (1 + np.arange(len(params)))).sum()


def _finite_differences(loss, task, params, learning_rate, num_steps):
    def after(theta):
        return float(loss(adapt(loss, task.support, theta, learning_rate, num_steps), task.query))

    return np.array([(after(params + d) - after(params - d)) / 2e-5 for d in 1e-5 * np.eye(len(params))])


def _write_the_test_instances(rng):
    candidates = [*_RIGHT, *_SHOWN, *_HIDDEN]
    task, params = curve_task(rng, 5, 5), np.array([1.0, 0.3]) + rng.uniform(-0.2, 0.2, 2)
    return [(candidates[i], wave, task, params) for i in rng.permutation(len(candidates))]


WRITE_THE_TEST = Exercise(
    id="03.write_the_test",
    title="Write the test",
    difficulty=3,
    minutes=15,
    reference=_test(),
    instances=_write_the_test_instances,
    misconceptions=(
        Misconception(
            "one inner step",
            _test(num_steps=1),
            "Your test accepts candidates B and C, and a hidden one, as a test with a single inner step does. With one "
            "step there is only one factor, and it is taken at the initialization. When do the factors differ?",
        ),
        Misconception(
            "no inner step",
            _test(num_steps=0),
            "Your test accepts what it would accept without any inner step, candidate A included. Then nothing is "
            "differentiated through.",
        ),
        Misconception(
            "one set in both roles",
            _test(change=lambda loss, task: (loss, Task(task.support, task.support))),
            "Your test accepts a hidden candidate that adapts on the query set. This happens, for instance, if support "
            "and query set are the same in the test.",
        ),
        Misconception(
            "quadratic loss",
            _test(change=lambda loss, task: (_parabola, task)),
            "Your test accepts a hidden candidate that takes every Hessian at the initialization. On a quadratic loss "
            "this is right, since the Hessian is constant there; another possible cause is a tolerance that is too "
            "wide.",
        ),
        Misconception(
            "direction only",
            _test(agree=lambda a, b: a @ b > (1 - 1e-9) * np.linalg.norm(a) * np.linalg.norm(b)),
            "Your test accepts a hidden candidate that returns twice the gradient. It may look at the direction alone.",
        ),
        Misconception(
            "norm only",
            _test(agree=lambda a, b: np.isclose(np.linalg.norm(a), np.linalg.norm(b))),
            "Your test accepts a hidden candidate that returns the gradient with the opposite sign. It may compare "
            "norms or squares.",
        ),
        Misconception(
            "first number only",
            _test(agree=lambda a, b: np.isclose(a[0], b[0])),
            "Your test accepts a hidden candidate whose first number alone is right. Does your test look at all of "
            "them?",
        ),
        Misconception(
            "FO-MAML as the reference",
            _test(reference=first_order),
            "Your test accepts candidate A alone. The second way to compute the gradient may be FO-MAML itself: is the "
            "inner loop inside the function that you differentiate?",
        ),
        Misconception(
            "the wrong way round",
            _test(agree=lambda a, b: not np.allclose(a, b)),
            "Your test says yes to every wrong candidate and no to the right ones.",
        ),
        Misconception(
            "accepts everything",
            lambda candidate, loss, task, params: True,
            "Your test accepts every candidate. All of them return an array of the right shape, and a small step "
            "against most of them lowers the loss, so neither is evidence. Compare with a second way to compute the "
            "gradient.",
        ),
        Misconception(
            "rejects everything",
            lambda candidate, loss, task, params: False,
            "Your test rejects every candidate, the right ones too. Two ways to compute one number differ by "
            "rounding, so `==` is too strict; it may also be that the second way uses another task, learning rate or "
            "number of steps.",
        ),
    ),
    alternatives=(
        _test(num_steps=2, reference=by_recursion),
        _test(reference=_finite_differences, agree=lambda a, b: np.allclose(a, b, rtol=1e-4)),
    ),
    hints=(
        "Choose an inner learning rate and a number of inner steps, call the candidate with them, and compute the same "
        "gradient in a second way. Which numbers of steps are able to tell B and C from the exact gradient?",
        "The second way may be `jax.grad` of a function that contains the inner loop, `ml.maml`, or finite differences "
        "of the loss after adaptation. `jnp.allclose` compares all numbers, up to rounding.",
    ),
    expected="`True` for `ml.maml`'s gradient, `False` for candidates A, B and C.",
)

# 03.hessian_free ----------------------------------------------------------------------------------------------------


def _hf_maml(difference):
    """HF-MAML with some Hessian-vector product: (support gradient, params, vector, epsilon) -> product."""

    def hessian_free(loss, task, params, learning_rate, epsilon):
        def gradient(phi):
            return gradient_at(loss, phi, task.support)

        vector = gradient_at(loss, move(params, gradient(params), learning_rate), task.query)
        return move(vector, difference(gradient, params, vector, epsilon), learning_rate)

    return hessian_free


def _nested(params, batch):
    """`network` with its parameters in a tuple within a list."""
    (hidden, readout) = params
    return network({"weight": hidden[0], "bias": hidden[1], "readout": readout}, batch)


def _nested_params(rng, width):
    flat = network_params(rng, width)
    return [(flat["weight"], flat["bias"]), flat["readout"]]


def _misplaced_rate(loss, task, params, learning_rate, epsilon, power=0, swap=False):
    """HF-MAML with the learning rate to some power at the correction, or with the two sets swapped."""
    first, second = (task.query, task.support) if swap else (task.support, task.query)
    v = gradient_at(loss, move(params, gradient_at(loss, params, first), learning_rate), second)
    return move(v, _central(lambda phi: gradient_at(loss, phi, first), params, v, epsilon), learning_rate**power)


def _over(scale, after, before):
    return jax.tree.map(lambda a, b: (a - b) / scale, after, before)


def _central(gradient, params, v, e):
    return _over(2 * e, gradient(move(params, v, -e)), gradient(move(params, v, e)))


def _unit(v):
    length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(v)))
    return jax.tree.map(lambda leaf: leaf / length, v)


def _minus(tree):
    return jax.tree.map(lambda leaf: -leaf, tree)


def _elsewhere(loss, task, params, learning_rate, epsilon):
    """The difference taken around the adapted parameters."""
    adapted = move(params, gradient_at(loss, params, task.support), learning_rate)
    v = gradient_at(loss, adapted, task.query)
    return move(v, _central(lambda phi: gradient_at(loss, phi, task.support), adapted, v, epsilon), learning_rate)


def _of_the_query_loss(loss, task, params, learning_rate, epsilon):
    v = gradient_at(loss, move(params, gradient_at(loss, params, task.support), learning_rate), task.query)
    return move(v, _central(lambda phi: gradient_at(loss, phi, task.query), params, v, epsilon), learning_rate)


def _at_the_initialization(loss, task, params, learning_rate, epsilon):
    """The vector is the query gradient at the initialization."""
    v = gradient_at(loss, params, task.query)
    return move(v, _central(lambda phi: gradient_at(loss, phi, task.support), params, v, epsilon), learning_rate)


def _with_ravel(loss, task, params, learning_rate, epsilon):
    """An alternative: the same on one flat vector."""
    start, unravel = jax.flatten_util.ravel_pytree(params)

    def gradient(vector, batch):
        return jax.flatten_util.ravel_pytree(gradient_at(loss, unravel(vector), batch))[0]

    v = gradient(start - learning_rate * gradient(start, task.support), task.query)
    difference = gradient(start + epsilon * v, task.support) - gradient(start - epsilon * v, task.support)
    return unravel(v - learning_rate * difference / (2 * epsilon))


HESSIAN_FREE = Exercise(
    id="03.hessian_free",
    title="MAML without second derivatives",
    difficulty=2,
    minutes=10,
    reference=_hf_maml(_central),
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 0.1),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.5, 0.3),
        (network, curve_task(rng, 6, 4), network_params(rng, 3), 0.1, 0.05),
        (_nested, curve_task(rng, 5, 7), _nested_params(rng, 2), 0.2, 0.1),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            _hf_maml(lambda gradient, params, v, e: jax.tree.map(np.zeros_like, v)),
            "Your result equals $v = \\nabla f(\\varphi_1)$, the FO-MAML gradient. The correction $-\\alpha H v$ is "
            "missing.",
        ),
        Misconception(
            "wrong sign",
            _hf_maml(lambda gradient, params, v, e: _minus(_central(gradient, params, v, e))),
            "Your result is $v + \\alpha H v$. The factor of one inner step is $I - \\alpha H$.",
        ),
        Misconception(
            "forward difference",
            _hf_maml(lambda gradient, params, v, e: _over(e, gradient(move(params, v, -e)), gradient(params))),
            "Your result is that of the one-sided difference, whose error falls like $\\varepsilon$ instead of "
            "$\\varepsilon^2$. The exercise asks for the two-sided one.",
        ),
        Misconception(
            "not halved",
            _hf_maml(
                lambda gradient, params, v, e: _over(e, gradient(move(params, v, -e)), gradient(move(params, v, e)))
            ),
            "Your correction is twice as large as it should be. The two points are $2\\varepsilon v$ apart: what was "
            "the difference divided by?",
        ),
        Misconception(
            "not divided",
            _hf_maml(
                lambda gradient, params, v, e: _over(1.0, gradient(move(params, v, -e)), gradient(move(params, v, e)))
            ),
            "Your correction is the bare difference of two gradients. By which distance should it be divided?",
        ),
        Misconception(
            "direction of length one",
            _hf_maml(lambda gradient, params, v, e: _central(gradient, params, _unit(v), e)),
            "Your correction is $\\alpha H v / \\lVert v \\rVert$, as for a vector $v$ of norm 1. $H v$ is needed "
            "with the norm of $v$ itself.",
        ),
        Misconception(
            "around the adapted parameters",
            _elsewhere,
            "Your Hessian is that at $\\varphi_1$. The factor of a step has the Hessian of the point where the step "
            "*begins*.",
        ),
        Misconception(
            "Hessian of the query loss",
            _of_the_query_loss,
            "Your correction has the Hessian of the query loss. Which loss does the inner step descend?",
        ),
        Misconception(
            "query gradient at the initialization",
            _at_the_initialization,
            "Your $v$ is the query gradient at the initialization. MAML passes back the one at the adapted parameters.",
        ),
        Misconception(
            "correction without the learning rate",
            _misplaced_rate,
            "Your result is $v - H v$. The factor of one inner step is $I - \\alpha H$.",
        ),
        Misconception(
            "learning rate twice",
            functools.partial(_misplaced_rate, power=2),
            "Your result is $v - \\alpha^2 H v$: the learning rate is there twice. The difference needs none.",
        ),
        Misconception(
            "support and query swapped",
            functools.partial(_misplaced_rate, power=1, swap=True),
            "Your result is that of adapting on the query set and scoring on the support set. Which of the two may "
            "adaptation see?",
        ),
    ),
    relatives=(
        (
            "what an inner step uphill gives",
            lambda loss, task, params, learning_rate, epsilon: (
                lambda v: move(
                    v, _central(lambda phi: gradient_at(loss, phi, task.support), params, v, epsilon), learning_rate
                )
            )(gradient_at(loss, move(params, gradient_at(loss, params, task.support), -learning_rate), task.query)),
        ),
        (
            "what a difference along the support gradient gives",
            _hf_maml(lambda gradient, params, v, e: _central(gradient, params, gradient(params), e)),
        ),
        (
            "what a difference of losses gives, where gradients belong",
            lambda loss, task, params, learning_rate, epsilon: _hf_maml(
                lambda gradient, params, v, e: jax.tree.map(
                    lambda leaf: (
                        (loss(move(params, v, -e), task.support) - loss(move(params, v, e), task.support)) / (2 * e)
                        + 0 * leaf
                    ),
                    v,
                )
            )(loss, task, params, learning_rate, epsilon),
        ),
        (
            "what the exact Hessian-vector product gives",
            _hf_maml(lambda gradient, params, v, e: jax.jvp(gradient, (params,), (v,))[1]),
        ),
        (
            "what a difference divided by 2 alone gives",
            _hf_maml(
                lambda gradient, params, v, e: _over(2, gradient(move(params, v, -e)), gradient(move(params, v, e)))
            ),
        ),
        (
            "what a difference divided by 2 and multiplied by ε gives",
            _hf_maml(
                lambda gradient, params, v, e: _over(2 / e, gradient(move(params, v, -e)), gradient(move(params, v, e)))
            ),
        ),
        (
            "what half of the correction gives",
            _hf_maml(
                lambda gradient, params, v, e: _over(4 * e, gradient(move(params, v, -e)), gradient(move(params, v, e)))
            ),
        ),
        (
            "the approximate Hessian-vector product alone",
            lambda loss, task, params, learning_rate, epsilon: (
                lambda gradient: _central(
                    gradient,
                    params,
                    gradient_at(loss, move(params, gradient(params), learning_rate), task.query),
                    epsilon,
                )
            )(lambda phi: gradient_at(loss, phi, task.support)),
        ),
    ),
    alternatives=(_with_ravel,),
    hints=(
        "Compute $\\varphi_1$, then $v = \\nabla f(\\varphi_1)$. The correction needs two more support gradients.",
        "Those two are taken at $\\theta + \\varepsilon v$ and $\\theta - \\varepsilon v$. How far apart are these "
        "points?",
    ),
    expected="A pytree like `params`. With $\\varepsilon = 0.001$ it agrees with `ml.maml` to four digits or more.",
)

EXERCISES = (FIXED_POINTS, SMALL_STEPS, WRITE_THE_TEST, HESSIAN_FREE)

PREDICTIONS = (
    Guess(
        "03.cost",
        "Take 100 inner steps, and count a Hessian-vector product as two gradients. By which factor is MAML more "
        "expensive than FO-MAML?",
        unit="times",
        why="MAML needs one gradient and one Hessian-vector product for each inner step, so three gradients where "
        "FO-MAML needs one. The one query gradient hardly matters.",
        read="What does the backward pass cost?",
    ),
    Guess(
        "03.convergence",
        "MAML converges near 1.8, close to the flat task's minimum, and joint training near −0.6. Where does Reptile "
        "converge, with this single inner step?",
        (
            "where joint training does",
            "between joint training and MAML",
            "where MAML does",
            "beyond MAML, closer still to the flat task",
        ),
        why="After one step $\\theta - \\varphi_1 = \\alpha \\nabla h(\\theta)$. Up to the constant $\\alpha$ this is "
        "the gradient that joint training takes.",
        read="What does the backward pass cost?",
    ),
    Guess(
        "03.half_way",
        "Let the inner learning rate be small. Of the way from joint training's point to MAML's, what fraction does "
        "FO-MAML cover?",
        ("next to nothing", "about a quarter", "about a half", "about three quarters"),
        why="MAML's weight has two factors J, FO-MAML's has one, and joint training's has none. For small α each "
        "factor moves the point by the same amount.",
        read="Every method finds a weighted mean",
    ),
    Guess(
        "03.halved",
        "The inner learning rate α is small, and is halved. What happens to FO-MAML's error?",
        ("it hardly changes", "it is about halved", "it falls to about a quarter"),
        why="Each factor that FO-MAML leaves out differs from the identity by $\\alpha H_k$, so the error is "
        "proportional to α.",
        read="How much of the way to MAML?",
    ),
    Guess(
        "03.suspects",
        "With one inner step instead of several, which of the candidates would be exact?",
        ("none", "only B", "B and C", "all three"),
        why="With one step, the initialization and the point where the step begins are the same, and the last step is "
        "the only one. The mistakes of B and C cannot be seen. A leaves out the only factor.",
        read="Which gradient does this code compute?",
    ),
    Guess(
        "03.epsilon",
        "In float32 one of these values of ε gives the most accurate Hessian-vector product. Which one?",
        ("ε = 0.01", "ε = 0.0001", "ε = 0.000001"),
        why="A smaller ε makes the formula more accurate, but the two gradients become so similar that rounding "
        "dominates their difference. In float32 that begins early.",
        read="MAML without second derivatives",
    ),
    Guess(
        "03.practice",
        "After five inner steps on new sine curves, how does FO-MAML's median query loss compare with MAML's?",
        ("lower", "nearly the same, at most a quarter higher", "more than a quarter higher"),
        why="FO-MAML takes its query gradient after adaptation, as MAML does, so it too learns to adapt. But it leaves "
        "out the factors, and so it converges elsewhere.",
        read="How much of the way to MAML?",
    ),
)

QUIZ = (
    Question(
        "All tasks are quadratic with the same Hessian, and the support and query loss of each are the same. "
        "Compared with MAML, FO-MAML converges",
        (
            "to the same point",
            "to a point nearer to the steep task",
            "to a point nearer to the flat task",
            "nowhere: it diverges",
        ),
        0,
        (
            "Yes: all tasks have one and the same weight, so every method finds the plain mean of the minima.",
            "No task is steeper than another here. What do the weights do then?",
            "No task is flatter than another here. What do the weights do then?",
            "Its mean direction vanishes at the plain mean of the minima, and small outer steps lead there.",
        ),
    ),
    Question(
        "Support and query loss are the same, and the inner learning rate is small. With two inner steps, how many "
        "times as far as Reptile does FO-MAML get on the way from joint training to MAML?",
        (
            "just as far",
            "twice as far",
            "four times as far",
            "Reptile gets nowhere",
        ),
        2,
        (
            "FO-MAML takes its gradient after both inner steps. Where does Reptile take its two gradients?",
            "That is so for very many inner steps. With two of them Reptile gets an eighth of the way.",
            "Yes: a half against an eighth. Of Reptile's two gradients one has seen no inner step, and one has seen "
            "one.",
            "That is so for one inner step. With two, the second gradient is taken after some adaptation.",
        ),
    ),
    Question(
        "What does HF-MAML save, compared with MAML?",
        ("Gradients", "Second derivatives", "The query set", "Inner steps"),
        1,
        (
            "Count again: two gradients replace one Hessian-vector product, which costs about two.",
            "Yes: it needs a function that returns gradients, and nothing that differentiates them.",
            "It needs the query gradient, as MAML does.",
            "It takes the same inner steps.",
        ),
    ),
)


# Figures ------------------------------------------------------------------------------------------------------------

STEEPNESS, MINIMUM = np.array([3.0, 0.5]), np.array([-1.0, 2.0])
_THETA = np.linspace(-1.5, 2.5, 201)
_Array = Float[np.ndarray, "..."]


def converged(
    learning_rate: float, num_steps: int, curvature: Any = STEEPNESS, minimum: Any = MINIMUM
) -> dict[str, _Array]:
    """Where each method converges on quadratic tasks in one dimension; curvature of shape [..., num_tasks]."""
    kept = (1 - learning_rate * np.asarray(curvature)) ** num_steps
    weights = {"joint": curvature, "Reptile": 1 - kept, "FO-MAML": curvature * kept, "MAML": curvature * kept**2}
    return {name: (weight * minimum).sum(-1) / weight.sum(-1) for name, weight in weights.items()}


def loss_after(theta: Any, learning_rate: float, num_steps: int) -> _Array:
    """The mean loss of the steep and the flat task after adaptation from each theta."""
    distance = (1 - learning_rate * STEEPNESS) ** num_steps * (np.asarray(theta)[..., None] - MINIMUM)
    return (0.5 * STEEPNESS * distance**2).mean(-1)


def converged_in_many_dimensions(tasks: Task, learning_rate: float, num_steps: int) -> dict[str, _Array]:
    """Where MAML, FO-MAML and Reptile converge on tasks of `tasks.Quadratic`: one linear system for each method."""
    exact = theory.unrolled(tasks, learning_rate, num_steps)
    support, query = exact.tasks
    moved = np.eye(exact.jacobian.shape[-1]) - exact.jacobian  # θ - φ = moved (θ - minimum)
    offset = np.einsum("tij,tj->ti", moved, support.minimum)  # φ = jacobian θ + offset
    first_order = np.linalg.solve(
        (query.hessian @ exact.jacobian).mean(0),
        np.einsum("tij,tj->ti", query.hessian, query.minimum - offset).mean(0),
    )
    return {
        "MAML": exact.stationary_point(),
        "FO-MAML": first_order,
        "Reptile": np.linalg.solve(moved.mean(0), offset.mean(0)),
    }


def _marked(at: dict[str, Any], learning_rate: float, num_steps: int) -> dict[str, tuple[float, float]]:
    """Points on the curve of `loss_after`, one for all methods whose names would lie on each other."""
    groups: list[list[str]] = []
    for name in sorted(at, key=at.__getitem__):
        if groups and at[name] - at[groups[-1][0]] < 0.25:
            groups[-1].append(name)
        else:
            groups.append([name])
    middle = {", ".join(group): float(np.mean([at[name] for name in group])) for group in groups}
    return {names: (theta, float(loss_after(theta, learning_rate, num_steps))) for names, theta in middle.items()}


def converged_points(found: dict[str, float]) -> None:
    """Shows the mean loss after one inner step, and where each method has converged on it."""
    plots.show(
        plots.lines(
            _THETA,
            {"": loss_after(_THETA, 0.3, 1)},
            "initialization θ",
            "mean loss after one inner step",
            points=_marked(found, 0.3, 1),
            ylim=(-0.15, 2),
        ),
        alt="Mean loss after one inner step against the initialization. MAML's point is the minimum of the curve. "
        "FO-MAML's point lies to the left of it and higher. Joint training and Reptile share one point, still further "
        "to the left and higher.",
        title="Only MAML finds the minimum of the loss after adaptation",
        caption="Mean loss of both tasks after one inner step with α = 0.3, and where four outer loops have converged.",
    )


def order_of_methods() -> None:
    """Shows where each method converges as one of two tasks becomes steeper."""
    steep = np.linspace(0.5, 3.3, 141)
    at = converged(0.3, 3, np.stack([steep, np.full_like(steep, 0.5)], axis=-1), np.array([0.0, 1.0]))
    plots.show(
        plots.lines(
            steep / 0.5,
            {name: at[name] for name in ("MAML", "FO-MAML", "Reptile", "joint")},  # the colours of `practice`
            "curvature of the steep task / curvature of the flat task",
            "point of convergence",
            ylim=(0, 1.05),
        ),
        alt="The points to which four methods converge, against the ratio of the two curvatures. All are at one half "
        "where the curvatures are equal. MAML rises to the flat task. FO-MAML falls a little, and then rises to it as "
        "well. Reptile and joint training fall towards the steep task, Reptile less than joint training.",
        title="With two tasks the order is the same at every ratio of curvatures",
        caption="Where each method converges, from the steep task's minimum (0) to the flat task's (1). α = 0.3, K = "
        "3.",
    )


def reptile_as_mean() -> None:
    """Shows that Reptile averages FO-MAML's directions along the inner loop."""
    sheet = diagrams.Drawing(620, 190)
    xs = (64, 187, 310, 433, 556)
    for k, x in enumerate(xs):
        if k:
            sheet.arrow((xs[k - 1] + 23, 40), (x - 24, 40))
        sheet.node(x, 40, ("θ", "φ₁", "φ₂", "φ₃", "φ₄")[k], filled=not k)
    for k, x in enumerate(xs[:-1]):
        sheet.arrow((x, 63), (x, 98), diagrams.ORANGE)
        sheet.text(x, 116, ("∇h(θ)", "∇h(φ₁)", "∇h(φ₂)", "∇h(φ₃)")[k], diagrams.ORANGE)
        sheet.text(x, 137, f"FO-MAML, K = {k}" if k else "joint training", diagrams.MUTED, size=13)
    sheet.path([(xs[0] - 50, 148), (xs[0] - 50, 155), (xs[3] + 56, 155), (xs[3] + 56, 148)], diagrams.ORANGE)
    sheet.text((xs[0] + xs[3]) / 2, 180, "their mean: (θ − φ₄) / 4α, Reptile", diagrams.ORANGE, bold=True)
    diagrams.show(
        sheet.svg(),
        alt="Four inner steps lead from theta to phi four. Under theta and each of phi one to phi three stands the "
        "support gradient at this point: under theta joint training's direction, and under the others that of FO-MAML "
        "with one, two and three inner steps. A bracket joins the four as Reptile's direction, their mean.",
        title="Reptile averages the directions of joint training and FO-MAML",
        caption="An inner loop with K = 4, for a task whose support and query loss are the same.",
    )


def own_tasks(curvature: _Array, minimum: _Array, learning_rate: float, num_steps: int) -> None:
    """Shows where the four methods converge on some quadratic tasks, and whether FO-MAML is between two of them.

    Raises:
      ValueError: if the arrays are not of one shape [num_tasks], or a curvature is not between 0 and 1 / learning_rate.
    """
    curvature, minimum = np.asarray(curvature, float), np.asarray(minimum, float)
    if curvature.ndim != 1 or curvature.shape != minimum.shape or not len(curvature):
        raise ValueError(
            f"give one curvature and one minimum for each task; the shapes are {curvature.shape} and {minimum.shape}."
        )
    if not ((curvature > 0) & (learning_rate * curvature < 1)).all():
        raise ValueError(f"each curvature must be between 0 and {1 / learning_rate:.3g}, but they are {curvature}.")
    at = {name: float(point) for name, point in converged(learning_rate, num_steps, curvature, minimum).items()}
    low, high = sorted((at["joint"], at["MAML"]))
    outside = not low - 1e-9 <= at["FO-MAML"] <= high + 1e-9
    plots.table(
        {"converges to": list(at.values())},
        ("", *at),
        title="FO-MAML is outside: you have found such tasks"
        if outside
        else "FO-MAML is between joint training and MAML",
        caption=f"{len(curvature)} quadratic tasks, α = {learning_rate:g}, K = {num_steps}.",
    )


OWN_RATES = (0.001, 0.5)
"""Small and large inner learning rates for a learner's own tasks, as parts of one over their largest curvature."""


def own_points(my_task: Callable[[Any], Task], relative_rate: float, num_steps: int = 3) -> dict[str, _Array]:
    """Where four methods converge if they fit straight lines to twenty tasks of the learner's distribution.

    All points of a task are its support and its query set, so both losses of a task are one.

    Args:
      my_task: function of a key that returns one task.
      relative_rate: the inner learning rate times the largest curvature of any of these tasks.
      num_steps: K.

    Returns:
      Method -> intercept and slope of its initialization, shape [2].

    Raises:
      own.Unusable: if these are no tasks that anything can be learned from.
    """
    drawn = own.scaled(own.tasks(my_task))
    points = tuple(np.concatenate([half[i][:20] for half in drawn], axis=1) for i in (0, 1))
    tasks = own.as_quadratic(Task(points, points))
    rate = relative_rate / np.linalg.eigvalsh(tasks.support.hessian).max()
    joint = theory.unrolled(tasks, rate, 0).stationary_point()
    return {"joint": joint, **converged_in_many_dimensions(tasks, rate, num_steps)}


def part_of_the_way(point: Any, joint: Any, maml: Any) -> Any:
    """Which part of the way from `joint` to `maml` a point is, measured along this way."""
    way = maml - joint
    return (point - joint) @ way / (way @ way)


_WRONG_PARTS = (
    (
        lambda point, joint, maml: np.linalg.norm(point - joint) / np.linalg.norm(maml - joint),
        "Your result equals the ratio of two distances. A point beside the way, or behind its beginning, would count "
        "as progress. Which part of `point - joint` lies along the way?",
    ),
    (
        lambda point, joint, maml: 1 - part_of_the_way(point, joint, maml),
        "Your result is 1 at joint training's point and 0 at MAML's. Measure from the other end.",
    ),
    (
        lambda point, joint, maml: (point - joint) @ (maml - joint),
        "Your result equals the inner product alone. By what must it be divided, so that it is 1 at MAML's point?",
    ),
    (
        lambda point, joint, maml: (point - joint) @ (maml - joint) / np.linalg.norm(maml - joint),
        "Your result is a distance along the way, and not a part of it. Divide by the length of the way once more.",
    ),
    (
        lambda point, joint, maml: point @ (maml - joint) / ((maml - joint) @ (maml - joint)),
        "Your result measures from the origin. The way begins at joint training's point.",
    ),
)


def own_way(my_task: Callable[[Any], Task], way: Callable[[Any, Any, Any], Any]) -> str:
    """Measures with the learner's function how far FO-MAML and Reptile get on the learner's tasks.

    Args:
      my_task: function of a key that returns one task.
      way: function of (point, joint, maml) that returns a number.

    Returns:
      "passed", "not yet" or "failed".
    """
    try:
        found = [own_points(my_task, rate) for rate in OWN_RATES]
    except own.Unusable as error:
        return own.told("failed", str(error))
    tried = [tuple(points) for points in np.random.default_rng(0).normal(0, 2, (4, 3, 2))]
    try:
        answers = [way(*points) for points in tried]
    except NotImplementedError:
        answers = [None]
    except Exception as error:
        return own.told("failed", f"`way` raised {type(error).__name__}: {error}")
    if any(answer is None for answer in answers):
        return own.told("not yet", "Your tasks are fine. Now let `way` return the fraction of the way.")
    if any(np.shape(answer) for answer in answers):
        return own.told("failed", "`way` must return one number, but it returned an array.")
    if not np.allclose(answers, [part_of_the_way(*points) for points in tried]):
        told = [text for wrong, text in _WRONG_PARTS if np.allclose(answers, [wrong(*points) for points in tried])]
        return own.told(
            "failed", told[0] if told else "This is not yet the fraction of the way: it is 0 at `joint`, 1 at `maml`."
        )
    length = np.linalg.norm(found[0]["MAML"] - found[0]["joint"])
    if length < 1e-9:
        message = (
            "On your tasks MAML and joint training converge to the same point, as they do where every task has the "
            "same inputs and with them the same curvature. So nothing is lost here by taking the cheapest method."
        )
        return own.told("passed", message, my_task)
    plots.table(
        {
            name: [float(way(points[name], points["joint"], points["MAML"])) for points in found]
            for name in ("FO-MAML", "Reptile")
        },
        ("fraction of the way", "small α", "large α"),
        title="How far FO-MAML and Reptile come on your tasks",
        caption="Straight lines fitted to twenty of your tasks, K = 3. α is "
        + " and ".join(f"{rate:g}" for rate in OWN_RATES)
        + " divided by the largest curvature.",
        digits=2,
    )
    return own.told("passed", "This is the fraction of the way.", my_task)


SEEN = "Mean loss after adaptation, and the points to which the four methods converge."


def explored(learning_rate: float, inner_steps: int) -> Figure:
    """The mean loss after adaptation, and the points to which the four methods converge."""
    return plots.lines(
        _THETA,
        {"": loss_after(_THETA, learning_rate, inner_steps)},
        "initialization θ",
        "mean loss after adaptation",
        points=_marked(converged(learning_rate, inner_steps), learning_rate, inner_steps),
        ylim=(-0.15, 2),
    )


def fraction_of_the_way(rates: Any, curvature: Any, minimum: Any) -> dict[str, _Array]:
    """How far FO-MAML and Reptile get from joint training to MAML, for each inner learning rate."""
    found: dict[str, list[float]] = {}
    for num_steps in (20, 5, 2):
        for rate in rates:
            at = converged(rate, num_steps, curvature, minimum)
            way = at["MAML"] - at["joint"]
            found.setdefault(f"Reptile, K = {num_steps}", []).append((at["Reptile"] - at["joint"]) / way)
            if num_steps == 5:
                found.setdefault("FO-MAML, K = 5", []).append((at["FO-MAML"] - at["joint"]) / way)
    return {name: np.array(found[name]) for name in sorted(found)}


def _without_maml() -> Axes:
    """Axes whose first colour is taken, so that the other methods have the colours that they have beside MAML."""
    _, (axes,) = plots.subplots()
    axes.plot([], [])
    return axes


def way_to_maml(rates: Any, fractions: dict[str, _Array]) -> None:
    """Shows the fractions of `fraction_of_the_way`."""
    plots.show(
        plots.lines(
            rates,
            fractions,
            "inner learning rate α",
            "fraction of the way to MAML",
            log="x",
            ylim=(0, 0.6),
            axes=_without_maml(),
        ),
        alt="The fraction of the way from joint training to MAML against the inner learning rate, on a logarithmic "
        "axis. Towards small learning rates FO-MAML's curve tends to one half. Reptile's curves tend to one eighth "
        "for two inner steps, one fifth for five, and nearly one quarter for twenty.",
        title="For a small α FO-MAML gets half way to MAML, Reptile at most a quarter",
        caption="Twenty quadratic tasks with equal support and query loss. 0 is joint training's point, 1 is MAML's.",
    )


def errors(rates: Any, norms: dict[str, Sequence[float]]) -> None:
    """Shows the norm of the exact meta-gradient where each method converges, against the inner learning rate."""
    plots.show(
        plots.lines(
            rates,
            {name: np.array(norms[name]) for name in ("FO-MAML", "Reptile")},
            "inner learning rate α",
            "error: norm of the meta-gradient where the method converges",
            log="xy",
            axes=_without_maml(),
        ),
        alt="Norm of the exact meta-gradient at the point to which each method converges, against the inner learning "
        "rate, both axes logarithmic. As the learning rate falls, FO-MAML's curve falls, in the end in proportion to "
        "it. Reptile's curve rises and then levels off.",
        title="FO-MAML's error vanishes with α, Reptile's does not",
        caption="Twenty tasks in five dimensions whose query losses differ from their support losses, K = 3.",
    )


def difference_errors(epsilons: Any, float64: Any, float32: Any) -> None:
    """Shows the relative error of a Hessian-vector product by finite differences."""
    plots.show(
        plots.lines(
            epsilons,
            {"float64": float64, "float32": float32},
            "ε",
            "relative error of the Hessian-vector product",
            log="xy",
        ),
        alt="Relative error of the Hessian-vector product against epsilon, both axes logarithmic. From right to left "
        "both curves fall with slope two. Then rounding takes over and they rise, in float32 much earlier than in "
        "float64.",
        title="With a large ε the difference is coarse, and with a tiny one only rounding is left",
        caption="A Hessian-vector product of the sine wave's loss by finite differences, against the exact one.",
    )


def practice(curves: dict[str, Any]) -> None:
    """Shows median query losses against inner steps, from [6, num_tasks] for each method."""
    plots.show(
        plots.lines(
            np.arange(6),
            {name: np.median(values, axis=1) for name, values in curves.items()},
            "inner steps",
            "median query loss (squared error)",
            log="y",
        ),
        alt="Median query loss against inner steps from three initializations, on a logarithmic axis. All fall within "
        "five steps. MAML's curve is the lowest there.",
        title="All three learn to adapt, and MAML does so best",
        caption="Median over 1,000 new sine curves. Trained for five inner steps with α = 0.01.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: where MAML, FO-MAML, Reptile and joint training converge on two quadratic tasks."""
    learning_rate, num_steps = 0.1, 3
    theta = np.linspace(-1.2, 2.2, 200)
    left = diagrams.plot(
        theta,
        {"": loss_after(theta, learning_rate, num_steps)},
        "initialization θ",
        f"mean loss after {num_steps} steps",
        points={
            name: (at, loss_after(at, learning_rate, num_steps))
            for name, at in converged(learning_rate, num_steps).items()
        },
    )
    return diagrams.opening(
        left,
        diagrams.shortcuts(),
        ("Cheaper, but converged to other points", "What each method takes back to θ"),
        (
            "Four methods on two quadratic tasks, with α = 0.1 and K = 3.",
            "FO-MAML and Reptile leave out the backward pass.",
        ),
        "Left: mean loss after adaptation against the initialization. MAML converges to its minimum; joint training, "
        "Reptile and FO-MAML to other points. Right: MAML takes the query gradient back through every factor, FO-MAML "
        "treats every factor as the identity, and Reptile only looks at how far adaptation went.",
    )
