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
# - **explain** what a Moreau envelope does to a loss, and why its gradient is $\lambda\, (\theta - \varphi^*)$,
# - **derive** where training on envelopes converges, and how this differs from iMAML,
# - **implement** the anchored iteration, and **predict** when it diverges,
# - **measure** how inner accuracy and noise limit training, and tell one from the other,
# - **construct** a convex loss for which iMAML's objective is not convex, and **recognize** when the Moreau objective
#   is the wrong one.
#
# **New symbols**
#
# - $F$, $F_i$: Moreau envelope of one task's loss
# - $F_\text{Moreau}$: mean Moreau envelope, the meta-objective
# - $z_k$: points of the anchored iteration
# - $\mu$: smallest curvature of the meta-objective, and in the last exercise of the loss
# - $\hat\theta$: initialization at which training converges
# - $h', h'', h'''$: derivatives of a loss of one parameter, at $\varphi^*$

# %% tags=["imports"]
import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import bar, check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_09 as figures

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Count the proximal term too
#
# In lesson 04 adaptation led to the minimum $\varphi^*$ of the support loss plus a proximal term. The meta-objective was
# the *query* loss at this minimum, and its gradient needed a linear solve. Now suppose that there is only one loss for
# each task, so that support and query loss are the same function $h$. This is natural when a task has no data to spare
# for a query set. With a single loss there is another natural meta-objective, which is the loss *plus the proximal
# term* at $\varphi^*$. It is the lowest value of the very quantity that adaptation minimizes.
#
# The figure shows this for a loss of one parameter. Its first panel has the proximal objective of one initialization
# $\theta$. The lowest value is plotted in the second panel, for every $\theta$, and this curve is the **Moreau
# envelope** $F$ of the loss. Raise the proximal strength $\lambda$, and move $\theta$. **Does the envelope lie above
# the loss or below it, and where does it have kinks?** Then choose the absolute value as the loss.

# %%
controls = {"proximal_strength": (0.2, 10.0, 0.2, 0.6), "theta": (-3.0, 3.0, 0.1, 2.5)}
explore(figures.explored, figures.SEEN, loss=list(figures.LOSSES), **controls)

# %% tags=["fold"]
_theta = np.linspace(-3, 3, 121)
for _loss in figures.LOSSES.values():
    for _proximal_strength in (0.2, 1.0, 10.0):
        _value, _ = figures.envelope(_loss, _proximal_strength, _theta)
        assert (_value <= _loss(_theta) + 1e-9).all() and np.isclose(_value.min(), _loss(_theta).min(), atol=1e-4)
_value, _adapted = figures.envelope(np.abs, 2.0, _theta)
assert np.allclose(2.0 * (_theta - _adapted), np.clip(2.0 * _theta, -1, 1), atol=1e-2)  # clipping

# %% [markdown]
# The envelope never lies above the loss. The minimum is taken over all $\varphi$, and $\varphi = \theta$ is one of them, where
# the proximal term is zero. Loss and envelope have the same lowest value at the same place. With a small proximal
# strength the wiggles nearly disappear, and what remains are small kinks, where $\varphi^*$ jumps from one valley to the
# next. With a large proximal strength the kinks vanish and the wiggles return.
#
# The dotted line is the tangent of $F$ at $\theta$. Its slope is the number above the first panel,
# $\lambda\, (\theta - \varphi^*)$. So to know the gradient of the envelope it is enough to know where the minimum *is*. The
# next section shows why.
#
# The absolute value has a kink, and its envelope has none. This envelope is known as the Huber loss, and its gradient
# is $\lambda\theta$, clipped to the interval from $-1$ to $1$. In several dimensions the norm takes the place of the
# absolute value, and the gradient of its envelope is the vector $\lambda\theta$ clipped to norm 1. So clipping, as in
# lesson 06, is itself the gradient of an envelope.
#
# *Short of time? Skip the section "Where iMAML's objective is neither smooth nor convex" with its exercise, and the
# section "On a network".*

# %% [markdown]
# ## The derivation, line by line
#
# $F$ depends on $\theta$ in three ways: the adapted parameters move and change the loss, they move and change the
# proximal term, and the proximal term is measured from another place.

# %%
through_prediction = predict("09.through")

# %% [markdown]
# We check every line on a sine curve with two parameters, in float64. The task is the one of lesson 04, with its ten
# points in one set.

# %%
jax.config.update("jax_enable_x64", True)  # so that the checks can be strict


def sine_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


example = ml.tasks.Sinusoid(5, 5).task(jax.random.key(3), amplitude=2.0, phase=1.0)
batch = jax.tree.map(lambda *sets: jnp.concatenate(sets), *example)  # one set
h = jax.jit(lambda phi: sine_loss(phi, batch))
gradient, hessian = jax.jit(jax.grad(h)), jax.jit(jax.hessian(h))


@jax.jit
def minimum(theta, proximal_strength):
    """φ*, by many gradient steps."""
    objective = ml.inner.proximal(h, theta, proximal_strength)
    sgd = optax.sgd(1 / (5 + proximal_strength))
    return ml.inner.descend(objective, sgd, 400, theta)


theta, proximal_strength = jnp.array([1.0, 0.3]), 1.5

# %% [markdown]
# **Line 1, the envelope.** The lowest value of the proximal objective, taken at $\varphi^*(\theta)$, is
#
# $$F(\theta) = h(\varphi^*) + \frac{\lambda}{2} \lVert \varphi^* - \theta \rVert^2 .$$
#
# **Line 2, the chain rule.** With $J = \partial \varphi^* / \partial \theta$, the three ways contribute
#
# $$\nabla F(\theta) = J^\top \nabla h(\varphi^*) + J^\top \lambda\, (\varphi^* - \theta) + \lambda\, (\theta - \varphi^*) .$$


# %%
def F(theta):
    phi = minimum(theta, proximal_strength)
    return h(phi) + proximal_strength / 2 * jnp.sum((phi - theta) ** 2)


small, identity = 1e-5, jnp.eye(2)


def central(function):
    """The derivative of a function of θ, from differences."""
    steps = small * identity
    changes = [function(theta + step) - function(theta - step) for step in steps]
    return jnp.stack(changes, axis=-1) / (2 * small)


