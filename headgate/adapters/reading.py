"""The reads of a replica: the adapters that have changed, and the places that are open."""

from typing import Any

from headgate.adapters.registry import AdapterRow, MemoryRegistry
from headgate.database.connection import Connection

_ROWS = """
select name, tenant, base, shared_with, weights, removed_at is not null from headgate.adapter
"""
_CHANGED = _ROWS + "where generation > %s"
_ROUND = "select value from headgate.adapter_place_round"
_OPEN = "select version, pod from headgate.adapter_place where is_open"


class FollowedAdapters:
    """Keeps a registry in step with the database, by the polls of the keys."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self._round: int | None = None

    async def follow(self, connection: Connection, after: int | None) -> None:
        """Takes the adapters changed after the change of this number; with None all of them.

        The places are read if one of them has changed since the last call.
        """
        if after is None or not self._registry.is_filled:
            self._round = None
            cursor = await connection.execute(_ROWS)
            self._registry.replace([_row(values) for values in await cursor.fetchall()])
        else:
            cursor = await connection.execute(_CHANGED, (after,), prepare=True)
            self._registry.update([_row(values) for values in await cursor.fetchall()])
        await self._read_places(connection)

    async def _read_places(self, connection: Connection) -> None:
        cursor = await connection.execute(_ROUND, prepare=True)
        row = await cursor.fetchone()
        assert row is not None, "the migration has inserted the only row"  # noqa: S101
        if row[0] == self._round:
            return
        places = await connection.execute(_OPEN)
        self._registry.place([(version, pod) for version, pod in await places.fetchall()])
        self._round = row[0]


def weights_of(stored: dict[str, int]) -> tuple[tuple[int, int], ...]:
    """The weights of versions by number, from the JSON of the database."""
    return tuple(sorted((int(number), weight) for number, weight in stored.items()))


def _row(values: tuple[Any, ...]) -> AdapterRow:
    name, tenant, base, shared_with, weights, is_removed = values
    return AdapterRow(name, tenant, base, tuple(shared_with), weights_of(weights), is_removed)
