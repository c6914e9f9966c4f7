"""The four hooks with scripted answers on one unix socket: what each of them received."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from headgate._gen import accesslog_pb2, auth_pb2, base_pb2, ext_proc_pb2, ratelimit_pb2
from headgate.core.contract import OP_RESERVE, AdmissionKey, Header, LimitsKey, Namespace
from tests.patience import PATIENCE_S

MODEL = "tiny"
OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def set_header(name: str, value: str) -> base_pb2.HeaderValueOption:
    """A header mutation that overwrites."""
    header = base_pb2.HeaderValue(key=name, raw_value=value.encode())
    return base_pb2.HeaderValueOption(header=header, append_action=OVERWRITE)


def admit(_: auth_pb2.CheckRequest) -> auth_pb2.CheckResponse:
    """ext_authz lets everybody in as the same caller and removes the credential."""
    answer = auth_pb2.CheckResponse()
    answer.ok_response.headers_to_remove.append("authorization")
    answer.dynamic_metadata.update({"tenant": "acme", "user": "alice", "key": "k1"})
    return answer


def route(
    admission: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Callable[[ext_proc_pb2.ProcessingRequest], ext_proc_pb2.ProcessingResponse]:
    """ext_proc sends every request to MODEL, with this admission metadata and these headers."""
    written: dict[str, Any] = {
        AdmissionKey.RESERVATION: "r1",
        AdmissionKey.TENANT: "acme",
        AdmissionKey.API: "chat",
        AdmissionKey.CLIENT_USAGE: "untouched",
        AdmissionKey.ESTIMATE: "40",
        AdmissionKey.ESTIMATE_PROMPT: "30",
        **(admission or {}),
    }

    def answer(_: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
        response = ext_proc_pb2.ProcessingResponse()
        common = response.request_headers.response
        for name, value in {Header.BASE: MODEL, **(headers or {})}.items():
            common.header_mutation.set_headers.append(set_header(name, value))
        common.clear_route_cache = True
        kept = {key: value for key, value in written.items() if value is not None}
        response.dynamic_metadata.update({Namespace.ADMISSION: kept})
        return response

    return answer


def allow(request: ratelimit_pb2.RateLimitRequest) -> ratelimit_pb2.RateLimitResponse:
    """ratelimit says OK to every descriptor, and which replica holds the request."""
    ok = ratelimit_pb2.RateLimitResponse.OK
    answer = ratelimit_pb2.RateLimitResponse(
        overall_code=ok,
        statuses=[
            ratelimit_pb2.RateLimitResponse.DescriptorStatus(code=ok) for _ in request.descriptors
        ],
    )
    answer.dynamic_metadata.update({LimitsKey.HELD_BY: "replica-7"})
    return answer


def immediate(
    status: int, body: bytes = b'{"error": "from the hook"}'
) -> Callable[[ext_proc_pb2.ProcessingRequest], ext_proc_pb2.ProcessingResponse]:
    """ext_proc answers the client itself."""

    def answer(_: ext_proc_pb2.ProcessingRequest) -> ext_proc_pb2.ProcessingResponse:
        response = ext_proc_pb2.ProcessingResponse()
        reply = response.immediate_response
        reply.status.code, reply.body, reply.details = status, body, "headgate_test"
        reply.headers.set_headers.append(set_header("content-type", "application/json"))
        return response

    return answer


def deny(status: int, body: str) -> Callable[[auth_pb2.CheckRequest], auth_pb2.CheckResponse]:
    """ext_authz refuses. Its headers carry `value`: Envoy does not read `raw_value` here."""

    def answer(_: auth_pb2.CheckRequest) -> auth_pb2.CheckResponse:
        response = auth_pb2.CheckResponse()
        response.status.code = 7
        response.denied_response.status.code = status
        response.denied_response.body = body
        header = response.denied_response.headers.add().header
        header.key, header.value = "content-type", "application/json"
        return response

    return answer


def too_many(_: ratelimit_pb2.RateLimitRequest) -> ratelimit_pb2.RateLimitResponse:
    """ratelimit says OVER_LIMIT with a body of its own."""
    return ratelimit_pb2.RateLimitResponse(
        overall_code=ratelimit_pb2.RateLimitResponse.OVER_LIMIT,
        raw_body=b'{"error": "over"}',
        response_headers_to_add=[
            base_pb2.HeaderValue(key="content-type", value="application/json"),
            base_pb2.HeaderValue(key="retry-after", value="7"),
        ],
    )


def broken(_: Any) -> Any:
    """A hook that fails."""
    raise RuntimeError("scripted failure")


def entries(descriptor: ratelimit_pb2.RateLimitDescriptor) -> dict[str, str]:
    """The entries of a descriptor, by key."""
    return {entry.key: entry.value for entry in descriptor.entries}


@dataclass
class FakeServices:
    """The four hooks on one unix socket. Set the three functions to script the answers."""

    check: Callable[[auth_pb2.CheckRequest], auth_pb2.CheckResponse] = admit
    process: Callable[[ext_proc_pb2.ProcessingRequest], ext_proc_pb2.ProcessingResponse] = field(
        default_factory=route
    )
    limit: Callable[[ratelimit_pb2.RateLimitRequest], ratelimit_pb2.RateLimitResponse] = allow
    checks: list[auth_pb2.CheckRequest] = field(default_factory=list)
    streams: list[list[ext_proc_pb2.ProcessingRequest]] = field(default_factory=list)
    limits: list[ratelimit_pb2.RateLimitRequest] = field(default_factory=list)
    logs: list[accesslog_pb2.HTTPAccessLogEntry] = field(default_factory=list)
    ends_after: int | None = None
    """ext_proc ends each stream after so many messages; None: with Envoy."""
    _since_s: float = 0.0
    _unsettled: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reset(self) -> None:
        """Forgets what was received and answers as at first.

        Settlements and log entries come after the answer: waits until every reserve has its
        settle, and drops the entries of earlier requests when they come.
        """
        await self.until(lambda: self._unsettled == 0)
        self._since_s = time.time()
        self.check, self.process, self.limit = admit, route(), allow
        self.ends_after = None
        for received in (self.checks, self.streams, self.limits, self.logs):
            received.clear()  # type: ignore[attr-defined]

    def descriptors(self, op: str) -> list[ratelimit_pb2.RateLimitDescriptor]:
        """All received descriptors of this op."""
        every = [descriptor for request in self.limits for descriptor in request.descriptors]
        return [descriptor for descriptor in every if entries(descriptor).get("op") == op]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until what was received fulfils the condition. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(condition)

    async def serve(self, path: Path) -> grpc.aio.Server:
        """Starts the server on the unix socket `path`."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(tuple(self._handlers()))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return server

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        unary, both = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        stream = grpc.stream_unary_rpc_method_handler
        auth, proc = "envoy.service.auth.v3.Authorization", "envoy.service.ext_proc.v3"
        limit, log = "envoy.service.ratelimit.v3", "envoy.service.accesslog.v3"
        table = [
            (auth, "Check", unary, self._check, auth_pb2.CheckRequest),
            (f"{proc}.ExternalProcessor", "Process", both, self._process,
             ext_proc_pb2.ProcessingRequest),
            (f"{limit}.RateLimitService", "ShouldRateLimit", unary, self._limit,
             ratelimit_pb2.RateLimitRequest),
            (f"{log}.AccessLogService", "StreamAccessLogs", stream, self._log,
             accesslog_pb2.StreamAccessLogsMessage),
        ]  # fmt: skip
        return [
            grpc.method_handlers_generic_handler(
                service,
                {
                    name: kind(
                        behaviour, message.FromString, lambda answer: answer.SerializeToString()
                    )
                },
            )
            for service, name, kind, behaviour, message in table
        ]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _check(self, request: auth_pb2.CheckRequest, _: Any) -> auth_pb2.CheckResponse:
        self.checks.append(request)
        await self._notify()
        return self.check(request)

    async def _process(self, requests: Any, _: Any) -> AsyncIterator[Any]:
        received: list[ext_proc_pb2.ProcessingRequest] = []
        self.streams.append(received)
        async for request in requests:
            received.append(request)
            await self._notify()
            yield self.process(request)
            if len(received) == self.ends_after:
                return

    async def _limit(self, request: ratelimit_pb2.RateLimitRequest, _: Any) -> Any:
        self.limits.append(request)
        for descriptor in request.descriptors:
            self._unsettled += 1 if entries(descriptor)["op"] == OP_RESERVE else -1
        await self._notify()
        return self.limit(request)

    async def _log(self, messages: Any, _: Any) -> accesslog_pb2.StreamAccessLogsResponse:
        async for message in messages:
            self.logs.extend(
                entry
                for entry in message.http_logs.log_entry
                if entry.common_properties.start_time.ToNanoseconds() >= self._since_s * 1e9
            )
            await self._notify()
        return accesslog_pb2.StreamAccessLogsResponse()
