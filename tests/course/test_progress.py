"""Progress survives a damaged file, a folder that cannot be written, and a move to another machine."""

import json
import os
import re
from pathlib import Path

import pytest
from toy import PAIR, scaled_mean

from metalearn.course import check, export_progress, import_progress, progress
from metalearn.course.records import record
from metalearn.course.widgets.display import show_html

pytestmark = pytest.mark.usefixtures("progress_file", "toy_lesson")


def _fill():
    record.write("passed", "99.pair", "2031-01-01")
    record.write("quiz", "99.1", 1)
    record.write("quiz", "99.2", 1)
    record.write("predictions", "99.number", {"committed": 0.5, "truth": 0.4})
    record.write("predictions", "99.other", {"committed": 3.0, "truth": 3.0})
    record.write("predictions", "99.third", {"committed": 3.0, "truth": 2.0})
    record.write("predictions", "99.choice", {"committed": "a", "truth": "a"})
    record.write("predictions", "99.wrong", {"committed": "a", "truth": "b"})
    record.write("predictions", "99.open", {"committed": 1.5, "truth": None})


def test_a_beginner_sees_an_empty_table(said, progress_file):
    progress()
    assert said() == (
        "Progress lesson exercises passed quiz answers right 99 0 of 2 0 of 3 "
        "Calibration: no prediction has been compared yet."
    )
    assert not progress_file.exists()


@pytest.mark.parametrize("lesson", [None, "99"])
def test_the_table_counts_what_was_done(said, lesson):
    _fill()
    progress(lesson)
    shown = said()
    assert "99 1 of 2 1 of 3" in shown
    assert "99.number 0.5 0.4" in shown
    assert "99.open 1.5 not seen yet" in shown
    assert (
        "Calibration: of your choices, 1 of 2 was right; half of your numbers were within 25% of the answer." in shown
    )


def test_predictions_of_other_lessons_are_left_out(said):
    record.write("predictions", "98.number", {"committed": 0.5, "truth": 0.4})
    progress("99")
    assert "98.number" not in said()


def test_an_unknown_lesson_is_an_error():
    with pytest.raises(ValueError, match="no lesson has the number '42'"):
        progress("42")


def test_the_table_is_html_that_says_what_its_headers_are(monkeypatch):
    _fill()
    record.write("predictions", "99.choice", {"committed": "<b>", "truth": "<b>"})
    shown = []
    monkeypatch.setattr("metalearn.course.records.overview.show_html", lambda text, plain: shown.append(text))
    progress()
    (text,) = shown
    assert text.count("<table>") == text.count("<caption>") == 2
    assert '<th scope="col">exercises passed</th>' in text
    assert '<th scope="row">99.choice</th><td>&lt;b&gt;</td>' in text
    assert "color" not in text  # the theme's own colours have enough contrast, in the light and in the dark


def test_progress_moves_as_text(said, progress_file):
    _fill()
    text = export_progress()
    progress_file.unlink()
    record.write("passed", "99.scaled_mean", "2031-01-02")
    record.write("quiz", "99.1", 0)
    import_progress(text)
    assert said() == "Progress added: 1 passed exercises, 6 predictions."
    merged = record.read()
    assert set(merged["passed"]) == {"99.pair", "99.scaled_mean"}
    assert merged["quiz"] == {"99.1": 1, "99.2": 1}


WRONG = [
    "",
    "{",
    "[]",
    "{}",
    '{"passed": [], "quiz": {}, "predictions": {}}',
    '{"passed": {}, "quiz": {"99.1": "b"}, "predictions": {}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {}}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {"committed": [], "truth": null}}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {"committed": 1.0, "truth": "b"}}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {"committed": 1.0, "truth": 1.0, "more": 1}}}',
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_text_changes_nothing(said, text):
    _fill()
    before = record.read()
    import_progress(text)
    assert "Nothing was changed" in said()
    assert record.read() == before


@pytest.mark.parametrize("content", [*(text.encode() for text in WRONG), b"\xff\xfe\x00"])
def test_a_damaged_file_is_set_aside(said, progress_file, content):
    progress_file.write_bytes(content)
    check("99.scaled_mean", scaled_mean)
    assert re.search(r"could not be read\. It was set aside as `progress\.damaged-\d{8}-\d{6}\.json`", said())
    (aside,) = progress_file.parent.glob("progress.damaged-*.json")
    assert aside.read_bytes() == content
    assert set(record.read()["passed"]) == {"99.scaled_mean"}


def test_the_file_is_replaced_as_a_whole(progress_file, monkeypatch):
    _fill()
    before = progress_file.read_bytes()

    def crash(source, target):
        assert json.loads(Path(source).read_text())["quiz"]["99.3"] == 2
        assert progress_file.read_bytes() == before
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(os, "replace", crash)
        record.write("quiz", "99.3", 2)
    assert progress_file.read_bytes() == before
    record.write("quiz", "99.3", 2)
    assert record.read()["quiz"]["99.3"] == 2
    assert [path.name for path in progress_file.parent.iterdir()] == [progress_file.name]


def _forbid_writing(progress_file, monkeypatch):
    """A read-only folder, also for root, whom permissions do not bind."""

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(os, "replace", refuse)


def _name_a_folder(progress_file, monkeypatch):
    progress_file.mkdir()


def _name_a_missing_folder(progress_file, monkeypatch):
    monkeypatch.setenv("METALEARN_PROGRESS", str(progress_file.parent / "missing" / "progress.json"))


@pytest.mark.parametrize("hinder", [_forbid_writing, _name_a_folder, _name_a_missing_folder])
def test_without_a_writable_file_progress_lasts_as_long_as_the_kernel(said, progress_file, monkeypatch, hinder):
    hinder(progress_file, monkeypatch)
    check("99.scaled_mean", scaled_mean)
    check("99.pair", PAIR.reference)
    shown = said()
    assert shown.count("Progress cannot be saved") == 1
    assert shown.count("Passed") == 2
    progress()
    assert "99 2 of 2" in said()
    assert "99.pair" in export_progress()
    import_progress('{"passed": {"98.old": "2031-01-01"}, "quiz": {}, "predictions": {}}')
    assert "98.old" in export_progress()


def test_a_damaged_file_that_cannot_be_moved(said, progress_file, monkeypatch):
    progress_file.write_text("{")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    progress()
    assert "Progress cannot be saved in `progress.json` (Permission denied)" in said()
    assert progress_file.read_text() == "{"


def test_plain_text_outside_a_notebook(capsys):
    show_html("<b>bold</b>", "bold")
    assert capsys.readouterr().out == "bold\n"
