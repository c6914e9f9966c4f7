"""A repricing as a table, for a terminal and as CSV. Pure."""

from collections.abc import Mapping

from headgate.ledger.repricing.values import RepricedLine, Repricing
from headgate.ledger.showback.table import Cell, Column, Sheet, Unit, column_sum
from headgate.ledger.showback.text import csv_of, table_of

_COLUMNS = (
    Column("tenant", Unit.TEXT),
    Column("user", Unit.TEXT),
    Column("model", Unit.TEXT),
    Column("charged_prices", Unit.TEXT),
    Column("new_prices", Unit.TEXT),
    Column("requests", Unit.COUNT, adds_up=True),
    Column("charged", Unit.MONEY, adds_up=True),
    Column("new_cost", Unit.MONEY, adds_up=True),
    Column("difference", Unit.MONEY, adds_up=True),
)
_USER_ID = Column("user_id", Unit.TEXT)


def repricing_csv(repricing: Repricing, names: Mapping[str, str]) -> str:
    """The lines with the ids of users, and without a total. `names` are those of people, by id."""
    rows = tuple((*_cells(line, names), line.person) for line in repricing.lines)
    return csv_of(Sheet(repricing.name, (*_COLUMNS, _USER_ID), rows))


def repricing_text(repricing: Repricing, checksum: str, names: Mapping[str, str]) -> str:
    """The whole repricing for a terminal, in cents that add up."""
    rows = tuple(_cells(line, names) for line in repricing.lines)
    sums: list[Cell] = [
        column_sum(rows, at) if one.adds_up else "" for at, one in enumerate(_COLUMNS)
    ]
    sheet = Sheet(repricing.name, _COLUMNS, rows, ("total", *sums[1:]))
    whose = "all tenants" if repricing.tenant is None else f"the tenant {repricing.tenant}"
    made_by = names.get(repricing.made_by, repricing.made_by)
    head = (
        f"Repricing {repricing.name} of {repricing.month}, {repricing.currency}, {whose}",
        f"Made {repricing.made_at:%Y-%m-%dT%H:%M:%SZ} by {made_by}",
        f"SHA-256 {checksum}",
    )
    return "\n".join((*head, "", table_of(sheet), ""))


def _cells(line: RepricedLine, names: Mapping[str, str]) -> tuple[Cell, ...]:
    return (
        line.tenant,
        names.get(line.person, line.person),
        line.model,
        line.charged_version,
        line.new_version,
        line.requests,
        line.charged_nanos,
        line.new_nanos,
        line.difference_nanos,
    )
