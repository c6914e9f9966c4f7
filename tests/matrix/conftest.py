"""Two simulators for the cells: one sends usage when asked for it, one always does."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.simulator_process import simulator_process

_FAST = ("--prompt-tokens-details", "--ttft-s", "0", "--token-interval-s", "0")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstreams() -> AsyncIterator[dict[str, str]]:
    """The URLs of both, by the word of the axis `vllm`."""
    async with (
        simulator_process(*_FAST) as asked,
        simulator_process(*_FAST, "--force-usage") as forces,
    ):
        yield {"asked": asked.url, "forces": forces.url}
