"""Decides a call of another domain: the hits to count, and the status of each descriptor. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from zoneinfo import ZoneInfo

from headgate.core.policy import Calendar
from ratelimit.descriptors.tree import DescriptorEntry, DescriptorLevel, Met, Rate, meet
from ratelimit.keys import CLOCK_SKEW_S, escaped
from ratelimit.store.protocol import MAX_COUNT, CountedHits, Hit
from ratelimit.windows import Window, window

UTC = Calendar(ZoneInfo("UTC"))
"""Envoy's units have no timezone; weeks begin on Monday and months on their first day."""

_LONGEST_KEY = 200
"""A longer counter name is replaced by its digest: a client may send 10 KB as a value."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor of a call. It adds or gives back its `hits`; 0 hits only read the counter.

    `override` is a limit in the call itself, in place of the configured one.
    """

    entries: tuple[DescriptorEntry, ...]
    hits: int
    gives_back: bool = False
    override: Rate | None = None


@dataclass(frozen=True, slots=True)
class RateClaim:
    """A limit that one descriptor meets. `hit` is None for unlimited, which counts nothing."""

    rate: Rate
    window: Window | None = None
    hit: Hit | None = None
    gives_back: bool = False


class DescriptorOutcome(StrEnum):
    """The outcome of one descriptor: the label values of headgate_descriptors."""

    OK = "ok"
    OVER = "over_limit"
    SHADOW = "shadow_over_limit"
    QUOTA = "quota_over_limit"
    UNLIMITED = "unlimited"
    UNMATCHED = "no_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The answer for one descriptor. `rate` and `window` are None without a counted limit."""

    outcome: DescriptorOutcome
    limit_id: str = ""
    rate: Rate | None = None
    window: Window | None = None
    remaining: int = 0


def scope_of(domain: str) -> str:
    """The store's name for a domain. It contains a `/`, so no tenant of a policy can have it."""
    return f"domain/{domain}"


def claims_of(
    top: DescriptorLevel,
    descriptors: tuple[Descriptor, ...],
    now_s: float,
    counts_refused: bool = False,
) -> tuple[RateClaim | None, ...]:
    """The limit of each descriptor; None for a descriptor without a limit or with a replaced one.

    With `counts_refused`, the store counts every hit, also above the limit.
    """
    met = [_met(top, descriptor) for descriptor in descriptors]
    replaced = {name for item in met if item is not None for name in item.rate.replaces}
    claims: list[RateClaim | None] = []
    for item, descriptor in zip(met, descriptors, strict=True):
        if item is None or (item.rate.name in replaced and item.rate.per is not None):
            claims.append(None)
        else:
            claims.append(_claim(item, descriptor, now_s, counts_refused))
    return tuple(claims)


def hits_of(claims: tuple[RateClaim | None, ...]) -> tuple[Hit, ...]:
    """The hits that the store counts, in the order of the claims."""
    return tuple(claim.hit for claim in claims if claim is not None and claim.hit is not None)


def statuses_of(claims: tuple[RateClaim | None, ...], counted: CountedHits) -> tuple[Status, ...]:
    """The answers for the descriptors in order. `counted` is the store's answer to `hits_of`."""
    statuses = []
    index = 0
    for claim in claims:
        if claim is None:
            statuses.append(Status(outcome=DescriptorOutcome.UNMATCHED))
        elif claim.hit is None:
            status = Status(
                outcome=DescriptorOutcome.UNLIMITED, limit_id=claim.rate.id, remaining=MAX_COUNT
            )
            statuses.append(status)
        else:
            statuses.append(_status(claim, claim.hit, index, counted))
            index += 1
    return tuple(statuses)


def _met(top: DescriptorLevel, descriptor: Descriptor) -> Met | None:
    if descriptor.override is not None:
        return Met(descriptor.override, descriptor.entries)
    return meet(top, descriptor.entries)


def _claim(met: Met, descriptor: Descriptor, now_s: float, counts_refused: bool) -> RateClaim:
    rate = met.rate
    store_refuses = rate.enforced and not descriptor.gives_back and not counts_refused
    if rate.per is None:
        return RateClaim(rate)
    span = window(rate.per, UTC, now_s)
    amount = min(descriptor.hits, MAX_COUNT)
    hit = Hit(
        key=_key(met, span),
        amount=-amount if descriptor.gives_back else amount,
        limit=rate.limit if store_refuses else None,
        expires_at_s=span.end_s + CLOCK_SKEW_S,
    )
    return RateClaim(rate=rate, window=span, hit=hit, gives_back=descriptor.gives_back)


def _status(claim: RateClaim, hit: Hit, index: int, counted: CountedHits) -> Status:
    rate, used = claim.rate, counted.used[index]
    base = Status(
        outcome=DescriptorOutcome.OK,
        limit_id=rate.id,
        rate=rate,
        window=claim.window,
        remaining=max(0, rate.limit - used),
    )
    if claim.gives_back:
        return base
    if hit.limit is None:
        before = used if counted.refused else used - hit.amount
        is_over = before + max(1, hit.amount) > rate.limit
    else:
        is_over = index in counted.refused
    if not is_over:
        return base
    mode = DescriptorOutcome.QUOTA if rate.quota else DescriptorOutcome.SHADOW
    return replace(base, outcome=DescriptorOutcome.OVER if rate.enforced else mode, remaining=0)


def _key(met: Met, span: Window) -> str:
    """The counter's name: the unit, the window, and the entries, so that each name is unique."""
    parts = [f"{escaped(key)}={escaped(value)}" for key, value in met.entries]
    name = "/".join([f"{met.rate.per}", f"{span.start_s}", *parts])
    return name if len(name) <= _LONGEST_KEY else sha256(name.encode()).hexdigest()
