"""The memory of header blocks never changes what a block means."""

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from headgate.grpc_server.frames import ConnectionFaultError
from headgate.grpc_server.headers import MAX_BLOCK_BYTES, HeaderReader, literal
from tests.grpc_server.peer import CALL

CALL_BLOCK = b"".join(literal(name.encode(), value.encode()) for name, value in CALL)


def size_update(size: int) -> bytes:
    """RFC 7541, section 6.3."""
    return b"\x3f" + bytes((size - 31 & 0x7F | 0x80, size - 31 >> 7)) if size > 30 else b"\x20"


SIZES = st.sampled_from([0, 60, 300, 4_096]).map(size_update)
FIELDS = st.one_of(
    st.integers(62, 68).map(lambda index: bytes((0x80 | index,))),
    st.sampled_from([b"a", b"b", b"c" * 50]).map(lambda value: b"\x40" + literal(b"x", value)[1:]),
    st.just(literal(b"y", b"not kept")),
)
BLOCKS = st.tuples(st.lists(SIZES, max_size=2), st.lists(FIELDS, max_size=3)).map(
    lambda parts: b"".join(parts[0]) + CALL_BLOCK + b"".join(parts[1])
)


@given(
    st.lists(BLOCKS, min_size=1, max_size=5).flatmap(lambda some: st.lists(st.sampled_from(some)))
)
def test_a_reader_with_memory_reads_as_one_without(blocks: list[bytes]) -> None:
    """Blocks repeat, and the dynamic table fills, is emptied and is resized, as a client wants."""
    plain, reader = Decoder(), HeaderReader()
    for block in blocks:
        try:
            expected = [tuple(field) for field in plain.decode(block)]
        except HPACKError:
            with pytest.raises(ConnectionFaultError):
                reader.request(block)
            return
        assert [*CALL[:4], *reader.request(block).fields] == expected


def test_entries_that_a_resize_drops_are_not_remembered() -> None:
    """Also if the newest entry stays, and the table has its former size again."""
    reader = HeaderReader()
    kept = [b"\x40" + literal(b"x", value)[1:] for value in (b"a", b"b")]
    older = CALL_BLOCK + b"\xbf"  # index 63
    for block in (CALL_BLOCK + kept[0], CALL_BLOCK + kept[1], older, older):
        reader.request(block)
    reader.request(size_update(60) + size_update(4_096) + CALL_BLOCK)
    with pytest.raises(ConnectionFaultError):
        reader.request(older)


def test_a_block_that_repeats_is_read_once() -> None:
    """The third time, as the second still finds another table than the first."""
    encoder, reader = Encoder(), HeaderReader()
    first, second, third = (reader.request(encoder.encode(list(CALL))) for _ in range(3))
    assert first is not second
    assert second is third


def test_memory_of_blocks_is_bounded() -> None:
    """Blocks that do not change the table are remembered, some at a time, and only short ones."""
    reader, start = HeaderReader(), Encoder().encode(list(CALL))
    reader.request(start)
    for number in range(1_000):
        reader.request(Encoder().encode(list(CALL[:1])) + _rest(str(number).encode()))
    reader.request(Encoder().encode(list(CALL[:1])) + _rest(b"x" * 5_000))
    assert len(reader._memory) <= 64
    assert all(len(block) < 2_000 for block in reader._memory)


def _rest(value: bytes) -> bytes:
    fields = [(name.encode(), text.encode()) for name, text in CALL[1:]]
    return b"".join(literal(*field) for field in [*fields, (b"x", value)])


@given(st.binary(max_size=20_000), st.binary(min_size=1, max_size=20_000))
def test_a_literal_is_read_as_it_was(value: bytes, name: bytes) -> None:
    """RFC 7541, sections 5.1 and 6.2.2, for every length."""
    ((read_name, read_value),) = Decoder(MAX_BLOCK_BYTES).decode(literal(name, value), raw=True)
    assert (read_name, read_value) == (name, value)
