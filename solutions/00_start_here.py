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
# - **differentiate** a whole run of gradient descent,
# - **predict** the learning rate above which gradient descent no longer converges.
#
# **New symbols**
#
# - $\theta$: initialization
# - $\varphi_k$: parameters after $k$ steps
# - $\alpha$, $K$: learning rate, number of steps
# - $h$: loss of one task
# - $H$, $L$: Hessian of $h$, and its largest eigenvalue

# %% [markdown]
# **What this is for.** When a model must learn a new task from ten examples, much depends on where its training begins.
# Gradient-based meta-learning searches for a good initialization. It trains the model on many tasks, each time for a
# few steps from the same initialization, and asks how this initialization should change so that the loss *after*
# training becomes smaller. To answer, we have to differentiate a whole training run. In this lesson you will do that,
# for a model with only two parameters.
#
# *Short of time? Skip the section on `jit` and the last exercise.*
#
# **How a lesson works.** `Shift`+`Enter` runs a cell and moves on to the next.
#
# - *Predict.* Before a result is shown, you commit to a guess. A wrong guess tells you which passage to read again.
# - *Exercise.* Replace the line that raises `NotImplementedError`, run the cell, then run the check below it. If you
#   made a common mistake, the check says what your function computes instead. No exercise needs an earlier one.
# - *Hints* and a solution are folded below each exercise. Opening them costs nothing.
#
# Running all cells at once is safe, because an exercise that waits for you says so and the lesson goes on. It also shows
# the answers to the predictions; if you still want to make one, run its cell again. Code that only draws or checks is
# folded: click the bar at its left to see it.
#
# Your progress (exercises, predictions and answers to the quiz) is kept in the file `progress.json` beside the lessons,
# on the machine that runs them. A machine that is lent to you for one session, such as Binder or Colab, deletes the file
# when the session ends. There, keep the text that `ml.course.export_progress()` returns, and hand it to
# `ml.course.import_progress` when you come back. (`ml` is short for `metalearn`, the library of this course.)

# %% tags=["imports"]
from collections.abc import Callable

import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_00 as figures
from metalearn.task import Batch, Loss, Params

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Two numbers to find
#
# Ten points lie on a sine wave. Our model is a sine wave too, and it has two parameters: its amplitude, which says how
# high it is, and its phase, which says how far it is shifted to the right. The point where we begin to search is called
# the **initialization** and written $\theta$.

# %%
x = jnp.linspace(-5.0, 5.0, 10)
y = 2.0 * jnp.sin(x - 1.0)
batch = (x, y)


def model(params, x):
    return params["amplitude"] * jnp.sin(x - params["phase"])


theta = {"amplitude": 0.5, "phase": -0.5}
truth = {"amplitude": 2.0, "phase": 1.0}
figures.two_waves(model, theta, truth, batch)

# %% [markdown]
# The dashed wave is too flat, and it lies too far to the left. We know the true parameters, because we made the data,
# but we shall search for them as if we did not. Two questions lead the search. How wrong is our model? And which small
# change of the two parameters makes it less wrong?

# %% [markdown]
# ## A pure function of a pytree
#
# "How wrong" is a single number, the mean squared error.


# %%
def loss(params, batch):
    """Mean squared error of a model with these params on a batch (x, y)."""
    x, y = batch
    return jnp.mean((model(params, x) - y) ** 2)


print(f"loss at the initialization:   {loss(theta, batch):.3f}")
print(f"loss at the true parameters:  {loss(truth, batch):.3f}")

# %% tags=["fold"]
assert loss(truth, batch) == 0.0 < loss(theta, batch)

# %% [markdown]
# This function is **pure**: its value depends on its arguments alone, and it changes nothing outside. Everything in JAX
# rests on this property. To transform a function, JAX runs it once on stand-ins for the arguments, records the
# operations, and turns the record into something else: a derivative, a version for many inputs, or a compiled program.
# Whatever else the function does is not in the record, and the new function does not do it. That is why everything that
# may change, above all the parameters, comes in as an argument.
#
# The parameters form a **pytree**: dicts, tuples and lists, nested as you like, with numbers or arrays as leaves. You
# can think of it as a vector whose entries have names. In signatures it is called `Params`. The function `jax.tree.map`
# does arithmetic on pytrees, leaf by leaf.

