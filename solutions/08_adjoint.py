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
# - **derive** the adjoint equation from that product,
# - **implement** a backward sweep along a stored path, and **measure** its order,
# - **predict** the horizon at which a path integrated backwards is lost,
# - **count** what checkpoints save and what they cost.
#
# **New symbols**
#
# - $T = \alpha K$: inner training time
# - $p(t)$: adjoint

# %% tags=["imports"]
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## Small steps follow a curve
#
# One task, two parameters $u = (u_1, u_2)$. The support loss is a valley: its floor lies along a circle, its walls have
# curvature $L = 20$, and the floor slopes gently towards the angle $0$. The query loss is the same valley, sloping
# towards $130$ degrees.

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict
steepness = 20.0  # L


@jax.jit
def valley(u, batch):
    """A circular valley; each row of the batch, shape [n, 2], pulls in its direction."""
    radius = jnp.sqrt(u @ u + 0.01)  # 0.01 rounds off the tip at the centre
    return steepness / 2 * (radius - 1) ** 2 - jnp.mean(batch @ u)


def towards(degrees):
    return np.array([[np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))]])


task = ml.Task(support=towards(0.0), query=towards(130.0))
theta, horizon = jnp.asarray(1.2 * towards(140.0)[0]), 2.0


def velocity(u):
    """-grad h(u), in the precision of u."""
    return -jax.grad(valley)(u, jnp.asarray(task.support, u.dtype))


@functools.partial(jax.jit, static_argnums=2)
def descend(theta, alpha, num_steps):
    """phi_0, ..., phi_K: gradient steps on the support loss, shape [K + 1, 2]."""

    def step(phi, _):
        return phi + alpha * velocity(phi), phi

    last, path = jax.lax.scan(step, theta, length=num_steps)
    return jnp.concatenate([path, last[None]])


# %% [markdown]
# Take $K$ gradient steps of size $\alpha = T/K$, with the *horizon* $T = \alpha K$ fixed. More steps are smaller steps.
# What do they tend to? Read one step as a difference quotient:
#
# $$\frac{\phi_{k+1} - \phi_k}{\alpha} = -\nabla h(\phi_k) \qquad\longrightarrow\qquad
# \frac{du}{dt} = -\nabla h(u), \quad u(0) = \theta .$$
#
# The limit is the **gradient flow**. Adaptation ends at $u(T)$. To compute it we take a better step than the gradient
# step: the fourth-order Runge-Kutta method, which probes the slope four times a step. A negative horizon will run it
# backwards.


# %%
@functools.partial(jax.jit, static_argnums=(0, 3))
def runge_kutta(rate, state, horizon, num_steps=16_000):
    """The path of d state / dt = rate(state), at num_steps + 1 times; the state is a pytree of arrays."""
    h = horizon / num_steps

    def along(state, slope, time):
        return jax.tree.map(lambda s, r: s + time * r, state, slope)

    def step(state, _):
        a = rate(state)
        b = rate(along(state, a, h / 2))
        c = rate(along(state, b, h / 2))
        d = rate(along(state, c, h))
        mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, a, b, c, d)
        return along(state, mean, h), state

    last, path = jax.lax.scan(step, state, length=num_steps)
    return jax.tree.map(lambda path, last: jnp.concatenate([path, last[None]]), path, last)


true_path = runge_kutta(velocity, theta, horizon)
assert jnp.allclose(true_path[-1], runge_kutta(velocity, theta, horizon, 4_000)[-1], atol=1e-9)  # it has converged


def draw_valley(axes, paths):
    """Contours of the support loss, and paths on them; a path of few points is drawn with markers."""
    grid = np.linspace(-1.7, 1.7, 81)
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    heights = steepness / 2 * (np.sqrt((points**2).sum(-1) + 0.01) - 1) ** 2 - points[..., 0]
    levels = [-0.9, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0]
    axes.contour(grid, grid, heights, levels=levels, colors="0.75", linewidths=1, linestyles="-")
    for name, path in paths.items():
        axes.plot(*np.asarray(path, np.float64).T, label=name, marker="." if len(path) < 100 else "")
    axes.plot(*theta, "ko", label="start θ", markersize=7, markerfacecolor="white")
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal")
    plots.label(axes, "parameter u₁", "parameter u₂", legend=False)
    axes.legend(loc="lower left", fontsize="small", framealpha=1, edgecolor="none")


figure, (axes,) = plots.subplots(height=4.2)
draw_valley(axes, {"gradient flow": true_path, "25 gradient steps": descend(theta, horizon / 25, 25)})
plots.show(
    figure,
    alt="Contours of a circular valley. From the start at the upper left, outside the circle, the gradient flow drops to the "
    "floor and follows it clockwise. Twenty-five gradient steps zigzag across the floor at first, then follow it.",
)

# %% [markdown]
# The flow falls to the floor at once and then follows the bend. Large gradient steps overshoot the floor and zigzag.

# %%
gap_prediction = predict(
    "08.gap",
    "Twice as many steps of half the size: by what factor does the distance from the last point to u(T) shrink?",
    options=["about 1: it stays", "about 2", "about 4"],
)

# %%
counts = np.array([50, 100, 200, 400, 800])
gaps = np.array([float(jnp.linalg.norm(descend(theta, horizon / k, int(k))[-1] - true_path[-1])) for k in counts])
gap_prediction.reveal("about 2")
for k, gap in zip(counts, gaps, strict=True):
    print(f"K = {k:3d}   α = {horizon / k:.4f}   |φ_K - u(T)| = {gap:.5f}")
