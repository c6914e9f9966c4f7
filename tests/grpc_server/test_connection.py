"""Frames that RFC 9113 allows a client to send, and the answers of the server."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.grpc_server import frames
from headgate.grpc_server.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    MAX_FRAME_BYTES,
    MAX_STREAM_ID,
    PADDED,
    PREFACE,
    ErrorCode,
    Kind,
    Setting,
)
from headgate.grpc_server.receiving import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES
from tests.grpc_server.peer import CALL, Peer, data_frame, one_fault, setting

PRIORITY = b"\0\0\0\3\7"
CALLED = ("call", 1, b"/t.T/Echo")
END = ("end", 1, b"")


def test_the_server_begins_with_settings_and_a_wide_window() -> None:
    """Section 3.4: SETTINGS are its first frame, before any byte of the client."""
    settings, window = Peer(greeted=False).take()
    values = dict(frames.read_settings(settings.payload))
    assert (settings.kind, settings.flags) == (Kind.SETTINGS, 0)
    assert values[Setting.INITIAL_WINDOW_SIZE] == STREAM_WINDOW_BYTES
    assert (window.kind, window.stream_id) == (Kind.WINDOW_UPDATE, 0)
    assert window.number + 65_535 == CONNECTION_WINDOW_BYTES


def test_settings_are_acknowledged_once_each() -> None:
    """Section 6.5.3, also where unknown settings are among them."""
    peer = Peer()
    sent = setting(Setting.MAX_CONCURRENT_STREAMS, 5) + frames.frame(4, 0, 0, b"\0\x99\0\0\0\1")
    assert [(frame.kind, frame.flags) for frame in peer.send(sent)] == [(Kind.SETTINGS, ACK)] * 2


def test_a_ping_comes_back_unchanged() -> None:
    """Section 6.7. An acknowledged PING gets no answer."""
    peer = Peer()
    (pong,) = peer.send(frames.frame(Kind.PING, 0, 0, b"12345678"))
    assert (pong.kind, pong.flags, pong.payload) == (Kind.PING, ACK, b"12345678")
    assert peer.send(frames.frame(Kind.PING, ACK, 0, b"12345678")) == []


IGNORED = {
    "unknown kinds": frames.frame(0xFA, 0xFF, 1, b"anything"),
    "a kind of RFC 9218": frames.frame(0x10, 0, 0, b"\0\0\0\1u=1"),
    "PRIORITY of an idle stream": frames.frame(Kind.PRIORITY, 0, 7, PRIORITY),
    "PRIORITY of an open stream": frames.frame(Kind.PRIORITY, 0, 1, PRIORITY),
    "GOAWAY of a client": frames.go_away(0, ErrorCode.NO_ERROR, "no more calls"),
    "an empty DATA frame": data_frame(1),
    "DATA that is all padding": data_frame(1, b"\x02\0\0", PADDED),
    "the reserved bit of a stream": frames.frame(Kind.WINDOW_UPDATE, 0, 1 | 2**31, b"\x80\0\0\1"),
    "unknown flags": frames.frame(Kind.PING, 0xFE | ACK, 0, b"12345678"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_a_call_goes_on_after(name: str) -> None:
    """Sections 4.1, 5.5, 6.1, 6.3 and 6.8."""
    peer = Peer()
    assert peer.send(peer.headers(1), IGNORED[name]) == []
    peer.send(data_frame(1, b"message", END_STREAM))
    assert peer.events == [CALLED, ("data", 1, b"message"), END]
    assert [frame.kind for frame in peer.answer(1)] == [Kind.HEADERS, Kind.DATA, Kind.HEADERS]


def padded(payload: bytes) -> bytes:
    return b"\x04" + payload + b"\0" * 4


HEADS = {
    "plain": (0, lambda block: block),
    "padded": (PADDED, padded),
    "with priority": (HAS_PRIORITY, lambda block: PRIORITY + block),
    "padded, with priority": (PADDED | HAS_PRIORITY, lambda block: padded(PRIORITY + block)),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_headers_come_in_any_form(name: str, pieces: int) -> None:
    """Sections 6.2 and 6.10; the last CONTINUATION may be empty."""
    flags, form = HEADS[name]
    peer = Peer()
    block = peer.block()
    cuts = [len(block) * part // pieces for part in range(1, pieces)]
    parts = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
    if pieces > 1:
        parts.append(b"")
    last = END_HEADERS if len(parts) == 1 else 0
    peer.send(frames.frame(Kind.HEADERS, flags | last | END_STREAM, 1, form(parts[0])))
    for number, part in enumerate(parts[1:], 2):
        end = END_HEADERS if number == len(parts) else 0
        peer.send(frames.frame(Kind.CONTINUATION, end, 1, part))
    assert peer.events == [CALLED, ("data", 1, b""), END]


def test_trailers_end_a_request() -> None:
    """Section 8.1."""
    peer = Peer()
    answer = peer.send(
        peer.headers(1), data_frame(1, b"ab"), peer.headers(1, [("x-checksum", "1")], END_STREAM)
    )
    assert answer == []
    assert peer.events == [CALLED, ("data", 1, b"ab"), END]


def test_a_right_content_length_passes() -> None:
    """Section 8.1.1, also where padding and trailers come along."""
    peer = Peer()
    length = [*CALL, ("content-length", "4")]
    sent = data_frame(1, padded(b"ab"), PADDED), data_frame(1, b"cd", END_STREAM)
    assert peer.send(peer.headers(1, length), *sent) == []
    assert peer.events[-1] == END


def test_fields_of_any_byte_do_not_cost_the_connection() -> None:
    """A value need not be UTF-8 (section 8.2.1 only forbids three bytes)."""
    peer = Peer()
    block = peer.block() + b"\x00\x01x\x02\xff\x80"
    assert peer.send(frames.frame(Kind.HEADERS, END_HEADERS, 1, block)) == []
    assert peer.streams[1].headers.fields[-1] == ("x", "\xff\x80")


def test_frames_after_our_reset_are_ignored() -> None:
    """Section 5.1: the peer may have sent them before it knew. Their headers count for HPACK."""
    peer = Peer()
    peer.send(peer.headers(1))
    peer.connection.end(peer.streams[1], b"\x88")
    assert one_fault(peer.take()) == (Kind.RST_STREAM, ErrorCode.NO_ERROR)
    late = peer.headers(1, [("x-new", "in the table")], END_STREAM)
    reset, update = frames.reset(1, ErrorCode.CANCEL), frames.window_update(1, 5)
    assert peer.send(data_frame(1, b"late"), late, reset, update) == []
    peer.send(peer.headers(3, [*CALL, ("x-new", "in the table")]))
    assert peer.streams[3].headers.fields[-1] == ("x-new", "in the table")


def test_a_reset_cancels_the_call() -> None:
    """Section 6.4."""
    peer = Peer()
    assert peer.send(peer.headers(1), frames.reset(1, ErrorCode.CANCEL)) == []
    assert peer.events == [CALLED, ("cancel", 1, b"")]
    assert not peer.connection.streams


def test_an_answer_before_the_end_of_its_request_stops_it() -> None:
    """Section 8.1: RST_STREAM with NO_ERROR after the answer."""
    peer = Peer()
    peer.send(peer.headers(1))
    kinds = [(frame.kind, frame.flags) for frame in peer.answer(1)]
    assert kinds[-2:] == [(Kind.HEADERS, END_HEADERS | END_STREAM), (Kind.RST_STREAM, 0)]
    assert not peer.connection.streams


def test_reading_gives_credit_back_in_large_steps() -> None:
    """Section 6.9: what waits for its method is not given back."""
    peer = Peer()
    full = data_frame(1, b"\0" * MAX_FRAME_BYTES)
    peer.send(peer.headers(1), *[full] * 40)
    stream, held_bytes = peer.streams[1], 20 * MAX_FRAME_BYTES
    assert not peer.connection.credit(stream, held_bytes)
    assert peer.connection.credit(stream)
    assert [(frame.stream_id, frame.number) for frame in peer.take()] == [(1, 40 * MAX_FRAME_BYTES)]
    assert not peer.connection.credit(stream)


def test_the_connections_window_is_given_back_whatever_calls_do() -> None:
    """A slow call must not hold up the others."""
    peer = Peer()
    given = 0
    for stream_id in range(1, 201, 2):
        peer.send(peer.headers(stream_id))
        sent = [data_frame(stream_id, b"\0" * MAX_FRAME_BYTES)] * 20
        given += sum(frame.number for frame in peer.send(*sent) if not frame.stream_id)
    sent_bytes = 100 * 20 * MAX_FRAME_BYTES
    assert sent_bytes - CONNECTION_WINDOW_BYTES // 2 < given <= sent_bytes


@given(st.lists(st.integers(0, 300), max_size=12), st.booleans())
def test_bytes_cut_anywhere_give_the_same_events(cuts: list[int], also_each: bool) -> None:
    """The reader keeps no state but what it has not read."""
    whole, pieces = Peer(greeted=False), Peer(greeted=False)
    block = whole.block()
    sent = b"".join(
        (
            PREFACE,
            setting(Setting.INITIAL_WINDOW_SIZE, 100_000),
            frames.frame(Kind.HEADERS, 0, 1, block[:20]),
            frames.frame(Kind.CONTINUATION, END_HEADERS, 1, block[20:]),
            data_frame(1, padded(b"some")),
            frames.frame(0xFA, 0, 0, b"unknown"),
            data_frame(1, b"\x03data\0\0\0", PADDED | END_STREAM),
            frames.frame(Kind.PING, 0, 0, b"12345678"),
            whole.headers(3),
            frames.reset(3, ErrorCode.CANCEL),
            frames.frame(Kind.DATA, 0, 0, b"a fault"),
        )
    )
    positions = sorted({0, len(sent), *range(len(sent) if also_each else 0), *cuts})
    whole.connection.receive(sent)
    for start, end in pairwise(positions):
        pieces.connection.receive(sent[start:end])
    assert pieces.events == whole.events
    assert pieces.connection.take() == whole.connection.take()


def test_a_drain_names_the_last_call_after_a_ping() -> None:
    """Section 6.8: calls under way are still served, later ones are refused."""
    peer = Peer()
    peer.send(peer.headers(1))
    peer.connection.drain()
    goaway, ping = peer.take()
    assert (goaway.kind, goaway.number, goaway.code) == (
        Kind.GOAWAY,
        MAX_STREAM_ID,
        ErrorCode.NO_ERROR,
    )
    assert not peer.connection.is_drained
    peer.call(3)
    (last,) = peer.send(frames.frame(Kind.PING, ACK, 0, ping.payload))
    assert (last.kind, last.number, last.code) == (Kind.GOAWAY, 3, ErrorCode.NO_ERROR)
    assert one_fault(peer.call(5)) == (Kind.RST_STREAM, ErrorCode.REFUSED_STREAM)
    peer.answer(3)
    assert not peer.connection.is_drained
    peer.answer(1)
    assert peer.connection.is_drained


def test_a_drain_goes_on_without_the_answer_to_its_ping() -> None:
    """A peer that does not answer must not keep the server from ending."""
    peer = Peer()
    peer.connection.drain()
    peer.connection.drain()
    assert len(peer.take()) == 2
    peer.connection.refuse_calls()
    peer.connection.refuse_calls()
    (last,) = peer.take()
    assert last.number == 0
    assert peer.connection.is_drained


def test_a_fault_after_a_drain_names_no_later_call() -> None:
    """Section 6.8: the last stream of a GOAWAY must not grow."""
    peer = Peer()
    peer.call(1)
    peer.connection.refuse_calls()
    peer.take()
    peer.call(3)
    (goaway,) = [f for f in peer.send(data_frame(0)) if f.kind == Kind.GOAWAY]
    assert goaway.number == 1


def test_a_lost_connection_cancels_all_calls() -> None:
    """Once each."""
    peer = Peer()
    peer.send(peer.headers(1), peer.headers(3))
    peer.connection.lose()
    peer.connection.lose()
    assert [event[:2] for event in peer.events[2:]] == [("cancel", 1), ("cancel", 3)]
