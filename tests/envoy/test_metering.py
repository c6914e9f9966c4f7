"""Every request is metered once, and the sum is what the upstream itself counted."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.contract import Counting
from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import LIMITS, Upstream
from tests.patience import wait_until

MESSAGES = [{"role": "user", "content": "Count these tokens, please, all of them."}]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 11}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 11, "stream": True}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 5, "stream": True, "n": 3}),
    (
        "/v1/chat/completions",
        {
            "messages": MESSAGES,
            "max_tokens": 6,
            "stream": True,
            "stream_options": {"include_usage": False},
        },
    ),
    ("/v1/completions", {"prompt": ["a b c", "d e"], "max_tokens": 7, "n": 2}),
    ("/v1/completions", {"prompt": ["a b c", "d e"], "max_tokens": 7, "n": 2, "stream": True}),
    ("/v1/responses", {"input": "Hello", "max_output_tokens": 9}),
    ("/v1/responses", {"input": "Hello", "max_output_tokens": 9, "stream": True}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 8}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 8, "stream": True}),
]


@pytest.mark.parametrize(
    ("forces_usage", "counting"),
    [(False, Counting.PROXY), (True, Counting.PROXY), (False, Counting.EXTPROC)],
)
def test_the_records_sum_to_what_the_upstream_counted(
    upstream: Upstream, tmp_path: Path, forces_usage: bool, counting: Counting
) -> None:
    """With `forces_usage` no body is rewritten, so that the client asks for usage in each stream.

    The upstream of this test may be a vLLM that does not always send it.
    """
    text = policy(upstream.url, forces_usage=forces_usage, limits=LIMITS)
    with running_box(tmp_path, text, "--counting", counting) as box:
        before = upstream.counters()
        for path, fields in REQUESTS:
            body = {"model": "tiny", **fields}
            if forces_usage and "stream" in body and path.endswith("completions"):
                body["stream_options"] = {"include_usage": True}
            answer = box.post(path, body)
            assert answer.status_code == 200, answer.text
        records = box.wait_records(len(REQUESTS))
        after = upstream.counters()

    assert len(records) == len(REQUESTS)
    assert {record["source"] for record in records} == {"usage"}
    # vLLM's counter has the prompt once for each choice, its usage has it once.
    prompts = sum(record["prompt_tokens"] * record["choices"] for record in records)
    assert prompts == after["prompt"] - before["prompt"]
    assert (
        sum(record["completion_tokens"] for record in records)
        == after["generation"] - before["generation"]
    )


async def test_an_aborted_stream_is_charged_for_what_came(counted_box: Box) -> None:
    """The client goes away in mid-stream; the running usage of the last event counts."""
    box = counted_box
    body = {**small_chat(), "stream": True, "max_tokens": 2000}
    seen = 0
    async with (
        httpx.AsyncClient() as client,
        client.stream(
            "POST", f"{box.url}/v1/chat/completions", json=body, headers=box.headers()
        ) as answer,
    ):
        request_id = answer.headers["x-request-id"]
        async for line in answer.aiter_lines():
            seen += line.startswith("data: ")
            if seen == 20:
                break

    record = await asyncio.to_thread(box.record_of, request_id)
    assert 15 <= record["completion_tokens"] < 2000
    assert record["prompt_tokens"] > 0
    assert "DC" in record["flags"] or "DR" in record["flags"]


def test_a_record_says_who_what_when_and_how_large(box: Box) -> None:
    answer = box.chat(max_tokens=4)
    record = box.record_of(answer.headers["x-request-id"])

    assert record["ip"] == "127.0.0.1"
    assert (record["tenant"], record["user"], record["key"]) == ("acme", "alice", "alice-key")
    assert (record["method"], record["path"]) == ("POST", "/v1/chat/completions")
    assert (record["status"], record["upstream_status"]) == (200, 200)
    assert record["request_bytes"] == int(answer.request.headers["content-length"])
    assert record["response_bytes"] == len(answer.content)
    assert record["estimated_tokens"] >= record["prompt_tokens"] + record["completion_tokens"]
    assert record["duration_s"] > 0
    assert record["time"].endswith("Z")


def test_what_was_held_is_corrected_to_what_was_used(upstream: Upstream, tmp_path: Path) -> None:
    limits = "[{count: tokens, limit: 100000, per: year}]"
    with running_box(tmp_path, policy(upstream.url, limits=limits)) as box:
        answers, records = [], []
        for max_tokens in (100, 4):
            answers.append(box.chat(max_tokens=max_tokens))
            records.append(box.record_of(answers[-1].headers["x-request-id"]))

    first, second = records
    left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
    used = first["prompt_tokens"] + first["completion_tokens"]
    assert first["estimated_tokens"] >= used
    assert left == [
        100_000 - first["estimated_tokens"],
        100_000 - used - second["estimated_tokens"],
    ]


def test_no_key_is_ever_written_down(box: Box) -> None:
    """Neither records nor logs nor metrics hold a key or a prompt."""
    box.chat(messages=[{"role": "user", "content": "a secret prompt"}])
    box.wait_records(1)
    wait_until(lambda: "headgate_requests_total" in box.metrics(), "metrics")

    logs = "".join(
        path.read_text(errors="replace")
        for path in box.folder.rglob("*")
        if path.is_file() and path.name != "headgate.yaml"
    )
    for text in (logs, box.metrics()):
        assert "sk-test-alice" not in text
        assert "a secret prompt" not in text


def test_the_first_token_of_a_whole_answer_is_timed_as_vllm_tells_it(counted_box: Box) -> None:
    answer = counted_box.chat()
    record = counted_box.record_of(answer.headers["x-request-id"])

    told_ms = answer.json()["metrics"]
    inside_s = (told_ms["queue_time_ms"] + told_ms["time_to_first_token_ms"]) / 1000
    assert record["stream"] is False
    assert record["ttft_s"] == pytest.approx(record["to_upstream_s"] + inside_s, abs=0.001)
    assert record["ttft_s"] < record["duration_s"]
