"""Notes the uses of versions in the database, once a second and in one statement."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg

from accesslog.types import UsageRecord
from headgate.core.adapters import Adapters, Uses
from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.database.connection import (
    DEADLINE_S,
    Connection,
    DatabaseAwayError,
    first_line,
    within,
)
from headgate.identity.change_log import moment

EVERY_S = 1.0

_ADD = """
insert into headgate.adapter_use as u (version, replica, began, ended, used_at)
select * from unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::timestamptz[])
on conflict (version, replica) do update set began = u.began + excluded.began,
  ended = u.ended + excluded.ended, used_at = greatest(u.used_at, excluded.used_at)
"""

log = logging.getLogger("headgate.adapters")


@dataclass(slots=True)
class _Use:
    used_s: float
    began: int = 0
    ended: int = 0


class UseNotes:
    """Counts in memory, and adds the counts to the database, as an asynchronous context manager.

    While the database is away, the counts wait here. Names that the registry does not know, such as
    adapters of the policy file, are left out.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
        adapters: Adapters,
        replica: str,
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._adapters = adapters
        self._replica = replica
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._task = BackgroundTask("uses of adapters", self._tend, EVERY_S, log)
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._task.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._task.stop()
        await self.write()

    def began(self, version: str) -> None:
        """A request for the version was admitted."""
        if use := self._use(version):
            use.began += 1
            use.used_s = self._clock.now_s()

    def ended(self, version: str) -> None:
        """A request that was admitted has ended."""
        if use := self._use(version):
            use.ended += 1

    def wanted(self, version: str) -> None:
        """A request for the version was refused, as no pod has it."""
        if use := self._use(version):
            use.used_s = self._clock.now_s()

    async def _tend(self) -> None:
        """A round. One that is stopped goes on, and `write` waits for it: nothing is lost."""
        await asyncio.shield(self.write())

    async def write(self) -> None:
        """Adds the counts to the database; they stay here if it is away."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            async with self._connect() as connection:
                await within(DEADLINE_S, connection, _add(connection, self._replica, uses))
        except (DatabaseAwayError, psycopg.Error) as error:
            log.info("the uses of adapters were not noted: %s", first_line(error))
            self._take_back(uses)

    def _use(self, version: str) -> _Use | None:
        if self._adapters.base_of(version.rpartition("@")[0]) is None:
            return None
        use = self._uses.get(version)
        if use is None:
            use = self._uses[version] = _Use(self._clock.now_s())
        return use

    def _take_back(self, uses: dict[str, _Use]) -> None:
        for version, old in uses.items():
            use = self._uses.setdefault(version, _Use(old.used_s))
            use.began += old.began
            use.ended += old.ended


async def _add(connection: Connection, replica: str, uses: dict[str, _Use]) -> None:
    columns = (
        list(uses),
        [replica] * len(uses),
        [use.began for use in uses.values()],
        [use.ended for use in uses.values()],
        [moment(use.used_s) for use in uses.values()],
    )
    await connection.execute(_ADD, columns)


class EndedUses:
    """A sink of usage records that notes the end of each request for an adapter."""

    def __init__(self, uses: Uses) -> None:
        self._uses = uses

    async def write(self, records: Sequence[UsageRecord]) -> None:
        """Notes the ends of these requests."""
        for record in records:
            if record.adapter is not None:
                self._uses.ended(record.adapter)
