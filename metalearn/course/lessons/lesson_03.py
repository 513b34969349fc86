"""Exercises and quiz of lesson 03, first-order shortcuts."""

import functools

import jax
import numpy as np

from metalearn.course.exercises.exercise import Exercise, Misconception, Question
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
    with_a_loop,
)
from metalearn.course.widgets import diagrams

# 03.gradient_count --------------------------------------------------------------------------------------------------


def _counts(joint=lambda k: 1, maml=lambda k: 3 * k + 1, fo_maml=lambda k: k + 1, reptile=lambda k: k):
    """A counting function from one rule for each method."""
    rules = {"joint": joint, "maml": maml, "fo_maml": fo_maml, "reptile": reptile}
    return lambda method, num_steps: rules[method](num_steps)


def _by_adding_up(method, num_steps):
    walk = 0 if method == "joint" else num_steps
    query = 0 if method == "reptile" else 1
    back = 2 * num_steps if method == "maml" else 0
    return walk + query + back


GRADIENT_COUNT = Exercise(
    id="03.gradient_count",
    title="The cost of a meta-gradient, in gradients",
    difficulty=1,
    minutes=5,
    reference=_counts(),
    instances=lambda rng: [
        (method, num_steps)
        for num_steps in (1, 5, int(rng.integers(10, 100)))
        for method in ("joint", "maml", "fo_maml", "reptile")
    ],
    misconceptions=(
        Misconception(
            "one gradient for a product",
            _counts(maml=lambda k: 2 * k + 1),
            "Your count for MAML is $2K + 1$. Either a Hessian-vector product counts as one gradient, or the walk "
            "forwards is missing. MAML walks $K$ steps, takes the query gradient, and carries it back $K$ times.",
        ),
        Misconception(
            "free way back",
            _counts(maml=lambda k: k + 1),
            "Your count for MAML stops at the query gradient, where FO-MAML stops. What does MAML do with it then?",
        ),
        Misconception(
            "only the way back",
            _counts(maml=lambda k: 2 * k),
            "Your count for MAML has only the Hessian-vector products. Their points must be reached first.",
        ),
        Misconception(
            "product of the query gradient",
            _counts(maml=lambda k: 3 * (k + 1)),
            "Your count for MAML has one Hessian-vector product too many: there is one for each *inner* step.",
        ),
        Misconception(
            "Reptile asks the query set",
            _counts(reptile=lambda k: k + 1),
            "Your count for Reptile has a query gradient. Look at its formula, $\\theta - \\phi_K$: where is $f$?",
        ),
        Misconception(
            "FO-MAML without its query gradient",
            _counts(fo_maml=lambda k: k),
            "Your count for FO-MAML is that of the walk alone. Its result is a gradient too: of which loss, and where?",
        ),
        Misconception(
            "FO-MAML as dear as MAML",
            _counts(fo_maml=lambda k: 3 * k + 1),
            "You count Hessian-vector products for FO-MAML. Which factors did it leave out?",
        ),
        Misconception(
            "joint training adapts",
            _counts(joint=lambda k: k + 1),
            "Your count for joint training contains inner steps. It takes the query gradient where it stands.",
        ),
    ),
    alternatives=(_by_adding_up,),
    hints=(
        "Three questions for each method: how many inner steps does it walk? Does it take the query gradient? "
        "Does it carry it back?",
        "The way back costs one Hessian-vector product for each inner step, and each of those counts as two gradients.",
    ),
    expected="`gradient_count('joint', 5)` is 1. For many steps, MAML costs about three times as much as FO-MAML.",
)

# 03.fixed_points ----------------------------------------------------------------------------------------------------


def _weighted_means(maml, fo_maml, reptile):
    """Fixed points from one rule for each method: (curvature, factor) -> weights."""

    def fixed_points(curvature, minimum, step_size, num_steps):
        factor = (1 - step_size * curvature) ** num_steps
        weights = [rule(curvature, factor) for rule in (maml, fo_maml, reptile)]
        return np.array([np.sum(w * minimum) / np.sum(w) for w in weights])

    return fixed_points


