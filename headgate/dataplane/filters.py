"""The HTTP filters of the request path, one function each, and their order.

Nothing here knows where it runs: the one-box bootstrap and a mesh render the same
messages. `services` is the name of the cluster that answers the hooks' gRPC calls.
"""

from datetime import timedelta
from importlib.resources import files

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, DataSource, HeaderValue
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
"""Those that say, with the content-type, how an answer is read."""
ANSWER_TIMEOUT = timedelta(seconds=10)
"""How long one piece of an answer may wait for the service that counts it, before the answer is
cut. A request waits no longer than before: ext_authz asks the same service first."""
JSON_CONTENT_TYPE = r"(?i)application/json[ \t]*(;.*)?"
"""vLLM takes parameters (`; charset=utf-8`) and any case; Envoy's default takes neither."""
_TAP_FILES = ("usage_scanner.lua", "usage_events.lua", "tap.lua")
_READER_FILES = ("form_reader.lua", "request_reader.lua")
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
"""Where each request key stands in the JSON body."""


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
    """Who is calling? Closed when the service does not answer.

    Envoy writes the answer's dynamic metadata under the *name* of this filter, so the
    name is `Namespace.CALLER` and not free.
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
    """Reads the usage from the answer as it passes. It stands second, so that it sees the
    answer after every other filter but ext_authz has."""
    return http_filter(
        "headgate.usage_tap", Lua(default_source_code=DataSource(inline_string=source))
    )


def body_limit(size_bytes: int) -> HttpFilter:
    """413 for a larger body, whatever it is called, before anything reads it.

    The next filter has to hold the whole body. Only this filter sets how much Envoy holds for
    one request; a route's `request_body_buffer_limit` counts in the router alone, and above
    the connection's limit of 1 MiB such a request would hang.
    """
    return http_filter("headgate.body_limit", Buffer(max_request_bytes=size_bytes))


def json_to_metadata() -> HttpFilter:
    """Reads the few fields that admission needs from a JSON body, inside the proxy.

    It holds the request until the body is complete, but lets one that is not called JSON
    pass at once. Fields keep their JSON type; `null`, arrays, objects and strings above
    8 KiB look like an absent field. What it cannot tell the next filter does.
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
    """Reads from the same body what the filter before it cannot tell, inside the proxy.

    Envoy lets a request pass whose script has failed; `RequestKey.BODY` then lacks the word
    that only the script's last line writes, and admission refuses it.
    """
    return http_filter(
        "headgate.request_reader", Lua(default_source_code=DataSource(inline_string=source))
    )


def ext_proc(services: str, counting: Counting = Counting.PROXY) -> HttpFilter:
    """What is asked? One message with headers and metadata; the body only when the service
    asks for it by a mode override. A header that it may not touch (host, :path) is an error.

    Where the service counts, it asks for the answer of each request that it admits by the same
    override: so an answer of Envoy's own to a request that it has not seen costs no message.
    """
    counts = counting is Counting.EXTPROC
    service = hook_service(services)
    if counts:
        key, value = COUNTING_METADATA
        service.initial_metadata = [HeaderValue(key=key, value=value)]
    none, buffered = ProcessingModeBodySendMode.NONE, ProcessingModeBodySendMode.BUFFERED
    overrides = [_mode(buffered, counts)]
    if counts:
        overrides += [_mode(none, counts), _mode(none)]
    usage = [Namespace.USAGE] if counts else []
    return http_filter(
        "headgate.ext_proc",
        ExternalProcessor(
            grpc_service=service,
            message_timeout=ANSWER_TIMEOUT if counts else HOOK_TIMEOUT,
            failure_mode_allow=False,
            status_on_error=UNAVAILABLE,
            processing_mode=_mode(ProcessingModeBodySendMode.NONE),
            allow_mode_override=True,
            allowed_override_modes=overrides,
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
                allowed_headers=_exactly(ADMISSION_HEADERS + (ANSWER_HEADERS if counts else ()))
            ),
            mutation_rules=HeaderMutationRules(disallow_is_error=True),
        ),
    )


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
