"""What is released, and what the hidden tests and the grader do with it; test_submissions.py has the classroom."""

import logging
import os
import re
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from students import ROOT, graded_cells, with_scripts
from submissions import nbgrader
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
            cell.source = re.sub(r"\[[^\]]+\]\((contents|notation|decision_guide|sources)\.md\)( · )?", "", cell.source)
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
            (lambda to: release(to, "start_here"), ("--seed", "another one"), "has another seed, in hidden_seed"),
            (lambda to: change_a_released_lesson(to), (), "points or text were changed there"),
            (lambda to: None, ("--seed", " guessed "), "--seed must have at least 8 characters"),
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
        with_scripts(notebook)
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
            "AHEAD, (BEHIND, *REST) = 1, (-1, int('3'), len([2]))",
            "try:\n    import a\nexcept (ImportError, OSError):\n    a = None\nelse:\n    b = 1\nfinally:\n    c = 2",
            "if jax.devices():\n    def f():\n        return 1\nelif a:\n    pass\nelse:\n    f = jnp.sin",
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
            "a.b, x = 1, 2",
            "x, y = patch()",
            "x = list(patch())",
            "x = eval('1')",
            "if patch(): pass",
            "if True:\n    patch()",
            "try:\n    import a\nexcept patch(): pass",
            "try:\n    import a\nfinally:\n    patch()",
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

    @pytest.mark.parametrize("magics", ["%%time\n", "%%capture out\n\n", "\n%%time  \n%%capture\n"])
    def test_are_found_below_a_magic_that_measures_or_catches(self, definitions, magics):
        code, left_out = definitions(f"{magics}import os\nprint(1)")
        assert code.splitlines()[-1] == "import os" and left_out == [magics.count("\n") + 2]
        assert definitions(f"{magics}%%bash\nls")[0].strip("#\n") == ""

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


@pytest.mark.slow
def test_an_archive_of_submissions_is_unpacked_to_where_nbgrader_looks(tmp_path):
    pytest.importorskip("nbgrader", reason="needs `uv sync --group classroom`")
    lesson = "00_start_here"
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
