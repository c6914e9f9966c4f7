"""No cell of an export is a formula of a spreadsheet."""

import pytest

from headgate.ledger.cells import safe_cell


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1"]
)
def test_a_text_that_begins_like_a_formula_is_shown_as_text(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["rita", "a=b", "", None, -5, 1.5, True])
def test_every_other_value_stays_as_it_is(value: object) -> None:
    assert safe_cell(value) is value
