"""One connection with its socket: bytes in, calls on, frames out, and a decent end."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol, cast

from headgate.core.rpc import Method, Status
from headgate.grpc_server.calls import Call
from headgate.grpc_server.connection import Connection
from headgate.grpc_server.messages import ANSWER_HEAD, NOT_GRPC, is_grpc, trailers
from headgate.grpc_server.requests import Budget
from headgate.grpc_server.streams import IGNORED, Handler, Stream

MAX_HELD_MESSAGES = 4
"""How many messages of the largest size the calls of a connection may hold at once."""

_PING_S = 1.0
"""How long a peer may take to answer the PING of a drain."""
_LINGER_S = 2.0
"""How long a peer may read nothing before an ended connection is cut off."""
_NOT_GRPC_TEXT = b"this port takes gRPC calls only\n"


class Owner(Protocol):
    """The server, as its connections see it."""

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods by their paths."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """The bound of a message, both ways."""
        ...

    @property
    def asked_streams(self) -> int:
        """How many calls a peer is asked to have at once on a connection."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether the server ends."""
        ...

    def on_made(self, link: "ServerLink") -> None:
        """A peer has connected."""

    def on_lost(self, link: "ServerLink") -> None:
        """The connection is closed."""


class ServerLink(asyncio.Protocol):
    """A connection with its transport. Implements `Link` of calls."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._begun: list[Call] = []
        self._has_flush = False
        self._is_reading = False
        self._is_parting = False
        self._unread_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.connection = Connection(self._accept, asked_streams=owner.asked_streams)
        self.budget = Budget(MAX_HELD_MESSAGES * owner.max_message_bytes)
        self.max_message_bytes = owner.max_message_bytes
        self.is_paused = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.stalled: set[Call] = set()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._owner.on_made(self)
        if self._owner.is_draining:
            self.connection.drain()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._is_reading = True
        self.connection.receive(data)
        if self._begun:
            begun, self._begun = self._begun, []
            for call in begun:
                call.settle_in()
        self._is_reading = False
        self._flush()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.connection.lose()
        self._owner.on_lost(self)

    def pause_writing(self) -> None:
        """Reading stops too, so that a peer that reads nothing cannot fill memory."""
        self.is_paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        for call in list(self.stalled):
            call.on_room()

    # Link

    def flush_soon(self) -> None:
        if not self._has_flush and not self._is_reading:
            self._has_flush = True
            asyncio.get_running_loop().call_soon(self._flush)

    # Its end

    def drain(self) -> None:
        """Asks the peer to go elsewhere. The connection ends after its last call."""
        self.connection.drain()
        self._timer = asyncio.get_running_loop().call_later(_PING_S, self._refuse_calls)
        self._flush()

    def close(self) -> None:
        """Ends the calls that still run, and the connection."""
        for stream in list(self.connection.streams.values()):
            if isinstance(stream.handler, Call):
                stream.handler.fail(Status.UNAVAILABLE, "the server has ended")
        self.connection.lose()
        self._flush()

    def cut_off(self) -> None:
        """Closes the socket, whatever the peer has not read."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse_calls(self) -> None:
        self.connection.refuse_calls()
        self._flush()

    def _accept(self, stream: Stream) -> Handler:
        headers = stream.headers
        if headers.method != "POST" or not is_grpc(headers.content_type):
            return _NotGrpc(self.connection, stream)
        method = self._owner.methods.get(headers.path)
        if method is None:
            block = trailers(Status.UNIMPLEMENTED, f"{headers.path} is not a method of this server")
            self.connection.end(stream, ANSWER_HEAD + block)
            return IGNORED
        call = Call(self, stream, method)
        if headers.timeout is not None or method.takes_stream:
            self._begun.append(call)
        return call

    def _flush(self) -> None:
        self._has_flush = False
        data = self.connection.take()
        if self._transport is None or self._is_parting:
            return
        if data:
            self._transport.write(data)
        if self.connection.is_over or self.connection.is_drained:
            self._part()

    def _part(self) -> None:
        """Ends our side and lets the peer close: unread bytes would reset the connection."""
        self._is_parting = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is None or self._transport.is_closing():
            return
        with contextlib.suppress(OSError):  # the peer has gone already
            self._transport.write_eof()
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._linger)

    def _linger(self) -> None:
        """Cuts off a peer that does not close its side, unless it goes on reading."""
        if self._transport is None:
            return
        unread_bytes = self._transport.get_write_buffer_size()
        if unread_bytes >= self._unread_bytes:
            self.cut_off()
            return
        self._unread_bytes = unread_bytes
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._linger)


class _NotGrpc:
    """Answers a request that is not gRPC, once all of it has come. Implements `Handler`."""

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream

    def feed(self, _data: bytes) -> None:
        self._connection.credit(self._stream)
        if self._stream.remote_ended:
            block = trailers(Status.INTERNAL)
            self._connection.answer(self._stream, NOT_GRPC, _NOT_GRPC_TEXT, block)

    def cancel(self) -> None:
        """Nothing runs."""

    def on_room(self) -> None:
        """Nothing waits."""
