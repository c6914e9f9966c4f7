"""Only Redis can go wrong in these ways: round trips, lost scripts, time to live, outages."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.core.errors import OperatorError
from ratelimit.store.hits import Hit
from ratelimit.store.protocol import ReserveDecision, SettleOutcome, StoreError, Weights
from ratelimit.store.redis import RedisStore
from tests.contract.older import settle_as_0_1_0
from tests.ratelimit.builders import (
    NOW_S,
    Shop,
    admitted,
    lease,
    peek,
    requests,
    smooth,
    spent,
    tokens,
)
from tests.redis_server import PATIENT_S, RedisServer, running_redis

ASKED = (tokens(5, 100), tokens(5, 1000, "day"), requests(10), smooth(5, 100, 1), lease(3))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    built = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
    yield built
    await built.close()


def calls(server: RedisServer) -> dict[str, int]:
    """How often each command was called; scripts' own calls do not count as round trips."""
    with contextlib.closing(server.client()) as client:
        stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): line["calls"] for name, line in stats.items()}


async def test_a_reserve_and_a_settle_are_one_round_trip_each(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(*ASKED, id="warm"))
    await store.settle("warm", shop.tenant, spent(1, 1), NOW_S)
    reservations = [shop.ask(*ASKED) for _ in range(5)]
    sent: list[str] = []
    with contextlib.closing(server.client()) as client, client.monitor() as monitor:
        for number, reservation in enumerate(reservations):
            await store.reserve(reservation)
            await store.settle(reservation.id, shop.tenant, spent(number, 1), NOW_S)
        await store.ping()
        for heard in monitor.listen():
            if heard["client_type"] == "lua":
                continue
            sent.append(heard["command"].split()[0].upper())
            if sent[-1] == "PING":
                break

    assert sent == ["EVALSHA"] * 10 + ["PING"]


async def test_scripts_that_redis_has_lost_are_sent_again(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(*ASKED, id="before"))
    with contextlib.closing(server.client()) as client:
        client.script_flush()
    before = calls(server)

    answer = await store.reserve(shop.ask(*ASKED, id="after"))
    assert answer == admitted(tokens=10, day=10, requests=2, smooth=10_000, slots=2)
    assert (
        await store.settle("after", shop.tenant, spent(0, 0), NOW_S)
    ).outcome is SettleOutcome.SETTLED
    assert (
        await store.settle("before", shop.tenant, spent(0, 0), NOW_S)
    ).outcome is SettleOutcome.SETTLED

    after = calls(server)
    assert after["eval"] - before.get("eval", 0) == 2
    assert after["evalsha"] - before["evalsha"] == 3


async def test_every_key_ends_by_itself(server: RedisServer, store: RedisStore) -> None:
    shop = Shop()
    for name in ("settled", "held"):
        await store.reserve(shop.ask(*ASKED, id=name))
    await store.settle("settled", shop.tenant, spent(9, 1), NOW_S)

    with contextlib.closing(server.client()) as client:
        lives_ms = {key: client.pttl(key) for key in client.keys(f"{{hg:{shop.tenant}}}*")}

    assert len(lives_ms) == 7
    assert all(0 < life_ms <= 3600_000 for life_ms in lives_ms.values())
    assert lives_ms[f"{{hg:{shop.tenant}}}r:settled"] <= 120_000


async def test_charging_a_counter_does_not_lengthen_its_life(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(1, 100), id="first"))
    with contextlib.closing(server.client()) as client:
        key = f"{{hg:{shop.tenant}}}c:tokens"
        client.pexpire(key, 20_000)
        await store.reserve(shop.ask(tokens(1, 100)))
        await store.settle("first", shop.tenant, spent(5, 1), NOW_S)
        assert 0 < client.pttl(key) <= 20_000
        assert client.get(key) == "6"


