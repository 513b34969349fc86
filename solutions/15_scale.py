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
# - **predict** time and memory of a meta-gradient before it runs, even of a method of your own,
# - **derive** up to which $K$ rematerialization needs less memory than FO-B-MAML,
# - **estimate** what each method would cost for a billion parameters,
# - **spread** the tasks of a batch over devices, and average over uneven shares,
# - **test** that a run which is killed resumes to the same bits.
#
# **New symbols**
#
# - $P$, $O$: memory of a copy of the parameters; of the outputs of all layers for one set of examples
# - $D$: number of devices
# - $S$: how many of the last inner steps are differentiated

# %% tags=["imports"]
import inspect  # this cell loads JAX and the course, which takes a few seconds
import math
import tempfile

import jax
import numpy as np

import metalearn as ml
from metalearn import plots
from metalearn.course import bar, check, explore, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_15 as figures
from metalearn.course.lessons import scale

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Before you start a long run
#
# Until now every run took seconds, and when it went wrong you ran the cell again. A run that takes a week on rented
# machines is different. Before you start it you want to know whether it fits into memory and when it will be done.
# While it runs it should use all devices that you pay for. And when a machine fails in the middle of the night, the
# work of the days before should not be lost.
#
# The first question has an answer on paper. Below, each point is a meta-gradient with some number of inner steps $K$.
# Its cost was predicted by a formula with two or three terms, and then measured.

# %% tags=["fold"]
figures.predicted_and_measured()
_worst = {kind: figures.worst(kind) for kind in ("memory", "time")}
print(f"largest factor between the two: {_worst['memory']:.2f} for memory, {_worst['time']:.2f} for time")
assert max(_worst.values()) < 1.5
_far = max(figures.record()["time"], key=lambda row: row["measured"] / row["predicted"])
_most = max(figures.record()["memory"], key=lambda row: row["measured"] * (row["network"] == "both"))
assert {(row["method"], row["K"]) for row in (_far, _most)} == {("MAML", 64)}

# %% [markdown]
# Farthest from the line lies the time of MAML with 64 steps, which keeps more in memory than any other on its network.
# All points come from a record, which `python -m metalearn.course.lessons.scale record` writes. In this lesson you
# derive such formulas, repeat a part of the measurements, spread a run over devices, and kill one.
#
# *Short of time? Skip the sections "A billion parameters, on paper" and "On a cluster".*

# %% [markdown]
# ## Time: count gradients
#
# The unit is one gradient of the loss on a support set. In a dense network it takes about six floating-point operations
# for each parameter and example, two on the way forwards and four on the way back. Whatever else a method does
# can be counted in this unit:
#
# | what is computed | gradients | why |
# |---|---|---|
# | an inner step | 1 | it takes the gradient of the support loss |
# | a value of the loss | ⅓ | only the way forwards |
# | a Hessian-vector product | 2 | the derivative of a gradient computation costs about twice that computation |
# | a gradient on $n$ times as many examples | $n$ | every example passes through the network once |
# | an inner step computed again | 1 | rematerialization, see below |
#
# Updates of the parameters cost next to nothing beside these, as long as there are more than a few examples. So MAML
# costs $K$ gradients forwards, one gradient on a query set of the same size, and $K$ Hessian-vector products backwards:
#
# $$K + 1 + 2K = 3K + 1 .$$

# %% [markdown]
# ## Exercise: the cost of a new method
#
# Here is a method that is not in the library. **Truncated MAML** (Shaban et al. 2019) takes $K$ inner steps, but
# backpropagates through the last $S$ of them only. The steps before are treated as constants. With $S = 0$ this is
# FO-MAML, and with $S = K$ it is MAML. If $S$ exceeds $K$, all steps are differentiated.
#
# Predict what an outer step of it costs on $D$ devices. They share the tasks as evenly as whole tasks can be shared,
# and the step ends when the busiest device has finished.


