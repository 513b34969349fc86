"""What a class hands in for lesson 00, one kind of submission to a function, and what each deserves.

A function's docstring says what was done, and its body does it: to a notebook in which every exercise is solved
(`honest`, `damaged`) or none is (`cheating`). `KINDS` is the table of all of them.
"""

import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell
from students import SCRIPTS, TERM, right, with_scripts, wrong

from metalearn.course.exercises.exercise import all_exercises, find

LESSON = TERM[0]
FINITE_DIFFERENCE, PER_TASK_LOSSES, GRADIENT_DESCENT, LEARNING_RATE = (
    f"00-{name}" for name in ("finite_difference", "per_task_losses", "gradient_descent", "learning_rate_derivative")
)
IN_ORDER = "A notebook counts as it runs from top to bottom."
NOT_CALLED = "Outside of functions nothing of the student's own is called; the feedback names the line."
SAME_PROCESS = "The function that is judged shares a process with the judge."
PUBLIC = "The worked lessons and the references are public."


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
      name: also the student's.
      what: a sentence.
      change: what is done to the notebook, or to the path of its file.
      start: the cells that the student wrote before, by lesson.
      deserved, earned: points by test cell.
      because: why a kind earns what it does not deserve, or less.
    """

    family: str
    name: str
    what: str
    change: Callable
    start: Callable
    lessons: tuple
    deserved: dict
    earned: dict
    because: str


KINDS: list[Kind] = []


def everything(exercise):
    return True


def nothing(exercise):
    return False


def but(*exercises):
    return lambda exercise: exercise not in exercises


def only(*exercises):
    return lambda exercise: exercise in exercises


def points(lessons, earns):
    """The points of the exercises that `earns` says yes to, by test cell."""
    numbers = {lesson[:2] for lesson in lessons}
    names = {each.id.replace(".", "-"): each.difficulty for each in all_exercises() if each.lesson in numbers}
    return {f"{name}-check": worth * earns(name) for name, worth in names.items()}


def submission(family, deserves=everything, earns=None, because="", start=right, lessons=(LESSON,)):
    """Adds a function to the table."""

    def add(change):
        deserved = points(lessons, deserves)
        earned = deserved if earns is None else points(lessons, earns)
        KINDS.append(Kind(family, change.__name__, change.__doc__, change, start, lessons, deserved, earned, because))
        return change

    return add


def honest(deserves=everything, **more):
    return submission("honest", deserves, **more)


def damaged(deserves=everything, **more):
    return submission("damaged", deserves, **more)


def cheating(deserves=nothing, start=lambda lesson: {}, **more):
    return submission("cheating", deserves, start=start, **more)


# --- changes to a notebook ------------------------------------------------------------------------------------


def place(notebook, name):
    return [cell.id for cell in notebook.cells].index(name)


def source(notebook, name):
    return notebook.cells[place(notebook, name)].source


def write(notebook, name, text):
    notebook.cells[place(notebook, name)].source = textwrap.dedent(text).strip()


def insert(notebook, name, *cells):
    """Puts cells, or code for them, above one."""
    added = [new_code_cell(textwrap.dedent(cell).strip()) if isinstance(cell, str) else cell for cell in cells]
    notebook.cells[place(notebook, name) : place(notebook, name)] = added


def first_line(notebook, name, line):
    """Adds a line below the docstring of a solution."""
    end_of_docstring = '    """\n'
    before = source(notebook, name)
    assert end_of_docstring in before
    write(notebook, name, before.replace(end_of_docstring, f"{end_of_docstring}    {line}\n", 1))


def replace(notebook, name, old, new):
    before = source(notebook, name)
    assert old in before
    write(notebook, name, before.replace(old, new))


def delete(notebook, *names):
    notebook.cells = [cell for cell in notebook.cells if cell.id not in names]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def imports(notebook):
    """The lesson's first cell with code."""
    return code_cells(notebook)[0]


def saved(path, change):
    """Changes the text of a file."""
    path.write_bytes(change(path.read_bytes()))


# --- the term: three whole lessons ----------------------------------------------------------------------------


@submission("term", lessons=TERM)
def solved(notebook):
    """Everything is right."""


@submission("term", nothing, start=wrong, lessons=TERM)
def mistaken(notebook):
    """Every exercise has its likeliest mistake."""


@submission("term", nothing, start=lambda lesson: {}, lessons=TERM)
def untouched(notebook):
    """Nothing was written."""


@submission("term", lessons=TERM[1:2])
def own_tasks(notebook):
    """A cell that the lesson asks to change is changed, and a solution has an imported wrapper."""
    (asked,) = [cell for cell in notebook.cells if "yours" in cell.metadata.get("tags", [])]
    asked.source = asked.source.replace("maxval=2.0", "maxval=7.0")
    before = source(notebook, "01-floor")
    write(notebook, "01-floor", f"from functools import partial\n\n\n{before}\n\n\nfloor_of = partial(floor_of)")


# --- honest: written by someone who meant to solve the lesson -------------------------------------------------


