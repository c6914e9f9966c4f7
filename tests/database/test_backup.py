"""docs/database.md: its commands for back-up and restore, run as they are written there."""

import asyncio
import os
import re
import subprocess
from pathlib import Path

from headgate.core.clock import SystemClock
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.identity.change_log import verify
from headgate.identity.follow import catch_up
from headgate.identity.ring import NEVER_S, MemoryRing
from headgate.program.postgres.binaries import find_binaries
from headgate.program.postgres.server import running_postgres
from tests.identity.builders import ALICE, BY, POLICY, store_of
from tests.postgres_server import temporary_folder

PAGE = Path(__file__).parents[2] / "docs" / "database.md"


def command(tool: str) -> str:
    """The one line of the page that runs this tool."""
    [line] = re.findall(rf"^.*\$BIN/{tool} .*$", PAGE.read_text("utf-8"), re.MULTILINE)
    return line


async def run(line: str, folder: Path) -> None:
    environment = {**os.environ, "BIN": str(find_binaries())}
    line = line.replace("DIR/", f"{folder}/old/").replace("NEW/", f"{folder}/new/")
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", line], cwd=folder, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


async def test_a_restored_dump_has_the_same_keys_and_the_same_log_and_replicas_notice() -> None:
    clock = SystemClock()
    with temporary_folder() as folder:
        async with running_postgres(folder / "old") as server:
            address = database_address(server.url)
            issued = await store_of(address, clock).issue(ALICE, POLICY, BY)
            async with connected(address) as connection:
                head = await verify(connection)
            await run(command("pg_dump"), folder)
        async with running_postgres(folder / "new") as server:
            address, ring = database_address(server.url), MemoryRing(clock, NEVER_S)
            other = await store_of(address, clock).issue(ALICE, POLICY, BY)
            async with connected(address) as connection:
                await catch_up(connection, ring, clock)
                await run(command("pg_restore"), folder)
                await catch_up(connection, ring, clock)
                assert await verify(connection) == head
            assert ring.find(issued.secret.digest) is not None
            assert ring.find(other.secret.digest) is None
            await store_of(address, clock).revoke(issued.key.id, BY)


async def test_psql_looks_inside_as_the_page_says() -> None:
    with temporary_folder() as folder:
        async with running_postgres(folder / "old"):
            await run(f"{command('psql')} -c 'table headgate.generation'", folder)
