"""Addresses that the box may take."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from headgate.core.errors import OperatorError
from headgate.dataplane.supervisor import PortTaken, hold_port
from headgate.program.settings import Address


@contextmanager
def held_address(address: Address, option: str) -> Iterator[Address]:
    """The address as numbers (Envoy takes no names), with a port that nobody listens on.

    Inside the block no other program gets the port by chance. `option` is the command-line option
    that named the address. Raises OperatorError when it is taken or does not exist.
    """
    try:
        resolved = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        host = str(resolved[0][4][0])
        holder = hold_port(host, address.port)
    except PortTaken as error:
        raise OperatorError(f"{error}; name another address with {option}") from error
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {address.host}: {error.strerror}; name another with {option}"
        ) from error
    with holder:
        yield Address(host, holder.getsockname()[1])
