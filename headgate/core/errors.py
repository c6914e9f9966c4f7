"""The errors that refused clients get, in the shape that their library reads.

One closed list of refusals. OpenAI's object is
`{"error": {"message", "type", "param", "code", "request_id"}}`, and Anthropic's is
`{"type": "error", "error": {"type", "message"}, "request_id"}`.
"""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from headgate.core.apis import ErrorShape

LONGEST_RETRY_S = 60
"""The longest `retry-after`. Most client libraries sleep for as long as it says, even for days."""


class OperatorError(Exception):
    """A problem that the operator can fix; the command prints its text as one line."""


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    code: str
    openai_type: str
    anthropic_type: str


class Refusal(Enum):
    """Every reason to refuse a request. `code` is also the metric label."""

    BAD_REQUEST = _Kind(400, "invalid_request", "invalid_request_error", "invalid_request_error")
    NO_KEY = _Kind(401, "missing_api_key", "invalid_request_error", "authentication_error")
    BAD_KEY = _Kind(401, "invalid_api_key", "invalid_request_error", "authentication_error")
    BAD_TOKEN = _Kind(401, "invalid_token", "invalid_request_error", "authentication_error")
    EXPIRED_TOKEN = _Kind(401, "token_expired", "invalid_request_error", "authentication_error")
    REVOKED_TOKEN = _Kind(401, "token_revoked", "invalid_request_error", "authentication_error")
    NO_TENANT = _Kind(403, "tenant_not_found", "invalid_request_error", "permission_error")
    BLOCKED_USER = _Kind(403, "user_blocked", "invalid_request_error", "permission_error")
    BAD_END_USER = _Kind(400, "invalid_end_user", "invalid_request_error", "invalid_request_error")
    FORBIDDEN_MODEL = _Kind(403, "model_not_allowed", "invalid_request_error", "permission_error")
    FORBIDDEN_ORIGIN = _Kind(403, "origin_not_allowed", "invalid_request_error", "permission_error")
    FORBIDDEN_KEYS = _Kind(403, "own_keys_refused", "invalid_request_error", "permission_error")
    UNKNOWN_KEY = _Kind(404, "key_not_found", "invalid_request_error", "not_found_error")
    UNKNOWN_MODEL = _Kind(404, "model_not_found", "invalid_request_error", "not_found_error")
    UNKNOWN_PATH = _Kind(404, "unknown_path", "invalid_request_error", "not_found_error")
    WRONG_METHOD = _Kind(
        405, "method_not_allowed", "invalid_request_error", "invalid_request_error"
    )
    NO_WEBSOCKET = _Kind(
        426, "websocket_not_supported", "invalid_request_error", "invalid_request_error"
    )
    TOO_LARGE = _Kind(413, "request_too_large", "invalid_request_error", "request_too_large")
    COMPRESSED_BODY = _Kind(
        415, "unsupported_encoding", "invalid_request_error", "invalid_request_error"
    )
    TOO_MANY_FAILURES = _Kind(429, "too_many_failures", "rate_limit_error", "rate_limit_error")
    OVER_LIMIT = _Kind(429, "rate_limit_exceeded", "rate_limit_error", "rate_limit_error")
    MODEL_NOT_LOADED = _Kind(503, "model_not_loaded", "server_error", "api_error")
    UNAVAILABLE = _Kind(503, "service_unavailable", "server_error", "api_error")

    @property
    def status(self) -> int:
        """The HTTP status that the client gets."""
        return self.value.status

    @property
    def code(self) -> str:
        """The stable name of this refusal: `error.code` for clients, and the metric label."""
        return self.value.code


@dataclass(frozen=True, slots=True)
class ApiError:
    """One refusal for one client. `param` names the request field at fault."""

    refusal: Refusal
    message: str
    param: str | None = None

    def body(self, shape: ErrorShape, request_id: str = "") -> bytes:
        """The JSON body, in the shape of the client's API; without an id if there is none."""
        kind = self.refusal.value
        body = error_object(
            shape,
            message=self.message,
            code=kind.code,
            openai_type=kind.openai_type,
            anthropic_type=kind.anthropic_type,
            param=self.param,
            request_id=request_id,
        )
        return json.dumps(body).encode()


def refusal_headers(refusal: Refusal) -> list[tuple[str, str]]:
    """The headers of an answer with this refusal: its content type, and what its status needs."""
    headers = [("content-type", "application/json")]
    if refusal.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    elif refusal.status == 503:
        headers.append(("retry-after", "1"))
    return headers


def retry_headers(wait_s: int) -> list[tuple[str, str]]:
    """The headers that tell a client library whether to retry after `wait_s` seconds.

    Beyond `LONGEST_RETRY_S` it must not: `x-should-retry` says so to the libraries of OpenAI and
    Anthropic. `retry-after` is absent then, because other clients sleep for it (Codex, for one).
    """
    if wait_s > LONGEST_RETRY_S:
        return [("x-should-retry", "false")]
    return [("retry-after", str(wait_s))]


def error_object(
    shape: ErrorShape,
    *,
    message: str,
    code: str,
    openai_type: str,
    anthropic_type: str,
    param: str | None = None,
    request_id: str = "",
) -> dict[str, Any]:
    """An error in one of the two shapes, for refusals and for Envoy's own replies."""
    followed = {"request_id": request_id} if request_id else {}
    if shape is ErrorShape.ANTHROPIC:
        error = {"type": anthropic_type, "message": message}
        return {"type": "error", "error": error, **followed}
    refused = {"message": message, "type": openai_type, "param": param, "code": code}
    return {"error": {**refused, **followed}}
