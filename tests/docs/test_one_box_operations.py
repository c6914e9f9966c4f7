"""The commands of docs/one-box-operations.md do what the page says."""

import re
import subprocess
from pathlib import Path

from tests.box import policy, running_box
from tests.patience import PATIENCE_S

PAGE = Path(__file__).resolve().parents[2] / "docs" / "one-box-operations.md"


def commands(title: str) -> list[str]:
    """The shell commands of the section with this title."""
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert block is not None, title
    return block[1].splitlines()


def test_the_level_of_envoys_log_changes_while_it_runs(tmp_path: Path) -> None:
    with running_box(tmp_path, policy("http://127.0.0.1:9")) as box:
        shown = [
            subprocess.run(
                ["sh", "-c", command.replace("RUN_DIR", str(box.folder / "run"))],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=True,
            ).stdout
            for command in commands("Envoy's log")
        ]

    levels = [re.findall(r"^  (?:upstream|http): (\w+)$", text, re.MULTILINE) for text in shown]
    assert levels == [["info", "info"], ["info", "debug"], ["warning", "warning"]]
