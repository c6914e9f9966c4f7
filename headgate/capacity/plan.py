"""The plan: pods, GPUs and cost of each model, and the traffic that it was made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from headgate.capacity.curve import ServiceCurve
from headgate.capacity.forecast import Forecast, Objective, forecast, pods_for_zones, quantile
from headgate.capacity.records import by_tenant
from headgate.capacity.traffic import Arrival, Traffic, think_times_s

HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The demands on the plan."""

    objective: Objective
    growth: float = 1.0
    zones: int = 1
    """The zones over which pods are spread; one of them may be lost."""
    canary_share: float = 0.0
    """The share of the traffic that a canary takes, on pods of its own."""
    prices: Mapping[str, Decimal]
    """By kind of GPU: the price of an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The traffic of one tenant, or of all: medians and 95 % quantiles."""

    tenant: str
    requests: int
    users: int
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    cached_share: float
    pause_s: float
    """The median pause between requests of a user, from start to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The plan for one base model."""

    traffic: Traffic
    shapes: tuple[Shape, ...]
    curve: ServiceCurve
    forecast: Forecast
    canary_pods: int
    pods_in_zones: int | None
    cost_per_month: Decimal | None
    """Of `pods_in_zones` and the canary's pods; None without a price or without an answer."""

    @property
    def gpus(self) -> int | None:
        """The GPUs of all pods."""
        if self.pods_in_zones is None:
            return None
        return (self.pods_in_zones + self.canary_pods) * self.curve.gpus


def plan_model(traffic: Traffic, curve: ServiceCurve, wishes: Wishes) -> ModelPlan:
    """Simulates the traffic, and counts pods, GPUs and money."""
    result = forecast(traffic, curve, wishes.objective, wishes.growth)
    canary = 0
    if wishes.canary_share and result.pods is not None:
        canary = max(1, math.ceil(result.pods * wishes.canary_share))
    pods = None if result.pods is None else pods_for_zones(result.pods, wishes.zones)
    price = wishes.prices.get(curve.gpu)
    cost = None
    if price is not None and pods is not None:
        cost = price * (pods + canary) * curve.gpus * HOURS_PER_MONTH
    return ModelPlan(
        traffic=traffic,
        shapes=_shapes(traffic.arrivals),
        curve=curve,
        forecast=result,
        canary_pods=canary,
        pods_in_zones=pods,
        cost_per_month=cost,
    )


def _shapes(arrivals: Sequence[Arrival]) -> tuple[Shape, ...]:
    """Of each tenant, and of all tenants if there are several."""
    tenants = by_tenant(arrivals)
    shapes = tuple(_shape(name, own) for name, own in tenants.items())
    return shapes if len(shapes) == 1 else (_shape("all tenants", arrivals), *shapes)


def _shape(tenant: str, arrivals: Sequence[Arrival]) -> Shape:
    prompts = [float(each.prompt_tokens) for each in arrivals]
    outputs = [float(each.output_tokens) for each in arrivals]
    cached = sum(each.cached_tokens for each in arrivals)
    return Shape(
        tenant=tenant,
        requests=len(arrivals),
        users=len({(each.tenant, each.user) for each in arrivals}),
        prompt_tokens=(int(quantile(prompts, 0.5)), int(quantile(prompts, 0.95))),
        output_tokens=(int(quantile(outputs, 0.5)), int(quantile(outputs, 0.95))),
        cached_share=cached / (sum(prompts) or 1.0),
        pause_s=quantile(think_times_s(arrivals), 0.5),
    )