phi = minimum(theta, proximal_strength)
J = central(lambda theta: minimum(theta, proximal_strength))
direct = proximal_strength * (theta - phi)
ways = (J.T @ gradient(phi), -J.T @ direct, direct)
assert jnp.allclose(central(F), sum(ways), atol=1e-7)  # line 2

# %% [markdown]
# **Line 3, collect what contains $J$.**
#
# $$\nabla F(\theta) = J^\top \big[\nabla h(\varphi^*) + \lambda\, (\varphi^* - \theta)\big] + \lambda\, (\theta - \varphi^*) .$$
#
# **Line 4, stationarity.** The bracket is the gradient of the proximal objective at its own minimum, so it is zero.
# What remains is the direct dependence alone. That the bracket is zero also says that the gradient of the loss at
# $\varphi^*$ equals $\lambda\, (\theta - \varphi^*)$:
#
# $$\boxed{\;\nabla F(\theta) = \lambda\, (\theta - \varphi^*) = \nabla h(\varphi^*)\;}$$

# %% tags=["fold"]
share = jnp.linalg.norm(ways[0] + ways[1]) / jnp.linalg.norm(central(F))
through_prediction.reveal(int(2 - 2 * np.clip(np.round(2 * share) / 2, 0, 1)))
assert jnp.linalg.norm(ways[0]) > 0.1 and share < 1e-6  # each of the two is not small, and their sum is
assert jnp.allclose(central(F), proximal_strength * (theta - phi), atol=1e-7)  # line 4
assert jnp.allclose(gradient(phi), proximal_strength * (theta - phi), atol=1e-9)
assert jnp.linalg.eigvalsh(hessian(phi) + proximal_strength * identity).min() > 0
plots.table(
    {
        "through φ* to the loss": list(map(float, ways[0])),
        "through φ* to the proximal term": list(map(float, ways[1])),
        "directly": list(map(float, ways[2])),
        "∇F, from differences": list(map(float, central(F))),
    },
    ["", "amplitude", "phase"],
    title="Two of the three contributions cancel",
    caption="The terms of line 2, for the sine curve with λ = 1.5.",
)
figures.two_ways()

# %% [markdown]
# We never needed $J$, and so we need no Hessian, no linear solve and no second inner solve. The argument is older than
# meta-learning. If a lowest value depends on a parameter, its derivative comes from the direct dependence alone, as if
# the minimizer did not move. Economists call this the *envelope theorem*, and in optimization it is known as
# *Danskin's theorem*.
#
# Where exactly did lesson 04 need the solve? Its objective lacks the proximal term, so lines 2 and 3 keep only the
# first contribution, $J^\top \nabla h(\varphi^*)$, and nothing cancels it. For one task, the two gradients contain the
# same vector:
#
# $$\nabla F_\text{Moreau} = \nabla h(\varphi^*), \qquad\qquad \nabla F_\text{prox} = J^\top\, \nabla h(\varphi^*) .$$
#
# If the query loss $f$ is another function than $h$, counting the proximal term does not help. The bracket of line 3
# then contains $\nabla f$ in place of $\nabla h$, and it is not zero. One loss in both roles is what makes the
# cancellation work.

# %% tags=["fold"]
assert jnp.allclose(central(lambda theta: h(minimum(theta, proximal_strength))), J.T @ gradient(phi), atol=1e-7)

# %% [markdown]
# ## Exercise: the gradient of the mean envelope
#
# The meta-objective $F_\text{Moreau}(\theta)$ is the mean of the envelopes of all tasks. Write its gradient. The
# function `minimize` does the inner loop for you. There are two ways to finish, of which one does not need `loss`.


# %% tags=["exercise"] exercise="09.moreau_gradient"
def moreau_gradient(loss, minimize, batches, params, proximal_strength):
    """The gradient of the mean Moreau envelope of several tasks.

    Args:
      loss: h, a function of (params, batch) that returns a scalar.
      minimize: function of (batch, params, proximal_strength) that
        returns the minimum φ* of the proximal objective of one task, a
        pytree like `params`.
      batches: a list with the data of each task.
      params: θ, any pytree of arrays.
      proximal_strength: λ, a positive number.

    Returns:
      A pytree like `params`.
    """
    ### BEGIN SOLUTION
    minima = [minimize(batch, params, proximal_strength) for batch in batches]
    return jax.tree.map(
        lambda t, *phis: proximal_strength * (t - sum(phis) / len(batches)),
        params,
        *minima,
    )
    ### END SOLUTION


# %%
check("09.moreau_gradient", moreau_gradient)

# %% [markdown]
# Compare this with **Reptile** from lesson 03, which steps against $\theta - \varphi_K$, where $\varphi_K$ comes from $K$
# plain gradient steps. Lesson 04 found that $K$ gradient steps with the inner learning rate $\alpha$ end near the
# minimum $\varphi^*$ that belongs to $\lambda \approx 1/(\alpha K)$. So if Reptile is given all the data of a task in one
# set, its direction should be nearly that of the Moreau objective's gradient. The next cell measures the angle between
# the two for our sine curve. A cosine of 1 would mean the same direction.

# %% tags=["nbval-check-output"]
phi_K = ml.inner.descend(h, optax.sgd(0.02), 10, theta)
reptile, moreau = theta - phi_K, theta - minimum(theta, 1 / (0.02 * 10))
cosine = reptile @ moreau / jnp.linalg.norm(reptile) / jnp.linalg.norm(moreau)
print(f"cosine of the angle between the two: {cosine:.3f}")

# %% [markdown]
# ## A smooth objective under a wiggly loss
#
# How curved is the envelope? Begin with a quadratic in one dimension, with curvature $a$ and its minimum at $m$.

# %%
curvature_prediction = predict("09.curvature")

# %% tags=["fold"]
_a, _proximal_strength = 100.0, 1.0
_gradients = [_proximal_strength * (t - _proximal_strength * t / (_proximal_strength + _a)) for t in (0.0, 1.0)]
curvature_prediction.reveal(_gradients[1] - _gradients[0])
figures.weights(1.0)
_task = ml.Task(*2 * [ml.tasks.quadratic.QuadraticBatch(np.full([1, 1, 1], _a), np.zeros([1, 1]))])
assert np.isclose(ml.theory.moreau(_task, 1.0).tasks.query.hessian, _gradients[1])

