"""Replicas know the requests in flight of all, whoever sees their end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from headgate.placement.exchange import LoadExchange, OwnLoads, RedisLoads
from headgate.placement.loads import KEPT_PERIODS, PERIOD_S, PodLoads
from tests.fakes import FakeClock
from tests.redis_server import RedisServer, running_redis

PODS = ("10.0.0.1:8000", "10.0.0.2:8000")


@dataclass
class Replicas:
    """Some replicas that exchange through one place."""

    clock: FakeClock
    exchanges: list[LoadExchange]
    loads: list[PodLoads] = field(default_factory=list)

    async def exchange(self) -> None:
        """Twice, so that the first one knows what the last one told."""
        for _ in range(2):
            for loads, exchange in zip(self.loads, self.exchanges, strict=True):
                loads.is_used = True
                await exchange.exchange()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest_asyncio.fixture
async def replicas(redis: RedisServer) -> AsyncIterator[Replicas]:
    clock = FakeClock()
    loads = [PodLoads(clock.now_s) for _ in range(3)]
    shared = [RedisLoads(redis.url, 5.0) for _ in loads]
    await shared[0]._client.flushall()
    exchanges = [
        LoadExchange(each, share.share, clock) for each, share in zip(loads, shared, strict=True)
    ]
    yield Replicas(clock, exchanges, loads)
    for each in shared:
        await each.close()


async def test_a_request_ends_at_another_replica_than_it_began(replicas: Replicas) -> None:
    first, second, third = replicas.loads
    for _ in range(3):
        first.begin(PODS[0])
    second.begin(PODS[1])
    await replicas.exchange()
    assert [third.of(pod) for pod in PODS] == [3, 1]

    third.end(PODS[0], replicas.clock.now_s())
    assert third.of(PODS[0]) == 2
    await replicas.exchange()
    assert [[each.of(pod) for pod in PODS] for each in replicas.loads] == [[2, 1]] * 3


async def test_a_replica_that_only_asks_hears_of_ends_elsewhere(replicas: Replicas) -> None:
    """As one that sends all requests to the spare version, since it found the pods full."""
    asking, hearing = replicas.loads[:2]
    asking.begin(PODS[0])
    await replicas.exchange()
    hearing.end(PODS[0], replicas.clock.now_s())
    await replicas.exchanges[1].exchange()

    assert asking.of(PODS[0]) == 1
    await replicas.exchanges[0].exchange()
    assert asking.of(PODS[0]) == 0


async def test_what_never_ends_is_forgotten(replicas: Replicas) -> None:
    replicas.loads[0].begin(PODS[0])
    await replicas.exchange()
    began_s = replicas.clock.now_s()
    replicas.clock.advance(PERIOD_S * KEPT_PERIODS)
    await replicas.exchange()
    assert [each.of(PODS[0]) for each in replicas.loads] == [0, 0, 0]

    replicas.loads[1].end(PODS[0], began_s)
    await replicas.exchange()
    replicas.loads[2].begin(PODS[0])
    assert replicas.loads[2].of(PODS[0]) == 1, "a late end counts for nothing"


async def test_in_an_outage_a_replica_goes_on_and_tells_later() -> None:
    clock, own = FakeClock(), OwnLoads()
    loads = PodLoads(clock.now_s)
    is_away = True

    async def share(told, periods):  # type: ignore[no-untyped-def]
        if is_away:
            raise TimeoutError
        return await own.share(told, periods)

    exchange = LoadExchange(loads, share, clock)
    loads.begin(PODS[0])
    await exchange.exchange()
    loads.begin(PODS[0])
    assert loads.of(PODS[0]) == 2
    is_away = False
    await exchange.exchange()
    loads.end(PODS[0], clock.now_s())
    await exchange.exchange()
    assert loads.of(PODS[0]) == 1
    assert own._sums == Counter({(int(clock.now_s() // PERIOD_S), PODS[0]): 1})


async def test_an_idle_replica_asks_nothing() -> None:
    asked = []

    async def share(told, _periods):  # type: ignore[no-untyped-def]
        asked.append(told)
        return told

    clock = FakeClock()
    loads = PodLoads(clock.now_s)
    exchange = LoadExchange(loads, share, clock)
    await exchange.exchange()
    loads.begin(PODS[0])
    await exchange.exchange()
    await exchange.exchange()
    assert len(asked) == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(PODS), st.booleans()), max_size=40))
def test_the_sum_is_that_of_all_begun_and_not_ended(
    steps: list[tuple[int, str, bool]],
) -> None:
    """Whatever replica sees the begin or the end, and however often they exchange between."""
    clock, own = FakeClock(), OwnLoads()
    loads = [PodLoads(clock.now_s) for _ in range(3)]
    exchanges = [LoadExchange(each, own.share, clock) for each in loads]
    running: Counter[str] = Counter()

    async def play() -> None:
        for number, (replica, pod, begins) in enumerate(steps):
            if begins:
                loads[replica].begin(pod)
                running[pod] += 1
            elif running[pod]:
                loads[replica].end(pod, clock.now_s())
                running[pod] -= 1
            if number % 3 == 0:
                await exchanges[replica].exchange()
        for exchange in (*exchanges, *exchanges):
            await exchange.exchange()
        for each, exchange in zip(loads, exchanges, strict=True):
            each.is_used = True
            await exchange.exchange()

    asyncio.run(play())
    assert [[each.of(pod) for pod in PODS] for each in loads] == [[running[p] for p in PODS]] * 3