order = -np.polyfit(np.log(counts[2:]), np.log(gaps[2:]), 1)[0]
print(f"order {order:.2f}")
assert 0.9 < order < 1.1

# %% [markdown]
# The gap is proportional to $\alpha$. A method whose error is proportional to $\alpha^q$ has the **order** $q$, so
# gradient descent is a **first-order** method for this flow. (In lesson 03 the word meant: without second derivatives.)
# That is the view of **A-MAML** (Li, Wang, Narayan, Kirby & Zhe, 2023): if the inner loop is long, adapt by the flow
# itself, and ask for
#
# $$F(\theta) = f(u(T)), \qquad \nabla F(\theta) = \;? $$

# %% [markdown]
# ## The adjoint equation, line by line
#
# **Line 1.** Lesson 02 carried the query gradient back through one factor for each step. Give what is carried a name,
# $p$:
#
# $$p_K = \nabla f(\phi_K), \qquad p_k = (I - \alpha H_k)\, p_{k+1}, \qquad \nabla F(\theta) = p_0,$$
#
# with $H_k = \nabla^2 h(\phi_k)$.


# %%
def curvature_at(u):
    """H(u), shape [2, 2]."""
    return jax.hessian(valley)(u, task.support)


alpha, num_steps = 0.05, 40
path = descend(theta, alpha, num_steps)
hessians = jax.jit(jax.vmap(curvature_at))(path)
query_gradient = jax.jit(jax.grad(lambda u: valley(u, task.query)))

p = np.zeros((num_steps + 1, 2))
p[-1] = query_gradient(path[-1])
for k in reversed(range(num_steps)):
    p[k] = (np.eye(2) - alpha * hessians[k]) @ p[k + 1]
by_jax = jax.grad(lambda theta: valley(descend(theta, alpha, num_steps)[-1], task.query))(theta)
assert np.allclose(p[0], by_jax)
print("line 1 holds: p_0 =", p[0].round(4), "  jax.grad:", np.asarray(by_jax).round(4))

# %% [markdown]
# **Line 2.** Bring the step to one side. This is algebra, and exact:
#
# $$\frac{p_{k+1} - p_k}{\alpha} = H_k\, p_{k+1}.$$

# %% tags=["nbval-check-output"]
left = (p[1:] - p[:-1]) / alpha
right = np.einsum("kij,kj->ki", hessians[:-1], p[1:])
assert np.allclose(left, right)
print("line 2 holds at every step")

# %% [markdown]
# **Line 3.** The left side is a difference quotient. As $\alpha$ becomes small, it becomes the **adjoint equation**:
#
# $$\boxed{\;\frac{dp}{dt} = H(u(t))\, p, \qquad p(T) = \nabla f(u(T)), \qquad \nabla F(\theta) = p(0)\;}$$
#
# It starts at $T$ and is solved towards $0$. To check it without trusting it: $p(t)$ must be the gradient of the final
# query loss with respect to $u(t)$, the point at time $t$. JAX can compute that for any $t$.


# %%
@jax.jit
def carried(u, remaining):
    """The gradient, in u, of the query loss after flowing on from u for the remaining time."""
    return jax.grad(lambda u: valley(runge_kutta(velocity, u, remaining, 1_000)[-1], task.query))(u)


@jax.jit
def position(t):
    return runge_kutta(velocity, theta, t, 1_000)[-1]


def p_at(t):
    return carried(position(t), horizon - t)


for t in (0.1, 0.7, 1.6):
    quotient = (p_at(t + 1e-4) - p_at(t - 1e-4)) / 2e-4
    assert jnp.allclose(quotient, curvature_at(position(t)) @ p_at(t), rtol=1e-4, atol=1e-5)
exact = p_at(0.0)
print("line 3 holds at three times; p(0) =", np.asarray(exact).round(4))

# %%
arrow_prediction = predict(
    "08.survives",
    "At the end, p has a part across the valley and a part along its floor. What reaches the start?",
    options=["both parts, shortened alike", "mostly the part across the valley", "mostly the part along the floor"],
)

# %%
times = np.linspace(0, horizon, 6)
places = np.array([position(t) for t in times])
arrows = np.array([p_at(t) for t in times])
arrow_prediction.reveal("mostly the part along the floor")
figure, (axes,) = plots.subplots(height=4.2)
draw_valley(axes, {"path u(t)": true_path})
axes.quiver(*places.T, *arrows.T, angles="xy", scale_units="xy", scale=4, width=0.006, color=plots.COLORS[1], zorder=4)
axes.set_title("arrows: p(t), a quarter as long", fontsize="small")
plots.show(
    figure,
    alt="The path along the circular valley with arrows for p at six times. At the end the arrow is longest and has a part "
    "across the valley. All earlier arrows lie along the floor, shortest in the middle.",
)

# %% [markdown]
# Read the arrows from the end of the path to the start. The part of $p$ across the valley is gone at once: the steep
# walls forget every nudge. What reaches the start lies along the floor. There $p$ first shrinks, where the floor curves
# upwards, and then grows a little, where it curves downwards.

# %%
floor_direction = np.stack([-places[:, 1], places[:, 0]], axis=-1) / np.linalg.norm(places, axis=1, keepdims=True)
lengths = np.linalg.norm(arrows, axis=1)
along_floor = np.abs((arrows * floor_direction).sum(-1)) / lengths
print("from the end to the start")
print("  |p|                  ", lengths[::-1].round(2))
print("  share along the floor", along_floor[::-1].round(3))
assert (along_floor[:-1] > 0.98).all() and along_floor[-1] < 0.9
assert lengths[-1] > lengths[0] > lengths.min()

