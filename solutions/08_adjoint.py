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
# - **derive** the adjoint equation from the product of factors $I - \alpha H_k$,
# - **implement** its integration along a stored trajectory, and **measure** its order,
# - **predict** when a trajectory that is integrated backwards is lost, and **diagnose** where,
# - **choose** checkpoints, and say what they cost.
#
# **New symbols**
#
# - $\varphi(t)$: gradient flow from $\varphi(0) = \theta$
# - $p(t)$: adjoint
# - $w(t)$: a small displacement of the flow
# - $\varepsilon$: machine precision

# %% [markdown]
# The next cell loads JAX and the course's library, which takes a few seconds.

# %% tags=["imports"]
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course import bar, check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_08 as figures
from metalearn.course.widgets import diagrams

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Small inner steps follow the gradient flow
#
# Lesson 02 found that the inner training time $T = \alpha K$ decides how far the inner loop adapts and how strongly the
# meta-objective may curve, while at a fixed $T$ more and smaller inner steps change little. What do these steps converge
# to? And can we differentiate the limit itself?
#
# One task with two parameters is enough. Its support loss is a curved valley. The valley floor is nearly a circle of
# radius 1 and descends gently towards the angle of $0$ degrees, while the walls are steep, with a curvature of
# $L = 20$. The query loss is the same valley, descending towards $130$ degrees.
#
# *Short of time? Skip the exercise on the proximal term and the section on cost.*

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict
L = 20.0


@jax.jit
def valley(phi, batch):
    """A circular valley, tilted towards the mean of the batch, shape [n, 2]."""
    radius = jnp.sqrt(phi @ phi + 0.01)  # 0.01 rounds off the tip at the centre
    return L / 2 * (radius - 1) ** 2 - jnp.mean(batch @ phi)


def unit(degrees):
    return np.array([[np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))]])


task = ml.Task(support=unit(0.0), query=unit(130.0))
theta, T = jnp.asarray(1.2 * unit(140.0)[0]), 2.0


# %%
def velocity(phi):
    """-∇h(φ), in the precision of φ."""
    return -jax.grad(valley)(phi, jnp.asarray(task.support, phi.dtype))


@functools.partial(jax.jit, static_argnums=2)
def inner_loop(theta, alpha, num_steps):
    """φ₀, ..., φ_K of gradient descent on the support loss, shape [K + 1, 2]."""

    def step(phi, _):
        return phi + alpha * velocity(phi), phi

    last, trajectory = jax.lax.scan(step, theta, length=num_steps)
    return jnp.concatenate([trajectory, last[None]])


coarse, fine = inner_loop(theta, T / 25, 25), inner_loop(theta, T / 2_000, 2_000)
figures.small_steps(valley, task, theta, T, coarse, fine)

# %% [markdown]
# Both inner loops have the same $T$. The smooth curve that small steps approach has an equation, which appears once we
# write a gradient step as a difference quotient:
#
# $$\frac{\varphi_{k+1} - \varphi_k}{\alpha} = -\nabla h(\varphi_k) \qquad\longrightarrow\qquad
# \frac{d\varphi}{dt} = -\nabla h(\varphi), \quad \varphi(0) = \theta .$$
#
# The limit is an ordinary differential equation (ODE), the **gradient flow**, and adaptation ends at $\varphi(T)$. To
# compute it accurately we use the classical Runge-Kutta method, which evaluates the derivative four times in each step.
# The function below takes any derivative, and a negative duration will let it integrate backwards.


# %%
@functools.partial(jax.jit, static_argnums=(0, 3))
def runge_kutta(derivative, state, duration, num_steps=16_000):
    """The solution of d state / dt = derivative(state), at num_steps + 1 times.

    A state is a pytree of arrays.
    """
    dt = duration / num_steps

    def moved(state, rate, time):
        return jax.tree.map(lambda s, r: s + time * r, state, rate)

    def step(state, _):
        a = derivative(state)
        b = derivative(moved(state, a, dt / 2))
        c = derivative(moved(state, b, dt / 2))
        d = derivative(moved(state, c, dt))
        mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, a, b, c, d)
        return moved(state, mean, dt), state

    last, path = jax.lax.scan(step, state, length=num_steps)
    return jax.tree.map(lambda p, end: jnp.concatenate([p, end[None]]), path, last)


flow = runge_kutta(velocity, theta, T)

# %% tags=["fold"]
assert jnp.allclose(flow[-1], runge_kutta(velocity, theta, T, 4_000)[-1], atol=1e-9)  # it has converged

# %%
gap_prediction = predict("08.gap")

# %%
counts = np.array([50, 100, 200, 400, 800])
ends = [inner_loop(theta, T / int(K), int(K))[-1] for K in counts]
gaps = np.array([jnp.linalg.norm(end - flow[-1]) for end in ends])
gap_prediction.reveal(int(np.digitize(gaps[-2] / gaps[-1], [1.7, 2.8])))

# %% tags=["fold"]
order = -np.polyfit(np.log(counts[2:]), np.log(gaps[2:]), 1)[0]
plots.table(
    {f"{K}": [T / K, f"{gap:.5f}"] for K, gap in zip(counts, gaps, strict=True)},
    ["steps K", "learning rate α", "distance from φ(T)"],
    title="Half the learning rate leaves half the distance",
    caption=f"The same inner training time, T = {T:g}.",
)
assert 0.9 < order < 1.1

# %% [markdown]
# For small $\alpha$ the distance is proportional to $\alpha$. A method whose error is proportional to $\alpha$ has
# **order** one, a method whose error is proportional to $\alpha^2$ has order two, and so on, so gradient descent is a
# method of order one for the gradient flow. (In lesson 03 the word "first-order" meant something else, namely without
# second derivatives.) This explains what lesson 02 found. Once the steps are small, still smaller ones can only bring
# the adapted parameters closer to $\varphi(T)$, which does not depend on $K$.
#
# Why not adapt by the flow itself, with an accurate method for the ODE? This is the idea of **A-MAML** (Li et al., 2023).
# Its meta-objective is $F(\theta) = f(\varphi(T))$. What is the gradient?
#
# ## The adjoint equation
#
# Recall the backward pass of lesson 02. The query gradient at the adapted parameters is multiplied by one factor
# $I - \alpha H_k$ for each inner step, where $H_k = \nabla^2 h(\varphi_k)$, from the last step to the first.

