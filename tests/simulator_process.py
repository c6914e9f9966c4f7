"""A simulator as a process of its own, for tests that count, stop or kill a server."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.patience import PATIENCE_S

_ROOT = Path(__file__).parent.parent
_READY = "simulator ready on "


@dataclass(frozen=True, slots=True)
class SimulatorProcess:
    """A running simulator."""

    url: str
    """Its base URL, without a slash at the end."""
    pid: int


@contextlib.asynccontextmanager
async def simulator_process(*arguments: str) -> AsyncIterator[SimulatorProcess]:
    """Starts `python -m headgate.simulator` on a free port, and ends it afterwards.

    TimeoutError or RuntimeError where it does not get ready; what it wrote is in the message.
    A process that the test has ended or killed already is fine.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "headgate.simulator", "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        text = line.decode().strip()
        if not text.startswith(_READY):
            raise RuntimeError(f"the simulator did not start, it said: {text!r}")
        yield SimulatorProcess(text.removeprefix(_READY), process.pid)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
