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
# - **explain** what a proximal term does to adaptation, and how it corresponds to early stopping,
# - **derive** the meta-gradient by implicit differentiation, for one proximal strength and for one per parameter,
# - **implement** it with a matrix, and **find the bug** in an implementation by others,
# - **predict** when a Neumann series diverges, and how many steps conjugate gradients need,
# - **recognize** when an implicit gradient cannot be trusted.
#
# **New symbols**
#
# - $\lambda$: proximal strength
# - $\varphi^*$: minimum of the inner problem
# - $F_\text{prox}$: the proximal meta-objective
# - $J$: derivative of $\varphi^*$ with respect to $\theta$

# %% tags=["imports"]
import functools  # this cell loads JAX and the course, which takes a few seconds

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

import metalearn as ml
from metalearn import plots
from metalearn.course import bar, check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_04

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# *Short of time? Skip the sections "What a proximal term does to a fit" (but run its cells) and "iMAML" (but read its
# first paragraph), and the middle exercise.*

# %% [markdown]
# ## What is left of the initialization
#
# In lesson 02, on a quadratic support loss of curvature $a$, each inner step multiplied a change to the initialization by
# $1 - \alpha a$. With $\alpha = 0.1$ and $a = 1$ about 59 % of the change is left after five steps, and almost nothing
# after sixty. On such a loss, the longer we adapt, the less the adapted parameters depend on the initialization, and the
# smaller the meta-gradient that could improve it.
#
# The remedy is to change what adaptation minimizes. Think of a spring that pulls the adapted parameters $\varphi$ back to
# $\theta$:
#
# $$h(\varphi) + \frac{\lambda}{2} \lVert \varphi - \theta \rVert^2 .$$
#
# The first term asks $\varphi$ to fit the support set. The second one, the **proximal term**, asks it to stay near the
# initialization, and the **proximal strength** $\lambda$ says how much that counts. Their sum is the **proximal
# objective**. Its gradient is $\nabla h(\varphi) + \lambda (\varphi - \theta)$.

# %%
survives_prediction = predict("04.survives")

# %%
curvature, alpha = 1.0, 0.1


def change_left(proximal_strength, num_steps):
    """What is left of a change of 1 to the initialization, after 0, 1, ... steps.

    With the minimum of h at 0, this is φ itself, started from θ = 1.
    """
    left = [1.0]
    for _ in range(num_steps):
        gradient = curvature * left[-1] + proximal_strength * (left[-1] - 1)
        left.append(left[-1] - alpha * gradient)
    return np.array(left)


left = {"no proximal term": change_left(0.0, 60), "λ = 0.5": change_left(0.5, 60)}
survives_prediction.reveal(left["λ = 0.5"][-1])

# %% tags=["fold"]
assert np.isclose(left["λ = 0.5"][-1], 0.5 / (0.5 + curvature), atol=1e-3)
assert np.allclose(left["no proximal term"], (1 - alpha * curvature) ** np.arange(61))
assert round(100 * left["no proximal term"][5]) == 59 and left["no proximal term"][60] < 0.01
lesson_04.show_change_left(left)

# %% [markdown]
# Without a proximal term the inner loop forgets where it began. With one, the fraction that is left tends to
# $\lambda / (\lambda + a)$, here one third. At this limit the gradients of the two terms cancel, so that the next inner step
# changes nothing. Such a point is called a **fixed point** of the step and a **stationary point** of the objective. The
# fraction contains neither $\alpha$ nor $K$. It belongs to the minimum and not to the steps that led there, and this is
# the idea of the whole lesson.

# %% [markdown]
# ## Exercise: adaptation with a proximal term
#
# Write gradient descent on the proximal objective, from $\varphi_0 = \theta$.


