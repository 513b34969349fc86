"""Exercises, predictions, quiz and figures of lesson 08, the adjoint method."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons.adaptation import (
    cosines,
    curve_task,
    gradient_at,
    line_task,
    path_of,
    points_task,
    regression,
    wave,
)
from metalearn.course.widgets import diagrams
from metalearn.meta_gradients.a_maml import TSITOURAS
from metalearn.task import Task
from metalearn.tasks.quadratic import QuadraticBatch

# 08.flow_gradient ---------------------------------------------------------------------------------------------------


def _by_theory(support_hessian, support_minimum, query_hessian, query_minimum, initialization, training_time):
    """The reference: the library's closed form, for a batch of one task."""
    support = QuadraticBatch(support_hessian[None], support_minimum[None])
    query = QuadraticBatch(query_hessian[None], query_minimum[None])
    return ml.theory.flow(Task(support, query), training_time).task_gradients(initialization)[0]


def _matrix_exponential(matrix):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.exp(eigenvalues)) @ vectors.T


def _flow(
    exponential=_matrix_exponential,
    adapted=lambda J, m, q, initialization: m + J @ (initialization - m),
    carry=lambda J, A, offset: J @ (A @ offset),
):
    """The meta-gradient from its three parts, each of which a misconception may replace."""

    def gradient(support_hessian, support_minimum, query_hessian, query_minimum, initialization, training_time):
        J = exponential(-training_time * support_hessian)
        end = adapted(J, support_minimum, query_minimum, initialization)
        return carry(J, query_hessian, end - query_minimum)

    return gradient


def _transposed_eigenvectors(matrix):
    eigenvalues, vectors = np.linalg.eigh(-matrix)  # in the order of those of H
    return (vectors.T * np.exp(-eigenvalues)) @ vectors


def _with_absolute_curvatures(matrix):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.exp(-np.abs(eigenvalues))) @ vectors.T


def _absolute(matrix):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.abs(eigenvalues)) @ vectors.T


def _one_time_unit(support_hessian, support_minimum, query_hessian, query_minimum, initialization, training_time):
    return _flow()(support_hessian, support_minimum, query_hessian, query_minimum, initialization, 1.0)


def _exponential_of_the_query_hessian(
    support_hessian, support_minimum, query_hessian, query_minimum, initialization, training_time
):
    J = _matrix_exponential(-training_time * query_hessian)
    return J @ query_hessian @ (support_minimum + J @ (initialization - support_minimum) - query_minimum)


def _in_eigenvectors(support_hessian, support_minimum, query_hessian, query_minimum, initialization, training_time):
    """An alternative: each coordinate decays at its own rate, there and back."""
    rates, basis = jnp.linalg.eigh(support_hessian)
    decay = jnp.exp(-training_time * rates)
    end = support_minimum + basis @ (decay * (basis.T @ (initialization - support_minimum)))
    return basis @ (decay * (basis.T @ (query_hessian @ (end - query_minimum))))


def _by_squaring(support_hessian, support_minimum, query_hessian, query_minimum, initialization, training_time):
    """An alternative: the limit of many small factors, two Taylor terms each."""
    small = -training_time * support_hessian / 2**20
    J = np.eye(len(initialization)) + small + small @ small / 2
    for _ in range(20):
        J = J @ J
    return J @ query_hessian @ (support_minimum + J @ (initialization - support_minimum) - query_minimum)


def _symmetric(rng, eigenvalues):
    basis = np.linalg.qr(rng.normal(0, 1, (len(eigenvalues), len(eigenvalues))))[0]
    return (basis * eigenvalues) @ basis.T


def _quadratic_instance(rng, dim, training_time, lowest=0.2, lowest_query=0.2):
    def curved(lowest):
        curvatures = rng.uniform(0.2, 1.5, dim)
        curvatures[0] = lowest
        return _symmetric(rng, curvatures)

    minima = rng.normal(0, 1, (3, dim))  # of the support loss, of the query loss, and the initialization
    return curved(lowest), minima[0], curved(lowest_query), minima[1], minima[2], training_time


FLOW_GRADIENT = Exercise(
    id="08.flow_gradient",
    title="Your line of the derivation: a quadratic",
    difficulty=2,
    minutes=10,
    reference=_by_theory,
    instances=lambda rng: [
        _quadratic_instance(rng, 2, 0.7),
        _quadratic_instance(rng, 3, 2.0, lowest=-0.4, lowest_query=-0.7),
        _quadratic_instance(rng, 1, 1.3),
        _quadratic_instance(rng, 6, float(rng.uniform(0.4, 0.9)), lowest=0.0, lowest_query=-0.3),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            _flow(carry=lambda J, A, offset: A @ offset),
            "Your result equals the query gradient at the end of the flow, $A (\\varphi(T) - q)$. The inner derivative "
            "$d\\varphi(T)/d\\theta$ from line 1 may be missing.",
        ),
        Misconception(
            "exponential of each entry",
            _flow(exponential=np.exp),
            "Your result is the one for the exponential of each *entry* of the matrix. The matrix exponential maps the "
            "*eigenvalues*.",
        ),
        Misconception(
            "growth instead of decay",
            _flow(exponential=lambda matrix: _matrix_exponential(-matrix)),
            "Your result is the one for $e^{+TH}$, which grows with $T$. The flow goes downhill: which sign must "
            "the exponent have?",
        ),
        Misconception(
            "absolute curvatures",
            _flow(exponential=_with_absolute_curvatures),
            "Your result is right as long as no curvature is negative. Where one is, the flow runs away from $m$: is "
            "there an absolute value in your exponent?",
        ),
        Misconception(
            "eigenvectors transposed",
            _flow(exponential=_transposed_eigenvectors),
            "The matrix of eigenvectors seems to stand on the wrong side of the eigenvalues. `eigh` returns them as "
            "*columns*: which product with a diagonal matrix gives back $H$?",
        ),
        Misconception(
            "query Hessian in the exponential",
            _exponential_of_the_query_hessian,
            "Your result is the one with the query Hessian in the exponential. Which loss does the flow descend?",
        ),
        Misconception(
            "initialization not centred",
            _flow(adapted=lambda J, m, q, initialization: J @ initialization),
            "Your result is the one for $\\varphi(T) = e^{-TH}\\theta$, a flow towards the origin. Compare with line "
            "1.",
        ),
        Misconception(
            "flow to the query minimum",
            _flow(adapted=lambda J, m, q, initialization: q + J @ (initialization - q)),
            "Your result is the one for a flow towards the query minimum $q$. Adaptation may use the support set only.",
        ),
        Misconception(
            "query gradient at the initialization",
            _flow(adapted=lambda J, m, q, initialization: initialization),
            "Your result is the one with the query gradient at $\\theta$. Line 2 evaluates the query loss at the end "
            "of the flow.",
        ),
        Misconception(
            "factors in the wrong order",
            _flow(carry=lambda J, A, offset: A @ (J @ offset)),
            "Your result has the two matrices in the wrong order: $e^{-TH}$ and $A$ do not commute. Which of them "
            "acts on $\\varphi(T) - q$ first?",
        ),
        Misconception(
            "training time forgotten",
            _one_time_unit,
            "Your result is the one for $T = 1$. Where does the inner training time enter?",
        ),
        Misconception(
            "one long step",
            _flow(exponential=lambda matrix: np.eye(len(matrix)) + matrix),
            "Your result is the one for $I - TH$, a single gradient step of size $T$, in place of the limit of many "
            "small ones.",
        ),
    ),
    relatives=(
        (
            "what the inverse of I + TH gives in place of the exponential",
            _flow(exponential=lambda matrix: np.linalg.inv(np.eye(len(matrix)) - matrix)),
        ),
        (
            "what φ(T) = m + exp(-TH) θ gives, where m is not subtracted from θ",
            _flow(adapted=lambda J, m, q, initialization: m + J @ initialization),
        ),
        (
            "what exponentials give on both sides of the query Hessian",
            _flow(carry=lambda J, A, offset: J @ (A @ (J @ offset))),
        ),
        ("what the Jacobian gives without the query Hessian", _flow(carry=lambda J, A, offset: J @ offset)),
        (
            "what the two losses give with their roles exchanged",
            lambda H, m, A, q, initialization, T: _flow()(A, q, H, m, initialization, T),
        ),
        (
            "the adapted parameters",
            lambda H, m, A, q, initialization, T: m + _matrix_exponential(-T * H) @ (initialization - m),
        ),
        (
            "what two exponentials give in front, where one belongs",
            _flow(carry=lambda J, A, offset: J @ J @ (A @ offset)),
        ),
        (
            "what the query Hessian gives with the absolute values of its curvatures",
            lambda H, m, A, q, initialization, T: _flow()(H, m, _absolute(A), q, initialization, T),
        ),
        (
            "what the exponentials of the eigenvalues give on the diagonal, without the eigenvectors",
            _flow(exponential=lambda matrix: np.diag(np.exp(np.linalg.eigvalsh(matrix)[::-1]))),
        ),
        (
            "what the displacement gives from the initialization to the minimum, with the sign turned round",
            _flow(adapted=lambda J, m, q, initialization: m + J @ (m - initialization)),
        ),
    ),
    alternatives=(_in_eigenvectors, _by_squaring),
    hints=(
        "By line 1, moving $\\theta$ by a small vector moves $\\varphi(T)$ by $e^{-TH}$ times that vector. Apply the "
        "chain rule to line 2, and note that $e^{-TH}$ is symmetric.",
        "With `eigenvalues, vectors = np.linalg.eigh(H)`, the matrix `vectors @ np.diag(eigenvalues) @ vectors.T` is "
        "$H$ again. Map the eigenvalues before you multiply.",
    ),
    expected="An array like the initialization, the same as `ml.theory.flow(tasks, T).task_gradients(theta)` for that "
    "task.",
)

