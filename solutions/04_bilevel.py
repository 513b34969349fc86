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
# - **explain** what a spring to the start does to adaptation, and how stiff it must be,
# - **derive** the meta-gradient from the point where adaptation ends,
# - **implement** it with a matrix, and with products only,
# - **predict** when a Neumann series diverges, and what conjugate gradients do instead,
# - **recognise** when an implicit gradient cannot be trusted,
# - **derive** why the Moreau envelope needs no solve, and what it gives up for that.
#
# **New symbols**
#
# - $\lambda$: proximal strength
# - $\phi^*$: minimizer of the inner problem

# %% tags=["imports"]
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## A long walk forgets its start
#
# On a parabola of curvature $a$, each inner step of lesson 02 multiplied a nudge to the start by $1 - \alpha a$. Five steps
# kept more than half of it. What do sixty keep? If nothing is left, the adapted point does not depend on the start, and
# there is nothing to learn.
#
# So tie the adapted point to the start with a **spring** of strength $\lambda$. Adaptation now descends
#
# $$h(\phi) + \frac{\lambda}{2} \lVert \phi - \theta \rVert^2 .$$
#
# The first term wants to fit the support points. The second wants to stay near the start. Its slope
# $\lambda (\phi - \theta)$ grows with the distance, as the force of a spring does.

# %%
survives_prediction = predict(
    "04.survives",
    "A parabola of curvature 1, a spring of strength 0.5. After very many steps, "
    "what fraction of a nudge to the start is left in the adapted point?",
    unit="of it",
)

# %%
curvature, alpha = 1.0, 0.1


def nudge_left(strength, num_steps):
    """How far the adapted point moves, for a nudge of length 1 to the start, after 0, 1, ..., num_steps steps."""
    left = [1.0]
    for _ in range(num_steps):
        slope = curvature * left[-1] + strength * (left[-1] - 1)
        left.append(left[-1] - alpha * slope)
    return np.array(left)


left = {"no spring": nudge_left(0.0, 60), "spring, λ = 0.5": nudge_left(0.5, 60)}
survives_prediction.reveal(left["spring, λ = 0.5"][-1])
assert np.isclose(left["spring, λ = 0.5"][-1], 0.5 / (0.5 + curvature), atol=1e-3)
assert np.allclose(left["no spring"], (1 - alpha * curvature) ** np.arange(61))
plots.show(
    plots.lines(np.arange(61), left, "inner steps K", "fraction of a nudge that is left", ylim=(0, 1.05)),
    alt="Fraction of a nudge against inner steps. Without a spring it falls to zero. With a spring of strength one half "
    "it levels off at one third.",
)

# %% [markdown]
# Without a spring the walk forgets where it began. With one, a fixed part survives, however long the walk: the two slopes
# balance at $\lambda / (\lambda + a)$, here one third. That number needs no path. It is the idea of this lesson.

# %% [markdown]
# ## Exercise: adaptation with a spring
#
# Write gradient descent on the pulled objective $h(\phi) + \frac{\lambda}{2} \lVert \phi - \theta \rVert^2$, from
# $\phi_0 = \theta$.


