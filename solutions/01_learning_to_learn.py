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
# - **say** what a task, a support set and a query set are, and what training, validation and test tasks are for,
# - **derive** the lowest loss that one function can reach on a task distribution,
# - **predict** how much a network overfits if it is trained on a few tasks only,
# - **measure** adaptation to new tasks, and **report** it soundly.
#
# **New symbols**
#
# - $p(\mathcal{T})$: task distribution
# - $f$: query loss
# - $A$, $b$: amplitude and phase of a sine curve
# - $\hat y$: prediction of a model
# - $\mathbb{E}$, $\operatorname{Var}$: mean and variance over tasks
# - $M$: number of training tasks

# %% tags=["imports"]
import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import (
    bar,
    check,
    explore,
    playground,
    predict,
    progress,
    quiz,
    setup,
)
from metalearn.course.lessons import lesson_01 as figures
from metalearn.course.widgets import diagrams

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Five points, three networks
#
# Below are five points of a sine curve, and three copies of one small neural network, a function with many
# parameters that is described below. They differ only in their **initialization**, the parameters from which they
# begin to learn. The one called *random* was drawn at random. The one called *joint training* was trained on the pooled
# points of very many sine curves. The third was *meta-trained* by MAML (model-agnostic meta-learning), the method of
# lesson 02. All three now take gradient steps on the five points, with the same learning rate.
#
# Before the first step, the curves of MAML and of joint training look almost the same. Which of the three do you expect
# to pass close to the points after three steps? Decide before you press *One step*.

# %%
playground("adapt_a_sine")

# %% [markdown]
# After three steps the meta-trained network passes close to the points, and the other two do not. This lesson is about the other two: how far they get, and why they get no further.
#
# The same idea works for drawings. Put `playground("draw_five_symbols")` into a new cell, run it, and teach a network
# five symbols of your own, from one drawing each.
#
# *Short of time? Skip the task distribution of your own, and the last exercise.*

# %% [markdown]
# ## Ten points of a curve that is new to you
#
# Here are three sine curves. Each has an amplitude and a phase of its own, and of each you are shown a few points.

# %%
distribution = ml.tasks.Sinusoid(num_support=10, num_query=10)
tasks = distribution(jax.random.key(1), 3)
figures.three_tasks(tasks)

# %% [markdown]
# You could draw each curve through its ten blue points with a pencil, because you know that it is a sine of period
# $2\pi$. A network does not know that, but it can learn it from other tasks, and this course is about how. We need a few
# words:
#
# - A **task** is one curve, with two sets of points on it.
# - The **support set** is what a model may look at when it adapts to the task. The loss on it is the support loss $h$,
#   and a gradient step on it is an **inner step**.
# - The **query set** is what the adapted model is judged on. The loss on it is the query loss $f$.
# - The **task distribution** $p(\mathcal T)$ is where a task $\mathcal T$ is drawn from. A model may train on many tasks, but what
#   counts is how good it is on new ones.
#
# Learning a new task from so few examples is called **few-shot learning**, and each support point is a *shot*.
#
# Our task distribution is that of Finn et al. (2017), $y = A \sin(x - b)$. The amplitude $A$ is uniform between 0.1 and
# 5, the phase $b$ between 0 and $\pi$, and the input $x$ between $-5$ and 5.

# %% tags=["fold"]
assert distribution.amplitude == (0.1, 5.0)
assert distribution.phase == (0.0, np.pi) and distribution.x_range == (-5.0, 5.0)

# %% [markdown]
# ## One network for all tasks
#
# The simplest idea is **joint training**: pool the points of all tasks, and train one network on them. Afterwards it is
# used on every task as it is. More data is usually better, and there are as many tasks as we like, so every training step
# can draw 25 new ones.

# %%
more_training = predict("01.more_training")

# %% [markdown]
# A **neural network** is a chain of layers. Ours, the one of Finn et al., multiplies the input by 40 weights, adds a
# constant to each product, and replaces the negative results by zero. The 40 numbers are called *units*. A second layer
# does the same with these 40 and a matrix of weights, and a last one gives the output, a weighted sum of its 40 inputs
# plus a constant. In code it is an `MLP` (a multilayer perceptron), built with `nnx`, the
# part of the library Flax for networks. `ml.models.functional` splits it into its parameters and a pure function
# `apply(params, x)`. The optimizer is Adam, a variant of gradient descent that adapts the step of each parameter to the
# size of its recent gradients, with learning rate $10^{-3}$.
#
# `ml.maml` is the method of lesson 02, which adapts in each training step. With `num_steps=0` it does not adapt, so it
# returns the plain gradient of the query loss, and its inner optimizer `optax.sgd(0.01)` is never used.
# `ml.meta_learner` joins this gradient with Adam, and `ml.fit` takes 12,000 training steps on 25 tasks each.