# %% tags=["exercise"] exercise="04.proximal_descent"
def adapt_proximal(
    loss,
    batch,
    params,
    learning_rate,
    num_steps,
    proximal_strength,
):
    """The adapted parameters: gradient descent on the loss plus a
    proximal term.

    Args:
      loss: function of (params, batch) that returns a scalar.
      batch: the support set, a batch for `loss`.
      params: θ, the initialization, any pytree of arrays.
      learning_rate: α, of the inner steps.
      num_steps: K, a whole number, 0 included.
      proximal_strength: λ, a positive number.

    Returns:
      φ_K, a pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    phi = params
    for _ in range(num_steps):
        gradient = jax.grad(loss)(phi, batch)
        phi = jax.tree.map(
            lambda p, g, t: p - learning_rate * (g + proximal_strength * (p - t)),
            phi,
            gradient,
            params,
        )
    return phi
    ### END SOLUTION


# %%
check("04.proximal_descent", adapt_proximal)

# %% [markdown]
# In the library, `ml.inner.proximal(support_loss, params, proximal_strength)` returns this objective.
#
# ## Early stopping acts like a proximal term
#
# MAML has no proximal term, but it stops after a few steps. This is early stopping as in lesson 01, except that the
# number of steps is fixed beforehand. Compare the two on the quadratic. Stopping after $K$ steps keeps
# $(1 - \alpha a)^K$ of the initialization, and the proximal minimum keeps
# $\lambda / (\lambda + a) = 1 / (1 + a / \lambda)$. For small curvatures both are nearly straight lines:
#
# $$(1 - \alpha a)^K \approx 1 - \alpha K a, \qquad \frac{\lambda}{\lambda + a} \approx 1 - \frac{a}{\lambda} .$$
#
# They are the same line if $\lambda = 1 / (\alpha K)$, one over the inner training time $T = \alpha K$ of lesson 02. How
# far does the agreement reach?

# %%
inner_steps, proximal_strength = 20, 1 / (alpha * 20)
curvatures = np.linspace(0, 4, 161)
kept = {
    "early stopping": (1 - alpha * curvatures) ** inner_steps,
    "proximal term": proximal_strength / (proximal_strength + curvatures),
}
lesson_04.show_early_stopping(curvatures, kept)

# %% tags=["fold"]
gap = kept["proximal term"] - kept["early stopping"]
tiny = 1e-6
assert np.isclose(((1 - alpha * tiny) ** inner_steps - 1) / tiny, -alpha * inner_steps, rtol=1e-4)
assert np.isclose((1 / (1 + tiny / proximal_strength) - 1) / tiny, -alpha * inner_steps, rtol=1e-4)
assert gap.min() > -1e-12 and 0.15 < gap.max() < 0.25

# %% [markdown]
# The fractions that they keep differ by at most about 0.2. Both leave flat directions, those of small curvature, where the
# initialization put them, and both let steep directions go nearly to the minimum of the support loss. In this sense
# MAML with few steps regularizes adaptation already, and **a smaller $\lambda$ corresponds to more inner steps**. The
# difference is what the meta-gradient has to know. Early stopping is defined by its steps, so MAML must go back through
# all of them. The proximal minimum is defined without any steps.

# %% [markdown]
# ## What a proximal term does to a fit
#
# For sine curves we learn an initialization with MAML, as in lesson 02. Then we adapt it to 20 new tasks, each with six
# support points, to whose $y$ values we add noise of standard deviation 1. The query points have no noise. The proximal
# term adds $\lambda$ to every curvature, and a stable inner learning rate falls as the largest curvature grows. We take
# $1 / (200 + \lambda)$, which is on the safe side for these support losses. The next two cells train and adapt for some
# seconds, with a bar.

# %%
distribution = ml.tasks.Sinusoid(num_support=10, num_query=10)
mlp = ml.models.MLP((1, 20, 20, 1), activation=jnp.tanh, rngs=nnx.Rngs(0))
random_init, network = ml.models.functional(mlp)
loss = ml.losses.mean_squared_error(network)
learner = ml.meta_learner(ml.maml(loss, optax.sgd(0.01), num_steps=5), optax.adam(2e-3))
initialization = ml.fit(
    learner,
    random_init,
    distribution,
    num_steps=3_000,
    meta_batch_size=10,
    key=jax.random.key(0),
).params

new_tasks = ml.tasks.Sinusoid(num_support=6, num_query=200)(jax.random.key(7), 20)
support_x, support_y = new_tasks.support
noise = jax.random.normal(jax.random.key(8), support_y.shape)
noisy_tasks = ml.Task((support_x, support_y + noise), new_tasks.query)

# %%
proximal_strengths = 10.0 ** np.arange(-3, 3.01, 0.5)


@jax.jit
def adapt_all(proximal_strength):
    """Adapted parameters and query loss of every task, for one λ."""

    def adapt(task):
        def support_loss(phi):
            return loss(phi, task.support)

        objective = ml.inner.proximal(support_loss, initialization, proximal_strength)
        sgd = optax.sgd(1 / (200 + proximal_strength))
        adapted = ml.inner.descend(objective, sgd, 2_000, initialization)
        return adapted, loss(adapted, task.query)

    return jax.vmap(adapt)(noisy_tasks)


results = []
for each in bar(proximal_strengths, "adapting", seconds=4):
    results.append(jax.block_until_ready(adapt_all(each)))
adapted = [parameters for parameters, _ in results]
query_losses = np.stack([losses for _, losses in results])
best = int(query_losses.mean(axis=1).argmin())

# %% [markdown]
# Move $\lambda$ from left to right, on several tasks. **Where does the adapted curve stop following the noise, and
# where does it stop adapting?**

# %% tags=["fold"]
grid = jnp.linspace(-5, 5, 101)[:, None]
every_curve = jax.jit(jax.vmap(lambda phi: network(phi, grid)[:, 0]))
adapted_curves = np.stack([every_curve(phi) for phi in adapted])
initial_curve = np.asarray(network(initialization, grid)[:, 0])
true_curves = np.stack(
    [
        np.interp(grid[:, 0], x[order], y[order])
        for x, y in zip(*(np.asarray(leaf[..., 0]) for leaf in new_tasks.query), strict=True)
        for order in [x.argsort()]
    ]
)
mean_loss = query_losses.mean(axis=1)
assert 0 < best < len(proximal_strengths) - 1 and mean_loss[best] < 0.7 * min(mean_loss[0], mean_loss[-1])
explore(
    functools.partial(
        lesson_04.draw_fit,
        proximal_strengths=proximal_strengths,
        query_losses=query_losses,
        curves={
            "θ": lambda i, task: initial_curve,
            "adapted": lambda i, task: adapted_curves[i, task],
            "truth": lambda i, task: true_curves[task],
        },
        support=tuple(np.asarray(leaf[..., 0]) for leaf in noisy_tasks.support),
    ),
    "Left: the curve of the learned initialization, the curve adapted to six noisy points with the chosen proximal "
    "strength, and the true curve. Right: query loss against the proximal strength, of this task and the mean of twenty, "
    "which is lowest in between.",
    log10_proximal_strength=(-3.0, 3.0, 0.5, -3.0),
    task=(0, 19, 1, 4),
)

# %% [markdown]
# With a small $\lambda$ the curve bends to meet the noise, which is **overfitting**. With a large one it stays at the
# initialization. In between, on average over the tasks, it adapts and yet smooths the noise out, because the
# initialization supplies what six points cannot. The proximal term is a **regularization**, and $\lambda$ has to be
# tuned for the task distribution.
#
# At the smallest values the mean hardly changes. There $\lambda$ is well below $1 / (\alpha K)$, with the learning rate
# and the 2,000 steps of `adapt_all`, so what still holds the curve back is early stopping and not the proximal term.

# %% [markdown]
# ## How strong must the proximal term be?
#
# A loss can have several minima. Take $h(\varphi) = 1 - \cos \varphi$, whose curvature $\cos \varphi$ lies between $-1$ and $1$.

# %%
one_minimum_prediction = predict("04.one_minimum")


# %%
def num_minima(proximal_strength, theta):
    """The number of minima of 1 - cos φ + λ/2 (φ - θ)²."""
    phi = np.linspace(-12, 18, 30_001)
    gradient = np.sin(phi) + proximal_strength * (phi - theta)
    return int(((gradient[:-1] < 0) & (gradient[1:] >= 0)).sum())


tried = np.round(np.arange(0.1, 2.01, 0.1), 1)
thetas = np.linspace(0, 2 * np.pi, 101)
single = [max(num_minima(s, theta) for theta in thetas) == 1 for s in tried]
smallest = tried[np.argmax(single)]
one_minimum_prediction.reveal(smallest)

# %% tags=["fold"]
assert smallest == 1 and not any(single[:9]) and all(single[9:])
explore(
    lesson_04.draw_minimum,
    "Left: the proximal objective, with the initialization and the point that gradient descent from it reaches. Right: "
    "that point for every initialization. With a proximal strength below one the curve on the right jumps at pi; from one "
    "on it does not.",
    theta=(0.0, 6.2, 0.1, 2.6),
    proximal_strength=(0.2, 2.0, 0.2, 0.2),
)

# %% [markdown]
# Start with a small $\lambda$ and move $\theta$ past $\pi$: the point that descent reaches jumps from one minimum to
# the other, and no derivative describes a jump. Then raise $\lambda$ until $h'' + \lambda$ is positive everywhere. The
# proximal objective is now **strongly convex**, which means that its curvature is at least some positive number
# everywhere. It has one minimum, and gradient descent with a small learning rate finds it from anywhere. This minimum
# moves smoothly with $\theta$ and so has a derivative, which we now compute.

# %% [markdown]
# ## The derivation, line by line
#
# Adaptation has become a minimization of its own, nested in the minimization of the meta-objective. Such a pair is a
# **bilevel** problem. Its upper level minimizes $F_\text{prox}$ over $\theta$, and its lower level, the inner problem,
# defines $\varphi^*$. For one task:
#
# $$F_\text{prox}(\theta) = f(\varphi^*(\theta)), \qquad
# \varphi^*(\theta) = \arg\min_\varphi \; h(\varphi) + \frac{\lambda}{2} \lVert \varphi - \theta \rVert^2 .$$
#
# We check every line on the two-parameter sine curve of lessons 02 and 03, in float64.

# %%
jax.config.update("jax_enable_x64", True)
jax.clear_caches()  # frees the memory of the programs in float32


def sine_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


task = ml.tasks.Sinusoid(5, 5).task(jax.random.key(3), amplitude=2.0, phase=1.0)
h = jax.jit(lambda phi: sine_loss(phi, task.support))
f = jax.jit(lambda phi: sine_loss(phi, task.query))


@jax.jit
def minimum(theta, proximal_strength):
    """φ*, by many gradient steps."""
    objective = ml.inner.proximal(h, theta, proximal_strength)
    sgd = optax.sgd(1 / (4.5 + proximal_strength))  # small enough to be stable
    return ml.inner.descend(objective, sgd, 400, theta)


theta, proximal_strength = jnp.array([1.0, 0.3]), 0.5
phi_star = minimum(theta, proximal_strength)

# %% [markdown]
# **Line 1: stationarity.** At the minimum the gradient of the proximal objective is zero:
#
# $$\nabla h(\varphi^*) + \lambda\, (\varphi^* - \theta) = 0 .$$

# %% tags=["nbval-check-output"]
assert jnp.allclose(jax.grad(h)(phi_star), proximal_strength * (theta - phi_star))
print("line 1 holds")

# %% [markdown]
# **Line 2: differentiate line 1 with respect to $\theta$.** It holds for every $\theta$, so its left side stays zero when
# $\theta$ changes. Let $H = \nabla^2 h(\varphi^*)$ and $J = \partial \varphi^* / \partial \theta$. By the chain rule
# $\nabla h(\varphi^*(\theta))$ has the derivative $H J$, and $\varphi^*(\theta) - \theta$ has the derivative $J - I$. So
#
# $$H J + \lambda\, (J - I) = 0 .$$
#
# To differentiate the equation that a minimum solves, instead of the steps that lead to it, is called **implicit
# differentiation**. It presumes that $J$ exists, and the **implicit function theorem** says that it does if
# $H + \lambda I$ is invertible, which a large enough $\lambda$ guarantees. The cell takes $J$ from differences: it
# changes $\theta$ a little and solves the inner problem again.

# %% tags=["nbval-check-output"]
H, identity, small = jax.hessian(h)(phi_star), jnp.eye(2), 1e-5


def minima(shift):
    """φ* after θ has moved along each axis, shape [2, 2]."""
    moved = [minimum(theta + shift * e, proximal_strength) for e in identity]
    return jnp.stack(moved, axis=1)


J = (minima(small) - minima(-small)) / (2 * small)
assert jnp.allclose(H @ J + proximal_strength * (J - identity), 0, atol=1e-7)
print("line 2 holds")

# %% [markdown]
# **Line 3: solve for $J$.** Line 2 is $(H + \lambda I)\, J = \lambda I$, so
#
# $$J = \Big(I + \frac{1}{\lambda} H\Big)^{-1} .$$
#
# On a quadratic in one dimension this is the $\lambda / (\lambda + a)$ of the first figure.

# %% tags=["nbval-check-output"]
assert jnp.linalg.eigvalsh(H + proximal_strength * identity).min() > 0
assert jnp.allclose(J, jnp.linalg.inv(identity + H / proximal_strength), atol=1e-7)
print("line 3 holds")

# %% [markdown]
# **Line 4: the chain rule.** $\nabla F_\text{prox}(\theta) = J^\top \nabla f(\varphi^*)$. Since $H$ is symmetric, $J$ is
# symmetric too, and the meta-gradient $g = \nabla F_\text{prox}(\theta)$, which papers on bilevel optimization call the
# **hypergradient**, is the solution of one linear system:
#
# $$\boxed{\;\Big(I + \frac{1}{\lambda} H\Big)\, g = \nabla f(\varphi^*)\;}$$

# %%
g = jnp.linalg.solve(identity + H / proximal_strength, jax.grad(f)(phi_star))
unrolled = jax.grad(lambda theta: f(minimum(theta, proximal_strength)))(theta)
assert jnp.allclose(g, unrolled)

# %% [markdown]
# The assertion compares the solution of the system with backpropagation through all 400 inner steps. In lesson 02 one
# factor $(I - \alpha H_k)$ stood for each step. Here one inverse stands for all of them, and only the minimum occurs in
# it. **Any inner optimizer that reaches the minimum will do.** The next cell tries three, among them Adam.

# %% tags=["fold"]
optimizers = {
    "gradient descent": optax.sgd(0.2),
    "with momentum": optax.sgd(0.05, momentum=0.9),
    "Adam": optax.adam(0.02),
}
rows = {}
for name, optimizer in optimizers.items():
    by_library = jax.jit(ml.imaml(sine_loss, optimizer, 3_000, proximal_strength, cg_steps=2))(theta, task)[1]
    assert jnp.allclose(by_library, g, atol=1e-5)
    rows[name] = [float(value) for value in by_library]
plots.table(
    rows,
    ["inner optimizer", "amplitude", "phase"],
    "Three inner optimizers, one meta-gradient",
    "Both components of the meta-gradient, by the linear system at the point that each optimizer reaches.",
)

# %% [markdown]
# ### What if we leave out the solve?
#
# Then $\nabla f(\varphi^*)$ is left, which is the gradient of **FO-MAML** at this adapted point: it pretends that $J$ is the
# identity. One is tempted to say that FO-MAML is the limit of an infinitely strong proximal term, because $H / \lambda$
# vanishes. But $\varphi^*$ changes with $\lambda$ as well. The table shows where it goes.

# %% tags=["fold"]
rows = {}
for value in (0.5, 5.0, 50.0, 500.0):
    point = minimum(theta, value)
    query_gradient, joint_gradient = jax.grad(f)(point), jax.grad(f)(theta)
    meta_gradient = jnp.linalg.solve(identity + jax.hessian(h)(point) / value, query_gradient)
    rows[f"{value:g}"] = [
        float(jnp.linalg.norm(point - theta)),
        float(jnp.linalg.norm(query_gradient - meta_gradient) / jnp.linalg.norm(meta_gradient)),
        float(jnp.linalg.norm(joint_gradient - meta_gradient) / jnp.linalg.norm(meta_gradient)),
    ]
assert all(rows["500"][i] < 0.02 for i in range(3)) and rows["0.5"][1] > 0.5
plots.table(
    rows,
    ["λ", "distance of φ* from θ", "error of ∇f(φ*)", "error of ∇f(θ)"],
    "A strong proximal term prevents adaptation",
    "Relative errors of two gradients as stand-ins for the meta-gradient, for growing proximal strength.",
    digits=2,
)

# %% [markdown]
# As $\lambda$ grows, FO-MAML's error shrinks, but adaptation shrinks with it: $\varphi^*$ returns to $\theta$, and all
# that is left is $\nabla f(\theta)$, the gradient of joint training. Where there is adaptation worth the name, here in
# the first row, the solve matters.

# %% [markdown]
# ## Exercise: a derivation to finish
#
# Give each parameter its own proximal strength: replace the proximal term by
# $\frac12 \sum_j \lambda_j (\varphi_j - \theta_j)^2$, and let $\Lambda$ be the diagonal matrix of the $\lambda_j$. The first
# two lines become
#
# $$\nabla h(\varphi^*) + \Lambda\, (\varphi^* - \theta) = 0, \qquad H J + \Lambda\, (J - I) = 0 .$$
#
# Derive lines 3 and 4 on paper, and write a function that computes the meta-gradient from $\varphi^*$ and $\Lambda$. One
# property that we used above no longer holds.


# %% tags=["exercise"] exercise="04.implicit_gradient"
def implicit_gradient(loss, task, adapted, proximal_strengths):
    """The meta-gradient at the minimum of the support loss plus a
    proximal term with one proximal strength for each parameter.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      adapted: φ*, the minimum of the inner problem, shape [d].
      proximal_strengths: λ_1, ..., λ_d, positive, shape [d].

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    matrix = jax.hessian(loss)(adapted, task.support) + jnp.diag(proximal_strengths)
    query_gradient = jax.grad(loss)(adapted, task.query)
    return proximal_strengths * jnp.linalg.solve(matrix, query_gradient)
    ### END SOLUTION


