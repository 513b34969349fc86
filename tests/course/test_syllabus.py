"""The table of the course, and all that is made from it."""

import os
from pathlib import Path

import pytest

from metalearn.course import __main__ as command
from metalearn.course import syllabus
from metalearn.course.exercises import exercise
from metalearn.course.publishing import page
from metalearn.course.publishing.site import MAP

ROOT = Path(__file__).parents[2]


def test_the_table_holds_the_lessons_that_exist_and_no_other():
    stems = [lesson.stem for lesson in syllabus.LESSONS]
    assert stems == sorted(path.stem for path in (ROOT / "solutions").glob("[0-9][0-9]_*.py"))
    assert [lesson.number for lesson in syllabus.LESSONS] == exercise.numbers()


def test_a_lesson_needs_only_lessons_before_it():
    for lesson in syllabus.LESSONS:
        assert all(needed < lesson.number and syllabus.find(needed) for needed in lesson.needs)


def test_a_claim_is_a_sentence_and_fits_a_row():
    for lesson in syllabus.LESSONS:
        assert lesson.claim.endswith(".") and len(lesson.claim) < 180 and "|" not in lesson.claim


def test_a_number_without_a_lesson_is_none():
    assert syllabus.find("99") is None


def test_the_readme_has_the_map():
    assert page.course_map("lessons/") in (ROOT / "README.md").read_text("utf-8")


def test_the_site_has_a_place_for_the_map():
    assert (ROOT / "metalearn/course/publishing/site/index.md").read_text("utf-8").count(MAP) == 1


@pytest.mark.parametrize("slug", ["", "maml", "02_maml"])
def test_the_course_opens_in_the_learners_copy(tmp_path, monkeypatch, slug):
    started = []
    monkeypatch.setattr("jupyterlab.labapp.main", started.append)
    assert command.main(_open(tmp_path, slug)) == 0
    name = "02_maml" if slug else "00_start_here"
    (options,) = started
    assert f"--ServerApp.root_dir={tmp_path / 'my-lessons'}" in options
    assert f"--LabApp.default_url=/lab/tree/{name}.ipynb" in options


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there is no root here")
@pytest.mark.parametrize("user", [0, 1000])
def test_only_root_is_told_so_and_allowed(tmp_path, monkeypatch, capsys, user):
    started = []
    monkeypatch.setattr("jupyterlab.labapp.main", started.append)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert command.main(_open(tmp_path, "")) == 0
    assert ("--ServerApp.allow_root=True" in started[0]) == (user == 0)
    assert ("You are root" in capsys.readouterr().out) == (user == 0)


def _open(root, slug):
    (root / "lessons").mkdir()
    for lesson in syllabus.LESSONS:
        (root / f"lessons/{lesson.stem}.ipynb").write_text("{}")
    return ["open", *filter(None, [slug]), "--root", str(root)]


@pytest.mark.parametrize(("slug", "message"), [("calculus", "no such lesson: calculus"), ("maml", "no lessons under")])
def test_what_cannot_be_opened_is_said(tmp_path, capsys, slug, message):
    with pytest.raises(SystemExit):
        command.main(["open", slug, "--root", str(tmp_path)])
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
