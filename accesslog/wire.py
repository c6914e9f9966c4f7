"""Decodes Envoy's access log messages into plain entries.

Headgate's subset of the message leaves out `stream_id` on purpose. Envoy copies it unchecked from
the client's `x-request-id`. If it is not UTF-8, the whole message is unreadable, with the entries
of other requests in it. Envoy sanitizes the texts that are read here. `original_path` is not read
either, because a client can send `x-envoy-original-path` itself.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from accesslog.types import LogEntry
from headgate._gen.accesslog_pb2 import (
    AccessLogCommon,
    HTTPAccessLogEntry,
    HTTPRequestProperties,
    ResponseFlags,
    StreamAccessLogsMessage,
)
from headgate._gen.base_pb2 import Address, Metadata
from headgate.core.contract import AdmissionKey, Namespace
from headgate.core.lean_contract import LeanKey
from headgate.core.trace_headers import TRACEPARENT

FLAG_NAMES = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "response_from_cache_filter": "RFCF",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
"""The names in `%RESPONSE_FLAGS%` of the fields of `envoy.data.accesslog.v3.ResponseFlags`."""

_Time: TypeAlias = Literal[
    "duration", "time_to_first_upstream_tx_byte", "time_to_first_upstream_rx_byte"
]
_METHODS = {
    number: name
    for name, number in HTTPRequestProperties.RequestMethod.items()
    if number != HTTPRequestProperties.METHOD_UNSPECIFIED
}
"""The methods by their numbers, without that of no method."""
_FLAGS_OF = {"request_rate_limited": ("RL",), "rate_limiter_error": ("RLSE",)}
"""By the details of a refusal that is not the rate-limit filter's own: the flags that this filter
sets. On the lean path Envoy says UAEX of all, and of an answer from the cache nothing."""


def parse(message: bytes) -> Sequence[HTTPAccessLogEntry]:
    """The HTTP entries of a message, each to be read by `read_entry`, which takes far longer.

    Raises ValueError for bytes that are no `StreamAccessLogsMessage`.
    """
    try:
        parsed = StreamAccessLogsMessage.FromString(message)
    except DecodeError as error:
        raise ValueError(f"not an access log message: {error}") from error
    return parsed.http_logs.log_entry


def read_entry(entry: HTTPAccessLogEntry) -> LogEntry:
    """The plain values of one entry."""
    common, request, response = entry.common_properties, entry.request, entry.response
    start, metadata = common.start_time, common.metadata
    caller = _texts(metadata, Namespace.CALLER)
    details = caller.get(LeanKey.DETAILS) or response.response_code_details
    is_lean = AdmissionKey.RESERVATION in caller  # ext_authz has then answered with the admission
    return LogEntry(
        start_ns=(
            start.seconds * 1_000_000_000 + start.nanos if common.HasField("start_time") else None
        ),
        duration_s=_seconds(common, "duration"),
        request_id=request.request_id,
        ip=common.downstream_remote_address.socket_address.address,
        user_agent=request.user_agent,
        method=_METHODS.get(request.request_method, ""),
        path=request.path,
        status=response.response_code.value or None,
        sent=(
            common.HasField("time_to_first_upstream_tx_byte")
            and not common.upstream_transport_failure_reason
        ),
        flags=_all_flags(common.response_flags, caller, details),
        details=details,
        upstream_cluster=common.upstream_cluster,
        upstream_host=_host(common.upstream_remote_address),
        upstream_tx_s=_seconds(common, "time_to_first_upstream_tx_byte"),
        upstream_rx_s=_seconds(common, "time_to_first_upstream_rx_byte"),
        attempts=common.upstream_request_attempt_count or None,
        traceparent=request.request_headers.get(TRACEPARENT, ""),
        request_header_bytes=request.request_headers_bytes,
        request_bytes=request.request_body_bytes,
        response_header_bytes=response.response_headers_bytes,
        response_bytes=response.response_body_bytes,
        caller=caller,
        request=_scalars(metadata, Namespace.REQUEST),
        admission=caller if is_lean else _texts(metadata, Namespace.ADMISSION),
        limits=_texts(metadata, Namespace.LIMITS),
        usage=_texts(metadata, Namespace.USAGE),
    )


def _host(upstream: Address) -> str:
    """`address:port`, also of a pod behind a tunnel; empty if no upstream was chosen."""
    address = upstream.socket_address
    host, port = address.address, address.port_value
    if not host:
        return upstream.envoy_internal_address.endpoint_id
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _seconds(common: AccessLogCommon, field: _Time) -> float | None:
    if not common.HasField(field):
        return None
    duration: Duration = getattr(common, field)
    return duration.seconds + duration.nanos / 1e9


def _all_flags(flags: ResponseFlags, caller: Mapping[str, str], details: str) -> tuple[str, ...]:
    """The flags of the refusal that the details name, where Envoy did not set them itself."""
    own = () if LeanKey.DETAILS in caller else _flags(flags)
    return own or _FLAGS_OF.get(details, ())


def _flags(flags: ResponseFlags) -> tuple[str, ...]:
    fields = flags.ListFields()
    return tuple([FLAG_NAMES[field.name] for field, _ in fields]) if fields else ()


def _scalars(metadata: Metadata, namespace: Namespace) -> dict[str, str | bool | float]:
    """The strings, booleans and numbers of a namespace; empty if it was not written."""
    # A look-up by [] would add the namespace to the protobuf map.
    if namespace not in metadata.filter_metadata:
        return {}
    fields = metadata.filter_metadata[namespace].fields
    scalars: dict[str, str | bool | float] = {}
    for key in fields:
        value = fields[key]
        text = value.string_value
        if text:  # Nearly all values are texts; to ask for the kind takes longer.
            scalars[key] = text
            continue
        kind = value.WhichOneof("kind")
        if kind == "bool_value":
            scalars[key] = value.bool_value
        elif kind == "number_value":
            scalars[key] = value.number_value
        elif kind == "string_value":
            scalars[key] = text
    return scalars


def _texts(metadata: Metadata, namespace: Namespace) -> dict[str, str]:
    """The texts of a namespace, without empty ones; Headgate writes no other type there."""
    if namespace not in metadata.filter_metadata:
        return {}
    fields = metadata.filter_metadata[namespace].fields
    texts = {}
    for key in fields:
        text = fields[key].string_value
        if text:
            texts[key] = text
    return texts