# %% [markdown]
# **Line 4, a quadratic.** If $h$ has a constant Hessian $H$ and minimum $m$, both equations have closed solutions, with
# the matrix exponential $e^{-TH}$, the limit of $(I - \frac{T}{K} H)^K$:
#
# $$u(T) = m + e^{-TH} (\theta - m), \qquad p(0) = e^{-TH}\, p(T).$$

# %%
quadratics = ml.tasks.Quadratic(dim=3)(jax.random.key(0), 4)
closed = ml.theory.flow(quadratics, horizon)  # its `jacobian` is exp(-T H), for each of four tasks
for num_steps in (100, 1_000, 10_000):
    power = ml.theory.unrolled(quadratics, horizon / num_steps, num_steps).jacobian
    print(
        f"K = {num_steps:6d}   distance of the product of factors from exp(-TH): {abs(power - closed.jacobian).max():.1e}"
    )
assert abs(power - closed.jacobian).max() < 1e-3

# The two formulas, for the first task, against Runge-Kutta and jax.grad.
H, m = quadratics.support.hessian[0], quadratics.support.minimum[0]
start = jnp.array([1.0, -2.0, 0.5])


def query_loss(u):
    return ml.tasks.Quadratic.loss(u, jax.tree.map(lambda leaf: leaf[0], quadratics.query))


def flow_to_end(start):
    return runge_kutta(lambda u: -H @ (u - m), start, horizon, 1_000)[-1]


end = flow_to_end(start)
p_start = closed.jacobian[0] @ jax.grad(query_loss)(end)
assert np.allclose(end, m + closed.jacobian[0] @ (start - m))
assert np.allclose(p_start, jax.grad(lambda start: query_loss(flow_to_end(start)))(start))
print("p(0) = exp(-TH) p(T):   ", p_start.round(4))
print("p(0), by ml.theory.flow:", closed.task_gradients(start)[0].round(4))

# %% [markdown]
# **Line 5, why "adjoint".** Move the start by a small $\delta(0)$. Linearised, the flow moves the nudge by
# $d\delta/dt = -H\delta$. Now
#
# $$\frac{d}{dt}\, \big(p \cdot \delta\big) = (Hp) \cdot \delta - p \cdot (H\delta) = 0,$$
#
# because $H$ is symmetric. So $p(0) \cdot \delta(0) = p(T) \cdot \delta(T)$: the left side is the change of $F$ as seen
# from the start, the right side as seen from the end. $\delta$ travels forwards, $p$ backwards, and their product never
# changes. So the matrix that takes $p(T)$ to $p(0)$ is the transpose of the one that takes $\delta(0)$ to $\delta(T)$.
# The transpose is also called the *adjoint*.

# %%
products = []
for t in (0.0, 0.5, 1.0, 2.0):
    delta = jax.jvp(lambda u, t=t: runge_kutta(velocity, u, t, 1_000)[-1], (theta,), (jnp.array([0.3, -1.0]),))[1]
    products.append(float(p_at(t) @ delta))
print("p · δ at four times:", np.round(products, 6))
assert np.allclose(products, products[0], rtol=1e-6)

# %% [markdown]
# ## Exercise: adapt by the flow, in closed form
#
# The support loss is $\frac12 (u - m)^\top H (u - m)$, the query loss $\frac12 (u - q)^\top A\, (u - q)$. Write the
# meta-gradient. `np.linalg.eigh` gives the matrix exponential of a symmetric matrix: the eigenvectors stay, each
# eigenvalue is mapped.


