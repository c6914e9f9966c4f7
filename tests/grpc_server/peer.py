"""A client of a `Connection` that sends any frames, and notes what comes back."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Encoder

from headgate.grpc_server import frames
from headgate.grpc_server.connection import Connection
from headgate.grpc_server.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PREFACE,
    ErrorCode,
    FrameReader,
    Kind,
    Setting,
)
from headgate.grpc_server.receiving import MAX_STREAMS
from headgate.grpc_server.streams import Handler, Stream

CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Echo"),
    (":authority", "headgate"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
HEAD, TRAILERS = b"\x88", b"\x00\x0bgrpc-status\x010"

Event = tuple[str, int, bytes]


@dataclass
class Noted:
    """Notes what becomes of a call; adds up data, as pieces may differ."""

    stream: Stream
    events: list[Event]

    def feed(self, data: bytes) -> None:
        if self.events[-1][:2] == ("data", self.stream.id):
            data = self.events.pop()[2] + data
        self.events.append(("data", self.stream.id, data))
        if self.stream.remote_ended:
            self.events.append(("end", self.stream.id, b""))

    def cancel(self) -> None:
        self.events.append(("cancel", self.stream.id, b""))

    def on_room(self) -> None:
        """Nobody waits."""


@dataclass
class Sent:
    """A frame that the connection has sent."""

    kind: Kind
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> ErrorCode:
        """Of a GOAWAY or RST_STREAM."""
        start = 4 if self.kind == Kind.GOAWAY else 0
        return ErrorCode(int.from_bytes(self.payload[start : start + 4], "big"))

    @property
    def number(self) -> int:
        """Of a WINDOW_UPDATE; the last stream of a GOAWAY."""
        return int.from_bytes(self.payload[:4], "big")


@dataclass
class Peer:
    """Speaks to a fresh connection; its own SETTINGS are exchanged already."""

    max_streams: int = MAX_STREAMS
    greeted: bool = True
    asked_streams: int = MAX_STREAMS
    events: list[Event] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection = Connection(self._accept, self.max_streams, self.asked_streams)
        self.encoder = Encoder()
        self._reader = FrameReader()
        if self.greeted:
            self.connection.receive(PREFACE + frames.settings({}))
            self.connection.receive(frames.frame(Kind.SETTINGS, ACK, 0))
            self.take()

    def _accept(self, stream: Stream) -> Handler:
        self.streams[stream.id] = stream
        self.events.append(("call", stream.id, stream.headers.path.encode()))
        return Noted(stream, self.events)

    def send(self, *sent: bytes) -> list[Sent]:
        """Sends frames; returns the answer's."""
        self.connection.receive(b"".join(sent))
        return self.take()

    def take(self) -> list[Sent]:
        """The frames that the connection has to send."""
        read = self._reader.feed(self.connection.take())
        return [Sent(Kind(kind), *rest) for kind, *rest in read]

    def block(self, fields: Iterable[tuple[str, str]] = CALL) -> bytes:
        return self.encoder.encode(list(fields))

    def headers(
        self, stream_id: int, fields: Iterable[tuple[str, str]] = CALL, flags: int = 0
    ) -> bytes:
        """HEADERS with all of a block."""
        return frames.frame(Kind.HEADERS, END_HEADERS | flags, stream_id, self.block(fields))

    def call(self, stream_id: int, data: bytes = b"message") -> list[Sent]:
        """A whole request."""
        return self.send(self.headers(stream_id), data_frame(stream_id, data, END_STREAM))

    def answer(self, stream_id: int, data: bytes = b"answer") -> list[Sent]:
        """Lets the server answer a call."""
        self.connection.answer(self.streams[stream_id], HEAD, data, TRAILERS)
        return self.take()


def data_frame(stream_id: int, data: bytes = b"", flags: int = 0) -> bytes:
    return frames.frame(Kind.DATA, flags, stream_id, data)


def setting(name: Setting, value: int) -> bytes:
    return frames.settings({name: value})


def one_fault(answer: list[Sent]) -> tuple[Kind, ErrorCode]:
    """The fault that the connection has answered with; there must be no other."""
    faults = [sent for sent in answer if sent.kind in (Kind.GOAWAY, Kind.RST_STREAM)]
    assert len(faults) == 1, answer
    return faults[0].kind, faults[0].code
