"""The HTTP filters of the request path, one function each, and their order.

The one box and a mesh render the same messages. `services` is the name of the cluster that answers
the hooks' gRPC calls.
"""

from datetime import timedelta
from importlib.resources import files

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, DataSource, GrpcService, HeaderValue
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    HeaderForwardingRules,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, StringMatcher

from headgate.core.answer_cache import CACHE_CONTROL, OFFER_METADATA
from headgate.core.contract import (
    CHECKED_HEADERS,
    COUNTING_METADATA,
    VERSION_HEADER,
    Counting,
    Namespace,
)
from headgate.core.trace_headers import REQUEST_ID
from headgate.dataplane.hook_calls import HOOK_TIMEOUT, UNAVAILABLE, hook_service, http_filter
from headgate.dataplane.quota_filters import (
    LARGE_BODY,
    admission_guard,
    large_body_guard,
    ratelimit,
)

ADMISSION_HEADERS = (
    ":path",
    ":method",
    "content-length",
    "content-type",
    VERSION_HEADER,
    REQUEST_ID,
    CACHE_CONTROL,
)
ANSWER_HEADERS = (":status", "content-encoding")
"""The headers that decide, with the content-type, how an answer is read. The service gets those of
answers that it counts, and of answers that it may keep."""
ANSWER_TIMEOUT = timedelta(seconds=10)
"""How long a piece of an answer may wait for the service that counts it, before the answer is cut.
It does not make requests wait longer, because ext_authz calls the same service first."""
READ_TIMES = 8
"""A body that is so many times larger than the limit is refused without being read."""
_TAP_FILES = (
    "json_strings.lua",
    "usage_scanner.lua",
    "member_tracker.lua",
    "usage_events.lua",
    "model_names.lua",
    "usual_chunk.lua",
    "tap.lua",
)
_READER_FILES = (
    "json_strings.lua",
    "string_checker.lua",
    "json_reader.lua",
    "form_reader.lua",
    "prompt_reader.lua",
    "place_reader.lua",
    "request_reader.lua",
    "request_filter.lua",
)


def http_filters(
    services: str, body_limit_bytes: int, counting: Counting = Counting.PROXY
) -> list[HttpFilter]:
    """The whole chain, in the order of the request path; the router comes last."""
    tap = [usage_tap(tap_source())] if counting is Counting.PROXY else []
    return [
        ext_authz(services),
        *tap,
        large_body_reader(body_limit_bytes),
        body_limit(body_limit_bytes),
        large_body_guard(),
        request_reader(reader_source()),
        ext_proc(services, counting),
        admission_guard(),
        ratelimit(services),
        router(),
    ]


def ext_authz(services: str) -> HttpFilter:
    """Asks who is calling. Refuses the request if the service does not answer.

    Envoy writes the answer's dynamic metadata under the *name* of this filter, so the name must be
    `Namespace.CALLER`.
    """
    return http_filter(Namespace.CALLER, check_call(services, CHECKED_HEADERS))


def check_call(services: str, headers: tuple[str, ...]) -> ExtAuthz:
    """The call of ext_authz, with these headers of the request."""
    return ExtAuthz(
        grpc_service=hook_service(services, HOOK_TIMEOUT),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=UNAVAILABLE,
        validate_mutations=True,
        clear_route_cache=False,
        encode_raw_headers=True,
        allowed_headers=_exactly(headers),
    )


def tap_source(admission: str = Namespace.ADMISSION) -> str:
    """The Lua source of the usage tap; `admission` is the namespace of the admission."""
    return "\n".join((f'local ADMISSION = "{admission}"', *(lua(name) for name in _TAP_FILES)))


def reader_source(head: str = "local LEAN = false") -> str:
    """The Lua source of the request reader; `head` says which path it serves."""
    return "\n".join((head, *(lua(name) for name in _READER_FILES)))


def usage_tap(source: str) -> HttpFilter:
    """Reads the usage from the answer while it passes.

    As the second filter it sees the answer after every other filter except ext_authz.
    """
    return http_filter(
        "headgate.usage_tap", Lua(default_source_code=DataSource(inline_string=source))
    )


def large_body_reader(limit_bytes: int, head: str = "local LEAN = false") -> HttpFilter:
    """Reads a body above the limit to its end and drops it, so that clients see the 413.

    If a request has not been sent completely, Envoy resets its HTTP/2 stream right after the
    answer, and an HTTP/1.1 connection a second later. Many clients then drop the answer (curl 7.88,
    httpx 0.28).
    """
    source = f"{head}\n{lua('large_body.lua')}".replace("LARGE_BODY", LARGE_BODY)
    source = source.replace("LIMIT_BYTES", str(limit_bytes))
    source = source.replace("READ_BYTES", str(READ_TIMES * limit_bytes))
    return http_filter(
        "headgate.large_body_reader", Lua(default_source_code=DataSource(inline_string=source))
    )


