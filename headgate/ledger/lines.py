"""Reads one line of usage records, of every schema that there was. Pure.

A line of an older schema lacks fields; a newer one may have more, which are left out.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, TypeAlias

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder

from headgate.core.record_lines import MAX_LINE_BYTES

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Small: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=10**9)]
NEWEST_SCHEMA = 2
_NUL = b"\\u0000"


class RecordLine(Struct, frozen=True, kw_only=True, gc=False):
    """The fields of `docs/records.md`. None for an unknown value, or one that the schema lacks."""

    schema: Annotated[int, Meta(ge=1, le=NEWEST_SCHEMA)] = 1
    time: Annotated[datetime, Meta(tz=True)]
    request_id: str | None = None
    trace_id: str | None = None
    reservation: str | None = None
    tenant: str | None = None
    user: str | None = None
    key: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    method: str | None = None
    path: str | None = None
    api: str | None = None
    requested_model: str | None = None
    model: str | None = None
    base: str | None = None
    adapter: str | None = None
    version: str | None = None
    stream: bool | None = None
    choices: Count | None = None
    max_tokens: Count | None = None
    status: Small | None = None
    upstream_status: Small | None = None
    ended: str | None = None
    limit: str | None = None
    limit_count: str | None = None
    limit_most: Count | None = None
    limit_used: Count | None = None
    limit_asked: Count | None = None
    pod: str | None = None
    attempts: Small | None = None
    replica: str | None = None
    flags: list[str] = []
    details: str | None = None
    request_header_bytes: Count | None = None
    request_bytes: Count | None = None
    response_header_bytes: Count | None = None
    response_bytes: Count | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    audio_seconds: Count | None = None
    estimated_tokens: Count | None = None
    estimated_prompt_tokens: Count | None = None
    cost: Annotated[Decimal, Meta()] | None = None
    price_version: str | None = None
    source: str | None = None
    to_upstream_s: Seconds | None = None
    upstream_first_byte_s: Seconds | None = None
    ttft_s: Seconds | None = None
    token_interval_s: Seconds | None = None
    duration_s: Seconds


class BadLineError(ValueError):
    """A line that is no usage record; the text says why, and continues `the line ...`."""


_decoder = Decoder(RecordLine)


def read_line(line: bytes) -> RecordLine:
    """The record of one line. Raises BadLineError.

    PostgreSQL keeps no NUL in a text, so each becomes U+FFFD.
    """
    if len(line) > MAX_LINE_BYTES:
        raise BadLineError(f"is longer than {MAX_LINE_BYTES} bytes")
    if _NUL in line:
        line = line.replace(_NUL, b"\\ufffd")
    try:
        return _decoder.decode(line)
    except (MsgspecError, ValueError, RecursionError) as error:
        raise BadLineError(f"is not a usage record: {error}") from None
