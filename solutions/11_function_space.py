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
# - **derive** the adapted curve without solving for the adapted parameters,
# - **implement** adaptation in closed form, for any scaling of the loss,
# - **measure** how much a tangent kernel moves, and **predict** when it stands still,
# - **choose** between training for the closed form and training for gradient steps,
# - **explain** why the objective of Meta-RKHS I needs a cap, and **weigh** tasks when some are outliers.
#
# **New symbols**
#
# - $u_\theta(x)$: output of the model
# - $X$, $Y$: support inputs and targets
# - $n$, $P$: numbers of support points and of parameters
# - $G$: gradients of the outputs at $X$, one row for each
# - $k(x, x')$: tangent kernel
# - $\Delta = \varphi - \theta$: displacement of the parameters
# - $c$: coefficients of the change
# - $u_t$: curve after gradient flow for a time $t$
# - $\ell$: loss of a task

# %% tags=["imports"]
import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import kernel, plots, task_weights
from metalearn.course import check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_11 as figures

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## One point moves the whole curve
#
# So far adaptation has been a matter of parameters. A task comes with a few support points, and we look for new
# parameters $\varphi$ near the initialization $\theta$. But what we want in the end is a *curve*, the outputs of the
# network for every input. In this lesson we ask how the curve changes, and we will see that the parameters can be left
# out of the calculation.
#
# We need some networks to look at. All of them have two hidden layers of 40 units. One set stays random. Another one is
# trained with MAML on sine curves, five support points each. The third one is trained for the closed form that this
# lesson derives. Each kind has three random seeds, which train side by side.

# %%
distribution = ml.tasks.Sinusoid(num_support=5, num_query=10)
inits, apply = figures.networks()  # three random initializations, stacked
loss = ml.losses.mean_squared_error(apply)
inner = optax.sgd(0.02)
trained = {"random": inits}
new_tasks = jax.jit(lambda key: distribution(key, 300))(jax.random.key(9))

# %%
method = ml.maml(loss, inner, num_steps=5)
trained["MAML"] = figures.train(method, inits, distribution, 1_000, "MAML", 5)

# %%
method = ml.meta_rkhs_ii(apply, time=1.0)
found = figures.train(method, inits, distribution, 1_000, "closed form", 7)
trained["closed form"] = found

# %%
kernels = {}
for name, params in trained.items():
    kernels[name] = figures.kernel_matrices(apply, params)
tasks_covariance = figures.covariance(figures.X, distribution)

# %% [markdown]
# Suppose now that a single support point lies above the curve, at the input $x_1$. A small gradient step raises the
# output there. **What happens to the rest of the curve?** The figure shows the change everywhere, scaled so that it is
# one at the support point. The second curve, "tasks", is what the task distribution itself suggests. Somebody who
# knows how random sine curves vary, and who hears that one value lies above the average, would expect the rest of the
# curve to deviate from the average in this way. Move the support point, and choose another network.

# %%
first = {name: matrices[0] for name, matrices in kernels.items()}  # of the first seed
controls = {"network": list(first), "x1": (-5.0, 5.0, 0.25, -2.0)}
explore(figures.one_point(first, tasks_covariance), figures.SEEN, **controls)

# %% [markdown]
# In the random network, a support point on the left lifts the whole left half of the curve by about the same amount,
# and the right half falls. The points of one side move together, and nothing repeats with the period of a sine curve.
# In MAML's network the change is a wave. The points one period away move along, and those half a period away move in
# the opposite direction. This is nearly what the task distribution suggests.
# **Meta-training has taught the network which changes of its curve belong together.**
#
# Where does this change come from? Let $u_\theta(x)$ be the output of the network. The gradient of the squared error
# at $x_1$ is a multiple of the gradient of the output there, so a gradient step changes the parameters by
# $c\, \nabla u_\theta(x_1)$, with some number $c$. To first order the output at another input $x$ then changes by
#
# $$c\, \langle \nabla u_\theta(x), \nabla u_\theta(x_1) \rangle = c\, k(x, x_1) .$$
#
# The gradients are with respect to the parameters. The function
# $k(x, x') = \langle \nabla u_\theta(x), \nabla u_\theta(x') \rangle$ is called the **tangent kernel** of the model
# (Jacot, Gabriel and Hongler 2018 call it the neural tangent kernel). Its values on a grid of inputs form a matrix, and
# the curve "kernel" in the figure is a column of this matrix, scaled. The curve "tasks" is a column of another matrix, the
# covariance of the tasks, which says how the values of a random sine curve at two inputs vary together. The table
# compares the two matrices by the cosine of the angle between them, each read as one long vector.

