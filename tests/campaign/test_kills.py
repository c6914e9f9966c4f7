"""kill -9 of a replica, of PostgreSQL and of Redis, while keys are used, issued and revoked.

Nobody unknown is let in, nobody known is locked out, and no change that was acknowledged is lost.
Each is away for HEADGATE_FAULT_S seconds: a little more than one, thirty in `make test-faults`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.identity.change_log import verify
from headgate.program.postgres.server import running_postgres
from tests.box import KEYS, policy
from tests.campaign.callers import TIMEOUT_S, Callers, Changes, status, working
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, fleet_to_start, services
from tests.patience import PATIENCE_S
from tests.ports import free_port
from tests.postgres_server import temporary_folder

FAULT_S = float(os.environ.get("HEADGATE_FAULT_S", "1.2"))
REPLICAS = 3
ROUNDS = 2 * REPLICAS
"""Envoy asks the replicas in turn, so each of them answers some of so many requests."""
LIMITS = "[{count: requests, limit: 100000000, per: year, on_outage: share}]"
REFUSED = {401, 503, None}
PASSED = {200, 503, None}

pytestmark = [pytest.mark.simulator, pytest.mark.timeout(600 + 3 * FAULT_S)]


@dataclass
class Gateway:
    """Three replicas with a management API each, on one Redis and one PostgreSQL."""

    fleet: Fleet
    database: Path
    running: AsyncExitStack = field(default_factory=AsyncExitStack)
    url: str = ""
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(REPLICAS)])

    @property
    def apis(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def token_file(self) -> Path:
        return self.fleet.box.folder / "operator-token"

    async def start_database(self) -> None:
        self.server = await self.running.enter_async_context(running_postgres(self.database))
        self.url = self.server.url

    async def start_replica(self, number: int) -> None:
        self.fleet.options = (
            *("--database", self.url, "--keys-snapshot", f"keys-{number}"),
            *("--api", f"127.0.0.1:{self.ports[number - 1]}"),
            *("--operator-token-file", str(self.token_file)),
            *("--auth-failures-per-minute", "100000000", "--store-deadline-ms", "1000"),
        )
        await asyncio.to_thread(self.fleet.start_services, number)


@asynccontextmanager
async def running_gateway(folder: Path, upstream: str) -> AsyncIterator[Gateway]:
    text = policy(upstream, limits=LIMITS)
    keeps = ("--appendonly", "yes")
    with (
        temporary_folder() as home,
        fleet_to_start(folder, text, upstream, REPLICAS, redis_options=keeps) as fleet,
    ):
        gateway = Gateway(fleet, home / "db")
        async with gateway.running:
            await gateway.start_database()
            for number in fleet.numbers:
                await gateway.start_replica(number)
            await asyncio.to_thread(fleet.start_envoy)
            yield gateway
            fleet.stop()


@asynccontextmanager
async def replica_killed(gateway: Gateway) -> AsyncIterator[None]:
    gateway.fleet.kill(services(2))
    yield
    await gateway.start_replica(2)


@asynccontextmanager
async def postgresql_killed(gateway: Gateway) -> AsyncIterator[None]:
    gateway.server.process.kill()
    await gateway.server.process.wait()
    await gateway.running.aclose()
    yield
    await gateway.start_database()


@asynccontextmanager
async def redis_killed(gateway: Gateway) -> AsyncIterator[None]:
    await asyncio.to_thread(gateway.fleet.redis.stop)
    yield
    await asyncio.to_thread(gateway.fleet.redis.start)


async def agree(gateway: Gateway, changes: Changes) -> None:
    """Waits until every replica takes all live keys, and none that has ended."""
    url = f"{gateway.fleet.url}/v1/chat/completions"
    wanted = {**dict.fromkeys(changes.live, 200), **dict.fromkeys(changes.ended, 401)}
    by_s = asyncio.get_running_loop().time() + PATIENCE_S
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
        for key, right in wanted.items():
            while {await status(http, url, key) for _ in range(ROUNDS)} != {right}:
                assert asyncio.get_running_loop().time() < by_s, f"a key does not get {right}"


async def until_changed(changes: Changes, more: int = 3) -> None:
    """Waits until some more changes are acknowledged."""
    wanted = len(changes.ended) + more
    async with asyncio.timeout(PATIENCE_S):
        while len(changes.ended) < wanted:  # noqa: ASYNC110 - another process acknowledges them
            await asyncio.sleep(0.05)


async def test_no_kill_lets_a_stranger_in_locks_anybody_out_or_loses_a_change(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, upstream.url) as gateway:
        changes = Changes(gateway.apis, gateway.token_file.read_text().strip())
        for killed in (replica_killed, postgresql_killed, redis_killed):
            async with working(changes.run()):
                await until_changed(changes)
            await agree(gateway, changes)
            known, ended = [*changes.live, KEYS["alice"]], list(changes.ended)
            callers = Callers(gateway.fleet.url, known, ended)
            async with working(changes.run(), callers.run()):
                async with killed(gateway):
                    await asyncio.sleep(FAULT_S)
                await until_changed(changes)
            await agree(gateway, changes)
            said = dict(callers.statuses)
            print(f"{killed.__name__}, {FAULT_S:g} s: {said}; {len(changes.live)} keys,")
            print(f"  {len(changes.ended)} revoked, {changes.unanswered} changes unanswered")
            assert set(said["known"]) <= PASSED
            assert said["known"][200] > said["known"].total() / 2
            assert set(said["ended"]) | set(said["stranger"]) <= REFUSED
        async with connected(database_address(gateway.url)) as connection:
            log = await verify(connection)
    assert log.number >= len(changes.live) + 2 * len(changes.ended)
