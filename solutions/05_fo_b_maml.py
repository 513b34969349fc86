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
# - **derive** the meta-gradient as the derivative of a perturbed solution,
# - **implement** the symmetric estimator of Chayti & Jaggi for any model,
# - **predict** its error, and **choose** $\nu$ accordingly,
# - **say** what the estimator computes when the inner loops have not converged,
# - **prove** how close to a stationary point gradient descent with it comes.
#
# **New symbols**
#
# - $\nu$: perturbation
# - $\varphi_\nu$: minimum of the perturbed problem, $\varphi(\nu)$ in the picture
# - $\delta$: error of an inner solve

# %% tags=["imports"]
import functools  # this cell loads JAX and the course, which takes a few seconds
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course import check, playground, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_05

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Perturb a problem, and its minimum moves
#
# In the first of the three pictures below, the open circle is the minimum of an inner problem with a single parameter
# φ. Add ν times the query loss to that problem, and the minimum moves to the filled circle. The second picture shows
# where the minimum lies for every ν. The tangent of this curve at ν = 0 is what this lesson is after, because up to a
# constant factor its slope is the meta-gradient. The two chords, called forward and symmetric, estimate that slope from
# two minima each and without any second derivative.
#
# Drag ν towards zero. Which of the two chords comes closer to the tangent, and down to which value does reducing ν still
# help? The third picture shows the relative error of both chords, computed in float32.

# %%
playground("perturb_the_problem")

# %% [markdown]
# Three things in these pictures need an explanation: why the slope of the tangent is the meta-gradient up to a factor, how quickly
# each chord approaches it, and what ends the improvement. The lesson explains them in this order. Then it asks what
# remains true when the inner loops have not converged, and proves how close to a stationary point training with such
# estimates comes.
#
# *Short of time? Skip the sections "Rounding does not cancel" and "When −ν removes the minimum", with the question after
# it.*

# %% [markdown]
# ## From a linear system to two solves
#
# In lesson 04 adaptation became a minimum. The inner problem is the support loss $h$ plus a proximal term of strength
# $\lambda$, and the meta-objective is the query loss $f$ at its minimum:
#
# $$\varphi^*(\theta) = \arg\min_\varphi\; h(\varphi) + \frac\lambda2 \lVert \varphi - \theta \rVert^2,
# \qquad F_\text{prox}(\theta) = f(\varphi^*(\theta)).$$
#
# Its gradient is $\nabla F_\text{prox} = \lambda\,(H + \lambda I)^{-1} \nabla f(\varphi^*)$, where $H$ is the Hessian of
# $h$. To compute it, iMAML solves a linear system with the matrix $H + \lambda I$, and for that it needs Hessian-vector
# products, which are second derivatives. This lesson gets the same vector from first derivatives alone. It writes $F$
# for $F_\text{prox}$.
#
# We begin with one parameter, because there every quantity is a number. Two small changes can be made to the inner
# problem. We can **perturb** it by adding $\nu f$, and record how far the *minimum* moves per unit of ν. Or we can change
# the *initialization* θ, and record how much the *query loss at the minimum* changes per unit of θ, which is the
# meta-gradient. Both depend on the curvature of $h$.
#
# Below, both are measured for $f(\varphi) = \frac12 (\varphi - 2)^2$ and three support losses, which are multiples of
# $\cosh(\varphi + 1) - 1$, with $\lambda = 1.5$ and at $\theta = 0$.

# %%
curvature_prediction = predict("05.curvature")

# %%
proximal_strength_1d = 1.5


def minimum_1d(perturbation=0.0, theta=0.0, scale=1.0):
    """The minimum of scale (cosh(φ + 1) - 1) + 3/4 (φ - θ)² + ν (φ - 2)² / 2."""
    phi = theta
    for _ in range(400):
        support = scale * np.sinh(phi + 1)
        proximal = proximal_strength_1d * (phi - theta)
        phi = phi - 0.1 * (support + proximal + perturbation * (phi - 2))
    return phi


def query_loss_1d(phi):
    return (phi - 2) ** 2 / 2


small, rows = 1e-4, {}
for scale in (0.5, 2.0, 8.0):
    up, down = (minimum_1d(each, scale=scale) for each in (small, -small))
    right, left = (minimum_1d(theta=each, scale=scale) for each in (small, -small))
    losses = query_loss_1d(right) - query_loss_1d(left)
    rows[scale] = [(up - down) / (2 * small), losses / (2 * small)]

# %% tags=["fold", "nbval-check-output"]
curvature_prediction.reveal(0)
assert np.allclose([gradient / move for move, gradient in rows.values()], -proximal_strength_1d, rtol=1e-5)
gradients = [abs(gradient) for _, gradient in rows.values()]
assert all(1 < before / after < 4 for before, after in itertools.pairwise(gradients))
plots.table(
    {f"{scale:g}": [*row, row[1] / row[0]] for scale, row in rows.items()},
    ["scale of the support loss", "minimum moves, per ν", "meta-gradient", "ratio"],
    "The ratio does not depend on the support loss",
    "One parameter, proximal strength 1.5. Both columns are measured by moving ν or θ a little.",
)

# %% [markdown]
# The ratio is the same in every row, and it is $-\lambda$. So to find the meta-gradient it is enough to watch how far the
# minimum moves per unit of ν, and no second derivative is needed.
#
# Why is that so? The curvature of the inner objective determines how far its minimum moves, whatever causes the move.
# Changing θ by $d\theta$ changes the gradient of the inner objective by $-\lambda\, d\theta$, and changing ν by $d\nu$
# changes it by $f'\, d\nu$. Moving φ by $d\varphi$ changes it by $(h'' + \lambda)\, d\varphi$. At the new minimum the
# gradient is zero again, so the change from moving φ cancels the one from θ or ν. With $\varphi_\nu$ for the minimum of
# the perturbed problem, this means that
#
# $$\frac{d\varphi^*}{d\theta} = \frac{\lambda}{h'' + \lambda},
# \qquad\qquad \frac{d\varphi_\nu}{d\nu} = \frac{-f'}{h'' + \lambda}.$$
#
# By the chain rule the meta-gradient is the first of these times $f'$:
#
# $$\frac{dF}{d\theta} = f' \cdot \frac{\lambda}{h'' + \lambda} = -\lambda\, \frac{d\varphi_\nu}{d\nu}.$$
#
# The moving minimum has carried out the division by the curvature for us, and with many parameters it will apply the
# inverse of a matrix.

# %% [markdown]
# ## The derivation, in five lines
#
# The **perturbed problem** of Chayti & Jaggi is the inner problem plus $\nu f$, and $\varphi_\nu$ is its minimum:
#
# $$\varphi_\nu(\theta) = \arg\min_\varphi\; \nu f(\varphi) + h(\varphi) + \tfrac\lambda2 \lVert \varphi - \theta \rVert^2 .$$
#
# Here the index of φ is a perturbation, so $\varphi_0$ is the minimum $\varphi^*$ of the unperturbed problem. It is not the
# point at which the inner loop begins.
#
# Our example for most of the lesson is a network of ten tanh units on one sine task. Tanh is smooth, and so the solution
# is a smooth function of ν. Each unit has a weight, a bias and a readout, and these 30 parameters are kept in one vector,
# so that an error is a vector too and has a norm. The function `solve` runs $K$ gradient steps on the perturbed problem,
# and we call such a run a *solve*. Here 400 steps are enough to converge. We compute in float64, except where the text
# says float32.

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict


def network_loss(params, batch):
    """Mean squared error of ten tanh units; params has shape [30]."""
    x, y = batch
    weight, bias, readout = params.reshape(3, -1)
    return jnp.mean((jnp.tanh(x * weight + bias) @ readout - y[:, 0]) ** 2)


# %%
@functools.partial(jax.jit, static_argnums=(0, 4))
def solve(
    loss,
    task,
    params,
    learning_rate,
    num_steps,
    proximal_strength,
    perturbation,
):
    """φ_ν after K gradient steps from `params`, which may be any pytree."""

    def perturbed(phi):
        return perturbation * loss(phi, task.query) + loss(phi, task.support)

    objective = ml.inner.proximal(perturbed, params, proximal_strength)
    return ml.inner.descend(objective, optax.sgd(learning_rate), num_steps, params)


# %%
sines = ml.tasks.Sinusoid(num_support=10, num_query=10)
task = sines.task(jax.random.key(3), amplitude=2.0, phase=1.0)
theta = jax.random.normal(jax.random.key(0), (30,)) / 2
proximal_strength, learning_rate = 4.0, 0.05


def h(phi):
    return network_loss(phi, task.support)


def f(phi):
    return network_loss(phi, task.query)


def phi_of(perturbation, theta=theta):
    numbers = learning_rate, 400, proximal_strength, perturbation
    return solve(network_loss, task, theta, *numbers)


# %% [markdown]
# **Line 1, stationarity.** At a minimum the gradient is zero, whatever ν is:
#
# $$\nu \nabla f(\varphi_\nu) + \nabla h(\varphi_\nu) + \lambda (\varphi_\nu - \theta) = 0.$$

# %%
for perturbation in (-0.1, 0.0, 0.1):
    phi = phi_of(perturbation)
    left = perturbation * jax.grad(f)(phi) + jax.grad(h)(phi)
    left = left + proximal_strength * (phi - theta)
    assert jnp.allclose(left, 0, atol=1e-12)

# %% [markdown]
# **Line 2, differentiate with respect to ν.** The first term is a product of two functions of ν, so it gives two terms.
# With $A = \nabla^2 f$ and $H = \nabla^2 h$, both at $\varphi_\nu$, this reads
#
# $$\nabla f(\varphi_\nu) + (\nu A + H + \lambda I)\, \frac{d\varphi_\nu}{d\nu} = 0.$$
#
# To check the line we need $d\varphi_\nu/d\nu$ from elsewhere. `jax.jvp` carries a derivative forward through all 400 steps
# and returns it beside the value.

# %%
hessian = jax.jit(jax.hessian(network_loss))


@jax.jit
def with_derivative(perturbation):
    """φ_ν and its derivative with respect to ν."""
    return jax.jvp(phi_of, (perturbation,), (1.0,))


phi, velocity = with_derivative(0.1)
matrix = hessian(phi, task.support) + proximal_strength * jnp.eye(30)
matrix = matrix + 0.1 * hessian(phi, task.query)
assert jnp.allclose(jax.grad(f)(phi) + matrix @ velocity, 0, atol=1e-10)

# %% [markdown]
# **Line 3, set ν to zero.** The Hessian of the query loss drops out:
#
# $$\frac{d\varphi_\nu}{d\nu}\Big|_{\nu=0} = -(H + \lambda I)^{-1} \nabla f(\varphi_0).$$

# %%
phi_0, velocity = with_derivative(0.0)
matrix = hessian(phi_0, task.support) + proximal_strength * jnp.eye(30)
assert jnp.allclose(velocity, -jnp.linalg.solve(matrix, jax.grad(f)(phi_0)))

# %% [markdown]
# **Line 4, from lesson 04.** Implicit differentiation led to the same inverse, applied to the same vector. To check this
# independently, we compute the left side by backpropagation through the 400 steps.
#
# $$\nabla F(\theta) = \lambda\, (H + \lambda I)^{-1} \nabla f(\varphi_0).$$

# %%
exact = jax.jit(jax.grad(lambda theta: f(phi_of(0.0, theta))))(theta)
solution = jnp.linalg.solve(matrix, jax.grad(f)(phi_0))
assert jnp.allclose(exact, proximal_strength * solution)

# %% [markdown]
# **Line 5, compare lines 3 and 4.** They differ by the factor $-\lambda$:
#
# $$\boxed{\;\nabla F(\theta) = -\lambda\, \frac{d\varphi_\nu}{d\nu}\Big|_{\nu=0}\;}$$

# %%
assert jnp.allclose(exact, -proximal_strength * velocity)

# %% [markdown]
# The linear system is gone. What is left is a derivative with respect to *one number*, however many parameters there are.

# %% [markdown]
# ## Exercise: the perturbed solution
#
# Everything rests on $\varphi_\nu$. Write the gradient descent that `solve` leaves to the library, with no other derivative
# than `jax.grad(loss)`. Three terms contribute to each step: the support loss, the query loss and the proximal term.