# %%
check("04.implicit_gradient", implicit_gradient)

# %% [markdown]
# ## Solve without a matrix
#
# A network with a million parameters has a Hessian with $10^{12}$ entries, which nobody stores. What we can have, for the
# price of about two gradients, is a **Hessian-vector product** $H v$. It is the derivative of the gradient along $v$, in
# code `jax.jvp(gradient, (phi,), (v,))[1]`. Two methods need nothing else of $H$. Write
# $b = \nabla f(\varphi^*)$ and $S = I + H / \lambda$, so that the system is $S g = b$.
#
# The **Neumann series** is the geometric series for matrices. Where it converges,
#
# $$S^{-1} b = b - \frac{H}{\lambda} b + \frac{H^2}{\lambda^2} b - \frac{H^3}{\lambda^3} b + \cdots$$
#
# Each term is $-H/\lambda$ times the term before it. One stops when the terms are small.
#
# The method of **conjugate gradients** (CG) requires a **positive definite** $S$, which means that all its eigenvalues
# are positive. Then $q(g) = \frac12 g^\top S g - b^\top g$ is lowest where its gradient $S g - b$ is zero, at the
# solution. CG begins at $g = 0$ and lowers $q$ along one direction after the other. From here on $g$ is the current
# estimate, and $r = b - S g$ is its **residual**, which is what is left over of the equation. The residual is also
# minus the gradient of $q$, so it points downhill. Let $p$ be the current search direction, at first $p = r$.
#
# 1. *How far along $p$?* $q(g + t p)$ is lowest where $p^\top (r - t S p) = 0$, so $t = p^\top r / p^\top S p$. The new
#    residual is $r_+ = r - t S p$.
# 2. *In which direction next?* Downhill, along $r_+$, but without spoiling what was gained along $p$. A step along
#    $p_+ = r_+ + c p$ changes the residual by a multiple of $S p_+$. So $q$ stays lowest along $p$ if $p^\top S p_+ = 0$
#    (the two directions are then called conjugate), and this gives $c = - r_+^\top S p / p^\top S p$.
# 3. *In simpler formulas.* The first two steps make $r_+$ orthogonal to $r$ and to $p$, and $p^\top r$ equal to $r^\top r$,
#    as the folded proof shows. With $S p = (r - r_+) / t$ we get $t = r^\top r / p^\top S p$ and
#    $c = r_+^\top r_+ / r^\top r$. Each step needs one Hessian-vector product, for $S p$.
#
# <details><summary>Why they are orthogonal</summary>
#
# Step 1 makes every residual orthogonal to the direction just used, so $r_+ \perp p$. The first time $p = r$, and nothing
# is left to show. Later let $p_-$ be the direction before $p$, so that $p = r + c_- p_-$. One step earlier, step 1 made
# $r \perp p_-$ and step 2 made $S p \perp p_-$, so $r_+ = r - t S p$ is orthogonal to $p_-$ as well. Now multiply
# $p = r + c_- p_-$ by $r$ and by $r_+$: this gives $p^\top r = r^\top r$ and $r_+^\top r = 0$.
#
# </details>

