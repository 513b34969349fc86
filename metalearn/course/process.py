"""`setup`: what a lesson changes in its process, in one visible call."""

import contextlib
import os

import jax

from metalearn._cache import cache_directory


def setup() -> None:
    """Make this process quick at many small programs, as a lesson runs them; the first cell of a lesson calls it.

    XLA compiles with less optimization (`--xla_backend_optimization_level=1` in `XLA_FLAGS`) and on one processor core
    (`NPROC=1`), because to optimise hundreds of programs that run once costs more than it saves. Call it before the
    first array is made: XLA reads both then, and not again. What was compiled is kept on disk, in the user's cache
    directory, where the next run finds it. Whatever you have set yourself stays.
    """
    if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1".strip()
    os.environ.setdefault("NPROC", "1")
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):  # where nothing can be written, everything is compiled anew
            programs = cache_directory() / "compiled"
            programs.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(programs))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
