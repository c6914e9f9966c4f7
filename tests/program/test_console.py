"""The lines of `headgate up` about requests are made only where somebody may read them."""

import os
from pathlib import Path

import pytest

from headgate.program.up import somebody_looks


@pytest.mark.parametrize(("name", "looks"), [(os.devnull, False), ("lines.txt", True)])
def test_lines_for_dev_null_are_not_made(name: str, looks: bool, tmp_path: Path) -> None:
    with (tmp_path / name).open("w") as output:
        assert somebody_looks(output.fileno()) is looks
