"""The classroom: what is released, what is graded, and what no student sees.

The last class plays a term with nbgrader's own command line: release, submit, grade, give feedback.
"""

import html
import logging
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from students import ROOT, TERM, graded_cells, read, right, scripted, wrong
from traitlets.config import loader

from metalearn.course import __main__ as command
from metalearn.course import syllabus
from metalearn.course.exercises.exercise import all_exercises, find
from metalearn.course.exercises.hidden_tests import VARIABLE, hidden_seed, hidden_test
from metalearn.course.publishing import builder
from metalearn.course.publishing.release import CONFIG_FILE, QUESTION_POINTS, SEED_FILE, to_release

SECRET = "a secret that must not leak"
LESSONS = sorted((ROOT / "solutions").glob("*.py"))
QUESTIONS = {"02.curvature_bound", "03.proportional", "05.three_points", "16.conclusion"}
EVERY_LESSON = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def release(to, *arguments):
    return command.main(["release", "--root", str(ROOT), "--to", str(to), *arguments])


def without_hidden_tests(source):
    return re.sub(r"\n### BEGIN HIDDEN TESTS\n.*\n### END HIDDEN TESTS", "", source, flags=re.DOTALL)


def rejection(exercise_id, function):
    """The message with which a hidden test rejects a function."""
    with pytest.raises(AssertionError) as caught:
        hidden_test(exercise_id, function)
    return str(caught.value)


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)


class TestReleasedNotebook:
    @EVERY_LESSON
    def test_grades_each_exercise_by_its_check_and_each_question_by_hand(self, path):
        cells = graded_cells(to_release(builder.read_source(path)))
        kinds = {name: (cell.cell_type, *sorted(k for k, v in cell.metadata.nbgrader.items() if v is True))
                 for name, cell in cells.items()}  # fmt: skip
        points = {name: cell.metadata.nbgrader.points for name, cell in cells.items() if cell.metadata.nbgrader.grade}
        number = path.stem[:2]
        exercises = {
            exercise.id.replace(".", "-"): exercise for exercise in all_exercises() if exercise.lesson == number
        }
        questions = {question.replace(".", "-") for question in QUESTIONS if question[:2] == number}
        assert exercises
        assert kinds == {
            **{name: ("code", "solution") for name in exercises},
            **{f"{name}-check": ("code", "grade", "locked") for name in exercises},
            **{name: ("markdown", "grade", "solution") for name in questions},
        }
        assert points == {
            **{f"{name}-check": exercise.difficulty for name, exercise in exercises.items()},
            **dict.fromkeys(questions, QUESTION_POINTS),
        }

    @EVERY_LESSON
    def test_is_the_source_and_nothing_else(self, path):
        """Metadata, hidden tests, points and the addresses of other lessons are all that a release adds."""
        source = builder.read_source(path)
        released = to_release(source)
        nbformat.validate(released)
        for cell in released.cells:
            cell.source = re.sub(r"\]\(\.\./\d\d_\w+/", "](", without_hidden_tests(cell.source))
            cell.source = re.sub(r"( minutes) · \d points?", r"\1", cell.source)
            cell.metadata.pop("nbgrader", None)
        for cell in source.cells:  # those pages are not handed out
            cell.source = re.sub(r"\[[^\]]+\]\((contents|notation|decision_guide)\.md\)( · )?", "", cell.source)
        assert released == source

    @EVERY_LESSON
    def test_has_the_top_of_the_lesson_and_no_folded_solution(self, path):
        released = to_release(builder.read_source(path))
        assert f"# {path.stem[:2]} · " in released.cells[0].source
        text = "".join(cell.source for cell in released.cells if cell.cell_type == "markdown")
        assert "<summary>Hint 1</summary>" in text
        assert "<summary>Solution</summary>" not in text and "<summary>A model answer</summary>" not in text
        assert not re.search(r"\]\(\w+\.md\)", text)

    @EVERY_LESSON
    def test_says_what_each_task_is_worth(self, path):
        notebook = to_release(builder.read_source(path))
        said = re.findall(r"minutes · (\d) points?", "".join(cell.source for cell in notebook.cells))
        worth = [
            cell.metadata.nbgrader.points for cell in graded_cells(notebook).values() if cell.metadata.nbgrader.grade
        ]
        assert list(map(int, said)) == worth

    @EVERY_LESSON
    def test_shows_the_usual_check_first_and_hides_one_call(self, path):
        for name, cell in graded_cells(to_release(builder.read_source(path))).items():
            if name.endswith("-check"):
                visible, hidden = cell.source.split("\n### BEGIN HIDDEN TESTS\n")
                call = visible.replace("check(", "hidden_test(")
                imported = "from metalearn.course.exercises.hidden_tests import hidden_test"
                assert hidden == f"{imported}\n\n{call}\n### END HIDDEN TESTS"

    @pytest.mark.slow
    @EVERY_LESSON
    def test_is_valid_for_nbgrader(self, path):
        schema = pytest.importorskip("nbgrader.nbgraderformat", reason="needs `uv sync --group classroom`")
        schema.MetadataValidator().validate_nb(to_release(builder.read_source(path)))

    def test_links_to_the_other_lessons_where_nbgrader_puts_them(self):
        text = builder.as_text(to_release(builder.read_source(ROOT / "solutions/02_maml.py")))
        assert "](../01_learning_to_learn/01_learning_to_learn.ipynb)" in text

    @pytest.mark.parametrize("folder", ["lessons", "solutions"])
    def test_nothing_of_it_is_in_the_public_notebooks(self, folder):
        paths = sorted((ROOT / folder).glob("*.ipynb"))
        assert len(paths) == len(LESSONS)
        for path in paths:
            text = path.read_text("utf-8").lower()
            assert not any(word in text for word in ("hidden test", "hidden_test", "nbgrader")), path.name


