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
# - **implement** the two estimators of Chayti & Jaggi for any model,
# - **predict** their error from three numbers, and **choose** $\nu$ by it,
# - **explain** why two unfinished loops can give a good difference, and what spoils it,
# - **recognise** when the problem with $-\nu$ has lost its minimum.
#
# **New symbols**
#
# - $\nu$: perturbation
# - $\delta$: error of an inner solve

# %% tags=["imports"]
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, playground, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## Perturb a problem, and its minimum moves
#
# The open circle is the minimum of an inner problem with a single parameter φ. Add a little of the query loss to that
# problem, ν times the loss, and the minimum moves to the filled circle. The picture in the middle draws where it is for
# every ν. Its tangent at ν = 0 is what this lesson is after, because up to a constant factor its slope is the
# meta-gradient. Each chord estimates that slope from two minima, without any second derivative.
#
# Which of the two chords comes closer to the tangent, and does a smaller ν always bring it closer still? Decide before
# you drag ν below 0.001.

# %%
playground("perturb_the_problem")

# %% [markdown]
# Three things in these pictures need an explanation: why the slope of the tangent is the meta-gradient, how quickly each
# chord approaches it, and what ends the improvement. They are the three parts of this lesson.

# %% [markdown]
# ## Where lesson 04 left us
#
# Adaptation finds the minimum of the support loss $h$ with a spring of strength $\lambda$ to the start:
# $\phi^*(\theta) = \arg\min_\phi\, h(\phi) + \frac\lambda2 \lVert \phi - \theta \rVert^2$.
# The meta-objective is the query loss there, $F(\theta) = f(\phi^*(\theta))$, and its gradient is
# $\nabla F = \lambda\,(H + \lambda I)^{-1} \nabla f(\phi^*)$, with $H$ the Hessian of $h$.
# iMAML solves this linear system with Hessian-vector products: second derivatives.
#
# This lesson gets the same vector from gradients alone.

# %% [markdown]
# ## A valley that leans
#
# One parameter, one task. Support loss and spring together form a valley. The query loss has its minimum elsewhere. Now
# let the query loss lean on the valley: add a little of it, $\nu f$.

# %%
spring = 1.5  # lambda


def query_1d(phi):
    return (phi - 2) ** 2 / 2


def valley(phi, nu=0.0, theta=0.0, stiffness=1.0):
    """Support loss, spring and a little of the query loss."""
    return stiffness * (np.cosh(phi + 1) - 1) + spring / 2 * (phi - theta) ** 2 + nu * query_1d(phi)


def lowest(nu=0.0, theta=0.0, stiffness=1.0):
    """The minimum of the valley, by gradient descent."""
    phi = theta
    for _ in range(400):
        phi = phi - 0.1 * (stiffness * np.sinh(phi + 1) + spring * (phi - theta) + nu * (phi - 2))
    return phi


figure, (left, right) = plots.subplots(2)
grid = np.linspace(-2.2, 2.2, 201)
plots.lines(
    grid,
    {"valley: support loss + spring": valley(grid), "query loss f": query_1d(grid)},
    "parameter φ",
    "loss",
    points={"minimum": ([lowest(), 2], [valley(lowest()), 0])},
    ylim=(-0.3, 11),
    axes=left,
)
leans = np.array([-0.5, 0.0, 0.5])
minima = np.array([lowest(nu) for nu in leans])
plots.lines(
    grid,
    {f"ν = {nu:g}": valley(grid, nu) for nu in leans},
    "parameter φ",
    "valley + ν f",
    points={"minimum": (minima, valley(minima, leans))},
    ylim=(-2, 6),
    axes=right,
)
assert (np.diff(minima) > 0).all()  # towards the query loss's minimum at 2
plots.show(
    figure,
    alt="Left: a valley with its minimum left of zero, and a query loss that falls towards two. Right: the valley "
    "with a negative, no and a positive lean. Its minimum moves to the right as the lean grows.",
)

# %% [markdown]
# With a positive lean the minimum moves to where the query loss is lower. With a negative lean it moves the other way.
# How far it moves depends on the valley: a stiff one yields less.
#
# Compare two nudges in valleys of different stiffness. One leans by a small $\nu$, and records how the *minimum* moves.
# The other moves the start $\theta$, and records how the *query loss at the minimum* changes. That is the
# meta-gradient.

# %%
stiffness_prediction = predict(
    "05.stiffness",
    "In a stiffer valley the same lean moves the minimum less. What happens to the meta-gradient?",
    options=["it shrinks by the same factor", "it shrinks by another factor", "it grows"],
)

# %%
tiny = 1e-4
ratios = []
for stiffness in (0.5, 2.0, 8.0):
    moves = (lowest(nu=tiny, stiffness=stiffness) - lowest(nu=-tiny, stiffness=stiffness)) / (2 * tiny)
    ahead, behind = lowest(theta=tiny, stiffness=stiffness), lowest(theta=-tiny, stiffness=stiffness)
    meta_gradient_1d = (query_1d(ahead) - query_1d(behind)) / (2 * tiny)
    ratios.append(meta_gradient_1d / moves)
    print(
        f"stiffness {stiffness:3.1f}   move per lean {moves:.3f}   meta-gradient {meta_gradient_1d:.3f}"
        f"   ratio {ratios[-1]:.3f}"
    )
stiffness_prediction.reveal("it shrinks by the same factor")
assert np.allclose(ratios, -spring, rtol=1e-5)

# %% [markdown]
# The ratio is the same in every row: minus the strength of the spring. No second derivative was computed.
#
# Why? Both nudges are forces on the minimum. Moving the start pulls with force $\lambda\, d\theta$. Leaning pushes with
# force $-f'\, d\nu$. The valley answers every force with the same stiffness $h'' + \lambda$. So
#
# $$\underbrace{\frac{dF}{d\theta} = f' \cdot
# \frac{\lambda}{h'' + \lambda}}_{\text{nudge the start, watch the query loss}}
# \qquad\text{and}\qquad
# \underbrace{\frac{d\phi}{d\nu} = \frac{-f'}{h'' + \lambda}}_{\text{nudge by the query loss, watch the minimum}}$$
#
# differ by the factor $-\lambda$. The moving minimum has divided by the stiffness for us. With many parameters
# it applies the inverse of a matrix.

# %% [markdown]
# ## The derivation, in five lines
#
# The **perturbed problem** of Chayti & Jaggi is the valley with a lean:
#
# $$\phi_\nu(\theta) = \arg\min_\phi\; \nu f(\phi) + h(\phi) + \tfrac\lambda2 \lVert \phi - \theta \rVert^2 .$$
#
# The example for the rest of the lesson is a small network on one sine task. It has ten tanh units: ReLU has corners,
# and a derivative of the solution needs smoothness. Its 30 parameters are one vector, so that errors have a length.
# `solve` walks `num_steps` gradient steps on the perturbed problem; with 400 of them it has arrived.

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict


def network_loss(params, batch):
    """Mean squared error of ten tanh units; params has shape [30]."""
    x, y = batch
    weight, bias, readout = params.reshape(3, -1)
    return jnp.mean((jnp.tanh(x * weight + bias) @ readout - y[:, 0]) ** 2)


@functools.partial(jax.jit, static_argnums=(0, 4))
def solve(loss, task, params, step_size, num_steps, strength, nu):
    """phi_nu after `num_steps` gradient steps from the start `params`, a pytree like `params`."""

    def leaning(phi):
        return nu * loss(phi, task.query) + loss(phi, task.support)

    return ml.inner.descend(ml.inner.proximal(leaning, params, strength), optax.sgd(step_size), num_steps, params)


task = ml.tasks.Sinusoid(num_support=10, num_query=10).task(jax.random.key(3), amplitude=2.0, phase=1.0)
theta = jax.random.normal(jax.random.key(0), (30,)) / 2
strength, step_size = 4.0, 0.05


def h(phi):
    return network_loss(phi, task.support)


def f(phi):
    return network_loss(phi, task.query)


def phi_of(nu, theta=theta):
    return solve(network_loss, task, theta, step_size, 400, strength, nu)


# %% [markdown]
# **Line 1, stationarity.** At the minimum the slope is zero, whatever $\nu$ is:
#
# $$\nu \nabla f(\phi_\nu) + \nabla h(\phi_\nu) + \lambda (\phi_\nu - \theta) = 0.$$

# %% tags=["nbval-check-output"]
for nu in (-0.1, 0.0, 0.1):
    phi = phi_of(nu)
    assert jnp.allclose(nu * jax.grad(f)(phi) + jax.grad(h)(phi) + strength * (phi - theta), 0, atol=1e-12)
print("line 1 holds for ν = -0.1, 0 and 0.1")

# %% [markdown]
# **Line 2, differentiate in $\nu$.** The first term is a product, so it gives two. With $A = \nabla^2 f$ and
# $H = \nabla^2 h$ at $\phi_\nu$,
#
# $$\nabla f(\phi_\nu) + (\nu A + H + \lambda I)\, \frac{d\phi_\nu}{d\nu} = 0.$$
#
# `jax.jvp` carries a derivative forwards through all 400 steps, and returns it beside the value.

# %% tags=["nbval-check-output"]
hessian = jax.jit(jax.hessian(network_loss))


@jax.jit
def with_slope(nu):
    """phi_nu and its derivative in nu."""
    return jax.jvp(phi_of, (nu,), (1.0,))


phi, slope = with_slope(0.1)
system = 0.1 * hessian(phi, task.query) + hessian(phi, task.support) + strength * jnp.eye(30)
assert jnp.allclose(jax.grad(f)(phi) + system @ slope, 0, atol=1e-10)
print("line 2 holds for ν = 0.1")

# %% [markdown]
# **Line 3, stop leaning.** At $\nu = 0$ the query Hessian drops out:
#
# $$\frac{d\phi_\nu}{d\nu}\Big|_{\nu=0} = -(H + \lambda I)^{-1} \nabla f(\phi_0).$$

# %% tags=["nbval-check-output"]
phi_0, slope = with_slope(0.0)
system = hessian(phi_0, task.support) + strength * jnp.eye(30)
assert jnp.allclose(slope, -jnp.linalg.solve(system, jax.grad(f)(phi_0)))
print("line 3 holds")

# %% [markdown]
# **Line 4, from lesson 04.** The implicit function theorem gave the same inverse, applied to the same vector:
#
# $$\nabla F(\theta) = \lambda\, (H + \lambda I)^{-1} \nabla f(\phi_0).$$
#
# To check it without the formula, differentiate $F$ backwards through the 400 steps.

# %% tags=["nbval-check-output"]
exact = jax.jit(jax.grad(lambda theta: f(phi_of(0.0, theta))))(theta)
assert jnp.allclose(exact, strength * jnp.linalg.solve(system, jax.grad(f)(phi_0)))
print("line 4 holds")

# %% [markdown]
# **Line 5, compare.** Lines 3 and 4 differ by a factor:
#
# $$\boxed{\;\nabla F(\theta) = -\lambda\, \frac{d\phi_\nu}{d\nu}\Big|_{\nu=0}\;}$$
#
# The linear system is gone. What is left is a derivative with respect to *one number*, however many parameters there
# are.

# %% tags=["nbval-check-output"]
assert jnp.allclose(exact, -strength * slope)
print("line 5 holds")

# %% [markdown]
# ## Exercise: the perturbed solution
#
# Everything rests on $\phi_\nu$. In `solve` the library hides what pulls at $\phi$. Write it out with nothing but
# `jax.grad(loss)`: at every step three forces act, those of the support loss, of the query loss and of the spring.


