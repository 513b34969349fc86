"""Each paper's key claim, measured; and the README says what was measured."""

import re

import pytest
import table

pytestmark = pytest.mark.usefixtures("optimised")  # the claims train models
CLAIMS = {claim.system: claim for claim in table.claims()}
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
def test_readme_says_what_was_measured(system):
    """The words exactly; the figures, which differ in their last digits from machine to machine, within rtol."""
    row = CLAIMS[system].row()
    said = [line for line in table.stored() if NUMBER.sub("#", line) == NUMBER.sub("#", row)]
    assert said, f"write the table anew: python {table.__file__.split('/')[-3:]}"
    measured, shown = ([float(number) for number in NUMBER.findall(line)] for line in (row, said[0]))
    assert measured == pytest.approx(shown, rel=CLAIMS[system].rtol)


def test_readme_has_no_other_row():
    assert len(table.stored()) == len(CLAIMS)
