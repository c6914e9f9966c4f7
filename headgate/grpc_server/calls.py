"""One call of a method: its messages in, its deadline, its answer out."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, Protocol

from headgate.grpc_server.connection import Connection
from headgate.grpc_server.frames import ErrorCode
from headgate.grpc_server.messages import (
    ANSWER_HEAD,
    OK_TRAILERS,
    PREFIX_BYTES,
    MessageReader,
    framed,
    timeout_s,
    trailers,
)
from headgate.grpc_server.methods import CallAbortedError, Method, Status
from headgate.grpc_server.streams import Stream

log = logging.getLogger("headgate.grpc")

UNREAD_ANSWER_BYTES = 256 * 1024
"""A streaming method waits while so much of its answer has not been taken by the peer."""


class Link(Protocol):
    """The connection of a call, as the call sees it."""

    connection: Connection

    @property
    def is_paused(self) -> bool:
        """Whether the peer reads too slowly for more to be written."""
        ...

    def flush_soon(self) -> None:
        """Sends what the connection has to send, once for this turn of the loop."""

    async def progress(self) -> None:
        """Returns once the peer has read or sent something."""


class Call:
    """A call from its headers to its trailers. Implements `Context`."""

    def __init__(self, link: Link, stream: Stream, method: Method, max_bytes: int) -> None:
        self._link = link
        self._connection = link.connection
        self._stream = stream
        self._method = method
        self._reader = MessageReader(max_bytes)
        self._messages: deque[bytes] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._is_over = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the method, None before and where it never ran."""
        return self._task

    # Context

    def metadata(self, name: str) -> str | None:
        return next((value for key, value in self._stream.headers.fields if key == name), None)

    def abort(self, status: Status, text: str) -> NoReturn:
        raise CallAbortedError(status, text)

    # From the connection

    def begin(self) -> None:
        """Starts its deadline, and a method that takes a stream."""
        try:
            if (timeout := self._stream.headers.timeout) is not None:
                loop = asyncio.get_running_loop()
                self._deadline = loop.call_later(timeout_s(timeout), self._expire)
        except CallAbortedError as error:
            self._finish(error.status, error.text)
            return
        if self._method.takes_stream:
            self._start(self._run_stream())

    def feed(self, data: bytes) -> None:
        """More bytes of the request."""
        if self._is_over:
            return
        try:
            messages = list(self._reader.feed(data))
        except CallAbortedError as error:
            self._finish(error.status, error.text)
            self.cancel()
            return
        self._messages.extend(messages)
        whole_bytes = sum(map(len, messages)) + PREFIX_BYTES * len(messages)
        if len(data) > whole_bytes:  # the rest of a message is wanted; whole ones wait to be read
            self._connection.credit(self._stream, len(data) - whole_bytes)
        if self._method.takes_stream:
            self._wake()
        elif self._stream.remote_ended:
            self._begin_unary()

    def cancel(self) -> None:
        """The peer wants no answer any more."""
        self._is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin_unary(self) -> None:
        if len(self._messages) != 1 or self._reader.held_bytes:
            text = f"one message was expected; {len(self._messages)} came whole"
            self._finish(Status.INTERNAL, text)
            return
        message = self._messages.popleft()
        run = self._run_watch if self._method.gives_stream else self._run_unary
        self._start(run(message))

    def _start(self, run: Any) -> None:
        self._task = asyncio.get_running_loop().create_task(run)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _expire(self) -> None:
        self._finish(Status.DEADLINE_EXCEEDED, "the deadline of the call has passed")
        self.cancel()

    # The method

    async def _run_unary(self, data: bytes) -> None:
        try:
            answer = await self._method.behavior(self._read(data), self)
            self._answer(self._method.write(answer))
        except BaseException as error:
            self._fail(error)

    async def _run_watch(self, data: bytes) -> None:
        await self._give(lambda asked, call: self._method.behavior(self._read(asked), call), data)

    async def _run_stream(self) -> None:
        if self._method.gives_stream:
            await self._give(self._method.behavior, self._requests())
            return
        try:
            answer = await self._method.behavior(self._requests(), self)
            self._answer(self._method.write(answer))
        except BaseException as error:
            self._fail(error)

    async def _give(self, behavior: Callable[..., AsyncIterator[Any]], asked: Any) -> None:
        try:
            async for answer in behavior(asked, self):
                self._send(self._method.write(answer))
                while self._must_wait():
                    await self._link.progress()
            self._finish(Status.OK)
        except BaseException as error:
            self._fail(error)

    async def _requests(self) -> AsyncIterator[Any]:
        """The messages of the request. Reading one lets the peer send as much more."""
        while True:
            while self._messages:
                data = self._messages.popleft()
                self._connection.credit(self._stream, len(data) + PREFIX_BYTES)
                self._link.flush_soon()
                yield self._read(data)
            if self._stream.remote_ended:
                return
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    def _read(self, data: bytes) -> Any:
        try:
            return self._method.read(data)
        except ValueError as error:
            text = "the message cannot be read"
            raise CallAbortedError(Status.INTERNAL, text) from error

    def _must_wait(self) -> bool:
        unread = len(self._stream.waiting) > UNREAD_ANSWER_BYTES
        return not self._is_over and (unread or self._link.is_paused)

    # The answer

    def _answer(self, data: bytes) -> None:
        if self._is_over:
            return
        self._over()
        self._connection.answer(self._stream, ANSWER_HEAD, framed(data), OK_TRAILERS)
        self._link.flush_soon()

    def _send(self, data: bytes) -> None:
        if self._is_over:
            return
        if not self._has_begun:
            self._has_begun = True
            self._connection.send_headers(self._stream, ANSWER_HEAD)
        self._connection.send_data(self._stream, framed(data))
        self._link.flush_soon()

    def _finish(self, status: Status, text: str = "") -> None:
        if self._is_over:
            return
        self._over()
        block = trailers(status, text)
        self._connection.end(self._stream, block if self._has_begun else ANSWER_HEAD + block)
        self._link.flush_soon()

    def _over(self) -> None:
        self._is_over = True
        if self._deadline is not None:
            self._deadline.cancel()

    def _fail(self, error: BaseException) -> None:
        match error:
            case CallAbortedError():
                self._finish(error.status, error.text)
            case asyncio.CancelledError():
                self._finish(Status.CANCELLED, "the call was ended")
            case Exception():
                log.error("%s failed", self._method.path, exc_info=error)
                self._finish(Status.UNKNOWN, "the service failed; its log says why")
            case _:
                self._connection.abort(self._stream, ErrorCode.INTERNAL_ERROR)
                raise error