def _maml_weight(a, j):
    return a * j**2


def _fo_maml_weight(a, j):
    return a * j


def _reptile_weight(a, j):
    return 1 - j


_fixed_points = _weighted_means(_maml_weight, _fo_maml_weight, _reptile_weight)


def _by_solving(curvature, minimum, step_size, num_steps):
    """An alternative: each displacement is affine in the start, so two evaluations find its root."""

    def adapted(theta):
        for _ in range(num_steps):
            theta = theta - step_size * curvature * (theta - minimum)
        return theta

    factor = (1 - step_size * curvature) ** num_steps
    directions = (
        lambda theta: np.mean(factor * curvature * (adapted(theta) - minimum)),
        lambda theta: np.mean(curvature * (adapted(theta) - minimum)),
        lambda theta: np.mean(theta - adapted(theta)),
    )
    return np.array([-g(0.0) / (g(1.0) - g(0.0)) for g in directions])


FIXED_POINTS = Exercise(
    id="03.fixed_points",
    title="Where each method comes to rest",
    difficulty=2,
    minutes=10,
    reference=_fixed_points,
    instances=lambda rng: [
        (np.array([3.0, 0.5]), np.array([-1.0, 2.0]), 0.3, 2),
        (rng.uniform(0.2, 2, 2), rng.normal(0, 2, 2), 0.3, 5),
        (rng.uniform(0.2, 2, 6), rng.normal(0, 2, 6), 0.2, 3),
    ],
    misconceptions=(
        Misconception(
            "MAML with one factor",
            _weighted_means(_fo_maml_weight, _fo_maml_weight, _reptile_weight),
            "Your MAML rests where FO-MAML does. In MAML the factor appears twice: once because the adapted point is "
            "closer, and once more. Where does the second one come from?",
        ),
        Misconception(
            "FO-MAML with two factors",
            _weighted_means(_maml_weight, _maml_weight, _reptile_weight),
            "Your FO-MAML rests where MAML does. Which of the two factors does FO-MAML leave out?",
        ),
        Misconception(
            "MAML and FO-MAML swapped",
            _weighted_means(_fo_maml_weight, _maml_weight, _reptile_weight),
            "You have MAML and FO-MAML the other way round. Which one sees the query gradient through the factor $J$?",
        ),
        Misconception(
            "Reptile keeps what is left",
            _weighted_means(_maml_weight, _fo_maml_weight, lambda a, j: j),
            "Your weight for Reptile is $J$, the part of the way that is *left*. Reptile moves by the other part.",
        ),
        Misconception(
            "Reptile as a gradient",
            _weighted_means(_maml_weight, _fo_maml_weight, lambda a, j: a * (1 - j)),
            "You multiplied Reptile's weight by the curvature. It is a displacement, not a gradient: "
            "write $\\theta - \\phi_K$ in terms of $\\theta - m$.",
        ),
        Misconception(
            "no adaptation",
            _weighted_means(lambda a, j: a, lambda a, j: a, lambda a, j: a),
            "These are the weights of joint training, which does not adapt. Where does the factor $J$ enter?",
        ),
        Misconception(
            "curvature forgotten",
            _weighted_means(lambda a, j: j**2, lambda a, j: j, _reptile_weight),
            "The query gradient of a parabola is $a\\,(\\phi - m)$. Your weights have no $a$.",
        ),
        Misconception(
            "plain mean",
            lambda curvature, minimum, step_size, num_steps: np.full(3, np.mean(minimum)),
            "This is the plain mean of the minima. Every method weighs the tasks; set its mean direction to zero "
            "and solve for $\\theta$.",
        ),
        Misconception(
            "weights not normalised",
            lambda curvature, minimum, step_size, num_steps: np.array(
                [
                    np.mean(rule(curvature, (1 - step_size * curvature) ** num_steps) * minimum)
                    for rule in (_maml_weight, _fo_maml_weight, _reptile_weight)
                ]
            ),
            "You have the right weights, but they do not add up to one. What is left when you solve "
            "$\\sum w_i (\\theta - m_i) = 0$ for $\\theta$?",
        ),
        Misconception(
            "one long step",
            lambda curvature, minimum, step_size, num_steps: _fixed_points(
                curvature, minimum, num_steps * step_size, 1
            ),
            "You replaced $K$ steps of size $\\alpha$ by one step of size $K\\alpha$. Each step starts where the last "
            "one ended, so the factors multiply.",
        ),
        Misconception(
            "one step too few",
            lambda curvature, minimum, step_size, num_steps: _fixed_points(
                curvature, minimum, step_size, num_steps - 1
            ),
            "Your factor has the power $K - 1$. After $K$ steps, how often was the distance multiplied by "
            "$1 - \\alpha a$?",
        ),
    ),
    alternatives=(_by_solving,),
    hints=(
        "Write $J = (1 - \\alpha a)^K$ for each task. Then express each method's direction as a weight times "
        "$(\\theta - m)$; the text above has all three.",
        "If $\\sum_i w_i (\\theta - m_i) = 0$, then $\\theta$ is the mean of the $m_i$ with weights $w_i$.",
    ),
    expected="Three numbers. For the two parabolas above they are the three points of the figure.",
)

