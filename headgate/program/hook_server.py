"""The gRPC server of the hooks, with the standard health service."""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from headgate.core.errors import OperatorError
from headgate.core.rpc import Method
from headgate.grpc_server.health import Health
from headgate.grpc_server.receiving import MAX_STREAMS
from headgate.grpc_server.server import Server
from headgate.program.ending import Ending
from headgate.program.settings import GrpcServer

_STOP_GRACE_S = 1.0
"""For calls in flight when the server stops. The access log's streams never end by themselves."""
_OWNER_ONLY = 0o177
_CALLS_A_CONNECTION = 16
"""Above it Envoy opens another connection, which the next worker gets."""
RATELIMIT_HEALTH = "ratelimit"
"""The name that probes of envoyproxy/ratelimit ask the gRPC health service for."""


class HookServer:
    """Serves the methods of the hooks by the server that `--grpc-server` names.

    One of several `workers` has few calls on each connection. A busy proxy then opens more of
    them, and they reach all workers.
    """

    def __init__(self, methods: Iterable[Method], kind: GrpcServer, workers: int = 1) -> None:
        self._health = Health(RATELIMIT_HEALTH)
        self._server = _SERVERS[kind]((*methods, *self._health.methods()), workers)

    async def start(self, address: str, *, is_private: bool = False) -> None:
        """Listens on `host:port` or `unix:PATH`; only our own user may enter a private socket.

        Raises OperatorError when it is taken.
        """
        before = os.umask(_OWNER_ONLY) if is_private else None
        try:
            await self._server.start(address)
        except OSError as error:
            raise OperatorError(
                f"cannot listen on {address} for hooks: taken, not allowed, or no address: {error}"
            ) from error
        finally:
            if before is not None:
                os.umask(before)

    async def adopt(self, connection: socket.socket) -> None:
        """Serves a connection that another process has accepted."""
        await self._server.adopt(connection)

    async def drain(self, ending: Ending, is_needed: Callable[[], bool]) -> None:
        """Reports NOT_SERVING, goes on serving while it is needed, then stops.

        It is needed while a proxy has an access log stream to it: requests of this proxy may end.
        """
        self._health.stop_serving()
        await ending.wait_while(is_needed)
        await self._server.drain(_STOP_GRACE_S)


class _Server(Protocol):
    async def start(self, address: str) -> int: ...

    async def adopt(self, connection: socket.socket) -> None: ...

    async def drain(self, grace_s: float) -> None: ...


def _own(methods: Iterable[Method], workers: int) -> _Server:
    return Server(methods, asked_streams=MAX_STREAMS if workers == 1 else _CALLS_A_CONNECTION)


def _grpcio(methods: Iterable[Method], _workers: int) -> _Server:
    """Imports grpcio only if it serves: it takes 0.2 s and its own threads."""
    from headgate.grpc_server.aio import AioServer  # noqa: PLC0415

    return AioServer(methods)


_SERVERS: dict[GrpcServer, Callable[[Iterable[Method], int], _Server]] = {
    GrpcServer.OWN: _own,
    GrpcServer.GRPCIO: _grpcio,
}
