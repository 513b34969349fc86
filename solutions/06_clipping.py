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
# - **prove** a bound on the curvature of a meta-objective that grows with its gradient,
# - **derive** what clipping buys over plain gradient descent,
# - **implement** clipping, and normalized steps with momentum,
# - **measure** smoothness along a training run,
# - **rescue** MAML with ten inner steps, and **design** the control runs that tell what has rescued it.
#
# **New symbols**
#
# - $L_0$, $L_1$: constants of a bound $L_0 + L_1 \lVert \nabla F \rVert$ on the curvature
# - $c$: largest norm that clipping leaves as it is
# - $G$: largest norm of the gradient where $F(\theta) \le F(\theta_0)$
# - $\zeta$: heterogeneity of the tasks
# - $\beta$: momentum

# %% [markdown]
# The next cell loads JAX, Flax and the course's library, which takes a few seconds.
#
# *Short of time? Skip the sections "The proximal objective, in three lines" and "Noise: why normalization needs momentum"
# with its exercise.*

# %% tags=["imports"]
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import bar, check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_06 as figures

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## A harmless loss, and one inner step
#
# Let us begin with one task and one parameter. Support loss $h$ and query loss $f$ are the same function, a parabola
# with a wave on it, and nothing about it looks dangerous. Its curvature $1 - 0.9 \cos \varphi$ lies between $0.1$ and
# $1.9$, so gradient descent on it may use any learning rate below $2 / 1.9$.
#
# $$h(\varphi) = f(\varphi) = \tfrac12 \varphi^2 + 0.9 \cos \varphi$$
#
# Now let the task adapt by one inner step before it is scored. The meta-objective is the query loss after this step:
#
# $$F(\theta) = f(\varphi_1), \qquad \varphi_1 = \theta - \alpha h'(\theta), \qquad \alpha = 0.3 .$$

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict
alpha = 0.3


def wave(phi):
    return phi**2 / 2 + 0.9 * jnp.cos(phi)


def meta_objective(support, query, learning_rate=alpha):
    """F of one task with one parameter and one inner step."""
    return lambda theta: query(theta - learning_rate * jax.grad(support)(theta))


def derivatives(function):
    """The function's first and second derivative, each for arrays."""
    first = jax.grad(function)
    return jax.jit(jax.vmap(first)), jax.jit(jax.vmap(jax.grad(first)))


F = meta_objective(wave, wave)
dF, ddF = derivatives(F)

# %%
curvature_prediction = predict("06.largest_curvature")

# %%
largest, ratio = {}, {}
for radius in (5, 20, 100, 400):
    theta = np.linspace(-radius, radius, 200_001)
    gradient, curvature = np.abs(dF(theta)), np.abs(ddF(theta))
    largest[radius] = float(curvature.max())
    ratio[radius] = float((curvature / (1 + gradient)).max())
curvature_prediction.reveal(int(np.digitize(largest[400] / largest[100], [2.8, 8])))

# %% tags=["fold"]
plots.table(
    {f"|θ| ≤ {radius}": [largest[radius], ratio[radius]] for radius in largest},
    ["initialization", "largest |F″|", "largest |F″| / (1 + |F′|)"],
    title="The curvature has no bound, but relative to the gradient it has one",
    caption="The 1 keeps the quotient finite where the gradient is zero.",
)
figures.before_and_after(wave, F, dF, ddF)
assert [round(value, 1) for value in largest.values()] == [2.0, 3.5, 18.7, 74.8]
assert max(ratio.values()) < 0.57

# %% [markdown]
# To the eye, adaptation has left a parabola with a slight ripple. Its curvature tells another story, because it swings
# between positive and negative values that grow with the distance from the minimum. No learning rate lies below
# $2/|F''|$ everywhere, so the usual guarantee for gradient descent is lost. But look at the last column of the table.
# Measured against the gradient the curvature *is* bounded, so it grows only where the gradient grows too, and no
# faster.
#
# ## Why the curvature grows
#
# Four lines show where the growth comes from, and why it is no faster than that of the gradient. In them $h$ is the
# support loss and $f$ the query loss, which may differ.
#
# **Line 1.** The meta-gradient is the query gradient times one factor, as in lesson 02:
#
# $$F'(\theta) = \big(1 - \alpha h''(\theta)\big)\, f'(\varphi_1) .$$

# %%
theta = np.linspace(-50, 50, 2_001)
h1 = theta - 0.9 * np.sin(theta)  # three derivatives of the wave
h2 = 1 - 0.9 * np.cos(theta)
h3 = 0.9 * np.sin(theta)
phi = theta - alpha * h1
f1, f2 = phi - 0.9 * np.sin(phi), 1 - 0.9 * np.cos(phi)
assert np.allclose(dF(theta), (1 - alpha * h2) * f1)  # line 1

# %% [markdown]
# ## Exercise: your line of the proof
#
# Differentiate line 1 once more, on paper. Then write $F''(\theta)$, for any pair of losses, as an expression in the
# derivatives of the support loss and of the query loss.


