"""A prompt leaves no trace: not in logs, records, metrics or any file of the box."""

import contextlib
from typing import Any

import httpx
import pytest

from tests.box import Box, small_chat

SECRET = "canary-9c41e7"
CHAT = "/v1/chat/completions"


def bodies() -> list[tuple[str, Any]]:
    """Requests that pass, are rewritten, or are refused."""
    said = [{"role": "user", "content": SECRET}]
    chat = {**small_chat(), "messages": said}
    return [
        (CHAT, chat),
        (CHAT, {**chat, "stream": True}),
        (CHAT, {**chat, "model": "sql-expert", "priority": 3, "cache_salt": SECRET}),
        (CHAT, {**chat, "stream_options": SECRET, "stream": True}),
        (CHAT, {**chat, "n": [SECRET]}),
        (CHAT, {**chat, "cache_salt": [SECRET]}),
        (CHAT, {**chat, "max_tokens": -1}),
        (CHAT, {**chat, "messages": SECRET}),
        (CHAT, {**chat, "filler": "x" * 17_000_000}),
        ("/v1/completions", {"model": "tiny", "prompt": SECRET, "max_tokens": 2, "echo": True}),
        ("/v1/messages", {"model": "tiny", "max_tokens": 2, "messages": said, "system": SECRET}),
        ("/v1/responses", {"model": "tiny", "max_output_tokens": 2, "input": SECRET}),
    ]


def test_no_prompt_is_found_in_logs_records_metrics_or_files(box: Box) -> None:
    for path, body in bodies():
        box.post(path, body)
    httpx.post(f"{box.url}{CHAT}", content=f'{{"{SECRET}', headers=box.headers())
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream(
            "POST",
            f"{box.url}{CHAT}",
            json={**small_chat(), "stream": True, "max_tokens": 500, "user": SECRET},
            headers=box.headers(),
        ) as answer,
    ):
        next(answer.iter_bytes())
    last = box.chat()
    box.record_of(last.headers["x-request-id"])

    searched = [path for path in box.folder.rglob("*") if path.is_file()]
    assert {"usage.jsonl", "up.log", "envoy.log"} <= {path.name for path in searched}
    assert not [path for path in searched if SECRET.encode() in path.read_bytes()]
    assert SECRET not in box.metrics()
    assert SECRET not in box.envoy_admin("/stats")


@pytest.mark.parametrize("path", ["/tokenize", "/v1/messages/count_tokens"])
def test_an_api_without_usage_is_shut_unless_the_policy_opens_it(box: Box, path: str) -> None:
    answer = box.post(path, {"model": "tiny", "prompt": "Hi", "messages": []})

    assert answer.status_code == 404
    assert ("type" in answer.json()) == path.startswith("/v1/messages")
