"""Every cell through a box that counts in ext_proc."""

from collections.abc import Callable

import pytest

from tests.matrix.cells import matrix
from tests.matrix.play import Stage

COUNTING = "extproc"

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.asyncio(loop_scope="session"),
]


@pytest.mark.parametrize(("api", "vllm"), matrix().groups())
async def test_cells_are_charged_recorded_and_seen_as_the_matrix_says(
    stages: Callable[[str, str], Stage], api: str, vllm: str
) -> None:
    wrong = await stages(api, vllm).play(matrix().group(api, vllm))
    if wrong:
        pytest.fail(f"{len(wrong)} wrong, the first of them:\n" + "\n".join(wrong[:10]))
