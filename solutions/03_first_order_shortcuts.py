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
# - **count** what a meta-gradient costs,
# - **derive** the point at which each shortcut comes to rest,
# - **measure** how its error depends on the inner step,
# - **recognise** which gradient a piece of code computes, and repair it,
# - **implement** MAML without a second derivative.
#
# **New symbols**
#
# - $A$: Hessian of $f$
# - $J = \partial\phi_K / \partial\theta$

# %% tags=["imports"]
import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## What does the exact gradient cost?
#
# MAML walks $K$ inner steps. Then it carries the query gradient back through $K$ factors:
#
# $$\nabla F(\theta) = (I - \alpha H_0)\,(I - \alpha H_1) \cdots (I - \alpha H_{K-1})\, \nabla f(\phi_K).$$
#
# Two shortcuts leave the way back out. **FO-MAML** (first-order MAML) pretends that every factor is $I$.
# **Reptile** does not ask the query set at all: it moves the start towards where adaptation ends.
#
# $$g_{\text{FO}} = \nabla f(\phi_K), \qquad\qquad g_{\text{Reptile}} = \theta - \phi_K .$$
#
# Below, each method is written out for one curve of lesson 00, and every derivative that it takes is counted.
# No Hessian matrix is ever formed: a *Hessian-vector product* $H v$ is the derivative of the gradient in one direction.

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict
count = collections.Counter()


@jax.jit
def wave_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


def gradient(phi, batch):
    count["gradients"] += 1
    return jax.grad(wave_loss)(phi, batch)


def hessian_times(vector, phi, batch):
    count["Hessian-vector products"] += 1
    return jax.jvp(lambda phi: jax.grad(wave_loss)(phi, batch), (phi,), (vector,))[1]


def walk(theta, task, alpha, num_steps):
    """phi_0, ..., phi_K."""
    path = [theta]
    for _ in range(num_steps):
        path.append(path[-1] - alpha * gradient(path[-1], task.support))
    return path


def maml(theta, task, alpha, num_steps):
    path = walk(theta, task, alpha, num_steps)
    v = gradient(path[-1], task.query)
    for phi in reversed(path[:-1]):
        v = v - alpha * hessian_times(v, phi, task.support)
    return v


def fo_maml(theta, task, alpha, num_steps):
    return gradient(walk(theta, task, alpha, num_steps)[-1], task.query)


def reptile(theta, task, alpha, num_steps):
    return theta - walk(theta, task, alpha, num_steps)[-1]


example = ml.tasks.Sinusoid(num_support=5, num_query=5).task(jax.random.key(3), amplitude=2.0, phase=1.0)
theta, alpha, num_steps = jnp.array([1.0, 0.3]), 0.1, 5

for method in (maml, fo_maml, reptile):
    count.clear()
    direction = method(theta, example, alpha, num_steps)
    library = getattr(ml, method.__name__)(wave_loss, optax.sgd(alpha), num_steps)(theta, example)[1]
    assert jnp.allclose(direction, library)
    print(f"{method.__name__:8s} {np.asarray(direction).round(3)!s:16s}", dict(count))

# %% [markdown]
# Three directions, three bills. The assertion in the loop says that the library computes the same three.
#
# A Hessian-vector product costs about as much as two gradients. That makes the bills comparable.

# %% [markdown]
# ## Exercise: the cost of a meta-gradient, in gradients
#
# Count a Hessian-vector product as two gradients. What does each method cost with $K$ inner steps? Joint training, the
# fourth, takes the query gradient at the start and does not adapt.


# %% tags=["exercise"] exercise="03.gradient_count"
def gradient_count(method, num_steps):
    """The cost of one task's meta-gradient.

    Args:
      method: "joint", "maml", "fo_maml" or "reptile".
      num_steps: K, a whole number.

    Returns:
      A whole number: gradients, with a Hessian-vector product counted
      as two.
    """
    ### BEGIN SOLUTION
    costs = {"joint": 1, "maml": 3 * num_steps + 1, "fo_maml": num_steps + 1, "reptile": num_steps}
    return costs[method]
    ### END SOLUTION


