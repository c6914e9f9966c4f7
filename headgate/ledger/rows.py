"""The row of the ledger that a record becomes. Pure: the same record gives the same row.

Money is counted in nanos (1e-9 of the currency), time in microseconds, so that sums are exact.
"""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import attrgetter
from typing import Any, TypeAlias

from msgspec.json import encode

from headgate.ledger.lines import BadLineError, RecordLine

Row: TypeAlias = tuple[Any, ...]
"""The values of `COLUMNS`, and the user's name behind them."""

MAX_NAME_BYTES = 512
"""An index of PostgreSQL takes no longer key. Names of the policy have up to 128 bytes."""
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_MAX_BIGINT = 2**63 - 1

_AS_IT_IS = {
    "bigint": (
        "prompt_tokens cached_tokens completion_tokens reasoning_tokens audio_seconds"
        " estimated_tokens estimated_prompt_tokens max_tokens request_header_bytes request_bytes"
        " response_header_bytes response_bytes choices limit_most limit_used limit_asked"
    ),
    "integer": "status upstream_status attempts",
    "smallint": "schema",
    "boolean": "stream",
    "text": "trace_id reservation api base requested_model ended source method path pod replica"
    " details user_agent price_version limit_count",
    "text[]": "flags",
}
_NOT_IN_ID = {"replica", "limit_count", "limit_most", "limit_used", "limit_asked"}
_NAMES = ("tenant", "key", "model", "adapter", "version", "limit")
_TIMES = ("to_upstream", "upstream_first_byte", "ttft", "token_interval", "duration")

_KEPT: tuple[tuple[str, str], ...] = tuple(
    (name, kind) for kind, names in _AS_IT_IS.items() for name in names.split()
)
_names_of = attrgetter(*_NAMES)
_times_of = attrgetter(*(f"{name}_s" for name in _TIMES))
_kept_of = attrgetter(*(name for name, _ in _KEPT))
COLUMNS: tuple[tuple[str, str], ...] = (
    ("ended_at", "timestamptz"),
    ("started_at", "timestamptz"),
    ("request_id", "text"),
    ("ip", "inet"),
    ("cost_nanos", "bigint"),
    *((name, "text") for name in _NAMES),
    *((f"{name}_us", "bigint") for name in _TIMES),
    *_KEPT,
)
"""The columns that come from the record itself, with their types."""


def row_of(record: RecordLine) -> Row:
    """The row of a record. Raises BadLineError for a time or a cost that no row can hold.

    A request ends `duration_s` after its `time`. Both are Envoy's, so an entry that was delivered
    again ends at the same microsecond.
    """
    started_at = record.time.astimezone(UTC)
    ended_at = started_at + timedelta(microseconds=_microseconds(record.duration_s) or 0)
    if not (started_at >= _FIRST and ended_at < _LAST):
        raise BadLineError("has no time between the years 2000 and 2099")
    return (
        ended_at,
        started_at,
        _name(record.request_id) or _made_id(record),
        _address(record.ip),
        _nanos(record.cost),
        *map(_name, _names_of(record)),
        *map(_microseconds, _times_of(record)),
        *_kept_of(record),
        _name(record.user),
    )


def _made_id(record: RecordLine) -> str:
    """An id for a record without one: the same for the same request, whichever replica wrote it.

    Fields that were added later are left out, so that it stays the same.
    """
    names = (name for name in record.__struct_fields__ if name not in _NOT_IN_ID)
    fields = {name: getattr(record, name) for name in names}
    return f"none:{sha256(encode(fields)).hexdigest()[:32]}"


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000_000)


def _nanos(cost: Decimal | None) -> int | None:
    """The cost in nanos. A record has no finer one; another program's is rounded up."""
    if cost is None:
        return None
    if cost.is_finite() and cost >= 0 and cost.adjusted() < 12:
        nanos = int(cost.scaleb(9).to_integral_value(ROUND_CEILING))
        if nanos <= _MAX_BIGINT:
            return nanos
    raise BadLineError(f"has the cost {cost:.6g}, which no row can hold")


def _name(text: str | None) -> str | None:
    """The text, or for a very long one its beginning and its digest."""
    if text is None or len(text) <= MAX_NAME_BYTES // 4:
        return text
    data = text.encode()
    if len(data) <= MAX_NAME_BYTES:
        return text
    return f"{text[: MAX_NAME_BYTES // 8]}...{sha256(data).hexdigest()[:32]}"


@lru_cache(maxsize=16_384)
def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    """The address; None for a text that is none, such as a name."""
    try:
        return None if text is None else ip_address(text.partition("%")[0])
    except ValueError:
        return None
