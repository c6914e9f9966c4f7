"""Envoy's own replies, in the shape that the client's library reads.

The bodies that our hooks send pass here too and must stay as they are, so each rule
names what Envoy itself says of the reply: its response code details.
"""

from dataclasses import dataclass

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.google.protobuf import Any

from headgate.core.apis import ErrorShape
from headgate.core.errors import error_body


@dataclass(frozen=True, slots=True)
class Reply:
    """One kind of local reply: when (CEL over `response` and `request`), and what is said.

    `status` None keeps Envoy's.
    """

    when: str
    code: str
    openai_type: str
    anthropic_type: str
    message: str
    status: int | None = None
    retry_after_s: int | None = None

    def body(self, shape: ErrorShape) -> str:
        """The JSON body, formed as that of a refusal."""
        return error_body(
            shape,
            message=self.message,
            code=self.code,
            openai_type=self.openai_type,
            anthropic_type=self.anthropic_type,
        )


def _details(*prefixes: str) -> str:
    return " || ".join(f"response.code_details.startsWith('{prefix}')" for prefix in prefixes)


_ANTHROPIC = (
    "(request.url_path.endsWith('/v1/messages')"
    " || request.url_path.endsWith('/v1/messages/count_tokens'))"
)
"""Not the whole path: an upstream's own path may have been put before it by then."""

REPLIES = (
    Reply(
        when=_details(
            "ext_authz_error",
            "ext_proc_error",
            "rate_limiter_error",
            "rbac_access_denied",
            "header_mutation_",
            "mismatch_between_content_length",
        ),
        status=503,
        retry_after_s=1,
        code="service_unavailable",
        openai_type="server_error",
        anthropic_type="api_error",
        message="A service of the gateway is unavailable. Try again.",
    ),
    Reply(
        when=_details("request_payload_too_large"),
        code="request_too_large",
        openai_type="invalid_request_error",
        anthropic_type="request_too_large",
        message="The request body is larger than the gateway takes.",
    ),
    Reply(
        when="response.code == 431",
        code="request_headers_too_large",
        openai_type="invalid_request_error",
        anthropic_type="invalid_request_error",
        message="The request has too many headers, or they are too large.",
    ),
    Reply(
        when="response.code == 408",
        code="request_timeout",
        openai_type="invalid_request_error",
        anthropic_type="timeout_error",
        message="The request did not arrive in time.",
    ),
    Reply(
        when=_details("route_not_found", "absolute_path_rejected", "upgrade_failed"),
        status=404,
        code="unknown_path",
        openai_type="invalid_request_error",
        anthropic_type="not_found_error",
        message="The gateway does not serve this.",
    ),
    Reply(
        when=_details("http1.", "http2.", "path_", "missing_", "low_version"),
        code="invalid_request",
        openai_type="invalid_request_error",
        anthropic_type="invalid_request_error",
        message="The request is not valid HTTP, or its path is not allowed.",
    ),
    Reply(
        when="response.code == 504",
        code="upstream_timeout",
        openai_type="server_error",
        anthropic_type="timeout_error",
        message="The model did not answer in time.",
    ),
    Reply(
        # A 5xx of our own hooks says itself what is wrong.
        when="response.code >= 500 && !response.code_details.startsWith('headgate_')",
        retry_after_s=1,
        code="upstream_unavailable",
        openai_type="server_error",
        anthropic_type="api_error",
        message="The model cannot be reached, or it ended the connection. Try again.",
    ),
)
"""In order: the first one that fits speaks."""


def local_reply_config() -> LocalReplyConfig:
    """What Envoy puts into the replies that no upstream and no hook has written."""
    mappers = []
    for reply in REPLIES:
        mappers.append(_mapper(reply, f"({reply.when}) && {_ANTHROPIC}", ErrorShape.ANTHROPIC))
        mappers.append(_mapper(reply, reply.when, ErrorShape.OPENAI))
    return LocalReplyConfig(mappers=mappers)


def _mapper(reply: Reply, expression: str, shape: ErrorShape) -> ResponseMapper:
    condition = ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=Any.pack(ExpressionFilter(expression=expression)),
    )
    headers = []
    if reply.retry_after_s is not None:
        headers.append(_header("retry-after", str(reply.retry_after_s)))
    return ResponseMapper(
        filter=AccessLogFilter(extension_filter=condition),
        status_code=reply.status,
        body=DataSource(inline_string=reply.body(shape)),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"),
            content_type="application/json",
        ),
        headers_to_add=headers,
    )


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
