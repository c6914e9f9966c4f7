"""A certificate: read as a pair with its key, checked, and followed when it changes."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.dataplane.box import Certificate, CertifiedListener
from headgate.policy import FileError
from headgate.program.reload import Contents, WatchedFiles, Watcher
from headgate.program.settings import TlsFiles

_MAX_SIZE_BYTES = 1024 * 1024
_HANDSHAKE_ROUNDS = 3
"""TLS 1.3 needs two, and a further one does no harm."""
_NOUNS = {
    CertifiedListener.DOOR: "certificate",
    CertifiedListener.API: "certificate of the management API",
}
_NOT_VALID = {10: "has expired", 9: "is not valid yet"}
"""By OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""


class CertificateError(FileError):
    """A certificate or key that a listener cannot use; one line for its operator."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__((f"{path}: {problem}",))


class ShownCertificate:
    """The pair that a server of this process shows: each connection gets the newest one.

    A second `load_cert_chain` into one context would keep the old pair beside a new one of another
    kind of key. So each pair has a context of its own. A connection takes it at its first message,
    by `sni_callback`. OpenSSL calls that also for a client that names no server.
    """

    def __init__(self, certificate: Certificate) -> None:
        self._newest = _server_context(certificate)
        self.context = _server_context(certificate)
        """The context for the server."""
        self.context.sni_callback = self._choose

    async def renew(self, certificate: Certificate) -> None:
        """New connections get this pair from now on."""
        self._newest = await asyncio.to_thread(_server_context, certificate)

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _from: ssl.SSLContext
    ) -> None:
        connection.context = self._newest


class CertificateWatcher(Watcher[Certificate]):
    """Watches the pair of one listener.

    Raises CertificateError when there is no good pair to begin with.
    """

    def __init__(
        self, files: TlsFiles, clock: Clock, metrics: Metrics, listener: CertifiedListener
    ) -> None:
        watched = WatchedFiles(
            noun=_NOUNS[listener],
            name=f"{files.certificate} with {files.key}",
            check=f"openssl x509 -in {files.certificate} -text",
            files=lambda: (files.certificate, files.key),
            read=read_pem,
            compile=read_pair,
            count=lambda result: metrics.certificate_reloads.labels(listener, result).inc(),
            refused=metrics.certificate_refused.labels(listener),
            loaded_seconds=metrics.certificate_loaded_seconds.labels(listener),
            is_whole=_is_good,
        )
        super().__init__(watched, clock)
        self._expires_seconds = metrics.certificate_expires_seconds.labels(listener)
        self._expires_seconds.set(self.current().expires_s)

    def _apply(self, new: Certificate, digest: bytes) -> None:
        super()._apply(new, digest)
        self._expires_seconds.set(new.expires_s)


def read_pem(path: Path) -> bytes:
    """The bytes of one of the files. Raises CertificateError when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a path"
        raise CertificateError(path, f"cannot be read ({why})") from None
    if len(data) > _MAX_SIZE_BYTES:
        raise CertificateError(path, f"is larger than {_MAX_SIZE_BYTES} bytes")
    return data


def read_pair(contents: Contents) -> Certificate:
    """The certificate with its key, once a client that trusts it would take it today.

    A TLS handshake in memory shows what a look at the files would not. The key may be too short,
    the certificate not for servers, or not valid today. Raises CertificateError.
    """
    (certificate_path, certificate), (key_path, key) = contents
    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        raise CertificateError(certificate_path, "holds no certificate in PEM")
    if b"PRIVATE KEY-----" not in key:
        raise CertificateError(key_path, "holds no private key in PEM")
    if b"ENCRYPTED" in key:
        raise CertificateError(key_path, "is encrypted: write it without a password")
    try:
        expires_s = _handshake(certificate, key)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise _refusal(error, certificate_path, key_path) from None
    return Certificate(
        chain=certificate.decode("ascii", "ignore"),
        key=key.decode("ascii", "ignore"),
        expires_s=expires_s,
    )


def _refusal(error: Exception, certificate_path: Path, key_path: Path) -> CertificateError:
    """The operator's line for an error of `_handshake`.

    The classes are asked for from the narrowest to the widest: SSLError is an OSError, and
    SSLCertVerificationError is a ValueError too.
    """
    match error:
        case ssl.SSLCertVerificationError(verify_code=code):
            other = f"cannot be used ({error.verify_message})"
            return CertificateError(certificate_path, _NOT_VALID.get(code, other))
        case ssl.SSLError(reason="KEY_VALUES_MISMATCH"):
            problem = f"is not the key of the first certificate in {certificate_path}"
            return CertificateError(key_path, problem)
        case ssl.SSLError():
            problem = f"cannot be used with {key_path} ({_reason(error)})"
        case ValueError():
            problem = "cannot be used (a name or a date in it is not readable)"
        case _:
            reason = getattr(error, "strerror", None)
            problem = f"cannot be checked, as the temporary folder is unusable ({reason})"
    return CertificateError(certificate_path, problem)


def _handshake(certificate: bytes, key: bytes) -> float:
    """Shows the pair to a client that trusts this very certificate; returns when it expires, in
    seconds since the Unix epoch.

    Raises ssl.SSLError for a pair that no client would take. Raises ValueError for a name or a
    date that cannot be read, and OSError where the temporary folder is unusable.
    """
    server = _loaded(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=certificate.decode("ascii", "ignore"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_HANDSHAKE_ROUNDS):
        for side in (theirs, ours):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    shown = theirs.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown.get("notAfter"))))


def _server_context(certificate: Certificate) -> ssl.SSLContext:
    return _loaded(certificate.chain.encode(), certificate.key.encode())


def _loaded(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """A server's context with the pair, which Python takes only from files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory(prefix="headgate-") as folder:  # only its owner can enter
        files = Path(folder, "certificate"), Path(folder, "key")
        files[0].write_bytes(certificate)
        files[1].write_bytes(key)
        context.load_cert_chain(*files)
    return context


def _is_good(contents: Contents) -> bool:
    """A bad pair may become a good one in a moment, when the other file is new too."""
    try:
        read_pair(contents)
    except CertificateError:
        return False
    return True


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "not readable").replace("_", " ").lower()