# %% tags=["fold"]
_aligned = {name: [figures.alignment(each, tasks_covariance) for each in found] for name, found in kernels.items()}
plots.table(
    _aligned,
    ["cosine with the tasks' covariance", "seed 0", "seed 1", "seed 2"],
    title="MAML brings the tangent kernel close to the covariance of the tasks",
    caption="Both as matrices on a grid of 81 inputs. 1 would mean proportional.",
    digits=2,
)
assert min(_aligned["MAML"]) > 0.7 > 0.2 > max(_aligned["random"])
assert min(_aligned["MAML"]) > max(_aligned["closed form"])
assert min(_aligned["closed form"]) > max(_aligned["random"]) + 0.1

# %% [markdown]
# Nobody told MAML about kernels. Its outer loop rewards an initialization from which five small steps fit a new sine
# curve, and small steps get far if the kernel lets the curve move as sine curves vary. The kernels of the networks
# that were trained for the closed form lie in between.
#
# *Short of time? Skip the sections "Time in place of strength" and "Meta-RKHS I: one step, to first order".*

# %% [markdown]
# ## How many unknowns?
#
# With several support points the changes of the curve overlap, so they must be chosen together. In parameters, this
# takes as many unknowns as the network has parameters. How many are needed if only the curve matters?

# %%
system_prediction = predict("11.system")

# %% [markdown]
# We derive the answer for a model that is **linear in its parameters**, so that
# $u_\varphi(x) = u_\theta(x) + \langle \nabla u_\theta(x), \varphi - \theta \rangle$ is exact. The outputs may be as
# nonlinear in $x$ as they like. Our example is a sum of 40 fixed waves, whose heights are the parameters. We work in
# float64 to check the lines strictly.

# %% tags=["nbval-check-output"]
jax.config.update("jax_enable_x64", True)
frequencies, phases = jax.random.normal(jax.random.key(0), (2, 40))


def waves(params, x):
    """Forty fixed waves, whose heights are the parameters; [n, 1] -> [n, 1]."""
    return jnp.sin(x * frequencies + 3 * phases) @ params[:, None] / 3


def half_sum(model):
    """h: half of the sum of the squared errors."""
    return lambda params, batch: jnp.sum((model(params, batch[0]) - batch[1]) ** 2) / 2


task = distribution.task(jax.random.key(3), amplitude=2.0, phase=1.0)
(X, Y), (x, y) = jax.tree.map(lambda leaf: leaf.astype(float), task)
theta, lam = jax.random.normal(jax.random.key(1), (40,)), 0.5
h = jax.jit(half_sum(waves))
G = jax.jacobian(lambda params: waves(params, X)[:, 0])(theta)
residual = (Y - waves(theta, X))[:, 0]
print(f"G has the shape {G.shape}: n rows, and P columns")

# %% [markdown]
# **Line 1, the proximal objective.** As in lesson 04, adaptation minimizes the support loss plus a proximal term. Let
# $\Delta = \varphi - \theta$, and let the support loss be half of the sum of the squared errors. Each row of $G$ is the
# gradient of one output, so the outputs at the support inputs are $u_\theta(X) + G \Delta$, and the objective is
#
# $$\tfrac12\, \lVert u_\theta(X) + G \Delta - Y \rVert^2 + \tfrac{\lambda}{2}\, \lVert \Delta \rVert^2 .$$
#
# **Line 2, stationarity.** The gradient with respect to $\Delta$ is zero at the minimum, which gives $P$ linear
# equations:
#
# $$(G^\top G + \lambda I)\, \Delta = G^\top (Y - u_\theta(X)) .$$

# %%
delta = jnp.linalg.solve(G.T @ G + lam * jnp.eye(40), G.T @ residual)
gradient = jax.grad(h)(theta + delta, (X, Y)) + lam * delta
assert jnp.allclose(gradient, 0, atol=1e-9)  # line 2

# %% [markdown]
# ## Exercise: the push-through identity
#
# Line 2 has one equation for each parameter, although there are only $n$ residuals. Multiply out both sides to
# convince yourself that
#
# $$G^\top (G\, G^\top + \lambda I) = (G^\top G + \lambda I)\, G^\top .$$
#
# On the left the bracket is a matrix with $n$ rows, on the right one with $P$ rows. **Line 3 is yours:** bring each
# bracket to the other side of the equation, as an inverse. Then write the solution $\Delta$ of line 2 with a system of
# $n$ equations, and implement it.


# %% tags=["exercise"] exercise="11.push_through"
def displacement(rows, residual, proximal_strength):
    """The displacement delta = phi* - theta of proximal adaptation.

    Args:
      rows: G, shape [n, P] with n < P, of full rank.
      residual: Y - u_theta(X), shape [n].
      proximal_strength: lambda >= 0. With 0 the matrix of line 2 is
        singular, and that of line 3 is not.

    Returns:
      An array of shape [P].
    """
    ### BEGIN SOLUTION
    gram = rows @ rows.T + proximal_strength * np.eye(len(rows))
    return rows.T @ np.linalg.solve(gram, residual)
    ### END SOLUTION


