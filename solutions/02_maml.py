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
# - **derive** the gradient of a loss after $K$ gradient steps,
# - **implement** it twice: with automatic differentiation, and by hand from the last step to the first,
# - **measure** what it buys on Finn et al.'s sine curves, at the full length of their experiment,
# - **predict** how large an inner step may be when there are many of them.
#
# **New symbols**
#
# - $\theta$: initialization
# - $\phi_k$: after $k$ inner steps
# - $H$: Hessian of $h$
# - $K$: number of inner steps
# - $F(\theta) = f(\phi_K)$: meta-objective
# - $\eta$: outer learning rate

# %% tags=["imports"]
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import metalearn as ml
from metalearn import plots
from metalearn.course import check, explore, playground, predict, progress, quiz, setup

setup()  # compile for many small programs, and keep what was compiled

# %% [markdown]
# ## Two curves that look alike
#
# Here are the three networks of lesson 01 again: from a random initialization, from joint training, and from MAML. The
# last two begin with nearly the same curve, and so with nearly the same loss. This time, put the points where *you* want
# them: drag them, or remove them all and click new ones.
#
# Can you find five points that the network from MAML fits badly after three steps? Think first about which curves it has
# met in its training, and then try a straight line.

# %%
playground("adapt_a_sine")

# %% [markdown]
# A few gradient steps turn one of these curves into a new sine and leave the other behind, although neither their network
# nor their loss at the beginning tells them apart. What differs is how their loss *changes* with a step. This lesson finds
# the gradient that trains for exactly that.

# %% [markdown]
# ## Where would you start?
#
# Two tasks, one parameter $\phi$. Each task's loss is a parabola. The first is steep, the second is flat.
# You choose **one** start $\theta$ for both. Then each task takes one gradient step of its own, and is scored there.

# %%
steepness = np.array([3.0, 0.5])
minimum = np.array([-1.0, 2.0])
alpha = 0.3


def task_loss(phi):
    """Both tasks' losses, shape [..., 2]."""
    return 0.5 * steepness * (np.asarray(phi)[..., None] - minimum) ** 2


grid = np.linspace(-2.5, 3.5, 121)
steep, flat = task_loss(grid).T
plots.show(
    plots.lines(grid, {"steep task": steep, "flat task": flat}, "parameter φ", "loss", ylim=(-0.15, 4)),
    alt="Two parabolas. The steep one has its minimum at minus one, the flat one at two.",
)

# %% [markdown]
# Each task alone is easy: the steep one wants $\phi = -1$, the flat one $\phi = 2$.
# A start that is best *without* adaptation sits near the steep task, because a miss costs most there.

# %% tags=["nbval-check-output"]
average_start = (steepness * minimum).sum() / steepness.sum()
print(f"best start without adaptation: {average_start:.2f}")

# %% [markdown]
# Now each task may take one step of size $\alpha = 0.3$ before it is scored.

# %%
best_start_prediction = predict(
    "02.best_start",
    "With one step of adaptation, where is the best start?",
    options=[
        "still close to the steep task's minimum",
        "half way between the two minima",
        "close to the flat task's minimum",
    ],
)


# %%
def adapted_loss(theta):
    """Both tasks' losses after one gradient step from theta, shape [..., 2]."""
    start = np.asarray(theta)[..., None]
    return 0.5 * steepness * (start - alpha * steepness * (start - minimum) - minimum) ** 2


no_step, one_step = task_loss(grid).mean(-1), adapted_loss(grid).mean(-1)
meta_start = grid[one_step.argmin()]
best_start_prediction.reveal("close to the flat task's minimum")
print(f"best start with one step of adaptation: {meta_start:.2f}")
assert abs(meta_start - minimum[1]) < abs(meta_start - minimum.mean())
plots.show(
    plots.lines(
        grid,
        {"mean loss at the start": no_step, "mean loss after one step": one_step},
        "start θ",
        "mean loss of the two tasks",
        points={"best start": ([average_start, meta_start], [no_step.min(), one_step.min()])},
        ylim=(-0.15, 4),
    ),
    alt="Mean loss against the start. Without adaptation the lowest point is left of zero, near the steep task. "
    "After one step the curve is much flatter and its lowest point lies close to two, the flat task's minimum.",
)

