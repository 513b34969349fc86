# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["opening"]
# **Afterwards you can**
#
# - **write** a loss as a pure function of a pytree of parameters,
# - **derive** a gradient by hand, and **check** it in two independent ways,
# - **implement** gradient descent as a scan, and evaluate many tasks at once,
# - **differentiate** through a whole run of gradient descent,
# - **predict** the step size above which descent no longer settles.
#
# **New symbols**
#
# - $\phi$: parameters of one model
# - $\alpha$: learning rate

# %% [markdown]
# **How a lesson works.** `Shift`+`Enter` runs a cell and moves on to the next.
#
# - *Predict.* Before a result is shown, you commit to a guess. A wrong guess tells you where to read again.
# - *Exercise.* Replace the line that raises `NotImplementedError`, then run the check below it. For common
#   mistakes it says what your function computes instead. No exercise needs an earlier one.
# - *Hints* are folded below each check. Opening them costs nothing.
#
# Running all cells at once is safe: an exercise that waits for you says so, and the lesson goes on.
#
# What you passed, answered and predicted is kept in the file `progress.json` beside the lessons, and stays on the
# machine that runs them. On Binder that machine is thrown away: keep the text that
# `metalearn.course.export_progress()` returns.

# %% tags=["imports"]
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup
from metalearn.task import Batch, Loss, Params

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## Two numbers to find
#
# Ten points lie on a wave. Our model is a wave too, with two parameters: how high it is, and how far to the right it
# is shifted.

# %%
x = jnp.linspace(-5.0, 5.0, 10)
y = 2.0 * jnp.sin(x - 1.0)
batch = (x, y)


def model(params, x):
    return params["amplitude"] * jnp.sin(x - params["phase"])


start = {"amplitude": 0.5, "phase": -0.5}
truth = {"amplitude": 2.0, "phase": 1.0}

fine = jnp.linspace(-5.5, 5.5, 200)
plots.show(
    plots.lines(
        fine,
        {"the wave behind the data": model(truth, fine), "our model": model(start, fine)},
        "input x (radians)",
        "output y",
        points={"data": (x, y)},
        ylim=(-2.4, 4.2),
    ),
    alt="Ten points on a solid wave of height 2. A dashed wave of height 0.5, our model, misses most of them: "
    "it is too flat, and its crests lie to the left of the solid ones.",
)

# %% [markdown]
# The dashed wave is too flat, and it lies too far to the left. The right amplitude is 2 and the right phase is 1. We
# pretend not to know that, and go looking: how wrong are we, and which change of the two numbers makes us less wrong?

# %% [markdown]
# ## A pure function of a pytree
#
# "How wrong" is one number, the mean squared error.


# %%
def loss(params, batch):
    """Mean squared error. params: two numbers by name; batch: (x, y), each of shape [num_points]."""
    x, y = batch
    return jnp.mean((model(params, x) - y) ** 2)


print(f"loss at our start: {loss(start, batch):.3f}")
print(f"loss at the truth: {loss(truth, batch):.3f}")
assert loss(truth, batch) == 0.0

# %% [markdown]
# This function is **pure**: its value depends on its arguments alone, and it changes nothing outside. Everything in JAX
# rests on that. To transform a function, JAX runs it once on stand-ins for the arguments, records the operations, and
# turns the record into something else: a derivative, a version for many inputs, a compiled program. What is not in the
# record is lost. So whatever may change, the parameters above all, comes in as an argument.
#
# The parameters are a **pytree**: dicts, tuples and lists, nested as you like, with numbers or arrays as leaves.
# Think of it as a vector whose entries have names. In signatures it is called `Params`. `jax.tree.map` does arithmetic
# on it, leaf by leaf.

# %% tags=["nbval-check-output"]
print(jax.tree.leaves(start))
print(jax.tree.map(lambda p, t: t - p, start, truth))

# %% [markdown]
# The second line is the way from the start to the truth, with the names kept.

# %% [markdown]
# ## grad
#
# Which small change of the two numbers makes the loss smaller?

