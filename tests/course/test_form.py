"""The form of a lesson: what a learner sees is text, pictures, questions and the code that is the lesson."""

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest

from metalearn.course import syllabus
from metalearn.course.exercises import exercise
from metalearn.course.publishing import builder, page

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.py"))

LINES, COLUMNS = 25, 88
SHOWS = {"show", "lines", "adaptation", "subplots", "explore", "playground"}  # calls that put a picture on the page
WIDEST = 700  # CSS pixels of a picture; in a narrow window a wider one shrinks until its words cannot be read
EQUATION = re.compile(r"\$\$")  # a displayed one


def learners(path):
    return builder.to_lesson(builder.read_source(path), path.stem)


def folded(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def visible(notebook):
    """The code cells whose code is seen, the stubs of exercises included."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and not folded(cell)]


def called(source):
    """The names of the functions that a cell calls, such as "show" for plots.show(...)."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "") for function in calls}


def too_large(notebook):
    return [
        f"{cell.id}: {len(lines)} lines, {max(map(len, lines))} columns"
        for cell in visible(notebook)
        if len(lines := cell.source.split("\n")) > LINES or max(map(len, lines)) > COLUMNS
    ]


def equation_before_a_picture(notebook):
    for cell in notebook.cells:
        if cell.get("attachments") or (cell.cell_type == "code" and called(cell.source) & SHOWS):
            return []
        if cell.cell_type == "markdown" and EQUATION.search(cell.source):
            return [f"{cell.id}: an equation before the first picture"]
    return ["there is no picture"]


def only_draws(notebook):
    """Visible cells of more than three lines in which nothing happens but that a picture is made.

    Such a cell shows a picture, and neither defines anything that a later cell uses, nor calls an exercise's function,
    nor checks or prints anything.
    """
    found = []
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or folded(cell) or not called(cell.source) & SHOWS:
            continue
        tree = ast.parse(cell.source)
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        stored |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        later = "\n".join(other.source for other in notebook.cells[position + 1 :] if other.cell_type == "code")
        used = any(re.search(rf"\b{name}\b", later) for name in stored)
        if len(cell.source.split("\n")) > 3 and not used and not called(cell.source) & {"print", "reveal"}:
            found.append(f"{cell.id}: only draws")
    return found


def answers_in_sight(notebook):
    """Visible calls of `reveal` that are given a literal."""
    found = []
    for cell in visible(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            revealed = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reveal"
            )
            if revealed and node.args and not any(isinstance(n, ast.Name) for n in ast.walk(node.args[0])):
                found.append(f"{cell.id}: {ast.unparse(node)}")
    return found


def solutions_in_sight(path, notebook):
    """Lines of a solution, as long as a statement, that stand outside its folded block."""
    seen = "\n".join(re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL) for cell in notebook.cells)
    shown = {"".join(line.split()) for line in seen.split("\n")}
    found = []
    for solution in re.findall(rf"{builder.BEGIN}\n(    .*?)\n *{builder.END}", path.read_text("utf-8"), re.DOTALL):
        lines = [line for line in map(str.strip, solution.split("\n")) if re.match(r"return .{20}", line)]
        found += [f"in sight: {line}" for line in lines if "".join(line.split()) in shown]
    return found


def sticks_to_a_folded_block(notebook):
    """Paragraphs right below a folded block in the same cell: JupyterLab leaves no space between the two."""
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    below = r"</details>\s*\n(?!\s*<details)(\S.*)"
    return [f"{cell.id}: below a folded block: {found}" for cell in texts for found in re.findall(below, cell.source)]


