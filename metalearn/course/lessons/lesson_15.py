"""Exercises, predictions, quiz and figures of lesson 15: cost, devices, and runs that are killed."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from metalearn import plots
from metalearn.course.exercises.exercise import Exercise, Guess, Misconception, Question
from metalearn.course.lessons import scale
from metalearn.course.widgets import diagrams

if TYPE_CHECKING:  # loaded by the first figure
    from matplotlib.figure import Figure

# 15.step_cost -------------------------------------------------------------------------------------------------------


def _step_cost(
    forward=lambda k, s: k,
    product=lambda k, s: 2 * min(s, k),
    query=lambda k, support, queries: queries / support,
    tasks=lambda b, d: math.ceil(b / d),
):
    """Variants of the cost of truncated MAML from its parts."""

    def step_cost(num_steps, kept_steps, num_support, num_query, num_tasks, num_devices):
        one = forward(num_steps, kept_steps) + product(num_steps, kept_steps)
        return tasks(num_tasks, num_devices) * (one + query(num_steps, num_support, num_query))

    return step_cost


def _step_cost_by_counting(num_steps, kept_steps, num_support, num_query, num_tasks, num_devices):
    """An alternative: the tasks are dealt out one after another, and every call is counted in examples."""
    busiest = max(len(range(device, num_tasks, num_devices)) for device in range(num_devices))
    examples = num_query
    for step in range(num_steps):
        examples += 3 * num_support if step >= num_steps - kept_steps else num_support
    return busiest * examples / num_support


STEP_COST = Exercise(
    id="15.step_cost",
    title="The cost of a new method",
    difficulty=2,
    minutes=10,
    reference=_step_cost(),
    instances=lambda rng: [
        (10, 4, 5, 15, 16, 4),
        (int(rng.integers(6, 12)), 3, 10, int(rng.integers(11, 30)), 17, 4),
        (5, 9, 20, int(rng.integers(3, 9)), 8, 8),
        (8, 0, 5, 15, 3, 8),
        (0, 4, 5, int(rng.integers(7, 25)), 7, 2),
        (int(rng.integers(3, 6)), 2, 6, 6, 1, 1),
    ],
    misconceptions=(
        Misconception(
            "query gradient forgotten",
            _step_cost(query=lambda k, support, queries: 0),
            "Your result equals the cost of the inner loop and of its backward pass alone. Where does the vector come "
            "from that is multiplied by the factors $(I - \\alpha H_k)$?",
        ),
        Misconception(
            "query set as large as the support set",
            _step_cost(query=lambda k, support, queries: 1),
            "Your result counts the query gradient as one gradient on a support set. That is right where both sets "
            "have equally many examples.",
        ),
        Misconception(
            "ratio upside down",
            _step_cost(query=lambda k, support, queries: support / queries),
            "Your result makes the query gradient cheaper when the query set grows. Which of the two numbers of "
            "examples is the unit?",
        ),
        Misconception(
            "product as one gradient",
            _step_cost(product=lambda k, s: min(s, k)),
            "Your result is one gradient too small for each step that is differentiated. Such a step is taken "
            "forwards, which costs a gradient, and a Hessian-vector product on the way back costs about two.",
        ),
        Misconception(
            "first steps forgotten",
            _step_cost(forward=lambda k, s: min(s, k)),
            "Your result equals the cost of an inner loop that has only the steps that are differentiated. "
            "The steps before them are taken too.",
        ),
        Misconception(
            "all steps backpropagated",
            _step_cost(product=lambda k, s: 2 * k),
            "Your result equals the cost of MAML itself, which backpropagates through all steps.",
        ),
        Misconception(
            "more kept than taken",
            _step_cost(product=lambda k, s: 2 * s),
            "Your result is right as long as `kept_steps` is at most `num_steps`. What happens beyond that?",
        ),
        Misconception(
            "tasks split into fractions",
            _step_cost(tasks=lambda b, d: b / d),
            "Your result gives each device a fraction of a task where the number of tasks is no multiple of the number "
            "of devices. A step ends when the busiest device has finished.",
        ),
        Misconception(
            "tasks rounded down",
            _step_cost(tasks=lambda b, d: b // d),
            "Your result gives every device the rounded-down number of tasks, so that some tasks belong to nobody.",
        ),
        Misconception(
            "a single task",
            _step_cost(tasks=lambda b, d: 1),
            "Your result is the cost of one task. The busiest device may have several.",
        ),
        Misconception(
            "all tasks on every device",
            _step_cost(tasks=lambda b, d: b),
            "Your result is the cost of all tasks, as if there were a single device.",
        ),
        Misconception(
            "a query gradient after every step",
            _step_cost(query=lambda k, support, queries: k * queries / support),
            "Your result counts a query gradient for every inner step. It is taken once, at the end.",
        ),
    ),
    relatives=(
        ("what three gradients for a Hessian-vector product give", _step_cost(product=lambda k, s: 3 * min(s, k))),
        (
            "what a device more gives",
            lambda k, s, support, queries, b, d: _step_cost()(k, s, support, queries, b, d + 1),
        ),
    ),
    alternatives=(
        _step_cost_by_counting,
        _step_cost(tasks=lambda b, d: (b + d - 1) // d, product=lambda k, s: k + min(s - k, 0) + min(k, s)),
    ),
    hints=(
        "For one task, list what is computed: gradients on the support set, Hessian-vector products on the support "
        "set, a gradient on the query set. Then ask how many tasks the busiest device has.",
        "A gradient on `num_query` examples costs `num_query / num_support` of the unit. There is a product for each "
        "kept step, and at most `num_steps` steps can be kept. `math.ceil` rounds up.",
    ),
    expected="A number. With `kept_steps` = 0 it is the cost of FO-MAML, with `num_steps` that of MAML.",
)

# 15.most_steps ------------------------------------------------------------------------------------------------------


def _most_steps(left=lambda k, p, o: (2 * math.sqrt(k) + 4) * p + 4 * o, right=None, less=lambda a, b: a < b, shift=0):
    """Variants of the search for the largest K at which the left side is below the right one."""
    right = right or (lambda p, o, copies, outputs: copies * p + outputs * o)

    def most_steps(params_size, outputs_size, copies, outputs):
        bound, k = right(params_size, outputs_size, copies, outputs), 0
        while less(left(k + 1, params_size, outputs_size), bound):
            k += 1
        return k + shift

    return most_steps


def _most_steps_in_closed_form(params_size, outputs_size, copies, outputs):
    """An alternative: √K below the solution of the equation."""
    root = ((copies - 4) * params_size + (outputs - 4) * outputs_size) / (2 * params_size)
    return max(math.ceil(root**2) - 1, 0) if root > 0 else 0


def _most_steps_by_bisection(params_size, outputs_size, copies, outputs):
    """An alternative: memory grows with K, so the interval can be halved."""

    def below(k):
        return (2 * k**0.5 + 4) * params_size + 4 * outputs_size < copies * params_size + outputs * outputs_size

    low, high = 0, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def _root_only(params_size, outputs_size, copies, outputs):
    root = ((copies - 4) * params_size + (outputs - 4) * outputs_size) / (2 * params_size)
    return max(root, 0.0)


def _square_of_anything(params_size, outputs_size, copies, outputs):
    root = ((copies - 4) * params_size + (outputs - 4) * outputs_size) / (2 * params_size)
    return max(math.ceil(root**2) - 1, 0)


MOST_STEPS = Exercise(
    id="15.most_steps",
    title="Your line of the derivation: up to which K rematerialization needs less memory",
    difficulty=2,
    minutes=14,
    reference=_most_steps(),
    instances=lambda rng: [
        (1.0, 0.0, 8, 6),  # 2 √K + 4 = 8 at K = 4: not less
        (4.0, float(rng.uniform(13, 16)), 8, 6),
        (rng.uniform(2, 3), rng.uniform(1, 2), 16, 12),
        (1.0, float(rng.uniform(5, 8)), 5, 3),
        (rng.uniform(5, 6), rng.uniform(0.1, 0.3), 5, 6),
        (2.0, float(rng.uniform(9, 11)), 9, 6),
    ],
    misconceptions=(
        Misconception(
            "MAML without rematerialization",
            _most_steps(left=lambda k, p, o: (k + 2) * p + (2 * k + 2) * o),
            "Your result equals the one for plain MAML, whose memory grows linearly in $K$. Line 1 has $\\sqrt K$.",
        ),
        Misconception(
            "linear in K",
            _most_steps(left=lambda k, p, o: (2 * k + 4) * p + 4 * o),
            "Your result equals the one for a memory of $(2K + 4)\\, P + 4\\, O$. Line 1 has the root of $K$.",
        ),
        Misconception(
            "a single root",
            _most_steps(left=lambda k, p, o: (math.sqrt(k) + 4) * p + 4 * o),
            "Your result equals the one for $\\sqrt K$ copies. There are $2 \\sqrt K$: the beginnings of all segments, "
            "and the steps of the one that is differentiated.",
        ),
        Misconception(
            "layer outputs ignored",
            _most_steps(
                left=lambda k, p, o: (2 * math.sqrt(k) + 4) * p, right=lambda p, o, copies, outputs: copies * p
            ),
            "Your result equals the one that counts copies of the parameters alone. Both lines also have a multiple of "
            "$O$.",
        ),
        Misconception(
            "constant ignored",
            _most_steps(left=lambda k, p, o: 2 * math.sqrt(k) * p + 4 * o),
            "Your result equals the one without the four copies of the parameters in line 1 that do not depend on $K$.",
        ),
        Misconception(
            "outputs of rematerialization ignored",
            _most_steps(left=lambda k, p, o: (2 * math.sqrt(k) + 4) * p),
            "Your result equals the one in which rematerialization keeps no layer outputs. Line 1 has $4\\, O$.",
        ),
        Misconception(
            "as much counts as less",
            _most_steps(less=lambda a, b: a <= b + 1e-9),
            "Your result differs where both need exactly as much memory. The docstring asks for *less*.",
        ),
        Misconception(
            "one step too far",
            _most_steps(shift=1),
            "Your result is the smallest $K$ at which rematerialization needs no less memory. The largest at which it "
            "does is one below.",
        ),
        Misconception(
            "the root and not its square",
            _root_only,
            "Your result is a bound for $\\sqrt K$, and not for $K$.",
        ),
        Misconception(
            "a negative bound squared",
            _square_of_anything,
            "Your result is right where the bound for $\\sqrt K$ is positive. Where it is negative, no $K$ fulfils it, "
            "but its square is positive.",
        ),
    ),
    relatives=(
        (
            "what copies and outputs give if they have changed places",
            lambda p, o, copies, outputs: _most_steps()(p, o, outputs, copies),
        ),
        (
            "what the sizes of parameters and outputs give if they have changed places",
            lambda p, o, copies, outputs: _most_steps()(max(o, 0.01), p, copies, outputs),
        ),
    ),
    alternatives=(_most_steps_in_closed_form, _most_steps_by_bisection),
    hints=(
        "Solve line 1 < line 2 for $\\sqrt K$. What does the inequality say when the right side is negative? "
        "A loop over $K$ does it as well, because the memory of line 1 grows with $K$.",
        "$\\sqrt K < r$ with $r = \\frac12 \\big( c - 4 + (o - 4)\\, O / P \\big)$. The largest whole number strictly "
        "below $x$ is `math.ceil(x) - 1`. Zero if $r$ is so small that not even $K = 1$ is below.",
    ),
    expected="A whole number. For $O = 0$, 8 copies and 6 outputs it is 3.",
)

# 15.mean_over_devices -----------------------------------------------------------------------------------------------


def _weighted(trees, weights, total):
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)) / total, *trees)


def _mean_over(weigh=lambda counts: counts, divide=lambda counts: sum(counts), skip=True):
    """Variants of a weighted mean over those devices that have tasks."""

    def mean_over_devices(means, counts):
        pairs = [(mean, count) for mean, count in zip(means, counts, strict=True) if count or not skip]
        trees = [mean for mean, _ in pairs]
        return _weighted(trees, weigh([count for _, count in pairs]), divide(list(counts)))

    return mean_over_devices


def _mean_by_sums(means, counts):
    """An alternative: sums first, with NaN taken for zero."""
    total = sum(counts)
    return jax.tree.map(
        lambda *leaves: (
            np.sum(
                [np.where(n > 0, np.nan_to_num(leaf) * n, 0.0) for n, leaf in zip(counts, leaves, strict=True)], axis=0
            )
            / total
        ),
        *means,
    )


def _mean_of_all_tasks(means, counts):
    """An alternative: every device's mean repeated for each of its tasks."""
    each = [mean for mean, count in zip(means, counts, strict=True) for _ in range(count)]
    return jax.tree.map(lambda *leaves: np.mean(np.stack([np.asarray(leaf) for leaf in leaves]), axis=0), *each)


