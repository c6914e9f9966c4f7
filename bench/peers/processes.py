"""The processes of a stack: how they start and end, and the processor time that they use."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 180.0
_END_S = 20.0


class LeftOut(Exception):  # noqa: N818 - no error: the bench goes on without it
    """A stack cannot run here; the text says why, for the table's reader."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running stack. `pids` are its processes by their part: envoy, services or stores."""

    name: str
    port: int
    headers: Mapping[str, str]
    pids: Mapping[str, Sequence[int]]

    def used_s(self) -> dict[str, float]:
        """The processor time of each part so far, in seconds."""
        return {part: sum(_cpu_s(pid) for pid in pids) for part, pids in self.pids.items()}


@dataclass(frozen=True)
class Place:
    """Where stacks start. `ending` ends their processes, `folder` holds their files.

    `peers` is the folder of what was built, `upstream_port` the canned vLLM's.
    """

    ending: ExitStack
    folder: Path
    peers: Path
    upstream_port: int

    def start(
        self, command: Sequence[object], log: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process. Its output goes to the file `log`.log."""
        with (self.folder / f"{log}.log").open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=os.environ | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.ending.callback(_end, process)
        return process

    def wait_for(self, port: int, process: subprocess.Popen[bytes], log: str) -> None:
        """Waits until `port` takes connections. Raises LeftOut with the end of the log."""
        until_s = time.monotonic() + _PATIENCE_S
        while process.poll() is None and time.monotonic() < until_s:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        said = (self.folder / f"{log}.log").read_text(errors="replace").strip()
        raise LeftOut(f"it did not start: {said[-200:]}")

    def redis(self, name: str) -> tuple[int, int]:
        """An empty Redis of its own: its port and its process."""
        program = Path(sys.executable).parent / "redis-server"
        found = program if program.exists() else shutil.which("redis-server")
        if found is None:
            raise LeftOut("there is no redis-server on this machine")
        port = free_port()
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        process = self.start([found, "--port", port, *options], f"redis-{name}")
        self.wait_for(port, process, f"redis-{name}")
        return port, process.pid


def _cpu_s(pid: int) -> float:
    """By the scheduler's clock: a turn of plain Envoy takes few ticks of /proc/PID/stat."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
