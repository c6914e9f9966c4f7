"""The two servers behind one face, and the methods that the tests call."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from headgate.core.rpc import Context, Method, Status
from headgate.grpc_server.aio import AioServer
from headgate.grpc_server.health import Health
from headgate.grpc_server.server import Server

SERVERS: dict[str, Callable[..., Any]] = {"own": Server, "grpcio": AioServer}
"""Both have `start(address)` and `drain(grace_s)`."""

LARGE_BYTES = 30_000_000
BOTH = {"takes_stream": True, "gives_stream": True}


class Methods:
    """Methods of every shape. Events say what has become of them."""

    def __init__(self) -> None:
        self.health = Health()
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.waiting = 0
        self.given = 0

    def all(self) -> tuple[Method, ...]:
        unary = {"Echo": self.echo, "Ask": self.ask, "Fail": self.fail, "Refuse": self.refuse}
        unary |= {"Wait": self.wait, "Large": self.large}
        collecting = {"Join": self.join}
        giving = {"Split": self.split, "Endless": self.endless}
        both = {"Chat": self.chat, "Speak": self.speak, "Leave": self.leave, "Hold": self.hold}
        return (
            *(method(name, run) for name, run in unary.items()),
            *(method(name, run, takes_stream=True) for name, run in collecting.items()),
            *(method(name, run, gives_stream=True) for name, run in giving.items()),
            *(
                method(name, run, takes_stream=True, gives_stream=True)
                for name, run in both.items()
            ),
            *self.health.methods(),
        )

    async def echo(self, message: bytes, _: Context) -> bytes:
        return message

    async def ask(self, name: bytes, context: Context) -> bytes:
        value = context.metadata(name.decode())
        return b"nothing" if value is None else value.encode()

    async def fail(self, _message: bytes, _: Context) -> bytes:
        raise RuntimeError("a secret of the service")

    async def refuse(self, message: bytes, context: Context) -> bytes:
        status, _, text = message.decode().partition(" ")
        context.abort(Status(int(status)), text)

    async def large(self, _message: bytes, _: Context) -> bytes:
        return b"a" * LARGE_BYTES

    async def wait(self, message: bytes, _: Context) -> bytes:
        self.begun.set()
        self.waiting += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return message

    async def join(self, messages: AsyncIterator[bytes], _: Context) -> bytes:
        return b"".join([message async for message in messages])

    async def split(self, message: bytes, _: Context) -> AsyncIterator[bytes]:
        for byte in message:
            yield bytes((byte,))

    async def endless(self, message: bytes, _: Context) -> AsyncIterator[bytes]:
        try:
            while True:
                self.given += 1
                yield message
        finally:
            self.cancelled.set()

    async def chat(self, messages: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message.upper()

    async def speak(self, messages: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        """Speaks first."""
        yield b"hello"
        async for message in messages:
            yield message

    async def leave(self, messages: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        """Ends after the first message, whatever the client does."""
        async for message in messages:
            yield message
            return

    async def hold(self, messages: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        """Answers each message, and counts the calls that are open."""
        self.waiting += 1
        try:
            async for message in messages:
                yield message
        finally:
            self.waiting -= 1


def method(name: str, run: Callable[..., Any], **shape: bool) -> Method:
    return Method(path=f"/t.T/{name}", behavior=run, read=_read, write=bytes, **shape)


def _read(data: bytes) -> bytes:
    if data == b"unreadable":
        raise ValueError("no message")
    return data


class Client:
    """Calls the methods of `Methods` with grpc.aio."""

    def __init__(self, address: str, **options: Any) -> None:
        plain = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1}
        self.channel = grpc.aio.insecure_channel(address, options=[*(plain | options).items()])

    def unary(self, name: str, message: bytes = b"", **options: Any) -> Any:
        return self.channel.unary_unary(f"/t.T/{name}")(message, **options)

    def collecting(self, name: str, messages: Any, **options: Any) -> Any:
        return self.channel.stream_unary(f"/t.T/{name}")(messages, **options)

    def giving(self, name: str, message: bytes, **options: Any) -> Any:
        return self.channel.unary_stream(f"/t.T/{name}")(message, **options)

    def both(self, name: str, **options: Any) -> Any:
        return self.channel.stream_stream(f"/t.T/{name}")(**options)


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds, which nothing announces."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def status(call: Any) -> tuple[str, str]:
    """The status and text with which a call ends."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""
