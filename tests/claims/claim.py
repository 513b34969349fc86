"""What the page of systems says of each: where it comes from, what it computes, what it costs, what was measured."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from metalearn import plots
from metalearn._cost import COSTS, SENTENCES
from metalearn.course import syllabus


class Claim(NamedTuple):
    """One paper's key claim, on a synthetic problem that takes seconds.

    Attributes:
      order: its place on the page.
      lessons: the numbers of the lessons that teach it.
      tests: the modules that compare it with exact answers.
      title: the name of the method.
      system: the functions of the library, in backquotes.
      paper: authors, year and link.
      exact: what the system computes exactly, and what it does not.
      finding: what was measured, in sentences for a newcomer, with the figures as {name:.2g}.
      measure: () -> the figures by name; deterministic.
      holds: whether the figures say what `finding` says, with a margin.
      rtol: how far a figure may lie from what the page shows. Rounding differs from machine to machine; a closed form
        keeps its figures, a network trained in float32 does not.
    """

    order: int
    lessons: tuple[str, ...]
    tests: tuple[str, ...]
    title: str
    system: str
    paper: str
    exact: str
    finding: str
    measure: Callable[[], Mapping[str, float]]
    holds: Callable[[Mapping[str, float]], bool]
    rtol: float = 0.1

    def figures(self) -> Mapping[str, float]:
        """The measured figures; measured once a process."""
        return _measured(self.measure)

    def row(self) -> str:
        """Its row of the table on top of the page."""
        taught = ", ".join(f"{number} · {lesson.name}" for number in self.lessons if (lesson := syllabus.find(number)))
        tests = ", ".join(f"`tests/{name}.py`" for name in self.tests)
        return f"| {self.title} | {self.system} | {taught} | {tests} |"

    def section(self) -> str:
        """Its section of the page, in Markdown."""
        return (
            f"## {self.title}\n\n{self.system} · {self.paper}\n\n"
            f"- **How exact:** {self.exact}\n{self.costs()}\n"
            f"{_powers(self.finding.format(**self.figures()))}\n"
        )

    def costs(self) -> str:
        """A line for each function of the system whose cost the library knows."""
        functions = [name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", self.system)]
        return "".join(
            f"- {COSTS[name].sentence(f'`{name}`') if name in COSTS else f'`{name}`: {sentence}'}\n"
            for name, sentence in SENTENCES.items()
            if name.split()[0] in functions
        )


def _powers(text: str) -> str:
    """A text whose numbers have powers of ten as a reader knows them."""
    return re.sub(r"\d(?:\.\d+)?e[+-]\d+", lambda found: plots.number(float(found[0]), 2).replace(" ", "\u00a0"), text)


@functools.cache
def _measured(measure):
    return measure()
