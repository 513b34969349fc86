"""Exercises and quiz of lesson 02, MAML."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.lessons.adaptation import (
    adapt,
    by_recursion,
    cosines,
    curve_task,
    first_order,
    gradient_after,
    gradient_at,
    line_task,
    meta_gradient,
    move,
    network,
    network_params,
    path_of,
    points_task,
    regression,
    stack,
    steps_from_the_start,
    wave,
    with_a_loop,
)
from metalearn.course.widgets import diagrams


@functools.partial(jax.jit, static_argnums=0)
def _hessian(loss, params, batch):
    return jax.hessian(loss)(params, batch)


# 02.meta_gradient ---------------------------------------------------------------------------------------------------


META_GRADIENT = Exercise(
    id="02.meta_gradient",
    title="The gradient of the loss after adaptation",
    difficulty=2,
    minutes=10,
    reference=meta_gradient,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.1, 1),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.5, 4),
        (network, curve_task(rng, 6, 4), network_params(rng, 3), 0.1, 2),
    ],
    misconceptions=(
        Misconception(
            "first-order",
            first_order,
            "Your result equals the FO-MAML gradient, $\\nabla f(\\phi_K)$: the factors $(I - \\alpha H_k)$ are "
            "missing. Does the function that you differentiate contain the inner steps, and does nothing stop the "
            "gradient there?",
        ),
        Misconception(
            "gradient at the start",
            lambda loss, task, params, step_size, num_steps: gradient_at(loss, params, task.query),
            "This is the query gradient at the start, as if nothing adapted. "
            "Does the function that you differentiate contain the inner steps?",
        ),
        Misconception(
            "support and query swapped",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.query, task.support, params, step_size, num_steps
            ),
            "You adapt on the query set and score on the support set. Which of the two may adaptation see?",
        ),
        Misconception(
            "scored on the support set",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.support, params, step_size, num_steps
            ),
            "You adapt and score on the same support points, so the meta-gradient rewards memorising them. "
            "Which points judge the adapted parameters?",
        ),
        Misconception(
            "adapted on the query set",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.query, task.query, params, step_size, num_steps
            ),
            "Your inner steps see the query points, which are there to score. Which set may adaptation see?",
        ),
        Misconception(
            "one step too few",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.query, params, step_size, num_steps - 1
            ),
            "This is the meta-gradient after one inner step too few. Count the passes through your loop.",
        ),
        Misconception(
            "one step too many",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.query, params, step_size, num_steps + 1
            ),
            "This is the meta-gradient after one inner step too many. Count the passes through your loop.",
        ),
        Misconception(
            "uphill",
            lambda loss, task, params, step_size, num_steps: gradient_after(
                loss, task.support, task.query, params, -step_size, num_steps
            ),
            "Your inner steps walk uphill: the support loss grows. Look at the sign of the inner step.",
        ),
        Misconception(
            "every step from the start",
            steps_from_the_start,
            "Your inner gradients are all taken at the start, so the steps are one long straight step. "
            "Where does step $k$ begin?",
        ),
        Misconception(
            "displacement",
            lambda loss, task, params, step_size, num_steps: jax.tree.map(
                lambda p, q: p - q, params, adapt(loss, task.support, params, step_size, num_steps)
            ),
            "This is $\\theta - \\phi_K$, how far adaptation moved: Reptile's direction. "
            "Where does the query loss enter your answer?",
        ),
    ),
    alternatives=(by_recursion, with_a_loop),
    hints=(
        "Write a small function of the start alone: adapt from it, then return the query loss. "
        "What is its gradient, and who can compute it for you?",
        "The inner loop is a `for` loop (or `jax.lax.scan`) with "
        "`params = jax.tree.map(lambda p, g: p - step_size * g, params, gradient)`. "
        "It has to sit *inside* the function that `jax.grad` sees.",
    ),
    expected="A pytree with the structure and shapes of `params`. For the wave task above with $\\alpha = 0.1$ and "
    "$K = 3$ it equals the product of the three factors with the query gradient, the last line of the derivation.",
)

# 02.backward_pass ---------------------------------------------------------------------------------------------------


def _product(loss, task, params, step_size, num_steps, *, points=None, batch=None, factor=None):
    """Multiplies the query gradient by one factor per point, the first point's factor first."""
    path = path_of(loss, task.support, params, step_size, num_steps)
    vector = gradient_at(loss, path[-1], task.query)
    for point in path[-2::-1] if points is None else points(path):
        curvature = _hessian(loss, point, task.support if batch is None else batch) @ vector
        vector = vector - step_size * curvature if factor is None else factor(vector, curvature)
    return vector


