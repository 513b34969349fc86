"""Exercises and quiz of lesson 00: grad, vmap and scan of a pure function."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from metalearn.adaptation import inner
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.widgets import diagrams

# --- 00.finite_difference --------------------------------------------------------------------------------------


def finite_difference(function, point, direction, step):
    """(f(p + h d) - f(p - h d)) / (2 h)."""
    ahead = optax.tree.add_scale(point, step, direction)
    behind = optax.tree.add_scale(point, -step, direction)
    return (function(ahead) - function(behind)) / (2 * step)


def _difference_by_vectors(function, point, direction, step):
    flat_point, unravel = ravel_pytree(point)
    flat_direction, _ = ravel_pytree(direction)
    values = [function(unravel(flat_point + sign * step * flat_direction)) for sign in (1, -1)]
    return 0.5 * (values[0] - values[1]) / step


def _forward(function, point, direction, step):
    return (function(optax.tree.add_scale(point, step, direction)) - function(point)) / step


def _backward(function, point, direction, step):
    return _forward(function, point, direction, -step)


def _without_two(function, point, direction, step):
    return 2 * finite_difference(function, point, direction, step)


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


def _scalar_functions(rng):
    """Functions of a vector, a dict and a tuple, at steps large enough to tell a wrong formula from rounding."""

    def cubic(point):
        return jnp.sum(point**3) + point[0] * point[1]

    def layer(params):
        return jnp.sum(jnp.tanh(params["weights"]) @ jnp.exp(params["bias"]))

    def wave(params):
        amplitude, phase = params
        return amplitude**2 * jnp.sin(phase)

    vector = (rng.normal(size=3), rng.normal(size=3))
    tree = tuple({"weights": rng.normal(size=(2, 4)), "bias": rng.normal(size=4)} for _ in range(2))
    pair = tuple((rng.uniform(1, 2), rng.uniform(0.3, 1)) for _ in range(2))
    return [(cubic, *vector, 0.3), (layer, *tree, 0.1), (wave, *pair, 0.02)]


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


def _axis_of_examples(loss, params, batches):
    return jax.vmap(loss, in_axes=(None, 1))(params, batches)


def _loss_of_each_example(loss, params, batches):
    return jax.vmap(functools.partial(per_task_losses, loss, params))(batches)


def _task_batches(rng):
    """A mean of squares, a largest error (which no pooling can imitate), and as many tasks as examples."""

    def wave(params, batch):
        x, y = batch
        return jnp.mean((params["amplitude"] * jnp.sin(x - params["phase"]) - y) ** 2)

    def largest_error(weights, batch):
        return jnp.max(jnp.abs(batch["inputs"] @ weights - batch["targets"]))

    one_wave = {"amplitude": rng.uniform(1, 3), "phase": rng.uniform(0, 3)}
    points = (rng.uniform(-5, 5, (6, 10)), rng.normal(size=(6, 10)))
    table = {"inputs": rng.normal(size=(3, 4, 2)), "targets": rng.normal(size=(3, 4))}
    square = (rng.uniform(-5, 5, (5, 5)), rng.normal(size=(5, 5)))
    return [(wave, one_wave, points), (largest_error, rng.normal(size=2), table), (wave, one_wave, square)]


# --- 00.gradient_descent ---------------------------------------------------------------------------------------


def gradient_descent(objective, start, step_size, num_steps):
    """The library's inner loop, with plain steps."""
    return inner.descend(objective, optax.sgd(step_size), num_steps, start)


def _descent_by_loop(objective, start, step_size, num_steps):
    for _ in range(num_steps):
        start = optax.tree.add_scale(start, -step_size, jax.grad(objective)(start))
    return start


def _uphill(objective, start, step_size, num_steps):
    return gradient_descent(objective, start, -step_size, num_steps)


def _one_step_fewer(objective, start, step_size, num_steps):
    return gradient_descent(objective, start, step_size, max(num_steps - 1, 0))


def _one_step_more(objective, start, step_size, num_steps):
    return gradient_descent(objective, start, step_size, num_steps + 1)


def _gradient_of_the_start(objective, start, step_size, num_steps):
    return optax.tree.add_scale(start, -num_steps * step_size, jax.grad(objective)(start))


def _restarting(objective, start, step_size, num_steps):
    return gradient_descent(objective, start, step_size, min(num_steps, 1))


