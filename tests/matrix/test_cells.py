"""The data file is complete: it covers every combination of the axes, and uses every line."""

from pathlib import Path

from tests.matrix.cells import matrix
from tests.matrix.rows import rows

MATRIX = matrix()


def test_every_combination_of_the_axes_has_outcomes_or_a_reason_not_to_exist() -> None:
    for cell in MATRIX.combinations():
        if excluded := MATRIX.exclusion(cell):
            assert len(excluded["because"]) > 10, cell
            continue
        assert MATRIX.points_of(cell), cell
        for point in MATRIX.points_of(cell):
            assert set(MATRIX.outcome(cell, point)) >= {"what", "charged", "record", "client"}
        assert MATRIX.shown(cell)


def test_no_entry_is_idle() -> None:
    cells = MATRIX.cells
    reached = [MATRIX.outcome(cell, point) for cell in cells for point in MATRIX.points_of(cell)]
    excluded = [MATRIX.exclusion(cell) for cell in MATRIX.combinations()]
    shown = {MATRIX.shown(cell) for cell in cells}

    assert all(entry in reached for entry in MATRIX.outcomes)
    assert all(entry in excluded for entry in MATRIX.excluded)
    assert shown == {entry["usage"] for entry in MATRIX.shows_usage}


def test_every_value_of_every_axis_is_in_a_cell() -> None:
    cells = MATRIX.cells
    for axis, values in MATRIX.axes.items():
        assert {getattr(cell, axis) for cell in cells} == set(values)


def test_rules_name_what_the_axes_know() -> None:
    points = {point for by in MATRIX.points.values() for some in by.values() for point in some}
    known = {**{axis: set(values) for axis, values in MATRIX.axes.items()}, "point": points}
    for entry in [*MATRIX.excluded, *MATRIX.outcomes, *MATRIX.shows_usage, *MATRIX.real]:
        for axis, allowed in entry["when"].items():
            assert set(allowed if isinstance(allowed, list) else [allowed]) <= known[axis], entry


def test_the_docs_tell_every_outcome() -> None:
    docs = Path(__file__).parents[2] / "docs" / "metering.md"
    table = [line for line in docs.read_text("utf-8").splitlines() if line.startswith("| ")]

    assert table[1:] == rows()
