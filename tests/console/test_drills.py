"""A drill-down finds the requests of its number: together they are the whole, by any group."""

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from html import unescape

import pytest

from headgate.identity.keys import KeyRequest
from headgate.ledger.showback.values import By
from headgate.ledger.sums import GROUPS
from tests.console.conftest import CONSOLE_POLICY, Console
from tests.identity.builders import BY
from tests.ledger.builders import record

ROW = re.compile(r"<tr>(?:(?!</tr>).)*</tr>", re.DOTALL)
DRILL = re.compile(r'href="/console(/requests\?f=[^"]*)"')


@dataclass(frozen=True)
class Found:
    """The requests of a drill-down: their ids, and the sum of their costs in nanos."""

    ids: frozenset[str]
    cost_nanos: int


async def found_at(console: Console, who: str, path: str) -> Found:
    text = (await console.get(who, f"{path}&format=csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))
    ids = frozenset(row["request_id"] for row in rows)
    return Found(ids, sum(int(Decimal(row["cost"] or 0).scaleb(9)) for row in rows))


async def drills_of(console: Console, who: str, path: str) -> dict[str, Found]:
    """Each different drill of the rows of a page, with what it finds."""
    text = (await console.get(who, path)).text
    body = text.split("<main", 1)[1].split("</main>", 1)[0]
    links = {unescape(link) for row in ROW.findall(body) for link in DRILL.findall(row)}
    return {link: await found_at(console, who, link) for link in links}


@pytest.fixture
async def busy(console: Console) -> Console:
    """A ledger with odd names, a label, requests without tenant, and every reason to be free."""
    request = KeyRequest(tenant="acme", user="lena", labels={"cost_center": "4100"})
    key = (await console.store.issue(request, CONSOLE_POLICY, BY)).key.id
    spent = {"time": "2027-01-12T09:00:00Z", "cost": 0.5}
    refused = {"cost": 0, "ended": None, "prompt_tokens": None, "completion_tokens": None}
    await console.add(
        record(20, request_id="labelled", user="lena", key=key, **spent),
        record(21, request_id="blank", user="a b:c", model="large", base="large", **spent),
        record(22, request_id="unknown", tenant=None, user=None, key=None, **refused)
        | {"status": 401, "time": "2027-01-12T10:00:00Z", "source": None, "model": None},
        record(28, request_id="limited", **refused, status=429, source="refund", limit="5 tokens")
        | {"time": "2027-01-12T11:00:00Z"},
        record(23, request_id="left", **refused, status=None, source="refund")
        | {"ended": "client_left", "time": "2027-01-12T11:00:00Z"},
        record(24, request_id="broke", status=502, source="refund", time="2027-01-12T11:00:00Z"),
        record(25, request_id="wrong", status=400, source="refund", time="2027-01-12T11:00:00Z"),
        record(26, request_id="free", source="refund", time="2027-01-12T11:30:00Z"),
        record(27, request_id="other", tenant="globex", user="lena", **spent),
    )
    return console


@pytest.mark.parametrize("group", GROUPS)
async def test_the_drills_of_a_sum_are_the_whole(busy: Console, group: str) -> None:
    for who in ("operator", "finance", "user"):
        drills = await drills_of(busy, who, f"/explore?by={group}&since=30d")
        whole = await found_at(busy, who, "/requests?f=since:30d")

        assert whole.ids
        assert sum(len(one.ids) for one in drills.values()) == len(whole.ids)
        assert frozenset().union(*(one.ids for one in drills.values())) == whole.ids
        assert sum(one.cost_nanos for one in drills.values()) == whole.cost_nanos


@pytest.mark.parametrize("by", By)
@pytest.mark.parametrize("tenant", ["", "acme"])
async def test_the_drills_of_a_month_are_its_requests(busy: Console, by: By, tenant: str) -> None:
    page = f"/showback?month=2027-01&by={by}&tenant={tenant}"
    drills = await drills_of(busy, "operator", page)
    of_tenant = f"&f=tenant:{tenant}" if tenant else ""
    whole = await found_at(busy, "operator", f"/requests?f=since:2027-01-01{of_tenant}")

    assert sum(len(one.ids) for one in drills.values()) == len(whole.ids)
    assert frozenset().union(*(one.ids for one in drills.values())) == whole.ids


@pytest.mark.parametrize("by", By)
async def test_the_requests_and_the_cost_of_each_row_are_those_of_its_drill(
    busy: Console, by: By
) -> None:
    text = (await busy.get("operator", f"/showback?month=2027-01&by={by}&format=csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))
    drills = await drills_of(busy, "operator", f"/showback?month=2027-01&by={by}")
    billed = [one for link, one in drills.items() if "billed%3Ayes" in link]

    assert sorted((len(one.ids), f"{one.cost_nanos / 10**9:.9f}") for one in billed) == sorted(
        (int(row["requests"]), row["cost"]) for row in rows
    )


async def test_each_reason_leads_to_its_requests(busy: Console) -> None:
    drills = await drills_of(busy, "operator", "/showback?month=2027-01")
    reasons = {link.rpartition("billed%3A")[2]: one.ids for link, one in drills.items()}

    assert {name: ids for name, ids in reasons.items() if name != "yes"} == {
        "limit": {"limited"},
        "access": {"unknown"},
        "aborted": {"left"},
        "failed": {"broke"},
        "request": {"wrong"},
        "free": {"free"},
    }
