"""The configuration that an Envoy starts with, to get everything else from istiod."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

ISTIO_VERSION = "1.31.0"

_KIND = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
_INTERNAL = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {"@type": f"type.googleapis.com/{_KIND}"},
}
"""Istio's own bootstrap has it: tunnels of ambient mode pass listeners within the Envoy."""


def token_of(namespace: str, account: str) -> str:
    """The token of a service account, as `KubeApi` accepts it."""
    return f"system:serviceaccount:{namespace}:{account}"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where istiod listens, where the Envoy's admin shall listen, and where its agent does.

    Without an agent there are no certificates.
    """

    istiod: int
    admin: int
    agent: int = 0


def bootstrap(node: str, ip: str, labels: Object, ports: Ports, account: str = "default") -> Object:
    """The part of the configuration that Istio starts an Envoy with that istiod needs.

    The agent reads namespace and `account` in the name of the cluster.
    """
    metadata = {
        **labels,
        "ISTIO_VERSION": ISTIO_VERSION,
        "CLUSTER_ID": "Kubernetes",
        "INSTANCE_IPS": ip,
        "INTERCEPTION_MODE": "NONE",
        "SERVICE_ACCOUNT": account,
    }
    service: Object = {"envoy_grpc": {"cluster_name": "xds-grpc"}}
    clusters = [grpc_cluster("xds-grpc", ports.istiod)]
    if ports.agent:
        clusters.append(grpc_cluster("sds-grpc", ports.agent))
        token = f"Bearer {token_of(labels['NAMESPACE'], account)}"
        service["initial_metadata"] = [{"key": "authorization", "value": token}]
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {
            "id": node,
            "cluster": f"{labels['NAMESPACE']}/{account}",
            "metadata": metadata,
        },
        "admin": {"address": socket_address(ports.admin)},
        "bootstrap_extensions": [_INTERNAL],
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [service],
            },
        },
        "static_resources": {"clusters": clusters},
    }


def grpc_cluster(name: str, port: int) -> Object:
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(port)}}]}],
        },
    }


def socket_address(port: int, ip: str = "127.0.0.1") -> Object:
    return {"socket_address": {"address": ip, "port_value": port}}
