"""Smooth limits as clients meet them: what is left, when to come back, when all is there again."""

import json
from math import ceil
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

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
from headgate.core.settlement import Estimate, Source, Usage
from ratelimit.answers import Admitted, Refused
from ratelimit.headers import quota_headers, refusal_message, refused_headers
from ratelimit.limiter import Limiter
from ratelimit.peek import PeekLimits
from ratelimit.replay import Recorded, Replay
from ratelimit.smooth import Refill, drops_per_unit
from ratelimit.store.memory import MemoryStore
from ratelimit.wire import encode_decision
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, limit, new_name, peek, request

ALICE = Caller("demo", "alice", "k1")
REQUESTS = limit(600, burst=100)
TOKENS = limit(60_000, Count.TOKENS, burst=8_000)


class Desk:
    """A limiter and a peek on one store."""

    def __init__(self, *limits: Limit) -> None:
        calendar = Calendar(ZoneInfo("Europe/Berlin"))
        self.tenant = Tenant(
            name="demo", calendar=calendar, models=frozenset({"tiny"}), limits=limits
        )
        self.policy = CompiledPolicy({}, {"demo": self.tenant}, {b"k": ALICE})
        self.clock = FakeClock(NOW_S)
        self.store = MemoryStore()
        self.limiter = Limiter(self.store, lambda: self.policy, self.clock)
        self._peek = PeekLimits(self.store, self.clock, Metrics(CollectorRegistry(), self.clock))

    async def ask(self, tokens: int = 500, reservation: str = "") -> Admitted | Refused:
        name = reservation or new_name("r")
        return await self.limiter.reserve(request(name, tokens, key="k1"))

    async def admitted(self, count: int) -> int:
        answers = [await self.ask() for _ in range(count)]
        return sum(isinstance(answer, Admitted) for answer in answers)

    async def settle(self, reservation: str, tokens: int) -> Source | object:
        usage = Usage(status=200, prompt=tokens, completion=0, complete=True)
        return await self.limiter.settle(reservation, "demo", usage, Estimate(500, 0))

    async def peek(self) -> dict[str, object]:
        body = await self._peek(self.tenant, ALICE, None)
        assert body is not None
        [entry] = json.loads(body)["data"]
        assert isinstance(entry, dict)
        return entry

    def headers(self, answer: Admitted | Refused) -> dict[str, str]:
        now_s = self.clock.now_s()
        if isinstance(answer, Refused):
            return dict(refused_headers(answer, now_s))
        return dict(quota_headers(answer.limits, now_s))


async def test_a_burst_may_come_at_once_and_then_the_rate() -> None:
    desk = Desk(REQUESTS)

    assert await desk.admitted(150) == 100
    desk.clock.advance(1)
    assert await desk.admitted(50) == 10
    desk.clock.advance(3600)
    assert await desk.admitted(150) == 100


async def test_headers_tell_the_burst_what_remains_of_it_and_when_all_of_it_does() -> None:
    desk = Desk(REQUESTS)

    assert desk.headers(await desk.ask()) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-reset-requests": "100ms",
    }
    await desk.admitted(50)
    desk.clock.advance(0.25)
    assert desk.headers(await desk.ask()) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "50",  # 49.5 are in use: half a request is none
        "x-ratelimit-reset-requests": "5s",
    }


async def test_a_refusal_says_when_this_request_would_fit() -> None:
    desk = Desk(TOKENS)
    await desk.ask(tokens=7_000)

    refused = await desk.ask(tokens=4_500)

    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 4  # 3500 tokens lack, 1000 come in a second
    assert desk.headers(refused) == {
        "content-type": "application/json",
        "retry-after": "4",
        "x-ratelimit-limit-tokens": "8000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "7s",
    }
    assert refusal_message(refused, "demo") == (
        "Rate limit reached: 60,000 tokens per minute in bursts of up to 8,000 for tenant demo,"
        " 1,000 left, 4,500 needed (an estimate); try again in 4 s."
    )
    desk.clock.advance(3.499)
    assert isinstance(await desk.ask(tokens=4_500), Refused)
    desk.clock.advance(0.001)
    assert isinstance(await desk.ask(tokens=4_500), Admitted)


async def test_an_estimate_above_the_burst_waits_for_all_of_it() -> None:
    desk = Desk(TOKENS)
    await desk.ask(tokens=1_000)

    refused = await desk.ask(tokens=10**9)

    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 1
    desk.clock.advance(1)
    assert isinstance(await desk.ask(tokens=10**9), Admitted)


async def test_settling_moves_what_is_left_and_the_time_of_the_reset() -> None:
    desk = Desk(TOKENS)
    await desk.ask(tokens=5_000, reservation="it")
    desk.clock.advance(1)

    await desk.settle("it", 2_000)

    [status] = desk.limiter.limits_of("it")
    assert (status.limit, status.per) == (8_000, None)
    assert (status.remaining, status.resets_at_s) == (7_000, NOW_S + 2)


