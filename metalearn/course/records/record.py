"""The learner's progress: one small JSON file beside the lessons, and nothing else.

`METALEARN_PROGRESS` names another file; either place is fixed when this module is imported. Several kernels may share
the file. No fault of the file stops a lesson: a damaged one is set aside, one that is not ours is left alone, and
where nothing can be written, progress lasts as long as the kernel.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

# Section -> the type of its entries, by id: exercise "02.meta_gradient", question "02.1", prediction "02.nudge".
SECTIONS = {"passed": str, "quiz": int, "predictions": dict}
PATIENCE = 5.0  # seconds to wait for another process; a lock that is older was left behind by one that was killed


class ForeignFile(ValueError):
    """A file of somebody else's: JSON, but not a record of progress."""


def _place() -> Path:
    place = Path(os.environ.get("METALEARN_PROGRESS") or "progress.json")
    with contextlib.suppress(OSError, RuntimeError):  # no current folder, or no home
        place = Path.cwd() / place.expanduser()
    return place


PATH = _place()  # a later change of the current folder does not move it
_kept: dict[str, Any] | None = None  # stands in for the file once that could not be used


def read() -> dict[str, Any]:
    """All sections: date of each pass, chosen option of each question, {"committed", "truth"} of each prediction."""
    if _kept is not None:
        return _kept
    with _locked(_file()):
        return _load()


def write(section: str, key: str, value: Any) -> None:
    """Store one entry; all others stay as they are, those that another kernel has just written included."""
    _change(lambda record: record[section].update({key: value}))


def merge(added: dict[str, Any]) -> None:
    """Store every entry of another record beside those that are here; the other one wins where both have one."""

    def change(record: dict[str, Any]) -> None:
        for section, entries in added.items():
            mine = record.get(section)
            record[section] = mine | entries if isinstance(mine, dict) and isinstance(entries, dict) else entries

    _change(change)


def parse(text: str) -> dict[str, Any]:
    """The record written by `dump`: missing sections are added empty, unknown ones of a newer version are kept.

    Raises:
      ForeignFile: if it is JSON, but nothing like a record.
      ValueError: if it is anything else.
    """
    try:
        record = json.loads(text.removeprefix("\ufeff"))
        dump(record, indent=1).encode(
            "utf-8"
        )  # what cannot be written again, such as half of a surrogate pair, is damage
    except RecursionError:
        raise ValueError("nested too deeply") from None
    ours = isinstance(record, dict) and (not record or any(isinstance(record.get(name), dict) for name in SECTIONS))
    if not ours:
        raise ForeignFile("not a record of progress")
    record = empty() | record
    for section, kind in SECTIONS.items():
        entries = record[section]
        if not isinstance(entries, dict) or not all(type(entry) is kind for entry in entries.values()):
            raise ValueError(f"no section {section!r}")
    for entry in record["predictions"].values():
        for name in ("committed", "truth"):
            if type(entry.get(name)) is int:  # 1 and 1.0 are one number in JSON
                entry[name] = float(entry[name])
        kind = type(entry.get("committed"))
        if not {"committed", "truth"} <= set(entry) or kind not in (float, str):
            raise ValueError("a prediction is neither a number nor an option")
        if entry["truth"] is not None and type(entry["truth"]) is not kind:
            raise ValueError("a prediction and its answer are of different kinds")
    return record