# %% tags=["exercise"] exercise="06.curvature"
def meta_curvature(support, query, initialization, learning_rate):
    """The second derivative of the meta-objective
    F(θ) = query(θ - learning_rate * support'(θ)).

    Args:
      support: h, a function from a number to a number.
      query: f, a function from a number to a number.
      initialization: θ, a number.
      learning_rate: α of the inner step, a number >= 0.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    support_gradient, query_gradient = jax.grad(support), jax.grad(query)
    support_curvature, query_curvature = jax.grad(support_gradient), jax.grad(query_gradient)
    adapted = initialization - learning_rate * support_gradient(initialization)
    factor = 1 - learning_rate * support_curvature(initialization)
    third = jax.grad(support_curvature)(initialization)
    return factor**2 * query_curvature(adapted) - learning_rate * third * query_gradient(adapted)
    ### END SOLUTION


# %%
check("06.curvature", meta_curvature)

# %% [markdown]
# <details><summary>Line 2, to compare with yours</summary>
#
# Both factors of line 1 depend on $\theta$, so the product rule gives two terms:
#
# $$F''(\theta) = \big(1 - \alpha h''(\theta)\big)^2 f''(\varphi_1) \;-\; \alpha\, h'''(\theta)\, f'(\varphi_1) .$$
#
# </details>

# %% [markdown]
# One of the two terms of line 2 contains only curvatures and is hence bounded. The other one contains the third
# derivative of the support loss, multiplied by $\alpha$ and by the query gradient $f'(\varphi_1)$, and that gradient
# grows with the distance from the minimum.
#
# **Line 3.** By line 1 the query gradient is a multiple of the meta-gradient,
# $f'(\varphi_1) = F'(\theta) / (1 - \alpha h''(\theta))$. The wave has $0.1 \le h'' \le L = 1.9$ and
# $|h'''| \le \rho = 0.9$, so that $\alpha L < 1$ and
#
# $$|\alpha\, h'''(\theta)\, f'(\varphi_1)| \;\le\; \frac{\alpha \rho}{1 - \alpha L}\, |F'(\theta)| .$$
#
# **Line 4.** Together, the bounded term and the growing one give
#
# $$\boxed{\;|F''(\theta)| \;\le\; L_0 + L_1\, |F'(\theta)|, \qquad L_0 = (1 - 0.1\,\alpha)^2 L, \quad
# L_1 = \frac{\alpha\rho}{1 - \alpha L}\;}$$

# %% tags=["nbval-check-output"]
wave_l0 = (1 - 0.1 * alpha) ** 2 * 1.9
wave_l1 = alpha * 0.9 / (1 - alpha * 1.9)
theta = np.linspace(-400, 400, 200_001)
assert (np.abs(ddF(theta)) <= wave_l0 + wave_l1 * np.abs(dF(theta))).all()  # line 4
print(f"L0 = {wave_l0:.2f}, L1 = {wave_l1:.2f}")

# %% tags=["fold"]
theta = np.linspace(-50, 50, 2_001)
assert np.allclose(ddF(theta), (1 - alpha * h2) ** 2 * f2 - alpha * h3 * f1)  # line 2
assert (np.abs(alpha * h3 * f1) <= wave_l1 * np.abs(dF(theta)) + 1e-12).all()  # line 3

# %% [markdown]
# A function with this property is called **$(L_0, L_1)$-smooth**. The word may mislead: the size of the curvature is
# called the *smoothness* of a function, so a large smoothness belongs to a function that is less smooth. Ordinary
# $L$-smoothness, a curvature of at most $L$, is the case $L_1 = 0$. With more parameters the same argument holds for
# $\nabla F$ and $\nabla^2 F$, with norms in place of absolute values.
#
# ## The proximal objective, in three lines
#
# Is this a peculiarity of MAML? It is not. The objective of lessons 04 and 05, in which adaptation runs to the minimum
# $\varphi^*$ of $h(\varphi) + \frac{\lambda}{2} (\varphi - \theta)^2$, behaves in the same way.
#
# 1. At the minimum $h'(\varphi^*) + \lambda (\varphi^* - \theta) = 0$. By implicit differentiation
#    $\varphi^*$ has the derivative $J = \lambda / (\lambda + h''(\varphi^*))$, so $F' = J f'(\varphi^*)$.
# 2. Differentiating once more, with $\frac{dJ}{d\theta} = -\frac{h'''(\varphi^*)}{\lambda + h''(\varphi^*)} J^2$, gives
#    $F'' = J^2 f''(\varphi^*) - \frac{h'''(\varphi^*)}{\lambda + h''(\varphi^*)}\, J\, F'$.
# 3. If $h$ is convex then $0 < J \le 1$, and therefore $|F''| \le L + \frac{\rho}{\lambda} |F'|$.
#
# Again a third derivative of the support loss meets the meta-gradient. A weaker proximal term gives a larger $L_1$,
# just as a larger inner learning rate does for MAML.

# %% tags=["fold"]
for strength in (1.0, 4.0, 16.0):  # the minimum φ as the parameter of the curve, so that no solver is needed
    phi = np.linspace(-100, 100, 100_001)
    d1, d2, d3 = phi - 0.9 * np.sin(phi), 1 - 0.9 * np.cos(phi), 0.9 * np.sin(phi)
    theta, j = phi + d1 / strength, strength / (strength + d2)
    first, second = j * d1, j**2 * d2 - d3 / (strength + d2) * j * (j * d1)
    slope = np.gradient(first, theta)
    assert np.abs(slope - second)[1:-1].max() < 1e-5 * np.abs(second).max()  # line 2
    assert (np.abs(second) <= 1.9 + 0.9 / strength * np.abs(first)).all()  # line 3

# %% [markdown]
# ## Many tasks
#
# So far $F$ was the objective of one task, but the outer loop descends a mean over tasks. Take two tasks whose
# meta-objectives are the $F$ from above, shifted to the right and to the left by a distance $s$.

# %%
tasks_prediction = predict("06.two_tasks")

# %%
grid = np.linspace(0, 400, 200_001)
shift = grid[abs(ddF(grid)).argmax()]  # where the curvature was largest
pair = np.array([-shift, shift])
mean_gradient, mean_curvature = float(dF(pair).mean()), float(ddF(pair).mean())
tasks_prediction.reveal(int(np.digitize(abs(mean_curvature), [1e-6, wave_l0])))

# %% tags=["fold"]
figures.two_tasks(dF, shift)
plots.table(
    {
        "task 1": [float(dF(pair[:1])[0]), float(ddF(pair[:1])[0])],
        "task 2": [float(dF(pair[1:])[0]), float(ddF(pair[1:])[0])],
        "mean of the tasks": [0.0, mean_curvature],
    },
    ["at θ = 0", "gradient", "curvature"],
    title="A gradient of zero does not mean a small curvature",
)
assert abs(mean_gradient) < 1e-9 and round(abs(mean_curvature), 1) == 74.8

# %% [markdown]
# The bound of line 4 fails for this mean with the constants of one task. The cure is to let $L_0$ take in how much the
# tasks differ, their *heterogeneity*. Write $F_i$ for the meta-objective of task $i$, and in this section $F$ for their
# mean. Suppose that the mean over the tasks of $|F_i'(\theta) - F'(\theta)|$ is at most a
# number $\zeta$. Then
#
# $$|F''| \;\le\; \text{mean of } |F_i''| \;\le\; L_0 + L_1 \cdot \text{mean of } |F_i'|
# \;\le\; (L_0 + L_1 \zeta) + L_1\, |F'| .$$
#
# If one $\zeta$ holds for every $\theta$, the mean of the tasks is therefore $(L_0 + L_1 \zeta,\, L_1)$-smooth. Such a
# bound is an assumption about the task distribution.

# %% tags=["fold"]
zeta = float(abs(dF(pair) - mean_gradient).mean())
assert abs(mean_curvature) > wave_l0 + wave_l1 * abs(mean_gradient)  # the bound of one task fails
assert abs(mean_curvature) <= wave_l0 + wave_l1 * zeta + wave_l1 * abs(mean_gradient)

# %% [markdown]
# ## How long may a step be?
#
# A gradient step trusts the gradient at the place where it begins, so the gradient must not change too much along the
# step. Let $g = |F'(\theta)|$ be its size there, and $L_g = L_0 + L_1 g$ the curvature that line 4 allows.
#
# **Line 5.** Line 4 is a differential inequality: along a path, $|F'|$ grows by at most $L_0 + L_1 |F'|$ for each unit
# of length. So the allowed curvature $u = L_0 + L_1 |F'|$ grows by at most $L_1 u$ for each unit of length, and at a
# distance $t$ it has grown at most exponentially,
#
# $$L_0 + L_1 |F'(\theta \pm t)| \;\le\; L_g\, e^{L_1 t} .$$
#
# **Line 6.** To first order a step of length $r$ downhill lowers $F$ by $g r$. By Taylor's formula the curvature along
# the step can take back at most $\int_0^r (r - t)\, L_g\, e^{L_1 t}\, dt$, hence
#
# $$F(\text{after the step}) - F(\theta) \;\le\; -g\,r + \frac{L_g}{L_1^2} \big(e^{L_1 r} - 1 - L_1 r\big) .$$
#
# The bound is lowest at the length $r = \frac{1}{L_1} \log\big(1 + L_1 g / L_g\big)$. For a small gradient this is
# $g / L_0$, a plain step with learning rate $1 / L_0$. For a large gradient it tends to $(\log 2) / L_1$, so beyond a
# certain size of the gradient the best step hardly gets any longer.

# %% tags=["fold"]
theta, t = np.linspace(-50, 50, 51)[:, None], np.linspace(0, 4, 41)
begin = np.asarray(dF(theta[:, 0]))[:, None]
allowed = wave_l0 + wave_l1 * np.abs(begin)
there = np.abs(dF((theta + t).ravel())).reshape(51, 41)
assert (wave_l0 + wave_l1 * there <= allowed * np.exp(wave_l1 * t)).all()  # line 5
height = jax.jit(jax.vmap(F))
reached = np.asarray(height((theta - t * np.sign(begin)).ravel())).reshape(51, 41)
loss_bound = allowed / wave_l1**2 * (np.exp(wave_l1 * t) - 1 - wave_l1 * t)
assert (reached - reached[:, :1] <= -np.abs(begin) * t + loss_bound + 1e-9).all()  # line 6

# %% [markdown]
# **Clipping** imitates this length with two straight pieces. If the gradient is larger than a bound $c$, it is
# shortened to norm $c$ before the step; otherwise the step is a plain one.
#
# $$\boxed{\;\theta \leftarrow \theta - \eta\, \nabla F(\theta)\, \min\!\Big(1,\, \frac{c}{\lVert \nabla F(\theta) \rVert}\Big)\;}$$
#
# A **normalized** step always has length $\eta$, so it suits large gradients. Near the minimum such steps jump to and
# fro for ever, unless $\eta$ decreases.

# %% tags=["fold"]
from metalearn.course.widgets import diagrams

diagrams.show(
    diagrams.clipped_steps(),
    "A narrow valley. From high up on the right wall an arrow for the plain step crosses the valley and ends on the left "
    "wall. An arrow for the clipped step has the same direction and ends a little lower on the right wall.",
    title="A clipped step has the direction of the gradient, and a length that you choose",
    caption="Both steps begin at θ and use the same learning rate.",
)
figures.step_lengths(wave_l0, wave_l1)

# %% [markdown]
# ## Exercise: clip the mean meta-gradient
#
# Average the gradients over the tasks of a batch, and shorten the mean to norm $c$ if its norm is larger. The norm is
# that of all parameters together.


# %% tags=["exercise"] exercise="06.clip"
def clipped_mean(gradients, max_norm):
    """The mean gradient over tasks, with a norm of at most max_norm.

    Args:
      gradients: a pytree of arrays, each with a leading axis that
        counts the tasks.
      max_norm: c > 0, a number.

    Returns:
      A pytree like `gradients`, without the leading axes. A mean of
      zero stays zero.
    """
    ### BEGIN SOLUTION
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)
    factor = jnp.minimum(1.0, max_norm / optax.tree.norm(mean))
    return jax.tree.map(lambda leaf: factor * leaf, mean)
    ### END SOLUTION


# %%
check("06.clip", clipped_mean)

# %% [markdown]
# ## What clipping buys
#
# To see what is gained, count the steps until $|F'|$ is at most a small number $\varepsilon$. Let $\Delta$ be the
# height of the initialization above the lowest value of $F$, and let $G$ be the largest gradient anywhere below the
# initialization, that is, where $F(\theta) \le F(\theta_0)$.
#
# **Line 7.** Clip with $c = L_0 / L_1$ and $\eta = 1 / (2 L_0)$. Where the gradient is clipped, the length of a step is
# $r = 1 / (2 L_1)$ and $L_g \le 2 L_1 g$. Where it is not, $r = g / (2 L_0)$ and $L_g \le 2 L_0$. In both cases
# $L_1 r \le \frac12$ and $L_g\, r \le g$. For $0 \le x \le \frac12$ we have $e^x - 1 - x \le 0.6\, x^2$. With
# $x = L_1 r$, line 6 becomes
#
# $$F(\text{after the step}) - F(\theta) \;\le\; -g r + 0.6\, L_g\, r^2 \;\le\; -0.4\, g\, r .$$
#
# So a step lowers $F$ by at least $0.2\, L_0 / L_1^2$ while $g > c$, and by at least $0.2\, \varepsilon^2 / L_0$ while
# $\varepsilon < g \le c$. In total $F$ cannot fall by more than $\Delta$, so the number of steps of either kind is at
# most $\Delta$ divided by the least decrease of such a step.
#
# **Line 8.** A plain step must be safe at the largest gradient that it can meet. With
# $\eta = 1 / \big(2 (L_0 + L_1 G)\big)$ and $r = \eta g$ we have $L_1 r \le \frac12$ again, and
# $L_g\, r \le \frac12 g$. So $F$ falls by at least $g r - 0.6\, L_g\, r^2 \ge 0.7\, \eta\, g^2$, and the same division
# gives the count.
#
# | | learning rate | outer steps until $\lvert F' \rvert \le \varepsilon$, at most |
# |---|---|---|
# | plain | $\dfrac{1}{2 (L_0 + L_1 G)}$ | $\dfrac{3 (L_0 + L_1 G)\, \Delta}{\varepsilon^2}$ |
# | clipped at $c = L_0 / L_1$ | $\dfrac{1}{2 L_0}$ | $\dfrac{5 L_0\, \Delta}{\varepsilon^2} + \dfrac{5 L_1^2\, \Delta}{L_0}$ |
#
# The largest gradient $G$ multiplies the count of plain descent, because its learning rate is set by the worst place
# and then kept everywhere. In the count of clipped descent $G$ does not occur at all. This is the theorem of Zhang et
# al. (2020), with constants that are easy to follow rather than sharp.

# %% tags=["fold"]
theta = np.linspace(-50, 50, 2_001)
signed, before = np.asarray(dF(theta)), np.asarray(height(theta))
size = np.abs(signed)
u = np.linspace(1e-3, 0.5, 500)
assert (np.exp(u) - 1 - u <= 0.6 * u**2).all()
r = np.minimum(size / wave_l0, 1 / wave_l1) / 2
assert (wave_l1 * r <= 0.5 + 1e-12).all() and ((wave_l0 + wave_l1 * size) * r <= size + 1e-12).all()
assert (height(theta - r * np.sign(signed)) - before <= -0.4 * size * r + 1e-9).all()  # line 7
eta = 1 / (2 * (wave_l0 + wave_l1 * size.max()))
assert (height(theta - eta * signed) - before <= -0.7 * eta * size**2 + 1e-9).all()  # line 8

# %% [markdown]
# ### A cliff
#
# Plain descent pays dearly where the query loss is steep on one side. Take $f(\varphi) = e^\varphi - \varphi$, with the
# support loss $h(\varphi) = \frac12 \varphi^2$. One inner step takes $\theta$ to $0.7\,\theta$, hence
# $F(\theta) = e^{0.7 \theta} - 0.7\,\theta$. Its curvature is exactly $0.49 + 0.7\, F'(\theta)$, so line 4 holds with
# $L_0 = 0.49$ and $L_1 = 0.7$, and with equality on the steep side. (Here $h''' = 0$. The curvature grows because that of
# the query loss does. Lines 5 to 8 use only the bound of line 4, wherever it comes from.)

# %%
cliff = meta_objective(lambda phi: phi**2 / 2, lambda phi: jnp.exp(phi) - phi)
cliff_l0, cliff_l1 = 0.49, 0.7
d_cliff, dd_cliff = derivatives(cliff)
theta = np.linspace(-5, 12, 1_001)
assert np.allclose(dd_cliff(theta), cliff_l0 + cliff_l1 * d_cliff(theta))


def descend(optimizer, objective, initialization, num_steps):
    """Parameters and gradients along a descent, each of shape [num_steps]."""

    def step(state, _):
        theta, memory = state
        gradient = jax.grad(objective)(theta)
        update, memory = optimizer.update(gradient, memory, theta)
        return (theta + update, memory), (theta, gradient)

    theta = jnp.array(initialization)
    return jax.lax.scan(step, (theta, optimizer.init(theta)), length=num_steps)[1]


# %% [markdown]
# Move the slider. It sets the learning rate $\eta = 2^k$ of plain and of clipped descent, which start at $\theta_0 = 6$
# and take 40 steps, with $c = L_0 / L_1$. **For which $k$ is $|F'|$ below 0.02 in the end, for plain descent and for
# clipped descent?** Where the plain run is missing, it has left the picture.

# %%
c = cliff_l0 / cliff_l1


@jax.jit
def both(learning_rate):
    plain = descend(optax.sgd(learning_rate), cliff, 6.0, 41)
    return plain, descend(ml.outer.clipped_sgd(learning_rate, c), cliff, 6.0, 41)


def draw(k):
    return figures.two_descents(cliff, *both(2.0**k), 2.0**k)


explore(
    draw,
    "Left: the objective and the parameters that two descents visit. Right: where "
    "they are at each step. With a small learning rate both creep down the cliff. "
    "With a larger one plain descent jumps far onto the flat side, and clipped "
    "descent goes down in steps of equal length.",
    title="Try it: the learning rate is η = 2ᵏ",
    k=(-8, 3, 1, -2),
)

# %% tags=["fold"]
arrives = {"plain": [], "clipped": []}
for k in range(-8, 4):
    for name, (_, gradients) in zip(arrives, both(2.0**k), strict=True):
        if abs(gradients[-1]) < 0.02:
            arrives[name].append(k)
plots.table(
    {name: [", ".join(f"{k}".replace("-", "−") for k in exponents)] for name, exponents in arrives.items()},
    ["descent", "|F′| below 0.02 after 40 steps for k ="],
    title="Clipped descent tolerates more learning rates, and much larger ones",
)
circling = np.abs(descend(ml.outer.normalized_sgd(0.5), cliff, 6.2, 121)[0][-10:])
assert 0.2 < circling.max() <= 0.5  # a normalized step of constant length never arrives
assert len(arrives["plain"]) < len(arrives["clipped"]) and max(arrives["plain"]) < max(arrives["clipped"]) - 2

# %% [markdown]
# A plain step with a larger learning rate jumps over the minimum onto the flat side, from where it returns slowly or
# not at all. With a smaller one the descent has not converged after 40 steps. Clipped descent goes down the cliff in
# steps of equal length and turns into plain descent at the bottom, so its learning rate only has to suit the curvature
# at the minimum.
#
# Now let the initialization stand higher and higher up the cliff, so that $G$ grows.

# %% tags=["fold"]
heights = np.arange(2.0, 10.0)
most = 5_000


@jax.jit
def count(learning_rate, max_norm, height):
    """Outer steps until |F'| < 0.01."""
    gradients = descend(ml.outer.clipped_sgd(learning_rate, max_norm), cliff, height, most)[1]
    small = jnp.abs(gradients) < 0.01
    return jnp.where(small.any(), small.argmax(), most)


