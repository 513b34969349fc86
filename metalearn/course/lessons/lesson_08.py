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
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors.T * np.exp(eigenvalues)) @ vectors


def _with_absolute_curvatures(matrix):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.exp(-np.abs(eigenvalues))) @ vectors.T


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


def _quadratic_instance(rng, dim, training_time, lowest=0.2):
    def curved(lowest=0.2):
        curvatures = rng.uniform(0.2, 1.5, dim)
        curvatures[0] = lowest
        return _symmetric(rng, curvatures)

    return curved(lowest), rng.normal(0, 1, dim), curved(), rng.normal(0, 1, dim), rng.normal(0, 1, dim), training_time


FLOW_GRADIENT = Exercise(
    id="08.flow_gradient",
    title="Your line of the derivation: a quadratic",
    difficulty=2,
    minutes=10,
    reference=_by_theory,
    instances=lambda rng: [
        _quadratic_instance(rng, 2, 0.7),
        _quadratic_instance(rng, 3, 2.0, lowest=-0.4),
        _quadratic_instance(rng, 1, 1.3),
        _quadratic_instance(rng, 6, float(rng.uniform(0.4, 0.9)), lowest=0.0),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            _flow(carry=lambda J, A, offset: A @ offset),
            "Your result equals the query gradient at the end of the flow, $A (\\phi(T) - q)$. The inner derivative "
            "$d\\phi(T)/d\\theta$ from line 1 may be missing.",
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
            "Your result is the one for $e^{+TH}$, which grows with $T$. The flow goes downhill: which sign has the "
            "exponent?",
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
            "Your result is the one for $\\phi(T) = e^{-TH}\\theta$, a flow towards the origin. Compare with line 1.",
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
            "acts on $\\phi(T) - q$ first?",
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
        "By line 1, moving $\\theta$ by a small vector moves $\\phi(T)$ by $e^{-TH}$ times that vector. Apply the "
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

    def sweep(loss, task, path, step_size):
        p = np.asarray(final(loss, task, path))
        for later, earlier in ends(path):
            hessians = (np.asarray(_hessian(loss, u, hessian_of(task))) for u in (later, earlier))
            p = step(*hessians, p, step_size)
        return p

    return sweep


@functools.partial(jax.jit, static_argnums=0)
def _by_scan(loss, task, path, step_size):
    """An alternative: one scan, with Hessian-vector products as derivatives of an inner product."""

    def times(u, vector):
        return jax.grad(lambda u: jnp.vdot(jax.grad(loss)(u, task.support), vector))(u)

    def back(p, ends):
        earlier, later = ends
        guess = p - step_size * times(later, p)
        return (p + guess - step_size * times(earlier, guess)) / 2, None

    return jax.lax.scan(back, jax.grad(loss)(path[-1], task.query), (path[:-1], path[1:]), reverse=True)[0]


def _with_matrices(loss, task, path, step_size):
    """An alternative: the matrix of each step, multiplied from the start."""
    product = np.eye(path.shape[1])
    for earlier, later in itertools.pairwise(path):
        before, after = (step_size * _hessian(loss, u, task.support) for u in (earlier, later))
        product = product @ (np.eye(path.shape[1]) - (before + after) / 2 + before @ after / 2)
    return product @ gradient_at(loss, path[-1], task.query)


def _stored(rng, loss, task, start, step_size, num_steps):
    """A stored trajectory: gradient steps, each a little off, since the sweep must work along any trajectory."""
    path = np.array(path_of(loss, task.support, start, step_size, num_steps))
    return loss, task, path + rng.normal(0, 0.05, path.shape), step_size


def _midpoint(loss, task, path, step_size):
    p = np.asarray(gradient_at(loss, path[-1], task.query))
    for later, earlier in _intervals(path):
        hessian = np.asarray(_hessian(loss, (later + earlier) / 2, task.support))
        p = p - step_size * hessian @ (p - step_size / 2 * hessian @ p)
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
            "Your result is the product of the factors $I - \\alpha H(\\phi_k)$ of lesson 02, with one derivative for "
            "each step. A Heun step takes two.",
        ),
        Misconception(
            "wrong sign",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, _ahead, p, -h)),
            "Your $p$ grows where the curvature is positive. The adjoint equation is solved towards *smaller* $t$: "
            "which sign has the step?",
        ),
        Misconception(
            "forward order",
            _sweep(ends=lambda path: _intervals(path)[::-1]),
            "Your result is that of a sweep from $\\phi_0$ to $\\phi_K$. It has to begin where $p$ is known, at time "
            "$T$.",
        ),
        Misconception(
            "both Hessians at the later point",
            _sweep(step=lambda later, earlier, p, h: _heun(later, later, _ahead, p, h)),
            "Both derivatives seem to use the Hessian at $\\phi_{k+1}$. The second one belongs to the point where the "
            "step *arrives*.",
        ),
        Misconception(
            "both Hessians at the earlier point",
            _sweep(step=lambda later, earlier, p, h: _heun(earlier, earlier, _ahead, p, h)),
            "Both derivatives seem to use the Hessian at $\\phi_k$. The first one belongs to the point where the step "
            "*begins*: going back, which point is that?",
        ),
        Misconception(
            "Hessians swapped",
            _sweep(step=lambda later, earlier, p, h: _heun(earlier, later, _ahead, p, h)),
            "The two Hessians seem to be swapped. Going back, the step begins at $\\phi_{k+1}$ and arrives at "
            "$\\phi_k$.",
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
            "Your result is the one that begins with the query gradient at $\\phi_0$. Where is $p(T)$ evaluated?",
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
            lambda loss, task, path, step_size: _midpoint(loss, task, path, step_size),
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
            "what steps give that add the slopes after a right guess",
            _sweep(step=lambda later, earlier, p, h: p + h * (later @ p + earlier @ (p - h * (later @ p))) / 2),
        ),
        (
            "what the second slope alone gives",
            _sweep(step=lambda later, earlier, p, h: p - h * (earlier @ (p - h * (later @ p)))),
        ),
        (
            "what Heun's rule gives if the mean of the slopes is applied to the guess",
            _sweep(
                step=lambda later, earlier, p, h: (
                    (p - h * (later @ p)) - h * (later @ p + earlier @ (p - h * (later @ p))) / 2
                )
            ),
        ),
        (
            "what the mean of the slopes gives without the step α",
            _sweep(step=lambda later, earlier, p, h: p - (later @ p + earlier @ (p - h * (later @ p))) / 2),
        ),
        (
            "what a whole step with the first slope and half a step with the second give",
            _sweep(step=lambda later, earlier, p, h: (p - h * (later @ p)) - h * (earlier @ (p - h * (later @ p))) / 2),
        ),
    ),
    alternatives=(_by_scan, _with_matrices),
    hints=(
        "Begin with $p = \\nabla f(\\phi_K)$ and go through $k = K - 1, \\dots, 0$. The step from $\\phi_{k+1}$ to "
        "$\\phi_k$ needs two Hessian-vector products.",
        "A Hessian-vector product is the derivative of the support gradient in one direction: `jax.jvp` of "
        "`jax.grad(loss)`. Towards smaller $t$, the step is $p$ minus $\\alpha$ times a mean of two derivatives.",
    ),
    expected="An array like one point of the trajectory. For small $\\alpha$ it approaches the gradient of the flow.",
)

