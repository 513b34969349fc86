"""Whatever the pytree, the shapes and the dtype: the right numbers; whatever the mistake: an error that names it."""

import math

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, assume, given, settings

import metalearn as ml
from metalearn.meta_gradients.fo_b_maml import STENCILS

# The right numbers ---------------------------------------------------------------------------------------------------

RATE, STEPS, STRENGTH = 0.25, 3, 3.0  # RATE = 1 / (1 + STRENGTH): one step reaches the proximal minimum
LEFT = (1 - RATE) ** STEPS
TOLERANCE = {"bfloat16": 0.06, "float32": 1e-5, "float64": 1e-9}


def loss(params, batch):
    """1/2 ||params - batch||^2, summed over all leaves of two pytrees that are alike."""
    return 0.5 * sum(jnp.sum((p - b[0]) ** 2) for p, b in zip(*map(jax.tree.leaves, (params, batch)), strict=True))


def proximal(p, s):
    return (s + STRENGTH * p) / (1 + STRENGTH)


def differences(estimator, v):
    """The estimator of FO-B-MAML with each perturbed solution in closed form."""
    offsets, weights, _ = STENCILS[estimator]

    def closed_form(p, s, q):
        solutions = ((v * o * q + s + STRENGTH * p) / (v * o + 1 + STRENGTH) for o in offsets)
        return -STRENGTH / v * sum(w * phi for w, phi in zip(weights, solutions, strict=True))

    return closed_form


