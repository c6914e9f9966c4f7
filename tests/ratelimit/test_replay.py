"""Recorded requests under a policy: who would have been refused."""

from heapq import heappop, heappush
from typing import TypeAlias
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

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
from ratelimit.replay import Gone, Recorded, Replay, Replayed, Used
from ratelimit.store.memory import MemoryStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, limit, new_name, request

USERS = ("alice", "bob")
MODELS = ("tiny", "huge")


def policy_with(*limits: Limit) -> CompiledPolicy:
    tenant = Tenant(
        name="demo", calendar=Calendar(ZoneInfo("UTC")), models=frozenset(MODELS), limits=limits
    )
    keys = {user.encode(): Caller("demo", user, f"{user}-key") for user in USERS}
    return CompiledPolicy({}, {"demo": tenant}, keys)


def recorded(
    start: float,
    *,
    lasts: float = 1.0,
    user: str = "alice",
    model: str = "tiny",
    tenant: str = "demo",
    estimate: int = 100,
    prompt: int | None = None,
    key: str = "",
    tokens: int | None = 60,
    used: Used | None = None,
    refused: bool = False,
    reservation: str = "",
) -> Recorded:
    return Recorded(
        start_s=NOW_S + start,
        reservation=reservation or new_name("r"),
        end_s=NOW_S + start + lasts,
        tenant=tenant,
        user=user,
        key=key or f"{user}-key",
        model=model,
        estimate=estimate,
        estimate_prompt=prompt,
        used=used or (None if tokens is None else Used(0, 0, tokens)),
        refused=refused,
    )


async def replayed(policy: CompiledPolicy, *requests: Recorded) -> Replayed:
    replay = Replay(policy)
    await replay.run(requests)
    return replay.replayed


async def refused(policy: CompiledPolicy, *requests: Recorded) -> int:
    rows = (await replayed(policy, *requests)).rows.values()
    return sum(row.refused for row in rows)


async def test_what_is_charged_in_one_window_counts_in_that_window_only() -> None:
    limits = policy_with(limit(2, each=(Each.USER,)))
    times = (0, 5, 10, 59, 60, 61, 62)

    result = await replayed(limits, *(recorded(at) for at in times))

    [((tenant, user, model), row)] = result.rows.items()
    assert (tenant, user, model) == ("demo", "alice", "tiny")
    assert (row.requests, row.refused) == (7, 3)
    assert row.by_limit == {limits.tenants["demo"].limits[0].id: 3}


async def test_the_estimate_is_held_until_the_end_then_the_recorded_tokens_count() -> None:
    limits = policy_with(limit(220, Count.TOKENS))
    long, short = recorded(0, lasts=10), recorded(1, lasts=1)

    assert await refused(limits, long, short, recorded(1.5)) == 1  # 100 and 100 are held
    assert await refused(limits, long, short, recorded(3)) == 1  # 100 are held, 60 spent
    assert await refused(limits, long, short, recorded(11)) == 0  # 60 and 60 are spent


async def test_what_was_given_back_costs_nothing() -> None:
    limits = policy_with(limit(1), limit(100, Count.TOKENS))

    assert await refused(limits, recorded(0, tokens=None), recorded(2)) == 0


async def test_slots_are_taken_for_as_long_as_the_record_says() -> None:
    limits = policy_with(limit(1, Count.CONCURRENT))

    assert await refused(limits, recorded(0, lasts=2), recorded(1), recorded(2)) == 1


async def test_what_the_policy_does_not_have_is_counted_as_gone() -> None:
    result = await replayed(
        policy_with(limit(1)),
        recorded(0, tenant="closed"),
        recorded(1, user="left"),
        recorded(2, model="retired"),
        recorded(3),
    )

    assert result.gone == {Gone.TENANT: 1, Gone.USER: 1, Gone.MODEL: 1}
    assert [row.requests for row in result.rows.values()] == [1]


async def test_a_record_that_is_there_twice_counts_once() -> None:
    first = recorded(0)
    late = recorded(1, reservation=first.reservation)

    result = await replayed(policy_with(limit(1)), first, first, first, late)

    assert result.repeated == 3
    assert [(row.requests, row.refused) for row in result.rows.values()] == [(1, 0)]


async def test_one_that_was_refused_asks_again_and_costs_its_estimate() -> None:
    again = recorded(0, refused=True, tokens=100)
    result = await replayed(policy_with(limit(150, Count.TOKENS)), again, recorded(2), recorded(3))

    [row] = result.rows.values()
    assert (row.requests, row.refused, row.refused_when_recorded) == (3, 2, 1)


COSTS = {"tiny": TokenWeights(200, 50, 600)}


async def test_cost_counts_the_kinds_of_the_record_by_the_prices_of_the_policy() -> None:
    limits = policy_with(limit(100, Count.COST, costs=COSTS))
    first = recorded(0, estimate=200, prompt=50, used=Used(50, 40, 80))  # 100 held, then 52 spent

    assert await refused(limits, first, recorded(0.5, estimate=1, prompt=1)) == 1
    assert await refused(limits, first, recorded(2, estimate=80, prompt=0)) == 0
    assert await refused(limits, first, recorded(2, estimate=81, prompt=0)) == 1


