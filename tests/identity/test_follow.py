"""Replicas that follow the keys of a real PostgreSQL, while connections and servers fail."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from psycopg import sql

from headgate.core.clock import SystemClock
from headgate.core.key_ring import KeysUnavailableError
from headgate.core.metrics import Metrics
from headgate.database.address import DatabaseAddress, database_address
from headgate.database.connection import Connection, connected
from headgate.identity import follow
from headgate.identity.changes import Head
from headgate.identity.follow import Followed, KeyFollower, catch_up
from headgate.identity.ring import MemoryRing
from headgate.identity.snapshot import Snapshot
from headgate.identity.store import IssuedKey
from headgate.program.postgres.folder import OWNER
from headgate.program.postgres.server import running_postgres
from tests.identity.builders import ALICE, BY, POLICY, connect_to, store_of, until
from tests.postgres_server import PostgresServer, temporary_folder

STALE_S = 3600.0
CLOCK = SystemClock()


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.clean_database()


@asynccontextmanager
async def replica(
    address: DatabaseAddress, snapshot: Path | None = None, stale_s: float = STALE_S
) -> AsyncIterator[tuple[MemoryRing, Metrics]]:
    ring, metrics = MemoryRing(CLOCK, stale_s), Metrics(CollectorRegistry(), CLOCK)
    kept = None if snapshot is None else Snapshot(snapshot, CLOCK)
    async with KeyFollower(connect_to(address), ring, kept, CLOCK, metrics):
        yield ring, metrics


def knows(ring: MemoryRing, issued: IssuedKey) -> bool:
    return ring.find(issued.secret.digest) is not None


async def test_three_replicas_learn_a_new_key_and_its_revocation(
    postgres: PostgresServer, database: str
) -> None:
    address = postgres.address(database)
    store = store_of(address, CLOCK)
    async with AsyncExitStack() as stack:
        rings = [(await stack.enter_async_context(replica(address)))[0] for _ in range(3)]
        issued = await store.issue(ALICE, POLICY, BY)
        await until(lambda: all(knows(ring, issued) for ring in rings))

        await store.revoke(issued.key.id, BY)
        await until(lambda: not any(knows(ring, issued) for ring in rings))


async def _backends(postgres: PostgresServer, database: str, like: str) -> list[int]:
    query = sql.SQL(
        "select pid from pg_stat_activity where pid <> pg_backend_pid() and datname = {}"
        " and query ilike {}"
    ).format(sql.Literal(database), sql.Literal(like))
    rows = await asyncio.to_thread(postgres.run_as, "headgate_admin", database, query)
    return [pid for (pid,) in rows]


@pytest.mark.parametrize("what", ["listen%", "%generation%"])
async def test_a_replica_whose_connection_is_cut_without_a_word_learns_a_revocation(
    postgres: PostgresServer, database: str, what: str
) -> None:
    """Its server end answers nothing, and the connection stays open."""
    store = store_of(postgres.address(database), CLOCK)
    async with replica(postgres.address(database)) as (ring, _):
        issued = await store.issue(ALICE, POLICY, BY)
        await until(lambda: knows(ring, issued))
        frozen: list[int] = []
        while not frozen:
            frozen = await _backends(postgres, database, what)
        for backend in frozen:
            postgres.freeze(backend)
        try:
            await store.revoke(issued.key.id, BY)
            await until(lambda: not knows(ring, issued))
        finally:
            for backend in frozen:
                postgres.thaw(backend)


async def test_a_replica_without_hints_honours_a_revocation_at_its_next_poll(
    postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by polls: a busy machine makes none of them wrong. Two of them fit into a second."""
    real, begun, ended = follow.catch_up, 0, {}
    store = store_of(postgres.address(database), CLOCK)
    issued = await store.issue(ALICE, POLICY, BY)

    async def counted(
        connection: Connection, ring: MemoryRing, clock: SystemClock, others: Sequence[Followed]
    ) -> None:
        nonlocal begun
        begun += 1
        number = begun
        await real(connection, ring, clock, others)
        ended[number] = knows(ring, issued)

    monkeypatch.setattr(follow, "catch_up", counted)
    monkeypatch.setattr(follow, "CHANNEL", "another_channel")
    async with replica(postgres.address(database)) as (ring, _):
        await until(lambda: knows(ring, issued))
        await store.revoke(issued.key.id, BY)
        before = begun
        await until(lambda: before + 1 in ended)

    assert not ended[before + 1]
    assert follow.POLL_S + follow.POLL_DEADLINE_S < 1


