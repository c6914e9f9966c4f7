"""Puts header blocks together from HEADERS and CONTINUATION (RFC 9113, sections 6.2 and 6.10)."""

from headgate.grpc_server import frames
from headgate.grpc_server.frames import (
    END_HEADERS,
    HAS_PRIORITY,
    ConnectionFaultError,
    ErrorCode,
    Kind,
    StreamFaultError,
)
from headgate.grpc_server.headers import MAX_BLOCK_BYTES

_PRIORITY_BYTES = 5

Block = tuple[int, bytes]
"""The flags of the HEADERS and the whole block."""


class BlockReader:
    """The block of one stream at a time: nothing may come between its frames."""

    def __init__(self) -> None:
        self._stream_id = 0
        self._flags = 0
        self._parts: bytearray | None = None

    def check(self, kind: int, stream_id: int) -> None:
        """Raises ConnectionFaultError for a frame that cuts a block off."""
        if self._parts is not None and (kind != Kind.CONTINUATION or stream_id != self._stream_id):
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a header block was cut off")

    def begin(self, flags: int, stream_id: int, payload: bytes) -> Block | None:
        """Reads HEADERS; None where CONTINUATION follows. Raises a fault for a wrong frame."""
        payload = frames.without_padding(flags, payload)
        if flags & HAS_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS are too short")
            if frames.dependency(payload) == stream_id:
                raise StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR)
            payload = payload[_PRIORITY_BYTES:]
        if flags & END_HEADERS:
            return flags, payload
        self._stream_id, self._flags, self._parts = stream_id, flags, bytearray(payload)
        return None

    def go_on(self, flags: int, payload: bytes) -> Block | None:
        """Reads CONTINUATION; None where more follows. Raises a fault for a wrong frame."""
        if self._parts is None:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._parts += payload
        if not payload or len(self._parts) > MAX_BLOCK_BYTES:
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, "a header block too long")
        if not flags & END_HEADERS:
            return None
        block, self._parts = bytes(self._parts), None
        return self._flags, block