async def test_a_record_that_does_not_know_the_prompts_part_asks_for_the_dearest() -> None:
    limits = policy_with(limit(100, Count.COST, costs=COSTS))

    assert await refused(limits, recorded(0, estimate=150), recorded(0.5, estimate=17)) == 1
    assert await refused(limits, recorded(0, estimate=150), recorded(0.5, estimate=16)) == 0


async def test_shadow_limits_refuse_nobody() -> None:
    limits = policy_with(limit(1, shadow=True))
    assert await refused(limits, *(recorded(at) for at in range(5))) == 0


async def test_no_more_is_kept_than_what_runs() -> None:
    replay = Replay(policy_with(limit(10**6)))
    await replay.run(recorded(at, lasts=3) for at in range(2_000))

    assert len(replay._running) <= 4


Arrival: TypeAlias = tuple[int, int, str, str, tuple[int, int], Used | None]
arrivals = st.lists(
    st.tuples(
        st.integers(1, 40),  # seconds after the one before
        st.integers(0, 100),  # seconds that it lasts
        st.sampled_from(USERS),
        st.sampled_from(MODELS),
        st.tuples(st.integers(0, 60), st.integers(1, 60)),  # held: prompt and output
        st.none() | st.builds(Used, *(st.integers(0, 60) for _ in range(3))),  # charged
    ),
    max_size=40,
)
rules = st.builds(
    limit,
    st.integers(1, 400),
    st.sampled_from(Count),
    per=st.sampled_from([Per.MINUTE, Per.HOUR]),
    each=st.lists(st.sampled_from(Each), unique=True).map(tuple),
    shadow=st.booleans(),
    weights=st.sampled_from([TokenWeights(), TokenWeights(1000, 100, 4000)]),
    costs=st.just({"tiny": TokenWeights(200, 50, 600), "huge": TokenWeights(0, 0, 0)}),
)


def usage_of(charged: Used | None) -> Usage:
    if charged is None:
        return Usage()
    return Usage(
        status=200,
        prompt=charged.prompt,
        completion=charged.completion,
        cached=charged.cached,
    )


class Run:
    """Requests through a limiter, with the records that the access log would have written."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.records: list[Recorded] = []
        self._clock = FakeClock(NOW_S)
        self._limiter = Limiter(MemoryStore(), lambda: policy, self._clock)
        self._running: list[tuple[float, str, Used | None, Estimate]] = []

    async def arrive(self, name: str, arrival: Arrival) -> None:
        after, lasts, user, model, (prompt, output), charged = arrival
        held = Estimate(prompt + output, prompt)
        start_s = self._clock.now_s() + after
        await self._settle_until(start_s)
        self._clock.advance(start_s - self._clock.now_s())
        asked = request(
            name, held.tokens, prompt_tokens=prompt, user=user, key=f"{user}-key", model=model
        )
        admitted = isinstance(await self._limiter.reserve(asked), Admitted)
        end_s = start_s + (lasts + 0.5 if admitted else 0)
        if admitted:
            heappush(self._running, (end_s, name, charged, held))
        self.records.append(
            recorded(
                start_s - NOW_S,
                lasts=end_s - start_s,
                user=user,
                model=model,
                estimate=held.tokens,
                prompt=prompt,
                tokens=None,
                used=charged if admitted else None,
                refused=not admitted,
                reservation=name,
            )
        )

    async def _settle_until(self, at_s: float) -> None:
        while self._running and self._running[0][0] <= at_s:
            end_s, name, charged, estimate = heappop(self._running)
            self._clock.advance(end_s - self._clock.now_s())
            await self._limiter.settle(name, "demo", usage_of(charged), estimate)


async def record_run(policy: CompiledPolicy, asked: list[Arrival]) -> list[Recorded]:
    """The records of this run."""
    run = Run(policy)
    for number, arrival in enumerate(asked):
        await run.arrive(f"r{number}", arrival)
    return run.records


@given(limits=st.lists(rules, max_size=5, unique_by=lambda rule: rule.id), asked=arrivals)
async def test_under_the_policy_of_the_recording_the_same_are_refused(
    limits: list[Limit], asked: list[Arrival]
) -> None:
    policy = policy_with(*limits)
    records = await record_run(policy, asked)

    result = await replayed(policy, *records)

    for (_, user, model), row in result.rows.items():
        own = [record for record in records if (record.user, record.model) == (user, model)]
        assert row.refused == row.refused_when_recorded == sum(record.refused for record in own)
        assert row.requests == len(own)


async def test_a_key_at_run_time_meets_its_tenant_s_limits_though_the_file_lacks_its_user() -> None:
    requests = [recorded(n, user="rita", key="~0011223344556677") for n in range(3)]

    result = await replayed(policy_with(limit(2, Count.REQUESTS)), *requests)

    [row] = result.rows.values()
    assert (row.requests, row.refused) == (3, 1)
    assert not result.gone
