"""Prints one line on the terminal for each finished request."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from accesslog.types import UsageRecord
from headgate.core.amounts import written
from headgate.core.policy import Count
from headgate.core.settlement import Source

_MAX_TEXT = 80
_NOTHING = "-"


class LimitState(Protocol):
    """The remaining amount of one limit. `per` is None for a limit of concurrent requests."""

    @property
    def count(self) -> Count: ...
    @property
    def per(self) -> str | None: ...
    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...


class ConsoleSink:
    """Prints one line for each record, with the state of its reservation's limits."""

    def __init__(
        self, print_lines: Callable[[str], None], limits_of: Callable[[str], Sequence[LimitState]]
    ) -> None:
        self._print = print_lines
        self._limits_of = limits_of

    async def write(self, records: Sequence[UsageRecord]) -> None:
        """Prints the records at once. A closed terminal does not count as a failed write."""
        if records:
            with suppress(OSError):
                self._print("\n".join(map(self._line, records)))

    def _line(self, record: UsageRecord) -> str:
        limits = () if record.reservation is None else self._limits_of(record.reservation)
        return line(record, limits)


def line(record: UsageRecord, limits: Sequence[LimitState]) -> str:
    """The line of one request, in UTC, with the remaining amount of each of its `limits`.

    Only printable characters pass, so that no client can move the cursor or change colours.
    """
    parts = [
        record.time[11:19] if record.time else _NOTHING,
        f"{_shown(record.tenant)}/{_shown(record.user)}" if record.tenant else _NOTHING,
        _shown(record.model or record.requested_model or record.path),
        _NOTHING if record.status is None else str(record.status),
        _outcome(record),
        f"{record.duration_s:.2f} s",
    ]
    return " ".join(parts) + _remaining(limits)


def _outcome(record: UsageRecord) -> str:
    """The tokens of a charged request, or Envoy's reason why it was not charged."""
    if record.source is None or record.source is Source.REFUND:
        return _shown(record.details or ",".join(record.flags))
    return f"{record.prompt_tokens}+{record.completion_tokens} tokens ({record.source})"


def _remaining(limits: Sequence[LimitState]) -> str:
    if not limits:
        return ""
    return " | left " + ", ".join(
        f"{written(limit.count, limit.remaining)} of {written(limit.count, limit.limit)}"
        f" {limit.count}{f'/{limit.per}' if limit.per else ''}"
        for limit in limits
    )


def _shown(text: str | None) -> str:
    if not text:
        return _NOTHING
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_TEXT])
