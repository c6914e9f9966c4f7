"""The demo while it runs: the vLLM simulator as a child process, and the policy's file."""

import asyncio
import logging
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.dataplane.child import last_lines, spawn, stop
from headgate.program.demo import DEMO_ADAPTER, DEMO_MODEL, Demo, demo_policy

log = logging.getLogger("headgate.demo")

READY = "simulator ready on "
_READY_TIMEOUT_S = 20.0
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """A simulator that answers, by its process id, and the file with the policy in front of it."""

    demo: Demo
    policy_file: Path
    simulator_pid: int


@asynccontextmanager
async def running_demo(folder: Path) -> AsyncIterator[RunningDemo]:
    """Starts the simulator of the demo's model on a free port, and writes the demo's policy.

    Both files go to `folder`, the policy and the simulator's log. A simulator that ends leaves a
    line in the log: the box goes on, as with any vLLM. Raises OperatorError when it does not start.
    """
    log_file = folder / "simulator.log"
    command = [sys.executable, "-m", "headgate.simulator", "--port", "0", "--prompt-tokens-details"]
    command += ["--model", DEMO_MODEL, "--adapter", DEMO_ADAPTER]
    process = await spawn(command, log_file)
    said: asyncio.Task[None] | None = None
    try:
        demo = demo_policy(await _ready(process, log_file))
        policy_file = folder / "headgate.yaml"
        policy_file.write_text(demo.text, encoding="utf-8")
        said = asyncio.create_task(_say_end(process, log_file))
        yield RunningDemo(demo, policy_file, process.pid)
    finally:
        if said is not None:
            said.cancel()
        await stop(process, _GRACE_S)


async def _say_end(process: Process, log_file: Path) -> None:
    code = await process.wait()
    log.error("the simulator ended with exit code %d, requests get 503%s", code, _why(log_file))


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