# %% tags=["nbval-check-output"]
print(jax.tree.leaves(theta))
print(jax.tree.map(lambda p, t: t - p, theta, truth))

# %% [markdown]
# The first line shows the leaves of `theta` without their names. The second is the difference between the true
# parameters and the initialization, and it keeps the names.

# %% [markdown]
# ## grad
#
# Look at the two waves once more, and guess before you compute.

# %%
better_change = predict("00.better_change")

# %% [markdown]
# The answer lies in the signs of two derivatives. We work them out by hand once, and the cell below each line checks
# it. The check needs an estimate of a derivative that uses no calculus. We take the **central difference**: the value
# of the function a little to the right, minus its value a little to the left, divided by the distance between the two
# points.


# %%
def central_difference(function, at, step=1e-2):
    """An estimate of the derivative of a function of one number."""
    return (function(at + step) - function(at - step)) / (2 * step)


print(f"derivative of sin at 0:  {central_difference(jnp.sin, 0.0):.4f}")
print(f"cos(0), which it should be:  {jnp.cos(0.0):.4f}")

# %% [markdown]
# **Line 1.** Give the errors a name. With amplitude $a$ and phase $b$, each of the $n$ points has a residual $r_i$, and
# the loss $h$ is the mean of the squared residuals:
#
# $$r_i(a, b) = a \sin(x_i - b) - y_i, \qquad h(a, b) = \frac1n \sum_i r_i(a, b)^2.$$


# %%
def residual(a, b):
    return a * jnp.sin(x - b) - y


def h(a, b):
    return jnp.mean(residual(a, b) ** 2)


a, b = theta["amplitude"], theta["phase"]
assert np.isclose(h(a, b), loss(theta, batch))

# %% [markdown]
# **Line 2.** Apply the chain rule, for either parameter:
#
# $$\frac{\partial h}{\partial a} = \frac2n \sum_i r_i \frac{\partial r_i}{\partial a}, \qquad
#   \frac{\partial h}{\partial b} = \frac2n \sum_i r_i \frac{\partial r_i}{\partial b}.$$

# %% tags=["fold"]
dr_da = central_difference(lambda a: residual(a, b), a)
dr_db = central_difference(lambda b: residual(a, b), b)
assert np.isclose(central_difference(lambda a: h(a, b), a), 2 * jnp.mean(residual(a, b) * dr_da), atol=1e-3)
assert np.isclose(central_difference(lambda b: h(a, b), b), 2 * jnp.mean(residual(a, b) * dr_db), atol=1e-3)

# %% [markdown]
# **Line 3.** Differentiate the residual. The minus sign comes from the inner derivative of $x_i - b$:
#
# $$\frac{\partial r_i}{\partial a} = \sin(x_i - b), \qquad \frac{\partial r_i}{\partial b} = -a \cos(x_i - b).$$

# %% tags=["fold"]
assert np.allclose(dr_da, jnp.sin(x - b), atol=1e-3)
assert np.allclose(dr_db, -a * jnp.cos(x - b), atol=1e-3)

# %% [markdown]
# **Line 4.** Insert line 3 into line 2, and you have the gradient. JAX needs nothing but the loss to get the same:

# %%
by_hand = {
    "amplitude": 2 * jnp.mean(residual(a, b) * jnp.sin(x - b)),
    "phase": -2 * jnp.mean(residual(a, b) * a * jnp.cos(x - b)),
}
by_jax = jax.grad(loss)(theta, batch)

# %% tags=["fold"]
assert all(np.isclose(by_hand[name], by_jax[name], rtol=1e-5) for name in theta)
assert by_jax["phase"] < 0 < by_jax["amplitude"]
better_change.reveal(figures.better_change(by_jax))
plots.table(
    {name: (by_hand[name], by_jax[name]) for name in theta},
    ("derivative with respect to", "by hand", "jax.grad"),
    title="Four lines of calculus and one call agree",
    caption="The gradient of the loss at the initialization.",
    digits=5,
)

