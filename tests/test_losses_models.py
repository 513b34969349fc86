"""Losses against their definitions, and modules as pure functions of their parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import metalearn as ml
from metalearn import losses, models

pytestmark = pytest.mark.filterwarnings("error")


def identity(params, inputs):
    return params * inputs


LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-3.0, 1.0, 1.5], [50.0, -50.0, 0.0]], np.float32)
LABELS = np.array([0, 2, 1, 1], np.int32)


def test_mean_squared_error_is_a_mean_over_examples_and_outputs():
    """((1 - 0)^2 + (2 - 0)^2 + (3 - 1)^2 + (4 - 1)^2) / 4."""
    predictions, targets = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.0, 0.0], [1.0, 1.0]])
    assert losses.mean_squared_error(identity)(1.0, (predictions, targets)) == 4.5


@pytest.mark.slow
def test_cross_entropy_is_minus_the_log_probability_in_nats():
    probabilities = np.exp(np.float64(LOGITS)) / np.exp(np.float64(LOGITS)).sum(axis=1, keepdims=True)
    expected = -np.mean(np.log(probabilities[np.arange(4), LABELS]))
    np.testing.assert_allclose(losses.cross_entropy(identity)(1.0, (LOGITS, LABELS)), expected, rtol=1e-6)


def test_cross_entropy_of_no_information_is_log_of_the_number_of_classes():
    np.testing.assert_allclose(losses.cross_entropy(identity)(0.0, (LOGITS, LABELS)), np.log(3), rtol=1e-6)


def test_accuracy_is_the_fraction_of_largest_logits():
    assert losses.accuracy(identity)(1.0, (LOGITS, LABELS)) == 0.25
    assert losses.accuracy(identity)(1.0, (LOGITS, jnp.array([0, 0, 2, 0]))) == 1.0


@pytest.mark.parametrize("bad", [-1, 3])
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32])
def test_a_label_out_of_range_is_never_counted_as_a_class(bad, dtype):
    """A known one raises, also within a compiled program; a traced one makes the loss and all its gradient NaN."""
    labels = np.array([0, 2, 1, bad]).astype(dtype)
    for measure in (losses.cross_entropy, losses.accuracy):
        for call in (
            measure(identity),
            jax.jit(lambda weight, batch, m=measure: m(identity)(weight, (batch[0], labels))),
        ):
            with pytest.raises(ValueError, match=rf"labels must be whole numbers from 0 to 2.* but {labels[-1]} is"):
                call(1.0, (LOGITS, labels))
    value, gradient = jax.jit(jax.value_and_grad(losses.cross_entropy(identity)))(jnp.ones(3), (LOGITS, labels))
    assert np.isnan([value, *gradient]).all()
    assert np.isnan(jax.jit(losses.accuracy(identity))(1.0, (LOGITS, labels)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_check_of_labels_changes_no_bit(dtype):
    def plain(weight, batch):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(identity(weight, batch[0]), batch[1]))

    weight, logits = jnp.array([0.3, -1.1, 0.7], dtype), LOGITS.astype(dtype)
    checked, expected = (
        jax.jit(jax.value_and_grad(loss))(weight, (logits, LABELS)) for loss in (losses.cross_entropy(identity), plain)
    )
    chex.assert_trees_all_equal(checked, expected)
    chex.assert_trees_all_equal_dtypes(checked, expected)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_model_without_a_prediction_has_no_accuracy(bad):
    """The arg-max of NaN is class 0, right by chance. A logit of minus infinity only excludes a class."""
    accuracy = losses.accuracy(identity)
    assert np.isnan(accuracy(1.0, (jnp.asarray(LOGITS).at[1, 2].set(bad), LABELS)))
    assert np.isnan(accuracy(1.0, (jnp.asarray(LOGITS).at[1].set(-jnp.inf), LABELS)))
    assert accuracy(1.0, (jnp.asarray(LOGITS).at[0, 1].set(-jnp.inf), LABELS)) == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("loss", [losses.mean_squared_error, losses.cross_entropy])
def test_losses_have_gradients(loss):
    batch = (LOGITS, LOGITS[::-1]) if loss is losses.mean_squared_error else (LOGITS, LABELS)
    with jax.enable_x64(True):
        step = 1e-5
        slope = (loss(identity)(0.5 + step, batch) - loss(identity)(0.5 - step, batch)) / (2 * step)
        np.testing.assert_allclose(jax.grad(loss(identity))(0.5, batch), slope, rtol=1e-2)


class Normalized(nnx.Module):
    """A layer and a batch normalization."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.linear(x))


