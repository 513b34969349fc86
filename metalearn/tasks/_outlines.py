"""The outlines of the characters of `tasks.Glyphs`, and pictures of some of them: two files that the package holds.

The outlines are those of the DejaVu fonts; see LICENSE_DEJAVU. Pictures of the usual size and of the scripts for
meta-training and meta-testing are kept, so that nobody waits for a drawing. `_make_outlines` makes both files.
"""

import io
import lzma
from pathlib import Path
from typing import NamedTuple

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


def read_pictures() -> UInt8[np.ndarray, "num_kept 12 28 28"]:
    """The pictures that the package holds, by class and typeface, 0 (paper) to 255 (ink)."""
    columns = np.frombuffer(lzma.decompress(PICTURES.read_bytes()), np.uint8)
    return columns.reshape(-1, len(FACES), SIZE, SIZE).swapaxes(2, 3)