# %%
check("11.push_through", displacement)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# Multiply the identity by $(G^\top G + \lambda I)^{-1}$ from the left and by $(G\, G^\top + \lambda I)^{-1}$ from the
# right: $(G^\top G + \lambda I)^{-1} G^\top = G^\top (G\, G^\top + \lambda I)^{-1}$. It is called the *push-through
# identity*, because $G^\top$ is pushed through the inverse. So $\Delta = G^\top c$ with
# $(G\, G^\top + \lambda I)\, c = Y - u_\theta(X)$.
#
# </details>

# %% [markdown]
# **Line 4, the curve.** An entry of $G\, G^\top$ is the inner product of two gradients, and that is the kernel:
# $G\, G^\top = k(X, X)$. For a new input, $\langle \nabla u_\theta(x), \Delta \rangle$ contains the same inner
# products. The parameters disappear, and the adapted curve is
#
# $$\boxed{\;u_{\varphi^*}(x) = u_\theta(x) + k(x, X)\, \big(k(X, X) + \lambda I\big)^{-1} \big(Y - u_\theta(X)\big)\;}$$
#
# This is **kernel regression** on the residuals, also called kernel ridge regression, and $\lambda$ is its ridge.

# %%
system_prediction.reveal(len(X))

# %% tags=["fold"]
assert sum(leaf[0].size for leaf in jax.tree.leaves(inits)) == 1761
assert np.allclose(
    figures.PUSH_THROUGH.reference(np.asarray(G), np.asarray(residual), lam), delta, atol=1e-10
)  # line 3
figures.two_routes()

# %% [markdown]
# ## Three names for one prediction
#
# Line 4 says that kernel regression *is* proximal adaptation for such a model. Lesson 04 called the same thing the
# inner problem of iMAML. So three programs must give the same curve: gradient descent on the proximal objective, the
# system with $P$ unknowns, and the library's kernel regression. The meta-gradients of iMAML and of kernel adaptation
# must agree too. The library's kernel adaptation takes the *mean* of the squared errors as its query loss and our
# iMAML half of their sum, so the code brings the two to the same scale.

# %%
objective = ml.inner.proximal(lambda phi: h(phi, (X, Y)), theta, lam)
by_descent = ml.inner.descend(objective, optax.sgd(0.03), 3_000, theta)
regression = kernel.regression(waves, kernel.tangent(waves), ridge=lam)
curves = {
    "gradient descent, 3,000 steps": waves(by_descent, x),
    "system with P = 40 unknowns": waves(theta + delta, x),
    "kernel regression, n = 5 unknowns": jax.jit(regression)(theta, (X, Y), x),
}

# %%
task_64 = ml.Task((X, Y), (x, y))
by_imaml = ml.imaml(half_sum(waves), optax.sgd(0.03), 3_000, lam, cg_steps=8)
by_kernel = ml.kernel_adaptation(waves, kernel.tangent(waves), lam)
imaml_gradient = jax.jit(by_imaml)(theta, task_64)[1] * 2 / len(y)  # of the mean
kernel_gradient = jax.jit(by_kernel)(theta, task_64)[1]

# %% tags=["fold"]
_kernel_curve = curves["kernel regression, n = 5 unknowns"]
_off = {name: float(abs(curve - _kernel_curve).max()) for name, curve in curves.items()}
_meta = float(jnp.linalg.norm(imaml_gradient - kernel_gradient) / jnp.linalg.norm(kernel_gradient))
plots.table(
    {
        name: [*(float(value) for value in curve[:3, 0]), f"{_off[name]:.0e}".replace("-", "−") if _off[name] else "–"]
        for name, curve in curves.items()
    },
    ["adapted curve by", "at x₁", "at x₂", "at x₃", "largest difference"],
    title="Three programs compute the same curve, up to rounding",
    caption="At three of the query inputs; the difference is the largest one at all ten, from kernel regression.",
)
print(f"meta-gradients of iMAML and kernel adaptation differ by {_meta:.0e}")
assert max(_off.values()) < 1e-7 and _meta < 1e-6

