"""A small OTLP receiver over gRPC: it keeps the spans that it was sent."""

# ruff: noqa: RUF009 - betterproto2 declares fields by calls

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import betterproto2
import grpc
from envoy_data_plane.opentelemetry.proto.common.v1 import KeyValue

from tests.patience import wait_until

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass
class Status(betterproto2.Message):
    """The field of opentelemetry.proto.trace.v1.Status that tests read: 2 is an error."""

    code: int = betterproto2.field(3, betterproto2.TYPE_INT32)


@dataclass
class Span(betterproto2.Message):
    """The fields of opentelemetry.proto.trace.v1.Span that tests read."""

    trace_id: bytes = betterproto2.field(1, betterproto2.TYPE_BYTES)
    span_id: bytes = betterproto2.field(2, betterproto2.TYPE_BYTES)
    parent_span_id: bytes = betterproto2.field(4, betterproto2.TYPE_BYTES)
    name: str = betterproto2.field(5, betterproto2.TYPE_STRING)
    attributes: list[KeyValue] = betterproto2.field(9, betterproto2.TYPE_MESSAGE, repeated=True)
    status: Status | None = betterproto2.field(15, betterproto2.TYPE_MESSAGE, optional=True)

    @property
    def tags(self) -> dict[str, str]:
        """The attributes; Envoy writes texts only."""
        return {one.key: one.value.string_value for one in self.attributes if one.value is not None}


@dataclass
class ScopeSpans(betterproto2.Message):
    spans: list[Span] = betterproto2.field(2, betterproto2.TYPE_MESSAGE, repeated=True)


@dataclass
class ResourceSpans(betterproto2.Message):
    scope_spans: list[ScopeSpans] = betterproto2.field(2, betterproto2.TYPE_MESSAGE, repeated=True)


@dataclass
class Export(betterproto2.Message):
    """opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest."""

    resource_spans: list[ResourceSpans] = betterproto2.field(
        1, betterproto2.TYPE_MESSAGE, repeated=True
    )


@dataclass
class Receiver:
    """What has arrived at `url`."""

    url: str
    before: Callable[[], object]
    """What each call waits for."""
    spans: list[Span] = field(default_factory=list)

    def trace(self, trace_id: str, spans: int) -> list[Span]:
        """The spans of a trace, once there are at least so many."""

        def arrived() -> list[Span] | None:
            found = [one for one in self.spans if one.trace_id.hex() == trace_id]
            return found if len(found) >= spans else None

        found: list[Span] = wait_until(arrived, f"{spans} spans of the trace {trace_id}")
        return found

    def take(self, message: bytes, _: grpc.ServicerContext) -> bytes:
        """Keeps the spans of one call."""
        self.before()
        for resource in Export.parse(message).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return b""


@contextmanager
def receiver(port: int = 0, before: Callable[[], object] = lambda: None) -> Iterator[Receiver]:
    """A receiver on this port, or on a free one. Each call first waits for `before`."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    receiving = Receiver(f"http://127.0.0.1:{port}", before)
    method = grpc.unary_unary_rpc_method_handler(receiving.take)
    handlers = grpc.method_handlers_generic_handler(_SERVICE, {"Export": method})
    server.add_generic_rpc_handlers((handlers,))
    server.start()
    try:
        yield receiving
    finally:
        server.stop(None).wait()
