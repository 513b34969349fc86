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
# - **count** what a meta-gradient costs, in gradients and in memory,
# - **derive** where FO-MAML and Reptile converge, and how much of the way to MAML that is,
# - **measure** how their error depends on the inner learning rate,
# - **write** a test that tells an exact meta-gradient from a plausible wrong one,
# - **implement** MAML without second derivatives.
#
# **New symbols**
#
# - $a$, $m$: curvature and minimum of a quadratic task
# - $J = \partial\varphi_K / \partial\theta$
# - $Hv$: Hessian-vector product

# %% tags=["imports"]
import collections  # this cell loads JAX and the course, which takes a few seconds

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_03 as figures

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## What does the backward pass cost?
#
# MAML takes $K$ inner steps, and then passes the query gradient back through $K$ factors. Lesson 02 derived
#
# $$\nabla F(\theta) = (I - \alpha H_0)\,(I - \alpha H_1) \cdots (I - \alpha H_{K-1})\, \nabla f(\varphi_K).$$
#
# Two cheaper methods leave the backward pass out. **FO-MAML** (first-order MAML) takes every factor to be the identity.
# **Reptile** does without the query set, and moves the initialization towards the adapted parameters. The
# outer loop takes a step against these directions:
#
# $$g_{\text{FO-MAML}} = \nabla f(\varphi_K), \qquad\qquad g_{\text{Reptile}} = \theta - \varphi_K .$$
#
# To see what each method costs, we write all three out for the sine curve of lesson 02, whose two parameters are its
# amplitude and its phase, and count every derivative that they take. No Hessian is ever formed for this. All that the
# backward pass needs is the **Hessian-vector product** $Hv$, which is the derivative of the gradient in the direction
# $v$. JAX computes it with `jax.jvp`, which returns the value of a function together with its derivative in a given
# direction.
#
# *Short of time? Skip the section "When support and query disagree" with the question after it, and the last exercise.*

# %%
jax.config.update("jax_enable_x64", True)  # float64, so that the checks can be strict


@jax.jit
def wave_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


distribution = ml.tasks.Sinusoid(num_support=5, num_query=5)
example = distribution.task(jax.random.key(3), amplitude=2.0, phase=1.0)
theta, alpha = jnp.array([1.0, 0.3]), 0.1

# %%
count = collections.Counter()


def gradient(phi, batch):
    count["gradients"] += 1
    return jax.grad(wave_loss)(phi, batch)


def hessian_vector_product(phi, batch, vector):
    count["products"] += 1
    return jax.jvp(lambda phi: jax.grad(wave_loss)(phi, batch), (phi,), (vector,))[1]


def inner_loop(theta, task, num_steps):
    """[φ_0, ..., φ_K]"""
    phis = [theta]
    for _ in range(num_steps):
        phis.append(phis[-1] - alpha * gradient(phis[-1], task.support))
    return phis


# %%
def maml(theta, task, num_steps):
    phis = inner_loop(theta, task, num_steps)
    v = gradient(phis[-1], task.query)
    for phi in reversed(phis[:-1]):
        v = v - alpha * hessian_vector_product(phi, task.support, v)
    return v


def fo_maml(theta, task, num_steps):
    return gradient(inner_loop(theta, task, num_steps)[-1], task.query)


def reptile(theta, task, num_steps):
    return theta - inner_loop(theta, task, num_steps)[-1]


# %% [markdown]
# A Hessian-vector product costs about as much as two gradients, which makes the counts comparable.

# %%
cost_prediction = predict("03.cost")


# %%
def cost(method, num_steps):
    count.clear()
    method(theta, example, num_steps)
    return count["gradients"] + 2 * count["products"]


cost_prediction.reveal(cost(maml, 100) / cost(fo_maml, 100))

# %% tags=["fold"]
_rows = {}
for _name, _method, _kept in (("MAML", maml, 5), ("FO-MAML", fo_maml, 0), ("Reptile", reptile, 0)):
    count.clear()
    _direction = _method(theta, example, 5)
    _library = getattr(ml, _method.__name__)(wave_loss, optax.sgd(alpha), 5)(theta, example)[1]
    assert jnp.allclose(_direction, _library)
    _rows[_name] = (count["gradients"], count["products"], cost(_method, 5), _kept)
assert [row[2] for row in _rows.values()] == [16, 6, 5]
assert len(inner_loop(theta, example, 5)[:-1]) == _rows["MAML"][3]
plots.table(
    _rows,
    ("", "gradients", "Hessian-vector products", "cost in gradients", "parameters to keep"),
    title="The backward pass is the larger part of MAML's cost",
    caption="One meta-gradient with K = 5 inner steps. The last column counts the inner steps whose parameters the backward pass needs.",
)

# %% [markdown]
# MAML also pays in memory, because the backward pass visits the parameters of every inner step in reverse order, so all
# of them must be kept. FO-MAML and Reptile need only the current $\varphi_k$.
#
# Why, then, would anyone use MAML? The answer lies in where the cheaper methods converge.

