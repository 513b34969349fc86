"""Exercises, quiz, predictions and figures of lesson 00: grad, vmap and scan of a pure function."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from metalearn import plots
from metalearn.adaptation import inner
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.widgets import diagrams

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

# --- 00.finite_difference --------------------------------------------------------------------------------------


def finite_difference(function, point, direction, step):
    """The difference of the values at p + ε d and p - ε d, divided by 2 ε."""
    ahead = optax.tree.add_scale(point, step, direction)
    behind = optax.tree.add_scale(point, -step, direction)
    return (function(ahead) - function(behind)) / (2 * step)


def _difference_by_vectors(function, point, direction, step):
    flat_point, unravel = ravel_pytree(point)
    flat_direction, _ = ravel_pytree(direction)
    values = [function(unravel(flat_point + sign * step * flat_direction)) for sign in (1, -1)]
    return 0.5 * (values[0] - values[1]) / step


def _difference_along_a_line(function, point, direction, step):
    def along(distance):
        return function(jax.tree.map(lambda p, d: p + distance * d, point, direction))

    return (along(step) - along(-step)) / step / 2


def _forward(function, point, direction, step):
    return (function(optax.tree.add_scale(point, step, direction)) - function(point)) / step


def _backward(function, point, direction, step):
    return _forward(function, point, direction, -step)


def _without_two(function, point, direction, step):
    return 2 * finite_difference(function, point, direction, step)


def _not_divided(function, point, direction, step):
    return 2 * step * finite_difference(function, point, direction, step)


def _step_of_one(function, point, direction, step):
    return finite_difference(function, point, direction, 1.0)


def _sides_swapped(function, point, direction, step):
    return -finite_difference(function, point, direction, step)


def _all_entries_moved(function, point, direction, step):
    return finite_difference(function, point, jax.tree.map(jnp.ones_like, direction), step)


def _unit_direction(function, point, direction, step):
    return finite_difference(function, point, optax.tree.scale(1 / optax.tree.norm(direction), direction), step)


def _exact(function, point, direction, step):
    return optax.tree.vdot(jax.grad(function)(point), direction)


def _whole_direction(function, point, direction, step):
    return finite_difference(function, point, direction, 1.0) / step


def _leaf_by_leaf(function, point, direction, step):
    leaves, structure = jax.tree.flatten(direction)
    directions = [
        structure.unflatten([leaf if n == place else 0 * leaf for n, leaf in enumerate(leaves)])
        for place in range(len(leaves))
    ]
    return sum(finite_difference(function, point, one, step) for one in directions)


def _scalar_functions(rng):
    """Functions of a vector, a dict and a tuple, at steps large enough to tell a wrong formula from rounding."""

    def cubic(point):
        return jnp.sum(point**3) + point[0] * point[1]

    def layer(params):
        return jnp.sum(jnp.tanh(params["weights"]) @ jnp.exp(params["bias"]))

    def wave(params):
        amplitude, phase = params
        return amplitude**2 * jnp.sin(phase)

    def nested(params):
        (first, second), offset = params["layers"], params["offset"]
        return jnp.sum(first**3) + jnp.sum(second) ** 2 * offset**3

    vector = (rng.normal(size=3), rng.normal(size=3))
    tree = tuple({"weights": rng.normal(size=(2, 4)), "bias": rng.normal(size=4)} for _ in range(2))
    pair = tuple((sign * rng.uniform(1, 2), sign * rng.uniform(0.3, 1)) for sign in (1, -1))
    deep = tuple(
        {"layers": (rng.uniform(0.5, 1.5, 2), rng.uniform(0.5, 1.5, (2, 1))), "offset": sign * rng.uniform(0.5, 1.5)}
        for sign in (1, -1)
    )
    return [(cubic, *vector, 0.3), (layer, *tree, 0.1), (wave, *pair, 0.02), (nested, *deep, 0.2)]


# --- 00.per_task_losses ----------------------------------------------------------------------------------------


def per_task_losses(loss, params, batches):
    """One loss for each task, all with the same params."""
    return jax.vmap(loss, in_axes=(None, 0))(params, batches)


def _losses_one_by_one(loss, params, batches):
    num_tasks = len(jax.tree.leaves(batches)[0])
    return jnp.stack([loss(params, jax.tree.map(operator.itemgetter(t), batches)) for t in range(num_tasks)])


def _losses_by_map(loss, params, batches):
    return jax.lax.map(functools.partial(loss, params), batches)


def _mean_over_tasks(loss, params, batches):
    return jnp.mean(per_task_losses(loss, params, batches))


def _sum_over_tasks(loss, params, batches):
    return jnp.sum(per_task_losses(loss, params, batches))


def _pooled(loss, params, batches):
    return loss(params, batches)


def _first_task_only(loss, params, batches):
    return loss(params, jax.tree.map(operator.itemgetter(0), batches))


def _axis_of_examples(loss, params, batches):
    return jax.vmap(loss, in_axes=(None, 1))(params, batches)


def _loss_of_each_example(loss, params, batches):
    return jax.vmap(functools.partial(per_task_losses, loss, params))(batches)


def _task_batches(rng):
    """A mean of squares and a largest error, which no pooling can imitate; one task; as many tasks as examples."""

    def wave(params, batch):
        x, y = batch
        return jnp.mean((params["amplitude"] * jnp.sin(x - params["phase"]) - y) ** 2)

    def largest_error(weights, batch):
        return jnp.max(jnp.abs(batch["inputs"] @ weights - batch["targets"]))

    def two_outputs(params, batch):
        (slope, (offset,)), (inputs, (first, second)) = params["layers"], batch
        hidden = jnp.tanh(slope * inputs + offset)
        return jnp.mean((hidden - first) ** 2 + (hidden * params["scale"] - second) ** 2)

    one_wave = {"amplitude": rng.uniform(1, 3), "phase": rng.uniform(0, 3)}
    points = (rng.uniform(-5, 5, (6, 10)), rng.normal(size=(6, 10)))
    table = {"inputs": rng.normal(size=(3, 4, 2)), "targets": rng.normal(size=(3, 4))}
    square = (rng.uniform(-5, 5, (5, 5)), rng.normal(size=(5, 5)))
    one_task = (rng.uniform(-5, 5, (1, 7)), rng.normal(size=(1, 7)))
    layers = {"layers": [rng.uniform(0.5, 2), (rng.normal(),)], "scale": rng.normal()}
    nested = (rng.normal(size=(4, 6)), [rng.normal(size=(4, 6)), rng.normal(size=(4, 6))])
    return [
        (wave, one_wave, points),
        (largest_error, rng.normal(size=2), table),
        (wave, one_wave, square),
        (wave, one_wave, one_task),
        (two_outputs, layers, nested),
    ]


# --- 00.gradient_descent ---------------------------------------------------------------------------------------


def gradient_descent(objective, theta, learning_rate, num_steps):
    """The library's inner loop, with plain steps."""
    return inner.descend(objective, optax.sgd(learning_rate), num_steps, theta)