each = jax.vmap(count, in_axes=(0, None, 0))
steepest = np.asarray(d_cliff(heights))
safe = 1 / (2 * (cliff_l0 + cliff_l1 * steepest))
counts = {
    "clipped": np.asarray(each(np.full(len(heights), 1 / (2 * cliff_l0)), c, heights)),
    "plain, safe": np.asarray(each(safe, np.inf, heights)),
    "plain, best": np.asarray(
        jax.vmap(each, in_axes=(0, None, None))(
            np.repeat(np.geomspace(1e-3, 4, 20)[:, None], len(heights), 1), np.inf, heights
        )
    ).min(axis=0),
}
figures.steps_needed(heights, counts)
drop = np.asarray(jax.vmap(cliff)(heights)) - 1
assert (counts["plain, safe"] <= 3 * (cliff_l0 + cliff_l1 * steepest) * drop / 0.01**2).all()
assert (counts["clipped"] <= 5 * cliff_l0 * drop / 0.01**2 + 5 * cliff_l1**2 * drop / cliff_l0).all()
assert steepest[-1] > 100 * steepest[0] and counts["plain, best"][-1] > 10 * counts["plain, best"][0]
assert counts["plain, safe"].max() < most and counts["plain, best"][-1] > 5 * counts["clipped"][-1]

