"""`make help` lists every target."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def targets() -> set[str]:
    """The targets that a person types."""
    [phony] = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", MAKEFILE, flags=re.MULTILINE)
    return set(phony.replace("\\", " ").split())


def test_help_lists_every_target_with_what_it_does() -> None:
    command = ["make", "--no-print-directory", "help"]
    helped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in helped.stdout.splitlines())

    assert set(lines) == targets()
    assert all(lines.values())


def test_contributing_names_the_targets_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"^\| `make ([a-z0-9-]+)", text, flags=re.MULTILINE))

    assert named <= targets()
    assert targets() - named <= {"help", "setup", "run", "clean"}