def _descent_by_loop(objective, theta, learning_rate, num_steps):
    for _ in range(num_steps):
        theta = optax.tree.add_scale(theta, -learning_rate, jax.grad(objective)(theta))
    return theta


def _descent_by_recursion(objective, theta, learning_rate, num_steps):
    if num_steps == 0:
        return theta
    before = _descent_by_recursion(objective, theta, learning_rate, num_steps - 1)
    return jax.tree.map(lambda p, g: p - learning_rate * g, before, jax.grad(objective)(before))


def _uphill(objective, theta, learning_rate, num_steps):
    return gradient_descent(objective, theta, -learning_rate, num_steps)


def _one_step_fewer(objective, theta, learning_rate, num_steps):
    return gradient_descent(objective, theta, learning_rate, max(num_steps - 1, 0))


def _one_step_more(objective, theta, learning_rate, num_steps):
    return gradient_descent(objective, theta, learning_rate, num_steps + 1)


def _gradient_of_the_start(objective, theta, learning_rate, num_steps):
    return optax.tree.add_scale(theta, -num_steps * learning_rate, jax.grad(objective)(theta))


def _restarting(objective, theta, learning_rate, num_steps):
    return gradient_descent(objective, theta, learning_rate, min(num_steps, 1))


def _learning_rate_twice(objective, theta, learning_rate, num_steps):
    return gradient_descent(objective, theta, learning_rate**2, num_steps)


def _learning_rate_missing(objective, theta, learning_rate, num_steps):
    return gradient_descent(objective, theta, 1.0, num_steps)


def _all_visited(objective, theta, learning_rate, num_steps):
    def step(params, _):
        params = optax.tree.add_scale(params, -learning_rate, jax.grad(objective)(params))
        return params, params

    return jax.lax.scan(step, theta, length=num_steps)[1]


def _losses_to_descend(rng):
    """A bowl over a vector, a product over a dict, a valley over a tuple; no step, and a single one."""

    def bowl(params):
        return jnp.sum(jnp.arange(1.0, 4.0) * params**2) / 2

    def product(params):
        return (params["left"] * params["right"] - 1) ** 2

    def valley(params):
        weights, bias = params
        return jnp.sum((weights @ weights.T - bias) ** 2) / 4

    def nested(params):
        vector, (scale,) = params["layers"]
        return scale**2 * jnp.sum(vector**2) / 2

    pair = (rng.uniform(0.2, 0.8, (2, 3)), rng.uniform(0.2, 0.8, 2))
    return [
        (bowl, -rng.uniform(1, 2, 3), 0.2, 3),
        (product, {"left": rng.uniform(0.5, 1.5), "right": rng.uniform(1.5, 2)}, 0.1, 5),
        (valley, pair, 0.05, 4),
        (bowl, rng.uniform(1, 2, 3), 0.3, 0),
        (nested, {"layers": [rng.uniform(1, 2, 2), (rng.uniform(1, 2),)]}, 0.1, 1),
    ]


# --- 00.learning_rate_derivative -------------------------------------------------------------------------------


def learning_rate_gradient(objective, theta, learning_rate, num_steps):
    """The derivative of the loss after the last step with respect to the learning rate."""
    return jax.jit(jax.grad(lambda alpha: _final_loss(objective, theta, alpha, num_steps)))(learning_rate)


