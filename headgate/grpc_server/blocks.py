"""Puts header blocks together from HEADERS and CONTINUATION (RFC 9113, sections 6.2 and 6.10)."""

from headgate.grpc_server import frames
from headgate.grpc_server.frames import (
    END_HEADERS,
    HAS_PRIORITY,
    ConnectionFaultError,
    ErrorCode,
    Kind,
)
from headgate.grpc_server.headers import MAX_BLOCK_BYTES

_PRIORITY_BYTES = 5

Block = tuple[int, bytes]
"""The flags of the HEADERS frame and the whole block."""


class BlockReader:
    """Collects one block at a time: no other frame may come between its frames."""

    def __init__(self) -> None:
        self._stream_id = 0
        self._flags = 0
        self._parts: bytearray | None = None

    @property
    def is_open(self) -> bool:
        """Whether a block has begun and has not ended."""
        return self._parts is not None

    def check(self, kind: int, stream_id: int) -> None:
        """Raises ConnectionFaultError for a frame that must not come inside a block."""
        if kind != Kind.CONTINUATION or stream_id != self._stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a header block was cut off")

    def begin(self, flags: int, stream_id: int, payload: bytes) -> Block | None:
        """Reads HEADERS; None if CONTINUATION follows. Raises ConnectionFaultError.

        A stream that depends on itself ends the connection, not only the stream. RFC 9113,
        section 5.4, allows that, and the block could not be skipped without reading it.
        """
        payload = frames.without_padding(flags, payload)
        if flags & HAS_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS are too short")
            if frames.dependency(payload) == stream_id:
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
            payload = payload[_PRIORITY_BYTES:]
        if flags & END_HEADERS:
            return flags, payload
        self._stream_id, self._flags, self._parts = stream_id, flags, bytearray(payload)
        return None

    def go_on(self, flags: int, payload: bytes) -> Block | None:
        """Reads CONTINUATION; None if more follows. Raises ConnectionFaultError.

        An empty frame that does not end the block is refused: endless ones would cost only time.
        """
        if self._parts is None:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._parts += payload
        is_last = bool(flags & END_HEADERS)
        if len(self._parts) > MAX_BLOCK_BYTES or not (payload or is_last):
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too long")
        if not is_last:
            return None
        block, self._parts = bytes(self._parts), None
        return self._flags, block
