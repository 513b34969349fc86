"""The learner's copy of the lessons: nothing that was written in it is ever lost."""

import subprocess
from pathlib import Path

import pytest

from metalearn.course.records import copy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    """A course of two lessons and a page, as its authors give it out."""
    (tmp_path / "lessons").mkdir()
    for name in ("00_a.ipynb", "01_b.ipynb", "contents.md"):
        give(tmp_path, name, f"{name}, first edition")
    return tmp_path


def give(root, name, text):
    (root / "lessons" / name).write_text(text)


def mine(root):
    return {path.name: path.read_text() for path in (root / copy.FOLDER).iterdir() if path.name != copy.GIVEN}


def test_the_first_start_copies_everything(root):
    assert copy.update(root) == []
    assert mine(root) == {name: f"{name}, first edition" for name in ("00_a.ipynb", "01_b.ipynb", "contents.md")}


def test_an_update_brings_what_is_new_and_what_was_not_touched(root):
    copy.update(root)
    give(root, "00_a.ipynb", "second edition")
    give(root, "02_c.ipynb", "new")
    assert copy.update(root) == []
    assert mine(root)["00_a.ipynb"] == "second edition" and mine(root)["02_c.ipynb"] == "new"


def test_an_update_of_a_lesson_in_work_stands_beside_it_and_is_told(root):
    copy.update(root)
    (root / copy.FOLDER / "00_a.ipynb").write_text("my solution")
    assert copy.update(root) == []  # there is no newer one
    give(root, "00_a.ipynb", "second edition")
    (told,) = copy.update(root)
    (beside,) = mine(root).keys() - {"00_a.ipynb", "01_b.ipynb", "contents.md"}
    assert told == f"00_a.ipynb has changed since you began it. Yours is kept; the newer one is {beside}."
    assert mine(root)["00_a.ipynb"] == "my solution" and mine(root)[beside] == "second edition"
    (root / copy.FOLDER / beside).write_text("my second solution")
    assert copy.update(root) == []  # it is told once
    give(root, "00_a.ipynb", "third edition")
    copy.update(root)
    assert {"my solution", "my second solution", "third edition"} <= set(mine(root).values())


def test_without_a_record_everything_counts_as_changed(root):
    copy.update(root)
    (root / copy.FOLDER / copy.GIVEN).write_text("{")
    give(root, "00_a.ipynb", "second edition")
    assert len(copy.update(root)) == 1
    assert mine(root)["00_a.ipynb"] == "00_a.ipynb, first edition"


def test_a_lesson_that_was_deleted_comes_back(root):
    copy.update(root)
    (root / copy.FOLDER / "00_a.ipynb").unlink()
    copy.update(root)
    assert mine(root)["00_a.ipynb"] == "00_a.ipynb, first edition"


def test_progress_made_beside_the_lessons_comes_along_once(root):
    give(root, "progress.json", "old")
    copy.update(root)
    (root / copy.FOLDER / "progress.json").write_text("newer")
    copy.update(root)
    assert mine(root)["progress.json"] == "newer"


def git(folder, *arguments):
    name = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    ran = subprocess.run(["git", *name, *arguments], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_work_on_a_lesson_changes_no_tracked_file_and_a_pull_loses_nothing(root, tmp_path_factory):
    (root / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first edition")
    learner = tmp_path_factory.mktemp("learner") / "course"
    git(root, "clone", "-q", str(root), str(learner))
    copy.update(learner)
    (learner / copy.FOLDER / "00_a.ipynb").write_text("my solution")
    assert git(learner, "status", "--porcelain") == ""
    give(root, "00_a.ipynb", "second edition")
    git(root, "commit", "-qam", "second edition")
    git(learner, "pull", "-q")
    assert len(copy.update(learner)) == 1
    assert mine(learner)["00_a.ipynb"] == "my solution" and "second edition" in mine(learner).values()
    assert git(learner, "status", "--porcelain") == ""