# %% [markdown]
# From left to right the gradient at the initialization grows more than a hundredfold. With the safe learning rate the
# number of plain steps grows in proportion, and even with the best learning rate in hindsight it grows more than tenfold.
# Clipped descent needs a few steps more, because the minimum is farther away.
#
# ## Does clipping always win?
#
# On both of our objectives, the wave and the cliff, the curvature grows with the gradient. Plain and clipped descent
# now run on the cliff from $\theta_0 = 12$ and on the wave from $\theta_0 = 20$. Each gets the best of nineteen
# constant learning rates, $2^{-12}, \dots, 2^6$, and is judged by the largest $|F'|$ of the last ten of 300 steps.

# %%
race_prediction = predict("06.wave_race")

# %%
learning_rates = 2.0 ** np.arange(-12, 7)


def ends(objective, initialization, max_norm):
    """For each learning rate the largest |F'| of the last ten of 300 steps."""

    def one(learning_rate, max_norm):
        optimizer = ml.outer.clipped_sgd(learning_rate, max_norm)
        gradients = descend(optimizer, objective, initialization, 301)[1]
        return abs(gradients[-10:]).max()

    return jax.jit(jax.vmap(one, (0, None)))(learning_rates, max_norm)


race = {
    ("cliff", "plain"): ends(cliff, 12.0, np.inf),
    ("cliff", "clipped"): ends(cliff, 12.0, c),
    ("wave", "plain"): ends(F, 20.0, np.inf),
    ("wave", "clipped"): ends(F, 20.0, wave_l0 / wave_l1),
}
arrived = [np.nanmin(race["wave", kind]) < 1e-10 for kind in ("plain", "clipped")]
race_prediction.reveal({(False, True): 0, (True, True): 1}.get(tuple(arrived), 2))

