"""The registered adapters in the database: each change is one transaction with a row in the log."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from psycopg.types.json import Jsonb

from headgate.adapters.reading import weights_of
from headgate.adapters.rules import (
    Adapter,
    AdapterRequest,
    AdapterRuleError,
    AdapterVersion,
    check_copies,
    check_request,
    check_users,
    removed,
    weighed,
    with_version,
    withdrawn,
)
from headgate.core.adapters import version_name
from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.identity.change_log import Actor, Recorder, moment, recorded

_ADAPTER = """
select a.name, a.tenant, a.base, a.copies, a.shared_with, a.weights,
  extract(epoch from a.removed_at)::float8, (
    select array_agg(array[v.number::float8, extract(epoch from v.registered_at)::float8,
      extract(epoch from v.withdrawn_at)::float8] order by v.number)
    from headgate.adapter_version v where v.adapter = a.name
  ), (
    select array_agg(v.source order by v.number)
    from headgate.adapter_version v where v.adapter = a.name
  )
from headgate.adapter a
"""
_ONE = _ADAPTER + "where a.name = %s"
_PAGE = _ADAPTER + (
    """where a.name > %(after)s collate "C" and a.removed_at is null and (
  %(tenant)s::text is null or a.tenant = %(tenant)s or %(tenant)s = any(a.shared_with)
) order by a.name collate "C" limit %(limit)s"""
)
_PUT = """
insert into headgate.adapter
  (name, tenant, base, shared_with, weights, copies, removed_at, generation)
values (%s, %s, %s, %s, %s, %s, %s, %s)
on conflict (name) do update set shared_with = excluded.shared_with, weights = excluded.weights,
  copies = excluded.copies, removed_at = excluded.removed_at, generation = excluded.generation
