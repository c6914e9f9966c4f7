"""Reads a simulator's /metrics page."""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.patience import PATIENCE_S

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_BASE = {"model_name": "tiny", "engine": "0"}


def samples_of(page: str) -> Samples:
    """Every sample of a metrics page by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample of the base model, its name without `vllm:`."""
    return samples[f"vllm:{name}", tuple(sorted((_BASE | labels).items()))]


async def read(client: httpx.AsyncClient) -> Samples:
    """The page as it is now."""
    return samples_of((await client.get("/metrics")).text)


async def read_until(client: httpx.AsyncClient, name: str, wanted: float) -> Samples:
    """The first page on which the sample has the wanted value; TimeoutError if that never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while value(samples := await read(client), name) != wanted:
            pass
    return samples
