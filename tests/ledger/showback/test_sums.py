"""What adds up to what, for any usage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.ledger.showback.clouds import comparisons, unshared_cost
from headgate.ledger.showback.groups import group_rows, total_row
from headgate.ledger.showback.sheets import sheets
from headgate.ledger.showback.split import largest_remainder, rounded, shares
from headgate.ledger.showback.table import Unit
from headgate.ledger.showback.text import in_cents
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By, Line
from tests.ledger.showback.builders import EARLIER, month_lines, report, shown


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**15), min_size=1, max_size=40))
def test_a_split_adds_up_and_no_part_is_a_nano_off(amount: int, weights: list[int]) -> None:
    parts = largest_remainder(amount, weights)

    if sum(weights):
        assert sum(parts) == amount

        pairs = zip(parts, weights, strict=True)
        assert all(abs(part * sum(weights) - amount * one) < sum(weights) for part, one in pairs)
    else:
        assert parts == [0] * len(weights)


@given(st.lists(st.integers(-(10**12), 10**12), max_size=40))
def test_rounded_numbers_add_up_and_none_is_a_unit_off(numbers: list[int]) -> None:
    cents = rounded(numbers, 10**7)

    assert sum(cents) == (sum(numbers) + 5 * 10**6) // 10**7
    pairs = zip(cents, numbers, strict=True)
    assert all(abs(cent * 10**7 - number) < 10**7 for cent, number in pairs)


@given(month_lines)
def test_shares_and_idle_are_the_bill_of_each_pool_in_whole_cents(lines: list[Line]) -> None:
    month = report(*lines)

    for pool in month.pools:
        used, idle = shares(pool, month.lines, month.weights)
        assert sum(used) + sum(idle) + pool.unshared_nanos == pool.amount_nanos
        assert pool.amount_nanos % 10**7 == pool.used_nanos % 10**7 == 0
    shared = sum(line.shared_nanos for line in month.lines)
    unshared = sum(pool.unshared_nanos for pool in month.pools)
    assert shared + unshared == sum(pool.amount_nanos for pool in month.pools)


@pytest.mark.parametrize("by", By)
@given(month_lines)
def test_the_rows_of_every_grouping_add_up_to_the_total(by: By, lines: list[Line]) -> None:
    statement = shown(report(*lines))
    rows, total = group_rows(statement, by), total_row(statement)

    assert sum(row.usage.requests for row in rows) == total.usage.requests
    assert sum(row.usage.tokens for row in rows) == total.usage.tokens
    assert sum(row.usage.cost_nanos for row in rows) == total.usage.cost_nanos
    assert sum(row.used_nanos for row in rows) == total.used_nanos
    assert sum(row.idle_nanos for row in rows) == total.idle_nanos


@pytest.mark.parametrize("by", By)
@given(month_lines)
def test_the_rows_of_each_tenant_are_a_drill_down_of_its_row(by: By, lines: list[Line]) -> None:
    statement = shown(report(*lines))

    for tenant in group_rows(statement, By.TENANT):
        inner = group_rows(statement, by, tenant.key)
        assert sum(row.usage.cost_nanos for row in inner) == tenant.usage.cost_nanos
        assert sum(row.used_nanos for row in inner) == tenant.used_nanos


@given(month_lines)
def test_columns_of_whole_cents_add_up_as_they_are_shown(lines: list[Line]) -> None:
    statement = shown(report(*lines), at=EARLIER)

    for sheet in sheets(statement, By.TENANT):
        *rows, last = in_cents(sheet) or [[]]
        for at, column in enumerate(sheet.columns):
            if sheet.total and column.adds_up and column.unit is Unit.MONEY:
                assert sum(row[at] or 0 for row in rows) == last[at]


@given(month_lines)
def test_the_savings_of_all_rows_are_that_of_the_month_where_a_list_prices_every_model(
    lines: list[Line],
) -> None:
    statement = shown(report(*(line for line in lines if line.model != "tuned")))
    [compared, _] = comparisons(statement.report)

    for by in By:
        sheet = usage_sheet(statement, by)
        at = [column.name for column in sheet.columns].index("saving to list-a")
        assert sheet.total is not None
        assert sheet.total[at] == compared.saving_nanos


@given(month_lines)
def test_the_comparisons_of_all_tenants_are_that_of_the_month(lines: list[Line]) -> None:
    month = report(*lines)
    tenants = {line.tenant for line in month.lines}
    parts = [comparisons(month, tenant) for tenant in tenants]

    for at, whole in enumerate(comparisons(month)):
        assert sum(part[at].cloud_nanos for part in parts) == whole.cloud_nanos
        shared = sum(part[at].own_nanos or 0 for part in parts)
        assert shared + unshared_cost(month, month.clouds[at]) == whole.own_nanos


@given(month_lines)
def test_the_total_of_the_shares_is_the_bill(lines: list[Line]) -> None:
    month = report(*lines)
    sheet = usage_sheet(shown(month), By.TENANT)
    at = [column.name for column in sheet.columns].index("pool_share")

    assert sheet.total is not None
    assert sheet.total[at] == sum(pool.amount_nanos for pool in month.pools)