async def test_a_database_with_another_history_is_read_anew(
    postgres: PostgresServer, database: str
) -> None:
    """As after the restore of a back-up: the numbers of its changes say nothing to this replica."""
    address = postgres.address(database)
    ring = MemoryRing(CLOCK, STALE_S)
    async with connected(address) as connection:
        gone = await store_of(address, CLOCK).issue(ALICE, POLICY, BY)
        await catch_up(connection, ring, CLOCK)
        assert knows(ring, gone)

        postgres.clean_database()
        other = await store_of(address, CLOCK).issue(ALICE, POLICY, BY)
        await catch_up(connection, ring, CLOCK)

    assert not knows(ring, gone)
    assert knows(ring, other)


async def test_the_last_use_of_keys_is_written_in_a_batch_at_the_end(
    postgres: PostgresServer, database: str
) -> None:
    store = store_of(postgres.address(database), CLOCK)
    issued = await store.issue(ALICE, POLICY, BY)
    async with replica(postgres.address(database)) as (ring, _):
        assert knows(ring, issued)

    assert (await store.get(issued.key.id)).last_used_s is not None


async def test_a_schema_that_is_not_there_keeps_nobody_from_starting(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    empty = postgres.address(postgres.empty_database(), OWNER)
    async with replica(empty) as (ring, metrics):
        with pytest.raises(KeysUnavailableError):
            ring.find(bytes(32))
        assert metrics.registry.get_sample_value("headgate_keys_polled_timestamp_seconds") == 1
    assert "run `headgate database migrate`" in caplog.text


async def test_while_the_database_is_away_known_callers_pass_and_strangers_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL is killed: nothing acknowledged is lost, and a restart changes nothing."""
    monkeypatch.setattr("headgate.identity.follow.KEEP_EVERY_S", 0.01)
    snapshot = tmp_path / "keys"
    with temporary_folder() as folder:
        async with running_postgres(folder / "db") as server:
            address = database_address(server.url)
            store = store_of(address, CLOCK)
            known, ended = [await store.issue(ALICE, POLICY, BY) for _ in range(2)]
            await store.revoke(ended.key.id, BY)
            async with replica(address, snapshot) as (ring, metrics):
                await until(snapshot.exists)
                server.process.kill()
                await server.process.wait()
                await until(lambda: "followed no more" in caplog.text)
                assert knows(ring, known)
                assert not knows(ring, ended)
        async with replica(address, snapshot) as (ring, metrics):
            assert knows(ring, known)
            assert not knows(ring, ended)
            assert ring.find(bytes(32)) is None
            polled = metrics.registry.get_sample_value("headgate_keys_polled_timestamp_seconds")
            assert polled == ring.good_at_s
            async with running_postgres(folder / "db"):
                late = await store.issue(ALICE, POLICY, BY)
                await until(lambda: knows(ring, late))
                assert knows(ring, known)
                assert not knows(ring, ended)
    assert "followed again" in caplog.text


async def test_an_error_that_nobody_expects_does_not_end_the_polls(
    postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = (
        follow.poll,
        iter([ValueError("a row of a later release"), ZeroDivisionError()]),
    )

    async def failing(connection: Connection, held: Head | None) -> tuple[Head, bool]:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await real(connection, held)

    monkeypatch.setattr(follow, "poll", failing)
    issued = await store_of(postgres.address(database), CLOCK).issue(ALICE, POLICY, BY)
    async with replica(postgres.address(database)) as (ring, _):
        await until(lambda: ring.good_at_s > 0)
        assert knows(ring, issued)
