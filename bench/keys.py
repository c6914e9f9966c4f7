"""What do keys of the database cost: to load, to look up, to poll, and in memory?"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import psycopg

from bench.measure import Durations, in_fresh_process, resident_bytes, timed
from bench.table import Table
from headgate.core.clock import SystemClock
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.identity.follow import catch_up
from headgate.identity.ring import MemoryRing
from headgate.program.postgres.folder import ADMIN, DATABASE
from headgate.program.postgres.server import running_postgres

SIZES = (1_000, 10_000, 40_000)
_LOOK_UPS = 200_000
_POLLS = 200
_FILL = """
insert into headgate.person (name) select 'user-' || n from generate_series(1, {count}) n;
insert into headgate.api_key (id, tenant, person_id, created_at, generation)
  select '~' || lpad(to_hex(n), 16, '0'), 'tenant-' || n % 50, p.id, now(), n
  from generate_series(1, {count}) n join headgate.person p on p.name = 'user-' || n;
insert into headgate.key_secret (digest, key_id, created_at)
  select sha256(convert_to(n::text, 'UTF8')), '~' || lpad(to_hex(n), 16, '0'), now()
  from generate_series(1, {count}) n;
analyze;
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Keys in a process of their own."""

    load_s: float
    bytes_each: int
    look_up_s: float
    poll_s: float


async def measure(sizes: Sequence[int] = SIZES) -> list[Table]:
    """A row for each number of keys."""
    loaded: list[Loaded] = []
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as name:
        os.chmod(name, 0o711)  # noqa: S103 - the server may run as another user
        for size in sizes:
            async with running_postgres(Path(name) / str(size)) as server:
                _fill(server.folder.url(ADMIN, DATABASE), size)
                loaded.append(in_fresh_process(_load, server.url))
    first = loaded[0]
    rows = [
        (
            size,
            one.load_s,
            one.bytes_each,
            one.look_up_s / first.look_up_s,
            one.poll_s / first.poll_s,
        )
        for size, one in zip(sizes, loaded, strict=True)
    ]
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


def _fill(url: str, count: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(_FILL.format(count=count).encode())


def _load(url: str) -> Loaded:
    return asyncio.run(_measure(url))


async def _measure(url: str) -> Loaded:
    clock = SystemClock()
    ring = MemoryRing(clock, 3600)
    async with connected(database_address(url)) as connection:
        before_bytes, start_s = resident_bytes(), perf_counter()
        await catch_up(connection, ring, clock)
        load_s, grown_bytes = perf_counter() - start_s, resident_bytes() - before_bytes
        polls = Durations()
        for _ in range(_POLLS):
            await timed(catch_up(connection, ring, clock), polls)
    return Loaded(load_s, grown_bytes // len(ring), _look_up_s(ring), polls.median_s)


def _look_up_s(ring: MemoryRing) -> float:
    """The mean of many look-ups: of known keys and of strangers in turn."""
    known = [sha256(str(number).encode()).digest() for number in range(1, len(ring) + 1, 7)]
    digests = [digest for one in known for digest in (one, os.urandom(32))]
    rounds = max(1, _LOOK_UPS // len(digests))
    start_s = perf_counter()
    for _ in range(rounds):
        for digest in digests:
            ring.find(digest)
    return (perf_counter() - start_s) / rounds / len(digests)


_TITLE = "Keys of the database in a replica's memory"
_COLUMNS = (
    "keys",
    "seconds to load",
    "bytes a key",
    "look-up",
    "poll without a change",
)
_NOTE = (
    "The bytes are the growth of the process with the load. Look-up and poll are ratios to the"
    " first row."
)