# %% [markdown]
# ## Where do the approximations converge?
#
# Take the two tasks of lesson 02 again. The loss of each is a parabola with curvature $a$ and minimum $m$, a steep one
# with its minimum at $-1$ and a flat one with its minimum at $2$. Support and query loss are the same. Both tasks take
# one inner step with $\alpha = 0.3$. Four outer loops run until they have converged, one for each of the three methods
# and one for joint training, which lowers the mean loss without adaptation.

# %%
converged_prediction = predict("03.convergence")

# %%
curvature = np.array([3.0, 0.5])  # of the steep and the flat task
minimum = np.array([-1.0, 2.0])


def directions(theta, alpha, num_steps):
    """Each method's direction on both tasks, from its definition."""
    phi = theta
    for _ in range(num_steps):
        phi = phi - alpha * curvature * (phi - minimum)
    query_gradient = curvature * (phi - minimum)
    return {
        "joint": curvature * (theta - minimum),
        "Reptile": theta - phi,
        "FO-MAML": query_gradient,
        "MAML": (1 - alpha * curvature) ** num_steps * query_gradient,
    }


# %%
converged = {}
for name in ("joint", "Reptile", "FO-MAML", "MAML"):
    theta_1d = 0.5
    for _ in range(2_000):
        theta_1d = theta_1d - 0.1 * directions(theta_1d, 0.3, 1)[name].mean()
    converged[name] = theta_1d

# %% tags=["fold"]
assert converged["joint"] < converged["FO-MAML"] - 0.5 < converged["MAML"] - 0.5
assert np.isclose(converged["joint"], converged["Reptile"]) and 1.7 < converged["MAML"] < 1.85
assert -0.65 < converged["joint"] < -0.55
_distances = [abs(converged["Reptile"] - converged[other]) for other in ("joint", "MAML")]
converged_prediction.reveal(0 if _distances[0] < 0.05 else 2 if _distances[1] < 0.05 else 1)
figures.converged_points(converged)

# %% [markdown]
# MAML converges to the minimum of the curve. FO-MAML stops between MAML and joint training, and with a single inner
# step Reptile stops exactly where joint training does. None of this is a matter of too few outer steps: the directions
# of the two tasks cancel at these points. The next section finds them in closed form.

# %% [markdown]
# ## Every method finds a weighted mean
#
# **Line 1, the inner loop.** Each inner step multiplies the displacement from the minimum by $1 - \alpha a$. After $K$ steps,
#
# $$\varphi_K - m = J\,(\theta - m), \qquad J = (1 - \alpha a)^K .$$
#
# **Line 2, the direction.** The query gradient is $a\,(\varphi_K - m)$. MAML passes it back through $K$ factors
# $1 - \alpha a$, whose product is $J$ again. So MAML's direction is a weight $w$ times the displacement $\theta - m$:
#
# $$g_{\text{MAML}} = J \cdot a\,(\varphi_K - m) = \underbrace{a J^2}_{w}\,(\theta - m).$$

# %% tags=["nbval-check-output"]
theta_1d, num_steps = 0.5, 4
J = (1 - 0.3 * curvature) ** num_steps
maml_direction = directions(theta_1d, 0.3, num_steps)["MAML"]
assert np.allclose(maml_direction, curvature * J**2 * (theta_1d - minimum))
print("lines 1 and 2 hold")

# %% [markdown]
# **Line 3, the point.** The outer loop has converged when the directions of all tasks cancel, which happens at a
# weighted mean of their minima:
#
# $$\sum_i w_i\,(\theta - m_i) = 0 \quad\Longleftrightarrow\quad \boxed{\theta = \frac{\sum_i w_i\, m_i}{\sum_i w_i}}$$
#
# FO-MAML and Reptile find a weighted mean too. Their weights are yours to derive.

# %% [markdown]
# ## Exercise: where each method converges
#
# Do for FO-MAML and Reptile what line 2 does for MAML, and put all three weights into line 3.


# %% tags=["exercise"] exercise="03.fixed_points"
def fixed_points(curvature, minimum, learning_rate, num_steps):
    """The points to which MAML, FO-MAML and Reptile converge on
    one-dimensional quadratic tasks; support and query loss are the same.

    Args:
      curvature: array of shape [num_tasks], positive.
      minimum: array of shape [num_tasks].
      learning_rate: α, with α · curvature < 1.
      num_steps: K, a whole number of at least 1.

    Returns:
      An array of shape [3]: MAML, FO-MAML, Reptile.
    """
    ### BEGIN SOLUTION
    factor = (1 - learning_rate * curvature) ** num_steps
    weights = np.array([curvature * factor**2, curvature * factor, 1 - factor])
    return weights @ minimum / weights.sum(axis=1)
    ### END SOLUTION


# %%
check("03.fixed_points", fixed_points)

