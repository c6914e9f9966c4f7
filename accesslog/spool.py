"""The spool: usage records on disk until they are in the database, bounded in size.

Each process writes a stream of its own, in segments. It holds the lock of the segment that it
writes. A reader that gets the lock therefore knows that nothing follows in this segment.
"""

import asyncio
import fcntl
import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from accesslog.types import UsageRecord
from headgate.core.errors import OperatorError

SEGMENT_BYTES = 8 * 1024 * 1024
_SUFFIX = ".jsonl"
_HIDDEN = "."


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of a stream. Numbers count from 1."""

    stream: str
    number: int

    @property
    def file_name(self) -> str:
        return f"{self.stream}-{self.number:08}{_SUFFIX}"


def segments_of(folder: Path) -> list[Segment]:
    """The segments in a folder, stream by stream, in the order in which they were written.

    A hidden file is a segment that its writer has not locked yet: a reader would take it for ended.
    """
    found = []
    for entry in os.scandir(folder):
        stream, _, number = entry.name.removesuffix(_SUFFIX).rpartition("-")
        is_named = stream and not stream.startswith(_HIDDEN)
        if entry.name.endswith(_SUFFIX) and is_named and number.isdecimal():
            found.append(Segment(stream, int(number)))
    return sorted(found)


def size_bytes(folder: Path) -> int:
    """The bytes of all segments. One that a reader removes meanwhile counts as nothing."""
    total = 0
    for segment in segments_of(folder):
        try:
            total += (folder / segment.file_name).stat().st_size
        except FileNotFoundError:
            continue
    return total


class SpoolWriter:
    """Appends lines to a stream. It blocks, so it runs in a thread.

    Once the spool has `limit_bytes`, and while the disk is full, what comes is lost. The spool is
    on disk as the kernel sees it: it outlives this process, but not a power failure.
    """

    def __init__(self, folder: Path, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises OSError if the folder cannot be written."""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._segment = Segment(str(uuid.uuid4()), 0)
        self._descriptor = -1
        self._torn = False
        self.fault = ""
        """Why it last did not take lines."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._next()

    def append(self, lines: bytes) -> int:
        """Appends whole lines. Returns how many the spool did not take."""
        count = lines.count(b"\n")
        if size_bytes(self._folder) + len(lines) > self._limit_bytes:
            self.fault = f"it has {self._limit_bytes} bytes, its limit"
            return count
        try:
            if os.fstat(self._descriptor).st_size >= self._segment_bytes:
                self._next()
        except OSError as error:
            self.fault = f"{error.strerror}"
            return count
        return min(count, self._write(b"\n" + lines if self._torn else lines))

    def _write(self, lines: bytes) -> int:
        """Writes what the disk takes, and returns how many ends of lines are missing.

        A line that the disk tears is ended before the next batch.
        """
        pending = memoryview(lines)
        try:
            while pending:
                written = os.write(self._descriptor, pending)
                self._torn = pending[written - 1] != ord("\n")
                pending = pending[written:]
        except OSError as error:
            self.fault = f"{error.strerror}"
            return bytes(pending).count(b"\n")
        return 0

    def _next(self) -> None:
        """Begins a segment. It gets its name once its lock is held, so no reader comes before."""
        segment = Segment(self._segment.stream, self._segment.number + 1)
        new = self._folder / f"{_HIDDEN}{segment.file_name}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            new.rename(self._folder / segment.file_name)
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._segment, self._descriptor, self._torn = segment, descriptor, False

    def close(self) -> None:
        """Lets go of the segment: a reader may take its last line, and remove it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SpoolSink:
    """A sink of usage records that a thread writes to the spool. `on_lost` is told how many it did
    not take."""

    def __init__(self, writer: SpoolWriter, on_lost: Callable[[int], None]) -> None:
        self._writer = writer
        self._on_lost = on_lost
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._encoder = msgspec.json.Encoder(decimal_format="number")

    @classmethod
    def open(cls, folder: Path, limit_bytes: int, on_lost: Callable[[int], None]) -> Self:
        """Begins a stream. Raises OperatorError if the folder cannot be written."""
        try:
            return cls(SpoolWriter(folder, limit_bytes), on_lost)
        except OSError as error:
            raise OperatorError(f"cannot write the spool {folder}: {error.strerror}") from error

    async def write(self, records: Sequence[UsageRecord]) -> None:
        """Appends the records. Raises OSError if the spool did not take all of them."""
        if records:
            loop = asyncio.get_running_loop()
            lost = await loop.run_in_executor(self._thread, self._append, records)
            if lost:
                self._on_lost(lost)
                raise OSError(f"the spool lost {lost} records: {self._writer.fault}")

    def _append(self, records: Sequence[UsageRecord]) -> int:
        return self._writer.append(self._encoder.encode_lines(records))

    def close(self) -> None:
        """Ends the stream, once what was given is written."""
        self._thread.shutdown()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