# %%
network = ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0))
random_params, apply = ml.models.functional(network)
loss = ml.losses.mean_squared_error(apply)

without_adaptation = ml.maml(loss, optax.sgd(0.01), num_steps=0)
learner = ml.meta_learner(without_adaptation, optax.adam(1e-3))
key = jax.random.key(0)
joint = ml.fit(learner, random_params, distribution, 12_000, 25, key)

# %% tags=["fold"]
_windows = joint.history.query_loss.reshape(12, 1_000).mean(axis=1)
more_training.reveal(int(np.abs(np.array([0.1, 1.0, 3.0]) - _windows[-1]).argmin()))
assert _windows[-1] > 2.5 and abs(_windows[-1] - _windows[5]) < 0.25
figures.joint_training(joint.history.query_loss)

# %% [markdown]
# The second half of the training gained nothing. Is the network too small? Is the optimizer stuck? Neither is the case.
# The level is a property of the task distribution, and the next two sections compute it.

# %% [markdown]
# ## The floor, at one input
#
# Look at a single input, say $x = 1$. Every task has a target there, and the targets differ. A network that does not know
# which task it is in must give the same answer $\hat y$ to all of them. Which answer is best?

# %% tags=["fold"]
figures.one_input()

# %% [markdown]
# The error is a parabola in $\hat y$. It is lowest at the mean of the targets, and even there it is not zero. To see what
# is left, write $\hat y - y = (\hat y - \mathbb E[y]) + (\mathbb E[y] - y)$ and take the square. In the mixed term,
# $\hat y - \mathbb E[y]$ is the same for all tasks and $\mathbb E[y] - y$ is zero on average, so the term vanishes on
# average:
#
# $$\boxed{\;\mathbb E\big[(\hat y - y)^2\big] = \big(\hat y - \mathbb E[y]\big)^2 + \operatorname{Var}[y]\;}$$
#
# The first term can be made zero. The second does not contain the network at all. This holds at every input, so **the
# best single function is the mean of all curves, and its loss is their variance**, averaged over the inputs. We call this
# loss the **floor**. Here is a check with many tasks and three answers:

# %%
A_key, b_key = jax.random.split(jax.random.key(2))
A = jax.random.uniform(A_key, (200_000,), minval=0.1, maxval=5.0)
b = jax.random.uniform(b_key, (200_000,), maxval=jnp.pi)
y = A * jnp.sin(1.0 - b)  # the targets of 200,000 tasks at x = 1

for answer in (-1.0, 0.0, 2.0):
    error = jnp.mean((answer - y) ** 2)
    formula = (answer - y.mean()) ** 2 + y.var()
    print(f"answer {answer:4.1f}   error {error:6.3f}   formula {formula:6.3f}")

# %% tags=["fold"]
for _answer in (-1.0, 0.0, 2.0):
    assert jnp.isclose(jnp.mean((_answer - y) ** 2), (_answer - y.mean()) ** 2 + y.var(), rtol=1e-3)

# %% [markdown]
# ## The floor of the sine curves
#
# **The mean of all curves.** Amplitude and phase are independent, so the mean of $A \sin(x - b)$ is the product of two means:
#
# $$\mathbb E[y] = \mathbb E[A] \cdot \frac1\pi \int_0^\pi \sin(x - b)\, db = -\frac{2}{\pi}\, \mathbb E[A] \cos x .$$
#
# **The variance** is the mean square minus the squared mean. For every $x$, the mean of $\sin^2(x - b)$ over $b$ from 0
# to $\pi$ is $\frac12$, so
#
# $$\operatorname{Var}[y] = \tfrac12\, \mathbb E[A^2] - \tfrac{4}{\pi^2}\, \mathbb E[A]^2 \cos^2 x .$$
#
# **The floor** is the average of this variance over the inputs. The average of $\cos^2 x$ between $-5$ and 5 is
# $\frac12 + \frac{\sin 10}{20}$, and $A$ is uniform between 0.1 and 5:

