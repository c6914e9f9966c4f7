"""Every command of docs/tutorial.md runs, and prints what the page says."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
PORTS = ("8000", "8001", "8080", "8081")
TIMEOUT_S = 240
"""For a machine that is busy with other work; it takes some ten seconds on an idle one."""

PARTS = re.compile(
    r"^(?:```sh\n(?P<commands>.*?)```|```text\n(?P<printed>.*?)```"
    r"|<!-- until: (?P<until>.*?) -->)$",
    re.MULTILINE | re.DOTALL,
)
BEGIN = "=== block {} ===\n"

CHANGING = {
    r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z": "MOMENT",
    r"sk-hg-[0-9a-f]{48}": "SECRET",
    r"\b[0-9a-f]{64}\b": "DIGEST",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "UUID",
    r"\bid: (\"?)[0-9a-f]{12}\b\1": "id: ID",  # quoted if YAML would read it as a number
    r"\b\d\d:\d\d:\d\d\b": "TIME",
    r"\b\d+\.\d\d s\b": "SECONDS",
    r"retry-after: \d+": "retry-after: N",
    r"(x-ratelimit-reset-\w+): [\dhms]+": r"\1: DURATION",
    r"try again in [^.]+\.": "try again in DURATION.",
}
"""What differs from run to run, and the word that takes its place in both texts."""


@dataclass(frozen=True)
class Block:
    """Commands, what the page says they print, and what a reader's pace waits for before them."""

    commands: str
    waits_for: str | None
    printed: str | None = None


def blocks() -> Iterator[Block]:
    """The blocks of the page. `printed` belongs to the commands right above it."""
    pending: Block | None = None
    waits_for: str | None = None
    for part in PARTS.finditer(PAGE):
        if part["printed"] is not None:
            assert pending is not None
            yield Block(pending.commands, pending.waits_for, part["printed"])
            pending = None
            continue
        if pending is not None:
            yield pending
            pending = None
        if part["until"] is not None:
            assert waits_for is None
            waits_for = part["until"]
        else:
            pending, waits_for = Block(part["commands"], waits_for), None
    if pending is not None:
        yield pending


BLOCKS = tuple(blocks())


def script() -> str:
    """The page as one shell script. `until` stands for the time that a reader takes."""
    lines = ["exec 2>&1", "set -e -o pipefail"]
    for number, block in enumerate(BLOCKS):
        if block.waits_for is not None:
            lines.append(f"until {block.waits_for}; do sleep 0.1; done")
        lines += [f"echo; echo '{BEGIN.format(number).strip()}'", block.commands]
    return "\n".join(lines)


def run(commands: str, folder: Path) -> str:
    """Everything that the commands print. Ends every process that they have started."""
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with open(folder / "printed", "w+") as printed:
        process = subprocess.Popen(
            ["bash", "-c", commands],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(TIMEOUT_S)
        finally:
            end_group(process)
        printed.seek(0)
        text = printed.read()
    assert code == 0, text
    return text


def end_group(process: subprocess.Popen[bytes]) -> None:
    """The session is the process's own, so nothing else is in its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def steady(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in CHANGING.items():
        text = re.sub(pattern, word, text)
    return text.replace("\r", "").strip()


def matches(expected: str, printed: str) -> bool:
    """Whether both say the same; `...` stands for any text."""
    pattern = re.escape(steady(expected)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, steady(printed), flags=re.DOTALL) is not None


def test_the_page_holds_its_hour() -> None:
    text = "\n".join(block.commands for block in BLOCKS)

    assert len(BLOCKS) >= 15
    for word in ("keys new", "check", "up", "replay", "simulate"):
        assert f"headgate {word}" in text
    assert PAGE.count("```") == 2 * (len(BLOCKS) + sum(b.printed is not None for b in BLOCKS))


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_every_command_prints_what_the_page_says() -> None:
    used = {port: str(free_port()) for port in PORTS}

    def on_free_ports(text: str) -> str:
        return re.sub(r"\b(?:8000|8001|8080|8081)\b", lambda match: used[match[0]], text)

    commands = script().replace("make setup\n", "make --dry-run setup\n", 1)
    commands = on_free_ports(commands.replace(". .venv/bin/activate", in_this_environment(), 1))
    commands = commands.replace("headgate up ", f"headgate up {addresses(used)} ", 1)
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:  # short, as sockets are in it
        said = run(commands, Path(folder))
    printed = re.split(r"^=== block \d+ ===\n", said, flags=re.MULTILINE)[1:]

    assert len(printed) == len(BLOCKS)
    differing = [
        f"{block.commands}printed\n{text}instead of\n{block.printed}"
        for block, text in zip(BLOCKS, printed, strict=True)
        if block.printed is not None and not matches(on_free_ports(block.printed), text)
    ]
    assert not differing, "\n".join(differing)


def in_this_environment() -> str:
    """Takes the place of the activation: the environment that runs the tests."""
    return f'PATH="{Path(sys.executable).parent}:$PATH"'


def addresses(used: dict[str, str]) -> str:
    """The options that move `headgate up` from its default ports to free ones."""
    return f"--listen 127.0.0.1:{used['8080']} --admin 127.0.0.1:{used['8081']}"
