"""One usage record for each finished request. Pure: values in, values out, and it never raises."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeAlias, TypedDict

from msgspec import Struct

from accesslog.costs import cost_of
from accesslog.endings import ended_of, is_hit, placed_at, upstream_status
from accesslog.refusals import refusal_of
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
    read_usage,
)

MAX_TEXT = 1024
"""The characters kept of any text. Paths and user agents come from clients, with up to 60 KiB."""

_BOUNDS = (RequestKey.MAX_COMPLETION_TOKENS, RequestKey.MAX_OUTPUT_TOKENS, RequestKey.MAX_TOKENS)
_ESTIMATED = (AdmissionKey.ESTIMATE, AdmissionKey.ESTIMATE_PROMPT, AdmissionKey.PER_SECOND)
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

    `replica` names these services. Envoy sends entries of running ones with `access_log_options`.
    """
    if entry.duration_s is None:
        return None
    usage = read_usage(entry.usage, abandoned=_is_abandoned(entry))
    admission, limits = _kept(entry.admission), _kept(entry.limits)
    caller = admission if entry.caller is entry.admission else _kept(entry.caller)
    tokens, prompt, per_second = [read_count(admission.get(key)) for key in _ESTIMATED]
    estimate = Estimate(tokens or 0, prompt or 0, per_second)
    reservation = _reservation(admission, limits, estimate, usage)
    charged = None if reservation is None else charge(usage, estimate)
    version = _subset(entry.upstream_cluster) or admission.get(AdmissionKey.VERSION)
    path, price = entry.path.partition("?")[0], _price(entry, admission, version, price_of)
    record = UsageRecord(
        time=rfc3339(entry.start_ns),
        request_id=entry.request_id[:MAX_TEXT] or None,
        trace_id=trace_id(entry.traceparent),
        **_identity(admission, caller, version),
        ip=entry.ip[:MAX_TEXT] or None,
        user_agent=entry.user_agent[:MAX_TEXT] or None,
        method=entry.method or None,
        path=path[:MAX_TEXT] or None,
        api=admission.get(AdmissionKey.API) or _api(path),
        **_asked(entry.request),
        replica=replica,
        **_answer(entry, usage),
        **refusal_of(limits, admission),
        request_header_bytes=entry.request_header_bytes,
        request_bytes=entry.request_bytes,
        response_header_bytes=entry.response_header_bytes,
        response_bytes=entry.response_bytes,
        estimated_tokens=tokens,
        estimated_prompt_tokens=prompt,
        **_amounts(usage, charged, price, is_hit(entry)),
        **_times(entry, usage, entry.duration_s),
    )
    return FinishedRequest(record, reservation, _text_bytes(entry), placed_at(entry))


def _is_abandoned(entry: LogEntry) -> bool:
    """The same condition as in the settle descriptor: no answer but perhaps Envoy's own 504."""
    timed_out = entry.status == 504 and entry.details != "via_upstream"
    return entry.sent and (entry.status is None or timed_out)


def _reservation(
    admission: Mapping[str, str], limits: Mapping[str, str], estimate: Estimate, usage: Usage
) -> OpenReservation | None:
    """The reservation of an admitted request; None for one that was refused before admission."""
    id_, tenant = admission.get(AdmissionKey.RESERVATION), admission.get(AdmissionKey.TENANT)
    if id_ is None or tenant is None:
        return None
    held_by = limits.get(LimitsKey.HELD_BY) or admission.get(LimitsKey.HELD_BY, "")
    return OpenReservation(id=id_, tenant=tenant, estimate=estimate, usage=usage, held_by=held_by)


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