# 08.adjoint_sweep ---------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _hessian(loss, u, batch):
    return jax.hessian(loss)(u, batch)


def _heun(a_at, b_at, vector, p, h):
    """One step back with Heun's rule, from two Hessians."""
    a = a_at @ p
    b = b_at @ vector(p, a, h)
    return p - h * (a + b) / 2


def _ahead(p, a, h):
    return p - h * a


def _intervals(path, skip_first=0, skip_last=0):
    """The two ends of each interval, the later one first, from the last interval to the first."""
    return [(path[k + 1], path[k]) for k in reversed(range(skip_first, len(path) - 1 - skip_last))]


def _sweep(
    step=lambda later, earlier, p, h: _heun(later, earlier, _ahead, p, h),
    final=lambda loss, task, path: gradient_at(loss, path[-1], task.query),
    hessian_of=lambda task: task.support,
    ends=_intervals,
):
    """The sweep from its parts, each of which a misconception may replace."""

    def sweep(loss, task, path, learning_rate):
        p = np.asarray(final(loss, task, path))
        for later, earlier in ends(path):
            hessians = (np.asarray(_hessian(loss, u, hessian_of(task))) for u in (later, earlier))
            p = step(*hessians, p, learning_rate)
        return p

    return sweep


@functools.partial(jax.jit, static_argnums=0)
def _by_scan(loss, task, path, learning_rate):
    """An alternative: one scan, with Hessian-vector products as derivatives of an inner product."""

    def times(u, vector):
        return jax.grad(lambda u: jnp.vdot(jax.grad(loss)(u, task.support), vector))(u)

    def back(p, ends):
        earlier, later = ends
        guess = p - learning_rate * times(later, p)
        return (p + guess - learning_rate * times(earlier, guess)) / 2, None

    return jax.lax.scan(back, jax.grad(loss)(path[-1], task.query), (path[:-1], path[1:]), reverse=True)[0]


def _with_matrices(loss, task, path, learning_rate):
    """An alternative: the matrix of each step, multiplied from the first to the last."""
    product = np.eye(path.shape[1])
    for earlier, later in itertools.pairwise(path):
        before, after = (learning_rate * _hessian(loss, u, task.support) for u in (earlier, later))
        product = product @ (np.eye(path.shape[1]) - (before + after) / 2 + before @ after / 2)
    return product @ gradient_at(loss, path[-1], task.query)


def _stored(rng, loss, task, start, learning_rate, num_steps):
    """A stored trajectory: gradient steps, each a little off, since the sweep must work along any trajectory."""
    path = np.array(path_of(loss, task.support, start, learning_rate, num_steps))
    return loss, task, path + rng.normal(0, 0.05, path.shape), learning_rate


def _midpoint(loss, task, path, learning_rate):
    p = np.asarray(gradient_at(loss, path[-1], task.query))
    for later, earlier in _intervals(path):
        hessian = np.asarray(_hessian(loss, (later + earlier) / 2, task.support))
        p = p - learning_rate * hessian @ (p - learning_rate / 2 * hessian @ p)
    return p


ADJOINT_SWEEP = Exercise(
    id="08.adjoint_sweep",
    title="One backward sweep",
    difficulty=2,
    minutes=15,
    reference=_sweep(),
    instances=lambda rng: [
        _stored(rng, wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        _stored(rng, cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.5, 5),
        _stored(rng, regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), 0.2, 1),
        _stored(rng, wave, curve_task(rng, 4, 3), rng.normal(1, 0.3, 2), 0.2, 0),
    ],
    misconceptions=(
        Misconception(
            "Euler steps",
            _sweep(step=lambda later, earlier, p, h: p - h * (later @ p)),
            "Your result is that of Euler steps, which use one derivative. A Heun step evaluates a second one where "
            "the Euler step would arrive.",
        ),
        Misconception(
            "Euler steps with the earlier Hessian",
            _sweep(step=lambda later, earlier, p, h: p - h * (earlier @ p)),
            "Your result is the product of the factors $I - \\alpha H(\\varphi_k)$ of lesson 02, with one derivative "
            "for each step. A Heun step takes two.",
        ),
        Misconception(
            "wrong sign",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, _ahead, p, -h)),
            "Your $p$ grows where the curvature is positive. The adjoint equation is solved towards *smaller* $t$: "
            "which sign does the step have?",
        ),
        Misconception(
            "forward order",
            _sweep(ends=lambda path: _intervals(path)[::-1]),
            "Your result is that of a sweep from $\\varphi_0$ to $\\varphi_K$. It has to begin where $p$ is known, at "
            "time $T$.",
        ),
        Misconception(
            "both Hessians at the later point",
            _sweep(step=lambda later, earlier, p, h: _heun(later, later, _ahead, p, h)),
            "Both derivatives seem to use the Hessian at $\\varphi_{k+1}$. The second one belongs to the point where "
            "the step *arrives*.",
        ),
        Misconception(
            "both Hessians at the earlier point",
            _sweep(step=lambda later, earlier, p, h: _heun(earlier, earlier, _ahead, p, h)),
            "Both derivatives seem to use the Hessian at $\\varphi_k$. The first one belongs to the point where the "
            "step *begins*: going back, which point is that?",
        ),
        Misconception(
            "Hessians swapped",
            _sweep(step=lambda later, earlier, p, h: _heun(earlier, later, _ahead, p, h)),
            "The two Hessians seem to be swapped. Going back, the step begins at $\\varphi_{k+1}$ and arrives at "
            "$\\varphi_k$.",
        ),
        Misconception(
            "second derivative without the step",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, lambda p, a, h: p, p, h)),
            "In your result the second Hessian multiplies $p$ itself, in place of $p - \\alpha a$, where the Euler "
            "step would arrive.",
        ),
        Misconception(
            "not halved",
            _sweep(step=lambda later, earlier, p, h: p - h * (later @ p) - h * (earlier @ (p - h * (later @ p)))),
            "Your result is that of the *sum* of the two derivatives, in place of their mean.",
        ),
        Misconception(
            "Hessian of the query loss",
            _sweep(hessian_of=lambda task: task.query),
            "Your result is the one with Hessians of the query loss. Which loss does the flow descend?",
        ),
        Misconception(
            "final gradient at the initialization",
            _sweep(final=lambda loss, task, path: gradient_at(loss, path[0], task.query)),
            "Your result is the one that begins with the query gradient at $\\varphi_0$. Where is $p(T)$ evaluated?",
        ),
        Misconception(
            "final gradient of the support loss",
            _sweep(final=lambda loss, task, path: gradient_at(loss, path[-1], task.support)),
            "Your result is the one that begins with the support gradient. Which loss scores the adapted parameters?",
        ),
        Misconception(
            "no sweep",
            _sweep(ends=lambda path: []),
            "Your result equals $p(T)$, the gradient of FO-MAML. Is the loop ever entered?",
        ),
        Misconception(
            "last interval missing",
            _sweep(ends=lambda path: _intervals(path, skip_last=1)),
            "The interval next to $T$ seems to be missing. A trajectory of $K + 1$ points has $K$ intervals.",
        ),
        Misconception(
            "first interval missing",
            _sweep(ends=lambda path: _intervals(path, skip_first=1)),
            "Your sweep seems to stop one interval early. A trajectory of $K + 1$ points has $K$ intervals.",
        ),
    ),
    relatives=(
        (
            "what the midpoint rule gives, with Hessians half way between two points",
            lambda loss, task, path, learning_rate: _midpoint(loss, task, path, learning_rate),
        ),
        (
            "what Heun's rule gives with a guess in the other direction",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, lambda p, a, h: p + h * a, p, h)),
        ),
        (
            "what Heun's rule gives with a guess of half a step",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, lambda p, a, h: p - h * a / 2, p, h)),
        ),
        (
            "what steps give that add the derivatives after a right guess",
            _sweep(step=lambda later, earlier, p, h: p + h * (later @ p + earlier @ (p - h * (later @ p))) / 2),
        ),
        (
            "what the second derivative alone gives",
            _sweep(step=lambda later, earlier, p, h: p - h * (earlier @ (p - h * (later @ p)))),
        ),
        (
            "what Heun's rule gives if the mean of the derivatives is applied to the guess",
            _sweep(
                step=lambda later, earlier, p, h: (
                    (p - h * (later @ p)) - h * (later @ p + earlier @ (p - h * (later @ p))) / 2
                )
            ),
        ),
        (
            "what the mean of the derivatives gives without the step α",
            _sweep(step=lambda later, earlier, p, h: p - (later @ p + earlier @ (p - h * (later @ p))) / 2),
        ),
        (
            "what a whole step with the first derivative and half a step with the second give",
            _sweep(step=lambda later, earlier, p, h: (p - h * (later @ p)) - h * (earlier @ (p - h * (later @ p))) / 2),
        ),
    ),
    alternatives=(_by_scan, _with_matrices),
    hints=(
        "Begin with $p = \\nabla f(\\varphi_K)$ and go through $k = K - 1, \\dots, 0$. The step from $\\varphi_{k+1}$ "
        "to $\\varphi_k$ needs two Hessian-vector products.",
        "A Hessian-vector product is the derivative of the support gradient in one direction: `jax.jvp` of "
        "`jax.grad(loss)`. Towards smaller $t$, the step is $p$ minus $\\alpha$ times a mean of two derivatives.",
    ),
    expected="An array like one point of the trajectory. For small $\\alpha$ it approaches the gradient of the flow.",
)