def _final_loss(objective, theta, learning_rate, num_steps):
    return objective(_descent_by_loop(objective, theta, learning_rate, num_steps))


def _through_a_scan(objective, theta, learning_rate, num_steps):
    return jax.grad(lambda alpha: objective(gradient_descent(objective, theta, alpha, num_steps)))(learning_rate)


def _change(objective, theta, learning_rate, num_steps, hessian_at_theta=False):
    """The last parameters, and their derivative with respect to the learning rate, carried forward along the steps."""

    def step(carry, _):
        phi, change = carry
        _, curved = jax.jvp(jax.grad(objective), (theta if hessian_at_theta else phi,), (change,))
        gradient = jax.grad(objective)(phi)
        change = optax.tree.sub(optax.tree.add_scale(change, -learning_rate, curved), gradient)
        return (optax.tree.add_scale(phi, -learning_rate, gradient), change), None

    theta = jax.tree.map(jnp.asarray, theta)
    return jax.lax.scan(step, (theta, optax.tree.zeros_like(theta)), length=num_steps)[0]


def _forward_mode(objective, theta, learning_rate, num_steps):
    last, change = _change(objective, theta, learning_rate, num_steps)
    return optax.tree.vdot(jax.grad(objective)(last), change)


def _hessian_at_the_initialization(objective, theta, learning_rate, num_steps):
    last, change = _change(objective, theta, learning_rate, num_steps, hessian_at_theta=True)
    return optax.tree.vdot(jax.grad(objective)(last), change)


def _first_leaf_only(objective, theta, learning_rate, num_steps):
    last, change = _change(objective, theta, learning_rate, num_steps)
    return jnp.vdot(jax.tree.leaves(jax.grad(objective)(last))[0], jax.tree.leaves(change)[0])


def _gradients_as_constants(objective, theta, learning_rate, num_steps):
    def final_loss(alpha):
        phi = theta
        for _ in range(num_steps):
            phi = optax.tree.add_scale(phi, -alpha, jax.lax.stop_gradient(jax.grad(objective)(phi)))
        return objective(phi)

    return jax.jit(jax.grad(final_loss))(learning_rate)


def _last_step_only(objective, theta, learning_rate, num_steps):
    before = gradient_descent(objective, theta, learning_rate, num_steps - 1)
    return learning_rate_gradient(objective, before, learning_rate, 1)


def _along_a_straight_line(objective, theta, learning_rate, num_steps):
    return jax.grad(lambda alpha: objective(_gradient_of_the_start(objective, theta, alpha, num_steps)))(learning_rate)


def _one_step_too_many(objective, theta, learning_rate, num_steps):
    return learning_rate_gradient(objective, theta, learning_rate, num_steps + 1)


def _gradient_in_theta(objective, theta, learning_rate, num_steps):
    return jax.grad(lambda theta: objective(gradient_descent(objective, theta, learning_rate, num_steps)))(theta)


def _average_derivative(objective, theta, learning_rate, num_steps):
    return (_final_loss(objective, theta, learning_rate, num_steps) - objective(theta)) / learning_rate


def _other_sign(objective, theta, learning_rate, num_steps):
    return -learning_rate_gradient(objective, theta, learning_rate, num_steps)


def _losses_with_rates(rng):
    """A parabola, a product whose Hessian changes along the way, a single step, and nesting; none of them converges."""
    bowl, product, valley, _, nested = (objective for objective, *_ in _losses_to_descend(rng))
    pair = (rng.uniform(0.8, 1.2, (2, 3)), rng.uniform(0.2, 0.8, 2))
    return [
        (bowl, rng.uniform(1, 2, 3), 0.2, 3),
        (product, {"left": rng.uniform(1.0, 1.5), "right": rng.uniform(1.5, 2)}, 0.03, 3),
        (valley, pair, 0.02, 1),
        (nested, {"layers": [rng.uniform(1, 2, 2), (rng.uniform(1, 2),)]}, 0.04, 2),
    ]


# --- the lesson ------------------------------------------------------------------------------------------------