# %% tags=["fold"]
best = {key: (learning_rates[np.nanargmin(values)], float(np.nanmin(values))) for key, values in race.items()}
plots.table(
    {f"{name}, {kind}": [rate, "below 10⁻¹⁰" if end < 1e-10 else end] for (name, kind), (rate, end) in best.items()},
    ["objective and optimizer", "best learning rate", "largest |F′| of the last ten steps"],
    title="Clipping wins on the cliff, and on the wave both descents converge",
)
assert arrived == [True, True] and best["cliff", "clipped"][1] < 1e-10 < 1e-3 < best["cliff", "plain"][1]

# %% [markdown]
# On the wave plain descent converges too, with a large learning rate. Growing curvature alone is therefore not what
# makes plain descent slow. What is? Put the minimum at zero. A plain step takes $\theta$ to $\theta - \eta F'(\theta)$,
# which is nearer to the minimum exactly if
#
# $$0 < \eta\, \frac{F'(\theta)}{\theta} < 2 .$$
#
# The quotient $F'(\theta)/\theta = \frac{1}{\theta} \int_0^\theta F''$ is the *mean* curvature between the minimum and
# $\theta$, not the largest one.

# %% tags=["fold"]
distances = {"wave": np.array([5, 20, 50, 100, 200, 400]), "cliff": np.array([1.5, 3, 6, 9, 12])}
measured = {}
for name, (gradient, curvature) in {"wave": (dF, ddF), "cliff": (d_cliff, dd_cliff)}.items():
    reach = [np.linspace(0, distance, 20_001)[1:] for distance in distances[name]]
    biggest = np.array([np.abs(curvature(theta)).max() for theta in reach])
    mean = np.array([(np.asarray(gradient(theta)) / theta).max() for theta in reach])
    measured[name] = (distances[name], biggest, mean)
figures.mean_curvatures(measured)
theta = np.linspace(0, 400, 200_002)[1:]
quotient = np.asarray(dF(theta)) / theta
assert best["wave", "plain"][0] > 2 / 0.82
assert quotient.min() > 0.09 and quotient.max() < 0.82  # hence every learning rate below 2 / 0.82 comes nearer
assert (np.abs(theta - 1.2 * quotient * theta) < theta).all()

# %% [markdown]
# On the wave the curvature alternates between large positive and large negative values, which cancel on the way to the
# minimum. The gradient stays between two fixed multiples of the distance, and so does a plain step, which is just
# what one wants. (The best learning rate in the table is above $2/0.82 \approx 2.4$, up to which every step is sure to come
# nearer. Some steps with it may lead away from the minimum, and the run converges all the same.) On the cliff nothing cancels. There the
# gradient itself is out of proportion to the distance, and that is the situation in which bounded steps help.
#
# ## Noise: why normalization needs momentum
#
# A meta-gradient is a mean over few tasks, so it is noisy, and normalizing is not a linear operation: the mean of
# normalized gradients is not the normalized mean. Take nine common tasks for each rare one,
#
# $$F_i(\theta) = \tfrac12 (\theta - m_i)^2, \qquad m_i = \begin{cases} 0 & \text{with probability } 0.9, \\
# 10 & \text{with probability } 0.1. \end{cases}$$
#
# Their mean loss is lowest at $\theta = 1$. Each outer step draws one task. An average over time with momentum $\beta$
# reaches back over about $1/(1 - \beta)$ steps.

# %%
order_prediction = predict("06.order")

# %%
minima = jnp.where(jax.random.uniform(jax.random.key(0), (20_000,)) < 0.1, 10.0, 0.0)


def normalize_then_average(momentum):
    def step(state, minimum):
        theta, memory = state
        memory = momentum * memory + (1 - momentum) * jnp.sign(theta - minimum)
        return (theta - 0.002 * memory, memory), theta

    return jax.lax.scan(step, (5.0, 0.0), minima)[1]