@given(
    rate=st.integers(1, 100_000),
    per=st.sampled_from([Per.SECOND, Per.MINUTE, Per.HOUR]),
    burst=st.integers(1, 5_000),
    asked=st.lists(st.tuples(st.integers(1, 6_000), st.integers(0, 3_000_000)), max_size=12),
)
async def test_times_are_exact_to_the_millisecond(
    rate: int, per: Per, burst: int, asked: list[tuple[int, int]]
) -> None:
    """A refused request fits at the time that was told and not a millisecond before it."""
    rule = limit(rate, Count.TOKENS, per=per, burst=burst)
    desk = Desk(rule)
    for tokens, after_ms in asked:
        answer = await desk.ask(tokens)
        entry = await desk.peek()
        [status] = answer.limits
        assert status.remaining == entry["remaining"]
        assert status.resets_at_s is not None
        now_s = desk.clock.now_s()
        assert entry["resets_in_s"] == ceil(round(status.resets_at_s - now_s, 6))
        desk.clock.advance(status.resets_at_s - now_s)
        assert (await desk.peek())["remaining"] == burst
        desk.clock.advance(now_s - desk.clock.now_s())
        if isinstance(answer, Refused):
            drops = drops_per_unit(rule)
            [used] = await peek(desk.store, "demo", [rule.id], [], now_s, drains={rule.id: rate})
            fits_at_s = Refill(rule, used, now_s).fits_at_s(min(tokens, burst) * drops)
            assert 0 <= answer.retry_after_s - (fits_at_s - now_s) <= 1
            desk.clock.advance(fits_at_s - 0.001 - now_s)
            assert isinstance(await desk.ask(tokens), Refused)
            desk.clock.advance(0.001)
            assert isinstance(await desk.ask(tokens), Admitted)
        desk.clock.advance(after_ms / 1000)


async def test_what_is_told_of_a_bucket_is_exact_too() -> None:
    desk = Desk(REQUESTS)
    await desk.admitted(3)
    desk.clock.advance(0.05)

    assert await desk.peek() == {
        "count": "requests",
        "per": "minute",
        "each": [],
        "models": ["tiny"],
        "limit": 600,
        "burst": 100,
        "used": 3,
        "remaining": 97,
        "resets_at": "2027-01-15T09:00:00.300000+01:00",
        "resets_in_s": 1,
        "shadow": False,
        "weights": None,
    }
    desk.clock.advance(60)
    full = await desk.peek()
    assert (full["used"], full["remaining"], full["resets_in_s"]) == (0, 100, 0)


async def test_weighted_tokens_refill_smoothly_too() -> None:
    rule = limit(60_000, Count.TOKENS, burst=8_000, weights=TokenWeights(1000, 100, 4000))
    desk = Desk(rule)
    await desk.ask(tokens=1_500, reservation="it")  # each may be an output token: 6000 are held

    desk.clock.advance(1)
    assert (await desk.peek())["remaining"] == 3_000
    await desk.settle("it", 1_500)  # all were the prompt's, of which 500 would be left

    assert (await desk.peek())["remaining"] == 7_500


async def test_of_a_window_and_a_bucket_the_one_with_room_last_is_named() -> None:
    hour = limit(100, per=Per.HOUR)
    desk = Desk(REQUESTS, hour)
    await desk.admitted(100)

    refused = await desk.ask()

    assert isinstance(refused, Refused)
    assert refused.hit is not None
    assert (refused.hit.rule, refused.retry_after_s) == (hour, 3600)


async def test_a_smooth_limit_and_a_window_of_the_same_number_apply_together() -> None:
    """The bucket alone would let 10 and 2 for each of 59 seconds in: 128."""
    desk = Desk(limit(120), limit(120, burst=10))
    admitted = await desk.admitted(20)
    assert admitted == 10
    for _ in range(59):
        desk.clock.advance(1)
        admitted += await desk.admitted(3)

    assert admitted == 120


async def test_a_smooth_shadow_limit_refuses_nobody_and_says_whom_it_would_have() -> None:
    desk = Desk(limit(60, burst=2, shadow=True))

    answers = [await desk.ask() for _ in range(3)]

    assert [bool(answer.exceeded) for answer in answers if isinstance(answer, Admitted)] == [
        False,
        False,
        True,
    ]
    assert (await desk.peek())["used"] == 3
    assert (await desk.peek())["shadow"] is True


async def test_envoy_is_told_the_rate_and_what_is_left_of_the_burst() -> None:
    desk = Desk(REQUESTS)
    asked = request("r", 1, key="k1")

    [status] = encode_decision(asked, await desk.ask(), desk.clock.now_s()).statuses

    assert (status.current_limit.requests_per_unit, status.limit_remaining) == (600, 99)
    assert status.current_limit.unit == status.current_limit.MINUTE
    assert status.duration_until_reset.seconds == 1


@pytest.mark.parametrize(("apart_s", "refused"), [(0.1, 0), (0.05, 41)])
async def test_a_replay_smooths_in_the_time_of_the_records(apart_s: float, refused: int) -> None:
    desk = Desk(limit(600, burst=10, each=(Each.USER,)))
    replay = Replay(desk.policy)
    at = [NOW_S + number * apart_s for number in range(100)]

    await replay.run(
        Recorded(
            start_s=at_s,
            reservation=new_name("r"),
            end_s=at_s + 60,
            tenant="demo",
            user="alice",
            key="k1",
            model="tiny",
            estimate=9,
            estimate_prompt=None,
            used=None,
            refused=False,
        )
        for at_s in at
    )

    [row] = replay.replayed.rows.values()
    assert row.refused == refused
