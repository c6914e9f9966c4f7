"""Builders of log entries, as plain values and as Envoy's bytes."""

from decimal import Decimal
from typing import Any

from google.protobuf.struct_pb2 import Struct

from accesslog.types import LogEntry
from accesslog.wire import parse, read_entry
from headgate._gen.accesslog_pb2 import (
    HTTPAccessLogEntry,
    HTTPRequestProperties,
    StreamAccessLogsMessage,
)
from headgate.core.contract import Namespace
from headgate.core.prices import Price, PriceBook, PricePeriod, Prices

START_S = 1_763_726_591
CALLER = {"tenant": "acme", "user": "alice", "key": "alice-laptop"}
REQUEST = {"body": "read", "model": "llama-8b-sql", "stream": True, "max_tokens": 64.0}
ADMISSION = {
    "reservation": "r-1",
    "tenant": "acme",
    "user": "alice",
    "key": "alice-laptop",
    "model": "llama-8b-sql",
    "base": "llama-8b",
    "adapter": "sql-v3",
    "api": "chat",
    "choices": "2",
    "estimate": "300",
    "estimate_prompt": "44",
}
USAGE = {
    "status": "200",
    "prompt": "12",
    "completion": "64",
    "cached": "8",
    "reasoning": "0",
    "events": "65",
    "complete": "1",
    "first_event_ms": str(START_S * 1000 + 250),
}
PRICES = Prices(Decimal("0.20"), Decimal("0.05"), Decimal("0.60"))
BOOK = PriceBook((PricePeriod(None, PRICES),))


def prices_of(model: str, version: str | None, at_s: float | None) -> Price | None:
    return BOOK.at(at_s or 0.0, version) if model == "llama-8b-sql" else None


def entry(**changes: Any) -> LogEntry:
    """A whole stream of acme's alice; `changes` replace fields."""
    fields: dict[str, Any] = {
        "start_ns": START_S * 1_000_000_000 + 123_456_789,
        "duration_s": 0.84,
        "request_id": "q-1",
        "ip": "192.0.2.7",
        "user_agent": "client/1.0",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "sent": True,
        "details": "via_upstream",
        "upstream_host": "192.0.2.80:8000",
        "upstream_tx_s": 0.004,
        "upstream_rx_s": 0.06,
        "attempts": 1,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "request_header_bytes": 210,
        "request_bytes": 96,
        "response_header_bytes": 180,
        "response_bytes": 9000,
        "caller": CALLER,
        "request": REQUEST,
        "admission": ADMISSION,
        "usage": USAGE,
    }
    return LogEntry(**{**fields, **changes})


def decode(data: bytes) -> list[LogEntry]:
    """The entries of one StreamAccessLogsMessage; raises ValueError for other bytes."""
    return [read_entry(each) for each in parse(data)]


def wire_entry(log_entry: LogEntry, flags: tuple[str, ...] = ()) -> HTTPAccessLogEntry:
    """The same entry as Envoy's message; `flags` are fields of ResponseFlags."""
    message = HTTPAccessLogEntry()
    common = message.common_properties
    if log_entry.start_ns is not None:
        common.start_time.seconds, common.start_time.nanos = divmod(log_entry.start_ns, 10**9)
    if log_entry.duration_s is not None:
        common.duration.FromNanoseconds(round(log_entry.duration_s * 1e9))
    if log_entry.upstream_tx_s is not None:
        sent = round(log_entry.upstream_tx_s * 1e9)
        common.time_to_first_upstream_tx_byte.FromNanoseconds(sent)
    if log_entry.upstream_rx_s is not None:
        received = round(log_entry.upstream_rx_s * 1e9)
        common.time_to_first_upstream_rx_byte.FromNanoseconds(received)
    if log_entry.upstream_host:
        host, _, port = log_entry.upstream_host.rpartition(":")
        pod = common.upstream_remote_address.socket_address
        pod.address, pod.port_value = host.strip("[]"), int(port)
    common.upstream_request_attempt_count = log_entry.attempts or 0
    common.downstream_remote_address.socket_address.address = log_entry.ip
    for flag in flags:
        setattr(common.response_flags, flag, True)
    namespaces = {
        Namespace.CALLER: log_entry.caller,
        Namespace.REQUEST: log_entry.request,
        Namespace.ADMISSION: log_entry.admission,
        Namespace.LIMITS: log_entry.limits,
        Namespace.USAGE: log_entry.usage,
    }
    for namespace, values in namespaces.items():
        if values:
            struct = Struct()
            struct.update(dict(values))
            common.metadata.filter_metadata[namespace].CopyFrom(struct)
    request = message.request
    if log_entry.method:
        request.request_method = getattr(HTTPRequestProperties, log_entry.method)
    request.request_id, request.user_agent = log_entry.request_id, log_entry.user_agent
    request.path = log_entry.path
    if log_entry.traceparent:
        request.request_headers["traceparent"] = log_entry.traceparent
    request.request_headers_bytes = log_entry.request_header_bytes
    request.request_body_bytes = log_entry.request_bytes
    response = message.response
    if log_entry.status is not None:
        response.response_code.value = log_entry.status
    response.response_headers_bytes = log_entry.response_header_bytes
    response.response_body_bytes = log_entry.response_bytes
    response.response_code_details = log_entry.details
    return message


def message(*entries: LogEntry) -> bytes:
    """One StreamAccessLogsMessage with these entries."""
    built = StreamAccessLogsMessage()
    built.http_logs.log_entry.extend(map(wire_entry, entries))
    return built.SerializeToString()
