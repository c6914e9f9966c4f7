"""What `headgate up` says about a vLLM that does not answer: the reason, and what to do."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headgate.core.errors import OperatorError
from headgate.doctor.reachable import check_authorities, silent
from tests.certificates import AUTHORITY, FOLDER
from tests.patience import patient


@asynccontextmanager
async def upstream(certificate: str | None, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """The port of a server with this certificate of the tests, or without TLS."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(4096)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except OSError:
            pass
        writer.close()

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(FOLDER / f"{certificate}.pem", FOLDER / f"{certificate}.key.pem")
    server = await asyncio.start_server(answer, host, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def reason(url: str, authorities: Path | None = None) -> str | None:
    with patient():
        return (await silent({"tiny": url}, authorities)).get("tiny")


async def test_a_certificate_of_an_unknown_authority_is_told_with_the_option() -> None:
    async with upstream("first") as port:
        said = await reason(f"https://127.0.0.1:{port}")
        with_authority = await reason(f"https://127.0.0.1:{port}", AUTHORITY)

    assert said is not None
    assert said.startswith("has a certificate that is not trusted (unable to get local issuer")
    assert said.endswith("name its authority, or the certificate itself, with --upstream-ca FILE")
    assert with_authority is None


async def test_an_expired_certificate_and_another_name_are_told() -> None:
    async with upstream("expired") as port:
        expired = await reason(f"https://127.0.0.1:{port}", AUTHORITY)
    async with upstream("first", "127.0.0.2") as port:
        other = await reason(f"https://127.0.0.2:{port}", AUTHORITY)

    assert expired == "has a certificate that is not trusted (certificate has expired): renew it"
    assert other is not None
    assert other.endswith("write its URL with a name of the certificate")


async def test_https_to_a_server_without_tls_is_told() -> None:
    async with upstream(None) as port:
        assert "write its URL with http://" in str(await reason(f"https://127.0.0.1:{port}"))
        assert await reason(f"http://127.0.0.1:{port}") is None


async def test_nobody_there_is_nobody_yet() -> None:
    assert await reason("http://127.0.0.1:9") == "does not answer yet"


def test_a_file_without_certificates_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(OperatorError, match=r"holds no certificate in PEM; .* --upstream-ca"):
        check_authorities(tmp_path / "ca.pem")
    with pytest.raises(OperatorError, match="cannot be read"):
        check_authorities(tmp_path / "none.pem")
