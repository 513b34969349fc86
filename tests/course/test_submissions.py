"""The classroom: what a class hands in, what it earns, and what no student sees.

It is played with nbgrader's own command line: release, submit, grade, give feedback.
"""

import functools
import html
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from students import ROOT, TERM, graded_cells, read
from submissions import FINITE_DIFFERENCE, KINDS, LESSON, PER_TASK_LOSSES, hand_in, nbgrader, points

from metalearn.course import __main__ as command
from metalearn.course.exercises.exercise import all_exercises, find
from metalearn.course.exercises.hidden_tests import hidden_seed
from metalearn.course.publishing import builder

SECRET = "a secret that must not leak"
FAMILIES = ("term", "honest", "damaged", "cheating")  # each is graded by itself: two processes share them
REFUSED = {
    "damaged": {"truncated", "empty", "no_notebook", "other_json", "marked_utf8", "other_name"},
    "cheating": {"linked"},
}


def shortened(notebook):
    """The lesson's imports and exercises: what lies between them takes as long to run, and grades nothing."""
    kept = [
        cell for cell in notebook.cells if "nbgrader" in cell.metadata or "imports" in cell.metadata.get("tags", [])
    ]
    return nbformat.from_dict({**notebook, "cells": [notebook.cells[0], *kept]})


def squeezed(text):
    """Code without spaces and without the tags of a page that shows it in colours."""
    return re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]*>", "", text)))


def feedback(graded, student):
    pages = sorted((graded.course / "feedback" / student).rglob("*.html"))
    assert pages
    return squeezed("".join(page.read_text("utf-8") for page in pages))


def of(family):
    """Runs a test on the class that handed in the submissions of one family."""
    return pytest.mark.parametrize("graded", [family], indirect=True)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """The course of a family, graded once. (pytest would set up a fixture with parameters again for each row.)"""
    return functools.cache(functools.partial(grade, tmp_path_factory))


@pytest.fixture
def graded(request, classes):
    """The course of one family after grading."""
    return classes(request.param)


def grade(tmp_path_factory, family):
    """Grades a family's submissions: the course's folder, its gradebook's scores, what waits for the teacher."""
    api = pytest.importorskip("nbgrader.api", reason="needs `uv sync --group classroom`")
    course = tmp_path_factory.mktemp(family)
    lessons = TERM if family == "term" else (LESSON,)
    command.main(["release", "--root", str(ROOT), "--to", str(course), "--seed", SECRET, *lessons])
    if family != "term":
        source = course / f"source/{LESSON}/{LESSON}.ipynb"
        nbformat.write(shortened(read(source)), source)
    nbgrader(course, "generate_assignment", "--assignment=*")
    for kind in KINDS:
        if kind.family == family:
            hand_in(course, kind)
    said = nbgrader(course, "autograde", "--assignment=*", "--Execute.timeout=60", status=int(family in REFUSED))
    with api.Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        if family == "term":
            by_hand = gradebook.find_grade("05-three_points", TERM[2], TERM[2], "solved")
            assert by_hand.needs_manual_grade
            by_hand.manual_score = 2.5
            gradebook.db.commit()
        grades = [grade for submission in gradebook.assignments for notebook in submission.notebooks
                  for submitted in notebook.submissions for grade in submitted.grades]  # fmt: skip
        scores = {(grade.student.id, grade.name): grade.score for grade in grades}
        waiting = {(grade.student.id, grade.name) for grade in grades if grade.needs_manual_grade}
    nbgrader(course, "generate_feedback", "--assignment=*")
    return SimpleNamespace(course=course, scores=scores, waiting=waiting, said=said)