# %% [markdown]
# One can show by induction that each direction is conjugate to *all* earlier ones. So after $m$ steps CG has found the
# lowest $q$ among all combinations of $b, S b, \ldots, S^{m-1} b$, which form a **Krylov subspace**. The Neumann series
# combines such vectors too, but its coefficients are fixed in advance. The three steps are the body of this loop:


# %%
def cg_path(times, b, num_products):
    """CG on (I + H/λ) g = b, where times(v) is H v / λ: g after 0, 1, ... steps."""
    g, r, p = np.zeros_like(b), b, b
    path = [g]
    for _ in range(num_products):
        Sp = p + times(p)
        t = r @ r / (p @ Sp)
        g, r_next = g + t * p, r - t * Sp
        p = r_next + (r_next @ r_next) / (r @ r) * p
        r = r_next
        path.append(g)
    return np.stack(path)


# %% [markdown]
# We compare the two on a quadratic in 30 dimensions with largest curvature $L$, first with $\lambda = 2L$, then with
# $\lambda = L/2$.

# %%
neumann_prediction = predict("04.neumann")

# %% tags=["fold"]
quadratic = ml.tasks.Quadratic(dim=30, support_curvature=(0.02, 1.0))(jax.random.key(0), 1)
hessian = np.asarray(quadratic.support.hessian[0])
eigenvalues = np.linalg.eigvalsh(hessian)
L = eigenvalues[-1]
b = np.random.default_rng(0).normal(size=30)
errors = {}
for ratio in (2.0, 0.5):
    exact = np.linalg.solve(np.eye(30) + hessian / (ratio * L), b)
    for name, method in (("Neumann", lesson_04.neumann_path), ("CG", cg_path)):
        path = method(lambda v, ratio=ratio: hessian @ v / (ratio * L), b, 20)
        errors[name, ratio] = np.linalg.norm(path - exact, axis=1) / np.linalg.norm(exact)
