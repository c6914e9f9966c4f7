"""A tenant gets the spare version of a model, if that costs no more than its ceiling."""

from dataclasses import replace
from decimal import Decimal

import pytest

from extproc.failover import failover_of
from headgate.core.failover import Failover
from headgate.core.prices import PriceBook, PricePeriod, Prices
from headgate.core.versions import Sticky, Version, Versions
from tests.extproc.builders import POLICY, model

ACME = POLICY.tenants["acme"]
FAILOVER = Failover("spot", 4)
CHEAP = Prices(input=Decimal(1), output=Decimal(2))
DEAR = Prices(input=Decimal(3), output=Decimal(6))
VERSIONS = Versions(
    (Version("main", 100, "http://a:80"), Version("spot", 0, "http://b:80")),
    Sticky.CONVERSATION,
    60,
)


@pytest.mark.parametrize(
    ("ceiling", "expected"),
    [
        (None, FAILOVER),
        (DEAR, FAILOVER),
        (Prices(input=Decimal(3), output=Decimal(5)), None),
        (Prices(input=Decimal(2), output=Decimal(9)), None),
    ],
)
def test_the_ceiling_bounds_both_prices(ceiling: Prices | None, expected: Failover | None) -> None:
    book = PriceBook((PricePeriod(None, CHEAP),), {"spot": (PricePeriod(None, DEAR),)})
    entry = replace(model("tiny", versions=VERSIONS), failover=FAILOVER, prices=book)
    payer = replace(ACME, failover_ceiling=None if ceiling is None else ceiling.per_token)

    assert failover_of(entry, payer) == expected


def test_all_periods_count_so_that_the_choice_does_not_change_with_the_date() -> None:
    periods = (PricePeriod(None, CHEAP), PricePeriod(1e9, DEAR), PricePeriod(2e9, CHEAP))
    entry = model("tiny", versions=VERSIONS)
    entry = replace(entry, failover=FAILOVER, prices=PriceBook((), {"spot": periods}))

    assert failover_of(entry, replace(ACME, failover_ceiling=CHEAP.per_token)) is None


def test_a_spare_version_without_prices_costs_as_its_model() -> None:
    entry = model("tiny", versions=VERSIONS)
    entry = replace(entry, failover=FAILOVER, prices=PriceBook((PricePeriod(None, DEAR),)))

    assert failover_of(entry, replace(ACME, failover_ceiling=CHEAP.per_token)) is None


def test_a_model_without_a_spare_version_has_none_for_anybody() -> None:
    assert failover_of(model("tiny"), ACME) is None
