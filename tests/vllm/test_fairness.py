"""A tenant that floods the real vLLM gets its part of it, and others wait less than the flood.

For a vLLM with `--scheduling-policy priority --max-num-seqs 4 --stream-interval 20`. With an event
for each token of so small a model, its HTTP server is slow, and requests wait in front of it.
"""

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import KEYS, Box, policy, running_box, small_chat
from tests.patience import PATIENCE_S

URL = os.environ.get("HEADGATE_TEST_UPSTREAM", "")
FLOOD, OTHERS = 40, 8
"""Open requests of each tenant: by arrival the flood would get 83 percent of the tokens."""
OUTPUT_TOKENS = 200
"""Long enough for vLLM to be the slow part, and not its HTTP server."""
ANSWERS = 30
"""As many answers of the other tenant are awaited."""
LIMITS = "[{count: tokens, limit: 10000000, per: year}]"

pytestmark = pytest.mark.skipif(not URL, reason="only for a real vLLM")


@dataclass
class Client:
    """A tenant's open requests: each answer is followed by the next request at once."""

    http: httpx.AsyncClient
    user: str
    waits_s: list[float] = field(default_factory=list)
    tokens: int = 0
    answered: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def answers(self, count: int) -> None:
        """Waits for more whole answers."""
        for _ in range(count):
            await self.answered.get()

    async def keep_asking(self) -> None:
        more = {"max_tokens": OUTPUT_TOKENS, "ignore_eos": True, "stream": True}
        body = {**small_chat(), **more, "stream_options": {"include_usage": True}}
        headers = {"authorization": f"Bearer {KEYS[self.user]}"}
        while True:
            began_s = time.monotonic()
            post = self.http.stream("POST", "/v1/chat/completions", json=body, headers=headers)
            async with post as answer:
                assert answer.status_code == 200, await answer.aread()
                lines = answer.aiter_lines()
                await anext(lines)
                self.waits_s.append(time.monotonic() - began_s)
                async for _ in lines:
                    pass
            self.tokens += OUTPUT_TOKENS
            self.answered.put_nowait(None)


async def until(event: Coroutine[None, None, None], asking: list[asyncio.Task[None]]) -> None:
    """Waits for an event while the tenants go on asking."""
    waiting = asyncio.create_task(event)
    await asyncio.wait([waiting, *asking], return_when=asyncio.FIRST_COMPLETED)
    assert waiting.done(), "a request failed"


@dataclass(frozen=True)
class Outcome:
    """The flood's share of the tokens, the median waits of both, and the longest queue in vLLM."""

    share: float
    flood_waits_s: float
    other_waits_s: float
    queued: int

    def __str__(self) -> str:
        waits = f"{self.flood_waits_s:.1f} and {self.other_waits_s:.1f} s"
        return f"flood: {self.share:.0%} of the tokens; median waits {waits}; {self.queued} queued"


async def flooded(box: Box) -> Outcome:
    """The tenants' parts while the flood asks for more than vLLM can do."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=box.url, timeout=PATIENCE_S, limits=limits) as http:
        flood, other = Client(http, "alice"), Client(http, "carol")
        asking = [asyncio.create_task(flood.keep_asking()) for _ in range(FLOOD)]
        await until(flood.answers(FLOOD // 2), asking)
        before_tokens, before = flood.tokens, len(flood.waits_s)
        asking += [asyncio.create_task(other.keep_asking()) for _ in range(OTHERS)]
        await until(other.answers(ANSWERS), asking)
        served = flood.tokens - before_tokens
        outcome = Outcome(
            share=served / (served + other.tokens),
            flood_waits_s=median(flood.waits_s[before:]),
            other_waits_s=median(other.waits_s),
            queued=await queued(),
        )
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return outcome


async def queued() -> int:
    """The requests that wait in vLLM's scheduler, and not in front of it."""
    async with httpx.AsyncClient() as http:
        lines = (await http.get(f"{URL}/metrics")).text.splitlines()
    waiting = next(line for line in lines if line.startswith("vllm:num_requests_waiting{"))
    return int(float(waiting.rpartition(" ")[2]))


@pytest.mark.parametrize("path", HookPath)
async def test_a_flood_gets_its_part_and_another_tenant_waits_less(
    path: HookPath, tmp_path: Path
) -> None:
    """By arrival, in the same place and at the same time, it gets nearly all."""
    text = policy(URL, limits=LIMITS).replace("models: [private]", "models: [tiny]")
    fair = text.replace("  acme:\n", "  acme:\n    fairness: {weight: 1}\n")
    outcomes = []
    for name, one in {"by arrival": text, "fair": fair}.items():
        (tmp_path / name).mkdir()
        with running_box(tmp_path / name, one, "--path", path) as box:
            outcomes.append(await flooded(box))
        print(f"{path}, {name}: {outcomes[-1]}")
    by_arrival, tagged = outcomes
    assert by_arrival.share > 0.75
    assert tagged.share < 0.7
    assert tagged.other_waits_s < tagged.flood_waits_s
