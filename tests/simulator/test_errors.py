"""Every error has vLLM's status, type, parameter and shape."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

CASES = json.loads((Path(__file__).parent / "cases" / "errors.json").read_text())


def _body(case: dict[str, Any]) -> bytes:
    """`raw` text, `hex` bytes, one of the bodies too big to write down, or `body` as JSON."""
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    huge: dict[str, Callable[[int], str]] = {
        "digits": lambda size: '{"n": ' + "9" * size + "}",
        "depth": lambda size: "[" * size,
        "long_prompt": lambda size: json.dumps({"prompt": "x" * size}),
        "salt": lambda size: json.dumps({"prompt": "hi", "cache_salt": "x" * size}),
    }
    for kind, written in huge.items():
        if kind in case:
            return written(case[kind]).encode()
    text = str(case["raw"]) if "raw" in case else json.dumps(case["body"])
    return text.encode()


@pytest.mark.parametrize("case", CASES, ids=[case["rule"] for case in CASES])
async def test_an_error_has_the_shape_of_vllm(
    client: httpx.AsyncClient, case: dict[str, Any]
) -> None:
    content_type = case.get("content_type", "application/json")
    headers = {"content-type": content_type} if content_type else {}

    answer = await client.post(case["path"], content=_body(case), headers=headers)

    assert answer.status_code == case["status"], answer.text
    assert answer.headers["content-type"] == "application/json"
    if "anthropic_type" in case:
        assert list(answer.json()) == ["type", "error"]
        error = answer.json()["error"]
        assert (answer.json()["type"], list(error)) == ("error", ["type", "message"])
        assert error["type"] == case["anthropic_type"]
        return
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["code"]) == (case["type"], case["status"])
    if "param" in case:
        assert error["param"] == case["param"]
    assert case.get("message", "") in error["message"]


@pytest.mark.parametrize("path", ["/", "/v1/models/tiny", "/v1/chat/completions/", "/invocations"])
async def test_an_unknown_path_is_404_with_a_detail(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={})

    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("HEAD", "/health")],
)
async def test_a_wrong_method_is_405_with_a_detail(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == 405
    if method != "HEAD":
        assert answer.json() == {"detail": "Method Not Allowed"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_nested_ever_deeper_is_answered_whole_or_refused(
    client: httpx.AsyncClient, stream: bool
) -> None:
    for depth in (*range(600, 900, 25), *range(900, 1010, 2)):
        deep = '{"a":' * depth + "1" + "}" * depth
        body = f'{{"input":"hi","stream":{str(stream).lower()},"text":{deep}}}'
        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/responses", content=body, headers=headers)

        assert answer.status_code in (200, 400)
        assert answer.status_code == 400 or '"usage":{' in answer.text