# %% [markdown]
# What is gained? There is no inner optimizer, no inner learning rate and no question of convergence. The cost is one
# gradient for each support point and for each point at which we predict, and a system as large as the support set,
# however many parameters the network has.
#
# There is also a way to say line 1 without parameters. The changes $u - u_\theta$ that the model can make to its curve
# form a space of functions. We measure such a change by the norm $\lVert \Delta \rVert$ of the smallest displacement
# that makes it, and call this number $\lVert u - u_\theta \rVert_k$. With this norm the space is a *reproducing kernel
# Hilbert space* (RKHS), and adaptation minimizes
# $\frac12 \lVert u(X) - Y \rVert^2 + \frac\lambda2 \lVert u - u_\theta \rVert_k^2$ over all curves $u$ whose change is
# in it. The solution has the displacement $G^\top c$. As a combination of gradients, it is the smallest one that makes
# its change, so $\lVert u - u_\theta \rVert_k^2 = \lVert G^\top c \rVert^2 = c^\top k(X, X)\, c$.

# %% tags=["fold"]
_c = np.linalg.solve(G @ G.T + lam * np.eye(5), residual)
assert np.isclose(_c @ (G @ G.T) @ _c, delta @ delta)

# %% [markdown]
# ## Exercise: adapt in closed form
#
# The library's loss is the *mean* of the squared errors, and the proximal term is
# $\frac\lambda2 \lVert \varphi - \theta \rVert^2$ as before. Write a function that returns the adapted outputs for this
# loss. Beware: with another scaling of the loss, another number takes the place of $\lambda$ in line 4.


# %% tags=["exercise"] exercise="11.closed_form"
def closed_form(
    kernel,
    apply,
    params,
    support,
    inputs,
    proximal_strength,
):
    """The outputs of a model after proximal adaptation of the mean
    squared error, for a model that is linear in its parameters.

    Args:
      kernel: function of (params, a, b) that returns k(a, b), a matrix
        of shape [len(a), len(b)].
      apply: the model, a function of (params, inputs) that returns one
        output for each of the inputs.
      params: theta, any pytree.
      support: a pair (x, y) of arrays of shape [n].
      inputs: where to predict, an array of shape [m].
      proximal_strength: lambda, a positive number.

    Returns:
      An array of shape [m].
    """
    ### BEGIN SOLUTION
    x, y = support
    ridge = len(x) * proximal_strength / 2
    gram = kernel(params, x, x) + ridge * np.eye(len(x))
    coefficients = np.linalg.solve(gram, y - apply(params, x))
    return apply(params, inputs) + kernel(params, inputs, x) @ coefficients
    ### END SOLUTION


# %%
check("11.closed_form", closed_form)

# %% [markdown]
# ## Time in place of strength
#
# Lesson 04 showed that early stopping acts like a proximal term with $\lambda \approx 1/T$. In function space we can
# see how far this likeness goes. Let gradient descent take steps so small that it becomes a gradient flow,
# $\dot\varphi = -\nabla h(\varphi)$, where $h$ is half of the sum of the squared errors again. If the model is linear in its
# parameters, as before, the outputs at the support inputs follow
#
# $$\frac{d}{dt}\, u(X) = G\, \dot\varphi = -k(X, X)\, \big(u(X) - Y\big) ,$$
#
# so after a time $t$ the residual there has been multiplied by $e^{-t\, k(X, X)}$. At another input $x$ the output
# changes at the rate $-k(x, X)\, \big(u(X) - Y\big)$, for the same reason. We put the decaying residual into this rate,
# integrate from $0$ to $t$, and get the curve at time $t$:
#
# $$u_t(x) = u_\theta(x) + k(x, X)\, k(X, X)^{-1} \big(I - e^{-t\, k(X, X)}\big) \big(Y - u_\theta(X)\big) .$$
#
# This is the adaptation of **Meta-RKHS II** (Zhou and others 2021). Along an eigenvector of $k(X, X)$ with the
# eigenvalue $s$ the flow explains the fraction $1 - e^{-ts}$ of the residual, and a ridge explains
# $s / (s + \lambda)$.

# %% tags=["fold"]
figures.explained()
_s = np.geomspace(1e-3, 1e3, 2_000)
assert np.abs(-np.expm1(-_s) - _s / (_s + 1)).max() < 0.21
_values, _vectors = np.linalg.eigh(G @ G.T)
_flow = _vectors @ (-np.expm1(-_values) / _values * (_vectors.T @ residual))
_exact = waves(theta, x)[:, 0] + jax.jacobian(lambda params: waves(params, x)[:, 0])(theta) @ G.T @ _flow
_steps = jax.jit(lambda: ml.inner.descend(lambda phi: h(phi, (X, Y)), optax.sgd(1e-3), 1_000, theta))()
assert np.abs(waves(_steps, x)[:, 0] - _exact).max() < 0.01  # 1,000 small steps are nearly the flow to t = 1

# %% [markdown]
# With $\lambda = 1/t$ the two never differ by more than about 0.2, and for large and small eigenvalues they agree.
# Directions with a large eigenvalue are learned, those with a small one are left as they are, and in both cases a single
# number says where the border lies.
#
# The formula as it stands has an inverse and an exponential of a matrix, and the inverse does not exist if an input
# comes twice. The library avoids both by taking eight *implicit* steps. Such a step uses the gradient at the point
# where it ends, which makes it a minimum of a proximal objective, and so a kernel regression with ridge $8/t$ on the
# residual that the step before has left. The curve "8 steps" in the figure shows that they come close to the flow.

