"""The server's side of one HTTP/2 connection (RFC 9113), without I/O.

`receive` takes bytes; `accept` gets each new call; `take` gives the bytes to send. Memory is
bounded: header blocks, streams and windows have limits, and a peer that breaks one is cut off.
"""

from typing import ClassVar

from headgate.grpc_server import frames
from headgate.grpc_server.frames import (
    ACK,
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
from headgate.grpc_server.headers import MAX_BLOCK_BYTES
from headgate.grpc_server.receiving import (
    CONNECTION_WINDOW_BYTES,
    MAX_STREAMS,
    STREAM_WINDOW_BYTES,
    Accept,
    Receiver,
    cancel,
)
from headgate.grpc_server.sending import DEFAULT_WINDOW_BYTES

_DRAIN_PING = b"headgate"
_PING_BYTES = 8


class Connection(Receiver):
    """See above. `is_over` is true once nothing more will be read.

    Beyond `max_streams` calls are refused. The peer is asked to have at most `asked_streams`. Its
    first calls may come before it has read this, so a few more are taken.
    """

    def __init__(
        self,
        accept: Accept,
        max_streams: int = MAX_STREAMS,
        asked_streams: int = MAX_STREAMS,
    ) -> None:
        super().__init__(accept, max_streams)
        self.is_over = False
        self._frames = FrameReader()
        self._preface = bytearray()
        self._is_greeted = False
        self._has_settings = False
        self._is_draining = False
        self._last_accepted_id: int | None = None
        ours = {
            Setting.MAX_CONCURRENT_STREAMS: min(asked_streams, max_streams),
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
        }
        more_bytes = CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES
        self._out += (frames.settings(ours), frames.window_update(0, more_bytes))

    @property
    def is_drained(self) -> bool:
        """Whether no call runs and none can begin."""
        return self._refuses_calls and not self.streams

    def receive(self, data: bytes) -> None:
        """Reads bytes of the peer, in any pieces. After a fault it reads nothing more."""
        if self.is_over:
            return
        try:
            if not self._is_greeted:
                data = self._greet(data)
            for kind, flags, stream_id, payload in self._frames.feed(data):
                self._receive_frame(kind, flags, stream_id, payload)
        except ConnectionFaultError as fault:
            self._go_away(fault.code, str(fault))
            self.lose()

    def lose(self) -> None:
        """The connection is over: so are its calls."""
        self.is_over = True
        streams, self.streams = self.streams, {}
        self._blocked.clear()
        for stream in streams.values():
            cancel(stream)

    def drain(self) -> None:
        """Asks the peer to begin no more calls here; the calls that it has begun go on.

        New calls may be under way. So this names the highest stream first, and `refuse_calls`
        names the last one once the peer has answered a PING (RFC 9113, section 6.8).
        """
        if not self._is_draining:
            self._is_draining = True
            self._out.append(frames.go_away(MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self._out.append(frames.frame(Kind.PING, 0, 0, _DRAIN_PING))

    def refuse_calls(self) -> None:
        """Accepts no more calls, and tells the peer which one was the last."""
        if not self._refuses_calls:
            self._refuses_calls = True
            self._last_accepted_id = self._last_stream_id
            self._go_away(ErrorCode.NO_ERROR)

    def _go_away(self, code: ErrorCode, text: str = "") -> None:
        last = self._last_stream_id if self._last_accepted_id is None else self._last_accepted_id
        self._out.append(frames.go_away(last, code, text))

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
        if self._blocks.is_open:
            self._blocks.check(kind, stream_id)
        if not self._has_settings:
            if kind != Kind.SETTINGS or flags & ACK:
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
            self._has_settings = True
        if kind >= len(self._ON):
            return  # RFC 9113, section 5.5: unknown kinds are ignored
        try:
            self._ON[kind](self, flags, stream_id, payload)
        except StreamFaultError as fault:
            self._fail(fault)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "an ACK with a payload")
            return
        values = frames.read_settings(payload)
        for name, value in values:
            _check_setting(name, value)
        # A frame may repeat a setting thousands of times: only the last value has an effect.
        window = dict(values).get(Setting.INITIAL_WINDOW_SIZE)
        self._out.append(frames.frame(Kind.SETTINGS, ACK, 0))
        if window is not None:
            self._set_stream_window(window)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != _PING_BYTES:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        if not flags & ACK:
            self._out.append(frames.frame(Kind.PING, ACK, 0, payload))
        elif payload == _DRAIN_PING and self._is_draining:
            self.refuse_calls()

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != 5:
            raise StreamFaultError(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        if frames.dependency(payload) == stream_id:
            raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)

    def _on_go_away(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """The peer begins no more calls; those that run go on."""
        if stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    _ON: ClassVar = (  # by the number of the frame's kind
        Receiver._on_data,
        Receiver._on_headers,
        _on_priority,
        Receiver._on_rst_stream,
        _on_settings,
        _on_push_promise,
        _on_ping,
        _on_go_away,
        Receiver._on_window_update,
        Receiver._on_continuation,
    )


def _check_setting(name: int, value: int) -> None:
    """RFC 9113, section 6.5.2."""
    if name == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
        raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too wide")
    wrong_push = name == Setting.ENABLE_PUSH and value > 1
    wrong_size = name == Setting.MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 2**24
    if wrong_push or wrong_size:
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a setting with a forbidden value")
