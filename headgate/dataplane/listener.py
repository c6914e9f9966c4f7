"""The clients' listener, called the door, and its rules for reading HTTP."""

from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, MetadataFilter
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    ConfigSource,
    HeaderValue,
    HeaderValueOption,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    PathConfigSource,
    SocketAddress,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    Rds,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    RegexMatcher,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.google.protobuf import Any

from headgate.core.contract import HEADER_PREFIX, RECORD_YES, CallerKey, Namespace
from headgate.core.lean_contract import PEER_HEADER, HookPath
from headgate.core.trace_headers import REQUEST_ID, TRACEPARENT
from headgate.dataplane.affinity import with_affinity
from headgate.dataplane.box import OneBox
from headgate.dataplane.chains import filter_chain
from headgate.dataplane.filters import router
from headgate.dataplane.hook_calls import grpc_service
from headgate.dataplane.placement import placer
from headgate.dataplane.replies import local_reply_config
from headgate.dataplane.routes import ROUTES_NAME
from headgate.dataplane.tls import door_tls
from headgate.dataplane.tracing import tracer

LISTENER = "door"
MAX_HEADERS = 100
MAX_HEADERS_KIB = 60
MAX_STREAMS_PER_CONNECTION = 100
"""For HTTP/2. Each stream may hold a body of the maximum size while it is read."""
STREAM_WINDOW_BYTES = 2**19
"""For HTTP/2: how much of a body a client may send before Envoy asks for more.

It must stay far below the limit of bodies. If more than the limit comes in while ext_authz answers,
the request hangs without a 413. Envoy's default is 16 MiB."""
HANDSHAKE_TIMEOUT = timedelta(seconds=10)
HEADERS_TIMEOUT = timedelta(seconds=10)
"""From a request's first byte to the end of its headers; Envoy's default is to wait forever."""
REQUEST_TIMEOUT = timedelta(minutes=5)
"""For the whole request: a body of 32 MiB at 0.9 Mbit/s. Envoy's default is to wait forever."""
STREAM_IDLE_TIMEOUT = timedelta(minutes=10)
"""Without a byte in either direction. An answer without streaming sends no byte until complete."""
UNREAD_TIMEOUT = timedelta(minutes=2)
"""For a client that does not read its answer. The time begins only once Envoy's 1 MiB and the
kernel's buffers are full, so it does not affect slow clients."""
CONNECTION_IDLE_TIMEOUT = timedelta(minutes=5)
"""For a connection without a request; clients keep theirs for seconds."""
ACCESS_LOG_INTERVAL = timedelta(milliseconds=200)
FORGEABLE_PREFIXES = (HEADER_PREFIX, "x-envoy-")
"""Headgate's headers carry the caller; Envoy's would let a client set retries and timeouts."""
FORCED_TRACE = "x-client-trace-id"
"""With it Envoy traces a request, whatever the ratio."""
_ANY_PROTOCOL = StringMatcher(safe_regex=RegexMatcher(regex=".*"))
"""No request is upgraded: the header is removed, and ext_authz decides as about any request."""


def listener(box: OneBox, services: str) -> Listener:
    """The client listener with the whole chain of filters behind it."""
    manager = connection_manager(box, services)
    return Listener(
        name=LISTENER,
        address=Address(
            socket_address=SocketAddress(address=box.listen_host, port_value=box.listen_port)
        ),
        filter_chains=[
            FilterChain(
                filters=[_manager_filter(manager)],
                transport_socket=None if box.certificate is None else door_tls(box),
                transport_socket_connect_timeout=HANDSHAKE_TIMEOUT,
            )
        ],
        per_connection_buffer_high_watermark_timeout=UNREAD_TIMEOUT,
    )


def log_keeper(services: str) -> Listener:
    """A listener without a socket, which keeps the access log alive after the door is closed.

    Envoy drops a gRPC access log, with the entries that it has not sent, together with the last
    listener that has it in its configuration. Closing the door cuts streams and logs them.
    """
    manager = HttpConnectionManager(
        stat_prefix="log_keeper",
        route_config=RouteConfiguration(name="none"),
        http_filters=[router()],
        access_log=[access_log(services)],
    )
    return Listener(
        name="log_keeper",
        address=Address(socket_address=SocketAddress(address="127.0.0.1", port_value=1)),
        bind_to_port=False,
        filter_chains=[FilterChain(filters=[_manager_filter(manager)])],
    )


