"""The translation between Envoy's processing messages and ext_proc's values."""

import json

import pytest
from msgspec.structs import replace

from extproc import wire
from extproc.counting.counter import AnswerChunk, AnswerHead
from extproc.stream import AnswerBegin, AnswerEnd, Replace
from extproc.types import Admit, Answer, Compound, Refuse, RequestFacts, Rewrite
from headgate._gen.base_pb2 import HeaderValueOption
from headgate._gen.ext_proc_pb2 import HeaderMutation, ProcessingMode, ProcessingRequest
from headgate.core.apis import Api, ErrorShape
from headgate.core.contract import VERSION_HEADER, AdmissionKey, Header, Namespace, UsageKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Caller
from tests.extproc.builders import ALICE, headers_message

PLAIN = Admit(headers={}, admission={}, rewrite=None)


def headers_of(mutation: HeaderMutation) -> dict[str, bytes]:
    """The headers that are set; each must overwrite."""
    overwrite = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert {option.append_action for option in mutation.set_headers} == {overwrite}
    return {option.header.key: option.header.raw_value for option in mutation.set_headers}


def test_facts_come_from_headers_metadata_and_attributes() -> None:
    """Every JSON type arrives as itself, except that an object has no content."""
    message = headers_message({"model": "tiny", "n": 2.0, "stream": True, "max_tokens": None})
    message.metadata_context.filter_metadata[Namespace.REQUEST].update({"background": {"a": 1}})

    assert wire.decode_headers(message) == RequestFacts(
        path="/v1/chat/completions",
        caller=ALICE,
        values={
            "body": "read",
            "model": "tiny",
            "n": 2.0,
            "stream": True,
            "max_tokens": None,
            "background": Compound.VALUE,
        },
        size_bytes=1000,
        method="POST",
    )


def test_an_empty_message_has_no_facts() -> None:
    """No path, no caller, no values: it will be refused."""
    message = ProcessingRequest()
    message.request_headers.end_of_stream = True

    assert wire.decode_headers(message) == RequestFacts(
        path="", caller=None, values={}, size_bytes=None
    )


@pytest.mark.parametrize(
    "caller", [Caller("", "alice", "k1"), Caller("acme", "", "k1"), Caller("acme", "alice", "")]
)
def test_a_caller_that_is_not_whole_is_nobody(caller: Caller) -> None:
    """Half an identity is no identity."""
    assert wire.decode_headers(headers_message(caller=caller)).caller is None


def test_headers_name_nobody() -> None:
    """A client can send headers, so identity is read only from metadata."""
    message = headers_message(caller=None)
    for header in Header:
        message.request_headers.headers.headers.add(key=header, raw_value=b"acme")

    assert wire.decode_headers(message).caller is None


@pytest.mark.parametrize(
    ("attribute", "content_length", "size_bytes"),
    [
        (7.0, b"9", 7),
        (0.0, b"9", 9),
        (float("inf"), b"9", 9),
        (float("nan"), b"9", 9),
        (-1.0, b"", None),
        (None, b"9", 9),
        (None, b"0", None),
        (None, b"-9", None),
        (None, b"\xb2", None),
        (None, b"9" * 5000, None),
        (None, b"", None),
    ],
)
def test_the_size_is_what_envoy_counted_else_what_was_declared(
    attribute: float | None, content_length: bytes, size_bytes: int | None
) -> None:
    """An invalid size counts as unknown."""
    message = headers_message()
    message.request_headers.headers.headers.add(key="content-length", raw_value=content_length)
    del message.attributes["envoy.filters.http.ext_proc"]
    if attribute is not None:
        fields = message.attributes["envoy.filters.http.ext_proc"].fields
        fields["request.size"].number_value = attribute

    assert wire.decode_headers(message).size_bytes == size_bytes


def test_a_path_that_is_not_utf8_is_no_crash() -> None:
    """It is an unknown path."""
    message = ProcessingRequest()
    message.request_headers.headers.headers.add(key=":path", raw_value=b"/\xff")

    assert wire.decode_headers(message).path == "/\ufffd"


def test_an_admission_sets_headers_and_metadata_and_routes_anew() -> None:
    """The router chooses by the headers that were just set; no body is asked for."""
    admit = Admit(
        headers={Header.TENANT: "acme"}, admission={AdmissionKey.API: Api.CHAT}, rewrite=None
    )

    response = wire.encode_reply(admit)

    common = response.request_headers.response
    assert headers_of(common.header_mutation) == {"x-headgate-tenant": b"acme"}
    assert common.clear_route_cache
    assert not response.HasField("mode_override")
    admission = response.dynamic_metadata[Namespace.ADMISSION]
    assert dict(admission) == {"api": "chat"}


def test_an_admission_holds_nothing_of_an_earlier_one_of_its_caller() -> None:
    first = replace(
        PLAIN,
        admission={
            AdmissionKey.RESERVATION: "first",
            AdmissionKey.ESTIMATE: "7",
            AdmissionKey.TEXT_BYTES: "5",
            AdmissionKey.USER: "alice",
        },
    )
    second = replace(
        PLAIN, admission={AdmissionKey.RESERVATION: "second", AdmissionKey.USER: "alice"}
    )

    for admit in (first, second, first):
        message = wire.encode_reply(admit)
        fields = message.dynamic_metadata.fields[Namespace.ADMISSION].struct_value.fields
        assert {key: fields[key].string_value for key in fields} == admit.admission


