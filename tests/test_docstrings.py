"""Every public function and class of the library shows by an example what it is for, and the examples are true."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import metalearn as ml

PAGES = sorted((Path(ml.__file__).parent / "course/publishing/site/library").glob("*.md"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(ml.__path__, "metalearn.")
    if not module.name.startswith("metalearn.course")
)
FAST = {
    "metalearn.outer",
    "metalearn.theory.contrastive",
    "metalearn.theory.cost_model",
    "metalearn.theory.multi_step",
}


def num_examples(module):
    return len(re.findall(r"^ +>>> ", inspect.getsource(importlib.import_module(module)), re.MULTILINE))


def members(module):
    """The functions and classes that a page shows if it is told to show a module's members."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    ]
    return {f"{module.__name__}.{name}" for name in names if not name.startswith("_") and callable(vars(module)[name])}


def documented():
    """Name -> function or class, of all that the pages of the documentation show."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    names = set(re.findall(r"^\.\. auto(?:function|class|exception):: ([\w.]+)$", text, re.MULTILINE))
    for name in re.findall(r"^\.\. automodule:: ([\w.]+)\n   :members:$", text, re.MULTILINE):
        names |= members(importlib.import_module(name))
    return {name: pkgutil.resolve_name(name) for name in names}


@pytest.mark.parametrize(
    "module",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in MODULES if num_examples(name)],
)
def test_the_examples_are_true(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them saves a figure
    assert doctest.testmod(importlib.import_module(module)) == (0, num_examples(module))


def test_everything_public_has_an_example_or_says_where_there_is_one():
    docs = {name: inspect.getdoc(value) for name, value in documented().items()}
    assert len(docs) > 100
    with_example = {name for name, doc in docs.items() if ">>> " in doc}
    places = {name.rpartition(".")[2] for name in with_example}
    refers = {name: re.findall(r"^Example: see `(\w+)`", doc, re.MULTILINE) for name, doc in docs.items()}
    assert [name for name in docs if name not in with_example and not places & {*refers[name]}] == []


def test_everything_that_can_be_imported_is_documented():
    shown = list(documented().values())
    for module in (ml, ml.models, ml.tasks, ml.theory):
        values = {name: getattr(module, name) for name in module.__all__}
        assert [name for name, value in values.items() if callable(value) and value not in shown] == []