# 08.longest_training_time -------------------------------------------------------------------------------------------


def _longest(rate=lambda eigenvalues: eigenvalues[-1], span=lambda error, tolerance: np.log(tolerance / error)):
    """The time from its two parts: how fast errors grow, and by how many powers of e they may."""

    def longest(hessian, error, tolerance):
        return span(error, tolerance) / rate(np.linalg.eigvalsh(hessian))

    return longest


def _by_growth(hessian, error, tolerance):
    """An alternative: what one unit of time does to the worst error, as a matrix norm."""
    growth = np.linalg.norm(_matrix_exponential(0.01 * hessian), 2)
    return 0.01 * (math.log(tolerance) - math.log(error)) / math.log(growth)


def _by_inverting(hessian, error, tolerance):
    """An alternative: the largest T at which the error, integrated backwards, is still below the tolerance."""
    curvatures = np.linalg.eigvalsh(hessian)
    low, high = 0.0, 1.0
    while error * np.exp(high * curvatures).max() < tolerance:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if error * np.exp(middle * curvatures).max() < tolerance else (low, middle)
    return low


LONGEST_TRAINING_TIME = Exercise(
    id="08.longest_training_time",
    title="How long may the inner training time be?",
    difficulty=1,
    minutes=5,
    reference=_longest(),
    instances=lambda rng: [
        (np.diag([20.0, 1.0]), 2e-16, 1.0),
        (_symmetric(rng, rng.uniform(0.5, 4, 3)), 1e-7, float(rng.uniform(0.01, 0.1))),
        (_symmetric(rng, np.array([-6.0, -0.5, 1.0, 2.5])), 1e-12, float(rng.uniform(2, 5))),
        (_symmetric(rng, rng.uniform(0.5, 4, 2)), float(rng.uniform(0.1, 0.2)), float(rng.uniform(0.5, 2))),
    ],
    misconceptions=(
        Misconception(
            "smallest curvature",
            _longest(rate=lambda eigenvalues: eigenvalues[0]),
            "Your result is the one with the smallest eigenvalue. In which direction does an error grow fastest?",
        ),
        Misconception(
            "largest absolute value",
            _longest(rate=lambda eigenvalues: np.abs(eigenvalues).max()),
            "Your result is the one with the largest *absolute* eigenvalue. Where the curvature is negative, the flow "
            "pushes points apart. What does integrating it backwards do to an error there?",
        ),
        Misconception(
            "mean curvature",
            _longest(rate=np.mean),
            "Your result is the one with the mean eigenvalue. The error has an unknown direction, so plan for the "
            "worst.",
        ),
        Misconception(
            "trace",
            _longest(rate=np.sum),
            "Your result is the one with the trace, which says how *volumes* grow. One error grows in one direction.",
        ),
        Misconception(
            "no logarithm",
            _longest(span=lambda error, tolerance: tolerance / error),
            "Your result contains the ratio of tolerance and error itself. Errors grow exponentially with $T$, so what "
            "has to be done with the ratio?",
        ),
        Misconception(
            "powers of ten",
            _longest(span=lambda error, tolerance: np.log10(tolerance / error)),
            "Your result counts powers of ten. Errors grow by powers of $e$.",
        ),
        Misconception(
            "tolerance forgotten",
            _longest(span=lambda error, tolerance: -np.log(error)),
            "Your result is right for a tolerance of 1. How much may *this* error grow?",
        ),
        Misconception(
            "sign",
            _longest(span=lambda error, tolerance: np.log(error / tolerance)),
            "Your result is negative. Which of the two sizes is the larger one?",
        ),
        Misconception(
            "loss instead of distance",
            _longest(rate=lambda eigenvalues: 2 * eigenvalues[-1]),
            "Your result is half of the target, as if errors grew like $e^{2LT}$. That is how fast a *loss* grows, "
            "because it is quadratic in the distance.",
        ),
        Misconception(
            "curvature multiplied",
            lambda hessian, error, tolerance: np.log(tolerance / error) * np.linalg.eigvalsh(hessian)[-1],
            "Your result grows with the curvature. What matters is the product $LT$: if $L$ is larger, may $T$ be "
            "longer, or must it be shorter?",
        ),
    ),
    relatives=(
        ("what the smallest absolute curvature gives", _longest(rate=lambda eigenvalues: np.abs(eigenvalues).min())),
        ("what the Frobenius norm of the Hessian gives as curvature", _longest(rate=np.linalg.norm)),
        (
            "what tolerance minus error gives in place of the logarithm",
            _longest(span=lambda error, tolerance: tolerance - error),
        ),
        (
            "what a ratio of logarithms gives, where a difference belongs",
            _longest(span=lambda error, tolerance: np.log(tolerance) / np.log(error)),
        ),
        (
            "what the first number of the Hessian gives as curvature",
            lambda hessian, error, tolerance: np.log(tolerance / error) / hessian[0, 0],
        ),
        (
            "what the smallest positive curvature gives",
            _longest(rate=lambda eigenvalues: eigenvalues[eigenvalues > 0].min()),
        ),
        ("what the largest minus the smallest curvature gives", _longest(rate=np.ptp)),
        ("the logarithm, not yet divided by a curvature", _longest(rate=lambda eigenvalues: 1.0)),
        (
            "what the logarithm of tolerance minus error gives",
            _longest(span=lambda error, tolerance: np.log(tolerance - error)),
        ),
        ("what the square of the curvature gives", _longest(rate=lambda eigenvalues: eigenvalues[-1] ** 2)),
        (
            "what the largest number on the diagonal gives as curvature",
            lambda hessian, error, tolerance: np.log(tolerance / error) / np.diag(hessian).max(),
        ),
        ("what log(1 + tolerance / error) gives", _longest(span=lambda error, tolerance: np.log1p(tolerance / error))),
    ),
    alternatives=(_by_growth, _by_inverting),
    hints=(
        "Integrated backwards, an error along an eigenvector is multiplied by the exponential of $T$ times its "
        "eigenvalue. Which eigenvalue is the worst?",
        "Write down the equation: the error, times its largest growth, equals the tolerance. Solve it for $T$.",
    ),
    expected="One number. For curvatures 20 and 1, an error of 2e-16 and a tolerance of 1 it is near 1.8.",
)

# 08.lost_trajectory -------------------------------------------------------------------------------------------------


@jax.jit
def _bowl(params, batch):
    """A convex loss whose curvatures lie between 1.5 and 3, and differ from place to place."""
    away = params - batch
    return jnp.mean(jnp.sum(0.75 * away**2 + 1.5 * jnp.log(jnp.cosh(away)), axis=-1))


def _largest_lost(lost):
    """The largest index in each row that is true, -1 where none is."""
    return np.array([max(np.flatnonzero(row), default=-1) for row in lost])


def _distances(points):
    return np.linalg.norm(points, axis=-1)


