"""Task families: the distributions that their papers state, and no leak from support to query."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import tasks
from metalearn.tasks.mnist1d import TEST_DIGITS, TRAIN_DIGITS, signals

pytestmark = pytest.mark.filterwarnings("error")

FAMILIES = {
    "sinusoid": tasks.Sinusoid,
    "quadratic": tasks.Quadratic,
    "mnist1d": functools.partial(tasks.MNIST1D, num_shots=1, num_query=2),  # which makes its signals
}
draw = jax.jit(lambda family, key, num_tasks: family(key, num_tasks), static_argnums=(0, 2))


@pytest.mark.parametrize("name", FAMILIES)
def test_tasks_are_determined_by_the_key(name):
    family = FAMILIES[name]()
    first, again, other = (draw(family, jax.random.key(seed), 3) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert (first.support[0] != other.support[0]).any()
    assert (first.support[0][0] != first.support[0][1]).any(), "the tasks of a batch differ"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_leading_axis_counts_tasks(name):
    for leaf in jax.tree.leaves(draw(FAMILIES[name](), jax.random.key(0), 3)):
        assert leaf.shape[0] == 3


# Sinusoid.


@pytest.fixture(scope="module")
def sinusoids():
    """2,000 tasks of Finn et al. as numpy arrays: (x, y) of support and query, [tasks, 10, 1] each."""
    return jax.tree.map(np.asarray, draw(tasks.Sinusoid(), jax.random.key(0), 2000))


def assert_uniform(values, low, high):
    """All within the range, and the largest gap between the two distribution functions below its 1 in 10^4 value."""
    values = np.sort(np.ravel(values))
    assert low <= values[0] <= values[-1] <= high
    steps = np.arange(1, values.size + 1) / values.size
    assert np.abs((values - low) / (high - low) - steps).max() < 2.25 / np.sqrt(values.size)


def test_sinusoid_inputs_are_uniform_and_not_shared(sinusoids):
    (support, _), (query, _) = sinusoids
    assert support.shape == query.shape == (2000, 10, 1)
    assert_uniform(support, -5.0, 5.0)
    assert_uniform(query, -5.0, 5.0)
    assert not np.isin(support[:100], query[:100]).any()
    correlation = np.corrcoef(support[:, 0, 0], query[:, 0, 0])[0, 1]
    assert abs(correlation) < 0.1


def test_sinusoid_targets_are_one_wave_per_task_with_finns_amplitudes_and_phases(sinusoids):
    """Fit b sin x + c cos x to support and query together: exact, with amplitude and phase as the paper draws them."""
    x, y = (np.concatenate([sinusoids.support[i], sinusoids.query[i]], axis=1)[..., 0].astype(float) for i in (0, 1))
    waves = np.stack([np.sin(x), np.cos(x)], axis=-1)
    coefficients = np.stack([np.linalg.lstsq(*pair, rcond=None)[0] for pair in zip(waves, y, strict=True)])
    np.testing.assert_allclose(np.einsum("tij,tj->ti", waves, coefficients), y, atol=1e-4)
    # amplitude sin(x - phase) = amplitude cos(phase) sin x - amplitude sin(phase) cos x
    amplitude, phase = np.linalg.norm(coefficients, axis=1), np.arctan2(-coefficients[:, 1], coefficients[:, 0])
    assert_uniform(amplitude, 0.1 - 1e-4, 5.0 + 1e-4)
    assert_uniform(phase, -1e-3, np.pi + 1e-3)
    correlations = np.corrcoef([amplitude, phase, x[:, 0], x[:, -1]])
    assert np.abs(correlations - np.eye(4)).max() < 0.1, "all four are drawn apart"


def test_sinusoid_sizes_and_ranges_are_the_ones_asked_for():
    family = tasks.Sinusoid(num_support=3, num_query=7, amplitude=(2.0, 2.0), phase=(1.0, 1.0), x_range=(0.0, 1.0))
    (x, y), (query_x, _) = draw(family, jax.random.key(0), 4)
    assert (x.shape, query_x.shape) == ((4, 3, 1), (4, 7, 1))
    assert ((x >= 0) & (x <= 1)).all()
    np.testing.assert_allclose(y, 2.0 * np.sin(x - 1.0), rtol=1e-4)


def test_sinusoid_task_is_the_one_named():
    family = tasks.Sinusoid(num_support=3, num_query=7)
    for x, y in jax.jit(family.task)(jax.random.key(0), 2.0, 0.5):
        np.testing.assert_allclose(y, 2.0 * np.sin(x - 0.5), rtol=1e-4, atol=1e-5)
    assert family.task(jax.random.key(0), 2.0, 0.5).query[0].shape == (7, 1)


# Quadratic.


@pytest.fixture(scope="module")
def quadratics():
    family = tasks.Quadratic(dim=3, support_curvature=(0.5, 2.0), query_curvature=(-1.0, 4.0), spread=2.0, shift=0.1)
    return jax.tree.map(np.asarray, draw(family, jax.random.key(0), 4000))


@pytest.mark.parametrize(("part", "low", "high"), [("support", 0.5, 2.0), ("query", -1.0, 4.0)])
def test_quadratic_hessians_are_symmetric_with_uniform_eigenvalues_and_random_axes(quadratics, part, low, high):
    hessians = getattr(quadratics, part).hessian
    np.testing.assert_array_equal(hessians, np.swapaxes(hessians, 1, 2))
    assert_uniform(np.linalg.eigvalsh(hessians), low - 1e-5, high + 1e-5)
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(20_000, 3, 3)))[0]
    expected = axes * random.uniform(low, high, size=(20_000, 1, 3)) @ np.swapaxes(axes, 1, 2)
    np.testing.assert_allclose(hessians.mean(axis=0), expected.mean(axis=0), atol=0.02 * (high - low))
    np.testing.assert_allclose(hessians.std(axis=0), expected.std(axis=0), rtol=0.06)


def test_quadratic_support_and_query_hessians_are_drawn_apart(quadratics):
    traces = [np.trace(part.hessian, axis1=1, axis2=2) for part in quadratics]
    assert abs(np.corrcoef(*traces)[0, 1]) < 0.08


def test_quadratic_minima_spread_and_shift_as_asked(quadratics):
    minimum, shift = quadratics.support.minimum, quadratics.query.minimum - quadratics.support.minimum
    assert minimum.mean() == pytest.approx(0, abs=0.08)
    assert minimum.std() == pytest.approx(2.0, rel=0.04)
    assert shift.mean() == pytest.approx(0, abs=0.004)
    assert shift.std() == pytest.approx(0.1, rel=0.04)


@pytest.mark.slow
def test_quadratic_loss_is_half_the_squared_distance_in_the_hessian():
    batch = tasks.QuadraticBatch(jnp.array([[2.0, 1.0], [1.0, 4.0]]), jnp.array([1.0, 0.0]))
    assert tasks.Quadratic.loss(jnp.array([1.0, 0.0]), batch) == 0
    assert tasks.Quadratic.loss(jnp.array([2.0, 2.0]), batch) == 0.5 * (2 + 2 * 2 + 4 * 4)
    np.testing.assert_allclose(jax.hessian(tasks.Quadratic.loss)(jnp.zeros(2), batch), batch.hessian)


# MNIST-1D.


@pytest.fixture(scope="module")
def digit_of():
    """signal, as bytes -> (digit, number of the example)."""
    return {
        signal.tobytes(): (digit, example)
        for digit, examples in enumerate(signals())
        for example, signal in enumerate(examples)
    }


def test_mnist1d_has_the_official_size():
    """5,000 different signals of length 40, 500 of each digit, in the benchmark's own scale."""
    assert signals().shape == (10, 500, 40)
    assert len(np.unique(signals().reshape(-1, 40), axis=0)) == 5000
    assert abs(signals().mean()) < 0.05
    assert signals().std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_mnist1d_signals_are_the_benchmarks_and_carry_their_digit(digit_of):
    from mnist1d.data import get_templates, make_dataset

    data = make_dataset()
    for x, y in ((data["x"], data["y"]), (data["x_test"], data["y_test"])):
        assert [digit_of[signal.tobytes()][0] for signal in x.astype(np.float32)] == y.tolist()
    assert len(data["y"]) + len(data["y_test"]) == 5000
    assert get_templates()["x"].shape[0] == 10