"""
_PUT_VERSION = """
insert into headgate.adapter_version (adapter, number, source, registered_at, withdrawn_at)
values (%s, %s, %s, %s, %s)
on conflict (adapter, number) do update set withdrawn_at = excluded.withdrawn_at
"""
_PLACES = """
select pod, version, step, is_open, error, is_permanent, extract(epoch from changed_at)::float8
from headgate.adapter_place where version = any(%s) order by version, pod
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A version on a pod: what the reconciler has reached, and what went wrong last."""

    pod: str
    version: str
    step: str
    is_open: bool
    error: str
    is_permanent: bool
    changed_s: float


class AdapterStore:
    """Registers, edits and lists adapters. Every method raises DatabaseAwayError, as `KeyStore`."""

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[Connection]], clock: Clock
    ) -> None:
        self._connect = connect
        self._clock = clock

    async def register(self, request: AdapterRequest, policy: CompiledPolicy, by: Actor) -> Adapter:
        """A new adapter, or the next version of one. Raises AdapterRuleError."""
        check_request(request, policy)

        async def change(connection: Connection) -> Adapter:
            async with recorded(connection, by, self._clock) as recorder:
                old = await _find(connection, request.name)
                new = with_version(old, request, recorder.now_s)
                await _write(connection, recorder, "adapter.register", (old, new))
            return new

        return await self._run(change)

    async def edit(
        self,
        name: str,
        policy: CompiledPolicy,
        by: Actor,
        *,
        weights: Mapping[int, int] | None = None,
        shared_with: Sequence[str] | None = None,
        copies: int | None = None,
    ) -> Adapter:
        """Gives the adapter other weights, users or copies; None leaves them.

        Raises AdapterRuleError.
        """

        async def change(connection: Connection) -> Adapter:
            async with self._changing(connection, name, by) as (recorder, old):
                new = old
                if weights is not None:
                    loaded = await _loaded(connection, old, policy)
                    new = weighed(new, weights, loaded)
                if shared_with is not None:
                    check_users(shared_with, old.base, policy)
                    users = tuple(sorted(set(shared_with) - {old.tenant}))
                    new = replace(new, shared_with=users)
                if copies is not None:
                    check_copies(copies)
                    new = replace(new, copies=copies)
                await _write(connection, recorder, "adapter.edit", (old, new))
            return new

        return await self._run(change)

    async def withdraw(self, name: str, number: int, by: Actor) -> Adapter:
        """Ends a version, which pods then unload. Raises AdapterRuleError."""
        return await self._change(
            name, by, "adapter.withdraw", lambda old, now_s: withdrawn(old, number, now_s)
        )

    async def remove(self, name: str, by: Actor) -> Adapter:
        """Ends the adapter with all of its versions. Raises AdapterRuleError."""
        return await self._change(name, by, "adapter.remove", removed)

    async def get(self, name: str) -> Adapter:
        """One adapter, also one that was removed. Raises AdapterRuleError for an unknown one."""

        async def read(connection: Connection) -> Adapter:
            return await _found(connection, name)

        return await self._run(read)

    async def page(self, tenant: str | None, after: str = "", limit: int = 100) -> list[Adapter]:
        """At most `limit` adapters after the one of this name; with `tenant` those it may use."""
        values = {"tenant": tenant, "after": after, "limit": limit}

        async def read(connection: Connection) -> list[Adapter]:
            cursor = await connection.execute(_PAGE, values)
            return [_adapter(row) for row in await cursor.fetchall()]

        return await self._run(read)

    async def places(self, adapters: Sequence[Adapter]) -> list[Place]:
        """Where the versions of these adapters are."""
        versions = [
            version_name(adapter.name, one.number)
            for adapter in adapters
            for one in adapter.versions
        ]

        async def read(connection: Connection) -> list[Place]:
            return await _places(connection, versions)

        return await self._run(read)

    async def _change(
        self, name: str, by: Actor, action: str, change: Callable[[Adapter, float], Adapter]
    ) -> Adapter:
        async def write(connection: Connection) -> Adapter:
            async with self._changing(connection, name, by) as (recorder, old):
                new = change(old, recorder.now_s)
                await _write(connection, recorder, action, (old, new))
            return new

        return await self._run(write)

    async def _run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        async with self._connect() as connection:
            return await within(DEADLINE_S, connection, work(connection))

    @asynccontextmanager
    async def _changing(
        self, connection: Connection, name: str, by: Actor
    ) -> AsyncIterator[tuple[Recorder, Adapter]]:
        async with recorded(connection, by, self._clock) as recorder:
            yield recorder, await _found(connection, name)


async def _find(connection: Connection, name: str) -> Adapter | None:
    row = await (await connection.execute(_ONE, (name,))).fetchone()
    return None if row is None else _adapter(row)


async def _found(connection: Connection, name: str) -> Adapter:
    adapter = await _find(connection, name)
    if adapter is None:
        raise AdapterRuleError("adapter", f"there is no adapter {name[:64]}")
    return adapter


async def _places(connection: Connection, versions: Sequence[str]) -> list[Place]:
    cursor = await connection.execute(_PLACES, (list(versions),))
    names = ("pod", "version", "step", "is_open", "error", "is_permanent", "changed_s")
    return [Place(**dict(zip(names, row, strict=True))) for row in await cursor.fetchall()]


async def _loaded(
    connection: Connection, adapter: Adapter, policy: CompiledPolicy
) -> set[int] | None:
    """The versions that a pod has; None where Headgate does not load them."""
    base = policy.models.get(adapter.base)
    if base is None or base.adapter_pool is None:
        return None
    names = {version_name(adapter.name, one.number): one.number for one in adapter.versions}
    places = await _places(connection, list(names))
    return {names[place.version] for place in places if place.is_open}


async def _write(
    connection: Connection, recorder: Recorder, action: str, change: tuple[Adapter | None, Adapter]
) -> None:
    """Writes the adapter and the row of its change. Every replica then reads it."""
    old, new = change
    weights = Jsonb({str(number): weight for number, weight in new.weights.items()})
    values = (new.name, new.tenant, new.base, list(new.shared_with), weights, new.copies)
    await connection.execute(_PUT, (*values, moment(new.removed_s), recorder.number))
    known = () if old is None else old.versions
    for one in new.versions:
        if one not in known:
            times = (moment(one.registered_s), moment(one.withdrawn_s))
            await connection.execute(_PUT_VERSION, (new.name, one.number, one.source, *times))
    before = None if old is None else _logged(old)
    await recorder.write(action, f"{new.tenant}/adapter/{new.name}", before, _logged(new))


def _logged(adapter: Adapter) -> Mapping[str, object]:
    """The adapter for the change log."""
    return {
        "base": adapter.base,
        "copies": adapter.copies,
        "shared_with": list(adapter.shared_with),
        "weights": {str(number): weight for number, weight in adapter.weights.items()},
        "versions": {
            str(one.number): one.source for one in adapter.versions if one.withdrawn_s is None
        },
        "is_removed": adapter.is_removed,
    }


def _adapter(row: tuple[Any, ...]) -> Adapter:
    name, tenant, base, copies, shared_with, weights, removed_s, numbers, sources = row
    versions = tuple(
        AdapterVersion(
            number=int(number), source=source, registered_s=registered_s, withdrawn_s=withdrawn_s
        )
        for (number, registered_s, withdrawn_s), source in zip(numbers, sources, strict=True)
    )
    return Adapter(
        name=name,
        tenant=tenant,
        base=base,
        copies=copies,
        shared_with=tuple(shared_with),
        weights=dict(weights_of(weights)),
        versions=versions,
        removed_s=removed_s,
    )
