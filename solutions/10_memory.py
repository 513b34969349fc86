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
# - **derive** the bias that a small support batch gives to MAML, and say with respect to which objective it is a bias,
# - **implement** a step of MOML and a round of LocalMOML,
# - **calculate** how many support examples a memory is worth, and how old it is,
# - **choose** a memory rate for a population of tasks,
# - **predict** what more local steps do to federated training.
#
# **New symbols**
#
# - $\hat\varphi$: adapted parameters of a small, noisy support batch
# - $n$: number of support examples
# - $\xi$, $s^2$: noise of $\hat\varphi$, and its variance
# - $u_i$: memory of task $i$
# - $b$: memory rate

# %% tags=["imports"]
import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import bar, check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_10 as figures

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Twenty bus stops
#
# You want to catch a bus, and the timetable is not reliable. At some stops the bus comes early, at others late. Your
# plan for a stop is a single number $\varphi$, the time at which you will be there, in minutes after the timetable. If the
# bus comes at $m$, counted in the same way, your cost is $f(\varphi) = e^{\varphi - m} - (\varphi - m) - 1$. The lowest cost is
# zero, at $\varphi = m$. Whoever is early waits, and the cost grows like the waiting time. Whoever is late misses the bus,
# and the cost grows much faster.
#
# Every stop is a task. Its support set holds a few mornings on which somebody wrote down when the bus came, but the
# clock was bad, so these numbers are normally distributed around $m$, with a standard deviation $\sigma$ of two minutes.
# You begin with one plan $\theta$ for all stops, and adapt it by one gradient step on $h(\varphi)$, the mean of
# $\frac12 (\varphi - x)^2$ over the recorded numbers $x$. With $\alpha = 0.5$ this takes the plan half of the way to the
# mean of the mornings. The query loss is the cost $f$ itself, with the true $m$ of the stop, so only the adaptation is
# noisy.

# %% tags=["fold"]
figures.bus_stop()

# %% [markdown]
# With only a few mornings, the adapted plan is noisy. Below you see forty of them, each adapted to other mornings of
# one stop, for which $m = 0$. On the right is what training looks at, the gradient of the cost at these plans. **How
# does the mean of the gradients compare with the gradient at the mean plan, and what do more mornings change?** Move
# $\theta$ too.

# %%
controls = {"mornings": (1, 16, 1, 1), "theta": (-2.0, 2.0, 0.2, 0.4)}
explore(figures.scattered, figures.SEEN, **controls)

# %% [markdown]
# The mean of the gradients is larger than the gradient at the mean plan, because the curve on the right bends upwards.
# A plan that is a minute later by accident raises the gradient by more than a plan that is a minute earlier lowers it.
# With sixteen mornings the plans lie close together. On a short piece the curve is nearly straight, and the two orange
# points nearly meet.
#
# *Short of time? Skip the sections "What the paper's second version does" and "On a network".*

# %% [markdown]
# ## The mean of the gradients is not the gradient at the mean
#
# Suppose for a moment that adaptation were exact: its gradient step uses the true time $m_i$ of stop $i$ in place of
# the mean of a few mornings. With this exact $\nabla h_i$ the adapted plan is
# $\varphi_i = \theta - \alpha \nabla h_i(\theta)$, the meta-objective $F$ is the mean of $f_i(\varphi_i)$ over the stops, and
# by lesson 02 its gradient is the mean of $(I - \alpha H_i)\, \nabla f_i(\varphi_i)$. In training, MAML has only a few
# mornings. It puts the noisy adapted parameters into the same formula.

# %%
direction_prediction = predict("10.direction")

# %% [markdown]
# Now take a single task with any two losses in several dimensions. The support loss has the Hessian $H$. We assume that
# the noise changes its gradient and not its Hessian, as with the bus stops.
#
# **Line 1.** MAML's estimate from $n$ support examples is
#
# $$\hat g = (I - \alpha H)\, \nabla f(\hat\varphi), \qquad \hat\varphi = \varphi + \xi, \qquad \mathbb{E}\, \xi = 0 .$$
#
# Here $\varphi$ is the result of the exact inner step. The noise $\xi$ is $-\alpha$ times the mean of $n$ independent
# gradient noises. The covariance matrix of a single one is called $\Sigma$.
#
# **Line 2.** If $f$ is a cubic polynomial, the Taylor expansion of its gradient ends after the second-order term.
# Component $i$ is
#
# $$\nabla f(\varphi + \xi)_i = \nabla f(\varphi)_i + \sum_j A_{ij}\, \xi_j + \frac12 \sum_{j,k} T_{ijk}\, \xi_j \xi_k ,$$
#
# with the Hessian $A$ of $f$ at $\varphi$, and its third derivatives $T$. (Here $i$, $j$ and $k$ number components and not
# tasks, and $T$ is not the inner training time, which does not occur in this lesson.)

# %% [markdown]
# ## Exercise: the bias of a small support batch
#
# **Line 3** is yours. Take the expectation of line 2, put it into line 1, and subtract the exact gradient
# $(I - \alpha H)\, \nabla f(\varphi)$. What is left is the **bias** of MAML's estimate.


