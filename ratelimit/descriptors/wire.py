"""Converts calls of other domains than ours from Envoy's messages to our values and back."""

from collections.abc import Sequence
from math import ceil

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse
from headgate.core.policy import Per
from ratelimit.descriptors.decide import Descriptor, DescriptorOutcome, Status
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
            entries=tuple((entry.key, entry.value) for entry in descriptor.entries),
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
    message: RateLimitRequest, statuses: Sequence[Status], now_s: float
) -> RateLimitResponse:
    """The answer: refused if any descriptor is, with the remaining hits of each in their order."""
    is_over = any(status.outcome is DescriptorOutcome.OVER for status in statuses)
    response = RateLimitResponse(
        overall_code=RateLimitResponse.OVER_LIMIT if is_over else RateLimitResponse.OK,
        statuses=[_status(status, now_s) for status in statuses],
    )
    if any(status.rate is not None and status.rate.quota for status in statuses):
        response.dynamic_metadata.CopyFrom(_quota_metadata(message, statuses))
    return response


def _status(status: Status, now_s: float) -> RateLimitResponse.DescriptorStatus:
    is_over = status.outcome is DescriptorOutcome.OVER
    encoded = RateLimitResponse.DescriptorStatus(
        code=RateLimitResponse.OVER_LIMIT if is_over else RateLimitResponse.OK,
        limit_remaining=min(status.remaining, _MAX_UINT32),
    )
    rate, window = status.rate, status.window
    if rate is not None and rate.per is not None and window is not None:
        encoded.current_limit.CopyFrom(
            RateLimitResponse.RateLimit(
                name=rate.name, requests_per_unit=rate.limit, unit=_UNITS[rate.per]
            )
        )
        wait_s = max(0, ceil(window.end_s - now_s))
        encoded.duration_until_reset.CopyFrom(Duration(seconds=wait_s))
    return encoded


def _quota_metadata(message: RateLimitRequest, statuses: Sequence[Status]) -> Struct:
    """Envoy's metadata that tells later filters which quotas are exhausted.

    The field names are those of envoyproxy/ratelimit.
    """
    over = [
        Value(number_value=index)
        for index, status in enumerate(statuses)
        if status.outcome is DescriptorOutcome.QUOTA
    ]
    fields = {
        "domain": Value(string_value=message.domain),
        "descriptors": _list([_named(descriptor) for descriptor in message.descriptors]),
        "quotaModeEnabled": Value(bool_value=True),
    }
    if message.hits_addend:
        fields["hitsAddend"] = Value(number_value=message.hits_addend)
    if over:
        fields["quotaModeViolations"] = _list(over)
    return Struct(fields=fields)


def _named(descriptor: RateLimitDescriptor) -> Value:
    entries = [Value(string_value=f"{entry.key}={entry.value}") for entry in descriptor.entries]
    return Value(struct_value=Struct(fields={"entries": _list(entries)}))


def _list(values: list[Value]) -> Value:
    return Value(list_value=ListValue(values=values))
