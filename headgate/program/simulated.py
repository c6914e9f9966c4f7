"""The demo's upstream: the vLLM simulator as a child process."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.dataplane.child import last_lines, spawn, stop
from headgate.program.demo import DEMO_ADAPTER, DEMO_MODEL

READY = "simulator ready on "
_READY_TIMEOUT_S = 20.0
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that answers on `url`."""

    url: str
    process: Process
    log_file: Path

    async def died(self) -> None:
        """Waits for its end and raises OperatorError, as nobody ends it while it is needed."""
        code = await self.process.wait()
        raise OperatorError(f"the simulator ended with exit code {code}{_why(self.log_file)}")


@asynccontextmanager
async def running_simulator(folder: Path) -> AsyncIterator[RunningSimulator]:
    """Starts the simulator of the demo's model on a free port; its log is kept in `folder`.

    Raises OperatorError when it does not come up.
    """
    log_file = folder / "simulator.log"
    command = [sys.executable, "-m", "headgate.simulator", "--port", "0", "--prompt-tokens-details"]
    command += ["--model", DEMO_MODEL, "--adapter", DEMO_ADAPTER]
    process = await spawn(command, log_file)
    try:
        url = await _ready(process, log_file)
        yield RunningSimulator(url, process, log_file)
    finally:
        await stop(process, _GRACE_S)


async def _ready(process: Process, log_file: Path) -> str:
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            while process.returncode is None:
                for line in last_lines(log_file, 5):
                    if line.startswith(READY):
                        return line.removeprefix(READY).strip()
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    raise OperatorError(f"the simulator did not start{_why(log_file)}")


def _why(log_file: Path) -> str:
    lines = last_lines(log_file, 1)
    return f": {lines[0]}" if lines else ""
