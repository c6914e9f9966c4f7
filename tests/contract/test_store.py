"""The rules of every store. Each test runs on memory, on Redis and on a Redis Cluster."""

import asyncio
import math
from fractions import Fraction
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from ratelimit.store.protocol import (
    MAX_COUNT,
    REQUESTS,
    TOKENS,
    Demand,
    Lease,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Spent,
    Store,
    Weights,
)
from tests.ratelimit.builders import (
    NOW_S,
    Shop,
    admitted,
    lease,
    peek,
    refused,
    requests,
    spent,
    tokens,
)

Asked = TypeVar("Asked", Demand, Lease)
ADMITTED, REFUSED, REPLAYED = (
    ReserveDecision.ADMITTED,
    ReserveDecision.REFUSED,
    ReserveDecision.REPLAYED,
)


async def test_a_limit_grants_up_to_exactly_its_number(store: Store) -> None:
    shop = Shop()

    answers = [await store.reserve(shop.ask(tokens(50, 100))) for _ in range(3)]

    assert answers == [
        admitted(tokens=50),
        admitted(tokens=100),
        refused("tokens", tokens=100),
    ]


async def test_more_than_the_limit_in_one_request_is_refused(store: Store) -> None:
    assert await store.reserve(Shop().ask(tokens(101, 100))) == refused("tokens", tokens=0)


async def test_one_limit_without_room_leaves_all_the_others_as_they_were(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(90, 100, "narrow"), id="first"))

    answer = await store.reserve(
        shop.ask(tokens(20, 1000, "wide"), tokens(20, 100, "narrow"), requests(5), lease(5))
    )

    assert answer == refused("narrow", wide=0, narrow=90, requests=0, slots=0)
    assert await peek(store, shop.tenant, ["wide", "narrow", "requests"], ["slots"], NOW_S) == (
        0,
        90,
        0,
        0,
    )


async def test_a_refusal_names_every_limit_without_room(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(requests(1), lease(1)))

    answer = await store.reserve(shop.ask(tokens(5, 10), requests(1), lease(1)))

    assert answer == refused("requests", "slots", tokens=0, requests=1, slots=1)


async def test_a_repeated_reserve_is_admitted_again_and_charged_once(store: Store) -> None:
    shop = Shop()
    asked = shop.ask(tokens(60, 100), requests(1), lease(1), id="again")

    assert [await store.reserve(asked) for _ in range(3)] == [
        admitted(tokens=60, requests=1, slots=1)
    ] * 3


async def test_a_settled_id_is_never_granted_again(store: Store) -> None:
    shop = Shop()
    asked = shop.ask(tokens(60, 100), id="replayed")
    await store.reserve(asked)
    await store.settle("replayed", shop.tenant, spent(10, 1), NOW_S)

    assert await store.reserve(asked) == Reserved(decision=REPLAYED)
    assert await peek(store, shop.tenant, ["tokens"], [], NOW_S) == (10,)


async def test_a_refused_id_may_ask_again(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(requests(1), id="first"))
    assert (await store.reserve(shop.ask(requests(1), id="second"))).decision is REFUSED
    await store.settle("first", shop.tenant, spent(0, 0), NOW_S)

    assert (await store.reserve(shop.ask(requests(1), id="second"))).decision is ADMITTED


async def test_settling_puts_the_actual_numbers_in_place_of_the_held(store: Store) -> None:
    shop = Shop()
    await store.reserve(
        shop.ask(tokens(60, 100, "day"), tokens(10, 10, "minute"), requests(9), lease(3), id="it")
    )

    settled = await store.settle("it", shop.tenant, spent(25, 1), NOW_S)

    assert settled == Settled(
        SettleOutcome.SETTLED, {"day": 25, "minute": 25, "requests": 1, "slots": 0}
    )


async def test_more_than_was_held_is_recorded_above_the_limit_too(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100), id="long"))

    await store.settle("long", shop.tenant, spent(250, 1), NOW_S)

    assert await store.reserve(shop.ask(tokens(1, 100))) == refused("tokens", tokens=250)


async def test_a_refund_gives_everything_back(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100), requests(1), lease(1), id="failed"))

    settled = await store.settle("failed", shop.tenant, spent(0, 0), NOW_S)

    assert settled.used == {"tokens": 0, "requests": 0, "slots": 0}


async def test_the_first_settlement_wins(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100), requests(5), id="twice"))
    await store.settle("twice", shop.tenant, spent(25, 1), NOW_S)

    again = await store.settle("twice", shop.tenant, spent(99, 0), NOW_S)

    assert again == Settled(SettleOutcome.DUPLICATE, {})
    assert await peek(store, shop.tenant, ["tokens", "requests"], [], NOW_S) == (25, 1)


