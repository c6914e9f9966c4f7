"""The server: connections on a socket, calls on one event loop, and their end."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, cast

from headgate.grpc_server.calls import Call
from headgate.grpc_server.connection import Connection
from headgate.grpc_server.messages import ANSWER_HEAD, NOT_GRPC, trailers
from headgate.grpc_server.methods import Method, Status
from headgate.grpc_server.streams import Stream

log = logging.getLogger("headgate.grpc")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""A rewritten body travels to a hook and back; the door refuses larger ones before that."""
_BACKLOG = 1024
_NOT_GRPC_TEXT = b"this port takes gRPC calls only\n"


class Server:
    """Serves methods. `start` may be called for several addresses."""

    def __init__(
        self, methods: Iterable[Method], max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._methods: dict[str, Method] = {method.path: method for method in methods}
        self._max_message_bytes = max_message_bytes
        self._links: set[_Link] = set()
        self._servers: list[asyncio.Server] = []
        self._idle = asyncio.Event()

    @property
    def calls(self) -> int:
        """How many calls run."""
        return sum(link.calls for link in self._links)

    async def start(self, address: str) -> int:
        """Listens on `host:port` or `unix:PATH`; returns the port, 0 for a socket.

        Raises OSError where the address is taken or is none, ValueError where it has no port.
        """
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            server = await loop.create_unix_server(self._link, path, backlog=_BACKLOG)
        else:
            host, _, port = address.rpartition(":")
            name = host.strip("[]") or None
            server = await loop.create_server(self._link, name, int(port), backlog=_BACKLOG)
        self._servers.append(server)
        where: Any = server.sockets[0].getsockname()
        return 0 if isinstance(where, str | bytes) else int(where[1])

    async def drain(self, grace_s: float) -> None:
        """Takes no more connections and calls, lets those that run end, for `grace_s` at most."""
        for server in self._servers:
            server.close()
        for link in self._links:
            link.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.calls:
                    self._idle.clear()
                    await self._idle.wait()
        await self._close()

    async def _close(self) -> None:
        tasks = [task for link in self._links for task in link.tasks()]
        for link in list(self._links):
            link.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _link(self) -> "_Link":
        return _Link(self._methods, self._max_message_bytes, self._links, self._idle)


class _Link(asyncio.Protocol):
    """A connection with its transport. Implements `Receiver` and `Link`."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        max_message_bytes: int,
        links: "set[_Link]",
        idle: asyncio.Event,
    ) -> None:
        self._methods = methods
        self._max_message_bytes = max_message_bytes
        self._links = links
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._flushes = False
        self._progress: asyncio.Future[None] | None = None
        self.connection = Connection(self)
        self.is_paused = False

    @property
    def calls(self) -> int:
        """How many of its calls have no answer yet."""
        return len(self.connection.streams)

    def tasks(self) -> list["asyncio.Task[None]"]:
        """What runs for its calls."""
        return [call.task for call in self._calls.values() if call.task is not None]

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no class of asyncio
        self._links.add(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.connection.receive(data)
        self._wake()
        self._flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self.connection.lose()
        self._wake()
        self._links.discard(self)
        self._idle.set()

    def pause_writing(self) -> None:
        """Nothing more is read either, so that a peer that reads nothing cannot fill memory."""
        self.is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._wake()

    # Link

    def flush_soon(self) -> None:
        if not self._flushes:
            self._flushes = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def progress(self) -> None:
        if self._progress is None or self._progress.done():
            self._progress = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._progress)

    def drain(self) -> None:
        """Asks the peer to go elsewhere."""
        self.connection.drain()
        self._flush()

    def close(self) -> None:
        """Ends the connection, and the calls on it."""
        self.connection.lose()
        self._flush()

    # Receiver

    def on_call(self, stream: Stream) -> None:
        headers = stream.headers
        if headers.method != "POST" or not headers.content_type.startswith("application/grpc"):
            return  # answered once it has come to its end
        method = self._methods.get(headers.path)
        if method is None:
            block = trailers(Status.UNIMPLEMENTED, f"{headers.path} is not a method of this server")
            self.connection.end(stream, ANSWER_HEAD + block)
            return
        call = Call(self, stream, method, self._max_message_bytes)
        self._calls[stream.id] = call
        call.begin()

    def on_data(self, stream: Stream, data: bytes) -> None:
        call = self._calls.get(stream.id)
        if call is not None:
            call.feed(data)
        elif stream.remote_ended and stream.id in self.connection.streams:
            self.connection.answer(stream, NOT_GRPC, _NOT_GRPC_TEXT, trailers(Status.INTERNAL))

    def on_reset(self, stream: Stream) -> None:
        call = self._calls.pop(stream.id, None)
        if call is not None:
            call.cancel()

    def _wake(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _flush(self) -> None:
        self._flushes = False
        data = self.connection.take()
        if self._transport is None:
            return
        if data:
            self._transport.write(data)
        if self.connection.closing:
            self._transport.close()
