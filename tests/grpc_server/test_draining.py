"""A server that ends: running calls end first, new ones go elsewhere, and nothing stays behind."""

import asyncio
from typing import Any

import grpc
import pytest

from headgate.grpc_server.server import Server
from tests.grpc_server.conftest import Served
from tests.grpc_server.servers import Client, Methods, status
from tests.patience import PATIENCE_S

ENDED = ("CANCELLED", "UNAVAILABLE")


async def test_running_calls_end_first(client: Client, served: Served) -> None:
    """And the drain does not wait longer than they take."""
    call = client.unary("Wait", b"answer")
    stream = client.both("Hold")
    await stream.write(b"one")
    assert await stream.read() == b"one"
    await served.methods.begun.wait()
    drain = asyncio.create_task(served.server.drain(30))
    await asyncio.sleep(0)
    await stream.write(b"two")
    assert await stream.read() == b"two"
    assert not drain.done()
    served.methods.may_end.set()
    await stream.done_writing()
    assert await call == b"answer"
    assert await stream.code() == grpc.StatusCode.OK
    async with asyncio.timeout(10):
        await drain


async def test_new_calls_are_refused(client: Client, served: Served) -> None:
    """They are safe to try elsewhere: UNAVAILABLE."""
    running = client.unary("Wait", b"answer")
    await served.methods.begun.wait()
    drain = asyncio.create_task(served.server.drain(30))
    refused = ""
    while refused != "UNAVAILABLE":  # calls under way at the drain's first step are still served
        refused, _ = await status(client.unary("Echo", b"late"))
        assert refused in ("OK", "UNAVAILABLE", "CANCELLED")
    served.methods.may_end.set()
    assert await running == b"answer"
    await drain


async def test_new_calls_go_to_the_next_server(served: Served) -> None:
    """A client that knows another address loses no call while one server drains."""
    methods = Methods()
    second = Server(methods.all())
    port = await second.start("127.0.0.1:0")
    first = Server(served.methods.all())
    address = f"ipv4:127.0.0.1:{await first.start('127.0.0.1:0')},127.0.0.1:{port}"
    client = Client(address)
    assert await client.unary("Echo", b"first") == b"first"
    drain = asyncio.create_task(first.drain(30))
    for _ in range(200):
        assert await client.unary("Echo", b"next", wait_for_ready=True) == b"next"
    await drain
    assert await client.unary("Echo", b"last", wait_for_ready=True) == b"last"
    await client.channel.close(0)
    await second.drain(0)


async def test_calls_are_cancelled_after_the_grace(client: Client, served: Served) -> None:
    calls = [client.unary("Wait"), client.unary("Wait")]
    endless = client.giving("Endless", b"a" * 10_000)
    await endless.read()
    await served.methods.begun.wait()
    await served.server.drain(0.1)
    assert {(await status(call))[0] for call in calls} <= set(ENDED)
    async with asyncio.timeout(PATIENCE_S):  # grpcio may cancel the methods after its drain
        await served.methods.cancelled.wait()


async def test_idle_connections_do_not_hold_the_drain_up(client: Client, served: Served) -> None:
    assert await client.unary("Echo", b"first") == b"first"
    async with asyncio.timeout(5):
        await served.server.drain(30)


async def test_watchers_of_health_do_not_hold_the_drain_up(served: Served) -> None:
    """The hooks' server says NOT_SERVING first, and then drains."""
    client = Client(served.address)
    watch = client.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    await watch.read()
    served.methods.health.stop_serving()
    async with asyncio.timeout(5):
        await served.server.drain(30)
    await client.channel.close(0)


async def test_a_server_can_be_drained_before_it_had_a_call(served: Served) -> None:
    async with asyncio.timeout(5):
        await served.server.drain(30)


class Silent(asyncio.Protocol):
    """A peer that connects and neither reads its frames nor closes."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.ended.set()
        return True  # keeps its own side open

    def connection_lost(self, _error: Any) -> None:
        self.lost.set()


@pytest.mark.parametrize("greeting", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"])
async def test_a_peer_that_does_not_answer_is_left(greeting: bytes) -> None:
    """Its PING is waited for, a second long, and then for its end."""
    server = Server(Methods().all())
    port = await server.start("127.0.0.1:0")
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_connection(Silent, "127.0.0.1", port)
    transport.write(greeting)
    async with asyncio.timeout(10):
        await server.drain(30)
        await peer.ended.wait()
    assert b"headgate" in peer.data  # the PING
    transport.close()
