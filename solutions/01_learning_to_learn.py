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
# - **say** what a task, a support set and a query set are,
# - **derive** the lowest loss that one function can reach on a whole family of tasks,
# - **measure** adaptation: a loss curve over inner steps, with a confidence interval over tasks,
# - **predict** how far fine-tuning gets from an average start.
#
# **New symbols**
#
# - $h$, $f$: support loss, query loss
# - $p(\mathcal{T})$: task distribution

# %% tags=["imports"]
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, playground, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## Five points, three networks
#
# Below are five points of a sine curve, and three copies of one small network. They differ only in their
# initialization. The first was drawn at random, the second was trained on the pooled points of very many sine curves,
# and the third was *meta-trained*, in a way that lesson 02 explains. All three now take the same gradient steps on the
# five points.
#
# Before the first step, the second and the third curve look almost the same. Which of the three do you expect to pass
# through the points after three steps? Decide before you press *One step*.

# %%
playground("adapt_a_sine")

# %% [markdown]
# What you have just seen is learning to learn. The rest of this lesson measures how far the other two networks get, and
# why no training can carry them further.

# %% [markdown]
# ## Ten points of a curve you have not seen
#
# Here are three sine curves. Each has its own amplitude and its own phase. Of each you are shown ten points.

# %%
family = ml.tasks.Sinusoid(num_support=10, num_query=10)
tasks = family(jax.random.key(1), 3)
print("inputs of the support sets, [tasks, points, 1]:", tasks.support[0].shape)

figure, axes = plots.subplots(3, height=2.4, sharey=True)
for i, ax in enumerate(axes):
    x, y = tasks.support[0][i, :, 0], tasks.support[1][i, :, 0]
    plots.lines(x, {}, "x", "y", points={"": (x, y)}, title=f"task {i + 1}", xlim=(-5.5, 5.5), ylim=(-5, 5), axes=ax)
plots.show(
    figure,
    alt="Three panels with ten points each. The points of each panel lie on a sine curve; "
    "heights and positions of the waves differ from panel to panel.",
)

# %% [markdown]
# You can continue each curve with a pencil. You know that they are waves of one width, so ten points are plenty.
# A network does not know that. This course is about learning it from other tasks.
#
# The words, once:
#
# - a **task** is one curve. It comes with two sets of points on it;
# - the **support set** is what a learner may look at when it adapts to the task;
# - the **query set** is what it is scored on, after it adapted;
# - a **family** (or distribution) of tasks is where tasks are drawn from. In meta-*training* we see many of them;
#   the score that counts is on new ones, in meta-*testing*.
#
# Our family is the one of Finn et al. (2017), $y = A \sin(x - b)$. Its amplitude $A$ is uniform between 0.1 and 5, its
# phase $b$ uniform between 0 and $\pi$, and $x$ uniform between $-5$ and 5.

# %% tags=["nbval-check-output"]
assert family.amplitude == (0.1, 5.0)
assert family.phase == (0.0, np.pi) and family.x_range == (-5.0, 5.0)
print("amplitude", family.amplitude, "  phase", family.phase, "  x", family.x_range)

# %% [markdown]
# ## The average model
#
# The plainest idea: pool the points of all tasks and train one network on them. It will be used as it is on every task.
# More data is usually better, and there is no end of tasks to draw.

# %%
training_prediction = predict(
    "01.more_training",
    "One network, trained on the points of ever more tasks. The targets have a mean square near 4. "
    "Where does its squared error go?",
    options=["towards 0", "to a level well above 0, and stays there", "it grows"],
)

# %%
random_start, network = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
loss = ml.losses.mean_squared_error(network)

no_adaptation = ml.maml(loss, optax.sgd(0.01), num_steps=0)  # zero inner steps: the plain gradient of the query loss
joint_learner = ml.meta_learner(no_adaptation, optax.adam(1e-3))
joint = ml.fit(joint_learner, random_start, family, num_steps=20_000, meta_batch_size=25, key=jax.random.key(0))

windows = joint.history.query_loss.reshape(20, 1_000).mean(axis=1)
training_prediction.reveal("to a level well above 0, and stays there")
for when, window in (("in the first 1,000 steps", 0), ("half way", 9), ("in the last 1,000 steps", 19)):
    print(f"mean loss {when}: {windows[window]:.2f}")