# %% tags=["exercise"] exercise="10.bias"
def small_batch_bias(hessian, third, covariance, step_size, num_support):
    """The expectation of MAML's estimate, minus the exact gradient.

    Args:
      hessian: H, of the support loss, shape [d, d].
      third: T, the third derivatives of the query loss, symmetric in
        its indices, shape [d, d, d].
      covariance: Sigma, of the noise in the support gradient of one
        example, shape [d, d].
      step_size: alpha, the inner learning rate.
      num_support: n, the number of support examples, at least 1.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    noise = step_size**2 * covariance / num_support
    bias = np.einsum("ijk,jk->i", third, noise) / 2
    return bias - step_size * hessian @ bias
    ### END SOLUTION


# %%
check("10.bias", small_batch_bias)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# $\mathbb{E}\,\xi = 0$ removes the term with $A$, and $\mathbb{E}\, \xi_j \xi_k = \alpha^2 \Sigma_{jk} / n$. So the
# bias is $(I - \alpha H)$ times the vector with the components $\frac{\alpha^2}{2n} \sum_{j,k} T_{ijk} \Sigma_{jk}$.
#
# </details>

# %% [markdown]
# Two things can be read from it. The bias is proportional to $1/n$. And it depends on the *third* derivatives of the
# query loss, so on a quadratic it vanishes, however noisy the adaptation is. The next cell checks the formula on a
# cubic, for a noise with so few values that its mean is a finite sum.

# %% tags=["fold", "nbval-check-output"]
_rng = np.random.default_rng(0)
_T = _rng.normal(size=(2, 2, 2))
_T = sum(np.transpose(_T, order) for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
_A, _H, _g, _at = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([[0.9, 0.2], [0.2, 0.5]]), _rng.normal(size=2), 0.4
_root = np.array(
    [[1.0, 0.5], [-0.3, 0.8]]
)  # Σ = root rootᵀ; the noise is root times signs, so the mean is a finite sum
_signs = np.array([[a, b] for a in (-1, 1) for b in (-1, 1)])
_factor = np.eye(2) - _at * _H


def _estimate(xi):
    return _factor @ (_g + _A @ xi + np.einsum("ijk,j,k->i", _T, xi, xi) / 2)


for _n in (1, 2):  # means of n noises, all combinations
    _means = _signs if _n == 1 else (_signs[:, None] + _signs[None]).reshape(-1, 2) / 2
    _mean = np.mean([_estimate(-_at * _root @ mean) for mean in _means], axis=0)
    _bias = figures.BIAS.reference(_H, _T, _root @ _root.T, _at, _n)
    assert np.allclose(_mean - _factor @ _g, _bias, atol=1e-13)
print("the bias is that of line 3, for one example and for two")

# %% [markdown]
# ## The floor
#
# For the bus stops we can go further than a cubic. All derivatives of $f$ are exponentials, and the mean of the
# exponential of a normal variable is known: if $\xi$ has the mean zero and the variance $s^2$, then
# $\mathbb{E}\, e^{\xi} = e^{s^2/2}$. Here the Hessian of $h$ is 1, and the gradient noise of one morning has the
# variance $\sigma^2$. So the expected estimate of stop $i$ is
#
# $$\mathbb{E}\, \hat g_i = (1 - \alpha)\, \big(e^{\varphi_i - m_i + s^2/2} - 1\big), \qquad s^2 = \frac{\alpha^2 \sigma^2}{n} .$$
#
# Without noise there would be no $s^2/2$. MAML behaves as if every adapted plan were later by $s^2/2$ than it is. To
# make up for this, the adapted plans have to come earlier by $s^2/2$. A change of $\theta$ moves $\varphi_i$ by only
# $1 - \alpha$ times as much, so $\theta$ itself has to come earlier by more, and training ends where
#
# $$\boxed{\;\theta = \theta^* - \frac{s^2}{2\, (1 - \alpha)}\;}$$
#
# with the optimum $\theta^*$ of $F$. In our example $\alpha \sigma = 1$, so this distance is $1/n$ minutes. Does
# training really end there? Here is MAML on the twenty stops, two of them in every outer step. The outer learning rate
# falls slowly, so that the noise of the single steps dies out. The runs come in pairs whose noise has opposite signs
# (`sign` in the code), because the mean of such a pair is more precise.

# %%
jax.config.update("jax_enable_x64", True)  # so that checks can be strict
minutes = jnp.asarray(figures.MINUTES)  # m_i, from -1.5 to 1.5
alpha, sigma = 0.5, 2.0


def sample(key, num_support, sign):
    """Two different stops, and the mean of a few mornings at each."""
    stop_key, other_key, noise_key = jax.random.split(key, 3)
    stop = jax.random.randint(stop_key, (), 0, 20)
    other = (stop + jax.random.randint(other_key, (), 1, 20)) % 20
    stops = jnp.stack([stop, other])
    noise = sign * jax.random.normal(noise_key, (2,))
    return stops, minutes[stops] + sigma / jnp.sqrt(num_support) * noise


# %%
def outer_rate(step):
    return 0.3 / (1 + step / 100)


def train_maml(num_support, key, sign):
    """theta after every one of 20,000 outer steps."""

    def outer_step(theta, now):
        stops, observed = sample(now[1], num_support, sign)
        phi = theta - alpha * (theta - observed)
        gradients = (1 - alpha) * (jnp.exp(phi - minutes[stops]) - 1)
        theta = theta - outer_rate(now[0]) * gradients.mean()
        return theta, theta

    now = jnp.arange(20_000), jax.random.split(key, 20_000)
    return jax.lax.scan(outer_step, jnp.asarray(3.0), now)[1]


# %%
steps_prediction = predict("10.steps")

# %%
# 64 runs of each setting, in pairs with opposite noise
keys = jnp.tile(jax.random.split(jax.random.key(0), 32), 2)
signs = jnp.repeat(jnp.array([1.0, -1.0]), 32)
over_runs = jax.vmap(train_maml, (None, 0, 0))
maml_runs = jax.jit(jax.vmap(over_runs, (0, None, None)))
sizes = jnp.array([1.0, 4.0, 16.0])
maml_paths = np.asarray(maml_runs(sizes, keys, signs)) - figures.OPTIMUM

# %% tags=["fold"]
_near = {k: maml_paths[..., k - k // 10 : k].mean(-1) for k in (200, 2_000, 20_000)}
_pairs = _near[20_000].reshape(3, 2, 32).mean(1)
_end, _sure = _pairs.mean(-1), 1.96 * _pairs.std(-1, ddof=1) / np.sqrt(32)
direction_prediction.reveal(int(np.digitize(_end[1], [-2 * _sure[1], 2 * _sure[1]])))
_gained = np.abs(_near[2_000].mean(-1) / _near[20_000].mean(-1))[0]
steps_prediction.reveal(0 if 2 < _gained < 6 else 1 if _gained >= 6 else 2)
plots.table(
    {
        f"n = {int(n)}": [
            *(plots.number(float(_near[k][i].mean()), 2) for k in _near),
            f"±\u00a0{plots.number(float(_sure[i]), 1)}",
            plots.number(-figures.floor(float(n)), 3),
        ]
        for i, n in enumerate(sizes)
    },
    ["θ − θ* in minutes", "200 steps", "2,000 steps", "20,000 steps", "interval", "formula"],
    title="Where MAML ends depends on the support batch and not on the outer steps",
    caption="Mean of 64 runs over the last tenth of the steps; 95 % interval of the column before it.",
)
assert np.all(np.abs(_end + figures.floor(np.asarray(sizes))) < 2.5 * _sure + 0.01)
assert abs(_gained - 1) < 0.2
_theta = np.linspace(-3, 3, 601)  # the optimum, and the expected estimate there
_exact_phi = (1 - alpha) * _theta[:, None] + alpha * figures.MINUTES
_F = np.mean(np.exp(_exact_phi - figures.MINUTES) - (_exact_phi - figures.MINUTES) - 1, axis=1)
assert abs(_theta[_F.argmin()] - figures.OPTIMUM) < 0.006
for _n in (1, 4, 16):
    _ended = figures.OPTIMUM - figures.floor(_n)
    _off = (1 - alpha) * (_ended - figures.MINUTES) + (alpha * sigma) ** 2 / _n / 2
    assert abs(np.mean(np.exp(_off) - 1)) < 1e-12

# %% [markdown]
# With a single morning per adaptation, MAML ends a minute too early, after 2,000 steps and after 20,000. This distance
# is MAML's **floor**. (In lesson 01 the word meant a lowest loss; here it is a smallest distance.) Its formula contains
# neither the number of outer steps nor the outer learning rate. A larger support batch lowers it, in proportion to
# $1/n$.
#
# ## Biased with respect to what?
#
# So far every distance was one from $\theta^*$, the optimum of the objective $F$, in which adaptation is exact. By this
# measure MAML is biased. But somebody who comes to a stop with few records cannot adapt exactly. So we now
# compare two initializations for another use: the optimum of $F$, and the end of MAML with $n = 1$.

# %%
judged_prediction = predict("10.judged")


# %%
def cost(theta, num_support):
    """The expected cost after adapting to that many mornings."""
    off = (1 - alpha) * (theta - minutes)  # phi - m with exact adaptation
    s2 = alpha**2 * sigma**2 / num_support
    return jnp.mean(jnp.exp(off + s2 / 2) - off - 1)


# %% tags=["fold"]
_ends = {"optimum of F": figures.OPTIMUM, "end of MAML, n = 1": figures.OPTIMUM - figures.floor(1)}
_costs = {name: [float(cost(theta, np.inf)), float(cost(theta, 1))] for name, theta in _ends.items()}
judged_prediction.reveal(int(np.argmin([costs[1] for costs in _costs.values()])))
plots.table(
    _costs,
    ["", "exact adaptation", "one morning"],
    title="Each initialization is the better one for the adaptation that it was trained for",
    caption="Expected cost after adaptation, mean over the twenty stops.",
)
assert abs(float(jax.grad(cost)(figures.OPTIMUM - figures.floor(1), 1.0))) < 1e-12
assert abs(float(jax.grad(cost)(figures.OPTIMUM, np.inf))) < 1e-12

# %% [markdown]
# The second column is a meta-objective too. Let $F_n$ be the expected cost after adapting to $n$ random mornings. MAML's
# estimate is the gradient of the cost for the mornings at hand, and its expectation is the gradient of $F_n$. So MAML
# with $n$ support examples is an unbiased method for $F_n$, and ends at its optimum.
#
# Before you call MAML biased, then, ask **how many examples of a task you will have when training is over**. If every
# task is new and brings a few examples, $F_n$ is your objective, and MAML is right: a plan that is made from one bad
# clock should be cautious.
#
# There is another situation. The tasks are a finite population, such as the bus stops of your town or the phones of
# your users, and the same ones come back again and again. Each visit brings only a few examples, because more do not
# fit into one step, but over all visits they are many, and when training is over each task is adapted to all of its
# examples. Then $F$ is the objective, but in training MAML adapts to the few examples of one visit, and so its estimate
# of the gradient is biased. The rest of this lesson is about this situation.

# %% [markdown]
# ## Remember each task's adapted parameters
#
# MOML (Wang, Yuan, Ying & Yang 2021) keeps a **memory** $u_i$ for each task of the population, in which the adapted
# parameters of its visits are averaged. The query gradient is taken at the memory.

# %% tags=["fold"]
figures.moml_diagram()

# %% [markdown]
# For every task $i$ of the batch, with new support and query examples,
#
# $$\hat\varphi_i = \theta - \alpha \nabla h_i(\theta), \qquad u_i \leftarrow (1 - b)\, u_i + b\, \hat\varphi_i ,$$
#
# and then, with all tasks of the batch,
#
# $$\theta \leftarrow \theta - \eta\, \operatorname{mean}_i\, (I - \alpha H_i)\, \nabla f_i(u_i) .$$
#
# Here $H_i$ is the Hessian of the support loss of this visit at $\theta$, as in MAML. The memory stands in for the
# exactly adapted parameters $\varphi_i$. So the factor is the derivative of $\varphi_i$, and not the one of the average
# $u_i$, which would be only $b$ times as large.
#
# The memories of all other tasks stay as they are. At a task's first visit there is nothing to average with, so
# $u_i = \hat\varphi_i$; a memory that began at $\theta$ would need about $1/b$ visits to forget it. The **memory rate**
# $b$ is above 0 and at most 1, and with $b = 1$ nothing is remembered, so that MOML is MAML.

# %% [markdown]
# ## Exercise: one step of MOML
#
# Write the step for any loss and any pytree. A memory is `None` before the first visit. Compute the gradients of all
# tasks before you move $\theta$.


# %% tags=["exercise"] exercise="10.moml_step"
def moml_step(
    loss,
    params,
    memory,
    ids,
    tasks,
    inner_rate,
    outer_rate,
    memory_rate,
):
    """One outer step of MOML.

    Args:
      loss: a function of (params, batch) that returns a scalar.
      params: theta, any pytree of arrays.
      memory: a list with an entry for each task of the population: a
        pytree like `params`, or None before the first visit.
      ids: the places of this batch's tasks in `memory`, all different.
      tasks: a list like ids; each has task.support and task.query.
      inner_rate, outer_rate, memory_rate: alpha, eta and b.

    Returns:
      The new theta, and the new list of memories.
    """
    ### BEGIN SOLUTION
    memory, gradients = list(memory), []
    for i, task in zip(ids, tasks, strict=True):

        def adapt(theta, support=task.support):
            gradient = jax.grad(loss)(theta, support)
            return jax.tree.map(lambda t, g: t - inner_rate * g, theta, gradient)

        phi, pull_back = jax.vjp(adapt, params)
        if memory[i] is not None:
            phi = jax.tree.map(lambda u, p: (1 - memory_rate) * u + memory_rate * p, memory[i], phi)
        memory[i] = phi
        gradients.append(pull_back(jax.grad(loss)(memory[i], task.query))[0])
    new = jax.tree.map(lambda t, *g: t - outer_rate * sum(g) / len(g), params, *gradients)
    return new, memory
    ### END SOLUTION


# %%
check("10.moml_step", moml_step)

# %% [markdown]
# The library has this step as `ml.moml(loss, inner, outer, num_all_tasks, memory_rate)`, a learner like any other. It
# remembers a copy of the parameters for each task of the population, and that is its cost. Apart from this a step costs
# as much as a step of MAML.
#
# ## How much noise is left
#
# Let $\theta$ stand still for a while, so that only the noise of the visits differs. After many visits the memory is a
# weighted mean. The newest visit has the weight $b$, the one before $b(1-b)$, then $b(1-b)^2$, and so on. The weights
# add up to one, so the mean of the memory is the exact $\varphi$. The noises $\xi$ of the visits are independent, so their
# variances add up, multiplied by the squared weights:
#
# $$\operatorname{Var} u = s^2\, b^2 \big(1 + (1-b)^2 + (1-b)^4 + \dots\big) = \frac{s^2\, b^2}{1 - (1-b)^2}
# = \boxed{\; \frac{b}{2 - b}\, s^2 \;}$$
#
# A support batch that is $k$ times as large has the variance $s^2/k$. So a memory does what a larger support batch
# would do.

# %%
worth_prediction = predict("10.worth")


# %%
def train_moml(num_support, memory_rate, key, sign):
    """theta after every one of 10,000 outer steps."""

    def outer_step(state, now):
        theta, memory, visited = state
        stops, observed = sample(now[1], num_support, sign)
        phi = theta - alpha * (theta - observed)
        b = jnp.where(visited[stops], memory_rate, 1.0)
        u = (1 - b) * memory[stops] + b * phi
        gradients = (1 - alpha) * (jnp.exp(u - minutes[stops]) - 1)
        theta = theta - outer_rate(now[0]) * gradients.mean()
        return (theta, memory.at[stops].set(u), visited.at[stops].set(True)), theta

    start = jnp.asarray(3.0), jnp.zeros(20), jnp.zeros(20, bool)
    now = jnp.arange(10_000), jax.random.split(key, 10_000)
    return jax.lax.scan(outer_step, start, now)[1]


over_runs = jax.vmap(train_moml, (None, None, 0, 0))
moml_runs = jax.jit(jax.vmap(over_runs, (0, 0, None, None)))

# %% tags=["fold"]
_sizes, _rates = (1, 2, 4, 8, 16), {"MAML": 1.0, "MOML, b = 0.3": 0.3, "MOML, b = 0.1": 0.1}
_last = {}
for _b in (*_rates.values(), 2 / 17):  # one after another, which takes less memory
    _paths = np.asarray(moml_runs(jnp.array([*_sizes, np.inf]), jnp.full(6, _b), keys, signs))
    _last |= {(n, _b): path[:, 5_000:].mean(axis=-1) for n, path in zip((*_sizes, np.inf), _paths, strict=True)}
moml_path = _paths[0].mean(axis=0) - figures.OPTIMUM  # b = 2/17, n = 1
del _paths
# The run with exact adaptation sees the same stops, so subtracting it removes what the choice of stops contributes.
_pairs = {name: [(_last[np.inf, b] - _last[n, b]).reshape(2, 32).mean(0) for n in _sizes] for name, b in _rates.items()}
_measured = {name: np.array([each.mean() for each in every]) for name, every in _pairs.items()}
_intervals = {
    name: np.array([1.96 * each.std(ddof=1) / np.sqrt(32) for each in every]) for name, every in _pairs.items()
}
worth_prediction.reveal((2 - 0.1) / 0.1)
figures.floors(np.array(_sizes), _rates, _measured, _intervals)
for _name, _b in _rates.items():
    assert (np.abs(_measured[_name] / figures.floor(np.array(_sizes), _b) - 1) < 0.1).all()
    assert abs(_last[np.inf, _b].mean() - figures.OPTIMUM) < 0.03

# %% [markdown]
# Each point is the distance to the end of runs with exact adaptation that visit the same stops, so it shows what the
# noise alone does; the intervals are smaller than the points. The lines are MAML's distance $s^2/(2(1-\alpha))$ with
# $b\, s^2/(2-b)$ in place of $s^2$, and the points lie on them. With $b = 0.1$ and one morning, MOML ends where MAML
# would end with nineteen. So **a memory of rate $b$ is worth a support batch that is $(2-b)/b$ times as large**, and a
# small enough $b$ makes the bias as small as you like.
#
# ## Stale memories
#
# Then why not take a tiny $b$? Because $\theta$ does *not* stand still. Here are the whole runs.

# %% tags=["fold"]
_shown = np.unique(np.geomspace(1, 9_999, 300).astype(int))
_curves = {
    "MAML, n = 1": maml_paths[0].mean(0)[_shown - 1],
    "MAML, n = 16": maml_paths[2].mean(0)[_shown - 1],
    "MOML, n = 1": moml_path[_shown - 1],
}
figures.paths(_shown, _curves)
assert moml_path.min() < -2 and moml_path[moml_path.argmin() :].max() > 0.3
assert abs(moml_path[-5_000:].mean() + figures.floor(16)) < 0.03

# %% [markdown]
# MOML with $b = 2/17$ is worth sixteen examples, and ends where MAML ends with sixteen. On its way it runs past the
# optimum and has to come back. Its memories still hold plans that were adapted from an older, larger $\theta$, so the
# query gradients go on moving $\theta$ down when it has already passed the optimum. On the way back the memories come
# from a smaller $\theta$, and the same happens once more in the other direction.
#
# How old is a memory? Right after a visit, the weight $b(1-b)^j$ belongs to what was added $j$ visits ago. The mean age
# is
#
# $$\sum_j j\, b\, (1-b)^j = \frac{1-b}{b} \text{ visits},$$
#
# and with $B$ of the population's $M$ tasks in a batch, a task is visited on average once in $M/B$ outer steps. Suppose
# that the adapted parameters of a task move by the distance $d$ in each outer step, always in the same direction. Then
# the memory lags behind the fresh ones by $\frac{1-b}{b} \cdot \frac MB \cdot d$.

# %% tags=["fold"]
_steps = np.arange(121)
_target = 0.02 * _steps
_visited = _steps[_steps % 10 == 0]
_memories = {}
for _b in (0.5, 0.2):
    _u, _all = _target[0], []
    for _t in _steps:
        _u = (1 - _b) * _u + _b * _target[_t] if _t % 10 == 0 else _u
        _all.append(_u)
    _memories[f"b = {_b}"] = np.array(_all)
    _u = -(1 - _b) / _b * 10 * 0.02  # lagging as the formula says: it goes on so
    for _t in range(1, 50):
        _u = (1 - _b) * _u + _b * 10 * 0.02 * _t
    assert np.isclose(10 * 0.02 * 49 - _u, (1 - _b) / _b * 10 * 0.02)
figures.tracking(_steps, _target, _memories, _visited)

# %% [markdown]
# ## Exercise: choose the memory rate
#
# A small $b$ averages much and lags far, a large $b$ does the opposite. Now you can weigh one against the other.
#
# - **Line 1.** The variance of the memory is a multiple of the variance of one visit.
# - **Line 2.** Its mean lags behind the fresh adapted parameters, as just derived.
# - **Line 3** is yours: the mean squared error of the memory, the variance plus the squared lag. Compute it for every
#   rate of a list, and choose the best one.


# %% tags=["exercise"] exercise="10.choose_rate"
def choose_rate(rates, variance, speed, num_all_tasks, num_tasks):
    """The memory rate with the smallest mean squared error.

    Args:
      rates: candidates for b, above 0 and at most 1, shape [k].
      variance: s^2, of the adapted parameters of one visit.
      speed: d, how far the adapted parameters of a task move in each
        outer step; 0 included.
      num_all_tasks: M, tasks of the population.
      num_tasks: B, tasks in a batch.

    Returns:
      A pair of numbers: the best rate, and the error with it.
    """
    ### BEGIN SOLUTION
    lag = (1 - rates) / rates * num_all_tasks / num_tasks * speed
    errors = rates / (2 - rates) * variance + lag**2
    best = np.argmin(errors)
    return rates[best], errors[best]
    ### END SOLUTION


# %%
check("10.choose_rate", choose_rate)

# %% tags=["fold"]
_rates = np.geomspace(0.02, 1, 200)
_speeds = {"fast: d = 0.02": 0.02, "slow: d = 0.001": 0.001}
_lags = {name: np.maximum(((1 - _rates) / _rates * 10 * speed) ** 2, 1e-6) for name, speed in _speeds.items()}
figures.choice(_rates, _rates / (2 - _rates), _lags)
_best = [figures.choose(_rates, 1.0, speed, 20, 2)[0] for speed in _speeds.values()]
assert _best[0] > 2 * _best[1]

# %% [markdown]
# At the beginning of training, when $\theta$ moves fast, a large $b$ is better. Towards the end a small one is. A
# larger population has the same effect as faster training, because only the product of $M/B$ and $d$ counts. In
# practice one chooses $b$ together with the outer learning rate, since $d$ is proportional to it.

# %% [markdown]
# ## What the paper's second version does
#
# One can also move *all* memories in every outer step. The second version of MOML in the paper draws every memory
# towards $\theta$, whether its task is in the batch or not. Only the tasks of the batch have a gradient to add, and it
# counts $M/B$ times, so that on average a memory still holds the adapted parameters
# $\theta - \alpha \nabla h_i(\theta)$:
#
# $$u_i \leftarrow (1 - b)\, u_i + b\, \theta - b\, \frac MB\, \alpha \nabla h_i(\theta) \cdot
# \begin{cases} 1 & \text{if } i \text{ is in the batch} \\ 0 & \text{otherwise.} \end{cases}$$
#
# The mean age of a memory is now $\frac{1-b}{b}$ *steps* in place of visits, however large the population is. But this
# has a price. Even without any noise in the examples, the memory jumps whenever its task comes, and returns towards
# $\theta$ in between. While $\theta$ stands still and each task is in a batch with probability $B/M$, the variance of
# the memory is
#
# $$\operatorname{Var} u_i = \frac{b}{2-b}\, \Big[\, \frac MB\, s^2 + \Big(\frac MB - 1\Big)\, \alpha^2\, \lVert \nabla h_i(\theta) \rVert^2 \,\Big] .$$
#
# To compare fairly, give both versions the same mean age in outer steps.

# %% tags=["fold"]
_M, _B, _b, _step_length, _s = 20, 2, 0.3, 1.5, 1.0  # α‖∇h‖ = 1.5 and s = 1
_age = (1 - _b) / _b * _M / _B
_b2 = 1 / (1 + _age)


@jax.jit
def _second(key, noise):
    def step(u, key):
        batch_key, noise_key = jax.random.split(key)
        there = jax.random.bernoulli(batch_key, _B / _M, u.shape)
        length = _step_length + noise * jax.random.normal(noise_key, u.shape)
        return (1 - _b2) * u - _b2 * _M / _B * length * there, jnp.array([u.mean(), u.var()])

    return jax.lax.scan(step, jnp.full(4_000, -_step_length), jax.random.split(key, 1_200))[1][400:].mean(0)


def _variance(noise):
    return _b2 / (2 - _b2) * (_M / _B * noise**2 + (_M / _B - 1) * _step_length**2)


_found = {noise: np.asarray(_second(jax.random.key(2), noise)) for noise in (0.0, _s)}
plots.table(
    {
        "first version": [_age, 0.0, _b / (2 - _b) * _s**2, "–"],
        "second version": [_age, _variance(0.0), _variance(_s), float(_found[_s][1])],
    },
    ["", "mean age in steps", "variance, s\u00a0=\u00a00", "variance, s\u00a0=\u00a01", "measured, s\u00a0=\u00a01"],
    title="At the same age, the second version is noisier",
    caption="Variance of a memory, M = 20, B = 2, b = 0.3 per visit and the matching b per step, α‖∇h‖ = 1.5.",
)
for _noise, (_mean, _var) in _found.items():
    assert abs(_mean + _step_length) < 0.05 and abs(_var / _variance(_noise) - 1) < 0.1
assert _variance(_s) - _variance(0.0) > _b / (2 - _b) * _s**2

# %% [markdown]
# Both versions leave a similar part of the examples' noise; for the second one it is the difference between its two
# variances. What the second version has without any noise in the examples comes only from the choice of the batch. The
# library implements the first version.

# %% [markdown]
# ## LocalMOML: rounds against local steps
#
# Now let the tasks be phones, or *clients*, and let a server train one initialization for all of them, from which each
# phone will adapt to its owner. The data stay on the phones. This is called **personalized federated learning**. What
# costs most is not computing but communication, and so each client takes $H$ steps alone before it reports. (Here $H$
# counts steps, as in the literature on federated learning; elsewhere it is a Hessian.)

# %% tags=["fold"]
figures.local_diagram()

# %% [markdown]
# In **LocalMOML** every client of a round begins with the server's $\theta$ and with a new memory: $\theta$ adapted to
# one of its support sets. Then it takes $H$ steps of MOML on its own $\theta_i$ and $u_i$, each with new examples. The
# server's new $\theta$ is the mean of the $\theta_i$. A client keeps nothing between rounds, so a new one can take part
# at any time.

# %% [markdown]
# ## Exercise: a round of LocalMOML
#
# Write the round for any loss and any pytree; `adapt`, the inner step, is given. A local step is a step of MOML whose
# batch is one task. The memory exists from the beginning of the round, so there is no first visit to treat differently.


# %% tags=["exercise"] exercise="10.local_round"
def local_round(
    loss,
    params,
    clients,
    inner_rate,
    outer_rate,
    memory_rate,
):
    """One round of LocalMOML: the server's new theta, like `params`.

    Args:
      loss: a function of (params, batch) that returns a scalar.
      params: the server's theta, any pytree of arrays.
      clients: for each a pair (first, local): a support set, from which
        its memory begins, and a list with a task for each local step.
        All clients take the same number of local steps.
      inner_rate, outer_rate, memory_rate: alpha, eta and b.
    """

    def adapt(theta, support):
        gradient = jax.grad(loss)(theta, support)
        return optax.tree.add_scale(theta, -inner_rate, gradient)

    ### BEGIN SOLUTION
    b, ends = memory_rate, []
    for first, local in clients:
        theta, u = params, adapt(params, first)
        for task in local:
            phi, pull_back = jax.vjp(lambda t, s=task.support: adapt(t, s), theta)
            u = jax.tree.map(lambda old, new: (1 - b) * old + b * new, u, phi)
            (gradient,) = pull_back(jax.grad(loss)(u, task.query))
            theta = jax.tree.map(lambda t, g: t - outer_rate * g, theta, gradient)
        ends.append(theta)
    return jax.tree.map(lambda *thetas: sum(thetas) / len(thetas), *ends)
    ### END SOLUTION


# %%
check("10.local_round", local_round)

# %% [markdown]
# To see what local steps do, we let all twenty stops take part in each round as clients, without noise in their
# mornings. The function below returns the distance from the optimum at the beginning and after every round. For
# comparison we also call it with twenty equal clients, for which $m = 0$.

# %%
rounds_prediction = predict("10.rounds")


# %%
def federated(clients, num_local_steps, eta=0.2, b=0.3, num_rounds=100):
    """Distances from the optimum; `clients` holds the m_i."""
    optimum = -np.log(np.mean(np.exp(-(1 - alpha) * clients))) / (1 - alpha)
    theta, distances = 2.5, []
    for _ in range(num_rounds + 1):
        distances.append(abs(theta - optimum))
        thetas = np.full_like(clients, theta)
        u = thetas - alpha * (thetas - clients)
        for _ in range(num_local_steps):
            u = (1 - b) * u + b * (thetas - alpha * (thetas - clients))
            thetas = thetas - eta * (1 - alpha) * (np.exp(u - clients) - 1)
        theta = thetas.mean()
    return np.array(distances)


same = {f"H = {H}": federated(np.zeros(20), H) for H in (1, 5, 25)}
different = {f"H = {H}": federated(figures.MINUTES, H) for H in (1, 5, 25)}

# %% tags=["fold"]
_need = {H: int(np.argmax(different[f"H = {H}"] < 0.2)) for H in (1, 5, 25)}
_ends = {H: float(federated(figures.MINUTES, H, num_rounds=400)[-1]) for H in (1, 5, 25)}
rounds_prediction.reveal(int(_ends[5] > 100 * _ends[1]) if _need[5] < _need[1] else 2)
figures.rounds(np.arange(101), {k: np.maximum(v, 1e-6) for k, v in same.items()}, different)


def _left(H, b=0.3):
    """The memory's variance, averaged over the local steps, in units of that of one support set."""
    variance, total = 1.0, 0.0
    for _ in range(H):
        variance = (1 - b) ** 2 * variance + b**2
        total += variance / H
    return total


