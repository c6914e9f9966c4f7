"""The disk of PostgreSQL is full for HEADGATE_FAULT_S. Counts before = after.

One way fills a small file system to its last byte; it needs the right to mount one. The other takes
the right to write from all processes of the server (RLIMIT_FSIZE of 0, setrlimit(2)): PostgreSQL
meets an error at every write, which it treats as a full disk. Its log of writes fails too, in both.
"""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from accesslog.spool import segments_of
from headgate.program.postgres.folder import APPLICATION, OWNER, DatabaseFolder
from headgate.program.postgres.server import Postgres, running_postgres
from tests.identity.builders import until
from tests.ledger.test_kills import AWAY_S, BATCH, INGESTER, REPLICA, grown, running, sums, written
from tests.postgres_server import temporary_folder

SMALL_DISK = "size=256m"


class Fault(Protocol):
    def __call__(self, folder: Path, server: Postgres) -> AbstractAsyncContextManager[None]: ...


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mounts a file system of a few megabytes. Skips the test where nobody may."""
    mount = ["mount", "-t", "tmpfs", "-o", f"{SMALL_DISK},mode=711", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system; the other way needs none")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@asynccontextmanager
async def filled(folder: Path, server: Postgres) -> AsyncIterator[None]:
    """A file takes all the room that there is, and again what the server's end sets free."""
    ballast = folder / "ballast"

    async def fill() -> None:
        with ballast.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    await asyncio.sleep(0.02)

    filling = asyncio.create_task(fill())
    await until(lambda: shutil.disk_usage(folder).free == 0)
    yield
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    ballast.unlink()


@asynccontextmanager
async def without_writes(folder: Path, server: Postgres) -> AsyncIterator[None]:
    """No process of the server writes a byte, nor does one that it starts meanwhile."""
    limit_writes(server, "0")
    yield
    limit_writes(server, "unlimited")


def limit_writes(server: Postgres, size_bytes: str) -> None:
    """Sets the soft limit of the server's processes, as their own user. Some may be gone by now."""
    main, user = server.process.pid, server.folder.user
    who = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    for process in (main, *children_of(main)):
        command = ["prlimit", "--pid", f"{process}", f"--fsize={size_bytes}:"]
        subprocess.run(command, **who, capture_output=True)  # type: ignore[call-overload]


def children_of(process: int) -> list[int]:
    """The processes that it started, as Linux lists them; none of one that is gone."""
    try:
        return [
            int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []


async def full_for_a_while(folder: Path, fault: Fault) -> None:
    """Fills the disk beneath a ledger that grows."""
    async with running_postgres(folder / "db") as server:
        await grown(server.url, 200)
        async with fault(folder, server):
            with pytest.raises(psycopg.Error):  # by its error or, once it has ended, by its absence
                fill_a_table(server)
            await asyncio.sleep(AWAY_S)


def fill_a_table(server: Postgres) -> None:
    """Asks the server for more room than there is."""
    with psycopg.connect(server.folder.url(OWNER)) as connection:
        connection.execute("create table more as select i from generate_series(1, 1e6) i")


@pytest.mark.parametrize("fault", [filled, without_writes])
async def test_a_full_disk_of_the_database_loses_nothing_and_adds_nothing_twice(
    fault: Fault,
) -> None:
    with (
        temporary_folder() as folder,
        temporary_folder() as spool,
        small_disk(folder) if fault is filled else nullcontext(),
    ):
        url = DatabaseFolder(folder / "db", None).url(APPLICATION)
        with running(REPLICA, spool, 0) as replica, running(INGESTER, url, spool):
            await full_for_a_while(folder, fault)
            async with running_postgres(folder / "db"):  # as the box or the cluster does
                await grown(url, (await sums(url))[0] + 200)
                end = written(replica)
                await until(lambda: not segments_of(spool))
                count, tokens = await sums(url)
    assert 0 <= count - end <= BATCH  # the replica may be killed before it says what it wrote
    assert count > end or tokens == sum(10 + number for number in range(end))
    print(f"full {AWAY_S:g} s: {end:,} records written, {count:,} in the ledger")