growth = {ratio: errors["Neumann", ratio][-1] / errors["Neumann", ratio][-2] for ratio in (2.0, 0.5)}
for ratio, factor in growth.items():
    assert abs(factor * ratio - 1) < 0.05
    condition = (ratio * L + L) / (ratio * L + eigenvalues[0])
    rate = (condition**0.5 - 1) / (condition**0.5 + 1)
    assert (errors["CG", ratio][:11] <= 2 * condition**0.5 * rate ** np.arange(11) + 1e-12).all()
neumann_prediction.reveal(round(np.log2(growth[0.5])) + 1)
lesson_04.show_solvers(errors)

# %% [markdown]
# As with every geometric series, the error after $m$ terms is $(-H/\lambda)^m$ times the solution $S^{-1} b$. So along
# an eigenvector of $H$ with eigenvalue $a$, each Hessian-vector product multiplies the error by $-a/\lambda$. The
# eigenvalue of largest absolute value decides, here $L$: **the series converges when $\lambda > L$ and diverges when
# $\lambda < L$**. CG works whenever $S$ is positive definite, which is the same as $H + \lambda I$ positive definite.
# One can show that its relative error after $m$ steps is at most
# $2 \sqrt\kappa \, \big((\sqrt\kappa - 1)/(\sqrt\kappa + 1)\big)^m$, with the condition number
# $\kappa = (\lambda + L) / (\lambda + \mu)$, where $\mu$ is the smallest eigenvalue of $H$.
#
# That bound is often pessimistic, because it knows only the two extreme eigenvalues. After $m$ steps $g$ is a polynomial
# in $S$, of degree $m - 1$, times $b$. The residual $b - S g$ is then $P(S)\, b$ with a polynomial $P$ of degree $m$ and
# $P(0) = 1$, and CG finds the one with the lowest $q$. If $S$ has only $m$ different eigenvalues, one such $P$ is zero at
# all of them, and then the residual is zero. So CG is exact after $m$ steps, and never needs more steps than there are
# unknowns, if we leave rounding aside. How many steps does it need for the network that we adapted above, on task 4 and
# with the $\lambda$ that was best on average?

# %%
in_float64 = functools.partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float64))
theta_net, unravel = ravel_pytree(in_float64(initialization))
task_net = in_float64(jax.tree.map(lambda leaf: leaf[4], noisy_tasks))


def net_loss(phi, batch):
    """The network's loss, of one flat vector of parameters."""
    return loss(unravel(phi), batch)


net_gradient = jax.jit(jax.grad(net_loss))
net_hessian = jax.jit(jax.hessian(net_loss))
phi_net = ravel_pytree(in_float64(jax.tree.map(lambda leaf: leaf[4], adapted[best])))[0]
hessian_net = np.asarray(net_hessian(phi_net, task_net.support))
b_net = np.asarray(net_gradient(phi_net, task_net.query))
cg_prediction = predict("04.cg_products")

# %% tags=["fold"]
proximal_strength = proximal_strengths[best]
curvatures = np.linalg.eigh(hessian_net)[0]  # faster than eigvalsh
exact = np.linalg.solve(np.eye(len(b_net)) + hessian_net / proximal_strength, b_net)
net_errors = {
    name: np.linalg.norm(method(lambda v: hessian_net @ v / proximal_strength, b_net, 14) - exact, axis=1)
    / np.linalg.norm(exact)
    for name, method in (("Neumann", lesson_04.neumann_path), ("CG", cg_path))
}
needed = int(np.argmax(net_errors["CG"] < 0.01))
cg_prediction.reveal(needed)
assert -proximal_strength < curvatures[0] and curvatures[-1] > 10 * proximal_strength
assert needed == 7 and net_errors["Neumann"][needed] > 1e3 and len(b_net) == 481
lesson_04.show_spectrum(curvatures, proximal_strength, net_errors)

# %% [markdown]
# Why so few? The loss is the mean of $e_i^2$ over six points, where $e_i$ is prediction minus target. The Hessian of
# such a loss has two parts:
#
# $$H = \underbrace{\frac{2}{6} \sum_{i=1}^{6} \nabla e_i\, \nabla e_i^\top}_{\text{Gauss–Newton, rank 6}} +
# \frac{2}{6} \sum_{i=1}^{6} e_i\, \nabla^2 e_i .$$
#
# With the first part alone, $S$ has at most seven different eigenvalues: six from the support points, and 1 for all
# other directions. CG is then exact after seven steps, whatever the number of parameters. The second part blurs this.
# Here its largest eigenvalue is about as large as $\lambda$. (Most of it lies along directions in which the first part is
# large too, so the figure does not show it by itself.) Therefore seven steps leave a small error instead of none, and
# other tasks need a few more or fewer. The next cell separates the parts.