async def test_a_bucket_lives_until_it_has_drained_and_a_minute_more(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    key = f"{{hg:{shop.tenant}}}b:smooth"
    with contextlib.closing(server.client()) as client:
        await store.reserve(shop.ask(smooth(100, 200, per_s=2), id="it"))
        assert 90_000 < client.pttl(key) <= 110_000
        await store.reserve(shop.ask(smooth(100, 200, per_s=2), now_s=NOW_S + 10))
        assert 130_000 < client.pttl(key) <= 150_000
        await store.reserve(shop.ask(smooth(20, 200, per_s=2), now_s=NOW_S))  # a clock behind
        assert 150_000 < client.pttl(key) <= 170_000
        await store.settle("it", shop.tenant, spent(0, 0), NOW_S + 10)
        assert 100_000 < client.pttl(key) <= 120_000


async def test_a_bucket_that_was_forgotten_is_made_anew_for_what_was_used_beyond(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    key = f"{{hg:{shop.tenant}}}b:smooth"
    for name in ("less", "more"):
        await store.reserve(shop.ask(smooth(10, 20, per_s=2), id=name))
    with contextlib.closing(server.client()) as client:
        client.delete(key)
        less = await store.settle("less", shop.tenant, spent(4, 1), NOW_S + 300)
        assert client.exists(key) == 0
        more = await store.settle("more", shop.tenant, spent(14, 1), NOW_S + 300)
        assert client.get(key) == f"4000 {round((NOW_S + 300) * 1000)}"
        assert 42_000 < client.pttl(key) <= 62_000
    assert (less.used, more.used) == ({"smooth": 0}, {"smooth": 4000})


async def test_a_shorter_lease_does_not_cut_off_a_longer_one(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    for seconds in (300, 10):
        await store.reserve(shop.ask(lease(9, lease_s=seconds)))
    with contextlib.closing(server.client()) as client:
        assert client.pttl(f"{{hg:{shop.tenant}}}l:slots") > 200_000


async def test_settling_after_the_window_makes_no_counter_that_stays(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(50, 100), lease(1), id="late"))
    with contextlib.closing(server.client()) as client:
        client.delete(f"{{hg:{shop.tenant}}}c:tokens")
        settled = await store.settle("late", shop.tenant, spent(80, 1), NOW_S)
        assert client.keys(f"{{hg:{shop.tenant}}}*") == [f"{{hg:{shop.tenant}}}r:late"]
    assert settled.outcome is SettleOutcome.SETTLED
    assert settled.used == {"slots": 0}


async def test_a_counter_that_was_made_anew_does_not_fall_below_zero(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(50, 100), id="old"))
    with contextlib.closing(server.client()) as client:
        client.delete(f"{{hg:{shop.tenant}}}c:tokens")
    await store.reserve(shop.ask(tokens(5, 100), id="new"))

    assert (await store.settle("old", shop.tenant, spent(0, 0), NOW_S)).used == {"tokens": 0}


async def test_a_command_that_fails_has_changed_nothing(
    server: RedisServer, store: RedisStore
) -> None:
    """Somebody else's value under one of our names must not leave half a reservation."""
    shop = Shop()
    with contextlib.closing(server.client()) as client:
        client.lpush(f"{{hg:{shop.tenant}}}c:taken", "not a counter")
        with pytest.raises(StoreError, match=r"redis: reserve failed: .*WRONGTYPE"):
            await store.reserve(shop.ask(tokens(1, 9), tokens(1, 9, "taken"), lease(1)))
        assert client.keys(f"{{hg:{shop.tenant}}}*") == [f"{{hg:{shop.tenant}}}c:taken"]


async def test_without_redis_a_store_starts_and_every_call_is_one_clear_line(
    tmp_path: Path,
) -> None:
    shop = Shop()
    store = RedisStore.from_url(f"unix://{tmp_path}/nobody.sock", timeout_s=PATIENT_S)
    for call in (
        store.reserve(shop.ask(*ASKED)),
        store.settle("it", shop.tenant, spent(1, 1), NOW_S),
        peek(store, shop.tenant, ["tokens"], [], NOW_S),
        store.ping(),
    ):
        with pytest.raises(StoreError, match=r"^redis: [a-z]+ failed: .+$") as raised:
            await call
        assert "\n" not in str(raised.value)
    await store.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1"])
async def test_a_refused_connection_is_a_store_error(url: str) -> None:
    store = RedisStore.from_url(url, timeout_s=PATIENT_S)
    with pytest.raises(StoreError, match="redis: reserve failed: "):
        await store.reserve(Shop().ask(*ASKED))
    await store.close()


async def test_a_redis_that_hangs_costs_one_deadline_and_is_used_again_afterwards() -> None:
    """More callers than connections, so that waiting for one counts too."""
    shop = Shop()
    with running_redis() as server:
        store = RedisStore.from_url(server.url, timeout_s=1.0)
        await store.ping()
        server.freeze()
        started_s = asyncio.get_running_loop().time()
        answers = await asyncio.gather(
            *(store.reserve(shop.ask(tokens(1, 1000))) for _ in range(200)), return_exceptions=True
        )
        took_s = asyncio.get_running_loop().time() - started_s
        assert {str(answer) for answer in answers} == {"redis: reserve had no answer within 1 s"}
        assert all(isinstance(answer, StoreError) for answer in answers)
        assert took_s < 60, "200 that waited one after the other would take 200 s"

        server.thaw()
        patient = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        assert (await patient.reserve(shop.ask(requests(1)))).decision is ReserveDecision.ADMITTED
        assert (await store.reserve(shop.ask(requests(2)))).decision is ReserveDecision.ADMITTED
        await store.close()
        await patient.close()


async def test_a_restarted_redis_is_used_again_without_an_error() -> None:
    shop = Shop()
    with running_redis() as server:
        store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
        await asyncio.gather(*(store.reserve(shop.ask(requests(100))) for _ in range(20)))
        server.stop()
        with pytest.raises(StoreError):
            await store.reserve(shop.ask(requests(100)))
        server.start()

        answers = await asyncio.gather(*(store.reserve(shop.ask(requests(100))) for _ in range(20)))

        assert sorted(answer.used["requests"] for answer in answers) == [*range(1, 21)]
        await store.close()


async def test_a_cancelled_call_does_not_give_its_answer_to_the_next(store: RedisStore) -> None:
    shop = Shop()
    tasks = [asyncio.ensure_future(store.reserve(shop.ask(requests(1000)))) for _ in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    answers = await asyncio.gather(
        *(peek(store, shop.tenant, [], ["slots"], NOW_S) for _ in range(40))
    )

    assert answers == [(0,)] * 40


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memcached://127.0.0.1",
        "127.0.0.1:6379",
        "redis://127.0.0.1:port",
        "http+cluster://:secret@127.0.0.1:1",
        "redis+cluster://",
        "memory+cluster://x",
    ],
)
def test_a_wrong_url_says_what_is_allowed_and_no_password(url: str) -> None:
    with pytest.raises(OperatorError, match=r"must be `memory`, redis://") as raised:
        RedisStore.from_url(url)
    assert "secret" not in str(raised.value)


