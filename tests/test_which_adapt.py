"""Which parameters adapt, and how fast, is said by the inner optimizer: ANIL and Meta-SGD, under every method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import CONTAINERS, assert_clear_error, build, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("error")]

STEP_SIZE, STRENGTH = 0.25, 2.0
HEAD_ONLY = optax.selective_transform(optax.sgd(STEP_SIZE), freeze_mask={"hidden": True, "output": False})


def assert_close(actual, expected, rtol=1e-9):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.linalg.norm(expected))


def adapt_head(params, batch, num_steps):
    """ANIL as its paper says it: gradient steps on the last layer, and no others."""
    head = params["output"]
    for _ in range(num_steps):
        head = head - STEP_SIZE * jax.grad(lambda head: tanh_loss(params | {"output": head}, batch))(head)
    return params | {"output": head}


# ANIL


def test_anil_is_maml_of_the_last_layer():
    params, task = tanh_problem()
    meta_gradient = jax.jit(ml.maml(tanh_loss, HEAD_ONLY, 3))
    value, gradient = meta_gradient(params, task)
    expected_value, expected = jax.jit(
        jax.value_and_grad(lambda start: tanh_loss(adapt_head(start, task.support, 3), task.query))
    )(params)
    assert_close(value, expected_value)
    assert_close(flat(gradient), flat(expected))
    assert_close(flat(gradient), central_differences(lambda start: meta_gradient(start, task)[0], params), 1e-7)
    assert np.linalg.norm(gradient["hidden"]) > 0.1, "what does not adapt is learned"


def test_first_order_anil_is_the_query_gradient_where_the_last_layer_ended():
    params, task = tanh_problem()
    _, gradient = jax.jit(ml.fo_maml(tanh_loss, HEAD_ONLY, 3))(params, task)
    expected = jax.jit(lambda start: jax.grad(tanh_loss)(adapt_head(start, task.support, 3), task.query))(params)
    assert_close(flat(gradient), flat(expected))


def test_frozen_parameters_do_not_move():
    params, task = tanh_problem()
    adapted = ml.inner.descend(lambda phi: tanh_loss(phi, task.support), HEAD_ONLY, 3, params)
    np.testing.assert_array_equal(adapted["hidden"], params["hidden"])
    assert (adapted["output"] != params["output"]).all()


@pytest.mark.slow
def test_implicit_anil_differentiates_the_loss_at_the_last_layer_s_solution():
    params, task = tanh_problem()
    meta_gradient = jax.jit(ml.imaml(tanh_loss, HEAD_ONLY, 300, STRENGTH, cg_steps=3))
    _, gradient = meta_gradient(params, task)
    assert_close(flat(gradient), central_differences(lambda start: meta_gradient(start, task)[0], params), 1e-7)


@pytest.mark.slow
def test_implicit_anil_is_a_dense_solve_among_the_adapted():
    """grad f - H z, where z solves (P H P + l I) z = P grad f, and P keeps what adapts."""
    params, task = tanh_problem()
    theta, unravel = ravel_pytree(params)

    def proximal(phi):
        return tanh_loss(phi, task.support) + STRENGTH / 2 * jnp.sum((ravel_pytree(phi)[0] - theta) ** 2)

    phi, _ = ravel_pytree(jax.jit(lambda start: ml.inner.descend(proximal, HEAD_ONLY, 300, start))(params))
    hessian = np.asarray(jax.jit(jax.hessian(lambda phi: tanh_loss(unravel(phi), task.support)))(phi))
    right = flat(jax.jit(jax.grad(tanh_loss))(unravel(phi), task.query))
    keep = flat({"hidden": np.zeros((2, 3)), "output": np.ones(3)})
    z = np.linalg.solve(keep[:, None] * hessian * keep + STRENGTH * np.eye(9), keep * right)
    _, gradient = jax.jit(ml.imaml(tanh_loss, HEAD_ONLY, 300, STRENGTH, cg_steps=3))(params, task)
    assert_close(flat(gradient), right - hessian @ z, 1e-8)


FO_B_MAML = {
    "fo_b_maml": ml.fo_b_maml(tanh_loss, HEAD_ONLY, 300, STRENGTH, perturbation=1e-4),
    "three_point": ml.fo_b_maml(tanh_loss, HEAD_ONLY, 300, STRENGTH, perturbation=1e-4, estimator="three_point"),
    "fo_b_maml_limit": ml.fo_b_maml_limit(tanh_loss, HEAD_ONLY, 300, STRENGTH),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", FO_B_MAML)
def test_perturbed_anil_is_implicit_anil(method):
    """The frozen parameters receive how the perturbed gradient turns, the adapted ones how the solution moves."""
    params, task = tanh_problem()
    value, gradient = jax.jit(FO_B_MAML[method])(params, task)
    expected_value, expected = jax.jit(ml.imaml(tanh_loss, HEAD_ONLY, 300, STRENGTH, cg_steps=3))(params, task)
    assert_close(value, expected_value, 1e-7)
    assert_close(flat(gradient), flat(expected), 1e-7)


EVERYTHING, HEAD = {"hidden", "output"}, {"output"}
RULES = {
    "sgd": (optax.sgd(0.1), EVERYTHING),
    "adam": (optax.adam(1e-9, eps_root=1e-8), EVERYTHING),
    "warm-up from zero": (optax.sgd(optax.linear_schedule(0.0, 0.1, 3)), EVERYTHING),
    "kept above zero": (optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()), EVERYTHING),
    "clipped, then the head": (optax.chain(optax.clip_by_global_norm(1.0), HEAD_ONLY), HEAD),
    "the head, then clipped": (optax.chain(HEAD_ONLY, optax.clip_by_global_norm(1.0)), HEAD),
    "adam on the head": (
        optax.partition({"adam": optax.adam(0.1), "none": optax.set_to_zero()}, {"hidden": "none", "output": "adam"}),
        HEAD,
    ),
    "never": (optax.sgd(0.0), set()),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_what_adapts_is_what_an_optimizer_moves(rule):
    """Whatever the rule is made of: the whole network, its head, or nothing."""
    params, _ = tanh_problem()
    inner, moved = RULES[rule]
    moves = ml.inner.adapting(inner, 4, params)
    assert jax.tree.map(np.shape, moves) == {"hidden": (2, 3), "output": (3,)}
    assert {name for name, leaf in moves.items() if leaf.all()} == moved
    assert {name for name, leaf in moves.items() if leaf.any()} == moved


def test_what_adapts_is_known_for_each_number_of_an_array():
    first_only = optax.chain(optax.stateless(lambda gradient, _: gradient * jnp.array([1.0, 0.0])), optax.sgd(0.1))
    np.testing.assert_array_equal(ml.inner.adapting(first_only, 2, jnp.ones(2)), [True, False])


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_a_rate_known_only_at_run_time_moves_everything(transform):
    def moves(rate):
        assert ml.inner.adapting(optax.sgd(rate), 2, jnp.ones(2)).all()
        return rate

    transform(moves)(jnp.full(1, STEP_SIZE))


# The same, by a function that selects

HEADS = {
    "nnx": lambda params: params["layers"][1],
    "linen": lambda params: params["params"]["bias"],
    "tuple": lambda params: params[1],
}


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_only_a_selected_part_adapts(container):
    """In any pytree, and the clipped norm is that of the part."""
    params, apply = CONTAINERS[container]()
    loss, batch = ml.losses.mean_squared_error(apply), (jnp.array([[1.0], [2.0]]), jnp.array([[50.0], [0.0]]))
    inner = ml.inner.only(HEADS[container], optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3)))
    step = optax.tree.sub(ml.adapt(loss, inner, params, batch, 1), params)
    np.testing.assert_allclose(optax.tree.norm(HEADS[container](step)), 0.3, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(step), 0.3, rtol=1e-6)


def test_anil_by_a_selection_is_anil_by_a_mask():
    params, task = tanh_problem()
    by_selection = ml.inner.only(lambda params: params["output"], optax.sgd(STEP_SIZE))
    expected, actual = (jax.jit(ml.maml(tanh_loss, inner, 3))(params, task) for inner in (HEAD_ONLY, by_selection))
    assert_close(flat(actual), flat(expected), 1e-12)
    assert ml.inner.adapting(by_selection, 2, params)["output"].all()
    assert not ml.inner.adapting(by_selection, 2, params)["hidden"].any()


@pytest.mark.slow
def test_a_line_search_sees_the_loss_of_the_selected_part():
    params, task = tanh_problem()
    loss = functools.partial(tanh_loss, batch=task.support)
    inner = ml.inner.only(lambda params: params["output"], optax.lbfgs())
    adapted = jax.jit(lambda start: ml.inner.descend(loss, inner, 15, start))(params)
    gradient = jax.jit(jax.grad(loss))(adapted)
    np.testing.assert_array_equal(adapted["hidden"], params["hidden"])
    assert np.linalg.norm(gradient["output"]) < 1e-6 < np.linalg.norm(gradient["hidden"])


# What is deployed


@pytest.mark.slow
def test_adapt_is_the_inner_loop_that_maml_and_imaml_evaluate():
    """The query loss at what `adapt` returns is the value of the meta-gradient."""
    params, task = tanh_problem()
    free = ml.adapt(tanh_loss, optax.sgd(STEP_SIZE), params, task.support, 3)
    assert_close(tanh_loss(free, task.query), ml.fo_maml(tanh_loss, optax.sgd(STEP_SIZE), 3)(params, task)[0], 1e-12)
    held = ml.adapt(tanh_loss, optax.sgd(STEP_SIZE), params, task.support, 300, STRENGTH)
    value, _ = ml.imaml(tanh_loss, optax.sgd(STEP_SIZE), 300, STRENGTH, 1)(params, task)
    assert_close(tanh_loss(held, task.query), value, 1e-12)
    stationary = optax.tree.add_scale(jax.grad(tanh_loss)(held, task.support), STRENGTH, optax.tree.sub(held, params))
    np.testing.assert_allclose(flat(stationary), 0, atol=1e-10)


def test_adapt_says_that_it_diverged():
    params, task = tanh_problem()
    with pytest.warns(UserWarning, match="ended in infinity or NaN: lower the learning rate of `inner`"):
        ml.adapt(lambda p, _: jnp.sum(p["output"] ** 4), optax.sgd(1e3), params, task.support, 9)


# Optimizers with extra arguments


@pytest.mark.parametrize(
    "inner",
    [optax.chain(optax.sgd(0.2), optax.contrib.reduce_on_plateau(patience=5)), optax.lbfgs()],
    ids=["reduce_on_plateau", "lbfgs"],
)
def test_optimizers_get_the_value_and_the_objective(inner):
    params = jnp.array([1.0, -2.0])
    adapted = ml.inner.descend(lambda phi: jnp.sum((phi - 3) ** 2), inner, 20, params)
    np.testing.assert_allclose(adapted, 3, atol=1e-3)


# Where the inner loop ends: implicit methods need a point where the inner gradient is zero

BOX = optax.GradientTransformation(
    lambda params: optax.EmptyState(),
    lambda updates, state, params: (
        jax.tree.map(lambda u, p: jnp.clip(p + u, -10.0, 10.0) - p, updates, params),
        state,
    ),
)
MOVES_AT_ZERO, STOPS_ELSEWHERE = (
    r"there `inner` still moves params\['.*Weight decay belongs into the loss",
    "stops else",
)
UNFIT = {
    "weight decay": (optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.1)), MOVES_AT_ZERO),
    "decoupled decay": (optax.adamw(1e-4, weight_decay=1e-4), MOVES_AT_ZERO),
    "decay that begins later": (optax.adamw(0.1, weight_decay=optax.linear_schedule(0.0, 0.1, 3)), MOVES_AT_ZERO),
    "non-negative": (optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()), MOVES_AT_ZERO),
    "box": (optax.chain(optax.sgd(0.1), BOX), MOVES_AT_ZERO),
    "centralized": (optax.chain(optax.centralize(), optax.sgd(0.1)), STOPS_ELSEWHERE),
}
FIT = {
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "adam without epsilon": optax.adam(0.1, eps=0.0),
    "yogi": optax.yogi(0.1),
    "a NaN": optax.sgd(np.nan),  # moves: to leave it out would call the inner problem solved
    "schedule": optax.sgd(optax.linear_schedule(0.0, 0.1, 3)),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "no decay": optax.adamw(0.1, weight_decay=0.0),
    "the head": HEAD_ONLY,
    "if finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "every other": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
}


def stationary(inner, params=None):
    params = tanh_problem()[0] if params is None else params
    return ml.inner.adapting_to_stationarity("imaml", inner, 4, params)


@pytest.mark.parametrize("name", UNFIT)
def test_an_optimizer_with_another_fixed_point_is_refused(name):
    inner, message = UNFIT[name]
    with pytest.raises(ValueError, match=message):
        stationary(inner)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIT)
def test_an_optimizer_that_rests_where_the_gradient_is_zero_is_taken(name):
    assert stationary(FIT[name])["output"].all()


def test_learned_rates_are_taken():
    assert flat(stationary(ml.inner.learned_rates(), problem_with_rates()[0]).start).all()


@pytest.mark.parametrize("method", ["imaml", "fo_b_maml", "fo_b_maml_limit"])
def test_every_implicit_method_refuses_weight_decay(method):
    with pytest.raises(ValueError, match=f"^{method} differentiates the point where the inner gradient is zero"):
        build(method, tanh_loss, UNFIT["weight decay"][0])(*tanh_problem())


@pytest.mark.slow
def test_a_traced_learning_rate_hides_neither_decay_nor_what_is_frozen():
    def traced(rate):
        with pytest.raises(ValueError, match=MOVES_AT_ZERO):
            stationary(optax.adamw(rate))
        assert stationary(optax.adam(rate))["hidden"].all()
        head_only = optax.selective_transform(optax.sgd(rate), freeze_mask={"hidden": True, "output": False})
        assert not stationary(head_only)["hidden"].any()
        return rate

    jax.jit(traced)(0.1)


# Meta-SGD


def loss_at_start(params, batch):
    return tanh_loss(params.start, batch)


def problem_with_rates():
    params, task = tanh_problem()
    rates = dict(zip(params, map(jnp.asarray, ([[0.1, 0.3, -0.1], [0.2, 0.05, 0.4]], [0.3, 0.1, 0.2])), strict=True))
    return ml.inner.WithRates(params, rates), task


@pytest.mark.slow
def test_meta_sgd_differentiates_the_loss_after_steps_of_each_rate():
    """Against an explicit loop, for the start and for the rates; one of them is negative."""
    params, task = problem_with_rates()
    value, gradient = jax.jit(ml.maml(loss_at_start, ml.inner.learned_rates(), 3))(params, task)

    @jax.jit
    def after_adaptation(params):
        phi = params.start
        for _ in range(3):
            phi = jax.tree.map(lambda x, a, g: x - a * g, phi, params.rates, jax.grad(tanh_loss)(phi, task.support))
        return tanh_loss(phi, task.query)

    assert_close(value, after_adaptation(params))
    assert_close(flat(gradient), central_differences(after_adaptation, params), 1e-7)
    assert np.abs(flat(gradient.rates)).min() > 1e-4


def test_equal_rates_are_maml():
    params, task = tanh_problem()
    with_rates = ml.inner.with_rates(params, 0.3)
    value, gradient = jax.jit(ml.maml(loss_at_start, ml.inner.learned_rates(), 3))(with_rates, task)
    expected_value, expected = jax.jit(ml.maml(tanh_loss, optax.sgd(0.3), 3))(params, task)
    assert_close(value, expected_value, 1e-12)
    assert_close(flat(gradient.start), flat(expected), 1e-12)


def test_hf_maml_learns_rates_too():
    params, task = problem_with_rates()
    _, exact = jax.jit(ml.maml(loss_at_start, ml.inner.learned_rates(), 3))(params, task)
    _, gradient = jax.jit(ml.hf_maml(loss_at_start, ml.inner.learned_rates(), 3, 1e-4))(params, task)
    assert_close(flat(gradient), flat(exact), 1e-7)


def test_rates_stay_as_they_are_while_a_task_adapts():
    params, task = problem_with_rates()
    adapted = ml.inner.descend(lambda phi: loss_at_start(phi, task.support), ml.inner.learned_rates(), 3, params)
    np.testing.assert_array_equal(flat(adapted.rates), flat(params.rates))
    assert (flat(adapted.start) != flat(params.start)).all()


def test_newton_s_rates_solve_a_diagonal_quadratic_in_one_step():
    """With h = f = 1/2 sum_j c_j phi_j^2 and a_j = 1 / c_j, F is zero whatever the start."""
    curvature = jnp.array([0.5, 1.0, 4.0])
    batch = (curvature,)
    meta_gradient = ml.maml(lambda p, batch: batch[0] @ p.start**2 / 2, ml.inner.learned_rates(), 1)
    params = ml.inner.WithRates(jnp.array([1.0, -2.0, 3.0]), 1 / curvature)
    value, gradient = meta_gradient(params, Task(batch, batch))
    assert value == 0
    np.testing.assert_array_equal(flat(gradient), 0)


@pytest.mark.parametrize(
    "method",
    [
        ml.fo_maml(loss_at_start, ml.inner.learned_rates(), 3),
        ml.imaml(loss_at_start, ml.inner.learned_rates(), 3, STRENGTH, 9),
    ],
)
def test_methods_that_do_not_look_at_the_steps_leave_the_rates_alone(method):
    """As the docstring says; the start they learn as ever."""
    _, gradient = jax.jit(method)(*problem_with_rates())
    np.testing.assert_array_equal(flat(gradient.rates), 0)
    assert (flat(gradient.start) != 0).all()


@pytest.mark.slow
def test_a_learner_improves_the_rates():
    params, task = problem_with_rates()
    tasks = jax.tree.map(lambda leaf: leaf[None], task)
    learner = ml.meta_learner(ml.maml(loss_at_start, ml.inner.learned_rates(), 3), optax.sgd(0.02))
    end, info = jax.jit(lambda s: jax.lax.scan(lambda s, _: learner.step(s, tasks), s, length=20))(learner.init(params))
    assert info.query_loss[-1, 0] < 0.9 * info.query_loss[0, 0]
    assert (flat(end.params.rates) != flat(params.rates)).all()


def reptile(inner, params=None):
    start, task = tanh_problem()
    loss = tanh_loss if params is None else loss_at_start
    return ml.reptile(loss, inner, 3)(start if params is None else params, task)


def quadratic(phi):
    return jnp.sum(phi**2)


SGD, TWO = optax.sgd(0.1), jnp.ones(2)
BATCH = (jnp.ones((3, 1)),)


def adapt(loss=lambda p, batch: p.sum(), inner=SGD, params=TWO, support=BATCH, num_steps=1, strength=0.0):
    return ml.adapt(loss, inner, params, support, num_steps, strength)


def outer_step(outer):
    learner = ml.meta_learner(ml.fo_maml(lambda p, batch: p.sum(), SGD, 1), outer)
    return learner.step(learner.init(TWO), ml.Task(*[jax.tree.map(lambda leaf: leaf[None], BATCH)] * 2))


PAIR = {"a": TWO, "b": TWO}
POSITIVE = "finite number of at least 0"
CASES = {
    "descend: negative steps": (lambda: ml.inner.descend(quadratic, SGD, -3, TWO), ValueError, "num_steps .*-3"),
    "descend: no objective": (lambda: ml.inner.descend(None, SGD, 3, TWO), TypeError, "objective must be a function"),
    "descend: no optimizer": (lambda: ml.inner.descend(quadratic, 0.1, 3, TWO), TypeError, "inner must be an optax"),
    "descend: MultiSteps": (
        lambda: ml.inner.descend(quadratic, optax.MultiSteps(SGD, 2), 3, TWO),
        TypeError,
        r"inner is an optax.MultiSteps, which is no transformation: add .gradient_transformation\(\)",
    ),
    "descend: lookahead": (
        lambda: ml.inner.descend(quadratic, optax.lookahead(SGD, 5, 0.5), 3, TWO),
        TypeError,
        "inner is an optax.lookahead, .* take the fast optimizer within it",
    ),
    "adapt: lookahead within": (
        lambda: adapt(inner=optax.chain(optax.lookahead(SGD, 5, 0.5))),
        ValueError,
        "inner is an optimizer that cannot be used here: optax raised AttributeError, .* fast.* take the one within",
    ),
    "descend: sam in its opaque mode": (
        lambda: ml.inner.descend(quadratic, optax.contrib.sam(SGD, SGD, opaque_mode=True), 3, TWO),
        ValueError,
        r"inner is an optimizer that cannot be used here: .*grad_fn must be provided.* opaque mode does",
    ),
    "outer: sam in its opaque mode": (
        lambda: outer_step(optax.contrib.sam(SGD, SGD, opaque_mode=True)),
        ValueError,
        r"outer is an optimizer that cannot be used here: .*grad_fn must be provided",
    ),
    "descend: masked for other params": (
        lambda: ml.inner.descend(lambda phi: phi["a"].sum(), optax.masked(SGD, {"b": True}), 3, {"a": TWO}),
        ValueError,
        "inner is an optimizer that cannot be used here: .* a mask must have the structure of params",
    ),
    "descend: masked": (
        lambda: ml.inner.descend(
            lambda phi: quadratic(phi["a"] + phi["b"]), optax.masked(SGD, {"a": True, "b": False}), 3, PAIR
        ),
        ValueError,
        r"inner leaves the gradient of params\['b'\] as it is, .* Use inner.only",
    ),
    "outer: no learning rate": (
        lambda: outer_step(optax.identity()),
        ValueError,
        "outer leaves the gradient of params as it is",
    ),
    "descend: whole numbers": (
        lambda: ml.inner.descend(quadratic, SGD, 3, jnp.ones(2, int)),
        TypeError,
        "params must be a floating-point array",
    ),
    "descend: a vector": (
        lambda: ml.inner.descend(lambda phi: phi, SGD, 3, TWO),
        TypeError,
        r"inner objective must return a floating-point scalar, but it returned float\d+ of shape \[2\]",
    ),
    "descend: nothing": (
        lambda: ml.inner.descend(lambda phi: None, SGD, 3, TWO),
        TypeError,
        "scalar, but it returned NoneType",
    ),
    "descend: remat": (lambda: ml.inner.descend(quadratic, SGD, 3, TWO, 3), TypeError, "remat must be True or False"),
    "step: no state": (lambda: ml.inner.step(quadratic, SGD, TWO), TypeError, "state must be the InnerState"),
    "proximal: negative": (lambda: ml.inner.proximal(quadratic, TWO, -1), ValueError, f"strength .*{POSITIVE}.*-1"),
    "proximal: shapes": (
        lambda: ml.inner.proximal(quadratic, jnp.ones(3), 1.0)(TWO),
        ValueError,
        r"center must have the structure and shapes of params, \(2,\), but has \(3,\)",
    ),
    "only: nothing": (
        lambda: ml.inner.only(lambda params: {}, SGD).init(TWO),
        ValueError,
        "select must return a part of params",
    ),
    "only: no such part": (
        lambda: ml.inner.only(lambda params: params["head"], SGD).init({"output": TWO}),
        ValueError,
        "select must return a part of params.*raised KeyError: 'head'",
    ),
    "only: no function": (lambda: ml.inner.only("head", SGD), TypeError, "select must be a function"),
    "adapt: a task": (lambda: adapt(support=Task(BATCH, BATCH)), TypeError, "support must be .* task.support"),
    "adapt: no examples": (lambda: adapt(support=None), ValueError, "leading axis counts examples.*no array"),
    "adapt: strength": (lambda: adapt(strength=-1.0), ValueError, f"proximal_strength .*{POSITIVE}"),
    "adapt: per example": (lambda: adapt(loss=lambda p, b: b[0]), ValueError, "loss must return a scalar"),
    "outer: line search": (
        lambda: ml.meta_learner(lambda p, task: (p.sum(), p), optax.lbfgs()).step(
            ml.meta_learner(lambda p, task: (p.sum(), p), optax.lbfgs()).init(TWO),
            Task((jnp.ones((2, 3)),), (jnp.ones((2, 3)),)),
        ),
        TypeError,
        "outer has a line search.*linesearch=None",
    ),
    "rates: zero": (lambda: ml.inner.with_rates(jnp.ones(2), 0.0), ValueError, "rate must be a finite number above 0"),
    "rates: missing": (
        lambda: ml.maml(tanh_loss, ml.inner.learned_rates(), 1)(*tanh_problem()),
        TypeError,
        r"learned_rates\(\) needs params that carry their learning rates.*params is a dict",
    ),
    "reptile: frozen": (
        lambda: reptile(HEAD_ONLY),
        ValueError,
        r"reptile learns only what its inner loop moves, but `inner` leaves params\['hidden'\] where it is. Use maml",
    ),
    "reptile: rates": (
        lambda: reptile(ml.inner.learned_rates(), problem_with_rates()[0]),
        ValueError,
        r"reptile learns only what its inner loop moves, but `inner` leaves params.rates\['hidden'\] where it is.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_is_wrong(case):
    assert_clear_error(*CASES[case])