# %% tags=["exercise"] exercise="04.pulled_descent"
def pulled_descent(loss, batch, params, step_size, num_steps, strength):
    """The adapted parameters: gradient descent on the loss with a
    spring to the start.

    Args:
      loss: function of (params, batch) that returns a scalar.
      batch: the support set, a batch for `loss`.
      params: theta, the start, any pytree of arrays.
      step_size: alpha, a number.
      num_steps: K, a whole number of at least 1.
      strength: lambda, a number.

    Returns:
      phi_K, a pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    phi = params
    for _ in range(num_steps):
        slope = jax.grad(loss)(phi, batch)
        phi = jax.tree.map(lambda p, g, t: p - step_size * (g + strength * (p - t)), phi, slope, params)
    return phi
    ### END SOLUTION


# %%
check("04.pulled_descent", pulled_descent)

# %% [markdown]
# The library has the objective as `ml.inner.proximal(objective, start, strength)`.
#
# ## What the spring does to a fit
#
# A start for the sine curves, learned with MAML as in lesson 02. Then 20 new tasks, each with six support points and
# much noise on them. The query points have no noise.

# %%
family = ml.tasks.Sinusoid(num_support=10, num_query=10)
random_start, network = ml.models.functional(ml.models.MLP((1, 20, 20, 1), activation=jnp.tanh, rngs=nnx.Rngs(0)))
loss = ml.losses.mean_squared_error(network)
learner = ml.meta_learner(ml.maml(loss, optax.sgd(0.01), num_steps=5), optax.adam(2e-3))
start = ml.fit(learner, random_start, family, num_steps=3_000, meta_batch_size=10, key=jax.random.key(0)).params

new_tasks = ml.tasks.Sinusoid(num_support=6, num_query=200)(jax.random.key(7), 20)
noise = jax.random.normal(jax.random.key(8), new_tasks.support[1].shape)
noisy_tasks = ml.Task((new_tasks.support[0], new_tasks.support[1] + noise), new_tasks.query)

# %%
strengths = 10.0 ** np.arange(-3, 3.01, 0.5)
x = jnp.linspace(-5, 5, 101)[:, None]


def adapt_with(strength, task):
    """Adapted parameters, their curve, and their query loss."""
    pulled = ml.inner.proximal(lambda phi: loss(phi, task.support), start, strength)
    adapted = ml.inner.descend(pulled, optax.sgd(1 / (200 + strength)), 2_000, start)
    return adapted, network(adapted, x)[:, 0], loss(adapted, task.query)


every_pair = jax.vmap(jax.vmap(adapt_with, in_axes=(None, 0)), in_axes=(0, None))
adapted, adapted_curves, query_losses = jax.jit(every_pair)(strengths, noisy_tasks)
mean_loss = query_losses.mean(axis=1)
best = int(mean_loss.argmin())
print(f"query loss, mean of 20 tasks: weakest spring {mean_loss[0]:.2f}, stiffest {mean_loss[-1]:.2f}")
print(f"lowest {mean_loss[best]:.2f}, at λ = {strengths[best]:.2g}")
assert mean_loss[best] < 0.7 * min(mean_loss[0], mean_loss[-1])


# %% [markdown]
# Move the strength from left to right, on several tasks. **Where does the curve stop following the noise, and where does it
# stop adapting?**


# %%
def draw_fit(log10_strength, task):
    i = int(np.abs(np.log10(strengths) - log10_strength).argmin())
    figure, (left, right) = plots.subplots(2, height=3.4)
    query_x, query_y = (np.asarray(leaf[task, :, 0]) for leaf in new_tasks.query)
    in_order = query_x.argsort()
    plots.lines(
        np.asarray(x[:, 0]),
        {
            "start": network(start, x)[:, 0],
            "adapted": adapted_curves[i, task],
            "true curve": np.interp(x[:, 0], query_x[in_order], query_y[in_order]),
        },
        "x",
        "y",
        points={"noisy support": tuple(np.asarray(leaf[task, :, 0]) for leaf in noisy_tasks.support)},
        title=f"task {task}, λ = {strengths[i]:.2g}",
        ylim=(-7, 11),
        axes=left,
    )
    right.plot(np.log10(strengths), mean_loss, label="mean of 20 tasks")
    right.plot(np.log10(strengths), query_losses[:, task], label=f"task {task}")
    right.axvline(np.log10(strengths[i]), color="black", linewidth=1, linestyle=":")
    right.set_ylim(0, 1.05 * max(6, query_losses[:, task].max()))
    plots.label(right, "log₁₀ λ", "query loss (squared error)")
    return figure


explore(
    draw_fit,
    "Left: the learned start, the curve adapted to six noisy points with a spring of the chosen strength, and the true "
    "curve. Right: query loss against the strength of the spring, of this task and the mean of twenty, which is lowest in "
    "between.",
    log10_strength=(-3.0, 3.0, 0.5, -3.0),
    task=(0, 19, 1, 4),
)

# %% [markdown]
# With a weak spring the curve bends to meet the noise. With a stiff spring it stays at the start. In between, on average,
# it adapts and smooths the noise out: the start supplies what six points cannot. Single tasks differ. **The strength is
# a choice about the tasks, as the number of steps was.**

# %% [markdown]
# ## How stiff must a spring be?
#
# A loss can have several minima. Take $h(\phi) = 1 - \cos \phi$: its curvature $\cos \phi$ lies between $-1$ and $1$.
# The spring adds $\lambda$ to the curvature everywhere.

# %%
one_minimum_prediction = predict(
    "04.one_minimum",
    "Above which strength does the pulled objective have a single minimum, wherever the start is?",
)

# %%
fine = np.linspace(-12, 18, 30_001)


def num_minima(strength, start):
    slope = np.sin(fine) + strength * (fine - start)
    return int(((slope[:-1] < 0) & (slope[1:] >= 0)).sum())


most = {s: max(num_minima(s, start) for start in np.linspace(0, 2 * np.pi, 101)) for s in (0.25, 0.9, 1.0, 1.5)}
print("most minima:", ", ".join(f"{number} for λ = {s}" for s, number in most.items()))
one_minimum_prediction.reveal(1.0)
assert most[0.9] > 1 and most[1.0] == most[1.5] == 1

# %% [markdown]
# The spring must outweigh the most negative curvature. Then the pulled objective is **strongly convex**: its curvature
# is at least a positive number everywhere. It has one minimum, gradient descent with a small step finds it from anywhere, and
# the minimum moves smoothly with the start:

# %%
starts = np.linspace(0, 2 * np.pi, 401)
ends = {}
for strength in (0.25, 1.5):
    phi = starts
    for _ in range(400):
        phi = phi - 0.4 * (np.sin(phi) + strength * (phi - starts))
    ends[f"λ = {strength}"] = phi

figure, (left_axes, right_axes) = plots.subplots(2, height=3.4)
window = np.linspace(-1.5, 7.5, 301)
pulled = {f"λ = {s}": 1 - np.cos(window) + s / 2 * (window - 2.6) ** 2 for s in (0.25, 1.5)}
plots.lines(window, pulled, "φ", "pulled objective, θ = 2.6", ylim=(0, 6), axes=left_axes)
plots.lines(starts, ends, "start θ", "where descent from θ ends", axes=right_axes)
jump = {name: np.abs(np.diff(values)).max() for name, values in ends.items()}
assert jump["λ = 0.25"] > 1 and jump["λ = 1.5"] < 0.1
plots.show(
    figure,
    alt="Left: the pulled objective for two springs. The weak one leaves two minima, the stiff one leaves one. "
    "Right: where descent ends against the start. With the weak spring it jumps at pi, with the stiff one it does not.",
)

# %% [markdown]
# With the weak spring, a start left of $\pi$ rolls to one side and a start right of it to the other. There the end jumps,
# and its derivative says nothing about the jump. With the stiff spring there is a derivative everywhere. Let us find it.

# %% [markdown]
# ## The derivation, line by line
#
# Adaptation is now a problem of its own, and the meta-objective sits on top of it. That is a **bilevel** problem:
#
# $$F(\theta) = f(\phi^*(\theta)), \qquad
# \phi^*(\theta) = \arg\min_\phi \; h(\phi) + \frac{\lambda}{2} \lVert \phi - \theta \rVert^2 .$$
#
# The example is the two-parameter sine curve of lessons 02 and 03, in float64.

# %%
jax.config.update("jax_enable_x64", True)
jax.clear_caches()  # frees the memory of the programs in float32


@jax.jit
def wave_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


example = ml.tasks.Sinusoid(num_support=5, num_query=5).task(jax.random.key(3), amplitude=2.0, phase=1.0)
theta, lam, inner_step = jnp.array([1.0, 0.3]), 0.5, 0.2


def h(phi):
    return wave_loss(phi, example.support)


def f(phi):
    return wave_loss(phi, example.query)


@jax.jit
def solution(theta):
    """phi*, by many steps."""
    return ml.inner.descend(ml.inner.proximal(h, theta, lam), optax.sgd(inner_step), 300, theta)


phi_star = solution(theta)

# %% [markdown]
# **Line 1, where the two slopes balance.** At the minimum the slope of the pulled objective is zero:
#
# $$\nabla h(\phi^*) + \lambda\, (\phi^* - \theta) = 0 .$$

# %% tags=["nbval-check-output"]
assert jnp.allclose(jax.grad(h)(phi_star), lam * (theta - phi_star))
print("line 1 holds")

# %% [markdown]
# **Line 2, differentiate line 1 in $\theta$.** It holds for every start, so both sides keep pace when the start moves.
# With $H = \nabla^2 h(\phi^*)$ and $J = \partial \phi^* / \partial \theta$,
#
# $$H J + \lambda\, (J - I) = 0 .$$
#
# This step is the **implicit function theorem**. It needs $H + \lambda I$ to be invertible, which a stiff enough spring
# guarantees. The cell takes $J$ from differences: it nudges the start and solves again.

# %% tags=["nbval-check-output"]
H, identity, nudge = jax.hessian(h)(phi_star), jnp.eye(2), 1e-5
J = jnp.stack([(solution(theta + nudge * e) - solution(theta - nudge * e)) / (2 * nudge) for e in identity], axis=1)
assert jnp.linalg.eigvalsh(H + lam * identity).min() > 0
assert jnp.allclose(H @ J + lam * (J - identity), 0, atol=1e-7)
print("line 2 holds")

# %% [markdown]
# **Line 3, solve for $J$.**
#
# $$J = \Big(I + \frac{1}{\lambda} H\Big)^{-1} .$$
#
# On a parabola this is the $\lambda / (\lambda + a)$ of the first figure.

# %% tags=["nbval-check-output"]
assert jnp.allclose(J, jnp.linalg.inv(identity + H / lam), atol=1e-7)
print("line 3 holds")

# %% [markdown]
# **Line 4, the chain rule.** $\nabla F(\theta) = J^\top \nabla f(\phi^*)$, and $J$ is symmetric because $H$ is. So the
# meta-gradient $g$ is the solution of one linear system:
#
# $$\boxed{\;\Big(I + \frac{1}{\lambda} H\Big)\, g = \nabla f(\phi^*)\;}$$

# %%
g = jnp.linalg.solve(identity + H / lam, jax.grad(f)(phi_star))
assert jnp.allclose(g, jax.grad(lambda theta: f(solution(theta)))(theta))
print("by the linear system:              ", g)
print("by jax.grad through 300 steps:     ", jax.grad(lambda theta: f(solution(theta)))(theta))
print("without the system, ∇f(φ*):        ", jax.grad(f)(phi_star))

# %% [markdown]
# Compare with lesson 02. There one factor $(I - \alpha H_k)$ stood for each step. Here one inverse stands for all, and
# only the *end* of the path occurs in it. Any way to reach the end will do.
#
# The last vector printed leaves out the solve. It is **FO-MAML**, taken at the same adapted point: let
# $\lambda \to \infty$ in the boxed system, keep the point, and $H / \lambda$ vanishes. FO-MAML treats the end of its
# walk as if an infinitely stiff spring held it.

# %%
for stiffness in (1.0, 100.0, 10_000.0):
    found = jnp.linalg.solve(identity + H / stiffness, jax.grad(f)(phi_star))
    distance = jnp.linalg.norm(found - jax.grad(f)(phi_star))
    print(f"λ = {stiffness:7.0f} in the system, same point: distance to FO-MAML {distance:.5f}")
assert distance < 1e-3

# %% [markdown]
# ## Exercise: the implicit gradient, with a matrix
#
# The adapted point is given. Form the Hessian, and solve the boxed system.


# %% tags=["exercise"] exercise="04.implicit_gradient"
def implicit_gradient(loss, task, adapted, strength):
    """The gradient, with respect to the start, of the query loss at the
    pulled minimum.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      adapted: phi*, the minimum of the support loss with a spring to
        the start, an array of shape [d].
      strength: lambda, a number.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    hessian = jax.hessian(loss)(adapted, task.support)
    system = jnp.eye(len(adapted)) + hessian / strength
    return jnp.linalg.solve(system, jax.grad(loss)(adapted, task.query))
    ### END SOLUTION