# %% tags=["exercise"] exercise="15.step_cost"
def step_cost(
    num_steps,
    kept_steps,
    num_support,
    num_query,
    num_tasks,
    num_devices,
):
    """What the busiest device computes in an outer step.

    Args:
      num_steps: K, at least 0.
      kept_steps: S, the last inner steps, which are
        differentiated; may be larger than K.
      num_support: examples of a support set.
      num_query: examples of a query set.
      num_tasks: in a batch.
      num_devices: D.

    Returns:
      A number: gradients on one support set.
    """
    ### BEGIN SOLUTION
    tasks = math.ceil(num_tasks / num_devices)
    products = min(kept_steps, num_steps)
    return tasks * (num_steps + 2 * products + num_query / num_support)
    ### END SOLUTION


# %%
check("15.step_cost", step_cost)

# %% [markdown]
# The prediction is only worth something if it holds, so we measure. Each method is compiled for one task, and its time
# is compared with that of $K$ plain inner steps. We take processor time, which does not run while the machine is busy
# with something else, and run the programs in turn, so that whatever disturbs the machine disturbs all of them.

# %%
K, S = 16, 4
loss, params, task, sizes = scale.problem((1, 128, 128, 1), num_examples=400)


def truncated(params, task):
    """MAML from where K - S steps have led; their sum is a constant."""
    phi = ml.inner.descend(lambda p: loss(p, task.support), scale.SGD, K - S, params)
    return ml.maml(loss, scale.SGD, S)(phi, task)


names = ("MAML", "MAML, remat", "FO-MAML", "FO-B-MAML symmetric")
functions = {name: scale.METHODS[name].build(loss, K) for name in names}
functions["truncated MAML"] = truncated

# %%
unit = scale.inner_steps(loss, K, params, task)
programs, turns = {}, {name: [] for name in functions}
ticks = [(turn, name) for turn in range(5) for name in functions]
for turn, name in bar(ticks, "measuring", seconds=8):
    if turn == 0:
        programs[name] = jax.jit(functions[name]).lower(params, task).compile()
    of_method = scale.seconds(programs[name], params, task)
    of_steps = scale.seconds(unit, params, task)
    turns[name].append(of_method / of_steps * K)
gradients = {name: np.median(ratios) for name, ratios in turns.items()}

# %% tags=["fold"]
_expected = {name: scale.predicted(scale.METHODS[name], K, sizes).gradients for name in scale.METHODS}
_expected["truncated MAML"] = figures.step_cost(K, S, 1, 1, 1, 1)
_is_predicted = all(1 / 1.8 < gradients[name] / _expected[name] < 1.8 for name in functions)
plots.table(
    {name: [_expected[name], float(found), f"{found / _expected[name]:.2f}"] for name, found in gradients.items()},
    ["", "predicted gradients", "measured", "measured / predicted"],
    title="The count of gradients predicts the time"
    if _is_predicted
    else "Something else took time: on a machine that is less busy, run the last two cells again",
    caption=f"K = {K}, S = {S}, one task with {sizes.num_examples} examples in each set; median of five rounds.",
)

# %% [markdown]
# ## Memory: what the backward pass keeps
#
# A gradient has to remember what the network computed on the way forwards. So the memory of a method has two parts:
# copies of the parameters, each of size $P$, and outputs of all layers for one set of examples, each of size $O$.
# First-order methods need a few of both, whatever $K$ is. MAML keeps the parameters and the layer outputs of all $K$
# steps until it has come back through them.