# %% [markdown]
# `jax.grad` takes a function and returns a function. Its result has the structure of the first argument, which is
# `params` here.
#
# A higher wave is *worse* here, although the true wave is higher. This is not a mistake, because a gradient speaks only
# about the next small step. As long as the crests lie so far from those of the true wave, higher crests miss the data
# by more. The amplitude has to wait until the phase is better.
#
# `jax.grad` does not use a finite difference. It applies the chain rule to the recorded operations, so its result is
# exact up to rounding. Often you want the loss together with the gradient, and `jax.value_and_grad` returns both:

# %%
value, gradient = jax.value_and_grad(loss)(theta, batch)
print(f"loss {value:.3f}")
print("derivatives:", ", ".join(f"{name} {g:.3f}" for name, g in gradient.items()))

# %% [markdown]
# ## A second opinion
#
# A gradient can be wrong and still look reasonable. For this reason every gradient in this course gets a second
# opinion, and the simplest one is a central difference. It leaves you one choice, the step $\varepsilon$ between the
# point and its two neighbours. Keep in mind that JAX computes in 32-bit numbers unless it is told otherwise.

# %%
best_step = predict("00.best_step")


# %% tags=["fold"]
def error_of_difference(step, dtype):
    """Absolute error of the central difference with respect to the phase, at the initialization."""
    points, values = np.asarray(x, dtype), np.asarray(2 * np.sin(x - 1), dtype)

    def in_phase(b):
        return np.mean((dtype(a) * np.sin(points - b) - values) ** 2)

    exact = -2 * np.mean((a * np.sin(points - b) - values) * a * np.cos(points - b))
    return abs(central_difference(in_phase, dtype(b), dtype(step)) - exact)


errors = {step: error_of_difference(float(step), np.float32) for step in ["0.1", "0.001", "0.000001"]}
best_step.reveal(min(errors, key=errors.get))
steps = 10.0 ** np.linspace(-7, 0, 57)
in_32_bits, in_64_bits = (
    np.array([error_of_difference(step, dtype) for step in steps]) for dtype in (np.float32, np.float64)
)
hundredfold = error_of_difference(1e-1, np.float64) / error_of_difference(1e-2, np.float64)
assert 95 < hundredfold < 105
figures.two_errors(steps, in_32_bits, in_64_bits)

# %% [markdown]
# Two errors compete. At the right end the *formula* is to blame. Its error shrinks like $\varepsilon^2$, so a step ten
# times smaller makes it a hundred times smaller. At the left end *rounding* is to blame. There we subtract two nearly
# equal numbers, what remains is mostly noise, and dividing by a tiny $\varepsilon$ makes the noise large. The best step
# lies between the two, which gives the curve the shape of a V. Lesson 05 turns a finite difference into an algorithm for
# meta-learning, and this curve returns there.

# %% [markdown]
# ## Exercise: a derivative along a direction
#
# A gradient with a million entries cannot be tested entry by entry, but it can be tested along one direction $d$: the
# derivative along $d$ must equal the inner product of the gradient and $d$. Write the central difference along a
# direction, for any pytree.


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
      direction: a pytree like `point`; it is not
        normalized: twice the direction gives twice the derivative.
      step: ε > 0; the two evaluations lie ε times the direction
        away from the point.

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
# How does the loss depend on the phase? To draw the curve, we want the loss for 201 phases. You could write a loop.
# `jax.vmap` does without one: it takes a function of one thing and returns a function of many. Its `in_axes` has one
# entry for each argument. The entry is `0` if the argument holds many values, stacked along axis 0, and `None` if one
# value is used again and again. An entry holds for all leaves of its argument, so we repeat the amplitude 201 times as
# well.

# %%
phases = jnp.linspace(-jnp.pi, jnp.pi, 201)
candidates = {"amplitude": jnp.full(201, 2.0), "phase": phases}
losses = jax.vmap(loss, in_axes=(0, None))(candidates, batch)  # many params, one batch
figures.loss_by_phase(phases, losses)

