"""Checkpoints of a run, kept by Orbax: each is written whole or not at all, and never over those of another run."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from metalearn.training import fingerprint

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

SECONDS_BETWEEN_SAVES = 10.0
"""A run that is killed loses at most so much work, and one compiled call."""
_SUMS = "SHA256SUMS"
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")
_CAUSES = {
    "meta_batch_size": ("sampler", "learner"),
    "settings of jax": ("sampler", "learner"),
    "state": ("initial parameters", "initial state"),
    "initial parameters": ("initial state",),
}
_MEANING = {
    "sampler": "draws other tasks (the sampler, its settings or its data)",
    "learner": "computes another step (loss, meta-gradient, inner or outer optimizer, or one of their numbers)",
    "initial parameters": "have other values",
    "initial state": "has other values in its optimizer or memory",
}


class CheckpointError(RuntimeError):
    """Raised by `fit` for a checkpoint that cannot be used, or could not be written; those on disk are as they were.

    Attributes:
      result: the FitResult up to there when writing failed, or None.

    Example: see `TasksEndedError`, which is caught alike.
    """

    result: Any = None


class Checkpoints:
    """The checkpoints in one directory, of one run, and a lock that keeps other processes out of it."""

    def __init__(self, directory: str | os.PathLike[str], run: dict[str, Any], learner: Callable[[], str], state: Any):
        """Takes the lock; nothing else is written yet.

        Args:
          directory: where they are, or will be, an absolute path.
          run: what makes this run the one that it is: a name for each aspect, and its value or fingerprint.
          learner: gives the fingerprint of the step; called when it is needed, since the step has to be traced for it.
          state: the run's first state.
        """
        import orbax.checkpoint as ocp  # here, since it takes two seconds

        self._ocp = ocp
        self._directory = Path(directory)
        self._state = state
        self._learner = functools.cache(learner)
        self._run = {
            "state": _layout(state),
            **run,
            "initial parameters": fingerprint.of_arrays(state.params),
            "initial state": fingerprint.of_arrays(state),
            "settings of jax": {name: str(getattr(jax.config, name)) for name in _SETTINGS},
        }
        self._versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")}
        self._saved_at = time.monotonic()
        self._lock = _lock(self._directory)
        steps = [folder for folder in self._directory.iterdir() if folder.name.isdecimal() and folder.is_dir()]
        newest = max(steps, key=lambda folder: int(folder.name), default=None)
        # Orbax takes any folder with a number for a name for one of its own, and complains in its log. An older
        # one may be what a killed run had begun to drop.
        if newest and not (newest / "_CHECKPOINT_METADATA").is_file():
            self._lock.close()
            raise self._damaged(newest)
        self._manager = ocp.CheckpointManager(self._directory, options=self._options(cleanup_tmp_directories=False))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()
        self._lock.close()

    def restore(self) -> tuple[Any, dict[str, np.ndarray], str | None] | None:
        """The last state and history and the mark of the tasks, or None if there is no checkpoint yet."""
        with uninterrupted() as interrupts:
            found = self._restore()
        if interrupts:
            raise KeyboardInterrupt
        # From here on the directory belongs to this run, and what a killed one left half written can go.
        self._manager.close()
        self._manager = self._ocp.CheckpointManager(
            self._directory, options=self._options(cleanup_tmp_directories=True)
        )
        return found

    def save(self, state: Any, history: dict[str, np.ndarray], mark: str | None) -> None:
        """Writes a checkpoint, and then drops all but the last two."""
        args, step = self._ocp.args, int(state.step)
        self._saved_at = time.monotonic()
        if step == self._manager.latest_step():
            return
        run = {
            **self._run,
            "learner": self._learner(),
            "versions": self._versions,
            "mark": mark,
            "checksum": fingerprint.of_arrays(state, history),
        }
        try:
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave(state),
                    history=args.StandardSave(history),
                    run=args.JsonSave(run),
                ),
            )
            if jax.process_index() == 0:
                _write_sums(self._directory / str(step))
        except Exception as error:
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to {self._directory}: {error}. "
                "Earlier checkpoints are as they were; what was reached is in this error's `result`."
            ) from error

    def due(self) -> bool:
        """Whether the last one is old enough for a new one; of several processes, the first one's clock decides."""
        due = time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES
        return bool(multihost_utils.broadcast_one_to_all(np.array(due)))

    def _restore(self):
        args, step = self._ocp.args, self._manager.latest_step()
        if step is None:
            return None
        folder = self._directory / str(step)
        if not _intact(folder):  # Orbax would find out too, but not without a page of warnings
            raise self._damaged(folder)
        try:
            run = self._manager.restore(step, args=args.Composite(run=args.JsonRestore())).run
        except Exception as error:  # Orbax and its storage layer raise whatever they meet
            raise self._damaged(folder) from error
        self._compare(folder, run)
        try:
            found = self._manager.restore(
                step, args=args.Composite(state=args.StandardRestore(self._state), history=args.StandardRestore())
            )
        except Exception as error:
            raise self._damaged(folder) from error
        if fingerprint.of_arrays(found.state, found.history) != run["checksum"]:
            raise self._damaged(folder)
        return found.state, found.history, run["mark"]

    def _compare(self, folder, run):
        """Raises CheckpointError if the checkpoint is of another run, and says what is different."""
        different = [name for name, mine in self._run.items() if run.get(name) != mine]
        if "state" not in different and run.get("learner") != self._learner():
            different.append("learner")
        for cause in _CAUSES:
            if cause in different:  # then these are different as well, and nobody wonders why
                different = [name for name in different if name not in _CAUSES[cause]]
        if not different:
            return
        details = "; ".join(
            f"its {name} {_MEANING[name]}"
            if name in _MEANING
            else f"its {name} is {_short(run.get(name))}, and here it is {_short(self._run[name])}"
            for name in different
        )
        other = ", ".join(
            f"{name} {version}" for name, version in run.get("versions", {}).items() if version != self._versions[name]
        )
        if other:
            details += f". It was written with {other}, and another version may compute the same in another way"
        raise CheckpointError(
            f"{folder} is of another run: {details}. Nothing was changed. Choose another checkpoint_dir, "
            "or call fit with what that run was called with."
        )

    def _options(self, **options):
        return self._ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False, **options)

    def _damaged(self, folder: Path) -> CheckpointError:
        return CheckpointError(
            f"{folder} is damaged, or no checkpoint of fit. Nothing was changed. Move it away to go on from the "
            "checkpoint before it, if there is one, or choose another checkpoint_dir."
        )


