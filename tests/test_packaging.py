"""What a learner installs, and what may import what."""

import ast
import graphlib
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from importlib.util import resolve_name
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import metalearn as ml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metalearn"
LIBRARY = sorted(path for path in PACKAGE.rglob("*.py") if "course" not in path.relative_to(PACKAGE).parts)
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|work|tmp|Users)/|[A-Z]:\\\\?Users")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|conda\.anaconda\.org")

# Run with the names of modules as arguments: none of them may need what the extra `course` brings. All assertions on
# what an import does are made here, since each new process takes seconds to load JAX.
IMPORT_WITHOUT_JUPYTER = """
import importlib, os, sys
from importlib.machinery import PathFinder

EXTRA = ("ipy", "anywidget", "traitlets", "jupy", "nbclient", "nbformat", "notebook")

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.lower().startswith(EXTRA) else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
environment = dict(os.environ)
import metalearn
assert not {"matplotlib", "PIL", "metalearn.course"} & set(sys.modules), "import metalearn loads more than it needs"

import jax
for name in sys.argv[1:]:
    importlib.import_module(name)
settings = dict(jax.config.values)
import metalearn.course, metalearn.course.__main__ as command
assert "matplotlib" not in sys.modules
assert dict(os.environ) == environment, "an import has changed the environment"
assert dict(jax.config.values) == settings, "import metalearn.course has changed a setting of JAX"

metalearn.course.setup()
assert "--xla_backend_optimization_level=1" in os.environ["XLA_FLAGS"].split() and os.environ["NPROC"] == "1"
assert jax.config.jax_compilation_cache_dir.startswith(os.environ["XDG_CACHE_HOME"])
jax.config.update("jax_num_cpu_devices", 2)  # raises if an import has started XLA, which reads XLA_FLAGS only then
changed = dict(os.environ)
metalearn.course.setup()
assert dict(os.environ) == changed

for name in set(metalearn.course.__all__) - {"setup", "bar"}:
    try:
        getattr(metalearn.course, name)
    except ModuleNotFoundError as error:
        assert "is not installed. It comes with the extra `course`: pip install" in str(error), error
    else:
        raise AssertionError(f"{name} needs no widgets?")
metalearn.plots.subplots()
assert "matplotlib" in sys.modules
assert command.main([]) == 0
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
    groups = PYPROJECT["dependency-groups"]
    assert groups.keys() == {"dev", "classroom", "hub", "site"}
    ours = {canonicalize_name(Requirement(text).name) for group in groups.values() for text in group}
    learners = {canonicalize_name(Requirement(text).name) for text in requires("metalearn-course")}
    assert ours & learners == set()


@pytest.mark.slow
def test_an_import_needs_no_jupyter_loads_no_matplotlib_and_changes_nothing(tmp_path):
    names = [module_name(path) for path in LIBRARY]
    assert "metalearn.tasks" in names
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_JUPYTER, *names],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    assert "There are no lessons in this folder" in ran.stdout
    assert "only the library works" in ran.stdout


def test_the_library_never_imports_the_course():
    assert {path.name: found for path in LIBRARY if (found := within(imports_of(path), "metalearn.course"))} == {}


def test_the_library_alone_brings_no_jupyter():
    """Of what stands in pyproject; the wheel is tried below."""
    alone = {Requirement(text).name for text in PYPROJECT["project"]["dependencies"]}
    extra = {Requirement(text).name for text in PYPROJECT["project"]["optional-dependencies"]["course"]}
    assert {"jupyterlab", "jupytext", "ipywidgets", "anywidget", "nbclient", "nbformat"} <= extra
    assert alone & extra == set()
    # `uv run` takes the group `dev`, so that one command opens the lessons.
    assert "metalearn-course[course]" in PYPROJECT["dependency-groups"]["dev"]


def test_every_place_tells_the_same_version_and_address():
    project = PYPROJECT["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert ml.__version__ == version("metalearn-course") == project["version"] == citation["version"]
    assert f"## {project['version']} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert project["urls"].get("Repository") == citation.get("repository-code")


def test_the_workflow_tries_every_python_that_the_project_names():
    named = {text.rpartition(" ")[2] for text in PYPROJECT["project"]["classifiers"] if "Python :: 3." in text}
    assert named and all(
        Requirement(f"p{PYPROJECT['project']['requires-python']}").specifier.contains(n) for n in named
    )
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    assert {name: set(job["strategy"]["matrix"]["python"]) for name, job in jobs.items()} == {
        "checks": named,
        "wheel": named,
    }
    called = {name: job["steps"][-1]["run"].partition(" ")[0] for name, job in jobs.items()}
    assert called == {"checks": ".ci/run", "wheel": ".ci/wheel"}
    assert all(os.access(ROOT / script, os.X_OK) for script in called.values())


def test_forms_and_hooks_can_be_read():
    for form in ("bug", "lesson"):
        asked = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text("utf-8"))
        assert asked["name"] and asked["description"]
        assert {part["type"] for part in asked["body"]} <= {"input", "textarea"}
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert all(hook["entry"].startswith("uv run ") and hook["language"] == "system" for hook in repository["hooks"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_wheel_works_in_a_clean_environment(python):
    """The interpreters at hand; the workflow has them all."""
    if shutil.which("uv") is None:
        pytest.skip("no uv")
    if subprocess.run(["uv", "python", "find", "--quiet", "--no-python-downloads", python]).returncode:
        pytest.skip(f"no Python {python}")
    ran = subprocess.run([ROOT / ".ci/wheel", python], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


# Every command line in one process, since each would load JAX again.
USAGE = """
import pathlib, runpy, sys

