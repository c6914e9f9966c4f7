"""Runs a simulator: a listening socket, uvicorn, and a clean end."""

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.simulator.app import Simulator
from headgate.simulator.settings import Settings

_BACKLOG = 4096
_SHUTDOWN_S = 2
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(
    settings: Settings, host: str, port: int, say: Callable[[str], None] = print
) -> None:
    """Serves until SIGTERM, SIGINT or cancellation, then ends what runs and returns.

    Says one line once it listens; port 0 takes a free one. Signals are taken for as long as it
    runs, so it must be called in the main thread. OperatorError where the address is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        async with running(settings, host, port) as url:
            say(f"simulator ready on {url}")
            await stop.wait()
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def running(settings: Settings, host: str, port: int) -> AsyncIterator[str]:
    """A simulator within this event loop; yields its base URL once it listens.

    OperatorError where the address is taken.
    """
    simulator = Simulator(settings, SystemClock())
    with _listener(host, port) as listener:
        bound_port = listener.getsockname()[1]
        server = _SimulatorServer(_config(simulator, settings.keep_alive_s), simulator)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await _ready_or_ended(server, task)
            yield f"http://{f'[{host}]' if ':' in host else host}:{bound_port}"
        finally:
            server.should_exit = True
            await task


class _SimulatorServer(uvicorn.Server):
    """uvicorn's server, which leaves signals to its caller and stops the engine as it ends."""

    def __init__(self, config: uvicorn.Config, simulator: Simulator) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._simulator = simulator

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._simulator.stop()
        await super().shutdown(sockets)


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which also lets the application end a connection in mid-answer."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["close_connection"] = self.transport.close
        self.scope["state"]["reset_connection"] = self._reset

    def _reset(self) -> None:
        """To linger for no time is to send RST."""
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.transport.abort()


def _config(simulator: Simulator, keep_alive_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        simulator,
        http=_Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise OperatorError(f"the simulator cannot listen on {host}:{port}: {reason}") from error
    return listener


async def _ready_or_ended(server: _SimulatorServer, task: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
    if task.done():
        task.result()
        raise RuntimeError("the simulator ended before it was ready")