@pytest.mark.slow
@pytest.mark.parametrize("digits", [TRAIN_DIGITS, TEST_DIGITS])
def test_mnist1d_tasks(digits, digit_of):
    """Balanced labels, each for one digit of the family, alike in support and query; no example occurs in both."""
    family = tasks.MNIST1D(num_ways=3, num_shots=2, num_query=4, digits=digits)
    batch = draw(family, jax.random.key(0), 200)
    assert batch.support[0].shape == (200, 6, 40)
    assert batch.query[0].shape == (200, 12, 40)
    seen = set()
    for (support_x, support_y), (query_x, query_y) in zip(
        *(zip(*map(np.asarray, part), strict=True) for part in batch), strict=True
    ):
        np.testing.assert_array_equal(np.bincount(support_y), [2, 2, 2])
        np.testing.assert_array_equal(np.bincount(query_y), [4, 4, 4])
        source = [digit_of[signal.tobytes()] for signal in (*support_x, *query_x)]
        assert len(set(source)) == 18, "no example twice, within the support set or across"
        meaning = {(int(label), digit) for label, (digit, _) in zip((*support_y, *query_y), source, strict=True)}
        assert len(meaning) == len({digit for _, digit in meaning}) == 3, "one digit a label, one label a digit"
        seen |= meaning
    assert seen == {(label, digit) for label in range(3) for digit in digits}, "any digit may get any label"