def _step_size_twice(objective, start, step_size, num_steps):
    return gradient_descent(objective, start, step_size**2, num_steps)


def _step_size_missing(objective, start, step_size, num_steps):
    return gradient_descent(objective, start, 1.0, num_steps)


def _all_visited(objective, start, step_size, num_steps):
    def step(params, _):
        params = optax.tree.add_scale(params, -step_size, jax.grad(objective)(params))
        return params, params

    return jax.lax.scan(step, start, length=num_steps)[1]


def _losses_to_descend(rng):
    """A bowl over a vector, a product over a dict, and a valley over a tuple; one loop without any step."""

    def bowl(params):
        return jnp.sum(jnp.arange(1.0, 4.0) * params**2) / 2

    def product(params):
        return (params["left"] * params["right"] - 1) ** 2

    def valley(params):
        weights, bias = params
        return jnp.sum((weights @ weights.T - bias) ** 2) / 4

    pair = (rng.uniform(0.2, 0.8, (2, 3)), rng.uniform(0.2, 0.8, 2))
    return [
        (bowl, rng.uniform(1, 2, 3), 0.2, 3),
        (product, {"left": rng.uniform(0.5, 1.5), "right": rng.uniform(1.5, 2)}, 0.1, 5),
        (valley, pair, 0.05, 4),
        (bowl, rng.uniform(1, 2, 3), 0.3, 0),
    ]


# --- 00.step_size_slope ----------------------------------------------------------------------------------------


def step_size_slope(objective, start, step_size, num_steps):
    """The derivative, in the step size, of the loss after the last step."""

    def final_loss(step_size):
        return objective(_descent_by_loop(objective, start, step_size, num_steps))

    return jax.jit(jax.grad(final_loss))(step_size)


def _slope_through_a_scan(objective, start, step_size, num_steps):
    return jax.grad(lambda size: objective(gradient_descent(objective, start, size, num_steps)))(step_size)


def _slope_forwards(objective, start, step_size, num_steps):
    def step(carry, _):
        params, change = carry  # change: d params / d step_size
        gradient, curved = jax.jvp(jax.grad(objective), (params,), (change,))
        change = optax.tree.sub(optax.tree.add_scale(change, -step_size, curved), gradient)
        return (optax.tree.add_scale(params, -step_size, gradient), change), None

    (end, change), _ = jax.lax.scan(step, (start, optax.tree.zeros_like(start)), length=num_steps)
    return optax.tree.vdot(jax.grad(objective)(end), change)


def _gradients_as_constants(objective, start, step_size, num_steps):
    def final_loss(step_size):
        params = start
        for _ in range(num_steps):
            params = optax.tree.add_scale(params, -step_size, jax.lax.stop_gradient(jax.grad(objective)(params)))
        return objective(params)

    return jax.jit(jax.grad(final_loss))(step_size)


def _last_step_only(objective, start, step_size, num_steps):
    return step_size_slope(objective, gradient_descent(objective, start, step_size, num_steps - 1), step_size, 1)


def _slope_in_the_start(objective, start, step_size, num_steps):
    return jax.grad(lambda start: objective(gradient_descent(objective, start, step_size, num_steps)))(start)


def _final_loss(objective, start, step_size, num_steps):
    return objective(_descent_by_loop(objective, start, step_size, num_steps))


def _average_slope(objective, start, step_size, num_steps):
    return (_final_loss(objective, start, step_size, num_steps) - objective(start)) / step_size


def _slope_with_other_sign(objective, start, step_size, num_steps):
    return -step_size_slope(objective, start, step_size, num_steps)