EXERCISES = (
    Exercise(
        id="00.finite_difference",
        title="A central difference along a direction",
        difficulty=1,
        minutes=6,
        reference=finite_difference,
        instances=_scalar_functions,
        misconceptions=(
            Misconception(
                "forward difference",
                _forward,
                "This is the forward difference, which compares the point ahead with the point itself. Its error "
                "shrinks like $\\varepsilon$. Where must the second point lie for the errors of both sides to cancel?",
            ),
            Misconception(
                "missing 2",
                _without_two,
                "Your result is twice the target. How far apart are the two points that you evaluate, counted in steps "
                "$\\varepsilon$ along the direction?",
            ),
            Misconception(
                "sign",
                _sides_swapped,
                "The size is right and the sign is not. For a function that grows along the direction, which of the "
                "two values is the larger one, and which do you subtract?",
            ),
            Misconception(
                "not divided",
                _not_divided,
                "This is the difference of the two values itself. A derivative is a change for each unit of "
                "distance. What should the difference be divided by?",
            ),
            Misconception(
                "direction ignored",
                _all_entries_moved,
                "This is the derivative along the direction of all ones, as if every entry moved by the same "
                "$\\varepsilon$. Where does `direction` enter your two points?",
            ),
            Misconception(
                "unit direction",
                _unit_direction,
                "This is the result for the direction scaled to norm 1. Scaling changes the answer, because the "
                "derivative along $2d$ is twice the one along $d$. Use the direction as it comes.",
            ),
            Misconception(
                "exact derivative",
                _exact,
                "This is the exact derivative, as automatic differentiation gives it. The exercise wants the second "
                "opinion, which uses values of the function and nothing else.",
            ),
            Misconception(
                "backward difference",
                _backward,
                "This is the backward difference, which compares the point itself with the point behind. Its error "
                "shrinks like $\\varepsilon$. Can you place the two points symmetrically?",
            ),
            Misconception(
                "step missing in the points",
                _whole_direction,
                "Your two points seem to lie a whole `direction` away from the centre, although you divide by the "
                "step. What should scale the direction before it is added?",
            ),
            Misconception(
                "step ignored",
                _step_of_one,
                "This is the result for a step of 1. Where does `step` enter your function?",
            ),
        ),
        relatives=(
            (
                "a second difference, with the value at the point itself taken twice",
                lambda function, point, direction, step: (
                    (_forward(function, point, direction, step) - _backward(function, point, direction, step)) / step
                ),
            ),
            (
                "the sum of the two values, divided by 2 ε, where their difference belongs",
                lambda function, point, direction, step: (
                    sum(function(optax.tree.add_scale(point, sign * step, direction)) for sign in (1, -1)) / (2 * step)
                ),
            ),
            (
                "the target divided by the norm of the direction",
                lambda function, point, direction, step: (
                    finite_difference(function, point, direction, step) / optax.tree.norm(direction)
                ),
            ),
            ("the sum of differences for each of which one array of the pytree is moved", _leaf_by_leaf),
            (
                "the difference along the gradient in place of the direction",
                lambda function, point, direction, step: finite_difference(
                    function, point, jax.grad(function)(point), step
                ),
            ),
        ),
        alternatives=(_difference_by_vectors, _difference_along_a_line),
        hints=(
            "Two points are needed: one ahead of `point`, one behind it, both `step` times `direction` away from it.",
            "`jax.tree.map(lambda p, d: ..., point, direction)` builds one of them leaf by leaf. The same line "
            "with a minus sign builds the other.",
        ),
        expected="For the function $p_0^2 p_1$ at $(1, 2)$ along $(1, 0)$ with step $0.1$ the result is $4$: a central "
        "difference is exact for a parabola.",
    ),
    Exercise(
        id="00.per_task_losses",
        title="One model, many tasks",
        difficulty=1,
        minutes=4,
        reference=per_task_losses,
        instances=_task_batches,
        misconceptions=(
            Misconception(
                "pooled tasks",
                _pooled,
                "This is the loss of all tasks taken for one large batch, a single number. Which transformation calls "
                "a function once for each entry of an axis?",
            ),
            Misconception(
                "mean over tasks",
                _mean_over_tasks,
                "This is the mean over the tasks, a single number. The exercise asks for each task's own loss. Where "
                "does your code average?",
            ),
            Misconception(
                "sum over tasks",
                _sum_over_tasks,
                "This is the sum over the tasks, a single number. The exercise asks for each task's own loss. Where "
                "does your code add them up?",
            ),
            Misconception(
                "first task only",
                _first_task_only,
                "This is the loss of the first task alone. What happens to the others: does a loop return too early, "
                "or is an index fixed?",
            ),
            Misconception(
                "axis of examples",
                _axis_of_examples,
                "This is what comes out if axis 1 is mapped, which counts examples: entry $i$ mixes the $i$-th "
                "example of every task. Which axis counts tasks?",
            ),
            Misconception(
                "one loss for each example",
                _loss_of_each_example,
                "These are the losses of single examples, as if you had mapped twice, over tasks and then over "
                "examples. How many axes should `loss` still see?",
            ),
        ),
        relatives=(
            (
                "the gradient of each task's loss, not the loss",
                lambda loss, params, batches: jax.vmap(jax.grad(loss), (None, 0))(params, batches),
            ),
            ("the gradient of the loss", lambda loss, params, batches: jax.grad(loss)(params, batches)),
            (
                "the mean of the losses of a task's single points, not the loss of the task",
                lambda loss, params, batches: _loss_of_each_example(loss, params, batches).mean(axis=1),
            ),
        ),
        alternatives=(_losses_one_by_one, _losses_by_map),
        hints=(
            "`loss` handles one task. Turn it into a function of many tasks, then call that.",
            "The `in_axes` of `jax.vmap` is a tuple with one entry for each argument of `loss`. The "
            "parameters are shared, so they have no axis to map over.",
        ),
        expected="An array with one entry for each task. With 25 tasks its shape is `(25,)`.",
    ),
    Exercise(
        id="00.gradient_descent",
        title="Gradient descent as a scan",
        difficulty=2,
        minutes=8,
        reference=gradient_descent,
        instances=_losses_to_descend,
        misconceptions=(
            Misconception(
                "ascent",
                _uphill,
                "This is gradient *ascent*. The gradient points to where the loss grows. Which sign makes the loss "
                "smaller?",
            ),
            Misconception(
                "gradient always at the initialization",
                _gradient_of_the_start,
                "This is where you end if every step uses the gradient at the initialization, on a straight line. At "
                "which point should the gradient of step $k$ be taken?",
            ),
            Misconception(
                "every step restarts",
                _restarting,
                "However many steps are asked for, your result is that of one. Perhaps each step begins at the "
                "initialization again: is what your step function returns built from its carry?",
            ),
            Misconception(
                "one step fewer",
                _one_step_fewer,
                "This is the result of $K - 1$ steps. For $K = 1$, does your function move at all?",
            ),
            Misconception(
                "one step more",
                _one_step_more,
                "This is the result of $K + 1$ steps. For $K = 0$ it should be the initialization itself: does one "
                "step happen outside your scan?",
            ),
            Misconception(
                "learning rate applied twice",
                _learning_rate_twice,
                "This is the result for the learning rate $\\alpha^2$. Follow the gradient from where it is computed "
                "to where it is subtracted: how often is it multiplied by `learning_rate`?",
            ),
            Misconception(
                "learning rate missing",
                _learning_rate_missing,
                "This is the result for a learning rate of 1, which subtracts the whole gradient. Where does "
                "`learning_rate` enter?",
            ),
            Misconception(
                "all visited points",
                _all_visited,
                "These are the parameters after every step, stacked, as in the second thing that `scan` returns. The "
                "exercise asks for the last parameters. What is the first thing that `scan` returns?",
            ),
        ),
        relatives=(
            (
                "what descent gives with gradients of norm 1",
                lambda objective, theta, learning_rate, num_steps: functools.reduce(
                    lambda phi, _: optax.tree.add_scale(
                        phi, -learning_rate / optax.tree.norm(jax.grad(objective)(phi)), jax.grad(objective)(phi)
                    ),
                    range(num_steps),
                    theta,
                ),
            ),
            (
                "what descent gives with a learning rate that is divided by the number of the step",
                lambda objective, theta, learning_rate, num_steps: functools.reduce(
                    lambda phi, k: optax.tree.add_scale(phi, -learning_rate / (k + 1), jax.grad(objective)(phi)),
                    range(num_steps),
                    theta,
                ),
            ),
            (
                "what descent gives if each step starts from the initialization",
                lambda objective, theta, learning_rate, num_steps: functools.reduce(
                    lambda phi, _: optax.tree.add_scale(theta, -learning_rate, jax.grad(objective)(phi)),
                    range(num_steps),
                    theta,
                ),
            ),
            (
                "what descent gives if each step subtracts all gradients so far",
                lambda objective, theta, learning_rate, num_steps: inner.descend(
                    objective, optax.sgd(learning_rate, momentum=1.0), num_steps, theta
                ),
            ),
            (
                "the end of a single step, whatever the number of steps",
                lambda objective, theta, learning_rate, num_steps: gradient_descent(objective, theta, learning_rate, 1),
            ),
            (
                "what Adam gives",
                lambda objective, theta, learning_rate, num_steps: inner.descend(
                    objective, optax.adam(learning_rate), num_steps, theta
                ),
            ),
            (
                "what descent gives with momentum 0.9",
                lambda objective, theta, learning_rate, num_steps: inner.descend(
                    objective, optax.sgd(learning_rate, momentum=0.9), num_steps, theta
                ),
            ),
        ),
        alternatives=(_descent_by_loop, _descent_by_recursion),
        hints=(
            "The carry is what one step hands to the next: the parameters. There is nothing to stack, so the "
            "step function may return `None` as its second value.",
            "Inside the step function, take the gradient at the carry, then combine the two pytrees with "
            "`jax.tree.map(lambda p, g: ..., phi, gradient)`.",
            "`jax.lax.scan(step, theta, length=num_steps)` returns a pair: the last carry, and the stack.",
        ),
        expected="For the loss $\\varphi^2/2$ and the initialization $1$, two steps with learning rate $0.5$ end at "
        "$0.25$.",
    ),
    Exercise(
        id="00.learning_rate_derivative",
        title="The derivative with respect to the learning rate",
        difficulty=2,
        minutes=6,
        reference=learning_rate_gradient,
        instances=_losses_with_rates,
        misconceptions=(
            Misconception(
                "gradients as constants",
                _gradients_as_constants,
                "This is the derivative with the gradients along the way held constant. But another learning rate "
                "leads to other parameters, and there the gradients differ too. Does something in your loop stop the "
                "derivative, or did you add up inner products of gradients?",
            ),
            Misconception(
                "last step only",
                _last_step_only,
                "This accounts for the learning rate in the last step only. The steps before it use the learning rate "
                "as well. Is the whole run inside the function that you differentiate?",
            ),
            Misconception(
                "Hessian at the initialization",
                _hessian_at_the_initialization,
                "This is what comes out if every step uses the Hessian at the initialization. Where should the second "
                "derivatives of step $k$ be taken?",
            ),
            Misconception(
                "first leaf only",
                _first_leaf_only,
                "This counts only the first leaf of the pytree. Does an inner product of yours leave the others out?",
            ),
            Misconception(
                "gradient always at the initialization",
                _along_a_straight_line,
                "This is the derivative for a run in which every step uses the gradient at the initialization. At "
                "which parameters should step $k$ take its gradient?",
            ),
            Misconception(
                "one step more",
                _one_step_too_many,
                "This is the derivative for $K + 1$ steps. Does one step happen outside your loop?",
            ),
            Misconception(
                "gradient with respect to the initialization",
                _gradient_in_theta,
                "This is the gradient with respect to the initialization, so it has the structure of the parameters. "
                "The exercise asks for the derivative with respect to the learning rate, a single number. Which "
                "argument does `jax.grad` differentiate?",
            ),
            Misconception(
                "loss itself",
                _final_loss,
                "This is the loss after the last step, not its derivative. What turns a function into its derivative?",
            ),
            Misconception(
                "average derivative",
                _average_derivative,
                "This is the change of the loss divided by the learning rate, the average derivative between 0 and "
                "`learning_rate`. The exercise asks for the derivative at `learning_rate` itself.",
            ),
            Misconception(
                "sign",
                _other_sign,
                "The size is right and the sign is not. A negative derivative says that a slightly larger learning "
                "rate would end lower. Did you put in a minus sign for the descent?",
            ),
        ),
        relatives=(
            (
                "the second derivative with respect to the learning rate",
                lambda objective, theta, learning_rate, num_steps: jax.grad(
                    jax.grad(lambda alpha: _final_loss(objective, theta, alpha, num_steps))
                )(learning_rate),
            ),
            (
                "the sum of the derivatives of the losses after each step",
                lambda objective, theta, learning_rate, num_steps: sum(
                    learning_rate_gradient(objective, theta, learning_rate, k) for k in range(num_steps + 1)
                ),
            ),
            (
                "the change of φ_K with α times the gradient at the initialization, not at φ_K",
                lambda objective, theta, learning_rate, num_steps: optax.tree.vdot(
                    jax.grad(objective)(theta),
                    jax.jacfwd(lambda alpha: _descent_by_loop(objective, theta, alpha, num_steps))(learning_rate),
                ),
            ),
        ),
        alternatives=(_forward_mode, _through_a_scan),
        hints=(
            "First write a function that takes the learning rate, among whatever else you like, and returns the loss "
            "after the last step.",
            "`ml.inner.descend(objective, optax.sgd(learning_rate), num_steps, theta)` gives the last parameters. "
            "Differentiate your function with respect to the learning rate, and call the result.",
        ),
        expected="For the loss $\\varphi^2/2$, the initialization $1$ and one step with learning rate $0.5$, the loss "
        "is $(1 - 0.5)^2/2$, and its derivative $-(1 - 0.5) = -0.5$.",
    ),
)

