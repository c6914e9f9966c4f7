"""The management API over HTTP, in a thread of its own, for clients that are not asynchronous."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.applications import Starlette

from headgate.program.http_server import HttpServer
from headgate.program.settings import Address
from tests.patience import PATIENCE_S


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The URL of the application while it is served."""
    ready, end = threading.Event(), asyncio.Event()
    started: list[tuple[asyncio.AbstractEventLoop, str]] = []

    async def serve() -> None:
        server = HttpServer(app, Address("127.0.0.1", 0), "the management API")
        await server.start()
        started.append((asyncio.get_running_loop(), server.url))
        ready.set()
        await end.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    [(loop, url)] = started
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(PATIENCE_S)
