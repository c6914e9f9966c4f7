"""The message of Envoy that each of ours stands for, and how to look into both sides.

envoy-data-plane is generated from Envoy's own sources; its message pool knows every
message by Envoy's full name.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import envoy_data_plane.envoy.service.accesslog.v3  # noqa: F401
import envoy_data_plane.envoy.service.auth.v3  # noqa: F401
import envoy_data_plane.envoy.service.ext_proc.v3  # noqa: F401
import envoy_data_plane.envoy.service.ratelimit.v3  # noqa: F401
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from headgate._gen import accesslog_pb2, auth_pb2, base_pb2, ext_proc_pb2, ratelimit_pb2

PACKAGE = "headgate.wire."
FILES: tuple[FileDescriptor, ...] = (
    base_pb2.DESCRIPTOR,
    auth_pb2.DESCRIPTOR,
    ext_proc_pb2.DESCRIPTOR,
    ratelimit_pb2.DESCRIPTOR,
    accesslog_pb2.DESCRIPTOR,
)

_DATA = "envoy.data.accesslog.v3."
_ACCESSLOG = "envoy.service.accesslog.v3."
_AUTH = "envoy.service.auth.v3."
_CORE = "envoy.config.core.v3."
_EXT_PROC = "envoy.service.ext_proc.v3."
_RATELIMIT = "envoy.service.ratelimit.v3."
_DESCRIPTOR = "envoy.extensions.common.ratelimit.v3."

ENVOY_NAMES = {
    "HeaderValue": _CORE + "HeaderValue",
    "HeaderValueOption": _CORE + "HeaderValueOption",
    "HeaderMap": _CORE + "HeaderMap",
    "Metadata": _CORE + "Metadata",
    "Address": _CORE + "Address",
    "SocketAddress": _CORE + "SocketAddress",
    "EnvoyInternalAddress": _CORE + "EnvoyInternalAddress",
    "HttpStatus": "envoy.type.v3.HttpStatus",
    "CheckRequest": _AUTH + "CheckRequest",
    "AttributeContext": _AUTH + "AttributeContext",
    "AttributeContext.Peer": _AUTH + "AttributeContext.Peer",
    "AttributeContext.HttpRequest": _AUTH + "AttributeContext.HttpRequest",
    "AttributeContext.Request": _AUTH + "AttributeContext.Request",
    "Status": "google.rpc.Status",
    "CheckResponse": _AUTH + "CheckResponse",
    "DeniedHttpResponse": _AUTH + "DeniedHttpResponse",
    "OkHttpResponse": _AUTH + "OkHttpResponse",
    "ProcessingRequest": _EXT_PROC + "ProcessingRequest",
    "HttpHeaders": _EXT_PROC + "HttpHeaders",
    "HttpBody": _EXT_PROC + "HttpBody",
    "HttpTrailers": _EXT_PROC + "HttpTrailers",
    "ProcessingResponse": _EXT_PROC + "ProcessingResponse",
    "HeadersResponse": _EXT_PROC + "HeadersResponse",
    "BodyResponse": _EXT_PROC + "BodyResponse",
    "TrailersResponse": _EXT_PROC + "TrailersResponse",
    "CommonResponse": _EXT_PROC + "CommonResponse",
    "HeaderMutation": _EXT_PROC + "HeaderMutation",
    "BodyMutation": _EXT_PROC + "BodyMutation",
    "ImmediateResponse": _EXT_PROC + "ImmediateResponse",
    "ProcessingMode": "envoy.extensions.filters.http.ext_proc.v3.ProcessingMode",
    "RateLimitRequest": _RATELIMIT + "RateLimitRequest",
    "RateLimitDescriptor": _DESCRIPTOR + "RateLimitDescriptor",
    "RateLimitDescriptor.Entry": _DESCRIPTOR + "RateLimitDescriptor.Entry",
    "RateLimitDescriptor.RateLimitOverride": _DESCRIPTOR + "RateLimitDescriptor.RateLimitOverride",
    "RateLimitResponse": _RATELIMIT + "RateLimitResponse",
    "RateLimitResponse.RateLimit": _RATELIMIT + "RateLimitResponse.RateLimit",
    "RateLimitResponse.DescriptorStatus": _RATELIMIT + "RateLimitResponse.DescriptorStatus",
    "StreamAccessLogsMessage": _ACCESSLOG + "StreamAccessLogsMessage",
    "StreamAccessLogsMessage.HTTPAccessLogEntries": (
        _ACCESSLOG + "StreamAccessLogsMessage.HTTPAccessLogEntries"
    ),
    "StreamAccessLogsResponse": _ACCESSLOG + "StreamAccessLogsResponse",
    "HTTPAccessLogEntry": _DATA + "HTTPAccessLogEntry",
    "AccessLogCommon": _DATA + "AccessLogCommon",
    "ResponseFlags": _DATA + "ResponseFlags",
    "ResponseFlags.Unauthorized": _DATA + "ResponseFlags.Unauthorized",
    "HTTPRequestProperties": _DATA + "HTTPRequestProperties",
    "HTTPResponseProperties": _DATA + "HTTPResponseProperties",
}
"""Our messages (below `headgate.wire`) by the full names of Envoy's."""


def messages() -> dict[str, Descriptor]:
    """Every message of ours by its name below our package, without the map entries."""
    return {
        message.full_name.removeprefix(PACKAGE): message
        for file in FILES
        for message in _with_nested(file.message_types_by_name.values())
    }


def enums() -> dict[str, EnumDescriptor]:
    """Every enum of ours by its full name."""
    nested = [enum for message in messages().values() for enum in message.enum_types]
    top = [enum for file in FILES for enum in file.enum_types_by_name.values()]
    return {enum.full_name: enum for enum in [*nested, *top]}


def envoy_class(full_name: str) -> Any:
    """envoy-data-plane's class of a message of Envoy."""
    return default_message_pool.url_to_type[f"type.googleapis.com/{full_name}"]


def envoy_name(message_class: Any) -> str:
    """Envoy's full name of one of envoy-data-plane's classes."""
    return default_message_pool.type_to_url[message_class].removeprefix("type.googleapis.com/")


def _with_nested(descriptors: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in descriptors:
        if not message.GetOptions().map_entry:
            yield message
            yield from _with_nested(message.nested_types)