_halved = {H: float(federated(figures.MINUTES, H, eta=0.1, num_rounds=800)[-1]) for H in (1, 5, 25)}
plots.table(
    {
        f"H = {H}": [
            _need[H],
            "0" if _ends[H] < 1e-6 else plots.number(_ends[H], 2),
            "0" if _halved[H] < 1e-6 else plots.number(_halved[H], 2),
            plots.number(_left(H), 2),
        ]
        for H in (1, 5, 25)
    },
    ["local steps", "rounds to 0.2 minutes", "drift, η\u00a0=\u00a00.2", "drift, η\u00a0=\u00a00.1", "noise left"],
    title="More local steps: fewer rounds, less noise, and more drift",
    caption="Different clients. Drift: distance from the optimum in the end, in minutes. Noise left: variance of the "
    "memory in a round, relative to one support set, b = 0.3.",
)
assert min(_need.values()) > 0 and _need[5] * 3 < _need[1] and _ends[1] < 1e-6 and _ends[25] > 4 * _ends[5] > 0.04
assert abs(_halved[5] / _ends[5] - 0.5) < 0.1 and same["H = 25"][-1] < 1e-6
assert _left(1) > _left(5) > _left(25) > 0.3 / 1.7

# %% [markdown]
# Five local steps need about a fifth of the rounds. With equal clients they cost nothing in accuracy. With different
# clients, each one moves towards its own optimum between two rounds. Where a client's cost is strongly curved, its
# gradient soon becomes small on the way, and so do its steps, while clients with less curvature go on in longer ones. So
# the mean of where they end is not where the mean gradient would have led. The distance from the optimum that remains
# is called **client drift**. It grows with $H$, and while it is small it is proportional to $\eta$: with five local
# steps, half the learning rate leaves half the drift, and with twenty-five a little more.
#
# The last column holds a surprise. A LocalMOML memory lives only for one round, so it has little time to average. With
# one local step it holds two support sets, and with $b = 0.3$ more than half of the noise is left, far more than the
# $b/(2-b)$ of a memory that is kept. Local steps help here twice: they save rounds, and they give the memory time.