# %% tags=["exercise"] exercise="05.perturbed_solution"
def perturbed_solution(
    loss,
    task,
    params,
    step_size,
    num_steps,
    strength,
    nu,
):
    """Gradient descent on nu f(phi) + h(phi) + strength/2
    ||phi - params||^2; f is the query loss, h the support loss.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      params: the start theta, any pytree of arrays. The first step
        begins there.
      step_size: a, a number.
      num_steps: K, a whole number.
      strength: lambda > 0, a number.
      nu: a number of either sign.

    Returns:
      A pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    phi = params
    for _ in range(num_steps):
        support_slope, query_slope = jax.grad(loss)(phi, task.support), jax.grad(loss)(phi, task.query)
        phi = jax.tree.map(
            lambda p, s, q, start: p - step_size * (s + nu * q + strength * (p - start)),
            phi,
            support_slope,
            query_slope,
            params,
        )
    return phi
    ### END SOLUTION


# %%
check("05.perturbed_solution", perturbed_solution)

# %% [markdown]
# ## Two solves
#
# A derivative in one number can be read off two points. Back to the valley: draw its minimum against the lean. The
# slope at zero, times $-\lambda$, is the meta-gradient. Two chords come close to it.

# %%
nu = 0.5
leans = np.linspace(-0.9, 0.9, 101)
minima = np.array([lowest(lean) for lean in leans])
tangent = (lowest(tiny) - lowest(-tiny)) / (2 * tiny)
forward_slope = (lowest(nu) - lowest()) / nu
symmetric_slope = (lowest(nu) - lowest(-nu)) / (2 * nu)
figure = plots.lines(
    leans,
    {
        "the minimum": minima,
        "tangent at 0": lowest() + tangent * leans,
        "forward: through 0 and ν": lowest() + forward_slope * leans,
        "symmetric: through -ν and ν": lowest(-nu) + symmetric_slope * (leans + nu),
    },
    "lean",
    "where the minimum is",
    points={"solved at -ν, 0 and ν": ([-nu, 0, nu], [lowest(-nu), lowest(), lowest(nu)])},
)
figure.axes[0].set_xticks([-nu, 0, nu], ["-ν", "0", "ν"])
plots.show(
    figure,
    alt="The minimum against the lean: a rising curve that becomes flatter. The chord through minus nu and plus nu is nearly "
    "parallel to the tangent at zero. The chord through zero and nu is visibly flatter.",
)
for name, chord in (("tangent", tangent), ("forward", forward_slope), ("symmetric", symmetric_slope)):
    print(f"{name:9s} slope {chord:.3f}, so the meta-gradient would be {-spring * chord:.3f}")
assert abs(symmetric_slope - tangent) < abs(forward_slope - tangent) / 2

# %% [markdown]
# These are the two estimators of the paper. The **forward** one solves at $0$ and $\nu$, the **symmetric** one at
# $-\nu$ and $\nu$:
#
# $$g_{\text{for}} = \frac{\lambda}{\nu}\,(\phi_0 - \phi_\nu), \qquad\qquad
# g_{\text{sym}} = \frac{\lambda}{2\nu}\,(\phi_{-\nu} - \phi_\nu).$$

# %%
halved_prediction = predict(
    "05.halved",
    "Halve ν. By what factor does the symmetric estimator's error shrink?",
    options=["about 2", "about 4", "about 8"],
)


# %%
@jax.jit
def derivatives(nu):
    """The second and the third derivative of phi in nu: jax.jvp of jax.jvp of jax.jvp."""

    def second(nu):
        return jax.jvp(lambda nu: jax.jvp(phi_of, (nu,), (1.0,))[1], (nu,), (1.0,))[1]

    return jax.jvp(second, (nu,), (1.0,))


@jax.jit
def solutions(nus):
    return jax.vmap(phi_of)(nus)


length = float(jnp.linalg.norm(exact))


def relative_error(gradients):
    """|gradient - exact| / |exact| along the last axis."""
    return np.linalg.norm(np.asarray(gradients, np.float64) - exact, axis=-1) / length


second, third = derivatives(0.0)
truncation = {  # of the leading terms of both errors; the text below derives them
    "forward": strength / 2 * float(jnp.linalg.norm(second)) / length,
    "symmetric": strength / 6 * float(jnp.linalg.norm(third)) / length,
}
nus = np.array([0.08, 0.04, 0.02, 0.01])
plus, minus = solutions(nus), solutions(-nus)
measured = {
    "forward": relative_error(strength * (phi_0 - plus) / nus[:, None]),
    "symmetric": relative_error(strength * (minus - plus) / (2 * nus[:, None])),
}
print("ν                      ", "  ".join(f"{nu:8.2g}" for nu in nus))
for (name, errors), order in zip(measured.items(), (1, 2), strict=True):
    predicted = truncation[name] * nus**order
    print(f"{name:9s} predicted    ", "  ".join(f"{value:8.2e}" for value in predicted))
    print(f"{'':9s} measured     ", "  ".join(f"{value:8.2e}" for value in errors))
    assert np.allclose(errors[-1], predicted[-1], rtol=0.1)
    assert abs(np.log2(errors[-2] / errors[-1]) - order) < 0.1
halved_prediction.reveal("about 4")

# %% [markdown]
# Taylor's theorem tells how wrong the chords are. With $\phi'$, $\phi''$, ... the derivatives in $\nu$ at zero,
#
# $$g_{\text{for}} - \nabla F = -\tfrac{\lambda}{2}\phi''\,\nu + \dots, \qquad
# g_{\text{sym}} - \nabla F = -\tfrac{\lambda}{6}\phi'''\,\nu^2 + \dots$$
#
# Halving $\nu$ about halves the forward error and about quarters the symmetric one. The predicted rows are these leading
# terms; as $\nu$ falls the measured rows agree with them. The errors are relative to $|\nabla F|$, here and wherever errors
# are printed or drawn below.
#
# Both take two solves of $K$ steps. A step that leans needs a support and a query gradient, a step at $\nu = 0$ only the
# first: $3K$ gradients forward, $4K$ symmetric. Nothing is stored along the way. Where MAML keeps $K$ points for its way
# back, each solve keeps one. By the count of lesson 04, MAML costs $3K + 1$ and iMAML $K + 1 + 2m$. So the forward
# estimator costs as much as MAML, and the symmetric one more: what they save is the second derivatives and the path.

# %% [markdown]
# ## Exercise: the forward estimator
#
# Two calls of `solve`, defined above, and any pytree of parameters.


# %% tags=["exercise"] exercise="05.forward"
def forward_estimate(
    loss,
    task,
    params,
    step_size,
    num_steps,
    strength,
    nu,
):
    """The forward estimate of the meta-gradient, from two solves.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query.
      params: the start theta, any pytree of arrays. Both solves begin
        there.
      step_size: a, of the inner steps.
      num_steps: K, for each solve.
      strength: lambda > 0, a number.
      nu: > 0, a number.

    Returns:
      A pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    phi_0 = solve(loss, task, params, step_size, num_steps, strength, 0.0)
    phi_nu = solve(loss, task, params, step_size, num_steps, strength, nu)
    return jax.tree.map(lambda unperturbed, leaning: strength / nu * (unperturbed - leaning), phi_0, phi_nu)
    ### END SOLUTION


# %%
check("05.forward", forward_estimate)

# %% [markdown]
# ## Exercise: the symmetric estimator
#
# The same number of solves, and an error of higher order.


# %% tags=["exercise"] exercise="05.symmetric"
def symmetric_estimate(
    loss,
    task,
    params,
    step_size,
    num_steps,
    strength,
    nu,
):
    """The symmetric estimate of the meta-gradient, from two solves.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query.
      params: the start theta, any pytree of arrays. Both solves begin
        there.
      step_size: a, of the inner steps.
      num_steps: K, for each solve.
      strength: lambda > 0, a number.
      nu: > 0, a number.

    Returns:
      A pytree with the structure and shapes of `params`.
    """
    ### BEGIN SOLUTION
    ahead = solve(loss, task, params, step_size, num_steps, strength, nu)
    behind = solve(loss, task, params, step_size, num_steps, strength, -nu)
    return jax.tree.map(lambda minus, plus: strength * (minus - plus) / (2 * nu), behind, ahead)
    ### END SOLUTION


# %%
check("05.symmetric", symmetric_estimate)