def test_mnist1d_classes_draw_their_examples_apart(digit_of):
    """The first example of one class has, but for chance, another number than the first example of the next."""
    family = tasks.MNIST1D(num_ways=2, num_shots=1, num_query=1)
    inputs = np.asarray(draw(family, jax.random.key(0), 100).support[0])
    numbers = np.array([[digit_of[signal.tobytes()][1] for signal in task] for task in inputs])
    assert np.mean(numbers[:, 0] == numbers[:, 1]) < 0.05


def test_mnist1d_meta_test_digits_are_unseen():
    assert tasks.MNIST1D().digits == TRAIN_DIGITS
    assert sorted(TRAIN_DIGITS + TEST_DIGITS) == list(range(10))


@pytest.mark.slow
def test_mnist1d_draws_all_examples(digit_of):
    """500 examples in one task of one pair of digits use every signal of both exactly once."""
    family = tasks.MNIST1D(num_ways=2, num_shots=100, num_query=400, digits=(3, 8))
    batch = draw(family, jax.random.key(0), 1)
    source = {digit_of[np.asarray(signal).tobytes()] for part in batch for signal in part[0][0]}
    assert source == {(digit, example) for digit in (3, 8) for example in range(500)}


# Episodes.

SIZES = {7: 3, -2: 5, 40: 4}  # label -> examples of it
LABELS = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))
INPUTS = {"number": np.arange(12), "row": np.arange(12)[:, None] + np.array([0.0, 0.5])}


@pytest.fixture(scope="module")
def episodes():
    """(tasks, 300 of them as numpy arrays)."""
    made = tasks.Episodes(INPUTS, LABELS, num_ways=2, num_support=1, num_query=2)
    return made, jax.tree.map(np.asarray, draw(made, jax.random.key(0), 300))


@pytest.mark.slow
def test_episodes_hold_different_examples_of_different_classes_renumbered(episodes):
    (support, support_y), (query, query_y) = episodes[1]
    assert support["row"].shape == (300, 2, 2)
    assert query["row"].shape == (300, 4, 2)
    assert support_y.dtype == np.int32
    np.testing.assert_array_equal(support_y, np.tile([0, 1], (300, 1)))
    np.testing.assert_array_equal(query_y, np.tile([0, 0, 1, 1], (300, 1)))
    numbers = np.concatenate([support["number"], query["number"]], axis=1)
    for part in (support, query):
        np.testing.assert_array_equal(part["row"], part["number"][..., None] + [0.0, 0.5])
    assert all(len(set(task)) == 6 for task in numbers.tolist()), "no example twice"
    true = LABELS[numbers].reshape(300, -1)[:, [0, 2, 3, 1, 4, 5]]
    assert (true[:, :3] == true[:, :1]).all()
    assert (true[:, 3:] == true[:, 3:4]).all()
    assert (true[:, 0] != true[:, 3]).all()


