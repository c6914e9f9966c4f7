"""The gateway of another region: a real Envoy that takes only its own name, in TLS and in HTTP."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.mesh.bootstrap import Object, socket_address

_TYPE = "type.googleapis.com/envoy.extensions"


def far_gateway(host: str, ip: str, port: int, vllm_port: int, admin_port: int) -> Object:
    """Its configuration: it listens at `port`, and a vLLM at `vllm_port`, both at this address."""
    return {
        "admin": {"address": socket_address(admin_port)},
        "static_resources": {
            "listeners": [_listener(host, ip, port)],
            "clusters": [
                {
                    "name": "vllm",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "vllm",
                        "endpoints": [{"lb_endpoints": [_endpoint(vllm_port, ip)]}],
                    },
                }
            ],
        },
    }


def _endpoint(port: int, ip: str) -> Object:
    return {"endpoint": {"address": socket_address(port, ip)}}


def _listener(host: str, ip: str, port: int) -> Object:
    """No other name in SNI finds a certificate, and no other Host a route."""
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "vllm", "timeout": "0s"}}]
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "far",
        "route_config": {"virtual_hosts": [{"name": "own", "domains": [host], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    tls = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [_certificate(host)]},
    }
    inspector = {"@type": f"{_TYPE}.filters.listener.tls_inspector.v3.TlsInspector"}
    return {
        "address": socket_address(port, ip),
        "listener_filters": [
            {"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}
        ],
        "filter_chains": [
            {
                "filter_chain_match": {"server_names": [host]},
                "transport_socket": {"name": "tls", "typed_config": tls},
                "filters": [{"name": "http", "typed_config": manager}],
            }
        ],
    }


def _certificate(host: str) -> Object:
    """A key and a certificate that it signs itself, for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = serialization.Encoding.PEM
    return {
        "certificate_chain": {"inline_string": certificate.public_bytes(pem).decode()},
        "private_key": {"inline_string": private.decode()},
    }
