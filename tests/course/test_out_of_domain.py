"""The long runs and the record behind lesson 13."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metalearn as ml
from metalearn.course.lessons import out_of_domain as runs


@pytest.fixture(scope="module")
def record():
    return json.loads(runs.RECORD.read_text("utf-8"))


def test_the_record_was_made_with_these_settings(record):
    assert record["settings"] == json.loads(json.dumps(dataclasses.asdict(runs.SETTINGS)))
    assert tuple(record["rates"]) == runs.FINE and set(record["sweep"]) == set(runs.DOMAINS)
    assert len(record["checkpoints"]) == 1 + len(runs.SETTINGS.seeds)
    for found in record["checkpoints"].values():
        assert set(found["ways"]) == set(runs.WAYS)
        for way in runs.WAYS:
            for domain in runs.DOMAINS:
                entry = found["ways"][way][domain]
                assert len(entry["validation"]) == len(runs.RATES)
                assert entry["validation"][runs.RATES.index(entry["rates"]["own"])] == max(entry["validation"])
                assert entry["rates"]["home"] == found["ways"][way][runs.KNOWN]["rates"]["own"]
                assert runs.RATES[0] < entry["rates"]["own"] < runs.RATES[-1]  # no row stops at an edge of the grid


def test_no_character_of_a_test_task_chooses_a_learning_rate_out_of_domain():
    validation, test = runs.NEW_SCRIPTS
    assert not set(validation) & set(test) and not set(runs.SCRIPTS[runs.KNOWN][0]) & {*validation, *test}


def test_domains_share_characters_and_differ_in_ink():
    ink, pencil, chalk = (runs.tasks_of(name, 3).support[0] for name in ("new scripts", "pencil", "chalk"))
    np.testing.assert_allclose(pencil, 0.3 * ink, rtol=1e-6)
    np.testing.assert_allclose(chalk, 1 - ink, atol=1e-6)


def test_a_rate_for_each_task_is_that_of_its_column():
    params, tasks = runs.pad_network(), runs.tasks_of("pencil", 3)
    rates = jnp.array([0.01, 0.3, 1.0])
    at_every_rate = runs.plain(params, tasks, rates)
    np.testing.assert_allclose(runs.plain(params, tasks, rates[None])[0], jnp.diagonal(at_every_rate), atol=1e-6)


def test_unadapted_factors_are_those_of_many_members():
    params = {"a": jnp.linspace(-1, 2, 40), "b": jnp.full((3, 2), 0.3)}
    noise = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), (20_000, *leaf.shape)), params)
    members = jax.tree.map(lambda leaf, n: leaf * (1 + runs.SPREAD * n), params, noise)
    expected = ml.repurpose.relative_step_sizes(members)
    for name, factor in runs.unadapted_factors(params).items():
        np.testing.assert_allclose(factor, expected[name], rtol=0.02)


def test_curvature_is_the_largest_eigenvalue(monkeypatch):
    matrix = np.diag([5.0, -1.0, 2.0, 0.5])
    monkeypatch.setattr(runs, "LOSS", lambda params, batch: params["x"] @ matrix @ params["x"] / 2 + params["x"].sum())
    assert runs.curvature({"x": jnp.ones(4)}, None, 40) == pytest.approx(5.0, rel=1e-4)