def average_then_normalize(momentum):
    optimizer = ml.outer.normalized_sgd_momentum(0.002, momentum)

    def step(state, minimum):
        theta, memory = state
        update, memory = optimizer.update(theta - minimum, memory)
        return (theta + update, memory), theta

    start = jnp.array(5.0)
    return jax.lax.scan(step, (start, optimizer.init(start)), minima)[1]


# %%
runs = {
    "normalize, then average": normalize_then_average(0.99),
    "average over 2 steps, then normalize": average_then_normalize(0.5),
    "average over 100 steps, then normalize": average_then_normalize(0.99),
}
ends = [float(run[-5_000:].mean()) for run in runs.values()]
order_prediction.reveal(int(np.digitize(ends[0], [0.5, 3])))

# %% tags=["fold"]
figures.averaging_orders(runs)
assert abs(ends[0]) < 0.1 and abs(ends[2] - 1) < 0.1 and ends[0] < ends[1] < 0.5

# %% [markdown]
# In one dimension a normalized gradient is only a sign, so normalizing first gives **signSGD**, which uses only the
# signs of the gradients. Each task has one vote: it says on which side its minimum lies, and not how far away. Nine
# votes for zero win against one for ten, so θ settles at the *median* of the minima, not at their mean. The same
# happens if each gradient of a batch is normalized before the mean over tasks. Averaging first keeps the sizes. But the
# average must be long enough, for most averages over two steps have not seen a rare task, and normalizing such an
# average leaves a vote again.

# %% [markdown]
# ## Exercise: a normalized step with momentum
#
# Write one step of SNGDM, stochastic normalized gradient descent with momentum. With $\bar g$ the mean of the gradients
# over the tasks, and $m$ the memory,
#
# $$m \leftarrow \beta\, m + (1 - \beta)\, \bar g, \qquad \theta \leftarrow \theta - \eta\, \frac{m}{\lVert m \rVert} .$$


# %% tags=["exercise"] exercise="06.sngdm"
def sngdm_step(params, memory, gradients, learning_rate, momentum):
    """One outer step: average over tasks, average over time, normalize,
    step.

    Args:
      params: θ, any pytree of arrays.
      memory: m, a pytree like params; the new one is not zero.
      gradients: a pytree like params; each array has one more leading
        axis, which counts the tasks.
      learning_rate: η, the length of the step.
      momentum: β, at least 0 and below 1.

    Returns:
      (new params, new memory).
    """
    ### BEGIN SOLUTION
    memory = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g.mean(axis=0), memory, gradients)
    norm = optax.tree.norm(memory)
    return jax.tree.map(lambda p, m: p - learning_rate * m / norm, params, memory), memory
    ### END SOLUTION


# %%
check("06.sngdm", sngdm_step)

# %% [markdown]
# ## A network: the smoothness of MAML along a run
#
# Now a network of two hidden layers on the sine curves of lesson 02, with $K = 10$ inner steps and $\alpha = 0.04$.
# Nobody knows bounds on its derivatives, so we measure. Along a run of normalized steps, take the meta-gradient
# $g$ of one batch of tasks at the beginning $\theta_t$ of each outer step, and once more after a hundredth $d_t$ of the
# step. The *local smoothness* is the change of the gradient divided by the distance:
#
# $$\frac{\lVert g(\theta_t + d_t) - g(\theta_t) \rVert}{\lVert d_t \rVert} .$$
#
# The distance must be short. Where the gradient is large, after one whole step it has little in common with what it was,
# so the quotient for a whole step would be about the norm of the gradient divided by the length of the step.

# %%
jax.config.update("jax_enable_x64", False)  # training runs in float32
tasks = ml.tasks.Sinusoid(num_support=10, num_query=10)
model = ml.models.MLP((1, 40, 40, 1), activation=jnp.tanh, rngs=nnx.Rngs(0))
initialization, network = ml.models.functional(model)
loss = ml.losses.mean_squared_error(network)
meta_gradient = ml.maml(loss, optax.sgd(0.04), num_steps=10)


def mean_over_tasks(params, batch):
    """(mean query loss, mean meta-gradient) of a batch of tasks."""
    losses, gradients = jax.vmap(meta_gradient, in_axes=(None, 0))(params, batch)
    return losses.mean(), jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)


# %%
smoothness_prediction = predict("06.smoothness")

# %%
normalized = ml.outer.normalized_sgd(0.1)


@jax.jit
def measure(params, numbers):
    """The parameters after some outer steps; norm and smoothness at each."""

    def step(params, number):
        batch = tasks(jax.random.fold_in(jax.random.key(0), number), 5)
        _, before = mean_over_tasks(params, batch)
        update, _ = normalized.update(before, normalized.init(params))
        short = optax.tree.scale(0.01, update)
        _, after = mean_over_tasks(optax.apply_updates(params, short), batch)
        change = optax.tree.norm(optax.tree.sub(after, before))
        measures = (optax.tree.norm(before), change / optax.tree.norm(short))
        return optax.apply_updates(params, update), measures

    return jax.lax.scan(step, params, numbers)


# %%
params, record = initialization, []
for number in bar(range(20), "measuring", seconds=5):
    params, both_measures = measure(params, 15 * number + jnp.arange(15))
    record.append(np.array(both_measures))
norms, smoothness = np.concatenate(record, axis=1)
exponent, offset = np.polyfit(np.log(norms), np.log(smoothness), 1)
smoothness_prediction.reveal(int(np.digitize(exponent, [0.5, 1.2])))

# %% tags=["fold"]
figures.smoothness_scatter(norms, smoothness, exponent, np.exp(offset))
correlation = np.corrcoef(np.log(norms), np.log(smoothness))[0, 1]
assert 1.2 < exponent < 2 and correlation > 0.7 and norms.max() > 1e3 * norms.min()

