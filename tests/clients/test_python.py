"""The official Python clients with their default retries: a month's limit, and a short one."""

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from tests.box import KEYS, Box
from tests.clients.waits import refusals_of, use_up

CHAT: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 4,
    "messages": [{"role": "user", "content": "Hi"}],
}


def of_openai(box: Box, user: str) -> object:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS[user]) as client:
        return client.chat.completions.create(**CHAT)


def of_anthropic(box: Box, user: str) -> object:
    with anthropic.Anthropic(base_url=box.url, api_key=KEYS[user]) as client:
        return client.messages.create(**CHAT)


CLIENTS = {"openai": of_openai, "anthropic": of_anthropic}
Ask = Callable[[Box, str], object]


@pytest.fixture(params=CLIENTS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return CLIENTS[request.param]


def test_a_months_limit_is_an_error_at_once(box: Box, ask: Ask) -> None:
    def error() -> openai.RateLimitError | anthropic.RateLimitError:
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as raised:
            ask(box, "alice")
        return raised.value

    raised, refusals = refusals_of(box, error)

    assert refusals == 1
    assert "1 request per month" in str(raised)
    assert "try again in" in str(raised)
    assert "retry-after" not in raised.response.headers
    assert raised.response.headers["x-ratelimit-reset-requests"]


def test_a_short_wait_is_waited_for(box: Box, ask: Ask) -> None:
    use_up(box, "bob")
    answer, refusals = refusals_of(box, lambda: ask(box, "bob"))

    assert answer
    assert refusals == 1