async def test_an_unknown_or_refused_id_settles_nothing(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100), id="held"))
    await store.reserve(shop.ask(tokens(60, 100), id="refused"))

    for unknown in ("refused", "never heard of", "", "HELD", "held "):
        assert await store.settle(unknown, shop.tenant, spent(5, 1), NOW_S) == Settled(
            SettleOutcome.UNKNOWN, {}
        )
    assert await peek(store, shop.tenant, ["tokens"], [], NOW_S) == (60,)


async def test_what_is_never_settled_stands_as_estimated(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100), id="lost", hold_s=30))

    late = await store.settle("lost", shop.tenant, spent(5, 1), NOW_S + 30)

    assert late.outcome is SettleOutcome.UNKNOWN
    assert await peek(store, shop.tenant, ["tokens"], [], NOW_S + 30) == (60,)


async def test_it_can_be_settled_until_the_hold_ends(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100), id="slow", hold_s=30))

    assert (await store.settle("slow", shop.tenant, spent(5, 1), NOW_S + 29.9)).used == {
        "tokens": 5
    }


async def test_the_settlement_reaches_the_window_that_held_it(store: Store) -> None:
    """However long the answer took and whatever the limits are called by now."""
    shop = Shop()
    await store.reserve(shop.ask(tokens(60, 100, "10:00"), id="over the border"))
    await store.reserve(shop.ask(tokens(7, 100, "10:01")))

    await store.settle("over the border", shop.tenant, spent(20, 1), NOW_S)

    assert await peek(store, shop.tenant, ["10:00", "10:01"], [], NOW_S) == (20, 7)


async def test_slots_are_counted_and_freed_by_settling(store: Store) -> None:
    shop = Shop()
    for name in ("a", "b"):
        await store.reserve(shop.ask(lease(2), id=name))
    assert await store.reserve(shop.ask(lease(2))) == refused("slots", slots=2)

    await store.settle("a", shop.tenant, spent(0, 1), NOW_S)

    assert await store.reserve(shop.ask(lease(2))) == admitted(slots=2)


async def test_a_slot_ends_by_itself(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(lease(1, lease_s=30), id="crashed"))

    assert (await store.reserve(shop.ask(lease(1), now_s=NOW_S + 29.9))).decision is REFUSED
    assert (await store.reserve(shop.ask(lease(1), now_s=NOW_S + 30))).decision is ADMITTED


async def test_settling_after_the_slot_has_ended_frees_nobody_elses(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(lease(1, lease_s=30), id="slow"))
    await store.reserve(shop.ask(lease(1, lease_s=30), id="next", now_s=NOW_S + 30))

    settled = await store.settle("slow", shop.tenant, spent(0, 1), NOW_S + 31)

    assert settled == Settled(SettleOutcome.SETTLED, {"slots": 1})


async def test_a_shorter_lease_ends_before_a_longer_one_that_came_first(store: Store) -> None:
    """A change of the policy may shorten leases, and lengthen them again."""
    shop = Shop()
    for seconds in (300, 10, 200):
        await store.reserve(shop.ask(lease(9, lease_s=seconds)))

    in_use = [await peek(store, shop.tenant, [], ["slots"], NOW_S + t) for t in (9, 10, 200, 300)]

    assert in_use == [(3,), (2,), (1,), (0,)]


async def test_tenants_share_nothing(store: Store) -> None:
    shop, other = Shop(), Shop()
    await store.reserve(shop.ask(tokens(60, 100), lease(1), id="same"))

    assert await store.reserve(other.ask(tokens(70, 100), lease(1), id="same")) == admitted(
        tokens=70, slots=1
    )
    await store.settle("same", shop.tenant, spent(0, 0), NOW_S)
    assert await peek(store, other.tenant, ["tokens"], ["slots"], NOW_S) == (70, 1)


async def test_a_counter_and_a_slot_may_have_one_name(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(5, 10, "x"), id="x"))
    await store.reserve(shop.ask(lease(2, "x"), id="y"))
    assert await peek(store, shop.tenant, ["x"], [], NOW_S) == (5,)
    assert await peek(store, shop.tenant, [], ["x"], NOW_S) == (1,)


