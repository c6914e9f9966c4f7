"""The lines of a file of usage records, plain or gzip, in bounded memory."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from headgate.core.errors import OperatorError

MAX_LINE_BYTES = 256 * 1024
"""Several times the longest record: each of its texts has at most 1,024 characters."""
_GZIP_MAGIC = b"\x1f\x8b"
_LINES_PER_REPORT = 1_000


class BrokenGzipError(Exception):
    """The gzip data is broken behind the last line that was read."""


def record_lines(path: Path, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1. A longer one is cut a little above MAX_LINE_BYTES.

    `on_bytes` is called with how many more bytes of the file have been read. Raises OperatorError
    when the file cannot be read, and BrokenGzipError.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.peek(2)[:2] == _GZIP_MAGIC
            file = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            reported = 0
            for number, line in enumerate(_lines(file), 1):
                if number % _LINES_PER_REPORT == 0:
                    on_bytes(raw.tell() - reported)
                    reported = raw.tell()
                yield number, line
            on_bytes(raw.tell() - reported)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BrokenGzipError from error
    except OSError as error:
        raise OperatorError(f"cannot read usage records of {path}: {error.strerror}") from None


def files_size_bytes(paths: list[Path] | tuple[Path, ...]) -> int:
    """The size of all files. Raises OperatorError for one that cannot be read."""
    try:
        return sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise OperatorError(
            f"cannot read usage records of {error.filename}: {error.strerror}"
        ) from None


def _lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 2):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 2)
