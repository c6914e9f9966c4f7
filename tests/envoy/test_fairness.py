"""A tenant that floods vLLM does not hold another one back: on both paths, on the real Envoy."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import KEYS, Box, policy, running_box, small_chat
from tests.envoy.conftest import started_simulator
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
