"""The server's side of one HTTP/2 connection (RFC 9113), without I/O.

Bytes go in by `receive`; calls come out by the `Receiver`; what has to be sent is taken with
`take`. Memory is bounded: header blocks, streams and windows have limits, and a peer that keeps
none of them is told so and left.
"""

from collections.abc import Callable
from typing import Protocol

from headgate.grpc_server import frames
from headgate.grpc_server.blocks import Block, BlockReader
from headgate.grpc_server.frames import (
    ACK,
    END_STREAM,
    MAX_FRAME_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PREFACE,
    ConnectionFaultError,
    ErrorCode,
    FrameReader,
    Kind,
    Setting,
    StreamFaultError,
)
from headgate.grpc_server.headers import (
    MAX_BLOCK_BYTES,
    HeaderReader,
    Headers,
    MalformedError,
    check_trailers,
)
from headgate.grpc_server.sending import DEFAULT_WINDOW_BYTES, Sender
from headgate.grpc_server.streams import Stream

MAX_STREAMS = 100_000
STREAM_WINDOW_BYTES = 1024 * 1024
CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
_DRAIN_PING = b"headgate"

_SETTINGS = frames.settings(
    {
        Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    }
) + frames.window_update(0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)


class Receiver(Protocol):
    """Gets the calls of a connection. Nothing here may raise."""

    def on_call(self, stream: Stream) -> None:
        """A call begins."""

    def on_data(self, stream: Stream, data: bytes) -> None:
        """More of a call's request; `stream.remote_ended` says whether it is the last of it."""

    def on_reset(self, stream: Stream) -> None:
        """A call is over: its peer, or a fault, has ended it."""


