"""One PostgreSQL for all tests of this folder that one process runs."""

from collections.abc import Iterator

import pytest

from headgate.database.address import DatabaseAddress
from tests.postgres_server import PostgresServer, running_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def address(postgres: PostgresServer) -> DatabaseAddress:
    return postgres.address(postgres.clean_database())