# %%
check("04.implicit_gradient", implicit_gradient)

# %% [markdown]
# ## A solve without a matrix
#
# A network with a million parameters has a Hessian with $10^{12}$ entries. Nobody forms it. What can be had is a
# *product* $H v$, for the price of about two gradients. Two methods use nothing else. Write $b = \nabla f(\phi^*)$.
#
# The **Neumann series** is the geometric series for matrices:
#
# $$\Big(I + \frac{H}{\lambda}\Big)^{-1} b = b - \frac{H}{\lambda} b + \frac{H^2}{\lambda^2} b - \frac{H^3}{\lambda^3} b +
# \cdots$$
#
# Each term is the product of $-H/\lambda$ with the last one. Stop when the terms are small.
#
# **Conjugate gradients** (CG) combine the same vectors $b$, $(H/\lambda)\, b$, $(H/\lambda)^2 b$, and so on. Neumann's
# coefficients are fixed: plus one, minus one, plus one. CG chooses the best ones. Best means: lowest
# $\frac12 g^\top A g - b^\top g$ with $A = I + H/\lambda$, a bowl with the solution at its bottom. The code is below;
# the references derive it.
#
# For a test, a parabola in 30 dimensions. Its largest curvature is $L$. First $\lambda = 2L$, then $\lambda = L/2$.

# %%
neumann_prediction = predict(
    "04.neumann",
    "λ is half the largest curvature. After many products, what does one more do to the error of the Neumann series?",
    options=["it halves the error", "it leaves the error as it is", "it doubles the error"],
)


# %%
def neumann_path(times, b, num_products):
    """The sums after 0, 1, ..., num_products products; times(v) = H v / lambda."""
    term, path = b, [b]
    for _ in range(num_products):
        term = -times(term)
        path.append(path[-1] + term)
    return np.stack(path)


