"""The server: it listens, owns the connections, and drains them."""

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from typing import Any

from headgate.core.rpc import Method
from headgate.grpc_server import sockets
from headgate.grpc_server.links import ServerLink
from headgate.grpc_server.receiving import MAX_STREAMS

MAX_MESSAGE_BYTES = 65 * 2**20
"""A body to rewrite (`--body-limit`: at most 64 MiB) travels to a hook and back, with headers."""

_FLUSH_S = 0.2
"""How long cancelled calls' last words may take to leave."""


class Server:
    """Serves methods on one event loop. Implements `Owner` of its connections.

    Peers are asked to have at most `asked_streams` calls at once on a connection. A proxy with more
    calls opens another connection.
    """

    def __init__(
        self,
        methods: Iterable[Method],
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        asked_streams: int = MAX_STREAMS,
    ) -> None:
        self.methods = {method.path: method for method in methods}
        self.max_message_bytes = max_message_bytes
        self.asked_streams = asked_streams
        self.is_draining = False
        self._links: set[ServerLink] = set()
        self._listening: list[asyncio.Server] = []
        self._is_empty = asyncio.Event()

    async def start(self, address: str) -> int:
        """Listens on `host:port` or `unix:PATH`; returns the port, 0 for a socket.

        Raises OSError if the address is taken, not allowed or no address. May be called for
        several addresses.
        """
        loop = asyncio.get_running_loop()
        if address.startswith(sockets.UNIX):
            path = address.removeprefix(sockets.UNIX)
            server = await loop.create_unix_server(self._link, path, backlog=sockets.BACKLOG)
            self._listening.append(server)
            return 0
        bound = await sockets.tcp_sockets(address)
        port: Any = bound[0].getsockname()[1]
        for listening in bound:
            server = await loop.create_server(self._link, sock=listening, backlog=sockets.BACKLOG)
            self._listening.append(server)
        return int(port)

    async def adopt(self, connection: socket.socket) -> None:
        """Serves a connection that another process has accepted; it is ours from now on."""
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._link, connection)
        except OSError:  # the peer has gone again
            connection.close()

    async def drain(self, grace_s: float) -> None:
        """Takes no more connections and calls, lets calls that run end, for `grace_s` at most.

        Calls that still run then end with UNAVAILABLE, and their methods are cancelled.
        """
        self.is_draining = True
        for server in self._listening:
            server.close()
        for link in self._links:
            link.drain()
        await self._wait_until_empty(grace_s)
        tasks = [task for link in self._links for task in link.tasks]
        for link in list(self._links):
            link.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._wait_until_empty(_FLUSH_S)
        for link in list(self._links):
            link.cut_off()
        await self._wait_until_empty(_FLUSH_S)

    # Owner

    def on_made(self, link: ServerLink) -> None:
        self._links.add(link)

    def on_lost(self, link: ServerLink) -> None:
        self._links.discard(link)
        if not self._links:
            self._is_empty.set()

    async def _wait_until_empty(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._links:
                    self._is_empty.clear()
                    await self._is_empty.wait()

    def _link(self) -> ServerLink:
        return ServerLink(self)