def _means(rng, counts, make):
    """The mean gradients of devices; those without a task have NaN."""
    trees = [make(rng) for _ in counts]
    return [
        tree if count else jax.tree.map(lambda leaf: np.full(np.shape(leaf), np.nan), tree)
        for tree, count in zip(trees, counts, strict=True)
    ], list(counts)


def _vector(rng):
    return rng.normal(0, 2, 3)


def _nested_gradient(rng):
    return {"layers": [(rng.normal(0, 1, (2, 2)), rng.normal(0, 3, 2))], "scale": rng.normal(0, 1, 1)}


MEAN_OVER_DEVICES = Exercise(
    id="15.mean_over_devices",
    title="The mean over uneven devices",
    difficulty=2,
    minutes=10,
    reference=_mean_over(),
    instances=lambda rng: [
        _means(rng, (4, 1), _vector),
        _means(rng, (3, 0, 5), _vector),
        _means(rng, (1, 6, 2, 2), _nested_gradient),
        _means(rng, (0, 0, 2), _vector),
        _means(rng, (int(rng.integers(5, 9)), 1, 0, 3), _nested_gradient),
    ],
    misconceptions=(
        Misconception(
            "mean of means",
            _mean_over(weigh=lambda counts: [1] * len(counts), divide=lambda counts: sum(n > 0 for n in counts)),
            "Your result is the mean of the devices' means. It gives a task on a device with few tasks more weight "
            "than one on a device with many.",
        ),
        Misconception(
            "mean of means over all devices",
            _mean_over(weigh=lambda counts: [1] * len(counts), divide=len),
            "Your result is the sum of the devices' means, divided by the number of devices, idle ones included. Each "
            "task should count the same.",
        ),
        Misconception(
            "zero times NaN",
            _mean_over(skip=False),
            "Your result is right where every device has a task. A weight of 0 does not remove a NaN, because "
            "$0 \\cdot \\text{NaN}$ is NaN.",
        ),
        Misconception(
            "mean of means with NaN",
            _mean_over(weigh=lambda counts: [1] * len(counts), divide=len, skip=False),
            "Your result is the mean of the devices' means, and it is NaN as soon as one device has no task.",
        ),
        Misconception(
            "sum over tasks",
            _mean_over(divide=lambda counts: 1),
            "Your result is the sum over all tasks. With it the learning rate would depend on their number.",
        ),
        Misconception(
            "sums divided by devices",
            _mean_over(divide=len),
            "Your result is the sum over all tasks, divided by the number of *devices*.",
        ),
        Misconception(
            "sums divided by busy devices",
            _mean_over(divide=lambda counts: sum(n > 0 for n in counts)),
            "Your result is the sum over all tasks, divided by the number of devices that have a task.",
        ),
        Misconception(
            "padded shards",
            _mean_over(divide=lambda counts: len(counts) * max(counts)),
            "Your result is divided by the number of tasks that there would be if every device had as many as the "
            "busiest one.",
        ),
        Misconception(
            "sum of means",
            _mean_over(weigh=lambda counts: [1] * len(counts), divide=lambda counts: 1),
            "Your result is the sum of the devices' means.",
        ),
        Misconception(
            "busiest device only",
            lambda means, counts: means[int(np.argmax(counts))],
            "Your result is the mean gradient of the device with the most tasks.",
        ),
        Misconception(
            "means divided by tasks",
            _mean_over(weigh=lambda counts: [1] * len(counts)),
            "Your result is the sum of the devices' means, divided by the number of tasks. What has to be summed so "
            "that this division gives a mean?",
        ),
    ),
    relatives=(
        (
            "what the square roots of the counts give as weights",
            lambda means, counts: _mean_over(lambda some: np.sqrt(some), lambda some: np.sqrt(some).sum())(
                means, counts
            ),
        ),
        (
            "what the squares of the counts give as weights",
            lambda means, counts: _mean_over(lambda some: np.square(some), lambda some: np.square(some).sum())(
                means, counts
            ),
        ),
    ),
    alternatives=(_mean_by_sums, _mean_of_all_tasks),
    hints=(
        "What each device would have to send so that one addition over the devices is enough: its *sum* over tasks, "
        "and how many tasks that were. How do you get a sum from a mean?",
        "Leave out devices without tasks before anything is multiplied. `jax.tree.map(function, *trees)` gives the "
        "function one leaf of each tree.",
    ),
    expected="A pytree like each of `means`. With equal counts it is the mean of the means.",
)

