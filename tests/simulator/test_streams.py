"""The shape of answers and events: names, order, keys, end marks."""

from typing import Any

import httpx
import pytest
from openai.types import responses as openai_responses

from tests.simulator.requests_and_events import (
    CHAT,
    COMPLETIONS,
    GENERATING,
    MESSAGES,
    RESPONSES,
    asking,
    streamed,
)

EVENT_TYPES: dict[str, Any] = {
    "response.output_item.added": openai_responses.ResponseOutputItemAddedEvent,
    "response.content_part.added": openai_responses.ResponseContentPartAddedEvent,
    "response.output_text.delta": openai_responses.ResponseTextDeltaEvent,
    "response.output_text.done": openai_responses.ResponseTextDoneEvent,
    "response.content_part.done": openai_responses.ResponseContentPartDoneEvent,
    "response.output_item.done": openai_responses.ResponseOutputItemDoneEvent,
}


def _text_of(path: str, events: list[tuple[str, Any]]) -> str:
    if path == CHAT:
        return "".join(d["choices"][0]["delta"]["content"] for _, d in events[:-1])
    if path == COMPLETIONS:
        return "".join(d["choices"][0]["text"] for _, d in events[:-1])
    if path == RESPONSES:
        return "".join(d["delta"] for name, d in events if name == "response.output_text.delta")
    return "".join(d["delta"]["text"] for name, d in events if name == "content_block_delta")


def _whole_text(path: str, answer: dict[str, Any]) -> str:
    if path == CHAT:
        return str(answer["choices"][0]["message"]["content"])
    if path == COMPLETIONS:
        return str(answer["choices"][0]["text"])
    if path == RESPONSES:
        return str(answer["output"][0]["content"][0]["text"])
    return str(answer["content"][0]["text"])


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("max_tokens", [1, 2, 50])
async def test_a_stream_says_what_the_whole_answer_says(
    client: httpx.AsyncClient, path: str, max_tokens: int
) -> None:
    answer = (await client.post(path, json=asking(path, max_tokens))).json()
    events = await streamed(client, path, max_tokens=max_tokens)

    assert _text_of(path, events) == _whole_text(path, answer)


async def test_chat_chunks_have_the_keys_of_vllm(client: httpx.AsyncClient) -> None:
    role, token, end, done = (data for _, data in await streamed(client, CHAT, max_tokens=2))

    assert list(role)[:5] == ["id", "object", "created", "model", "choices"]
    assert role["object"] == "chat.completion.chunk"
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert list(token["choices"][0]) == ["index", "delta", "logprobs", "finish_reason", "token_ids"]
    assert token["choices"][0]["finish_reason"] is None
    assert end["choices"][0]["finish_reason"] == "length"
    assert end["system_fingerprint"].startswith("vllm-0.32.0-")
    assert done == "[DONE]"


