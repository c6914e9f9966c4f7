"""One HTTP request and its answer over ASGI, with a pause that ends when the client leaves."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_AN_HOUR_S = 3600.0


class ExchangeEndedError(Exception):
    """An exchange that does not go on, for one of the two reasons below."""


class ClientGoneError(ExchangeEndedError):
    """The client closed the connection."""


class EngineStoppedError(ExchangeEndedError):
    """The server shuts down: running requests are answered as by a dead engine."""


class Exchange:
    """One request. `watch` must be called once its body is read and before the first pause."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._state: dict[str, Any] = scope.get("state") or {}
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._watcher: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._interruption: type[ExchangeEndedError] | None = None

    def header(self, name: bytes) -> str:
        """A request header's value (the last one), "" where it is absent."""
        return self.headers.get(name, b"").decode("latin-1")

    async def read_body(self) -> bytes:
        """The whole body; ClientGoneError if it never ends."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts)

    def watch(self) -> None:
        """From now on a client that leaves ends the pause."""
        self._watcher = self._loop.create_task(self._watch())

    def close(self) -> None:
        """The exchange is over."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def pause_until(self, when_s: float) -> None:
        """Waits for a time of the loop's clock; ExchangeEndedError as soon as there is a reason.

        It always lets other tasks run, also when the time has passed. This is asyncio.sleep with a
        second way to wake up, and costs no more: thousands of streams call it for every token.
        """
        if self._interruption is None:
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_at(when_s, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        self.check()

    async def wait_for(self, waiter: asyncio.Future[None]) -> None:
        """Waits for `waiter`. Raises ExchangeEndedError as soon as there is a reason."""
        self.check()
        self._waiter = waiter
        await waiter
        self.check()

    async def pause(self, seconds: float) -> None:
        """Waits for some seconds. Raises ExchangeEndedError as soon as there is a reason."""
        await self.pause_until(self._loop.time() + seconds)

    async def pause_forever(self) -> None:
        """Waits for ExchangeEndedError."""
        while True:
            await self.pause(_AN_HOUR_S)

    def check(self) -> None:
        """Raises ExchangeEndedError if there is a reason."""
        if self._interruption is not None:
            raise self._interruption

    def interrupt(self, reason: type[ExchangeEndedError]) -> None:
        """Ends the present pause, and every later one, with `reason`; the first reason stays."""
        self._interruption = self._interruption or reason
        if self._waiter is not None:
            _wake(self._waiter)

    async def answer(self, status: int, body: bytes, content_type: str | None) -> None:
        """The whole answer at once."""
        await self.start(status, content_type, len(body))
        await self.send(body, last=True)

    async def start(self, status: int, content_type: str | None, size_bytes: int | None) -> None:
        """The answer's headers; without a size the body is chunked."""
        headers: list[tuple[bytes, bytes]] = []
        if size_bytes is not None:
            headers.append((b"content-length", str(size_bytes).encode()))
        if content_type is not None:
            headers.append((b"content-type", content_type.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, last: bool = False) -> None:
        """A part of the body; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def cut(self) -> None:
        """Closes the connection in the middle of the answer, once the bytes sent so far are out."""
        await self._end("close_connection")

    async def reset(self) -> None:
        """Resets the connection, in the middle of the answer."""
        await self._end("reset_connection")

    async def _end(self, how: str) -> None:
        self._state[how]()
        if self._watcher is not None:
            await self._watcher

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.interrupt(ClientGoneError)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
