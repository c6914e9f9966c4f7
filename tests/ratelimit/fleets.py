"""Replicas that take limits in slices from one shared store, moved by hand."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.breaker import PROBE_EVERY_S
from ratelimit.store.outage.replicas import ANNOUNCE_EVERY_S
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Demand, PeekQuery, Reserved, Settled, Spent
from ratelimit.store.slices.pool import IDLE_S, Pool
from ratelimit.store.slices.sliced import SlicedStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, Shop, new_name
from tests.ratelimit.outages import FakeShared


def sliced(demand: Demand, size: int) -> Demand:
    """The demand, of a limit that is taken in slices of this size."""
    return replace(demand, slice=size)


class Shared(FakeShared):
    """A shared store that cannot be peeked at either in an outage."""

    async def peek(self, query: PeekQuery) -> Mapping[str, int]:
        call = super().peek
        return await self._heard(lambda: call(query))


@dataclass
class Sliced:
    """One replica, as far as limits go. Its background tasks are called by the test."""

    name: str
    resilient: ResilientStore
    store: SlicedStore

    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tend(self) -> None:
        async with self._one_at_a_time:
            await self.resilient.tend()
            await self.store.tend()

    def lost_if_it_died(self) -> int:
        """The amount that the store would count, though it was not used: room, and held amounts."""
        pools = self.store._pools.all()
        return sum(each.amount - each.spent for pool in pools for each in pool.slices)

    def room(self) -> int:
        """The amount that it can still admit without asking the store."""
        pools = self.store._pools.all()
        return sum(max(0, each.room) for pool in pools for each in pool.slices)

    def is_held(self, tenant: str, reservation: str, now_s: float) -> bool:
        return self.store._holds.of(tenant, reservation, now_s) is not None


@dataclass
class Fleet:
    """Some replicas. `shared.calls` counts the round trips of all of them."""

    shared: Shared = field(default_factory=Shared)
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW_S))
    shop: Shop = field(default_factory=Shop)
    replicas: list[Sliced] = field(default_factory=list)

    @classmethod
    async def of(cls, count: int, shared: Shared | None = None) -> "Fleet":
        fleet = cls(shared or Shared())
        fleet.replicas = [await fleet.new() for _ in range(count)]
        return fleet

    async def new(self) -> Sliced:
        """A replica that has begun."""
        name = new_name("replica")
        metrics = Metrics(CollectorRegistry(), self.clock)
        resilient = ResilientStore(self.shared, name, 1, self.clock, metrics)
        await resilient.tend()
        return Sliced(
            name,
            resilient,
            SlicedStore(resilient, name, self.clock, metrics, VirtualTimes(self.clock.monotonic_s)),
        )

    async def ask(self, place: int, *asked: Demand, id: str = "") -> Reserved:
        reservation = self.shop.ask(*asked, id=id, now_s=self.clock.now_s())
        return await self.replicas[place].store.reserve(reservation)

    async def settle(self, place: int, id: str, held_by: str, spent: Spent) -> Settled:
        store = self.replicas[place].store
        return await store.settle_held(held_by, id, self.shop.tenant, spent, self.clock.now_s())

    def pools(self, place: int) -> Sequence[Pool]:
        """The counters that a replica has slices of."""
        return self.replicas[place].store._pools.all()

    async def rest(self) -> None:
        """Nobody asks for a while: settlements are forwarded, unused slices go back."""
        for _ in range(2):
            self.clock.advance(IDLE_S)
            for _ in range(2):
                for replica in self.replicas:
                    await replica.tend()

    async def recover(self) -> None:
        """The store is there again, and every replica has noticed and paid its debt."""
        self.shared.away = self.shared.deaf = False
        for pause_s in (PROBE_EVERY_S, ANNOUNCE_EVERY_S, ANNOUNCE_EVERY_S):
            self.clock.advance(pause_s)
            for replica in self.replicas:
                await replica.tend()

    async def in_store(self, *counters: str) -> tuple[int, ...]:
        """The use in the shared store."""
        asked = PeekQuery(tenant=self.shop.tenant, now_s=self.clock.now_s(), counters=counters)
        used = await MemoryStore.peek(self.shared, asked)
        return tuple(used[counter] for counter in counters)
