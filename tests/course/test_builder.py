"""The builder: one source, two notebooks, no drift, and a clear word about every mistake in a source."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest

from metalearn import plots
from metalearn.course import __main__ as command
from metalearn.course import syllabus
from metalearn.course.publishing import builder, page

REPOSITORY = Path(__file__).parents[2]
EXERCISE = SimpleNamespace(
    id="02.twice",
    title="Twice",
    difficulty=2,
    minutes=5,
    expected="It prints $4$.",
    hints=("What is $x + x$?", "Add `x` to itself."),
)
SOURCE = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A toy

# %% tags=["hide-input"]
import os, warnings
def check(exercise_id, function):
    try:
        assert function(2) == 4
        print("passed")
    except NotImplementedError:
        print("not yet")

# %% [markdown]
# ## Exercise: twice
#
# Write a function that doubles.


# %% tags=["exercise"] exercise="02.twice"
def twice(x):
    \"\"\"Returns 2 x.\"\"\"
    ### BEGIN SOLUTION
    y = x
    return x + y
    ### END SOLUTION


# %%
# The line below says whether it is right.

# %% tags=["nbval-check-output"]
check("02.twice", twice)

# %% [markdown]
# The end.
"""

QUESTION = """\

# %% [markdown]
# ## Question: why?
#
# Show that $2x = x + x$.

# %% [markdown] tags=["free-text"] question="02.why"
# ### BEGIN SOLUTION
# By **definition**:
#
# $$2x = x + x.$$
# ### END SOLUTION
"""


@pytest.fixture(autouse=True)
def known_exercise(monkeypatch):
    monkeypatch.setattr(builder.exercise, "find", find)


