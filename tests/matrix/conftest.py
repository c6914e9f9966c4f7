"""The simulators and boxes that the cells are played on; a file names its way of counting."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.matrix.boxes import key_of, matrix_box
from tests.matrix.cells import matrix
from tests.matrix.play import Stage
from tests.simulator_process import simulator_process

_FAST = ("--prompt-tokens-details", "--ttft-s", "0", "--token-interval-s", "0")

collect_ignore = [] if "HEADGATE_TEST_UPSTREAM" in os.environ else ["test_on_vllm.py"]


@dataclass(frozen=True)
class Upstreams:
    """URLs by the word of the axis `vllm`: those `behind` the box, and `plain` ones.

    The plain ones serve the same model and send usage only when asked for it.
    """

    behind: dict[str, str]
    plain: dict[str, str]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstreams() -> AsyncIterator[Upstreams]:
    """Three simulators."""
    tiny, forced = ("--model", matrix().models["asked"]), ("--model", matrix().models["forces"])
    async with (
        simulator_process(*_FAST, *tiny) as asked,
        simulator_process(*_FAST, *forced, "--force-usage") as forces,
        simulator_process(*_FAST, *forced) as plain,
    ):
        yield Upstreams(
            behind={"asked": asked.url, "forces": forces.url},
            plain={"asked": asked.url, "forces": plain.url},
        )


@pytest.fixture(scope="module")
def stages(
    request: pytest.FixtureRequest,
    upstreams: Upstreams,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str, str], Stage]]:
    """The stage for cells of this API and this vLLM."""
    counting = request.module.COUNTING
    every_event = os.environ.get("HEADGATE_MATRIX") == "full"
    with matrix_box(tmp_path_factory.mktemp("matrix"), upstreams.behind, counting) as box:

        def stage(api: str, vllm: str) -> Stage:
            plain, behind = upstreams.plain[vllm], upstreams.behind[vllm]
            return Stage(matrix(), box, plain, behind, key_of(api), counting, every_event)

        yield stage
