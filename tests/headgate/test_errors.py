"""The errors that refused clients get."""

import json

import pytest

from headgate.core.apis import ErrorShape, door_of
from headgate.core.errors import ApiError, Refusal


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_has_a_body_in_both_shapes(refusal: Refusal) -> None:
    error = ApiError(refusal, 'say "no"', param="model")
    openai = json.loads(error.body(ErrorShape.OPENAI))
    anthropic = json.loads(error.body(ErrorShape.ANTHROPIC))

    assert openai["error"]["message"] == anthropic["error"]["message"] == 'say "no"'
    assert openai["error"]["code"] == refusal.code
    assert openai["error"]["param"] == "model"
    assert anthropic["type"] == "error"


def test_codes_are_distinct_so_that_metrics_separate_refusals() -> None:
    codes = [refusal.code for refusal in Refusal]

    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    "path",
    ["/invocations", "/v1/chat/completions/", "/v1", "/", "", "/V1/models", "?"],
)
def test_an_unlisted_path_is_no_endpoint(path: str) -> None:
    assert door_of(path).endpoint is None


def test_a_query_does_not_change_the_endpoint() -> None:
    assert door_of("/v1/models?x=/v1/chat/completions") == door_of("/v1/models")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true", "/v1/messages/x"])
def test_clients_of_messages_get_anthropics_shape(path: str) -> None:
    assert door_of(path).shape is ErrorShape.ANTHROPIC
    assert door_of("/v1/messagesx").shape is ErrorShape.OPENAI
