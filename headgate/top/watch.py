"""Reads the metrics again and again, and shows what happened between."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime

import httpx

from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.samples import Samples, parse_samples
from headgate.top.screen import screen
from headgate.top.view import Between, PodRow, pod, view

TIMEOUT_S = 5.0


async def screens(
    admin_url: str, pods: Mapping[str, str], interval_s: float, clock: Clock
) -> AsyncGenerator[str, None]:
    """A screen every `interval_s`; `pods` maps names to the URLs of vLLMs.

    Raises OperatorError when the services do not answer.
    """
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
        before, before_s = await _services(client, admin_url), clock.monotonic_s()
        while True:
            await asyncio.sleep(interval_s)
            after, after_s = await _services(client, admin_url), clock.monotonic_s()
            rows = await asyncio.gather(*(_pod(client, *one) for one in pods.items()))
            time = datetime.fromtimestamp(clock.now_s(), UTC).strftime("%H:%M:%S UTC")
            shown = view(Between(before, after, after_s - before_s), rows)
            yield screen(shown, f"headgate top  {admin_url}  {time}")
            before, before_s = after, after_s


async def first_screen(
    admin_url: str, pods: Mapping[str, str], interval_s: float, clock: Clock
) -> str:
    """One screen, after `interval_s`. Raises OperatorError when the services do not answer."""
    shown = screens(admin_url, pods, interval_s, clock)
    try:
        return await anext(shown)
    finally:
        await shown.aclose()


async def _services(client: httpx.AsyncClient, admin_url: str) -> Samples:
    try:
        return parse_samples((await client.get(f"{admin_url}/metrics")).text)
    except (httpx.HTTPError, ValueError) as error:
        raise OperatorError(
            f"{admin_url}/metrics does not answer with metrics: start headgate, or name its"
            " address with --admin"
        ) from error


async def _pod(client: httpx.AsyncClient, name: str, url: str) -> PodRow:
    try:
        return pod(name, parse_samples((await client.get(f"{url}/metrics")).text))
    except (httpx.HTTPError, ValueError):
        return pod(name, None)