# %% tags=["exercise"] exercise="08.flow_gradient"
def flow_gradient(
    support_hessian,
    support_minimum,
    query_hessian,
    query_minimum,
    start,
    horizon,
):
    """The gradient, in the start, of the query loss after the gradient
    flow of the support loss.

    Args:
      support_hessian: H, symmetric, shape [d, d].
      support_minimum: m, shape [d].
      query_hessian: A, symmetric, shape [d, d].
      query_minimum: q, shape [d].
      start: theta, shape [d].
      horizon: T > 0, a number.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    eigenvalues, vectors = np.linalg.eigh(support_hessian)
    J = vectors @ np.diag(np.exp(-horizon * eigenvalues)) @ vectors.T
    adapted = support_minimum + J @ (start - support_minimum)
    return J @ query_hessian @ (adapted - query_minimum)
    ### END SOLUTION


# %%
check("08.flow_gradient", flow_gradient)

# %% [markdown]
# ## Back along a stored path
#
# Away from quadratics the adjoint equation needs a solver. Suppose the points $u_0, u_1, \dots, u_K$ were stored, at
# times $s$ apart. Going back from $u_{k+1}$ to $u_k$,
#
# - an **Euler** step uses the slope where it begins: $\;p \leftarrow p - s\,a$, with $a = H(u_{k+1})\, p$;
# - a **Heun** step also looks where Euler would arrive: $b = H(u_k)\,(p - s\,a)$. Then it goes back with the mean of the
#   two slopes.
#
# Both $a$ and $b$ are Hessian-vector products. No Hessian matrix is formed.

# %% [markdown]
# ## Exercise: one backward sweep
#
# Write the sweep with Heun steps, from $p(T)$ to $p(0)$.


# %% tags=["exercise"] exercise="08.adjoint_sweep"
def adjoint_sweep(loss, task, path, step_size):
    """The adjoint equation, solved from the end of a stored path to its
    start with Heun steps.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      path: array of shape [K + 1, d], the points at times 0, s, ...,
        K s.
      step_size: s, a number.

    Returns:
      An array of shape [d], the meta-gradient p(0).
    """

    ### BEGIN SOLUTION
    def hessian_times(u, vector):
        return jax.jvp(lambda u: jax.grad(loss)(u, task.support), (u,), (vector,))[1]

    p = jax.grad(loss)(path[-1], task.query)
    for k in reversed(range(len(path) - 1)):
        a = hessian_times(path[k + 1], p)
        b = hessian_times(path[k], p - step_size * a)
        p = p - step_size * (a + b) / 2
    return p
    ### END SOLUTION


# %%
check("08.adjoint_sweep", adjoint_sweep)

# %% [markdown]
# How accurate is a sweep with $K$ steps? Four ways to the meta-gradient of the flow, each with $K$ steps, against
# $p(0)$:
#
# - MAML: $K$ gradient steps, differentiated. It is exact for these steps, which are not the flow.
# - An Euler sweep, and a Heun sweep, along a path that Runge-Kutta stored.
# - `ml.a_maml`, the library's A-MAML. It steps with a fifth-order method (Tsitouras) and carries $p$ back through the
#   transposed steps.

# %%
order_prediction = predict(
    "08.order",
    "From K to 4K steps: by what factor does the error of the Heun sweep shrink?",
    options=["about 4", "about 16", "about 64"],
)


# %%
@functools.partial(jax.jit, static_argnums=(1, 2))
def sweep(theta, num_steps, heun):
    """p(0) by Heun or Euler steps along a path stored by Runge-Kutta."""
    h = horizon / num_steps
    path = runge_kutta(velocity, theta, horizon, num_steps)
    hessians = jax.vmap(curvature_at)(path)  # for two parameters the matrices are small

    def back(p, ends):
        before, after = ends
        a = after @ p
        b = before @ (p - h * a)
        return p - h * ((a + b) / 2 if heun else a), None

    return jax.lax.scan(back, query_gradient(path[-1]), (hessians[:-1], hessians[1:]), reverse=True)[0]


def relative_error(gradient):
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))


counts = np.array([64, 128, 256, 512, 1024])
ways = {
    "MAML, K gradient steps": lambda k: ml.maml(valley, optax.sgd(horizon / k), k)(theta, task)[1],
    "Euler sweep": lambda k: sweep(theta, k, False),
    "Heun sweep": lambda k: sweep(theta, k, True),
}
errors = {
    name: np.array([relative_error(jax.jit(way, static_argnums=0)(int(k))) for k in counts])
    for name, way in ways.items()
}
orders = {name: -np.polyfit(np.log(counts[2:]), np.log(values[2:]), 1)[0] for name, values in errors.items()}
order_prediction.reveal("about 16")
for name in ways:
    print(f"{name}: order {orders[name]:.2f}, errors")
    print("   ", " ".join(f"{error:.1e}" for error in errors[name]))
assert abs(orders["Euler sweep"] - 1) < 0.1 and abs(orders["Heun sweep"] - 2) < 0.1
assert abs(orders["MAML, K gradient steps"] - 1) < 0.1

# %%
a_maml = {k: jax.jit(ml.a_maml(valley, horizon, k)) for k in (32, 64)}
a_maml_errors = np.array([relative_error(meta_gradient(theta, task)[1]) for meta_gradient in a_maml.values()])
a_maml_order = np.log2(a_maml_errors[0] / a_maml_errors[1])
print("ml.a_maml with 32 and 64 steps:", " ".join(f"{e:.1e}" for e in a_maml_errors), f"  order {a_maml_order:.1f}")
assert a_maml_errors[1] < errors["Heun sweep"][-1] and a_maml_order > 4.5
plots.show(
    plots.lines(
        counts,
        errors,
        "steps K",
        "relative error of ∇F",
        log="xy",
        points={"ml.a_maml, 64 steps": (64, a_maml_errors[1])},
    ),
    alt="Relative error against the number of steps, both axes logarithmic. MAML and the Euler sweep fall with slope one, the "
    "sweep a little higher, the Heun sweep with slope two. A-MAML's mark at 64 steps lies below all of them.",
)

# %% [markdown]
# First order, first order, second order. A-MAML with 64 steps has a smaller error than all others with 1,024. Its
# gradient is also the exact gradient of the value that it returns, however few the steps, because its way back is the
# transpose of its way forwards. A sweep that we discretise ourselves has an error of its own.

# %%
meta_gradient, shift = a_maml[32], 1e-5 * np.eye(2)
by_difference = [float(meta_gradient(theta + s, task)[0] - meta_gradient(theta - s, task)[0]) / 2e-5 for s in shift]
assert np.allclose(by_difference, meta_gradient(theta, task)[1], rtol=1e-6)
print("differences of the value:", np.round(by_difference, 6))
print("gradient:                ", meta_gradient(theta, task)[1].round(6))

# %% [markdown]
# ## The tempting way: run the flow backwards
#
# The sweep asks for $u(t)$ from $T$ down to $0$. Storing the path costs memory: one copy of the parameters for each
# step. But we know $u(T)$, and an ODE can be run backwards:
#
# $$\frac{du}{dt} = -\nabla h(u) \quad\text{from } T \text{ to } 0.$$
#
# Start at $u(T)$ with $p(T)$, take both back together, store nothing. This is how neural ODEs, networks whose layers are
# the steps of an ODE, were first trained, and solver libraries offer it (`BacksolveAdjoint` in diffrax). Does it work
# for a gradient flow?
#
# Take one parameter and a parabola with curvature $L$ and minimum $m$. No solver is to blame here: both
# directions have a formula.
#
# $$u(T) = m + e^{-LT} (\theta - m), \qquad\qquad \theta = m + e^{+LT} (u(T) - m).$$

# %%
lost_prediction = predict(
    "08.lost",
    "In float64, numbers near 1 are rounded to about 2e-16. From which LT on is nothing left of the start? "
    "(It helps that ln 10 is 2.3.)",
)


# %%
def there_and_back(product, dtype):
    """Relative error of the start after the formula forwards and the formula backwards; m = 1, theta = 2."""
    minimum, start, growth = dtype(1), dtype(2), np.exp(dtype(product))
    end = minimum + (start - minimum) / growth
    back = minimum + (end - minimum) * growth
    return float(abs(back - start) / (start - minimum))


lost = {dtype: -np.log(np.finfo(dtype).eps) for dtype in (np.float64, np.float32)}
lost_prediction.reveal(lost[np.float64])
for dtype, limit in lost.items():
    found = {product: there_and_back(product, dtype) for product in (5, 10, 15, 20, 30, 38)}
    print(f"{dtype.__name__}, lost at {limit:.0f}")
    print("  LT   ", " ".join(f"{product:6d}" for product in found))
    print("  error", " ".join(f"{error:6.0e}" for error in found.values()))
    assert there_and_back(limit - 5, dtype) < 0.02 and there_and_back(limit + 2, dtype) == 1
print(f"bfloat16 would lose it at {-np.log(float(jnp.finfo(jnp.bfloat16).eps)):.0f}")

# %% [markdown]
# The flow forgets: it presses all starts together by $e^{-LT}$. Going back must pull them apart by $e^{+LT}$, and pulls
# apart the rounding errors too. All is lost when
#
# $$\varepsilon\, e^{LT} = 1, \qquad\text{that is}\qquad LT = \ln (1 / \varepsilon).$$
#
# A long inner loop with steps of half the stable size, $\alpha = 1/L$, has $LT = K$. A hundred such steps are beyond
# float64.

# %% [markdown]
# ## The same in the valley
#
# In the valley the horizon was $T = 2$, and $LT = 40$. Runge-Kutta with 16,000 steps took $\theta$ to $u(T)$. Take it
# back to $0$ with the same method and the same steps.

# %%
path_prediction = predict(
    "08.path",
    "The way back: where does it go?",
    options=[
        "back to the start, with a small error",
        "along the floor to the angle of the start, but not to the start",
        "it leaves the floor before it reaches the start",
    ],
)

# %%
returned = runge_kutta(velocity, true_path[-1], -horizon)
largest = np.array(jax.vmap(lambda u: jnp.linalg.eigvalsh(curvature_at(u))[-1])(true_path))
off = np.linalg.norm(returned - true_path[::-1], axis=1)
left_at = horizon * (1 - (off > 0.1).argmax() / (len(off) - 1))
print(
    f"mean over the path of the largest curvature: {largest.mean():.1f}, so LT is about {largest.mean() * horizon:.0f}"
)
print(f"more than 0.1 away from the true path from t = {left_at:.2f} down")
print(f"{off[-1]:.2g} away at t = 0")
path_prediction.reveal("it leaves the floor before it reaches the start")
assert off[-1] > 0.5 and 0 < (off > 0.1).argmax() < len(off) - 200
figure, (axes,) = plots.subplots(height=4.2)
draw_valley(axes, {"true path": true_path, "integrated backwards": returned})
plots.show(
    figure,
    alt="The true path along the circular valley, and the path integrated backwards from its end. The second follows the first "
    "along most of the floor, leaves it shortly before the start, and ends far away: out of the picture or, on another "
    "machine, at the centre.",
)

# %% [markdown]
# Forwards, the walls hold the path on the floor. Backwards, they push it off: the floor has become a ridge. A rounding
# error picks the side.
#
# Move the slider, and change the precision. **The parabola was lost at 36 in float64 and at 16 in float32. Is the
# valley lost at the same $LT$?** The left picture shows the way back. The right one shows how far from the start it
# ends; the straight line is $\varepsilon\, e^{LT}$.

# %%
products = np.arange(1.0, 46.0)


@functools.partial(jax.jit, static_argnums=(1, 2))
def round_trip(product, dtype, num_steps):
    """The way back, for the horizon at which LT is `product`, shape [num_steps + 1, 2]."""
    horizon = jnp.asarray(product / steepness, dtype)
    end = runge_kutta(velocity, theta.astype(dtype), horizon, num_steps)[-1]
    return runge_kutta(velocity, end, -horizon, num_steps)


dtypes = {"float64": jnp.float64, "float32": jnp.float32}


def miss(product, precision, num_steps=16_000):
    return float(np.linalg.norm(round_trip(float(product), dtypes[precision], num_steps)[-1] - theta))


misses = {precision: np.array([miss(product, precision) for product in products]) for precision in dtypes}


def draw_round_trip(LT, precision):
    figure, (left, right) = plots.subplots(2, height=3.7)
    way_back = round_trip(float(LT), dtypes[precision], 16_000)
    true_path = runge_kutta(velocity, theta, LT / steepness)
    draw_valley(left, {"true path": true_path[::20], "way back": way_back[::20]})  # the eye needs no more points
    rounding = np.exp(products) * float(jnp.finfo(dtypes[precision]).eps)
    plots.lines(
        products,
        {"measured": misses[precision], "ε exp(LT)": rounding},
        "LT",
        "distance from the start",
        points={"this LT": (LT, misses[precision][int(LT) - 1])},
        log="y",
        ylim=(1e-17, 1e3),
        axes=right,
    )
    return figure


explore(
    draw_round_trip,
    "Left, the valley with the true path and the way back; right, the distance from the start at the end of the way back "
    "against LT, on a logarithmic axis, with the line that rounding predicts.",
    LT=(1, 45, 1, 20),
    precision=list(dtypes),
)

# %%
for precision, dtype in dtypes.items():
    limit = -np.log(float(jnp.finfo(dtype).eps))
    first = products[(misses[precision] > 0.5).argmax()]
    print(f"{precision}: lost from LT = {first:.0f} on; rounding alone predicts {limit:.0f}")
    assert limit - 5 < first < limit + 5
    assert np.mean(misses[precision] < np.exp(products - limit)) > 0.5
for num_steps in (400, 1_000, 4_000, 16_000):
    coarse = {product: miss(product, "float64", num_steps) for product in (20, 30)}
    print(f"float64 with {num_steps:6,d} steps:  ", "   ".join(f"LT {k}: {error:.0e}" for k, error in coarse.items()))
assert miss(20, "float64", 400) > 100 * miss(20, "float64", 4_000) and miss(30, "float64", 400) > 0.5

# %% [markdown]
# Yes, nearly. With fewer steps the way back is lost earlier, because errors of the solver grow in the same way as those of
# rounding. More steps help until rounding is all that is left: compare 4,000 and 16,000. The straight line is an estimate;
# the measured curve runs mostly below it.

# %% [markdown]
# ## And its gradient
#
# Below, $u$ and $p$ are taken back together, and the result is compared with the gradient through the way forwards.

# %%
wrong_prediction = predict(
    "08.wrong_gradient",
    "How wrong is the gradient of the way back that stores nothing, at LT = 40?",
    options=["below 1 %", "between 1 % and 10 %", "above 10 %"],
)


# %%
@functools.partial(jax.jit, static_argnums=0)
def both_ways(loss, theta, horizon):
    """(start and p(0) with u and p integrated backwards together, p(0) by differentiating the way forwards)."""

    def flow(u):
        return runge_kutta(lambda u: -jax.grad(loss)(u, task.support), u, horizon)[-1]

    def rate(state):
        u, p = state
        return -jax.grad(loss)(u, task.support), jax.hessian(loss)(u, task.support) @ p

    u = flow(theta)
    path, p = runge_kutta(rate, (u, jax.grad(loss)(u, task.query)), -horizon)
    return path[-1], p[-1], jax.grad(lambda theta: loss(flow(theta), task.query))(theta)


def gradient_error(loss, product):
    """(distance from the start, relative error of the gradient) of the way back that stores nothing."""
    start, backwards, forwards = both_ways(loss, theta, product / steepness)
    return float(np.linalg.norm(start - theta)), float(np.linalg.norm(backwards - forwards) / np.linalg.norm(forwards))


valley_errors = {product: gradient_error(valley, product) for product in (10, 20, 30, 40)}
for product, (distance, wrong) in valley_errors.items():
    print(f"LT = {product}: {distance:.0e} away from the start, the gradient off by {wrong:.0e}")
wrong_prediction.reveal("above 10 %")
assert valley_errors[20][1] < 1e-4 and not valley_errors[40][1] < 0.1  # "not <": it may be NaN

# %% [markdown]
# At $LT = 20$ all is well. At $40$ the gradient is useless, and no error is raised: the adjoint equation along that path
# uses Hessians from places where adaptation has never been. Which wrong answer comes out depends on the side that rounding
# picks: near the centre the loss curves downwards, and there $p$ grows on the way back.
#
# Would a test have found it? A quadratic with an exact answer is the test that comes to mind first. Take one with
# curvatures $20$ and $1$, and the same $LT = 40$.

# %%
quadratic_prediction = predict(
    "08.quadratic",
    "On this quadratic, what does the way back that stores nothing get wrong?",
    options=["nothing", "the path, not the gradient", "the gradient, not the path", "both"],
)


# %%
@jax.jit
def bowl(u, batch):
    """Curvatures 20 and 1; the minimum is the mean of the batch."""
    return jnp.sum(jnp.array([steepness, 1.0]) * (u - batch.mean(0)) ** 2) / 2


distance, wrong = gradient_error(bowl, 40)
quadratic_prediction.reveal("the path, not the gradient")
print(f"{distance:.0e} away from the start, the gradient off by {wrong:.0e}")
assert distance > 0.5 and wrong < 1e-6

# %% [markdown]
# The path is lost and the gradient is right, because the Hessian is the same everywhere: it does not matter where you
# think you are. **A test on a quadratic passes.** Test an adjoint on a curved valley with a large $LT$.

# %% [markdown]
# ## Exercise: how far back can you see?
#
# The end of the flow is known up to an error of a given length, in an unknown direction. The Hessian is constant. How
# long may the horizon be if the start that you compute from it must not miss by more than a tolerance?


# %% tags=["exercise"] exercise="08.longest_horizon"
def longest_horizon(hessian, error, tolerance):
    """The longest T at which no error of that length in u(T) becomes
    longer than the tolerance at time 0.

    Args:
      hessian: symmetric, shape [d, d]; at least one eigenvalue is
        positive.
      error: length of the error in u(T), a positive number.
      tolerance: length of the error allowed at time 0, larger than
        `error`.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    largest = np.linalg.eigvalsh(hessian)[-1]
    return np.log(tolerance / error) / largest
    ### END SOLUTION


