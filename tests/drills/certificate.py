"""The certificate of the door, which a drill replaces by one that ends sooner."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

USUAL_DAYS = 90
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two files as an operator has them. The key stays, so one renewal is one step."""

    folder: Path
    key: ec.EllipticCurvePrivateKey

    @property
    def options(self) -> list[str]:
        """The options of `headgate up`."""
        return ["--tls-cert", str(self._file), "--tls-key", str(self._key_file)]

    def renew(self, days: int) -> None:
        """Puts a certificate in place that ends in `days` days."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(_NAME, _NAME, self.key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1))
        signed = builder.not_valid_after(now + timedelta(days=days)).sign(self.key, SHA256())
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(signed.public_bytes(Encoding.PEM))
        os.replace(fresh, self._file)

    def write_key(self) -> None:
        """Writes the key, once."""
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._key_file.write_bytes(self.key.private_bytes(*form))

    @property
    def _file(self) -> Path:
        return self.folder / "door.pem"

    @property
    def _key_file(self) -> Path:
        return self.folder / "door.key"


def new_certificate(folder: Path) -> Certificate:
    """A healthy pair in `folder`."""
    certificate = Certificate(folder, ec.generate_private_key(ec.SECP256R1()))
    certificate.write_key()
    certificate.renew(USUAL_DAYS)
    return certificate