# %% tags=["fold"]
diagrams.show(
    diagrams.backward_pass(),
    "Four circles in a row, θ to φ₃, joined by arrows for the inner steps, and behind them the query loss f. Curved arrows "
    "lead back from f to θ. They carry the query gradient and a factor I − αH for each step.",
    title="Each inner step contributes one factor to the backward pass",
    caption="An inner loop of three steps and its backward pass, as in lesson 02.",
)

# %% [markdown]
# **Line 1.** Give a name to the vector that travels backwards. Call it $p_k$ when it has arrived at $\varphi_k$:
#
# $$p_K = \nabla f(\varphi_K), \qquad p_k = (I - \alpha H_k)\, p_{k+1}, \qquad \nabla F_\text{MAML}(\theta) = p_0 .$$


# %%
def hessian_at(phi):
    """H(φ), shape [2, 2]."""
    return jax.hessian(valley)(phi, task.support)


alpha, num_steps = 0.05, 40
steps = inner_loop(theta, alpha, num_steps)
hessians = jax.jit(jax.vmap(hessian_at))(steps)
query_gradient = jax.jit(jax.grad(lambda phi: valley(phi, task.query)))

p = np.zeros((num_steps + 1, 2))
p[-1] = query_gradient(steps[-1])
for k in reversed(range(num_steps)):
    p[k] = (np.eye(2) - alpha * hessians[k]) @ p[k + 1]


@jax.grad
def by_jax(theta):
    return valley(inner_loop(theta, alpha, num_steps)[-1], task.query)


assert np.allclose(p[0], by_jax(theta))  # line 1

# %% [markdown]
# **Line 2.** Write the step as a difference quotient, as we did for the inner loop. This is algebra, and exact:
#
# $$\frac{p_{k+1} - p_k}{\alpha} = H_k\, p_{k+1} .$$

# %% tags=["nbval-check-output"]
left = (p[1:] - p[:-1]) / alpha
right = np.einsum("kij,kj->ki", hessians[:-1], p[1:])
assert np.allclose(left, right)
print("line 2 holds at every step")

# %% [markdown]
# **Line 3.** As $\alpha$ tends to zero the quotient becomes a derivative, and we obtain the **adjoint equation**:
#
# $$\boxed{\;\frac{dp}{dt} = H(\varphi(t))\, p, \qquad p(T) = \nabla f(\varphi(T)), \qquad \nabla F(\theta) = p(0)\;}$$
#
# Here $p$ is known at time $T$, so the equation is integrated backwards, from $T$ to $0$. At every time the **adjoint**
# $p(t)$ has a meaning of its own. It is the gradient of the final query loss with respect to $\varphi(t)$, the point that
# the flow has reached by then. Automatic differentiation through the Runge-Kutta steps computes this gradient without
# the adjoint equation, which gives us an independent check.


# %%
@jax.jit
def position(t):
    return runge_kutta(velocity, theta, t, 1_000)[-1]


@jax.jit
def adjoint(t):
    """Gradient of the final query loss with respect to φ(t), by jax.grad."""

    def final_loss(phi):
        return valley(runge_kutta(velocity, phi, T - t, 1_000)[-1], task.query)

    return jax.grad(final_loss)(position(t))


for t in (0.1, 0.7, 1.6):
    quotient = (adjoint(t + 1e-4) - adjoint(t - 1e-4)) / 2e-4
    product = hessian_at(position(t)) @ adjoint(t)
    assert np.allclose(quotient, product, rtol=1e-4, atol=1e-5)  # line 3
exact = adjoint(0.0)

# %%
arrow_prediction = predict("08.survives")

# %%
times = np.linspace(0, T, 61)
places = np.array([position(t) for t in times])
adjoints = np.array([adjoint(t) for t in times])
along, across = figures.parts(places, adjoints)
arrow_prediction.reveal(1 + int(along[0] > across[0]))

# %% tags=["fold"]
figures.adjoint_arrows(valley, task, theta, flow, times, places, adjoints)
norms = np.hypot(along, across)
assert along[0] / norms[0] > 0.98 and along[-1] / norms[-1] < 0.9
assert norms[-1] > norms[0] > norms.min() and 0 < norms.argmin() < 50

# %% [markdown]
# Follow the arrows from the end of the trajectory to its beginning. The part across the valley falls steeply at once,
# because the flow forgets any displacement across the valley. (At the dip it changes its sign, and a little of it remains,
# because the valley is curved.) What reaches the initialization is almost only the part along the valley floor. Going
# back, it first shrinks, where the floor is curved upwards, and then grows again nearly to the beginning, where the
# floor is curved downwards.
#
# **Line 4, why it is called adjoint.** Displace the initialization by a small vector $w(0)$. The linearized flow carries it along by
# $dw/dt = -H w$. Because $H$ is symmetric, the inner product of $p$ and $w$ does not change with time:
#
# $$\frac{d}{dt}\, \langle p, w \rangle = \langle Hp, w \rangle - \langle p, Hw \rangle = 0 .$$
#
# Hence $\langle p(0), w(0) \rangle = \langle p(T), w(T) \rangle$. To first order both sides are the change of $F$, on
# the left as seen from the initialization and on the right as seen from the end. The matrix that takes $p(T)$ to $p(0)$
# is therefore the transpose of the one that takes $w(0)$ to $w(T)$, and another word for the transpose is *adjoint*.


# %%
def displaced(t):
    """w(t), by forward-mode differentiation of the flow."""

    def flow_to(phi):
        return runge_kutta(velocity, phi, t, 1_000)[-1]

    return jax.jvp(flow_to, (theta,), (jnp.array([0.3, -1.0]),))[1]


products = [float(adjoint(t) @ displaced(t)) for t in (0.0, 0.5, 1.0, 2.0)]
assert np.allclose(products, products[0], rtol=1e-6)  # line 4

# %% [markdown]
# ## Exercise: the meta-gradient on a quadratic
#
# On a quadratic task the flow and its meta-gradient have a closed form. Let
# $h(\varphi) = \frac12 (\varphi - m)^\top H (\varphi - m)$ and $f(\varphi) = \frac12 (\varphi - q)^\top A\, (\varphi - q)$.
#
# - **Line 1.** The flow $d\varphi/dt = -H (\varphi - m)$ ends at $\varphi(T) = m + e^{-TH} (\theta - m)$. The *matrix exponential*
#   of a symmetric matrix has the eigenvectors of that matrix, and the exponentials of its eigenvalues.
# - **Line 2.** The meta-objective is $F(\theta) = \frac12 (\varphi(T) - q)^\top A\, (\varphi(T) - q)$.
# - **Line 3** is yours: differentiate, and write $\nabla F(\theta)$ as a function.