# %% [markdown]
# Lesson 04 found that $\varphi^* - m = J\,(\theta - m)$ with $J = \lambda / (\lambda + a)$. Hence the gradient
# $\lambda\, (\theta - \varphi^*)$ is
#
# $$\lambda\, (1 - J)\, (\theta - m) = \frac{\lambda a}{\lambda + a}\, (\theta - m) = a J\, (\theta - m).$$
#
# The curvature of the envelope is $aJ$, which is less than $a$ and less than $\lambda$. A flat task is left almost as
# it is. A steep one loses its steepness, because adaptation solves it anyway. In lesson 03 training converged to a
# weighted mean of the tasks' minima, and the *weight* of a task was the factor before $(\theta - m)$ in its gradient.
# For a quadratic this factor is the curvature of the objective, which the figure above shows for three objectives. The
# table has the formulas. The weight of iMAML contains $J$ once more, for its gradient is $J\, \nabla h(\varphi^*)$:
#
# | objective | weight of a task |
# |---|---|
# | joint training | $a$ |
# | Moreau envelope | $a J$ |
# | iMAML, support and query loss equal | $a J^2$ |
#
# You know this pattern. With $J = (1 - \alpha a)^K$ these were the weights of joint training, **FO-MAML** and MAML.
# Lesson 03 said that FO-MAML does not converge to the optimum of MAML's objective. Now we can name an objective whose
# optimum it nearly finds. FO-MAML leaves out one factor $J$ of MAML's gradient. What is left is close to the gradient
# of a Moreau envelope with $\lambda \approx 1/(\alpha K)$, if the curvatures are well below $\lambda$.

# %% [markdown]
# ## Exercise: where training converges
#
# In several dimensions $h_i(\varphi) = \frac12 (\varphi - m_i)^\top H_i\, (\varphi - m_i)$.
#
# - **Line 1.** $\varphi_i^* - m_i = J_i\, (\theta - m_i)$ with $J_i = \lambda\, (H_i + \lambda I)^{-1}$, from lesson 04.
# - **Line 2.** $\nabla F_i(\theta) = \lambda\, (\theta - \varphi_i^*)$.
# - **Line 3** is yours: put line 1 into line 2, and find the $\theta$ at which the mean of these gradients over the
#   tasks is zero.