# %% [markdown]
# The best start moved to the other task. The steep task covers most of the distance in one step, so it can wait.
# The flat task cannot, so the start goes to it.
# **A good start is not close to all solutions. It is close to those that are slow to reach.**
#
# Finding it needs the slope of the second curve: how the loss *after* adaptation changes when you move the start.
# That slope is the meta-gradient.

# %% [markdown]
# ## A nudge, five steps later
#
# Take one parabola and a step that shrinks the distance to its minimum by the factor $0.9$.
# Start twice, from two points close to each other, and take five steps from both.

# %%
nudge_prediction = predict(
    "02.nudge", "After five steps, what fraction of the distance between the two runs is left?", unit="fraction"
)

# %%
curvature, step_size = 1.0, 0.1


def five_steps(phi):
    for _ in range(5):
        phi = phi - step_size * curvature * phi
    return phi


survives = (five_steps(2.0 + 0.01) - five_steps(2.0)) / 0.01
nudge_prediction.reveal(survives)
print(f"one step keeps {1 - step_size * curvature:.2f} of a nudge, five steps keep {survives:.2f}")
assert np.isclose(survives, 0.9**5)

# %% [markdown]
# Each step multiplies the nudge by $1 - \alpha H$, with $H$ the curvature. Five steps multiply it five times.
# If the adapted point moves by only that fraction, the loss there feels only that fraction too.
# So in one dimension, on a parabola,
#
# $$F'(\theta) = (1 - \alpha H)^5 \, f'(\phi_5).$$
#
# The rest of this section is the same sentence for many parameters and any loss.

# %% [markdown]
# ## The derivation, line by line
#
# One task gives two sets of points: **support**, which adaptation may use, with loss $h$; and **query**, which
# scores the result, with loss $f$. Adaptation walks
#
# $$\phi_0 = \theta, \qquad \phi_{k+1} = \phi_k - \alpha \nabla h(\phi_k), \qquad k = 0, \dots, K-1,$$
#
# and the meta-objective is $F(\theta) = f(\phi_K)$.
#
# The example below is the curve of lesson 00: $y = a \sin(x - b)$ with the two parameters $\phi = (a, b)$.
# It is small enough to print every matrix. We work in float64, so that a check can be strict.

# %%
jax.config.update("jax_enable_x64", True)


@jax.jit
def wave_loss(params, batch):
    """Mean squared error of a sine curve; params = [amplitude, phase]."""
    x, y = batch
    return jnp.mean((params[0] * jnp.sin(x - params[1]) - y) ** 2)


example = ml.tasks.Sinusoid(num_support=5, num_query=5).task(jax.random.key(3), amplitude=2.0, phase=1.0)
theta, alpha, num_steps = jnp.array([1.0, 0.3]), 0.1, 3


def h(phi):
    return wave_loss(phi, example.support)


def f(phi):
    return wave_loss(phi, example.query)


def walk(phi, num_steps):
    """phi after `num_steps` gradient steps on h."""
    for _ in range(num_steps):
        phi = phi - alpha * jax.grad(h)(phi)
    return phi


def F(theta):
    return f(walk(theta, num_steps))


path = [walk(theta, k) for k in range(num_steps + 1)]
print(f"query loss at the start {f(path[0]):.3f}, after {num_steps} steps {f(path[-1]):.3f}")

# %% [markdown]
# **Line 1, the chain rule.** The loss is a function of the adapted point, which is a function of the start:
#
# $$\nabla F(\theta) = \Big(\frac{\partial \phi_K}{\partial \theta}\Big)^{\!\top} \nabla f(\phi_K).$$

# %% tags=["nbval-check-output"]
jacobian = jax.jacobian(lambda start: walk(start, num_steps))(theta)
assert jnp.allclose(jax.grad(F)(theta), jacobian.T @ jax.grad(f)(path[-1]))
print("line 1 holds")

# %% [markdown]
# **Line 2, one step.** Differentiate $\phi_{k+1} = \phi_k - \alpha \nabla h(\phi_k)$. The first term gives the
# identity $I$. The second gives the Hessian $H_k = \nabla^2 h(\phi_k)$, the matrix of second derivatives:
#
# $$\frac{\partial \phi_{k+1}}{\partial \phi_k} = I - \alpha H_k.$$

