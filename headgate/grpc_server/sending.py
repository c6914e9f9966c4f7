"""The sending half of a connection: answers, within the windows that the peer grants. No I/O."""

from collections import OrderedDict

from headgate.grpc_server import frames
from headgate.grpc_server.frames import (
    END_HEADERS,
    END_STREAM,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    ConnectionFaultError,
    ErrorCode,
    Kind,
    StreamFaultError,
)
from headgate.grpc_server.streams import IGNORED, Stream

DEFAULT_WINDOW_BYTES = 65_535
"""Each window until a peer changes it (RFC 9113, section 6.9.2)."""

_RESETS_KEPT = 1024


class Sender:
    """Queues frames to send, and keeps the streams until both sides have ended them."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self._stream_window = DEFAULT_WINDOW_BYTES
        self._window = DEFAULT_WINDOW_BYTES
        self._out: list[bytes] = []
        self._blocked: dict[int, Stream] = {}
        """Streams with DATA that no window had room for, the longest-waiting first."""
        self._resets: OrderedDict[int, None] = OrderedDict()
        self._forgotten_id = 0

    def take(self) -> bytes:
        """The bytes to send now; empty if there are none."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """The headers of an answer, as a header block without references to a table."""
        self._out.append(frames.frame(Kind.HEADERS, END_HEADERS, stream.id, block))

    def send_data(self, stream: Stream, data: bytes) -> None:
        """More of an answer; bytes for which the peer's windows have no room wait."""
        stream.waiting += data
        self._send_waiting(stream)

    def end(self, stream: Stream, block: bytes) -> None:
        """The trailers, or the headers alone, that end an answer."""
        stream.last_block = block
        self._send_waiting(stream)

    def answer(self, stream: Stream, head: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer: headers, one message and trailers."""
        size = len(data)
        if size > min(MAX_FRAME_BYTES, self._window, stream.send_window):
            self.send_headers(stream, head)
            stream.waiting += data
            self.end(stream, trailers)
            return
        stream.send_window -= size
        self._window -= size
        self._out += (
            frames.frame(Kind.HEADERS, END_HEADERS, stream.id, head),
            frames.frame(Kind.DATA, 0, stream.id, data),
            frames.frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream.id, trailers),
        )
        self._end_stream(stream)

    def abort(self, stream: Stream, code: ErrorCode) -> None:
        """Ends a call at once, without trailers."""
        if self._forget(stream.id) is not None:
            self._reset(stream.id, code)

    def _was_reset(self, stream_id: int) -> bool:
        """Whether this side ended the stream first, so that frames of the peer may be late."""
        return stream_id in self._resets or stream_id <= self._forgotten_id

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        """Sends a RST_STREAM, and remembers it."""
        self._out.append(frames.reset(stream_id, code))
        self._resets[stream_id] = None
        if len(self._resets) > _RESETS_KEPT:
            self._forgotten_id = max(self._forgotten_id, self._resets.popitem(last=False)[0])

    def _forget(self, stream_id: int) -> Stream | None:
        """The stream is over. Its call stays alone, so that no cycle keeps both in memory."""
        self._blocked.pop(stream_id, None)
        return self.streams.pop(stream_id, None)

    def _send_waiting(self, stream: Stream) -> None:
        """Sends the bytes that the windows have room for, and the trailers after the last byte."""
        if stream.id not in self.streams:
            return
        waiting = stream.waiting
        while waiting and (room := min(MAX_FRAME_BYTES, self._window, stream.send_window)) > 0:
            piece = bytes(waiting[:room])
            del waiting[:room]
            stream.send_window -= len(piece)
            self._window -= len(piece)
            self._out.append(frames.frame(Kind.DATA, 0, stream.id, piece))
        if waiting:
            self._blocked[stream.id] = stream
        elif stream.last_block is not None:
            flags = END_HEADERS | END_STREAM
            self._out.append(frames.frame(Kind.HEADERS, flags, stream.id, stream.last_block))
            self._end_stream(stream)
        else:
            self._blocked.pop(stream.id, None)

    def _send_blocked(self, stream: Stream) -> None:
        if stream.id in self._blocked:
            handler = stream.handler
            self._send_waiting(stream)
            handler.on_room()

    def _widen(self, size: int) -> None:
        """The peer takes `size` bytes more on the connection."""
        self._window += size
        if not size or self._window > MAX_WINDOW:
            raise ConnectionFaultError(_window_fault(size), "a window that cannot be")
        for stream in list(self._blocked.values()):
            if self._window <= 0:
                return
            self._send_blocked(stream)

    def _widen_stream(self, stream: Stream, size: int) -> None:
        """The peer takes `size` bytes more on one stream."""
        stream.send_window += size
        if not size or stream.send_window > MAX_WINDOW:
            raise StreamFaultError(stream.id, _window_fault(size))
        self._send_blocked(stream)

    def _set_stream_window(self, size: int) -> None:
        """The windows of open streams move along with the setting (section 6.9.2)."""
        change = size - self._stream_window
        self._stream_window = size
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too wide")
        for stream in list(self._blocked.values()):
            self._send_blocked(stream)

    def _end_stream(self, stream: Stream) -> None:
        self._forget(stream.id)
        stream.handler = IGNORED
        if not stream.remote_ended:
            self._reset(stream.id, ErrorCode.NO_ERROR)  # section 8.1: the rest is not needed


def _window_fault(size: int) -> ErrorCode:
    return ErrorCode.FLOW_CONTROL_ERROR if size else ErrorCode.PROTOCOL_ERROR
