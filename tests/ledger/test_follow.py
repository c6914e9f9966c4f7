"""From the spool into the database: exactly once, whoever dies on the way."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from accesslog.spool import Segment, SpoolWriter, segments_of
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import connected
from headgate.ledger.follow import SpoolFollower
from headgate.program.postgres.folder import ADMIN, APPLICATION
from tests.fakes import FakeClock
from tests.identity.builders import until
from tests.ledger.builders import ledger, line, rows
from tests.postgres_server import PostgresServer

LIMIT_BYTES = 10_000_000
POLICY = CompiledPolicy({}, {}, {})
NOW_S = 1_790_000_000.0


class Rig:
    """A spool, a database and a follower between them, driven by hand."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        server.clean_database()
        self.server = server
        self.folder = folder
        self.registry = CollectorRegistry()
        self.clock = FakeClock(NOW_S)
        self.metrics = Metrics(self.registry, self.clock)
        self.follower = self.new_follower()

    def new_follower(self) -> SpoolFollower:
        connect = partial(connected, self.server.address("clean"))
        return SpoolFollower(connect, self.folder, lambda: POLICY, self.clock, self.metrics)

    async def catch_up(self, follower: SpoolFollower | None = None) -> None:
        async with connected(self.server.address("clean")) as connection:
            await (follower or self.follower).catch_up(connection)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"headgate_ledger_{name}", labels)


@pytest.fixture
def rig(postgres: PostgresServer, tmp_path: Path) -> Rig:
    return Rig(postgres, tmp_path)


@pytest.fixture
def writer(rig: Rig) -> Iterator[SpoolWriter]:
    writer = SpoolWriter(rig.folder, LIMIT_BYTES, segment_bytes=4_000)
    yield writer
    writer.close()


async def test_records_come_as_they_are_written_and_whole_segments_go(
    rig: Rig, writer: SpoolWriter
) -> None:
    for number in range(20):
        assert writer.append(line(number)) == 0
        await rig.catch_up()
        assert len(await ledger(rig.server)) == number + 1

    assert [segment.number for segment in segments_of(rig.folder)] == [5]
    assert rig.counted("records_total", outcome="added") == 20
    assert rig.counted("current_timestamp_seconds") == NOW_S


async def test_a_new_follower_goes_on_where_the_last_one_ended(
    rig: Rig, writer: SpoolWriter
) -> None:
    writer.append(line(1) + line(2))
    await rig.catch_up()
    writer.append(line(3))

    await rig.catch_up(rig.new_follower())

    assert await rows(rig.server, "select added, repeated from headgate.ingest") == [(3, 0)]


async def test_two_followers_of_one_spool_add_each_record_once(
    rig: Rig, writer: SpoolWriter
) -> None:
    other = rig.new_follower()
    for number in range(6):
        writer.append(line(number))
        await asyncio.gather(rig.catch_up(), rig.catch_up(other))
    await rig.catch_up()
    await rig.catch_up(other)

    assert await rows(rig.server, "select added, repeated from headgate.ingest") == [(6, 0)]


async def test_a_segment_that_was_added_but_not_removed_is_removed(rig: Rig) -> None:
    writer = SpoolWriter(rig.folder, LIMIT_BYTES)
    writer.append(line(1))
    [segment] = segments_of(rig.folder)
    copy = (rig.folder / segment.file_name).read_bytes()
    writer.close()
    await rig.catch_up()
    assert segments_of(rig.folder) == []
    (rig.folder / segment.file_name).write_bytes(copy)

    await rig.catch_up(rig.new_follower())

    assert segments_of(rig.folder) == []
    assert await rows(rig.server, "select added, repeated, bad from headgate.ingest") == [(1, 0, 0)]


async def test_the_torn_line_of_a_killed_process_is_one_bad_line(rig: Rig) -> None:
    (rig.folder / Segment("dead", 1).file_name).write_bytes(line(1) + line(2)[:40])

    await rig.catch_up()

    assert len(await ledger(rig.server)) == 1
    assert rig.counted("records_total", outcome="bad") == 1
    assert segments_of(rig.folder) == []


async def test_a_segment_of_zeros_after_a_power_failure_ends(rig: Rig) -> None:
    path = rig.folder / Segment("dead", 1).file_name
    path.write_bytes(line(1) + bytes(3_000_000) + b"\n" + line(2))

    await rig.catch_up()

    assert len(await ledger(rig.server)) == 2
    assert segments_of(rig.folder) == []


async def test_records_of_a_stepped_clock_go_to_the_months_that_they_name(
    rig: Rig, writer: SpoolWriter
) -> None:
    times = ("2026-10-01T00:00:00Z", "2031-01-01T00:00:00Z", "2001-01-01T00:00:00Z")
    for number, time in enumerate(times):
        writer.append(line(number, time=time))
    await rig.catch_up()

    query = (
        "select c.relname from headgate.usage_record r join pg_class c on c.oid = r.tableoid"
        " order by 1"
    )
    assert [name for (name,) in await rows(rig.server, query)] == [
        "usage_record_2001_01",
        "usage_record_2026_10",
        "usage_record_2031_01",
    ]