# %% tags=["nbval-check-output"]
low, high = distribution.amplitude
mean_A = (low + high) / 2
mean_A2 = (high**3 - low**3) / (3 * (high - low))  # the mean of the squares
floor = mean_A2 / 2 - 4 / np.pi**2 * mean_A**2 * (1 / 2 + np.sin(10) / 20)
print(f"floor: {floor:.3f}")

# %% tags=["fold"]
_x = jnp.linspace(-5, 5, 101)
_sampled = jax.lax.map(lambda x: (A * jnp.sin(x - b)).mean(), _x)
assert jnp.allclose(-2 / jnp.pi * mean_A * jnp.cos(_x), _sampled, atol=0.04)
assert np.isclose(floor, figures.FLOOR_OF_SINES, rtol=1e-4)
_many = distribution(jax.random.key(3), 20_000)
_reached = ml.evaluate.meta_test(loss, optax.sgd(0.01), joint.params, _many, num_steps=0)
_zero = ml.evaluate.score((_many.query[1] ** 2).mean(axis=(1, 2)))
assert floor - 2 * _reached.half_width < _reached.mean < floor + 0.25 < _zero.mean - 0.5
assert mean_A2 / 2 > 4.2 and abs(_zero.mean - mean_A2 / 2) < 2 * _zero.half_width
plots.table(
    {
        "floor of any single function": [f"{floor:.2f}"],
        "network from joint training": [f"{_reached.mean:.2f} ± {_reached.half_width:.2f}"],
        "function that is zero everywhere": [f"{_zero.mean:.2f} ± {_zero.half_width:.2f}"],
    },
    ("", "squared error"),
    title="Joint training has reached the floor",
    caption='On 20,000 new tasks; ± is half the width of a 95 % interval, as "How to report a loss" explains below.',
)

# %%
x = jnp.linspace(-5, 5, 201)
figures.best_function(apply(joint.params, x[:, None]), x)

# %% [markdown]
# Nothing is stuck. Joint training has found the best single function, which is better than predicting zero. But a larger
# network, more data or another optimizer cannot get below the floor, because the floor does not depend on any of them.
# Only a model that *changes* from task to task can get below it.

# %% [markdown]
# ## Exercise: the floor of any task distribution
#
# You do not need a formula to find the floor. Suppose that `targets[i, j]` is the target of task $i$ at input $j$, with
# the same inputs for all tasks. Compute the lowest mean squared error that one function can reach on these tasks.


# %% tags=["exercise"] exercise="01.floor"
def floor_of(targets):
    """The lowest mean squared error, over tasks and inputs, of one
    function used for all tasks.

    Args:
      targets: array of shape [num_tasks, num_inputs].

    Returns:
      A scalar.
    """
    ### BEGIN SOLUTION
    best_function = targets.mean(axis=0)
    return jnp.mean((targets - best_function) ** 2)
    ### END SOLUTION


# %%
check("01.floor", floor_of)

# %% [markdown]
# **Your own task distribution.** The tasks of the next cell are straight lines. Put tasks of your own in their place,
# such as cooling curves, or something from your work. In lessons 03 and 05 you will paste them in again, and measure
# other things on them. Rewrite the body of `my_task`: it may draw and compute whatever you like with `jax.random` and
# `jax.numpy`, as long as it returns an `ml.Task` of arrays of shape `[num_points, 1]`.
#
# Then work out the floor of your tasks, on paper as for the sine curves, or with your `floor_of`, once it passes: draw the parameters of
# many tasks, and compute all of their curves at the same inputs, which for these lines could be `jnp.linspace(-5, 5, 101)`. Put the number
# into `my_floor`. The last line measures the floor on 2,000 of your tasks, and tells you whether your number is within
# a tenth of it.


# %% tags=["yours"]
def my_task(key):
    """A random task: ten support and ten query points of one curve."""
    slope_key, offset_key, x_key = jax.random.split(key, 3)
    slope = jax.random.uniform(slope_key, maxval=2.0)
    offset = jax.random.normal(offset_key)
    x = jax.random.uniform(x_key, (20, 1), minval=-5.0, maxval=5.0)
    y = slope * x + offset
    return ml.Task(support=(x[:10], y[:10]), query=(x[10:], y[10:]))


my_floor = None  # a number, once you know it
status = figures.own_floor(my_task, my_floor)

