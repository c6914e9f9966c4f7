"""The translation between Envoy's Check messages and ext_authz's values."""

import json

import pytest

from extauthz import wire
from extauthz.decide import Allow, Deny
from extauthz.request import CheckInput
from headgate._gen.auth_pb2 import CheckRequest
from headgate._gen.base_pb2 import HeaderValueOption
from headgate.core.apis import Api, ErrorShape
from headgate.core.contract import CREDENTIAL_HEADERS, STRIPPED_HEADERS
from headgate.core.end_users import END_USER_HEADERS, ORGANIZATION, PERSONAL_HEADERS
from headgate.core.errors import ApiError, Refusal
from tests.extauthz.builders import ALICE, check_request


def test_repeated_headers_stay_apart_and_raw() -> None:
    """Headers are not joined and need not be UTF-8."""
    message = check_request(("x-api-key", b"one"), ("x-api-key", b"\xff"), ("api-key", b"three"))

    assert wire.decode(message) == CheckInput(
        "POST",
        "/v1/chat/completions",
        (("x-api-key", b"one"), ("x-api-key", b"\xff"), ("api-key", b"three")),
        "192.0.2.1",
    )


def test_text_values_are_read_too() -> None:
    """An Envoy that does not send raw values fills `value`."""
    message = CheckRequest()
    message.attributes.request.http.header_map.headers.add(key="api-key", value="k")

    assert wire.decode(message).credentials == (("api-key", b"k"),)


def test_the_plain_header_map_is_read_when_there_is_no_raw_one() -> None:
    """Without `encode_raw_headers` Envoy fills `headers`."""
    message = CheckRequest()
    message.attributes.request.http.headers["authorization"] = "Bearer k"
    message.attributes.request.http.headers["cookie"] = "no credential"

    assert wire.decode(message).credentials == (("authorization", b"Bearer k"),)


def test_an_empty_message_is_a_request_for_nothing() -> None:
    """It decodes, and will be refused for its path."""
    assert wire.decode(CheckRequest()) == CheckInput("", "", ())


def test_the_credential_and_scheduling_headers_go_no_further() -> None:
    """vLLM gets neither keys nor headers that change how it schedules other requests."""
    response = wire.encode(Allow(ALICE, Api.CHAT))

    removed = set(response.ok_response.headers_to_remove)
    assert removed == {
        *CREDENTIAL_HEADERS,
        *END_USER_HEADERS,
        *PERSONAL_HEADERS,
        ORGANIZATION,
        *STRIPPED_HEADERS,
    }


def test_the_caller_goes_on_as_metadata() -> None:
    """Identity travels in metadata, which no client can write."""
    response = wire.encode(Allow(ALICE, Api.CHAT))

    assert response.status.code == 0
    assert dict(response.dynamic_metadata) == {"tenant": "acme", "user": "alice", "key": "k1"}


@pytest.mark.parametrize(
    ("refusal", "code"), [(Refusal.BAD_KEY, 16), (Refusal.WRONG_METHOD, 7)], ids=["401", "405"]
)
def test_a_refusal_is_a_complete_answer(refusal: Refusal, code: int) -> None:
    """Status, JSON body and every header overwrite Envoy's own."""
    error = ApiError(refusal, "no")
    deny = Deny(error=error, shape=ErrorShape.OPENAI, headers=(("allow", "GET"),))

    response = wire.encode(deny)

    assert response.status.code == code
    denied = response.denied_response
    assert denied.status.code == refusal.status
    assert json.loads(denied.body)["error"]["code"] == refusal.code
    followed = wire.encode(deny, request_id="r-1").denied_response
    assert json.loads(followed.body)["error"]["request_id"] == "r-1"
    assert [(option.header.key, option.header.value) for option in denied.headers] == [
        ("content-type", "application/json"),
        ("allow", "GET"),
    ]
    overwrite = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert {option.append_action for option in denied.headers} == {overwrite}
