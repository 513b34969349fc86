"""Exercises and quiz of lesson 08, the adjoint method."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
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


def _by_theory(support_hessian, support_minimum, query_hessian, query_minimum, start, horizon):
    """The reference: the library's closed form, for a batch of one task."""
    support = QuadraticBatch(support_hessian[None], support_minimum[None])
    query = QuadraticBatch(query_hessian[None], query_minimum[None])
    return ml.theory.flow(Task(support, query), horizon).task_gradients(start)[0]


def _matrix_exponential(matrix):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.exp(eigenvalues)) @ vectors.T


def _flow(
    exponential=_matrix_exponential,
    adapted=lambda J, m, q, start: m + J @ (start - m),
    carry=lambda J, A, offset: J @ (A @ offset),
):
    """The meta-gradient from its three parts, each of which a misconception may replace."""

    def gradient(support_hessian, support_minimum, query_hessian, query_minimum, start, horizon):
        J = exponential(-horizon * support_hessian)
        end = adapted(J, support_minimum, query_minimum, start)
        return carry(J, query_hessian, end - query_minimum)

    return gradient


def _transposed_eigenvectors(matrix):
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors.T * np.exp(eigenvalues)) @ vectors


def _one_time_unit(support_hessian, support_minimum, query_hessian, query_minimum, start, horizon):
    return _flow()(support_hessian, support_minimum, query_hessian, query_minimum, start, 1.0)


def _exponential_of_the_query_hessian(support_hessian, support_minimum, query_hessian, query_minimum, start, horizon):
    J = _matrix_exponential(-horizon * query_hessian)
    return J @ query_hessian @ (support_minimum + J @ (start - support_minimum) - query_minimum)


def _in_eigenvectors(support_hessian, support_minimum, query_hessian, query_minimum, start, horizon):
    """An alternative: each coordinate decays at its own rate, there and back."""
    rates, basis = jnp.linalg.eigh(support_hessian)
    decay = jnp.exp(-horizon * rates)
    end = support_minimum + basis @ (decay * (basis.T @ (start - support_minimum)))
    return basis @ (decay * (basis.T @ (query_hessian @ (end - query_minimum))))


def _by_squaring(support_hessian, support_minimum, query_hessian, query_minimum, start, horizon):
    """An alternative: the limit of many small factors, two Taylor terms each."""
    small = -horizon * support_hessian / 2**20
    J = np.eye(len(start)) + small + small @ small / 2
    for _ in range(20):
        J = J @ J
    return J @ query_hessian @ (support_minimum + J @ (start - support_minimum) - query_minimum)


def _quadratic_instance(rng, dim, horizon):
    def curved():
        basis = np.linalg.qr(rng.normal(0, 1, (dim, dim)))[0]
        return (basis * rng.uniform(0.2, 1.5, dim)) @ basis.T

    return curved(), rng.normal(0, 1, dim), curved(), rng.normal(0, 1, dim), rng.normal(0, 1, dim), horizon


