"""Header blocks: HPACK (RFC 7541) with a memory of blocks that repeat, and the rules of RFC 9113.

A proxy calls a hook with the same headers over and over. Once they stand in the dynamic table a
block is a few indices, and means the same until the table changes; so its reading is remembered.
"""

from dataclasses import dataclass

from hpack import Decoder
from hpack.exceptions import HPACKError

from headgate.grpc_server.frames import ConnectionFaultError, ErrorCode

MAX_BLOCK_BYTES = 64 * 1024
"""The longest header block that is read, before and after HPACK; a hook's has some 500 bytes."""

_MEMORY_BLOCKS = 64
_TABLE_BYTES = 4096
_PSEUDO = frozenset({":method", ":scheme", ":path", ":authority"})
_REQUIRED = frozenset({":method", ":scheme", ":path"})
_OF_CONNECTIONS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)


class MalformedError(ValueError):
    """Headers that RFC 9113, section 8, calls malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """The headers of one call, checked. `fields` leaves out pseudo-header fields."""

    method: str
    path: str
    content_type: str
    timeout: str | None
    content_length: int | None
    fields: tuple[tuple[str, str], ...]


class HeaderReader:
    """Reads the header blocks of one connection, in the order in which they come."""

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_BLOCK_BYTES)
        self._decoder.max_allowed_table_size = _TABLE_BYTES
        self._memory: dict[bytes, Headers] = {}

    def request(self, block: bytes) -> Headers:
        """The headers that begin a call.

        Raises ConnectionFaultError where HPACK is broken, and MalformedError where only this
        call is.
        """
        known = self._memory.get(block)
        if known is not None:
            return known
        fields, changed = self._decode(block)
        headers = _checked(fields)
        if not changed:
            if len(self._memory) == _MEMORY_BLOCKS:
                self._memory.clear()
            self._memory[block] = headers
        return headers

    def skip(self, block: bytes) -> list[tuple[str, str]]:
        """Reads trailers, or headers of a call that is over: the table has to follow them."""
        return self._decode(block)[0]

    def _decode(self, block: bytes) -> tuple[list[tuple[str, str]], bool]:
        table = self._decoder.header_table
        before = table.dynamic_entries[0] if table.dynamic_entries else None
        size = table.maxsize
        try:
            fields = [(str(name), str(value)) for name, value in self._decoder.decode(block)]
        except (HPACKError, UnicodeDecodeError) as error:
            text = f"a header block that HPACK cannot read: {error}"
            raise ConnectionFaultError(ErrorCode.COMPRESSION_ERROR, text) from None
        after = table.dynamic_entries[0] if table.dynamic_entries else None
        changed = before is not after or size != table.maxsize
        if changed:
            self._memory.clear()
        return fields, changed


def check_trailers(fields: list[tuple[str, str]]) -> None:
    """Raises MalformedError where trailers have a pseudo-header field (section 8.1)."""
    if any(name.startswith(":") for name, _ in fields):
        raise MalformedError("a pseudo-header field in trailers")


def _checked(fields: list[tuple[str, str]]) -> Headers:
    pseudo: dict[str, str] = {}
    plain: list[tuple[str, str]] = []
    for name, value in fields:
        if name.startswith(":"):
            if plain or name in pseudo or name not in _PSEUDO:
                raise MalformedError(f"{name} where it must not be")
            pseudo[name] = value
        else:
            _check_field(name, value)
            plain.append((name, value))
    if not pseudo.keys() >= _REQUIRED or not pseudo[":path"]:
        raise MalformedError("a pseudo-header field is missing")
    return _headers(pseudo, plain)


def _check_field(name: str, value: str) -> None:
    if name != name.lower() or name in _OF_CONNECTIONS:
        raise MalformedError(f"the field {name!r} is not HTTP/2's")
    if name == "te" and value != "trailers":
        raise MalformedError("te may only be trailers")


def _headers(pseudo: dict[str, str], plain: list[tuple[str, str]]) -> Headers:
    named = dict(plain)
    length = named.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise MalformedError("content-length is not a number")
    return Headers(
        method=pseudo[":method"],
        path=pseudo[":path"],
        content_type=named.get("content-type", ""),
        timeout=named.get("grpc-timeout"),
        content_length=None if length is None else int(length),
        fields=tuple(plain),
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A field with a new name that no table keeps (RFC 7541, section 6.2.2), without Huffman."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, digits = len(text) - 127, bytearray((127,))
    while rest >= 128:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits) + text


STATUS_200 = b"\x88"
"""`:status: 200`, by the static table."""
STATUS_415 = b"\x08\x03415"
"""`:status: 415`, a literal under the static table's name."""