QUIZ = (
    Question(
        prompt="A function compiled with `jax.jit` reads a global `scale`. You run it, change `scale`, and run it "
        "again on an array of the same shape and type. What happens?",
        options=(
            "It uses the new value.",
            "It uses the old value.",
            "It raises an error.",
        ),
        answer=1,
        feedback=(
            "Python runs the body only while JAX records it. On the second call the record is replayed.",
            "Right: the value was recorded on the first call. Pass `scale` as an argument instead.",
            "JAX cannot see the change, so it cannot complain. That is why such a bug is hard to find.",
        ),
    ),
    Question(
        prompt="`params` holds two numbers, and `batches` 25 tasks of 10 points. What does "
        "`jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, batches)` return?",
        options=(
            "Two numbers: the gradient of the mean loss",
            "Two arrays of shape (10,): one gradient for each point",
            "Two arrays of shape (25,): one gradient for each task",
        ),
        answer=2,
        feedback=(
            "`vmap` averages nothing. A mean over the leading axis of its result would give these two numbers.",
            "The mapped axis counts tasks. The ten points of a task are averaged inside `loss`.",
            "Right: `grad` keeps the structure of `params`, and `vmap` adds one leading axis for the tasks.",
        ),
    ),
    Question(
        prompt="Near its minimum a loss has a Hessian with eigenvalues 1 and 8. Gradient descent with learning rate "
        "0.2 takes one step. What becomes of the distance to the minimum in the steep direction?",
        options=(
            "It is 0.8 times as large, on the same side",
            "It is 0.6 times as large, on the other side",
            "It is 1.6 times as large, on the other side",
        ),
        answer=1,
        feedback=(
            "That is the flat direction, where a step multiplies the displacement by $1 - 0.2 \\cdot 1$.",
            "Right: a step multiplies the displacement by $1 - 0.2 \\cdot 8 = -0.6$.",
            "1.6 is the step as a multiple of the distance. What is left when it has been taken?",
        ),
    ),
)