# %% [markdown]
# ## On a network
#
# The bus stops were made so that everything can be calculated. Do we find the same on the sine curves of lesson 02? We
# follow an experiment of MOML's authors. The population consists of 25 curves, with five amplitudes and five phases,
# and a visit brings **one** support point. The network has two hidden layers of 40 units, and $\alpha = 0.01$. The rest
# is ours: five curves in each outer step, ten query points of each, and a clipped meta-gradient (lesson 06).

# %%
jax.config.update("jax_enable_x64", False)
jax.clear_caches()  # frees the memory of the programs in float64
amplitudes = jnp.repeat(jnp.arange(1.0, 6.0), 5)
phases = jnp.tile(jnp.pi / 5 * jnp.arange(1.0, 6.0), 5)
mlp = ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0))
loss = ml.losses.mean_squared_error(ml.models.functional(mlp)[1])
inner = optax.sgd(0.01)


def population(num_support):
    sines = ml.tasks.Sinusoid(num_support, num_query=10)

    def draw(key, i):
        return sines.task(key, amplitudes[i], phases[i])

    return ml.tasks.Population(25, draw)


def learner(memory_rate):
    rate = optax.piecewise_constant_schedule(3e-3, {3_000: 0.1})
    outer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))
    return ml.moml(loss, inner, outer, num_all_tasks=25, memory_rate=memory_rate)


