"""The report for a terminal and as CSV. Pure."""

import csv
import io
from collections.abc import Sequence
from decimal import Decimal

from headgate.ledger.cells import safe_text
from headgate.ledger.showback.split import rounded
from headgate.ledger.showback.table import Cell, Column, Sheet, Unit
from headgate.ledger.showback.values import Statement

NANOS_PER_CENT = 10**7
_NOTHING = "–"


def head(statement: Statement) -> list[str]:
    """The subject of the report, and whether it is final."""
    report, period = statement.report, statement.report.period
    changes = ", ".join(f"{day:%d %b}" for day in period.clock_changes)
    lines = [
        f"Showback {period.month}, {report.currency or 'no currency named'}",
        f"Month of {period.timezone} from day {period.billing_day}, {period.hours} h"
        + (f" (clocks change on {changes})" if changes else "")
        + f"; bill in {period.bill_timezone}, {period.bill_hours} h",
    ]
    if statement.closing is None:
        lines.append(f"Open: as of {statement.at:%Y-%m-%dT%H:%M:%SZ}")
    else:
        by = statement.names.get(statement.closing.by, statement.closing.by)
        lines.append(f"Closed {statement.closing.at:%Y-%m-%dT%H:%M:%SZ} by {by}")
        lines.append(f"SHA-256 {statement.closing.checksum}")
    lines += [
        f"The records of {month} were dropped: late ones of it are not known."
        for month in report.without_rows
    ]
    return lines


def text_of(statement: Statement, sheets: Sequence[Sheet]) -> str:
    """All sheets for a terminal. Amounts are whole cents, so that each column adds up as shown."""
    parts = ["\n".join(head(statement))]
    parts += [f"{sheet.title}\n{table_of(sheet)}" for sheet in sheets if sheet.rows]
    return "\n\n".join(parts) + "\n"


def csv_of(sheet: Sheet) -> str:
    """A sheet without its total. Amounts have all nine decimals.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(column.name for column in sheet.columns)
    for row in sheet.rows:
        pairs = zip(sheet.columns, row, strict=True)
        writer.writerow(_csv_cell(column, cell) for column, cell in pairs)
    return file.getvalue()


def amount(nanos: int) -> str:
    """An amount with nine decimals."""
    return f"{Decimal(nanos).scaleb(-9):.9f}"


def in_cents(sheet: Sheet) -> list[list[Cell]]:
    """The rows, the total last, with amounts in cents that add up in each column."""
    rows = [list(row) for row in (*sheet.rows, *([sheet.total] if sheet.total else []))]
    for at, column in enumerate(sheet.columns):
        if column.unit is Unit.MONEY:
            cents = _cents([row[at] for row in rows], adds_up=column.adds_up and bool(sheet.total))
            for row, cell in zip(rows, cents, strict=True):
                row[at] = cell
    return rows


def _cents(cells: Sequence[Cell], *, adds_up: bool) -> list[Cell]:
    numbers = [cell if isinstance(cell, int) else 0 for cell in cells]
    if adds_up:
        cents = [*rounded(numbers[:-1], NANOS_PER_CENT), _nearest(numbers[-1])]
    else:
        cents = [_nearest(number) for number in numbers]
    return [None if cell is None else cent for cell, cent in zip(cells, cents, strict=True)]


def _nearest(nanos: int) -> int:
    return (nanos + NANOS_PER_CENT // 2) // NANOS_PER_CENT


def table_of(sheet: Sheet) -> str:
    """A sheet for a terminal. Amounts are whole cents, and each column adds up as shown."""
    shown = [column.name.replace("_", " ") for column in sheet.columns]
    rows = [
        [_shown(column, cell) for column, cell in zip(sheet.columns, row, strict=True)]
        for row in in_cents(sheet)
    ]
    widths = [max(len(row[at]) for row in (shown, *rows)) for at in range(len(shown))]
    return "\n".join(_line(sheet.columns, row, widths) for row in (shown, *rows))


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if column.unit is Unit.TEXT else cell.rjust(width)
        for column, cell, width in zip(columns, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _shown(column: Column, cell: Cell) -> str:
    """A cell for people. Text has its control characters escaped, so that it cannot move lines."""
    if cell is None:
        return _NOTHING
    if column.unit is Unit.MONEY:
        return f"{Decimal(int(cell)).scaleb(-2):,.2f}"
    if column.unit is Unit.RATE:
        return f"{Decimal(int(cell)).scaleb(-9):,.6f}"
    if column.unit is Unit.COUNT:
        return f"{cell:,}"
    text = str(cell)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _csv_cell(column: Column, cell: Cell) -> str:
    if cell is None:
        return ""
    if column.unit in (Unit.MONEY, Unit.RATE):
        return amount(int(cell))
    return safe_text(str(cell)) if column.unit is Unit.TEXT else str(cell)