# %% [markdown]
# The methods agree about everything except the weights. Joint training weights a task by its curvature, so a steep task
# counts most. Each factor $J$ in a weight is small for a task that adaptation nearly solves and close to 1 for one that
# it hardly changes. As long as $\alpha a < 1$, so that no inner step jumps across a minimum, every such factor shifts
# weight from the steep tasks to the flat ones. FO-MAML has one of them and MAML two.
#
# What about Reptile? The displacement $\theta - \varphi_K$ is $\alpha$ times the sum of the $K$ support gradients of the
# inner loop. Where support and query loss are the same, the gradient at $\varphi_k$ is exactly the direction of FO-MAML
# with $k$ inner steps. **Up to a constant, Reptile's direction is the mean of FO-MAML's directions with
# $0, 1, \dots, K-1$ inner steps.** The first of these is the direction of joint training.

# %% tags=["fold"]
figures.reptile_as_mean()
_along = [directions(0.5, 0.3, k)["FO-MAML"] for k in range(4)]
assert np.allclose(directions(0.5, 0.3, 4)["Reptile"], 0.3 * np.sum(_along, axis=0))
assert np.allclose(_along[0], directions(0.5, 0.3, 0)["joint"])

# %% [markdown]
# So with one inner step Reptile *is* joint training. With more of them, and with two tasks, it converges between joint
# training and FO-MAML. The next figure shows this for two tasks, of which one becomes steeper and steeper.

# %% tags=["fold"]
figures.order_of_methods()
_rng = np.random.default_rng(0)
for _ in range(2_000):
    _a = np.sort(_rng.uniform(0.1, 3.0, 2))[::-1]  # the steep task first
    _at = figures.converged(_rng.uniform(0.01, 0.33), _rng.integers(1, 12), _a, np.array([0.0, 1.0]))
    assert (np.diff([_at[name] for name in ("joint", "Reptile", "FO-MAML", "MAML")]) > -1e-9).all()
_equal = figures.converged(0.3, 3, np.array([0.5, 0.5]), np.array([0.0, 1.0]))
assert np.allclose(list(_equal.values()), 0.5)

# %% [markdown]
# Where both curvatures are equal, every method finds the plain mean and the approximation costs nothing. As they grow
# apart, joint training moves to the steep task and MAML to the flat one. From the steep task to the flat one the order
# stays the same: joint training, Reptile, FO-MAML, MAML. This holds for any two tasks with $\alpha a < 1$.
#
# Move the sliders. **With one inner step, for which learning rates do FO-MAML and MAML agree?** There are two answers.

# %%
rates = (1 / 60, 0.334, 1 / 60, 0.3)
explore(figures.explored, figures.SEEN, learning_rate=rates, inner_steps=(1, 10, 1))

# %% tags=["fold"]
_gaps = {a: figures.converged(a, 1)["MAML"] - figures.converged(a, 1)["FO-MAML"] for a in (0.005, 0.3, 1 / 3)}
assert _gaps[0.005] < 0.05 and _gaps[1 / 3] < 1e-9 and _gaps[0.3] > 1

# %% [markdown]
# They nearly agree when $\alpha$ is tiny, because then hardly anything adapts, every $J$ is close to 1, and both
# weights are close to the curvature. They also agree at $\alpha = 1/3$, because there one step solves the steep task
# and its weight is zero for both. In between they can be far apart.
#
# **Your own tasks.** The order is certain only for two tasks. Change the three tasks below until FO-MAML converges
# *outside* the interval between joint training and MAML. Keep every curvature between 0 and $1/\alpha$, about 3.3.

# %%
my_curvatures, my_minima = np.array([3.0, 1.0, 0.3]), np.array([-1.0, 0.5, 2.0])
figures.own_tasks(my_curvatures, my_minima, learning_rate=0.3, num_steps=2)

# %% [markdown]
# <details><summary>Three tasks that do it</summary>
#
# `np.array([3.0, 1.0, 0.3])` with the minima `np.array([2.0, -1.0, 4.0])`. The first factor $J$ takes weight from the
# steep task, which moves the point down towards the middle one. The second factor takes weight from the middle task
# too, which moves the point up again.
#
# </details>

# %% tags=["fold"]
_at = figures.converged(0.3, 2, np.array([3.0, 1.0, 0.3]), np.array([2.0, -1.0, 4.0]))
assert _at["FO-MAML"] < min(_at["joint"], _at["MAML"]) - 0.5

# %% [markdown]
# ## How much of the way to MAML?
#
# As long as the inner learning rate is small, we can say for any number of tasks how far FO-MAML and Reptile go on the
# way from joint training's point to MAML's.

# %%
half_way_prediction = predict("03.half_way")

# %%
rng = np.random.default_rng(0)
many_curvatures, many_minima = rng.uniform(0.2, 2.0, 20), rng.normal(0.0, 2.0, 20)
rates = 10.0 ** np.linspace(-3.5, -1.5, 24)
fractions = figures.fraction_of_the_way(rates, many_curvatures, many_minima)