def test_the_table_has_every_kind_once_and_a_reason_where_points_differ():
    assert max(Counter(kind.name for kind in KINDS).values()) == 1
    assert {kind.family for kind in KINDS} == set(FAMILIES) and len(KINDS) > 61
    for kind in KINDS:
        assert kind.what and (kind.deserved == kind.earned) == (not kind.because), kind.name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("graded", "kind"),
    [pytest.param(kind.family, kind, id=f"{kind.family}-{kind.name}") for kind in KINDS],
    indirect=["graded"],
)
def test_a_submission_earns_what_the_table_says(graded, kind):
    by_test = {name: score for (student, name), score in graded.scores.items() if student == kind.name}
    assert {name: by_test.get(name, 0) for name in kind.earned} == kind.earned
    assert by_test.keys() <= {*kind.earned, "05-three_points"}


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestFeedback:
    @of("term")
    def test_an_answer_in_words_waits_for_the_teacher(self, graded):
        assert graded.waiting == {("solved", "05-three_points"), ("mistaken", "05-three_points")}
        written = {who: score for (who, name), score in graded.scores.items() if name == "05-three_points"}
        assert written == {"solved": 2.5, "mistaken": 0, "untouched": 0}

    @pytest.mark.parametrize(("graded", "refused"), REFUSED.items(), indirect=["graded"])
    def test_what_cannot_be_graded_waits_for_the_teacher_and_has_no_page(self, graded, refused):
        assert graded.waiting == {(student, name) for student in refused for name in points([LESSON], bool)}
        assert all(f"for student '{student}'" in graded.said for student in refused)
        assert not any((graded.course / "feedback" / student).exists() for student in refused)

    @of("cheating")
    def test_a_link_to_another_file_is_named(self, graded):
        assert "is a symbolic link" in graded.said

    @of("damaged")
    def test_a_copy_of_a_graded_cell_is_named(self, graded):
        assert feedback(graded, "copied").count(squeezed("the last one counts")) == 2

    @of("damaged")
    def test_it_says_where_the_kernel_ended(self, graded):
        assert squeezed("so nothing below it was run") in feedback(graded, "quitter")

    @of("term")
    def test_a_cell_that_a_lesson_asks_to_change_stays_the_students(self, graded):
        assert squeezed("maxval=7.0") in feedback(graded, "own_tasks")

    @of("honest")
    def test_it_says_what_was_not_run_and_shows_what_was_written(self, graded):
        told = feedback(graded, "astray")
        assert squeezed("only what this cell defines was run, and not what starts on line") in told
        assert squeezed("quit()\nwhile True:") in told

    @of("cheating")
    def test_no_script_of_a_student_runs_where_it_is_read(self, graded, tmp_path):
        """In a process of its own: Playwright opens one browser at a time, and another test may have one open."""
        for needed in ("playwright", "axe_playwright_python"):
            pytest.importorskip(needed)
        (page,) = (graded.course / "feedback/scripted").rglob("*.html")
        command = [sys.executable, "-c", READS_FEEDBACK, tmp_path, page.as_uri()]
        ran = subprocess.run(command, cwd=Path(__file__).parents[1] / "browser", capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        if "no Chromium" in ran.stdout:
            pytest.skip("needs Chromium")

    @of("cheating")
    @pytest.mark.parametrize(("student", "name"), [("parrot", FINITE_DIFFERENCE), ("meddler", PER_TASK_LOSSES)])
    def test_the_tricks_do_fool_the_visible_tests(self, graded, student, name):
        cells = graded_cells(read(graded.course / f"autograded/{student}/{LESSON}/{LESSON}.ipynb"))
        assert "Passed." in str(cells[f"{name}-check"].outputs)
        assert cells[f"{FINITE_DIFFERENCE}-check"].source.startswith("check(")  # nbgrader put it back

    @of("term")
    def test_it_names_the_mistake(self, graded):
        told = feedback(graded, "mistaken")
        for name in points(TERM, bool):
            exercise = find(name.removesuffix("-check").replace("-", ".", 1))
            message = f"{exercise.id}: not right on the hidden instances. {exercise.misconceptions[0].diagnosis}"
            assert squeezed(f"AssertionError: {message}") in told

    @pytest.mark.parametrize("graded", FAMILIES, indirect=True)
    def test_no_student_sees_the_secret(self, graded, request):
        seeds = [hidden_seed(SECRET, exercise.id) for exercise in all_exercises()]
        pages = [path for folder in ("release", "feedback") for path in (graded.course / folder).rglob("*.*")]
        assert pages
        for page in pages:
            text = page.read_text("utf-8")
            assert SECRET not in text and not any(str(seed) in text for seed in seeds)

    @of("term")
    def test_no_student_sees_a_solution(self, graded):
        released = squeezed("".join(path.read_text("utf-8") for path in (graded.course / "release").rglob("*.ipynb")))
        assert "HIDDENTESTS" not in released and "SOLUTION" not in released
        own, others = feedback(graded, "solved"), feedback(graded, "mistaken") + feedback(graded, "untouched")
        for lesson in TERM:
            text = (ROOT / f"solutions/{lesson}.py").read_text("utf-8")
            for solution in re.findall(rf"{builder.BEGIN}\n(    .*?)\n *{builder.END}", text, re.DOTALL):
                assert squeezed(solution) in own and squeezed(solution) not in others
                assert squeezed(solution.replace("\n", "\\n").replace('"', '\\"')) not in released


READS_FEEDBACK = """
import sys
from lab import open_browser

with open_browser(sys.argv[1]) as page:
    if page is None:
        print("no Chromium")
    else:
        page.goto(sys.argv[2])
        page.wait_for_timeout(1000)
        assert page.locator("text=per_task_losses").count()
        assert page.evaluate("window.ran") is None
"""
