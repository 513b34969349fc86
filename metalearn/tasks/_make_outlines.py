"""Makes the two files that `_outlines` reads, from the fonts of matplotlib.

python -m metalearn.tasks._make_outlines
"""

import argparse
import io
import lzma
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from metalearn.tasks import glyphs
from metalearn.tasks._outlines import FACES, FILE, PICTURES, SIZE, Outlines, read


def write(outlines: Outlines) -> None:
    """Keeps them in the package; points as differences, which take less room."""
    buffer = io.BytesIO()
    steps = np.diff(outlines.points, axis=0, prepend=np.zeros((1, 2), np.int16))
    np.savez(buffer, **outlines._replace(points=np.asfortranarray(steps))._asdict())
    FILE.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


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
    seen: set[bytes] = set()
    kept = []
    for pictures in glyphs.drawn(outlines, SIZE):
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
    argparse.ArgumentParser(prog="python -m metalearn.tasks._make_outlines", description=__doc__).parse_args()
    write(collect())
    write_pictures(glyphs.drawn(read().of(glyphs.is_kept()), SIZE))
