"""The prices in a policy file: of a model, of an adapter, of a version, each from a date on."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.core.prices import PriceBook, PricePeriod, Prices
from headgate.policy.fields import Entry, invalid
from headgate.policy.money import PRICE_RULE, UNIT_PRICE_RULE, Price, UnitPrice
from headgate.policy.problems import PolicyRule, shown

FROM_RULE = "a day such as 2026-10-01 (from midnight UTC), or a time such as 2026-10-01T00:00:00Z"
PRICES_RULE = (
    "a mapping with the keys input, output, cached_input, reasoning, audio_second, request,"
    " cached_answer; or a list of such mappings, each with from"
)
CURRENCY_RULE = "three capital letters, such as EUR (ISO 4217)"

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description=CURRENCY_RULE)]


def _moment(value: object) -> object:
    if not isinstance(value, str):
        raise invalid(PolicyRule.NOT_ONE_OF, f"is not a date (value {shown(value)})")
    try:
        if len(value) == len("2026-10-01"):
            day = date.fromisoformat(value)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise invalid(PolicyRule.NOT_ONE_OF, f"is not a date (value {shown(value)})")
    return moment


class PricesEntry(Entry):
    """Prices of a model. All prices of a policy are in the same currency."""

    input: Price
    output: Price
    cached_input: Price | None = Field(default=None, description=PRICE_RULE)
    reasoning: Price | None = Field(default=None, description=PRICE_RULE)
    audio_second: UnitPrice = Field(default=Decimal(0), description=UNIT_PRICE_RULE)
    request: UnitPrice = Field(default=Decimal(0), description=UNIT_PRICE_RULE)
    cached_answer: Price | None = Field(default=None, description=PRICE_RULE)
    from_: Annotated[datetime, BeforeValidator(_moment)] | None = Field(
        default=None, alias="from", description=FROM_RULE
    )


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _in_order(entries: list[PricesEntry]) -> list[PricesEntry]:
    ordered = sorted(entries, key=lambda one: -1 if one.from_ is None else one.from_.timestamp())
    for one, next_one in pairwise(ordered):
        if one.from_ == next_one.from_:
            when = "without from" if one.from_ is None else f"from {one.from_.isoformat()}"
            raise invalid(PolicyRule.TWICE, f"lists prices {when} twice")
    return ordered


PriceList: TypeAlias = Annotated[
    list[PricesEntry],
    Field(min_length=1, description=PRICES_RULE),
    BeforeValidator(_listed),
    AfterValidator(_in_order),
]


def price_book(
    own: list[PricesEntry] | None,
    of_versions: Mapping[str, list[PricesEntry] | None],
    currency: str | None,
    base: PriceBook | None = None,
) -> PriceBook:
    """The book of a model. An adapter without prices has its base's, those of versions too."""
    if own is None and base is not None:
        return base
    versions = {name: _periods(one, currency) for name, one in of_versions.items() if one}
    return PriceBook(_periods(own or [], currency), versions)


def _periods(entries: list[PricesEntry], currency: str | None) -> tuple[PricePeriod, ...]:
    return tuple(
        PricePeriod(
            None if entry.from_ is None else entry.from_.timestamp(), prices_of(entry), currency
        )
        for entry in entries
    )


def prices_of(entry: PricesEntry) -> Prices:
    """The prices of an entry. Without a price of its own, cached input costs as input."""
    return Prices(
        entry.input,
        entry.input if entry.cached_input is None else entry.cached_input,
        entry.output,
        reasoning=entry.reasoning,
        audio_second=entry.audio_second,
        request=entry.request,
        cached_answer=entry.cached_answer,
    )