# %% tags=["fold"]
plots.table(
    {
        "MAML": ["K + 2", "2 K + 2"],
        "MAML, remat": ["2 √K + 4", "4"],
        "FO-MAML": ["1", "1.5"],
        "Reptile": ["1.5", "1.5"],
        "iMAML": ["6", "4.5"],
        "FO-B-MAML forward": ["5", "3"],
        "FO-B-MAML symmetric": ["8", "6"],
        "truncated MAML": ["S + 2", "2 S + 2"],
    },
    ["", "copies of P", "copies of O"],
    title="Only methods that go back through their steps need memory that grows with K",
    caption="Temporary memory of one task. The multiples were measured on dense networks.",
)
for _name, (_copies, _outputs) in {"MAML": (66, 130), "MAML, remat": (20, 4), "FO-B-MAML symmetric": (8, 6)}.items():
    _parts = [ml.theory.cost(scale.METHODS[_name].name, 1, 64, num_outputs=n).memory / 4 for n in (0, 1)]
    assert math.isclose(_parts[0], _copies) and math.isclose(_parts[1] - _parts[0], _outputs)

# %% [markdown]
# The second row is **rematerialization** (`remat=True`), which lesson 08 called checkpoints. It trades time for memory.
# The inner loop is cut into about $\sqrt K$ segments. On the way forwards only the parameters at the beginning of each
# segment are kept. On the way back each segment is computed again from its beginning, and the parameters of its
# $\sqrt K$ steps are in memory only while it is differentiated. Layer outputs are in memory for one step at a time.

# %% tags=["fold"]
figures.segments()

# %% [markdown]
# Each inner step is computed a second time, so the time rises from $3K + 1$ to about $4K + 1$ gradients. When a step is
# differentiated its layer outputs are computed once more. That costs less than a gradient, and the count neglects it.

# %%
remat_prediction = predict("15.remat")

# %% tags=["fold"]
_factor = (
    ml.theory.cost("maml", 1, 64, num_outputs=2).memory / ml.theory.cost("maml with remat", 1, 64, num_outputs=2).memory
)
_rows = {
    (row["method"], row["network"]): row["measured"]
    for row in figures.record()["memory"]
    if row["K"] == 64 and row["method"] in ("MAML", "MAML, remat")
}
remat_prediction.reveal(int(np.digitize(_factor, [6, 22])))
print(f"predicted, O / P = 2: a factor of {_factor:.1f}")
for _network, _what in figures.NAMES.items():
    _measured = _rows["MAML", _network] / _rows["MAML, remat", _network]
    _sizes = scale.problem(*scale.NETWORKS[_network])[-1]
    _ratio = _sizes.num_outputs * _sizes.num_examples / _sizes.num_params
    print(f"measured, {_what}, O / P = {_ratio:.2g}: a factor of {_measured:.1f}")
assert min(_rows["MAML", n] / _rows["MAML, remat", n] for n in figures.NAMES) > 2

# %% [markdown]
# The measured factors are in the record. For the five programs above, the compiler knows the memory without running
# them. It plans all memory of a program beforehand, and `memory_analysis()` says how much that is.

# %%
sizes_found = {name: scale.memory(program) / 1e6 for name, program in programs.items()}

# %% tags=["fold"]
_megabytes = {
    name: scale.predicted(scale.METHODS[name], K, sizes).memory / 1e6 for name in programs if name in scale.METHODS
}
_P, _O = sizes.num_params * 4e-6, sizes.num_outputs * sizes.num_examples * 4e-6
_megabytes["truncated MAML"] = (S + 2) * _P + (2 * S + 2) * _O
plots.table(
    {name: [_megabytes[name], found, f"{found / _megabytes[name]:.2f}"] for name, found in sizes_found.items()},
    ["", "predicted MB", "compiled MB", "compiled / predicted"],
    title="The memory that the compiler plans is close to the predicted one",
    caption=f"K = {K}, S = {S}; P = {_P:.2f} MB and O = {_O:.2f} MB.",
)
assert all(1 / 1.5 < found / _megabytes[name] < 1.5 for name, found in sizes_found.items())

