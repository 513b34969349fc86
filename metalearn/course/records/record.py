"""The learner's progress: one small JSON file beside the lessons, and nothing else.

`METALEARN_PROGRESS` names another file. No fault of the file stops a lesson: a damaged one is set aside, and
where nothing can be written, progress lasts as long as the kernel.
"""

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from metalearn.course.widgets.display import show_markdown

# Section -> the type of its entries, by id: exercise "02.meta_gradient", question "02.1", prediction "02.nudge".
SECTIONS = {"passed": str, "quiz": int, "predictions": dict}

_kept: dict[str, Any] | None = None  # stands in for the file once it could not be written


def read() -> dict[str, Any]:
    """All sections: date of each pass, chosen option of each question, {"committed", "truth"} of each prediction."""
    if _kept is not None:
        return _kept
    path = _path()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty()
    except ValueError:
        _set_aside(path)
        return empty()
    except OSError as error:
        _keep_in_memory(empty(), path, error)
        return read()


def write(section: str, key: str, value: Any) -> None:
    """Store one entry. The file is replaced as a whole, so that a crash leaves the old one or the new one."""
    record = read()
    record[section][key] = value
    replace(record)


def replace(record: dict[str, Any]) -> None:
    """Store a whole record."""
    if _kept is not None:
        _kept.update(record)
        return
    path = _path()
    # In the same directory, because a file can only be replaced atomically within one file system.
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(dump(record, indent=1), encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        _keep_in_memory(record, path, error)


def parse(text: str) -> dict[str, Any]:
    """The record written by `dump`.

    Raises:
      ValueError: if it is anything else.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not a record of progress")
    for section, kind in SECTIONS.items():
        entries = record.get(section)
        if not isinstance(entries, dict) or not all(isinstance(entry, kind) for entry in entries.values()):
            raise ValueError(f"no section {section!r}")
    for entry in record["predictions"].values():
        kind = type(entry.get("committed"))
        if set(entry) != {"committed", "truth"} or kind not in (float, str):
            raise ValueError("a prediction is neither a number nor an option")
        if entry["truth"] is not None and type(entry["truth"]) is not kind:
            raise ValueError("a prediction and its answer are of different kinds")
    return {section: record[section] for section in SECTIONS}


def dump(record: dict[str, Any], indent: int | None = None) -> str:
    """A record as JSON text."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True, indent=indent)


def empty() -> dict[str, Any]:
    """The record of a beginner."""
    return {section: {} for section in SECTIONS}


def _path() -> Path:
    return Path(os.environ.get("METALEARN_PROGRESS", "progress.json"))


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.stem}.damaged-{datetime.now():%Y%m%d-%H%M%S}{path.suffix}")
    try:
        path.replace(aside)
    except OSError as error:
        _keep_in_memory(empty(), path, error)
        return
    show_markdown(
        f"The progress file `{path.name}` could not be read. It was set aside as `{aside.name}`, and a new one begins."
    )


def _keep_in_memory(record: dict[str, Any], path: Path, error: OSError) -> None:
    global _kept
    _kept = record
    show_markdown(
        f"Progress cannot be saved in `{path.name}` ({error.strerror}). It is remembered until the kernel stops; "
        "`export_progress()` gives you a text to keep."
    )