def _lost(
    far=lambda distance, tolerance: ~(distance <= tolerance),  # true for NaN
    measure=lambda runs, trajectory: _distances(runs - trajectory),
    answer=lambda lost, distance: _largest_lost(lost),
    adapt_on=lambda task: task.support,
    skip=0,
):
    """The diagnosis from its parts, each of which a misconception may replace."""

    def lost_from(loss, task, theta, learning_rate, runs, tolerance):
        num_steps = runs.shape[1] - 1 + skip
        trajectory = np.array(path_of(loss, adapt_on(task), theta, learning_rate, num_steps))[skip:]
        distance = measure(runs, trajectory)
        return answer(far(distance, tolerance), distance)

    return lost_from


lost_trajectory = _lost()


@functools.partial(jax.jit, static_argnums=0)
def _stepped(loss, points, batch, learning_rate):
    """A gradient step from each of some points, shape [..., d]."""
    step = jnp.vectorize(lambda phi: phi - learning_rate * jax.grad(loss)(phi, batch), signature="(d)->(d)")
    return step(points)


def broken_steps(loss, batch, learning_rate, runs):
    """How far the next point is from a gradient step, for each point of some trajectories but the last."""
    return _distances(np.asarray(_stepped(loss, runs[:, :-1], batch, learning_rate)) - runs[:, 1:])


def _single_steps(loss, task, theta, learning_rate, runs, tolerance):
    return _largest_lost(~(broken_steps(loss, task.support, learning_rate, runs) <= tolerance))


def _single_steps_by_their_end(loss, task, theta, learning_rate, runs, tolerance):
    first = _distances(runs[:, :1] - theta)
    gaps = np.concatenate([first, broken_steps(loss, task.support, learning_rate, runs)], axis=1)
    return _largest_lost(~(gaps <= tolerance))


def _compared_with(pick):
    """Compares the runs with one made from them, and with no trajectory."""

    def lost_from(loss, task, theta, learning_rate, runs, tolerance):
        return _largest_lost(~(_distances(runs - pick(runs)) <= tolerance))

    return lost_from


def _by_scanning(loss, task, theta, learning_rate, runs, tolerance):
    """An alternative: the trajectory by one scan, and the first lost point of the reversed runs."""

    def step(phi, _):
        return phi - learning_rate * jax.grad(loss)(phi, task.support), phi

    _, trajectory = jax.lax.scan(step, jnp.asarray(theta), length=runs.shape[1])
    right = jnp.sum((runs - trajectory) ** 2, axis=-1) <= tolerance**2
    backwards = ~right[:, ::-1]
    return jnp.where(backwards.any(axis=1), runs.shape[1] - 1 - backwards.argmax(axis=1), -1)


def _run_by_run(loss, task, theta, learning_rate, runs, tolerance):
    """An alternative: each run by itself, from its end to its beginning."""
    trajectory = path_of(loss, task.support, theta, learning_rate, runs.shape[1] - 1)
    found = []
    for run in runs:
        k = len(run) - 1
        while k >= 0 and math.dist(run[k], trajectory[k]) <= tolerance:
            k -= 1
        found.append(k)
    return np.array(found)


@functools.partial(jax.jit, static_argnums=(0, 4))
def integrated_backwards(loss, batch, last, learning_rate, num_steps):
    """Points whose gradient steps end at `last`, each found from the next by Newton's method: [num_steps + 1, d]."""

    def one_back(after, _):
        def improved(_, phi):
            gap = phi - learning_rate * jax.grad(loss)(phi, batch) - after
            return phi - jnp.linalg.solve(jnp.eye(len(phi)) - learning_rate * jax.hessian(loss)(phi, batch), gap)

        before = jax.lax.fori_loop(0, 12, improved, after)
        return before, before

    points = jax.lax.scan(one_back, last, length=num_steps)[1][::-1]
    return jnp.concatenate([points, last[None]])


def _unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class _Runs:
    """Recorded runs of one inner loop, right ones and others."""

    def __init__(self, rng, loss, task, theta, learning_rate, num_steps, tolerance):
        self.rng, self.tolerance = rng, tolerance
        self.given = loss, task, theta, learning_rate
        self.trajectory = np.array(path_of(loss, task.support, theta, learning_rate, num_steps))

    def right(self):
        """Rounded, by less than the tolerance."""
        return self.trajectory + 0.6 * self.tolerance * _unit(self.rng, *self.trajectory.shape)

    def backwards(self, k):
        """A trajectory that obeys every gradient step, and is lost from step k; for `_bowl` and learning rate 0.2."""
        loss, task, _, learning_rate = self.given
        dim = self.trajectory.shape[1]
        signs = self.rng.choice([-1.0, 1.0], dim) / np.sqrt(dim)  # no coordinate alone is far off
        there = self.trajectory[k] + 1.2 * self.tolerance * signs
        after = path_of(loss, task.support, there, learning_rate, len(self.trajectory) - 1 - k)
        return np.concatenate([integrated_backwards(loss, task.support, there, learning_rate, k), after[1:]])

    def wrong_checkpoint(self, first, last):
        """The points from `first` to `last` were recomputed from the checkpoint before."""
        points, length = self.trajectory.copy(), last - first + 1
        points[first : last + 1] = self.trajectory[first - length : first]
        return points

    def moved(self, *steps):
        """Some points are off, the first of them farthest."""
        points = self.right()
        for number, k in enumerate(steps):
            far = (3 - 0.5 * number) * self.tolerance
            points[k] = self.trajectory[k] + far * _unit(self.rng, points.shape[1])
        return points

    def overflow(self, k):
        """Not a number from step k on."""
        points = self.right()
        points[: k + 1] = np.nan
        return points

    def instance(self, *runs):
        runs = np.stack([runs[i] for i in self.rng.permutation(len(runs))])
        distance = _distances(runs - self.trajectory) / self.tolerance
        assert not (np.abs(distance - 1) < 0.02).any(), "a point that rounding could put on either side"
        return *self.given, runs, self.tolerance


def _in_a_bowl(rng, dim, num_steps, tolerance, same_sets=False):
    support, query = rng.normal(0, 0.7, (5, dim)), rng.normal(1, 0.7, (4, dim))
    task = Task(support, support if same_sets else query)
    theta = 2.5 * _unit(rng, dim) + 0.5
    return _Runs(rng, _bowl, task, theta, 0.2, num_steps, tolerance)


def _recorded(rng):
    plane, space = _in_a_bowl(rng, 2, 8, 0.02), _in_a_bowl(rng, 4, 11, 1e-3)
    line, none = _in_a_bowl(rng, 1, 5, 0.05, same_sets=True), _in_a_bowl(rng, 3, 0, 0.1)
    wave_runs = _Runs(rng, wave, curve_task(rng, 6, 4), np.array([2.0, 1.0]) + rng.normal(0, 0.1, 2), 0.1, 4, 0.01)
    return [
        plane.instance(plane.right(), plane.backwards(5), plane.wrong_checkpoint(2, 3), plane.overflow(4)),
        space.instance(space.backwards(7), space.wrong_checkpoint(4, 7), space.right(), space.moved(11)),
        line.instance(line.backwards(3)),
        none.instance(none.right(), none.moved(0)),
        wave_runs.instance(wave_runs.moved(3, 1), wave_runs.moved(1, 2), wave_runs.right(), wave_runs.moved(0)),
    ]