# %% tags=["exercise"] exercise="05.perturbed_solution"
def perturbed_solution(
    loss,
    task,
    params,
    learning_rate,
    num_steps,
    proximal_strength,
    perturbation,
):
    """Gradient descent on ν f(φ) + h(φ) + λ/2 ||φ - θ||²; f is the query
    loss, h the support loss.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query, each a batch.
      params: θ, any pytree of arrays. Descent begins there.
      learning_rate: α, the inner learning rate.
      num_steps: K, a whole number, 0 included.
      proximal_strength: λ > 0, a number.
      perturbation: ν, a number of either sign.

    Returns:
      φ_K, a pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    phi = params
    for _ in range(num_steps):
        support = jax.grad(loss)(phi, task.support)
        query = jax.grad(loss)(phi, task.query)
        gradient = jax.tree.map(
            lambda s, q, p, t: s + perturbation * q + proximal_strength * (p - t),
            support,
            query,
            phi,
            params,
        )
        phi = jax.tree.map(lambda p, g: p - learning_rate * g, phi, gradient)
    return phi
    ### END SOLUTION


# %%
check("05.perturbed_solution", perturbed_solution)

# %% [markdown]
# ## Two estimators
#
# A derivative with respect to one number can be estimated from two values, as the chords of the playground do. The
# **forward** estimator solves at $0$ and $\nu$, the **symmetric** one at $-\nu$ and $\nu$:
#
# $$g_{\text{for}} = \frac{\lambda}{\nu}\,(\varphi_0 - \varphi_\nu), \qquad\qquad
# g_{\text{sym}} = \frac{\lambda}{2\nu}\,(\varphi_{-\nu} - \varphi_\nu).$$
#
# These are the two estimators of **FO-B-MAML**, the first-order method of Chayti & Jaggi for this bilevel problem.

# %%
exact_prediction = predict("05.exact")


# %%
@jax.jit
def solutions(perturbations):
    return jax.vmap(phi_of)(perturbations)


def relative_error(gradients):
    """|gradient - exact| / |exact| along the last axis."""
    distance = np.linalg.norm(np.asarray(gradients, np.float64) - exact, axis=-1)
    return distance / np.linalg.norm(exact)


perturbations = np.array([0.08, 0.04, 0.02, 0.01])
plus, minus = solutions(perturbations), solutions(-perturbations)

# %% tags=["fold"]
exact_prediction.reveal(1)
measured = {
    "forward": relative_error(proximal_strength * (phi_0 - plus) / perturbations[:, None]),
    "symmetric": relative_error(proximal_strength * (minus - plus) / (2 * perturbations[:, None])),
}


@jax.jit
def higher_derivatives(perturbation):
    """The second and the third derivative of φ_ν with respect to ν."""

    def second(perturbation):
        return jax.jvp(lambda perturbation: jax.jvp(phi_of, (perturbation,), (1.0,))[1], (perturbation,), (1.0,))[1]

    return jax.jvp(second, (perturbation,), (1.0,))


norm = float(jnp.linalg.norm(exact))
second, third = higher_derivatives(0.0)
truncation = {  # C of both estimators, relative to the norm of the meta-gradient
    "forward": proximal_strength / 2 * float(jnp.linalg.norm(second)) / norm,
    "symmetric": proximal_strength / 6 * float(jnp.linalg.norm(third)) / norm,
}
for (name, errors), order in zip(measured.items(), (1, 2), strict=True):
    assert np.allclose(errors[-1], truncation[name] * perturbations[-1] ** order, rtol=0.1)
    assert abs(np.log2(errors[-2] / errors[-1]) - order) < 0.1
plots.table(
    {
        f"{name}, {kind}": list(values)
        for name, order in (("forward", 1), ("symmetric", 2))
        for kind, values in (("measured", measured[name]), ("predicted", truncation[name] * perturbations**order))
    },
    ["relative error", *(f"ν = {perturbation:g}" for perturbation in perturbations)],
    "Halving ν halves the forward error and quarters the symmetric one",
    "Errors relative to the norm of the meta-gradient. Predicted: the leading terms below, from derivatives at ν = 0.",
    digits=2,
)

# %% [markdown]
# Taylor's theorem explains the table. If $\varphi'$, $\varphi''$ and $\varphi'''$ are the derivatives of $\varphi_\nu$ with respect
# to ν at zero, then
#
# $$\varphi_\nu = \varphi_0 + \nu\, \varphi' + \tfrac12 \nu^2 \varphi'' + \tfrac16 \nu^3 \varphi''' + \dots$$
#
# We put this into both estimators and use line 5, by which $\nabla F = -\lambda\, \varphi'$:
#
# $$g_{\text{for}} - \nabla F = -\tfrac{\lambda}{2}\varphi''\,\nu + \dots, \qquad
# g_{\text{sym}} - \nabla F = -\tfrac{\lambda}{6}\varphi'''\,\nu^2 + \dots$$
#
# In the symmetric difference the terms with $\varphi_0$ and $\varphi''$ cancel, because they are the same at $-\nu$ and $\nu$.
#
# What do the estimators cost? A perturbed step needs a gradient of the support loss and one of the query loss, an
# unperturbed step only the first. In the table, $m$ is the number of Hessian-vector products in iMAML's solver.
#
# | method | gradients of one task | parameter vectors stored | second derivatives |
# |---|---|---|---|
# | MAML | $3K + 1$ | $K$ | yes |
# | iMAML | $K + 1 + 2m$ | a few | yes |
# | FO-B-MAML, forward | $3K$ | a few | no |
# | FO-B-MAML, symmetric | $4K$ | a few | no |
#
# So FO-B-MAML does not save gradients. Its advantages are that it needs no second derivatives, and
# it need not store the steps of the inner loop, as MAML must.

# %% tags=["fold"]
for _k in (5, 50):
    _gradients = {name: ml.theory.cost(name, 1, _k, cg_steps=6).gradients for name in ("maml", "imaml", "fo_b_maml")}
    assert _gradients["maml"] == 3 * _k + 1 and _gradients["imaml"] == _k + 1 + 2 * (6 + 1)
    assert abs(ml.theory.cost("fo_b_maml", 1, _k, estimator="forward").gradients - 3 * _k) < 1
    assert abs(_gradients["fo_b_maml"] - 4 * _k) < 1

# %% [markdown]
# ## Exercise: the symmetric estimator
#
# Implement $g_{\text{sym}}$ for any pytree of parameters, with two calls of `solve`.


# %% tags=["exercise"] exercise="05.symmetric"
def symmetric(
    loss,
    task,
    params,
    learning_rate,
    num_steps,
    proximal_strength,
    perturbation,
):
    """The symmetric estimate of the meta-gradient, from two solves.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query, each a batch.
      params: θ, any pytree of arrays. Both solves begin there.
      learning_rate: α, the inner learning rate.
      num_steps: K, of each solve.
      proximal_strength: λ > 0, a number.
      perturbation: ν > 0, a number.

    Returns:
      A pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    arguments = loss, task, params, learning_rate, num_steps, proximal_strength
    behind, ahead = solve(*arguments, -perturbation), solve(*arguments, perturbation)
    return jax.tree.map(
        lambda minus, plus: proximal_strength * (minus - plus) / (2 * perturbation),
        behind,
        ahead,
    )
    ### END SOLUTION


# %%
check("05.symmetric", symmetric)

# %% [markdown]
# The library has both: `ml.fo_b_maml(loss, inner, num_steps, proximal_strength, perturbation, estimator)`, where
# `estimator` is `"symmetric"` or `"forward"`.

# %% [markdown]
# ## What a small ν costs
#
# Then why not make ν tiny? Because the two solutions are then nearly equal, and each of them is known only up to some
# error, whose norm we call $\delta$. The difference inherits these errors, and it is divided by ν:
#
# $$\lVert \text{error} \rVert \;\lesssim\; \underbrace{C\,\nu^p}_{\text{truncation}} \;+\;
# \underbrace{R\,\frac{\delta}{\nu}}_{\text{errors of the solves}}$$
#
# | estimator | order $p$ | $C$ | $R$ |
# |---|---|---|---|
# | forward | 1 | $\frac{\lambda}{2} \lVert\varphi''\rVert$ | $2\lambda$ |
# | symmetric | 2 | $\frac{\lambda}{6} \lVert\varphi'''\rVert$ | $\lambda$ |
#
# The first term is the leading term of Taylor's series above, so $\lesssim$ leaves out higher powers of ν. In the
# second one, each of the two solutions adds at most δ to the error of their difference, which is then multiplied by
# $\lambda/\nu$ or by $\lambda/(2\nu)$. As ν falls, the first term falls and the second one rises. On logarithmic axes
# the sum is a V.

# %% [markdown]
# ## Exercise: the best ν
#
# At which ν is the sum of the two terms smallest? Two lines of the derivation are given; write the third one as code.
#
# 1. $e(\nu) = C\,\nu^p + R\,\delta / \nu$.
# 2. At the minimum $e'(\nu) = 0$.


