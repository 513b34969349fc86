"""The learner's copy of the lessons: a folder of their own, so that work and updates of the course never collide.

lessons/02_maml.ipynb  ->  my-lessons/02_maml.ipynb            copied once; brought up to date until it is changed
                       ->  my-lessons/02_maml-1f3a9c.ipynb     a newer lesson beside one that the learner has changed
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

FOLDER = "my-lessons"
GIVEN = ".given.json"  # name -> digest of what was copied, by which a file that the learner has changed is known
PROGRESS = "progress.json"


def update(root: Path) -> list[str]:
    """Copies what is new in `root/lessons` to `root/my-lessons`; no file that the learner has changed is touched.

    Args:
      root: the folder that holds `lessons/`.
    Returns:
      One sentence for each lesson of which there is a newer one beside the learner's.
    Raises:
      ValueError: if there are no lessons.
    """
    lessons = sorted(path for path in (root / "lessons").glob("*.*") if path.suffix in (".ipynb", ".md"))
    if not lessons:
        raise ValueError(
            f"no lessons under {root.resolve()}; run this in the course's repository, or name its folder with --root"
        )
    mine = root / FOLDER
    mine.mkdir(exist_ok=True)
    record = mine / GIVEN
    try:
        given = json.loads(record.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # without the record every copy counts as changed, and is left as it is
        given = {}
    told = []
    for lesson in lessons:
        copy, digest = mine / lesson.name, _digest(lesson)
        if not copy.exists() or _digest(copy) == given.get(lesson.name):
            _replace(copy, lesson)
        elif digest not in (given.get(lesson.name), _digest(copy)):
            beside = copy.with_name(f"{copy.stem}-{digest[:6]}{copy.suffix}")
            if not beside.exists():
                _replace(beside, lesson)
            told.append(f"{lesson.name} has changed since you began it. Yours is kept; the newer one is {beside.name}.")
        given[lesson.name] = digest
    record.write_text(json.dumps(given, indent=1, sort_keys=True), "utf-8")
    before = root / "lessons" / PROGRESS  # of those who worked there
    if before.exists() and not (mine / PROGRESS).exists():
        shutil.copy(before, mine / PROGRESS)
    return told


def _replace(copy: Path, lesson: Path) -> None:
    """Copies the whole file or nothing."""
    partial = copy.with_name(copy.name + ".partial")
    shutil.copyfile(lesson, partial)
    os.replace(partial, copy)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