# %% tags=["fold"]
_SEEDS, _CHUNKS, _STEPS = 4, 10, 400


@jax.jit(static_argnums=0)
def _advance(num_support, memory_rate, states, keys):
    """400 outer steps of every run, for each of the memory rates."""

    def run(rate, state, key):
        def step(state, key):
            return learner(rate).step(state, population(num_support)(key, 5))[0], None

        return jax.lax.scan(step, state, jax.random.split(key, _STEPS))[0]

    return jax.vmap(jax.vmap(run, (None, 0, 0)), (0, 0, None))(memory_rate, states, keys)


def _begin(num_rates):
    networks = [ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(seed)) for seed in range(_SEEDS)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(ml.models.functional(each)[0] for each in networks))
    states = jax.vmap(learner(1.0).init)(params)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_rates, *leaf.shape)), states)


_groups = {1: [jnp.array([1.0, 0.3]), _begin(2)], 16: [jnp.array([1.0]), _begin(1)]}
for _chunk in bar(range(_CHUNKS), "training", seconds=8):
    _keys = jax.random.split(jax.random.key(_chunk), _SEEDS)
    for _n, _group in _groups.items():
        _group[1] = _advance(_n, *_group, _keys)


@jax.jit
def _after(params, tasks):
    def one(task):
        return loss(ml.adapt(loss, inner, params, task.support, 1), task.query)

    return jax.vmap(one)(tasks).mean()


