"""The formats of the report: FOCUS by its rules, CSV and workbook without formulas, the text."""

import csv
import io
import json
import re
import zipfile
from dataclasses import replace

from hypothesis import given

from headgate.ledger.showback.focus import focus_of, focus_rows
from headgate.ledger.showback.sheets import sheets
from headgate.ledger.showback.text import csv_of, text_of
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By, Line
from headgate.ledger.showback.workbook import workbook_of
from tests.ledger.showback.builders import EARLIER, line, month_lines, report, shown
from tests.ledger.showback.focus_rules import faults

EVIL = "=cmd|'/c calc'!A1"


def focus_file(*lines: Line) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(focus_of(report(*lines)))))


@given(month_lines)
def test_every_dataset_keeps_the_rules_of_focus(lines: list[Line]) -> None:
    late = [replace(one, corrects="2026-09") for one in lines[:3]]

    assert faults(focus_file(*lines, *late)) == []


def test_the_rules_of_focus_find_what_is_wrong() -> None:
    [row, *others] = focus_file(line(input_tokens=1_000_000, cost_nanos=5))

    for name, value in (
        ("ServiceProviderName", ""),
        ("ChargeCategory", "Other"),
        ("BilledCost", "1e3"),
        ("ChargePeriodEnd", "2026-10-01"),
        ("ConsumedUnit", ""),
        ("ConsumedUnit", "tokens"),
        ("ConsumedQuantity", "1000000"),
        ("InvoiceId", "1"),
        ("AllocatedTags", "{}"),
        ("Tags", "[]"),
        ("SkuPriceId", ""),
    ):
        assert faults([{**row, name: value}, *others]), name
    assert faults([row, *(one for one in others if one["AllocatedResourceName"] != "used")])


def test_each_part_of_a_pool_says_the_weighted_tokens_that_decided_it() -> None:
    """The weights are 1 for input, 0.1 for cached input and 4 for output."""
    lines = [line(input_tokens=1000, cached_tokens=5, output_tokens=10), line("globex")]
    rows = [row for row in focus_file(*lines) if row["AllocatedMethodId"]]

    details = {
        (row["ResourceId"], row["AllocatedResourceName"]): json.loads(row["AllocatedMethodDetails"])
        for row in rows
    }
    [element] = details["extra", "used"]["Elements"]
    assert element == {"AllocatedRatio": 1, "UsageUnit": "Tokens", "UsageQuantity": 1040.5}
    [nobody] = details["office", "unshared idle"]["Elements"]
    assert nobody == {"AllocatedRatio": 1, "UsageUnit": "Tokens"}


def test_a_cost_without_a_known_price_is_an_adjustment_beside_tokens_for_nothing() -> None:
    rows = focus_file(line(input_tokens=10**6, cost_nanos=5, price_version="lost"))

    tokens, cost, *_ = rows
    assert (tokens["ChargeCategory"], tokens["SkuMeter"]) == ("Usage", "input")
    assert (tokens["ListUnitPrice"], tokens["BilledCost"]) == ("0.0", "0.000000000")
    assert tokens["SkuPriceId"] == "large/input/unpriced"
    assert (cost["ChargeCategory"], cost["SkuMeter"]) == ("Adjustment", "unpriced")
    assert (cost["ListUnitPrice"], cost["BilledCost"]) == ("", "0.000000005")
    assert faults(rows) == []


def test_models_of_the_same_price_have_price_ids_of_their_own() -> None:
    models = ("large", "small")
    lines = [line(model=one, input_tokens=10**6, price_version="v1") for one in models]
    month = replace(report(*lines), prices={"v1": {"input": "1"}})
    rows = csv.DictReader(io.StringIO(focus_of(month)))

    priced = [row for row in rows if row["SkuPriceId"] and row["SkuMeter"] == "input"]
    assert {row["SkuPriceId"] for row in priced} == {"large/input/v1", "small/input/v1"}
    assert faults([{**row, "SkuPriceId": "v1"} for row in priced])


@given(month_lines)
def test_the_bills_of_focus_are_the_cost_and_the_pools(lines: list[Line]) -> None:
    month = report(*lines)
    rows = list(focus_rows(month))

    def billed(account: str) -> int:
        costs = [row["BilledCost"] for row in rows if row["BillingAccountId"] == account]
        return sum(int(cost.replace(".", "")) for cost in costs)

    assert billed("prices") == sum(one.usage.cost_nanos for one in month.lines if not one.reason)
    assert billed("pools") == sum(pool.amount_nanos for pool in month.pools)


def test_no_text_of_a_client_becomes_a_formula() -> None:
    statement = replace(
        shown(report(line(EVIL, "p1", label=EVIL, cost_nanos=1))), names={"p1": EVIL}
    )

    for by in (By.TENANT, By.USER, By.LABEL):
        rows = list(csv.reader(io.StringIO(csv_of(usage_sheet(statement, by)))))
        assert f"'{EVIL}" in rows[1]
        assert not [cell for row in rows for cell in row if re.match(r"[=+@]|-(?![0-9.]+$)", cell)]
        book = zipfile.ZipFile(io.BytesIO(workbook_of(statement, sheets(statement, by))))
        pages = [book.read(name) for name in book.namelist() if "worksheets/" in name]
        assert not [page for page in pages if b"<f>" in page or b"hyperlink" in page]
    assert [row for row in focus_file(*statement.report.lines) if row["SubAccountId"][:1] == "'"]


def test_the_text_escapes_what_would_move_the_cursor() -> None:
    statement = shown(report(line("acme", model="large", label="a\x1b[2J\nb", cost_nanos=1)))

    text = text_of(statement, sheets(statement, By.LABEL))

    assert "\x1b" not in text
    assert "a\\x1b[2J\\nb" in text


def test_a_workbook_has_the_same_bytes_again() -> None:
    statement = shown(report(line(cost_nanos=10**9)))

    assert workbook_of(statement, sheets(statement, By.USER)) == workbook_of(
        statement, sheets(statement, By.USER)
    )


def test_an_open_month_has_a_forecast_and_is_compared_with_the_month_before() -> None:
    before = report(line(cost_nanos=10**9))
    statement = shown(report(line(cost_nanos=3 * 10**9)), before, EARLIER)

    sheet = usage_sheet(statement, By.TENANT)
    row = dict(zip((one.name for one in sheet.columns), sheet.rows[0], strict=True))

    assert (row["cost_before"], str(row["change_percent"])) == (10**9, "200.0")
    assert (row["budget"], row["budget_percent"]) == (2 * 10**7, 15000)
    assert row["forecast"] == 3 * 10**9 * 745 // 218