# %%
factors = [jnp.eye(2) - alpha * jax.hessian(h)(phi) for phi in path[:-1]]
for phi, factor in zip(path[:-1], factors, strict=True):
    assert jnp.allclose(jax.jacobian(lambda start: walk(start, 1))(phi), factor)
print("line 2 holds at every step")

# %% [markdown]
# **Line 3, all steps.** Steps are composed, so their derivatives multiply. The last step stands on the left:
#
# $$\frac{\partial \phi_K}{\partial \theta} = (I - \alpha H_{K-1}) \cdots (I - \alpha H_1)(I - \alpha H_0).$$

# %%
assert jnp.allclose(jacobian, factors[2] @ factors[1] @ factors[0])
print("line 3 holds")

# %% [markdown]
# **Line 4, the meta-gradient.** Put line 3 into line 1. Transposing reverses the order, and each factor is its own
# transpose, because Hessians are symmetric:
#
# $$\boxed{\;\nabla F(\theta) = (I - \alpha H_0)(I - \alpha H_1) \cdots (I - \alpha H_{K-1}) \, \nabla f(\phi_K)\;}$$
#
# Read it from right to left. The query gradient is born at the end of the path. Each step hands it one point back,
# through the factor of that step.

# %%
product = factors[0] @ factors[1] @ factors[2] @ jax.grad(f)(path[-1])
reversed_product = factors[2] @ factors[1] @ factors[0] @ jax.grad(f)(path[-1])
assert jnp.allclose(jax.grad(F)(theta), product)
assert not jnp.allclose(product, reversed_product, rtol=1e-3)
print("meta-gradient by jax.grad:   ", jax.grad(F)(theta))
print("product of the factors:      ", product)
print("factors in the wrong order:  ", reversed_product)
print("no factors at all (FO-MAML): ", jax.grad(f)(path[-1]))

# %% [markdown]
# The product is exact. The wrong order is visibly wrong: Hessians at different points do not commute.
# The last line drops the factors. That is FO-MAML, the cheap version that the same paper proposes.

# %% [markdown]
# ## Exercise: the gradient of the loss after adaptation
#
# Write the meta-gradient for any loss and any pytree of parameters. Let `jax.grad` do the differentiating.


# %% tags=["exercise"] exercise="02.meta_gradient"
def meta_gradient(loss, task, params, step_size, num_steps):
    """The gradient, with respect to the start, of the query loss after
    adaptation.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query; each is a batch for
        `loss`.
      params: the start, any pytree of arrays.
      step_size: alpha, a number.
      num_steps: K, a whole number.

    Returns:
      A pytree with the structure and shapes of `params`.
    """

    ### BEGIN SOLUTION
    def loss_after_adaptation(start):
        adapted = start
        for _ in range(num_steps):
            slope = jax.grad(loss)(adapted, task.support)
            adapted = jax.tree.map(lambda p, g: p - step_size * g, adapted, slope)
        return loss(adapted, task.query)

    return jax.grad(loss_after_adaptation)(params)
    ### END SOLUTION


# %%
check("02.meta_gradient", meta_gradient)

# %% [markdown]
# ## Exercise: the same gradient by hand, from the last step to the first
#
# Now without differentiating through the loop. Walk forwards and keep the points. Then carry the query gradient back
# along the boxed equation, one factor at a time. This is what `jax.grad` did for you, and what it had to store.


# %% tags=["exercise"] exercise="02.backward_pass"
def backward_pass(loss, task, params, step_size, num_steps):
    """The meta-gradient as a product of factors; only derivatives of
    `loss` at single points are used.

    Args:
      loss: function of (params, batch) that returns a scalar.
      task: a pair with task.support and task.query.
      params: the start, an array of shape [d].
      step_size: alpha, a number.
      num_steps: K, a whole number.

    Returns:
      An array of shape [d].
    """
    ### BEGIN SOLUTION
    path = [params]
    for _ in range(num_steps):
        path.append(path[-1] - step_size * jax.grad(loss)(path[-1], task.support))

    vector = jax.grad(loss)(path[-1], task.query)
    for phi in reversed(path[:-1]):
        vector = vector - step_size * jax.hessian(loss)(phi, task.support) @ vector
    return vector
    ### END SOLUTION


