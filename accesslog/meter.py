"""One usage record for each finished request. Pure: values in, values out, and it never raises."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeAlias, TypedDict

from msgspec import Struct

from accesslog.costs import cost_of
from accesslog.endings import ended_of, is_hit, placed_at, upstream_status
from accesslog.times import (
    rfc3339,
    rounded,
    time_to_first_output,
    token_interval,
    told_time_to_first_output,
    trace_id,
)
from accesslog.types import Ended, LogEntry, OpenReservation, UsageRecord
from headgate.core.answer_cache import HIT
from headgate.core.apis import door_of
from headgate.core.contract import (
    ABSENT,
    BODY_READ,
    AdmissionKey,
    CallerKey,
    LimitsKey,
    RequestKey,
)
from headgate.core.prices import Price
from headgate.core.settlement import (
    Charge,
    Estimate,
    Source,
    Usage,
    charge,
    read_count,
    read_held_by,
    read_usage,
)

MAX_TEXT = 1024
"""The characters kept of any text. Paths and user agents come from clients, with up to 60 KiB."""

_BOUNDS = (RequestKey.MAX_COMPLETION_TOKENS, RequestKey.MAX_OUTPUT_TOKENS, RequestKey.MAX_TOKENS)
_MOST_TOKENS = 2**53

PriceOf: TypeAlias = Callable[[str, str | None, float | None], Price | None]
"""The price of a model and version at a moment, None for now; None for an unknown model."""


class FinishedRequest(Struct, frozen=True, gc=False):
    """The record of a finished request, and its reservation; None if it was never admitted.

    `text_bytes` is the size of its text for the estimator, 0 if the text has no known size.
    `placed` is the pod that Headgate chose, and when the request began there, in Unix time.
    """

    record: UsageRecord
    reservation: OpenReservation | None
    text_bytes: int = 0
    placed: tuple[str, float] | None = None


def meter(entry: LogEntry, price_of: PriceOf, replica: str | None = None) -> FinishedRequest | None:
    """The record and the reservation of one log entry; None while its request still runs.

    `replica` is the name of these services for the record.

    Envoy sets `duration` only for requests that have ended. With `access_log_options` it also sends
    entries at a request's start or during it; those are no usage.
    """
    if entry.duration_s is None:
        return None
    usage = read_usage(entry.usage, abandoned=_is_abandoned(entry))
    reservation = _reservation(entry, usage)
    charged = None if reservation is None else charge(usage, reservation.estimate)
    version = _subset(entry.upstream_cluster) or _of(entry.admission, AdmissionKey.VERSION)
    path = entry.path.partition("?")[0]
    record = UsageRecord(
        time=rfc3339(entry.start_ns),
        request_id=_text(entry.request_id),
        trace_id=trace_id(entry.traceparent),
        **_identity(entry, version),
        ip=_text(entry.ip),
        user_agent=_text(entry.user_agent),
        method=_text(entry.method),
        path=_text(path),
        api=_of(entry.admission, AdmissionKey.API) or _api(path),
        requested_model=_requested_model(entry.request),
        stream=_stream(entry.request),
        max_tokens=_max_tokens(entry.request),
        replica=replica,
        **_answer(entry, usage),
        request_header_bytes=entry.request_header_bytes,
        request_bytes=entry.request_bytes,
        response_header_bytes=entry.response_header_bytes,
        response_bytes=entry.response_bytes,
        **_amounts(entry, usage, charged, _price(entry, version, price_of)),
        **_times(entry, usage, entry.duration_s),
        cache=HIT if is_hit(entry) else None,
    )
    return FinishedRequest(record, reservation, _text_bytes(entry), placed_at(entry))


def _is_abandoned(entry: LogEntry) -> bool:
    """The same condition as in the settle descriptor: no answer but perhaps Envoy's own 504."""
    timed_out = entry.status == 504 and entry.details != "via_upstream"
    return entry.sent and (entry.status is None or timed_out)


def _reservation(entry: LogEntry, usage: Usage) -> OpenReservation | None:
    """The reservation of an admitted request; None for one that was refused before admission."""
    id_ = entry.admission.get(AdmissionKey.RESERVATION, ABSENT)
    tenant = entry.admission.get(AdmissionKey.TENANT, ABSENT)
    if id_ in ("", ABSENT) or tenant in ("", ABSENT):
        return None
    return OpenReservation(
        id=id_,
        tenant=tenant,
        estimate=Estimate(
            tokens=read_count(entry.admission.get(AdmissionKey.ESTIMATE)) or 0,
            prompt=read_count(entry.admission.get(AdmissionKey.ESTIMATE_PROMPT)) or 0,
            per_second=read_count(entry.admission.get(AdmissionKey.PER_SECOND)),
        ),
        usage=usage,
        held_by=read_held_by(entry.limits) or read_held_by(entry.admission),
    )


def _text_bytes(entry: LogEntry) -> int:
    """The bytes of text as ext_proc noted them. An older one notes nothing: all is text."""
    noted = read_count(entry.admission.get(AdmissionKey.TEXT_BYTES))
    return entry.request_bytes if noted is None else noted


class _Identity(TypedDict):
    reservation: str | None
    tenant: str | None
    user: str | None
    key: str | None
    model: str | None
    base: str | None
    adapter: str | None
    version: str | None
    choices: int | None


