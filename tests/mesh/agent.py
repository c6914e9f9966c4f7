"""Certificates of the mesh's proxies, as Istio's agent beside each real proxy gets and serves them.

istiod signs them, for the service account that the token of the caller names. The proxies ask for
them here, by Envoy's secret discovery service (SDS).
"""

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    Secret,
    TlsCertificate,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryRequest, DiscoveryResponse
from envoy_data_plane.google.protobuf import Any as Packed
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.mesh.bootstrap import token_of
from tests.patience import PATIENCE_S

CLUSTER = "sds-grpc"
"""The name by which istiod's configuration calls the agent."""
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_SIGN = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_SERVE = "envoy.service.secret.v3.SecretDiscoveryService"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key, its certificate with the chain, and the mesh's authority; all in PEM."""

    key: bytes
    chain: bytes
    authority: bytes


def _messages() -> tuple[type, type]:
    """Istio's messages for a signing request: the text of the request, and the chain."""
    file = descriptor_pb2.FileDescriptorProto(name="istio_ca.proto", package="istio.v1.auth")
    text = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    for name, member, label in (("Request", "csr", 1), ("Response", "cert_chain", 3)):
        message = file.message_type.add(name=f"IstioCertificate{name}")
        message.field.add(name=member, number=1, type=text, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessages([file], pool=pool)
    package = "istio.v1.auth.IstioCertificate"
    return found[f"{package}Request"], found[f"{package}Response"]


@dataclass
class Agent:
    """Gets certificates from istiod, and serves them on `port`."""

    istiod: int = 0
    port: int = 0
    _known: dict[tuple[str, str], Identity] = field(default_factory=dict)

    def start(self, istiod: int) -> None:
        """Serves on a free port of this machine; `istiod` is the port of istiod."""
        self.istiod = istiod
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream, DiscoveryRequest.FromString, DiscoveryResponse.SerializeToString
        )
        self._server = grpc.server(ThreadPoolExecutor(64))
        handlers = grpc.method_handlers_generic_handler(_SERVE, {"StreamSecrets": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        """Ends it."""
        if self.port:
            self._server.stop(None).wait(PATIENCE_S)

    def identity(self, namespace: str, account: str) -> Identity:
        """The certificate of a service account, signed by istiod at the first call."""
        name = (namespace, account)
        if name not in self._known:
            self._known[name] = self._signed(token_of(namespace, account))
        return self._known[name]

    def client(self, folder: Path, namespace: str, account: str) -> ssl.SSLContext:
        """A client with the certificate of a workload, which trusts the mesh's authority."""
        identity = self.identity(namespace, account)
        file = folder / f"{namespace}-{account}.pem"
        file.write_bytes(identity.key + identity.chain)
        context = ssl.create_default_context(cadata=identity.authority.decode())
        context.check_hostname = False
        context.load_cert_chain(file)
        return context

    def _signed(self, token: str) -> Identity:
        request, response = _messages()
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        with grpc.insecure_channel(f"127.0.0.1:{self.istiod}") as channel:
            sign = channel.unary_unary(
                _SIGN,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            metadata = [("authorization", f"Bearer {token}")]
            answer = sign(request(csr=pem.decode()), PATIENCE_S, metadata)
        *chain, authority = (part.encode() for part in answer.cert_chain)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Identity(private, b"".join(chain), authority)

    def _stream(
        self, requests: Iterator[DiscoveryRequest], _context: grpc.ServicerContext
    ) -> Iterator[DiscoveryResponse]:
        """Answers each proxy with the secrets of the account that its name says."""
        identity, shown = None, None
        for request in requests:
            if identity is None:
                namespace, account = request.node.cluster.split("/")
                identity = self.identity(namespace, account)
            if request.resource_names != shown:
                shown = list(request.resource_names)
                secrets = [Packed.pack(_secret(name, identity)) for name in shown]
                yield DiscoveryResponse(
                    version_info="1", nonce="1", type_url=_SECRET, resources=secrets
                )


def _secret(name: str, identity: Identity) -> Secret:
    if name == "ROOTCA":
        trusted = DataSource(inline_bytes=identity.authority)
        return Secret(
            name=name, validation_context=CertificateValidationContext(trusted_ca=trusted)
        )
    chain, key = DataSource(inline_bytes=identity.chain), DataSource(inline_bytes=identity.key)
    return Secret(
        name=name, tls_certificate=TlsCertificate(certificate_chain=chain, private_key=key)
    )
