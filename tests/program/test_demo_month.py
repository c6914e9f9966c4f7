"""The made-up month of the demo: the same at each start, and never of the future."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from headgate.ledger.reconcile import BOUND_PERCENT
from headgate.ledger.reconciled import reconciled_within
from headgate.policy import load_policy
from headgate.program.demo import demo_policy
from headgate.program.demo_month import add_demo_months
from headgate.program.demo_statements import reconcile_demo_months
from headgate.program.postgres.folder import OWNER
from tests.fakes import FakeClock
from tests.identity.builders import connect_to
from tests.postgres_server import PostgresServer, running_server

NOON_S = 1_800_014_400.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


async def test_a_second_start_adds_only_what_has_ended_since(
    postgres: PostgresServer, tmp_path: object
) -> None:
    file = tmp_path / "headgate.yaml"  # type: ignore[operator]
    file.write_text(demo_policy("http://127.0.0.1:1").text)
    policy, database = load_policy(file), postgres.clean_database()
    connect = connect_to(postgres.address(database))

    first = await add_demo_months(connect, FakeClock(NOON_S), policy)
    again = await add_demo_months(connect, FakeClock(NOON_S), policy)
    later = await add_demo_months(connect, FakeClock(NOON_S + 3600), policy)

    [(count, newest, tenants)] = postgres.run_as(
        OWNER,
        database,
        "select count(*), max(ended_at), count(distinct tenant) from headgate.usage_record",
    )
    assert first > 2_000
    assert again == 0
    assert count == first + later
    assert newest < datetime.fromtimestamp(NOON_S + 3600, UTC)
    assert tenants == len(policy.tenants)


async def test_the_demo_keeps_a_statement_of_each_whole_day_once(
    postgres: PostgresServer, tmp_path: object
) -> None:
    file = tmp_path / "headgate.yaml"  # type: ignore[operator]
    file.write_text(demo_policy("http://127.0.0.1:1").text)
    policy, database = load_policy(file), postgres.clean_database()
    connect = connect_to(postgres.address(database))
    await add_demo_months(connect, FakeClock(NOON_S), policy)
    for _ in range(2):
        await reconcile_demo_months(connect, FakeClock(NOON_S), policy)

    async with connect() as connection:
        december = datetime(2026, 11, 30, 23, tzinfo=UTC)
        found = await reconciled_within(connection, december, december + timedelta(days=31))

    assert found.covered == timedelta(days=31)
    assert len(found.lines) == 3
    assert all(one.difference > 0 and one.is_within(BOUND_PERCENT) for one in found.lines)