_draws = jax.random.split(jax.random.key(7), 500)
_curves = jnp.tile(amplitudes, 20), jnp.tile(phases, 20)
_tests = [jax.jit(jax.vmap(ml.tasks.Sinusoid(n, 50).task))(_draws, *_curves) for n in (100, 1)]
_params = [jax.tree.map(lambda leaf, i=i: leaf[i], _groups[n][1].params) for n, i in ((1, 0), (1, 1), (16, 0))]
_losses = np.array([[jax.vmap(_after, (0, None))(each, tasks) for tasks in _tests] for each in _params])
plots.table(
    {
        name: [f"{mean:.2f} ± {3.18 * spread / 2:.2f}" for mean, spread in zip(*pair, strict=True)]
        for name, pair in zip(
            ("MAML, n = 1", "MOML, n = 1, b = 0.3", "MAML, n = 16"),
            zip(_losses.mean(-1), _losses.std(-1, ddof=1), strict=True),
            strict=True,
        )
    },
    ["after adapting to", "100 points", "one point"],
    title="MOML is the better one after an exact adaptation, and MAML after one point",
    caption="Query loss on the 25 curves after one inner step. Mean of four runs with its 95 % interval.",
)
_exact, _single = _losses.mean(-1).T
assert (
    _exact[1] < 0.85 * _exact[0] and _single[0] < 0.9 * _single[1] and _exact[2] < _exact[1] and _single[1] < _single[2]
)

