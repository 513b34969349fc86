"""The training loop is the plain loop over learner.step, only faster; and it stops in good order."""

import importlib
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import metalearn as ml

pytestmark = pytest.mark.filterwarnings("error")

KEY = jax.random.key(7)
family = ml.tasks.Quadratic(dim=2)
bank = jax.jit(family, static_argnums=1)(jax.random.key(0), 64)  # sooner than one operation after another
learner = ml.meta_learner(ml.maml(family.loss, optax.sgd(0.5), num_steps=2), optax.adam(0.05))
START = jnp.array([3.0, -2.0])


def from_bank(key, num_tasks):
    """Tasks drawn from a fixed set of 64; it compiles in a tenth of the time of the family itself."""
    which = jax.random.randint(key, (num_tasks,), 0, 64)
    return jax.tree.map(lambda leaf: leaf[which], bank)


def fit(learner=learner, params=START, sample_tasks=from_bank, num_steps=7, meta_batch_size=4, key=KEY, progress=False):
    return ml.fit(learner, params, sample_tasks, num_steps, meta_batch_size, key, progress)


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
    result = fit(sample_tasks=lambda key, num_tasks: bank, meta_batch_size=64, num_steps=700)
    exact = ml.theory.unrolled(bank, 0.5, 2)
    np.testing.assert_allclose(result.params, exact.stationary_point(), atol=1e-3)
    assert result.history.query_loss[-1] == pytest.approx(exact.objective(exact.stationary_point()), rel=1e-4)


def test_a_second_run_compiles_nothing():
    """Nor does it if keys and starts are new; only a new number of steps a call may."""
    traces = []

    def counted(key, num_tasks):
        traces.append(num_tasks)
        return from_bank(key, num_tasks)

    fit(sample_tasks=counted, num_steps=250)
    assert set(traces) == {4}
    before = len(traces)
    fit(sample_tasks=counted, num_steps=250)
    fit(sample_tasks=counted, num_steps=250, key=jax.random.key(1), params=jnp.zeros(2))
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


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_dtype_of_params_is_kept(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        result = fit(params=jnp.array([3.0, -2.0], dtype))
        assert result.params.dtype == dtype
        assert np.isfinite(result.history.query_loss).all()


def test_an_nnx_state_is_trained():
    params, apply = ml.models.functional(ml.models.MLP((1, 8, 1), rngs=nnx.Rngs(0)))
    loss = ml.losses.mean_squared_error(apply)
    network = ml.meta_learner(ml.fo_maml(loss, optax.sgd(0.01), 1), optax.adam(1e-2))
    result = fit(network, params, ml.tasks.Sinusoid(amplitude=(1.0, 1.0), phase=(0.0, 0.0)), num_steps=100)
    chex.assert_trees_all_equal_structs(result.params, params)
    assert result.history.query_loss[-20:].mean() < result.history.query_loss[:20].mean()


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


def test_a_diverging_inner_loop_says_what_to_lower_and_keeps_the_start():
    diverging = ml.meta_learner(ml.maml(family.loss, optax.sgd(1e20), num_steps=5), optax.sgd(0.1))
    with pytest.raises(ml.DivergedError, match="Lower the learning rate of `inner`") as caught:
        fit(diverging)
    assert isinstance(caught.value, FloatingPointError)
    np.testing.assert_array_equal(caught.value.result.params, START)


def interrupted_after(monkeypatch, num_calls):
    module = importlib.import_module("metalearn.training.fit")
    run, calls = module._run, itertools.count()

    def interrupted(*arguments, **keywords):
        if next(calls) == num_calls:
            raise KeyboardInterrupt
        return run(*arguments, **keywords)

    monkeypatch.setattr(module, "_run", interrupted)


def test_ctrl_c_returns_what_was_reached(monkeypatch, plain_loop, capsys):
    """250 steps are run 3 at a time, so that the fifth call begins after 12."""
    interrupted_after(monkeypatch, 4)
    result = fit(num_steps=250, progress=True)
    chex.assert_trees_all_close(result.state, plain_loop[0][12], rtol=1e-5, atol=1e-6)
    chex.assert_shape(list(result.history), (12,))
    assert "Interrupted after 12 of 250 steps" in capsys.readouterr().out


def test_ctrl_c_while_waiting_leaves_state_and_history_in_step(monkeypatch):
    """JAX computes in the background, so the interrupt comes when the history of a call is read."""
    module = importlib.import_module("metalearn.training.fit")
    run, calls = module._run, itertools.count()

    class Interrupted:
        def __array__(self, *arguments, **keywords):
            raise KeyboardInterrupt

    def interrupted(*arguments, **keywords):
        state, history = run(*arguments, **keywords)
        return (state, module.History(*[Interrupted()] * 3)) if next(calls) == 2 else (state, history)

    monkeypatch.setattr(module, "_run", interrupted)
    result = fit()
    assert result.state.step == len(result.history.query_loss) == 2


def test_ctrl_c_before_the_first_step_returns_the_start(monkeypatch):
    interrupted_after(monkeypatch, 0)
    result = fit()
    np.testing.assert_array_equal(result.params, START)
    chex.assert_shape(list(result.history), (0,))


def test_ctrl_c_is_silent_without_progress(monkeypatch, capsys):
    interrupted_after(monkeypatch, 1)
    assert fit(progress=False).state.step == 1
    assert capsys.readouterr().err == ""