# %% [markdown]
# ## When the kernel moves
#
# A network is not linear in its parameters. While it adapts, its gradients change, and so does its kernel. Line 4 uses
# the kernel at $\theta$, so its prediction is wrong if the kernel moves meanwhile. When does the kernel stand still?
# According to the theory, when the network is wide, because the outputs are then sums over many units, and each unit
# has to move only a little. We are going to let networks with one hidden layer adapt to ten points, and compare the
# curve that they reach with the one that line 4 predicts.

# %%
width_prediction = predict("11.width")

# %% [markdown]
# ## Exercise: does the kernel stand still?
#
# To find out we need a measure of how much the kernel has moved. Compute the matrix $k(x, x')$ at the given inputs
# before and after adaptation, and return the norm of the difference, relative to the norm before.


# %% tags=["exercise"] exercise="11.drift"
def drift(apply, before, after, inputs):
    """The relative change of the tangent kernel between two parameters.

    Args:
      apply: the model, a function of (params, inputs) that returns one
        output for each of the inputs.
      before, after: two pytrees of parameters.
      inputs: an array of shape [n].

    Returns:
      The Frobenius norm of the change of k(inputs, inputs), divided by
      that of k(inputs, inputs) before.
    """
    ### BEGIN SOLUTION
    tangent = ml.kernel.tangent(apply)
    start = tangent(before, inputs, inputs)
    change = tangent(after, inputs, inputs) - start
    return jnp.linalg.norm(change) / jnp.linalg.norm(start)
    ### END SOLUTION


# %%
check("11.drift", drift)

# %% [markdown]
# Now the experiment. A network with one hidden layer adapts to ten points of a sine curve, by many gradient steps on
# the proximal objective. Its outputs are divided by the square root of the width, so that the kernel has about the
# same size for every width. The error of the prediction is the norm of the difference between the adapted curve and
# the one that kernel regression predicts from the kernel at $\theta$, divided by the norm of the change of the curve.
# We measure it for two proximal strengths and twenty random initializations.

# %%
ten = ml.tasks.Sinusoid(num_support=10, num_query=50).task(jax.random.key(3), 2.0, 1.0)
(X10, Y10), (x50, _) = jax.tree.map(lambda leaf: leaf.astype(float), ten)


def wide(params, x):
    """One hidden layer of any width; [n, 1] -> [n, 1]."""
    hidden = jnp.tanh(x * params["weight"] + params["bias"])
    return hidden @ params["readout"][:, None] / len(params["bias"]) ** 0.5


@jax.jit
def follow(theta, lam):
    """Parameters after adaptation, and the relative error of the prediction."""
    adapt = ml.inner.proximal(lambda phi: half_sum(wide)(phi, (X10, Y10)), theta, lam)
    phi = ml.inner.descend(adapt, optax.sgd(0.03), 1_000, theta)
    regression = kernel.regression(wide, kernel.tangent(wide), lam)
    predicted = regression(theta, (X10, Y10), x50)
    start, end = wide(theta, x50), wide(phi, x50)
    return phi, jnp.linalg.norm(predicted - end) / jnp.linalg.norm(end - start)


# %%
widths, strengths = (16, 32, 64, 128, 256, 512), (3.0, 0.3)
errors, drifts = figures.over_widths(follow, wide, X10, widths, strengths)

# %% tags=["fold"]
width_prediction.reveal(int(np.digitize(errors["λ = 3"][1] / errors["λ = 3"][5], [2.5, 20])))
figures.by_width(widths, errors, drifts)
_exponents = {name: -np.polyfit(np.log(widths), np.log(error), 1)[0] for name, error in errors.items()}
print(
    "error falls like width to the power of",
    ", ".join(f"−{value:.2f} for {name}" for name, value in _exponents.items()),
)
assert 0.8 < drifts["λ = 0.3"][0] < 1.25 and errors["λ = 0.3"][0] > 0.25
assert max(drifts["λ = 3"][5], errors["λ = 3"][5]) < 0.05
assert all(0.3 < value < 1.0 for value in _exponents.values())
assert all(drifts["λ = 0.3"][i] > drifts["λ = 3"][i] and errors["λ = 0.3"][i] > errors["λ = 3"][i] for i in range(6))
jax.clear_caches()  # frees the memory of the programs above