# %%
check("02.backward_pass", backward_pass)

# %% [markdown]
# ## One outer step
#
# MAML repeats three things. Draw a batch of tasks. Average their meta-gradients. Step.
#
# $$\theta \leftarrow \theta - \eta \, \frac{1}{B} \sum_{i=1}^{B} \nabla F_i(\theta)$$

# %% [markdown]
# ## Exercise: one outer step over a batch of tasks
#
# `tasks` holds $B$ tasks: every array in it has one more leading axis, of length $B$.
# `ml.maml(loss, inner, num_steps)` gives you the meta-gradient of one task; `jax.vmap` does the rest.


# %% tags=["exercise"] exercise="02.meta_step"
def meta_step(
    loss,
    tasks,
    params,
    step_size,
    num_steps,
    meta_step_size,
):
    """The parameters after one step of plain gradient descent on the
    mean loss after adaptation.

    Args:
      loss: function of (params, batch) that returns a scalar.
      tasks: a Task whose arrays have a leading axis of length B.
      params: the start shared by all tasks, any pytree of arrays.
      step_size: alpha, of the inner steps.
      num_steps: K, the number of inner steps.
      meta_step_size: eta, of the outer step.

    Returns:
      A pytree with the structure and shapes of `params`.
    """
    # (params, task) -> (query loss, gradient)
    one_task = jax.jit(ml.maml(loss, optax.sgd(step_size), num_steps))
    ### BEGIN SOLUTION
    _, gradients = jax.vmap(one_task, in_axes=(None, 0))(params, tasks)
    return jax.tree.map(lambda p, g: p - meta_step_size * g.mean(axis=0), params, gradients)
    ### END SOLUTION


# %%
check("02.meta_step", meta_step)

# %% [markdown]
# ## Finn et al.'s experiment, at full length
#
# The family of lesson 01: amplitude and phase differ from task to task. The network has two hidden layers of 40 units.
# Each meta-step draws 25 new tasks with 10 support and 10 query points, and adapts by one step with $\alpha = 0.01$.
# The outer rule is Adam with rate $10^{-3}$. The paper takes 70,000 meta-steps, and so do we. Read on while the bar moves.
#
# `ml.meta_learner` is the outer step you wrote, with any optax rule. `ml.fit` repeats it inside compiled code.
#
# While training, every task takes one step. At the test there are 1,000 new tasks, and ten steps.
# For comparison: the *average start*, trained on all tasks without adaptation, as in lesson 01.

# %%
before_prediction = predict(
    "02.before_adaptation",
    "Before any adaptation, how does the meta-learned start score, compared with the average start?",
    options=["much better", "about the same", "much worse"],
)
one_step_prediction = predict(
    "02.after_one_step",
    "The average start has a query loss near 3. What is the meta-learned start's query loss after one step?",
    unit="mean squared error",
)

# %%
jax.config.update("jax_enable_x64", False)  # training runs in float32

family = ml.tasks.Sinusoid(num_support=10, num_query=10)
random_start, network = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
loss = ml.losses.mean_squared_error(network)
inner = optax.sgd(0.01)

learner = ml.meta_learner(ml.maml(loss, inner, num_steps=1), optax.adam(1e-3))
result = ml.fit(learner, random_start, family, num_steps=70_000, meta_batch_size=25, key=jax.random.key(0))

# %% [markdown]
# Now the average start. With zero inner steps `ml.maml` is joint training. It adapts with $\alpha = 0.005$, the best step
# size for the average network of lesson 01.

# %%
joint = ml.meta_learner(ml.maml(loss, inner, num_steps=0), optax.adam(1e-3))
average = ml.fit(joint, random_start, family, num_steps=5_000, meta_batch_size=25, key=jax.random.key(1))

new_tasks = family(jax.random.key(2), 1_000)
maml_curve = ml.evaluate.adaptation_curve(loss, inner, result.params, new_tasks, num_steps=10)
average_curve = ml.evaluate.adaptation_curve(loss, optax.sgd(0.005), average.params, new_tasks, num_steps=10)

