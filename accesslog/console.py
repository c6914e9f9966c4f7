"""One line on the terminal for each finished request."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from accesslog.types import UsageRecord
from headgate.core.amounts import written
from headgate.core.policy import Count
from headgate.core.settlement import Source

_MAX_TEXT = 80
_NOTHING = "-"


class Left(Protocol):
    """What is left of one limit. `per` is None for requests in flight."""

    @property
    def count(self) -> Count: ...
    @property
    def per(self) -> str | None: ...
    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...


class ConsoleSink:
    """Says one line for each record. `left_of` tells what a reservation left of its limits."""

    def __init__(
        self, say: Callable[[str], None], left_of: Callable[[str], Sequence[Left]]
    ) -> None:
        self._say = say
        self._left_of = left_of

    async def write(self, records: Sequence[UsageRecord]) -> None:
        """Says each record. A terminal that nobody reads any more is no lost record."""
        for record in records:
            left = () if record.reservation is None else self._left_of(record.reservation)
            with suppress(OSError):
                self._say(line(record, left))


def line(record: UsageRecord, left: Sequence[Left]) -> str:
    """The line of one request, in UTC, with what is left of each limit that it met.

    No text of a client can move the cursor or change colours: only printable characters pass.
    """
    parts = [
        record.time[11:19] if record.time else _NOTHING,
        f"{_shown(record.tenant)}/{_shown(record.user)}" if record.tenant else _NOTHING,
        _shown(record.model or record.requested_model or record.path),
        _NOTHING if record.status is None else str(record.status),
        _outcome(record),
        f"{record.duration_s:.2f} s",
    ]
    return " ".join(parts) + _what_is_left(left)


def _outcome(record: UsageRecord) -> str:
    """The tokens of a charged request; Envoy's reason for one that was not."""
    if record.source is None or record.source is Source.REFUND:
        return _shown(record.details or ",".join(record.flags))
    return f"{record.prompt_tokens}+{record.completion_tokens} tokens ({record.source})"


def _what_is_left(left: Sequence[Left]) -> str:
    if not left:
        return ""
    return " | left " + ", ".join(
        f"{written(item.count, item.remaining)} of {written(item.count, item.limit)}"
        f" {item.count}{f'/{item.per}' if item.per else ''}"
        for item in left
    )


def _shown(text: str | None) -> str:
    if not text:
        return _NOTHING
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_TEXT])
