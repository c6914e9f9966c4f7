"""A node of ambient mode: a real Envoy in the place of ztunnel, with both of its directions.

It takes tunnels (HBONE: mTLS, and CONNECT within HTTP/2) in front of pods, and opens one for a
caller. istiod configures neither.
"""

from tests.mesh.agent import CLUSTER as AGENT
from tests.mesh.bootstrap import Object, grpc_cluster, socket_address

TUNNEL_PORT = 15008
_TYPE = "type.googleapis.com/envoy."
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MANAGER = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def node_proxy(account: str, agent: int, admin: int, pods: list[str]) -> Object:
    """The configuration in front of `pods` with the identity `namespace/account`."""
    listeners = [_terminating(ip) for ip in pods]
    cluster = {
        "name": "pod",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "1s",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ":authority"},
    }
    return _whole(account, agent, admin, listeners, [cluster])


def caller_proxy(account: str, agent: int, admin: int, door: int, via: str, to: str) -> Object:
    """The configuration by which a caller's connections to `door` go to `to`, through `via`."""
    proxy = {
        "@type": f"{_TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "caller",
        "cluster": "waypoint",
        "tunneling_config": {"hostname": to},
    }
    chain = {"filters": [{"name": "tcp", "typed_config": proxy}]}
    listener = {"address": socket_address(door), "filter_chains": [chain]}
    http2 = {
        "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"allow_connect": True}},
    }
    tls = {
        "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            **_certificates(),
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},  # tunnels take no older one
        },
    }
    endpoint = {"endpoint": {"address": socket_address(TUNNEL_PORT, via)}}
    cluster = {
        "name": "waypoint",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {_HTTP: http2},
        "transport_socket": {"name": "tls", "typed_config": tls},
        "load_assignment": {
            "cluster_name": "waypoint", "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }  # fmt: skip
    return _whole(account, agent, admin, [listener], [cluster])


def _terminating(ip: str) -> Object:
    connect = {"upgrade_type": "CONNECT", "connect_config": {}}
    route = {
        "match": {"connect_matcher": {}},
        "route": {"cluster": "pod", "upgrade_configs": [connect]},
    }
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    router = f"{_TYPE}extensions.filters.http.router.v3.Router"
    manager = {
        "@type": f"{_TYPE}{_MANAGER}",
        "stat_prefix": "node",
        "route_config": {"virtual_hosts": hosts},
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    }
    tls = {
        "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {**_certificates(), "alpn_protocols": ["h2"]},
        "require_client_certificate": True,
    }
    chain = {
        "filters": [{"name": "manager", "typed_config": manager}],
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    return {"address": socket_address(TUNNEL_PORT, ip), "filter_chains": [chain]}


def _certificates() -> Object:
    """The node's own, and the authority of the mesh, both from the agent."""
    grpc = {"envoy_grpc": {"cluster_name": AGENT}}
    source = {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [grpc],
        },
        "resource_api_version": "V3",
    }
    return {
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source},
    }


def _whole(
    account: str, agent: int, admin: int, listeners: list[Object], clusters: list[Object]
) -> Object:
    return {
        "node": {"id": account, "cluster": account},
        "admin": {"address": socket_address(admin)},
        "static_resources": {
            "listeners": listeners,
            "clusters": [*clusters, grpc_cluster(AGENT, agent)],
        },
    }
