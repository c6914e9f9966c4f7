"""Replicas exchange the virtual times of the queues through Redis."""

from ratelimit.fair.tags import FairStart, VirtualTimes
from ratelimit.store.redis import RedisStore
from ratelimit.store.virtual_times import VirtualTimeExchange
from tests.fakes import FakeClock
from tests.ratelimit.builders import new_name
from tests.redis_server import PATIENT_S, RedisServer


async def test_each_replica_learns_the_latest_time_of_any_other(redis_server: RedisServer) -> None:
    queue = new_name("queue")
    store = RedisStore.from_url(redis_server.url, timeout_s=PATIENT_S)
    times = [VirtualTimes(FakeClock().monotonic_s) for _ in range(2)]
    replicas = [VirtualTimeExchange(store.exchange_times, each) for each in times]
    for tag, each in zip((70, 90), times, strict=True):
        each.started(FairStart(queue, tag))

    for replica in (*replicas, *replicas):
        await replica.exchange()

    assert [each.of(queue, 0) for each in times] == [90, 90]
    await store.close()


async def test_without_an_order_to_keep_a_replica_asks_nothing() -> None:
    async def never(_: object) -> dict[str, int]:
        raise AssertionError

    await VirtualTimeExchange(never, VirtualTimes(FakeClock().monotonic_s)).exchange()
