"""Which limits one request meets, and the counter of each. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from headgate.core.policy import Count, Each, Limit, Tenant, TokenWeights
from ratelimit.smooth import Refill, drain_of, drops_per_unit
from ratelimit.store.keys import escaped
from ratelimit.store.protocol import (
    CLOCK_SKEW_S,
    MAX_COUNT,
    REQUESTS,
    Demand,
    Lease,
    Reservation,
    Spent,
    Weights,
)
from ratelimit.windows import Window, window

HOLD_S = 6 * 3600.0
"""How long an answer may take and still be settled; after that its estimate stands."""

_NOTHING = Weights()


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks for which model, as ext_authz and ext_proc found out."""

    tenant: str
    user: str
    key: str
    model: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One limit that a request meets. `window` is None for requests in flight and smooth limits.

    `key` names the counter within the tenant: the limit, the subject, the window's start.
    `weights` say what the request adds to it, nothing for a slot.
    """

    limit: Limit
    key: str
    window: Window | None
    weights: Weights

    @property
    def is_slot(self) -> bool:
        """Whether it asks for a slot and not for an amount."""
        return self.limit.per is None


def claims_of(tenant: Tenant, subject: Subject, now_s: float) -> tuple[Claim, ...]:
    """Every limit of the tenant that this subject meets now.

    A model that costs nothing meets no limit of cost: it runs on when all money is spent. Of
    limits that share a counter only the smallest can ever be met, so that keys are distinct.
    """
    claims: dict[str, Claim] = {}
    names = _names(subject)
    for limit in tenant.limits:
        if _meets(limit.users, subject.user) and _meets(limit.models, subject.model):
            weights = _weights(limit, subject.model)
            if limit.count is Count.COST and weights == _NOTHING:
                continue
            claim = _claim(limit, tenant, names, weights, now_s)
            other = claims.get(claim.key)
            if other is None or limit.limit < other.limit.limit:
                claims[claim.key] = claim
    return tuple(claims.values())


def reservation_of(
    reservation: str,
    tenant: str,
    claims: tuple[Claim, ...],
    tokens: int,
    now_s: float,
    prompt_tokens: int | None = None,
) -> Reservation:
    """What the store is asked to hold for a request that is estimated at `tokens`.

    `prompt_tokens` of them are the prompt's; where that is not known, all of them count as the
    kind that weighs most. A limit (or burst) smaller than the estimate is asked for all that it
    has. Nothing asks for less than 1: a limit that is used up, or 0, refuses what weighs nothing
    too.
    """
    estimated = _estimated(tokens, prompt_tokens)
    demands = []
    leases = []
    for claim in claims:
        limit = claim.limit
        if claim.is_slot:
            leases.append(
                Lease(
                    key=claim.key,
                    limit=limit.limit,
                    lease_s=limit.lease_s,
                    enforced=not limit.shadow,
                    on_outage=limit.on_outage,
                )
            )
            continue
        most = min(limit.capacity, MAX_COUNT)
        amount = max(1, min(most, max(map(claim.weights.amount, estimated))))
        drops = drops_per_unit(limit)
        demands.append(
            Demand(
                weights=claim.weights.times(drops),
                key=claim.key,
                amount=amount * drops,
                limit=min(most * drops, MAX_COUNT),
                expires_at_s=_expires_at_s(claim, now_s),
                enforced=not limit.shadow,
                on_outage=limit.on_outage,
                drain=drain_of(limit),
                slice=limit.slice or 0,
            )
        )
    hold_s = max([HOLD_S, *(lease.lease_s for lease in leases)])
    return Reservation(
        id=reservation,
        tenant=tenant,
        demands=tuple(demands),
        leases=tuple(leases),
        hold_s=hold_s,
        now_s=now_s,
    )


def _expires_at_s(claim: Claim, now_s: float) -> int:
    """When the counter is no longer needed; of a bucket, when all that it can hold has drained."""
    if claim.window is not None:
        return claim.window.end_s + CLOCK_SKEW_S
    capacity = claim.limit.capacity * drops_per_unit(claim.limit)
    return ceil(Refill(claim.limit, capacity, now_s).full_at_s())


def _meets(named: frozenset[str], value: str) -> bool:
    return not named or value in named


def _estimated(tokens: int, prompt_tokens: int | None) -> tuple[Spent, ...]:
    """What the request may use. Whatever of it weighs most is held: never less than it can be."""
    if prompt_tokens is None:
        return Spent(1, input=tokens), Spent(1, cached=tokens), Spent(1, output=tokens)
    output = tokens - prompt_tokens
    return (
        Spent(1, input=prompt_tokens, output=output),
        Spent(1, cached=prompt_tokens, output=output),
    )


def _weights(limit: Limit, model: str) -> Weights:
    """What a request to the model adds to the limit's counter."""
    match limit.count:
        case Count.REQUESTS:
            return REQUESTS
        case Count.TOKENS:
            each = limit.weights
        case Count.COST:
            each = limit.costs.get(model) or _dearest(limit.costs.values())
        case Count.CONCURRENT:
            return _NOTHING
    return _of_tokens(each)


@lru_cache(maxsize=4_096)  # of the policy; a reservation keeps them for as long as it is held
def _of_tokens(each: TokenWeights) -> Weights:
    return Weights(0, each.input, each.cached_input, each.output)


def _dearest(costs: Iterable[TokenWeights]) -> TokenWeights:
    """For a model that a new policy has taken from the tenant while its request came in."""
    costs = tuple(costs)
    return TokenWeights(
        max(each.input for each in costs),
        max(each.cached_input for each in costs),
        max(each.output for each in costs),
    )


def _claim(
    limit: Limit, tenant: Tenant, names: list[tuple[Each, str]], weights: Weights, now_s: float
) -> Claim:
    span = None
    if limit.per is not None and limit.burst is None:
        span = window(limit.per, tenant.calendar, now_s)
    parts = [_escaped(limit.id)]
    parts += [name for each, name in names if each in limit.each]
    if span is not None:
        parts.append(f"{span.start_s}")
    return Claim(limit, "/".join(parts), span, weights)


def _names(subject: Subject) -> list[tuple[Each, str]]:
    """What each dimension adds to a counter's key, made once for all limits of a request."""
    return [(each, f"{each}={_escaped(_value(each, subject))}") for each in Each]


def _value(each: Each, subject: Subject) -> str:
    match each:
        case Each.USER:
            return subject.user
        case Each.KEY:
            return subject.key
        case Each.MODEL:
            return subject.model


_escaped = lru_cache(maxsize=16_384)(escaped)
"""Every request repeats the names of the policy."""
