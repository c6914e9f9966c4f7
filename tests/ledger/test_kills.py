"""Kills on the way of a record: replicas, ingesters and PostgreSQL. Counts before = after.

PostgreSQL is away for HEADGATE_FAULT_S. A redelivered access-log entry is a record that a second
replica writes again.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from accesslog.spool import SpoolWriter, segments_of
from headgate.database.address import database_address
from headgate.database.connection import DatabaseAwayError, connected
from headgate.program.postgres.server import running_postgres
from tests.identity.builders import until
from tests.ledger.builders import line
from tests.postgres_server import temporary_folder

AWAY_S = float(os.environ.get("HEADGATE_FAULT_S", "1"))
BATCH = 20
PAUSE_S = max(0.02, AWAY_S / 3000)
"""Between two batches of a replica: an outage of an hour has as many as one of a minute."""
LATER = 1_000_000
SUMS = "select count(*), coalesce(sum(prompt_tokens), 0)::bigint from headgate.usage_record"

REPLICA = f"""
import sys, time
from pathlib import Path
from accesslog.spool import SpoolWriter
from tests.ledger.builders import line
writer = SpoolWriter(Path(sys.argv[1]), 10**9, segment_bytes=50_000)
number = int(sys.argv[2])
while True:
    batch = range(number, number + {BATCH})
    assert writer.append(b"".join(map(line, batch))) == 0, writer.fault
    number += {BATCH}
    print(number, flush=True)
    time.sleep({PAUSE_S})
"""
INGESTER = """
import sys, threading
from functools import partial
from pathlib import Path
from prometheus_client import CollectorRegistry
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.ledger.follow import SpoolFollower
clock = SystemClock()
connect = partial(connected, database_address(sys.argv[1]))
metrics = Metrics(CollectorRegistry(), clock)
policy = CompiledPolicy({}, {}, {})
SpoolFollower(connect, Path(sys.argv[2]), lambda: policy, clock, metrics).start()
threading.Event().wait()
"""
FULL_DISK = """
import resource, sys
from pathlib import Path
from accesslog.spool import SpoolWriter
from tests.ledger.builders import line
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
writer = SpoolWriter(Path(sys.argv[1]), 10**9)
lost = 0
for number in range(900):
    if number == 300:  # no file grows beyond this from now on
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    if number == 600:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    lost += writer.append(line(number))
print(lost)
"""

pytestmark = pytest.mark.timeout(600 + 3 * AWAY_S)


@contextmanager
def running(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of this program, which is killed at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> str:
    """Ends a process at once, and returns what it had printed."""
    process.send_signal(signal.SIGKILL)
    return process.communicate()[0] if not process.stdout.closed else ""  # type: ignore[union-attr]


def written(replica: subprocess.Popen[str]) -> int:
    """Kills a replica and returns the first number that it had not acknowledged."""
    return int(kill(replica).split()[-1])


async def sums(url: str) -> tuple[int, int]:
    """The number of records in the ledger, and the sum of their prompts; nothing if it is away."""
    try:
        async with connected(database_address(url)) as connection:
            row = await (await connection.execute(SUMS)).fetchone()
    except DatabaseAwayError:
        return 0, 0
    assert row is not None
    return row


async def grown(url: str, count: int) -> None:
    """Waits until the ledger has this many records."""
    while (await sums(url))[0] < count:  # noqa: ASYNC110 - another process fills it
        await asyncio.sleep(0.05)


async def test_counts_before_are_counts_after_whoever_is_killed() -> None:
    with temporary_folder() as folder, temporary_folder() as spool:
        async with running_postgres(folder / "db") as server:
            url = server.url
            with (
                running(REPLICA, spool, 0) as first,
                running(REPLICA, spool, 0) as again,
                running(INGESTER, url, spool) as ingester,
            ):
                await grown(url, 200)
                kill(ingester)
                with running(INGESTER, url, spool):
                    await grown(url, (await sums(url))[0] + 200)
                    server.process.kill()
                    await server.process.wait()
                    await asyncio.sleep(AWAY_S)
                ends = written(first), written(again)
        with running(REPLICA, spool, LATER) as later, running(INGESTER, url, spool) as ingester:
            async with running_postgres(folder / "db"):
                await grown(url, max(ends) + 200)
                kill(ingester)
                end = written(later)
                with running(INGESTER, url, spool):
                    await until(lambda: not segments_of(spool))
                count, tokens = await sums(url)
    numbers = [*range(max(ends)), *range(LATER, end)]
    unsaid = count - len(numbers)  # a batch was written, and its replica killed before it said so
    assert 0 <= unsaid <= 2 * BATCH
    assert unsaid or tokens == sum(10 + number for number in numbers)
    print(f"away {AWAY_S:g} s: {len(numbers):,} records written, {count:,} in the ledger")


def test_a_full_disk_loses_what_it_counts_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )

    [segment] = segments_of(tmp_path)
    lines = (tmp_path / segment.file_name).read_bytes().splitlines()
    whole = [one for one in lines if one.endswith(b"}")]
    assert 0 < int(done.stdout) < 300
    assert len(whole) + int(done.stdout) == 900
    assert len(lines) - len(whole) <= 1  # the line that the disk tore is ended and counted as lost


def test_a_spool_at_its_limit_counts_every_record_that_it_does_not_take(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, limit_bytes=20_000)

    lost = sum(writer.append(line(number)) for number in range(100))

    [segment] = segments_of(tmp_path)
    assert (tmp_path / segment.file_name).read_bytes().count(b"\n") + lost == 100
    assert 0 < lost < 100
    writer.close()