def modules():
    normalized = Normalized(nnx.Rngs(0))
    normalized.train()
    return {
        "linear": nnx.Linear(2, 3, rngs=nnx.Rngs(0)),
        "mlp": models.MLP((2, 5, 3), rngs=nnx.Rngs(0)),
        "group_norm": nnx.Sequential(nnx.Linear(2, 4, rngs=nnx.Rngs(0)), nnx.GroupNorm(4, 2, rngs=nnx.Rngs(0))),
        "batch_norm_in_training": normalized,
        "inert_dropout": nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, deterministic=True)),
    }


@pytest.mark.parametrize("name", modules())
def test_functional_computes_what_the_module_computes(name):
    module, x = modules()[name], jax.random.normal(jax.random.key(0), (7, 2))
    params, apply = models.functional(module)
    chex.assert_trees_all_close(jax.jit(apply)(params, x), module(x), rtol=1e-5, atol=1e-6)


class Remembering(nnx.Variable):
    pass


class Stateful(nnx.Module):
    """A layer, a normalization that is told at each call what to use, a dropout, and a variable of its own."""

    def __init__(self, dropout=0.0, reads=False, writes=False):
        self.linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(dropout, rngs=nnx.Rngs(0))
        self.memory = Remembering(jnp.ones(()))
        self.reads, self.writes = reads, writes

    def __call__(self, x, train=True):
        x = self.dropout(self.norm(self.linear(x), use_running_average=not train))
        if self.writes:
            self.memory[...] += 1
        return x + self.memory[...] if self.reads else x


def evaluated(module):
    module.eval()
    return module


X = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
WRONG = {
    "running statistics, said at the call": (lambda: (Stateful(), X, False), r"running statistics.*module.train\(\)"),
    "running statistics": (
        lambda: (evaluated(nnx.Sequential(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))), X),
        r"running statistics.*module.train\(\)",
    ),
    "dropout": (lambda: (Stateful(dropout=0.5), X), "random numbers.*deterministic=True"),
    "a memory": (lambda: (Stateful(reads=True, writes=True), X), "reads a variable of type Remembering that each call"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_call_that_would_be_wrong_without_its_state_is_refused(name):
    make, message = WRONG[name]
    module, *inputs = make()
    params, apply = models.functional(module)
    for function in (apply, lambda params, *_: jax.jit(lambda params: apply(params, *inputs))(params)):
        with pytest.raises(ValueError, match=message):
            function(params, *inputs)


RIGHT = {
    "statistics of the batch": lambda: (Stateful(), X),
    "a constant": lambda: (Stateful(reads=True), X),
    "a memory that nobody reads": lambda: (Stateful(writes=True), X),
    "dropout in eval": lambda: (evaluated(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5))), X),
    "dropout of rate 0": lambda: (Stateful(dropout=0.0), X),
    "lstm": lambda: (nnx.RNN(nnx.LSTMCell(2, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)), X[None]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_call_that_needs_no_state_is_the_module_s(name):
    module, inputs = RIGHT[name]()
    params, apply = models.functional(module)
    chex.assert_trees_all_close(jax.jit(apply)(params, inputs), module(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_recurrent_network_is_meta_trained():
    """A GRU learns to predict the sum of a sequence, its scale being the task's."""

    class Sum(nnx.Module):
        def __init__(self, rngs):
            self.rnn, self.head = nnx.RNN(nnx.GRUCell(1, 4, rngs=rngs)), nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, sequences):
            return self.head(self.rnn(sequences)[:, -1])

    params, apply = models.functional(Sum(nnx.Rngs(0)))
    sequences = jax.random.normal(jax.random.key(0), (3, 6, 5, 1))
    batch = sequences, jnp.array([0.5, 1.0, 1.5])[:, None, None] * sequences.sum(axis=2)
    meta_gradient = ml.fo_maml(losses.mean_squared_error(apply), optax.sgd(0.05), 1)
    learner = ml.meta_learner(meta_gradient, optax.adam(0.03))
    _, info = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: learner.step(s, ml.Task(batch, batch)), state, length=60)
    )(learner.init(params))
    assert info.query_loss[-1].mean() < 0.2 * info.query_loss[0].mean()


