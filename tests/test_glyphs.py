"""Glyphs: the pictures are the characters, a task leaks nothing, and the file of outlines is that of the fonts."""

import io
import subprocess
import sys
import unicodedata
from pathlib import Path

import chex
import jax
import matplotlib
import numpy as np
import pytest
from matplotlib import ft2font
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from problems import assert_clear_error

from metalearn import tasks
from metalearn.tasks import _make_outlines, _outlines, glyphs

pytestmark = pytest.mark.filterwarnings("error")

draw = jax.jit(lambda family, key, num_tasks: family(key, num_tasks), static_argnums=(0, 2))


@pytest.fixture(scope="module")
def class_of():
    """picture, as bytes -> the class that it shows."""
    return {as_key(picture): c for c, pictures in enumerate(glyphs.images()) for picture in pictures}


def as_key(picture):
    """The shades of a picture as bytes: a compiled program may divide by 255 with another rounding than numpy."""
    return np.rint(255 * picture).astype(np.uint8).tobytes()


def index(name):
    return glyphs.names().index(name)


# Pictures.


@pytest.mark.slow
def test_there_are_many_classes_of_twelve_examples():
    images = glyphs.images()
    assert images.shape == (len(glyphs.names()), 12, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert len(images) == len(set(glyphs.names())) == len(glyphs.scripts()) > 2000
    counts = {script: glyphs.scripts().count(script) for script in set(glyphs.scripts())}
    assert counts["LATIN"] > 700
    assert counts["GEORGIAN"] > 40
    assert counts["DIGIT"] == 10
    assert glyphs.scripts()[index("GREEK SMALL LETTER OMEGA")] == "GREEK"


@pytest.mark.slow
def test_every_picture_is_centred_and_holds_ink():
    """A pixel is free on each side, and the ink reaches as far from one edge as from the other."""
    ink = glyphs.images() > 0
    for axis in (-1, -2):
        line = ink.any(axis=axis)
        first, last = line.argmax(-1), line[..., ::-1].argmax(-1)
        assert first.min() >= 1
        assert last.min() >= 1
        # An outline is centred by the points that control its curves, which slanted curves do not quite reach.
        assert np.abs(first - last).max() <= 3
        assert line.any(-1).all()


def test_a_capital_is_as_high_as_a_digit_of_mnist_and_sizes_keep_their_order():
    def height(name):
        return (glyphs.images()[index(name), 0] > 0.5).any(axis=1).sum()

    assert height("LATIN CAPITAL LETTER H") in (20, 21)
    assert height("FULL STOP") < height("LATIN SMALL LETTER O") < height("LATIN CAPITAL LETTER O")


@pytest.mark.parametrize("character", "sю7ა")
def test_ink_is_the_area_of_the_outline(character):
    """The pictures' total ink against the area that the outlines enclose, by Green's theorem on its polygons."""
    for face, picture in zip(glyphs.FACES, glyphs.images()[index(unicodedata.name(character))], strict=True):
        font = ft2font.FT2Font(Path(matplotlib.get_data_path(), "fonts/ttf", f"{face}.ttf"))
        font.set_size(28, 72)
        font.load_char(ord(character), flags=ft2font.LoadFlags.NO_HINTING)
        polygons = Outline(*font.get_path()).to_polygons()
        area = abs(sum(np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]) / 2 for p in polygons))
        assert picture.sum() == pytest.approx(area, rel=0.02)


def test_letters_stand_upright_and_read_from_the_left():
    """L has its ink at the left and at the bottom, and a slanted l leans to the right."""
    letter = glyphs.images()[index("LATIN CAPITAL LETTER L"), 0]
    assert letter[:, :14].sum() > letter[:, 14:].sum()
    assert letter[14:].sum() > letter[:14].sum()
    slanted = glyphs.images()[index("VERTICAL LINE"), glyphs.FACES.index("DejaVuSans-Oblique")]
    assert slanted[:14].argmax(axis=1).mean() >= slanted[14:].argmax(axis=1).mean()
    italic = glyphs.images()[index("LATIN SMALL LETTER L"), glyphs.FACES.index("DejaVuSans-Oblique")]
    columns = np.arange(28)
    assert (italic[6] @ columns) / italic[6].sum() > (italic[20] @ columns) / italic[20].sum() + 1


def test_no_picture_belongs_to_two_classes():
    """Omicron, O and the Cyrillic O are one class: else a task might have two right answers, a test class be known."""
    owners = {}
    for c, pictures in enumerate(glyphs.images()):
        for picture in pictures:
            assert owners.setdefault(as_key(picture), c) == c, glyphs.names()[c]
    assert "GREEK CAPITAL LETTER OMICRON" not in glyphs.names()
    assert "CYRILLIC CAPITAL LETTER O" not in glyphs.names()


