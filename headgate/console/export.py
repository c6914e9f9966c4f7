"""Tables as CSV (RFC 4180) that a spreadsheet opens without running what strangers wrote. Pure."""

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The table. None is an empty cell."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: object) -> object:
    """A text that begins like a formula gets an apostrophe, as OWASP advises. Numbers stay."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
