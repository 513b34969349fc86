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
# - **derive** the gradient of a loss after $K$ inner steps, with respect to the initialization and to the inner learning
#   rate,
# - **implement** it twice: with automatic differentiation, and by hand from the last step to the first,
# - **measure** what it gains on Finn et al.'s sine curves,
# - **predict** how the curvature of the meta-objective grows with the inner training time $T = \alpha K$.
#
# **New symbols**
#
# - $\varphi_k$: adapted parameters, after $k$ inner steps
# - $\alpha$, $K$: inner learning rate, number of inner steps
# - $T = \alpha K$: inner training time
# - $H_k$: Hessian of $h$ at $\varphi_k$
# - $F(\theta) = f(\varphi_K)$: meta-objective
# - $\eta$: outer learning rate
# - $B$: tasks in a batch
# - $L$, $\rho$: bounds on $\lvert h'' \rvert$ and $\lvert h''' \rvert$

# %% tags=["imports"]
import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, playground, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_02 as figures
from metalearn.course.widgets import diagrams

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Two curves that look alike
#
# Here are the three networks of lesson 01 again: from a random initialization, from joint training, and from MAML. The
# last two begin with nearly the same curve, and so with nearly the same loss. This time, put the points where *you* want
# them: drag them, or remove them all and click new ones.
#
# Can you find five points that the network from MAML fits badly after three steps? Think first about the curves that it
# has met in its training, and then try five points of a steep straight line.

# %%
playground("adapt_a_sine")

# %% [markdown]
# If the points lie on a sine, a few gradient steps turn MAML's curve into it, and change the curve from joint
# training far less, although their losses at the beginning are nearly equal. (The steps from MAML lead to sine curves, because
# its training met nothing else, so they fit a straight line badly.) The two networks differ in how a gradient step *changes* their loss. This lesson derives the
# gradient that trains for exactly that.
#
# *Short of time? Skip the exercise on the inner learning rate and the last section before the takeaways, "On paper".*

# %% [markdown]
# ## Which initialization is best?
#
# We begin with two tasks that have a single parameter $\varphi$. The loss of each task is a parabola, one of them steep
# and the other one flat. You choose **one** initialization $\theta$ for both. Then each task takes one gradient step of
# its own from there, and is scored where that step ends.

# %%
figures.two_tasks()

# %% [markdown]
# Without adaptation, the best initialization lies near the steep task's minimum, because the steep loss grows faster
# with the distance from its minimum. With one step the best initialization moves, as the picture at the top of this
# lesson shows. These few lines compute both:

# %%
curvatures = np.array([3.0, 0.5])  # of the steep and the flat parabola
minima = np.array([-1.0, 2.0])
grid = np.linspace(-2.5, 3.5, 601)


def mean_loss(theta, learning_rate):
    """The mean loss of the two tasks after one gradient step from theta."""
    phi = theta - learning_rate * curvatures * (theta - minima)
    return np.mean(0.5 * curvatures * (phi - minima) ** 2)


def best_initialization(learning_rate):
    return grid[np.argmin([mean_loss(theta, learning_rate) for theta in grid])]


print(f"best without adaptation:     θ = {best_initialization(0.0):.2f}")
print(f"best for one step, α = 0.3:  θ = {best_initialization(0.3):.2f}")

# %% [markdown]
# With $\alpha = 0.3$, one step brings the steep task nearly to its minimum from wherever it begins, so the
# initialization need not be close to that minimum. The flat task moves only a little in one step, so the initialization
# has to be close to the minimum of the flat task. **A good initialization is not close to every task's solution. It is
# close to those that are slow to reach.**
#
# Test your understanding of this sentence on a larger step:

# %%
larger_step = predict("02.best_initialization")

# %% tags=["fold"]
larger_step.reveal(np.argmin(np.abs(best_initialization(0.6) - np.array([minima[0], minima.mean(), minima[1]]))))
rows = {}
for a in (0.0, 0.3, 0.6):
    left = 1 - a * curvatures  # the fraction of each task's distance that one step leaves
    weights = curvatures * left**2
    best = (weights * minima).sum() / weights.sum()
    assert abs(best - best_initialization(a)) < 0.006
    rows[f"α\u00a0=\u00a0{a:g}"] = (*(f"{number:.2f}".replace("-", "−") for number in (*left, *weights, best)),)
plots.table(
    rows,
    ("", "1 − αH, steep", "1 − αH, flat", "weight, steep", "weight, flat", "best θ"),
    title="The weights H (1 − αH)² decide which θ is best",
    caption="What one step leaves of the displacement from each minimum (negative: it jumps to the other side), and the "
    "weight of each task in the best θ.",
)

_rates = np.linspace(0, 0.66, 34)
_weights = curvatures * (1 - _rates[:, None] * curvatures) ** 2
_best = (_weights * minima).sum(-1) / _weights.sum(-1)
assert abs(_rates[_best.argmax()] - 1 / curvatures[0]) < 0.02 and _best.max() > 1.95

# %% [markdown]
# The table shows why. Let $H$ be the curvature of a parabola: 3 for the steep one, 0.5 for the flat one. One gradient
# step multiplies the displacement from the minimum by $1 - \alpha H$, which is negative if the step jumps across the minimum.
# The loss after the step is therefore $\tfrac12 H (1 - \alpha H)^2$ times the squared distance of $\theta$ to the
# minimum. Setting the derivative of the sum of both losses to zero shows that the best initialization is the weighted
# mean of the two minima, with the weights $H (1 - \alpha H)^2$.
#
# Move the inner learning rate. **At which value does the best initialization lie closest to the flat task's minimum?**

# %%
best_alt = "The mean loss before and after one step, and the best initialization."
explore(figures.best_initialization, best_alt, learning_rate=(0.0, 0.66, 0.02, 0.3))

