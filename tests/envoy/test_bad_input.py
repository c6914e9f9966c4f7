"""Bad input gets a clear refusal in the client's shape, and holds nothing afterwards."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from headgate.dataplane.box import BODY_LIMIT_BYTES
from tests.box import KEYS, Box
from tests.patience import PATIENCE_S

CASES = YAML(typ="safe", pure=True).load(
    Path(__file__).with_name("cases").joinpath("bad_input.yaml").read_text()
)


def send(box: Box, case: dict[str, Any]) -> httpx.Response:
    headers = {"content-type": "application/json", **case.get("headers", {})}
    key = case.get("key", "alice")
    if key is not None:
        headers["authorization"] = f"Bearer {KEYS.get(key, key)}"
    content = (
        case["raw"] if "raw" in case else json.dumps(case.get("json")) if "json" in case else None
    )
    if content:
        content = content.replace("{20KB}", "x" * 20_000)
    url = httpx.URL(box.url).copy_with(raw_path=case.get("path", "/v1/chat/completions").encode())
    return httpx.request(case.get("method", "POST"), url, headers=headers, content=content)


@pytest.mark.parametrize("case", CASES, ids=[case["name"].replace(" ", "-") for case in CASES])
def test_bad_input_is_refused_clearly(box: Box, case: dict[str, Any]) -> None:
    answer = send(box, case)

    assert answer.status_code == case["status"], answer.text
    error = answer.json()["error"]
    assert error["message"]
    if case.get("shape") == "anthropic":
        assert answer.json()["type"] == "error"
        assert error["type"] == case["code"]
    elif "code" in case:
        assert error["code"] == case["code"]
    for word in case.get("says", []):
        assert word in error["message"]
    assert "lora-a" not in answer.text or "lora-a" in str(case)


def test_a_body_above_the_limit_is_413_in_the_clients_shape(box: Box) -> None:
    prompt = "x" * BODY_LIMIT_BYTES
    openai = box.chat(messages=[{"role": "user", "content": prompt}])
    anthropic = box.post("/v1/messages", {"model": "tiny", "max_tokens": 1, "messages": prompt})

    assert (openai.status_code, openai.json()["error"]["code"]) == (413, "request_too_large")
    assert anthropic.status_code == 413
    assert anthropic.json()["error"]["type"] == "request_too_large"


def test_too_many_headers_are_431_in_the_clients_shape(box: Box) -> None:
    answer = box.chat_with_headers({f"x-filler-{number}": "x" for number in range(200)})

    assert answer.status_code == 431
    assert answer.json()["error"]["message"]


def test_connect_is_answered_at_once(box: Box) -> None:
    """No route took it, so that ext_authz was passed by and its body awaited without a key."""
    url = httpx.URL(box.url)
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_S) as client:
        client.sendall(b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n")
        answer = client.recv(65536)

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"unknown_path"' in answer


def test_16384_choices_hold_no_more_than_the_limit_and_are_given_back(box: Box) -> None:
    """vLLM takes that many; the reservation is capped at the limit and nothing stays stuck."""
    answer = box.chat(n=16384, max_tokens=1, messages=[{"role": "user", "content": "x" * 90_000}])

    assert answer.status_code in (200, 400)
    assert box.chat().status_code == 200


def test_a_number_padded_beyond_what_envoy_shows_is_refused(box: Box) -> None:
    """vLLM would read it; nobody here has."""
    answer = box.post("/v1/completions", {"model": "tiny", "prompt": "Hi", "n": " " * 9000 + "3"})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "n"


def test_forged_identity_headers_never_reach_vllm(box: Box) -> None:
    """They are removed before anything reads them; the record names the caller."""
    answer = box.chat_with_headers(
        {
            "x-headgate-tenant": "globex",
            "x-headgate-user": "root",
            "X-Headgate-Base": "evil",
            "x-headgate-lora": "private",
            "x-headgate-anything": "x",
        }
    )

    assert answer.status_code == 200
    record = box.record_of(answer.headers["x-request-id"])
    assert (record["tenant"], record["user"], record["base"]) == ("acme", "alice", "tiny")


def test_nothing_is_held_after_all_of_that(box: Box) -> None:
    """Every refusal has its record and none of them is charged."""
    answer = box.chat()
    box.record_of(answer.headers["x-request-id"])

    refused = [record for record in box.records() if record["status"] >= 400]
    assert refused
    assert all(record["prompt_tokens"] in (0, None) for record in refused)
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 49_000_000