@honest(only(FINITE_DIFFERENCE, GRADIENT_DESCENT))
def half_done(notebook):
    """Two exercises are solved, and two still raise NotImplementedError."""
    for name in (PER_TASK_LOSSES, LEARNING_RATE):
        write(
            notebook, name, source(notebook, name).partition('    """\n')[0] + '    """\n    raise NotImplementedError'
        )


@honest(but(PER_TASK_LOSSES))
def right_on_some(notebook):
    """A function handles batches that are tuples, and no others."""
    first_line(notebook, PER_TASK_LOSSES, "inputs, targets = batches; batches = (inputs, targets)")


@honest(but(PER_TASK_LOSSES, GRADIENT_DESCENT))
def no_result(notebook):
    """One function returns nothing, and one returns `...`."""
    replace(notebook, PER_TASK_LOSSES, "    return ", "    result = ")
    replace(notebook, GRADIENT_DESCENT, "    return last", "    return ...")


@honest(nothing)
def emptied(notebook):
    """The cells of the solutions are empty."""
    for name in (FINITE_DIFFERENCE, PER_TASK_LOSSES, GRADIENT_DESCENT, LEARNING_RATE):
        write(notebook, name, "")


@honest(but(GRADIENT_DESCENT))
def in_place(notebook):
    """A function changes the arrays that it is given."""
    change = "jax.tree.map(lambda p: p.__isub__(0.5) if np.ndim(p) else p, theta)"
    replace(notebook, GRADIENT_DESCENT, "return last", f"{change}\n    return last")


@honest(but(PER_TASK_LOSSES, FINITE_DIFFERENCE))
def renamed(notebook):
    """One function has another name, and one an argument too many."""
    replace(notebook, PER_TASK_LOSSES, "def per_task_losses(", "def losses_per_task(")
    replace(notebook, FINITE_DIFFERENCE, "step: float,", "step: float, order: int,")


@honest()
def terse(notebook):
    """Arguments have other names, and annotations, docstrings and comments are gone."""
    write(notebook, PER_TASK_LOSSES, "def per_task_losses(f, p, b): return jax.vmap(lambda b: f(p, b))(b)")


@honest()
def wordy(notebook):
    """Solutions are full of comments, old attempts and blank lines."""
    replace(notebook, PER_TASK_LOSSES, "    return", "    # return loss(params, batches)\n\n\n    return")
    write(notebook, PER_TASK_LOSSES, f"# my notes\n\n{source(notebook, PER_TASK_LOSSES)}\n\n\n# done, I think\n")


@honest()
def second_thoughts(notebook):
    """A wrong attempt stands above the right one, in the same cell."""
    attempt = "def per_task_losses(*arguments):\n    return 0"
    write(notebook, PER_TASK_LOSSES, f"{attempt}\n\n\n{source(notebook, PER_TASK_LOSSES)}")


@honest()
def helpers(notebook):
    """A solution calls functions of a cell of the student's own, named as they like."""
    insert(notebook, FINITE_DIFFERENCE, "def moved(p, d, s):\n    return jax.tree.map(lambda a, b: a + s * b, p, d)")
    write(
        notebook,
        FINITE_DIFFERENCE,
        """
        def finite_difference(function, point, direction, step):
            return (function(moved(point, direction, step)) - function(moved(point, direction, -step))) / 2 / step
        """,
    )


@honest()
def spread(notebook):
    """One solution stands in two cells of the student's own, and the lesson's imports are broken."""
    below = source(notebook, FINITE_DIFFERENCE).replace("finite_difference", "my_difference", 1)
    insert(notebook, FINITE_DIFFERENCE, "import jax\n\nminus = -1\nprint('a note')", below)
    write(notebook, FINITE_DIFFERENCE, "finite_difference = jax.tree_util.Partial(my_difference)")
    imports(notebook).source = "1 / 0"


@honest()
def own_imports(notebook):
    """Imports stand in the solutions and within functions."""
    first_line(notebook, GRADIENT_DESCENT, "import jax.tree_util as trees")
    replace(notebook, GRADIENT_DESCENT, "jax.tree.map", "trees.tree_map")
    write(notebook, PER_TASK_LOSSES, f"from jax import *\n\n\n{source(notebook, PER_TASK_LOSSES)}")


@honest()
def other_libraries(notebook):
    """NumPy in place of jnp, and optax in place of arithmetic."""
    write(
        notebook,
        FINITE_DIFFERENCE,
        """
        def finite_difference(function, point, direction, step):
            values = [function(optax.tree.add_scale(point, sign * step, direction)) for sign in (1, -1)]
            return np.subtract(*map(np.asarray, values)) / np.float64(2 * step)
        """,
    )


@honest()
def python_loops(notebook):
    """Loops of Python in place of scan and vmap."""
    write(
        notebook,
        GRADIENT_DESCENT,
        """
        def gradient_descent(objective, theta, learning_rate, num_steps):
            for _ in range(num_steps):
                theta = jax.tree.map(lambda p, g: p - learning_rate * g, theta, jax.grad(objective)(theta))
            return theta
        """,
    )


