"""The export for FOCUS and the official validator of the FinOps Foundation.

`make test-focus` installs it, into an environment of its own in the folder HEADGATE_FOCUS. Of the
rules that come with it, those of FOCUS 1.2 are the newest. focus_rules.py checks what 1.3 added.
"""

import asyncio
import csv
import io
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headgate.ledger.showback.focus import COLUMNS, focus_of
from headgate.ledger.showback.month import read_statement
from headgate.policy import load_policy
from headgate.program.demo import demo_policy
from headgate.program.demo_month import add_demo_months
from tests.fakes import FakeClock
from tests.identity.builders import connect_to
from tests.ledger.builders import record
from tests.ledger.showback.builders import line, report
from tests.ledger.showback.months import close, policy, put, records, statement, written
from tests.postgres_server import PostgresServer

FOLDER = Path(os.environ["HEADGATE_FOCUS"])
RULES = "1.2.0.1"
SUPPORTED = (
    *("ACCOUNT_NAMING", "BILLING_BASED_ON_PROVISIONED_RESOURCES", "MULTIPLE_BILLING_ACCOUNT_TYPES"),
    *("MULTIPLE_PRICING_CATEGORIES", "MULTIPLE_SUB_ACCOUNT_TYPES", "NEGOTIATED_PRICING"),
    *("PUBLIC_PRICE_LIST", "RESOURCE_TYPE_ASSIGNMENT", "SUB_ACCOUNT", "TAGGING", "UNIT_PRICING"),
    "USAGE_MEASUREMENT",
)
"""What Headgate has of what providers may have. Rules about the rest do not apply."""
ONE_CURRENCY = re.compile(r"PricingCurrency.*|CostAndUsage-D-0(4[678]|5[0-6])-C")
"""They are about prices in other currencies, for providers with public prices and several. The
validator applies such a rule where a provider has one of the two."""
NO_INVOICE = {"InvoiceId-C-005-C"}
"""It wants an InvoiceId. It is one of two alternatives, and the rule over both passes."""
REGULAR = {"ChargeClass-C-000-M", "ChargeClass-C-005-C"}
"""What is wrong with a copy that has a word where no charge is a correction. The validator leaves
charges without a ChargeClass out of every rule for charges that are no corrections."""
DATASET = {"CostAndUsage-D-000-M", "CostAndUsage-D-001-M"}
"""The rules over all rules. They fail where one of the above does."""


def findings(text: str, folder: Path) -> set[str]:
    """The rules that the validator finds broken, without those that it applies wrongly."""
    copy = [{**row, "ChargeClass": row["ChargeClass"] or "Regular"} for row in _rows(text)]
    found = _broken(text, folder / "export") | (_broken(_text(copy), folder / "copy") - REGULAR)
    return {rule for rule in found if not ONE_CURRENCY.fullmatch(rule)} - NO_INVOICE - DATASET


def _broken(text: str, folder: Path) -> set[str]:
    return set(re.findall(r"^\S* (\S+): FAIL", _said(text, folder), flags=re.MULTILINE))


def _said(text: str, folder: Path) -> str:
    """The validator's report about a dataset. It looks for its currencies from where it runs."""
    folder.mkdir()
    file = folder / "focus.csv"
    file.write_text(text, encoding="utf-8", newline="")
    packages = next(FOLDER.glob("lib/python*/site-packages/focus_validator"))
    (folder / "focus_validator").symlink_to(packages)
    criteria = ",".join(f"{name}_SUPPORTED" for name in SUPPORTED)
    command = [FOLDER / "bin/focus-validator", "--data-file", file, "--validate-version", RULES]
    command += ["--block-download", "--applicability-criteria", criteria]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    passed = len(re.findall(r": PASS", ended.stdout))
    assert (ended.returncode, passed > 200) == (0, True), ended.stdout + ended.stderr
    return ended.stdout


async def test_a_month_of_thousands_of_requests_is_valid(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    await put(postgres, written(tmp_path / "records.jsonl", records(3000)))

    text = focus_of((await statement(postgres)).report)

    meters = {row["SkuMeter"] for row in _rows(text)}
    assert meters >= {"cached_input", "cached_answer", "reasoning", "request", "reserved", "owned"}
    assert await asyncio.to_thread(findings, text, tmp_path) == set()


async def test_a_month_with_corrections_is_valid(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.clean_database()
    await put(postgres, written(tmp_path / "records.jsonl", records(300)))
    await close(postgres)
    price = policy().models["large"].prices.periods[0]
    late = record(999_999, prompt_tokens=200_000, cost=0.2, price_version=price.version)
    late |= {"model": "large", "base": "large", "cached_tokens": 0, "completion_tokens": 0}
    await put(postgres, written(tmp_path / "late.jsonl", iter([late])))

    shown = await statement(postgres, "2026-11", datetime(2026, 12, 2, tzinfo=UTC))
    text = focus_of(shown.report)

    assert "Correction" in {row["ChargeClass"] for row in _rows(text)}
    assert await asyncio.to_thread(findings, text, tmp_path) == set()


async def test_the_month_of_the_demo_is_valid(postgres: PostgresServer, tmp_path: Path) -> None:
    file = tmp_path / "headgate.yaml"
    file.write_text(demo_policy("http://127.0.0.1:1").text)
    compiled, now = load_policy(file), datetime(2027, 1, 15, 12, tzinfo=UTC)
    connect = connect_to(postgres.address(postgres.clean_database()))
    await add_demo_months(connect, FakeClock(now.timestamp()), compiled)

    async with connect() as connection:
        shown = await read_statement(connection, compiled, "2026-12", now)

    assert {one.tenant for one in shown.report.lines} == set(compiled.tenants)
    assert await asyncio.to_thread(findings, focus_of(shown.report), tmp_path) == set()


def test_audio_whole_numbers_lost_prices_and_costs_below_zero_are_valid(tmp_path: Path) -> None:
    assert findings(_odd(), tmp_path) == set()


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"ChargeCategory": "Purchase"}, "EffectiveCost-C-005-C"),
        ({"ServiceCategory": "AI"}, "ServiceCategory-C-003-M"),
        ({"ListCost": "9.5"}, "ListCost-C-009-C"),
        ({"SkuPriceId": ""}, "SkuPriceId-C-005-C"),
    ],
)
def test_the_validator_finds_what_is_wrong(
    wrong: Mapping[str, str], rule: str, tmp_path: Path
) -> None:
    rows = [{**row, **wrong} for row in _rows(_odd())]

    assert rule in findings(_text(rows), tmp_path)


def _odd() -> str:
    """Recordings at whole prices, one token without a price, and a correction by a repricing."""
    prices = {"input": "1", "output": "4", "audio_second": "2", "request": "3"}
    lines = [
        line(input_tokens=10**6, audio_seconds=3600, cost_nanos=7204 * 10**9, price_version="v1"),
        line("=evil", "", output_tokens=1, cost_nanos=7, price_version="lost"),
        line("globex", requests=0, cost_nanos=-5 * 10**8, corrects="2026-09"),
    ]
    return focus_of(replace(report(*lines), prices={"v1": prices}))


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def _text(rows: list[dict[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
