"""Fixtures shared by the tests of the library."""

import jax
import pytest


@pytest.fixture
def x64():
    """Arrays are float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
