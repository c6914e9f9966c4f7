"""One usage record for each finished request. Pure: values in, values out, and never an error."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

from accesslog.types import Held, LogEntry, UsageRecord
from headgate.core.amounts import money
from headgate.core.apis import endpoint_of
from headgate.core.contract import ABSENT, BODY_READ, AdmissionKey, CallerKey, RequestKey
from headgate.core.contract import held_by as holder
from headgate.core.policy import Prices
from headgate.core.settlement import Charge, Estimate, Source, charge, read_count, read_usage

MAX_TEXT = 1024
"""Characters kept of any text: paths and user agents are the client's, of up to 60 KiB."""

_CLOCK_STEP_S = 0.001
"""The tap's clock ticks in milliseconds, so its first output may seem this much too early."""


PricesOf: TypeAlias = Callable[[str], Prices | None]
"""What a model costs; None for one that is not in the policy."""


def meter(entry: LogEntry, prices_of: PricesOf) -> UsageRecord | None:
    """The record of one log entry; None for an entry about a request that still runs.

    Envoy gives `duration` to ended requests only. It sends entries at a request's start or
    during it where `access_log_options` asks for them; those are no usage.
    """
    if entry.duration_s is None:
        return None
    held = held_by(entry)
    charged = None if held is None else charge(held.usage, held.estimate)
    usage = read_usage(entry.usage)
    counted = charged is not None and charged.source is not Source.REFUND
    path = entry.path.partition("?")[0]
    model = _of(entry.admission, AdmissionKey.MODEL)
    return UsageRecord(
        time=_rfc3339(entry.start_ns),
        request_id=_text(entry.request_id),
        reservation=_of(entry.admission, AdmissionKey.RESERVATION),
        tenant=_who(entry, AdmissionKey.TENANT, CallerKey.TENANT),
        user=_who(entry, AdmissionKey.USER, CallerKey.USER),
        key=_who(entry, AdmissionKey.KEY, CallerKey.KEY),
        ip=_text(entry.ip),
        user_agent=_text(entry.user_agent),
        method=_text(entry.method),
        path=_text(path),
        api=_of(entry.admission, AdmissionKey.API) or _api(path),
        requested_model=_requested_model(entry.request),
        model=model,
        base=_of(entry.admission, AdmissionKey.BASE),
        adapter=_of(entry.admission, AdmissionKey.ADAPTER),
        version=_subset(entry.upstream_cluster) or _of(entry.admission, AdmissionKey.VERSION),
        stream=_stream(entry.request),
        choices=read_count(entry.admission.get(AdmissionKey.CHOICES)),
        status=entry.status,
        upstream_status=usage.status,
        flags=entry.flags,
        details=_text(entry.details),
        request_header_bytes=entry.request_header_bytes,
        request_bytes=entry.request_bytes,
        response_header_bytes=entry.response_header_bytes,
        response_bytes=entry.response_bytes,
        prompt_tokens=None if charged is None else charged.prompt,
        completion_tokens=None if charged is None else charged.completion,
        cached_tokens=usage.cached if counted else None,
        reasoning_tokens=usage.reasoning if counted else None,
        audio_seconds=usage.seconds if counted else None,
        estimated_tokens=read_count(entry.admission.get(AdmissionKey.ESTIMATE)),
        estimated_prompt_tokens=read_count(entry.admission.get(AdmissionKey.ESTIMATE_PROMPT)),
        cost=_cost(model, charged, prices_of),
        source=None if charged is None else charged.source,
        ttft_s=_ttft_s(entry.start_ns, usage.first_event_ms, entry.duration_s),
        duration_s=round(entry.duration_s, 6),
    )


def held_by(entry: LogEntry) -> Held | None:
    """What the request held at admission; None when it was refused before."""
    reservation = entry.admission.get(AdmissionKey.RESERVATION, ABSENT)
    tenant = entry.admission.get(AdmissionKey.TENANT, ABSENT)
    if reservation in ("", ABSENT) or tenant in ("", ABSENT):
        return None
    estimate = Estimate(
        tokens=read_count(entry.admission.get(AdmissionKey.ESTIMATE)) or 0,
        prompt=read_count(entry.admission.get(AdmissionKey.ESTIMATE_PROMPT)) or 0,
        per_second=read_count(entry.admission.get(AdmissionKey.PER_SECOND)),
    )
    # The same as `left` in the settle descriptor: no status, not even one of Envoy's own.
    usage = replace(read_usage(entry.usage), left=entry.status is None and entry.sent)
    return Held(reservation, tenant, estimate, usage, holder(entry.limits))


def _cost(model: str | None, charged: Charge | None, prices_of: PricesOf) -> Decimal | None:
    prices = None if model is None else prices_of(model)
    if charged is None or prices is None:
        return None
    fresh = charged.prompt - charged.cached
    return money(prices.cost(fresh, charged.cached, charged.completion))


def _subset(cluster: str) -> str | None:
    """The version in the name of a cluster, which is `...|SUBSET|HOST` (Istio's, and one box's)."""
    parts = cluster.split("|")
    return _text(parts[-2]) if len(parts) > 2 else None


def _text(text: str) -> str | None:
    return text[:MAX_TEXT] or None


def _of(values: Mapping[str, str], key: str) -> str | None:
    text = values.get(key, ABSENT)
    return None if text == ABSENT else _text(text)


def _who(entry: LogEntry, admitted: AdmissionKey, known: CallerKey) -> str | None:
    """The admission's word, or ext_authz's where the request got no further."""
    return _of(entry.admission, admitted) or _of(entry.caller, known)


def _api(path: str) -> str | None:
    endpoint = endpoint_of(path)
    return None if endpoint is None else endpoint.api


def _requested_model(request: Mapping[str, str | bool]) -> str | None:
    model = request.get(RequestKey.MODEL)
    return _text(model) if isinstance(model, str) else None


def _stream(request: Mapping[str, str | bool]) -> bool | None:
    """Whether a stream was asked for; a body that was read and does not say so asks for none."""
    stream = request.get(RequestKey.STREAM)
    if isinstance(stream, bool):
        return stream
    return False if request.get(RequestKey.BODY) == BODY_READ and stream is None else None


def _rfc3339(start_ns: int | None) -> str | None:
    if start_ns is None:
        return None
    try:
        start = datetime.fromtimestamp(start_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return None
    return f"{start:%Y-%m-%dT%H:%M:%S}.{start_ns % 1_000_000_000 // 1000:06d}Z"


def _ttft_s(start_ns: int | None, first_event_ms: int | None, duration_s: float) -> float | None:
    """Seconds to the first output; None where none was seen, or a stepped clock spoilt it."""
    if start_ns is None or first_event_ms is None:
        return None
    ttft_s = (first_event_ms * 1_000_000 - start_ns) / 1e9
    if not -_CLOCK_STEP_S <= ttft_s <= duration_s + _CLOCK_STEP_S:
        return None
    return round(max(0.0, ttft_s), 6)