# %%
check("08.longest_horizon", longest_horizon)

# %% [markdown]
# ## Checkpoints
#
# So the path must be stored. Not all of it at once, though. Keep every $c$-th point on the way forwards, as a
# *checkpoint*. On the way back take the segments from the last to the first: walk the segment **forwards** again from
# its checkpoint, sweep back along it, forget it. Walked forwards again, a segment gives the same points as the first
# time.

# %% [markdown]
# ## Exercise: the bill for checkpoints
#
# $K$ gradient steps, with a checkpoint at every $c$-th step, from step $0$ on. Every segment is walked again, the last
# one too; one that is walked again adds $c$ points. Count a Hessian-vector product as two gradients, as in lesson 03.


# %% tags=["exercise"] exercise="08.checkpoint_bill"
def checkpoint_bill(num_steps, spacing):
    """What one task's meta-gradient costs with checkpoints.

    Args:
      num_steps: K, a multiple of `spacing`.
      spacing: c, the number of steps in a segment.

    Returns:
      (points, gradients), two whole numbers. Points: the most that are
      in memory at a time, checkpoints and one segment. Gradients: the
      way forwards, the segments walked again, the query loss and the
      way back.
    """
    ### BEGIN SOLUTION
    points = num_steps // spacing + spacing
    walks, back = 2 * num_steps, 2 * num_steps
    return points, walks + 1 + back
    ### END SOLUTION


