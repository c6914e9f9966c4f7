"""Every store: counters that drain. Amounts are in drops: a thousand for a token."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ratelimit.store.protocol import (
    MAX_COUNT,
    TOKENS,
    Demand,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Store,
)
from tests.ratelimit.builders import (
    EXPIRES_AT_S,
    NOW_S,
    Shop,
    admitted,
    lease,
    peek,
    refused,
    smooth,
    spent,
    tokens,
)

ADMITTED, REFUSED, REPLAYED = (
    ReserveDecision.ADMITTED,
    ReserveDecision.REFUSED,
    ReserveDecision.REPLAYED,
)


async def level(store: Store, shop: Shop, after_s: float, per_s: int) -> int:
    """The level of the bucket, in drops."""
    [used] = await peek(
        store, shop.tenant, ["smooth"], [], NOW_S + after_s, drains={"smooth": per_s}
    )
    return used


async def ask(
    store: Store, shop: Shop, demand: Demand, after_s: float = 0.0, id: str = ""
) -> Reserved:
    return await store.reserve(shop.ask(demand, id=id, now_s=NOW_S + after_s))


async def test_a_burst_is_granted_at_once_and_then_what_refills(store: Store) -> None:
    shop, demand = Shop(), smooth(1, 3, per_s=2)

    assert [await ask(store, shop, demand) for _ in range(3)] == [
        admitted(smooth=drops) for drops in (1000, 2000, 3000)
    ]
    assert await ask(store, shop, demand) == refused("smooth", smooth=3000)
    assert await ask(store, shop, demand, 0.499) == refused("smooth", smooth=2002)
    assert await ask(store, shop, demand, 0.5) == admitted(smooth=3000)
    assert await ask(store, shop, demand, 0.5) == refused("smooth", smooth=3000)


async def test_it_refills_to_its_burst_and_no_further(store: Store) -> None:
    shop, demand = Shop(), smooth(1, 3, per_s=2)
    await ask(store, shop, demand)

    answers = [await ask(store, shop, demand, 3600) for _ in range(4)]

    assert [answer.decision for answer in answers] == [ADMITTED] * 3 + [REFUSED]


async def test_more_than_the_burst_in_one_request_is_refused(store: Store) -> None:
    assert (await ask(store, Shop(), smooth(4, 3, per_s=2))).decision is REFUSED


async def test_one_without_room_leaves_windows_slots_and_buckets_as_they_were(
    store: Store,
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(smooth(3, 3, 1, "full"), tokens(9, 10, "window")))

    for asked, key in [
        ((smooth(1, 9, 1), smooth(1, 3, 1, "full"), tokens(1, 10, "window"), lease(5)), "full"),
        ((smooth(1, 9, 1), tokens(2, 10, "window"), lease(5)), "window"),
    ]:
        assert (await store.reserve(shop.ask(*asked))).refused == (key,)
    assert await peek(
        store,
        shop.tenant,
        ["smooth", "full", "window"],
        ["slots"],
        NOW_S,
        drains={"smooth": 1, "full": 1},
    ) == (0, 3000, 9, 0)


async def test_a_repeated_reserve_is_charged_once_and_a_settled_one_never_again(
    store: Store,
) -> None:
    shop, demand = Shop(), smooth(2, 3, per_s=1)
    assert [await ask(store, shop, demand, id="it") for _ in range(2)] == [
        admitted(smooth=2000)
    ] * 2
    assert await ask(store, shop, demand, 1.0, id="it") == admitted(smooth=1000)

    settled = [await store.settle("it", shop.tenant, spent(1, 1), NOW_S) for _ in range(2)]

    assert settled == [
        Settled(SettleOutcome.SETTLED, {"smooth": 1000}),
        Settled(SettleOutcome.DUPLICATE, {}),
    ]
    assert await ask(store, shop, demand, id="it") == Reserved(decision=REPLAYED)


async def test_what_was_not_used_is_given_back_at_once(store: Store) -> None:
    shop = Shop()
    await ask(store, shop, smooth(10, 20, per_s=2), id="it")

    settled = await store.settle("it", shop.tenant, spent(4, 1), NOW_S)

    assert settled.used == {"smooth": 4000}


@pytest.mark.parametrize(
    ("after_s", "used", "remains"),
    [
        # Held are 10 beside 10 others; 2 drain in each second.
        (0.0, 0, 10_000),
        (2.0, 0, 10_000),  # 20 - 4 are left, of which 6 cannot have drained
        (2.0, 3, 10_000),  # of the 3, nothing would be left
        (2.0, 7, 13_000),  # of the 7, 3 would be left
        (2.0, 10, 16_000),
        (2.0, 12, 18_000),  # 2 more than held
        (5.0, 0, 10_000),  # all that was held may have drained
        (9.0, 0, 2_000),
        (60.0, 0, 0),
        (60.0, 12, 2_000),
    ],
)
async def test_given_back_is_only_what_cannot_have_drained(
    store: Store, after_s: float, used: int, remains: int
) -> None:
    shop = Shop()
    await ask(store, shop, smooth(10, 20, per_s=2), id="it")
    await ask(store, shop, smooth(10, 20, per_s=2))

    settled = await store.settle("it", shop.tenant, spent(used, 1), NOW_S + after_s)

    assert settled.used == {"smooth": remains}
    assert await level(store, shop, after_s, 2) == remains


async def test_what_is_used_beyond_the_burst_has_to_drain_first(store: Store) -> None:
    shop, demand = Shop(), smooth(1, 10, per_s=2)
    await ask(store, shop, smooth(10, 10, per_s=2), id="long")

    await store.settle("long", shop.tenant, spent(30, 1), NOW_S + 1)

    assert await level(store, shop, 1, 2) == 28_000
    assert (await ask(store, shop, demand, 10.499)).decision is REFUSED
    assert (await ask(store, shop, demand, 10.5)).decision is ADMITTED


async def test_a_clock_that_steps_back_neither_drains_nor_fills(store: Store) -> None:
    shop, demand = Shop(), smooth(1, 10, per_s=2)
    await ask(store, shop, smooth(10, 10, per_s=2), 10.0, id="it")

    assert await level(store, shop, 0.0, 2) == 10_000
    assert await ask(store, shop, demand, 3.0) == refused("smooth", smooth=10_000)
    settled = await store.settle("it", shop.tenant, spent(8, 1), NOW_S + 5)
    assert settled.used == {"smooth": 8000}
    assert await ask(store, shop, demand, 5.0) == admitted(smooth=9000)

    # Right again, it has drained since it was at 10 s, and not since it was at 5 s.
    assert await ask(store, shop, demand, 11.0) == admitted(smooth=8000)


async def test_what_other_clocks_have_drained_is_not_given_back(store: Store) -> None:
    shop = Shop()
    await ask(store, shop, smooth(10, 20, per_s=2), id="it")
    await ask(store, shop, smooth(10, 20, per_s=2), 4.0)  # a clock that is ahead

    settled = await store.settle("it", shop.tenant, spent(0, 0), NOW_S + 1)

    assert settled.used == {"smooth": 10_000}


async def test_what_is_not_enforced_is_counted_above_the_burst(store: Store) -> None:
    shop, demand = Shop(), replace(smooth(2, 3, per_s=1), enforced=False)

    answers = [await ask(store, shop, demand) for _ in range(2)]

    assert answers == [admitted(smooth=2000), admitted("smooth", smooth=4000)]
    assert await level(store, shop, 3.5, 1) == 500


async def test_numbers_are_exact_up_to_two_to_the_53_and_stay_below(store: Store) -> None:
    """A thousand million an hour, counted in milliseconds of the hour."""
    shop, unit, number = Shop(), 3_600_000, 10**9
    most = Demand(
        weights=TOKENS.times(unit),
        key="smooth",
        amount=number * unit - 1,
        limit=number * unit,
        expires_at_s=EXPIRES_AT_S,
        drain=number,
    )
    await ask(store, shop, most, id="most")

    assert (await ask(store, shop, replace(most, amount=2))).decision is REFUSED
    full = await ask(store, shop, replace(most, amount=1))
    assert full == admitted(smooth=number * unit)
    assert await level(store, shop, 3599.999, number) == number
    await store.settle("most", shop.tenant, spent(MAX_COUNT, 1), NOW_S)
    assert await level(store, shop, 0, number) == MAX_COUNT
    assert await level(store, shop, 10**7, number) == 0


async def test_a_bucket_and_a_counter_may_have_one_name(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(5, 10, "smooth")))
    await store.reserve(shop.ask(smooth(3, 10, 1)))
    assert await peek(store, shop.tenant, ["smooth"], [], NOW_S) == (5,)
    assert await level(store, shop, 0, 1) == 3000


async def test_a_thousand_at_once_get_exactly_the_burst(store: Store) -> None:
    shop = Shop()
    asked = [
        shop.ask(smooth(1, 10, per_s=2), smooth(1, 1000, per_s=1, key="wide")) for _ in range(1000)
    ]

    answers = await asyncio.gather(*(store.reserve(reservation) for reservation in asked))

    assert sum(answer.decision is ADMITTED for answer in answers) == 10
    used = await peek(
        store, shop.tenant, ["smooth", "wide"], [], NOW_S, drains={"smooth": 2, "wide": 1}
    )
    assert used == (10_000, 10_000)


BURST, RATE = 50, 3
"""In tokens, and tokens a second."""

asks = st.tuples(st.just("ask"), st.integers(1, BURST))
settlements = st.tuples(st.just("settle"), st.integers(0, 60))
waits = st.tuples(st.just("wait"), st.integers(1, 20_000))


@dataclass
class Hindsight:
    """Every request that was let in, with what is known of it by now: the true bucket."""

    now_ms: int = 0
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    """When, and how much was held."""
    known: dict[str, int] = field(default_factory=dict)
    """What each took, as far as it is known."""

    def level(self) -> int:
        """The level of the bucket if each had taken from the start what it took in the end."""
        level, at_ms = 0, 0
        for name, (then_ms, _) in self.held.items():
            level = max(0, level - RATE * (then_ms - at_ms)) + self.known[name] * 1000
            at_ms = then_ms
        return max(0, level - RATE * (self.now_ms - at_ms))

    def assert_no_span_has_more_than_burst_and_rate(self) -> None:
        taken = [(at_ms, self.known[name]) for name, (at_ms, _) in self.held.items()]
        for first, (from_ms, _) in enumerate(taken):
            total = 0
            for at_ms, amount in taken[first:]:
                total += amount * 1000
                assert total <= BURST * 1000 + RATE * (at_ms - from_ms)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.one_of(asks, settlements, waits), max_size=30), st.booleans())
async def test_never_less_is_in_it_than_in_the_true_bucket(
    store: Store, steps: list[tuple[str, int]], overuses: bool
) -> None:
    shop, true = Shop(), Hindsight()
    open_names: list[str] = []
    for number, (action, amount) in enumerate(steps):
        now_s = NOW_S + true.now_ms / 1000
        if action == "wait":
            true.now_ms += amount
        elif action == "ask":
            before = await level(store, shop, true.now_ms / 1000, RATE)
            name = f"r{number}"
            answer = await store.reserve(
                shop.ask(smooth(amount, BURST, RATE), id=name, now_s=now_s)
            )
            fits = before + amount * 1000 <= BURST * 1000
            assert answer.decision is (ADMITTED if fits else REFUSED)
            if fits:
                open_names.append(name)
                true.held[name], true.known[name] = (true.now_ms, amount), amount
        elif open_names:
            name = open_names.pop(amount % len(open_names))
            _, held = true.held[name]
            true.known[name] = amount if overuses else min(amount, held)
            await store.settle(name, shop.tenant, spent(true.known[name], 1), now_s)

        drops = await level(store, shop, true.now_ms / 1000, RATE)
        assert drops >= true.level()
        if true.known == {name: held for name, (_, held) in true.held.items()}:
            assert drops == true.level()
    if not overuses:
        true.assert_no_span_has_more_than_burst_and_rate()
