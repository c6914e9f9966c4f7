"""Clocks that step: the ledger loses nothing, and has nothing twice."""

from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from accesslog.spool import SpoolWriter, segments_of
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import connected
from headgate.ledger.follow import SpoolFollower
from headgate.ledger.months import provide_months
from tests.fakes import FakeClock
from tests.ledger.builders import line, rows
from tests.postgres_server import PostgresServer

POLICY = CompiledPolicy({}, {}, {})
YEAR_S = 365 * 86_400.0
STEPS = ((YEAR_S, -2 * YEAR_S, YEAR_S), (-30 * YEAR_S, 60 * YEAR_S, -30 * YEAR_S), (-0.5, 1, -0.5))


@pytest.mark.parametrize("steps", STEPS)
async def test_counts_before_are_counts_after_while_the_clock_steps(
    postgres: PostgresServer, tmp_path: Path, steps: tuple[float, ...]
) -> None:
    """The clock of the program and of the proxy steps: records come with times of any year."""
    postgres.clean_database()
    clock = FakeClock(1_790_000_000.0)
    metrics = Metrics(CollectorRegistry(), clock)
    writer = SpoolWriter(tmp_path, 10**9, segment_bytes=4_000)
    numbers = iter(range(1_000))
    async with connected(postgres.address("clean")) as connection:
        for step_s, year in zip(steps, (2027, 2025, 2026), strict=True):
            clock.advance(step_s)
            await provide_months(connection, clock.now_s())
            time = f"{year}-05-01T10:00:00Z"
            lines = [line(next(numbers), time=time) for _ in range(20)]
            writer.append(b"".join([*lines, *lines[:5]]))  # five are delivered again
            connect = partial(connected, postgres.address("clean"))
            follower = SpoolFollower(connect, tmp_path, lambda: POLICY, clock, metrics)
            await follower.catch_up(connection)
    writer.close()

    assert await rows(postgres, "select added, repeated, bad from headgate.ingest") == [(60, 15, 0)]
    assert await rows(postgres, "select count(*) from headgate.usage_record") == [(60,)]
    assert len(segments_of(tmp_path)) <= 1
