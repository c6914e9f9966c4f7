"""Converts Envoy's rate limit messages to our values and back.

`headgate.core.contract` names the entries of the descriptors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse
from headgate.core.amounts import NANOS
from headgate.core.apis import ANTHROPIC_APIS, Api, ErrorShape
from headgate.core.contract import (
    ABSENT,
    DOMAIN,
    OP,
    OP_RESERVE,
    OP_SETTLE,
    PRIORITY_HEADER,
    AdmissionKey,
    LimitsKey,
)
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Count, Per, Shape, Slots, Smooth, Windowed
from headgate.core.settlement import Estimate, Usage, read_count, read_held_by, read_usage
from headgate.core.trace_headers import REQUEST_ID_ENTRY
from ratelimit.answers import Admitted, LimitStatus, Refused, ReserveRequest
from ratelimit.headers import quota_headers, refusal_message, refused_headers, tightest

_APIS = {api.value: api for api in Api}
_MAX_UINT32 = 2**32 - 1
_NANOS_SHOWN = NANOS // 1000
"""Cost is shown in thousandths of the currency: whole units would hide most of the remainder."""
_Unit = RateLimitResponse.RateLimit
_UNITS = {
    Per.SECOND: _Unit.SECOND,
    Per.MINUTE: _Unit.MINUTE,
    Per.HOUR: _Unit.HOUR,
    Per.DAY: _Unit.DAY,
    Per.WEEK: _Unit.WEEK,
    Per.MONTH: _Unit.MONTH,
    Per.YEAR: _Unit.YEAR,
}


class BadDescriptorError(ValueError):
    """A call that Headgate's own filters do not make. Its text is one line for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleCall:
    """The call at the end of a request. `reservation` is None if the request never had one.

    `held_by` names the replica that holds the reservation, from the answer to its reserve call;
    empty if the answer named none.
    """

    reservation: str | None
    tenant: str
    usage: Usage
    estimate: Estimate
    held_by: str = ""


def decode(message: RateLimitRequest) -> ReserveRequest | SettleCall:
    """Reads one call. Raises BadDescriptorError: an unknown call is never let through."""
    if message.domain != DOMAIN:
        raise BadDescriptorError(f"the domain must be {DOMAIN}, not {_shown(message.domain)}")
    if len(message.descriptors) != 1:
        raise BadDescriptorError(
            f"a call carries exactly one descriptor, this one has {len(message.descriptors)}"
        )
    descriptor = message.descriptors[0]
    entries = {entry.key: entry.value for entry in descriptor.entries}
    if len(entries) != len(descriptor.entries):
        raise BadDescriptorError("an entry appears twice in the descriptor")
    op = entries.get(OP)
    if op == OP_RESERVE:
        return _decode_reserve(entries, _hits(message, descriptor))
    if op == OP_SETTLE:
        return _decode_settle(entries)
    raise BadDescriptorError(f"op must be {OP_RESERVE} or {OP_SETTLE}, not {_shown(op)}")


def _decode_reserve(entries: Mapping[str, str], tokens: int) -> ReserveRequest:
    return ReserveRequest(
        reservation=_needed(entries, AdmissionKey.RESERVATION),
        tenant=_needed(entries, AdmissionKey.TENANT),
        user=entries.get(AdmissionKey.USER, ABSENT),
        key=entries.get(AdmissionKey.KEY, ABSENT),
        model=entries.get(AdmissionKey.MODEL, ABSENT),
        api=_APIS.get(entries.get(AdmissionKey.API, "")),
        tokens=tokens,
        prompt_tokens=_prompt(entries, tokens),
        version=_known(entries, AdmissionKey.VERSION),
        request_id=entries.get(REQUEST_ID_ENTRY, ""),
    )


def _known(entries: Mapping[str, str], key: AdmissionKey) -> str | None:
    value = entries.get(key, ABSENT)
    return None if value == ABSENT else value


def _prompt(entries: Mapping[str, str], tokens: int) -> int | None:
    """The prompt's part of the estimate; None if it is missing or larger than the estimate."""
    prompt = read_count(entries.get(AdmissionKey.ESTIMATE_PROMPT))
    return None if prompt is None or prompt > tokens else prompt


def _decode_settle(entries: Mapping[str, str]) -> SettleCall:
    if entries.get(AdmissionKey.RESERVATION) == ABSENT:
        return SettleCall(reservation=None, tenant=ABSENT, usage=Usage(), estimate=Estimate(0, 0))
    return SettleCall(
        reservation=_needed(entries, AdmissionKey.RESERVATION),
        tenant=_needed(entries, AdmissionKey.TENANT),
        usage=read_usage(entries),
        estimate=Estimate(
            tokens=_needed_count(entries, AdmissionKey.ESTIMATE),
            prompt=_needed_count(entries, AdmissionKey.ESTIMATE_PROMPT),
            per_second=read_count(entries.get(AdmissionKey.PER_SECOND)),
        ),
        held_by=read_held_by(entries),
    )


