"""The cost of a streamed chunk with either counter: `.venv/bin/python -m tests.tap.cost`.

CPU time of Envoy and of the service for each chunk of one token, at the same pace and in one run.
On another machine, or on a busy one, only the ratios are meaningful.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvloop

from headgate.core.contract import Counting
from tests.tap.processor import serve_processor
from tests.tap.rig import Script, TapEnvoy, running_tap

STREAMS, CHUNKS, INTERVAL_S = 40, 400, 0.03
NAMES = {"x-served-as": "org/served", "x-model": "alias"}
ADMISSION = {"x-client-usage": "none", "x-api": "chat", "x-kind": "text/event-stream"}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServiceProcess:
    """The service in its own process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def drain(self, _grace_s: float) -> None:
        """Ends it."""
        self._process.terminate()
        await self._process.wait()


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def event(number: int) -> bytes:
    """A chunk as vLLM sends it, with running usage."""
    text = (
        '{"id":"chatcmpl-5b2d0a4e","object":"chat.completion.chunk","created":1,"model":"tiny",'
        '"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}],"usage":'
        f'{{"prompt_tokens":13,"total_tokens":{number + 13},"completion_tokens":{number}}}}}'
    )
    return f"data: {text}\n\n".encode()


async def measured(
    rig: TapEnvoy, service: ServiceProcess, counting: Counting, admission: Mapping[str, str]
) -> tuple[float, float]:
    """Microseconds of Envoy and of the service for each chunk."""
    script = Script([event(number) for number in range(CHUNKS)], interval_s=INTERVAL_S)
    await rig.answer(Script([event(1)]), admission, counting)
    pids = rig.pid, service.pid
    before = [cpu_s(pid) for pid in pids]
    await asyncio.gather(*(rig.answer(script, admission, counting) for _ in range(STREAMS)))
    spent = [cpu_s(pid) - start for pid, start in zip(pids, before, strict=True)]
    envoy_us, service_us = (seconds / (STREAMS * CHUNKS) * 1e6 for seconds in spent)
    return envoy_us, service_us


async def run() -> None:
    """Prints a table: plain, then either counter, without and with another name of the model."""
    started: list[ServiceProcess] = []

    async def serve(socket: Path) -> ServiceProcess:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __spec__.name, socket)
        while not socket.exists():  # noqa: ASYNC110,ASYNC240 - it says nothing when it is ready
            await asyncio.sleep(0.05)
        started.append(ServiceProcess(process))
        return started[-1]

    print("way             Envoy, us   service, us   each chunk")
    plain_us = 0.0
    for way, tap, counting, names in (
        ("plain", False, Counting.PROXY, {}),
        ("tap", True, Counting.PROXY, {}),
        ("tap, name", True, Counting.PROXY, NAMES),
        ("ext_proc", True, Counting.EXTPROC, {}),
        ("ext_proc, name", True, Counting.EXTPROC, NAMES),
    ):
        folder = Path(tempfile.mkdtemp(prefix="cost-"))
        try:
            async with running_tap(folder, tap=tap, serve=serve) as rig:
                envoy_us, service_us = await measured(rig, started[-1], counting, ADMISSION | names)
        finally:
            shutil.rmtree(folder)
        plain_us = plain_us or envoy_us
        more = f"({envoy_us - plain_us:+.1f})"
        print(f"{way:14} {envoy_us:6.1f} {more:>8} {service_us:8.1f}")


async def serve_forever(socket: Path) -> None:
    """The service alone."""
    server = await serve_processor(socket)
    await asyncio.Event().wait()
    await server.drain(0)


if __name__ == "__main__":
    uvloop.run(serve_forever(Path(sys.argv[1])) if len(sys.argv) > 1 else run())