# %%
check("03.gradient_count", gradient_count)

# %% [markdown]
# MAML pays for memory too. The way back needs every point of the path, in reverse. FO-MAML and Reptile forget each
# point as soon as they have left it.
#
# So why would anyone use MAML? Because of where the shortcuts lead.

# %% [markdown]
# ## Two parabolas, four points of rest
#
# Take the two tasks of lesson 02: a steep parabola with its minimum at $-1$, and a flat one with its minimum at $2$.
# One start serves both. Each takes one inner step with $\alpha = 0.3$. Support and query are the same parabola.
#
# Four outer loops start at $\theta = 0.5$ and follow their own direction until they rest.

# %%
steepness = np.array([3.0, 0.5])
minimum = np.array([-1.0, 2.0])
alpha = 0.3

rest_prediction = predict(
    "03.rest",
    "MAML rests near 1.8, close to the flat task. Where does FO-MAML rest?",
    options=["at the same point", "between there and joint training's point", "at joint training's point"],
)


# %%
def directions(theta, alpha=alpha, num_steps=1):
    """Each method's direction on both tasks, from its definition."""
    phi = theta
    for _ in range(num_steps):
        phi = phi - alpha * steepness * (phi - minimum)
    slope = steepness * (phi - minimum)
    return {
        "joint": steepness * (theta - minimum),
        "MAML": (1 - alpha * steepness) ** num_steps * slope,
        "FO-MAML": slope,
        "Reptile": theta - phi,
    }


rest = {}
for name in directions(0.5):
    theta = 0.5
    for _ in range(2_000):
        theta = theta - 0.1 * directions(theta)[name].mean()
    rest[name] = theta
rest_prediction.reveal("between there and joint training's point")
print("   ".join(f"{name} {theta:.2f}" for name, theta in rest.items()))
assert rest["joint"] < rest["FO-MAML"] < rest["MAML"]


# %%
def adapted_loss(theta, alpha=alpha, num_steps=1):
    """F: both tasks' mean loss after adaptation."""
    factor = (1 - alpha * steepness) ** num_steps
    return (0.5 * steepness * (factor * (np.asarray(theta)[..., None] - minimum)) ** 2).mean(-1)


grid = np.linspace(-1.5, 2.5, 201)
plots.show(
    plots.lines(
        grid,
        {"mean loss after one step": adapted_loss(grid)},
        "start θ",
        "mean loss after one step",
        points={name: (theta, adapted_loss(theta)) for name, theta in rest.items()},
        ylim=(0, 1.2),
    ),
    alt="Mean loss after one step against the start. MAML's point lies at the lowest point of the curve. FO-MAML's lies "
    "to the left of it and higher. Joint training and Reptile share one point, further left and higher still.",
)

# %% [markdown]
# MAML rests at the bottom of its curve. FO-MAML stops on the way there. Reptile, with one step, stops where joint
# training does (their two marks lie on each other): it has not learned to adapt at all. The next section says why, in
# one line.

# %% [markdown]
# ## Every method is a weighted mean
#
# **Line 1.** On a parabola with curvature $a$ and minimum $m$, an inner step multiplies the distance to $m$ by
# $1 - \alpha a$. After $K$ steps,
#
# $$\phi_K - m = J\,(\theta - m), \qquad J = (1 - \alpha a)^K .$$

# %% tags=["nbval-check-output"]
theta, num_steps = 0.5, 4
phi = theta
for _ in range(num_steps):
    phi = phi - alpha * steepness * (phi - minimum)
J = (1 - alpha * steepness) ** num_steps
assert np.allclose(phi - minimum, J * (theta - minimum))
print("line 1 holds")

# %% [markdown]
# **Line 2.** Put this into the four definitions. Each direction is a weight times $(\theta - m)$:
#
# | method | direction | weight $w$ |
# |---|---|---|
# | joint training | $f'(\theta)$ | $a$ |
# | MAML | $J \, f'(\phi_K)$ | $a J^2$ |
# | FO-MAML | $f'(\phi_K)$ | $a J$ |
# | Reptile | $\theta - \phi_K$ | $1 - J$ |

