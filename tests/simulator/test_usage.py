"""When a stream carries usage, and what the numbers are."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from headgate.simulator.server import running
from headgate.simulator.settings import Settings
from tests.simulator.requests_and_events import (
    CHAT,
    COMPLETIONS,
    GENERATING,
    MESSAGES,
    RESPONSES,
    asking,
    streamed,
)

USAGE_SWITCHES: list[tuple[dict[str, Any] | None, bool, bool, bool]] = [
    # stream_options, forced by the server, usage in the last chunk, usage in every chunk
    (None, False, False, False),
    ({}, False, False, False),
    ({"include_usage": False}, False, False, False),
    ({"continuous_usage_stats": True}, False, False, False),
    ({"include_usage": False, "continuous_usage_stats": True}, False, False, False),
    ({"include_usage": True}, False, True, False),
    ({"include_usage": "true", "continuous_usage_stats": 0}, False, True, False),
    ({"include_usage": True, "continuous_usage_stats": True}, False, True, True),
    (None, True, True, True),
    ({"include_usage": False}, True, True, True),
]


@pytest.fixture
async def forced() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with --enable-force-include-usage and prompt details."""
    settings = Settings(ttft_s=0, token_interval_s=0, force_usage=True, prompt_tokens_details=True)
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        yield http


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(("options", "force", "final", "continuous"), USAGE_SWITCHES)
async def test_a_stream_has_usage_only_where_it_is_asked_for_or_forced(
    client: httpx.AsyncClient,
    forced: httpx.AsyncClient,
    path: str,
    options: dict[str, Any] | None,
    force: bool,
    final: bool,
    continuous: bool,
) -> None:
    more = {} if options is None else {"stream_options": options}
    events = await streamed(forced if force else client, path, **more)

    assert events[-1] == ("", "[DONE]")
    chunks = [data for _, data in events[:-1]]
    usage_chunks = [chunk for chunk in chunks if not chunk["choices"]]
    assert len(usage_chunks) == final
    assert chunks[-1:] == usage_chunks or not final
    token_chunks = [chunk for chunk in chunks if chunk["choices"]]
    assert {"usage" in chunk for chunk in token_chunks} == {continuous}
    if final:
        assert chunks[-1]["usage"]["completion_tokens"] == 5
        assert list(chunks[-1])[-3:] == ["choices", "usage", "system_fingerprint"]


async def test_running_usage_starts_at_0_with_the_role_and_counts_one_choice(
    client: httpx.AsyncClient,
) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await streamed(client, CHAT, max_tokens=3, n=2, stream_options=options)

    chunks = [data for _, data in events[:-1]]
    running_counts: dict[int, list[int]] = {0: [], 1: []}
    for chunk in chunks[:-1]:
        counts = running_counts[chunk["choices"][0]["index"]]
        counts.append(chunk["usage"]["completion_tokens"])
        assert chunk["usage"]["prompt_tokens"] == chunks[-1]["usage"]["prompt_tokens"]
    assert running_counts == {0: [0, 1, 2, 3], 1: [0, 1, 2, 3]}
    assert chunks[-1]["usage"]["completion_tokens"] == 6


async def test_running_usage_of_several_prompts_is_each_prompts_own(
    client: httpx.AsyncClient,
) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    prompts = ["four", "eight...", "twelve bytes"]
    events = await streamed(
        client, COMPLETIONS, prompt=prompts, n=2, max_tokens=2, stream_options=options
    )

    chunks = [data for _, data in events[:-1]]
    by_choice = {c["choices"][0]["index"]: c["usage"]["prompt_tokens"] for c in chunks[:-1]}
    assert by_choice == {0: 1, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3}
    assert chunks[-1]["usage"] == {"prompt_tokens": 6, "total_tokens": 18, "completion_tokens": 12}


@pytest.mark.parametrize(
    ("prompt", "prompt_tokens", "choices"),
    [
        ("twelve bytes", 3, 1),
        (["four", "eight..."], 3, 2),
        ([1, 2, 3, 4, 5], 5, 1),
        ([[1, 2], [3, 4, 5]], 5, 2),
    ],
)
async def test_a_prompt_counts_once_and_completions_add_up(
    client: httpx.AsyncClient, prompt: object, prompt_tokens: int, choices: int
) -> None:
    body = asking(COMPLETIONS, max_tokens=2, prompt=prompt, n=2)
    answer = (await client.post(COMPLETIONS, json=body)).json()

    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * choices))
    assert answer["usage"]["prompt_tokens"] == prompt_tokens
    assert answer["usage"]["completion_tokens"] == 4 * choices
    assert answer["usage"]["total_tokens"] == prompt_tokens + 4 * choices


async def test_echo_alone_still_counts_one_token(client: httpx.AsyncClient) -> None:
    body = asking(COMPLETIONS, max_tokens=0, prompt="just this", echo=True)
    answer = (await client.post(COMPLETIONS, json=body)).json()

    assert answer["choices"][0]["text"] == "just this"
    assert answer["usage"]["completion_tokens"] == 1


