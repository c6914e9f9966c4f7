"""Reads of the change log, for those who manage a tenant."""

from dataclasses import dataclass
from typing import Any

from headgate.database.connection import Connection
from headgate.identity.change_log import SELECT_CHANGE, change_of
from headgate.identity.changes import Change

_SELECT = f"""{SELECT_CHANGE}, p.name, u.name
from headgate.change c join headgate.person p on p.id = c.actor_id
  left join headgate.person u on u.id::text = c.after->>'person'
"""
_OF_TENANT = """ and (
  %(tenant)s::text is null
  or starts_with(c.object, %(tenant)s || '/')
  or exists (select 1 from headgate.api_key k where k.id = c.object and k.tenant = %(tenant)s)
)
"""
_AFTER = f"{_SELECT} where c.number > %(number)s {_OF_TENANT} order by c.number limit %(limit)s"
_BEFORE = f"""{_SELECT} where (%(number)s::bigint is null or c.number < %(number)s) {_OF_TENANT}
order by c.number desc limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A change with its hash, and with the names that its people have now.

    `user` is the person whose key or block it is, where the change says so.
    """

    change: Change
    hash: bytes
    actor: str
    user: str | None


async def changes_after(
    connection: Connection, number: int, limit: int, tenant: str | None = None
) -> list[LoggedChange]:
    """At most `limit` changes after this number; with `tenant`, those of its keys and users."""
    return await _read(connection, _AFTER, number, limit, tenant)


async def changes_before(
    connection: Connection, number: int | None, limit: int, tenant: str | None = None
) -> list[LoggedChange]:
    """At most `limit` changes before this number, the newest first; None begins with the newest."""
    return await _read(connection, _BEFORE, number, limit, tenant)


async def _read(
    connection: Connection, query: str, number: int | None, limit: int, tenant: str | None
) -> list[LoggedChange]:
    values = {"number": number, "tenant": tenant, "limit": limit}
    cursor = await connection.execute(query, values)
    return [_logged(row) for row in await cursor.fetchall()]


def _logged(row: tuple[Any, ...]) -> LoggedChange:
    *values, hash, actor, user = row
    return LoggedChange(change_of(values), hash, actor, user)