async def test_a_row_that_the_database_refuses_does_not_stop_the_others(
    rig: Rig, writer: SpoolWriter
) -> None:
    rule = "alter table headgate.usage_record add constraint not_this check (request_id <> '{}')"
    rig.server.run_as("headgate_owner", "clean", rule.format("request-2"))
    try:
        writer.append(b"".join(line(number) for number in range(5)))
        await rig.catch_up()
    finally:
        drop = "alter table headgate.usage_record drop constraint not_this"
        rig.server.run_as("headgate_owner", "clean", drop)

    assert len(await ledger(rig.server)) == 4
    assert await rows(rig.server, "select added, repeated, bad from headgate.ingest") == [(4, 0, 1)]


def refuse_connections(server: PostgresServer, *, refused: bool) -> None:
    """Ends the connections of the services, and lets no new one in."""
    limit = 0 if refused else -1
    server.run_as(ADMIN, "postgres", f"alter role {APPLICATION} connection limit {limit}")
    if refused:
        end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'"
        server.run_as(ADMIN, "postgres", end.format(APPLICATION))


async def test_while_the_database_is_away_the_spool_keeps_everything(
    rig: Rig, writer: SpoolWriter, caplog: pytest.LogCaptureFixture
) -> None:
    writer.append(line(1))
    rig.follower.start()
    await until(lambda: rig.counted("records_total", outcome="added") == 1)

    refuse_connections(rig.server, refused=True)
    try:
        for number in range(2, 40):
            assert writer.append(line(number)) == 0
        rig.clock.advance(3600)
        await until(lambda: "the ledger waits" in caplog.text)
        assert rig.counted("current_timestamp_seconds") == NOW_S
        assert rig.counted("records_total", outcome="added") == 1
    finally:
        refuse_connections(rig.server, refused=False)

    await until(lambda: rig.counted("records_total", outcome="added") == 39)
    await until(lambda: rig.counted("current_timestamp_seconds") == NOW_S + 3600)
    await asyncio.to_thread(rig.follower.stop)
    assert len(await ledger(rig.server)) == 39
    assert rig.counted("lost_records_total") == 0
    assert caplog.text.count("the ledger waits") == 1


async def test_the_labels_of_the_key_are_those_of_the_time_of_the_record(
    rig: Rig, writer: SpoolWriter
) -> None:
    key = "~0123456789abcdef"
    rig.server.run_as(
        "headgate_owner",
        "clean",
        "with p as (insert into headgate.person (name) values ('eve') returning id)"
        " insert into headgate.api_key (id, tenant, person_id, labels, created_at, generation)"
        " select '~0123456789abcdef', 'acme', id, '{\"cost_center\": \"4711\"}', now(), 1 from p",
    )
    writer.append(line(1, key=key, user="eve") + line(2))
    await rig.catch_up()

    query = 'select "user", labels from headgate.usage_line order by request_id'
    assert await rows(rig.server, query) == [("eve", {"cost_center": "4711"}), ("user-2", None)]


async def test_a_pseudonym_changes_no_sum(rig: Rig, writer: SpoolWriter) -> None:
    writer.append(line(0) + line(3) + line(1))
    await rig.catch_up()
    sums = (
        "select person_id, sum(cost_nanos) from headgate.usage_record group by person_id order by 1"
    )
    before = await rows(rig.server, sums)

    rename = "update headgate.person set name = 'gone-1' where name = 'user-0'"
    rig.server.run_as("headgate", "clean", rename)

    assert await rows(rig.server, sums) == before
    named = "select count(*) from headgate.usage_line where \"user\" = 'gone-1'"
    assert await rows(rig.server, named) == [(2,)]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from accesslog.spool import SpoolWriter
from tests.ledger.builders import line
writer = SpoolWriter(Path(sys.argv[1]), 10**9, segment_bytes=20_000)
number = 0
while True:
    assert writer.append(line(number)) == 0
    number += 1
    print(number, flush=True)
"""


async def test_a_killed_writer_loses_nothing_that_it_had_written(rig: Rig) -> None:
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(rig.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert process.stdout is not None
    while int(process.stdout.readline()) < 200:
        pass
    await rig.catch_up()
    os.kill(process.pid, signal.SIGKILL)
    said = process.communicate()[0].split()

    await rig.catch_up()

    written = int(said[-1]) if said else 200
    added = len(await ledger(rig.server))
    assert added in (written, written + 1)  # killed between the write and its line
    assert segments_of(rig.folder) == []
