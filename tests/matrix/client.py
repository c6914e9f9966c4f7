"""An HTTP client that keeps every byte of an answer, says how it ended, and can leave early."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11

from tests.patience import PATIENCE_S


@dataclass(frozen=True)
class Seen:
    """An answer as its client saw it.

    `end` is `whole`, `cut` by the other side, `left` by the client itself, or that nothing more
    came. `status` is None where no answer began.
    """

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    end: str


@dataclass(frozen=True)
class Sent:
    """A request. A `method` of GET has no body; a `form` is sent as multipart/form-data."""

    path: str
    body: Mapping[str, Any] | None
    headers: Mapping[str, str]
    form: Mapping[str, str] | None = None

    def head_and_body(self, host: str) -> tuple[h11.Request, bytes]:
        kind, content = self._content()
        headers = {"host": host, "content-length": str(len(content)), **self.headers}
        if kind:
            headers["content-type"] = kind
        method = "POST" if kind else "GET"
        return h11.Request(method=method, target=self.path, headers=list(headers.items())), content

    def _content(self) -> tuple[str, bytes]:
        if self.body is not None:
            return "application/json", json.dumps(self.body).encode()
        if self.form is None:
            return "", b""
        parts = [
            f"--x\r\ncontent-disposition: form-data; {_named(name)}\r\n\r\n{value}\r\n"
            for name, value in self.form.items()
        ]
        return "multipart/form-data; boundary=x", ("".join(parts) + "--x--\r\n").encode()


def _named(name: str) -> str:
    return f'name="{name}"; filename="a.wav"' if name == "file" else f'name="{name}"'


async def ask(
    url: str,
    sent: Sent,
    enough: Callable[[bytes], bool] = lambda _: False,
    leave: asyncio.Event | None = None,
) -> Seen:
    """Sends one request on a connection of its own.

    It leaves once it has the headers and as much of the body as is `enough`, or when `leave` is
    set.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    exchange = _Exchange(reader, h11.Connection(h11.CLIENT), enough)
    head, content = sent.head_and_body(parts.netloc)
    try:
        writer.write(exchange.connection.send(head) or b"")
        writer.write(exchange.connection.send(h11.Data(content)) or b"")
        writer.write(exchange.connection.send(h11.EndOfMessage()) or b"")
        async with asyncio.timeout(PATIENCE_S):
            return await (exchange.read() if leave is None else exchange.read_until(leave))
    except TimeoutError:
        return exchange.seen("nothing more came")
    finally:
        writer.close()


class _Exchange:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        connection: h11.Connection,
        enough: Callable[[bytes], bool],
    ) -> None:
        self.connection = connection
        self._reader = reader
        self._enough = enough
        self._head: h11.Response | None = None
        self._body = bytearray()

    async def read(self) -> Seen:
        while not self._has_enough():
            event = self._next_event()
            if event is h11.NEED_DATA:
                self.connection.receive_data(await self._bytes())
            elif isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self.seen("whole")
            else:
                return self.seen("cut")
        return self.seen("left")

    async def read_until(self, leave: asyncio.Event) -> Seen:
        reading, leaving = asyncio.ensure_future(self.read()), asyncio.ensure_future(leave.wait())
        try:
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else self.seen("left")
        finally:
            reading.cancel()
            leaving.cancel()

    def _next_event(self) -> Any:
        try:
            return self.connection.next_event()
        except h11.RemoteProtocolError:  # the end of the connection before that of the body
            return h11.ConnectionClosed()

    async def _bytes(self) -> bytes:
        try:
            return await self._reader.read(65536)
        except ConnectionError:
            return b""

    def _has_enough(self) -> bool:
        return self._head is not None and self._enough(bytes(self._body))

    def seen(self, end: str) -> Seen:
        """The answer so far, and how it ended."""
        head = self._head
        if head is None:
            return Seen(None, {}, b"", end)
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        return Seen(head.status_code, headers, bytes(self._body), end)
