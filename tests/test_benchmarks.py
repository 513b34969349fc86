"""The benchmarks run; how fast they find the library is for a machine that does nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("section", ["sinusoid", "conv4", "cost", "meta_test"])
def test_a_section_ends_with_its_table(section):
    command = [sys.executable, "tests/benchmarks", section, "--rounds", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].startswith("| "), run.stdout
