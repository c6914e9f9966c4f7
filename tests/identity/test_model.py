"""Keys that are issued, edited, rotated, revoked and expire in any order, against a small model.

Three replicas read the database whenever they like. Each must take exactly the secrets that were
live at its last reading, with their key's models, and none that has ended since by the clock.
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
class Edit:
    key: int
    life_s: float | None
    models: tuple[str, ...] | None


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
    st.builds(
        Edit,
        st.integers(0, 3),
        st.none() | st.integers(1, 9),
        st.sampled_from([None, ("tiny",), ("large", "tiny")]),
    ),
    st.builds(Wait, st.integers(1, 5)),
    st.builds(Read, st.integers(0, REPLICAS - 1)),
)
Step = Issue | Rotate | Revoke | Edit | Wait | Read


@dataclass
class Known:
    """A key of the model: its end, its models, and the end of each secret by its digest."""

    id: str
    end_s: float
    secrets: dict[bytes, float]
    models: tuple[str, ...] | None = None

    def taken(self) -> dict[bytes, tuple[float, tuple[str, ...] | None]]:
        """The end of each secret, and the models that it may use."""
        return {one: (min(end_s, self.end_s), self.models) for one, end_s in self.secrets.items()}


@dataclass
class World:
    """The database with its replicas, and beside them the model."""

    address: DatabaseAddress
    clock: FakeClock = field(default_factory=FakeClock)
    keys: list[Known] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.store = store_of(self.address, self.clock)
        self.rings = [MemoryRing(self.clock, NEVER_S) for _ in range(REPLICAS)]
        self.read: list[dict[bytes, tuple[float, tuple[str, ...] | None]]]
        self.read = [{} for _ in range(REPLICAS)]

    async def do(self, step: Step) -> None:
        match step:
            case Wait(seconds):
                self.clock.advance(seconds)
            case Read(replica):
                await self.read_all([replica])
            case Issue(life_s):
                end_s = None if life_s is None else self.clock.now_s() + life_s
                issued = await self.store.issue(replace(ALICE, expires_s=end_s), POLICY, BY)
                end_s = NEVER_S if end_s is None else end_s
                self.keys.append(Known(issued.key.id, end_s, {issued.secret.digest: NEVER_S}))
                self.changes += 1
            case Rotate() | Revoke() | Edit() if self.keys:
                await self.change(step, self.keys[step.key % len(self.keys)])

    async def change(self, step: Rotate | Revoke | Edit, known: Known) -> None:
        now_s = self.clock.now_s()
        if isinstance(step, Revoke):
            await self.store.revoke(known.id, BY)
            known.end_s = min(known.end_s, now_s)
            self.changes += 1
            return
        try:
            await (self.rotate(step, known) if isinstance(step, Rotate) else self.edit(step, known))
        except KeyRuleError:
            assert known.end_s <= now_s, "only a key that has ended stays as it is"
            return
        self.changes += 1

    async def rotate(self, step: Rotate, known: Known) -> None:
        issued = await self.store.rotate(known.id, step.overlap_s, BY)
        limit_s = self.clock.now_s() + step.overlap_s
        known.secrets = {one: min(end_s, limit_s) for one, end_s in known.secrets.items()}
        known.secrets[issued.secret.digest] = NEVER_S

    async def edit(self, step: Edit, known: Known) -> None:
        end_s = None if step.life_s is None else self.clock.now_s() + step.life_s
        new = {"expires_s": end_s, "models": step.models}
        await self.store.edit(known.id, lambda old: replace(old, **new), POLICY, BY)
        known.end_s, known.models = NEVER_S if end_s is None else end_s, step.models

    async def read_all(self, replicas: list[int]) -> None:
        async with connected(self.address) as connection:
            for replica in replicas:
                await catch_up(connection, self.rings[replica], self.clock)
                self.read[replica] = {
                    digest: taken for key in self.keys for digest, taken in key.taken().items()
                }

    def check(self) -> None:
        now_s = self.clock.now_s()
        for ring, read in zip(self.rings, self.read, strict=True):
            if ring.head is None:
                continue
            digests = [digest for key in self.keys for digest in key.secrets]
            callers = {digest: ring.find(digest) for digest in digests}
            scopes = {
                digest: ring.scope_of(caller.key) for digest, caller in callers.items() if caller
            }
            expected = {digest: models for digest, (end_s, models) in read.items() if now_s < end_s}
            assert {one: scope and scope.models for one, scope in scopes.items()} == {
                digest: None if models is None else frozenset(models)
                for digest, models in expected.items()
            }


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