# %% [markdown]
# It is closest near $\alpha = \tfrac13$. There the factor $1 - \alpha H$ of the steep task vanishes: one step takes
# that task to its minimum from anywhere, and it no longer has a say.
#
# To find such an initialization by gradient descent, we need the derivative of the curve "after one step" in the figure
# above: how does the loss *after* adaptation change when the initialization moves? This derivative is the
# **meta-gradient**.

# %% [markdown]
# ## How much of a small change survives?
#
# The $K$ gradient steps on one task are called the **inner loop**. The loss after adaptation depends on the
# initialization only through the parameters that the inner loop returns. So the first question is how much of a small
# change of the initialization is still there after $K$ inner steps.

# %%
survival = predict("02.nudge")


# %%
def five_steps(phi, learning_rate=0.1, curvature=1.0):
    """Gradient descent on the parabola curvature · φ² / 2."""
    for _ in range(5):
        phi = phi - learning_rate * curvature * phi
    return phi


survives = (five_steps(2.0 + 0.01) - five_steps(2.0)) / 0.01
survival.reveal(survives)

# %% tags=["fold"]
assert np.isclose(survives, 0.9**5)
figures.nudged_runs()

# %% [markdown]
# Each step multiplies the change by $1 - \alpha H$, here by 0.9, so only the fraction $0.9^5$ of it reaches the adapted
# parameters $\varphi_5$. Let $f$ be the loss that judges them, and let $F(\theta) = f(\varphi_5)$ be the same loss as a
# function of the initialization. A small change $\delta$ of $\theta$ changes $\varphi_5$ by $0.9^5\,\delta$, and so it
# changes the loss by $0.9^5\,\delta\, f'(\varphi_5)$. If the inner loss is any parabola in one dimension, then
#
# $$F'(\theta) = (1 - \alpha H)^5 \, f'(\varphi_5).$$
#
# The next section derives the same statement for many parameters and any loss.

# %% [markdown]
# ## The derivation, line by line
#
# A task has a support set with the loss $h$ and a query set with the loss $f$. The inner loop takes $K$ gradient steps on
# the support loss, and the query loss judges the result:

# %% tags=["fold"]
diagrams.show(
    diagrams.backward_pass(),
    alt="Three inner steps lead from theta to phi three, where the query loss f is taken. The backward pass returns the "
    "query gradient through the factors I minus alpha H two, H one and H zero.",
    title="Forward: adapt. Backward: one factor for each step",
    caption="The inner loop (blue) and its backward pass (orange), for K = 3.",
)

# %% [markdown]
# $$\varphi_0 = \theta, \qquad \varphi_{k+1} = \varphi_k - \alpha \nabla h(\varphi_k), \qquad F(\theta) = f(\varphi_K).$$
#
# Here $k$ runs from 0 to $K - 1$. As an example we take the curve of lesson 00, $y = a \sin(x - b)$, with the two
# parameters $\varphi = (a, b)$, so every matrix below is a 2 × 2 matrix. The cell below each line of the derivation checks
# that line on this example; a failed `assert` would raise an error. We work in float64, so that the checks can be strict.

# %%
jax.config.update("jax_enable_x64", True)


@jax.jit
def wave_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


distribution = ml.tasks.Sinusoid(num_support=5, num_query=5)
example = distribution.task(jax.random.key(3), amplitude=2.0, phase=1.0)


def h(phi):
    return wave_loss(phi, example.support)


def f(phi):
    return wave_loss(phi, example.query)


# %%
theta, alpha, num_steps = jnp.array([1.0, 0.3]), 0.1, 3


def inner_loop(phi, num_steps):
    """φ after `num_steps` gradient steps on h."""
    for _ in range(num_steps):
        phi = phi - alpha * jax.grad(h)(phi)
    return phi


def F(theta):
    return f(inner_loop(theta, num_steps))


phis = [inner_loop(theta, k) for k in range(num_steps + 1)]
print(f"query loss at θ: {f(phis[0]):.2f}   after {num_steps} steps: {f(phis[-1]):.2f}")

# %% [markdown]
# **Line 1, the chain rule.** The query loss is a function of $\varphi_K$, and $\varphi_K$ is a function of $\theta$:
#
# $$\nabla F(\theta) = \Big(\frac{\partial \varphi_K}{\partial \theta}\Big)^{\!\top} \nabla f(\varphi_K).$$

# %% tags=["nbval-check-output"]
jacobian = jax.jacobian(lambda theta: inner_loop(theta, num_steps))(theta)
assert jnp.allclose(jax.grad(F)(theta), jacobian.T @ jax.grad(f)(phis[-1]))
print("line 1 holds")

# %% [markdown]
# **Line 2, one step.** Differentiate $\varphi_{k+1} = \varphi_k - \alpha \nabla h(\varphi_k)$. The first term gives the
# identity $I$. The second gives $-\alpha$ times the derivative of the gradient, which is the Hessian
# $H_k = \nabla^2 h(\varphi_k)$, the matrix of second derivatives:
#
# $$\frac{\partial \varphi_{k+1}}{\partial \varphi_k} = I - \alpha H_k.$$

# %%
factors = [jnp.eye(2) - alpha * jax.hessian(h)(phi) for phi in phis[:-1]]
one_step = jax.jacobian(lambda phi: inner_loop(phi, 1))
assert jnp.allclose(jnp.stack([one_step(phi) for phi in phis[:-1]]), jnp.stack(factors))
print("line 2 holds")

# %% [markdown]
# **Line 3, all steps.** Steps are composed, so their derivatives multiply. The last step stands on the left:
#
# $$\frac{\partial \varphi_K}{\partial \theta} = (I - \alpha H_{K-1}) \cdots (I - \alpha H_1)(I - \alpha H_0).$$

# %%
assert jnp.allclose(jacobian, factors[2] @ factors[1] @ factors[0])
print("line 3 holds")

