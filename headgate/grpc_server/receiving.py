"""The receiving half of a connection: header blocks and data become calls. No I/O."""

from collections.abc import Callable

from headgate.grpc_server import frames
from headgate.grpc_server.blocks import Block, BlockReader
from headgate.grpc_server.frames import (
    END_STREAM,
    MAX_WINDOW,
    ConnectionFaultError,
    ErrorCode,
    StreamFaultError,
)
from headgate.grpc_server.headers import HeaderReader, MalformedError, check_trailers
from headgate.grpc_server.sending import Sender
from headgate.grpc_server.streams import IGNORED, Handler, Stream

MAX_STREAMS = 100_000
STREAM_WINDOW_BYTES = 1024 * 1024
CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024

Accept = Callable[[Stream], Handler]
"""Begins the call of a new stream. May answer it at once. Must not raise."""


class Receiver(Sender):
    """Reads the frames of streams, and hands their calls to handlers."""

    def __init__(self, accept: Accept, max_streams: int) -> None:
        super().__init__()
        self._accept = accept
        self._max_streams = max_streams
        self._headers = HeaderReader()
        self._blocks = BlockReader()
        self._last_stream_id = 0
        self._used_bytes = 0
        self._refuses_calls = False

    def credit(self, stream: Stream, held_bytes: int = 0) -> bool:
        """Lets the peer send more of a request: all of the window but `held_bytes`.

        `held_bytes` is the part of it that waits for its method. Returns whether there is
        something to send; small credits wait until they are worth a frame.
        """
        size = STREAM_WINDOW_BYTES - stream.receive_window - held_bytes
        if size < STREAM_WINDOW_BYTES // 2 or stream.remote_ended or stream.id not in self.streams:
            return False
        stream.receive_window += size
        self._out.append(frames.window_update(stream.id, size))
        return True

    def _fail(self, fault: StreamFaultError) -> None:
        stream = self._forget(fault.stream_id)
        self._reset(fault.stream_id, fault.code)
        if stream is not None:
            cancel(stream)

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
        if stream_id > self._last_stream_id:
            self._on_request(flags, stream_id, block)
        elif (stream := self.streams.get(stream_id)) is not None:
            self._on_trailers(stream, flags, block)
        else:
            self._headers.other(block)
            self._on_closed(stream_id)

    def _on_request(self, flags: int, stream_id: int, block: bytes) -> None:
        self._last_stream_id = stream_id
        try:
            headers = self._headers.request(block)
        except MalformedError:
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR) from None
        if self._refuses_calls or len(self.streams) >= self._max_streams:
            raise StreamFaultError(stream_id, ErrorCode.REFUSED_STREAM)
        stream = Stream(stream_id, headers, self._stream_window, STREAM_WINDOW_BYTES)
        stream.remote_ended = bool(flags & END_STREAM)
        if stream.has_wrong_length():
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)
        self.streams[stream_id] = stream
        handler = self._accept(stream)
        if stream_id in self.streams:
            stream.handler = handler
            if stream.remote_ended:
                handler.feed(b"")

    def _on_trailers(self, stream: Stream, flags: int, block: bytes) -> None:
        fields = self._headers.other(block)
        if stream.remote_ended:
            raise StreamFaultError(stream.id, ErrorCode.STREAM_CLOSED)
        try:
            check_trailers(fields)
        except MalformedError:
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR) from None
        if not flags & END_STREAM:
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR)
        self._end_request(stream, b"")

    # Data and windows

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "DATA on the connection")
        size = len(payload)
        self._count_on_connection(size)
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
            self._end_request(stream, payload)
            return
        if stream.has_wrong_length():
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)
        stream.handler.feed(payload)

    def _count_on_connection(self, size: int) -> None:
        """The connection's window never closes: the windows of its streams bound each call."""
        self._used_bytes += size
        if self._used_bytes >= CONNECTION_WINDOW_BYTES // 2:
            self._out.append(frames.window_update(0, self._used_bytes))
            self._used_bytes = 0

    def _end_request(self, stream: Stream, data: bytes) -> None:
        stream.remote_ended = True
        if stream.has_wrong_length():
            raise StreamFaultError(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.handler.feed(data)

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        size = frames.read_long(payload) & MAX_WINDOW
        if not stream_id:
            self._widen(size)
        elif (stream := self.streams.get(stream_id)) is not None:
            self._widen_stream(stream, size)
        else:
            self._check_not_idle(stream_id)

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        frames.read_long(payload)
        self._check_not_idle(stream_id)
        stream = self._forget(stream_id)
        if stream is not None:
            cancel(stream)

    def _check_not_idle(self, stream_id: int) -> None:
        """Streams with even numbers are a server's, and this one opens none."""
        if not stream_id % 2 or stream_id > self._last_stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a frame on an idle stream")

    def _on_closed(self, stream_id: int) -> None:
        """DATA or HEADERS on a stream that is over: usual soon after our RST_STREAM."""
        self._check_not_idle(stream_id)
        if not self._was_reset(stream_id):
            raise ConnectionFaultError(ErrorCode.STREAM_CLOSED, "a frame on a closed stream")


def cancel(stream: Stream) -> None:
    """Ends the call behind a stream that is over."""
    handler, stream.handler = stream.handler, IGNORED
    handler.cancel()
