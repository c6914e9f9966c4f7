"""Translates between Envoy's authorization messages and ext_authz's values."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from extauthz.cors import NO_PAGE, Headers, PageHeaders
from extauthz.decide import Allow, Answer, CheckResult, Deny
from extauthz.request import NOTHING, CheckInput, Shown
from headgate._gen.auth_pb2 import AttributeContext, CheckRequest, CheckResponse
from headgate._gen.base_pb2 import HeaderValueOption
from headgate.core.contract import (
    CHECKED_HEADERS,
    CREDENTIAL_HEADERS,
    ORIGIN,
    PREFLIGHT_HEADERS,
    PREFLIGHT_METHOD,
    RECORD_NO,
    STRIPPED_HEADERS,
    WEBSOCKET_KEY,
    CallerKey,
)
from headgate.core.end_users import END_USER_HEADERS, ORGANIZATION, PERSONAL_HEADERS
from headgate.core.trace_headers import REQUEST_ID

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_READ = frozenset(CHECKED_HEADERS)
_CREDENTIALS = frozenset(CREDENTIAL_HEADERS)
_SHOWN = frozenset((*END_USER_HEADERS, ORGANIZATION))
REMOVED_HEADERS = (
    *CREDENTIAL_HEADERS,
    *END_USER_HEADERS,
    *PERSONAL_HEADERS,
    ORGANIZATION,
    *STRIPPED_HEADERS,
)
"""Headers that no admitted request keeps: they are for the gateway only."""
_PAGE = (ORIGIN, PREFLIGHT_METHOD, PREFLIGHT_HEADERS)

# google.rpc.Code. Envoy answers with `denied_response` for any code that is not OK.
PERMISSION_DENIED = 7
_UNAUTHENTICATED = 16

# Looked up once: to ask the generated class each time costs as much as to set a field.
_ADD = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def decode(message: CheckRequest) -> CheckInput:
    """Reads the request's path, method, the headers that Envoy sends and the client's address.

    With `encode_raw_headers` Envoy fills `header_map`, with repeated headers and raw bytes. Without
    it Envoy fills `headers`, with repeated headers joined by commas.
    """
    http, source = message.attributes.request.http, message.attributes.source
    credentials: list[tuple[str, bytes]] = []
    shown: list[tuple[str, bytes]] = []
    others: dict[str, str] = {}
    for name, value in _headers(http):
        if name in _CREDENTIALS:
            credentials.append((name, value))
        elif name in _SHOWN:
            shown.append((name, value))
        else:
            others[name] = value.decode("latin-1")
    request_id = others.pop(REQUEST_ID, "")
    is_bare = not others and not shown and not source.principal
    return CheckInput(
        method=http.method,
        path=http.path,
        credentials=tuple(credentials),
        address=source.address.socket_address.address,
        page=PageHeaders(*[others.get(name, "") for name in _PAGE]) if others else NO_PAGE,
        opens_websocket=WEBSOCKET_KEY in others,
        shown=NOTHING if is_bare else Shown(headers=tuple(shown), principal=source.principal),
        request_id=request_id,
    )


def _headers(http: AttributeContext.HttpRequest) -> list[tuple[str, bytes]]:
    """The headers that are read here, in their order."""
    pairs = []
    for header in http.header_map.headers:
        name = header.key
        if name in _READ:
            pairs.append((name, header.raw_value or header.value.encode()))
    return pairs or [(name, http.headers[name].encode()) for name in _READ if name in http.headers]


def encode(result: CheckResult, cors: Headers = (), request_id: str = "") -> CheckResponse:
    """The message that makes Envoy carry out the decision.

    `cors` are headers of the answer. `request_id` goes into the body of an error.
    """
    match result:
        case Allow():
            return _ok(result, cors)
        case Deny():
            return _denied(result, cors, request_id)
        case Answer():
            return _answer(result, cors)


def _ok(allow: Allow, cors: Headers) -> CheckResponse:
    """Passes the caller on as metadata. The key itself never reaches vLLM.

    Neither does the origin of a page: vLLM would allow it by a rule of its own.
    """
    response = CheckResponse()
    response.CopyFrom(_OK)
    if cors:
        response.ok_response.headers_to_remove.append(ORIGIN)
        add_headers(response.ok_response.response_headers_to_add, cors)
    fields = response.dynamic_metadata.fields
    fields[CallerKey.TENANT].string_value = allow.caller.tenant
    fields[CallerKey.USER].string_value = allow.caller.user
    fields[CallerKey.KEY].string_value = allow.caller.key
    if allow.display_name:
        fields[CallerKey.DISPLAY_NAME].string_value = allow.display_name
    return response


def _denied(deny: Deny, cors: Headers, request_id: str) -> CheckResponse:
    response = CheckResponse()
    status = deny.error.refusal.status
    response.status.code = _UNAUTHENTICATED if status == 401 else PERMISSION_DENIED
    denied = response.denied_response
    denied.status.code = status
    denied.body = deny.error.body(deny.shape, request_id).decode()
    add_headers(denied.headers, (("content-type", "application/json"), *deny.headers, *cors))
    if not deny.recorded:
        response.dynamic_metadata.fields[CallerKey.RECORD].string_value = RECORD_NO
    return response


def _answer(answer: Answer, cors: Headers) -> CheckResponse:
    """Envoy sends any answer of this service as a refusal, with the status that it names."""
    response = CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.denied_response.status.code = answer.status
    add_headers(response.denied_response.headers, (*cors, *answer.headers))
    response.dynamic_metadata.fields[CallerKey.RECORD].string_value = RECORD_NO
    return response


def add_headers(
    options: "RepeatedCompositeFieldContainer[HeaderValueOption]",
    headers: Iterable[tuple[str, str]],
) -> None:
    """Puts them into a message. An answer may vary by something else already: `vary` is added."""
    for name, value in headers:
        option = options.add()
        header = option.header
        header.key = name
        header.value = value
        option.append_action = _ADD if name == "vary" else _OVERWRITE


def _ok_template() -> CheckResponse:
    response = CheckResponse()
    response.status.code = 0
    response.ok_response.headers_to_remove.extend(REMOVED_HEADERS)
    return response


_OK = _ok_template()
