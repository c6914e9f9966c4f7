"""The memory of header blocks never changes what a block means."""

from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from headgate.grpc_server.headers import MAX_BLOCK_BYTES, HeaderReader, literal
from tests.grpc_server.peer import CALL

CHANGES = st.one_of(
    st.tuples(st.just("x"), st.integers(0, 5)),
    st.tuples(st.just("y"), st.sampled_from([0, 3, 2_000, 5_000])),
    st.tuples(st.just("size"), st.sampled_from([0, 60, 300, 4_096])),
)


@given(st.lists(CHANGES, max_size=60))
def test_a_reader_with_memory_reads_as_one_without(changes: list[tuple[str, int]]) -> None:
    """Blocks repeat, the dynamic table fills, is emptied and is resized."""
    encoder, plain, reader = Encoder(), Decoder(), HeaderReader()
    for name, number in changes:
        if name == "size":
            encoder.header_table_size = number
            continue
        value = str(number) if name == "x" else "v" * number
        block = encoder.encode([*CALL, (name, value)])
        expected = [pair for pair in plain.decode(block) if not pair[0].startswith(":")]
        assert [tuple(pair) for pair in expected] == list(reader.request(block).fields)


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