def test_bold_is_bolder():
    images = glyphs.images()
    for family in ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif"):
        regular, bold = (images[:, glyphs.FACES.index(face)].sum((1, 2)) for face in (family, f"{family}-Bold"))
        letters = np.isin(glyphs.scripts(), glyphs.TRAIN_SCRIPTS)
        assert np.mean(bold[letters] > regular[letters]) > 0.95


@pytest.mark.parametrize("size", [8, 20, 105])
def test_other_sizes_are_the_same_picture(size):
    """Wide and high characters fit too, and the mean ink is the same up to the pixel that stays free at the border."""
    fonts = [ft2font.FT2Font(Path(matplotlib.get_data_path(), "fonts/ttf", f"{face}.ttf")) for face in glyphs.FACES]
    for character in "HgǙ‰":
        pictures = glyphs.drawn(_make_outlines.from_fonts(fonts, [ord(character)]), size)[0]
        assert pictures.shape == (12, size, size)
        expected = glyphs.images()[index(unicodedata.name(character))].mean((1, 2))
        np.testing.assert_allclose(pictures.mean((1, 2)) / 255, expected, rtol=0.4 if size == 8 else 0.2)


def test_the_gallery_shows_what_it_names():
    names = ["LATIN CAPITAL LETTER A", "DIGIT SEVEN"]
    figure = glyphs.gallery(names)
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    shown = axes.images[0].get_array()
    assert shown.shape == (2 * 28, 12 * 28)
    for row, name in enumerate(names):
        for face in (0, 5):
            cell = shown[28 * row : 28 * row + 28, 28 * face : 28 * face + 28]
            np.testing.assert_array_equal(cell, glyphs.images()[index(name), face])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["latin capital letter a", "digit seven"]
    figure.savefig(io.BytesIO())


# Tasks.


def test_meta_test_classes_are_unseen(class_of):
    """No script, and by test_no_picture_belongs_to_two_classes no picture, is on both sides."""
    assert tasks.Glyphs().scripts == glyphs.TRAIN_SCRIPTS
    assert not set(glyphs.TRAIN_SCRIPTS) & set(glyphs.TEST_SCRIPTS)
    assert set(glyphs.TRAIN_SCRIPTS + glyphs.TEST_SCRIPTS) <= set(glyphs.scripts())


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [("DIGIT",), glyphs.TEST_SCRIPTS])
def test_tasks_are_balanced_and_share_no_example(scripts, class_of):
    family = tasks.Glyphs(num_ways=3, num_shots=2, num_query=4, scripts=scripts)
    batch = jax.tree.map(np.asarray, draw(family, jax.random.key(0), 200))
    assert batch.support[0].shape == (200, 6, 28, 28, 1)
    assert batch.query[0].shape == (200, 12, 28, 28, 1)
    assert batch.support[0].dtype == np.float32
    seen = set()
    for (support_x, support_y), (query_x, query_y) in zip(*(zip(*part, strict=True) for part in batch), strict=True):
        np.testing.assert_array_equal(np.bincount(support_y), [2, 2, 2])
        np.testing.assert_array_equal(np.bincount(query_y), [4, 4, 4])
        pictures = [as_key(picture) for picture in (*support_x, *query_x)]
        if scripts == ("DIGIT",):  # some letters are the same in two typefaces, no digit is
            assert len(set(pictures)) == 18, "no example twice, within the support set or across"
        meaning = {(int(y), class_of[p]) for y, p in zip((*support_y, *query_y), pictures, strict=True)}
        assert len(meaning) == len({c for _, c in meaning}) == 3, "one character a label, one label a character"
        seen |= meaning
    allowed = set(np.flatnonzero(np.isin(glyphs.scripts(), scripts)).tolist())
    assert {c for _, c in seen} == allowed, "every character of the scripts, and no other"
    if scripts == ("DIGIT",):
        assert seen == {(label, c) for label in range(3) for c in allowed}, "any character may get any label"


@pytest.mark.slow
def test_classes_draw_their_typefaces_apart_and_use_all():
    family = tasks.Glyphs(num_ways=2, num_shots=1, num_query=11, scripts=("DIGIT",))
    faces = {
        as_key(picture): (c, face)
        for c in np.flatnonzero(np.array(glyphs.scripts()) == "DIGIT").tolist()
        for face, picture in enumerate(glyphs.images()[c])
    }
    support, query = (np.asarray(part[0]) for part in draw(family, jax.random.key(0), 200))
    pairs = np.array([[faces[as_key(picture)][1] for picture in task] for task in support])
    assert abs(np.mean(pairs[:, 0] == pairs[:, 1]) - 1 / 12) < 0.08
    assert len({faces[as_key(picture)] for part in (support, query) for picture in part[0]}) == 24


