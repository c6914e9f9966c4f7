"""Keys and exclusions in a file, for a replica that starts while the database is away.

The file holds digests and no secret. Its time of modification is when it was last known to be
current.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from headgate.core.clock import Clock
from headgate.identity.changes import Head
from headgate.identity.exclusions import BlockRow, RevocationRow
from headgate.identity.ring import KeyContent, MemoryRing, Row, SecretRow

_VERSION = 1

log = logging.getLogger("headgate.identity")


class _File(NamedTuple):
    version: int
    number: int
    hash: bytes
    rows: list[SecretRow]
    blocks: tuple[BlockRow, ...] = ()
    revocations: tuple[RevocationRow, ...] = ()


class Snapshot:
    """Reads and writes the file. A file that cannot be used is as good as none, and is logged."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._kept: Head | None = None

    async def read_into(self, ring: MemoryRing) -> None:
        """Fills the ring, if there is a file."""
        try:
            data = await asyncio.to_thread(self._path.read_bytes)
            good_at_s = (await asyncio.to_thread(self._path.stat)).st_mtime
            file = msgspec.msgpack.decode(data, type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s is no snapshot of keys: %s", self._path, error)
            return
        now_s = self._clock.now_s()
        if file.version != _VERSION or good_at_s > now_s:
            log.warning("%s is a snapshot of another version or of the future", self._path)
            return
        content = KeyContent()
        rows: list[Row] = [*file.blocks, *file.revocations, *file.rows]
        for row in rows:
            content.take(row, now_s)
        ring.replace(content, Head(file.number, file.hash))
        ring.mark_good(good_at_s)

    async def keep(self, ring: MemoryRing) -> None:
        """Writes what has changed, and how current it is."""
        if ring.head is None:
            return
        head, good_at_s = ring.head, ring.good_at_s
        try:
            if head != self._kept:
                file = _File(
                    version=_VERSION,
                    number=head.number,
                    hash=head.hash,
                    rows=[],
                    blocks=tuple(ring.exclusions.blocks()),
                    revocations=tuple(ring.exclusions.revoked()),
                )
                await asyncio.to_thread(self._write, file, good_at_s, ring.rows())
                self._kept = head
            else:
                await asyncio.to_thread(os.utime, self._path, (good_at_s, good_at_s))
        except OSError as error:
            self._kept = None
            log.warning("cannot write the snapshot of keys %s: %s", self._path, error.strerror)

    def _write(self, file: _File, good_at_s: float, rows: Iterable[SecretRow]) -> None:
        """In one step: a reader finds the old file or the new one, each with its own age.

        Several workers may write at once, so each writes a part of its own.
        """
        data = msgspec.msgpack.encode(file._replace(rows=list(rows)))
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.utime(part, (good_at_s, good_at_s))
        os.replace(part, self._path)