# %%
check("08.checkpoint_bill", checkpoint_bill)

# %% [markdown]
# The gradients do not depend on $c$. The points do, and there is a best spacing.

# %% tags=["nbval-check-output"]
num_steps = 1_024
spacings = 2 ** np.arange(11)
for spacing in spacings[2:9]:
    print(f"spacing {spacing:3d}   points {num_steps // spacing + spacing:4d}")
fewest = num_steps // spacings + spacings
assert spacings[fewest.argmin()] == np.sqrt(num_steps) and fewest.min() == 2 * np.sqrt(num_steps)

# %% [markdown]
# The fewest points are $2\sqrt K$, at $c = \sqrt K$. The price is a third more gradients.
#
# Checkpoints owe nothing to the ODE: MAML can have them too. Lesson 07 called it rematerialised, `ml.maml(..., remat=True)`,
# with $c \approx \sqrt K$. The figure compares it with MAML without checkpoints, and with `ml.a_maml`, which keeps its
# checkpoints in the same way. The compiler says how much working memory each program needs.

# %%
memory_prediction = predict(
    "08.memory",
    "From K = 64 to K = 1024 steps: by what factor does the memory of MAML with checkpoints grow?",
    options=["about 1", "about 4", "about 16"],
)


# %%
jax.clear_caches()  # frees the memory of the programs above


