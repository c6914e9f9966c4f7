"""Finds the limits that a request meets, and builds its reservation. Pure."""

from collections.abc import Mapping
from functools import lru_cache
from math import ceil

from msgspec import Struct

from headgate.core.apis import Api
from headgate.core.policy import (
    CompiledPolicy,
    CountedRequests,
    Each,
    Limit,
    PerSecond,
    PricedTokens,
    Shape,
    Slots,
    Smooth,
    Tenant,
    WeightedTokens,
    Windowed,
)
from headgate.core.prices import PriceBook, TokenWeights, dearest
from ratelimit.fair.tags import FairDemand
from ratelimit.keys import CLOCK_SKEW_S, escaped
from ratelimit.smooth import Refill, drain_of, drops_per_unit
from ratelimit.store.protocol import (
    MAX_COUNT,
    REQUESTS,
    Demand,
    Lease,
    Reservation,
    Weights,
)
from ratelimit.windows import Window, window

HOLD_S = 6 * 3600.0
"""An answer that takes longer cannot be settled any more: its estimate remains charged."""

_NOTHING = Weights()


class Subject(Struct, frozen=True, gc=False):
    """The caller and the model of a request, as ext_authz and ext_proc determined them."""

    tenant: str
    user: str
    key: str
    model: str


class Claim(Struct, frozen=True, gc=False):
    """A limit that a request meets.

    `key` names the counter within the tenant by the limit, the subject and the start of the
    window. `window` is None unless the limit has windows. `weights` turn usage into the amount
    that the request adds to the counter; they are zero for a slot.
    """

    limit: Limit
    key: str
    window: Window | None
    weights: Weights

    @property
    def is_slot(self) -> bool:
        """Whether the request takes a slot of the limit, and not an amount."""
        return isinstance(self.limit.shape, Slots)


def claims_of(
    tenant: Tenant,
    subject: Subject,
    now_s: float,
    version: str | None = None,
    *,
    from_cache: bool = False,
) -> tuple[Claim, ...]:
    """Every limit of the tenant that this subject meets now, with distinct keys.

    Cost is by the prices of the model's `version`, or by the dearest ones where it is not known.
    A free model meets no limit of cost, so that it remains usable when the money is spent. Of
    limits with the same counter, only the smallest is a claim: the others can never refuse first.
    An answer `from_cache` takes no slot, and each of its tokens counts as one that was kept.
    """
    claims: dict[str, Claim] = {}
    user, model = subject.user, subject.model
    for limit in tenant.limits:
        if (limit.users and user not in limit.users) or (
            limit.models and model not in limit.models
        ):
            continue
        if from_cache and isinstance(limit.shape, Slots):
            continue
        weights = _weights(limit.shape, model, version, now_s, from_cache)
        if weights is None:
            continue
        key, span = counter_of(limit, tenant, subject, now_s)
        other = claims.get(key)
        if other is None or limit.limit < other.limit.limit:
            claims[key] = Claim(limit, key, span, weights)
    return tuple(claims.values())


def reservation_of(
    reservation: str,
    tenant: str,
    claims: tuple[Claim, ...],
    tokens: int,
    now_s: float,
    *,
    prompt_tokens: int | None = None,
    audio_seconds: int = 0,
    fair: FairDemand | None = None,
) -> Reservation:
    """The reservation of a request that is estimated at `tokens`, its prompt at `prompt_tokens`.

    With `prompt_tokens` unknown, all tokens count as the kind with the largest weight. If the
    estimate exceeds a limit (or burst), the demand is the whole limit. The smallest demand is 1,
    so that an exhausted limit, or a limit of 0, also refuses a request that weighs nothing.
    `fair` is its work in a queue of vLLM.
    """
    demands = []
    leases = []
    hold_s = HOLD_S
    for claim in claims:
        estimated = claim.weights.held(tokens, prompt_tokens, audio_seconds)
        match claim.limit.shape:
            case Windowed() as shape:
                demands.append(_of_window(claim, shape, estimated))
            case Smooth():
                demands.append(_of_bucket(claim, estimated, now_s))
            case Slots(lease_s=lease_s):
                leases.append(_lease(claim, lease_s))
                hold_s = max(hold_s, lease_s)
    return Reservation(
        id=reservation,
        tenant=tenant,
        demands=tuple(demands),
        leases=tuple(leases),
        hold_s=hold_s,
        now_s=now_s,
        fair=fair,
    )


