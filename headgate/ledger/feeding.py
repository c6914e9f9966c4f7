"""Feeds lines into the ledger: good ones become rows, bad ones are named and left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headgate.database.connection import Connection, within
from headgate.ledger.lines import BadLineError, read_line
from headgate.ledger.rows import Row, row_of
from headgate.ledger.store import BadRowsError, Batch, Position, add

DEADLINE_S = 60.0
"""The longest time for one batch. It waits for locks, too, such as that of a new month."""

OnBad = Callable[[Position, str], None]
"""Is told the position behind a bad line, and why it is bad."""


@dataclass(frozen=True, slots=True)
class Fed:
    """The result of feeding lines: new records, records that were there, and bad lines."""

    added: int = 0
    repeated: int = 0
    bad: int = 0

    def __add__(self, other: "Fed") -> "Fed":
        return Fed(self.added + other.added, self.repeated + other.repeated, self.bad + other.bad)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its row, None for an empty or a bad line, and the position behind it."""

    row: Row | None
    behind: Position
    is_bad: bool = False


def read(text: bytes, behind: Position, on_bad: OnBad) -> Line:
    """Reads a line, which ends at the position `behind`."""
    if not text.strip():
        return Line(None, behind)
    try:
        return Line(row_of(read_line(text)), behind)
    except BadLineError as error:
        on_bad(behind, str(error))
        return Line(None, behind, is_bad=True)


async def feed(
    connection: Connection,
    ingest_id: int,
    before: Position,
    lines: Sequence[Line],
    on_bad: OnBad,
) -> Fed:
    """Adds the lines of a source that follow the position `before`.

    If the database refuses a row, it is found by halving and counts as bad. Raises
    DatabaseAwayError and MovedError; then some of the lines may be added, and the position in the
    database tells which.
    """
    rows = [line.row for line in lines if line.row is not None]
    bad = sum(line.is_bad for line in lines)
    batch = Batch(rows, lines[-1].behind, bad)
    try:
        work = add(connection, ingest_id, before, batch)
        added = await within(DEADLINE_S, connection, work)
        return Fed(added.new, added.repeated, bad)
    except BadRowsError as error:
        if len(lines) == 1:
            on_bad(lines[0].behind, f"is refused by the database: {error}")
            only_bad = [Line(None, lines[0].behind, is_bad=True)]
            return await feed(connection, ingest_id, before, only_bad, on_bad)
    middle = len(lines) // 2
    first, second = lines[:middle], lines[middle:]
    fed = await feed(connection, ingest_id, before, first, on_bad)
    return fed + await feed(connection, ingest_id, first[-1].behind, second, on_bad)
