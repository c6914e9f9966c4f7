"""Reservations and policies for tests, with what matters spelled out at the call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from zoneinfo import ZoneInfo

from headgate.core.apis import Api
from headgate.core.policy import (
    Calendar,
    CompiledPolicy,
    Count,
    CountedRequests,
    Each,
    Limit,
    Measure,
    Per,
    PricedTokens,
    Shape,
    Slots,
    Smooth,
    Tenant,
    TokenWeights,
    WeightedTokens,
    Windowed,
)
from headgate.core.prices import PriceBook, PricePeriod, Prices
from ratelimit.answers import ReserveRequest
from ratelimit.store.protocol import (
    REQUESTS,
    TOKENS,
    Demand,
    Lease,
    PeekQuery,
    Reservation,
    Reserved,
    ReserveDecision,
    Spent,
    Store,
)

NOW_S = 1_800_000_000.0
EXPIRES_AT_S = int(NOW_S) + 1800
"""Later than any of these tests waits: what counters do at their end has tests of its own."""

EACH_ONCE = TokenWeights()
A_NANO_EACH = dict.fromkeys(("tiny", "huge"), EACH_ONCE)
"""Models whose tokens cost a nano: a limit of cost then counts them one by one."""

_numbers = count()


def new_name(kind: str) -> str:
    """A tenant or reservation that no other test has."""
    return f"{kind}-{next(_numbers)}"


def tokens(amount: int, limit: int, key: str = "tokens") -> Demand:
    return Demand(weights=TOKENS, key=key, amount=amount, limit=limit, expires_at_s=EXPIRES_AT_S)


def smooth(amount: int, burst: int, per_s: int, key: str = "smooth") -> Demand:
    """Tokens of a bucket, in thousandths: in a millisecond drain as many as tokens in a second."""
    return Demand(
        weights=TOKENS.times(1000),
        key=key,
        amount=amount * 1000,
        limit=burst * 1000,
        expires_at_s=EXPIRES_AT_S,
        drain=per_s,
    )


def requests(limit: int, key: str = "requests") -> Demand:
    return Demand(weights=REQUESTS, key=key, amount=1, limit=limit, expires_at_s=EXPIRES_AT_S)


def spent(tokens: int, requests: int) -> Spent:
    """The use of a request whose tokens are all generated."""
    return Spent(requests=requests, output=tokens)


def lease(limit: int, key: str = "slots", lease_s: float = 30.0) -> Lease:
    return Lease(key=key, limit=limit, lease_s=lease_s)


def admitted(*exceeded: str, **used: int) -> Reserved:
    """The answer that admits: what is in use now, and which shadow limits had no room."""
    return Reserved(decision=ReserveDecision.ADMITTED, used=used, exceeded=exceeded)


def refused(*keys: str, exceeded: tuple[str, ...] = (), **used: int) -> Reserved:
    """The answer that refuses for these counters and leases."""
    return Reserved(decision=ReserveDecision.REFUSED, used=used, refused=keys, exceeded=exceeded)


async def peek(
    store: Store,
    tenant: str,
    counters: Sequence[str],
    leases: Sequence[str],
    now_s: float,
    *,
    drains: Mapping[str, int] | None = None,
) -> tuple[int, ...]:
    """The use of each counter, then of each lease."""
    used = await store.peek(
        PeekQuery(tenant=tenant, now_s=now_s, counters=counters, leases=leases, drains=drains or {})
    )
    return tuple(used[key] for key in (*counters, *leases))


def request(
    reservation: str,
    tokens: int,
    *,
    prompt_tokens: int | None = None,
    tenant: str = "demo",
    user: str = "alice",
    key: str = "k",
    model: str = "tiny",
    api: Api | None = None,
) -> ReserveRequest:
    """A request that is estimated at `tokens`."""
    return ReserveRequest(
        reservation=reservation,
        tenant=tenant,
        user=user,
        key=key,
        model=model,
        api=api,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
    )


@dataclass(frozen=True)
class Shop:
    """Makes reservations of one tenant."""

    tenant: str = field(default_factory=lambda: new_name("tenant"))

    def ask(
        self, *asked: Demand | Lease, id: str = "", now_s: float = NOW_S, hold_s: float = 3600.0
    ) -> Reservation:
        return Reservation(
            id=id or new_name("reservation"),
            tenant=self.tenant,
            demands=tuple(each for each in asked if isinstance(each, Demand)),
            leases=tuple(each for each in asked if isinstance(each, Lease)),
            hold_s=hold_s,
            now_s=now_s,
        )


def limit(
    number: int,
    what: Count = Count.REQUESTS,
    *,
    per: Per = Per.MINUTE,
    each: tuple[Each, ...] = (),
    users: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    shadow: bool = False,
    burst: int | None = None,
    slice: int | None = None,
    weights: TokenWeights = EACH_ONCE,
    costs: Mapping[str, TokenWeights] | None = None,
) -> Limit:
    name = f"{what}-{per}-{'-'.join(each)}-{'-'.join(users)}-{'-'.join(models)}"
    name = f"shadow-{name}" if shadow else name
    name = f"{name}-smooth" if burst else name
    name += "" if weights == EACH_ONCE else f"-{weights}"
    return Limit(
        id=name,
        limit=number,
        shape=_shape(what, per, burst, slice, _measure(what, weights, costs)),
        each=frozenset(each),
        users=frozenset(users),
        models=frozenset(models),
        shadow=shadow,
    )


def _shape(what: Count, per: Per, burst: int | None, size: int | None, measure: Measure) -> Shape:
    if what is Count.CONCURRENT:
        return Slots(lease_s=30.0)
    if burst is None:
        return Windowed(per, measure, size)
    assert not isinstance(measure, PricedTokens)
    return Smooth(per, burst, measure)


def books_of(costs: Mapping[str, TokenWeights]) -> dict[str, PriceBook]:
    """Price books that give these weights at any time."""
    return {model: _book(each) for model, each in costs.items()}


def _book(each: TokenWeights) -> PriceBook:
    kinds = each.input, each.cached_input, each.output
    return PriceBook((PricePeriod(None, Prices(*(Decimal(kind).scaleb(-6) for kind in kinds))),))


def _measure(
    what: Count, weights: TokenWeights, costs: Mapping[str, TokenWeights] | None
) -> Measure:
    if what is Count.COST:
        return PricedTokens(books_of(A_NANO_EACH if costs is None else costs))
    return WeightedTokens(weights) if what is Count.TOKENS else CountedRequests()


def policy_with(*limits: Limit, tenant: str = "demo", timezone: str = "UTC") -> CompiledPolicy:
    made = Tenant(
        name=tenant,
        calendar=Calendar(ZoneInfo(timezone)),
        models=frozenset({"tiny"}),
        limits=limits,
    )
    return CompiledPolicy(models={}, tenants={tenant: made}, keys={})
