"""Envoy's own replies, in the shape that the client's library reads.

The replies of the hooks pass here too, and their bodies must not change. So each rule matches
Envoy's own description of the reply, its response code details.
"""

from dataclasses import dataclass

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import (
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
from envoy_data_plane.google.protobuf import Any, Struct

from headgate.core.apis import ErrorShape
from headgate.core.errors import Refusal, error_object
from headgate.core.sizes import too_large
from headgate.core.trace_headers import REQUEST_ID
from headgate.dataplane.quota_filters import LARGE_BODY_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReply:
    """One kind of local reply: its condition (CEL over `response` and `request`) and its content.

    If `status` is None, Envoy's status stays.
    """

    when: str
    code: str
    openai_type: str
    anthropic_type: str
    message: str
    status: int | None = None
    retry_after_s: int | None = None
    may_retry: bool = True
    """If not, `x-should-retry` says so to the libraries of OpenAI and Anthropic."""

    def body(self, shape: ErrorShape) -> Struct:
        """The body of a refusal, as Envoy's template of JSON: it escapes what it puts in."""
        body = error_object(
            shape,
            message=self.message.replace("%", "%%"),
            code=self.code,
            openai_type=self.openai_type,
            anthropic_type=self.anthropic_type,
            request_id=f"%REQ({REQUEST_ID})%",
        )
        return Struct(fields=Struct.from_dict(body).fields)


def _details(*prefixes: str) -> str:
    return " || ".join(f"response.code_details.startsWith('{prefix}')" for prefix in prefixes)


_ANTHROPIC = (
    "(request.url_path.endsWith('/v1/messages')"
    " || request.url_path.endsWith('/v1/messages/count_tokens'))"
)
"""Only the end of the path: an upstream's own path may already be in front of it."""


def replies(body_limit_bytes: int) -> tuple[LocalReply, ...]:
    """Every kind of reply, in order: the first rule that matches is used."""
    return (_too_large(body_limit_bytes), _SERVICE_UNAVAILABLE, *_OTHERS)


def _too_large(limit_bytes: int) -> LocalReply:
    return LocalReply(
        when=_details(
            "request_payload_too_large", f"rbac_access_denied_matched_policy[{LARGE_BODY_POLICY}]"
        ),
        status=413,
        code="request_too_large",
        openai_type="invalid_request_error",
        anthropic_type="request_too_large",
        message=too_large(limit_bytes),
    )


_SERVICE_UNAVAILABLE = LocalReply(
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
)
_OTHERS = (
    LocalReply(
        when=_details("direct_response"),
        code=Refusal.UNKNOWN_MODEL.code,
        openai_type="invalid_request_error",
        anthropic_type="not_found_error",
        message="No upstream serves this model.",
    ),
    LocalReply(
        when="response.code == 431",
        code="request_headers_too_large",
        openai_type="invalid_request_error",
        anthropic_type="invalid_request_error",
        message="The request has too many headers, or they are too large.",
    ),
    LocalReply(
        when="response.code == 408",
        code="request_timeout",
        openai_type="invalid_request_error",
        anthropic_type="timeout_error",
        message="The request did not arrive in time.",
    ),
    LocalReply(
        when=_details("route_not_found", "absolute_path_rejected", "upgrade_failed"),
        status=404,
        code="unknown_path",
        openai_type="invalid_request_error",
        anthropic_type="not_found_error",
        message="The gateway does not serve this request.",
    ),
    LocalReply(
        when=_details("low_version"),
        code="invalid_request",
        openai_type="invalid_request_error",
        anthropic_type="invalid_request_error",
        message="The gateway speaks HTTP/1.1 and HTTP/2, and this request is HTTP/1.0. A proxy in"
        " front of the gateway may have sent it so: nginx needs `proxy_http_version 1.1`.",
    ),
    LocalReply(
        when=_details("http1.", "http2.", "path_", "missing_"),
        code="invalid_request",
        openai_type="invalid_request_error",
        anthropic_type="invalid_request_error",
        message="The request is not valid HTTP, or its path is not allowed.",
    ),
    LocalReply(
        when="response.code == 504",
        code="upstream_timeout",
        openai_type="server_error",
        anthropic_type="timeout_error",
        may_retry=False,
        message="The model did not answer in time, and a retry would take as long. Set `stream` to"
        " true, so that the answer comes while it is made, or ask for fewer tokens.",
    ),
    LocalReply(
        # A 5xx of a hook has a body that says what is wrong.
        when=f"response.code >= 500 && !({_details('headgate_', 'ext_authz_denied')})",
        retry_after_s=1,
        code="upstream_unavailable",
        openai_type="server_error",
        anthropic_type="api_error",
        message="The model cannot be reached, or it ended the connection. Try again.",
    ),
)


def local_reply_config(body_limit_bytes: int) -> LocalReplyConfig:
    """The bodies of the replies that neither an upstream nor a hook has written."""
    mappers = []
    for reply in replies(body_limit_bytes):
        mappers.append(_mapper(reply, f"({reply.when}) && {_ANTHROPIC}", ErrorShape.ANTHROPIC))
        mappers.append(_mapper(reply, reply.when, ErrorShape.OPENAI))
    return LocalReplyConfig(mappers=mappers)


def _mapper(reply: LocalReply, expression: str, shape: ErrorShape) -> ResponseMapper:
    condition = ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=Any.pack(ExpressionFilter(expression=expression)),
    )
    headers = []
    if reply.retry_after_s is not None:
        headers.append(_header("retry-after", str(reply.retry_after_s)))
    if not reply.may_retry:
        headers.append(_header("x-should-retry", "false"))
    return ResponseMapper(
        filter=AccessLogFilter(extension_filter=condition),
        status_code=reply.status,
        body_format_override=SubstitutionFormatString(json_format=reply.body(shape)),
        headers_to_add=headers,
    )


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
