"""The sending half of a connection: answers, and the windows that the peer gives them. No I/O."""

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
from headgate.grpc_server.streams import Stream

DEFAULT_WINDOW_BYTES = 65_535
"""Either window before a peer says otherwise (RFC 9113, section 6.9.2)."""

_RESETS_KEPT = 1024


class Sender:
    """Queues what has to be sent, and keeps the streams until both sides have ended them."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.stream_window = DEFAULT_WINDOW_BYTES
        self._window = DEFAULT_WINDOW_BYTES
        self._out: list[bytes] = []
        self._resets: OrderedDict[int, None] = OrderedDict()
        self._forgotten_id = 0

    def take(self) -> bytes:
        """The bytes that have to be sent now; empty where there are none."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def send(self, data: bytes) -> None:
        """Queues a frame that needs no window."""
        self._out.append(data)

    def was_reset(self, stream_id: int) -> bool:
        """Whether this side ended the stream first, so that frames of the peer may be late."""
        return stream_id in self._resets or stream_id <= self._forgotten_id

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Sends a RST_STREAM, and remembers it."""
        self._out.append(frames.reset(stream_id, code))
        self._resets[stream_id] = None
        if len(self._resets) > _RESETS_KEPT:
            self._forgotten_id = max(self._forgotten_id, self._resets.popitem(last=False)[0])

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """The headers of an answer, as a header block without references to a table."""
        self._out.append(frames.frame(Kind.HEADERS, END_HEADERS, stream.id, block))

    def send_data(self, stream: Stream, data: bytes) -> None:
        """More of an answer; the part that the peer's windows do not take waits."""
        stream.waiting += data
        self.send_waiting(stream)

    def end(self, stream: Stream, block: bytes) -> None:
        """The trailers, or the headers alone, that end an answer."""
        stream.last_block = block
        self.send_waiting(stream)

    def answer(self, stream: Stream, head: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer: headers, one message and trailers."""
        size = len(data)
        if stream.waiting or size > min(MAX_FRAME_BYTES, self._window, stream.send_window):
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
        self._ended(stream)

    def abort(self, stream: Stream, code: ErrorCode) -> None:
        """Ends a call at once, without trailers."""
        if self.streams.pop(stream.id, None) is not None:
            self.reset(stream.id, code)

    def send_waiting(self, stream: Stream) -> None:
        """Sends what the windows have room for, and the trailers once nothing waits."""
        if stream.id not in self.streams:
            return
        waiting = stream.waiting
        while waiting and (room := min(MAX_FRAME_BYTES, self._window, stream.send_window)) > 0:
            piece = bytes(waiting[:room])
            del waiting[:room]
            stream.send_window -= len(piece)
            self._window -= len(piece)
            self._out.append(frames.frame(Kind.DATA, 0, stream.id, piece))
        if stream.last_block is not None and not waiting:
            flags = END_HEADERS | END_STREAM
            self._out.append(frames.frame(Kind.HEADERS, flags, stream.id, stream.last_block))
            self._ended(stream)

    def widen(self, size: int) -> None:
        """The peer takes more on the connection."""
        self._window += size
        if not size or self._window > MAX_WINDOW:
            raise ConnectionFaultError(_window_fault(size), "a window that cannot be")
        for stream in [stream for stream in self.streams.values() if stream.waiting]:
            self.send_waiting(stream)

    def widen_stream(self, stream: Stream, size: int) -> None:
        """The peer takes more of one stream."""
        stream.send_window += size
        if not size or stream.send_window > MAX_WINDOW:
            raise StreamFaultError(stream.id, _window_fault(size))
        self.send_waiting(stream)

    def set_stream_window(self, size: int) -> None:
        """The windows of open streams move along with the setting (section 6.9.2)."""
        change = size - self.stream_window
        self.stream_window = size
        for stream in list(self.streams.values()):
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a window too wide")
            self.send_waiting(stream)

    def _ended(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is not None and not stream.remote_ended:
            self.reset(stream.id, ErrorCode.NO_ERROR)  # section 8.1: the rest is not wanted


def _window_fault(size: int) -> ErrorCode:
    return ErrorCode.FLOW_CONTROL_ERROR if size else ErrorCode.PROTOCOL_ERROR
