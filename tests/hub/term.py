"""A term on a real hub: a teacher, three lessons and five students, in JupyterLab, in a browser.

    uv run python tests/hub/term.py [DIR]

It takes the commands and files of the section "On a JupyterHub" of the page for teachers as they stand there, on a
copy of the machine's /etc and on empty /home and /srv, which are gone at the end. It needs root, Debian's own Python
(3.11 or later), Chromium and npm, whose packages and PyPI's must be within reach. DIR, a new folder, keeps the class
and all logs. No other check runs it.
"""

import argparse
import csv
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("browser", "course")]

import nbformat
from desk import Student, Teacher
from lab import LAB_SETTINGS, free_port, open_browser, wait_for
from machine import NAMESPACES, Machine
from students import TERM, read, right, with_scripts, wrong

from metalearn.course.exercises.exercise import all_exercises

FIRST, AGAIN, WORDS = TERM  # what one student is late with, one hands in twice, and has a derivation
DERIVATION, DUE = "05-three_points", "2030-01-31 18:00 UTC"
RAISED = ("00-gradient_descent", 5)  # what the teacher finds worth more after all
RUN_ALL_TIMEOUT = 240  # seconds
POINTS = {exercise.id.replace(".", "-", 1): exercise.difficulty for exercise in all_exercises()}
# Only for this test: no passwords, addresses that nobody else has, and a browser that may ask JupyterLab to save.
TEST_CONFIG = """
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allowed_users.add("max")  # who is not in the class
c.JupyterHub.bind_url = "http://127.0.0.1:{}"
c.JupyterHub.hub_port = {}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{}"
c.Spawner.args = ["--LabApp.expose_app_in_browser=True"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
"""


def begun(lesson):
    """The first exercise right, and nothing else touched."""
    return dict(list(right(lesson).items())[:1])


Work = namedtuple("Work", ["how", "words"], defaults=[None])  # how it is written, and what the derivation is worth
ATTEMPTS = {
    ("ada", FIRST, 1): Work(right),
    ("ada", AGAIN, 1): Work(right),
    ("ada", WORDS, 1): Work(right, 3),
    ("ben", FIRST, 1): Work(right),
    ("ben", AGAIN, 1): Work(wrong),
    ("ben", AGAIN, 2): Work(right),
    ("ben", WORDS, 1): Work(right, 1.5),
    ("gus", FIRST, 1): Work(begun),
    ("zoe", FIRST, 1): Work(right),
    ("zoe", AGAIN, 1): Work(right),
    ("eva", FIRST, 1): Work(right),
    ("eva", WORDS, 1): Work(right, 2.5),
}
LATE = {("eva", FIRST, 1)}
SCRIPTED = {("zoe", FIRST, 1)}  # with JavaScript, for whoever looks at it
IN_THE_DRAWN_WAY = {("ada", FIRST, 1), ("ada", WORDS, 1), ("ben", AGAIN, 1), ("ben", AGAIN, 2)}  # all cells are run


def deserved(attempt, points=POINTS):
    """What an attempt earns if all is well."""
    work, (_, lesson, _) = ATTEMPTS[attempt], attempt
    solved = set() if work.how is wrong else work.how(lesson).keys() & points.keys()
    return sum(points[name] for name in solved) + (work.words or 0)


class Term:
    """The hub with all its people."""

    def __init__(self, folder):
        self.folder, self.times = folder, {}
        self.machine = Machine(folder)

    @contextmanager
    def step(self, name):
        """Notes how long something takes."""
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        yield
        self.times[name] = self.times.get(name, 0) + time.monotonic() - start

    @contextmanager
    def hub(self):
        """The hub, running."""
        ports = [free_port() for _ in range(3)]
        with Path("/etc/jupyterhub/jupyterhub_config.py").open("a") as config:
            config.write(TEST_CONFIG.format(*ports))
        settings = Path("/etc/jupyter/labconfig/default_setting_overrides.json")
        settings.parent.mkdir(parents=True)
        settings.write_text(LAB_SETTINGS)
        self.address = f"http://127.0.0.1:{ports[0]}"
        with (self.folder / "hub.log").open("w") as log:
            server = self.machine.start("as root: start", log)
            wait_for(f"{self.address}/hub/login", server, self.folder / "hub.log")
            yield
            server.terminate()
            server.wait(60)

    @contextmanager
    def at(self, kind, user):
        """Somebody's desk, with a new profile of the browser."""
        with tempfile.TemporaryDirectory() as profile, open_browser(profile) as page:
            assert page is not None, "no Chromium"
            try:
                yield kind(page, self.address, user)
            except BaseException:
                page.screenshot(path=self.folder / "failure.png")
                raise

    def teach(self, block, lesson=None, **changes):
        """The teacher runs a block of the page, for a lesson."""
        return self.machine.run(f"as teacher: {block}", **({"02_maml": lesson} if lesson else {}), **changes)

    def work(self, student, attempt):
        """Somebody writes into a lesson and hands it in."""
        lesson = attempt[1]
        notebook = student.open(f"{lesson}/{lesson}.ipynb")
        written = ATTEMPTS[attempt].how(lesson)
        for cell, source in written.items():
            notebook.set_source(cell, source)
        if attempt in IN_THE_DRAWN_WAY:
            notebook.run_all(RUN_ALL_TIMEOUT)
            for cell in written.keys() & POINTS.keys():
                assert ("Passed" in notebook.output(f"{cell}-check")) == (ATTEMPTS[attempt].how is right), cell
        student.save()
        if attempt in SCRIPTED:
            path = student.home / lesson / f"{lesson}.ipynb"
            notebook = read(path)
            with_scripts(notebook)
            nbformat.write(notebook, path)
        student.submit(lesson)

    def grades(self):
        """The exported table: score, and whether it was late, by student and lesson."""
        self.teach("export")
        with Path("~teacher/class/grades.csv").expanduser().open() as file:
            rows = list(csv.DictReader(file))
        return {
            (row["student_id"], row["assignment"]): (float(row["score"]), is_late(row))
            for row in rows
            if row["timestamp"]
        }


