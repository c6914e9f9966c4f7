"""The standard health service, grpc.health.v1 (its health.proto): Check and Watch."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from headgate.core.rpc import Context, Method, Status

_SERVICE = "grpc.health.v1.Health"
_STATUSES = HealthCheckResponse.ServingStatus


class Health:
    """Says whether this server serves.

    The service "" is the server as a whole. `names` are services with the same status.
    """

    def __init__(self, *names: str) -> None:
        self._names = frozenset(("", *names))
        self._serving = True
        self._changed = asyncio.Event()

    def methods(self) -> tuple[Method, ...]:
        """The methods of the service."""
        return (
            Method(
                path=f"/{_SERVICE}/Check",
                behavior=self.check,
                read=HealthCheckRequest.FromString,
                write=HealthCheckResponse.SerializeToString,
            ),
            Method(
                path=f"/{_SERVICE}/Watch",
                behavior=self.watch,
                read=HealthCheckRequest.FromString,
                write=HealthCheckResponse.SerializeToString,
                gives_stream=True,
            ),
        )

    def stop_serving(self) -> None:
        """NOT_SERVING from now on. Calls of Watch say so, and end."""
        self._serving = False
        self._changed.set()

    async def check(self, asked: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status now; NOT_FOUND for a service that has none."""
        if asked.service not in self._names:
            context.abort(Status.NOT_FOUND, f"{asked.service} has no status here")
        return HealthCheckResponse(status=self._status())

    async def watch(
        self, asked: HealthCheckRequest, _context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status now and after its change; SERVICE_UNKNOWN for a service that has none.

        It ends when the server stops serving, as a drain would wait for it otherwise.
        """
        is_known = asked.service in self._names
        status = self._status() if is_known else _STATUSES.Value("SERVICE_UNKNOWN")
        yield HealthCheckResponse(status=status)
        if self._serving:
            await self._changed.wait()
            if is_known:
                yield HealthCheckResponse(status=self._status())

    def _status(self) -> Any:
        return _STATUSES.Value("SERVING" if self._serving else "NOT_SERVING")
