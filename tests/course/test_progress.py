"""Progress survives a damaged file, a folder that cannot be written, and a move to another machine."""

import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from toy import PAIR, QUIZ, scaled_mean

from metalearn import plots
from metalearn.course import check, export_progress, import_progress, progress, syllabus
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
        "lesson exercises quiz 99 · a lesson 0 of 2 0 of 3 → begin here Your predictions: none has been compared yet."
    )
    assert not progress_file.exists()


@pytest.mark.parametrize("lesson", [None, "99"])
def test_the_table_counts_what_was_done(said, lesson):
    _fill()
    progress(lesson)
    shown = said()
    assert f"99 · a lesson 1 of 2 1 of 3 {'begun' if lesson else '→ go on here'}" in shown
    assert "99.number 0.5 0.4" in shown
    assert "99.open 1.5 not seen yet" in shown
    assert (
        "Your predictions: of your choices, 1 of 2 was right; half of your numbers were within 25% of the answer."
        in shown
    )


def test_predictions_of_other_lessons_are_left_out(said):
    record.write("predictions", "98.number", {"committed": 0.5, "truth": 0.4})
    progress("99")
    assert "98.number" not in said()


def test_an_unknown_lesson_is_an_error():
    with pytest.raises(ValueError, match="no lesson has the number '42'"):
        progress("42")


def test_the_map_is_html_that_says_in_words_what_it_shows(monkeypatch):
    _fill()
    record.write("predictions", "99.choice", {"committed": "<b>", "truth": "<b>"})
    shown = []
    monkeypatch.setattr("metalearn.course.records.overview.show_html", lambda text, plain: shown.append(text))
    progress()
    (text,) = shown
    assert text.count("<table>") == 1
    assert '<th scope="col">the answer</th>' in text
    assert '<th scope="row">99.choice</th><td>&lt;b&gt;</td>' in text
    card = re.sub(r"<[^>]*>", " ", re.search("<li.*?</li>", text)[0])
    assert " ".join(card.split()) == "99 · a lesson → go on here 1 of 2 exercises, 1 of 3 quiz answers"
    assert 'style="width: 40%"' in text
    assert set(re.findall("#[0-9a-f]{6}", text)) == set(re.findall("#[0-9a-f]{6}", plots.PALETTE_CSS))  # in both themes


def test_a_finished_lesson_says_so(said):
    for name in ("99.pair", "99.scaled_mean"):
        record.write("passed", name, "2031-01-01")
    for number, question in enumerate(QUIZ, 1):
        record.write("quiz", f"99.{number}", question.answer)
    progress()
    assert "99 · a lesson 2 of 2 3 of 3 ✓ done" in said()


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


DAMAGED = [
    "",
    "{",
    '{"passed": [], "quiz": {}, "predictions": {}}',
    '{"passed": {}, "quiz": {"99.1": "b"}, "predictions": {}}',
    '{"passed": {}, "quiz": {"99.1": true}, "predictions": {}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {}}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {"committed": [], "truth": null}}}',
    '{"passed": {}, "quiz": {}, "predictions": {"99.x": {"committed": 1.0, "truth": "b"}}}',
    r'{"passed": {"\ud800": "2031-01-01"}}',
    '{"passed": {}, "later": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"passed": {}, "later": 1' + "0" * 5_000 + "}",
]
FOREIGN = ["[]", "3", '"passed"', '{"epoch": 3}', '{"passed": true, "tests": 12}']


@pytest.mark.parametrize("text", [*DAMAGED, *FOREIGN])
def test_a_wrong_text_changes_nothing(said, text):
    _fill()
    before = record.read()
    import_progress(text)
    assert "Nothing was changed" in said()
    assert record.read() == before


@pytest.mark.parametrize("text", [None, 3, b"{}", {"passed": {}}])
def test_progress_that_is_no_text_is_refused(text):
    with pytest.raises(TypeError, match=f"text must be the string .* but it is a {type(text).__name__}"):
        import_progress(text)


@pytest.mark.parametrize("content", [*(text.encode() for text in DAMAGED), b"\xff\xfe\x00"])
def test_a_damaged_file_is_set_aside(said, progress_file, content):
    progress_file.write_bytes(content)
    record.write("passed", "99.scaled_mean", "2031-01-01")
    assert re.search(r"could not be read\. It was set aside as `progress\.damaged-\d{8}-\d{6}\.json`", said())
    (aside,) = progress_file.parent.glob("progress.damaged-*.json")
    assert aside.read_bytes() == content
    assert set(record.read()["passed"]) == {"99.scaled_mean"}
    assert {path.name for path in progress_file.parent.iterdir()} == {progress_file.name, aside.name}