def _identity(
    admission: Mapping[str, str], caller: Mapping[str, str], version: str | None
) -> _Identity:
    """The fields that say who asked which model.

    The caller is that of the admission, or of ext_authz if the request was refused before it.
    """
    return {
        "reservation": admission.get(AdmissionKey.RESERVATION),
        "tenant": admission.get(AdmissionKey.TENANT) or caller.get(CallerKey.TENANT),
        "user": admission.get(AdmissionKey.USER) or caller.get(CallerKey.USER),
        "key": admission.get(AdmissionKey.KEY) or caller.get(CallerKey.KEY),
        "model": admission.get(AdmissionKey.MODEL),
        "base": admission.get(AdmissionKey.BASE),
        "adapter": admission.get(AdmissionKey.ADAPTER),
        "version": version,
        "choices": read_count(admission.get(AdmissionKey.CHOICES)),
    }


class _Answer(TypedDict):
    status: int | None
    upstream_status: int | None
    ended: Ended | None
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
        "pod": entry.upstream_host[:MAX_TEXT] or None,
        "attempts": entry.attempts,
        "flags": entry.flags,
        "details": entry.details[:MAX_TEXT] or None,
    }


class _Amounts(TypedDict):
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    audio_seconds: int | None
    cost: Decimal | None
    cache: str | None
    price_version: str | None
    source: Source | None


def _amounts(
    usage: Usage, charged: Charge | None, price: Price | None, from_cache: bool
) -> _Amounts:
    """The fields that say how much was reserved and charged."""
    is_used = charged is not None and charged.source is not Source.REFUND
    return {
        "prompt_tokens": None if charged is None else charged.prompt,
        "completion_tokens": None if charged is None else charged.completion,
        "cached_tokens": usage.cached if is_used else None,
        "reasoning_tokens": usage.reasoning if is_used else None,
        "audio_seconds": None if charged is None else charged.seconds,
        "cost": cost_of(usage, charged, price, from_cache),
        "cache": HIT if from_cache else None,
        "price_version": None if charged is None or price is None else price.version,
        "source": None if charged is None else charged.source,
    }


def _price(
    entry: LogEntry, admission: Mapping[str, str], version: str | None, price_of: PriceOf
) -> Price | None:
    """The price in force when the request ended, of the version that answered."""
    model = admission.get(AdmissionKey.MODEL)
    if model is None:
        return None
    start_s = None if entry.start_ns is None else entry.start_ns / 1e9
    return price_of(model, version, start_s and start_s + (entry.duration_s or 0.0))


def _subset(cluster: str) -> str | None:
    """The version in a cluster's name `...|SUBSET|HOST`, as Istio and the one box write it."""
    parts = cluster.split("|")
    return parts[-2][:MAX_TEXT] or None if len(parts) > 2 else None


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


def _kept(values: Mapping[str, str]) -> dict[str, str]:
    """The texts of a namespace as a record keeps them, without those that say "none"."""
    kept = {}
    for key, text in values.items():
        if text and text != ABSENT:
            kept[key] = text[:MAX_TEXT]
    return kept


def _api(path: str) -> str | None:
    endpoint = door_of(path).endpoint
    return None if endpoint is None else endpoint.api


class _Asked(TypedDict):
    requested_model: str | None
    stream: bool | None
    max_tokens: int | None


def _asked(request: Mapping[str, str | bool | float]) -> _Asked:
    """The fields that say what the body asked for.

    A body that was read and says nothing about a stream asked for none.
    """
    model, stream = request.get(RequestKey.MODEL), request.get(RequestKey.STREAM)
    is_read = stream is None and request.get(RequestKey.BODY) == BODY_READ
    return {
        "requested_model": model[:MAX_TEXT] or None if isinstance(model, str) else None,
        "stream": stream if isinstance(stream, bool) else False if is_read else None,
        "max_tokens": _max_tokens(request),
    }


def _max_tokens(request: Mapping[str, str | bool | float]) -> int | None:
    """The bound of the output that the body asks for, as vLLM takes it: the newer name first."""
    for key in _BOUNDS:
        value = request.get(key)
        if isinstance(value, float) and 0 <= value < _MOST_TOKENS and value.is_integer():
            return int(value)
    return None