# %% [markdown]
# <details><summary>The floor of these lines</summary>
#
# At the input $x$, the targets are a slope times $x$ plus an offset. Slope and offset are independent, so the variance is
# $x^2 \operatorname{Var}[\text{slope}] + \operatorname{Var}[\text{offset}] = \tfrac13 x^2 + 1$. The mean of $x^2$ between
# $-5$ and 5 is $\tfrac{25}{3}$, which makes the floor $\tfrac{25}{9} + 1 = \tfrac{34}{9}$. If you draw the slope with
# `jax.random.normal`, lines rise as often as they fall, their mean is the zero function, and the floor is the mean square
# of the targets. Curves that differ little from each other have a low floor.
#
# </details>

# %% tags=["fold"]
from metalearn.course.lessons import own as _own

_measured = _own.floor(_own.tasks(_own.lines))
assert abs(_measured.floor / (34 / 9) - 1) < 0.05


# %% [markdown]
# ## How many training tasks?
#
# So far every training step drew new tasks. In practice tasks are often scarce. Suppose that we have only $M$ training
# tasks, with as many points of each as we like. The best single function for *these* tasks is the average of their $M$
# curves. Move the slider. **From how many tasks on does the average stay close to the mean of all curves?**

# %%
explore(figures.average_of_tasks, figures.AVERAGES, tasks=(1, 100, 1, 2))

# %% tags=["fold"]
_distance = [figures.distance_of_average(n) for n in range(1, 401)]
_settled = int(np.flatnonzero(np.array(_distance) > 0.5).max()) + 2
assert 10 <= _settled <= 100 and _distance[1] > 1.5

# %% [markdown]
# That takes a few dozen tasks. With two tasks, the average still has much of both in it. What does this mean for the
# loss of a network?

# %%
two_tasks = predict("01.two_tasks")

# %% [markdown]
# We train 24 networks for each of six numbers of tasks, and no two of the 24 have the same training tasks. The first
# cell below holds one training step of one network, with a learning rate that falls to zero. The second repeats it with
# `scan`, and with `vmap` it trains all 144 networks at once.

# %%
counts = jnp.array([1, 2, 4, 8, 16, 32])  # numbers of training tasks, M
optimizer = optax.adam(optax.cosine_decay_schedule(0.01, 3_000))


def draw_curves(key):
    """Amplitudes and phases of 32 training tasks."""
    unit = jax.random.uniform(key, (2, 32, 1))
    return 0.1 + 4.9 * unit[0], jnp.pi * unit[1]


def train_step(state, key, count, curves):
    """One step on 24 points of the first `count` curves."""
    (params, opt_state), (amplitude, phase) = state, curves
    task_key, x_key = jax.random.split(key)
    i = jax.random.randint(task_key, (24,), 0, count)
    x = jax.random.uniform(x_key, (24, 1), minval=-5.0, maxval=5.0)
    batch = x, amplitude[i] * jnp.sin(x - phase[i])
    gradient = jax.grad(loss)(params, batch)
    updates, opt_state = optimizer.update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state


# %%
def hundred_steps(state, key, count, curves):
    def step(state, key):
        return train_step(state, key, count, curves), None

    return jax.lax.scan(step, state, jax.random.split(key, 100))[0]


over_runs = jax.vmap(hundred_steps, in_axes=(0, 0, None, 0))
over_counts = jax.jit(jax.vmap(over_runs, in_axes=(0, None, 0, None)))

curves = jax.vmap(draw_curves)(jax.random.split(jax.random.key(5), 24))
state = random_params, optimizer.init(random_params)
states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (6, 24, *leaf.shape)), state)
keys = jax.random.split(jax.random.key(6), (30, 24))
for key in bar(keys, "training 144 networks", seconds=5):
    states = jax.block_until_ready(over_counts(states, key, counts, curves))

training, new = figures.losses_of_runs(apply, states[0], counts, curves)

