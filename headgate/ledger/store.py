"""Adds records to the ledger: a batch and the position behind it are one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg

from headgate.database.connection import Connection
from headgate.ledger.rows import COLUMNS, Row

_NAMES = ", ".join(f'"{name}"' for name, _ in COLUMNS)
_TYPES = [kind for _, kind in COLUMNS] + ["text"]
_BATCH = f"""
create temporary table if not exists ledger_batch (
  {", ".join(f'"{name}" {kind}' for name, kind in COLUMNS)}, user_name text
) on commit delete rows
"""
_COPY = f"copy pg_temp.ledger_batch ({_NAMES}, user_name) from stdin (format binary)"
_PEOPLE = """
insert into headgate.person (name)
select distinct b.user_name from pg_temp.ledger_batch b
where b.user_name is not null
  and not exists (select from headgate.person p where p.name = b.user_name)
order by 1 on conflict (name) do nothing
"""
_LABELS = """
insert into headgate.label_set (labels)
select distinct k.labels from pg_temp.ledger_batch b join headgate.api_key k on k.id = b.key
where k.labels <> '{}'
  and not exists (select from headgate.label_set s where s.labels = k.labels)
on conflict (labels) do nothing
"""
_RECORDS = f"""
insert into headgate.usage_record ({_NAMES}, person_id, label_set_id, ingest_id)
select {", ".join(f'b."{name}"' for name, _ in COLUMNS)}, p.id, s.id, %s
from pg_temp.ledger_batch b
left join headgate.person p on p.name = b.user_name
left join headgate.api_key k on k.id = b.key
left join headgate.label_set s on s.labels = k.labels
on conflict (request_id, ended_at) do nothing
"""  # noqa: S608 (the names of our own columns)
_MET = """
insert into headgate.met_subject (tenant, person_id, key, model)
select distinct b.tenant, p.id, b.key, b.model from pg_temp.ledger_batch b
join headgate.notified_tenant n on n.tenant = b.tenant
left join headgate.person p on p.name = b.user_name
where b.ended_at > now() - interval '2 days'
"""
_STREAM = """
insert into headgate.ingest (kind, name) values ('spool', %s)
on conflict (name) where kind = 'spool' do nothing
"""
_OF_STREAM = """
select id, segment, position from headgate.ingest where kind = 'spool' and name = %s
"""
_IMPORT = "insert into headgate.ingest (kind, name) values ('import', %s) returning id"
_POSITION = "select segment, position from headgate.ingest where id = %s"
_COUNTS = "select added, repeated, bad from headgate.ingest where id = %s"
_LOCK = _POSITION + " for update"
_MOVE = """
update headgate.ingest set segment = %s, position = %s, added = added + %s,
  repeated = repeated + %s, bad = bad + %s, last_at = now()
where id = %s
"""
_ROW_FAULTS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a source of records: everything before it is in the ledger.

    In a stream it is a segment and an offset in bytes, in an import a file and a line of it.
    """

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """The result of one batch: records that are new, and those that were there already."""

    new: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to add, and the position behind them. `bad` lines lay between them."""

    rows: Sequence[Row]
    behind: Position
    bad: int = 0


class MovedError(Exception):
    """Another program reads the same source, and has moved its position."""


class BadRowsError(Exception):
    """The database does not take these rows, for what they are and not for what it is."""


async def open_stream(connection: Connection, name: str) -> tuple[int, Position]:
    """The id and the position of a stream of a spool."""
    await connection.execute(_STREAM, (name,))
    row = await (await connection.execute(_OF_STREAM, (name,))).fetchone()
    assert row is not None, "it was found or added"  # noqa: S101
    return row[0], Position(row[1], row[2])


async def open_import(connection: Connection, name: str) -> int:
    """The id of a new run of an import."""
    row = await (await connection.execute(_IMPORT, (name,))).fetchone()
    assert row is not None, "an insert returns its row"  # noqa: S101
    return int(row[0])


async def add(connection: Connection, ingest_id: int, before: Position, batch: Batch) -> Added:
    """Adds the rows that the ledger does not have, and moves the position of their source.

    `before` is the position as it was read. Raises MovedError if it is no longer that, and
    BadRowsError; then nothing has changed.
    """
    for month in sorted({row[0].date().replace(day=1) for row in batch.rows}):
        await ensure_month(connection, month)
    await connection.execute(_BATCH)
    try:
        async with connection.transaction():
            found = await (await connection.execute(_LOCK, (ingest_id,))).fetchone()
            if found != (before.segment, before.offset):
                raise MovedError
            new = await _insert(connection, ingest_id, batch.rows) if batch.rows else 0
            added = Added(new, len(batch.rows) - new)
            place = batch.behind.segment, batch.behind.offset
            counts = added.new, added.repeated, batch.bad
            await connection.execute(_MOVE, (*place, *counts, ingest_id))
    except (
        psycopg.DataError,
        psycopg.IntegrityError,
        psycopg.errors.ProgramLimitExceeded,
    ) as error:
        raise BadRowsError(str(error).partition("\n")[0]) from None
    return added


async def position_of(connection: Connection, ingest_id: int) -> Position:
    """The position of a source."""
    row = await (await connection.execute(_POSITION, (ingest_id,))).fetchone()
    assert row is not None, "no row of ingest is ever deleted"  # noqa: S101
    return Position(*row)


async def counts_of(connection: Connection, ingest_id: int) -> tuple[int, int, int]:
    """The records that a source has brought: new ones, repeated ones, and bad lines."""
    row = await (await connection.execute(_COUNTS, (ingest_id,))).fetchone()
    assert row is not None, "no row of ingest is ever deleted"  # noqa: S101
    return row[0], row[1], row[2]


async def ensure_month(connection: Connection, month: date) -> None:
    """Makes the partition of a month, by its first day, if there is none."""
    await connection.execute("select headgate.ensure_usage_month(%s)", (month,))


async def _insert(connection: Connection, ingest_id: int, rows: Sequence[Row]) -> int:
    cursor: psycopg.AsyncCursor[tuple[Any, ...]] = connection.cursor()
    async with cursor.copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for row in rows:
            await copy.write_row(row)
    await cursor.execute(_PEOPLE)
    await cursor.execute(_LABELS)
    await cursor.execute(_MET)
    await cursor.execute(_RECORDS, (ingest_id,))
    return cursor.rowcount
