"""The memory of versions, in this process and in a real Redis, by the same rules."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from extproc.pins.memory import MemoryPins
from extproc.pins.redis import PAUSE_S, RedisPins
from extproc.types import Pin, SizePin
from extproc.versions import PinnedVersion
from tests.fakes import FakeClock
from tests.redis_server import PATIENT_S, RedisServer, running_redis

LIVE = ("v1", "v2")


def pin(version: str, key: str = "c", live: tuple[str, ...] = LIVE, kept_s: int = 3600) -> Pin:
    return Pin(key, version, live, kept_s)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest_asyncio.fixture(params=["memory", "redis"])
async def pins(
    request: pytest.FixtureRequest, redis: RedisServer
) -> AsyncIterator[MemoryPins | RedisPins]:
    if request.param == "memory":
        yield MemoryPins(FakeClock(1000))
        return
    redis.client().flushall()
    shared = RedisPins(redis.url, PATIENT_S, FakeClock(1000))
    yield shared
    await shared.close()


async def test_the_first_version_stays(pins: MemoryPins | RedisPins) -> None:
    assert await pins.keep(pin("v1")) == PinnedVersion("v1", remembered=False)
    assert await pins.keep(pin("v2")) == PinnedVersion("v1", remembered=True)


async def test_a_version_without_a_weight_is_forgotten(pins: MemoryPins | RedisPins) -> None:
    await pins.keep(pin("v2"))

    assert await pins.keep(pin("v1", live=("v1",))) == PinnedVersion("v1", remembered=False)
    assert await pins.keep(pin("v2")) == PinnedVersion("v1", remembered=True)


async def test_conversations_are_apart(pins: MemoryPins | RedisPins) -> None:
    await pins.keep(pin("v1", key="one"))

    assert await pins.keep(pin("v2", key="two")) == PinnedVersion("v2", remembered=False)


def size(model: str, order: str = "abc", kept_s: int = 3600) -> SizePin:
    return SizePin("s", model, tuple(order), kept_s)


async def test_a_size_only_grows(pins: MemoryPins | RedisPins) -> None:
    assert [await pins.largest(size(model)) for model in "abacb"] == list("abbcc")


async def test_a_size_that_the_policy_no_longer_has_bounds_nothing(
    pins: MemoryPins | RedisPins,
) -> None:
    await pins.largest(size("c"))

    assert await pins.largest(size("a", order="ab")) == "a"


async def test_a_size_is_forgotten_kept_s_after_its_last_request() -> None:
    clock = FakeClock(0)
    pins = MemoryPins(clock)
    await pins.largest(size("b", kept_s=10))
    clock.advance(9)
    assert await pins.largest(size("a", kept_s=10)) == "b"
    clock.advance(10)
    assert await pins.largest(size("a", kept_s=10)) == "a"


async def test_replicas_agree_on_the_largest_size(redis: RedisServer) -> None:
    first, second = (RedisPins(redis.url, PATIENT_S, FakeClock(0)) for _ in range(2))
    await first.largest(replace(size("a"), key="agreed"))
    await second.largest(replace(size("c"), key="agreed"))

    assert await first.largest(replace(size("b"), key="agreed")) == "c"
    await first.close()
    await second.close()


async def test_without_redis_a_replica_keeps_the_sizes_that_it_knows() -> None:
    pins = RedisPins("redis://127.0.0.1:1/0", PATIENT_S, FakeClock(0))

    assert [await pins.largest(size(model)) for model in "aba"] == ["a", "b", "b"]
    await pins.close()


async def test_a_pin_ends_kept_s_after_its_last_request() -> None:
    clock = FakeClock(0)
    pins = MemoryPins(clock)
    await pins.keep(pin("v1", kept_s=10))
    clock.advance(9)
    await pins.keep(pin("v1", kept_s=10))
    clock.advance(9)
    assert (await pins.keep(pin("v2", kept_s=10))).version == "v1"
    clock.advance(10)
    assert await pins.keep(pin("v2", kept_s=10)) == PinnedVersion("v2", remembered=False)


async def test_memory_is_bounded_and_forgets_the_least_recently_used() -> None:
    pins = MemoryPins(FakeClock(0), most=2)
    for key in ("first", "second", "first", "third"):
        await pins.keep(pin("v1", key=key))

    assert (await pins.keep(pin("v2", key="first"))).remembered
    assert not (await pins.keep(pin("v2", key="second"))).remembered


async def test_replicas_agree_and_one_that_starts_anew_knows(redis: RedisServer) -> None:
    first, second = (RedisPins(redis.url, PATIENT_S, FakeClock(0)) for _ in range(2))
    await first.keep(pin("v1", key="shared"))

    assert await second.keep(pin("v2", key="shared")) == PinnedVersion("v1", remembered=True)
    await first.close()
    await second.close()


async def test_a_known_conversation_costs_no_round_trip_for_a_tenth_of_its_time(
    redis: RedisServer,
) -> None:
    clock = FakeClock(0)
    pins = RedisPins(redis.url, PATIENT_S, clock)
    calls = [await count_calls(redis, pins, clock, at_s) for at_s in (0, 1, 359, 361, 362)]
    await pins.close()

    assert calls == [1, 0, 0, 1, 0]


async def count_calls(redis: RedisServer, pins: RedisPins, clock: FakeClock, at_s: float) -> int:
    clock.advance(at_s - clock.now_s())
    before = scripts_run(redis)
    await pins.keep(pin("v1", key="counted"))
    return scripts_run(redis) - before


def scripts_run(redis: RedisServer) -> int:
    stats = redis.client().info("commandstats")
    return sum(
        stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
        - stats.get(f"cmdstat_{name}", {}).get("failed_calls", 0)
        for name in ("evalsha",)
    )


async def test_without_redis_the_hash_decides_and_redis_is_tried_once_a_second() -> None:
    clock = FakeClock(0)
    pins = RedisPins("redis://127.0.0.1:1/0", PATIENT_S, clock)
    first = await pins.keep(pin("v2", key="x"))
    clock.advance(PAUSE_S / 2)
    second = await pins.keep(pin("v2", key="x"))
    await pins.close()

    assert first == second == PinnedVersion("v2", remembered=None)


@pytest.mark.parametrize("later_s", [1, 361])
async def test_redis_lost_what_this_replica_still_knows(redis: RedisServer, later_s: float) -> None:
    """Also when the pin must be renewed in Redis."""
    clock = FakeClock(0)
    pins = RedisPins(redis.url, PATIENT_S, clock)
    await pins.keep(pin("v1", key="lost"))
    redis.client().flushall()
    clock.advance(later_s)

    assert await pins.keep(pin("v2", key="lost")) == PinnedVersion("v1", remembered=True)
    await pins.close()


async def test_a_conversation_that_goes_on_without_redis_stays_where_it_is() -> None:
    clock = FakeClock(0)
    with running_redis() as server:
        pins = RedisPins(server.url, PATIENT_S, clock)
        await pins.keep(pin("v1", key="on"))
        server.stop()
        for _ in range(4):
            clock.advance(1800)
            assert await pins.keep(pin("v2", key="on")) == PinnedVersion("v1", remembered=True)
        await pins.close()


async def test_a_cluster_that_is_away_raises_nothing() -> None:
    pins = RedisPins("redis+cluster://127.0.0.1:1/0", PATIENT_S, FakeClock(0))

    assert await pins.keep(pin("v2", key="x")) == PinnedVersion("v2", remembered=None)
    await pins.close()


async def test_many_new_conversations_at_once_are_all_remembered(redis: RedisServer) -> None:
    pins = RedisPins(redis.url, PATIENT_S, FakeClock(0))
    asked = (pins.keep(pin("v1", key=f"at once {number}")) for number in range(400))
    seen = await asyncio.gather(*asked)
    await pins.close()

    assert [pinned.remembered for pinned in seen] == [False] * 400


async def test_one_request_a_second_waits_for_a_redis_that_is_silent() -> None:
    """Requests that run when it falls silent may all wait, because the failure is not known yet."""
    clock = FakeClock(0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pins = RedisPins(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 0.05, clock)
        await pins.keep(pin("v1", key="first"))
        clock.advance(PAUSE_S)
        asked = [asyncio.ensure_future(pins.keep(pin("v1", key=f"c{n}"))) for n in range(20)]
        await asyncio.sleep(0)  # each runs until it waits or ends
        waiting = [call for call in asked if not call.done()]
        await asyncio.gather(*asked)
        await pins.close()

    assert len(waiting) == 1