# %%
def predicted(phi):
    """The network at the support points, shape [6]."""
    return network(unravel(phi), task_net.support[0])[:, 0]


jacobian = np.asarray(jax.jacobian(predicted)(phi_net))  # shape [6, 481]
gauss_newton = 2 / 6 * jacobian.T @ jacobian
system = np.eye(481) + gauss_newton / proximal_strength
by_cg = cg_path(lambda v: gauss_newton @ v / proximal_strength, b_net, 7)[-1]
error = np.linalg.norm(by_cg - np.linalg.solve(system, b_net)) / np.linalg.norm(by_cg)
print(f"rank of the Gauss-Newton part: {np.linalg.matrix_rank(gauss_newton)}")
print(f"CG's error after 7 steps, with this part alone: {error:.0e}")

# %% tags=["fold"]
assert np.linalg.matrix_rank(gauss_newton) == 6 and error < 1e-6
second = hessian_net - gauss_newton
second_part = np.abs(np.linalg.eigh(second)[0]).max()
assert 0.5 < second_part / proximal_strength < 2
_outside = np.eye(481) - np.linalg.pinv(jacobian) @ jacobian  # the projection on what the first part does not know
_rest = np.abs(np.linalg.eigh(_outside @ second @ _outside)[0]).max()
assert _rest < second_part / 2
products = []
for i in range(20):
    each = in_float64(jax.tree.map(lambda leaf, i=i: leaf[i], noisy_tasks))
    point = ravel_pytree(in_float64(jax.tree.map(lambda leaf, i=i: leaf[i], adapted[best])))[0]
    matrix = np.asarray(net_hessian(point, each.support)) / proximal_strength
    right_side = np.asarray(net_gradient(point, each.query))
    exact = np.linalg.solve(np.eye(481) + matrix, right_side)
    path = cg_path(lambda v, matrix=matrix: matrix @ v, right_side, 40)
    products.append(int(np.argmax(np.linalg.norm(path - exact, axis=1) < 0.01 * np.linalg.norm(exact))))
print(f"steps for an error of one per cent, over all tasks: {min(products)} to {max(products)}")
assert min(products) >= 3 and max(products) <= 12

# %% [markdown]
# ## iMAML
#
# Put the pieces together, and you have **iMAML**, implicit MAML (Rajeswaran et al., 2019): minimize the proximal
# objective, take the query gradient, solve with CG. `ml.imaml` does this for any pytree and any inner optimizer that
# converges to the minimum. You have seen its result in the table of three optimizers.
#
# What does it cost? Count a Hessian-vector product as two gradients, as in lesson 03. The proximal term costs no
# gradient. So iMAML with $m$ Hessian-vector products costs $K + 1 + 2m$ gradients, and MAML $3K + 1$. (The library's CG
# needs one Hessian-vector product more than it takes steps, to compute the residual of its initial guess.) And how much
# must be remembered? We ask the compiler how many bytes each program needs besides its inputs and outputs.

# %%
memory_prediction = predict("04.memory")

# %% tags=["fold"]
memory, cost, cg_steps = {}, {}, 9
for num_steps in (20, 200):
    sgd = optax.sgd(0.005)
    for name, meta_gradient, gradients in (
        ("MAML", ml.maml(net_loss, sgd, num_steps), 3 * num_steps + 1),
        (
            "iMAML",
            ml.imaml(net_loss, sgd, num_steps, proximal_strength, cg_steps),
            num_steps + 1 + 2 * (cg_steps + 1),
        ),
    ):
        cost[name, num_steps] = gradients
        program = jax.jit(meta_gradient).lower(theta_net, task_net).compile()
        memory[name, num_steps] = program.memory_analysis().temp_size_in_bytes
growth = {name: memory[name, 200] / memory[name, 20] for name in ("MAML", "iMAML")}
memory_prediction.reveal(int(np.digitize(growth["iMAML"], [6, 2])))
assert growth["MAML"] > 5 and growth["iMAML"] < 1.05
plots.table(
    {f"{name}, K = {k}": [cost[name, k], round(memory[name, k] / 1e3)] for k in (20, 200) for name in growth},
    ["method", "cost in gradients", "working memory (kB)"],
    "MAML stores every inner step, iMAML only the minimum",
    "One task of the network with 481 parameters. iMAML solves with ten Hessian-vector products.",
)

# %% [markdown]
# MAML keeps all iterates of the inner loop for its backward pass, and iMAML keeps the last one. For a long inner loop
# of a large network this can decide whether the computation fits into memory. (MAML can also trade memory for
# computation, as lesson 07 will show.)

# %% [markdown]
# ## Can this gradient be trusted?
#
# The derivation began with "at the minimum", but a loop of a few steps stops before it gets there. What does iMAML
# return then? We compare it with backpropagation through the same loop, which is the gradient of what was really
# computed. The linear system is solved with a matrix, so that CG adds no error of its own.

# %%
unconverged_prediction = predict("04.unconverged")


# %%
@functools.partial(jax.jit, static_argnums=1)
def through_the_loop(proximal_strength, num_steps):
    """The exact gradient of the query loss after K steps, and φ_K."""

    def support_loss(phi):
        return net_loss(phi, task_net.support)

    def query_loss(theta):
        objective = ml.inner.proximal(support_loss, theta, proximal_strength)
        phi = ml.inner.descend(objective, optax.sgd(0.004), num_steps, theta)
        return net_loss(phi, task_net.query), phi

    return jax.grad(query_loss, has_aux=True)(theta_net)


def by_the_system(phi, proximal_strength):
    """The implicit gradient at φ, and whether the system is positive definite."""
    hessian = np.asarray(net_hessian(phi, task_net.support))
    system = np.eye(481) + hessian / proximal_strength
    g = np.linalg.solve(system, net_gradient(phi, task_net.query))
    try:
        np.linalg.cholesky(system)  # exists only for a positive definite matrix
    except np.linalg.LinAlgError:
        return g, False
    return g, True


