"""Asks each vLLM at the start whether it answers: clients of a silent one would get 503."""

import asyncio
from collections.abc import Mapping

import httpx

_TIMEOUT_S = 2.0


async def silent(upstreams: Mapping[str, str]) -> list[str]:
    """The base models whose vLLM does not answer HTTP now; `upstreams` maps each to its URL.

    Any answer counts. Proxies of the environment are not used, as Envoy uses none.
    """
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        answers = await asyncio.gather(*(_answers(client, url) for url in upstreams.values()))
    return [model for model, answered in zip(upstreams, answers, strict=True) if not answered]


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        await client.get(f"{url}/health")
    except httpx.HTTPError:
        return False
    return True
