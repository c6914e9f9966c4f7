"""The simulators and boxes that the cells are played on; a file names its way of counting."""

import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from tests.matrix.boxes import key_of, matrix_box
from tests.matrix.cells import matrix
from tests.matrix.play import Stage
from tests.simulator_process import simulator_process

_FAST = ("--prompt-tokens-details", "--ttft-s", "0", "--token-interval-s", "0")

collect_ignore = [] if "HEADGATE_TEST_UPSTREAM" in os.environ else ["test_on_vllm.py"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstreams() -> AsyncIterator[dict[str, str]]:
    """The URLs of two simulators by the word of the axis `vllm`: one sends usage when asked for
    it, one always does."""
    async with (
        simulator_process(*_FAST) as asked,
        simulator_process(*_FAST, "--force-usage") as forces,
    ):
        yield {"asked": asked.url, "forces": forces.url}


@pytest.fixture(scope="module")
def stages(
    request: pytest.FixtureRequest,
    upstreams: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str, str], Stage]]:
    """The stage for cells of this API and this vLLM."""
    counting = request.module.COUNTING
    folders = {vllm: tmp_path_factory.mktemp(f"matrix-{vllm}") for vllm in upstreams}
    every_event = os.environ.get("HEADGATE_MATRIX") == "full"

    with (
        matrix_box(folders["asked"], upstreams["asked"], False, counting) as asked,
        matrix_box(folders["forces"], upstreams["forces"], True, counting) as forces,
    ):
        boxes = {"asked": asked, "forces": forces}

        def stage(api: str, vllm: str) -> Stage:
            plain, behind, key = upstreams["asked"], upstreams[vllm], key_of(api)
            return Stage(matrix(), boxes[vllm], plain, behind, key, counting, every_event)

        yield stage