def cg_path(times, b, num_products):
    """Conjugate gradients on v + times(v) = b: where they stand after 0, 1, ..., num_products products."""
    g, residual, direction = np.zeros_like(b), b, b
    path = [g]
    for _ in range(num_products):
        product = direction + times(direction)
        rate = residual @ residual / (direction @ product)  # to the bottom of the bowl along this direction
        g, smaller = g + rate * direction, residual - rate * product
        direction = smaller + (smaller @ smaller) / (residual @ residual) * direction
        residual = smaller
        path.append(g)
    return np.stack(path)


quadratic = ml.tasks.Quadratic(dim=30, support_curvature=(0.02, 1.0))(jax.random.key(0), 1)
hessian = np.asarray(quadratic.support.hessian[0])
eigenvalues = np.linalg.eigvalsh(hessian)
L = eigenvalues[-1]
b = np.random.default_rng(0).normal(size=30)
errors, products = {}, np.arange(21)
for ratio in (2.0, 0.5):
    exact = np.linalg.solve(np.eye(30) + hessian / (ratio * L), b)
    for name, method in (("Neumann", neumann_path), ("CG", cg_path)):
        path = method(lambda v, ratio=ratio: hessian @ v / (ratio * L), b, 20)
        errors[name, ratio] = np.linalg.norm(path - exact, axis=1) / np.linalg.norm(exact)
growth = {ratio: errors["Neumann", ratio][-1] / errors["Neumann", ratio][-2] for ratio in (2.0, 0.5)}
neumann_prediction.reveal("it doubles the error")
for ratio, factor in growth.items():
    print(f"λ = {ratio} L, so L/λ = {1 / ratio}")
    print(f"  one more product multiplies Neumann's error by {factor:.2f}")
    assert abs(factor * ratio - 1) < 0.05
    condition = (ratio * L + L) / (ratio * L + eigenvalues[0])
    bound = 2 * condition**0.5 * ((condition**0.5 - 1) / (condition**0.5 + 1)) ** 10
    print(f"  CG's error after 10 products: {errors['CG', ratio][10]:.0e}, by its bound below {bound:.0e}")
    assert errors["CG", ratio][10] < bound

# %%
figure, both = plots.subplots(2, height=3.4)
for axes, ratio in zip(both, (2.0, 0.5), strict=True):
    plots.lines(
        products,
        {name: np.maximum(errors[name, ratio], 1e-14) for name in ("Neumann", "CG")},
        "Hessian-vector products",
        "relative error",
        title=f"λ = {ratio:g} L",
        ylim=(1e-15, 1e7),
        log="y",
        axes=axes,
    )
plots.show(
    figure,
    alt="Relative error against Hessian-vector products, logarithmic. Left, with a spring twice as stiff as the largest "
    "curvature, both methods fall. CG is lower from the second product on, and ends on a floor of rounding. Right, with a "
    "spring half as stiff as the largest curvature, Neumann's error grows and CG's falls.",
)

# %% [markdown]
# Along an eigenvector with eigenvalue $a$, Neumann's error is multiplied by $-a/\lambda$. The eigenvalue of the largest size
# decides. Here that is $L$: the series converges when $\lambda > L$ and diverges when $\lambda < L$. CG works whenever
# $H + \lambda I$ is **positive definite**: all its eigenvalues are positive. Its relative error after $m$ products is at most
# $2 \sqrt\kappa \, \big((\sqrt\kappa - 1)/(\sqrt\kappa + 1)\big)^m$, with the condition number
# $\kappa = (\lambda + L) / (\lambda + \mu)$ and $\mu$ the smallest eigenvalue.
#
# Is $\lambda > L$ a strong demand? Ask the network of the slider, on task 4, with the spring that was best on average.

# %%
flat_start, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start))
task64 = jax.tree.map(lambda leaf: leaf[4].astype(jnp.float64), noisy_tasks)


def flat_loss(phi, batch):
    """The network's loss, of one flat vector."""
    return loss(unravel(phi), batch)


network_gradient, network_hessian = jax.jit(jax.grad(flat_loss)), jax.jit(jax.hessian(flat_loss))
strength = strengths[best]
flat_adapted = ravel_pytree(jax.tree.map(lambda leaf: leaf[best, 4].astype(jnp.float64), adapted))[0]
curvatures = np.linalg.eigvalsh(network_hessian(flat_adapted, task64.support))
print(f"{len(curvatures)} parameters; curvatures from {curvatures[0]:.2f} to {curvatures[-1]:.0f}; λ = {strength:.2g}")
assert -strength < curvatures[0] and curvatures[-1] > 10 * strength

cg_prediction = predict(
    "04.cg_products",
    "481 unknowns, six support points. How many products does CG need for an error of one per cent?",
    unit="products",
)

# %%
scaled = np.asarray(network_hessian(flat_adapted, task64.support)) / strength
b = np.asarray(network_gradient(flat_adapted, task64.query))
exact = np.linalg.solve(np.eye(len(b)) + scaled, b)
cg_errors, neumann_errors = (
    np.linalg.norm(method(lambda v: scaled @ v, b, 30) - exact, axis=1) / np.linalg.norm(exact)
    for method in (cg_path, neumann_path)
)
needed = int(np.argmax(cg_errors < 0.01))
cg_prediction.reveal(needed)
print(f"CG: {needed} products for one per cent. Neumann after as many: error {neumann_errors[needed]:.0e}")
not_small = int((np.abs(curvatures) > strength / 10).sum())
print(f"curvatures above λ/10 in size: {not_small} of {len(b)}")
assert 0 < needed < 30 and neumann_errors[needed] > 1e3 and not_small < len(b) / 10

# %% [markdown]
# The largest curvature is many times $\lambda$, so Neumann is hopeless here. CG needs a handful of products for hundreds
# of unknowns. The reason is the list of curvatures: nearly all are small beside $\lambda$, so nearly all eigenvalues of
# the system lie close to one. What CG has to find are the few that stand apart, however many parameters there are.

# %% [markdown]
# ## Exercise: the Neumann series, with products only
#
# For any pytree of parameters. A product with the Hessian is the derivative of the gradient in one direction:
# `jax.jvp(gradient, (phi,), (v,))[1]`.


