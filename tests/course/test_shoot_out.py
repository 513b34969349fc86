"""The counts and the record behind lesson 07."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.course.lessons import shoot_out


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
    assert shoot_out.multiplications(function, a, b, while_steps=7) == products * 3 * 4 * 5


def test_a_diverged_run_is_the_worst():
    low, median, high = shoot_out.low_median_high([[1.0, 2.0], [None, 4.0], [3.0, 6.0]])
    np.testing.assert_array_equal([low, median, high], [[1, 2], [3, 4], [np.inf, 6]])


@pytest.mark.slow
def test_the_record_is_of_these_settings_and_within_their_budget():
    record, settings = json.loads(shoot_out.RECORD.read_text("utf-8")), shoot_out.SETTINGS
    assert record["settings"] == json.loads(json.dumps(dataclasses.asdict(settings)))
    for arena in (shoot_out.sinusoid(), shoot_out.mnist1d()):
        assert set(record[arena.name]) == set(shoot_out.METHODS)
        for method, entry in record[arena.name].items():
            spent = entry["outer_steps"] * shoot_out.METHODS[method].gradients(settings.num_steps, settings.cg_steps)
            assert 0.95 * arena.gradients < spent <= arena.gradients
            validation = np.array(entry["validation"], float)
            rates, owns = (axis.reshape(validation.shape) for axis in shoot_out.grid(arena, method, settings))
            best = np.unravel_index(np.nanargmin(validation), validation.shape)
            np.testing.assert_allclose([entry["outer_rate"], entry["own"]], [rates[best], owns[best]], rtol=1e-4)
            assert len(entry["curve"]) == len(entry["common"]) == len(settings.seeds)


@pytest.mark.slow
def test_the_deep_network_has_its_widths():
    arena = shoot_out.deep_mnist1d(channels=4)
    params, apply = arena.network()
    task = jax.tree.map(lambda leaf: leaf[0], arena.train(jax.random.key(0), 1))
    assert [len(task.support[0]), len(task.query[0])] == [25, 75]
    assert apply(params, task.query[0]).shape == (75, 5)
    weights, biases = 3 * (1 + 3 * 4) * 4 + 4 * 5, 4 * 4 + 5
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == weights + biases


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("method", ["FO-MAML", "one gradient"])
def test_the_recorded_memory_by_channels_is_what_the_compiler_plans(method):
    recorded, settings = json.loads(shoot_out.RECORD.read_text("utf-8"))["memory_bytes_by_channels"], shoot_out.SETTINGS
    assert set(recorded) == {*shoot_out.METHODS, "MAML, rematerialised", "one gradient"}
    assert {len(values) for values in recorded.values()} == {len(settings.memory_channels)}
    for channels, found in zip(settings.memory_channels, recorded[method], strict=True):
        planned = shoot_out.memory(shoot_out.deep_mnist1d(channels), method, settings, settings.num_steps)
        assert planned == pytest.approx(found, rel=0.2)
