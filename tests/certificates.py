"""The certificates of `tests/tls`, and files that take them as an operator's do."""

import os
import socket
import ssl
from pathlib import Path

from headgate.program.settings import TlsFiles
from tests.patience import PATIENCE_S

FOLDER = Path(__file__).parent / "tls"
AUTHORITY = FOLDER / "ca.pem"
"""What a client trusts to take `first` and `second`, for localhost and 127.0.0.1."""


def pem(name: str) -> str:
    """The text of one of the files: `first` or `first.key`."""
    return (FOLDER / f"{name}.pem").read_text()


def install(folder: Path, certificate: str, key: str | None = None) -> TlsFiles:
    """Puts a pair into `folder` under names that stay the same; each file in one step."""
    files = TlsFiles(folder / "door.pem", folder / "door.key")
    for path, name in ((files.certificate, certificate), (files.key, f"{key or certificate}.key")):
        fresh = path.with_suffix(".new")
        fresh.write_text(pem(name))
        os.replace(fresh, path)
    return files


def shown(host: str, port: int) -> str:
    """The name in the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=AUTHORITY)
    with (
        socket.create_connection((host, port), timeout=PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        subject = (connection.getpeercert() or {})["subject"]
    return str(dict(part[0] for part in subject)["commonName"])
