"""Fixtures of the teaching layer's tests."""

import math
import re

import pytest

from metalearn.course import lessons
from metalearn.course.exercises import relations
from metalearn.course.records import record


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """All that a wrong result may equal is tried, however slow the machine is."""
    monkeypatch.setattr(relations, "PATIENCE", math.inf)


@pytest.fixture
def progress_file(tmp_path, monkeypatch):
    """A learner's empty folder; the path at which progress will be stored."""
    monkeypatch.setattr(record, "_kept", None)
    path = tmp_path / "progress.json"
    monkeypatch.setattr(record, "PATH", path)
    return path


@pytest.fixture
def toy_lesson(tmp_path_factory, monkeypatch):
    """The course consists of lesson 99 alone, defined in toy.py."""
    folder = tmp_path_factory.mktemp("lessons")
    (folder / "lesson_99.py").write_text("from toy import EXERCISES, QUIZ\n")
    monkeypatch.setattr(lessons, "__path__", [str(folder)])


@pytest.fixture
def said(capsys):
    """What was shown since the last call, spaces and line ends made single."""
    return lambda: re.sub(r"\s+", " ", capsys.readouterr().out).strip()
