"""The limits of a key, as an operator types them."""

import click
import pytest

from headgate.cli.key_scope import KeyLimitText


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("tokens=100000/day", {"count": "tokens", "limit": 100_000, "per": "day"}),
        ("concurrent=4", {"count": "concurrent", "limit": 4, "per": None}),
        ("cost=12.50/month", {"count": "cost", "limit": 12_500_000_000, "per": "month"}),
        ("cost=0.000000001/year", {"count": "cost", "limit": 1, "per": "year"}),
    ],
)
def test_money_is_typed_in_the_currency_and_sent_in_nanos(text: str, limit: object) -> None:
    assert KeyLimitText().convert(text, None, None) == limit


@pytest.mark.parametrize(
    "text", ["tokens:5", "tokens=1.5/day", "cost=1.0000000001/day", "cost=-1/day"]
)
def test_what_is_no_limit_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError):
        KeyLimitText().convert(text, None, None)