# %% tags=["nbval-check-output"]
weights = {"joint": steepness, "MAML": steepness * J**2, "FO-MAML": steepness * J, "Reptile": 1 - J}
for name, direction in directions(theta, num_steps=num_steps).items():
    assert np.allclose(direction, weights[name] * (theta - minimum))
print("line 2 holds for", ", ".join(weights))

# %% [markdown]
# **Line 3.** The outer loop rests where the directions of all tasks cancel. That is a weighted mean of the minima:
#
# $$\sum_i w_i\,(\theta - m_i) = 0 \quad\Longleftrightarrow\quad \boxed{\theta = \frac{\sum_i w_i\, m_i}{\sum_i w_i}}$$
#
# The methods agree about everything except the weights. Joint training listens to steep tasks. MAML listens to tasks
# that adaptation leaves unfinished, and counts what is left, $J$, twice. FO-MAML counts it once.
# Reptile's weight, the part of the way that *was* walked, grows with the curvature: it listens to the wrong tasks.
# With $K = 1$ that weight is $\alpha a$, and the common factor $\alpha$ cancels: Reptile is joint training.

# %% [markdown]
# ## Exercise: where each method comes to rest
#
# Write the three weighted means as a function of the curvatures and the minima.


# %% tags=["exercise"] exercise="03.fixed_points"
def fixed_points(curvature, minimum, step_size, num_steps):
    """The points at which MAML, FO-MAML and Reptile rest, on
    one-dimensional quadratic tasks.

    Args:
      curvature: array of shape [num_tasks], positive.
      minimum: array of shape [num_tasks].
      step_size: alpha, with alpha * curvature < 1.
      num_steps: K, a whole number of at least 1.

    Returns:
      An array of shape [3]: MAML, FO-MAML, Reptile.
    """
    ### BEGIN SOLUTION
    factor = (1 - step_size * curvature) ** num_steps
    weights = np.array([curvature * factor**2, curvature * factor, 1 - factor])
    return weights @ minimum / weights.sum(axis=1)
    ### END SOLUTION


# %%
check("03.fixed_points", fixed_points)

# %% [markdown]
# ## A map
#
# Fix the flat task, and make the other one steeper and steeper. Where does each method rest? Zero is the steep task's
# minimum, one is the flat task's.


# %%
def rests(alpha, num_steps, curvature=steepness, minimum=minimum):
    """The weighted mean of each method; curvature of shape [..., num_tasks]."""
    J = (1 - alpha * np.asarray(curvature)) ** num_steps
    weights = {"joint": curvature, "MAML": curvature * J**2, "FO-MAML": curvature * J, "Reptile": 1 - J}
    return {name: (w * minimum).sum(-1) / w.sum(-1) for name, w in weights.items()}


flat_curvature, num_steps = 0.5, 3
steep_curvature = np.linspace(0.5, 3.3, 141)
pairs = np.stack([steep_curvature, np.full_like(steep_curvature, flat_curvature)], axis=-1)
position = rests(alpha, num_steps, pairs, np.array([0.0, 1.0]))
middle = [float(curve[0]) for curve in position.values()]
assert np.allclose(middle, 0.5)
assert position["MAML"][-1] > 0.99 and position["Reptile"][-1] < 0.5
plots.show(
    plots.lines(
        steep_curvature / flat_curvature,
        position,
        "ratio of the two curvatures, steep to flat",
        "resting point (0 steep, 1 flat)",
        ylim=(0, 1.05),
    ),
    alt="Resting point of four methods against the ratio of the two curvatures. All start at one half when the curvatures "
    "agree. MAML rises to the flat task. FO-MAML dips a little, then rises to it as well, later. Reptile and joint "
    "training fall towards the steep task; Reptile levels off.",
)