# %% [markdown]
# **Line 4, the meta-gradient.** Put line 3 into line 1. Transposing reverses the order, and each factor is its own
# transpose, because Hessians are symmetric:
#
# $$\boxed{\;\nabla F(\theta) = (I - \alpha H_0)(I - \alpha H_1) \cdots (I - \alpha H_{K-1}) \, \nabla f(\varphi_K)\;}$$
#
# Read it from right to left. The query gradient is taken where the inner loop ends. Each inner step then passes it on,
# from the parameters after the step to those before it, through the factor of that step. This is **backpropagation
# through the inner loop**, also called unrolled differentiation.

# %%
product = factors[0] @ factors[1] @ factors[2] @ jax.grad(f)(phis[-1])
assert jnp.allclose(jax.grad(F)(theta), product)
print("line 4 holds")

# %% tags=["fold"]
reversed_product = factors[2] @ factors[1] @ factors[0] @ jax.grad(f)(phis[-1])
assert not jnp.allclose(product, reversed_product, rtol=1e-3)
results = {
    "jax.grad(F)": jax.grad(F)(theta),
    "product of the factors": product,
    "factors in the wrong order": reversed_product,
    "no factors (FO-MAML)": jax.grad(f)(phis[-1]),
}
plots.table(
    {name: [f"{number:.4f}".replace("-", "−") for number in gradient] for name, gradient in results.items()},
    ("", "∂/∂a", "∂/∂b"),
    title="The product is the gradient, in this order only",
    caption="Four candidates for the meta-gradient of the sine wave, K = 3.",
)

# %% [markdown]
# The product agrees with `jax.grad`. The wrong order does not, because Hessians at different parameters do not commute in
# general. The last row leaves the factors out. That is first-order MAML (FO-MAML), a cheap approximation from the paper that introduced MAML
# (Finn et al. 2017), and the subject of lesson 03.

# %% [markdown]
# ## Exercise: the gradient of the loss after adaptation
#
# Write the meta-gradient for any loss and any pytree of parameters. Let `jax.grad` do the differentiating.


# %% tags=["exercise"] exercise="02.meta_gradient"
def meta_gradient(loss, task, params, learning_rate, num_steps):
    """The gradient of the query loss after adaptation, with respect to
    the initialization.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch.
      params: the initialization, any pytree of arrays.
      learning_rate: α, of the inner steps.
      num_steps: K, a whole number of at least 0.

    Returns:
      A pytree with the structure and shapes of `params`.
    """

    ### BEGIN SOLUTION
    def loss_after_adaptation(initialization):
        adapted = initialization
        for _ in range(num_steps):
            gradient = jax.grad(loss)(adapted, task.support)
            adapted = jax.tree.map(lambda p, g: p - learning_rate * g, adapted, gradient)
        return loss(adapted, task.query)

    return jax.grad(loss_after_adaptation)(params)
    ### END SOLUTION


# %%
check("02.meta_gradient", meta_gradient)

# %% [markdown]
# ## Exercise: the same gradient by hand, from the last step to the first
#
# Now do what `jax.grad` did for you, without differentiating through the loop. First run the inner loop forwards and
# keep all parameters on the way. Then carry the query gradient back along the boxed equation, one factor at a time.