def is_late(row):
    """Whether a row of the exported table is of a submission after the due date."""
    return bool(row["duedate"]) and row["timestamp"] > row["duedate"]


def play(folder):
    """The whole term; returns its table and times."""
    term = Term(folder)
    machine = term.machine
    with term.step("install, with accounts and configuration"):
        for block in ("as root: install", "as root: prepare"):
            machine.run(block)
        machine.run_as("root", "useradd --create-home max")
        machine.write_files()
    with term.hub():
        with term.step("release and hand out"):
            term.teach("release")
            for lesson in TERM:
                term.teach("hand out", lesson)
        with term.step("what no student may read"):
            for path in ("~teacher", "~ada", "/srv/nbgrader/exchange/metalearn/inbound"):
                machine.run_as("ben", f"ls {path}", status=2)
            with term.at(Student, "max") as student:
                student.no_lesson()
        for user in ("ada", "ben", "gus", "zoe", "eva"):
            if user == "eva":
                now = datetime.now(UTC)
                machine.run_as(
                    "teacher", f"cd ~/class && nbgrader db assignment add {FIRST} --duedate='{now:%F %T} UTC'"
                )
            with term.step(f"{user} works and submits"), term.at(Student, user) as student:
                for attempt in ATTEMPTS:
                    if attempt[0] == user and attempt[2] == 1:
                        student.fetch(attempt[1])
                        term.work(student, attempt)
        earned = grade_everything(term)
        with term.step("ben reads, corrects and submits again"), term.at(Student, "ben") as student:
            (told,) = student.fetch_feedback(AGAIN)
            assert "not right on the hidden instances" in told
            term.work(student, ("ben", AGAIN, 2))
        with term.step("collect and grade again"):
            term.teach("grade", AGAIN)
        with term.step("ben reads again"), term.at(Student, "ben") as student:
            first, second = student.fetch_feedback(AGAIN)
            assert first == told and "not right on the hidden instances" not in second
        earned |= {("ben", AGAIN, 2): term.grades()["ben", AGAIN]}
        regraded = raise_points(term)
    return rows(earned, regraded), term.times


def grade_everything(term):
    """All first attempts; what they earn."""
    with term.step("collect, grade, derivations in Formgrader, feedback"):
        with ThreadPoolExecutor() as together:
            list(together.map(functools.partial(term.teach, "grade"), TERM))
        with term.at(Teacher, "teacher") as teacher:
            for (user, lesson, _), work in ATTEMPTS.items():
                if work.words is not None:
                    teacher.score(user, lesson, DERIVATION, work.words)
            for user, lesson, _ in SCRIPTED:
                assert teacher.scripts_that_run(user, lesson) is None
            teacher.feedback(WORDS)
    grades = term.grades()
    return {attempt: grades[attempt[:2]] for attempt in ATTEMPTS if attempt[2] == 1}


def raise_points(term):
    """One exercise becomes worth more, and what is graded already is graded again; what everyone has then."""
    cell, points = RAISED
    with term.step("points changed, and graded again in Formgrader"), term.at(Teacher, "teacher") as teacher:
        teacher.change_points(FIRST, f"{cell}-check", points)
        teacher.generate(FIRST)
        teacher.autograde(FIRST, [user for user, lesson, _ in ATTEMPTS if lesson == FIRST])
        teacher.feedback(FIRST)
    with term.step("feedback to all"):
        for user in ("ada", "eva"):
            with term.at(Student, user) as student:
                (told,) = student.fetch_feedback(FIRST)
                assert f"/ {points:.1f})" in told
    return term.grades()


def rows(earned, regraded):
    """The table of the term: for each attempt what it deserves and what it has, before and after the regrade."""
    raised = POINTS | dict([RAISED])
    last = {attempt[:2]: attempt for attempt in ATTEMPTS}
    for attempt, (score, late) in earned.items():
        is_last = last[attempt[:2]] == attempt
        after = (deserved(attempt, raised), regraded[attempt[:2]][0]) if is_last else ("", "")
        yield *attempt, late, deserved(attempt), score, *after


def main():
    """Plays the term in namespaces of its own."""
    if os.environ.get("METALEARN_HUB"):
        table, times = play(Path(sys.argv[1]))
        table = list(table)
        line = "{:8} {:22} {:>7} {:>5} {:>9} {:>7} {:>14} {:>14}"
        print(line.format("student", "lesson", "attempt", "late", "deserved", "earned", "then deserved", "then earned"))
        for row in table:
            print(line.format(*map(str, row)))
        for name, seconds in times.items():
            print(f"{seconds:6.0f} s  {name}")
        for user, lesson, number, late, *scores in table:
            assert scores[0] == scores[1] and scores[2] == scores[3], (user, lesson, number, scores)
            assert late == ((user, lesson, number) in LATE), (user, lesson, number, late)
        assert {row[:3] for row in table} == ATTEMPTS.keys()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="keeps the class and all logs; new")
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        folder = given or Path(scratch)
        folder.mkdir(exist_ok=True)
        for each in (Path(scratch), folder):
            each.chmod(0o755)  # accounts of the hub live below
        command = [*NAMESPACES, sys.executable, __file__, str(folder.resolve())]
        return subprocess.run(command, env=os.environ | {"METALEARN_HUB": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