def smooth_loss(params, batch):
    return jnp.mean(jnp.log(jnp.cosh(params - batch)))


many = jnp.zeros(2_000)
many_task = ml.Task(many[None] + 1, many[None] + 1)


def maml(num_steps, checkpoints):
    return ml.maml(smooth_loss, optax.sgd(0.1), num_steps, remat=checkpoints)


def copies(meta_gradient):
    """Working memory of the compiled program, in copies of the parameters."""
    program = jax.jit(meta_gradient).lower(many, many_task).compile()
    return program.memory_analysis().temp_size_in_bytes / many.nbytes


counts = np.array([64, 256, 1024])
memory = {
    "MAML, path stored": [copies(maml(int(k), checkpoints=False)) for k in counts],
    "MAML with checkpoints": [copies(maml(int(k), checkpoints=True)) for k in counts],
}

# %%
memory["ml.a_maml"] = [copies(ml.a_maml(smooth_loss, 1.0, int(k))) for k in counts]
growth = {name: values[-1] / values[0] for name, values in memory.items()}
memory_prediction.reveal("about 4")
for name, values in memory.items():
    print(f"{name:22s}", "  ".join(f"K = {k}: {value:6.0f}" for k, value in zip(counts, values, strict=True)))
assert growth["MAML, path stored"] > 14 and 1.3 < growth["ml.a_maml"] < growth["MAML with checkpoints"] < 4.5
lowest, between, highest = (
    np.array(memory[name]) for name in ("MAML with checkpoints", "ml.a_maml", "MAML, path stored")
)
assert (lowest < between).all() and (between < highest).all()
assert all(kept < 2 * k**0.5 + 3 for kept, k in zip(memory["MAML with checkpoints"], counts, strict=True))
with_and_without = (jax.jit(maml(64, checkpoints=choice))(many, many_task)[1] for choice in (True, False))
assert jnp.allclose(*with_and_without)  # the same gradient

# %%
plots.show(
    plots.lines(counts, memory, "steps K", "memory (copies of parameters)", log="xy"),
    alt="Working memory against the number of steps, both axes logarithmic. MAML with a stored path rises with slope one. MAML "
    "with checkpoints lies lowest and rises with about half that slope. A-MAML lies between the two, nearer to the lower "
    "one, and is the flattest.",
)

# %% [markdown]
# Sixteen times the steps: a stored path takes about sixteen times the memory, checkpoints four times or less. They turn a
# memory that is proportional to $K$ into one that is proportional to $\sqrt K$. A copy for each step would be 1,024 for the
# longest loop. The compiler keeps about five for each: besides the path, presumably what the Hessian-vector products need.
# `remat=True` keeps little more than the $2\sqrt K$ points of the exercise: it repeats each
# step of a segment a second time on the way back, for $K$ gradients more than your bill.

# %% [markdown]
# ## With a pull, and all the way to iMAML
#
# Lesson 04 pulled the adapted parameters towards the start, with strength $\lambda$. Let the flow do the same:
# $du/dt = -\nabla h(u) - \lambda (u - \theta)$. Now $\theta$ acts at all times, not only as the start, and the gradient
# gets a second part:
#
# $$\begin{aligned}
# \frac{dp}{dt} &= (H + \lambda I)\, p, \\
# \nabla F(\theta) &= p(0) + \lambda \int_0^T p\, dt
# \;\longrightarrow\; \lambda\, (H + \lambda I)^{-1}\, \nabla f \quad (T \to \infty).
# \end{aligned}$$
#
# The second part in words: during a short time $dt$, moving $\theta$ by $\delta$ moves $u$ by $\lambda\, \delta\, dt$, and
# $p(t)$ says what that is worth at the end. In the limit, $H$ and $\nabla f$ are taken where the flow comes to rest.
#
# As $T$ grows, $p(0)$ dies out and the integral becomes the solve of iMAML. Once more the first quadratic task:

