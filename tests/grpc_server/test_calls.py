"""Calls of every shape by a real gRPC client, the same on both servers."""

import asyncio
import logging
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headgate.grpc_server.server import Server
from tests.grpc_server.conftest import MAX_BYTES, Served
from tests.grpc_server.servers import SERVERS, Client, Methods, status


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 100_000, 20_000_000])
async def test_a_message_of_any_size_comes_back(client: Client, size: int) -> None:
    """Within a frame, over several, over the windows."""
    message = bytes(size)
    assert await client.unary("Echo", message) == message


async def test_a_stream_of_requests_has_one_answer(client: Client) -> None:
    assert await client.collecting("Join", iter([b"a", b"", b"b" * 3_000_000])) == (
        b"a" + b"b" * 3_000_000
    )
    assert await client.collecting("Join", iter([])) == b""


async def test_one_request_has_a_stream_of_answers(client: Client) -> None:
    assert [answer async for answer in client.giving("Split", b"abc")] == [b"a", b"b", b"c"]
    assert [answer async for answer in client.giving("Split", b"")] == []


async def test_both_sides_stream(client: Client) -> None:
    """Each message has its answer before the next one is sent."""
    call = client.both("Chat")
    for message in (b"a", b"", b"b" * 100_000):
        await call.write(message)
        assert await call.read() == message.upper()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_a_service_may_speak_first(client: Client) -> None:
    call = client.both("Speak")
    assert await call.read() == b"hello"
    await call.write(b"back")
    assert await call.read() == b"back"
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_a_service_may_end_before_its_client(client: Client) -> None:
    """As ext_proc does: the rest of the request is not wanted."""
    for _ in range(3):
        call = client.both("Leave")
        await call.write(b"only")
        assert await call.read() == b"only"
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_a_long_stream_is_not_held_up_by_windows(client: Client) -> None:
    """More bytes each way than any window, in messages of many sizes."""
    call = client.both("Chat")
    sizes = [1, 5, 200_000, 1_500_000, 16_379, 70_000] * 8

    async def write() -> None:
        for size in sizes:
            await call.write(b"a" * size)
        await call.done_writing()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        assert [len(answer) async for answer in call] == sizes


async def test_a_header_reaches_the_method(client: Client) -> None:
    metadata = [("x-test", "first"), ("x-test", "second")]
    assert await client.unary("Ask", b"x-test", metadata=metadata) == b"first"
    assert await client.unary("Ask", b"x-other", metadata=metadata) == b"nothing"


@pytest.mark.parametrize("text", ["", "plain", "100 % of /a?b=c", "Grüße\n\tan 東京 ", "a" * 900])
async def test_a_refusal_has_its_status_and_text(client: Client, text: str) -> None:
    """gRPC encodes text by percent signs."""
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DATA_LOSS):
        message = f"{code.value[0]} {text}".encode()
        assert await status(client.unary("Refuse", message)) == (code.name, text)