_BETTER_CHANGES = (
    "each of the two",
    "only a higher wave",
    "only a shift to the right",
)

PREDICTIONS = (
    Guess(
        "00.better_change",
        "Change one parameter of the dashed wave a little, either to make the wave higher or to shift it to the right. "
        "Which of these two changes makes the loss smaller?",
        _BETTER_CHANGES,
        why="The derivative with respect to the phase is negative, so the loss falls if the phase grows. The one with "
        "respect to the amplitude is positive, because where the crests lie now, higher crests miss the data by more.",
        read="Two numbers to find",
    ),
    Guess(
        "00.best_step",
        "You estimate the derivative of the loss with respect to the phase by a central difference, in 32-bit numbers. "
        "Which of these steps gives the smallest error?",
        ("0.1", "0.001", "0.000001"),
        why="A large step makes the formula inexact, and a tiny one divides the rounding errors by almost nothing.",
        read="A second opinion",
    ),
    Guess(
        "00.initial_amplitude",
        "Take five steps of gradient descent with learning rate 0.1. What does a slightly higher wave at the "
        "initialization do to the loss after these steps?",
        ("makes it larger", "makes it smaller", "does not change it"),
        why="Gradient descent improves the phase on the way, faster if the wave is high, and with a better phase a "
        "higher wave fits better.",
        read="Differentiate a training run",
    ),
    Guess(
        "00.step_limit",
        "Above which learning rate does gradient descent no longer converge?",
        why="It is two over the largest eigenvalue of the Hessian at the minimum.",
        read="How large may the learning rate be?",
    ),
)