def _losses_with_steps(rng):
    return _losses_to_descend(rng)[:2]  # second derivatives take long to compile


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
                "This is the forward difference: it compares the point ahead with the point itself. Its error "
                "shrinks like $h$. Where must the second point lie for the errors of both sides to cancel?",
            ),
            Misconception(
                "missing 2",
                _without_two,
                "You are off by a factor of 2. How far apart are the two points that you evaluate, counted in steps "
                "$h$ along the direction?",
            ),
            Misconception(
                "sign",
                _sides_swapped,
                "The size is right and the sign is not. For a function that grows along the direction, which of the "
                "two values is the larger one, and which do you subtract?",
            ),
            Misconception(
                "direction ignored",
                _all_entries_moved,
                "You moved every entry by the same $h$: the slope along the direction of all ones. Where does "
                "`direction` enter your two points?",
            ),
            Misconception(
                "unit direction",
                _unit_direction,
                "You scaled the direction to length 1. That changes the answer: the derivative along $2d$ is twice "
                "the one along $d$. Use the direction as it comes.",
            ),
            Misconception(
                "exact derivative",
                _exact,
                "This is the exact derivative, from automatic differentiation. The exercise wants the second "
                "opinion, which uses values of the function and nothing else.",
            ),
            Misconception(
                "backward difference",
                _backward,
                "This is the backward difference: it compares the point itself with the point behind. Its error "
                "shrinks like $h$. Can you place the two points symmetrically?",
            ),
            Misconception(
                "step missing in the points",
                _whole_direction,
                "You divide by the step, but the two points lie a whole `direction` away from the centre. What "
                "should scale the direction before it is added?",
            ),
        ),
        alternatives=(_difference_by_vectors,),
        hints=(
            "Two points are needed: one ahead of `point`, one behind it, both `step` times `direction` away from it.",
            "`jax.tree.map(lambda p, d: ..., point, direction)` builds one of them leaf by leaf. The same line "
            "with a minus sign builds the other.",
        ),
        expected="For $f(p) = p_0^2 p_1$ at $(1, 2)$ along $(1, 0)$ with $h = 0.1$ the result is $4$: a central "
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
                "You called `loss` on all tasks at once. It took them for one large batch and returned one number. "
                "Which transformation calls a function once for each entry of an axis?",
            ),
            Misconception(
                "mean over tasks",
                _mean_over_tasks,
                "This is the mean over the tasks: one number. The question was each task's own loss. Where does "
                "your code average?",
            ),
            Misconception(
                "sum over tasks",
                _sum_over_tasks,
                "This is the sum over the tasks: one number. The question was each task's own loss. Where does "
                "your code add them up?",
            ),
            Misconception(
                "axis of examples",
                _axis_of_examples,
                "You mapped over axis 1, which counts examples: your entry $i$ mixes the $i$-th example of every "
                "task. Which axis counts tasks?",
            ),
            Misconception(
                "one loss for each example",
                _loss_of_each_example,
                "You mapped twice, over tasks and then over examples, so that `loss` saw one example at a time. "
                "How many axes should it still see?",
            ),
        ),
        alternatives=(_losses_one_by_one, _losses_by_map),
        hints=(
            "`loss` handles one task. Turn it into a function of many tasks, then call that.",
            "The second argument of `jax.vmap` is a tuple with one entry for each argument of `loss`. The "
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
                "uphill",
                _uphill,
                "You walk uphill. The gradient points to where the loss grows. Which sign makes the loss smaller?",
            ),
            Misconception(
                "gradient always at the start",
                _gradient_of_the_start,
                "All your steps use the gradient at `start`, so the path is a straight line. At which point should "
                "the gradient of step $k$ be taken?",
            ),
            Misconception(
                "every step restarts",
                _restarting,
                "However many steps you are asked for, you end after one. Each step begins at `start` again: is "
                "what your step function returns built from its carry?",
            ),
            Misconception(
                "one step fewer",
                _one_step_fewer,
                "You took $K - 1$ steps. For $K = 1$, does your function move at all?",
            ),
            Misconception(
                "one step more",
                _one_step_more,
                "You took $K + 1$ steps. For $K = 0$ the result should be `start` itself: does one step happen "
                "outside your scan?",
            ),
            Misconception(
                "step size applied twice",
                _step_size_twice,
                "Each step is multiplied by the step size twice. Follow the gradient from where it is computed to "
                "where it is subtracted, and count.",
            ),
            Misconception(
                "step size missing",
                _step_size_missing,
                "You subtract the whole gradient, as if the step size were 1. Where does `step_size` enter?",
            ),
            Misconception(
                "all visited points",
                _all_visited,
                "You returned the points after every step, stacked: the second thing that `scan` returns. The "
                "question was the last point. What is the first thing that `scan` returns?",
            ),
        ),
        alternatives=(_descent_by_loop,),
        hints=(
            "The carry is what one step hands to the next: the parameters. There is nothing to stack, so the "
            "step function may return `None` as its second value.",
            "Inside the step function, take the gradient at the carry, then combine the two pytrees with "
            "`jax.tree.map(lambda p, g: ..., params, gradient)`.",
            "`jax.lax.scan(step, start, length=num_steps)` returns a pair: the last carry, and the stack.",
        ),
        expected="For the loss $p^2/2$, starting at $1$, two steps of size $0.5$ end at $0.25$.",
    ),
    Exercise(
        id="00.step_size_slope",
        title="The slope in the step size",
        difficulty=2,
        minutes=6,
        reference=step_size_slope,
        instances=_losses_with_steps,
        misconceptions=(
            Misconception(
                "gradients as constants",
                _gradients_as_constants,
                "You treated the gradients along the path as constants. But another step size leads to other points, "
                "and there the gradients differ too. Does something in your loop stop the derivative, or did you "
                "add up products of gradients?",
            ),
            Misconception(
                "last step only",
                _last_step_only,
                "You accounted for the step size in the last step only. All the steps before it used the step size as "
                "well. Is the whole descent inside the function that you differentiate?",
            ),
            Misconception(
                "slope in the start",
                _slope_in_the_start,
                "This is the derivative with respect to `start`: it has the shape of the parameters. The question "
                "was the step size, which is one number. Which argument does `jax.grad` differentiate?",
            ),
            Misconception(
                "loss itself",
                _final_loss,
                "This is the loss after the last step, not its derivative. What turns a function into its derivative?",
            ),
            Misconception(
                "average slope",
                _average_slope,
                "You divided the change of the loss by the step size. That is the average slope between step size 0 "
                "and `step_size`; the question was the slope at `step_size` itself.",
            ),
            Misconception(
                "sign",
                _slope_with_other_sign,
                "The size is right and the sign is not. A negative slope says that a larger step size would end lower. "
                "Did you put in a minus sign for the descent?",
            ),
        ),
        alternatives=(_slope_forwards, _slope_through_a_scan),
        hints=(
            "First write a function that takes the step size, among whatever else you like, and returns the loss after "
            "the last step.",
            "`ml.inner.descend(objective, optax.sgd(step_size), num_steps, start)` gives the last point. Differentiate "
            "your function in its step size, and call the result.",
        ),
        expected="For the loss $p^2/2$, starting at $1$, after one step of size $0.5$: the loss is "
        "$(1 - 0.5)^2/2$, and its slope $-(1 - 0.5) = -0.5$.",
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
            "Python runs the body only while JAX records it. On the second call the recording is replayed.",
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
        prompt="Near its minimum a loss has a Hessian with eigenvalues 1 and 8. Above which step size does gradient "
        "descent no longer settle there?",
        options=("2", "1/4", "1/8"),
        answer=1,
        feedback=(
            "That is the limit of the flat direction. In the steep one a step size of 2 multiplies the error by "
            "$1 - 2 \\cdot 8 = -15$.",
            "Right: the steepest direction decides, and $|1 - 8\\alpha| < 1$ means $\\alpha < 2/8$.",
            "Up to 1/8 descent does not even overshoot. Up to 1/4 it still settles, from alternating sides.",
        ),
    ),
)


