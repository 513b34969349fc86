"""The long runs and the record behind lesson 12."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import metalearn as ml
from metalearn.course.lessons import few_shot
from metalearn.course.lessons.few_shot import SETTINGS
from metalearn.course.widgets import draw_five


def shapes(tree):
    """The keys of nested dictionaries, and how long their lists are."""
    if isinstance(tree, dict):
        return {key: shapes(value) for key, value in tree.items()}
    return type(tree).__name__ if not isinstance(tree, list) else "list"


def test_every_row_chooses_from_as_many_configurations():
    names = [*few_shot.METHODS, "joint training"]
    assert {len(set(few_shot.grid(SETTINGS, name))) for name in names} == {6}


def test_no_script_is_in_two_of_training_validation_and_test():
    parts = (SETTINGS.train, SETTINGS.validation, SETTINGS.test)
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_a_drawing_of_any_size_is_fitted():
    large = np.zeros((2, 105, 105), np.uint8)
    large[0, 10:70, 20:40] = 255  # 60 x 20: it becomes 12 x 4, in the middle
    large[1, 90:100, 5:15] = 90
    small = few_shot.fitted(large)
    assert small.shape == (2, 14, 14) and small.dtype == np.uint8
    inked = small > 127
    np.testing.assert_array_equal(np.flatnonzero(inked[0].any(axis=1)), np.arange(1, 13))
    np.testing.assert_array_equal(np.flatnonzero(inked[0].any(axis=0)), np.arange(5, 9))
    np.testing.assert_array_equal(inked[1], inked[1].T)
    assert small[1].max() == 255


def test_with_one_picture_of_each_the_nearest_centroid_is_the_nearest_neighbour():
    tasks = few_shot.tasks_of(SETTINGS.test, 1, 3, 20)
    np.testing.assert_allclose(few_shot.nearest_centroid(tasks), few_shot.nearest_neighbour(tasks))


def test_the_nearest_centroid_is_that_of_the_class_means():
    support = np.array([[[0.0], [2.0], [10.0], [10.0], [20.0], [20.0], [30.0], [30.0], [40.0], [40.0]]])
    labels = np.repeat(np.arange(5), 2)[None]
    query = (np.array([[[1.2], [4.0], [6.0]]]), np.array([[0, 0, 0]]))
    assert few_shot.nearest_centroid(ml.Task((support, labels), query)) == pytest.approx(2 / 3)


def test_a_zero_head_makes_no_noise_and_a_random_one_does():
    params, _ = few_shot.network(0)
    tasks = few_shot.tasks_of(SETTINGS.test, 1, 3, 4)
    interference, _ = few_shot.noise(params, tasks, 0.2)
    assert interference > 0.1
    assert few_shot.noise(ml.zero_head(params, few_shot.head), tasks, 0.2) == (0, 0)


def test_a_classifier_of_many_classes_gives_its_encoder_to_a_task():
    wide, _ = few_shot.network(3, num_classes=11)
    ready = few_shot.prepared(wide, zeroing=True)
    assert ready["layers"][2]["kernel"][...].shape == (64, 5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(few_shot.head(ready)))
    for i in range(2):
        np.testing.assert_array_equal(ready["layers"][i]["kernel"][...], wide["layers"][i]["kernel"][...])
    pictures = few_shot.tasks_of(SETTINGS.test, 1, 3, 1).support[0]
    np.testing.assert_array_equal(few_shot.features(ready, pictures), few_shot.features(wide, pictures))


def recorded():
    return json.loads(few_shot.RECORD.read_text("utf-8"))


def test_the_record_is_of_these_settings():
    record = recorded()
    assert record["settings"] == json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
    assert SETTINGS.test_tasks >= 2_000
    assert set(record["rows"]) == {*few_shot.METHODS, "joint training"}
    for name, entries in record["rows"].items():
        for entry in entries.values():
            points = few_shot.grid(SETTINGS, name)
            best = points[int(np.argmax(np.ravel(entry["validation"])))]
            assert (entry["outer_rate"], entry["own"]) == tuple(best)
            assert all(len(entry["test"][shots]["seeds"]) == len(SETTINGS.seeds) for shots in ("1", "5"))
    sizes = {part: len(draw_five.printed(getattr(SETTINGS, part))) for part in ("train", "validation", "test")}
    assert record["num_classes"] == sizes


def test_the_recorded_gain_is_the_difference_of_the_recorded_accuracies():
    record = recorded()
    for name, gain in record["gain"].items():
        for shots in ("1", "5"):
            after, before = (record["rows"][name][kind]["test"][shots]["mean"] for kind in ("zeroing", "plain"))
            assert gain[shots]["mean"] == pytest.approx(after - before, abs=2e-4)


def test_the_recorded_baselines_are_found_again():
    record = recorded()
    for shots in few_shot.SHOTS:
        tasks = few_shot.test_tasks(SETTINGS, shots)
        for name, method in (("neighbour", few_shot.nearest_neighbour), ("centroid", few_shot.nearest_centroid)):
            found = record["baselines"][f"pixel nearest {name}"][str(shots)]["mean"]
            assert method(tasks).mean() == pytest.approx(found, abs=0.005)


@pytest.mark.slow
def test_a_short_run_writes_a_record_of_the_same_form(tmp_path, monkeypatch):
    settings = dataclasses.replace(
        SETTINGS,
        train=("CYRILLIC",),
        validation=("GEORGIAN",),
        test=("ARMENIAN",),
        seeds=(0, 1),
        outer_rates=(3e-3,),
        inner_rates=(0.2, 0.4),
        tuned_rates=(0.2, 0.8),
        outer_steps=20,
        tuning_steps=10,
        checkpoints=2,
        num_drawings=12,
        validation_tasks=20,
        test_tasks=30,
    )
    monkeypatch.setattr(few_shot, "NOISE_TASKS", 2)
    path = tmp_path / "short.json"
    few_shot.main(settings, path, methods=("FO-MAML",))
    written, shipped = json.loads(path.read_text("utf-8")), recorded()
    shipped["rows"] = {name: shipped["rows"][name] for name in ("FO-MAML", "joint training")}
    shipped["gain"] = {"FO-MAML": shipped["gain"]["FO-MAML"]}
    assert shapes(written) == shapes(shipped)
    for kind in ("plain", "zeroing"):
        assert 0.2 < written["rows"]["FO-MAML"][kind]["test"]["5"]["mean"] <= 1


@pytest.mark.slow
def test_zeroing_trains_first_order_maml_faster():
    settings = dataclasses.replace(SETTINGS, train=("CYRILLIC",), num_drawings=12)
    point, reached = few_shot.Configuration(3e-3, 0.2), {}
    tasks = few_shot.tasks_of(("GEORGIAN",), 1, 3, 100)
    for zeroing in (False, True):
        params = few_shot.train(settings, "FO-MAML", zeroing, point, seed=0, total=150, pieces=1)
        reached[zeroing] = few_shot.accuracies(few_shot.prepared(params, zeroing), tasks, 5, 0.2).mean()
    assert reached[True] > reached[False] + 0.01
