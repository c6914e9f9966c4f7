"""Scores, batches of chats and counted tokens, as vLLM answers them."""

from typing import Any

import httpx
import pytest

from tests.simulator.requests_and_events import MESSAGES

TURN = [{"role": "user", "content": "How much is one token?"}]
BATCH = "/v1/chat/completions/batch"


async def answered(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(path, json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_each_pair_has_its_score_and_counts(client: httpx.AsyncClient) -> None:
    single = await answered(client, "/v1/score", text_1="a b", text_2="c")
    many = await answered(client, "/v1/score", queries="a b", documents=["c", "c", "d"])

    assert [entry["index"] for entry in many["data"]] == [0, 1, 2]
    assert many["data"][0]["score"] == single["data"][0]["score"]
    assert many["usage"]["prompt_tokens"] > single["usage"]["prompt_tokens"] > 0
    assert many["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_documents_come_in_the_order_of_their_scores(
    client: httpx.AsyncClient, path: str
) -> None:
    """Its usage names no completion."""
    documents = ["c", "d", "e"]
    answer = await answered(client, path, query="a", documents=documents, top_n=2)

    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 2
    assert set(answer["usage"]) == {"prompt_tokens", "total_tokens"}


async def test_a_batch_has_a_choice_for_each_conversation(client: httpx.AsyncClient) -> None:
    single = await answered(client, BATCH, messages=[TURN], max_tokens=3)
    two = await answered(client, BATCH, messages=[TURN, TURN], max_tokens=3, stream=True)

    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    for kind in ("prompt_tokens", "completion_tokens"):
        assert two["usage"][kind] == 2 * single["usage"][kind]


async def test_counted_tokens_are_those_of_the_usage(client: httpx.AsyncClient) -> None:
    counted = await answered(client, f"{MESSAGES}/count_tokens", messages=TURN)
    used = await answered(client, MESSAGES, messages=TURN, max_tokens=1)

    assert counted == {"input_tokens": used["usage"]["input_tokens"]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}),
        ("/v1/score", {"text_1": "a"}),
        ("/v1/rerank", {"query": "a", "documents": []}),
        (BATCH, {"messages": TURN}),
        (BATCH, {"messages": [[]]}),
        (BATCH, {"messages": [TURN], "n": 2}),
    ],
)
async def test_what_vllm_refuses_is_refused(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await client.post(path, json={"model": "tiny", **body})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
