"""Gives answers and errors the model's name in the policy, where vLLM has another.

The same as `headgate/dataplane/model_names.lua`.
"""

import re
from dataclasses import dataclass

from extproc.counting.events import json_of
from extproc.counting.scanner import COLON, TOKEN, find_member, outermost
from headgate.core.apis import Api

MAX_ERROR_BYTES = 64 * 1024
"""As much of an error is held back."""
_MAX_NAME_BYTES = 1024
"""A model whose member is longer keeps its name."""
_MODEL = b'"model"'
_DEPTHS = {Api.RESPONSES: 2, Api.MESSAGES: 2}
_QUOTES = ((b"`", b"`"), (b"'", b"'"), (b'"', b'"'), (b'"', b'\\"'))
_ALIASES = re.compile(rb' Valid aliases: [^"\\]*')
_BRACKET = re.compile(rb"[{\[]")
_SPACE_TO_END = re.compile(rb"\s*\Z")
_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The name that the client knows, and vLLM's own."""

    name: bytes
    served_as: bytes


def rename_error(names: ModelNames, text: bytes) -> bytes:
    """A whole error with the client's name. vLLM also lists its other names, which are no
    client's."""
    for opening, closing in _QUOTES:
        text = text.replace(opening + names.served_as + closing, opening + names.name + closing)
    return _ALIASES.sub(b"", text)


def rename_event(names: ModelNames, api: Api, event: bytes) -> bytes:
    """An event with the client's name in `model`: of a chunk, or of the message or response in
    it."""
    json = json_of(event)
    member = find_member(json, _MODEL)
    root = json.find(b"{") if member is not None else -1
    if member is None or root < 0:
        return event
    first, value = member
    depth = _DEPTHS.get(api, 1)
    bracket = _BRACKET.search(json, root + 1)
    if depth > 1 or (bracket is not None and bracket.start() < first):
        model = outermost(json, _MODEL)
        if model is None or model.depth != depth:
            return event
        value = model.value
    string = _STRING.match(json, value)
    if string is None:
        return event
    return event[: value + 1] + names.name + event[string.end() - 1 :]


class JsonNames:
    """A JSON answer with the client's name in the `model` of its root."""

    def __init__(self, names: ModelNames) -> None:
        self._name = names.name
        self._rest = b""
        self._depth = 0
        self._in_string = False
        self._is_done = False

    @property
    def held_bytes(self) -> int:
        """How much of the answer is held back."""
        return len(self._rest)

    def feed(self, chunk: bytes, at_end: bool = False) -> bytes:
        """Takes the next bytes, and returns those to pass on."""
        if self._is_done:
            return chunk
        text, start, self._rest = self._rest + chunk, 0, b""
        if self._in_string:
            rest = _STRING_REST.match(text)
            if rest is None or not rest[1]:
                return self._pass_string(text, at_end)
            self._in_string, start = False, rest.end()
        for token in TOKEN.finditer(text, start):
            char = token[0][:1]
            if char in b"{[":
                self._depth += 1
            elif char in b"}]":
                self._depth -= 1
            elif not token[1] or (self._depth == 1 and token[0] == _MODEL):
                passed = self._read_string(text, token, at_end)
                if passed is not None:
                    return passed
        return text

    def _read_string(self, text: bytes, token: re.Match[bytes], at_end: bool) -> bytes | None:
        """The bytes to pass on, if this string has the model's name, or if the text cuts it."""
        at = token.start()
        if not token[1]:
            if self._depth != 1 or len(text) - 1 - at >= len(_MODEL) or at_end:
                return self._pass_string(text, at_end)
            return self._hold(text, at)
        place, may_come = _model_name(text, at, token.end(), at_end)
        if place is not None:
            self._is_done = True
            return text[: place[0]] + self._name + text[place[1] :]
        return self._hold(text, at) if may_come else None

    def _hold(self, text: bytes, at: int) -> bytes:
        self._rest = text[at:]
        return text[:at]

    def _pass_string(self, text: bytes, at_end: bool) -> bytes:
        """The text of a string that goes on: all of it, but no backslash whose second byte is
        missing."""
        self._in_string = True
        backslashes = len(text) - len(text.rstrip(b"\\"))
        return self._hold(text, len(text) - (backslashes % 2 if not at_end else 0))


def _model_name(
    text: bytes, first: int, key_end: int, at_end: bool
) -> tuple[tuple[int, int] | None, bool]:
    """Where the name in a `model` begins and ends. Without an end: whether it may still come."""
    colon = COLON.match(text, key_end)
    if colon is None:
        is_open, string = _SPACE_TO_END.match(text, key_end) is not None, None
    else:
        is_open = text[colon.end() : colon.end() + 1] in (b"", b'"')
        string = _STRING.match(text, colon.end())
    if string is not None and string.end() - 1 - first <= _MAX_NAME_BYTES:
        return (string.start() + 1, string.end() - 1), False
    is_short = len(text) - 1 - first < _MAX_NAME_BYTES
    return None, string is None and is_open and is_short and not at_end
