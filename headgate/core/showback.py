"""The settings of the monthly report: its month, cost pools, cloud prices. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum

from headgate.core.prices import Prices, TokenWeights

DEFAULT_WEIGHTS = TokenWeights(input=1000, cached_input=100, output=4000)
"""The ratio of usual list prices, in thousandths. docs/showback.md tells how to measure yours."""


class PoolKind(StrEnum):
    """How the machines of a pool are paid."""

    OWNED = "owned"
    RESERVED = "reserved"
    ON_DEMAND = "on_demand"
    SPOT = "spot"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPool:
    """Machines that cost money, whoever uses them, and the base models that they run.

    An owned pool costs `hardware` over `hardware_months`, and `power_kw` in each hour at
    `kwh_price`. Any other costs `hour_price` for each hour of a pod: `pods` of them run all the
    time, or `pod_hours` tells the hours of a month by its name, such as `2026-10`.

    `full_tokens_per_s` is the weighted tokens of a second at full load: of one pod, or of all
    machines of an owned pool. None says that it is not known; then nothing counts as idle.
    """

    name: str
    kind: PoolKind
    models: tuple[str, ...]
    hardware: Decimal = Decimal(0)
    hardware_months: int = 1
    power_kw: Decimal = Decimal(0)
    kwh_price: Decimal = Decimal(0)
    hour_price: Decimal = Decimal(0)
    pods: int = 0
    pod_hours: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    full_tokens_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class CloudPrices:
    """The prices of a cloud on a day, for models under the names that clients use here."""

    name: str
    day: date
    models: Mapping[str, Prices] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Showback:
    """The settings of the monthly report.

    Its month begins on `billing_day` at midnight in `timezone`; the bill of hours, in
    `bill_timezone`. `label` names the label of keys by which it can be grouped.
    """

    timezone: str = "UTC"
    billing_day: int = 1
    bill_timezone: str = "UTC"
    label: str = "cost_center"
    weights: TokenWeights = DEFAULT_WEIGHTS
    pools: tuple[CostPool, ...] = ()
    clouds: tuple[CloudPrices, ...] = ()