def _with_jvp(loss, task, params, step_size, num_steps):
    path = path_of(loss, task.support, params, step_size, num_steps)
    vector = gradient_at(loss, path[-1], task.query)
    for point in reversed(path[:-1]):
        _, curvature = jax.jvp(lambda phi: jax.grad(loss)(phi, task.support), (point,), (vector,))
        vector = vector - step_size * curvature
    return vector


BACKWARD_PASS = Exercise(
    id="02.backward_pass",
    title="The same gradient by hand, from the last step to the first",
    difficulty=3,
    minutes=15,
    reference=meta_gradient,
    instances=lambda rng: [
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.2, 3),
        (wave, curve_task(rng, 5, 5), rng.normal(1, 0.3, 2), 0.15, 1),
        (cosines, points_task(rng, 4, 4, 6), rng.normal(0, 1, 4), 0.7, 4),
        (regression, line_task(rng, 6, 4), rng.normal(0, 1, 3), 0.3, 5),
    ],
    misconceptions=(
        Misconception(
            "no factors",
            first_order,
            "No factor $(I - \\alpha H_k)$ reached your vector: this is $\\nabla f(\\phi_K)$, the FO-MAML gradient. "
            "Does the vector change in your loop?",
        ),
        Misconception(
            "first step first",
            lambda *args: _product(*args, points=lambda path: path[:-1]),
            "Your factors come in the order of the steps. The gradient travels backwards: "
            "which factor stands next to $\\nabla f(\\phi_K)$ in the product?",
        ),
        Misconception(
            "curvature of the query loss",
            lambda loss, task, *args: _product(loss, task, *args, batch=task.query),
            "Your factors hold the curvature of the query loss. Which loss do the inner steps descend?",
        ),
        Misconception(
            "curvature at the start",
            lambda *args: _product(*args, points=lambda path: path[:1] * (len(path) - 1)),
            "Every curvature is taken at the start. That is right for a quadratic loss only. "
            "Where on the path does step $k$ look at the slope?",
        ),
        Misconception(
            "curvature at the end",
            lambda *args: _product(*args, points=lambda path: path[-1:] * (len(path) - 1)),
            "Every curvature is taken at the adapted parameters. Where on the path does step $k$ look at the slope?",
        ),
        Misconception(
            "curvature one point late",
            lambda *args: _product(*args, points=lambda path: path[:0:-1]),
            "Your curvatures are taken where each step ends. Step $k$ goes from $\\phi_k$ to $\\phi_{k+1}$: "
            "at which of the two is its gradient?",
        ),
        Misconception(
            "plus",
            lambda loss, task, params, step_size, num_steps: _product(
                loss, task, params, step_size, num_steps, factor=lambda v, hv: v + step_size * hv
            ),
            "Your factors are $(I + \\alpha H_k)$: they stretch where a step contracts. "
            "Differentiate $\\phi - \\alpha \\nabla h(\\phi)$ once more.",
        ),
        Misconception(
            "no step size",
            lambda *args: _product(*args, factor=lambda v, hv: v - hv),
            "Your factors are $(I - H_k)$: the step size is missing.",
        ),
        Misconception(
            "one factor too few",
            lambda *args: _product(*args, points=lambda path: path[-2:0:-1]),
            "The factor of the first step, at the start itself, is missing. "
            "There are as many factors as steps: where does your loop end?",
        ),
        Misconception(
            "only the curvature",
            lambda loss, task, params, step_size, num_steps: _product(
                loss, task, params, step_size, num_steps, factor=lambda v, hv: step_size * hv
            ),
            "You multiply by $\\alpha H_k$ alone. The identity is missing from the factor.",
        ),
    ),
    alternatives=(_product, _with_jvp),
    hints=(
        "Two loops. The first walks forwards and keeps every point $\\phi_0, \\dots, \\phi_K$ in a list. "
        "The second walks that list backwards and changes one vector.",
        "Before the second loop the vector is the query gradient at $\\phi_K$. "
        "`jax.hessian(loss)(point, batch)` is a matrix, and `@` multiplies.",
    ),
    expected="An array of shape `[d]`, equal to what `ml.maml` returns, without differentiating through the loop.",
)


