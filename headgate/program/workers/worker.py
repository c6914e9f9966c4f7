"""One worker, in a process of its own: `python -m headgate.program.workers.worker 3 4 5`.

The parent has opened these descriptors. They are the channel of messages, the socket over which
it passes connections on, and the file that is locked while a record is written.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import uvloop
from prometheus_client import CollectorRegistry

from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.program.app import Hooks
from headgate.program.ending import Ending, on_signals
from headgate.program.hook_server import HookServer
from headgate.program.hooks import HookInputs, running_hooks
from headgate.program.logs import configure_logs, set_level
from headgate.program.series import start_series
from headgate.program.stalls import spare_collections
from headgate.program.workers.channel import Channel
from headgate.program.workers.messages import (
    Configuration,
    Count,
    Failed,
    LogFrom,
    Numbers,
    Ready,
    Setup,
    StopAdmitting,
)
from ratelimit.descriptors.tree import Domains

log = logging.getLogger("headgate.workers")


@dataclass(frozen=True, slots=True)
class Ends:
    """The worker's ends of what the parent has opened."""

    channel: Channel
    connections: socket.socket
    record_lock: int


class Worker:
    """The state of a worker: the configuration in force, and whether it admits requests."""

    def __init__(self, setup: Setup, metrics: Metrics) -> None:
        self._setup = setup
        self._metrics = metrics
        self._configuration = Configuration(setup.policy, setup.domains)
        self._is_admitting = True

    def inputs(self, record_lock: int) -> HookInputs:
        """The values for its hooks."""
        return HookInputs(
            policy=lambda: self._configuration.policy,
            domains=self._domains if self._setup.settings.ratelimit_config else None,
            clock=SystemClock(),
            metrics=self._metrics,
            console=_say if self._setup.console else None,
            admits=lambda: self._is_admitting,
            record_lock=record_lock,
        )

    def say(self, what: str) -> None:
        """Writes what it does to the log."""
        log.debug("worker %d %s", self._setup.number, what)

    def _domains(self) -> Domains:
        return self._configuration.domains

    def answer(self, message: object, hooks: Hooks) -> object:
        """Does what the parent asks."""
        match message:
            case Configuration():
                self._configuration = message
                spare_collections()
            case StopAdmitting():
                self._is_admitting = False
            case LogFrom(level):
                set_level(level)
                self.say("logs from now on")
            case Count():
                families = list(self._metrics.registry.collect())
                return Numbers(families, hooks.access_log.handled_entries)
        return Ready()


async def work(ends: Ends) -> int:
    """Answers hooks until a signal or the end of the parent; returns the exit code."""
    setup: Setup | None = await ends.channel.receive()
    if setup is None:
        return 1
    configure_logs(setup.settings.log)
    ending = on_signals(setup.settings.drain_s)
    metrics = Metrics(CollectorRegistry(), SystemClock())
    start_series(metrics)
    worker = Worker(setup, metrics)
    inputs = worker.inputs(ends.record_lock)
    answering: asyncio.Task[None] | None = None
    try:
        async with running_hooks(setup.settings, inputs, ending, _door(setup, ends)) as hooks:
            ends.channel.send(Ready())
            worker.say("answers hooks")
            answering = asyncio.create_task(_answer(ends.channel, worker, hooks, ending))
            await ending.begun.wait()
    except OperatorError as error:
        ends.channel.send(Failed(str(error)))
        await asyncio.sleep(0)
        return 1
    finally:
        if answering is not None:
            answering.cancel()
    return 0


def _door(setup: Setup, ends: Ends) -> Callable[[HookServer], Awaitable[None]]:
    """How calls reach the worker: over its own socket, or over connections of the parent."""

    async def listen(server: HookServer) -> None:
        await server.start(setup.settings.hooks, is_private=True)

    async def take(server: HookServer) -> None:
        ends.connections.setblocking(False)
        adopted: set[asyncio.Task[None]] = set()

        def on_connection() -> None:
            for connection in _received(ends.connections):
                task = asyncio.create_task(server.adopt(connection))
                adopted.add(task)
                task.add_done_callback(adopted.discard)

        asyncio.get_running_loop().add_reader(ends.connections, on_connection)

    return take if setup.takes_connections else listen


def _received(connections: socket.socket) -> list[socket.socket]:
    """The connections that wait there."""
    loop = asyncio.get_running_loop()
    received: list[socket.socket] = []
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(connections, 1, 1)
            if not data:  # the parent is gone
                loop.remove_reader(connections)
                return received
            received += [socket.socket(fileno=descriptor) for descriptor in descriptors]
    except BlockingIOError:
        return received


async def _answer(channel: Channel, worker: Worker, hooks: Hooks, ending: Ending) -> None:
    """Answers the parent. Once it is gone, this process ends too, at once."""
    while (message := await channel.receive()) is not None:
        channel.send(worker.answer(message, hooks))
    ending.ask()
    ending.ask()


def _say(line: str) -> None:
    print(line, flush=True)


async def _work_on(descriptors: list[int]) -> int:
    channel, connections, record_lock = descriptors
    ends = Ends(
        await Channel.over(socket.socket(fileno=channel)),
        socket.socket(fileno=connections),
        record_lock,
    )
    return await work(ends)


def main() -> None:
    """Runs one worker and exits."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_work_on([int(number) for number in sys.argv[1:]])))


if __name__ == "__main__":
    main()