before_prediction.reveal("about the same")
one_step_prediction.reveal(float(maml_curve[1].mean()))
assert 0.8 < maml_curve[0].mean() / average_curve[0].mean() < 1.25
assert maml_curve[1].mean() < average_curve[10].mean() / 5
print("query loss on 1,000 new tasks, with its 95 % interval")
for steps in (0, 1, 10):
    print(f"inner steps: {steps}")
    print("  average start", ml.evaluate.score(average_curve[steps]))
    print("  MAML start   ", ml.evaluate.score(maml_curve[steps]))

# %%
plots.show(
    plots.adaptation({"average start": average_curve, "MAML start": maml_curve}, "query loss (squared error)", log="y"),
    alt="Query loss against inner steps, on a logarithmic axis. Both curves begin near three. The average start stays "
    "there for some steps, then falls slowly. The MAML start falls about ninefold in the first "
    "step, and lies lower still after ten.",
)

# %% [markdown]
# The two starts are equally bad where they are. They differ in where one step takes them: one step from the MAML start
# leaves less than a fifth of what ten steps from the average start leave. MAML was trained for one step; after ten
# it is better still.
#
# Look at one task. Move the sliders: **which curves are still wrong after one step?** Try the ends of the ranges,
# and one amplitude that training never saw: the family's amplitudes end at 5.

# %%
x_grid = jnp.linspace(-5, 5, 201)[:, None]


@jax.jit
def trajectory(params, task):
    """The network's curve after 0, 1, ..., 10 inner steps, shape [11, 201]."""

    def step(state, _):
        after = ml.inner.step(lambda phi: loss(phi, task.support), inner, state)
        return after, network(state.params, x_grid)[:, 0]

    return jax.lax.scan(step, ml.inner.init(inner, params), length=11)[1]


@jax.jit
def sine_task(amplitude, phase):
    return family.task(jax.random.key(4), amplitude, phase)


def draw_adaptation(amplitude, phase, steps):
    task = sine_task(amplitude, phase)
    curves = trajectory(result.params, task)
    return plots.lines(
        x_grid[:, 0],
        {
            "true curve": amplitude * jnp.sin(x_grid[:, 0] - phase),
            "before": curves[0],
            f"inner steps: {steps}": curves[steps],
        },
        "x",
        "y",
        points={"support points": (task.support[0][:, 0], task.support[1][:, 0])},
        ylim=(-8, 8),
    )


explore(
    draw_adaptation,
    "A true sine curve, ten support points on it, the network's curve before adaptation and after the chosen number "
    "of steps.",
    amplitude=(0.1, 6.0, 0.1, 4.0),
    phase=(0.0, 3.1, 0.1, 1.0),
    steps=(0, 10, 1, 1),
)

