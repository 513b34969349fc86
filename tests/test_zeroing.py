"""The zeroing trick is the gradient of a composition; without the noise of a head, first-order MAML is contrastive."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CONTAINERS, assert_clear_error, build, central_differences, flat, tanh_loss, tanh_problem

import metalearn as ml
from metalearn import Task

pytestmark = pytest.mark.filterwarnings("error")

HEADS = {
    "nnx": lambda params: params["layers"][1],
    "linen": lambda params: params["params"]["bias"],
    "tuple": lambda params: params[1],
}
REGRESSION = Task((jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])), (jnp.array([[3.0]]), jnp.array([[2.0]])))


def output(params):
    """The head of the tanh network."""
    return params["output"]


# The trick


@pytest.mark.usefixtures("x64")
def test_zeroed_maml_is_the_gradient_of_maml_after_zeroing():
    """Against finite differences of the objective: loss after adaptation from a start whose head was set to zero."""
    params, task = tanh_problem()
    inner = optax.sgd(0.3)

    def objective(params):
        start = {"hidden": params["hidden"], "output": 0 * params["output"]}
        return tanh_loss(ml.inner.descend(lambda phi: tanh_loss(phi, task.support), inner, 2, start), task.query)

    value, gradient = ml.zeroing_trick(ml.maml(tanh_loss, inner, 2), output)(params, task)
    expected = central_differences(objective, params)
    assert np.linalg.norm(expected) > 0.01
    np.testing.assert_allclose(value, objective(params), rtol=1e-12)
    np.testing.assert_allclose(flat(gradient), expected, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fo_maml", "reptile", "fo_b_maml"])
def test_any_meta_gradient_is_taken_at_a_zero_head(method):
    params, task = tanh_problem()
    plain = jax.jit(build(method, tanh_loss))
    value, gradient = ml.zeroing_trick(plain, output)(params, task)
    expected_value, expected = plain(params | {"output": jnp.zeros(3)}, task)
    assert value == expected_value
    np.testing.assert_array_equal(gradient["hidden"], expected["hidden"])
    np.testing.assert_array_equal(gradient["output"], 0)
    assert np.abs(expected["output"]).min() > 0, "the wrapper has something to set to zero"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("container", CONTAINERS)
def test_any_pytree_has_a_head(container, dtype):
    params, apply = CONTAINERS[container]()
    params = optax.tree.cast(optax.tree.ones_like(params), dtype)
    meta_gradient = ml.zeroing_trick(
        ml.fo_maml(ml.losses.mean_squared_error(apply), optax.sgd(0.1), 1), HEADS[container]
    )
    _, gradient = jax.jit(meta_gradient)(params, REGRESSION)
    zeroed = ml.zero_head(params, HEADS[container])
    for tree in (gradient, zeroed):
        chex.assert_trees_all_equal_shapes_and_dtypes(tree, params)
    head = flat(HEADS[container](zeroed))
    assert (head == 0).all()
    assert flat(zeroed).sum() == flat(params).size - head.size, "and nothing else is zero"


def test_it_maps_over_tasks_and_compiles_once():
    params, _ = tanh_problem()
    tasks = [tanh_problem(seed)[1] for seed in range(3)]
    meta_gradient = ml.zeroing_trick(ml.fo_maml(tanh_loss, optax.sgd(0.1), 2), output)
    one_task = jax.jit(chex.assert_max_traces(meta_gradient, n=1))
    one_by_one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one_task(params, task) for task in tasks))
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    side_by_side = jax.jit(jax.vmap(meta_gradient, in_axes=(None, 0)))(params, batch)
    chex.assert_trees_all_close(side_by_side, one_by_one, rtol=1e-4)


@pytest.mark.slow
def test_a_zero_head_stays_zero_in_training():
    """So that params trained from a zero head are ready for meta-test; the encoder is what moves."""
    params, task = tanh_problem()
    params = ml.zero_head(params, output)
    meta_gradient = ml.zeroing_trick(ml.fo_maml(tanh_loss, optax.sgd(0.1), 2), output)
    learner = ml.meta_learner(meta_gradient, optax.adam(0.01))
    tasks = jax.tree.map(lambda leaf: leaf[None], task)
    state, _ = jax.lax.scan(lambda state, _: learner.step(state, tasks), learner.init(params), length=20)
    np.testing.assert_array_equal(state.params["output"], 0)
    assert np.abs(state.params["hidden"] - params["hidden"]).min() > 0.01


# The identity

NUM_CLASSES, STEP_SIZE = 4, 0.7


def encoder(weights, inputs):
    return jnp.tanh(inputs @ weights)


def classify(params, inputs):
    return encoder(params["encoder"], inputs) @ params["head"]


classification_loss = ml.losses.cross_entropy(classify)
on_the_head = optax.transforms.selective_transform(optax.sgd(STEP_SIZE), freeze_mask={"encoder": True, "head": False})


def classification_problem(head_scale):
    """(params, task) with more query than support examples, and classes of unequal number."""
    keys = jax.random.split(jax.random.key(2), 6)
    params = {
        "encoder": jax.random.normal(keys[0], (3, 5)),
        "head": head_scale * jax.random.normal(keys[1], (5, NUM_CLASSES)),
    }
    sizes = (8, 11)
    batches = [
        (jax.random.normal(keys[2 + i], (n, 3)), jax.random.randint(keys[4 + i], (n,), 0, NUM_CLASSES))
        for i, n in enumerate(sizes)
    ]
    return params, Task(*batches)


def split_of(params, task, step_size=STEP_SIZE):
    (x_support, y_support), (x_query, y_query) = task
    phi_support, phi_query = (encoder(params["encoder"], x) for x in (x_support, x_query))
    return ml.theory.contrastive_split(phi_support, y_support, phi_query, y_query, params["head"], step_size)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("head_scale", [1.0, 0.0])
def test_the_two_terms_add_up_to_what_first_order_maml_sends_into_the_encoder(head_scale):
    params, task = classification_problem(head_scale)
    _, gradient = ml.fo_maml(classification_loss, on_the_head, 1)(params, task)

    split = split_of(params, task)
    _, into_weights = jax.vjp(lambda weights: encoder(weights, task.query[0]), params["encoder"])
    (expected,) = into_weights(jnp.asarray(split.interference + split.contrastive) / len(task.query[1]))
    assert np.linalg.norm(gradient["encoder"]) > 1e-2
    np.testing.assert_allclose(expected, gradient["encoder"], atol=1e-13)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("head_scale", [1.0, 0.0])
def test_the_two_terms_add_up_to_finite_differences_in_the_features(head_scale):
    """The head after one step, from its definition; then the query losses, moved feature by feature."""
    params, task = classification_problem(head_scale)
    adapted = ml.inner.descend(lambda phi: classification_loss(phi, task.support), on_the_head, 1, params)
    features, labels = encoder(params["encoder"], task.query[0]), task.query[1]

    def total_query_loss(features):
        logits = features @ adapted["head"]
        return jnp.sum(jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(len(labels)), labels])

    split = split_of(params, task)
    expected = central_differences(total_query_loss, features)
    np.testing.assert_allclose((split.interference + split.contrastive).ravel(), expected, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_with_a_zero_head_it_is_the_supervised_contrastive_loss():
    """No interference; the rest is the gradient of sum c_qs <phi(q), phi(s)>, where only one's own class attracts."""
    params, task = classification_problem(0.0)
    split = split_of(params, task)
    phi_support, phi_query = (encoder(params["encoder"], x) for x, _ in task)
    contrastive = jax.grad(lambda phi: jnp.sum(split.coefficients * (phi @ phi_support.T)))(phi_query)

    np.testing.assert_array_equal(split.interference, 0)
    np.testing.assert_allclose(split.contrastive, STEP_SIZE / 8 * contrastive, atol=1e-14)
    np.testing.assert_array_equal(split.coefficients < 0, task.query[1][:, None] == task.support[1])
    assert split.wrong_signs() == 0


