"""What the README's table says of each system: where it comes from, what it costs, and what was measured."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Claim(NamedTuple):
    """One paper's key claim, on a synthetic problem that takes seconds.

    Attributes:
      order: the row's place in the table.
      system: the functions of the library, in backquotes.
      paper: authors, year and link.
      exact: what the system computes exactly, and what it does not.
      cost: gradients a task, in terms of K.
      memory: how it grows with K.
      finding: what was measured, in words, with the figures as {name:.2g}.
      measure: () -> the figures by name; deterministic.
      holds: whether the figures say what `finding` says, with a margin.
      rtol: how far a figure may lie from what the README shows. Rounding differs from machine to machine; a closed form
        keeps its figures, a network trained in float32 does not.
    """

    order: int
    system: str
    paper: str
    exact: str
    cost: str
    memory: str
    finding: str
    measure: Callable[[], Mapping[str, float]]
    holds: Callable[[Mapping[str, float]], bool]
    rtol: float = 0.1

    def figures(self) -> Mapping[str, float]:
        """The measured figures; measured once a process."""
        return _measured(self.measure)

    def row(self) -> str:
        """The row of the table, in Markdown."""
        cells = (*self[1:6], self.finding.format(**self.figures()))
        return f"| {' | '.join(cells)} |"


@functools.cache
def _measured(measure):
    return measure()