# 08.longest_horizon -------------------------------------------------------------------------------------------------


def _horizon(rate=lambda eigenvalues: eigenvalues[-1], span=lambda error, tolerance: np.log(tolerance / error)):
    """The time from its two parts: how fast errors grow, and by how many powers of e they may."""

    def longest(hessian, error, tolerance):
        return span(error, tolerance) / rate(np.linalg.eigvalsh(hessian))

    return longest


def _by_growth(hessian, error, tolerance):
    """An alternative: what one unit of time does to the worst error, as a matrix norm."""
    growth = np.linalg.norm(_matrix_exponential(0.01 * hessian), 2)
    return 0.01 * (math.log(tolerance) - math.log(error)) / math.log(growth)


LONGEST_HORIZON = Exercise(
    id="08.longest_horizon",
    title="How long may the inner training time be?",
    difficulty=1,
    minutes=5,
    reference=_horizon(),
    instances=lambda rng: [
        (np.diag([20.0, 1.0]), 2e-16, 1.0),
        (_symmetric(rng, rng.uniform(0.5, 4, 3)), 1e-7, float(rng.uniform(0.01, 0.1))),
        (_symmetric(rng, np.array([-6.0, -0.5, 1.0, 2.5])), 1e-12, float(rng.uniform(2, 5))),
        (_symmetric(rng, rng.uniform(0.5, 4, 2)), float(rng.uniform(0.1, 0.2)), float(rng.uniform(0.5, 2))),
    ],
    misconceptions=(
        Misconception(
            "smallest curvature",
            _horizon(rate=lambda eigenvalues: eigenvalues[0]),
            "Your result is the one with the smallest eigenvalue. In which direction does an error grow fastest?",
        ),
        Misconception(
            "largest absolute value",
            _horizon(rate=lambda eigenvalues: np.abs(eigenvalues).max()),
            "Your result is the one with the largest *absolute* eigenvalue. Where the curvature is negative, the flow "
            "pushes points apart. What does integrating it backwards do to an error there?",
        ),
        Misconception(
            "mean curvature",
            _horizon(rate=np.mean),
            "Your result is the one with the mean eigenvalue. The error has an unknown direction, so plan for the "
            "worst.",
        ),
        Misconception(
            "trace",
            _horizon(rate=np.sum),
            "Your result is the one with the trace, which says how *volumes* grow. One error grows in one direction.",
        ),
        Misconception(
            "no logarithm",
            _horizon(span=lambda error, tolerance: tolerance / error),
            "Your result contains the ratio of tolerance and error itself. Errors grow exponentially with $T$, so what "
            "has to be done with the ratio?",
        ),
        Misconception(
            "powers of ten",
            _horizon(span=lambda error, tolerance: np.log10(tolerance / error)),
            "Your result counts powers of ten. Errors grow by powers of $e$.",
        ),
        Misconception(
            "tolerance forgotten",
            _horizon(span=lambda error, tolerance: -np.log(error)),
            "Your result is right for a tolerance of 1. How much may *this* error grow?",
        ),
        Misconception(
            "sign",
            _horizon(span=lambda error, tolerance: np.log(error / tolerance)),
            "Your result is negative. Which of the two sizes is the larger one?",
        ),
        Misconception(
            "loss instead of distance",
            _horizon(rate=lambda eigenvalues: 2 * eigenvalues[-1]),
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
        ("what the smallest absolute curvature gives", _horizon(rate=lambda eigenvalues: np.abs(eigenvalues).min())),
        ("what the Frobenius norm of the Hessian gives as curvature", _horizon(rate=np.linalg.norm)),
        (
            "what tolerance minus error gives in place of the logarithm",
            _horizon(span=lambda error, tolerance: tolerance - error),
        ),
        (
            "what a ratio of logarithms gives, where a difference belongs",
            _horizon(span=lambda error, tolerance: np.log(tolerance) / np.log(error)),
        ),
        (
            "what the first number of the Hessian gives as curvature",
            lambda hessian, error, tolerance: np.log(tolerance / error) / hessian[0, 0],
        ),
        (
            "what the smallest positive curvature gives",
            _horizon(rate=lambda eigenvalues: eigenvalues[eigenvalues > 0].min()),
        ),
        ("what the largest minus the smallest curvature gives", _horizon(rate=np.ptp)),
        ("what the square of the curvature gives", _horizon(rate=lambda eigenvalues: eigenvalues[-1] ** 2)),
        (
            "what the largest number on the diagonal gives as curvature",
            lambda hessian, error, tolerance: np.log(tolerance / error) / np.diag(hessian).max(),
        ),
        ("what log(1 + tolerance / error) gives", _horizon(span=lambda error, tolerance: np.log1p(tolerance / error))),
    ),
    alternatives=(_by_growth,),
    hints=(
        "Integrated backwards, an error along an eigenvector is multiplied by the exponential of $T$ times its "
        "eigenvalue. Which eigenvalue is the worst?",
        "Write down the equation: the error, times its largest growth, equals the tolerance. Solve it for $T$.",
    ),
    expected="One number. For curvatures 20 and 1, an error of 2e-16 and a tolerance of 1 it is near 1.8.",
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
            "Your result is the one for $H + 2\\lambda I$. The proximal term is $\\frac{\\lambda}{2} \\lVert \\phi - "
            "\\theta \\rVert^2$: what is its Hessian?",
        ),
        Misconception(
            "integral subtracted",
            _proximal_flow(accumulated=lambda rates, strength, time: -strength * (1 - np.exp(-time * rates)) / rates),
            "In your result the integral is subtracted. Which sign has it in line 2?",
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

EXERCISES = (FLOW_GRADIENT, ADJOINT_SWEEP, LONGEST_HORIZON, PROXIMAL_FLOW_GRADIENT)


PREDICTIONS = (
    Guess(
        "08.gap",
        "At the same inner training time, take twice as many steps of half the size. By what factor does the distance "
        "between the last point $\\phi_K$ and the end $\\phi(T)$ of the gradient flow shrink?",
        ("about 1.4", "about 2", "about 4"),
        why="A gradient step follows the tangent of the flow, so it errs by a multiple of $\\alpha^2$. There are "
        "$T / \\alpha$ such steps, and their errors add up to a multiple of $\\alpha$.",
        read="Small inner steps follow the gradient flow",
    ),
    Guess(
        "08.survives",
        "At the end of the trajectory, the adjoint $p(T)$ has a part across the valley and a part along its floor. "
        "What reaches the initialization?",
        ("both parts, shortened alike", "mostly the part across the valley", "mostly the part along the floor"),
        why="Going back, each part shrinks exponentially with the curvature in its direction. Across the valley the "
        "curvature is $L = 20$, along the floor it is small.",
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
        why="Going back, the rounding error of $\\phi(T)$ is multiplied by $e^{LT}$. It is as large as 1 when "
        "$LT = \\ln(1 / \\varepsilon)$.",
        read="Can the trajectory be integrated backwards?",
    ),
    Guess(
        "08.path",
        "Integrated backwards from $\\phi(T)$, in float64, where does the trajectory in the valley go?",
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
        "A colleague integrates $\\phi$ and $p$ backwards together and stores nothing. For linear regression with the "
        "squared loss, at $LT = 100$ in float64, the meta-gradient is right to ten digits. Which further test would "
        "show whether the method can be used for a network?",
        (
            "logistic regression at the same LT",
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


def opening() -> str:
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


def _valley(axes, loss, batch, theta, paths):
    """Contours of a loss and trajectories on them: name -> (points, where the name stands)."""
    grid = np.linspace(-1.5, 1.5, 81)
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    heights = jax.jit(jax.vmap(jax.vmap(lambda phi: loss(phi, batch))))(points)
    levels = [-0.9, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0]
    axes.contour(
        grid, grid, heights, levels=levels, colors=plots.PALETTE["muted"], linewidths=0.6, linestyles="-", alpha=0.5
    )
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
    for name, values, dash in (("along the floor", along, "-"), ("across", across, "--")):
        right.plot(times, values, color=plots.PALETTE["orange"], linestyle=dash, label=name)
    right.set(yscale="log", ylim=(1e-3, 3))
    plots.label(right, "time t", "size of the part of p(t)")
    plots.show(
        figure,
        alt="Left: the trajectory along the circular valley with arrows for p at seven times. At the end the arrow is "
        "longest and has a part across the valley. The earlier arrows lie along the floor and are shortest in the "
        "middle. Right: both parts against time. The part along the floor stays between one half and a little over "
        "one. The part across the floor is large at the end only, and falls steeply towards earlier times.",
        title="Only the part of the adjoint along the valley floor reaches the initialization",
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
    """The way back for one LT, and how far from θ it ends for each."""
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
    d = diagrams.Drawing(860, 262)
    xs = np.linspace(250, 620, 13)
    rows = (
        ("Store the trajectory", range(13), "K points in memory: exact"),
        ("Integrate backwards", (12,), "1 point: lost for large LT"),
        ("Store checkpoints", (0, 4, 8), "about 2√K points: exact"),
    )
    for row, (name, kept, verdict) in enumerate(rows):
        y = 34 + 88 * row
        d.text(9, y + 5, name, diagrams.BLUE, "start", bold=True)
        d.path([(xs[0], y), (xs[-1], y)], diagrams.LINE)
        for i, x in enumerate(xs):
            d.point(x, y, diagrams.BLUE, filled=i in kept)
        d.text(650, y + 5, verdict, diagrams.MUTED, "start")
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