async def test_completion_chunks_have_no_role(client: httpx.AsyncClient) -> None:
    token, end, done = (data for _, data in await streamed(client, COMPLETIONS, max_tokens=2))

    assert token["object"] == "text_completion"
    assert list(token["choices"][0])[:2] == ["index", "text"]
    assert end["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


async def test_a_model_that_stops_ends_with_an_empty_token(client: httpx.AsyncClient) -> None:
    headers = {"x-simulate": "output_tokens=3"}
    events = await streamed(client, CHAT, headers, max_tokens=9)

    pieces = [data["choices"][0]["delta"]["content"] for _, data in events[1:-1]]
    assert (len(pieces), pieces[-1]) == (3, "")
    assert events[-2][1]["choices"][0]["finish_reason"] == "stop"


async def test_responses_events_come_in_order_without_done(client: httpx.AsyncClient) -> None:
    events = await streamed(client, RESPONSES, max_tokens=2)

    assert [name for name, _ in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [data["type"] for _, data in events] == [name for name, _ in events]
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert events[0][1]["response"]["usage"] is None
    final = events[-1][1]["response"]
    assert (final["status"], final["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert final["usage"]["output_tokens"] == 2


async def test_responses_events_have_the_keys_of_their_types(client: httpx.AsyncClient) -> None:
    for name, data in await streamed(client, RESPONSES):
        if name in EVENT_TYPES:
            EVENT_TYPES[name].model_validate(data)
            fields = list(EVENT_TYPES[name].model_fields)
            assert list(data) == [field for field in fields if field in data]


async def test_responses_repeat_the_clients_json_before_the_usage(
    client: httpx.AsyncClient,
) -> None:
    trap = {"usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    tools = [{"type": "function", "name": "f", "parameters": trap}]
    text = {"format": {"type": "json_schema", "name": "s", "schema": trap}}
    asked: dict[str, Any] = {
        "tools": tools,
        "text": text,
        "metadata": {"usage": "{}"},
        "instructions": "usage",
    }

    final = (await streamed(client, RESPONSES, None, **asked))[-1][1]["response"]

    assert {name: final[name] for name in asked} == asked
    keys = list(final)
    assert all(keys.index(name) < keys.index("usage") for name in asked)
    assert final["usage"]["output_tokens"] == 5


async def test_messages_events_come_in_order_without_done(client: httpx.AsyncClient) -> None:
    events = await streamed(client, MESSAGES, max_tokens=2)

    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [data["type"] for _, data in events] == [name for name, _ in events]
    assert events[-2][1]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}


@pytest.mark.parametrize("path", GENERATING)
async def test_bodies_and_events_are_compact_utf8(client: httpx.AsyncClient, path: str) -> None:
    for stream in (False, True):
        answer = await client.post(path, json=asking(path, 64, stream=stream))

        assert b'": ' not in answer.content
        assert "世界" in answer.text


@pytest.mark.parametrize(("path", "prefix"), [(CHAT, "chatcmpl-"), (COMPLETIONS, "cmpl-")])
async def test_x_request_id_becomes_the_id(
    client: httpx.AsyncClient, path: str, prefix: str
) -> None:
    headers = {"x-request-id": 'my "id"'}
    answer = await client.post(path, json=asking(path), headers=headers)
    first = (await streamed(client, path, headers))[0][1]

    assert answer.json()["id"] == first["id"] == f'{prefix}my "id"'


async def test_responses_keep_their_own_id(client: httpx.AsyncClient) -> None:
    headers = {"x-request-id": "mine"}
    answer = await client.post(RESPONSES, json=asking(RESPONSES), headers=headers)

    assert answer.json()["id"].startswith("resp_")
    assert "mine" not in answer.json()["id"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
@pytest.mark.parametrize(
    "model", [{}, {"model": None}, {"model": ""}], ids=["absent", "null", "''"]
)
async def test_no_model_is_the_base_model(
    client: httpx.AsyncClient, path: str, model: dict[str, Any]
) -> None:
    body = {name: value for name, value in asking(path).items() if name != "model"} | model
    answer = await client.post(path, json=body)

    assert (answer.status_code, answer.json()["model"]) == (200, "tiny")


async def test_the_last_of_two_equal_keys_counts(client: httpx.AsyncClient) -> None:
    body = b'{"model":"x","prompt":"hi","max_tokens":900,"max_tokens":2,"model":"lora-a"}'
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = (await client.post(COMPLETIONS, content=body, headers=headers)).json()

    assert (answer["model"], answer["usage"]["completion_tokens"]) == ("lora-a", 2)


async def test_unknown_fields_are_ignored_lora_name_too(client: httpx.AsyncClient) -> None:
    body = asking(CHAT, lora_name="lora-a", best_of=3, anything={"a": 1})
    answer = await client.post(CHAT, json=body)

    assert (answer.status_code, answer.json()["model"]) == (200, "tiny")


@pytest.mark.parametrize("stream", ["true", 1, "yes", True])
async def test_flags_are_read_as_laxly_as_pydantic_does(
    client: httpx.AsyncClient, stream: object
) -> None:
    answer = await client.post(CHAT, json=asking(CHAT) | {"max_tokens": "2", "stream": stream})

    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.text.count('"content":') == 3


async def test_embeddings_answer_by_name_with_usage(client: httpx.AsyncClient) -> None:
    body = {"model": "lora-a", "input": ["four", "eight..."]}
    answer = (await client.post("/v1/embeddings", json=body)).json()

    assert (answer["object"], answer["model"]) == ("list", "lora-a")
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 0