# %% [markdown]
# Each dot is one outer step. The smoothness grows with the gradient over more than three powers of ten, as it did for
# one parameter, but here it grows faster than in proportion. For the wave the derivative $J = 1 - \alpha h''$ of
# adaptation lay between $1 - \alpha L$ and 1. In a network $J = \partial\varphi_K / \partial\theta$ can be large, and it
# enters the gradient once but the curvature twice, in the term $J^2 f''$ of lesson 02. The gradients in the upper
# right corner are rare, and they decide which learning rate plain descent could use.
#
# ## Clipping rescues MAML
#
# Lesson 02 showed that the curvature of the meta-objective grows with the inner training time $T = \alpha K$. The usual
# outer optimizer is Adam, and we train the network with it: without clipping, with three learning rates, and with the
# meta-gradient clipped to norm 1 before Adam sees it.
#
# If clipping helps, what is it that helps? Adam divides each number of the gradient by the recent size of this number,
# so clipping changes its steps in two respects. They get another **length**, and, because a huge gradient no longer
# dominates Adam's averages over time, they get another **direction**. A run with a smaller learning rate cannot tell
# the two explanations apart. It changes the length of all steps by the same factor, which clipping does not do.

# %% [markdown]
# ## Exercise: design the control
#
# The two explanations need two control runs. In both, Adam works out two steps at each outer step, from the same
# parameters: `plain` from the gradients as they are, and `clipped` from the clipped ones, each with averages of its own.
# From these two, compute the step that each control run takes. The first run must differ from the unclipped one *in
# nothing but the length* of its steps, the second *in nothing but their direction*.


# %% tags=["exercise"] exercise="06.control"
def controls(plain, clipped):
    """The steps of two control runs.

    Args:
      plain: the step of Adam without clipping, a pytree of arrays.
      clipped: the step of Adam after clipping, a pytree like `plain`.
        Neither step is zero.

    Returns:
      A pair of pytrees like `plain`: the step of the run that takes only
      the length from `clipped`, and that of the run that takes only
      the direction from it. The rest is as in `plain`.
    """
    ### BEGIN SOLUTION
    ratio = optax.tree.norm(clipped) / optax.tree.norm(plain)
    return optax.tree.scale(ratio, plain), optax.tree.scale(1 / ratio, clipped)
    ### END SOLUTION


# %%
check("06.control", controls)

# %% [markdown]
# Now the experiment: 500 outer steps on batches of five tasks, each run with five seeds. Say what you expect of the two
# controls. The training takes some seconds, and a bar shows how far it is.

# %%
control_prediction = predict("06.control")


# %%
@jax.jit
def train(states, keys, learning_rates, kinds, numbers):
    """Some outer steps of all runs: states, (losses, norms) of shape [runs, steps]."""
    clip = optax.clip_by_global_norm(1.0)

    def run(state, key, learning_rate, kind):
        adam = optax.adam(learning_rate)

        def step(state, number):
            params, of_plain, of_clipped = state
            batch = tasks(jax.random.fold_in(key, number), 5)
            value, gradient = mean_over_tasks(params, batch)
            plain, of_plain = adam.update(gradient, of_plain)
            shorter, _ = clip.update(gradient, clip.init(params))
            clipped, of_clipped = adam.update(shorter, of_clipped)
            choices = (plain, clipped, *figures.exchanged(plain, clipped))
            taken = jax.tree.map(lambda *four: jnp.stack(four)[kind], *choices)
            state = (optax.apply_updates(params, taken), of_plain, of_clipped)
            return state, (value, optax.tree.norm(gradient))

        return jax.lax.scan(step, state, numbers)

    return jax.vmap(run)(states, keys, learning_rates, kinds)


# %%
settings = {  # learning rate of Adam, and which of the four steps is taken
    "0.01, clipped": (0.01, 1),
    "0.01": (0.01, 0),
    "0.003": (0.003, 0),
    "0.001": (0.001, 0),
    "0.01, length of clipped": (0.01, 2),
    "0.01, direction of clipped": (0.01, 3),
}
rates, kinds = np.repeat(np.array(list(settings.values())), 5, axis=0).T
keys = jnp.tile(jax.random.split(jax.random.key(1), 5), len(settings))
fresh = optax.adam(0.01).init(initialization)
start = (initialization, fresh, fresh)
states = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 30), start)
record = []
for number in bar(range(20), "training 30 runs", seconds=16):
    numbers = 25 * number + jnp.arange(25)
    states, measures = train(states, keys, rates, kinds.astype(int), numbers)
    record.append(np.array(measures))
losses, norms = np.concatenate(record, axis=2).reshape(2, len(settings), 5, 500)
final = np.median(losses[:, :, -100:], axis=-1)  # [settings, seeds]
final = np.where(np.isnan(final), np.inf, final)  # diverged counts as worst

# %% tags=["fold"]
clipped, *others = np.median(final, axis=1)
near = [bool(control < 1.3 * clipped) for control in others[-2:]]
control_prediction.reveal(near.index(True) if any(near) else 2)
spiked = norms[2, norms[2].max(axis=1).argsort()[2]]  # of five runs the third by its largest norm
figures.rescue(dict(list(zip(settings, losses, strict=True))[:4]), spiked)
plots.table(
    {name: [*seeds, np.median(seeds)] for name, seeds in zip(settings, final, strict=True)},
    ["learning rate of Adam", *(f"seed {number}" for number in range(1, 6)), "median"],
    title="Neither a smaller learning rate nor one half of clipping is enough",
    caption="Query loss, median over the last 100 outer steps. The last two rows are the controls.",
    digits=2,
)
assert min(others[:3]) > 2 * clipped and clipped < 1 < min(others[:3]) and not any(near)
assert final[4].max() > 10  # the control with the old directions diverges
assert np.median(spiked) < 20 and spiked.max() > 100 * np.median(spiked)
assert (norms[0] > 1).mean() > 0.5 and norms[0].max() > 100

# %% [markdown]
# Compare the medians, because single runs scatter widely, and even a clipped one can diverge. In the median the clipped
# runs end at a loss less than half of what any unclipped learning rate reaches. With the smaller learning rates the
# loss does not explode, but it hardly falls. The second panel shows what clipping removes. Now and then a
# meta-gradient is more than a hundred times as large as most of the others. Clipping at norm 1 shortens more
# than half of all gradients. That in itself changes little, because a factor common to all gradients cancels in Adam,
# but afterwards none of them is much larger than the others.
#
# Neither of the two explanations is enough by itself. With the lengths of the clipped steps and the old directions, runs
# still diverge, to losses above ten. With the directions of the clipped steps and the old lengths, the median comes much
# nearer to that of the clipped runs, but it stays clearly above it. So clipping helps because it changes both. The next
# section shows how one spike spoils both.
#
# ## What a spike does to Adam
#
# Here $g$ is one coordinate of the gradient. For each of them Adam keeps two averages over time, which are called its moments,
#
# $$m \leftarrow \beta_1\, m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2\, v + (1 - \beta_2)\, g^2,$$
#
# usually with $\beta_1 = 0.9$ and $\beta_2 = 0.999$, and moves the parameter by $-\eta\, m / \sqrt v$. So it divides
# each coordinate by its own recent size, and its steps seem to be bounded already. Why does it need clipping at all?
# The figure follows Adam on a single parameter whose gradient is $+1$ or $-1$ at random. At step 0 one gradient is a
# hundred, or ten thousand, times larger.

