"""Calendar windows in a tenant's timezone, as instants: a limit per day ends at local midnight.

The windows of one kind tile time: each ends where the next one starts, over clock changes too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import floor
from zoneinfo import ZoneInfo

from registry.types import Per


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open span [start_s, end_s), in whole seconds since the Unix epoch."""

    start_s: int
    end_s: int


def window(per: Per, tz: ZoneInfo, now_s: float) -> Window:
    """The window of kind `per` that holds the instant `now_s` on the clocks of `tz`.

    Weeks start on Monday (ISO 8601). Where clocks go back, the repeated hour is a window of
    its own; where a midnight is skipped, the day starts at the first instant after it.
    """
    return _window(per, tz, floor(now_s))


@lru_cache(maxsize=1024)  # within one second every request of a zone asks the same
def _window(per: Per, tz: ZoneInfo, now_s: int) -> Window:
    if per is Per.SECOND:
        return Window(now_s, now_s + 1)
    length_s = _CLOCK_LENGTHS_S.get(per)
    if length_s is not None:
        return _clock_window(length_s, tz, now_s)
    return _date_window(_SPANS[per], tz, now_s)


_CLOCK_LENGTHS_S = {Per.MINUTE: 60, Per.HOUR: 3600}


def _clock_window(length_s: int, tz: ZoneInfo, now_s: int) -> Window:
    """A minute or an hour as the local clock shows it, cut where the clock is changed."""
    offset_s = _offset_s(tz, now_s)
    start_s = (now_s + offset_s) // length_s * length_s - offset_s
    end_s = start_s + length_s
    if _offset_s(tz, start_s) != offset_s:
        start_s = _clock_change(tz, start_s, now_s)
    if _offset_s(tz, end_s - 1) != offset_s:
        end_s = _clock_change(tz, now_s, end_s - 1)
    return Window(start_s, end_s)


def _date_window(span: "_Span", tz: ZoneInfo, now_s: int) -> Window:
    """A span of whole local dates. It starts when a local clock first shows its first date."""
    first, after = span(datetime.fromtimestamp(now_s, tz).date())
    start_s, end_s = _start_of(first, tz), _start_of(after, tz)
    if now_s >= end_s:  # clocks were set back over midnight: the new date has begun before
        first, after = span(after)
        start_s, end_s = end_s, _start_of(after, tz)
    return Window(start_s, end_s)


_Span = Callable[[date], tuple[date, date]]


def _day(day: date) -> tuple[date, date]:
    return day, day + timedelta(days=1)


def _week(day: date) -> tuple[date, date]:
    monday = day - timedelta(days=day.weekday())
    return monday, monday + timedelta(weeks=1)


def _month(day: date) -> tuple[date, date]:
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def _year(day: date) -> tuple[date, date]:
    return date(day.year, 1, 1), date(day.year + 1, 1, 1)


_SPANS: dict[Per, _Span] = {Per.DAY: _day, Per.WEEK: _week, Per.MONTH: _month, Per.YEAR: _year}


def _start_of(day: date, tz: ZoneInfo) -> int:
    """The first instant at which local clocks show `day` or, where they skip it, a later date.

    For a midnight in a gap PEP 495 reads fold=0 with the offset before the change and fold=1
    with the one after it: the change lies between the two readings.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=tz)
    first_s = floor(midnight.timestamp())
    second_s = floor(midnight.replace(fold=1).timestamp())
    return _clock_change(tz, second_s, first_s) if second_s < first_s else first_s


def _clock_change(tz: ZoneInfo, before_s: int, after_s: int) -> int:
    """The first instant with the offset of `after_s`; the offset changes once in between."""
    old_offset_s = _offset_s(tz, before_s)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_s(tz, middle_s) == old_offset_s:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s


def _offset_s(tz: ZoneInfo, at_s: int) -> int:
    """How far the local clock is ahead of UTC at an instant."""
    return int(datetime.fromtimestamp(at_s, tz).replace(tzinfo=UTC).timestamp()) - at_s