FLOW_GRADIENT = Exercise(
    id="08.flow_gradient",
    title="Adapt by the flow, in closed form",
    difficulty=2,
    minutes=10,
    reference=_by_theory,
    instances=lambda rng: [
        _quadratic_instance(rng, 2, 0.7),
        _quadratic_instance(rng, 3, 2.0),
        _quadratic_instance(rng, 6, float(rng.uniform(0.4, 0.9))),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            _flow(carry=lambda J, A, offset: A @ offset),
            "This is $p(T)$, the query gradient at the end of the flow. Line 4 says how it gets to time $0$.",
        ),
        Misconception(
            "exponential of each entry",
            _flow(exponential=np.exp),
            "You took the exponential of each entry of the matrix. The matrix exponential maps the *eigenvalues*.",
        ),
        Misconception(
            "growth instead of decay",
            _flow(exponential=lambda matrix: _matrix_exponential(-matrix)),
            "Your exponential grows with the horizon. The flow goes downhill: which sign has its exponent?",
        ),
        Misconception(
            "eigenvectors transposed",
            _flow(exponential=_transposed_eigenvectors),
            "The matrix of eigenvectors is on the wrong side of the eigenvalues. `eigh` returns them as *columns*: "
            "which product with a diagonal matrix gives back $H$?",
        ),
        Misconception(
            "query Hessian in the exponential",
            _exponential_of_the_query_hessian,
            "Your exponential contains the query Hessian. Which loss does the flow descend?",
        ),
        Misconception(
            "start not centred",
            _flow(adapted=lambda J, m, q, start: J @ start),
            "Your adapted point is $e^{-TH}\\theta$, which tends to the origin. Where should the flow end up?",
        ),
        Misconception(
            "flow to the query minimum",
            _flow(adapted=lambda J, m, q, start: q + J @ (start - q)),
            "Your flow tends to the query minimum. Adaptation may see the support set only.",
        ),
        Misconception(
            "query gradient at the start",
            _flow(adapted=lambda J, m, q, start: start),
            "You carry the query gradient at the *start* back. Line 4 begins at the end of the flow.",
        ),
        Misconception(
            "only the way forwards and back again",
            _flow(carry=lambda J, A, offset: A @ (J @ offset)),
            "You have both parts, in the wrong order: $e^{-TH}$ and $A$ do not commute. The query gradient comes "
            "first, and is then carried back.",
        ),
        Misconception(
            "horizon forgotten",
            _one_time_unit,
            "This is right for $T = 1$. Where does the horizon enter?",
        ),
        Misconception(
            "one long step",
            _flow(exponential=lambda matrix: np.eye(len(matrix)) + matrix),
            "This is one gradient step of size $T$: $I - TH$ instead of its limit for many small steps.",
        ),
    ),
    alternatives=(_in_eigenvectors, _by_squaring),
    hints=(
        "Three parts: the matrix $J = e^{-TH}$, the adapted point $u(T)$, and the query gradient there, carried back.",
        "With `eigenvalues, vectors = np.linalg.eigh(H)`, the matrix `vectors @ np.diag(eigenvalues) @ vectors.T` is "
        "$H$ again. Map the eigenvalues before you put them together.",
    ),
    expected="An array like the start, the same as `ml.theory.flow(tasks, horizon).task_gradients(start)` for that "
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
    """A stored path: gradient steps, each a little off, since the sweep must work along any path."""
    path = np.array(path_of(loss, task.support, start, step_size, num_steps))
    return loss, task, path + rng.normal(0, 0.05, path.shape), step_size


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
    ],
    misconceptions=(
        Misconception(
            "Euler steps",
            _sweep(step=lambda later, earlier, p, h: p - h * (later @ p)),
            "These are Euler steps: only the slope where the step begins is used. Heun's rule looks at a second one.",
        ),
        Misconception(
            "Euler steps with the earlier Hessian",
            _sweep(step=lambda later, earlier, p, h: p - h * (earlier @ p)),
            "These are the factors of lesson 02, $(I - sH(u_k))$, with one slope for each step. Heun's rule takes two.",
        ),
        Misconception(
            "wrong sign",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, _ahead, p, -h)),
            "Your $p$ grows where the curvature is positive. $dp/dt = Hp$ is solved towards *smaller* $t$: which sign "
            "has the step?",
        ),
        Misconception(
            "forward order",
            _sweep(ends=lambda path: _intervals(path)[::-1]),
            "You walked the path from its start. The sweep begins where $p(T)$ is known.",
        ),
        Misconception(
            "both Hessians at the later point",
            _sweep(step=lambda later, earlier, p, h: _heun(later, later, _ahead, p, h)),
            "Both of your slopes use the Hessian at $u_{k+1}$. The second one looks where the step *arrives*.",
        ),
        Misconception(
            "both Hessians at the earlier point",
            _sweep(step=lambda later, earlier, p, h: _heun(earlier, earlier, _ahead, p, h)),
            "Both of your slopes use the Hessian at $u_k$. The first one is taken where the step *begins*: going "
            "back, which point is that?",
        ),
        Misconception(
            "Hessians swapped",
            _sweep(step=lambda later, earlier, p, h: _heun(earlier, later, _ahead, p, h)),
            "Your two Hessians are swapped. Going back, the step begins at $u_{k+1}$ and arrives at $u_k$.",
        ),
        Misconception(
            "second slope without the step",
            _sweep(step=lambda later, earlier, p, h: _heun(later, earlier, lambda p, a, h: p, p, h)),
            "Your second slope multiplies $p$ itself. Heun's rule first goes where Euler would arrive.",
        ),
        Misconception(
            "not halved",
            _sweep(step=lambda later, earlier, p, h: p - h * (later @ p) - h * (earlier @ (p - h * (later @ p)))),
            "You went back with the *sum* of the two slopes.",
        ),
        Misconception(
            "Hessian of the query loss",
            _sweep(hessian_of=lambda task: task.query),
            "Your Hessians are those of the query loss. Which loss does the flow descend?",
        ),
        Misconception(
            "final gradient at the start",
            _sweep(final=lambda loss, task, path: gradient_at(loss, path[0], task.query)),
            "Your $p$ begins with the query gradient at the start of the path. Where is $p(T)$ taken?",
        ),
        Misconception(
            "final gradient of the support loss",
            _sweep(final=lambda loss, task, path: gradient_at(loss, path[-1], task.support)),
            "Your $p$ begins with the support gradient. Which loss scores the result?",
        ),
        Misconception(
            "no sweep",
            _sweep(ends=lambda path: []),
            "This is $p(T)$, the FO-MAML gradient. Is your loop ever entered?",
        ),
        Misconception(
            "last interval missing",
            _sweep(ends=lambda path: _intervals(path, skip_last=1)),
            "The interval next to $T$ is missing. A path of $K + 1$ points has $K$ intervals.",
        ),
        Misconception(
            "first interval missing",
            _sweep(ends=lambda path: _intervals(path, skip_first=1)),
            "Your sweep stops one interval before the start. A path of $K + 1$ points has $K$ intervals.",
        ),
    ),
    alternatives=(_by_scan, _with_matrices),
    hints=(
        "Begin with $p = \\nabla f(u_K)$. Go through $k = K - 1, \\dots, 0$; the step from $u_{k+1}$ to $u_k$ needs "
        "two products of a Hessian and a vector.",
        "A Hessian-vector product is the derivative of the support gradient in one direction: `jax.jvp` of "
        "`jax.grad(loss)`. Towards smaller $t$, the step is $p$ minus $s$ times a slope.",
    ),
    expected="An array like one point of the path. For small $s$ it approaches the gradient of the flow.",
)