# %% [markdown]
# ## Exercise: rematerialization or FO-B-MAML?
#
# MAML with rematerialization and FO-B-MAML both avoid memory that grows linearly with $K$, and that of FO-B-MAML does
# not depend on $K$ at all. In time they are nearly equal, because rematerialization takes about $4K + 1$ gradients, and
# FO-B-MAML symmetric takes $4K$ and a value of the loss. So it is memory that decides.
#
# - **Line 1.** MAML with rematerialization needs $(2\sqrt K + 4)\, P + 4\, O$.
# - **Line 2.** FO-B-MAML needs $c\, P + o\, O$. For the symmetric estimator the multiples are $c = 8$ and $o = 6$, and
#   for others they differ.
# - **Line 3** is yours: the largest $K$ for which the first is less than the second.


# %% tags=["exercise"] exercise="15.most_steps"
def most_steps(params_size, outputs_size, copies, outputs):
    """The largest K with which rematerialization needs less memory.

    Args:
      params_size: P, above 0.
      outputs_size: O, in the same unit, at least 0.
      copies: c, of line 2.
      outputs: o, of line 2.

    Returns:
      A whole number, 0 if there is no such K >= 1.
    """
    ### BEGIN SOLUTION
    left = (copies - 4) * params_size + (outputs - 4) * outputs_size
    root = left / (2 * params_size)
    return max(math.ceil(root**2) - 1, 0) if root > 0 else 0
    ### END SOLUTION


# %%
check("15.most_steps", most_steps)

# %% [markdown]
# Where the lines cross depends on $O / P$, the size of the layer outputs relative to the parameters. Move the slider.
# The marked point is the largest $K$ at which rematerialization needs less than FO-B-MAML symmetric.

# %%
title = "Try it: the layer outputs, relative to the parameters"
explore(figures.memories, figures.SEEN, title=title, O_over_P=(0.0, 16.0, 1.0, 2.0))

# %% tags=["fold", "nbval-check-output"]
for _ratio in (0, 2, 8):
    print(f"O / P = {_ratio}: up to K = {figures.most_steps(1.0, _ratio, 8, 6)}")
print(f"forward estimator, O / P = 2: up to K = {figures.most_steps(1.0, 2, 5, 3)}")

# %% [markdown]
# With small batches $O / P$ is small, and FO-B-MAML symmetric needs less memory already for a handful of steps. With
# large batches rematerialization stays below it for dozens of steps. The forward estimator always needs less than
# rematerialization, at $3K$ gradients. Cost is not all there is to choose by: MAML's gradient is exact for its own
# objective, whereas FO-B-MAML's is a biased estimate for another one, as lesson 05 has shown.

# %% [markdown]
# ## A billion parameters, on paper
#
# Suppose that you want to meta-train a Transformer with a billion parameters. It is too expensive to be tried out, but
# the formulas need only three numbers. An *example* is now one token, because every parameter is used once for each
# token.
#
# - **Parameters:** 20 layers of width 2,048 have $12 \cdot 2048^2$ parameters each: four square matrices for attention,
#   and two that are four times as large for the wide layer. That makes about a billion.
# - **Layer outputs for a token:** query, key, value, the result of attention and its projection are five vectors of the
#   width. The wide layer counts as four more and its projection as one, so a layer puts out $10 \cdot 2048$ numbers.
#   Attention scores are not kept, but computed again in blocks.
# - **Tokens:** 8 sequences of 1,024 tokens in a support set, and as many in a query set.
#
# Embeddings, normalization and the final layer over the vocabulary are left out, and so are the operations of the
# attention scores themselves. All arrays are float32.

# %%
billion_prediction = predict("15.billion")

# %%
width, layers, tokens = 2048, 20, 8 * 1024
transformer = {
    "num_params": layers * 12 * width**2,
    "num_outputs": layers * 10 * width,
    "num_examples": tokens,
}
estimates = {
    name: ml.theory.cost(
        method.name,
        num_steps=10,
        num_tasks=64,
        num_devices=64,
        **transformer,
        **method.options,
    )
    for name, method in scale.METHODS.items()
}

