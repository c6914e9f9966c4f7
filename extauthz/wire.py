"""Translates between Envoy's authorization messages and ext_authz's values."""

from extauthz.decide import Allow, CheckInput, CheckResult, Deny
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate._gen.base_pb2 import HeaderValueOption
from headgate.core.contract import CREDENTIAL_HEADERS, RECORD_NO, STRIPPED_HEADERS, CallerKey

# google.rpc.Code. Envoy answers with `denied_response` for any code that is not OK.
_PERMISSION_DENIED = 7
_UNAUTHENTICATED = 16


def decode(message: CheckRequest) -> CheckInput:
    """Reads the request's path, method, credential headers and the client's address.

    With `encode_raw_headers` Envoy fills `header_map`, with repeated headers and raw bytes. Without
    it Envoy fills `headers`, with repeated headers joined by commas.
    """
    http = message.attributes.request.http
    credentials = tuple(
        (header.key, header.raw_value or header.value.encode())
        for header in http.header_map.headers
        if header.key in CREDENTIAL_HEADERS
    )
    if not http.header_map.headers:
        credentials = tuple(
            (name, http.headers[name].encode())
            for name in CREDENTIAL_HEADERS
            if name in http.headers
        )
    address = message.attributes.source.address.socket_address.address
    return CheckInput(http.method, http.path, credentials, address)


def encode(result: CheckResult) -> CheckResponse:
    """The message that makes Envoy carry out the decision."""
    match result:
        case Allow():
            return _ok(result)
        case Deny():
            return _denied(result)


def _ok(allow: Allow) -> CheckResponse:
    """Passes the caller on as metadata. The key itself never reaches vLLM."""
    response = CheckResponse()
    response.CopyFrom(_OK)
    fields = response.dynamic_metadata.fields
    fields[CallerKey.TENANT].string_value = allow.caller.tenant
    fields[CallerKey.USER].string_value = allow.caller.user
    fields[CallerKey.KEY].string_value = allow.caller.key
    return response


def _denied(deny: Deny) -> CheckResponse:
    response = CheckResponse()
    status = deny.error.refusal.status
    response.status.code = _UNAUTHENTICATED if status == 401 else _PERMISSION_DENIED
    denied = response.denied_response
    denied.status.code = status
    denied.body = deny.error.body(deny.shape).decode()
    for name, value in (("content-type", "application/json"), *deny.headers):
        option = denied.headers.add()
        option.header.key = name
        option.header.value = value
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    if not deny.recorded:
        response.dynamic_metadata.fields[CallerKey.RECORD].string_value = RECORD_NO
    return response


def _ok_template() -> CheckResponse:
    response = CheckResponse()
    response.status.code = 0
    response.ok_response.headers_to_remove.extend((*CREDENTIAL_HEADERS, *STRIPPED_HEADERS))
    return response


_OK = _ok_template()
