"""Few-shot classification of letters: many classes of few examples, as in Omniglot, without a download.

A class is a character, an example is a typeface: the twelve DejaVu fonts share more than two thousand characters.
Four of the twelve pictures of CYRILLIC SMALL LETTER YU (sans, sans bold, mono oblique and serif bold italic)::

        :#+     .+#####+:         +####     :++#####+:.             :#+    :+###+         ++++++:      .:+++#++:.
        +##    ###:   .+##:       #####   :######+######.           ##+  :##:  +##         :####:   .####:   +###+
        +##   ###       :##.      #####  :####+     #####.         .##. :##.   .##.        +####   +####.    :####+
        +##++###.        ##+      #####++#####      .####+         +##::##:    :##         #####..+####+     +####+
        +##..:##.        ##+      #####++#####      .####+         ##+:###     ###        :####:::#####:     #####.
        +##   ###       :##.      #####  :####+     #####.        :##  +##    :##.        #####   #####     +####.
        +##    ###.   .+##:       #####   :######+######.         ##+  .##: .+##.        .####:   .####:   :###+.
        :#+     .+#####+:         +####     :++#####+:.           ##.   .+###+.          :++++      .:++#+++:.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, PRNGKeyArray, UInt8

from metalearn import _require
from metalearn.task import Task
from metalearn.tasks import _episode, _outlines
from metalearn.tasks._outlines import FACES
from metalearn.tasks._outlines import SIZE as _SIZE

if TYPE_CHECKING:  # loaded by what draws
    from matplotlib.figure import Figure

TRAIN_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
TEST_SCRIPTS = ("ARMENIAN", "GEORGIAN")


@dataclasses.dataclass(frozen=True)
class Glyphs:
    """Tell apart `num_ways` characters from `num_shots` pictures of each; a picture is a character in one typeface.

    Meta-train on `scripts=TRAIN_SCRIPTS` (the default) and meta-test on `scripts=TEST_SCRIPTS`: no test class was seen
    before, not even a letter of another script that looks the same. Within a task, labels are 0 ... num_ways - 1 in
    random order, and every class draws its typefaces apart. Nothing is downloaded.

    Attributes:
      num_ways: classes per task, 2 to the number of characters of the scripts.
      num_shots: support examples per class, >= 1.
      num_query: query examples per class, >= 1; num_shots + num_query is at most the 12 typefaces.
      scripts: which scripts tasks may use, as in `scripts()`: the first words of Unicode names.
      size: height and width of a picture in pixels, >= 8.

    Example:
      >>> import jax, metalearn as ml
      >>> tasks = ml.tasks.Glyphs(num_ways=5, num_shots=1, num_query=3)(jax.random.key(0), 4)
      >>> tasks.support[0].shape, tasks.query[1].shape
      ((4, 5, 28, 28, 1), (4, 15))
    """

    num_ways: int = 5
    num_shots: int = 1
    num_query: int = 5
    scripts: tuple[str, ...] = TRAIN_SCRIPTS
    size: int = _SIZE

    def __post_init__(self) -> None:
        _require.count(at_least=1, num_shots=self.num_shots, num_query=self.num_query)
        _require.count(at_least=2, num_ways=self.num_ways)
        _require.count(at_least=8, size=self.size)
        known, wanted = Counter(scripts()), self.scripts
        if (
            not isinstance(wanted, tuple)
            or not all(isinstance(script, str) and script in known for script in wanted)
            or len(set(wanted)) < len(wanted)
        ):
            largest = ", ".join(repr(script) for script, _ in known.most_common(8))
            raise ValueError(f"scripts must be a tuple of different scripts such as {largest}, but it is {wanted!r}.")
        num_characters = sum(known[script] for script in wanted)
        if self.num_ways > num_characters:
            raise ValueError(f"num_ways must be at most the {num_characters} characters, but it is {self.num_ways}.")
        if self.num_shots + self.num_query > len(FACES):
            raise ValueError(f"num_shots + num_query must be at most {len(FACES)}, the typefaces of a character.")

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """A batch of tasks: images [num_tasks, examples, size, size, 1] in [0, 1] and labels [num_tasks, examples]."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        # Bytes, and of these scripts only: four times smaller than floats where a compiled program holds them.
        pictures = jnp.asarray(_of_scripts(self.scripts, self.size))
        sizes = {"num_ways": self.num_ways, "num_shots": self.num_shots, "num_query": self.num_query}
        return _episode.draw_batch(key, num_tasks, _look_up, pictures, num_classes=len(pictures), **sizes)


def images(size: int = _SIZE) -> Float32[np.ndarray, "num_classes 12 {size} {size}"]:
    """Every character in every typeface: shape [num_classes, 12, size, size], float32, 0 (paper) to 1 (ink).

    An em is `size` pixels everywhere, so a capital is about 0.73 size high, as a digit of MNIST is, and o stays smaller
    than O. The ink is centred; what would not fit with a pixel to spare on each side is shrunk until it does.

    The outlines come with the package, and matplotlib fills them; another release of it may draw an edge a shade
    differently. With 28 pixels the letters of TRAIN_SCRIPTS and TEST_SCRIPTS come with the package as pictures.

    Raises:
      ValueError: if the size is too small.
    """
    _require.count(at_least=8, size=size)
    return _all(size).astype(np.float32) / 255


