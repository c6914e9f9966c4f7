"""A script that knows only raw lines and the policy agrees with report, CSV, FOCUS and console."""

import asyncio
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import httpx

from headgate.console.app import console_routes
from headgate.console.surroundings import Surroundings
from headgate.ledger.showback.focus import focus_of
from headgate.ledger.showback.groups import group_rows, not_billed
from headgate.ledger.showback.text import csv_of
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By, GroupRow, Statement
from headgate.management.app import management_app
from ratelimit.store.memory import MemoryStore
from tests.console.conftest import no_metrics
from tests.fakes import FakeClock
from tests.ledger.showback.focus_rules import faults
from tests.ledger.showback.months import (
    AFTER,
    POLICY_FILE,
    policy,
    put,
    records,
    statement,
    written,
)
from tests.management.conftest import OPERATOR_TOKEN, placed
from tests.postgres_server import PostgresServer

RECORDS = int(os.environ.get("HEADGATE_RECOMPUTE_RECORDS", "3000"))
"""`make test-recompute` has a million."""
ORIGIN = "https://console.test"
SCRIPT = Path(__file__).with_name("recompute.py")


async def test_an_independent_script_agrees_to_the_last_digit(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    path = written(tmp_path / "records.jsonl", records(RECORDS))
    await put(postgres, path)

    shown = await statement(postgres)
    command = [sys.executable, str(SCRIPT), str(POLICY_FILE), str(path), "2026-10"]
    other = json.loads(await asyncio.to_thread(subprocess.check_output, command))

    for by in (By.TENANT, By.USER, By.MODEL):
        rows = {row.name or row.key: _measures(row) for row in group_rows(shown, by)}
        assert rows == other["groups"][by]
    pools = {pool.name: [pool.amount_nanos, pool.used_nanos] for pool in shown.report.pools}
    assert pools == other["pools"]
    counts = {reason: n for reason, n in not_billed(shown.report).items() if n}
    assert counts == other["not_billed"]
    _check_csv(shown, other)
    _check_focus(shown, other)
    hits = sum(one["hits"] for one in other["groups"]["tenant"].values())
    for by in ("tenant", "model"):
        page = await _console_page(postgres, tmp_path, by)
        assert _console_rows(page) == other["console"][by]
        assert f"From the answer cache: {hits:,} requests" in page


async def _console_page(server: PostgresServer, folder: Path, by: str) -> str:
    clock, token = FakeClock(AFTER.timestamp()), folder / "operator-token"
    place = placed(server.address("clean"), clock, token, ORIGIN, policy=policy)
    around = Surroundings(peek=MemoryStore().peek, metrics=no_metrics)
    app = management_app(
        place.desk, place.callers, console_routes(place.desk, place.callers, around)
    )
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    headers = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, timeout=600) as http:
        path = f"/console/showback?month=2026-10&by={by}"
        return (await http.get(path, headers=headers)).text


def _console_rows(text: str) -> dict[str, list[int]]:
    """The numbers of the console's page by name: as many as it shows, money in cents."""
    table = text.split('aria-labelledby="s-use"', 1)[1].split("</tbody>", 1)[0]
    return dict(_row(row) for row in table.split("</tr>")[1:-1])


def _row(row: str) -> tuple[str, list[int]]:
    """The name and the numbers that the script knows, of a row of the page."""
    found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
    name, requests, _, *numbers = [re.sub(r"<[^>]*>", "", cell).strip() for cell in found]
    tokens, (cost, _, used, idle, share) = numbers[:3], numbers[3:8]
    cells = [requests, *tokens, cost, used, idle, share]
    return name, [int(cell.replace(",", "").replace(".", "")) for cell in cells]


def _measures(row: GroupRow) -> dict[str, int]:
    return {
        "requests": row.usage.requests,
        "input": row.usage.input_tokens,
        "cached": row.usage.cached_tokens,
        "output": row.usage.output_tokens,
        "reasoning": row.usage.reasoning_tokens,
        "cost": row.usage.cost_nanos,
        "hits": row.usage.hits,
        "hit_tokens": row.usage.hit_tokens,
        "used": row.used_nanos,
        "idle": row.idle_nanos,
    }


def _check_csv(shown: Statement, other: dict) -> None:
    rows = csv.DictReader(io.StringIO(csv_of(usage_sheet(shown, By.TENANT))))
    for row in rows:
        if row["kind"] == "usage":
            one = other["groups"]["tenant"][row["tenant"]]
            assert _nanos(row["cost"]) == one["cost"]
            assert _nanos(row["pool_share"]) == one["used"] + one["idle"]
            assert int(row["input_tokens"]) == one["input"]
            assert (int(row["hits"]), int(row["hit_tokens"])) == (one["hits"], one["hit_tokens"])


def _check_focus(shown: Statement, other: dict) -> None:
    by_tenant: dict[str, int] = defaultdict(int)
    tokens: dict[tuple[str, str], int] = defaultdict(int)
    by_pool: dict[str, int] = defaultdict(int)
    rows = list(csv.DictReader(io.StringIO(focus_of(shown.report))))
    assert faults(rows) == []
    for row in rows:
        if row["BillingAccountId"] == "prices":
            by_tenant[row["SubAccountId"]] += _nanos(row["BilledCost"])
            tokens[row["ResourceId"], row["SkuMeter"]] += int(Decimal(row["ConsumedQuantity"]))
        else:
            by_pool[row["ResourceId"]] += _nanos(row["BilledCost"])
    assert by_tenant == {name: one["cost"] for name, one in other["groups"]["tenant"].items()}
    assert by_pool == {name: amount for name, (amount, _) in other["pools"].items()}
    for model, one in other["groups"]["model"].items():
        assert tokens[model, "input"] == one["input"]
        assert tokens[model, "cached_input"] == one["cached"]
        assert tokens[model, "output"] + tokens[model, "reasoning"] == one["output"]
        assert tokens[model, "cached_answer"] == one["hit_tokens"] > 0


def _nanos(text: str) -> int:
    return int(Decimal(text).scaleb(9))