# %% tags=["fold"]
in_a_loop = np.array([loss({"amplitude": 2.0, "phase": phase}, batch) for phase in phases[::20]])
assert losses.shape == (201,) and np.allclose(losses[::20], in_a_loop, atol=1e-5)
assert abs(phases[jnp.argmax(losses)] - (1 - jnp.pi)) < 0.3

# %% [markdown]
# Nothing in `loss` mentions a second phase. `vmap` has changed the recorded operations so that each of them works on
# all phases at once. The curve has one minimum, at the true phase, and one maximum, about half a period away from it.

# %% [markdown]
# ## Random numbers have a key
#
# So far we have had one wave to fit. Such a problem is called a **task**, and next we want many of them, drawn at
# random. NumPy's generator remembers how much was drawn from it, so the same call gives different numbers each time,
# which is not pure. In JAX, random numbers are a function of a **key**. The same key gives the same numbers, and
# `split` makes new keys from an old one.

# %%
key = jax.random.key(0)
assert jax.random.normal(key) == jax.random.normal(key)  # same key, same number

task_key, other_key = jax.random.split(key)
assert jax.random.normal(other_key) != jax.random.normal(key)  # new key, new number

# %% [markdown]
# From here on, use each key once, and split it when you need more. Then everything you run can be repeated exactly.
#
# Here are 25 tasks. Each is a sine wave with an amplitude and a phase of its own. `support` holds the points of each
# task that a model may learn from, and lesson 01 says what else there is.

# %% tags=["nbval-check-output"]
tasks = ml.tasks.Sinusoid(num_support=10)(task_key, 25)
print(jax.tree.map(jnp.shape, tasks.support))

# %% [markdown]
# `tasks.support` is a pair (x, y) like our batch. The three axes of each array count the tasks, the points, and the
# single input or output. So a batch of tasks is the pytree of one task with one more axis in front.

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
# Transformations compose. `jax.grad(loss)` is a function like any other, so `vmap` applies to it as well, and we get 25
# gradients, one for each task.

# %%
task_gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(theta, tasks.support)
print(jax.tree.map(jnp.shape, task_gradients))


# %% tags=["fold"]
def mean_loss(params):
    return jnp.mean(jax.vmap(loss, in_axes=(None, 0))(params, tasks.support))


mean_gradient = jax.tree.map(jnp.mean, task_gradients)
for name, derivative in jax.grad(mean_loss)(theta).items():
    assert np.isclose(mean_gradient[name], derivative, atol=1e-4)

# %% [markdown]
# Since differentiation is linear, the mean of these gradients is the gradient of the mean loss. So nearly every
# algorithm of this course is written for *one* task, and a `vmap` and a mean do the rest.

# %% [markdown]
# ## scan
#
# Learning repeats a step, and so do many older algorithms. Newton's method finds $\sqrt2$ in this way: if a guess is
# too large, then 2 divided by the guess is too small, and the other way round. So $\sqrt2$ lies between the two, and
# their mean is the next guess. `jax.lax.scan` repeats a function of a **carry**, which each step hands to the next one.
# It takes the function, the first carry and the number of steps. The function returns a pair: the new carry, and
# something to keep.


# %%
def square_root(number):
    def refine(guess, _):
        better = (guess + number / guess) / 2
        return better, better

    last, history = jax.lax.scan(refine, 1.0, length=5)
    return last, history


last, history = square_root(2.0)
print("guesses:", *(f"{guess:.6f}" for guess in history))

# %% tags=["fold"]
guess = 1.0
for _ in range(5):
    guess = (guess + 2.0 / guess) / 2
assert np.isclose(last, guess) and np.isclose(last, np.sqrt(2)) and history.shape == (5,)

# %% [markdown]
# The guesses that were kept come back stacked. (The second argument of `refine` is for an array of which each step
# reads one entry, and we have none.) A Python loop gives the same numbers, but JAX would record each of its steps anew.
# With a scan it records a single step, however many there are.
#
# A scan can be differentiated like anything else that JAX records. We know what the result should be, because the
# derivative of $\sqrt s$ is $1 / (2 \sqrt s)$. The function `square_root` itself, however, contains no square root,
# only sums and quotients:

# %%
through_the_scan = jax.grad(lambda number: square_root(number)[0])(2.0)
print(f"derivative of the last guess:  {through_the_scan:.6f}")
print(f"1 / (2 √2):                    {1 / (2 * np.sqrt(2)):.6f}")

# %% tags=["fold"]
assert np.isclose(through_the_scan, 1 / (2 * np.sqrt(2)), rtol=1e-5)

# %% [markdown]
# Remember what has happened here. We differentiated a whole algorithm that repeats a step, with respect to its input.

# %% [markdown]
# ## Exercise: gradient descent as a scan
#
# A gradient points to where the loss grows, so gradient descent steps against it. Begin at $\varphi_0 = \theta$, repeat
# $\varphi_{k+1} = \varphi_k - \alpha \nabla h(\varphi_k)$ with the learning rate $\alpha$, and return $\varphi_K$. The loss $h$
# comes in as `objective`, a function of the parameters alone.


# %% tags=["exercise"] exercise="00.gradient_descent"
def gradient_descent(
    objective: Callable[[Params], jax.Array],
    theta: Params,
    learning_rate: float,
    num_steps: int,
) -> Params:
    """The parameters after some steps of gradient descent.

    Args:
      objective: takes a pytree like `theta`, returns a number; to be
        made small.
      theta: the initialization, any pytree of arrays.
      learning_rate: α > 0.
      num_steps: K >= 0; no step at all returns the initialization.

    Returns:
      A pytree like `theta`.
    """

    ### BEGIN SOLUTION
    def step(phi, _):
        gradient = jax.grad(objective)(phi)
        return jax.tree.map(lambda p, g: p - learning_rate * g, phi, gradient), None

    last, _ = jax.lax.scan(step, theta, length=num_steps)
    return last
    ### END SOLUTION


# %%
check("00.gradient_descent", gradient_descent)

# %% [markdown]
# ## Differentiate a training run
#
# From here on we use the library's own gradient descent, `ml.inner.descend(objective, optimizer, num_steps, theta)`.
# The optimizer comes from [optax](https://optax.readthedocs.io), where `optax.sgd(0.1)` makes the plain step of the
# exercise with learning rate 0.1.


# %%
def objective(params):
    return loss(params, batch)


learned = ml.inner.descend(objective, optax.sgd(0.1), 100, theta)
print("after 100 steps:", *(f"{name} {value:.3f}" for name, value in learned.items()))

# %% tags=["fold"]
assert all(np.isclose(learned[name], truth[name], atol=1e-2) for name in truth)

# %% [markdown]
# Gradient descent has found both parameters. Now stop it early, after five steps, and look at the loss at $\varphi_5$.
# Since $\varphi_5$ depends on the initialization, this loss is a function of the *initialization*, and we can ask for its
# gradient.

# %% tags=["fold"]
figures.run_as_a_function()

# %% [markdown]
# At the initialization itself a higher wave makes the loss larger, as you have seen. What does it do to the loss after
# five steps?

# %%
initial_amplitude = predict("00.initial_amplitude")


# %%
def final_loss(theta):
    phi = ml.inner.descend(objective, optax.sgd(0.1), 5, theta)
    return objective(phi)


before = jax.grad(objective)(theta)
after = jax.grad(final_loss)(theta)


# %% tags=["fold"]
def phase_after(amplitude):
    return ml.inner.descend(objective, optax.sgd(0.1), 5, {**theta, "amplitude": amplitude})["phase"]


assert before["amplitude"] > 0 > after["amplitude"]
assert b < phase_after(a) < truth["phase"] and central_difference(phase_after, a) > 0  # faster if the wave is higher
assert jax.grad(objective)(ml.inner.descend(objective, optax.sgd(0.1), 5, theta))["amplitude"] < 0
second_opinion = central_difference(lambda amplitude: final_loss({**theta, "amplitude": amplitude}), a)
assert np.isclose(after["amplitude"], second_opinion, atol=1e-2)
initial_amplitude.reveal("makes it larger" if after["amplitude"] > 0 else "makes it smaller")
amplitudes = jnp.linspace(0.0, 1.2, 61)
along = {"amplitude": amplitudes, "phase": jnp.full(61, b)}
figures.before_and_after(amplitudes, jax.vmap(objective)(along), jax.vmap(final_loss)(along), a, before, after)

