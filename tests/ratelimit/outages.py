"""A shared store that tests take away, and the store in front of it."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from headgate.core.policy import OnOutage
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.breaker import FAILURES, PROBE_EVERY_S
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import (
    Demand,
    Lease,
    Reservation,
    Reserved,
    Settled,
    Spent,
    StoreError,
)
from ratelimit.store.shared import Batch, Exchanged, Told
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, Shop, new_name, requests

T = TypeVar("T", Demand, Lease)
A = TypeVar("A")


class FakeShared(MemoryStore):
    """A shared store. `away`: no call arrives; `deaf`: calls arrive, answers are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.deaf = False
        self.fails: set[str] = set()
        self.calls = 0
        self.replicas: set[str] = set()
        self.batches: dict[str, dict[str, str]] = {}
        self.times: dict[str, int] = {}
        self.ids: list[str] = []

    async def reserve(self, reservation: Reservation) -> Reserved:
        call = super().reserve
        return await self._heard(lambda: call(reservation), reservation.id)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        call = super().settle
        return await self._heard(lambda: call(reservation, tenant, spent, now_s), reservation)

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        call = super().count
        return await self._heard(lambda: call(tenant, hits, now_s))

    async def ping(self) -> None:
        await self._heard(super().ping)

    async def announce(self, replica: str, life_s: float) -> int:
        async def added() -> int:
            self.replicas.add(replica)
            return len(self.replicas)

        return await self._heard(added)

    async def exchange_times(self, times: Mapping[str, int]) -> Mapping[str, int]:
        async def exchanged() -> Mapping[str, int]:
            self.times.update(times)
            return {**self.times}

        return await self._heard(exchanged)

    async def exchange_ids(self, ids: Sequence[str], place: str) -> Told:
        async def exchanged() -> Told:
            self.ids += ids
            return Told(tuple(self.ids[int(place or 0) :]), str(len(self.ids)))

        return await self._heard(exchanged)

    async def withdraw(self, replica: str) -> None:
        async def removed() -> None:
            self.replicas.discard(replica)

        await self._heard(removed)

    async def exchange(
        self, replica: str, batches: Sequence[Batch], read: Collection[str]
    ) -> Exchanged:
        async def exchanged() -> Exchanged:
            for batch in batches:
                self.batches.setdefault(batch.to, {})[batch.id] = batch.text
            own = self.batches.setdefault(replica, {})
            for id in read:
                own.pop(id, None)
            gone = frozenset(batch.to for batch in batches) - self.replicas
            return Exchanged(tuple(Batch(replica, id, own[id]) for id in own), gone)

        return await self._heard(exchanged)

    async def _heard(self, call: Callable[[], Awaitable[A]], name: str = "") -> A:
        self.calls += 1
        if self.away or name in self.fails:
            raise StoreError("away")
        answer = await call()
        if self.deaf:
            raise StoreError("no answer")
        return answer


@dataclass
class Replica:
    """One process of services, as far as limits go."""

    store: ResilientStore
    shared: FakeShared
    clock: FakeClock
    metrics: CollectorRegistry

    async def lose_the_store(self, deaf: bool = False) -> None:
        """Takes the store away and lets this replica notice, by requests of somebody else."""
        self.shared.deaf, self.shared.away = deaf, not deaf
        for _ in range(FAILURES):
            await self.store.reserve(Shop().ask(opened(requests(1))))

    async def find_the_store(self) -> None:
        """Gives it back and lets this replica notice."""
        self.shared.deaf = self.shared.away = False
        for _ in range(2):
            self.clock.advance(PROBE_EVERY_S)
            await self.store.tend()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(f"headgate_{name}", labels) or 0.0


async def new_replica(
    shared: FakeShared | None = None, clock: FakeClock | None = None, replicas: int = 1
) -> Replica:
    """One that has begun: its background task is `tend`, called by the test."""
    shared, clock = shared or FakeShared(), clock or FakeClock(NOW_S)
    own = CollectorRegistry()
    store = ResilientStore(shared, new_name("replica"), replicas, clock, Metrics(own, clock))
    await store.tend()
    return Replica(store, shared, clock, own)


def opened(asked: T) -> T:
    return replace(asked, on_outage=OnOutage.OPEN)


def shared_out(asked: T) -> T:
    return replace(asked, on_outage=OnOutage.SHARE)


def in_shadow(asked: T) -> T:
    return replace(asked, enforced=False)
