"""Converts calls of other domains than ours from Envoy's messages to our values and back."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.text_format import MessageToString

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse
from headgate.core.policy import Per
from ratelimit.descriptors.decide import Descriptor, Status, is_refused, metadata_of
from ratelimit.descriptors.tree import Rate

OVERRIDE_ID = "override"

_MAX_UINT32 = 2**32 - 1
_Unit = RateLimitResponse.RateLimit
_Override = RateLimitDescriptor.RateLimitOverride
_PERS = {
    _Override.SECOND: Per.SECOND,
    _Override.MINUTE: Per.MINUTE,
    _Override.HOUR: Per.HOUR,
    _Override.DAY: Per.DAY,
    _Override.MONTH: Per.MONTH,
    _Override.YEAR: Per.YEAR,
}
_UNITS = {per: getattr(_Unit, per.name) for per in Per}


class BadCallError(ValueError):
    """A call that envoyproxy/ratelimit also answers with an error. Its text is one line."""


def decode(message: RateLimitRequest) -> tuple[Descriptor, ...]:
    """The descriptors of a call. Raises BadCallError."""
    if not message.domain:
        raise BadCallError("rate limit domain must not be empty")
    if not message.descriptors:
        raise BadCallError("rate limit descriptor list must not be empty")
    default_hits = max(1, message.hits_addend)
    return tuple(
        Descriptor(
            entries=tuple([(entry.key, entry.value) for entry in descriptor.entries]),
            hits=(
                descriptor.hits_addend.value if descriptor.HasField("hits_addend") else default_hits
            ),
            gives_back=descriptor.is_negative_hits,
            override=_override(descriptor) if descriptor.HasField("limit") else None,
        )
        for descriptor in message.descriptors
    )


def _override(descriptor: RateLimitDescriptor) -> Rate:
    per = _PERS.get(descriptor.limit.unit)
    if per is None:
        raise BadCallError("the limit of a descriptor needs a unit from SECOND to YEAR")
    return Rate(id=OVERRIDE_ID, limit=descriptor.limit.requests_per_unit, per=per)


def encode(
    message: RateLimitRequest,
    statuses: Sequence[Status],
    now_s: float,
    has_metadata: bool = False,
) -> RateLimitResponse:
    """The answer, with the remaining hits of each descriptor in their order.

    With `has_metadata` it carries metadata for the filters behind Envoy's rate limit.
    """
    response = RateLimitResponse()
    response.overall_code = _code(is_refused(statuses))
    for status in statuses:
        _add_status(response, status, now_s)
    if has_metadata:
        response.dynamic_metadata.CopyFrom(_metadata(message, statuses))
    return response


def _code(is_over: bool) -> RateLimitResponse.Code:
    return RateLimitResponse.OVER_LIMIT if is_over else RateLimitResponse.OK


def _add_status(response: RateLimitResponse, status: Status, now_s: float) -> None:
    # Fields that are set in place cost a third of messages that are built and copied.
    encoded = response.statuses.add()
    encoded.code = _code(status.is_over)
    encoded.limit_remaining = min(status.remaining, _MAX_UINT32)
    rate, window = status.rate, status.window
    if rate is not None and rate.per is not None and window is not None:
        limit = encoded.current_limit
        limit.name = rate.name
        limit.requests_per_unit = rate.limit
        limit.unit = _UNITS[rate.per]
        encoded.duration_until_reset.SetInParent()
        encoded.duration_until_reset.seconds = max(0, ceil(window.end_s - now_s))


def _metadata(message: RateLimitRequest, statuses: Sequence[Status]) -> Struct:
    """The fields that envoyproxy/ratelimit sends with RESPONSE_DYNAMIC_METADATA."""
    fields: dict[str, Any] = {
        "domain": message.domain,
        "descriptors": [_described(descriptor) for descriptor in message.descriptors],
    }
    if message.hits_addend:
        fields["hitsAddend"] = message.hits_addend
    if metadata := metadata_of(statuses):
        fields["metadata"] = metadata
    struct = Struct()
    struct.update(fields)
    return struct


def _described(descriptor: RateLimitDescriptor) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "entries": [f"{entry.key}={entry.value}" for entry in descriptor.entries]
    }
    if descriptor.HasField("limit"):
        # The text format of protobuf, as there.
        fields["limit"] = MessageToString(descriptor.limit, as_one_line=True).replace(": ", ":")
    if descriptor.HasField("hits_addend"):
        fields["hitsAddend"] = descriptor.hits_addend.value
    return fields
