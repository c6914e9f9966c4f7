"""Serves an HTTP application inside the program's own event loop: admin, and the API."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from headgate.core.errors import OperatorError
from headgate.program.settings import Address

_GRACE_S = 2


class _QuietServer(uvicorn.Server):
    """uvicorn without signal handlers: the program decides when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One HTTP server for `app` on `address`; port 0 takes a free one.

    `purpose` names it in errors. With `tls` it speaks https only.
    """

    def __init__(
        self,
        app: Starlette,
        address: Address,
        purpose: str = "admin",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._purpose = purpose
        self._scheme = "http" if tls is None else "https"
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
                proxy_headers=False,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, with the real port once it has started."""
        return self._address.url(self._scheme)

    async def start(self) -> None:
        """Listens, and serves from then on; raises OperatorError when the address is taken."""
        listener = _listen(self._address, self._purpose)
        self._address = Address(self._address.host, listener.getsockname()[1])
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def stop(self) -> None:
        """Stops listening and lets requests in flight end, for at most 2 s."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._serving = None


def _listen(address: Address, purpose: str) -> socket.socket:
    """A listening socket: connections wait in it until the server takes them."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        # create_server appends the address, which this message names already.
        reason = str(error.strerror or error).partition(" (while")[0]
        raise OperatorError(
            f"cannot listen on {address.host}:{address.port} for {purpose}: {reason}"
        ) from error
