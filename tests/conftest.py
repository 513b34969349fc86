"""Fixtures shared by the tests of the library."""

import os
import sys
import tempfile

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
LONGEST = ("test_notebooks.py", "test_claims.py", "test_protocol.py", "test_exercise_contract.py")

# The tests compile hundreds of small programs and run each of them once, so compiling is what they cost.
jax.config.update("jax_disable_most_optimizations", True)
# Simulated devices, for the tests of `fit` on a mesh. All others use the first one.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """The tests of one file share what they compile, so one process runs them, unless they name a group of their own.

    What takes longest begins first.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
def optimised():
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
