"""The messages by which Envoy answers from the cache itself."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from extproc.cache.serving import OverLimit, Served
from extproc.counting.counter import AnswerChunk
from headgate._gen.base_pb2 import HeaderValueOption
from headgate._gen.ext_proc_pb2 import ImmediateResponse, ProcessingResponse
from headgate.core.answer_cache import CACHE_CONTROL, CACHE_HEADER, HIT, HIT_DETAILS, MISS
from headgate.core.apis import door_of
from headgate.core.contract import LimitsKey, Namespace, UsageKey
from headgate.core.errors import ApiError, Refusal

Metadata: TypeAlias = Mapping[UsageKey, str] | Mapping[LimitsKey, str]
_PRIVATE = (CACHE_CONTROL, "private")
"""No cache between Headgate and the client may give the answer to anybody else."""
MISS_HEADERS = ((CACHE_HEADER, MISS), _PRIVATE)
_RATE_LIMITED = "request_rate_limited"
"""The details of a refusal by Envoy's rate-limit filter, which the record of this one has, too."""


def encode_served(
    served: Served, seen: AnswerChunk, more: Iterable[tuple[str, str]]
) -> ProcessingResponse:
    """Ends the request with a kept answer. `seen` is what the client sees of it, and its usage."""
    headers = (
        ("content-type", served.answer.content_type),
        (CACHE_HEADER, HIT),
        ("age", str(served.age_s)),
        _PRIVATE,
        *served.allowed.headers,
        *more,
    )
    body = served.answer.body if seen.body is None else seen.body
    response = _immediate(200, body, HIT_DETAILS, headers)
    _note(response, Namespace.USAGE, seen.usage)
    if served.allowed.held_by:
        _note(response, Namespace.ADMISSION, {LimitsKey.HELD_BY: served.allowed.held_by})
    return response


def encode_over_limit(over: OverLimit, request_id: str) -> ProcessingResponse:
    """Ends the request with 429, as Envoy's rate-limit filter would."""
    refused = over.refused
    error = ApiError(Refusal.OVER_LIMIT, refused.message)
    body = error.body(door_of(over.path).shape, request_id)
    response = _immediate(429, body, _RATE_LIMITED, refused.headers)
    if refused.limit is not None:
        _note(response, Namespace.ADMISSION, {LimitsKey.REFUSED_BY: refused.limit})
    return response


def _immediate(
    status: int, body: bytes, details: str, headers: Iterable[tuple[str, str]]
) -> ProcessingResponse:
    immediate = ImmediateResponse(body=body, details=details)
    immediate.status.code = status
    for name, text in headers:
        option = immediate.headers.set_headers.add()
        option.header.key = name
        option.header.raw_value = text.encode()
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return ProcessingResponse(immediate_response=immediate)


def _note(response: ProcessingResponse, namespace: Namespace, values: Metadata) -> None:
    """Envoy adds these keys to the namespace."""
    if values:
        fields = response.dynamic_metadata.fields[namespace].struct_value.fields
        for key, text in values.items():
            fields[key].string_value = text
