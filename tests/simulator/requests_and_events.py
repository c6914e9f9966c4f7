"""Requests that fit every API, and a reader of event streams."""

import json
from typing import Any

import httpx

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GENERATING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)


def asking(path: str, max_tokens: int = 5, **more: Any) -> dict[str, Any]:
    """A small valid body for one of the generating paths."""
    turn = [{"role": "user", "content": "How much is one token?"}]
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"messages": turn, "max_tokens": max_tokens},
        COMPLETIONS: {"prompt": "How much is one token?", "max_tokens": max_tokens},
        RESPONSES: {"input": "How much is one token?", "max_output_tokens": max_tokens},
        MESSAGES: {"messages": turn, "max_tokens": max_tokens},
    }
    return {"model": "tiny"} | bodies[path] | more


def events_of(text: str) -> list[tuple[str, Any]]:
    """(event name or "", data) of each event; data is decoded, but "[DONE]" stays text."""
    assert text.endswith("\n\n")
    return [_event(block) for block in text.removesuffix("\n\n").split("\n\n")]


async def streamed(
    client: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None, **more: Any
) -> list[tuple[str, Any]]:
    """The events of a streamed request, read to its end."""
    body = asking(path, stream=True, **more)
    answer = await client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return events_of(answer.text)


def _event(block: str) -> tuple[str, Any]:
    name, data = "", ""
    for line in block.split("\n"):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
    return name, data if data == "[DONE]" else json.loads(data)
