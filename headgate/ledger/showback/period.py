"""The month of a report: where it begins and ends, by its time zone and billing day. Pure."""

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from headgate.core.policy import Calendar, Per
from headgate.core.showback import Showback
from headgate.ledger.showback.values import Period
from ratelimit.windows import window

_MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")


def is_month(text: str) -> bool:
    """Whether the text names a month, such as 2026-10."""
    return _MONTH.fullmatch(text) is not None


def period_of(month: str, settings: Showback) -> Period:
    """The month that begins on the billing day in `month`, which `is_month` takes."""
    begin, end = _bounds(month, settings.timezone, settings.billing_day)
    bill_begin, bill_end = _bounds(month, settings.bill_timezone, settings.billing_day)
    return Period(
        month=month,
        timezone=settings.timezone,
        billing_day=settings.billing_day,
        begin=begin,
        end=end,
        clock_changes=_clock_changes(begin, end, ZoneInfo(settings.timezone)),
        bill_timezone=settings.bill_timezone,
        bill_begin=bill_begin,
        bill_end=bill_end,
    )


def month_before(month: str) -> str:
    """The name of the month before."""
    return f"{_first(month) - timedelta(days=1):%Y-%m}"


def month_at(now: datetime, settings: Showback) -> str:
    """The name of the month that a moment is in."""
    month = f"{now.astimezone(ZoneInfo(settings.timezone)):%Y-%m}"
    return month_before(month) if now < period_of(month, settings).begin else month


def _first(month: str) -> date:
    return date.fromisoformat(f"{month}-01")


def _bounds(month: str, timezone: str, billing_day: int) -> tuple[datetime, datetime]:
    """The month that the last day of the calendar's month is in: it begins in this month."""
    zone = ZoneInfo(timezone)
    last = (_first(month) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    inside = datetime(last.year, last.month, last.day, 12, tzinfo=zone)
    calendar = Calendar(zone, billing_day=billing_day)
    found = window(Per.MONTH, calendar, inside.timestamp())
    return datetime.fromtimestamp(found.start_s, UTC), datetime.fromtimestamp(found.end_s, UTC)


def _clock_changes(begin: datetime, end: datetime, zone: ZoneInfo) -> tuple[date, ...]:
    """The days in whose course the offset from UTC changes."""
    changes = []
    day, last = begin.astimezone(zone).date(), end.astimezone(zone).date()
    while day < last:
        midnight, after = (
            datetime(one.year, one.month, one.day, tzinfo=zone)
            for one in (day, day + timedelta(days=1))
        )
        if midnight.utcoffset() != after.utcoffset():
            changes.append(day)
        day += timedelta(days=1)
    return tuple(changes)
