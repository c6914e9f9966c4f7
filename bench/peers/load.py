"""The client: `python -m bench.peers.load`, in a process of its own.

An Order comes in on stdin and a Load goes out on stdout, both as JSON.
The closed loop keeps `in_flight` requests going until `requests` are done. With `rate_per_s` the
loop is open: requests begin on time, however slow the answers are.
"""

import asyncio
import sys
from collections import Counter
from time import perf_counter
from typing import Any, cast

import msgspec
import uvloop


class Order(msgspec.Struct, kw_only=True):
    """A request, and how often it is sent."""

    port: int
    headers: dict[str, str]
    body: dict[str, Any]
    requests: int
    in_flight: int = 1
    rate_per_s: float = 0.0


class Load(msgspec.Struct, kw_only=True):
    """How it went. `durations_s` are those of the whole answers, in order of size."""

    statuses: dict[str, int]
    taken_s: float
    durations_s: list[float]
    events: int
    """The server-sent events of all answers."""
    sample: str
    """The beginning of an answer that is not a 200."""


class Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._done: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> bytes:
        """Sends a request and returns its whole answer. Raises ConnectionError."""
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._done is None:
            return
        head = bytes(self._received[:end]).lower()
        if b"transfer-encoding: chunked" in head:
            is_whole = self._received.endswith(b"\r\n0\r\n\r\n")
        else:
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            is_whole = len(self._received) >= end + 4 + int(length or 0)
        if is_whole and not self._done.done():
            self._done.set_result(bytes(self._received))
            self._received.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("closed"))


class Client:
    """Asks the same again and again, and notes the answers."""

    def __init__(self, order: Order) -> None:
        body = msgspec.json.encode(order.body)
        fields = {"host": "bench", "content-type": "application/json", **order.headers}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines])
        self._request = f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        self._order = order
        self._free: list[Connection] = []
        self._statuses: Counter[str] = Counter()
        self._durations_s: list[float] = []
        self._events = 0
        self._sample = ""

    async def run(self) -> Load:
        """The whole order."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        await (self._open_loop() if self._order.rate_per_s else self._closed_loop())
        return Load(
            statuses=dict(self._statuses),
            taken_s=loop.time() - start_s,
            durations_s=sorted(self._durations_s),
            events=self._events,
            sample=self._sample,
        )

    async def _closed_loop(self) -> None:
        left = iter(range(self._order.requests))

        async def work() -> None:
            for _ in left:
                await self._ask()

        await asyncio.gather(*(work() for _ in range(self._order.in_flight)))

    async def _open_loop(self) -> None:
        loop = asyncio.get_running_loop()
        start_s, running = loop.time(), []
        for number in range(self._order.requests):
            until_s = start_s + number / self._order.rate_per_s
            await asyncio.sleep(max(0.0, until_s - loop.time()))
            running.append(asyncio.create_task(self._ask()))
        await asyncio.gather(*running)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        start_s = perf_counter()  # uvloop's own clock has only whole milliseconds
        try:
            if self._free:
                connection = self._free.pop()
            else:
                to = ("127.0.0.1", self._order.port)
                _, connection = await loop.create_connection(Connection, *to)
            answer = await connection.ask(self._request)
        except OSError as error:
            self._statuses[type(error).__name__] += 1
            return
        self._durations_s.append(perf_counter() - start_s)
        status = answer[9:12].decode()
        self._statuses[status] += 1
        self._events += answer.count(b"data: ")
        if status != "200":
            self._sample = answer[:600].decode(errors="replace")
        if b"connection: close" not in answer[:600].lower():
            self._free.append(connection)


if __name__ == "__main__":
    ordered = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    load = uvloop.run(Client(ordered).run())
    with open(1, "wb") as output:  # PYTHONUNBUFFERED lets print() cut what a pipe does not hold
        output.write(msgspec.json.encode(load))