# %% tags=["fold"]
half_way_prediction.reveal(int(np.abs(fractions["FO-MAML, K = 5"][0] - np.array([0, 0.25, 0.5, 0.75])).argmin()))
for _name, _limit in (("FO-MAML, K = 5", 1 / 2), ("Reptile, K = 2", 1 / 8), ("Reptile, K = 5", 1 / 5)):
    assert abs(fractions[_name][0] - _limit) < 2e-3
assert 0.23 < fractions["Reptile, K = 20"][0] < 0.25
figures.way_to_maml(rates, fractions)

# %% [markdown]
# For small inner learning rates FO-MAML covers half of the way from joint training to MAML, whatever the tasks are, as
# long as these two converge to different points.
# Reptile covers more of it the more inner steps it takes, but never more than a quarter. Nichol, Achiam and Schulman (2018)
# derived the coefficients behind these fractions for general losses, by expanding the three expected gradients in
# $\alpha$. On quadratic tasks the derivation is short.
#
# **Line 1, one factor.** For small $\alpha$, $J = (1 - \alpha a)^K = 1 - \alpha K a + O(\alpha^2)$.
#
# **Line 2, MAML's weight.** Hence $a J^2 = a\,(1 - c\,a) + O(\alpha^2)$ with $c = 2 \alpha K$. Joint training has
# $c = 0$.
#
# Every weight has this form, up to a constant in front that does not change the weighted mean. Since $c$ is small, the
# point moves in proportion to it: $\theta = \theta_{\text{joint}} + c\,D + O(\alpha^2)$, where $D$ is the derivative of
# the weighted mean with respect to $c$, at $c = 0$. It depends on the tasks and not on the method. So the fraction of the way is a method's $c$, divided by MAML's.

# %% [markdown]
# ## Exercise: how much of the way to MAML?
#
# **Line 3** is yours: bring the weights of FO-MAML and Reptile into the form $a\,(1 - c\,a)$, and compare their $c$
# with MAML's.


# %% tags=["exercise"] exercise="03.small_steps"
def small_step_fractions(num_steps):
    """How much of the way from joint training to MAML the other two
    methods cover, in the limit of a small inner learning rate.

    Args:
      num_steps: K, a whole number of at least 1.

    Returns:
      An array of shape [2]: the fractions for FO-MAML and for Reptile.
    """
    ### BEGIN SOLUTION
    return np.array([1 / 2, (num_steps - 1) / (4 * num_steps)])
    ### END SOLUTION


# %%
check("03.small_steps", small_step_fractions)

# %% [markdown]
# <details><summary>Why the result is plausible</summary>
#
# On average Reptile uses FO-MAML's directions with $(K-1)/2$ inner steps. This is about half as many as FO-MAML takes,
# so Reptile comes about half as far.
#
# </details>

# %% [markdown]
# **Your own task distribution.** The theory says "whatever the tasks are". Test it on yours: paste your `my_task` from
# lesson 01 over the one below, or keep the one below if you have none. The course takes twenty of your tasks. The
# model is now a straight line, and all points of a task are both its support set and its query set. Each loss is then
# quadratic in intercept and slope, and the points to which the methods converge are known.
#
# These points have two coordinates, and need not lie on one line. So the measurement is yours to write: `way` returns
# how far `point` has come from `joint` towards `maml`, as a fraction. If `point` lies beside the straight line from
# `joint` to `maml`, project it onto that line first. The last line measures with it how far FO-MAML and Reptile come, with $K = 3$ and with a small
# and a large $\alpha$. Which two fractions do you expect for the small one?


# %% tags=["yours"]
def my_task(key):
    """A random task: ten support and ten query points of one curve."""
    slope_key, offset_key, x_key = jax.random.split(key, 3)
    slope = jax.random.uniform(slope_key, maxval=2.0)
    offset = jax.random.normal(offset_key)
    x = jax.random.uniform(x_key, (20, 1), minval=-5.0, maxval=5.0)
    y = slope * x + offset
    return ml.Task(support=(x[:10], y[:10]), query=(x[10:], y[10:]))


def way(point, joint, maml):
    """0 at joint, 1 at maml; each is an array of shape [2]."""
    return None  # your measurement


status = figures.own_way(my_task, way)

# %% [markdown]
# <details><summary>A measurement</summary>
#
# Project `point - joint` on the way: with `along = maml - joint`, return `(point - joint) @ along / (along @ along)`.
# For a small $\alpha$ and $K = 3$ the fractions are $\tfrac12$ and $\tfrac{K-1}{4K} = \tfrac16$, whatever the tasks are,
# as long as joint training and MAML converge to different points. For a large $\alpha$ they depend on the tasks.
#
# </details>