def opening() -> str:
    """The picture of the claim: the loss after a whole run of gradient descent is a function one can differentiate."""
    curvature, start, num_steps = np.array([1.0, 4.0]), np.array([2.0, 1.0]), 8

    def final(step_size):
        """The loss after gradient descent on a parabola, in closed form."""
        return (0.5 * curvature * ((1 - step_size[:, None] * curvature) ** num_steps * start) ** 2).sum(-1)

    step_sizes = np.linspace(0.05, 0.56, 200)
    losses = final(step_sizes)
    best, limit = step_sizes[losses.argmin()], 2 / curvature.max()
    left = diagrams.plot(
        step_sizes,
        {"": losses},
        "step size α",
        "loss after 8 steps",
        points={f"best: {best:.2f}": (best, losses.min()), f"2/L = {limit:g}": (limit, final(np.array([limit]))[0])},
        ylim=(-0.2, 4),
    )
    return diagrams.opening(
        left,
        diagrams.composed(),
        ("A whole run of learning is one function", "Three transformations compose"),
        (
            "The loss after 8 steps, as a function of the step size.",
            "One run on one task, all tasks, and the way back.",
        ),
        f"Left: the loss after eight gradient steps against the step size. It is lowest near {best:.2f} and "
        f"grows beyond {limit:g}. Right: a chain of parameters made by scan, copied over tasks by vmap, and grad as "
        "the arrow back.",
    )