# %% [markdown]
# The network shows what the bus stops have shown. Look first at the adaptation to a hundred points, which is nearly
# exact. With one support point at each visit, the memory lowers this loss, though not as far as sixteen support points
# do. And for whoever will have a single point, MAML with one support point remains the right training: the last column
# estimates $F_1$. There are only four runs, so look at the intervals as well as at the means.

# %% [markdown]
# ## What to take away
#
# - The mean of a curved function is not the function at the mean. So a noisy adaptation biases MAML's gradient. The bias
#   comes from the third derivatives of the query loss and the covariance of the noise. It falls like $1/n$, and no
#   number of outer steps removes it.
# - It is a bias for the objective with exact adaptation. For the cost after adapting to $n$ examples, MAML with $n$
#   examples is unbiased.
# - A memory of rate $b$ leaves $\frac{b}{2-b}$ of the variance, and so it is worth $\frac{2-b}{b}$ times as many
#   support examples.
# - A memory is on average $\frac{1-b}{b}$ visits old, and a task's visits are $M/B$ outer steps apart. The best $b$
#   balances noise against lag.
# - LocalMOML averages the clients' parameters once in a round. Local steps save rounds of communication, but where
#   clients differ, training ends at a distance from the optimum, the client drift.

# %%
quiz("10")

