"""Keys that are issued, rotated, revoked and expire in any order, against a model in a few lines.

Three replicas read the database whenever they like. Each must take exactly the secrets that were
live at its last reading, and none that has ended since by the clock.
"""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.database.address import DatabaseAddress
from headgate.database.connection import connected
from headgate.identity.change_log import verify
from headgate.identity.follow import catch_up
from headgate.identity.keys import KeyRuleError
from headgate.identity.ring import NEVER_S, MemoryRing
from tests.fakes import FakeClock
from tests.identity.builders import ALICE, BY, POLICY, store_of
from tests.postgres_server import PostgresServer

REPLICAS = 3


@dataclass(frozen=True)
class Issue:
    life_s: float | None


@dataclass(frozen=True)
class Rotate:
    key: int
    overlap_s: int


@dataclass(frozen=True)
class Revoke:
    key: int


@dataclass(frozen=True)
class Wait:
    seconds: int


@dataclass(frozen=True)
class Read:
    replica: int


STEPS = st.one_of(
    st.builds(Issue, st.none() | st.integers(1, 9)),
    st.builds(Rotate, st.integers(0, 3), st.integers(0, 5)),
    st.builds(Revoke, st.integers(0, 3)),
    st.builds(Wait, st.integers(1, 5)),
    st.builds(Read, st.integers(0, REPLICAS - 1)),
)
Step = Issue | Rotate | Revoke | Wait | Read


@dataclass
class World:
    """The database with its replicas, and beside them the model: the end of each secret."""

    address: DatabaseAddress
    clock: FakeClock = field(default_factory=FakeClock)
    ends_s: dict[bytes, float] = field(default_factory=dict)
    keys: list[tuple[str, list[bytes]]] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.store = store_of(self.address, self.clock)
        self.rings = [MemoryRing(self.clock, NEVER_S) for _ in range(REPLICAS)]
        self.read: list[dict[bytes, float]] = [{} for _ in range(REPLICAS)]

    async def do(self, step: Step) -> None:
        now_s = self.clock.now_s()
        match step:
            case Wait(seconds):
                self.clock.advance(seconds)
            case Read(replica):
                await self.read_all([replica])
            case Issue(life_s):
                end_s = None if life_s is None else now_s + life_s
                issued = await self.store.issue(replace(ALICE, expires_s=end_s), POLICY, BY)
                self.keys.append((issued.key.id, [issued.secret.digest]))
                self.ends_s[issued.secret.digest] = NEVER_S if end_s is None else end_s
                self.changes += 1
            case Rotate() | Revoke() if self.keys:
                await self.change(step, now_s)

    async def change(self, step: Rotate | Revoke, now_s: float) -> None:
        key, digests = self.keys[step.key % len(self.keys)]
        if isinstance(step, Revoke):
            await self.store.revoke(key, BY)
            self.ends_s |= {one: min(self.ends_s[one], now_s) for one in digests}
            self.changes += 1
            return
        last_s = max(self.ends_s[one] for one in digests)
        try:
            issued = await self.store.rotate(key, step.overlap_s, BY)
        except KeyRuleError:
            assert last_s <= now_s, "only a key that has ended is not rotated"
            return
        assert last_s > now_s
        limit_s = now_s + step.overlap_s
        self.ends_s |= {one: min(self.ends_s[one], limit_s) for one in digests}
        self.ends_s[issued.secret.digest] = last_s
        digests.append(issued.secret.digest)
        self.changes += 1

    async def read_all(self, replicas: list[int]) -> None:
        async with connected(self.address) as connection:
            for replica in replicas:
                await catch_up(connection, self.rings[replica], self.clock)
                self.read[replica] = dict(self.ends_s)

    def check(self) -> None:
        now_s = self.clock.now_s()
        for ring, read in zip(self.rings, self.read, strict=True):
            if ring.head is None:
                continue
            taken = {digest for digest in self.ends_s if ring.find(digest) is not None}
            assert taken == {digest for digest, end_s in read.items() if now_s < end_s}


@settings(max_examples=30)
@given(st.lists(STEPS, max_size=12))
def test_three_replicas_agree_with_the_model(postgres: PostgresServer, steps: list[Step]) -> None:
    world = World(postgres.address(postgres.clean_database()))

    async def run() -> None:
        for step in steps:
            await world.do(step)
            world.check()
        await world.read_all(list(range(REPLICAS)))
        world.check()
        async with connected(world.address) as connection:
            assert (await verify(connection)).number == world.changes

    asyncio.run(run())


@pytest.mark.parametrize("writers", [4])
async def test_a_reader_beside_writers_misses_no_change(
    postgres: PostgresServer, writers: int
) -> None:
    """A sequence in place of the counter row loses changes that commit out of order."""
    address = postgres.address(postgres.clean_database())
    clock = FakeClock()
    store, ring = store_of(address, clock), MemoryRing(clock, NEVER_S)
    digests: list[bytes] = []

    async def write() -> None:
        for _ in range(10):
            digests.append((await store.issue(ALICE, POLICY, BY)).secret.digest)

    async with connected(address) as connection:
        writing = [asyncio.create_task(write()) for _ in range(writers)]
        while not all(task.done() for task in writing):
            await catch_up(connection, ring, clock)
        await asyncio.gather(*writing)
        await catch_up(connection, ring, clock)

    assert len(digests) == 10 * writers
    assert all(ring.find(digest) for digest in digests)
