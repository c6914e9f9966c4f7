"""Migrations on a real PostgreSQL: in order, once, all or nothing, and who may do what after it."""

import asyncio
import threading
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest

from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.policy import Caller
from headgate.database.connection import connected
from headgate.database.migrate import Migration, check_schema, migrate, read_migrations
from headgate.identity.follow import catch_up
from headgate.identity.ring import NEVER_S, MemoryRing
from headgate.program.postgres.folder import APPLICATION, OWNER
from tests.patience import PATIENCE_S
from tests.postgres_server import PostgresServer

FIRST = Migration(1, "001_a.sql", "-- oldest-program: 1\ncreate table headgate.a (x int)")
SECOND = Migration(2, "002_b.sql", "-- oldest-program: 1\ncreate table headgate.b (x int)")
BROKEN = Migration(2, "002_b.sql", "-- oldest-program: 1\ncreate table headgate.b (); select 1/0")
CONTRACT = Migration(2, "002_b.sql", "-- oldest-program: 2\ndrop table headgate.a")


@pytest.fixture
def empty(postgres: PostgresServer) -> str:
    return postgres.empty_database()


def tables(postgres: PostgresServer, database: str) -> list[str]:
    query = "select tablename from pg_tables where schemaname = 'headgate' order by 1"
    return [name for (name,) in postgres.run_as(OWNER, database, query)]


def test_programs_that_migrate_at_once_apply_each_file_once(
    postgres: PostgresServer, empty: str
) -> None:
    done: list[list[str]] = []
    address = postgres.address(empty, OWNER)

    def run() -> None:
        done.append(migrate(address, [FIRST, SECOND]))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert sorted(done) == [[], [], ["001_a.sql", "002_b.sql"]]
    assert tables(postgres, empty) == ["a", "b", "migration"]


def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(
    postgres: PostgresServer, empty: str
) -> None:
    with pytest.raises(OperatorError, match="division by zero"):
        migrate(postgres.address(empty, OWNER), [FIRST, BROKEN])

    assert tables(postgres, empty) == ["a", "migration"]
    assert migrate(postgres.address(empty, OWNER), [FIRST, SECOND]) == ["002_b.sql"]


def test_a_file_that_was_changed_after_it_was_applied_is_refused(
    postgres: PostgresServer, empty: str
) -> None:
    migrate(postgres.address(empty, OWNER), [FIRST])
    changed = Migration(1, FIRST.name, FIRST.sql + " ")

    with pytest.raises(OperatorError, match=r"another text of 001_a\.sql"):
        migrate(postgres.address(empty, OWNER), [changed, SECOND])

    assert tables(postgres, empty) == ["a", "migration"]


def test_a_database_that_is_newer_than_the_program_is_refused(
    postgres: PostgresServer, empty: str
) -> None:
    migrate(postgres.address(empty, OWNER), [FIRST, SECOND])

    with pytest.raises(OperatorError, match="has 2 migrations and this program knows 1"):
        migrate(postgres.address(empty, OWNER), [FIRST])


@pytest.mark.parametrize(
    ("applied", "known", "problem"),
    [
        ([], 1, "0 of 1 migrations: run `headgate database migrate`"),
        ([FIRST], 1, None),
        ([FIRST], 2, "1 of 2 migrations"),
        ([FIRST, SECOND], 1, None),
        ([FIRST, CONTRACT], 1, "needs a program with 2 migrations"),
        ([FIRST, CONTRACT], 2, None),
    ],
)
async def test_a_program_works_on_its_own_schema_and_on_an_expanded_one(
    postgres: PostgresServer,
    empty: str,
    applied: list[Migration],
    known: int,
    problem: str | None,
) -> None:
    if applied:
        await asyncio.to_thread(migrate, postgres.address(empty, OWNER), applied)

    async with connected(postgres.address(empty, OWNER)) as connection:
        if problem is None:
            await check_schema(connection, known)
            return
        with pytest.raises(OperatorError, match=problem):
            await check_schema(connection, known)


def test_without_the_role_of_the_application_the_error_names_the_statement(
    postgres: PostgresServer, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.database.migrate.APPLICATION_ROLE", "no_such_role")

    with pytest.raises(OperatorError, match="create role no_such_role nologin"):
        migrate(postgres.address(empty, OWNER), [FIRST])


def test_our_files_apply_one_by_one_as_well_as_at_once(
    postgres: PostgresServer, empty: str
) -> None:
    files = read_migrations()
    for count in range(1, len(files) + 1):
        assert migrate(postgres.address(empty, OWNER), files[:count]) == [files[count - 1].name]

    assert tables(postgres, empty) == tables(postgres, postgres.clean_database())


FIRST_ROWS = """
insert into headgate.person (name) values ('rita');
insert into headgate.api_key (id, tenant, person_id, created_at, generation)
  select '~0123456789abcdef', 'acme', id, now(), 1 from headgate.person;
insert into headgate.key_secret (digest, key_id, created_at)
  values (sha256('secret'), '~0123456789abcdef', now());
update headgate.generation set value = 1;
"""
"""A key, as the oldest schema takes it."""


@pytest.mark.parametrize("count", range(1, len(read_migrations())))
async def test_a_key_of_each_older_schema_counts_in_the_newest(
    postgres: PostgresServer, empty: str, count: int
) -> None:
    """Version 0.1.0 has no database, so each schema between two releases takes its place."""
    owner, clock = postgres.address(empty, OWNER), SystemClock()
    migrate(owner, read_migrations()[:count])
    postgres.run_as(OWNER, empty, FIRST_ROWS)

    migrate(owner)

    ring = MemoryRing(clock, NEVER_S)
    async with connected(postgres.address(empty)) as connection:
        await catch_up(connection, ring, clock)
    assert ring.find(sha256(b"secret").digest()) == Caller("acme", "rita", "~0123456789abcdef")


def test_a_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "002_b.sql").write_text(SECOND.sql)

    with pytest.raises(ValueError, match="not 1, 2, 3"):
        read_migrations(tmp_path)


@pytest.fixture(scope="module")
def whole(postgres: PostgresServer) -> str:
    return postgres.clean_database()


@pytest.mark.parametrize(
    "statement",
    [
        "update headgate.change set origin = 'x'",
        "delete from headgate.change",
        "truncate headgate.change",
        "drop table headgate.change",
        "alter table headgate.change disable trigger all",
        "copy headgate.change to program 'id'",
        "delete from headgate.api_key",
        "update headgate.api_key set tenant = 'x'",
        "delete from headgate.key_secret",
        "update headgate.key_secret set digest = digest",
        "delete from headgate.person",
        "delete from headgate.generation",
        "insert into headgate.migration values (9, 'x', 'x', 9)",
        "create table headgate.mine (x int)",
        "create role mine",
    ],
)
def test_the_application_may_not(postgres: PostgresServer, whole: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        postgres.run_as(APPLICATION, whole, statement)
