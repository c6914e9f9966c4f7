"""One call of a method: its deadline, the task that runs it, and its answer."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, Protocol

from headgate.core.rpc import CallAbortedError, Method, Status
from headgate.grpc_server.frames import ErrorCode
from headgate.grpc_server.messages import ANSWER_HEAD, OK_TRAILERS, framed, timeout_s, trailers
from headgate.grpc_server.requests import Link, Requests
from headgate.grpc_server.streams import Stream

log = logging.getLogger("headgate.grpc")

UNREAD_ANSWER_BYTES = 256 * 1024
"""A method that gives a stream waits while its peer has not read this much of it."""

if sys.version_info >= (3, 12):
    # A method that awaits nothing ends at once, without a turn of the loop.
    _task = partial(asyncio.Task, eager_start=True)
else:
    _task = asyncio.Task


class CallLink(Link, Protocol):
    """The connection of a call, which also runs methods."""

    is_paused: bool
    """Whether the peer reads too slowly for more to be written."""
    tasks: "set[asyncio.Task[None]]"
    """The methods that run."""
    stalled: "set[Call]"
    """The calls that wait for `on_room`."""


class Call:
    """A call from its headers to its trailers. Implements `Context` and `Handler`."""

    def __init__(self, link: CallLink, stream: Stream, method: Method) -> None:
        self._link = link
        self._stream = stream
        self._method = method
        self._requests = Requests(link, stream, method.read)
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._has_begun = False
        self._is_over = False

    # Context

    def metadata(self, name: str) -> str | None:
        return next((value for key, value in self._stream.headers.fields if key == name), None)

    def abort(self, status: Status, text: str) -> NoReturn:
        raise CallAbortedError(status, text)

    # Handler

    def feed(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            self._requests.feed(data)
            if not self._method.takes_stream and self._stream.remote_ended:
                self._begin(self._requests.only())
        except CallAbortedError as error:
            self.fail(error.status, error.text)

    def cancel(self) -> None:
        self._over()
        self._stop()

    def on_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # Its life

    def settle_in(self) -> None:
        """Starts its clock, and a method that takes a stream, once its first bytes are read.

        Most calls have their answer before that, and need no clock.
        """
        if self._is_over:
            return
        try:
            if (timeout := self._stream.headers.timeout) is not None:
                loop = asyncio.get_running_loop()
                self._deadline = loop.call_later(timeout_s(timeout), self._expire)
        except CallAbortedError as error:
            self.fail(error.status, error.text)
            return
        if self._method.takes_stream:
            self._begin(self._requests)

    def fail(self, status: Status, text: str) -> None:
        """Ends the call with a status, whatever its method does."""
        self._finish(status, text)
        self._stop()

    def _expire(self) -> None:
        self.fail(Status.DEADLINE_EXCEEDED, "the deadline of the call has passed")

    def _begin(self, asked: Any) -> None:
        run = self._run_stream if self._method.gives_stream else self._run_once
        self._start(run(asked))

    def _start(self, run: Coroutine[Any, Any, None]) -> None:
        task = _task(run, loop=asyncio.get_running_loop())
        if not task.done():
            self._task = task
            self._link.tasks.add(task)
            task.add_done_callback(self._link.tasks.discard)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _over(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._requests.release()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # The method

    async def _run_once(self, asked: Any) -> None:
        try:
            answer = await self._method.behavior(asked, self)
            self._answer(self._framed(answer))
        except BaseException as error:
            self._on_error(error)

    async def _run_stream(self, asked: Any) -> None:
        try:
            async with aclosing(self._method.behavior(asked, self)) as answers:
                async for answer in answers:
                    self._send(self._framed(answer))
                    while self._must_wait():
                        await self._wait_for_room()
            self._finish(Status.OK)
        except BaseException as error:
            self._on_error(error)

    def _must_wait(self) -> bool:
        unread = len(self._stream.waiting) > UNREAD_ANSWER_BYTES
        return not self._is_over and (unread or self._link.is_paused)

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        self._link.stalled.add(self)
        try:
            await self._room
        finally:
            self._link.stalled.discard(self)

    def _on_error(self, error: BaseException) -> None:
        match error:
            case CallAbortedError():
                self._finish(error.status, error.text)
            case asyncio.CancelledError():
                self._finish(Status.CANCELLED, "the call was ended")
            case Exception():
                log.error("%s failed", self._method.path, exc_info=error)
                self._finish(Status.UNKNOWN, "the service failed; its log says why")
            case _:
                self._over()
                self._link.connection.abort(self._stream, ErrorCode.INTERNAL_ERROR)
                raise error

    # The answer

    def _framed(self, answer: Any) -> bytes:
        data = self._method.write(answer)
        bound_bytes = self._link.max_message_bytes
        if len(data) > bound_bytes:
            text = f"an answer of {len(data)} bytes; at most {bound_bytes} are allowed"
            raise CallAbortedError(Status.RESOURCE_EXHAUSTED, text)
        return framed(data)

    def _answer(self, data: bytes) -> None:
        if not self._is_over:
            self._over()
            self._link.connection.answer(self._stream, ANSWER_HEAD, data, OK_TRAILERS)
            self._link.flush_soon()

    def _send(self, data: bytes) -> None:
        if self._is_over:
            return
        if not self._has_begun:
            self._has_begun = True
            self._link.connection.send_headers(self._stream, ANSWER_HEAD)
        self._link.connection.send_data(self._stream, data)
        self._link.flush_soon()

    def _finish(self, status: Status, text: str = "") -> None:
        if self._is_over:
            return
        self._over()
        block = trailers(status, text) if status or text else OK_TRAILERS
        block = block if self._has_begun else ANSWER_HEAD + block
        self._link.connection.end(self._stream, block)
        self._link.flush_soon()