# 02.meta_step -------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 4))
def _meta_step(loss, tasks, params, step_size, num_steps, meta_step_size):
    learner = ml.meta_learner(ml.maml(loss, optax.sgd(step_size), num_steps), optax.sgd(meta_step_size))
    return learner.step(learner.init(params), tasks)[0].params


def _per_task(function, tasks, *args):
    """Applies function(task, *args) to each task and stacks what comes back."""
    count = len(jax.tree.leaves(tasks)[0])
    results = [function(jax.tree.map(lambda leaf, i=i: leaf[i], tasks), *args) for i in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def _step_along(gradient_of, reduce=jnp.mean, sign=1.0):
    """The outer step with another gradient, another reduction over tasks, or another sign."""

    def step(loss, tasks, params, step_size, num_steps, meta_step_size):
        gradients = _per_task(lambda task: gradient_of(loss, task, params, step_size, num_steps), tasks)
        return move(params, jax.tree.map(lambda leaf: reduce(leaf, axis=0), gradients), sign * meta_step_size)

    return step


def _one_task_after_another(loss, tasks, params, step_size, num_steps, meta_step_size):
    for i in range(len(jax.tree.leaves(tasks)[0])):
        task = jax.tree.map(lambda leaf, i=i: leaf[i], tasks)
        params = move(params, with_a_loop(loss, task, params, step_size, num_steps), meta_step_size)
    return params


def _pooled(loss, tasks, params, step_size, num_steps, meta_step_size):
    pool = jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), tasks)
    return move(params, with_a_loop(loss, pool, params, step_size, num_steps), meta_step_size)


def _mean_adapted(loss, tasks, params, step_size, num_steps, meta_step_size):
    adapted = _per_task(lambda task: adapt(loss, task.support, params, step_size, num_steps), tasks)
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), adapted)


def _gradient_of_the_mean(loss, tasks, params, step_size, num_steps, meta_step_size):
    def mean_loss(start):
        losses = _per_task(lambda task: loss(adapt(loss, task.support, start, step_size, num_steps), task.query), tasks)
        return losses.mean()

    return move(params, jax.grad(mean_loss)(params), meta_step_size)