# %% [markdown]
# Both panels tell the same story. With 16 units and the weak proximal term the change of the kernel is about as large
# as the kernel itself, and the prediction is off by more than a quarter. With 512 units and the strong one, kernel and
# prediction are right within a few per cent. What line 4 leaves out is the movement of the *kernel*. A large width is
# one way to keep it still, and staying close to $\theta$ is another one.
#
# Is a moving kernel bad? Not at all. A kernel that stands still cannot learn which changes belong together. In the
# first figure of this lesson MAML's kernel had become a wave, and no network whose kernel stands still *during
# meta-training* could have done that. What line 4 needs is a kernel that stands still during *adaptation*.

# %% [markdown]
# ## Trained for the closed form, or for steps
#
# There is a way around the question of whether line 4 describes what a network does under gradient steps: *define*
# adaptation by the formula, with the kernel at $\theta$, and train for that. This is what Meta-RKHS II does. Its
# formula gives $u_t$, the curve after a gradient flow for a time $t$, which resembles line 4 with $\lambda = 1/t$.
# Its outer loop differentiates the query loss of $u_t$ with respect to $\theta$, through the kernel. One of our sets
# of networks was trained in this way, with $t = 1$, and another one with MAML, for five gradient steps. Now let each
# adapt in the way of the other.

# %%
crossed_prediction = predict("11.crossed")

# %%
flow = ml.gradient_flow(apply, time=1.0)


@jax.jit
def scores(params):
    """Mean query loss on new tasks: after 5 and 10 steps, and in closed form."""
    curve = ml.evaluate.adaptation_curve(loss, inner, params, new_tasks, 10).mean(1)
    closed = jax.vmap(kernel.query_loss(flow), (None, 0))(params, new_tasks)
    return jnp.stack([curve[5], curve[10], closed.mean()])


table = {}
for name, params in trained.items():
    table[name] = np.stack([scores(each) for each in figures.unstack(params)])

# %% tags=["fold"]
_mean = {name: values.mean(0) for name, values in table.items()}
_ratio = _mean["closed form"][0] / _mean["MAML"][0]
crossed_prediction.reveal(0 if _ratio < 0.8 else 1 if _ratio < 1.2 else 2)
plots.table(
    {
        {"random": "not trained", "MAML": "five steps (MAML)", "closed form": "the closed form (Meta-RKHS II)"}[name]: [
            f"{values[:, i].mean():.2f} ({values[:, i].min():.2f} to {values[:, i].max():.2f})" for i in (0, 2)
        ]
        for name, values in table.items()
    },
    ["trained for", "adapted by five steps", "adapted in closed form"],
    title="A network that was trained for the closed form needs it",
    caption="Mean squared error on 300 new sine curves, five support points; mean and range of three seeds.",
)
assert _ratio > 2 and _mean["MAML"][2] < _mean["MAML"][0] and _mean["closed form"][2] < _mean["MAML"][0]

# %% [markdown]
# With the adaptation that each was trained for, the closed form is the better of the two, and it has no inner learning
# rate. But a network that was trained for it is of little use to somebody who takes the same five steps, and there are
# two possible reasons. Its outer loop only uses the kernel at $\theta$, so nothing kept it from choosing parameters
# near which the kernel changes quickly. And five small steps are short: on half of the sum of the squares they last
# for a time of $2 \alpha K / n$, far less than $t = 1$. The table does not tell which reason weighs more.
#
# In the other direction the exchange does no harm. MAML's network works in closed form too, and even better than with
# the steps that it was trained for. The formula uses the kernel at $\theta$, which MAML has brought close to the
# covariance of the tasks. It follows this kernel for a longer time than five steps do, and the kernel cannot move
# meanwhile. Again the table does not tell which of the two helps more.
#
# **So judge a checkpoint by the adaptation that it will be used with.** If you cannot know how others will adapt it,
# train for steps.

# %% [markdown]
# ## Meta-RKHS I: one step, to first order
#
# The paper of Meta-RKHS II proposes a second objective, for which nothing is adapted during training. By Taylor's
# theorem, one gradient step with the learning rate $\alpha$ lowers the loss $\ell$ of a task by about
# $\alpha \lVert \nabla \ell \rVert^2$. **Meta-RKHS I** minimizes the loss that this expansion promises, the mean over
# tasks of
#
# $$F_\text{I}(\theta) = \ell(\theta) - \alpha\, \lVert \nabla \ell(\theta) \rVert^2 .$$
#
# The name comes from function space: $\alpha \lVert \nabla \ell \rVert$ is also the RKHS norm of the change that this
# step makes to the curve, to first order. The objective is cheap and rewards initializations where gradients are
# large. What does it do on a parabola $\ell = \frac12 L \theta^2$?

# %%
flipped_prediction = predict("11.flipped")

# %%
scales = np.geomspace(1.0, 64.0, 25)
one = figures.unstack(trained["MAML"])[0]
gains = figures.promised_gains(loss, one, new_tasks, scales, (0.001, 0.01))

