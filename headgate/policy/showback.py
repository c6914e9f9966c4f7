"""The settings of the monthly report in a policy file: its month, cost pools, cloud prices."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from headgate.core.prices import TokenWeights
from headgate.core.showback import DEFAULT_WEIGHTS, CloudPrices, CostPool, PoolKind, Showback
from headgate.policy.fields import NAME_RULE, Amount, Entry, ModelName, Name, Names, invalid
from headgate.policy.limits import WeightsEntry
from headgate.policy.money import UNIT_PRICE_RULE, UnitPrice
from headgate.policy.prices import PricesEntry, prices_of
from headgate.policy.problems import PolicyRule, shown
from headgate.policy.timezones import TIMEZONE_RULE, Timezone

MAX_PODS = 100_000
MAX_MONTHS = 240
POOL_RULE = (
    "an owned pool with hardware and hardware_months; or another with hour_price, and pods or"
    " pod_hours"
)
_THOUSANDTHS = 1000
_DAY_RULE = "the day of the list, such as 2026-10-01"
_PODS_RULE = f"a whole number from 1 to {MAX_PODS}"
_MONTHS_RULE = f"a whole number of months from 1 to {MAX_MONTHS}"
HOURS_RULE = "the hours of pods by month, such as {2026-10: 1412}"
_WEIGHTS_RULE = "a mapping with the keys input, cached_input, output"
_PRICES_RULE = "prices by the name of a model of this file, each with input and output"


def _day(value: object) -> object:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise invalid(PolicyRule.NOT_ONE_OF, f"is not a day (value {shown(value)})") from None


class ShowbackEntry(Entry):
    """The month of the report, and how it is split."""

    timezone: Timezone = Field(default="UTC", description=TIMEZONE_RULE)
    billing_day: int = Field(default=1, ge=1, le=31, description="a day of the month, from 1 to 31")
    bill_timezone: Timezone = Field(default="UTC", description=TIMEZONE_RULE)
    label: Name = Field(default="cost_center", description=NAME_RULE)
    weights: WeightsEntry | None = Field(default=None, description=_WEIGHTS_RULE)


class CostPoolEntry(Entry):
    """Machines and what they cost, whoever uses them."""

    kind: Literal["owned", "reserved", "on_demand", "spot"] = Field(
        description="owned, reserved, on_demand or spot"
    )
    models: Names = Field(description="a list of at least one base model in this file")
    hardware: UnitPrice = Field(default=Decimal(0), description=UNIT_PRICE_RULE)
    hardware_months: int = Field(default=0, ge=0, le=MAX_MONTHS, description=_MONTHS_RULE)
    power_kw: UnitPrice = Field(default=Decimal(0), description=UNIT_PRICE_RULE)
    kwh_price: UnitPrice = Field(default=Decimal(0), description=UNIT_PRICE_RULE)
    hour_price: UnitPrice | None = Field(default=None, description=UNIT_PRICE_RULE)
    pods: int = Field(default=0, ge=0, le=MAX_PODS, description=_PODS_RULE)
    pod_hours: dict[Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")], UnitPrice] = (
        Field(default={}, description=HOURS_RULE)
    )
    full_tokens_per_s: Amount | None = Field(
        default=None, description="a whole number of weighted tokens in a second"
    )


def _whole(pool: CostPoolEntry) -> CostPoolEntry:
    is_owned = pool.hardware > 0 and pool.hardware_months > 0
    is_hired = pool.hour_price is not None and (pool.pods > 0 or bool(pool.pod_hours))
    if is_owned == is_hired or is_owned != (pool.kind == "owned"):
        raise invalid(PolicyRule.NOT_ONE_OF, f"is not a whole pool of kind {pool.kind}")
    return pool


class CloudPricesEntry(Entry):
    """The prices of a cloud, as they were on a day."""

    day: Annotated[date, BeforeValidator(_day)] = Field(description=_DAY_RULE)
    models: dict[ModelName, PricesEntry] = Field(min_length=1, description=_PRICES_RULE)


CostPools = dict[Name, Annotated[CostPoolEntry, AfterValidator(_whole)]]
CloudLists = dict[Name, CloudPricesEntry]


def showback_of(
    entry: ShowbackEntry,
    pools: Mapping[str, CostPoolEntry],
    clouds: Mapping[str, CloudPricesEntry],
) -> Showback:
    """The compiled settings."""
    return Showback(
        timezone=entry.timezone,
        billing_day=entry.billing_day,
        bill_timezone=entry.bill_timezone,
        label=entry.label,
        weights=DEFAULT_WEIGHTS if entry.weights is None else _weights(entry.weights),
        pools=tuple(_pool(name, pool) for name, pool in pools.items()),
        clouds=tuple(
            CloudPrices(name, one.day, {model: prices_of(p) for model, p in one.models.items()})
            for name, one in clouds.items()
        ),
    )


def _weights(entry: WeightsEntry) -> TokenWeights:
    cached = entry.input if entry.cached_input is None else entry.cached_input
    each = (int(weight * _THOUSANDTHS) for weight in (entry.input, cached, entry.output))
    return TokenWeights(*each)


def _pool(name: str, entry: CostPoolEntry) -> CostPool:
    return CostPool(
        name=name,
        kind=PoolKind(entry.kind),
        models=tuple(entry.models),
        hardware=entry.hardware,
        hardware_months=entry.hardware_months or 1,
        power_kw=entry.power_kw,
        kwh_price=entry.kwh_price,
        hour_price=entry.hour_price or Decimal(0),
        pods=entry.pods,
        pod_hours=entry.pod_hours,
        full_tokens_per_s=entry.full_tokens_per_s,
    )