# %% tags=["exercise"] exercise="09.moreau_point"
def moreau_point(hessians, minima, proximal_strength):
    """The stationary point of the mean Moreau envelope of quadratic
    tasks.

    Args:
      hessians: H_i, symmetric, shape [num_tasks, d, d]. An eigenvalue
        may be negative, but is larger than -proximal_strength.
      minima: m_i, where the gradient of h_i is zero, shape
        [num_tasks, d].
      proximal_strength: λ, a positive number.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    inverses = np.linalg.inv(hessians + proximal_strength * np.eye(minima.shape[1]))
    weights = hessians @ inverses
    right = np.einsum("tij,tj->i", weights, minima)
    return np.linalg.solve(weights.sum(axis=0), right)
    ### END SOLUTION


# %%
check("09.moreau_point", moreau_point)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# Since $I - J_i = H_i\, (H_i + \lambda I)^{-1}$, the gradient is
# $\nabla F_i = \lambda H_i\, (H_i + \lambda I)^{-1} (\theta - m_i) = W_i\, (\theta - m_i)$. The mean vanishes where
# $\big(\sum_i W_i\big)\, \theta = \sum_i W_i\, m_i$.
#
# </details>

# %% [markdown]
# For other losses too, wherever $\varphi^*$ does not jump, the Hessian of the envelope is
# $W = \lambda H\, (H + \lambda I)^{-1}$, with $H$ taken at $\varphi^*$. To see this, differentiate the gradient
# $\lambda\, (\theta - \varphi^*)$ once more. The result is $\lambda\, (I - J)$, where $J$ is still
# $\lambda\, (H + \lambda I)^{-1}$, by implicit differentiation as in lesson 04. Each eigenvalue $a$ of $H$ becomes the
# eigenvalue $\lambda a / (\lambda + a)$ of $W$. If $h$ is convex, all of them lie between $0$ and $\lambda$, so **the
# envelope is convex too, and none of its curvatures exceeds $\lambda$, however large those of the loss are**. Such a
# function is called $\lambda$-smooth, and a gradient step with the learning rate $1/\lambda$ never raises it. The outer
# step with this learning rate is $\theta \leftarrow \theta - \frac{1}{\lambda} \lambda\, (\theta - \varphi^*) = \varphi^*$,
# which in optimization is known as the *proximal point method*. With several tasks the step leads to the mean of all
# $\varphi_i^*$.

# %% tags=["fold"]
_H = hessian(phi)
_W = proximal_strength * _H @ jnp.linalg.inv(_H + proximal_strength * identity)
_hessian = central(lambda theta: proximal_strength * (theta - minimum(theta, proximal_strength)))
assert jnp.allclose(_hessian, _W, atol=1e-5)  # the Hessian of the envelope of the sine curve

# %% [markdown]
# ## The anchored iteration
#
# All that is left to do is to find $\varphi^*$. Any optimizer will do. Mishchenko, Hanzely and Richtárik (2023) use an
# especially simple iteration. With $\alpha = 1/\lambda$, stationarity says
#
# $$\varphi^* = \theta - \alpha\, \nabla h(\varphi^*) .$$
#
# So $\varphi^*$ is a **fixed point**: one gradient step that begins at $\theta$, but uses the gradient at $\varphi^*$, ends
# at $\varphi^*$. We do not know that gradient yet. Therefore we begin with a guess and improve it:
#
# $$z_0 = \theta, \qquad z_{k+1} = \theta - \alpha\, \nabla h(z_k) .$$
#
# Every step begins at $\theta$, so we call this the *anchored* iteration. Its first step is an ordinary gradient step,
# and FO-MAML with one inner step stops after it. But the second step is not an ordinary one.

# %% tags=["fold"]
figures.two_iterations()

# %% [markdown]
# How fast does it converge? Subtract the fixed-point equation from the iteration. If the gradient of $h$ is
# $L$-Lipschitz, then
#
# $$\lVert z_{k+1} - \varphi^* \rVert = \alpha\, \lVert \nabla h(z_k) - \nabla h(\varphi^*) \rVert \le \alpha L\,
# \lVert z_k - \varphi^* \rVert .$$
#
# Each step multiplies the distance by at most $\alpha L$, so the iteration converges if $\alpha L < 1$. What if
# $\alpha L$ is larger than one?

# %%
unstable_prediction = predict("09.unstable")


# %%
def anchored_points(curvature, alpha, num_steps):
    """z_0, ..., z_K on a parabola with its minimum at 0, from θ = 1."""
    points = [1.0]
    for _ in range(num_steps):
        points.append(1.0 - alpha * curvature * points[-1])
    return np.array(points)


errors = {}
for product in (0.5, 0.9, 1.2):
    points = anchored_points(product, 1.0, 20)
    minimum_at = 1 / (1 + product)  # φ* = θ / (1 + αL)
    errors[f"αL = {product}"] = points - minimum_at

# %% tags=["fold"]
_off = errors["αL = 1.2"]
_alternates = (np.sign(_off[1:]) == -np.sign(_off[:-1])).all()
unstable_prediction.reveal(0 if abs(_off[-1]) < abs(_off[0]) else 2 if _alternates else 1)
figures.contraction({name: abs(off) for name, off in errors.items()})
for _product, _off in zip((0.5, 0.9, 1.2), errors.values(), strict=True):
    assert np.allclose(_off[1:] / _off[:-1], -_product, rtol=1e-4)

# %% [markdown]
# On a parabola with $\alpha L > 1$ the points jump from one side of $\varphi^*$ to the other, each time further. The
# condition $\alpha L < 1$ means $\lambda > L$, so it asks for a proximal term that is stronger than every curvature.
# Then $J = \lambda / (\lambda + a)$ is above one half for every curvature $a$ of a quadratic, so adaptation covers less
# than half of the distance to the task's minimum. This is the price of the simple iteration, not of the envelope. The
# anchored step is a gradient step on the proximal objective, whose gradient at $z$ is
# $\nabla h(z) + \lambda (z - \theta)$, with the learning rate $1/\lambda$. With a smaller learning rate, such as
# $1/(\lambda + L)$, gradient descent on the same objective finds $\varphi^*$ for every $\lambda$, if the loss is convex.

# %% tags=["fold"]
_z = jnp.array([0.4, 1.1])
_step = _z - 1 / proximal_strength * jax.grad(ml.inner.proximal(h, theta, proximal_strength))(_z)
assert jnp.allclose(_step, theta - 1 / proximal_strength * gradient(_z))  # the same step
_phi = 1.0
for _ in range(200):  # curvature 5, λ = 1: the anchored iteration diverges, this descent does not
    _phi = _phi - (5 * _phi + 1 * (_phi - 1)) / (1 + 5)
assert np.isclose(_phi, 1 / 6) and abs(anchored_points(5.0, 1.0, 20)[-1]) > 1e10

# %% [markdown]
# ## Exercise: FO-MuML
#
# The method is called **FO-MuML**, first-order multistep meta-learning. Take $K$ anchored steps, and return the
# gradient of the loss where they end, $\nabla h(z_K) \approx \nabla h(\varphi^*) = \nabla F(\theta)$.


# %% tags=["exercise"] exercise="09.anchored"
def fo_muml_gradient(loss, batch, params, step_size, num_steps):
    """The gradient of the loss at the end of the anchored iteration.

    Args:
      loss: h, a function of (params, batch) that returns a scalar.
      batch: the data of one task.
      params: θ, any pytree of arrays.
      step_size: α = 1 / λ, a positive number.
      num_steps: K, a whole number, 0 included.

    Returns:
      A pytree like `params`.
    """
    ### BEGIN SOLUTION
    z = params
    for _ in range(num_steps):
        gradient = jax.grad(loss)(z, batch)
        z = jax.tree.map(lambda t, g: t - step_size * g, params, gradient)
    return jax.grad(loss)(z, batch)
    ### END SOLUTION


# %%
check("09.anchored", fo_muml_gradient)

# %% [markdown]
# The library has it as `ml.fo_muml(loss, step_size, num_steps)`. It costs $K + 1$ gradients and remembers nothing but
# $\theta$ and $z_k$. For comparison, MAML costs $3K + 1$ gradients and remembers every step.
#
# ## How close does training get?
#
# We stop after $K$ inner steps, so the gradient is not exact, and training ends *near* the optimum of the Moreau
# objective. How near?
#
# **Line 1.** The iteration begins at $z_0 = \theta$, where $\theta - \varphi^* = \alpha\, \nabla F_i(\theta)$. Each of
# the $K$ steps multiplies the distance from $\varphi^*$ by at most $\alpha L$, so
#
# $$\lVert z_K - \varphi^* \rVert \le (\alpha L)^K \alpha\, \lVert \nabla F_i(\theta) \rVert .$$
#
# **Line 2.** The gradient at $z_K$ differs from the one at $\varphi^*$ by at most $L$ times this distance:
#
# $$\lVert \nabla h_i(z_K) - \nabla F_i(\theta) \rVert \le (\alpha L)^{K+1}\, \lVert \nabla F_i(\theta) \rVert .$$
#
# **Line 3.** Training has converged at a point $\hat\theta$ where the estimates cancel,
# $\sum_i \nabla h_i(z_{K,i}) = 0$. So at this point the exact gradient of the objective is nothing but the mean of the
# errors of line 2, up to the sign. Its norm is at most $(\alpha L)^{K+1}$ times the mean norm of the tasks' exact
# gradients.
#
# **Line 4.** If every curvature of $F_\text{Moreau}$ is at least $\mu > 0$, then the distance from its optimum
# $\theta^*$ is at most the norm of its gradient divided by $\mu$. With $M$ tasks,
#
# $$\lVert \hat\theta - \theta^* \rVert \le \frac{(\alpha L)^{K+1}}{\mu} \cdot \frac1M \sum_i \lVert \nabla F_i(\hat\theta) \rVert .$$
#
# Apart from $1/\mu$ this bound is a product of two things. One is the inner accuracy. The other is the mean norm of
# the single tasks' gradients at the end of training. There the gradients nearly cancel, so their norms say how much
# the tasks disagree. If all tasks had the same minimum, training would end at the optimum with any number of inner
# steps.

# %%
# twenty quadratic tasks in five dimensions, L = 1
tasks = jax.tree.map(jnp.asarray, figures.disagreeing_tasks())
alpha = 0.5
envelopes = ml.theory.moreau(tasks, alpha)  # exact
optimum = envelopes.stationary_point()


@jax.jit(static_argnums=(0, 1))
def train(num_inner_steps, num_outer_steps=60):
    """θ after every outer step, with all tasks in each of them."""
    estimate = ml.fo_muml(ml.tasks.Quadratic.loss, alpha, num_inner_steps)

    def step(theta, _):
        gradients = jax.vmap(estimate, (None, 0))(theta, tasks)[1]
        return theta - gradients.mean(axis=0), theta

    return jax.lax.scan(step, jnp.full(5, 3.0), length=num_outer_steps)[1]


# %%
one_more_prediction = predict("09.one_more")

# %%
paths = {K: np.asarray(train(K)) for K in range(5)}
distances = {}
for K, path in paths.items():
    distances[f"K = {K}"] = np.linalg.norm(path - optimum, axis=1)
ends = np.array([distance[-1] for distance in distances.values()])

# %% tags=["fold"]
_L = float(np.linalg.eigvalsh(tasks.support.hessian).max())
_mu = float(np.linalg.eigvalsh(envelopes.tasks.query.hessian.mean(0)).min())
_ratio = (ends[-1] / ends[1]) ** (1 / 3)
one_more_prediction.reveal(int(np.abs(_ratio - np.array([0.5, 0.9, 1.0])).argmin()))
figures.training(distances)
assert np.isclose(_L, 1) and 0.8 * alpha < _ratio < alpha and (np.diff(ends) < 0).all()
assert ends[1] / ends[0] > 1.2 * _ratio  # the first inner step gains less
assert sum(_distance.min() < 0.9 * _distance[-1] for _distance in distances.values()) == 2  # the dips
for _steps, _path in paths.items():
    _exact = envelopes.task_gradients(_path[-1])
    _estimate = jax.jit(jax.vmap(ml.fo_muml(ml.tasks.Quadratic.loss, alpha, _steps), (None, 0)))
    _estimates = _estimate(_path[-1], tasks)[1]
    _sizes = np.linalg.norm(_exact, axis=1)
    _accuracy = (alpha * _L) ** (_steps + 1)
    assert (np.linalg.norm(_estimates - _exact, axis=1) <= _accuracy * _sizes + 1e-12).all()  # line 2
    assert np.linalg.norm(_exact.mean(0)) <= _accuracy * _sizes.mean() + 1e-9  # line 3
    assert ends[_steps] <= _accuracy / _mu * _sizes.mean() + 1e-9  # line 4

# %% [markdown]
# From the first inner step on, every further one multiplies the final distance by a little less than $\alpha L = 0.5$
# on average. The first one gains less. This does not contradict the bound, which only says how large the distance can
# be at most. Two of the curves dip before they level off, because training passes close to the optimum on the way to
# the point where it converges. The curve for $K = 0$ is joint training, and that for $K = 1$ is FO-MAML with the
# support set in both roles and one inner step. So this **FO-MAML converges to a neighbourhood of the Moreau optimum**,
# and if $\alpha L < 1$, FO-MuML makes the neighbourhood as small as you like, with enough inner steps.

# %% [markdown]
# ## Bias and noise
#
# In practice an outer step sees a few random tasks, and its gradient is noisy. The noise keeps $\theta$ moving even
# after training has converged on average. So the mean squared distance at the end has two parts. The **bias** is the
# square of the distance that you have just seen. It depends on $K$, and not on the outer learning rate $\eta$. The
# **noise** is proportional to $\eta$, if $\eta$ is small. Every step adds a random displacement, whose mean square is
# proportional to $\eta^2$. Later steps undo it little by little, so only the displacements of the last steps matter,
# and the number of these steps is proportional to $1/\eta$.

# %%
noise_prediction = predict("09.noise")


# %%
@jax.jit(static_argnums=0)
def plateau(num_inner_steps, learning_rate):
    """Mean squared distance from the optimum in the long run, with one
    random task in each outer step; 100 runs."""
    estimate = ml.fo_muml(ml.tasks.Quadratic.loss, alpha, num_inner_steps)

    def step(theta, key):
        drawn = jax.random.randint(key, (), 0, 20)
        task = jax.tree.map(lambda leaf: leaf[drawn], tasks)
        theta = theta - learning_rate * estimate(theta, task)[1]
        return theta, jnp.sum((theta - optimum) ** 2)

    def run(key):
        keys = jax.random.split(key, 2_000)
        return jax.lax.scan(step, jnp.asarray(optimum), keys)[1][1_000:]

    return jax.vmap(run)(jax.random.split(jax.random.key(1), 100)).mean()


# %% tags=["fold"]
settings = [(K, rate) for K in (0, 1, 2, 4) for rate in (0.1, 0.05, 0.025)]
measured = {setting: float(plateau(*setting)) for setting in bar(settings, "measuring", seconds=6)}
_effect = measured[4, 0.1] / measured[1, 0.1]
noise_prediction.reveal(0 if _effect < 0.1 else 1 if _effect < 2 / 3 else 2)
plots.table(
    {f"K = {K}": [measured[K, rate] for rate in (0.1, 0.05, 0.025)] for K in (0, 1, 2, 4)},
    ["mean squared distance", "η = 0.1", "η = 0.05", "η = 0.025"],
    title="After the first, inner steps change little at the largest learning rate, and help at the smallest",
    caption="One random task in each outer step, mean over 100 runs.",
)
assert abs(_effect - 1) < 0.3 and measured[4, 0.025] < 0.7 * measured[1, 0.025]

# %% [markdown]
# At $\eta = 0.1$ the noise hides the bias, and three more inner steps are hardly noticed. At $\eta = 0.025$ there is
# less noise, and the same inner steps help. So when training no longer improves, there are two remedies. More inner
# steps make the bias smaller, and a smaller outer learning rate makes the noise smaller. Both make training more
# expensive, so it is worth finding out first which of the two parts is larger.

# %% [markdown]
# ## Exercise: inner accuracy, or noise?
#
# Design a control experiment that splits the mean squared distance of a given run into its bias and its noise. You may
# measure this distance with the settings of the run, and once more with other settings, which you choose. Beware that
# another number of inner steps also gives other gradients, and hence another noise.


# %% tags=["exercise"] exercise="09.control"
def split_the_error(plateau, num_steps, learning_rate):
    """The bias and the noise in the mean squared distance at the end of
    training.

    Args:
      plateau: function of (num_steps, learning_rate) that returns the
        mean squared distance measured with them, the sum of both
        parts.
      num_steps: K, of the run to be explained.
      learning_rate: η, of the same run; the noise is proportional to
        it.

    Returns:
      A pair of numbers: the bias and the noise of this run.
    """
    ### BEGIN SOLUTION
    whole = plateau(num_steps, learning_rate)
    noise = 2 * (whole - plateau(num_steps, learning_rate / 2))
    return whole - noise, noise
    ### END SOLUTION


# %%
check("09.control", split_the_error)

# %% [markdown]
# The next table applies the control to the runs of the last one. Its last column holds the exact bias for comparison.
# This is the squared distance at which training ended in the section before, where every outer step saw all tasks and
# there was no noise. For $K = 4$ the bias is so small beside the noise that the control can only tell that it is small,
# and not how small.

# %% tags=["fold"]
_rows = {}
for _steps in (0, 1, 2, 4):
    _bias, _noise = figures.split(lambda *setting: measured[setting], _steps, 0.05)
    _rows[f"K = {_steps}"] = [float(_bias), float(_noise), float(ends[_steps] ** 2)]
plots.table(
    _rows,
    ["", "bias, measured", "noise, measured", "bias, exact"],
    title="The control separates the two parts, as long as the bias is not tiny",
    caption="Mean squared distances for η = 0.05, split with the help of the run with half the learning rate.",
)
assert all(abs(_rows[f"K = {_steps}"][0] / _rows[f"K = {_steps}"][2] - 1) < 0.3 for _steps in (0, 1))
assert _rows["K = 4"][1] > 5 * abs(_rows["K = 4"][0]) and _rows["K = 1"][1] > _rows["K = 1"][0]

# %% [markdown]
# ## Where iMAML's objective is neither smooth nor convex
#
# The Moreau envelope of a convex loss is convex, and it is smooth, because its curvature has a bound. One would expect
# the same of iMAML's objective, which looks at the same minimum. Mishchenko, Hanzely and Richtárik showed with
# counter-examples that neither holds, even if support and query loss are the same. There is a short way to see why. For
# one task the two objectives differ by the proximal term at $\varphi^*$, and
# $\nabla F_\text{Moreau} = \lambda\, (\theta - \varphi^*)$ says how large it is:
#
# $$F_\text{prox}(\theta) = F_\text{Moreau}(\theta) - \frac{\lambda}{2} \lVert \varphi^* - \theta \rVert^2
# = F_\text{Moreau}(\theta) - \frac{1}{2\lambda}\, \lVert \nabla F_\text{Moreau}(\theta) \rVert^2 .$$
#
# The squared gradient is *subtracted*, and its curvature with it. So where the subtracted term is more strongly curved
# than $F_\text{Moreau}$, the curvature of iMAML's objective is negative.
#
# The first example is the wave of lesson 06, $h(\varphi) = \frac12 \varphi^2 + 0.9 \cos \varphi$, a convex loss whose curvature
# lies between $0.1$ and $1.9$.

# %%
smooth_prediction = predict("09.smooth")

# %% [markdown]
# For a loss of one parameter we can compute the curvature of both objectives in three lines. Let $h'$, $h''$ and $h'''$
# be the derivatives of the loss at $\varphi^*$. The objectives are functions of $\theta$, so $F'$ and $F''$ are derivatives
# with respect to $\theta$.
#
# **Line 1, both gradients.** We know them from the derivation at the beginning:
#
# $$F_\text{Moreau}' = h', \qquad F_\text{prox}' = J\, h' \qquad \text{with} \quad J = \frac{\lambda}{\lambda + h''} .$$
#
# **Line 2, how $h'$ and $J$ change.** If $\theta$ moves a little, then $\varphi^*$ moves $J$ times as far. So a derivative
# with respect to $\theta$ is $J$ times the one with respect to $\varphi^*$. The derivative of $h'$ is then $J h''$, and
# that of $J$ is
#
# $$J \cdot \frac{\partial J}{\partial \varphi^*} = -J\, \frac{\lambda\, h'''}{(\lambda + h'')^2} = -J^2\, \frac{h'''}{\lambda + h''} .$$
#
# **Line 3, the product rule.** With line 2, the derivative of $J\, h'$ has one term from $h'$ and one from $J$:
#
# $$F_\text{Moreau}'' = J\, h'', \qquad F_\text{prox}'' = J^2 \left( h'' - \frac{h'\, h'''}{\lambda + h''} \right) .$$


# %%
def both_curvatures(phi, h1, h2, h3, proximal_strength):
    """θ and the curvatures of both objectives where the minimum is φ,
    from the first three derivatives of the loss there."""
    theta = phi + h1 / proximal_strength  # stationarity
    J = proximal_strength / (proximal_strength + h2)
    return theta, J * h2, J**2 * (h2 - h1 * h3 / (proximal_strength + h2))


phi = np.linspace(-1_000, 1_000, 400_001)
h1, h2, h3 = phi - 0.9 * np.sin(phi), 1 - 0.9 * np.cos(phi), 0.9 * np.sin(phi)
at, moreau, prox = both_curvatures(phi, h1, h2, h3, proximal_strength=2.0)

# %% tags=["fold"]
_inside = abs(at) < 1_000
_largest = {name: float(abs(each[_inside]).max()) for name, each in (("iMAML", prox), ("Moreau", moreau))}
smooth_prediction.reveal(int(np.digitize(_largest["iMAML"], [1, 10])))
_objective = phi**2 / 2 + 0.9 * np.cos(phi) + (phi - at) ** 2  # of Moreau, with λ / 2 = 1
_near = abs(at) < 40
_of_moreau = 2.0 * (at - phi)
assert np.abs(np.gradient(_of_moreau, at) - moreau)[_near].max() < 1e-3
assert (
    np.abs(np.gradient(np.gradient(_objective - _of_moreau**2 / 4, at), at) - prox)[_near].max() < 0.05
)  # the identity
assert _largest["iMAML"] > 50 and prox[_near].min() < 0 < moreau.min() and moreau.max() < 1
_u = np.linspace(-1.5, 2.5, 4_001)  # φ = 1 + u; the curvature is u for positive u, and at most 1
_bend = np.clip(_u, 0, 1)
_gradient = 1 + np.where(_u < 1, _bend**2 / 2, _u - 0.5)
_theta_2 = 1 + _u + _gradient
_prox_2 = _gradient / (1 + _bend)
assert (np.diff(_gradient) >= 0).all() and np.diff(_prox_2).min() < 0
_seen = abs(at) < 60
figures.counter_examples(at[_seen][::4], moreau[_seen][::4], prox[_seen][::4], _theta_2, _gradient, _prox_2)
plots.table(
    {
        f"|θ| ≤ {radius}": [float(abs(each[abs(at) <= radius]).max()) for each in (prox, moreau)]
        for radius in (10, 100, 1_000)
    },
    ["largest |curvature|", "iMAML", "Moreau"],
    title="The curvature of iMAML's objective grows with the distance from zero",
    caption="The wave of lesson 06 in both roles, λ = 2.",
)

# %% [markdown]
# The first panel belongs to the wave. In line 3 the third derivative of the loss is multiplied by its gradient.
# The third derivative of the wave keeps changing between positive and negative values of the same size, while its
# gradient grows without bound. So the curvature of iMAML's objective swings more and more widely, although that of the
# loss stays between two bounds. In places it is negative, so for the wave iMAML's objective is not convex either.
#
# The second panel belongs to a simpler loss, which is convex too. Its gradient is 1 up to $\varphi = 1$, and grows
# afterwards. As soon as the loss begins to curve, $J$ falls below 1, and at first $J$ falls faster than the
# gradient $h'$ grows. So $F_\text{prox}' = J h'$ decreases, which the derivative of a convex function never does. The
# gradient of the Moreau envelope is $h'$ itself, which never decreases.
#
# Does this make the Moreau objective the better one? It is easier to optimize, but it answers another question. iMAML
# with a query set asks how good the adapted parameters are on data that they have *not* seen. The Moreau objective asks
# how well a task can be fitted close to $\theta$, and it cannot notice overfitting.

# %% [markdown]
# ## Exercise: a counter-example of your own
#
# The curvature of the wave falls to $0.1$, and the simpler loss has no curvature at all up to $\varphi = 1$. Would
# iMAML's objective be convex if the loss were curved enough everywhere? Show that no smallest curvature is enough. Write
# a function that, for any proximal strength and any smallest curvature, constructs a loss whose curvature is at least
# that large, and for which $F_\text{prox}$ is not convex. As before, this loss is support and query loss in one.
#
# To prove that $F_\text{prox}$ is not convex, give two initializations as well. The value of a convex function half way
# between two points is never above the mean of its values at these points. So find two initializations for which the
# value of $F_\text{prox}$ half way between them is above this mean.


# %% tags=["exercise"] exercise="09.counter_example"
def counter_example(proximal_strength, smallest_curvature):
    """A loss of one parameter whose iMAML objective is not convex, and
    two initializations that prove it.

    Args:
      proximal_strength: λ, a positive number.
      smallest_curvature: a positive number. The curvature of the loss
        must not be smaller than this for any φ from -10 to 10.

    Returns:
      Three things. First the loss h, a function of an array of values
      of φ that returns the array of losses. Then two initializations
      such that F_prox half way between them is larger than the mean of
      F_prox at both. The φ* of both must lie between -10 and 10.
    """
    ### BEGIN SOLUTION
    mu = smallest_curvature
    slope = 4 * (1 + mu) * (1 + mu + proximal_strength)

    def h(phi):
        return np.exp(phi) + mu / 2 * phi**2 + slope * phi

    def initialization(phi):  # the one whose φ* is here
        gradient = np.exp(phi) + mu * phi + slope
        return phi + gradient / proximal_strength

    return h, initialization(0), initialization(1)
    ### END SOLUTION


# %%
check("09.counter_example", counter_example)

# %% [markdown]
# <details><summary>One way to a counter-example</summary>
#
# Adding a line $b\, \varphi$ to a loss makes $h'$ larger by $b$, and leaves $h''$ and $h'''$ as they are. So begin with a
# loss that is curved enough, and whose third derivative is positive somewhere, such as
# $e^\varphi + \frac{\mu}{2} \varphi^2$, where $\mu$ stands for the smallest curvature asked for. At $\varphi^* = 0$ the loss
# with the line has $h' = b + 1$, $h'' = \mu + 1$ and $h''' = 1$, and line 3 is negative if
# $b + 1 > (\mu + 1)(\lambda + \mu + 1)$. A steep enough line always does it.
#
# Any two initializations will do, if line 3 is negative everywhere between them. Take those whose minima are at
# $\varphi^* = 0$ and $\varphi^* = 1$. For $\varphi^*$ in between, $h'' = e^{\varphi^*} + \mu$ is at most $e^{\varphi^*} (1 + \mu)$, and
# $\lambda + h''$ is at most $e^{\varphi^*} (\lambda + 1 + \mu)$, while $h' h'''$ is more than $b\, e^{\varphi^*}$. So
# $b = 4\, (1 + \mu)(\lambda + 1 + \mu)$ is steep enough, because $e^{\varphi^*} \le e < 4$. By stationarity, the
# initialization whose minimum is at $\varphi^*$ is $\theta = \varphi^* + h'(\varphi^*) / \lambda$.
#
# </details>

# %% [markdown]
# None of this happens at a minimum of the loss. There $h' = 0$, and all that is left of line 3 is $J^2 h''$, which is
# not negative for a convex loss. The larger $h'$ is, the more the other term of line 3 counts. By stationarity
# $h' = \lambda\, (\theta - \varphi^*)$, so this term matters most where adaptation moves the parameters a long way.

# %% [markdown]
# ## On a network
#
# The anchored iteration needs $\lambda > L$, and the largest curvature of a network's loss is large. The formula
# $\lambda\, (\theta - \varphi^*)$ does not need this. So we keep the formula, and approach $\varphi^*$ by a few steps of
# gradient descent on the proximal objective. The whole meta-gradient fits into a few lines.

# %%
distribution = ml.tasks.Sinusoid(num_support=10, num_query=10)
mlp = ml.models.MLP((1, 20, 20, 1), activation=jnp.tanh, rngs=nnx.Rngs(0))
random_init, network = ml.models.functional(mlp)
loss = ml.losses.mean_squared_error(network)


def by_envelope(theta, task, proximal_strength=1.0, num_steps=15):
    """The loss near phi*, and the gradient of the envelope from there."""

    def h(phi):
        return loss(phi, task.support)

    objective = ml.inner.proximal(h, theta, proximal_strength)
    phi = ml.inner.descend(objective, optax.sgd(0.02), num_steps, theta)
    return h(phi), jax.tree.map(lambda t, p: proximal_strength * (t - p), theta, phi)


def one_set(key, num_tasks):
    """Tasks whose support and query points are joined."""
    drawn = distribution(key, num_tasks)
    joined = jax.tree.map(lambda *sets: jnp.concatenate(sets, axis=1), *drawn)
    return ml.Task(joined, joined)


# %%
learner = ml.meta_learner(by_envelope, optax.adam(2e-3))
trained = ml.fit(learner, random_init, one_set, 1_500, 10, jax.random.key(0))

# %% tags=["fold"]
_new = jax.jit(lambda key: distribution(key, 500))(jax.random.key(9))
_curve = jax.jit(lambda params: ml.evaluate.adaptation_curve(loss, optax.sgd(0.01), params, _new, 10))
_curves = {name: _curve(each) for name, each in (("random", random_init), ("Moreau", trained.params))}
_one = jax.tree.map(lambda leaf: leaf[0], _new.query)


@jax.jit
def _largest_curvature(params):
    """By power iteration with Hessian-vector products."""

    def times(_, vector):
        product = jax.jvp(jax.grad(lambda phi: loss(phi, _one)), (params,), (vector,))[1]
        return optax.tree.scale(1 / optax.tree.norm(product), product)

    unit = jax.lax.fori_loop(0, 50, times, jax.tree.map(jnp.ones_like, params))
    return optax.tree.vdot(unit, jax.jvp(jax.grad(lambda phi: loss(phi, _one)), (params,), (unit,))[1])


_largest = abs(float(_largest_curvature(trained.params)))
print(f"λ = 1, and the largest curvature at the trained initialization: {_largest:.0f}")
figures.practice(_curves)
_after = {name: float(np.mean(curve[10])) for name, curve in _curves.items()}
assert _largest > 3 and _after["Moreau"] < 0.5 * _after["random"]

# %% [markdown]
# The trained initialization adapts to new curves from ten points, although training computed no second derivative and
# stored no inner step. The query loss in the figure belongs to points that adaptation has not seen. The loss in the
# progress bar of the training is another one, for there both sets are joined, and adaptation has seen all points. With
# this $\lambda$ nothing would guarantee that the anchored iteration converges, for $\alpha L = L / \lambda$ is well
# above one.

# %% [markdown]
# ## What to take away
#
# - The Moreau envelope counts the proximal term. Then the two contributions of $\varphi^*$ cancel, and the meta-gradient
#   is $\lambda\, (\theta - \varphi^*) = \nabla h(\varphi^*)$. This needs one loss in both roles.
# - On a quadratic the envelope has the curvature $\lambda a / (\lambda + a)$. For a convex loss it is convex and
#   $\lambda$-smooth. iMAML's objective need be neither of the two, even if the loss is curved everywhere.
# - The anchored iteration $z \leftarrow \theta - \alpha \nabla h(z)$ finds $\varphi^*$ if $\alpha L < 1$. FO-MAML with one
#   inner step, and one loss in both roles, stops after the first step of this iteration. Therefore it converges near
#   the Moreau optimum.
# - The bound on the distance at which training ends is proportional to $(\alpha L)^{K+1}$ and to the disagreement of
#   the tasks.
# - Before you pay for inner accuracy, find out whether noise is the larger part. To do so, change the outer learning
#   rate, and keep the inner steps.

# %%
quiz("09")

# %%
progress("09")

# %% [markdown]
# ## Limits
#
# - The cancellation needs the same loss in both roles. The Moreau objective never sees a held-out point of a task, so
#   it cannot notice that a task is overfitted.
# - For a loss that is not convex, the envelope is differentiable where $\varphi^*$ is unique. If no curvature of the loss
#   is as low as $-\lambda$, this is so everywhere. Otherwise the envelope can have kinks, and an inner loop may end in
#   a local minimum, where $\lambda\, (\theta - \varphi)$ is not the gradient of the envelope.
# - The envelope of a loss with negative curvature $-c > -\lambda$ can have curvatures down to
#   $-\lambda c / (\lambda - c)$, which is below $-c$. Only for convex losses is it smoother in every direction.
# - The bounds assume that $\alpha L < 1$ and that the mean envelope is strongly convex. Our tasks are quadratic, so
#   that the optimum is known.
# - The split into bias and noise assumes a small outer learning rate.
# - The network was trained once, and only to show that the method runs. Its inner loop stops after a few steps, and
#   with the inner learning rate $0.02$ they diverge along directions in which the curvature of $h$ stays above
#   $2 / 0.02 - \lambda = 99$, so its gradient is inexact. Its loss is not convex, so even a converged inner loop may end in a
#   local minimum. Lesson 07 compares methods under one budget.
#
# ## Go further
#
# - K. Mishchenko, S. Hanzely, P. Richtárik. *Convergence of first-order algorithms for meta-learning with Moreau
#   envelopes.* 2023. [arXiv 2301.06806](https://arxiv.org/abs/2301.06806). FO-MuML, its neighbourhood of convergence,
#   and the counter-examples; ours are others of the same kind.
# - P. Zhou, X. Yuan, H. Xu, S. Yan, J. Feng. *Efficient meta learning via minibatch proximal update.* NeurIPS 2019.
#   Meta-learning with the proximal term counted.
# - C. T. Dinh, N. H. Tran, T. D. Nguyen. *Personalized federated learning with Moreau envelopes.* NeurIPS 2020.
#   [arXiv 2006.08848](https://arxiv.org/abs/2006.08848). pFedMe: every client is a task.
# - N. Parikh, S. Boyd. *Proximal algorithms.* Foundations and Trends in Optimization, 2014. Envelopes, proximal points
#   and fixed-point iterations.
# - J.-J. Moreau. *Proximité et dualité dans un espace hilbertien.* Bulletin de la SMF, 1965. The origin of the
#   envelope.