# %% tags=["fold"]
_rate, _link = 2e14, 5e10  # useful operations, and bytes, in a second
billion_prediction.reveal(round(estimates["MAML"].memory / 1e9))
plots.table(
    {
        name: [
            round(cost.gradients),
            round(cost.memory / 1e9),
            f"{cost.flops / _rate:.1f} s",
            f"{cost.communication / _link:.2f} s",
        ]
        for name, cost in estimates.items()
    },
    ["", "gradients", "memory in GB", "computing", "communication"],
    title="On paper: one outer step of a Transformer with a billion parameters, one task on each of 64 devices",
    caption="K = 10. iMAML takes five steps of conjugate gradients, and A-MAML six gradients in each of its steps. "
    "Assumed: 2 × 10¹⁴ useful operations and 5 × 10¹⁰ bytes in a second on each device.",
)
_P, _O = 4 * transformer["num_params"] / 1e9, 4 * transformer["num_outputs"] * tokens / 1e9
print(f"P = {_P:.1f} GB, O = {_O:.1f} GB, O / P = {_O / _P:.1f}")
print(f"rematerialization needs less than FO-B-MAML symmetric up to K = {figures.most_steps(_P, _O, 8, 6)}")
assert estimates["MAML"].memory > 3e11 and estimates["FO-MAML"].memory < 8e10
assert scale.CG_STEPS == 5
assert all(cost.communication / _link < cost.flops / _rate / 10 for cost in estimates.values())
assert 2.5 < _O / _P < 4
_fits = {name for name, cost in estimates.items() if cost.memory / 1e9 + 4 * _P < 80}
assert _fits == {"FO-MAML", "Reptile", "FO-MuML", "FO-B-MAML forward"}

# %% [markdown]
# The state of the run comes on top of the table: $\theta$, the two averages of Adam and the meta-gradient are four more
# copies of the parameters. Suppose that a device has 80 GB. Then FO-MAML, Reptile, FO-MuML and, barely, the forward
# estimator of FO-B-MAML fit with a task on each device. For all others the parameters have to be split over several
# devices, the support set has to be smaller, or the layers have to be rematerialized as well.
#
# Communication takes less than a tenth of the time. Inner steps need none, and so a meta-learning step computes for a
# long time before it has to exchange one gradient. This is why tasks are the natural thing to spread over devices.

# %% [markdown]
# ## Tasks spread over devices
#
# Each device gets a copy of $\theta$ and its share of the tasks. It runs the inner loops of its own tasks, and what it
# has to tell the others is only the sum of its meta-gradients.

# %% tags=["fold"]
figures.spread()

# %% [markdown]
# Around a ring of $D$ devices the sum takes two rounds, one to add up and one to hand back. In each of them a device
# sends $(D - 1) / D$ of a copy of the parameters, piece by piece. So a device sends
#
# $$2\, \frac{D - 1}{D}\, P$$
#
# bytes in an outer step, less than two copies, however many devices there are.

# %% [markdown]
# ## Exercise: the mean over uneven shares
#
# Sometimes the shares are not equal. A task whose loss is infinite is left out of the mean, and the last batch of an
# epoch may be smaller. Suppose that every device reports the *mean* gradient of its tasks, and how many they were. A
# device without a task reports NaN and 0. What is the mean over all tasks?


# %% tags=["exercise"] exercise="15.mean_over_devices"
def mean_over_devices(means, counts):
    """The mean gradient of all tasks of all devices.

    Args:
      means: a list with a pytree of arrays for each device, the mean
        gradient of its tasks; all NaN if it has none.
      counts: a list of the numbers of tasks; not all of them are 0.

    Returns:
      A pytree like each of `means`.
    """
    ### BEGIN SOLUTION
    shares = [
        jax.tree.map(lambda leaf, count=count: count * leaf, mean)
        for mean, count in zip(means, counts, strict=True)
        if count > 0
    ]
    total = sum(counts)
    return jax.tree.map(lambda *leaves: sum(leaves) / total, *shares)
    ### END SOLUTION


