"""The training loop is the plain loop over learner.step, only faster; and it stops in good order."""

import functools
import importlib
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from problems import quadratic_tasks

import metalearn as ml
from metalearn.training import loop
from metalearn.training.sources import Sampler

pytestmark = pytest.mark.filterwarnings("error")

KEY = jax.random.key(7)
family = ml.tasks.Quadratic(dim=2)
bank = quadratic_tasks(64)
learner = ml.meta_learner(ml.maml(family.loss, optax.sgd(0.5), num_steps=2), optax.adam(0.05))
START = np.array([3.0, -2.0], np.float32)


def from_bank(key, num_tasks):
    """Tasks drawn from a fixed set of 64; it compiles in a tenth of the time of the family itself."""
    which = jax.random.randint(key, (num_tasks,), 0, 64)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[which], bank)


def fit(learner=learner, params=START, tasks=from_bank, num_steps=7, meta_batch_size=4, key=KEY, progress=False):
    return ml.fit(learner, params, tasks, num_steps, meta_batch_size, key, progress)


@pytest.fixture(scope="module")
def plain_loop():
    """[state after t steps] and [info of step t], by a Python loop."""
    step, draw = jax.jit(learner.step), jax.jit(lambda t: from_bank(jax.random.fold_in(KEY, t), 4))
    states, infos = [learner.init(START)], []
    for t in range(251):
        state, info = step(states[-1], draw(t))
        states.append(state)
        infos.append(info)
    return states, infos