# %%
losses, relative = [], []
print("amplitude A   loss after one step   divided by A²/2")
for amplitude in (0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
    same_amplitude = ml.tasks.Sinusoid(amplitude=(amplitude, amplitude))(jax.random.key(5), 1_000)
    score = ml.evaluate.meta_test(loss, inner, result.params, same_amplitude, num_steps=1)
    losses.append(score.mean)
    relative.append(score.mean / (amplitude**2 / 2))
    print(f"{amplitude:11.1f}   {losses[-1]:19.3f}   {relative[-1]:15.3f}")
assert np.argsort(losses)[-3:].tolist() == [4, 5, 6]
assert np.argmax(relative) == 0 and relative[0] > 1 > max(relative[1:])

# %% [markdown]
# There are two answers. In squared error, the largest amplitudes are the hardest, and outside the family, at 6, the loss is
# higher still. But $A^2/2$ is the loss of the flat curve $y = 0$, and measured by that the smallest amplitude is the
# hardest: at 0.1 the adapted curve is worse than a flat one. A learned start is a bet on tasks like those it was trained
# on, weighted by the loss it was trained with.

# %% [markdown]
# ## Many inner steps want small ones
#
# More inner steps adapt further. What do they do to the meta-objective $F$?
#
# Where the loss curves downwards, $H_k$ is negative and a factor $(I - \alpha H_k)$ stretches instead of shrinking, by up
# to $1 + \alpha L$ if $L$ bounds the curvature. Now differentiate the boxed product once more. In one term the derivative
# hits $\nabla f$, and the $N$ factors appear twice. In the other it hits a factor. Ji, Yang & Liang (2022) bound the sum:
#
# $$|F''| \;\le\; L\,(1 + \alpha L)^{2N} \;+\; \frac{\rho}{L}\,(1 + \alpha L)^{2N-1}\big((1 + \alpha L)^N - 1\big)\,G,$$
#
# where $G$ bounds the gradient and $\rho$ how fast the curvature changes. Both terms are powers of $1 + \alpha L$.
#
# To see whether it happens, take twenty tasks with wavy losses $\sum_j (1 - \cos(w_j - b_j))$ in ten dimensions. Each
# coordinate has $L = \rho = G = 1$. The next cell measures the largest curvature of $F$ over random points.

# %%
curvature_prediction = predict(
    "02.curvature",
    "From N = 1 to N = 16 inner steps with α = 0.5: by what factor does the largest curvature of F grow?",
    options=["about 1", "about 16", "more than 1,000"],
)

# %%
phases = jax.random.uniform(jax.random.key(6), (20, 10), maxval=2 * jnp.pi)  # b, one row for each task
random_points = jax.random.uniform(jax.random.key(7), (200, 10), maxval=2 * jnp.pi)


def cosine_losses(w, b):
    """The loss of each coordinate, shape [10]."""
    return 1 - jnp.cos(w - b)


def mean_adapted_losses(w, step_size, num_steps):
    """F by coordinate: the mean losses of the twenty tasks after adaptation from w."""

    def one_task(b):
        def one_step(_, phi):
            return phi - step_size * jnp.sin(phi - b)

        return cosine_losses(jax.lax.fori_loop(0, num_steps, one_step, w), b)

    return jax.vmap(one_task)(phases).mean(axis=0)


@jax.jit
def largest_curvature(step_size, num_steps):
    """The largest |eigenvalue| of the Hessian of F, over the random points.

    The tasks treat each coordinate on its own, so the Hessian is diagonal. A second derivative forwards, in the direction
    of ones, gives all of its entries at once.
    """

    def slopes(w):
        return jax.jvp(lambda w: mean_adapted_losses(w, step_size, num_steps), (w,), (jnp.ones(10),))[1]

    return jnp.abs(jax.jvp(jax.vmap(slopes), (random_points,), (jnp.ones((200, 10)),))[1]).max()


counts = np.array([1, 2, 4, 8, 16])
bound = 1.5 ** (2 * counts) + 1.5 ** (2 * counts - 1) * (1.5**counts - 1)  # L = rho = G = 1, alpha = 0.5
fixed = np.array([largest_curvature(0.5, n) for n in counts])
scaled = np.array([largest_curvature(1 / (8 * n), n) for n in counts])
curvature_prediction.reveal("more than 1,000")
for n, a, b in zip(counts, fixed, scaled, strict=True):
    print(f"N = {n:2d}   α = 0.5: largest curvature {a:9.3g}     α = 1/(8N): {b:.3f}")
assert fixed[-1] / fixed[0] > 1_000 and (fixed <= bound).all()

# %%
plots.show(
    plots.lines(
        counts,
        {"α = 0.5": fixed, "α = 1/(8N)": scaled, "bound for α = 0.5": bound},
        "number of inner steps N",
        "largest curvature of F",
        log="xy",
    ),
    alt="Largest curvature of the meta-objective against the number of inner steps, both axes logarithmic. With a fixed "
    "step it grows by more than a thousand, below its bound. With a step of one over eight N it stays flat.",
)

# %% [markdown]
# With a fixed step the curvature explodes, as the bound said it could. With $\alpha = 1/(8N)$ it does not move.
# The reason fits in one line: $(1 + \frac{1}{8N})^{2N} < e^{1/4}$ for every $N$, and the other powers stay bounded too.

# %% tags=["nbval-check-output"]
power = (1 + 1 / (8 * counts)) ** (2 * counts)
assert (power < np.exp(1 / 4)).all()
print("(1 + 1/(8N))^(2N) =", power.round(3), "  e^(1/4) =", np.exp(1 / 4).round(3))

# %% [markdown]
# ## Exercise: the largest inner step that keeps the meta-objective tame
#
# Find the largest $\alpha$ for which the power in the bound's first term, $(1 + \alpha L)^{2N}$, is at most 2.


# %% tags=["exercise"] exercise="02.largest_step"
def largest_step(curvature, num_steps):
    """The step size alpha with (1 + alpha * curvature) **
    (2 * num_steps) equal to 2.

    Args:
      curvature: L > 0, a number.
      num_steps: N, a whole number of at least 1.

    Returns:
      A number.
    """
    ### BEGIN SOLUTION
    return (2 ** (1 / (2 * num_steps)) - 1) / curvature
    ### END SOLUTION


# %%
check("02.largest_step", largest_step)

# %% [markdown]
# ## Question: where the bound comes from
#
# On paper, about 15 minutes. Take one parameter, and one loss for support and query, so $f = h$, with $|h''| \le L$ and
# $|h'''| \le \rho$ everywhere. In one dimension the box reads $F'(\theta) = J_N\, h'(\phi_N)$ with
# $J_k = \prod_{i<k} \big(1 - \alpha h''(\phi_i)\big)$. Differentiate it once more, and derive the bound above, with
# $G = |h'(\theta)|$.
#
# Write your answer into the next cell: a double click opens it. The worked lesson has one to compare with.

# %% [markdown] tags=["free-text"] question="02.curvature_bound"
# ### BEGIN SOLUTION
# **Two terms.** $J_k$ is also $d\phi_k / d\theta$ (line 3). So the product rule gives
#
# $$\begin{aligned}
# F'' &= J_N^2\, h''(\phi_N) + J_N'\, h'(\phi_N), \\
# J_N' &= -\alpha \sum_{k=0}^{N-1} h'''(\phi_k)\, J_k \prod_{i \ne k} \big(1 - \alpha h''(\phi_i)\big).
# \end{aligned}$$
#
# **First term.** Write $q = 1 + \alpha L$. Every factor is at most $q$ in size, so $|J_k| \le q^k$, and
# $|J_N^2\, h''(\phi_N)| \le L\, q^{2N}$.
#
# **The gradient at the end.** One step changes $h'$ by at most $L\,|\phi_{k+1} - \phi_k| = \alpha L\,|h'(\phi_k)|$. So it
# grows by a factor of at most $q$ each time: $|h'(\phi_N)| \le q^N G$.
#
# **Second term.** The product over $i \ne k$ has $N - 1$ factors. The geometric sum does the rest, since $q - 1 = \alpha L$:
#
# $$|J_N'| \le \alpha \rho\, q^{N-1} \sum_{k=0}^{N-1} q^k = \alpha \rho\, q^{N-1}\, \frac{q^N - 1}{\alpha L}
# = \frac{\rho}{L}\, q^{N-1} (q^N - 1).$$
#
# Times $q^N G$, this is the second term of the bound.
# ### END SOLUTION

# %% [markdown]
# ## Limits
#
# - The bound is a worst case. Where all curvatures are positive, factors shrink and long inner loops are harmless to $F$.
#   A small $\alpha$ is the price of a guarantee, not always of a good result.
# - `jax.grad` stored the whole path. Memory grows with the number of inner steps.
# - Sine curves have two numbers to find. They show the mechanism, not that MAML is the best method for any problem.
# - One seed of one network was shown here. A comparison of methods needs several seeds and a declared budget.
#
# ## What to take away
#
# - A good start is close to the solutions that are slow to reach.
# - The meta-gradient is the query gradient, carried back through one factor $(I - \alpha H_k)$ for each inner step.
# - The last step's factor comes first, and every factor is taken where its step began.
# - $N$ steps multiply $N$ factors: keep $\alpha$ near $1/N$, or the meta-objective bends without limit.

# %%
quiz("02")

# %%
progress("02")

# %% [markdown]
# ## References
#
# - C. Finn, P. Abbeel, S. Levine. *Model-agnostic meta-learning for fast adaptation of deep networks.* 2017.
#   [arXiv 1703.03400](https://arxiv.org/abs/1703.03400). The algorithm, and the sine experiment (section 5.1).
# - K. Ji, J. Yang, Y. Liang. *Theoretical convergence of multi-step model-agnostic meta-learning.* JMLR 23, 2022.
#   [arXiv 2002.07836](https://arxiv.org/abs/2002.07836). The bound, and $\alpha \sim 1/N$.