async def test_numbers_are_exact_up_to_two_to_the_53(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(MAX_COUNT - 2, MAX_COUNT), id="huge"))

    assert await store.reserve(shop.ask(tokens(3, MAX_COUNT))) == refused(
        "tokens", tokens=MAX_COUNT - 2
    )
    assert await store.reserve(shop.ask(tokens(1, MAX_COUNT))) == admitted(tokens=MAX_COUNT - 1)
    settled = await store.settle("huge", shop.tenant, spent(MAX_COUNT - 4, 1), NOW_S)
    assert settled.used == {"tokens": MAX_COUNT - 3}


async def test_counters_stay_within_two_to_the_53(store: Store) -> None:
    shop = Shop()
    for name in ("a", "b", "c"):
        await store.reserve(shop.ask(tokens(1, MAX_COUNT), id=name))
    for name in ("a", "b", "c"):
        await store.settle(name, shop.tenant, spent(MAX_COUNT, 1), NOW_S)
    assert await peek(store, shop.tenant, ["tokens"], [], NOW_S) == (MAX_COUNT,)


NASTY = [
    "",
    "}",
    "{",
    "{}",
    "a b",
    "a\nb",
    "a\x00b",
    "a:b",
    "a/b",
    "a%2Fb",
    "*",
    "\u00fc",
    "u\u0308",
    "\U0001f600",
    "\ud800",
    "x" * 10_000,
    "x" * 9_999 + "y",
    "state",
    "until",
]


async def test_no_two_names_are_the_same_tenant_or_reservation(store: Store) -> None:
    prefix = Shop().tenant
    shops = [Shop(prefix + name) for name in NASTY]
    for amount, shop in enumerate(shops, 1):
        await store.reserve(shop.ask(tokens(amount, 100), id="one id"))
        for name in NASTY:
            answer = await store.reserve(shop.ask(requests(100), id=f"r{name}"))
            assert answer.decision is ADMITTED
        assert (await store.settle(f"r{NASTY[-1]}", shop.tenant, spent(0, 0), NOW_S)).used

    used = [await peek(store, shop.tenant, ["tokens", "requests"], [], NOW_S) for shop in shops]

    assert used == [(amount, len(NASTY) - 1) for amount in range(1, len(NASTY) + 1)]


@pytest.mark.parametrize("name", [name for name in NASTY if name != "\ud800"])
async def test_counter_names_come_back_as_they_were_given(store: Store, name: str) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(5, 10, name), id="counted"))
    await store.reserve(shop.ask(lease(3, name), id="slot"))
    assert await peek(store, shop.tenant, [name], [], NOW_S) == (5,)
    assert await peek(store, shop.tenant, [], [name], NOW_S) == (1,)
    for id in ("counted", "slot"):
        assert set((await store.settle(id, shop.tenant, spent(2, 1), NOW_S)).used) == {name}


async def test_asking_for_nothing_is_granted_and_settled(store: Store) -> None:
    shop = Shop()
    assert await store.reserve(shop.ask(id="free")) == admitted()
    assert await store.settle("free", shop.tenant, spent(5, 1), NOW_S) == Settled(
        SettleOutcome.SETTLED, {}
    )


async def test_a_thousand_at_once_get_exactly_what_there_is(store: Store) -> None:
    shop = Shop()
    asked = [shop.ask(tokens(1000, 10_000), requests(1000), lease(1000)) for _ in range(1000)]

    answers = await asyncio.gather(*(store.reserve(reservation) for reservation in asked))

    assert sum(answer.decision is ADMITTED for answer in answers) == 10
    assert await peek(store, shop.tenant, ["tokens", "requests"], ["slots"], NOW_S) == (
        10_000,
        10,
        10,
    )


async def test_many_who_settle_one_reservation_settle_it_once(store: Store) -> None:
    shop = Shop()
    await store.reserve(shop.ask(tokens(500, 1000), id="popular"))

    answers = await asyncio.gather(
        *(store.settle("popular", shop.tenant, spent(used, 1), NOW_S) for used in range(100))
    )

    assert sorted(answer.outcome for answer in answers) == ["duplicate"] * 99 + ["settled"]


def shadow(asked: Asked) -> Asked:
    """The same, but it refuses nobody."""
    return replace(asked, enforced=False)


async def test_what_is_not_enforced_is_granted_and_counted_above_its_limit(store: Store) -> None:
    shop = Shop()
    asked = (shadow(tokens(60, 100)), shadow(requests(1)), shadow(lease(1)))

    answers = [await store.reserve(shop.ask(*asked, id=name)) for name in ("a", "b", "c")]

    assert answers == [
        admitted(tokens=60, requests=1, slots=1),
        admitted("tokens", "requests", "slots", tokens=120, requests=2, slots=2),
        admitted("tokens", "requests", "slots", tokens=180, requests=3, slots=3),
    ]
    settled = await store.settle("b", shop.tenant, spent(10, 0), NOW_S)
    assert settled.used == {"tokens": 130, "requests": 2, "slots": 2}