# %% tags=["fold"]
signs = np.random.default_rng(0).choice([-1.0, 1.0], 5_400)


def positions_after(spike):
    gradients = signs.copy()
    gradients[5_000] *= spike
    first, second, place, places = 0.0, 1.0, 0.0, []
    for gradient in gradients:
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        place -= first / np.sqrt(second)
        places.append(place)
    moved = np.array(places[4_900:])
    return (moved - moved[99]) * -signs[5_000]


positions = {
    "no spike": positions_after(1),
    "100 times": positions_after(100),
    "10,000 times": positions_after(10_000),
}
figures.spiked_adam(positions, 100)
assert 25 < positions["100 times"][160] < 45 and 25 < positions["10,000 times"][160] < 35
assert np.ptp(positions["10,000 times"][200:]) < 2

# %% [markdown]
# A spike does two kinds of harm. It carries every parameter that it touches about thirty learning rates away, in the
# direction of one bad gradient. Afterwards the second moment $v$, of which each step keeps the fraction $\beta_2$,
# remembers the spike for thousands of steps, and while it does, all steps are too short. If the gradient is clipped
# to about its usual norm before Adam sees it, neither happens.

# %% [markdown]
# Why is the distance the same for both spikes? Suppose that the moments are zero when a single gradient $s \ne 0$ arrives, and that all gradients
# after it are zero. In the step in which the spike arrives, $m_0 = (1 - \beta_1)\, s$ and $v_0 = (1 - \beta_2)\, s^2$.
# Afterwards both decay, $m_n = \beta_1^n\, m_0$ and $v_n = \beta_2^n\, v_0$. So the lengths $m_n / \sqrt{v_n}$ of the
# steps form a geometric series, and in units of the learning rate their sum is
#
# $$\frac{1 - \beta_1}{\sqrt{1 - \beta_2}} \sum_{n=0}^{\infty} \Big(\frac{\beta_1}{\sqrt{\beta_2}}\Big)^n
# = \frac{1 - \beta_1}{\sqrt{1 - \beta_2}} \cdot \frac{1}{1 - \beta_1 / \sqrt{\beta_2}} .$$

# %% tags=["nbval-check-output"]
beta1, beta2 = 0.9, 0.999
distance = (1 - beta1) / np.sqrt(1 - beta2) / (1 - beta1 / np.sqrt(beta2))
print(f"One spike carries Adam {distance:.0f} learning rates away.")

# %% [markdown]
# The size $s$ of the spike has cancelled out. So a gradient a hundred times too large carries Adam about as far as one
# ten thousand times too large, as in the figure; the larger one is remembered for longer. After clipping, no gradient
# is much larger than those around it. (Early in a run Adam also corrects a bias of its moments. By the time of the spike
# this has worn off.)
#
# ## What to take away
#
# - Adaptation puts a third derivative of the support loss in front of the query gradient. The curvature of $F$ therefore
#   grows with its gradient, for MAML and for the proximal objective; $L_0$ must take in how much the tasks differ. In a
#   network with ten inner steps it grows even faster than the gradient.
# - The best step has learning rate $1/L_0$ near the minimum and a length of at most $(\log 2) / L_1$ far away. Clipping
#   comes close to both, and its guaranteed number of steps does not depend on the largest gradient.
# - Growing curvature is not enough to make plain descent slow. The *mean* curvature between the minimum and $\theta$ has to
#   grow too.
# - Average first, over tasks and over time, and normalize afterwards.
# - Clip the meta-gradient of MAML when there are many inner steps. A few huge gradients can spoil a run, also with Adam.

# %%
quiz("06")

# %%
progress("06")

# %% [markdown]
# ## Limits
#
# - $(L_0, L_1)$-smoothness is proved here for losses whose second and third derivatives are bounded, with $\alpha L < 1$ or
#   a convex support loss. For the network the smoothness is measured, on one run and along the step taken, not along the
#   direction of largest curvature. There it grows faster than $L_0 + L_1 \lVert \nabla F \rVert$, so lines 5 to 8 do
#   not cover the network; a clipped step has a bounded length all the same.
# - The argument with the mean curvature is for one dimension. In many, the gradient need not point towards the minimum.
# - The number of steps in the table is guaranteed, not necessary, and holds for exact gradients. With noisy ones the
#   argument needs more care (Zhang et al., and Cutkosky and Mehta for momentum).
# - The runs of the network have 500 steps, five seeds, one network and our settings. Longer runs or a learning rate
#   that is raised slowly at the beginning (a warm-up) could bring unclipped Adam nearer. The clipped runs meet huge
#   gradients too, and most of them recover. Lesson 07 tunes clipping for every method.
#
# ## Go further
#
# - J. Zhang, T. He, S. Sra, A. Jadbabaie. *Why gradient clipping accelerates training: a theoretical justification for
#   adaptivity.* ICLR 2020. [arXiv 1905.11881](https://arxiv.org/abs/1905.11881). $(L_0, L_1)$-smoothness, measured along
#   training runs, and the counts of steps for plain and clipped descent.
# - E. M. Chayti, M. Jaggi. *A new first-order meta-learning algorithm with convergence guarantees.* 2024.
#   [arXiv 2409.03682](https://arxiv.org/abs/2409.03682); a later version is at
#   [OpenReview](https://openreview.net/forum?id=4zGAXQxisB). The smoothness of the proximal meta-objective grows with its
#   gradient, hence normalized steps with momentum.
# - A. Cutkosky, H. Mehta. *Momentum improves normalized SGD.* ICML 2020.
#   [arXiv 2002.03305](https://arxiv.org/abs/2002.03305). Average first, then normalize.
# - K. Ji, J. Yang, Y. Liang. *Theoretical convergence of multi-step model-agnostic meta-learning.* JMLR 2022.
#   [arXiv 2002.07836](https://arxiv.org/abs/2002.07836). A bound on the curvature of multi-step MAML that contains the norm of the gradient.
