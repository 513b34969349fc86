"""Few-shot classification on Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov and Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
"""

import dataclasses
import functools
import hashlib
import io
import zipfile
from pathlib import Path, PurePosixPath

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, PRNGKeyArray, Real, UInt8

from metalearn import _require
from metalearn.task import Task
from metalearn.tasks import _episode

CHECKSUMS = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""MD5 of the two files of the data set, in hexadecimal."""


@dataclasses.dataclass(frozen=True)
class Omniglot:
    """Tell apart `num_ways` characters from `num_shots` drawings of each.

    Reads images_background.zip or images_evaluation.zip, which anyone gets from the folder "python" of
    https://github.com/brendenlake/omniglot and leaves as they are; nothing is downloaded here. Meta-train on the
    background set and meta-test on the evaluation set, whose alphabets are others. (Many papers shuffle the characters
    of both sets instead, so their figures do not compare.) Within a task, labels are 0 ... num_ways - 1 in random
    order.

    Attributes:
      directory: where the two files are.
      num_ways: classes per task, 2 to the number of classes.
      num_shots: support examples per class, >= 1.
      num_query: query examples per class, >= 1; num_shots + num_query is at most the 20 drawings.
      split: "background" (964 characters of 30 alphabets) or "evaluation" (659 of 20).
      rotations: whether a character turned by 90, 180 or 270 degrees is a class of its own (Santoro et al. 2016).
      size: height and width of an image in pixels, 8 to 105; each pixel is the mean of the area it covers.

    Raises:
      FileNotFoundError: if the directory does not hold the file.
      ValueError: if the file is not the one of the data set.

    Example: see `Glyphs`, which is called alike.
    """

    directory: str | Path
    num_ways: int = 5
    num_shots: int = 1
    num_query: int = 15
    split: str = "background"
    rotations: bool = False
    size: int = 28

    def __post_init__(self) -> None:
        if not isinstance(self.directory, (str, Path)) or not str(self.directory):
            raise TypeError(f"directory must be the path of a folder, but it is {self.directory!r}.")
        _require.count(at_least=1, num_shots=self.num_shots, num_query=self.num_query)
        _require.count(at_least=2, num_ways=self.num_ways)
        _require.count(at_least=8, size=self.size)
        if self.size > 105:
            raise ValueError(f"size must be at most 105, the pixels of a drawing, but it is {self.size}.")
        if not isinstance(self.split, str) or self.split not in ("background", "evaluation"):
            raise ValueError(f'split must be "background" or "evaluation", but it is {self.split!r}.')
        if not isinstance(self.rotations, bool):
            raise ValueError(f"rotations must be True or False, but it is {self.rotations!r}.")
        num_classes, num_examples = self._num_classes(), self._drawings().shape[1]
        if self.num_ways > num_classes:
            raise ValueError(f"num_ways must be at most the {num_classes} classes, but it is {self.num_ways}.")
        if self.num_shots + self.num_query > num_examples:
            raise ValueError(f"num_shots + num_query must be at most {num_examples}, the drawings of a character.")

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """A batch of tasks: images [num_tasks, examples, size, size, 1], 0 (paper) to 1 (ink), and their labels."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        sizes = {"num_ways": self.num_ways, "num_shots": self.num_shots, "num_query": self.num_query}
        return _episode.draw_batch(
            key,
            num_tasks,
            _look_up_turned if self.rotations else _look_up,
            jnp.asarray(self._drawings()),
            num_classes=self._num_classes(),
            **sizes,
        )

    def _drawings(self) -> UInt8[np.ndarray, "num_characters 20 {self.size} {self.size}"]:
        return drawings(self.directory, self.split, self.size)

    def _num_classes(self) -> int:
        return len(self._drawings()) * (4 if self.rotations else 1)


def _look_up(drawings, characters, columns):
    return _episode.to_images(drawings[characters, columns])


def _look_up_turned(drawings, classes, columns):
    """A class is a character turned by 0 to 3 quarters."""
    images = _look_up(drawings, classes % len(drawings), columns)
    turned = jnp.stack([jnp.rot90(images, quarter, axes=(2, 3)) for quarter in range(4)])
    return turned[classes[:, 0] // len(drawings), jnp.arange(len(classes))]


@functools.cache
def drawings(
    directory: str | Path, split: str = "background", size: int = 28
) -> UInt8[np.ndarray, "num_characters 20 {size} {size}"]:
    """Every drawing of a set, by character: shape [num_characters, 20, size, size], uint8, 0 (paper) to 255 (ink)."""
    name = f"images_{split}.zip"
    path = Path(directory).expanduser() / name
    source = f'the folder "python" of https://github.com/brendenlake/omniglot, unchanged, and put it at {path}'
    if not path.is_file():
        raise FileNotFoundError(f"There is no {name} in the directory. Get it from {source}.")
    content = path.read_bytes()
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if checksum != CHECKSUMS[name]:
        raise ValueError(
            f"{name} is damaged or not the one of the data set: its MD5 is {checksum} instead of {CHECKSUMS[name]}. "
            f"Get it from {source}."
        )
    from matplotlib.image import imread  # here, so that the library loads no matplotlib

    characters: dict[PurePosixPath, list[np.ndarray]] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in sorted(archive.namelist()):
            drawing = PurePosixPath(member)  # images_background/Greek/character01/0394_01.png
            if drawing.suffix == ".png":
                image = imread(io.BytesIO(archive.read(member)), format="png")
                characters.setdefault(drawing.parent, []).append(_shrunk(1 - image, size))
    images = np.array(list(characters.values()))
    images.setflags(write=False)  # every later call returns this same array
    return images


def _shrunk(image: Real[np.ndarray, "side side"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """Square ink in [0, 1] as uint8 of shape [size, size]."""
    average = _area_average(len(image), size)
    return np.rint(255 * average @ image @ average.T).astype(np.uint8)


@functools.cache
def _area_average(length: int, size: int) -> Float64[np.ndarray, "{size} {length}"]:
    """Weights [size, length]: how much of each old pixel a new one covers, in rows that sum to 1."""
    edges = np.linspace(0, length, size + 1)[:, None]
    old = np.arange(length)
    covered = np.clip(np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old), 0, None)
    return covered * size / length