async def test_a_count_is_one_round_trip_and_keeps_the_life_of_its_counters(
    server: RedisServer, store: RedisStore
) -> None:
    shop = Shop()
    end_s = int(NOW_S) + 600
    hits = [Hit("a", 2, 10, end_s), Hit("b", 1, None, end_s), Hit("look", 0, 10, end_s)]
    await store.count(shop.tenant, hits, NOW_S)
    with contextlib.closing(server.client()) as client:
        client.pexpire(f"{{hg:{shop.tenant}}}c:a", 20_000)
        before = calls(server)
        await store.count(shop.tenant, hits, NOW_S)
        after = calls(server)
        lives_ms = {key[-1]: client.pttl(key) for key in client.keys(f"{{hg:{shop.tenant}}}*")}

    assert after["evalsha"] - before["evalsha"] == 1
    assert set(lives_ms) == {"a", "b"}
    assert 0 < lives_ms["a"] <= 20_000
    assert 500_000 < lives_ms["b"] <= 600_000


async def test_an_older_replica_settles_the_tokens_of_audio_without_its_seconds(
    server: RedisServer, store: RedisStore
) -> None:
    """It knows four kinds of use. A fifth weight in digits would multiply its clock."""
    shop = Shop()
    weights = Weights(request=1000, input=2000, second=5_000_000)
    priced = replace(tokens(900, 10_000), weights=weights)
    await store.reserve(shop.ask(priced, id="audio"))

    assert settle_as_0_1_0(server, shop, "audio", [1, 30, 0, 0]) == 1
    assert await peek(store, shop.tenant, ["tokens"], [], NOW_S) == (61,)