# 08.longest_horizon -------------------------------------------------------------------------------------------------


def _horizon(rate=lambda eigenvalues: eigenvalues[-1], span=lambda error, tolerance: np.log(tolerance / error)):
    """The horizon from its two parts: how fast errors grow, and by how many powers of e they may."""

    def longest(hessian, error, tolerance):
        return span(error, tolerance) / rate(np.linalg.eigvalsh(hessian))

    return longest


def _by_growth(hessian, error, tolerance):
    """An alternative: what one unit of time does to the worst error, as a matrix norm."""
    growth = np.linalg.norm(_matrix_exponential(0.01 * hessian), 2)
    return 0.01 * (math.log(tolerance) - math.log(error)) / math.log(growth)


def _symmetric(rng, eigenvalues):
    basis = np.linalg.qr(rng.normal(0, 1, (len(eigenvalues), len(eigenvalues))))[0]
    return (basis * eigenvalues) @ basis.T


LONGEST_HORIZON = Exercise(
    id="08.longest_horizon",
    title="How far back can you see?",
    difficulty=1,
    minutes=5,
    reference=_horizon(),
    instances=lambda rng: [
        (np.diag([20.0, 1.0]), 2e-16, 1.0),
        (_symmetric(rng, rng.uniform(0.5, 4, 3)), 1e-7, float(rng.uniform(0.01, 0.1))),
        (_symmetric(rng, np.array([-6.0, -0.5, 1.0, 2.5])), 1e-12, float(rng.uniform(2, 5))),
    ],
    misconceptions=(
        Misconception(
            "smallest curvature",
            _horizon(rate=lambda eigenvalues: eigenvalues[0]),
            "You used the smallest eigenvalue. In which direction does an error grow fastest on the way back?",
        ),
        Misconception(
            "largest absolute value",
            _horizon(rate=lambda eigenvalues: np.abs(eigenvalues).max()),
            "You used the largest *absolute* eigenvalue. Where the curvature is negative, the flow pushes points "
            "apart. What does the way back do to an error there?",
        ),
        Misconception(
            "mean curvature",
            _horizon(rate=np.mean),
            "You used the mean curvature. The error has an unknown direction: plan for the worst one.",
        ),
        Misconception(
            "trace",
            _horizon(rate=np.sum),
            "You used the trace, which says how *volumes* grow. One error grows in one direction.",
        ),
        Misconception(
            "no logarithm",
            _horizon(span=lambda error, tolerance: tolerance / error),
            "Your horizon is astronomically long. Errors grow exponentially with $T$, so $T$ enters in the exponent.",
        ),
        Misconception(
            "powers of ten",
            _horizon(span=lambda error, tolerance: np.log10(tolerance / error)),
            "You counted powers of ten. Errors grow by powers of $e$.",
        ),
        Misconception(
            "tolerance forgotten",
            _horizon(span=lambda error, tolerance: -np.log(error)),
            "This is right for a tolerance of 1. How much may *this* error grow?",
        ),
        Misconception(
            "sign",
            _horizon(span=lambda error, tolerance: np.log(error / tolerance)),
            "Your horizon is negative. Which of the two lengths is the larger one?",
        ),
        Misconception(
            "loss instead of distance",
            _horizon(rate=lambda eigenvalues: 2 * eigenvalues[-1]),
            "Your error grows like $e^{2LT}$. That is the growth of a *loss*, which is the square of a distance.",
        ),
        Misconception(
            "curvature multiplied",
            lambda hessian, error, tolerance: np.log(tolerance / error) * np.linalg.eigvalsh(hessian)[-1],
            "Your horizon grows with the curvature. What matters is the product $LT$: with a larger $L$, is the "
            "horizon longer or shorter?",
        ),
    ),
    alternatives=(_by_growth,),
    hints=(
        "On the way back, an error along an eigenvector with eigenvalue $\\lambda$ is multiplied by $e^{\\lambda T}$. "
        "Which eigenvalue is the worst?",
        "Write down the equation: the error, times its largest growth, equals the tolerance. Solve it for $T$.",
    ),
    expected="One number. For curvatures 20 and 1, an error of 2e-16 and a tolerance of 1 it is near 1.8.",
)

