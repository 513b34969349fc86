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
# - **prove** that the curvature of a meta-objective grows with its gradient,
# - **derive** how long a step may then be,
# - **implement** clipping, and the normalised step with momentum in the right order,
# - **measure** the smoothness along a training run, and **predict** which outer rule survives it.
#
# **New symbols**
#
# - $L_0$, $L_1$: generalized smoothness
# - $\beta$: momentum

# %% tags=["imports"]
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## A tame loss, and what one step of adaptation makes of it
#
# One task, one parameter. Support and query loss are the same wave on a parabola:
#
# $$f(z) = \tfrac12 z^2 + 0.9 \cos z .$$
#
# Its curvature $1 - 0.9 \cos z$ lies between $0.1$ and $1.9$, wherever you are. Plain gradient descent on $f$ may take
# any step below $2 / 1.9$. Now let the task take one inner step first. The meta-objective is
#
# $$F(x) = f(y), \qquad y = x - \alpha f'(x), \qquad \alpha = 0.3 .$$

# %%
jax.config.update("jax_enable_x64", True)  # so that a check can be strict
alpha = 0.3


def wave(z):
    return z**2 / 2 + 0.9 * jnp.cos(z)


def after_one_step(support, query, step_size=alpha):
    """The meta-objective F of one task with one parameter."""
    return lambda x: query(x - step_size * jax.grad(support)(x))


def derivatives(function):
    """The function's first and second derivative, each for arrays."""
    slope = jax.grad(function)
    return jax.jit(jax.vmap(slope)), jax.jit(jax.vmap(jax.grad(slope)))


F = after_one_step(wave, wave)
dF, ddF = derivatives(F)

curvature_prediction = predict(
    "06.largest_curvature",
    "The curvature of f is at most 1.9. What is the largest curvature of F on |x| ≤ 400?",
    options=["at most 1.9", "about 4", "more than 50"],
)

# %%
radii = np.array([5, 20, 100, 400])
table = {}
for radius in radii:
    x = np.linspace(-radius, radius, 200_001)
    slope, curvature = dF(x), ddF(x)
    table[int(radius)] = float(jnp.abs(curvature).max()), float((jnp.abs(curvature) / (1 + jnp.abs(slope))).max())
    print(
        f"|x| ≤ {radius:3d}   largest |F''| {table[int(radius)][0]:5.1f}   largest |F''|/(1+|F'|) {table[radius][1]:.3f}"
    )
curvature_prediction.reveal("more than 50")
assert [round(largest, 1) for largest, _ in table.values()] == [2.0, 3.5, 18.7, 74.8]
assert max(ratio for _, ratio in table.values()) < 0.57

# %%
x = np.linspace(-60, 60, 4_001)
figure, (left, right) = plots.subplots(2)
plots.lines(
    x, {"f, before adaptation": jax.vmap(wave)(x), "F, after one step": jax.vmap(F)(x)}, "start x", "loss", axes=left
)
plots.lines(x, {"|F''|": jnp.abs(ddF(x)), "|F'|": jnp.abs(dF(x))}, "start x", "derivative", axes=right)
left.legend(loc="upper center", fontsize="small")
plots.show(
    figure,
    alt="Left: the loss before and after adaptation. The first looks like a parabola; the second is about half as high, with "
    "a slight ripple. Right: the size of the second one's curvature swings between zero and peaks that grow with the "
    "distance. The size of its gradient swings too, and grows. Away from zero it is far above the curvature.",
)

# %% [markdown]
# On the left there is a ripple, no more. On the right the curvature of $F$ swings, and the swings grow with the distance.
# But look at the last column of the table: measured against the gradient, the curvature is bounded. It grows where
# the gradient grows, and no faster.
#
# ## Why: four lines
#
# Write $h$ for the support loss and $f$ for the query loss, so that the formulas hold when they differ.
#
# **Line 1.** The chain rule, as in lesson 02:
#
# $$F'(x) = \big(1 - \alpha h''(x)\big)\, f'(y), \qquad y = x - \alpha h'(x).$$

# %% tags=["nbval-check-output"]
x = np.linspace(-50, 50, 2_001)
h1, h2, h3 = x - 0.9 * np.sin(x), 1 - 0.9 * np.cos(x), 0.9 * np.sin(x)  # three derivatives of the wave
y = x - alpha * h1
f1, f2 = y - 0.9 * np.sin(y), 1 - 0.9 * np.cos(y)
factor = 1 - alpha * h2
assert np.allclose(dF(x), factor * f1)
print("line 1 holds")

# %% [markdown]
# ## Exercise: how a meta-objective curves
#
# Differentiate line 1 once more, on paper. Then write $F''$ from single derivatives of the two losses.


