"""One stream of a connection: its windows, and the part of its answer that is not sent yet."""

from dataclasses import dataclass, field
from typing import Protocol

from headgate.grpc_server.headers import Headers


class Handler(Protocol):
    """The call behind a stream. None of these may raise."""

    def feed(self, data: bytes) -> None:
        """More bytes of the request, the last ones if the stream says `remote_ended`."""

    def cancel(self) -> None:
        """The call is over: the peer has cancelled it, broken a rule or gone."""

    def on_room(self) -> None:
        """Bytes of the answer that waited for a window have been sent."""


class _Ignored:
    """The handler of a stream whose call has ended."""

    def feed(self, data: bytes) -> None:
        """Drops the rest of the request."""

    def cancel(self) -> None:
        """Nothing is left to cancel."""

    def on_room(self) -> None:
        """Nobody waits."""


IGNORED: Handler = _Ignored()


@dataclass(slots=True)
class Stream:
    """A stream from its first HEADERS until both sides have ended it."""

    id: int
    headers: Headers
    send_window: int
    receive_window: int
    received_bytes: int = 0
    remote_ended: bool = False
    handler: Handler = IGNORED
    waiting: bytearray = field(default_factory=bytearray)
    """Bytes of DATA for which the peer's windows have no room yet."""
    last_block: bytes | None = None
    """Trailers that follow once `waiting` is empty."""

    def has_wrong_length(self) -> bool:
        """Whether DATA and content-length disagree (RFC 9113, section 8.1.1)."""
        length = self.headers.content_length
        if length is None:
            return False
        return self.received_bytes != length if self.remote_ended else self.received_bytes > length
