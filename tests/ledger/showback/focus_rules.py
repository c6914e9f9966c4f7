"""Checks a dataset by the rules of FOCUS 1.3 for Cost and Usage that can apply to ours.

No published validator knows version 1.3 on the Python versions of this project. The rules are
those of the specification's pages about columns, nulls, formats and split cost allocation.
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
NEVER_NULL = tuple(name for name in MANDATORY if name != "ChargeClass")
WORDS = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_NUMBERS = [name for name in COLUMNS if name.endswith(("Cost", "UnitPrice", "Quantity"))]
_TIMES = [name for name in COLUMNS if name.endswith(("PeriodStart", "PeriodEnd"))]
_SPLIT_DIMENSIONS = (
    *("BillingAccountId", "ChargeCategory", "ChargePeriodStart", "PricingUnit", "ResourceId"),
    *("ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "Tags", "ListUnitPrice"),
)

Row = Mapping[str, str]


def faults(rows: list[Row]) -> list[str]:
    """What breaks a rule, each with the number of its row, from 1."""
    found = [f"{at}: {fault}" for at, row in enumerate(rows, 1) for fault in _of_row(row)]
    return found + list(_of_splits(rows))


def _of_row(row: Row) -> Iterator[str]:
    yield from (f"{name} is missing" for name in MANDATORY if name not in row)
    yield from (f"{name} is null" for name in NEVER_NULL if not row.get(name))
    for name, words in WORDS.items():
        if row[name] not in words:
            yield f"{name} is {row[name]}"
    yield from (f"{n} is no time" for n in _TIMES if not _TIME.fullmatch(row[n]))
    yield from (f"{n} is no number" for n in _NUMBERS if row[n] and not _NUMBER.fullmatch(row[n]))
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
    if is_usage != bool(row["ConsumedQuantity"]) or is_usage != bool(row["ConsumedUnit"]):
        yield "consumed quantities stand at usage only"
    if bool(row["SkuPriceId"]) != bool(row["ListUnitPrice"]):
        yield "a price has an id"
    if row["SkuPriceId"] and not row["SkuId"]:
        yield "a price belongs to an SKU"
    if is_usage and row["ListUnitPrice"]:
        exact = Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"])
        if exact != Decimal(row["ListCost"]):
            yield "ListCost is not price times quantity"


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
        if sum(Decimal(one["BilledCost"]) for one in parts) != Decimal(parts[0]["ListUnitPrice"]):
            yield f"{origin}: the costs are not those of the origin"
        for name in _SPLIT_DIMENSIONS:
            if len({one[name] for one in parts}) != 1:
                yield f"{origin}: {name} differs"
