"""Reads of people and of the change log, for those who manage a tenant."""

from dataclasses import dataclass
from typing import Any

from headgate.database.connection import Connection
from headgate.identity.changes import Values

_CHANGES = """
select c.number, extract(epoch from c.at)::float8, p.name, c.origin, c.action, c.object, c.before,
  c.after, c.hash
from headgate.change c join headgate.person p on p.id = c.actor_id
where c.number > %s and (%s::text is null or exists (
  select 1 from headgate.api_key k where k.id = c.object and k.tenant = %s
)) order by c.number limit %s
"""
_USERS = """
select p.name from headgate.person p join headgate.api_key k on k.person_id = p.id
where k.tenant = %s and p.name > %s collate "C"
group by p.name order by p.name collate "C" limit %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    """A change for people to read. `actor` is the name that its person has now."""

    number: int
    at_s: float
    actor: str
    origin: str
    action: str
    object: str
    before: Values | None
    after: Values | None
    hash: bytes


async def changes_after(
    connection: Connection, number: int, limit: int, tenant: str | None = None
) -> list[LoggedChange]:
    """At most `limit` changes after the one of this number; with `tenant`, those of its keys."""
    cursor = await connection.execute(_CHANGES, (number, tenant, tenant, limit))
    return [_logged(row) for row in await cursor.fetchall()]


async def users_after(connection: Connection, tenant: str, name: str, limit: int) -> list[str]:
    """At most `limit` users who have keys at run time in a tenant, after this name."""
    cursor = await connection.execute(_USERS, (tenant, name, limit))
    return [row[0] for row in await cursor.fetchall()]


def _logged(row: tuple[Any, ...]) -> LoggedChange:
    number, at_s, actor, origin, action, object, before, after, hash = row
    return LoggedChange(
        number=number,
        at_s=at_s,
        actor=actor,
        origin=origin,
        action=action,
        object=object,
        before=before,
        after=after,
        hash=hash,
    )
