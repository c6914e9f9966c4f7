"""Clients that are slow on purpose: each is disconnected, and nothing stays reserved for it."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from h2.connection import H2Connection

from headgate.core.contract import OP_RESERVE, OP_SETTLE
from headgate.dataplane.envoy_admin import EnvoyAdmin
from tests.envoy_process import CHAT, Rig, running_envoy
from tests.fake_hooks import deny
from tests.fake_upstream import Received
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS = 30
STREAM = b'{"model": "tiny", "stream": true}'
OPEN = "http.door.downstream_cx_active"
POST = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n".encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def envoy_of_module() -> AsyncIterator[Rig]:
    """An Envoy with the usual timeouts, but short."""
    with pytest.MonkeyPatch.context() as patch:
        for name, milliseconds in (
            ("HEADERS_TIMEOUT", 1000),
            ("REQUEST_TIMEOUT", 2000),
            ("UNREAD_TIMEOUT", 1000),
            ("CONNECTION_IDLE_TIMEOUT", 2000),
            ("STREAM_IDLE_TIMEOUT", 3000),
        ):
            patch.setattr(
                f"headgate.dataplane.listener.{name}", timedelta(milliseconds=milliseconds)
            )
        async with running_envoy(max_connections=CONNECTIONS) as rig:
            yield rig


async def trickle(rig: Rig, start: bytes, piece: bytes) -> tuple[bytes, bytes]:
    """Sends `start`, then `piece` again and again until an answer comes; returns its head and body.

    The connection ends with the answer: whatever is sent after it would only be reset.
    """
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
        writer.write(start)
        answer = asyncio.create_task(read_answer(reader))
        while not answer.done():
            writer.write(piece)
            await asyncio.wait([answer], timeout=0.05)
        writer.transport.abort()
        return await answer


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"connection: close" in head
    length = re.search(rb"content-length: (\d+)", head)
    assert length
    return head, await reader.readexactly(int(length[1]))


async def test_headers_that_trickle_in_are_ended_with_408(rig: Rig) -> None:
    head, body = await trickle(rig, POST, b"x-more: 1\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert rig.services.checks == []
    assert (await rig.logged()).response.response_code_details == "request_header_timeout"


async def test_a_body_that_trickles_in_is_ended_with_408_and_holds_nothing(rig: Rig) -> None:
    head, body = await trickle(rig, POST + b"content-length: 9999\r\n\r\n{", b" ")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert rig.services.streams == rig.services.limits == []
    assert (await rig.logged()).response.response_code_details == "request_overall_timeout"


async def test_without_a_known_key_no_body_is_awaited(rig: Rig) -> None:
    rig.services.check = deny(401, "{}")
    head, _ = await rig.raw(POST + b"content-length: 9999\r\n\r\n{")
    assert head.startswith(b"HTTP/1.1 401 ")


async def test_a_connection_without_a_request_is_closed(rig: Rig) -> None:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
        assert await reader.read() == b""
        writer.close()


async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
    """Streams events until the connection ends."""
    writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n")
    writer.write(b"transfer-encoding: chunked\r\n\r\n")
    event = b'data: {"x": "' + b"y" * 8000 + b'"}\n\n'
    while True:
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()


async def test_a_client_that_never_reads_is_cut_off_and_its_request_settled(rig: Rig) -> None:
    rig.upstream.answer = endless
    with socket.create_connection(("127.0.0.1", rig.box.listen_port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(POST + b"content-length: %d\r\n\r\n%s" % (len(STREAM), STREAM))
        await rig.services.until(lambda: len(rig.services.descriptors(OP_RESERVE)) == 1)
        await rig.services.until(lambda: len(rig.services.descriptors(OP_SETTLE)) == 1)
    logged = await rig.logged()
    assert logged.common_properties.response_flags.downstream_connection_termination
    assert logged.response.response_code.value == 200


async def test_an_http2_client_that_opens_no_window_is_cut_off_and_its_request_settled(
    rig: Rig,
) -> None:
    """The unsent bytes wait in the stream, so the timeout of an idle stream applies."""
    rig.upstream.answer = endless
    connection = H2Connection()
    connection.initiate_connection()
    headers = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "a")]
    connection.send_headers(1, [*headers, ("content-type", "application/json")])
    connection.send_data(1, STREAM, end_stream=True)
    with socket.create_connection(("127.0.0.1", rig.box.listen_port)) as client:
        client.sendall(connection.data_to_send())
        await rig.services.until(lambda: len(rig.services.descriptors(OP_SETTLE)) == 1)
    assert (await rig.logged()).common_properties.response_flags.stream_idle_timeout


async def test_connections_beyond_the_bound_are_closed_as_they_come(rig: Rig) -> None:
    """Open connections continue, and so does Envoy's admin, which ends it in order."""
    async with asyncio.timeout(PATIENCE_S):
        ends = [
            await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
            for _ in range(CONNECTIONS + 10)
        ]
        await asyncio.gather(*(reader.read() for reader, _ in ends[CONNECTIONS:]))
        for _, writer in ends:
            writer.transport.abort()
        admin = EnvoyAdmin(rig.box.admin_socket)
        while (await admin.numbers([OPEN]))[OPEN] >= CONNECTIONS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await admin.close()
    assert (await rig.post()).status_code == 200