class Connection(Sender):
    """See above. `closing` is true once nothing more will be read."""

    def __init__(self, receiver: Receiver, max_streams: int = MAX_STREAMS) -> None:
        super().__init__()
        self._receiver = receiver
        self._max_streams = max_streams
        self._frames = FrameReader()
        self._headers = HeaderReader()
        self._preface = bytearray()
        self._is_greeted = False
        self._blocks = BlockReader()
        self._last_stream_id = 0
        self._receive_window = CONNECTION_WINDOW_BYTES
        self._credit_bytes = 0
        self._is_draining = False
        self._refuses_after: int | None = None
        self.closing = False
        self.send(_SETTINGS)
        self._on: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.DATA: self._on_data,
            Kind.HEADERS: self._on_headers,
            Kind.PRIORITY: self._on_priority,
            Kind.RST_STREAM: self._on_rst_stream,
            Kind.SETTINGS: self._on_settings,
            Kind.PUSH_PROMISE: self._on_push_promise,
            Kind.PING: self._on_ping,
            Kind.GOAWAY: self._on_go_away,
            Kind.WINDOW_UPDATE: self._on_window_update,
            Kind.CONTINUATION: self._on_continuation,
        }

    def receive(self, data: bytes) -> None:
        """Reads what the peer sent, in any pieces. After a fault it reads nothing more."""
        if self.closing:
            return
        try:
            if not self._is_greeted:
                data = self._greet(data)
            for kind, flags, stream_id, payload in self._frames.feed(data):
                self._receive_frame(kind, flags, stream_id, payload)
        except ConnectionFaultError as fault:
            self.send(frames.go_away(self._last_stream_id, fault.code, str(fault)))
            self.lose()

    def lose(self) -> None:
        """The connection is over: so are its calls."""
        self.closing = True
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            self._receiver.on_reset(stream)

    def drain(self) -> None:
        """Tells the peer to begin no more calls here; those that it has begun go on.

        The last stream is named once the peer has answered a PING, as calls may be under way
        (RFC 9113, section 6.8).
        """
        if not self._is_draining:
            self._is_draining = True
            self.send(frames.go_away(MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self.send(frames.frame(Kind.PING, 0, 0, _DRAIN_PING))

    def credit(self, stream: Stream, size_bytes: int) -> None:
        """The peer may send so many bytes more of this call: they have been dealt with."""
        if not stream.remote_ended and stream.id in self.streams and size_bytes:
            stream.receive_window += size_bytes
            self.send(frames.window_update(stream.id, size_bytes))

    def _greet(self, data: bytes) -> bytes:
        self._preface += data
        if not PREFACE.startswith(self._preface[: len(PREFACE)]):
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
        if len(self._preface) < len(PREFACE):
            return b""
        self._is_greeted = True
        rest = bytes(self._preface[len(PREFACE) :])
        self._preface.clear()
        return rest

    def _receive_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self._blocks.check(kind, stream_id)
        handler = self._on.get(kind)
        if handler is None:  # RFC 9113, section 4.1: unknown kinds are ignored
            return
        try:
            handler(flags, stream_id, payload)
        except StreamFaultError as fault:
            self._fail(fault)

    def _fail(self, fault: StreamFaultError) -> None:
        stream = self.streams.pop(fault.stream_id, None)
        self.reset(fault.stream_id, fault.code)
        if stream is not None:
            self._receiver.on_reset(stream)

    # Header blocks

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id % 2:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "HEADERS on no client's stream")
        self._on_block(stream_id, self._blocks.begin(flags, stream_id, payload))

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._on_block(stream_id, self._blocks.go_on(flags, payload))

    def _on_block(self, stream_id: int, whole: Block | None) -> None:
        if whole is None:
            return
        flags, block = whole
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._on_trailers(stream, flags, block)
        elif stream_id > self._last_stream_id:
            self._on_request(flags, stream_id, block)
        else:
            self._headers.skip(block)
            self._on_closed(stream_id)

    def _on_request(self, flags: int, stream_id: int, block: bytes) -> None:
        self._last_stream_id = stream_id
        try:
            headers = self._headers.request(block)
        except MalformedError:
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR) from None
        if self._refuses_after is not None:
            return
        if len(self.streams) >= self._max_streams:
            raise StreamFaultError(stream_id, ErrorCode.REFUSED_STREAM)
        self._open(stream_id, headers, ended=bool(flags & END_STREAM))

    def _open(self, stream_id: int, headers: Headers, ended: bool) -> None:
        stream = Stream(stream_id, headers, self.stream_window, STREAM_WINDOW_BYTES)
        stream.remote_ended = ended
        if stream.is_of_another_length():
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)
        self.streams[stream_id] = stream
        self._receiver.on_call(stream)
        if ended:
            self._receiver.on_data(stream, b"")

    def _on_trailers(self, stream: Stream, flags: int, block: bytes) -> None:
        fields = self._headers.skip(block)
        if stream.remote_ended:
            raise StreamFaultError(stream.id, ErrorCode.STREAM_CLOSED)
        try:
            check_trailers(fields)
        except MalformedError:
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR) from None
        if not flags & END_STREAM:
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR)
        self._end_remotely(stream, b"")

    # Data and windows

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "DATA on the connection")
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "more than the window")
        self._credit_connection(size)
        payload = frames.without_padding(flags, payload)
        stream = self.streams.get(stream_id)
        if stream is None:
            self._on_closed(stream_id)
            return
        if stream.remote_ended:
            raise StreamFaultError(stream_id, ErrorCode.STREAM_CLOSED)
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFaultError(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        stream.received_bytes += len(payload)
        if flags & END_STREAM:
            self._end_remotely(stream, payload)
        else:
            if stream.is_of_another_length():
                raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)
            self.credit(stream, size - len(payload))
            self._receiver.on_data(stream, payload)

    def _credit_connection(self, size: int) -> None:
        """The connection's window only bounds what one read brings: streams have their own."""
        self._credit_bytes += size
        if self._credit_bytes >= CONNECTION_WINDOW_BYTES // 2:
            self._receive_window += self._credit_bytes
            self.send(frames.window_update(0, self._credit_bytes))
            self._credit_bytes = 0

    def _end_remotely(self, stream: Stream, data: bytes) -> None:
        stream.remote_ended = True
        if stream.is_of_another_length():
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR)
        self._receiver.on_data(stream, data)

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        size = frames.read_long(payload) & MAX_WINDOW
        if not stream_id:
            self.widen(size)
        elif (stream := self.streams.get(stream_id)) is not None:
            self.widen_stream(stream, size)
        else:
            self._check_not_idle(stream_id)

    # All else

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "an ACK with a payload")
            return
        values = frames.read_settings(payload)
        self.send(frames.frame(Kind.SETTINGS, ACK, 0))
        for name, value in values:
            self._set(name, value)

    def _set(self, name: int, value: int) -> None:
        fault = ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a setting that cannot be")
        match name:
            case Setting.ENABLE_PUSH if value > 1:
                raise fault
            case Setting.MAX_FRAME_SIZE if not MAX_FRAME_BYTES <= value < 2**24:
                raise fault
            case Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a window too wide")
                self.set_stream_window(value)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        if not flags & ACK:
            self.send(frames.frame(Kind.PING, ACK, 0, payload))
        elif payload == _DRAIN_PING and self._is_draining:
            self._refuses_after = self._last_stream_id
            self.send(frames.go_away(self._last_stream_id, ErrorCode.NO_ERROR))

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.read_long(payload)
        self._check_not_idle(stream_id)
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._receiver.on_reset(stream)

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != 5:
            raise StreamFaultError(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        if frames.dependency(payload) == stream_id:
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)

    def _on_go_away(self, _flags: int, stream_id: int, _payload: bytes) -> None:
        """The peer begins no more calls; those that run go on."""
        if stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "GOAWAY of a stream")

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _check_not_idle(self, stream_id: int) -> None:
        if not stream_id or stream_id > self._last_stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a frame on an idle stream")

    def _on_closed(self, stream_id: int) -> None:
        """DATA or HEADERS on a stream that is over: late ones after our RST_STREAM are usual."""
        self._check_not_idle(stream_id)
        if not self.was_reset(stream_id) and self._refuses_after is None:
            raise ConnectionFaultError(ErrorCode.STREAM_CLOSED, "a frame on a closed stream")
