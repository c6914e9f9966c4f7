"""One fast simulator for the tests that leave no traces, as a process of its own."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.simulator_process import simulator_process

FAST = ("--ttft-s", "0", "--token-interval-s", "0", "--adapter", "lora-a")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fast_url() -> AsyncIterator[str]:
    """Base URL of a simulator that answers at once; it serves `tiny` and the adapter `lora-a`."""
    async with simulator_process(*FAST) as process:
        yield process.url


@pytest.fixture
async def client(fast_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of that simulator."""
    async with httpx.AsyncClient(base_url=fast_url) as http:
        yield http