def faults(path):
    notebook = learners(path)
    return [
        *too_large(notebook),
        *equation_before_a_picture(notebook),
        *only_draws(notebook),
        *answers_in_sight(notebook),
        *solutions_in_sight(path, notebook),
        *sticks_to_a_folded_block(notebook),
    ]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_keeps_the_form(path):
    assert faults(path) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_picture_is_so_wide_that_its_words_become_small(path):
    cells = nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells
    shown = {cell.id: str(cell.get("outputs")) for cell in cells if "<svg" in str(cell.get("outputs"))}
    assert shown
    widths = {name: re.findall(r'<svg[^>]*? width="([\d.]+)"', text) for name, text in shown.items()}
    assert {name: found for name, found in widths.items() if any(float(width) > WIDEST for width in found)} == {}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_wrong_prediction_is_told_why_and_which_passage_to_read_again(path):
    text = "\n".join(cell.source for cell in learners(path).cells if cell.cell_type == "markdown")
    headings = {heading.strip() for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    guesses = importlib.import_module(f"metalearn.course.lessons.lesson_{path.stem[:2]}").PREDICTIONS
    assert guesses
    assert [guess.id for guess in guesses if not guess.why or guess.read not in headings] == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_takes_the_minutes_that_it_announces(path):
    """Those of exercises and derivations, the text at 150 words a minute, and eight for predictions and pictures."""
    texts = "\n".join(line for line in path.read_text("utf-8").split("\n") if line.startswith("# "))
    minutes = sum(definition.minutes for definition in exercise.exercises_of(path.stem[:2]))
    minutes += sum(map(int, re.findall(r"about (\d+) minutes", texts))) + len(re.findall(r"\w+", texts)) / 150 + 8
    assert abs(syllabus.find(path.stem[:2]).minutes - minutes) < 12


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_what_to_skip_when_short_of_time(path):
    text = path.read_text("utf-8").replace("\n# ", " ")
    advice = re.search(r"\*Short of time\?([^*]+)\*", text)
    assert advice
    headings = re.findall(r"^# #+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    named = re.findall(r'"(.+?)"', advice[1])
    assert [name for name in named if not any(heading.startswith(name) for heading in headings)] == []


TOP = "# %% [markdown]\n# # A lesson\n\n"
DRAWN = '\n# %%\nplots.show(curve, alt="A curve.")\n'
CLEAN = TOP + DRAWN + "\n# %% [markdown]\n# $$x = 1$$\n\n# %%\nguess.reveal(truth)\n"


@pytest.fixture
def lesson(tmp_path):
    """A function that writes a source, and returns it and its notebook."""

    def write(text):
        path = tmp_path / "02_toy.py"
        path.write_text(text, "utf-8")
        return path

    return write


def test_a_clean_lesson_has_no_fault(lesson):
    assert faults(lesson(CLEAN)) == []


@pytest.mark.parametrize(
    ("addition", "fault"),
    [
        ("\n# %%\n" + "x = 1\n" * 26, "26 lines"),
        ("\n# %%\n" + f"x = {'1' * 85}\n", "89 columns"),
        ('\n# %%\nguess.reveal("about 59 %")\n', "guess.reveal('about 59 %')"),
        ("\n# %%\nguess.reveal(-0.5)\n", "guess.reveal(-0.5)"),
        ('\n# %%\nfigure = 1\naxes = 2\nplots.lines(figure, axes)\nplots.show(figure, alt="A.")\n', "only draws"),
    ],
)
def test_a_fault_is_found_and_folding_mends_it(lesson, addition, fault):
    (found,) = faults(lesson(CLEAN + addition))
    assert fault in found
    assert faults(lesson(CLEAN + addition.replace("# %%", '# %% tags=["fold"]'))) == []


def test_an_equation_before_the_first_picture_is_found(lesson):
    assert "before the first picture" in faults(lesson(CLEAN.replace(DRAWN, "")))[0]


def test_a_paragraph_that_sticks_to_a_folded_block_is_found(lesson):
    block = "\n# %% [markdown]\n# <details><summary>Why?</summary>\n#\n# So.\n#\n# </details>\n"
    assert faults(lesson(CLEAN + block + block)) == []
    assert "below a folded block: And so on." in faults(lesson(CLEAN + block + "#\n# And so on.\n"))[0]


def test_a_solution_in_sight_is_found():
    path = ROOT / "solutions/02_maml.py"
    notebook = learners(path)
    assert solutions_in_sight(path, notebook) == []
    notebook.cells[-1].source += "\n\n    return jax.grad(loss_after_adaptation)(params)"
    assert solutions_in_sight(path, notebook) == ["in sight: return jax.grad(loss_after_adaptation)(params)"]


class TestFrame:
    @pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
    def test_every_lesson_has_its_top_and_its_bottom_before_it_has_run(self, path):
        lesson = syllabus.find(path.stem[:2])
        assert lesson.stem == path.stem
        for folder in ("lessons", "solutions"):
            notebook = nbformat.read(ROOT / f"{folder}/{path.stem}.ipynb", as_version=4)
            first, last = notebook.cells[0].source, notebook.cells[-1].source
            for part in (f"# {lesson.number} · {lesson.title}", lesson.claim, f"{lesson.minutes} minutes", lesson.kind):
                assert part in first
            assert page.OBJECTIVES in first
            assert first.count(f"]({page.CONTENTS})") == last.count(f"]({page.CONTENTS})") == 1

    @pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
    def test_a_picture_has_bytes_and_words(self, path):
        for folder in ("lessons", "solutions"):
            top = nbformat.read(ROOT / f"{folder}/{path.stem}.ipynb", as_version=4).cells[0]
            described = re.findall(r"!\[(.*?)\]\(attachment:opening-\w+\.png\)", top.source)
            assert len(described) == 2 and all(len(text.split()) >= 8 for text in described)
            assert all(top.attachments[name]["image/png"].startswith("iVBOR") for name in page.PICTURES)


class TestLinks:
    """As they are followed from `jupyter lab lessons/...`, which serves that folder alone, and from the root."""

    @pytest.mark.parametrize("path", sorted((ROOT / "lessons").glob("*.*")), ids=lambda path: path.name)
    def test_every_relative_link_of_a_lesson_leads_to_a_file_beside_it(self, path):
        if path.suffix == ".ipynb":
            cells = nbformat.read(path, as_version=4).cells
            texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        else:
            texts = [path.read_text("utf-8")]
        links = [link for text in texts for link in re.findall(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"", text)]
        relative = {a or b for a, b in links if not re.match(r"[a-z]+:|#", a or b)}
        assert relative
        dead = [link for link in relative if "/" in link or not (path.parent / link.partition("#")[0]).is_file()]
        assert dead == []
