"""Reads and writes HTTP/2 frames (RFC 9113, sections 4 and 6). No I/O."""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of every client (section 3.4)."""
MAX_FRAME_BYTES = 16_384
"""The default of SETTINGS_MAX_FRAME_SIZE: neither side of a connection exceeds it."""
HEAD_BYTES = 9
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1

_HEAD = Struct(">BHBBL")
_LONG = Struct(">L")
_SETTING = Struct(">HL")


class Kind(IntEnum):
    """The type of a frame (section 6)."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    """The name of a setting (section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFaultError(Exception):
    """The peer broke the protocol for the whole connection: it ends with a GOAWAY."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFaultError(Exception):
    """The peer broke the protocol for one stream: it ends with a RST_STREAM."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        super().__init__(f"stream {stream_id}: {code.name}")
        self.stream_id = stream_id
        self.code = code


Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream and payload of a frame."""


class FrameReader:
    """Cuts the bytes of a connection into frames; the bytes may come in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted_bytes = HEAD_BYTES

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises ConnectionFaultError for one that is too long."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted_bytes:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        position, end = 0, len(data)
        self._wanted_bytes = HEAD_BYTES
        while end - position >= HEAD_BYTES:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, position)
            size = high << 16 | low
            if size > MAX_FRAME_BYTES:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            after = position + HEAD_BYTES + size
            if after > end:
                self._wanted_bytes = HEAD_BYTES + size
                break
            yield kind, flags, stream_id & MAX_STREAM_ID, data[position + HEAD_BYTES : after]
            position = after
        self._buffer += data[position:]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame as it goes on the wire."""
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def window_update(stream_id: int, size_bytes: int) -> bytes:
    """A WINDOW_UPDATE frame: the peer may send `size_bytes` more; stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, _LONG.pack(size_bytes))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream_id, _LONG.pack(code))


def go_away(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame; `text` is for the people who debug the peer."""
    payload = _LONG.pack(last_stream_id) + _LONG.pack(code) + text.encode()
    return frame(Kind.GOAWAY, 0, 0, payload)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Names and values of a SETTINGS frame. Raises ConnectionFaultError for a wrong length."""
    if len(payload) % _SETTING.size:
        raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
    return list(_SETTING.iter_unpack(payload))


def read_long(payload: bytes) -> int:
    """The number of a RST_STREAM or WINDOW_UPDATE. Raises ConnectionFaultError for its length."""
    if len(payload) != _LONG.size:
        raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "a frame of a wrong length")
    number: int = _LONG.unpack(payload)[0]
    return number


def without_padding(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS. Raises ConnectionFaultError for too much padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def dependency(payload: bytes) -> int:
    """The stream that a priority depends on (RFC 7540, section 5.3.1)."""
    number: int = _LONG.unpack_from(payload)[0]
    return number & MAX_STREAM_ID