# 15.resumes_exactly -------------------------------------------------------------------------------------------------

_EPOCH, _DROP, _RUN = 4, 8, 12  # batches; the step at which the learning rate falls; all steps


def toy_run(rng):
    """(begin, step) of a training run whose state is a dictionary."""
    data, initial, seed = rng.normal(size=(_EPOCH, 3)), rng.normal(size=3), int(rng.integers(2**62))

    def begin():
        return {"params": initial.copy(), "momentum": np.zeros(3), "key": seed, "step": 0, "seconds": 0.0}

    def step(state):
        key = (state["key"] * 6364136223846793005 + 1442695040888963407) % 2**64
        noise = (key >> 11) / 2**53 - 0.5
        gradient = np.tanh(state["params"] - data[state["step"] % _EPOCH]) + noise
        momentum = 0.9 * state["momentum"] + gradient
        rate = 0.1 if state["step"] < _DROP else 0.02
        return {
            "params": state["params"] - rate * momentum,
            "momentum": momentum,
            "key": key,
            "step": state["step"] + 1,
            "seconds": state["seconds"] + 0.5,
        }

    return begin, step


def _restart(name, change):
    """A callable of a class of its own, so that a message can name it; change gives what is not as it was."""
    return type(name, (), {"__call__": staticmethod(lambda state: {**state, **change(state)})})()


