"""A store that hangs for a moment, and a process that is busy: no request is refused for it."""

import asyncio
import time

from prometheus_client import CollectorRegistry

from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.program.parts import running_store
from headgate.program.settings import StoreSettings
from ratelimit.store.protocol import Reserved, ReserveDecision, Store, StoreError
from ratelimit.store.redis import RedisStore
from tests.ratelimit.builders import Shop, requests
from tests.redis_server import RedisServer, running_redis

CLOCK = SystemClock()
IN_FLIGHT = 16


async def ask(store: Store, shop: Shop) -> Reserved | None:
    """None if it is refused for want of an answer; the limit is `on_outage: closed`."""
    try:
        return await store.reserve(shop.ask(requests(1000), now_s=CLOCK.now_s()))
    except StoreError:
        return None


async def freeze(server: RedisServer, for_s: float) -> None:
    server.freeze()
    try:
        await asyncio.sleep(for_s)
    finally:
        server.thaw()


async def test_a_redis_that_hangs_for_200_ms_refuses_nobody() -> None:
    metrics, shop = Metrics(CollectorRegistry(), CLOCK), Shop()
    with running_redis() as server:
        async with running_store(StoreSettings(server.url), CLOCK, metrics) as store:
            await ask(store, shop)
            stall = asyncio.create_task(freeze(server, 0.2))
            await asyncio.sleep(0.01)
            answers = await asyncio.gather(*(ask(store, shop) for _ in range(IN_FLIGHT)))
            await stall

    assert [answer and answer.decision for answer in answers] == [
        ReserveDecision.ADMITTED
    ] * IN_FLIGHT
    assert not any(answer.degraded for answer in answers if answer)


async def test_a_redis_that_hangs_for_5_s_is_away_after_a_second_or_two_and_comes_back() -> None:
    """Until then each request waits for its deadline. From then on it is refused at once."""
    metrics, shop = Metrics(CollectorRegistry(), CLOCK), Shop()
    with running_redis() as server:
        async with running_store(StoreSettings(server.url), CLOCK, metrics) as store:
            await ask(store, shop)
            began_s = CLOCK.monotonic_s()
            stall = asyncio.create_task(freeze(server, 5))
            while metrics.registry.get_sample_value("headgate_store_available") == 1:
                assert CLOCK.monotonic_s() < began_s + 5
                await asyncio.gather(*(ask(store, shop) for _ in range(IN_FLIGHT)))
            took_s = CLOCK.monotonic_s() - began_s
            assert await ask(store, shop) is None
            await stall
            while await ask(store, shop) is None:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.05)

    assert took_s >= 1


async def test_a_process_that_was_busy_gives_its_calls_their_time_again() -> None:
    """The loop is held for longer than the deadline, from before the call is sent to Redis."""
    with running_redis() as server:
        store = RedisStore.from_url(server.url, 0.3)
        await store.ping()
        server.freeze()
        waiting = asyncio.create_task(store.ping())
        await asyncio.sleep(0.01)
        time.sleep(0.4)  # noqa: ASYNC251 - holds the loop
        await asyncio.sleep(0.02)
        server.thaw()
        await waiting
        await store.close()


async def test_a_call_without_an_answer_ends_all_the_same() -> None:
    with running_redis() as server:
        store = RedisStore.from_url(server.url, 0.1)
        await store.ping()
        server.freeze()
        error = await asyncio.gather(store.ping(), return_exceptions=True)
        server.thaw()
        await store.close()

    assert "had no answer within 0.1 s" in str(error[0])
