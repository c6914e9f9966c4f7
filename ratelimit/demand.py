"""Which limits one request meets, and the counter of each. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from ratelimit.store.protocol import MAX_COUNT, REQUESTS, TOKENS, Demand, Lease, Reservation
from ratelimit.windows import Window, window
from registry.types import Count, Each, Limit, Tenant

HOLD_S = 6 * 3600.0
"""How long an answer may take and still be settled; after that its estimate stands."""

_CLOCK_SKEW_S = 60
"""Counters outlive their window by this, for replicas whose clocks are late."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks for which model, as ext_authz and ext_proc found out."""

    tenant: str
    user: str
    key: str
    model: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One limit that a request meets. `window` is None for requests in flight.

    `key` names the counter within the tenant: the limit, the subject, the window's start.
    """

    limit: Limit
    key: str
    window: Window | None


def claims_of(tenant: Tenant, subject: Subject, now_s: float) -> tuple[Claim, ...]:
    """Every limit of the tenant that this subject meets now.

    Of limits that share a counter only the smallest can ever be met, so that keys are distinct.
    """
    claims: dict[str, Claim] = {}
    for limit in tenant.limits:
        if _meets(limit.users, subject.user) and _meets(limit.models, subject.model):
            claim = _claim(limit, tenant, subject, now_s)
            other = claims.get(claim.key)
            if other is None or limit.limit < other.limit.limit:
                claims[claim.key] = claim
    return tuple(claims.values())


def reservation_of(
    reservation: str, tenant: str, claims: tuple[Claim, ...], tokens: int, now_s: float
) -> Reservation:
    """What the store is asked to hold for a request that is estimated at `tokens`.

    A token limit smaller than the estimate is asked for all that it has. Nothing asks for
    less than 1: a limit that is used up, or 0, refuses what costs nothing too.
    """
    demands = []
    leases = []
    for claim in claims:
        limit = claim.limit
        if claim.window is None:
            leases.append(
                Lease(claim.key, limit.limit, limit.lease_s, not limit.shadow, limit.on_outage)
            )
            continue
        weights, amount = REQUESTS, 1
        if limit.count is Count.TOKENS:
            weights, amount = TOKENS, max(1, min(tokens, limit.limit, MAX_COUNT))
        expires_at_s = claim.window.end_s + _CLOCK_SKEW_S
        most = min(limit.limit, MAX_COUNT)
        enforced = not limit.shadow
        on_outage, ahead = limit.on_outage, limit.slice or 0
        demands.append(
            Demand(weights, claim.key, amount, most, expires_at_s, enforced, on_outage, ahead)
        )
    hold_s = max([HOLD_S, *(lease.lease_s for lease in leases)])
    return Reservation(reservation, tenant, tuple(demands), tuple(leases), hold_s, now_s)


def _meets(named: frozenset[str], value: str) -> bool:
    return not named or value in named


def _claim(limit: Limit, tenant: Tenant, subject: Subject, now_s: float) -> Claim:
    span = None if limit.per is None else window(limit.per, tenant.timezone, now_s)
    parts = [_escaped(limit.id)]
    parts += [f"{each}={_escaped(_value(each, subject))}" for each in Each if each in limit.each]
    if span is not None:
        parts.append(f"{span.start_s}")
    return Claim(limit, "/".join(parts), span)


def _value(each: Each, subject: Subject) -> str:
    match each:
        case Each.USER:
            return subject.user
        case Each.KEY:
            return subject.key
        case Each.MODEL:
            return subject.model


@lru_cache(maxsize=16_384)  # names of the policy, which every request repeats
def _escaped(text: str) -> str:
    """Text without any of our separators, and different for different text."""
    return quote(text, safe="", errors="surrogatepass")