@functools.cache
def names() -> tuple[str, ...]:
    """The Unicode names of the classes, such as "LATIN CAPITAL LETTER A", in the order of `images`.

    These are the characters that all twelve typefaces have, except blanks, unnamed ones, and those with a picture, of
    28 pixels, that an earlier one has too: the Greek Alpha is the Latin A, and as a class of its own it would be right
    and wrong at once.
    """
    return tuple(unicodedata.name(chr(code)) for code in _outlines.read().codes)


@functools.cache
def scripts() -> tuple[str, ...]:
    """The script of each class: the first word of its name, which makes "DIGIT", "BOX" and the like scripts too.

    Example:
      >>> from metalearn.tasks import glyphs
      >>> glyphs.scripts()[glyphs.names().index("LATIN CAPITAL LETTER A")]
      'LATIN'
    """
    return tuple(name.split()[0] for name in names())


def gallery(characters: Sequence[str]) -> Figure:
    """A figure of some classes: a row for each character of those `names`, a column for each typeface.

    The letters of the Georgian alphabet, which no task of meta-training shows:

    >>> from metalearn.tasks import glyphs
    >>> figure = glyphs.gallery([name for name in glyphs.names() if name.startswith("GEORGIAN LETTER")])
    >>> figure.savefig("georgian.png")

    Raises:
      ValueError: if there are none, or one is not a class.
    """
    unknown = set(characters) - set(names())
    if unknown or not characters:
        raise ValueError(f"characters must be some of glyphs.names(), but they are {characters!r:.100}.")
    from matplotlib.figure import Figure

    rows = images()[[names().index(name) for name in characters]]

    figure = Figure(figsize=(7, 0.42 * len(characters) + 0.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(rows.transpose(0, 2, 1, 3).reshape(len(characters) * _SIZE, -1), cmap="gray_r")
    middle = _SIZE * (np.arange(len(characters)) + 0.5)
    axes.set(xticks=[], yticks=middle, yticklabels=[name.lower() for name in characters])
    return figure


def _look_up(pictures, classes, faces):
    return _episode.to_images(pictures[classes, faces])


@functools.cache
def _of_scripts(wanted: tuple[str, ...], size: int) -> np.ndarray:
    return _pictures(np.isin(scripts(), wanted), size)


@functools.cache
def _all(size: int) -> np.ndarray:
    return _pictures(np.ones(len(names()), bool), size)


def _pictures(rows, size):
    """The pictures of some classes: those that the package holds, and the others drawn."""
    held = is_kept() & (size == _SIZE)
    pictures = np.empty((rows.sum(), len(FACES), size, size), np.uint8)
    if (rows & held).any():
        pictures[held[rows]] = _outlines.read_pictures()[rows[held]]
    if (rows & ~held).any():
        pictures[~held[rows]] = drawn(_outlines.read().of(rows & ~held), size)
    return pictures


def is_kept() -> Bool[np.ndarray, " num_classes"]:
    """Of which classes the package holds pictures, a boolean array."""
    return np.isin(scripts(), TRAIN_SCRIPTS + TEST_SCRIPTS)


def drawn(outlines: _outlines.Outlines, size: int) -> UInt8[np.ndarray, "num_classes 12 {size} {size}"]:
    """The pictures of some characters: shape [num_classes, 12, size, size], uint8, 0 (paper) to 255 (ink)."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Affine2D

    lengths = outlines.lengths.ravel()
    ends = np.cumsum(lengths, dtype=np.int64)
    placed = (outlines.kinds != _outlines.CLOSE)[:, None]
    points = outlines.points / _outlines.UNITS_PER_EM
    low = np.minimum.reduceat(np.where(placed, points, np.inf), ends - lengths)
    high = np.maximum.reduceat(np.where(placed, points, -np.inf), ends - lengths)
    points = np.where(placed, points - np.repeat((low + high) / 2, lengths, axis=0), 0.0)
    scales = np.minimum(size, (size / 2 - 1) / (high - low).max(axis=1) * 2)
    glyphs = list(zip(np.split(points, ends[:-1]), np.split(outlines.kinds, ends[:-1]), scales, strict=True))

    renderer = RendererAgg(size * len(FACES), size, 72)
    context = renderer.new_gc()
    context.set_linewidth(0)
    context.set_snap(False)
    pictures = np.empty((len(outlines.codes), len(FACES), size, size), np.uint8)
    for row, character in enumerate(pictures):
        renderer.clear()
        for column in range(len(FACES)):
            vertices, kinds, scale = glyphs[row * len(FACES) + column]
            place = Affine2D().scale(scale).translate((column + 0.5) * size, size / 2)
            renderer.draw_path(context, Outline(vertices, kinds), place, (0.0, 0.0, 0.0))
        coverage = np.asarray(renderer.buffer_rgba())[..., 3]
        character[:] = coverage.reshape(size, len(FACES), size).transpose(1, 0, 2)
    return pictures
