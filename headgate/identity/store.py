"""The keys in the database: each change is one transaction with its row in the change log."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from psycopg.types.json import Jsonb

from headgate.core.clock import Clock
from headgate.core.keys import ApiKey, new_key
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.identity.change_log import Actor, Recorder, moment, person_id, recorded
from headgate.identity.key_rows import difference, logged, read_key, text
from headgate.identity.keys import (
    Key,
    KeyRequest,
    KeyRuleError,
    Secret,
    check_request,
    edited,
    new_id,
    revoked,
    rotated,
)

_KEY = """
select k.id, k.tenant, p.name, k.models, k.limits, k.labels,
  extract(epoch from k.created_at)::float8, extract(epoch from k.expires_at)::float8,
  extract(epoch from k.revoked_at)::float8, extract(epoch from k.last_used_at)::float8,
  k.generation
from headgate.api_key k join headgate.person p on p.id = k.person_id
"""
_BY_ID = _KEY + "where k.id = %s"
_PAGE = (
    _KEY
    + """
where k.tenant = %s and k.id > %s and (%s::text is null or p.name = %s) order by k.id limit %s
"""
)
_LIVE_OF = """
select count(*) from headgate.api_key k join headgate.person p on p.id = k.person_id
where k.tenant = %s and p.name = %s and k.revoked_at is null
  and (k.expires_at is null or k.expires_at > %s)
"""
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
_CHANGED = """
update headgate.api_key set revoked_at = %s, expires_at = %s, models = %s, limits = %s,
  labels = %s, generation = %s where id = %s
