"""The text of a notice: for people, and as JSON for programs. Pure."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from headgate.core.amounts import written
from headgate.core.notices import FORECAST
from headgate.core.policy import Count
from headgate.ledger.notices.counters import SHORT
from headgate.ledger.notices.values import DIGEST, Notice

_UNITS = {Count.CONCURRENT: "requests"}


def subject_of(notice: Notice) -> str:
    """One line: whose limit, and how much of it is used."""
    if notice.threshold == DIGEST:
        return f"{notice.tenant}: the {notice.per} in Headgate"
    whose = _whose(notice)
    if notice.threshold == FORECAST:
        return f"{whose}: on the way beyond {_limit(notice)}"
    return f"{whose}: {notice.threshold} % of {_limit(notice)}"


def text_of(notice: Notice, zone: ZoneInfo) -> str:
    """A few lines, with times in the zone of the tenant."""
    if notice.threshold == DIGEST:
        return _digest_text(notice, zone)
    lines = [f"{_whose(notice)} used {_amount(notice, notice.used)} of {_limit(notice)}."]
    if notice.forecast is not None:
        lines.append(f"At this pace it will be {_amount(notice, notice.forecast)} at the end.")
    begin, end = _time(notice.begin_at, zone), _time(notice.end_at, zone)
    if notice.per in ("", *SHORT):
        lines.append(f"This is told once from {begin} to {end} ({zone.key}).")
    else:
        lines.append(f"The {notice.per} began on {begin} and ends on {end} ({zone.key}).")
    lines.append(f"Limit {notice.limit_id}, notice {notice.id}.")
    return "\n".join(lines)


def payload_of(notice: Notice, zone: ZoneInfo) -> dict[str, Any]:
    """The JSON object of docs/notices.md for a threshold. Cost is in 1e-9 of the currency."""
    is_forecast = notice.threshold == FORECAST
    return {
        "type": "limit.forecast" if is_forecast else "limit.threshold",
        "id": notice.id,
        "decided_at": notice.decided_at.isoformat(),
        "tenant": notice.tenant,
        "user": notice.user,
        "key": notice.key or None,
        "model": notice.model or None,
        "limit": {
            "id": notice.limit_id,
            "count": notice.count,
            "per": notice.per or None,
            "limit": notice.most,
        },
        "threshold_percent": None if is_forecast else int(notice.threshold),
        "used": notice.used,
        "forecast": notice.forecast,
        "currency": notice.currency,
        "begins_at": notice.begin_at.astimezone(zone).isoformat(),
        "ends_at": notice.end_at.astimezone(zone).isoformat(),
        "text": text_of(notice, zone),
    }


def _whose(notice: Notice) -> str:
    parts = [notice.tenant]
    parts += [f"user {notice.user}"] if notice.user else []
    parts += [f"key {notice.key}"] if notice.key else []
    parts += [f"model {notice.model}"] if notice.model else []
    return ", ".join(parts)


def _amount(notice: Notice, number: int) -> str:
    count = Count(notice.count)
    unit = (notice.currency or "of cost") if count is Count.COST else _UNITS.get(count, count)
    return f"{written(count, number)} {unit}"


def _limit(notice: Notice) -> str:
    """The number of the limit: of a bucket and of requests in flight, how much may be at once."""
    return f"{_amount(notice, notice.most)} {f'per {notice.per}' if notice.per else 'at once'}"


def _time(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def _digest_text(notice: Notice, zone: ZoneInfo) -> str:
    sums = notice.digest or {}
    begin, end = _time(notice.begin_at, zone), _time(notice.end_at, zone)
    cost = written(Count.COST, sums.get("cost_nanos", 0))
    return "\n".join(
        [
            f"{notice.tenant} from {begin} to {end} ({zone.key}):",
            f"{sums.get('requests', 0):,} requests of {sums.get('users', 0):,} users,"
            f" {sums.get('refused', 0):,} of them refused by a limit",
            f"{sums.get('prompt_tokens', 0):,} tokens of input,"
            f" {sums.get('completion_tokens', 0):,} of output",
            f"{cost} {notice.currency or 'of cost'}",
            f"{sums.get('notices', 0):,} thresholds of limits were passed",
        ]
    )
