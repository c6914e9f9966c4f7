"""Every store there is, for the one suite that they all pass."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from tests.redis_server import PATIENT_S, RedisServer, running_redis, running_redis_cluster


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    with running_redis_cluster() as server:
        yield server


@pytest.fixture(params=["memory", "redis", "redis_cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    built: Store
    if request.param == "memory":
        built = MemoryStore()
    else:
        server: RedisServer = request.getfixturevalue(
            "redis_server" if request.param == "redis" else "redis_cluster"
        )
        built = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
    yield built
    await built.close()