# %% tags=["exercise"] exercise="04.neumann_series"
def neumann_series(
    loss,
    batch,
    adapted,
    vector,
    strength,
    num_products,
):
    """The Neumann series for (I + H / strength)^-1 vector, cut off
    after `num_products` products.

    Args:
      loss: function of (params, batch) that returns a scalar.
      batch: the support set; H is the Hessian of the loss on it.
      adapted: where H is taken, any pytree of arrays.
      vector: what the inverse is applied to, a pytree like `adapted`.
      strength: lambda, a number.
      num_products: the number of Hessian-vector products, at least 1;
        the sum has one term more.

    Returns:
      A pytree like `adapted`.
    """

    ### BEGIN SOLUTION
    def gradient(phi):
        return jax.grad(loss)(phi, batch)

    total = term = vector
    for _ in range(num_products):
        product = jax.jvp(gradient, (adapted,), (term,))[1]
        term = jax.tree.map(lambda p: -p / strength, product)
        total = jax.tree.map(jnp.add, total, term)
    return total
    ### END SOLUTION


# %%
check("04.neumann_series", neumann_series)

# %% [markdown]
# ## iMAML
#
# Put the pieces together, and you have **iMAML**, implicit MAML (Rajeswaran and others, 2019): descend the pulled
# objective, take the query gradient, solve with CG. `ml.imaml` does this for any pytree.

# %%
by_library = jax.jit(ml.imaml(wave_loss, optax.sgd(inner_step), 300, lam, cg_steps=2))(theta, example)[1]
assert jnp.allclose(by_library, g)
print("ml.imaml:", by_library)

# %% [markdown]
# Count as in lesson 03, a Hessian-vector product as two gradients. The spring costs no gradient. So iMAML with $m$
# products costs $K + 1 + 2m$, and MAML $3K + 1$. And what does the computer have to remember? Ask the compiler how many
# bytes each program needs besides its inputs and outputs.

# %%
memory_prediction = predict(
    "04.memory",
    "From 20 to 200 inner steps: by what factor does the working memory of iMAML grow?",
    options=["about 10", "about 3", "about 1"],
)


# %%
def working_memory(meta_gradient):
    program = jax.jit(meta_gradient).lower(flat_start, task64).compile()
    return program.memory_analysis().temp_size_in_bytes


memory, cg_steps = {}, 10
for num_steps in (20, 200):
    sgd = optax.sgd(0.005)
    for name, meta_gradient, cost in (
        ("MAML", ml.maml(flat_loss, sgd, num_steps), 3 * num_steps + 1),
        ("iMAML", ml.imaml(flat_loss, sgd, num_steps, strength, cg_steps), num_steps + 1 + 2 * cg_steps),
    ):
        memory[name, num_steps] = working_memory(meta_gradient)
        print(f"K = {num_steps:3d}   {name:5s} {cost:4d} gradients   {memory[name, num_steps] / 1e3:8.0f} kB")
growth = {name: memory[name, 200] / memory[name, 20] for name in ("MAML", "iMAML")}
memory_prediction.reveal("about 1")
print(", ".join(f"{name} grows by {factor:.2f}" for name, factor in growth.items()))
assert growth["MAML"] > 5 and growth["iMAML"] < 1.05

# %% [markdown]
# MAML keeps the path. iMAML keeps its end. For a long inner loop of a large network that can be the difference between
# fitting in memory and not. **The solve needs no path.**

# %% [markdown]
# ## When the answer is not an answer
#
# The derivation began with "at the minimum". A loop of a few steps stops before it gets there. What does iMAML return then?
#
# To know, compare it with `jax.grad` through the same loop: the gradient of what was really computed. Same network,
# same task, springs from weak to stiff, and two lengths of the loop. The cell solves with the matrix, so that conjugate
# gradients add no error of their own.

# %%
unconverged_prediction = predict(
    "04.unconverged",
    "Five inner steps, springs from weak to stiff. At the worst of them, how large is the error of the implicit gradient?",
    options=["some per cent of the gradient", "about half of the gradient", "several times the gradient"],
)


# %%
def loop_and_solve(num_steps):
    """A function of the spring: (exact gradient of the loop, where it ended)."""

    def loss_and_end(start, strength):
        pulled = ml.inner.proximal(lambda phi: flat_loss(phi, task64.support), start, strength)
        end = ml.inner.descend(pulled, optax.sgd(0.004), num_steps, start)
        return flat_loss(end, task64.query), end

    both = jax.grad(loss_and_end, has_aux=True)
    return jax.jit(jax.vmap(lambda strength: both(flat_start, strength)))


springs = 10.0 ** np.arange(-1, 2.26, 0.25)
wrong, lowest = {}, {}
print("error of the implicit gradient; last slope of the pulled objective")
for num_steps in (5, 300):
    exact_gradients, loop_ends = map(np.asarray, loop_and_solve(num_steps)(springs))
    wrong[num_steps], lowest[num_steps], last_slopes = [], [], []
    for spring, exact, end in zip(springs, exact_gradients, loop_ends, strict=True):
        system = np.asarray(network_hessian(end, task64.support)) / spring + np.eye(len(end))
        implicit = np.linalg.solve(system, network_gradient(end, task64.query))
        wrong[num_steps].append(np.linalg.norm(implicit - exact) / np.linalg.norm(exact))
        lowest[num_steps].append(np.linalg.eigvalsh(system)[0])
        pulled_slope = network_gradient(end, task64.support) + spring * (end - flat_start)
        last_slopes.append(float(jnp.linalg.norm(pulled_slope)))
    wrong[num_steps], lowest[num_steps] = np.array(wrong[num_steps]), np.array(lowest[num_steps])
    for i in (0, 2, 4, 6, 8, 12):
        definite = "positive definite" if lowest[num_steps][i] > 0 else "indefinite"
        numbers = f"{wrong[num_steps][i]:8.1%}   {last_slopes[i]:7.1e}"
        print(f"K = {num_steps:3d}   λ = {springs[i]:5.3g}   {numbers}   system {definite}")