# %% tags=["fold"]
_on_two, _on_new = training[1].mean(), new[1].mean()
_margin = 0.1 * floor
two_tasks.reveal(
    2
    if _on_two < floor - _margin and _on_new > floor + _margin
    else 1
    if _on_two < floor - _margin
    else 3
    if _on_new > floor + _margin
    else 0
)
figures.few_tasks(np.asarray(counts), training, new)
_gap = (new - training).mean(axis=1)
_expected = 2 * floor / np.asarray(counts)
_interval = 1.96 * (new - training).std(axis=1, ddof=1) / np.sqrt(24)
assert (np.abs(_gap - _expected) < 2 * _interval + 0.05).all()
assert (np.diff(training.mean(axis=1)) > -0.1).all() and (np.diff(new.mean(axis=1)) < 0.1).all()
assert training[0].mean() < 0.1 < 2 * floor - 2 < new[0].mean()

# %% [markdown]
# Trained on two tasks, a network is far below the floor on these two, and above it on new tasks. A model that fits its
# training tasks better than new ones **overfits**. The difference between the two losses is the **generalization gap**,
# and here we can compute it. Let $\bar y$ be the average of the $M$ targets at one input. It is the best answer to
# these targets, so we suppose that the network gives it.
#
# **New tasks.** The target $y$ of a new task is independent of $\bar y$, so the boxed equation holds for the answer
# $\hat y = \bar y$. The average of $M$ independent targets has the variance
# $\operatorname{Var}[y]/M$, and this is the mean of $(\bar y - \mathbb E[y])^2$. So the expected loss on a new task is
# $\big(1 + \frac1M\big) \operatorname{Var}[y]$.
#
# **Training tasks.** Use the boxed equation for the $M$ tasks alone, whose mean is $\bar y$. With the answer
# $\hat y = \mathbb E[y]$ it reads
#
# $$\frac1M \sum_{i=1}^M \big(\mathbb E[y] - y_i\big)^2 = \big(\mathbb E[y] - \bar y\big)^2 +
# \frac1M \sum_{i=1}^M (\bar y - y_i)^2 .$$
#
# On average, the left side is $\operatorname{Var}[y]$ and the first term on the right is $\operatorname{Var}[y]/M$. What
# remains for the last term, which is the loss on the training tasks, is $\big(1 - \frac1M\big) \operatorname{Var}[y]$.
#
# **The gap** is therefore $\frac2M \operatorname{Var}[y]$ at each input, and $2/M$ times the floor altogether. It takes
# many training *tasks* to close it. More points of each task would not help: the network already drew new ones in every
# step.

# %% [markdown]
# ## Validation tasks, and what they are for
#
# The loss on the training tasks does not show overfitting, so we need tasks that the network does not train on. Usually
# the tasks are divided into three groups:

# %% tags=["fold"]
diagrams.show(
    figures.splits(),
    alt="Three groups of tasks. Training tasks fit the parameters, validation tasks choose settings, and test "
    "tasks report, only once. Every task of each group has a support and a query set.",
    title="Tasks are divided, and so are the points of each task",
    caption="Training, validation and test tasks are different tasks of one distribution.",
)

# %% [markdown]
# **Diagnose three runs.** Next, the network is trained three times, and the figure shows the loss on the training tasks
# and on validation tasks.

# %% tags=["fold"]
runs = figures.three_runs(loss, random_params)
figures.diagnosed(runs)

# %%
diagnosis = predict("01.diagnosis")

# %% tags=["fold"]
_ends = {_name: (_training[-5:].mean(), _held_out[-1]) for _name, (_, _training, _held_out) in runs.items()}
_kind = {
    _name: "tasks" if _after - _before > 1 else "adapt" if _after < floor + 0.22 else "steps"
    for _name, (_before, _after) in _ends.items()
}
diagnosis.reveal(
    [
        ("steps", "tasks", "adapt"),
        ("tasks", "steps", "adapt"),
        ("tasks", "adapt", "steps"),
        ("adapt", "steps", "tasks"),
    ].index(tuple(_kind.values()))
)
figures.early_stopping(runs["A"])
_held_out = runs["A"][2]
assert _held_out.min() < _held_out[-1] - 0.5 and 0 < _held_out.argmin() < 50
assert _held_out.min() > floor

# %% [markdown]
# Run A overfits to its two training tasks. More tasks are the best remedy. If no more can be had, one can stop the run
# where the loss on the *validation* tasks is lowest, which is called **early stopping**. It is one kind of
# **regularization**, which is the general name for everything that keeps a model from fitting its training data too
# closely. Another kind adds a penalty for the distance of the parameters from some fixed values, and lesson 04 will use
# it for adaptation.
#
# Neither more tasks nor regularization gets the loss on new tasks below the floor. For that, the model has to adapt.

