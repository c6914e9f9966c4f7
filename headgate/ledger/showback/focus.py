"""The month as a Cost and Usage dataset of FOCUS 1.3 (focus.finops.org). Pure.

It holds two bills, each with a BillingAccountId of its own: `prices`, the tokens at the prices of
the policy, and `pools`, the cost of the machines. Add up one of the two.
"""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from headgate.core.showback import PoolKind, Showback
from headgate.ledger.cells import safe_text
from headgate.ledger.showback.period import period_of
from headgate.ledger.showback.skus import UNPRICED, Charge, charges_of
from headgate.ledger.showback.split import largest_remainder, shares, works
from headgate.ledger.showback.text import amount
from headgate.ledger.showback.values import Line, MonthReport, Period, PoolMonth

VERSION = "1.3"
METHOD = "headgate-weighted-tokens"
"""docs/showback.md#what-the-machines-cost describes it."""
COLUMNS = (
    *("AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId"),
    *("AllocatedResourceName", "AllocatedTags", "BilledCost", "BillingAccountId"),
    *("BillingAccountName", "BillingAccountType", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription"),
    *("ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountStatus"),
    *("ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice"),
    *("EffectiveCost", "HostProviderName", "InvoiceId", "InvoiceIssuerName", "ListCost"),
    *("ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName"),
    *("PublisherName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory"),
    *("ServiceName", "ServiceProviderName", "ServiceSubcategory", "SkuId", "SkuMeter"),
    *("SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags"),
)
"""Three are always null, as there are no invoices, no more details of a price, and no commitments.
The official validator reads CommitmentDiscountStatus to judge ConsumedQuantity."""
_RATIO_DIGITS = 18
"""With these, price times quantity is the cost to the nano below 5e8 of the currency."""
_BY_THE_HOUR = (PoolKind.ON_DEMAND, PoolKind.SPOT)
_PROVIDER = "Headgate"


def focus_of(report: MonthReport) -> str:
    """The dataset as CSV, with amounts in decimals and times in UTC."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(focus_rows(report))
    return file.getvalue()


def focus_rows(report: MonthReport) -> Iterator[dict[str, str]]:
    """The charges by column. A column that is left out is null."""
    for line in report.lines:
        if line.reason is None:
            for charge in charges_of(line, report.prices.get(line.price_version, {})):
                yield _priced(report, line, charge)
    for pool in report.pools:
        yield from _allocated(report, pool)


def _priced(report: MonthReport, line: Line, charge: Charge) -> dict[str, str]:
    """The charge for one kind of token of a line."""
    is_late = line.corrects is not None
    sku = f"{line.model}/{charge.kind}"
    version = line.price_version if line.price_version in report.prices else UNPRICED
    return {
        **_common(report, _charge_period(report, line), "prices"),
        "BilledCost": amount(charge.nanos),
        "EffectiveCost": amount(charge.nanos),
        "ListCost": charge.exact,
        "ContractedCost": charge.exact,
        "ListUnitPrice": _decimal(charge.price),
        "ContractedUnitPrice": _decimal(charge.price),
        "ChargeCategory": "Adjustment" if charge.kind == UNPRICED else "Usage",
        "ChargeClass": "Correction" if is_late else "",
        "ChargeDescription": safe_text(
            f"{charge.kind} of {line.model}" + (f", corrects {line.corrects}" if is_late else "")
        ),
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": _decimal(str(charge.quantity)) if charge.unit else "",
        "ConsumedUnit": charge.unit,
        "PricingCategory": "Standard" if charge.price else "",
        "PricingQuantity": _decimal(charge.priced_quantity),
        "PricingUnit": charge.priced_unit,
        "SkuId": safe_text(sku),
        "SkuMeter": charge.kind,
        "SkuPriceId": safe_text(f"{sku}/{version}") if charge.price else "",
        "SubAccountId": safe_text(line.tenant),
        "SubAccountName": safe_text(line.tenant),
        "SubAccountType": "Tenant",
        "ResourceId": safe_text(line.model),
        "ResourceName": safe_text(line.model),
        "ResourceType": "Model",
        "Tags": _tags(report, line),
    }


class _Part(NamedTuple):
    """A part of a pool's charge, for a line and its work in thousandths of a token, or for none."""

    name: str
    line: Line | None
    work: int
    nanos: int


def _allocated(report: MonthReport, pool: PoolMonth) -> Iterator[dict[str, str]]:
    """The charge for a pool, split into what each line used, its part of idle, and the rest."""
    parts = list(_parts(report, pool))
    ratios = largest_remainder(10**_RATIO_DIGITS, [part.nanos for part in parts])
    for part, ratio in zip(parts, ratios, strict=True):
        share = f"{Decimal(ratio).scaleb(-_RATIO_DIGITS):.{_RATIO_DIGITS}f}"
        yield {**_of_pool(report, pool, part.nanos, share), **_allocation(report, part, share)}


def _parts(report: MonthReport, pool: PoolMonth) -> Iterator[_Part]:
    """The parts that cost something."""
    work = works(pool.models, report.lines, report.weights)
    used, idle = shares(pool, report.lines, report.weights)
    for line, done, *both in zip(report.lines, work, used, idle, strict=True):
        for name, nanos in zip(("used", "idle"), both, strict=True):
            if nanos:
                yield _Part(name, line, done, nanos)
    if pool.unshared_nanos:
        yield _Part("unshared idle", None, 0, pool.unshared_nanos)


def _of_pool(report: MonthReport, pool: PoolMonth, nanos: int, share: str) -> dict[str, str]:
    """The columns that all parts of a pool's charge share, and costs that add up to it."""
    period = report.period
    costs = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
    return {
        **_common(report, (period.bill_begin, period.bill_end), "pools"),
        **dict.fromkeys(costs, amount(nanos)),
        "ListUnitPrice": amount(pool.amount_nanos),
        "ContractedUnitPrice": amount(pool.amount_nanos),
        "ChargeCategory": "Usage",
        "ChargeDescription": safe_text(f"Pool {pool.name}: {pool.quantity}, {pool.rate}"),
        "ChargeFrequency": "Usage-Based" if pool.kind in _BY_THE_HOUR else "Recurring",
        "ConsumedQuantity": share,
        "ConsumedUnit": "Months",
        "PricingCategory": "Standard",
        "PricingQuantity": share,
        "PricingUnit": "Months",
        "SkuId": pool.name,
        "SkuMeter": pool.kind,
        "SkuPriceId": f"{pool.name}/{period.month}",
        "ResourceId": pool.name,
        "ResourceName": pool.name,
        "ResourceType": "GPU pool",
        "Tags": "{}",
    }


def _allocation(report: MonthReport, part: _Part, share: str) -> dict[str, str]:
    """The columns of a part. Its usage is the work by which the pool's charge was split."""
    line = part.line
    target = "/".join(("",) if line is None else (line.tenant, line.person, line.model, line.label))
    element: dict[str, object] = {"AllocatedRatio": _number(share), "UsageUnit": "Tokens"}
    if line is not None:
        element["UsageQuantity"] = _number(f"{Decimal(part.work).scaleb(-3):f}")
    return {
        "AllocatedMethodId": METHOD,
        "AllocatedMethodDetails": _json({"Elements": [element]}),
        "AllocatedResourceId": safe_text(f"{part.name}: {target}" if target else part.name),
        "AllocatedResourceName": part.name,
        "AllocatedTags": "{}" if line is None else _tags(report, line),
    }


def _common(
    report: MonthReport, charged: tuple[datetime, datetime], account: str
) -> dict[str, str]:
    providers = "ProviderName PublisherName ServiceProviderName HostProviderName InvoiceIssuerName"
    return {
        **dict.fromkeys(providers.split(), _PROVIDER),
        "BillingAccountId": account,
        "BillingAccountName": f"{_PROVIDER} {account}",
        "BillingAccountType": "Deployment",
        "BillingCurrency": report.currency,
        "BillingPeriodStart": _time(report.period.begin),
        "BillingPeriodEnd": _time(report.period.end),
        "ChargePeriodStart": _time(charged[0]),
        "ChargePeriodEnd": _time(charged[1]),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": _PROVIDER,
        "ServiceSubcategory": "Generative AI",
    }


def _charge_period(report: MonthReport, line: Line) -> tuple[datetime, datetime]:
    """The month in which it was used: for a correction an earlier one."""
    period = report.period
    if line.corrects is None:
        return period.begin, period.end
    earlier = _earlier(line.corrects, period)
    return earlier.begin, earlier.end


def _earlier(month: str, period: Period) -> Period:
    return period_of(month, Showback(timezone=period.timezone, billing_day=period.billing_day))


def _tags(report: MonthReport, line: Line) -> str:
    tags = {"tenant": line.tenant, "user_id": line.person, "model": line.model}
    return _json({**tags, report.label: line.label} if line.label else tags)


def _decimal(number: str) -> str:
    """The number with a decimal point: FOCUS wants decimals, and readers of CSV infer types."""
    return f"{number}.0" if number and "." not in number else number


def _number(text: str) -> msgspec.Raw:
    """A number of a JSON object, to the last digit."""
    return msgspec.Raw(text.encode())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
