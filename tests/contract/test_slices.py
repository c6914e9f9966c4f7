"""Limits in slices on a real Redis, shared by three replicas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Reserved, ReserveDecision, SettleOutcome
from ratelimit.store.redis import RedisStore
from ratelimit.store.shared import Batch, Exchanged
from ratelimit.store.slices.pool import IDLE_S
from ratelimit.store.slices.sliced import TEND_EVERY_S, SlicedStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, Shop, new_name, peek, spent, tokens
from tests.redis_server import PATIENT_S, RedisServer


@dataclass
class Replicas:
    """Three of them; their background tasks are called by the test."""

    clock: FakeClock
    shared: RedisStore
    stores: list[SlicedStore] = field(default_factory=list)
    resilient: list[ResilientStore] = field(default_factory=list)
    shop: Shop = field(default_factory=Shop)

    async def ask(self, number: int, amount: int, limit: int, slice: int) -> Reserved:
        demand = replace(tokens(amount, limit), slice=slice)
        asked = self.shop.ask(demand, id=f"r{number}", now_s=self.clock.now_s())
        return await self.stores[number % 3].reserve(asked)

    async def settle(self, number: int, place: int, held_by: str, used: int) -> SettleOutcome:
        settled = await self.stores[place].settle_held(
            held_by, f"r{number}", self.shop.tenant, spent(used, 1), self.clock.now_s()
        )
        return settled.outcome

    async def rest(self) -> None:
        """Nobody asks for a while: settlements are forwarded, unused slices go back."""
        for _ in range(2):
            self.clock.advance(IDLE_S)
            for _ in range(2):
                for store in self.stores:
                    await store.tend()

    async def in_redis(self) -> int:
        [used] = await peek(self.shared, self.shop.tenant, ["tokens"], [], NOW_S)
        return used


@pytest.fixture(params=["redis_server", "redis_cluster"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    server: RedisServer = request.getfixturevalue(request.param)
    clock = FakeClock(NOW_S)
    async with AsyncExitStack() as stack:
        shared = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        stack.push_async_callback(shared.close)
        made = Replicas(clock, shared)
        for _ in range(3):
            own = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
            name = new_name("replica")
            metrics = Metrics(CollectorRegistry(), clock)
            resilient = ResilientStore(own, name, 3, clock, metrics)
            await resilient.tend()
            made.stores.append(
                SlicedStore(resilient, name, clock, metrics, VirtualTimes(clock.monotonic_s))
            )
            stack.push_async_callback(made.stores[-1].close)
        yield made


@pytest.mark.parametrize("size", [1, 1000, 3000, 10_000])
async def test_a_thousand_at_once_at_three_replicas_get_exactly_what_there_is(
    replicas: Replicas, size: int
) -> None:
    answers = await asyncio.gather(*(replicas.ask(n, 1000, 10_000, size) for n in range(1000)))
    admitted = [
        n for n, answer in enumerate(answers) if answer.decision is ReserveDecision.ADMITTED
    ]
    assert len(admitted) == 10
    assert await replicas.in_redis() == 10_000

    for n in admitted:
        await replicas.settle(n, (n + 1) % 3, answers[n].held_by, 400)
    await replicas.rest()
    assert await replicas.in_redis() == 10 * 400


async def test_a_busy_limit_costs_a_twentieth_of_a_round_trip_for_each_request(
    replicas: Replicas, request: pytest.FixtureRequest
) -> None:
    """400 requests a second at three replicas, two thirds of which end at another one."""
    server: RedisServer = request.getfixturevalue(
        "redis_cluster" if "cluster" in request.node.name else "redis_server"
    )
    charged = 0
    with closing(server.client()) as client:
        client.config_resetstat()
        for start in range(0, 4000, 100):
            numbers = range(start, start + 100)
            answers = await asyncio.gather(
                *(replicas.ask(n, 100, 10_000_000, 20_000) for n in numbers)
            )
            for n, answer in zip(numbers, answers, strict=True):
                assert answer.decision is ReserveDecision.ADMITTED
                await replicas.settle(n, n // 3 % 3, answer.held_by, n % 100)
                charged += n % 100
            replicas.clock.advance(TEND_EVERY_S)
            for store in replicas.stores:
                await store.tend()
        stats = client.info("commandstats")
    scripts = stats["cmdstat_evalsha"]["calls"]
    exchanges = stats["cmdstat_hgetall"]["calls"]  # one each, besides those of a script
    assert (scripts + exchanges) / 4000 < 0.05
    await replicas.rest()
    assert await replicas.in_redis() == charged


async def test_a_batch_is_kept_once_until_it_was_read(replicas: Replicas) -> None:
    shared, me, you = replicas.shared, new_name("replica"), new_name("replica")
    first, other = Batch(you, "1", '["\\u00fc"]'), Batch(you, "2", "")
    await shared.announce(you, 30)
    assert await shared.exchange(me, [first, other], []) == Exchanged()
    assert await shared.exchange(me, [first], []) == Exchanged()
    assert {*(await shared.exchange(you, [], [])).batches} == {first, other}
    assert (await shared.exchange(you, [], ["1"])).batches == (other,)
    assert await shared.exchange(you, [], ["1", "2"]) == Exchanged()
    await shared.withdraw(you)
    assert await shared.exchange(me, [first], []) == Exchanged((), frozenset({you}))
