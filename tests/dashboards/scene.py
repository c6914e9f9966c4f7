"""A box with two versions of a model and a canary, and traffic of every kind on it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.box import KEYS, Box, digest, running_box
from tests.dashboards.prometheus import Target
from tests.postgres_server import temporary_folder
from tests.redis_server import running_redis
from tests.simulator_process import simulator_process

POLICY = """
models:
  tiny:
    upstream: {v1}
    context_tokens: 8192
    prices: {{input: 0.20, cached_input: 0.05, output: 0.60}}
    versions:
      v1: {{weight: 60, pods: ["{v1_pod}"]}}
      v2: {{weight: 40, upstream: "{v2}", pods: ["{v2_pod}"]}}
tenants:
  acme:
    models: [tiny]
    keys: [{{id: alice-key, user: alice, sha256: "{alice}"}}]
    limits:
      - {{count: tokens, limit: 10000000, per: day}}
      - {{count: requests, limit: 5, per: minute, shadow: true}}
  globex:
    models: [tiny]
    keys: [{{id: carol-key, user: carol, sha256: "{carol}"}}]
    limits: [{{count: requests, limit: 3, per: minute}}]
"""
_BATCH = ("--max-num-seqs", "2", "--prefill-tokens-per-s", "2000", "--slowdown-s", "0.001")
_KINDS: tuple[dict[str, Any], ...] = (
    {"stream": True},
    {"stream": True},
    {"stream": False},
    {"stream": True, "headers": {"x-simulate": "cut_after=3"}},
    {"stream": False, "headers": {"x-simulate": "status=503"}},
    {"stream": False, "headers": {"authorization": "Bearer sk-wrong-0123456789abcdef"}},
    {"stream": False, "user": "carol"},
)


@asynccontextmanager
async def playing(folder: Path) -> AsyncIterator[list[Target]]:
    """Runs the box with traffic; yields what to scrape."""
    async with (
        simulator_process("--prompt-tokens-details", *_BATCH) as v1,
        simulator_process("--prompt-tokens-details", *_BATCH) as v2,
    ):
        secrets = {name: digest(KEYS[name]) for name in ("alice", "carol")}
        pods = {"v1_pod": v1.url.partition("//")[2], "v2_pod": v2.url.partition("//")[2]}
        policy = POLICY.format(v1=v1.url, v2=v2.url, **pods, **secrets)
        with (
            running_redis() as redis,
            temporary_folder() as data,
            running_box(
                folder, policy, "--store", redis.url, "--database-dir", str(data / "database")
            ) as box,
        ):
            traffic = asyncio.create_task(_traffic(box))
            yield [
                Target("headgate", box.admin_url, {}),
                Target("vllm", v1.url, {"version": "v1"}),
                Target("vllm", v2.url, {"version": "v2"}),
            ]
            traffic.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await traffic


async def _traffic(box: Box) -> None:
    async with httpx.AsyncClient(base_url=box.url, timeout=60) as client:
        waiting: set[asyncio.Task[None]] = set()
        for number in range(100_000):
            kind = _KINDS[number % len(_KINDS)]
            waiting.add(asyncio.create_task(_request(client, kind, number)))
            if len(waiting) > 10:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


async def _request(client: httpx.AsyncClient, kind: dict[str, Any], number: int) -> None:
    secret = KEYS[kind.get("user", "alice")]
    headers = {"authorization": f"Bearer {secret}", **kind.get("headers", {})}
    body = {
        "model": "tiny",
        "max_tokens": 12,
        "stream": kind["stream"],
        "prompt_cache_key": f"conversation {number % 50}",
        "messages": [{"role": "user", "content": "Tell me more of this. " * 40}],
    }
    with contextlib.suppress(httpx.HTTPError):
        await client.post("/v1/chat/completions", json=body, headers=headers)