def test_two_damages_in_one_second_are_both_kept(said, progress_file, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls):
            return cls(2031, 1, 1)

    monkeypatch.setattr(record, "datetime", Clock)
    for content in ("{", "{{", "{{{"):
        progress_file.write_text(content)
        record.read()
    assert {path.name: path.read_text() for path in progress_file.parent.iterdir()} == {
        "progress.damaged-20310101-000000.json": "{",
        "progress.damaged-20310101-000000-2.json": "{{",
        "progress.damaged-20310101-000000-3.json": "{{{",
    }
    assert "`progress.damaged-20310101-000000-3.json`" in said()


def test_what_is_nested_deeply_is_kept_or_set_aside_and_never_an_error(progress_file):
    """Between the two is a depth at which Python's recursion can still read, but no longer write."""
    for depth in range(300, 1_200, 150):
        progress_file.write_text('{"passed": {}, "later": ' + "[" * depth + "]" * depth + "}")
        record.write("quiz", "99.1", depth)
        assert record.read()["quiz"] == {"99.1": depth}
    assert record._kept is None


@pytest.mark.parametrize("content", FOREIGN)
def test_another_programs_file_is_left_alone(said, progress_file, content):
    progress_file.write_text(content)
    record.write("quiz", "99.1", 1)
    record.write("quiz", "99.2", 0)
    shown = said()
    assert shown.startswith("`progress.json` is another program's file, and was left as it is. Your progress is")
    assert shown.count("export_progress()") == shown.count("METALEARN_PROGRESS") == 1
    assert record.read()["quiz"] == {"99.1": 1, "99.2": 0}
    assert [path.name for path in progress_file.parent.iterdir()] == [progress_file.name]
    assert progress_file.read_text() == content


def test_what_a_newer_version_stored_survives_and_what_an_older_one_lacked_is_added(said, progress_file):
    newer = {"committed": 1, "truth": None, "sure": 0.8}
    progress_file.write_text(json.dumps({"predictions": {"99.x": newer}, "streak": [1, {"α": 2}], "version": 7}))
    record.write("quiz", "99.1", 1)
    import_progress('{"quiz": {"99.2": 0}, "badges": {"first": true}}')
    import_progress('{"passed": {}, "badges": {"second": true}, "version": 8}')
    assert json.loads(progress_file.read_text()) == {
        "passed": {},
        "quiz": {"99.1": 1, "99.2": 0},
        "predictions": {"99.x": newer},
        "streak": [1, {"α": 2}],
        "version": 8,
        "badges": {"first": True, "second": True},
    }
    progress()
    assert "99.x 1 not seen yet" in said()


def test_a_byte_order_mark_is_read(said, progress_file):
    text = '\ufeff{"passed": {"99.pair": "2031-01-01"}}'
    progress_file.write_text(text)
    record.write("quiz", "99.1", 1)
    import_progress(text)
    assert said() == "Progress added: 1 passed exercises, 0 predictions."
    assert record.read() == {"passed": {"99.pair": "2031-01-01"}, "quiz": {"99.1": 1}, "predictions": {}}


