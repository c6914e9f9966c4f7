"""The charges of a line: each kind of token is an article of its own. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from headgate.ledger.showback.split import largest_remainder
from headgate.ledger.showback.text import amount
from headgate.ledger.showback.values import Line

Kind = tuple[str, int, str]
"""The name of a kind, its quantity and its unit."""
_MILLION = 6
_THOUSANDTHS = 12
_KEPT = "cached_answer"
"""All tokens of the answers from the answer cache. Without a price they cost as cached input."""
UNPRICED = "unpriced"
"""The cost of a line whose prices the ledger does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The cost of one kind in a line.

    `nanos` add up to the cost of the line, in which each record was rounded up to a nano. `exact`
    is quantity times price as decimal text. A charge of the kind `UNPRICED` has neither of the two,
    and `exact` is what was charged.
    """

    kind: str
    quantity: int
    unit: str
    priced_quantity: str
    priced_unit: str
    price: str
    exact: str
    nanos: int


def charges_of(line: Line, prices: Mapping[str, str]) -> list[Charge]:
    """The charges of a line for the kinds that it has. `prices` are decimal text by kind."""
    usage = line.usage
    kinds = [
        ("input", usage.input_tokens, "Tokens"),
        ("cached_input", usage.cached_tokens, "Tokens"),
        ("output", usage.output_tokens - usage.reasoning_tokens, "Tokens"),
        ("reasoning", usage.reasoning_tokens, "Tokens"),
        ("audio_second", usage.audio_seconds, "Seconds"),
        (_KEPT, usage.hit_tokens, "Tokens"),
        ("request", usage.requests, "Requests"),
    ]
    if not prices:
        return list(_unpriced(kinds, usage.cost_nanos))
    if "cached_input" in prices:
        prices = {_KEPT: prices["cached_input"], **prices}
    exact = [_exact(quantity, prices.get(kind, "0"), unit) for kind, quantity, unit in kinds]
    weights = [int(cost.scaleb(_THOUSANDTHS)) for cost in exact]
    if not any(weights):
        weights[-1] = 1
    nanos = largest_remainder(usage.cost_nanos, weights)
    return [
        _charge(kind, cost, part, prices.get(kind[0], "0"))
        for kind, cost, part in zip(kinds, exact, nanos, strict=True)
        if part or (kind[1] and (kind[2] == "Tokens" or cost))
    ]


def _unpriced(kinds: Sequence[Kind], nanos: int) -> Iterator[Charge]:
    """The tokens for nothing, and the cost beside them: nobody can say which of them it was for."""
    for kind in kinds:
        _, quantity, unit = kind
        if quantity and unit == "Tokens":
            yield _charge(kind, Decimal(0), 0, "0")
    if nanos:
        yield Charge(
            kind=UNPRICED,
            quantity=0,
            unit="",
            priced_quantity="",
            priced_unit="",
            price="",
            exact=amount(nanos),
            nanos=nanos,
        )


def _charge(kind: Kind, exact: Decimal, nanos: int, price: str) -> Charge:
    name, quantity, unit = kind
    is_token = unit == "Tokens"
    priced = Decimal(quantity).scaleb(-_MILLION) if is_token else Decimal(quantity)
    return Charge(
        kind=name,
        quantity=quantity,
        unit=unit,
        priced_quantity=f"{priced:f}",
        priced_unit=f"{10**_MILLION} {unit}" if is_token else unit,
        price=price,
        exact=f"{exact:.{_THOUSANDTHS}f}",
        nanos=nanos,
    )


def _exact(quantity: int, price: str, unit: str) -> Decimal:
    cost = quantity * Decimal(price)
    return cost.scaleb(-_MILLION) if unit == "Tokens" else cost
