"""The filters of a search as people write them, such as `-status:200`. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from uuid import UUID
from zoneinfo import ZoneInfo

from headgate.ledger.conditions import FIELDS, Condition, Label
from headgate.ledger.outcomes import RESULTS
from headgate.ledger.showback.values import Reason

MAX_FILTERS = 20
_MAX_CHARACTERS = 300
_AGO = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_DAYS = {"today": 0, "yesterday": 1}
ANY = "*"
"""The value of a filter that any known value meets: `-label:*` finds requests without a label."""
_MAY_BE_ANY = ("tenant", "user", "key", "model", "status", "pod", "limit")
_WORDS = {"result": RESULTS, "billed": ("yes", *Reason)}


class FilterError(ValueError):
    """A filter that means nothing. The text says what is allowed."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter, as its reader wrote it."""

    field: str
    value: str
    excludes: bool = False

    def __str__(self) -> str:
        return f"{'-' if self.excludes else ''}{self.field}:{self.value}"


def filters_of(texts: Sequence[str], typed: str = "") -> list[Filter]:
    """The filters of a page's address, and those that somebody has typed. Raises FilterError.

    A typed word without a colon is the id of a request.
    """
    found = [_filter(text) for text in texts if text]
    found += [_filter(text if ":" in text else f"id:{text}") for text in _words(typed)]
    if len(found) > MAX_FILTERS:
        raise FilterError(f"A search has at most {MAX_FILTERS} filters.")
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Reading:
    """The meaning of a filter depends on these: the reader's time, and the label of the reports."""

    now: datetime
    zone: ZoneInfo
    label: str


def conditions_of(filters: Sequence[Filter], reading: Reading) -> list[Condition]:
    """The conditions for the ledger. Raises FilterError."""
    return [Condition(one.field, _value(one, reading), one.excludes) for one in filters]


def _words(typed: str) -> list[str]:
    """The words of a search. A value with blanks has quotes: limit:"5 requests per day"."""
    pairs = re.findall(r'(-?[a-z]+:)?"([^"]*)"|(\S+)', typed)
    return [plain or name + quoted for name, quoted, plain in pairs]


def _filter(text: str) -> Filter:
    name, colon, value = text.strip().partition(":")
    excludes = name.startswith("-")
    field = name.removeprefix("-")
    if field not in FIELDS or not colon:
        raise FilterError(f"There is no filter “{field[:40]}”. Allowed: {', '.join(FIELDS)}.")
    value = value.strip()
    if not value or len(value) > _MAX_CHARACTERS or "\0" in value:
        raise FilterError(f"“{field}” needs a value of at most {_MAX_CHARACTERS} characters.")
    return Filter(field, value, excludes)


def _value(one: Filter, reading: Reading) -> object:
    if one.value == ANY and one.field in _MAY_BE_ANY:
        return None
    if words := _WORDS.get(one.field):
        return _word(one, words)
    match one.field:
        case "since" | "until":
            return _time(one.value, reading)
        case "label":
            return Label(reading.label, None if one.value == ANY else one.value)
    read = _READ.get(one.field, str)
    return read(one.value)


def _word(one: Filter, words: Sequence[str]) -> str:
    if one.value not in words:
        raise FilterError(f"“{one.field}” is one of {', '.join(words)}.")
    return one.value


def _time(text: str, reading: Reading) -> datetime:
    """A moment: `today`, `yesterday`, `3h` ago, a day, or a day with its time."""
    local = reading.now.astimezone(reading.zone)
    if text in _DAYS:
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        return (day - timedelta(days=_DAYS[text])).astimezone(UTC)
    if ago := _AGO.fullmatch(text):
        return reading.now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=reading.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise FilterError(
            "A time is today, yesterday, 30m, 12h, 7d, 2026-11-26 or 2026-11-26T14:30."
        ) from None


def _status(text: str) -> int:
    if not re.fullmatch(r"[1-5][0-9]{2}", text):
        raise FilterError("A status has three digits, such as 429. Others: result:failed.")
    return int(text)


def _ip(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise FilterError("An ip is one address, such as 10.0.0.7.") from None


def _user_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise FilterError("A user_id is the id of a user in a report.") from None


def _slower(text: str) -> int:
    return _scaled(text.removesuffix("s").strip(), 6, "slower:10, in seconds")


def _dearer(text: str) -> int:
    return _scaled(text, 9, "dearer:0.05, in the currency")


def _scaled(text: str, digits: int, example: str) -> int:
    try:
        number = Decimal(text)
        if number.is_finite() and 0 <= number < 10**9:
            return int(number.scaleb(digits))
    except InvalidOperation:
        pass
    raise FilterError(f"It needs a number, as in {example}.")


_READ: Mapping[str, Callable[[str], object]] = {
    "status": _status,
    "ip": _ip,
    "user_id": _user_id,
    "slower": _slower,
    "dearer": _dearer,
}
