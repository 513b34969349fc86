"""How long programs take, measured in turn, and one line of the table."""

import timeit
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      what: what was measured.
      figure: how much it was, with its unit.
      reference: what it is compared with, and how much that was.
      ratio: the number that the bar is about.
      bar: what the ratio should be: ("at most", 1.05), ("at least", 10), or None where nothing was promised.
    """

    what: str
    figure: str
    reference: str
    ratio: float
    bar: tuple[str, float] | None = None

    def __str__(self) -> str:
        """A row of a Markdown table."""
        bar = ""
        if self.bar is not None:
            side, value = self.bar
            met = self.ratio <= value if side == "at most" else self.ratio >= value
            bar = f"{side} {value:g}" if met else f"**missed:** {side} {value:g}"
        return f"| {self.what} | {self.figure} | {self.reference} | {self.ratio:.3g} | {bar} |"


def in_turn(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds that one call of each program takes, shape [rounds], after a warm-up.

    Each round runs all programs, A, B, C, A, B, C ..., so that whatever else the machine does meets all of them. A
    program that is over soon is repeated within its round for 0.2 seconds.
    """
    timers = {
        name: timeit.Timer(lambda program=program: jax.block_until_ready(program()))
        for name, program in programs.items()
    }
    for timer in timers.values():
        timer.timeit(1)  # compiles
    repeats = {name: timer.autorange()[0] for name, timer in timers.items()}
    turns = [[timer.timeit(repeats[name]) / repeats[name] for name, timer in timers.items()] for _ in range(rounds)]
    return dict(zip(timers, np.array(turns).T, strict=True))


def ratio(a: np.ndarray, b: np.ndarray) -> float:
    """Median over the rounds of a / b: neighbours in time are compared."""
    return float(np.median(a / b))


def seconds(times: np.ndarray) -> str:
    """The median, for people: '1.15 ms'."""
    median = float(np.median(times))
    return f"{median:.3g} s" if median >= 1 else f"{1e3 * median:.3g} ms"
