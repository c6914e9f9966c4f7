"""ext_authz's decision: every way to send a key, and every way to be refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from extauthz.decide import Allow, Deny
from extauthz.request import CheckInput
from headgate.core.apis import Api, ErrorShape
from headgate.core.contract import CREDENTIAL_HEADERS
from headgate.core.policy import Caller, CompiledPolicy
from tests.extauthz.builders import ALICE, KEY, POLICY, check_input, decide, digest

CASES: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).parent / "cases/decide.yaml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["rule"])
def test_each_case_of_the_matrix(case: dict[str, Any]) -> None:
    """The decision is the one in the case."""
    request = check_input(
        *map(tuple, case["headers"]),
        method=case.get("method", "POST"),
        path=case.get("path", "/v1/chat/completions"),
    )

    decision = decide(request, POLICY)

    if case["expect"] == "ok":
        assert isinstance(decision, Allow)
        assert decision.caller == ALICE
    else:
        assert isinstance(decision, Deny)
        refusal = decision.error.refusal
        assert [refusal.code, refusal.status] == case["expect"]


def test_the_api_of_the_path_is_named() -> None:
    """An allowed request has the API of its path."""
    request = check_input(("x-api-key", KEY), path="/v1/messages")

    assert decide(request, POLICY) == Allow(ALICE, Api.MESSAGES)


def test_a_401_says_which_scheme_it_wants() -> None:
    """RFC 9110, 11.6.1: a 401 carries www-authenticate."""
    decision = decide(check_input(), POLICY)

    assert isinstance(decision, Deny)
    assert decision.headers == (("www-authenticate", "Bearer"),)
    assert "Authorization: Bearer" in decision.error.message


def test_a_405_says_which_methods_it_takes() -> None:
    """RFC 9110, 15.5.6: a 405 carries allow."""
    decision = decide(check_input(("x-api-key", KEY), method="PUT"), POLICY)

    assert isinstance(decision, Deny)
    assert decision.headers == (("allow", "POST"),)


def test_the_shape_of_the_error_is_that_of_the_path() -> None:
    """Anthropic's client reads Anthropic's errors."""
    messages = decide(check_input(path="/v1/messages"), POLICY)
    chat = decide(check_input(), POLICY)

    assert isinstance(messages, Deny)
    assert messages.shape is ErrorShape.ANTHROPIC
    assert isinstance(chat, Deny)
    assert chat.shape is ErrorShape.OPENAI


def test_a_key_may_have_512_bytes_and_not_one_more() -> None:
    """A huge key is refused before it is hashed."""
    longest = "k" * 512
    keys = {digest(longest): ALICE, digest(longest + "k"): ALICE}
    policy = type(POLICY)(POLICY.models, POLICY.tenants, keys)

    assert isinstance(decide(check_input(("api-key", longest)), policy), Allow)
    assert isinstance(decide(check_input(("api-key", longest + "k")), policy), Deny)


@given(
    st.lists(st.tuples(st.sampled_from(CREDENTIAL_HEADERS), st.binary(max_size=600)), max_size=4),
    st.text(max_size=40),
)
def test_no_bytes_get_in_or_crash(credentials: list[tuple[str, bytes]], path: str) -> None:
    """Only a known key passes, and no key is repeated to its sender."""
    for asked in ("/v1/completions", path):
        decision = decide(CheckInput("POST", asked, tuple(credentials)), POLICY)

        assert isinstance(decision, Deny)


def test_a_key_is_compared_with_nothing_but_looked_up_by_its_digest_once() -> None:
    """The time of an answer must not tell how similar a guess is to a key."""
    asked: list[object] = []

    class Keys(dict[bytes, Caller]):
        def get(self, digest: bytes, default: Any = None) -> Any:
            asked.append(digest)
            return super().get(digest, default)

        def __getitem__(self, digest: bytes) -> Caller:
            raise AssertionError("looked up twice")

        __iter__ = keys = items = values = __contains__ = None  # type: ignore[assignment]

    policy = CompiledPolicy(POLICY.models, POLICY.tenants, Keys(POLICY.keys))
    guesses = [KEY, KEY[:-1], KEY + "x", KEY[:-1] + "X", "x" + KEY[1:], "another"]
    for guess in guesses:
        decide(check_input(("api-key", guess)), policy)

    assert asked == [digest(guess) for guess in guesses]


def test_a_refusal_does_not_repeat_the_key() -> None:
    """Error bodies end up in logs; keys must not."""
    decision = decide(check_input(("x-api-key", "sk-secret-typo")), POLICY)

    assert isinstance(decision, Deny)
    assert b"sk-secret-typo" not in decision.error.body(decision.shape)
