"""Exercises and quiz of lesson 01, Learning to learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Misconception, Question
from metalearn.course.widgets import diagrams
from metalearn.task import Task

# 01.floor -----------------------------------------------------------------------------------------------------------

FLOOR = Exercise(
    id="01.floor",
    title="The floor of any family",
    difficulty=1,
    minutes=5,
    reference=lambda targets: jnp.mean((targets - targets.mean(axis=0)) ** 2),
    instances=lambda rng: [
        (rng.normal(0, 2, (6, 4)) + np.array([0.0, 1.0, 3.0, -2.0]),),
        (rng.normal(0, 1, (3, 9)) + rng.normal(0, 2, 9),),
        (rng.uniform(-1, 5, (2, 1)),),
    ],
    misconceptions=(
        Misconception(
            "variance over inputs",
            lambda targets: targets.var(axis=1).mean(),
            "You take the variance along each curve. That is the floor of a model that may choose one *number* for "
            "each task. Along which axis do tasks differ?",
        ),
        Misconception(
            "one number for everything",
            lambda targets: targets.var(),
            "This is the floor of a constant: one number for all tasks and all inputs. A function may answer "
            "differently at each input.",
        ),
        Misconception(
            "standard deviation",
            lambda targets: targets.std(axis=0).mean(),
            "You average standard deviations. The loss is a *squared* error: which measure of spread has its unit?",
        ),
        Misconception(
            "n - 1",
            lambda targets: targets.var(axis=0, ddof=1).mean(),
            "You divide by the number of tasks minus one, which estimates the variance of *other* tasks. "
            "The error on *these* tasks is a plain mean.",
        ),
        Misconception(
            "sum over tasks",
            lambda targets: jnp.mean(jnp.sum((targets - targets.mean(axis=0)) ** 2, axis=0)),
            "You add the squared errors over tasks. The loss is a mean over tasks and inputs.",
        ),
        Misconception(
            "mean square",
            lambda targets: jnp.mean(targets**2),
            "This is the error of the function that is zero everywhere. Which function does best at each input?",
        ),
        Misconception(
            "best function only",
            lambda targets: targets.mean(axis=0),
            "This is the best function itself. The floor is its mean squared error: one number.",
        ),
        Misconception(
            "median",
            lambda targets: jnp.mean((targets - jnp.median(targets, axis=0)) ** 2),
            "You compare with the median, which is best for the absolute error. Which is best for the squared one?",
        ),
    ),
    alternatives=(
        lambda targets: targets.var(axis=0).mean(),
        lambda targets: jnp.mean(jnp.mean(targets**2, axis=0) - jnp.mean(targets, axis=0) ** 2),
    ),
    hints=(
        "First find the best function: at each input, the one number that lies best among all tasks' targets.",
        "Then compare every task with that function. `targets - best_function` broadcasts over the tasks.",
    ),
    expected="A scalar. If all rows of `targets` are equal it is 0: one function then serves all tasks.",
)

# 01.adaptation_curve ------------------------------------------------------------------------------------------------


@jax.jit
def _line(params, batch):
    x, y = batch
    return jnp.mean((params[0] * x + params[1] - y) ** 2)


@jax.jit
def _bump(params, batch):
    x, y = batch
    return jnp.mean((params["height"] * jnp.tanh(params["slope"] * x) - y) ** 2)


def _task(rng, num_support, num_query):
    slope, offset = rng.uniform(-2, 2, 2)

    def batch(size):
        x = rng.uniform(-2, 2, size)
        return x, slope * x + offset + 0.3 * rng.normal(size=size)

    return Task(batch(num_support), batch(num_query))


def _reference_curve(loss, task, params, step_size, num_steps):
    batch = jax.tree.map(lambda leaf: leaf[None], task)
    return ml.evaluate.adaptation_curve(loss, optax.sgd(step_size), params, batch, num_steps)[:, 0]


def _path(loss, batch, params, step_size, num_steps):
    path = [params]
    for _ in range(num_steps):
        gradient = jax.grad(loss)(path[-1], batch)
        path.append(jax.tree.map(lambda p, g: p - step_size * g, path[-1], gradient))
    return path


def _losses(loss, path, batch):
    return jnp.stack([loss(params, batch) for params in path])


def _stuck(loss, task, params, step_size, num_steps):
    gradient = jax.grad(loss)(params, task.support)
    path = [jax.tree.map(lambda p, g, k=k: p - k * step_size * g, params, gradient) for k in range(num_steps + 1)]
    return _losses(loss, path, task.query)


def _with_scan(loss, task, params, step_size, num_steps):
    def step(params, _):
        gradient = jax.grad(loss)(params, task.support)
        moved = jax.tree.map(lambda p, g: p - step_size * g, params, gradient)
        return moved, loss(moved, task.query)

    _, after = jax.lax.scan(step, params, length=num_steps)
    return jnp.concatenate([loss(params, task.query)[None], after])


ADAPTATION_CURVE = Exercise(
    id="01.adaptation_curve",
    title="The adaptation curve",
    difficulty=2,
    minutes=10,
    reference=_reference_curve,
    instances=lambda rng: [
        (_line, _task(rng, 5, 5), rng.normal(0, 1, 2), 0.1, 3),
        (_line, _task(rng, 4, 9), rng.normal(0, 1, 2), 0.05, 1),
        (_bump, _task(rng, 6, 3), {"height": rng.normal(2, 0.3), "slope": rng.normal(1, 0.3)}, 0.1, 4),
    ],
    misconceptions=(
        Misconception(
            "support loss reported",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.support, params, step_size, num_steps), task.support
            ),
            "You report the loss on the support points, which the steps saw. Which points judge an adapted model?",
        ),
        Misconception(
            "adapted on the query set",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.query, params, step_size, num_steps), task.query
            ),
            "Your steps descend the query loss: the exam is used for practice. Which set may adaptation see?",
        ),
        Misconception(
            "support and query swapped",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.query, params, step_size, num_steps), task.support
            ),
            "You adapt on the query set and report on the support set. Which of the two may adaptation see?",
        ),
        Misconception(
            "no value before the first step",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.support, params, step_size, num_steps)[1:], task.query
            ),
            "The value before the first step is missing. A curve over $K$ steps has $K + 1$ points.",
        ),
        Misconception(
            "no value after the last step",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.support, params, step_size, num_steps)[:-1], task.query
            ),
            "The value after the last step is missing: you record before each step, and stop. "
            "A curve over $K$ steps has $K + 1$ points.",
        ),
        Misconception(
            "one step too many",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.support, params, step_size, num_steps + 1), task.query
            ),
            "Your curve has one step too many. Entry $k$ is the loss after $k$ steps, from 0 to $K$.",
        ),
        Misconception(
            "uphill",
            lambda loss, task, params, step_size, num_steps: _losses(
                loss, _path(loss, task.support, params, -step_size, num_steps), task.query
            ),
            "Your steps walk uphill. Look at the sign of the step.",
        ),
        Misconception(
            "gradient always at the start",
            _stuck,
            "Your gradient is taken at the start every time, so the path is straight. Where does step $k$ begin?",
        ),
        Misconception(
            "only the last value",
            lambda loss, task, params, step_size, num_steps: loss(
                _path(loss, task.support, params, step_size, num_steps)[-1], task.query
            ),
            "You return the last value alone. Keep the query loss of every step.",
        ),
    ),
    alternatives=(
        _with_scan,
        lambda loss, task, params, step_size, num_steps: _losses(
            loss, _path(loss, task.support, params, step_size, num_steps), task.query
        ),
    ),
    hints=(
        "Keep a list of losses. Put one value into it before the loop, and one at the end of each pass.",
        "Each pass has three lines: the gradient on the *support* set, the step with `jax.tree.map`, "
        "the loss on the *query* set. `jnp.stack` turns the list into an array.",
    ),
    expected="An array of shape `[K + 1]`. The first entry is the query loss at the start.",
)

# 01.confidence_interval ---------------------------------------------------------------------------------------------


def _interval(values, spread=jnp.std, root=jnp.sqrt, factor=1.96, ddof=1):
    return values.mean(), factor * spread(values, ddof=ddof) / root(values.size)


CONFIDENCE_INTERVAL = Exercise(
    id="01.confidence_interval",
    title="A score with its confidence interval",
    difficulty=1,
    minutes=5,
    reference=lambda values: tuple(ml.evaluate.score(values)[:2]),
    instances=lambda rng: [(rng.exponential(2, 5),), (rng.normal(-3, 1, 40),), (rng.normal(0, 100, 2),)],
    misconceptions=(
        Misconception(
            "spread of the tasks",
            lambda values: _interval(values, root=lambda n: 1.0),
            "Your interval would hold 95 % of the *tasks*. The mean of many tasks scatters less: "
            "how does its spread shrink with their number?",
        ),
        Misconception(
            "divided by n",
            lambda values: _interval(values, root=lambda n: n),
            "You divide by $n$. The standard deviation of a mean shrinks more slowly than that.",
        ),
        Misconception(
            "variance",
            lambda values: _interval(values, spread=jnp.var),
            "You use the variance, whose unit is the square of the loss. Which measure of spread has the loss's unit?",
        ),
        Misconception(
            "n instead of n - 1",
            lambda values: _interval(values, ddof=0),
            "Your standard deviation divides by $n$: that is numpy's default. The sample's divides by $n - 1$.",
        ),
        Misconception(
            "one standard error",
            lambda values: _interval(values, factor=1.0),
            "This is one standard error, which covers about two thirds. Which factor gives 95 %?",
        ),
        Misconception(
            "full width",
            lambda values: _interval(values, factor=2 * 1.96),
            "This is the whole width of the interval. Half of it lies on each side of the mean.",
        ),
        Misconception(
            "ends of the interval",
            lambda values: (
                values.mean() - _interval(values)[1],
                values.mean() + _interval(values)[1],
            ),
            "These are the two ends of the interval. The task asks for its middle and its half-width.",
        ),
    ),
    alternatives=(
        _interval,
        lambda values: (
            jnp.sum(values) / len(values),
            1.96 * jnp.sqrt(jnp.sum((values - jnp.mean(values)) ** 2) / (len(values) - 1) / len(values)),
        ),
    ),
    hints=(
        "The half-width is $1.96\\, s / \\sqrt n$. numpy and JAX divide by $n$ in `std` unless told otherwise.",
        "`ddof=1` makes `jnp.std` divide by $n - 1$. The number of tasks is `values.size`.",
    ),
    expected="A pair of scalars. Four times as many tasks make the second about half as large.",
)

EXERCISES = (FLOOR, ADAPTATION_CURVE, CONFIDENCE_INTERVAL)

QUIZ = (
    Question(
        "The average network's loss stays at the floor. What would lower it?",
        (
            "A larger network",
            "More tasks to train on",
            "A family whose tasks vary less",
            "A smaller learning rate",
        ),
        2,
        (
            "The floor does not contain the function, so a larger network cannot get below it.",
            "More tasks bring the network closer to the mean curve, and it is there already.",
            "Yes: the floor is the variance between the tasks.",
            "The network is at the best function there is; smaller steps lead to the same place.",
        ),
    ),
    Question(
        "Why is a model scored on the query set and not on the support set?",
        (
            "The query set is larger",
            "It has seen the support set while adapting",
            "The support set is noisy",
            "For speed",
        ),
        1,
        (
            "They have the same size in this lesson.",
            "Yes: on points it has seen, a model can be perfect and know nothing else.",
            "There is no noise in this family.",
            "Both sets cost the same to evaluate.",
        ),
    ),
    Question(
        "You halve the width of a confidence interval over tasks by using",
        ("twice as many tasks", "four times as many tasks", "twice as many inner steps", "half as many tasks"),
        1,
        (
            "The width shrinks with the square root of the number of tasks.",
            "Yes: the width is proportional to one over the square root of the number of tasks.",
            "Inner steps change what is measured, not how surely.",
            "Fewer tasks make it wider.",
        ),
    ),
)


def opening() -> str:
    """The picture of the claim: one function for all sine curves stays at a computable loss, the floor."""
    x = np.linspace(-5.0, 5.0, 101)
    middles = (np.arange(60) + 0.5) / 60
    amplitude, phase = np.meshgrid(0.1 + 4.9 * middles, np.pi * middles)
    curves = amplitude.ravel()[:, None] * np.sin(x - phase.ravel()[:, None])  # Finn et al.'s task distribution
    mean, floor = curves.mean(0), curves.var(0).mean()
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    for row in curves[np.random.default_rng(0).integers(len(curves), size=12)]:
        axes.plot(x, row, color=plots.PALETTE["muted"], linestyle="-", linewidth=0.7, alpha=0.6)
    axes.plot(x, mean, color=plots.PALETTE["orange"], linestyle="-", linewidth=3, label="best one")
    plots.label(axes, "x", "y")
    return diagrams.opening(
        plots.svg(axes.figure),
        diagrams.support_and_query(),
        (f"One function for all tasks: loss {floor:.1f}, never less", "So every task adapts first"),
        ("Twelve sine curves, and the mean of all.", "Support set and query set of one task."),
        f"Left: twelve sine curves, and the mean of all, a low curve far from each; its squared error is {floor:.1f}. "
        "Right: the support set adapts the parameters of a task, the query set judges them.",
    )