unconverged_prediction.reveal("several times the gradient")
worst = int(wrong[5].argmax())
print(f"worst after 5 steps: {wrong[5][worst]:.0%}, at λ = {springs[worst]:.2g}")
assert wrong[5][worst] > 3 and lowest[5][worst] < 0
assert (wrong[5][lowest[5] < 0] > 0.5).all() and (wrong[5][springs < 4] > 0.5).all()
assert wrong[5][-1] < 0.02 and (wrong[300][springs > 9] < 0.01).all()
assert (wrong[300] < wrong[5])[springs > 0.3].all() and (lowest[300][wrong[300] < 0.1] > 0).all()

# %%
indefinite = [np.where(lowest[k] < 0)[0] for k in wrong]
plots.show(
    plots.lines(
        np.log10(springs),
        {f"inner steps: {k}": 100 * wrong[k] for k in wrong} | {"100 %": np.full(len(springs), 100.0)},
        "log₁₀ of the strength λ",
        "error of the implicit gradient (%)",
        points={
            "system indefinite": (
                np.concatenate([np.log10(springs)[i] for i in indefinite]),
                100 * np.concatenate([wrong[k][i] for k, i in zip(wrong, indefinite, strict=True)]),
            )
        },
        ylim=(1e-3, 1e5),
        log="y",
    ),
    alt="Error of the implicit gradient against the strength of the spring, both logarithmic. After five steps it lies "
    "around or above one hundred per cent for all weak springs, with a peak far above that, and falls for stiff ones. "
    "After 300 steps it falls below the other curve from a strength of 0.3 on, and leaves the picture before a strength "
    "of ten. The weakest springs of both are marked: their systems are indefinite.",
)

# %% [markdown]
# After five steps and with a weak spring, the error is about as long as the gradient itself or longer, and at one of the
# springs many times as long. There are two reasons:
#
# - The loop has not arrived. The formula is the derivative of a point where we are not.
# - Where it stopped, the loss has curvature below $-\lambda$ (the marked points). The system is then **indefinite**: some
#   of its eigenvalues are negative, some may be close to zero, and the solve multiplies by their inverses.
#
# At a minimum, the pulled objective cannot have negative curvature. So an indefinite system is proof that the loop has
# not arrived. A definite one is no proof that it has: the five-step curve stays high beyond the last mark. Three hundred
# steps repair all but the weakest springs, for which they may be no better than five. A stiff spring
# repairs both. Nothing in the returned vector says which case it is. **Before you trust an implicit gradient, look at the
# last slope of the pulled objective.** It must be short, and the weaker the spring, the shorter.

# %% [markdown]
# ## When support and query are one loss
#
# Suppose the tasks have one set of points each, so $f = h$. Line 1 knows the right side of the boxed system,
# $\nabla h(\phi^*) = \lambda (\theta - \phi^*)$, but the system remains. Unless we change the objective, and count
# the spring too:
#
# $$M(\theta) = \min_\phi \; h(\phi) + \frac{\lambda}{2} \lVert \phi - \theta \rVert^2 .$$
#
# This is the **Moreau envelope** of $h$: what the task costs from here, the way included.
#
# **Line 5, the chain rule.** $M$ depends on $\theta$ in two ways: through $\phi^*$, and directly.
#
# $$\nabla M(\theta) = J^\top \big[ \nabla h(\phi^*) + \lambda (\phi^* - \theta) \big] +
# \lambda (\theta - \phi^*) .$$
#
# This holds at the end of any walk from $\theta$. The cell checks it after three steps, where the bracket is not zero.


# %% tags=["nbval-check-output"]
def loss_and_spring(theta, end):
    phi = end(theta)
    return h(phi) + lam / 2 * jnp.sum((phi - theta) ** 2)


def three_steps(theta):
    return ml.inner.descend(ml.inner.proximal(h, theta, lam), optax.sgd(inner_step), 3, theta)


phi = three_steps(theta)
bracket = jax.grad(h)(phi) + lam * (phi - theta)
by_line_5 = jax.jacobian(three_steps)(theta).T @ bracket + lam * (theta - phi)
assert jnp.allclose(jax.grad(loss_and_spring)(theta, three_steps), by_line_5)
assert jnp.linalg.norm(bracket) > 1e-3
print("line 5 holds")

# %% [markdown]
# **Line 6, at the minimum the bracket is zero.** It is line 1. The derivative $J$, the only difficult part, is multiplied
# by zero:
#
# $$\boxed{\;\nabla M(\theta) = \lambda\, (\theta - \phi^*) = \nabla h(\phi^*)\;}$$

# %% tags=["nbval-check-output"]
slope_of_envelope = jax.grad(loss_and_spring)(theta, solution)
assert jnp.allclose(jax.grad(h)(phi_star) + lam * (phi_star - theta), 0, atol=1e-12)
assert jnp.allclose(slope_of_envelope, lam * (theta - phi_star))
assert jnp.allclose(slope_of_envelope, jax.grad(h)(phi_star))
print("line 6 holds")

# %% [markdown]
# Look at the two forms. $\theta - \phi$ is the direction of **Reptile**. $\nabla h(\phi)$ is that of **FO-MAML**, with the
# support set in both roles. At the pulled minimum they are one direction, and it is exact. What lesson 03 called a
# shortcut is the right answer to another question.
#
# Its table of weights says the same. There, each method rested at a weighted mean of the minima. With a spring,
# $J = \lambda / (\lambda + a)$, and Reptile's direction is multiplied by $\lambda$, as in line 6:

# %%
steepness, minimum, strength_of_two = np.array([3.0, 0.5]), np.array([-1.0, 2.0]), 1.0
J_two = strength_of_two / (strength_of_two + steepness)
weights = {
    "iMAML": steepness * J_two**2,
    "FO-MAML": steepness * J_two,
    "Reptile": strength_of_two * (1 - J_two),
    "joint": steepness,
}
for name, w in weights.items():
    print(f"{name:8s} weights {w.round(3)}   rests at {(w * minimum).sum() / w.sum():.3f}")
