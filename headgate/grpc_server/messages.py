"""gRPC's own framing (its PROTOCOL-HTTP2 document): messages, trailers and deadlines."""

import re
from functools import lru_cache
from urllib.parse import quote

from headgate.core.rpc import CallAbortedError, Status
from headgate.grpc_server.headers import STATUS_200, STATUS_415, literal

PREFIX_BYTES = 5
_CONTENT_TYPE = "application/grpc"
_CONTENT_SUFFIXES = (f"{_CONTENT_TYPE}+", f"{_CONTENT_TYPE};")
ANSWER_HEAD = STATUS_200 + literal(b"content-type", b"application/grpc")
"""The header block that begins every answer."""
OK_TRAILERS = literal(b"grpc-status", b"0")
NOT_GRPC = STATUS_415
"""The header block that answers a request of another content type (section "Requests")."""


_TEXT_CHARACTERS = 1024
"""A longer text is cut off: each character takes up to 12 bytes of a frame of 16 KiB."""
_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class MessageReader:
    """Cuts the bytes of a request into its messages."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    @property
    def held_bytes(self) -> int:
        """The bytes of a message that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises CallAbortedError for a forbidden one."""
        if not self._buffer and len(data) >= PREFIX_BYTES:
            end = PREFIX_BYTES + self._size(data)
            if len(data) == end:  # the usual case: one frame, one message
                return [data[PREFIX_BYTES:]]
        self._buffer += data
        messages = []
        start = 0
        with memoryview(self._buffer) as held:
            while len(held) - start >= PREFIX_BYTES:
                first = start + PREFIX_BYTES
                end = first + self._size(held[start:first])
                if len(held) < end:
                    break
                messages.append(bytes(held[first:end]))
                start = end
        del self._buffer[:start]
        return messages

    def _size(self, prefix: bytes | memoryview) -> int:
        if prefix[0]:
            raise CallAbortedError(Status.UNIMPLEMENTED, "messages may not be compressed here")
        size = int.from_bytes(prefix[1:PREFIX_BYTES], "big")
        if size > self._max_bytes:
            text = f"a message of {size} bytes; at most {self._max_bytes} are allowed"
            raise CallAbortedError(Status.RESOURCE_EXHAUSTED, text)
        return size


def framed(message: bytes) -> bytes:
    """A message as it goes into DATA: uncompressed, with its length."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def is_grpc(content_type: str) -> bool:
    """Whether a request of this content type is gRPC."""
    return content_type == _CONTENT_TYPE or content_type.startswith(_CONTENT_SUFFIXES)


def trailers(status: Status, text: str = "") -> bytes:
    """The header block that ends a call."""
    block = literal(b"grpc-status", str(int(status)).encode())
    if text:
        encoded = quote(text[:_TEXT_CHARACTERS], safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
        block += literal(b"grpc-message", encoded.encode())
    return block


@lru_cache
def timeout_s(text: str) -> float:
    """The seconds of a `grpc-timeout` header. Raises CallAbortedError for any other text."""
    if not _TIMEOUT.fullmatch(text):
        raise CallAbortedError(Status.INTERNAL, "grpc-timeout is not a number and a unit")
    return int(text[:-1]) * _UNITS_S[text[-1]]
