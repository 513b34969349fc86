"""The Binder image: pinned, within the bounds of pyproject, and understood by repo2docker."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from metalearn.course.publishing import badges

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEARNERS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["course"]]
DIRECT = {canonicalize_name(r.name): r for r in map(Requirement, LEARNERS)}
PINS = {canonicalize_name(r.name): r for r in map(Requirement, (BINDER / "requirements.txt").read_text().splitlines())}
# Binder runs Linux and the Python of runtime.txt, whatever machine the tests run on.
BINDER_MACHINE = {
    "python_version": "3.11",
    "python_full_version": "3.11.9",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_machine": "x86_64",
    "extra": "",
}


def version(pin):
    (specifier,) = pin.specifier
    return specifier.version


def needs(name, extra=""):
    """What a package needs on Binder; nothing where it is for another system or another Python than this one."""
    try:
        needed = map(Requirement, requires(name) or [])
    except ModuleNotFoundError:
        return []
    return [need for need in needed if need.marker is None or need.marker.evaluate(BINDER_MACHINE | {"extra": extra})]


def test_every_pin_is_exact():
    assert [str(pin) for pin in PINS.values() if [s.operator for s in pin.specifier] != ["=="]] == []


def test_every_direct_dependency_is_pinned_within_its_bounds():
    assert DIRECT.keys() <= PINS.keys()
    outside = [name for name, bounds in DIRECT.items() if not bounds.specifier.contains(version(PINS[name]))]
    assert outside == []


def test_the_pins_are_closed_and_agree_with_each_other():
    """Every dependency of a pinned package is pinned too, at a version which that package accepts."""
    broken = []
    for name in PINS:
        for need in needs(name):
            pin = PINS.get(canonicalize_name(need.name))
            if pin is None or not need.specifier.contains(version(pin), prereleases=True):
                broken.append(f"{name} needs {need}, the pin is {pin}")
    assert broken == []


def test_nothing_is_pinned_that_a_learner_does_not_need():
    """Every pin is a dependency of the course, or of another one that is."""
    needed, waiting = set(), {(name, extra) for name, need in DIRECT.items() for extra in ("", *need.extras)}
    while waiting:
        name, extra = waiting.pop()
        needed.add((name, extra))
        found = {(canonicalize_name(n.name), e) for n in needs(name, extra) for e in ("", *n.extras)}
        waiting |= found - needed
    assert PINS.keys() - {name for name, _ in needed} == set()


def test_the_runtime_is_a_python_that_the_project_supports():
    name, _, python = (BINDER / "runtime.txt").read_text().strip().partition("-")
    assert name == "python"
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)


@pytest.mark.parametrize("name", ["start", "postBuild"])
def test_scripts_are_executable_and_valid_bash(name):
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", BINDER / name], check=True)


def test_start_hands_over_to_its_arguments_with_threads_and_memory_capped():
    capped = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_")
    caps = f"import os; print(*(os.environ[name] for name in {capped}))"
    ran = subprocess.run([BINDER / "start", sys.executable, "-c", caps], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "1", "1", "1", "100000"]
    assert (BINDER / "start").read_text().rstrip().endswith('exec "$@"')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_server_and_the_heaviest_lesson_stay_below_a_gigabyte(monkeypatch, record_property):
    """As in the benchmark of all lessons, but with the packages of this environment."""
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")
    benchmark = importlib.import_module("binder")
    peak = benchmark.peak_memory(Path(sys.executable), ROOT / "lessons/04_bilevel.ipynb")
    record_property("measured", f"server and kernel of 04_bilevel: {peak / 1e6:.0f} MB")
    assert peak < benchmark.MEMORY_LIMIT


def test_every_launch_opens_the_first_lesson(tmp_path):
    (tmp_path / "pip").symlink_to(shutil.which("true"))
    private = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([BINDER / "postBuild"], env=private, check=True)
    config = (tmp_path / ".jupyter/jupyter_lab_config.py").read_text()
    (landing,) = re.findall(r'^c.LabApp.default_url = "/(.+)"$', config, re.MULTILINE)
    link = badges.binder("https://github.com/o/n", "main", "00_start_here")
    assert parse_qs(urlsplit(link).query) == {"urlpath": [landing]}
    assert (ROOT / landing.removeprefix("lab/tree/")).is_file()


def test_repo2docker_makes_a_dockerfile_of_it(tmp_path):
    pytest.importorskip("repo2docker", reason="jupyter-repo2docker is not installed (uv sync installs it)")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout: no list of the files that Binder would see")
    for file in filter(None, files.stdout.split("\0")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / file).is_file():
            shutil.copy(ROOT / file, tmp_path / file)
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    dockerfile = ran.stdout + ran.stderr
    assert ran.returncode == 0, dockerfile[-2000:]
    assert "python=3.11" in dockerfile
    # A change of text must not install all packages anew: they come in layers before the repository does.
    layers = (
        "FROM ",
        "COPY --chown=0:0 src/binder/requirements.txt",
        'pip install --no-cache-dir -r "binder/requirements.txt"',
        "COPY --chown=0:0 src/ ${REPO_DIR}/",
        "RUN ./binder/postBuild",
        'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"',
    )
    places = [dockerfile.find(layer) for layer in layers]
    assert -1 not in places and places == sorted(places), dict(zip(layers, places, strict=True))
