"""The sockets of an address, as grpc.aio binds them."""

import asyncio
import contextlib
import os
import socket
import stat

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - an operator's choice, not ours
BACKLOG = 1024
UNIX = "unix:"
_KEEPALIVE_S = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}
"""A peer whose machine has gone is noticed after two minutes; the third value is a count."""


async def listening(address: str) -> list[socket.socket]:
    """Listening sockets for `host:port`, all on one port, or for `unix:PATH`. Raises OSError.

    A socket file that an earlier program has left is replaced.
    """
    if not address.startswith(UNIX):
        return await tcp_sockets(address)
    path = address.removeprefix(UNIX)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unix.bind(path)
    except OSError:
        unix.close()
        raise
    unix.listen(BACKLOG)
    return [unix]


async def tcp_sockets(address: str) -> list[socket.socket]:
    """Listening sockets for `host:port`, all on one port. Raises OSError, also for no address.

    As in gRPC, a wildcard of either family listens on both, and no port is shared.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise OSError(f"{address} is not HOST:PORT")
    if host in _WILDCARDS:
        return [_kept_alive(_wildcard(int(port)))]
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, where in dict.fromkeys(found):
            chosen = sockets[0].getsockname()[1] if sockets else where[1]
            name = (where[0], chosen, *where[2:])
            listening = socket.create_server(name, family=family, backlog=BACKLOG)
            sockets.append(_kept_alive(listening))
    except OSError:
        close(sockets)
        raise
    return sockets


def _wildcard(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104


def _kept_alive(listening: socket.socket) -> socket.socket:
    """Accepted sockets inherit this."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_S.items():
        if hasattr(socket, name):  # not on every system
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening


def close(sockets: list[socket.socket]) -> None:
    """Closes all of them."""
    for listening in sockets:
        listening.close()
