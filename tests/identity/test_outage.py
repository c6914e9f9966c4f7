"""PostgreSQL is killed with -9 under load, is away for HEADGATE_FAULT_S, and comes back.

Nobody unknown is let in, nobody known is locked out, and nothing that was acknowledged is lost.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.database.address import database_address
from headgate.database.connection import DatabaseAwayError, connected
from headgate.identity.change_log import verify
from headgate.identity.follow import KeyFollower
from headgate.identity.ring import MemoryRing
from headgate.identity.store import KeyStore
from headgate.program.postgres.server import running_postgres
from tests.identity.builders import ALICE, BY, POLICY, connect_to, until
from tests.postgres_server import temporary_folder

AWAY_S = float(os.environ.get("HEADGATE_FAULT_S", "1"))
CLOCK = SystemClock()
REPLICAS = 3


@dataclass
class Load:
    """Issues and revokes keys without a pause, and remembers what was acknowledged."""

    store: KeyStore
    live: set[bytes] = field(default_factory=set)
    ended: set[bytes] = field(default_factory=set)
    failed: int = 0

    async def run(self) -> None:
        while True:
            try:
                kept = await self.store.issue(ALICE, POLICY, BY)
                self.live.add(kept.secret.digest)
                gone = await self.store.issue(ALICE, POLICY, BY)
                await self.store.revoke(gone.key.id, BY)
                self.ended.add(gone.secret.digest)
            except DatabaseAwayError:
                self.failed += 1
                await asyncio.sleep(0.05)


@dataclass
class Watch:
    """Asks every replica all the time, as requests do."""

    rings: list[MemoryRing]
    known: set[bytes]
    ended: set[bytes]
    asked: int = 0
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            for number, ring in enumerate(self.rings):
                self.wrong += [f"{number} locks out" for one in self.known if not ring.find(one)]
                self.wrong += [f"{number} lets in" for one in self.ended if ring.find(one)]
                self.wrong += [f"{number} lets in a stranger"] * bool(ring.find(os.urandom(32)))
                self.asked += 1
            await asyncio.sleep(0.005)


async def agree(rings: list[MemoryRing], live: set[bytes], ended: set[bytes]) -> None:
    """Waits until each replica takes all live keys and none that has ended."""
    for ring in rings:
        await until(lambda: all(map(ring.find, live)) and not any(map(ring.find, ended)))  # noqa: B023


async def test_a_kill_of_postgresql_lets_nobody_in_locks_nobody_out_and_loses_nothing() -> None:
    with temporary_folder() as folder:
        async with AsyncExitStack() as stack:
            rings = [MemoryRing(CLOCK, 3600) for _ in range(REPLICAS)]
            async with running_postgres(folder / "db") as server:
                address = database_address(server.url)
                for ring in rings:
                    metrics = Metrics(CollectorRegistry(), CLOCK)
                    follower = KeyFollower(connect_to(address), ring, None, CLOCK, metrics)
                    await stack.enter_async_context(follower)
                load = Load(KeyStore(connect_to(address), CLOCK))
                loading = asyncio.create_task(load.run())
                await until(lambda: len(load.ended) >= 5)
                known, ended = set(load.live), set(load.ended)
                await agree(rings, known, ended)
                watch = Watch(rings, known, ended)
                watching = asyncio.create_task(watch.run())
                server.process.kill()
                await server.process.wait()
            await asyncio.sleep(AWAY_S)
            async with running_postgres(folder / "db"):
                before = len(load.live)
                await until(lambda: len(load.live) >= before + 2)
                for task in (loading, watching):
                    task.cancel()
                await asyncio.gather(loading, watching, return_exceptions=True)
                await agree(rings, load.live, load.ended)
                async with connected(address) as connection:
                    whole = await verify(connection)
    assert watch.wrong == []
    assert watch.asked > REPLICAS
    assert load.failed > 0
    assert whole.number >= len(load.live) + 2 * len(load.ended)
    print(f"away {AWAY_S:g} s: {watch.asked} looks, {len(load.live)} keys, none wrong or lost")
