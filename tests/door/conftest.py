"""One real Envoy for each module, and vLLM's reading of each request.

`HEADGATE_VLLM_PYTHON` names the Python of a vLLM installation; without it the simulator reads.
"""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from headgate.core.lean_contract import HookPath
from tests.door.readers import Reader, simulator_reads, vllm_reader
from tests.envoy_process import Rig, running_envoy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """On the standard path, or on that of `on_both_paths`."""
    async with running_envoy(path=getattr(request, "param", HookPath.STANDARD)) as running:
        yield running


@pytest.fixture(scope="session")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    python = os.environ.get("HEADGATE_VLLM_PYTHON")
    if python is None:
        yield simulator_reads
        return
    with vllm_reader(python, tmp_path_factory.mktemp("parser")) as reader:
        yield reader
