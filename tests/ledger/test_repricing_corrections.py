"""The differences of a repricing become corrections of the next open month, once."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headgate.ledger.showback.closed import document_of
from headgate.ledger.showback.focus import focus_of
from headgate.ledger.showback.groups import corrections
from headgate.ledger.showback.sheets import sheets
from headgate.ledger.showback.text import amount, text_of
from headgate.ledger.showback.values import By
from tests.ledger.builders import record, rows
from tests.ledger.showback.focus_rules import faults
from tests.ledger.showback.months import POLICY_FILE, close, put, records, statement, written
from tests.ledger.test_repricing import BY, MENDED, reprice, run
from tests.postgres_server import PostgresServer

NOVEMBER, DECEMBER = datetime(2026, 12, 2, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)


@pytest.fixture
async def month(postgres: PostgresServer, tmp_path: Path) -> PostgresServer:
    postgres.clean_database()
    await put(postgres, written(tmp_path / "records.jsonl", records(400)))
    (tmp_path / "mended.yaml").write_text(MENDED)
    return postgres


async def test_a_correction_is_a_line_of_the_next_month_once_and_names_its_run(
    month: PostgresServer, tmp_path: Path
) -> None:
    await close(month)
    october = document_of((await statement(month)).report)
    assert reprice(month, "mended", tmp_path / "mended.yaml").returncode == 0

    done = run(month, "correct", "mended", *BY)

    november = await statement(month, "2026-11", NOVEMBER)
    lines = corrections(november.report)
    nanos = sum(line.usage.cost_nanos for line in lines)
    assert nanos < 0
    assert done.stdout == f"the next open month corrects 2026-10 by {amount(nanos)} EUR\n"
    assert {(line.corrects, line.price_version) for line in lines} == {
        ("2026-10", "repricing mended")
    }
    assert {line.usage.requests for line in lines} == {0}
    assert "repricing mended" in text_of(november, sheets(november, By.TENANT))
    focus = list(csv.DictReader(io.StringIO(focus_of(november.report))))
    assert faults(focus) == []
    assert document_of((await statement(month)).report) == october

    await close(month, "2026-11", NOVEMBER)
    assert corrections((await statement(month, "2026-12", DECEMBER)).report) == []


async def test_late_records_are_corrected_beside_a_repricing(
    month: PostgresServer, tmp_path: Path
) -> None:
    await close(month)
    assert reprice(month, "mended", tmp_path / "mended.yaml").returncode == 0
    assert run(month, "correct", "mended", *BY).returncode == 0
    await close(month, "2026-11", NOVEMBER)
    late = record(9_001, time="2026-10-07T10:00:00Z", model="large", base="large", cost=0.5)
    await put(month, written(tmp_path / "late.jsonl", iter([late])))

    december = (await statement(month, "2026-12", DECEMBER)).report

    assert [line.usage.cost_nanos for line in corrections(december)] == [5 * 10**8]
    assert december.without_rows == ()
    assert reprice(month, "again").returncode == 0


async def test_an_open_month_and_a_second_run_and_no_difference_are_refused(
    month: PostgresServer, tmp_path: Path
) -> None:
    mended = tmp_path / "mended.yaml"
    for name, file in (("mended", mended), ("other", mended), ("same", POLICY_FILE)):
        assert reprice(month, name, file).returncode == 0

    assert "2026-10 is open: close it first" in run(month, "correct", "mended", *BY).stderr
    await close(month)
    assert "has no difference to correct" in run(month, "correct", "same", *BY).stderr
    assert run(month, "correct", "mended", *BY).returncode == 0
    for name in ("mended", "other"):
        assert "by the repricing mended already" in run(month, "correct", name, *BY).stderr
    actions = await rows(month, "select action, object from headgate.change order by number")
    assert actions[-1] == ("ledger.correct", "mended")


async def test_a_run_from_before_records_that_the_month_has_charged_is_refused(
    month: PostgresServer, tmp_path: Path
) -> None:
    assert reprice(month, "early", tmp_path / "mended.yaml").returncode == 0
    late = record(9_001, time="2026-10-07T10:00:00Z", model="large", base="large", cost=0.5)
    await put(month, written(tmp_path / "late.jsonl", iter([late])))
    await close(month)

    assert (
        "lacks records that 2026-10 has charged since" in run(month, "correct", "early", *BY).stderr
    )
