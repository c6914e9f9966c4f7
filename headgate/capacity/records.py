"""The demand in usage records: the requests that pods computed, and those that none could take."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder

from headgate.capacity.traffic import Arrival
from headgate.core.record_lines import MAX_LINE_BYTES, BrokenGzipError, record_lines

_RATE_LIMITED = "RL"
_UNAVAILABLE = 503
_Count = Annotated[int, Meta(ge=0, le=2**53)]


class _Line(Struct, kw_only=True):
    """The fields of a usage record that a plan needs."""

    time: Annotated[datetime, Meta(tz=True)] | None
    reservation: str | None
    tenant: str | None
    user: str | None
    model: str | None
    status: int | None
    flags: list[str]
    prompt_tokens: _Count | None
    completion_tokens: _Count | None
    estimated_tokens: _Count | None
    base: str | None = None
    cached_tokens: _Count | None = None
    estimated_prompt_tokens: _Count | None = None
    ttft_s: Annotated[float, Meta(ge=0)] | None = None
    cache: str | None = None


_decoder = Decoder(_Line)


@dataclass(slots=True)
class Demand:
    """The demand of each base model. `at_s` of an arrival is Unix time."""

    arrivals: dict[str, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    ttft_s: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By base model: when a request began, and its time to the first token."""
    refused_by_limits: int = 0
    """Refused by a quota. They are no demand for pods."""
    without_capacity: int = 0
    """Answered 503. They are demand, counted by their estimate; clients that retry inflate it."""
    other_lines: int = 0
    """Requests that never came to a model, and lines that are no records."""

    def read(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        """Adds one file. Raises OperatorError when it cannot be read."""
        try:
            for _, line in record_lines(path, on_bytes):
                self._add(line)
        except BrokenGzipError:
            self.other_lines += 1

    def _add(self, line: bytes) -> None:
        if line.isspace():
            return
        record = _decoded(line)
        base = None if record is None else record.base or record.model
        if record is None or base is None or record.time is None or record.reservation is None:
            self.other_lines += 1
            return
        if record.cache is not None:  # no GPU worked on it
            self.other_lines += 1
            return
        if _RATE_LIMITED in record.flags:
            self.refused_by_limits += 1
            return
        at_s = record.time.timestamp()
        prompt, output = record.prompt_tokens or 0, record.completion_tokens or 0
        if record.status == _UNAVAILABLE:
            self.without_capacity += 1
            prompt = record.estimated_prompt_tokens or 0
            output = (record.estimated_tokens or 0) - prompt
        if prompt + output <= 0:
            self.other_lines += 1
            return
        arrival = Arrival(
            at_s=at_s,
            user=record.user or "",
            tenant=record.tenant or "",
            prompt_tokens=prompt,
            cached_tokens=min(record.cached_tokens or 0, prompt),
            output_tokens=output,
        )
        self.arrivals[base].append(arrival)
        if record.ttft_s is not None:
            self.ttft_s[base].append((at_s, record.ttft_s))


def by_tenant(arrivals: Sequence[Arrival]) -> Mapping[str, list[Arrival]]:
    """The arrivals of each tenant, the tenant with the most tokens first."""
    tenants: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        tenants[arrival.tenant].append(arrival)
    tokens = {
        name: sum(each.prompt_tokens + each.output_tokens for each in own)
        for name, own in tenants.items()
    }
    return {name: tenants[name] for name in sorted(tenants, key=lambda name: -tokens[name])}


def _decoded(line: bytes) -> _Line | None:
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        return _decoder.decode(line)
    except (MsgspecError, ValueError, RecursionError):
        return None
