"""Two towers: the logits, the contrastive loss and its gradient against loops over pairs, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from problems import assert_clear_error, central_differences, flat

from metalearn import losses, models, two_tower

pytestmark = pytest.mark.filterwarnings("error")


class Table(nnx.Module):
    """A tower that returns its one weight matrix times its inputs: [num, width_in] -> [num, width_out]."""

    def __init__(self, weights):
        self.weights = nnx.Param(weights)

    def __call__(self, inputs):
        return inputs @ self.weights[...]


@pytest.fixture
def problem(x64):
    """(params, apply, images, captions): four images and four captions of widths 3 and 5."""
    keys = jax.random.split(jax.random.key(0), 4)
    image, text, images, captions = map(jax.random.normal, keys, ((3, 2), (5, 2), (4, 3), (4, 5)))
    return *models.functional(two_tower.TwoTower(Table(image), Table(text))), images, captions


def naive_logits(params, images, captions):
    """One cosine at a time."""
    images = np.asarray(images) @ np.asarray(params["image_tower"]["weights"][...])
    captions = np.asarray(captions) @ np.asarray(params["text_tower"]["weights"][...])
    cosines = [[i @ c / np.linalg.norm(i) / np.linalg.norm(c) for c in captions] for i in images]
    return np.exp(float(params["logit_scale"][...])) * np.array(cosines)


@pytest.mark.slow
def test_logits_are_scaled_cosines(problem):
    params, apply, images, captions = problem
    logits = apply(params, images, captions[:3])
    np.testing.assert_allclose(logits, naive_logits(params, images, captions[:3]), rtol=1e-12)
    assert np.exp(params["logit_scale"][...]) == pytest.approx(1 / 0.07)


def test_the_contrastive_loss_picks_captions_for_images_and_images_for_captions(problem):
    params, apply, images, captions = problem
    logits = naive_logits(params, images, captions)
    by_image = [np.log(np.exp(logits[i] - logits[i, i]).sum()) for i in range(4)]
    by_caption = [np.log(np.exp(logits[:, i] - logits[i, i]).sum()) for i in range(4)]
    loss = two_tower.contrastive(apply)(params, (images, captions))
    np.testing.assert_allclose(loss, (np.mean(by_image) + np.mean(by_caption)) / 2, rtol=1e-12)
    assert abs(np.mean(by_image) - np.mean(by_caption)) > 1e-3, "both directions are needed"


@pytest.mark.slow
def test_the_gradient_reaches_both_towers_and_the_scale(problem):
    params, apply, images, captions = problem

    def loss(params):
        return two_tower.contrastive(apply)(params, (images, captions))

    gradient = jax.grad(loss)(params)
    assert min(np.linalg.norm(leaf) for leaf in jax.tree.leaves(gradient)) > 1e-2
    np.testing.assert_allclose(flat(gradient), central_differences(loss, params), rtol=0, atol=1e-7)


@pytest.mark.slow
def test_a_blank_image_has_a_finite_gradient(problem):
    params, apply, images, captions = problem
    batch = (images.at[0].set(0), captions)
    np.testing.assert_array_equal(apply(params, *batch)[0], 0)
    assert np.isfinite(flat(jax.grad(two_tower.contrastive(apply))(params, batch))).all()


def test_a_classifier_has_the_captions_as_classes(problem):
    params, apply, images, captions = problem
    logits = naive_logits(params, images, captions)
    accuracy = losses.accuracy(two_tower.classifier(apply, captions))
    for shift in range(4):
        labels = (jnp.arange(4) + shift) % 4
        assert accuracy(params, (images, labels)) == np.mean(logits.argmax(axis=1) == np.asarray(labels))


def test_letter_pairs_count_pairs():
    counts = two_tower.letter_pairs(["A", "Ab-bab"]).reshape(2, 27, 27)
    pairs = [{(int(i), int(j)): int(table[i, j]) for i, j in zip(*np.nonzero(table), strict=True)} for table in counts]
    assert pairs == [{(0, 1): 1, (1, 0): 1}, {(0, 1): 1, (1, 2): 2, (2, 0): 2, (0, 2): 1, (2, 1): 1}]


CASES = {
    "towers: a function": (
        lambda: two_tower.TwoTower(jnp.tanh, Table(jnp.ones((1, 1)))),
        TypeError,
        "image_tower must be an nnx.Module",
    ),
    "towers: text is a function": (
        lambda: two_tower.TwoTower(Table(jnp.ones((1, 1))), jnp.tanh),
        TypeError,
        "text_tower must be an nnx.Module",
    ),
    "towers: widths differ": (
        lambda: two_tower.TwoTower(Table(jnp.ones((1, 2))), Table(jnp.ones((1, 3))))(
            jnp.ones((4, 1)), jnp.ones((5, 1))
        ),
        ValueError,
        r"of one width, but they give \[4, 2\] and \[5, 3\]",
    ),
    "contrastive: no model": (lambda: two_tower.contrastive(1), TypeError, "apply must be a function"),
    "contrastive: more captions": (
        lambda: two_tower.contrastive(lambda params, i, c: i @ c.T)(0, (jnp.ones((2, 1)), jnp.ones((3, 1)))),
        ValueError,
        r"logits must be square, one image for each caption.*\[2, 3\]",
    ),
    "classifier: no model": (lambda: two_tower.classifier(1, jnp.ones((2, 3))), TypeError, "apply must be a function"),
    "letters: one name": (lambda: two_tower.letter_pairs("ALPHA"), TypeError, r"one: 'ALPHA'. Write \['ALPHA'\]"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    assert_clear_error(*CASES[case])