# %%
strength = 0.5


def pulled_flow(start, T):
    """u(T); the start is part of the state, and does not move."""

    def rate(state):
        u, start = state
        return -H @ (u - m) - strength * (u - start), jnp.zeros(3)

    return runge_kutta(rate, (start, start), T, 1_000)[0][-1]


rates, vectors = np.linalg.eigh(H + strength * np.eye(3))
for T in (1.0, 4.0, 16.0):
    p_end = np.asarray(jax.grad(query_loss)(pulled_flow(start, T)))
    times = np.linspace(0, T, 4_001)
    p = (np.exp(-rates * (T - times[:, None])) * (vectors.T @ p_end)) @ vectors.T  # solves dp/dt = (H + strength I) p
    pulled = p[0] + strength * np.trapezoid(p, times, axis=0)
    assert np.allclose(pulled, jax.grad(lambda start, T=T: query_loss(pulled_flow(start, T)))(start), atol=1e-5)
    implicit = ml.theory.proximal(quadratics, strength).task_gradients(start)[0]
    distance = np.linalg.norm(pulled - implicit)
    print(f"T = {T:4.0f}   |p(0)| = {np.linalg.norm(p[0]):.1e}   distance from iMAML's gradient {distance:.1e}")
assert np.allclose(pulled, implicit, atol=1e-4)

# %% [markdown]
# ## When is it worth it?
#
# Count gradients, with a Hessian-vector product as two. MAML takes about $3K$. The Euler sweep takes $6K$ and the Heun
# sweep $8K$; $4K$ of each are for the Runge-Kutta path. `ml.a_maml` takes $30K$ by its docstring. To get within a given error of the gradient of the flow, extrapolated from
# $K = 1{,}024$ with the order measured above:

# %%
print("gradients needed for a relative error of       1e-2       1e-4       1e-6")
for name, cost in {"MAML, K gradient steps": 3, "Euler sweep": 6, "Heun sweep": 8}.items():
    needed = [cost * 1024 * (errors[name][-1] / target) ** (1 / round(orders[name])) for target in (1e-2, 1e-4, 1e-6)]
    print(f"{name:40s}", " ".join(f"{number:10,.0f}" for number in needed))
print(f"ml.a_maml with 64 steps takes {30 * 64:,} gradients and has an error of {a_maml_errors[1]:.0e}")
assert 3 * 1024 * errors["MAML, K gradient steps"][-1] / a_maml_errors[1] > 100 * 30 * 64

# %% [markdown]
# So if the flow is what you want, a method of high order is far cheaper; at one per cent, gradient steps will do. If a
# dozen gradient steps are what you want, MAML's gradient is already exact for them, and A-MAML has nothing to offer.
#
# One thing it does not buy is a longer stride for the same work. A gradient step is stable up to $2/L$. A step of
# `ml.a_maml` is stable up to about $3/L$, by its docstring, and takes six gradients: $1/(2L)$ for each. Where
# curvatures differ widely, both stay expensive.

# %% [markdown]
# ## Limits
#
# - The flow is deterministic. Inner loops with fresh batches, momentum or Adam follow other equations.
# - A network's $L$ is not known, and changes along the path. Nobody tells you that $LT$ has passed 36, float64's limit.
# - The valley has two parameters. It was made to show the failure clearly.
# - Storing what rounding throws away makes a descent with momentum reversible after all (Maclaurin et al., 2015). It
#   stores bits instead of points.
# - The authors' experiments were not repeated here. Their released code stores the path, as the sweep above does.
#
# ## What to take away
#
# - Gradient descent is a first-order method for the gradient flow. Its factors $(I - \alpha H_k)$ become $dp/dt = Hp$,
#   solved from $T$ to $0$.
# - $p(t)$ is the gradient of the final loss with respect to the point at time $t$.
# - Going back along a gradient flow multiplies errors by up to $e^{LT}$. Store the path, or walk it forwards again.
# - With checkpoints the memory grows like $\sqrt K$. It costs one or two more walks, with or without an ODE.
# - A quadratic cannot tell whether an adjoint method has lost its path: the Hessian is the same everywhere.

# %%
quiz("08")

# %%
progress("08")

# %% [markdown]
# ## References
#
# - S. Li, Z. Wang, A. Narayan, R. M. Kirby, S. Zhe. *Meta-learning with adjoint methods.* AISTATS 2023.
#   [arXiv 2110.08432](https://arxiv.org/abs/2110.08432). A-MAML.
# - R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud. *Neural ordinary differential equations.* 2018.
#   [arXiv 1806.07366](https://arxiv.org/abs/1806.07366). The adjoint along a path integrated backwards.
# - D. Maclaurin, D. Duvenaud, R. P. Adams. *Gradient-based hyperparameter optimization through reversible learning.* 2015.
#   [arXiv 1502.03492](https://arxiv.org/abs/1502.03492). Descent made reversible by storing the lost bits.
# - P. Kidger. *On neural differential equations.* 2022. [arXiv 2202.02435](https://arxiv.org/abs/2202.02435). The
#   thesis behind diffrax, with checkpoints and the other ways back.
