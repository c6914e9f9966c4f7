"""Every cell through boxes that count in Envoy (`--counting proxy`)."""

from collections.abc import Iterator

import pytest

from tests.box import Box
from tests.matrix.boxes import key_of, matrix_box
from tests.matrix.cells import matrix
from tests.matrix.play import Stage

MATRIX = matrix()
COUNTING = "proxy"


@pytest.fixture(scope="module")
def boxes(
    upstreams: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Box]]:
    """A box for each value of the axis `vllm`."""
    folders = {vllm: tmp_path_factory.mktemp(f"matrix-{vllm}") for vllm in upstreams}
    asked = matrix_box(folders["asked"], upstreams["asked"], forces_usage=False, counting=COUNTING)
    forces = matrix_box(
        folders["forces"], upstreams["forces"], forces_usage=True, counting=COUNTING
    )
    with asked as one, forces as other:
        yield {"asked": one, "forces": other}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("api", "vllm"), sorted({(c.api, c.vllm) for c in MATRIX.cells()}))
async def test_cells(boxes: dict[str, Box], upstreams: dict[str, str], api: str, vllm: str) -> None:
    cells = [cell for cell in MATRIX.cells() if (cell.api, cell.vllm) == (api, vllm)]
    stage = Stage(MATRIX, boxes[vllm], upstreams["asked"], upstreams[vllm], key_of(api))

    assert await stage.play(cells) == []