# %% tags=["exercise"] exercise="06.curvature"
def meta_curvature(support, query, start, step_size):
    """The second derivative of F(x) = query(x -
    step_size * support'(x)) at the start.

    Args:
      support: h, a function from a number to a number.
      query: f, a function from a number to a number.
      start: x, a number.
      step_size: alpha, a number.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    slope, query_slope = jax.grad(support), jax.grad(query)
    bend, query_bend = jax.grad(slope), jax.grad(query_slope)
    adapted = start - step_size * slope(start)
    factor = 1 - step_size * bend(start)
    return factor**2 * query_bend(adapted) - step_size * jax.grad(bend)(start) * query_slope(adapted)
    ### END SOLUTION


# %%
check("06.curvature", meta_curvature)

# %% [markdown]
# **Line 2.** Both parts of the product in line 1 depend on $x$:
#
# $$F''(x) = \underbrace{\big(1 - \alpha h''(x)\big)^2 f''(y)}_{\text{bounded}} \;-\;
# \underbrace{\alpha\, h'''(x)\, f'(y)}_{\text{as large as the slope}} .$$

# %% tags=["nbval-check-output"]
assert np.allclose(ddF(x), factor**2 * f2 - alpha * h3 * f1)
print("line 2 holds")

# %% [markdown]
# **Line 3.** By line 1 the query slope is itself a multiple of the meta-gradient, $f'(y) = F'(x) / (1 - \alpha h''(x))$.
# The wave has $0.1 \le h'' \le L = 1.9$ and $|h'''| \le \rho = 0.9$. Here $\alpha L = 0.57 < 1$. So
#
# $$|\alpha\, h'''(x)\, f'(y)| \;\le\; \frac{\alpha \rho}{1 - \alpha L}\, |F'(x)| .$$

# %% tags=["nbval-check-output"]
assert np.allclose(f1, dF(x) / factor)
assert (np.abs(alpha * h3 * f1) <= alpha * 0.9 / (1 - alpha * 1.9) * np.abs(dF(x)) + 1e-12).all()
print("line 3 holds")

# %% [markdown]
# **Line 4.** Together:
#
# $$\boxed{\;|F''(x)| \;\le\; L_0 + L_1\, |F'(x)|, \qquad L_0 = (1 - 0.1\,\alpha)^2 L, \quad
# L_1 = \frac{\alpha\rho}{1 - \alpha L}\;}$$
#
# This is called **$(L_0, L_1)$-smoothness**. Ordinary smoothness is the case $L_1 = 0$. Here it does not hold: $f'(y)$
# grows with the distance, $h'''$ is not zero, and the second term of line 2 goes with their product.

# %%
wave_l0, wave_l1 = (1 - 0.1 * alpha) ** 2 * 1.9, alpha * 0.9 / (1 - alpha * 1.9)
for radius in radii:
    x = np.linspace(-radius, radius, 200_001)
    assert (jnp.abs(ddF(x)) <= wave_l0 + wave_l1 * jnp.abs(dF(x))).all()
print(f"line 4 holds, with L0 = {wave_l0:.3f} and L1 = {wave_l1:.3f}")

# %% [markdown]
# Chayti & Jaggi (2024) argue in the same way in many dimensions, for the proximal objective of lessons 04 and 05: again a
# third derivative of the support loss meets the meta-gradient. They conclude that outer steps should be clipped or
# normalised. Why would that help?
#
# ## How long may a step be?
#
# A gradient step relies on the slope where it stands. The slope must not change too much before the step ends. Walk the
# distance $r$ downhill, and write $g = |F'(x)|$ and $A = L_0 + L_1 g$ for the curvature that line 4 allows at the start.
#
# **Line 5.** The curvature bound is a differential inequality for the slope: $|F'|$ grows by at most $L_0 + L_1 |F'|$
# for each unit of length. Its solution is an exponential. After the distance $t$,
#
# $$L_0 + L_1 |F'(x \pm t)| \;\le\; A\, e^{L_1 t} .$$

# %% tags=["nbval-check-output"]
x = np.linspace(-50, 50, 1_001)[:, None]
t = np.linspace(0, 4, 81)
slope, slope_there = jnp.abs(dF(x[:, 0]))[:, None], jnp.abs(dF((x + t).ravel()).reshape(1_001, 81))
assert (wave_l0 + wave_l1 * slope_there <= (wave_l0 + wave_l1 * slope) * jnp.exp(wave_l1 * t)).all()
print("line 5 holds")

# %% [markdown]
# **Line 6.** So the curvature at the distance $t$ is at most $A e^{L_1 t}$. Taylor's formula adds it up with the
# weight $r - t$, and $\int_0^r (r - t)\, A\, e^{L_1 t}\, dt$ gives
#
# $$F(\text{after the step}) - F(x) \;\le\; -g\,r + \frac{A}{L_1^2} \big(e^{L_1 r} - 1 - L_1 r\big).$$

# %% tags=["nbval-check-output"]
signed = dF(x[:, 0])[:, None]
change = jax.vmap(F)((x - t * jnp.sign(signed)).ravel()).reshape(1_001, 81) - jax.vmap(F)(x[:, 0])[:, None]
A = wave_l0 + wave_l1 * slope
assert (change <= -slope * t + A / wave_l1**2 * (jnp.exp(wave_l1 * t) - 1 - wave_l1 * t) + 1e-9).all()
print("line 6 holds")

# %% [markdown]
# The first term wins for short steps, the second for long ones. In between the bound has a lowest point.

# %% [markdown]
# ## Exercise: the rate that the bound likes best
#
# Find the length $r$ at which the bound of line 6 is lowest. Return it as a *rate* $\eta$, the number that multiplies the
# gradient: $r = \eta\, g$.


# %% tags=["exercise"] exercise="06.safe_rate"
def safe_rate(gradient_norm, l0, l1):
    """The rate of a gradient step that makes the bound of line 6 as low
    as possible.

    Args:
      gradient_norm: g > 0, a number or an array.
      l0: L0 > 0, a number.
      l1: L1 > 0, a number.

    Returns:
      Like gradient_norm.
    """
    ### BEGIN SOLUTION
    growth = l1 * gradient_norm / (l0 + l1 * gradient_norm)
    return np.log(1 + growth) / (l1 * gradient_norm)
    ### END SOLUTION


# %%
check("06.safe_rate", safe_rate)

# %% [markdown]
# **Line 7.** Setting the slope of the bound to zero gives the length
#
# $$r = \frac{1}{L_1} \log\Big(1 + \frac{L_1 g}{L_0 + L_1 g}\Big).$$
#
# For a small gradient the rate $r/g$ tends to $1/L_0$: plain descent. For a large one the *length* tends to
# $\log 2 / L_1$: it does not grow with the gradient.
#
# **Line 8.** **Clipping** has a rate of the same shape: $x \leftarrow x - \eta\, F'(x) \min(1, c / g)$.
# With $\eta = 1/(2 L_0)$ and $c = L_0 / L_1$ its rate is half the smaller of $1/L_0$ and $1/(L_1 g)$, which is at most
# $1/(L_0 + L_1 g)$ and at least half of that. There the bound of line 6 is below zero, so clipped descent never goes up.

# %%
g = 10.0 ** np.linspace(-2, 3, 201)
best_rate = np.log(1 + wave_l1 * g / (wave_l0 + wave_l1 * g)) / (wave_l1 * g)
clipped_rate = np.minimum(1 / wave_l0, 1 / (wave_l1 * g)) / 2
limit = 1 / (wave_l0 + wave_l1 * g)
assert (clipped_rate <= limit).all() and (clipped_rate >= limit / 2 - 1e-12).all()
assert (np.log(2) * limit <= best_rate).all() and (best_rate <= limit).all()
for rate in (clipped_rate, best_rate, limit):
    r, a = rate * g, wave_l0 + wave_l1 * g
    assert (-g * r + a / wave_l1**2 * (np.exp(wave_l1 * r) - 1 - wave_l1 * r) < 0).all()
print(f"length of the best step for g = 1000: {best_rate[-1] * g[-1]:.3f}, log 2 / L1 = {np.log(2) / wave_l1:.3f}")

# %%
constant = np.full_like(g, best_rate[-1])
plots.show(
    plots.lines(
        g,
        {"best rate (line 7)": best_rate, "clipping (line 8)": clipped_rate, "constant, best at |g| = 1000": constant},
        "gradient |g|",
        "rate η",
        log="xy",
    ),
    alt="Rate against the gradient, both axes logarithmic. The best rate and that of clipping are flat for small gradients "
    "and fall in proportion to one over the gradient for large ones; clipping's has a corner in between. A constant rate "
    "that is right for the largest gradient lies at the bottom.",
)

# %% [markdown]
# A constant rate must be safe for the largest gradient on the way. Where the gradient is small, it is then far too small.
# A clipped step is right at both ends. A normalised step has the right length far out; near the minimum it needs a rate
# that falls.

# %% [markdown]
# ## Exercise: clip the mean gradient
#
# Average over the tasks, then shorten the mean to the length $c$ if it is longer. The length is that of all parameters
# together.


# %% tags=["exercise"] exercise="06.clip"
def clipped_mean(gradients, max_norm):
    """The mean gradient over tasks, with a length of at most max_norm.

    Args:
      gradients: a pytree of arrays, each with a leading axis that
        counts the tasks.
      max_norm: c > 0, a number.

    Returns:
      A pytree like `gradients`, without the leading axes.
    """
    ### BEGIN SOLUTION
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)
    factor = jnp.minimum(1.0, max_norm / optax.tree.norm(mean))
    return jax.tree.map(lambda leaf: factor * leaf, mean)
    ### END SOLUTION


# %%
check("06.clip", clipped_mean)

# %% [markdown]
# ## A cliff
#
# To see plain descent in trouble, take a query loss that is steep on one side: $f(z) = e^z - z$, with the support loss
# $h(z) = \frac12 z^2$. One inner step takes $x$ to $0.7\,x$, so that $F(x) = e^{0.7 x} - 0.7\,x$. Its curvature is
# $0.49 + 0.7\,F'(x)$ exactly. For $x \ge 0$ this is line 4 with an equality sign.

# %% tags=["nbval-check-output"]


def parabola(z):
    return z**2 / 2


def steep(z):
    return jnp.exp(z) - z


cliff = after_one_step(parabola, steep)
d_cliff, dd_cliff = derivatives(cliff)
x = np.linspace(-5, 12, 1_001)
assert np.allclose(dd_cliff(x), 0.49 + 0.7 * d_cliff(x))
cliff_l0, cliff_l1 = 0.49, 0.7
print("the cliff's curvature is L0 + L1 F', with L0 = 0.49 and L1 = 0.7")

# %% [markdown]
# Move the slider. It sets the rate $2^k$ of both rules, which start at $x = 6$ and take 40 steps. Clipping uses
# $c = L_0/L_1 = 0.7$. **For which $k$ is $|F'|$ below 0.02 after the last step of plain descent? Of clipped descent?**
# Where the plain path is missing, it has left the picture.

# %%
start, num_steps = 6.0, 40


def path(rule, objective, start, num_steps):
    """Points and slopes of a descent, each of shape [num_steps]."""

    def step(carry, _):
        x, state = carry
        slope = jax.grad(objective)(x)
        update, state = rule.update(slope, state, x)
        return (x + update, state), (x, slope)

    return jax.lax.scan(step, (jnp.array(start), rule.init(jnp.array(start))), length=num_steps)[1]


@jax.jit
def two_paths(rate):
    clipped = ml.outer.clipped_sgd(rate, cliff_l0 / cliff_l1)
    return [path(rule, cliff, start, num_steps + 1) for rule in (optax.sgd(rate), clipped)]


height = jax.jit(jax.vmap(cliff))
grid = np.linspace(-8, 7, 301)
cliff_side = height(grid)


def draw_paths(k):
    (plain, plain_slopes), (clipped, clipped_slopes) = two_paths(2.0**k)
    figure, (left, right) = plots.subplots(2)
    plots.lines(
        grid,
        {"F": cliff_side},
        "start x",
        "F",
        points={"plain": (plain, height(plain)), "clipped": (clipped, height(clipped))},
        xlim=(-8, 7),
        ylim=(0.8, 150),
        log="y",
        title=f"rate 2^{k} = {2.0**k:g}",
        axes=left,
    )
    plots.lines(
        np.arange(num_steps + 1),
        {"plain": plain, "clipped": clipped},
        "step",
        "x",
        ylim=(-8, 7),
        title=f"last |F'|: plain {abs(plain_slopes[-1]):.2g}, clipped {abs(clipped_slopes[-1]):.2g}",
        axes=right,
    )
    return figure


explore(
    draw_paths,
    "Left: the objective and the points that two descents visit. Right: where they are at each step. With a small rate both "
    "creep down the cliff. With a larger one plain descent jumps far to the flat side, and clipped descent walks down.",
    k=(-8, 3, 1, -2),
)

# %%
arrives = {"plain": [], "clipped": []}
for k in range(-8, 4):
    for name, (_, slopes) in zip(arrives, two_paths(2.0**k), strict=True):
        if abs(slopes[-1]) < 0.02:
            arrives[name].append(k)
for name, exponents in arrives.items():
    print(f"{name:8s} |F'| is below 0.02 after {num_steps} steps for k = {exponents}")
assert len(arrives["plain"]) < len(arrives["clipped"]) and max(arrives["plain"]) < max(arrives["clipped"]) - 2

# %% [markdown]
# Plain descent with a larger rate is thrown over the minimum, onto the flat side, and comes back slowly or not at all;
# with a smaller one it does not get down in time.
# Clipped descent takes steps of the same length down the cliff, and turns into plain descent at the bottom. Its rate is
# limited by the curvature *at the minimum*, not by that of the start.
#
# ## Four rules on two objectives
#
# Now the four outer rules of the library, on the cliff from $x = 12$ and on the wave from $x = 20$, with 300 steps:
#
# - **plain**, `optax.sgd(e)`;
# - **clipped**, `ml.outer.clipped_sgd(e, c)` with $c = L_0/L_1$;
# - **normalised**, `ml.outer.normalized_sgd(e)`, each step of length $e$;
# - **SNGDM** (stochastic normalised gradient descent with momentum), `ml.outer.normalized_sgd_momentum(e, 0.9)`, which
#   averages gradients before it normalises.
#
# The last two would circle the minimum at a distance of about $e$, so their rate falls linearly to zero. Each rule gets the
# best of the same 19 rates, $2^{-12}, \dots, 2^{6};$ the score is the largest $|F'|$ of the last ten steps. Then each runs
# once more with ten times that rate. Both minima are
# moved to $0.3$, so that no walk of fixed lengths hits one by luck.

# %%
race_prediction = predict(
    "06.wave_race",
    "The curvature grows on both objectives. Which rules bring |F'| below 1e-10 on the WAVE in 300 steps?",
    options=["normalised and SNGDM", "clipped alone", "plain and clipped"],
)

# %%
race_steps, grid_of_rates = 300, 2.0 ** np.arange(-12, 7)
problems = {"cliff": (cliff, 12.0, cliff_l0 / cliff_l1), "wave": (F, 20.0, wave_l0 / wave_l1)}


def rules(c, num_steps=race_steps):
    """Each rule as a function of its rate."""

    def falling(e):
        return optax.linear_schedule(e, 0.0, num_steps)

    return {
        "plain": optax.sgd,
        "clipped": lambda e: ml.outer.clipped_sgd(e, c),
        "normalised": lambda e: ml.outer.normalized_sgd(falling(e)),
        "SNGDM": lambda e: ml.outer.normalized_sgd_momentum(falling(e), 0.9),
    }


race, final, best_rates = {}, {}, {}
print("best rate; |F'| at the end; |F'| with ten times that rate")
for problem, (objective, start, c) in problems.items():
    for name, rule in rules(c).items():

        def run(rate, rule=rule, objective=objective, start=start):
            return path(rule(rate), lambda x: objective(x - 0.3), start, race_steps + 1)[1]

        slopes = np.abs(jax.jit(jax.vmap(run))(np.concatenate([grid_of_rates, 10 * grid_of_rates])))
        last_ten = slopes[:, -10:].max(axis=1)
        best = int(np.nanargmin(last_ten[:19]))
        race[problem, name], final[problem, name] = slopes[best], (last_ten[best], last_ten[19 + best])
        best_rates[problem, name] = grid_of_rates[best]
        print(f"{problem}  {name:10s}  {grid_of_rates[best]:8.2g}   {last_ten[best]:8.1e}   {last_ten[19 + best]:8.1e}")
race_prediction.reveal("plain and clipped")
for name in ("clipped", "normalised", "SNGDM"):
    assert final["cliff", name][0] < final["cliff", "plain"][0] / 2
assert final["wave", "plain"][0] < 1e-10 and final["wave", "clipped"][0] < 1e-10
assert (race["wave", "clipped"] < 1e-10).argmax() < (race["wave", "plain"] < 1e-10).argmax()
assert min(final["wave", "normalised"][0], final["wave", "SNGDM"][0]) > 1e3 * final["wave", "plain"][0]
assert final["cliff", "plain"][1] > 0.6 and not np.isfinite(final["wave", "plain"][1])  # with ten times the rate
assert all(final[problem, name][1] < 0.1 for problem in problems for name in ("normalised", "SNGDM"))
assert all(0.1 < final[problem, "clipped"][1] < 1e3 for problem in problems)

# %%
figure, axes = plots.subplots(2)
for panel, problem in zip(axes, problems, strict=True):
    plots.lines(
        np.arange(5, race_steps, 10),
        {name: race[problem, name][1:].reshape(-1, 10).max(axis=1) + 1e-17 for name in rules(1.0)},
        "outer step",
        "largest |F'| of ten steps",
        title=problem,
        log="y",
        ylim=(1e-12, 1e5),
        axes=panel,
    )
axes[0].get_legend().remove()
plots.show(
    figure,
    alt="Largest gradient of each ten outer steps for four rules at their best rates, on a logarithmic axis. On the "
    "cliff plain descent falls slowly. Clipped descent drops in a steep line. Normalised descent and SNGDM start higher than "
    "plain and end far below it. On the wave plain and clipped descent both drop in a straight line, clipped sooner, and "
    "normalised descent and SNGDM stay above.",
)

# %% [markdown]
# On the cliff the claim holds: plain descent needs a tiny rate and is far behind at the end; ten times that rate throws it
# to the flat side. The other three do not care about the height of the cliff. At ten times their rate, normalised descent and
# SNGDM still arrive, since their rate falls. Clipped descent bounces around the minimum, at the length of its steps.
#
# On the wave it does not. There the curvature grows too, as proved above. Yet plain descent takes a *large* constant
# rate, comes down in a straight line, and SNGDM cannot follow: its steps must first be long, to arrive, and then short, to
# rest. Clipping arrives too, and sooner: at the end it *is* plain descent. So growth of the curvature with the
# gradient is not enough for normalising to win. What else does it take?
#
# ## What a plain step really needs
#
# Put the minimum at zero. A plain step goes from $x$ to $x - \eta F'(x)$. It comes closer to the minimum exactly if
#
# $$0 < \eta\, \frac{F'(x)}{x} < 2 .$$
#
# And $F'(x)/x = \frac1x \int_0^x F''$ is the **mean** curvature between the minimum and $x$. Not the largest one.

# %%
measured = {"wave": [], "cliff": []}
distances = {"wave": np.array([5, 20, 50, 100, 200, 400]), "cliff": np.array([1.5, 3, 6, 9, 12])}
for problem, (slope, curvature) in {"wave": (dF, ddF), "cliff": (d_cliff, dd_cliff)}.items():
    for distance in distances[problem]:
        x = np.linspace(0, distance, 20_001)[1:]
        largest, mean = float(jnp.abs(curvature(x)).max()), float((slope(x) / x).max())
        measured[problem].append((largest, mean))
        print(f"{problem}  |x| ≤ {distance:5.1f}   largest |F''| {largest:9.3g}   largest mean {mean:9.3g}")
x = np.linspace(0, 400, 400_001)[1:]
mean_curvature = dF(x) / x
assert mean_curvature.min() > 0.09 and mean_curvature.max() < 0.82
closer = np.abs(x - 1.2 * dF(x)) < x  # with the rate 1.2, from everywhere
assert closer.all() and (jax.vmap(F)(x - 1.2 * dF(x)) < jax.vmap(F)(x)).all()
assert best_rates["wave", "plain"] * mean_curvature.max() > 2
print(f"wave: mean curvature from {mean_curvature.min():.3f} to {mean_curvature.max():.3f}, up to x = 400")

# %%
figure, axes = plots.subplots(2)
for panel, problem in zip(axes, ("wave", "cliff"), strict=True):
    largest, mean = np.array(measured[problem]).T
    plots.lines(
        distances[problem],
        {"largest |F''|": largest, "largest mean, F'(x)/x": mean},
        "distance from the minimum",
        "curvature",
        title=problem,
        log="y",
        ylim=(0.1, 1e4),
        axes=panel,
    )
plots.show(
    figure,
    alt="Largest curvature and largest mean curvature up to a distance, on a logarithmic axis. On the wave the largest "
    "curvature rises and the mean stays below one. On the cliff both rise by several powers of ten, the largest faster.",
)

# %% [markdown]
# On the wave the curvature is large and positive, then large and negative, in turn: line 2 has the sign of
# $-h'''(x)\, f'(y)$. Over the way to the minimum the turns cancel. The gradient stays between two fixed multiples of
# the distance, and so does a plain step. That is what one wants. The best rate of the race is even higher than the
# condition allows for every $x$: some of its steps may lead away, and from $x = 20$ the walk still arrived. On the
# cliff nothing cancels: far out, the gradient is out of proportion to the distance.
#
# This is no accident of the wave. If the task losses have bounded curvature, line 1 says that $F'$ grows at most in
# proportion to the distance. Then the local curvature can explode, and the gradient cannot. In one dimension, with
# one point of rest, a plain step of moderate rate is safe. Bounded steps earn their keep where the gradient itself is
# steep: query losses that grow fast, and networks, where no curvature bound is known. A network follows below.

# %% [markdown]
# ## Noise: average before you normalise
#
# A meta-gradient is a mean over few tasks, so it is noisy. Normalising is not linear: the mean of directions is not the
# direction of the mean. Take nine common tasks for each rare one,
#
# $$F_i(x) = \tfrac12 (x - m_i)^2, \qquad m_i = \begin{cases} 0 & \text{with probability } 0.9, \\
# 10 & \text{with probability } 0.1. \end{cases}$$
#
# The mean loss is lowest at $x = 1$. Each outer step draws one task. Averages over time have a momentum $b$, and reach
# back over about $1/(1 - b)$ steps: 2 for $b = 0.5$, 100 for $b = 0.99$.

# %%
order_prediction = predict(
    "06.order",
    "Normalise each task's gradient, then average over time, with a small rate. Where does x rest?",
    options=["near 0", "near 1", "near 5"],
)

# %%
minima = jnp.where(jax.random.uniform(jax.random.key(0), (20_000,)) < 0.1, 10.0, 0.0)


@jax.jit
def average_then_normalise(momentum):
    """Where SNGDM of the library is, from x = 5."""
    rule = ml.outer.normalized_sgd_momentum(0.002, momentum)

    def step(carry, minimum):
        x, state = carry
        update, state = rule.update(x - minimum, state)
        return (x + update, state), x

    return jax.lax.scan(step, (jnp.array(5.0), rule.init(jnp.array(5.0))), minima)[1]


@jax.jit
def normalise_then_average(momentum):
    def step(carry, minimum):
        x, memory = carry
        memory = momentum * memory + (1 - momentum) * jnp.sign(x - minimum)
        return (x - 0.002 * memory, memory), x

    return jax.lax.scan(step, (jnp.array(5.0), jnp.array(0.0)), minima)[1]


walks = {
    "normalise, then average": normalise_then_average(0.99),
    "average over 2 steps, then normalise": average_then_normalise(0.5),
    "average over 100 steps, then normalise": average_then_normalise(0.99),
}
rest = {name: float(walk[-5_000:].mean()) for name, walk in walks.items()}
order_prediction.reveal("near 0")
for name, where in rest.items():
    print(f"{name:40s} mean of the last 5,000: {where:.2f}")
wrong, short, long = rest.values()
assert abs(wrong) < 0.1 and abs(long - 1) < 0.1 and wrong < short < 0.5

# %%
plots.show(
    plots.lines(
        np.arange(0, 20, 0.05),
        {name: walk[::50] for name, walk in walks.items()} | {"minimum of the mean loss": np.ones(400)},
        "outer step (thousands)",
        "x",
    ),
    alt="Position against outer step for one walk that normalises first and two that average first. Normalising first ends "
    "at zero. Averaging over two steps first ends close to zero. Averaging over a hundred steps first ends in swings around "
    "one, the minimum of the mean loss.",
)

# %% [markdown]
# A normalised gradient is a vote: it says where a task wants to go, and not how far. Nine votes for zero win against
# one for ten, so $x$ rests at the *median*. The same happens if you normalise each task of a batch before the mean over
# tasks. Averaging first keeps the lengths. But it must average for long enough: most averages over two steps have seen
# no rare task, and the vote is still a vote.

# %% [markdown]
# ## Exercise: the normalised step with momentum, in the right order
#
# One step of SNGDM. With $\bar g$ the mean over tasks,
#
# $$m \leftarrow b\, m + (1 - b)\, \bar g, \qquad \theta \leftarrow \theta - \eta\, \frac{m}{\lVert m \rVert} .$$


# %% tags=["exercise"] exercise="06.sngdm"
def sngdm_step(params, memory, gradients, rate, momentum):
    """One outer step: average over tasks, average over time, normalise,
    step.

    Args:
      params: theta, any pytree of arrays.
      memory: m, a pytree like params.
      gradients: a pytree like params; each array has one more leading
        axis, which counts the tasks.
      rate: eta, the length of the step.
      momentum: b, at least 0 and below 1.

    Returns:
      (new params, new memory).
    """
    ### BEGIN SOLUTION
    memory = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g.mean(axis=0), memory, gradients)
    length = optax.tree.norm(memory)
    return jax.tree.map(lambda p, m: p - rate * m / length, params, memory), memory
    ### END SOLUTION


# %%
check("06.sngdm", sngdm_step)

# %% [markdown]
# ## Circling
#
# A normalised step has the length $e$ however close the minimum is. So it steps over it, and back. Two things mend this: a
# rate that falls, and clipping, which is a plain step once the gradient is shorter than $c$.

# %%
few = 120
circling_rules = {
    "normalised, constant": ml.outer.normalized_sgd(0.5),
    "normalised, falling": ml.outer.normalized_sgd(optax.linear_schedule(0.5, 0.0, few)),
    "clipped": ml.outer.clipped_sgd(0.5 / 0.7, 0.7),  # the same length far away
}
distance = {
    name: np.abs(jax.jit(lambda rule=rule: path(rule, cliff, 6.2, few + 1)[0])())
    for name, rule in circling_rules.items()
}
for name, values in distance.items():
    print(f"{name:22s} distance over the last ten steps: at most {values[-10:].max():.1e}")
assert 0.2 < distance["normalised, constant"][-10:].max() <= 0.5
assert distance["normalised, falling"][-10:].max() < 0.1 and distance["clipped"][-10:].max() < 1e-6
plots.show(
    plots.lines(
        np.arange(3, few, 5),
        {name: values[1:].reshape(-1, 5).max(axis=1) + 1e-12 for name, values in distance.items()},
        "outer step",
        "largest distance of five steps",
        log="y",
        ylim=(1e-6, 10),
    ),
    alt="Largest distance from the minimum of the cliff in each five outer steps. Constant normalised steps stay at a few tenths. With "
    "a falling rate the distance shrinks to hundredths. Clipped steps fall in a straight line.",
)

# %% [markdown]
# ## A network
#
# Now the network and the sine curves of lesson 02: one inner step with $\alpha = 0.01$. No bound on any derivative is known
# here, so we measure. Along a run, take the meta-gradient of one batch of tasks before and after each outer step. The
# local smoothness is how much it changed, by the length of the step:
#
# $$s_t = \frac{\lVert g(\theta_{t+1}) - g(\theta_t) \rVert}{\lVert \theta_{t+1} - \theta_t \rVert} .$$

# %%
jax.config.update("jax_enable_x64", False)  # training runs in float32

smoothness_prediction = predict(
    "06.smoothness",
    "500 normalised steps of length 0.05 from a random start: by what factor does the local smoothness fall, from the "
    "median of the first 3 to that of the last 100?",
    options=["less than 3", "between 3 and 30", "more than 30"],
)

# %%
family = ml.tasks.Sinusoid(num_support=10, num_query=10)
random_start, network = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
meta_gradient = ml.maml(ml.losses.mean_squared_error(network), optax.sgd(0.01), 1)


def mean_gradient(params, tasks):
    """(mean query loss, mean meta-gradient) of a batch of tasks."""
    losses, gradients = jax.vmap(meta_gradient, in_axes=(None, 0))(params, tasks)
    return losses.mean(), jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients)


@jax.jit
def measured_run(key):
    """Gradient norm and local smoothness along 500 normalised steps of length 0.05."""
    rule = ml.outer.normalized_sgd(0.05)

    def step(params, number):
        tasks = family(jax.random.fold_in(key, number), 25)
        gradient = mean_gradient(params, tasks)[1]
        update, _ = rule.update(gradient, rule.init(params))
        after = optax.apply_updates(params, update)
        change = optax.tree.norm(optax.tree.sub(mean_gradient(after, tasks)[1], gradient))
        return after, (optax.tree.norm(gradient), change / optax.tree.norm(update))

    return jax.lax.scan(step, random_start, jnp.arange(500))[1]


norms, smoothness = map(np.asarray, measured_run(jax.random.key(0)))
first, late = np.median(smoothness[:3]), np.median(smoothness[-100:])
fall = first / late
smoothness_prediction.reveal("less than 3" if fall < 3 else "between 3 and 30" if fall <= 30 else "more than 30")
exponent, offset = np.polyfit(np.log(norms), np.log(smoothness), 1)
correlation = np.corrcoef(norms, smoothness)[0, 1]
small = norms < np.median(norms)
inside = np.corrcoef(norms[small], smoothness[small])[0, 1]
print(f"gradient norm: first {norms[0]:.0f}, median of the last 100 {np.median(norms[-100:]):.1f}")
print(f"local smoothness: median of the first 3 {first:.0f}, of the last 100 {late:.0f}")
print(f"correlation with the gradient norm: {correlation:.2f}")
print(f"the same among the half with small gradients: {inside:.2f}")
print(f"log-log slope {exponent:.2f}")
assert fall > 30 and correlation > 0.7 > inside and 0.3 < exponent < 1
assert np.median(norms[:3]) > 10 * np.median(norms[-100:])

# %%
figure, (panel,) = plots.subplots()
plots.lines(
    norms[np.argsort(norms)],
    {"L0 + L1 |g|, with L0 = L1 = 15": 15 + 15 * np.sort(norms)},
    "gradient norm",
    "local smoothness",
    points={"steps 1 to 50": (norms[:50], smoothness[:50]), "steps 51 to 500": (norms[50:], smoothness[50:])},
    log="xy",
    axes=panel,
)
for depth, artist in enumerate(panel.get_lines()):  # the line in front, then the few early steps
    artist.set(markersize=4, alpha=0.6 if depth else 1, zorder=9 - depth)
plots.show(
    figure,
    alt="Local smoothness against the gradient norm, both axes logarithmic, one mark for each outer step. The marks follow "
    "a rising line, from a smoothness of about thirty at gradient one to about two thousand at gradient one hundred and "
    "fifty, with a wide scatter at small gradients.",
)

# %% [markdown]
# Over two powers of ten the smoothness follows the gradient: the first steps lie top right, and the run moves down
# along the line. That part fits. The rest does not: where gradients are small, the marks scatter by more than a power
# of ten, and the correlation is weak. The log-log slope is below one. The line is a trend, no bound. The line was drawn
# by eye. And $s_t$ looks along the step taken, which is not the direction of the largest curvature.
#
# ## The race on the network
#
# Plain, clipped ($c = 1$, chosen before any run), normalised and SNGDM with $b = 0.9,$ each with five rates, half a power
# of ten apart; plain's are ten times smaller. Adam, which the earlier lessons used, runs along. 500 outer steps with 16
# tasks, constant rates, three seeds. The score is the query loss, averaged over the last 100 steps.

# %%
tenfold_prediction = predict(
    "06.tenfold",
    "Each of the four rules runs at ten times its best rate. Which diverges in most of the seeds?",
    options=["none", "only plain", "plain and clipped", "all four"],
)

# %%
outer_rules = {
    "plain": optax.sgd,
    "clipped": lambda e: ml.outer.clipped_sgd(e, 1.0),
    "normalised": ml.outer.normalized_sgd,
    "SNGDM": lambda e: ml.outer.normalized_sgd_momentum(e, 0.9),
    "Adam": optax.adam,
}
names = list(outer_rules)
rates = 10.0 ** np.array([[-3, -2.5, -2, -1.5, -1]] + [[-2, -1.5, -1, -0.5, 0]] * 4)
which = np.repeat(np.arange(len(names)), 5)


@jax.jit
def train(seed):
    """Query loss at every step, shape [runs, steps]. All rules share one program; `which` picks the update."""
    key = jax.random.key(seed)

    def run(which, rate):
        each = [rule(rate) for rule in outer_rules.values()]

        def step(carry, number):
            params, states = carry
            value, gradient = mean_gradient(params, family(jax.random.fold_in(key, number), 16))
            pairs = [rule.update(gradient, state, params) for rule, state in zip(each, states, strict=True)]
            update = jax.tree.map(lambda *leaves: jnp.stack(leaves)[which], *(update for update, _ in pairs))
            return (optax.apply_updates(params, update), tuple(state for _, state in pairs)), value

        states = tuple(rule.init(random_start) for rule in each)
        return jax.lax.scan(step, (random_start, states), jnp.arange(500))[1]

    return jax.vmap(run)(which, rates.ravel())


losses = np.stack([np.asarray(train(seed)) for seed in tqdm(range(3), desc="seeds", file=sys.stdout)]).reshape(
    3, len(names), 5, 500
)
scores = losses[..., -100:].mean(axis=-1)
scores = np.where(np.isfinite(scores), scores, np.inf)
medians = np.median(scores, axis=0)
best = medians.argmin(axis=1)
assert (best <= 2).all(), "ten times the best rate must be on the grid"
print("best rate; loss of three seeds; loss at ten times that rate")
for number, name in enumerate(names):
    at_best, at_ten = scores[:, number, best[number]], scores[:, number, best[number] + 2]
    print(f"{name:10s} {rates[number, best[number]]:6.2g}   {np.round(at_best, 2)!s:18}   {np.round(at_ten, 1)}")
finite = [bool(np.isfinite(medians[number, best[number] + 2])) for number in range(4)]
tenfold_prediction.reveal("only plain")
assert finite == [False, True, True, True]
plain_scores = scores[:, 0, best[0]]
for number in (1, 2, 3):
    assert (scores[:, number, best[number]] < plain_scores).all()

# %%
smooth = np.median(losses, axis=0).reshape(len(names), 5, 50, 10).mean(axis=-1)
plots.show(
    plots.lines(
        np.arange(5, 505, 10),
        {name: smooth[number, best[number]] for number, name in enumerate(names)},
        "outer step",
        "query loss (squared error)",
        ylim=(0, 9),
    ),
    alt="Query loss against outer steps for five rules at their best rates. All fall at first. Plain "
    "descent then stays on a plateau; clipped, normalised and SNGDM leave it halfway, and Adam falls furthest.",
)

# %% [markdown]
# Here the claim holds. In the run measured above, gradients and smoothness were more than ten times as large in the first
# steps as later. A plain rate has to survive such steps, and is then too small: a likely reason for the plateau. The three
# rules with bounded steps leave it. At ten times its best rate plain descent diverges in most seeds; the others are worse and
# still there.
#
# Adam is best in this race. It divides each coordinate by its own recent size, so its steps are bounded too,
# one coordinate at a time. That may be why the earlier lessons could use it without a word about step sizes.

# %% [markdown]
# ## Limits
#
# - $(L_0, L_1)$-smoothness was proved for a wave and measured on one network along one run. Along the run it is a trend.
# - Growing curvature alone does not make plain descent slow. On the wave it wins against SNGDM by many powers of ten.
# - The argument with the mean curvature is for one dimension. In many, the gradient need not point at the minimum.
# - The network ran for 500 steps, with three seeds and five rates per rule. Longer runs, a warm-up of the rate or another
#   initial scale could bring plain descent nearer.
# - The paper's own settings for SNGDM could not be read. Rates, momentum and schedules here are ours.
#
# ## What to take away
#
# - Adaptation puts a third derivative in front of the query slope: the curvature of $F$ grows with its gradient.
# - Where it does, a safe step has a length of at most $1/L_1$ far out and a rate of $1/L_0$ near the minimum. Clipping
#   does both.
# - In one dimension a plain rate is limited by the largest *mean* curvature $F'(x)/x$ on the way, not by the largest
#   curvature.
# - Average first, over tasks and over time. Normalise then.
# - A normalised step of constant length circles. Let the rate fall, or clip.

# %%
quiz("06")

# %%
progress("06")

# %% [markdown]
# ## References
#
# - E. M. Chayti, M. Jaggi. *A new first-order meta-learning algorithm with convergence guarantees.* 2024.
#   [arXiv 2409.03682](https://arxiv.org/abs/2409.03682). The smoothness of the meta-objective grows with its gradient.
# - J. Zhang, T. He, S. Sra, A. Jadbabaie. *Why gradient clipping accelerates training.* 2020.
#   [arXiv 1905.11881](https://arxiv.org/abs/1905.11881). $(L_0, L_1)$-smoothness, measured along training runs.
# - A. Cutkosky, H. Mehta. *Momentum improves normalized SGD.* 2020.
#   [arXiv 2002.03305](https://arxiv.org/abs/2002.03305). Average first, then normalise.
