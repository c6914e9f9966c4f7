"""Asks each pod of a model what it does now, in vLLM's own words."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from headgate.core.samples import Samples, parse_samples
from headgate.doctor.reachable import reason, upstream_client

MAX_PODS = 64
"""The most addresses of one upstream that a page asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One address of an upstream. Without a `problem`, what vLLM reports of itself.

    `kv_percent` is the used part of its KV cache, `hit_percent` the part of prompt tokens that its
    prefix cache had since it started.
    """

    address: str
    problem: str = ""
    version: str = ""
    running: int | None = None
    waiting: int | None = None
    kv_percent: float | None = None
    hit_percent: float | None = None
    generated_tokens: int | None = None

    @property
    def state(self) -> str:
        """The shape of its state."""
        return "bad" if self.problem else "warn" if self.waiting else "ok"

    @property
    def words(self) -> str:
        """Its state in words."""
        return self.problem or ("requests wait" if self.waiting else "answers")


async def pods_at(urls: Sequence[str], authorities: Path | None) -> dict[str, list[Pod]]:
    """The pods behind each upstream. Raises OperatorError for bad authorities."""
    asked = list(dict.fromkeys(urls))
    async with upstream_client(asked, authorities) as client:
        found = await asyncio.gather(*(_pods(client, url) for url in asked))
    return dict(zip(asked, found, strict=True))


async def _pods(client: httpx.AsyncClient, url: str) -> list[Pod]:
    """Each address that the name of the upstream has now is a pod."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return [Pod(address=f"{host}:{port}", problem="its name has no address")]
    addresses = sorted({_address(entry[4][0], port) for entry in found})[:MAX_PODS]
    path = parts.path.rstrip("/")
    return await asyncio.gather(
        *(_pod(client, f"{parts.scheme}://{one}{path}", one, host) for one in addresses)
    )


def _address(ip: object, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}"


async def _pod(client: httpx.AsyncClient, url: str, address: str, host: str) -> Pod:
    headers, extensions = {"host": host}, {"sni_hostname": host}

    async def get(path: str) -> httpx.Response:
        return await client.get(f"{url}{path}", headers=headers, extensions=extensions)

    try:
        health, metrics = await asyncio.gather(get("/health"), get("/metrics"))
        version = await get("/version")
    except httpx.HTTPError as error:
        return Pod(address=address, problem=reason(error))
    if health.status_code != httpx.codes.OK:
        return Pod(address=address, problem=f"/health answers {health.status_code}")
    try:
        return _reported(address, parse_samples(metrics.text), str(version.json()["version"]))
    except (ValueError, LookupError, TypeError):
        return Pod(address=address, problem="its /metrics or /version is not that of a vLLM")


def _reported(address: str, samples: Samples, version: str) -> Pod:
    queries = samples.value("vllm:prefix_cache_queries_total")
    hits = samples.value("vllm:prefix_cache_hits_total") or 0.0
    kv_part = samples.value("vllm:kv_cache_usage_perc")
    return Pod(
        address=address,
        version=version,
        running=_whole(samples.value("vllm:num_requests_running")),
        waiting=_whole(samples.value("vllm:num_requests_waiting")),
        kv_percent=None if kv_part is None else 100 * kv_part,
        hit_percent=100 * hits / queries if queries else None,
        generated_tokens=_whole(samples.value("vllm:generation_tokens_total")),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