# %% tags=["fold"]
_at = figures.own_points(figures.own.lines, figures.OWN_RATES[0])
_parts = [figures.part_of_the_way(_at[name], _at["joint"], _at["MAML"]) for name in ("FO-MAML", "Reptile")]
assert np.allclose(_parts, [1 / 2, 1 / 6], atol=0.01)

# %% [markdown]
# ## When support and query disagree
#
# So far both losses of a task were the same. Now we take twenty tasks in five dimensions whose query losses differ from
# their support losses. Where a method has converged, MAML's exact meta-gradient need not vanish. Its norm there tells
# how wrong the point is, so we take it as the method's **error**. On quadratic tasks the meta-gradient has a closed
# form, which `ml.theory.unrolled` computes. The point to which FO-MAML or Reptile converges is the solution $\theta$ of
# a linear system, where $f_i$ is the query loss of task $i$ and $\varphi_{K,i}$ its adapted parameters:
#
# $$\text{FO-MAML:}\;\; \sum_i \nabla f_i(\varphi_{K,i}) = 0, \qquad\qquad
# \text{Reptile:}\;\; \sum_i (\theta - \varphi_{K,i}) = 0 .$$

# %%
halved_prediction = predict("03.halved")

# %%
tasks = ml.tasks.Quadratic(dim=5)(jax.random.key(0), 20)
learning_rates = 0.4 / 2.0 ** np.arange(6)
norms = {"MAML": [], "FO-MAML": [], "Reptile": []}
for rate in learning_rates:
    exact = ml.theory.unrolled(tasks, rate, num_steps=3)
    points = figures.converged_in_many_dimensions(tasks, rate, num_steps=3)
    for name, point in points.items():
        norms[name].append(np.linalg.norm(exact.meta_gradient(point)))

# %% tags=["fold"]
_ratio = norms["FO-MAML"][-2] / norms["FO-MAML"][-1]
halved_prediction.reveal(int(np.abs(np.log2(_ratio) - np.arange(3)).argmin()))
_slope = np.polyfit(np.log(learning_rates[2:]), np.log(norms["FO-MAML"][2:]), 1)[0]
assert 0.9 < _slope < 1.1 and max(norms["MAML"]) < 1e-12 and norms["Reptile"][-1] > norms["Reptile"][0]
_learner = ml.meta_learner(ml.fo_maml(ml.tasks.Quadratic.loss, optax.sgd(0.3), 3), optax.sgd(0.5))
_trained = ml.fit(
    _learner, jnp.zeros(5), lambda key, n: tasks, 1_000, 20, jax.random.key(1), progress=False
)  # the linear system is where training ends
assert np.allclose(_trained.params, figures.converged_in_many_dimensions(tasks, 0.3, 3)["FO-MAML"], atol=1e-6)
figures.errors(learning_rates, norms)

# %% [markdown]
# For small $\alpha$, FO-MAML's error is proportional to $\alpha$, because each factor that it leaves out differs from
# the identity by $\alpha H_k$. A smaller inner learning rate makes it more accurate, at the price of less adaptation.
# MAML's own error is zero up to rounding, so the figure leaves it out.
#
# Reptile's error does not go away, and it even grows as $\alpha$ shrinks. In this limit MAML and FO-MAML become joint
# training on the *query* losses, while Reptile becomes joint training on the *support* losses. Reptile never uses the
# query set, so it cannot know that the query minima are elsewhere.

# %% [markdown]
# ## Question: why is FO-MAML's error proportional to α?
#
# On paper, about 10 minutes. Go back to one dimension, with $M$ tasks whose support and query loss are the same:
# curvature $a_i$, minimum $m_i$, $J_i = (1 - \alpha a_i)^K$. Let $F$ be the mean of their meta-objectives, and $\theta$
# the point to which FO-MAML converges.
#
# 1. Show that $F'(\theta) = \frac1M \sum_i (J_i - b)\, a_i J_i\, (\theta - m_i)$ there, for *every* number $b$.
# 2. Choose $b$ to show that $F'(\theta) = 0$ if all curvatures are equal.
# 3. Choose another $b$ to show that $F'(\theta)$ is proportional to $\alpha$ when $\alpha$ is small. What is the
#    factor?
#
# Write your answer on paper, or into the next cell (a double click opens it). A model answer is folded below it.

# %% [markdown] tags=["free-text"] question="03.proportional"
# ### BEGIN SOLUTION
# **1.** MAML's weight is $a_i J_i^2$, so $F'(\theta) = \frac1M \sum_i J_i \cdot a_i J_i\,(\theta - m_i)$. FO-MAML
# converges where $\frac1M \sum_i a_i J_i\,(\theta - m_i) = 0$. Subtract $b$ times the second equation from the first.
#
# **2.** If all curvatures are equal, all $J_i$ are the same number. With $b = J_i$ every term is zero.
#
# **3.** Take $b = 1$, since $J_i - 1 = -\alpha K a_i + O(\alpha^2)$. The other factors are then needed only at
# $\alpha = 0$, where $J_i = 1$ and FO-MAML converges to joint training's point
# $\theta_0 = \sum_i a_i m_i / \sum_i a_i$. The point depends smoothly on $\alpha$, so it differs from $\theta_0$ by
# $O(\alpha)$. Hence
#
# $$F'(\theta) = -\alpha K \cdot \frac1M \sum_i a_i^2\, (\theta_0 - m_i) + O(\alpha^2).$$
#
# The factor of $\alpha$ vanishes when all curvatures are equal, as it must. Otherwise it rarely does.
# ### END SOLUTION

