"""Keeps a replica's keys in step with the database.

A poll every 250 ms on a connection of its own is the promise; a notification only makes the next
poll come earlier. A connection that is cut without a word loses notifications without an error.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

import psycopg

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.database.connection import Connection, DatabaseAwayError, first_line, within
from headgate.database.migrate import check_schema
from headgate.identity.change_log import CHANNEL
from headgate.identity.reading import changed_rows, live_rows, poll
from headgate.identity.ring import KeyContent, MemoryRing
from headgate.identity.snapshot import Snapshot
from headgate.identity.store import KeyStore

POLL_S = 0.25
POLL_DEADLINE_S = 0.5
LOAD_DEADLINE_S = 60.0
KEEP_EVERY_S = 5.0
USED_EVERY_S = 30.0

log = logging.getLogger("headgate.identity")

Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class Followed(Protocol):
    """Another part of the database, which the same polls keep current."""

    async def follow(self, connection: Connection, after: int | None) -> None:
        """Takes what changed after the change of this number; with None everything."""
        ...


async def catch_up(
    connection: Connection, ring: MemoryRing, clock: Clock, others: Sequence[Followed] = ()
) -> None:
    """Makes the ring and the others current: small queries if nothing has changed.

    The time of the question counts, not that of the answer. Raises DatabaseAwayError.
    """
    asked_s, held = clock.now_s(), ring.head
    head, is_same = await within(POLL_DEADLINE_S, connection, poll(connection, held))
    after = held.number if held is not None and is_same else None
    for other in others:  # first: a ring that is current is not asked for again
        await within(LOAD_DEADLINE_S, connection, other.follow(connection, after))
    if held is None or not is_same:
        await within(LOAD_DEADLINE_S, connection, _load(connection, ring, clock))
    elif head != held:
        rows = await within(LOAD_DEADLINE_S, connection, changed_rows(connection, held.number))
        ring.update(rows, head)
    ring.mark_good(asked_s)


async def _load(connection: Connection, ring: MemoryRing, clock: Clock) -> None:
    """Takes everything, as of one moment."""
    content = KeyContent()
    async with connection.transaction():
        await connection.execute("set transaction isolation level repeatable read, read only")
        head, _ = await poll(connection, None)
        async for row in live_rows(connection):
            content.take(row, clock.now_s())
    ring.replace(content, head)


class KeyFollower:
    """Fills a ring and keeps it current, as an asynchronous context manager.

    It starts with the snapshot if there is one.
    """

    def __init__(
        self,
        connect: Connect,
        ring: MemoryRing,
        snapshot: Snapshot | None,
        clock: Clock,
        metrics: Metrics,
        *,
        others: Sequence[Followed] = (),
    ) -> None:
        self._connect = connect
        self._ring = ring
        self._snapshot = snapshot
        self._clock = clock
        self._metrics = metrics
        self._others = others
        self._store = KeyStore(connect, clock)
        self._hint = asyncio.Event()
        self._loaded = asyncio.Event()
        self._is_away = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Returns once the keys are loaded, or once the database has not answered."""
        if self._snapshot is not None:
            await self._snapshot.read_into(self._ring)
        self._report()
        works = [self._follow(), self._listen(), self._keep_used()]
        if self._snapshot is not None:
            works.append(self._keep_snapshot(self._snapshot))
        self._tasks = [asyncio.create_task(work, name="keys at run time") for work in works]
        await self._loaded.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._snapshot is not None:
            await self._snapshot.keep(self._ring)
        await self._write_used()

    async def _follow(self) -> None:
        """Polls for as long as the replica runs: whatever fails, the next poll may succeed."""
        while True:
            try:
                async with self._connect() as connection:
                    await self._check(connection)
                    while True:
                        await self._step(connection)
                        await self._pause()
            except Exception as error:
                self._say_away(error)
                await asyncio.sleep(POLL_S)
            finally:
                self._loaded.set()

    async def _check(self, connection: Connection) -> None:
        await within(POLL_DEADLINE_S, connection, check_schema(connection))

    async def _step(self, connection: Connection) -> None:
        self._hint.clear()
        await catch_up(connection, self._ring, self._clock, self._others)
        self._say_back()
        self._report()
        self._loaded.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._hint.wait()
        except TimeoutError:
            pass

    async def _listen(self) -> None:
        while True:
            try:
                async with self._connect() as connection:
                    await connection.execute(f"listen {CHANNEL}")
                    async for _ in connection.notifies():
                        self._hint.set()
            except Exception as error:
                log.debug("no hints of changed keys: %s", first_line(error))  # the poll warns
            await asyncio.sleep(1.0)

    async def _keep_snapshot(self, snapshot: Snapshot) -> None:
        """Beside the polls, which must not wait for a disk."""
        await self._loaded.wait()
        while True:
            await snapshot.keep(self._ring)
            await asyncio.sleep(KEEP_EVERY_S)

    async def _keep_used(self) -> None:
        while True:
            await asyncio.sleep(USED_EVERY_S)
            await self._write_used()

    async def _write_used(self) -> None:
        """One statement for all keys. It is lost if the database is away: it decides nothing."""
        try:
            await self._store.note_used(self._ring.take_used())
        except (DatabaseAwayError, psycopg.Error) as error:
            log.info("the last use of keys was not noted: %s", first_line(error))

    def _report(self) -> None:
        self._metrics.of_identity.keys.set(len(self._ring))
        self._metrics.of_identity.keys_polled_seconds.set(self._ring.good_at_s or 1)

    def _say_away(self, error: Exception) -> None:
        if not self._is_away:
            log.warning(
                "the keys of the database are followed no more, and revocations wait: %s",
                first_line(error) or type(error).__name__,
            )
        self._is_away = True

    def _say_back(self) -> None:
        if self._is_away:
            log.warning("the keys of the database are followed again")
        self._is_away = False