# %% [markdown]
# At ratio one the four curves meet: when all tasks have the same curvature, every method rests at the plain mean, and a
# shortcut costs nothing. As the curvatures grow apart, so do MAML and joint training: MAML goes to the flat task, joint
# training to the steep one, and Reptile with it part of the way. FO-MAML first leans the wrong way. It meets MAML again
# only where one task is so steep that adaptation solves it.
#
# Move the sliders. **With one inner step, for which step size does FO-MAML agree with MAML?** There are two answers.

# %%
fine_grid = np.linspace(-1.5, 2.5, 201)


def draw_rests(step_size, num_steps):
    return plots.lines(
        fine_grid,
        {f"mean loss; inner steps: {num_steps}": adapted_loss(fine_grid, step_size, num_steps)},
        "start θ",
        "mean loss",
        points={
            name: (theta, adapted_loss(theta, step_size, num_steps))
            for name, theta in rests(step_size, num_steps).items()
        },
        ylim=(-0.15, 3),
    )


explore(
    draw_rests,
    "Mean loss after adaptation against the start, and the points at which joint training, MAML, FO-MAML and Reptile rest.",
    step_size=(1 / 60, 0.334, 1 / 60, 0.3),
    num_steps=(1, 10, 1, 1),
)

# %%
gaps = {}
for step_size in (0.005, 0.1, 0.2, 0.3, 0.33, 1 / 3):
    at = rests(step_size, 1)
    gaps[step_size] = at["MAML"] - at["FO-MAML"]
    print(f"α = {step_size:.3f}   MAML {at['MAML']:6.3f}   FO-MAML {at['FO-MAML']:6.3f}   gap {gaps[step_size]:.3f}")
assert gaps[0.005] < 0.05 and gaps[1 / 3] < 1e-9 and gaps[0.3] > 1

# %% [markdown]
# They agree when $\alpha$ is tiny, because nothing adapts and all weights become $a$. And they agree when
# $\alpha = 1/3$, because one step solves the steep task: its weight is zero for both. In between they differ most.

# %% [markdown]
# ## How wrong, as a function of the inner step
#
# Now five dimensions, twenty tasks, and a query loss that differs from the support loss. At the point where a shortcut
# rests, the exact gradient $\nabla F$ is not zero. Its length says how wrong the point is. With Hessian $H_i$ and minimum
# $m_i$ of the support, $A_i$ and $q_i$ of the query, and $J_i = (I - \alpha H_i)^K$, both shortcuts rest where a linear
# system holds:
#
# $$\begin{aligned}
# \text{FO-MAML: } & \sum_i A_i\,(\phi_i - q_i) = 0, \\
# \text{Reptile: } & \sum_i (\theta - \phi_i) = 0, \qquad \text{with } \phi_i = m_i + J_i (\theta - m_i).
# \end{aligned}$$

# %%
bias_prediction = predict(
    "03.halved",
    "Halve a small inner step α. By what factor does |∇F| shrink at the point where FO-MAML rests?",
    options=["about 1: it stays", "about 2", "about 4"],
)

# %%
tasks = ml.tasks.Quadratic(dim=5)(jax.random.key(0), 20)
num_steps = 3


def resting_points(alpha):
    """(exact quantities of the unrolled objective, point of FO-MAML, point of Reptile)."""
    exact = ml.theory.unrolled(tasks, alpha, num_steps)
    support, query, J = exact.tasks.support, exact.tasks.query, exact.jacobian
    walked = np.eye(5) - J
    offset = (walked @ support.minimum[..., None])[..., 0]  # phi_i = J_i theta + offset_i
    first_order = np.linalg.solve(
        (query.hessian @ J).mean(0), (query.hessian @ (query.minimum - offset)[..., None]).mean(0)[:, 0]
    )
    reptile = np.linalg.solve(walked.mean(0), offset.mean(0))
    return exact, first_order, reptile


