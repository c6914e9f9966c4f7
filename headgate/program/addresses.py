"""Addresses that the box may take."""

import socket

from headgate.core.errors import OperatorError
from headgate.dataplane.supervisor import PortTaken, check_port
from headgate.program.settings import Address


def free_address(address: Address, option: str) -> Address:
    """The address as numbers (Envoy takes no names), with a port that nobody listens on.

    `option` is the command-line option that named it. Raises OperatorError when the address is
    taken or does not exist.
    """
    try:
        resolved = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        host = str(resolved[0][4][0])
        return Address(host, check_port(host, address.port))
    except PortTaken as error:
        raise OperatorError(f"{error}; name another address with {option}") from error
    except OSError as error:
        raise OperatorError(
            f"cannot listen on {address.host}: {error.strerror}; name another with {option}"
        ) from error
