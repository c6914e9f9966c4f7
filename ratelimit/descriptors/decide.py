"""Decides a call of another domain: the hits to count, and the status of each descriptor. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from headgate.core.policy import Calendar
from ratelimit.descriptors.tree import DescriptorEntry, DescriptorLevel, Met, Rate, meet
from ratelimit.keys import CLOCK_SKEW_S, escaped
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.protocol import MAX_COUNT
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
    """The answer for one descriptor. `rate` and `window` are None without a counted limit.

    `hits` were asked for when `before` were in use.
    """

    outcome: DescriptorOutcome
    limit_id: str = ""
    rate: Rate | None = None
    window: Window | None = None
    remaining: int = 0
    hits: int = 0
    before: int = 0

    @property
    def is_over(self) -> bool:
        """Whether its code is OVER_LIMIT. The call may pass nevertheless, see `is_refused`."""
        return self.outcome in (DescriptorOutcome.OVER, DescriptorOutcome.QUOTA)

    @property
    def remaining_before(self) -> int:
        """The room of its limit before this call; 0 without a counted limit."""
        return 0 if self.rate is None else max(0, self.rate.limit - self.before)


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
    met = [
        None if item is not None and item.rate.per and item.rate.name in replaced else item
        for item in met
    ]
    quotas_refuse = not counts_refused and _quotas_can_refuse(met, descriptors)
    claims: list[RateClaim | None] = []
    for item, descriptor in zip(met, descriptors, strict=True):
        if item is None:
            claims.append(None)
            continue
        refuses = quotas_refuse if item.rate.quota else not counts_refused
        refuses = refuses and not item.rate.shadow and not descriptor.gives_back
        claims.append(_claim(item, descriptor, now_s, refuses))
    return tuple(claims)


def _quotas_can_refuse(met: list[Met | None], descriptors: tuple[Descriptor, ...]) -> bool:
    """Whether each quota of the call may be used up. One in shadow mode never is."""
    return not any(
        item.rate.quota and item.rate.per and (item.rate.shadow or descriptor.gives_back)
        for item, descriptor in zip(met, descriptors, strict=True)
        if item is not None
    )


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


def is_refused(statuses: Iterable[Status]) -> bool:
    """Whether the call is refused: if any limit is used up, or if all its quotas are."""
    quotas = []
    for status in statuses:
        if status.outcome is DescriptorOutcome.OVER:
            return True
        if status.rate is not None and status.rate.quota:
            quotas.append(status.outcome is DescriptorOutcome.QUOTA)
    return bool(quotas) and all(quotas)


def near_limit_hits(status: Status, ratio: float) -> int:
    """How many of the hits lie between this part of the limit and the limit itself."""
    if status.rate is None:
        return 0
    start = max(int(status.rate.limit * ratio), status.before)
    return max(0, min(status.before + status.hits, status.rate.limit) - start)


def lost_charge(statuses: Iterable[Status]) -> Status | None:
    """The first refused descriptor that had room, but for fewer hits than it asked for.

    In a call that was not counted, this looks like a charge at the end of a stream. The room that
    remains admits further requests, whose charges are refused again.
    """
    for status in statuses:
        if status.outcome is DescriptorOutcome.OVER and status.hits > 1 and status.remaining_before:
            return status
    return None


def metadata_of(statuses: Iterable[Status]) -> dict[str, Any]:
    """The configured metadata of the limits that have room. Of two values the first remains."""
    merged: dict[str, Any] = {}
    for status in statuses:
        if status.rate is not None and not status.is_over:
            _merge(merged, status.rate.metadata)
    return merged


def _merge(merged: dict[str, Any], added: Mapping[str, Any]) -> None:
    for name, value in added.items():
        if isinstance(value, Mapping):
            inner = merged.setdefault(name, {})
            if isinstance(inner, dict):
                _merge(inner, value)
        else:
            merged.setdefault(name, value)


def _met(top: DescriptorLevel, descriptor: Descriptor) -> Met | None:
    if descriptor.override is not None:
        return Met(descriptor.override, descriptor.entries)
    return meet(top, descriptor.entries)


def _claim(met: Met, descriptor: Descriptor, now_s: float, refuses: bool) -> RateClaim:
    rate = met.rate
    if rate.per is None:
        return RateClaim(rate)
    span = window(rate.per, UTC, now_s)
    amount = min(descriptor.hits, MAX_COUNT)
    hit = Hit(
        key=_key(met, span),
        amount=-amount if descriptor.gives_back else amount,
        limit=rate.limit if refuses else None,
        expires_at_s=span.end_s + CLOCK_SKEW_S,
        quota=rate.quota and refuses,
    )
    return RateClaim(rate=rate, window=span, hit=hit, gives_back=descriptor.gives_back)


def _status(claim: RateClaim, hit: Hit, index: int, counted: CountedHits) -> Status:
    rate, used = claim.rate, counted.used[index]
    before = used if counted.refused else max(0, used - hit.amount)
    base = Status(
        outcome=DescriptorOutcome.OK,
        limit_id=rate.id,
        rate=rate,
        window=claim.window,
        remaining=max(0, rate.limit - used),
        hits=max(0, hit.amount),
        before=before,
    )
    if claim.gives_back:
        return base
    # The store knows best, as a counter may be there twice in one call.
    is_over = index in counted.refused
    if hit.limit is None or hit.quota:
        is_over = is_over or before + max(1, hit.amount) > rate.limit
    if not is_over:
        return base
    return replace(base, outcome=_over(rate), remaining=0)


def _over(rate: Rate) -> DescriptorOutcome:
    if rate.shadow:
        return DescriptorOutcome.SHADOW
    return DescriptorOutcome.QUOTA if rate.quota else DescriptorOutcome.OVER


def _key(met: Met, span: Window) -> str:
    """The counter's name: the unit, the window, and the entries, so that each name is unique."""
    parts = [f"{escaped(key)}={escaped(value)}" for key, value in met.entries]
    name = "/".join([f"{met.rate.per}", f"{span.start_s}", *parts])
    return name if len(name) <= _LONGEST_KEY else sha256(name.encode()).hexdigest()
