"""A closed month never changes, and what comes late is a correction of the next month."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from hypothesis import given

from headgate.database.connection import connected
from headgate.ledger.months import drop_months
from headgate.ledger.showback.closed import MonthError, document_of, report_of
from headgate.ledger.showback.corrections import RowsGoneError, late_lines
from headgate.ledger.showback.focus import focus_of
from headgate.ledger.showback.groups import corrections
from headgate.ledger.showback.sheets import sheets
from headgate.ledger.showback.text import text_of
from headgate.ledger.showback.values import By, Line, Statement
from headgate.ledger.showback.workbook import workbook_of
from headgate.program.postgres.folder import APPLICATION, OWNER
from tests.ledger.builders import record
from tests.ledger.showback.builders import month_lines, report
from tests.ledger.showback.months import AFTER, close, put, records, statement, written
from tests.postgres_server import PostgresServer

LATER = datetime(2026, 12, 2, tzinfo=UTC)


def rendered(shown: Statement) -> list[bytes]:
    """Everything without names: all formats but those by user."""
    found = sheets(shown, By.TENANT)
    at = replace(shown, names={}, at=AFTER)
    return [
        document_of(shown.report),
        focus_of(shown.report).encode(),
        text_of(at, found).encode(),
        workbook_of(at, found),
    ]


@pytest.fixture
async def month(postgres: PostgresServer, tmp_path: Path) -> PostgresServer:
    postgres.clean_database()
    await put(postgres, written(tmp_path / "records.jsonl", records(400)))
    return postgres


async def test_a_closed_month_has_the_same_bytes_without_names_rows_and_policy(
    month: PostgresServer,
) -> None:
    closing = await close(month)
    before = rendered(await statement(month))

    month.run_as(APPLICATION, "clean", "update headgate.person set name = 'gone:' || id::text")
    async with connected(month.address("clean", OWNER)) as connection:
        await drop_months(connection, datetime(2026, 12, 1, tzinfo=UTC).date())
    after = await statement(month, now=LATER)

    assert after.closing == closing
    assert rendered(after) == before
    assert all(name.startswith("gone:") for name in after.names.values())


@pytest.mark.parametrize(
    "change",
    ["update headgate.closed_month set document = ''", "delete from headgate.closed_month"],
)
async def test_the_role_of_the_services_cannot_change_a_closed_month(
    month: PostgresServer, change: str
) -> None:
    await close(month)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        month.run_as(APPLICATION, "clean", change)
    with pytest.raises(psycopg.errors.CheckViolation):
        month.run_as(OWNER, "clean", "update headgate.closed_month set document = '{}'")


async def test_a_month_is_closed_once_after_its_end_and_in_order(month: PostgresServer) -> None:
    with pytest.raises(MonthError, match="is open until its end"):
        await close(month, now=datetime(2026, 10, 31, 22, 59, tzinfo=UTC))
    await close(month)

    with pytest.raises(MonthError, match="2026-12 begins at"):
        await close(month, "2026-12", datetime(2027, 2, 1, tzinfo=UTC))
    with pytest.raises(MonthError, match="2026-09 begins at"):
        await close(month, "2026-09")


async def test_a_late_record_is_a_correction_in_the_next_month_that_names_its_month_once(
    month: PostgresServer, tmp_path: Path
) -> None:
    await close(month)
    closed = document_of((await statement(month)).report)
    late = record(9_001, time="2026-10-07T10:00:00Z", model="large", base="large", cost=0.5)
    await put(month, written(tmp_path / "late.jsonl", iter([late])))

    november = await statement(month, "2026-11", LATER)
    [line] = corrections(november.report)
    assert (line.corrects, line.usage.cost_nanos, line.usage.requests) == ("2026-10", 5 * 10**8, 1)
    assert document_of((await statement(month)).report) == closed

    await close(month, "2026-11", LATER)
    december = await statement(month, "2026-12", datetime(2027, 1, 2, tzinfo=UTC))
    assert corrections(december.report) == []


async def test_a_month_whose_records_were_dropped_is_named_and_not_corrected(
    month: PostgresServer, tmp_path: Path
) -> None:
    await close(month)
    async with connected(month.address("clean", OWNER)) as connection:
        await drop_months(connection, datetime(2026, 11, 1, tzinfo=UTC).date())

    november = await statement(month, "2026-11", LATER)

    assert corrections(november.report) == []
    assert november.report.without_rows == ("2026-10",)


@given(month_lines)
def test_a_document_is_its_report_and_has_the_same_bytes_again(lines: list[Line]) -> None:
    month = report(*lines)
    document = document_of(month)

    assert report_of(document) == month
    assert document_of(report_of(document)) == document
    assert document_of(report(*reversed(lines))) == document


@given(month_lines, month_lines)
def test_closed_lines_and_late_lines_are_all_lines(one: list[Line], more: list[Line]) -> None:
    now = list(added(one, more))
    late = late_lines("2026-10", now, one)

    assert sum(line.usage.requests for line in now) == sum(
        line.usage.requests for line in (*one, *late)
    )
    assert sum(line.usage.cost_nanos for line in now) == sum(
        line.usage.cost_nanos for line in (*one, *late)
    )
    assert {line.corrects for line in late} <= {"2026-10"}
    assert late_lines("2026-10", now, [*one, *late]) == []
    if one:
        with pytest.raises(RowsGoneError):
            late_lines("2026-10", now[1:] if now[0] in one else [], one)


def added(one: list[Line], more: list[Line]) -> Iterator[Line]:
    """The lines of both: what has the same key is one line."""
    keys = {key(line): line for line in one}
    for line in more:
        known = keys.get(key(line))
        keys[key(line)] = line if known is None else both(known, line)
    yield from keys.values()


def key(line: Line) -> tuple[object, ...]:
    return line.tenant, line.person, line.model, line.label, line.reason


def both(one: Line, other: Line) -> Line:
    names = ("requests", "input_tokens", "cached_tokens", "output_tokens", "cost_nanos")
    sums = {name: getattr(one.usage, name) + getattr(other.usage, name) for name in names}
    return replace(one, usage=replace(one.usage, **sums))
