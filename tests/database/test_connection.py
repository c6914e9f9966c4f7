"""Connections on a real PostgreSQL: deadlines that hold although the server is silent, and TLS."""

import asyncio
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headgate.database.address import database_address
from headgate.database.connection import Connection, DatabaseAwayError, connected, within
from headgate.program.postgres.folder import DATABASE
from tests.certificates import AUTHORITY, FOLDER
from tests.patience import PATIENCE_S
from tests.postgres_server import PostgresServer

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


async def _one(connection: Connection) -> object:
    row = await (await connection.execute("select 1")).fetchone()
    return row and row[0]


async def test_a_silent_server_is_given_up_after_the_deadline(postgres: PostgresServer) -> None:
    backend = None
    try:
        async with connected(postgres.address(DATABASE)) as connection:
            backend = connection.info.backend_pid
            postgres.freeze(backend)
            with pytest.raises(DatabaseAwayError, match=r"within 0\.2 s"):
                await within(0.2, connection, _one(connection))
    finally:
        if backend is not None:
            postgres.thaw(backend)


async def test_a_cancelled_caller_does_not_wait_for_a_silent_server(
    postgres: PostgresServer,
) -> None:
    async with connected(postgres.address(DATABASE)) as connection:
        backend = connection.info.backend_pid
        postgres.freeze(backend)
        try:
            asking = asyncio.create_task(within(3600, connection, _one(connection)))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        finally:
            postgres.thaw(backend)


async def test_a_server_that_is_not_there_is_an_error_without_a_trace(tmp_path: Path) -> None:
    address = database_address(f"postgresql://headgate@/headgate?host={tmp_path}")

    with pytest.raises(DatabaseAwayError, match="No such file"):
        async with connected(address):
            pass


class _TlsFront(socketserver.BaseRequestHandler):
    """Answers the request for TLS as PostgreSQL does, and passes the rest on in clear text."""

    def handle(self) -> None:
        assert self.request.recv(8) == _SSL_REQUEST
        self.request.sendall(b"S")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(FOLDER / "first.pem", FOLDER / "first.key.pem")
        with (
            suppress(OSError),
            context.wrap_socket(self.request, server_side=True) as outer,
            socket.socket(socket.AF_UNIX) as inner,
        ):
            inner.connect(self.server.behind)
            back = threading.Thread(target=_copy, args=(inner, outer))
            back.start()
            _copy(outer, inner)
            back.join(PATIENCE_S)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def tls_in_front(folder: Path) -> Iterator[int]:
    """A server that speaks TLS, in front of one that has none. Its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _TlsFront) as server:
        server.behind = str(folder / ".s.PGSQL.5432")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(PATIENCE_S)


def _url(server: PostgresServer, host: str, port: int, authority: Path) -> str:
    passfile = server.server.folder.passwords
    options = f"passfile={passfile}&sslrootcert={authority}&sslmode=verify-full"
    return f"postgresql://headgate@{host}:{port}/{DATABASE}?{options}"


async def test_over_tcp_a_server_that_proves_its_name_is_taken(postgres: PostgresServer) -> None:
    with tls_in_front(postgres.server.folder.socket) as port:
        address = database_address(_url(postgres, "localhost", port, AUTHORITY))
        async with connected(address) as connection:
            assert await _one(connection) == 1
            assert connection.pgconn.ssl_in_use


async def test_over_tcp_a_server_that_nobody_vouches_for_is_refused(
    postgres: PostgresServer,
) -> None:
    with tls_in_front(postgres.server.folder.socket) as port:
        address = database_address(_url(postgres, "localhost", port, FOLDER / "second.pem"))
        with pytest.raises(DatabaseAwayError, match="certificate verify failed"):
            async with connected(address):
                pass