META_STEP = Exercise(
    id="02.meta_step",
    title="One outer step over a batch of tasks",
    difficulty=2,
    minutes=10,
    reference=_meta_step,
    instances=lambda rng: [
        (wave, stack([curve_task(rng, 5, 5) for _ in range(4)]), rng.normal(1, 0.3, 2), 0.1, 1, 0.05),
        (regression, stack([line_task(rng, 4, 6) for _ in range(3)]), rng.normal(0, 1, 3), 0.2, 3, 0.3),
        (network, stack([curve_task(rng, 6, 6) for _ in range(5)]), network_params(rng, 2), 0.1, 2, 0.1),
    ],
    misconceptions=(
        Misconception(
            "sum over tasks",
            _step_along(with_a_loop, reduce=jnp.sum),
            "You add the tasks' gradients. With twice the tasks your step would be twice as long: "
            "the meta-objective is a mean.",
        ),
        Misconception(
            "uphill",
            _step_along(with_a_loop, sign=-1.0),
            "Your outer step walks uphill. Look at its sign.",
        ),
        Misconception(
            "the gradient itself",
            lambda loss, tasks, params, step_size, num_steps, meta_step_size: jax.tree.map(
                lambda leaf: leaf.mean(axis=0),
                _per_task(lambda task: with_a_loop(loss, task, params, step_size, num_steps), tasks),
            ),
            "This is the mean meta-gradient, and it is right. The task asks for the parameters after the step.",
        ),
        Misconception(
            "one task after another",
            _one_task_after_another,
            "You step after every task, so later tasks start elsewhere. All tasks of a batch share one start, "
            "and the start moves once.",
        ),
        Misconception(
            "tasks pooled",
            _pooled,
            "You adapt to all tasks' points at once. Then there is one task, the average one, "
            "which lesson 01 showed to be useless. Each task adapts alone.",
        ),
        Misconception(
            "mean of the adapted parameters",
            _mean_adapted,
            "You average the adapted parameters. That moves the start to where adaptation ends; "
            "it never asks the query points.",
        ),
        Misconception(
            "first-order",
            _step_along(first_order),
            "Your step follows the FO-MAML gradient: the factors $(I - \\alpha H_k)$ are missing. "
            "Which gradient does `ml.maml` return?",
        ),
        Misconception(
            "no adaptation",
            _step_along(lambda loss, task, params, step_size, num_steps: gradient_at(loss, params, task.query)),
            "You descend the query loss without adapting. This is the joint training of lesson 01.",
        ),
        Misconception(
            "rates swapped",
            lambda loss, tasks, params, step_size, num_steps, meta_step_size: _step_along(with_a_loop)(
                loss, tasks, params, meta_step_size, num_steps, step_size
            ),
            "The two rates are swapped: `step_size` belongs to the inner steps, `meta_step_size` to the outer one.",
        ),
    ),
    alternatives=(_step_along(with_a_loop), _gradient_of_the_mean),
    hints=(
        "`jax.vmap(meta_gradient, in_axes=(None, 0))(params, tasks)` gives a value and a gradient for each task.",
        "What `vmap` returns has one more leading axis in every leaf. Reduce that axis in each leaf "
        "with `jax.tree.map`, then take one step.",
    ),
    expected="New parameters, a pytree like `params`. A small enough step lowers the mean query loss after adaptation.",
)

# 02.largest_step ----------------------------------------------------------------------------------------------------

LARGEST_STEP = Exercise(
    id="02.largest_step",
    title="The largest inner step that keeps the meta-objective tame",
    difficulty=1,
    minutes=5,
    reference=lambda curvature, num_steps: (2 ** (1 / (2 * num_steps)) - 1) / curvature,
    instances=lambda rng: [
        (1.0, 1),
        (1.0, 10),
        (float(rng.uniform(2, 5)), 4),
        (float(rng.uniform(0.1, 0.5)), int(rng.integers(20, 100))),
    ],
    misconceptions=(
        Misconception(
            "one factor per step",
            lambda curvature, num_steps: (2 ** (1 / num_steps) - 1) / curvature,
            "You solved $(1 + \\alpha L)^N = 2$. Curvature feels every contraction twice: "
            "how often does the bound multiply by $1 + \\alpha L$?",
        ),
        Misconception(
            "no curvature",
            lambda curvature, num_steps: 2 ** (1 / (2 * num_steps)) - 1,
            "This is $\\alpha L$. Which $\\alpha$ belongs to a loss with curvature $L$?",
        ),
        Misconception(
            "limit of many steps",
            lambda curvature, num_steps: np.log(2) / (2 * num_steps * curvature),
            "This is $\\ln 2 / (2 N L)$, what the answer tends to for many steps. "
            "It is the right idea and a few per cent off for few steps: solve the equation exactly.",
        ),
        Misconception(
            "rule for plain descent",
            lambda curvature, num_steps: 2 / curvature,
            "This is $2 / L$, the largest step with which gradient descent itself settles. "
            "It does not know how many steps the meta-gradient passes through.",
        ),
        Misconception(
            "factor one",
            lambda curvature, num_steps: 1 / (2 * num_steps * curvature),
            "This is $1 / (2 N L)$: it makes $(1 + \\alpha L)^{2N}$ smaller than $e$, not equal to 2.",
        ),
        Misconception(
            "power instead of root",
            lambda curvature, num_steps: (2 ** (2 * num_steps) - 1) / curvature,
            "You raised 2 to the power $2N$. To undo a power, which root do you take?",
        ),
        Misconception(
            "multiplied by the curvature",
            lambda curvature, num_steps: (2 ** (1 / (2 * num_steps)) - 1) * curvature,
            "You multiplied by $L$. A more curved loss needs a smaller step: which way should $L$ enter?",
        ),
    ),
    alternatives=(lambda curvature, num_steps: np.expm1(np.log(2) / (2 * num_steps)) / curvature,),
    hints=(
        "Write down $(1 + \\alpha L)^{2N} = 2$ and take the root that undoes the power.",
        "After the root, $1 + \\alpha L$ stands alone. Two more operations free $\\alpha$.",
    ),
    expected="A number. Ten times as many steps make it about ten times smaller.",
)