class TestFolder:
    def test_holds_the_lessons_asked_for_the_configuration_and_the_seed(self, tmp_path, capsys):
        to = tmp_path / "a/course"
        assert release(to, "--seed", SECRET, "maml", "00_start_here") == 0
        files = {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()}
        notebooks = {"source/00_start_here/00_start_here.ipynb", "source/02_maml/02_maml.ipynb"}
        assert files == {*notebooks, CONFIG_FILE, SEED_FILE}
        assert set(capsys.readouterr().out.split()) == {str(to / notebook) for notebook in notebooks}
        assert (to / SEED_FILE).read_text().strip() == SECRET
        assert all(SECRET not in path.read_text() for path in to.rglob("*.*") if path.is_file())

    @pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
    def test_only_its_owner_reads_the_seed(self, tmp_path):
        release(tmp_path, "start_here")
        assert (tmp_path / SEED_FILE).stat().st_mode & 0o777 == 0o600

    @pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
    def test_is_closed_to_all_others_on_the_machine(self, tmp_path):
        release(tmp_path / "class", "start_here")
        assert (tmp_path / "class").stat().st_mode & 0o777 == 0o700

    def test_has_a_random_seed_if_none_is_given(self, tmp_path):
        seeds = set()
        for name in ("one", "two"):
            release(tmp_path / name, "start_here")
            seeds.add((tmp_path / name / SEED_FILE).read_text())
        assert len(seeds) == 2 and min(map(len, seeds)) > 30

    def test_can_be_given_more_lessons_and_keeps_what_it_has(self, tmp_path):
        release(tmp_path, "start_here")
        config = tmp_path / CONFIG_FILE
        config.write_text(config.read_text() + "c.Execute.timeout = 300\n")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert release(tmp_path, "start_here", "maml") == 0
        assert {path: path.read_bytes() for path in before} == before
        assert (tmp_path / "source/02_maml/02_maml.ipynb").exists()

    @pytest.mark.parametrize(
        ("prepare", "arguments", "message"),
        [
            (lambda to: (to / "thesis.tex").write_text(""), (), "holds something that is not a release"),
            (lambda to: (to / "gradebook.db").write_text(""), (), "holds something that is not a release"),
            (lambda to: to.rmdir() or to.write_text(""), (), "holds something that is not a release"),
            (lambda to: release(to, "start_here"), ("--seed", "another"), "has another seed, in hidden_seed"),
            (lambda to: change_a_released_lesson(to), (), "points or text were changed there"),
            (lambda to: None, ("--seed", " "), "--seed must not be empty"),
            (lambda to: None, ("calculus",), "no such lesson: calculus"),
        ],
    )
    def test_is_never_overwritten(self, tmp_path, prepare, arguments, message, capsys):
        to = tmp_path / "course"
        to.mkdir()
        prepare(to)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(SystemExit) as stopped:
            release(to, *(arguments or ("start_here",)))
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