# %%
better_change = predict(
    "00.better_change",
    "We stand at the dashed wave, and may change one number a little. What makes the loss smaller?",
    options=[
        "both a higher wave and a shift to the right",
        "a higher wave, but not a shift to the right",
        "a shift to the right, but not a higher wave",
    ],
)

# %% [markdown]
# The answer lies in the signs of two derivatives. You will work them out by hand once, and check every line. For the check
# we need a slope that uses no calculus: the function a little to the right, minus the function a little to the left,
# divided by the distance.


# %%
def slope(function, at, step=1e-2):
    """The central difference of a function of one number."""
    return (function(at + step) - function(at - step)) / (2 * step)


a, b = start["amplitude"], start["phase"]
print(f"slope of sin at 0: {slope(jnp.sin, 0.0):.4f}")

# %% [markdown]
# **Line 1.** Name the errors. With amplitude $a$ and phase $b$, each point $i$ has a residual $r_i$, and the loss is
# the mean of their squares:
#
# $$r_i(a, b) = a \sin(x_i - b) - y_i, \qquad L(a, b) = \frac1n \sum_i r_i(a, b)^2.$$


# %%
def residual(a, b):
    return a * jnp.sin(x - b) - y


def L(a, b):
    return jnp.mean(residual(a, b) ** 2)


assert np.isclose(L(a, b), loss(start, batch))

# %% [markdown]
# **Line 2.** The chain rule, for either parameter:
#
# $$\frac{\partial L}{\partial a} = \frac2n \sum_i r_i \frac{\partial r_i}{\partial a}, \qquad
#   \frac{\partial L}{\partial b} = \frac2n \sum_i r_i \frac{\partial r_i}{\partial b}.$$

# %%
residual_slope_a = slope(lambda a: residual(a, b), a)
residual_slope_b = slope(lambda b: residual(a, b), b)
assert np.isclose(slope(lambda a: L(a, b), a), 2 * jnp.mean(residual(a, b) * residual_slope_a), atol=1e-3)
assert np.isclose(slope(lambda b: L(a, b), b), 2 * jnp.mean(residual(a, b) * residual_slope_b), atol=1e-3)

# %% [markdown]
# **Line 3.** The residual's own derivatives. The minus sign comes from the inner derivative of $x_i - b$:
#
# $$\frac{\partial r_i}{\partial a} = \sin(x_i - b), \qquad \frac{\partial r_i}{\partial b} = -a \cos(x_i - b).$$

# %%
assert np.allclose(residual_slope_a, jnp.sin(x - b), atol=1e-3)
assert np.allclose(residual_slope_b, -a * jnp.cos(x - b), atol=1e-3)

# %% [markdown]
# **Line 4.** Insert line 3 into line 2, and you have the gradient. JAX gets it from the loss alone:

# %%
by_hand = {
    "amplitude": 2 * jnp.mean(residual(a, b) * jnp.sin(x - b)),
    "phase": -2 * jnp.mean(residual(a, b) * a * jnp.cos(x - b)),
}
by_jax = jax.grad(loss)(start, batch)

for name in start:
    print(f"{name:10s} by hand {by_hand[name]:+.6f}   by jax.grad {by_jax[name]:+.6f}")
    assert np.isclose(by_hand[name], by_jax[name], rtol=1e-5)
better_change.reveal("a shift to the right, but not a higher wave")
assert by_jax["phase"] < 0 < by_jax["amplitude"]

# %% [markdown]
# `jax.grad` takes a function and returns a function. The result has the structure of the first argument, here
# `params`.
#
# A slope of the phase below zero: shift the wave to the right and the loss falls. A slope of the amplitude above
# zero: a higher wave is *worse*. A gradient looks only at the next small step. With the crests so far off, higher
# crests miss by more; the amplitude has to wait until the phase is better.
#
# `jax.grad` is not a finite difference. JAX applies the chain rule to the recorded operations, so the result is exact up to
# rounding. Often you want the loss as well, and `jax.value_and_grad` returns the pair:

# %%
value, gradient = jax.value_and_grad(loss)(start, batch)
print(f"loss {value:.3f}, slope in the amplitude {gradient['amplitude']:.3f}, in the phase {gradient['phase']:.3f}")
assert value == loss(start, batch)

# %% [markdown]
# ## A second opinion
#
# A gradient can be wrong and still look reasonable. In this course every gradient gets a second opinion, and `slope`
# is the simplest one. It needs a step size. JAX computes in 32-bit numbers unless told otherwise.

# %%
best_step = predict(
    "00.best_step",
    "You check the slope of the loss in the phase by a central difference, in 32-bit numbers. "
    "Which step comes nearest to the exact slope?",
    options=["0.1", "0.001", "0.000001"],
)


# %%
def slope_error(step, dtype):
    """Absolute error of the central difference in the phase, at the start."""
    points, values = np.asarray(x, dtype), np.asarray(2 * np.sin(x - 1), dtype)

    def in_phase(b):
        return np.mean((dtype(a) * np.sin(points - b) - values) ** 2)

    exact = -2 * np.mean((a * np.sin(points - b) - values) * a * np.cos(points - b))
    return abs(slope(in_phase, dtype(b), dtype(step)) - exact)


errors = {step: slope_error(float(step), np.float32) for step in ["0.1", "0.001", "0.000001"]}
best_step.reveal(min(errors, key=errors.get))
for step, error in errors.items():
    print(f"step {step:8s}  error {error:.1e}")

# %%
steps = 10.0 ** np.linspace(-7, 0, 57)
in_32_bits = np.array([slope_error(step, np.float32) for step in steps])
in_64_bits = np.array([slope_error(step, np.float64) for step in steps])
plots.show(
    plots.lines(
        steps,
        {"32-bit numbers": in_32_bits, "64-bit numbers": in_64_bits},
        "step h (radians)",
        "error of the slope",
        log="xy",
    ),
    alt="Two curves shaped like a V on logarithmic axes. Both fall from the right with the same slope. The 32-bit curve "
    "turns up again at a step near 0.01, the 64-bit curve much later and much lower.",
)
hundredfold = slope_error(1e-1, np.float64) / slope_error(1e-2, np.float64)
print(f"64 bits: from step 0.1 to 0.01 the error falls by a factor {hundredfold:.0f}")
assert 95 < hundredfold < 105

# %% [markdown]
# Two errors compete. On the right the *formula* is to blame: its error shrinks like $h^2$, a factor 100 for a step
# ten times smaller. On the left it is *rounding*: two nearly equal numbers are subtracted, and what is left is noise,
# divided by a tiny $h$. The smallest step is not the best one. A later lesson turns a finite difference into an algorithm,
# and this V returns there.

# %% [markdown]
# ## Exercise: a slope along a direction
#
# With a million parameters you cannot test every entry of a gradient. You test one direction $d$: the slope of $f$
# along $d$ must equal the inner product of gradient and $d$. Write the central difference along a direction, for any
# pytree.