def _hits(message: RateLimitRequest, descriptor: RateLimitDescriptor) -> int:
    """The estimate in tokens. If its metadata is missing, Envoy would count 1: nearly free."""
    if descriptor.is_negative_hits:
        raise BadDescriptorError("hits_addend of a reserve must not be negative")
    if descriptor.HasField("hits_addend"):
        return descriptor.hits_addend.value
    if message.hits_addend:
        return message.hits_addend
    raise BadDescriptorError("a reserve needs the estimate as hits_addend")


def _needed(entries: Mapping[str, str], key: AdmissionKey) -> str:
    value = entries.get(key, "")
    if value in ("", ABSENT):
        raise BadDescriptorError(f"the descriptor lacks {key}")
    return value


def _needed_count(entries: Mapping[str, str], key: AdmissionKey) -> int:
    number = read_count(_needed(entries, key))
    if number is None:
        raise BadDescriptorError(f"{key} must be a whole number, not {_shown(entries[key])}")
    return number


def _shown(text: str | None) -> str:
    return "absent" if text is None else ascii(text[:40])


def encode_settled() -> RateLimitResponse:
    """The answer to every settlement, which Envoy does not read."""
    return RateLimitResponse(overall_code=RateLimitResponse.OK)


def encode_decision(
    request: ReserveRequest, decision: Admitted | Refused, now_s: float
) -> RateLimitResponse:
    """The answer to a reserve call: Envoy forwards the request, or answers 429 with this body."""
    response = RateLimitResponse()
    if isinstance(decision, Admitted):
        code = RateLimitResponse.OK
        shown = tightest(decision.limits)
        headers = quota_headers(decision.limits, now_s)
        if decision.held_by:
            response.dynamic_metadata.update({LimitsKey.HELD_BY: decision.held_by})
    else:
        code = RateLimitResponse.OVER_LIMIT
        shown = decision.hit
        headers = refused_headers(decision, now_s)
        message = refusal_message(decision, request.tenant)
        error = ApiError(Refusal.OVER_LIMIT, message)
        response.raw_body = error.body(_shape(request.api), request.request_id)
    response.overall_code = code
    _add_status(response, code, shown, now_s)
    for name, value in headers:
        header = response.response_headers_to_add.add()
        header.key = name
        header.value = value
    if isinstance(decision, Admitted) and decision.priority is not None:
        response.request_headers_to_add.add(key=PRIORITY_HEADER, value=str(decision.priority))
    metadata = _metadata(decision)
    if metadata:
        response.dynamic_metadata.update(metadata)
    return response


def _metadata(decision: Admitted | Refused) -> dict[LimitsKey, str]:
    """`Namespace.LIMITS`: facts for the settlement and the usage record."""
    if isinstance(decision, Admitted):
        return {LimitsKey.HELD_BY: decision.held_by} if decision.held_by else {}
    return decision.facts()


def _shape(api: Api | None) -> ErrorShape:
    return ErrorShape.ANTHROPIC if api in ANTHROPIC_APIS else ErrorShape.OPENAI


def _add_status(
    response: RateLimitResponse,
    code: RateLimitResponse.Code,
    shown: LimitStatus | None,
    now_s: float,
) -> None:
    """The status of the only descriptor, with the limit `shown`. Its numbers are uint32.

    Numbers of cost are thousandths of the currency, rounded down.
    """
    # Fields that are set in place cost a third of messages that are built and copied.
    status = response.statuses.add()
    status.code = code
    if shown is None:
        return
    wait_s = 0 if shown.resets_at_s is None else max(0, ceil(round(shown.resets_at_s - now_s, 6)))
    unit = _NANOS_SHOWN if shown.count is Count.COST else 1
    limit = status.current_limit
    limit.name = shown.id
    limit.requests_per_unit = min(shown.rule.limit // unit, _MAX_UINT32)
    limit.unit = _unit(shown.rule.shape)
    status.limit_remaining = min(shown.remaining // unit, _MAX_UINT32)
    status.duration_until_reset.SetInParent()
    status.duration_until_reset.seconds = wait_s


def _unit(shape: Shape) -> _Unit.Unit:
    match shape:
        case Windowed(per=per) | Smooth(per=per):
            return _UNITS[per]
        case Slots():
            return _Unit.UNKNOWN
