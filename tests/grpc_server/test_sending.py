"""Answers keep within the windows that a client grants (RFC 9113, section 6.9)."""

from hypothesis import given
from hypothesis import strategies as st

from headgate.grpc_server import frames
from headgate.grpc_server.frames import END_STREAM, MAX_FRAME_BYTES, Kind, Setting
from tests.grpc_server.peer import Peer, Sent, setting


def sizes(answer: list[Sent]) -> list[int]:
    return [len(frame.payload) for frame in answer if frame.kind == Kind.DATA]


def ended(answer: list[Sent]) -> bool:
    return any(frame.flags & END_STREAM for frame in answer)


def called(*settings: bytes) -> Peer:
    peer = Peer()
    peer.send(*settings)
    peer.call(1)
    return peer


def test_a_large_answer_goes_in_frames_of_the_usual_size() -> None:
    """Section 4.2: SETTINGS_MAX_FRAME_SIZE of a peer that has set none."""
    answer = called(frames.window_update(0, 10**6), setting(Setting.INITIAL_WINDOW_SIZE, 10**6))
    assert sizes(answer.answer(1, b"\0" * 40_000)) == [MAX_FRAME_BYTES, MAX_FRAME_BYTES, 7_232]


def test_an_answer_waits_for_the_window_of_its_stream() -> None:
    """Its trailers come after its last byte; other streams are not held up."""
    peer = called(setting(Setting.INITIAL_WINDOW_SIZE, 3))
    first = peer.answer(1, b"answer")
    assert (sizes(first), ended(first)) == ([3], False)
    second = peer.send(frames.window_update(1, 2))
    assert (sizes(second), ended(second)) == ([2], False)
    last = peer.send(frames.window_update(1, 100))
    assert (sizes(last), ended(last)) == ([1], True)
    assert not peer.connection.streams


def test_an_answer_waits_for_the_window_of_the_connection() -> None:
    """The stream that has waited longest goes first."""
    peer = called(setting(Setting.INITIAL_WINDOW_SIZE, 10**6))
    assert sum(sizes(peer.answer(1, b"\0" * 65_530))) == 65_530
    peer.call(3)
    assert sizes(peer.answer(3, b"answer")) == [5]
    peer.call(5)
    assert sizes(peer.answer(5, b"answer")) == []
    freed = peer.send(frames.window_update(0, 3))
    assert [(frame.stream_id, len(frame.payload)) for frame in freed if not frame.kind] == [
        (3, 1),
        (5, 2),
    ]


def test_a_setting_moves_the_windows_of_open_streams() -> None:
    """Section 6.9.2: also below zero, where more has been sent than it allows."""
    peer = called(setting(Setting.INITIAL_WINDOW_SIZE, 4))
    assert sizes(peer.answer(1, b"0123456789")) == [4]
    assert sizes(peer.send(setting(Setting.INITIAL_WINDOW_SIZE, 1))) == []
    assert sizes(peer.send(frames.window_update(1, 3))) == []
    assert sizes(peer.send(frames.window_update(1, 1))) == [1]
    last = peer.send(setting(Setting.INITIAL_WINDOW_SIZE, 50))
    assert (sizes(last), ended(last)) == ([5], True)


def test_only_the_last_of_a_setting_that_repeats_has_an_effect() -> None:
    """Section 6.5.3; so a frame of 2,730 settings costs no more than one."""
    peer = called()
    values = [(Setting.INITIAL_WINDOW_SIZE, size) for size in (0, 9, 2)]
    payload = b"".join(frames.settings({name: value})[9:] for name, value in values)
    peer.send(frames.frame(Kind.SETTINGS, 0, 0, payload))
    assert sizes(peer.answer(1, b"answer")) == [2]


def test_trailers_alone_need_no_window() -> None:
    """Only DATA is flow-controlled."""
    peer = called(setting(Setting.INITIAL_WINDOW_SIZE, 0))
    peer.connection.end(peer.streams[1], b"\x88")
    assert ended(peer.take())


def test_a_cancelled_call_sends_no_more() -> None:
    """Its waiting bytes are dropped."""
    peer = called(setting(Setting.INITIAL_WINDOW_SIZE, 3))
    peer.answer(1, b"answer")
    assert peer.send(frames.reset(1, 8), frames.window_update(0, 100)) == []
    assert not peer.connection._blocked


@given(
    st.integers(0, 200),
    st.lists(
        st.tuples(st.sampled_from(["stream", "connection", "setting", "more"]), st.integers(1, 99)),
        max_size=30,
    ),
)
def test_no_window_is_ever_exceeded(first: int, steps: list[tuple[str, int]]) -> None:
    """And all that the windows allow is sent, in order."""
    peer = called(setting(Setting.INITIAL_WINDOW_SIZE, first))
    stream, sent, given_bytes, moved = peer.streams[1], b"", b"", 0
    peer.connection.send_headers(stream, b"\x88")
    setting_now = first
    for kind, size in steps:
        match kind:
            case "stream":
                moved += size
                answer = peer.send(frames.window_update(1, size))
            case "connection":
                answer = peer.send(frames.window_update(0, size))
            case "setting":
                setting_now = size
                answer = peer.send(setting(Setting.INITIAL_WINDOW_SIZE, size))
            case _:
                piece = bytes(range(size))
                given_bytes += piece
                peer.connection.send_data(stream, piece)
                answer = peer.take()
        fresh = b"".join(frame.payload for frame in answer if frame.kind == Kind.DATA)
        sent += fresh
        assert given_bytes.startswith(sent)
        if fresh:
            assert len(sent) <= setting_now + moved
    allowed = max(0, setting_now + moved)
    assert len(sent) >= min(len(given_bytes), allowed)
