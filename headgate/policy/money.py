"""The numbers with decimals in a policy: prices, limits of cost, weights of tokens.

Each is restricted to values that can be counted exactly, so that none is rounded.
"""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field

MAX_PRICE = Decimal(1_000_000)
PRICE_DECIMALS = 6
"""A millionth per million tokens is a thousandth of a nano per token, the finest price."""
MAX_COST = Decimal(9_000_000)
"""In nanos, this is just below the largest number that Redis' Lua and JSON carry exactly."""
COST_DECIMALS = 9
MAX_WEIGHT = Decimal(1000)
WEIGHT_DECIMALS = 3

PRICE_RULE = (
    f"a price per million tokens, from 0 to {MAX_PRICE} with at most {PRICE_DECIMALS} decimals"
)
UNIT_PRICE_RULE = f"the price of one, from 0 to {MAX_PRICE} with at most {PRICE_DECIMALS} decimals"
COST_RULE = (
    f"an amount in the currency of the prices, above 0 and up to {MAX_COST}, with at most"
    f" {COST_DECIMALS} decimals"
)
WEIGHT_RULE = f"a number from 0 to {MAX_WEIGHT} with at most {WEIGHT_DECIMALS} decimals"


def _decimal(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    return value


Price = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, le=MAX_PRICE, decimal_places=PRICE_DECIMALS, description=PRICE_RULE),
]
UnitPrice = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, le=MAX_PRICE, decimal_places=PRICE_DECIMALS, description=UNIT_PRICE_RULE),
]
Cost = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(gt=0, le=MAX_COST, decimal_places=COST_DECIMALS, description=COST_RULE),
]
Weight = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, le=MAX_WEIGHT, decimal_places=WEIGHT_DECIMALS, description=WEIGHT_RULE),
]