@honest()
def recursive(notebook):
    """A function that calls itself."""
    write(
        notebook,
        GRADIENT_DESCENT,
        """
        def gradient_descent(objective, theta, learning_rate, num_steps):
            if num_steps == 0:
                return theta
            theta = gradient_descent(objective, theta, learning_rate, num_steps - 1)
            return jax.tree.map(lambda p, g: p - learning_rate * g, theta, jax.grad(objective)(theta))
        """,
    )


@honest()
def decorated(notebook):
    """Decorators of JAX and of functools, and one of the student's own."""
    write(notebook, PER_TASK_LOSSES, f"@partial(jax.jit, static_argnums=0)\n{source(notebook, PER_TASK_LOSSES)}")
    insert(notebook, PER_TASK_LOSSES, "from functools import partial, wraps")
    insert(
        notebook, GRADIENT_DESCENT, "def noted(f):\n    @wraps(f)\n    def g(*a):\n        return f(*a)\n    return g"
    )
    write(notebook, GRADIENT_DESCENT, f"@noted\n{source(notebook, GRADIENT_DESCENT)}")


@honest()
def lambdas(notebook):
    """A lambda, and a partial application of another."""
    write(notebook, PER_TASK_LOSSES, "per_task_losses = lambda f, p, b: jax.vmap(f, in_axes=(None, 0))(p, b)")
    write(
        notebook,
        FINITE_DIFFERENCE,
        """
        import functools

        along = lambda two, f, p, d, s: (f(optax.tree.add_scale(p, s, d)) - f(optax.tree.add_scale(p, -s, d))) / s / two
        finite_difference = functools.partial(along, 2)
        """,
    )


@honest()
def of_a_class(notebook):
    """A static method, and a dataclass that a helper makes."""
    write(
        notebook,
        PER_TASK_LOSSES,
        """
        import dataclasses

        @dataclasses.dataclass
        class Tasks:
            axes: tuple = (None, 0)

            @staticmethod
            def losses(loss, params, batches):
                return jax.vmap(loss, Tasks().axes)(params, batches)

        per_task_losses = Tasks.losses
        """,
    )


@honest(earns=but(PER_TASK_LOSSES), because=NOT_CALLED)
def instance(notebook):
    """The function is an instance of the student's own class."""
    write(
        notebook,
        PER_TASK_LOSSES,
        """
        class Losses:
            def __call__(self, loss, params, batches):
                return jax.vmap(loss, in_axes=(None, 0))(params, batches)

        per_task_losses = Losses()
        """,
    )


@honest(earns=but(PER_TASK_LOSSES), because=NOT_CALLED)
def factory(notebook):
    """The function is what another function of the student's own returns."""
    write(
        notebook,
        PER_TASK_LOSSES,
        """
        def over(axes):
            return lambda loss, params, batches: jax.vmap(loss, in_axes=axes)(params, batches)

        per_task_losses = over((None, 0))
        """,
    )


@honest()
def constants(notebook):
    """Numbers have names, in a cell of their own, some of them two at a time or made by built-in functions."""
    insert(notebook, FINITE_DIFFERENCE, 'AHEAD, BEHIND = 1, -1\nTWO: int = int("2")\n[ONE, *_] = range(1, 4)')
    insert(notebook, FINITE_DIFFERENCE, "SIDES = len((AHEAD, BEHIND))\nHALF = jnp.array(0.5)")
    replace(notebook, FINITE_DIFFERENCE, "(2 * step)", "(SIDES * ONE * step) * (TWO * HALF)")


@honest()
def guarded(notebook):
    """An import that may fail and a definition under a condition."""
    insert(
        notebook,
        PER_TASK_LOSSES,
        """
        try:
            import a_module_that_nobody_has as mapping
        except ImportError:
            import jax as mapping

        if True:
            def over_tasks(function):
                return mapping.vmap(function, in_axes=(None, 0))
        """,
    )
    replace(notebook, PER_TASK_LOSSES, "jax.vmap(loss, in_axes=(None, 0))", "over_tasks(loss)")


@honest(earns=but(PER_TASK_LOSSES), because=IN_ORDER)
def later_helper(notebook):
    """Cells were run in another order: a helper stands below the test."""
    insert(notebook, GRADIENT_DESCENT, "def over_tasks(function):\n    return jax.vmap(function, in_axes=(None, 0))")
    replace(notebook, PER_TASK_LOSSES, "jax.vmap(loss, in_axes=(None, 0))", "over_tasks(loss)")


@honest()
def odd_order(notebook):
    """Cells have numbers in an odd order, and old outputs with errors."""
    for number, cell in enumerate(code_cells(notebook)):
        cell.execution_count = 100 - number
        cell.outputs = [new_output("error", ename="NameError", evalue="name 'jax' is not defined", traceback=[])]


@honest()
def slow(notebook):
    """A function that takes half a second for each call."""
    first_line(notebook, FINITE_DIFFERENCE, "import time; time.sleep(0.5)")


