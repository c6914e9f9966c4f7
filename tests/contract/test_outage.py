"""Three replicas on a real Redis that is killed, hangs, is slow or forgets its scripts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import NoReturn

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from ratelimit.store.outage.breaker import PROBE_EVERY_S
from ratelimit.store.outage.replicas import ANNOUNCE_EVERY_S, LIFE_S
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import ReserveDecision, SettleOutcome, StoreError
from ratelimit.store.redis import RedisStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, Shop, lease, new_name, peek, requests, spent, tokens
from tests.ratelimit.outages import opened, shared_out
from tests.redis_server import PATIENT_S, RedisServer, running_redis, running_redis_cluster
from tests.slow_proxy import slow_proxy

DEADLINE_S = 1.0
"""Longer than a Redis that is well ever takes, and short, as tests wait for it."""
LIMIT = 30
ADMITTED = ReserveDecision.ADMITTED


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@dataclass
class Fleet:
    """Three stores as in three processes. Time moves by hand, only Redis' own is real."""

    stores: list[ResilientStore]
    clock: FakeClock
    shop: Shop
    admitted: dict[str, bool]

    async def ask_all(self, count: int) -> None:
        """So many requests of 1 token and a slot at each replica, at once."""
        asked = (shared_out(tokens(1, LIMIT)), shared_out(lease(LIMIT)))
        now_s = self.clock.now_s()
        reservations = [
            (store, self.shop.ask(*asked, now_s=now_s))
            for _ in range(count)
            for store in self.stores
        ]
        answers = await asyncio.gather(
            *(store.reserve(reservation) for store, reservation in reservations)
        )
        for (_, reservation), answer in zip(reservations, answers, strict=True):
            if answer.decision is ADMITTED:
                self.admitted[reservation.id] = answer.degraded

    async def tend(self) -> None:
        self.clock.advance(PROBE_EVERY_S)
        await asyncio.gather(*(store.tend() for store in self.stores))

    async def recover(self) -> None:
        """Until every replica uses the store again, and has told it everything."""
        for _ in range(40):
            await self.tend()
            answers = [
                await store.reserve(Shop().ask(opened(requests(1)))) for store in self.stores
            ]
            if not any(answer.degraded for answer in answers):
                break
        await self.tend()

    async def in_redis(self, server: RedisServer) -> tuple[int, ...]:
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        used = await peek(store, self.shop.tenant, ["tokens"], ["slots"], self.clock.now_s())
        await store.close()
        return used


@asynccontextmanager
async def fleet_on(url: str) -> AsyncIterator[Fleet]:
    clock = FakeClock(NOW_S)
    stores = [
        ResilientStore(
            RedisStore.from_url(url, DEADLINE_S),
            new_name("replica"),
            1,
            clock,
            Metrics(CollectorRegistry(), clock),
        )
        for _ in range(3)
    ]
    fleet = Fleet(stores, clock, Shop(), {})
    for _ in range(2):
        clock.advance(ANNOUNCE_EVERY_S)
        await fleet.tend()
    yield fleet
    for store in stores:
        await store.close()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_in_an_outage_three_replicas_admit_one_limit_and_redis_learns_it(
    server: RedisServer, fault: str
) -> None:
    async with fleet_on(server.url) as fleet:
        server.stop() if fault == "killed" else server.freeze()
        await fleet.ask_all(LIMIT)
        assert all(fleet.admitted.values())
        assert len(fleet.admitted) == LIMIT
        first, second, third, *_ = fleet.admitted
        for name in (first, second):  # at any replica: the one that admitted it or another
            await fleet.stores[0].settle(name, fleet.shop.tenant, spent(0, 0), NOW_S)

        server.start() if fault == "killed" else server.thaw()
        await fleet.recover()
        fleet.clock.advance(ANNOUNCE_EVERY_S)
        await fleet.tend()

        assert await fleet.in_redis(server) == (LIMIT - 2, LIMIT - 2)
        await fleet.stores[2].settle(third, fleet.shop.tenant, spent(0, 0), NOW_S)
        for store in fleet.stores:  # no settlement counts twice, whoever hears it
            again = await store.settle(third, fleet.shop.tenant, spent(50, 1), NOW_S)
            assert again.outcome is SettleOutcome.DUPLICATE
        assert await fleet.in_redis(server) == (LIMIT - 3, LIMIT - 3)


