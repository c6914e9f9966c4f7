"""Checks a dataset by the rules of FOCUS 1.3 for Cost and Usage that can apply to ours.

The rules are those of the specification's pages about columns, nulls, formats and split cost
allocation. `make test-focus` asks the official validator, whose newest rules of its own are 1.2.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal

from headgate.ledger.showback.focus import COLUMNS

MANDATORY = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency"),
    *("BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass"),
    *("ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost"),
    *("EffectiveCost", "ListCost", "PricingQuantity", "PricingUnit", "ServiceCategory"),
    *("ServiceName", "ServiceProviderName", "HostProviderName", "InvoiceIssuerName"),
)
CONDITIONAL = (
    *("ConsumedQuantity", "ConsumedUnit", "ListUnitPrice", "ContractedUnitPrice", "SkuId"),
    *("SkuMeter", "SkuPriceDetails", "SkuPriceId", "PricingCategory", "ResourceId"),
    *("ResourceName", "ResourceType", "SubAccountId", "SubAccountName", "Tags"),
    *("AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId"),
    *("AllocatedResourceName", "AllocatedTags"),
)
"""Those of a provider with list prices, measured usage, resources, tenants, tags and pools."""
NEVER_NULL = tuple(
    name for name in MANDATORY if name not in ("ChargeClass", "PricingQuantity", "PricingUnit")
)
OF_USAGE = (
    *("ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit", "PricingCategory"),
    *("SkuId", "SkuMeter", "SkuPriceId", "ListUnitPrice", "ContractedUnitPrice"),
)
ALWAYS_NULL = ("InvoiceId", "SkuPriceDetails", "CommitmentDiscountStatus")
WORDS = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NUMBER = re.compile(r"-?\d+\.\d+")
_UNIT = re.compile(r"([1-9]\d* )?(Tokens|Seconds|Requests|Months)")
_NUMBERS = [name for name in COLUMNS if name.endswith(("Cost", "UnitPrice", "Quantity"))]
_TIMES = [name for name in COLUMNS if name.endswith(("PeriodStart", "PeriodEnd"))]
_SPLIT_DIMENSIONS = (
    *("BillingAccountId", "ChargeCategory", "ChargePeriodStart", "PricingUnit", "ResourceId"),
    *("ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "Tags", "ListUnitPrice"),
    *("ChargeFrequency", "ChargePeriodEnd", "ConsumedUnit", "ContractedUnitPrice"),
)
_ONE_PER_PRICE = ("SkuId", "SkuMeter", "ListUnitPrice", "PricingUnit", "PricingCategory")

Row = Mapping[str, str]


def faults(rows: list[Row]) -> list[str]:
    """What breaks a rule, each with the number of its row, from 1."""
    found = [f"{at}: {fault}" for at, row in enumerate(rows, 1) for fault in _of_row(row)]
    return found + list(_of_prices(rows)) + list(_of_splits(rows))


def _of_row(row: Row) -> Iterator[str]:
    yield from (f"{name} is missing" for name in (*MANDATORY, *CONDITIONAL) if name not in row)
    yield from (f"{name} is null" for name in NEVER_NULL if not row.get(name))
    yield from (f"{name} is not null" for name in ALWAYS_NULL if row[name])
    for name, words in WORDS.items():
        if row[name] not in words:
            yield f"{name} is {row[name]}"
    yield from (f"{n} is no time" for n in _TIMES if not _TIME.fullmatch(row[n]))
    yield from (f"{n} is no decimal" for n in _NUMBERS if row[n] and not _NUMBER.fullmatch(row[n]))
    if not re.fullmatch("[A-Z]{3}", row["BillingCurrency"]):
        yield "BillingCurrency is no code"
    if not row["BillingPeriodStart"] < row["BillingPeriodEnd"]:
        yield "the billing period has no length"
    if row["ChargeClass"] != "Correction" and row["ChargePeriodStart"] >= row["BillingPeriodEnd"]:
        yield "the charge is of a later period"
    yield from _of_price(row)
    yield from _of_objects(row)


def _of_price(row: Row) -> Iterator[str]:
    is_usage = row["ChargeCategory"] == "Usage"
    if not is_usage and (row["ConsumedQuantity"] or row["ConsumedUnit"]):
        yield "consumed quantities stand at usage only"
    yield from (f"{name} of usage is null" for name in OF_USAGE if is_usage and not row[name])
    if bool(row["PricingQuantity"]) != bool(row["PricingUnit"]):
        yield "a priced quantity has a unit"
    if bool(row["SkuPriceId"]) != bool(row["ListUnitPrice"]):
        yield "a price has an id"
    if row["SkuPriceId"] and not row["SkuId"]:
        yield "a price belongs to an SKU"
    if row["ChargeCategory"] == "Purchase" and row["ChargeFrequency"] == "Usage-Based":
        yield "a purchase is not usage-based"
    yield from (
        f"{name} is no unit of FOCUS"
        for name in ("ConsumedUnit", "PricingUnit")
        if row[name] and not _UNIT.fullmatch(row[name])
    )
    yield from (f"{kind}Cost is not price times quantity" for kind in _wrong_products(row))


def _wrong_products(row: Row) -> Iterator[str]:
    """The kinds of cost that are not price times quantity to the nano, or as billed without one."""
    for kind in ("List", "Contracted"):
        price, cost = row[f"{kind}UnitPrice"], Decimal(row[f"{kind}Cost"])
        if not price and cost != Decimal(row["BilledCost"]):
            yield kind
        if price and round(Decimal(price) * Decimal(row["PricingQuantity"]) - cost, 9):
            yield kind


def _of_prices(rows: list[Row]) -> Iterator[str]:
    """A price has one SKU, unit and amount."""
    priced: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["SkuPriceId"]:
            priced[row["SkuPriceId"]].append(row)
    for price, charges in priced.items():
        for name in _ONE_PER_PRICE:
            if len({one[name] for one in charges}) != 1:
                yield f"{price}: {name} differs"


def _of_objects(row: Row) -> Iterator[str]:
    for name in ("Tags", "AllocatedTags", "AllocatedMethodDetails"):
        if row[name] and not isinstance(json.loads(row[name]), dict):
            yield f"{name} is no JSON object"
    is_split = bool(row["AllocatedMethodId"])
    for name in ("AllocatedMethodDetails", "AllocatedResourceId", "AllocatedTags"):
        if bool(row[name]) != is_split:
            yield f"{name} stands at allocated charges only"


def _of_splits(rows: list[Row]) -> Iterator[str]:
    """The charges of an origin have its dimensions, and their ratios add up to 1."""
    origins: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["AllocatedMethodId"]:
            origins[row["ResourceId"]].append(row)
    for origin, parts in origins.items():
        details = [json.loads(one["AllocatedMethodDetails"], parse_float=Decimal) for one in parts]
        ratios = [element["AllocatedRatio"] for one in details for element in one["Elements"]]
        if sum(ratios) != 1:
            yield f"{origin}: the ratios add up to {sum(ratios)}"
        if sum(Decimal(one["ConsumedQuantity"]) for one in parts) != 1:
            yield f"{origin}: the quantities are not those of the origin"
        if sum(Decimal(one["BilledCost"]) for one in parts) != Decimal(parts[0]["ListUnitPrice"]):
            yield f"{origin}: the costs are not those of the origin"
        for name in _SPLIT_DIMENSIONS:
            if len({one[name] for one in parts}) != 1:
                yield f"{origin}: {name} differs"