@honest()
def warned(notebook):
    """Functions warn, log, write to standard error and show a progress bar."""
    first_line(notebook, FINITE_DIFFERENCE, "import warnings; warnings.warn('careful'); import tqdm")
    replace(notebook, FINITE_DIFFERENCE, "    ahead =", "    for _ in tqdm.tqdm(range(3)): pass\n    ahead =")
    first_line(notebook, LEARNING_RATE, "import sys, logging; print('note', file=sys.stderr); logging.error('note')")


@honest()
def drawn(notebook):
    """Figures are shown, in a function and outside of functions."""
    insert(notebook, FINITE_DIFFERENCE, "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()")
    first_line(notebook, FINITE_DIFFERENCE, "plt.figure(); plt.plot([1, 2]); plt.show()")


@honest()
def loud(notebook):
    """A function prints megabytes."""
    first_line(notebook, FINITE_DIFFERENCE, "print('x' * 3_000_000)")


@honest()
def with_widgets(notebook):
    """Widgets of the student's own, and the outputs and states of others."""
    insert(notebook, FINITE_DIFFERENCE, "import ipywidgets\n\nslider = ipywidgets.IntSlider()\nslider")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "abc", "version_major": 2, "version_minor": 0}}
    imports(notebook).outputs = [new_output("display_data", view)]
    state = {"abc": {"model_name": "IntSliderModel", "model_module": "@jupyter-widgets/controls", "state": {}}}
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": state, "version_major": 2, "version_minor": 0}}
    notebook.metadata["widgets"] = widgets


@honest()
def own_errors(notebook):
    """Cells of the student's own raise errors, do not end, or are no Python."""
    insert(notebook, FINITE_DIFFERENCE, "1 / 0", "what is a gradient?", "raise SystemExit", "quit()\nwhile True: pass")


@honest()
def astray(notebook):
    """A cell with a solution ends the kernel and never ends, outside of functions."""
    write(notebook, GRADIENT_DESCENT, f"{source(notebook, GRADIENT_DESCENT)}\nquit()\nwhile True:\n    pass")


@honest()
def magics(notebook):
    """Lines of IPython and of a shell, in a solution and in cells of their own."""
    insert(notebook, FINITE_DIFFERENCE, "%matplotlib inline\n!echo installed\n%pip --version", "jax?", "%%bash\nls")
    before = source(notebook, FINITE_DIFFERENCE)
    write(notebook, FINITE_DIFFERENCE, f"%load_ext autoreload\n{before}\n\n\n%timeit -n1 -r1 1 + 1\nfiles = !ls")


@honest()
def timed(notebook):
    """Solutions begin with `%%time` and `%%capture`."""
    write(notebook, PER_TASK_LOSSES, f"%%time\n\n{source(notebook, PER_TASK_LOSSES)}")
    write(notebook, GRADIENT_DESCENT, f"%%capture out\n{source(notebook, GRADIENT_DESCENT)}")


@honest(but(GRADIENT_DESCENT))
def left_behind(notebook):
    """A breakpoint is left in one function, where nobody sees it, and a question to the user in another."""
    first_line(notebook, PER_TASK_LOSSES, "breakpoint()")
    first_line(notebook, GRADIENT_DESCENT, "input('continue?')")


@honest()
def unicode(notebook):
    """Greek names, other scripts and emoji, and a tab for each indentation."""
    text = "def per_task_losses(ℓ, θ, задачи):\n\t'''损失 🙂'''\n\treturn jax.vmap(ℓ, in_axes=(None, 0))(θ, задачи)"
    write(notebook, PER_TASK_LOSSES, text)
    insert(notebook, PER_TASK_LOSSES, new_markdown_cell("Ответ: ∇ℓ — 好 🙂 \u202eabc"))


@honest()
def notes(notebook):
    """Answers in text cells, and the lesson's text rewritten."""
    notebook.cells[0].source = "# My copy"
    insert(notebook, PER_TASK_LOSSES, new_markdown_cell("Since *vmap* maps over axis 0: $x$"), new_raw_cell("raw"))


@honest()
def many_cells(notebook):
    """Fifty cells with attempts."""
    insert(notebook, PER_TASK_LOSSES, *[f"attempt_{number} = jnp.array({number})" for number in range(50)])


def _saved_elsewhere(notebook, **metadata):
    for cell in notebook.cells:
        del cell["id"]
    notebook.nbformat_minor = 0
    notebook.metadata.update(metadata)


@honest()
def colab(notebook):
    """Saved by Colab: format 4.0 without ids, metadata of its own, the course installed by a cell."""
    insert(notebook, FINITE_DIFFERENCE, "!echo pip install metalearn-course", "%%capture\nimport sys")
    for number, cell in enumerate(notebook.cells):
        cell.metadata.update({"id": f"x{number}", "outputId": "b", "colab": {"base_uri": "https://localhost/"}})
    _saved_elsewhere(notebook, colab={"provenance": []}, accelerator="GPU", kernelspec={"name": "python3"})


@honest()
def vscode(notebook):
    """Saved by VS Code: another kernel's name, a language for each cell, an execution's times."""
    for cell in code_cells(notebook):
        cell.metadata.update({"vscode": {"languageId": "python"}, "execution": {"iopub.execute_input": "now"}})
    notebook.metadata.update(kernelspec={"name": ".venv", "display_name": ".venv (3.12.1)"}, vscode={"interpreter": {}})