# %% tags=["exercise"] exercise="08.flow_gradient"
def flow_gradient(
    support_hessian,
    support_minimum,
    query_hessian,
    query_minimum,
    initialization,
    training_time,
):
    """The gradient, with respect to the initialization, of the query
    loss after the gradient flow of the support loss.

    Args:
      support_hessian: H, symmetric, shape [d, d]; eigenvalues of any
        sign.
      support_minimum: m, shape [d].
      query_hessian: A, symmetric, shape [d, d]; eigenvalues of any
        sign.
      query_minimum: q, shape [d].
      initialization: θ, shape [d].
      training_time: T > 0, a number.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    eigenvalues, vectors = np.linalg.eigh(support_hessian)
    J = vectors @ np.diag(np.exp(-training_time * eigenvalues)) @ vectors.T
    adapted = support_minimum + J @ (initialization - support_minimum)
    return J @ query_hessian @ (adapted - query_minimum)
    ### END SOLUTION


# %%
check("08.flow_gradient", flow_gradient)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# By the chain rule $\nabla F(\theta) = e^{-TH} A\, (\varphi(T) - q) = e^{-TH} p(T)$. This is the solution of the adjoint
# equation at time $0$, since $H$ is constant. The matrix $e^{-TH}$ is the limit of the product of $K$ factors
# $I - \frac{T}{K} H$.
#
# </details>

# %% tags=["fold"]
quadratics = ml.tasks.Quadratic(dim=3)(jax.random.key(0), 4)
closed = ml.theory.flow(quadratics, T)  # its `jacobian` is exp(-T H), for each of four tasks
distances = {}
for num_steps in (100, 1_000, 10_000):
    power = ml.theory.unrolled(quadratics, T / num_steps, num_steps).jacobian
    distances[num_steps] = abs(power - closed.jacobian).max()
assert distances[10_000] < 1e-3 and 9 < distances[1_000] / distances[10_000] < 11
H, m = quadratics.support.hessian[0], quadratics.support.minimum[0]
start = jnp.array([1.0, -2.0, 0.5])


def query_loss(phi):
    return ml.tasks.Quadratic.loss(phi, jax.tree.map(lambda leaf: leaf[0], quadratics.query))


def flow_to_end(start):
    return runge_kutta(lambda phi: -H @ (phi - m), start, T, 1_000)[-1]


end = flow_to_end(start)
p_start = closed.jacobian[0] @ jax.grad(query_loss)(end)
assert np.allclose(end, m + closed.jacobian[0] @ (start - m))  # line 1
assert np.allclose(p_start, jax.grad(lambda start: query_loss(flow_to_end(start)))(start))  # line 3
assert np.allclose(p_start, closed.task_gradients(start)[0])

# %% [markdown]
# ## Integrate backwards along a stored trajectory
#
# If the loss is not quadratic, the adjoint equation needs a numerical method, and this method needs $\varphi(t)$ on its way
# from $T$ to $0$. Suppose that the forward pass stored the points $\varphi_0, \varphi_1, \dots, \varphi_K$, at times
# $\alpha = T / K$ apart. There are two simple ways to get from $p$ at $\varphi_{k+1}$ to $p$ at $\varphi_k$:
#
# - An **Euler step** uses the derivative where it begins: $\;p \leftarrow p - \alpha a\;$ with $\;a = H(\varphi_{k+1})\, p$.
# - A **Heun step** also evaluates the derivative where the Euler step would arrive, $\;b = H(\varphi_k)\, (p - \alpha a)$, and
#   then steps with the mean of $a$ and $b$.
#
# Both $a$ and $b$ are Hessian-vector products, so no Hessian matrix has to be formed.

# %% [markdown]
# ## Exercise: one backward sweep
#
# A *backward sweep* integrates the adjoint equation from $p(T)$ to $p(0)$ along the stored points. Write one with Heun
# steps.


# %% tags=["exercise"] exercise="08.adjoint_sweep"
def adjoint_sweep(loss, task, path, learning_rate):
    """The meta-gradient, by Heun steps for the adjoint equation from
    the end of a stored trajectory to its beginning.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      path: array of shape [K + 1, d], the points at times 0, α, ...,
        Kα, with K >= 0.
      learning_rate: α, a number.

    Returns:
      An array of shape [d], the adjoint p(0).
    """

    ### BEGIN SOLUTION
    def hessian_times(phi, vector):
        return jax.jvp(lambda phi: jax.grad(loss)(phi, task.support), (phi,), (vector,))[1]

    p = jax.grad(loss)(path[-1], task.query)
    for k in reversed(range(len(path) - 1)):
        a = hessian_times(path[k + 1], p)
        b = hessian_times(path[k], p - learning_rate * a)
        p = p - learning_rate * (a + b) / 2
    return p
    ### END SOLUTION


# %%
check("08.adjoint_sweep", adjoint_sweep)

# %% [markdown]
# How accurate is a sweep with $K$ steps? We compare four meta-gradients, each of them computed with $K$ steps, with the
# exact gradient of the flow:
#
# - MAML, the exact gradient through $K$ gradient steps, which approximate the flow,
# - an Euler sweep and a Heun sweep along a trajectory that the Runge-Kutta method stored,
# - A-MAML as the library has it, `ml.a_maml(loss, T, K)`. It integrates the flow by a method of order five (Tsitouras,
#   2011), and the adjoint by the transposes of the same steps.

# %%
order_prediction = predict("08.order")


# %% tags=["fold"]
@functools.partial(jax.jit, static_argnums=(1, 2))
def sweep(theta, num_steps, heun):
    """p(0) by Heun or Euler steps along a trajectory stored by the Runge-Kutta method."""
    dt = T / num_steps
    path = runge_kutta(velocity, theta, T, num_steps)
    hessians = jax.vmap(hessian_at)(path)  # for two parameters the matrices are small

    def back(p, ends):
        earlier, later = ends
        a = later @ p
        b = earlier @ (p - dt * a)
        return p - dt * ((a + b) / 2 if heun else a), None

    return jax.lax.scan(back, query_gradient(path[-1]), (hessians[:-1], hessians[1:]), reverse=True)[0]


def relative_error(gradient):
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))


counts = np.array([64, 128, 256, 512, 1024])
methods = {
    "MAML": lambda k: ml.maml(valley, optax.sgd(T / k), k)(theta, task)[1],
    "Euler sweep": lambda k: sweep(theta, k, False),
    "Heun sweep": lambda k: sweep(theta, k, True),
}
errors = {name: np.zeros(len(counts)) for name in methods}
for name, i in bar([(name, i) for name in methods for i in range(len(counts))], "15 meta-gradients", seconds=3):
    errors[name][i] = relative_error(jax.jit(methods[name], static_argnums=0)(int(counts[i])))
orders = {name: -np.polyfit(np.log(counts[2:]), np.log(values[2:]), 1)[0] for name, values in errors.items()}
assert abs(orders["MAML"] - 1) < 0.1 and abs(orders["Euler sweep"] - 1) < 0.1 and abs(orders["Heun sweep"] - 2) < 0.1

# %%
a_maml = {k: jax.jit(ml.a_maml(valley, T, k)) for k in (32, 64)}
a_maml_errors = [relative_error(method(theta, task)[1]) for method in a_maml.values()]
heun = errors["Heun sweep"]
order_prediction.reveal(int(np.digitize(heun[-3] / heun[-1], [8, 32])))
figures.orders(counts, errors, (64, a_maml_errors[1]))

# %% tags=["fold"]
assert a_maml_errors[1] < heun[-1] and np.log2(a_maml_errors[0] / a_maml_errors[1]) > 4.5
shift = 1e-5 * np.eye(2)
differences = [float(a_maml[32](theta + s, task)[0] - a_maml[32](theta - s, task)[0]) / 2e-5 for s in shift]
assert np.allclose(differences, a_maml[32](theta, task)[1], rtol=1e-6)

# %% [markdown]
# MAML and the Euler sweep have order one, the Heun sweep has order two, and A-MAML with 64 steps has a smaller error than
# all others with 1,024. One of its steps costs more than one of theirs, which we shall count at the end. A-MAML has a
# second advantage. Because its backward pass consists of the transposes of its forward steps, its gradient is the exact
# gradient of the value that it returns, however few the steps. An Euler or Heun sweep does not consist of the transposes
# of the Runge-Kutta steps, so its result is exact only in the limit of many steps.
#
# ## Can the trajectory be integrated backwards?
#
# Storing the trajectory takes memory, one copy of the parameters for each step. But do we have to store it? We know
# $\varphi(T)$, and an ODE can be integrated backwards in time, from $T$ to $0$. We could start at $\varphi(T)$ and $p(T)$,
# integrate both equations backwards together, and store nothing at all. Neural ODEs, networks whose layers are replaced
# by the solution of an ODE, were first trained in this way (Chen et al., 2018).
#
# Let us try it on the simplest gradient flow, that of a parabola with curvature $L$ and minimum $m$. No numerical method
# is to blame here, since both directions have a formula:
#
# $$\varphi(T) = m + e^{-LT} (\theta - m), \qquad\qquad \theta = m + e^{+LT} (\varphi(T) - m) .$$

# %%
lost_prediction = predict("08.lost")


# %%
def there_and_back(LT, dtype):
    """Relative error of θ after both formulas; m = 1, θ = 2."""
    minimum, start, growth = dtype(1), dtype(2), np.exp(dtype(LT))
    end = minimum + (start - minimum) / growth
    back = minimum + (end - minimum) * growth
    return float(abs(back - start) / (start - minimum))


# %% tags=["fold"]
limits = {dtype: -np.log(np.finfo(dtype).eps) for dtype in (np.float64, np.float32)}
lost_prediction.reveal(round(limits[np.float64]))
tried = (10, 15, 20, 30, 38)
plots.table(
    {f"{LT}": [plots.number(there_and_back(LT, dtype), 1) for dtype in limits] for LT in tried},
    ["LT", *(f"error of θ in {dtype.__name__}" for dtype in limits)],
    title="When LT reaches ln(1/ε), nothing is left of the initialization",
    caption="Relative error after both formulas; 1 means that all is lost. "
    + "; ".join(f"ln(1/ε) is {limit:.0f} in {dtype.__name__}" for dtype, limit in limits.items())
    + ".",
)
for dtype, limit in limits.items():
    assert there_and_back(limit - 5, dtype) < 0.02 and there_and_back(limit + 2, dtype) == 1

# %% [markdown]
# The flow contracts. It brings all initializations closer to each other by the factor $e^{-LT}$, and integrating
# backwards must separate them again by $e^{+LT}$. Rounding errors are multiplied by the same factor. If $\varepsilon$
# is the machine precision, the initialization is lost when
#
# $$\varepsilon\, e^{LT} = 1, \qquad\text{that is}\qquad LT = \ln (1 / \varepsilon) .$$
#
# An ordinary inner loop gets there quickly. With half the largest stable learning rate, $\alpha = 1/L$, we have
# $LT = K$, so that forty inner steps are already beyond float64.
#
# What happens in the valley, whose Hessian changes along the way? There $T = 2$ and $L = 20$, so $LT = 40$. We take
# $\varphi(T)$ back to time $0$ with the same method and the same 16,000 steps that brought us there.

# %%
path_prediction = predict("08.path")

# %%
returned = runge_kutta(velocity, flow[-1], -T)[::-1]  # from time 0 to T, like `flow`
distance = np.linalg.norm(returned - flow, axis=1)
leaves = not distance[200] < 0.1  # before it comes to θ; "not <": it may be NaN
path_prediction.reveal(int(not distance[0] < 0.1) + int(leaves))

# %% tags=["fold"]
largest = np.array(jax.vmap(lambda phi: jnp.linalg.eigvalsh(hessian_at(phi))[-1])(flow))
assert 36 < largest.mean() * T < 44  # LT, with the largest curvature along the trajectory
assert leaves and not distance[0] < 0.5
figures.lost(valley, task, theta, flow, returned, np.linspace(0, T, len(flow)))

# %% [markdown]
# Forwards, the walls keep the trajectory on the valley floor. Backwards, they push it away, as if the floor were a ridge,
# and a rounding error decides to which side the trajectory falls.
#
# The slider changes $T$. Move it, and change the precision. **The parabola was lost at $LT = 36$ in float64 and at 16 in float32. Is the
# valley lost at about the same values?** The dotted line is $\varepsilon\, e^{LT}$.

# %% tags=["fold"]
values = np.arange(1, 46)
dtypes = {"float64": jnp.float64, "float32": jnp.float32}


@functools.partial(jax.jit, static_argnums=(1, 2))
def round_trips(products, dtype, num_steps=16_000):
    """Forward and backward trajectory for each LT, thinned to 400 intervals, shape [2, n, 401, 2]."""

    def round_trip(product):
        duration = jnp.asarray(product / L, dtype)
        forward = runge_kutta(velocity, theta.astype(dtype), duration, num_steps)
        back = runge_kutta(velocity, forward[-1], -duration, num_steps)
        return forward[:: num_steps // 400], back[:: num_steps // 400]

    return jnp.stack(jax.vmap(round_trip)(products))


trips = {name: np.asarray(round_trips(values, dtype)) for name, dtype in dtypes.items()}
misses = {name: np.linalg.norm(trip[1, :, -1] - theta, axis=-1) for name, trip in trips.items()}


def draw_round_trip(LT, precision):
    forward, back = trips[precision][:, list(values).index(LT)]
    epsilon = float(jnp.finfo(dtypes[precision]).eps)
    return figures.round_trip(valley, task, theta, forward, back, values, misses[precision], epsilon, LT)


explore(
    draw_round_trip,
    "Left, the valley with the forward trajectory and the one integrated backwards; right, the distance from θ at the end "
    "against LT, on a logarithmic axis, with the line that rounding predicts.",
    LT=(1, 45, 1, 20),
    precision=list(dtypes),
)

# %% tags=["fold"]
first_lost = {}
for name, dtype in dtypes.items():
    limit = -np.log(float(jnp.finfo(dtype).eps))
    first_lost[name] = int(values[(~(misses[name] < 0.5)).argmax()])
    assert limit - 5 < first_lost[name] < limit + 5
    assert np.mean(misses[name] < np.exp(values - limit)) > 0.5
tested = np.array([20, 30])
rows = {}
for num_steps in (400, 4_000, 16_000):
    ends = round_trips(tested, jnp.float64, num_steps)[1, :, -1]
    rows[num_steps] = list(np.linalg.norm(ends - theta, axis=-1))
plots.table(
    {
        plots.number(num_steps): [plots.number(error, 1) if error < 0.5 else "lost" for error in row]
        for num_steps, row in rows.items()
    },
    ["steps, in float64", "LT = 20", "LT = 30"],
    title="The errors of the method grow in the same way as rounding errors",
    caption="Distance from θ after integrating forwards and backwards with the same number of steps. Lost: above 0.5.",
)
assert rows[400][0] > 100 * rows[4_000][0] and not rows[400][1] < 0.5

# %% [markdown]
# In both precisions the valley is lost at nearly the same $LT$ as the parabola. The table varies the number of steps.
# With fewer of them the trajectory is lost at a smaller $LT$, because the errors of the numerical method are multiplied
# by $e^{LT}$ too. More steps help until only rounding errors are left.
#
# And the gradient? Let us integrate $\varphi$ and $p$ backwards together and compare $p(0)$ with the exact meta-gradient,
# in the valley and on a quadratic, which is the test problem that comes to mind first.

# %%
quadratic_prediction = predict("08.quadratic")


# %%
@functools.partial(jax.jit, static_argnums=0)
def stores_nothing(loss, theta, T):
    """(θ as recovered, its adjoint, exact gradient)."""

    def end_of_flow(phi):
        return runge_kutta(lambda phi: -jax.grad(loss)(phi, task.support), phi, T)[-1]

    def derivative(state):
        phi, p = state
        H = jax.hessian(loss)(phi, task.support)
        return -jax.grad(loss)(phi, task.support), H @ p

    end = end_of_flow(theta)
    phi, p = runge_kutta(derivative, (end, jax.grad(loss)(end, task.query)), -T)
    exact = jax.grad(lambda theta: loss(end_of_flow(theta), task.query))(theta)
    return phi[-1], p[-1], exact


@jax.jit
def quadratic(phi, batch):
    """Curvatures 20 and 1; the minimum is the mean of the batch."""
    return jnp.sum(jnp.array([L, 1.0]) * (phi - batch.mean(0)) ** 2) / 2


# %%
def errors_without_storing(loss, LT):
    """(distance from θ, relative error of the gradient)."""
    phi, p, exact = stores_nothing(loss, theta, LT / L)
    miss = np.linalg.norm(p - exact) / np.linalg.norm(exact)
    return float(np.linalg.norm(phi - theta)), float(miss)


in_valley = {LT: errors_without_storing(valley, LT) for LT in (10, 20, 30, 40)}
on_quadratic = errors_without_storing(quadratic, 40)
wrong = [on_quadratic[0] > 0.5, on_quadratic[1] > 1e-6]  # trajectory, gradient
quadratic_prediction.reveal(int(wrong[0]) + 2 * int(wrong[1]))

# %% tags=["fold"]
plots.table(
    {
        f"{name}, LT = {LT}": [
            plots.number(miss, 1) if miss < 0.5 else "lost",
            plots.number(wrong, 1) if wrong < 0.1 else "useless",
        ]
        for name, LT, (miss, wrong) in [
            *(("valley", LT, pair) for LT, pair in in_valley.items()),
            ("quadratic", 40, on_quadratic),
        ]
    },
    ["", "distance from θ", "relative error of ∇F"],
    title="A quadratic does not notice that the trajectory is lost",
    caption="Both integrated backwards together in float64, nothing stored. Lost: above 0.5. Useless: above 0.1.",
)
assert in_valley[20][1] < 1e-4 and not in_valley[40][1] < 0.1  # "not <": it may be NaN
assert on_quadratic[0] > 0.5 and on_quadratic[1] < 1e-6

# %% [markdown]
# At $LT = 20$ all is well. At $LT = 40$ the gradient in the valley is useless, and no error is raised, because the
# adjoint equation happily uses Hessians from places where adaptation has never been. On the quadratic the trajectory is
# lost just as thoroughly, yet the gradient is right. Therefore a test on a quadratic cannot tell whether an adjoint
# method uses the right trajectory. Use a curved valley and a large $LT$.

# %% [markdown]
# ## Exercise: how long may the inner training time be?
#
# You know the end of a gradient flow with a constant Hessian up to an error, whose size is given and whose direction is
# not. From there the flow is integrated backwards. How large may $T$ be, if the error at time $0$ must not exceed a given
# tolerance?


# %% tags=["exercise"] exercise="08.longest_training_time"
def longest_training_time(hessian, error, tolerance):
    """The longest T at which no error of that size in φ(T) becomes
    larger than the tolerance at time 0.

    Args:
      hessian: symmetric, shape [d, d]; at least one eigenvalue is
        positive.
      error: size of the error in φ(T), a positive number.
      tolerance: size of the error allowed at time 0, larger than
        `error`.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    largest = np.linalg.eigvalsh(hessian)[-1]
    return np.log(tolerance / error) / largest
    ### END SOLUTION


