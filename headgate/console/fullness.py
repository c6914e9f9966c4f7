"""How full the limits of a tenant are: each counter with its bar, its end and its pace. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from headgate.core.amounts import written
from headgate.core.notices import FORECAST
from headgate.core.policy import Caller, Count, Limit, Smooth, Tenant
from headgate.ledger.notices.thresholds import forecast
from headgate.policy import limit_text
from ratelimit.demand import Claim
from ratelimit.peek import claims_by_models
from ratelimit.smooth import Refill, drain_of, used_units
from ratelimit.store.protocol import PeekQuery

THRESHOLDS = (80, 100)
"""From these parts of a limit, in per cent, a bar is ochre and red."""
_WHOLE = Caller("", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter of a limit: whose it is, and how much of it is used.

    `who` is empty for the whole tenant. `used` and `limit` are in units of what it counts, nanos of
    the currency for cost. `ends_at` is when its window ends, or its bucket is full again.
    `forecast` is the use at that end, at the pace so far.
    """

    tenant: str
    rule: Limit
    who: str
    used: int
    limit: int
    ends_at: datetime | None
    forecast: int | None = None
    booked_nanos: int | None = None

    @property
    def is_budget(self) -> bool:
        """Whether it counts cost."""
        return self.rule.count is Count.COST

    @property
    def name(self) -> str:
        """The limit in words."""
        return limit_text(self.rule)

    @property
    def percent(self) -> float:
        """The used part; what has no room at all is full."""
        return 100 * self.used / self.limit if self.limit else 100.0

    @property
    def state(self) -> str:
        """The shape of its state."""
        return "bad" if self.percent >= THRESHOLDS[1] else "warn" if self.is_near else "ok"

    @property
    def told(self) -> str:
        """The thresholds of which people are told, in words; empty for none."""
        return ", ".join(one if one == FORECAST else f"{one} %" for one in self.rule.notify)

    @property
    def is_near(self) -> bool:
        """Whether it has passed the first threshold."""
        return self.percent >= THRESHOLDS[0]

    def words(self, number: int) -> str:
        """A number of what it counts."""
        return written(self.rule.count, number)


def counters_asked(
    tenant: Tenant, callers: Iterable[Caller], now_s: float
) -> dict[str, tuple[Claim, str]]:
    """The counters of these callers and of the whole tenant, by key, with whose they are."""
    found: dict[str, tuple[Claim, str]] = {}
    whole = replace(_WHOLE, tenant=tenant.name)
    for caller in (whole, *callers):
        for claim, models in claims_by_models(tenant, caller, now_s):
            if caller == whole and claim.limit.each:
                continue  # its counters are those of callers
            found.setdefault(claim.key, (claim, _who(claim.limit, caller, models)))
    return found


def _who(limit: Limit, caller: Caller, models: Sequence[str]) -> str:
    parts = {"user": caller.user, "key": caller.key, "model": ", ".join(models)}
    return ", ".join(parts[each] for each in sorted(limit.each, reverse=True))


def query_of(tenant: str, asked: Mapping[str, tuple[Claim, str]], now_s: float) -> PeekQuery:
    """The question to the store for these counters."""
    claims = [claim for claim, _ in asked.values()]
    return PeekQuery(
        tenant=tenant,
        now_s=now_s,
        counters=[one.key for one in claims if not one.is_slot],
        leases=[one.key for one in claims if one.is_slot],
        drains={one.key: drain for one in claims if (drain := drain_of(one.limit))},
    )


def counters_of(
    tenant: str, asked: Mapping[str, tuple[Claim, str]], used: Mapping[str, int], now_s: float
) -> list[Counter]:
    """The counters with what the store said of them, the fullest first."""
    found = [_counter(tenant, claim, who, used[key], now_s) for key, (claim, who) in asked.items()]
    return sorted(found, key=lambda one: (-one.percent, one.name, one.who))


def _counter(tenant: str, claim: Claim, who: str, used: int, now_s: float) -> Counter:
    limit = claim.limit
    ends_s = None if claim.window is None else float(claim.window.end_s)
    if isinstance(limit.shape, Smooth):
        ends_s = Refill(limit, used, now_s).full_at_s()
    units = used_units(limit, used)
    return Counter(
        tenant=tenant,
        rule=limit,
        who=who,
        used=units,
        limit=limit.capacity,
        ends_at=None if ends_s is None else datetime.fromtimestamp(ends_s, UTC),
        forecast=None if claim.window is None else forecast(units, claim.window, now_s),
    )
