"""The parts that are away while the program serves."""

from collections.abc import Callable
from datetime import UTC, datetime

_KEYS_LATE_S = 15.0
"""A poll comes every quarter of a second. A worker's last word is some 5 s old."""


def degraded(gauge: Callable[[str], float], now_s: float) -> dict[str, str]:
    """By the name of each part that is away: how requests are decided meanwhile.

    `gauge` returns the value of one of our gauges without labels.
    """
    found: dict[str, str] = {}
    if not gauge("headgate_store_available"):
        found["store"] = "Redis does not answer, so each limit's on_outage decides"
    polled_s = gauge("headgate_keys_polled_timestamp_seconds")
    if polled_s and now_s - polled_s > _KEYS_LATE_S:
        found["database"] = _keys_are_old(polled_s)
    return found


def _keys_are_old(polled_s: float) -> str:
    if polled_s <= 1:
        return "PostgreSQL has not answered yet, so keys that it holds get 503"
    since = datetime.fromtimestamp(polled_s, UTC)
    return f"PostgreSQL was last read at {since:%Y-%m-%dT%H:%M:%SZ}, so later changes wait"
