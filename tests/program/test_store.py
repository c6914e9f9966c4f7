"""The store that the program builds, with its background task."""

import asyncio
from contextlib import closing

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.program.parts import running_store
from headgate.program.settings import StoreSettings
from ratelimit.store.protocol import Reserved, Store
from tests.ratelimit.builders import Shop, admitted, requests
from tests.ratelimit.outages import shared_out
from tests.redis_server import PATIENT_S, running_redis

CLOCK = SystemClock()


async def ask(store: Store) -> Reserved:
    return await store.reserve(Shop().ask(shared_out(requests(8)), now_s=CLOCK.now_s()))


async def until_available(metrics: Metrics, available: int) -> None:
    """Waits for the background task. The test's own timeout ends it."""
    while metrics.registry.get_sample_value("headgate_store_available") != available:  # noqa: ASYNC110 - a gauge has no event
        await asyncio.sleep(0.01)


async def test_it_starts_without_redis_finds_it_loses_it_and_finds_it_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_redis() as server:
        server.stop()
        metrics = Metrics(CollectorRegistry(), CLOCK)
        settings = StoreSettings(server.url, replicas=4, deadline_s=PATIENT_S)
        async with running_store(settings, CLOCK, metrics) as store:
            for _ in range(2):
                await until_available(metrics, 0)
                assert await ask(store) == replace(admitted(requests=7), degraded=True)
                server.start()
                await until_available(metrics, 1)
                assert await ask(store) == admitted(requests=1)
                server.stop()
            await until_available(metrics, 0)
            server.start()
            await until_available(metrics, 1)
        with closing(server.client()) as client:
            assert client.zcard("hg:replicas") == 0

    lines = [record.getMessage().split(" after ")[0].split(",")[0] for record in caplog.records]
    assert lines == ["the store is away", "the store answers again"] * 3


async def test_an_address_that_is_none_is_an_operator_s_error() -> None:
    metrics = Metrics(CollectorRegistry(), CLOCK)
    with pytest.raises(OperatorError, match="must be `memory`, redis"):
        async with running_store(StoreSettings("memcached://h"), CLOCK, metrics):
            pass