# %%
check("15.mean_over_devices", mean_over_devices)

# %% [markdown]
# In the library all this is one argument of `fit`. A **mesh** is a named arrangement of devices, and along its axis
# `"tasks"` the batch is divided. This is the function that trains in the rest of this lesson:

# %% tags=["nbval-check-output"]
print(inspect.getsource(scale.train))

# %% [markdown]
# Your computer probably does not have eight accelerators, but JAX can pretend. With
# `--xla_force_host_platform_device_count=8` in `XLA_FLAGS` the processor appears as eight devices, each with arrays of
# its own. JAX reads this when it starts, so it needs a new process. The process calls `train` with a mesh of its eight
# devices, and this notebook calls it without one.

# %%
same_bits_prediction = predict("15.same_bits")

# %%
jax.clear_caches()  # frees the memory of the programs above
alone = scale.train(progress=True)

# %%
with scale.started("share", devices=8) as process:
    for _ in bar(range(50), "eight devices", seconds=8):
        process.next()
    shared = process.next()

# %% tags=["fold"]
_there, _here = np.array(shared["params"], np.float32), np.array(scale.flat(alone.params), np.float32)
_off = float(np.abs(_there - _here).max())
same_bits_prediction.reveal(0 if scale.bits(alone) == shared["bits"] else 1 if _off < 1e-4 else 2)
assert shared["devices"] == 8 and 0 < _off < 1e-4 and scale.bits(alone) != shared["bits"]
_learner, _params, _sampler = scale.training_parts()
_one = jax.jit(_learner.step).lower(_learner.init(_params), _sampler(jax.random.key(0), scale.NUM_TASKS)).compile()
plots.table(
    {
        "largest difference of a parameter": ["–", plots.number(_off, 2)],
        "temporary memory of a device": [f"{scale.memory(_one) / 1e3:.0f} kB", f"{shared['memory'] / 1e3:.0f} kB"],
        "numbers that are added up over devices": ["0", f"{shared['exchanged']:,}"],
    },
    ["", "one device", "eight devices"],
    title="Eight devices give the result of one, each with an eighth of the work",
    caption=f"200 outer steps on {scale.NUM_TASKS} tasks each. The network has {len(_here):,} parameters.",
)
assert shared["memory"] < scale.memory(_one) / 6 and shared["exchanged"] == len(_here)

# %% [markdown]
# A device adapts its tasks side by side. It has an eighth of them, so its compiled program needs about an eighth of the
# memory. What is added up over the devices has as many numbers as there are parameters, which is one gradient.
#
# Did it go eight times as fast? We do not say, because the eight devices of this computer share its processor. **A
# simulation can show that a program gives the right result on many devices, but nothing about speed-up.** That can only
# be measured on the machine on which you want to run.

# %% [markdown]
# ## A run that is killed
#
# Processes die: the job reaches its time limit, somebody else's job needs the node, the memory is full. Often there is
# no warning. The signal SIGKILL cannot be caught, so a killed process cannot save anything at the last moment. What was
# not on disk before is lost.
#
# So a run writes **checkpoints** from time to time. To resume is more than to load the parameters. A run that goes on
# with an empty optimizer, or sees the same tasks twice, usually looks healthy, and its result belongs to no
# experiment that you could describe. The strictest test is also the simplest one: **a run that was killed and resumed
# must end with the same bits as one that was never stopped.**

# %% [markdown]
# Here is a small run to try this on. Its state is a dictionary with `params`, the optimizer's `momentum`, the random
# `key` from which noise is drawn, the number of the `step`, on which batch and learning rate depend, and `seconds`, a
# clock for the log. `begin()` gives the state before the first step, and `step(state)` the state after one more.
#
# A *restart* stands for all that happens to the state between a kill and the first step after it: it was saved, perhaps
# not completely, and what is missing has its initial value again. The three restarts below each lose something.

