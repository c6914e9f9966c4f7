"""The reads of a replica: whether anything has changed, the changed rows, and all rows."""

from collections.abc import AsyncIterator
from typing import Any

from headgate.database.connection import Connection
from headgate.identity.changes import NO_HASH, Head
from headgate.identity.exclusions import BlockRow, RevocationRow
from headgate.identity.key_rows import read_limit
from headgate.identity.ring import NEVER_S, Row, SecretRow

_POLL = """
select g.value, (select hash from headgate.change where number = g.value),
  (select hash from headgate.change where number = %s)
from headgate.generation g
"""
_ROWS = """
select s.digest, k.id, k.tenant, p.name,
  extract(epoch from least(s.expires_at, k.expires_at))::float8,
  k.revoked_at is not null, k.models, nullif(k.limits, '[]')
from headgate.api_key k
  join headgate.person p on p.id = k.person_id
  join headgate.key_secret s on s.key_id = k.id
"""
_LIVE = _ROWS + "where k.revoked_at is null"
_CHANGED = _ROWS + "where k.generation > %s"
_BLOCKS = """
select b.tenant, p.name, b.blocked_at is not null
from headgate.blocked_user b join headgate.person p on p.id = b.person_id
"""
_LIVE_BLOCKS = _BLOCKS + "where b.blocked_at is not null"
_CHANGED_BLOCKS = _BLOCKS + "where b.generation > %s"
_REVOCATIONS = """
select r.id, r.issuer, coalesce(p.name, ''), coalesce(r.token_id, ''),
  extract(epoch from r.issued_before)::float8, r.lifted_at is not null
from headgate.revocation r left join headgate.person p on p.id = r.person_id
"""
_LIVE_REVOCATIONS = _REVOCATIONS + "where r.lifted_at is null"
_CHANGED_REVOCATIONS = _REVOCATIONS + "where r.generation > %s"


async def poll(connection: Connection, held: Head | None) -> tuple[Head, bool]:
    """The newest change, and whether the database still has `held` in its history.

    A database that was restored from a back-up, or a standby that took over too early, may lack it.
    """
    number = 0 if held is None else held.number
    cursor = await connection.execute(_POLL, (number,), prepare=True)
    row = await cursor.fetchone()
    assert row is not None, "the migration has inserted the only row"  # noqa: S101
    value, newest, ours = row
    same = held is not None and held.hash == (ours or NO_HASH)
    return Head(value, newest or NO_HASH), same


async def changed_rows(connection: Connection, after: int) -> list[Row]:
    """Everything that has changed after the change of this number; of keys, all their secrets."""
    blocks = await connection.execute(_CHANGED_BLOCKS, (after,))
    rows: list[Row] = [BlockRow(*values) for values in await blocks.fetchall()]
    revoked = await connection.execute(_CHANGED_REVOCATIONS, (after,))
    rows += [RevocationRow(*values) for values in await revoked.fetchall()]
    secrets = await connection.execute(_CHANGED, (after,))
    return [*rows, *(_row(values) for values in await secrets.fetchall())]


async def live_rows(connection: Connection) -> AsyncIterator[Row]:
    """Blocked users, revoked tokens, and the secrets of all keys that are not revoked.

    The secrets come a thousand at a time.
    """
    for values in await (await connection.execute(_LIVE_BLOCKS)).fetchall():
        yield BlockRow(*values)
    for values in await (await connection.execute(_LIVE_REVOCATIONS)).fetchall():
        yield RevocationRow(*values)
    async with connection.cursor(binary=True) as cursor:
        async for values in cursor.stream(_LIVE, size=1_000):
            yield _row(values)


def _row(values: tuple[Any, ...]) -> SecretRow:
    digest, key, tenant, user, expires_s, is_revoked, models, limits = values
    return SecretRow(
        digest=digest,
        key=key,
        tenant=tenant,
        user=user,
        expires_s=NEVER_S if expires_s is None else expires_s,
        is_revoked=is_revoked,
        models=None if models is None else tuple(models),
        limits=() if limits is None else tuple(map(read_limit, limits)),
    )