async def test_no_slot_is_stuck_one_lease_after_an_outage(server: RedisServer) -> None:
    async with fleet_on(server.url) as fleet:
        await fleet.ask_all(1)
        server.freeze()
        await fleet.ask_all(LIMIT)
        server.thaw()
        await fleet.recover()
        assert (await fleet.in_redis(server))[1] == LIMIT + 3

        fleet.clock.advance(30)

        assert (await fleet.in_redis(server))[1] == 0
        answer = await fleet.stores[0].reserve(fleet.shop.ask(lease(1), now_s=fleet.clock.now_s()))
        assert answer.decision is ADMITTED


async def test_a_slow_redis_is_one_that_is_away_and_what_it_did_all_the_same_counts_once(
    server: RedisServer,
) -> None:
    async with (
        slow_proxy(server.url.removeprefix("unix://")) as proxy,
        fleet_on(f"redis://127.0.0.1:{proxy.port}") as fleet,
    ):
        proxy.delay_s = 2 * DEADLINE_S
        await fleet.ask_all(LIMIT)
        assert len(fleet.admitted) == LIMIT
        assert all(fleet.admitted.values())
        proxy.delay_s = 0
        await fleet.recover()
        await asyncio.sleep(2 * DEADLINE_S)  # calls that are still on their way arrive late

        assert await fleet.in_redis(server) == (LIMIT, LIMIT)


async def test_a_redis_that_lost_its_scripts_is_not_away(server: RedisServer) -> None:
    async with fleet_on(server.url) as fleet:
        await fleet.ask_all(2)
        with closing(server.client()) as client:
            client.script_flush()
        await fleet.ask_all(2)

        assert not any(fleet.admitted.values())
        assert await fleet.in_redis(server) == (12, 12)


async def test_decisions_do_not_wait_for_a_redis_that_hangs(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(*_: object) -> NoReturn:
        raise AssertionError("Redis is asked")

    async with fleet_on(server.url) as fleet:
        store = fleet.stores[0]
        server.freeze()
        await fleet.ask_all(5)

        monkeypatch.setattr(RedisStore, "reserve", asked)
        for _ in range(1000):
            with pytest.raises(StoreError):
                await store.reserve(fleet.shop.ask(requests(1)))
        server.thaw()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_burst_that_keeps_the_process_busy_is_no_outage(
    server: RedisServer, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The answer is there when the deadline has passed because nobody had time to read it."""

    async def hog() -> None:
        for _ in range(3):
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is to stand still
            await asyncio.sleep(0)

    async def burst() -> None:
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        shop = Shop()
        await store.reserve(shop.ask(requests(99)))  # connects, and loads the script
        store._timeout_s = 0.2
        for _ in range(3):
            answer, _ = await asyncio.gather(store.reserve(shop.ask(requests(99))), hog())
            assert answer.decision is ADMITTED
        await store.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(burst())


@pytest.mark.parametrize("running", [running_redis, running_redis_cluster])
async def test_redis_counts_the_replicas_that_have_not_gone(running: object) -> None:
    with running() as server:  # type: ignore[operator]
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        assert await store.announce("a", LIFE_S) == 1
        assert await store.announce("b", 0.05) == 2
        await asyncio.sleep(0.06)
        assert await store.announce("a", LIFE_S) == 1
        assert await store.announce("c", LIFE_S) == 2
        await store.withdraw("a")
        assert await store.announce("c", LIFE_S) == 1
        with closing(server.client()) as client:
            assert 0 < client.pttl("hg:replicas") <= LIFE_S * 1000
        await store.close()