# --- figures ---------------------------------------------------------------------------------------------------


def better_change(gradient: dict[str, Any]) -> str:
    """The option of the first prediction that a gradient makes true."""
    higher, shifted = gradient["amplitude"] < 0, gradient["phase"] < 0
    return _BETTER_CHANGES[0 if higher and shifted else 1 if higher else 2]


def two_waves(model: Callable, theta: Any, truth: Any, batch: Any) -> None:
    """Shows the data, the wave they lie on, and the model at the initialization."""
    x = np.linspace(-5.5, 5.5, 200)
    plots.show(
        plots.lines(
            x,
            {"true wave": model(truth, x), "our model": model(theta, x)},
            "input x (radians)",
            "output y",
            points={"data": batch},
            ylim=(-2.4, 2.6),
        ),
        alt="Ten points on a solid wave of height 2. A dashed wave of height 0.5, our model, misses most of them: it "
        "is too flat, and its crests lie to the left of the solid ones.",
        title="Our model is too flat, and too far to the left",
        caption="Ten data points, the wave that they lie on, and the model at the initialization θ.",
    )


def two_errors(steps: Any, in_32_bits: Any, in_64_bits: Any) -> None:
    """Shows the error of a central difference against its step, in two precisions."""
    plots.show(
        plots.lines(
            steps,
            {"32-bit numbers": in_32_bits, "64-bit numbers": in_64_bits},
            "step ε (radians)",
            "error of the derivative",
            log="xy",
        ),
        alt="Two curves shaped like a V on logarithmic axes. At the right both fall together towards smaller steps. "
        "The 32-bit curve turns up again at a step near 0.01, the 64-bit curve much later and much lower.",
        title="The best step is neither large nor tiny",
        caption="Error of the central difference with respect to the phase, against its step.",
    )


def loss_by_phase(phases: Any, losses: Any) -> None:
    """Shows the loss as a function of the phase."""
    top = int(np.argmax(losses))
    plots.show(
        plots.lines(
            phases,
            {"": losses},
            "phase (radians)",
            "loss",
            points={"true phase": (1.0, 0.0), f"maximum at {plots.number(phases[top], 2)}": (phases[top], losses[top])},
            ylim=(-0.8, 10),
        ),
        alt="The loss as a function of the phase. It has one minimum, where it is zero, at phase 1, and one maximum "
        "near phase minus 2.4.",
        title="One minimum, and a maximum about half a period away",
        caption="The loss for 201 phases at amplitude 2, from a single call of vmap.",
    )


def run_as_a_function() -> None:
    """Shows a run of gradient descent as one function of its initialization."""
    d = diagrams.Drawing(640, 176)
    xs = np.linspace(30, 480, 6)
    for i, x in enumerate(xs):
        if i:
            d.arrow((xs[i - 1] + 23, 70), (x - 24, 70))
            d.text((xs[i - 1] + x) / 2, 56, "−α∇h", diagrams.MUTED, size=13)
    for i, x in enumerate(xs):
        d.node(x, 70, ("θ", "φ₁", "φ₂", "φ₃", "φ₄", "φ₅")[i], filled=not i)
    d.arrow((503, 70), (556, 70))
    d.text(564, 75, "h(φ₅)", anchor="start")
    d.text(9, 24, "forward: five steps of gradient descent", diagrams.BLUE, "start", bold=True)
    d.arrow((578, 88), (36, 94), diagrams.ORANGE, bend=-26)
    d.text(305, 168, "backward: the gradient of h(φ₅) with respect to θ", diagrams.ORANGE, bold=True)
    diagrams.show(
        d.svg(),
        "A chain of six circles, from the initialization theta to phi five, and an arrow to the loss there. One arrow "
        "leads back from the loss to theta.",
        "A training run is a function of its initialization",
        "Five steps of gradient descent, and what grad computes when it is applied to all of them.",
    )


