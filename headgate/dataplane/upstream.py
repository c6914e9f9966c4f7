"""The clusters of the vLLM servers, one for each base model, from its URL."""

import ssl
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    KeepaliveSettings,
    Pipe,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HttpProtocolOptions as CommonHttpProtocolOptions,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from headgate.core.errors import OperatorError
from headgate.dataplane.placement import health_check, outlier_detection, override_host

CONNECT_TIMEOUT = timedelta(seconds=5)
IDLE_TIMEOUT = timedelta(seconds=4)
"""vLLM closes an idle keep-alive connection after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE). Envoy must
close it first, or a request is sent on a connection that is just closing."""
EXPORT_TIMEOUT = timedelta(seconds=1)
"""A message of spans that takes longer is lost. Envoy's exporter ignores the timeout of its gRPC
service, and waits for ever. So the cluster ends its calls."""
EXPORTS_AT_ONCE = 32
"""Messages of spans on their way; further spans are lost. Each holds some 100 KB in Envoy."""
PING_INTERVAL, PING_TIMEOUT = timedelta(seconds=2), timedelta(seconds=5)
"""A collector that reads nothing answers no ping. So its connection ends, with what waits in it."""
THRESHOLD = 1_000_000
"""Envoy's default of 1,024 requests or connections for a cluster would refuse streams that vLLM's
own queue accepts. Headgate's limits apply instead."""

_PROTOCOLS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class BadUpstream(OperatorError):  # noqa: N818
    """An upstream URL that Envoy cannot use; the message says why."""


def parse_upstream(url: str) -> SplitResult:
    """Splits an upstream URL: http or https, a host, and optionally a port and a path.

    Raises BadUpstream for any other URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadUpstream(f"upstream {url!r}: {error}") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise BadUpstream(f"upstream {url!r}: expected http://HOST[:PORT] or https://HOST[:PORT]")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadUpstream(f"upstream {url!r}: it may not have a user, query or fragment")
    return parts


def cluster_name(model: str, version: str | None = None) -> str:
    """The name of a base model's cluster, or of one of its versions, as istiod names a subset."""
    return f"model:{model}" if version is None else f"model|{version}|{model}"


def model_cluster(
    name: str, url: str, authorities: Path | None = None, pods: Sequence[str] = ()
) -> Cluster:
    """The cluster `name` of one vLLM; `authorities` as for `ca_bundle`. Raises BadUpstream.

    With `pods`, each `HOST:PORT`, Headgate chooses between them.
    """
    parts = parse_upstream(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    at = [_host_and_port(pod) for pod in pods] or [(host, port)]
    is_fixed = all(_is_ip(each) for each, _ in at)
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC if is_fixed else ClusterDiscoveryType.STRICT_DNS,
        # vLLM listens on IPv4 by default, but `localhost` resolves to ::1 first.
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=_circuit_breakers(),
        load_assignment=_endpoints(name, [_address(*each) for each in at], parts.netloc),
        typed_extension_protocol_options={_PROTOCOLS: Any.pack(_http1())},
        transport_socket=_tls(host, authorities) if parts.scheme == "https" else None,
    )
    if pods:
        cluster.load_balancing_policy = override_host()
        cluster.health_checks = [health_check(parts.path.rstrip("/"))]
        cluster.outlier_detection = outlier_detection()
    return cluster


def services_cluster(name: str, sockets: Sequence[Path]) -> Cluster:
    """The hooks' cluster: gRPC over unix sockets, which get the calls in turn."""
    addresses = [Address(pipe=Pipe(path=str(socket))) for socket in sockets]
    cluster = _grpc_cluster(name, addresses, _http2(Http2ProtocolOptions()))
    cluster.connect_timeout = timedelta(seconds=1)
    cluster.circuit_breakers = _circuit_breakers()
    return cluster