@honest()
def old_format(notebook):
    """Saved by an older notebook: format 4.2, cells folded and scrolled."""
    for cell in code_cells(notebook):
        cell.metadata.update(collapsed=True, scrolled=True)
    _saved_elsewhere(notebook, language_info={"name": "python", "version": "3.6.1"})
    notebook.nbformat_minor = 2


@honest()
def newline_of_windows(path):
    """Lines end as on Windows, in the file and in the cells."""
    saved(path, lambda text: text.replace(b"\\n", b"\\r\\n").replace(b"\n", b"\r\n"))


# --- damaged: what happens to a notebook on its way -----------------------------------------------------------


@damaged(but(PER_TASK_LOSSES))
def careless(notebook):
    """One function never ends, and a test was deleted."""
    first_line(notebook, PER_TASK_LOSSES, "while True: pass")
    delete(notebook, f"{GRADIENT_DESCENT}-check")


@damaged(but(GRADIENT_DESCENT))
def without_a_solution(notebook):
    """A solution was deleted, and its test was not."""
    delete(notebook, GRADIENT_DESCENT)


@damaged(but(GRADIENT_DESCENT))
def without_an_exercise(notebook):
    """A solution was deleted with its test."""
    delete(notebook, GRADIENT_DESCENT, f"{GRADIENT_DESCENT}-check")


@damaged()
def without_tests(notebook):
    """All tests were deleted."""
    delete(
        notebook, *[f"{name}-check" for name in (FINITE_DIFFERENCE, PER_TASK_LOSSES, GRADIENT_DESCENT, LEARNING_RATE)]
    )


@damaged()
def without_imports(notebook):
    """Only the cells with exercises are left: the lesson's imports were deleted."""
    notebook.cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]


@damaged()
def copied(notebook):
    """A solution and a test were copied and pasted, marks of the grader included."""
    for name in (FINITE_DIFFERENCE, f"{PER_TASK_LOSSES}-check"):
        cell = notebook.cells[place(notebook, name)]
        insert(notebook, name, nbformat.from_dict({**cell, "id": f"{name}-again"}))


@damaged(earns=but(PER_TASK_LOSSES), because=IN_ORDER)
def moved(notebook):
    """A test was moved to the top."""
    test = notebook.cells.pop(place(notebook, f"{PER_TASK_LOSSES}-check"))
    notebook.cells.insert(0, test)


@damaged(earns=nothing, because=IN_ORDER)
def backwards(notebook):
    """All cells stand in the reverse order."""
    notebook.cells.reverse()


@damaged()
def joined(notebook):
    """A solution was merged with its test, and two solutions with each other."""
    for name, below in ((PER_TASK_LOSSES, f"{PER_TASK_LOSSES}-check"), (GRADIENT_DESCENT, LEARNING_RATE)):
        write(notebook, name, f"{source(notebook, name)}\n\n{source(notebook, below)}")
        delete(notebook, below)


@damaged()
def retyped(notebook):
    """A test was turned into text, and a solution into a raw cell."""
    for name, kind in ((f"{PER_TASK_LOSSES}-check", "markdown"), (GRADIENT_DESCENT, "raw")):
        cell = notebook.cells[place(notebook, name)]
        cell.cell_type = kind
        del cell["outputs"], cell["execution_count"]


@damaged()
def unmarked(notebook):
    """The grader's marks and the notebook's metadata are gone."""
    notebook.metadata.clear()
    for cell in notebook.cells:
        cell.metadata.clear()


@damaged()
def stripped(notebook):
    """All metadata and the cells' ids are gone."""
    unmarked(notebook)
    _saved_elsewhere(notebook)


@damaged()
def other_kernel(notebook):
    """The notebook asks for the kernel of another language."""
    notebook.metadata.update(
        kernelspec={"name": "ir", "display_name": "R", "language": "R"}, language_info={"name": "R"}
    )


@damaged()
def same_ids(notebook):
    """All cells have the same id."""
    for cell in notebook.cells:
        cell.id = "same"


@damaged(but(PER_TASK_LOSSES, GRADIENT_DESCENT))
def no_python(notebook):
    """A solution has a syntax error, and one a NUL byte."""
    write(notebook, PER_TASK_LOSSES, source(notebook, PER_TASK_LOSSES).replace("):", ")", 1).replace(") ->", ") -"))
    write(notebook, GRADIENT_DESCENT, f"{source(notebook, GRADIENT_DESCENT)}\0")


REFUSED = "No notebook can be read: nbgrader names the student, and the scores wait for the teacher."