# 03.repair ----------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _last_step_only(loss, task, params, step_size, num_steps):
    moved = adapt(loss, task.support, params, step_size, num_steps - 1)
    return gradient_after(loss, task.support, task.query, moved, step_size, 1)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _sum_along_the_way(loss, task, params, step_size, num_steps):
    def total(start):
        value, phi = 0.0, start
        for _ in range(num_steps):
            phi = move(phi, gradient_at(loss, phi, task.support), step_size)
            value = value + loss(phi, task.query)
        return value

    return jax.grad(total)(params)


REPAIR = Exercise(
    id="03.repair",
    title="Repair a suspect",
    difficulty=2,
    minutes=10,
    reference=meta_gradient,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.5, 4),
        (network, curve_task(rng, 6, 4), network_params(rng, 3), 0.1, 2),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            first_order,
            "This is the FO-MAML gradient, $\\nabla f(\\phi_K)$. It is the slope of the query loss *at* the adapted "
            "parameters. No factor $(I - \\alpha H_k)$ is in it, because nothing is differentiated through the loop.",
        ),
        Misconception(
            "all steps from the start",
            steps_from_the_start,
            "This is the exact gradient of another loop: every inner step uses the slope at the *start*, so $K$ steps "
            "are one step of size $K\\alpha$. Which variable should the slope be taken at?",
        ),
        Misconception(
            "only the last step",
            _last_step_only,
            "This is $(I - \\alpha H_{K-1}) \\nabla f(\\phi_K)$: the loop moved the start itself, so only the last "
            "step was differentiated. With respect to which point should the gradient be taken?",
        ),
        Misconception(
            "query loss of every step",
            _sum_along_the_way,
            "This is the gradient of the query losses after *every* inner step, added up. "
            "Which one does $F(\\theta) = f(\\phi_K)$ ask for?",
        ),
        Misconception(
            "gradient at the start",
            lambda loss, task, params, step_size, num_steps: gradient_at(loss, params, task.query),
            "This is the query gradient at the start, as if nothing adapted.",
        ),
        Misconception(
            "support and query swapped",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.query, task.support, params, step_size, num_steps
            ),
            "This adapts on the query set and scores on the support set. Which of the two may adaptation see?",
        ),
        Misconception(
            "one step too few",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.query, params, step_size, num_steps - 1
            ),
            "This is the exact gradient after $K - 1$ steps. Count how often your loop moves the parameters.",
        ),
        Misconception(
            "one step too many",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.query, params, step_size, num_steps + 1
            ),
            "This is the exact gradient after $K + 1$ steps. Count how often your loop moves the parameters.",
        ),
        Misconception(
            "inner steps uphill",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.query, params, -step_size, num_steps
            ),
            "This is the exact gradient after $K$ steps *up* the support loss. Look at the sign of the inner step.",
        ),
    ),
    alternatives=(with_a_loop, by_recursion),
    hints=(
        "The function that is differentiated must contain the whole loop, from its argument to the query loss.",
        "Name the argument of that function differently from `params`, and let the loop start from it.",
    ),
    expected="A pytree like `params`, the same as `ml.maml` returns.",
)

