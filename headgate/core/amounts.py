"""Amounts in a form for people. Cost is counted in nanos of the currency."""

from decimal import Decimal
from functools import lru_cache

from headgate.core.policy import (
    Count,
    CountedRequests,
    Measure,
    PricedTokens,
    WeightedTokens,
)
from headgate.core.prices import TokenWeights

NANOS = 1_000_000_000
"""The number of nanos in one unit of the currency."""
_NANO_DECIMALS = 9
_SHOWN_DECIMALS = 2


@lru_cache(maxsize=4_096)  # equal requests cost the same, many of them nothing
def money(nanos: int) -> Decimal:
    """Nanos in units of the currency: exact, with at least two decimals (`25.00`, `0.0132`)."""
    whole, rest = divmod(nanos, NANOS)
    decimals = f"{rest:0{_NANO_DECIMALS}}".rstrip("0").ljust(_SHOWN_DECIMALS, "0")
    return Decimal(f"{whole}.{decimals}")


def in_units(count: Count, number: int) -> int | Decimal:
    """A number of what a limit counts, in the unit that the policy uses for the limit."""
    return money(number) if count is Count.COST else number


def written(count: Count, number: int) -> str:
    """A number of what a limit counts, for a sentence: `1,200`, or `1,200.50` for cost."""
    return f"{money(number):,f}" if count is Count.COST else f"{number:,}"


def weights_in_units(weights: TokenWeights) -> dict[str, Decimal] | None:
    """The weight of each kind of token, as the policy writes it; None if all weigh 1."""
    if weights == TokenWeights():
        return None
    return {
        "input": _in_thousandths(weights.input),
        "cached_input": _in_thousandths(weights.cached_input),
        "output": _in_thousandths(weights.output),
    }


def weights_of(measure: Measure) -> dict[str, Decimal] | None:
    """The weights of a measure of tokens, by `weights_in_units`; None for any other measure."""
    match measure:
        case WeightedTokens(weights=weights):
            return weights_in_units(weights)
        case CountedRequests() | PricedTokens():
            return None


def _in_thousandths(weight: int) -> Decimal:
    whole, rest = divmod(weight, 1000)
    return Decimal(f"{whole}.{rest:03}".rstrip("0").rstrip("."))
