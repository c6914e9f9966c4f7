"""Reads usage records back, as docs/records.md describes them, and puts them in order of time."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder, Encoder

from headgate.core.apis import Api
from headgate.core.errors import OperatorError
from headgate.core.record_lines import MAX_LINE_BYTES, BrokenGzipError, record_lines
from headgate.core.settlement import Source
from ratelimit.replay import Recorded, Used

NAMED_BAD_LINES = 10
_RUN_LENGTH = 100_000
_EARLIEST_S, _LATEST_S = 946_684_800, 4_102_444_800  # the years 2000 to 2099
_RATE_LIMITED = "RL"
_APIS = {api.value: api for api in Api}

_Count = Annotated[int, Meta(ge=0, le=2**53)]


class UsageLine(Struct, kw_only=True):
    """The fields of a usage record that a replay needs."""

    time: Annotated[datetime, Meta(tz=True)] | None
    reservation: str | None
    tenant: str | None
    user: str | None
    key: str | None
    model: str | None
    flags: list[str]
    prompt_tokens: _Count | None
    completion_tokens: _Count | None
    estimated_tokens: _Count | None
    source: Source | None
    duration_s: Annotated[float, Meta(ge=0)]
    api: str | None = None
    audio_seconds: _Count | None = None
    cached_tokens: _Count | None = None
    estimated_prompt_tokens: _Count | None = None
    """Absent from older records."""


_decoder = Decoder(UsageLine)


class _BadRecordError(ValueError):
    """A line that is no record to replay; the text says why."""


@dataclass(slots=True)
class Records:
    """Reads files and counts their lines. `bad` names the first lines that are no records."""

    requests: int = 0
    never_at_limits: int = 0
    """Records of requests that were refused before any limit, or asked for a list."""
    bad_lines: int = 0
    bad: list[str] = field(default_factory=list)

    def read(self, path: Path, on_bytes: Callable[[int], None]) -> Iterator[Recorded]:
        """The requests of one file, plain or gzip, that came as far as to the limits.

        A bad line is counted and left out. `on_bytes` is called with how many more bytes of the
        file have been read. Raises OperatorError when the file cannot be read.
        """
        number = 0
        try:
            for number, line in record_lines(path, on_bytes):
                yield from self._requests(line, path, number)
        except BrokenGzipError:
            self._is_bad(path, number + 1, "the gzip data is broken from here on")

    def _requests(self, line: bytes, path: Path, number: int) -> Iterator[Recorded]:
        if line.isspace():
            return
        try:
            request = read_record(line)
        except _BadRecordError as error:
            self._is_bad(path, number, str(error))
            return
        if request is None:
            self.never_at_limits += 1
            return
        self.requests += 1
        yield request

    def _is_bad(self, path: Path, number: int, why: str) -> None:
        self.bad_lines += 1
        if len(self.bad) < NAMED_BAD_LINES:
            self.bad.append(f"{path}:{number}: {why}")


def read_record(line: bytes) -> Recorded | None:
    """The request of one line; None for a request that never came to the limits.

    Raises ValueError for a line that is no usage record.
    """
    if len(line) > MAX_LINE_BYTES:
        raise _BadRecordError(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        record = _decoder.decode(line)
    except (MsgspecError, ValueError, RecursionError) as error:
        raise _BadRecordError(f"is not a usage record: {error}") from None
    if record.reservation is None:
        return None
    start_s = 0.0 if record.time is None else record.time.timestamp()
    if not _EARLIEST_S <= start_s < _LATEST_S:
        raise _BadRecordError("has no time between the years 2000 and 2099")
    tenant, user, key, model = record.tenant, record.user, record.key, record.model
    estimate = record.estimated_tokens
    if tenant is None or user is None or key is None or model is None or estimate is None:
        raise _BadRecordError("has a reservation without tenant, user, key, model or its estimate")
    refused = _RATE_LIMITED in record.flags
    return Recorded(
        start_s=start_s,
        reservation=record.reservation,
        end_s=start_s + record.duration_s,
        tenant=tenant,
        user=user,
        key=key,
        model=model,
        estimate=estimate,
        estimate_prompt=_prompt(record, estimate),
        used=None if refused else _used(record),
        refused=refused,
        api=_APIS.get(record.api or ""),
    )


def _prompt(record: UsageLine, estimate: int) -> int | None:
    prompt = record.estimated_prompt_tokens
    return None if prompt is None or prompt > estimate else prompt


def _used(record: UsageLine) -> Used | None:
    if record.source is None or record.source is Source.REFUND:
        return None
    prompt, completion = record.prompt_tokens or 0, record.completion_tokens or 0
    return Used(prompt, record.cached_tokens or 0, completion, record.audio_seconds)


@contextmanager
def in_time_order(
    requests: Iterable[Recorded], run_length: int = _RUN_LENGTH
) -> Iterator[Iterator[Recorded]]:
    """All requests sorted by `Recorded.order`, in bounded memory.

    Several replicas write records, each when its request ends: their order in the files says
    little. Every `run_length` requests are sorted into a temporary file; then the files are merged.
    Raises OperatorError when the disk does not take them.
    """
    order = attrgetter("order")
    with ExitStack() as stack:
        runs: list[Iterable[Recorded]] = []
        run: list[Recorded] = []
        for request in requests:
            run.append(request)
            if len(run) == run_length:
                run.sort(key=order)
                runs.append(_spilled(run, stack))
                run = []
        run.sort(key=order)
        yield heapq.merge(*runs, run, key=order)


def _spilled(run: list[Recorded], stack: ExitStack) -> Iterator[Recorded]:
    try:
        file = stack.enter_context(TemporaryFile())  # noqa: SIM115 (the stack closes it)
        file.write(Encoder().encode_lines(run))
        file.seek(0)
    except OSError as error:
        raise OperatorError(f"cannot sort in a temporary file: {error.strerror}") from error
    return map(Decoder(Recorded).decode, file)