assert windows[-1] > 2.5 and abs(windows[-1] - windows[9]) < 0.2

# %% [markdown]
# The second half of the training changed nothing. Is the network too small? Is it stuck?
# Neither. The level is a property of the family, and the next section computes it.

# %% [markdown]
# ## Why no training helps: the floor
#
# Let $g$ be *any* function, of any network. At one input $x$, its expected squared error over tasks is
#
# $$\mathbb E\big[(g(x) - y)^2\big] = \big(g(x) - \mathbb E[y]\big)^2 + \operatorname{Var}[y].$$
#
# The first term is zero at best, when $g(x)$ is the mean of the targets. The second does not contain $g$ at all.
# **Check**, at one input, with many tasks and three candidates for $g(x)$:

# %%
A_key, b_key = jax.random.split(jax.random.key(2))
A = jax.random.uniform(A_key, (200_000,), minval=0.1, maxval=5.0)
b = jax.random.uniform(b_key, (200_000,), maxval=jnp.pi)
y = A * jnp.sin(1.0 - b)  # the targets of 200,000 tasks at x = 1
for g in (-1.0, 0.0, 2.0):
    expected = (g - y.mean()) ** 2 + y.var()
    assert jnp.isclose(jnp.mean((g - y) ** 2), expected, rtol=1e-3)
    print(f"g = {g:4.1f}   mean squared error {jnp.mean((g - y) ** 2):.3f}   formula {expected:.3f}")

# %% [markdown]
# **The mean of the targets.** Amplitude and phase are independent, so their averages multiply:
#
# $$\mathbb E[y] = \mathbb E[A] \cdot \frac1\pi \int_0^\pi \sin(x - b)\, db = -\frac{2}{\pi}\, \mathbb E[A] \cos x .$$
#
# **Check** on a grid of inputs:

# %%
x_grid = jnp.linspace(-5, 5, 101)
mean_curve = -2 / jnp.pi * A.mean() * jnp.cos(x_grid)
sampled_mean = jax.lax.map(lambda x: (A * jnp.sin(x - b)).mean(), x_grid)
assert jnp.allclose(mean_curve, sampled_mean, atol=0.03)
print("largest difference on the grid:", jnp.abs(mean_curve - sampled_mean).max().round(3))

# %% [markdown]
# **The floor.** The variance is the mean square minus the squared mean. The mean of $\sin^2(x - b)$ over half a wave is
# $\frac12$ for every $x$:
#
# $$\operatorname{Var}[y] = \tfrac12\, \mathbb E[A^2] - \tfrac{4}{\pi^2}\, \mathbb E[A]^2 \cos^2 x .$$
#
# Averaging $\cos^2 x$ over $x$ between $-5$ and 5 gives $\frac12 + \frac{\sin 10}{20}$. With the moments of a uniform
# amplitude, this is a number. **Check** it against sampled tasks:

# %%
low, high = family.amplitude
mean_A, mean_A2 = (low + high) / 2, (high**3 - low**3) / (3 * (high - low))
floor = mean_A2 / 2 - 4 / np.pi**2 * mean_A**2 * (1 / 2 + np.sin(10) / 20)

many = family(jax.random.key(3), 20_000)
variance = mean_A2 / 2 - 4 / np.pi**2 * mean_A**2 * jnp.cos(many.query[0]) ** 2
assert jnp.isclose(variance.mean(), floor, rtol=0.01)
reached = ml.evaluate.meta_test(loss, optax.sgd(0.01), joint.params, many, num_steps=0)
print(f"the floor, for any single function: {floor:.3f}")
print(f"the trained network: {reached}")
assert floor - reached.half_width < reached.mean < floor + 0.15

# %%
plots.show(
    plots.lines(
        x_grid,
        {
            "mean of all curves": mean_curve,
            "trained network": network(joint.params, x_grid[:, None])[:, 0],
            "one task": 4.0 * jnp.sin(x_grid - 2.5),
        },
        "x",
        "y",
        ylim=(-8, 5),
    ),
    alt="The trained network lies on the mean of all curves, a low inverted cosine. "
    "One task's curve is far from both, with about two and a half times their height and another position.",
)

# %% [markdown]
# The network's figure is a mean over sampled tasks. It scatters around the truth by about the number after ±, and you
# will write that number's formula below.
#
# Nothing is stuck: the network found the best single function there is. It is the mean of all curves, and it looks like
# none of them. Training longer, or a larger network, cannot get below the floor.

