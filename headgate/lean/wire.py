"""Translates between Envoy's authorization messages and the values of the three hooks."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct as Fields
from msgspec import Struct

from extauthz import wire as identity
from extauthz.cors import Headers
from extauthz.request import CheckInput
from extauthz.wire import PERMISSION_DENIED, REMOVED_HEADERS, add_headers
from extproc.edits import Edit, Edited
from extproc.types import Answer, Refuse, RequestFacts, Value
from extproc.wire import SOMETIMES, read_values, split_admission
from headgate._gen.auth_pb2 import AttributeContext, CheckRequest, CheckResponse
from headgate.core.contract import (
    ORIGIN,
    PRIORITY_HEADER,
    VERSION_HEADER,
    AdmissionKey,
    CallerKey,
    Header,
    LimitsKey,
)
from headgate.core.errors import refusal_headers
from headgate.core.lean_contract import EDITS_HEADER, SLOT_HELD, LeanKey
from headgate.core.policy import Caller
from ratelimit.answers import Admitted

Metadata = (
    Mapping[CallerKey, str]
    | Mapping[AdmissionKey, str]
    | Mapping[LimitsKey, str]
    | Mapping[LeanKey, str]
)
"""The texts of an answer's metadata, which the access log gets."""

_SOMETIMES = (*SOMETIMES, PRIORITY_HEADER)
"""Headers that Envoy overwrites or removes. It would remove last what it has just set."""

OVER_LIMIT, STORE_AWAY = "request_rate_limited", "rate_limiter_error"
"""The details in the record, as Envoy's rate-limit filter writes them on the standard path."""


class Asked(Struct, frozen=True, gc=False):
    """One request: the signs of its caller, and the values of `RequestFacts` that it asks with."""

    check: CheckInput
    values: Mapping[str, Value]
    size_bytes: int | None
    version: str | None

    def by(self, caller: Caller) -> RequestFacts:
        """The facts of the request, once its caller is known."""
        return RequestFacts(
            path=self.check.path,
            caller=caller,
            values=self.values,
            size_bytes=self.size_bytes,
            version=self.version,
            method=self.check.method,
            request_id=self.check.request_id,
        )


def decode(message: CheckRequest) -> Asked:
    """Reads a check of the lean path: as of the standard path, with the request reader's fields."""
    check = identity.decode(message)
    attributes = message.attributes
    size_bytes = attributes.request.http.size
    return Asked(
        check,
        values=read_values(attributes.metadata_context.filter_metadata),
        size_bytes=size_bytes if size_bytes > 0 else None,
        version=_version(attributes.request.http),
    )


def _version(http: AttributeContext.HttpRequest) -> str | None:
    """The version that the client chooses, if it names one."""
    for header in http.header_map.headers:
        if header.key == VERSION_HEADER:
            return header.raw_value.decode("latin-1") or header.value or None
    return None


def identified(caller: Caller) -> Mapping[CallerKey, str]:
    """The metadata of a caller whose request was not admitted."""
    return {
        CallerKey.TENANT: caller.tenant,
        CallerKey.USER: caller.user,
        CallerKey.KEY: caller.key,
    }


def encode_admission(
    edited: Edited, admitted: Admitted, quotas: Iterable[tuple[str, str]], page: Headers
) -> CheckResponse:
    """Sends the request on, with its headers, its admission and the edits of its body."""
    admit = edited.admit
    shared, own = split_admission(admit)
    template = _admission_template(tuple(admit.headers.items()), tuple(shared.items()))
    response = CheckResponse.FromString(template)
    ok = response.ok_response
    if admitted.priority is None:
        ok.headers_to_remove.append(PRIORITY_HEADER)
    else:
        add_headers(ok.headers, ((PRIORITY_HEADER, str(admitted.priority)),))
    if page:
        ok.headers_to_remove.append(ORIGIN)
    add_headers(ok.response_headers_to_add, (*quotas, *page))
    note(response.dynamic_metadata, own)
    if admitted.held_by:
        note(response.dynamic_metadata, {LimitsKey.HELD_BY: admitted.held_by})
    if admitted.holds_slot:
        note(response.dynamic_metadata, {LeanKey.SLOT: SLOT_HELD})
    if edited.edits:
        add_headers(ok.headers, ((EDITS_HEADER, "1"),))
        _note_edits(response.dynamic_metadata, edited.edits)
    return response


@lru_cache(maxsize=4_096)
def _admission_template(
    headers: tuple[tuple[Header, str], ...], admission: tuple[tuple[AdmissionKey, str], ...]
) -> bytes:
    """The part of the message that a caller's requests to a model share. Reading it is several
    times cheaper than building it."""
    response = CheckResponse()
    response.status.code = 0
    ok = response.ok_response
    add_headers(ok.headers, headers)
    removed = [name for name in REMOVED_HEADERS if name not in _SOMETIMES]
    set_names = {name for name, _ in headers}
    absent = (name for name in SOMETIMES if name not in set_names)
    ok.headers_to_remove.extend((*removed, VERSION_HEADER, *absent))
    note(response.dynamic_metadata, dict(admission))
    return response.SerializeToString()


def encode_refusal(
    refuse: Refuse, facts: RequestFacts, page: Headers, metadata: Metadata, details: str = ""
) -> CheckResponse:
    """Ends the request with an error and the headers that its status needs."""
    refusal = refuse.error.refusal
    headers = (*refusal_headers(refusal), *page)
    return encode_denial(refuse, facts, headers, metadata, details or f"headgate_{refusal.code}")


def encode_denial(
    refuse: Refuse, facts: RequestFacts, headers: Headers, metadata: Metadata, details: str
) -> CheckResponse:
    """Ends the request with an error and all of these headers. `details` go into its record."""
    body = refuse.error.body(refuse.shape, facts.request_id)
    response = _ended(refuse.error.refusal.status, body, headers)
    note(response.dynamic_metadata, metadata)
    note(response.dynamic_metadata, {LeanKey.DETAILS: details})
    return response


def encode_answer(answer: Answer, page: Headers, metadata: Metadata) -> CheckResponse:
    """Ends the request with 200 and this JSON. Envoy sends it as it sends a refusal."""
    response = _ended(200, answer.body, (("content-type", "application/json"), *page))
    note(response.dynamic_metadata, metadata)
    note(response.dynamic_metadata, {LeanKey.DETAILS: f"headgate_{answer.api}"})
    return response


def _ended(status: int, body: bytes, headers: Headers) -> CheckResponse:
    response = CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.denied_response.status.code = status
    response.denied_response.body = body.decode()
    add_headers(response.denied_response.headers, headers)
    return response


def note(metadata: Fields, values: Metadata) -> None:
    """Adds texts to the metadata of an answer."""
    fields = metadata.fields
    for key, text in values.items():
        fields[key].string_value = text


def _note_edits(metadata: Fields, edits: Iterable[Edit]) -> None:
    values = metadata.fields[LeanKey.EDITS].list_value.values
    for begin, end, text in edits:
        values.add().number_value = begin
        values.add().number_value = end
        values.add().string_value = text
