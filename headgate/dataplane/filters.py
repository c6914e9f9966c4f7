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
from envoy_data_plane.envoy.extensions.filters.http.json_to_metadata.v3 import (
    JsonToMetadata,
    JsonToMetadataKeyValuePair,
    JsonToMetadataMatchRules,
    JsonToMetadataRule,
    JsonToMetadataSelector,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Value

from headgate.core.contract import (
    BODY_PARSED,
    BODY_UNREADABLE,
    COUNTING_METADATA,
    CREDENTIAL_HEADERS,
    VERSION_HEADER,
    Counting,
    Namespace,
    RequestKey,
)
from headgate.dataplane.hook_calls import HOOK_TIMEOUT, UNAVAILABLE, hook_service, http_filter
from headgate.dataplane.quota_filters import admission_guard, ratelimit

ADMISSION_HEADERS = (":path", ":method", "content-length", "content-type", VERSION_HEADER)
ANSWER_HEADERS = (":status", "content-encoding")
"""The headers that decide, with the content-type, how an answer is read."""
ANSWER_TIMEOUT = timedelta(seconds=10)
"""How long a piece of an answer may wait for the service that counts it, before the answer is cut.
It does not make requests wait longer, because ext_authz calls the same service first."""
JSON_CONTENT_TYPE = r"(?i)application/json[ \t]*(;.*)?"
"""vLLM accepts parameters (`; charset=utf-8`) and any case; Envoy's default accepts neither."""
_TAP_FILES = (
    "json_strings.lua",
    "usage_scanner.lua",
    "member_tracker.lua",
    "usage_events.lua",
    "model_names.lua",
    "tap.lua",
)
_READER_FILES = ("json_strings.lua", "form_reader.lua", "request_reader.lua")
BODY_FIELDS: dict[RequestKey, tuple[str, ...]] = {
    RequestKey.MODEL: ("model",),
    RequestKey.STREAM: ("stream",),
    RequestKey.INCLUDE_USAGE: ("stream_options", "include_usage"),
    RequestKey.CONTINUOUS_USAGE: ("stream_options", "continuous_usage_stats"),
    RequestKey.MAX_TOKENS: ("max_tokens",),
    RequestKey.MAX_COMPLETION_TOKENS: ("max_completion_tokens",),
    RequestKey.MAX_OUTPUT_TOKENS: ("max_output_tokens",),
    RequestKey.N: ("n",),
    RequestKey.PROMPT_CACHE_KEY: ("prompt_cache_key",),
    RequestKey.BACKGROUND: ("background",),
}
"""The path of each request key in the JSON body."""


def http_filters(
    services: str, body_limit_bytes: int, counting: Counting = Counting.PROXY
) -> list[HttpFilter]:
    """The whole chain, in the order of the request path; the router comes last."""
    tap = [usage_tap(tap_source())] if counting is Counting.PROXY else []
    return [
        ext_authz(services),
        *tap,
        body_limit(body_limit_bytes),
        json_to_metadata(),
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
    return http_filter(
        Namespace.CALLER,
        ExtAuthz(
            grpc_service=hook_service(services, HOOK_TIMEOUT),
            transport_api_version=ApiVersion.V3,
            failure_mode_allow=False,
            status_on_error=UNAVAILABLE,
            validate_mutations=True,
            clear_route_cache=False,
            encode_raw_headers=True,
            allowed_headers=_exactly(CREDENTIAL_HEADERS),
        ),
    )


def tap_source() -> str:
    """The Lua source of the usage tap."""
    return "\n".join(_lua(name) for name in _TAP_FILES)


def reader_source() -> str:
    """The Lua source of the request reader."""
    return "\n".join(_lua(name) for name in _READER_FILES)


def usage_tap(source: str) -> HttpFilter:
    """Reads the usage from the answer while it passes.

    As the second filter it sees the answer after every other filter except ext_authz.
    """
    return http_filter(
        "headgate.usage_tap", Lua(default_source_code=DataSource(inline_string=source))
    )


def body_limit(size_bytes: int) -> HttpFilter:
    """Answers 413 to a larger body of any content type, before another filter reads it.

    The next filter has to hold the whole body, and only this filter sets how much Envoy holds for a
    request. A route's `request_body_buffer_limit` applies only in the router: above the
    connection's limit of 1 MiB the request would hang.
    """
    return http_filter("headgate.body_limit", Buffer(max_request_bytes=size_bytes))


def json_to_metadata() -> HttpFilter:
    """Reads the few fields that admission needs from a JSON body, inside the proxy.

    It holds the request until the body is complete, but a body with another content type passes at
    once. Fields keep their JSON type. `null`, arrays, objects and strings above 8 KiB look like an
    absent field; the next filter tells them apart.
    """
    rules = [_body_rule(), *(_field_rule(key, path) for key, path in BODY_FIELDS.items())]
    return http_filter(
        "headgate.json_to_metadata",
        JsonToMetadata(
            request_rules=JsonToMetadataMatchRules(
                rules=rules, allow_content_types_regex=RegexMatcher(regex=JSON_CONTENT_TYPE)
            )
        ),
    )


def request_reader(source: str) -> HttpFilter:
    """Reads from the same body the fields that json_to_metadata cannot show, inside the proxy.

    Envoy lets a request pass if the script fails. `RequestKey.BODY` then lacks the value that only
    the script's last line writes, and ext_proc refuses the request.
    """
    return http_filter(
        "headgate.request_reader", Lua(default_source_code=DataSource(inline_string=source))
    )


def ext_proc(services: str, counting: Counting = Counting.PROXY) -> HttpFilter:
    """Asks whether the request is admitted, with one message of headers and metadata.

    The body is sent only if the service asks for it by a mode override. If the service changes a
    header that it may not touch (host, :path), the request fails.

    If the service counts tokens, it asks by the same override for the answer of each request that
    it admits. An answer of Envoy's own to a request that the service has not seen costs no message.
    """
    counts = counting is Counting.EXTPROC
    headers = ADMISSION_HEADERS + (ANSWER_HEADERS if counts else ())
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
            forward_rules=HeaderForwardingRules(allowed_headers=_exactly(headers)),
            mutation_rules=HeaderMutationRules(disallow_is_error=True),
        ),
    )