async def test_a_limit_in_force_refuses_beside_one_that_is_not_and_charges_neither(
    store: Store,
) -> None:
    shop = Shop()
    asked = (shadow(tokens(60, 50, "shadow")), tokens(60, 100, "day"))
    assert await store.reserve(shop.ask(*asked)) == admitted("shadow", shadow=60, day=60)

    assert await store.reserve(shop.ask(*asked)) == refused(
        "day", exceeded=("shadow",), shadow=60, day=60
    )
    assert await peek(store, shop.tenant, ["shadow", "day"], [], NOW_S) == (60, 60)


async def test_a_repeated_reserve_exceeds_nothing_a_second_time(store: Store) -> None:
    shop = Shop()
    asked = shop.ask(shadow(tokens(60, 50)), id="again")

    assert await store.reserve(asked) == admitted("tokens", tokens=60)
    assert await store.reserve(asked) == admitted(tokens=60)


async def test_what_is_not_enforced_stays_within_two_to_the_53(store: Store) -> None:
    shop = Shop()
    for _ in range(3):
        answer = await store.reserve(shop.ask(shadow(tokens(MAX_COUNT - 1, MAX_COUNT))))
        assert answer.decision is ADMITTED
    assert answer.used == {"tokens": MAX_COUNT}
    assert await peek(store, shop.tenant, ["tokens"], [], NOW_S) == (MAX_COUNT,)


async def test_ping_answers(store: Store) -> None:
    await store.ping()


def weighed_by(weights: Weights, amount: int, limit: int = MAX_COUNT, key: str = "k") -> Demand:
    return replace(tokens(amount, limit, key), weights=weights)


async def test_a_counter_takes_what_was_used_by_its_weights(store: Store) -> None:
    shop = Shop()
    weights = Weights(request=2000, input=1000, cached=100, output=4000, second=500)
    weighed = weighed_by(weights, 500, 10_000, "weighed")
    await store.reserve(shop.ask(weighed, tokens(500, 1000), requests(10), id="it"))

    settled = await store.settle("it", shop.tenant, Spent(1, 30, 21, 40, 7), NOW_S)

    # 2 + 30 + 2.1 + 160 + 3.5, rounded up
    assert settled.used == {"weighed": 198, "tokens": 91, "requests": 1}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.builds(Weights, *(st.integers(0, 10**12) for _ in range(5))),
    every=st.lists(st.builds(Spent, *(st.integers(0, 400) for _ in range(5))), max_size=5),
)
async def test_a_counter_is_the_sum_of_the_exact_amounts(
    store: Store, weights: Weights, every: list[Spent]
) -> None:
    shop = Shop()
    exact = 0
    for number, used in enumerate(every):
        await store.reserve(shop.ask(weighed_by(weights, 7), id=f"{number}"))
        await store.settle(f"{number}", shop.tenant, used, NOW_S)
        pairs = zip(astuple(weights), astuple(used), strict=True)
        exact += math.ceil(sum(Fraction(weight * count, 1000) for weight, count in pairs))

    assert await peek(store, shop.tenant, ["k"], [], NOW_S) == (exact,)


@pytest.mark.parametrize(
    ("weights", "used", "amount"),
    [
        (Weights(input=1), Spent(input=1), 1),
        (Weights(input=1, output=1), Spent(input=500, output=500), 1),
        (Weights(input=1, output=1), Spent(input=500, output=501), 2),
        (Weights(output=MAX_COUNT), Spent(output=MAX_COUNT), MAX_COUNT),
        (
            Weights(input=10**12, output=37_500),
            Spent(input=999_999, output=7),
            999_999 * 10**9 + 263,
        ),
        (TOKENS, Spent(input=MAX_COUNT // 2, cached=3, output=2), MAX_COUNT // 2 + 5),
        (REQUESTS, Spent(input=9, output=9), 0),
    ],
)
async def test_weighed_amounts_are_exact_and_end_at_the_largest_count(
    store: Store, weights: Weights, used: Spent, amount: int
) -> None:
    shop = Shop()
    await store.reserve(shop.ask(weighed_by(weights, 0), id="it"))

    assert weights.amount(used) == amount
    assert (await store.settle("it", shop.tenant, used, NOW_S)).used == {"k": amount}
