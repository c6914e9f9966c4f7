"""Slow, lost and half-broken peers, and thousands of streams: what our server holds for them."""

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hpack import Encoder

from headgate.grpc_server import frames, links
from headgate.grpc_server.calls import Call
from headgate.grpc_server.frames import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    ErrorCode,
    FrameReader,
    Kind,
    Setting,
)
from headgate.grpc_server.messages import framed
from headgate.grpc_server.server import Server
from tests.grpc_server.conftest import Served
from tests.grpc_server.peer import CALL
from tests.grpc_server.servers import LARGE_BYTES, Client, Methods, status, until

STREAMS = 10_000


@pytest.fixture
def kind() -> str:
    return "own"


class RawPeer:
    """A socket and the frames on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._encoder = Encoder()
        self._read: list[frames.Frame] = []

    @classmethod
    async def greeted(cls, served: Served, window_bytes: int = 65_535) -> "RawPeer":
        path = served.address.removeprefix("unix:")
        peer = cls(*await asyncio.open_unix_connection(path))
        peer.send(PREFACE, frames.settings({Setting.INITIAL_WINDOW_SIZE: window_bytes}))
        return peer

    def send(self, *sent: bytes) -> None:
        self.writer.write(b"".join(sent))

    def headers(self, stream_id: int, name: str = "Echo", flags: int = 0) -> bytes:
        fields = [*CALL[:2], (":path", f"/t.T/{name}"), *CALL[3:]]
        block = self._encoder.encode(fields)
        return frames.frame(Kind.HEADERS, END_HEADERS | flags, stream_id, block)

    def call(self, stream_id: int, name: str = "Echo", message: bytes = b"message") -> bytes:
        data = frames.frame(Kind.DATA, END_STREAM, stream_id, framed(message))
        return self.headers(stream_id, name) + data

    async def frame(self, kind: Kind) -> frames.Frame:
        """The next frame of a kind."""
        while True:
            while self._read:
                read = self._read.pop(0)
                if read[0] == kind:
                    return read
            data = await self.reader.read(65_536)
            assert data, "the server has closed"
            self._read += self._frames.feed(data)

    async def end(self) -> None:
        """Returns once the server has closed its side."""
        while await self.reader.read(65_536):
            pass

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def calls_alive() -> int:
    gc.collect()
    return sum(isinstance(thing, Call) for thing in gc.get_objects())


async def until_empty(served: Served) -> None:
    """Every connection of the server is lost."""
    await until(lambda: not served.server._links)


async def test_ten_thousand_streams_are_open_at_once(client: Client, served: Served) -> None:
    """On one connection; each answers, and nothing stays in memory after them."""
    calls = [client.both("Hold") for _ in range(STREAMS)]
    for call in calls:
        await call.write(b"message")
    for call in calls:
        assert await call.read() == b"message"
    assert served.methods.waiting == STREAMS
    (link,) = served.server._links
    assert len(link.connection.streams) == STREAMS
    for call in calls:
        await call.done_writing()
    for call in calls:
        assert await call.code() == grpc.StatusCode.OK
    assert (served.methods.waiting, len(link.connection.streams), link.tasks) == (0, 0, set())
    del calls, call
    assert calls_alive() == 0


@pytest.mark.parametrize("name", ["Echo", "Refuse", "Fail", "Wait", "Leave"])
async def test_a_call_that_has_ended_leaves_nothing(
    client: Client, served: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call, no task, no cycle that waits for a collection, and no timer."""
    monkeypatch.setattr(logging.getLogger("headgate.grpc"), "disabled", True)  # it keeps tracebacks
    served.methods.may_end.set()
    assert calls_alive() == 0
    gc.disable()
    try:
        for _ in range(20):
            if name == "Leave":
                call = client.both(name)
                await call.write(b"message")
                assert [answer async for answer in call] == [b"message"]
            else:
                await status(client.unary(name, b"3 text", timeout=60))
        (link,) = served.server._links
        await asyncio.sleep(0)
        alive = [thing for thing in gc.get_objects() if isinstance(thing, Call)]
        assert (alive, link.tasks, link.budget.held_bytes) == ([], set(), 0)
        assert not link.connection.streams
    finally:
        gc.enable()


