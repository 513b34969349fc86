"""Omniglot, read from a small archive of the same layout: two alphabets of five characters, each drawn four times."""

import hashlib
import io
import zipfile

import chex
import jax
import numpy as np
import pytest
from PIL import Image
from problems import assert_clear_error

from metalearn import tasks
from metalearn.tasks import omniglot

pytestmark = pytest.mark.filterwarnings("error")

NUM_DRAWINGS = 4
draw = jax.jit(lambda family, key, num_tasks: family(key, num_tasks), static_argnums=(0, 2))


def drawn(split, character, number):
    """Ink [105, 105], in blocks of 15 pixels that no other drawing of either set has, turned or not."""
    random = np.random.default_rng([split == "evaluation", character, number])
    return np.kron(random.integers(0, 2, (7, 7)), np.ones((15, 15)))


def as_png(image):
    """One bit a pixel and white paper, as in the real files."""
    buffer = io.BytesIO()
    Image.fromarray(image > 0.5).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Both files, in whatever order, with the folders and the stray file that the real archives may hold."""
    directory = tmp_path_factory.mktemp("omniglot")
    checksums = {}
    for split in ("background", "evaluation"):
        name = f"images_{split}"
        with zipfile.ZipFile(directory / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/", "")
            archive.writestr(f"{name}/.DS_Store", "")
            for number in reversed(range(NUM_DRAWINGS)):
                for character in range(10):
                    alphabet = ("Alphabet_of_the_Magi", "Anglo-Saxon_Futhorc")[character // 5]
                    file = f"{name}/{alphabet}/character{character % 5 + 1:02}/{character:04}_{number + 1:02}.png"
                    archive.writestr(file, as_png(1 - drawn(split, character, number)))
        checksums[f"{name}.zip"] = hashlib.md5((directory / f"{name}.zip").read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "CHECKSUMS", checksums)
        yield directory


@pytest.fixture(scope="module")
def source(directory):
    """image of 7 x 7, as bytes -> (split, character, quarter turns, number of the drawing)."""
    return {
        np.rot90(drawn(split, character, number)[::15, ::15], turn).astype(bool).tobytes(): (
            split,
            character,
            turn,
            number,
        )
        for split in ("background", "evaluation")
        for character in range(10)
        for number in range(NUM_DRAWINGS)
        for turn in range(4)
    }


@pytest.mark.slow
def test_images_are_the_drawings_in_the_order_of_the_alphabet(directory):
    """Ink is 1 and paper 0, and at the full size nothing is averaged."""
    for split in ("background", "evaluation"):
        images = omniglot.drawings(directory, split, 105)
        assert images.shape == (10, NUM_DRAWINGS, 105, 105)
        for character in range(10):
            for number in range(NUM_DRAWINGS):
                np.testing.assert_array_equal(images[character, number], 255 * drawn(split, character, number))


@pytest.mark.slow
def test_a_pixel_is_the_mean_of_its_area(directory):
    """Against an image repeated until new pixels are whole numbers of old ones: 28 pixels for 105 are 4 for 15."""
    image = np.random.default_rng(0).uniform(size=(15, 15))
    fine = np.kron(image, np.ones((4, 4)))
    expected = fine.reshape(4, 15, 4, 15).mean(axis=(1, 3))
    np.testing.assert_array_equal(omniglot._shrunk(image, 4), np.rint(255 * expected))
    full = omniglot.drawings(directory, size=105).mean(axis=(2, 3))
    np.testing.assert_allclose(omniglot.drawings(directory, size=28).mean(axis=(2, 3)), full, atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["background", "evaluation"])
@pytest.mark.parametrize("rotations", [False, True])
def test_tasks(split, rotations, directory, source):
    """Balanced labels, each for one class of the split, alike in support and query; no drawing occurs twice."""
    family = tasks.Omniglot(directory, 3, 1, 2, split=split, rotations=rotations, size=105)
    batch = jax.tree.map(np.asarray, draw(family, jax.random.key(0), 100))
    assert batch.support[0].shape == (100, 3, 105, 105, 1)
    assert batch.query[0].shape == (100, 6, 105, 105, 1)
    assert batch.support[0].dtype == np.float32
    seen = set()
    for (support_x, support_y), (query_x, query_y) in zip(*(zip(*part, strict=True) for part in batch), strict=True):
        assert support_y.tolist() == [0, 1, 2]
        assert query_y.tolist() == [0, 0, 1, 1, 2, 2]
        found = [source[image[::15, ::15].astype(bool).tobytes()] for image in (*support_x, *query_x)]
        assert len(set(found)) == 9
        meaning = {(int(y), place[:3]) for y, place in zip((*support_y, *query_y), found, strict=True)}
        assert len(meaning) == len({place for _, place in meaning}) == 3
        seen |= meaning
    turns = range(4) if rotations else (0,)
    assert {place for _, place in seen} == {(split, character, turn) for character in range(10) for turn in turns}
    assert len(seen) > 0.85 * 3 * 10 * len(turns), "any class may get any label"


@pytest.mark.slow
def test_the_default_is_28_pixels_of_the_background_set(directory):
    family = tasks.Omniglot(directory, num_query=3)
    images, labels = draw(family, jax.random.key(0), 2).support
    assert images.shape == (2, 5, 28, 28, 1)
    known = omniglot.drawings(directory, "background", 28)
    shades = np.rint(255 * np.asarray(images[0, 0, ..., 0]))
    assert (known == shades).all(axis=(2, 3)).any()
    assert labels.shape == (2, 5)


def test_tasks_are_determined_by_the_key(directory):
    family = tasks.Omniglot(directory, num_query=3)
    first, again, other = (draw(family, jax.random.key(seed), 2) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert (first.support[0] != other.support[0]).any()


def test_a_missing_file_is_named_with_its_place_and_its_source(directory, tmp_path):
    place = r"images_evaluation\.zip.*github\.com/brendenlake/omniglot.* put it at .*images_evaluation\.zip"
    (tmp_path / "images_background.zip").write_bytes((directory / "images_background.zip").read_bytes())
    tasks.Omniglot(tmp_path, num_query=3)
    assert_clear_error(lambda: tasks.Omniglot(tmp_path, split="evaluation"), FileNotFoundError, place)
    (tmp_path / "images_evaluation.zip").mkdir()
    assert_clear_error(lambda: tasks.Omniglot(tmp_path, split="evaluation"), FileNotFoundError, place)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:99] + b"?" + data[100:]]
)
def test_a_damaged_file_is_named_with_what_was_expected(damage, directory, tmp_path):
    whole = (directory / "images_background.zip").read_bytes()
    (tmp_path / "images_background.zip").write_bytes(damage(whole))
    expected = rf"images_background\.zip is damaged .*instead of {hashlib.md5(whole).hexdigest()}.*put it at"
    assert_clear_error(lambda: tasks.Omniglot(tmp_path), ValueError, expected)
    (tmp_path / "images_background.zip").write_bytes(whole)
    tasks.Omniglot(tmp_path, num_query=3)


CASES = {
    "num_ways": (dict(num_ways=1), "num_ways must be .* at least 2"),
    "too_many_ways": (dict(num_ways=11), "num_ways must be at most the 10 classes"),
    "too_many_turned_ways": (dict(num_ways=41, rotations=True), "num_ways must be at most the 40 classes"),
    "num_shots": (dict(num_shots=0), "num_shots must be"),
    "num_query": (dict(num_query=-1), "num_query must be"),
    "too_many_examples": (dict(num_query=4), r"num_shots \+ num_query must be at most 4"),
    "split": (dict(split="train"), 'split must be "background" or "evaluation"'),
    "rotations": (dict(rotations=4), "rotations must be True or False"),
    "small": (dict(size=7), "size must be .* at least 8"),
    "large": (dict(size=106), "size must be at most 105"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, directory):
    arguments, message = CASES[name]
    assert_clear_error(lambda: tasks.Omniglot(directory, **{"num_query": 3} | arguments), ValueError, message)


def test_bad_number_of_tasks(directory):
    family = tasks.Omniglot(directory, num_query=3)
    assert_clear_error(lambda: family(jax.random.key(0), 0), ValueError, "num_tasks must be")
