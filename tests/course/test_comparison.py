"""The counts and the record behind lesson 07."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metalearn as ml
from metalearn.course.lessons import comparison, lesson_07, own


def product(a, b):
    return a @ b


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (product, 1),
        (lambda a, b: jax.lax.scan(lambda c, _: (c + jnp.sum(a @ b), None), 0.0, length=5)[0], 5),
        (lambda a, b: jax.jit(product)(a, b) + jax.checkpoint(product)(a, b), 2),
        (lambda a, b: (a @ b, (a + 1) @ b)[0], 1),  # what the result does not depend on is left out
        (lambda a, b: jax.lax.while_loop(lambda c: c[0, 0] < 0, lambda c: c + a @ b, jnp.zeros((3, 5))), 7),
        (lambda a, b: a.sum() + b.sum(), 0),
    ],
)
def test_multiplications_are_counted_as_often_as_they_run(function, products):
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert comparison.multiplications(function, a, b, while_steps=7) == products * 3 * 4 * 5


def test_a_diverged_run_is_the_worst():
    low, median, high = comparison.low_median_high([[1.0, 2.0], [None, 4.0], [3.0, 6.0]])
    np.testing.assert_array_equal([low, median, high], [[1, 2], [3, 4], [np.inf, 6]])


def test_every_row_chooses_from_as_many_configurations():
    settings = comparison.SETTINGS
    for benchmark in (comparison.sinusoid(), comparison.mnist1d()):
        grids = {method: comparison.grid(benchmark, method, settings) for method in comparison.ROWS}
        count = np.prod(comparison.grid_shape(benchmark, settings))
        assert {len(set(grid)) for grid in grids.values()} == {count}
        for grid in grids.values():
            assert sum(np.isinf(point.max_norm) for point in grid) == count // 2
    rates = {point.outer_rate * point.own for point in grids["joint training"]}
    assert len(rates) == count // 2  # the row without a hyper-parameter of its own has more outer learning rates


@pytest.mark.parametrize(("max_norm", "expected"), [(np.inf, [30, 40]), (1.0, [0.6, 0.8]), (100.0, [30, 40])])
def test_clipping_stands_before_adam(monkeypatch, max_norm, expected):
    gradient = {"w": jnp.array([30.0, 40.0])}
    method = comparison.Method(lambda *_: lambda *_: (jnp.zeros(()), gradient), "α", lambda k, cg: 1)
    monkeypatch.setitem(comparison.ROWS, "MAML", method)
    configuration = comparison.Configuration(1e-3, 0.02, max_norm)
    learner = comparison.learner_of(comparison.sinusoid(), "MAML", comparison.SETTINGS, configuration)
    one_task = ml.Task(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    state, info = learner.step(learner.init({"w": jnp.zeros(2)}), one_task)
    (_, (adam, *_)) = state.opt_state
    np.testing.assert_allclose(adam.mu["w"], 0.1 * np.array(expected), rtol=1e-5)  # one step with β₁ = 0.9
    assert info.grad_norm == pytest.approx(50)


def test_joined_reptile_is_reptile_on_one_set():
    def loss(params, batch):
        return jnp.mean((params - batch) ** 2)

    task = ml.Task(jnp.array([1.0, 3.0]), jnp.array([5.0, 7.0]))
    settings = dataclasses.replace(comparison.SETTINGS, num_steps=3)
    joined = comparison.ROWS["Reptile, joined"].build(loss, settings, 0.1, 0.0)(jnp.zeros(()), task)[1]
    plain = comparison.ROWS["Reptile"].build(loss, settings, 0.1, 0.0)(jnp.zeros(()), task)[1]
    of_one_step = 1 + 0.8 + 0.8**2  # each inner step leaves 0.8 of the distance to the mean
    np.testing.assert_allclose([joined, plain], [-2 * 4 * of_one_step / 3, -2 * 2 * of_one_step / 3], rtol=1e-5)


def test_the_nearest_mean_is_right_where_classes_are_apart_and_guesses_where_they_are_not():
    key = jax.random.key(0)
    labels = jnp.tile(jnp.arange(3), (20, 4))
    noise = jax.random.normal(key, (20, 12, 40))
    for apart, low, high in ((10.0, 0.0, 0.0), (0.0, 0.5, 0.8)):
        waves = jnp.sin((labels[..., None] + 1) * jnp.arange(40) / 3)
        part = (apart * waves + noise, labels)
        other = (apart * waves + jax.random.normal(jax.random.key(1), noise.shape), labels)
        for features in comparison.FEATURES:
            for smoothing in (0.0, 1.0):
                error = comparison.nearest_mean_error(features, smoothing, ml.Task(part, other))
                assert low <= error <= high


@pytest.mark.slow
def test_the_record_is_of_these_settings_and_within_their_budget():
    record, settings = json.loads(comparison.RECORD.read_text("utf-8")), comparison.SETTINGS
    assert record["settings"] == json.loads(json.dumps(dataclasses.asdict(settings)))
    for benchmark in (comparison.sinusoid(), comparison.mnist1d()):
        untuned = [comparison.AS_PUBLISHED] * (benchmark.name == "sinusoid")
        assert set(record[benchmark.name]) == {*comparison.ROWS, *untuned}
        for method, entry in record[benchmark.name].items():
            at = comparison.steps_of(method, settings)
            spent = entry["outer_steps"] * comparison.kind_of(method).gradients(at.num_steps, at.cg_steps)
            assert 0.95 * benchmark.gradients < spent <= benchmark.gradients
            assert len(entry["curve"]) == len(entry["common"]) == len(settings.seeds)
            if method in untuned:
                assert comparison.configuration(entry) == comparison.PUBLISHED and at.num_steps == 1
                continue
            validation = np.array(entry["validation"], float)
            assert validation.shape == comparison.grid_shape(benchmark, settings)
            points = comparison.grid(benchmark, method, settings)
            np.testing.assert_allclose(comparison.configuration(entry), points[int(np.nanargmin(validation))])


@pytest.mark.slow
def test_the_recorded_nearest_mean_is_found_again():
    recorded = json.loads(comparison.RECORD.read_text("utf-8"))["nearest_mean"]
    found = comparison.nearest_mean(comparison.mnist1d())
    assert (found["features"], found["smoothing"]) == (recorded["features"], recorded["smoothing"])
    assert found["error"] == pytest.approx(recorded["error"], abs=0.01)
    assert len(recorded["validation"]) == np.prod(comparison.grid_shape(comparison.mnist1d(), comparison.SETTINGS))


@pytest.mark.slow
def test_the_deep_network_has_its_widths():
    benchmark = comparison.deep_mnist1d(channels=4)
    params, apply = benchmark.network()
    task = jax.tree.map(lambda leaf: leaf[0], benchmark.train(jax.random.key(0), 1))
    assert [len(task.support[0]), len(task.query[0])] == [25, 75]
    assert apply(params, task.query[0]).shape == (75, 5)
    weights, biases = 3 * (1 + 3 * 4) * 4 + 4 * 5, 4 * 4 + 5
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == weights + biases


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("method", ["FO-MAML", "one gradient"])
def test_the_recorded_memory_by_channels_is_what_the_compiler_plans(method):
    recorded, settings = (
        json.loads(comparison.RECORD.read_text("utf-8"))["memory_bytes_by_channels"],
        comparison.SETTINGS,
    )
    assert set(recorded) == {*comparison.METHODS, "MAML, rematerialized", "one gradient"}
    assert {len(values) for values in recorded.values()} == {len(settings.memory_channels)}
    for channels, found in zip(settings.memory_channels, recorded[method], strict=True):
        planned = comparison.memory(comparison.deep_mnist1d(channels), method, settings, settings.num_steps)
        assert planned == pytest.approx(found, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MAML", "FO-B-MAML symmetric"])
def test_the_recorded_memory_is_what_the_compiler_plans(method):
    recorded = json.loads(comparison.RECORD.read_text("utf-8"))["memory_bytes"][method]
    planned = comparison.memory(comparison.mnist1d(), method, comparison.SETTINGS, num_steps=50)
    assert planned == pytest.approx(recorded[-1], rel=0.2)


def bent(rng, x):
    """The default of the lesson."""
    slope, bend = rng.normal(), rng.uniform(-3, 3)
    return slope * np.maximum(x - bend, 0.0)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (lambda rng, x: np.where(x > 0, x, np.nan), "not finite"),
        (lambda rng, x: 3.0, "one and the same number"),
        (lambda rng, x: np.sin(x), "the same curve"),
    ],
)
def test_curves_from_which_nothing_can_be_learned_are_refused(curve, message, capsys):
    with pytest.raises(own.Unusable, match=message):
        lesson_07.own_benchmark(curve, 100)
    assert lesson_07.own_comparison(curve) == {}
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("kind", [bool, int])
def test_curves_of_whole_numbers_are_those_of_the_same_numbers(kind):
    def curve(rng, x):
        return (x > rng.normal()).astype(kind)

    floats = lesson_07.own_benchmark(lambda rng, x: curve(rng, x).astype(float), 100)
    chex.assert_trees_all_equal(lesson_07.own_benchmark(curve, 100).test_tasks(), floats.test_tasks())


def test_the_learners_test_curves_take_no_part_in_a_choice():
    benchmark = lesson_07.own_benchmark(bent, 100)
    trained = set(np.ravel(benchmark.train(jax.random.key(0), 5_000).support[0]))
    validation, test = (
        set(np.ravel(part.support[0])) for part in (benchmark.validation_tasks(), benchmark.test_tasks())
    )
    assert (len(trained), len(validation), len(test)) == (4_000, 2_000, 2_000)
    assert not (trained & validation or trained & test or validation & test)


def test_a_diverged_run_on_the_learners_curves_is_no_result(monkeypatch, capsys):
    monkeypatch.setattr(comparison, "advance", lambda *arguments: arguments[-1])
    monkeypatch.setattr(comparison, "own_score", lambda *arguments: (np.full(16, np.inf), None))
    assert lesson_07.own_comparison(bent) == {}
    assert "FO-MAML diverged" in capsys.readouterr().out


@pytest.mark.slow
def test_the_learners_curves_are_compared():
    report = lesson_07.own_comparison(bent, gradients=1_100)
    assert set(report) == {"FO-MAML", "Reptile"}
    for low, median, high in report.values():
        assert 0 < low < median < high < 1  # the targets have variance 1


def test_the_relative_error_is_exact_where_it_is_small():
    exact, across = np.array([3.0, 4.0]), np.array([-4.0, 3.0])
    assert lesson_07._relative_error(2 * (exact + 1e-10 * across), exact) == pytest.approx(1e-10, rel=1e-3)
    assert lesson_07._relative_error(-exact, exact) == lesson_07._relative_error(0 * exact, exact) == 1


def test_a_gradient_of_plain_numbers_is_not_like_arrays():
    params = [np.zeros(2, np.float32), np.float32(0)]
    with jax.enable_x64(True):
        assert lesson_07._like_params((1.0, params), params)
        assert not lesson_07._like_params((1.0, [params[0], 0.0]), params)


@pytest.mark.slow
@pytest.mark.parametrize("build", [lesson_07.OWN.reference, *lesson_07.OWN.alternatives])
def test_what_the_capstone_accepts_keeps_the_whole_protocol(build):
    ml.testing.check_meta_gradient(lambda loss: build(loss, 10, 0.1, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_capstone_shows_the_gradients_of_the_library(seed):
    trial = lesson_07.Trial(np.random.default_rng(seed))
    for method in comparison.METHODS:
        _, of_query, found = trial.entry(lambda *settings, method=method: lesson_07._SHOWN[method](*settings))
        assert of_query
        assert trial.kind(found) == method