# %% [markdown]
# The derivative with respect to the amplitude has changed its sign, for two reasons. After five steps the phase is
# better, and with a better phase a higher wave fits the data better. In addition, the derivative with respect to the
# phase contains the factor $a$ (line 3), so a higher wave lets gradient descent correct the phase faster. The
# initialization with the lower loss is not the better one to *learn from*.
#
# **The gradient of the loss after learning, with respect to the initialization, is the central object of this course.**
# It is called the **meta-gradient**, or in some papers the *hypergradient*. Taking `grad` of a `scan`
# is one way to compute it, and several later lessons look for cheaper ones.

# %% [markdown]
# ## jit
#
# `jax.jit` compiles the record. It adds nothing to what you can express, only speed. A compiled function is recorded
# once for each shape and type of its arguments, and from then on JAX replays the record. A side effect makes this
# visible: the function below notes each time that Python really runs its body. We call it on our 10 points, on 10 other
# points, on 20 points, and on our 10 points again.

# %% tags=["nbval-check-output"]
runs = []


@jax.jit
def noted_loss(params, batch):
    runs.append(batch[0].shape)
    return loss(params, batch)


for points in (x, x + 1.0, jnp.linspace(-5.0, 5.0, 20), x):
    noted_loss(theta, (points, 2.0 * jnp.sin(points - 1.0)))
print(runs)

# %% [markdown]
# Four calls made Python run the body twice, once for each shape. Two things follow. Keep shapes fixed in anything that
# runs often. And never rely on a side effect, or on a global variable that changes:

# %%
scale = 1.0


@jax.jit
def impure(value):
    return scale * value


first = impure(5.0)
scale = 100.0
second = impure(5.0)
print(f"with scale 1: {first:.0f}    with scale 100: {second:.0f}")

# %% tags=["fold"]
assert first == second == 5.0

# %% [markdown]
# The second number is wrong, and there was no error, because the first call had recorded `scale` as the constant 1. If
# `scale` were an argument, the function would be pure, and right.
#
# Two more habits keep code fit for JAX. Arrays cannot be changed in place, so `x[0] = 1` raises an error, and
# `x.at[0].set(1)` returns a changed copy. And inside `vmap`, `scan` and `jit`, Python's `if` cannot test an argument,
# because the argument has no value yet while JAX records. There you write `jnp.where(condition, this, that)`.

# %% tags=["nbval-check-output"]
try:
    x[0] = 1.0
except TypeError as error:
    print(type(error).__name__)

changed = x.at[0].set(1.0)
print(changed[0], x[0])

# %% [markdown]
# ## How large may the learning rate be?
#
# Here is the same gradient descent on the same loss. The first panel shows the loss as a landscape seen from above, with
# the parameters after each step, and the second one the loss after each step. Move both sliders. **Above which learning
# rate does gradient descent no longer converge, even with all 60 steps?** Then commit to what you read.

# %%
path_alt = "The path of gradient descent over the loss, and the loss after each step."
draw = figures.descent_path(h, theta, truth)
explore(draw, path_alt, learning_rate=(0.02, 0.7, 0.01, 0.1), num_steps=(0, 60, 1, 20))

# %%
step_limit = predict("00.step_limit")

# %% [markdown]
# Near its minimum $\varphi^*$ the loss is nearly quadratic, so its gradient is nearly linear: $\nabla h(\varphi) \approx H
# (\varphi - \varphi^*)$, where $H$ is the matrix of second derivatives at the minimum, the **Hessian**. Insert this into the
# step of gradient descent and subtract $\varphi^*$ on both sides:
#
# $$\varphi_{k+1} - \varphi^* \approx (I - \alpha H)(\varphi_k - \varphi^*).$$
#
# Along an eigenvector of $H$ with eigenvalue $\mu$, each step multiplies the displacement $\varphi_k - \varphi^*$ by about
# $1 - \alpha\mu$. You can watch this happen. Move the parameters a little away from the minimum along the steepest
# direction, which is the eigenvector with the largest eigenvalue $L$, and take one step:

