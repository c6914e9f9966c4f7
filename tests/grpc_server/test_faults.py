"""Each rule of RFC 9113 and 7541 that a client can break: the fault, and for whom it is one."""

from collections.abc import Callable

import pytest

from headgate.grpc_server import frames
from headgate.grpc_server.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    ErrorCode,
    Kind,
    Setting,
)
from headgate.grpc_server.receiving import STREAM_WINDOW_BYTES
from tests.grpc_server.peer import CALL, Peer, data_frame, one_fault, setting

Break = Callable[[Peer], bytes]
FULL = b"\0" * MAX_FRAME_BYTES
FULL_WINDOW = [data_frame(1, FULL)] * (STREAM_WINDOW_BYTES // MAX_FRAME_BYTES)
PING = frames.frame(Kind.PING, 0, 0, b"12345678")


def raw(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> Break:
    return lambda _: frames.frame(kind, flags, stream_id, payload)


def of_call(*sent: bytes) -> Break:
    """Frames after the headers of a call on stream 1."""
    return lambda peer: peer.headers(1) + b"".join(sent)


def of_ended(*sent: bytes) -> Break:
    """Frames after a whole request on stream 1 that is not answered yet."""
    return lambda peer: peer.headers(1, flags=END_STREAM) + b"".join(sent)


def closed(sent: Callable[[Peer], bytes]) -> Break:
    """Frames on stream 1 after its answer."""

    def after_answer(peer: Peer) -> bytes:
        peer.call(1)
        peer.answer(1)
        return sent(peer)

    return after_answer


def replaced(**fields: str | None) -> Break:
    """The headers of a call with pseudo-header fields changed, None for left out."""
    left = [(name, fields.get(name.strip(":"), value)) for name, value in CALL]
    return lambda peer: peer.headers(1, [(n, v) for n, v in left if v is not None])


def with_field(name: str, value: str) -> Break:
    return lambda peer: peer.headers(1, [*CALL, (name, value)])


def block(data: bytes) -> Break:
    return raw(Kind.HEADERS, END_HEADERS, 1, data)


def trailers(*fields: tuple[str, str], flags: int = END_STREAM) -> Break:
    return lambda peer: peer.headers(1) + peer.headers(1, fields, flags)


def inside_block(kind: int, stream_id: int) -> Break:
    return lambda peer: (
        frames.frame(Kind.HEADERS, 0, 1, peer.block()) + frames.frame(kind, 0, stream_id, b"12345")
    )


def lengths(declared: str, *pieces: bytes) -> Break:
    data = [data_frame(1, piece) for piece in pieces[:-1]]
    return lambda peer: b"".join(
        (
            peer.headers(1, [*CALL, ("content-length", declared)]),
            *data,
            data_frame(1, pieces[-1], END_STREAM),
        )
    )


def window(stream_id: int, size: int) -> bytes:
    return frames.frame(Kind.WINDOW_UPDATE, 0, stream_id, size.to_bytes(4, "big"))


PROTOCOL, SIZE = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR
FLOW, CLOSED = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.STREAM_CLOSED
COMPRESSION, CALM = ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM

OF_THE_CONNECTION: dict[str, tuple[Break, ErrorCode]] = {
    "4.2 a frame over the largest size": (raw(Kind.DATA, 0, 1, FULL + b"1"), SIZE),
    "4.2 a huge frame of an unknown kind": (raw(0xFA, 0, 0, FULL + b"1"), SIZE),
    "4.3 a block that HPACK cannot read": (block(b"\xff\xff\xff\xff\xff\xff"), COMPRESSION),
    "4.3 a frame of another kind inside a block": (inside_block(Kind.PRIORITY, 1), PROTOCOL),
    "4.3 a frame of another stream inside a block": (inside_block(Kind.CONTINUATION, 3), PROTOCOL),
    "4.3 an unknown frame inside a block": (inside_block(0xFA, 1), PROTOCOL),
    "5.1 DATA on an idle stream": (raw(Kind.DATA, 0, 1), PROTOCOL),
    "5.1 RST_STREAM on an idle stream": (raw(Kind.RST_STREAM, 0, 1, b"\0" * 4), PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": (raw(Kind.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), PROTOCOL),
    "5.1 WINDOW_UPDATE on a server's stream": (of_call(window(2, 1)), PROTOCOL),
    "5.1 CONTINUATION on an idle stream": (raw(Kind.CONTINUATION, 4, 1), PROTOCOL),
    "5.1 DATA on a closed stream": (closed(raw(Kind.DATA, 0, 1)), CLOSED),
    "5.1 HEADERS on a closed stream": (closed(lambda peer: peer.headers(1)), CLOSED),
    "5.1.1 a stream with an even number": (lambda peer: peer.headers(2), PROTOCOL),
    "5.1.1 a stream with a lower number": (
        lambda peer: peer.headers(5) + peer.headers(3),
        CLOSED,
    ),
    "6.1 DATA on the connection": (raw(Kind.DATA, 0, 0), PROTOCOL),
    "6.1 padding as long as its DATA": (of_call(data_frame(1, b"\3ab", PADDED)), PROTOCOL),
    "6.1 padding without its length": (of_call(data_frame(1, b"", PADDED)), PROTOCOL),
    "6.2 HEADERS on the connection": (raw(Kind.HEADERS, END_HEADERS, 0), PROTOCOL),
    "6.2 padding as long as its HEADERS": (
        raw(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\3ab"),
        PROTOCOL,
    ),
    "6.2 HEADERS too short for their priority": (
        raw(Kind.HEADERS, END_HEADERS | HAS_PRIORITY, 1, b"1234"),
        SIZE,
    ),
    "5.3.1 HEADERS that depend on themselves": (
        raw(Kind.HEADERS, END_HEADERS | HAS_PRIORITY, 1, b"\0\0\0\1\0"),
        PROTOCOL,
    ),
    "6.3 PRIORITY on the connection": (raw(Kind.PRIORITY, 0, 0, b"12345"), PROTOCOL),
    "6.4 RST_STREAM on the connection": (raw(Kind.RST_STREAM, 0, 0, b"\0" * 4), PROTOCOL),
    "6.4 RST_STREAM of a wrong length": (
        of_call(frames.frame(Kind.RST_STREAM, 0, 1, b"123")),
        SIZE,
    ),
    "6.5 an ACK with a payload": (raw(Kind.SETTINGS, ACK, 0, b"\0" * 6), SIZE),
    "6.5 SETTINGS of a stream": (raw(Kind.SETTINGS, 0, 1), PROTOCOL),
    "6.5 SETTINGS of a wrong length": (raw(Kind.SETTINGS, 0, 0, b"12345"), SIZE),
    "6.5.2 ENABLE_PUSH of 2": (lambda _: setting(Setting.ENABLE_PUSH, 2), PROTOCOL),
    "6.5.2 a window over the largest": (
        lambda _: setting(Setting.INITIAL_WINDOW_SIZE, 2**31),
        FLOW,
    ),
    "6.5.2 a frame size below the least": (
        lambda _: setting(Setting.MAX_FRAME_SIZE, 2**14 - 1),
        PROTOCOL,
    ),
    "6.5.2 a frame size over the largest": (
        lambda _: setting(Setting.MAX_FRAME_SIZE, 2**24),
        PROTOCOL,
    ),
    "6.6 PUSH_PROMISE by a client": (of_call(frames.frame(Kind.PUSH_PROMISE, 4, 1)), PROTOCOL),
    "6.7 PING of a stream": (raw(Kind.PING, 0, 1, b"12345678"), PROTOCOL),
    "6.7 PING of a wrong length": (raw(Kind.PING, 0, 0, b"1234567"), SIZE),
    "6.8 GOAWAY of a stream": (raw(Kind.GOAWAY, 0, 1, b"\0" * 8), PROTOCOL),
    "6.8 GOAWAY of a wrong length": (raw(Kind.GOAWAY, 0, 0, b"\0" * 7), SIZE),
    "6.9 a window of the connection widened by 0": (lambda _: window(0, 0), PROTOCOL),
    "6.9 WINDOW_UPDATE of a wrong length": (raw(Kind.WINDOW_UPDATE, 0, 0, b"123"), SIZE),
    "6.9.1 a window of the connection too wide": (lambda _: window(0, MAX_WINDOW), FLOW),
    "6.9.2 a setting that makes a window too wide": (
        of_call(window(1, MAX_WINDOW - 65_535), setting(Setting.INITIAL_WINDOW_SIZE, 65_536)),
        FLOW,
    ),
    "6.10 CONTINUATION without HEADERS": (
        of_call(frames.frame(Kind.CONTINUATION, END_HEADERS, 1)),
        PROTOCOL,
    ),
    "6.10 CONTINUATION after a whole block": (
        lambda peer: (
            frames.frame(Kind.HEADERS, 0, 1, peer.block())
            + b"".join(2 * [frames.frame(Kind.CONTINUATION, END_HEADERS, 1)])
        ),
        PROTOCOL,
    ),
    "6.10 CONTINUATION of the connection": (inside_block(Kind.CONTINUATION, 0), PROTOCOL),
    "10.5 a block of endless frames": (
        lambda peer: (
            frames.frame(Kind.HEADERS, 0, 1, peer.block())
            + 5 * frames.frame(Kind.CONTINUATION, 0, 1, FULL)
        ),
        CALM,
    ),
    "10.5 a block of endless empty frames": (
        lambda peer: (
            frames.frame(Kind.HEADERS, 0, 1, peer.block()) + frames.frame(Kind.CONTINUATION, 0, 1)
        ),
        CALM,
    ),
    "10.5 fields that are long once they are read": (
        lambda peer: peer.headers(1, [*CALL, *(("x", "a" * 4_000),) * 20]),
        CALM,
    ),
    "HPACK 2.3.3 an index beyond the tables": (block(b"\xff\x00"), COMPRESSION),
    "HPACK 4.2 a table size at the end of a block": (
        lambda peer: frames.frame(Kind.HEADERS, END_HEADERS, 1, peer.block() + b"\x20"),
        COMPRESSION,
    ),
    "HPACK 5.2 Huffman padding of more than 7 bits": (
        block(b"\x00\x82\xff\xff\x01a"),
        COMPRESSION,
    ),
    "HPACK 5.2 Huffman padding of zeros": (block(b"\x00\x81\x18\x01a"), COMPRESSION),
    "HPACK 5.2 the end-of-string symbol": (block(b"\x00\x84\xff\xff\xff\xff\x01a"), COMPRESSION),
    "HPACK 5.2 a string cut off": (block(b"\x00\x05ab"), COMPRESSION),
    "HPACK 6.1 index 0": (block(b"\x80"), COMPRESSION),
    "HPACK 6.3 a table size over ours": (block(b"\x3f\xe2\x1f"), COMPRESSION),
}

OF_A_STREAM: dict[str, tuple[Break, ErrorCode]] = {
    "5.1 DATA on a half-closed stream": (of_ended(data_frame(1)), CLOSED),
    "5.1 HEADERS on a half-closed stream": (
        lambda peer: peer.headers(1, flags=END_STREAM) + peer.headers(1, flags=END_STREAM),
        CLOSED,
    ),
    "5.3.1 PRIORITY on itself": (of_call(frames.frame(2, 0, 1, b"\0\0\0\1\0")), PROTOCOL),
    "6.3 PRIORITY of a wrong length": (of_call(frames.frame(2, 0, 1, b"1234")), SIZE),
    "6.9 a stream's window widened by 0": (of_call(window(1, 0)), PROTOCOL),
    "6.9.1 a stream's window too wide": (of_call(window(1, MAX_WINDOW)), FLOW),
    "6.9.1 more than a stream's window": (
        of_call(
            *[data_frame(1, FULL)] * (STREAM_WINDOW_BYTES // MAX_FRAME_BYTES), data_frame(1, b"1")
        ),
        FLOW,
    ),
    "8.1 trailers that do not end the request": (trailers(("x", "y"), flags=0), PROTOCOL),
    "8.1 a pseudo-header field in trailers": (trailers((":path", "/")), PROTOCOL),
    "8.1.1 DATA shorter than content-length": (lengths("4", b"abc"), PROTOCOL),
    "8.1.1 DATA longer than content-length": (lengths("4", b"abcde"), PROTOCOL),
    "8.1.1 more pieces than content-length": (lengths("4", b"abc", b"de"), PROTOCOL),
    "8.1.1 content-length and no DATA": (
        lambda peer: peer.headers(1, [*CALL, ("content-length", "1")], END_STREAM),
        PROTOCOL,
    ),
    "8.1.1 content-length that is no number": (with_field("content-length", "1x"), PROTOCOL),
    "8.1.1 content-length of endless digits": (with_field("content-length", "9" * 5000), PROTOCOL),
    "8.1.1 two content-lengths": (
        lambda peer: peer.headers(1, [*CALL, ("content-length", "1"), ("content-length", "2")]),
        PROTOCOL,
    ),
    "8.2 a name in upper case": (with_field("X-Test", "y"), PROTOCOL),
    "8.2.1 a name with a space": (with_field("x test", "y"), PROTOCOL),
    "8.2.1 an empty name": (with_field("", "y"), PROTOCOL),
    "8.2.1 a value with a line break": (with_field("x-test", "a\nb"), PROTOCOL),
    "8.2.1 a value with a zero": (with_field("x-test", "a\0b"), PROTOCOL),
    "8.2.1 a value that begins with a space": (with_field("x-test", " a"), PROTOCOL),
    "8.2.1 a value that ends with a tab": (with_field("x-test", "a\t"), PROTOCOL),
    "8.2.2 connection": (with_field("connection", "keep-alive"), PROTOCOL),
    "8.2.2 transfer-encoding": (with_field("transfer-encoding", "chunked"), PROTOCOL),
    "8.2.2 te other than trailers": (with_field("te", "gzip"), PROTOCOL),
    "8.3 an unknown pseudo-header field": (
        lambda peer: peer.headers(1, [(":test", "x"), *CALL]),
        PROTOCOL,
    ),
    "8.3 a pseudo-header field of answers": (
        lambda peer: peer.headers(1, [(":status", "200"), *CALL]),
        PROTOCOL,
    ),
    "8.3 a pseudo-header field after others": (with_field(":path", "/"), PROTOCOL),
    "8.3.1 :path twice": (lambda peer: peer.headers(1, [CALL[2], *CALL]), PROTOCOL),
    "8.3.1 no :method": (replaced(method=None), PROTOCOL),
    "8.3.1 no :scheme": (replaced(scheme=None), PROTOCOL),
    "8.3.1 no :path": (replaced(path=None), PROTOCOL),
    "8.3.1 an empty :path": (replaced(path=""), PROTOCOL),
}


@pytest.mark.parametrize("rule", OF_THE_CONNECTION)
def test_a_fault_of_the_connection_ends_all_of_it(rule: str) -> None:
    """GOAWAY; every call is cancelled; nothing more is read."""
    broken, code = OF_THE_CONNECTION[rule]
    peer = Peer()
    sent = broken(peer)

    assert one_fault(peer.send(sent)) == (Kind.GOAWAY, code)
    assert peer.connection.is_over
    assert not peer.connection.streams
    assert peer.call(99) == []


@pytest.mark.parametrize("rule", OF_A_STREAM)
def test_a_fault_of_a_stream_ends_only_that(rule: str) -> None:
    """RST_STREAM; the connection goes on."""
    broken, code = OF_A_STREAM[rule]
    peer = Peer()
    sent = broken(peer)

    assert one_fault(peer.send(sent)) == (Kind.RST_STREAM, code)
    assert not peer.connection.streams
    calls = [event for event in peer.events if event[0] == "call"]
    assert [event for event in peer.events if event[0] == "cancel"] == [
        ("cancel", number, b"") for _, number, _ in calls
    ]
    peer.call(99, b"message")
    assert peer.events[-2:] == [("data", 99, b"message"), ("end", 99, b"")]


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"P", PREFACE[:-1] + b"x", b"\0" * 100],
    ids=["HTTP/1.1", "cut off", "last byte", "zeros"],
)
def test_a_peer_without_the_preface_is_cut_off(sent: bytes) -> None:
    """RFC 9113, section 3.4."""
    peer = Peer(greeted=False)
    peer.take()
    answer = peer.send(sent)
    if PREFACE.startswith(sent):
        answer = peer.send(b"x")
    assert one_fault(answer) == (Kind.GOAWAY, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.parametrize("first", [PING, frames.frame(Kind.SETTINGS, ACK, 0)], ids=["PING", "ACK"])
def test_settings_come_first(first: bytes) -> None:
    """RFC 9113, section 3.4."""
    peer = Peer(greeted=False)
    peer.take()
    assert one_fault(peer.send(PREFACE, first)) == (Kind.GOAWAY, ErrorCode.PROTOCOL_ERROR)


def test_more_streams_than_allowed_are_refused() -> None:
    """Section 5.1.2: REFUSED_STREAM says that a retry is safe."""
    peer = Peer(max_streams=2)
    answer = peer.send(*(peer.headers(stream_id) for stream_id in (1, 3, 5)))
    assert one_fault(answer) == (Kind.RST_STREAM, ErrorCode.REFUSED_STREAM)
    assert set(peer.connection.streams) == {1, 3}


def test_calls_beyond_the_number_that_is_asked_for_are_taken() -> None:
    """A peer sends its first calls before it has read our SETTINGS: none may be refused."""
    peer = Peer(greeted=False, asked_streams=2)
    (settings, _) = peer.take()
    answer = peer.send(PREFACE, frames.settings({}), *(peer.headers(id) for id in (1, 3, 5)))

    assert Setting.MAX_CONCURRENT_STREAMS.to_bytes(2, "big") + (2).to_bytes(4, "big") in (
        settings.payload
    )
    assert {frame.kind for frame in answer} == {Kind.SETTINGS}
    assert set(peer.connection.streams) == {1, 3, 5}
