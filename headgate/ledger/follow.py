"""Brings the spool into the database, in a thread of its own: no hook waits for it."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import groupby
from pathlib import Path

import psycopg

from accesslog.spool import Segment, segments_of, size_bytes
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection, DatabaseAwayError, first_line
from headgate.database.migrate import check_schema
from headgate.ledger.feeding import Fed, feed, read
from headgate.ledger.months import provide_months
from headgate.ledger.price_list import put_prices
from headgate.ledger.spool import Chunk, read_chunk, remove
from headgate.ledger.store import MovedError, Position, open_stream

PAUSE_S = 0.5
PROVIDE_S = 3600.0
LAST_PASS_S = 5.0
"""How long the end of the program waits for the last records. The next start brings the others."""
NEVER_S = 1.0

log = logging.getLogger("headgate.ledger")

Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class SpoolFollower:
    """Adds the records of a spool to the ledger as they come.

    Any number of programs may follow any number of spools. Where two of them follow the same one,
    the position in the database keeps them from adding its records twice.
    """

    def __init__(
        self,
        connect: Connect,
        folder: Path,
        policy: Callable[[], CompiledPolicy],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`policy` returns the one in force: its prices come into the database, too."""
        self._connect = connect
        self._policy = policy
        self._folder = folder
        self._clock = clock
        self._metrics = metrics.of_ledger
        self._streams: dict[str, tuple[int, Position]] = {}
        self._ends = threading.Event()
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Starts the thread. Raises OSError if the folder cannot be made."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._metrics.current_seconds.set(NEVER_S)
        self._thread.start()

    def stop(self) -> None:
        """Adds what is left, if the database answers, and ends the thread."""
        self._ends.set()
        self._thread.join(2 * LAST_PASS_S)

    def _run(self) -> None:
        asyncio.run(self._follow())

    async def _follow(self) -> None:
        """Goes on whatever fails, until the program ends; then it has a last try."""
        while not self._ends.is_set():
            try:
                async with self._connect() as connection:
                    await self._keep_up(connection)
            except Exception as error:
                self._say_away(error)
                await asyncio.sleep(PAUSE_S)
        try:
            async with asyncio.timeout(LAST_PASS_S), self._connect() as connection:
                self._streams.clear()
                await self.catch_up(connection)
        except Exception as error:
            self._say_away(error)

    async def _keep_up(self, connection: Connection) -> None:
        await check_schema(connection)
        self._streams.clear()
        provided, priced = 0.0, None
        while not self._ends.is_set():
            policy = self._policy()
            if policy is not priced:
                await put_prices(connection, policy)
                priced = policy
            if abs(self._clock.now_s() - provided) >= PROVIDE_S:
                provided = self._clock.now_s()
                await provide_months(connection, provided)
            await self.catch_up(connection)
            self._say_back()
            await asyncio.to_thread(self._ends.wait, PAUSE_S)

    async def catch_up(self, connection: Connection) -> None:
        """Adds everything that the spool holds by now. Raises DatabaseAwayError."""
        asked_s, has_all = self._clock.now_s(), True
        for stream, segments in groupby(segments_of(self._folder), lambda one: one.stream):
            try:
                await self._read(connection, stream, list(segments))
            except MovedError:
                has_all = False
                del self._streams[stream]
        self._metrics.spool_bytes.set(size_bytes(self._folder))
        if has_all:
            self._metrics.current_seconds.set(asked_s)

    async def _read(self, connection: Connection, stream: str, segments: list[Segment]) -> None:
        if stream not in self._streams:
            self._streams[stream] = await open_stream(connection, stream)
        for segment in segments:
            while not await self._step(connection, segment):
                pass

    async def _step(self, connection: Connection, segment: Segment) -> bool:
        """Adds the next chunk of a segment; True once there is nothing more for now."""
        ingest_id, position = self._streams[segment.stream]
        if segment.number < position.segment:
            remove(self._folder, segment)
            return True
        is_begun = segment.number == position.segment
        offset_bytes = position.offset if is_begun else 0
        chunk = read_chunk(self._folder, segment, offset_bytes)
        if chunk.lines:
            behind = await self._add(connection, ingest_id, position, segment, chunk)
            self._streams[segment.stream] = ingest_id, behind
        if chunk.is_end:
            remove(self._folder, segment)
        return chunk.is_end or not chunk.lines

    async def _add(
        self,
        connection: Connection,
        ingest_id: int,
        before: Position,
        segment: Segment,
        chunk: Chunk,
    ) -> Position:
        on_bad = partial(self._say_bad, segment)
        lines = [
            read(text, Position(segment.number, behind), on_bad) for behind, text in chunk.lines
        ]
        fed = await feed(connection, ingest_id, before, lines, on_bad)
        self._count(fed)
        return lines[-1].behind

    def _count(self, fed: Fed) -> None:
        for outcome, number in (
            ("added", fed.added),
            ("repeated", fed.repeated),
            ("bad", fed.bad),
        ):
            self._metrics.records.labels(outcome).inc(number)

    def _say_bad(self, segment: Segment, behind: Position, why: str) -> None:
        place = f"{self._folder / segment.file_name}, the line before byte {behind.offset}"
        log.error("%s: it %s", place, why)

    def _say_away(self, error: Exception) -> None:
        """Once for each outage."""
        if not self._is_away:
            self._is_away = True
            known = (DatabaseAwayError, OperatorError, TimeoutError, psycopg.Error, OSError)
            text = first_line(error) if isinstance(error, known) else repr(error)
            log.error("the ledger waits, and the spool keeps its records: %s", text)

    def _say_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.warning("the ledger has every record again")