@pytest.mark.parametrize("num_steps", [1, 7, 101, 251])
def test_fit_is_the_loop_over_steps(plain_loop, num_steps):
    """Whether or not the steps divide evenly among the compiled calls."""
    states, infos = plain_loop
    result = fit(num_steps=num_steps)
    chex.assert_trees_all_close(result.state, states[num_steps], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(result.params, result.state.params)
    assert result.state.step == num_steps
    chex.assert_shape(list(result.history), (num_steps,))
    np.testing.assert_allclose(
        result.history.query_loss, [info.query_loss.mean() for info in infos[:num_steps]], rtol=1e-4
    )
    np.testing.assert_allclose(result.history.grad_norm, [info.grad_norm for info in infos[:num_steps]], rtol=1e-4)
    assert not result.history.num_failed.any()


def test_history_is_numpy_and_counts_are_whole_numbers():
    history = fit().history
    assert all(isinstance(column, np.ndarray) for column in history)
    assert np.issubdtype(history.num_failed.dtype, np.integer)


def test_the_run_depends_on_the_key_alone():
    first, again = fit(), fit()
    chex.assert_trees_all_equal(first.params, again.params)
    assert (first.params != fit(key=jax.random.key(8)).params).all()


def test_fit_finds_the_stationary_point():
    """On one fixed batch of tasks, training ends where the closed form says that the meta-gradient is zero."""
    result = fit(tasks=lambda key, num_tasks: bank, meta_batch_size=64, num_steps=700)
    exact = ml.theory.unrolled(bank, 0.5, 2)
    np.testing.assert_allclose(result.params, exact.stationary_point(), atol=1e-3)
    assert result.history.query_loss[-1] == pytest.approx(exact.objective(exact.stationary_point()), rel=1e-4)


def test_a_second_run_compiles_nothing():
    """Nor does it if keys and starts are new; only a new number of steps a call may."""
    traces = []

    def counted(key, num_tasks):
        traces.append(num_tasks)
        return from_bank(key, num_tasks)

    fit(tasks=counted, num_steps=250)
    assert traces == [4, 4]  # once to be compiled, once to see whether it depends on its key alone
    before = len(traces)
    fit(tasks=counted, num_steps=250)
    fit(tasks=counted, num_steps=250, key=jax.random.key(1), params=jnp.zeros(2))
    assert len(traces) == before


def test_any_pair_of_functions_is_a_learner():
    counter = ml.MetaLearner(
        init=lambda params: ml.MetaState(params, (), jnp.zeros((), jnp.int32)),
        step=lambda state, tasks: (
            ml.MetaState(state.params + 1, (), state.step + 1),
            ml.MetaInfo(jnp.zeros(4), jnp.zeros(()), jnp.ones(4, bool)),
        ),
    )
    np.testing.assert_array_equal(fit(counter, num_steps=150).params, START + 150)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_dtype_of_params_is_kept(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        result = fit(params=jnp.array([3.0, -2.0], dtype))
        assert result.params.dtype == dtype
        assert np.isfinite(result.history.query_loss).all()


@pytest.mark.slow
def test_an_nnx_state_is_trained():
    params, apply = ml.models.functional(ml.models.MLP((1, 8, 1), rngs=nnx.Rngs(0)))
    loss = ml.losses.mean_squared_error(apply)
    network = ml.meta_learner(ml.fo_maml(loss, optax.sgd(0.01), 1), optax.adam(1e-2))
    result = fit(network, params, ml.tasks.Sinusoid(amplitude=(1.0, 1.0), phase=(0.0, 0.0)), num_steps=100)
    chex.assert_trees_all_equal_structs(result.params, params)
    assert result.history.query_loss[-20:].mean() < result.history.query_loss[:20].mean()


def test_a_run_goes_on_from_a_state(plain_loop):
    """100 steps and 151 more are 251 steps to the last bit, with the tasks that belong to them."""
    whole, first = fit(num_steps=251), fit(num_steps=100)
    second = fit(params=first.state, num_steps=151)
    chex.assert_trees_all_equal(second.state, whole.state)
    chex.assert_trees_all_equal(np.concatenate([first.history, second.history], axis=1), np.array(whole.history))
    assert second.state.step == 251


def test_what_is_no_state_of_the_learner_is_refused():
    result = fit(num_steps=1)
    momentum = ml.meta_learner(ml.maml(family.loss, optax.sgd(0.5), num_steps=2), optax.sgd(0.05, momentum=0.9))
    with pytest.raises(TypeError, match=r"params is a FitResult.*its `state` to go on"):
        fit(params=result)
    with pytest.raises(ValueError, match="state of another learner"):
        fit(momentum, params=result.state)
    with pytest.raises(
        ValueError, match=r"state of another learner: its .opt_state.*float32\[2\], and here float32\[3\]"
    ):
        fit(params=result.state._replace(params=jnp.zeros(3)))


# Batches from outside.


@functools.cache
def host_batches():
    """What the sampler draws for the first six steps, as NumPy arrays."""
    return [jax.tree.map(np.asarray, from_bank(jax.random.fold_in(KEY, t), 4)) for t in range(6)]


def fit_batches(tasks, num_steps=6, params=START, **options):
    return ml.fit(learner, params, tasks, num_steps, progress=False, **options)


def test_an_iterable_of_the_same_batches_gives_the_same_run(plain_loop):
    result = fit_batches(host_batches())
    chex.assert_trees_all_close(result.state, plain_loop[0][6], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(fit_batches(iter(host_batches())), result)
    chex.assert_trees_all_equal(fit_batches(jax.tree.map(jnp.asarray, host_batches())), result)


def test_a_list_is_read_again_and_a_generator_is_not():
    twice = fit_batches(host_batches(), 12)
    chex.assert_trees_all_equal(fit_batches(host_batches() * 2, 12), twice)
    with pytest.raises(ml.TasksEndedError, match="ended after 6 batches") as caught:
        fit_batches(iter(host_batches()), 12)
    chex.assert_trees_all_equal(caught.value.result, fit_batches(host_batches()))


def test_one_generator_serves_one_run_after_another():
    stream = iter(host_batches() * 2)
    first = fit_batches(stream, 7)
    assert fit_batches(stream, 5, params=first.state).state.step == 12
    chex.assert_trees_all_equal(
        fit_batches(host_batches(), 5, params=fit_batches(host_batches(), 12).state).state.step, 17
    )


def test_a_loader_may_fill_its_buffers_anew():
    def refilled():
        buffer = jax.tree.map(np.empty_like, host_batches()[0])
        for batch in host_batches():
            jax.tree.map(lambda to, new: np.copyto(to, new), buffer, batch)
            yield buffer

    chex.assert_trees_all_equal(fit_batches(refilled()), fit_batches(host_batches()))


def test_the_next_batch_is_read_while_a_step_is_computed():
    """When the first step is still waited for, the second batch has been read; never more than one is ahead."""
    read = []

    def watched():
        for number, batch in enumerate(host_batches(), start=1):
            read.append(number)
            yield batch

    seen = []
    fit_batches(watched(), callback=lambda step, state, history: seen.append((step, read[-1])))
    assert seen == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 6)]


class Foreign:
    """An array of another library: it can be read by NumPy."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array.astype(np.float64 if dtype is None else dtype)


def test_arrays_of_other_libraries():
    foreign = [jax.tree.map(Foreign, batch) for batch in host_batches()]
    chex.assert_trees_all_equal(fit_batches(foreign), fit_batches(host_batches()))


one = quadratic_tasks(4)


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        (one, TypeError, r"it is a Task. One batch .* is given as \[batch\]"),
        (3, TypeError, "must be a sampler.*or an iterable of Task batches, but it is a int"),
        ([], RuntimeError, "ended after 0 batches"),
        ([tuple(one)], TypeError, "batch 1 is a tuple"),
        ([one, one.support.hessian], TypeError, "batch 2 is a ndarray"),
        (
            [one, jax.tree.map(lambda leaf: leaf[:3], one)],
            ValueError,
            r"Batch 2.*\[3, 2, 2\], but .*\[4, 2, 2\].*drop_last",
        ),
        ([one, one._replace(query=one.query.minimum)], ValueError, "Batch 2 of tasks is built otherwise"),
        ([one._replace(query=np.array(["cat"] * 4))], TypeError, "Batch 1 of tasks.query.*cannot be made an array"),
        ([one._replace(query=np.full(4, 2**40))], ValueError, "do not fit into int32"),
        (lambda: None, TypeError, r"a sampler that takes \(key, number\)"),
    ],
)
def test_what_is_no_iterable_of_batches_is_refused(tasks, error, message):
    with pytest.raises(error, match=message):
        fit_batches(tasks, **({"meta_batch_size": 4, "key": KEY} if callable(tasks) else {}))


def test_a_sampler_and_an_iterable_want_other_arguments():
    with pytest.raises(ValueError, match="meta_batch_size belongs to a sampler"):
        fit_batches(host_batches(), meta_batch_size=4)
    with pytest.raises(ValueError, match="key belongs to a sampler"):
        fit_batches(host_batches(), key=KEY)
    with pytest.raises(ValueError, match="meta_batch_size must be a whole number"):
        fit_batches(from_bank)
    with pytest.raises(TypeError, match="tasks is a generator function"):
        fit_batches(host_generator)


def host_generator():
    yield from host_batches()


# Samplers that are none.


@jax.jit
def jitted_noise(key):
    return jnp.asarray(np.random.default_rng().normal(size=(4, 2)))


def with_minima(minima):
    return bank._replace(
        **{
            part: jax.tree.map(lambda leaf: leaf[:4], getattr(bank, part))._replace(minimum=minima)
            for part in bank._fields
        }
    )


counter = itertools.count(1)


@pytest.mark.parametrize(
    "sampler",
    [
        lambda key, number: with_minima(np.random.default_rng().normal(size=(number, 2)).astype(np.float32)),
        lambda key, number: with_minima(jitted_noise(key)),
        lambda key, number: with_minima(jax.random.normal(key, (number, 2)) * next(counter)),
        lambda key, number: with_minima(np.random.default_rng(int(jax.random.bits(key))).normal(size=(number, 2))),
    ],
    ids=["NumPy", "NumPy under jit", "a counter", "a seed from the key"],
)
def test_a_sampler_that_does_not_draw_by_its_key_is_refused(sampler):
    """Compiled, it would give the same batch at every step."""
    with pytest.raises((ValueError, TypeError), match="is given as an iterable of Task batches"):
        fit(tasks=sampler)


def test_a_sampler_of_another_number_of_tasks_is_refused():
    with pytest.raises(ValueError, match="tasks returned 64 tasks, but meta_batch_size is 4"):
        fit(tasks=lambda key, number: bank)


def test_arrays_that_a_sampler_captures_are_no_part_of_the_program():
    source = Sampler(from_bank, 4, KEY)
    source.place(None)
    program = loop.sampled_steps.lower(learner, source._draw, 1, None, source._constants, learner.init(START), KEY, 1)
    (signature,) = (line for line in program.as_text().splitlines() if "@main" in line)
    assert "tensor<64x2x2xf32>" in signature
    assert not [line for line in program.as_text().splitlines() if "dense<" in line and "64x2" in line]


# The callback.


def test_the_callback_sees_the_run_and_may_stop_it():
    seen = []

    def watch(step, state, history):
        seen.append((step, int(state.step), len(history.query_loss)))
        return step >= 103

    first = fit(num_steps=100)
    result = ml.fit(learner, first.state, from_bank, 150, 4, KEY, progress=False, callback=watch)
    assert seen == [(103, 103, 3)]
    chex.assert_trees_all_equal(result.state, fit(num_steps=103).state)
    with pytest.raises(TypeError, match=r"callback must return True to stop.*3.5"):
        ml.fit(learner, START, from_bank, 2, 4, KEY, progress=False, callback=lambda *_: 3.5)


# What is shown.


def test_progress_goes_to_standard_output(capsys):
    fit(num_steps=250, progress=True)
    shown = capsys.readouterr()
    assert "250/250" in shown.out
    assert "query loss" in shown.out
    assert shown.err == ""


def test_without_progress_nothing_is_shown(capsys):
    fit(progress=False)
    assert capsys.readouterr() == ("", "")


# Trouble.


def failing_from(step, num_failed):
    """A learner whose state counts steps, and in which that many of 4 tasks fail from `step` on."""

    def advance(state, tasks):
        failed = (jnp.arange(4) < num_failed) & (state.step >= step)
        info = ml.MetaInfo(jnp.where(failed, jnp.inf, jnp.arange(4.0)), jnp.ones(()), ~failed)
        return ml.MetaState(state.params + 1, (), state.step + 1), info

    return ml.MetaLearner(lambda params: ml.MetaState(params, (), jnp.zeros((), jnp.int32)), advance)


def test_failed_tasks_are_counted_and_left_out_of_the_loss():
    history = fit(failing_from(3, num_failed=2), num_steps=5).history
    np.testing.assert_array_equal(history.num_failed, [0, 0, 0, 2, 2])
    np.testing.assert_array_equal(history.query_loss, [1.5, 1.5, 1.5, 2.5, 2.5])


def test_when_all_tasks_fail_the_error_holds_what_was_reached():
    with pytest.raises(ml.DivergedError, match="outer step 120 ") as caught:
        fit(failing_from(120, num_failed=4), num_steps=1000)
    result = caught.value.result
    np.testing.assert_array_equal(result.history.num_failed[:120], 0)
    assert (result.history.num_failed[120:] == 4).all()
    assert np.isnan(result.history.query_loss[120])
    assert 120 < len(result.history.num_failed) < 1000, "it stops at once, or nearly"
    assert len(result.history.query_loss) == result.state.step


def test_a_diverging_inner_loop_says_what_to_lower_and_keeps_the_initialization():
    diverging = ml.meta_learner(ml.maml(family.loss, optax.sgd(1e20), num_steps=5), optax.sgd(0.1))
    with pytest.raises(ml.DivergedError, match="Lower the learning rate of `inner`") as caught:
        fit(diverging)
    assert isinstance(caught.value, FloatingPointError)
    np.testing.assert_array_equal(caught.value.result.params, START)


def test_nan_everywhere_is_an_error_that_mentions_labels():
    poisoned = jax.tree.map(lambda leaf: jnp.full_like(leaf[:4], jnp.nan), bank)
    with pytest.raises(ml.DivergedError, match=r"outer step 0 .*labels outside"):
        fit(tasks=lambda key, number: poisoned)


def interrupted_after(monkeypatch, num_calls):
    module = importlib.import_module("metalearn.training.loop")
    run, calls = module.sampled_steps, itertools.count()

    def interrupted(*arguments, **keywords):
        if next(calls) == num_calls:
            raise KeyboardInterrupt
        return run(*arguments, **keywords)

    monkeypatch.setattr(module, "sampled_steps", interrupted)


def test_ctrl_c_returns_what_was_reached(monkeypatch, plain_loop, capsys):
    """150 steps are run 3 at a time, so that the fifth call begins after 12."""
    interrupted_after(monkeypatch, 4)
    result = fit(num_steps=150, progress=True)
    chex.assert_trees_all_close(result.state, plain_loop[0][12], rtol=1e-5, atol=1e-6)
    chex.assert_shape(list(result.history), (12,))
    assert "Interrupted after 12 of 150 steps" in capsys.readouterr().out


def test_ctrl_c_while_waiting_leaves_state_and_history_in_step(monkeypatch):
    """JAX computes in the background, so the interrupt comes when the history of a call is read."""
    module = importlib.import_module("metalearn.training.loop")
    run, calls = module.sampled_steps, itertools.count()

    class Interrupted:
        def __array__(self, *arguments, **keywords):
            raise KeyboardInterrupt

    def interrupted(*arguments, **keywords):
        state, history = run(*arguments, **keywords)
        return (state, module.History(*[Interrupted()] * 3)) if next(calls) == 2 else (state, history)

    monkeypatch.setattr(module, "sampled_steps", interrupted)
    result = fit()
    assert result.state.step == len(result.history.query_loss) == 2


def test_ctrl_c_before_the_first_step_returns_the_initialization(monkeypatch):
    interrupted_after(monkeypatch, 0)
    result = fit()
    np.testing.assert_array_equal(result.params, START)
    chex.assert_shape(list(result.history), (0,))


def test_ctrl_c_is_silent_without_progress(monkeypatch, capsys):
    interrupted_after(monkeypatch, 1)
    assert fit(progress=False).state.step == 1
    assert capsys.readouterr().err == ""
