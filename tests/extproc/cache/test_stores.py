"""Where answers are kept: in this process, in Redis and in a Redis Cluster, by the same rules."""

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from extproc.cache.answers import Absence, AnswersAwayError, AnswerStore, Found, Kept
from extproc.cache.memory import MemoryAnswers
from extproc.cache.redis import PAUSE_S, PURGED_AT_ONCE, RedisAnswers
from tests.extproc.cache.builders import JSON_ANSWER, keep, kept_answer
from tests.fakes import FakeClock
from tests.redis_server import PATIENT_S, RedisServer, running_redis, running_redis_cluster


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisServer]:
    with running_redis_cluster() as server:
        yield server


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MemoryAnswers | RedisAnswers]:
    if request.param == "memory":
        yield MemoryAnswers(FakeClock(1000))
        return
    server: RedisServer = request.getfixturevalue(request.param)
    server.client().flushall()
    shared = RedisAnswers(server.url, PATIENT_S, FakeClock(1000))
    yield shared
    await shared.close()


async def generation(store: AnswerStore, tenant: str = "acme") -> str:
    return (await store.find(tenant, "none")).generation


async def test_a_kept_answer_is_found_as_it_was(store: AnswerStore) -> None:
    assert await store.find("acme", "aa") == Found(Absence.ABSENT)
    body = bytes(range(256))
    assert await store.keep(keep(body=body)) is Kept.STORED

    found = await store.find("acme", "aa")
    assert found.answer == kept_answer(body)
    assert found.generation != ""
    assert (await store.find("acme", "ab")).answer is Absence.ABSENT


async def test_a_tenant_finds_no_answer_of_another_one_even_under_the_same_key(
    store: AnswerStore,
) -> None:
    await store.keep(keep())

    assert (await store.find("globex", "aa")).answer is Absence.ABSENT


async def test_a_newer_answer_takes_the_place_of_an_older_one(store: AnswerStore) -> None:
    await store.keep(keep())
    await store.keep(keep(body=b"newer", generation=await generation(store)))

    assert (await store.find("acme", "aa")).answer == kept_answer(b"newer")


async def test_the_oldest_answers_make_room(store: AnswerStore) -> None:
    """Each has 400 bytes, and Redis adds a few to each."""
    for number, key in enumerate(("aa", "bb", "cc", "dd")):
        now = await generation(store)
        said = await store.keep(
            keep(key, body=b"x" * 400, generation=now, ttl_s=600 + number, max_bytes=1400)
        )
        assert said is Kept.STORED

    absent = [
        key
        for key in ("aa", "bb", "cc", "dd")
        if (await store.find("acme", key)).answer is Absence.ABSENT
    ]
    assert absent == ["aa"]


async def test_an_answer_that_is_kept_again_counts_once(store: AnswerStore) -> None:
    await store.keep(keep("aa", body=b"x" * 400, max_bytes=1000))
    for _ in range(5):
        now = await generation(store)
        await store.keep(keep("bb", body=b"x" * 400, generation=now, ttl_s=700, max_bytes=1000))

    assert (await store.find("acme", "aa")).answer == kept_answer(b"x" * 400)


async def test_an_answer_that_is_larger_than_all_may_be_evicts_nothing(store: AnswerStore) -> None:
    await store.keep(keep("aa"))
    now = await generation(store)
    assert await store.keep(keep("bb", body=b"x" * 2000, generation=now, max_bytes=1000)) is (
        Kept.TOO_LARGE
    )

    assert (await store.find("acme", "aa")).answer == kept_answer()


async def test_a_purge_forgets_the_answers_of_one_tenant(store: AnswerStore) -> None:
    await store.keep(keep())
    await store.keep(keep("bb", generation=await generation(store)))
    await store.keep(keep(tenant="globex"))

    assert await store.purge("acme") == 2
    assert (await store.find("acme", "aa")).answer is Absence.ABSENT
    assert (await store.find("globex", "aa")).answer == kept_answer()
    assert await store.purge("acme") == 0


async def test_an_answer_that_was_asked_before_a_purge_is_not_kept_after_it(
    store: AnswerStore,
) -> None:
    await store.keep(keep())
    before = await generation(store)
    await store.purge("acme")

    assert await store.keep(keep(generation=before)) is Kept.PURGED
    assert (await store.find("acme", "aa")).answer is Absence.ABSENT
    assert await store.keep(keep(generation=await generation(store))) is Kept.STORED


async def test_memory_forgets_an_answer_after_its_time() -> None:
    clock = FakeClock(1000)
    store = MemoryAnswers(clock)
    await store.keep(keep(ttl_s=60))
    clock.advance(59)
    assert (await store.find("acme", "aa")).answer == kept_answer()

    clock.advance(1)
    assert (await store.find("acme", "aa")).answer is Absence.ABSENT


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000)


