"""Every store: hits, which have no settlement."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import MAX_COUNT, Store
from tests.ratelimit.builders import EXPIRES_AT_S, NOW_S, Shop, peek, tokens


def hit(amount: int, limit: int | None, key: str = "k") -> Hit:
    return Hit(key, amount, limit, EXPIRES_AT_S)


def quota(amount: int, limit: int, key: str = "k") -> Hit:
    return Hit(key, amount, limit, EXPIRES_AT_S, quota=True)


async def count(store: Store, shop: Shop, *hits: Hit) -> CountedHits:
    return await store.count(shop.tenant, hits, NOW_S)


async def test_hits_are_counted_up_to_exactly_the_limit(store: Store) -> None:
    shop = Shop()
    answers = [await count(store, shop, hit(2, 4)) for _ in range(3)]
    assert answers == [CountedHits((2,)), CountedHits((4,)), CountedHits((4,), (0,))]


async def test_one_without_room_leaves_all_the_others_as_they_were(store: Store) -> None:
    shop = Shop()
    await count(store, shop, hit(5, 5, "full"), hit(3, None, "refunded"))

    refused = await count(
        store, shop, hit(1, 9, "wide"), hit(1, 5, "full"), hit(-2, None, "refunded")
    )

    assert refused == CountedHits((0, 5, 3), (1,))
    assert await peek(store, shop.tenant, ["wide", "full", "refunded"], [], NOW_S) == (0, 5, 3)


async def test_a_look_changes_nothing_and_is_refused_at_the_limit(store: Store) -> None:
    shop = Shop()
    assert await count(store, shop, hit(0, 1)) == CountedHits((0,))
    await count(store, shop, hit(1, 1))
    assert await count(store, shop, hit(0, 1)) == CountedHits((1,), (0,))
    assert await count(store, shop, hit(0, 0, "closed")) == CountedHits((0,), (0,))


async def test_what_is_given_back_can_be_had_again_and_never_falls_below_zero(
    store: Store,
) -> None:
    shop = Shop()
    await count(store, shop, hit(3, 3))
    assert await count(store, shop, hit(-2, 3)) == CountedHits((1,))
    assert await count(store, shop, hit(-9, 3)) == CountedHits((0,))
    assert await count(store, shop, hit(-9, 3, "never seen")) == CountedHits((0,))
    assert await count(store, shop, hit(3, 3)) == CountedHits((3,))


async def test_without_a_limit_nothing_is_refused(store: Store) -> None:
    shop = Shop()
    answers = [await count(store, shop, hit(MAX_COUNT - 1, None)) for _ in range(2)]
    assert answers == [CountedHits((MAX_COUNT - 1,)), CountedHits((MAX_COUNT,))]
    assert await count(store, shop, hit(-1, None)) == CountedHits((MAX_COUNT - 1,))


async def test_a_counter_may_be_there_twice_in_one_call(store: Store) -> None:
    shop = Shop()
    assert await count(store, shop, hit(1, 3), hit(1, 3)) == CountedHits((1, 2))
    assert await count(store, shop, hit(1, 3), hit(1, 3)) == CountedHits((2, 2), (1,))
    assert await peek(store, shop.tenant, ["k"], [], NOW_S) == (2,)


async def test_a_full_quota_counts_on_and_refuses_nothing_beside_one_with_room(
    store: Store,
) -> None:
    shop = Shop()
    both = (quota(1, 1, "small"), quota(1, 2, "large"), hit(1, 9, "limit"))
    answers = [await count(store, shop, *both) for _ in range(2)]
    assert answers == [CountedHits((1, 1, 1)), CountedHits((2, 2, 2))]


async def test_a_call_whose_quotas_are_all_full_is_charged_to_these_alone(store: Store) -> None:
    shop = Shop()
    both = (hit(1, 9, "limit"), quota(2, 1, "small"), quota(2, 1, "large"))
    assert await count(store, shop, *both) == CountedHits((0, 0, 0), (1, 2))
    assert await count(store, shop, *both) == CountedHits((0, 2, 2), (1, 2))
    assert await peek(store, shop.tenant, ["limit", "small", "large"], [], NOW_S) == (0, 4, 4)


async def test_a_limit_without_room_leaves_quotas_as_they_were(store: Store) -> None:
    shop = Shop()
    answer = await count(store, shop, quota(2, 1, "quota"), hit(1, 0, "closed"))
    assert answer == CountedHits((0, 0), (1,))
    assert await peek(store, shop.tenant, ["quota"], [], NOW_S) == (0,)


async def test_hits_and_reservations_are_counted_together(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(5, 10, "k")))
    assert await count(store, shop, hit(5, 10)) == CountedHits((10,))


async def test_no_hits_are_no_refusal(store: Store) -> None:
    assert await count(store, Shop()) == CountedHits(())


async def test_a_thousand_at_once_get_exactly_what_there_is(store: Store) -> None:
    shop = Shop()
    calls = (count(store, shop, hit(10, 100), hit(1, 1000, "other")) for _ in range(1000))

    answers = await asyncio.gather(*calls)

    assert sum(not answer.refused for answer in answers) == 10
    assert await peek(store, shop.tenant, ["k", "other"], [], NOW_S) == (100, 10)


hits = st.builds(
    Hit,
    st.sampled_from(["a", "b", "c"]),
    st.integers(-6, 6),
    st.one_of(st.none(), st.integers(0, 12)),
    st.just(EXPIRES_AT_S),
    st.booleans(),
)


@dataclass
class Model:
    """The rules, written down as plainly as possible."""

    counts: dict[str, int]

    def count(self, hits: list[Hit]) -> CountedHits:
        before = tuple(self.counts.get(hit.key, 0) for hit in hits)
        after, used, full = self.added(hits)
        limits = [index for index in full if not hits[index].quota]
        quotas = [index for index, hit in enumerate(hits) if hit.quota]
        if limits:
            return CountedHits(before, tuple(limits))
        if quotas and full == quotas:
            self.counts = self.added([hits[index] for index in quotas])[0]
            return CountedHits(before, tuple(full))
        self.counts = after
        return CountedHits(tuple(used))

    def added(self, hits: list[Hit]) -> tuple[dict[str, int], list[int], list[int]]:
        after, used, full = dict(self.counts), [], []
        for index, hit in enumerate(hits):
            now = after.get(hit.key, 0)
            asked = max(1, hit.amount)
            has_room = hit.amount < 0 or hit.limit is None or now + asked <= hit.limit
            if not has_room:
                full.append(index)
            if has_room or hit.quota:
                after[hit.key] = max(0, now + hit.amount)
            used.append(after.get(hit.key, 0))
        return after, used, full


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(hits, max_size=5), max_size=12))
async def test_any_sequence_does_what_the_rules_say(store: Store, calls: list[list[Hit]]) -> None:
    shop, model = Shop(), Model({})
    for call in calls:
        assert await count(store, shop, *call) == model.count(call)


@pytest.mark.parametrize("amounts", [(1, 0), (0,), (-5,)])
async def test_what_is_over_is_forgotten(amounts: tuple[int, ...]) -> None:
    store, shop = MemoryStore(), Shop()
    for amount in amounts:
        await count(store, shop, hit(amount, 9))
    await store.count(shop.tenant, [], EXPIRES_AT_S + 1)
    assert await peek(store, shop.tenant, ["k"], [], EXPIRES_AT_S + 1) == (0,)
    assert not store._counters
    assert not store._expiring_counters
