"""gRPC's own framing (its PROTOCOL-HTTP2 document): messages with a length, trailers, deadlines."""

import re
from collections.abc import Iterator
from urllib.parse import quote

from headgate.grpc_server.headers import STATUS_200, STATUS_415, literal
from headgate.grpc_server.methods import CallAbortedError, Status

PREFIX_BYTES = 5
ANSWER_HEAD = STATUS_200 + literal(b"content-type", b"application/grpc")
"""The header block that begins every answer."""
OK_TRAILERS = literal(b"grpc-status", b"0")
NOT_GRPC = STATUS_415
"""The header block for what is no gRPC (section "Requests": 415)."""

_TIMEOUT = re.compile(r"[0-9]{1,8}[HMSmun]")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class MessageReader:
    """Cuts the bytes of a request into its messages."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    @property
    def held_bytes(self) -> int:
        """The part of a message that has come so far."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole now. Raises CallAbortedError for one that must not be."""
        self._buffer += data
        while len(self._buffer) >= PREFIX_BYTES:
            size = int.from_bytes(self._buffer[1:PREFIX_BYTES], "big")
            self._check(self._buffer[0], size)
            end = PREFIX_BYTES + size
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[PREFIX_BYTES:end])
            del self._buffer[:end]
            yield message

    def _check(self, compressed: int, size: int) -> None:
        if compressed:
            text = "messages may not be compressed here"
            raise CallAbortedError(Status.UNIMPLEMENTED, text)
        if size > self._max_bytes:
            text = f"a message of {size} bytes; at most {self._max_bytes} are allowed"
            raise CallAbortedError(Status.RESOURCE_EXHAUSTED, text)


def framed(message: bytes) -> bytes:
    """A message as it goes into DATA: uncompressed, with its length."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def trailers(status: Status, text: str = "") -> bytes:
    """The header block that ends a call."""
    block = literal(b"grpc-status", str(int(status)).encode())
    if text:
        encoded = quote(text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
        block += literal(b"grpc-message", encoded.encode())
    return block


def timeout_s(text: str) -> float:
    """The seconds of a `grpc-timeout` header. Raises CallAbortedError for what is none."""
    if not _TIMEOUT.fullmatch(text):
        raise CallAbortedError(Status.INTERNAL, "grpc-timeout is not a number and a unit")
    return int(text[:-1]) * _UNITS_S[text[-1]]