EXERCISES = (META_GRADIENT, BACKWARD_PASS, META_STEP, LARGEST_STEP)

QUIZ = (
    Question(
        "Five inner steps, each of which shrinks distances by a factor 0.9. FO-MAML pretends that the factors are 1. "
        "Compared with the true meta-gradient of one quadratic task in one dimension, its gradient is",
        (
            "longer, in the same direction",
            "shorter, in the same direction",
            "equal, because the task is quadratic",
            "opposite in sign",
        ),
        0,
        (
            "Yes: the true gradient carries the factor 0.9⁵, FO-MAML carries 1.",
            "Which of the two carries a factor below 1?",
            "The factor does not vanish for a quadratic; it is then the same at every point.",
            "The factor is positive, so the sign stays.",
        ),
    ),
    Question(
        "Why does the product of factors run backwards, the last step's factor next to the query gradient?",
        (
            "Because Hessians commute",
            "Because the gradient is carried from the end of the path to its start",
            "Because scan runs backwards",
            "It does not matter",
        ),
        1,
        (
            "They do not: the lesson printed the difference.",
            "Yes: the query gradient lives at the end of the path, and each step hands it one point back.",
            "scan runs forwards; it is its derivative that runs backwards, for the reason asked for.",
            "It does, as soon as two Hessians do not commute; the lesson printed the difference.",
        ),
    ),
    Question(
        "You go from 1 to 10 inner steps and want the meta-objective's curvature bound to stay as it was. "
        "The inner step α should",
        ("stay", "become about 10 times smaller", "become about 10 times larger", "become 2¹⁰ times smaller"),
        1,
        (
            "Then the bound is raised to the tenth power.",
            "Yes: the bound depends on α only through the product of α and the number of steps, nearly.",
            "Then the bound would grow faster still.",
            "Solve (1 + αL)²ᴺ = 2 for N = 1 and N = 10 and compare.",
        ),
    ),
)


def opening() -> str:
    """The picture of the claim: adaptation moves the best initialization, and the meta-gradient knows by how much."""
    steepness, minimum, alpha = np.array([3.0, 0.5]), np.array([-1.0, 2.0]), 0.3
    theta = np.linspace(-2.5, 3.4, 1181)
    before = (0.5 * steepness * (theta[:, None] - minimum) ** 2).mean(-1)
    after = (0.5 * steepness * ((1 - alpha * steepness) * (theta[:, None] - minimum)) ** 2).mean(-1)
    points = {
        f"θ = {plots.number(theta[loss.argmin()], 2)}": (theta[loss.argmin()], loss.min()) for loss in (before, after)
    }
    left = diagrams.plot(
        theta, {"before": before, "after": after}, "initialization θ", "", points=points, ylim=(-0.15, 3.2)
    )
    return diagrams.opening(
        left,
        diagrams.backward_pass(),
        ("One inner step moves the best initialization", "Forward: adapt. Backward: one factor a step."),
        (
            "Mean loss of a steep and a flat task, before and after it.",
            "What the outer loop differentiates, for K = 3.",
        ),
        "Left: the mean loss of two tasks against the initialization. Before adaptation it is lowest near minus 0.6, "
        "after one inner step near 1.8. Right: three inner steps forward, and the backward pass through their factors.",
    )
