"""The methods that a gRPC server offers, and what a method can ask of its call.

The same methods run on Headgate's own server and on grpc.aio: see `headgate/grpc_server`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn, Protocol


class Status(IntEnum):
    """How a call ended (the status codes of gRPC)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
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
        """The value of a header of the call; None where the call has no such header."""
        ...

    def abort(self, status: Status, text: str) -> NoReturn:
        """Ends the call: raises CallAbortedError, which the server turns into trailers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a service.

    `path` is `/package.Service/Method`. `read` makes a message of the request's bytes; if it
    raises, the call ends with INTERNAL. `write` makes bytes of an answer.

    `behavior` gets the message, or with `takes_stream` an async iterator of messages, and the
    call's Context. It is a coroutine function that returns the answer, or with `gives_stream` an
    async generator of answers.
    """

    path: str
    behavior: Callable[..., Any]
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    takes_stream: bool = False
    gives_stream: bool = False
