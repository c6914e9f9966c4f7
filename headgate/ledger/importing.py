"""Imports files of usage records, and what comes through a pipe. A second time changes nothing."""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy
from headgate.core.record_lines import MAX_LINE_BYTES, BrokenGzipError, record_lines
from headgate.database.connection import Connection, DatabaseAwayError
from headgate.database.migrate import check_schema
from headgate.ledger.feeding import Fed, Line, OnBad, feed, read
from headgate.ledger.price_list import put_prices
from headgate.ledger.store import Position, counts_of, open_import, position_of

BATCH_LINES = 1_000
RETRY_S = 1.0
_READ_BYTES = 1024 * 1024
_NAME_LENGTH = 1024
_BROKEN = b"broken gzip data"

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
Texts: TypeAlias = Sequence[tuple[int, bytes]]
"""Lines with their numbers, counted from 1."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a pipe: its name, and its lines in the batches in which they are added."""

    name: str
    batches: Iterable[Texts]


def file_source(path: Path, on_bytes: Callable[[int], None]) -> Source:
    """A file, plain or gzip. `on_bytes` is told how many more of its bytes have been read."""
    return Source(str(path), _of_file(path, on_bytes))


def pipe_source(descriptor: int) -> Source:
    """A pipe: what has come is added at once, however little it is."""
    return Source("-", _of_pipe(descriptor))


def _of_file(path: Path, on_bytes: Callable[[int], None]) -> Iterator[Texts]:
    lines = _until_broken(path, on_bytes)
    while batch := list(islice(lines, BATCH_LINES)):
        yield batch


def _until_broken(path: Path, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """The lines, and one that is no record in place of broken gzip data."""
    number = 0
    try:
        for number, line in record_lines(path, on_bytes):
            yield number, line
    except BrokenGzipError:
        yield number + 1, _BROKEN


def _of_pipe(descriptor: int) -> Iterator[Texts]:
    number, rest = 0, b""
    while data := os.read(descriptor, _READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        yield list(enumerate(lines, number + 1))
        number += len(lines)
    yield [(number + 1, rest)]


class Import:
    """One run of an import. While the database is away it waits, for `wait_s` at most."""

    def __init__(
        self,
        connect: Connect,
        clock: Clock,
        wait_s: float,
        on_bad: Callable[[str, int, str], None],
        *,
        policy: CompiledPolicy | None = None,
    ) -> None:
        """`on_bad` is told the source's name, the number and the fault of each bad line.

        The prices of a `policy` come into the database, too: a record names their version alone.
        """
        self._connect = connect
        self._clock = clock
        self._wait_s = wait_s
        self._on_bad = on_bad
        self._policy = policy
        self._ingest_id: int | None = None

    async def run(self, sources: Sequence[Source]) -> Fed:
        """Adds all lines, and returns what became of them.

        Raises DatabaseAwayError after `wait_s`, and OperatorError for a file that cannot be read.
        """
        name = " ".join(source.name for source in sources)[:_NAME_LENGTH]
        batches = self._read(sources)
        pending: list[Line] | None = next(batches, None)
        good_s = self._clock.monotonic_s()
        while True:
            try:
                async with self._connect() as connection:
                    ingest_id = await self._opened(connection, name)
                    while pending is not None:
                        await self._add(connection, ingest_id, pending)
                        pending = next(batches, None)
                        good_s = self._clock.monotonic_s()
                    return Fed(*await counts_of(connection, ingest_id))
            except DatabaseAwayError:
                if self._clock.monotonic_s() - good_s >= self._wait_s:
                    raise
                await asyncio.sleep(RETRY_S)

    def _read(self, sources: Sequence[Source]) -> Iterator[list[Line]]:
        for file, source in enumerate(sources, 1):
            on_bad = partial(self._say_bad, source.name)
            for batch in source.batches:
                lines = [_line(text, Position(file, number), on_bad) for number, text in batch]
                if lines:
                    yield lines

    def _say_bad(self, source: str, behind: Position, why: str) -> None:
        self._on_bad(source, behind.offset, why)

    async def _opened(self, connection: Connection, name: str) -> int:
        if self._ingest_id is None:
            await check_schema(connection)
            if self._policy is not None:
                await put_prices(connection, self._policy)
            self._ingest_id = await open_import(connection, name)
        return self._ingest_id

    async def _add(self, connection: Connection, ingest_id: int, lines: Sequence[Line]) -> None:
        """Adds the lines behind the run's position: the others are there, though the answer of
        their transaction was lost."""
        before = await position_of(connection, ingest_id)
        rest = [line for line in lines if line.behind > before]
        if rest:
            on_bad = partial(self._say_bad, "the database")
            await feed(connection, ingest_id, before, rest, on_bad)


def _line(text: bytes, behind: Position, on_bad: OnBad) -> Line:
    if text is _BROKEN:
        on_bad(behind, "the gzip data is broken from here on")
        return Line(None, behind, is_bad=True)
    return read(text, behind, on_bad)
