"""Translates between Envoy's processing messages and ext_proc's values."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct

from extproc.counting.counter import AnswerChunk, AnswerHead
from extproc.stream import AnswerBegin, AnswerEnd, AnswerReply, Replace, Unchanged
from extproc.types import Admit, Answer, Compound, Refuse, RequestFacts, Value
from headgate._gen.base_pb2 import HeaderValueOption
from headgate._gen.ext_proc_pb2 import (
    BodyResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from headgate.core.answer_cache import CACHE_CONTROL
from headgate.core.contract import (
    VERSION_HEADER,
    AdmissionKey,
    CallerKey,
    Header,
    Namespace,
    UsageKey,
)
from headgate.core.errors import refusal_headers
from headgate.core.policy import Caller
from headgate.core.settlement import read_count
from headgate.core.trace_headers import REQUEST_ID

_ATTRIBUTES = "envoy.filters.http.ext_proc"
_SIZE = "request.size"
_MAX_SIZE_BYTES = 2**53
_JSON = "application/json"
_PLAIN = frozenset({"string_value", "number_value", "bool_value"})
_COMPOUND = frozenset({"struct_value", "list_value"})
_CHANGING = (
    AdmissionKey.RESERVATION,
    AdmissionKey.ESTIMATE,
    AdmissionKey.ESTIMATE_PROMPT,
    AdmissionKey.TEXT_BYTES,
    AdmissionKey.HOSTS,
)
"""The admission metadata that differs between a caller's requests to a model."""
SOMETIMES = (Header.LORA, Header.VERSION, Header.TIER)
"""The headers that not every request has. A client's own header of such a name is removed."""


def decode_headers(message: ProcessingRequest) -> RequestFacts:
    """Reads a header message: four headers, two namespaces of metadata, one attribute."""
    headers = _read_headers(message.request_headers)
    path = headers.get(":path", b"").decode(errors="replace")
    cache_control = headers.get(CACHE_CONTROL, b"").decode("latin-1")
    version = headers.get(VERSION_HEADER, b"").decode("latin-1")
    metadata = message.metadata_context.filter_metadata
    values = read_values(metadata)
    caller = _caller(metadata[Namespace.CALLER]) if Namespace.CALLER in metadata else None
    size_bytes = _size_bytes(message.attributes, headers.get("content-length", b""))
    return RequestFacts(
        path=path,
        caller=caller,
        values=values,
        size_bytes=size_bytes,
        version=version or None,
        method=headers.get(":method", b"").decode("latin-1"),
        request_id=headers.get(REQUEST_ID, b"").decode("latin-1"),
        cache_control=cache_control,
    )


def read_values(metadata: Mapping[str, Struct]) -> dict[str, Value]:
    """The body's fields, from the request reader's namespace."""
    values: dict[str, Value] = {}
    if Namespace.REQUEST not in metadata:
        return values
    fields = metadata[Namespace.REQUEST].fields
    for key in fields:
        value = fields[key]
        text = value.string_value
        if text:  # Most values are texts; to ask for the kind takes longer.
            values[key] = text
            continue
        kind = value.WhichOneof("kind")
        if kind in _PLAIN:
            values[key] = getattr(value, kind)
        else:
            values[key] = Compound.VALUE if kind in _COMPOUND else None
    return values


def _read_headers(message: HttpHeaders) -> dict[str, bytes]:
    """The headers, the last of each name. Envoy sends raw bytes; older versions send text."""
    return {
        header.key: header.raw_value or header.value.encode() for header in message.headers.headers
    }


def decode_answer_headers(message: HttpHeaders) -> AnswerHead:
    """Reads the headers of an answer, the first of each name."""
    headers: dict[str, str] = {}
    for header in message.headers.headers:
        value = header.raw_value.decode("latin-1") or header.value
        headers.setdefault(header.key, value)
    return AnswerHead(
        read_count(headers.get(":status")),
        headers.get("content-type", ""),
        headers.get("content-encoding"),
    )


def _caller(metadata: Struct) -> Caller | None:
    """The caller as ext_authz wrote it; None if a part is missing."""
    fields = metadata.fields
    tenant, user, key = (
        fields[name].string_value if name in fields else ""
        for name in (CallerKey.TENANT, CallerKey.USER, CallerKey.KEY)
    )
    return Caller(tenant, user, key) if tenant and user and key else None


def _size_bytes(attributes: Mapping[str, Struct], content_length: bytes) -> int | None:
    """The body's size: as Envoy counted it, or else as the client declared it; None if unknown.

    `request.size` is also 0 if Envoy has no number, so 0 counts as unknown.
    """
    if _ATTRIBUTES in attributes:
        fields = attributes[_ATTRIBUTES].fields
        if _SIZE in fields and 1 <= fields[_SIZE].number_value <= _MAX_SIZE_BYTES:
            return int(fields[_SIZE].number_value)
    return read_count(content_length.decode("latin-1")) or None


def encode_reply(
    reply: Admit | Replace | Unchanged | Refuse | Answer,
    wants_answer: bool = False,
    request_id: str = "",
) -> ProcessingResponse:
    """The message that makes Envoy carry out the decision.

    With `wants_answer` Envoy will send the answer of an admitted request, too. `request_id` goes
    into the body of an error.
    """
    match reply:
        case Admit():
            return _admit(reply, wants_answer)
        case Replace():
            return _replace(reply)
        case Unchanged():
            return ProcessingResponse(request_body=BodyResponse())
        case Refuse():
            return _refuse(reply, request_id)
        case Answer():
            return _answer(reply)