# %% tags=["exercise"] exercise="00.finite_difference"
def finite_difference(
    function: Callable[[Params], jax.Array],
    point: Params,
    direction: Params,
    step: float,
) -> jax.Array:
    """The central difference of a function at a point, along a
    direction.

    Args:
      function: takes a pytree like `point`, returns a number.
      point: any pytree of arrays.
      direction: a pytree like `point`, of any length; its length
        counts.
      step: h > 0; the two evaluations lie h times the direction away
        from the point.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    ahead = jax.tree.map(lambda p, d: p + step * d, point, direction)
    behind = jax.tree.map(lambda p, d: p - step * d, point, direction)
    return (function(ahead) - function(behind)) / (2 * step)
    ### END SOLUTION


# %%
check("00.finite_difference", finite_difference)

# %% [markdown]
# ## vmap
#
# How does the loss depend on the phase? We want it for 201 phases. You could write a loop. `jax.vmap` takes a
# function for one and returns a function for many. `in_axes` has one entry for each argument: `0` where there is one
# value for each copy, stacked along axis 0, and `None` where all copies share the value.
# An entry holds for all leaves of its argument, so we also repeat the amplitude 201 times.

# %%
phases = jnp.linspace(-jnp.pi, jnp.pi, 201)
candidates = {"amplitude": jnp.full(201, 2.0), "phase": phases}
losses = jax.vmap(loss, in_axes=(0, None))(candidates, batch)  # many params, one batch

in_a_loop = np.array([loss({"amplitude": 2.0, "phase": phase}, batch) for phase in phases[::20]])
assert losses.shape == (201,) and np.allclose(losses[::20], in_a_loop, atol=1e-5)

plots.show(
    plots.lines(
        phases,
        {"amplitude 2": losses},
        "phase (radians)",
        "loss",
        points={"the truth": (1.0, 0.0)},
        ylim=(-0.5, 11),
    ),
    alt="The loss as a function of the phase: one valley that reaches zero at phase 1, and one hill near phase -2.4.",
)
hill = phases[jnp.argmax(losses)]
print(f"top of the hill: phase {hill:.2f}; half a turn from the truth: {1 - jnp.pi:.2f}")
assert abs(hill - (1 - jnp.pi)) < 0.3

# %% [markdown]
# Nothing in `loss` mentions a second phase. `vmap` changed the recorded operations so that each works on all 201
# values at once. The curve has one valley, at the truth, and one hill, about half a turn away. To the left of
# the hill the way down leads away from this valley.

# %% [markdown]
# ## Random numbers have a key
#
# Next we want many tasks, drawn at random. NumPy's generator remembers how much was drawn from it, so the same call
# gives other numbers each time. That is not pure. In JAX, randomness is a function of a **key**: the same key gives
# the same numbers, and `split` makes new keys from an old one.

# %%
key = jax.random.key(0)
assert jax.random.normal(key) == jax.random.normal(key)  # same key, same number

task_key, other_key = jax.random.split(key)
assert jax.random.normal(other_key) != jax.random.normal(key)  # another key, another number

# %% [markdown]
# From here on, use each key once, and split it when you need more. Everything you run here can then be repeated exactly.
#
# Here are 25 tasks. Each is a wave with its own amplitude and phase. `support` holds the points that a learner may
# learn from; lesson 01 says what the rest is for.

# %% tags=["nbval-check-output"]
tasks = ml.tasks.Sinusoid(num_support=10)(task_key, 25)
print(jax.tree.map(jnp.shape, tasks.support))

# %% [markdown]
# `tasks.support` is the pair (x, y), with axes for the task, the point, and the single input or output. Our `loss` works
# entry by entry, so the last axis does not matter. A batch of tasks is the
# pytree of one task with one more axis in front.

# %% [markdown]
# ## Exercise: one model, many tasks
#
# How good is one set of parameters on each of the tasks? Return one loss for each task.


# %% tags=["exercise"] exercise="00.per_task_losses"
def per_task_losses(
    loss: Loss,
    params: Params,
    batches: Batch,
) -> jax.Array:
    """The loss of the same parameters on each task.

    Args:
      loss: (params, batch of one task) -> a number.
      params: any pytree; all tasks share it.
      batches: a pytree of arrays of shape [num_tasks, num_points, ...].

    Returns:
      Shape [num_tasks].
    """
    ### BEGIN SOLUTION
    return jax.vmap(loss, in_axes=(None, 0))(params, batches)
    ### END SOLUTION


# %%
check("00.per_task_losses", per_task_losses)

# %% [markdown]
# Transformations compose. `jax.grad(loss)` is a function like any other, so it can be mapped as well: 25 gradients,
# one for each task.

# %%
task_gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(start, tasks.support)
print(jax.tree.map(jnp.shape, task_gradients))


def mean_loss(params):
    return jnp.mean(jax.vmap(loss, in_axes=(None, 0))(params, tasks.support))


mean_gradient = jax.tree.map(jnp.mean, task_gradients)
for name, slope_of_mean in jax.grad(mean_loss)(start).items():
    assert np.isclose(mean_gradient[name], slope_of_mean, atol=1e-4)

# %% [markdown]
# The mean of the gradients is the gradient of the mean. That lets every algorithm of this course be written for *one*
# task: a `vmap` and a mean do the rest.

# %% [markdown]
# ## scan
#
# Learning repeats a step. The Babylonian method repeats one to find $\sqrt2$: if a guess is too large, 2 divided by the
# guess is too small, and the other way round, so take the mean of both. `jax.lax.scan` repeats a function of a
# **carry**, which one step hands to the next. The function returns a pair: the new carry, and something to keep.


# %%
def square_root(number):
    def refine(guess, _):
        better = (guess + number / guess) / 2
        return better, better

    last, history = jax.lax.scan(refine, 1.0, length=5)
    return last, history


last, history = square_root(2.0)
print("guesses:", history)

guess = 1.0
for _ in range(5):
    guess = (guess + 2.0 / guess) / 2
assert np.isclose(last, guess) and np.isclose(last, np.sqrt(2)) and history.shape == (5,)

# %% [markdown]
# The kept guesses come back stacked. (The second argument of `refine` is for an array that is read entry by entry,
# one in each step. We have none.) A Python loop gives the same numbers, but JAX would record each of its steps anew.
# Of a scan it records one step, however many there are.
#
# A scan is a function like any other, so it has a derivative. The derivative of $\sqrt n$ is $1 / (2 \sqrt n)$. The
# function `square_root` takes no square root, only five means:

# %%
through_the_scan = jax.grad(lambda number: square_root(number)[0])(2.0)
print(f"derivative of the fifth guess: {through_the_scan:.6f}    1 / (2 √2): {1 / (2 * np.sqrt(2)):.6f}")
assert np.isclose(through_the_scan, 1 / (2 * np.sqrt(2)), rtol=1e-5)

# %% [markdown]
# Remember this line. An algorithm that repeats a step was differentiated as a whole, with respect to what went in.

# %% [markdown]
# ## Exercise: gradient descent as a scan
#
# A gradient points to where the loss grows, so we step against it. With parameters $\phi$, objective $f$ and step size
# $\alpha$, repeat $\phi \leftarrow \phi - \alpha \nabla f(\phi)$ a number of times, and return the last $\phi$.


# %% tags=["exercise"] exercise="00.gradient_descent"
def gradient_descent(
    objective: Callable[[Params], jax.Array],
    start: Params,
    step_size: float,
    num_steps: int,
) -> Params:
    """The parameters after some steps of gradient descent.

    Args:
      objective: takes a pytree like `start`, returns a number; to be
        made small.
      start: any pytree of arrays.
      step_size: α > 0.
      num_steps: K >= 0; no step at all returns the start.

    Returns:
      A pytree like `start`.
    """

    ### BEGIN SOLUTION
    def step(params, _):
        gradient = jax.grad(objective)(params)
        return jax.tree.map(lambda p, g: p - step_size * g, params, gradient), None

    end, _ = jax.lax.scan(step, start, length=num_steps)
    return end
    ### END SOLUTION


# %%
check("00.gradient_descent", gradient_descent)

# %% [markdown]
# ## A derivative through learning
#
# From here on we use the library's own descent, `ml.inner.descend(objective, rule, num_steps, start)`. The rule comes
# from [optax](https://optax.readthedocs.io); `optax.sgd(0.1)` is the plain step of the exercise with step size 0.1.


# %%
def objective(params):
    return loss(params, batch)


learned = ml.inner.descend(objective, optax.sgd(0.1), 100, start)
print(f"after 100 steps: amplitude {learned['amplitude']:.3f}, phase {learned['phase']:.3f}")
assert all(np.isclose(learned[name], truth[name], atol=1e-2) for name in truth)

# %% [markdown]
# Both numbers are found. Now stop early, after five steps, and look at the loss *there*. How would it change if we
# moved the *start*?

# %%
higher_start = predict(
    "00.higher_start",
    "At the start, a higher wave makes the loss larger, as you saw. We now take five steps of descent with step "
    "size 0.1 and look at the loss after them. What does a slightly higher wave at the start do to that loss?",
    options=["makes it larger", "makes it smaller", "does not change it"],
)


# %%
def final_loss(start):
    return objective(ml.inner.descend(objective, optax.sgd(0.1), 5, start))


before = jax.grad(objective)(start)
after = jax.grad(final_loss)(start)
for name in start:
    print(f"{name:10s} slope of the loss at the start {before[name]:+.3f}, after five steps {after[name]:+.3f}")
higher_start.reveal("makes it smaller")
assert before["amplitude"] > 0 > after["amplitude"]
assert jax.grad(objective)(ml.inner.descend(objective, optax.sgd(0.1), 5, start))["amplitude"] < 0

second_opinion = slope(lambda amplitude: final_loss({**start, "amplitude": amplitude}), start["amplitude"])
assert np.isclose(after["amplitude"], second_opinion, atol=1e-2)

# %% [markdown]
# The sign has changed, for two reasons. After five steps the phase is better, and there a higher wave lowers the loss.
# And the slope in the phase has a factor $a$ (line 4), so a higher wave lets descent correct the phase faster. A higher
# wave is a worse place to stay, and a better place to *learn from*.
#
# **The gradient of the loss after learning, with respect to where learning began, is the central object of this
# course.** It is called the meta-gradient. `grad` through a `scan` is one way to compute it; most later
# lessons are about better ways.

# %% [markdown]
# ## jit
#
# `jax.jit` compiles the record. It adds nothing to what you can express, only speed. JAX records once for each shape
# and type of the arguments, and replays from then on. A side effect makes that visible: this function notes each time
# that Python really runs its body. We call it on 10 points, 10 other points, 20 points, and the first 10 again.

# %% tags=["nbval-check-output"]
runs = []


@jax.jit
def noted_loss(params, batch):
    runs.append(batch[0].shape)
    return loss(params, batch)


for points in (x, x + 1.0, jnp.linspace(-5.0, 5.0, 20), x):
    noted_loss(start, (points, 2.0 * jnp.sin(points - 1.0)))
print(runs)

# %% [markdown]
# Four calls, two runs: one for each shape. Two things follow. Keep shapes fixed in anything that runs often. And
# never rely on a side effect, or on a global that changes:

# %%
scale = 1.0


@jax.jit
def impure(value):
    return scale * value


first = impure(5.0)
scale = 100.0
second = impure(5.0)
print(f"with scale 1: {first:.0f}    with scale 100: {second:.0f}")
assert first == second == 5.0

# %% [markdown]
# No error, and a wrong number: the first call recorded `scale` as the constant 1. Had `scale` been an argument, the
# function would be pure, and right.

# %% [markdown]
# ## How large may a step be?
#
# Below, the same descent on the same loss. On the left you look down on the loss as a landscape, with the path of the
# parameters. On the right is the loss after each step. Move the step size. **Above which step size does the path no
# longer settle, however many steps you give it?** Then commit to what you read.


# %%
@jax.jit
def visited(step_size):
    """The parameters before each of 61 steps, and their losses: arrays of shape [61]."""

    def step(params, _):
        value, gradient = jax.value_and_grad(objective)(params)
        return jax.tree.map(lambda p, g: p - step_size * g, params, gradient), (params, value)

    return jax.lax.scan(step, start, length=61)[1]


amplitudes, phase_axis = np.linspace(0.0, 3.0, 80), np.linspace(-1.0, 2.5, 80)
landscape = jax.vmap(lambda b: jax.vmap(lambda a: L(a, b))(amplitudes))(phase_axis)


def draw_path(step_size, num_steps):
    path, path_losses = jax.tree.map(lambda leaf: leaf[: num_steps + 1], visited(step_size))
    figure, (left, right) = plots.subplots(2, height=3.4)
    left.contour(
        amplitudes,
        phase_axis,
        landscape,
        levels=(0.05, 0.2, 0.5, 1, 2, 3, 4, 6, 8, 10),
        colors="gray",
        linewidths=0.7,
        linestyles="-",
    )
    left.plot(path["amplitude"], path["phase"], "o-", markersize=4, linewidth=1, label="path")
    left.plot(2.0, 1.0, "*", markersize=14, color="black", linestyle="none", label="minimum")
    left.set(xlim=(0, 3), ylim=(-1, 2.5))
    plots.label(left, "amplitude", "phase (radians)", legend=False)
    left.legend(loc="upper right", fontsize="small", framealpha=1, edgecolor="none")
    right.plot(path_losses, "o-", markersize=4, linewidth=1)
    right.set(yscale="log", ylim=(1e-12, 1e1), xlim=(-1, 61))
    plots.label(right, "step", "loss")
    return figure


explore(
    draw_path,
    alt="Left: level lines of the loss over amplitude and phase, with the path of gradient descent towards the minimum at "
    "amplitude 2 and phase 1. Right: the loss after each step. For small step sizes it keeps falling; for large ones "
    "the path jumps to and fro across the minimum, and the loss stays up.",
    step_size=(0.02, 0.7, 0.01, 0.1),
    num_steps=(0, 60, 1, 20),
)

# %%
step_limit = predict("00.step_limit", "Above which step size does the path no longer settle?")

# %% [markdown]
# Near the minimum $\phi^*$ the gradient is nearly linear, $\nabla L(\phi) \approx H (\phi - \phi^*)$, with $H$ the matrix of
# second derivatives, the **Hessian**. Put that into the step:
#
# $$\phi_{k+1} - \phi^* \approx (I - \alpha H)(\phi_k - \phi^*).$$
#
# Along an eigenvector of $H$ with eigenvalue $\lambda$, each step multiplies the deviation by about
# $1 - \alpha\lambda$. Check it: nudge the parameters away from the minimum along the steepest direction, the eigenvector
# with the largest eigenvalue, and take one step.

# %%
flat_truth, unflatten = ravel_pytree(truth)  # the pytree as a plain vector, and the way back
hessian = jax.jit(jax.hessian(lambda vector: objective(unflatten(vector))))(flat_truth)
eigenvalues, eigenvectors = np.linalg.eigh(hessian)
steepest, direction = eigenvalues[-1], eigenvectors[:, -1]
print("eigenvalues of H:", eigenvalues.round(2))

nudge = 1e-3 * direction
moved, _ = ravel_pytree(ml.inner.descend(objective, optax.sgd(0.3), 1, unflatten(flat_truth + nudge)))
factor = (moved - flat_truth) @ direction / 1e-3
print(f"one step multiplies the nudge by {factor:.2f};    1 - 0.3 λ = {1 - 0.3 * steepest:.2f}")
assert np.isclose(factor, 1 - 0.3 * steepest, atol=1e-2)

# %% [markdown]
# The distance shrinks if $|1 - \alpha\lambda| < 1$, that is if $\alpha < 2/\lambda$. This must hold for every
# eigenvalue, so the largest one decides. Two runs of 500 steps, a little below the limit and a little above it:

# %%
limit = 2 / steepest
step_limit.reveal(limit)
for step_size in (0.98 * limit, 1.02 * limit):
    final = objective(ml.inner.descend(objective, optax.sgd(step_size), 500, start))
    print(f"step size {step_size:.3f}: loss after 500 steps {final:.1e}")
    assert (final < 1e-8) == (step_size < limit)

# %% [markdown]
# Above the limit the path overshoots the valley in the steep direction by more each time, until it jumps to and fro
# between its walls. The flat direction could bear much larger steps. Keep the factor $I - \alpha H$ in mind: lesson 02 shows
# that the meta-gradient is made of it.

# %% [markdown]
# ## Exercise: the slope in the step size
#
# Is our step size too small or too large for five steps? The answer is a sign: the derivative, in the step size, of
# the loss after the last step. A pure function can be differentiated in any of its arguments: `jax.grad` takes the
# first one, or the one that `argnums` names, counted from 0.


# %% tags=["exercise"] exercise="00.step_size_slope"
def step_size_slope(
    objective: Callable[[Params], jax.Array],
    start: Params,
    step_size: float,
    num_steps: int,
) -> jax.Array:
    """The derivative, in the step size, of the loss after the last step
    of gradient descent.

    Args:
      objective: takes a pytree like `start`, returns a number.
      start: any pytree of arrays.
      step_size: where the slope is wanted.
      num_steps: K >= 1.

    Returns:
      A number.
    """

    ### BEGIN SOLUTION
    def final_loss(start, step_size):
        return objective(ml.inner.descend(objective, optax.sgd(step_size), num_steps, start))

    return jax.grad(final_loss, argnums=1)(start, step_size)
    ### END SOLUTION


# %%
check("00.step_size_slope", step_size_slope)

# %% [markdown]
# Here is a second opinion on the loss after five steps. In a cell of your own, compare it with
# `step_size_slope(objective, start, 0.1, 5)`:


# %%
def loss_after_five(step_size):
    return objective(ml.inner.descend(objective, optax.sgd(step_size), 5, start))


slopes = {step_size: slope(loss_after_five, step_size) for step_size in (0.1, 0.5, 0.65)}
for step_size, after_five in slopes.items():
    print(f"step size {step_size:4.2f}: slope {after_five:+.2f}")
assert slopes[0.1] < 0 and slopes[0.5] < 0 < slopes[0.65] and limit < 0.5

# %% [markdown]
# At 0.5 a slightly larger step size would still help, although 0.5 is above the limit: the limit is about many steps, and
# these are five. At 0.65 it would do harm. How the best step size depends on the number of steps is a question for lesson 02.

# %% [markdown]
# ## Limits
#
# - **Arrays cannot be changed in place.** `x[0] = 1` raises an error; `x.at[0].set(1)` returns a changed copy.
# - **Python's `if` cannot look at a value inside `vmap`, `scan` and `jit`**, because there is no single value
#   yet. Use `jnp.where` there.
# - **32-bit numbers** round coarsely, as the V showed. Training seldom minds. Lessons that compare with a theory switch to
#   64 bits.
# - **Memory.** The gradient of a scan keeps every step until the end. Ten steps are harmless; ten thousand steps of a
#   network are not, and several methods of this course exist for that reason.
# - **Where descent ends depends on where it begins.** Far from the truth it finds another valley, here an equally deep
#   one: the same wave, shifted by a whole turn, or turned upside down and shifted by half a turn. The valleys of networks
#   are not all alike.

# %% tags=["nbval-check-output"]
try:
    x[0] = 1.0
except TypeError as error:
    print(type(error).__name__)

changed = x.at[0].set(1.0)
print(changed[0], x[0])

# %%
for phase in (-2.5, -3.1):
    end = ml.inner.descend(objective, optax.sgd(0.1), 300, {"amplitude": 2.0, "phase": phase})
    print(f"from phase {phase}: amplitude {end['amplitude']:.2f}, phase {end['phase']:.2f}, loss {objective(end):.0e}")
    assert objective(end) < 1e-8 and not np.isclose(end["phase"], truth["phase"])

# %% [markdown]
# ## What to take away
#
# - A pure function of a pytree is all that JAX asks for: what can change is an argument.
# - `grad` gives the slope, exact up to rounding. A finite difference gives a second opinion, with a step that is
#   neither large nor tiny.
# - `vmap` turns code for one task into code for many; `scan` repeats a step; `jit` only makes it fast.
# - They compose. `grad` through a `scan` is the derivative of learning itself.
# - Near a minimum, descent settles for step sizes below two over the largest eigenvalue of the Hessian there.

# %%
quiz("00")

# %%
progress("00")

# %% [markdown]
# ## References
#
# - J. Bradbury et al. *JAX: composable transformations of Python+NumPy programs.* 2018.
#   [docs.jax.dev](https://docs.jax.dev): "Key concepts", "Pytrees", "Pseudorandom numbers" and "The Sharp Bits".
# - C. Finn, P. Abbeel, S. Levine. *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.* 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). Sine curves as tasks (section 5.1), and the meta-gradient.
# - E. M. Chayti, M. Jaggi. *A New First-Order Meta-Learning Algorithm with Convergence Guarantees.* 2024.
#   [arXiv 2409.03682](https://arxiv.org/abs/2409.03682). The first-order method that this course leads to.