# %% tags=["exercise"] exercise="05.best_perturbation"
def best_perturbation(truncation, amplification, accuracy, order):
    """The ν > 0 that minimizes truncation * ν**order +
    amplification * accuracy / ν.

    Args:
      truncation: C > 0, a number.
      amplification: R > 0, a number.
      accuracy: δ > 0, the norm of each solution's error.
      order: p, 1 for forward, 2 for symmetric, or any larger whole
        number.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    ratio = amplification * accuracy / (order * truncation)
    return ratio ** (1 / (order + 1))
    ### END SOLUTION


# %%
check("05.best_perturbation", best_perturbation)

# %% [markdown]
# The best ν is proportional to $\delta^{1/(p+1)}$, and with it both terms of the error are proportional to
# $\delta^{p/(p+1)}$: to $\delta^{1/2}$ for the forward estimator, and to $\delta^{2/3}$ for the symmetric one. The next
# cell measures these exponents. It adds to each exact solution an independent random error of norm δ, tries many values
# of ν, and keeps the best one, for five values of δ.

# %% tags=["fold"]
perturbations = np.geomspace(1e-5, 0.3, 91)
accuracies = np.array([1e-8, 1e-7, 1e-6, 1e-5, 1e-4])
exact_plus, exact_minus = np.asarray(solutions(perturbations)), np.asarray(solutions(-perturbations))
errors_of_solves = np.random.default_rng(0).normal(size=(2, 100, 1, 30))  # two solves, 100 repetitions
errors_of_solves /= np.linalg.norm(errors_of_solves, axis=-1, keepdims=True)


def root_mean_square(exact_difference, accuracy, width):
    """Relative error of λ * difference / width, over the repetitions; shape [91]."""
    difference = exact_difference + accuracy * (errors_of_solves[0] - errors_of_solves[1])
    return np.sqrt((relative_error(proximal_strength * difference / width[:, None]) ** 2).mean(axis=0))


least, exponents = {}, {}
for name, order, difference, width in (
    ("forward", 1, np.asarray(phi_0) - exact_plus, perturbations),
    ("symmetric", 2, exact_minus - exact_plus, 2 * perturbations),
):
    curves = np.array([root_mean_square(difference, accuracy, width) for accuracy in accuracies])
    assert (curves.argmin(axis=1) > 0).all() and (curves.argmin(axis=1) < len(perturbations) - 1).all()
    least[name] = curves.min(axis=1)
    exponents[name] = np.polyfit(np.log(accuracies), np.log(least[name]), 1)[0]
    assert abs(exponents[name] - order / (order + 1)) < 0.03
assert (least["symmetric"] < least["forward"]).all()
lesson_05.show_exponents(accuracies, least, exponents)

# %% [markdown]
# Both laws hold, and the symmetric estimator has the smaller error at every δ. Neither error is proportional to δ, so to
# halve it the inner solves must become more than twice as accurate.

# %% [markdown]
# ## Inner loops that have not converged
#
# In practice an inner loop is stopped after a fixed number of steps. Each solution then has some error δ, and the bound
# above warns that it will be divided by ν. Let us stop after 60 steps. The two solves begin either both at θ, or each at
# a random point of its own near θ, while the proximal term stays centred at θ.

# %%
unconverged_prediction = predict("05.few_steps")

# %%
num_steps = 60
perturbations = np.geomspace(1e-5, 0.3, 37)
noise = np.random.default_rng(1).normal(size=(2, 20, 37, 30))
noise *= 0.3 / np.linalg.norm(noise, axis=-1, keepdims=True)


@jax.jit
@jax.vmap
@jax.vmap
def unconverged(initial, perturbation):
    """φ_ν after 60 steps from this point; mapped over repetitions and ν."""

    def perturbed(phi):
        return perturbation * f(phi) + h(phi)

    objective = ml.inner.proximal(perturbed, theta, proximal_strength)
    return ml.inner.descend(objective, optax.sgd(learning_rate), num_steps, initial)


def both_solves(initial):
    """Solutions at -ν and at ν, shape [2, 20, 37, 30]."""
    perturbation = np.broadcast_to(perturbations, (20, 37))
    behind = unconverged(initial[0], -perturbation)
    return np.array([behind, unconverged(initial[1], perturbation)])


# %%
same, own = both_solves(0 * noise + theta), both_solves(noise + theta)

# %% tags=["fold"]
unconverged_prediction.reveal(1)
converged = np.array([solutions(-perturbations), solutions(perturbations)])[:, None]
curve, delta, difference = {}, {}, {}
at = np.abs(perturbations - 0.001).argmin()
for name, stopped in (("the same", same), ("its own", own)):
    errors = relative_error(proximal_strength * (stopped[0] - stopped[1]) / (2 * perturbations[:, None]))
    curve[name] = np.sqrt((errors**2).mean(axis=0))
    delta[name] = np.sqrt(np.sum((stopped - converged) ** 2, axis=-1).mean())
    behind, ahead = (stopped - converged)[:, 0, at]
    difference[name] = np.linalg.norm(ahead - behind) / np.linalg.norm(ahead)
bound = truncation["symmetric"] * perturbations**2 + proximal_strength * delta["the same"] / perturbations / norm
assert delta["its own"] < 3 * delta["the same"] and curve["its own"][0] > bound[0] / 3
assert curve["the same"][0] < 1e-3 * bound[0] and np.ptp(curve["the same"][:9]) < 1e-6
assert difference["the same"] < 0.05 and difference["its own"] > 0.5
shown = {"0.00001": 0, "0.001": 16, "0.1": 32}
assert all(abs(perturbations[i] / float(name) - 1) < 0.05 for name, i in shown.items())
plots.table(
    {name: [float(delta[name]), *(float(curve[name][i]) for i in shown.values())] for name in ("the same", "its own")},
    ["initial point", "δ", *(f"ν = {name}" for name in shown)],
    "From the same initial point the errors of both solves nearly cancel",
    "Relative error of the symmetric estimator after K = 60 inner steps. δ is the error of one solve.",
    digits=2,
)

# %% [markdown]
# With initial points of their own, the solves have independent errors, and the error of the estimate grows like $1/\nu$.
# With the same initial point it settles at a constant, although δ is of the same order of magnitude. The reason is
# cancellation. Two loops from one point take nearly the same steps and stop short by nearly the same vector. The error
# $e_\nu$ of the inner loop is a smooth function of ν, so for small ν the difference $e_\nu - e_{-\nu}$ is itself
# proportional to ν, and divided by ν it stays finite.
#
# The bound $R\,\delta/\nu$ therefore describes errors that are independent of each other: minibatches drawn separately,
# different initial points, loops that each stop by a criterion of their own. **Use the same initialization, the same
# number of steps and the same order of the data for both solves.**

# %% [markdown]
# ## Exercise: what the estimator computes then
#
# As $\nu \to 0$ the estimate tends to $-\lambda$ times the derivative of $\varphi_K$ with respect to ν at zero, for any
# $K$, converged or not. Find it by differentiating the inner step. In this exercise the index of φ counts the inner
# steps of one solve, and $v_k$ is the derivative of $\varphi_k$ with respect to ν at $\nu = 0$.
#
# 1. $\varphi_{k+1} = \varphi_k - \alpha\,\big(\nu \nabla f(\varphi_k) + \nabla h(\varphi_k) + \lambda(\varphi_k - \theta)\big)$ and
#    $\varphi_0 = \theta$, so $v_0 = 0$.
# 2. Differentiate both sides with respect to ν, and set $\nu = 0$. Remember that $\varphi_k$ depends on ν.
#
# Line 3 is the recursion for $v_{k+1}$. Write it as code and return $-\lambda\, v_K$. The product of a Hessian and a
# vector is one `jax.jvp`, as in lesson 04.


# %% tags=["exercise"] exercise="05.unconverged"
def unconverged_fo_b(
    loss,
    task,
    params,
    learning_rate,
    num_steps,
    proximal_strength,
):
    """-λ times the derivative of φ_K with respect to ν, at ν = 0.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query, each a batch.
      params: θ, an array of shape [d]. Descent begins there.
      learning_rate: α, the inner learning rate.
      num_steps: K, a whole number >= 1.
      proximal_strength: λ > 0, a number.

    Returns:
      An array of shape [d].
    """

    ### BEGIN SOLUTION
    def gradient(phi):
        return jax.grad(loss)(phi, task.support) + proximal_strength * (phi - params)

    phi, v = params, jnp.zeros_like(params)
    for _ in range(num_steps):
        query = jax.grad(loss)(phi, task.query)
        inner, product = jax.jvp(gradient, (phi,), (v,))
        phi, v = phi - learning_rate * inner, v - learning_rate * (query + product)
    return -proximal_strength * v
    ### END SOLUTION


# %%
check("05.unconverged", unconverged_fo_b)

# %% [markdown]
# The library computes this limit as `ml.fo_b_maml_limit`, which needs no ν, because one `jax.jvp` runs through the inner
# loop. It uses Hessian-vector products, so it is not a first-order method. For us it is a measuring instrument, since it
# shows what FO-B-MAML computes apart from truncation and rounding.

# %% tags=["fold"]
limits = {}
for steps in (30, 60, 90):
    limit = jax.jit(ml.fo_b_maml_limit(network_loss, optax.sgd(learning_rate), steps, proximal_strength))
    limits[steps] = float(relative_error(limit(theta, task)[1]))
assert np.isclose(limits[60], curve["the same"][0], rtol=1e-3)
assert limits[60] < limits[30] / 10 and limits[90] < limits[60] / 10
plots.table(
    {"relative error": list(limits.values())},
    ["limit ν → 0", *(f"K = {steps}" for steps in limits)],
    "Thirty more inner steps divide the error by more than ten",
    "The value for K = 60 is the constant in the table above.",
    digits=2,
)

# %% [markdown]
# ### An inverse, or a sum?
#
# The recursion also shows why FO-B-MAML tolerates inner loops that have not converged. Written out, its result is a sum
# of the query gradients at all points where an inner step begins:
#
# $$-\lambda\, v_K = \lambda \alpha \sum_{k=0}^{K-1} \Big[\prod_{j=k+1}^{K-1} \big(I - \alpha (H_j + \lambda I)\big)\Big]
# \nabla f(\varphi_k).$$
#
# Here $H_j$ is the Hessian of $h$ at $\varphi_j$, and the factor of the last step stands on the left. Each factor damps
# the directions in which $H_j + \lambda I$ has a curvature between 0 and $2 / \alpha$, and there is no inverse. The
# inverse appears only in the limit of many steps. Once the loop has reached the minimum, all new factors are the same
# matrix $I - \alpha (H + \lambda I)$, which damps away what the first steps have contributed. The sum of its powers is
# a geometric series, as the Neumann series of lesson 04 was:
#
# $$\alpha \sum_{k=0}^{\infty} \big(I - \alpha (H + \lambda I)\big)^k = (H + \lambda I)^{-1}.$$
#
# iMAML applies the inverse at the last point, whether the loop has converged or not. If the loop stops where
# $H + \lambda I$ is nearly singular, the inverse can be huge. In the sum, however, a direction in which $H + \lambda I$
# has curvature zero is multiplied by 1, and one with a slightly negative curvature by a little more than 1. The next
# figure compares the two with the converged meta-gradient, for a proximal strength so small that the inner loop
# converges slowly.


# %% tags=["fold"]
@jax.jit
def by_steps(theta, proximal_strength):
    """After 0, 1, ... 2,000 steps: the points, and what FO-B-MAML computes in the limit of a small ν."""

    def step(carry, _):
        phi, v = carry
        gradient, product = jax.jvp(jax.grad(h), (phi,), (v,))
        following = (
            phi - learning_rate * (gradient + proximal_strength * (phi - theta)),
            v - learning_rate * (jax.grad(f)(phi) + product + proximal_strength * v),
        )
        return following, (phi, -proximal_strength * v)

    return jax.lax.scan(step, (theta, jnp.zeros_like(theta)), length=2_001)[1]


counts = np.r_[1:26, np.geomspace(26, 160, 9).round().astype(int)]


def errors_by_steps(proximal_strength):
    """Errors of iMAML with an exact solve and of FO-B-MAML, relative to the converged meta-gradient."""
    points, sums = map(np.asarray, by_steps(theta, proximal_strength))
    at = np.r_[counts, 2_000]
    matrices = np.asarray(jax.vmap(lambda phi: hessian(phi, task.support))(points[at])) + proximal_strength * np.eye(30)
    query = np.asarray(jax.vmap(jax.grad(f))(points[at]))
    inverses = proximal_strength * np.linalg.solve(matrices, query[..., None])[..., 0]
    assert np.allclose(sums[-1], inverses[-1], rtol=1e-6)
    return [
        np.linalg.norm(values[:-1] - inverses[-1], axis=-1) / np.linalg.norm(inverses[-1])
        for values in (inverses, sums[at])
    ]


by_inverse, by_sum = errors_by_steps(1.5)
assert by_inverse.max() > 3 and by_sum.max() < 1 and (np.diff(by_sum) < 0).all() and by_inverse[-1] < by_sum[-1]
strong_inverse, strong_sum = errors_by_steps(proximal_strength)
assert (strong_inverse < strong_sum).all()
lesson_05.show_unconverged(counts, {"iMAML (exact solve)": by_inverse, "FO-B-MAML (ν → 0)": by_sum})

# %% [markdown]
# Near convergence iMAML's estimate is the more accurate one, and with the stronger proximal term used so far it was so
# after every number of steps that we tried. Far from convergence its inverse can multiply the error, whereas the error
# of FO-B-MAML never exceeds the norm of the meta-gradient here and falls steadily.

# %% [markdown]
# ## Rounding does not cancel
#
# In float64 a tiny ν did no harm, as long as both solves began at the same point. Networks are trained in float32,
# which keeps 24 binary digits, so that each number has an error of up to $2^{-24}$ of itself. If the two solutions are
# rounded independently, the V of "What a small ν costs" applies with $\delta = 2^{-24}\,\lVert\varphi_0\rVert$, where
# $\varphi_0$ is again the unperturbed solution. Independent errors in random directions add like the legs of a right
# triangle, which makes $R = \sqrt2\,\lambda$ for the forward and $\lambda/\sqrt2$ for the symmetric estimator. So every
# constant of the formula is known before anything is measured in float32:

# %% tags=["fold"]
rounding = 2.0**-24 * float(jnp.linalg.norm(phi_0))
amplification = {"forward": np.sqrt(2) * proximal_strength / norm, "symmetric": proximal_strength / np.sqrt(2) / norm}
plots.table(
    {name: [order, truncation[name], amplification[name], rounding] for order, name in enumerate(truncation, 1)},
    ["estimator", "p", "C", "R", "δ"],
    "The constants of the V, before the measurement",
    "C and R are divided by the norm of the meta-gradient, so the error is relative.",
)
float32_prediction = predict("05.float32")

# %%
perturbations = np.geomspace(1e-6, 0.3, 45)


@functools.partial(jax.jit, static_argnums=3)
def at_every_perturbation(perturbations, theta, task, num_steps):
    """φ_ν after K steps in the precision of the arguments, shape [91, 30]."""

    def solve_at(perturbation):
        numbers = learning_rate, num_steps, proximal_strength, perturbation
        return solve(network_loss, task, theta, *numbers)

    return jax.vmap(solve_at)(perturbations)


def errors_in_float32(num_steps):
    """Relative errors of both estimators, each of shape [45]."""
    given = np.r_[0.0, perturbations, -perturbations], theta, task
    in_float32 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), given)
    phi = at_every_perturbation(*in_float32, num_steps)
    zero, plus, minus = phi[0], phi[1:46], phi[46:]
    factor = proximal_strength / perturbations[:, None]
    return {
        "forward": relative_error(factor * (zero - plus)),
        "symmetric": relative_error(factor / 2 * (minus - plus)),
    }


# %%
in_float32 = {steps: errors_in_float32(steps) for steps in (20, 40, 80, 240)}

# %% tags=["fold"]
theory, found = {}, {}
for order, name in enumerate(truncation, 1):
    theory[name] = truncation[name] * perturbations**order + amplification[name] * rounding / perturbations
    expected = (amplification[name] * rounding / (order * truncation[name])) ** (1 / (order + 1))
    errors = in_float32[240][name]
    found[name] = perturbations[errors.argmin()]
    assert 1 / 3 < found[name] / expected < 3 and 0.2 < np.median(errors / theory[name]) < 2
    assert errors[0] > 100 * errors.min() and np.median(errors[:10] / theory[name][:10]) < 1
assert in_float32[240]["symmetric"].min() < in_float32[240]["forward"].min() / 5
assert found["symmetric"] > found["forward"]
assert 0.001 < found["symmetric"] < 0.009 and 0.001 < expected < 0.009  # of the options 0.003 is nearest to both
float32_prediction.reveal(2)
lesson_05.show_v(perturbations, theory, in_float32[240])

# %% [markdown]
# Theory and measurement agree on the shape of the V, with the best ν within a factor of
# three. On the left branch of each V the measured error is smaller than predicted. One reason is that $2^{-24}$ is the
# largest relative error of a rounding and not a typical one. The symmetric estimator wins twice: its smallest error is
# lower, and it is reached at a larger ν, farther away from rounding.
#
# Does the best ν depend on the number of inner steps? The table compares two choices of ν with the best
# one.

# %% tags=["fold"]
chosen, tiny_at = (np.abs(perturbations - perturbation).argmin() for perturbation in (0.003, 1e-5))
for errors in in_float32.values():
    assert errors["symmetric"][chosen] < 2 * errors["symmetric"].min()
assert in_float32[240]["symmetric"][tiny_at] > in_float32[40]["symmetric"][tiny_at] / 2
plots.table(
    {
        f"K = {steps}": [
            float(each["symmetric"][chosen]),
            float(each["symmetric"].min()),
            float(each["symmetric"][tiny_at]),
        ]
        for steps, each in in_float32.items()
    },
    ["inner steps", "error at ν = 0.003", "smallest error over all ν", "error at ν = 0.00001"],
    "One ν serves short and long inner loops",
    "Relative error of the symmetric estimator in float32.",
    digits=2,
)

# %% [markdown]
# With a tiny ν more steps soon stop helping, because rounding determines the error. With a ν near the bottom of the V
# the error is within a factor of two of the smallest one in every row. Other networks have other constants, but the
# best ν depends only on the third root of $R\,\delta/C$: if this ratio is a thousand times larger, the best ν is ten
# times larger. For the symmetric estimator in float32 a ν between 0.001 and 0.01 is therefore a reasonable first
# choice.

# %% [markdown]
# **Your own task distribution.** Which ν is best for *your* tasks? Paste your `my_task` from lesson 01 over the one
# below, or keep the one below if you have none. The course scales your inputs and targets to the size of ours and lets
# the network adapt to sixteen of your tasks. For the symmetric estimator it then measures $C$ in float64, where
# rounding does not disturb, and computes $R$ and $\delta$ as above. Again $C$ and $R$ are divided by the norm of the
# meta-gradient, and all three are averaged over the tasks.
#
# Choose ν from these three numbers, and put it into `my_perturbation`. The line after it measures the V of your tasks in
# float32 and tells you whether the error at your ν is at most three times the smallest one.


# %% tags=["yours"]
def my_task(key):
    """A random task: ten support and ten query points of one curve."""
    slope_key, offset_key, x_key = jax.random.split(key, 3)
    slope = jax.random.uniform(slope_key, maxval=2.0)
    offset = jax.random.normal(offset_key)
    x = jax.random.uniform(x_key, (20, 1), minval=-5.0, maxval=5.0)
    y = slope * x + offset
    return ml.Task(support=(x[:10], y[:10]), query=(x[10:], y[10:]))


constants = lesson_05.own_constants(my_task, network_loss, theta)
print(f"C = {constants.C:.2g}   R = {constants.R:.2g}   δ = {constants.delta:.2g}")

# %% tags=["yours"]
my_perturbation = None  # choose it from the three numbers
status = lesson_05.own_perturbation(my_task, network_loss, theta, my_perturbation)

# %% [markdown]
# <details><summary>A choice</summary>
#
# `my_perturbation = best_perturbation(*constants, 2)`, or the formula by hand: $(R\,\delta / (2C))^{1/3}$. Because of
# the third root, this ν only about doubles if $R$ is ten times larger, or $C$ ten times smaller.
#
# </details>

# %% [markdown]
# ## When −ν removes the minimum
#
# There is another reason not to take ν too large. The symmetric estimator *subtracts* $\nu f$ from the inner objective,
# and if it subtracts enough, there is no minimum left. The **three-point estimator** avoids this and is still of second
# order. It solves at $0$, $\nu$ and $2\nu$:
#
# $$g_3 = \frac{\lambda}{2\nu}\,(3\varphi_0 - 4\varphi_\nu + \varphi_{2\nu}).$$
#
# We compare all three estimators where everything can be computed by hand.

# %%
trap_prediction = predict("05.trap")


# %%
def quadratic_loss(phi, batch):
    curvature, minimum = batch
    return jnp.sum(curvature * (phi - minimum) ** 2 / 2)


support, query = jnp.array([[0.5], [-1.0]]), jnp.array([[3.0], [2.0]])
quadratic_task = ml.Task(support, query)
tried = np.geomspace(0.008, 0.8, 41)
phi_exact = 0.5 * -1 / (0.5 + 1)  # the minimum for θ = 0 and λ = 1
exact_1d = 1 / (0.5 + 1) * 3 * (phi_exact - 2)
trap_errors = {}
for estimator in ("forward", "symmetric", "three_point"):

    @jax.jit
    @jax.vmap
    def estimate(perturbation, estimator=estimator):
        sgd = optax.sgd(0.25)
        method = ml.fo_b_maml(quadratic_loss, sgd, 200, 1.0, perturbation, estimator)
        return method(0.0, quadratic_task)[1]

    trap_errors[estimator] = np.abs(np.asarray(estimate(tried)) / exact_1d - 1)

# %% tags=["fold"]
trap_prediction.reveal((1 + 0.5) / 3)
beyond, within = tried > 0.5, tried < 0.1
assert (trap_errors["symmetric"][beyond] > 10).all() and (trap_errors["three_point"][beyond] < 1).all()
assert 1.8 < trap_errors["three_point"][0] / trap_errors["symmetric"][0] < 2.2
assert (trap_errors["symmetric"][within] < trap_errors["three_point"][within]).all()
assert (trap_errors["three_point"][within] < trap_errors["forward"][within]).all()
lesson_05.show_lost_minimum(tried, trap_errors)

# %% [markdown]
# At the threshold the objective is a straight line, and beyond it the inner loop runs downhill without end. In a long
# training run this shows as an infinity or a NaN that comes suddenly. In general, let $\mu$ be the smallest curvature
# of $h$ and $L_f$ the largest of $f$. The problem with $-\nu$ certainly has a minimum as long as
#
# $$\lambda + \mu > \nu L_f .$$
#
# The remedy is to lower ν or to raise λ. The three-point estimator (`"three_point"` in the library) needs neither
# if $f$ is convex, but it costs a third solve, and for small ν its error is about twice that of the symmetric estimator.

# %% [markdown]
# ## Question: the error of three points
#
# On paper, about 10 minutes. Let $\varphi_\nu$ have as many derivatives with respect to ν as you need.
#
# 1. Derive the leading term of $g_3 - \nabla F$. Compare it with that of the symmetric estimator,
#    $-\frac{\lambda}{6} \varphi''' \nu^2$.
# 2. Which weighted mean of $g_3$ and $g_{\text{sym}}$ has an error of only $O(\nu^3)$?
# 3. Would you use this mean?
#
# Write your answer on paper, or into the next cell (a double click opens it).

# %% [markdown] tags=["free-text"] question="05.three_points"
# ### BEGIN SOLUTION
# **1.** With all derivatives taken at zero,
#
# $$\begin{aligned}
# \varphi_\nu &= \varphi_0 + \nu\, \varphi' + \tfrac12 \nu^2 \varphi'' + \tfrac16 \nu^3 \varphi''' + O(\nu^4), \\
# \varphi_{2\nu} &= \varphi_0 + 2\nu\, \varphi' + 2 \nu^2 \varphi'' + \tfrac86 \nu^3 \varphi''' + O(\nu^4).
# \end{aligned}$$
#
# In $3\varphi_0 - 4\varphi_\nu + \varphi_{2\nu}$ the terms with $\varphi_0$ and $\varphi''$ cancel, and
# $-2\nu\, \varphi' + \frac23 \nu^3 \varphi''' + O(\nu^4)$ is left. Multiplied by $\frac{\lambda}{2\nu}$ this is
#
# $$g_3 = -\lambda \varphi' + \tfrac{\lambda}{3} \varphi''' \nu^2 + O(\nu^3).$$
#
# By line 5 the first term is $\nabla F$. So the error is twice that of the symmetric estimator, with the opposite sign.
#
# **2.** The signs are opposite and one error is twice the other, so in $\frac13 g_3 + \frac23 g_{\text{sym}}$ the terms
# in $\nu^2$ cancel.
#
# **3.** Only where solves are very accurate, because at the best ν the error falls from $O(\delta^{2/3})$ to
# $O(\delta^{3/4})$, which is little unless δ is tiny. The mean needs four solves, at $-\nu$, $0$, $\nu$ and $2\nu$, and
# the problem at $-\nu$ can lose its minimum again.
# ### END SOLUTION

# %% [markdown]
# ## Does training with these estimates converge?
#
# Each estimate has a bias $b$, so gradient descent follows $g = \nabla F + b$ instead of $\nabla F$. Four lines show
# where that ends. Let $\lVert \nabla F(\theta) - \nabla F(\theta') \rVert \le L\, \lVert \theta - \theta' \rVert$ for
# all points (one says that $\nabla F$ is *Lipschitz* with constant $L$), let the outer learning rate be $\eta \le 1/L$,
# and let $\theta^+ = \theta - \eta g$ be the next point.
#
# 1. Along the step the gradient differs from $\nabla F(\theta)$ by at most $L$ times the distance covered. Integrate this
#    over the step, and $F$ lies below a parabola that touches it at θ:
#    $F(\theta^+) \le F(\theta) - \eta \langle \nabla F, g \rangle + \frac{L\eta^2}{2} \lVert g \rVert^2$.
# 2. Because $L\eta \le 1$, the last term is at most $\frac{\eta}{2} \lVert g \rVert^2$, and
#    $\frac12\lVert g\rVert^2 - \langle\nabla F, g\rangle = \frac12 \lVert g - \nabla F \rVert^2 - \frac12\lVert\nabla F\rVert^2$.
#    Hence $F(\theta^+) \le F(\theta) - \frac{\eta}{2} \lVert \nabla F \rVert^2 + \frac{\eta}{2} \lVert b \rVert^2$.
# 3. Add this up over $N$ outer steps. The values of $F$ cancel, apart from the first and the last:
#    $\frac1N \sum_t \lVert \nabla F(\theta_t) \rVert^2 \le
#    \frac{2\,(F(\theta_0) - \min F)}{\eta N} + \frac1N \sum_t \lVert b_t \rVert^2$.
# 4. The first term vanishes as $N$ grows. The second one is the mean square of the bias. With the best ν the bias is
#    $O(\delta^{1/2})$ (forward) or $O(\delta^{2/3})$ (symmetric), and so is the smallest $\lVert \nabla F \rVert$ that is
#    reached.
#
# So training comes as close to a stationary point as the bias allows. We test this on eight quadratic tasks, with both
# estimators and with FO-MAML, which uses $\nabla f(\varphi_0)$ at the unperturbed solution. The meta-gradient of such
# tasks is known in closed form, and so is the Hessian of $F$, which is the mean of $J^\top A J$ with
# $J = d\varphi_0/d\theta$. The inner loops converge, so a bias is due to the method and to ν alone.

# %%
stationary_prediction = predict("05.stationary")

# %%
distribution = ml.tasks.Quadratic(dim=5, query_curvature=(0.2, 2.0))
tasks = distribution(jax.random.key(0), 8)
oracle = ml.theory.proximal(tasks, 2.0)
J, A = oracle.jacobian, np.asarray(tasks.query.hessian)
meta_hessian = (J.swapaxes(1, 2) @ A @ J).mean(axis=0)
smoothness = np.linalg.eigvalsh(meta_hessian)[-1]  # L, the largest curvature of F
eta, num_outer = 1 / smoothness, 300


def outer_run(meta_gradient):
    """All points of gradient descent with the mean of this estimate."""

    def outer_step(point, _):
        gradients = jax.vmap(meta_gradient, in_axes=(None, 0))(point, tasks)[1]
        return point - eta * gradients.mean(axis=0), point

    return jax.lax.scan(outer_step, jnp.ones(5), length=num_outer + 1)[1]


def fo_maml(point, task):
    adapted = solve(distribution.loss, task, point, 0.25, 40, 2.0, 0.0)
    return jax.value_and_grad(distribution.loss)(adapted, task.query)


# %% tags=["fold"]
final_perturbations = np.array([0.16, 0.08, 0.04, 0.02])
runs = {"FO-MAML": [np.asarray(jax.jit(outer_run, static_argnums=0)(fo_maml))] * 4}
for estimator in ("forward", "symmetric"):

    @jax.jit
    @jax.vmap
    def runs_of(perturbation, estimator=estimator):
        return outer_run(ml.fo_b_maml(distribution.loss, optax.sgd(0.25), 40, 2.0, perturbation, estimator))

    runs[estimator] = list(np.asarray(runs_of(final_perturbations)))
least_objective = oracle.objective(oracle.stationary_point())
final = {}
for name, each in runs.items():
    final[name] = np.array([np.linalg.norm(oracle.meta_gradient(run[-1])) for run in each])
    for run in each:
        gradients = np.array([oracle.meta_gradient(point) for point in run[:-1]])
        biases = (run[:-1] - run[1:]) / eta - gradients
        assert np.allclose(run[-1], run[-2], atol=1e-6)
        values = np.array([oracle.objective(point) for point in run])
        squares, bias = (gradients**2).sum(axis=1), (biases**2).sum(axis=1)
        assert (values[1:] <= values[:-1] - eta / 2 * squares + eta / 2 * bias + 1e-12).all()  # line 2
        assert squares.mean() <= 2 * (values[0] - least_objective) / (eta * num_outer) + bias.mean()  # line 3
for name, order in (("forward", 1), ("symmetric", 2)):
    assert abs(np.log2(final[name][-2] / final[name][-1]) - order) < 0.1
    assert (final[name] < final["FO-MAML"]).all()
stationary_prediction.reveal(1)
plots.table(
    {name: list(map(float, values)) for name, values in final.items()},
    ["norm of ∇F at the end", *(f"ν = {perturbation:g}" for perturbation in final_perturbations)],
    "A smaller ν brings FO-B-MAML closer to a stationary point",
    "Eight quadratic tasks, 300 outer steps with η = 1/L. FO-MAML has no ν. Lines 2 and 3 were checked in all runs.",
    digits=2,
)

# %% [markdown]
# FO-MAML converges to a wrong point. Its bias is not an error of the inner solves, so solving more accurately would not
# help. Where the estimators of FO-B-MAML converge, the norm of $\nabla F$ is about proportional to ν (forward) and to
# $\nu^2$ (symmetric), the orders of their biases. So FO-MAML's bias is fixed, whereas that of FO-B-MAML falls with ν, as
# far as the accuracy of the solves allows. Line 1 assumed a Lipschitz constant $L$. For networks the curvature of $F$ can
# grow with its gradient, so that no single useful $L$ exists; that is the subject of lesson 06.

# %% [markdown]
# ## Three fields, one formula
#
# The same vector was found in two other fields. To see how, let $\ell(\nu, \theta)$ be the smallest value of the
# perturbed objective. When ν or θ changes, the minimum moves, but the gradient of the objective with respect to φ is
# zero there, so only the explicit dependence on ν and θ counts:
#
# $$\frac{\partial \ell}{\partial \nu} = f(\varphi_\nu), \qquad
# \frac{\partial \ell}{\partial \theta} = \lambda\,(\theta - \varphi_\nu).$$
#
# At $\nu = 0$ the first of these is $f(\varphi_0) = F(\theta)$. Mixed second derivatives do not depend on their order, so at
# $\nu = 0$ we get line 5 without any Hessian:
#
# $$\nabla F = \frac{\partial}{\partial \theta} \frac{\partial \ell}{\partial \nu} =
# \frac{\partial}{\partial \nu} \frac{\partial \ell}{\partial \theta} = -\lambda\, \frac{d\varphi_\nu}{d\nu}.$$
#
# - **Equilibrium propagation and the contrastive rule** add a *nudge* to the inner objective, which is $\beta$ times the
#   evaluation loss, our $f$. They compute the derivative of the inner objective with respect to θ at two points, which
#   are the solutions with and without the nudge, and divide the difference by $\beta$.
# - **The penalty method F2SA** minimizes the outer loss, again our $f$, plus $\gamma$ times the inner objective for a
#   large $\gamma$. It computes the same derivative at this solution and at that of the inner problem alone, and
#   multiplies the difference by $\gamma$.
#
# Both agree with the forward estimator if $\beta = \nu$ and $\gamma = 1/\nu$, even before the inner loops have
# converged. The objective of F2SA is then the perturbed one divided by ν, so its loop takes the same steps with ν times
# the learning rate.


# %%
def partial_theta(phi):
    """The derivative of the inner objective in θ, at a fixed φ."""
    return proximal_strength * (theta - phi)


@jax.jit
def three_ways(perturbation):
    def run(objective, factor=1.0):
        sgd = optax.sgd(factor * learning_rate)
        return ml.inner.descend(objective, sgd, num_steps, theta)

    numbers = num_steps, proximal_strength, perturbation
    inner = ml.inner.proximal(h, theta, proximal_strength)
    free = run(inner)
    nudged = run(lambda phi: inner(phi) + perturbation * f(phi))
    penalized = run(lambda phi: f(phi) + inner(phi) / perturbation, perturbation)
    forward = ml.fo_b_maml(network_loss, optax.sgd(learning_rate), *numbers, "forward")
    contrastive = (partial_theta(nudged) - partial_theta(free)) / perturbation
    penalty = (partial_theta(penalized) - partial_theta(free)) / perturbation
    return contrastive, penalty, forward(theta, task)[1]


contrastive, penalty, forward = three_ways(0.05)
assert jnp.allclose(contrastive, forward, rtol=0, atol=1e-10)
assert jnp.allclose(penalty, forward, rtol=0, atol=1e-10)

# %% [markdown]
# They agree to rounding, because the derivative of the inner objective with respect to θ is $\lambda(\theta - \varphi)$, in
# which θ cancels from the difference. An error bound for one of them is therefore an error bound for all three.

# %% [markdown]
# ## What to take away
#
# - The meta-gradient is $-\lambda$ times the derivative of the perturbed solution with respect to ν, and two inner solves
#   estimate it without second derivatives.
# - The forward estimator has an error of $O(\nu)$, the symmetric one of $O(\nu^2)$. Independent errors δ of the solves add
#   $R\,\delta/\nu$. With the best ν the error is $O(\delta^{1/2})$ or $O(\delta^{2/3})$.
# - Two inner loops from the same initialization have errors that nearly cancel, and the estimate of an unconverged loop is a
#   damped sum of query gradients without an inverse. Rounding does not cancel, so in float32 ν should not be tiny.
# - If ν is too large, the problem with $-\nu$ has no minimum. Keep $\nu L_f$ below $\lambda + \mu$.
# - Gradient descent with a biased estimate ends where the norm of $\nabla F$ is at most about the norm of the bias.

# %%
quiz("05")

# %%
progress("05")

# %% [markdown]
# ## Limits
#
# - The estimators belong to the objective with a *proximal term*. Its solution is not that of $K$ plain gradient steps, so
#   compare FO-B-MAML with MAML by the loss after adaptation, and never by their gradients.
# - The orders in ν need smooth losses. With ReLU the solution has kinks as a function of ν.
# - The best ν was found for one small network and one task.
# - The condition for $-\nu$ is sufficient and not necessary. A positive ν has a milder condition of its own: the inner
#   learning rate must stay below $2/(L_h + \lambda + \nu L_f)$, where $L_h$ is the largest curvature of $h$.
# - Where $\lambda + \mu \le 0$, with $\mu$ the smallest curvature of $h$, the inner problem may have several minima or none.
# - The four lines on convergence are for exact averages over all tasks. With sampled tasks the variance of the estimates enters the bound too.
#
# ## Go further
#
# - E. M. Chayti, M. Jaggi. *A new first-order meta-learning algorithm with convergence guarantees.* 2024.
#   [arXiv 2409.03682](https://arxiv.org/abs/2409.03682); version of 2026 under review,
#   [OpenReview](https://openreview.net/forum?id=4zGAXQxisB). FO-B-MAML: the perturbed problem and both estimators.
# - L. Chen, J. Li, E. M. Chayti, J. Zhang. *Faster gradient methods for highly-smooth stochastic bilevel
#   optimization.* 2026. [arXiv 2509.02937](https://arxiv.org/abs/2509.02937). Differences of any order.
# - B. Scellier, Y. Bengio. *Equilibrium propagation: bridging the gap between energy-based models and
#   backpropagation.* 2017. [arXiv 1602.05179](https://arxiv.org/abs/1602.05179). The origin of the nudge.
# - N. Zucchet, S. Schug, J. von Oswald, D. Zhao, J. Sacramento. *A contrastive rule for meta-learning.* 2022.
#   [arXiv 2104.01677](https://arxiv.org/abs/2104.01677).
# - J. Kwon, D. Kwon, S. Wright, R. Nowak. *A fully first-order method for stochastic bilevel optimization.* 2023.
#   [arXiv 2301.10945](https://arxiv.org/abs/2301.10945). F2SA.
