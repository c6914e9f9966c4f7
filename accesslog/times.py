"""When things happened to one request, and under which trace. Pure."""

import re
from datetime import UTC, datetime
from functools import lru_cache

_CLOCK_STEP_S = 0.001
"""The tap's clock ticks in milliseconds, so its first output may seem this much too early."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_NO_TRACE = "0" * 32


def rfc3339(start_ns: int | None) -> str | None:
    """The time in UTC of nanoseconds since the Unix epoch; None for a year outside the calendar."""
    if start_ns is None:
        return None
    second = _second(start_ns // 1_000_000_000)
    return None if second is None else f"{second}.{start_ns % 1_000_000_000 // 1000:06d}Z"


@lru_cache(maxsize=1024)  # many requests start in one second
def _second(start_s: int) -> str | None:
    try:
        return f"{datetime.fromtimestamp(start_s, UTC):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return None


def rounded(seconds: float | None) -> float | None:
    """The seconds to the microsecond."""
    return None if seconds is None else round(seconds, 6)


def time_to_first_output(
    start_ns: int | None, first_event_ms: int | None, duration_s: float
) -> float | None:
    """Seconds to the first output; None if there was none, or if a clock step falsified it."""
    if start_ns is None or first_event_ms is None:
        return None
    ttft_s = (first_event_ms * 1_000_000 - start_ns) / 1e9
    if not -_CLOCK_STEP_S <= ttft_s <= duration_s + _CLOCK_STEP_S:
        return None
    return round(max(0.0, ttft_s), 6)


def told_time_to_first_output(
    upstream_tx_s: float | None, ttft_ms: int | None, duration_s: float
) -> float | None:
    """The same of a whole answer, by what vLLM told: its own time follows the way to it."""
    if upstream_tx_s is None or ttft_ms is None:
        return None
    ttft_s = upstream_tx_s + ttft_ms / 1000
    return round(ttft_s, 6) if ttft_s <= duration_s + _CLOCK_STEP_S else None


def token_interval(
    ttft_s: float | None, duration_s: float, completion_tokens: int | None
) -> float | None:
    """The mean seconds between two tokens of a whole answer; None with fewer than two tokens."""
    if ttft_s is None or completion_tokens is None or completion_tokens < 2:
        return None
    return round(max(0.0, duration_s - ttft_s) / (completion_tokens - 1), 6)


def trace_id(traceparent: str) -> str | None:
    """The trace's id in a W3C `traceparent`, which comes from the client; None if it is malformed.

    The form is that of the Trace Context recommendation, 3.2.2.
    """
    parsed = _TRACEPARENT.fullmatch(traceparent)
    return None if parsed is None or parsed[1] == _NO_TRACE else parsed[1]