# The closed form is where training ends: FO-MAML on these twenty tasks, with plain gradient descent outside.
exact, first_order, _ = resting_points(0.3)
learner = ml.meta_learner(ml.fo_maml(ml.tasks.Quadratic.loss, optax.sgd(0.3), num_steps), optax.sgd(0.5))
trained = ml.fit(
    learner, jnp.zeros(5), lambda key, n: tasks, num_steps=2_000, meta_batch_size=20, key=jax.random.key(1)
)
assert np.allclose(trained.params, first_order, atol=1e-6)

step_sizes = 0.4 / 2.0 ** np.arange(6)
lengths = {"MAML": [], "FO-MAML": [], "Reptile": []}
for alpha in step_sizes:
    exact, first_order, reptile_point = resting_points(alpha)
    points = {"MAML": exact.stationary_point(), "FO-MAML": first_order, "Reptile": reptile_point}
    for name, point in points.items():
        lengths[name].append(np.linalg.norm(exact.meta_gradient(point)))
lengths = {name: np.array(values) for name, values in lengths.items()}
bias_prediction.reveal("about 2")
print("|∇F| at rest for α =", step_sizes)
for name, values in lengths.items():
    print(f"{name:8s}", "  ".join(f"{value:.1e}" for value in values))
slope = np.polyfit(np.log(step_sizes[2:]), np.log(lengths["FO-MAML"][2:]), 1)[0]
print(f"FO-MAML's slope on a log-log plot, for the four smallest: {slope:.2f}")
assert 0.9 < slope < 1.1 and (lengths["MAML"] < 1e-12).all()
assert lengths["Reptile"][-1] > lengths["Reptile"][0]

# %%
plots.show(
    plots.lines(
        step_sizes,
        {name: lengths[name] for name in ("FO-MAML", "Reptile")},
        "inner step α",
        "|∇F| where the method rests",
        log="xy",
    ),
    alt="Length of the exact meta-gradient at the resting point, against the inner step, both axes logarithmic. As the step "
    "shrinks, FO-MAML's line falls, in the end in proportion to it. Reptile's rises a little, then levels off.",
)

# %% [markdown]
# For small $\alpha$, FO-MAML's error is proportional to it: each missing factor differs from $I$ by $\alpha H_k$.
# A smaller inner step buys accuracy and pays with less adaptation.
#
# Reptile's error does not go away; it even grows as $\alpha$ shrinks. Reptile never asks the query set, so it cannot
# know that the query minima lie elsewhere. MAML's is zero to rounding.

# %% [markdown]
# ## Question: why the error is proportional to a small α
#
# On paper, about 10 minutes. Go back to one dimension, with $n$ tasks whose support and query are the same parabola:
# curvature $a_i$, minimum $m_i$, $J_i = (1 - \alpha a_i)^K$. Let $\theta$ be the point at which FO-MAML rests.
#
# 1. Show that $F'(\theta) = \frac1n \sum_i (J_i - c)\, a_i J_i\, (\theta - m_i)$ there, for *every* number $c$.
# 2. Choose $c$ to show that $F'(\theta) = 0$ if all curvatures agree.
# 3. Choose another $c$ to show that $F'(\theta)$ is proportional to $\alpha$ when $\alpha$ is small. What is the factor?
#
# Write your answer into the next cell: a double click opens it. The worked lesson has one to compare with.

# %% [markdown] tags=["free-text"] question="03.proportional"
# ### BEGIN SOLUTION
# **1.** By line 2, $F'(\theta) = \frac1n \sum_i J_i \cdot a_i J_i\,(\theta - m_i)$, and FO-MAML rests where
# $\frac1n \sum_i a_i J_i\,(\theta - m_i) = 0$. Subtract $c$ times the second equation from the first.
#
# **2.** If all curvatures agree, all $J_i$ are one number. With $c = J_i$ every term is zero.
#
# **3.** Take $c = 1$, since $J_i - 1 = -\alpha K a_i + O(\alpha^2)$. The other factors are needed only at $\alpha = 0$: there
# $J_i = 1$, and FO-MAML rests where joint training does, at $\theta_0 = \sum_i a_i m_i / \sum_i a_i$. The resting point is a
# smooth function of $\alpha$, so it differs from $\theta_0$ by $O(\alpha)$. Hence
#
# $$F'(\theta) = -\alpha K \cdot \frac1n \sum_i a_i^2\, (\theta_0 - m_i) + O(\alpha^2).$$
#
# The factor vanishes when all curvatures agree, as it must. Otherwise it seldom does.
# ### END SOLUTION