# %%
flat_truth, unflatten = ravel_pytree(truth)  # the pytree as a vector, and its inverse
hessian = jax.jit(jax.hessian(lambda vector: objective(unflatten(vector))))(flat_truth)
eigenvalues, eigenvectors = np.linalg.eigh(hessian)
L, steepest = eigenvalues[-1], eigenvectors[:, -1]
print(f"eigenvalues of H: {eigenvalues[0]:.2f} and {L:.2f}")

nudged = unflatten(flat_truth + 1e-3 * steepest)
moved, _ = ravel_pytree(ml.inner.descend(objective, optax.sgd(0.3), 1, nudged))
factor = (moved - flat_truth) @ steepest / 1e-3
print(f"one step multiplies the displacement by {factor:.2f}")
print(f"1 - 0.3 L = {1 - 0.3 * L:.2f}")

# %% tags=["fold"]
assert np.isclose(factor, 1 - 0.3 * L, atol=1e-2)

# %% [markdown]
# The factor is negative because the step overshoots, and the parameters land on the other side of the minimum. The
# distance shrinks if $|1 - \alpha\mu| < 1$, which for a positive $\mu$ means $\alpha < 2/\mu$. This must hold for every
# eigenvalue, so the largest one decides, and the limit is $2/L$. The following cell tests it with two runs, one
# slightly below the limit and the other slightly above:

# %%
limit = 2 / L
results = {}
for learning_rate in (0.98 * limit, 1.02 * limit):
    phi = ml.inner.descend(objective, optax.sgd(learning_rate), 500, theta)
    results[f"α = {learning_rate:.3f}"] = (objective(phi),)

# %% tags=["fold"]
(below,), (above,) = results.values()
assert below < 1e-8 < 1e-4 < above
once, twice = (ml.inner.descend(objective, optax.sgd(learning_rate), more, phi)["phase"] for more in (1, 2))
assert once < truth["phase"] < twice and np.isclose(twice, phi["phase"], atol=1e-3)  # from side to side
step_limit.reveal(limit)
plots.table(
    results,
    ("learning rate", "loss after 500 steps"),
    title=f"The limit is 2/L = {limit:.3f}",
    caption="Gradient descent 2 % below and 2 % above the limit.",
    digits=2,
)

# %% [markdown]
# A little above the limit every step ends on the other side of the minimum along the steep direction, and farther away
# from it, until the parameters jump from one side of the valley to the other for ever. The flat direction would allow a
# much larger learning rate. Keep the factor $I - \alpha H$ in mind, because lesson 02 shows that the meta-gradient is
# made of such factors.
#
# The initialization matters as well. From other phases, gradient descent finds other minima:

# %% tags=["fold"]
ends = {}
for phase in (-2.5, -3.1):
    end = ml.inner.descend(objective, optax.sgd(0.1), 300, {"amplitude": 2.0, "phase": phase})
    ends[f"{phase:g}".replace("-", "−")] = (
        f"{end['amplitude']:.2f}".replace("-", "−"),
        f"{end['phase']:.2f}".replace("-", "−"),
    )
    assert objective(end) < 1e-8 and not np.isclose(end["phase"], truth["phase"], atol=0.1)
plots.table(
    ends,
    ("initial phase", "amplitude found", "phase found"),
    title="Another initialization, another minimum",
    caption="Gradient descent from amplitude 2 and each of two phases; the loss at the end is zero up to rounding.",
)

# %% [markdown]
# Both minima are as good as ours, because they describe the same wave: the first is turned upside down and shifted by
# half a period, the second is shifted by a whole period. The minima of a neural network, the model of lesson 01, need
# not be equally good, which is one more reason to care about the initialization.

# %% [markdown]
# ## Exercise: a derivative with respect to the learning rate
#
# Is our learning rate too small or too large for five steps? The derivative of the loss after the last step with
# respect to the learning rate tells: if it is negative, a slightly larger learning rate ends at a lower loss. Write this
# derivative, for any number of steps. A pure function can be differentiated with respect to any argument: `jax.grad`
# takes the first one, or the one that `argnums` names, counted from 0.


