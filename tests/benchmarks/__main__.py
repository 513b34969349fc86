"""Measures how fast the library is, prints one table and writes it to RESULTS.md: `uv run python tests/benchmarks`.

Run it on a machine that does nothing else. Each ratio is of programs that ran in turn, and a median over the rounds.
Name sections to run only these, which writes no file: `uv run python tests/benchmarks sinusoid cost --rounds 7`. Some
are run by name only: `lessons` runs each of them, `browser` needs a Chromium, `binder` the package index, and
`classroom` grades for 20 minutes.
PyTorch is compared with where it is installed: `uv run --extra torch python tests/benchmarks`.
"""

import argparse
import datetime
import importlib
import os
import platform
from pathlib import Path

import jax

RESULTS = Path(__file__).with_name("RESULTS.md")
SECTIONS = ("sinusoid", "conv4", "cost", "compilation", "meta_test")
BY_NAME_ONLY = ("lessons", "browser", "binder", "classroom")
HEAD = "| measured | figure | compared with | ratio | bar |\n|---|---|---|---|---|"


def main() -> None:
    """The command line."""
    known = (*SECTIONS, *BY_NAME_ONLY)
    parser = argparse.ArgumentParser(prog="python tests/benchmarks")
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(known)}; the first {len(SECTIONS)} by default"
    )
    parser.add_argument("--rounds", type=int, default=5, help="each figure is a median of so many (5)")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(known):
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(known)}.")

    rows = [row for name in options.sections or SECTIONS for row in importlib.import_module(name).rows(options.rounds)]
    table = "\n".join([machine(options.rounds), "", HEAD, *map(str, rows)])
    print(table)
    if not options.sections:
        RESULTS.write_text(f"# How fast\n\nWritten by `uv run python tests/benchmarks`. {table}\n")


def machine(rounds: int) -> str:
    """What the figures depend on."""
    return (
        f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, JAX {jax.__version__}, "
        f"{datetime.date.today()}, medians of {rounds} rounds."
    )


if __name__ == "__main__":
    main()
