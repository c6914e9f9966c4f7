"""Reads usage, progress, end and failure from one server-sent event of each API.

The same as `headgate/dataplane/usage_events.lua`. A reader takes the totals and one event with its
blank line. It updates the totals, and returns the part of the event for the client.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from json import dumps

from extproc.counting.scanner import (
    USAGE,
    Counts,
    Member,
    find_member,
    is_null,
    outermost,
    read_usage,
    without,
)
from extproc.types import ClientUsage
from headgate.core.apis import Api

_CHOICES, _ERROR, _ROLE, _CONTENT = b'"choices"', b'"error"', b'"role"', b'"content"'
_LINE = re.compile(rb"[^\r\n]+")
_FIRST_OBJECT = re.compile(rb"\[\s*\{")
_BRACKET = re.compile(rb"[{\[]")
_INDEX = re.compile(rb'\s*"index"\s*:\s*(\d{1,15})(?!\d)')
_DONE = re.compile(rb"\s*\[DONE\]")
_NAME = re.compile(rb"(?:\A|[\r\n])event:\s*([\w.]+)")
_DATA = b"data:"


@dataclass(slots=True, kw_only=True)
class Totals:
    """The numbers of one answer so far; None for a number that is not known.

    `n` is the number of choices for each prompt. `alters`: the client gets other bytes than the
    upstream sent. `gets_less`: running usage is taken out. `per_second`: it is audio with a price
    per second.
    """

    api: Api
    client_usage: ClientUsage
    n: int
    now_ms: Callable[[], int]
    alters: bool = False
    gets_less: bool = False
    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    per_second: bool = False
    seconds: int | None = None
    events: int = 0
    first_event_ms: int | None = None
    ttft_ms: int | None = None
    complete: bool = False
    error: bool = False
    completions: dict[int, int] = field(default_factory=dict)
    reasonings: dict[int, int] = field(default_factory=dict)
    prompts: dict[int, int] = field(default_factory=dict)
    cached_parts: dict[int, int] = field(default_factory=dict)
    unsent: bytes | None = None
    """The last event with usage beside choices, for a client that asked for the final usage."""

    def set_usage(self, counts: Counts) -> None:
        """Takes the final usage. A number that it lacks keeps its value."""
        self.prompt = self.prompt if counts.prompt is None else counts.prompt
        self.completion = self.completion if counts.completion is None else counts.completion
        self.cached = self.cached if counts.cached is None else counts.cached
        self.reasoning = self.reasoning if counts.reasoning is None else counts.reasoning

    def add_running(self, choice_no: int, counts: Counts) -> None:
        """Adds the running usage of one choice.

        Completions add up over the choices. Prompts add up over the prompts, each of which has `n`
        consecutive choices. vLLM reports cached and reasoning tokens only with the final usage.
        Other servers send that with the last choice.
        """
        prompt_no = choice_no // self.n if self.api is Api.COMPLETIONS else 0
        self.completion = _add(self.completion, self.completions, choice_no, counts.completion)
        self.reasoning = _add(self.reasoning, self.reasonings, choice_no, counts.reasoning)
        self.prompt = _add(self.prompt, self.prompts, prompt_no, counts.prompt)
        self.cached = _add(self.cached, self.cached_parts, prompt_no, counts.cached)

    def count_event(self) -> None:
        """Counts one more event with output."""
        self.events += 1
        if self.first_event_ms is None:
            self.first_event_ms = self.now_ms()


def _add(total: int | None, parts: dict[int, int], part_no: int, count: int | None) -> int | None:
    """The total with the count of one part that has changed."""
    if count is None:
        return total
    before, parts[part_no] = parts.get(part_no, 0), count
    return (total or 0) + count - before


Reader = Callable[[Totals, bytes], bytes]


def pass_event(_totals: Totals, event: bytes) -> bytes:
    """An event that is not read."""
    return event


def json_of(event: bytes) -> bytes:
    """The JSON of an event at its own offset; everything else becomes white space, except a
    `data:` that begins the event."""
    if event.startswith(_DATA) and b"\r" not in event:
        line_end = event.find(b"\n")
        if line_end < 0 or line_end >= len(event) - 2:
            return event  # one line, as vLLM sends it
    return _LINE.sub(_blank, event)


def _blank(line: re.Match[bytes]) -> bytes:
    text = line[0]
    return b"     " + text[5:] if text.startswith(_DATA) else b" " * len(text)


def _first_choice(json: bytes) -> int | None:
    """The index behind the brace of a chunk's first choice; None if it has no choices."""
    member = find_member(json, _CHOICES)
    if member is None:
        return None
    first, value = member
    root = json.find(b"{")
    bracket = _BRACKET.search(json, root + 1) if root >= 0 else None
    if bracket is not None and bracket.start() < first:  # may be below another member
        choices = outermost(json, _CHOICES)
        if choices is None or choices.depth != 1:
            return None
        value = choices.value
    brace = _FIRST_OBJECT.match(json, value)
    return brace.end() if brace is not None else None