# %%
check("08.longest_training_time", longest_training_time)

# %% [markdown]
# ## Checkpoints
#
# So the trajectory must be stored, but not all of it at once. Keep every $c$-th point of the forward pass as a
# **checkpoint**. In the backward pass take the segments between checkpoints from the last to the first. Recompute the
# points of one segment, **forwards** from its checkpoint, sweep back along it, and forget it. Recomputed forwards, a
# segment has the same points as the first time.

# %% tags=["fold"]
diagrams.show(
    figures.three_ways(),
    "Three rows, each a trajectory of thirteen points. In the first all points are filled, and one arrow leads back from "
    "the last to the first. In the second only the last one is filled, and a dashed arrow leads back and misses the first. "
    "In the third every fourth point is filled; each segment has an arrow forwards and an arrow backwards.",
    title="Three ways to know φ(t) in the backward pass",
    caption="Filled points are stored. Blue arrows: forward steps that are repeated. Orange arrows: the backward pass.",
)

# %% [markdown]
# With checkpoints every $c$ steps, $K / c$ checkpoints and the $c$ points of one segment are in memory at a time. The sum
# $K / c + c$ is smallest at $c = \sqrt K$, where it is $2 \sqrt K$. In return each step is computed twice. If a
# Hessian-vector product counts as two gradients, the cost rises from $3K + 1$ to $4K + 1$ gradients.