LOST_TRAJECTORY = Exercise(
    id="08.lost_trajectory",
    title="Diagnose a lost trajectory",
    difficulty=2,
    minutes=12,
    reference=lost_trajectory,
    instances=_recorded,
    misconceptions=(
        Misconception(
            "single steps",
            _single_steps,
            "Your result is that of a test of single steps: does a gradient step lead from each recorded point to the "
            "next? A trajectory that was integrated backwards passes this test at every step, wherever it goes. With "
            "what else can a point be compared?",
        ),
        Misconception(
            "NaN taken for right",
            _lost(far=lambda distance, tolerance: distance > tolerance),
            "Your result is right but for the runs with NaN. Every comparison with NaN is false, so NaN is not above "
            "your tolerance either. Which comparison is true only where a point is right?",
        ),
        Misconception(
            "lowest step",
            _lost(answer=lambda lost, distance: np.where(lost.any(1), lost.argmax(1), -1)),
            "Your result is the *lowest* number of a lost point. The backward pass begins at $\\varphi_K$. Which of "
            "the lost points does it meet first?",
        ),
        Misconception(
            "0 for a right run",
            _lost(answer=lambda lost, distance: np.maximum(_largest_lost(lost), 0)),
            "Your result is 0 for runs that are right everywhere, as if they were lost at $\\varphi_0$. What does the "
            "docstring want for them?",
        ),
        Misconception(
            "last right point",
            _lost(answer=lambda lost, distance: np.where(lost.any(1), _largest_lost(lost) + 1, -1)),
            "Your numbers are one too large for the runs that are lost. Do you count the last point that is right, and "
            "not the first that is lost?",
        ),
        Misconception(
            "steps of the backward pass",
            _lost(answer=lambda lost, distance: np.where(lost.any(1), lost[:, ::-1].argmax(1), -1)),
            "Your result is the number of steps that the backward pass has taken when it is lost. The exercise asks "
            "for the $k$ of the point that it has then reached.",
        ),
        Misconception(
            "number of lost points",
            _lost(answer=lambda lost, distance: lost.sum(1)),
            "Your result is the number of lost points of each run. Which point is the first of them in the backward "
            "pass?",
        ),
        Misconception(
            "yes or no",
            _lost(answer=lambda lost, distance: lost.any(1).astype(int)),
            "Your result is 1 for each run that has lost its trajectory, and 0 for the others. From which step on?",
        ),
        Misconception(
            "largest distance",
            _lost(answer=lambda lost, distance: np.where(lost.any(1), distance.argmax(1), -1)),
            "Your result is the step at which a lost run is *farthest* from the trajectory. When did it first leave "
            "it?",
        ),
        Misconception(
            "lost for good",
            _lost(answer=lambda lost, distance: np.logical_and.accumulate(lost, axis=1).sum(1) - 1),
            "Your result leaves out runs that are right again later in their backward pass. One wrong segment makes "
            "the meta-gradient wrong, even if the next checkpoint is a good one.",
        ),
        Misconception(
            "only the initialization",
            _lost(answer=lambda lost, distance: np.where(lost[:, 0], 0, -1)),
            "Your result is that of a comparison at $\\varphi_0$ alone. A run can end at the initialization and have "
            "left the trajectory before.",
        ),
        Misconception(
            "largest coordinate",
            _lost(measure=lambda runs, trajectory: np.abs(runs - trajectory).max(-1)),
            "Your result is the one for the largest difference of a *coordinate*. The tolerance is for the distance, "
            "the norm of the difference.",
        ),
        Misconception(
            "squared distance",
            _lost(measure=lambda runs, trajectory: _distances(runs - trajectory) ** 2),
            "Your result is the one for the *square* of the distance. Is a root missing?",
        ),
        Misconception(
            "relative distance",
            _lost(measure=lambda runs, trajectory: _distances(runs - trajectory) / _distances(trajectory)),
            "Your result is the one for a distance divided by the norm of $\\varphi_k$. The tolerance is for the "
            "distance itself.",
        ),
        Misconception(
            "first run taken for the truth",
            _compared_with(lambda runs: runs[:1]),
            "Your result is that of a comparison with the first run, which may itself be lost. From what can you "
            "compute the trajectory anew?",
        ),
        Misconception(
            "query set in the inner loop",
            _lost(adapt_on=lambda task: task.query),
            "Your result is the one for an inner loop on the query set. Which set does adaptation use?",
        ),
        Misconception(
            "one step ahead",
            _lost(skip=1),
            "Your result is the one for a comparison of each recorded point with the point *after* it on the "
            "trajectory. Where does the trajectory begin, before the first step or after it?",
        ),
    ),
    relatives=(
        (
            "what the sum of the differences of all coordinates gives in place of the distance",
            _lost(measure=lambda runs, trajectory: np.abs(runs - trajectory).sum(-1)),
        ),
        ("what a comparison with the median of all runs gives", _compared_with(lambda runs: np.median(runs, axis=0))),
        ("what a comparison with the last run gives", _compared_with(lambda runs: runs[-1:])),
        ("what a test of single steps gives, by the point at which a wrong step arrives", _single_steps_by_their_end),
        (
            "what a comparison with gradient steps from each run's own first point gives",
            lambda loss, task, theta, learning_rate, runs, tolerance: np.concatenate(
                [lost_trajectory(loss, task, run[0], learning_rate, run[None], tolerance) for run in runs]
            ),
        ),
        (
            "the target, with K + 1 for a run that is right everywhere",
            _lost(answer=lambda lost, distance: np.where(lost.any(axis=1), _largest_lost(lost), lost.shape[1])),
        ),
        (
            "the number of lost points, with -1 for a run that is right everywhere",
            _lost(answer=lambda lost, distance: np.where(lost.any(axis=1), lost.sum(axis=1), -1)),
        ),
        (
            "the target, with K for a run that holds a NaN",
            _lost(
                answer=lambda lost, distance: np.where(
                    np.isnan(distance).any(axis=1), lost.shape[1] - 1, _largest_lost(lost)
                )
            ),
        ),
        (
            "what the distance from the initialization gives",
            _lost(measure=lambda runs, trajectory: _distances(runs - trajectory[0])),
        ),
        ("what half of the tolerance gives", _lost(far=lambda distance, tolerance: ~(distance <= tolerance / 2))),
        (
            "the largest step at which a run is right",
            _lost(answer=lambda lost, distance: _largest_lost(~lost)),
        ),
    ),
    alternatives=(_by_scanning, _run_by_run),
    hints=(
        "The initialization, the loss and the learning rate are known. So $\\varphi_0, \\dots, \\varphi_K$ can be "
        "computed forwards once more, and forwards an error shrinks.",
        "Compare all runs with $\\varphi_k$ as soon as you have it. If you note $k$ for every run that is too far away "
        "there, and later ones overwrite earlier ones, which number is left in the end?",
    ),
    expected="An array of whole numbers, one for each run. A run that is right everywhere gets −1, and one that is "
    "lost only at $\\varphi_0$ gets 0.",
)

# 08.proximal_flow_gradient ------------------------------------------------------------------------------------------


def _proximal_flow(
    initial=lambda rates, strength, time: np.exp(-time * rates),
    accumulated=lambda rates, strength, time: strength * (1 - np.exp(-time * rates)) / rates,
    rates_of=lambda curvatures, strength: curvatures + strength,
):
    """The meta-gradient from its two parts, each as a function of the eigenvalues of H + λI."""

    def gradient(hessian, query_gradient, proximal_strength, training_time):
        curvatures, vectors = np.linalg.eigh(hessian)
        rates = rates_of(curvatures, proximal_strength)
        parts = (part(rates, proximal_strength, training_time) for part in (initial, accumulated))
        return vectors @ (sum(parts) * (vectors.T @ query_gradient))

    return gradient


def _by_solving(hessian, query_gradient, proximal_strength, training_time):
    """An alternative: a matrix exponential and one linear solve."""
    matrix = hessian + proximal_strength * np.eye(len(hessian))
    at_zero = _matrix_exponential(-training_time * matrix) @ query_gradient
    return at_zero + proximal_strength * np.linalg.solve(matrix, query_gradient - at_zero)


def _by_quadrature(hessian, query_gradient, proximal_strength, training_time):
    """An alternative: the integral by Gauss's method with forty points."""
    matrix = hessian + proximal_strength * np.eye(len(hessian))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    times = (nodes + 1) * training_time / 2
    adjoints = [_matrix_exponential(-time * matrix) @ query_gradient for time in times]  # at T - time
    integral = training_time / 2 * sum(weight * p for weight, p in zip(weights, adjoints, strict=True))
    return _matrix_exponential(-training_time * matrix) @ query_gradient + proximal_strength * integral


def _exponential_of_each_number(hessian, query_gradient, proximal_strength, training_time):
    matrix = hessian + proximal_strength * np.eye(len(hessian))
    at_zero = np.exp(-training_time * matrix) @ query_gradient
    return at_zero + proximal_strength * np.linalg.solve(matrix, query_gradient - at_zero)


def _no_part(rates, strength, time):
    return 0 * rates


def _proximal_instance(rng, curvatures, strength, training_time):
    curvatures = np.asarray(curvatures, float)
    return _symmetric(rng, curvatures), rng.normal(0, 1, len(curvatures)), strength, training_time


def _vectors_on_the_wrong_side(hessian, query_gradient, proximal_strength, duration):
    curvatures, vectors = np.linalg.eigh(hessian)
    rates = curvatures + proximal_strength
    decay = np.exp(-duration * rates)
    return vectors.T @ ((decay + proximal_strength * (1 - decay) / rates) * (vectors @ query_gradient))


