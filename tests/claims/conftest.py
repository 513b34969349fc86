"""The claims train models, so their programs are optimised as a user's are."""

import jax
import pytest


@pytest.fixture(autouse=True)
def optimised():
    """Undoes the quick compilation of the other tests."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
