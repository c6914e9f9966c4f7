"""Reads the spool that the access log hooks write: whole lines, and whether more can follow."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from accesslog.spool import Segment

CHUNK_BYTES = 1024 * 1024
"""Several hundred records. A transaction of this size does not keep the program busy for long."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines of a segment, each with the offset behind it. `is_end`: nothing can follow them."""

    lines: Sequence[tuple[int, bytes]]
    is_end: bool


def read_chunk(folder: Path, segment: Segment, offset_bytes: int) -> Chunk:
    """The next lines of a segment. A segment that is gone has no more.

    The last line of a process that was killed may be torn: it comes as it is, without its end.
    """
    with suppress(FileNotFoundError), _opened(folder / segment.file_name) as descriptor:
        is_released = _is_released(descriptor)  # first: what was written before is seen below
        data = os.pread(descriptor, CHUNK_BYTES, offset_bytes)
        is_whole = offset_bytes + len(data) >= os.fstat(descriptor).st_size
        is_end = is_released and is_whole
        takes_rest = is_end or (len(data) == CHUNK_BYTES and b"\n" not in data)
        return Chunk(list(_lines(data, offset_bytes, takes_rest=takes_rest)), is_end)
    return Chunk((), is_end=True)


def remove(folder: Path, segment: Segment) -> None:
    """Removes a segment that is in the database as a whole."""
    (folder / segment.file_name).unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_released(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lines(data: bytes, offset_bytes: int, *, takes_rest: bool) -> Iterator[tuple[int, bytes]]:
    """`takes_rest`: what has no end of line counts as a line, too, as its end does not come."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        offset_bytes += len(line) + 1
        yield offset_bytes, line
    if rest and takes_rest:
        yield offset_bytes + len(rest), rest