async def test_a_request_may_come_byte_by_byte(served: Served) -> None:
    peer = await RawPeer.greeted(served)
    for byte in peer.call(1, message=b"slow"):
        peer.send(bytes((byte,)))
        await asyncio.sleep(0)
    data = await peer.frame(Kind.DATA)
    assert data[3] == framed(b"slow")
    await peer.close()


async def test_a_peer_that_reads_slowly_gets_all_of_a_large_answer(served: Served) -> None:
    """As much waits here as the answer has, once."""
    peer = await RawPeer.greeted(served)
    peer.send(peer.call(1, "Large"))
    received = 0
    while received < LARGE_BYTES + 5:
        _, _, _, payload = await peer.frame(Kind.DATA)
        received += len(payload)
        peer.send(frames.window_update(0, len(payload)), frames.window_update(1, len(payload)))
    assert (await peer.frame(Kind.HEADERS))[1] & END_STREAM
    await peer.close()


async def test_a_stream_of_answers_waits_for_its_reader(served: Served) -> None:
    """Once 256 KiB wait for the window the method is not asked for more."""
    peer = await RawPeer.greeted(served)
    peer.send(peer.call(1, "Endless", b"a" * 16_000))
    await peer.frame(Kind.DATA)
    await asyncio.sleep(0.2)
    given = served.methods.given
    (link,) = served.server._links
    assert given < 40
    assert len(link.connection.streams[1].waiting) < 300_000
    peer.send(frames.window_update(0, 10**6), frames.window_update(1, 10**6))
    reading = asyncio.create_task(peer.end())
    await until(lambda: served.methods.given > given)
    peer.send(frames.reset(1, ErrorCode.CANCEL))
    await served.methods.cancelled.wait()
    reading.cancel()
    await peer.close()


async def test_a_peer_that_reads_nothing_is_not_read(served: Served) -> None:
    """Its questions stay in its own socket, so that their answers cannot fill our memory."""
    peer = await RawPeer.greeted(served)
    ping = frames.frame(Kind.PING, 0, 0, b"12345678")
    link = await first_link(served)
    for _ in range(200):
        peer.send(ping * 10_000)
        await asyncio.sleep(0)
    await until(lambda: link.is_paused)
    await asyncio.sleep(0.2)
    transport: Any = link._transport
    assert transport.get_write_buffer_size() < 3_000_000
    reading = asyncio.create_task(_read_pongs(peer, 200 * 10_000))
    async with asyncio.timeout(30):
        await reading
    await peer.close()


async def first_link(served: Served) -> links.ServerLink:
    await until(lambda: served.server._links)
    (link,) = served.server._links
    return link


async def _read_pongs(peer: RawPeer, expected: int) -> None:
    size = 0
    while size < expected * 17:
        data = await peer.reader.read(1_000_000)
        assert data
        size += len(data)


async def test_the_requests_of_a_connection_have_a_bound(served: Served) -> None:
    """Many large requests that do not end: the one too many is refused, and the others go on."""
    bound_bytes = links.MAX_HELD_MESSAGES * served.server.max_message_bytes
    peer = await RawPeer.greeted(served)
    piece = frames.MAX_FRAME_BYTES
    start = (30_000_000).to_bytes(5, "big") + b"\0" * (piece - 5)
    needed = bound_bytes // 1_000_000 + 2
    for stream_id in range(1, 2 * needed, 2):
        data = frames.frame(Kind.DATA, 0, stream_id, start)
        data += frames.frame(Kind.DATA, 0, stream_id, b"\0" * piece) * 62
        peer.send(peer.headers(stream_id), data)
        await peer.writer.drain()
    refused = await peer.frame(Kind.HEADERS)
    assert refused[1] & END_STREAM
    assert b"grpc-status\x018" in refused[3]
    (link,) = served.server._links
    assert link.budget.held_bytes <= bound_bytes + piece
    peer.send(frames.reset(1, ErrorCode.CANCEL), peer.call(2 * needed + 1))
    await peer.frame(Kind.DATA)
    await peer.close()
    await until_empty(served)
    assert link.budget.held_bytes == 0


async def test_a_request_that_waits_for_its_method_is_not_credited(served: Served) -> None:
    """A method that reads nothing holds at most a window of its request."""
    peer = await RawPeer.greeted(served)
    message = framed(b"\0" * 16_379)
    peer.send(
        peer.headers(1, "Speak"), *(frames.frame(Kind.DATA, 0, 1, message) for _ in range(60))
    )
    peer.send(frames.frame(Kind.PING, 0, 0, b"12345678"))
    kinds = set()
    while Kind.PING not in kinds:
        kinds.add((await peer.frame(Kind.PING))[0])
    (link,) = served.server._links
    assert link.budget.held_bytes <= 1_000_000
    await peer.close()


