"""The remaining amounts of a caller's limits, and the usage, by the counters of a reservation.

Peeking holds and charges nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from math import ceil

import msgspec

from headgate.core.amounts import in_units, weights_of
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import (
    Caller,
    Each,
    Limit,
    Per,
    Shape,
    Slots,
    Smooth,
    Tenant,
    Windowed,
)
from ratelimit.demand import Claim, Subject, claims_of
from ratelimit.smooth import Refill, drain_of, remaining_units, used_units
from ratelimit.store.protocol import PeekQuery, Store, StoreError

log = logging.getLogger("headgate.ratelimit")

_json = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Standing:
    """A counter that the caller's requests meet. Requests to any of `models` meet it.

    `used` is the amount that is held or spent, as the store counts it.
    """

    claim: Claim
    models: tuple[str, ...]
    used: int


class PeekLimits:
    """Answers `GET /v1/headgate/limits` and `/usage`, each in one round trip to the store."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, tenant: Tenant, caller: Caller, model: str | None) -> bytes | None:
        """The JSON of the caller's limits: all of them, or those that requests to `model` meet.

        None if the store does not answer.
        """
        now_s = self._clock.now_s()
        standings = await self._standings(tenant, caller, model, now_s)
        return None if standings is None else limits_body(tenant, standings, now_s)

    async def usage(self, tenant: Tenant, caller: Caller, model: str | None) -> bytes | None:
        """The JSON of the amounts that are used in the present windows. None as above."""
        now_s = self._clock.now_s()
        standings = await self._standings(tenant, caller, model, now_s)
        return None if standings is None else usage_body(tenant, standings)

    async def _standings(
        self, tenant: Tenant, caller: Caller, model: str | None, now_s: float
    ) -> list[Standing] | None:
        met = claims_by_models(tenant, caller, now_s)
        asked = [(claim, models) for claim, models in met if model is None or model in models]
        query = PeekQuery(
            tenant=tenant.name,
            now_s=now_s,
            counters=[claim.key for claim, _ in asked if not claim.is_slot],
            leases=[claim.key for claim, _ in asked if claim.is_slot],
            drains={claim.key: drain for claim, _ in asked if (drain := drain_of(claim.limit))},
        )
        used: Mapping[str, int] = {}
        if asked:
            try:
                used = await self._store.peek(query)
            except StoreError as error:
                self._metrics.store_errors.labels("peek").inc()
                log.warning("cannot read the remaining amounts of limits: %s", error)
                return None
        return _in_order(
            tenant, [Standing(claim, models, used[claim.key]) for claim, models in asked]
        )


def claims_by_models(
    tenant: Tenant, caller: Caller, now_s: float
) -> list[tuple[Claim, tuple[str, ...]]]:
    """Every counter that the caller's requests meet now, with the models that lead to it."""
    met: dict[str, tuple[Claim, list[str]]] = {}
    for model in sorted(tenant.models):
        subject = Subject(caller.tenant, caller.user, caller.key, model)
        for claim in claims_of(tenant, subject, now_s):
            met.setdefault(claim.key, (claim, []))[1].append(model)
    return [(claim, tuple(models)) for claim, models in met.values()]


def limits_body(tenant: Tenant, standings: list[Standing], now_s: float) -> bytes:
    """The list in OpenAI's form."""
    data = [_entry(tenant, standing, now_s) for standing in standings]
    return _json.encode({"object": "list", "data": data})


def usage_body(tenant: Tenant, standings: list[Standing]) -> bytes:
    """The list in OpenAI's form: whose usage it is, in which window, and how much.

    Buckets and slots have no window, so they are left out.
    """
    data = [_usage(tenant, each) for each in standings if each.claim.window is not None]
    return _json.encode({"object": "list", "data": data})


def _usage(tenant: Tenant, standing: Standing) -> dict[str, object]:
    limit, window = standing.claim.limit, standing.claim.window
    assert window is not None, "the caller has filtered"  # noqa: S101
    zone = tenant.calendar.timezone
    return {
        "of": _owner(limit),
        "count": limit.count,
        "per": _rate(limit.shape)[0],
        "models": standing.models,
        "used": in_units(limit.count, used_units(limit, standing.used)),
        "begins_at": datetime.fromtimestamp(window.start_s, zone).isoformat(),
        "ends_at": datetime.fromtimestamp(window.end_s, zone).isoformat(),
    }


def _owner(limit: Limit) -> str:
    """The owner of the counted requests: the key, the user, or the tenant with all its users."""
    return next((str(one) for one in (Each.KEY, Each.USER) if one in limit.each), "tenant")


def _in_order(tenant: Tenant, standings: list[Standing]) -> list[Standing]:
    """The order of the policy."""
    order = {limit.id: index for index, limit in enumerate(tenant.limits)}
    return sorted(standings, key=lambda standing: (order[standing.claim.limit.id], standing.models))


def _entry(tenant: Tenant, standing: Standing, now_s: float) -> dict[str, object]:
    limit, resets_at_s = standing.claim.limit, _resets_at_s(standing, now_s)
    resets_at = resets_in_s = None
    if resets_at_s is not None:
        resets_at = datetime.fromtimestamp(resets_at_s, tenant.calendar.timezone).isoformat()
        resets_in_s = max(0, ceil(round(resets_at_s - now_s, 6)))
    per, burst, weights = _rate(limit.shape)
    return {
        "count": limit.count,
        "per": per,
        "each": _each(limit),
        "models": standing.models,
        "limit": in_units(limit.count, limit.limit),
        "burst": burst,
        "used": in_units(limit.count, used_units(limit, standing.used)),
        "remaining": in_units(limit.count, remaining_units(limit, standing.used)),
        "resets_at": resets_at,
        "resets_in_s": resets_in_s,
        "shadow": limit.shadow,
        "weights": weights,
    }


def _resets_at_s(standing: Standing, now_s: float) -> float | None:
    """The time at which its window ends, or its bucket is full again."""
    limit, window = standing.claim.limit, standing.claim.window
    if isinstance(limit.shape, Smooth):
        return Refill(limit, standing.used, now_s).full_at_s()
    return None if window is None else window.end_s


def _rate(shape: Shape) -> tuple[Per | None, int | None, dict[str, Decimal] | None]:
    """The members `per`, `burst` and `weights` of an entry: null where the shape has none."""
    match shape:
        case Windowed(per=per, measure=measure):
            return per, None, weights_of(measure)
        case Smooth(per=per, burst=burst, measure=measure):
            return per, burst, weights_of(measure)
        case Slots():
            return None, None, None


def _each(limit: Limit) -> list[Each]:
    return [dimension for dimension in Each if dimension in limit.each]