def _ext_proc_service(services: str, counts: bool) -> GrpcService:
    service = hook_service(services)
    if counts:
        key, value = COUNTING_METADATA
        service.initial_metadata = [HeaderValue(key=key, value=value)]
    return service


def _override_modes(counts: bool) -> list[ProcessingMode]:
    none, buffered = ProcessingModeBodySendMode.NONE, ProcessingModeBodySendMode.BUFFERED
    if not counts:
        return [_mode(buffered)]
    return [_mode(buffered, counts), _mode(none, counts), _mode(none)]


def router() -> HttpFilter:
    """Sends the request on, without Envoy's own headers in either direction."""
    return http_filter("envoy.filters.http.router", Router(suppress_envoy_headers=True))


def _lua(name: str) -> str:
    return files("headgate.dataplane").joinpath(name).read_text(encoding="utf-8")


def _exactly(names: tuple[str, ...]) -> ListStringMatcher:
    return ListStringMatcher(patterns=[StringMatcher(exact=name) for name in names])


def _mode(body: ProcessingModeBodySendMode, counts: bool = False) -> ProcessingMode:
    headers, bodies = ProcessingModeHeaderSendMode, ProcessingModeBodySendMode
    answer = headers.SEND if counts else headers.SKIP
    return ProcessingMode(
        request_header_mode=headers.SEND,
        response_header_mode=answer,
        request_body_mode=body,
        response_body_mode=bodies.STREAMED if counts else bodies.NONE,
        request_trailer_mode=headers.SKIP,
        response_trailer_mode=answer,
    )


def _pair(key: RequestKey, value: str | None = None) -> JsonToMetadataKeyValuePair:
    fixed = None if value is None else Value(string_value=value)
    return JsonToMetadataKeyValuePair(metadata_namespace=Namespace.REQUEST, key=key, value=fixed)


def _body_rule() -> JsonToMetadataRule:
    parsed = _pair(RequestKey.BODY, BODY_PARSED)
    return JsonToMetadataRule(
        selectors=[JsonToMetadataSelector(key="model")],
        on_present=parsed,
        on_missing=parsed,
        on_error=_pair(RequestKey.BODY, BODY_UNREADABLE),
    )


def _field_rule(key: RequestKey, path: tuple[str, ...]) -> JsonToMetadataRule:
    return JsonToMetadataRule(
        selectors=[JsonToMetadataSelector(key=name) for name in path], on_present=_pair(key)
    )
