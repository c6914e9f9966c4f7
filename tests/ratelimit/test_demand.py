"""The limits that a request meets, and that no two subjects share a counter."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from headgate.core.policy import (
    Calendar,
    Count,
    Each,
    Limit,
    OnOutage,
    Per,
    Slots,
    Tenant,
    TokenWeights,
)
from headgate.core.weekdays import Weekday
from ratelimit.demand import Subject, claims_of, reservation_of
from ratelimit.store.protocol import MAX_COUNT, REQUESTS, TOKENS, Weights
from tests.ratelimit.builders import NOW_S, limit

ALICE = Subject("demo", "alice", "k1", "tiny")


def tenant(*limits: Limit, timezone: str = "UTC") -> Tenant:
    return Tenant(
        name="demo", calendar=Calendar(ZoneInfo(timezone)), models=frozenset(), limits=limits
    )


def keys(subject: Subject, *limits: Limit, now_s: float = NOW_S) -> list[str]:
    return [claim.key for claim in claims_of(tenant(*limits), subject, now_s)]


def test_a_limit_for_some_users_or_models_meets_only_those() -> None:
    limits = [
        limit(1),
        limit(2, users=("alice",)),
        limit(3, users=("bob",)),
        limit(4, models=("tiny", "huge")),
        limit(5, models=("huge",)),
        limit(6, users=("alice",), models=("huge",)),
    ]
    met = claims_of(tenant(*limits), ALICE, NOW_S)
    assert [claim.limit.limit for claim in met] == [1, 2, 4]


@pytest.mark.parametrize("each", list(Each))
def test_each_value_of_a_dimension_has_its_own_counter(each: Each) -> None:
    other = structs.replace(ALICE, **{each.value: "other"})
    apart, shared = limit(1, each=(each,)), limit(1)
    assert keys(ALICE, apart) != keys(other, apart)
    assert keys(ALICE, shared) == keys(other, shared)


def test_each_window_has_its_own_counter() -> None:
    rule = limit(1, per=Per.MINUTE)
    assert keys(ALICE, rule, now_s=NOW_S) == keys(ALICE, rule, now_s=NOW_S + 59)
    assert keys(ALICE, rule, now_s=NOW_S) != keys(ALICE, rule, now_s=NOW_S + 60)


def test_slots_have_no_window() -> None:
    rule = limit(1, Count.CONCURRENT, each=(Each.USER,))
    assert keys(ALICE, rule, now_s=NOW_S) == keys(ALICE, rule, now_s=NOW_S + 10**6)


def test_weeks_and_months_start_on_the_days_of_the_tenant() -> None:
    own = Calendar(ZoneInfo("UTC"), Weekday.THURSDAY, 31)
    rules = (limit(1, per=Per.WEEK), limit(1, per=Per.MONTH))
    claims = claims_of(
        Tenant(name="demo", calendar=own, models=frozenset(), limits=rules), ALICE, NOW_S
    )  # 15 January 2027
    starts = [datetime.fromtimestamp(one.window.start_s, UTC) for one in claims if one.window]
    assert starts == [datetime(2027, 1, 14, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)]


def test_windows_start_in_the_timezone_of_the_tenant() -> None:
    [claim] = claims_of(tenant(limit(1, per=Per.DAY), timezone="Asia/Kolkata"), ALICE, NOW_S)
    assert claim.window is not None
    assert (claim.window.start_s + 19_800) % 86_400 == 0


names = st.text(st.sampled_from("ab/=%{}:|- \n\x00é"), max_size=4)
subjects = st.builds(Subject, st.just("demo"), names, names, names)


@given(subjects, subjects)
def test_different_subjects_never_share_a_counter(one: Subject, other: Subject) -> None:
    rule = limit(1, each=(Each.USER, Each.KEY, Each.MODEL))
    assert (keys(one, rule) == keys(other, rule)) == (one == other)


@given(names, names, st.sets(st.sampled_from(list(Each))), st.sets(st.sampled_from(list(Each))))
def test_different_limits_never_share_a_counter(
    one: str, other: str, each_one: set[Each], each_other: set[Each]
) -> None:
    first = replace(limit(1), id=one, each=frozenset(each_one))
    second = replace(limit(1), id=other, each=frozenset(each_other))
    same = (one, each_one) == (other, each_other)
    assert (keys(ALICE, first) == keys(ALICE, second)) == same


def test_of_limits_with_one_counter_the_smallest_counts() -> None:
    met = claims_of(tenant(limit(5), limit(3), limit(4)), ALICE, NOW_S)
    assert [claim.limit.limit for claim in met] == [3]


@pytest.mark.parametrize(
    ("estimate", "number", "held"),
    [
        (500, 1000, 500),
        (5000, 1000, 1000),
        (0, 1000, 1),
        (0, 0, 1),
        (5, 0, 1),
        (2**64 - 1, 2**60, MAX_COUNT),
    ],
)
def test_a_token_limit_is_asked_for_the_estimate_but_never_for_more_than_it_has(
    estimate: int, number: int, held: int
) -> None:
    claims = claims_of(tenant(limit(number, Count.TOKENS)), ALICE, NOW_S)
    [demand] = reservation_of("r", "demo", claims, estimate, NOW_S).demands
    assert (demand.weights, demand.amount) == (TOKENS, held)


PRICED = {"tiny": TokenWeights(200_000, 50_000, 600_001), "huge": TokenWeights(0, 0, 7_000)}


@pytest.mark.parametrize(
    ("rule", "prompt", "held"),
    [
        (limit(10**9, Count.COST, costs=PRICED), 100, 100 * 200 + 400 * 600 + 1),
        (limit(10**9, Count.COST, costs=PRICED), None, 500 * 600 + 1),
        (limit(1000, Count.COST, costs=PRICED), 100, 1000),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1000, 100, 4000)), 100, 1700),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1000, 100, 4000)), 500, 500),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1000, 100, 4000)), None, 2000),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(3000, 100, 1000)), None, 1500),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1000, 2000, 0)), 100, 200),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1000, 2000, 0)), None, 1000),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1, 1, 0)), 101, 1),
        (limit(10**9, Count.TOKENS, weights=TokenWeights(1000, 0, 0)), 0, 1),
    ],
)
def test_what_is_held_is_the_weighted_estimate_and_never_less_than_it_may_be(
    rule: Limit, prompt: int | None, held: int
) -> None:
    claims = claims_of(tenant(rule), ALICE, NOW_S)
    [demand] = reservation_of("r", "demo", claims, 500, NOW_S, prompt_tokens=prompt).demands
    assert demand.amount == held


def test_a_model_that_costs_nothing_meets_no_limit_of_cost() -> None:
    free = {"tiny": TokenWeights(0, 0, 0), "huge": TokenWeights(1, 1, 1)}
    assert keys(ALICE, limit(1, Count.COST, costs=free)) == []
    assert keys(structs.replace(ALICE, model="huge"), limit(1, Count.COST, costs=free)) != []


def test_a_model_that_the_policy_has_just_lost_costs_what_the_dearest_does() -> None:
    gone = structs.replace(ALICE, model="gone")
    [claim] = claims_of(tenant(limit(10**9, Count.COST, costs=PRICED)), gone, NOW_S)
    assert claim.weights == Weights(0, 200_000, 50_000, 600_001)


def test_a_request_counts_as_one_and_holds_one_slot() -> None:
    claims = claims_of(tenant(limit(5), limit(2, Count.CONCURRENT)), ALICE, NOW_S)
    reservation = reservation_of("r", "demo", claims, 900, NOW_S)
    assert [(demand.weights, demand.amount) for demand in reservation.demands] == [(REQUESTS, 1)]
    assert [(lease.limit, lease.lease_s) for lease in reservation.leases] == [(2, 30.0)]


def test_a_reservation_is_kept_for_as_long_as_its_longest_lease() -> None:
    rule = replace(limit(2, Count.CONCURRENT), shape=Slots(lease_s=10**6))
    claims = claims_of(tenant(rule), ALICE, NOW_S)
    assert reservation_of("r", "demo", claims, 1, NOW_S).hold_s == 10**6


def test_what_a_limit_does_in_an_outage_goes_with_it_to_the_store() -> None:
    rules = [
        replace(limit(5), on_outage=OnOutage.OPEN),
        replace(limit(2, Count.CONCURRENT), on_outage=OnOutage.SHARE),
        limit(9, Count.TOKENS),
    ]
    asked = reservation_of("r", "demo", claims_of(tenant(*rules), ALICE, NOW_S), 1, NOW_S).asked
    assert [one.on_outage for one in asked] == [OnOutage.OPEN, OnOutage.CLOSED, OnOutage.SHARE]
