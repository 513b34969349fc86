"""MAMF: the tasks are drawn by the law they should obey, and fine-tuning is the plain loop over them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CONTAINERS, assert_clear_error, central_differences, flat

import metalearn as ml
from metalearn import Task, losses
from metalearn.learners.mamf import among_present, tasks_to_cover, uniform_tasks

pytestmark = pytest.mark.filterwarnings("error")

KEY = jax.random.key(0)
EXAMPLES = (
    np.random.default_rng(1).normal(size=(4, 3, 2)).astype(np.float32)
)  # 4 labels, 3 examples of each, 2 numbers an example


def linear(params, inputs):
    """A classifier of 4 labels."""
    return inputs @ params["weights"] + params["bias"]


def linear_params(dtype=None):
    return {"weights": jnp.linspace(-1, 1, 8, dtype=dtype).reshape(2, 4), "bias": jnp.zeros(4, dtype)}


n_way_loss = among_present(losses.cross_entropy, linear)


def sub_tasks(num_ways, num_tasks, key=KEY):
    return uniform_tasks(EXAMPLES, num_ways, num_support=2)(key, num_tasks)


def joined(tasks, k):
    """All examples of task k, support first."""
    return tuple(np.concatenate(halves) for halves in zip(*(map(lambda leaf: leaf[k], half) for half in tasks)))  # noqa: B905


def naive(loss, rule, num_steps, params, batches, fresh=True):
    """The loop, one step at a time."""

    @jax.jit
    def step(params, state, batch):
        updates, state = rule.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    state = rule.init(params)
    for batch in batches:
        state = rule.init(params) if fresh else state
        for _ in range(num_steps):
            params, state = step(params, state, batch)
    return params


# How many tasks, and which.


def test_the_number_of_tasks_is_the_papers_for_ten_labels():
    assert [tasks_to_cover(n, 10) for n in range(1, 11)] == [66, 31, 19, 14, 10, 8, 6, 4, 3, 1]


def test_a_label_is_missed_about_as_often_as_asked():
    """Rounding lets (1 - n/N)^K exceed d, up to the factor that the docstring states, and no more tasks than needed."""
    above = set()
    for num_labels in range(2, 60):
        for num_ways in range(1, num_labels):
            num_tasks, out = tasks_to_cover(num_ways, num_labels), 1 - num_ways / num_labels
            assert 1e-3 * out**0.501 <= out**num_tasks <= 1e-3 / out**0.501
            above |= {(num_ways, num_labels)} if out**num_tasks > 1.01e-3 else set()
    assert {(3, 10), (8, 10)} <= above
    assert (2, 10) not in above


@pytest.mark.slow
def test_every_subset_is_as_likely_as_any_other():
    """Chi-square over the ten pairs of five labels; above 27.9 once in a thousand keys."""
    examples = jnp.arange(5.0)[:, None].repeat(2, axis=1)
    labels = np.asarray(uniform_tasks(examples, 2, 1)(KEY, 5000).query[1])
    counts = [np.sum((labels == pair).all(axis=1)) for pair in itertools.combinations(range(5), 2)]
    assert sum(counts) == 5000
    assert np.sum((np.array(counts) - 500) ** 2 / 500) < 27.9


def test_labels_are_missed_by_the_law_of_the_paper():
    """Of 2,000 draws of K tasks, a given label is in none in a share (1 - n/N)^K, within four standard errors."""
    num_ways, num_labels, miss = 3, 8, 0.1
    num_tasks = tasks_to_cover(num_ways, num_labels, miss)
    sample_tasks = uniform_tasks(jnp.zeros((num_labels, 2)), num_ways, 1)
    labels = jax.jit(jax.vmap(lambda key: sample_tasks(key, num_tasks).query[1]))(jax.random.split(KEY, 2000))
    missed = np.mean(~(np.asarray(labels) == 5).any(axis=(1, 2)))
    expected = (1 - num_ways / num_labels) ** num_tasks
    assert abs(missed - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)
    assert miss / 1.3 < expected < miss * 1.3


@pytest.mark.slow
def test_a_task_holds_all_examples_of_its_labels():
    tasks = sub_tasks(num_ways=2, num_tasks=6)
    assert [leaf.shape for leaf in jax.tree.leaves(tasks)] == [(6, 4, 2), (6, 4), (6, 2, 2), (6, 2)]
    for k in range(6):
        first, second = np.unique(tasks.query[1][k])
        np.testing.assert_array_equal(tasks.support[1][k], [first, first, second, second])
        np.testing.assert_array_equal(tasks.query[1][k], [first, second])
        np.testing.assert_array_equal(tasks.support[0][k], EXAMPLES[jnp.array([first, second]), :2].reshape(4, 2))
        np.testing.assert_array_equal(tasks.query[0][k], EXAMPLES[jnp.array([first, second]), 2])


@pytest.mark.slow
def test_a_key_gives_the_same_tasks_and_another_key_others():
    same, again, other = (sub_tasks(2, 20, jax.random.key(seed)).query[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


# Fine-tuning.


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_mamf_is_the_loop_with_a_fresh_optimizer_for_each_task():
    params, tasks, rule = linear_params(), sub_tasks(2, 3), optax.adam(0.1)
    batches = [joined(tasks, k) for k in range(3)]
    tuned = flat(jax.jit(ml.mamf(n_way_loss, rule, 4))(params, tasks))
    np.testing.assert_allclose(tuned, flat(naive(n_way_loss, rule, 4, params, batches)), rtol=0, atol=1e-12)
    assert abs(tuned - flat(naive(n_way_loss, rule, 4, params, batches, fresh=False))).max() > 1e-3
    assert abs(tuned - flat(naive(n_way_loss, rule, 4, params, batches[::-1]))).max() > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_mamf_is_reptile_with_outer_rate_one():
    params, tasks, rule = linear_params(), sub_tasks(2, 3), optax.adam(0.1)
    whole = jax.tree.map(lambda *halves: jnp.concatenate(halves, axis=1), *tasks)
    learner = ml.meta_learner(ml.reptile(n_way_loss, rule, 4), optax.sgd(1.0))

    def step(state, task):
        return learner.step(state, jax.tree.map(lambda leaf: leaf[None], task))

    end, _ = jax.jit(lambda: jax.lax.scan(step, learner.init(params), Task(whole, whole)))()
    tuned = jax.jit(ml.mamf(n_way_loss, rule, 4))(params, tasks)
    np.testing.assert_allclose(flat(tuned), flat(end.params), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_task_of_all_labels_is_classical_fine_tuning():
    """Nothing is left of the sampling: the loss is the plain cross-entropy of all examples, in whatever order."""
    params, rule = linear_params(), optax.adam(0.1)
    everything = (EXAMPLES.reshape(12, 2), jnp.repeat(jnp.arange(4), 3))
    classical = naive(losses.cross_entropy(linear), rule, 5, params, [everything])
    tuned = jax.jit(ml.mamf(n_way_loss, rule, 5))(params, sub_tasks(num_ways=4, num_tasks=1))
    np.testing.assert_allclose(flat(tuned), flat(classical), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_mamf_is_the_closed_form_on_squared_distances():
    """theta_k = mean_k + (1 - a)^S (theta_{k-1} - mean_k): each task pulls towards its own mean, the last the most."""
    step_size, num_steps = 0.3, 4
    points = jax.random.normal(KEY, (5, 6, 2))
    tasks = Task(points[:, :2], points[:, 2:])
    tuned = ml.mamf(
        lambda phi, batch: jnp.mean(jnp.sum((phi - batch) ** 2, axis=-1)) / 2, optax.sgd(step_size), num_steps
    )
    expected = np.array([3.0, -1.0])
    for mean in np.asarray(points).mean(axis=1):
        expected = mean + (1 - step_size) ** num_steps * (expected - mean)
    np.testing.assert_allclose(jax.jit(tuned)(jnp.array([3.0, -1.0]), tasks), expected, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_any_pytree_of_params_is_tuned(container):
    params, apply = CONTAINERS[container]()
    loss = losses.mean_squared_error(apply)
    tasks = ml.tasks.Sinusoid(amplitude=(2.0, 2.0), phase=(0.0, 0.0), x_range=(-1.0, 1.0))(KEY, 20)
    tuned = jax.jit(ml.mamf(loss, optax.sgd(0.05), 3))(params, tasks)
    assert jax.tree.structure(tuned) == jax.tree.structure(params)
    last = jax.tree.map(lambda leaf: leaf[-1], tasks).query
    assert loss(tuned, last) < 0.9 * loss(params, last)


# The n-way loss.


@pytest.mark.slow
def test_the_loss_and_the_accuracy_are_those_of_the_labels_present_renumbered():
    params = linear_params()
    inputs, labels = jax.random.normal(KEY, (5, 2)), jnp.array([3, 1, 1, 3, 1])
    present = linear(params, inputs)[:, jnp.array([1, 3])]
    renumbered = (labels == 3).astype(int)
    for measure in (losses.cross_entropy, losses.accuracy):
        expected = measure(lambda params, inputs: present)(params, (inputs, renumbered))
        np.testing.assert_allclose(among_present(measure, linear)(params, (inputs, labels)), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_gradient_is_right_and_leaves_absent_labels_alone():
    params, batch = linear_params(), (jax.random.normal(KEY, (5, 2)), jnp.array([3, 1, 1, 3, 1]))
    gradient = jax.grad(n_way_loss)(params, batch)
    np.testing.assert_array_equal(gradient["weights"][:, ::2], 0)
    expected = central_differences(lambda p: n_way_loss(p, batch), params)
    np.testing.assert_allclose(flat(gradient), expected, rtol=0, atol=1e-9)


# Bad input.

SGD = optax.sgd(0.1)
WHOLE = "must be a whole number of at least 1"
CASES = {
    "mamf: no loss": (lambda: ml.mamf(None, SGD, 1), TypeError, "loss must be a function"),
    "mamf: inner is a rate": (lambda: ml.mamf(n_way_loss, 0.1, 1), TypeError, "inner must be an optax.Gradient"),
    "mamf: no steps": (lambda: ml.mamf(n_way_loss, SGD, 0), ValueError, f"num_steps {WHOLE}"),
    "mamf: no tasks": (
        lambda: ml.mamf(n_way_loss, SGD, 1)(linear_params(), [1, 2]),
        TypeError,
        r"tasks must be a metalearn.Task\(support, query\)",
    ),
    "mamf: whole-number params": (
        lambda: ml.mamf(n_way_loss, SGD, 1)(jnp.arange(3), sub_tasks(2, 1)),
        TypeError,
        "params must be a floating-point array",
    ),
    "mamf: loss per example": (
        lambda: ml.mamf(lambda p, b: b[0][:, 0], SGD, 1)(linear_params(), sub_tasks(2, 1)),
        ValueError,
        "loss must return a scalar",
    ),
    "cover: no ways": (lambda: tasks_to_cover(0, 10), ValueError, f"num_ways {WHOLE}"),
    "cover: no labels": (lambda: tasks_to_cover(1, 0), ValueError, f"num_labels {WHOLE}"),
    "cover: too many ways": (lambda: tasks_to_cover(11, 10), ValueError, "num_ways must be at most 10.*labels.*11"),
    "cover: no misses": (lambda: tasks_to_cover(2, 10, 0.0), ValueError, "miss_probability must be .* above 0"),
    "cover: only misses": (lambda: tasks_to_cover(2, 10, 1.0), ValueError, "miss_probability must be .* below 1"),
    "tasks: flat examples": (
        lambda: uniform_tasks(jnp.ones(3), 2, 1),
        ValueError,
        r"examples must have shape \[num_labels, num_examples, ...\].*\[3\]",
    ),
    "tasks: no ways": (lambda: uniform_tasks(EXAMPLES, 0, 1), ValueError, f"num_ways {WHOLE}"),
    "tasks: too many ways": (lambda: uniform_tasks(EXAMPLES, 5, 1), ValueError, "num_ways must be at most 4.*5"),
    "tasks: no support": (lambda: uniform_tasks(EXAMPLES, 2, 0), ValueError, f"num_support {WHOLE}"),
    "tasks: no query": (lambda: uniform_tasks(EXAMPLES, 2, 3), ValueError, "num_support must be at most 2.*3"),
    "tasks: none": (lambda: sub_tasks(2, 0), ValueError, f"num_tasks {WHOLE}"),
    "present: loss value": (lambda: among_present(1.0, linear), TypeError, "measure must be a function"),
    "present: no model": (lambda: among_present(losses.accuracy, 1), TypeError, "apply must be a function"),
    "present: float labels": (
        lambda: n_way_loss(linear_params(), (jnp.ones((3, 2)), jnp.ones(3))),
        TypeError,
        "labels must be whole numbers",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_clear_error(*CASES[case])
