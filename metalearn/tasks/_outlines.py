"""The outlines of the characters of `tasks.Glyphs`, and pictures of some of them: two files that the package holds.

python -m metalearn.tasks._outlines

makes both anew from the fonts of matplotlib. The outlines are those of the DejaVu fonts; see LICENSE_DEJAVU. Pictures
of the usual size and of the scripts for meta-training and meta-testing are kept, so that nobody waits for a drawing.
"""

import argparse
import io
import lzma
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int16, UInt8, UInt16, UInt32

FILE = Path(__file__).with_name("glyphs.npz.xz")
PICTURES = Path(__file__).with_name("glyphs_28.xz")
SIZE = 28  # of the pictures that are kept, in pixels
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
)
UNITS_PER_EM = 2048
CLOSE = 79  # the kind of a point that closes a curve, which has no place of its own


class Outlines(NamedTuple):
    """Characters in all faces: the curves of one after those of the other, as matplotlib.path.Path has them.

    Attributes:
      codes: code points of the characters, shape [num_classes], uint32.
      lengths: points of an outline, shape [num_classes, 12], uint16.
      kinds: what each point is for, shape [num_points], uint8.
      points: where it is, in units of 1 / 2048 em, shape [num_points, 2], int16.
    """

    codes: UInt32[np.ndarray, " num_classes"]
    lengths: UInt16[np.ndarray, "num_classes 12"]
    kinds: UInt8[np.ndarray, " num_points"]
    points: Int16[np.ndarray, "num_points 2"]

    def of(self, rows: Bool[np.ndarray, " num_classes"]) -> "Outlines":
        """Those of some characters, chosen by a boolean array of shape [num_classes]."""
        kept = np.repeat(rows, self.lengths.sum(axis=1, dtype=np.int64))
        return Outlines(self.codes[rows], self.lengths[rows], self.kinds[kept], self.points[kept])


def read() -> Outlines:
    """What the package holds."""
    with np.load(io.BytesIO(lzma.decompress(FILE.read_bytes()))) as arrays:
        outlines = Outlines(**arrays)
    return outlines._replace(points=np.cumsum(outlines.points, axis=0, dtype=np.int16))


def write(outlines: Outlines) -> None:
    """Keeps them in the package; points as differences, which take less room."""
    buffer = io.BytesIO()
    steps = np.diff(outlines.points, axis=0, prepend=np.zeros((1, 2), np.int16))
    np.savez(buffer, **outlines._replace(points=np.asfortranarray(steps))._asdict())
    FILE.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def read_pictures() -> UInt8[np.ndarray, "num_kept 12 28 28"]:
    """The pictures that the package holds, by class and typeface, 0 (paper) to 255 (ink)."""
    columns = np.frombuffer(lzma.decompress(PICTURES.read_bytes()), np.uint8)
    return columns.reshape(-1, len(FACES), SIZE, SIZE).swapaxes(2, 3)


def write_pictures(pictures: UInt8[np.ndarray, "num_kept 12 28 28"]) -> None:
    """Keeps them in the package, column by column, which takes a little less room."""
    plain = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}
    PICTURES.write_bytes(lzma.compress(pictures.swapaxes(2, 3).tobytes(), filters=[plain]))


def fonts() -> list[Any]:
    """The twelve faces, in the order of FACES."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return [FT2Font(Path(matplotlib.get_data_path(), "fonts/ttf", f"{face}.ttf")) for face in FACES]


def from_fonts(faces: list[Any], codes: list[int]) -> Outlines:
    """The outlines of these characters."""
    from matplotlib.ft2font import LoadFlags

    points, kinds, lengths = [], [], []
    for code in codes:
        for face in faces:
            face.load_char(code, flags=LoadFlags.NO_SCALE)
            places, what = face.get_path()
            points.append(np.rint(64 * places).astype(np.int16))
            kinds.append(what.astype(np.uint8))
            lengths.append(len(what))
    return Outlines(
        np.array(codes, np.uint32),
        np.array(lengths, np.uint16).reshape(-1, len(faces)),
        np.concatenate(kinds),
        np.concatenate(points),
    )


def candidates(faces: list[Any]) -> list[int]:
    """Code points of the characters that all faces have, but for blanks and unnamed ones."""
    from matplotlib.ft2font import LoadFlags

    def has_ink(code):
        for face in faces:
            face.load_char(code, flags=LoadFlags.NO_SCALE)
            if not len(face.get_path()[1]):
                return False
        return True

    shared = set.intersection(*(set(face.get_charmap()) for face in faces))
    return [code for code in sorted(shared) if unicodedata.name(chr(code), "") and has_ink(code)]


def distinct(outlines: Outlines) -> Bool[np.ndarray, " num_classes"]:
    """Which of the characters have no picture, of 28 pixels, that an earlier one has too; a boolean array."""
    from metalearn.tasks.glyphs import drawn

    seen: set[bytes] = set()
    kept = []
    for pictures in drawn(outlines, SIZE):
        looks = {picture.tobytes() for picture in pictures}
        kept.append(not looks & seen)
        if kept[-1]:
            seen |= looks
    return np.array(kept)


def collect() -> Outlines:
    """All that the file holds, from the fonts of matplotlib."""
    faces = fonts()
    outlines = from_fonts(faces, candidates(faces))
    return outlines.of(distinct(outlines))


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m metalearn.tasks._outlines", description=__doc__).parse_args()
    write(collect())
    from metalearn.tasks import glyphs

    write_pictures(glyphs.drawn(read().of(glyphs.is_kept()), SIZE))
