"""Limits of cost and of weighted tokens, from the policy's numbers to the counter."""

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.amounts import NANOS
from headgate.core.apis import Api
from headgate.core.policy import (
    CompiledPolicy,
    Count,
    Each,
    Limit,
    OnOutage,
    Per,
    PerSecond,
    PricedTokens,
    Windowed,
)
from headgate.core.prices import PriceBook, PricePeriod, Prices, TokenWeights
from headgate.core.settlement import Estimate, Source, Usage
from ratelimit.answers import Admitted, Refused
from ratelimit.demand import Subject, claims_of
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, limit, peek, policy_with, request
from tests.ratelimit.outages import new_replica

PRICES = {
    "tiny": Prices(Decimal("0.20"), Decimal("0.05"), Decimal("0.60")),
    "huge": Prices(Decimal("3.000001"), Decimal("0.300001"), Decimal("15.25")),
    "free": Prices(),
}
COSTS = {name: prices.per_token for name, prices in PRICES.items()}


def cost(number: int, *, each: tuple[Each, ...] = ()) -> Limit:
    return limit(number, Count.COST, per=Per.MONTH, each=each, costs=COSTS)


class Desk:
    """A limiter on a store of its own, where alice asks."""

    def __init__(self, *limits: Limit) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock(NOW_S)
        self.policy = policy_with(*limits)
        self.limiter = Limiter(self.store, lambda: self.policy, self.clock)

    async def ask(
        self, name: str, prompt: int, output: int, model: str = "tiny"
    ) -> Admitted | Refused:
        return await self.limiter.reserve(
            request(name, prompt + output, prompt_tokens=prompt, model=model)
        )

    async def settle(self, name: str, prompt: int, cached: int, output: int) -> object:
        usage = Usage(status=200, prompt=prompt, cached=cached, completion=output, complete=True)
        return await self.limiter.settle(name, "demo", usage, Estimate(0, 0))

    async def used(self, model: str = "tiny") -> list[int]:
        tenant = self.policy.tenants["demo"]
        claims = claims_of(tenant, Subject("demo", "alice", "k", model), NOW_S)
        return list(await peek(self.store, "demo", [claim.key for claim in claims], [], NOW_S))


async def test_a_request_holds_its_estimate_in_money_and_costs_what_it_used() -> None:
    desk = Desk(cost(NANOS), limit(1000, Count.TOKENS, weights=TokenWeights(1000, 100, 4000)))

    await desk.ask("it", prompt=100, output=50)
    assert await desk.used() == [100 * 200 + 50 * 600, 300]

    assert await desk.settle("it", prompt=90, cached=64, output=10) is Source.USAGE
    assert await desk.used() == [26 * 200 + 64 * 50 + 10 * 600, 73]  # 26 + 6.4 + 40, rounded up


def _by_second(number: int) -> CompiledPolicy:
    """A policy whose audio costs 40 tokens and 0.006 for each second, with a limit of cost."""
    prices = Prices(input=Decimal("0.20"), audio_second=Decimal("0.006"))
    books = {"tiny": PriceBook((PricePeriod(None, prices),))}
    priced = replace(cost(number), shape=Windowed(Per.MONTH, PricedTokens(books)))
    return replace(policy_with(priced), without_usage={Api.TRANSCRIPTIONS: PerSecond(40)})


async def test_audio_holds_its_estimated_seconds_and_costs_those_that_vllm_reports() -> None:
    desk = Desk()
    desk.policy = _by_second(NANOS)
    estimate = Estimate(tokens=64 * 40, prompt=64 * 40, per_second=40)
    asked = request("it", 64 * 40, prompt_tokens=64 * 40, api=Api.TRANSCRIPTIONS)

    await desk.limiter.reserve(asked)
    assert await desk.used() == [64 * (40 * 200 + 6_000_000)]

    heard = Usage(status=200, seconds=9, complete=True)
    await desk.limiter.settle("it", "demo", heard, estimate)
    assert await desk.used() == [9 * (40 * 200 + 6_000_000)]


async def test_the_seconds_of_audio_are_refused_beyond_the_limit() -> None:
    desk = Desk()
    desk.policy = _by_second(6_100_000)
    ask = partial(request, api=Api.TRANSCRIPTIONS)

    assert isinstance(await desk.limiter.reserve(ask("a", 40, prompt_tokens=40)), Admitted)
    assert isinstance(await desk.limiter.reserve(ask("b", 40, prompt_tokens=40)), Refused)


