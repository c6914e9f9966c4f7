"""Every store there is, for the one suite that they all pass."""

from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import CollectorRegistry

from headgate.clock import SystemClock
from headgate.metrics import Metrics
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from ratelimit.store.resilient import ResilientStore
from tests.redis_server import PATIENT_S, RedisServer, running_redis, running_redis_cluster


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    with running_redis_cluster() as server:
        yield server


@pytest.fixture(params=["memory", "redis", "redis_cluster", "resilient"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    built: Store
    if request.param == "memory":
        built = MemoryStore()
    else:
        server: RedisServer = request.getfixturevalue(
            "redis_cluster" if request.param == "redis_cluster" else "redis_server"
        )
        shared = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        built = shared
        if request.param == "resilient":
            clock = SystemClock()
            metrics = Metrics(CollectorRegistry(), clock)
            built = ResilientStore(shared, "replica", 1, clock, metrics)
    yield built
    await built.close()