# %%
begin, step = figures.toy_run(np.random.default_rng(0))
shown = {
    "A": lambda state: {**state, "momentum": np.zeros(3)},  # no optimizer state
    "B": lambda state: {**state, "key": begin()["key"]},  # no random key
    "C": lambda state: {**state, "step": 0},  # data and schedule begin anew
}

# %% [markdown]
# ## Exercise: write the test
#
# Write the test that accepts a `restart` if and only if a run ends with the same parameters, to the last bit, at
# whatever step it was killed. The check gives it right restarts, A, B and C, and wrong ones that you do not see.


# %% tags=["exercise"] exercise="15.resumes_exactly"
def resumes_exactly(restart, begin, step, num_steps):
    """Whether a killed run ends with the same bits.

    Args:
      restart: state -> what is left of it after kill and restart.
      begin: () -> the state before the first step.
      step: state -> the state after one more step; deterministic.
      num_steps: of a whole run. It is killed after one of them, before
        the last.

    Returns:
      True or False.
    """
    ### BEGIN SOLUTION
    whole = begin()
    for _ in range(num_steps):
        whole = step(whole)
    for killed in range(1, num_steps):
        state = begin()
        for done in range(num_steps):
            state = restart(state) if done == killed else state
            state = step(state)
        if not np.array_equal(state["params"], whole["params"]):
            return False
    return True
    ### END SOLUTION


# %%
check("15.resumes_exactly", resumes_exactly)

# %% [markdown]
# Candidates A, B and C are the classic mistakes. So `fit` saves all of the learner's state, which is parameters,
# optimizer state and number of steps, and the history besides. It needs no random key and no position in the data,
# because the tasks of step $t$ are drawn from `fold_in(key, t)`. The key is an argument of the run, the number of steps
# is in the state, and together they say which tasks come next. If the learner, the first parameters, the sampler, the
# batch size or the key of the resumed run are others, `fit` refuses to go on.
#
# Now with a real process. It trains with checkpoints, and this notebook kills it at a step that is drawn at random.

# %%
killed_prediction = predict("15.killed")

# %%
jax.clear_caches()  # frees the memory of the programs above
folder = tempfile.TemporaryDirectory()  # of the checkpoints
moment = int(np.random.default_rng().integers(15, 40))  # of 50 calls, 4 steps each

with scale.started("train", folder.name) as process:
    for call in bar(range(50), "training", seconds=12):
        reached = process.next()["step"]
        if call == moment:
            exit_code = process.kill()  # SIGKILL
            break
print(f"\nafter step {reached} the process ended with exit code {exit_code}")

# %% [markdown]
# A negative exit code is the number of the signal that ended a process, and SIGKILL has the number 9. (On a
# system without signals it is another number. If you see a 0, the process had finished before it could be killed: run
# the cell again.) Now the same call once more, in a new process:

# %%
steps = [0]  # after each call of this process
with scale.started("train", folder.name) as process:
    for goal in bar(range(4, 201, 4), "started again", seconds=10):
        if steps[-1] < goal:
            said = process.next()
            steps.append(said["step"])
    while "bits" not in said:
        said = process.next()

# %% tags=["fold"]
_first = steps[1] - 4  # where it went on
if exit_code:  # it was killed in time
    killed_prediction.reveal(0 if _first == 0 else 1)
    figures.timeline(max(reached, _first), _first, scale.NUM_STEPS)
    assert 0 < _first < scale.NUM_STEPS
folder.cleanup()

# %%
print("never stopped:", scale.bits(alone)[:24], "...")
print("resumed:      ", said["bits"][:24], "...")
assert scale.bits(alone) == said["bits"]

# %% [markdown]
# The two lines are fingerprints of parameters, optimizer, number of steps and history. They would differ if a single
# bit did. Run the cells again, and the process is killed at another step.