# %% [markdown]
# In the library both are `ml.fo_b_maml(loss, inner, num_steps, proximal_strength, perturbation, estimator)`, with
# `estimator` `"symmetric"` or `"forward"`.

# %% [markdown]
# ## The price of a small ν
#
# So make $\nu$ tiny? The two solutions are then nearly equal, and each is only known up to some error. Call its length
# $\delta$. The difference inherits the errors, and is divided by $\nu$:
#
# $$|\text{error}| \;\lesssim\; \underbrace{T\,\nu^p}_{\text{truncation}} \;+\;
# \underbrace{R\,\frac{\delta}{\nu}}_{\text{inaccuracy}}, \qquad
# \begin{array}{l|ccc} & p & T & R \\ \hline
# \text{forward} & 1 & \frac{\lambda}{2} |\phi''| & 2\lambda \\
# \text{symmetric} & 2 & \frac{\lambda}{6} |\phi'''| & \lambda \end{array}$$
#
# up to terms of higher order. (In the figures $T$ and $R$ are divided by $|\nabla F|$.) As $\nu$ falls, the first term
# falls and the second one rises. On logarithmic axes the sum is a V.

# %% [markdown]
# ## Exercise: the best ν
#
# Where is the bottom of the V?


# %% tags=["exercise"] exercise="05.best_nu"
def best_nu(truncation, amplification, accuracy, order):
    """The nu > 0 that minimises truncation * nu**order +
    amplification * accuracy / nu.

    Args:
      truncation: T > 0, a number.
      amplification: R > 0, a number.
      accuracy: delta > 0, the length of each solution's error.
      order: p, 1 for forward, 2 for symmetric, or any larger whole
        number.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    return (amplification * accuracy / (order * truncation)) ** (1 / (order + 1))
    ### END SOLUTION


# %%
check("05.best_nu", best_nu)

# %% [markdown]
# At the bottom, $\nu$ is proportional to $\delta^{1/(p+1)}$. Put that into either term: the error is proportional to
# $\delta^{p/(p+1)}$. For the forward estimator that is $\delta^{1/2}$, for the symmetric one $\delta^{2/3}$. The second
# law stands in the abstract of the paper's version of 2026.
#
# Measure it. Take the exact solutions, and add to each an independent random error of length $\delta$. Try every $\nu$,
# and keep the best. Do this for five values of $\delta$.

# %%
nus = np.geomspace(1e-5, 0.3, 91)
accuracies = np.array([1e-8, 1e-7, 1e-6, 1e-5, 1e-4])
exact_plus, exact_minus = np.asarray(solutions(nus)), np.asarray(solutions(-nus))
errors_of_solves = np.random.default_rng(0).normal(size=(2, 100, 1, 30))  # two solves, 100 repetitions
errors_of_solves /= np.linalg.norm(errors_of_solves, axis=-1, keepdims=True)


def root_mean_square(exact_difference, accuracy, width):
    """Relative error of lambda * difference / width, over the repetitions; shape [91]."""
    difference = exact_difference + accuracy * (errors_of_solves[0] - errors_of_solves[1])
    return np.sqrt((relative_error(strength * difference / width[:, None]) ** 2).mean(axis=0))


best, best_at = {}, {}
for name, order, difference, width in (
    ("forward", 1, np.asarray(phi_0) - exact_plus, nus),
    ("symmetric", 2, exact_minus - exact_plus, 2 * nus),
):
    curves = np.array([root_mean_square(difference, accuracy, width) for accuracy in accuracies])
    assert (curves.argmin(axis=1) > 0).all() and (curves.argmin(axis=1) < len(nus) - 1).all()
    best[name], best_at[name] = curves.min(axis=1), nus[curves.argmin(axis=1)]
    slope_of_error = np.polyfit(np.log(accuracies), np.log(best[name]), 1)[0]
    slope_of_nu = np.polyfit(np.log(accuracies), np.log(best_at[name]), 1)[0]
    print(
        f"{name:9s} error ~ δ^{slope_of_error:.2f} (theory {order / (order + 1):.2f})"
        f"   best ν ~ δ^{slope_of_nu:.2f} (theory {1 / (order + 1):.2f})"
    )
    assert abs(slope_of_error - order / (order + 1)) < 0.03 and abs(slope_of_nu - 1 / (order + 1)) < 0.03
assert (best["symmetric"] < best["forward"]).all()

# %% [markdown]
# Both laws hold. The symmetric estimator's error is lower at all five accuracies. But neither error is proportional to
# $\delta$: to halve it, the inner loops must become more than twice as accurate.

# %% [markdown]
# ## Two unfinished loops
#
# Now the real thing. Stop both inner loops after 60 steps, before they arrive. Each solution then is off by
# some $\delta$. Both loops begin at $\theta$.

# %%
unfinished_prediction = predict(
    "05.unfinished",
    "Both loops stop early. What does the symmetric estimator's error do as ν goes to zero?",
    options=["it rises like δ/ν", "it settles at a constant", "it goes to zero"],
)

# %%
num_steps = 60
nus = np.geomspace(1e-5, 0.3, 37)
starts = np.random.default_rng(1).normal(size=(2, 20, 37, 30))  # two solves, 20 repetitions
starts = np.asarray(theta) + 0.3 * starts / np.linalg.norm(starts, axis=-1, keepdims=True)


@jax.jit
@jax.vmap
@jax.vmap
def unfinished(start, nu):
    """phi_nu after 60 steps from its own start; mapped over repetitions and over nu."""
    leaning = ml.inner.proximal(lambda phi: nu * f(phi) + h(phi), theta, strength)
    return ml.inner.descend(leaning, optax.sgd(step_size), num_steps, start)


def both_solves(starts):
    """At -nu and at nu, shape [2, 20, 37, 30]."""
    leans = np.broadcast_to(nus, (20, 37))
    return np.array([unfinished(starts[0], -leans), unfinished(starts[1], leans)])


own, same = both_solves(starts), both_solves(np.broadcast_to(theta, starts.shape))
arrived = np.array([solutions(-nus), solutions(nus)])[:, None]
curve, delta = {}, {}
for name, stopped in (("own", own), ("same", same)):
    errors = relative_error(strength * (stopped[0] - stopped[1]) / (2 * nus[:, None]))
    curve[name] = np.sqrt((errors**2).mean(axis=0))
    delta[name] = np.sqrt(np.sum((stopped - arrived) ** 2, axis=-1).mean())
    print(f"{name:4s} start: δ = {delta[name]:.1e}, relative error at ν = {nus[0]:.0e}: {curve[name][0]:.1e}")
bound = truncation["symmetric"] * nus**2 + strength * delta["same"] / nus / length
unfinished_prediction.reveal("it settles at a constant")
assert delta["own"] < 3 * delta["same"] and curve["own"][0] > bound[0] / 3
assert curve["same"][0] < 1e-3 * bound[0] and np.ptp(curve["same"][:9]) < 1e-6  # flat up to ν = 0.0001

# %%
plots.show(
    plots.lines(
        nus,
        {
            "each solve from its own start": curve["own"],
            "bound T ν² + R δ/ν": bound,
            "both solves from the same start": curve["same"],
        },
        "perturbation ν",
        "relative error",
        log="xy",
        ylim=(1e-4, 1e2),
    ),
    alt="Relative error of the symmetric estimator against nu, both axes logarithmic. With own starts the error rises "
    "towards small nu, along the bound. With the same start it is flat there, more than a thousand times lower. For large "
    "nu all three curves rise together.",
)

# %% [markdown]
# The bound, drawn for the $\delta$ of the loops from the same start, warns of an error many times the gradient itself.
# Yet their curve is flat. (On the far right both measured curves pass above the bound: there the terms of higher order
# count.) With a start of its own for each solve, the error rises as the bound says, although its
# $\delta$ is only about twice as large.
#
# The reason is cancellation. Two loops from the same start take nearly the same path, and stop short in nearly the same
# way. The error $e_\nu$ of the loop is a smooth function of $\nu$, so $e_\nu - e_{-\nu}$ is itself proportional to
# $\nu$ for small $\nu$: divided by $\nu$ it stays finite.

# %%
at = np.abs(nus - 0.001).argmin()
for name, stopped in (("same start", same), ("own starts", own)):
    behind, ahead = (stopped - arrived)[:, 0, at]
    share = np.linalg.norm(ahead - behind) / np.linalg.norm(ahead)
    print(f"{name}: the difference of the two errors is {share:.3f} of the error of one")
    assert share < 0.05 if name == "same start" else share > 0.5

# %% [markdown]
# So an error of the size $\delta/\nu$ is the price of errors that do not know of each other: mini-batches drawn apart,
# starts that differ, loops that each stop when their own slope is short enough. **Use one start, one step count, one
# order of the data for both solves.**
#
# What is the height of the flat part? As $\nu \to 0$ the chord becomes the derivative of the *loop as it is*, 60 steps
# and no more. `ml.fo_b_maml_limit` computes this exact limit with one `jax.jvp` through the loop, as in line 2. It has
# no $\nu$ to choose.

# %%
floors = []
for steps in (30, 60, 90):
    limit = jax.jit(ml.fo_b_maml_limit(network_loss, optax.sgd(step_size), steps, strength))
    floors.append(float(relative_error(limit(theta, task)[1])))
    print(f"relative error of the limit after {steps} steps: {floors[-1]:.1e}")
assert np.isclose(floors[1], curve["same"][0], rtol=1e-3)
assert floors[1] < floors[0] / 10 and floors[2] < floors[1] / 10

# %% [markdown]
# The limit after 60 steps is the flat part of the figure. It is the error of a loop that stops early, and every 30
# steps divide it by more than ten.
#
# The limit needs Hessian-vector products, as many as the loop takes gradients, so it is no first-order method. Where
# forward derivatives are at hand it is the estimator without $\nu$, and its memory is as flat.

# %% [markdown]
# ## Rounding does not cancel
#
# In float64 a tiny $\nu$ did no harm. Networks are trained in float32, which keeps 24 binary digits: each number is off
# by up to $2^{-24}$ of itself. Suppose that the two solutions are rounded independently. Then the theory above applies,
# with $\delta = 2^{-24}\,|\phi_0|$. Independent errors in random directions add like the sides of a right angle: $R$ is
# $\sqrt2\lambda$ for the forward and $\lambda/\sqrt2$ for the symmetric estimator.
#
# Every number in the formula is known. Here they are, with $T$ and $R$ relative to $|\nabla F|$. Predict before you see
# the V.

# %%
rounding = 2.0**-24 * float(jnp.linalg.norm(phi_0))
amplification = {"forward": np.sqrt(2) * strength / length, "symmetric": strength / np.sqrt(2) / length}
for name, order in (("forward", 1), ("symmetric", 2)):
    print(f"{name:9s}   T = {truncation[name]:.2f}   R = {amplification[name]:.2f}   δ = {rounding:.1e}   p = {order}")
float32_prediction = predict(
    "05.float32",
    "With these numbers, at which ν is the symmetric estimator best in float32? Your `best_nu` may help.",
)

# %%
model_nus = np.geomspace(1e-6, 0.3, 45)
steps_kept = 240


@jax.jit
def paths(nus, theta, task):
    """phi_nu after 1, 2, ..., 240 steps, shape [240, num_nus, 30], in the precision of the arguments."""

    def one_step(phis, _):
        def slope(phi, nu):
            fall = nu * jax.grad(network_loss)(phi, task.query) + jax.grad(network_loss)(phi, task.support)
            return fall + strength * (phi - theta)

        phis = phis - step_size * jax.vmap(slope)(phis, nus)
        return phis, phis

    return jax.lax.scan(one_step, jnp.tile(theta, (len(nus), 1)), length=steps_kept)[1]


def estimates(dtype):
    """Relative errors of both estimators in this precision, each of shape [240, 45]."""
    in_dtype = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (np.r_[0.0, model_nus, -model_nus], theta, task))
    zero, plus, minus = jnp.split(paths(*in_dtype), [1, 46], axis=1)
    width = in_dtype[0][1:46, None]
    return {
        "forward": relative_error(strength * (zero - plus) / width),
        "symmetric": relative_error(strength * (minus - plus) / (2 * width)),
    }


float32_errors = estimates(jnp.float32)
model = {
    name: truncation[name] * model_nus**order + amplification[name] * rounding / model_nus
    for name, order in (("forward", 1), ("symmetric", 2))
}
figure, axes = plots.subplots(2, sharey=True)
for name, panel in zip(model, axes, strict=True):
    plots.lines(
        model_nus,
        {"predicted": model[name], "measured in float32": float32_errors[name][-1]},
        "perturbation ν",
        "relative error" if name == "forward" else "",
        title=name,
        log="xy",
        ylim=(1e-5, 2),
        axes=panel,
    )
    order = {"forward": 1, "symmetric": 2}[name]
    expected = (amplification[name] * rounding / (order * truncation[name])) ** (1 / (order + 1))
    found = model_nus[float32_errors[name][-1].argmin()]
    print(f"{name:9s} best ν    predicted {expected:.1e}, measured {found:.1e}")
    print(f"{'':9s} its error predicted {model[name].min():.1e}, measured {float32_errors[name][-1].min():.1e}")
    assert 1 / 3 < found / expected < 3 and 0.2 < np.median(float32_errors[name][-1] / model[name]) < 2
    assert float32_errors[name][-1][0] > 100 * float32_errors[name][-1].min()
assert float32_errors["symmetric"][-1].min() < float32_errors["forward"][-1].min() / 5
float32_prediction.reveal(model_nus[float32_errors["symmetric"][-1].argmin()])
plots.show(
    figure,
    alt="Two panels, relative error against nu, both axes logarithmic: forward and symmetric. In each a predicted V "
    "and one measured in float32. They coincide on most of the right branch. On the left branch and at the bottom the "
    "measured one is jagged and lies lower. The symmetric V is deeper, and its bottom lies further right.",
)

# %% [markdown]
# No constant was fitted: $T$ came from derivatives of the exact solution, $\delta$ from the number format and
# $|\phi_0|$. Prediction and measurement agree on the shape, and within a factor of three on the best $\nu$. On the left the
# measured error lies lower: $\delta$ is the most that rounding each number once can do. The symmetric estimator wins
# twice: its error is lower, and it reaches it at a *larger* $\nu$, further from rounding.
#
# Now vary the length of the loops too. The sliders begin with a short loop and a tiny $\nu$. Give the loop all the
# steps there are: how much does that help? **Which ν would you use in float32, and does the answer depend on the number
# of steps?**


# %%
def draw_v(log10_nu, inner_steps):
    nearest = np.abs(np.log10(model_nus) - log10_nu).argmin()
    curves = {name: errors[inner_steps - 1] for name, errors in float32_errors.items()}
    symmetric_error = curves["symmetric"][nearest]
    return plots.lines(
        model_nus,
        curves,
        "perturbation ν",
        "relative error in float32",
        points={"your ν": (model_nus[[nearest, nearest]], [curve[nearest] for curve in curves.values()])},
        title=f"K = {inner_steps}, ν = {model_nus[nearest]:.0e}: symmetric error {symmetric_error:.1e}",
        log="xy",
        ylim=(1e-5, 2),
    )


explore(
    draw_v,
    "Relative error in float32 of the forward and the symmetric estimator against nu, both axes logarithmic, for the "
    "chosen number of inner steps; markers show the chosen nu.",
    log10_nu=(-6.0, -0.6, 0.1, -5.0),
    inner_steps=(5, 240, 5, 20),
)

# %%
chosen = np.abs(model_nus - 0.003).argmin()
print("symmetric error   at ν = 0.003   lowest over all ν   at ν = 1e-5")
for inner_steps in (10, 20, 40, 80, 160, 240):
    curve = float32_errors["symmetric"][inner_steps - 1]
    tiny = curve[np.abs(model_nus - 1e-5).argmin()]
    print(f"  K = {inner_steps:3d} {curve[chosen]:20.1e} {curve.min():19.1e} {tiny:13.1e}")
    assert curve[chosen] < 2 * curve.min()
tiny_nu = float32_errors["symmetric"][:, np.abs(model_nus - 1e-5).argmin()]
assert tiny_nu[-1] > tiny_nu[39] / 2 and float32_errors["symmetric"][-1][np.abs(model_nus - 0.01).argmin()] < 1e-3

# %% [markdown]
# At the tiny $\nu$ more steps soon stop helping: rounding sets the error. With few steps the loop's own error
# fills the bottom of the V, and it is flat. With many, it becomes sharp. One $\nu$ serves all of them: near $0.003$ here. A
# smaller one gains nothing with a short loop, and loses with a long one.
#
# Another network has another $T$, $R$ and $\delta$. But only the third root of $R\,\delta / T$ enters: a value a
# thousand times larger moves the best $\nu$ by a factor of ten. For the symmetric estimator in float32, a hundredth is
# a sound first choice.

# %% [markdown]
# ## The trap of minus ν
#
# The V gave one reason not to take $\nu$ much larger. The symmetric estimator has another: it *subtracts* $\nu f$.
# Subtract enough, and the valley becomes a hill. With $\mu$ the smallest curvature of $h$ and $L_f$ the largest of $f$,
# the problem with $-\nu$ surely keeps its minimum while
#
# $$\lambda + \mu > \nu L_f .$$

# %%
trap_prediction = predict(
    "05.trap",
    "One parameter. Support curvature 0.5, spring 1, query curvature 3. From which ν on has the problem with -ν no "
    "minimum?",
)


# %%
def parabola(phi, curvature, minimum):
    return curvature * (phi - minimum) ** 2 / 2


def parabola_loss(phi, batch):
    return jnp.sum(parabola(phi, *batch))


trap_task = ml.Task(support=jnp.array([[0.5], [-1.0]]), query=jnp.array([[3.0], [2.0]]))
trap_nus = np.geomspace(0.008, 0.8, 41)


def trap_solution(nu):
    """The stationary point of the perturbed problem with theta = 0, whether it is a minimum or not."""
    return (0.5 * -1 + 3 * nu * 2) / (0.5 + 1 + 3 * nu)


exact_1d = 1 / (0.5 + 1) * 3 * (trap_solution(0) - 2)  # lambda / (h'' + lambda) * f'(phi_0)
trap_errors = {}
for estimator in ("forward", "three_point", "symmetric"):

    @jax.jit
    @jax.vmap
    def estimate(nu, estimator=estimator):
        return ml.fo_b_maml(parabola_loss, optax.sgd(0.25), 200, 1.0, nu, estimator)(0.0, trap_task)[1]

    trap_errors[estimator] = np.abs(np.asarray(estimate(trap_nus)) - exact_1d) / abs(exact_1d)
trap_prediction.reveal((1 + 0.5) / 3)

figure, (left, right) = plots.subplots(2)
grid = np.linspace(-6, 10, 161)
plots.lines(
    grid,
    {
        f"ν = {nu:g}": parabola(grid, 0.5, -1) + parabola(grid, 1, 0) - nu * (parabola(grid, 3, 2) - parabola(0, 3, 2))
        for nu in (0.25, 0.5, 0.75)
    },
    "parameter φ",
    "valley - ν f (+ constant)",
    ylim=(-12, 20),
    axes=left,
)
shown = {name.replace("_", "-"): errors for name, errors in trap_errors.items()}
plots.lines(trap_nus, shown, "perturbation ν", "relative error", log="xy", ylim=(1e-4, 1e2), axes=right)
plots.show(
    figure,
    alt="Left: the valley with more and more of the query loss subtracted. At one half it is a straight slope, beyond "
    "it a hill. Right: relative error against nu. The symmetric curve is lowest for small nu, then crosses the "
    "others and shoots up at one half; the forward and three-point curves pass that point without harm.",
)
by_formula = (3 * trap_solution(0) - 4 * trap_solution(trap_nus) + trap_solution(2 * trap_nus)) / (2 * trap_nus)
assert np.allclose(trap_errors["three_point"], np.abs(by_formula - exact_1d) / abs(exact_1d))
beyond, within = trap_nus > 0.5, trap_nus < 0.1
assert (trap_errors["symmetric"][beyond] > 10).all() and (trap_errors["three_point"][beyond] < 1).all()
assert 1.8 < trap_errors["three_point"][0] / trap_errors["symmetric"][0] < 2.2
assert (trap_errors["symmetric"][within] < trap_errors["three_point"][within]).all()
assert (trap_errors["three_point"][within] < trap_errors["forward"][within]).all()

lowest_h, highest_f = (
    float(jnp.linalg.eigvalsh(hessian(phi_0, b))[i]) for b, i in ((task.support, 0), (task.query, -1))
)
print(f"the network at φ_0: λ = {strength:g}, μ = {lowest_h:.2f}, L_f = {highest_f:.1f}")
print(f"so there the condition holds up to ν = {(strength + lowest_h) / highest_f:.3f}")

# %% [markdown]
# At the threshold the valley is a straight slope, and beyond it the inner loop runs away downhill. In a long training
# run that is an infinity or NaN out of nowhere: check for it, and lower $\nu$ or raise $\lambda$.
#
# The **three-point** estimator avoids the trap, and is still of second order. It leans only forwards, at $0$, $\nu$ and
# $2\nu$:
#
# $$g_3 = \frac{\lambda}{2\nu}\,(3\phi_0 - 4\phi_\nu + \phi_{2\nu}).$$
#
# It costs a third solve, and for small $\nu$ its error is about twice the symmetric one's. The condition for $-\nu$
# is sufficient, not necessary: the last line gives the network's value from the curvatures at $\phi_0$, and the symmetric
# estimator above was still sound at $\nu = 0.08$. Leaning forwards has a smaller trap of its own: it steepens the valley.
# With $L_h$ the largest curvature of $h$, the inner step must stay below $2/(L_h + \lambda + 2 \nu L_f)$.

# %% [markdown]
# ## Question: the error of three points
#
# On paper, about 10 minutes. Let $\phi_\nu$ have as many derivatives in $\nu$ as you need.
#
# 1. Derive the leading term of $g_3 - \nabla F$. Compare it with the symmetric one's, $-\frac{\lambda}{6} \phi''' \nu^2$.
# 2. Which weighted mean of $g_3$ and $g_{\text{sym}}$ has an error of only $O(\nu^3)$?
# 3. Would you use it?
#
# Write your answer into the next cell: a double click opens it. The worked lesson has one to compare with.

# %% [markdown] tags=["free-text"] question="05.three_points"
# ### BEGIN SOLUTION
# **1.** With all derivatives taken at zero,
#
# $$\begin{aligned}
# \phi_\nu &= \phi_0 + \nu\, \phi' + \tfrac12 \nu^2 \phi'' + \tfrac16 \nu^3 \phi''' + O(\nu^4), \\
# \phi_{2\nu} &= \phi_0 + 2\nu\, \phi' + 2 \nu^2 \phi'' + \tfrac86 \nu^3 \phi''' + O(\nu^4).
# \end{aligned}$$
#
# In $3\phi_0 - 4\phi_\nu + \phi_{2\nu}$ the terms with $\phi_0$ and $\phi''$ cancel, and
# $-2\nu\, \phi' + \frac23 \nu^3 \phi''' + O(\nu^4)$ is left. Times $\frac{\lambda}{2\nu}$:
#
# $$g_3 = -\lambda \phi' + \tfrac{\lambda}{3} \phi''' \nu^2 + O(\nu^3).$$
#
# By line 5 the first term is $\nabla F$. So the error is twice the symmetric one's, with the opposite sign.
#
# **2.** Opposite signs, one twice the other: in $\frac13 g_3 + \frac23 g_{\text{sym}}$ the terms in $\nu^2$ cancel.
#
# **3.** Where solves are very accurate and $\nu$ is small. It needs four of them, at $-\nu$, $0$, $\nu$ and $2\nu$, and it
# leans backwards again: the trap is back.
# ### END SOLUTION

# %% [markdown]
# ## Three literatures, one formula
#
# The same vector has been found three times. Let $\ell(\nu, \theta)$ be the lowest value of the perturbed problem.
# Since the slope in $\phi$ is zero there, only the explicit dependence counts:
#
# $$\frac{\partial \ell}{\partial \nu} = f(\phi_\nu), \qquad
# \frac{\partial \ell}{\partial \theta} = \lambda\,(\theta - \phi_\nu).$$
#
# Second derivatives do not care about their order. So, at $\nu = 0$,
#
# $$\nabla F = \frac{\partial}{\partial \theta} \frac{\partial \ell}{\partial \nu} =
# \frac{\partial}{\partial \nu} \frac{\partial \ell}{\partial \theta} = -\lambda\, \frac{d\phi_\nu}{d\nu}.$$
#
# The whole derivation in one line, with no Hessian in sight. Others start from its right-hand side:
#
# - **Contrastive rule** (Zucchet et al., 2022): nudge the learner towards the evaluation loss by $\beta$, and
#   compare $\partial_\theta$ of the inner objective with and without the nudge, divided by $\beta$.
# - **Penalty method F2SA** (Kwon et al., 2023): minimise the outer loss plus $\gamma$ times the inner objective, for a
#   large $\gamma$, and take $\gamma$ times the difference of the same two derivatives.
#
# Below, both are written from these descriptions, with $\beta = \nu$ and $\gamma = 1/\nu$. The penalty's
# objective is $\gamma$ times as steep, so its step is divided by $\gamma$. All loops stop after 60 steps.

# %% tags=["nbval-check-output"]
nu = 0.05


def lowest_value(nu, theta):
    phi = phi_of(nu, theta)
    return nu * f(phi) + h(phi) + strength / 2 * jnp.sum((phi - theta) ** 2)


in_nu, in_theta = jax.jit(jax.grad(lowest_value, argnums=(0, 1)))(nu, theta)
assert jnp.allclose(in_nu, f(phi_of(nu))) and jnp.allclose(in_theta, strength * (theta - phi_of(nu)))


def inner_objective(phi, theta):
    return h(phi) + strength / 2 * jnp.sum((phi - theta) ** 2)


def in_start(phi, theta):
    """The derivative of the inner objective in theta, at a fixed phi."""
    return jax.grad(inner_objective, argnums=1)(phi, theta)


@jax.jit
def three_ways(theta, nu):
    def walk(objective, step_size):
        return ml.inner.descend(objective, optax.sgd(step_size), num_steps, theta)

    free = walk(lambda phi: inner_objective(phi, theta), step_size)
    nudged = walk(lambda phi: inner_objective(phi, theta) + nu * f(phi), step_size)
    contrastive = (in_start(nudged, theta) - in_start(free, theta)) / nu

    gamma = 1 / nu
    penalised = walk(lambda phi: f(phi) + gamma * inner_objective(phi, theta), step_size / gamma)
    penalty = gamma * (in_start(penalised, theta) - in_start(free, theta))
    forward = ml.fo_b_maml(network_loss, optax.sgd(step_size), num_steps, strength, nu, "forward")
    return contrastive, penalty, forward(theta, task)[1]


contrastive, penalty, forward = three_ways(theta, nu)
assert jnp.allclose(contrastive, forward, rtol=0, atol=1e-10) and jnp.allclose(penalty, forward, rtol=0, atol=1e-10)
print("contrastive rule = penalty method = forward estimator,")
print("before the loops have arrived")

# %% [markdown]
# They agree to rounding, and not only in the limit: $\partial_\theta$ of the spring is $\lambda(\theta - \phi)$, so the
# difference of two of them is $\lambda\,(\phi_0 - \phi_\nu)$. An error bound for one is an error bound for all three.

# %% [markdown]
# ## Where does it come to rest?
#
# Lesson 03 judged a method by the point at which it rests. Take eight quadratic tasks, whose exact $\nabla F$ is known.
# Follow each estimator until it stops, and measure $|\nabla F|$ there. The *shortcut* uses $\nabla f(\phi_0)$: FO-MAML
# with a spring.

# %%
rest_prediction = predict(
    "05.rest",
    "At the point where the forward estimator rests, |∇F| is about proportional to ...",
    options=["1 (it does not depend on ν)", "ν", "ν²"],
)

# %%
family = ml.tasks.Quadratic(dim=5, query_curvature=(0.2, 2.0))
tasks = family(jax.random.key(0), 8)
springs = ml.theory.proximal(tasks, 2.0)


def rest(meta_gradient):
    """Where plain descent along the mean of this meta-gradient comes to rest."""

    def outer_step(point, _):
        _, gradients = jax.vmap(meta_gradient, in_axes=(None, 0))(point, tasks)
        return point - 0.5 * gradients.mean(axis=0), None

    return jax.lax.scan(outer_step, jnp.ones(5), length=300)[0]


def shortcut(point, task):
    adapted = solve(family.loss, task, point, 0.25, 40, 2.0, 0.0)
    return None, jax.grad(family.loss)(adapted, task.query)


rest_nus = np.array([0.16, 0.08, 0.04, 0.02])
at_rest = {"shortcut": np.full(4, np.linalg.norm(springs.meta_gradient(jax.jit(rest, static_argnums=0)(shortcut))))}
for estimator in ("forward", "symmetric"):

    @jax.jit
    @jax.vmap
    def rests(nu, estimator=estimator):
        return rest(ml.fo_b_maml(family.loss, optax.sgd(0.25), 40, 2.0, nu, estimator))

    at_rest[estimator] = np.array([np.linalg.norm(springs.meta_gradient(point)) for point in rests(rest_nus)])
rest_prediction.reveal("ν")
print("ν          ", "  ".join(f"{nu:8.2g}" for nu in rest_nus))
for name, lengths in at_rest.items():
    print(f"{name:11s}", "  ".join(f"{value:8.1e}" for value in lengths))
for name, order in (("forward", 1), ("symmetric", 2)):
    assert abs(np.log2(at_rest[name][-2] / at_rest[name][-1]) - order) < 0.1
    assert (at_rest[name] < at_rest["shortcut"]).all()

# %% [markdown]
# The shortcut rests at a wrong point, and stays there. Where the two estimators rest, $|\nabla F|$ is $O(\nu)$ and
# $O(\nu^2)$, the orders of their errors: it can be made small, as far as the solves are accurate. That is the
# difference between biased and *as accurate as you pay for*. The paper states it in general: FO-B-MAML converges to a
# stationary point, with gradients only.

# %% [markdown]
# ## Limits
#
# - The estimators stand for the objective with a *spring*. Its solution is not that of $K$ plain steps: compare
#   FO-B-MAML and MAML by the loss after adaptation, never by their gradients.
# - The laws need smooth losses. With ReLU the solution has kinks in $\nu$, and the orders are not guaranteed.
# - The best $\nu$ was found for one small network and one task. $T$ and $R$ differ elsewhere; the V does not.
# - Where $\lambda$ does not exceed the most negative curvature of $h$ in size, the inner problem may have several minima
#   or none, and a lean can switch between them.
# - Of the paper only abstracts could be read. That of the version of 2026 states the perturbed problem, both estimators and
#   the exponent 2/3. The other laws are derived here, and the experiments are our own.
#
# ## What to take away
#
# - The meta-gradient is $-\lambda$ times the derivative of the solution in the lean. Two solves estimate it.
# - Forward: error $O(\nu)$. Symmetric: $O(\nu^2)$, for four gradients a step instead of three. Three-point: $O(\nu^2)$,
#   and never leans backwards.
# - The price of a small $\nu$ is $\delta/\nu$, for *independent* errors. Solves from one start cancel theirs; rounding
#   does not cancel.
# - With the best $\nu$ the error is proportional to $\delta^{1/2}$ (forward) or $\delta^{2/3}$ (symmetric). In float32
#   the best is not tiny.
# - Keep $\nu L_f$ below $\lambda + \mu$, or the problem with $-\nu$ may have no minimum.

# %%
quiz("05")

# %%
progress("05")

# %% [markdown]
# ## References
#
# - E. M. Chayti, M. Jaggi. *A new first-order meta-learning algorithm with convergence guarantees.* 2024.
#   [arXiv 2409.03682](https://arxiv.org/abs/2409.03682). FO-B-MAML: the perturbed problem and both estimators.
# - L. Chen, J. Li, E. M. Chayti, J. Zhang. *Faster gradient methods for highly-smooth stochastic bilevel
#   optimization.* 2026. [arXiv 2509.02937](https://arxiv.org/abs/2509.02937). The same idea with differences of any order.
# - N. Zucchet, S. Schug, J. von Oswald, D. Zhao, J. Sacramento. *A contrastive rule for meta-learning.* 2022.
#   [arXiv 2104.01677](https://arxiv.org/abs/2104.01677).
# - J. Kwon, D. Kwon, S. Wright, R. Nowak. *A fully first-order method for stochastic bilevel optimization.* 2023.
#   [arXiv 2301.10945](https://arxiv.org/abs/2301.10945). F2SA.
