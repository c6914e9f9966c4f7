"""Every store there is, for the one suite that they all pass."""

from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import Reservation, Reserved, Store
from ratelimit.store.redis import RedisStore
from ratelimit.store.slices.sliced import SlicedStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S
from tests.redis_server import PATIENT_S, RedisServer, running_redis, running_redis_cluster


class InSlices(SlicedStore):
    """Takes every limit in slices of a quarter."""

    async def reserve(self, reservation: Reservation) -> Reserved:
        demands = tuple(
            replace(demand, slice=max(1, demand.limit // 4)) for demand in reservation.demands
        )
        answer = await super().reserve(replace(reservation, demands=demands))
        return replace(answer, held_by="")  # no other store has this to say


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    with running_redis_cluster() as server:
        yield server


@pytest.fixture(
    params=["memory", "redis", "redis_cluster", "resilient", "slices_unused", "all_in_slices"]
)
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
        if request.param not in ("redis", "redis_cluster"):
            clock = FakeClock(NOW_S)
            metrics = Metrics(CollectorRegistry(), clock)
            times = VirtualTimes(clock.monotonic_s)
            resilient = built = ResilientStore(shared, "replica", 1, clock, metrics)
            if request.param == "slices_unused":
                built = SlicedStore(resilient, "replica", clock, metrics, times)
            if request.param == "all_in_slices":
                built = InSlices(resilient, "replica", clock, metrics, times)
    yield built
    await built.close()
