"""Counts one answer while its bytes pass, and chooses the bytes that the client sees.

It has the contract of the tap (`headgate/dataplane/tap.lua`): the same usage keys and the same
bytes for the client. The keys are written with each chunk, so that they survive a client's abort.
"""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.counting.bodies import (
    AudioBody,
    Body,
    ErrorBody,
    FlatStreamBody,
    JsonBody,
    StreamBody,
    UnreadBody,
)
from extproc.counting.events import EVENT_READERS, Totals, pass_event, read_chunk
from extproc.counting.names import ModelNames
from extproc.types import ClientUsage
from headgate.core.apis import FORM_APIS, Api
from headgate.core.contract import UsageKey

_LESS_USAGE = frozenset({ClientUsage.NONE, ClientUsage.FINAL})


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """The headers of an answer that decide how it is read; `encoding` is None without one."""

    status: int | None
    content_type: str
    encoding: str | None


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """The properties of a request that decide how its answer is read.

    `n` is the number of choices for each prompt. `per_second` says that it is audio with a price
    per second; other audio passes unread. `names` are the model's names, if vLLM has another.
    """

    api: Api
    client_usage: ClientUsage
    n: int
    per_second: bool = False
    names: ModelNames | None = None


@dataclass(frozen=True, slots=True)
class AnswerChunk:
    """A chunk that was read: the `body` to pass on (None: unchanged), and the changed usage."""

    body: bytes | None
    usage: dict[UsageKey, str]


class AnswerCounter:
    """One answer. Feed it every chunk in order, the last one with `is_last`.

    It alters only chat and completions streams whose clients asked for less usage than Headgate
    did. Such a stream is held back to the end of each event. A compressed answer, another content
    type, and an event over MAX_HELD_BYTES pass unread.
    """

    def __init__(self, context: AnswerContext, head: AnswerHead, now_ms: Callable[[], int]) -> None:
        self._totals = Totals(
            api=context.api,
            client_usage=context.client_usage,
            n=context.n,
            now_ms=now_ms,
            per_second=context.per_second,
        )
        self._body = _body_of(self._totals, head, context.names)
        self._written: dict[UsageKey, int] = {}
        self._head = head

    @property
    def alters(self) -> bool:
        """Whether the client may get fewer bytes, so that a content-length would be wrong."""
        return self._totals.alters

    @property
    def held_bytes(self) -> int:
        """How much of the answer is held back: at most MAX_HELD_BYTES and a chunk."""
        return self._body.held_bytes

    def begin(self) -> dict[UsageKey, str]:
        """The usage that is known from the headers: the status."""
        return {} if self._head.status is None else {UsageKey.STATUS: str(self._head.status)}

    def feed(self, chunk: bytes, is_last: bool) -> AnswerChunk:
        """The next chunk; with `is_last` the answer is complete."""
        passed = self._body.watch(chunk)
        if is_last:
            passed += self._body.finish()
        is_changed = self._totals.alters and passed != chunk
        return AnswerChunk(passed if is_changed else None, self._changes(is_last))

    def end(self) -> dict[UsageKey, str]:
        """The answer ended with trailers. An event that is not complete is lost."""
        self._body.finish()
        return self._changes(at_end=True)

    def _changes(self, at_end: bool) -> dict[UsageKey, str]:
        """The keys whose values changed. Settlement needs the events only while no completion is
        known, so with running usage they are written only at the end."""
        totals, written = self._totals, self._written
        known = {
            UsageKey.PROMPT: totals.prompt,
            UsageKey.COMPLETION: totals.completion,
            UsageKey.CACHED: totals.cached,
            UsageKey.REASONING: totals.reasoning,
            UsageKey.SECONDS: totals.seconds,
            UsageKey.FIRST_EVENT_MS: totals.first_event_ms,
            UsageKey.TTFT_MS: totals.ttft_ms,
            UsageKey.COMPLETE: 1 if totals.complete else None,
            UsageKey.ERROR: 1 if totals.error else None,
            UsageKey.EVENTS: totals.events if at_end or totals.completion is None else None,
        }
        changes = {}
        for key, value in known.items():
            if value is not None and written.get(key) != value:
                written[key] = value
                changes[key] = str(value)
        return changes


class PassedAnswer:
    """An answer that is counted elsewhere: all of it passes unread."""

    alters = False
    held_bytes = 0

    def begin(self) -> dict[UsageKey, str]:
        return {}

    def feed(self, _chunk: bytes, is_last: bool) -> AnswerChunk:  # noqa: ARG002 - as AnswerCounter
        return AnswerChunk(None, {})

    def end(self) -> dict[UsageKey, str]:
        return {}


def _body_of(totals: Totals, head: AnswerHead, names: ModelNames | None) -> Body:
    """The reader for a body with these headers."""
    kind = head.content_type.lower()
    reader = read_chunk if totals.per_second else EVENT_READERS.get(totals.api)
    is_flat = totals.api in FORM_APIS and not totals.per_second
    is_stream = kind.startswith("text/event-stream")
    is_json = kind.startswith("application/json")
    if head.encoding is not None:
        return UnreadBody(totals)
    if names is not None and (head.status is None or head.status // 100 != 2):
        totals.alters = is_json
        return ErrorBody(totals, names) if is_json else UnreadBody(totals)
    if is_flat:
        totals.alters = names is not None and is_stream
        return FlatStreamBody(totals, pass_event, names) if totals.alters else UnreadBody(totals)
    if reader is not None and is_stream:
        totals.gets_less = reader is read_chunk and totals.client_usage in _LESS_USAGE
        totals.alters = totals.gets_less or names is not None
        return StreamBody(totals, reader, names)
    if is_json and totals.per_second:
        return AudioBody(totals)
    totals.alters = is_json and names is not None
    return JsonBody(totals, names) if is_json else UnreadBody(totals)