PROXIMAL_FLOW_GRADIENT = Exercise(
    id="08.proximal_flow_gradient",
    title="Your line of the derivation: a proximal term",
    difficulty=2,
    minutes=10,
    reference=_proximal_flow(),
    instances=lambda rng: [
        _proximal_instance(rng, rng.uniform(0.5, 2, 3), 0.5, 1.5),
        _proximal_instance(rng, [-0.6, 0.1, 1.2, 2.0], float(rng.uniform(1, 2)), float(rng.uniform(0.3, 0.8))),
        _proximal_instance(rng, [-1.5, 0.7], 0.4, 0.9),
        _proximal_instance(rng, [0.8], 0.3, 4.0),
        _proximal_instance(rng, rng.uniform(0.3, 1.5, 2), 0.0, 1.1),
    ],
    misconceptions=(
        Misconception(
            "only the initial value",
            _proximal_flow(accumulated=_no_part),
            "Your result equals $p(0)$, the first term of line 2. The integral is missing.",
        ),
        Misconception(
            "only the integral",
            _proximal_flow(initial=_no_part),
            "Your result equals the second term of line 2, with the integral. The first term, $p(0)$, is missing.",
        ),
        Misconception(
            "limit of a long training time",
            _proximal_flow(initial=_no_part, accumulated=lambda rates, strength, time: strength / rates),
            "Your result equals $\\lambda (H + \\lambda I)^{-1} \\nabla f$, the gradient of iMAML. That is the limit "
            "for large $T$ if all curvatures of the proximal objective are positive.",
        ),
        Misconception(
            "proximal term missing in the adjoint equation",
            _proximal_flow(rates_of=lambda curvatures, strength: curvatures),
            "Your result is the one for an adjoint equation with $H$ in place of $H + \\lambda I$.",
        ),
        Misconception(
            "integral without the proximal strength",
            _proximal_flow(accumulated=lambda rates, strength, time: (1 - np.exp(-time * rates)) / rates),
            "In your result the integral is not multiplied by $\\lambda$.",
        ),
        Misconception(
            "proximal term twice as strong",
            _proximal_flow(rates_of=lambda curvatures, strength: curvatures + 2 * strength),
            "Your result is the one for $H + 2\\lambda I$. The proximal term is $\\frac{\\lambda}{2} \\lVert \\varphi "
            "- \\theta \\rVert^2$: what is its Hessian?",
        ),
        Misconception(
            "integral subtracted",
            _proximal_flow(accumulated=lambda rates, strength, time: -strength * (1 - np.exp(-time * rates)) / rates),
            "In your result the integral is subtracted. Which sign does it have in line 2?",
        ),
        Misconception(
            "integral not divided by the curvature",
            _proximal_flow(accumulated=lambda rates, strength, time: strength * (1 - np.exp(-time * rates))),
            "Your integral seems to lack the factor $(H + \\lambda I)^{-1}$. What is $\\int_0^T e^{-ct} dt$ for a "
            "number $c$?",
        ),
        Misconception(
            "adjoint taken as constant",
            _proximal_flow(accumulated=lambda rates, strength, time: strength * time * np.exp(-time * rates)),
            "Your integral equals $T\\, p(0)$, as if $p$ did not change with time.",
        ),
        Misconception(
            "growing exponential",
            _proximal_flow(
                initial=lambda rates, strength, time: np.exp(time * rates),
                accumulated=lambda rates, strength, time: strength * (np.exp(time * rates) - 1) / rates,
            ),
            "Your exponentials grow with $T$. The adjoint is known at $T$ and shrinks towards time $0$ where the "
            "curvature is positive.",
        ),
        Misconception(
            "query gradient unchanged",
            _proximal_flow(initial=lambda rates, strength, time: 1 + 0 * rates, accumulated=_no_part),
            "Your result equals $p(T)$, the query gradient.",
        ),
    ),
    relatives=(
        (
            "what 1 + exp gives in the integral, where 1 - exp belongs",
            _proximal_flow(accumulated=lambda rates, strength, time: strength * (1 + np.exp(-time * rates)) / rates),
        ),
        (
            "what one Euler step of length T gives",
            _proximal_flow(initial=lambda rates, strength, time: 1 - time * (rates - strength), accumulated=_no_part),
        ),
        (
            "what absolute curvatures give",
            _proximal_flow(rates_of=lambda curvatures, strength: np.abs(curvatures) + strength),
        ),
        (
            "what exp(-TH) gives in p(0), without λ in the exponent, with the right integral",
            _proximal_flow(initial=lambda rates, strength, time: np.exp(-time * (rates - strength))),
        ),
        ("what the exponential of each number of the matrix gives, in both terms", _exponential_of_each_number),
        (
            "what exp(-TH) gives, without λ in the exponent",
            _proximal_flow(
                initial=lambda rates, strength, time: np.exp(-time * (rates - strength)),
                accumulated=lambda rates, strength, time: strength * (1 - np.exp(-time * (rates - strength))) / rates,
            ),
        ),
        (
            "what λT gives in place of the integral",
            _proximal_flow(accumulated=lambda rates, strength, time: strength * time + 0 * rates),
        ),
        (
            "what the integral gives without what is left at T",
            _proximal_flow(accumulated=lambda rates, strength, time: strength / rates),
        ),
        (
            "what the factors give for each number of the gradient, without the eigenvectors",
            lambda hessian, query_gradient, proximal_strength, time: (
                lambda rates: (
                    (np.exp(-time * rates) + proximal_strength * (1 - np.exp(-time * rates)) / rates) * query_gradient
                )
            )(np.linalg.eigvalsh(hessian) + proximal_strength),
        ),
        (
            "what the curvature without λ gives as the integral's divisor",
            _proximal_flow(
                accumulated=lambda rates, strength, time: strength * (1 - np.exp(-time * rates)) / (rates - strength)
            ),
        ),
        (
            "what the exponential of each number of the matrix gives",
            lambda hessian, query_gradient, proximal_strength, time: (
                np.exp(-time * (hessian + proximal_strength * np.eye(len(hessian)))) @ query_gradient
            ),
        ),
        (
            "what the eigenvectors give on the wrong side",
            _vectors_on_the_wrong_side,
        ),
    ),
    alternatives=(_by_solving, _by_quadrature),
    hints=(
        "The adjoint equation is linear with a constant matrix: $p(t) = e^{-(T - t) (H + \\lambda I)}\\, \\nabla f$. "
        "Check that it has the right value at $T$ and the right derivative.",
        "In the basis of the eigenvectors of $H$ everything is a number. With $c$ an eigenvalue of $H + \\lambda I$, "
        "the first term has the factor $e^{-cT}$, and the integral is that of one exponential.",
    ),
    expected="An array of shape [d]. For $\\lambda = 0$ it equals $e^{-TH} \\nabla f$, and for large $T$ it tends to "
    "the gradient of iMAML if the curvatures of $H + \\lambda I$ are positive.",
)

EXERCISES = (FLOW_GRADIENT, ADJOINT_SWEEP, LONGEST_TRAINING_TIME, LOST_TRAJECTORY, PROXIMAL_FLOW_GRADIENT)


PREDICTIONS = (
    Guess(
        "08.gap",
        "At the same inner training time, take twice as many steps of half the size. By what factor does the distance "
        "between the last point $\\varphi_K$ and the end $\\varphi(T)$ of the gradient flow shrink?",
        ("about 1.4", "about 2", "about 4"),
        why="A gradient step follows the tangent of the flow, so it errs by a multiple of $\\alpha^2$. There are "
        "$T / \\alpha$ such steps, so that in sum the error is a multiple of $\\alpha$ only.",
        read="Small inner steps follow the gradient flow",
    ),
    Guess(
        "08.survives",
        "At the end of the trajectory, the adjoint $p(T)$ has a part across the valley and a part along its floor. "
        "What reaches the initialization?",
        ("both parts, shortened alike", "mostly the part across the valley", "mostly the part along the floor"),
        why="Going back, a part shrinks exponentially where the curvature in its direction is positive. Across the "
        "valley the curvature is $L = 20$, along the floor it is small or even negative.",
        read="The adjoint equation",
    ),
    Guess(
        "08.order",
        "From $K$ to $4K$ steps: by what factor does the error of the Heun sweep shrink?",
        ("about 4", "about 16", "about 64"),
        why="Heun's method has order two, so its error is proportional to $1 / K^2$.",
        read="Integrate backwards along a stored trajectory",
    ),
    Guess(
        "08.lost",
        "In float64 a number near 1 is rounded by about $2 \\cdot 10^{-16}$. From which $LT$ on is nothing left of the "
        "initialization? (It helps that $\\ln 10$ is about 2.3.)",
        why="Going back, the rounding error of $\\varphi(T)$ is multiplied by $e^{LT}$. It is as large as 1 when "
        "$LT = \\ln(1 / \\varepsilon)$.",
        read="Can the trajectory be integrated backwards?",
    ),
    Guess(
        "08.path",
        "Integrated backwards from $\\varphi(T)$, in float64, where does the trajectory in the valley go?",
        (
            "back to θ, with a small error",
            "along the floor, as far as the angle of θ",
            "off the floor before it comes to θ",
        ),
        why="Forwards the walls push every point towards the floor. Backwards they push it away, so that rounding "
        "errors across the valley grow like $e^{L(T - t)}$.",
        read="Can the trajectory be integrated backwards?",
    ),
    Guess(
        "08.quadratic",
        "On a quadratic with curvatures 20 and 1, at the same $LT = 40$: what does the method that stores nothing get "
        "wrong?",
        ("nothing", "the trajectory, not the gradient", "the gradient, not the trajectory", "both"),
        why="The adjoint equation uses the trajectory only to evaluate the Hessian, and on a quadratic the Hessian is "
        "the same everywhere.",
        read="The adjoint equation",
    ),
    Guess(
        "08.memory",
        "From $K = 64$ to $K = 1024$ steps: by what factor does the memory of MAML with checkpoints grow?",
        ("about 1", "about 4", "about 16"),
        why="Its memory is proportional to $\\sqrt K$, and the square root of 16 is 4.",
        read="Checkpoints",
    ),
)