# %% [markdown]
# ## On a cluster
#
# On several machines, every process runs the same script, and `jax.distributed.initialize()` joins all their devices
# into one list. It has to come before any other call of JAX. After it `jax.device_count()` counts the devices of all
# machines, and the mesh is built as before. This is shown and not executed here:
#
# ```python
# # train.py
# import jax
#
# jax.distributed.initialize()
#
# import metalearn as ml
# from my_problem import learner, params, sampler
#
# ml.fit(
#     learner,
#     params,
#     sampler,
#     num_steps=100_000,
#     meta_batch_size=128,  # a multiple of the devices
#     key=jax.random.key(0),
#     mesh=jax.make_mesh((jax.device_count(),), ("tasks",)),
#     checkpoint_dir="/shared/first_run",  # on a disk that all machines see
# )
# ```
#
# Under Slurm JAX finds the other processes by itself, and by default each process takes one GPU. So the script is
# started once for each GPU. With `--requeue` the job comes back after a machine has failed or it was preempted by
# another job. It runs the same call again, and so goes on at the last checkpoint:
#
# ```bash
# sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 --requeue --wrap "srun python train.py"
# ```
#
# On a slice of a TPU pod the script is started once for each machine, and JAX finds the others by itself as well:
#
# ```bash
# gcloud compute tpus tpu-vm ssh NAME --worker=all --command="python train.py"
# ```
#
# Before you start it: predict the cost of a step with `ml.theory.cost`, measure ten steps on one device, compare the
# two, and kill the job once on purpose.

# %% [markdown]
# ## What to take away
#
# - Time is a count of gradients, and memory is a number of copies of parameters and layer outputs. Both are known
#   before a run, on dense networks to within a factor of 1.5.
# - MAML's memory grows with $K$, with rematerialization like $\sqrt K$, and that of FO-B-MAML not at all. Which of the
#   last two needs less depends on the estimator, on $K$ and on the size of the layer outputs.
# - Inner loops need no communication. The sum of the gradients costs a device less than two copies of the parameters.
# - Eight devices agree with one up to rounding. A resumed run agrees with one that was never stopped to the last bit.
# - A checkpoint has to hold everything that later steps depend on, and a test that kills the run finds out whether it
#   does.

# %%
quiz("15")

# %%
progress("15")

# %% [markdown]
# ## Limits
#
# - The multiples of $P$ and $O$ were measured on dense networks with one compiler. For another architecture, compile
#   the program and ask `memory_analysis()`, which needs no run.
# - Processor time on one core was nearly proportional to the operations. An accelerator reaches its full rate only with
#   large arrays. The table of the Transformer is an estimate, and nothing in it was measured.
# - Simulated devices cannot show speed-up, and nothing in this lesson ran on several machines.
# - The same bits come from the same program with the same versions on the same kind and number of devices. Otherwise
#   results agree up to rounding.
# - Where a system has no SIGKILL, Python ends the process by the system's own call, which cannot be caught either.
#
# ## Go further
#
# - A. Griewank, A. Walther. *Evaluating derivatives.* SIAM, 2008. Why a gradient costs a small multiple of its
#   function, and which checkpoints are best.
# - T. Chen, B. Xu, C. Zhang, C. Guestrin. *Training deep nets with sublinear memory cost.*
#   [arXiv 1604.06174](https://arxiv.org/abs/1604.06174). Rematerialization with $\sqrt K$ segments, for the layers of a
#   network.
# - A. Shaban, C.-A. Cheng, N. Hatch, B. Boots. *Truncated back-propagation for bilevel optimization.* AISTATS 2019.
#   [arXiv 1810.10667](https://arxiv.org/abs/1810.10667). The method of the first exercise.
# - V. Korthikanti and others. *Reducing activation recomputation in large transformer models.*
#   [arXiv 2205.05198](https://arxiv.org/abs/2205.05198). The memory of a Transformer's layer outputs,
#   counted for each part of a layer.
# - JAX's documentation on [several processes](https://docs.jax.dev/en/latest/multi_process.html).
