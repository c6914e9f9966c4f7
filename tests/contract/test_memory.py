"""Only the memory store can go wrong in this way: it could grow for ever."""

from msgspec.structs import replace

from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import SETTLED_KEPT_S, Demand
from tests.ratelimit.builders import NOW_S, Shop, lease, peek, smooth, spent, tokens


def size(store: MemoryStore) -> int:
    """All that the store keeps, in entries."""
    return sum(len(kept) for kept in vars(store).values())


def ending(demand: Demand, at_s: int) -> Demand:
    """The demand, of a counter that ends then."""
    return replace(demand, expires_at_s=at_s)


async def minute_of_traffic(store: MemoryStore, shop: Shop, minute: int, settle: bool) -> None:
    now_s = NOW_S + minute * 60
    for number in range(100):
        key = f"{minute}/{number}"
        demand = ending(tokens(5, 100, key), int(now_s) + 60)
        bucket = smooth(5, 100, 1, key)
        asked = shop.ask(demand, bucket, lease(100, key), id=key, now_s=now_s, hold_s=300)
        await store.reserve(asked)
        if settle:
            await store.settle(key, shop.tenant, spent(3, 1), now_s)


async def test_what_has_expired_is_forgotten_settled_or_not() -> None:
    store, shop = MemoryStore(), Shop()
    sizes = []
    for minute in range(40):
        await minute_of_traffic(store, shop, minute, settle=minute % 2 == 0)
        sizes.append(size(store))
    assert max(sizes[10:]) <= max(sizes[:10])

    for _ in range(200):
        await store.settle("nobody", shop.tenant, spent(0, 0), NOW_S + 10**6)
    assert size(store) == 0


async def test_what_is_settled_does_not_stay_for_as_long_as_it_could_have_been_held() -> None:
    store, shop = MemoryStore(), Shop()
    sizes = []
    for number in range(5_000):
        now_s, key = NOW_S + number, f"r{number}"
        demand = ending(tokens(5, 10**6, "k"), int(NOW_S) + 10_000)
        await store.reserve(shop.ask(demand, id=key, now_s=now_s, hold_s=20_000))
        await store.settle(key, shop.tenant, spent(3, 1), now_s)
        sizes.append(size(store))

    assert max(sizes) < 4 * SETTLED_KEPT_S


async def test_slots_that_come_and_go_leave_nothing_behind() -> None:
    store, shop = MemoryStore(), Shop()
    await store.reserve(shop.ask(lease(10), id="stays"))
    for number in range(5_000):
        await store.reserve(shop.ask(lease(10), id=f"r{number}"))
        await store.settle(f"r{number}", shop.tenant, spent(0, 1), NOW_S)
    slots = next(iter(store._leases.values()))
    assert len(slots._queue) < 64
    assert slots.active(NOW_S) == 1


async def test_settling_after_the_window_makes_no_counter_that_stays() -> None:
    store, shop = MemoryStore(), Shop()
    await store.reserve(shop.ask(ending(tokens(50, 100, "k"), int(NOW_S) + 60), id="late"))

    settled = await store.settle("late", shop.tenant, spent(80, 1), NOW_S + 60)

    assert settled.used == {}
    assert await peek(store, shop.tenant, ["k"], [], NOW_S + 60) == (0,)


async def test_a_counter_that_was_made_anew_does_not_fall_below_zero() -> None:
    store, shop = MemoryStore(), Shop()
    await store.reserve(shop.ask(ending(tokens(50, 100, "k"), int(NOW_S) + 1), id="old"))
    later_s = NOW_S + 2
    await store.reserve(
        shop.ask(ending(tokens(5, 100, "k"), int(NOW_S) + 60), id="new", now_s=later_s)
    )

    assert (await store.settle("old", shop.tenant, spent(0, 0), later_s)).used == {"k": 0}


async def test_a_bucket_is_forgotten_a_minute_after_it_has_drained_however_often_filled() -> None:
    store, shop = MemoryStore(), Shop()
    for second in range(500):
        await store.reserve(shop.ask(smooth(2, 100, 2), now_s=NOW_S + second, hold_s=1))
    assert len(store._buckets) == 2

    async def look(after_s: float) -> int:
        await store.settle("nobody", shop.tenant, spent(0, 0), NOW_S + after_s)
        return len(store._buckets)

    assert [await look(559), await look(560)] == [2, 0]


async def test_overuse_that_is_settled_late_makes_a_bucket_that_does_not_stay() -> None:
    store, shop = MemoryStore(), Shop()
    await store.reserve(shop.ask(smooth(10, 20, 2), id="late"))
    settled = await store.settle("late", shop.tenant, spent(14, 1), NOW_S + 300)

    assert settled.used == {"smooth": 4000}
    await store.settle("nobody", shop.tenant, spent(0, 0), NOW_S + 362)
    assert len(store._buckets) == 0