# %% tags=["fold"]
_a, _m, _rate = many_curvatures, many_minima, 1e-5
_joint = (_a * _m).sum() / _a.sum()
_found = (_a * (1 - _rate * _a) ** 6 * (figures.converged(_rate, 3, _a, _m)["FO-MAML"] - _m)).mean()
assert np.isclose(_found, -_rate * 3 * (_a**2 * (_joint - _m)).mean(), rtol=1e-3)

# %% [markdown]
# ## Which gradient does this code compute?
#
# A first-order gradient is not always intended. Here are three pieces of code that are meant to compute MAML's exact
# meta-gradient. Each contains a mistake that is easily made. All three run without an error, and on
# our example a small step *against* any of them lowers the loss after adaptation.


# %%
def sgd_step(params, gradient, learning_rate):
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)


def candidate_a(loss, task, params, learning_rate, num_steps):
    adapted = params
    for _ in range(num_steps):
        gradient = jax.grad(loss)(adapted, task.support)
        adapted = sgd_step(adapted, gradient, learning_rate)
    return jax.grad(loss)(adapted, task.query)


# %%
def candidate_b(loss, task, params, learning_rate, num_steps):
    def query_loss(initialization):
        adapted = initialization
        for _ in range(num_steps):
            gradient = jax.grad(loss)(initialization, task.support)
            adapted = sgd_step(adapted, gradient, learning_rate)
        return loss(adapted, task.query)

    return jax.grad(query_loss)(params)


# %%
def candidate_c(loss, task, params, learning_rate, num_steps):
    def step(params):
        gradient = jax.grad(loss)(params, task.support)
        return sgd_step(params, gradient, learning_rate)

    for _ in range(num_steps - 1):
        params = step(params)
    return jax.grad(lambda params: loss(step(params), task.query))(params)


# %% [markdown]
# Before you look at numbers, find the mistake in each.

# %%
candidates_prediction = predict("03.suspects")

# %% tags=["fold"]
_rows, _agrees = {}, {}
for _name, _candidate in (("exact", None), ("A", candidate_a), ("B", candidate_b), ("C", candidate_c)):
    _cells = []
    for _steps in (1, 3):
        _exact = ml.maml(wave_loss, optax.sgd(0.1), _steps)(theta, example)[1]
        _found = _candidate(wave_loss, example, theta, 0.1, _steps) if _candidate else _exact
        assert jnp.vdot(_found, _exact) > 0  # a small step against it lowers the loss after adaptation
        _agrees[_name, _steps] = bool(jnp.allclose(_found, _exact))
        _cells.append("(" + ", ".join(plots.number(float(number), 4) for number in _found) + ")")
    _rows[_name] = _cells
_right = "".join(name for name in "ABC" if _agrees[name, 1])
candidates_prediction.reveal({"": 0, "B": 1, "BC": 2, "ABC": 3}[_right])
assert not any(_agrees[name, 3] for name in "ABC")
plots.table(
    _rows,
    ("", "K = 1", "K = 3"),
    title="With three inner steps none of the candidates is right",
    caption="The meta-gradient of the sine wave's loss, and what the candidates compute.",
)

# %% [markdown]
# <details><summary>The mistake in each</summary>
#
# **A** differentiates the query loss at the adapted parameters and leaves out every factor, so it is FO-MAML. **B** takes
# every support gradient at the initialization instead of where the inner loop has arrived, so its $K$ steps are one step
# with the learning rate $K\alpha$. **C** differentiates with respect to the parameters before the last step, so it leaves
# out every factor but the last step's.
#
# </details>

# %% [markdown]
# ## Exercise: write the test
#
# Write a test that tells whether a candidate computes the exact meta-gradient. The check tries it on right ones, on A,
# B and C, and on seven more wrong ones that you do not see. The inner learning rate, the number of inner steps and the
# way in which you find the right answer are yours to choose.


