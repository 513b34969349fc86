"""The README's table of systems. `python tests/claims/table.py` measures every claim and writes it."""

import importlib
import re
from pathlib import Path

from claim import Claim
from tqdm import tqdm

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- table of systems: written by tests/claims/table.py -->\n", "<!-- end of table -->"
HEAD = "| system | paper | exact | cost per task | memory | measured here |\n|---|---|---|---|---|---|\n"


def claims() -> list[Claim]:
    """Every claim of this folder, in the order of the table."""
    modules = sorted(Path(__file__).parent.glob("claim_*.py"))
    return sorted(importlib.import_module(path.stem).CLAIM for path in modules)


def stored() -> list[str]:
    """The rows that the README shows."""
    return re.search(re.escape(BEGIN + HEAD) + "(.*?)" + END, README.read_text(), re.DOTALL)[1].splitlines()


def write() -> None:
    """Measures every claim and replaces the table in the README."""
    rows = "".join(claim.row() + "\n" for claim in tqdm(claims()))
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + HEAD + rows + END + rest.partition(END)[2])


if __name__ == "__main__":
    write()