two = ml.Task(*[ml.tasks.quadratic.QuadraticBatch(steepness[:, None, None], minimum[:, None])] * 2)
envelope_rest, implicit_rest = (
    rule.stationary_point()[0]
    for rule in (ml.theory.moreau(two, 1 / strength_of_two), ml.theory.proximal(two, strength_of_two))
)
print(f"lowest mean of the two envelopes: {envelope_rest:.3f}")
print(f"lowest mean loss at the pulled minima: {implicit_rest:.3f}")
assert np.allclose(weights["FO-MAML"], weights["Reptile"])
assert np.isclose((weights["Reptile"] * minimum).sum() / weights["Reptile"].sum(), envelope_rest)
assert np.isclose((weights["iMAML"] * minimum).sum() / weights["iMAML"].sum(), implicit_rest)

# %% [markdown]
# FO-MAML and Reptile, two points in lesson 03, rest at one point here, and it is the lowest point of the mean envelope.
# iMAML rests elsewhere, at the lowest mean loss *after* adaptation. Neither is wrong. They minimise different things.
#
# ## Finding the pulled minimum by FO-MAML's step
#
# Descend the pulled objective with the step $\alpha = 1/\lambda$. The spring's slope cancels the point itself:
#
# $$z - \frac1\lambda \big( \nabla h(z) + \lambda (z - \theta) \big) = \theta - \alpha \nabla h(z) .$$

# %% tags=["nbval-check-output"]
z = jnp.array([0.4, -1.2])  # any point
one_step = z - (jax.grad(h)(z) + lam * (z - theta)) / lam
assert jnp.allclose(one_step, theta - jax.grad(h)(z) / lam)
print("the identity holds")

# %% [markdown]
# So $z_0 = \theta$, and each next point is $\theta - \alpha \nabla h(z)$: every step leaves from the start, and only the
# place where the slope is taken moves. One such step is FO-MAML's. Repeating it is **FO-MuML** (Mishchenko, Hanzely &
# Richtárik, 2023), `ml.fo_muml`. After $s$ steps it returns $\nabla h(z_s)$, for $s + 1$ gradients.

# %%
anchored_prediction = predict(
    "04.anchored",
    "A parabola with α times its curvature equal to one half. After three anchored steps, "
    "what is the relative error of the returned gradient, measured against the envelope's?",
)

# %%
anchor = np.random.default_rng(1).normal(size=30)
offset = anchor - np.asarray(quadratic.support.minimum[0])
anchored = {}
for product in (0.5, 0.9, 1.1):
    alpha = product / L
    exact = ml.theory.moreau(quadratic, alpha).task_gradients(anchor)[0]
    sums = neumann_path(lambda v, alpha=alpha: alpha * hessian @ v, hessian @ offset, 20)
    anchored[product] = np.linalg.norm(sums - exact, axis=1) / np.linalg.norm(exact)
    assert product > 1 or (anchored[product] <= product ** (products + 1)).all()

one_task = jax.tree.map(lambda leaf: leaf[0], quadratic)
found = ml.fo_muml(ml.tasks.Quadratic.loss, 1.1 / L, 7)(jnp.asarray(anchor), one_task)[1]
assert np.allclose(found, sums[7])  # the anchored iteration is the Neumann series
assert anchored[1.1][-1] > anchored[1.1][5] > anchored[0.9][5]

z, spring = anchor, L / 1.1  # a spring too soft for the anchored steps: descend with a smaller one
for _ in range(200):
    z = z - (hessian @ (offset + z - anchor) + spring * (z - anchor)) / (L + spring)
assert np.allclose(spring * (anchor - z), exact)

z, exact_slope = 1.0, 1 / (1 + 0.5)  # the parabola of curvature 1, with α = 0.5 and the start at 1
for _ in range(3):
    z = 1.0 - 0.5 * z
anchored_prediction.reveal(abs(z - exact_slope) / exact_slope)
assert np.isclose(abs(z - exact_slope) / exact_slope, 0.5**4)
plots.show(
    plots.lines(
        products,
        {f"α L = {product}": values for product, values in anchored.items()},
        "anchored steps s",
        "relative error of the gradient",
        log="y",
    ),
    alt="Relative error against the number of anchored steps, logarithmic, for three step sizes. With alpha L one half it "
    "falls fast, with 0.9 slowly; with 1.1 it first falls and then rises.",
)

# %% [markdown]
# The error is at most $(\alpha L)^{s+1}$. You have met that rate: it is Neumann's, with $\alpha = 1/\lambda$. On a
# parabola the anchored steps *are* the Neumann series: an assertion compares them after seven. **They converge when
# $\alpha L < 1$**, a spring stiffer than the largest curvature. On a convex loss a softer spring still has a minimum; a
# smaller step on the pulled objective finds it.

# %% [markdown]
# ## Exercise: the gradient of the Moreau envelope
#
# Write FO-MuML for one task. No Hessian, no solve.


# %% tags=["exercise"] exercise="04.moreau_gradient"
def moreau_gradient(loss, batch, params, step_size, num_steps):
    """The slope of the loss at the end of the anchored iteration, near
    the gradient of the Moreau envelope.

    Args:
      loss: function of (params, batch) that returns a scalar.
      batch: the one set of points of the task.
      params: theta, the start, any pytree of arrays.
      step_size: alpha = 1 / lambda, a number.
      num_steps: s, the number of anchored steps, at least 1.

    Returns:
      The gradient of the loss at z_s, a pytree with the structure and
      shapes of `params`.
    """
    ### BEGIN SOLUTION
    z = params
    for _ in range(num_steps):
        slope = jax.grad(loss)(z, batch)
        z = jax.tree.map(lambda t, g: t - step_size * g, params, slope)
    return jax.grad(loss)(z, batch)
    ### END SOLUTION


# %%
check("04.moreau_gradient", moreau_gradient)

# %% [markdown]
# ## What counting the spring buys
#
# Two objectives, the same spring, the same inner problem: $h(\phi^*(\theta))$, which iMAML descends when support and query
# agree, and the envelope $M(\theta)$. Which is easier to descend? In one dimension both have a closed form. Choose the
# pulled minimum $z$; line 1 tells which start leads to it, $\theta = z + \alpha h'(z)$. There
#
# $$\text{iMAML: slope } \frac{h'(z)}{1 + \alpha h''(z)}, \qquad \text{envelope: slope } h'(z) .$$

# %%
convex_prediction = predict(
    "04.convex",
    "Let h be convex, with bounded curvature. Which of the two objectives must be so again?",
    options=["both", "only the envelope", "only iMAML's", "neither"],
)


