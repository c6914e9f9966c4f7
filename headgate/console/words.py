"""Values as people read them: numbers, money, times. Pure. An unknown value is a dash."""

import re
from datetime import date, datetime
from decimal import Decimal
from http import HTTPStatus
from zoneinfo import ZoneInfo

from headgate.core.policy import Count
from headgate.ledger.usage_lines import UsageLine

DASH = "–"
_STATUS = {
    401: "unknown key",
    403: "not allowed",
    404: "unknown model or path",
    429: "refused by a limit",
    499: "left by the client",
}


def count(number: int | None) -> str:
    """A number with groups of digits: 1,234,567."""
    return DASH if number is None else f"{number:,}".replace("-", "−")


def grouped(text: str) -> str:
    """A text whose long numbers have groups of digits: 9,000,000 tokens per month."""
    return re.sub(r"(?<![\d.])\d{5,}(?!\d)", lambda found: f"{int(found[0]):,}", text)


def money(nanos: int | None, decimals: int = 2) -> str:
    """An amount that is counted in nanos of the currency."""
    if nanos is None:
        return DASH
    return f"{Decimal(nanos).scaleb(-9):,.{decimals}f}".replace("-", "−")


def amount(number: int | None, counted: str | None) -> str:
    """An amount of what a limit counts; cost is in nanos."""
    return money(number) if counted == Count.COST else count(number)


def cost(text: str | None, decimals: int) -> str:
    """The cost of a request, which is decimal text."""
    return DASH if text is None else f"{Decimal(text):,.{decimals}f}"


def cents(number: int) -> str:
    """An amount that is counted in cents of the currency."""
    return f"{Decimal(number).scaleb(-2):,.2f}".replace("-", "−")


def percent(part: int, whole: int, decimals: int = 2) -> str:
    """A part of a whole; a dash of nothing."""
    return DASH if not whole else f"{Decimal(100 * part) / whole:.{decimals}f}"


def signed(number: Decimal | None) -> str:
    """A change with its sign: +3.3 or −0.4."""
    return DASH if number is None else f"{number:+,.1f}".replace("-", "−")


def month_name(month: str) -> str:
    """The name of a month such as 2026-10: October 2026."""
    return f"{date.fromisoformat(f'{month}-01'):%B %Y}"


def month_short(month: str) -> str:
    """The same on an axis: Oct ’26."""
    return f"{date.fromisoformat(f'{month}-01'):%b ’%y}"


def milliseconds(microseconds: int) -> str:
    """A time in milliseconds; below 10 ms with one decimal."""
    value = Decimal(microseconds) / 1000
    return f"{value:.1f}" if microseconds < 10_000 else f"{value:,.0f}"


def as_milliseconds(seconds: float | None) -> str:
    """A time of a record, which is in seconds, in milliseconds."""
    return DASH if seconds is None else milliseconds(round(seconds * 1_000_000))


def as_seconds(seconds: float | None) -> str:
    """A time of a record in words: 0.66 s."""
    return DASH if seconds is None else f"{seconds:,.2f} s"


def span(seconds: float | None) -> str:
    """A span of time in its two largest units: 2 d 4 h."""
    if seconds is None:
        return DASH
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= length or (name == "s" and not parts):
            parts.append(f"{left // length} {name}")
            left %= length
        elif parts:
            break
    return " ".join(parts[:2])


def day(time: datetime | None, zone: ZoneInfo) -> str:
    """The day in a zone: 26 Nov 2026."""
    return DASH if time is None else f"{time.astimezone(zone):%-d %b %Y}"


def moment(time: datetime | None, zone: ZoneInfo) -> str:
    """The minute in a zone: 26 Nov 2026, 14:32."""
    return DASH if time is None else f"{time.astimezone(zone):%-d %b %Y, %H:%M}"


def precise(time: datetime, zone: ZoneInfo) -> str:
    """The millisecond in a zone: 14:32:03.116."""
    local = time.astimezone(zone)
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"


def result(row: UsageLine) -> str:
    """How a request went, in a few words behind its status."""
    number = "" if row.status is None else f"{row.status} "
    if row.result == "aborted":
        return f"{number}left by the client"
    if row.ended == "upstream_broke":
        return f"{number}pod broke off"
    if row.result == "answered":
        return f"{number}answered"
    return number + _status_words(row.status)


def _status_words(status: int | None) -> str:
    if status is None:
        return "no answer"
    try:
        return _STATUS.get(status) or HTTPStatus(status).phrase.lower()
    except ValueError:
        return "failed"


def icon(kind: str) -> str:
    """The state's shape and colour for a result."""
    return {"answered": "ok", "aborted": "off"}.get(kind, "bad")
