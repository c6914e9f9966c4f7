"""Searches the ledger, from the newest request backwards.

Each page is one walk along an index from a place in it, so a late page costs as much as the first.
Nothing is counted: a count reads every row that it counts.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias, TypeVar

import psycopg

from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.ledger.places import Place
from headgate.ledger.usage_lines import FIELDS, SELECT, UsageLine

STATEMENT_S = 3.0
"""The longest time of a search in the database; one that finds rarely anything may need more."""

_PERSON = "select id from headgate.person where name = %s"
_TIMEOUT = f"set local statement_timeout = {STATEMENT_S * 1000:.0f}"
_CONDITIONS = {
    "tenant": "tenant = %(tenant)s",
    "user": "person_id = %(person)s",
    "key": "key = %(key)s",
    "model": "model = %(model)s",
    "ip": "ip = %(ip)s",
    "status": "status = %(status)s",
    "refused_by": '"limit" = %(refused_by)s',
    "request_id": "request_id = %(request_id)s",
    "begin": "ended_at >= %(begin)s",
    "end": "ended_at < %(end)s",
}
_BEHIND = "ended_at <= %(ended_at)s and (ended_at, request_id) < (%(ended_at)s, %(after_id)s)"
_ORDER = "order by ended_at desc, request_id desc limit %(limit)s"

Statement: TypeAlias = tuple[str, dict[str, Any]]
T = TypeVar("T")


class SearchTooWideError(Exception):
    """The database did not find a page in time: the search needs a narrower time or a filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The requests to find: those with all of these values. None is any.

    `model` is the entry of the policy, `refused_by` the limit that refused. `begin` and `end` bound
    the end of the request; `end` itself is outside.
    """

    tenant: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    ip: IPv4Address | IPv6Address | None = None
    status: int | None = None
    refused_by: str | None = None
    request_id: str | None = None
    begin: datetime | None = None
    end: datetime | None = None


def statement(wanted: Wanted, person: object, after: Place | None, limit: int) -> Statement:
    """The query of a page of `limit` rows behind a place. `person` is the id of the user.

    Every value is a parameter of the query.
    """
    values: dict[str, Any] = {one.name: getattr(wanted, one.name) for one in fields(wanted)}
    conditions = [_CONDITIONS[name] for name, value in values.items() if value is not None]
    values |= {"person": person, "limit": limit}
    if after is not None:
        conditions.append(_BEHIND)
        values |= {"ended_at": after.ended_at, "after_id": after.request_id}
    where = f"where {' and '.join(conditions)}" if conditions else ""
    return f"{SELECT} {where} {_ORDER}", values


async def search(
    connection: Connection, wanted: Wanted, after: Place | None, limit: int
) -> Sequence[UsageLine]:
    """A page of at most `limit` requests, the newest first.

    Raises SearchTooWideError, and DatabaseAwayError.
    """
    return await bounded(connection, _search(connection, wanted, after, limit))


async def bounded(connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """The result of a search or a sum, whose statements have STATEMENT_S each in the database.

    Raises SearchTooWideError, and DatabaseAwayError.
    """

    async def timed() -> T:
        async with connection.transaction():
            await connection.execute(_TIMEOUT)
            return await work

    try:
        return await within(DEADLINE_S, connection, timed())
    except psycopg.errors.QueryCanceled:
        raise SearchTooWideError from None


async def _search(
    connection: Connection, wanted: Wanted, after: Place | None, limit: int
) -> Sequence[UsageLine]:
    person = None
    if wanted.user is not None:
        person = await (await connection.execute(_PERSON, (wanted.user,))).fetchone()
        if person is None:
            return []
    query, values = statement(wanted, person and person[0], after, limit)
    cursor = await connection.execute(query, values, prepare=False)
    return [_line(row) for row in await cursor.fetchall()]


def _line(row: tuple[Any, ...]) -> UsageLine:
    return UsageLine(**dict(zip(FIELDS, row, strict=True)))


def place_of(line: UsageLine) -> Place:
    """The place behind a request."""
    return Place(line.ended_at, line.request_id)