"""
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


class KeyExistsError(Exception):
    """A key with the chosen id has been issued before."""

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key.id} exists")
        self.key = key


class KeyChangedError(Exception):
    """The key is no longer the version that the caller has seen."""


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

    async def issue(
        self,
        request: KeyRequest,
        policy: CompiledPolicy,
        by: Actor,
        key_id: str | None = None,
        *,
        most: int | None = None,
    ) -> IssuedKey:
        """Makes a key, under a random id if none is chosen.

        Raises KeyRuleError where the policy does not allow it, and for a user who has `most` live
        keys. Raises KeyExistsError for a second key of the same id.
        """
        chosen = new_id(self._random_bytes) if key_id is None else key_id
        check_request(request, policy, self._clock.now_s())
        secret = new_key(self._random_bytes)

        async def change(connection: Connection) -> Key:
            async with recorded(connection, by, self._clock) as recorder:
                if rows := await _rows(connection, _BY_ID, chosen):
                    raise KeyExistsError(read_key(rows[0]))
                if most is not None:
                    await _check_room(connection, request, recorder.now_s, most)
                now_s, number = recorder.now_s, recorder.number
                key = Key(id=chosen, request=request, created_s=now_s, version=number)
                person = await person_id(connection, request.user)
                await _add(connection, key, person, recorder.number)
                await _put(connection, key.id, [Secret(secret.digest, recorder.now_s)])
                await recorder.write("key.issue", key.id, None, logged(key, person))
            return key

        return IssuedKey(await self._run(change), secret)

    async def rotate(
        self, key_id: str, overlap_s: float, by: Actor, seen: int | None = None
    ) -> IssuedKey:
        """Gives the key a new secret; the older ones end after `overlap_s`.

        Raises KeyRuleError, and KeyChangedError if the key's version is not the one that was seen.
        """
        secret = new_key(self._random_bytes)

        async def change(connection: Connection) -> Key:
            async with self._changing(connection, key_id, by, seen) as (recorder, key):
                older = [Secret(*row) for row in await _rows(connection, _SECRETS, key_id)]
                fresh = Secret(secret.digest, recorder.now_s)
                await _put(connection, key_id, rotated(key, older, fresh, overlap_s))
                changed = await _change(connection, key, recorder.number)
                digests = {"secrets": [one.digest.hex()[:12] for one in older]}
                after = {"secret": secret.id, "overlap_s": str(overlap_s)}
                await recorder.write("key.rotate", key_id, digests, after)
            return changed

        return IssuedKey(await self._run(change), secret)

    async def edit(
        self,
        key_id: str,
        change: Callable[[KeyRequest], KeyRequest],
        policy: CompiledPolicy,
        by: Actor,
        seen: int | None = None,
    ) -> Key:
        """Gives the key what `change` makes of its models, limits, labels and end.

        Raises KeyRuleError and KeyChangedError.
        """

        async def write(connection: Connection) -> Key:
            async with self._changing(connection, key_id, by, seen) as (recorder, key):
                new = edited(key, change(key.request), policy, recorder.now_s)
                new = await _change(connection, new, recorder.number)
                await recorder.write("key.edit", key_id, *difference(key, new))
            return new

        return await self._run(write)

    async def revoke(self, key_id: str, by: Actor, seen: int | None = None) -> Key:
        """Ends the key; a revoked one stays as it is.

        Raises KeyRuleError for an unknown key, and KeyChangedError.
        """

        async def change(connection: Connection) -> Key:
            async with self._changing(connection, key_id, by, seen) as (recorder, key):
                ended = await _change(connection, revoked(key, recorder.now_s), recorder.number)
                before = {"revoked_s": text(key.revoked_s)}
                after = {"revoked_s": text(ended.revoked_s)}
                await recorder.write("key.revoke", key_id, before, after)
            return ended

        return await self._run(change)

    async def get(self, key_id: str) -> Key:
        """One key. Raises KeyRuleError for an unknown one."""

        async def read(connection: Connection) -> Key:
            return await _found(connection, key_id)

        return await self._run(read)

    async def list(
        self, tenant: str, after: str = "", limit: int = 100, user: str | None = None
    ) -> list[Key]:
        """At most `limit` keys of a tenant, in the order of ids, from the one after `after`.

        With `user`, only that user's.
        """

        async def read(connection: Connection) -> list[Key]:
            rows = await _rows(connection, _PAGE, tenant, after, user, user, limit)
            return [read_key(row) for row in rows]

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
        self, connection: Connection, key_id: str, by: Actor, seen: int | None
    ) -> AsyncIterator[tuple[Recorder, Key]]:
        async with recorded(connection, by, self._clock) as recorder:
            key = await _found(connection, key_id)
            if seen not in (None, key.version):
                raise KeyChangedError(f"{key_id} has the version {key.version}, not {seen}")
            yield recorder, key


async def _found(connection: Connection, key_id: str) -> Key:
    rows = await _rows(connection, _BY_ID, key_id)
    if not rows:
        raise KeyRuleError("key", f"there is no key {key_id[:64]}")
    return read_key(rows[0])


async def _check_room(connection: Connection, request: KeyRequest, now_s: float, most: int) -> None:
    """Raises KeyRuleError for a user with `most` live keys. Nobody else adds one meanwhile."""
    values = (request.tenant, request.user, moment(now_s))
    [[live]] = await _rows(connection, _LIVE_OF, *values)
    if live >= most:
        raise KeyRuleError("keys", f"the user has {live} live keys already, of {most}")


async def _change(connection: Connection, key: Key, number: int) -> Key:
    """Writes what may change of a key; the key with its new version."""
    request = key.request
    ends = (moment(key.revoked_s), moment(request.expires_s))
    await connection.execute(_CHANGED, (*ends, *_scope(request), number, key.id))
    return replace(key, version=number)


async def _add(connection: Connection, key: Key, person: str, generation: int) -> None:
    request = key.request
    times = (moment(key.created_s), moment(request.expires_s))
    values = (key.id, request.tenant, person, *_scope(request), *times, generation)
    await connection.execute(_ADD_KEY, values)


def _scope(request: KeyRequest) -> tuple[object, ...]:
    """The columns of a key's models, limits and labels."""
    models = None if request.models is None else sorted(request.models)
    limits = [asdict(limit) for limit in request.limits]
    return models, Jsonb(limits), Jsonb(dict(request.labels))


async def _put(connection: Connection, key_id: str, secrets: Sequence[Secret]) -> None:
    for one in secrets:
        values = (one.digest, key_id, moment(one.created_s), moment(one.expires_s))
        await connection.execute(_PUT, values)


async def _rows(connection: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query, values)).fetchall()