class TestConfiguration:
    @pytest.fixture
    def classroom(self):
        return pytest.importorskip("metalearn.course.publishing.classroom", reason="needs nbgrader")

    @pytest.fixture
    def config(self, tmp_path, monkeypatch):
        """That of a release, as nbgrader reads it."""
        for name in ("PYTHONSAFEPATH", VARIABLE):
            monkeypatch.setenv(name, "as before")
        release(tmp_path, "start_here")
        return loader.PyFileConfigLoader(CONFIG_FILE, str(tmp_path)).load_config()

    def test_holds_no_setting_that_a_step_of_nbgrader_warns_of(self, classroom, config):
        for step in [*classroom.SANITIZE, *classroom.AUTOGRADE]:
            known = step.class_traits(config=True).keys()
            for section in [parent.__name__ for parent in step.mro() if parent.__name__ in config]:
                assert config[section].keys() <= known, (step, section)

    def test_shows_no_script_in_formgrader(self, classroom, config):
        formgrader = pytest.importorskip("nbgrader.server_extensions.formgrader.handlers").template_path
        notebook = builder.to_solution(builder.read_source(ROOT / "solutions/00_start_here.py"))
        scripted(notebook)
        exporter = HTMLExporter(config=config, template_name="formgrade", extra_template_basedirs=[formgrader])
        page, _ = exporter.from_notebook_node(notebook, resources={"index": 0, "total": 1, "base_url": ""})
        assert "window.ran" in page  # as text
        found = BeautifulSoup(page, "html.parser").find_all()
        assert not [tag for tag in found if tag.name == "script" and "window.ran" in tag.text]
        assert not [tag for tag in found if "window.ran" in str(tag.attrs)]

    def test_shows_neither_what_runs_nor_what_can_hold_something_that_does(self, classroom, config):
        kinds = {"application/javascript": "one", "image/svg+xml": "<svg>two</svg>"}
        outputs = [
            nbformat.v4.new_output("display_data", {kind: text, "text/plain": "?"}) for kind, text in kinds.items()
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
        for exporter in (classroom.FeedbackPage, HTMLExporter):  # Formgrader's pages come from nbconvert's own
            page = BeautifulSoup(exporter(config=config).from_notebook_node(notebook)[0], "html.parser")
            assert [output.text.strip() for output in page.select(".jp-OutputArea-output")] == ["?", "?"]


def change_a_released_lesson(to):
    release(to, "start_here")
    path = to / "source/00_start_here/00_start_here.ipynb"
    path.write_text(path.read_text().replace('"points": 1', '"points": 2'))


@EVERY_LESSON
def test_the_plan_of_the_term_is_that_of_the_lessons(path):
    """The table of the page for teachers."""
    number = path.stem[:2]
    page = (ROOT / "metalearn/course/publishing/site/teaching.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| \d+ \| {number} · (.*) \|$", page, re.MULTILINE)
    name, minutes, exercises, paper, points = map(str.strip, row.split("|"))
    assert name == syllabus.find(number).name
    source = path.read_text("utf-8")
    on_paper = re.findall(r"On paper, about (\d+) minutes", source)
    definitions = [exercise for exercise in all_exercises() if exercise.lesson == number]
    assert (minutes, exercises) == (
        str(syllabus.find(number).minutes),
        str(sum(exercise.minutes for exercise in definitions)),
    )
    assert paper == "".join(on_paper)
    total = str(sum(exercise.difficulty for exercise in definitions))
    assert points == " + ".join([total, *[str(QUESTION_POINTS)] * len(on_paper)])


@pytest.mark.usefixtures("secret")
class TestHiddenTest:
    def test_says_nothing_of_a_right_function(self):
        assert hidden_test("01.floor", find("01.floor").reference) is None

    def test_names_a_misconception_and_no_number(self):
        wrong = find("01.floor").misconceptions[0]
        assert rejection("01.floor", wrong.function) == (
            f"01.floor: not right on the hidden instances. {wrong.diagnosis}"
        )
        assert rejection("01.floor", lambda targets: 3.14) == "01.floor: not right on the hidden instances."

    def test_names_an_argument_that_is_changed(self):
        exercise = find("01.floor")

        def in_place(function):
            def changes(targets):
                result = np.array(function(targets))
                targets[:] = 0.0
                return result

            return changes

        right = rejection(exercise.id, in_place(exercise.reference))
        assert right.startswith(
            "01.floor: not accepted. Your results are right, but your function changes its argument"
        )
        assert "`targets`" in right
        wrong = rejection(exercise.id, in_place(lambda targets: 3.14))
        assert wrong.startswith("01.floor: not right on the hidden instances. Your function also changes its argument")
        misconception = exercise.misconceptions[0]
        both = rejection(exercise.id, in_place(misconception.function))
        assert both.startswith(
            f"01.floor: not right on the hidden instances. {misconception.diagnosis}\n\nYour function"
        )

    def test_tells_an_exercise_that_was_not_begun(self):
        def stub(targets):
            raise NotImplementedError

        assert rejection("01.floor", stub) == "01.floor: nothing to judge yet."

    @pytest.mark.parametrize("function", [None, lambda: 1, lambda targets: 1 / 0], ids=["none", "signature", "error"])
    def test_shows_nothing_of_the_instances_when_a_function_cannot_run(self, function):
        assert rejection("01.floor", function) == "01.floor: not right on the hidden instances."

    def test_leaves_no_secret_in_the_frames_of_its_error(self):
        """`%xmode Verbose` prints their values into the notebook that becomes the feedback."""
        with pytest.raises(AssertionError) as caught:
            hidden_test("01.floor", lambda targets: 3.14)
        assert caught.value.__cause__ is caught.value.__context__ is None
        frames = [entry.frame.f_locals for entry in caught.traceback if entry.path.name == "hidden_tests.py"]
        assert [set(names) for names in frames] == [{"exercise_id", "function", "complaint"}]

    def test_passes_no_list_of_the_public_answers(self):
        exercise = find("01.floor")
        answers = public_answers(exercise)
        with pytest.raises(AssertionError, match="not right"):
            hidden_test(exercise.id, lambda targets: answers[targets.shape])

    def test_shows_nothing_of_what_a_function_prints_displays_or_writes(self, capfd):
        def talkative(targets):
            print("printed", targets)
            print("complained", targets, file=sys.stderr)
            os.write(1, b"written")
            logging.getLogger("student").warning("logged %s", targets)
            return 3.14

        assert rejection("01.floor", talkative) == "01.floor: not right on the hidden instances."
        assert capfd.readouterr() == ("", "")
        print("heard again")
        assert capfd.readouterr().out == "heard again\n"

    def test_needs_the_secret_and_says_where_it_comes_from(self, monkeypatch):
        monkeypatch.delenv(VARIABLE)
        with pytest.raises(RuntimeError, match=f"{VARIABLE} is not set.*its nbgrader_config.py sets it"):
            hidden_test("01.floor", find("01.floor").reference)

    def test_draws_other_instances_for_each_exercise_and_each_secret(self):
        seeds = {hidden_seed(secret, id) for secret in ("a", "b") for id in ("00.one", "00.two", "01.one")}
        assert len(seeds) == 6
        assert hidden_seed(SECRET, "01.floor") == hidden_seed(SECRET, "01.floor")


class TestDefinitions:
    """What of a student's cell the grader runs."""

    @pytest.fixture
    def definitions(self):
        return pytest.importorskip("metalearn.course.publishing.classroom", reason="needs nbgrader").definitions

    @pytest.mark.parametrize(
        "source",
        [
            "import os\nfrom jax import numpy as jnp",
            '"""A note."""\n\nrate: float = 0.1\nnames = pairs = [(1, "a")]',
            "@jax.jit\ndef f(x, *, y=jnp.zeros(3)) -> jax.Array:\n    return setattr(x, 'y', y)",
            "f = jax.jit(lambda x: g(x))",
            "class A(nnx.Module):\n    size: int = 3\n\n    def __call__(self):\n        return print(self)",
        ],
    )
    def test_are_kept(self, definitions, source):
        assert definitions(source) == (source, [])

    @pytest.mark.parametrize(
        "line",
        [
            "print(x)",
            "grader.hidden_test = None",
            "x = setattr(grader, 'hidden_test', None)",
            "x = grader.__setattr__('hidden_test', None)",
            "x = make()()",
            "x = [patch() for _ in range(3)]",
            "for _ in range(3): pass",
            "with open('a') as file: pass",
            "def f(x=patch()): pass",
            "f = lambda x=patch(): x",
            "f = (lambda: patch())()",
            "def f(x: patch()): pass",
            "@patch()\ndef f(): pass",
            "class A(metaclass=patch()): pass",
            "class A:\n    patch()",
            "x: patch() = 3",
            "x += patch()",
            "del x",
            "%run a.py",
            "!ls",
            "%%bash\nls",
            "x = !ls",
            "await f()",
        ],
    )
    def test_are_all_that_is_kept(self, definitions, line):
        code, left_out = definitions(f"a = 1\n\n{line}\n")
        if line.startswith("%%"):
            code, left_out = definitions(line)
            assert left_out == [1]
        else:
            assert code.strip() == "a = 1" and left_out == [3]

    def test_may_call_what_was_imported(self, definitions):
        source = "@partial(jit, static_argnums=0)\ndef f(x):\n    return x\n\n\ng = jit(f)"
        assert definitions(source, {"partial", "jit"}) == (source, [])
        code, left_out = definitions(source, {"jit"})
        assert code.strip() == "g = jit(f)" and left_out == [1]
        assert definitions("f = jit(patch())", {"jit"}) == ("", [1])

    def test_stay_on_their_lines(self, definitions):
        code, left_out = definitions("print(1)\nprint(2)\n\n\ndef f():\n    return 1\n\n\nf()")
        assert code.splitlines()[4:6] == ["def f():", "    return 1"] and left_out == [1, 2, 9]

    def test_of_what_is_no_python_are_left_for_the_kernel_to_complain(self, definitions):
        assert definitions("def f(:") == ("def f(:", [])
        assert definitions("print(1)\0") == ("print(1)\0", [])


def public_answers(exercise):
    """The right answers to what `check` asks, by the shape of the first argument."""
    instances = exercise.instances(np.random.default_rng(0))
    return {arguments[0].shape: float(exercise.reference(*arguments)) for arguments in instances}


# --- a term, with nbgrader ------------------------------------------------------------------------------------

HARD_CODED = """
def floor_of(targets):
    return {answers}[targets.shape]
"""


def careless():
    """A right lesson with one function that never ends, one test cell deleted, and words on standard error."""
    noisy = with_first_line("00-learning_rate_derivative", "import sys; print('careful', file=sys.stderr)")
    endless = with_first_line("00-per_task_losses", "while True: pass")
    return noisy | {"00-per_task_losses": endless["00-per_task_losses"], "00-gradient_descent-check": None}


def parrot():
    """Answers for the public instances."""
    return {"01-floor": HARD_CODED.format(answers=public_answers(find("01.floor")))}


def meddler():
    """A test cell made empty, and a `check` that praises everything."""
    return {
        "01-adaptation_curve": "def adaptation_curve(*arguments):\n    return 0",
        "01-adaptation_curve-check": "pass",
        "01-sound_report": "def is_sound(report):\n    return 0\n\ndef check(*_):\n    print('Passed.')",
    }


SHADOW = """
from metalearn.course.exercises import hidden_tests

hidden_tests.hidden_test = hidden_tests._complaint = lambda *arguments: None
"""
PATCHES = """
from metalearn.course.exercises import exercise, grading, hidden_tests

hidden_tests.hidden_test = hidden_tests._complaint = lambda *arguments: None
setattr(hidden_tests, "_complaint", lambda *arguments: None)
nothing = setattr(hidden_tests, "_complaint", lambda *arguments: None)
nothing = hidden_tests.__setattr__("_complaint", lambda *arguments: None)
for each in exercise.all_exercises():
    object.__setattr__(each, "reference", lambda *arguments: 0)


@(lambda function: setattr(hidden_tests, "_complaint", print) or function)
def helper(number=setattr(hidden_tests, "_complaint", lambda *arguments: None)):
    return number


class Patch:
    setattr(hidden_tests, "_complaint", lambda *arguments: None)
"""


def patched(notebook):
    """The grader changed by cells of the student's own, one marked as a test, by one of the lesson, below a stub."""
    numbers = {cell.id: number for number, cell in enumerate(notebook.cells)}
    notebook.cells[numbers["00-per_task_losses"]].source += PATCHES
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += PATCHES
    marked = {**notebook.cells[numbers["00-per_task_losses-check"]].metadata["nbgrader"], "grade_id": "one-more"}
    notebook.cells.insert(5, nbformat.v4.new_code_cell(PATCHES))
    notebook.cells.insert(6, nbformat.v4.new_code_cell(PATCHES, metadata={"nbgrader": marked}))


def spread(notebook):
    """One solution in two cells of the student's own, and a cell of the lesson broken."""
    numbers = {cell.id: number for number, cell in enumerate(notebook.cells)}
    solution = notebook.cells[numbers["00-finite_difference"]]
    own = [
        nbformat.v4.new_code_cell("import jax\n\nminus = -1\nprint('a note')"),
        nbformat.v4.new_code_cell(solution.source.replace("finite_difference", "my_difference", 1)),
    ]
    solution.source = "finite_difference = jax.tree_util.Partial(my_difference)"
    notebook.cells[numbers["00-finite_difference"] : numbers["00-finite_difference"]] = own
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = "1 / 0"


def own(notebook):
    """Tasks of the student's own, in the cell that asks for them, and a helper with an imported decorator."""
    numbers = {cell.id: number for number, cell in enumerate(notebook.cells)}
    (asked,) = [cell for cell in notebook.cells if "yours" in cell.metadata.get("tags", [])]
    asked.source = asked.source.replace("maxval=2.0", "maxval=7.0")
    solution = notebook.cells[numbers["01-floor"]]
    solution.source = f"from functools import partial\n\n\n{solution.source}\n\n\nfloor_of = partial(floor_of)"


def twice(notebook):
    """A solution and a test that were copied and pasted, marks of the grader included."""
    for name in ("00-finite_difference", "00-per_task_losses-check"):
        number = [cell.id for cell in notebook.cells].index(name)
        notebook.cells.insert(number, nbformat.from_dict({**notebook.cells[number], "id": f"{name}-again"}))


def with_first_line(name, line):
    """Everything right, and one line more below the docstring of one solution."""
    solved = right(TERM[0])
    end_of_docstring = '    """\n'
    longer = solved[name].replace(end_of_docstring, f"{end_of_docstring}    {line}\n", 1)
    assert longer != solved[name]
    return solved | {name: longer}


def with_last_lines(name, lines):
    """Everything right, and lines below one solution that belong to no function."""
    return {**right(TERM[0]), name: f"{right(TERM[0])[name]}\n{lines}"}


# Submissions of the first lesson that are odd: what is written, and what is done to the notebook.
ODD = {
    "copied": ({}, twice),
    "loud": (with_first_line("00-finite_difference", "print('x' * 300_000)"), None),
    "quitter": (with_first_line("00-gradient_descent", "import os; os.kill(os.getpid(), 9)"), None),
    "astray": (with_last_lines("00-gradient_descent", "quit()\nwhile True:\n    pass"), None),
    "scripted": ({}, scripted),
    "spread": ({}, spread),
    "patched": (wrong(TERM[0]), patched),
    "shadow": (wrong(TERM[0]), None),
    "linked": ({}, None),
}


def submit(course, student, lesson, written):
    """Hands in the released lesson with the sources of some cells changed, or the cells deleted."""
    notebook = read(course / f"release/{lesson}/{lesson}.ipynb")
    assert written.keys() <= {cell.id for cell in notebook.cells}
    notebook.cells = [cell for cell in notebook.cells if written.get(cell.id, "") is not None]
    for cell in notebook.cells:
        cell.source = written.get(cell.id, cell.source)
    path = course / f"submitted/{student}/{lesson}/{lesson}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    return path


def submit_odd(course, student):
    """Hands in one of ODD."""
    written, change = ODD[student]
    path = submit(course, student, TERM[0], right(TERM[0]) | written)
    if change:
        notebook = read(path)
        change(notebook)
        nbformat.write(notebook, path)
    if student == "shadow":  # modules of the course, and the one that starts the kernel
        for name in ("tqdm", "ipykernel_launcher"):
            path.with_name(f"{name}.py").write_text(SHADOW)
    if student == "linked":
        path.unlink()
        path.symlink_to(course / f"source/{TERM[0]}/{TERM[0]}.ipynb")


def squeezed(text):
    """Code without spaces and without the tags of a page that shows it in colours."""
    return re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]*>", "", text)))


