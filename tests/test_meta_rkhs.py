"""Meta-RKHS I against its formula, finite differences and MAML's Taylor series; II as a meta-gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import CONTAINERS, assert_clear_error, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml

pytestmark = pytest.mark.filterwarnings("error")


def paper(loss, params, batch, step_size):
    """L - a |grad L|^2."""
    return float(loss(params, batch)) - step_size * np.sum(flat(jax.grad(loss)(params, batch)) ** 2)


# I: the regularizer.


def test_i_is_the_papers_formula_where_query_and_support_are_one_set(x64):
    params, task = tanh_problem()
    value, _ = ml.meta_rkhs_i(tanh_loss, 0.05, cap=None)(params, ml.Task(task.query, task.query))
    assert value == pytest.approx(paper(tanh_loss, params, task.query, 0.05), rel=1e-13)


def test_i_has_the_mean_of_the_papers_formula_where_they_are_drawn_independently(x64):
    """All 36 pairs of single examples; with one example for both sets the mean of |grad|^2 is too large."""
    params, task = tanh_problem()
    examples = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], task.query) for i in range(6)]
    objective = jax.jit(lambda s, q: ml.meta_rkhs_i(tanh_loss, 0.05, cap=None)(params, ml.Task(s, q))[0])
    expected = paper(tanh_loss, params, task.query, 0.05)
    assert np.mean([objective(s, q) for s in examples for q in examples]) == pytest.approx(expected, rel=1e-12)
    assert np.mean([objective(q, q) for q in examples]) < 0.9 * expected


@pytest.mark.slow
@pytest.mark.parametrize(("step_size", "cap"), [(0.05, None), (0.05, 0.9), (10.0, 0.9)])
def test_gradient_of_i_by_finite_differences(x64, step_size, cap):
    params, task = tanh_problem()
    meta_gradient = jax.jit(ml.meta_rkhs_i(tanh_loss, step_size, cap))
    numeric = central_differences(lambda p: meta_gradient(p, task)[0], params)
    np.testing.assert_allclose(flat(meta_gradient(params, task)[1]), numeric, atol=1e-8 * np.linalg.norm(numeric))


@pytest.mark.slow
def test_i_is_one_step_of_maml_up_to_the_second_order_in_the_step_size(x64):
    params, task = tanh_problem()
    step_sizes = np.geomspace(1e-4, 1e-2, 5)

    @jax.jit
    @jax.vmap
    def errors(step_size):
        ours = ml.meta_rkhs_i(tanh_loss, step_size)(params, task)
        exact = ml.maml(tanh_loss, optax.sgd(step_size), 1)(params, task)
        return [optax.tree.norm(difference) for difference in optax.tree.sub(ours, exact)]

    for error in errors(step_sizes):
        assert np.polyfit(np.log(step_sizes), np.log(error), 1)[0] == pytest.approx(2, abs=0.05)


def parabola(h):
    return lambda params, batch: h / 2 * jnp.sum(params**2)


@pytest.mark.parametrize("step_size", [0.1, 0.3])
def test_i_on_a_parabola(x64, step_size):
    """1/2 h (1 - 2 a h) theta^2, without a lower bound where a > 1/(2 h) = 1/4."""
    task = ml.Task(jnp.zeros(1), jnp.zeros(1))
    value, gradient = ml.meta_rkhs_i(parabola(2.0), step_size, cap=None)(jnp.array(3.0), task)
    factor = 2.0 * (1 - 4 * step_size)
    assert value == pytest.approx(factor / 2 * 9)
    assert gradient == pytest.approx(factor * 3)


def after_training(step_size, cap):
    learner = ml.meta_learner(ml.meta_rkhs_i(parabola(2.0), step_size, cap), optax.sgd(0.1))
    tasks = ml.Task(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    state, _ = jax.lax.scan(lambda state, _: learner.step(state, tasks), learner.init(jnp.ones(())), length=200)
    return float(abs(state.params))


@pytest.mark.slow
def test_the_cap_keeps_a_step_size_that_is_too_large_from_running_away(x64):
    assert after_training(0.1, None) < 1e-3
    assert after_training(0.3, None) > 1e2
    assert after_training(0.3, 0.9) < 0.1
    assert after_training(0.1, 0.9) == after_training(0.1, None), "below 0.9 / (2 h) the cap is never felt"


@pytest.mark.parametrize("offset", [1e6, 2.5, 0.0])
def test_the_cap_measures_a_loss_from_zero_on_either_side(x64, offset):
    """1/2 theta^2 - offset at theta = 2: a small gain on a negative loss is whole, a large one is cap |f|."""
    task = ml.Task(jnp.zeros(1), jnp.zeros(1))
    value, gradient = ml.meta_rkhs_i(lambda p, b: parabola(1.0)(p, b) - offset, 0.2, cap=0.9)(jnp.array(2.0), task)
    f = 2.0 - offset
    whole = 0.9 * abs(f) >= 0.2 * 4.0  # the gain is a |grad f|^2
    assert value == pytest.approx(f - (0.8 if whole else 0.9 * abs(f)))
    assert gradient == pytest.approx(2.0 - (0.8 if whole else 0.9 * np.sign(f) * 2.0))
    assert whole == (offset != 2.5)


# II, as any meta-gradient: its value is tested with the kernel.


def network(params, inputs):
    return jnp.tanh(inputs @ params["hidden"]) @ params["output"]


@pytest.mark.slow
@pytest.mark.parametrize("time", [0.3, np.inf])
def test_gradient_of_ii_by_finite_differences(x64, time):
    params, task = tanh_problem(num_examples=4)
    meta_gradient = jax.jit(ml.meta_rkhs_ii(network, time))
    numeric = central_differences(lambda p: meta_gradient(p, task)[0], params)
    np.testing.assert_allclose(flat(meta_gradient(params, task)[1]), numeric, atol=1e-7 * np.linalg.norm(numeric))


@pytest.mark.slow
def test_vmap_over_tasks_is_a_loop_and_compiles_once():
    params, _ = tanh_problem()
    tasks = [tanh_problem(seed)[1] for seed in range(3)]
    meta_gradient = ml.meta_rkhs_ii(network, 1.0)
    one_task = jax.jit(chex.assert_max_traces(lambda params, task: meta_gradient(params, task), n=1))
    one_by_one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one_task(params, task) for task in tasks))
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    side_by_side = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(params, batch)
    chex.assert_trees_all_close(side_by_side, one_by_one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_any_pytree_of_params_gives_what_one_array_gives(container):
    params, apply = CONTAINERS[container]()
    task = jax.tree.map(lambda leaf: leaf[0], ml.tasks.Sinusoid(4, 4)(jax.random.key(0), 1))
    vector, unravel = ravel_pytree(params)
    value, gradient = jax.jit(ml.meta_rkhs_ii(apply, 1.0))(params, task)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    flat_value, flat_gradient = jax.jit(ml.meta_rkhs_ii(lambda x, inputs: apply(unravel(x), inputs), 1.0))(vector, task)
    np.testing.assert_allclose(value, flat_value, rtol=1e-3)
    np.testing.assert_allclose(flat(gradient), flat_gradient, atol=1e-3 * np.linalg.norm(flat_gradient))


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [(jnp.bfloat16, jnp.bfloat16), (jnp.float32, jnp.bfloat16)], ids=["bf16", "mixed"])
def test_dtypes_are_those_of_params(dtypes):
    params, task = tanh_problem()
    expected = flat(jax.jit(ml.meta_rkhs_ii(network, 1.0))(params, task)[1])
    params = dict(zip(params, map(jnp.astype, params.values(), dtypes), strict=True))
    value, gradient = jax.jit(ml.meta_rkhs_ii(network, 1.0))(params, task)
    assert value.shape == ()
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    actual = flat(gradient).astype(np.float64)
    assert actual @ expected / np.linalg.norm(actual) / np.linalg.norm(expected) > 0.9


@pytest.mark.slow
def test_training_on_a_singular_kernel_stops_with_words():
    """Every input comes twice and time is infinite: no task has an answer, and nothing is learned from NaN."""
    params, apply = CONTAINERS["nnx"]()
    sample = ml.tasks.Sinusoid(3, 3)

    def twice(key, num_tasks):
        tasks = sample(key, num_tasks)
        return tasks._replace(support=jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], axis=1), tasks.support))

    learner = ml.meta_learner(ml.meta_rkhs_ii(apply, np.inf), optax.adam(1e-3))
    with pytest.raises(ml.DivergedError, match=r"singular kernel.*`time`.*`ridge`") as caught:
        ml.fit(learner, params, twice, 5, 2, jax.random.key(0), progress=False)
    chex.assert_trees_all_equal(caught.value.result.params, params)


POSITIVE = "must be a finite number above 0"
CASES = {
    "i: no loss": (lambda: ml.meta_rkhs_i(None, 0.1), TypeError, "loss must be a function"),
    "i: zero step": (lambda: ml.meta_rkhs_i(tanh_loss, 0.0), ValueError, f"step_size {POSITIVE}.*0.0"),
    "i: step is NaN": (lambda: ml.meta_rkhs_i(tanh_loss, np.nan), ValueError, f"step_size {POSITIVE}.*nan"),
    "i: step is a rule": (lambda: ml.meta_rkhs_i(tanh_loss, optax.sgd(0.1)), ValueError, f"step_size {POSITIVE}"),
    "i: cap of 1": (lambda: ml.meta_rkhs_i(tanh_loss, 0.1, 1.0), ValueError, "cap must be at least 0 and below 1.*1.0"),
    "i: negative cap": (lambda: ml.meta_rkhs_i(tanh_loss, 0.1, -0.1), ValueError, "cap must be at least 0"),
    "i: cap as text": (lambda: ml.meta_rkhs_i(tanh_loss, 0.1, "no"), ValueError, "cap must be at least 0.*'no'"),
    "i: vector loss": (
        lambda: ml.meta_rkhs_i(lambda params, batch: params, 0.1)(jnp.ones(2), ml.Task(jnp.ones(2), jnp.ones(2))),
        ValueError,
        "loss must return a scalar",
    ),
    "ii: no model": (lambda: ml.meta_rkhs_ii(3, 1.0), TypeError, "apply must be a function"),
    "ii: zero time": (lambda: ml.meta_rkhs_ii(network, 0.0), ValueError, f"time {POSITIVE}.*0.0"),
    "ii: negative time": (lambda: ml.meta_rkhs_ii(network, -np.inf), ValueError, f"time {POSITIVE}.*-inf"),
    "ii: time is NaN": (lambda: ml.meta_rkhs_ii(network, np.nan), ValueError, f"time {POSITIVE}.*nan"),
    "ii: time as text": (lambda: ml.meta_rkhs_ii(network, "inf"), ValueError, f"time {POSITIVE}.*'inf'"),
    "ii: no steps": (lambda: ml.meta_rkhs_ii(network, 1.0, 0), ValueError, "num_steps .* at least 1.*0"),
    "ii: steps as a float": (lambda: ml.meta_rkhs_ii(network, 1.0, 2.0), ValueError, "num_steps .* at least 1.*2.0"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])