QUIZ = (
    Question(
        "Along a stored trajectory, a Heun sweep with 100 steps has a relative error of 1 %. About how many steps does "
        "it need for an error of 0.01 %?",
        ("200", "1,000", "10,000", "No number of steps is enough"),
        1,
        (
            "Twice the steps leave about a quarter of the error.",
            "The error has to become a hundred times smaller. It is proportional to $1 / K^2$, so ten times the steps "
            "are enough.",
            "That would be right for a method of order one, such as the Euler sweep.",
            "Errors grow without limit when the trajectory is integrated backwards. This one is stored.",
        ),
    ),
    Question(
        "You train in float32, with $L = 100$, 1,000 inner steps and $\\alpha = 0.005$. Can the trajectory be "
        "integrated backwards from its end?",
        (
            "Yes, because LT is about 5",
            "No, because LT is about 500",
            "Only with a method of higher order",
            "Only in float64",
        ),
        1,
        (
            "5 is $T = \\alpha K$. It still has to be multiplied by $L$.",
            "Rounding errors would be multiplied by about $e^{500}$, and float32 tolerates about $e^{16}$.",
            "The rounding error is already in the end point, and no method can take it out.",
            "Float64 tolerates $LT$ up to about 36.",
        ),
    ),
    Question(
        "A colleague integrates $\\varphi$ and $p$ backwards together and stores nothing. For linear regression with "
        "the squared loss, at $LT = 100$ in float64, the meta-gradient is right to ten digits. Which further test "
        "would show whether the method can be used for a network?",
        (
            "regression with the tanh of a linear model, at the same LT",
            "linear regression on other data, at the same LT",
            "linear regression with a proximal term",
            "linear regression in float32",
        ),
        0,
        (
            "Its Hessian changes along the trajectory, so a lost trajectory makes the gradient wrong.",
            "The Hessian differs between data sets, but it still does not change along a trajectory.",
            "A proximal term adds a constant to every curvature. Does the Hessian change along the trajectory?",
            "The trajectory is lost even earlier, but for this loss the gradient does not need it.",
        ),
    ),
)

# Figures ------------------------------------------------------------------------------------------------------------

EVERY = 40  # of the points of a computed trajectory, the eye needs no more


def opening() -> tuple[str, str]:
    """The picture of the claim: with small steps the inner loop follows the gradient flow."""
    curvature, minimum, theta, horizon = 1.6, 0.0, 1.0, 2.0
    time = np.linspace(0, horizon, 200)
    flow = minimum + np.exp(-curvature * time) * (theta - minimum)
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    axes.plot(time, flow, color=plots.PALETTE["blue"], linestyle="-", label="flow")
    for num_steps, marker in ((4, "s"), (16, "o")):
        factor = 1 - horizon / num_steps * curvature
        steps = np.arange(num_steps + 1)
        axes.plot(
            horizon / num_steps * steps,
            minimum + factor**steps * (theta - minimum),
            color=plots.PALETTE["orange"],
            linestyle="--" if num_steps == 4 else ":",
            marker=marker,
            markersize=4,
            linewidth=1.2,
            label=f"K = {num_steps}",
        )
    plots.label(axes, "inner training time αk", "parameters φ")
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.adjoint(),
        ("Small inner steps follow the gradient flow", "The meta-gradient is a second flow, backwards"),
        (f"One quadratic task, T = αK = {horizon:g}.", "It reads the stored trajectory of the first."),
        "Left: parameters against inner training time; sixteen steps lie closer to the gradient flow than four. Right: "
        "the flow forward from the initialization, and the adjoint flow backward from the query gradient.",
    )


_GRID = np.linspace(-1.5, 1.5, 41)


@functools.partial(jax.jit, static_argnums=0)  # compiled once for a loss, and not for each place of a slider
def _heights(loss, batch):
    points = np.stack(np.meshgrid(_GRID, _GRID), axis=-1)
    return jax.vmap(jax.vmap(lambda phi: loss(phi, batch)))(points)


def _valley(axes, loss, batch, theta, paths):
    """Contours of a loss and trajectories on them: name -> (points, where the name stands)."""
    levels = [-0.9, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0]
    look = {"colors": plots.PALETTE["muted"], "linewidths": 0.6, "linestyles": "-", "alpha": 0.5}
    axes.contour(_GRID, _GRID, _heights(loss, batch), levels=levels, **look)
    for (name, (path, place)), color, dash in zip(paths.items(), plots.COLORS, plots.DASHES, strict=False):
        few = len(path) < 30
        axes.plot(*np.asarray(path, float).T, color=color, linestyle=dash, marker="." if few else "", linewidth=1.6)
        if place:
            axes.text(*place, name, color=color, weight="bold", ha="center")
    axes.plot(*theta, "o", color=plots.PALETTE["text"], markerfacecolor=plots.PALETTE["card"], markersize=5)
    axes.text(theta[0] - 0.16, theta[1] + 0.06, "θ", weight="bold", color=plots.PALETTE["text"])
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    axes.grid(visible=False)
    plots.label(axes, "φ₁", "φ₂")


def small_steps(loss, task, theta, training_time, coarse, fine):
    """Many small and a few large inner steps, on the contours and as a distance from the centre."""
    figure, (left, right) = plots.subplots(2, height=3.8)
    names = [f"{len(path) - 1:,} steps" for path in (fine, coarse)]
    places = {names[0]: (fine[::EVERY], (0, 0.12)), names[1]: (coarse, (0, -0.2))}
    _valley(left, loss, task.support, theta, places)
    for path, name, color, dash in zip((fine, coarse), names, plots.COLORS, plots.DASHES, strict=False):
        time = np.linspace(0, training_time, len(path))
        right.plot(time, np.linalg.norm(path, axis=1), color=color, linestyle=dash, label=name)
    right.set(xlim=(0, 0.6), ylim=(0.75, 1.25))
    plots.label(right, "time αk", "distance from the centre")
    plots.show(
        figure,
        alt="Left: contours of a circular valley with two trajectories of inner steps from θ at the upper left, "
        "outside the circle. Both reach the valley floor and follow it clockwise; the one with few steps zigzags at "
        "first. Right: distance from the centre against time. With many steps it falls a little below one and stays "
        "near it; with few it swings around one.",
        title="Large inner steps zigzag across the valley, small ones follow a smooth curve",
        caption="The same inner training time, cut into few and into many gradient steps. Left: on the contours of the "
        "support loss. Right: the beginning of both.",
    )


def adjoint_arrows(loss, task, theta, trajectory, times, places, adjoints):
    """The adjoint along a trajectory, as arrows and as its two parts, along and across the valley floor."""
    figure, (left, right) = plots.subplots(2, height=3.8)
    _valley(left, loss, task.support, theta, {"trajectory φ(t)": (trajectory[::EVERY], (0, -0.2))})
    shown = np.linspace(0, len(times) - 1, 7).astype(int)
    left.quiver(
        *places[shown].T,
        *adjoints[shown].T,
        angles="xy",
        scale_units="xy",
        scale=4,
        width=0.009,
        color=plots.PALETTE["orange"],
        zorder=4,
    )
    left.text(0, 0.05, "adjoint p(t)", color=plots.PALETTE["orange"], weight="bold", ha="center")
    along, across = parts(places, adjoints)
    for name, values, color, dash in (("along the floor", along, "orange", "-"), ("across", across, "violet", "--")):
        right.plot(times, values, color=plots.PALETTE[color], linestyle=dash, label=name)
    right.set(yscale="log", ylim=(1e-3, 3))
    plots.label(right, "time t", "size of the part of p(t)")
    plots.show(
        figure,
        alt="Left: the trajectory along the circular valley with arrows for p at seven times. At the end the arrow is "
        "longest and has a part across the valley. The earlier arrows lie along the floor and are shortest in the "
        "middle. Right: both parts against time. The part along the floor stays between one half and a little over "
        "one. The part across the floor is large at the end only, and falls steeply towards earlier times.",
        title="Almost only the part of the adjoint along the valley floor reaches the initialization",
        caption="Left: p(t) drawn at a quarter of its size. Right: its parts along and across the valley floor; read "
        "from right to left, as the adjoint is integrated.",
    )


def parts(places, adjoints):
    """Sizes of the parts of each adjoint along and across the circle."""
    radial = places / np.linalg.norm(places, axis=1, keepdims=True)
    across = np.abs((radial * adjoints).sum(-1))
    along = np.abs(radial[:, 0] * adjoints[:, 1] - radial[:, 1] * adjoints[:, 0])
    return along, across


