"""One stream of a connection: its windows, and what waits until the peer takes it."""

from dataclasses import dataclass, field

from headgate.grpc_server.headers import Headers


@dataclass(slots=True)
class Stream:
    """A call's stream, from its first HEADERS until both sides have ended it."""

    id: int
    headers: Headers
    send_window: int
    receive_window: int
    received_bytes: int = 0
    remote_ended: bool = False
    waiting: bytearray = field(default_factory=bytearray)
    """Bytes of DATA for which the peer's windows have no room yet."""
    last_block: bytes | None = None
    """Trailers that follow once `waiting` is empty."""

    def is_of_another_length(self) -> bool:
        """Whether its DATA are not as long as content-length says (RFC 9113, section 8.1.1)."""
        told = self.headers.content_length
        if told is None:
            return False
        return self.received_bytes != told if self.remote_ended else self.received_bytes > told