SGD = optax.sgd(RATE)
CLOSED_FORMS = {  # p: start, s and q: minima of support and query loss
    "maml": (ml.maml(loss, SGD, STEPS), lambda p, s, q: LEFT * (s + LEFT * (p - s) - q)),
    "maml with remat": (ml.maml(loss, SGD, STEPS, remat=True), lambda p, s, q: LEFT * (s + LEFT * (p - s) - q)),
    "fo_maml": (ml.fo_maml(loss, SGD, STEPS), lambda p, s, q: s + LEFT * (p - s) - q),
    "reptile": (ml.reptile(loss, SGD, STEPS), lambda p, s, q: (1 - LEFT) * (p - s)),
    "hf_maml": (ml.hf_maml(loss, SGD, STEPS, 0.5), lambda p, s, q: LEFT * (s + LEFT * (p - s) - q)),
    "fo_muml": (ml.fo_muml(loss, 0.5, 40), lambda p, s, q: (p - s) / 1.5),
    "imaml": (ml.imaml(loss, SGD, 1, STRENGTH, 1), lambda p, s, q: 0.75 * (proximal(p, s) - q)),
    "fo_b_maml_limit": (ml.fo_b_maml_limit(loss, SGD, 40, STRENGTH), lambda p, s, q: 0.75 * (proximal(p, s) - q)),
    **{
        f"fo_b_maml, {estimator}": (
            ml.fo_b_maml(loss, optax.sgd(0.2), 60, STRENGTH, 0.1, estimator),
            differences(estimator, 0.1),
        )
        for estimator in STENCILS
    },
}
ROUNDING = {"fo_b_maml": 60, "hf_maml": 3}  # a difference divided by v magnifies the rounding of the solutions
DTYPES = st.sampled_from(("bfloat16", "float32", "float64"))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@st.composite
def trees(draw):
    """Three pytrees alike, of at least one number: nested dicts, lists and tuples of leaves of any shape."""
    structure = draw(
        st.recursive(
            SHAPES.map(lambda shape: np.zeros(shape)),
            lambda inner: (
                st.lists(inner, min_size=1, max_size=3)
                | st.tuples(inner, inner)
                | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)
            ),
            max_leaves=4,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    assume(any(leaf.size for leaf in jax.tree.leaves(structure)))  # without a number there is nothing to learn
    return tuple(jax.tree.map(lambda leaf: rng.normal(0, 1, leaf.shape), structure) for _ in range(3))


def cast(tree, dtype, add_axis=False):
    """In that dtype; batches have a leading axis that counts their one example."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[None] if add_axis else leaf, dtype), tree)


def any_tree(test):
    """Of any pytree, shape and dtype. Each example is a program of its own, so only .ci/run tests many."""
    many = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    return pytest.mark.slow(many(given(trees=trees(), dtype=DTYPES)(test)))


def awkward_trees():
    """Three alike, with all that hypothesis has found to matter: a number, an empty array, nesting."""
    rng = np.random.default_rng(0)
    return tuple({"a": [rng.normal(), np.zeros((2, 0, 1))], "b": (rng.normal(size=(2, 1, 3)),)} for _ in range(3))


@pytest.mark.parametrize("method", CLOSED_FORMS)
@any_tree
def test_the_closed_form_for_any_pytree_shape_and_dtype(method, trees, dtype):
    assert_closed_form(method, trees, dtype)


@pytest.mark.parametrize("method", CLOSED_FORMS)
def test_the_closed_form_for_an_awkward_pytree(method):
    assert_closed_form(method, awkward_trees(), "float64")


def assert_closed_form(method, trees, dtype):
    meta_gradient, closed_form = CLOSED_FORMS[method]
    with jax.enable_x64(dtype == "float64"):
        params, (support, query) = cast(trees[0], dtype), (cast(tree, dtype, add_axis=True) for tree in trees[1:])
        value, gradient = jax.jit(meta_gradient)(params, ml.Task(support, query))
        assert jax.tree.structure(gradient) == jax.tree.structure(params)
        assert jnp.shape(value) == ()
        magnified = ROUNDING.get(method.split(",")[0], 1) if dtype != "float64" else 1
        for g, p, *minima in zip(*map(jax.tree.leaves, (gradient, params, support, query)), strict=True):
            assert (g.shape, g.dtype) == (p.shape, p.dtype)
            expected = closed_form(*(np.asarray(leaf, np.float64) for leaf in (p, minima[0][0], minima[1][0])))
            if dtype != "bfloat16" or magnified == 1:
                np.testing.assert_allclose(np.asarray(g, np.float64), expected, atol=magnified * TOLERANCE[dtype])


@pytest.mark.parametrize("num_tasks", [0, 1, 2])
@any_tree
def test_an_outer_step_for_any_pytree_shape_and_dtype(num_tasks, trees, dtype):
    assert_outer_step(num_tasks, trees, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [0, 1, 2])
def test_an_outer_step_on_no_task_one_and_two(num_tasks):
    assert_outer_step(num_tasks, awkward_trees(), "float32")


def assert_outer_step(num_tasks, trees, dtype):
    """None is an error; of two that are alike the mean is one."""
    learner = ml.meta_learner(ml.maml(loss, SGD, STEPS), optax.sgd(1.0))
    with jax.enable_x64(dtype == "float64"):
        params, (support, query) = cast(trees[0], dtype), (cast(tree, dtype, add_axis=True) for tree in trees[1:])
        tasks = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_tasks or [leaf])[:num_tasks], ml.Task(support, query))
        if num_tasks == 0:
            with pytest.raises(ValueError, match="at least one task"):
                learner.step(learner.init(params), tasks)
            return
        state, info = jax.jit(learner.step)(learner.init(params), tasks)
        assert info.query_loss.shape == info.finite.shape == (num_tasks,)
        for new, p, s, q in zip(*map(jax.tree.leaves, (state.params, params, support, query)), strict=True):
            assert (new.shape, new.dtype) == (p.shape, p.dtype)
            p, s, q = (np.asarray(leaf, np.float64) for leaf in (p, s[0], q[0]))
            expected = p - LEFT * (s + LEFT * (p - s) - q)
            np.testing.assert_allclose(np.asarray(new, np.float64), expected, atol=TOLERANCE[dtype])


# The right errors ----------------------------------------------------------------------------------------------------

NOT_COUNTS = (-1, 2.0, 1.5, True, "5", None, math.nan, math.inf, [3], np.array([3]))
BAD = {
    "count": NOT_COUNTS,
    "positive count": (0, *NOT_COUNTS),
    "positive": (0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, True, "1", None, [1.0], np.ones(2)),
    "fraction": (-0.1, 1, 1.0, 2, math.nan, math.inf, "0.9", None, True, [0.5]),
    "flag": (0, 1, "yes", None, 1.0),
    "rule": (0.1, None, "sgd", optax.sgd, jnp.ones(2)),
    "function": (None, 1.0, "mse", jnp.ones(2)),
    "interval": (1, None, "ab", (1,), (2, 1), (1, 2, 3), (0, math.inf), (math.nan, 1)),
    "choice": ("best", "", None, 3),
    "key": (0, None, "seed", np.zeros(2), jnp.zeros(2)),
}
RULE, COUNTED = {"loss": "function", "inner": "rule"}, {"num_steps": "count"}
FROM_ONE = {"num_steps": "positive count"}
CALLS = {  # function: (what it may be called with, the kind of each argument)
    ml.maml: ((loss, SGD, 1), {**RULE, **COUNTED, "resample": "flag", "remat": "flag"}),
    ml.fo_maml: ((loss, SGD, 1), {**RULE, **COUNTED, "resample": "flag"}),
    ml.reptile: ((loss, SGD, 1), {**RULE, **FROM_ONE}),
    ml.hf_maml: ((loss, SGD, 1, 0.1), {**RULE, **COUNTED, "perturbation": "positive"}),
    ml.fo_muml: ((loss, 0.1, 1), {"loss": "function", "step_size": "positive", **COUNTED}),
    ml.imaml: (
        (loss, SGD, 1, 1.0, 1),
        {**RULE, **FROM_ONE, "proximal_strength": "positive", "cg_steps": "positive count"},
    ),
    ml.fo_b_maml: (
        (loss, SGD, 1, 1.0, 0.1),
        {**RULE, **FROM_ONE, "proximal_strength": "positive", "perturbation": "positive", "estimator": "choice"},
    ),
    ml.fo_b_maml_limit: ((loss, SGD, 1, 1.0), {**RULE, **FROM_ONE, "proximal_strength": "positive"}),
    ml.a_maml: ((loss, 1.0, 1), {"loss": "function", "horizon": "positive", **FROM_ONE}),
    ml.meta_learner: ((ml.maml(loss, SGD, 1), SGD), {"meta_gradient": "function", "outer": "rule"}),
    ml.outer.clipped_sgd: ((0.1, 1.0), {"learning_rate": "positive", "max_norm": "positive"}),
    ml.outer.normalized_sgd: ((0.1,), {"learning_rate": "positive"}),
    ml.outer.normalized_sgd_momentum: ((0.1, 0.9), {"learning_rate": "positive", "momentum": "fraction"}),
    ml.tasks.Sinusoid: (
        (),
        {
            "num_support": "positive count",
            "num_query": "positive count",
            "amplitude": "interval",
            "phase": "interval",
            "x_range": "interval",
        },
    ),
    ml.tasks.Quadratic: ((), {"dim": "positive count"}),
    ml.tasks.MNIST1D: ((), {"num_shots": "positive count", "num_query": "positive count"}),
    ml.theory.largest_stable_step: ((1, 1.0), {**FROM_ONE, "smoothness": "positive"}),
    ml.theory.cost: (
        ("maml", 10, 1),
        {"method": "choice", "num_params": "positive count", **FROM_ONE},
    ),
}
CASES = [
    pytest.param(call, argument, value, id=f"{call.__name__}, {argument}: {getattr(value, '__name__', repr(value))}")
    for call, (_, kinds) in CALLS.items()
    for argument, kind in kinds.items()
    for value in BAD[kind]
]


@pytest.mark.parametrize("call", CALLS)
def test_what_is_right_is_taken(call):
    call(*CALLS[call][0])


@pytest.mark.parametrize(("call", "argument", "value"), CASES)
def test_each_mistake_is_named(call, argument, value):
    good, kinds = CALLS[call]
    arguments = dict(zip(kinds, good, strict=False)) if good else {}
    with pytest.raises((ValueError, TypeError), match=f"{argument} must"):
        call(**{**arguments, argument: value})