@pytest.mark.parametrize("name", modules())
def test_functional_is_pure(name):
    """Two calls agree, and params holds the trainable parameters, all of them and nothing else."""
    module, x = modules()[name], jax.random.normal(jax.random.key(0), (7, 2))
    params, apply = models.functional(module)
    chex.assert_trees_all_equal(apply(params, x), apply(params, x))
    chex.assert_trees_all_equal(params, nnx.state(module, nnx.Param))
    scaled = jax.tree.map(lambda leaf: leaf + 1.0, params)
    assert (apply(scaled, x) != apply(params, x)).any()


def test_batch_statistics_are_those_of_the_batch_alone():
    """A normalized output ignores the scale of its input; a call leaves no trace in the module or the next call."""
    module = modules()["batch_norm_in_training"]
    statistics = jax.tree.map(jnp.copy, nnx.state(module, nnx.BatchStat))
    params, apply = models.functional(module)
    x = jax.random.normal(jax.random.key(0), (7, 2))
    expected = apply(params, x)
    for function in (apply, jax.jit(apply)):
        chex.assert_trees_all_close(function(params, 100 * x), expected, rtol=1e-2, atol=1e-2)
        chex.assert_trees_all_close(function(params, x), expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(nnx.state(module, nnx.BatchStat), statistics)


def test_functional_leaves_the_module_alone():
    module = models.MLP((1, 4, 1), rngs=nnx.Rngs(0))
    params, apply = models.functional(module)
    before = module(jnp.ones((1, 1)))
    apply(jax.tree.map(jnp.zeros_like, params), jnp.ones((1, 1)))
    chex.assert_trees_all_equal(module(jnp.ones((1, 1))), before)


def test_functional_takes_several_inputs():
    class Sum(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.array(2.0))

        def __call__(self, x, y):
            return self.weight * x + y

    params, apply = models.functional(Sum())
    assert apply(params, 3.0, 4.0) == 10.0


@pytest.mark.slow
def test_mlp_is_linear_layers_with_an_activation_between():
    x = jax.random.normal(jax.random.key(1), (6, 2))
    mlp = models.MLP((2, 5, 4, 3), activation=jnp.tanh, rngs=nnx.Rngs(0))
    first, second, third = ((np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in mlp.layers)
    hidden = np.tanh(np.tanh(x @ first[0] + first[1]) @ second[0] + second[1])
    np.testing.assert_allclose(mlp(x), hidden @ third[0] + third[1], rtol=1e-4, atol=1e-5)


def test_mlp_has_the_sizes_it_is_given():
    """Finn et al.'s regression network has 1,761 parameters."""
    params, apply = models.functional(models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1 * 40 + 40 + 40 * 40 + 40 + 40 + 1
    assert apply(params, jnp.ones((3, 5, 1))).shape == (3, 5, 1)


def test_mlp_is_drawn_from_its_seed():
    def draw(seed):
        return models.functional(models.MLP((1, 4, 1), rngs=nnx.Rngs(seed)))[0]

    chex.assert_trees_all_equal(draw(0), draw(0))
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (draw(0), draw(1))), strict=True))