def orders(counts, errors, a_maml):
    """Relative error of a meta-gradient against the number of steps; a_maml is one (K, error)."""
    plots.show(
        plots.lines(
            counts, errors, "steps K", "relative error of ∇F", log="xy", points={f"ml.a_maml, K = {a_maml[0]}": a_maml}
        ),
        alt="Relative error against the number of steps, both axes logarithmic. MAML and the Euler sweep fall with "
        "slope one, the sweep a little higher, the Heun sweep with slope two. A mark for A-MAML with 64 steps lies "
        "below all of them.",
        title="A method of higher order needs far fewer steps",
        caption="Distance of each meta-gradient from that of the gradient flow.",
    )


def lost(loss, task, theta, trajectory, returned, times):
    """A trajectory, and the one integrated backwards from its end; both from time 0 to T."""
    figure, (left, right) = plots.subplots(2, height=3.8)
    paths = {"true": (trajectory[::EVERY], (-0.05, 0.12)), "integrated backwards": (returned[::EVERY], (0, -0.2))}
    _valley(left, loss, task.support, theta, paths)
    distance = np.linalg.norm(returned - trajectory, axis=1)[::EVERY]
    right.plot(times[::EVERY], distance, color=plots.PALETTE["orange"])
    right.set(yscale="log", ylim=(1e-17, 1e2))
    plots.label(right, "time t", "distance from the true trajectory")
    plots.show(
        figure,
        alt="Left: the true trajectory along the circular valley, and the one integrated backwards from its end. The "
        "second follows the first along most of the floor, leaves it shortly before θ, and ends far away: out of the "
        "picture or, on another machine, at the centre. Right: their distance against time. Read from right to left it "
        "grows steadily, from rounding errors to about one.",
        title="Integrated backwards, rounding errors grow until the trajectory is lost",
        caption="The same method and the same steps in both directions, in float64. Right: read from right to left.",
    )


def round_trip(loss, task, theta, forward, back, products, misses, epsilon, product):
    """Forwards and backwards for one LT, and how far from θ the latter ends for each."""
    figure, (left, right) = plots.subplots(2, height=3.7)
    _valley(left, loss, task.support, theta, {"forward": (forward, (0, 0.12)), "backward": (back, (0, -0.2))})
    right.plot(products, misses, color=plots.PALETTE["orange"], linestyle="--", label="measured")
    predicted = np.exp(products) * epsilon
    right.plot(products, predicted, color=plots.PALETTE["muted"], linestyle=":", label="ε exp(LT)")
    plots.lines(
        products,
        {},
        "LT",
        "distance from θ",
        points={"": (product, misses[list(products).index(product)])},
        log="y",
        ylim=(1e-17, 1e3),
        axes=right,
    )
    return figure


def recorded(distances, lost_from, tolerance):
    """How far recorded runs are from the trajectory at each step, and where each is lost first.

    Args:
      distances: name of a run -> the distance of each of its points, shape [K + 1].
      lost_from: the step from which each of them is lost in the order of the backward pass, -1 if none is.
      tolerance: the largest distance of a point that is right.
    """
    figure, (axes,) = plots.subplots(height=3.4)
    for (name, distance), k, color, dash in zip(distances.items(), lost_from, plots.COLORS, plots.DASHES, strict=False):
        axes.plot(np.maximum(distance, 1e-17), color=color, linestyle=dash, label=name)
        if k >= 0:
            axes.plot(k, distance[k], "o", color=color, markersize=7)
    axes.axhline(tolerance, color=plots.PALETTE["muted"], linestyle=":", linewidth=1.5)
    axes.annotate(
        "tolerance",
        (0, tolerance),
        (4, 4),
        textcoords="offset points",
        color=plots.PALETTE["muted"],
    )
    axes.set(yscale="log", ylim=(3e-18, 1e2))
    plots.label(axes, "step k", "distance from the trajectory")
    plots.show(
        figure,
        alt="Distance from the trajectory against the step, on a logarithmic axis, for three runs; the backward pass "
        "reads it from right to left. The run with right checkpoints is at the bottom everywhere. The run that was "
        "integrated backwards rises steadily from right to left and crosses the tolerance on its way. The run with a "
        "wrong checkpoint is above the tolerance for the steps of one segment only.",
        title="One run drifts away from its trajectory, the other leaves it for one segment",
        caption="Three recorded backward passes in the valley, read from right to left. Marks: the first point beyond "
        "the tolerance.",
    )


def stability_limit() -> float:
    """The largest product of step and curvature for which a step of `ml.a_maml` does not grow on a quadratic."""

    def growth(product):
        derivatives = []
        for weights in TSITOURAS[:6]:
            derivatives.append(-product * (1 + np.dot(weights[: len(derivatives)], derivatives)))
        return abs(1 + np.dot(TSITOURAS[6], derivatives))

    products = np.linspace(0.01, 5, 500)
    return float(products[np.argmax([growth(product) > 1 for product in products])])


def memory(counts, copies):
    """Working memory against the number of inner steps, in copies of the parameters."""
    figure, (axes,) = plots.subplots()
    looks = {"MAML, all stored": ("blue", "-"), "MAML, checkpoints": ("blue", "--"), "ml.a_maml": ("text", ":")}
    for name, values in copies.items():
        color, dash = looks[name]
        axes.plot(counts, values, color=plots.PALETTE[color], linestyle=dash, label=name)
    plots.lines(counts, {}, "steps K", "memory (copies of the parameters)", log="xy", axes=axes)
    plots.show(
        figure,
        alt="Working memory against the number of steps, both axes logarithmic. MAML with a stored trajectory rises "
        "with slope one. MAML with checkpoints lies lowest and rises with about half that slope. A-MAML lies between "
        "the two, nearer to the lower one, and is the flattest, for it grows by the same amount.",
        title="Checkpoints turn a memory proportional to K into one proportional to √K",
        caption="As the compiler reports it, for a loss of 2,000 parameters.",
    )


def towards_implicit(training_times, initial, accumulated, distance):
    """The two parts of the meta-gradient of the proximal flow, and its distance from iMAML's, against T."""
    curves = {
        "norm of p(0)": (initial, "orange", "-"),
        "norm of λ∫p dt": (accumulated, "violet", "--"),
        "distance from iMAML": (distance, "text", ":"),
    }
    figure, (axes,) = plots.subplots()
    for name, (values, color, dash) in curves.items():
        axes.plot(training_times, values, color=plots.PALETTE[color], linestyle=dash, label=name)
    axes.set(yscale="log", ylim=(1e-5, 10))
    plots.label(axes, "inner training time T", "norm")
    plots.show(
        figure,
        alt="Three curves against the inner training time, on a logarithmic axis. The norm of p(0) falls "
        "exponentially. The norm of the integral rises and becomes constant. The distance from the gradient of iMAML "
        "falls as p(0) does.",
        title="As T grows, the meta-gradient of the flow becomes that of iMAML",
        caption="The two parts of the meta-gradient on one quadratic task with a proximal term, and the distance of "
        "their sum from the linear solve of iMAML.",
    )


def three_ways() -> str:
    """Where the backward pass finds φ(t): stored, integrated backwards, or recomputed from checkpoints."""
    d = diagrams.Drawing(620, 262)
    xs = np.linspace(236, 596, 13)
    rows = (
        ("Store the trajectory", range(13), "K points in memory: exact"),
        ("Integrate backwards", (12,), "1 point: lost for large LT"),
        ("Store checkpoints", (0, 4, 8), "about 2√K points: exact"),
    )
    for row, (name, kept, verdict) in enumerate(rows):
        y = 34 + 88 * row
        d.text(9, y + 5, name, diagrams.BLUE, "start", bold=True)
        d.text(9, y + 26, verdict, diagrams.MUTED, "start", size=13)
        d.path([(xs[0], y), (xs[-1], y)], diagrams.LINE)
        for i, x in enumerate(xs):
            d.point(x, y, diagrams.BLUE, filled=i in kept)
        if row == 0:
            d.arrow((xs[-1], y + 24), (xs[0], y + 24), diagrams.ORANGE)
        elif row == 1:
            d.arrow((xs[-1], y + 24), (xs[3], y + 32), diagrams.ORANGE, dash="6 4")
            d.text(xs[2] + 6, y + 38, "?", diagrams.ORANGE, "end", bold=True)
        else:
            for first, last in ((8, 12), (4, 8), (0, 4)):
                d.arrow((xs[first] + 8, y + 18), (xs[last] - 8, y + 18), diagrams.BLUE)
                d.arrow((xs[last] - 8, y + 34), (xs[first] + 8, y + 34), diagrams.ORANGE)
    return d.svg()
