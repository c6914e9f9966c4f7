"""The three ways to read the body of an answer, chunk by chunk.

The same as the bodies of `headgate/dataplane/tap.lua`.
"""

import re
from typing import Protocol

from extproc.counting.events import Reader, Totals
from extproc.counting.names import (
    MAX_ERROR_BYTES,
    JsonNames,
    ModelNames,
    rename_error,
    rename_event,
)
from extproc.counting.scanner import (
    DURATION,
    METRICS,
    USAGE,
    Counts,
    read_duration,
    read_seconds,
    read_ttft,
    read_usage,
)
from extproc.counting.tracker import Tracker
from headgate.core.apis import Api

MAX_HELD_BYTES = 8 * 1024 * 1024
"""The most that is held back of one answer; a longer event passes unread."""
_BLANK_LINE = re.compile(rb"\n\r?\n|\r\r")
"""Lines may end in LF, CRLF or CR."""
_TELLS_TTFT = frozenset({Api.CHAT, Api.COMPLETIONS, Api.RESPONSES})
_NO_OUTPUT = frozenset({Api.EMBEDDINGS, Api.RERANK, Api.SCORE})


class Body(Protocol):
    """The body of an answer, read chunk by chunk."""

    @property
    def held_bytes(self) -> int:
        """How much of it is held back."""
        ...

    def watch(self, chunk: bytes) -> bytes:
        """Takes the next bytes and returns those to pass on."""
        ...

    def finish(self) -> bytes:
        """Ends the body, and returns the bytes that were still held back."""
        ...


class _HeldBack:
    """Bytes that wait for the rest of their event."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size_bytes = 0

    def add(self, part: bytes) -> bool:
        """Holds one more part; False if the limit is exceeded."""
        self._parts.append(part)
        self.size_bytes += len(part)
        return self.size_bytes <= MAX_HELD_BYTES

    def release(self) -> bytes:
        """Returns all the bytes and holds none."""
        parts, self._parts, self.size_bytes = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)


class StreamBody:
    """Server-sent events. A chunk may cut an event anywhere, even in its blank line, so `_seam`
    keeps the last bytes that are held."""

    def __init__(self, totals: Totals, read_event: Reader, names: ModelNames | None = None) -> None:
        self._totals = totals
        self._read_event = read_event
        self._names = names
        self._held = _HeldBack()
        self._seam = b""
        self._passes = False
        """Whether the current event is too long and passes in pieces."""

    @property
    def held_bytes(self) -> int:
        return self._held.size_bytes

    def watch(self, chunk: bytes) -> bytes:
        out, start, held = [], 0, self._held
        stop = _event_end(self._seam + chunk, 0) - len(self._seam)
        while stop > 0:
            held.add(chunk[start:stop])
            event = held.release()
            out.append(event if self._passes else self._read(event))
            self._passes, self._seam, start = False, b"", stop
            stop = _event_end(chunk, start)
        rest = chunk[start:]
        self._seam = (self._seam + rest)[-2:]
        if (rest and not held.add(rest)) or self._passes:
            self._passes = True
            out.append(held.release())
        return b"".join(out)

    def finish(self) -> bytes:
        if not self._held.size_bytes:
            return b""
        return self._read(self._held.release())

    def _read(self, event: bytes) -> bytes:
        seen = self._read_event(self._totals, event)
        if self._names is None:
            return seen
        if self._totals.error:
            return rename_error(self._names, seen)
        return rename_event(self._names, self._totals.api, seen)


class FlatStreamBody(StreamBody):
    """A stream of audio at a flat price: only the model's name in it is of interest."""

    def finish(self) -> bytes:
        self._totals.complete = True
        return super().finish()


class ErrorBody:
    """A JSON error, which is held back until a brace may end it."""

    def __init__(self, totals: Totals, names: ModelNames) -> None:
        self._totals = totals
        self._names = names
        self._held = _HeldBack()
        self._passes = False

    @property
    def held_bytes(self) -> int:
        return self._held.size_bytes

    def watch(self, chunk: bytes) -> bytes:
        self._held.add(chunk)
        self._passes = self._passes or self._held.size_bytes > MAX_ERROR_BYTES
        if self._passes:
            return self._held.release()
        if not chunk.rstrip(b" \t\n\v\f\r").endswith(b"}"):
            return b""
        return rename_error(self._names, self._held.release())

    def finish(self) -> bytes:
        self._totals.complete = True
        return b"" if self._passes else rename_error(self._names, self._held.release())


def _event_end(text: bytes, start: int) -> int:
    """The index behind the next blank line, which ends an event; 0 if there is none."""
    blank = _BLANK_LINE.search(text, start)
    return blank.end() if blank is not None else 0


class JsonBody:
    """A JSON answer, which passes at once. Of its bytes only usage and metrics are held."""

    def __init__(self, totals: Totals, names: ModelNames | None = None) -> None:
        self._totals = totals
        self._usage = Tracker(USAGE, self._read)
        tells = totals.api in _TELLS_TTFT
        self._metrics = Tracker(METRICS, lambda metrics: (read_ttft(metrics),)) if tells else None
        self._names = None if names is None else JsonNames(names)

    @property
    def held_bytes(self) -> int:
        held = 0 if self._names is None else self._names.held_bytes
        held += 0 if self._metrics is None else self._metrics.held_bytes
        return held + self._usage.held_bytes

    def watch(self, chunk: bytes) -> bytes:
        self._usage.feed(chunk)
        if self._metrics is not None:
            self._metrics.feed(chunk)
        return chunk if self._names is None else self._names.feed(chunk)

    def finish(self) -> bytes:
        totals, usage = self._totals, self._usage.finish()
        if usage is not None and usage.depth == 1 and usage.numbers is not None:
            totals.set_usage(usage.numbers)
        metrics = None if self._metrics is None else self._metrics.finish()
        if metrics is not None and metrics.depth == 1 and metrics.numbers is not None:
            (totals.ttft_ms,) = metrics.numbers
        if totals.api in _NO_OUTPUT and totals.prompt is not None and totals.completion is None:
            totals.completion = 0
        totals.complete = True
        return b"" if self._names is None else self._names.feed(b"", at_end=True)

    def _read(self, usage: bytes) -> Counts:
        return read_usage(self._totals.api, usage)


class AudioBody:
    """A JSON answer about audio with a price per second."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._usage = Tracker(USAGE, lambda usage: (read_seconds(usage),))
        self._duration = Tracker(DURATION, lambda _: None)

    @property
    def held_bytes(self) -> int:
        return self._usage.held_bytes + self._duration.held_bytes

    def watch(self, chunk: bytes) -> bytes:
        self._usage.feed(chunk)
        self._duration.feed(chunk)
        return chunk

    def finish(self) -> bytes:
        usage, duration = self._usage.finish(), self._duration.finish()
        if usage is not None and usage.depth == 1 and usage.numbers is not None:
            (self._totals.seconds,) = usage.numbers
        elif duration is not None and duration.depth == 1 and duration.value is not None:
            self._totals.seconds = read_duration(duration.value)
        self._totals.complete = True
        return b""


class UnreadBody:
    """A body that is not read; only its end is noticed."""

    held_bytes = 0

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def watch(self, chunk: bytes) -> bytes:
        return chunk

    def finish(self) -> bytes:
        self._totals.complete = True
        return b""
