"""Writes usage records."""

import asyncio
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

import msgspec

from accesslog.types import UsageRecord
from headgate.core.errors import OperatorError


class Sink(Protocol):
    """Takes finished records, in batches as Envoy sends them."""

    async def write(self, records: Sequence[UsageRecord]) -> None:
        """Writes the records. Raises OSError if it fails; the caller counts them as failed."""
        ...


class JsonLinesSink:
    """One JSON object on one line for each record, appended to a file or standard output.

    A thread encodes and writes, so that a slow disk delays no hook. Each batch is one write of
    whole lines, so several processes may append to one file. Only a
    process that is killed during a long write leaves a torn last line, because Linux cuts the write
    short. The next process ends that line first. A file that was renamed or deleted is made anew
    before the next batch.

    A pipe takes only 4 KiB at once. Where several processes write to one standard output, they
    share a `lock`, the descriptor of a file that each of them locks while it writes.
    """

    def __init__(
        self,
        descriptor: int,
        torn: bool = False,
        *,
        path: Path | None = None,
        lock: int | None = None,
    ) -> None:
        """Writes to an open file descriptor; `torn` says that the file ends within a line.

        `path` is the file's name, None for a stream that cannot be opened again.
        """
        self._descriptor = descriptor
        self._torn = torn
        self._path = path
        self._lock = lock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage records")
        self._encoder = msgspec.json.Encoder(decimal_format="number")

    @classmethod
    def open(cls, path: Path | None, lock: int | None = None) -> Self:
        """Opens the file; None is standard output. Only its owner can read a new file.

        Raises OperatorError if it cannot be written.
        """
        if path is None:
            return cls(os.dup(sys.stdout.fileno()), lock=lock)
        try:
            descriptor, torn = _opened(path)
        except OSError as error:
            raise OperatorError(
                f"cannot write usage records to {path}: {error.strerror}"
            ) from error
        return cls(descriptor, torn, path=path)

    async def write(self, records: Sequence[UsageRecord]) -> None:
        """Appends a line for each record. Raises OSError (disk full) and stays usable.

        A disk that fills up within a line leaves a torn line. The next batch ends it first, so that
        no later record is on the same line.
        """
        if records:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._append, records)

    def _append(self, records: Sequence[UsageRecord]) -> None:
        lines = self._encoder.encode_lines(records)
        self._follow()
        pending = memoryview(b"\n" + lines if self._torn else lines)
        with self._alone():
            while pending:
                written = os.write(self._descriptor, pending)
                self._torn = pending[written - 1] != ord("\n")
                pending = pending[written:]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _follow(self) -> None:
        """Opens the file again if its name leads to another file by now, or to none."""
        if self._path is None:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                return
        descriptor, self._torn = _opened(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Closes the file, once what was given is written."""
        self._thread.shutdown()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path) -> tuple[int, bool]:
    """The descriptor of the file, to append, and whether it ends within a line."""
    # It is opened for reading, too, to find out the latter.
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    size = os.fstat(descriptor).st_size
    return descriptor, size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