def tokens_per_second(policy: CompiledPolicy, api: Api | None) -> int | None:
    """The price of a second of audio in tokens; None where it is not by length."""
    price = None if api is None else policy.without_usage.get(api)
    return price.tokens if isinstance(price, PerSecond) else None


def _of_window(claim: Claim, shape: Windowed, estimated: int) -> Demand:
    limit, span = claim.limit, claim.window
    if span is None:
        raise TypeError(f"the limit {limit.id} has no window")
    most = min(limit.limit, MAX_COUNT)
    return Demand(
        weights=claim.weights,
        key=claim.key,
        amount=max(1, min(most, estimated)),
        limit=most,
        expires_at_s=span.end_s + CLOCK_SKEW_S,
        enforced=not limit.shadow,
        on_outage=limit.on_outage,
        slice=shape.slice or 0,
    )


def _of_bucket(claim: Claim, estimated: int, now_s: float) -> Demand:
    """The demand in drops. The store keeps a bucket until a full one would have drained."""
    limit = claim.limit
    drops = drops_per_unit(limit)
    most = min(limit.capacity, MAX_COUNT)
    return Demand(
        weights=claim.weights.times(drops),
        key=claim.key,
        amount=max(1, min(most, estimated)) * drops,
        limit=min(most * drops, MAX_COUNT),
        expires_at_s=ceil(Refill(limit, limit.capacity * drops, now_s).full_at_s()),
        enforced=not limit.shadow,
        on_outage=limit.on_outage,
        drain=drain_of(limit),
    )


def _lease(claim: Claim, lease_s: float) -> Lease:
    limit = claim.limit
    return Lease(
        key=claim.key,
        limit=limit.limit,
        lease_s=lease_s,
        enforced=not limit.shadow,
        on_outage=limit.on_outage,
    )


def _weights(
    shape: Shape, model: str, version: str | None, now_s: float, from_cache: bool
) -> Weights | None:
    """The weights of a request to the model; None if the limit is of cost and the model is free."""
    if isinstance(shape, Slots):
        return _NOTHING
    match shape.measure:
        case CountedRequests():
            return REQUESTS
        case WeightedTokens(weights=each):
            return _of_tokens(each.kept() if from_cache else each)
        case PricedTokens(books=books):
            weights = _of_tokens(_price(books, model, version, now_s, from_cache))
            return None if weights == _NOTHING else weights


@lru_cache(maxsize=4_096)  # weights of the policy; a reservation keeps them while it is held
def _of_tokens(each: TokenWeights) -> Weights:
    return Weights(each.request, each.input, each.cached_input, each.output, each.audio_second)


def _price(
    books: Mapping[str, PriceBook],
    model: str,
    version: str | None,
    now_s: float,
    from_cache: bool,
) -> TokenWeights:
    """The price of a token; the dearest of all for a model that a reload removed from the tenant
    during its request."""
    book = books.get(model)
    if book is not None and from_cache:
        return book.at(now_s, version).prices.per_kept_token
    if book is not None:
        return book.weights(now_s, version)
    return dearest([one.weights(now_s) for one in books.values()])


def counter_of(
    limit: Limit, tenant: Tenant, subject: Subject, now_s: float
) -> tuple[str, Window | None]:
    """The counter of a limit that this subject meets now: its key, and its window if it has one."""
    named = _named_counter(limit.id, limit.each, subject)
    if isinstance(limit.shape, Windowed):
        span = window(limit.shape.per, tenant.calendar, now_s)
        return f"{named}/{span.start_s}", span
    return named, None


@lru_cache(maxsize=16_384)  # a caller's requests to a model meet the same counters
def _named_counter(limit: str, each: frozenset[Each], subject: Subject) -> str:
    """The limit, and the subject in each of its dimensions."""
    names = {Each.USER: subject.user, Each.KEY: subject.key, Each.MODEL: subject.model}
    own = [f"{part}={escaped(name)}" for part, name in names.items() if part in each]
    return "/".join((escaped(limit), *own))
