"""Each paper's central claim, measured; and the page of systems says what was measured."""

import importlib
import re
from pathlib import Path

import page
import pytest

from metalearn.course import syllabus

pytestmark = pytest.mark.usefixtures("optimized")  # the claims train models
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("claim_*.py"))
TESTS = Path(__file__).parents[1]
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:\s×\s10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")


def value(number):
    """Of a number as the page writes it, 3.7 × 10⁻⁶."""
    return float(re.sub(r"\s×\s10", "e", number).translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))


@pytest.fixture(params=NAMES)
def claim(request):
    return importlib.import_module(request.param).CLAIM


@pytest.mark.slow
def test_claim(claim):
    assert claim.holds(claim.figures()), claim.figures()


@pytest.mark.slow
def test_the_page_says_what_was_measured(claim):
    """The words exactly; the figures, which differ in their last digits from machine to machine, within rtol."""
    section = claim.section()
    said = [text for text in page.stored() if NUMBER.sub("#", text) == NUMBER.sub("#", section)]
    assert said, "write the page anew: python tests/claims/page.py"
    measured, shown = ([value(number) for number in NUMBER.findall(text)] for text in (section, said[0]))
    assert measured == pytest.approx(shown, rel=claim.rtol)


def test_the_page_says_what_the_library_says_of_costs(claim):
    """Quickly, and to the letter, on every run."""
    (section,) = (text for text in page.stored() if text.startswith(f"## {claim.title}\n"))
    assert claim.costs() in section


def test_every_system_has_a_lesson_and_a_test_with_exact_answers(claim):
    assert claim.lessons and all(map(syllabus.find, claim.lessons))
    assert claim.tests and all((TESTS / f"{name}.py").exists() for name in claim.tests)
    functions = [name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", claim.system)]
    tested = "".join((TESTS / f"{name}.py").read_text("utf-8") for name in claim.tests)
    assert [name for name in functions if name not in tested] == []


def test_the_page_has_no_other_section():
    assert len(page.stored()) == len(NAMES)
