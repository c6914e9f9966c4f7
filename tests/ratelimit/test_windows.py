"""Calendar windows tile time in every timezone, and local midnights are where people expect."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from headgate.core.policy import Calendar, Per
from headgate.core.weekdays import Weekday
from ratelimit.windows import Window, window

ZONES = [
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/El_Aaiun",
    "Africa/Johannesburg",
    "Africa/Lagos",
    "Africa/Monrovia",
    "Africa/Nairobi",
    "America/Adak",
    "America/Anchorage",
    "America/Argentina/Buenos_Aires",
    "America/Asuncion",
    "America/Bogota",
    "America/Caracas",
    "America/Chicago",
    "America/Denver",
    "America/Havana",
    "America/Los_Angeles",
    "America/Mexico_City",
    "America/New_York",
    "America/Nuuk",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Scoresbysund",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Dhaka",
    "Asia/Gaza",
    "Asia/Jerusalem",
    "Asia/Kabul",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Asia/Shanghai",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Asia/Yangon",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Eucla",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/London",
    "Europe/Moscow",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Kwajalein",
]

calendars = st.builds(
    Calendar, st.sampled_from(ZONES).map(ZoneInfo), st.sampled_from(Weekday), st.integers(1, 31)
)
pers = st.sampled_from(list(Per))
instants = st.floats(0, 4_102_444_800)  # 1970 to 2100


def clock_changes(zone: str) -> Iterator[int]:
    """The instants from 1970 to 2037 at which the zone's clocks are changed, to within a minute."""
    tz = ZoneInfo(zone)
    step_s = 7 * 86_400

    def offset(at_s: int) -> object:
        return datetime.fromtimestamp(at_s, tz).utcoffset()

    for before_s in range(0, 2_114_380_800, step_s):
        low, high = before_s, before_s + step_s
        if offset(low) != offset(high):
            while high - low > 60:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            yield high


def local_date(at_s: float, tz: ZoneInfo) -> date:
    return datetime.fromtimestamp(at_s, tz).date()


def assert_tiles(per: Per, calendar: Calendar, now_s: float) -> None:
    span = window(per, calendar, now_s)
    assert span.start_s <= now_s < span.end_s
    assert window(per, calendar, span.start_s) == span
    assert window(per, calendar, span.end_s - 1) == span
    assert window(per, calendar, span.end_s).start_s == span.end_s
    assert window(per, calendar, span.start_s - 1).end_s == span.start_s


@given(pers, calendars, instants)
@example(Per.DAY, Calendar(ZoneInfo("America/St_Johns")), 1_289_098_800.0)
@example(Per.HOUR, Calendar(ZoneInfo("Australia/Lord_Howe")), 1_806_765_300.0)
@example(Per.WEEK, Calendar(ZoneInfo("America/St_Johns"), Weekday.SUNDAY), 1_289_098_800.0)
@example(Per.MONTH, Calendar(ZoneInfo("America/St_Johns"), billing_day=7), 1_289_098_800.0)
@example(Per.MONTH, Calendar(ZoneInfo("Pacific/Apia"), billing_day=30), 1_325_239_200.0)
@example(Per.MONTH, Calendar(ZoneInfo("America/Sao_Paulo"), billing_day=4), 1_541_300_399.0)
def test_windows_tile_time(per: Per, calendar: Calendar, now_s: float) -> None:
    assert_tiles(per, calendar, now_s)


@pytest.mark.parametrize("zone", ZONES)
def test_windows_tile_time_around_every_clock_change(zone: str) -> None:
    tz = ZoneInfo(zone)
    for change_s in clock_changes(zone):
        day = local_date(change_s, tz)
        # Weeks and months that begin on the very day on which clocks change.
        calendar = Calendar(tz, Weekday(day.weekday()), day.day)
        for near_s in (-5400, -1800, -61, -1, 0, 61, 1800, 5400):
            for per in (Per.MINUTE, Per.HOUR, Per.DAY, Per.WEEK, Per.MONTH):
                assert_tiles(per, calendar, change_s + near_s)


