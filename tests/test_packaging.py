"""What a learner installs, and what may import what."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from importlib.util import resolve_name
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metalearn"
LIBRARY = sorted(path for path in PACKAGE.rglob("*.py") if "course" not in path.relative_to(PACKAGE).parts)
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|work|tmp|Users)/|[A-Z]:\\\\?Users")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|conda\.anaconda\.org")

# Run with the names of modules as arguments: none of them may need Jupyter.
IMPORT_WITHOUT_JUPYTER = """
import importlib, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].lower().startswith(("ipy", "jupy", "nbclient", "nbformat", "notebook")):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(source, package):
    """Every module that the source imports at any depth, as absolute names; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def imports_of(path):
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    return imported(path.read_text("utf-8"), package)


def within(names, *packages):
    return sorted(name for name in names if any(f"{name}.".startswith(f"{package}.") for package in packages))


def tracked():
    ran = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip("not a git checkout: no list of tracked files")
    return [ROOT / file for file in ran.stdout.split("\0") if file and (ROOT / file).is_file()]


def test_every_dependency_has_an_upper_bound():
    needed = [Requirement(text) for text in requires("metalearn-course")]
    assert needed
    assert [str(need) for need in needed if not {s.operator for s in need.specifier} & {"<", "<=", "==", "~="}] == []


def test_a_learner_installs_no_tool_of_developers_teachers_or_the_site():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    assert groups.keys() == {"dev", "classroom", "site"}
    ours = {canonicalize_name(Requirement(text).name) for group in groups.values() for text in group}
    learners = {canonicalize_name(Requirement(text).name) for text in requires("metalearn-course")}
    assert ours & learners == set()


def test_the_library_imports_without_jupyter():
    names = [module_name(path) for path in LIBRARY]
    assert "metalearn.tasks" in names
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_JUPYTER, *names], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr


def test_the_library_never_imports_the_course():
    assert {path.name: found for path in LIBRARY if (found := within(imports_of(path), "metalearn.course"))} == {}


LAYERS = ("tasks", "adaptation", "meta_gradients", "learners", "training", "evaluation")
"""The rooms of the house, in the order in which they build on each other; `evaluation` stands beside `training`."""


def test_no_room_imports_from_a_later_one():
    found = {}
    for path in LIBRARY:
        room = path.relative_to(PACKAGE).parts[0]
        if room in LAYERS:
            later = [f"metalearn.{name}" for name in LAYERS[LAYERS.index(room) + 1 :]]
            found[path.name] = within(imports_of(path), *later, "metalearn.plots", "metalearn.testing")
    assert found
    assert {name: imports for name, imports in found.items() if imports} == {}


def test_no_module_is_hidden_by_a_function_of_its_name():
    """`import metalearn.learners.moml` and the attribute of that name are one thing, wherever one looks."""
    hidden = {}
    for path in [*LIBRARY, *sorted(PACKAGE.joinpath("course").rglob("*.py"))]:
        package, _, name = module_name(path).rpartition(".")
        if package and name not in ("__main__", "conf"):
            module = importlib.import_module(module_name(path))
            found = getattr(importlib.import_module(package), name, module)
            if found is not module:
                hidden[module_name(path)] = found
    assert hidden == {}


@pytest.mark.parametrize(
    "source",
    [
        "import metalearn.course",
        "from metalearn import course",
        "from ..course.exercises.grading import grade",
        "from .. import course",
    ],
)
def test_every_way_of_importing_the_course_is_seen(source):
    assert within(imported(f"def late():\n    {source}", "metalearn.tasks"), "metalearn.course")


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine paths", "registries"])
def test_no_file_names_a_machine_or_a_registry(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in tracked()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert found == []


def test_the_readme_quotes_the_benchmarks_as_they_were_measured():
    (quoted,) = re.findall(
        r"^On two cores.*?(?=\n\n)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    figures = re.findall(r"\d+\.\d+(?: ms)?", quoted)
    measured = (ROOT / "tests/benchmarks/RESULTS.md").read_text("utf-8")
    assert len(figures) >= 3
    assert [figure for figure in figures if f" {figure} |" not in measured] == []