def collector_cluster(name: str, url: str, port: int) -> Cluster:
    """The cluster of the collector of spans at `url`, by default on `port`. Raises BadUpstream.

    A collector that is away, slow or silent loses spans, and holds a bounded number of them.
    """
    parts = parse_upstream(url)
    if parts.path.strip("/"):
        raise BadUpstream(f"collector {url!r}: it may not have a path, as it speaks gRPC")
    host = parts.hostname or ""
    address = SocketAddress(address=host, port_value=parts.port or port)
    cluster = _grpc_cluster(name, [Address(socket_address=address)], _exports())
    cluster.circuit_breakers = _circuit_breakers(EXPORTS_AT_ONCE)
    if not _is_ip(host):
        cluster.type = ClusterDiscoveryType.STRICT_DNS
        cluster.dns_lookup_family = ClusterDnsLookupFamily.V4_PREFERRED
    if parts.scheme == "https":
        cluster.transport_socket = _tls(host, None)
    return cluster


def _grpc_cluster(name: str, addresses: Sequence[Address], http2: HttpProtocolOptions) -> Cluster:
    """A cluster that speaks HTTP/2 with servers at these addresses."""
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=CONNECT_TIMEOUT,
        load_assignment=_endpoints(name, addresses),
        typed_extension_protocol_options={_PROTOCOLS: Any.pack(http2)},
    )


def _http2(options: Http2ProtocolOptions) -> HttpProtocolOptions:
    return HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=options)
    )


def _exports() -> HttpProtocolOptions:
    """HTTP/2 whose calls and connections end by themselves when the server hangs."""
    pings = KeepaliveSettings(interval=PING_INTERVAL, timeout=PING_TIMEOUT)
    protocol = _http2(Http2ProtocolOptions(connection_keepalive=pings))
    protocol.common_http_protocol_options = CommonHttpProtocolOptions(
        max_stream_duration=EXPORT_TIMEOUT
    )
    return protocol


def _http1() -> HttpProtocolOptions:
    return HttpProtocolOptions(
        common_http_protocol_options=CommonHttpProtocolOptions(idle_timeout=IDLE_TIMEOUT),
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=Http1ProtocolOptions()
        ),
    )


def _circuit_breakers(limit: int = THRESHOLD) -> CircuitBreakers:
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=limit,
                max_pending_requests=limit,
                max_requests=limit,
                max_retries=limit,
            )
        ]
    )


def _endpoints(
    name: str, addresses: Sequence[Address], hostname: str = ""
) -> ClusterLoadAssignment:
    """The members of a cluster. A request has the `hostname` where its route asks for that."""
    endpoints = [
        LbEndpoint(endpoint=Endpoint(address=address, hostname=hostname)) for address in addresses
    ]
    return ClusterLoadAssignment(
        cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
    )


def _tls(host: str, authorities: Path | None) -> TransportSocket:
    """TLS to the upstream, whose certificate must be valid for the host in the URL."""
    by_ip = _is_ip(host)
    name = SubjectAltNameMatcher(
        san_type=(
            SubjectAltNameMatcherSanType.IP_ADDRESS if by_ip else SubjectAltNameMatcherSanType.DNS
        ),
        matcher=StringMatcher(exact=host),
    )
    validation = CertificateValidationContext(
        trusted_ca=DataSource(filename=ca_bundle(authorities)), match_typed_subject_alt_names=[name]
    )
    context = UpstreamTlsContext(
        common_tls_context=CommonTlsContext(validation_context=validation),
        sni="" if by_ip else host,
    )
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=Any.pack(context),
    )


def ca_bundle(authorities: Path | None) -> str:
    """This file of certificate authorities, or the system's; SSL_CERT_FILE overrides the latter.

    Raises BadUpstream if there is none.
    """
    if authorities is not None:
        return str(authorities.resolve())
    candidates = (ssl.get_default_verify_paths().cafile, *_CA_BUNDLES)
    for path in candidates:
        if path is not None and Path(path).is_file():
            return path
    raise BadUpstream(
        "found no bundle of certificate authorities for https upstreams; "
        "set the environment variable SSL_CERT_FILE to one"
    )


def _host_and_port(pod: str) -> tuple[str, int]:
    host, _, port = pod.rpartition(":")
    return host.strip("[]"), int(port)


def _address(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