# %% tags=["exercise"] exercise="00.learning_rate_derivative"
def learning_rate_gradient(
    objective: Callable[[Params], jax.Array],
    theta: Params,
    learning_rate: float,
    num_steps: int,
) -> jax.Array:
    """The derivative of the loss after the last step of gradient
    descent with respect to the learning rate.

    Args:
      objective: takes a pytree like `theta`, returns a number.
      theta: the initialization, any pytree of arrays.
      learning_rate: α, where the derivative is taken.
      num_steps: K >= 1.

    Returns:
      A number.
    """

    ### BEGIN SOLUTION
    def final_loss(theta, learning_rate):
        return objective(ml.inner.descend(objective, optax.sgd(learning_rate), num_steps, theta))

    return jax.grad(final_loss, argnums=1)(theta, learning_rate)
    ### END SOLUTION


# %%
check("00.learning_rate_derivative", learning_rate_gradient)

# %% [markdown]
# Here is a second opinion on this derivative, for five steps at three learning rates. The first number below should
# agree with `learning_rate_gradient(objective, theta, 0.1, 5)`, which you can run in a cell of your own:


# %%
def loss_after_five(learning_rate):
    return objective(ml.inner.descend(objective, optax.sgd(learning_rate), 5, theta))


for learning_rate in (0.1, 0.5, 0.65):
    derivative = central_difference(loss_after_five, learning_rate)
    print(f"learning rate {learning_rate:4.2f}: derivative {derivative:+.2f}")

# %% tags=["fold"]
derivatives = [central_difference(loss_after_five, learning_rate) for learning_rate in (0.1, 0.5, 0.65)]
assert derivatives[0] < 0 and derivatives[1] < 0 < derivatives[2] and limit < 0.5

# %% [markdown]
# At 0.5 a slightly larger learning rate would still help, although 0.5 lies above the limit $2/L$. There is no
# contradiction: the limit is about what happens after many steps, and here we take five. At 0.65 a larger learning rate
# does harm. Lesson 02 returns to this derivative.

# %% [markdown]
# ## What to take away
#
# - JAX asks for pure functions of pytrees: whatever can change is an argument.
# - `grad` is exact up to rounding. A finite difference gives a second opinion, with a step that is neither large nor
#   tiny.
# - `vmap` turns code for one task into code for many, `scan` repeats a step, and `jit` makes all of it
#   fast.
# - They compose. `grad` of a `scan` is the derivative of a whole training run, and with respect to the initialization
#   this is the meta-gradient.
# - Near a minimum, gradient descent converges for learning rates below $2/L$, where $L$ is the largest eigenvalue of
#   the Hessian.

# %%
quiz("00")

# %%
progress("00")

# %% [markdown]
# ## Limits
#
# - **Precision.** 32-bit numbers round coarsely, as the error of the central difference
#   showed. Training rarely suffers from this, and lessons that compare with
#   a theory switch to 64 bits.
# - **Memory.** To differentiate a scan, JAX keeps the results of every step until the end. For the short runs of this
#   lesson that is harmless. For thousands of steps of a large model it is not, and several methods of this course exist for
#   that reason.
# - **The learning rate.** The limit $2/L$ describes gradient descent near a minimum. Far from it the curvature is
#   different, and the first steps of a run may need a smaller learning rate or allow a larger one.
#
# ## Go further
#
# - J. Bradbury et al. *JAX: composable transformations of Python+NumPy programs.* 2018.
#   [docs.jax.dev](https://docs.jax.dev): "Key concepts", "Pytrees", "Pseudorandom numbers" and "The Sharp Bits".
# - D. Maclaurin, D. Duvenaud, R. P. Adams. *Gradient-based hyperparameter optimization through reversible learning.*
#   ICML 2015. [arXiv 1502.03492](https://arxiv.org/abs/1502.03492). Differentiates whole training runs with respect to
#   learning rates and initializations.
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* ICML 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). Sine curves as tasks (section 5.1), and the meta-gradient.
# - E. M. Chayti, M. Jaggi. *A new first-order meta-learning algorithm with convergence guarantees.* 2024.
#   [arXiv 2409.03682](https://arxiv.org/abs/2409.03682). The first-order method that this course leads to.
