"""The report as a workbook. The same report has the same bytes."""

import io
from datetime import UTC
from decimal import Decimal
from typing import Any

from xlsxwriter import Workbook

from headgate.ledger.showback.table import Sheet, Unit
from headgate.ledger.showback.text import head, in_cents
from headgate.ledger.showback.values import Statement

_FORMATS = {
    Unit.TEXT: "@",
    Unit.COUNT: "#,##0",
    Unit.MONEY: "#,##0.00",
    Unit.RATE: "#,##0.000000",
    Unit.PERCENT: "0.0",
}
_EXPONENTS = {Unit.MONEY: -2, Unit.RATE: -9}
"""Money is in cents here, a rate in nanos."""
_WIDTH = 16


def workbook_of(statement: Statement, sheets: list[Sheet]) -> bytes:
    """The bytes of an .xlsx. Amounts are whole cents that add up in each column.

    No text becomes a formula or a link.
    """
    file = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with Workbook(file, options) as book:
        made = statement.at if statement.closing is None else statement.closing.at
        book.set_properties({"created": made.astimezone(UTC).replace(tzinfo=None)})
        bold = book.add_format({"bold": True})
        formats = {unit: book.add_format({"num_format": one}) for unit, one in _FORMATS.items()}
        for sheet in sheets:
            _write(book.add_worksheet(sheet.title), sheet, bold, formats)
        notes = book.add_worksheet("notes")
        for at, line in enumerate(head(statement)):
            notes.write_string(at, 0, line)
    return file.getvalue()


def _write(page: Any, sheet: Sheet, bold: Any, formats: dict[Unit, Any]) -> None:
    page.freeze_panes(1, 1)
    page.set_column(0, len(sheet.columns) - 1, _WIDTH)
    for at, column in enumerate(sheet.columns):
        page.write_string(0, at, column.name, bold)
    for number, row in enumerate(in_cents(sheet), 1):
        for at, (column, cell) in enumerate(zip(sheet.columns, row, strict=True)):
            if column.unit is Unit.TEXT:
                page.write_string(number, at, str(cell or ""), formats[column.unit])
            elif cell is not None:
                value = Decimal(cell).scaleb(_EXPONENTS.get(column.unit, 0))
                page.write_number(number, at, value, formats[column.unit])
