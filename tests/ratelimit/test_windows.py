"""Calendar windows tile time in every timezone, and local midnights are where people expect."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit.windows import Window, window
from registry.types import Per

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

zones = st.sampled_from(ZONES).map(ZoneInfo)
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


def assert_tiles(per: Per, tz: ZoneInfo, now_s: float) -> None:
    found = window(per, tz, now_s)
    assert found.start_s <= now_s < found.end_s
    assert window(per, tz, found.start_s) == found
    assert window(per, tz, found.end_s - 1) == found
    assert window(per, tz, found.end_s).start_s == found.end_s
    assert window(per, tz, found.start_s - 1).end_s == found.start_s


@given(pers, zones, instants)
@example(Per.DAY, ZoneInfo("America/St_Johns"), 1_289_098_800.0)
@example(Per.HOUR, ZoneInfo("Australia/Lord_Howe"), 1_806_765_300.0)
def test_windows_tile_time(per: Per, tz: ZoneInfo, now_s: float) -> None:
    assert_tiles(per, tz, now_s)


@pytest.mark.parametrize("zone", ZONES)
def test_windows_tile_time_around_every_clock_change(zone: str) -> None:
    tz = ZoneInfo(zone)
    for change_s in clock_changes(zone):
        for near_s in (-5400, -1800, -61, -1, 0, 61, 1800, 5400):
            for per in (Per.MINUTE, Per.HOUR, Per.DAY, Per.MONTH):
                assert_tiles(per, tz, change_s + near_s)


@given(pers, zones, instants)
def test_a_window_is_as_long_as_its_name_says(per: Per, tz: ZoneInfo, now_s: float) -> None:
    """Never longer than an hour more than usual; skipped dates and changes make some shorter."""
    found = window(per, tz, now_s)
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
    assert 0 < found.end_s - found.start_s <= longest_s[per]


@given(zones, instants)
def test_inner_windows_do_not_cross_the_outer(tz: ZoneInfo, now_s: float) -> None:
    day = window(Per.DAY, tz, now_s)
    for outer in (Per.WEEK, Per.MONTH, Per.YEAR):
        around = window(outer, tz, now_s)
        assert around.start_s <= day.start_s
        assert day.end_s <= around.end_s


def cases() -> Iterator[tuple[str, Per, float, Window]]:
    def read(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    for line in Path(__file__).with_name("windows.txt").read_text().splitlines():
        if not line.startswith("#"):
            zone, per, now, start, end, _why = (part.strip() for part in line.split("|"))
            yield zone, Per(per), read(now), Window(int(read(start)), int(read(end)))


@pytest.mark.parametrize(("zone", "per", "now_s", "expected"), list(cases()))
def test_windows_that_are_easy_to_get_wrong(
    zone: str, per: Per, now_s: float, expected: Window
) -> None:
    assert window(per, ZoneInfo(zone), now_s) == expected