async def test_max_completion_tokens_wins_over_max_tokens(client: httpx.AsyncClient) -> None:
    body = asking(CHAT, max_tokens=9, max_completion_tokens=2)
    answer = (await client.post(CHAT, json=body)).json()

    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "missing", "tokens", "reason"),
    [(COMPLETIONS, "max_tokens", 16, "length"), (CHAT, "max_tokens", 64, "stop")],
)
async def test_without_a_maximum_the_default_holds(
    client: httpx.AsyncClient, path: str, missing: str, tokens: int, reason: str
) -> None:
    answer = (await client.post(path, json=asking(path) | {missing: None})).json()

    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == reason


async def test_prompt_and_maximum_beyond_the_context_are_clamped_in_silence(
    client: httpx.AsyncClient,
) -> None:
    body = asking(COMPLETIONS, max_tokens=8192, prompt=[7] * 8190)
    answer = (await client.post(COMPLETIONS, json=body)).json()

    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_details_come_only_with_their_option(
    client: httpx.AsyncClient, forced: httpx.AsyncClient
) -> None:
    plain = (await client.post(CHAT, json=asking(CHAT))).json()["usage"]
    detailed = (await forced.post(CHAT, json=asking(CHAT))).json()["usage"]
    last = (await streamed(forced, CHAT))[-2][1]["usage"]

    assert plain["prompt_tokens_details"] is None
    assert list(detailed["prompt_tokens_details"]) == [
        "cached_tokens",
        "created_cache_tokens",
        "multimodal_tokens",
    ]
    assert list(last["prompt_tokens_details"]) == ["cached_tokens", "created_cache_tokens"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
async def test_a_whole_answer_tells_its_times_only_with_their_option(
    client: httpx.AsyncClient, path: str
) -> None:
    settings = Settings(ttft_s=0.02, token_interval_s=0, per_request_metrics=True)
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as telling,
    ):
        told = (await telling.post(path, json=asking(path))).json()["metrics"]
    plain = (await client.post(path, json=asking(path))).json()

    assert told["time_to_first_token_ms"] >= 19
    assert told["queue_time_ms"] >= 0
    assert plain.get("metrics") is None


async def test_a_repeated_prompt_is_cached_for_the_same_model_and_salt(
    forced: httpx.AsyncClient,
) -> None:
    async def cached(**more: Any) -> int:
        body = asking(COMPLETIONS, prompt=[3] * 100, **more)
        usage = (await forced.post(COMPLETIONS, json=body)).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert [await cached(), await cached()] == [0, 96]
    assert [await cached(cache_salt="a"), await cached(cache_salt="a")] == [0, 96]
    loaded = {"lora_name": "other", "lora_path": "/adapters/other"}
    assert (await forced.post("/v1/load_lora_adapter", json=loaded)).status_code == 200
    assert [await cached(model="other"), await cached(model="other")] == [0, 96]


async def test_messages_split_the_prompt_into_new_and_cached(forced: httpx.AsyncClient) -> None:
    body = asking(MESSAGES, system="x" * 400)
    first = (await forced.post(MESSAGES, json=body)).json()["usage"]
    events = await streamed(forced, MESSAGES, system="x" * 400)

    assert first["cache_read_input_tokens"] == 0
    start = events[0][1]["message"]["usage"]
    assert start == {"input_tokens": first["input_tokens"], "output_tokens": 0}
    final = events[-2][1]["usage"]
    assert final["cache_read_input_tokens"] == 112
    assert final["input_tokens"] + 112 == first["input_tokens"]
    assert final["output_tokens"] == 5


async def test_messages_have_no_cache_fields_without_details(client: httpx.AsyncClient) -> None:
    answer = (await client.post(MESSAGES, json=asking(MESSAGES))).json()

    assert list(answer["usage"]) == ["input_tokens", "output_tokens"]


async def test_responses_always_tell_cached_tokens(client: httpx.AsyncClient) -> None:
    body = asking(RESPONSES, instructions="seen twice " * 50)
    await client.post(RESPONSES, json=body)
    usage = (await client.post(RESPONSES, json=body)).json()["usage"]

    assert usage["input_tokens_details"]["cached_tokens"] % 16 == 0
    assert usage["input_tokens_details"]["cached_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_tokenize_counts_what_usage_counts(client: httpx.AsyncClient) -> None:
    answer = (await client.post(CHAT, json=asking(CHAT))).json()
    counted = (await client.post("/tokenize", json=asking(CHAT))).json()

    assert counted["count"] == len(counted["tokens"]) == answer["usage"]["prompt_tokens"]
    assert counted["max_model_len"] == 8192


@pytest.mark.parametrize("path", GENERATING)
async def test_the_same_request_gets_the_same_words(client: httpx.AsyncClient, path: str) -> None:
    def words(answer: dict[str, Any]) -> str:
        members = ("choices", "output", "content")
        shown = next(answer[name] for name in members if answer.get(name))
        return str([{**item, "id": ""} for item in shown])

    first = (await client.post(path, json=asking(path))).json()
    second = (await client.post(path, json=asking(path))).json()

    assert words(first) == words(second)