async def test_a_failure_tells_no_secret_and_is_logged_once(
    client: Client, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        code, text = await status(client.unary("Fail"))
    assert code == "UNKNOWN"
    if served.kind == "own":  # grpc.aio sends the error's text
        assert "secret" not in text
        assert [record.message for record in caplog.records] == ["/t.T/Fail failed"]


async def test_an_unknown_method_is_unimplemented(client: Client) -> None:
    assert (await status(client.unary("Nothing")))[0] == "UNIMPLEMENTED"
    assert (await status(client.collecting("Nothing", iter([b"a"]))))[0] == "UNIMPLEMENTED"


async def test_a_message_over_the_bound_is_refused(client: Client) -> None:
    """And the connection goes on."""
    code, _ = await status(client.unary("Echo", bytes(MAX_BYTES + 1)))
    assert code == "RESOURCE_EXHAUSTED"
    assert await client.unary("Echo", b"next") == b"next"


async def test_an_unreadable_message_is_refused(client: Client) -> None:
    assert (await status(client.unary("Echo", b"unreadable")))[0] in ("INTERNAL", "UNKNOWN")
    assert await client.unary("Echo", b"next") == b"next"


async def test_compression_is_refused_or_understood(client: Client, served: Served) -> None:
    """Envoy's hooks never compress. gRPC asks servers only for identity."""
    call = client.unary("Echo", b"a" * 1_000, compression=grpc.Compression.Gzip)
    code, _ = await status(call)
    assert code == {"own": "UNIMPLEMENTED", "grpcio": "OK"}[served.kind]


async def test_a_deadline_ends_the_call_and_its_method(client: Client, served: Served) -> None:
    assert (await status(client.unary("Wait", timeout=0.1)))[0] == "DEADLINE_EXCEEDED"
    await served.methods.cancelled.wait()
    assert await client.unary("Echo", b"in time", timeout=30) == b"in time"
    assert await client.unary("Echo", b"for ever", timeout=10**8) == b"for ever"


@pytest.mark.parametrize("shape", ["unary", "giving"])
async def test_a_client_that_cancels_cancels_the_method(
    client: Client, served: Served, shape: str
) -> None:
    if shape == "unary":
        call = client.unary("Wait")
        await served.methods.begun.wait()
    else:
        call = client.giving("Endless", b"message")
        await call.read()
    call.cancel()
    await served.methods.cancelled.wait()
    assert await client.unary("Echo", b"next") == b"next"


async def test_many_calls_at_once_find_their_answers(client: Client) -> None:
    messages = [f"message {number}".encode() * (number % 50) for number in range(500)]
    assert (
        await asyncio.gather(*(client.unary("Echo", message) for message in messages)) == messages
    )


@pytest.fixture
async def health(client: Client) -> Any:
    return health_pb2_grpc.HealthStub(client.channel)


async def test_health_is_checked(served: Served, health: Any) -> None:
    """grpc.health.v1; Envoy and Kubernetes ask for the service ""."""
    serving = health_pb2.HealthCheckResponse.SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == serving
    unknown = health.Check(health_pb2.HealthCheckRequest(service="no.Service"))
    assert (await status(unknown))[0] == "NOT_FOUND"
    served.methods.health.stop_serving()
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_watched_until_the_end(served: Served, health: Any) -> None:
    words = health_pb2.HealthCheckResponse.ServingStatus.Name
    watch = health.Watch(health_pb2.HealthCheckRequest())
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="no.Service"))
    assert words((await watch.read()).status) == "SERVING"
    assert words((await unknown.read()).status) == "SERVICE_UNKNOWN"
    served.methods.health.stop_serving()
    assert words((await watch.read()).status) == "NOT_SERVING"
    assert await watch.read() is grpc.aio.EOF
    assert await unknown.read() is grpc.aio.EOF


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::]", "[::1]"])
async def test_every_form_of_address_is_listened_on(kind: str, host: str) -> None:
    """A wildcard takes both families, as gRPC does."""
    server = SERVERS[kind](Methods().all())
    port = await server.start(f"{host}:0")
    reached = {"0.0.0.0": ["127.0.0.1", "[::1]"], "[::]": ["127.0.0.1", "[::1]"]}
    for name in reached.get(host, [host]):
        client = Client(f"{name}:{port}")
        assert await client.unary("Echo", b"hello") == b"hello"
        await client.channel.close(0)
    await server.drain(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_taken_port_is_an_error(kind: str, host: str) -> None:
    """Two programs on one port would each get half of the calls."""
    first, second = (SERVERS[kind](Methods().all()) for _ in range(2))
    port = await first.start(f"{host}:0")
    with pytest.raises(OSError):
        await second.start(f"{host}:{port}")
    await first.drain(0)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:port", "unix:/no/such/folder/s"])
async def test_an_address_that_is_none_is_an_error(kind: str, address: str) -> None:
    with pytest.raises(OSError):
        await SERVERS[kind](Methods().all()).start(address)


async def test_an_answer_over_the_bound_is_an_error() -> None:
    """Of our own server: nobody takes it, and memory would not be bounded."""
    methods = Methods()
    server = Server(methods.all(), max_message_bytes=1_000)
    client = Client(f"127.0.0.1:{await server.start('127.0.0.1:0')}")
    code, text = await status(client.unary("Large"))
    assert (code, "at most 1000" in text) == ("RESOURCE_EXHAUSTED", True)
    await client.channel.close(0)
    await server.drain(0)
