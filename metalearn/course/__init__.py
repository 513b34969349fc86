"""The teaching layer: what the cells of a lesson call besides the library itself.

check("02.meta_gradient", my_function)     is it right, and if not, what is it?
hint("02.meta_gradient")                   one more hint at each call
predict("02.nudge", "How much is left?")   commit before the result is shown; then .reveal(truth)
explore(draw, "what is seen", nu=(0, 1, 0.1))
playground("adapt_a_sine")                 goes on in the browser, without the kernel
quiz("02"), progress()
"""

import contextlib
import os

import jax

from metalearn._cache import cache_directory
from metalearn.course.exercises.checking import check, hint
from metalearn.course.records.overview import export_progress, import_progress, progress
from metalearn.course.widgets.explorer import explore
from metalearn.course.widgets.forms import Prediction, predict, quiz
from metalearn.course.widgets.playgrounds import playground

__all__ = [
    "Prediction",
    "check",
    "explore",
    "export_progress",
    "hint",
    "import_progress",
    "playground",
    "predict",
    "progress",
    "quiz",
]

# Lessons compile hundreds of programs and run them on small arrays. Optimising each of them fully takes longer than it
# saves, and so does handing pieces of them to other processor cores. XLA reads both when the first array is made.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1".strip()
os.environ.setdefault("NPROC", "1")
# What a lesson compiles, its next run reads from disk.
if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):  # where nothing can be written, everything is compiled anew
        programs = cache_directory() / "compiled"
        programs.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(programs))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