def encode_answer_reply(reply: AnswerReply) -> ProcessingResponse:
    """The message that makes Envoy pass this part of the answer on, and note the usage."""
    match reply:
        case AnswerChunk(body=None, usage=usage) if not usage:
            return _UNCHANGED_CHUNK
        case AnswerChunk():
            response = ProcessingResponse(response_body=_UNCHANGED_BODY)
            if reply.body is not None:
                response.response_body.response.body_mutation.body = reply.body
        case AnswerBegin():
            response = ProcessingResponse(response_headers=HeadersResponse())
            if reply.is_all:
                response.mode_override.CopyFrom(_mode(rewrites=False, wants_answer=False))
            if reply.drops_length:
                mutation = response.response_headers.response.header_mutation
                mutation.remove_headers.append("content-length")
            for name, text in reply.headers:
                mutation = response.response_headers.response.header_mutation
                _set_header(mutation, name, text)
        case AnswerEnd():
            response = ProcessingResponse(response_trailers=TrailersResponse())
    _note(response, reply.usage)
    return response


def _note(response: ProcessingResponse, usage: Mapping[UsageKey, str]) -> None:
    """Envoy adds these keys to the namespace."""
    if usage:
        fields = response.dynamic_metadata.fields[Namespace.USAGE].struct_value.fields
        for key, text in usage.items():
            fields[key].string_value = text


def _admit(admit: Admit, wants_answer: bool) -> ProcessingResponse:
    shared, own = split_admission(admit)
    caches = admit.caching is not None
    template = _admit_template(
        tuple(admit.headers.items()),
        tuple(shared.items()),
        caches or admit.rewrite is not None,
        caches or wants_answer,
    )
    response = ProcessingResponse.FromString(template)
    admission = response.dynamic_metadata.fields[Namespace.ADMISSION].struct_value.fields
    for key, text in own.items():
        admission[key].string_value = text
    return response


def split_admission(admit: Admit) -> tuple[dict[AdmissionKey, str], dict[AdmissionKey, str]]:
    """The metadata that a caller's requests to a model share, and that of this request alone."""
    shared, own = dict(admit.admission), {}
    for key in _CHANGING:
        text = shared.pop(key, None)
        if text is not None:
            own[key] = text
    return shared, own


@lru_cache(maxsize=4_096)
def _admit_template(
    headers: tuple[tuple[Header, str], ...],
    admission: tuple[tuple[AdmissionKey, str], ...],
    rewrites: bool,
    wants_answer: bool,
) -> bytes:
    """The part of the message that a caller's requests to a model share. Reading it is several
    times cheaper than building it."""
    response = ProcessingResponse()
    common = response.request_headers.response
    # The router must choose the route by the headers that are set here.
    common.clear_route_cache = True
    for header, text in headers:
        _set_header(common.header_mutation, header, text)
    set_names = {header for header, _ in headers}
    absent = (header for header in SOMETIMES if header not in set_names)
    common.header_mutation.remove_headers.extend((*absent, VERSION_HEADER))
    fields = response.dynamic_metadata.fields[Namespace.ADMISSION].struct_value.fields
    for key, text in admission:
        fields[key].string_value = text
    if rewrites or wants_answer:
        response.mode_override.CopyFrom(_mode(rewrites, wants_answer))
    return response.SerializeToString()


def _replace(replace: Replace) -> ProcessingResponse:
    """A replaced body needs its own content-length, or Envoy answers 500."""
    response = ProcessingResponse()
    common = response.request_body.response
    common.body_mutation.body = replace.body
    _set_header(common.header_mutation, "content-length", str(len(replace.body)))
    return response


def _refuse(refuse: Refuse, request_id: str) -> ProcessingResponse:
    refusal = refuse.error.refusal
    body = refuse.error.body(refuse.shape, request_id)
    return _immediate(refusal.status, body, refusal.code, refusal_headers(refusal))


def _answer(answer: Answer) -> ProcessingResponse:
    return _immediate(200, answer.body, answer.api, [("content-type", _JSON)])


def _immediate(
    status: int, body: bytes, detail: str, headers: Iterable[tuple[str, str]]
) -> ProcessingResponse:
    """An answer of this service. `detail` is in the access log's response code details."""
    immediate = ImmediateResponse(body=body, details=f"headgate_{detail}")
    immediate.status.code = status
    for name, text in headers:
        _set_header(immediate.headers, name, text)
    return ProcessingResponse(immediate_response=immediate)


def _set_header(mutation: HeaderMutation, name: str, text: str) -> None:
    """Overwrites: a client's own header of this name must not stay."""
    option = mutation.set_headers.add()
    option.header.key = name
    option.header.raw_value = text.encode()
    option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def _mode(rewrites: bool, wants_answer: bool) -> ProcessingMode:
    """The further messages that Envoy must send."""
    headers, bodies = ProcessingMode.HeaderSendMode, ProcessingMode.BodySendMode
    answer = headers.SEND if wants_answer else headers.SKIP
    return ProcessingMode(
        request_header_mode=headers.SEND,
        response_header_mode=answer,
        request_body_mode=bodies.BUFFERED if rewrites else bodies.NONE,
        response_body_mode=bodies.STREAMED if wants_answer else bodies.NONE,
        request_trailer_mode=headers.SKIP,
        response_trailer_mode=answer,
    )


_UNCHANGED_BODY = BodyResponse()
_UNCHANGED_CHUNK = ProcessingResponse(response_body=_UNCHANGED_BODY)
