"""The gRPC server of the hooks, with the standard health service."""

from collections.abc import Callable, Iterable
from typing import Protocol

from headgate.core.errors import OperatorError
from headgate.core.rpc import Method
from headgate.grpc_server.health import Health
from headgate.grpc_server.server import Server
from headgate.program.ending import Ending
from headgate.program.settings import GrpcServer

_STOP_GRACE_S = 1.0
"""For calls in flight when the server stops. The access log's streams never end by themselves."""
RATELIMIT_HEALTH = "ratelimit"
"""The name that probes of envoyproxy/ratelimit ask the gRPC health service for."""


class HookServer:
    """Serves the methods of the hooks by the server that `--grpc-server` names."""

    def __init__(self, methods: Iterable[Method], kind: GrpcServer) -> None:
        self._health = Health(RATELIMIT_HEALTH)
        self._server = _SERVERS[kind]((*methods, *self._health.methods()))

    async def start(self, address: str) -> None:
        """Listens on `host:port` or `unix:PATH`. Raises OperatorError when it is taken."""
        try:
            await self._server.start(address)
        except OSError as error:
            raise OperatorError(
                f"cannot listen on {address} for hooks: taken, not allowed, or no address: {error}"
            ) from error

    async def drain(self, ending: Ending, is_needed: Callable[[], bool]) -> None:
        """Reports NOT_SERVING, goes on serving while it is needed, then stops.

        It is needed while a proxy has an access log stream to it: requests of this proxy may end.
        """
        self._health.stop_serving()
        await ending.wait_while(is_needed)
        await self._server.drain(_STOP_GRACE_S)


class _Server(Protocol):
    async def start(self, address: str) -> int: ...

    async def drain(self, grace_s: float) -> None: ...


def _grpcio(methods: Iterable[Method]) -> _Server:
    """Imports grpcio only if it serves: it takes 0.2 s and its own threads."""
    from headgate.grpc_server.aio import AioServer  # noqa: PLC0415

    return AioServer(methods)


_SERVERS: dict[GrpcServer, Callable[[Iterable[Method]], _Server]] = {
    GrpcServer.OWN: Server,
    GrpcServer.GRPCIO: _grpcio,
}
