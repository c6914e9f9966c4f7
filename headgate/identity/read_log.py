"""Reads of the change log, for those who manage a tenant."""

from dataclasses import dataclass
from typing import Any

from headgate.database.connection import Connection
from headgate.identity.changes import Values

_SELECT = """
select c.number, extract(epoch from c.at)::float8, p.name, c.origin, c.action, c.object, u.name,
  c.before, c.after, c.hash
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    """A change for people to read. `actor` and `user` are the names that these people have now.

    `user` is the person whose key or block it is, where the change says so.
    """

    number: int
    at_s: float
    actor: str
    origin: str
    action: str
    object: str
    user: str | None
    before: Values | None
    after: Values | None
    hash: bytes


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
    number, at_s, actor, origin, action, object, user, before, after, hash = row
    return LoggedChange(
        number=number,
        at_s=at_s,
        actor=actor,
        origin=origin,
        action=action,
        object=object,
        user=user,
        before=before,
        after=after,
        hash=hash,
    )
