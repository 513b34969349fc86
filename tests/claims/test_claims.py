"""Each paper's central claim, measured; and the page of systems says what was measured."""

import re

import page
import pytest

pytestmark = pytest.mark.usefixtures("optimised")  # the claims train models
CLAIMS = {claim.system: claim for claim in page.claims()}
IN_EVERY_RUN = ("`hf_maml`", "`fo_muml`")  # the others train for long, and .ci/run tests them
EVERY = pytest.mark.parametrize(
    "system", [pytest.param(s, marks=() if s in IN_EVERY_RUN else pytest.mark.slow) for s in CLAIMS]
)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@EVERY
def test_claim(system):
    claim = CLAIMS[system]
    assert claim.holds(claim.figures()), claim.figures()


@EVERY
def test_the_page_says_what_was_measured(system):
    """The words exactly; the figures, which differ in their last digits from machine to machine, within rtol."""
    section = CLAIMS[system].section()
    said = [text for text in page.stored() if NUMBER.sub("#", text) == NUMBER.sub("#", section)]
    assert said, "write the page anew: python tests/claims/page.py"
    measured, shown = ([float(number) for number in NUMBER.findall(text)] for text in (section, said[0]))
    assert measured == pytest.approx(shown, rel=CLAIMS[system].rtol)


def test_the_page_has_no_other_section():
    assert len(page.stored()) == len(CLAIMS)
