"""Batches, scores, APIs without usage, and whose prefix cache is whose."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from extproc.splice import cache_salt
from headgate.dataplane.box import BODY_LIMIT_BYTES
from tests.box import KEYS, Box, digest, metric, policy, running_box, small_chat
from tests.envoy.conftest import LIMITS, Upstream

MESSAGES = [{"role": "user", "content": "Count these tokens, please, all of them."}]
NEIGHBOUR = f"""
  delta:
    models: [tiny]
    keys:
      - {{id: dave-key, user: dave, sha256: "{digest(KEYS["dave"])}"}}
without_usage: {{count_tokens: free, tokenize: 50}}
cors: {{origins: ["https://chat.example.org"]}}
"""
PAGE = {"origin": "https://chat.example.org"}


@pytest.fixture(scope="module")
def box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Tenant acme has a prefix cache of its own, delta (dave) has none."""
    text = policy(upstream.url, limits=f"{LIMITS}    cache_salt: true\n", more=NEIGHBOUR)
    folder: Path = tmp_path_factory.mktemp("endpoints")
    with running_box(folder, text) as running:
        yield running


def charged(box: Box, path: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer to a request for tiny, and its record."""
    answer = box.post(path, {"model": "tiny", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json(), box.record_of(answer.headers["x-request-id"])


def test_a_batch_of_chats_is_charged_for_every_conversation(box: Box) -> None:
    conversations = [MESSAGES, MESSAGES, MESSAGES]
    answer, record = charged(
        box, "/v1/chat/completions/batch", messages=conversations, max_tokens=5, temperature=0
    )

    assert len(answer["choices"]) == 3
    usage = answer["usage"]
    assert record["prompt_tokens"] == usage["prompt_tokens"]
    assert record["completion_tokens"] == usage["completion_tokens"] == 15
    assert (record["source"], record["api"]) == ("usage", "chat_batch")
    assert record["estimated_tokens"] >= 15


def test_a_list_of_prompts_holds_an_answer_for_each(box: Box) -> None:
    _, record = charged(box, "/v1/completions", prompt=["a", "b", "c"], max_tokens=100, n=2)

    assert 600 <= record["estimated_tokens"] < 800


@pytest.mark.simulator
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/score", {"text_1": "a b", "text_2": ["c", "d e f"]}),
        ("/v1/rerank", {"query": "a b", "documents": ["c", "d e f"]}),
        ("/v2/rerank", {"query": "a b", "documents": ["c", "d e f"]}),
    ],
)
def test_scores_are_charged_by_their_usage(box: Box, path: str, fields: dict[str, Any]) -> None:
    answer, record = charged(box, path, **fields)

    assert record["prompt_tokens"] == answer["usage"]["prompt_tokens"] > 0
    assert (record["completion_tokens"], record["source"]) == (0, "usage")


def test_a_free_api_costs_no_tokens(box: Box) -> None:
    answer, record = charged(box, "/v1/messages/count_tokens", messages=MESSAGES)

    assert answer["input_tokens"] > 0
    assert (record["prompt_tokens"], record["completion_tokens"]) == (0, 0)
    assert (record["source"], record["api"]) == ("estimate", "count_tokens")


def test_a_flat_price_is_charged(box: Box) -> None:
    before = metric(box.metrics(), TOKENS)
    answer, record = charged(box, "/tokenize", prompt="a b c")

    assert answer["count"] > 0
    assert (record["prompt_tokens"], record["completion_tokens"]) == (50, 0)
    assert metric(box.metrics(), TOKENS) == before + 50


TOKENS = 'headgate_tokens_total{kind="prompt",model="tiny",tenant="acme"}'
LONG = "All tenants share one cache unless they are kept apart by a salt. " * 30


def cached(box: Box, text: str, user: str = "alice", **fields: Any) -> int:
    """How many tokens of this prompt vLLM has found in its cache."""
    messages = [{"role": "user", "content": text}]
    answer = box.post(
        "/v1/chat/completions", {**small_chat(), "messages": messages, **fields}, user
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_tenant_with_a_salt_finds_what_it_has_sent_itself(box: Box) -> None:
    cached(box, "1 " + LONG)

    assert cached(box, "1 " + LONG, user="bob") > 0


def test_nobody_finds_what_a_tenant_with_a_salt_has_sent(box: Box) -> None:
    """Not with that very salt either."""
    cached(box, "2 " + LONG)

    assert cached(box, "2 " + LONG, user="dave") == 0
    assert cached(box, "2 " + LONG, user="dave", cache_salt=cache_salt("acme")) == 0


def test_a_client_is_kept_apart_within_its_tenant_by_a_salt_of_its_own(box: Box) -> None:
    cached(box, "3 " + LONG, cache_salt="mine")

    assert cached(box, "3 " + LONG, cache_salt="mine") > 0
    assert cached(box, "3 " + LONG) == 0
    assert cached(box, "3 " + LONG, cache_salt="other") == 0


def test_a_bad_salt_is_refused_by_name(box: Box) -> None:
    answer = box.chat(cache_salt="")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "cache_salt"


def test_a_model_is_read_by_its_escaped_name(upstream: Upstream, tmp_path: Path) -> None:
    """As the SDKs send it. Nothing is decoded twice, and no other path is decoded at all."""
    text = policy(upstream.url).replace("  tiny:\n", "  org/tiny:\n    served_as: tiny\n")
    text = text.replace("base: tiny", "base: org/tiny").replace("[tiny,", "[org/tiny,")
    with (
        running_box(tmp_path, text) as box,
        openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"], max_retries=0) as client,
        httpx.Client(base_url=box.url, headers=box.headers()) as raw,
    ):
        assert client.models.retrieve("org/tiny").id == "org/tiny"
        statuses = {path: raw.get(path).status_code for path in ESCAPED}

    assert statuses == ESCAPED


ESCAPED = {
    "/v1/models/org%2Ftiny": 200,
    "/v1/models/org%2ftiny": 200,
    "/v1/models/org/tiny": 200,
    "/v1/models/org%252Ftiny": 404,
    "/v1/models/org%5Ctiny": 404,
    "/v1/models/..%2F..%2Fmetrics": 404,
    "/v1/models/%2e%2e/models": 200,
    "/v1%2Fmodels": 404,
    "/v1/models%2Forg": 404,
    "/v1/models%2F": 404,
    "/v1/models/": 200,
}


def test_head_and_health_have_no_body(box: Box) -> None:
    with httpx.Client(base_url=box.url) as client:
        listed = client.head("/v1/models", headers=box.headers())
        health = client.get("/health")

    assert (listed.status_code, listed.content) == (200, b"")
    assert (health.status_code, health.content) == (200, b"")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"stream": True}, 200),
        ({"max_tokens": -1}, 400),
        ({"model": "nobody"}, 404),
    ],
)
def test_a_page_may_read_each_answer(box: Box, changes: dict[str, Any], status: int) -> None:
    answer = box.post("/v1/chat/completions", {**small_chat(), **changes}, headers=PAGE)
    other = box.post(
        "/v1/chat/completions", small_chat(), headers={"origin": "https://evil.example.org"}
    )

    assert answer.status_code == status
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE["origin"]]
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert "origin" in answer.headers["vary"].lower().split(",")  # vLLM may vary by it, too
    assert "access-control-allow-origin" not in other.headers


def test_a_page_may_read_a_refusal_of_its_key_and_envoys_own_errors(box: Box) -> None:
    with httpx.Client(base_url=box.url, headers=PAGE) as client:
        unknown = client.get("/v1/models")
        large = client.post(
            "/v1/chat/completions", content=b" " * (BODY_LIMIT_BYTES + 1), headers=box.headers()
        )

    assert [unknown.status_code, large.status_code] == [401, 413]
    assert unknown.headers["access-control-allow-origin"] == PAGE["origin"]
    assert large.headers["access-control-allow-origin"] == PAGE["origin"]


def test_a_preflight_is_answered_at_the_door(box: Box) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    with httpx.Client(base_url=box.url, headers=asked) as client:
        allowed = client.options("/v1/chat/completions", headers=PAGE)
        refused = client.options("/v1/chat/completions", headers={"origin": "null"})

    assert (allowed.status_code, allowed.content) == (204, b"")
    assert allowed.headers["access-control-allow-origin"] == PAGE["origin"]
    assert allowed.headers["access-control-allow-headers"] == "authorization"
    assert refused.status_code == 403
    assert json.loads(refused.content)["error"]["code"] == "origin_not_allowed"
