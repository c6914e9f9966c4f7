"""Methods that a gRPC server answers, and what their code may ask of a call.

The same methods run on this package's server and on grpc.aio (`aio.py`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn, Protocol


class Status(IntEnum):
    """How a call ended (grpc/status.h)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class CallAbortedError(Exception):
    """Ends a call with a status and a text for the peer's log."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Context(Protocol):
    """One call, as a method sees it."""

    def metadata(self, name: str) -> str | None:
        """The value of a header of the call, None where it has none."""
        ...

    def abort(self, status: Status, text: str) -> NoReturn:
        """Ends the call: raises what the server turns into its trailers."""
        ...


Unary = Callable[[Any, Context], Awaitable[Any]]
Streaming = Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]
Collecting = Callable[[AsyncIterator[Any], Context], Awaitable[Any]]
Watching = Callable[[Any, Context], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a service.

    `path` is `/package.Service/Method`. `read` makes a message of the request's bytes and may
    raise ValueError (protobuf's DecodeError is one); `write` makes bytes of an answer.
    `takes_stream` and `gives_stream` choose the shape of `behavior`: `Unary`, `Streaming`,
    `Collecting` or `Watching`.
    """

    path: str
    behavior: Callable[..., Any]
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    takes_stream: bool = False
    gives_stream: bool = False