@pytest.fixture
def root(tmp_path):
    """A course of one toy lesson."""
    write(tmp_path, SOURCE)
    return tmp_path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The same course, built and executed."""
    root = tmp_path_factory.mktemp("executed")
    write(root, SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder.exercise, "find", find)
        assert run(root) == 0
    return root


def write(root, text, stem="02_toy"):
    (root / "solutions").mkdir(exist_ok=True)
    path = root / "solutions" / f"{stem}.py"
    path.write_text(text)
    return path


def find(exercise_id):
    if exercise_id != EXERCISE.id:
        raise ValueError(f"no exercise has the id {exercise_id!r}")
    return EXERCISE


def read(path):
    return nbformat.read(path, as_version=4)


def cell(notebook, cell_id):
    (found,) = [cell for cell in notebook.cells if cell.id == cell_id]
    return found


def run(root, *arguments):
    return command.main(["build", "--root", str(root), *arguments])


def test_a_lesson_has_a_stub_where_the_solution_was(root):
    assert run(root, "--no-execute") == 0
    lesson = read(root / "lessons/02_toy.ipynb")
    stub = 'def twice(x):\n    """Returns 2 x."""\n    raise NotImplementedError  # your code here'
    assert cell(lesson, "02-twice").source == stub
    assert "SOLUTION" not in str(lesson)
    assert [c.id for c in lesson.cells if "x + y" in c.source] == ["02-twice-help"]  # where it is folded
    assert all(c.outputs == [] and c.execution_count is None for c in lesson.cells if c.cell_type == "code")
    assert not (root / "solutions/02_toy.ipynb").exists()


def test_a_solution_is_executed_and_loses_only_its_markers(executed):
    solution = read(executed / "solutions/02_toy.ipynb")
    code = 'def twice(x):\n    """Returns 2 x."""\n    y = x\n    return x + y'
    assert cell(solution, "02-twice").source == code
    assert cell(solution, "02-twice-check").outputs[0].text == "passed\n"
    assert cell(solution, "02-twice-check").metadata.tags == ["nbval-check-output"]
    assert [c.metadata for c in solution.cells] == [c.metadata for c in read(executed / "lessons/02_toy.ipynb").cells]


def test_hints_stand_below_the_check_and_are_written_once(executed):
    lesson, solution = read(executed / "lessons/02_toy.ipynb"), read(executed / "solutions/02_toy.ipynb")
    ids = [c.id for c in lesson.cells]
    assert ids == [c.id for c in solution.cells]
    assert ids[ids.index("02-twice-check") + 1] == "02-twice-help"
    summaries = re.findall("<summary>(.*)</summary>", cell(lesson, "02-twice-help").source)
    assert summaries == ["Expected output", "Hint 1", "Hint 2", "Solution"]
    assert "\n\nWhat is $x + x$?\n\n" in cell(lesson, "02-twice-help").source
    code = 'def twice(x):\n    """Returns 2 x."""\n    y = x\n    return x + y'
    assert (
        f"<summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>" in cell(lesson, "02-twice-help").source
    )
    assert "Solution" not in cell(solution, "02-twice-help").source


def test_difficulty_and_minutes_stand_below_the_heading(root):
    run(root, "--no-execute")
    text = read(root / "lessons/02_toy.ipynb").cells[2].source
    facts = "**Exercise 02.1** · difficulty ●●○ (2 of 3) · about 5 minutes"
    assert text == f"## Exercise: twice\n\n{facts}\n\nWrite a function that doubles."


def test_a_question_waits_for_a_derivation_and_the_worked_lesson_has_one(root):
    source = builder.read_source(write(root, SOURCE + QUESTION))
    asked = cell(builder.to_lesson(source, "02_toy"), "02-why")
    assert (asked.cell_type, asked.source) == ("markdown", "*Your answer here.*")
    answer = "By **definition**:\n\n$$2x = x + x.$$"
    assert cell(builder.to_solution(source), "02-why").source == answer
    folded = cell(builder.to_lesson(source, "02_toy"), "02-why-answer").source
    assert folded == f"<details>\n<summary>A model answer</summary>\n\n{answer}\n\n</details>"


def test_a_question_may_stand_between_an_exercise_and_its_check(root):
    write(root, SOURCE.replace("# %%\n# The line below", QUESTION + "\n# %%\n# The line below"))
    assert run(root, "--no-execute") == 0
    assert cell(read(root / "lessons/02_toy.ipynb"), "02-twice-check").source == 'check("02.twice", twice)'


OPENING = """\
# %% [markdown] tags=["opening"]
# **Afterwards you can**
#
# - **double** a number,
#   whatever it is.
#
# **New symbols**
#
# - $x$: a number
"""
TOY = syllabus.Lesson("02", "toy", "Toys: twice a number", "Twice is a sum.", 5, "Toys", needs=("01",))
LAST = syllabus.Lesson("03", "last", "Last", "It ends.", 5, "Toys", core=False)
PNG = "iVBORw0KGgo="


def draw_a_toy():
    half = "<rect width='10' height='3'/>"
    return plots.element(half, 10, 3, alt="A picture of a toy."), plots.element(half, 10, 3, alt="Its second half.")


@pytest.fixture
def framed(root, monkeypatch):
    """The toy lesson with an opening, in a course of three; its picture is drawn by `draw_a_toy`."""
    monkeypatch.setattr(syllabus, "LESSONS", (*syllabus.LESSONS[:2], TOY, LAST))
    monkeypatch.setattr(page, "draws", lambda number: draw_a_toy if number == "02" else None)
    write(root, SOURCE.replace("# %% [markdown]\n# # A toy\n", OPENING))
    return root


class TestFrame:
    def test_the_top_comes_from_the_table_of_the_course(self, framed):
        assert run(framed, "--no-execute") == 0
        top = read(framed / "lessons/02_toy.ipynb").cells[0]
        for text in (
            "# 02 · Toys: twice a number\n",
            "Twice is a sum.",
            "02 of 03 · core · 5 minutes",
            "[← 01](01_learning_to_learn.ipynb) · [03 →](03_last.ipynb)",
            "Before this: [01 · Learning to learn](01_learning_to_learn.ipynb).",
            "**Afterwards you can**\n\n- **double** a number,\n  whatever it is.",
            "**New symbols**\n\n- $x$: a number",
            "![A picture of a toy.](attachment:opening-left.png)",
            "![Its second half.](attachment:opening-right.png)",
        ):
            assert text in top.source
        assert all(top.attachments[name]["image/png"].startswith(PNG[:5]) for name in page.PICTURES)

    def test_the_bottom_leads_on(self, framed):
        run(framed, "--no-execute")
        bottom = read(framed / "lessons/02_toy.ipynb").cells[-1]
        assert bottom.id == "02_toy-closing"
        assert "Next: [03 · Last](03_last.ipynb). It ends." in bottom.source
        assert "This is the last lesson." in page.closing(LAST)

    def test_a_picture_may_differ_in_its_bytes_and_must_not_be_missing(self, framed):
        run(framed, "--no-execute")
        path = framed / "lessons/02_toy.ipynb"

        def with_picture(data):
            notebook = read(path)
            notebook.cells[0].attachments["opening-right.png"]["image/png"] = data
            path.write_text(builder.as_text(notebook), "utf-8")
            return [text for text in builder.check(framed) if text.startswith("lessons/")]

        assert with_picture(PNG) == []
        assert with_picture("") == ["lessons/02_toy.ipynb: the picture of cell 02_toy-00 is missing; build it again"]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("# **Afterwards you can**", "# Afterwards", "the opening must be '**Afterwards you can**' above a list"),
            ("#   whatever it is.", "#   whatever it is.\n#\n# And more.", "the opening must be"),
            ("# %% [markdown] tags", "# %% [markdown]\n# First.\n\n# %% [markdown] tags", "must be the first cell"),
            ('# %% tags=["hide-input"]', '# %% [markdown] tags=["fold"]\n# %%', "only a code cell"),
        ],
    )
    def test_a_mistake_is_named(self, framed, capsys, old, new, message):
        path = framed / "solutions/02_toy.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        assert run(framed, "--no-execute") == 1
        assert message in capsys.readouterr().out

    def test_a_lesson_that_is_not_in_the_table_has_no_opening(self, framed, monkeypatch):
        monkeypatch.setattr(syllabus, "LESSONS", syllabus.LESSONS[:2])
        with pytest.raises(builder.SourceError, match=r"needs its line in metalearn/course/syllabus\.py"):
            builder.read_source(framed / "solutions/02_toy.py")

    def test_a_picture_without_words_is_refused(self, framed, monkeypatch):
        monkeypatch.setattr(page, "draws", lambda number: lambda: (plots.element("", 10, 3),) * 2)
        with pytest.raises(builder.SourceError, match="needs pictures with alternative text"):
            builder.read_source(framed / "solutions/02_toy.py")


def test_a_folded_cell_is_folded_in_jupyterlab_and_on_the_website(root):
    write(root, SOURCE.replace("# %%\n# The line below", '# %% tags=["fold", "slow"]\n# The line below'))
    assert run(root, "--no-execute") == 0
    (folded,) = [c for c in read(root / "lessons/02_toy.ipynb").cells if c.source.startswith("# The line below")]
    assert folded.metadata == {"tags": ["hide-input", "slow"], "jupyter": {"source_hidden": True}}


def test_a_change_of_text_keeps_what_was_executed(root, executed):
    shutil.copytree(executed, root, dirs_exist_ok=True)
    write(root, SOURCE.replace("The end.", "The very end."))
    assert run(root, "--no-execute") == 0
    assert builder.check(root) == []
    write(root, SOURCE.replace("# The line below", "x = 1  # The line below"))
    before = (root / "solutions/02_toy.ipynb").read_bytes()
    assert run(root, "--no-execute") == 0
    assert (root / "solutions/02_toy.ipynb").read_bytes() == before
    assert builder.check(root)[0].startswith("solutions/02_toy.ipynb: differs from its source")


def test_two_builds_are_byte_identical(root):
    lesson = root / "lessons/02_toy.ipynb"
    run(root, "--no-execute")
    first = lesson.read_bytes()
    lesson.unlink()
    run(root, "--no-execute")
    assert lesson.read_bytes() == first and first.endswith(b"}\n")


def test_every_cell_id_is_valid_and_unique(root):
    run(root, "--no-execute")
    ids = [c.id for c in read(root / "lessons/02_toy.ipynb").cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell_id) for cell_id in ids)


def test_outputs_name_no_path_of_this_machine(root):
    noisy = SOURCE + '\n# %%\nprint(os.getcwd() + "/data"); warnings.warn("careful")\nprint(os.__file__)\n'
    write(root, noisy.replace("print(os.__file__)", 'print("a/lib/site-packages/b.py")'))
    assert run(root) == 0
    text = (root / "solutions/02_toy.ipynb").read_text()
    assert "careful" in text and "solutions/data" in text and '"site-packages/b.py' in text
    assert str(root) not in text and "ipykernel_" not in text
    assert all(c.metadata.keys() <= {"tags", "exercise"} for c in nbformat.reads(text, 4).cells)


def test_a_build_does_not_touch_the_learners_progress(root):
    write(
        root,
        SOURCE
        + '\n# %%\nprogress = os.environ["METALEARN_PROGRESS"]\n'
        + 'print("progress in", progress)\nopen(progress, "w").write("{}")\n',
    )
    assert run(root) == 0
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == ["02_toy.ipynb", "02_toy.ipynb", "02_toy.py"]


def test_a_failing_cell_keeps_the_old_files_and_is_shown(root, capsys):
    assert run(root) == 0
    before = {p: p.read_bytes() for p in root.rglob("*.ipynb")}
    write(root, SOURCE.replace("# The line below", "1 / 0  # The line below"))
    assert run(root) == 1
    assert before == {p: p.read_bytes() for p in root.rglob("*.ipynb")}
    printed = capsys.readouterr().out
    assert "1 / 0  # The line below" in printed and "ZeroDivisionError" in printed and "\x1b" not in printed


class TestCheck:
    @pytest.fixture
    def built(self, root, executed):
        shutil.copytree(executed, root, dirs_exist_ok=True)
        return root

    def spoil(self, path, change):
        notebook = json.loads(path.read_text())
        change(notebook)
        path.write_text(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n")

    def complaint(self, root):
        (complaint,) = builder.check(root)
        return complaint

    def test_passes_after_a_build_and_writes_nothing(self, built):
        before = {p: p.stat().st_mtime_ns for p in built.rglob("*")}
        assert run(built, "--check") == 0
        assert before == {p: p.stat().st_mtime_ns for p in built.rglob("*")}

    def test_names_the_first_cell_that_an_edited_source_changed(self, built, capsys):
        write(built, SOURCE.replace("The end.", "The very end."))
        assert run(built, "--check") == 1
        printed = capsys.readouterr().out
        assert "lessons/02_toy.ipynb: differs from its source, first in cell 7 (02_toy-07)" in printed
        assert "solutions/02_toy.ipynb: differs from its source, first in cell 7 (02_toy-07)" in printed

    @pytest.mark.parametrize("folder", ["lessons", "solutions"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda notebook: notebook["cells"][1].update(id="other"),
            lambda notebook: notebook["cells"][1].update(source="pass"),
            lambda notebook: notebook["cells"][1]["metadata"].update(tags=[]),
            lambda notebook: notebook["cells"].pop(),
            lambda notebook: notebook["cells"].append(notebook["cells"][1] | {"id": "last"}),
            lambda notebook: notebook["metadata"].update(author="me"),
        ],
    )
    def test_finds_a_notebook_edited_by_hand(self, built, folder, change):
        self.spoil(built / folder / "02_toy.ipynb", change)
        assert self.complaint(built).startswith(f"{folder}/02_toy.ipynb: ")

    def test_finds_outputs_in_a_lesson(self, built):
        self.spoil(built / "lessons/02_toy.ipynb", lambda notebook: notebook["cells"][1].update(execution_count=1))
        assert "cell 1" in self.complaint(built)

    def test_ignores_outputs_and_widget_state_of_a_solution(self, built):
        def change(notebook):
            notebook["metadata"]["widgets"] = {}
            notebook["cells"][5]["outputs"] = []

        self.spoil(built / "solutions/02_toy.ipynb", change)
        assert builder.check(built) == []

    def test_finds_a_cell_that_was_not_executed(self, built):
        self.spoil(built / "solutions/02_toy.ipynb", lambda notebook: notebook["cells"][1].update(execution_count=None))
        assert "cell 1 (02_toy-01) was never executed" in self.complaint(built)

    def test_finds_a_stored_error(self, built):
        error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
        self.spoil(built / "solutions/02_toy.ipynb", lambda notebook: notebook["cells"][1].update(outputs=[error]))
        assert "stores an error" in self.complaint(built)

    @pytest.mark.parametrize("html", [plots.card("<svg></svg>"), plots.card("<svg></svg>").replace("margin:16px", "")])
    def test_finds_a_figure_of_an_older_style(self, built, html):
        """nbval would find it too, after half an hour of other tests."""
        figure = {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}
        self.spoil(built / "solutions/02_toy.ipynb", lambda notebook: notebook["cells"][1].update(outputs=[figure]))
        is_old = plots.STYLE not in html
        assert ["a figure of an older style" in found for found in builder.check(built)] == [True] * is_old

    def test_finds_a_missing_notebook(self, built):
        (built / "lessons/02_toy.ipynb").unlink()
        assert "is missing" in self.complaint(built)

    @pytest.mark.parametrize("folder", ["lessons", "solutions"])
    def test_finds_a_notebook_without_a_source(self, built, folder):
        (built / folder / "09_left_over.ipynb").write_text("{}")
        assert self.complaint(built) == f"{folder}/09_left_over.ipynb: has no source"

    def test_finds_a_merge_conflict(self, built):
        (built / "lessons/02_toy.ipynb").write_text("<<<<<<< ours")
        assert "is not a notebook" in self.complaint(built)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("    ### END SOLUTION\n", "", 30, "without its partner"),
        ("    ### BEGIN SOLUTION\n", "", 32, "without its partner"),
        ("    y = x\n", "    ### BEGIN SOLUTION\n", 31, "without its partner"),
        ("    y = x\n    return x + y", "    return 2 * x  ### BEGIN SOLUTION", 31, "must stand alone"),
        ("# The line below", "### BEGIN SOLUTION\n### END SOLUTION\n# The", 36, "outside an exercise cell or"),
        ('check("02.twice", twice)', "twice(2)", 27, 'not followed by its check("02.twice"'),
        ('check("02.twice", twice)', 'check("02.thrice", twice)', 39, "unknown exercise"),
        ("02.twice", "03.twice", 27, "does not start with the lesson's number, 02"),
        (' exercise="02.twice"', "", 27, "needs both"),
        ('tags=["exercise"] ', "", 27, "needs both"),
        ("# %% [markdown]\n# ## Exercise: twice", "# %%\n# ## Exercise: twice", 27, "needs a markdown cell"),
        ("# ## Exercise: twice", "# As we saw.\n#\n# ## Exercise: twice", 29, "that begins with a heading"),
        ("# %% [markdown]\n# # A toy", "x = 1\n\n# %% [markdown]\n# # A toy", 1, "every line"),
        ("# ### BEGIN SOLUTION\n", "", 54, "END SOLUTION without its partner"),
        (' question="02.why"', "", 50, "a question needs a markdown cell with both"),
        ('tags=["free-text"] ', "", 50, "a question needs a markdown cell with both"),
        ('[markdown] tags=["free-text"]', 'tags=["free-text"]', 50, "a question needs a markdown cell with both"),
        ('tags=["free-text"] question="02.why"', "", 50, "outside an exercise cell or a free-text cell"),
        ("02.why", "03.why", 50, "question 03.why does not start with the lesson's number, 02"),
        ("02.why", "02.twice", 50, "question 02.twice appears twice"),
        ("# ## Question", "# As a question", 50, "question 02.why needs a markdown cell that begins with a heading"),
    ],
)
def test_a_mistake_in_a_source_is_named_with_its_line(root, old, new, line, message, capsys):
    assert old in SOURCE + QUESTION
    write(root, (SOURCE + QUESTION).replace(old, new))
    assert run(root, "--no-execute") == 1
    printed = capsys.readouterr().out
    assert f"solutions/02_toy.py:{line}: " in printed and message in printed
    assert builder.check(root)[0] in printed


def test_a_question_without_an_answer_is_a_mistake(root):
    path = write(root, SOURCE + re.sub("# ### .*\n", "", QUESTION))
    with pytest.raises(builder.SourceError, match=r"02_toy.py:50: question 02.why has no solution markers"):
        builder.read_source(path)


def test_an_exercise_without_markers_is_a_mistake(root):
    path = write(root, SOURCE.replace("    ### BEGIN SOLUTION\n", "").replace("    ### END SOLUTION\n", ""))
    with pytest.raises(builder.SourceError, match=r"02_toy.py:27: exercise 02.twice has no solution markers"):
        builder.read_source(path)


def test_a_repeated_exercise_is_a_mistake(root):
    body = SOURCE[SOURCE.index("# %% [markdown]\n# ## Exercise") :]
    path = write(root, SOURCE + "\n" + body)
    with pytest.raises(builder.SourceError, match=r"exercise 02.twice appears twice"):
        builder.read_source(path)


def test_a_lesson_can_be_named_with_or_without_its_number(root):
    write(root, SOURCE, stem="03_other")
    assert [p.stem for p in builder.sources(root)] == ["02_toy", "03_other"]
    assert [p.stem for p in builder.sources(root, ["toy"])] == [p.stem for p in builder.sources(root, ["02_toy"])]
    assert [p.stem for p in builder.sources(root, ["02"])] == ["02_toy"]


def test_an_unknown_lesson_is_refused_with_the_known_ones(root, capsys):
    with pytest.raises(SystemExit) as stop:
        run(root, "--check", "tou")
    assert stop.value.code == 2
    assert "no such lesson: tou (there are 02_toy)" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((REPOSITORY / "solutions").glob("*.py")), ids=lambda path: path.stem)
def test_a_source_survives_the_round_trip_through_jupytext(path):
    """A `cell_metadata_filter` in the header would drop tags on the way."""
    cells = jupytext.read(path).cells
    again = jupytext.reads(jupytext.writes(jupytext.read(path), fmt="py:percent"), fmt="py:percent").cells
    assert [(c.source, c.metadata) for c in cells] == [(c.source, c.metadata) for c in again]
