"""The real ext_proc service for the rig, and the requests that it admits."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from extproc.estimate import Estimator
from extproc.own_keys import no_keys
from extproc.pins.memory import MemoryPins
from extproc.service import ExternalProcessor
from headgate.core.apis import ENDPOINTS, Api
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.core.policy import Caller, PerSecond, Tenant
from headgate.grpc_server.server import Server
from tests.extproc.builders import POLICY

_AUDIO = replace(POLICY, without_usage={Api.TRANSCRIPTIONS: PerSecond(50)})
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


def request_body(admission: Mapping[str, str]) -> tuple[str, bytes]:
    """Content type and body of a request that is admitted like the rig's x-* headers say."""
    if "x-per-second" in admission:
        return _form(admission["x-client-usage"])
    options = _OPTIONS.get(admission.get("x-client-usage", ""), {})
    n = json.loads(admission.get("x-n", "1"))
    model = admission.get("x-model", "tiny")
    return "application/json", json.dumps({"model": model, "n": n, **options}).encode()


def _form(client_usage: str) -> tuple[str, bytes]:
    options = _OPTIONS[client_usage]
    fields = {"model": "tiny", "stream": options.get("stream", False)}
    fields |= {f"stream_{name}": on for name, on in options.get("stream_options", {}).items()}
    parts = [
        f'--x\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "multipart/form-data; boundary=x", ("".join(parts) + "--x--\r\n").encode()


class Running(Protocol):
    """A running service."""

    async def drain(self, grace_s: float) -> None:
        """Ends it."""
        ...


Serve = Callable[[Path], Awaitable[Running]]


async def serve_processor(socket: Path) -> Server:
    """Starts the service on a unix socket."""
    clock = SystemClock()
    service = ExternalProcessor(
        policy=lambda: _AUDIO,
        estimator=Estimator(),
        new_id=lambda: "r1",
        limits_of=_no_limits,
        usage_of=_no_limits,
        own_keys=no_keys,
        pins=MemoryPins(clock),
        metrics=Metrics(CollectorRegistry(), clock),
        clock=clock,
    )
    server = Server(service.methods())
    await server.start(f"unix:{socket}")
    return server


async def _no_limits(_tenant: Tenant, _caller: Caller, _model: str | None) -> None:
    return None