@contextlib.contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Ctrl-C waits until the block has ended. Yields a list, in which each of them is noted."""
    heard: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield heard  # somebody else decides what Ctrl-C does
        return
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def local(directory: Any) -> Path:
    """The absolute path of a directory of this machine."""
    if not isinstance(directory, (str, os.PathLike)) or not isinstance(os.fspath(directory), str):
        raise TypeError(f"checkpoint_dir must be a path, but it is a {type(directory).__name__}.")
    text = os.fspath(directory)
    if not text.strip() or "\0" in text or "://" in text:
        raise ValueError(f"checkpoint_dir must be the path of a directory on a mounted disk, but it is {text!r}.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~somebody
        raise ValueError(f"checkpoint_dir {text!r} cannot be expanded: {error}") from None


def _lock(directory: Path) -> contextlib.ExitStack:
    """Makes the directory and locks it; of several processes of one run, the first does so for all."""
    error, lock = None, contextlib.ExitStack()
    if jax.process_index() == 0:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            error = _locked(directory / "lock", lock)
        except OSError as cause:
            error = f"checkpoint_dir {directory} cannot be used: {cause}."
    if multihost_utils.broadcast_one_to_all(np.array(error is not None)):
        raise CheckpointError(error or f"checkpoint_dir {directory} cannot be used; the first process says why.")
    return lock


def _locked(path: Path, lock: contextlib.ExitStack) -> str | None:
    """Locks a file until `lock` is closed, or the process has ended in whatever way; or says who else does."""
    if fcntl is None:  # Windows
        return None
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read().strip() or "another process"
            return f"checkpoint_dir {path.parent} is in use by {owner}. Choose another one for this run."
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # its owner removed it between the two lines above
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    lock.callback(file.close)
    lock.callback(path.unlink, missing_ok=True)  # called before the lock is given up
    return None


def _write_sums(folder: Path) -> None:
    """Writes the SHA-256 of every file of a checkpoint, as the command sha256sum does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SUMS)
    lines = [f"{_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    unfinished = folder / f"{_SUMS}.tmp"
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(folder / _SUMS)


def _intact(folder: Path) -> bool:
    """Whether every file is as it was written. Killed just before, a run leaves no sums: then Orbax has to find out."""
    if not (folder / _SUMS).exists():
        return (folder / "run").is_dir()
    try:
        lines = [line.split("  ", 1) for line in (folder / _SUMS).read_text(encoding="utf-8").splitlines()]
        return bool(lines) and all(_sum(folder / name) == checksum for checksum, name in lines)
    except (OSError, ValueError):
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _layout(tree: Any) -> dict[str, str]:
    """Path -> dtype and shape of every array in a tree."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:197] + "..."