# %% [markdown]
# ## Which gradient is this?
#
# The bias is not always on purpose. Here are three pieces of code that mean to compute the exact MAML gradient. Each
# repeats a mistake that has been found in public code. All three run, and a small step along any of them lowers the loss.


# %%
def suspect_a(loss, task, params, step_size, num_steps):
    adapted = params
    for _ in range(num_steps):
        slope = jax.grad(loss)(adapted, task.support)
        adapted = jax.tree.map(lambda p, g: p - step_size * g, adapted, slope)
    return jax.grad(loss)(adapted, task.query)


def suspect_b(loss, task, params, step_size, num_steps):
    def query_loss(start):
        adapted = start
        for _ in range(num_steps):
            slope = jax.grad(loss)(start, task.support)
            adapted = jax.tree.map(lambda p, g: p - step_size * g, adapted, slope)
        return loss(adapted, task.query)

    return jax.grad(query_loss)(params)


def suspect_c(loss, task, params, step_size, num_steps):
    def step(params):
        slope = jax.grad(loss)(params, task.support)
        return jax.tree.map(lambda p, g: p - step_size * g, params, slope)

    for _ in range(num_steps - 1):
        params = step(params)
    return jax.grad(lambda params: loss(step(params), task.query))(params)


# %%
suspect_prediction = predict(
    "03.suspects",
    "With one inner step instead of several, which suspects would be right?",
    options=["none", "only B", "B and C", "all three"],
)

# %%
theta = jnp.array([1.0, 0.3])
agreement = {}
for steps in (1, 3):
    exact_gradient = ml.maml(wave_loss, optax.sgd(0.1), steps)(theta, example)[1]
    for name, suspect in (("A", suspect_a), ("B", suspect_b), ("C", suspect_c)):
        found = suspect(wave_loss, example, theta, 0.1, steps)
        agreement[name, steps] = bool(jnp.allclose(found, exact_gradient))
        assert jnp.vdot(found, exact_gradient) > 0  # so a small step against it goes downhill
        print(f"K = {steps}   suspect {name} {np.asarray(found).round(3)!s:18s} exact: {agreement[name, steps]}")
suspect_prediction.reveal("B and C")
assert [agreement[name, 1] for name in "ABC"] == [False, True, True]
assert not any(agreement[name, 3] for name in "ABC")

# %% [markdown]
# A test with one inner step would have let two of them pass. **Test a meta-gradient with several steps, against
# a second way to compute it.** The check of the next exercise does. Ask it about each suspect:

# %%
for suspect in (suspect_a, suspect_b, suspect_c):
    print(suspect.__name__)
    check("03.repair", suspect)

# %% [markdown]
# ## Exercise: repair a suspect
#
# Choose one of the three, and repair it with as few changes as you can.


# %% tags=["exercise"] exercise="03.repair"
def repaired(loss, task, params, step_size, num_steps):
    """The exact gradient, with respect to the start, of the query loss
    after adaptation.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      params: the start, any pytree of arrays.
      step_size: alpha, a number.
      num_steps: K, a whole number of at least 1.

    Returns:
      A pytree with the structure and shapes of `params`.
    """

    ### BEGIN SOLUTION
    def query_loss(start):
        adapted = start
        for _ in range(num_steps):
            slope = jax.grad(loss)(adapted, task.support)
            adapted = jax.tree.map(lambda p, g: p - step_size * g, adapted, slope)
        return loss(adapted, task.query)

    return jax.grad(query_loss)(params)
    ### END SOLUTION


# %%
check("03.repair", repaired)

