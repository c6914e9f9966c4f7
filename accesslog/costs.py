"""The cost of a request, by what it used and the price in force. Pure."""

from decimal import Decimal

from headgate.core.amounts import money
from headgate.core.prices import Price
from headgate.core.settlement import Charge, Usage


def cost_of(
    usage: Usage, charged: Charge | None, price: Price | None, from_cache: bool = False
) -> Decimal | None:
    """In the currency of the price; None without a charge or a price."""
    if charged is None or price is None:
        return None
    if from_cache:
        return money(price.prices.cost_of_kept(charged.tokens, charged.requests))
    cost = price.prices.cost(
        charged.prompt - charged.cached,
        charged.cached,
        charged.completion,
        reasoning=min(usage.reasoning or 0, charged.completion),
        audio_seconds=charged.seconds or 0,
        requests=charged.requests,
    )
    return money(cost)
