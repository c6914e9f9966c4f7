"""Shell completion: the script of each shell, and what the program answers to it."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from headgate.cli import cli
from headgate.cli.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])

    assert done.exit_code == 0
    assert f"_HEADGATE_COMPLETE={shell}_complete" in done.output


def test_the_script_asks_the_program_for_words() -> None:
    asked = {"_HEADGATE_COMPLETE": "bash_complete", "COMP_WORDS": "headgate ke", "COMP_CWORD": "1"}
    program = os.path.join(os.path.dirname(sys.executable), "headgate")
    done = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True)

    assert done.stdout.split() == ["plain,keys"]