@pytest.mark.slow
def test_episodes_draw_classes_and_examples_alike(episodes):
    """Each ordered pair of classes in a sixth of the tasks, each example of a class alike at each place."""
    support, query = (part[0]["number"] for part in episodes[1])
    pairs = np.unique(LABELS[support], axis=0, return_counts=True)[1]
    assert len(pairs) == 6
    assert np.abs(pairs / 300 - 1 / 6).max() < 4 * np.sqrt(5 / 36 / 300)
    for label, size in SIZES.items():
        places = np.stack([support[:, 0], query[:, 0], query[:, 1]])[:, LABELS[support[:, 0]] == label]
        for place in places:
            shares = np.bincount(place, minlength=12)[label == LABELS] / len(place)
            assert np.abs(shares - 1 / size).max() < 4 * np.sqrt(1 / size / len(place))


def test_episodes_depend_on_the_key_and_not_on_the_order_of_classes_or_later_changes(episodes):
    inputs = jax.tree.map(np.copy, INPUTS)
    names = np.array([{7: "b", -2: "a", 40: "c"}[label] for label in LABELS.tolist()])  # in the same order
    made = tasks.Episodes(inputs, names, 2, 1, 2)
    inputs["row"][:] = np.nan
    chex.assert_trees_all_equal(draw(made, jax.random.key(0), 300), episodes[1])
    other = draw(made, jax.random.key(1), 300)
    assert (other.support[0]["number"] != episodes[1].support[0]["number"]).any()


def test_large_inputs_may_be_changed_as_soon_as_episodes_are_made():
    """JAX copies large arrays in the background."""
    inputs = np.zeros((10_000, 1_000), np.float32)
    made = tasks.Episodes(inputs, np.arange(10_000) % 2, 2, 1, 1)
    inputs[:] = 1
    assert not np.asarray(made.inputs).any()


@pytest.mark.slow
def test_all_examples_of_a_class_may_be_drawn():
    made = tasks.Episodes(jnp.arange(6), np.repeat([1, 0], 3), num_ways=2, num_support=1, num_query=2)
    batch = draw(made, jax.random.key(0), 8)
    drawn = np.concatenate([batch.support[0], batch.query[0]], axis=1)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(6), (8, 1)))


EPISODES = {
    "num_ways": (dict(num_ways=1), ValueError, "num_ways must be a whole number of at least 2"),
    "too many ways": (dict(num_ways=4), ValueError, "num_ways must be at most the 3 classes"),
    "num_support": (dict(num_support=0), ValueError, "num_support must be"),
    "num_query": (dict(num_query=1.5), ValueError, "num_query must be"),
    "small class": (dict(num_query=4), ValueError, "they are 5 and class 7 has 3, as 1 more .* small classes"),
    "float labels": (dict(labels=LABELS / 2), TypeError, r"labels must be whole numbers or strings .* float64\[12\]"),
    "one-hot labels": (dict(labels=np.eye(12, dtype=int)), TypeError, r"labels must be .* int64\[12, 12\]"),
    "few labels": (dict(labels=LABELS[1:]), ValueError, "labels must be as many as the 12 examples .* are 11"),
    "ragged inputs": (dict(inputs=(np.zeros(12), np.zeros(11))), ValueError, "leading axis counts examples"),
    "no array": (dict(inputs={"a": "b"}), TypeError, r"inputs\['a'\] must be an array of numbers"),
}


@pytest.mark.parametrize("case", EPISODES)
def test_episodes_say_what_is_wrong(case):
    change, error, message = EPISODES[case]
    arguments = dict(inputs=INPUTS, labels=LABELS, num_ways=2, num_support=1, num_query=2) | change
    with pytest.raises(error, match=message):
        tasks.Episodes(**arguments)