def body_limit(size_bytes: int) -> HttpFilter:
    """Answers 413 to a larger body of any content type, before another filter reads it.

    The next filter has to hold the whole body, and only this filter sets how much Envoy holds for a
    request. A route's `request_body_buffer_limit` applies only in the router: above the
    connection's limit of 1 MiB the request would hang.
    """
    return http_filter("headgate.body_limit", Buffer(max_request_bytes=size_bytes))


def request_reader(source: str) -> HttpFilter:
    """Reads the few fields that admission needs from the body, inside the proxy.

    It holds the request until the body is complete. Envoy lets a request pass if the script fails.
    `RequestKey.BODY` then lacks the value that only the script's last line writes, and ext_proc
    refuses the request.
    """
    return http_filter(
        "headgate.request_reader", Lua(default_source_code=DataSource(inline_string=source))
    )


def ext_proc(services: str, counting: Counting = Counting.PROXY) -> HttpFilter:
    """Asks whether the request is admitted, with one message of headers and metadata.

    The body is sent only if the service asks for it by a mode override. With the body of a request
    that it may answer from its cache, it asks for the answer too. If the service changes a header
    that it may not touch (host, :path), the request fails.

    If the service counts tokens, it asks by the same override for the answer of each request that
    it admits. An answer of Envoy's own to a request that the service has not seen costs no message.
    """
    counts = counting is Counting.EXTPROC
    usage = [Namespace.USAGE] if counts else []
    return http_filter(
        "headgate.ext_proc",
        ExternalProcessor(
            grpc_service=_ext_proc_service(services, counts),
            message_timeout=ANSWER_TIMEOUT if counts else HOOK_TIMEOUT,
            failure_mode_allow=False,
            status_on_error=UNAVAILABLE,
            processing_mode=_mode(ProcessingModeBodySendMode.NONE),
            allow_mode_override=True,
            allowed_override_modes=_override_modes(counts),
            request_attributes=["request.size"],
            metadata_options=MetadataOptions(
                forwarding_namespaces=MetadataOptionsMetadataNamespaces(
                    untyped=[Namespace.CALLER, Namespace.REQUEST]
                ),
                receiving_namespaces=MetadataOptionsMetadataNamespaces(
                    untyped=[Namespace.ADMISSION, *usage]
                ),
            ),
            forward_rules=HeaderForwardingRules(
                allowed_headers=_exactly(ADMISSION_HEADERS + ANSWER_HEADERS)
            ),
            mutation_rules=HeaderMutationRules(disallow_is_error=True),
        ),
    )


def _ext_proc_service(services: str, counts: bool) -> GrpcService:
    service = hook_service(services)
    said = [OFFER_METADATA, COUNTING_METADATA] if counts else [OFFER_METADATA]
    service.initial_metadata = [HeaderValue(key=key, value=value) for key, value in said]
    return service


def _override_modes(counts: bool) -> list[ProcessingMode]:
    none, buffered = ProcessingModeBodySendMode.NONE, ProcessingModeBodySendMode.BUFFERED
    modes = [_mode(buffered, answer=True), _mode(none)]
    return [*modes, _mode(none, answer=True)] if counts else [*modes, _mode(buffered)]


def router() -> HttpFilter:
    """Sends the request on, without Envoy's own headers in either direction."""
    return http_filter("envoy.filters.http.router", Router(suppress_envoy_headers=True))


def lua(name: str) -> str:
    """One of the Lua files of this folder."""
    return files("headgate.dataplane").joinpath(name).read_text(encoding="utf-8")


def _exactly(names: tuple[str, ...]) -> ListStringMatcher:
    return ListStringMatcher(patterns=[StringMatcher(exact=name) for name in names])


def _mode(body: ProcessingModeBodySendMode, answer: bool = False) -> ProcessingMode:
    headers, bodies = ProcessingModeHeaderSendMode, ProcessingModeBodySendMode
    answer_mode = headers.SEND if answer else headers.SKIP
    return ProcessingMode(
        request_header_mode=headers.SEND,
        response_header_mode=answer_mode,
        request_body_mode=body,
        response_body_mode=bodies.STREAMED if answer else bodies.NONE,
        request_trailer_mode=headers.SKIP,
        response_trailer_mode=answer_mode,
    )
