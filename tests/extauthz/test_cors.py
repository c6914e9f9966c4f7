"""Web pages: the preflight of a browser, and the headers that let a page read its answer."""

from dataclasses import replace

import pytest

from extauthz import wire
from extauthz.cors import answer_headers
from extauthz.decide import Allow, Answer, Deny, too_many_failures
from headgate._gen.base_pb2 import HeaderValueOption
from headgate.core.apis import Api, ErrorShape
from headgate.core.errors import Refusal
from headgate.core.policy import CompiledPolicy
from tests.extauthz.builders import (
    ALICE,
    KEY,
    POLICY,
    check_input,
    check_request,
    decide,
    preflight,
)

PAGE, OTHER = "https://chat.example.org", "https://evil.example.org"
WITH_CORS = replace(POLICY, cors_origins=frozenset({PAGE, "http://localhost:3000"}))
FOR_ALL = replace(POLICY, cors_origins=frozenset({"*"}))
ASKED = "authorization, content-type,x-stainless-os"


def test_a_preflight_of_a_listed_origin_is_allowed() -> None:
    answer = decide(preflight(PAGE, headers=ASKED), WITH_CORS)

    assert isinstance(answer, Answer)
    assert answer.status == 204
    headers = dict(answer.headers)
    assert headers["access-control-allow-methods"] == "POST"
    assert headers["access-control-allow-headers"] == "authorization, content-type, x-stainless-os"
    assert headers["access-control-max-age"] == "7200"


def test_asked_headers_that_are_no_names_are_left_out() -> None:
    asked = f"x-a, , x b, {'y' * 129}, {','.join(f'n{n}' for n in range(200))}"
    answer = decide(preflight(PAGE, headers=asked), WITH_CORS)

    assert isinstance(answer, Answer)
    names = dict(answer.headers)["access-control-allow-headers"].split(", ")
    assert names[:2] == ["x-a", "n0"]
    assert len(names) <= 100


@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/models", "/health"])
def test_every_path_has_a_preflight_so_that_a_page_can_read_the_error(path: str) -> None:
    answer = decide(preflight(PAGE, path), WITH_CORS)

    assert isinstance(answer, Answer)
    assert "GET" in dict(answer.headers)["access-control-allow-methods"]


@pytest.mark.parametrize(
    "origin", [OTHER, "null", PAGE.upper(), f"{PAGE}:8443", f"{PAGE}.evil.org"]
)
def test_another_origin_is_refused_uncounted_and_unrecorded(origin: str) -> None:
    deny = decide(preflight(origin), WITH_CORS)

    assert isinstance(deny, Deny)
    assert deny.error.refusal is Refusal.FORBIDDEN_ORIGIN
    assert (deny.counted, deny.recorded) == (False, False)


@pytest.mark.parametrize("policy", [POLICY, WITH_CORS])
@pytest.mark.parametrize(("path", "status"), [("/v1/messages", 405), ("/v1/nowhere", 404)])
def test_options_that_is_no_preflight_is_neither_counted_nor_recorded(
    policy: CompiledPolicy, path: str, status: int
) -> None:
    deny = decide(check_input(method="OPTIONS", path=path), policy)

    assert isinstance(deny, Deny)
    assert deny.error.refusal.status == status
    assert (deny.counted, deny.recorded) == (False, False)


def test_without_cors_a_preflight_is_a_wrong_method() -> None:
    deny = decide(preflight(PAGE), POLICY)

    assert isinstance(deny, Deny)
    assert (deny.error.refusal.status, deny.headers) == (405, (("allow", "POST"),))


def test_the_headers_of_an_answer() -> None:
    """The origin by name, as the answer to another one is different."""
    listed = dict(answer_headers(PAGE, WITH_CORS.cors_origins))
    assert listed["access-control-allow-origin"] == PAGE
    assert listed["vary"] == "origin"
    assert "x-ratelimit-remaining-tokens" in listed["access-control-expose-headers"]
    assert "retry-after" in listed["access-control-expose-headers"]

    assert answer_headers(OTHER, WITH_CORS.cors_origins) == (("vary", "origin"),)
    assert answer_headers("", WITH_CORS.cors_origins) == (("vary", "origin"),)
    assert answer_headers(PAGE, POLICY.cors_origins) == ()

    everybody = dict(answer_headers(OTHER, FOR_ALL.cors_origins))
    assert everybody["access-control-allow-origin"] == "*"
    assert "vary" not in everybody
    assert "access-control-allow-credentials" not in {**listed, **everybody}


