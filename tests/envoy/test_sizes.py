"""However large a part of a request is: a clear answer, small records, and the box lives on."""

import json
from typing import Any

import httpx
import pytest

from tests.box import KEYS, Box

MAX_TEXT_BYTES = 8 * 1024


def nested(start: str, end: str, depth: int) -> str:
    """A body whose model is the first key, and that is this deep."""
    return '{"model": "tiny", "messages": ' + start * depth + end * depth + "}"


CASES = {
    "lists in lists": (400, {"content": nested("[", "]", 10_000)}),
    "lists in lists, deeper": (400, {"content": nested("[", "]", 100_000)}),
    "lists in lists, up to the limit of the body": (400, {"content": nested("[", "]", 8_000_000)}),
    "objects in objects": (400, {"content": nested('{"a":', "}", 100_000)}),
    "lists without an end": (400, {"content": "[" * 100_000}),
    "a model's name of 1 MB": (400, {"content": json.dumps({"model": "m" * 1_000_000})}),
    "a user agent of 50 KB": (200, {"headers": {"user-agent": "u" * 50_000}}),
    "a query of 50 KB": (200, {"path": "/v1/chat/completions?" + "q" * 50_000}),
    "a query of 61 KB": (431, {"path": "/v1/chat/completions?" + "q" * 62_000}),
    "a path of 50 KB": (404, {"path": "/v1/" + "p" * 50_000}),
    "a key of 50 KB": (401, {"headers": {"authorization": "Bearer " + "k" * 50_000}}),
    "100 headers more": (431, {"headers": {f"x-more-{number}": "x" for number in range(100)}}),
}


def send(box: Box, path: str = "/v1/chat/completions", **request: Any) -> httpx.Response:
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {KEYS['alice']}",
        **request.get("headers", {}),
    }
    small = json.dumps(
        {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    )
    content = request.get("content", small)
    return httpx.post(f"{box.url}{path}", content=content, headers=headers)


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_too_large_is_answered_clearly_and_the_box_lives_on(
    box: Box, name: str
) -> None:
    status, request = CASES[name]
    answer = send(box, **request)

    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["message"]
    assert len(answer.content) < MAX_TEXT_BYTES
    assert send(box).status_code == 200


def test_no_record_and_no_line_of_the_log_grew_with_them(box: Box) -> None:
    box.record_of(send(box).headers["x-request-id"])
    lines = (box.folder / "up.log").read_text().splitlines()

    assert max(len(json.dumps(record)) for record in box.records()) < MAX_TEXT_BYTES
    assert max(map(len, lines)) < MAX_TEXT_BYTES