# %%
progress("10")

# %% [markdown]
# ## Limits
#
# - The bus stops have one parameter, a quadratic support loss and normal noise, so that every floor has a formula. On
#   other problems line 3 gives the bias of the gradient to second order in the noise, and there is no such
#   formula for the floor.
# - We assumed that noise does not enter the Hessian. Where the same examples give $\hat\varphi$ and $H$, their correlation
#   adds to the bias, also on a quadratic query loss.
# - The floors are those of small outer steps. With a constant outer learning rate $\theta$ jitters, which adds a
#   distance of its own.
# - The lag is calculated for a $\theta$ that moves steadily and for visits at equal distances. Random visits have the
#   same mean age, and scatter around it.
# - The second version is compared by the variance of its memories while $\theta$ stands still, and not in training. The
#   proofs of the paper are about rates of convergence, which we do not measure.
# - The network was trained four times with each method, in our settings, and with the better one of two outer learning
#   rates that we tried. It shows the two effects, and is not a comparison of methods.
# - Drift was measured without noise and with all clients in every round.
# - MOML needs a memory for each task, as large as the model. LocalMOML needs none between rounds.
#
# ## Go further
#
# - B. Wang, Z. Yuan, Y. Ying, T. Yang. *Memory-based optimization methods for model-agnostic meta-learning and
#   personalized federated learning.* JMLR, 2023. [arXiv 2106.04911](https://arxiv.org/abs/2106.04911). MOML in both
#   versions, and LocalMOML.
# - Y. Hu, S. Zhang, X. Chen, N. He. *Biased stochastic first-order methods for conditional stochastic optimization and
#   applications in meta learning.* NeurIPS 2020. [arXiv 2002.10790](https://arxiv.org/abs/2002.10790). The bias of an
#   inner sample, and how large the inner batch must be.
# - A. Fallah, A. Mokhtari, A. Ozdaglar. *Personalized federated learning with theoretical guarantees: a model-agnostic
#   meta-learning approach.* NeurIPS 2020. [arXiv 2002.07948](https://arxiv.org/abs/2002.07948). Per-FedAvg, which is
#   LocalMOML without a memory.
# - B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas. *Communication-efficient learning of deep networks
#   from decentralized data.* AISTATS 2017. [arXiv 1602.05629](https://arxiv.org/abs/1602.05629). Federated averaging.
# - S. P. Karimireddy and others. *SCAFFOLD: stochastic controlled averaging for federated learning.* ICML 2020.
#   [arXiv 1910.06378](https://arxiv.org/abs/1910.06378). Client drift, and a correction for it.
