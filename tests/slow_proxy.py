"""A TCP proxy that delays or refuses what comes, between a client and its server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SlowProxy:
    """Forwards each chunk after `delay_s`. While it `refuses`, it closes each new connection.

    A test may change both at any time.
    """

    def __init__(self, target: str) -> None:
        self.delay_s = 0.0
        self.refuses = False
        self.port = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        if self.refuses:
            writer.close()
            return
        onward, backward = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, backward}
        await asyncio.gather(self._pump(reader, backward), self._pump(onward, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s)
                writer.write(data)
        except OSError:
            pass  # the other side has gone: this one ends too
        writer.close()
        self._writers.discard(writer)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def slow_proxy(target: str) -> AsyncIterator[SlowProxy]:
    """A proxy before the server on the unix socket `target`."""
    proxy = SlowProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.hang_up()
        await asyncio.sleep(0)