# %% tags=["fold"]
spacings = 2 ** np.arange(11)
points = 1_024 // spacings + spacings
plots.table(
    {"points in memory": points[2:9]},
    ["c", *map(str, spacings[2:9])],
    title="The best distance between checkpoints is the square root of K",
    caption="For K = 1,024 steps.",
)
assert spacings[points.argmin()] == np.sqrt(1_024) and points.min() == 2 * np.sqrt(1_024)

# %% [markdown]
# Checkpoints do not need an ODE, and MAML can have them too. Deep learning calls them rematerialization, and the library
# offers them as `ml.maml(..., remat=True)`, which computes each step a third time instead of keeping its intermediate
# results. `ml.a_maml` always works with about $\sqrt K$ checkpoints. How much memory does this save? The compiler reports
# how much each program needs.

# %%
memory_prediction = predict("08.memory")

# %%
jax.clear_caches()  # frees the memory of the programs above
many = jnp.zeros(2_000)
many_task = ml.Task(many[None] + 1, many[None] + 1)


def smooth_loss(params, batch):
    return jnp.mean(jnp.log(jnp.cosh(params - batch)))


def copies(meta_gradient):
    """Working memory of the compiled program, in copies of the parameters."""
    program = jax.jit(meta_gradient).lower(many, many_task).compile()
    return program.memory_analysis().temp_size_in_bytes / many.nbytes