def nbgrader(course, *arguments, status=0):
    """Runs the command line of nbgrader in the folder of a course; what it wrote to standard error."""
    tools = os.path.dirname(sys.executable)  # nbgrader calls alembic by name
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    ran = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    assert ran.returncode == status, ran.stderr
    return ran.stderr


@pytest.fixture(scope="module")
def term(tmp_path_factory):
    """A course after one term: the scores in its gradebook, and its folder."""
    api = pytest.importorskip("nbgrader.api", reason="needs `uv sync --group classroom`")
    course = tmp_path_factory.mktemp("course")
    release(course, "--seed", SECRET, *TERM)
    nbgrader(course, "generate_assignment", "--assignment=*")
    for lesson in TERM:
        submit(course, "right", lesson, right(lesson))
        submit(course, "wrong", lesson, wrong(lesson))
        submit(course, "untouched", lesson, {})
    submit(course, "careless", TERM[0], careless())
    submit(course, "parrot", TERM[1], parrot())
    submit(course, "meddler", TERM[1], meddler())
    changed = submit(course, "own", TERM[1], right(TERM[1]))
    notebook = read(changed)
    own(notebook)
    nbformat.write(notebook, changed)
    for student in ODD:
        submit_odd(course, student)
    said = nbgrader(course, "autograde", "--assignment=*", "--Execute.timeout=30", status=1)  # there is one link
    with api.Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        by_hand = gradebook.find_grade("05-three_points", TERM[2], TERM[2], "right")
        assert by_hand.needs_manual_grade
        by_hand.manual_score = 2.5
        gradebook.db.commit()
        grades = [grade for submission in gradebook.assignments for notebook in submission.notebooks
                  for submitted in notebook.submissions for grade in submitted.grades]  # fmt: skip
        scores = {(grade.student.id, grade.name): grade.score for grade in grades}
        waiting = {(grade.student.id, grade.name) for grade in grades if grade.needs_manual_grade}
    nbgrader(course, "generate_feedback", "--assignment=*")
    return SimpleNamespace(course=course, scores=scores, waiting=waiting, said=said)


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


