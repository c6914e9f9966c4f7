"""An HTTP client whose calls its pod's Envoy takes, as iptables would give it them.

iptables keeps the address that the program called. Here the client tells it to the Envoy, by the
PROXY protocol.
"""

from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from tests.mesh.kube_api import Object


def original_destinations(namespace: str, app: str) -> Object:
    """The EnvoyFilter by which the Envoys of an app read the address from the client."""
    kind = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
    value = {
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {"@type": f"type.googleapis.com/{kind}"},
    }
    patch = {
        "applyTo": "LISTENER_FILTER",
        "match": {"context": "SIDECAR_OUTBOUND"},
        "patch": {"operation": "INSERT_FIRST", "value": value},
    }
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "original-destinations", "namespace": namespace},
        "spec": {"workloadSelector": {"labels": {"app": app}}, "configPatches": [patch]},
    }


class _Captured(httpcore.AnyIOBackend):
    """Connects to the Envoy at `ip` in the place of each address."""

    def __init__(self, ip: str) -> None:
        self._ip = ip

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await super().connect_tcp(self._ip, port, timeout, local_address, socket_options)
        await stream.write(f"PROXY TCP4 {self._ip} {host} 40000 {port}\r\n".encode())
        return stream


def captured_transport(ip: str) -> httpx.AsyncHTTPTransport:
    """How a program calls in the pod whose Envoy listens for it at `ip`, at the ports it calls."""
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=_Captured(ip))
    return transport


def captured_client(ip: str, **options: Any) -> httpx.AsyncClient:
    """A client in that pod."""
    return httpx.AsyncClient(transport=captured_transport(ip), **options)