# %% [markdown]
# ## MAML without a second derivative
#
# With one inner step the exact gradient is $v - \alpha H v$, with $v = \nabla f(\phi_1)$ and $H$ at the start. The product
# $H v$ says how the support gradient changes along $v$. So take two support gradients, a little before and a little after:
#
# $$H v \approx \frac{\nabla h(\theta + \epsilon v) - \nabla h(\theta - \epsilon v)}{2 \epsilon}.$$
#
# This is **HF-MAML**, Hessian-free MAML (Fallah, Mokhtari & Ozdaglar, 2020). How well does it do, and how small should
# $\epsilon$ be?

# %%
v = jax.grad(wave_loss)(theta - 0.1 * jax.grad(wave_loss)(theta, example.support), example.query)
product = jax.hessian(wave_loss)(theta, example.support) @ v
epsilons = 10.0 ** np.arange(-1, -8, -0.25)


@jax.jit
def difference(epsilon, theta, v, batch):
    slope = jax.grad(wave_loss)
    return (slope(theta + epsilon * v, batch) - slope(theta - epsilon * v, batch)) / (2 * epsilon)


def relative_errors(dtype):
    arguments = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (theta, v, example.support))
    found = [difference(jnp.asarray(epsilon, dtype), *arguments) for epsilon in epsilons]
    return np.array([np.linalg.norm(np.asarray(hv, np.float64) - product) for hv in found]) / np.linalg.norm(product)


float64, float32 = relative_errors(jnp.float64), relative_errors(jnp.float32)
order = np.log10(float64[0] / float64[8]) / 2  # from 0.1 to 0.001
print(f"from ε = 0.1 to 0.001 the float64 error falls like ε^{order:.2f}")
print(f"smallest float32 error {float32.min():.0e}, at ε = {epsilons[float32.argmin()]:.0e}")
assert 1.9 < order < 2.1 and float32[-1] > 100 * float32.min()
assert float32[4] < float32[0] < float32[20]  # a hundredth, a tenth, a millionth

# %%
plots.show(
    plots.lines(
        epsilons, {"float64": float64, "float32": float32}, "distance ε", "relative error of the product", log="xy"
    ),
    alt="Relative error of the Hessian-vector product against the distance, both axes logarithmic. From right to left both "
    "curves fall with slope two. Then rounding takes over and they rise, in float32 much earlier than in float64.",
)

# %% [markdown]
# From right to left the error falls like $\epsilon^2$. Then it rises again: the two gradients become so alike that their
# difference is mostly rounding. In float32, a tenth or a hundredth is better than a millionth. Keep this V in mind;
# lesson 05 meets it again.

# %% [markdown]
# ## Exercise: MAML without a second derivative
#
# Write the whole meta-gradient for one inner step. It needs four gradients and nothing else.


# %% tags=["exercise"] exercise="03.hessian_free"
def hessian_free(loss, task, params, step_size, epsilon):
    """HF-MAML's gradient for one inner step.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query.
      params: the start, any pytree of arrays.
      step_size: alpha, a number.
      epsilon: how far to go along v on each side, a number.

    Returns:
      A pytree with the structure and shapes of `params`.
    """

    ### BEGIN SOLUTION
    def move(phi, direction, distance):
        return jax.tree.map(lambda p, d: p + distance * d, phi, direction)

    def slope(phi):
        return jax.grad(loss)(phi, task.support)

    v = jax.grad(loss)(move(params, slope(params), -step_size), task.query)
    after, before = slope(move(params, v, epsilon)), slope(move(params, v, -epsilon))
    return jax.tree.map(lambda v, a, b: v - step_size * (a - b) / (2 * epsilon), v, after, before)
    ### END SOLUTION


# %%
check("03.hessian_free", hessian_free)

# %% [markdown]
# Four gradients with one inner step: as many as MAML, by the count above. What HF-MAML saves is the second
# derivative itself. It works with any code that returns gradients.

# %% [markdown]
# ## Does the wrong point matter?
#
# On the sine curves, train the same network with each method: five inner steps with $\alpha = 0.01$, the same 4,000
# outer steps with Adam. Then adapt to 1,000 new tasks, the same for all three.

