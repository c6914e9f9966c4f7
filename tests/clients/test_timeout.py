"""An answer that takes longer than Envoy waits: one request, one error, and the prompt's charge."""

from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.box import KEYS, Box
from tests.clients.waits import timed_out

CHAT: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 4,
    "messages": [{"role": "user", "content": "Hi"}],
}


def of_openai(box: Box) -> object:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"]) as client:
        return client.chat.completions.create(**CHAT)


def of_anthropic(box: Box) -> object:
    with anthropic.Anthropic(base_url=box.url, api_key=KEYS["alice"]) as client:
        return client.messages.create(**CHAT)


@pytest.mark.parametrize("ask", [of_openai, of_anthropic])
def test_a_client_asks_once_and_pays_its_prompt(
    slow_box: Box, ask: Callable[[Box], object]
) -> None:
    def error() -> openai.APIStatusError | anthropic.APIStatusError:
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
            ask(slow_box)
        return raised.value

    before = used(slow_box)
    raised, records = timed_out(slow_box, error)

    assert raised.status_code == 504
    assert "Set `stream` to true" in str(raised)
    [record] = records
    assert (record["status"], record["source"], record["flags"]) == (504, "partial", ["SI"])
    assert record["prompt_tokens"] == record["estimated_prompt_tokens"] > 0
    assert record["completion_tokens"] == 0
    assert used(slow_box) - before == record["prompt_tokens"]


def used(box: Box) -> int:
    """The tokens that alice's limit holds, with no request running."""
    limits = httpx.get(f"{box.url}/v1/headgate/limits", headers=box.headers()).json()
    return int(limits["data"][0]["used"])
