"""Few-shot classification of letters: many classes of few examples, as in Omniglot, without a download.

A class is a character, an example is a typeface: matplotlib brings twelve that share more than two thousand characters.
Four of the twelve pictures of CYRILLIC SMALL LETTER YU (sans, sans bold, mono oblique and serif bold italic):

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
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import _require
from metalearn._cache import cache_directory
from metalearn.task import Task
from metalearn.tasks import _episode

if TYPE_CHECKING:  # loaded by what draws
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font
    from matplotlib.path import Path as Outline

TRAIN_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
TEST_SCRIPTS = ("ARMENIAN", "GEORGIAN")
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
)
_SIZE = 28  # of a picture in pixels, where nothing else is asked for
_VERSION = 1  # of what `_drawn` draws: another number leaves the files of before alone


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

    Raises:
      ValueError: if a count is out of range or a script does not exist.
    """

    num_ways: int = 5
    num_shots: int = 1
    num_query: int = 5
    scripts: tuple[str, ...] = TRAIN_SCRIPTS
    size: int = _SIZE

    def __post_init__(self):
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

    def __call__(self, key: jax.Array, num_tasks: int) -> Task:
        """A batch of tasks: images [num_tasks, examples, size, size, 1] in [0, 1] and labels [num_tasks, examples]."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        # Bytes, and of these scripts only: four times smaller than floats where a compiled program holds them.
        pictures = jnp.asarray(_of_scripts(self.scripts, self.size))
        sizes = pictures.shape[0], len(FACES), self.num_ways, self.num_shots, self.num_query

        def draw(key):
            return _episode.draw(key, lambda classes, faces: _episode.to_images(pictures[classes, faces]), *sizes)

        return jax.vmap(draw)(jax.random.split(key, num_tasks))


def images(size: int = _SIZE) -> np.ndarray:
    """Every character in every typeface: shape [num_classes, 12, size, size], float32, 0 (paper) to 1 (ink).

    An em is `size` pixels everywhere, so a capital is about 0.73 size high, as a digit of MNIST is, and o stays smaller
    than O. The ink is centred; what would not fit with a pixel to spare on each side is shrunk until it does.

    Drawn once (seconds), then read from the user's cache directory, or drawn anew where that cannot be written. The
    same on every call; another release of matplotlib may draw an edge a shade differently.
    """
    _require.count(at_least=8, size=size)
    return _glyphs(size).images.astype(np.float32) / 255


@functools.cache
def names() -> tuple[str, ...]:
    """The Unicode names of the classes, such as "LATIN CAPITAL LETTER A", in the order of `images`.

    These are the characters that all twelve typefaces have, except blanks, unnamed ones, and those with a picture, of
    28 pixels, that an earlier one has too: the Greek Alpha is the Latin A, and as a class of its own it would be right
    and wrong at once.
    """
    return tuple(unicodedata.name(chr(code)) for code in _glyphs(_SIZE).codes)


@functools.cache
def scripts() -> tuple[str, ...]:
    """The script of each class: the first word of its name, which makes "DIGIT", "BOX" and the like scripts too."""
    return tuple(name.split()[0] for name in names())


def gallery(characters: Sequence[str]) -> Figure:
    """A figure of some classes: a row for each character of those `names`, a column for each typeface.

    The letters of the Georgian alphabet, which no task of meta-training shows:

    >>> figure = gallery([name for name in names() if name.startswith("GEORGIAN LETTER")])
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


class _Drawn(NamedTuple):
    codes: np.ndarray  # code points of the classes, [num_classes], uint32
    images: np.ndarray  # [num_classes, 12, size, size], uint8


@functools.cache
def _of_scripts(wanted: tuple[str, ...], size: int) -> np.ndarray:
    return _glyphs(size).images[np.isin(scripts(), wanted)]


@functools.cache
def _glyphs(size: int) -> _Drawn:
    import matplotlib
    from matplotlib import ft2font

    makers = f"v{_VERSION}-matplotlib{matplotlib.__version__}-freetype{ft2font.__freetype_version__}"
    path = cache_directory() / f"glyphs-{size}-{makers}.npz"
    drawn = _read(path, size)
    if drawn is None:
        drawn = _drawn(size)
        _write(path, drawn)
    return drawn


def _read(path: Path, size: int) -> _Drawn | None:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            codes, images = arrays["codes"], arrays["images"]
    except Exception:  # absent, unreadable or damaged in whatever way: the glyphs are drawn anew
        return None
    fits = (
        codes.dtype == np.uint32 and images.dtype == np.uint8 and images.shape == (len(codes), len(FACES), size, size)
    )
    return _Drawn(codes, images) if fits else None


def _write(path: Path, drawn: _Drawn) -> None:
    """Leaves the whole file or none, whoever else writes it or whenever this process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                np.savez_compressed(file, **drawn._asdict())
                file.close()
                os.replace(file.name, path)
            except BaseException:
                file.close()
                os.unlink(file.name)
                raise
    except OSError:
        pass  # no room or no permission: the next process draws them again


def _drawn(size: int) -> _Drawn:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    fonts = [FT2Font(Path(matplotlib.get_data_path(), "fonts/ttf", f"{face}.ttf")) for face in FACES]
    if size != _SIZE:
        codes = _glyphs(_SIZE).codes
        return _Drawn(
            codes, np.array([_pictures([_outline(font, int(code)) for font in fonts], size) for code in codes])
        )
    seen: set = set()
    kept = {}
    for code in sorted(set.intersection(*(set(font.get_charmap()) for font in fonts))):
        outlines = [_outline(font, code) for font in fonts]
        if unicodedata.name(chr(code), "") and all(map(len, outlines)):
            pictures = _pictures(outlines, size)
            looks = {picture.tobytes() for picture in pictures}
            if not looks & seen:
                seen |= looks
                kept[code] = pictures
    return _Drawn(np.array(list(kept), np.uint32), np.array(list(kept.values())))


def _outline(font: FT2Font, code: int) -> Outline:
    """The outline of a glyph around the origin, in ems; of no points for a blank."""
    from matplotlib.ft2font import LoadFlags
    from matplotlib.path import Path as Outline

    font.load_char(code, flags=LoadFlags.NO_SCALE)
    points, kinds = font.get_path()
    placed = kinds != Outline.CLOSEPOLY  # what closes a curve has no place of its own
    if placed.any():
        centre = (points[placed].min(axis=0) + points[placed].max(axis=0)) / 2
        points = np.where(placed[:, None], points - centre, 0.0)
    return Outline(points * 64 / font.units_per_EM, kinds)


def _pictures(outlines: list[Outline], size: int) -> np.ndarray:
    """One character in all typefaces: shape [12, size, size], uint8."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.transforms import Affine2D

    renderer = RendererAgg(size * len(outlines), size, 72)
    context = renderer.new_gc()
    context.set_linewidth(0)
    context.set_snap(False)
    for column, outline in enumerate(outlines):
        scale = min(size, (size / 2 - 1) / np.abs(outline.vertices).max())
        place = Affine2D().scale(scale).translate((column + 0.5) * size, size / 2)
        renderer.draw_path(context, outline, place, (0.0, 0.0, 0.0))
    coverage = np.asarray(renderer.buffer_rgba())[..., 3]
    return coverage.reshape(size, len(outlines), size).transpose(1, 0, 2)