for path in sys.argv[1:]:
    folder, sys.argv, path_before = pathlib.Path(path).parent, [path, "--help"], list(sys.path)
    sys.path.insert(0, str(folder))
    print("==", path, flush=True)
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        assert end.code in (0, None), end.code
    else:
        raise AssertionError(f"{path} did something else than to print its usage")
    sys.path[:] = path_before
"""


@pytest.mark.slow
def test_every_command_line_prints_its_usage_and_does_nothing(tmp_path):
    starts = re.compile(r"""^if __name__ == ["']__main__["']|^\w.*\bparse_args\(""", re.MULTILINE)
    commands = [path for path in tracked() if path.suffix == ".py" and starts.search(path.read_text("utf-8"))]
    names = {str(path.relative_to(ROOT)) for path in commands}
    assert {"metalearn/course/__main__.py", "metalearn/course/lessons/comparison.py"} <= names
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tracked()}
    ran = subprocess.run(
        [sys.executable, "-B", "-c", USAGE, *map(str, commands)],
        cwd=tmp_path,
        env=os.environ
        | {"XDG_CACHE_HOME": str(tmp_path), "METALEARN_PROGRESS": str(tmp_path / "progress.json")}
        | {"MPLCONFIGDIR": str(tmp_path.with_name("matplotlib"))},  # matplotlib keeps its list of fonts where it likes
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    said = re.split(r"^== ", ran.stdout, flags=re.MULTILINE)[1:]
    assert len(said) == len(commands)
    assert [text for text in said if "usage: " not in text] == []
    assert list(tmp_path.iterdir()) == []
    after = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tracked()}
    assert [path for path in before | after if before.get(path) != after.get(path)] == []


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


def test_no_module_needs_one_that_needs_it():
    """Modules, at any depth of their code; a package gathers what is in it, and is no part of a circle."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    needs = {name: imports_of(path) & modules.keys() - {name} for name, path in modules.items()}
    assert len(list(graphlib.TopologicalSorter(needs).static_order())) == len(modules)


PUBLIC = [ml, ml.evaluate, ml.inner, ml.kernel, ml.losses, ml.models, ml.outer, ml.plots, ml.repurpose, ml.task_weights]
PUBLIC += [ml.tasks, ml.tasks.glyphs, ml.tasks.mnist1d, ml.tasks.omniglot, ml.testing, ml.theory, ml.two_tower]


def public_functions():
    """(Name, function) for all that a user can call: functions of the public modules, and methods of their classes."""
    for module in PUBLIC:
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if not getattr(value, "__module__", "").startswith("metalearn") or name.startswith("_"):
                continue
            if inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value
            elif inspect.isclass(value):
                for method, function in vars(value).items():
                    ours = inspect.isfunction(function) and function.__module__.startswith("metalearn")
                    # The constructor of a NamedTuple or a dataclass is written by Python, from annotated attributes.
                    written = getattr(function, "__code__", None) and function.__code__.co_filename.startswith(
                        str(ROOT)
                    )
                    if ours and written and (method in ("__init__", "__call__") or not method.startswith("_")):
                        yield f"{module.__name__}.{name}.{method}", function


def test_every_public_function_is_annotated():
    found = dict(public_functions())
    assert {
        "metalearn.maml",
        "metalearn.tasks.Sinusoid.__call__",
        "metalearn.theory.Quadratics.adapted",
    } <= found.keys()
    missing = {}
    for name, function in found.items():
        signature = inspect.signature(function)
        bare = [key for key, part in signature.parameters.items() if key != "self" and part.annotation is part.empty]
        if signature.return_annotation is signature.empty and not name.endswith("__init__"):
            bare.append("return")
        if bare:
            missing[name] = bare
    assert missing == {}


def test_no_module_is_hidden_by_a_function_of_its_name():
    """`import metalearn.learners.moml` and the attribute of that name are one thing, wherever one looks."""
    hidden = {}
    course = sorted(PACKAGE.joinpath("course").rglob("*.py"))
    for path in [*LIBRARY, *(path for path in course if "examples" not in path.parts)]:  # an example is a program
        package, _, name = module_name(path).rpartition(".")
        if package and name not in ("__main__", "conf"):
            try:
                module = importlib.import_module(module_name(path))
            except ModuleNotFoundError as missing:
                assert missing.name == "nbgrader"  # `uv run pytest` does not install the group classroom
                continue
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
