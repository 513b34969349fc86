"""Each paper's central claim, measured; and the page of systems says what was measured."""

import importlib
import re
from pathlib import Path

import page
import pytest

pytestmark = pytest.mark.usefixtures("optimised")  # the claims train models
NAMES = sorted(path.stem for path in Path(__file__).parent.glob("claim_*.py"))
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


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
    measured, shown = ([float(number) for number in NUMBER.findall(text)] for text in (section, said[0]))
    assert measured == pytest.approx(shown, rel=claim.rtol)


def test_the_page_says_what_the_library_says_of_costs(claim):
    """Quickly, and to the letter, on every run."""
    (section,) = (text for text in page.stored() if text.startswith(f"## {claim.title}\n"))
    assert claim.costs() in section


def test_the_page_has_no_other_section():
    assert len(page.stored()) == len(NAMES)
