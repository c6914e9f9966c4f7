"""Money is counted in whole nanos and shown exactly; prices per million tokens become weights."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.amounts import in_units, money, weights_in_units, written
from headgate.core.policy import Count
from headgate.core.prices import Prices, TokenWeights

prices = st.decimals(0, 1_000_000, places=6)
tokens = st.integers(0, 10**7)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (13_200_000, "0.0132"),
        (25_000_000_000, "25.00"),
        (1_200_500_000_000, "1,200.50"),
        (9_000_000_000_000_001, "9,000,000.000000001"),
    ],
)
def test_money_is_written_exactly_with_two_decimals_at_least(nanos: int, text: str) -> None:
    assert written(Count.COST, nanos) == text
    assert written(Count.TOKENS, nanos) == f"{nanos:,}"


@given(st.integers(0, 2**60))
def test_no_nano_is_lost(nanos: int) -> None:
    assert money(nanos) * 10**9 == nanos
    assert in_units(Count.REQUESTS, nanos) is nanos


@given(st.tuples(prices, prices, prices), st.tuples(tokens, tokens, tokens))
def test_the_cost_of_a_request_is_exact_and_rounded_up_once(
    per_million: tuple[Decimal, Decimal, Decimal], used: tuple[int, int, int]
) -> None:
    pairs = zip(per_million, used, strict=True)
    exact = sum((Fraction(price) * number for price, number in pairs), Fraction(0)) / 10**6

    assert Prices(*per_million).cost(*used) == math.ceil(exact * 10**9)


def test_a_price_finer_than_the_policy_accepts_is_rounded_up() -> None:
    assert Prices(input=Decimal("0.0000001")).per_token == TokenWeights(1, 0, 0)


def test_weights_are_shown_as_the_policy_writes_them() -> None:
    assert weights_in_units(TokenWeights()) is None
    shown = weights_in_units(TokenWeights(1500, 1, 1_000_000))
    assert [f"{weight}" for weight in (shown or {}).values()] == ["1.5", "0.001", "1000"]