def test_forged_headers_are_removed_where_there_are_none_of_ours() -> None:
    """A client's header that is not overwritten must be removed."""
    plain = wire.encode_reply(PLAIN).request_headers.response.header_mutation
    ours = {Header.LORA: "poet", Header.VERSION: "v1", Header.TIER: "gold"}
    whole = wire.encode_reply(replace(PLAIN, headers=ours)).request_headers.response

    assert set(plain.remove_headers) == {*ours, VERSION_HEADER}
    assert list(whole.header_mutation.remove_headers) == [VERSION_HEADER]


def test_a_rewrite_asks_for_the_whole_body_and_nothing_more() -> None:
    """The other modes stay as the filter is configured."""
    response = wire.encode_reply(replace(PLAIN, rewrite=Rewrite("served", force_usage=False)))

    mode = response.mode_override
    assert mode.request_body_mode == ProcessingMode.BUFFERED
    assert mode.response_body_mode == ProcessingMode.NONE
    assert mode.response_header_mode == ProcessingMode.SKIP
    assert mode.request_trailer_mode == ProcessingMode.SKIP
    assert mode.response_trailer_mode == ProcessingMode.SKIP


def test_a_new_body_brings_its_length() -> None:
    """Envoy answers 500 to a body whose length differs from the declared one."""
    common = wire.encode_reply(Replace("größe".encode())).request_body.response

    assert common.body_mutation.body == "größe".encode()
    assert headers_of(common.header_mutation) == {"content-length": b"7"}


def test_a_refusal_is_an_answer_in_the_clients_shape() -> None:
    """The details in the access log say why."""
    refuse = Refuse(ApiError(Refusal.UNKNOWN_MODEL, "no", "model"), ErrorShape.ANTHROPIC)

    immediate = wire.encode_reply(refuse, request_id="r-1").immediate_response

    assert immediate.status.code == 404
    assert immediate.details == "headgate_model_not_found"
    assert headers_of(immediate.headers) == {"content-type": b"application/json"}
    body = json.loads(immediate.body)
    assert (body["error"]["type"], body["request_id"]) == ("not_found_error", "r-1")


def test_a_401_says_which_scheme_it_wants() -> None:
    """RFC 9110, 11.6.1: a 401 carries www-authenticate."""
    refuse = Refuse(ApiError(Refusal.NO_KEY, "who?"), ErrorShape.OPENAI)

    assert headers_of(wire.encode_reply(refuse).immediate_response.headers) == {
        "content-type": b"application/json",
        "www-authenticate": b"Bearer",
    }


def test_an_answer_ends_the_request_with_200() -> None:
    """The model list never asks vLLM."""
    immediate = wire.encode_reply(Answer(Api.MODELS, b"{}")).immediate_response

    assert (immediate.status.code, immediate.body) == (200, b"{}")
    assert immediate.details == "headgate_models"


def test_an_answer_s_head_is_read_from_three_headers() -> None:
    """Values are raw bytes, from older Envoys text. The first of a repeated header counts."""
    message = ProcessingRequest().response_headers
    for key, raw in ((":status", b"200"), ("content-type", b"a/b"), ("content-type", b"c/d")):
        message.headers.headers.add(key=key, raw_value=raw)
    message.headers.headers.add(key="content-encoding", value="gzip")

    assert wire.decode_answer_headers(message) == AnswerHead(200, "a/b", "gzip")
    assert wire.decode_answer_headers(ProcessingRequest().response_headers) == AnswerHead(
        None, "", None
    )


@pytest.mark.parametrize("rewrite", [None, Rewrite("served", force_usage=False)])
def test_an_admission_asks_for_the_answer_where_it_is_counted(rewrite: Rewrite | None) -> None:
    """Only this request's mode changes: Envoy sends no answers of requests that are refused."""
    mode = wire.encode_reply(replace(PLAIN, rewrite=rewrite), wants_answer=True).mode_override

    body = ProcessingMode.BUFFERED if rewrite else ProcessingMode.NONE
    assert mode.request_body_mode == body
    assert mode.response_body_mode == ProcessingMode.STREAMED
    assert mode.response_header_mode == ProcessingMode.SEND
    assert mode.response_trailer_mode == ProcessingMode.SEND


def test_a_chunk_passes_unchanged_or_as_the_client_must_see_it() -> None:
    """An empty body removes the chunk; without a body it stays unchanged."""
    same = wire.encode_answer_reply(AnswerChunk(None, {}))
    empty = wire.encode_answer_reply(AnswerChunk(b"", {UsageKey.EVENTS: "1"}))

    assert not same.response_body.response.HasField("body_mutation")
    assert not same.HasField("dynamic_metadata")
    assert empty.response_body.response.body_mutation.WhichOneof("mutation") == "body"
    assert dict(empty.dynamic_metadata[Namespace.USAGE]) == {"events": "1"}


def test_an_answer_s_headers_lose_the_length_that_would_be_wrong() -> None:
    """With `is_all` Envoy sends no more of the answer."""
    kept = wire.encode_answer_reply(
        AnswerBegin({UsageKey.STATUS: "200"}, drops_length=False, is_all=False)
    )
    gone = wire.encode_answer_reply(AnswerBegin({}, drops_length=True, is_all=True))

    assert not kept.response_headers.response.header_mutation.remove_headers
    assert not kept.HasField("mode_override")
    assert dict(kept.dynamic_metadata[Namespace.USAGE]) == {"status": "200"}
    assert list(gone.response_headers.response.header_mutation.remove_headers) == ["content-length"]
    assert gone.mode_override.response_body_mode == ProcessingMode.NONE


def test_trailers_pass_and_end_the_count() -> None:
    response = wire.encode_answer_reply(AnswerEnd({UsageKey.COMPLETE: "1"}))

    assert response.WhichOneof("response") == "response_trailers"
    assert dict(response.dynamic_metadata[Namespace.USAGE]) == {"complete": "1"}