def connection_manager(box: OneBox, services: str) -> HttpConnectionManager:
    """How requests are read, cleaned, numbered, routed and logged."""
    manager = reading_rules(box.body_limit_bytes, box.path)
    manager.stat_prefix = LISTENER
    manager.codec_type = HttpConnectionManagerCodecType.AUTO
    manager.rds = Rds(
        route_config_name=ROUTES_NAME,
        config_source=ConfigSource(
            path_config_source=PathConfigSource(path=str(box.routes_file)),
            resource_api_version=ApiVersion.V3,
        ),
    )
    manager.http_filters = filter_chain(services, box.body_limit_bytes, box.path, box.counting)
    if box.affinity_salt is not None:
        manager.http_filters = with_affinity(manager.http_filters, box.path, box.affinity_salt)
    if box.pods:
        manager.http_filters.insert(-1, placer())
    manager.access_log = [access_log(services)]
    manager.tracing = None if box.tracing is None else tracer(box.tracing)
    return manager


def reading_rules(body_limit_bytes: int, path: HookPath) -> HttpConnectionManager:
    """The settings that every way in for clients shares.

    They set how strictly requests are read, which headers are removed, how long requests may take,
    and the form of Envoy's own answers.
    """
    # Clients escape the slashes of a model's id. ext_authz compares paths without decoding them.
    escaped = HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED
    return HttpConnectionManager(
        server_name="headgate",
        early_header_mutation_extensions=[early_header_mutation(path)],
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=escaped,
        use_remote_address=True,
        preserve_external_request_id=False,
        always_set_request_id_in_response=True,
        max_request_headers_kb=MAX_HEADERS_KIB,
        common_http_protocol_options=HttpProtocolOptions(
            max_headers_count=MAX_HEADERS, idle_timeout=CONNECTION_IDLE_TIMEOUT
        ),
        http_protocol_options=Http1ProtocolOptions(ignore_http_11_upgrade=[_ANY_PROTOCOL]),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=MAX_STREAMS_PER_CONNECTION,
            initial_stream_window_size=STREAM_WINDOW_BYTES,
        ),
        request_headers_timeout=HEADERS_TIMEOUT,
        request_timeout=REQUEST_TIMEOUT,
        stream_idle_timeout=STREAM_IDLE_TIMEOUT,
        local_reply_config=local_reply_config(body_limit_bytes),
    )


def early_header_mutation(path: HookPath) -> TypedExtensionConfig:
    """Removes headers that a client must not set, before any filter or the router reads them.

    On the lean path it then names the peer of a connection with a workload's certificate.
    """
    matchers = [
        *(StringMatcher(prefix=prefix, ignore_case=True) for prefix in FORGEABLE_PREFIXES),
        *(StringMatcher(exact=name, ignore_case=True) for name in (REQUEST_ID, FORCED_TRACE)),
    ]
    mutations = [
        HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=matcher))
        for matcher in matchers
    ]
    if path is HookPath.LEAN:
        mutations.append(HeaderMutation(append=_peer()))
    return _extension(
        "envoy.http.early_header_mutation.header_mutation",
        EarlyHeaderMutation(mutations=mutations),
    )


def _peer() -> HeaderValueOption:
    """Envoy leaves an empty header out, as of a connection without such a certificate."""
    value = "%DOWNSTREAM_PEER_URI_SAN%"
    return HeaderValueOption(header=HeaderValue(key=PEER_HEADER, value=value))


def access_log(services: str) -> AccessLog:
    """Sends finished requests to the access log service, many in one message.

    Requests that ext_authz marks with `RECORD_NO` are left out. Otherwise a client without a key
    could fill the disk with records of refusals. The filter passes requests without this metadata
    key, and it ignores `invert`.
    """
    recorded = MetadataMatcher(
        filter=Namespace.CALLER,
        path=[MetadataMatcherPathSegment(key=CallerKey.RECORD)],
        value=ValueMatcher(string_match=StringMatcher(exact=RECORD_YES)),
    )
    config = HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name="headgate",
            grpc_service=grpc_service(services),
            transport_api_version=ApiVersion.V3,
            buffer_flush_interval=ACCESS_LOG_INTERVAL,
        ),
        additional_request_headers_to_log=[TRACEPARENT],
    )
    return AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=AccessLogFilter(metadata_filter=MetadataFilter(matcher=recorded)),
        typed_config=Any.pack(config),
    )


def _manager_filter(manager: HttpConnectionManager) -> Filter:
    return Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager)
    )


def _extension(name: str, config: betterproto2.Message) -> TypedExtensionConfig:
    return TypedExtensionConfig(name=name, typed_config=Any.pack(config))