# %% tags=["fold"]
tested = 10.0 ** np.arange(-1, 2.26, 0.25)
wrong, last, definite = ({5: [], 300: []} for _ in range(3))
for num_steps in (5, 300):
    for each in tested:
        exact, phi = through_the_loop(each, num_steps)
        implicit, is_definite = by_the_system(phi, each)
        support_gradient = net_gradient(phi, task_net.support)
        proximal_gradient = support_gradient + each * (phi - theta_net)
        definite[num_steps].append(is_definite)
        wrong[num_steps].append(np.linalg.norm(implicit - exact) / np.linalg.norm(exact))
        last[num_steps].append(np.linalg.norm(proximal_gradient) / np.linalg.norm(support_gradient))
wrong, last, definite = ({k: np.array(v) for k, v in each.items()} for each in (wrong, last, definite))
unconverged_prediction.reveal(int(np.digitize(wrong[5].max(), [0.2, 1])))
assert wrong[5].max() > 2 and not definite[5][wrong[5].argmax()]
assert (wrong[5][~definite[5]] > 0.5).all() and (wrong[5][tested < 4] > 0.5).all()
assert (definite[5] & (wrong[5] > 0.5)).any() and not definite[300][0]
assert wrong[5][-1] < 0.02 and (wrong[300][tested > 9] < 0.01).all()
assert (wrong[300] < wrong[5])[tested > 0.5].all()
assert definite[300][wrong[300] < 0.1].all()
assert wrong[300].max() > 2 * wrong[5].max() and not definite[300][wrong[300].argmax()]
lesson_04.show_trust(tested, wrong, definite)

# %% [markdown]
# After five steps and with a small $\lambda$, the error is about as large as the gradient itself, and at some $\lambda$
# several times as large. There are two reasons.
#
# - The loop has not converged. The formula is the derivative of a minimum, and we are not at one.
# - Where the loop stopped, the support loss can have a curvature below $-\lambda$ (the marked points). The system is then
#   **indefinite**, which means that it has negative eigenvalues too. The solve divides by each eigenvalue, and one that
#   is close to zero, on either side, makes the result large.
#
# At a minimum the proximal objective has no negative curvature, so an indefinite system proves that the loop has not
# reached one. A definite system does not prove that it has, as the five-step curve shows right of its last mark. A
# stronger proximal term helps. More steps help for most $\lambda$. At the smallest, however, even three hundred leave
# the system indefinite, and nothing then bounds the error: the highest point of the figure belongs to three hundred
# steps.
#
# From the returned vector alone you cannot tell a right gradient from a wrong one. What warns you is the **norm of the
# gradient of the proximal objective** where the inner loop stopped:

# %% tags=["fold"]
plots.table(
    {
        f"K\u00a0=\u00a0{k}, λ\u00a0=\u00a0{tested[i]:.3g}": [
            float(last[k][i]),
            "yes" if definite[k][i] else "no",
            float(wrong[k][i]),
        ]
        for k in (5, 300)
        for i in (0, 4, 8, 12)
    },
    ["run", "relative norm of the last gradient", "positive definite", "error"],
    "A small last gradient goes with a small error",
    "Norm of the proximal objective's gradient divided by that of the support loss; relative error of the implicit gradient.",
    digits=2,
)

# %% [markdown]
# Before you trust an implicit gradient, look at the last gradient of the inner loop. If the curvature of the proximal
# objective is at least $c > 0$ everywhere, the minimum is no farther away than the norm of this gradient, divided by $c$.
# With a small $\lambda$, $c$ can be small too, and then the norm must be smaller still. For a batch of tasks,
# `ml.evaluate.convergence` reports the norm relative to what it was at the initialization, and beside it the relative
# residual of CG.

# %% [markdown]
# ## Three implementations of iMAML
#
# Here are three implementations of iMAML. Each returns the adapted parameters $\varphi$, the gradient $b$ of the query loss,
# and the meta-gradient $g$. Read them, but do not decide yet.


# %%
def candidate_a(loss, task, params, proximal_strength):
    def objective(phi):
        distance = jnp.sum((phi - params) ** 2)
        return loss(phi, task.support) + proximal_strength * distance

    phi = ml.inner.descend(objective, optax.sgd(0.1), 400, params)
    b = jax.grad(loss)(phi, task.query)
    H = jax.hessian(loss)(phi, task.support)
    return phi, b, jnp.linalg.solve(jnp.eye(len(b)) + H / proximal_strength, b)


def candidate_b(loss, task, params, proximal_strength):
    def support_loss(phi):
        return loss(phi, task.support)

    objective = ml.inner.proximal(support_loss, params, proximal_strength)
    phi = ml.inner.descend(objective, optax.sgd(0.1), 400, params)
    b = jax.grad(loss)(phi, task.query)
    H = jax.hessian(support_loss)(params)
    return phi, b, jnp.linalg.solve(jnp.eye(len(b)) + H / proximal_strength, b)


# %%
def candidate_c(loss, task, params, proximal_strength):
    def support_loss(phi):
        return loss(phi, task.support)

    def product(v):
        Hv = jax.jvp(jax.grad(support_loss), (phi,), (v,))[1]
        return Hv + proximal_strength * v

    objective = ml.inner.proximal(support_loss, params, proximal_strength)
    phi = ml.inner.descend(objective, optax.sgd(0.05, momentum=0.5), 400, params)
    b = jax.grad(loss)(phi, task.query)
    return phi, b, jax.scipy.sparse.linalg.cg(product, proximal_strength * b)[0]


# %% tags=["fold"]
_exact = jnp.linalg.solve(identity + jax.hessian(h)(minimum(theta, 2.0)) / 2.0, jax.grad(f)(minimum(theta, 2.0)))
_candidates = {"A": candidate_a, "B": candidate_b, "C": candidate_c}
_found = {name: jax.jit(each, static_argnums=0)(sine_loss, task, theta, 2.0) for name, each in _candidates.items()}
for _, _, _g in _found.values():
    assert jnp.vdot(_g, _exact) > 0.5 * jnp.vdot(_exact, _exact)  # a small step against it lowers the meta-objective

# %% [markdown]
# We ran all three on the sine task with $\lambda = 2$. Each of their meta-gradients makes an acute angle with the right
# one, so a small outer step against it lowers $F_\text{prox}$, and a falling loss would not give a bug away.

# %% [markdown]
# ## Exercise: find the bug
#
# Every line of the derivation is an equation. Put in what an implementation has found, and what is left over is the
# residual of that line, as for CG: it is zero if the line holds. Write a function that returns the norms of three
# residuals, so that the first one that is not zero shows where the bug is. The check tries it on candidates like these
# three, on other right ones, and on some with bugs that you do not see here.


