"""The reads and the writes of the leader in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headgate.adapters.plan.values import Spot, Wanted
from headgate.core.adapters import version_name
from headgate.database.connection import Connection
from headgate.identity.change_log import moment

_LOCK = 0x686761646170  # "hgadap": no other program takes this lock
_TRY = "select pg_try_advisory_lock(%s)"
_GENERATION = "select value from headgate.generation"
_VERSIONS = """
select a.name, v.number, a.base, v.source, a.copies, extract(epoch from v.registered_at)::float8,
  v.withdrawn_at is not null
from headgate.adapter a join headgate.adapter_version v on v.adapter = a.name
"""
_USES = """
select version, sum(began - ended)::bigint, extract(epoch from max(used_at))::float8
from headgate.adapter_use group by version
"""
_FORGET = """
delete from headgate.adapter_use where version in (
  select version from headgate.adapter_use group by version having max(used_at) < %s
)
"""
_FORGOTTEN_S = 86_400.0
"""Counts this old decide nothing. Those of replicas that are no more end with them."""
_PLACES = "select pod, version, step, is_open, error, is_permanent from headgate.adapter_place"
_DELETE = """
delete from headgate.adapter_place p using unnest(%s::text[], %s::text[]) as gone (pod, version)
where p.pod = gone.pod and p.version = gone.version
"""
_PUT = """
insert into headgate.adapter_place (pod, version, step, is_open, error, is_permanent, changed_at)
select *, %s from unnest(%s::text[], %s::text[], %s::text[], %s::bool[], %s::text[], %s::bool[])
on conflict (pod, version) do update set step = excluded.step, is_open = excluded.is_open,
  error = excluded.error, is_permanent = excluded.is_permanent, changed_at = excluded.changed_at
"""
_MOVED = "update headgate.adapter_place_round set value = value + 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of the registry; `copies` is 0 once it was withdrawn."""

    version: str
    base: str
    source: str
    copies: int
    registered_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceState:
    """The row of a place: see the migration that makes its table."""

    step: str
    is_open: bool = False
    error: str = ""
    is_permanent: bool = False


class LeaderState:
    """The database on the leader's connection, which holds the lock for as long as it lives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._generation: int | None = None
        self._registered: dict[str, Registered] = {}

    async def leads(self) -> bool:
        """Whether this connection has the lock, which it takes if nobody has it."""
        [[has]] = await self._rows(_TRY, _LOCK)
        return bool(has)

    async def registered(self) -> Mapping[str, Registered]:
        """All versions by name; they are read again if a change has been made."""
        [[generation]] = await self._rows(_GENERATION)
        if generation != self._generation:
            rows = await self._rows(_VERSIONS)
            self._registered = {one.version: one for one in (_registered(row) for row in rows)}
            self._generation = generation
        return self._registered

    async def wanted(self, registered: Mapping[str, Registered]) -> Mapping[str, Wanted]:
        """These versions with their uses."""
        uses = {version: (n, used_s) for version, n, used_s in await self._rows(_USES)}
        found = {}
        for name, one in registered.items():
            in_flight, used_s = uses.get(name, (0, 0.0))
            found[name] = Wanted(
                version=name,
                copies=one.copies,
                used_s=max(used_s, one.registered_s),
                in_flight=max(0, in_flight),
            )
        return found

    async def places(self) -> dict[Spot, PlaceState]:
        """All places as they were written last."""
        return {
            Spot(pod, version): PlaceState(
                step=step, is_open=is_open, error=error, is_permanent=is_permanent
            )
            for pod, version, step, is_open, error, is_permanent in await self._rows(_PLACES)
        }

    async def write(
        self, old: Mapping[Spot, PlaceState], new: Mapping[Spot, PlaceState], now_s: float
    ) -> None:
        """Writes what has changed, in one transaction, so that replicas read it again."""
        gone = [spot for spot in old if spot not in new]
        put = [(spot, state) for spot, state in new.items() if old.get(spot) != state]
        if not gone and not put:
            return
        async with self._connection.transaction():
            await self._connection.execute(
                _DELETE, ([spot.pod for spot in gone], [spot.version for spot in gone])
            )
            columns = (
                [spot.pod for spot, _ in put],
                [spot.version for spot, _ in put],
                [state.step for _, state in put],
                [state.is_open for _, state in put],
                [state.error for _, state in put],
                [state.is_permanent for _, state in put],
            )
            await self._connection.execute(_PUT, (moment(now_s), *columns))
            await self._connection.execute(_MOVED)

    async def forget(self, now_s: float) -> None:
        """Deletes counts of uses that decide nothing any more."""
        await self._connection.execute(_FORGET, (moment(now_s - _FORGOTTEN_S),))

    async def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(query, values)).fetchall()


def _registered(row: tuple[Any, ...]) -> Registered:
    name, number, base, source, copies, registered_s, is_withdrawn = row
    return Registered(
        version=version_name(name, number),
        base=base,
        source=source,
        copies=0 if is_withdrawn else copies,
        registered_s=registered_s,
    )
