"""Many requests at once through the gateway, and which pods they came to."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from tests.box import KEYS, small_chat
from tests.mesh.cluster import Mesh

AT_ONCE = 32


def send(mesh: Mesh, bodies: Iterable[Mapping[str, Any]], **headers: str) -> Counter[int]:
    """Sends these chats, some at once; how often each status came (0: none)."""
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


def served(mesh: Mesh) -> Counter[str]:
    """How many requests each vLLM pod has answered, as its own metrics say."""
    return Counter({pod.name: _count(pod.ip) for pod in mesh.pods_named("llama-8b") if pod.ready})


def by_version(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """How many requests each version has answered in between."""
    versions: Counter[str] = Counter()
    for name, count in after.items():
        versions[name.split("-")[2]] += count - before[name]
    return dict(versions)


def _count(ip: str) -> int:
    lines = httpx.get(f"http://{ip}:8000/metrics").text.splitlines()
    name = "vllm:request_success_total{"
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))
