"""An address that keeps coming without a known key: what it gets, and what stays of it."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.box import KEYS, Box, metric, small_chat

DECISIONS = 'headgate_decisions_total{decision="%s",hook="ext_authz"}'


@pytest.fixture(scope="module")
def client(box: Box) -> Iterator[httpx.Client]:
    """One client for all requests of this module."""
    with httpx.Client(base_url=box.url) as made:
        yield made


def ask(client: httpx.Client, key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return client.post("/v1/chat/completions", json=small_chat(), headers=headers)


def test_after_30_failures_it_is_429_and_a_known_key_still_passes(
    box: Box, client: httpx.Client
) -> None:
    """Room comes back at one in two seconds, so a slow machine may see a few more."""
    codes = [ask(client, "sk-wrong").status_code for _ in range(60)]
    known = ask(client, KEYS["alice"])
    box.record_of(known.headers["x-request-id"])
    records = box.wait_records(codes.count(401) + 1)

    assert codes[:30] == [401] * 30
    assert set(codes) == {401, 429}
    assert known.status_code == 200
    recorded = sorted(record["status"] for record in records)
    assert recorded == [200] + [401] * codes.count(401)
    assert metric(box.metrics(), DECISIONS % "too_many_failures") == codes.count(429)


def test_the_official_client_does_not_try_again(box: Box, client: httpx.Client) -> None:
    while ask(client, "sk-wrong").status_code != 429:
        pass
    before = metric(box.metrics(), DECISIONS % "too_many_failures")
    with (
        openai.OpenAI(base_url=f"{box.url}/v1", api_key="sk-wrong", max_retries=5) as stranger,
        pytest.raises((openai.RateLimitError, openai.AuthenticationError)),
    ):
        stranger.models.list()
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"]) as known:
        assert [model.id for model in known.models.list()]

    assert metric(box.metrics(), DECISIONS % "too_many_failures") <= before + 1
