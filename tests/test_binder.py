"""The Binder image: pinned, within the bounds of pyproject, and understood by repo2docker."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
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
        try:
            needed = map(Requirement, requires(name) or [])
        except ModuleNotFoundError:  # for another system or another Python than this one
            continue
        for need in needed:
            if need.marker and not need.marker.evaluate(BINDER_MACHINE):
                continue
            pin = PINS.get(canonicalize_name(need.name))
            if pin is None or not need.specifier.contains(version(pin), prereleases=True):
                broken.append(f"{name} needs {need}, the pin is {pin}")
    assert broken == []


def test_the_runtime_is_a_python_that_the_project_supports():
    name, _, python = (BINDER / "runtime.txt").read_text().strip().partition("-")
    assert name == "python"
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)


@pytest.mark.parametrize("name", ["start", "postBuild"])
def test_scripts_are_executable_and_valid_bash(name):
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", BINDER / name], check=True)


def test_start_hands_over_to_its_arguments_with_threads_capped():
    caps = 'import os; print(*(os.environ[f"{name}"] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")))'
    ran = subprocess.run([BINDER / "start", sys.executable, "-c", caps], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["2", "2", "1"]
    assert (BINDER / "start").read_text().rstrip().endswith('exec "$@"')


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
    for line in ("FROM ", "binder/requirements.txt", "binder/postBuild", "binder/start", "python=3.11"):
        assert line in dockerfile, line
