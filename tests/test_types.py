"""Shapes and dtypes are what the signatures of the library say: its tests of correct use, with jaxtyping looking on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CHECKED = "--jaxtyping-packages=metalearn,typechecker.check"
CORRECT_USE = (
    *("test_outer.py", "test_evaluate.py", "test_kernel.py", "test_tasks.py"),
    "test_oracles.py::test_maml_is_the_closed_form",
    "test_oracles.py::test_imaml_is_the_closed_form",
    "test_oracles.py::test_the_limit_of_fo_b_maml_is_the_closed_form",
    "test_oracles.py::test_theory_proximal_is_the_minimum",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_annotations_are_true():
    """In a process of its own, since the checker is put into the library when it is imported."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            CHECKED,
            "-n",
            "0",
            "-x",
            "-q",
            *("-m", "slow or not slow"),
            *("-k", "not error and not hang and not wrong"),
            *CORRECT_USE,
        ],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