def test_tasks_are_determined_by_the_key():
    family = tasks.Glyphs(num_ways=3, num_shots=2, num_query=4, scripts=("DIGIT",))
    first, again, other = (draw(family, jax.random.key(seed), 200) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert (first.support[0] != other.support[0]).any()
    assert hash(family) == hash(tasks.Glyphs(num_ways=3, num_shots=2, num_query=4, scripts=("DIGIT",)))


CASES = {
    "num_ways": (lambda: tasks.Glyphs(num_ways=1), ValueError, "num_ways must be .* at least 2"),
    "too_many_ways": (lambda: tasks.Glyphs(11, scripts=("DIGIT",)), ValueError, "num_ways must be at most the 10"),
    "num_shots": (lambda: tasks.Glyphs(num_shots=0), ValueError, "num_shots must be"),
    "num_query": (lambda: tasks.Glyphs(num_query=1.5), ValueError, "num_query must be"),
    "too_many_examples": (lambda: tasks.Glyphs(num_shots=8), ValueError, r"num_shots \+ num_query must be at most 12"),
    "unknown_script": (lambda: tasks.Glyphs(scripts=("KLINGON",)), ValueError, "scripts must be .*'LATIN'"),
    "script_twice": (lambda: tasks.Glyphs(scripts=("LATIN", "LATIN")), ValueError, "different scripts"),
    "script_as_text": (lambda: tasks.Glyphs(scripts="LATIN"), ValueError, "scripts must be a tuple"),
    "scripts_as_lists": (lambda: tasks.Glyphs(scripts=(["LATIN"],)), ValueError, "scripts must be a tuple"),
    "size": (lambda: tasks.Glyphs(size=7), ValueError, "size must be .* at least 8"),
    "images_size": (lambda: glyphs.images(0), ValueError, "size must be"),
    "num_tasks": (lambda: tasks.Glyphs(scripts=("DIGIT",))(jax.random.key(0), 0), ValueError, "num_tasks must be"),
    "gallery": (lambda: glyphs.gallery(["A"]), ValueError, "characters must be some of glyphs.names"),
    "empty_gallery": (lambda: glyphs.gallery([]), ValueError, "characters must be some of glyphs.names"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name):
    assert_clear_error(*CASES[name])


# The files.


def test_the_file_is_what_its_script_makes():
    """For every fiftieth character; all of them, and that no other belongs there, by the slow test."""
    held = _outlines.read()
    rows = np.arange(len(held.codes)) % 50 == 0
    made = _make_outlines.from_fonts(_make_outlines.fonts(), held.codes[rows].tolist())
    chex.assert_trees_all_equal(made, held.of(rows))


@pytest.mark.slow
def test_the_whole_file_is_what_its_script_makes():
    chex.assert_trees_all_equal(_make_outlines.collect(), _outlines.read())


def assert_kept_pictures_are_those_drawn(every):
    """Up to a shade at an edge, which another release of matplotlib may fill otherwise."""
    rows = np.flatnonzero(glyphs.is_kept())[::every]
    outlines = _outlines.read()
    made = glyphs.drawn(outlines.of(np.isin(np.arange(len(outlines.codes)), rows)), 28)
    np.testing.assert_allclose(_outlines.read_pictures()[::every].astype(int), made, atol=8)


def test_the_pictures_that_are_kept_are_those_that_would_be_drawn():
    assert len(_outlines.read_pictures()) == glyphs.is_kept().sum() > 1200
    assert_kept_pictures_are_those_drawn(every=50)


@pytest.mark.slow
def test_all_pictures_that_are_kept_are_those_that_would_be_drawn():
    assert_kept_pictures_are_those_drawn(every=1)


def test_the_usual_tasks_are_drawn_without_matplotlib():
    """Nobody waits for it, and pictures do not depend on its release."""
    program = """
import sys, jax, metalearn as ml
for scripts in (ml.tasks.glyphs.TRAIN_SCRIPTS, ml.tasks.glyphs.TEST_SCRIPTS):
    assert ml.tasks.Glyphs(scripts=scripts)(jax.random.key(0), 1).query[0].max() == 1
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_characters_that_look_alike_are_one_class():
    """A, Alpha and the Cyrillic A, in this order."""
    outlines = _make_outlines.from_fonts(_make_outlines.fonts(), [ord(character) for character in "AbΑАq"])
    assert _make_outlines.distinct(outlines).tolist() == [True, True, False, False, True]


def test_pictures_do_not_depend_on_what_is_drawn_beside_them():
    held = _outlines.read()
    rows = np.isin(glyphs.scripts(), ["MATHEMATICAL", "DIGIT"])
    np.testing.assert_array_equal(glyphs.drawn(held.of(rows), 28), np.rint(255 * glyphs.images()[rows]))


def test_images_are_the_callers_own():
    glyphs.images()[:] = 7
    assert glyphs.images().max() == 1