# %% [markdown]
# ## Exercise: the floor of any family
#
# You do not need formulas to find the floor. Suppose `targets[i, j]` is the target of task $i$ at input $j$, with the
# same inputs for all tasks. Compute the lowest mean squared error that one function can reach on these tasks.


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
# ## Averaging destroys the curves
#
# How many curves does it take until their average looks like none of them? Move the slider from 1 upwards.
# **At how many tasks does the average stay within 0.5 of the limit, at every $x$?**

# %%
curves = A[:400, None] * jnp.sin(x_grid - b[:400, None])  # 400 tasks on the grid
running_mean = np.asarray(jnp.cumsum(curves, axis=0) / jnp.arange(1, 401)[:, None])


def draw_average(tasks):
    return plots.lines(
        x_grid,
        {f"average; tasks: {tasks}": running_mean[tasks - 1], "limit": mean_curve, "task 1": curves[0]},
        "x",
        "y",
        ylim=(-5, 5),
    )


explore(
    draw_average,
    "The average of the chosen number of sine curves, the limit for infinitely many, and the first curve. "
    "With more curves the average approaches the limit.",
    tasks=(1, 400, 1),
)

# %% tags=["nbval-check-output"]
distance = np.abs(running_mean - mean_curve).max(axis=1)
settled = int(np.flatnonzero(distance > 0.5).max()) + 2
print(f"from {settled} tasks on, the average stays within 0.5 of the limit")

# %% [markdown]
# ## Adapt, then
#
# So a model has to change from task to task. The oldest way is fine-tuning: start from the trained network and take
# gradient steps on the support set. To see whether it works, we need to measure it.

# %% [markdown]
# ## Exercise: the adaptation curve
#
# Adapt by gradient descent on the support set. Report the query loss before the first step and after each step.


# %% tags=["exercise"] exercise="01.adaptation_curve"
def adaptation_curve(loss, task, params, step_size, num_steps):
    """The query loss along gradient descent on the support loss, for
    one task.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      params: where to start, any pytree of arrays.
      step_size: a number.
      num_steps: K, a whole number.

    Returns:
      An array of shape [K + 1]; entry k is the query loss after k
      steps.
    """
    ### BEGIN SOLUTION
    values = [loss(params, task.query)]
    for _ in range(num_steps):
        gradient = jax.grad(loss)(params, task.support)
        params = jax.tree.map(lambda p, g: p - step_size * g, params, gradient)
        values.append(loss(params, task.query))
    return jnp.stack(values)
    ### END SOLUTION


# %%
check("01.adaptation_curve", adaptation_curve)

# %% [markdown]
# One task is luck. A score over many tasks needs an interval that says how much luck is left in it.
# The mean over $n$ tasks scatters around the truth with the standard deviation $s / \sqrt n$, where $s$ is the standard
# deviation over tasks. About 95 % of the time it is off by less than $1.96\, s / \sqrt n$.

# %% [markdown]
# ## Exercise: a score with its confidence interval
#
# Return the mean over tasks, and the half-width of its 95 % confidence interval.


# %% tags=["exercise"] exercise="01.confidence_interval"
def score(values):
    """Mean over tasks and half-width of its 95 % confidence interval.

    Args:
      values: array of shape [num_tasks], one loss for each task.

    Returns:
      A pair of scalars (mean, half_width). The standard deviation is
      the sample's, with n - 1 in the denominator.
    """
    ### BEGIN SOLUTION
    standard_deviation = jnp.std(values, ddof=1)
    return jnp.mean(values), 1.96 * standard_deviation / jnp.sqrt(values.size)
    ### END SOLUTION


# %%
check("01.confidence_interval", score)

# %% [markdown]
# The library has both, for a whole batch of tasks: `ml.evaluate.adaptation_curve` and `ml.evaluate.score`.
# Now fine-tune the average network on 1,000 new tasks, with several step sizes, and keep the best.

# %%
fine_tuning_prediction = predict(
    "01.fine_tuning",
    "Ten gradient steps on the ten support points, from the average network, with the best of four step sizes. "
    "What is left of its loss of about 3?",
    unit="mean squared error",
)

# %%
new_tasks = family(jax.random.key(4), 1_000)
step_sizes = (0.001, 0.003, 0.005, 0.01)