def _opens_choice(json: bytes) -> bool:
    """Whether this chunk opens a chat choice: it has the role and no text yet."""
    role, content = find_member(json, _ROLE), find_member(json, _CONTENT)
    if role is None or content is None:
        return False
    return json.startswith(b'"', role[1]) and json.startswith(b'""', content[1])


def read_chunk(totals: Totals, event: bytes) -> bytes:
    """A chunk of chat, completions or audio."""
    json = json_of(event)
    choice = _first_choice(json)
    if choice is not None and not _opens_choice(json):
        totals.count_event()
    usage = outermost(json, USAGE)
    if usage is not None and usage.depth == 1:
        return _read_chunk_usage(totals, event, json, usage, choice)
    if _DONE.match(json, 5):
        totals.complete = True
        return _unsent_usage(totals) + event
    failure = outermost(json, _ERROR)
    if failure is not None and failure.depth == 1 and not is_null(json, failure.value):
        totals.error = True
    return event


def _read_chunk_usage(
    totals: Totals, event: bytes, json: bytes, usage: Member, choice: int | None
) -> bytes:
    """A chunk with choices carries running usage, a chunk without choices the final usage."""
    if usage.end is None:
        is_extra = totals.client_usage is ClientUsage.NONE and is_null(json, usage.value)
        return without(event, json, usage.first, usage.value + 4) if is_extra else event
    counts = read_usage(totals.api, json[usage.value : usage.end])
    if choice is None:
        totals.set_usage(counts)
        totals.unsent = None
        return b"" if totals.client_usage is ClientUsage.NONE else event
    index = _INDEX.match(json, choice)
    totals.add_running(int(index[1]) if index else 0, counts)
    if totals.client_usage is ClientUsage.FINAL and counts.completion is not None:
        totals.unsent = event
    return without(event, json, usage.first, usage.end) if totals.gets_less else event


def _unsent_usage(totals: Totals) -> bytes:
    """The final usage for a client that asked for it, if the stream had usage only beside choices:
    the last such chunk without its choices. Of several choices it has the sum.
    A stream with an error has no final usage without us either."""
    event = totals.unsent
    if event is None or totals.error:
        return b""
    usage = outermost(json_of(event), USAGE)
    if usage is not None and len(totals.completions) > 1:
        prompt, completion = totals.prompt or 0, totals.completion or 0
        numbers = {"prompt_tokens": prompt, "total_tokens": prompt + completion}
        text = dumps({**numbers, "completion_tokens": completion}, separators=(",", ":"))
        event = event[: usage.value] + text.encode() + event[usage.end :]
    choices = outermost(json_of(event), _CHOICES, opening=b"[")
    if choices is None or choices.end is None:
        return b""
    return event[: choices.value] + b"[]" + event[choices.end :]


def _event_name(event: bytes) -> bytes:
    name = _NAME.search(event)
    return name[1] if name is not None else b""


def _usage_at(totals: Totals, event: bytes, depth: int) -> Counts:
    json = json_of(event)
    usage = outermost(json, USAGE)
    if usage is None or usage.depth != depth or usage.end is None:
        return Counts()
    return read_usage(totals.api, json[usage.value : usage.end])


def _read_response_event(totals: Totals, event: bytes) -> bytes:
    name = _event_name(event)
    if name.endswith(b".delta"):
        totals.count_event()
    elif name == b"error":
        totals.error = True
    elif name in _LAST_OF_RESPONSE:
        totals.set_usage(_usage_at(totals, event, 2))
        totals.complete = True
        totals.error = totals.error or name == b"response.failed"
    return event


def _read_message_event(totals: Totals, event: bytes) -> bytes:
    match _event_name(event):
        case b"content_block_delta":
            totals.count_event()
        case b"message_start":
            counts = _usage_at(totals, event, 2)
            counts.completion = None  # nothing is generated yet
            totals.set_usage(counts)
        case b"message_delta":
            totals.set_usage(_usage_at(totals, event, 1))
        case b"message_stop":
            totals.complete = True
        case b"error":
            totals.error = True
    return event


_LAST_OF_RESPONSE = {b"response.completed", b"response.incomplete", b"response.failed"}

EVENT_READERS: dict[Api, Reader] = {
    Api.CHAT: read_chunk,
    Api.COMPLETIONS: read_chunk,
    Api.RESPONSES: _read_response_event,
    Api.MESSAGES: _read_message_event,
}
"""The reader of each API that streams."""