# %% [markdown]
# ## Adapt to each task
#
# The simplest way to adapt is **fine-tuning**: begin with the parameters of the jointly trained network, and take
# gradient steps on the support set of the new task. To see how well that works, we have to measure it.

# %% [markdown]
# ## Exercise: the adaptation curve
#
# Adapt by gradient descent on the support set. Return the query loss before the first step and after each step.


# %% tags=["exercise"] exercise="01.adaptation_curve"
def adaptation_curve(loss, task, params, learning_rate, num_steps):
    """The query loss along gradient descent on the support loss, for
    one task.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch
        for `loss`.
      params: the initialization, any pytree of arrays.
      learning_rate: α, of the inner steps.
      num_steps: K, a whole number of at least 1.

    Returns:
      An array of shape [K + 1]; entry k is the query loss after k
      steps.
    """
    ### BEGIN SOLUTION
    values = [loss(params, task.query)]
    for _ in range(num_steps):
        gradient = jax.grad(loss)(params, task.support)
        params = jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)
        values.append(loss(params, task.query))
    return jnp.stack(values)
    ### END SOLUTION


# %%
check("01.adaptation_curve", adaptation_curve)

# %% [markdown]
# ## How to report a loss
#
# The loss on a single task says little, since some tasks are easier than others. So one reports the mean over $n$ tasks,
# together with an interval that shows by how much chance may have moved it. If the losses have the standard deviation
# $s$, then their mean has the standard deviation $s / \sqrt n$. The mean of many losses is nearly normally distributed,
# so in about 95 % of all cases it is off by less than
#
# $$1.96 \, \frac{s}{\sqrt n} .$$
#
# This is the half-width of the **95 % confidence interval**. The square of $s$ is the sum of the squared deviations from
# the mean, divided by $n - 1$ rather than by $n$. You met the reason with the $M$ training tasks: around its own mean, a
# sample varies less than the population, on average by the factor $1 - \frac1n$. For a whole batch of tasks,
# the library computes the curves with `ml.evaluate.adaptation_curve`, and the mean with its interval with
# `ml.evaluate.score`.
#
# One number is left to choose, the inner learning rate $\alpha$ of the steps on the support set. Joint training does not
# tell which one is good. We try several on **validation tasks**, and report the best of them on **test tasks**.

# %%
fine_tuning = predict("01.fine_tuning")

# %%
validation_tasks = distribution(jax.random.key(3), 1_000)
test_tasks = distribution(jax.random.key(4), 1_000)
rates = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008)
initializations = {"joint training": joint.params, "random": random_params}


@jax.jit  # compiled once, for every learning rate
def curve(params, rate, tasks):
    """Query loss after 0, 1, ..., 10 inner steps, [11, num_tasks]."""
    inner = optax.sgd(rate)
    return ml.evaluate.adaptation_curve(loss, inner, params, tasks, 10)


validation, chosen, test = {}, {}, {}
for name, params in initializations.items():
    found = [curve(params, rate, validation_tasks)[10].mean() for rate in rates]
    validation[name] = found
    chosen[name] = rates[int(np.argmin(found))]
    test[name] = curve(params, chosen[name], test_tasks)

# %% tags=["fold"]
_left = float(test["joint training"][10].mean() / test["joint training"][0].mean())
fine_tuning.reveal(int(np.abs(np.array([0.02, 0.25, 0.65, 1.0]) - _left).argmin()))
assert 0.5 < _left < 0.8 and chosen["joint training"] not in (rates[0], rates[-1])
assert test["random"][10].mean() > test["joint training"][10].mean() + 1
assert test["joint training"][10].mean() < test["joint training"][9].mean()
figures.fine_tuning(rates, validation, chosen, test)


def _interval(values):
    return str(ml.evaluate.score(values)).split(" (")[0].replace(" ", "\u00a0")


plots.table(
    {name: (f"{chosen[name]:g}", *(_interval(values[k]) for k in (0, 10))) for name, values in test.items()},
    ("initialization", "α, chosen on validation tasks", "before adaptation", "after ten steps"),
    title="Ten steps of fine-tuning leave about two thirds of the loss",
    caption="Query loss on 1,000 test tasks, with its 95 % interval.",
)

# %% [markdown]
# Adaptation does get below the floor. But it does not get far: with the best inner learning rate, ten steps from joint
# training leave about two thirds of the loss, and with a larger one they leave more.

