"""Finds members of a JSON text and reads the numbers of a usage object.

`usage` counts only at its own depth, because an answer may echo a tool schema with a `usage` of
its own. The depth of a member is the number of brackets that close after it, so the text before it
is never parsed. Quotes inside a string are escaped: `"usage"` without a backslash before it is
always a whole string. The same as `headgate/dataplane/usage_scanner.lua`.
"""

import re
from dataclasses import dataclass

from headgate.core.apis import Api

USAGE = b'"usage"'
DURATION = b'"duration"'
METRICS = b'"metrics"'

COLON = re.compile(rb"\s*:\s*")
_COMMA_AFTER = re.compile(rb"\s*,\s*")
_COUNT = re.compile(rb"(\d{1,15})[\s,}]")
"""A whole number of at most 15 digits. Anything else does not count as seen; vLLM sends no longer
ones."""
TOKEN = re.compile(rb'[{}\[\]]|"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
"""A bracket, or a string. Its group is empty if the text ends within the string."""
_SECONDS = re.compile(rb'"?(\d{1,15})(?!\d)\.?(\d*)"?[\s,}]')
_MILLISECONDS = re.compile(rb"(\d{1,9}(?:\.\d{0,23})?)[\s,}]")
_OPENING, _CLOSING = b"{[", b"}]"


@dataclass(slots=True, kw_only=True)
class Member:
    """A member of a JSON text, by offsets: its key begins at `first`, its value at `value`.

    `end` is the offset behind a value that is an object (if `has_end`), None for any other value.
    The members of the root have `depth` 1.
    """

    first: int
    value: int
    end: int | None
    depth: int
    has_end: bool


@dataclass(slots=True)
class Counts:
    """The numbers of one usage object; None for a number that it lacks."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None


def find_member(text: bytes, key: bytes) -> tuple[int, int] | None:
    """The offsets of the first member `key` (with its quotes) and of its value."""
    first = text.find(key)
    while first >= 0:
        colon = COLON.match(text, first + len(key))
        if colon is not None and text[first - 1 : first] != b"\\":
            return first, colon.end()
        first = text.find(key, first + len(key))
    return None


def outermost(text: bytes, key: bytes, opening: bytes = b"{") -> Member | None:
    """The outermost member `key` of a JSON text whose beginning may be missing.

    If there are several at one depth, the last, as in every JSON reader. None if there is none, or
    if the text ends within a string. A value has an `end` if it begins with `opening`.
    """
    first_member = find_member(text, key)
    if first_member is None:
        return None
    depth, member = 0, None
    for token in TOKEN.finditer(text, first_member[0]):
        char = text[token.start()]
        if char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
            if member is not None and member.has_end and depth == member.depth:
                member.end = member.end or token.end()
        elif not token[1]:
            return None
        elif (member is None or depth <= member.depth) and token[0] == key:
            member = _member_at(text, token, depth, opening) or member
    if member is not None:
        member.depth -= depth
    return member


def _member_at(text: bytes, key: re.Match[bytes], depth: int, opening: bytes) -> Member | None:
    colon = COLON.match(text, key.end())
    if colon is None:
        return None
    value = colon.end()
    has_end = text.startswith(opening, value)
    return Member(first=key.start(), value=value, end=None, depth=depth, has_end=has_end)


def is_null(json: bytes, at: int) -> bool:
    """Whether the value at this offset is `null`."""
    return json.startswith(b"null", at)


def without(event: bytes, json: bytes, first: int, end: int) -> bytes:
    """`event` without a member, its bytes from `first` to `end`, and the comma that joined it.

    `json` is the event's JSON at its own offset (`events.json_of`).
    """
    before = len(json[:first].rstrip(b" \t\n\v\f\r"))
    if json[before - 1 : before] == b",":
        return event[: before - 1] + event[end:]
    comma = _COMMA_AFTER.match(json, end)
    return event[:first] + event[comma.end() if comma else end :]


def read_usage(api: Api, usage: bytes) -> Counts:
    """The numbers of one usage object. Anthropic's input_tokens excludes the tokens that the cache
    read or wrote."""
    if api is Api.MESSAGES:
        prompt, cached = (
            _number(usage, b'"input_tokens"'),
            _number(usage, b'"cache_read_input_tokens"'),
        )
        if prompt is not None:
            created = _number(usage, b'"cache_creation_input_tokens"')
            prompt += (cached or 0) + (created or 0)
        return Counts(prompt, _number(usage, b'"output_tokens"'), cached)
    return Counts(
        _either(usage, b'"prompt_tokens"', b'"input_tokens"'),
        _either(usage, b'"completion_tokens"', b'"output_tokens"'),
        _number(usage, b'"cached_tokens"'),
        _number(usage, b'"reasoning_tokens"'),
    )


def _either(usage: bytes, key: bytes, other: bytes) -> int | None:
    count = _number(usage, key)
    return _number(usage, other) if count is None else count


def _number(usage: bytes, key: bytes) -> int | None:
    member = find_member(usage, key)
    digits = _COUNT.match(usage, member[1]) if member is not None else None
    return int(digits[1]) if digits is not None else None


def read_seconds(usage: bytes) -> int | None:
    """The length of the audio in a usage object, in seconds."""
    return _number(usage, b'"seconds"')


def read_duration(value: bytes) -> int | None:
    """The length of the audio in the `duration` of verbose_json, in seconds, rounded up. `value`
    begins with its value."""
    seconds = _SECONDS.match(value)
    return None if seconds is None else int(seconds[1]) + bool(seconds[2].strip(b"0"))


def read_ttft(metrics: bytes) -> int | None:
    """vLLM's own milliseconds to the first token, in the `metrics` of --enable-per-request-metrics.

    Its `time_to_first_token_ms` begins when the engine takes the request up; the wait in the queue
    comes before.
    """
    prefill_ms = _milliseconds(metrics, b'"time_to_first_token_ms"')
    if prefill_ms is None:
        return None
    return round(prefill_ms + (_milliseconds(metrics, b'"queue_time_ms"') or 0.0))


def _milliseconds(metrics: bytes, key: bytes) -> float | None:
    """A number that is not negative, with at most 9 digits before the point."""
    member = find_member(metrics, key)
    digits = _MILLISECONDS.match(metrics, member[1]) if member is not None else None
    return float(digits[1]) if digits is not None else None
