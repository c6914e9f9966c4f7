"""The demo while it runs: the vLLM simulator as a child process, and the policy's file."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.dataplane.child import last_lines, spawn, stop
from headgate.program.demo import DEMO_ADAPTER, DEMO_MODEL, Demo, demo_policy

READY = "simulator ready on "
_READY_TIMEOUT_S = 20.0
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """A simulator that answers, and the file with the policy in front of it."""

    demo: Demo
    policy_file: Path
    process: Process
    log_file: Path

    async def died(self) -> None:
        """Waits for the simulator's end and raises OperatorError: nothing else ends it."""
        code = await self.process.wait()
        raise OperatorError(f"the simulator ended with exit code {code}{_why(self.log_file)}")


@asynccontextmanager
async def running_demo(folder: Path) -> AsyncIterator[RunningDemo]:
    """Starts the simulator of the demo's model on a free port, and writes the demo's policy.

    Both files go to `folder`, the policy and the simulator's log. Raises OperatorError when the
    simulator does not start.
    """
    log_file = folder / "simulator.log"
    command = [sys.executable, "-m", "headgate.simulator", "--port", "0", "--prompt-tokens-details"]
    command += ["--model", DEMO_MODEL, "--adapter", DEMO_ADAPTER]
    process = await spawn(command, log_file)
    try:
        demo = demo_policy(await _ready(process, log_file))
        policy_file = folder / "headgate.yaml"
        policy_file.write_text(demo.text, encoding="utf-8")
        yield RunningDemo(demo, policy_file, process, log_file)
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
