"""The model, the runs and the record behind lesson 14."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

import metalearn as ml
from metalearn.course.lessons import image_text
from metalearn.course.lessons.image_text import SETTINGS

SHORT = dataclasses.replace(
    SETTINGS,
    pretraining_steps=5,
    scripts=("GEORGIAN",),
    seeds=(0, 1),
    num_labels=10,
    epochs=2,
    rates=(1e-3, 1e-2),
    probe_rates=(1e-2,),
    num_test_tasks=4,
)


def recorded():
    return json.loads(image_text.RECORD.read_text("utf-8"))


@pytest.fixture(scope="module")
def model():
    return image_text.load()


def test_the_model_names_letters_that_it_has_not_seen(model):
    params, apply = model
    images, captions, names = image_text.letters("LATIN")
    kept = image_text.kept_letters()
    assert len(set(kept)) == SETTINGS.num_kept and len(names) == len(images) == len(captions)
    logits = apply(params, images[kept, 0], captions[kept])
    five = np.asarray(logits).reshape(20, 5, 20, 5)[np.arange(20), :, np.arange(20)]
    assert (five.argmax(axis=-1) == np.arange(5)).mean() > 0.8


def test_its_file_is_small_and_what_was_saved_is_loaded(model, tmp_path):
    assert image_text.CHECKPOINT.stat().st_size < 100_000
    image_text.save(model[0], tmp_path / "again.npz")
    again, _ = image_text.load(tmp_path / "again.npz")
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again, model[0]))


def test_embeddings_are_those_of_the_model(model):
    params, apply = model
    images, captions, _ = image_text.letters("GEORGIAN")
    _, of_captions = image_text.outputs(params, images[:3, 0], captions[:4])
    unit = of_captions / np.linalg.norm(of_captions, axis=1, keepdims=True)
    by_hand = np.exp(params["logit_scale"][...]) * image_text.embed(params, images[:3, 0]) @ unit.T
    np.testing.assert_allclose(by_hand, apply(params, images[:3, 0], captions[:4]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_plan_of_mamf_is_that_of_the_library(model):
    params, apply = model
    run = image_text.draw_run("GREEK", 0, SHORT)
    loss, _ = image_text.measures(apply, run.captions)
    library = ml.mamf(loss, optax.adam(1e-3), SHORT.epochs)(params, run.tasks)
    planned = image_text.fine_tuned(apply, params, run.captions, image_text.blocks(SHORT, run), 1e-3)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-4), library, planned))


@pytest.mark.slow
def test_a_classical_epoch_sees_every_image_once_and_as_many_steps_as_mamf():
    run = image_text.draw_run("GREEK", 1)
    plan, mamf = image_text.classical(SETTINGS, run), image_text.blocks(SETTINGS, run)
    assert plan.labels.shape == mamf.labels.shape == (SETTINGS.num_steps, SETTINGS.batch)
    per_epoch = SETTINGS.num_labels // SETTINGS.num_ways
    assert (np.bincount(np.ravel(plan.labels[:per_epoch])) == image_text.NUM_FACES // 2).all()
    flat = np.asarray(run.seen).reshape(-1, image_text.SIZE**2)
    np.testing.assert_array_equal(plan.inputs[0], flat[np.asarray(run.order[0, : SETTINGS.batch])])
    assert int(plan.fresh.sum()) == 1 and int(mamf.fresh.sum()) == SETTINGS.num_tasks
    assert {len(set(np.asarray(step).tolist())) for step in mamf.labels} == {SETTINGS.num_ways}


def test_no_typeface_of_the_test_was_seen():
    run = image_text.draw_run("ARMENIAN", 2)
    seen = {picture.tobytes() for picture in np.asarray(run.seen).reshape(-1, image_text.SIZE**2)}
    tested = np.concatenate([np.asarray(part[0]).reshape(-1, image_text.SIZE**2) for part in run.test_tasks])
    assert sum(picture.tobytes() in seen for picture in tested) < 0.05 * len(tested)  # two typefaces may look alike


def test_the_record_is_of_these_settings():
    record = recorded()
    assert record["settings"] == json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
    assert tuple(record["steps"]) == SETTINGS.checkpoints
    num_runs = len(SETTINGS.scripts) * len(SETTINGS.seeds)
    for way, rates in record["errors"].items():
        assert len(rates) == (1 if way in image_text.CONTROLS else 3)
        for errors in rates.values():
            assert np.shape(errors) == (2, num_runs, len(SETTINGS.checkpoints))


@pytest.mark.slow
def test_a_recorded_run_is_found_again(model):
    params, apply = model
    run = image_text.draw_run(SETTINGS.scripts[0], SETTINGS.seeds[0])
    found = image_text.curve(SETTINGS, apply, "classical", SETTINGS.rates[1], params, run)
    stored = np.array(recorded()["errors"]["classical"][f"{SETTINGS.rates[1]:g}"])[:, 0]
    np.testing.assert_allclose(found, stored, atol=1.5)


@pytest.mark.slow
def test_a_short_run_writes_a_model_and_a_record_of_the_same_form(tmp_path):
    record, checkpoint = tmp_path / "short.json", tmp_path / "short.npz"
    image_text.main(SHORT, record, checkpoint)
    written = json.loads(record.read_text("utf-8"))
    assert written.keys() == recorded().keys() and written["errors"].keys() == recorded()["errors"].keys()
    errors = np.array(written["errors"]["MAMF"]["0.01"])
    assert errors.shape == (2, 2, len(SHORT.checkpoints)) and (errors >= 0).all() and (errors <= 100).all()
    with np.load(checkpoint) as small, np.load(image_text.CHECKPOINT) as shipped:
        assert {name: small[name].shape for name in small} == {name: shipped[name].shape for name in shipped}
