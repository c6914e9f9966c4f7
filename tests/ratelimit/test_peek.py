"""A caller sees the limits exactly as enforcement would apply them."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headgate.core.amounts import NANOS, in_units
from headgate.core.metrics import Metrics
from headgate.core.policy import (
    Calendar,
    Caller,
    CompiledPolicy,
    Count,
    Each,
    Limit,
    Per,
    Tenant,
    TokenWeights,
)
from headgate.core.settlement import Estimate, Usage
from ratelimit.answers import Admitted
from ratelimit.limiter import Limiter
from ratelimit.peek import PeekLimits
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import PeekQuery, StoreError
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, limit, request

ALICE = Caller("demo", "alice", "k1")
BOB = Caller("demo", "bob", "k2")
MODELS = ("huge", "tiny")


class Desk:
    """A limiter and a peek on one store, in Berlin at 2027-01-15 09:00."""

    def __init__(self, *limits: Limit, store: MemoryStore | None = None) -> None:
        self.tenant = Tenant(
            name="demo",
            calendar=Calendar(ZoneInfo("Europe/Berlin")),
            models=frozenset(MODELS),
            limits=limits,
        )
        self.clock = FakeClock(NOW_S)
        self.metrics = Metrics(CollectorRegistry(), self.clock)
        store = store or MemoryStore()
        policy = CompiledPolicy({}, {"demo": self.tenant}, {})
        self.limiter = Limiter(store, lambda: policy, self.clock)
        self.peek = PeekLimits(store, self.clock, self.metrics)

    async def ask(
        self, reservation: str, tokens: int = 10, caller: Caller = ALICE, model: str = "tiny"
    ) -> Admitted:
        answer = await self.limiter.reserve(
            request(reservation, tokens, user=caller.user, key=caller.key, model=model)
        )
        assert isinstance(answer, Admitted)
        return answer

    async def limits(self, caller: Caller = ALICE, model: str | None = None) -> list[Any]:
        body = await self.peek(self.tenant, caller, model)
        assert body is not None
        listed = json.loads(body, parse_float=Decimal)
        assert listed["object"] == "list"
        data: list[Any] = listed["data"]
        return data


async def test_an_entry_says_what_is_left_and_when_it_resets() -> None:
    desk = Desk(limit(100_000, Count.TOKENS, per=Per.DAY, each=(Each.USER,)))
    await desk.ask("r1", 1234)
    desk.clock.advance(0.5)

    assert await desk.limits() == [
        {
            "count": "tokens",
            "per": "day",
            "each": ["user"],
            "models": ["huge", "tiny"],
            "limit": 100_000,
            "burst": None,
            "used": 1234,
            "remaining": 98_766,
            "resets_at": "2027-01-16T00:00:00+01:00",
            "resets_in_s": 54_000,
            "shadow": False,
            "weights": None,
        }
    ]


async def test_requests_in_flight_have_no_reset() -> None:
    desk = Desk(limit(8, Count.CONCURRENT))
    await desk.ask("r1")
    [slots] = await desk.limits()

    assert (slots["count"], slots["per"], slots["used"], slots["remaining"]) == (
        "concurrent",
        None,
        1,
        7,
    )
    assert slots["resets_at"] is slots["resets_in_s"] is None

    await desk.limiter.settle("r1", "demo", Usage(status=200, complete=True), Estimate(10, 5))
    assert [slots["used"] for slots in await desk.limits()] == [0]


async def test_limits_kept_by_model_are_listed_for_each_model_or_the_one_asked_for() -> None:
    desk = Desk(
        limit(5, Count.CONCURRENT),
        limit(10, each=(Each.MODEL,)),
        limit(20, models=("huge",)),
        limit(30),
    )
    await desk.ask("r1", model="tiny")
    everything = await desk.limits()
    tiny = await desk.limits(model="tiny")

    def shown(entries: list[Any]) -> list[tuple[int, list[str], int]]:
        return [(entry["limit"], entry["models"], entry["used"]) for entry in entries]

    assert shown(everything) == [
        (5, ["huge", "tiny"], 1),
        (10, ["huge"], 0),
        (10, ["tiny"], 1),
        (20, ["huge"], 0),
        (30, ["huge", "tiny"], 1),
    ]
    assert shown(tiny) == [(5, ["huge", "tiny"], 1), (10, ["tiny"], 1), (30, ["huge", "tiny"], 1)]


async def test_nobody_sees_what_others_use_of_their_own() -> None:
    desk = Desk(
        limit(10, each=(Each.USER,)),
        limit(20, each=(Each.KEY,)),
        limit(30, users=("bob",)),
        limit(40),
    )
    await desk.ask("r1", caller=BOB)

    assert [(entry["limit"], entry["used"]) for entry in await desk.limits()] == [
        (10, 0),
        (20, 0),
        (40, 1),
    ]


async def test_shadow_limits_are_marked_and_may_be_exceeded() -> None:
    desk = Desk(limit(1, shadow=True), limit(5))
    for name in ("r1", "r2"):
        await desk.ask(name)

    assert [
        (entry["shadow"], entry["used"], entry["remaining"]) for entry in await desk.limits()
    ] == [(True, 2, 0), (False, 2, 3)]


async def test_cost_is_told_in_the_currency_and_only_where_a_model_costs_something() -> None:
    costs = {"tiny": TokenWeights(200_000, 50_000, 600_000), "huge": TokenWeights(0, 0, 0)}
    desk = Desk(limit(25 * NANOS, Count.COST, per=Per.MONTH, costs=costs))
    await desk.ask("r1", 22_000)
    [cost] = await desk.limits()

    assert (cost["count"], cost["models"]) == ("cost", ["tiny"])
    shown = (cost["limit"], cost["used"], cost["remaining"])
    assert shown == (Decimal(25), Decimal("0.0132"), Decimal("24.9868"))
    assert await desk.limits(model="huge") == []


async def test_weights_are_told_as_the_policy_writes_them() -> None:
    desk = Desk(limit(100, Count.TOKENS, weights=TokenWeights(1000, 100, 4000)))
    await desk.ask("r1", 10)
    [tokens] = await desk.limits()

    assert tokens["weights"] == {"input": 1, "cached_input": Decimal("0.1"), "output": 4}
    assert (tokens["limit"], tokens["used"], tokens["remaining"]) == (100, 40, 60)


async def test_a_new_window_begins_at_nothing() -> None:
    desk = Desk(limit(5))
    await desk.ask("r1")
    desk.clock.advance(60)

    assert [(entry["used"], entry["resets_in_s"]) for entry in await desk.limits()] == [(0, 60)]


class UnreachableStore(MemoryStore):
    """Answers nothing."""

    async def peek(self, peek: PeekQuery) -> Mapping[str, int]:
        raise StoreError("redis: peek had no answer within 0.25 s")


async def test_without_the_store_nothing_is_told_and_the_error_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk(limit(5), store=UnreachableStore())

    assert await desk.peek(desk.tenant, ALICE, None) is None
    assert desk.metrics.store_errors.labels("peek")._value.get() == 1
    assert caplog.messages == [
        "cannot read the remaining amounts of limits: redis: peek had no answer within 0.25 s"
    ]


async def test_without_limits_the_store_is_not_asked() -> None:
    assert await Desk(store=UnreachableStore()).limits() == []


rules = st.builds(
    limit,
    st.integers(500, 600),
    st.sampled_from(Count),
    per=st.sampled_from([Per.MINUTE, Per.DAY, Per.MONTH]),
    each=st.lists(st.sampled_from(Each), unique=True).map(tuple),
    users=st.sampled_from([(), ("alice",), ("bob",)]),
    models=st.sampled_from([(), ("tiny",), ("huge",)]),
)
asked = st.tuples(st.integers(1, 5), st.sampled_from([ALICE, BOB]), st.sampled_from(MODELS))


@given(
    limits=st.lists(rules, max_size=6, unique_by=lambda rule: rule.id),
    requests=st.lists(asked, min_size=1, max_size=10),
)
async def test_it_says_what_the_last_answer_of_enforcement_said(
    limits: list[Limit], requests: list[tuple[int, Caller, str]]
) -> None:
    desk = Desk(*limits)
    for number, (tokens, caller, model) in enumerate(requests):
        answer = await desk.ask(f"r{number}", tokens, caller, model)

        shown = await desk.limits(caller, model)

        assert sorted((e["count"], e["limit"], e["remaining"]) for e in shown) == sorted(
            (
                status.count,
                in_units(status.count, status.limit),
                in_units(status.count, status.remaining),
            )
            for status in answer.limits
        )
        assert {e["resets_in_s"] for e in shown} == {
            None if status.resets_at_s is None else status.resets_at_s - NOW_S
            for status in answer.limits
        }