# %% tags=["exercise"] exercise="03.write_the_test"
def is_exact(candidate, loss, task, params):
    """Whether a candidate computes the exact meta-gradient.

    Args:
      candidate: function of (loss, task, params, learning_rate,
        num_steps) that returns an array like `params`.
      loss: function of (params, batch) that returns a scalar, such as
        `wave_loss`.
      task: a pair with task.support and task.query, such as `example`.
      params: the initialization, an array of shape [d].

    Returns:
      True or False.
    """

    ### BEGIN SOLUTION
    def query_loss(phi):
        for _ in range(3):
            phi = phi - 0.1 * jax.grad(loss)(phi, task.support)
        return loss(phi, task.query)

    found = candidate(loss, task, params, 0.1, 3)
    return bool(jnp.allclose(found, jax.grad(query_loss)(params)))
    ### END SOLUTION


# %%
check("03.write_the_test", is_exact)

# %% [markdown]
# A good test needs four things: several inner steps, a support set that differs from the query set, a loss whose
# Hessian changes, and a second way to compute *all* numbers of the gradient. The gradients of `metalearn` are tested in
# this way too.

# %% [markdown]
# ## MAML without second derivatives
#
# Can we get MAML's meta-gradient from gradients alone? With one inner step it is $v - \alpha H v$, with $v = \nabla
# f(\varphi_1)$ and $H$ at the initialization. The product $Hv$ says how the support gradient changes in the direction $v$.
# So we may take two support gradients, one a little ahead and one a little behind, and divide their difference by
# $2 \varepsilon$:
#
# $$H v \approx \frac{\nabla h(\theta + \varepsilon v) - \nabla h(\theta - \varepsilon v)}{2 \varepsilon}.$$
#
# This is **HF-MAML**, Hessian-free MAML (Fallah, Mokhtari and Ozdaglar, 2020). It leaves one question open: how small
# should $\varepsilon$ be?

# %%
epsilon_prediction = predict("03.epsilon")

# %%
v = fo_maml(theta, example, 1)
product = hessian_vector_product(theta, example.support, v)
epsilons = 10.0 ** np.arange(-1, -8, -0.25)


@jax.jit
def difference(epsilon, theta, v, batch):
    ahead = jax.grad(wave_loss)(theta + epsilon * v, batch)
    behind = jax.grad(wave_loss)(theta - epsilon * v, batch)
    return (ahead - behind) / (2 * epsilon)


def relative_errors(dtype):
    inputs = jax.tree.map(lambda x: jnp.asarray(x, dtype), (theta, v, example.support))
    found = [difference(jnp.asarray(e, dtype), *inputs) for e in epsilons]
    error = np.linalg.norm(np.array(found, np.float64) - product, axis=1)
    return error / np.linalg.norm(product)


float64, float32 = relative_errors(jnp.float64), relative_errors(jnp.float32)

# %% tags=["fold"]
epsilon_prediction.reveal(int(np.argmin(float32[[4, 12, 20]])))  # 0.01, 0.0001, 0.000001
_order = np.log10(float64[0] / float64[8]) / 2  # from 0.1 to 0.001
assert 1.9 < _order < 2.1 and float32[-1] > 100 * float32.min() and float32[4] < float32[0] < float32[20]
figures.difference_errors(epsilons, float64, float32)

# %% [markdown]
# From right to left the error falls like $\varepsilon^2$ at first. Then it rises again, because the two gradients become
# so similar that their difference is mostly rounding. In float32, a hundredth is much better than a millionth. Remember
# this V: it returns in lesson 05.

# %% [markdown]
# ## Exercise: MAML without second derivatives
#
# Write HF-MAML's whole meta-gradient for one inner step. It needs four gradients and nothing else.


# %% tags=["exercise"] exercise="03.hessian_free"
def hessian_free(loss, task, params, learning_rate, epsilon):
    """HF-MAML's gradient for one inner step.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query.
      params: the initialization, any pytree of arrays.
      learning_rate: α, of the inner step.
      epsilon: how far to go along v on each side, a number.

    Returns:
      A pytree with the structure and shapes of `params`.
    """

    ### BEGIN SOLUTION
    def move(phi, vector, distance):
        return jax.tree.map(lambda p, d: p + distance * d, phi, vector)

    def gradient(phi):
        return jax.grad(loss)(phi, task.support)

    phi = move(params, gradient(params), -learning_rate)
    v = jax.grad(loss)(phi, task.query)
    ahead, behind = gradient(move(params, v, epsilon)), gradient(move(params, v, -epsilon))
    return jax.tree.map(lambda v, a, b: v - learning_rate * (a - b) / (2 * epsilon), v, ahead, behind)
    ### END SOLUTION


# %%
check("03.hessian_free", hessian_free)

# %% [markdown]
# HF-MAML takes four gradients for one inner step, which is as many as MAML by our count. What it saves is the second
# derivative itself, so it works with any code that returns gradients.

# %% [markdown]
# ## Does it matter in practice?
#
# We train the same network on sine curves with each of the three methods, for 4,000 outer steps with Adam. The inner
# loop takes five steps with $\alpha = 0.01$. A direction whose norm exceeds 1 is shortened to norm 1 before Adam sees
# it. This is called *clipping*, and it keeps a few huge meta-gradients from spoiling the beginning of MAML's training;
# lesson 06 explains where they come from. Afterwards all three initializations adapt to the same 1,000 new tasks. We
# compare medians, because a few tasks on which the inner loop diverges would dominate a mean. In the three bars below,
# one for each method, the query loss is such a mean, and can be huge.

