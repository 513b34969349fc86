"""Fixtures shared by the tests of the library."""

import os
import re
import sys
import tempfile
from pathlib import Path

# What one process of this run has compiled, its other processes need not compile again: the workers, and the kernels
# and scripts that tests start. It lies in a new folder, so the outcome of a test does not depend on an earlier run.
if "METALEARN_TEST_RUN" not in os.environ:
    _run = tempfile.TemporaryDirectory(prefix="metalearn-tests-")
    os.environ["METALEARN_TEST_RUN"] = _run.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(_run.name, "programs")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if sys.dont_write_bytecode:  # otherwise every process would compile JAX itself, and all that it imports
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = os.path.join(_run.name, "bytecode")
        sys.dont_write_bytecode = False
# To check internationalised addresses, this package of jsonschema's compiles 38 grammars when it is imported: as many
# seconds as JAX takes. Notebooks have none, and jsonschema does without it.
sys.modules.setdefault("rfc3987_syntax", None)

import jax
import jax.numpy as jnp
import pytest

import metalearn as ml
from metalearn.course import setup

setup()  # as a lesson does

PARTS = {  # of the longest files: what in a test's name says to which part it belongs
    "test_every_lesson.py": r"\[(\w+)\]",
    "test_claims.py": r"\[(.+)\]",
    "test_protocol.py": r"(\w+)\]$",
    "test_exercise_contract.py": r"(\d\d)\.",
    "test_submissions.py": r"\b(term|honest|damaged|cheating)\b",
}

# The tests compile hundreds of small programs and run each of them once, so compiling is what they cost.
jax.config.update("jax_disable_most_optimizations", True)
# Simulated devices, for the tests of `fit` on a mesh. All others use the first one.
jax.config.update("jax_num_cpu_devices", 8)


def group_of(nodeid):
    """Tests that share what they compile, and so are run by one process: those of a file, or of a part of it."""
    file, _, test = nodeid.partition("::")
    part = re.search(PARTS.get(Path(file).name, r"$^"), test)
    return f"{file} {part[1]}" if part else file


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that no process is alone at the end."""
    items.sort(key=lambda item: item.path.name not in PARTS)


def pytest_runtest_teardown(item, nextitem):
    """What a group has compiled serves no other one, and a process would come to hold gigabytes of it."""
    if item.path.name in PARTS and (nextitem is None or group_of(nextitem.nodeid) != group_of(item.nodeid)):
        jax.clear_caches()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One group to a process at a time. (The marker for this, xdist_group, does nothing in xdist 3.8 on pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Groups(config, log)


def pytest_terminal_summary(terminalreporter):
    """What tests measured and recorded, at the end of the run, whichever process they ran in."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    recorded = [item for report in reports for item in getattr(report, "user_properties", [])]
    lines = {value for name, value in recorded if name == "measured"}
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(sorted(lines)))


@pytest.fixture
def x64():
    """Arrays are float64 for the length of one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optimized():
    """Programs are compiled as a user's are, for the length of one test."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def quadratics():
    """Four quadratic tasks in three dimensions, in float64."""
    with jax.enable_x64(True):
        return ml.tasks.Quadratic(dim=3)(jax.random.key(1), 4)


@pytest.fixture
def theta():
    """A start for them."""
    return jnp.array([1.0, -2.0, 0.5])