@pytest.mark.usefixtures("x64")
def test_a_random_head_interferes_and_attracts_other_classes_but_never_repels_its_own():
    split = split_of(*classification_problem(3.0))
    assert np.linalg.norm(split.interference) > np.linalg.norm(split.contrastive) > 0
    assert 0.1 < split.wrong_signs() < 0.9
    assert (split.coefficients[split.same_class] <= 0).all()
    np.testing.assert_allclose(split.wrong_signs(), np.mean(split.coefficients[~split.same_class] < 0))


# Bad input


HEAD, FEATURES, LABELS = np.ones((2, 3)), np.ones((4, 2)), np.zeros(4, int)


def split(head=HEAD, features=FEATURES, labels=LABELS, step_size=0.1):
    return ml.theory.contrastive_split(np.ones((3, 2)), np.zeros(3, int), features, labels, head, step_size)


CASES = {
    "no meta-gradient": (lambda: ml.zeroing_trick(3, output), TypeError, "meta_gradient must be a function.*int"),
    "head by name": (lambda: ml.zeroing_trick(ml.maml, "output"), TypeError, "head must be a function.*str"),
    "zero_head by name": (lambda: ml.zero_head({}, "output"), TypeError, "head must be a function.*str"),
    "head selects nothing": (lambda: ml.zero_head({"w": 1.0}, lambda p: {}), ValueError, "head must return a part of"),
    "head returns None": (lambda: ml.zero_head({"w": 1.0}, lambda p: None), ValueError, "head must return a part of"),
    "head makes arrays": (lambda: ml.zero_head([1.0], lambda p: jnp.ones(2)), ValueError, "head must return a part of"),
    "split: zero step": (lambda: split(step_size=0.0), ValueError, "step_size must be a finite number above 0"),
    "split: flat head": (lambda: split(head=np.ones(3)), ValueError, r"head must have shape \[num_features, num_cl"),
    "split: features": (
        lambda: split(features=np.ones((4, 3))),
        ValueError,
        r"features_query .*\[examples, 2\].*\[4, 3\]",
    ),
    "split: labels": (lambda: split(labels=np.zeros(5, int)), ValueError, r"labels_query \[examples\].*\[5\]"),
    "split: float labels": (
        lambda: split(labels=np.zeros(4)),
        ValueError,
        "labels_query must be whole numbers from 0 to 2",
    ),
    "split: label 3": (
        lambda: split(labels=np.full(4, 3)),
        ValueError,
        "labels_query must be whole numbers from 0 to 2",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument_and_the_fix(name):
    assert_clear_error(*CASES[name])