async def test_a_connection_lost_in_the_middle_cancels_its_calls(served: Served) -> None:
    peer = await RawPeer.greeted(served)
    peer.send(peer.call(1, "Wait"), peer.headers(3, "Hold"), peer.headers(5))
    await served.methods.begun.wait()
    peer.writer.transport.abort()
    await served.methods.cancelled.wait()
    await until_empty(served)
    assert served.methods.waiting == 1  # Hold has gone; Wait counts what has begun


async def test_a_peer_that_half_closes_is_left(served: Served) -> None:
    peer = await RawPeer.greeted(served)
    peer.send(peer.call(1, "Wait"))
    await served.methods.begun.wait()
    peer.writer.write_eof()
    await served.methods.cancelled.wait()
    await peer.end()
    await peer.close()


BROKEN = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: headgate\r\n\r\n",
    "TLS": bytes.fromhex("16030100f8010000f40303") + b"\0" * 200,
    "a fault": PREFACE + frames.settings({}) + frames.frame(Kind.DATA, 0, 0, b"x"),
    "a fault, and much more": PREFACE + frames.frame(Kind.PING, 0, 0, b"x") + b"\0" * 500_000,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_peer_that_breaks_the_protocol_learns_why(served: Served, name: str) -> None:
    """GOAWAY arrives, although the rest of its bytes is not read."""
    path = served.address.removeprefix("unix:")
    peer = RawPeer(*await asyncio.open_unix_connection(path))
    peer.send(BROKEN[name])
    fault = await peer.frame(Kind.GOAWAY)
    assert int.from_bytes(fault[3][4:8], "big") != ErrorCode.NO_ERROR
    await peer.end()
    await peer.close()
    await until_empty(served)


async def test_a_port_for_grpc_says_so_to_others(served: Served) -> None:
    """HTTP/2 without gRPC: 415."""
    peer = await RawPeer.greeted(served)
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
    block = Encoder().encode(fields)
    peer.send(frames.frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert (await peer.frame(Kind.HEADERS))[3] == b"\x08\x03415"
    assert b"gRPC" in (await peer.frame(Kind.DATA))[3]
    await peer.close()


async def test_calls_reset_at_once_cost_nothing_later(served: Served) -> None:
    """Rapid reset: thousands of calls that are begun and cancelled."""
    peer = await RawPeer.greeted(served)
    for stream_id in range(1, 20_000, 2):
        peer.send(peer.headers(stream_id, "Hold"), frames.reset(stream_id, ErrorCode.CANCEL))
        if stream_id % 500 == 1:
            await peer.writer.drain()
    peer.send(peer.call(20_001))
    await peer.frame(Kind.DATA)
    (link,) = served.server._links
    await until(lambda: not link.tasks)
    assert (len(link.connection.streams), served.methods.waiting) == (0, 0)
    assert len(link.connection._resets) <= 1_024
    await peer.close()


async def test_a_wrong_deadline_is_refused(served: Served) -> None:
    client = Client(served.address)
    call = client.unary("Echo", b"a", metadata=[("grpc-timeout", "soon")])
    assert (await status(call))[0] in ("INTERNAL", "OK")  # some clients drop the header
    await client.channel.close(0)


@pytest.fixture
async def on_tcp(tmp_path: Path) -> AsyncIterator[Served]:
    methods = Methods()
    server = Server(methods.all())
    yield Served("own", server, methods, f"127.0.0.1:{await server.start('127.0.0.1:0')}")
    await server.drain(0)


async def test_a_peer_that_never_reads_its_answer_is_cut_off_at_the_end(
    on_tcp: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """A drain ends, however full the socket is, and logs nothing."""
    port = int(on_tcp.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as peer:
        raw = RawPeer.__new__(RawPeer)
        raw._encoder = Encoder()
        window = frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1})
        peer.sendall(PREFACE + window + frames.window_update(0, 2**30) + raw.call(1, "Large"))
        link = await first_link(on_tcp)
        await until(lambda: link.is_paused)
        with caplog.at_level(logging.WARNING):
            async with asyncio.timeout(10):
                await on_tcp.server.drain(0.2)
    assert caplog.records == []