def maml(num_steps, checkpoints):
    return ml.maml(smooth_loss, optax.sgd(0.1), num_steps, remat=checkpoints)


counts = np.array([64, 256, 1024])
memory = {
    "MAML, all stored": [copies(maml(int(K), checkpoints=False)) for K in counts],
    "MAML, checkpoints": [copies(maml(int(K), checkpoints=True)) for K in counts],
}

# %%
memory["ml.a_maml"] = [copies(ml.a_maml(smooth_loss, 1.0, int(K))) for K in counts]
growth = {name: values[-1] / values[0] for name, values in memory.items()}
memory_prediction.reveal(int(np.digitize(growth["MAML, checkpoints"], [2, 8])))
figures.memory(counts, memory)

# %% tags=["fold"]
assert growth["MAML, all stored"] > 14 and 1.3 < growth["ml.a_maml"] < growth["MAML, checkpoints"] < 4.5
lowest, between, highest = (np.array(memory[name]) for name in ("MAML, checkpoints", "ml.a_maml", "MAML, all stored"))
assert (lowest < between).all() and (between < highest).all()
assert all(kept < 2 * k**0.5 + 3 for kept, k in zip(lowest, counts, strict=True))
assert abs(np.ptp(between - 2 * np.sqrt(counts))) < 5  # 2 sqrt(K), and a constant
assert np.allclose(highest / counts, 5, atol=1)  # copies for each step
with_and_without = (jax.jit(maml(64, checkpoints=choice))(many, many_task)[1] for choice in (True, False))
assert jnp.allclose(*with_and_without)  # the same gradient

# %% [markdown]
# For sixteen times as many steps, the stored trajectory takes about sixteen times the memory, and checkpoints take four
# times or less. The stored trajectory needs about five copies for each step rather than one, because the compiler keeps
# intermediate results of the Hessian-vector products as well. With checkpoints MAML needs little more than the
# $2\sqrt K$ copies of the parameters calculated above, and its gradient is the same. `ml.a_maml` needs $2\sqrt K$ copies as well, and a
# constant number of them for the intermediate results of one step.

# %% [markdown]
# ## Exercise: diagnose a lost trajectory
#
# A backward pass that has lost its trajectory raises no error, so you have to look for it. In a test, where memory does
# not matter, let the backward pass record every point at which it evaluates the query gradient or a Hessian. Below you
# get such records of several runs, all with the same inner loop, and each with as many points as the inner loop has. A
# run may be right, up to rounding. It may have integrated the trajectory backwards, recomputed a segment from the wrong
# checkpoint, or overflowed. Find out which runs have lost their trajectory, and where each of them met its first wrong
# point, on its way from $\varphi_K$ back to $\varphi_0$.


# %% tags=["exercise"] exercise="08.lost_trajectory"
def lost_from(loss, task, theta, learning_rate, runs, tolerance):
    """For each run, the largest k at which it is farther from φ_k
    than the tolerance.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      theta: the initialization, shape [d].
      learning_rate: α, of the gradient steps of the inner loop.
      runs: shape [num_runs, K + 1, d]; runs[i, k] is what run i took
        for φ_k. NaN, where a run overflowed, is not within the
        tolerance. K >= 0.
      tolerance: the largest distance of a point that is right.

    Returns:
      An array of whole numbers, shape [num_runs]; -1 for a run that is
      right everywhere.
    """
    ### BEGIN SOLUTION
    phi, found = theta, np.full(len(runs), -1)
    for k in range(runs.shape[1]):
        distance = np.linalg.norm(runs[:, k] - phi, axis=1)
        found[~(distance <= tolerance)] = k  # `~`: a comparison with NaN is false
        phi = phi - learning_rate * jax.grad(loss)(phi, task.support)
    return found
    ### END SOLUTION


# %%
check("08.lost_trajectory", lost_from)

# %% [markdown]
# Here are three such runs in the valley, with 400 gradient steps in the same inner training time. The first recomputes
# the trajectory from its checkpoints, the second integrates it backwards, and the third takes a wrong checkpoint once.
# The second one goes back as carefully as possible: it finds each point from the next by solving the equation of the gradient step.

