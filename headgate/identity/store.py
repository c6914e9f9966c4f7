"""The keys in the database: each change is one transaction with its row in the change log."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from psycopg.types.json import Jsonb

from headgate.core.clock import Clock
from headgate.core.keys import ApiKey, new_key
from headgate.core.policy import CompiledPolicy, Count, Per
from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.identity.change_log import Actor, Recorder, moment, person_id, recorded
from headgate.identity.keys import (
    Key,
    KeyRequest,
    KeyRuleError,
    Secret,
    check_request,
    new_id,
    revoked,
    rotated,
)
from headgate.identity.limits import KeyLimit

_KEY = """
select k.id, k.tenant, p.name, k.models, k.limits, k.labels,
  extract(epoch from k.created_at)::float8, extract(epoch from k.expires_at)::float8,
  extract(epoch from k.revoked_at)::float8, extract(epoch from k.last_used_at)::float8
from headgate.api_key k join headgate.person p on p.id = k.person_id
"""
_BY_ID = _KEY + "where k.id = %s"
_PAGE = _KEY + "where k.tenant = %s and k.id > %s order by k.id limit %s"
_SECRETS = """
select digest, extract(epoch from created_at)::float8, extract(epoch from expires_at)::float8
from headgate.key_secret where key_id = %s order by created_at
"""
_ADD_KEY = """
insert into headgate.api_key
  (id, tenant, person_id, models, limits, labels, created_at, expires_at, generation)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PUT = """
insert into headgate.key_secret (digest, key_id, created_at, expires_at) values (%s, %s, %s, %s)
on conflict (digest) do update set expires_at = excluded.expires_at
"""
_CHANGED = "update headgate.api_key set revoked_at = %s, generation = %s where id = %s"
_USED = """
update headgate.api_key k set last_used_at = u.at
from unnest(%s::text[], %s::timestamptz[]) as u (id, at)
where k.id = u.id and (k.last_used_at is null or k.last_used_at < u.at)
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key with its new secret, which is shown once and kept nowhere."""

    key: Key
    secret: ApiKey


class KeyStore:
    """Issues, rotates, revokes and lists keys.

    `connect` opens a connection or lends one. Every method raises DatabaseAwayError: then a change
    may have been made or not, and the caller looks again. A change that was returned is kept.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
        clock: Clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._random_bytes = random_bytes

    async def issue(self, request: KeyRequest, policy: CompiledPolicy, by: Actor) -> IssuedKey:
        """Makes a key. Raises KeyRuleError where the policy does not allow it."""
        check_request(request, policy, self._clock.now_s())
        secret = new_key(self._random_bytes)

        async def change(connection: Connection) -> Key:
            async with recorded(connection, by, self._clock) as recorder:
                key = Key(id=new_id(self._random_bytes), request=request, created_s=recorder.now_s)
                person = await person_id(connection, request.user)
                await _add(connection, key, person, recorder.number)
                await _put(connection, key.id, [Secret(secret.digest, recorder.now_s)])
                await recorder.write("key.issue", key.id, None, _logged(key, person))
            return key

        return IssuedKey(await self._run(change), secret)

    async def rotate(self, key_id: str, overlap_s: float, by: Actor) -> IssuedKey:
        """Gives the key a new secret; the older ones end after `overlap_s`. Raises KeyRuleError."""
        secret = new_key(self._random_bytes)

        async def change(connection: Connection) -> Key:
            async with self._changing(connection, key_id, by) as (recorder, key):
                older = [Secret(*row) for row in await _rows(connection, _SECRETS, key_id)]
                fresh = Secret(secret.digest, recorder.now_s)
                await _put(connection, key_id, rotated(key, older, fresh, overlap_s))
                values = (moment(key.revoked_s), recorder.number, key_id)
                await connection.execute(_CHANGED, values)
                digests = {"secrets": [one.digest.hex()[:12] for one in older]}
                after = {"secret": secret.id, "overlap_s": str(overlap_s)}
                await recorder.write("key.rotate", key_id, digests, after)
            return key

        return IssuedKey(await self._run(change), secret)

    async def revoke(self, key_id: str, by: Actor) -> Key:
        """Ends the key. Raises KeyRuleError for an unknown key; a revoked one stays as it is."""

        async def change(connection: Connection) -> Key:
            async with self._changing(connection, key_id, by) as (recorder, key):
                ended = revoked(key, recorder.now_s)
                values = (moment(ended.revoked_s), recorder.number, key_id)
                await connection.execute(_CHANGED, values)
                before, after = {"revoked_s": _text(key)}, {"revoked_s": _text(ended)}
                await recorder.write("key.revoke", key_id, before, after)
            return ended

        return await self._run(change)

    async def get(self, key_id: str) -> Key:
        """One key. Raises KeyRuleError for an unknown one."""

        async def read(connection: Connection) -> Key:
            return await _found(connection, key_id)

        return await self._run(read)

    async def list(self, tenant: str, after: str = "", limit: int = 100) -> list[Key]:
        """At most `limit` keys of a tenant, in the order of ids, from the one after `after`."""

        async def read(connection: Connection) -> list[Key]:
            return [_key(row) for row in await _rows(connection, _PAGE, tenant, after, limit)]

        return await self._run(read)

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Keeps when these keys were last used; an earlier time changes nothing."""
        times = [moment(at_s) for at_s in used.values()]

        async def write(connection: Connection) -> None:
            await connection.execute(_USED, (list(used), times))

        if used:
            await self._run(write)

    async def _run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        async with self._connect() as connection:
            return await within(DEADLINE_S, connection, work(connection))

    @asynccontextmanager
    async def _changing(
        self, connection: Connection, key_id: str, by: Actor
    ) -> AsyncIterator[tuple[Recorder, Key]]:
        async with recorded(connection, by, self._clock) as recorder:
            yield recorder, await _found(connection, key_id)


