"""Tables as CSV (RFC 4180) that a spreadsheet shows and never runs. Pure."""

import csv
import io
from collections.abc import Iterable, Sequence

_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def safe_cell(value: object) -> object:
    """The value as a cell: a text that a spreadsheet would take for a formula gets an apostrophe.

    Numbers stay numbers. The rule is OWASP's for CSV injection: names of users, of models and of
    programs come from outside. Spaces before a formula do not hide it.
    """
    return safe_text(value) if isinstance(value, str) else value


def safe_text(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_BEGINS_FORMULA) else text


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The table. None is an empty cell."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    return file.getvalue()
