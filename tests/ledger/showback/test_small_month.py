"""The small month of docs/showback.md, by hand."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from headgate.ledger.showback.closed import document_of
from headgate.ledger.showback.groups import group_rows
from headgate.ledger.showback.split import shares
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By
from tests.ledger.builders import record
from tests.ledger.showback.months import close, policy, put, statement, written
from tests.postgres_server import PostgresServer

LARGE = {"model": "large", "base": "large", "cached_tokens": 0, "completion_tokens": 0}
TEXT = (Path(__file__).parents[3] / "docs" / "showback.md").read_text(encoding="utf-8")


async def test_the_small_month_of_the_page(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.clean_database()
    version = policy().models["large"].prices.periods[0].version
    common = {"model": "large", "base": "large", "price_version": version}
    records = [
        record(1, user="ana", prompt_tokens=400_000, cached_tokens=100_000, cost=0.525, **common),
        record(2, user="ben", prompt_tokens=100_000, cached_tokens=0, cost=0.3, **common),
    ]
    for one in records:
        one["completion_tokens"] = 50_000
    await put(postgres, written(tmp_path / "records.jsonl", iter(records)))

    shown = await statement(postgres)

    rows = {row.name: row.usage.cost_nanos for row in group_rows(shown, By.USER)}
    assert rows == {"ana": 525_000_000, "ben": 300_000_000}
    amounts = {pool.name: pool.amount_nanos for pool in shown.report.pools}
    assert (amounts["hired"], amounts["extra"]) == (nanos("4,612.80"), nanos("51.98"))
    [extra] = [pool for pool in shown.report.pools if pool.name == "extra"]
    used, idle = shares(extra, shown.report.lines, shown.report.weights)
    assert sorted(used) == [nanos("19.251851852"), nanos("32.728148148")]
    assert idle == [0, 0]


async def test_the_late_request_of_the_page(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.clean_database()
    first, second = (period.version for period in policy().models["large"].prices.periods)
    october = record(1, user="ana", prompt_tokens=525_000, cost=0.525, price_version=first, **LARGE)
    await put(postgres, written(tmp_path / "october.jsonl", iter([october])))
    await close(postgres)
    closed = document_of((await statement(postgres)).report)
    late = record(2, user="ben", prompt_tokens=200_000, cost=0.2, price_version=first, **LARGE)
    november = record(3, user="ana", prompt_tokens=100_000, cost=0.2, price_version=second, **LARGE)
    november["time"] = "2026-11-05T10:00:00Z"
    await put(postgres, written(tmp_path / "later.jsonl", iter([late, november])))

    shown = await statement(postgres, "2026-11", datetime(2026, 12, 2, tzinfo=UTC))

    sheet = usage_sheet(shown, By.USER)
    assert sheet.total is not None
    names = [column.name for column in sheet.columns]
    usage, correction, *_ = [dict(zip(names, row, strict=True)) for row in sheet.rows]
    assert (usage["user"], usage["corrects"], usage["cost"]) == ("ana", "", nanos("0.200"))
    assert (correction["user"], correction["corrects"]) == ("ben", "2026-10")
    assert (correction["cost"], correction["pool_share"]) == (nanos("0.200"), 0)
    assert sheet.total[names.index("cost")] == nanos("0.400")
    hired = [pool.amount_nanos for pool in shown.report.pools if pool.name == "hired"]
    assert hired == [nanos("4,464.00")]
    assert usage["pool_share"] == nanos("4,464.00")
    assert document_of((await statement(postgres)).report) == closed


def nanos(text: str) -> int:
    """An amount that the page shows."""
    assert text in TEXT
    return int(Decimal(text.replace(",", "")).scaleb(9))
