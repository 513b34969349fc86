"""Fixtures shared by the tests of the library."""

import jax
import jax.numpy as jnp
import pytest

import metalearn as ml
from metalearn.course import setup

setup()  # as a lesson does
# The tests compile hundreds of small programs and run each of them once, so compiling is what they cost.
jax.config.update("jax_disable_most_optimizations", True)
# The lessons keep on disk what they compiled. The outcome of a test must not depend on what ran before.
jax.config.update("jax_enable_compilation_cache", False)
# Simulated devices, for the tests of `fit` on a mesh. All others use the first one.
jax.config.update("jax_num_cpu_devices", 8)


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
