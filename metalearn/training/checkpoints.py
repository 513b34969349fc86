"""Checkpoints of a run, kept by Orbax: each is written whole or not at all, and never over those of another run."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

SECONDS_BETWEEN_SAVES = 10.0
"""A run that is killed loses at most so much work, and one compiled call."""


class CheckpointError(RuntimeError):
    """Raised by `fit` for a checkpoint that cannot be used, or could not be written; those on disk are as they were.

    Attributes:
      result: the FitResult up to there when writing failed, or None.
    """

    result: Any = None


class Checkpoints:
    """The checkpoints in one directory, of one run."""

    def __init__(self, directory: str | os.PathLike, run: dict, state: Any):
        """Nothing is written yet.

        Args:
          directory: where they are, or will be.
          run: what makes this run the one that it is, numbers and lists of numbers.
          state: the run's first state, or one like it.
        """
        import orbax.checkpoint as ocp  # here, since it takes two seconds

        self._ocp = ocp
        self._directory = Path(directory).absolute()
        self._state = state
        self._run = {**run, "state": _layout(state)}
        self._saved_at = time.monotonic()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except OSError as error:
            raise CheckpointError(f"checkpoint_dir {self._directory} cannot be used: {error}.") from error

    def restore(self) -> tuple[Any, dict[str, np.ndarray]] | None:
        """The last state and history, or None if there is no checkpoint yet."""
        args, step = self._ocp.args, self._manager.latest_step()
        if step is None:
            return None
        folder = self._directory / str(step)
        try:
            run = self._manager.restore(step, args=args.Composite(run=args.JsonRestore())).run
        except Exception as error:  # Orbax and its storage layer raise whatever they meet
            raise self._damaged(folder) from error
        for name, mine in self._run.items():
            if run.get(name) != mine:
                raise CheckpointError(
                    f"{folder} is of another run: its {name} is {_short(run.get(name))}, "
                    f"and here it is {_short(mine)}. Choose another checkpoint_dir, or call fit with what that run "
                    "was called with."
                )
        try:
            found = self._manager.restore(
                step, args=args.Composite(state=args.StandardRestore(self._state), history=args.StandardRestore())
            )
        except Exception as error:
            raise self._damaged(folder) from error
        if _checksum(found.state, found.history) != run["checksum"]:
            raise self._damaged(folder)
        return found.state, found.history

    def save(self, state: Any, history: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint, and then drops all but the last two."""
        args = self._ocp.args
        self._saved_at = time.monotonic()
        if int(state.step) == self._manager.latest_step():
            return
        try:
            self._manager.save(
                int(state.step),
                args=args.Composite(
                    state=args.StandardSave(state),
                    history=args.StandardSave(history),
                    run=args.JsonSave({**self._run, "checksum": _checksum(state, history)}),
                ),
            )
        except Exception as error:
            raise CheckpointError(
                f"The checkpoint of step {int(state.step)} could not be written to {self._directory}: {error}. "
                "Earlier checkpoints are as they were; what was reached is in this error's `result`."
            ) from error

    def due(self) -> bool:
        """Whether the last one is old enough for a new one; of several processes, the first one's clock decides."""
        due = time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES
        return bool(multihost_utils.broadcast_one_to_all(np.array(due)))

    def _damaged(self, folder: Path) -> CheckpointError:
        return CheckpointError(
            f"{folder} is damaged, or no checkpoint of fit. Nothing was changed. Move it away to go on from the "
            "checkpoint before it, if there is one, or choose another checkpoint_dir."
        )


def _layout(tree: Any) -> dict[str, str]:
    """Path -> dtype and shape of every array in a tree."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _checksum(*trees: Any) -> str:
    """SHA-256 of the numbers in the trees; the storage layer itself would not notice a flipped bit in an array.

    Arrays of which other processes hold a part are left out.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:197] + "..."
