"""The thresholds of a limit that are passed, and the use that the pace so far leads to. Pure."""

from collections.abc import Sequence

from headgate.core.notices import FORECAST, Threshold
from ratelimit.windows import Window

FULL_PERCENT = 100
_TOO_EARLY = 10
"""A forecast needs a tenth of its window: the first hour of a month says little about it."""


def passed(
    thresholds: Sequence[Threshold], used: int, most: int, window: Window, now_s: float
) -> tuple[Threshold, ...]:
    """The thresholds that `used` of `most` has passed, in the order of the policy.

    A forecast counts only while the limit has room: later it is no news.
    """
    expected = forecast(used, window, now_s)
    is_over = expected is not None and expected > most > used
    return tuple(
        one
        for one in thresholds
        if (is_over if one == FORECAST else used * FULL_PERCENT >= int(one) * most)
    )


def forecast(used: int, window: Window, now_s: float) -> int | None:
    """The use at the end of the window, at the pace so far; None while it is too early."""
    whole_s, gone_s = window.end_s - window.start_s, int(now_s) - window.start_s
    if not 0 < gone_s * _TOO_EARLY >= whole_s or gone_s > whole_s:
        return None
    return used * whole_s // gone_s


def worth_sending(new: Sequence[Threshold]) -> frozenset[Threshold]:
    """Those to send of the thresholds that one counter has passed since the last look.

    The highest says all that lower ones would. The forecast says something else.
    """
    percents = [one for one in new if one != FORECAST]
    return frozenset(sorted(percents, key=int)[-1:]) | (frozenset(new) & {FORECAST})
