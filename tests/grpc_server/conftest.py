"""A served set of methods, on each of the two servers."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.grpc_server.servers import SERVERS, Client, Methods

MAX_BYTES = 40_000_000


@dataclass
class Served:
    """Methods that a server answers, and where."""

    kind: str
    server: Any
    methods: Methods
    address: str


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    """The server's name; tests of only one of them override this."""
    return str(request.param)


@pytest.fixture
async def served(kind: str, tmp_path: Path) -> AsyncIterator[Served]:
    """On a socket of the file system."""
    methods = Methods()
    server = SERVERS[kind](methods.all(), MAX_BYTES)
    address = f"unix:{tmp_path}/grpc.sock"
    await server.start(address)
    yield Served(kind, server, methods, address)
    await server.drain(0)


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    client = Client(served.address)
    yield client
    await client.channel.close(0)