# %% tags=["fold"]
flipped_prediction.reveal(int(np.sign(2 * 0.6 * 1.0 - 1) + 1))
figures.unbounded((0.25, 0.5, 0.6), scales, gains)
assert all(share[0] < 1 < share[-1] for share in gains.values())

# %% [markdown]
# On a parabola, $\nabla \ell = L \theta$ and so $F_\text{I} = \frac12 L (1 - 2 \alpha L)\, \theta^2$. For
# $\alpha < 1/(2L)$ this is a flatter parabola with the same minimum, and for $\alpha > 1/(2L)$ it is one upside down.
# The loss after a real step is never negative, but its expansion can be. The same happens to a network, for any $\alpha$.
# Multiply its last layer by a large number. The errors and the gradients of the outputs both grow in proportion to it,
# so the loss grows like its square, but the squared norm of the gradient of the loss like its fourth power.
#
# `ml.meta_rkhs_i` therefore lets the promised gain be at most 90 % of the loss. With this cap the objective is at
# least a tenth of the loss, and never negative. (In the library, one of the two gradients in
# $\lVert \nabla \ell \rVert^2$ is that of the support set and the other one that of the query set, because the square
# of one noisy gradient is too large on average.) Does the method then beat MAML, as its authors report?

# %%
step_sizes = jnp.repeat(jnp.array([1e-9, 3e-4, 1e-3]), 3)  # 1e-9 is joint training
three_times = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf, leaf]), inits)
regularized = figures.train(
    lambda step_size: ml.meta_rkhs_i(loss, step_size),
    three_times,
    distribution,
    1_000,
    "Meta-RKHS I",
    6,
    values=step_sizes,
)

# %% tags=["fold"]
_after_ten = np.array([scores(each)[1] for each in figures.unstack(regularized)]).reshape(3, 3)
_maml_ten = table["MAML"][:, 1]
_rows = dict(zip(("joint training", "I, α = 0.0003", "I, α = 0.001"), _after_ten, strict=True))
plots.table(
    {name: [values.mean(), values.min(), values.max()] for name, values in (_rows | {"MAML": _maml_ten}).items()},
    ["trained with", "mean", "lowest seed", "highest seed"],
    title="In our runs Meta-RKHS I stays close to joint training",
    caption="Mean squared error on 300 new sine curves after ten gradient steps; three seeds, clipped meta-gradients.",
)
assert _after_ten.mean(1).min() > (_after_ten[0].mean() + _maml_ten.mean()) / 2

# %% [markdown]
# In our runs it does not. For both values of $\alpha$ its networks stay much closer to joint training than to MAML. The
# paper reports its advantage for few-shot images and convolutional networks. On sine curves we did not find settings
# that reproduce it.

# %% [markdown]
# ## A reconstruction: kernel adaptation and task weights
#
# Park and Kang (2024) combine two ideas: the inner loop in closed form in function space, and an outer loop that
# weighs the losses of the tasks. What follows is our reconstruction of them, with a kernel and weights of our own.
#
# The first idea is line 4 with any kernel, `ml.kernel_adaptation(apply, kernel, ridge)`. Besides the tangent kernel it
# may be a Gaussian kernel of learned features, `kernel.gaussian(length_scale, features)`, or a sum of several.
#
# The second idea answers a question that we have left out so far. The meta-gradient was always the plain *mean* over
# tasks. Should a task that is fitted badly count more, because there is most to learn from it, or less, because it may
# be an outlier?
#
# We will try this on the simplest tasks. Each is a parabola with its own minimum, and adaptation is one gradient step.
# Most minima lie around a common center, and a fraction of the tasks are outliers far away.

# %%
outliers_prediction = predict("11.outliers")

# %% [markdown]
# ## Exercise: weigh the tasks
#
# Write the weighted mean $\sum_i w_i g_i / \sum_i w_i$ of the meta-gradients $g_i$ of the tasks, with the weights
# $w_i = 1/(e + \ell_i)$, where $\ell_i$ is the query loss of task $i$ after adaptation and $e$ a small offset (not
# Euler's number). The weights count as constants, so nothing is differentiated.


# %% tags=["exercise"] exercise="11.task_weights"
def outer_gradient(losses, gradients, offset):
    """The weighted mean of the meta-gradients of a batch of tasks.

    Args:
      losses: query loss of each task, positive, shape [num_tasks].
      gradients: a pytree of arrays whose first axis is the task.
      offset: e, a positive number.

    Returns:
      A pytree like `gradients`, without the first axis.
    """
    ### BEGIN SOLUTION
    weights = 1 / (offset + losses)
    weights = weights / weights.sum()
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), gradients)
    ### END SOLUTION