def _restarts(seed):
    """All candidates, of which the first two are right."""
    return (
        _restart("RightRestart", lambda s: {}),
        _restart("OtherRightRestart", lambda s: {"seconds": 0.0}),
        _restart("CandidateA", lambda s: {"momentum": np.zeros(3)}),
        _restart("CandidateB", lambda s: {"key": seed}),
        _restart("CandidateC", lambda s: {"step": 0}),
        _restart("HiddenCandidate1", lambda s: {"step": s["step"] % _EPOCH}),
        _restart("HiddenCandidate2", lambda s: {"params": s["params"].astype(np.float32).astype(float)}),
        _restart("HiddenCandidate3", lambda s: {"step": s["step"] - 1}),
        _restart("HiddenCandidate4", lambda s: {"momentum": s["momentum"] * [1, 0, 0]}),
        _restart("HiddenCandidate5", lambda s: {"key": (s["key"] * 6364136223846793005 + 1) % 2**64}),
        _restart("HiddenCandidate6", lambda s: {"step": s["step"] % 10}),
        _restart("HiddenCandidate8", lambda s: {"momentum": s["momentum"] * (s["step"] > 2)}),
        _restart("HiddenCandidate7", lambda s: {"params": np.where([True, False, True], s["params"], 0.0)}),
    )


