"""Header blocks: HPACK (RFC 7541) with a memory of blocks that repeat, and the rules of RFC 9113.

A proxy calls a hook with the same headers again and again. Once the dynamic table holds them, a
block is a few indices, and its meaning stays until the table changes. So it is read only once.
"""

import re
from dataclasses import dataclass

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from headgate.grpc_server.frames import ConnectionFaultError, ErrorCode

MAX_BLOCK_BYTES = 64 * 1024
"""The longest header block that is read, before and after HPACK; a hook's has some 500 bytes."""

Fields = list[tuple[str, str]]

_MEMORY_BLOCKS = 64
_REMEMBERED_BYTES = 1024
"""Longer blocks are not remembered: blocks that repeat consist of indices."""
_TABLE_BYTES = 4096
_LENGTH_DIGITS = 18
_PSEUDO = frozenset({":method", ":scheme", ":path", ":authority"})
_REQUIRED = frozenset({":method", ":scheme", ":path"})
_CONNECTION_FIELDS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_FORBIDDEN_IN_VALUES = re.compile(r"[\0\r\n]|\A[ \t]|[ \t]\Z")


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

        Raises ConnectionFaultError if HPACK cannot read them, as no later block is readable then.
        Raises MalformedError if only this call is wrong.
        """
        known = self._memory.get(block)
        if known is not None:
            return known
        fields, changed = self._decode(block)
        headers = _checked(fields)
        if not changed and len(block) <= _REMEMBERED_BYTES:
            if len(self._memory) == _MEMORY_BLOCKS:
                self._memory.clear()
            self._memory[block] = headers
        return headers

    def other(self, block: bytes) -> Fields:
        """The fields of trailers, or of a block that nobody needs but that changes the table."""
        return self._decode(block)[0]

    def _decode(self, block: bytes) -> tuple[Fields, bool]:
        """The fields of a block, and whether it changed the table."""
        table = self._decoder.header_table
        entries, size = table.dynamic_entries, table.maxsize
        newest, count = entries[0] if entries else None, len(entries)
        try:
            read = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            text = f"header fields of more than {MAX_BLOCK_BYTES} bytes"
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, text) from None
        except HPACKError as error:
            text = f"a header block that HPACK cannot read: {error}"
            raise ConnectionFaultError(ErrorCode.COMPRESSION_ERROR, text) from None
        after = entries[0] if entries else None  # an insertion puts a new object in front
        changed = newest is not after or count != len(entries) or size != table.maxsize
        if changed:
            self._memory.clear()
        # A byte that is no ASCII must not cost the connection: gRPC's own fields have none.
        return [(str(name, "latin-1"), str(value, "latin-1")) for name, value in read], changed


def check_trailers(fields: Fields) -> None:
    """Raises MalformedError for trailers with a pseudo-header or a forbidden field."""
    for name, value in fields:
        _check_field(name, value)


def _checked(fields: Fields) -> Headers:
    pseudo: dict[str, str] = {}
    plain: Fields = []
    for name, value in fields:
        if name.startswith(":"):
            if plain or name in pseudo or name not in _PSEUDO:
                raise MalformedError(f"{name} is not allowed there")
            pseudo[name] = value
        else:
            _check_field(name, value)
            plain.append((name, value))
    if not pseudo.keys() >= _REQUIRED or not pseudo[":path"]:
        raise MalformedError("a pseudo-header field is missing")
    named = dict(plain)
    return Headers(
        method=pseudo[":method"],
        path=pseudo[":path"],
        content_type=named.get("content-type", ""),
        timeout=named.get("grpc-timeout"),
        content_length=_content_length(plain),
        fields=tuple(plain),
    )


def _check_field(name: str, value: str) -> None:
    """RFC 9113, sections 8.2.1 and 8.2.2."""
    if not _NAME.fullmatch(name) or name in _CONNECTION_FIELDS:
        raise MalformedError(f"HTTP/2 does not allow the field {name!r}")
    if _FORBIDDEN_IN_VALUES.search(value):
        raise MalformedError(f"the value of {name} has a forbidden character")
    if name == "te" and value != "trailers":
        raise MalformedError("te may only be trailers")


def _content_length(fields: Fields) -> int | None:
    lengths = {value for name, value in fields if name == "content-length"}
    if not lengths:
        return None
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
        raise MalformedError("content-length is not one number")
    return int(length)


def literal(name: bytes, value: bytes) -> bytes:
    """A field with a literal name that no table keeps (RFC 7541, section 6.2.2), not Huffman."""
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
"""`:status: 415`, a literal with the static table's name."""
