"""The page of systems. `python tests/claims/page.py` measures every claim and writes it."""

import argparse
import importlib
from pathlib import Path

from claim import Claim
from tqdm import tqdm

PAGE = Path(__file__).parents[2] / "metalearn/course/publishing/site/library/systems.md"
HEAD = """\
# The systems, and what was measured

Each section is about one paper that the library implements. It ends with the paper's central claim, measured on a
synthetic problem that takes seconds. Where a claim did not reproduce, the section says so. Throughout, K is the number
of inner steps and α the inner learning rate. Costs are counted in gradients of the loss on one support set; a
Hessian-vector product costs about two of them.

This page is written by `python tests/claims/page.py`; the slow tests measure it again.
"""


def claims() -> list[Claim]:
    """Every claim of this folder, in the order of the page."""
    modules = sorted(Path(__file__).parent.glob("claim_*.py"))
    return sorted(importlib.import_module(path.stem).CLAIM for path in modules)


def head() -> str:
    """What stands above the sections."""
    columns = "| system | in the library | taught in lesson | compared with exact answers in |\n|---|---|---|---|"
    return "\n".join([HEAD, columns, *(claim.row() for claim in claims())]) + "\n"


def stored() -> list[str]:
    """The sections that the page shows."""
    first, *sections = PAGE.read_text("utf-8").split("\n## ")
    assert first == head(), f"{PAGE} does not begin as it is written."
    return [f"## {section}".rstrip("\n") + "\n" for section in sections]


def write() -> None:
    """Measures every claim and replaces the page."""
    sections = [claim.section() for claim in tqdm(claims())]
    PAGE.write_text("\n".join([head(), *sections]), "utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write()
