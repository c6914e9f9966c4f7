"""The configuration that an Envoy starts with, to get everything else from istiod."""

from typing import Any

Object = dict[str, Any]

ISTIO_VERSION = "1.31.0"


def bootstrap(node: str, ip: str, labels: Object, istiod_port: int, admin_port: int) -> Object:
    """The part of the configuration that Istio starts an Envoy with that istiod needs.

    `statistics.py` makes Istio's part for Prometheus.
    """
    metadata = {
        **labels,
        "ISTIO_VERSION": ISTIO_VERSION,
        "CLUSTER_ID": "Kubernetes",
        "INSTANCE_IPS": ip,
        "INTERCEPTION_MODE": "NONE",
        "SERVICE_ACCOUNT": "default",
    }
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {
            "id": node,
            "cluster": "tests",
            "metadata": metadata,
        },
        "admin": {"address": _socket(admin_port)},
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": [_istiod(istiod_port)]},
    }


def _istiod(port: int) -> Object:
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(port)}}]}],
        },
    }


def _socket(port: int) -> Object:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