# 08.checkpoint_bill -------------------------------------------------------------------------------------------------


def _bill(points=lambda k, c: k // c + c, gradients=lambda k, c: 4 * k + 1):
    """A bill from one rule for each of its numbers."""
    return lambda num_steps, spacing: (points(num_steps, spacing), gradients(num_steps, spacing))


def _by_walking(num_steps, spacing):
    """An alternative: do the bookkeeping step by step."""
    gradients, most = 0, 0
    memory = set()
    for step in range(num_steps):
        if step % spacing == 0:
            memory.add(("checkpoint", step))
        gradients += 1
    gradients += 1
    for first in reversed(range(0, num_steps, spacing)):
        segment = {("walked again", step + 1) for step in range(first, first + spacing)}
        gradients += len(segment)
        most = max(most, len(memory | segment))
        gradients += 2 * len(segment)
        memory.discard(("checkpoint", first))
    return most, gradients


def _sizes(rng):
    spacing = int(rng.integers(3, 12))
    return spacing * int(rng.integers(13, 40)), spacing


CHECKPOINT_BILL = Exercise(
    id="08.checkpoint_bill",
    title="The bill for checkpoints",
    difficulty=1,
    minutes=10,
    reference=_bill(),
    instances=lambda rng: [(100, 10), (96, 4), (60, 30), _sizes(rng)],
    misconceptions=(
        Misconception(
            "nothing walked again",
            _bill(gradients=lambda k, c: 3 * k + 1),
            "Your gradients are $3K + 1$: those of MAML with a stored path. Either the segments are not walked again, "
            "or a Hessian-vector product counts as one.",
        ),
        Misconception(
            "no way back",
            _bill(gradients=lambda k, c: 2 * k + 1),
            "You count the two walks and the query gradient. The Hessian-vector products of the way back are missing.",
        ),
        Misconception(
            "no query gradient",
            _bill(gradients=lambda k, c: 4 * k),
            "One gradient is missing. What does the way back begin with?",
        ),
        Misconception(
            "walked again from the start",
            _bill(gradients=lambda k, c: k + 1 + sum(range(c, k + 1, c)) + 2 * k),
            "You walk every segment again from step $0$. What are the checkpoints for?",
        ),
        Misconception(
            "checkpoints only",
            _bill(points=lambda k, c: k // c),
            "You count the checkpoints. The sweep goes back along a segment: where are its points?",
        ),
        Misconception(
            "segment only",
            _bill(points=lambda k, c: c),
            "You count one segment. The checkpoints of all earlier segments are still needed.",
        ),
        Misconception(
            "all points",
            _bill(points=lambda k, c: k + 1),
            "This is the whole path. Which points are kept on the way forwards, and when is a segment forgotten?",
        ),
        Misconception(
            "checkpoints times segment",
            _bill(points=lambda k, c: k // c * c),
            "You keep the points of all segments at once: that is the whole path again. One segment at a time is "
            "enough.",
        ),
        Misconception(
            "spacing taken for a number",
            _bill(points=lambda k, c: c + c),
            "You took the spacing for the number of checkpoints as well. How often does a segment of $c$ steps fit "
            "into $K$?",
        ),
    ),
    alternatives=(_by_walking,),
    hints=(
        "Draw $K = 6$ and $c = 2$. Which points are in memory while the last segment is swept back? Which are still "
        "needed for the first?",
        "Every step is walked how often? Every step is carried back through how many Hessian-vector products? And one "
        "gradient belongs to no step.",
    ),
    expected="Two whole numbers. For 100 steps and a spacing of 10 there are 20 points instead of 101, for a third "
    "more gradients than MAML takes.",
)

EXERCISES = (FLOW_GRADIENT, ADJOINT_SWEEP, LONGEST_HORIZON, CHECKPOINT_BILL)

QUIZ = (
    Question(
        "You halve the size of the inner steps and double their number. The gap between the end of gradient descent "
        "and the end of the gradient flow becomes about",
        ("the same", "half as large", "a quarter as large", "larger: rounding errors add up"),
        1,
        (
            "The horizon is the same, but the steps are closer to the flow.",
            "Yes: gradient descent is a first-order method for the flow.",
            "That would be a second-order method, such as Heun's.",
            "Downhill, errors shrink. It is the way back that makes them grow.",
        ),
    ),
    Question(
        "Float32, L = 100, 1,000 inner steps of size 0.005. Can the path be integrated backwards from its end?",
        (
            "Yes: LT is about 5",
            "No: LT is about 500",
            "Only with a solver of higher order",
            "Only in float64",
        ),
        1,
        (
            "T is the product of the step size and the number of steps.",
            "Yes: rounding errors would be multiplied by about exp(500). About 16 is the end for float32.",
            "Rounding errors are in the stored end point already. No solver can take them out.",
            "Float64 lasts until about 36.",
        ),
    ),
    Question(
        "An adjoint method agrees with the exact meta-gradient on a quadratic. What does this say about its path?",
        (
            "Nothing: the Hessian is the same everywhere",
            "The path was recovered to the same accuracy",
            "The path was stored",
            "LT was below 36",
        ),
        0,
        (
            "Yes: on a quadratic the gradient is right even along a wrong path.",
            "In this lesson the path was lost and the gradient was right.",
            "It may have been integrated backwards, and lost.",
            "The lesson's bowl had LT = 40.",
        ),
    ),
)


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