# %% tags=["fold"]
alpha, tolerance = T / 400, 1e-3
trajectory = np.asarray(inner_loop(theta, alpha, 400))
mistaken = trajectory.copy()
mistaken[300:320] = trajectory[280:300]  # the checkpoint before the right one
reversed_steps = figures.integrated_backwards(valley, task.support, jnp.asarray(trajectory[-1]), alpha, 400)
recorded = {
    "right checkpoints": trajectory,
    "integrated backwards": np.asarray(reversed_steps),
    "wrong checkpoint": mistaken,
}


@jax.jit
def gradient_along(points):
    """The backward pass of MAML with its Hessians at these points."""

    def back(p, H):
        return p - alpha * H @ p, None

    return jax.lax.scan(back, query_gradient(trajectory[-1]), jax.vmap(hessian_at)(points[:-1]), reverse=True)[0]


points = np.stack(list(recorded.values()))
first_lost = figures.lost_trajectory(valley, task, theta, alpha, points, tolerance)
broken = figures.broken_steps(valley, task.support, alpha, points).max(axis=1)
gradients = np.array([gradient_along(run) for run in points])
exact_one = jax.jit(ml.maml(valley, optax.sgd(alpha), 400))(theta, task)[1]
wrong_by = np.linalg.norm(gradients - exact_one, axis=1) / np.linalg.norm(exact_one)
figures.recorded(dict(zip(recorded, np.linalg.norm(points - trajectory, axis=2), strict=True)), first_lost, tolerance)
plots.table(
    {
        name: [
            "nowhere" if k < 0 else f"k = {k}",
            plots.number(step, 1),
            plots.number(error, 1) if error < 0.1 else "useless",
        ]
        for name, k, step, error in zip(recorded, first_lost, broken, wrong_by, strict=True)
    },
    ["run", "lost from", "largest gap to a gradient step", "relative error of ∇F"],
    title="Every step of the second run is right, and yet its trajectory is lost",
    caption="Gap: how far a point is from the result of one gradient step from the point before it. Useless: above 0.1.",
)
assert first_lost[0] == -1 and 20 < first_lost[1] < 250 and first_lost[2] == 319
assert wrong_by[0] < 1e-9 and not wrong_by[1] < 0.1 and 0.001 < wrong_by[2] < 0.1
assert broken[1] < 1e-9 and broken[2] > tolerance

# %% [markdown]
# The two mistakes look different. A wrong checkpoint puts one segment in the wrong place, and the next checkpoint puts
# it right, so the gradient is wrong but may look plausible. Integrated backwards, the trajectory drifts away, at first
# by less than anyone would notice, until it is lost altogether. A test of single steps does not find this, because the
# run obeys the equation of the gradient step everywhere. It is a trajectory, but that of another initialization, and
# only a comparison with the forward trajectory shows it.

# %% [markdown]
# ## Exercise: with a proximal term, the flow leads to iMAML
#
# Lesson 04 added a proximal term, a penalty for the distance of the adapted parameters from $\theta$. The flow can have
# one too, and then $\theta$ acts at all times, not only at the beginning. Derive the meta-gradient for a quadratic
# support loss.
#
# - **Line 1.** The flow is $d\varphi/dt = -\nabla h(\varphi) - \lambda (\varphi - \theta)$. The proximal objective, which it descends,
#   has the Hessian $H + \lambda I$, so the adjoint equation becomes $dp/dt = (H + \lambda I)\, p$ with
#   $p(T) = \nabla f(\varphi(T))$ as before.
# - **Line 2.** Displacing $\theta$ by a small vector $w$ displaces $\varphi(0)$ by $w$, which changes the final query loss by
#   $\langle p(0), w \rangle$. It also displaces $\varphi(t)$ by $\lambda w\, dt$ in every short time $dt$, which changes the
#   final query loss by $\lambda \langle p(t), w \rangle\, dt$. Both together give
#   $\;\nabla F(\theta) = p(0) + \lambda \int_0^T p(t)\, dt$.
# - **Line 3** is yours: if $H$ is constant, solve the equation of line 1 for $p(t)$, and put it into line 2.


