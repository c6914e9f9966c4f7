"""One worker process as the parent sees it: start, questions and answers, end."""

import asyncio
import socket
import sys
from asyncio.subprocess import Process
from collections import deque
from contextlib import ExitStack, suppress
from typing import Any

from headgate.core.errors import OperatorError
from headgate.dataplane.child import spawn, stop
from headgate.program.workers.channel import Channel
from headgate.program.workers.messages import Failed, Setup

_PROGRAM = "headgate.program.workers.worker"
_START_WITHIN_S = 60.0
"""A large policy and a slow disk take some seconds."""


class WorkerProcess:
    """A worker that answers hooks. `connections` is where it takes connections."""

    def __init__(self, process: Process, channel: Channel, connections: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._reading = asyncio.create_task(self._read())
        self.connections = connections

    @classmethod
    async def start(cls, setup: Setup, record_lock: int) -> "WorkerProcess":
        """Returns once it answers hooks. Raises OperatorError when it does not start."""
        with ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            connections, taken = socket.socketpair()
            stack.enter_context(taken)
            connections.setblocking(False)
            descriptors = [theirs.fileno(), taken.fileno(), record_lock]
            command = [sys.executable, "-P", "-m", _PROGRAM, *map(str, descriptors)]
            process = await spawn(command, None, descriptors)
        worker = cls(process, await Channel.over(ours), connections)
        try:
            await worker._set_up(setup)
        except BaseException:
            worker.kill()
            await worker.ended()
            raise
        return worker

    async def _set_up(self, setup: Setup) -> None:
        try:
            answer = await self.ask(setup, _START_WITHIN_S)
        except TimeoutError:
            raise OperatorError(
                f"worker {setup.number} was not ready in {_START_WITHIN_S:g} s"
            ) from None
        if answer is None:
            code = await self.ended()
            raise OperatorError(f"worker {setup.number} ended during its start, exit code {code}")
        if isinstance(answer, Failed):
            raise OperatorError(answer.problem)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, message: object, within_s: float) -> Any:
        """Its answer; None once it is gone. Raises TimeoutError."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._reading.done():
            return None
        self._asked.append(answer)
        self._channel.send(message)
        return await asyncio.wait_for(answer, within_s)

    def terminate(self) -> None:
        """Asks it to drain; the second time, to hurry."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Ends it at once."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> int:
        """Waits for its end, whatever the reason, and returns the exit code; negative: a signal."""
        code = await self._process.wait()
        await self._reading
        self._channel.close()
        self.connections.close()
        return code

    async def stop(self, grace_s: float) -> None:
        """Ends it by a signal, and kills it if it still runs after `grace_s`."""
        await stop(self._process, grace_s)
        await self.ended()

    async def _read(self) -> None:
        while (answer := await self._channel.receive()) is not None:
            self._answer_next(answer)
        while self._asked:
            self._answer_next(None)

    def _answer_next(self, answer: object) -> None:
        asked = self._asked.popleft()
        if not asked.done():  # who asked may not wait any more
            asked.set_result(answer)
