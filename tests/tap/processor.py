"""The real ext_proc service for the rig, and the requests that it admits."""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import grpc
from prometheus_client import CollectorRegistry

from extproc.estimate import Estimator
from extproc.pins.memory import MemoryPins
from extproc.service import ExternalProcessor
from headgate.apis import ENDPOINTS
from headgate.clock import SystemClock
from headgate.metrics import Metrics
from registry.types import Caller, Tenant
from tests.extproc.builders import REGISTRY

PATHS = {endpoint.api: path for path, endpoint in ENDPOINTS.items()}
_OPTIONS: dict[str, dict[str, Any]] = {
    "none": {"stream": True},
    "final": {"stream": True, "stream_options": {"include_usage": True}},
    "continuous": {
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "untouched": {},
}


def request_body(admission: Mapping[str, str]) -> bytes:
    """The request whose admission is that of the rig's x-* headers."""
    options = _OPTIONS.get(admission.get("x-client-usage", ""), {})
    n = json.loads(admission.get("x-n", "1"))
    return json.dumps({"model": "tiny", "n": n, **options}).encode()


class Running(Protocol):
    """A service that was started."""

    async def stop(self, grace: float | None) -> object:
        """Ends it."""
        ...


Serve = Callable[[Path], Awaitable[Running]]


async def serve_processor(socket: Path) -> grpc.aio.Server:
    """Starts the service on a unix socket."""
    clock = SystemClock()
    service = ExternalProcessor(
        lambda: REGISTRY,
        Estimator(),
        lambda: "r1",
        _no_limits,
        MemoryPins(clock),
        Metrics(CollectorRegistry(), clock),
        clock,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.handler(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    return server


async def _no_limits(_tenant: Tenant, _caller: Caller, _model: str | None) -> None:
    return None
