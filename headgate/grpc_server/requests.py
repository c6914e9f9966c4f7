"""The request of one call: its messages in order, and the memory that they take until read."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from headgate.core.rpc import CallAbortedError, Status
from headgate.grpc_server.connection import Connection
from headgate.grpc_server.messages import PREFIX_BYTES, MessageReader
from headgate.grpc_server.streams import Stream


class Budget:
    """How many bytes of requests a connection may hold in memory, over all of its calls."""

    def __init__(self, bound_bytes: int) -> None:
        self.bound_bytes = bound_bytes
        self.held_bytes = 0


class Link(Protocol):
    """The connection of a call."""

    connection: Connection
    budget: Budget
    max_message_bytes: int

    def flush_soon(self) -> None:
        """Sends the queued frames, once for this turn of the loop."""


class Requests:
    """The messages of a request. A method that takes a stream iterates over them."""

    def __init__(self, link: Link, stream: Stream, read: Callable[[bytes], Any]) -> None:
        self._link = link
        self._budget = link.budget
        self._stream = stream
        self._parse = read
        self._reader = MessageReader(link.max_message_bytes)
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        self._arrived: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """More bytes. Raises CallAbortedError if they are no messages or too many bytes."""
        messages = self._reader.feed(data)
        if messages:
            self._messages.extend(messages)
        self._hold(len(data))
        self._credit()
        self._wake()

    def only(self) -> Any:
        """The one message of a request that has ended. Raises CallAbortedError for another."""
        if len(self._messages) != 1 or self._reader.held_bytes:
            text = f"one message was expected; {len(self._messages)} came whole"
            raise CallAbortedError(Status.INTERNAL, text)
        return self._read(self._messages.popleft())

    def release(self) -> None:
        """Nobody will read the rest."""
        self._messages.clear()
        self._hold(-self._held_bytes)

    def __aiter__(self) -> "Requests":
        return self

    async def __anext__(self) -> Any:
        while not self._messages:
            if self._stream.remote_ended:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        data = self._messages.popleft()
        self._hold(-len(data) - PREFIX_BYTES)
        self._credit()
        return self._read(data)

    def _read(self, data: bytes) -> Any:
        try:
            return self._parse(data)
        except Exception as error:  # whatever kind of error a parser has
            text = "the message cannot be read"
            raise CallAbortedError(Status.INTERNAL, text) from error

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        self._budget.held_bytes += size
        if size > 0 and self._budget.held_bytes > self._budget.bound_bytes:
            text = "the calls of this connection hold too many bytes of requests"
            raise CallAbortedError(Status.RESOURCE_EXHAUSTED, text)

    def _credit(self) -> None:
        """A message that is not whole must be able to go on; whole ones wait for the method."""
        whole_bytes = self._held_bytes - self._reader.held_bytes
        if self._link.connection.credit(self._stream, whole_bytes):
            self._link.flush_soon()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
