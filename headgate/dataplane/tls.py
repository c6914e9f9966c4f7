"""TLS for clients: the listener's settings, and the certificate as a file that Envoy follows."""

from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    ConfigSource,
    DataSource,
    PathConfigSource,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

from headgate.dataplane.box import Certificate, OneBox, render, replace_file

CERTIFICATE_NAME = "door"
ALPN = ("h2", "http/1.1")


def door_tls(box: OneBox) -> TransportSocket:
    """The listener's TLS: version 1.2 or 1.3 with Envoy's default ciphers, which all have forward
    secrecy and authenticated encryption."""
    certificate = SdsSecretConfig(
        name=CERTIFICATE_NAME,
        sds_config=ConfigSource(
            path_config_source=PathConfigSource(path=str(box.certificate_file)),
            resource_api_version=ApiVersion.V3,
        ),
    )
    context = DownstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_params=TlsParameters(tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2),
            tls_certificate_sds_secret_configs=[certificate],
            alpn_protocols=list(ALPN),
        )
    )
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=Any.pack(context),
    )


def write_certificate(box: OneBox, certificate: Certificate) -> None:
    """Writes certificate and key atomically as one file; a running Envoy applies it at once.

    Envoy could follow the operator's two files itself, but only if they are renamed into place. It
    could also read a new certificate together with the old key.
    """
    secret = Secret(
        name=CERTIFICATE_NAME,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(inline_string=certificate.chain),
            private_key=DataSource(inline_string=certificate.key),
        ),
    )
    replace_file(box.certificate_file, render(DiscoveryResponse(resources=[Any.pack(secret)])))