@damaged(nothing)
def truncated(path):
    """The file ends in the middle."""
    saved(path, lambda text: text[: len(text) // 2])


@damaged(nothing)
def empty(path):
    """The file is empty."""
    saved(path, lambda text: b"")


@damaged(nothing)
def no_notebook(path):
    """The file is a picture."""
    saved(path, lambda text: b"\x89PNG\r\n\x1a\n\x00\x00" + bytes(range(256)))


@damaged(nothing)
def other_json(path):
    """The file is JSON, but no notebook."""
    saved(path, lambda text: b'{"answers": [1, 2]}')


@damaged(earns=nothing, because=REFUSED)
def marked_utf8(path):
    """The file was saved by an editor that begins it with a byte order mark."""
    saved(path, lambda text: b"\xef\xbb\xbf" + text)


@damaged(earns=nothing, because="nbgrader looks for the lesson's name; `zip_collect` gives a notebook this name.")
def other_name(path):
    """The file has another name."""
    path.rename(path.with_stem(f"{path.stem} (1)"))


@damaged()
def in_company(path):
    """Data, a second notebook, checkpoints and a broken module lie beside the notebook."""
    path.with_name("data.csv").write_text("1,2\n")
    path.with_name("helper.py").write_text("1 / 0\n")
    path.with_name("draft.ipynb").write_bytes(path.read_bytes())
    path.with_name(".ipynb_checkpoints").mkdir()
    (path.with_name(".ipynb_checkpoints") / "draft-checkpoint.ipynb").write_bytes(path.read_bytes())


ENDED = "What ends the kernel ends the grading: all below earns nothing, and the teacher may delete the line."


@damaged(but(GRADIENT_DESCENT), earns=only(FINITE_DIFFERENCE, PER_TASK_LOSSES), because=ENDED)
def quitter(notebook):
    """A function kills the kernel."""
    first_line(notebook, GRADIENT_DESCENT, "import os; os.kill(os.getpid(), 9)")


@damaged(but(PER_TASK_LOSSES, GRADIENT_DESCENT))
def exits(notebook):
    """One function leaves Python, and one calls itself without end."""
    first_line(notebook, PER_TASK_LOSSES, "import sys; sys.exit()")
    first_line(notebook, GRADIENT_DESCENT, "return gradient_descent(objective, theta, learning_rate, num_steps)")


@damaged()
def greedy(notebook):
    """Three gigabytes are held from a cell on, and a function starts fifty threads."""
    insert(notebook, PER_TASK_LOSSES, "hoard = np.ones(3 << 27)")
    first_line(notebook, GRADIENT_DESCENT, "import threading; [threading.Timer(2, int).start() for _ in range(50)]")


# --- cheating: points without a solution ----------------------------------------------------------------------


def shown_answers(exercise_id, key):
    """The right answers to what `check` shows, by a number that tells its instances apart."""
    exercise = find(exercise_id)
    instances = exercise.instances(np.random.default_rng(0))
    return {key(arguments): float(exercise.reference(*arguments)) for arguments in instances}


@cheating()
def parrot(notebook):
    """A table of the answers to what the check shows."""
    answers = shown_answers("00.finite_difference", lambda arguments: arguments[3])
    assert len(answers) == 4
    write(notebook, FINITE_DIFFERENCE, f"def finite_difference(f, p, d, step):\n    return {answers}[step]")


@cheating()
def constant(notebook):
    """Functions return a zero, an infinity, or an argument."""
    write(notebook, FINITE_DIFFERENCE, "def finite_difference(f, p, d, step):\n    return 0.0")
    write(notebook, PER_TASK_LOSSES, "def per_task_losses(f, p, b):\n    return np.inf")
    write(notebook, GRADIENT_DESCENT, "def gradient_descent(f, theta, a, k):\n    return theta")


@cheating()
def not_a_number(notebook):
    """Functions return NaN, which is equal to nothing."""
    write(notebook, FINITE_DIFFERENCE, "def finite_difference(f, p, d, step):\n    return np.nan")
    write(
        notebook,
        GRADIENT_DESCENT,
        "def gradient_descent(f, p, a, k):\n    return jax.tree.map(lambda q: q * np.nan, p)",
    )


FAKE = """
class Fake({base}):
    shape, dtype, ndim, size = (), np.dtype(float), 0, 1

    def __eq__(self, other):
        return True

    __hash__ = __array_ufunc__ = None
    {method}


def finite_difference(function, point, direction, step):
    return {made}
"""


@cheating()
def fake_equal(notebook):
    """An object that is equal to everything."""
    write(notebook, FINITE_DIFFERENCE, FAKE.format(base="", method="", made="Fake()"))


@cheating()
def fake_array(notebook):
    """An object that becomes an array when NumPy asks."""
    method = "def __array__(self, *_, **__):\n        return np.array(0.0)"
    write(notebook, FINITE_DIFFERENCE, FAKE.format(base="", method=method, made="Fake()"))


@cheating()
def fake_subclass(notebook):
    """A NumPy array of a class for which every comparison is true."""
    method = "def __array_function__(self, *_, **__):\n        return np.array(True)"
    write(notebook, FINITE_DIFFERENCE, FAKE.format(base="np.ndarray", method=method, made="np.zeros(()).view(Fake)"))


@cheating()
def meddler(notebook):
    """A test made empty, and a `check` that praises everything."""
    write(notebook, PER_TASK_LOSSES, "def per_task_losses(*_): return 0\n\ndef check(*_): print('Passed.')")
    write(notebook, f"{FINITE_DIFFERENCE}-check", "pass")


@cheating()
def skipped(notebook):
    """Tests are tagged so that they are not run, or may raise."""
    for name, tag in ((FINITE_DIFFERENCE, "skip-execution"), (PER_TASK_LOSSES, "raises-exception")):
        notebook.cells[place(notebook, f"{name}-check")].metadata["tags"] = [tag]


@cheating(only(FINITE_DIFFERENCE), start=right)
def richer(notebook):
    """One exercise of four is solved, and its test says that it is worth a hundred points."""
    for name in (PER_TASK_LOSSES, GRADIENT_DESCENT, LEARNING_RATE):
        write(notebook, name, "")
    notebook.cells[place(notebook, f"{FINITE_DIFFERENCE}-check")].metadata.nbgrader.points = 100


@cheating()
def remarked(notebook):
    """Tests are marked as unlocked, as solutions, and as not graded, and are made empty."""
    marks = {
        FINITE_DIFFERENCE: {"locked": False},
        PER_TASK_LOSSES: {"solution": True},
        GRADIENT_DESCENT: {"grade": False},
    }
    for name, mark in marks.items():
        notebook.cells[place(notebook, f"{name}-check")].metadata.nbgrader.update(mark)
        write(notebook, f"{name}-check", "")


@cheating()
def forged(notebook):
    """A graded cell of the student's own, worth a hundred points, and a test stored as passed."""
    mark = {**notebook.cells[place(notebook, f"{FINITE_DIFFERENCE}-check")].metadata.nbgrader, "points": 100}
    insert(notebook, FINITE_DIFFERENCE, new_code_cell("1", metadata={"nbgrader": {**mark, "grade_id": "one-more"}}))
    test = notebook.cells[place(notebook, f"{PER_TASK_LOSSES}-check")]
    test.execution_count, test.outputs = 1, [new_output("stream", text="✓ Passed.")]


@cheating()
def scored(notebook):
    """A function shows numbers that nbgrader takes for points, while the check runs it."""
    for name, function in ((FINITE_DIFFERENCE, "finite_difference"), (GRADIENT_DESCENT, "gradient_descent")):
        line = "from IPython import get_ipython; get_ipython().displayhook(2)"
        write(notebook, name, f"def {function}(a, b, c, d):\n    {line}\n    return 0.0")


PATCHES = """
from metalearn.course.exercises import exercise, grading, hidden_tests

hidden_tests.hidden_test = hidden_tests._complaint = lambda *arguments: None
setattr(hidden_tests, "_complaint", lambda *arguments: None)
nothing = setattr(hidden_tests, "_complaint", lambda *arguments: None)
nothing = hidden_tests.__setattr__("_complaint", lambda *arguments: None)
if True:
    hidden_tests._complaint = lambda *arguments: None
try:
    hidden_tests._complaint, nothing = lambda *arguments: None, 0
finally:
    setattr(hidden_tests, "_complaint", lambda *arguments: None)
for each in exercise.all_exercises():
    object.__setattr__(each, "reference", lambda *arguments: 0)


@(lambda function: setattr(hidden_tests, "_complaint", print) or function)
def helper(number=setattr(hidden_tests, "_complaint", lambda *arguments: None)):
    return number


class Patch:
    setattr(hidden_tests, "_complaint", lambda *arguments: None)
"""


@cheating(start=wrong)
def patched(notebook):
    """The grader changed by cells of the student's own, one marked as a test, by one of the lesson, below a stub."""
    write(notebook, PER_TASK_LOSSES, f"{source(notebook, PER_TASK_LOSSES)}\n{PATCHES}")
    imports(notebook).source += PATCHES
    mark = {**notebook.cells[place(notebook, f"{PER_TASK_LOSSES}-check")].metadata["nbgrader"], "grade_id": "one-more"}
    insert(notebook, FINITE_DIFFERENCE, PATCHES, new_code_cell(PATCHES, metadata={"nbgrader": mark}))
    insert(notebook, FINITE_DIFFERENCE, f"%%time\n{PATCHES}", f"%%capture\n%%time\n{PATCHES}", f"%%prun\n{PATCHES}")


SHADOW = """
from metalearn.course.exercises import hidden_tests

hidden_tests.hidden_test = hidden_tests._complaint = lambda *arguments: None
"""


@cheating(start=wrong)
def shadow(path):
    """Files beside the notebook take the names of modules that the course and the kernel import."""
    for name in ("tqdm", "ipykernel_launcher", "sitecustomize"):
        path.with_name(f"{name}.py").write_text(SHADOW)
    path.with_name("optax").mkdir()
    (path.with_name("optax") / "__init__.py").write_text(SHADOW)


@cheating()
def linked(path):
    """The file is a link to the teacher's notebook."""
    path.unlink()
    path.symlink_to(path.parents[3] / f"source/{LESSON}/{LESSON}.ipynb")


@cheating(everything, start=right)
def scripted(notebook):
    """All is right, and JavaScript stands wherever a notebook can hold some."""
    with_scripts(notebook)
    insert(notebook, FINITE_DIFFERENCE, f"def show():\n{textwrap.indent(SCRIPTS, '    ')}")
    first_line(notebook, FINITE_DIFFERENCE, "show()")


@cheating()
def nosy(notebook):
    """A function prints its arguments, the environment and the names of files."""
    secrets = "print(f, p, os.environ, os.listdir('..'), os.getcwd())"
    write(notebook, FINITE_DIFFERENCE, f"import os\n\ndef finite_difference(f, p, d, s):\n    {secrets}\n    return 0")


@cheating()
def raising(notebook):
    """Functions raise errors that look like praise, or like an exercise that was not begun."""
    write(notebook, FINITE_DIFFERENCE, "def finite_difference(f, p, d, s):\n    raise AssertionError('Passed.')")
    write(notebook, PER_TASK_LOSSES, "def per_task_losses(f, p, b):\n    raise KeyboardInterrupt")
    write(notebook, GRADIENT_DESCENT, "def gradient_descent(f, p, a, k):\n    raise StopIteration")


@cheating()
def leaving(notebook):
    """A function ends the kernel, with the status of success."""
    write(notebook, FINITE_DIFFERENCE, "import os\n\ndef finite_difference(f, p, d, s):\n    os._exit(0)")


@cheating()
def unstoppable(notebook):
    """A function never ends and catches whatever is to stop it."""
    write(
        notebook,
        LEARNING_RATE,
        """
        def learning_rate_gradient(objective, theta, learning_rate, num_steps):
            while True:
                try:
                    while True: pass
                except BaseException: pass
        """,
    )


@cheating(earns=only(PER_TASK_LOSSES), because=PUBLIC)
def copyist(notebook):
    """A solution was copied from the public worked lesson."""
    write(notebook, PER_TASK_LOSSES, right(LESSON)[PER_TASK_LOSSES])


@cheating(earns=only(FINITE_DIFFERENCE, PER_TASK_LOSSES), because=PUBLIC)
def borrower(notebook):
    """One function calls the course's own reference, and one is made from the source of it."""
    lookup = "exercise.find('00.per_task_losses').reference"
    write(notebook, PER_TASK_LOSSES, f"from metalearn.course.exercises import exercise\n\nper_task_losses = {lookup}")
    write(
        notebook,
        FINITE_DIFFERENCE,
        """
        import inspect
        from metalearn.course.lessons import lesson_00

        def finite_difference(function, point, direction, step):
            names = {}
            exec(inspect.getsource(lesson_00.finite_difference), vars(lesson_00), names)
            return names["finite_difference"](function, point, direction, step)
        """,
    )


@cheating(earns=only(PER_TASK_LOSSES), because=SAME_PROCESS)
def onlooker(notebook):
    """A function reads the answer from the frames of the code that judges it."""
    write(
        notebook,
        PER_TASK_LOSSES,
        """
        import sys

        def per_task_losses(loss, params, batches):
            for frame in sys._current_frames().values():
                while frame:
                    if "exercise" in frame.f_locals:
                        return frame.f_locals["exercise"].reference(loss, params, batches)
                    frame = frame.f_back
        """,
    )


@cheating(earns=only(FINITE_DIFFERENCE), because=SAME_PROCESS)
def saboteur(notebook):
    """A function replaces NumPy's comparison, which judges it."""
    write(
        notebook,
        FINITE_DIFFERENCE,
        """
        kept = np.isclose

        def finite_difference(function, point, direction, step):
            np.isclose = lambda *arguments, **names: np.array(True)
            return 0.0
        """,
    )
    write(notebook, PER_TASK_LOSSES, "def per_task_losses(*arguments):\n    np.isclose = kept\n    return 0.0")


@cheating(earns=everything, because=SAME_PROCESS)
def inside_job(notebook):
    """A function replaces the hidden test from within."""
    patch = "hidden_tests._complaint = lambda *arguments: None"
    body = f"from metalearn.course.exercises import hidden_tests; {patch}"
    write(notebook, FINITE_DIFFERENCE, f"def finite_difference(f, p, d, s):\n    {body}\n    return 0.0")


# --- the way in -----------------------------------------------------------------------------------------------


def hand_in(course, kind):
    """Puts a student's notebooks, made from what was released, where nbgrader looks for them."""
    for lesson in kind.lessons:
        notebook = nbformat.read(course / f"release/{lesson}/{lesson}.ipynb", as_version=4)
        for name, text in kind.start(lesson).items():
            write(notebook, name, text)
        path = course / f"submitted/{kind.name}/{lesson}/{lesson}.ipynb"
        path.parent.mkdir(parents=True)
        on_file = "path" in inspect.signature(kind.change).parameters
        if not on_file:
            kind.change(notebook)
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1), "utf-8")
        if on_file:
            kind.change(path)


def nbgrader(course, *arguments, status=0):
    """Runs the command line of nbgrader in the folder of a course; what it wrote to standard error."""
    tools = os.path.dirname(sys.executable)  # nbgrader calls alembic by name
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    ran = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    assert ran.returncode == status, ran.stderr
    return ran.stderr
