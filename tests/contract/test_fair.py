"""The starts of requests in a queue: every store counts a tenant's work the same."""

import pytest
from msgspec.structs import replace

from ratelimit.fair.tags import FairDemand, FairStart, Rates
from ratelimit.store.protocol import Reservation, Spent, Store
from ratelimit.store.redis import RedisStore
from tests.contract.older import settle_as_0_1_0
from tests.ratelimit.builders import NOW_S, Shop, requests, tokens
from tests.redis_server import PATIENT_S, RedisServer

QUEUE = "org/llama 8b:{x}"
RATES = Rates.of_weight(2)


def fair(work: int, virtual_time: int = 0) -> FairDemand:
    return FairDemand(queue=QUEUE, work=work, rates=RATES, virtual_time=virtual_time)


def ask(shop: Shop, work: int, virtual_time: int = 0, id: str = "") -> Reservation:
    return replace(shop.ask(tokens(1, 10_000), id=id), fair=fair(work, virtual_time))


async def start(store: Store, reservation: Reservation) -> int | None:
    return (await store.reserve(reservation)).start


async def test_each_request_starts_where_the_last_one_finishes(store: Store) -> None:
    shop = Shop()

    assert [await start(store, ask(shop, 100)) for _ in range(3)] == [0, 100, 200]


async def test_nothing_starts_before_the_virtual_time(store: Store) -> None:
    shop = Shop()

    assert [await start(store, ask(shop, 100, at)) for at in (1000, 1050, 5000)] == [
        1000,
        1100,
        5000,
    ]


async def test_the_settlement_corrects_the_finish_and_tells_the_start(store: Store) -> None:
    shop = Shop()
    await store.reserve(ask(shop, 100, 40, "first"))

    spent = Spent(1, input=3, cached=1000, output=2)
    settled = await store.settle("first", shop.tenant, spent, NOW_S)

    assert settled.start == FairStart(QUEUE, 40)
    assert await start(store, ask(shop, 1)) == 40 + RATES.work(3, 2)


async def test_a_refund_takes_the_work_back(store: Store) -> None:
    shop = Shop()
    await store.reserve(ask(shop, 100, id="first"))

    await store.settle("first", shop.tenant, Spent(), NOW_S)

    assert await start(store, ask(shop, 1)) == 0


async def test_a_repeated_call_has_the_same_start(store: Store) -> None:
    shop = Shop()
    once = ask(shop, 100, 7, "once")

    assert [await start(store, once), await start(store, once)] == [7, 7]
    assert await start(store, ask(shop, 1)) == 107


async def test_a_refused_request_moves_nothing(store: Store) -> None:
    shop = Shop()

    refused = replace(shop.ask(requests(0)), fair=fair(100))

    assert await start(store, refused) is None
    assert await start(store, ask(shop, 1)) == 0


async def test_two_tenants_have_finishes_of_their_own(store: Store) -> None:
    await store.reserve(ask(Shop(), 100))

    assert await start(store, ask(Shop(), 1)) == 0


@pytest.mark.parametrize("store", ["memory", "redis", "redis_cluster", "resilient"], indirect=True)
async def test_a_request_without_limits_has_a_start_too(store: Store) -> None:
    shop = Shop()
    bare = replace(shop.ask(id="bare"), fair=fair(100))

    assert await start(store, bare) == 0
    assert (await store.settle("bare", shop.tenant, Spent(1), NOW_S)).start == FairStart(QUEUE, 0)


async def test_an_older_replica_settles_the_finish_as_one_of_its_counters(
    redis_server: RedisServer,
) -> None:
    """It knows nothing of starts; its script is the one of the release 0.1.0."""
    shop, store = Shop(), RedisStore.from_url(redis_server.url, timeout_s=PATIENT_S)
    await store.reserve(ask(shop, 100, 40, "first"))

    assert settle_as_0_1_0(redis_server, shop, "first", [1, 3, 1000, 2]) == 1
    assert await start(store, ask(shop, 1)) == 40 + RATES.work(3, 2)
    await store.close()