@pytest_asyncio.fixture
async def shared(redis: RedisServer, clock: FakeClock) -> AsyncIterator[RedisAnswers]:
    redis.client().flushall()
    answers = RedisAnswers(redis.url, PATIENT_S, clock)
    yield answers
    await answers.close()


async def test_redis_forgets_everything_of_a_tenant_after_its_time(
    shared: RedisAnswers, redis: RedisServer
) -> None:
    """All but the tenant's generation, which has 32 digits."""
    await shared.keep(keep(ttl_s=60))
    await shared.keep(keep("bb", ttl_s=30, generation=await generation(shared)))
    client = redis.client()
    left_ms = {name: client.pttl(name) for name in client.keys("*")}

    assert left_ms.pop("hg:cache:{acme}:generation") == -1
    assert len(left_ms) == 4
    assert all(0 < left <= 60_000 for left in left_ms.values())  # type: ignore[operator]


async def test_a_lost_generation_brings_no_old_answer_back(
    shared: RedisAnswers, redis: RedisServer
) -> None:
    """As after an eviction by Redis."""
    await shared.keep(keep())
    redis.client().delete("hg:cache:{acme}:generation")

    assert (await shared.find("acme", "aa")).answer is Absence.ABSENT
    await shared.keep(keep("bb"))
    assert (await shared.find("acme", "aa")).answer is Absence.ABSENT


async def test_expired_answers_leave_room_without_evicting_others(
    shared: RedisAnswers, redis: RedisServer, clock: FakeClock
) -> None:
    await shared.keep(keep("aa", body=b"x" * 400, ttl_s=10, max_bytes=1000))
    await shared.keep(
        keep("bb", body=b"x" * 400, generation=await generation(shared), max_bytes=1000)
    )
    clock.advance(20)
    await shared.keep(
        keep("cc", body=b"x" * 400, generation=await generation(shared), max_bytes=1000)
    )

    assert (await shared.find("acme", "bb")).answer == kept_answer(b"x" * 400)
    assert redis.client().zrange("hg:cache:{acme}:index", 0, -1) == ["bb", "cc"]


async def test_a_tenant_is_in_one_slot_of_a_cluster(cluster: RedisServer) -> None:
    client = cluster.client()
    client.flushall()
    store = RedisAnswers(cluster.url, PATIENT_S, FakeClock(1000))
    await store.keep(keep())
    await store.keep(keep("bb", generation=await generation(store)))
    await store.close()

    names = client.keys("*")
    assert len(names) == 5
    assert len({client.execute_command("CLUSTER KEYSLOT", name) for name in names}) == 1


async def test_a_purge_takes_many_answers_out_of_redis(
    shared: RedisAnswers, redis: RedisServer
) -> None:
    await shared.keep(keep("first"))
    now = await generation(shared)
    for number in range(PURGED_AT_ONCE):
        await shared.keep(keep(f"{number:x}", body=b"x", generation=now))

    assert await shared.purge("acme") == PURGED_AT_ONCE + 1
    client = redis.client()
    assert client.keys("hg:cache:{acme}:answer:*") == []
    assert client.hgetall("hg:cache:{acme}:sizes") in ({}, {"total": "0"})


async def test_an_entry_of_another_version_is_absent(
    shared: RedisAnswers, redis: RedisServer
) -> None:
    await shared.keep(keep())
    name = "hg:cache:{acme}:answer:aa"
    redis.client().set(name, (await generation(shared)) + "something else")

    assert (await shared.find("acme", "aa")).answer is Absence.ABSENT


async def test_a_full_redis_keeps_no_answer_and_still_finds_old_ones(
    shared: RedisAnswers, redis: RedisServer
) -> None:
    await shared.keep(keep())
    now = await generation(shared)
    redis.client().config_set("maxmemory", "1")
    try:
        assert await shared.keep(keep("bb", generation=now)) is Kept.FAILED
        assert (await shared.find("acme", "aa")).answer == kept_answer(JSON_ANSWER)
    finally:
        redis.client().config_set("maxmemory", "0")


async def test_a_redis_that_hangs_costs_one_deadline_and_then_a_pause() -> None:
    """Nothing answers at the address: each call would wait for ever."""
    clock = FakeClock(1000)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        store = RedisAnswers(url, 0.05, clock)
        assert (await store.find("acme", "aa")).answer is Absence.AWAY
        patient = RedisAnswers(url, PATIENT_S, clock)
        patient.pause()
        assert (await patient.find("acme", "aa")).answer is Absence.AWAY
        assert await patient.keep(keep()) is Kept.FAILED
        with pytest.raises(AnswersAwayError):
            await store.purge("acme")
        clock.advance(PAUSE_S)
        assert (await store.find("acme", "aa")).answer is Absence.AWAY
        await store.close()
        await patient.close()
