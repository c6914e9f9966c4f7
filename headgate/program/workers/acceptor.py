"""Takes connections on one address and hands each to the next worker.

Proxies have few connections, which live long. Sockets of several processes on one port
(SO_REUSEPORT) would share them by chance, and some workers might get none. In turns no worker has
two more than another.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

from headgate.core.errors import OperatorError
from headgate.grpc_server import sockets


class Acceptor:
    """Listens on `address`. `takers` returns the sockets over which workers get connections.

    A worker that is stopped and whose socket is full is passed over. A connection that nobody
    takes is closed, so its proxy tries again.
    """

    def __init__(self, address: str, takers: Callable[[], Sequence[socket.socket]]) -> None:
        self._address = address
        self._takers = takers
        self._turn = 0
        self._listening: list[socket.socket] = []

    async def start(self) -> None:
        """Raises OperatorError when the address is taken, not allowed, or no address."""
        try:
            self._listening = await sockets.listening(self._address)
        except OSError as error:
            raise OperatorError(
                f"cannot listen on {self._address} for hooks: taken, not allowed, or no address:"
                f" {error}"
            ) from error
        loop = asyncio.get_running_loop()
        for one in self._listening:
            one.setblocking(False)
            loop.add_reader(one, self._accept, one)

    def stop(self) -> None:
        """Takes no more connections."""
        loop = asyncio.get_running_loop()
        for one in self._listening:
            loop.remove_reader(one)
        sockets.close(self._listening)
        self._listening = []

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the peer has gone again
            connection, _ = listening.accept()
            with connection:
                self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        takers = self._takers()
        for offset in range(len(takers)):
            turn = (self._turn + offset) % len(takers)
            with contextlib.suppress(OSError):
                socket.send_fds(takers[turn], [b"."], [connection.fileno()])
                self._turn = turn + 1
                return