# %%
def wavy(z):
    """Slope and curvature of z^2 / 2 + 0.9 cos z: convex, with curvature between 0.1 and 1.9."""
    return z - 0.9 * np.sin(z), 1 - 0.9 * np.cos(z)


def kinked(z):
    """A convex loss with slope 1 up to z = 1 and curvature min(z - 1, 1) after it."""
    bend = np.clip(z - 1, 0, 1)
    return 1 + bend**2 / 2 + np.maximum(z - 2, 0), bend


def curvatures_of(loss_1d, alpha, z):
    """Starts, and the second derivatives of both objectives there, as slopes of their slopes."""
    slope, curvature = loss_1d(z)
    starts = z + alpha * slope
    second = {
        "iMAML's objective": np.diff(slope / (1 + alpha * curvature)) / np.diff(starts),
        "Moreau envelope": np.diff(slope) / np.diff(starts),
    }
    return (starts[1:] + starts[:-1]) / 2, second


# The closed form against the library, at five starts.
five_z = np.array([0.5, 1.5, 3.0, 6.0, 9.0])
slope, curvature = wavy(five_z)
five_starts, pair = jnp.asarray(five_z + 0.5 * slope), ml.Task(jnp.zeros(1), jnp.zeros(1))
scalar_loss = lambda z, _: z**2 / 2 + 0.9 * jnp.cos(z)  # noqa: E731
for meta_gradient, expected in (
    (ml.imaml(scalar_loss, optax.sgd(0.25), 300, 2.0, cg_steps=1), slope / (1 + 0.5 * curvature)),
    (ml.fo_muml(scalar_loss, 0.5, 600), slope),
):
    assert np.allclose(jax.vmap(lambda t, m=meta_gradient: m(t, pair)[1])(five_starts), expected)

starts, second = curvatures_of(wavy, 0.5, np.linspace(0, 700, 140_001))
print("largest size of the second derivative, for starts up to")
for radius in (10, 100, 1000):
    largest = {name: np.abs(values[starts < radius]).max() for name, values in second.items()}
    print(f"{radius:6d}:", ", ".join(f"{k} {v:.2f}" for k, v in largest.items()))
convex_prediction.reveal("only the envelope")
assert largest["iMAML's objective"] > 100 and largest["Moreau envelope"] < 1.9 / (1 + 0.5 * 1.9) + 1e-3
print("lowest curvature")
for alpha in (0.1, 1.0, 10.0):
    _, bent = curvatures_of(kinked, alpha, np.linspace(0.9, 3, 20_001))
    lowest_curvature = {name: values.min() for name, values in bent.items()}
    print(f"α = {alpha:4g}:", ", ".join(f"{k} {v:.3f}" for k, v in lowest_curvature.items()))
    assert np.isclose(lowest_curvature["iMAML's objective"], -alpha, rtol=0.01)
    assert lowest_curvature["Moreau envelope"] > -1e-6

# %%
figure, (left_axes, right_axes) = plots.subplots(2, height=3.6)
starts, second = curvatures_of(wavy, 0.5, np.linspace(0, 42, 4_001))
plots.lines(starts, second, "start θ", "second derivative", title="h = z²/2 + 0.9 cos z, α = 0.5", axes=left_axes)
starts, second = curvatures_of(kinked, 1.0, np.linspace(0.5, 3, 20_001))
plots.lines(starts, second, "start θ", "second derivative", title="h bends from θ = 2 on, α = 1", axes=right_axes)
plots.show(
    figure,
    alt="Second derivatives of both objectives against the start. Left: that of iMAML's objective swings wider and wider "
    "with distance, above and below zero; that of the envelope stays in a narrow band. Right: iMAML's drops to minus one "
    "just where the loss begins to bend, and the envelope's never falls below zero.",
)

# %% [markdown]
# Both losses are convex. On the left, iMAML's objective is not: its second derivative turns negative again and again,
# and its size grows with the distance from the origin, so no single outer step size is safe everywhere. On the right a
# stiffer spring makes the dip smaller and does not remove it: the curvature falls to $-\alpha$. The envelope of a
# convex loss is convex, and its curvature is at most $L / (1 + \alpha L)$.
#
# ## Limits
#
# - Everything here assumes that the inner loop has arrived. Watch the length of its last gradient.
# - iMAML still needs products with the Hessian. Conjugate gradients need it positive definite, with the spring.
# - The envelope has one loss for each task. It counts the way to the answer as well as the answer, and it cannot hear
#   what a separate query set says.
# - One strength for all parameters and tasks was used. Nothing says that this is best.
# - Of the FO-MuML paper the abstract was read; the anchored iteration is given as we remember it. Of the experiments of
#   either paper none was repeated.
#
# ## What to take away
#
# - A spring to the start makes the adapted point a function of the start: unique and smooth, once $\lambda$ outweighs
#   the negative curvature.
# - The meta-gradient needs the end of the path only: $(I + H/\lambda)\, g = \nabla f(\phi^*)$.
# - Neumann needs $\lambda > L$. Conjugate gradients need $H + \lambda I$ positive definite, and few products.
# - Before the loop has converged, the formula returns a vector that nobody asked for, and it looks like any other.
# - Count the spring in the objective, and the solve disappears. Reptile and FO-MAML then point the same, exact way.
#
# The envelope needs no solve because support and query are one loss. Can the solve be avoided when they differ?

# %%
quiz("04")

# %%
progress("04")

# %% [markdown]
# ## References
#
# - A. Rajeswaran, C. Finn, S. Kakade, S. Levine. *Meta-learning with implicit gradients.* 2019.
#   [arXiv 1909.04630](https://arxiv.org/abs/1909.04630). iMAML.
# - K. Mishchenko, S. Hanzely, P. Richtárik. *Convergence of first-order algorithms for meta-learning with Moreau
#   envelopes.* 2023. [arXiv 2301.06806](https://arxiv.org/abs/2301.06806). FO-MAML as an inexact step on the envelope.
# - J. R. Shewchuk. *An introduction to the conjugate gradient method without the agonizing pain.* 1994.
