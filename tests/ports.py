"""TCP ports of 127.0.0.1 that no other program takes between the choice and the use.

A port that the kernel chooses can be given to somebody else once it is let go: to another test, or
to an outgoing connection. These stand below the range that the kernel chooses from. Each process
owns a block of them, by a lock that ends with it.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path

_FIRST, _BEHIND = 12_000, 22_000  # a Redis Cluster also takes the port 10,000 above
_BLOCK = 200
_LOCKS = Path(tempfile.gettempdir()) / f"headgate-ports-{os.getuid()}"


def free_port() -> int:
    """A port that nobody listens on now, and that nobody else is told. Raises OSError for none."""
    for port in islice(_own_ports(os.getpid()), _BLOCK):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("all ports of this process's block are taken")


@cache
def _own_ports(pid: int) -> Iterator[int]:
    """The ports of the first block that no other process owns, in turns without end."""
    _LOCKS.mkdir(exist_ok=True)
    for first in range(_FIRST, _BEHIND, _BLOCK):
        lock = os.open(_LOCKS / str(first), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return cycle(range(first, first + _BLOCK))
    raise OSError(f"no block of ports is left for process {pid}")