def ten_steps(params):
    """Adaptation curves [11, 1000] for each step size."""
    return {a: ml.evaluate.adaptation_curve(loss, optax.sgd(a), params, new_tasks, num_steps=10) for a in step_sizes}


from_average, from_random = ten_steps(joint.params), ten_steps(random_start)
print("query loss after ten steps, with its 95 % interval")
for a in step_sizes:
    print(f"step size {a}")
    print("  average network", ml.evaluate.score(from_average[a][10]))
    print("  random network ", ml.evaluate.score(from_random[a][10]))
best = min(step_sizes, key=lambda a: from_average[a][10].mean())
best_random = min(step_sizes, key=lambda a: from_random[a][10].mean())
fine_tuning_prediction.reveal(float(from_average[best][10].mean()))
assert from_average[best][10].mean() > 0.5 * from_average[best][0].mean()
assert from_random[best_random][10].mean() > from_average[best][10].mean()

# %%
plots.show(
    plots.adaptation(
        {
            f"average network, step size {best}": from_average[best],
            f"random network, step size {best_random}": from_random[best_random],
        },
        "query loss (squared error)",
    ),
    alt="Query loss against inner steps, with narrow bands for the confidence intervals. The average network falls from "
    "about three to a little under two in ten steps. The random network stays near four.",
)

# %% [markdown]
# The average network is a better start than a random one, and still a poor one: with its best step size, ten steps leave
# more than half of the loss. Larger steps do worse, not better.

# %% [markdown]
# ## What the ten points know
#
# Perhaps ten points are too few? Use what you know of the family: $A \sin(x - b) = p \sin x + q \cos x$ for some numbers
# $p$ and $q$. Two unknowns, linear in the targets, so the support set gives them by least squares.

# %%
enough_prediction = predict(
    "01.enough_points",
    "Points without noise, and a learner who knows that the curve is p sin x + q cos x. "
    "How many support points does it need?",
    unit="points",
)


# %%
def knows_the_family(num_points):
    """Mean query loss over 200 tasks of least squares with the two basis functions sin and cos."""
    (x, y), (x_query, y_query) = ml.tasks.Sinusoid(num_support=num_points, num_query=10)(jax.random.key(5), 200)
    losses = []
    for i in range(200):
        basis = np.concatenate([np.sin(x[i]), np.cos(x[i])], axis=1)
        query_basis = np.concatenate([np.sin(x_query[i]), np.cos(x_query[i])], axis=1)
        p_q = np.linalg.lstsq(basis, np.asarray(y[i]), rcond=None)[0]
        losses.append(np.mean((query_basis @ p_q - y_query[i]) ** 2))
    return np.mean(losses)


enough_prediction.reveal(2)
for num_points in (1, 2, 10):
    print(f"support points: {num_points:2d}   mean squared error: {knows_the_family(num_points):.6f}")
assert knows_the_family(2) < 1e-3 < knows_the_family(1)

# %% [markdown]
# Two points are enough, if one knows the family. The data was never short. The *start* was poor: it knew the average of
# the curves, and nothing about how they vary.
#
# That is the gap that meta-learning closes. It looks for a start from which a few gradient steps, on a few points, give
# a good model of any task of the family. Written down, the aim is
#
# $$\min_\theta \; \mathbb E_{\text{tasks}} \big[\, \text{query loss after adaptation from } \theta \,\big],$$
#
# and the whole difficulty is in the word *after*. The next lesson takes its gradient.

# %% [markdown]
# ## Limits
#
# - The floor is for squared error and for one function without memory. A model that is *told* which task it is in, or
#   that reads the support set as an input, is not bound by it.
# - Sine curves vary so much that their average is useless. In many families it is not: photographs of cats and dogs share
#   edges and textures, and fine-tuning an average network works well there.
# - Ten steps were a choice. With hundreds of small steps fine-tuning goes further; the question here is what a few steps
#   on a few points can do.
#
# ## What to take away
#
# - The best single function is the mean of the tasks, and the variance of the tasks is its floor.
# - Fine-tuning from the average is slow: the average knows where curves are, not how they vary.
# - Adapt on the support set, score on the query set, report a confidence interval over tasks.
# - Ten points are enough for a learner who knows the family.

# %%
quiz("01")

# %%
progress("01")

# %% [markdown]
# ## References
#
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). The family of sine curves (section 5.1).