def _identity(entry: LogEntry, version: str | None) -> _Identity:
    """The fields that say who asked which model."""
    admission = entry.admission
    return {
        "reservation": _of(admission, AdmissionKey.RESERVATION),
        "tenant": _caller(entry, AdmissionKey.TENANT, CallerKey.TENANT),
        "user": _caller(entry, AdmissionKey.USER, CallerKey.USER),
        "key": _caller(entry, AdmissionKey.KEY, CallerKey.KEY),
        "model": _of(admission, AdmissionKey.MODEL),
        "base": _of(admission, AdmissionKey.BASE),
        "adapter": _of(admission, AdmissionKey.ADAPTER),
        "version": version,
        "choices": read_count(admission.get(AdmissionKey.CHOICES)),
    }


class _Answer(TypedDict):
    status: int | None
    upstream_status: int | None
    ended: Ended | None
    limit: str | None
    pod: str | None
    attempts: int | None
    flags: tuple[str, ...]
    details: str | None


def _answer(entry: LogEntry, usage: Usage) -> _Answer:
    """The fields that say who answered, and how the answer ended."""
    answered = upstream_status(entry, usage)
    return {
        "status": entry.status,
        "upstream_status": answered,
        "ended": ended_of(entry, usage, answered),
        "limit": _of(entry.limits, LimitsKey.REFUSED_BY)
        or _of(entry.admission, LimitsKey.REFUSED_BY),
        "pod": _text(entry.upstream_host),
        "attempts": entry.attempts,
        "flags": entry.flags,
        "details": _text(entry.details),
    }


class _Amounts(TypedDict):
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    audio_seconds: int | None
    estimated_tokens: int | None
    estimated_prompt_tokens: int | None
    cost: Decimal | None
    price_version: str | None
    source: Source | None


def _amounts(
    entry: LogEntry, usage: Usage, charged: Charge | None, price: Price | None
) -> _Amounts:
    """The fields that say how much was reserved and charged."""
    is_used = charged is not None and charged.source is not Source.REFUND
    return {
        "prompt_tokens": None if charged is None else charged.prompt,
        "completion_tokens": None if charged is None else charged.completion,
        "cached_tokens": usage.cached if is_used else None,
        "reasoning_tokens": usage.reasoning if is_used else None,
        "audio_seconds": usage.seconds if is_used else None,
        "estimated_tokens": read_count(entry.admission.get(AdmissionKey.ESTIMATE)),
        "estimated_prompt_tokens": read_count(entry.admission.get(AdmissionKey.ESTIMATE_PROMPT)),
        "cost": cost_of(usage, charged, price, is_hit(entry)),
        "price_version": None if charged is None or price is None else price.version,
        "source": None if charged is None else charged.source,
    }


def _price(entry: LogEntry, version: str | None, price_of: PriceOf) -> Price | None:
    """The price in force when the request ended, of the version that answered."""
    model = _of(entry.admission, AdmissionKey.MODEL)
    if model is None:
        return None
    start_s = None if entry.start_ns is None else entry.start_ns / 1e9
    return price_of(model, version, start_s and start_s + (entry.duration_s or 0.0))


def _subset(cluster: str) -> str | None:
    """The version in a cluster's name `...|SUBSET|HOST`, as Istio and the one box write it."""
    parts = cluster.split("|")
    return _text(parts[-2]) if len(parts) > 2 else None


class _Times(TypedDict):
    to_upstream_s: float | None
    upstream_first_byte_s: float | None
    ttft_s: float | None
    token_interval_s: float | None
    duration_s: float


def _times(entry: LogEntry, usage: Usage, duration_s: float) -> _Times:
    """The fields that say how long each part took."""
    ttft_s = time_to_first_output(entry.start_ns, usage.first_event_ms, duration_s)
    if usage.first_event_ms is None:
        ttft_s = told_time_to_first_output(entry.upstream_tx_s, usage.ttft_ms, duration_s)
    tokens = usage.completion if usage.complete else None
    return {
        "to_upstream_s": rounded(entry.upstream_tx_s),
        "upstream_first_byte_s": rounded(entry.upstream_rx_s),
        "ttft_s": ttft_s,
        "token_interval_s": token_interval(ttft_s, duration_s, tokens),
        "duration_s": round(duration_s, 6),
    }


def _text(text: str) -> str | None:
    return text[:MAX_TEXT] or None


def _of(values: Mapping[str, str], key: str) -> str | None:
    text = values.get(key, ABSENT)
    return None if text == ABSENT else text[:MAX_TEXT] or None


def _caller(entry: LogEntry, admitted: AdmissionKey, identified: CallerKey) -> str | None:
    """From the admission, or from ext_authz if the request was refused before admission."""
    return _of(entry.admission, admitted) or _of(entry.caller, identified)


def _api(path: str) -> str | None:
    endpoint = door_of(path).endpoint
    return None if endpoint is None else endpoint.api


def _requested_model(request: Mapping[str, str | bool | float]) -> str | None:
    model = request.get(RequestKey.MODEL)
    return _text(model) if isinstance(model, str) else None


def _max_tokens(request: Mapping[str, str | bool | float]) -> int | None:
    """The bound of the output that the body asks for, as vLLM takes it: the newer name first."""
    for key in _BOUNDS:
        value = request.get(key)
        if isinstance(value, float) and 0 <= value < _MOST_TOKENS and value.is_integer():
            return int(value)
    return None


def _stream(request: Mapping[str, str | bool | float]) -> bool | None:
    """Whether the request asked for a stream. A body that was read and lacks the field did not."""
    stream = request.get(RequestKey.STREAM)
    if isinstance(stream, bool):
        return stream
    return False if request.get(RequestKey.BODY) == BODY_READ and stream is None else None