def before_and_after(amplitudes: Any, before: Any, after: Any, at: float, *gradients: Any) -> None:
    """Shows the loss at the initialization and after five steps, against the initial amplitude, with their tangents.

    Args:
      amplitudes: shape [n].
      before: the loss at the initialization, shape [n].
      after: the loss after five steps, likewise.
      at: the amplitude of our initialization.
      *gradients: of both losses there, by the names of the parameters.
    """
    figure = plots.lines(
        amplitudes,
        {"before": before, "after five steps": after},
        "amplitude at the initialization",
        "loss",
        xlim=(0, 1.2),
    )
    (axes,) = figure.axes
    nearby = at + np.array([-0.22, 0.22])
    for losses, gradient in zip((before, after), gradients, strict=True):
        here = np.interp(at, amplitudes, losses)
        axes.plot(
            nearby,
            here + gradient["amplitude"] * (nearby - at),
            color=plots.PALETTE["text"],
            linestyle="-",
            linewidth=3,
        )
        axes.plot(at, here, "o", color=plots.PALETTE["text"], markerfacecolor=plots.PALETTE["card"], markersize=6)
        sign = "rises" if gradient["amplitude"] > 0 else "falls"
        axes.annotate(
            f"loss {sign}",
            (at, here),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
            weight="bold",
            color=plots.PALETTE["text"],
        )
    plots.show(
        figure,
        alt="Two curves against the amplitude at the initialization. The loss before gradient descent rises at our "
        "initialization. The loss after five steps falls there.",
        title="A higher wave is worse before gradient descent and better after it",
        caption="The loss at the initialization and after five steps. Thick: the tangents at our initialization θ.",
    )


def descent_path(h: Callable, theta: Any, truth: Any) -> Callable[..., Figure]:
    """A function for `explore`: the path of gradient descent over the loss h(amplitude, phase), and the loss on it."""

    @jax.jit
    def visited(learning_rate):
        """The parameters before each of 61 steps, and their losses: arrays of shape [61]."""

        def step(phi, _):
            value, gradient = jax.value_and_grad(lambda phi: h(phi["amplitude"], phi["phase"]))(phi)
            return jax.tree.map(lambda p, g: p - learning_rate * g, phi, gradient), (phi, value)

        return jax.lax.scan(step, jax.tree.map(jnp.asarray, theta), length=61)[1]

    amplitudes, phases = np.linspace(0.0, 3.0, 80), np.linspace(-1.0, 2.5, 80)
    landscape = jax.vmap(lambda b: jax.vmap(lambda a: h(a, b))(amplitudes))(phases)

    def draw(learning_rate: float, num_steps: int) -> Figure:
        path, losses = jax.tree.map(lambda leaf: leaf[: num_steps + 1], visited(learning_rate))
        figure, (left, right) = plots.subplots(2, height=3.6)
        left.contour(
            amplitudes,
            phases,
            landscape,
            levels=(0.05, 0.2, 0.5, 1, 2, 3, 4, 6, 8, 10),
            colors=plots.PALETTE["muted"],
            linewidths=0.7,
            linestyles="-",
        )
        left.plot(path["amplitude"], path["phase"], "o-", markersize=4, linewidth=1)
        left.plot(truth["amplitude"], truth["phase"], "*", markersize=12, color=plots.PALETTE["text"])
        left.annotate(
            "θ",
            (theta["amplitude"], theta["phase"]),
            xytext=(-14, -5),
            textcoords="offset points",
            color=plots.PALETTE["text"],
        )
        left.annotate(
            "minimum",
            (truth["amplitude"], truth["phase"]),
            xytext=(8, 8),
            textcoords="offset points",
            color=plots.PALETTE["text"],
        )
        left.set(xlim=(0, 3), ylim=(-1, 2.5))
        plots.label(left, "amplitude", "phase (radians)", "Parameters after each step")
        right.plot(losses, "o-", markersize=4, linewidth=1)
        right.set(yscale="log", ylim=(1e-12, 1e1), xlim=(-1, 61))
        plots.label(right, "step", "loss", "Loss after each step")
        return figure

    return draw


def opening() -> tuple[str, str]:
    """The picture of the claim: the loss after a whole run of gradient descent is a function one can differentiate."""
    curvature, theta, num_steps = np.array([1.0, 4.0]), np.array([2.0, 1.0]), 8

    def final(learning_rate):
        """The loss after gradient descent on a parabola, in closed form."""
        return (0.5 * curvature * ((1 - learning_rate[:, None] * curvature) ** num_steps * theta) ** 2).sum(-1)

    rates = np.linspace(0.05, 0.56, 200)
    losses = final(rates)
    best, limit = rates[losses.argmin()], 2 / curvature.max()
    left = diagrams.plot(
        rates,
        {"": losses},
        "learning rate α",
        "loss after 8 steps",
        points={
            f"best: {best:.2f}": (best, losses.min()),
            f"limit for many steps: {limit:g}": (limit, final(np.array([limit]))[0]),
        },
        ylim=(-0.2, 4),
    )
    return diagrams.opening(
        left,
        diagrams.composed(),
        ("A whole training run is one function", "Three transformations compose"),
        (
            "Eight gradient steps on a quadratic with curvatures 1 and 4.",
            "One run on one task, then all tasks, then the gradient.",
        ),
        f"Left: the loss after eight gradient steps against the learning rate. It is lowest near {best:.2f} and "
        f"very steep at {limit:g}, above which many steps do not converge. Right: a chain of parameters made by "
        "scan, copied over tasks by vmap, and grad as the arrow back.",
    )