def _resume_instances(rng):
    begin, step = toy_run(rng)
    candidates = _restarts(begin()["key"])
    return [(candidates[i], begin, step, _RUN) for i in rng.permutation(len(candidates))]


def _equal(a, b):
    return a["params"].tobytes() == b["params"].tobytes()


def _after(state, step, number):
    for _ in range(number):
        state = step(state)
    return state


def _resumes(kills=lambda n: range(1, n), same=_equal, rest=lambda n, killed: n - killed):
    """A learner's test, with what can go wrong in it."""

    def resumes_exactly(restart, begin, step, num_steps):
        for killed in kills(num_steps):
            further = rest(num_steps, killed)
            whole = _after(begin(), step, killed + further)
            resumed = _after(restart(_after(begin(), step, killed)), step, further)
            if not same(resumed, whole):
                return False
        return True

    return resumes_exactly


def _restarted_after_every_step(restart, begin, step, num_steps):
    """An alternative: one run that is killed after each of its steps."""
    state = begin()
    for _ in range(num_steps):
        state = restart(step(state))
    return _equal(state, _after(begin(), step, num_steps))


def _all_leaves(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


RESUMES_EXACTLY = Exercise(
    id="15.resumes_exactly",
    title="Write the test: does a killed run resume to the same bits?",
    difficulty=3,
    minutes=16,
    reference=_resumes(),
    instances=_resume_instances,
    misconceptions=(
        Misconception(
            "no step after the restart",
            _resumes(rest=lambda n, killed: 0),
            "Your test accepts candidates A, B and C, and hidden ones. This happens if the parameters are compared "
            "right after the restart: what is missing is seen only in later steps.",
        ),
        Misconception(
            "killed before the first step",
            _resumes(kills=lambda n: [0]),
            "Your test accepts candidates A, B and C. They lose what is still at its initial value before the first "
            "step, so a run that is killed there cannot show it.",
        ),
        Misconception(
            "killed early",
            _resumes(kills=lambda n: [1]),
            "Your test accepts hidden candidates that are right in a run that is killed in its first steps. How about "
            "later moments?",
        ),
        Misconception(
            "killed at one moment",
            _resumes(kills=lambda n: [n // 2]),
            "Your test accepts hidden candidates that fail only where the run is killed early or late. A real run is "
            "killed at a moment that nobody chooses.",
        ),
        Misconception(
            "killed late",
            _resumes(kills=lambda n: [n - 1]),
            "Your test accepts a hidden candidate that fails only where the run is killed early.",
        ),
        Misconception(
            "up to rounding",
            _resumes(same=lambda a, b: np.allclose(a["params"], b["params"])),
            "Your test accepts a hidden candidate that keeps the parameters with fewer digits. The same *bits* are "
            "asked for, so `np.allclose` is too tolerant.",
        ),
        Misconception(
            "whole state compared",
            _resumes(same=_all_leaves),
            "Your test rejects a right candidate, which loses only the clock of the log. What a run ends with are its "
            "parameters, and they are the same.",
        ),
        Misconception(
            "first number only",
            _resumes(same=lambda a, b: a["params"][0] == b["params"][0]),
            "Your test accepts a hidden candidate that keeps the first number of an array and loses others. Does your "
            "test compare all numbers?",
        ),
        Misconception(
            "the wrong way round",
            lambda *given: not _resumes()(*given),
            "Your test says yes to every wrong candidate and no to the right ones.",
        ),
        Misconception(
            "accepts everything",
            lambda restart, begin, step, num_steps: True,
            "Your test accepts every candidate. Does it call `restart` at all, and does the run that was never killed "
            "do without it?",
        ),
        Misconception(
            "rejects everything",
            lambda restart, begin, step, num_steps: False,
            "Your test rejects every candidate, the right ones too. Do both runs take equally many steps altogether?",
        ),
    ),
    alternatives=(
        _restarted_after_every_step,
        _resumes(kills=lambda n: range(n + 1)),
        _resumes(rest=lambda n, killed: 1),
    ),
    hints=(
        "Run once without a kill. Then, for a moment of your choice: that many steps, the restart, the remaining "
        "steps. Which moments cannot show that something is missing?",
        "Loop over all numbers of steps after which the run can be killed. Compare the parameters at the end with "
        "`np.array_equal`; the clock of the log may differ.",
    ),
    expected="`True` for a restart that keeps all that later steps use, `False` for candidates A, B and C.",
)

EXERCISES = (STEP_COST, MOST_STEPS, MEAN_OVER_DEVICES, RESUMES_EXACTLY)

PREDICTIONS = (
    Guess(
        "15.remat",
        "MAML with 64 inner steps, on a network whose layer outputs need twice as much memory as its parameters. By "
        "which factor does rematerialization lower the memory?",
        ("by 2 to 4", "by 8 to 16", "by more than 30"),
        why="Without it the layer outputs of all 64 steps are kept. With it they are computed again for one step at a "
        "time, and only about √K copies of the parameters are kept for each of two purposes.",
        read="Memory: what the backward pass keeps",
    ),
    Guess(
        "15.billion",
        "A Transformer with a billion parameters in float32 needs 4 GB for a copy of them. How many GB does MAML need "
        "on top of its parameters and optimizer state, with K = 10 and a support set of 8,192 tokens?",
        unit="GB",
        why="It keeps 12 copies of the parameters, but also 22 sets of all layer outputs, and here these are several "
        "times as large as the parameters.",
        read="A billion parameters, on paper",
    ),
    Guess(
        "15.same_bits",
        "The same run, once on one device and once spread over eight: how do the parameters compare after 200 outer "
        "steps?",
        ("they are the same to the last bit", "they agree up to rounding", "they are clearly different"),
        why="The tasks and the formula are the same, but the eight devices first add up their own two tasks and then "
        "the eight sums. Floating-point addition depends on the order.",
        read="Tasks spread over devices",
    ),
    Guess(
        "15.killed",
        "A run with checkpoints is killed without warning, and the same call is made again. Where does it go on?",
        (
            "at the beginning, with the parameters of the last checkpoint",
            "at the last checkpoint: the steps since then are computed again",
            "at the step in which it was killed",
        ),
        why="A killed process cannot save anything any more. What was computed since the last checkpoint is lost, and "
        "computing it again gives the same bits.",
        read="A run that is killed",
    ),
)

QUIZ = (
    Question(
        "You go from 8 devices to 16, and from 32 tasks in a batch to 64. What happens to the bytes that one device "
        "sends in an outer step?",
        (
            "They double",
            "They hardly change: at most two copies of the parameters are sent",
            "They halve",
            "They grow with the number of inner steps",
        ),
        1,
        (
            "Tasks are never sent. Each device adds up the gradients of its own tasks first, and sends one gradient.",
            "Yes: around a ring of D devices each sends 2 (D − 1) / D of a copy, which is below two.",
            "The gradient has as many numbers as there are parameters, however many devices share the work.",
            "Inner steps are local to a device. Only the mean over tasks needs communication.",
        ),
    ),
    Question(
        "Which of these may be missing from a checkpoint without changing the run's result?",
        (
            "the optimizer's state",
            "the number of steps so far",
            "the progress bar's clock",
            "the random key, where tasks are drawn from it step by step",
        ),
        2,
        (
            "Adam would begin with empty averages, and its next steps would differ.",
            "The next batch and the learning rate of a schedule depend on it.",
            "Yes: nothing that is computed depends on it.",
            "Other tasks would be drawn, or the same ones again.",
        ),
    ),
    Question(
        "Eight simulated devices on two cores give the result of one device. What does this show?",
        (
            "that the program gives the right result on several devices",
            "that eight devices are eight times as fast",
            "that communication costs no time",
        ),
        0,
        (
            "Yes: the same program runs on real devices. How fast it is there has to be measured there.",
            "All eight share the same two cores, so no time that is measured here says anything about speed-up.",
            "The simulated devices exchange numbers within one memory. A network between machines is slower by far.",
        ),
    ),
)


# What the lesson computes -------------------------------------------------------------------------------------------

mean_over_devices, most_steps, step_cost = _mean_over(), _most_steps(), _step_cost()  # whatever the learner has written


@functools.cache
def record() -> dict[str, Any]:
    """What was measured of every method."""
    return json.loads(scale.RECORD.read_text("utf-8"))


def worst(kind: str) -> float:
    """The largest factor between prediction and measurement in the record."""
    return max(max(row["predicted"] / row["measured"], row["measured"] / row["predicted"]) for row in record()[kind])


# Figures ------------------------------------------------------------------------------------------------------------

NAMES = {"outputs": "outputs large", "both": "in between", "parameters": "parameters large"}


def _against(rows: Sequence[dict], unit: float, by: str) -> dict[str, tuple[Any, Any]]:
    """name -> (predicted, measured) of some rows, grouped by one of their entries."""
    return {
        group: (
            np.array([row["predicted"] for row in rows if row[by] == group]) / unit,
            np.array([row["measured"] for row in rows if row[by] == group]) / unit,
        )
        for group in dict.fromkeys(row[by] for row in rows)
    }


def _identity(axes: Any, points: dict, what: str, title: str, **options: Any) -> Any:
    """Points over the line on which prediction and measurement agree."""
    values = np.concatenate([np.concatenate(pair) for pair in points.values()])
    line = np.geomspace(values.min() / 1.6, values.max() * 1.6, 30)
    plots.lines(
        line,
        {"equal": line},
        f"predicted {what}",
        f"measured {what}",
        points=points,
        title=title,
        log="xy",
        axes=axes,
        **options,
    )
    return axes


def predicted_and_measured() -> None:
    """Shows every row of the record: memory of three networks, and time."""
    figure, (left, right) = plots.subplots(2, height=4.0)
    memory = {NAMES[name]: pair for name, pair in _against(record()["memory"], 1e6, "network").items()}
    _identity(left, memory, "megabytes", "memory")
    time = {f"K = {steps}": pair for steps, pair in _against(record()["time"], 1, "K").items()}
    _identity(right, time, "gradients", "time")
    plots.show(
        figure,
        "Two plots of measured against predicted cost, both axes logarithmic, each with the line on which both are "
        "equal. Left: the memory of ten methods for three networks and several numbers of steps lies close to the line "
        "from less than a megabyte to over a hundred. Right: so does the time, counted in gradients, from four to "
        "several hundred.",
        title="Prediction and measurement lie close to one line",
        caption="Left: temporary memory of the compiled meta-gradient of one task, for three networks. "
        "Right: processor time in units of an inner step, for the network in between. Ten methods, up to 64 steps.",
    )


def segments() -> None:
    """Shows what rematerialization keeps: the beginning of each segment, and all steps of the one at hand."""
    d = diagrams.Drawing(680, 236)
    xs = [40 + 66 * i for i in range(10)]
    d.text(20, 26, "forwards: keep the beginning of each segment", diagrams.BLUE, "start", bold=True)
    for row in range(3):
        d.band(xs[3 * row] - 20, 44, 3 * 66 - 8, 56, diagrams.ORANGE if row == 1 else diagrams.BLUE)
        d.text(xs[3 * row], 122, ("θ", "φ₃", "φ₆")[row], diagrams.TEXT, size=16)
    for i, x in enumerate(xs):
        if i:
            d.arrow((xs[i - 1] + 10, 72), (x - 10, 72))
        d.point(x, 72, diagrams.BLUE if i % 3 == 0 else diagrams.MUTED, filled=i in (0, 3, 6))
    d.text(xs[9], 122, "φ₉", diagrams.TEXT, size=16)
    d.text(20, 160, "backwards: compute one segment again, and differentiate it", diagrams.ORANGE, "start", bold=True)
    for i in range(3, 7):
        if i > 3:
            d.arrow((xs[i - 1] + 10, 190), (xs[i] - 10, 190))
            d.arrow((xs[i] - 6, 200), (xs[i - 1] + 6, 200), diagrams.ORANGE, bend=-12)
        d.point(xs[i], 190, diagrams.BLUE if i < 6 else diagrams.MUTED, filled=i < 6)
    d.text(xs[3] - 22, 196, "from φ₃", diagrams.TEXT, "end")
    diagrams.show(
        d.svg(),
        "Nine inner steps in three segments of three. Forwards only the beginnings of the segments are kept, theta, "
        "phi 3 and phi 6. Backwards the segment from phi 3 is computed again, its steps are kept, and it is "
        "differentiated.",
        title="Rematerialization keeps two kinds of states, about √K of each",
        caption="Filled: kept in memory. The other segments are differentiated before and after in the same way.",
    )


SEEN = (
    "Memory, in copies of the parameters, against the number of inner steps on logarithmic axes. MAML's rises in "
    "proportion to K. With rematerialization it rises slowly. FO-B-MAML's and FO-MAML's are level. Where the curve of "
    "rematerialization crosses FO-B-MAML's, the point is marked; it moves to the right when layer outputs grow."
)


def memories(O_over_P: float) -> Figure:
    """Memory of four methods against K, for a size of the layer outputs relative to the parameters."""
    k = np.unique(np.geomspace(1, 1000, 60).round())
    curves = {
        "MAML": (k + 2) + (2 * k + 2) * O_over_P,
        "MAML, remat": 2 * np.sqrt(k) + 4 + 4 * O_over_P,
        "FO-B-MAML": np.full(k.shape, 8 + 6 * O_over_P),
        "FO-MAML": np.full(k.shape, 1 + 1.5 * O_over_P),
    }
    crossing = most_steps(1.0, O_over_P, 8, 6)
    return plots.lines(
        k,
        curves,
        "inner steps K",
        "copies of the parameters",
        points={f"K = {crossing}": (crossing, 2 * math.sqrt(crossing) + 4 + 4 * O_over_P)},
        log="xy",
        ylim=(0.8, 3e4),
    )


def spread() -> None:
    """Shows how tasks of a batch are spread over devices, and what the devices exchange."""
    d = diagrams.Drawing(676, 252)
    for device in range(3):
        x = 20 + device * 218
        d.band(x, 40, 200, 116)
        d.text(x + 100, 30, f"device {device + 1}", diagrams.MUTED, bold=True)
        d.node(x + 34, 98, "θ", filled=True)
        for row, y in enumerate((72, 124)):
            d.arrow((x + 56, 98 + (y - 98) * 0.25), (x + 94, y), diagrams.BLUE)
            d.text(x + 100, y + 5, f"task {2 * device + row + 1}", diagrams.TEXT, "start")
        d.text(x + 172, 103, "Σ g", diagrams.ORANGE, bold=True)
        d.path([(x + 172, 114), (x + 172, 192)], diagrams.ORANGE)
        if device < 2:
            d.arrow((x + 172, 192), (x + 172 + 218, 192), diagrams.ORANGE)
    d.path([(628, 192), (628, 214), (192, 214)], diagrams.ORANGE)
    d.arrow((192, 214), (192, 194), diagrams.ORANGE)
    d.text(410, 240, "around the ring: one gradient, added up and handed back", diagrams.ORANGE, bold=True)
    diagrams.show(
        d.svg(),
        "Three devices, each with a copy of theta and two tasks of its own. Each adds up the gradients of its tasks, "
        "and one gradient goes around a ring of all devices, after which each device has the sum.",
        title="Inner loops stay on their device, and only one gradient travels",
        caption="Blue: adapt. Orange: the sum of the meta-gradients. Every device then takes the same outer step.",
    )


def timeline_of(killed: int, resumed: int, total: int, width: int = 470, height: int = 240) -> str:
    """The runs of this lesson over their steps: never stopped, killed, resumed."""
    d = diagrams.Drawing(width, height)
    left, right = 20.0, width - 30.0

    def at(step):
        return left + (right - left) * step / total

    for y, text, color in (
        (52, "never stopped", diagrams.MUTED),
        (122, "killed", diagrams.ORANGE),
        (192, "started again", diagrams.BLUE),
    ):
        d.text(left, y - 14, text, color, "start", bold=True, size=13)
    d.path([(at(0), 52), (at(total), 52)], diagrams.MUTED, width=2.5)
    d.point(at(total), 52, diagrams.MUTED)
    d.path([(at(0), 122), (at(killed), 122)], diagrams.ORANGE, width=2.5)
    for sign in (-1, 1):
        d.path([(at(killed) - 7, 122 - 7 * sign), (at(killed) + 7, 122 + 7 * sign)], diagrams.ORANGE, width=2.5)
    d.text(at(killed) + 14, 127, f"step {killed}", diagrams.ORANGE, "start", size=13)
    d.path([(at(resumed), 122), (at(resumed), 192)], diagrams.BLUE, "3 4")
    d.path([(at(resumed), 192), (at(total), 192)], diagrams.BLUE, width=2.5)
    d.point(at(resumed), 192, diagrams.BLUE, filled=False)
    d.text(at(resumed), 216, f"last checkpoint, step {resumed}", diagrams.BLUE, size=13)
    d.point(at(total), 192, diagrams.BLUE)
    d.path([(at(total), 60), (at(total), 184)], diagrams.TEXT, "2 4")
    d.text(at(total) - 8, 96, "the same bits", diagrams.TEXT, "end", bold=True, size=13)
    return d.svg()


def timeline(killed: int, resumed: int, total: int) -> None:
    """Shows what has just happened to the run."""
    diagrams.show(
        timeline_of(killed, resumed, total, 700, 240),
        f"Three lines over the steps of a run. One run goes through without a stop. One is killed at step {killed}. "
        f"The third begins at the last checkpoint, step {resumed}, and ends with the same bits as the first.",
        title="The killed run lost a few steps, and ended with the same bits",
        caption=f"From left to right: {total} outer steps.",
    )


def opening() -> tuple[str, str]:
    """The picture of the claim: predicted against measured cost, and a run that was killed."""
    _, (axes,) = plots.subplots(width=4.8, height=2.45)
    rows = record()
    points = {
        "memory in MB": tuple(
            np.array([row[side] for row in rows["memory"]]) / 1e6 for side in ("predicted", "measured")
        ),
        "time in gradients": tuple(np.array([row[side] for row in rows["time"]]) for side in ("predicted", "measured")),
    }
    _identity(axes, points, "", "")
    axes.lines[0].set_label("_")
    plots.label(axes, "predicted", "measured")
    return diagrams.opening(
        plots.svg(axes.get_figure()),
        timeline_of(107, 100, 200),
        ("Cost is known before a run", "A killed run loses a few steps and no bits"),
        ("On the line both are equal. Ten methods, up to 64 inner steps.", "200 outer steps, from left to right."),
        "Left: measured against predicted cost on logarithmic axes; memory in megabytes and time in gradients of ten "
        "methods lie along one line. Right: a run that is never stopped, and one that is killed at step 107 and "
        "started again from its checkpoint at step 100; both end with the same bits.",
    )