async def _found(connection: Connection, key_id: str) -> Key:
    rows = await _rows(connection, _BY_ID, key_id)
    if not rows:
        raise KeyRuleError("key", f"there is no key {key_id[:64]}")
    return _key(rows[0])


async def _add(connection: Connection, key: Key, person: str, generation: int) -> None:
    request = key.request
    values = (
        key.id,
        request.tenant,
        person,
        None if request.models is None else sorted(request.models),
        Jsonb([asdict(limit) for limit in request.limits]),
        Jsonb(dict(request.labels)),
        moment(key.created_s),
        moment(request.expires_s),
        generation,
    )
    await connection.execute(_ADD_KEY, values)


async def _put(connection: Connection, key_id: str, secrets: Sequence[Secret]) -> None:
    for one in secrets:
        values = (one.digest, key_id, moment(one.created_s), moment(one.expires_s))
        await connection.execute(_PUT, values)


def _logged(key: Key, person: str) -> dict[str, object]:
    """The key for the change log: the person by id, and numbers as text, which never change."""
    request = key.request
    return {
        "tenant": request.tenant,
        "person": person,
        "models": None if request.models is None else sorted(request.models),
        "limits": [
            {name: None if value is None else str(value) for name, value in asdict(limit).items()}
            for limit in request.limits
        ],
        "labels": dict(request.labels),
        "expires_s": None if request.expires_s is None else str(request.expires_s),
    }


def _text(key: Key) -> str | None:
    return None if key.revoked_s is None else str(key.revoked_s)


def _key(row: tuple[Any, ...]) -> Key:
    id, tenant, user, models, limits, labels, created_s, expires_s, revoked_s, used_s = row
    request = KeyRequest(
        tenant=tenant,
        user=user,
        models=None if models is None else tuple(models),
        limits=tuple(map(read_limit, limits)),
        labels=labels,
        expires_s=expires_s,
    )
    return Key(id=id, request=request, created_s=created_s, revoked_s=revoked_s, last_used_s=used_s)


def read_limit(values: Mapping[str, Any]) -> KeyLimit:
    """A limit as `_add` has written it."""
    per = values["per"]
    return KeyLimit(Count(values["count"]), values["limit"], None if per is None else Per(per))


async def _rows(connection: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query, values)).fetchall()