# 03.hessian_free ----------------------------------------------------------------------------------------------------


def _hf_maml(difference):
    """HF-MAML with a rule for the Hessian-vector product: (slope, params, direction, epsilon) -> product."""

    def gradient(loss, task, params, step_size, epsilon):
        def slope(phi):
            return gradient_at(loss, phi, task.support)

        direction = gradient_at(loss, move(params, slope(params), step_size), task.query)
        return move(direction, difference(slope, params, direction, epsilon), step_size)

    return gradient


def _over(scale, after, before):
    return jax.tree.map(lambda a, b: (a - b) / scale, after, before)


def _central(slope, params, v, e):
    return _over(2 * e, slope(move(params, v, -e)), slope(move(params, v, e)))


def _unit(v):
    length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(v)))
    return jax.tree.map(lambda leaf: leaf / length, v)


def _minus(tree):
    return jax.tree.map(lambda leaf: -leaf, tree)


def _elsewhere(loss, task, params, step_size, epsilon):
    """The difference taken around the adapted parameters."""
    adapted = move(params, gradient_at(loss, params, task.support), step_size)
    v = gradient_at(loss, adapted, task.query)
    return move(v, _central(lambda phi: gradient_at(loss, phi, task.support), adapted, v, epsilon), step_size)


def _of_the_query_loss(loss, task, params, step_size, epsilon):
    v = gradient_at(loss, move(params, gradient_at(loss, params, task.support), step_size), task.query)
    return move(v, _central(lambda phi: gradient_at(loss, phi, task.query), params, v, epsilon), step_size)


def _along_the_start(loss, task, params, step_size, epsilon):
    """The direction is the query gradient at the start."""
    v = gradient_at(loss, params, task.query)
    return move(v, _central(lambda phi: gradient_at(loss, phi, task.support), params, v, epsilon), step_size)


def _with_ravel(loss, task, params, step_size, epsilon):
    """An alternative: the same on one flat vector."""
    start, unravel = jax.flatten_util.ravel_pytree(params)

    def slope(vector, batch):
        return jax.flatten_util.ravel_pytree(gradient_at(loss, unravel(vector), batch))[0]

    v = slope(start - step_size * slope(start, task.support), task.query)
    difference = slope(start + epsilon * v, task.support) - slope(start - epsilon * v, task.support)
    return unravel(v - step_size * difference / (2 * epsilon))


HESSIAN_FREE = Exercise(
    id="03.hessian_free",
    title="MAML without a second derivative",
    difficulty=2,
    minutes=10,
    reference=_hf_maml(_central),
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 0.1),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.5, 0.3),
        (network, curve_task(rng, 6, 4), network_params(rng, 3), 0.1, 0.05),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            _hf_maml(lambda slope, params, v, e: jax.tree.map(np.zeros_like, v)),
            "This is $v = \\nabla f(\\phi_1)$, the FO-MAML gradient. The correction $-\\alpha H v$ is missing.",
        ),
        Misconception(
            "wrong sign",
            _hf_maml(lambda slope, params, v, e: _minus(_central(slope, params, v, e))),
            "You *add* $\\alpha H v$. The factor of one step is $I - \\alpha H$.",
        ),
        Misconception(
            "forward difference",
            _hf_maml(lambda slope, params, v, e: _over(e, slope(move(params, v, -e)), slope(params))),
            "This is the one-sided difference. It costs one gradient less, and its error falls like $\\epsilon$ "
            "instead of $\\epsilon^2$. The exercise asks for the two-sided one.",
        ),
        Misconception(
            "not halved",
            _hf_maml(lambda slope, params, v, e: _over(e, slope(move(params, v, -e)), slope(move(params, v, e)))),
            "The two points are $2\\epsilon v$ apart, but you divided by $\\epsilon$.",
        ),
        Misconception(
            "not divided",
            _hf_maml(lambda slope, params, v, e: _over(1.0, slope(move(params, v, -e)), slope(move(params, v, e)))),
            "You took the difference of two gradients and did not divide it by the distance.",
        ),
        Misconception(
            "direction of length one",
            _hf_maml(lambda slope, params, v, e: _central(slope, params, _unit(v), e)),
            "You made $v$ a unit vector before the difference. What you get is $H v / \\lVert v \\rVert$.",
        ),
        Misconception(
            "around the adapted parameters",
            _elsewhere,
            "Your Hessian is taken at $\\phi_1$. The factor of a step is taken where the step *began*.",
        ),
        Misconception(
            "Hessian of the query loss",
            _of_the_query_loss,
            "Your difference uses gradients of the query loss. Which loss did the inner step descend?",
        ),
        Misconception(
            "query gradient at the start",
            _along_the_start,
            "Your $v$ is the query gradient at the start. MAML carries back the one at the adapted parameters.",
        ),
    ),
    alternatives=(_with_ravel,),
    hints=(
        "Compute $\\phi_1$, then $v = \\nabla f(\\phi_1)$. The correction needs two more support gradients.",
        "Those two are taken at $\\theta + \\epsilon v$ and $\\theta - \\epsilon v$. How far apart are these points?",
    ),
    expected="A pytree like `params`. With $\\epsilon = 0.001$ it agrees with `ml.maml` to five digits or more.",
)

