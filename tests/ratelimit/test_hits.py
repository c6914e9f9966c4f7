"""The limits that an answer from the cache meets."""

from decimal import Decimal

from prometheus_client import CollectorRegistry

from headgate.core.amounts import NANOS
from headgate.core.answer_cache import HitAllowed, HitRefused
from headgate.core.contract import AdmissionKey
from headgate.core.metrics import Metrics
from headgate.core.policy import Count, Limit, Per, PricedTokens, Windowed
from headgate.core.prices import PriceBook, PricePeriod, Prices, TokenWeights
from headgate.core.settlement import Estimate, Usage
from ratelimit.demand import Subject, claims_of
from ratelimit.hits import HitLimits
from ratelimit.limiter import Limiter
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, limit, peek, policy_with

PRICES = Prices(
    Decimal(10), Decimal(5), Decimal(20), request=Decimal(1), cached_answer=Decimal("0.5")
)
BOOK = PriceBook((PricePeriod(None, PRICES),))


class Desk:
    """Limits on a store of their own, where alice of demo gets answers from the cache."""

    def __init__(self, *limits: Limit) -> None:
        self.store, self.clock = MemoryStore(), FakeClock(NOW_S)
        self.registry = CollectorRegistry()
        self.policy = policy_with(*limits)
        self.limiter = Limiter(self.store, lambda: self.policy, self.clock)
        metrics = Metrics(self.registry, self.clock)
        self.hits = HitLimits(RateLimitService(self.limiter, metrics, self.clock), self.clock)

    async def ask(self, prompt: int, completion: int, id: str = "r") -> object:
        admission = {
            AdmissionKey.RESERVATION: id,
            AdmissionKey.TENANT: "demo",
            AdmissionKey.USER: "alice",
            AdmissionKey.KEY: "k",
            AdmissionKey.MODEL: "tiny",
            AdmissionKey.API: "chat",
        }
        return await self.hits(admission, prompt, completion)

    async def used(self) -> list[int]:
        claims = claims_of(
            self.policy.tenants["demo"], Subject("demo", "alice", "k", "tiny"), NOW_S
        )
        windows = [claim.key for claim in claims if claim.window]
        slots = [claim.key for claim in claims if not claim.window]
        return list(await peek(self.store, "demo", windows, slots, NOW_S))


async def test_a_hit_is_one_request_and_takes_no_slot() -> None:
    desk = Desk(limit(10), limit(1, Count.CONCURRENT))

    said = await desk.ask(30, 5)
    assert isinstance(said, HitAllowed)
    assert ("x-ratelimit-remaining-requests", "9") in said.headers
    assert await desk.used() == [1, 0]


async def test_each_token_of_a_hit_weighs_as_cached_input() -> None:
    weights = TokenWeights(1000, 100, 4000)
    desk = Desk(limit(1000, Count.TOKENS, weights=weights))
    await desk.ask(300, 100)

    assert await desk.used() == [40]


async def test_a_hit_costs_its_own_price_when_it_is_held_and_when_it_is_settled() -> None:
    """Its 400 tokens cost half a millionth each, and the request costs 1."""
    measure = PricedTokens({"tiny": BOOK})
    money = Limit(id="cost", limit=100 * NANOS, shape=Windowed(Per.MONTH, measure))
    desk = Desk(money)
    await desk.ask(300, 100)
    expected = [NANOS + 200_000]
    assert await desk.used() == expected
    assert PRICES.cost_of_kept(400, 1) == expected[0]

    usage = Usage(status=200, prompt=300, cached=50, completion=100, complete=True)
    await desk.limiter.settle("r", "demo", usage, Estimate(9, 9))
    await desk.limiter.settle("r", "demo", usage, Estimate(9, 9))
    assert await desk.used() == expected


async def test_a_full_limit_refuses_a_hit_and_names_itself() -> None:
    desk = Desk(limit(1))
    await desk.ask(3, 2, "r1")

    said = await desk.ask(3, 2, "r2")
    assert isinstance(said, HitRefused)
    assert said.limit == limit(1).id
    assert "1 request per minute" in said.message
    assert ("content-type", "application/json") in said.headers


async def test_a_hit_is_no_demand_for_pods() -> None:
    desk = Desk(limit(10))
    await desk.ask(3, 2)
    samples = [sample for metric in desk.registry.collect() for sample in metric.samples]

    assert not [one for one in samples if one.name.startswith("headgate_reserved_") and one.value]


def test_without_a_price_of_its_own_a_kept_answer_costs_as_cached_input() -> None:
    prices = Prices(Decimal(10), Decimal(5), Decimal(20))

    assert prices.cost_of_kept(1_000_000, 0) == 5 * NANOS
    assert "cached_answer" not in prices.by_kind()
    assert PRICES.by_kind()["cached_answer"] == "0.5"
