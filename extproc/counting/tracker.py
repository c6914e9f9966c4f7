"""Finds the outermost member of a JSON text that passes in chunks of any size.

Like `scanner.outermost`, but it holds no text. The depth of a member is known only from the
brackets after it, so they are counted until the text ends. At the brace that closes a member's
object its numbers are read, and its bytes are dropped. The same as
`headgate/dataplane/member_tracker.lua`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from extproc.counting.scanner import COLON, TOKEN

MAX_OBJECT_BYTES = 64 * 1024
"""A longer usage object is not read; vLLM's has some 200 bytes."""
_VALUE_BYTES = 64
"""As much of a value that is not an object is kept."""
_SPACE = re.compile(rb"\s*")
_OPENING, _CLOSING, _QUOTE = b"{[", b"}]", ord('"')

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Tracked(Generic[T]):
    """A member: the `numbers` of an object, or the first bytes of any other `value`.

    The members of the root have `depth` 1, once the text has ended.
    """

    depth: int
    value: bytes | None
    is_open: bool
    numbers: T | None = None
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    is_too_long: bool = False

    def capture(self, part: bytes) -> None:
        """Keeps the bytes of an open object."""
        self.size_bytes += len(part)
        self.parts.append(part)
        if self.is_too_long or self.size_bytes > MAX_OBJECT_BYTES:
            self.is_too_long, self.parts = True, []


class Tracker(Generic[T]):
    """Tracks the member `key` (with its quotes); `read` takes the text of an object."""

    def __init__(self, key: bytes, read: Callable[[bytes], T]) -> None:
        self._key = key
        self._read = read
        self._rest = b""
        """The end of the text so far, as far as the next bytes are needed to read it."""
        self._depth = 0
        self._member: Tracked[T] | None = None
        self._is_started = False
        self._is_cut = False

    @property
    def held_bytes(self) -> int:
        """How much of the text is kept."""
        member = self._member
        return len(self._rest) + (member.size_bytes if member is not None and member.parts else 0)

    def feed(self, chunk: bytes, at_end: bool = False) -> None:
        """Takes the next bytes of the text."""
        text = self._rest + chunk
        first = 0 if self._is_started else self._find_first(text, at_end)
        if first is None:
            return
        self._is_started, self._rest, start = True, b"", 0
        stop = len(text)
        for token in TOKEN.finditer(text, first):
            at, char = token.start(), text[token.start()]
            if char in _OPENING:
                self._depth += 1
            elif char in _CLOSING:
                self._depth -= 1
                self._close(text[start : token.end()] if self._closes() else None)
            elif not token[1]:
                self._is_cut, stop = at_end, at
                self._rest = self._cut_string(text[at:])
                break
            elif token[0] == self._key and self._fits():
                rest, start = self._begin(text, token.end(), start, at_end)
                if rest is not None:
                    self._rest, stop = rest, at
                    break
        if self._member is not None and self._member.is_open:
            self._member.capture(text[start:stop])

    def finish(self) -> Tracked[T] | None:
        """The outermost member of the whole text: the last one of those with the smallest depth.

        None if there is none, or if the text ends within a string.
        """
        self.feed(b"", at_end=True)
        member = self._member
        if self._is_cut or member is None:
            return None
        member.depth -= self._depth
        return member

    def _find_first(self, text: bytes, at_end: bool) -> int | None:
        """Where the first member begins; None while there is none."""
        key = self._key
        first, start = text.find(key), 0
        while first >= 0:
            last = first + len(key)
            if text[first - 1 : first] != b"\\":
                after = _space_end(text, last)
                if text.startswith(b":", after):
                    return first
                if after == len(text) and not at_end:
                    self._rest = text[max(first - 1, 0) : last]
                    return None
            start = last
            first = text.find(key, start)
        self._rest = text[max(len(text) - len(key) - 1, start) :]
        return None

    def _fits(self) -> bool:
        return self._member is None or self._depth <= self._member.depth

    def _closes(self) -> bool:
        member = self._member
        return member is not None and member.is_open and member.depth == self._depth

    def _close(self, part: bytes | None) -> None:
        member = self._member
        if part is None or member is None:
            return
        member.capture(part)
        member.numbers = None if member.is_too_long else self._read(b"".join(member.parts))
        member.is_open, member.parts = False, []

    def _begin(
        self, text: bytes, key_end: int, start: int, at_end: bool
    ) -> tuple[bytes | None, int]:
        """Begins a member, and returns where its bytes start. If the text ends before its value is
        known, returns first the key and the value, without white space, for the next bytes."""
        colon = COLON.match(text, key_end)
        value = None if colon is None else colon.end()
        at = _space_end(text, key_end) if value is None else value
        is_short = at == len(text) if value is None else len(text) - value <= _VALUE_BYTES
        if is_short and not at_end:
            return self._key + (b"" if value is None else b":") + text[at:], start
        if value is None:
            return None, start
        is_open = text.startswith(b"{", value)
        kept = None if is_open else text[value : value + _VALUE_BYTES]
        self._member = Tracked(depth=self._depth, value=kept, is_open=is_open)
        return None, value

    def _cut_string(self, cut: bytes) -> bytes:
        """A string that the text cuts. Of a long one only the part is kept that decides where it
        ends, and that it is not the key."""
        member = self._member
        is_open = member is not None and member.is_open
        if member is not None and is_open and len(cut) > MAX_OBJECT_BYTES:
            member.is_too_long = True
        elif len(cut) <= len(self._key) or is_open:
            return cut
        backslashes = len(cut) - len(cut.rstrip(b"\\"))
        return b'"' + b"x" * len(self._key) + b"\\" * (backslashes % 2)


def _space_end(text: bytes, start: int) -> int:
    space = _SPACE.match(text, start)
    return start if space is None else space.end()
