"""`setup`: what a lesson changes in its process, in one visible call. `bar`: a wait that can be seen.

`script` and `machine` are for the modules that make the lessons' records.
"""

import argparse
import contextlib
import gc
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
from tqdm import tqdm

from metalearn._cache import cache_directory

FEWEST_TICKS = 10
FEWEST_OBJECTS = 70_000  # made since Python looked for garbage, before it does so again; about those of three pictures
Item = TypeVar("Item")


def setup() -> None:
    """Make this process quick at many small programs, as a lesson runs them; the first cell of a lesson calls it.

    XLA compiles with less optimization (`--xla_backend_optimization_level=1` in `XLA_FLAGS`) and on one processor core
    (`NPROC=1`), because to optimize hundreds of programs that run once costs more than it saves. Call it before the
    first array is made: XLA reads both then, and not again. What was compiled is kept on disk, in the user's cache
    directory, where the next run finds it. Whatever you have set yourself stays.

    Python looks for garbage less often, and not among what is loaded by now: every picture of a slider leaves some, and
    to look for it in all of JAX made pictures late.
    """
    if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1".strip()
    os.environ.setdefault("NPROC", "1")
    gc.freeze()
    if gc.get_threshold()[0] < FEWEST_OBJECTS:
        gc.set_threshold(FEWEST_OBJECTS)
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):  # where nothing can be written, everything is compiled anew
            programs = cache_directory() / "compiled"
            programs.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(programs))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def bar(items: Iterable[Item], what: str, seconds: float | None = None) -> Iterator[Item]:
    """Go through items behind a progress bar like that of `fit`; for whatever takes a learner more than three seconds.

    Args:
      items: at least ten, or the bar would stand still for too long; cut the work into smaller pieces.
      what: what is done, in a few words. It stands before the bar from the first moment.
      seconds: about how long all of it takes; told before it starts.

    Returns:
      An iterator over the items.

    Raises:
      ValueError: if there are fewer than ten items, what is empty, or seconds is not positive.
    """
    every = list(items)
    if len(every) < FEWEST_TICKS:
        raise ValueError(f"items must be at least {FEWEST_TICKS}, each a tick of the bar, but they are {len(every)}.")
    if not isinstance(what, str) or not what.strip():
        raise ValueError(f"what must say in a few words what is done, but it is {what!r:.60}.")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be positive, but it is {seconds!r:.60}.")
    label = what if seconds is None else f"{what}, about {seconds:.0f} s"
    shown = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"  # no rate of items
    often = min(0.5, (seconds or 5) / 20)
    return iter(tqdm(every, desc=label, file=sys.stdout, ncols=72, mininterval=often, bar_format=shown))


def machine() -> str:
    """What a record was made on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}"


def script(main: Callable[[], None]) -> None:
    """Runs a module as a program. It has no options, so that what it writes follows from its text."""
    module = sys.modules["__main__"]
    name = module.__spec__.name if module.__spec__ else module.__name__
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=module.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args()
    main()