# %% [markdown]
# ## Choose and report on different tasks
#
# Why did we not choose the inner learning rate on the test tasks directly? Here are three reports that look reasonable.
# Each is a function of two arrays, the query losses after adaptation on the validation tasks and those on the test tasks,
# with one row for each learning rate and one column for each task. It returns the loss that is published.


# %%
def report_a(validation, test):
    """The loss of the best learning rate on the test tasks."""
    return test.mean(axis=1).min()


def report_b(validation, test):
    """The loss of the best learning rate on the validation tasks."""
    return validation.mean(axis=1).min()


def report_c(validation, test):
    """The loss with the best learning rate for each test task."""
    return test.min(axis=0).mean()


# %% [markdown]
# All three choose and report on the same tasks. Whatever was chosen for its low loss on some tasks has, on average, a
# lower loss on these than on others. A **sound report** chooses on the validation tasks and reports on the test tasks. To
# see by how much the others differ from it, we take 1,000 tasks as the whole population. We let each report work with a
# few tasks drawn from them, many times over, and compare what it says with the *true loss* of its learning rate, the
# mean over all 1,000.

# %% tags=["fold"]
_losses = np.stack([np.asarray(curve(joint.params, rate, validation_tasks)[10]) for rate in rates])
_true, _rng = _losses.mean(axis=1), np.random.default_rng(0)
_rows = {}
for _tasks in (5, 20, 100):
    _found = []
    for _ in range(2_000):
        _pair = _losses[:, _rng.permutation(1_000)[: 2 * _tasks]]
        _v, _t = _pair[:, :_tasks], _pair[:, _tasks:]
        _best = _v.mean(axis=1).argmin()
        _found.append(
            (
                report_a(_v, _t) - _true[_t.mean(axis=1).argmin()],
                report_b(_v, _t) - _true[_best],
                report_c(_v, _t) - _true.min(),
                _t[_best].mean() - _true[_best],
            )
        )
    _mean = np.mean(_found, axis=0)
    _rows[f"{_tasks} tasks"] = [f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−") for value in _mean]
    assert (_mean[:3] < 0).all()
    assert abs(_mean[3]) < 0.1 and _mean[2] < -0.25
    if _tasks == 5:
        _share = -_mean[:2] / _true.min()
        assert (_share > 0.12).all() and (_share < 0.3).all()
plots.table(
    _rows,
    ("", "report A", "report B", "report C", "sound report"),
    title="What was chosen on the reported tasks looks better than it is",
    caption="Reported loss minus true loss, averaged over 2,000 draws of the tasks. For report C, the true loss is "
    "that of the best learning rate.",
)

# %% [markdown]
# With five tasks, reports A and B promise a loss that is lower than the true one by about a fifth. The effect becomes
# smaller with more tasks, but report C stays wrong: it promises what one could reach only by knowing the query set of
# each test task. Choosing on one set and reporting on another is right on average, whatever the number of tasks.

# %% [markdown]
# ## Exercise: write the test
#
# In full, a sound report chooses the learning rate with the lowest mean loss on the validation tasks, and returns the mean
# loss of this learning rate on the test tasks. Write a test that tells sound reports from others. The check tries it on
# sound ones, on A, B and C, and on seven more wrong ones that you do not see. The losses that you give to a report are
# yours to make up.


# %% tags=["exercise"] exercise="01.sound_report"
def is_sound(report):
    """Whether a report chooses on the validation tasks and returns the
    mean loss on the test tasks.

    Args:
      report: function of (validation, test) that returns a number.
        Both are arrays of losses of shape [num_rates, num_tasks].

    Returns:
      True or False.
    """
    ### BEGIN SOLUTION
    rng = np.random.default_rng(0)
    for _ in range(30):
        validation, test = rng.exponential(size=(2, 4, 6))
        chosen = validation.mean(axis=1).argmin()
        if not np.isclose(report(validation, test), test[chosen].mean()):
            return False
    return True
    ### END SOLUTION


# %%
check("01.sound_report", is_sound)

# %% [markdown]
# ## How much ten points tell
#
# Fine-tuning left two thirds of the loss. Perhaps ten points are too few? Use what *you* know of the task distribution:
# $A \sin(x - b) = p \sin x + q \cos x$ for some numbers $p$ and $q$. The targets are linear in $p$ and $q$, so
# least squares finds both from the support set.

# %%
enough_points = predict("01.enough_points")


# %%
def loss_of_least_squares(num_points):
    """Mean query loss on 200 new tasks, with the functions sin and cos."""
    distribution = ml.tasks.Sinusoid(num_support=num_points, num_query=10)
    (x, y), (x_query, y_query) = distribution(jax.random.key(5), 200)
    losses = []
    for i in range(200):
        basis = np.concatenate([np.sin(x[i]), np.cos(x[i])], axis=1)
        query_basis = np.concatenate([np.sin(x_query[i]), np.cos(x_query[i])], axis=1)
        p_q = np.linalg.lstsq(basis, np.asarray(y[i]), rcond=None)[0]
        losses.append(np.mean((query_basis @ p_q - y_query[i]) ** 2))
    return np.mean(losses)


least_squares = {n: loss_of_least_squares(n) for n in (1, 2, 10)}

# %% tags=["fold"]
enough_points.reveal(min(n for n, value in least_squares.items() if value < 0.01))
assert least_squares[2] < 0.01 < 1 < least_squares[1] and least_squares[10] < 1e-6
plots.table(
    {
        "least squares for p and q": [f"{value:.2f}" for value in least_squares.values()],
        "fine-tuning from joint training": ["", "", f"{test['joint training'][10].mean():.2f}"],
    },
    ("query loss from", "1 point", "2 points", "10 points"),
    title="Two points are enough for whoever knows the task distribution",
    caption="Mean squared error on new tasks.",
)

# %% [markdown]
# Two points are enough, so ten are more than enough. What is missing is an initialization that knows how the curves
# *vary*. Joint training knows only their mean.
#
# This is the aim of meta-learning: an initialization $\theta$ from which a few gradient steps on a few points give a good
# model of any task of the distribution. Let $\varphi_K(\theta)$ be the parameters after $K$ gradient steps from
# $\theta$ on the support loss $h$ of a task, as in lesson 00, and $f$ the query loss of the same task. Then meta-learning solves
#
# $$\min_\theta \; \mathbb E_{\mathcal T \sim p(\mathcal T)} \big[ f\big(\varphi_K(\theta)\big) \big] .$$
#
# It is the query loss *after* adaptation that is averaged over the tasks and minimized. Lesson 02 differentiates it.

# %% [markdown]
# ## What to take away
#
# - The best single function is the mean of all curves. Its loss is the variance of the tasks, and on new tasks no training
#   without adaptation gets below this floor.
# - Trained on $M$ tasks, a network overfits to them. On average, the gap between new tasks and training tasks is $2/M$
#   times the floor, so it takes many tasks to generalize.
# - A model adapts on the support set of a task and is judged on its query set. Training tasks serve to fit the
#   parameters, validation tasks to choose settings, and test tasks to report the result.
# - Fine-tuning from joint training gets below the floor, but slowly: joint training knows where the curves are on average,
#   and not how they vary.

# %%
quiz("01")

# %%
progress("01")

# %% [markdown]
# ## Limits
#
# - The floor is for squared error, on average over new tasks, and for one function of $x$. On a particular sample of tasks
#   a score can lie a little below it. A model that is told which task it is in, or reads the support set as a further
#   input, is not bound by it.
# - The formula $2/M$ supposes that the network finds the average of its training tasks and that there are as many points as one likes
#   of each task. With few points it can overfit to these as well. We measured overfitting without adaptation; lesson
#   02 shows that a meta-trained initialization overfits to few training tasks too.
# - Where tasks have much in common, joint training is a good initialization. Photographs of cats and dogs share edges and
#   textures, and fine-tuning works well there.
# - Ten steps were our choice, and the loss still falls at the tenth. The question here is what a few steps on a few points
#   can do.
#
# ## Go further
#
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* ICML 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). The sine curves (section 5.1), and the method of lesson 02.
# - T. Hospedales, A. Antoniou, P. Micaelli, A. Storkey. *Meta-learning in neural networks: a survey.* 2020.
#   [arXiv 2004.05439](https://arxiv.org/abs/2004.05439). A map of the field.
# - M. Yin, G. Tucker, M. Zhou, S. Levine, C. Finn. *Meta-learning without memorization.* ICLR 2020.
#   [arXiv 1912.03820](https://arxiv.org/abs/1912.03820). Another way in which a meta-learner overfits to its training
#   tasks.