# %%
jax.config.update("jax_enable_x64", False)  # training runs in float32
jax.clear_caches()  # frees the memory of the programs in float64

practice_prediction = predict("03.practice")

# %%
sines = ml.tasks.Sinusoid(num_support=10, num_query=10)
network = ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0))
random_params, apply = ml.models.functional(network)
loss, inner = ml.losses.mean_squared_error(apply), optax.sgd(0.01)
unseen = sines(jax.random.key(2), 1_000)

clipped_adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
methods, curves = {"MAML": ml.maml, "FO-MAML": ml.fo_maml, "Reptile": ml.reptile}, {}
for name, method in methods.items():
    learner = ml.meta_learner(method(loss, inner, 5), clipped_adam)
    run = ml.fit(learner, random_params, sines, 4_000, 25, jax.random.key(0))
    curves[name] = ml.evaluate.adaptation_curve(loss, inner, run.params, unseen, 5)

# %% tags=["fold"]
curves = {name: np.nan_to_num(curve, nan=np.inf) for name, curve in curves.items()}  # diverged counts as worst
_before, _after = ({name: float(np.median(curve[k])) for name, curve in curves.items()} for k in (0, 5))
_ratio = _after["FO-MAML"] / _after["MAML"]
practice_prediction.reveal(0 if _ratio < 1 else 1 if _ratio <= 1.25 else 2)
_behind = {name: float((curves[name][5] > curves["MAML"][5]).mean()) for name in ("FO-MAML", "Reptile")}
assert all(_after[name] < _before[name] / 2 for name in curves)  # all three learn to adapt
assert min(_behind.values()) > 0.5 and _after["MAML"] < min(_after["FO-MAML"], _after["Reptile"])
plots.table(
    {
        name: (f"{_after[name]:.3f}", f"{_behind[name]:.0%}".replace("%", " %") if name in _behind else "–")
        for name in curves
    },
    ("", "median query loss", "tasks on which MAML's loss is lower"),
    title="MAML is ahead of both approximations",
    caption="After five inner steps on 1,000 new tasks.",
)
figures.practice(curves)

# %% [markdown]
# All three learn to adapt. FO-MAML and Reptile each have a higher loss than MAML on most of the new tasks.
# Reptile is not worse than FO-MAML here, although FO-MAML was closer to MAML above. One reason may be that support and
# query points lie on the same curve, so it costs Reptile little that it never uses the query set. Both approximations are
# cheaper than MAML, and how much is lost by converging elsewhere depends on the tasks.

# %% [markdown]
# ## What to take away
#
# - With many inner steps MAML costs about three times as much as FO-MAML, and it needs memory for the whole inner loop.
# - On one-dimensional quadratic tasks whose support and query loss are the same, with $\alpha a < 1$, every method converges
#   to a weighted mean of the minima, and only the weights differ.
# - For small inner learning rates and equal support and query losses, FO-MAML covers half of the way from joint training
#   to MAML, and Reptile at most a quarter.
# - For small inner learning rates FO-MAML's error is proportional to the learning rate. Reptile's error does not vanish
#   when support and query disagree.
# - A wrong meta-gradient can still lower the loss. A comparison with a second way to compute it, over several inner
#   steps, exposes the mistake.

# %%
quiz("03")

# %%
progress("03")

# %% [markdown]
# ## Limits
#
# - The closed forms hold for quadratic tasks, on which an outer loop has a single limit. With a network there are many,
#   and where a method ends depends on its whole run.
# - The fractions of the way hold for small inner learning rates. With large ones and three or more tasks, FO-MAML can
#   converge outside the interval between joint training and MAML.
# - We gave Reptile one support set and full gradient steps. Nichol et al. use a fresh minibatch in each inner step.
# - HF-MAML with several inner steps still passes backwards through all of them, so it needs the memory that MAML needs.
# - The last experiment trains each method once, with one network and one inner learning rate, and gives all of them
#   the same number of outer steps, of which MAML's are the most expensive. Lesson 07 compares methods under one budget.
#
# ## Go further
#
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* ICML 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). MAML and FO-MAML.
# - A. Nichol, J. Achiam, J. Schulman. *On first-order meta-learning algorithms.* 2018.
#   [arXiv 1803.02999](https://arxiv.org/abs/1803.02999). Reptile, and the expansion for small inner learning rates.
# - A. Fallah, A. Mokhtari, A. Ozdaglar. *On the convergence theory of gradient-based model-agnostic meta-learning
#   algorithms.* AISTATS 2020. [arXiv 1908.10400](https://arxiv.org/abs/1908.10400). The error of FO-MAML, and HF-MAML.