@given(pers, calendars, instants)
def test_a_window_is_as_long_as_its_name_says(per: Per, calendar: Calendar, now_s: float) -> None:
    """Never longer than an hour more than usual; skipped dates and changes make some shorter."""
    span = window(per, calendar, now_s)
    day_s = 86_400
    longest_s = {
        Per.SECOND: 1,
        Per.MINUTE: 60,
        Per.HOUR: 3600,
        Per.DAY: 2 * day_s,
        Per.WEEK: 8 * day_s,
        Per.MONTH: 32 * day_s,
        Per.YEAR: 367 * day_s,
    }
    assert 0 < span.end_s - span.start_s <= longest_s[per]


@pytest.mark.parametrize("zone", ZONES)
def test_every_billing_day_begins_every_month_on_it_or_on_its_last_day(zone: str) -> None:
    tz = ZoneInfo(zone)
    for billing_day in range(1, 32):
        calendar = Calendar(tz, billing_day=billing_day)
        days = []
        at_s = datetime(2027, 12, 15, tzinfo=tz).timestamp()
        for _ in range(15):  # over the leap day of 2028, to February 2029
            span = window(Per.MONTH, calendar, at_s)
            assert window(Per.DAY, calendar, span.start_s).start_s == span.start_s
            days.append(local_date(span.start_s, tz))
            at_s = span.end_s
        for before, after in pairwise(days):
            assert (after.year * 12 + after.month) - (before.year * 12 + before.month) == 1
        for day in days:
            is_last = (day + timedelta(days=1)).day == 1
            assert day.day == billing_day or (day.day < billing_day and is_last)


@given(calendars, instants)
def test_weeks_begin_on_their_day(calendar: Calendar, now_s: float) -> None:
    """Or on a later date where clocks skip that one, as Samoa did."""
    span = window(Per.WEEK, calendar, now_s)
    first = local_date(span.start_s, calendar.timezone)
    skipped = local_date(span.start_s - 1, calendar.timezone) != first - timedelta(days=1)
    assert first.weekday() == calendar.week_start or skipped


@given(calendars, instants)
def test_week_start_and_billing_day_change_no_other_window(
    calendar: Calendar, now_s: float
) -> None:
    plain = Calendar(calendar.timezone)
    for per in set(Per) - {Per.WEEK, Per.MONTH}:
        assert window(per, calendar, now_s) == window(per, plain, now_s)


@given(calendars, instants)
def test_inner_windows_do_not_cross_the_outer(calendar: Calendar, now_s: float) -> None:
    day = window(Per.DAY, calendar, now_s)
    for outer in (Per.WEEK, Per.MONTH, Per.YEAR):
        around = window(outer, calendar, now_s)
        assert around.start_s <= day.start_s
        assert day.end_s <= around.end_s


def cases() -> Iterator[tuple[Per, Calendar, float, Window]]:
    def read(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    for line in Path(__file__).with_name("windows.txt").read_text().splitlines():
        if not line.startswith("#"):
            zone, per, now, start, end, _why = (part.strip() for part in line.split("|"))
            per, _, begin = per.partition(" from ")
            calendar = Calendar(ZoneInfo(zone))
            if per == Per.WEEK and begin:
                calendar = replace(calendar, week_start=Weekday[begin.upper()])
            elif begin:
                calendar = replace(calendar, billing_day=int(begin))
            yield Per(per), calendar, read(now), Window(int(read(start)), int(read(end)))


@pytest.mark.parametrize(("per", "calendar", "now_s", "expected"), list(cases()))
def test_windows_that_are_easy_to_get_wrong(
    per: Per, calendar: Calendar, now_s: float, expected: Window
) -> None:
    assert window(per, calendar, now_s) == expected
