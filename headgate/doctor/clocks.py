"""Do the machines agree about the time? The windows of limits depend on it."""

from email.utils import parsedate_to_datetime

import httpx

from headgate.doctor.finding import Finding, note, problem

TOLERATED_S = 10.0
"""The header `date` has whole seconds, and a busy server writes it late."""
WRONG_S = 60.0


def clock_of(part: str, answer: httpx.Response, now_s: float) -> list[Finding]:
    """A finding if the server's header `date` is far from `now_s`, in seconds since the epoch."""
    try:
        served_s = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return []
    return skew(part, served_s - now_s)


def skew(part: str, ahead_s: float) -> list[Finding]:
    """A finding if a clock is too far ahead of this machine's, or behind it (negative)."""
    if abs(ahead_s) <= TOLERATED_S:
        return []
    direction = "ahead of" if ahead_s > 0 else "behind"
    text = (
        f"its clock is {abs(ahead_s):.0f} s {direction} this machine's, so windows of limits"
        " begin at other times; synchronise both with NTP"
    )
    return [(problem if abs(ahead_s) > WRONG_S else note)(part, text)]