# %% tags=["exercise"] exercise="02.backward_pass"
def backward_pass(loss, task, params, learning_rate, num_steps):
    """The meta-gradient as a product of factors; `loss` is only
    differentiated at given parameters, never through the inner loop.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch.
      params: the initialization, an array of shape [d].
      learning_rate: α, of the inner steps.
      num_steps: K, a whole number of at least 0.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    phis = [params]
    for _ in range(num_steps):
        phis.append(phis[-1] - learning_rate * jax.grad(loss)(phis[-1], task.support))

    vector = jax.grad(loss)(phis[-1], task.query)
    for phi in reversed(phis[:-1]):
        vector = vector - learning_rate * jax.hessian(loss)(phi, task.support) @ vector
    return vector
    ### END SOLUTION


# %%
check("02.backward_pass", backward_pass)

# %% [markdown]
# ## Exercise: the gradient with respect to the inner learning rate
#
# The loss after adaptation depends on the inner learning rate too, and your backward pass contains nearly everything
# that is needed to differentiate it. Meta-SGD (Li et al. 2017) and MAML++ (Antoniou et al. 2019) train inner learning
# rates in this way, together with the initialization. The first two lines of the derivation are given.
#
# **Line 1, the chain rule.** With $\theta$ fixed, $\alpha$ acts on the query loss through $\varphi_K$:
#
# $$\frac{dF}{d\alpha} = \Big(\frac{d\varphi_K}{d\alpha}\Big)^{\!\top} \nabla f(\varphi_K).$$
#
# **Line 2, one step.** In $\varphi_{k+1} = \varphi_k - \alpha \nabla h(\varphi_k)$ the learning rate occurs twice, visibly in
# front of the gradient and hidden in $\varphi_k$:
#
# $$\frac{d\varphi_0}{d\alpha} = 0, \qquad
#   \frac{d\varphi_{k+1}}{d\alpha} = (I - \alpha H_k) \frac{d\varphi_k}{d\alpha} - \nabla h(\varphi_k).$$
#
# **Line 3** is yours. Put line 2 into itself until only gradients and factors are left, put the result into line 1, and
# write what you get as a function.


# %% tags=["exercise"] exercise="02.learning_rate"
def learning_rate_gradient(loss, task, params, learning_rate, num_steps):
    """The derivative of the query loss after adaptation, with respect
    to the inner learning rate; the initialization stays fixed.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch.
      params: the initialization, an array of shape [d].
      learning_rate: α, where the derivative is taken.
      num_steps: K, a whole number of at least 0.

    Returns:
      A scalar.
    """
    ### BEGIN SOLUTION
    phis = [params]
    for _ in range(num_steps):
        phis.append(phis[-1] - learning_rate * jax.grad(loss)(phis[-1], task.support))

    vector, total = jax.grad(loss)(phis[-1], task.query), jnp.zeros(())
    for phi in reversed(phis[:-1]):
        total = total - jax.grad(loss)(phi, task.support) @ vector
        vector = vector - learning_rate * jax.hessian(loss)(phi, task.support) @ vector
    return total
    ### END SOLUTION


# %%
check("02.learning_rate", learning_rate_gradient)

# %% [markdown]
# ## The outer loop
#
# MAML repeats three things: it draws a batch of $B$ tasks, averages their meta-gradients, and takes one **outer step**,
# which moves the initialization against this average with the outer learning rate $\eta$.

# %% tags=["fold"]
diagrams.show(
    diagrams.two_loops(),
    alt="The inner loop adapts theta to one task by three steps on the support set and ends at the query loss f. The outer "
    "loop returns from there and moves theta against the mean meta-gradient over tasks.",
    title="The inner loop adapts, the outer loop moves the initialization",
    caption="One task of a batch, with K = 3. The outer step uses the mean over all tasks of the batch.",
)

# %% [markdown]
# $$\theta \leftarrow \theta - \eta \, \frac{1}{B} \sum_{i=1}^{B} \nabla F_i(\theta)$$
#
# In code this takes three lines. `ml.maml` gives the query loss and the meta-gradient of one task, `jax.vmap` applies
# it to a batch, whose arrays have one more leading axis of length $B$, and the mean over that axis moves the
# parameters. The network is that of Finn et al., with two hidden layers of 40 units.

# %%
jax.config.update("jax_enable_x64", False)  # training runs in float32
jax.clear_caches()  # frees the memory of the programs in float64

tasks = ml.tasks.Sinusoid(num_support=10, num_query=10)  # the distribution of lesson 01
network = ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0))
random_params, apply = ml.models.functional(network)
loss = ml.losses.mean_squared_error(apply)
one_task = ml.maml(loss, optax.sgd(0.01), num_steps=1)


def outer_step(one_task, params, batch, outer_learning_rate):
    _, gradients = jax.vmap(one_task, in_axes=(None, 0))(params, batch)
    mean = jax.tree.map(lambda g: g.mean(axis=0), gradients)
    return jax.tree.map(lambda p, g: p - outer_learning_rate * g, params, mean)


# %% [markdown]
# `ml.meta_learner` is this outer step with any optimizer of optax in place of plain gradient descent, and `ml.fit`
# repeats it in compiled code.

# %% [markdown]
# ## Finn et al.'s experiment
#
# The task distribution is that of lesson 01, where amplitude and phase differ from task to task. Each outer step draws
# 25 new tasks with 10 support and 10 query points, and adapts to each by one inner step with $\alpha = 0.01$. The outer
# optimizer is Adam with learning rate $10^{-3}$, and it takes 25,000 outer steps.
#
# We test on 1,000 new tasks, and let them adapt for ten steps, although MAML is trained for one. For comparison, *joint
# training* trains the same network on the points of all tasks without any adaptation, as in lesson 01.

# %%
after_one_step = predict("02.after_one_step")

# %% [markdown]
# The next cell trains for less than a minute, and a bar shows how far it is. You can read on meanwhile.

# %%
learner = ml.meta_learner(one_task, optax.adam(1e-3))
key = jax.random.key(0)
maml = ml.fit(learner, random_params, tasks, 25_000, meta_batch_size=25, key=key)

# %% [markdown]
# With zero inner steps, `ml.maml` is joint training. Its network needs only 5,000 outer steps to come down to the floor
# of lesson 01. It was not trained for any inner learning rate, so we choose the best of four for it, by the loss after
# ten steps on validation tasks. MAML keeps the inner learning rate that it was trained with.

# %%
no_adaptation = ml.maml(loss, optax.sgd(0.01), num_steps=0)
learner = ml.meta_learner(no_adaptation, optax.adam(1e-3))
key = jax.random.key(1)
joint = ml.fit(learner, random_params, tasks, 5_000, meta_batch_size=25, key=key)


@jax.jit  # compiled once, for every learning rate
def curve(params, learning_rate, batch):
    """Query loss after 0, 1, ..., 10 inner steps, shape [11, tasks]."""
    inner = optax.sgd(learning_rate)
    return ml.evaluate.adaptation_curve(loss, inner, params, batch, num_steps=10)


validation, test = (tasks(jax.random.key(i), 1_000) for i in (3, 2))
rates = (0.001, 0.002, 0.004, 0.008)
best_rate = min(rates, key=lambda a: curve(joint.params, a, validation)[10].mean())
maml_curve = curve(maml.params, 0.01, test)
joint_curve = curve(joint.params, best_rate, test)
after_one_step.reveal(maml_curve[1].mean())

# %% tags=["fold"]
_wave, _two = ml.maml(wave_loss, optax.sgd(0.1), 1), jnp.array([1.0, 0.3])
_batch, _plain = tasks(jax.random.key(9), 25), ml.meta_learner(_wave, optax.sgd(0.01))
_ours = jax.jit(outer_step, static_argnums=0)(_wave, _two, _batch, 0.01)
assert jnp.allclose(_ours, jax.jit(_plain.step)(_plain.init(_two), _batch)[0].params, atol=1e-6)

low, high = tasks.amplitude
mean_A, mean_A2 = (low + high) / 2, (high**3 - low**3) / (3 * (high - low))
floor = mean_A2 / 2 - 4 / np.pi**2 * mean_A**2 * (1 / 2 + np.sin(10) / 20)  # lesson 01
maml_before, joint_before = (ml.evaluate.score(values[0]) for values in (maml_curve, joint_curve))
assert min(score.mean + 2 * score.half_width for score in (maml_before, joint_before)) > floor
assert 0.8 < maml_before.mean / joint_before.mean < 1.25
assert 7.5 < maml_curve[0].mean() / maml_curve[1].mean() < 9
assert joint_before.mean < 1.05 * floor
assert best_rate not in (rates[0], rates[-1])
assert maml_curve[1].mean() < joint_curve[10].mean() / 5 and maml_curve[10].mean() < maml_curve[1].mean()


def _intervals(values):
    return [f"{s.mean:.2f}\u00a0±\u00a0{s.half_width:.2f}" for s in (ml.evaluate.score(values[k]) for k in (0, 1, 10))]


plots.table(
    {
        f"joint training, α = {best_rate}": _intervals(joint_curve),
        "MAML, α = 0.01": _intervals(maml_curve),
        "floor of any single function": [f"{floor:.2f}", "", ""],
    },
    ("initialization", "before", "after 1 step", "after 10 steps"),
    title="MAML is no better before adaptation, and far better after it",
    caption="Query loss on 1,000 new tasks, with its 95 % interval.",
)

# %%
figures.adaptation(joint_curve, maml_curve, floor)

# %% [markdown]
# Before adaptation the two are equally bad, and neither can be better: an initialization that has not adapted is *one
# function* for all tasks, so the floor of lesson 01 holds for it, however it was trained. (The test tasks are a sample,
# so a mean over them can lie a little below the floor.) The two differ in where one step takes them. One step from
# MAML's initialization leaves less than a fifth of the loss that ten steps leave after joint training, and although
# MAML was trained for one step, ten steps improve it further.
#
# Now look at one task at a time; the circles are its support points. Move the sliders: **which curves are still wrong
# after one step?** Try the ends of the ranges, and an amplitude above 5, which training has never seen.

# %%
draw = figures.adapting_sine(loss, apply, maml.params)
ranges = {"amplitude": (0.1, 6.0, 0.1, 4.0), "phase": (0.0, 3.1, 0.1, 1.0)}
explore(draw, figures.SINE, **ranges, steps=(0, 10, 1, 1))

# %% tags=["fold"]
amplitudes, losses = np.array([0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), []
_keys = jax.random.split(jax.random.key(5), 1_000)
_phases = jax.random.uniform(jax.random.key(6), (1_000,), maxval=jnp.pi)
_of_amplitude = jax.jit(jax.vmap(tasks.task, (0, None, 0)))
for amplitude in amplitudes:
    losses.append(curve(maml.params, 0.01, _of_amplitude(_keys, amplitude, _phases))[1].mean())
relative = np.array(losses) / (amplitudes**2 / 2)
assert np.argsort(losses)[-3:].tolist() == [4, 5, 6]
assert np.argmax(relative) == 0 and relative[0] > 1 > max(relative[1:])
plots.table(
    {
        "loss after one step": [f"{value:.2f}" for value in losses],
        "divided by A²/2": [f"{value:.2f}" for value in relative],
    },
    ("amplitude A", *(f"{amplitude:g}" for amplitude in amplitudes)),
    title="Large amplitudes are hardest in squared error, small ones in proportion",
    caption="Mean query loss after one inner step on 1,000 tasks of one amplitude each; A = 6 is outside of the training "
    "distribution.",
)

# %% [markdown]
# There are two answers. In squared error the largest amplitudes are the hardest, and the loss is highest at 6, which
# lies outside of the task distribution. But $A^2/2$ is the loss of the flat curve $y = 0$, and in proportion to that
# the smallest amplitude is the hardest: at 0.1 the adapted curve is worse than the flat one. A meta-trained
# initialization suits tasks like those that it was trained on, measured by the loss that it was trained with.

# %% [markdown]
# ## MAML overfits to few training tasks
#
# So far every outer step drew new tasks. In lesson 01, joint training on a few tasks overfitted to them. An
# initialization could do that too: adapting from it would work well on the training tasks, and badly on new ones. This
# is called **meta-overfitting**. Does the inner step protect MAML against it?
#
# We repeat the experiment of lesson 01 with MAML. A network trains on $M$ curves, which stay the same throughout, and
# every outer step draws two of them at random (possibly the same one twice), and new points on each. For each $M$ there are six networks, each with curves of its own.

# %%
few_tasks = predict("02.few_tasks")

# %%
counts = (1, 4, 16, 64)  # numbers of training tasks, M
optimizer = optax.adam(optax.cosine_decay_schedule(0.005, 2_000))


def train_step(state, key, count, curves):
    """One outer step on two of the first `count` curves."""
    (params, opt_state), (amplitude, phase) = state, curves
    which, *points = jax.random.split(key, 3)
    i = jax.random.randint(which, (2,), 0, count)
    batch = jax.vmap(tasks.task)(jnp.stack(points), amplitude[i], phase[i])
    _, gradients = jax.vmap(one_task, in_axes=(None, 0))(params, batch)
    mean = jax.tree.map(lambda g: g.mean(axis=0), gradients)
    updates, opt_state = optimizer.update(mean, opt_state)
    return optax.apply_updates(params, updates), opt_state


state = random_params, optimizer.init(random_params)
trained, curves = figures.train_on_few(train_step, state, counts)
training, new = figures.losses_on_few(curve, trained, counts, curves, tasks)

# %% tags=["fold"]
few_tasks.reveal(0 if new[0].mean() < 0.5 else 1 if new[0].mean() < floor else 2)
_gap = (new - training).mean(axis=1)
assert training[0].mean() < 0.5 < floor + 0.5 < new[0].mean()
assert _gap[0] > 3 and _gap[0] > _gap[1] + 1 and _gap[1:3].mean() > abs(_gap[3]) and abs(_gap[3]) < 0.4
assert 1.5 * maml_curve[1].mean() < min(training[3].mean(), new[3].mean()) and new[3].mean() < floor - 0.2
figures.meta_overfitting(counts, training, new, floor)

# %% [markdown]
# The inner step does not protect MAML. Trained on a single curve, the network knows this curve by heart, and one step
# towards a new curve leaves a loss above the floor, so the best single function would do better without adapting at all.
# With more training tasks the loss on them rises, the loss on new tasks falls, and the two meet. As with joint
# training, what counts is the number of *tasks*, however many points of each there are. The remedies are those of
# lesson 01: more tasks, regularization, and early stopping by the loss after adaptation on validation tasks.
#
# Even with 64 tasks both losses stay far above the loss of the network in the section before. That is not overfitting,
# since the loss on the training tasks is as high as on new ones. A likely reason is that these runs are much shorter,
# with 2,000 outer steps on two tasks each instead of 25,000 on 25.

# %% [markdown]
# ## Three variants you will meet
#
# Many papers change one part of MAML. Here are three of them, in the words of this lesson.
#
# - **ANIL** (almost no inner loop; Raghu et al. 2020) adapts only the last layer in the inner loop, while the outer loop trains all layers. The backward
#   pass becomes cheaper. On few-shot image benchmarks the accuracy is about that of MAML, which suggests that there the
#   other layers are reused rather than adapted. Where tasks need different things from these layers, adapting the last
#   one alone can be too little.
# - **Meta-SGD** (Li et al. 2017) learns an inner learning rate for each parameter along with the initialization, by a gradient like
#   the one of the exercise on the inner learning rate. There are twice as many numbers to learn from
#   the same tasks, and nothing keeps a learning rate from becoming negative or too large for a stable inner step.
# - **MAML++** (Antoniou et al. 2019) collects remedies for unstable training, which it traces to meta-gradients that explode or vanish on
#   their way through many inner steps. Among other things it adds up the query losses taken after each inner step, begins
#   with the gradients of FO-MAML, learns an inner learning rate for each layer and step, and lowers the outer learning rate
#   during training.
#
# The first two take two lines each in the library, because both are inner optimizers. In Meta-SGD what the outer loop
# trains is a pair, made by `with_rates`: `p.start` holds the initialization, and `p.rates` the inner learning rates,
# which begin at 0.01.

# %%
last_layer = ml.inner.only(lambda params: params["layers"][2], optax.sgd(0.01))
anil = ml.maml(loss, last_layer, num_steps=1)

meta_sgd = ml.maml(lambda p, b: loss(p.start, b), ml.inner.learned_rates(), num_steps=1)
with_rates = ml.inner.with_rates(random_params, 0.01)

# %% tags=["fold"]
_one = jax.tree.map(lambda leaf: leaf[0], _batch)
assert jax.tree.structure(jax.eval_shape(anil, random_params, _one)[1]) == jax.tree.structure(random_params)
_shapes = jax.eval_shape(meta_sgd, with_rates, _one)[1]
assert jax.tree.structure(_shapes.rates) == jax.tree.structure(_shapes.start) == jax.tree.structure(random_params)

# %% [markdown]
# ## Curvature grows with the training time
#
# With more inner steps the parameters move further towards the task. What do these steps do to the meta-objective $F$, on which the outer loop has to descend?
#
# Where the support loss is concave, its curvature is negative, and a factor $(I - \alpha H_k)$ stretches a small change
# of the initialization instead of shrinking it. By how much? In lesson 00, $L$ was the largest curvature at the
# minimum. From now on it is a bound on the absolute value of every curvature, anywhere. Then one factor stretches by at
# most $1 + \alpha L$, and all of them together by at most
#
# $$(1 + \alpha L)^K \;\le\; e^{\alpha L K} = e^{LT}, \qquad T = \alpha K.$$
#
# The product $T$ is the **inner training time**. Twice the steps at half the learning rate have the same $T$, and so
# the same bound $e^{LT}$. In one dimension $F' = J f'(\varphi_K)$, where $J$ is the product of the factors.
# Differentiating once more brings out a second $J$, in the term $J^2 f''(\varphi_K)$, so the curvature $F''$ may grow like
# $e^{2LT}$. (A second term follows in "On paper", at the end of this lesson.)
#
# This really happens. Take a task with $h(\varphi) = f(\varphi) = 1 - \cos(\varphi - b)$, for which $L = 1$, and put $\theta$
# where this loss is highest, at $b + \pi$. The gradient is zero there, so the inner loop stays where it is, every
# factor is exactly $1 + \alpha$, and $|F''| = (1 + \alpha)^{2K}$. Two runs of gradient descent that begin on different
# sides of this top move apart and never meet again.
#
# Each task has its top at a different place. We take twenty such tasks, and measure the largest curvature of their mean
# $F$.

# %%
b = jax.random.uniform(jax.random.key(6), (20,), maxval=2 * jnp.pi)  # twenty tasks
thetas = jnp.concatenate([b + jnp.pi, jnp.linspace(0, 2 * jnp.pi, 400)])  # tops, grid


def mean_adapted_loss(theta, learning_rate, num_steps):
    """F: the mean loss of the twenty tasks after adaptation from theta."""

    def inner_step(_, phi):
        return phi - learning_rate * jnp.sin(phi - b)

    phi = jax.lax.fori_loop(0, num_steps, inner_step, jnp.full(20, theta))
    return jnp.mean(1 - jnp.cos(phi - b))


@jax.jit
def largest_curvature(learning_rate, num_steps):
    """The largest |F''| over all `thetas`."""
    second = jax.jacfwd(jax.jacfwd(mean_adapted_loss))
    curvatures = jax.vmap(second, (0, None, None))(thetas, learning_rate, num_steps)
    return jnp.abs(curvatures).max()


# %% tags=["fold"]
def _one_cosine(theta, learning_rate, num_steps):
    phi = jax.lax.fori_loop(0, num_steps, lambda _, phi: phi - learning_rate * jnp.sin(phi), theta)
    return 1 - jnp.cos(phi)


for _a, _k in ((0.5, 4), (0.1, 10)):
    _at_the_top = jax.jacfwd(jax.jacfwd(_one_cosine))(jnp.pi, _a, _k)
    assert jnp.isclose(_at_the_top, -((1 + _a) ** (2 * _k)), rtol=1e-3)
_fixed = {f"α = 0.5, K = {k}": (0.5, k) for k in (1, 4, 16)}
plots.table(
    {name: (a * k, float(f"{largest_curvature(a, k):.2g}")) for name, (a, k) in _fixed.items()},
    ("inner loop", "T = αK", "largest curvature of F"),
    title="More inner steps at one learning rate: the curvature explodes",
    caption="Twenty cosine tasks with L = 1.",
)
assert largest_curvature(0.5, 16) > 10_000 * largest_curvature(0.5, 1)
assert 0.8 < largest_curvature(0.05, 10) / largest_curvature(0.5, 1) < 1.25  # equal T

# %% [markdown]
# It is tempting to read this table as "many inner steps are dangerous". But in its rows *both* $K$ and $T$ grow, so it
# cannot say which of the two is to blame. You need a controlled experiment.

# %% [markdown]
# ## Exercise: design the control
#
# Choose the runs that separate the two explanations. Starting from one run, by which factor does the largest curvature
# grow if you multiply the *number of steps* and keep the training time, and by which if you multiply the *training
# time* and keep the number of steps?


# %% tags=["exercise"] exercise="02.control"
def separate(curvature, learning_rate, num_steps, factor):
    """The effects of more inner steps and of more training time on the
    curvature, each with the other one held fixed.

    Args:
      curvature: function of (learning_rate, num_steps) that returns
        the largest curvature that was measured with them.
      learning_rate: α, of the run that both are compared with.
      num_steps: K, of that run.
      factor: a whole number of at least 1.

    Returns:
      A pair of numbers: by which factor the curvature grows with
      `factor` times the steps in the same training time, and with
      `factor` times the training time in the same number of steps.
    """
    ### BEGIN SOLUTION
    base = curvature(learning_rate, num_steps)
    more_steps = curvature(learning_rate / factor, num_steps * factor)
    more_time = curvature(learning_rate * factor, num_steps)
    return more_steps / base, more_time / base
    ### END SOLUTION


# %%
check("02.control", separate)

# %% [markdown]
# Once your function passes, carry the experiment out: add a cell with `separate(largest_curvature, 0.25, 8, 4)`. Then predict what
# many more steps do.

# %%
at_fixed_time = predict("02.training_time")

# %% tags=["fold"]
mean_loss_after = jax.jit(lambda a, k: jax.vmap(mean_adapted_loss, (0, None, None))(thetas[20:], a, k).mean())
grown = float(largest_curvature(8 / 1024, 1024) / largest_curvature(8 / 16, 16))
leveling = float(largest_curvature(8 / 1024, 1024) / largest_curvature(8 / 256, 256))
at_fixed_time.reveal(0 if grown < 1 else 1 if leveling < 1.5 else 2)
settings = [
    *((0.5, k) for k in (1, 4, 16)),
    *((8 / k, k) for k in (16, 64, 256, 1024)),
    *((1 / (8 * k), k) for k in (1, 16, 256)),
]
groups = ["α = 1/2"] * 3 + ["T = 8"] * 4 + ["T = 1/8"] * 3
measured = [(float(largest_curvature(a, k)), float(mean_loss_after(a, k))) for a, k in settings]
plots.table(
    {
        f"{group}, K = {k:,}".replace(" ", "\u00a0"): (
            f"1/{1 / a:,.0f}",
            {0.125: "1/8", 0.5: "1/2"}.get(a * k, f"{a * k:g}"),
            plots.number(float(f"{bend:.2g}"), 2),
            f"{left:.3f}",
        )
        for group, (a, k), (bend, left) in zip(groups, settings, measured, strict=True)
    },
    ("held fixed, and K", "α", "T", "largest curvature", "mean loss after adaptation"),
    title="At a fixed training time the curvature is bounded, however many steps are taken",
    caption="Twenty cosine tasks; the mean loss before adaptation is 1.",
)
bends, adapted = np.array(measured).T
assert 18 < grown < 21 and leveling < 1.3 and np.ptp(bends[7:]) < 0.01 < 0.1 < bends[7]
assert np.ptp(adapted[7:]) < 0.001 and adapted[9] > 0.93 and adapted[2] < 0.005
assert abs(mean_loss_after(0.5, 0) - 1) < 0.01

# %% tags=["fold"]
times = np.array([0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
bends, left = {}, {}
for name, rate in (("α = 1/8", 1 / 8), ("α = 1/32", 1 / 32), ("α = 1/128", 1 / 128)):
    counts = np.round(times / rate).astype(int)
    bends[name] = np.array([largest_curvature(rate, int(k)) for k in counts])
    left[name] = np.array([mean_loss_after(rate, int(k)) for k in counts])
spread = np.max(list(bends.values()), axis=0) / np.min(list(bends.values()), axis=0)
assert spread.max() < 2.6
assert bends["α = 1/128"][-1] > 1e6 * bends["α = 1/128"][0]
_q, _k = 1 + 0.5, np.array([1, 4, 16])
_bound = _q ** (2 * _k) + _q ** (2 * _k - 1) * (_q**_k - 1)  # L = rho = G = 1
assert all(largest_curvature(0.5, int(n)) <= limit for n, limit in zip(_k, _bound, strict=True))
figures.training_time(bends, left, times)

# %% [markdown]
# With $T = 8$ held fixed, 64 times as many steps raise the curvature about twentyfold, and the growth levels off,
# because $(1 + T/K)^{2K}$ tends to $e^{2T}$. That is little beside what the training time does: with $K = 256$ held
# fixed, 64 times the training time, from $T = \tfrac18$ to $T = 8$, raises the curvature by a factor of more than a
# million. So it is the training time that has to be bounded if $F$ is to stay smooth. Ji, Yang & Liang (2022) recommend
# an inner learning rate proportional to $1/(KL)$, which does just that: it fixes $LT$.
#
# The last column of the table shows the price. The training time also decides how far the inner loop adapts. With
# $\alpha = 1/(8K)$, and so $T = \tfrac18$, the curvature is small, but the loss hardly falls below that of no adaptation,
# however many steps are taken. With more and smaller steps at the same $T$, the inner loop follows ever more closely the
# *gradient flow* $\dot\varphi = -\nabla h(\varphi)$, which lesson 08 differentiates.

# %% [markdown]
# ## On paper: where the bound comes from
#
# On paper, about 15 minutes. The curvature of $F$ has a second term. For the single cosine task, with $\theta$
# at the top of its loss, it vanished, because the gradient is zero there. Take one parameter and one loss for support and query, so $f = h$, with
# $|h''| \le L$ and $|h'''| \le \rho$ everywhere. In one dimension the boxed equation reads
# $F'(\theta) = J_K\, h'(\varphi_K)$ with $J_k = \prod_{i<k} \big(1 - \alpha h''(\varphi_i)\big)$. Differentiate it once more,
# and derive the bound of Ji, Yang & Liang,
#
# $$|F''| \;\le\; L\,(1 + \alpha L)^{2K} + \frac{\rho}{L}\,(1 + \alpha L)^{2K-1}\big((1 + \alpha L)^K - 1\big)\,G$$
#
# with $G = |h'(\theta)|$.
#
# How does each term grow with $T$? Write your answer on paper, or into the next cell (a double click opens it). A model
# answer is folded below it.

# %% [markdown] tags=["free-text"] question="02.curvature_bound"
# ### BEGIN SOLUTION
# **Two terms.** $J_k$ is also $d\varphi_k / d\theta$ (line 3), so the product rule gives
#
# $$\begin{aligned}
# F'' &= J_K^2\, h''(\varphi_K) + J_K'\, h'(\varphi_K), \\
# J_K' &= -\alpha \sum_{k=0}^{K-1} h'''(\varphi_k)\, J_k \prod_{i \ne k} \big(1 - \alpha h''(\varphi_i)\big).
# \end{aligned}$$
#
# **First term.** Write $q = 1 + \alpha L$. Every factor is at most $q$ in absolute value, so $|J_k| \le q^k$, and
# $|J_K^2\, h''(\varphi_K)| \le L\, q^{2K}$.
#
# **The gradient at the end.** One step changes $h'$ by at most $L\,|\varphi_{k+1} - \varphi_k| = \alpha L\,|h'(\varphi_k)|$, so
# $|h'|$ grows by a factor of at most $q$ in each step, and $|h'(\varphi_K)| \le q^K G$.
#
# **Second term.** The product over $i \ne k$ has $K - 1$ factors. The geometric sum does the rest, since
# $q - 1 = \alpha L$:
#
# $$|J_K'| \le \alpha \rho\, q^{K-1} \sum_{k=0}^{K-1} q^k = \alpha \rho\, q^{K-1}\, \frac{q^K - 1}{\alpha L}
# = \frac{\rho}{L}\, q^{K-1} (q^K - 1).$$
#
# Times $q^K G$, this is the second term of the bound.
#
# **Growth.** Since $q^K \le e^{LT}$, the first term is at most $L e^{2LT}$, and the second is at most
# $\tfrac{\rho}{L} G\, e^{3LT}$. The second contains the gradient $G$, so the curvature of $F$ may grow with the
# gradient. That is the subject of lesson 06.
# ### END SOLUTION

# %% [markdown]
# ## What to take away
#
# - A good initialization is close to the solutions that are slow to reach.
# - The meta-gradient is the query gradient, backpropagated through one factor $(I - \alpha H_k)$ for each inner step, the last
#   step's factor first. Each Hessian is taken where its step begins.
# - The same backward pass gives the gradient with respect to the inner learning rate.
# - Trained on few tasks, MAML overfits to them like any other learner, which is called meta-overfitting.
# - Before adaptation MAML's initialization is one function for all tasks, so it cannot get below the floor. What MAML minimizes is
#   the loss after adaptation.
# - The inner training time $T = \alpha K$ governs how far the inner loop adapts, and the curvature of $F$ may grow with it
#   exponentially, in our example like $e^{2LT}$. At a fixed $T$, more and smaller steps follow the gradient flow more closely.

# %%
quiz("02")

# %%
progress("02")

# %% [markdown]
# ## Limits
#
# - The growth of curvature is a worst case, which losses with concave regions attain. Where all curvatures are positive and the
#   inner learning rate is below $1/L$, every factor shrinks a small change, and a long inner loop makes $F$ flat.
# - `jax.grad` stores the whole inner loop, so its memory grows with the number of inner steps. Lessons 04 and 05 avoid that.
# - A sine curve has two unknown numbers. The experiment shows how MAML works, and not that it is the best method for any
#   problem.
# - Except for the figure on meta-overfitting we trained each network from one seed only, and always for fewer outer steps than
#   Finn et al., whose published code takes 70,000. Lesson 07 compares methods with several seeds under a declared budget.
#
# ## Go further
#
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* ICML 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). The method, and the sine experiment (section 5.1).
# - A. Raghu, M. Raghu, S. Bengio, O. Vinyals. *Rapid learning or feature reuse? Towards understanding the effectiveness of
#   MAML.* ICLR 2020. [arXiv 1909.09157](https://arxiv.org/abs/1909.09157). ANIL; in the library it is `ml.inner.only`.
# - Z. Li, F. Zhou, F. Chen, H. Li. *Meta-SGD: learning to learn quickly for few-shot learning.* 2017.
#   [arXiv 1707.09835](https://arxiv.org/abs/1707.09835). An inner learning rate for each parameter, trained with the
#   initialization; in the library it is `ml.inner.learned_rates`.
# - A. Antoniou, H. Edwards, A. Storkey. *How to train your MAML.* ICLR 2019.
#   [arXiv 1810.09502](https://arxiv.org/abs/1810.09502). MAML++: instabilities of training, and remedies for them.
# - M. Yin, G. Tucker, M. Zhou, S. Levine, C. Finn. *Meta-learning without memorization.* ICLR 2020.
#   [arXiv 1912.03820](https://arxiv.org/abs/1912.03820). Meta-overfitting in which one function solves all training tasks, so
#   that the support set is ignored.
# - K. Ji, J. Yang, Y. Liang. *Theoretical convergence of multi-step model-agnostic meta-learning.* JMLR 23, 2022.
#   [arXiv 2002.07836](https://arxiv.org/abs/2002.07836). The bound, and inner learning rates proportional to $1/K$.