def dump(record: dict[str, Any], indent: int | None = None) -> str:
    """A record as JSON text."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True, indent=indent)


def empty() -> dict[str, Any]:
    """The record of a beginner."""
    return {section: {} for section in SECTIONS}


def _change(change: Callable[[dict[str, Any]], Any]) -> None:
    """Read, change and write as one operation."""
    if _kept is not None:
        change(_kept)
        return
    with _locked(_file()):
        record = _load()
        change(record)
        if record is not _kept:
            _store(record)


def _file() -> Path:
    """The file itself, where `PATH` is a symbolic link to it."""
    return Path(os.path.realpath(PATH))


def _load() -> dict[str, Any]:
    file = _file()
    try:
        if file.exists() and not file.is_file():  # reading a device or a pipe may never end
            raise OSError("it is not a regular file")
        return parse(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return empty()
    except ForeignFile:
        return _keep_in_memory(empty(), f"`{PATH.name}` is another program's file, and was left as it is.")
    except ValueError:
        return _set_aside(file)
    except OSError as error:
        return _keep_in_memory(empty(), _cannot_save(error))


def _store(record: dict[str, Any]) -> None:
    """Replace the file as a whole, so that a crash leaves the old one or the new one."""
    file = _file()
    # In the same directory, because a file can only be replaced atomically within one file system.
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        new.write_bytes(dump(record, indent=1).encode("utf-8"))
        with contextlib.suppress(OSError):  # there is no old one, or the file system knows no permissions
            shutil.copymode(file, new)
        os.replace(new, file)
    except OSError as error:
        _keep_in_memory(record, _cannot_save(error))
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other processes from the file, by a lock file beside it that is gone afterwards.

    Whoever has waited for `PATIENCE` seconds goes on without: a lost entry is better than a lesson that stands still.
    Where no lock can be made, there is none.
    """
    lock = file.with_name(f".{file.name}.lock")
    deadline = time.monotonic() + PATIENCE
    held = None
    while held is None:
        try:
            held = _acquire(lock)
        except BlockingIOError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        except OSError:
            break
    try:
        yield
    finally:
        if held is not None:
            with contextlib.suppress(OSError):
                _release(lock, held)


def _acquire(lock: Path) -> int:
    """An open lock file that is ours alone.

    Raises:
      BlockingIOError: if it is another's.
    """
    if fcntl is None:
        try:
            return os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except (FileExistsError, PermissionError) as error:  # Windows denies access to a file that is being deleted
            with contextlib.suppress(OSError):
                if time.time() - lock.stat().st_mtime > PATIENCE:
                    lock.unlink()
            raise BlockingIOError(*error.args) from None
    # The system frees this lock when its holder dies, so that none is ever stale.
    held = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(held), os.stat(lock)):
            raise BlockingIOError("its last holder has deleted it meanwhile")
    except FileNotFoundError as error:
        os.close(held)
        raise BlockingIOError(*error.args) from None
    except BaseException:
        os.close(held)
        raise
    return held


def _release(lock: Path, held: int) -> None:
    if fcntl is None:
        os.close(held)  # Windows deletes no file that is open
        lock.unlink()
    else:
        try:
            lock.unlink()  # first, or another process could hold it by then
        finally:
            os.close(held)


def _set_aside(file: Path) -> dict[str, Any]:
    stamp = f"{file.stem}.damaged-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        aside = _unused(file.with_name(stamp + file.suffix))
        os.replace(file, aside)
    except OSError as error:
        return _keep_in_memory(empty(), _cannot_save(error))
    where = aside.name if aside.parent == PATH.parent else str(aside)
    _tell(f"The progress file `{PATH.name}` could not be read. It was set aside as `{where}`, and a new one begins.")
    return empty()


def _unused(path: Path) -> Path:
    """A new empty file of this name, or of the same with a number."""
    number, free = 1, path
    while True:
        try:
            free.touch(exist_ok=False)
            return free
        except FileExistsError:
            number += 1
            free = path.with_name(f"{path.stem}-{number}{path.suffix}")


def _cannot_save(error: OSError) -> str:
    return f"Progress cannot be saved in `{PATH.name}` ({error.strerror or error})."


def _keep_in_memory(record: dict[str, Any], reason: str) -> dict[str, Any]:
    global _kept
    _kept = record
    _tell(
        f"{reason} Your progress is remembered until the kernel stops; `export_progress()` gives you a text to keep. "
        "To keep it in another file, set the environment variable `METALEARN_PROGRESS` before you start Jupyter."
    )
    return record


def _tell(text: str) -> None:
    from metalearn.course.widgets.display import show_markdown  # the file alone needs neither Jupyter nor JAX

    show_markdown(text)