# %% tags=["exercise"] exercise="08.proximal_flow_gradient"
def proximal_flow(hessian, query_gradient, proximal_strength, duration):
    """The meta-gradient of the gradient flow with a proximal term, for
    a support loss with a constant Hessian.

    Args:
      hessian: H, symmetric, shape [d, d]; H + λI is invertible, its
        eigenvalues may have any sign.
      query_gradient: the query gradient at the end of the flow, shape
        [d].
      proximal_strength: λ >= 0, a number.
      duration: T, the inner training time > 0, a number.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    curvatures, vectors = np.linalg.eigh(hessian)
    rates = curvatures + proximal_strength
    decay = np.exp(-duration * rates)
    factors = decay + proximal_strength * (1 - decay) / rates
    return vectors @ (factors * (vectors.T @ query_gradient))
    ### END SOLUTION


# %%
check("08.proximal_flow_gradient", proximal_flow)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# The first line gives $p(t) = e^{-(T - t) (H + \lambda I)}\, \nabla f(\varphi(T))$. With it the second one becomes
#
# $$\nabla F(\theta) = \Big(e^{-T (H + \lambda I)} + \lambda\, (H + \lambda I)^{-1} \big(I - e^{-T (H + \lambda I)}\big)\Big)\,
# \nabla f(\varphi(T)) .$$
#
# </details>

# %% [markdown]
# The two terms of line 2 trade places as $T$ grows. If all curvatures of the proximal objective are positive, $p(0)$
# dies out, and the second term becomes the linear solve of lesson 04,
# $\lambda\, (H + \lambda I)^{-1}\, \nabla f(\varphi^*)$. So the meta-gradient of this flow leads from that of MAML, for
# short inner loops, to that of iMAML, for converged ones.

# %% tags=["fold"]
proximal_strength = 0.5


def proximal_end(start, T):
    """φ(T); the initialization is part of the state, and does not move."""

    def derivative(state):
        phi, start = state
        return -H @ (phi - m) - proximal_strength * (phi - start), jnp.zeros(3)

    return runge_kutta(derivative, (start, start), T, 1_000)[0][-1]


rates, vectors = np.linalg.eigh(H + proximal_strength * np.eye(3))
implicit = ml.theory.proximal(quadratics, proximal_strength).task_gradients(start)[0]
end_of, gradient_of = jax.jit(proximal_end), jax.jit(jax.grad(lambda start, T: query_loss(proximal_end(start, T))))
training_times = np.linspace(0.5, 16, 32)
initial, accumulated, apart = [], [], []
for time in training_times:
    p_end = vectors.T @ np.asarray(jax.grad(query_loss)(end_of(start, time)))
    p_initial, integral = np.exp(-rates * time) * p_end, (1 - np.exp(-rates * time)) / rates * p_end
    total = vectors @ (p_initial + proximal_strength * integral)
    assert np.allclose(total, gradient_of(start, time), atol=1e-6)  # lines 1 to 3
    initial.append(np.linalg.norm(p_initial))
    accumulated.append(proximal_strength * np.linalg.norm(integral))
    apart.append(np.linalg.norm(total - implicit))
figures.towards_implicit(training_times, initial, accumulated, apart)
assert apart[-1] < 1e-4 < apart[0]

# %% [markdown]
# ## When is the adjoint method worth its cost?
#
# Count gradients again, with a Hessian-vector product as two. In each step MAML takes a gradient and a Hessian-vector
# product. A sweep takes four gradients for the Runge-Kutta step of its trajectory, and one or two Hessian-vector
# products. A step of `ml.a_maml` has six gradients and six Hessian-vector products. It computes the gradients three
# times: in the forward pass, when a segment is recomputed, and in the backward pass of the step. The table
# adds this up, and says how many gradients each method needs for a given relative error.

# %% tags=["fold"]
targets = (1e-2, 1e-4, 1e-6)
per_step = {"MAML": 1 + 2, "Euler sweep": 4 + 2, "Heun sweep": 4 + 2 * 2, "ml.a_maml": 6 * 3 + 6 * 2}
needed = {
    name: [per_step[name] * 1_024 * (errors[name][-1] / target) ** (1 / round(orders[name])) for target in targets]
    for name in errors
}
a_maml_order = np.log2(a_maml_errors[0] / a_maml_errors[1])
needed["ml.a_maml"] = [
    per_step["ml.a_maml"] * max(14, 64 * (a_maml_errors[1] / target) ** (1 / a_maml_order)) for target in targets
]
plots.table(
    {
        name: [f"{per_step[name]}", *(f"{float(f'{number:.1e}'):,.0f}" for number in row)]
        for name, row in needed.items()
    },
    ["method", "gradients for a step", "for an error of 1 %", "0.01 %", "0.0001 %"],
    title="For an accurate gradient of the flow, a method of high order is far cheaper",
    caption="Relative errors, extrapolated with the orders 1, 1 and 2, and with the measured one for ml.a_maml. It takes "
    "at least 14 steps, so that none is longer than 3/L, near its limit of stability.",
)
for name, method in {"MAML": "maml", "ml.a_maml": "a_maml"}.items():
    few, many = (ml.theory.cost(method, num_params=1, num_steps=K).gradients for K in (1, 2))
    assert many - few == per_step[name]  # the library counts the same
assert needed["MAML"][2] > 100 * needed["ml.a_maml"][2] and needed["MAML"][0] < 20 * needed["ml.a_maml"][0]
assert L * T < 14 * 3 and 3.45 < figures.stability_limit() < 3.55  # times 1 / L, for a step of six gradients

# %% [markdown]
# If you want an accurate gradient of the flow, a method of high order is far cheaper than many small gradient steps. At
# an error of 1 % the methods differ much less. And if a dozen gradient steps are what you want, MAML's gradient is
# exact for them, and the adjoint method has nothing to add.
#
# The adjoint method does not allow much longer steps either. A gradient step is stable up to $2/L$. A step of `ml.a_maml`
# is stable up to about $3.5/L$, but takes six gradients, so that each of them advances the time by less than $0.6/L$. A
# problem whose curvatures differ widely is called *stiff*, and there both methods have to take many steps.
#
# ## What to take away
#
# - Gradient descent is a method of order one for the gradient flow. In the limit of small steps the factors
#   $I - \alpha H_k$ become the adjoint equation $dp/dt = Hp$, integrated from $T$ to $0$.
# - The adjoint $p(t)$ is the gradient of the final query loss with respect to the point at time $t$.
# - Integrating a gradient flow backwards multiplies errors by up to $e^{LT}$. Store the trajectory, or recompute it forwards
#   from checkpoints.
# - Checkpoints need a memory proportional to $\sqrt K$, with or without an ODE.
# - A quadratic cannot tell whether an adjoint method has lost its trajectory, because its Hessian is the same everywhere.

# %%
quiz("08")

# %%
progress("08")

# %% [markdown]
# ## Limits
#
# - The gradient flow is deterministic. Inner loops with fresh batches, momentum or Adam approach other equations.
# - The valley has two parameters and was made to show the failure clearly. A network's $L$ is not known and changes along
#   the trajectory, so nothing warns you when $LT$ becomes too large.
# - $\varepsilon\, e^{LT}$ is an estimate for the worst direction, with $L$ constant. Where the curvature is smaller along
#   the way, more survives.
# - Gradient descent with momentum can be reversed exactly if the bits that rounding removes are stored
#   (Maclaurin et al., 2015). That takes memory too, but less than the points themselves.
# - The costs count gradients. How many seconds these take depends on the machine and the compiler.
#
# ## Go further
#
# - S. Li, Z. Wang, A. Narayan, R. M. Kirby, S. Zhe. *Meta-learning with adjoint methods.* AISTATS 2023.
#   [arXiv 2110.08432](https://arxiv.org/abs/2110.08432). A-MAML.
# - R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud. *Neural ordinary differential equations.* NeurIPS 2018.
#   [arXiv 1806.07366](https://arxiv.org/abs/1806.07366). The adjoint along a trajectory that is integrated backwards.
# - A. Griewank. *Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation.*
#   Optimization Methods and Software, 1992. Checkpoints, placed recursively.
# - T. Chen, B. Xu, C. Zhang, C. Guestrin. *Training deep nets with sublinear memory cost.* 2016.
#   [arXiv 1604.06174](https://arxiv.org/abs/1604.06174). Rematerialization with a memory proportional to $\sqrt K$.
# - D. Maclaurin, D. Duvenaud, R. P. Adams. *Gradient-based hyperparameter optimization through reversible learning.*
#   ICML 2015. [arXiv 1502.03492](https://arxiv.org/abs/1502.03492). Descent with momentum, made reversible by storing the
#   lost bits.
# - P. Kidger. *On neural differential equations.* 2022. [arXiv 2202.02435](https://arxiv.org/abs/2202.02435). The
#   thesis behind the library diffrax, with checkpoints and other adjoint methods.
