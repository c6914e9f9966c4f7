"""Limits through the real Envoy: what a client sees at them."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from tests.box import KEYS, Box, policy, running_box, small_chat
from tests.envoy.conftest import Upstream
from tests.patience import wait_until

LIMITS = """
      - {count: requests, limit: 3, per: year, each: user, users: [alice]}
"""


@pytest.fixture
def tight(upstream: Upstream, tmp_path: Path) -> Iterator[Box]:
    """A box with small limits and windows that do not end while a test runs."""
    with running_box(tmp_path, policy(upstream.url, limits=LIMITS)) as running:
        yield running


def test_the_request_after_the_last_is_429_with_all_that_a_client_needs(tight: Box) -> None:
    answers = [tight.chat() for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == list("2100")
    refused = answers[-1]
    error = refused.json()["error"]
    assert refused.headers["content-type"] == "application/json"
    assert "retry-after" not in refused.headers  # a client library would sleep for months
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert refused.headers["x-ratelimit-reset-requests"]
    assert error["code"] == "rate_limit_exceeded"
    assert "3 requests per year" in error["message"]


def test_official_clients_raise_their_rate_limit_error(tight: Box) -> None:
    for _ in range(3):
        assert tight.chat().status_code == 200
    with (
        openai.OpenAI(base_url=f"{tight.url}/v1", api_key=KEYS["alice"], max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as openai_error,
    ):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])
    with (
        anthropic.Anthropic(base_url=tight.url, api_key=KEYS["alice"], max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError) as anthropic_error,
    ):
        client.messages.create(
            model="tiny", max_tokens=1, messages=[{"role": "user", "content": "x"}]
        )

    assert openai_error.value.code == "rate_limit_exceeded"
    assert anthropic_error.value.body["error"]["type"] == "rate_limit_error"


def test_a_refused_upstream_request_is_given_back(tight: Box) -> None:
    """An answer of 400 from vLLM costs nothing, not even the request."""
    for _ in range(4):
        answer = tight.chat(messages="not a list")
        assert answer.status_code == 400
        tight.record_of(answer.headers["x-request-id"])

    assert tight.chat().headers["x-ratelimit-remaining-requests"] == "2"


def test_a_slot_is_free_again_when_its_stream_has_ended(upstream: Upstream, tmp_path: Path) -> None:
    limits = "[{count: concurrent, limit: 1}]"
    with running_box(tmp_path, policy(upstream.url, limits=limits)) as box:
        body = {**small_chat(), "stream": True, "max_tokens": 4000}
        url = f"{box.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=box.headers()) as first:
            assert first.status_code == 200
            refused = box.chat()
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        wait_until(lambda: box.chat().status_code == 200, "the slot to be free again")
