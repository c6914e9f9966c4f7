"""The page of a month: whose it is, whether it is final, and its files."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from headgate.ledger.engine_counters import EngineTokens
from headgate.ledger.reconcile import Compared, LedgerTokens
from headgate.ledger.reconciled import keep_statement
from headgate.ledger.showback.formats import FILES
from tests.console.conftest import Console
from tests.ledger.builders import record

DECEMBER = {"time": "2026-12-20T07:00:00Z"}
MONTH = "/showback?month=2026-12"


async def test_a_month_is_closed_once_by_an_operator_and_stays_as_it_is(console: Console) -> None:
    await console.add(record(30, request_id="december", **DECEMBER))
    asked = await console.get("operator", "/showback/2026-12/close")
    done = await console.ask("operator", "POST", "/showback/2026-12/close")
    closed = (await console.get("operator", MONTH)).text
    again = await console.ask("operator", "POST", "/showback/2026-12/close")
    await console.add(record(31, request_id="late", **DECEMBER))
    later = (await console.get("operator", MONTH)).text

    assert "This cannot be undone" in asked.text
    assert done.headers["location"] == "/console/showback?month=2026-12"
    assert "Closed" in closed
    assert "Checksum, SHA-256" in closed
    assert again.status_code == 409
    assert later == closed
    assert "month.close" in (await console.get("operator", "/changes")).text
    january = (await console.get("operator", "/showback?month=2027-01")).text
    assert "corrections of 2026-12" in january


async def test_a_month_that_runs_is_open_and_cannot_be_closed(console: Console) -> None:
    page = (await console.get("operator", "/showback?month=2027-01")).text
    answer = await console.ask("operator", "POST", "/showback/2027-01/close")

    assert "Close the month" not in page
    assert "At this pace" in page
    assert answer.status_code == 409


@pytest.mark.parametrize("who", ["user", "finance", "admin", "foreign"])
async def test_only_operators_see_the_bill_of_all_and_close_it(console: Console, who: str) -> None:
    await console.add(record(30, request_id="december", **DECEMBER))
    page = await console.get(who, MONTH)
    done = await console.ask(who, "POST", "/showback/2026-12/close")

    assert done.status_code == 403
    assert page.status_code == (403 if who == "user" else 200)
    assert "The bill by pool" not in page.text
    assert "Close the month" not in page.text


@pytest.mark.parametrize("kind", FILES)
async def test_a_tenants_files_have_its_own_lines_only(console: Console, kind: str) -> None:
    path = f"/showback?month=2027-01&by=user&format={kind}"
    mine = await console.get("finance", path)
    foreign = await console.get("finance", f"{path}&tenant=globex")
    theirs = await console.get("foreign", path)

    assert mine.status_code == 200
    assert "attachment" in mine.headers["content-disposition"]
    assert foreign.status_code == 403
    assert b"globex" not in mine.content
    assert b"acme" not in theirs.content
    assert b"pools" not in mine.content or kind != "focus"


@pytest.mark.parametrize("kind", FILES)
async def test_a_file_of_a_closed_month_has_the_same_bytes_each_time(
    console: Console, kind: str
) -> None:
    await console.add(record(30, request_id="december", **DECEMBER))
    await console.ask("operator", "POST", "/showback/2026-12/close")
    path = f"{MONTH}&format={kind}"
    first = await console.get("operator", path)
    console.clock.advance(3600)
    second = await console.get("operator", path)

    assert first.content == second.content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/showback?month=2026-13", 422),
        ("/showback?month=2027-02", 409),
        ("/showback?by=colour", 422),
        ("/showback?format=pdf", 422),
        ("/showback?tenant=nobody", 404),
        ("/showback/2026-13/close", 422),
    ],
)
async def test_a_month_that_is_none_gets_an_error_page(
    console: Console, path: str, status: int
) -> None:
    answer = await console.get("operator", path)

    assert answer.status_code == status
    assert "<nav" in answer.text


async def test_the_parts_of_the_bill_and_idle_are_the_bill(console: Console) -> None:
    text = (await console.get("operator", "/showback?month=2027-01")).text

    assert "Adds up" in text
    assert "is idle" in text
    assert "Build or buy" in text


async def test_the_page_has_both_accounts_of_each_pod_and_only_operators_see_them(
    console: Console,
) -> None:
    begin = datetime(2027, 1, 1, tzinfo=UTC)
    before = (await console.get("operator", "/showback?month=2027-01")).text
    lines = [compared("10.1.0.1:8000", 1_000, 990, unsure=6), compared("=evil", 5_000, 4_000)]
    async with console.desk.connect() as connection:
        await keep_statement(connection, (begin, begin + timedelta(hours=5)), begin, lines)
    text = (await console.get("operator", "/showback?month=2027-01")).text

    assert "headgate ledger reconcile --keep" in before
    assert cells_of(text, "10.1.0.1:8000") == "tiny 1,000 990 10 6 4 0.400 within"
    assert cells_of(text, "=evil") == "tiny 5,000 4,000 1,000 0 1,000 20.000 above"
    assert cells_of(text, "All pods") == "6,000 4,990 1,010 6 1,004 16.733 above"
    assert "cover 5 of 344 h" in text
    for who, path in (("finance", ""), ("operator", "&tenant=acme")):
        other = (await console.get(who, f"/showback?month=2027-01{path}")).text
        assert "=evil" not in other
        assert "reconcile" not in other


def compared(pod: str, engine: int, ledger: int, unsure: int = 0) -> Compared:
    return Compared(
        pod=pod,
        engine=EngineTokens(model="tiny", prompt=engine),
        ledger=LedgerTokens(requests=1, prompt=ledger, unsure=unsure),
    )


def cells_of(text: str, name: str) -> str:
    """The words of the row with this heading."""
    [row] = re.findall(rf'<th scope="row"[^>]*>{re.escape(name)}</th>(.*?)</tr>', text, re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", row).split())


async def test_a_tenant_sees_its_own_share_beside_the_prices_of_a_cloud(console: Console) -> None:
    text = (await console.get("finance", "/showback?month=2027-01")).text
    [row] = re.findall(r'<th scope="row">list-a</th>(.*?)</tr>', text, re.DOTALL)
    sheet = (await console.get("finance", "/showback?month=2027-01&format=csv")).text
    names, *rows = csv.reader(io.StringIO(sheet))

    assert "2026-10-01" in row
    assert "loss" in row
    assert names[-2:] == ["at list-a of 2026-10-01", "saving to list-a"]
    share = names.index("pool_share")
    assert all(
        Decimal(one[-1]) == Decimal(one[-2]) - Decimal(one[share]) for one in rows if one[-2]
    )
