"""Sends many requests at once through the gateway, and counts them by pod."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from tests.box import KEYS, small_chat
from tests.mesh.cluster import RunningMesh

AT_ONCE = 32


def send(mesh: RunningMesh, bodies: Iterable[Mapping[str, Any]], **headers: str) -> Counter[int]:
    """Sends these chats, up to `AT_ONCE` in parallel, and counts the statuses (0: no answer)."""
    return asyncio.run(_send(mesh.url, bodies, headers))


async def _send(
    url: str, bodies: Iterable[Mapping[str, Any]], headers: Mapping[str, str]
) -> Counter[int]:
    statuses: Counter[int] = Counter()
    waiting = iter(bodies)
    own = {"authorization": f"Bearer {KEYS['alice']}", **headers}

    async def work(client: httpx.AsyncClient) -> None:
        for body in waiting:
            whole = {**small_chat(), "model": "llama-8b", "max_tokens": 1, **body}
            try:
                answer = await client.post(f"{url}/v1/chat/completions", json=whole, headers=own)
                statuses[answer.status_code] += 1
            except httpx.HTTPError:
                statuses[0] += 1

    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits) as client:
        await asyncio.gather(*(work(client) for _ in range(AT_ONCE)))
    return statuses


def served(mesh: RunningMesh) -> Counter[str]:
    """The number of requests that each vLLM pod has answered, from its own metrics."""
    return Counter({pod.name: _count(pod.ip) for pod in mesh.pods_named("llama-8b") if pod.ready})


def by_version(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """The number of requests that each version answered between two counts."""
    versions: Counter[str] = Counter()
    for name, count in after.items():
        versions[name.split("-")[2]] += count - before[name]
    return dict(versions)


def _count(ip: str) -> int:
    lines = httpx.get(f"http://{ip}:8000/metrics").text.splitlines()
    name = "vllm:request_success_total{"
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))