def test_a_passed_request_has_them_on_its_answer_and_loses_its_origin() -> None:
    """vLLM would allow every origin by itself."""
    cors = answer_headers(PAGE, WITH_CORS.cors_origins)
    ok = wire.encode(Allow(ALICE, Api.CHAT), cors).ok_response

    added = {option.header.key: option for option in ok.response_headers_to_add}
    assert added["access-control-allow-origin"].header.value == PAGE
    assert added["vary"].append_action == HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
    assert "origin" in ok.headers_to_remove
    without = wire.encode(Allow(ALICE, Api.CHAT)).ok_response
    assert not without.response_headers_to_add
    assert "origin" not in without.headers_to_remove


def test_our_own_errors_have_them() -> None:
    deny = decide(check_input(("x-api-key", "sk-wrong")), WITH_CORS)
    denied = wire.encode(deny, answer_headers(PAGE, WITH_CORS.cors_origins)).denied_response

    headers = {option.header.key: option.header.value for option in denied.headers}
    assert denied.status.code == 401
    assert headers["access-control-allow-origin"] == PAGE


def test_a_preflight_has_no_body_and_no_record() -> None:
    cors = answer_headers(PAGE, WITH_CORS.cors_origins)
    response = wire.encode(decide(preflight(PAGE), WITH_CORS), cors)

    assert response.status.code != 0
    assert (response.denied_response.status.code, response.denied_response.body) == (204, "")
    assert response.dynamic_metadata.fields["record"].string_value == "no"


def test_the_headers_of_a_page_are_read() -> None:
    sent = check_request(
        ("origin", PAGE.encode()),
        ("access-control-request-method", b"POST"),
        ("access-control-request-headers", ASKED.encode()),
        ("api-key", KEY.encode()),
        method="OPTIONS",
    )
    request = wire.decode(sent)

    assert request.page.is_preflight
    assert (request.page.origin, request.page.headers) == (PAGE, ASKED)
    assert request.credentials == (("api-key", KEY.encode()),)
    assert not request.opens_websocket


@pytest.mark.parametrize("key", [KEY, "sk-wrong"])
def test_a_websocket_is_refused_with_the_status_at_which_clients_go_on_over_http(key: str) -> None:
    sent = check_request(
        ("sec-websocket-key", b"AAAA"),
        ("api-key", key.encode()),
        method="GET",
        path="/v1/responses",
    )
    deny = decide(wire.decode(sent), POLICY)

    assert isinstance(deny, Deny)
    assert deny.error.refusal is Refusal.NO_WEBSOCKET
    assert deny.headers == (("x-should-retry", "false"),)
    assert deny.counted is (key != KEY)


def test_a_health_check_needs_no_key() -> None:
    for method in ("GET", "HEAD"):
        answer = decide(check_input(method=method, path="/health?x=1"), POLICY)
        assert answer == Answer("health", 200)


def test_the_404_lists_only_what_is_served() -> None:
    closed = decide(check_input(path="/nowhere"), POLICY)
    opened = decide(check_input(path="/nowhere"), replace(POLICY, without_usage={Api.TOKENIZE: 5}))

    assert isinstance(closed, Deny)
    assert isinstance(opened, Deny)
    for path in ("/tokenize", "/v1/messages/count_tokens", "/v1/audio/transcriptions"):
        assert path not in closed.error.message
    assert "/v1/chat/completions" in closed.error.message
    assert "/tokenize" in opened.error.message
    assert "/v1/audio" not in opened.error.message


def test_the_404_of_a_final_slash_names_the_path() -> None:
    deny = decide(check_input(path="/v1/chat/completions/?x=1"), POLICY)

    assert isinstance(deny, Deny)
    assert "Remove the slash at its end: /v1/chat/completions." in deny.error.message


def test_the_429_of_many_failures_never_tells_to_sleep_for_long() -> None:
    soon, late = (dict(too_many_failures(ErrorShape.OPENAI, wait_s).headers) for wait_s in (9, 61))
    assert soon == {"retry-after": "9", "x-should-retry": "false"}
    assert late == {"x-should-retry": "false"}
