"""The queue of a busy vLLM in three orders: by arrival, by bare priorities of tiers, by fair tags.

Tenants ask the simulator directly, with the priorities that Headgate would set.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

import httpx

from bench.table import Table
from headgate.simulator.server import running
from headgate.simulator.settings import Settings
from ratelimit.fair.tags import FairDemand, Finishes, Rates, VirtualTimes

RUN_S = 20.0
SLOTS = 8
OPEN = {"flood": 60, "steady": 16, "light": 1}
"""How many requests each tenant keeps open."""
ASKED = {"flood": 60, "steady": 20, "light": 5}
"""The `max_tokens` of its requests, which the estimate holds."""
USED = {"flood": 20, "steady": 20, "light": 5}
TIERS = {"flood": 5, "steady": 10, "light": 0}
PAUSE_S = {"flood": 0.0, "steady": 0.0, "light": 1.0}
PROMPT_TOKENS = 10
MODEL = "tiny"
BUSY = ("flood", "steady")
"""Those that always have requests waiting: between them Jain's index compares the tokens."""


@dataclass
class _Tags:
    """The tags of one limiter."""

    finishes: Finishes = field(default_factory=Finishes)
    times: VirtualTimes = field(default_factory=lambda: VirtualTimes(monotonic))

    def demand(self, tenant: str) -> FairDemand:
        rates = Rates.of_weight(1)
        work = rates.work(PROMPT_TOKENS, ASKED[tenant])
        time = self.times.of(MODEL, 20)
        return FairDemand(queue=MODEL, work=work, rates=rates, virtual_time=time)


@dataclass
class _Seen:
    """The tokens of one tenant, and how long each of its requests took, its wait included."""

    answered: asyncio.Event
    tokens: int = 0
    waits_s: list[float] = field(default_factory=list)


async def measure(run_s: float = RUN_S) -> Sequence[Table]:
    """One row for each order of the queue."""
    rows = []
    for order in ("by arrival", "tiers", "fair tags"):
        seen = await _run(order, run_s)
        busy = [seen[tenant].tokens for tenant in BUSY]
        total = sum(each.tokens for each in seen.values())
        rows.append(
            (
                order,
                f"{_jain(busy):.3f}",
                " / ".join(f"{seen[tenant].tokens / total:.0%}" for tenant in OPEN),
                " / ".join(f"{max(seen[tenant].waits_s):.1f} s" for tenant in OPEN),
                f"{total / run_s:.0f}",
            )
        )
    columns = ("order", "Jain", "shares of tokens", "longest answers", "tokens/s")
    return [Table("Fairness: flood / steady / light", columns, tuple(rows))]


async def _run(order: str, run_s: float) -> dict[str, _Seen]:
    policy: Literal["fcfs", "priority"] = "fcfs" if order == "by arrival" else "priority"
    settings = Settings(
        max_num_seqs=SLOTS, ttft_s=0.02, token_interval_s=0.01, scheduling_policy=policy
    )
    answered, tags = asyncio.Event(), _Tags()
    seen = {tenant: _Seen(answered if tenant in BUSY else asyncio.Event()) for tenant in OPEN}
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url, timeout=run_s + 60, limits=httpx.Limits()) as client,
    ):
        asking = [
            asyncio.create_task(_keep_asking(client, tenant, order, tags, seen[tenant]))
            for tenant, open_requests in OPEN.items()
            for _ in range(open_requests)
        ]
        await asyncio.sleep(run_s)
        await answered.wait()  # on a busy machine nobody may have an answer before
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return seen


async def _keep_asking(
    client: httpx.AsyncClient, tenant: str, order: str, tags: _Tags, seen: _Seen
) -> None:
    prompt = "a " * PROMPT_TOKENS
    body = {"model": MODEL, "prompt": prompt, "max_tokens": USED[tenant]}
    began_s = monotonic()
    try:
        while True:
            demand = tags.demand(tenant)
            start = tags.finishes.take(tenant, demand)
            priority = TIERS[tenant] if order == "tiers" else start.tag
            headers = {"x-vllm-priority": str(priority)}
            began_s = monotonic()
            answer = await client.post("/v1/completions", json=body, headers=headers)
            answer.raise_for_status()
            tags.finishes.correct(tenant, demand, PROMPT_TOKENS, USED[tenant])
            tags.times.started(start)
            seen.tokens += USED[tenant]
            seen.answered.set()
            seen.waits_s.append(monotonic() - began_s)
            await asyncio.sleep(PAUSE_S[tenant])
    finally:  # one that still waits has waited as long as this
        seen.waits_s.append(monotonic() - began_s)


def _jain(values: Sequence[int]) -> float:
    """Jain's index: 1 if all are equal, 1/n if one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))
