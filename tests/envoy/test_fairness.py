"""A tenant that floods vLLM does not hold another one back: on both paths, on the real Envoy."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import KEYS, Box, policy, running_box, small_chat
from tests.envoy.conftest import started_simulator
from tests.fake_upstream import Upstream, reply
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.simulator  # one that takes a request at a time
LIMITS = "[{count: tokens, limit: 100000, per: year}]"
FLOOD = 3


@dataclass(frozen=True)
class Busy:
    """A box in front of a vLLM with room for one request."""

    box: Box
    vllm: str

    def waiting(self) -> int:
        lines = httpx.get(f"{self.vllm}/metrics").text.splitlines()
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in lines
            if line.startswith(("vllm:num_requests_waiting{", "vllm:num_requests_running{"))
        )

    async def until(self, requests: int) -> None:
        await asyncio.to_thread(wait_until, lambda: self.waiting() == requests, "the queue")


@pytest.fixture(params=HookPath)
def busy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Busy]:
    arguments = ("--adapter", "lora-a", "--ttft-s", "0", "--token-interval-s", "0")
    priority = ("--max-num-seqs", "1", "--scheduling-policy", "priority")
    with started_simulator(*arguments, *priority) as vllm:
        text = policy(vllm, limits=LIMITS)
        text = text.replace("  acme:\n", "  acme:\n    fairness: {weight: 1}\n")
        with running_box(tmp_path, text, "--path", request.param) as box:
            yield Busy(box, vllm)


async def test_the_request_of_another_tenant_goes_before_a_flood(busy: Busy) -> None:
    """The flood claims the best priority for itself, in header and body.

    Each answer begins and never ends, so vLLM takes the next request only when its client leaves.
    """
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def ask(client: httpx.AsyncClient, name: str, user: str, model: str) -> None:
        body = {**small_chat(), "model": model, "priority": -1000, "stream": True}
        headers = {
            "authorization": f"Bearer {KEYS[user]}",
            "x-vllm-priority": "-1000",
            "x-simulate": "stall_after=0",
        }
        post = client.stream("POST", "/v1/chat/completions", json=body, headers=headers)
        async with post as answer:
            assert answer.status_code == 200
            begun.put_nowait(name)
            await asyncio.Event().wait()

    async with httpx.AsyncClient(base_url=busy.box.url, timeout=PATIENCE_S) as client:
        asking = []
        for number in range(1 + FLOOD):
            flood = ask(client, f"flood {number}", "alice", "tiny")
            asking.append(asyncio.create_task(flood))
            await busy.until(1 + number)
        asking.append(asyncio.create_task(ask(client, "other", "carol", "private")))
        await busy.until(2 + FLOOD)
        asking[0].cancel()

        assert [await begun.get(), await begun.get()] == ["flood 0", "other"]

        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    upstream.answer = reply(200, json.dumps({"usage": usage}).encode())
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.mark.parametrize("path", HookPath)
async def test_vllm_sees_the_start_of_each_request_and_nothing_that_its_client_claims(
    upstream: Upstream, tmp_path: Path, path: HookPath
) -> None:
    """A tenant's starts grow by its work."""
    chat = {"messages": small_chat()["messages"]}
    asked = [
        ("alice", "/v1/chat/completions", chat),
        ("bob", "/v1/chat/completions", chat),
        ("alice", "/v1/completions", {"prompt": "Hi"}),
        ("alice", "/v1/embeddings", {"input": "Hi"}),
    ]
    await asyncio.to_thread(_ask_all, tmp_path, upstream.url, path, asked)

    seen = [received for received in upstream.received if received.method == "POST"]
    assert not any(b"priority" in received.body for received in seen)
    first, second, completion, embedding = (
        received.headers.get("x-vllm-priority") for received in seen
    )
    assert 0 <= int(first or -1) < int(second or -1) < int(completion or -1)
    assert embedding is None


def _ask_all(
    folder: Path, upstream: str, path: HookPath, asked: list[tuple[str, str, dict[str, Any]]]
) -> None:
    """Sends these requests, each with a priority of its client's own."""
    text = policy(upstream, limits=LIMITS)
    text = text.replace("  acme:\n", "  acme:\n    fairness: {weight: 1}\n")
    with running_box(folder, text, "--path", path) as box:
        for user, api, body in asked:
            claimed = {"x-vllm-priority": "-1000"}
            full = {"model": "tiny", "priority": -1000, **body}
            answer = box.post(api, full, user, headers=claimed)
            assert answer.status_code == 200, answer.text
