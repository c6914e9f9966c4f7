"""The windows of a tenant's calendar, as instants: a limit per day ends at local midnight.

The windows of a kind tile time: each ends where the next one starts, also over clock changes.
"""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import floor
from zoneinfo import ZoneInfo

from headgate.core.policy import Calendar, Per


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open span [start_s, end_s), in whole seconds since the Unix epoch."""

    start_s: int
    end_s: int


def window(per: Per, calendar: Calendar, now_s: float) -> Window:
    """The window of kind `per` that holds the instant `now_s` by the calendar.

    When clocks go back, the repeated hour is a window of its own. If clocks skip a midnight, the
    day starts at the first instant after it.
    """
    return _window(per, calendar, floor(now_s))


@lru_cache(maxsize=1024)  # all requests of a calendar within a second need the same
def _window(per: Per, calendar: Calendar, now_s: int) -> Window:
    if per is Per.SECOND:
        return Window(now_s, now_s + 1)
    length_s = _CLOCK_LENGTHS_S.get(per)
    if length_s is not None:
        return _clock_window(length_s, calendar.timezone, now_s)
    return _date_window(per, calendar, now_s)


_CLOCK_LENGTHS_S = {Per.MINUTE: 60, Per.HOUR: 3600}


def _clock_window(length_s: int, tz: ZoneInfo, now_s: int) -> Window:
    """A minute or an hour of the local clock, cut where the clock changes."""
    offset_s = _offset_s(tz, now_s)
    start_s = (now_s + offset_s) // length_s * length_s - offset_s
    end_s = start_s + length_s
    if _offset_s(tz, start_s) != offset_s:
        start_s = _clock_change(tz, start_s, now_s)
    if _offset_s(tz, end_s - 1) != offset_s:
        end_s = _clock_change(tz, now_s, end_s - 1)
    return Window(start_s, end_s)


def _date_window(per: Per, calendar: Calendar, now_s: int) -> Window:
    """A span of whole local dates. It starts when local clocks first show its first date."""
    tz = calendar.timezone
    first, after = _span(per, calendar, datetime.fromtimestamp(now_s, tz).date())
    start_s, end_s = _start_of(first, tz), _start_of(after, tz)
    if now_s >= end_s:  # clocks went back over midnight: the new date has begun before
        _, after = _span(per, calendar, after)
        start_s, end_s = end_s, _start_of(after, tz)
    return Window(start_s, end_s)


def _span(per: Per, calendar: Calendar, day: date) -> tuple[date, date]:
    """The first date of the span that holds `day`, and the first one after it."""
    match per:
        case Per.WEEK:
            first = day - timedelta(days=(day.weekday() - calendar.week_start) % 7)
            return first, first + timedelta(weeks=1)
        case Per.MONTH:
            return _month(calendar.billing_day, day)
        case Per.YEAR:
            return date(day.year, 1, 1), date(day.year + 1, 1, 1)
        case _:
            return day, day + timedelta(days=1)


def _month(billing_day: int, day: date) -> tuple[date, date]:
    """From one billing day to the next. Every month has one: in short months, the last day."""
    first = _billed(billing_day, day)
    if day < first:
        first = _billed(billing_day, day.replace(day=1) - timedelta(days=1))
    return first, _billed(billing_day, first.replace(day=1) + timedelta(days=31))


def _billed(billing_day: int, day: date) -> date:
    """The billing day in the month of `day`."""
    return day.replace(day=min(billing_day, monthrange(day.year, day.month)[1]))


def _start_of(day: date, tz: ZoneInfo) -> int:
    """The first instant at which local clocks show `day` or, where they skip it, a later date.

    For a midnight in a gap, PEP 495 reads fold=0 with the offset before the change and fold=1
    with the offset after it. The change lies between the two readings.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=tz)
    first_s = floor(midnight.timestamp())
    second_s = floor(midnight.replace(fold=1).timestamp())
    return _clock_change(tz, second_s, first_s) if second_s < first_s else first_s


def _clock_change(tz: ZoneInfo, before_s: int, after_s: int) -> int:
    """The first instant with the offset of `after_s`. The offset changes once in between."""
    old_offset_s = _offset_s(tz, before_s)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_s(tz, middle_s) == old_offset_s:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s


def _offset_s(tz: ZoneInfo, at_s: int) -> int:
    """The seconds by which the local clock is ahead of UTC at an instant."""
    return int(datetime.fromtimestamp(at_s, tz).replace(tzinfo=UTC).timestamp()) - at_s