EXERCISES = (GRADIENT_COUNT, FIXED_POINTS, REPAIR, HESSIAN_FREE)

QUIZ = (
    Question(
        "All tasks are quadratic with the same Hessian, and support and query have the same minimum. "
        "Compared with MAML, FO-MAML comes to rest",
        ("at the same point", "nearer the steep task", "nearer the flat task", "nowhere: it diverges"),
        0,
        (
            "Yes: its gradient is still too long, but all tasks have one weight, so the weighted mean is the same.",
            "No task is steeper than another here. What do the weights do then?",
            "No task is flatter than another here. What do the weights do then?",
            "Its direction is a descent direction here; only its length is wrong.",
        ),
    ),
    Question(
        "You halve the inner step α. The meta-gradient at the point where FO-MAML rests becomes, for small α, about",
        ("a quarter as long", "half as long", "equally long", "twice as long"),
        1,
        (
            "The factor that is missing differs from 1 by α times a curvature: which power is that?",
            "Yes: the missing factors differ from the identity in proportion to α.",
            "That is Reptile's case when support and query disagree.",
            "A smaller inner step brings FO-MAML closer to MAML.",
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
            "It walks the same path.",
        ),
    ),
)


def opening() -> str:
    """The picture of the claim: where MAML, FO-MAML, Reptile and joint training converge on two quadratic tasks."""
    steepness, minimum, alpha, num_steps = np.array([3.0, 0.5]), np.array([-1.0, 2.0]), 0.1, 3
    kept = (1 - alpha * steepness) ** num_steps
    weights = {
        "joint": steepness,
        "Reptile": 1 - kept,
        "FO-MAML": steepness * kept,
        "MAML": steepness * kept**2,
    }

    def after(theta):
        return (0.5 * steepness * (kept * (np.asarray(theta)[..., None] - minimum)) ** 2).mean(-1)

    theta = np.linspace(-1.2, 2.2, 200)
    converged = {name: float((weight * minimum).sum() / weight.sum()) for name, weight in weights.items()}
    left = diagrams.plot(
        theta,
        {"": after(theta)},
        "initialization θ",
        f"mean loss after {num_steps} steps",
        points={name: (at, after(at)) for name, at in converged.items()},
    )
    return diagrams.opening(
        left,
        diagrams.shortcuts(),
        ("Cheap, and converged to the wrong point", "What each method takes back to θ"),
        ("Where four methods converge on two quadratic tasks.", "FO-MAML and Reptile leave out the backward pass."),
        "Left: mean loss after adaptation against the initialization. MAML converges to its minimum; joint training, "
        "Reptile and FO-MAML to other points. Right: MAML takes the query gradient back through every factor, FO-MAML "
        "treats every factor as the identity, and Reptile only looks at how far adaptation went.",
    )