# %%
check("11.task_weights", outer_gradient)

# %% [markdown]
# The library has this as `task_weights.inverse_loss(offset)`, an argument of `ml.meta_learner`. We compare it with
# three others: equal weights; weights in proportion to $\exp(\ell_i)$, a *softmax* of the losses, which favors hard tasks;
# and weights that favor tasks whose gradients agree with those of the others.

# %%
weights = {
    "equal": None,
    "inverse loss": task_weights.inverse_loss(0.1),
    "agreement": task_weights.gradient_agreement(0.25),
    "hard tasks": task_weights.loss_softmax(1.0),
}
fractions = np.array([0.0, 0.1, 0.2, 0.3])
one_step = ml.maml(ml.tasks.Quadratic.loss, optax.sgd(0.1), 1)
learners = {}
for name, chosen in weights.items():
    learners[name] = ml.meta_learner(one_step, optax.sgd(0.1), chosen)
distances = figures.outlier_runs(learners, fractions)

# %% tags=["fold"]
outliers_prediction.reveal(int(np.digitize(distances["equal"][2], [1.5, 6, 13])))
figures.outliers(fractions, distances)
assert (
    10 * distances["inverse loss"][2] < distances["equal"][2] and 2 * distances["agreement"][2] < distances["equal"][2]
)
assert 0.4 < distances["hard tasks"][2] / (10 * 3**0.5) < 0.5  # nearly half way to the outliers

# %% [markdown]
# With equal weights, training is drawn to the outliers in proportion to their fraction. Inverse losses nearly ignore
# them, and weights by agreement lie in between. More weight for hard tasks is the worst choice here, because the
# hardest tasks *are* the outliers; it takes training nearly half way to them, where both kinds of task are equally
# hard. In a population without outliers the same weights may help, if the hard tasks are hard for a reason that can be
# learned. No weighting knows which of the two cases it is in, so you have to.

# %% [markdown]
# ## What to take away
#
# - The tangent kernel says how the whole curve moves when one point does. Meta-training shapes it, and MAML brings it
#   close to the covariance of the tasks.
# - For a model that is linear in its parameters, proximal adaptation is kernel regression on the residuals, with a
#   system of $n$ unknowns in place of $P$. The ridge is $\lambda$ for half of the sum of the squares, and $n\lambda/2$
#   for their mean.
# - For a network this holds as long as its kernel stands still during adaptation, because the network is wide or its
#   parameters stay close to $\theta$.
# - A network that was trained for the closed form needs it; MAML's network can be adapted either way.
# - A first-order expansion of the loss after a step can fall without bound, though the loss itself cannot.
# - Weights for hard tasks do harm when there are outliers.

# %%
quiz("11")

# %%
progress("11")

# %% [markdown]
# ## Limits
#
# - Line 4 needs squared errors. For classification one regresses on coded labels, or does without the closed form.
# - The kernel of a network costs one gradient for each output of each example, so many outputs make it expensive, and
#   a large support set makes the solve expensive.
# - The experiment with the width has one task and one way to scale the outputs. In other scalings a wide network need
#   not keep its kernel still.
# - The networks are small and were trained for 1,000 outer steps, with settings of our own, the same ones for all
#   methods. Other settings, above all another inner learning rate, would change the errors of the tables.
# - The cosine between kernel and covariance compares matrices on a grid. It says nothing about the ridge, nor about
#   the network's own curve.
# - The outliers are easy to recognize by their losses. Tasks that are merely harder are not.
#
# ## Go further
#
# - Y. Zhou, Z. Wang, J. Xian, C. Chen, J. Xu. *Meta-learning with neural tangent kernels.* ICLR 2021. [arXiv
#   2102.03909](https://arxiv.org/abs/2102.03909). Meta-RKHS I and II.
# - J. Park, Y. Kang. *Fast adaptation with kernel and gradient based meta learning.* 2024. [arXiv
#   2411.00404](https://arxiv.org/abs/2411.00404).
# - A. Jacot, F. Gabriel, C. Hongler. *Neural tangent kernel: convergence and generalization in neural networks.*
#   NeurIPS 2018. [arXiv 1806.07572](https://arxiv.org/abs/1806.07572).
# - J. Lee, L. Xiao, S. Schoenholz, Y. Bahri, R. Novak, J. Sohl-Dickstein, J. Pennington. *Wide neural networks of any
#   depth evolve as linear models under gradient descent.* NeurIPS 2019. [arXiv
#   1902.06720](https://arxiv.org/abs/1902.06720).
# - L. Chizat, E. Oyallon, F. Bach. *On lazy training in differentiable programming.* NeurIPS 2019. [arXiv
#   1812.07956](https://arxiv.org/abs/1812.07956). Why scaling a model keeps its kernel still.
