"""Few-shot classification on MNIST-1D.  (Greydanus & Kobak 2024, arXiv 2011.14439)"""

import contextlib
import dataclasses
import functools
import io
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, PRNGKeyArray

from metalearn import _require
from metalearn.task import Task
from metalearn.tasks import _episode

NUM_CLASSES = 10
SIGNAL_LENGTH = 40
TRAIN_DIGITS = (0, 1, 2, 3, 4, 5)
TEST_DIGITS = (6, 7, 8, 9)


@dataclasses.dataclass(frozen=True)
class MNIST1D:
    """Tell apart `num_ways` digits, drawn as signals of length 40, from `num_shots` examples of each.

    Meta-train on `digits=TRAIN_DIGITS` (the default) and meta-test on `digits=TEST_DIGITS`: no test class was seen
    before. The signals are the benchmark's own 5,000, computed here; nothing is downloaded. Within a task, labels are
    0 ... num_ways - 1 in random order.

    Attributes:
      num_ways: classes per task, 2 to the number of digits.
      num_shots: support examples per class, >= 1.
      num_query: query examples per class, >= 1.
      digits: which digits tasks may use.

    Example:
      >>> import jax, metalearn as ml
      >>> tasks = ml.tasks.MNIST1D(num_ways=2, num_shots=5, num_query=10)(jax.random.key(0), 4)
      >>> tasks.support[0].shape, tasks.query[1].shape
      ((4, 10, 40), (4, 20))
    """

    num_ways: int = 3
    num_shots: int = 5
    num_query: int = 15
    digits: tuple[int, ...] = TRAIN_DIGITS

    def __post_init__(self) -> None:
        _require.count(at_least=1, num_shots=self.num_shots, num_query=self.num_query)
        _require.count(at_least=2, num_ways=self.num_ways)
        digits = self.digits
        if (
            not isinstance(digits, tuple)
            or not all(isinstance(digit, numbers.Integral) and 0 <= digit < NUM_CLASSES for digit in digits)
            or any(isinstance(digit, bool) for digit in digits)
            or len(set(digits)) < len(digits)
        ):
            raise ValueError(f"digits must be a tuple of different digits from 0 to 9, but it is {digits!r}.")
        if self.num_ways > len(self.digits):
            raise ValueError(f"num_ways must be at most the {len(self.digits)} digits, but it is {self.num_ways}.")
        available = signals().shape[1]
        if self.num_shots + self.num_query > available:
            raise ValueError(f"num_shots + num_query must be at most {available}, the examples of a digit.")

    def __call__(self, key: PRNGKeyArray, num_tasks: int) -> Task:
        """A batch of tasks: signals [num_tasks, examples, 40] and labels [num_tasks, examples]."""
        _require.random_key(key=key)
        _require.count(at_least=1, num_tasks=num_tasks)
        data = jnp.asarray(signals()[list(self.digits)])
        sizes = *data.shape[:2], self.num_ways, self.num_shots, self.num_query

        def draw(key):
            return _episode.draw(key, lambda classes, examples: data[classes, examples], *sizes)

        return jax.vmap(draw)(jax.random.split(key, num_tasks))


@functools.cache
def signals() -> Float32[np.ndarray, "10 500 40"]:
    """All 5,000 signals of the benchmark, by digit: shape [10, 500, 40], float32, mean 0 and deviation about 1."""
    from mnist1d.data import make_dataset  # here, since it takes a second

    with contextlib.redirect_stdout(io.StringIO()):
        data = make_dataset()
    inputs = np.concatenate([data["x"], data["x_test"]]).astype(np.float32)
    labels = np.concatenate([data["y"], data["y_test"]])
    return np.stack([inputs[labels == digit] for digit in range(NUM_CLASSES)])
