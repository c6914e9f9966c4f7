"""Counts one answer as its bytes come, and says which of them the client sees.

The contract is that of the tap (`headgate/dataplane/tap.lua`): the same usage keys, written
with each chunk so that they survive a client's abort, and the same bytes to the client.
"""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.asked import ClientUsage
from extproc.counting.bodies import Body, JsonBody, StreamBody, UnreadBody
from extproc.counting.events import EVENT_READERS, Totals, read_chunk
from headgate.core.apis import FORM_APIS, Api
from headgate.core.contract import UsageKey

_LESS_USAGE = frozenset({ClientUsage.NONE, ClientUsage.FINAL})


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What the headers of an answer say of it; `encoding` is None where it has none."""

    status: int | None
    content_type: str
    encoding: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """What of the request decides how its answer is read; `n` is its choices for each prompt,
    `per_second` whether it is audio whose seconds have a price (other audio passes unread)."""

    api: Api
    client_usage: ClientUsage
    n: int
    per_second: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """A chunk that was read: `body` to pass on (None: as it came), and usage keys that changed."""

    body: bytes | None
    usage: dict[UsageKey, str]


class Counter:
    """One answer. Feed it every chunk in order, the last one with `is_last`.

    Alters only chat and completions streams of clients that asked for less usage than we did;
    such a stream is held back to the end of each event. A compressed answer, one of another
    content type, and an event over MAX_HELD_BYTES pass unread.
    """

    def __init__(self, request: Request, head: AnswerHead, now_ms: Callable[[], int]) -> None:
        self._totals = Totals(request.api, request.client_usage, request.n, now_ms)
        self._totals.per_second = request.per_second
        self._body = _body_of(self._totals, head)
        self._told: dict[UsageKey, int] = {}
        self._head = head

    @property
    def alters(self) -> bool:
        """Whether the client may get fewer bytes than came: a content-length would be wrong."""
        return self._totals.alters

    @property
    def held_bytes(self) -> int:
        """How much of the answer is held: at most MAX_HELD_BYTES and a chunk."""
        return self._body.held_bytes

    def begin(self) -> dict[UsageKey, str]:
        """What is known from the headers."""
        return {} if self._head.status is None else {UsageKey.STATUS: str(self._head.status)}

    def feed(self, chunk: bytes, is_last: bool) -> Counted:
        """The next chunk; with `is_last` the answer is complete."""
        passed = self._body.watch(chunk)
        if is_last:
            passed += self._body.finish()
        is_changed = self._totals.alters and passed != chunk
        return Counted(passed if is_changed else None, self._changes(is_last))

    def end(self) -> dict[UsageKey, str]:
        """The answer ended with trailers. What is still held of an event that was cut is lost."""
        self._body.finish()
        return self._changes(at_end=True)

    def _changes(self, at_end: bool) -> dict[UsageKey, str]:
        """Settlement needs the events only while no completion is known, so with running usage
        they are told at the end alone."""
        totals, told = self._totals, self._told
        known = {
            UsageKey.PROMPT: totals.prompt,
            UsageKey.COMPLETION: totals.completion,
            UsageKey.CACHED: totals.cached,
            UsageKey.REASONING: totals.reasoning,
            UsageKey.SECONDS: totals.seconds,
            UsageKey.FIRST_EVENT_MS: totals.first_event_ms,
            UsageKey.COMPLETE: 1 if totals.complete else None,
            UsageKey.ERROR: 1 if totals.error else None,
            UsageKey.EVENTS: totals.events if at_end or totals.completion is None else None,
        }
        changes = {}
        for key, value in known.items():
            if value is not None and told.get(key) != value:
                told[key] = value
                changes[key] = str(value)
        return changes


def _body_of(totals: Totals, head: AnswerHead) -> Body:
    """How a body of this kind is read."""
    kind = head.content_type.lower()
    reader = read_chunk if totals.per_second else EVENT_READERS.get(totals.api)
    is_flat = totals.api in FORM_APIS and not totals.per_second
    if head.encoding is not None or is_flat:
        return UnreadBody(totals)
    if reader is not None and kind.startswith("text/event-stream"):
        totals.alters = reader is read_chunk and totals.client_usage in _LESS_USAGE
        return StreamBody(totals, reader)
    if kind.startswith("application/json"):
        return JsonBody(totals)
    return UnreadBody(totals)