def feedback(term, student):
    pages = sorted((term.course / "feedback" / student).rglob("*.html"))
    assert pages
    return squeezed("".join(page.read_text("utf-8") for page in pages))


POINTS = {
    f"{exercise.id.replace('.', '-')}-check": exercise.difficulty
    for exercise in all_exercises()
    if exercise.lesson in {lesson[:2] for lesson in TERM}
}


@pytest.mark.slow
def test_an_archive_of_submissions_is_unpacked_to_where_nbgrader_looks(tmp_path):
    pytest.importorskip("nbgrader", reason="needs `uv sync --group classroom`")
    lesson = TERM[0]
    release(tmp_path, "--seed", SECRET, lesson)
    archive = tmp_path / f"downloaded/{lesson}/archive/all.zip"
    archive.parent.mkdir(parents=True)
    members = {
        f"ada/{lesson}.ipynb": "ada",
        f"emmy-2-{lesson}.ipynb": "emmy-2",
        f"gus/{lesson}/{lesson}.ipynb": "gus",
        f"Alan Turing_12_assignsubmission_file_/{lesson}.ipynb": "Alan Turing",
        f"Grace Hopper_345_assignsubmission_file_{lesson}.ipynb": "Grace Hopper",
        f"Ana_1_assignsubmission_file_/Ben-{lesson}.ipynb": "Ana",
        f"Ben_2_assignsubmission_file_/{lesson}.ipynb": "Ben",
        f"Eva_3_assignsubmission_file_/Ben_2_assignsubmission_file_/{lesson}.ipynb": "Eva",
        f"doe_123_456_{lesson}.ipynb": "doe",
        f"doejane_late_124_457_{lesson}-1.ipynb": "doejane",
        f"zoe-{lesson}.ipynb": "zoe",
        # Each of these is skipped, and no other file suffers.
        f"zoe/{lesson} (1).ipynb": None,  # her second
        f"..-{lesson}.ipynb": None,
        f"*-{lesson}.ipynb": None,
        f".hidden/{lesson}.ipynb": None,
        "eve/99_no_lesson.ipynb": None,
        f"eve/{lesson}.txt": None,
    }
    with zipfile.ZipFile(archive, "w") as packed:
        for name, student in members.items():
            packed.writestr(name, str(student))
    nbgrader(tmp_path, "zip_collect", lesson)
    collected = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.ipynb") if "submitted" in path.parts}
    found = {path.parts[1]: (tmp_path / path).read_text("utf-8") for path in collected}
    assert found == {student: student for student in members.values() if student}
    assert collected == {Path("submitted", student, lesson, f"{lesson}.ipynb") for student in found}


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTerm:
    def scores(self, term, student):
        return {name: score for (who, name), score in term.scores.items() if who == student}

    def test_who_solves_everything_has_all_points(self, term):
        assert self.scores(term, "right") == {**POINTS, "05-three_points": 2.5}

    @pytest.mark.parametrize("student", ["wrong", "untouched"])
    def test_who_solves_nothing_has_none(self, term, student):
        assert self.scores(term, student) == dict.fromkeys([*POINTS, "05-three_points"], 0)

    def test_an_answer_in_words_and_a_refused_notebook_wait_for_the_teacher(self, term):
        refused = {("linked", name) for name in POINTS if name.startswith("00")}  # not graded at all
        assert term.waiting == {("right", "05-three_points"), ("wrong", "05-three_points")} | refused

    def test_a_function_that_never_ends_costs_itself_and_a_deleted_test_and_noise_cost_nothing(self, term):
        expected = {name: points for name, points in POINTS.items() if name.startswith("00")}
        assert self.scores(term, "careless") == {**expected, "00-per_task_losses-check": 0}

    @pytest.mark.parametrize("student", ["parrot", "meddler"])
    def test_no_trick_with_the_visible_tests_earns_a_point(self, term, student):
        assert set(self.scores(term, student).values()) == {0}

    @pytest.mark.parametrize("student", ["copied", "loud", "scripted", "astray", "spread"])
    def test_what_only_disturbs_costs_nothing(self, term, student):
        """A copied cell, much output, scripts, code outside of functions, and cells that were changed or added."""
        assert self.scores(term, student) == {name: points for name, points in POINTS.items() if name.startswith("00")}

    def test_a_copy_of_a_graded_cell_is_named_in_the_feedback(self, term):
        assert feedback(term, "copied").count(squeezed("the last one counts")) == 2

    def test_who_ends_the_kernel_keeps_what_was_earned_before(self, term):
        later = {"00-gradient_descent-check", "00-learning_rate_derivative-check"}
        first = {name: points for name, points in POINTS.items() if name.startswith("00")}
        assert later < first.keys()
        assert self.scores(term, "quitter") == first | dict.fromkeys(later, 0)
        assert squeezed("so nothing below it was run") in feedback(term, "quitter")

    def test_a_cell_that_a_lesson_asks_to_change_stays_the_students(self, term):
        assert self.scores(term, "own") == {name: points for name, points in POINTS.items() if name.startswith("01")}
        assert squeezed("maxval=7.0") in feedback(term, "own")

    @pytest.mark.parametrize("student", ["shadow", "patched"])
    def test_neither_a_file_beside_the_notebook_nor_a_cell_changes_the_grader(self, term, student):
        assert set(self.scores(term, student).values()) == {0}

    def test_the_feedback_says_what_was_not_run_and_shows_what_was_written(self, term):
        told = feedback(term, "astray")
        assert squeezed("only what this cell defines was run, and not what starts on line") in told
        assert squeezed("quit()\nwhile True:") in told

    def test_a_link_to_another_file_is_refused_and_named(self, term):
        assert "is a symbolic link" in term.said
        assert set(self.scores(term, "linked").values()) == {0}
        assert not (term.course / "feedback/linked").exists()

    def test_no_script_of_a_student_runs_where_the_feedback_is_read(self, term, tmp_path):
        """In a process of its own: Playwright opens one browser at a time, and another test may have one open."""
        for needed in ("playwright", "axe_playwright_python"):
            pytest.importorskip(needed)
        (page_of_feedback,) = (term.course / "feedback/scripted").rglob("*.html")
        command = [sys.executable, "-c", READS_FEEDBACK, tmp_path, page_of_feedback.as_uri()]
        ran = subprocess.run(command, cwd=Path(__file__).parents[1] / "browser", capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        if "no Chromium" in ran.stdout:
            pytest.skip("needs Chromium")

    @pytest.mark.parametrize(("student", "name"), [("parrot", "01-floor"), ("meddler", "01-sound_report")])
    def test_the_tricks_do_fool_the_visible_tests(self, term, student, name):
        cells = graded_cells(read(term.course / f"autograded/{student}/{TERM[1]}/{TERM[1]}.ipynb"))
        assert "Passed." in str(cells[f"{name}-check"].outputs)
        assert cells["01-adaptation_curve-check"].source.startswith("check(")  # nbgrader put it back

    def test_the_feedback_names_the_mistake(self, term):
        told = feedback(term, "wrong")
        for name in POINTS:
            exercise = find(name.removesuffix("-check").replace("-", ".", 1))
            message = f"{exercise.id}: not right on the hidden instances. {exercise.misconceptions[0].diagnosis}"
            assert squeezed(f"AssertionError: {message}") in told

    def test_no_student_sees_the_secret(self, term):
        seeds = [hidden_seed(SECRET, exercise.id) for exercise in all_exercises()]
        pages = [path for folder in ("release", "feedback") for path in (term.course / folder).rglob("*.*")]
        assert len(pages) == len(TERM) * 4 + 4 + len(ODD) - 1  # and no other file
        for page in pages:
            text = page.read_text("utf-8")
            assert SECRET not in text and not any(str(seed) in text for seed in seeds)

    def test_no_student_sees_a_solution(self, term):
        released = squeezed("".join(path.read_text("utf-8") for path in (term.course / "release").rglob("*.ipynb")))
        assert "HIDDENTESTS" not in released and "SOLUTION" not in released
        own, others = feedback(term, "right"), feedback(term, "wrong") + feedback(term, "untouched")
        for lesson in TERM:
            text = (ROOT / f"solutions/{lesson}.py").read_text("utf-8")
            for solution in re.findall(rf"{builder.BEGIN}\n(    .*?)\n *{builder.END}", text, re.DOTALL):
                assert squeezed(solution) in own and squeezed(solution) not in others
                assert squeezed(solution.replace("\n", "\\n").replace('"', '\\"')) not in released