# %%
jax.config.update("jax_enable_x64", False)  # training runs in float32
jax.clear_caches()  # frees the memory of the programs in float64

practice_prediction = predict(
    "03.practice",
    "After five inner steps on new sine curves, how does FO-MAML's loss compare with MAML's?",
    options=["lower", "up to twice as high", "more than twice as high"],
)

# %%
family = ml.tasks.Sinusoid(num_support=10, num_query=10)
random_start, network = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
loss, inner = ml.losses.mean_squared_error(network), optax.sgd(0.01)
new_tasks = family(jax.random.key(2), 1_000)

curves = {}
for name, meta_gradient in (("MAML", ml.maml), ("FO-MAML", ml.fo_maml), ("Reptile", ml.reptile)):
    learner = ml.meta_learner(meta_gradient(loss, inner, 5), optax.adam(1e-3))
    run = ml.fit(learner, random_start, family, num_steps=4_000, meta_batch_size=25, key=jax.random.key(0))
    curves[name] = ml.evaluate.adaptation_curve(loss, inner, run.params, new_tasks, num_steps=10)
ratio = float(curves["FO-MAML"][5].mean() / curves["MAML"][5].mean())
practice_prediction.reveal("lower" if ratio < 1 else "up to twice as high" if ratio <= 2 else "more than twice as high")
for name, curve in curves.items():
    print(f"{name:8s} after five steps {ml.evaluate.score(curve[5])}")
for worse, better in (("FO-MAML", "MAML"), ("Reptile", "MAML"), ("FO-MAML", "Reptile")):
    behind = ml.evaluate.score(curves[worse][5] - curves[better][5])
    print(f"{worse} minus {better}, task by task: {behind}")
    assert better != "MAML" or behind.mean > behind.half_width

# %%
plots.show(
    plots.adaptation(curves, "query loss (squared error)", log="y"),
    alt="Query loss against inner steps for three starts, on a logarithmic axis. All fall within a few steps. MAML's curve "
    "is lowest at five steps; those of FO-MAML and Reptile lie close together above it.",
)

# %% [markdown]
# All three learn to adapt. The difference task by task is the sharper measure, since the tasks are the same, and it says
# that MAML is best. Of the two shortcuts, FO-MAML is no better here, although its bias was the smaller one above. Support
# and query points come from the same curve, so Reptile, which never asks the query set, is not punished for it. This is
# one seed, one network and one inner step size: a biased method can be a useful one, and how useful depends on the tasks.

# %% [markdown]
# ## Limits
#
# - The closed form holds for quadratic tasks. There, one outer loop has one point of rest. Networks have many, and where
#   a shortcut ends depends on the path as well.
# - Where tasks have alike curvature, or the inner step is small, the bias is small. Then a shortcut is the better buy.
# - Reptile was given one batch and plain descent here. Its paper uses fresh batches at each inner step.
# - HF-MAML still walks back along the path. With many inner steps it needs all of its points.
#
# ## What to take away
#
# - MAML costs about three times as many gradients as FO-MAML, and the memory of the whole path.
# - On quadratics every method rests at a weighted mean; only the weights differ: $aJ^2$, $aJ$, $1 - J$.
# - FO-MAML's error is proportional to a small inner step. Reptile's does not vanish when support and query disagree.
# - A wrong meta-gradient still lowers the loss. Only a second way to compute it finds the mistake.

# %%
quiz("03")

# %%
progress("03")

# %% [markdown]
# ## References
#
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). MAML and FO-MAML.
# - A. Nichol, J. Achiam, J. Schulman. *On first-order meta-learning algorithms.* 2018.
#   [arXiv 1803.02999](https://arxiv.org/abs/1803.02999). Reptile.
# - A. Fallah, A. Mokhtari, A. Ozdaglar. *On the convergence theory of gradient-based model-agnostic meta-learning
#   algorithms.* 2020. [arXiv 1908.10400](https://arxiv.org/abs/1908.10400). The floor of FO-MAML, and HF-MAML.
