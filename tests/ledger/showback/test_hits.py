"""Hits of the answer cache in the report: a price of their own, and no part of the machines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.ledger.showback.clouds import comparisons
from headgate.ledger.showback.skus import charges_of
from headgate.ledger.showback.values import Usage
from tests.ledger.showback.builders import line, report, usages

OWN = {"input": "1", "cached_input": "0.5", "output": "4", "cached_answer": "0.1"}
NONE_OF_ITS_OWN = {"input": "1", "cached_input": "0.5", "output": "4"}


@pytest.mark.parametrize(("prices", "price"), [(OWN, "0.1"), (NONE_OF_ITS_OWN, "0.5")])
def test_hits_are_an_article_with_their_own_price_or_that_of_cached_input(
    prices: dict[str, str], price: str
) -> None:
    one = line(requests=3, hits=2, hit_tokens=1_000_000, input_tokens=1_000_000, cost_nanos=0)

    [charge] = [each for each in charges_of(one, prices) if each.kind == "cached_answer"]
    assert (charge.quantity, charge.unit, charge.price) == (1_000_000, "Tokens", price)
    assert charge.exact == f"{price}00000000000"


@given(usages, st.sampled_from([OWN, NONE_OF_ITS_OWN, {}]))
def test_the_charges_of_a_line_with_hits_are_its_cost(usage: Usage, prices: dict[str, str]) -> None:
    charges = charges_of(line(usage=usage), prices)

    assert sum(charge.nanos for charge in charges) == usage.cost_nanos


def test_hits_have_no_share_of_the_machines() -> None:
    worked = line("globex", output_tokens=10, cost_nanos=10)
    hit = line("acme", hits=1, hit_tokens=10_000, cost_nanos=10)
    shared = {one.tenant: one.shared_nanos for one in report(worked, hit).lines}

    assert shared["acme"] == 0 < shared["globex"]


def test_neither_side_of_the_comparison_with_a_cloud_counts_hits() -> None:
    worked = line("globex", output_tokens=10, cost_nanos=10)
    hit = line("acme", hits=1, hit_tokens=10_000, cost_nanos=10)

    assert comparisons(report(worked, hit)) == comparisons(report(worked))
