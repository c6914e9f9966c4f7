"""The report as a file, in each of its formats. Pure."""

from headgate.ledger.showback.closed import document_of
from headgate.ledger.showback.focus import focus_of
from headgate.ledger.showback.sheets import sheets
from headgate.ledger.showback.text import csv_of, text_of
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By, Statement
from headgate.ledger.showback.workbook import workbook_of

FILES = {
    "csv": ("csv", "text/csv; charset=utf-8"),
    "xlsx": ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "json": ("json", "application/json"),
    "focus": ("focus.csv", "text/csv; charset=utf-8"),
}
"""The ending and the media type of each format that is a file."""


def rendered(statement: Statement, by: By, tenant: str | None, kind: str) -> bytes:
    """The bytes of a format of FILES, or `table` for a terminal. With `tenant`, its part alone."""
    match kind:
        case "csv":
            return csv_of(usage_sheet(statement, by, tenant)).encode()
        case "xlsx":
            return workbook_of(statement, sheets(statement, by, tenant))
        case "json":
            return document_of(statement.report)
        case "focus":
            return focus_of(statement.report).encode()
        case _:
            return text_of(statement, sheets(statement, by, tenant)).encode()