def test_a_symbolic_link_stays_one(progress_file, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    progress_file.symlink_to(home / "kept.json")  # does not exist yet
    record.write("quiz", "99.1", 1)
    (home / "kept.json").chmod(0o600)
    record.write("quiz", "99.2", 1)
    assert progress_file.is_symlink()
    assert json.loads((home / "kept.json").read_text())["quiz"] == {"99.1": 1, "99.2": 1}
    assert (home / "kept.json").stat().st_mode & 0o777 == 0o600
    (home / "kept.json").write_text("{")
    assert record.read() == record.empty()
    assert progress_file.is_symlink() and len(list(home.glob("kept.damaged-*.json"))) == 1


def test_the_place_is_fixed_at_import(tmp_path):
    """With METALEARN_PROGRESS, without, with a name below the home folder, and after a change of folder."""
    (tmp_path / "elsewhere").mkdir()
    places = (
        LOADED + "for name in ('', 'mine.json', '~/mine.json', '/x/y.json'):\n"
        "    os.environ['METALEARN_PROGRESS'] = name\n"
        "    place = load().PATH\n"
        "    os.chdir('elsewhere')\n"
        "    print(place)\n"
        "    os.chdir('..')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", places], cwd=tmp_path, env={"HOME": "/h"}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [f"{tmp_path}/progress.json", f"{tmp_path}/mine.json", "/h/mine.json", "/x/y.json"]


# The module alone, without the library and JAX: what follows needs no second to begin.
LOADED = f"""
import importlib.util, os, sys

def load():
    spec = importlib.util.spec_from_file_location("record", {record.__file__!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""
WRITE_MANY = """
record = load()
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    record.write("quiz", f"{sys.argv[1]}.{number}", number)
assert not {"jax", "metalearn", "IPython"} & set(sys.modules)
"""


@pytest.mark.parametrize("system", ["with fcntl", "without fcntl"])
def test_two_processes_lose_nothing(progress_file, system):
    """As two kernels on one folder, which begin at the same moment."""
    forget = "" if system == "with fcntl" else "sys.modules['fcntl'] = None\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOADED + forget + WRITE_MANY, name],
            env={"METALEARN_PROGRESS": str(progress_file)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    stored = json.loads(progress_file.read_text())["quiz"]
    assert stored == {f"{name}.{number}": number for name in ("a", "b") for number in range(100)}
    assert [path.name for path in progress_file.parent.iterdir()] == [progress_file.name]


@pytest.mark.parametrize("system", ["with fcntl", "without fcntl"])
def test_no_lock_holds_a_learner_up(progress_file, monkeypatch, system):
    """Neither one that was left behind by a killed process, nor one whose holder does not let go."""
    if system == "without fcntl":
        monkeypatch.setattr(record, "fcntl", None)
    lock = progress_file.with_name(".progress.json.lock")
    lock.touch()
    os.utime(lock, (0, 0))
    monkeypatch.setattr(record, "PATIENCE", 3600.0)
    record.write("quiz", "99.1", 1)
    assert not lock.exists()

    held = record._acquire(lock)
    monkeypatch.setattr(record, "PATIENCE", 0.01)
    os.utime(lock, (2e9, 2e9))  # not an old one
    record.write("quiz", "99.2", 1)
    assert record.read()["quiz"] == {"99.1": 1, "99.2": 1}
    record._release(lock, held)


def test_a_device_is_no_file(said, monkeypatch):
    monkeypatch.setattr(record, "PATH", Path(os.devnull))
    record.write("quiz", "99.1", 1)
    assert f"Progress cannot be saved in `{Path(os.devnull).name}` (it is not a regular file)" in said()
    assert not Path(os.devnull).is_file()
    assert record.read()["quiz"] == {"99.1": 1}


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

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(os, "replace", refuse)


def _name_a_folder(progress_file, monkeypatch):
    progress_file.mkdir()


def _name_a_missing_folder(progress_file, monkeypatch):
    monkeypatch.setattr(record, "PATH", progress_file.parent / "missing" / "progress.json")


@pytest.mark.parametrize("hinder", [_forbid_writing, _name_a_folder, _name_a_missing_folder])
def test_without_a_writable_file_progress_lasts_as_long_as_the_kernel(said, progress_file, monkeypatch, hinder):
    hinder(progress_file, monkeypatch)
    check("99.scaled_mean", scaled_mean)
    check("99.pair", PAIR.reference)
    shown = said()
    assert shown.count("Progress cannot be saved") == 1
    assert shown.count("Passed") == 2
    progress()
    assert "99 · a lesson 2 of 2" in said()
    assert "99.pair" in export_progress()
    import_progress('{"passed": {"98.old": "2031-01-01"}, "quiz": {}, "predictions": {}}')
    assert "98.old" in export_progress()


def test_a_damaged_file_that_cannot_be_moved(said, progress_file, monkeypatch):
    progress_file.write_text("{")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    progress()
    assert "Progress cannot be saved in `progress.json` (Permission denied)" in said()
    assert progress_file.read_text() == "{"


def test_plain_text_outside_a_notebook(capsys):
    show_html("<b>bold</b>", "bold")
    assert capsys.readouterr().out == "bold\n"


def test_the_map_of_the_course_names_every_lesson_and_leads_to_it(monkeypatch):
    monkeypatch.undo()  # the real lessons
    monkeypatch.setattr(record, "_kept", record.empty())
    shown = []
    monkeypatch.setattr("metalearn.course.records.overview.show_html", lambda *texts: shown.append(texts))
    progress()
    ((text, plain),) = shown
    assert re.findall('<a href="(.*?).ipynb">', text) == [lesson.stem for lesson in syllabus.LESSONS]
    assert "→ begin here" in plain.split("\n")[1] and plain.count("not begun") == len(syllabus.LESSONS) - 1
    assert all(f"{lesson.number} · {lesson.name}  " in plain for lesson in syllabus.LESSONS)
