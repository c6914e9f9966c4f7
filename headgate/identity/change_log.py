"""The change log in the database: each change and its row are one transaction."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from headgate.core.clock import Clock
from headgate.database.connection import Connection
from headgate.identity.changes import NO_HASH, Chain, Change, Head, Values, hash_of

CHANNEL = "headgate_keys"
"""PostgreSQL sends a hint on this channel after each change. A poll finds what a hint misses."""

_NEXT = "update headgate.generation set value = value + 1 returning value"
_HASH = "select hash from headgate.change where number = %s"
_PERSON = """
with added as (
  insert into headgate.person (name) values (%s) on conflict (name) do nothing returning id
)
select id::text from added union all select id::text from headgate.person where name = %s limit 1
"""
_SHOW_AS = "update headgate.person set display_name = %s where id = %s and display_name <> %s"
_APPEND = """
insert into headgate.change (number, at, actor_id, origin, action, object, before, after, hash)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
SELECT_CHANGE = """
select c.number, extract(epoch from c.at)::float8, c.actor_id::text, c.origin,
  c.action, c.object, c.before, c.after, c.hash"""
"""What `change_of` takes, and the hash behind it; `c` is the table of changes."""
_ALL = f"{SELECT_CHANGE} from headgate.change c order by c.number"


@dataclass(frozen=True, slots=True)
class Actor:
    """The person who makes a change, by a stable name such as `okta:00u1`.

    `origin` is the address or the program from which the change comes. `display_name` is empty if
    it is not known.
    """

    name: str
    origin: str
    display_name: str = ""


class Recorder:
    """The next change, of one transaction that no other change can enter. `number` is its number.

    It must be written before the transaction ends.
    """

    def __init__(self, connection: Connection, number: int, by: Actor, now_s: float) -> None:
        self.number = number
        self.now_s = now_s
        self._connection = connection
        self._by = by

    async def write(
        self, action: str, object: str, before: Values | None, after: Values | None
    ) -> None:
        """Appends the row of the change, and sends the hint to the replicas."""
        change = Change(
            number=self.number,
            at_s=self.now_s,
            actor=await person_id(self._connection, self._by.name, self._by.display_name),
            origin=self._by.origin,
            action=action,
            object=object,
            before=before,
            after=after,
        )
        row = await _row(self._connection, _HASH, self.number - 1)
        hash = hash_of(change, NO_HASH if row is None else row[0])
        await self._connection.execute(_APPEND, _values(change, hash))
        await self._connection.execute("select pg_notify(%s, '')", (CHANNEL,))


@asynccontextmanager
async def recorded(connection: Connection, by: Actor, clock: Clock) -> AsyncIterator[Recorder]:
    """A transaction that holds the counter of changes: changes commit in the order of numbers.

    A sequence would let a later number commit first, and a poll would miss the earlier one.
    """
    async with connection.transaction():
        row = await _row(connection, _NEXT)
        assert row is not None, "the migration has inserted the only row"  # noqa: S101
        yield Recorder(connection, row[0], by, microseconds(clock.now_s()))


async def person_id(connection: Connection, name: str, display_name: str = "") -> str:
    """The id of a person, who is added if the name is new. A display name is kept beside it."""
    row = await _row(connection, _PERSON, name, name)
    assert row is not None, "it is found or added"  # noqa: S101
    if display_name:
        await connection.execute(_SHOW_AS, (display_name, row[0], display_name))
    return str(row[0])


async def verify(connection: Connection, known: Head | None = None) -> Head:
    """Reads the whole log and returns its head. Raises BrokenChainError for any edit.

    `known` is a head that was noted earlier, outside the database.
    """
    chain = Chain(known)
    async with connection.transaction():
        await connection.execute("set transaction isolation level repeatable read, read only")
        generation = await _row(connection, "select value from headgate.generation")
        async with connection.cursor() as cursor:
            async for *values, hash in cursor.stream(_ALL, size=1_000):
                chain.add(change_of(values), hash)
    return chain.end(0 if generation is None else generation[0])


def microseconds(seconds: float) -> float:
    """The time as the database keeps it, so that a hash over it can be made again."""
    return datetime.fromtimestamp(seconds, UTC).timestamp()


def moment(seconds: float | None) -> datetime | None:
    """A time for the database."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def change_of(values: Sequence[Any]) -> Change:
    """The change of a row."""
    number, at_s, actor, origin, action, object, before, after = values
    return Change(
        number=number,
        at_s=at_s,
        actor=actor,
        origin=origin,
        action=action,
        object=object,
        before=before,
        after=after,
    )


def _values(change: Change, hash: bytes) -> tuple[object, ...]:
    return (
        change.number,
        moment(change.at_s),
        change.actor,
        change.origin,
        change.action,
        change.object,
        None if change.before is None else Jsonb(change.before),
        None if change.after is None else Jsonb(change.after),
        hash,
    )


async def _row(connection: Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    return await (await connection.execute(query, values)).fetchone()
