"""An address that keeps coming without a known key: what it gets, and what stays of it."""

import httpx
import openai
import pytest

from tests.box import KEYS, Box, metric, small_chat

DECISIONS = 'headgate_decisions_total{decision="%s",hook="ext_authz"}'


def statuses(box: Box, times: int) -> list[int]:
    """What a client gets that comes again and again with a wrong key."""
    with httpx.Client(headers={"authorization": "Bearer sk-wrong"}, timeout=30) as client:
        url = f"{box.url}/v1/chat/completions"
        return [client.post(url, json=small_chat()).status_code for _ in range(times)]


def test_after_30_failures_it_is_429_and_a_known_key_still_passes(box: Box) -> None:
    """Room comes back at one in two seconds, so a slow machine may see a few more."""
    codes = statuses(box, 60)
    known = box.chat()
    box.record_of(known.headers["x-request-id"])

    assert codes[:30] == [401] * 30
    assert set(codes[30:]) <= {401, 429}
    assert codes.count(429) >= 10
    assert known.status_code == 200
    recorded = [record["status"] for record in box.records()]
    assert recorded.count(401) == codes.count(401)
    assert 429 not in recorded
    assert metric(box.metrics(), DECISIONS % "too_many_failures") == codes.count(429)


def test_the_official_client_does_not_try_again(box: Box) -> None:
    while statuses(box, 1) != [429]:
        pass
    before = metric(box.metrics(), DECISIONS % "too_many_failures")
    with (
        openai.OpenAI(base_url=f"{box.url}/v1", api_key="sk-wrong", max_retries=5) as client,
        pytest.raises((openai.RateLimitError, openai.AuthenticationError)),
    ):
        client.models.list()
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"]) as client:
        assert [model.id for model in client.models.list()]

    assert metric(box.metrics(), DECISIONS % "too_many_failures") <= before + 1
