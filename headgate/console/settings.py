"""The reader's choice of theme and time zone, kept in two cookies. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

THEMES = ("system", "light", "dark")
THEME_COOKIE, ZONE_COOKIE = "headgate-theme", "headgate-zone"
KEEP_S = 365 * 86_400
_UTC = ZoneInfo("UTC")
_ODD = ("Etc/", "posix", "right", "SystemV")


@dataclass(frozen=True, slots=True)
class Choice:
    """How a reader wants the pages. `theme` is one of THEMES. `has_zone` if they chose a zone."""

    theme: str = "system"
    zone: ZoneInfo = _UTC
    has_zone: bool = False


@cache
def zones() -> tuple[str, ...]:
    """The names of all time zones that a reader may choose."""
    return tuple(sorted(name for name in available_timezones() if _is_plain(name)))


def choice_of(cookies: Mapping[str, str], default_zone: str) -> Choice:
    """The choice in these cookies. A value that is none of ours does not count."""
    theme, zone = cookies.get(THEME_COOKIE, ""), cookies.get(ZONE_COOKIE, "").replace("!", "/")
    has_zone = zone in zones()
    return Choice(
        theme if theme in THEMES else "system",
        ZoneInfo(zone if has_zone else default_zone),
        has_zone,
    )


def _is_plain(name: str) -> bool:
    return (
        "/" in name and not name.startswith(("Etc/", "posix", "right", "SystemV"))
    ) or name == "UTC"
