"""What a call of another domain asks of the store, and what the store's answer means. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from zoneinfo import ZoneInfo

from headgate.core.policy import Calendar
from ratelimit.descriptors.tree import Entry, Level, Met, Rate, meet
from ratelimit.store.keys import escaped
from ratelimit.store.protocol import CLOCK_SKEW_S, MAX_COUNT, CountedHits, Hit
from ratelimit.windows import Window, window

UTC = Calendar(ZoneInfo("UTC"))
"""Envoy's units know no timezone; weeks begin on Monday and months on their first day."""

_LONGEST_KEY = 200
"""A longer counter name is kept as its digest: a client may send 10 KB as a value."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor of a call. `hits` is what it adds, or gives back; adding 0 only looks.

    `override` is the limit that the caller brought along in place of the configured one.
    """

    entries: tuple[Entry, ...]
    hits: int
    gives_back: bool = False
    override: Rate | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A limit that one descriptor meets. `hit` is None where nothing is counted (unlimited)."""

    rate: Rate
    window: Window | None = None
    hit: Hit | None = None
    gives_back: bool = False


class Outcome(StrEnum):
    """What became of one descriptor: the words of headgate_descriptors."""

    OK = "ok"
    OVER = "over_limit"
    SHADOW = "shadow_over_limit"
    QUOTA = "quota_over_limit"
    UNLIMITED = "unlimited"
    UNMATCHED = "no_limit"


@dataclass(frozen=True, slots=True)
class Status:
    """The answer for one descriptor. `rate` and `window` are None without a counted limit."""

    outcome: Outcome
    limit_id: str = ""
    rate: Rate | None = None
    window: Window | None = None
    remaining: int = 0


def scope_of(domain: str) -> str:
    """The store's name for a domain. No tenant of a policy can have it: it holds a `/`."""
    return f"domain/{domain}"


def claims_of(
    top: Level, descriptors: tuple[Descriptor, ...], now_s: float, counts_refused: bool = False
) -> tuple[Claim | None, ...]:
    """The limit of each descriptor; None where it meets none, or a replaced one.

    With `counts_refused` the store is asked to count whatever the limit is.
    """
    met = [_met(top, descriptor) for descriptor in descriptors]
    replaced = {name for one in met if one is not None for name in one.rate.replaces}
    claims: list[Claim | None] = []
    for one, descriptor in zip(met, descriptors, strict=True):
        if one is None or (one.rate.name in replaced and one.rate.per is not None):
            claims.append(None)
        else:
            claims.append(_claim(one, descriptor, now_s, counts_refused))
    return tuple(claims)


def hits_of(claims: tuple[Claim | None, ...]) -> tuple[Hit, ...]:
    """What the store is asked to count."""
    return tuple(claim.hit for claim in claims if claim is not None and claim.hit is not None)


def statuses_of(claims: tuple[Claim | None, ...], counted: CountedHits) -> tuple[Status, ...]:
    """The answer for each descriptor, in their order; `counted` is the store's to `hits_of`."""
    statuses = []
    place = 0
    for claim in claims:
        if claim is None:
            statuses.append(Status(Outcome.UNMATCHED))
        elif claim.hit is None:
            statuses.append(Status(Outcome.UNLIMITED, claim.rate.id, remaining=MAX_COUNT))
        else:
            statuses.append(_status(claim, claim.hit, place, counted))
            place += 1
    return tuple(statuses)


def _met(top: Level, descriptor: Descriptor) -> Met | None:
    if descriptor.override is not None:
        return Met(descriptor.override, descriptor.entries)
    return meet(top, descriptor.entries)


def _claim(met: Met, descriptor: Descriptor, now_s: float, counts_refused: bool) -> Claim:
    rate = met.rate
    store_refuses = rate.enforced and not descriptor.gives_back and not counts_refused
    if rate.per is None:
        return Claim(rate)
    span = window(rate.per, UTC, now_s)
    amount = min(descriptor.hits, MAX_COUNT)
    hit = Hit(
        key=_key(met, span),
        amount=-amount if descriptor.gives_back else amount,
        limit=rate.limit if store_refuses else None,
        expires_at_s=span.end_s + CLOCK_SKEW_S,
    )
    return Claim(rate, span, hit, descriptor.gives_back)


def _status(claim: Claim, hit: Hit, place: int, counted: CountedHits) -> Status:
    rate, used = claim.rate, counted.used[place]
    base = Status(Outcome.OK, rate.id, rate, claim.window, max(0, rate.limit - used))
    if claim.gives_back:
        return base
    if hit.limit is None:
        before = used if counted.refused else used - hit.amount
        is_over = before + max(1, hit.amount) > rate.limit
    else:
        is_over = place in counted.refused
    if not is_over:
        return base
    mode = Outcome.QUOTA if rate.quota else Outcome.SHADOW
    return replace(base, outcome=Outcome.OVER if rate.enforced else mode, remaining=0)


def _key(met: Met, span: Window) -> str:
    """The counter's name: the unit, the window, and the entries so that no two share a name."""
    parts = [f"{escaped(key)}={escaped(value)}" for key, value in met.entries]
    name = "/".join([f"{met.rate.per}", f"{span.start_s}", *parts])
    return name if len(name) <= _LONGEST_KEY else sha256(name.encode()).hexdigest()