# %% tags=["exercise"] exercise="04.find_the_bug"
def residuals(candidate, loss, task, params, proximal_strength):
    """What is left of three equations, for an implementation of iMAML.

    Args:
      candidate: function of (loss, task, params, proximal_strength)
        that returns φ, b and g, three arrays of shape [d].
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query.
      params: θ, the initialization, shape [d].
      proximal_strength: λ, a positive number.

    Returns:
      An array of three numbers, each the norm of left side minus right
      side: of line 1 at φ; of the equation b = ∇f(φ); of the boxed
      system for g, with H at φ and the candidate's own b.
    """

    ### BEGIN SOLUTION
    def support_gradient(phi):
        return jax.grad(loss)(phi, task.support)

    phi, b, g = candidate(loss, task, params, proximal_strength)
    Hg = jax.jvp(support_gradient, (phi,), (g,))[1]
    left_over = [
        support_gradient(phi) + proximal_strength * (phi - params),
        b - jax.grad(loss)(phi, task.query),
        g + Hg / proximal_strength - b,
    ]
    return jnp.array([jnp.linalg.norm(each) for each in left_over])
    ### END SOLUTION


# %%
check("04.find_the_bug", residuals)

# %% [markdown]
# Once it passes, add a cell with `residuals(candidate_a, sine_loss, task, theta, 2.0)`, do the same for B and C, and give
# your verdict.

# %%
candidates_prediction = predict("04.candidates")

# %% tags=["fold"]
_rows = {
    name: [
        *lesson_04.residuals(lambda *_, name=name: _found[name], sine_loss, task, theta, 2.0),
        float(jnp.linalg.norm(_found[name][2] - _exact) / jnp.linalg.norm(_exact)),
    ]
    for name in _candidates
}
_wrong = {name: [value > 1e-3 for value in row] for name, row in _rows.items()}
assert _wrong == {"A": [True, False, False, True], "B": [False, False, True, True], "C": [False] * 4}
candidates_prediction.reveal([_wrong["A"][2], _wrong["A"][0], not _wrong["A"][3]].index(True))
plots.table(
    {name: [f"{value:.3f}" for value in row] for name, row in _rows.items()},
    ["candidate", "line 1", "b = ∇f(φ)", "boxed system", "error of g"],
    "The first residual that is not zero shows where the bug is",
    "Norms of the residuals, and relative error of the meta-gradient, on the sine task with λ = 2.",
)

# %% [markdown]
# <details><summary>What each candidate does</summary>
#
# **A** leaves out the ½ of the proximal term, so its inner loop converges to the minimum for $2 \lambda$. Everything
# after that is right, at the wrong point. **B** takes the Hessian at the initialization instead of at $\varphi^*$. **C**
# is right, although it looks least like the box: it never forms a matrix, and its system is the boxed one multiplied by
# $\lambda$.
#
# </details>

# %% [markdown]
# The residual of the linear system alone would have passed A, which solves its system exactly. Check every line, and
# give each the results of the lines before it, so that one bug shows in one place. The three residuals need two
# gradients and one Hessian-vector product, so they can be computed for a network of any size.

# %% [markdown]
# ## What to take away
#
# - A proximal term makes the adapted parameters a function of the initialization: unique and smooth, once
#   $H + \lambda I$ is positive definite everywhere.
# - In directions of small curvature, early stopping after $K$ steps keeps about as much of the initialization as a
#   proximal term with $\lambda = 1 / (\alpha K)$.
# - Implicit differentiation gives the meta-gradient from the minimum alone: $(I + H/\lambda)\, g = \nabla f(\varphi^*)$, whatever
#   the inner optimizer.
# - The Neumann series needs $\lambda > L$. Conjugate gradients need $H + \lambda I$ positive definite, and few steps where
#   few curvatures are large.
# - If the inner loop has not converged, the error of an implicit gradient can be many times the gradient itself.
#   Nothing in the returned vector shows this or any bug, but the residuals of the equations do.
#
# iMAML needs Hessian-vector products and a solver. Can the same meta-gradient be had from gradients alone?

# %%
quiz("04")

# %%
progress("04")

# %% [markdown]
# ## Limits
#
# - The formula assumes that the inner loop has converged. For a loop that stops early it is not the meta-gradient.
# - The correspondence $\lambda \approx 1/(\alpha K)$ was derived for a quadratic and is close only for small curvatures.
# - That about seven steps of CG suffice is due to the six support points. More points, or another loss than the squared
#   error, change the number of large curvatures.
# - A residual of zero proves that an equation holds, not that the system is positive definite, and a small residual means
#   a small error only if no eigenvalue of the system is close to zero.
# - One network was used to compare errors, memory and steps of CG, and one task for the first two. The settings are ours,
#   and nothing here says which method trains the better initialization. Lesson 07 compares the methods.
#
# ## Go further
#
# - A. Rajeswaran, C. Finn, S. Kakade, S. Levine. *Meta-learning with implicit gradients.* 2019.
#   [arXiv 1909.04630](https://arxiv.org/abs/1909.04630). iMAML.
# - P. Zhou, X. Yuan, H. Xu, S. Yan, J. Feng. *Efficient meta learning via minibatch proximal update.* NeurIPS 2019.
#   Meta-MinibatchProx: adaptation with a proximal term to a learned initialization, published in the same year as iMAML.
# - E. Grant, C. Finn, S. Levine, T. Darrell, T. Griffiths. *Recasting gradient-based meta-learning as hierarchical
#   Bayes.* 2018. [arXiv 1801.08930](https://arxiv.org/abs/1801.08930). Early stopping as a prior around the
#   initialization.
# - J. Lorraine, P. Vicol, D. Duvenaud. *Optimizing millions of hyperparameters by implicit differentiation.* 2020.
#   [arXiv 1911.02590](https://arxiv.org/abs/1911.02590). The Neumann series in place of conjugate gradients.
# - J. R. Shewchuk. *An introduction to the conjugate gradient method without the agonizing pain.* 1994.
# - K. Mishchenko, S. Hanzely, P. Richtárik. *Convergence of first-order algorithms for meta-learning with Moreau
#   envelopes.* 2023. [arXiv 2301.06806](https://arxiv.org/abs/2301.06806). Where support and query loss are the same and the
#   proximal term is counted in the meta-objective, the meta-gradient needs no solve at all.
