"""Which path a box and a mesh take."""

import pytest
from click.testing import CliRunner

from headgate.cli import cli
from headgate.cli.options import chosen_path
from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.program.settings import BoxSettings

LEAN, STANDARD = HookPath.LEAN, HookPath.STANDARD


@pytest.mark.parametrize("command", [("up", "--demo"), ("render", "istio")])
def test_the_lean_path_does_not_go_with_counting_in_ext_proc(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*command, "--path", "lean", "--counting", "extproc"])

    assert result.exit_code == 2
    assert "--counting extproc needs --path standard" in result.output


@pytest.mark.parametrize(
    ("named", "counting", "taken"),
    [
        (None, Counting.PROXY, LEAN),
        (None, Counting.EXTPROC, STANDARD),
        (LEAN, Counting.PROXY, LEAN),
        (STANDARD, Counting.PROXY, STANDARD),
        (STANDARD, Counting.EXTPROC, STANDARD),
    ],
)
def test_one_box_is_lean_unless_it_counts_in_ext_proc(
    named: HookPath | None, counting: Counting, taken: HookPath
) -> None:
    assert chosen_path(named, counting, BoxSettings().path) is taken
