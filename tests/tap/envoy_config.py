"""The configuration of the rig's Envoy: a listener for each counter, and three only for Lua."""

import json
from pathlib import Path
from typing import Any

from headgate.core.contract import CallerKey, Counting, Namespace
from headgate.dataplane.box import render
from headgate.dataplane.filters import (
    ext_proc,
    reader_source,
    request_reader,
    tap_source,
)

TAP = tap_source()
SPLITS, BATCH, USUAL = (
    (Path(__file__).parent / name).read_text(encoding="utf-8")
    for name in ("splits.lua", "batch.lua", "usual.lua")
)
_TYPES = "type.googleapis.com/envoy"
_ADMISSION = {
    "x-client-usage": "client_usage",
    "x-api": "api",
    "x-per-second": "per_second",
    "x-served-as": "served_as",
    "x-model": "model",
}


def bootstrap(folder: Path, tap: bool) -> dict[str, Any]:
    """The whole configuration; sockets and the log are in `folder`."""
    door = [_metadata_filter(), *([_lua(TAP)] if tap else []), _router()]
    reader = request_reader(reader_source())
    counted = [reader, ext_proc("hooks", Counting.EXTPROC)]
    rendered = [json.loads(render(added)) for added in counted]
    return {
        "static_resources": {
            "listeners": [
                _listener(folder, Counting.PROXY, door),
                _listener(folder, Counting.EXTPROC, [_caller_filter(), *rendered, _router()]),
                _listener(folder, "splits", [_lua(TAP + SPLITS), _router()]),
                _listener(folder, "batch", [_lua(TAP + SPLITS + BATCH), _router()]),
                _listener(folder, "usual", [_lua(TAP + USUAL), _router()]),
                _listener(folder, "h2", [_router()]),
            ],
            "clusters": [
                _cluster("upstream", folder / "upstream"),
                # An upstream that speaks HTTP/2: this Envoy again, in front of the same upstream.
                _cluster("h2", folder / "h2", http2=True),
                _cluster("hooks", folder / "hooks", http2=True),
            ],
        }
    }


def _cluster(name: str, path: Path, http2: bool = False) -> dict[str, Any]:
    protocol: dict[str, Any] = {"http_protocol_options": {"enable_trailers": True}}
    if http2:
        protocol = {"http2_protocol_options": {}}
    options = f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(path)]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": protocol,
            }
        },
    }


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path)}}


def _endpoint(path: Path) -> dict[str, Any]:
    return {"endpoint": {"address": _pipe(path)}}


def _listener(folder: Path, name: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    by_h2 = {"name": "x-upstream", "string_match": {"exact": "h2"}}
    routes = [
        {
            "match": {"prefix": "/", "headers": [by_h2] if cluster == "h2" else []},
            "route": {"cluster": cluster, "timeout": "0s"},
        }
        for cluster in ("h2", "upstream")
    ]
    manager = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes[name == "h2" :]}]
        },
        "http_filters": filters,
        "access_log": [_access_log(folder)] if name in set(Counting) else [],
    }
    manager_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }
    return {
        "name": name,
        "address": _pipe(folder / name),
        "filter_chains": [{"filters": [manager_filter]}],
    }


def _access_log(folder: Path) -> dict[str, Any]:
    line = {"id": "%REQ(x-id)%", "usage": "%DYNAMIC_METADATA(headgate.usage)%"}
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(folder / "log"),
            "log_format": {"json_format": line},
        },
    }


def _metadata_filter() -> dict[str, Any]:
    """Writes the metadata of the request reader and ext_proc from the request's x-* headers."""
    rules = [_rule(name, "headgate.admission", key) for name, key in _ADMISSION.items()]
    return _header_to_metadata([*rules, _rule("x-n", "headgate.request", "n", "NUMBER")])


def _caller_filter() -> dict[str, Any]:
    """Writes the metadata of ext_authz."""
    caller = {CallerKey.TENANT: "acme", CallerKey.USER: "alice", CallerKey.KEY: "k1"}
    return _header_to_metadata(
        [_rule("x-id", Namespace.CALLER, key, value=value) for key, value in caller.items()]
    )


def _rule(
    header: str, namespace: str, key: str, kind: str = "STRING", value: str = ""
) -> dict[str, Any]:
    target = {"metadata_namespace": namespace, "key": key, "type": kind, "value": value}
    return {"header": header, "on_header_present": target}


def _header_to_metadata(rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": rules,
        },
    }


def _lua(source: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
        },
    }


def _router() -> dict[str, Any]:
    kind = f"{_TYPES}.extensions.filters.http.router.v3.Router"
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": kind}}
