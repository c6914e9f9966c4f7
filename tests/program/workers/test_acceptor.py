"""Connections go to the workers in turns."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from headgate.core.errors import OperatorError
from headgate.program.workers.acceptor import Acceptor
from tests.patience import PATIENCE_S


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """For three workers: the parent's end, and the worker's."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(3)]
        for ours, theirs in made:
            ours.setblocking(False)
            theirs.settimeout(PATIENCE_S)
            stack.enter_context(closing(ours))
            stack.enter_context(closing(theirs))
        yield made


def received(worker: socket.socket) -> socket.socket:
    _, (descriptor,), _, _ = socket.recv_fds(worker, 1, 1)
    return socket.socket(fileno=descriptor)


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


async def test_each_worker_gets_the_same_number_of_connections(
    pairs: list[tuple[socket.socket, socket.socket]], tmp_path: Path
) -> None:
    path = tmp_path / "hooks.sock"
    acceptor = Acceptor(f"unix:{path}", lambda: [ours for ours, _ in pairs])
    await acceptor.start()
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(closing(await asyncio.to_thread(connected, path)))
        for _, worker in pairs:
            for _ in range(2):
                (await asyncio.to_thread(received, worker)).close()
    acceptor.stop()


async def test_a_connection_that_no_worker_takes_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "hooks.sock"
    acceptor = Acceptor(f"unix:{path}", list)
    await acceptor.start()
    with closing(await asyncio.to_thread(connected, path)) as client:
        assert await asyncio.to_thread(client.recv, 1) == b""
    acceptor.stop()


async def test_a_worker_that_is_gone_is_passed_over(
    pairs: list[tuple[socket.socket, socket.socket]], tmp_path: Path
) -> None:
    pairs[0][1].close()
    path = tmp_path / "hooks.sock"
    acceptor = Acceptor(f"unix:{path}", lambda: [ours for ours, _ in pairs])
    await acceptor.start()
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(closing(await asyncio.to_thread(connected, path)))
        for _, worker in pairs[1:]:
            for _ in range(2):
                (await asyncio.to_thread(received, worker)).close()
    acceptor.stop()


async def test_a_taken_port_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match=f"cannot listen on 127.0.0.1:{port} for hooks"):
            await Acceptor(f"127.0.0.1:{port}", list).start()
