"""The limiter's requests and answers, and what remains of each limit. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf

from msgspec import Struct

from headgate.core.apis import Api
from headgate.core.contract import LimitsKey
from headgate.core.policy import Count, Limit, Per, Smooth, Windowed
from ratelimit.demand import Claim
from ratelimit.smooth import Refill, drops_per_unit, remaining_units, used_units
from ratelimit.store.protocol import Demand, Lease, Reservation, Reserved

_OUTAGE_WAIT_S = 5.0
"""When to come back after a refusal in an outage: nobody knows when the outage ends."""


class ReserveRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A request that asks to be admitted.

    `tokens` is its estimate, `prompt_tokens` the prompt's part of it. `api`, `prompt_tokens` and
    `version` are None where they are not known. `request_id` is for the body of a refusal. With
    `from_cache` no pod works on it: its answer was kept.
    """

    reservation: str
    tenant: str
    user: str
    key: str
    model: str
    api: Api | None
    tokens: int
    prompt_tokens: int | None = None
    version: str | None = None
    request_id: str = ""
    from_cache: bool = False


class LimitStatus(Struct, frozen=True, gc=False):
    """The rest of one limit that can refuse: clients do not see shadow limits.

    `limit` and `remaining` of cost are in nanos. `resets_at_s` (since the epoch) is None for
    requests in flight; a smooth limit resets when all of it remains again.
    """

    rule: Limit
    remaining: int
    resets_at_s: float | None

    @property
    def id(self) -> str:
        return self.rule.id

    @property
    def count(self) -> Count:
        return self.rule.count

    @property
    def per(self) -> Per | None:
        """The window of `limit`; None for requests in flight and for a burst."""
        return self.rule.shape.per if isinstance(self.rule.shape, Windowed) else None

    @property
    def limit(self) -> int:
        """The most that can remain: of a smooth limit its burst."""
        return self.rule.capacity

    def after(self, used: int, now_s: float) -> "LimitStatus":
        """The status when `used` is in use, as the store counts it."""
        return _status(self.rule, used, self.resets_at_s, now_s)


class Admitted(Struct, frozen=True, gc=False):
    """All limits had room and hold the request now, in a slot too if it `holds_slot`.

    `exceeded` are the shadow limits without room: they would have refused it. The settlement needs
    `held_by` (`Reserved.held_by`). vLLM takes the request with the smallest `priority` first; None
    leaves it as it is.
    """

    limits: tuple[LimitStatus, ...]
    exceeded: tuple[Limit, ...] = ()
    held_by: str = ""
    holds_slot: bool = False
    priority: int | None = None


class Reason(StrEnum):
    """Why a request was refused."""

    LIMIT = "limit"
    UNKNOWN_TENANT = "unknown_tenant"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is held. `hit` is the limit to wait for, None if no limit refused it.

    `needed` is the amount that the request asked of that limit, in its unit; None of a slot. `used`
    is what was used and held of it.
    """

    reason: Reason
    hit: LimitStatus | None
    retry_after_s: int
    limits: tuple[LimitStatus, ...]
    needed: int | None = None
    used: int = 0

    def facts(self) -> dict[LimitsKey, str]:
        """How full the limit was, for the usage record; empty if no limit refused."""
        if self.hit is None:
            return {}
        return {
            LimitsKey.REFUSED_BY: self.hit.id,
            LimitsKey.REFUSED_COUNT: self.hit.count,
            LimitsKey.REFUSED_MOST: str(self.hit.limit),
            LimitsKey.REFUSED_USED: str(self.used),
            LimitsKey.REFUSED_ASKED: str(1 if self.needed is None else self.needed),
        }


def statuses_of(
    reservation: Reservation, met: Mapping[str, Claim], reserved: Reserved, now_s: float
) -> dict[str, LimitStatus]:
    """The status of each limit that can refuse, by its counter's key: windows, then slots."""
    statuses = {}
    for asked in reservation.asked:
        key = asked.key
        claim = met[key]
        if not claim.limit.shadow:
            resets_at_s = claim.window.end_s if claim.window else None
            statuses[key] = _status(claim.limit, reserved.used[key], resets_at_s, now_s)
    return statuses


def refusal_of(
    reservation: Reservation,
    met: Mapping[str, Claim],
    reserved: Reserved,
    statuses: Mapping[str, LimitStatus],
) -> Refused:
    """Names the limit that has room last: before that it makes no sense to come back.

    In an outage nobody is told to wait for longer than 5 s.
    """
    now_s = reservation.now_s
    hits = [
        (asked, _fits_at_s(met[asked.key], asked, reserved, now_s))
        for asked in reservation.asked
        if asked.key in reserved.refused
    ]
    last, fits_at_s = max(hits, key=lambda pair: pair[1])
    most_s = _OUTAGE_WAIT_S if reserved.degraded else inf
    wait_s = min(most_s, round(fits_at_s - now_s, 6))  # the difference is some 0.2 us off
    return Refused(
        Reason.LIMIT,
        statuses[last.key],
        max(1, ceil(wait_s)),
        tuple(statuses.values()),
        _needed(met[last.key], last),
        used_units(met[last.key].limit, reserved.used[last.key]),
    )


def _needed(claim: Claim, asked: Demand | Lease) -> int | None:
    """The amount that was asked, in the limit's unit; None of a slot. A bucket counts in drops."""
    if isinstance(asked, Lease):
        return None
    if isinstance(claim.limit.shape, Smooth):
        return asked.amount // drops_per_unit(claim.limit)
    return asked.amount


def _status(rule: Limit, used: int, resets_at_s: float | None, now_s: float) -> LimitStatus:
    if isinstance(rule.shape, Smooth):
        resets_at_s = Refill(rule, used, now_s).full_at_s()
    return LimitStatus(rule, remaining_units(rule, used), resets_at_s)


def _fits_at_s(claim: Claim, asked: Demand | Lease, reserved: Reserved, now_s: float) -> float:
    """When there is room for what was refused: for a slot at any time."""
    if claim.window is not None:
        return claim.window.end_s
    if isinstance(asked, Lease):
        return now_s
    return Refill(claim.limit, reserved.used[asked.key], now_s).fits_at_s(asked.amount)