async def test_what_is_refused_says_how_much_money_is_left() -> None:
    desk = Desk(cost(50_000))
    await desk.ask("r1", prompt=100, output=49)

    refused = await desk.ask("r2", prompt=100, output=50)

    assert isinstance(refused, Refused)
    assert refused.hit is not None
    assert (refused.hit.count, refused.hit.limit, refused.hit.remaining) == (
        Count.COST,
        50_000,
        600,
    )
    assert refused.facts() == {
        "refused_by": refused.hit.id,
        "refused_count": "cost",
        "refused_most": "50000",
        "refused_used": "49400",
        "refused_asked": "50000",
    }


async def test_an_upstream_error_gives_the_money_back() -> None:
    desk = Desk(cost(NANOS))
    await desk.ask("it", 100, 50)

    await desk.limiter.settle("it", "demo", Usage(status=500), Estimate(150, 100))
    assert await desk.used() == [0]


async def test_new_prices_do_not_touch_what_is_in_flight_and_keep_what_is_spent() -> None:
    desk = Desk(cost(NANOS))
    await desk.ask("old", 100, 50)
    dearer = limit(NANOS, Count.COST, per=Per.MONTH, costs={"tiny": TokenWeights(1, 1, 10**6)})
    desk.policy = policy_with(dearer)
    await desk.ask("new", 100, 50)

    await desk.settle("old", 100, 0, 10)
    assert await desk.used() == [26_000 + 50_001]
    await desk.settle("new", 100, 0, 10)
    assert await desk.used() == [26_000 + 10_001]


async def test_a_free_model_runs_on_when_the_money_is_spent() -> None:
    desk = Desk(cost(1000))
    await desk.ask("all", 0, 2)

    assert isinstance(await desk.ask("more", 0, 1), Refused)
    assert await desk.ask("free", 10**6, 10**6, model="free") == Admitted(())
    assert await desk.settle("free", 5, 0, 5) is Source.USAGE
    assert await desk.used() == [1000]


async def test_a_shadow_limit_of_cost_tells_and_refuses_nobody() -> None:
    shadow = limit(1, Count.COST, costs=COSTS, shadow=True)
    desk = Desk(shadow)
    await desk.ask("r1", 1, 1)

    assert await desk.ask("r2", 1, 1) == Admitted((), (shadow,))


async def test_in_an_outage_a_share_of_the_money_is_spent() -> None:
    replica = await new_replica(replicas=3)
    await replica.lose_the_store()
    policy = policy_with(replace(cost(100_000), on_outage=OnOutage.SHARE))
    limiter = Limiter(replica.store, lambda: policy, replica.clock)
    asked = [request(f"r{n}", 20, prompt_tokens=0) for n in range(4)]

    answers = [isinstance(await limiter.reserve(request), Admitted) for request in asked]

    assert answers == [True, True, False, False]  # 12,000 each, a share of 33,333


@dataclass(frozen=True)
class Ask:
    """A request with its estimate; at its end it has used `prompt`, `cached` of it, `output`."""

    model: str
    held_prompt: int
    held_output: int
    prompt: int
    cached: int
    output: int
    settled: bool


numbers = st.integers(0, 5000)
asks = st.builds(
    Ask, st.sampled_from(list(PRICES)), numbers, numbers, numbers, numbers, numbers, st.booleans()
)
LIMIT = 40_000_000


@given(st.lists(asks, max_size=30))
async def test_the_counter_is_the_sum_of_what_each_request_costs_and_holds_stay_below_the_limit(
    requests: list[Ask],
) -> None:
    desk = Desk(cost(LIMIT))
    spent, held = 0, 0
    for number, ask in enumerate(requests):
        name = f"r{number}"
        answer = await desk.ask(name, ask.held_prompt, ask.held_output, ask.model)
        hold = exact(ask.model, ask.held_prompt, 0, ask.held_output)
        is_free = ask.model == "free"
        fits = is_free or spent + held + min(LIMIT, max(1, hold)) <= LIMIT
        assert isinstance(answer, Admitted) is fits
        if not fits:
            continue
        if ask.settled:
            await desk.settle(name, ask.prompt, ask.cached, ask.output)
            spent += exact(ask.model, ask.prompt, min(ask.cached, ask.prompt), ask.output)
        elif not is_free:
            held += min(LIMIT, max(1, hold))
        assert held <= LIMIT
        assert await desk.used() == [spent + held]


def exact(model: str, prompt: int, cached: int, output: int) -> int:
    """In nanos rounded up, from the prices as the policy has them."""
    prices = PRICES[model]
    parts = (
        (prompt - cached, prices.input),
        (cached, prices.cached_input),
        (output, prices.output),
    )
    total = sum((count * Fraction(price) for count, price in parts), Fraction(0))
    return math.ceil(total * 1000)  # per million tokens, in nanos
